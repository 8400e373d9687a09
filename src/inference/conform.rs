//! A volume on the grid that the network expects.

use super::normalize::range;
use crate::geometry::{DAffine3, DMat3, DVec3, VolumeGeometry};
use crate::model::Conform;
use crate::task::{Cancelled, Task};
use crate::volume::{Interpolation, ModalityLut, Volume, Voxels, resample_volume};

/// Values on the network's grid, `[k][j][i]`.
pub struct Conformed {
    /// The grid.
    pub geometry: VolumeGeometry,
    /// One per voxel.
    pub values: Vec<f32>,
    /// The grid is the volume's own.
    pub untouched: bool,
}

/// The grid alone, for planning.
pub fn target(volume: &Volume, conform: &Conform) -> VolumeGeometry {
    match conform {
        Conform::Freesurfer256 if is_freesurfer_256(volume) => volume.geometry.clone(),
        Conform::Freesurfer256 => freesurfer_256(&volume.geometry),
        Conform::Stored { orientation: None } => volume.geometry.clone(),
        Conform::Stored {
            orientation: Some(letters),
        } => turned(&volume.geometry, letters),
        Conform::Grid {
            spacing_mm,
            orientation,
        } => grid(&volume.geometry, *spacing_mm, orientation),
    }
}

/// Brings a volume onto the network's grid.
///
/// # Errors
/// [`Cancelled`].
pub fn conform(volume: &Volume, how: &Conform, task: &Task) -> Result<Conformed, Cancelled> {
    let geometry = target(volume, how);
    let untouched = geometry.same_grid(&volume.geometry, 1e-6);
    if untouched {
        return Ok(Conformed {
            geometry,
            values: volume.values(),
            untouched,
        });
    }
    let values = match how {
        Conform::Freesurfer256 => conform_freesurfer(volume, &geometry, task)?,
        // The same voxel centers in another order: nearest neighbors are the voxels themselves.
        Conform::Stored { .. } => {
            resample_volume(volume, &geometry, Interpolation::Nearest, 0.0, task)?
        }
        Conform::Grid { .. } => {
            let outside = volume.range().map_or(0.0, |(low, _)| low);
            resample_volume(volume, &geometry, Interpolation::Linear, outside, task)?
        }
    };
    Ok(Conformed {
        geometry,
        values,
        untouched,
    })
}

/// The same voxels with axes taken and turned so that they rise as closely as can be in the
/// directions of the letters (nibabel's `as_closest_canonical` for `RAS`).
fn turned(source: &VolumeGeometry, letters: &str) -> VolumeGeometry {
    let nearest = source.nearest_axes();
    let (mut order, mut wanted) = ([0; 3], [DVec3::ZERO; 3]);
    for (axis, letter) in letters.chars().take(3).enumerate() {
        let (patient_axis, direction) = direction_of(letter);
        order[axis] = nearest[patient_axis];
        wanted[axis] = direction;
    }
    let affine = source.lps_from_ijk();
    let dims = order.map(|axis| source.dims()[axis]);
    let (mut columns, mut origin) = ([DVec3::ZERO; 3], affine.translation);
    for (n, axis) in order.into_iter().enumerate() {
        let step = affine.matrix3.col(axis);
        columns[n] = step;
        if step.dot(wanted[n]) < 0.0 {
            // CLINICAL(laterality): the last voxel becomes the first, at its own place.
            origin += step * (dims[n] - 1) as f64;
            columns[n] = -step;
        }
    }
    let [a, b, c] = columns;
    VolumeGeometry::new(
        dims,
        DAffine3::from_mat3_translation(DMat3::from_cols(a, b, c), origin),
    )
    .expect("the same voxels in another order")
}

/// The patient axis of a letter and its direction, LPS.
fn direction_of(letter: char) -> (usize, DVec3) {
    match letter {
        'L' => (0, DVec3::X),
        'R' => (0, DVec3::NEG_X),
        'P' => (1, DVec3::Y),
        'A' => (1, DVec3::NEG_Y),
        'S' => (2, DVec3::Z),
        _ => (2, DVec3::NEG_Z),
    }
}

