//! Integer labels on a grid.

use crate::geometry::VolumeGeometry;

/// One label per voxel, 0 = background, i fastest, then j, then k.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelMap {
    /// The grid.
    pub geometry: VolumeGeometry,
    /// Labels; up to 255 segments.
    pub labels: Vec<u8>,
}

impl LabelMap {
    /// Background everywhere.
    pub fn empty(geometry: VolumeGeometry) -> Self {
        let labels = vec![0; geometry.voxel_count()];
        Self { geometry, labels }
    }

    /// Voxels of each label, by label number.
    pub fn counts(&self) -> [u64; 256] {
        let mut counts = [0_u64; 256];
        for &label in &self.labels {
            counts[usize::from(label)] += 1;
        }
        counts
    }
}
