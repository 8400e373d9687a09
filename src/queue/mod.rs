//! Work that another machine does: jobs that survive a kill, and the answers they already have.
//!
//! `queue/ID/job` holds what is to be done and how far it is; `queue/ID/answers/` what the other
//! machine has sent so far, by what was asked. A job that is run again asks only for what is not
//! there, so whatever ends the program, nothing that was computed is lost or paid for twice.
//!
//! Everything in these files is sealed: paths name patients, and answers show them. The key lies in
//! `queue/key` for its owner alone (see `key_file`), so a copy of the folder without it tells nothing; whoever can
//! read this account's files can read these too.
//!
//! Absent on purpose: the network, models, what the work is.

mod answers;
mod job;
mod seal;

use std::path::PathBuf;

pub use answers::{Answers, Question};
pub use job::{Job, JobId, Queue, Running, State};
pub use seal::Seal;

/// Why a job could not be kept or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused.
    #[error("{action} failed: {}", path.display())]
    Io {
        /// `reading`, `writing`, `locking`, …
        action: &'static str,
        /// What it said.
        #[source]
        source: std::io::Error,
        /// The file.
        path: PathBuf,
    },
    /// A file that this key did not seal, or that was changed.
    #[error("it was changed, or sealed with another key: {}", path.display())]
    Sealed {
        /// The file.
        path: PathBuf,
    },
    /// The key is no key, or others may read it.
    #[error("the queue's key {why}: {}", path.display())]
    Key {
        /// What is wrong with it.
        why: &'static str,
        /// Its file.
        path: PathBuf,
    },
    /// The key is not to be had.
    #[error(transparent)]
    KeyFile(#[from] crate::key_file::Error),
    /// A sealed file that this version does not understand.
    #[error("this version does not understand the job: {}", path.display())]
    Content {
        /// What is wrong.
        #[source]
        source: serde_json::Error,
        /// The file.
        path: PathBuf,
    },
    /// No such job, or several whose names begin so.
    #[error("there is no job {0:?} (see `negatoscope queue list`)")]
    Unknown(String),
    /// Another process is on it.
    #[error("the job {0} is being run by another process")]
    Busy(JobId),
}

impl Error {
    fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            source,
            path,
        }
    }
}
