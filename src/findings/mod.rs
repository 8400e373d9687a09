//! What was found: segments, segmentations, findings of whole images, and the record of how they were made.
//!
//! Absent on purpose: how findings are drawn or written.

mod assessment;
mod provenance;
mod segment;

pub use assessment::{Assessment, Call, Finding, OperatingPoint, Review};
pub use provenance::Provenance;
pub use segment::{AlgorithmType, ReviewState, Segment, Segmentation};
