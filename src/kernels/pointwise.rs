//! Activations and instance norm.
#![expect(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the caller's instruction set"
)]

use rayon::prelude::*;

use super::Planes;

/// Activation after a convolution.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// None.
    #[default]
    Linear,
    /// max(x, 0).
    Relu,
    /// x, or exp(x) − 1 below zero.
    Elu,
    /// x · Φ(x), with the error function (not the tanh approximation).
    Gelu,
    /// x, or slope · x below zero.
    LeakyRelu(f32),
    /// x / (1 + exp(−x)).
    Silu,
    /// 1 / (1 + exp(−x)).
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
}

impl Activation {
    /// The value.
    #[inline(always)]
    pub fn of(self, x: f32) -> f32 {
        match self {
            Self::Linear => x,
            Self::Relu => x.max(0.0),
            Self::Elu => elu(x),
            Self::Gelu => gelu(x),
            Self::LeakyRelu(slope) => leaky(x, slope),
            Self::Silu => x * sigmoid(x),
            Self::Sigmoid => sigmoid(x),
            Self::Tanh => tanh(x),
        }
    }

    /// All values, in place: loops without branches, so that the caller's vectors are used.
    #[inline(always)]
    pub fn apply(self, values: &mut [f32]) {
        match self {
            Self::Linear => {}
            Self::Relu => values.iter_mut().for_each(|x| *x = x.max(0.0)),
            Self::Elu => values.iter_mut().for_each(|x| *x = elu(*x)),
            Self::Gelu => values.iter_mut().for_each(|x| *x = gelu(*x)),
            Self::LeakyRelu(slope) => values.iter_mut().for_each(|x| *x = leaky(*x, slope)),
            Self::Silu => values.iter_mut().for_each(|x| *x *= sigmoid(*x)),
            Self::Sigmoid => values.iter_mut().for_each(|x| *x = sigmoid(*x)),
            Self::Tanh => values.iter_mut().for_each(|x| *x = tanh(*x)),
        }
    }
}

/// x, or exp(x) − 1 below zero, within 3e-7 of the exact value, relative.
#[inline(always)]
fn elu(x: f32) -> f32 {
    let (minus_one, scale) = exp_parts(x.clamp(-87.0, 0.0));
    let low = scale * minus_one + (scale - 1.0);
    if x > 0.0 { x } else { low }
}

#[inline(always)]
fn leaky(x: f32, slope: f32) -> f32 {
    // A choice between results would become a masked store, which is slow.
    x * if x > 0.0 { 1.0 } else { slope }
}

/// 1 / (1 + exp(−x)), from exp(−|x|) so that nothing overflows.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    let e = exp(-x.abs());
    let low = e / (1.0 + e);
    if x > 0.0 { 1.0 - low } else { low }
}

/// tanh x = (1 − e) / (1 + e) with e = exp(−2|x|), close to zero through exp − 1.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let (minus_one, scale) = exp_parts((-2.0 * x.abs()).max(-87.0));
    let less = scale * minus_one + (scale - 1.0);
    (-less / (less + 2.0)).copysign(x)
}

/// exp(x) for x ≤ 0, within 2e-7, relative; 1e-38 below −87.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let (minus_one, scale) = exp_parts(x.clamp(-87.0, 0.0));
    scale * minus_one + scale
}

/// exp(r) − 1 and 2ⁿ with exp(x) = 2ⁿ · exp(r), for x from −87 to 0.
#[inline(always)]
fn exp_parts(below: f32) -> (f32, f32) {
    // exp(x) − 1 = 2ⁿ·(exp(r) − 1) + (2ⁿ − 1) with x = n·ln 2 + r and |r| ≤ ½ ln 2.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding and taking away 1.5·2²³ rounds to the nearest whole number.
    const ROUND: f32 = 12_582_912.0;
    let shifted = below * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = below - n * LN2_HIGH - n * LN2_LOW;
    let mut sum = 1.0 / 5040.0;
    sum = sum * r + 1.0 / 720.0;
    sum = sum * r + 1.0 / 120.0;
    sum = sum * r + 1.0 / 24.0;
    sum = sum * r + 1.0 / 6.0;
    sum = sum * r + 0.5;
    let minus_one = sum * r * r + r;
    // n, a whole number from −126 to 0, stands in the low bits: it becomes the exponent of 2ⁿ.
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    (minus_one, scale)
}

/// x · Φ(x).
#[inline(always)]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// Error function, absolute error below 5e-7.
///
/// # Source
/// The 13/8-degree rational interpolant on [−4, 4] of Eigen (`generic_fast_erf_float`).
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let inside = x.clamp(-4.0, 4.0);
    let s = inside * inside;
    let mut p = -2.726_142_4e-10_f32;
    for c in [
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_6e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ] {
        p = p * s + c;
    }
    let mut q = -1.456_607_2e-5_f32;
    for c in [
        -2.133_740_6e-4,
        -1.682_827e-3,
        -7.373_329_3e-3,
        -1.426_474e-2,
    ] {
        q = q * s + c;
    }
    // Beyond 4 it is 1 to the last bit of f32; without this GELU's tail would grow with x.
    if x.abs() < 4.0 {
        inside * p / q
    } else {
        1.0_f32.copysign(x)
    }
}

