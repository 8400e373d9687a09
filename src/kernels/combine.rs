//! Sums, concatenations and softmax over channels.

use rayon::prelude::*;

use super::blocked::{BLOCK, View, ViewMut};
use super::pointwise::{Activation, exp};

/// Points of a piece of work.
const PIECE: usize = 4096;

/// `activation(values + other)`, in place.
///
/// # Panics
/// When shapes differ or `other` is plain.
pub fn add(mut values: ViewMut<'_>, other: View<'_>, activation: Activation) {
    assert_eq!(
        (values.dims(), values.channels(), BLOCK),
        (other.dims(), other.channels(), other.lanes()),
        "one shape"
    );
    values
        .as_mut_slice()
        .par_chunks_mut(PIECE)
        .zip(other.as_slice().par_chunks(PIECE))
        .for_each(|(to, from)| {
            for (to, from) in to.iter_mut().zip(from) {
                *to += *from;
            }
            activation.apply(to);
        });
    // Of all activations only one is not zero at zero.
    if activation.of(0.0) != 0.0 {
        clear_filling(values);
    }
}

/// `values · other`, in place; `other` has one point, or one channel, or the same shape.
///
/// # Panics
/// When shapes do not fit or `other` is plain.
pub fn multiply(mut values: ViewMut<'_>, other: View<'_>) {
    assert_eq!(other.lanes(), BLOCK, "blocks of eight");
    let (voxels, block) = (values.voxels(), values.voxels() * BLOCK);
    let same_grid = other.dims() == values.dims();
    assert!(same_grid || other.voxels() == 1, "one grid or one point");
    assert!(
        other.channels() == values.channels() || other.channels() == 1,
        "the same channels or one"
    );
    let wide = other.channels() == values.channels();
    let data = other.as_slice();
    let points = data.as_chunks::<BLOCK>().0;
    for (b, values) in values.as_mut_slice().chunks_mut(block.max(1)).enumerate() {
        for (v, point) in values.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            let v = if same_grid { v } else { 0 };
            let size = if same_grid { voxels } else { 1 };
            let from = if wide {
                points[b * size + v]
            } else {
                [points[v][0]; BLOCK]
            };
            for lane in 0..BLOCK {
                point[lane] *= from[lane];
            }
        }
    }
}

