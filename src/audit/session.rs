//! The program's own life on record: started, stopped, or ended without a stop.
//!
//! While a program runs, it holds the lock of a file `audit/running-…`, which names the record of its
//! start. A file that nobody holds is of a program that was killed: the next start says so.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use super::act::UNKNOWN;
use super::log::{Part, io_error};
use super::text::hex;
use super::{
    Act, AuditEvent, Error, EventId, EventType, Log, ObjectKind, Outcome, ParticipantObject, keys,
    segment,
};

/// The outcome of a start whose program is gone.
pub(super) const KILLED: &str = "the program ended without a stop";

/// A program that runs, from its start on record to its stop.
#[derive(Debug)]
pub struct Session {
    act: Option<Act>,
    mark: PathBuf,
    /// Held as long as the program runs.
    _lock: File,
}

impl Session {
    /// Puts the program's start on record, and before it the ends of those that were killed.
    ///
    /// # Errors
    /// The log cannot be written.
    pub fn start(log: &Log, now: DateTime<Utc>) -> Result<Self, Error> {
        if segment::list(log.folder())?.is_empty() {
            let object = ParticipantObject::new(ObjectKind::AuditLog, "audit");
            let started = AuditEvent::new(EventId::SecurityAlert, now)
                .of_type(EventType::AuditRecordingStarted)
                .about(object);
            log.append(&started)?;
        }
        close_killed(log, now)?;
        let name = format!("{PREFIX}{}", hex(&keys::random::<8>()?));
        let mark = log.folder().join(name);
        let mut lock = open(&mark).map_err(io_error("creating", &mark))?;
        lock.lock().map_err(io_error("locking", &mark))?;
        let start = activity(EventType::ApplicationStart, now);
        let act = log.begin(&start).inspect_err(|_| {
            let _ = fs::remove_file(&mark);
        })?;
        lock.write_all(act.seq().to_string().as_bytes())
            .and_then(|()| lock.sync_data())
            .map_err(io_error("writing", &mark))?;
        Ok(Self {
            act: Some(act),
            mark,
            _lock: lock,
        })
    }

    /// Puts the program's stop on record.
    ///
    /// # Errors
    /// The log cannot be written.
    pub fn stop(mut self, now: DateTime<Utc>) -> Result<(), Error> {
        let act = self.act.take().expect("it is taken here and in drop alone");
        act.close(&activity(EventType::ApplicationStop, now))?;
        let _ = fs::remove_file(&self.mark);
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(act) = self.act.take() else { return };
        let now = act.now();
        let stop = activity(EventType::ApplicationStop, now);
        match act.close(&stop.failed(Outcome::SeriousFailure, UNKNOWN)) {
            Ok(_) => drop(fs::remove_file(&self.mark)),
            Err(error) => tracing::error!(%error, "the program's end could not be put on record"),
        }
    }
}

const PREFIX: &str = "running-";

fn activity(kind: EventType, now: DateTime<Utc>) -> AuditEvent {
    AuditEvent::new(EventId::ApplicationActivity, now).of_type(kind)
}

fn open(mark: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(mark)
}

/// Puts on record which programs ended without a stop.
fn close_killed(log: &Log, now: DateTime<Utc>) -> Result<(), Error> {
    let entries = fs::read_dir(log.folder()).map_err(io_error("reading", log.folder()))?;
    for entry in entries {
        let mark = entry.map_err(io_error("reading", log.folder()))?.path();
        let ours = mark.file_name().and_then(|name| name.to_str());
        if !ours.is_some_and(|name| name.starts_with(PREFIX)) {
            continue;
        }
        let mut file = match OpenOptions::new().read(true).write(true).open(&mark) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(e) => return Err(io_error("opening", &mark)(e)),
        };
        // A program that runs holds it; one that was faster than this one has removed it.
        if file.try_lock().is_err() || !mark.exists() {
            continue;
        }
        let mut text = String::new();
        let read = Read::by_ref(&mut file).take(20).read_to_string(&mut text);
        // Without a number its start was never finished.
        if let Ok(start) = read
            .map_err(|_| ())
            .and_then(|_| text.parse().map_err(|_| ()))
        {
            let stop = activity(EventType::ApplicationStop, now);
            log.put(
                &stop.failed(Outcome::SeriousFailure, KILLED),
                Part::End(start),
            )?;
        }
        fs::remove_file(&mark).map_err(io_error("removing", &mark))?;
    }
    Ok(())
}
