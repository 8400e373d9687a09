//! Appending: one record at a time, on disk before the work that it announces may start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::record::{self, Link, MAX_BYTES, NOTHING_BEFORE};
use super::{AuditEvent, Error, EventId, ObjectKind, Outcome, ParticipantObject};
use crate::whole_file;

/// Proof that an event is on record: made by [`Log::append`] and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    seq: u64,
    sha256: String,
    event: EventId,
}

impl Receipt {
    /// Number of the record.
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// Hash of the record.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// What was put on record.
    pub const fn event(&self) -> EventId {
        self.event
    }
}

/// Number and hash of the newest record, kept beside the log.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Head {
    pub(super) seq: u64,
    pub(super) sha256: String,
}

impl Head {
    fn of(newest: &Link) -> Self {
        Self {
            seq: newest.seq,
            sha256: newest.sha256.clone(),
        }
    }
}

/// The log of one home folder. Cheap to clone; any number of threads and processes may append.
#[derive(Clone, Debug)]
pub struct Log {
    folder: PathBuf,
}

impl Log {
    /// Opens the log in `home/audit`, creating the folder (for its owner alone, where the system can).
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn open(home: &Path) -> Result<Self, Error> {
        let folder = folder(home);
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&folder)
            .map_err(io_error("creating", &folder))?;
        Ok(Self { folder })
    }

    /// Puts an event on record: when this returns, the record has reached the disk.
    ///
    /// A half-written line that a crash left behind is kept aside in a file of its own, and a
    /// damaged end of the log is put on record, before the event is.
    ///
    /// # Errors
    /// The log cannot be written. Nothing was put on record then.
    pub fn append(&self, event: &AuditEvent) -> Result<Receipt, Error> {
        let path = log_path(&self.folder);
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .map_err(io_error("opening", &path))?;
        // Advisory and released with the handle: one writer at a time among all processes.
        file.lock().map_err(io_error("locking", &path))?;

        let tail = Tail::read(&mut file).map_err(io_error("reading", &path))?;
        let head = read_head(&self.folder);
        let mut at = match (&head, &tail.newest) {
            // The head knows more than the log: records are missing. Numbers go on after them, so
            // that the gap stays visible for good.
            (Ok(Some(head)), newest) if newest.as_ref().is_none_or(|n| head.seq >= n.seq) => {
                head.clone()
            }
            (_, Some(newest)) => {
                let newest = Head::of(newest);
                // A crash between a record and its head: the head catches up before it falls
                // behind by two, which only a change from outside can bring about.
                self.write_head(&newest)?;
                newest
            }
            (_, None) => Head {
                seq: 0,
                sha256: NOTHING_BEFORE.to_owned(),
            },
        };
        for alert in self.alerts(event, &mut file, &tail, &head)? {
            at = self.write(&mut file, &at, &alert)?;
        }
        let at = self.write(&mut file, &at, event)?;
        Ok(Receipt {
            seq: at.seq,
            sha256: at.sha256,
            event: event.id,
        })
    }

    /// What is wrong at the end of the log, as events; a torn line is moved aside.
    fn alerts(
        &self,
        event: &AuditEvent,
        file: &mut File,
        tail: &Tail,
        head: &Result<Option<Head>, Error>,
    ) -> Result<Vec<AuditEvent>, Error> {
        let alert = |outcome, object: ParticipantObject, why: &str| {
            AuditEvent::new(EventId::SecurityAlert, event.time)
                .failed(outcome, why)
                .about(object)
        };
        let log = || ParticipantObject::new(ObjectKind::AuditLog, "log.jsonl");
        let mut alerts = Vec::new();
        if !tail.torn.is_empty() {
            let (name, path) = self.free_name(tail.newest.as_ref().map_or(0, |n| n.seq) + 1);
            whole_file::write(&path, |w| w.write_all(&tail.torn))
                .map_err(io_error("writing", &path))?;
            let path = log_path(&self.folder);
            file.set_len(tail.end)
                .and_then(|()| file.sync_data())
                .map_err(io_error("writing", &path))?;
            let object = log()
                .with("kept_in", name)
                .with("bytes", tail.torn.len())
                .with("sha256", record::sha256_hex(&tail.torn));
            alerts.push(alert(Outcome::MinorFailure, object, TORN_LINE));
        }
        let in_log = tail.newest.as_ref().map_or(0, |n| n.seq);
        let object = || log().with("newest", in_log);
        match (head, &tail.newest) {
            (Ok(Some(head)), _) if head.seq > in_log => {
                let object = object().with("expected", head.seq);
                alerts.push(alert(Outcome::SeriousFailure, object, CUT_SHORT));
            }
            (Ok(Some(head)), Some(newest))
                if Head::of(newest) != *head
                    && !(newest.seq == head.seq + 1 && newest.previous == head.sha256) =>
            {
                let object = object().with("head", head.seq);
                alerts.push(alert(Outcome::SeriousFailure, object, HEAD_MISMATCH));
            }
            (Ok(Some(_)), _) => {}
            // A crash right after the very first record leaves no head behind.
            (Ok(None), _) if in_log <= 1 => {}
            (Ok(None) | Err(_), _) => {
                alerts.push(alert(Outcome::SeriousFailure, object(), HEAD_LOST));
            }
        }
        Ok(alerts)
    }

    fn free_name(&self, seq: u64) -> (String, PathBuf) {
        let mut n = 0_u32;
        loop {
            let name = format!("torn-{seq}-{n}.part");
            let path = self.folder.join(&name);
            if !path.exists() {
                return (name, path);
            }
            n += 1;
        }
    }

    fn write(&self, file: &mut File, after: &Head, event: &AuditEvent) -> Result<Head, Error> {
        let path = log_path(&self.folder);
        let seq = after.seq + 1;
        let (mut line, sha256) = record::line(seq, &after.sha256, event);
        line.push('\n');
        if line.len() > MAX_BYTES {
            return Err(Error::TooLarge {
                bytes: line.len(),
                limit: MAX_BYTES,
            });
        }
        let before = file.metadata().map_err(io_error("reading", &path))?.len();
        if let Err(source) = file
            .write_all(line.as_bytes())
            .and_then(|()| file.sync_data())
        {
            // A full disk: what was written of the line goes away again, if the system lets us.
            let _ = file.set_len(before);
            return Err(io_error("writing", &path)(source));
        }
        let head = Head { seq, sha256 };
        self.write_head(&head).inspect_err(|_| {
            let _ = file.set_len(before);
        })?;
        Ok(head)
    }

    fn write_head(&self, head: &Head) -> Result<(), Error> {
        let path = head_path(&self.folder);
        whole_file::write(&path, |w| {
            let text = serde_json::to_string(head).expect("a number and a string serialize");
            writeln!(w, "{text}")
        })
        .map_err(io_error("writing", &path))
    }
}

