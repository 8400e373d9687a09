//! nnU-Net's `resample_data_or_seg_to_shape`: images by splines, labels by their indicators.

use rayon::prelude::*;

use super::Error;
use super::array::{Image, volume};
use super::normalize::extent;
use super::prepare::Grids;
use super::spline::Axis;
use crate::model::procedure::{Preprocessing, Resampling};
use crate::task::Task;

/// Columns that are resampled together.
const COLUMNS: usize = 64;
/// Blocks of columns between two looks at the task.
const BATCH: usize = 64;

/// An image on a grid of another size: skimage's `resize` (mode 'edge', clipped to the range of the
/// source), slice by slice and then along the coarse axis where the rule says so.
///
/// # Errors
/// [`Error::Unsupported`] for an order that does not exist here, [`Error::Cancelled`].
pub fn resample_image(
    image: Image,
    to: [usize; 3],
    current: [f64; 3],
    new: [f64; 3],
    rule: &Resampling,
    task: &Task,
) -> Result<Image, Error> {
    rule.check()?;
    if image.dims == to {
        return Ok(image);
    }
    let alone = rule.separate_axis(current, new);
    let Image {
        channels,
        dims,
        data,
    } = image;
    if channels == 1 {
        let data = one_channel(data, dims, to, alone, rule, task)?;
        return Ok(Image {
            channels,
            dims: to,
            data,
        });
    }
    let mut out = Vec::with_capacity(channels * volume(to));
    for channel in data.chunks_exact(volume(dims)) {
        out.extend(one_channel(channel.to_vec(), dims, to, alone, rule, task)?);
    }
    Ok(Image {
        channels,
        dims: to,
        data: out,
    })
}

fn one_channel(
    mut data: Vec<f32>,
    from: [usize; 3],
    to: [usize; 3],
    alone: Option<usize>,
    rule: &Resampling,
    task: &Task,
) -> Result<Vec<f32>, Error> {
    // Cubic splines overshoot; skimage holds each array that it resizes within its own range.
    let ranges = match alone {
        _ if rule.order < 2 => Vec::new(),
        None => vec![extent(&data)],
        Some(axis) => slice_ranges(&data, from, axis),
    };
    let mut dims = from;
    for axis in together(from, to, alone) {
        data = along(
            data,
            &mut dims,
            axis,
            &Axis::new(from[axis], to[axis], rule.order),
            task,
        )?;
    }
    if let Some(axis) = alone {
        clip_slices(&mut data, dims, axis, &ranges);
        data = along(
            data,
            &mut dims,
            axis,
            &Axis::new(from[axis], to[axis], rule.order_z),
            task,
        )?;
    } else if let Some(&(low, high)) = ranges.first() {
        data.par_iter_mut()
            .with_min_len(1 << 14)
            .for_each(|v| *v = v.max(low).min(high));
    }
    Ok(data)
}

/// The axes that are resampled alike. That which shrinks most goes first: less to carry, and no array above
/// the larger of both ends.
fn together(from: [usize; 3], to: [usize; 3], alone: Option<usize>) -> Vec<usize> {
    let mut axes: Vec<usize> = (0..3).filter(|&axis| Some(axis) != alone).collect();
    axes.sort_by(|&a, &b| (to[a] * from[b]).cmp(&(to[b] * from[a])));
    axes
}

/// Most voxels that one channel's resampling holds at once.
pub(super) fn resampling_voxels(
    from: [usize; 3],
    to: [usize; 3],
    grids: &Grids,
    rule: &Preprocessing,
) -> u64 {
    let spacings = (grids.original_spacing, grids.spacing);
    let alone = rule.resample_image.separate_axis(spacings.0, spacings.1);
    let (mut now, mut most) = (from, 0);
    for axis in together(from, to, alone).into_iter().chain(alone) {
        let before = volume(now);
        now[axis] = to[axis];
        if from[axis] != to[axis] {
            most = most.max(before + volume(now));
        }
    }
    most as u64
}

