//! The end of old segments: deleted on record, with what proves that they belonged to the log.
//!
//! Of a deleted segment `000001.kept` stays: its signed lines, that is, its first one and its
//! checkpoints. Their signatures lead from the log's first key to the next segment, and the record of
//! the deletion names the number of records and the SHA-256 of the file. A segment that is gone without
//! both is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Months, SecondsFormat, Utc};
use ring::digest;

use super::line::{Kind, Link};
use super::log::{Part, io_error};
use super::segment::{self, Line, Lines};
use super::text::hex;
use super::{AuditEvent, Error, EventId, EventType, Log, ObjectKind, ParticipantObject, verify};
use crate::whole_file;

/// The shortest time that records are kept, in years (45 CFR 164.316(b)(2)(i)).
pub const SHORTEST_YEARS: u32 = 6;

/// What was deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Files.
    pub segments: u64,
    /// Records in them.
    pub records: u64,
}

/// A closed segment that is old enough.
struct Old {
    number: u64,
    path: PathBuf,
    records: u64,
    sha256: String,
    signed: Vec<u8>,
}

/// Deletes the closed segments whose records are all older than so many years, the oldest first.
///
/// # Errors
/// [`Error::TooSoon`] below [`SHORTEST_YEARS`], [`Error::NotWhole`] when the log is not as it was
/// written (nothing is deleted then: it would be evidence), or a file cannot be read or written.
pub fn delete_older_than(
    home: &Path,
    log: &Log,
    years: u32,
    now: DateTime<Utc>,
) -> Result<Deleted, Error> {
    if years < SHORTEST_YEARS {
        return Err(Error::TooSoon { years });
    }
    let before = years
        .checked_mul(12)
        .and_then(|months| now.checked_sub_months(Months::new(months)));
    let Some(before) = before else {
        return Ok(Deleted::default());
    };
    if !verify(home)?.ok {
        return Err(Error::NotWhole);
    }
    let before = before.to_rfc3339_opts(SecondsFormat::Millis, true);
    let mut segments = segment::list(log.folder())?;
    // The record of an earlier deletion may go with this one, which therefore says all of it again.
    let mut told = told_before(&segments)?;
    let kept: BTreeSet<u64> = (segment::kept(log.folder())?.iter())
        .map(|(number, _)| *number)
        .collect();
    told.retain(|number, _| kept.contains(number));
    segments.pop();
    let mut old = Vec::new();
    for (number, path) in segments {
        // In the order of the log: what comes after one that stays, stays.
        match read(number, &path, &before).map_err(io_error("reading", &path))? {
            Some(one) => old.push(one),
            None => break,
        }
    }
    let (Some(first), Some(last)) = (old.first(), old.last()) else {
        return Ok(Deleted::default());
    };
    let done = Deleted {
        segments: old.len() as u64,
        records: old.iter().map(|one| one.records).sum(),
    };
    let object = ParticipantObject::new(ObjectKind::AuditLog, "audit")
        .with("change", "deleted")
        .with("segments", format!("{}-{}", first.number, last.number))
        .with("records", done.records)
        .with("before", &before);
    for one in &old {
        let kept = kept_path(log.folder(), one.number);
        whole_file::write(&kept, |w| w.write_all(&one.signed))
            .map_err(io_error("writing", &kept))?;
    }
    let event = AuditEvent::new(EventId::SecurityAlert, now)
        .of_type(EventType::UseOfRestrictedFunction)
        .about(object);
    for one in &old {
        told.insert(one.number, format!("{}/{}", one.records, one.sha256));
    }
    let entries: Vec<String> = (told.iter())
        .map(|(number, entry)| format!("{number}={entry}"))
        .collect();
    log.put(&event, Part::Removed(entries.join(",")))?;
    for one in &old {
        remove(&one.path).map_err(io_error("deleting", &one.path))?;
    }
    Ok(done)
}

/// What the records of earlier deletions say, by segment.
fn told_before(segments: &[(u64, PathBuf)]) -> Result<BTreeMap<u64, String>, Error> {
    let mut told = BTreeMap::new();
    for (_, path) in segments {
        let file = File::open(path).map_err(io_error("opening", path))?;
        Lines::new(file, u64::MAX)
            .each(|line| {
                if let Line::Whole(bytes) = line
                    && let Some(act) = Link::read(bytes).and_then(|link| link.field("act"))
                {
                    for (number, records, sha256) in entries(act) {
                        told.insert(number, format!("{records}/{sha256}"));
                    }
                }
                true
            })
            .map_err(io_error("reading", path))?;
    }
    Ok(told)
}

/// What the record of a deletion says of a segment: its number, its records, the SHA-256 of its file.
pub(super) fn entries(act: &str) -> impl Iterator<Item = (u64, u64, &str)> {
    let all = act.strip_prefix("removed:").unwrap_or_default();
    all.split(',').filter_map(|entry| {
        let (number, rest) = entry.split_once('=')?;
        let (records, sha256) = rest.split_once('/')?;
        Some((number.parse().ok()?, records.parse().ok()?, sha256))
    })
}

pub(super) fn kept_path(folder: &Path, number: u64) -> PathBuf {
    segment::path(folder, number).with_extension("kept")
}

/// `None` when a line of it is not older than `before`.
fn read(number: u64, path: &Path, before: &str) -> io::Result<Option<Old>> {
    let (mut records, mut is_old, mut signed) = (0, true, Vec::new());
    Lines::new(File::open(path)?, u64::MAX).each(|line| {
        let Line::Whole(bytes) = line else {
            is_old = false;
            return false;
        };
        let link = Link::read(bytes);
        // The stamps are all of one form, so they sort as text.
        is_old = link.is_some_and(|link| link.time < before);
        match link.map(|link| link.kind) {
            Some(Kind::Record) => records += 1,
            Some(_) => {
                signed.extend_from_slice(bytes);
                signed.push(b'\n');
            }
            None => {}
        }
        is_old
    })?;
    if !is_old {
        return Ok(None);
    }
    let mut context = digest::Context::new(&digest::SHA256);
    let mut file = File::open(path)?;
    let mut block = vec![0; 1 << 16];
    loop {
        match file.read(&mut block)? {
            0 => break,
            read => context.update(&block[..read]),
        }
    }
    Ok(Some(Old {
        number,
        path: path.to_owned(),
        records,
        sha256: hex(context.finish().as_ref()),
        signed,
    }))
}

/// A closed segment is read-only, which some systems take for the file's name too.
fn remove(path: &Path) -> io::Result<()> {
    #[cfg(windows)]
    {
        let mut rights = fs::metadata(path)?.permissions();
        #[expect(
            clippy::permissions_set_readonly_false,
            reason = "Windows' read-only bit alone"
        )]
        rights.set_readonly(false);
        fs::set_permissions(path, rights)?;
    }
    fs::remove_file(path)
}