/// Instance norm per channel over z, y, x without affine, then an activation, in place.
///
/// # Source
/// Ulyanov et al., "Instance Normalization" (2016); variance of the population, as in PyTorch.
pub fn instance_norm(planes: &mut Planes, epsilon: f32, activation: Activation) {
    let [nz, ny, nx] = planes.dims();
    let (channels, stride, pad) = (planes.channels(), planes.stride(), planes.pad());
    let line = planes.line();
    let row = move |line: &[f32], c: usize| -> std::ops::Range<usize> {
        debug_assert!(line.len() >= channels * stride);
        c * stride + pad..c * stride + pad + nx
    };
    // Shifted by each channel's first value, so that one pass gives both sums without loss.
    let shifts: Vec<f32> = (0..channels).map(|c| planes.row(0, 0, c)[0]).collect();
    let sums = planes.as_slice()[..nz * ny * line]
        .par_chunks(line)
        .map(|l| {
            let sums = shifts.iter().enumerate();
            sums.map(|(c, shift)| sum_and_squares(&l[row(l, c)], *shift))
                .collect::<Vec<_>>()
        })
        .reduce(
            || vec![(0.0, 0.0); channels],
            |a, b| {
                let pairs = a.iter().zip(&b);
                pairs.map(|(a, b)| (a.0 + b.0, a.1 + b.1)).collect()
            },
        );
    let count = (nz * ny * nx) as f64;
    // y = x·scale + offset, per channel.
    let affine: Vec<(f32, f32)> = sums
        .iter()
        .zip(&shifts)
        .map(|((sum, squares), shift)| {
            let mean = sum / count;
            let variance = (squares / count - mean * mean).max(0.0);
            let scale = 1.0 / (variance + f64::from(epsilon)).sqrt();
            (scale as f32, (mean + f64::from(*shift)) as f32)
        })
        .collect();
    planes.as_mut_lines().par_chunks_mut(line).for_each(|l| {
        for (c, (scale, mean)) in affine.iter().enumerate() {
            let range = row(l, c);
            normalize_row(&mut l[range], *scale, *mean, activation);
        }
    });
}

/// Sums of x − shift and of its square, in eight lanes.
fn sum_and_squares(values: &[f32], shift: f32) -> (f64, f64) {
    let mut sums = [0.0_f64; 8];
    let mut squares = [0.0_f64; 8];
    let chunks = values.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks {
        for n in 0..8 {
            let d = f64::from(chunk[n]) - f64::from(shift);
            sums[n] += d;
            squares[n] += d * d;
        }
    }
    for x in rest {
        let d = f64::from(*x) - f64::from(shift);
        sums[0] += d;
        squares[0] += d * d;
    }
    (sums.iter().sum(), squares.iter().sum())
}

fn normalize_row(values: &mut [f32], scale: f32, mean: f32, activation: Activation) {
    for x in &mut *values {
        *x = (*x - mean) * scale;
    }
    activation.apply(values);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gelu_uses_the_error_function() {
        // Values of the exact form, from 0.5·x·erfc(−x/√2) in high precision.
        for (x, want) in [
            (1.0, 0.841_344_7),
            (-1.0, -0.158_655_25),
            (2.5, 2.484_475_8),
            (-3.0, -0.004_049_693_8),
        ] {
            assert!((Activation::Gelu.of(x) - want).abs() < 1e-6, "{x}");
        }
    }

    /// erf in f64: its series, which converges everywhere; alternating terms lose below 1e-9 here.
    fn erf_literal(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn activations_equal_their_definitions() {
        for n in -40_000..=40_000 {
            let x = n as f32 * 1e-4;
            let wide = f64::from(x) * 20.0;
            let elu = if wide > 0.0 { wide } else { wide.exp_m1() };
            let got = f64::from(Activation::Elu.of(wide as f32));
            // A few units in the last place of f32, also close to zero where exp(x) − 1 cancels.
            assert!(
                (got - elu).abs() <= 3e-7 * elu.abs(),
                "elu {wide} {got} {elu}"
            );
            let x = f64::from(x);
            let gelu = 0.5 * x * (1.0 + erf_literal(x / 2.0_f64.sqrt()));
            let got = f64::from(Activation::Gelu.of(x as f32));
            // Half of x times the error of the interpolant.
            assert!((got - gelu).abs() < 1.2e-6, "gelu {x} {got} {gelu}");
        }
        for x in [-1000.0, f32::NEG_INFINITY] {
            assert_eq!(Activation::Elu.of(x), -1.0);
        }
        assert_eq!(Activation::Gelu.of(30.0), 30.0);
        assert_eq!(Activation::Gelu.of(-30.0), 0.0);
    }

    #[test]
    fn instance_norm_gives_mean_zero_and_variance_one() {
        let values: Vec<f32> = (0..2 * 4 * 5 * 6)
            .map(|n| ((n * 37) % 101) as f32 + 1000.0)
            .collect();
        let mut planes = Planes::from_channels(&values, [4, 5, 6], 2, 3);
        instance_norm(&mut planes, 1e-5, Activation::Linear);
        let out = planes.to_channels();
        for channel in out.chunks(120) {
            let mean: f32 = channel.iter().sum::<f32>() / 120.0;
            let variance: f32 = channel.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 120.0;
            assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-4);
        }
        // The padding stays zero.
        assert!(planes.as_slice()[..3].iter().all(|x| *x == 0.0));
    }
}
