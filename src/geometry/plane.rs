//! A flat image in the patient: where a view's pixels lie.

use super::{DVec2, DVec3, VolumeGeometry, direction_letters};

/// The three standard planes of the patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ViewPlane {
    /// Seen from the feet: patient right on the left of the image, anterior up.
    Axial,
    /// Seen from the front: patient right on the left of the image, head up.
    Coronal,
    /// Seen from the patient's left: anterior on the left of the image, head up.
    Sagittal,
}

impl ViewPlane {
    /// In the order of the viewports.
    pub const ALL: [Self; 3] = [Self::Axial, Self::Coronal, Self::Sagittal];

    /// Unit vectors in LPS: image right, image down, and into the screen for scrolling.
    // CLINICAL(laterality): radiological convention.
    pub const fn axes_lps(self) -> [DVec3; 3] {
        match self {
            Self::Axial => [DVec3::X, DVec3::Y, DVec3::Z],
            Self::Coronal => [DVec3::X, DVec3::NEG_Z, DVec3::Y],
            Self::Sagittal => [DVec3::Y, DVec3::NEG_Z, DVec3::X],
        }
    }

    /// Name on screen.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Axial => "Axial",
            Self::Coronal => "Coronal",
            Self::Sagittal => "Sagittal",
        }
    }
}

/// A plane through the patient: `center_lps`, unit `right` and `down` directions in LPS.
///
/// A point of the image is `center + right·x + down·y` with x, y in mm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImagePlane {
    /// Middle of the image, LPS mm.
    pub center_lps: DVec3,
    /// Direction of increasing columns.
    pub right: DVec3,
    /// Direction of increasing rows.
    pub down: DVec3,
}

impl ImagePlane {
    /// A standard plane through a point.
    pub fn standard(plane: ViewPlane, through_lps: DVec3) -> Self {
        let [right, down, _] = plane.axes_lps();
        Self {
            center_lps: through_lps,
            right,
            down,
        }
    }

    /// The plane of the grid itself nearest to `plane`, through `through_lps`.
    ///
    /// The image axes follow the grid's own axes (so that stored pixels are shown straight in
    /// oblique stacks), turned to the radiological convention. Scrolling follows the axis
    /// of [`ImagePlane::normal_axis`].
    pub fn of_grid(geometry: &VolumeGeometry, plane: ViewPlane, through_lps: DVec3) -> Self {
        let nearest = geometry.nearest_axes();
        let along = |target: DVec3| {
            let a = target.abs();
            let patient_axis = if a.x > 0.5 {
                0
            } else if a.y > 0.5 {
                1
            } else {
                2
            };
            let d = geometry.direction(nearest[patient_axis]);
            if d.dot(target) < 0.0 { -d } else { d }
        };
        let [right, down, _] = plane.axes_lps();
        let (right, down) = (along(right), along(down));
        // Sheared grids (gantry tilt): the screen has right angles, so the image must have them too.
        let down = (down - right * right.dot(down)).normalize();
        Self {
            center_lps: through_lps,
            right,
            down,
        }
    }

    /// One step of scrolling in mm along [`ImagePlane::normal`], positive towards the head, the
    /// back or the patient's left: the distance between neighboring planes of the grid.
    pub fn scroll_step(&self, geometry: &VolumeGeometry, plane: ViewPlane) -> DVec3 {
        let axis = Self::normal_axis(geometry, plane);
        let normal = self.normal();
        let step = normal * geometry.lps_from_ijk().matrix3.col(axis).dot(normal);
        let [.., into] = plane.axes_lps();
        if step.dot(into) < 0.0 { -step } else { step }
    }

    /// The grid axis (0, 1, 2) that leaves a plane of [`ImagePlane::of_grid`].
    pub fn normal_axis(geometry: &VolumeGeometry, plane: ViewPlane) -> usize {
        let nearest = geometry.nearest_axes();
        match plane {
            ViewPlane::Axial => nearest[2],
            ViewPlane::Coronal => nearest[1],
            ViewPlane::Sagittal => nearest[0],
        }
    }

