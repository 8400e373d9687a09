//! One softmax as two heads: whether there is a finding, and of which kind it is.
//!
//! Of classes that exclude each other the first means none. With the results r, the log-odds of a
//! finding are log Σ exp(rₖ / T) − r₀ / T over the kinds k, and p(k | finding) is the softmax of the
//! kinds' own results, divided by a temperature of their own where there is one.

/// Temperatures of both heads, above zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heads {
    /// Of the finding.
    pub finding: f64,
    /// Of its kinds; the finding's where there is none.
    pub kinds: Option<f64>,
}

impl Heads {
    /// Values whose softmax are the probabilities of the classes.
    pub fn logits(&self, results: &[f32]) -> Vec<f64> {
        let over = |t: f64| results.iter().map(move |r| f64::from(*r) / t);
        let mut logits: Vec<f64> = over(self.finding).collect();
        if let (Some(kinds), Some((_, of_kinds))) = (self.kinds, logits.split_first_mut()) {
            let any = log_sum(of_kinds);
            let own: Vec<f64> = over(kinds).skip(1).collect();
            let sum = log_sum(&own);
            for (logit, own) in of_kinds.iter_mut().zip(own) {
                *logit = any + own - sum;
            }
        }
        logits
    }

    /// Probability of each class.
    pub fn probabilities(&self, results: &[f32]) -> Vec<f64> {
        shares(&self.logits(results))
    }

    /// A derivative by the logits as one by the results.
    pub fn gradient(&self, results: &[f32], by_logits: &[f64]) -> Vec<f64> {
        let mut gradient: Vec<f64> = by_logits.iter().map(|g| g / self.finding).collect();
        if let Some(kinds) = self.kinds {
            let over = |t: f64| -> Vec<f64> {
                results.iter().skip(1).map(|r| f64::from(*r) / t).collect()
            };
            let (of_any, of_kinds) = (shares(&over(self.finding)), shares(&over(kinds)));
            let all: f64 = by_logits.iter().skip(1).sum();
            for n in 1..results.len() {
                gradient[n] = all * of_any[n - 1] / self.finding
                    + (by_logits[n] - all * of_kinds[n - 1]) / kinds;
            }
        }
        gradient
    }
}

/// Logarithm of a sum of exponentials.
fn log_sum(values: &[f64]) -> f64 {
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    most + values.iter().map(|v| (v - most).exp()).sum::<f64>().ln()
}

/// The softmax.
fn shares(values: &[f64]) -> Vec<f64> {
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = values.iter().map(|v| (v - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|p| p / sum).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_heads_are_what_they_say(
            results in prop::collection::vec(-8.0_f32..8.0, 3..6),
            finding in 0.2_f64..5.0,
            kinds in 0.2_f64..5.0,
        ) {
            let one = Heads { finding, kinds: None }.probabilities(&results);
            let two = Heads { finding, kinds: Some(kinds) }.probabilities(&results);
            // The finding is as probable as without the second temperature.
            prop_assert!((one[0] - two[0]).abs() < 1e-12);
            prop_assert!((two.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            // Literally: the exponentials of the kinds' results among themselves.
            let powers: Vec<f64> = results[1..].iter().map(|r| (f64::from(*r) / kinds).exp()).collect();
            let sum: f64 = powers.iter().sum();
            let any: f64 = two[1..].iter().sum();
            for (p, power) in two[1..].iter().zip(powers) {
                prop_assert!((p / any - power / sum).abs() < 1e-9);
            }
            let same = Heads { finding, kinds: Some(finding) }.probabilities(&results);
            prop_assert!(one.iter().zip(same).all(|(a, b)| (a - b).abs() < 1e-12));
        }

        #[test]
        fn the_gradient_is_that_of_small_steps(
            results in prop::collection::vec(-3.0_f32..3.0, 3..5),
            kinds in prop::option::of(0.5_f64..3.0),
            seed in 0_usize..100,
        ) {
            let heads = Heads { finding: 1.3, kinds };
            let by_logits: Vec<f64> =
                (0..results.len()).map(|n| ((n * 37 + seed * 11) % 17) as f64 / 8.0 - 1.0).collect();
            let value = |results: &[f32]| -> f64 {
                heads.logits(results).iter().zip(&by_logits).map(|(l, g)| l * g).sum()
            };
            let gradient = heads.gradient(&results, &by_logits);
            for n in 0..results.len() {
                let step = 1.0 / 256.0;
                let (mut up, mut down) = (results.clone(), results.clone());
                up[n] += step;
                down[n] -= step;
                let slope = (value(&up) - value(&down)) / f64::from(up[n] - down[n]);
                prop_assert!((slope - gradient[n]).abs() < 1e-3, "{slope} {}", gradient[n]);
            }
        }
    }
}
