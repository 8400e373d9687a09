//! Rows of values, as transformers have them: layer norm, GELU and softmax with their gradients.
//!
//! Rows stand one after another and are done on the caller's thread; sums go in eight lanes, in an
//! order that lengths alone decide.
#![expect(
    clippy::inline_always,
    unsafe_code,
    reason = "a job is compiled for an instruction set"
)]

use super::pointwise::{erf, exp};
use super::simd::{Instructions, Job, Lanes, dispatch};

/// Partial sums of a row.
const LANES: usize = 8;

/// Layer norm of each row of `scale.len()` values.
///
/// # Panics
/// When lengths do not fit.
pub fn norm_rows(
    values: &[f32],
    epsilon: f32,
    scale: &[f32],
    shift: &[f32],
    to: &mut [f32],
    instructions: Instructions,
) {
    assert_eq!(values.len(), to.len(), "a result per value");
    assert_eq!(scale.len(), shift.len(), "an affine part");
    let job = Norm {
        values,
        epsilon,
        scale,
        shift,
        to,
    };
    dispatch(instructions, job);
}

/// Gradients through [`norm_rows`]: those of the values are written, those of scale and shift
/// added to.
///
/// # Panics
/// When lengths do not fit.
pub fn norm_rows_gradient(
    values: &[f32],
    epsilon: f32,
    scale: &[f32],
    gradient: &[f32],
    to: &mut [f32],
    affine: [&mut [f32]; 2],
    instructions: Instructions,
) {
    assert_eq!(values.len(), gradient.len(), "a gradient per value");
    assert_eq!(values.len(), to.len(), "a result per value");
    assert!(
        affine.iter().all(|a| a.len() == scale.len()),
        "an affine part"
    );
    let job = NormGradient {
        values,
        epsilon,
        scale,
        gradient,
        to,
        affine,
    };
    dispatch(instructions, job);
}

/// GELU in its exact form, in place; `slopes`, where wanted, becomes its derivative.
///
/// # Panics
/// When lengths do not fit.
pub fn gelu_rows(values: &mut [f32], slopes: Option<&mut [f32]>, instructions: Instructions) {
    match slopes {
        None => dispatch(instructions, Gelu { values }),
        Some(slopes) => {
            assert_eq!(values.len(), slopes.len(), "a slope per value");
            dispatch(instructions, GeluSlopes { values, slopes });
        }
    }
}

/// Softmax of `factor` times each row of `width` values, in place.
pub fn softmax_scaled(values: &mut [f32], width: usize, factor: f32, instructions: Instructions) {
    let job = Softmax {
        values,
        width: width.max(1),
        factor,
    };
    dispatch(instructions, job);
}

/// Gradient through [`softmax_scaled`] from its result, in place of the result's gradient.
///
/// # Panics
/// When lengths do not fit.
pub fn softmax_gradient(
    results: &[f32],
    gradient: &mut [f32],
    width: usize,
    factor: f32,
    instructions: Instructions,
) {
    assert_eq!(results.len(), gradient.len(), "a gradient per result");
    let job = SoftmaxGradient {
        results,
        gradient,
        width: width.max(1),
        factor,
    };
    dispatch(instructions, job);
}

/// Σ f(n) over a row, in lanes.
#[inline(always)]
fn sum(count: usize, value: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let whole = count / LANES * LANES;
    let mut at = 0;
    while at < whole {
        for (n, lane) in lanes.iter_mut().enumerate() {
            *lane += value(at + n);
        }
        at += LANES;
    }
    let mut total = 0.0;
    for lane in lanes {
        total += lane;
    }
    for n in whole..count {
        total += value(n);
    }
    total
}

/// Mean and 1 / √(variance + ε) of a row.
#[inline(always)]
fn moments(row: &[f32], epsilon: f32) -> (f32, f32) {
    let count = row.len() as f32;
    let mean = sum(row.len(), |n| row[n]) / count;
    let variance = sum(row.len(), |n| (row[n] - mean) * (row[n] - mean)) / count;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

struct Norm<'a> {
    values: &'a [f32],
    epsilon: f32,
    scale: &'a [f32],
    shift: &'a [f32],
    to: &'a mut [f32],
}

