//! `negatoscope deidentify`: files without identity, and a report of what was done.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::ValueEnum;

use super::Ending;
use super::progress::ProgressLine;
use crate::runtime::{CopyRequest, Home, copy_without_identity, copy_words};
use crate::task::Task;
use crate::whole_file;

#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Files, folders or ZIP archives.
    #[arg(required = true, value_name = "IN")]
    inputs: Vec<PathBuf>,
    /// Folder to write; files in it are named by new UIDs.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// `basic`, `research`, or options with commas: retain-dates, modify-dates, retain-uids, retain-device,
    /// retain-institution, retain-patient-characteristics, clean-descriptors, clean-structured-content,
    /// clean-graphics, retain-safe-private.
    #[arg(long, value_name = "NAMES", default_value = "basic")]
    profile: String,
    /// What becomes of files whose pixels may show text about a person.
    #[arg(long, value_enum, default_value = "hold")]
    burned_in: BurnedIn,
    /// Blacken regions of the pixels: a JSON list of rectangles by kind of image or file.
    #[arg(long, value_name = "LIST.json")]
    redact: Option<PathBuf>,
    /// Blacken what looks like text in the pixels; files of a risky kind still wait for --reviewed.
    #[arg(long)]
    redact_found: bool,
    /// Take faces out of CT and MR of heads; a head whose face cannot be found is not written.
    #[arg(long)]
    deface: bool,
    /// I have looked at the blackened images and no text is left: they say Burned In Annotation NO.
    #[arg(long)]
    reviewed: bool,
    /// Write the report to a file, as JSON.
    #[arg(long, value_name = "R.json")]
    report: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// See `--burned-in`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum BurnedIn {
    /// They are not written.
    Hold,
    /// They are written as they are.
    Allow,
}

pub fn run(home: &Home, arguments: &Arguments) -> anyhow::Result<Ending> {
    let wanted = CopyRequest {
        inputs: arguments.inputs.clone(),
        out: arguments.out.clone(),
        profile: arguments.profile.clone(),
        allow_burned_in: arguments.burned_in == BurnedIn::Allow,
        redact: arguments.redact.clone(),
        redact_found: arguments.redact_found,
        deface: arguments.deface,
        reviewed: arguments.reviewed,
        ..CopyRequest::default()
    };
    let task = Arc::new(Task::new());
    let line = ProgressLine::start(&task);
    let done = copy_without_identity(home, &wanted, &task);
    drop(line);
    let report = done?;
    if let Some(path) = &arguments.report {
        let text = serde_json::to_vec_pretty(&report)?;
        whole_file::write(path, |w| w.write_all(&text))
            .with_context(|| format!("the report cannot be written: {}", path.display()))?;
    }
    if arguments.json {
        super::print::say_json(&serde_json::to_value(&report)?)?;
    } else {
        let (done, doubts) = copy_words(&report);
        for line in done {
            eprintln!("{line}");
        }
        for line in doubts {
            eprintln!("negatoscope: {line}");
        }
    }
    Ok(if report.present() == 0 {
        Ending::Nothing
    } else if report.held_back.is_empty() && report.refused.is_empty() {
        Ending::Done
    } else {
        Ending::Partly
    })
}
