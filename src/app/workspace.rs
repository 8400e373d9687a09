//! What is shown: the open volume, crosshair, window, and the three views.

use std::sync::Arc;

use super::{JobId, SeriesKey};
use crate::geometry::{DVec2, DVec3, ImagePlane, ViewPlane, VolumeGeometry};
use crate::volume::{Layout, NamedWindow, VoiWindow, Volume, presets_for};

/// Names an open volume; also the key of its textures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VolumeId(pub u64);

/// The volume on screen.
#[derive(Clone, Debug)]
pub struct OpenVolume {
    /// Its name.
    pub id: VolumeId,
    /// Where it came from.
    pub key: SeriesKey,
    /// All voxels, or one slice while the rest loads.
    pub data: Arc<Volume>,
    /// While loading: the job, the slice that `data` holds, and how many there will be.
    pub loading: Option<(JobId, usize, usize)>,
    /// Counts the slices shown while loading, so that textures are renewed.
    pub revision: u64,
    /// Window from the data.
    pub auto_window: VoiWindow,
}

impl OpenVolume {
    /// Whether the three planes can be shown.
    pub fn is_volumetric(&self) -> bool {
        self.loading.is_none()
            && self.data.layout == Layout::Volumetric
            && self.data.geometry.dims()[2] > 1
    }

    /// Windows in the order of the keys: 0 auto, 1 and 2 from the file, 3 and on the modality's.
    pub fn windows(&self) -> Vec<(u8, NamedWindow)> {
        let auto = NamedWindow {
            name: "Auto".to_owned(),
            window: self.auto_window,
        };
        let file = self
            .data
            .windows
            .iter()
            .take(2)
            .cloned()
            .zip(1..)
            .map(|(w, n)| (n, w));
        let presets = presets_for(&self.data.modality)
            .into_iter()
            .zip(3..)
            .map(|(w, n)| (n, w));
        std::iter::once((0, auto))
            .chain(file)
            .chain(presets)
            .collect()
    }
}

/// Zoom and pan of one view.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlaneView {
    /// 1 fits the volume into the tile.
    pub zoom: f64,
    /// Patient point at the middle of the tile, as an offset in the plane from the volume's center.
    pub pan_mm: DVec2,
}

impl Default for PlaneView {
    fn default() -> Self {
        Self {
            zoom: 1.0,
            pan_mm: DVec2::ZERO,
        }
    }
}

/// What is shown and how.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// The volume on screen.
    pub open: Option<OpenVolume>,
    /// Links the views, LPS mm.
    pub crosshair_lps: DVec3,
    /// Gray window.
    pub window: VoiWindow,
    /// Name of the preset in use; `None` after a change by hand.
    pub window_name: Option<String>,
    /// Black and white swapped by the person.
    pub invert: bool,
    /// By `ViewPlane as usize`.
    pub views: [PlaneView; 3],
    /// The view that fills the window.
    pub maximized: Option<ViewPlane>,
    /// The view that keys act on.
    pub active: ViewPlane,
    /// The view of the stored slices: the large one, with the text of the patient.
    pub main: ViewPlane,
    /// Draw the crosshair.
    pub show_crosshair: bool,
}

impl Default for Workspace {
    fn default() -> Self {
        Self {
            open: None,
            crosshair_lps: DVec3::ZERO,
            window: VoiWindow::spanning(0.0, 1.0),
            window_name: None,
            invert: false,
            views: [PlaneView::default(); 3],
            maximized: None,
            active: ViewPlane::Axial,
            main: ViewPlane::Axial,
            show_crosshair: true,
        }
    }
}

impl Workspace {
    /// Shows a volume: crosshair in the middle, window from the file, else a preset, else auto.
    pub fn show(&mut self, open: OpenVolume) {
        let same_grid = self.open.as_ref().is_some_and(|old| old.key == open.key);
        if !same_grid {
            self.views = [PlaneView::default(); 3];
            self.maximized = None;
            self.invert = false;
            self.main = native_plane(&open.data.geometry);
            self.active = self.main;
        }
        let keep_window = same_grid && self.open.is_some();
        if !keep_window {
            let windows = open.windows();
            // A phantom or MR without windows starts with auto; CT with its file's or soft tissue.
            let first = windows
                .iter()
                .find(|(key, _)| *key == 1)
                .or_else(|| windows.iter().find(|(key, _)| *key == 3))
                .unwrap_or(&windows[0]);
            self.window = first.1.window;
            self.window_name = Some(first.1.name.clone());
        }
        let first_full = self
            .open
            .as_ref()
            .is_none_or(|o| o.loading.is_some() || !same_grid);
        if first_full {
            let g = &open.data.geometry;
            let was_slice = self
                .open
                .as_ref()
                .filter(|o| same_grid && o.loading.is_some());
            self.crosshair_lps = match was_slice {
                // Stay on the slice that the person was looking at.
                Some(old) if open.loading.is_none() => {
                    let slice = old.loading.map_or(0, |(_, slice, _)| slice);
                    let [i, j, _] = g.dims().map(|d| (d as f64 - 1.0) / 2.0);
                    g.lps_at(DVec3::new(i.round(), j.round(), slice as f64))
                }
                _ => {
                    let [i, j, k] = g.dims().map(|d| ((d as f64 - 1.0) / 2.0).round());
                    g.lps_at(DVec3::new(i, j, k))
                }
            };
        }
        self.open = Some(open);
    }

