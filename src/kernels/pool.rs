//! Pooling: largest or mean value of a window, or of the whole grid.

use rayon::prelude::*;

use super::blocked::{BLOCK, View, ViewMut};

/// What a pooling does. Axes are `[z, y, x]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolShape {
    /// Largest value, or mean.
    pub kind: PoolKind,
    /// Points of the window.
    pub kernel: [usize; 3],
    /// Steps of the output in the input.
    pub stride: [usize; 3],
    /// Distances of the window's points (1 for means).
    pub dilation: [usize; 3],
    /// Points before and after the grid, at most half of the window.
    pub padding: [[usize; 2]; 3],
    /// Whether windows that end beyond the padded grid count.
    pub ceil: bool,
}

/// What becomes of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolKind {
    /// The largest value; padding never is it.
    Max,
    /// The mean of the values.
    Mean {
        /// Whether zeros of the padding are counted.
        count_padding: bool,
    },
}

impl PoolShape {
    /// Windows side by side.
    pub const fn new(kind: PoolKind, kernel: [usize; 3]) -> Self {
        Self {
            kind,
            kernel,
            stride: kernel,
            dilation: [1; 3],
            padding: [[0; 2]; 3],
            ceil: false,
        }
    }

    /// The grid of the output; `None` where no window fits.
    pub fn output_dims(&self, dims: [usize; 3]) -> Option<[usize; 3]> {
        let mut out = [0; 3];
        for axis in 0..3 {
            let span = self.kernel[axis]
                .checked_sub(1)?
                .checked_mul(self.dilation[axis])?
                .checked_add(1)?;
            let [before, after] = self.padding[axis];
            let stride = self.stride[axis];
            let room = dims[axis]
                .checked_add(before)?
                .checked_add(after)?
                .checked_sub(span)?;
            out[axis] = if self.ceil {
                let count = room.div_ceil(stride) + 1;
                // As in PyTorch: the last window begins within the grid or the padding before it.
                count - usize::from((count - 1) * stride >= dims[axis] + before)
            } else {
                room.checked_div(stride)? + 1
            };
        }
        Some(out)
    }
}

/// Pools into `output`.
///
/// # Panics
/// When shapes do not fit, or the input is plain.
pub fn pool(shape: &PoolShape, input: View<'_>, mut output: ViewMut<'_>) {
    let (dims, out_dims) = (input.dims(), output.dims());
    assert_eq!(
        Some(out_dims),
        shape.output_dims(dims),
        "the grid of the output"
    );
    assert_eq!(input.channels(), output.channels(), "channels stay");
    assert_eq!(input.lanes(), BLOCK, "blocks of eight");
    let lines = out_dims[0] * out_dims[1];
    let data = input.as_slice().as_chunks::<BLOCK>().0;
    let [nz, ny, nx] = dims;
    output
        .as_mut_slice()
        .par_chunks_mut((out_dims[2] * BLOCK).max(1))
        .enumerate()
        .for_each(|(n, row)| {
            let (block, z, y) = (n / lines, n % lines / out_dims[1], n % out_dims[1]);
            for (x, to) in row.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
                let [zs, ys, xs] = [
                    window(shape, dims, 0, z),
                    window(shape, dims, 1, y),
                    window(shape, dims, 2, x),
                ];
                let mut found = match shape.kind {
                    PoolKind::Max => [f32::NEG_INFINITY; BLOCK],
                    PoolKind::Mean { .. } => [0.0; BLOCK],
                };
                let mut points = 0;
                for pz in zs.clone() {
                    for py in ys.clone() {
                        let line = ((block * nz + pz) * ny + py) * nx;
                        for px in xs.clone() {
                            points += 1;
                            let from = &data[line + px];
                            match shape.kind {
                                PoolKind::Max => {
                                    for n in 0..BLOCK {
                                        // A NaN stays, as in PyTorch.
                                        let other = from[n] > found[n] || from[n].is_nan();
                                        found[n] = if other { from[n] } else { found[n] };
                                    }
                                }
                                PoolKind::Mean { .. } => {
                                    for n in 0..BLOCK {
                                        found[n] += from[n];
                                    }
                                }
                            }
                        }
                    }
                }
                if let PoolKind::Mean { count_padding } = shape.kind {
                    let count = if count_padding {
                        (0..3)
                            .map(|a| padded(shape, dims, a, [z, y, x][a]))
                            .product()
                    } else {
                        points
                    };
                    for value in &mut found {
                        *value /= count as f32;
                    }
                }
                *to = found;
            }
        });
}

