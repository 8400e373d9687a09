//! Steps along gradients: AdamW, SGD with Nesterov's momentum, schedule, clipping, averaging.

use rayon::prelude::*;

use super::parameters::{Parameters, Role};

/// How weights follow their gradients.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Method {
    /// Adam with decoupled decay (Loshchilov and Hutter 2019).
    Adamw {
        /// Of the mean of gradients.
        #[serde(default = "beta1")]
        beta1: f64,
        /// Of the mean of their squares.
        #[serde(default = "beta2")]
        beta2: f64,
    },
    /// Stochastic gradient descent with Nesterov's momentum, decay decoupled too.
    Sgd {
        /// Of the sum of gradients.
        #[serde(default = "momentum")]
        momentum: f64,
    },
}

const fn beta1() -> f64 {
    0.9
}

const fn beta2() -> f64 {
    0.999
}

const fn momentum() -> f64 {
    0.9
}

impl Default for Method {
    fn default() -> Self {
        Self::Adamw {
            beta1: beta1(),
            beta2: beta2(),
        }
    }
}

/// Keeps the denominator of Adam from zero.
const EPSILON: f64 = 1e-8;
/// Values of a piece of work; sums go by pieces, so that threads do not matter.
const PIECE: usize = 1 << 14;

/// Learning rate by step: a linear rise, then half a cosine down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The highest.
    pub peak: f64,
    /// The last, as a part of the highest.
    pub last: f64,
    /// Steps of the rise.
    pub warm_up: u64,
    /// All steps.
    pub total: u64,
}

impl Schedule {
    /// For a step, from 0.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warm_up {
            return self.peak * (step + 1) as f64 / self.warm_up as f64;
        }
        let length = (self.total - self.warm_up.min(self.total)).max(1) as f64;
        let part = ((step - self.warm_up) as f64 / length).min(1.0);
        let cosine = f64::midpoint(1.0, (std::f64::consts::PI * part).cos());
        self.peak * (self.last + (1.0 - self.last) * cosine)
    }
}

/// What an optimizer remembers between steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// Mean of gradients, or their sum with momentum.
    pub first: Vec<f32>,
    /// Mean of squares; empty for SGD.
    pub second: Vec<f32>,
}

impl Memory {
    /// Before the first step.
    pub fn new(method: &Method, count: usize) -> Self {
        let second = matches!(method, Method::Adamw { .. });
        Self {
            first: vec![0.0; count],
            second: vec![0.0; if second { count } else { 0 }],
        }
    }
}

/// Length of the gradient over all trained tensors.
pub fn length(parameters: &Parameters, gradients: &[f32]) -> f64 {
    let trained = parameters
        .slots
        .iter()
        .filter(|s| s.role.is_trained() && !s.frozen);
    let squares = trained.map(|slot| {
        let pieces: Vec<f64> = gradients[slot.range.clone()]
            .par_chunks(PIECE)
            .map(|piece| piece.iter().map(|g| f64::from(*g).powi(2)).sum())
            .collect();
        pieces.into_iter().sum::<f64>()
    });
    squares.sum::<f64>().sqrt()
}