/// `[outer][axis][inner]` around an axis.
fn around(dims: [usize; 3], axis: usize) -> (usize, usize) {
    (
        dims[..axis].iter().product(),
        dims[axis + 1..].iter().product(),
    )
}

fn slice_ranges(data: &[f32], dims: [usize; 3], axis: usize) -> Vec<(f32, f32)> {
    let (outer, inner) = around(dims, axis);
    (0..dims[axis])
        .into_par_iter()
        .map(|slice| {
            (0..outer).fold((f32::INFINITY, f32::NEG_INFINITY), |range, o| {
                let at = (o * dims[axis] + slice) * inner;
                data[at..at + inner]
                    .iter()
                    .fold(range, |(low, high), &v| (low.min(v), high.max(v)))
            })
        })
        .collect()
}

fn clip_slices(data: &mut [f32], dims: [usize; 3], axis: usize, ranges: &[(f32, f32)]) {
    if ranges.is_empty() {
        return;
    }
    let (_, inner) = around(dims, axis);
    data.par_chunks_mut(inner)
        .enumerate()
        .for_each(|(index, chunk)| {
            let (low, high) = ranges[index % dims[axis]];
            for v in chunk {
                *v = v.max(low).min(high);
            }
        });
}

/// Resamples one axis; `dims` follows.
pub(super) fn along(
    data: Vec<f32>,
    dims: &mut [usize; 3],
    axis: usize,
    rule: &Axis,
    task: &Task,
) -> Result<Vec<f32>, Error> {
    if rule.is_identity() {
        return Ok(data);
    }
    let (outer, inner) = around(*dims, axis);
    let (from, to) = (rule.from, rule.to);
    let mut out = vec![0.0_f32; outer * to * inner];
    if inner == 1 {
        // Lines lie in memory: one after the other.
        for (out, data) in out.chunks_mut(to * 1024).zip(data.chunks(from * 1024)) {
            task.check()?;
            out.par_chunks_mut(to)
                .zip(data.par_chunks(from))
                .for_each_init(
                    || (Vec::new(), vec![0.0; from], vec![0.0; to]),
                    |(padded, line, result), (out, data)| {
                        for (to, &from) in line.iter_mut().zip(data) {
                            *to = f64::from(from);
                        }
                        rule.lines(line, 1, padded, result);
                        for (to, &from) in out.iter_mut().zip(result.iter()) {
                            *to = from as f32;
                        }
                    },
                );
        }
    } else {
        let blocks = inner.div_ceil(COLUMNS);
        let all: Vec<usize> = (0..outer * blocks).collect();
        for batch in all.chunks(BATCH) {
            task.check()?;
            let done: Vec<Vec<f32>> = batch
                .par_iter()
                .map_init(
                    || (Vec::new(), Vec::new(), Vec::new()),
                    |(padded, lines, result): &mut (Vec<f64>, Vec<f64>, Vec<f64>), &index| {
                        let (o, first) = (index / blocks, index % blocks * COLUMNS);
                        let width = COLUMNS.min(inner - first);
                        lines.clear();
                        for sample in 0..from {
                            let at = (o * from + sample) * inner + first;
                            lines.extend(data[at..at + width].iter().map(|&v| f64::from(v)));
                        }
                        result.resize(to * width, 0.0);
                        rule.lines(lines, width, padded, &mut result[..to * width]);
                        result[..to * width].iter().map(|&v| v as f32).collect()
                    },
                )
                .collect();
            for (index, block) in batch.iter().zip(done) {
                let (o, first) = (index / blocks, index % blocks * COLUMNS);
                let width = COLUMNS.min(inner - first);
                for (sample, row) in block.chunks_exact(width).enumerate() {
                    let at = (o * to + sample) * inner + first;
                    out[at..at + width].copy_from_slice(row);
                }
            }
        }
    }
    dims[axis] = to;
    Ok(out)
}

