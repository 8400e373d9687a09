//! What models did and what people said of it, for a monitoring panel: how often a version was run
//! and failed, how long it took, how often readers agreed, and where its numbers drift to.
//!
//! In: a [`Record`] when a run ends and when a person decides. Out: [`usage`], a table by model
//! version and month. `monitoring/2026-11.jsonl` in the program's home holds one record a line.
//!
//! Absent on purpose: whatever names a patient, an image, a file or a reader, and free text. A run
//! has a random name that its reviews repeat. Absent too: a clock, and any way out of the machine.

mod record;
mod store;
mod usage;

pub use record::{
    Outcome, Reason, Record, Review, Reviewed, Run, Said, SaidSegment, Through, Verdict, Work,
    known_modality,
};
pub use store::{Error, Kept, Store};
pub use usage::{FindingUsage, SegmentUsage, Usage, UsageRow, usage};
