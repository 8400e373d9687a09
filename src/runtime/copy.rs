//! Files without identity, on record: for the command line and the window.

use std::path::{Path, PathBuf};

use super::carry_out::failed;
use super::clock::now_utc;
use super::home::Home;
use super::jobs::Stop;
use crate::app::{CopyWanted, Event, JobId};
use crate::audit::{self, Act, AuditEvent, EventId, Log, ObjectKind, Outcome, ParticipantObject};
use crate::deidentify::{
    self, Key, Options, PixelWork, Redactions, Region, Report, Request, TABLE_EDITION,
    run as deidentify,
};
use crate::task::Task;

/// What most research needs: intervals, age and sex, technique, structure.
const RESEARCH: &str = "modify-dates,retain-patient-characteristics,clean-descriptors,\
    clean-structured-content,clean-graphics,retain-safe-private";

/// What a copy is made of and how.
#[derive(Clone, Debug, Default)]
pub struct CopyRequest {
    /// Files, folders or archives.
    pub inputs: Vec<PathBuf>,
    /// Folder to write.
    pub out: PathBuf,
    /// `basic`, `research`, or options with commas.
    pub profile: String,
    /// Whether files whose pixels may show text about a person are written as they are.
    pub allow_burned_in: bool,
    /// A list of regions to blacken.
    pub redact: Option<PathBuf>,
    /// What a person has drawn, beside the list.
    pub drawn: Redactions,
    /// What looks like text in the pixels is blackened.
    pub redact_found: bool,
    /// Faces are taken out of heads.
    pub deface: bool,
    /// A person has looked at the blackened images, and no text is left.
    pub reviewed: bool,
}

