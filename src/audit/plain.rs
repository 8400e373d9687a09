//! The log of earlier versions, `log.jsonl`: a plain chain of SHA-256, which is read and checked but no longer written.
//!
//! One record a line: number, hash of the record before, the event, and the SHA-256 over these
//! bytes. `head.json` holds number and hash of the newest record, at most one behind.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use ring::digest;

use super::line::NOTHING_BEFORE;
use super::log::io_error;
use super::segment::{Line, Lines};
use super::text::hex;
use super::verify::{Place, Problem};
use super::{AuditEvent, Error, EventId};

pub(super) const FILE: &str = "log.jsonl";

/// How the hash follows the hashed part: `…,"sha256":"<64 digits>"}`.
const SEAL: &str = ",\"sha256\":\"";
const SEAL_BYTES: usize = SEAL.len() + 64 + 2;

/// Reasons by which the log reported its own damage.
const REPORTED: [&str; 3] = [
    "records are missing at the end of the log",
    "the file with the number of the newest record is missing",
    "the log and its head file do not belong together",
];

#[derive(serde::Deserialize)]
struct Head {
    seq: u64,
    sha256: String,
}

/// The part of a record that the chain needs, also of records with events of later versions.
#[derive(serde::Deserialize)]
struct Link {
    seq: u64,
    previous: String,
    sha256: String,
}

#[derive(serde::Deserialize)]
pub(super) struct PlainRecord {
    pub(super) seq: u64,
    pub(super) event: AuditEvent,
    #[serde(default)]
    pub(super) sha256: String,
}

/// An old log as a whole.
pub(super) struct Summary {
    /// Records, by the number of the newest one ever written.
    pub(super) last: u64,
    /// Its hash.
    pub(super) hash: String,
    /// Lines.
    pub(super) records: u64,
    /// Length of the file.
    pub(super) bytes: u64,
    /// SHA-256 of the file.
    pub(super) sha256: String,
    /// What is not as it was written.
    pub(super) found: Vec<Problem>,
    /// Their number.
    pub(super) problems: usize,
    /// Bytes of a half-written record at the end.
    pub(super) torn: usize,
}

/// Checks the old log of a folder; `None` when there is none.
pub(super) fn summary(folder: &Path) -> Result<Option<Summary>, Error> {
    let head = read_head(folder);
    let path = folder.join(FILE);
    let mut chain = Chain::default();
    let mut torn = 0;
    let (mut bytes, mut sha256) = (0, digest::Context::new(&digest::SHA256));
    match File::open(&path) {
        Ok(file) => {
            let mut number = 0;
            Lines::new(file, u64::MAX)
                .each(|line| {
                    match line {
                        Line::Whole(line) => {
                            number += 1;
                            chain.add(number, line);
                        }
                        Line::Torn(count) => torn = count,
                    }
                    true
                })
                .map_err(io_error("reading", &path))?;
            let mut file = File::open(&path).map_err(io_error("opening", &path))?;
            let mut block = vec![0; 1 << 16];
            loop {
                match file.read(&mut block).map_err(io_error("reading", &path))? {
                    0 => break,
                    count => {
                        bytes += count as u64;
                        sha256.update(&block[..count]);
                    }
                }
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if matches!(head, Ok(None)) {
                return Ok(None);
            }
        }
        Err(e) => return Err(io_error("opening", &path)(e)),
    }
    let last = chain.last;
    let mut found = chain.problems;
    match &head {
        Ok(Some(head)) if head.seq > last => found.push(Problem::CutShort {
            last,
            expected: head.seq,
        }),
        Ok(Some(head)) => {
            // Each record is written before its head, so the head may be one behind, never two.
            let known = match last - head.seq {
                0 => Some(&chain.hash),
                1 => Some(&chain.hash_before),
                _ => None,
            };
            if known != Some(&head.sha256) {
                found.push(Problem::StateMismatch { seq: head.seq });
            }
        }
        Ok(None) if last <= 1 => {}
        Ok(None) | Err(()) => found.push(Problem::StateLost),
    }
    let (last, hash) = match head {
        Ok(Some(head)) if head.seq > last => (head.seq, head.sha256),
        _ => (last, chain.hash),
    };
    Ok(Some(Summary {
        last,
        hash,
        records: chain.lines,
        bytes,
        sha256: hex(sha256.finish().as_ref()),
        problems: found.len(),
        found,
        torn,
    }))
}

/// Calls `each` for every line of the old log.
pub(super) fn records(
    folder: &Path,
    mut each: impl FnMut(u64, Option<PlainRecord>),
) -> Result<(), Error> {
    let path = folder.join(FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io_error("opening", &path)(e)),
    };
    let mut number = 0;
    Lines::new(file, u64::MAX)
        .each(|line| {
            if let Line::Whole(line) = line {
                number += 1;
                each(number, serde_json::from_slice(line).ok());
            }
            true
        })
        .map_err(io_error("reading", &path))
}

