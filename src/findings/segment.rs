//! Segments and segmentations.

use super::{Provenance, Review};
use crate::study::{CodedConcept, Issue};
use crate::volume::{LabelMap, SourceSeries};

/// Segment Algorithm Type (PS3.3 C.8.20.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlgorithmType {
    /// A program alone.
    Automatic,
    /// A program with a person's help.
    Semiautomatic,
    /// A person.
    Manual,
}

impl AlgorithmType {
    /// The defined term.
    pub const fn term(self) -> &'static str {
        match self {
            Self::Automatic => "AUTOMATIC",
            Self::Semiautomatic => "SEMIAUTOMATIC",
            Self::Manual => "MANUAL",
        }
    }
}

/// Whether a person has looked at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReviewState {
    /// "AI – not reviewed".
    #[default]
    NotReviewed,
    /// Accepted as it is.
    Accepted,
    /// Changed: what the person says stands beside what the model says.
    Edited,
    /// Rejected.
    Rejected,
}

/// One label and what it means.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// Value in the label map, 1 to 255.
    pub label: u8,
    /// Name for people.
    pub name: String,
    /// Segmented Property Category, e.g. (123037004, SCT, "Anatomical Structure").
    pub category: CodedConcept,
    /// Segmented Property Type.
    pub property: CodedConcept,
    /// sRGB.
    pub color: [u8; 3],
}

/// A label map with the meaning of its labels and its record.
#[derive(Clone, Debug)]
pub struct Segmentation {
    /// Labels on the source volume's grid.
    pub map: LabelMap,
    /// By label number.
    pub segments: Vec<Segment>,
    /// How labels were made.
    pub algorithm: AlgorithmType,
    /// The series it was made from.
    pub source: SourceSeries,
    /// Model, device, parameters, time.
    pub provenance: Provenance,
    /// Doubts of the source volume and of the run.
    pub issues: Vec<Issue>,
    /// Whether a person has looked at it.
    pub review: ReviewState,
    /// Who has, and when.
    pub reviewed: Option<Review>,
}