impl Job for Norm<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let width = self.scale.len();
        let rows = self.values.chunks_exact(width);
        for (row, to) in rows.zip(self.to.chunks_exact_mut(width)) {
            let (mean, factor) = moments(row, self.epsilon);
            let affine = self.scale.iter().zip(self.shift);
            for ((to, x), (scale, shift)) in to.iter_mut().zip(row).zip(affine) {
                *to = (x - mean) * factor * scale + shift;
            }
        }
    }
}

struct NormGradient<'a> {
    values: &'a [f32],
    epsilon: f32,
    scale: &'a [f32],
    gradient: &'a [f32],
    to: &'a mut [f32],
    affine: [&'a mut [f32]; 2],
}

impl Job for NormGradient<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let scale = self.scale;
        let width = scale.len();
        let [to_scale, to_shift] = self.affine;
        let rows = self.values.chunks_exact(width);
        let rows = rows.zip(self.gradient.chunks_exact(width));
        for ((row, g), to) in rows.zip(self.to.chunks_exact_mut(width)) {
            let (mean, factor) = moments(row, self.epsilon);
            let g = &g[..width];
            let row = &row[..width];
            let count = width as f32;
            // dx = factor · (g' − mean(g') − x̂ · mean(g' · x̂)) with g' = g · scale.
            let plain = sum(width, |n| g[n] * scale[n]) / count;
            let along = sum(width, |n| g[n] * scale[n] * (row[n] - mean) * factor) / count;
            for n in 0..width {
                let normal = (row[n] - mean) * factor;
                to[n] = factor * (g[n] * scale[n] - plain - normal * along);
                to_scale[n] += g[n] * normal;
                to_shift[n] += g[n];
            }
        }
    }
}

struct Gelu<'a> {
    values: &'a mut [f32],
}

impl Job for Gelu<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        for x in self.values {
            *x *= normal_cdf(*x);
        }
    }
}

struct GeluSlopes<'a> {
    values: &'a mut [f32],
    slopes: &'a mut [f32],
}

impl Job for GeluSlopes<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        /// 1 / √(2π).
        const DENSITY: f32 = 0.398_942_3;
        for (x, slope) in self.values.iter_mut().zip(self.slopes) {
            let below = normal_cdf(*x);
            *slope = below + *x * DENSITY * exp(-0.5 * *x * *x);
            *x *= below;
        }
    }
}

#[inline(always)]
fn normal_cdf(x: f32) -> f32 {
    0.5 + 0.5 * erf(x * std::f32::consts::FRAC_1_SQRT_2)
}

struct Softmax<'a> {
    values: &'a mut [f32],
    width: usize,
    factor: f32,
}

impl Job for Softmax<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        for row in self.values.chunks_exact_mut(self.width) {
            let mut largest = f32::NEG_INFINITY;
            for x in row.iter_mut() {
                *x *= self.factor;
                largest = largest.max(*x);
            }
            for x in row.iter_mut() {
                *x = exp(*x - largest);
            }
            let share = 1.0 / sum(row.len(), |n| row[n]);
            for x in row.iter_mut() {
                *x *= share;
            }
        }
    }
}

struct SoftmaxGradient<'a> {
    results: &'a [f32],
    gradient: &'a mut [f32],
    width: usize,
    factor: f32,
}

