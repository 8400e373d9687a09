//! Norms and activations in training: forward out of place, and backward in two passes.
//!
//! All norms are `activation(x · scale + offset)` per channel with scales that depend on moments.
//! Backward, the first pass gives the sums that moments need, the second
//! `g · act′ · a + x · b + c` with `a`, `b`, `c` per channel made from them.
#![expect(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the caller's instruction set"
)]
#![expect(
    unsafe_code,
    reason = "jobs are compiled for the caller's instruction set"
)]

use rayon::prelude::*;

use super::blocked::{BLOCK, View, ViewMut};
use super::conv::Prologue;
use super::finish::activate_input;
use super::pointwise::Activation;
use super::simd::{Instructions, Job, Lanes, dispatch};

/// Points of a piece of work.
const PIECE: usize = 2048;
/// Points that are summed in f32 before they go to f64.
const RUN: usize = 64;

/// Per channel: `(Σ g′, Σ g′ · x)`, where g′ is the gradient before the activation.
pub type GradientSums = Vec<[f64; 2]>;

/// What the second pass of a norm's gradient multiplies per channel.
#[derive(Clone, Debug)]
pub struct GradientTerms {
    /// Times g′.
    pub gradient: Vec<f32>,
    /// Times x.
    pub value: Vec<f32>,
    /// Added.
    pub constant: Vec<f32>,
}

impl Activation {
    /// The derivative at `x`.
    #[inline(always)]
    pub fn slope(self, x: f32) -> f32 {
        match self {
            Self::Linear => 1.0,
            Self::Relu => {
                if x > 0.0 {
                    1.0
                } else {
                    0.0
                }
            }
            Self::LeakyRelu(slope) => {
                if x > 0.0 {
                    1.0
                } else {
                    slope
                }
            }
            Self::Elu => {
                if x > 0.0 {
                    1.0
                } else {
                    x.exp()
                }
            }
            Self::Gelu => {
                // Φ(x) + x · φ(x); Φ from gelu(x) = x · Φ(x), at zero its limit.
                let cumulative = if x.abs() < 1e-6 {
                    0.5
                } else {
                    Self::Gelu.of(x) / x
                };
                cumulative + x * 0.398_942_3 * (-0.5 * x * x).exp()
            }
            Self::Silu => {
                let s = 1.0 / (1.0 + (-x).exp());
                s * (1.0 + x * (1.0 - s))
            }
            Self::Sigmoid => {
                let s = 1.0 / (1.0 + (-x).exp());
                s * (1.0 - s)
            }
            Self::Tanh => {
                let t = x.tanh();
                1.0 - t * t
            }
        }
    }
}

/// Scale and offset of a block's eight channels, zeros beyond the last.
#[inline(always)]
fn eight(of: &[f32], block: usize) -> [f32; BLOCK] {
    std::array::from_fn(|n| of.get(block * BLOCK + n).copied().unwrap_or(0.0))
}

struct Forward<'a> {
    from: &'a [f32],
    norm: &'a Prologue<'a>,
    first: usize,
    channels: usize,
    to: &'a mut [f32],
}

impl Job for Forward<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        for (to, from) in self
            .to
            .chunks_mut(RUN * BLOCK)
            .zip(self.from.chunks(RUN * BLOCK))
        {
            to.copy_from_slice(from);
            activate_input(self.norm, self.first, BLOCK, to);
        }
        if self.channels < self.first + BLOCK && self.norm.activation.of(0.0) != 0.0 {
            for point in self.to.as_chunks_mut::<BLOCK>().0 {
                point[self.channels - self.first..].fill(0.0);
            }
        }
    }
}

/// `activation(x · scale + offset)` per channel into other memory.
///
/// # Panics
/// When shapes do not fit.
pub fn normalize_into(
    input: View<'_>,
    norm: &Prologue<'_>,
    mut output: ViewMut<'_>,
    instructions: Instructions,
) {
    assert_eq!(input.lanes(), BLOCK, "blocks of eight");
    assert_eq!(
        (input.dims(), input.channels(), input.channels()),
        (output.dims(), output.channels(), norm.scale.len()),
        "one shape"
    );
    let channels = input.channels();
    let block = (input.voxels() * BLOCK).max(1);
    output
        .as_mut_slice()
        .par_chunks_mut(block)
        .zip(input.as_slice().par_chunks(block))
        .enumerate()
        .for_each(|(b, (to, from))| {
            let pieces = to.chunks_mut(PIECE * BLOCK).zip(from.chunks(PIECE * BLOCK));
            for (to, from) in pieces {
                let first = b * BLOCK;
                dispatch(
                    instructions,
                    Forward {
                        from,
                        norm,
                        first,
                        channels,
                        to,
                    },
                );
            }
        });
}

struct Sums<'a> {
    x: &'a [f32],
    g: &'a [f32],
    scale: [f32; BLOCK],
    offset: [f32; BLOCK],
    activation: Activation,
}

