//! Activations and instance norm.

use rayon::prelude::*;

use super::Planes;

/// Activation after a convolution.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
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
}

impl Activation {
    /// The value.
    pub fn of(self, x: f32) -> f32 {
        match self {
            Self::Linear => x,
            Self::Relu => x.max(0.0),
            Self::Elu => {
                if x > 0.0 {
                    x
                } else {
                    x.exp_m1()
                }
            }
            Self::Gelu => 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)),
        }
    }
}

/// Error function, absolute error below 1.2e-7 (W. J. Cody's rational form in f64 by
/// Abramowitz and Stegun 7.1.28 would give 3e-7; this is Numerical Recipes' Chebyshev fit).
fn erf(x: f32) -> f32 {
    let z = f64::from(x).abs();
    let t = 1.0 / (1.0 + 0.5 * z);
    let poly = [
        0.170_872_77,
        -0.822_152_23,
        1.488_515_87,
        -1.135_203_98,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_68,
        -1.265_512_23,
    ];
    let sum = poly.iter().fold(0.0, |sum, c| sum * t + c);
    let y = 1.0 - t * (-z * z + sum).exp();
    (if x < 0.0 { -y } else { y }) as f32
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
    let reduce = |value: &(dyn Fn(f64, usize) -> f64 + Sync)| -> Vec<f64> {
        planes.as_slice()[..nz * ny * line]
            .par_chunks(line)
            .map(|l| {
                (0..channels)
                    .map(|c| l[row(l, c)].iter().map(|&x| value(f64::from(x), c)).sum())
                    .collect::<Vec<f64>>()
            })
            .reduce(
                || vec![0.0; channels],
                |a, b| a.iter().zip(&b).map(|(a, b)| a + b).collect(),
            )
    };
    let count = (nz * ny * nx) as f64;
    let means: Vec<f64> = reduce(&|x, _| x).iter().map(|s| s / count).collect();
    let squares = reduce(&|x, c| (x - means[c]) * (x - means[c]));
    let scales: Vec<f64> = squares
        .iter()
        .map(|s| 1.0 / (s / count + f64::from(epsilon)).sqrt())
        .collect();
    planes.as_mut_lines().par_chunks_mut(line).for_each(|l| {
        for c in 0..channels {
            let range = row(l, c);
            for x in &mut l[range] {
                *x = activation.of(((f64::from(*x) - means[c]) * scales[c]) as f32);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gelu_uses_the_error_function() {
        // Values of the exact form, from 0.5·x·erfc(−x/√2) in high precision.
        for (x, want) in [
            (1.0, 0.841_344_75),
            (-1.0, -0.158_655_25),
            (2.5, 2.484_475_8),
            (-3.0, -0.004_049_693_8),
        ] {
            assert!((Activation::Gelu.of(x) - want).abs() < 1e-6, "{x}");
        }
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