impl Job for SoftmaxGradient<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let rows = self.gradient.chunks_exact_mut(self.width);
        for (g, p) in rows.zip(self.results.chunks_exact(self.width)) {
            let mean = sum(g.len(), |n| g[n] * p[n]);
            for (g, p) in g.iter_mut().zip(p) {
                *g = (*g - mean) * p * self.factor;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: usize) -> Vec<f32> {
        let value = |n: usize| (((n + seed) * 7919) % 1009) as f32 / 250.0 - 2.0;
        (0..n).map(value).collect()
    }

    fn norm_literal(row: &[f64], epsilon: f64, scale: &[f32], shift: &[f32]) -> Vec<f64> {
        let count = row.len() as f64;
        let mean = row.iter().sum::<f64>() / count;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
        let scaled = row.iter().zip(scale.iter().zip(shift)).map(|(x, (s, b))| {
            (x - mean) / (variance + epsilon).sqrt() * f64::from(*s) + f64::from(*b)
        });
        scaled.collect()
    }

    fn softmax_literal(row: &[f64], factor: f64) -> Vec<f64> {
        let powers: Vec<f64> = row.iter().map(|x| (x * factor).exp()).collect();
        let sum: f64 = powers.iter().sum();
        powers.into_iter().map(|p| p / sum).collect()
    }

    /// Central differences of a function of a row, in f64, against a gradient in f32.
    fn check(of: impl Fn(&[f64]) -> Vec<f64>, at: &[f32], direction: &[f32], gradient: &[f32]) {
        let at: Vec<f64> = at.iter().map(|x| f64::from(*x)).collect();
        let along = |x: &[f64]| -> f64 {
            let pairs = of(x).into_iter().zip(direction);
            pairs.map(|(y, d)| y * f64::from(*d)).sum()
        };
        for n in 0..at.len() {
            let (mut up, mut down) = (at.clone(), at.clone());
            up[n] += 1e-4;
            down[n] -= 1e-4;
            let want = (along(&up) - along(&down)) / 2e-4;
            let got = f64::from(gradient[n]);
            assert!((got - want).abs() < 1e-4, "{n}: {got} {want}");
        }
    }

    #[test]
    fn rows_and_their_gradients_equal_the_definitions() {
        for instructions in Instructions::available() {
            for width in [3, 8, 21] {
                let (x, g) = (values(width * 2, 1), values(width * 2, 5));
                let (scale, shift) = (values(width, 9), values(width, 12));
                let mut out = vec![0.0; width * 2];
                norm_rows(&x, 1e-6, &scale, &shift, &mut out, instructions);
                let mut back = vec![f32::NAN; width * 2];
                let (mut to_scale, mut to_shift) = (vec![0.0; width], vec![0.0; width]);
                let affine = [to_scale.as_mut_slice(), to_shift.as_mut_slice()];
                norm_rows_gradient(&x, 1e-6, &scale, &g, &mut back, affine, instructions);
                let mut soft = x.clone();
                softmax_scaled(&mut soft, width, 0.7, instructions);
                let mut soft_back = g.clone();
                softmax_gradient(&soft, &mut soft_back, width, 0.7, instructions);
                let ones = vec![1.0; width];
                let zeros = vec![0.0; width];
                let mut sums = vec![0.0; width];
                for row in 0..2 {
                    let range = row * width..(row + 1) * width;
                    let wide: Vec<f64> = x[range.clone()].iter().map(|x| f64::from(*x)).collect();
                    let want = norm_literal(&wide, 1e-6, &scale, &shift);
                    for (got, want) in out[range.clone()].iter().zip(&want) {
                        assert!((f64::from(*got) - want).abs() < 1e-5);
                    }
                    let norm = |x: &[f64]| norm_literal(x, 1e-6, &scale, &shift);
                    let part = |of: &[f32]| of[range.clone()].to_vec();
                    check(norm, &part(&x), &part(&g), &part(&back));
                    let normal = norm_literal(&wide, 1e-6, &ones, &zeros);
                    for n in 0..width {
                        sums[n] += normal[n] * f64::from(g[range.start + n]);
                    }
                    let want = softmax_literal(&wide, 0.7);
                    for (got, want) in soft[range.clone()].iter().zip(&want) {
                        assert!((f64::from(*got) - want).abs() < 1e-6);
                    }
                    let softmax = |x: &[f64]| softmax_literal(x, 0.7);
                    check(softmax, &part(&x), &part(&g), &part(&soft_back));
                }
                for n in 0..width {
                    assert!((f64::from(to_scale[n]) - sums[n]).abs() < 1e-4);
                    assert!((to_shift[n] - g[n] - g[width + n]).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn gelu_has_its_slope() {
        for instructions in Instructions::available() {
            let at = values(400, 3).into_iter().map(|x| 3.0 * x);
            let (mut x, mut slopes): (Vec<f32>, _) = (at.collect(), vec![0.0; 400]);
            let before = x.clone();
            gelu_rows(&mut x, Some(&mut slopes), instructions);
            let mut plain = before.clone();
            gelu_rows(&mut plain, None, instructions);
            assert_eq!(plain, x);
            for ((x, y), slope) in before.iter().zip(&x).zip(&slopes) {
                let (x, h) = (f64::from(*x), 1e-3);
                let gelu = |x: f64| f64::from(crate::kernels::Activation::Gelu.of(x as f32));
                assert!((f64::from(*y) - gelu(x)).abs() < 1e-6, "{x}");
                let want = (gelu(x + h) - gelu(x - h)) / (2.0 * h);
                // Differences of f32 values.
                assert!(
                    (f64::from(*slope) - want).abs() < 2e-3,
                    "{x} {slope} {want}"
                );
            }
        }
    }
}
