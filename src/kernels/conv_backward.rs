//! Gradients of convolutions: by their input (another convolution) and by their weights.
//!
//! Sums are made in an order that depends on shapes alone, never on the number of threads, so that
//! training gives the same weights bit by bit.
#![expect(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the caller's instruction set"
)]
#![expect(
    unsafe_code,
    reason = "raw pointers in the inner loop; bounds are proven before it"
)]

use rayon::prelude::*;

use super::blocked::{BLOCK, View, ViewMut};
use super::conv::{Conv, ConvShape, Epilogue, Method};
use super::norm::moments;
use super::simd::{Instructions, Job, Lanes, dispatch};
use super::transposed::{Transposed, TransposedShape};

/// Pieces of work that are enough for any number of threads that a desk has.
const PIECES: usize = 16;

/// The gradient by a convolution's input, with its weights packed for it.
#[derive(Clone, Debug)]
pub struct InputGradient {
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// Stride 1: a convolution with mirrored weights.
    Conv(Conv),
    /// Else the transposed convolution.
    Transposed(Transposed),
}

impl InputGradient {
    /// Packs the weights `[co][ci][kz][ky][kx]` of a convolution of `shape` whose input has `dims`.
    ///
    /// # Panics
    /// When the shape is not valid, has groups, or the kernel does not fit into the grid.
    pub fn new(shape: ConvShape, dims: [usize; 3], weights: &[f32]) -> Self {
        assert!(shape.is_valid() && shape.groups == 1, "one group");
        let out = shape.output_dims(dims).expect("the kernel fits");
        let reach: [usize; 3] = std::array::from_fn(|a| (shape.kernel[a] - 1) * shape.dilation[a]);
        let narrow = (0..3).all(|a| shape.padding[a].iter().all(|p| *p <= reach[a]));
        if shape.stride == [1; 3] && narrow {
            let taps = shape.taps();
            let mut mirrored = vec![0.0; weights.len()];
            for o in 0..shape.output {
                for i in 0..shape.input {
                    let from = &weights[(o * shape.input + i) * taps..][..taps];
                    let to = &mut mirrored[(i * shape.output + o) * taps..][..taps];
                    for (to, from) in to.iter_mut().zip(from.iter().rev()) {
                        *to = *from;
                    }
                }
            }
            let back = ConvShape {
                input: shape.output,
                output: shape.input,
                padding: std::array::from_fn(|a| shape.padding[a].map(|p| reach[a] - p)),
                ..shape
            };
            return Self {
                kind: Kind::Conv(Conv::new(back, &mirrored, &[], Method::Auto)),
            };
        }
        let output_padding = std::array::from_fn(|a| {
            let [before, after] = shape.padding[a];
            dims[a] + before + after - ((out[a] - 1) * shape.stride[a] + reach[a] + 1)
        });
        let back = TransposedShape {
            input: shape.output,
            output: shape.input,
            groups: 1,
            kernel: shape.kernel,
            stride: shape.stride,
            dilation: shape.dilation,
            padding: shape.padding,
            output_padding,
        };
        Self {
            kind: Kind::Transposed(Transposed::new(back, weights, &[])),
        }
    }

    /// From the gradient of the output to that of the input.
    ///
    /// # Panics
    /// When shapes do not fit.
    pub fn run(&self, gradient: View<'_>, to: ViewMut<'_>, instructions: Instructions) {
        let epilogue = Epilogue::default();
        let done = match &self.kind {
            Kind::Conv(conv) => conv
                .run(gradient, None, to, &epilogue, instructions, &|| true)
                .map(drop),
            Kind::Transposed(up) => up
                .run(gradient, to, &epilogue, instructions, &|| true)
                .map(drop),
        };
        done.expect("nobody stops it");
    }
}

