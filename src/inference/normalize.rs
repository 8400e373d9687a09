//! Values before the network.

use rayon::prelude::*;

use crate::model::Normalization;

/// Normalizes in place; constants are those of all values given.
pub fn normalize(values: &mut [f32], how: &Normalization) {
    let (offset, scale) = match how {
        Normalization::None => return,
        Normalization::MinMax => {
            let (min, max) = range(values);
            (min, max - min)
        }
        Normalization::Quantile { low, high } => {
            let n = values.len();
            let mut sorted = values.to_vec();
            let mut at = |index: usize| {
                let index = index.min(n - 1);
                *sorted.select_nth_unstable_by(index, f32::total_cmp).1
            };
            let lo = at((low * n as f64).floor() as usize);
            let hi = at(((high * n as f64).ceil() as usize).saturating_sub(1));
            (lo, hi - lo)
        }
        Normalization::ZScore => {
            let n = values.len() as f64;
            let mean = values.par_iter().map(|&v| f64::from(v)).sum::<f64>() / n;
            let squares: f64 = values
                .par_iter()
                .map(|&v| (f64::from(v) - mean).powi(2))
                .sum();
            (mean as f32, (squares / n).sqrt() as f32)
        }
        Normalization::Window { low, high } => {
            let (low, high) = (*low as f32, *high as f32);
            values.par_iter_mut().for_each(|v| *v = v.clamp(low, high));
            (low, high - low)
        }
    };
    // A constant volume has nothing to scale.
    let scale = if scale > 0.0 { scale } else { 1.0 };
    values
        .par_iter_mut()
        .for_each(|v| *v = (*v - offset) / scale);
}

/// Smallest and largest value.
pub fn range(values: &[f32]) -> (f32, f32) {
    values
        .par_iter()
        .fold(
            || (f32::INFINITY, f32::NEG_INFINITY),
            |(a, b), &v| (a.min(v), b.max(v)),
        )
        .reduce(
            || (f32::INFINITY, f32::NEG_INFINITY),
            |x, y| (x.0.min(y.0), x.1.max(y.1)),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_follow_the_indices_of_the_sorted_values() {
        let mut values: Vec<f32> = (0..40).rev().map(|n| n as f32).collect();
        normalize(
            &mut values,
            &Normalization::Quantile {
                low: 0.05,
                high: 0.95,
            },
        );
        // lo = s[2] = 2, hi = s[37] = 37.
        assert!((values[39] - (0.0 - 2.0) / 35.0).abs() < 1e-6);
        assert!((values[0] - (39.0 - 2.0) / 35.0).abs() < 1e-6);
    }

    #[test]
    fn a_constant_volume_stays_finite() {
        let mut values = vec![7.0; 10];
        normalize(&mut values, &Normalization::ZScore);
        assert_eq!(values, vec![0.0; 10]);
    }
}
