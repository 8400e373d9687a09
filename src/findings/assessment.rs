//! What a classifier says about an image.

use chrono::{DateTime, Utc};

use super::{Explanation, Provenance, ReviewState};
use crate::redact::Sensitive;
use crate::study::{CodedConcept, Issue};
use crate::volume::SourceSeries;

/// What a probability amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
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
}

/// Who looked at a finding, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Review {
    /// As the person wrote it.
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
