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

/// Reduces the heads of some voxels, one head after the other.
pub(super) struct Reducer<'a> {
    decision: &'a Decision,
    best: Vec<f32>,
    labels: Vec<u8>,
}

impl<'a> Reducer<'a> {
    pub(super) fn new(decision: &'a Decision, voxels: usize) -> Self {
        let best = match decision {
            Decision::Largest { .. } => vec![f32::NEG_INFINITY; voxels],
            _ => Vec::new(),
        };
        Self {
            decision,
            best,
            labels: vec![0; voxels],
        }
    }

    /// Takes the logits of `head` for the voxels from `at` on. Heads come in ascending order.
    pub(super) fn take(&mut self, head: usize, at: usize, logits: &[f32]) {
        let labels = &mut self.labels[at..at + logits.len()];
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
                let best = &mut self.best[at..at + logits.len()];
                for ((label, best), &logit) in labels.iter_mut().zip(best).zip(logits) {
                    let larger = logit > *best;
                    *best = if larger { logit } else { *best };
                    *label = if larger { head as u8 } else { *label };
                }
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

/// `sigmoid(logit) > 0.5` in f32: for the smallest positive logits the sigmoid rounds to one half.
fn more_likely_than_not(logit: f32) -> bool {
    logit > 1e-6 || (logit > 0.0 && 1.0 / (1.0 + (-logit).exp()) > 0.5)
}
