//! A regular voxel grid in the patient.

use super::{DAffine3, DMat3, DVec3};

/// Why a grid cannot be placed in the patient.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A dimension is zero, or the voxel count overflows.
    #[error("a grid of {0:?} voxels cannot be used")]
    Dims([usize; 3]),
    /// The affine is not finite or has no inverse.
    #[error("the voxel grid has no volume: axes are zero, parallel or not finite")]
    Singular,
}

/// Dims `[i, j, k]` = columns, rows, slices, and the affine from voxel indices to LPS mm.
///
/// Whole indices are voxel centers. Voxel memory: i fastest, then j, then k.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumeGeometry {
    dims: [usize; 3],
    lps_from_ijk: DAffine3,
    ijk_from_lps: DAffine3,
}

impl VolumeGeometry {
    /// # Errors
    /// A dimension of zero, a voxel count beyond `isize`, or an affine without inverse.
    pub fn new(dims: [usize; 3], lps_from_ijk: DAffine3) -> Result<Self, Error> {
        let count = dims.iter().try_fold(1_usize, |n, &d| n.checked_mul(d));
        if !count.is_some_and(|n| n > 0 && n < isize::MAX as usize) {
            return Err(Error::Dims(dims));
        }
        let m = lps_from_ijk.matrix3;
        let lengths = m.x_axis.length() * m.y_axis.length() * m.z_axis.length();
        let volume = m.determinant().abs();
        // 1e-4 of the box: axes within about 0.006° of one plane are an error in the data.
        if !lps_from_ijk.is_finite() || lengths <= 0.0 || volume < 1e-4 * lengths {
            return Err(Error::Singular);
        }
        Ok(Self {
            dims,
            lps_from_ijk,
            ijk_from_lps: lps_from_ijk.inverse(),
        })
    }

    /// From a position of voxel (0,0,0), unit directions of i, j, k and spacing in mm.
    ///
    /// # Errors
    /// As [`VolumeGeometry::new`].
    pub fn from_axes(
        dims: [usize; 3],
        origin_lps: DVec3,
        axes: [DVec3; 3],
        spacing_mm: [f64; 3],
    ) -> Result<Self, Error> {
        let m = DMat3::from_cols(
            axes[0] * spacing_mm[0],
            axes[1] * spacing_mm[1],
            axes[2] * spacing_mm[2],
        );
        Self::new(dims, DAffine3::from_mat3_translation(m, origin_lps))
    }

    /// The grid of the voxels from `first` on, `dims` of them; `None` where they are not all in it.
    pub fn part(&self, first: [usize; 3], dims: [usize; 3]) -> Option<Self> {
        let inside = (0..3).all(|axis| {
            let end = first[axis].checked_add(dims[axis]);
            dims[axis] > 0 && end.is_some_and(|end| end <= self.dims[axis])
        });
        let shift = DVec3::from_array(first.map(|n| n as f64));
        inside
            .then(|| Self::new(dims, self.lps_from_ijk * DAffine3::from_translation(shift)).ok())
            .flatten()
    }

    /// `[i, j, k]` = columns, rows, slices.
    pub const fn dims(&self) -> [usize; 3] {
        self.dims
    }

    /// Number of voxels.
    pub const fn voxel_count(&self) -> usize {
        self.dims[0] * self.dims[1] * self.dims[2]
    }

    /// Voxel indices to LPS mm.
    pub const fn lps_from_ijk(&self) -> DAffine3 {
        self.lps_from_ijk
    }

    /// LPS mm to voxel indices.
    pub const fn ijk_from_lps(&self) -> DAffine3 {
        self.ijk_from_lps
    }

    /// Four rows of four numbers, as `info --json` prints them.
    pub fn lps_from_ijk_rows(&self) -> [[f64; 4]; 4] {
        let (m, t) = (self.lps_from_ijk.matrix3, self.lps_from_ijk.translation);
        [
            [m.x_axis.x, m.y_axis.x, m.z_axis.x, t.x],
            [m.x_axis.y, m.y_axis.y, m.z_axis.y, t.y],
            [m.x_axis.z, m.y_axis.z, m.z_axis.z, t.z],
            [0.0, 0.0, 0.0, 1.0],
        ]
    }

    /// Distance between neighbors along i, j, k in mm.
    pub fn spacing_mm(&self) -> [f64; 3] {
        let m = self.lps_from_ijk.matrix3;
        [m.x_axis.length(), m.y_axis.length(), m.z_axis.length()]
    }

    /// Unit direction of axis 0, 1 or 2 in LPS.
    pub fn direction(&self, axis: usize) -> DVec3 {
        self.lps_from_ijk.matrix3.col(axis).normalize()
    }

    /// Volume of one voxel in mm³ (exact for sheared grids too).
    pub fn voxel_volume_mm3(&self) -> f64 {
        self.lps_from_ijk.matrix3.determinant().abs()
    }

    /// Patient position of a voxel index (fractions allowed).
    pub fn lps_at(&self, ijk: DVec3) -> DVec3 {
        self.lps_from_ijk.transform_point3(ijk)
    }

    /// Voxel index of a patient position (not rounded, may lie outside).
    pub fn ijk_at(&self, lps_mm: DVec3) -> DVec3 {
        self.ijk_from_lps.transform_point3(lps_mm)
    }

