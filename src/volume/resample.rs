//! From one grid to another.

use rayon::prelude::*;

use super::{LabelMap, Volume};
use crate::geometry::{DAffine3, DVec3, VolumeGeometry};
use crate::task::{Cancelled, Task};

/// How a value between voxels is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// The closest voxel; ties go up.
    Nearest,
    /// Trilinear.
    Linear,
}

/// Modality values of `volume` on `target`, in memory order; `outside` beyond the source grid.
///
/// A position is inside when it lies within half a voxel of a voxel center; the outermost
/// half voxel repeats the edge.
///
/// # Errors
/// [`Cancelled`].
pub fn resample_volume(
    volume: &Volume,
    target: &VolumeGeometry,
    how: Interpolation,
    outside: f32,
    task: &Task,
) -> Result<Vec<f32>, Cancelled> {
    let source_from_target = volume.geometry.ijk_from_lps() * target.lps_from_ijk();
    let dims = volume.geometry.dims();
    let mut out = vec![outside; target.voxel_count()];
    for_each_row(&mut out, target, source_from_target, task, |p, value| {
        if !inside(p, dims) {
            return;
        }
        let at = |i: usize, j: usize, k: usize| {
            volume
                .modality_lut
                .apply(volume.voxels.stored((k * dims[1] + j) * dims[0] + i), k)
        };
        *value = match how {
            Interpolation::Nearest => {
                let [i, j, k] = nearest(p, dims);
                at(i, j, k)
            }
            Interpolation::Linear => {
                let (lo, hi, f) = cell(p, dims);
                let x = |j: usize, k: usize| lerp(at(lo[0], j, k), at(hi[0], j, k), f[0]);
                let y = |k: usize| lerp(x(lo[1], k), x(hi[1], k), f[1]);
                lerp(y(lo[2]), y(hi[2]), f[2])
            }
        };
    })?;
    Ok(out)
}

/// Labels of `map` on `target`, nearest neighbor; 0 beyond the source grid.
///
/// # Errors
/// [`Cancelled`].
pub fn resample_labels(
    map: &LabelMap,
    target: &VolumeGeometry,
    task: &Task,
) -> Result<LabelMap, Cancelled> {
    let source_from_target = map.geometry.ijk_from_lps() * target.lps_from_ijk();
    let dims = map.geometry.dims();
    let mut out = LabelMap::empty(target.clone());
    for_each_row(
        &mut out.labels,
        target,
        source_from_target,
        task,
        |p, label| {
            if inside(p, dims) {
                let [i, j, k] = nearest(p, dims);
                *label = map.labels[(k * dims[1] + j) * dims[0] + i];
            }
        },
    )?;
    Ok(out)
}

fn for_each_row<T: Send>(
    out: &mut [T],
    target: &VolumeGeometry,
    source_from_target: DAffine3,
    task: &Task,
    visit: impl Fn(DVec3, &mut T) + Sync,
) -> Result<(), Cancelled> {
    let [ni, nj, _] = target.dims();
    out.par_chunks_mut(ni)
        .enumerate()
        .try_for_each(|(row, values)| {
            task.check()?;
            let (j, k) = (row % nj, row / nj);
            for (i, value) in values.iter_mut().enumerate() {
                let target_ijk = DVec3::new(i as f64, j as f64, k as f64);
                visit(source_from_target.transform_point3(target_ijk), value);
            }
            Ok(())
        })
}

fn inside(p: DVec3, dims: [usize; 3]) -> bool {
    // 1e-6: rounding of the affine must not drop the outermost voxels of an identical grid.
    p.to_array()
        .iter()
        .zip(dims)
        .all(|(&x, n)| x >= -0.5 - 1e-6 && x <= n as f64 - 0.5 + 1e-6)
}

fn nearest(p: DVec3, dims: [usize; 3]) -> [usize; 3] {
    let pick = |x: f64, n: usize| ((x + 0.5).floor().max(0.0) as usize).min(n - 1);
    [pick(p.x, dims[0]), pick(p.y, dims[1]), pick(p.z, dims[2])]
}

fn cell(p: DVec3, dims: [usize; 3]) -> ([usize; 3], [usize; 3], [f32; 3]) {
    let mut lo = [0; 3];
    let mut hi = [0; 3];
    let mut f = [0.0; 3];
    for (axis, x) in p.to_array().into_iter().enumerate() {
        let x = x.clamp(0.0, (dims[axis] - 1) as f64);
        lo[axis] = x.floor() as usize;
        hi[axis] = (lo[axis] + 1).min(dims[axis] - 1);
        f[axis] = (x - lo[axis] as f64) as f32;
    }
    (lo, hi, f)
}

fn lerp(a: f32, b: f32, t: f32) -> f32 {
    // Exact at both ends and for equal values.
    if t == 0.0 { a } else { a + (b - a) * t }
}
