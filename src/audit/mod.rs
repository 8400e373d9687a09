//! The append-only log: who opened, ran and exported what, and proof that it is on record.
//!
//! In: [`AuditEvent`]s (DICOM PS3.15 A.5). Out: a [`Receipt`] for each record on disk, which the
//! work that releases patient data asks for, an [`Act`] for work whose outcome is to follow, and a
//! [`Verdict`] over the whole log.
//!
//! `audit/000001.jsonl` and on hold one line a record; the event in it is encrypted. Each line names
//! the hash of the line before. Each record is sealed (HMAC) by a key of its own: the next key
//! follows from it by a one-way step, and it is written over once the record is on disk. Every 256 records
//! a checkpoint is signed (Ed25519) by a key that the checkpoint before announced. `audit-keys/` holds
//! the present keys and the number of the newest record, for the account alone.
//!
//! What this shows, with the log's first public key noted elsewhere: any line changed, removed, moved
//! or cut off, also by somebody who later had all keys, as far as it is under a checkpoint; with the
//! verification key, which is taken away with `audit key --take`, for every single record. A log put back as a
//! whole to an older copy, together with its keys, and a log deleted as a whole show only against a
//! checkpoint that is kept elsewhere.
//! What it does not show: records forged by who has the present keys, from then on; a log made anew with
//! keys of its own, when nothing of the first one was noted elsewhere. The keys lie in files, or open
//! with one in the system's keyring (`key_file`): whoever can act as this account can read them, and with
//! them what is encrypted.
//!
//! Segments whose records are older than a time that a person sets can be deleted, on record and with
//! their signed lines kept: [`delete_older_than`].
//!
//! Absent on purpose: patient names and other free text about patients.

mod act;
mod event;
mod export;
mod forward;
mod keys;
mod line;
mod log;
mod message;
mod plain;
mod pseudonym;
mod read;
mod retention;
mod segment;
mod session;
mod text;
mod verdict;
mod verify;

use std::path::PathBuf;

pub use act::{Act, Receipt};
pub use event::{
    ActiveParticipant, AuditEvent, EventAction, EventId, EventType, ObjectKind, Outcome,
    ParticipantObject, Role, account_name,
};
pub use export::{Exported, Form, export};
pub use forward::{Destination, ForwardError, Forwarded, forward};
pub use keys::VerificationKey;
pub use log::{Limits, Log};
pub use message::{COLUMNS, atna_xml, fhir, row};
pub use pseudonym::Pseudonyms;
pub use read::{Filter, Record, records};
pub use retention::{Deleted, SHORTEST_YEARS, delete_older_than};
pub use session::Session;
pub use text::visible;
pub use verdict::{Finding, Note, Place, Problem, Verdict};
pub use verify::{Against, verify, verify_against, verify_folder};

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
    /// A key is not to be had.
    #[error(transparent)]
    KeyFile(#[from] crate::key_file::Error),
    /// A file of keys holds something else.
    #[error("no key of the audit log: {path}")]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// The verification key is not here any more.
    #[error("the verification key of the audit log was taken away already")]
    KeyTaken,
    /// Records are to be kept for longer.
    #[error("{years} years are too short: records are kept for at least {SHORTEST_YEARS}")]
    TooSoon {
        /// What was asked for.
        years: u32,
    },
    /// Nothing is deleted from a log that is not as it was written.
    #[error("the log is not whole (audit verify says where): nothing is deleted from it")]
    NotWhole,
    /// The system has no random numbers, or they cannot be used.
    #[error("the system gives no random numbers")]
    Chance,
}