    /// Patient position of the middle of the grid.
    pub fn center_lps(&self) -> DVec3 {
        let [i, j, k] = self.dims.map(|d| (d as f64 - 1.0) / 2.0);
        self.lps_at(DVec3::new(i, j, k))
    }

    /// The eight corners of the grid's outer faces, in LPS mm.
    pub fn corners_lps(&self) -> [DVec3; 8] {
        let hi = self.dims.map(|d| d as f64 - 0.5);
        std::array::from_fn(|n| {
            let pick = |axis: usize| if n >> axis & 1 == 1 { hi[axis] } else { -0.5 };
            self.lps_at(DVec3::new(pick(0), pick(1), pick(2)))
        })
    }

    /// Whether the axes stand at right angles, within `tolerance` of the cosine.
    pub fn is_orthogonal(&self, tolerance: f64) -> bool {
        let [i, j, k] = [self.direction(0), self.direction(1), self.direction(2)];
        [i.dot(j), j.dot(k), k.dot(i)]
            .iter()
            .all(|c| c.abs() <= tolerance)
    }

    /// For each patient axis (L, P, H): the grid axis that runs closest to it. A permutation.
    pub fn nearest_axes(&self) -> [usize; 3] {
        let d = [self.direction(0), self.direction(1), self.direction(2)];
        let permutations = [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ];
        permutations
            .into_iter()
            .max_by(|a, b| {
                let score = |p: &[usize; 3]| d[p[0]].x.abs() + d[p[1]].y.abs() + d[p[2]].z.abs();
                score(a).total_cmp(&score(b))
            })
            .expect("the list of permutations is not empty")
    }

    /// Memory index of a voxel.
    pub const fn index(&self, i: usize, j: usize, k: usize) -> usize {
        (k * self.dims[1] + j) * self.dims[0] + i
    }

    /// Whether two grids have the same dims and positions within `tolerance_mm` at every corner.
    pub fn same_grid(&self, other: &Self, tolerance_mm: f64) -> bool {
        self.dims == other.dims
            && self
                .corners_lps()
                .iter()
                .zip(other.corners_lps())
                .all(|(a, b)| a.distance(b) <= tolerance_mm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oblique() -> VolumeGeometry {
        let r = DMat3::from_euler(glam::EulerRot::XYZ, 0.3, -0.2, 0.5);
        VolumeGeometry::from_axes(
            [4, 5, 6],
            DVec3::new(-10.0, 20.0, 5.0),
            [r.x_axis, r.y_axis, r.z_axis],
            [0.5, 0.7, 3.0],
        )
        .unwrap()
    }

    #[test]
    fn a_part_lies_where_its_voxels_lie() {
        let g = oblique();
        let [i, j, k] = g.dims();
        let part = g.part([1, 2, 1], [i - 1, j - 3, k - 1]).unwrap();
        assert_eq!(part.dims(), [i - 1, j - 3, k - 1]);
        let at = DVec3::new(0.5, 1.0, 0.0);
        let whole = g.lps_at(at + DVec3::new(1.0, 2.0, 1.0));
        assert!((part.lps_at(at) - whole).length() < 1e-9);
        assert_eq!(g.part([1, 0, 0], g.dims()), None);
        assert_eq!(g.part([0; 3], [0, j, k]), None);
        assert_eq!(g.part([usize::MAX, 0, 0], [1; 3]), None);
    }

    #[test]
    fn index_survives_a_round_trip_through_the_patient() {
        let g = oblique();
        let ijk = DVec3::new(1.25, 3.0, 4.5);
        assert!(g.ijk_at(g.lps_at(ijk)).abs_diff_eq(ijk, 1e-9)); // f64 affine
    }

    #[test]
    fn grids_without_volume_are_refused() {
        let flat = VolumeGeometry::from_axes(
            [2, 2, 2],
            DVec3::ZERO,
            [DVec3::X, DVec3::X, DVec3::Z],
            [1.0; 3],
        );
        assert_eq!(flat, Err(Error::Singular));
        let nan = DAffine3::from_translation(DVec3::NAN);
        assert_eq!(VolumeGeometry::new([1, 1, 1], nan), Err(Error::Singular));
        assert!(VolumeGeometry::new([0, 1, 1], DAffine3::IDENTITY).is_err());
        assert!(VolumeGeometry::new([usize::MAX, 2, 2], DAffine3::IDENTITY).is_err());
    }

    #[test]
    fn nearest_axes_of_a_sagittal_stack() {
        let g = VolumeGeometry::from_axes(
            [2, 3, 4],
            DVec3::ZERO,
            [DVec3::Y, DVec3::NEG_Z, DVec3::X],
            [1.0; 3],
        )
        .unwrap();
        assert_eq!(g.nearest_axes(), [2, 0, 1]);
    }

    #[test]
    fn spacing_and_voxel_volume_come_from_the_affine() {
        let g = oblique();
        for (a, b) in g.spacing_mm().iter().zip([0.5, 0.7, 3.0]) {
            assert!((a - b).abs() < 1e-12);
        }
        assert!((g.voxel_volume_mm3() - 1.05).abs() < 1e-12);
    }
}