impl Sums<'_> {
    #[inline(always)]
    fn sum(&self, slope: impl Fn(f32) -> f32) -> [[f64; 2]; BLOCK] {
        let mut total = [[0.0; 2]; BLOCK];
        let runs = self.x.chunks(RUN * BLOCK).zip(self.g.chunks(RUN * BLOCK));
        for (x, g) in runs {
            let (mut ones, mut products) = ([0.0_f32; BLOCK], [0.0_f32; BLOCK]);
            let points = x.as_chunks::<BLOCK>().0.iter();
            for (x, g) in points.zip(g.as_chunks::<BLOCK>().0) {
                for n in 0..BLOCK {
                    let g = g[n] * slope(x[n] * self.scale[n] + self.offset[n]);
                    ones[n] += g;
                    products[n] += g * x[n];
                }
            }
            for n in 0..BLOCK {
                total[n][0] += f64::from(ones[n]);
                total[n][1] += f64::from(products[n]);
            }
        }
        total
    }
}

impl Job for Sums<'_> {
    type Out = [[f64; 2]; BLOCK];
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) -> Self::Out {
        // A closure of its own for each of the usual ones, so that loops have no branches.
        match self.activation {
            Activation::Linear => self.sum(|_| 1.0),
            Activation::Relu => self.sum(|x| if x > 0.0 { 1.0 } else { 0.0 }),
            Activation::LeakyRelu(slope) => self.sum(|x| if x > 0.0 { 1.0 } else { slope }),
            other => self.sum(|x| other.slope(x)),
        }
    }
}

/// The first pass: sums per channel of one image.
///
/// `input` is what was normalized, `gradient` that of the result, `norm` what was applied.
///
/// # Panics
/// When shapes do not fit.
pub fn gradient_sums(
    input: View<'_>,
    gradient: View<'_>,
    norm: &Prologue<'_>,
    instructions: Instructions,
) -> GradientSums {
    assert_eq!(
        (input.dims(), input.channels(), BLOCK, BLOCK),
        (
            gradient.dims(),
            gradient.channels(),
            input.lanes(),
            gradient.lanes()
        ),
        "one shape"
    );
    let block = (input.voxels() * BLOCK).max(1);
    let blocks: Vec<[[f64; 2]; BLOCK]> = input
        .as_slice()
        .par_chunks(block)
        .zip(gradient.as_slice().par_chunks(block))
        .enumerate()
        .map(|(b, (x, g))| {
            dispatch(
                instructions,
                Sums {
                    x,
                    g,
                    scale: eight(norm.scale, b),
                    offset: eight(norm.offset, b),
                    activation: norm.activation,
                },
            )
        })
        .collect();
    let sums = blocks.into_iter().flatten();
    sums.take(input.channels()).collect()
}

struct Backward<'a> {
    x: &'a [f32],
    g: &'a [f32],
    scale: [f32; BLOCK],
    offset: [f32; BLOCK],
    terms: [[f32; BLOCK]; 3],
    activation: Activation,
    to: &'a mut [f32],
}

impl Backward<'_> {
    #[inline(always)]
    fn write(self, slope: impl Fn(f32) -> f32) {
        let [a, b, c] = self.terms;
        let points = self.x.as_chunks::<BLOCK>().0.iter();
        let points = points.zip(self.g.as_chunks::<BLOCK>().0);
        for (to, (x, g)) in self.to.as_chunks_mut::<BLOCK>().0.iter_mut().zip(points) {
            for n in 0..BLOCK {
                let slope = slope(x[n] * self.scale[n] + self.offset[n]);
                to[n] = g[n] * slope * a[n] + x[n] * b[n] + c[n];
            }
        }
    }
}

impl Job for Backward<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        match self.activation {
            Activation::Linear => self.write(|_| 1.0),
            Activation::Relu => self.write(|x| if x > 0.0 { 1.0 } else { 0.0 }),
            Activation::LeakyRelu(slope) => self.write(|x| if x > 0.0 { 1.0 } else { slope }),
            other => self.write(|x| other.slope(x)),
        }
    }
}

/// The second pass: the gradient of the input of one image. Channels that fill up the last block
/// become zero.
///
/// # Panics
/// When shapes do not fit.
pub fn input_gradient(
    input: View<'_>,
    gradient: View<'_>,
    norm: &Prologue<'_>,
    terms: &GradientTerms,
    mut to: ViewMut<'_>,
    instructions: Instructions,
) {
    assert_eq!(
        (input.dims(), input.channels(), BLOCK, BLOCK),
        (
            gradient.dims(),
            gradient.channels(),
            input.lanes(),
            gradient.lanes()
        ),
        "one shape"
    );
    assert_eq!(
        (input.dims(), input.channels()),
        (to.dims(), to.channels()),
        "one shape"
    );
    let block = (input.voxels() * BLOCK).max(1);
    to.as_mut_slice()
        .par_chunks_mut(block)
        .zip(input.as_slice().par_chunks(block))
        .zip(gradient.as_slice().par_chunks(block))
        .enumerate()
        .for_each(|(b, ((to, x), g))| {
            dispatch(
                instructions,
                Backward {
                    x,
                    g,
                    scale: eight(norm.scale, b),
                    offset: eight(norm.offset, b),
                    terms: [
                        eight(&terms.gradient, b),
                        eight(&terms.value, b),
                        eight(&terms.constant, b),
                    ],
                    activation: norm.activation,
                    to,
                },
            );
        });
}

