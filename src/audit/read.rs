//! Reading the log back: records for people, with a filter.

use std::fs::File;
use std::path::Path;

use chrono::{DateTime, Utc};

use super::keys::{DataKey, Keys, Secret};
use super::line::{Kind, Link};
use super::log::{self, io_error};
use super::segment::{self, Line, Lines};
use super::text::unbase64;
use super::verdict::Place;
use super::{AuditEvent, Error, ObjectKind, plain};

/// A record of the log.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Record {
    /// From 1, without gaps.
    pub seq: u64,
    /// `whole`, `begin`, `end:7` (of what record 7 began), `alert:…`.
    pub act: String,
    /// What happened.
    pub event: AuditEvent,
    /// Hash of the line.
    pub sha256: String,
}

/// Calls `each` for every record of the log in order; what cannot be read gives `None`.
///
/// # Errors
/// The log exists but cannot be read.
pub fn records(home: &Path, mut each: impl FnMut(Place, Option<Record>)) -> Result<(), Error> {
    let folder = log::folder(home);
    let key = Keys::of(home).known_secret(Secret::Data)?;
    let data = key.map(|bytes| DataKey::new(&bytes));
    // The lengths at one moment: no record is seen half-written.
    let lock = File::open(log::lock_path(&folder)).ok();
    if let Some(lock) = &lock {
        let _ = lock.lock_shared();
    }
    let mut segments = Vec::new();
    for (_, path) in segment::list(&folder)? {
        let file = File::open(&path).map_err(io_error("opening", &path))?;
        let length = file.metadata().map_err(io_error("reading", &path))?.len();
        segments.push((path, file, length));
    }
    drop(lock);
    plain::records(&folder, |line, record| {
        let place = Place::new(plain::FILE, line);
        each(
            place,
            record.map(|record| Record {
                seq: record.seq,
                act: "whole".to_owned(),
                event: record.event,
                sha256: record.sha256,
            }),
        );
    })?;
    let mut log = String::new();
    for (path, file, length) in segments {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut number = 0;
        Lines::new(file, length)
            .each(|line| {
                number += 1;
                let Line::Whole(line) = line else {
                    return true;
                };
                let place = || Place::new(&name, number);
                match Link::read(line) {
                    Some(link) if link.kind == Kind::Segment => {
                        link.field("log").unwrap_or_default().clone_into(&mut log);
                    }
                    Some(link) if link.kind == Kind::Record => {
                        let record = data.as_ref().and_then(|key| opened(key, &log, &link));
                        each(place(), record);
                    }
                    Some(_) => {}
                    None => each(place(), None),
                }
                true
            })
            .map_err(io_error("reading", &path))?;
    }
    Ok(())
}

fn opened(key: &DataKey, log: &str, link: &Link<'_>) -> Option<Record> {
    let sealed = unbase64(link.field("box")?.as_bytes())?;
    let text = key.open(log, link.number, &sealed)?;
    Some(Record {
        seq: link.number,
        act: link.field("act")?.to_owned(),
        event: serde_json::from_slice(&text).ok()?,
        sha256: link.sha256.to_owned(),
    })
}

/// Which records are asked for; an empty filter lets all through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Not before.
    pub since: Option<DateTime<Utc>>,
    /// Before.
    pub until: Option<DateTime<Utc>>,
    /// Code or part of the words of the event ID or type, in any case.
    pub event: Option<String>,
    /// Part of a participant's ID, in any case.
    pub user: Option<String>,
    /// UID of a study or series.
    pub study: Option<String>,
}

impl Filter {
    /// Whether a record is asked for.
    pub fn lets_through(&self, record: &Record) -> bool {
        let event = &record.event;
        let holds = |text: &str, part: &str| text.to_lowercase().contains(&part.to_lowercase());
        self.since.is_none_or(|since| event.time >= since)
            && self.until.is_none_or(|until| event.time < until)
            && self.event.as_ref().is_none_or(|wanted| {
                [Some(event.id.code()), event.type_code()]
                    .into_iter()
                    .flatten()
                    .any(|code| code.value == *wanted || holds(&code.meaning, wanted))
            })
            && self.user.as_ref().is_none_or(|wanted| {
                (event.participants.iter())
                    .any(|p| holds(&p.user_id, wanted) || holds(&p.alternative_user_id, wanted))
            })
            && self.study.as_ref().is_none_or(|wanted| {
                event.objects.iter().any(|object| {
                    matches!(object.kind, ObjectKind::Study | ObjectKind::Series)
                        && object.id == *wanted
                })
            })
    }
}
