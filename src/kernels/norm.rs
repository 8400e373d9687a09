//! Norms on blocked activations: moments, scale and offset per channel, and their use.

use rayon::prelude::*;

use super::blocked::{BLOCK, View, ViewMut};
use super::conv::{Moments, Prologue};
use super::finish::{activate_input, add_moments};
use super::pointwise::Activation;
use super::simd::{Instructions, Job, Lanes, dispatch};

/// Points of a piece of work.
const PIECE: usize = 4096;

struct Sums<'a>(&'a [f32]);

#[expect(
    clippy::inline_always,
    unsafe_code,
    reason = "compiled for the caller's instruction set"
)]
impl Job for Sums<'_> {
    type Out = [[f64; 2]; BLOCK];
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) -> Self::Out {
        let mut sums = [[0.0; 2]; BLOCK];
        add_moments(self.0, &mut sums);
        sums
    }
}

struct Apply<'a>(&'a Prologue<'a>, usize, &'a mut [f32]);

#[expect(
    clippy::inline_always,
    unsafe_code,
    reason = "compiled for the caller's instruction set"
)]
impl Job for Apply<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        activate_input(self.0, self.1, BLOCK, self.2);
    }
}

/// Sums of x and x² per channel, for norms of what no convolution gave the [`Moments`] of.
///
/// # Panics
/// When the input is plain.
pub fn moments(input: View<'_>, instructions: Instructions) -> Moments {
    assert_eq!(input.lanes(), BLOCK, "blocks of eight");
    let block = (input.voxels() * BLOCK).max(1);
    let sums = input
        .as_slice()
        .chunks(block)
        .flat_map(|values| {
            let pieces: Vec<_> = values
                .par_chunks(PIECE * BLOCK)
                .map(|piece| dispatch(instructions, Sums(piece)))
                .collect();
            let mut sums = [[0.0; 2]; BLOCK];
            for piece in pieces {
                for (sum, part) in sums.iter_mut().zip(piece) {
                    sum[0] += part[0];
                    sum[1] += part[1];
                }
            }
            sums
        })
        .take(input.channels())
        .collect();
    Moments {
        count: input.voxels(),
        sums,
    }
}

impl Moments {
    /// The same for groups of channels of equal size: each channel gets its group's sums.
    ///
    /// `count` is then the number of values of a group, so that [`Moments::norm`] is the group
    /// norm; one group of all channels is a layer norm over channels and grid.
    ///
    /// # Panics
    /// When groups do not divide the channels.
    pub fn grouped(&self, groups: usize) -> Self {
        assert!(
            groups > 0 && self.sums.len().is_multiple_of(groups),
            "groups of equal size"
        );
        let size = self.sums.len() / groups;
        let sums = self.sums.chunks(size.max(1)).flat_map(|group| {
            let total = group
                .iter()
                .fold([0.0; 2], |t, s| [t[0] + s[0], t[1] + s[1]]);
            std::iter::repeat_n(total, size)
        });
        Self {
            count: self.count * size,
            sums: sums.collect(),
        }
    }
}

/// Scale and offset per channel of a batch norm with its running statistics.
///
/// # Panics
/// When lengths differ; `weight` and `bias` may be empty.
pub fn batch_norm(
    mean: &[f32],
    variance: &[f32],
    epsilon: f32,
    weight: &[f32],
    bias: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    assert_eq!(
        mean.len(),
        variance.len(),
        "statistics of the same channels"
    );
    mean.iter()
        .zip(variance)
        .enumerate()
        .map(|(c, (mean, variance))| {
            let scale = weight.get(c).copied().map_or(1.0, f64::from)
                / (f64::from(*variance) + f64::from(epsilon)).sqrt();
            let offset = bias.get(c).copied().map_or(0.0, f64::from) - f64::from(*mean) * scale;
            (scale as f32, offset as f32)
        })
        .unzip()
}

/// `activation(x · scale + offset)` per channel, in place.
///
/// # Panics
/// When there is not a scale and an offset for each channel.
pub fn scale_offset(mut values: ViewMut<'_>, norm: &Prologue<'_>, instructions: Instructions) {
    let channels = values.channels();
    assert!(
        norm.scale.len() == channels && norm.offset.len() == channels,
        "a scale and an offset for each channel"
    );
    let block = (values.voxels() * BLOCK).max(1);
    let zero = norm.activation.of(0.0) != 0.0;
    for (n, values) in values.as_mut_slice().chunks_mut(block).enumerate() {
        values.par_chunks_mut(PIECE * BLOCK).for_each(|piece| {
            dispatch(instructions, Apply(norm, n * BLOCK, piece));
            if zero && channels < (n + 1) * BLOCK {
                for point in piece.as_chunks_mut::<BLOCK>().0 {
                    point[channels - n * BLOCK..].fill(0.0);
                }
            }
        });
    }
}