/// Input points of a window along an axis, the padding left out.
pub(super) fn window(
    shape: &PoolShape,
    dims: [usize; 3],
    axis: usize,
    at: usize,
) -> std::iter::StepBy<std::ops::Range<usize>> {
    let before = shape.padding[axis][0];
    let dilation = shape.dilation[axis];
    let start = at * shape.stride[axis];
    let end = start + (shape.kernel[axis] - 1) * dilation + 1;
    // The first point at or behind the padding.
    let first = start + before.saturating_sub(start).div_ceil(dilation) * dilation;
    let last = end.saturating_sub(before).min(dims[axis]);
    (first.saturating_sub(before)..last.max(first.saturating_sub(before))).step_by(dilation)
}

/// Points of a window along an axis with the padding, but not what lies beyond it.
pub(super) fn padded(shape: &PoolShape, dims: [usize; 3], axis: usize, at: usize) -> usize {
    let [before, after] = shape.padding[axis];
    let start = at * shape.stride[axis];
    (start + shape.kernel[axis]).min(dims[axis] + before + after) - start
}

/// The mean over the grid per channel.
///
/// # Panics
/// When the input is plain.
pub fn global_mean(input: View<'_>) -> Vec<f32> {
    let found = super::norm::moments(input, super::Instructions::detect());
    let count = found.count as f64;
    found.sums.iter().map(|s| (s[0] / count) as f32).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Blocked;
    use super::*;

    proptest! {
        #[test]
        fn windows_equal_the_definition(
            dims in [1_usize..6, 1_usize..8, 1_usize..12],
            channels in 1_usize..12,
            kernel in [1_usize..4, 1_usize..4, 1_usize..4],
            stride in [1_usize..4, 1_usize..4, 1_usize..4],
            padded in [any::<bool>(), any::<bool>(), any::<bool>()],
            dilation in 1_usize..3,
            ceil in any::<bool>(),
            kind in 0..3,
        ) {
            let kind = match kind {
                0 => PoolKind::Max,
                n => PoolKind::Mean { count_padding: n == 1 },
            };
            let dilation = if kind == PoolKind::Max { dilation } else { 1 };
            let padding: [[usize; 2]; 3] =
                std::array::from_fn(|n| [if padded[n] { kernel[n] / 2 } else { 0 }; 2]);
            let shape = PoolShape { kind, kernel, stride, dilation: [dilation; 3], padding, ceil };
            let out_dims = shape.output_dims(dims);
            prop_assume!(out_dims.is_some());
            let out_dims = out_dims.unwrap();
            let n = dims.iter().product::<usize>();
            let x: Vec<f32> = (0..channels * n).map(|n| ((n * 7919) % 101) as f32 - 50.0).collect();
            let mut out = Blocked::zeros(out_dims, channels);
            pool(&shape, Blocked::from_channels(&x, dims, channels).view(), out.view_mut());
            let got = out.to_channels();
            let count = out_dims.iter().product::<usize>();
            for (m, got) in got.iter().enumerate() {
                let (c, v) = (m / count, m % count);
                let at = [v / (out_dims[1] * out_dims[2]), v / out_dims[2] % out_dims[1], v % out_dims[2]];
                let (mut largest, mut sum, mut inside, mut with_padding) = (f32::MIN, 0.0, 0, 0);
                for k in 0..kernel.iter().product::<usize>() {
                    let k = [k / (kernel[1] * kernel[2]), k / kernel[2] % kernel[1], k % kernel[2]];
                    let p: [i64; 3] = std::array::from_fn(|a| {
                        (at[a] * stride[a] + k[a] * dilation) as i64 - padding[a][0] as i64
                    });
                    if (0..3).all(|a| p[a] < (dims[a] + padding[a][1]) as i64) {
                        with_padding += 1;
                    }
                    if (0..3).all(|a| p[a] >= 0 && p[a] < dims[a] as i64) {
                        let at = (p[0] as usize * dims[1] + p[1] as usize) * dims[2] + p[2] as usize;
                        let value = x[c * n + at];
                        largest = largest.max(value);
                        sum += value;
                        inside += 1;
                    }
                }
                prop_assume!(inside > 0);
                let want = match kind {
                    PoolKind::Max => largest,
                    PoolKind::Mean { count_padding: true } => sum / with_padding as f32,
                    PoolKind::Mean { .. } => sum / inside as f32,
                };
                prop_assert!((got - want).abs() < 1e-4, "{shape:?} {dims:?}: {got} {want}");
            }
        }
    }

    #[test]
    fn the_whole_grid_has_one_mean() {
        let x: Vec<f32> = (0..3 * 8).map(|n| n as f32).collect();
        let means = global_mean(Blocked::from_channels(&x, [2, 2, 2], 3).view());
        assert_eq!(means, [3.5, 11.5, 19.5]);
    }
}
