//! Numbers about the labels of a volume.

use super::{LabelMap, Layout, Volume};
use crate::geometry::DVec3;

/// What one label covers.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelStatistics {
    /// Label number.
    pub label: u8,
    /// Voxels.
    pub voxels: u64,
    /// Volume in mL; none of plain images, which have no depth.
    pub volume_ml: Option<f64>,
    /// Mean modality value.
    pub mean: f64,
    /// Standard deviation (of the population).
    pub sd: f64,
    /// Smallest modality value.
    pub min: f64,
    /// Largest modality value.
    pub max: f64,
    /// Centroid in LPS mm; of plain images in their own frame.
    pub centroid_lps: DVec3,
}

/// Statistics of every label that occurs, by label number; two passes, f64.
///
/// `values` of `volume` on the same grid as `map`.
///
/// # Panics
/// When the grids differ in dims: a programming error.
pub fn label_statistics(volume: &Volume, map: &LabelMap) -> Vec<LabelStatistics> {
    assert_eq!(
        volume.geometry.dims(),
        map.geometry.dims(),
        "statistics need one grid"
    );
    let [ni, nj, nk] = map.geometry.dims();
    #[derive(Clone, Copy)]
    struct Sum {
        n: u64,
        value: f64,
        square: f64,
        min: f64,
        max: f64,
        ijk: [u64; 3],
    }
    let zero = Sum {
        n: 0,
        value: 0.0,
        square: 0.0,
        min: f64::INFINITY,
        max: f64::NEG_INFINITY,
        ijk: [0; 3],
    };
    let mut sums = vec![zero; 256];
    // Values are shifted by the first value seen of each label, so that the sum of squares keeps its digits.
    let mut shift = [None::<f64>; 256];
    let mut n = 0;
    for k in 0..nk {
        for j in 0..nj {
            for i in 0..ni {
                let label = usize::from(map.labels[n]);
                if label != 0 {
                    let value = f64::from(volume.modality_lut.apply(volume.voxels.stored(n), k));
                    let sum = &mut sums[label];
                    let shifted = value - *shift[label].get_or_insert(value);
                    sum.n += 1;
                    sum.value += shifted;
                    sum.square += shifted * shifted;
                    sum.min = sum.min.min(value);
                    sum.max = sum.max.max(value);
                    sum.ijk[0] += i as u64;
                    sum.ijk[1] += j as u64;
                    sum.ijk[2] += k as u64;
                }
                n += 1;
            }
        }
    }
    let is_volume = volume.layout == Layout::Volumetric;
    let voxel_ml = map.geometry.voxel_volume_mm3() / 1000.0;
    sums.iter()
        .enumerate()
        .filter(|(_, s)| s.n > 0)
        .map(|(label, s)| {
            let count = s.n as f64;
            let mean = s.value / count;
            let [ci, cj, ck] = s.ijk.map(|x| x as f64 / count);
            LabelStatistics {
                label: label as u8,
                voxels: s.n,
                volume_ml: is_volume.then_some(count * voxel_ml),
                mean: mean + shift[label].unwrap_or(0.0),
                sd: (s.square / count - mean * mean).max(0.0).sqrt(),
                min: s.min,
                max: s.max,
                centroid_lps: map.geometry.lps_at(DVec3::new(ci, cj, ck)),
            }
        })
        .collect()
}