fn read_head(folder: &Path) -> Result<Option<Head>, ()> {
    let mut text = Vec::new();
    match File::open(folder.join("head.json")).and_then(|f| f.take(4096).read_to_end(&mut text)) {
        Ok(_) => serde_json::from_slice(&text).map(Some).map_err(|_| ()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(_) => Err(()),
    }
}

/// Reads a line's link. `Ok(false)` when its bytes do not have the hash that it states.
fn check(line: &[u8]) -> Option<(Link, bool)> {
    let link: Link = serde_json::from_slice(line).ok()?;
    let (body, seal) = line.split_at_checked(line.len().checked_sub(SEAL_BYTES)?)?;
    let sealed_so = seal
        .strip_prefix(SEAL.as_bytes())
        .and_then(|rest| rest.strip_suffix(b"\"}"))
        .is_some_and(|digits| digits == link.sha256.as_bytes());
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(body);
    context.update(b"}");
    let intact = sealed_so && hex(context.finish().as_ref()) == link.sha256;
    Some((link, intact))
}

/// The chain as far as it was read.
struct Chain {
    problems: Vec<Problem>,
    lines: u64,
    last: u64,
    hash: String,
    hash_before: String,
    /// Whether the line before was a record.
    linked: bool,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            problems: Vec::new(),
            lines: 0,
            last: 0,
            hash: NOTHING_BEFORE.to_owned(),
            hash_before: String::new(),
            linked: true,
        }
    }
}

impl Chain {
    fn add(&mut self, number: u64, bytes: &[u8]) {
        self.lines += 1;
        let place = || Place::new(FILE, number);
        let problems = &mut self.problems;
        let Some((link, intact)) = check(bytes) else {
            problems.push(Problem::NotARecord { place: place() });
            self.linked = false;
            self.last = self.last.saturating_add(1);
            return;
        };
        let seq = link.seq;
        if !intact {
            problems.push(Problem::Changed {
                seq,
                place: place(),
            });
        }
        if seq <= self.last {
            problems.push(Problem::OutOfOrder {
                seq,
                place: place(),
                after: self.last,
            });
        } else if seq - 1 > self.last {
            problems.push(Problem::Removed {
                first: self.last + 1,
                last: seq - 1,
            });
        } else if self.linked && link.previous != self.hash {
            problems.push(Problem::BrokenLink { place: place() });
        }
        if let Some(what) = reported_damage(bytes) {
            problems.push(Problem::Reported {
                seq,
                word: super::log::CUT_SHORT,
                what,
            });
        }
        self.last = self.last.max(seq);
        self.hash_before = std::mem::replace(&mut self.hash, link.sha256);
        self.linked = true;
    }
}

/// The words of a record that reports missing records or a lost head.
fn reported_damage(bytes: &[u8]) -> Option<String> {
    let record: PlainRecord = serde_json::from_slice(bytes).ok()?;
    let what = record.event.outcome_description;
    let damage = record.event.id == EventId::SecurityAlert && REPORTED.contains(&what.as_str());
    damage.then_some(what)
}
