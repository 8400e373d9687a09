//! `negatoscope convert`: a series as NIfTI, in modality values.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;

use super::Ending;
use super::progress::ProgressLine;
use crate::audit::{AuditEvent, EventId, Log, ParticipantObject};
use crate::nifti;
use crate::runtime::{Home, about_volume, now_utc, pick_volume};
use crate::task::Task;

#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// File, folder or ZIP archive.
    path: PathBuf,
    /// File to write: `.nii` or `.nii.gz`.
    #[arg(long, value_name = "F.nii.gz")]
    out: PathBuf,
    /// Series Instance UID, when there are several.
    #[arg(long, value_name = "UID")]
    series: Option<String>,
}

pub fn run(home: &Home, arguments: &Arguments) -> anyhow::Result<Ending> {
    let task = Arc::new(Task::new());
    let line = ProgressLine::start(&task);
    let picked = pick_volume(&arguments.path, arguments.series.as_deref(), &task)?;
    let log = Log::open(home.root())?;
    let event =
        AuditEvent::new(EventId::Export, now_utc()).about(ParticipantObject::file(&arguments.out));
    let _receipt = log.append(&about_volume(event, &picked.volume))?;
    nifti::write_volume(&arguments.out, &picked.volume)
        .with_context(|| format!("could not write {}", arguments.out.display()))?;
    drop(line);
    for note in picked.notes {
        eprintln!("negatoscope: {note}");
    }
    for issue in &picked.volume.issues {
        eprintln!("negatoscope: doubt: {issue}");
    }
    eprintln!("{}", arguments.out.display());
    Ok(Ending::Done)
}
