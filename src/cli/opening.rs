//! Opening one volume for a subcommand: on record, with what a person should know about the choice.

use std::path::Path;

use crate::audit::{Act, AuditEvent, EventId, Log, Outcome, ParticipantObject};
use crate::runtime::{Home, about_volume, now_utc, pick_volume};
use crate::task::Task;
use crate::volume::Volume;

/// A volume that a subcommand works on.
pub(super) struct OpenedVolume {
    pub(super) volume: Volume,
    notes: Vec<String>,
}

impl OpenedVolume {
    /// Says on standard error what was chosen and what is doubtful.
    pub(super) fn tell(&self) {
        for note in &self.notes {
            eprintln!("negatoscope: {note}");
        }
        for issue in &self.volume.issues {
            eprintln!("negatoscope: doubt: {issue}");
        }
    }
}

/// Loads the series `uid`, or the largest one below `path`; the access is on record before.
pub(super) fn open_one(
    home: &Home,
    path: &Path,
    uid: Option<&str>,
    task: &Task,
) -> anyhow::Result<OpenedVolume> {
    let access = AuditEvent::new(EventId::DicomInstancesAccessed, now_utc())
        .about(ParticipantObject::file(path));
    Log::open(home.root())?.append(&access)?;
    let picked = pick_volume(path, uid, task)?;
    Ok(OpenedVolume {
        volume: picked.volume,
        notes: picked.notes,
    })
}

/// Puts on record that images of a volume are about to go into a file; the caller tells how it ended.
pub(super) fn record_export(
    home: &Home,
    volume: &Volume,
    from: &Path,
    to: &Path,
) -> anyhow::Result<Act> {
    let event = about_volume(AuditEvent::new(EventId::Export, now_utc()), volume)
        .about(ParticipantObject::file(from).with("role", "source"))
        .about(ParticipantObject::file(to).with("role", "destination"));
    Ok(Log::open(home.root())?.begin(&event)?)
}

/// Puts on record how an act ended, without the words of its error, which may name a file.
pub(super) fn closed<T, E>(act: Act, ended: Result<T, E>) -> anyhow::Result<T>
where
    E: Into<anyhow::Error>,
{
    match ended {
        Ok(done) => {
            act.done(now_utc())?;
            Ok(done)
        }
        Err(error) => {
            act.failed(now_utc(), Outcome::SeriousFailure, "writing failed")?;
            Err(error.into())
        }
    }
}
