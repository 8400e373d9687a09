//! DICOM files in, the same files without identity out (PS3.15 annex E).
//!
//! `table` is the standard's table E.1-1 as data, `options` what a person keeps, `keys` the secret
//! from which new UIDs, pseudonyms and the shift of dates come, `clean` the walk through one file,
//! `fragments` what compressed pixels hold beside their frames, `risk` what pixels may show, `text` and
//! `look` what is found in them, `redaction` a person's list of regions, `faces` heads and their faces
//! (`face` on a grid of `slices`, with `morphology`), `paint` pixels that change, `pixel_work` all of that
//! for one file, `run` many files with a [`Report`].
//!
//! Stricter than the table where it is silent: what the dictionary does not know goes, long texts,
//! names, application entities and addresses outside of it are replaced, every date and every
//! instance UID is treated as one, and a kept text that repeats a word of a removed identity is
//! replaced too.
//!
//! Absent on purpose: reading what burned-in text says, a table from old to new identities.

mod clean;
mod dates;
mod face;
mod faces;
mod fragments;
mod identity;
mod keys;
mod look;
mod morphology;
mod options;
mod paint;
mod pixel_work;
mod redaction;
mod report;
mod risk;
mod run;
mod slices;
mod table;
mod text;
mod values;

use std::path::PathBuf;

pub use clean::{Cleaned, clean};
pub use keys::Key;
pub use options::{Dates, Options};
pub use pixel_work::PixelWork;
pub use redaction::Redactions;
pub use report::{Report, TABLE_EDITION};
pub use risk::burned_in_risk;
pub use run::{Request, run};
pub use table::{Action, Resolved, Row, rows};
pub use text::{FoundText, Region, find_text};

/// Why nothing, or not everything, could be de-identified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused.
    #[error("{action} failed: {path}")]
    Io {
        /// `reading`, `writing`, …
        action: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
        /// The file; of a written file, its new name.
        path: PathBuf,
    },
    /// The key file holds something else.
    #[error(
        "the key of de-identification cannot be used, 64 hexadecimal digits were expected: {path}"
    )]
    Key {
        /// The key file.
        path: PathBuf,
    },
    /// The key is not to be had.
    #[error(transparent)]
    KeyFile(#[from] crate::key_file::Error),
    /// Files of other people can read the key.
    #[error(
        "the key of de-identification can be read by others (mode {mode:o}, 600 was expected): {path}"
    )]
    KeyOpen {
        /// Rights found.
        mode: u32,
        /// The key file.
        path: PathBuf,
    },
    /// A list of redactions that says something else, or nothing.
    #[error("the list of redactions cannot be used: {what}: {path}")]
    Redactions {
        /// What is wrong, and where.
        what: String,
        /// The list.
        path: PathBuf,
    },
    /// Input and output overlap.
    #[error("the folder to write lies in what is read, or around it: {path}")]
    Overlap {
        /// The folder to write.
        path: PathBuf,
    },
    /// Stopped.
    #[error(transparent)]
    Cancelled(#[from] crate::task::Cancelled),
}