/// 256³ unsigned bytes at 1 mm with axes L, I, A.
fn is_freesurfer_256(volume: &Volume) -> bool {
    let g = &volume.geometry;
    let along = |axis: usize, direction: DVec3| g.direction(axis).dot(direction) > 0.9;
    g.dims() == [256; 3]
        && is_plain_u8(volume)
        && g.spacing_mm().iter().all(|s| (s - 1.0).abs() < 0.01)
        && along(0, DVec3::X)
        && along(1, DVec3::NEG_Z)
        && along(2, DVec3::NEG_Y)
}

fn is_plain_u8(volume: &Volume) -> bool {
    matches!(volume.voxels, Voxels::U8(_)) && volume.modality_lut == ModalityLut::IDENTITY
}

/// NiiVue's conformed grid: axes L, I, A at 1 mm around the volume's middle.
///
/// The middle is index `dim / 2` of the volume at index 128, not the geometric center: half a
/// voxel matters for agreement with the models' training.
fn freesurfer_256(source: &VolumeGeometry) -> VolumeGeometry {
    let directions = DMat3::from_cols(DVec3::X, DVec3::NEG_Z, DVec3::NEG_Y);
    let middle = source.lps_at(DVec3::from(source.dims().map(|d| d as f64 / 2.0)));
    let origin = middle - directions * DVec3::splat(128.0);
    VolumeGeometry::new(
        [256; 3],
        DAffine3::from_mat3_translation(directions, origin),
    )
    .expect("a 1 mm grid has a volume")
}

/// Trilinear sampling, zero outside, then 0 to 255 in whole numbers.
fn conform_freesurfer(
    volume: &Volume,
    geometry: &VolumeGeometry,
    task: &Task,
) -> Result<Vec<f32>, Cancelled> {
    use rayon::prelude::*;
    let source = volume.values();
    let dims = volume.geometry.dims();
    let source_from_target = volume.geometry.ijk_from_lps() * geometry.lps_from_ijk();
    let (low, high) = if is_plain_u8(volume) {
        (0.0, 255.0)
    } else {
        freesurfer_range(&source)
    };
    let scale = if high > low {
        255.0 / (f64::from(high) - f64::from(low))
    } else {
        1.0
    };
    let mut out = vec![0.0_f32; geometry.voxel_count()];
    let [ni, nj, _] = geometry.dims();
    out.par_chunks_mut(ni)
        .enumerate()
        .try_for_each(|(row, values)| {
            task.check()?;
            for (i, value) in values.iter_mut().enumerate() {
                let at = DVec3::new(i as f64, (row % nj) as f64, (row / nj) as f64);
                let sample = trilinear(&source, dims, source_from_target.transform_point3(at));
                *value = ((f64::from(sample) - f64::from(low)) * scale)
                    .clamp(0.0, 255.0)
                    .trunc() as f32;
            }
            Ok::<(), Cancelled>(())
        })?;
    Ok(out)
}

/// Zero wherever a corner of the cell lies outside.
fn trilinear(values: &[f32], dims: [usize; 3], p: DVec3) -> f32 {
    let lo = p.floor();
    let hi = p.ceil();
    let inside =
        lo.min_element() >= 0.0 && hi.to_array().iter().zip(dims).all(|(&h, n)| h < n as f64);
    if !inside {
        return 0.0;
    }
    let f = p - lo;
    let (lo, hi) = (
        lo.to_array().map(|x| x as usize),
        hi.to_array().map(|x| x as usize),
    );
    let at = |i: usize, j: usize, k: usize| f64::from(values[(k * dims[1] + j) * dims[0] + i]);
    let x = |j: usize, k: usize| at(lo[0], j, k) * (1.0 - f.x) + at(hi[0], j, k) * f.x;
    let y = |k: usize| x(lo[1], k) * (1.0 - f.y) + x(hi[1], k) * f.y;
    (y(lo[2]) * (1.0 - f.z) + y(hi[2]) * f.z) as f32
}

