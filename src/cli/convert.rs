//! `negatoscope convert`: a series as NIfTI, in modality values.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;

use super::progress::ProgressLine;
use super::{Ending, opening};
use crate::nifti;
use crate::runtime::Home;
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
    let out = &arguments.out;
    let name = out.to_string_lossy().to_lowercase();
    let unpacked = Path::new(name.strip_suffix(".gz").unwrap_or(&name));
    if unpacked.extension().is_none_or(|e| e != "nii") {
        bail!(
            "the file to write must end in .nii or .nii.gz: {}",
            out.display()
        );
    }
    let task = Arc::new(Task::new());
    let line = ProgressLine::start(&task);
    let opened = opening::open_one(home, &arguments.path, arguments.series.as_deref(), &task)?;
    let act = opening::record_export(home, &opened.volume, &arguments.path, out)?;
    task.begin("Writing", 0);
    opening::closed(act, nifti::write_volume(out, &opened.volume))?;
    drop(line);
    opened.tell();
    eprintln!("{}", out.display());
    Ok(Ending::Done)
}