/// Why no copy was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// A name that is no option.
    #[error("{name} is no option of de-identification, or contradicts another; known: {}", Options::NAMES.join(", "))]
    Option {
        /// The name.
        name: String,
    },
    /// The work.
    #[error(transparent)]
    Deidentify(#[from] deidentify::Error),
    /// The log.
    #[error(transparent)]
    Audit(#[from] audit::Error),
}

/// Options by their names.
fn options(profile: &str) -> Result<Options, CopyError> {
    let mut options = Options::default();
    let names = profile
        .split(',')
        .map(str::trim)
        .flat_map(|name| if name == "research" { RESEARCH } else { name }.split(','))
        .filter(|name| !matches!(*name, "" | "basic"));
    for name in names {
        if !options.set(name) {
            let name = name.to_owned();
            return Err(CopyError::Option { name });
        }
    }
    Ok(options)
}

/// Writes the copy between its beginning and its end on record.
///
/// # Errors
/// [`CopyError`]; single files that are not written stand in the report.
pub fn copy_without_identity(
    home: &Home,
    wanted: &CopyRequest,
    task: &Task,
) -> Result<Report, CopyError> {
    let options = options(&wanted.profile)?;
    let redactions = wanted.redact.as_deref().map(Redactions::read);
    let pixel_work = PixelWork {
        redactions: redactions
            .transpose()?
            .unwrap_or_default()
            .and(wanted.drawn.clone()),
        redact_found: wanted.redact_found,
        deface: wanted.deface,
        reviewed: wanted.reviewed,
    };
    let key = Key::open(home.root())?;
    let log = Log::open(home.root())?;
    let codes: Vec<&str> = options.codes().iter().map(|(code, _)| *code).collect();
    let codes = codes.join(" ");
    // On record before the first byte is written; the outcome follows as a second record.
    let act = log.begin(&event(wanted, &codes))?;
    let request = Request {
        inputs: &wanted.inputs,
        out: &wanted.out,
        options,
        allow_burned_in: wanted.allow_burned_in,
        pixel_work,
        key: &key,
    };
    let done = deidentify(&request, &act, task);
    close(act, event(wanted, &codes), done)
}

fn event(wanted: &CopyRequest, codes: &str) -> AuditEvent {
    let mut event = AuditEvent::new(EventId::Export, now_utc());
    for input in &wanted.inputs {
        event = event.about(ParticipantObject::file(input).with("role", "source"));
    }
    let burned_in = if wanted.allow_burned_in {
        "allow"
    } else {
        "hold"
    };
    event.about(
        ParticipantObject::file(&wanted.out)
            .with("role", "destination")
            .with("anonymized", true)
            .with("method", codes)
            .with("table", TABLE_EDITION)
            .with("burned_in", burned_in)
            .with("redact_list", wanted.redact.is_some())
            .with("redact_drawn", !wanted.drawn.is_empty())
            .with("redact_found", wanted.redact_found)
            .with("deface", wanted.deface)
            .with("reviewed", wanted.reviewed),
    )
}

fn close(
    act: Act,
    after: AuditEvent,
    done: Result<Report, deidentify::Error>,
) -> Result<Report, CopyError> {
    match done {
        Ok(report) => {
            act.close(&told(after, &report))?;
            Ok(report)
        }
        Err(error) => {
            act.close(&after.failed(Outcome::SeriousFailure, "de-identification failed"))?;
            Err(error.into())
        }
    }
}

fn told(event: AuditEvent, report: &Report) -> AuditEvent {
    let mut counts = ParticipantObject::new(ObjectKind::File, "report")
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

/// What was done, in lines; then what must be known about it.
pub fn copy_words(report: &Report) -> (Vec<String>, Vec<String>) {
    let mut done = vec![format!(
        "{} files: {} written, {} already there, {} repeated, {} held back, {} refused",
        report.files,
        report.written,
        report.already_there,
        report.repeated,
        report.held_back.len(),
        report.refused.len()
    )];
    if !report.redacted.is_empty() {
        done.push(format!(
            "blackened regions in {} files",
            report.redacted.len()
        ));
    }
    if report.defaced > 0 {
        done.push(format!("faces taken out of {} files", report.defaced));
    }
    let mut doubts = Vec::new();
    for (what, lines) in [
        ("held back", &report.held_back),
        ("refused", &report.refused),
    ] {
        let mut reasons = std::collections::BTreeMap::<&str, usize>::new();
        for line in lines {
            *reasons.entry(&line.reason).or_default() += 1;
        }
        doubts.extend(
            reasons
                .iter()
                .map(|(reason, n)| format!("{what}: {n} × {reason}")),
        );
    }
    if !report.text_found.is_empty() {
        doubts.push(format!(
            "lines that look like text in {} files; the report names them",
            report.text_found.len()
        ));
    }
    let more = report
        .doubts
        .iter()
        .map(|(what, n)| format!("doubt: {n} × {what}"));
    doubts.extend(more);
    doubts.extend(
        report
            .residual_risk
            .iter()
            .map(|risk| format!("remains: {risk}")),
    );
    (done, doubts)
}

/// What was drawn on an image, for all images of its size.
fn drawn(wanted: &CopyWanted) -> Redactions {
    let size = wanted.drawn_on.map(u16::try_from);
    let [Ok(columns), Ok(rows)] = size else {
        // DICOM has no images of more rows or columns.
        return Redactions::default();
    };
    let regions = wanted.regions.iter();
    let regions = regions.map(|r| Region::from([r.x, r.y, r.width, r.height]));
    Redactions::for_size(rows, columns, regions.collect())
}

/// The window's copy.
pub(super) fn copy_for_window(
    home: &Home,
    job: JobId,
    inputs: Vec<PathBuf>,
    wanted: &CopyWanted,
    task: &Task,
) -> Result<Event, Stop> {
    let request = CopyRequest {
        inputs,
        out: wanted.folder.clone().unwrap_or_default(),
        profile: if wanted.for_research {
            "research"
        } else {
            "basic"
        }
        .to_owned(),
        drawn: drawn(wanted),
        redact_found: wanted.redact_found,
        deface: wanted.deface,
        reviewed: wanted.reviewed,
        ..CopyRequest::default()
    };
    let report = match copy_without_identity(home, &request, task) {
        Ok(report) => report,
        Err(_) if task.is_cancelled() => return Err(Stop::Cancelled),
        Err(error) => {
            return Err(failed(
                "The copy was not written",
                "The originals are not changed. What was written already has no identity; writing again goes on.",
                &error,
            ));
        }
    };
    let (mut done, doubts) = copy_words(&report);
    done.push(format!("in {}", Path::display(&request.out)));
    Ok(Event::Copied { job, done, doubts })
}