/// FreeSurfer's range: minimum, and the value below which 99.9 % of what is not zero lies,
/// from a histogram of 1000 bins.
fn freesurfer_range(values: &[f32]) -> (f32, f32) {
    let (low, high) = range(values);
    let nonzero = values.iter().filter(|v| **v != 0.0).count();
    let bin = (f64::from(high) - f64::from(low)) / 1000.0;
    if bin <= 0.0 {
        return (low, high);
    }
    let mut histogram = vec![0_usize; 1000];
    for &v in values {
        let n = ((f64::from(v) - f64::from(low)) / bin) as usize;
        histogram[n.min(999)] += 1;
    }
    let nth = values.len() - (0.001 * nonzero as f64).floor() as usize;
    let mut sum = 0;
    let index = histogram.iter().position(|count| {
        sum += count;
        sum >= nth
    });
    let top = index.map_or(f64::from(high), |n| n as f64 * bin + f64::from(low));
    (low, top as f32)
}

/// The volume's own axes, turned to the orientation wanted, at a spacing; its own spacing is
/// kept where it differs by less than 1 %, so that no resampling happens without need.
fn grid(source: &VolumeGeometry, spacing_mm: [f64; 3], orientation: &str) -> VolumeGeometry {
    let nearest = source.nearest_axes();
    let dims = source.dims();
    let own = source.spacing_mm();
    let mut new_dims = [1; 3];
    let mut columns = [DVec3::ZERO; 3];
    let mut origin = DVec3::ZERO; // in source indices
    for (axis, letter) in orientation.chars().take(3).enumerate() {
        let (patient_axis, wanted) = direction_of(letter);
        let n = nearest[patient_axis];
        let ratio = spacing_mm[axis] / own[n];
        let ratio = if (ratio - 1.0).abs() < 0.01 {
            1.0
        } else {
            ratio
        };
        let extent = dims[n] as f64;
        let count = (extent / ratio).round().max(1.0);
        // Sample centers are spread evenly around the middle.
        let first = (extent - (count - 1.0) * ratio) / 2.0 - 0.5;
        let forward = source.direction(n).dot(wanted) >= 0.0;
        new_dims[axis] = count as usize;
        columns[axis][n] = if forward { ratio } else { -ratio };
        origin[n] = if forward { first } else { extent - 1.0 - first };
    }
    let source_from_new = DAffine3::from_mat3_translation(
        DMat3::from_cols(columns[0], columns[1], columns[2]),
        origin,
    );
    VolumeGeometry::new(new_dims, source.lps_from_ijk() * source_from_new)
        .expect("a turned and scaled grid keeps its volume")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clinical_laterality_a_grid_is_turned_without_resampling() {
        // LPS axial source at 1 mm, wanted RAS: the first voxel is the last in i and j.
        let source = VolumeGeometry::from_axes(
            [4, 5, 6],
            DVec3::ZERO,
            [DVec3::X, DVec3::Y, DVec3::Z],
            [1.0, 1.0, 1.005],
        )
        .unwrap();
        let turned = grid(&source, [1.0; 3], "RAS");
        assert_eq!(turned.dims(), [4, 5, 6]);
        assert!(
            turned
                .lps_at(DVec3::ZERO)
                .abs_diff_eq(DVec3::new(3.0, 4.0, 0.0), 1e-9)
        );
        assert!(turned.direction(0).abs_diff_eq(DVec3::NEG_X, 1e-12));
    }

    #[test]
    fn a_coarser_grid_covers_the_same_extent() {
        let source = VolumeGeometry::from_axes(
            [10, 10, 10],
            DVec3::ZERO,
            [DVec3::Y, DVec3::NEG_Z, DVec3::X],
            [1.0; 3],
        )
        .unwrap();
        let coarse = grid(&source, [2.0; 3], "LPS");
        assert_eq!(coarse.dims(), [5, 5, 5]);
        let (a, b) = (source.corners_lps(), coarse.corners_lps());
        let bounds = |c: &[DVec3; 8]| {
            (
                c.iter().copied().reduce(DVec3::min).unwrap(),
                c.iter().copied().reduce(DVec3::max).unwrap(),
            )
        };
        assert!(bounds(&a).0.abs_diff_eq(bounds(&b).0, 1e-9));
        assert!(bounds(&a).1.abs_diff_eq(bounds(&b).1, 1e-9));
    }
}
