//! Where the patches of nnU-Net's sliding window lie, and what their voxels weigh.

use half::f16;

/// Where the windows along one axis start (`compute_steps_for_sliding_window`); `size` is at least
/// `patch`.
pub fn window_starts(size: usize, patch: usize, step: f64) -> Vec<usize> {
    let room = size.saturating_sub(patch) as f64;
    let count = (room / (patch as f64 * step)).ceil() as usize + 1;
    let actual = if count > 1 {
        room / (count - 1) as f64
    } else {
        0.0
    };
    // numpy rounds halves to the even number.
    (0..count)
        .map(|index| (actual * index as f64).round_ties_even() as usize)
        .collect()
}

/// Where MONAI's windows along one axis start (`_get_scan_interval` and `dense_patch_slices`).
pub fn monai_window_starts(size: usize, roi: usize, overlap: f64) -> Vec<usize> {
    let interval = if roi == size {
        roi
    } else {
        ((roi as f64 * (1.0 - overlap)) as usize).max(1)
    };
    let last = size.saturating_sub(roi);
    let count = last.div_ceil(interval) + 1;
    (0..count)
        .map(|index| (index * interval).min(last))
        .collect()
}

/// MONAI's Gaussian importance map (`compute_importance_map`), `[z][y][x]`.
pub fn monai_importance_map(roi: &[usize], sigma_scale: f64) -> Vec<f32> {
    let mut map = vec![1.0_f32];
    for &size in roi {
        let sigma = size as f64 * sigma_scale;
        let by = (-2.0 * sigma * sigma) as f32;
        let axis = (0..size).map(|index| {
            let x = index as f32 - (size as f32 - 1.0) / 2.0;
            (x * x / by).exp()
        });
        let axis: Vec<f32> = axis.collect();
        map = map
            .iter()
            .flat_map(|&outer| axis.iter().map(move |&inner| outer * inner))
            .collect();
    }
    let least = map.iter().copied().fold(f32::MAX, f32::min).max(1e-3);
    for weight in &mut map {
        *weight = weight.max(least);
    }
    map
}

/// nnU-Net's Gaussian importance map (`compute_gaussian`, scaled to 10), `[z][y][x]`; a patch of
/// slices leaves z out.
///
/// `half`: rounded as nnU-Net keeps it. No weight is 0: such voxels get the smallest other weight.
pub fn importance_map(patch_size: &[usize], half: bool) -> Vec<f32> {
    let mut map = vec![1.0_f64];
    for &size in patch_size {
        let axis = impulse_response(size);
        map = map
            .iter()
            .flat_map(|&outer| axis.iter().map(move |&inner| outer * inner))
            .collect();
    }
    let most = map.iter().copied().fold(0.0, f64::max);
    let by = most / 10.0;
    let mut map: Vec<f32> = map
        .into_iter()
        .map(|weight| {
            let weight = (weight / by) as f32;
            if half {
                f16::from_f32(weight).to_f32()
            } else {
                weight
            }
        })
        .collect();
    let least = map
        .iter()
        .copied()
        .filter(|&weight| weight != 0.0)
        .fold(f32::MAX, f32::min);
    for weight in &mut map {
        if *weight == 0.0 {
            *weight = least;
        }
    }
    map
}

/// scipy's `gaussian_filter` (sigma an eighth of the size, cut at 4 sigma) of one 1 in the middle.
fn impulse_response(size: usize) -> Vec<f64> {
    let sigma = size as f64 / 8.0;
    let radius = (4.0 * sigma + 0.5) as i64;
    let at = |offset: i64| (-0.5 / (sigma * sigma) * (offset * offset) as f64).exp();
    let sum: f64 = (-radius..=radius).map(at).sum();
    let center = (size / 2) as i64;
    (0..size as i64)
        .map(|index| {
            let offset = index - center;
            if offset.abs() <= radius {
                at(offset) / sum
            } else {
                0.0
            }
        })
        .collect()
}
