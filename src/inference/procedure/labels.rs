//! From logits to labels, and from labels to the channels of a cascade's next stage.

use crate::model::procedure::LabelRule;

/// One channel per label of `foreground`: 1 where the voxel has it (`convert_labelmap_to_one_hot`).
pub fn one_hot(labels: &[i16], foreground: &[u8]) -> Vec<f32> {
    foreground
        .iter()
        .flat_map(|&label| {
            labels
                .iter()
                .map(move |&found| f32::from(u8::from(found == i16::from(label))))
        })
        .collect()
}

/// Reduces the heads of some voxels, one head after the other.
pub(super) struct Reducer<'a> {
    rule: &'a LabelRule,
    best: Vec<f32>,
    labels: Vec<u8>,
}

impl<'a> Reducer<'a> {
    pub(super) fn new(rule: &'a LabelRule, voxels: usize) -> Self {
        let best = match rule {
            LabelRule::Argmax { .. } => vec![f32::NEG_INFINITY; voxels],
            LabelRule::Regions { .. } => Vec::new(),
        };
        Self {
            rule,
            best,
            labels: vec![0; voxels],
        }
    }

    /// Takes the logits of `head` for the voxels from `at` on. Heads come in ascending order.
    pub(super) fn take(&mut self, head: usize, at: usize, logits: &[f32]) {
        let labels = &mut self.labels[at..at + logits.len()];
        match self.rule {
            // The first of equal logits wins, as in numpy.
            LabelRule::Argmax { .. } => {
                let best = &mut self.best[at..at + logits.len()];
                for ((label, best), &logit) in labels.iter_mut().zip(best).zip(logits) {
                    let larger = logit > *best;
                    *best = if larger { logit } else { *best };
                    *label = if larger { head as u8 } else { *label };
                }
            }
            LabelRule::Regions { order } => {
                for (label, &logit) in labels.iter_mut().zip(logits) {
                    if more_likely_than_not(logit) {
                        *label = order[head];
                    }
                }
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
