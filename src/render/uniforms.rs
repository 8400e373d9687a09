//! The view as the shader reads it.

use super::shaders::VoxelFormat;
use super::slice_view::{OverlayStyle, SliceView};
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
const DASHED: u32 = 2;
const PADDING: u32 = 4;

/// What is fixed when a pipeline is made: the overrides of `shaders/slice.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    pub format: VoxelFormat,
    linear: bool,
    lut: u8,
    holes: bool,
    overlay: bool,
    flat: [bool; 3],
}

impl Variant {
    /// Names and values of the overrides.
    pub fn constants(self) -> [(&'static str, f64); 7] {
        let on = |switch: bool| f64::from(u8::from(switch));
        [
            ("LINEAR", on(self.linear)),
            ("LUT", f64::from(self.lut)),
            ("HOLES", on(self.holes)),
            ("OVERLAY", on(self.overlay)),
            ("FLAT_I", on(self.flat[0])),
            ("FLAT_J", on(self.flat[1])),
            ("FLAT_K", on(self.flat[2])),
        ]
    }
}

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
        let (slope, intercept) = match &volume.modality_lut {
            ModalityLut::Rescale { slope, intercept } => (*slope, *intercept),
            // An empty table changes nothing.
            ModalityLut::Table { first, values } if !values.is_empty() => (1.0, *first as f32),
            _ => (1.0, 0.0),
        };
        let flag = |on: bool, bit: u32| if on { bit } else { 0 };
        let overlay = view.overlay.as_ref().filter(|_| labels.is_some());
        let flags = flag(view.invert != volume.inverted, INVERT)
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
            outline_px: overlay.map_or(1, OverlayStyle::outline_px),
            unused: 0,
        }
    }

    /// The pipeline that these uniforms need.
    pub fn variant(&self, view: &SliceView, volume: &Volume, format: VoxelFormat) -> Variant {
        let GridUniforms { origin, dx, dy, .. } = self.image;
        let floats = matches!(volume.voxels, Voxels::F32(_));
        Variant {
            format,
            linear: view.interpolate,
            lut: match &volume.modality_lut {
                ModalityLut::PerSlice(_) => 1,
                ModalityLut::Table { values, .. } if !values.is_empty() => 2,
                _ => 0,
            },
            holes: floats || volume.padding.is_some(),
            overlay: view.overlay.is_some() && self.labels.high != [0.0; 4],
            flat: std::array::from_fn(|a| dx[a] == 0.0 && dy[a] == 0.0 && origin[a].fract() == 0.0),
        }
    }
}
