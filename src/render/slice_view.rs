//! What to draw: everything in patient space, as plain data.

use crate::geometry::{DVec2, DVec3, ImagePlane, VolumeGeometry};
use crate::volume::VoiWindow;

/// A flat picture of a volume.
#[derive(Clone, Debug, PartialEq)]
pub struct SliceView {
    /// Plane; its center is the middle of the picture.
    pub plane: ImagePlane,
    /// Size of a pixel.
    pub mm_per_pixel: f64,
    /// Width and height in pixels.
    pub size_px: [u32; 2],
    /// Gray window.
    pub window: VoiWindow,
    /// Black and white swapped (on top of MONOCHROME1).
    pub invert: bool,
    /// Trilinear; else nearest voxel.
    pub interpolate: bool,
    /// Color outside of the volume, sRGB.
    pub background: [u8; 3],
    /// How labels are drawn, if at all.
    pub overlay: Option<OverlayStyle>,
}

/// How labels are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct OverlayStyle {
    /// Fill opacity, 0 to 1.
    pub fill: f32,
    /// Outline opacity, 0 to 1.
    pub outline: f32,
    /// Width of the outline in pixels, 1 to [`OverlayStyle::WIDEST`].
    pub outline_px: u32,
    /// Outline of results that nobody has reviewed.
    pub dashed: bool,
    /// sRGB by label; `None` is not drawn. Label 0 never is.
    pub colors: Box<[Option<[u8; 3]>; 256]>,
}

impl OverlayStyle {
    /// Widest outline, in pixels.
    pub const WIDEST: u32 = 8;

    /// Width of the outline within its bounds.
    pub fn outline_px(&self) -> u32 {
        self.outline_px.clamp(1, Self::WIDEST)
    }
}

/// A picture: RGBA bytes, row by row, gamma-encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RgbaPixels {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Four bytes a pixel.
    pub rgba: Vec<u8>,
}

/// Voxel index of the middle of a view, and its change per pixel to the right and down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GridMapping {
    /// Middle of the view.
    pub origin: DVec3,
    /// Per pixel to the right.
    pub dx: DVec3,
    /// Per pixel down.
    pub dy: DVec3,
}

impl SliceView {
    /// Where the view's pixels lie on a grid.
    pub fn on_grid(&self, geometry: &VolumeGeometry) -> GridMapping {
        let ijk = |lps: DVec3| geometry.ijk_from_lps().transform_vector3(lps);
        GridMapping {
            origin: geometry.ijk_at(self.plane.center_lps),
            dx: ijk(self.plane.right * self.mm_per_pixel),
            dy: ijk(self.plane.down * self.mm_per_pixel),
        }
    }

    /// Offset from the middle of the view of a pixel's center, in pixels.
    pub fn from_middle(&self, x: u32, y: u32) -> DVec2 {
        DVec2::new(
            f64::from(x) + 0.5 - f64::from(self.size_px[0]) / 2.0,
            f64::from(y) + 0.5 - f64::from(self.size_px[1]) / 2.0,
        )
    }
}
