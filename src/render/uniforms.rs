//! The view as the shader reads it.

use super::slice_view::SliceView;
use super::textures::GridTexture;
use crate::geometry::{DVec3, VolumeGeometry};
use crate::volume::{LabelMap, ModalityLut, VoiFunction, Volume, Voxels};

/// Mirror of `View` in `shaders/common/view.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub struct ViewUniforms {
    image: GridUniforms,
    labels: GridUniforms,
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
    outline_px: u32,
    unused: u32,
}

/// Where the pixels of a view lie in a texture, and its bounds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct GridUniforms {
    origin: [f32; 4],
    dx: [f32; 4],
    dy: [f32; 4],
    low: [f32; 4],
    high: [f32; 4],
}

const _: () = assert!(size_of::<ViewUniforms>() == 240);

const INVERT: u32 = 1;
const LINEAR: u32 = 2;
const COLOR: u32 = 4;
const LABELS: u32 = 8;
const DASHED: u32 = 16;
const PADDING: u32 = 32;
const PER_SLICE: u32 = 64;
const TABLE: u32 = 128;

impl GridUniforms {
    fn new(view: &SliceView, geometry: &VolumeGeometry, texture: &GridTexture) -> Self {
        let per_texel = texture.voxels_per_texel().map(|n| n as f64);
        let per_texel = DVec3::from_array(per_texel);
        let grid = view.on_grid(geometry);
        let dims = DVec3::from_array(geometry.dims().map(|n| n as f64));
        // Half a voxel around the outermost centers still belongs to the image.
        let mut low = DVec3::splat(-0.5) / per_texel;
        let mut high = (dims - 0.5) / per_texel;
        // Slices that are not on the GPU yet are not drawn: zeros would look like tissue.
        let loaded = texture.loaded();
        if loaded.start > 0 {
            low.z = loaded.start as f64 - 0.5;
        }
        if loaded.end < texture.dims()[2] {
            high.z = loaded.end as f64 - 0.5;
        }
        let vec = |v: DVec3| [v.x as f32, v.y as f32, v.z as f32, 0.0];
        Self {
            origin: vec(snapped(grid.origin / per_texel, 1e-6)),
            dx: vec(snapped(grid.dx / per_texel, 1e-9)),
            dy: vec(snapped(grid.dy / per_texel, 1e-9)),
            low: vec(low),
            high: vec(high),
        }
    }
}

/// Rounding of the affine taken back: planes through voxel centers need four texels, not eight.
fn snapped(v: DVec3, within: f64) -> DVec3 {
    DVec3::from_array(v.to_array().map(|x| {
        let whole = x.round();
        if (x - whole).abs() < within { whole } else { x }
    }))
}

impl ViewUniforms {
    /// Packs a view of a volume; `viewport_origin` is its left upper corner in the target.
    pub fn new(
        view: &SliceView,
        (volume, texture): (&Volume, &GridTexture),
        labels: Option<(&LabelMap, &GridTexture)>,
        viewport_origin: [f32; 2],
    ) -> Self {
        let (slope, intercept, lut) = match &volume.modality_lut {
            ModalityLut::Rescale { slope, intercept } => (*slope, *intercept, 0),
            ModalityLut::PerSlice(_) => (1.0, 0.0, PER_SLICE),
            // An empty table changes nothing.
            ModalityLut::Table { values, .. } if values.is_empty() => (1.0, 0.0, 0),
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
            image: GridUniforms::new(view, &volume.geometry, texture),
            labels: labels.map_or_else(GridUniforms::default, |(map, texture)| {
                GridUniforms::new(view, &map.geometry, texture)
            }),
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
            outline_px: overlay.map_or(1, |o| o.outline_px()),
            unused: 0,
        }
    }
}