/// Layer norm over the channels of each point, as in transformers, in place.
///
/// `weight` and `bias` per channel or empty.
pub fn layer_norm(mut values: ViewMut<'_>, epsilon: f32, weight: &[f32], bias: &[f32]) {
    let (channels, block) = (values.channels(), values.voxels() * BLOCK);
    let data = values.as_mut_slice();
    let mut point = vec![0.0_f32; channels];
    for v in 0..block / BLOCK {
        for (c, x) in point.iter_mut().enumerate() {
            *x = data[c / BLOCK * block + v * BLOCK + c % BLOCK];
        }
        let mean = point.iter().copied().map(f64::from).sum::<f64>() / channels as f64;
        let spread = |x: &f32| (f64::from(*x) - mean).powi(2);
        let variance = point.iter().map(spread).sum::<f64>() / channels as f64;
        let scale = 1.0 / (variance + f64::from(epsilon)).sqrt();
        for (c, x) in point.iter().enumerate() {
            let normal = (f64::from(*x) - mean) * scale;
            let weighted = normal * weight.get(c).copied().map_or(1.0, f64::from)
                + bias.get(c).copied().map_or(0.0, f64::from);
            data[c / BLOCK * block + v * BLOCK + c % BLOCK] = weighted as f32;
        }
    }
}

/// An activation in place; channels that fill up the last block stay zero.
pub fn activate(values: ViewMut<'_>, activation: Activation, instructions: Instructions) {
    let ones = vec![1.0; values.channels()];
    let zeros = vec![0.0; values.channels()];
    let norm = Prologue {
        scale: &ones,
        offset: &zeros,
        activation,
    };
    scale_offset(values, &norm, instructions);
}

#[cfg(test)]
mod tests {
    use super::super::Blocked;
    use super::*;

    fn values(channels: usize, voxels: usize) -> Vec<f32> {
        (0..channels * voxels)
            .map(|n| ((n * 7919) % 1009) as f32 / 100.0 + 50.0 * (n / voxels) as f32)
            .collect()
    }

    #[test]
    fn norms_equal_their_definitions() {
        let (dims, channels) = ([3, 5, 7], 12);
        let n = 105;
        let x = values(channels, n);
        let weight: Vec<f32> = (0..channels).map(|c| 0.5 + c as f32 / 10.0).collect();
        let bias: Vec<f32> = (0..channels).map(|c| c as f32 - 4.0).collect();
        for groups in [1, 3, 12] {
            let size = channels / groups * n;
            let mut want = Vec::new();
            for (g, group) in x.chunks(size).enumerate() {
                let mean = group.iter().copied().map(f64::from).sum::<f64>() / size as f64;
                let spread = |x: &f32| (f64::from(*x) - mean).powi(2);
                let variance = group.iter().map(spread).sum::<f64>() / size as f64;
                for (m, x) in group.iter().enumerate() {
                    let c = g * (channels / groups) + m / n;
                    let normal = (f64::from(*x) - mean) / (variance + 1e-5).sqrt();
                    let y = normal * f64::from(weight[c]) + f64::from(bias[c]);
                    want.push(if y > 0.0 { y } else { y * 0.01 });
                }
            }
            for instructions in Instructions::available() {
                let mut blocked = Blocked::from_channels(&x, dims, channels);
                let found = moments(blocked.view(), instructions).grouped(groups);
                let (scale, offset) = found.norm(1e-5, &weight, &bias);
                let norm = Prologue {
                    scale: &scale,
                    offset: &offset,
                    activation: Activation::LeakyRelu(0.01),
                };
                scale_offset(blocked.view_mut(), &norm, instructions);
                for (got, want) in blocked.to_channels().iter().zip(&want) {
                    // x·scale and offset are about 600/3 here, each rounded to f32.
                    assert!((f64::from(*got) - want).abs() < 4e-5, "{got} {want}");
                }
            }
        }
    }

    #[test]
    fn layer_norm_is_per_point() {
        let x = values(5, 4);
        let mut blocked = Blocked::from_channels(&x, [1, 2, 2], 5);
        layer_norm(blocked.view_mut(), 0.0, &[], &[]);
        let out = blocked.to_channels();
        for v in 0..4 {
            let point: Vec<f64> = (0..5).map(|c| f64::from(out[c * 4 + v])).collect();
            let mean = point.iter().sum::<f64>() / 5.0;
            let variance = point.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 5.0;
            assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn batch_norm_uses_running_statistics() {
        let (scale, offset) = batch_norm(&[2.0], &[4.0], 0.0, &[3.0], &[1.0]);
        assert_eq!((scale[0], offset[0]), (1.5, -2.0));
    }
}