/// The reason in the event about a half-written line.
pub(super) const TORN_LINE: &str = "a half-written record was found and kept aside";
/// The reason in the event about missing records.
pub(super) const CUT_SHORT: &str = "records are missing at the end of the log";
/// The reason in the event about a missing or unreadable head.
pub(super) const HEAD_LOST: &str = "the file with the number of the newest record is missing";
/// The reason in the event about a head that belongs to another log.
pub(super) const HEAD_MISMATCH: &str = "the log and its head file do not belong together";

/// The end of the log.
struct Tail {
    /// The last whole line, if it is a record.
    newest: Option<Link>,
    /// Bytes after the last end of line.
    torn: Vec<u8>,
    /// Length of the log without them.
    end: u64,
}

impl Tail {
    fn read(file: &mut File) -> io::Result<Self> {
        let length = file.seek(SeekFrom::End(0))?;
        let mut window = 8 << 10;
        loop {
            let take = length.min(window);
            file.seek(SeekFrom::Start(length - take))?;
            let mut bytes = Vec::with_capacity(take as usize);
            Read::take(&mut *file, take).read_to_end(&mut bytes)?;
            let torn_from = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |n| n + 1);
            let whole = &bytes[..torn_from];
            let line_from = whole[..whole.len().saturating_sub(1)]
                .iter()
                .rposition(|&b| b == b'\n');
            let all = take == length || take > 2 * MAX_BYTES as u64;
            if line_from.is_none() && !all {
                window *= 4;
                continue;
            }
            let line = &whole[line_from.map_or(0, |n| n + 1)..];
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            return Ok(Self {
                newest: record::check(line).map(|(link, _)| link),
                end: length - (bytes.len() - torn_from) as u64,
                torn: bytes.split_off(torn_from),
            });
        }
    }
}

pub(super) fn folder(home: &Path) -> PathBuf {
    home.join("audit")
}

pub(super) fn log_path(folder: &Path) -> PathBuf {
    folder.join("log.jsonl")
}

pub(super) fn head_path(folder: &Path) -> PathBuf {
    folder.join("head.json")
}

/// The head; `None` when there is no such file.
pub(super) fn read_head(folder: &Path) -> Result<Option<Head>, Error> {
    let path = head_path(folder);
    let text = match File::open(&path).and_then(|file| {
        let mut text = Vec::new();
        file.take(4096).read_to_end(&mut text).map(|_| text)
    }) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io_error("reading", &path)(e)),
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|e| io_error("reading", &path)(io::Error::new(io::ErrorKind::InvalidData, e)))
}

pub(super) fn io_error<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl Fn(io::Error) -> Error + 'a {
    move |source| Error::Io {
        action,
        source,
        path: path.to_owned(),
    }
}
