//! Reading the log back: records for people, and the verdict over the chain.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::log::{self, Head, io_error};
use super::record::{self, MAX_BYTES, NOTHING_BEFORE};
use super::{Error, EventId, Record};

/// Something in the log that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A line that is no record.
    #[error("line {line} is not a record")]
    NotARecord {
        /// From 1.
        line: u64,
    },
    /// The bytes do not have the hash that they state.
    #[error("record {seq} (line {line}) was changed")]
    Changed {
        /// Number that the record states.
        seq: u64,
        /// From 1.
        line: u64,
    },
    /// Numbers are missing.
    #[error("records {first} to {last} were removed")]
    Removed {
        /// First missing number.
        first: u64,
        /// Last missing number.
        last: u64,
    },
    /// A number that has already gone by.
    #[error("record {seq} (line {line}) stands after record {after}")]
    OutOfOrder {
        /// Number of the record.
        seq: u64,
        /// From 1.
        line: u64,
        /// Highest number before it.
        after: u64,
    },
    /// A record that names another one as the one before it.
    #[error("record {seq} does not follow from the record before it")]
    BrokenLink {
        /// Number of the record.
        seq: u64,
    },
    /// The head knows of records that the log does not hold.
    #[error("the log ends with record {last}, but record {expected} was written")]
    CutShort {
        /// Newest record in the log.
        last: u64,
        /// Newest record ever written.
        expected: u64,
    },
    /// The newest record is not the one that the head knows, or the head is older than it can be.
    #[error("the log and its head file do not belong together (record {seq})")]
    HeadMismatch {
        /// Number in the head.
        seq: u64,
    },
    /// The head is missing or unreadable.
    #[error("the file with the number of the newest record is missing or unreadable")]
    HeadLost,
    /// A damage that was found and recorded while the log went on.
    #[error("record {seq} reports: {what}")]
    Reported {
        /// Number of the record.
        seq: u64,
        /// Its words.
        what: String,
    },
}

/// The outcome of [`verify`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether every record is as it was written, and none is missing.
    pub ok: bool,
    /// Lines in the log.
    pub records: u64,
    /// What is not as it was written.
    pub problems: Vec<Problem>,
    /// What a crash left behind: no reason to doubt the records.
    pub notes: Vec<String>,
}

/// Reads the whole log of a home folder and checks every record. Changes nothing.
///
/// No log at all is fine: nothing was put on record yet (or log and head were both deleted,
/// which only a copy elsewhere could show).
///
/// # Errors
/// The log exists but cannot be read.
pub fn verify(home: &Path) -> Result<Verdict, Error> {
    let folder = log::folder(home);
    let mut chain = Chain::default();
    let mut torn = 0;
    let head = with_lines(&folder, |line| match line {
        Line::Whole(number, bytes) => chain.add(number, bytes),
        Line::Torn(bytes) => torn = bytes,
    })?;
    let mut verdict = chain.verdict;
    if torn > 0 {
        verdict
            .notes
            .push(format!("{torn} bytes of a half-written record at the end"));
    }
    let last = chain.last;
    match head {
        Ok(Some(head)) => {
            if head.seq > last {
                verdict.problems.push(Problem::CutShort {
                    last,
                    expected: head.seq,
                });
            } else {
                // Each record is written before its head, so the head may be one behind, never two.
                let known = match last - head.seq {
                    0 => Some(&chain.hash),
                    1 => Some(&chain.hash_before),
                    _ => None,
                };
                if known != Some(&head.sha256) {
                    verdict
                        .problems
                        .push(Problem::HeadMismatch { seq: head.seq });
                }
            }
        }
        Ok(None) if last <= 1 => {}
        Ok(None) | Err(_) => verdict.problems.push(Problem::HeadLost),
    }
    verdict.ok = verdict.problems.is_empty();
    Ok(verdict)
}

/// Calls `each` for every record of the log in order; damaged lines give `None`.
///
/// # Errors
/// The log exists but cannot be read.
pub fn records(home: &Path, mut each: impl FnMut(u64, Option<Record>)) -> Result<(), Error> {
    let _head = with_lines(&log::folder(home), |line| {
        if let Line::Whole(number, bytes) = line {
            each(number, serde_json::from_slice(bytes).ok());
        }
    })?;
    Ok(())
}

enum Line<'a> {
    /// Number from 1, and bytes without the end of line.
    Whole(u64, &'a [u8]),
    /// Bytes after the last end of line.
    Torn(usize),
}

/// Reads the lines under a shared lock, so that no record is seen half-written, and the head with them.
fn with_lines(
    folder: &Path,
    mut each: impl FnMut(Line<'_>),
) -> Result<Result<Option<Head>, Error>, Error> {
    let path = log::log_path(folder);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(log::read_head(folder)),
        Err(e) => return Err(io_error("opening", &path)(e)),
    };
    // Not every file system can lock (read-only media): a log that nobody writes is read without.
    let _ = file.lock_shared();
    let head = log::read_head(folder);
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = reader
            .by_ref()
            .take(MAX_BYTES as u64)
            .read_until(b'\n', &mut line)
            .map_err(io_error("reading", &path))?;
        if read == 0 {
            break;
        }
        if line.pop_if(|&mut b| b == b'\n').is_some() {
            each(Line::Whole(number, &line));
        } else if read < MAX_BYTES {
            each(Line::Torn(read));
        } else {
            // Longer than any record: the rest of the line is passed over.
            each(Line::Whole(number, b""));
            reader
                .skip_until(b'\n')
                .map_err(io_error("reading", &path))?;
        }
    }
    Ok(head)
}

/// The chain as far as it was read.
struct Chain {
    verdict: Verdict,
    /// Highest number so far.
    last: u64,
    /// Hash that the newest record states.
    hash: String,
    /// The one before.
    hash_before: String,
    /// Whether the line before was a record.
    linked: bool,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            verdict: Verdict::default(),
            last: 0,
            hash: NOTHING_BEFORE.to_owned(),
            hash_before: String::new(),
            linked: true,
        }
    }
}

impl Chain {
    fn add(&mut self, line: u64, bytes: &[u8]) {
        self.verdict.records += 1;
        let problems = &mut self.verdict.problems;
        let Some((link, intact)) = record::check(bytes) else {
            problems.push(Problem::NotARecord { line });
            self.linked = false;
            self.last += 1;
            return;
        };
        let seq = link.seq;
        if !intact {
            problems.push(Problem::Changed { seq, line });
        }
        if seq <= self.last {
            problems.push(Problem::OutOfOrder {
                seq,
                line,
                after: self.last,
            });
        } else if seq > self.last + 1 {
            problems.push(Problem::Removed {
                first: self.last + 1,
                last: seq - 1,
            });
        } else if self.linked && link.previous != self.hash {
            problems.push(Problem::BrokenLink { seq });
        }
        if let Some(what) = reported_damage(bytes) {
            problems.push(Problem::Reported { seq, what });
        }
        self.last = self.last.max(seq);
        self.hash_before = std::mem::replace(&mut self.hash, link.sha256);
        self.linked = true;
    }
}

/// The words of a record that reports missing records or a lost head.
fn reported_damage(bytes: &[u8]) -> Option<String> {
    let record: Record = serde_json::from_slice(bytes).ok()?;
    let what = record.event.outcome_description;
    let damage = record.event.id == EventId::SecurityAlert
        && [log::CUT_SHORT, log::HEAD_LOST, log::HEAD_MISMATCH].contains(&what.as_str());
    damage.then_some(what)
}
