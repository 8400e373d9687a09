//! The view as the shader reads it.

use super::slice_view::{GridMapping, SliceView};
use crate::geometry::DVec3;
use crate::volume::{LabelMap, ModalityLut, VoiFunction, Volume, Voxels};

/// Mirror of `View` in `shaders/common/view.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub struct ViewUniforms {
    origin: [f32; 4],
    dx: [f32; 4],
    dy: [f32; 4],
    label_origin: [f32; 4],
    label_dx: [f32; 4],
    label_dy: [f32; 4],
    background: [f32; 4],
    size: [f32; 2],
    viewport_origin: [f32; 2],
    slope: f32,
    intercept: f32,
    center: f32,
    width: f32,
    voi_function: u32,
    flags: u32,
    padding_low: f32,
    padding_high: f32,
    fill: f32,
    outline: f32,
    _pad: [f32; 2],
}

const _: () = assert!(size_of::<ViewUniforms>() == 176);

const INVERT: u32 = 1;
const LINEAR: u32 = 2;
const COLOR: u32 = 4;
const LABELS: u32 = 8;
const DASHED: u32 = 16;
const PADDING: u32 = 32;
const PER_SLICE: u32 = 64;
const TABLE: u32 = 128;

impl ViewUniforms {
    /// Packs a view of a volume; `viewport_origin` is its left upper corner in the target.
    pub fn new(
        view: &SliceView,
        volume: &Volume,
        labels: Option<&LabelMap>,
        viewport_origin: [f32; 2],
    ) -> Self {
        let vec = |v: DVec3| [v.x as f32, v.y as f32, v.z as f32, 0.0];
        let grid = view.on_grid(&volume.geometry);
        let none = GridMapping {
            origin: DVec3::ZERO,
            dx: DVec3::ZERO,
            dy: DVec3::ZERO,
        };
        let label_grid = labels.map_or(none, |map| view.on_grid(&map.geometry));
        let (slope, intercept, lut) = match &volume.modality_lut {
            ModalityLut::Rescale { slope, intercept } => (*slope, *intercept, 0),
            ModalityLut::PerSlice(_) => (1.0, 0.0, PER_SLICE),
            ModalityLut::Table { first, .. } => (1.0, *first as f32, TABLE),
        };
        let flag = |on: bool, bit: u32| if on { bit } else { 0 };
        let overlay = view.overlay.as_ref().filter(|_| labels.is_some());
        let flags = lut
            | flag(view.invert != volume.inverted, INVERT)
            | flag(view.interpolate, LINEAR)
            | flag(matches!(volume.voxels, Voxels::Rgb8(_)), COLOR)
            | flag(overlay.is_some(), LABELS)
            | flag(overlay.is_some_and(|o| o.dashed), DASHED)
            | flag(volume.padding.is_some(), PADDING);
        let (padding_low, padding_high) = volume.padding.unwrap_or((0.0, 0.0));
        let [r, g, b] = view.background.map(|c| f32::from(c) / 255.0);
        Self {
            origin: vec(grid.origin),
            dx: vec(grid.dx),
            dy: vec(grid.dy),
            label_origin: vec(label_grid.origin),
            label_dx: vec(label_grid.dx),
            label_dy: vec(label_grid.dy),
            background: [r, g, b, 1.0],
            size: view.size_px.map(|n| n as f32),
            viewport_origin,
            slope,
            intercept,
            center: view.window.center,
            width: view.window.width,
            voi_function: match view.window.function {
                VoiFunction::Linear => 0,
                VoiFunction::LinearExact => 1,
                VoiFunction::Sigmoid => 2,
            },
            flags,
            padding_low,
            padding_high,
            fill: overlay.map_or(0.0, |o| o.fill),
            outline: overlay.map_or(0.0, |o| o.outline),
            _pad: [0.0; 2],
        }
    }
}