#[cfg(test)]
mod tests {
    use super::super::Blocked;
    use super::*;

    const ALL: [Activation; 8] = [
        Activation::Linear,
        Activation::Relu,
        Activation::Elu,
        Activation::Gelu,
        Activation::LeakyRelu(0.1),
        Activation::Silu,
        Activation::Sigmoid,
        Activation::Tanh,
    ];

    fn exact(activation: Activation, x: f64) -> f64 {
        match activation {
            Activation::Linear => x,
            Activation::Relu => x.max(0.0),
            Activation::Elu => {
                if x > 0.0 {
                    x
                } else {
                    x.exp() - 1.0
                }
            }
            // Through the integral of the normal density.
            Activation::Gelu => {
                let steps = 2000;
                let h = x / f64::from(steps);
                let density = |t: f64| (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt();
                let sum: f64 = (0..steps).map(|n| density((f64::from(n) + 0.5) * h)).sum();
                x * (0.5 + sum * h)
            }
            Activation::LeakyRelu(slope) => {
                if x > 0.0 {
                    x
                } else {
                    x * f64::from(slope)
                }
            }
            Activation::Silu => x / (1.0 + (-x).exp()),
            Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Activation::Tanh => x.tanh(),
        }
    }

    #[test]
    fn slopes_equal_differences() {
        for activation in ALL {
            for n in -30..30 {
                let x = f64::from(n) / 7.0 + 0.013;
                let h = 1e-5;
                let want = (exact(activation, x + h) - exact(activation, x - h)) / (2.0 * h);
                let got = f64::from(activation.slope(x as f32));
                assert!(
                    (got - want).abs() < 2e-6,
                    "{activation:?} at {x}: {got} {want}"
                );
            }
        }
    }

    #[test]
    fn both_passes_equal_their_definition() {
        let (dims, channels, voxels) = ([2, 5, 9], 11, 90);
        let values = |seed: usize| -> Vec<f32> {
            (0..channels * voxels)
                .map(|n| ((n * 7919 + seed * 104_729) % 2003) as f32 / 1000.0 - 1.0)
                .collect()
        };
        let (x, g) = (values(1), values(2));
        let per_channel = |a: f32, b: f32| (0..channels).map(|c| a + b * c as f32).collect();
        let (scale, offset): (Vec<f32>, Vec<f32>) =
            (per_channel(0.5, 0.1), per_channel(-0.3, 0.05));
        let terms = GradientTerms {
            gradient: per_channel(1.0, 0.2),
            value: per_channel(-0.1, 0.03),
            constant: per_channel(0.4, -0.1),
        };
        for instructions in Instructions::available() {
            for activation in ALL {
                let norm = Prologue {
                    scale: &scale,
                    offset: &offset,
                    activation,
                };
                let (bx, bg) = (
                    Blocked::from_channels(&x, dims, channels),
                    Blocked::from_channels(&g, dims, channels),
                );
                let mut y = Blocked::zeros(dims, channels);
                normalize_into(bx.view(), &norm, y.view_mut(), instructions);
                let sums = gradient_sums(bx.view(), bg.view(), &norm, instructions);
                let mut to = Blocked::zeros(dims, channels);
                input_gradient(
                    bx.view(),
                    bg.view(),
                    &norm,
                    &terms,
                    to.view_mut(),
                    instructions,
                );
                let (y, got) = (y.to_channels(), to.to_channels());
                for c in 0..channels {
                    let mut want = [0.0; 2];
                    for n in c * voxels..(c + 1) * voxels {
                        let inner = x[n] * scale[c] + offset[c];
                        assert!((y[n] - activation.of(inner)).abs() < 1e-6);
                        let before = g[n] * activation.slope(inner);
                        want[0] += f64::from(before);
                        want[1] += f64::from(before) * f64::from(x[n]);
                        let all =
                            before * terms.gradient[c] + x[n] * terms.value[c] + terms.constant[c];
                        assert!((got[n] - all).abs() < 1e-5);
                    }
                    assert!((sums[c][0] - want[0]).abs() < 1e-4);
                    assert!((sums[c][1] - want[1]).abs() < 1e-4);
                }
                assert!((0..voxels).all(|v| to.view().at(channels, v) == 0.0));
            }
        }
    }
}
