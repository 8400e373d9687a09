//! What was found: segments, segmentations, and the record of how they were made.
//!
//! Absent on purpose: how findings are drawn or written.

mod provenance;
mod segment;

pub use provenance::Provenance;
pub use segment::{AlgorithmType, ReviewState, Segment, Segmentation};
