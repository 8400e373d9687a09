//! `negatoscope deidentify`: files without identity, and a report of what was done.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::ValueEnum;

use super::Ending;
use super::progress::ProgressLine;
use crate::audit::{AuditEvent, EventId, Log, Outcome, ParticipantObject};
use crate::deidentify::{
    Key, Options, PixelWork, Redactions, Report, Request, TABLE_EDITION, run as deidentify,
};
use crate::runtime::{Home, now_utc};
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

/// What most research needs: intervals, age and sex, technique, structure.
const RESEARCH: &str = "modify-dates,retain-patient-characteristics,clean-descriptors,\
    clean-structured-content,clean-graphics,retain-safe-private";

pub fn run(home: &Home, arguments: &Arguments) -> anyhow::Result<Ending> {
    let options = options(&arguments.profile)?;
    let redactions = arguments.redact.as_deref().map(Redactions::read);
    let pixel_work = PixelWork {
        redactions: redactions.transpose()?.unwrap_or_default(),
        redact_found: arguments.redact_found,
        deface: arguments.deface,
        reviewed: arguments.reviewed,
    };
    let key = Key::open(home.root())?;
    let log = Log::open(home.root())?;
    let about = |mut event: AuditEvent| {
        for input in &arguments.inputs {
            event = event.about(ParticipantObject::file(input).with("role", "source"));
        }
        let codes: Vec<&str> = options.codes().iter().map(|(code, _)| *code).collect();
        event.about(
            ParticipantObject::file(&arguments.out)
                .with("role", "destination")
                .with("anonymized", true)
                .with("method", codes.join(" "))
                .with("table", TABLE_EDITION)
                .with(
                    "burned_in",
                    format!("{:?}", arguments.burned_in).to_lowercase(),
                )
                .with("redact_list", arguments.redact.is_some())
                .with("redact_found", arguments.redact_found)
                .with("deface", arguments.deface)
                .with("reviewed", arguments.reviewed),
        )
    };
    // On record before the first byte is written; the outcome follows as a second record.
    let act = log.begin(&about(AuditEvent::new(EventId::Export, now_utc())))?;
    let task = Arc::new(Task::new());
    let line = ProgressLine::start(&task);
    let request = Request {
        inputs: &arguments.inputs,
        out: &arguments.out,
        options,
        allow_burned_in: arguments.burned_in == BurnedIn::Allow,
        pixel_work,
        key: &key,
    };
    let done = deidentify(&request, &act, &task);
    drop(line);
    let after = about(AuditEvent::new(EventId::Export, now_utc()));
    let report = match done {
        Ok(report) => report,
        Err(error) => {
            act.close(&after.failed(Outcome::SeriousFailure, "de-identification failed"))?;
            return Err(error.into());
        }
    };
    act.close(&told(after, &report))?;
    if let Some(path) = &arguments.report {
        let text = serde_json::to_vec_pretty(&report)?;
        whole_file::write(path, |w| w.write_all(&text))
            .with_context(|| format!("the report cannot be written: {}", path.display()))?;
    }
    if arguments.json {
        super::print::say_json(&serde_json::to_value(&report)?)?;
    } else {
        tell(&report);
    }
    Ok(if report.present() == 0 {
        Ending::Nothing
    } else if report.held_back.is_empty() && report.refused.is_empty() {
        Ending::Done
    } else {
        Ending::Partly
    })
}

fn options(profile: &str) -> anyhow::Result<Options> {
    let mut options = Options::default();
    let names = profile
        .split(',')
        .map(str::trim)
        .flat_map(|name| if name == "research" { RESEARCH } else { name }.split(','))
        .filter(|name| !matches!(*name, "" | "basic"));
    for name in names {
        if !options.set(name) {
            bail!(
                "{name} is no option of de-identification, or contradicts another; known: {}",
                Options::NAMES.join(", ")
            );
        }
    }
    Ok(options)
}

fn told(event: AuditEvent, report: &Report) -> AuditEvent {
    let mut counts = ParticipantObject::new(crate::audit::ObjectKind::File, "report")
        .with("written", report.written)
        .with("already_there", report.already_there)
        .with("held_back", report.held_back.len())
        .with("refused", report.refused.len())
        .with("redacted", report.redacted.len())
        .with("defaced", report.defaced)
        .with("studies", report.studies);
    for (what, count) in &report.attributes {
        counts = counts.with(what, count);
    }
    let event = event.about(counts);
    if report.present() == 0 && report.files > 0 {
        event.failed(Outcome::MinorFailure, "no file could be written")
    } else {
        event
    }
}

fn tell(report: &Report) {
    eprintln!(
        "{} files: {} written, {} already there, {} repeated, {} held back, {} refused",
        report.files,
        report.written,
        report.already_there,
        report.repeated,
        report.held_back.len(),
        report.refused.len()
    );
    for (what, lines) in [
        ("held back", &report.held_back),
        ("refused", &report.refused),
    ] {
        let mut reasons = std::collections::BTreeMap::<&str, usize>::new();
        for line in lines {
            *reasons.entry(&line.reason).or_default() += 1;
        }
        for (reason, count) in reasons {
            eprintln!("negatoscope: {what}: {count} × {reason}");
        }
    }
    if !report.redacted.is_empty() {
        eprintln!(
            "negatoscope: blackened regions in {} files",
            report.redacted.len()
        );
    }
    if report.defaced > 0 {
        eprintln!("negatoscope: faces taken out of {} files", report.defaced);
    }
    if !report.text_found.is_empty() {
        eprintln!(
            "negatoscope: lines that look like text in {} files; --report names them",
            report.text_found.len()
        );
    }
    for (what, count) in &report.doubts {
        eprintln!("negatoscope: doubt: {count} × {what}");
    }
    for risk in &report.residual_risk {
        eprintln!("negatoscope: remains: {risk}");
    }
}