/// One step; `step` counts from 0. Gradients are multiplied by `factor` (clipping) on the way.
pub fn step(
    method: &Method,
    parameters: &mut Parameters,
    memory: &mut Memory,
    gradients: &[f32],
    factor: f64,
    rate: f64,
    decay: f64,
    step: u64,
) {
    let Parameters { slots, values } = parameters;
    let trained = slots.iter().filter(|s| s.role.is_trained() && !s.frozen);
    for slot in trained {
        let keep = if slot.role == Role::Weight {
            (1.0 - rate * decay) as f32
        } else {
            1.0
        };
        let range = slot.range.clone();
        let (values, gradients) = (&mut values[range.clone()], &gradients[range.clone()]);
        let first = &mut memory.first[range.clone()];
        let factor = factor as f32;
        match method {
            Method::Sgd { momentum } => {
                let (momentum, rate) = (*momentum as f32, rate as f32);
                for ((w, g), sum) in values.iter_mut().zip(gradients).zip(first) {
                    let g = g * factor;
                    *sum = *sum * momentum + g;
                    *w = *w * keep - rate * (g + momentum * *sum);
                }
            }
            Method::Adamw { beta1, beta2 } => {
                let second = &mut memory.second[range];
                let n = (step + 1) as i32;
                let size = (rate / (1.0 - beta1.powi(n))) as f32;
                let root = (1.0 / (1.0 - beta2.powi(n)).sqrt()) as f32;
                let (b1, b2, epsilon) = (*beta1 as f32, *beta2 as f32, EPSILON as f32);
                values
                    .par_chunks_mut(PIECE)
                    .zip(gradients.par_chunks(PIECE))
                    .zip(first.par_chunks_mut(PIECE))
                    .zip(second.par_chunks_mut(PIECE))
                    .for_each(|(((values, gradients), first), second)| {
                        let pairs = values.iter_mut().zip(gradients);
                        for ((w, g), (m, v)) in pairs.zip(first.iter_mut().zip(second)) {
                            let g = g * factor;
                            *m = b1 * *m + (1.0 - b1) * g;
                            *v = b2 * *v + (1.0 - b2) * g * g;
                            *w = *w * keep - size * *m / (v.sqrt() * root + epsilon);
                        }
                    });
            }
        }
    }
}

/// Moves a running average towards values; early it follows faster.
pub fn average(average: &mut [f32], values: &[f32], decay: f64, step: u64) {
    let early = (1.0 + step as f64) / (10.0 + step as f64);
    let decay = decay.min(early) as f32;
    for (average, value) in average.iter_mut().zip(values) {
        *average = *average * decay + value * (1.0 - decay);
    }
}

#[cfg(test)]
mod tests {
    use super::super::parameters::{Needed, Start};
    use super::*;

    fn parameters() -> Parameters {
        let needed = |name: &str, role| Needed {
            name: name.to_owned(),
            shape: vec![3],
            role,
            start: Start::Fill(1.0),
        };
        Parameters::new(
            &[
                needed("w", Role::Weight),
                needed("b", Role::Offset),
                needed("m", Role::Mean),
            ],
            1,
        )
    }

    #[test]
    fn steps_equal_their_definition_and_leave_statistics_alone() {
        for method in [
            Method::default(),
            Method::Sgd {
                momentum: momentum(),
            },
        ] {
            let mut p = parameters();
            let mut memory = Memory::new(&method, 9);
            let mut want = [1.0_f64; 6];
            let (mut m, mut v) = ([0.0_f64; 6], [0.0_f64; 6]);
            for n in 0..20 {
                let g: Vec<f32> = (0..9).map(|i| ((n * 9 + i) % 7) as f32 - 3.0).collect();
                step(&method, &mut p, &mut memory, &g, 0.5, 0.01, 0.1, n as u64);
                for i in 0..6 {
                    let g = f64::from(g[i]) * 0.5;
                    let decay = if i < 3 { 1.0 - 0.01 * 0.1 } else { 1.0 };
                    want[i] *= decay;
                    if let Method::Sgd { momentum } = method {
                        m[i] = m[i] * momentum + g;
                        want[i] -= 0.01 * (g + momentum * m[i]);
                    } else {
                        m[i] = 0.9 * m[i] + 0.1 * g;
                        v[i] = 0.999 * v[i] + 0.001 * g * g;
                        let mean = m[i] / (1.0 - 0.9_f64.powi(n + 1));
                        let square = v[i] / (1.0 - 0.999_f64.powi(n + 1));
                        want[i] -= 0.01 * mean / (square.sqrt() + 1e-8);
                    }
                }
            }
            for (got, want) in p.values.iter().zip(&want[..6]) {
                assert!((f64::from(*got) - want).abs() < 1e-5, "{method:?}");
            }
            assert_eq!(p.values[6..], [1.0; 3]);
        }
    }

    #[test]
    fn the_rate_rises_and_falls() {
        let schedule = Schedule {
            peak: 1.0,
            last: 0.1,
            warm_up: 4,
            total: 104,
        };
        assert!((schedule.rate(0) - 0.25).abs() < 1e-12);
        assert!((schedule.rate(4) - 1.0).abs() < 1e-12);
        assert!((schedule.rate(54) - 0.55).abs() < 1e-12);
        assert!((schedule.rate(104) - 0.1).abs() < 1e-12);
    }
}