/// The gradient by a convolution's bias: sums over images and grid.
pub fn bias_gradient(gradients: &[View<'_>], instructions: Instructions) -> Vec<f32> {
    let channels = gradients.first().map_or(0, View::channels);
    let mut sums = vec![0.0_f64; channels];
    for gradient in gradients {
        for (sum, [one, _]) in sums.iter_mut().zip(moments(*gradient, instructions).sums) {
            *sum += one;
        }
    }
    sums.into_iter().map(|sum| sum as f32).collect()
}

/// The gradient by a convolution's weights, `[co][ci][kz][ky][kx]`, summed over a batch.
///
/// `inputs` are the convolution's inputs (blocked, or plain for images of few channels),
/// `gradients` those of its outputs, image by image.
///
/// # Panics
/// When shapes do not fit or the convolution has groups.
pub fn weight_gradient(
    shape: &ConvShape,
    inputs: &[View<'_>],
    gradients: &[View<'_>],
    instructions: Instructions,
) -> Vec<f32> {
    assert_eq!(shape.groups, 1, "one group");
    assert_eq!(inputs.len(), gradients.len(), "a gradient for each image");
    let Some((first, last)) = inputs.first().zip(gradients.first()) else {
        return vec![0.0; shape.weights()];
    };
    let (dims, out, lanes) = (first.dims(), last.dims(), first.lanes());
    for (input, gradient) in inputs.iter().zip(gradients) {
        assert_eq!((input.dims(), input.lanes()), (dims, lanes), "one grid");
        assert_eq!(input.channels(), shape.input, "channels of the input");
        assert_eq!(gradient.dims(), out, "one grid");
        assert_eq!(
            (gradient.channels(), gradient.lanes()),
            (shape.output, BLOCK),
            "the output's gradient"
        );
    }
    assert_eq!(Some(out), shape.output_dims(dims), "the grid of the output");
    let taps = shape.taps();
    let (from, to) = (shape.input.div_ceil(lanes), shape.output.div_ceil(BLOCK));
    // One tap without padding: the grid does not matter.
    let flat = taps == 1 && shape.stride == [1; 3] && shape.padding == [[0; 2]; 3];
    let (dims, out) = if flat {
        let count = dims.iter().product::<usize>();
        // Lines of this length stay in the first cache.
        let line = (1..=512)
            .rev()
            .find(|n| count.is_multiple_of(*n))
            .unwrap_or(1);
        ([1, count / line, line], [1, count / line, line])
    } else {
        (dims, out)
    };
    let lines = out[0] * out[1] * inputs.len();
    let splits = PIECES.div_ceil(from * to).min(lines).max(1);
    let tile = taps * lanes * BLOCK;
    let longest: Vec<usize> = (0..out[2]).map(|x| x * shape.stride[2] * lanes).collect();
    let pieces: Vec<Vec<f32>> = (0..from * to * splits)
        .into_par_iter()
        .map(|n| {
            let (pair, split) = (n / splits, n % splits);
            let mut sums = vec![0.0; tile];
            dispatch(
                instructions,
                Piece {
                    shape,
                    dims,
                    out,
                    lanes,
                    inputs,
                    gradients,
                    block: (pair / to, pair % to),
                    lines: lines * split / splits..lines * (split + 1) / splits,
                    offsets: &longest,
                    sums: &mut sums,
                },
            );
            sums
        })
        .collect();
    let mut weights = vec![0.0; shape.weights()];
    for (n, sums) in pieces.iter().enumerate() {
        let pair = n / splits;
        let (i, o) = (pair / to * lanes, pair % to * BLOCK);
        for tap in 0..taps {
            for ci in 0..lanes.min(shape.input - i) {
                for co in 0..BLOCK.min(shape.output - o) {
                    weights[((o + co) * shape.input + i + ci) * taps + tap] +=
                        sums[(tap * lanes + ci) * BLOCK + co];
                }
            }
        }
    }
    weights
}

/// All taps of one block of input channels and one of output channels over some lines.
struct Piece<'a> {
    shape: &'a ConvShape,
    dims: [usize; 3],
    out: [usize; 3],
    lanes: usize,
    inputs: &'a [View<'a>],
    gradients: &'a [View<'a>],
    block: (usize, usize),
    lines: std::ops::Range<usize>,
    offsets: &'a [usize],
    /// `[tap][ci][co]`.
    sums: &'a mut [f32],
}