/// Labels on a grid of another size: each voxel gets the label whose indicator is largest after linear
/// interpolation, or the nearest voxel's where the rule's order is 0.
///
/// Equal indicators go to the nearest voxel's label if it is among them, else to the smallest: the way of
/// batchgenerators' `resize_segmentation` from 0.25.3 on. −1 (outside the nonzero mask) is a label like any.
///
/// # Errors
/// [`Error::Unsupported`] for cubic labels.
pub fn resample_labels(
    labels: &[i16],
    from: [usize; 3],
    to: [usize; 3],
    current: [f64; 3],
    new: [f64; 3],
    rule: &Resampling,
) -> Result<Vec<i16>, Error> {
    if from == to {
        return Ok(labels.to_vec());
    }
    if rule.order > 1 || rule.order_z > 1 {
        return Err(Error::Unsupported(format!(
            "resampling labels with order {} and {}",
            rule.order, rule.order_z
        )));
    }
    let Some(alone) = rule.separate_axis(current, new) else {
        return Ok(by_indicators(labels, from, to, rule.order));
    };
    let mut between = to;
    between[alone] = from[alone];
    let slices = by_indicators(labels, from, between, rule.order);
    let axis = Axis::new(from[alone], to[alone], rule.order_z);
    let (_, inner) = around(to, alone);
    let mut out = vec![0; volume(to)];
    out.par_chunks_mut(inner).enumerate().for_each(|(at, row)| {
        let (o, index) = (at / to[alone], at % to[alone]);
        let ([low, high], weights) = axis.pair(index);
        let source = |slice: usize| {
            let at = (o * from[alone] + slice) * inner;
            &slices[at..at + inner]
        };
        for ((out, &low), &high) in row.iter_mut().zip(source(low)).zip(source(high)) {
            // Along the coarse axis nnU-Net keeps what is above one half, and 0 where nothing is.
            *out = match (low == high, weights[0] > 0.5, weights[1] > 0.5) {
                (true, ..) | (_, true, _) => low,
                (_, _, true) => high,
                _ => 0,
            };
        }
    });
    Ok(out)
}

fn by_indicators(labels: &[i16], from: [usize; 3], to: [usize; 3], order: u8) -> Vec<i16> {
    if from == to {
        return labels.to_vec();
    }
    let axes = [0, 1, 2].map(|axis| Axis::new(from[axis], to[axis], order));
    let nearest = [0, 1, 2].map(|axis| Axis::new(from[axis], to[axis], 0));
    let label = |z: usize, y: usize, x: usize| labels[(z * from[1] + y) * from[2] + x];
    let mut out = vec![0; volume(to)];
    out.par_chunks_mut(to[2])
        .enumerate()
        .for_each(|(row, out)| {
            let (z, y) = (row / to[1], row % to[1]);
            let (zs, wz) = axes[0].pair(z);
            let (ys, wy) = axes[1].pair(y);
            for (x, out) in out.iter_mut().enumerate() {
                let (xs, wx) = axes[2].pair(x);
                let mut scores = [(0_i16, 0.0_f64); 8];
                let mut count = 0;
                // scipy's order of products and sums: equal scores must be equal to the last bit.
                for (iz, &wz) in wz.iter().enumerate() {
                    for (iy, &wy) in wy.iter().enumerate() {
                        for (ix, &wx) in wx.iter().enumerate() {
                            let weight = wz * wy * wx;
                            if weight == 0.0 {
                                continue;
                            }
                            let found = label(zs[iz], ys[iy], xs[ix]);
                            let mut known = scores[..count].iter_mut();
                            if let Some((_, score)) = known.find(|(label, _)| *label == found) {
                                *score += weight;
                            } else {
                                scores[count] = (found, weight);
                                count += 1;
                            }
                        }
                    }
                }
                let scores = &scores[..count];
                let most = scores.iter().map(|s| s.1).fold(0.0, f64::max);
                let near = label(
                    nearest[0].pair(z).0[0],
                    nearest[1].pair(y).0[0],
                    nearest[2].pair(x).0[0],
                );
                let tied = || scores.iter().filter(|s| s.1 == most).map(|s| s.0);
                *out = if tied().any(|label| label == near) {
                    near
                } else {
                    tied().min().unwrap_or(near)
                };
            }
        });
    out
}