    /// Image plane of a view through the crosshair, without zoom and pan; its center is the
    /// crosshair. Plain images have one plane, their own.
    pub fn plane(&self, view: ViewPlane) -> Option<ImagePlane> {
        let open = self.open.as_ref()?;
        let g = &open.data.geometry;
        Some(if open.is_volumetric() {
            ImagePlane::of_grid(g, view, self.crosshair_lps)
        } else {
            stored_plane(g, self.crosshair_lps)
        })
    }

    /// The plane whose center is in the middle of the tile: the volume's center, moved by pan,
    /// at the depth of the crosshair.
    pub fn centered_plane(&self, view: ViewPlane) -> Option<ImagePlane> {
        let open = self.open.as_ref()?;
        let plane = self.plane(view)?;
        let middle = plane.offset_of(open.data.geometry.center_lps());
        let center = plane.lps_at(middle + self.views[view as usize].pan_mm);
        Some(ImagePlane {
            center_lps: center,
            ..plane
        })
    }

    /// Width and height in mm that the volume covers in a view.
    pub fn extent_mm(&self, view: ViewPlane) -> Option<DVec2> {
        let open = self.open.as_ref()?;
        let plane = self.plane(view)?;
        let volumetric = open.is_volumetric();
        let g = &open.data.geometry;
        let mut low = DVec2::INFINITY;
        let mut high = DVec2::NEG_INFINITY;
        if volumetric {
            for corner in g.corners_lps() {
                let offset = plane.offset_of(corner);
                low = low.min(offset);
                high = high.max(offset);
            }
            Some(high - low)
        } else {
            let [ni, nj, _] = g.dims();
            let [si, sj, _] = g.spacing_mm();
            Some(DVec2::new(ni as f64 * si, nj as f64 * sj))
        }
    }

    /// Slice index (from 0) of the crosshair along a view's scroll direction, and the count.
    /// Counted from the side that scrolling starts at (feet, front, right) for volumes.
    pub fn slice(&self, view: ViewPlane) -> Option<(usize, usize)> {
        let open = self.open.as_ref()?;
        if let Some((_, slice, total)) = open.loading {
            return Some((slice, total));
        }
        let g = &open.data.geometry;
        let ijk = g.ijk_at(self.crosshair_lps);
        let axis = if open.is_volumetric() {
            ImagePlane::normal_axis(g, view)
        } else {
            2
        };
        let count = g.dims()[axis];
        let index = (ijk[axis].round().max(0.0) as usize).min(count - 1);
        Some((index, count))
    }

    /// Moves the crosshair by whole slices of a view; stops at the ends. Positive steps go on in
    /// stored order for plain images, and towards head, back and left for volumes.
    pub fn scroll(&mut self, view: ViewPlane, steps: i64) {
        let Some((index, _)) = self.slice(view) else {
            return;
        };
        let Some((.., per_step)) = self.scroll_step(view) else {
            return;
        };
        let sign = if per_step < 0.0 { -1 } else { 1 };
        self.scroll_to(view, (index as i64 + sign * steps).max(0) as usize);
    }

    /// Jumps to a slice index of a view; beyond the last means the last.
    pub fn scroll_to(&mut self, view: ViewPlane, target: usize) {
        let Some((_, count)) = self.slice(view) else {
            return;
        };
        let Some((axis, step, per_step)) = self.scroll_step(view) else {
            return;
        };
        let Some(open) = &self.open else { return };
        let exact = open.data.geometry.ijk_at(self.crosshair_lps)[axis];
        self.crosshair_lps += step * ((target.min(count - 1) as f64 - exact) / per_step);
    }

    /// Grid axis that a view scrolls along, one step in mm, and the indices that it crosses (±1).
    /// `None` while slices are still loading: the app asks for the slice instead.
    fn scroll_step(&self, view: ViewPlane) -> Option<(usize, DVec3, f64)> {
        let open = self.open.as_ref().filter(|open| open.loading.is_none())?;
        let g = &open.data.geometry;
        let (axis, step) = if open.is_volumetric() {
            let plane = ImagePlane::of_grid(g, view, self.crosshair_lps);
            (ImagePlane::normal_axis(g, view), plane.scroll_step(g, view))
        } else {
            (2, g.lps_from_ijk().matrix3.col(2))
        };
        let per_step = g.ijk_from_lps().transform_vector3(step)[axis];
        Some((axis, step, per_step))
    }

    /// Puts the crosshair at a patient position, kept inside the volume, on voxel centers of
    /// the scroll axes so that every view shows stored slices.
    pub fn set_crosshair(&mut self, lps_mm: DVec3) {
        let Some(open) = &self.open else { return };
        let g = &open.data.geometry;
        let dims = g.dims().map(|d| d as f64 - 1.0);
        let ijk = g.ijk_at(lps_mm);
        let snapped = DVec3::new(
            ijk.x.round().clamp(0.0, dims[0]),
            ijk.y.round().clamp(0.0, dims[1]),
            ijk.z.round().clamp(0.0, dims[2]),
        );
        self.crosshair_lps = g.lps_at(snapped);
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

/// The plane of the stored pixels: columns to the right, rows down.
fn stored_plane(geometry: &VolumeGeometry, through_lps: DVec3) -> ImagePlane {
    ImagePlane {
        center_lps: through_lps,
        right: geometry.direction(0),
        down: geometry.direction(1),
    }
}
