//! What a classifier says about an image.

use chrono::{DateTime, Utc};

use super::{Explanation, Provenance, ReviewState};
use crate::redact::Sensitive;
use crate::study::{CodedConcept, Issue};
use crate::volume::SourceSeries;

/// What a probability amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// At or above the operating threshold.
    Present,
    /// Below it.
    Absent,
    /// In the range where the model was too often wrong.
    NotSure,
}

impl Call {
    /// For people and tables.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Absent => "absent",
            Self::NotSure => "not sure",
        }
    }
}

/// A probability for people: none is certain.
// CLINICAL(certainty): no finding is said to be 0 or 100 %.
pub fn percent_words(probability: f64) -> String {
    match probability {
        p if p >= 0.995 => "> 99 %".to_owned(),
        p if p <= 0.005 => "< 1 %".to_owned(),
        p => format!("{:.0} %", 100.0 * p),
    }
}

/// How often a call at a threshold was right on cases with known truth.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct OperatingPoint {
    /// Part of the cases with the finding that were called present.
    pub sensitivity: f64,
    /// Part of the cases without it that were called absent.
    pub specificity: f64,
    /// Cases with and without the finding.
    pub cases: [usize; 2],
}

/// One finding with its evidence.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Name for people.
    pub name: String,
    /// What it stands for, where the model says so.
    pub concept: Option<CodedConcept>,
    /// 0 to 1; a calibrated probability where `calibrated` is set, else a score.
    pub probability: f64,
    /// Whether the model's temperature was fitted on cases with known truth.
    pub calibrated: bool,
    /// The operating threshold; without one there is no call.
    pub threshold: Option<f64>,
    /// How good the threshold was, where the model says so.
    pub operating_point: Option<OperatingPoint>,
    /// What it amounts to; none without a threshold.
    pub call: Option<Call>,
    /// Whether a person has looked at it.
    pub review: ReviewState,
    /// Who decided, and when; none without a decision.
    pub reviewed: Option<Review>,
    /// What the person says instead; there where the review is [`ReviewState::Edited`]. The model's
    /// own call and number stay as they are.
    pub edit: Option<Edit>,
}

impl Finding {
    /// Takes a person's decision; without a review it is taken back.
    pub fn decide(&mut self, state: ReviewState, edit: Option<Edit>, review: Option<Review>) {
        self.review = state;
        self.reviewed = review.filter(|_| state != ReviewState::NotReviewed);
        self.edit = edit.filter(|_| state == ReviewState::Edited);
    }
}

/// What a person says of a finding in the model's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The person's call.
    pub call: Call,
    /// In a few words, or empty. Free text can hold anything.
    pub comment: Sensitive<String>,
}

/// Who looked at a finding, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Review {
    /// As the person wrote it; empty where the person is not named.
    pub by: Sensitive<String>,
    /// When the person decided.
    pub at: DateTime<Utc>,
}

/// All that a classifier says about one image.
#[derive(Clone, Debug)]
pub struct Assessment {
    /// In the model's order, without the class that stands for nothing found.
    pub findings: Vec<Finding>,
    /// Where the evidence lies, as far as it was asked for.
    pub explanations: Vec<Explanation>,
    /// Why no finding is given: the image is none that the model was made for.
    pub refused: Vec<String>,
    /// The series it was made from.
    pub source: SourceSeries,
    /// Which image of the series, from 0.
    pub image: usize,
    /// Model, device, parameters, time.
    pub provenance: Provenance,
    /// Doubts of the image and of the run.
    pub issues: Vec<Issue>,
}

#[cfg(test)]
mod tests {
    use super::percent_words;

    #[test]
    fn clinical_certainty_no_finding_is_certain() {
        let words = [1.0, 0.995, 0.994, 0.5, 0.0051, 0.005, 0.0].map(percent_words);
        assert_eq!(
            words,
            ["> 99 %", "> 99 %", "99 %", "50 %", "1 %", "< 1 %", "< 1 %"]
        );
    }
}