impl Job for Piece<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let [_, oy, ox] = self.out;
        let per_image = self.out[0] * oy;
        let [kz, ky, kx] = self.shape.kernel;
        let voxels: usize = self.dims.iter().product();
        let points: usize = self.out.iter().product();
        // Positions whose tap lies inside, along x.
        let ranges: Vec<(usize, usize)> = (0..kx)
            .map(|t| inside(self.shape, 2, t, self.dims[2], ox))
            .collect();
        for line in self.lines.clone() {
            let (image, z, y) = (line / per_image, line % per_image / oy, line % oy);
            let input = &self.inputs[image].as_slice()[self.block.0 * voxels * self.lanes..]
                [..voxels * self.lanes];
            let gradient = &self.gradients[image].as_slice()[self.block.1 * points * BLOCK..]
                [..points * BLOCK];
            let row = &gradient[(z * oy + y) * ox * BLOCK..][..ox * BLOCK];
            for tz in 0..kz {
                let Some(pz) = at(self.shape, 0, z, tz, self.dims[0]) else {
                    continue;
                };
                for ty in 0..ky {
                    let Some(py) = at(self.shape, 1, y, ty, self.dims[1]) else {
                        continue;
                    };
                    let from = &input[(pz * self.dims[1] + py) * self.dims[2] * self.lanes..]
                        [..self.dims[2] * self.lanes];
                    let taps = &mut self.sums[(tz * ky + ty) * kx * self.lanes * BLOCK..]
                        [..kx * self.lanes * BLOCK];
                    for (tx, sums) in taps.chunks_exact_mut(self.lanes * BLOCK).enumerate() {
                        let (first, last) = ranges[tx];
                        if first >= last {
                            continue;
                        }
                        // The first position's input; `inside` has shown that it is there, and
                        // that the last one is.
                        let start = first * self.shape.stride[2] + tx * self.shape.dilation[2]
                            - self.shape.padding[2][0];
                        let end = start + (last - 1 - first) * self.shape.stride[2];
                        assert!(end < self.dims[2] && last <= ox, "a position inside");
                        // SAFETY: positions first..last are inside of the input's and the
                        // gradient's row; `sums` has lanes · 8 floats.
                        unsafe {
                            let x = from.as_ptr().wrapping_add(start * self.lanes);
                            let g = row.as_ptr().wrapping_add(first * BLOCK);
                            let offsets = &self.offsets[..last - first];
                            let to = sums.as_mut_ptr();
                            if self.lanes == BLOCK {
                                if <V::Eight as Lanes>::N == BLOCK {
                                    products::<V::Eight, 8, 1>(x, offsets, g, to);
                                } else {
                                    products::<V::Eight, 8, 2>(x, offsets, g, to);
                                }
                            } else if <V::Eight as Lanes>::N == BLOCK {
                                products::<V::Eight, 1, 1>(x, offsets, g, to);
                            } else {
                                products::<V::Eight, 1, 2>(x, offsets, g, to);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// `to[p][·] += Σ x[offset + p] · g[·]` over offsets, `g` going on by eight.
///
/// # Safety
/// As [`Lanes::accumulate`]; `to` holds `P · 8` floats and `W · N` is 8.
#[inline(always)]
unsafe fn products<V: Lanes, const P: usize, const W: usize>(
    x: *const f32,
    offsets: &[usize],
    g: *const f32,
    to: *mut f32,
) {
    // SAFETY: passed on from the caller.
    unsafe {
        let mut sums = [[V::splat(0.0); W]; P];
        V::accumulate::<P, W, 1>(&mut sums, x, 1, offsets, g);
        for (p, sums) in sums.iter().enumerate() {
            for (n, sum) in sums.iter().enumerate() {
                let to = to.wrapping_add(p * BLOCK + n * V::N);
                V::load(to).add(*sum).store(to);
            }
        }
    }
}

/// Output positions along an axis whose tap `t` lies inside the input: first, one past the last.
fn inside(shape: &ConvShape, axis: usize, t: usize, n: usize, out: usize) -> (usize, usize) {
    let (stride, shift) = (shape.stride[axis], t * shape.dilation[axis]);
    let before = shape.padding[axis][0];
    let first = before.saturating_sub(shift).div_ceil(stride);
    // position · stride + shift − before ≤ n − 1
    let last = (n + before)
        .checked_sub(shift + 1)
        .map_or(0, |room| room / stride + 1);
    (first.min(out), last.min(out))
}

/// The input position under a tap.
fn at(shape: &ConvShape, axis: usize, position: usize, t: usize, n: usize) -> Option<usize> {
    (position * shape.stride[axis] + t * shape.dilation[axis])
        .checked_sub(shape.padding[axis][0])
        .filter(|p| *p < n)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Blocked;
    use super::super::literal::conv_literal;
    use super::*;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut x = seed | 1;
        (0..n)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 17;
                x ^= x << 5;
                (x % 2001) as f32 / 1000.0 - 1.0
            })
            .collect()
    }

    /// Σ conv(x, w) · g over a batch is linear in x and in w: its differences along single
    /// coordinates are the gradients exactly.
    fn check(shape: ConvShape, dims: [usize; 3], seed: u32, plain: bool) {
        let Some(out) = shape.output_dims(dims) else {
            return;
        };
        let (voxels, count): (usize, usize) = (dims.iter().product(), out.iter().product());
        let weights = values(shape.weights(), seed);
        let images: Vec<Vec<f32>> = (1..3)
            .map(|n| values(shape.input * voxels, seed + n))
            .collect();
        let gradients: Vec<Vec<f32>> = (5..7)
            .map(|n| values(shape.output * count, seed + n))
            .collect();
        let product = |x: &[f32], w: &[f32], g: &[f32]| -> f64 {
            let y = conv_literal(&shape, x, dims, w, &[]);
            y.iter().zip(g).map(|(y, g)| y * f64::from(*g)).sum()
        };
        let inputs: Vec<Blocked> = images
            .iter()
            .map(|x| {
                if plain {
                    Blocked::plain(x.clone(), dims, shape.input)
                } else {
                    Blocked::from_channels(x, dims, shape.input)
                }
            })
            .collect();
        let outs: Vec<Blocked> = gradients
            .iter()
            .map(|g| Blocked::from_channels(g, out, shape.output))
            .collect();
        let inputs: Vec<View<'_>> = inputs.iter().map(Blocked::view).collect();
        let outs: Vec<View<'_>> = outs.iter().map(Blocked::view).collect();
        for instructions in Instructions::available() {
            let got = weight_gradient(&shape, &inputs, &outs, instructions);
            for n in (0..weights.len()).step_by(1 + weights.len() / 12) {
                let mut one = vec![0.0; weights.len()];
                one[n] = 1.0;
                let want: f64 = images
                    .iter()
                    .zip(&gradients)
                    .map(|(x, g)| product(x, &one, g))
                    .sum();
                // Sums of up to 2 · 400 products of values within ±1, in f32.
                assert!(
                    (f64::from(got[n]) - want).abs() < 1e-4,
                    "{shape:?} on {dims:?}, weight {n}: {} instead of {want}",
                    got[n]
                );
            }
            let back = InputGradient::new(shape, dims, &weights);
            let mut to = Blocked::zeros(dims, shape.input);
            back.run(outs[0], to.view_mut(), instructions);
            let got = to.to_channels();
            for n in (0..got.len()).step_by(1 + got.len() / 12) {
                let mut one = vec![0.0; got.len()];
                one[n] = 1.0;
                let want = product(&one, &weights, &gradients[0]);
                assert!(
                    (f64::from(got[n]) - want).abs() < 1e-4,
                    "{shape:?} on {dims:?}, input {n}: {} instead of {want}",
                    got[n]
                );
            }
            let bias = bias_gradient(&outs, instructions);
            for (o, got) in bias.iter().enumerate() {
                let sum = |g: &Vec<f32>| -> f64 {
                    g[o * count..(o + 1) * count]
                        .iter()
                        .copied()
                        .map(f64::from)
                        .sum()
                };
                assert!((f64::from(*got) - gradients.iter().map(sum).sum::<f64>()).abs() < 1e-4);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn gradients_equal_differences(
            dims in [1_usize..4, 3_usize..9, 3_usize..12],
            input in 1_usize..18,
            output in 1_usize..18,
            kernel in [1_usize..3, 1_usize..4, 1_usize..4],
            stride in [1_usize..3, 1_usize..3, 1_usize..3],
            dilation in 1_usize..3,
            pad in 0_usize..2,
            seed in 1_u32..1000,
            plain: bool,
        ) {
            let shape = ConvShape {
                input,
                output,
                groups: 1,
                kernel,
                stride,
                dilation: [dilation; 3],
                padding: kernel.map(|k| [(k / 2 + pad).min(k), (k / 2).min(k)]),
            };
            check(shape, dims, seed, plain);
        }
    }

    #[test]
    fn usual_shapes_have_right_gradients() {
        let same = ConvShape::same(16, 24, [3; 3]);
        check(same, [4, 5, 6], 3, false);
        check(same.strided([2; 3]), [4, 6, 5], 4, false);
        check(
            ConvShape::same(1, 8, [1, 7, 7]).strided([1, 2, 2]),
            [1, 12, 13],
            5,
            true,
        );
        check(ConvShape::same(9, 8, [1; 3]), [3, 5, 7], 6, false);
        check(
            ConvShape::same(8, 8, [3; 3]).dilated([2; 3]),
            [5, 6, 7],
            7,
            false,
        );
    }
}
