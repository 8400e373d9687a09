//! What was found: segments, segmentations, findings of whole images with their explanations, and
//! the record of how they were made.
//!
//! Absent on purpose: how findings are drawn or written.

mod assessment;
mod explanation;
mod provenance;
mod segment;

pub use assessment::{Assessment, Call, Edit, Finding, OperatingPoint, Review, percent_words};
pub use explanation::{Explanation, ExplanationMethod, Faithfulness};
pub use provenance::Provenance;
pub use segment::{AlgorithmType, ReviewState, Segment, Segmentation};
