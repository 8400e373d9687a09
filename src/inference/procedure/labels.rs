//! From logits to labels.

use crate::model::procedure::LabelRule;

/// How the heads of a voxel become its label.
#[derive(Clone, Debug)]
pub(super) enum Decision {
    /// The index of the largest.
    Largest { heads: usize },
    /// In this order, each writes its label where its logit stands for more than one half.
    Likely { order: Vec<u8> },
    /// In this order, each writes its label where its value reaches the threshold.
    Reaches { order: Vec<u8>, threshold: f32 },
}

impl Decision {
    pub(super) fn heads(&self) -> usize {
        match self {
            Self::Largest { heads } => *heads,
            Self::Likely { order } | Self::Reaches { order, .. } => order.len(),
        }
    }
}

impl From<&LabelRule> for Decision {
    fn from(rule: &LabelRule) -> Self {
        match rule {
            LabelRule::Argmax { classes } => Self::Largest { heads: *classes },
            LabelRule::Regions { order } => Self::Likely {
                order: order.clone(),
            },
        }
    }
}

/// Reduces the heads of some lines, one head after the other.
pub(super) struct Reducer<'a> {
    decision: &'a Decision,
    width: usize,
    /// Logits are mixed with each other only, never with the 0 beside a crop.
    whole: bool,
    best: Vec<f32>,
    /// The smallest of each line's `best`.
    floor: Vec<f32>,
    labels: Vec<u8>,
}

impl<'a> Reducer<'a> {
    pub(super) fn new(decision: &'a Decision, lines: usize, width: usize, whole: bool) -> Self {
        let (best, floor) = match decision {
            Decision::Largest { .. } => (
                vec![f32::NEG_INFINITY; lines * width],
                vec![f32::NEG_INFINITY; lines],
            ),
            _ => (Vec::new(), Vec::new()),
        };
        Self {
            decision,
            width,
            whole,
            best,
            floor,
            labels: vec![0; lines * width],
        }
    }

    /// Whether a head changes nothing in a line whose logits are mixed from these.
    ///
    /// Mixing in f32 errs by less than a millionth, and rounding keeps order.
    pub(super) fn is_settled(&self, line: usize, values: &[f32]) -> bool {
        let below = |bound: f32| extreme(values, f32::NEG_INFINITY, |a, b| a > b) <= bound;
        match self.decision {
            Decision::Largest { .. } => {
                let floor = self.floor[line];
                (self.whole || floor >= 0.0) && below(floor - floor.abs() * 1e-6)
            }
            Decision::Likely { .. } => below(0.0),
            Decision::Reaches { .. } => false,
        }
    }

    /// Takes the logits of `head` for a line. Heads come in ascending order.
    pub(super) fn take(&mut self, head: usize, line: usize, logits: &[f32]) {
        let range = line * self.width..(line + 1) * self.width;
        let labels = &mut self.labels[range.clone()];
        let write = |labels: &mut [u8], label: u8, has: &dyn Fn(f32) -> bool| {
            for (to, &logit) in labels.iter_mut().zip(logits) {
                if has(logit) {
                    *to = label;
                }
            }
        };
        match self.decision {
            // The first of equal logits wins, as in numpy.
            Decision::Largest { .. } => {
                let best = &mut self.best[range];
                for ((label, best), &logit) in labels.iter_mut().zip(&mut *best).zip(logits) {
                    let larger = logit > *best;
                    *best = if larger { logit } else { *best };
                    *label = if larger { head as u8 } else { *label };
                }
                self.floor[line] = extreme(best, f32::INFINITY, |a, b| a < b);
            }
            Decision::Likely { order } => write(labels, order[head], &more_likely_than_not),
            Decision::Reaches { order, threshold } => {
                write(labels, order[head], &|value| value >= *threshold);
            }
        }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.labels
    }
}

/// The smallest or largest value, in lanes that the compiler can take at once.
fn extreme(values: &[f32], start: f32, beats: impl Fn(f32, f32) -> bool) -> f32 {
    let mut lanes = [start; 16];
    let mut runs = values.chunks_exact(16);
    for run in &mut runs {
        for (lane, &value) in lanes.iter_mut().zip(run) {
            *lane = if beats(value, *lane) { value } else { *lane };
        }
    }
    let rest = runs.remainder().iter().chain(&lanes);
    rest.fold(
        start,
        |best, &value| if beats(value, best) { value } else { best },
    )
}

/// `sigmoid(logit) > 0.5` in f32: for the smallest positive logits the sigmoid rounds to one half.
fn more_likely_than_not(logit: f32) -> bool {
    logit > 1e-6 || (logit > 0.0 && 1.0 / (1.0 + (-logit).exp()) > 0.5)
}
