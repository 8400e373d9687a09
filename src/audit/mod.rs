//! The append-only, hash-chained log: who opened, ran and exported what, and proof that it is on record.
//!
//! In: [`AuditEvent`]s (DICOM PS3.15 A.5). Out: a [`Receipt`] for each record on disk, which the
//! work that releases patient data asks for, and a [`Verdict`] over the whole log.
//!
//! `audit/log.jsonl` holds one record a line: number, time, hash of the record before, the event,
//! and the SHA-256 over all of these bytes. `audit/head.json` holds the number and hash of the
//! newest record, so that a log cut short is noticed.
//!
//! What the chain shows: any record changed, removed, moved, or cut off at the end. What it does
//! not show yet: a log rewritten from one end to the other together with its head, or both put back
//! to an older copy, because nothing in it is keyed or kept elsewhere.
//!
//! Absent on purpose: patient names and other free text about patients, keys, forwarding.

mod event;
mod log;
mod record;
mod verify;

use std::path::PathBuf;

pub use event::{
    ActiveParticipant, AuditEvent, EventAction, EventId, ObjectKind, Outcome, ParticipantObject,
    Role, account_name,
};
pub use log::{Log, Receipt};
pub use record::Record;
pub use verify::{Problem, Verdict, records, verify};

/// Why an event could not be put on record, or the log could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused.
    #[error("{action} failed: {path}")]
    Io {
        /// `opening`, `locking`, `writing`, …
        action: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
        /// The file.
        path: PathBuf,
    },
    /// An event with more text than one record takes.
    #[error("an audit record of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// Size of the record.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}
