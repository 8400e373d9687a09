//! What to draw: everything in patient space, as plain data.

use crate::geometry::{DVec2, DVec3, ImagePlane, ViewPlane, VolumeGeometry};
use crate::volume::{Layout, VoiWindow, Volume};

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
    /// A slice of the grid that just fits into `size_px`, on black.
    ///
    /// `slice` counts along the grid axis that leaves the plane; beyond the last means the last,
    /// `None` the middle. Plain images have one plane, their own, whatever is asked for.
    pub fn fitted(
        volume: &Volume,
        plane: Option<ViewPlane>,
        slice: Option<usize>,
        size_px: [u32; 2],
        window: VoiWindow,
    ) -> Self {
        let g = &volume.geometry;
        let volumetric = volume.layout == Layout::Volumetric;
        let standard = plane.unwrap_or_else(|| native_plane(g));
        let axis = if volumetric {
            ImagePlane::normal_axis(g, standard)
        } else {
            2
        };
        let mut ijk = g.dims().map(|n| (n as f64 - 1.0) / 2.0);
        let last = g.dims()[axis] - 1;
        ijk[axis] = slice.unwrap_or(g.dims()[axis] / 2).min(last) as f64;
        let middle = g.lps_at(DVec3::from_array(ijk));
        let (mut plane, corners) = if volumetric {
            (
                ImagePlane::of_grid(g, standard, middle),
                g.corners_lps().to_vec(),
            )
        } else {
            let stored = ImagePlane {
                center_lps: middle,
                right: g.direction(0),
                down: g.direction(1),
            };
            let half = [0, 1].map(|a| g.lps_from_ijk().matrix3.col(a) * g.dims()[a] as f64 / 2.0);
            (
                stored,
                vec![middle - half[0] - half[1], middle + half[0] + half[1]],
            )
        };
        let offsets = corners.iter().map(|&corner| plane.offset_of(corner));
        let (low, high) = offsets.fold((DVec2::INFINITY, DVec2::NEG_INFINITY), |(a, b), offset| {
            (a.min(offset), b.max(offset))
        });
        plane.center_lps = plane.lps_at((low + high) / 2.0);
        let [w, h] = size_px.map(|n| f64::from(n.max(1)));
        let extent = high - low;
        Self {
            plane,
            mm_per_pixel: (extent.x / w).max(extent.y / h) * 1.02,
            size_px,
            window,
            invert: false,
            interpolate: true,
            background: [0; 3],
            overlay: None,
        }
    }

    /// Slices that [`SliceView::fitted`] counts in a plane.
    pub fn slice_count(volume: &Volume, plane: Option<ViewPlane>) -> usize {
        let g = &volume.geometry;
        let axis = match plane {
            Some(plane) if volume.layout == Layout::Volumetric => ImagePlane::normal_axis(g, plane),
            _ => 2,
        };
        g.dims()[axis]
    }

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

/// The standard plane that the stored slices are closest to.
fn native_plane(geometry: &VolumeGeometry) -> ViewPlane {
    match geometry.nearest_axes() {
        [_, _, 2] => ViewPlane::Axial,
        [_, 2, _] => ViewPlane::Coronal,
        _ => ViewPlane::Sagittal,
    }
}
