//! A few validation samples with what a network says about them, to be looked at.

use super::data::{Sample, Target};
use super::metrics;
use super::validate::Validation;

/// How many are shown.
const SHOWN: usize = 4;

/// A sample with truth and finding.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Rows and columns.
    pub dims: [usize; 2],
    /// `[y][x]`, 0 black to 255 white; of a volume the plane with most of the truth.
    pub gray: Vec<u8>,
    /// What is known and what is found.
    pub answer: Answer,
}

/// What is known and what is found.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Of a classifier.
    Class {
        /// The truth.
        truth: u8,
        /// By class, not yet calibrated.
        probabilities: Vec<f64>,
    },
    /// Of a segmentation, `[y][x]`.
    Masks {
        /// The truth.
        truth: Vec<u8>,
        /// The network's.
        found: Vec<u8>,
    },
}

/// Which of `n` samples are shown: the same ones in every epoch, from all parts of the list.
pub(super) fn chosen(n: usize) -> Vec<usize> {
    let shown = SHOWN.min(n);
    (0..shown).map(|i| i * n / shown).collect()
}

/// The chosen samples with a validation's results.
pub(super) fn of(samples: &[Sample], found: &Validation) -> Vec<Example> {
    let one = |at: usize| {
        let sample = &samples[at];
        let [_, rows, columns] = sample.image.dims;
        let plane = rows * columns;
        let (z, answer) = match &sample.target {
            Target::Class(truth) => {
                let probabilities = metrics::softmax(found.results.get(at)?, 1.0);
                let truth = *truth;
                (
                    0,
                    Answer::Class {
                        truth,
                        probabilities,
                    },
                )
            }
            Target::Mask(truth) => {
                let (_, mask) = found.masks.iter().find(|(n, _)| *n == at)?;
                let count = |(_, plane): &(usize, &[u8])| plane.iter().filter(|l| **l > 0).count();
                let (z, part) = (truth.chunks_exact(plane).enumerate()).max_by_key(count)?;
                let found = mask[z * plane..(z + 1) * plane].to_vec();
                let truth = part.to_vec();
                (z, Answer::Masks { truth, found })
            }
        };
        let values = sample.image.floats();
        let values = &values[z * plane..(z + 1) * plane];
        Some(Example {
            dims: [rows, columns],
            gray: gray(values, &sample.target),
            answer,
        })
    };
    chosen(samples.len()).into_iter().filter_map(one).collect()
}

/// Samples with a class hold 0 to 255, those with masks mean 0 and deviation 1.
fn gray(values: &[f32], target: &Target) -> Vec<u8> {
    let [low, high] = match target {
        Target::Class(_) => [0.0, 255.0],
        Target::Mask(_) => {
            let least = values.iter().copied().fold(f32::INFINITY, f32::min);
            let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            [least.max(-3.0), most.min(3.0)]
        }
    };
    let scale = 255.0 / (high - low).max(1e-6);
    let byte = |v: &f32| ((v - low) * scale).round().clamp(0.0, 255.0) as u8;
    values.iter().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::{Picture, Values};

    #[test]
    fn examples_come_from_all_parts_and_show_the_fullest_plane() {
        assert_eq!(chosen(2), [0, 1]);
        assert_eq!(chosen(9), [0, 2, 4, 6]);
        assert!(chosen(0).is_empty());
        let mut truth = vec![0; 3 * 4];
        truth[5] = 1;
        truth[9..12].fill(2);
        let sample = Sample {
            name: "a".to_owned(),
            patient: "p".to_owned(),
            split: None,
            group: None,
            image: Picture {
                dims: [3, 2, 2],
                values: Values::Floats((0..12).map(|n| n as f32 / 4.0 - 1.0).collect()),
                spacing_mm: None,
                geometry: None,
            },
            target: Target::Mask(truth),
        };
        let found = Validation {
            masks: vec![(0, (0..12).collect())],
            ..Validation::default()
        };
        let shown = of(&[sample], &found);
        assert_eq!(shown.len(), 1);
        assert_eq!(shown[0].dims, [2, 2]);
        assert_eq!(shown[0].gray, [0, 85, 170, 255]);
        let want = Answer::Masks {
            truth: vec![0, 2, 2, 2],
            found: vec![8, 9, 10, 11],
        };
        assert_eq!(shown[0].answer, want);
    }
}