/// Copies inputs one after another along the channels.
///
/// What begins with a block could have been written there at once: see [`ViewMut::part`].
///
/// # Panics
/// When grids differ, an input is plain, or channels do not add up.
pub fn concat(inputs: &[View<'_>], mut output: ViewMut<'_>) {
    let total: usize = inputs.iter().map(View::channels).sum();
    assert_eq!(total, output.channels(), "channels add up");
    let voxels = output.voxels();
    let block = voxels * BLOCK;
    for input in inputs {
        assert_eq!(
            (input.dims(), input.lanes()),
            (output.dims(), BLOCK),
            "one grid, in blocks of eight"
        );
    }
    if !total.is_multiple_of(BLOCK) {
        clear_last(&mut output);
    }
    let mut first = 0_usize;
    for input in inputs {
        let channels = input.channels();
        let data = output.as_mut_slice();
        if first.is_multiple_of(BLOCK) {
            // The filling channels behind are zero, and the next input overwrites them.
            let from = input.as_slice();
            data[first * voxels..first * voxels + from.len()].copy_from_slice(from);
        } else {
            for c in 0..channels {
                let to = first + c;
                let from = input.as_slice()[c / BLOCK * block + c % BLOCK..].iter();
                let to = data[to / BLOCK * block + to % BLOCK..].iter_mut();
                for (to, from) in to.step_by(BLOCK).zip(from.step_by(BLOCK)).take(voxels) {
                    *to = *from;
                }
            }
        }
        first += channels;
    }
}

fn clear_last(output: &mut ViewMut<'_>) {
    let block = output.voxels() * BLOCK;
    let data = output.as_mut_slice();
    let from = data.len().saturating_sub(block);
    data[from..].fill(0.0);
}

fn clear_filling(mut values: ViewMut<'_>) {
    let keep = values.channels() % BLOCK;
    if keep == 0 {
        return;
    }
    let block = values.voxels() * BLOCK;
    let data = values.as_mut_slice();
    let from = data.len().saturating_sub(block);
    for point in data[from..].as_chunks_mut::<BLOCK>().0 {
        point[keep..].fill(0.0);
    }
}

/// Softmax over the channels of each point, in place.
pub fn softmax_channels(mut values: ViewMut<'_>) {
    let (channels, block) = (values.channels(), values.voxels() * BLOCK);
    let data = values.as_mut_slice();
    let mut point = vec![0.0_f32; channels];
    for v in 0..block / BLOCK {
        for (c, x) in point.iter_mut().enumerate() {
            *x = data[c / BLOCK * block + v * BLOCK + c % BLOCK];
        }
        softmax_rows(&mut point, channels);
        for (c, x) in point.iter().enumerate() {
            data[c / BLOCK * block + v * BLOCK + c % BLOCK] = *x;
        }
    }
}

/// Softmax of each row of `width` values, in place.
pub fn softmax_rows(values: &mut [f32], width: usize) {
    for row in values.chunks_mut(width.max(1)) {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0_f64;
        for x in row.iter_mut() {
            *x = exp(*x - largest);
            sum += f64::from(*x);
        }
        let scale = (1.0 / sum) as f32;
        for x in row {
            *x *= scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Blocked;
    use super::*;

    fn values(n: usize) -> Vec<f32> {
        (0..n)
            .map(|n| ((n * 7919) % 101) as f32 / 10.0 - 5.0)
            .collect()
    }

    #[test]
    fn concatenations_keep_the_order_of_channels() {
        for counts in [[8, 16, 3], [5, 3, 9], [1, 1, 1], [30, 30, 4]] {
            let dims = [2, 3, 4];
            let total: usize = counts.iter().sum();
            let all = values(total * 24);
            let mut parts = Vec::new();
            let mut first = 0;
            for count in counts {
                let part = &all[first * 24..(first + count) * 24];
                parts.push(Blocked::from_channels(part, dims, count));
                first += count;
            }
            let mut out = Blocked::zeros(dims, total);
            out.view_mut().as_mut_slice().fill(f32::NAN);
            let views: Vec<_> = parts.iter().map(Blocked::view).collect();
            concat(&views, out.view_mut());
            assert_eq!(out, Blocked::from_channels(&all, dims, total), "{counts:?}");
        }
    }

    #[test]
    fn sums_and_products_are_by_point() {
        let (a, b) = (values(60), values(61)[1..].to_vec());
        let mut sum = Blocked::from_channels(&a, [1, 3, 4], 5);
        let other = Blocked::from_channels(&b, [1, 3, 4], 5);
        let mut product = sum.clone();
        add(sum.view_mut(), other.view(), Activation::Relu);
        multiply(product.view_mut(), other.view());
        for n in 0..60 {
            assert_eq!(sum.to_channels()[n], (a[n] + b[n]).max(0.0));
            assert_eq!(product.to_channels()[n], a[n] * b[n]);
        }
        let gate = Blocked::from_channels(&b[..5], [1, 1, 1], 5);
        let mut gated = Blocked::from_channels(&a, [1, 3, 4], 5);
        multiply(gated.view_mut(), gate.view());
        let mask = Blocked::from_channels(&b[..12], [1, 3, 4], 1);
        let mut masked = Blocked::from_channels(&a, [1, 3, 4], 5);
        multiply(masked.view_mut(), mask.view());
        for n in 0..60 {
            assert_eq!(gated.to_channels()[n], a[n] * b[n / 12]);
            assert_eq!(masked.to_channels()[n], a[n] * b[n % 12]);
        }
    }

    #[test]
    fn softmax_equals_its_definition() {
        let x = values(11 * 6);
        let mut blocked = Blocked::from_channels(&x, [1, 2, 3], 11);
        softmax_channels(blocked.view_mut());
        let got = blocked.to_channels();
        for v in 0..6 {
            let sum: f64 = (0..11).map(|c| f64::from(x[c * 6 + v]).exp()).sum();
            for c in 0..11 {
                let want = f64::from(x[c * 6 + v]).exp() / sum;
                assert!((f64::from(got[c * 6 + v]) - want).abs() < 1e-6);
            }
        }
    }
}