    /// Unit normal, `right × down`.
    pub fn normal(&self) -> DVec3 {
        self.right.cross(self.down).normalize_or_zero()
    }

    /// Patient position of an offset from the center, in mm.
    pub fn lps_at(&self, offset_mm: DVec2) -> DVec3 {
        self.center_lps + self.right * offset_mm.x + self.down * offset_mm.y
    }

    /// Offset in mm of a patient position, projected along the normal.
    pub fn offset_of(&self, lps_mm: DVec3) -> DVec2 {
        let d = lps_mm - self.center_lps;
        // right and down may be slightly oblique to each other (gantry tilt): solve, do not project.
        let (rr, rd, dd) = (
            self.right.dot(self.right),
            self.right.dot(self.down),
            self.down.dot(self.down),
        );
        let (r, w) = (d.dot(self.right), d.dot(self.down));
        let det = rr * dd - rd * rd;
        DVec2::new((r * dd - w * rd) / det, (w * rr - r * rd) / det)
    }

    /// Letters at the left, right, top and bottom edge.
    pub fn edge_letters(&self) -> [String; 4] {
        [
            direction_letters(-self.right),
            direction_letters(self.right),
            direction_letters(-self.down),
            direction_letters(self.down),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clinical_laterality_patient_right_is_on_the_left_of_the_image() {
        for plane in [ViewPlane::Axial, ViewPlane::Coronal] {
            let letters = ImagePlane::standard(plane, DVec3::ZERO).edge_letters();
            assert_eq!((letters[0].as_str(), letters[1].as_str()), ("R", "L"));
        }
        let sagittal = ImagePlane::standard(ViewPlane::Sagittal, DVec3::ZERO).edge_letters();
        assert_eq!(sagittal, ["A", "P", "H", "F"]);
    }

    #[test]
    fn clinical_laterality_grid_planes_turn_reversed_stacks_around() {
        // A grid that runs right-to-left, posterior-to-anterior, head-to-foot.
        let g = VolumeGeometry::from_axes(
            [8, 8, 8],
            DVec3::ZERO,
            [DVec3::NEG_X, DVec3::NEG_Y, DVec3::NEG_Z],
            [1.0; 3],
        )
        .unwrap();
        let plane = ImagePlane::of_grid(&g, ViewPlane::Axial, g.center_lps());
        assert_eq!(plane.edge_letters(), ["R", "L", "A", "P"]);
    }

    #[test]
    fn scrolling_crosses_one_slice_of_a_tilted_stack() {
        let tilt = 18.5_f64.to_radians();
        let j = DVec3::new(0.0, tilt.cos(), -tilt.sin());
        let g = VolumeGeometry::from_axes(
            [8, 8, 8],
            DVec3::ZERO,
            [DVec3::X, j, DVec3::Z],
            [1.0, 1.0, 4.0],
        )
        .unwrap();
        let center = g.center_lps();
        for view in ViewPlane::ALL {
            let plane = ImagePlane::of_grid(&g, view, center);
            assert!(plane.right.dot(plane.down).abs() < 1e-12);
            let axis = ImagePlane::normal_axis(&g, view);
            let moved = g.ijk_at(center + plane.scroll_step(&g, view)) - g.ijk_at(center);
            assert!((moved[axis].abs() - 1.0).abs() < 1e-9, "{view:?} {moved}");
        }
    }

    #[test]
    fn offsets_invert_positions_on_a_sheared_plane() {
        let plane = ImagePlane {
            center_lps: DVec3::new(1.0, 2.0, 3.0),
            right: DVec3::X,
            down: DVec3::new(0.0, 0.9, 0.435_889_894_354_067_3),
        };
        let offset = DVec2::new(3.5, -7.25);
        assert!(
            plane
                .offset_of(plane.lps_at(offset))
                .abs_diff_eq(offset, 1e-9)
        );
    }
}
