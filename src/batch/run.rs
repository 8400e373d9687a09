//! The run: one series is read ahead while another is inferred; each result is kept as it ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use super::journal::{Entry, Journal};
use super::plan::{Item, ItemSource, Plan, items};
use super::report;
use crate::audit::{self, AuditEvent, EventId, ParticipantObject};
use crate::export::Format;
use crate::runtime::{
    ExportError, Home, LoadError, LoadedModel, RunError, about_volume, export_to, index_paths,
    load_stack, now_utc,
};
use crate::task::{Cancelled, Task};
use crate::volume::Volume;

/// Why a batch could not start or had to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// As asked, before anything was run.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The model.
    #[error(transparent)]
    Model(#[from] RunError),
    /// The folder for results.
    #[error("the results folder cannot be used: {path}")]
    Output {
        /// What the system said.
        #[source]
        source: std::io::Error,
        /// The folder.
        path: PathBuf,
    },
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] audit::Error),
}

/// State of one series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Waiting.
    Waiting,
    /// Being read or inferred.
    Running,
    /// Results are kept.
    Done,
    /// Could not be done.
    Failed,
    /// Not suited.
    Skipped,
}

impl Status {
    /// As written in tables.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// `Item::key`.
    pub key: String,
    /// Name for people.
    pub title: String,
    /// State.
    pub status: Status,
    /// Why it failed or was skipped; "finished earlier" for resumed ones.
    pub reason: String,
    /// Seconds of the run.
    pub seconds: f64,
    /// Segment name and mL.
    pub volumes_ml: Vec<(String, f64)>,
    /// The series' files.
    pub inputs: Vec<PathBuf>,
    /// Folder of its results.
    pub results: PathBuf,
}

/// How a batch ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Results are there (of this run or an earlier one).
    pub done: usize,
    /// Could not be done.
    pub failed: usize,
    /// Not suited.
    pub skipped: usize,
    /// Stopped as asked before the end.
    pub cancelled: bool,
    /// Files that are no images.
    pub unreadable: usize,
}

impl Summary {
    /// "12 done, 1 failed, 3 not suited".
    pub fn words(&self) -> String {
        let stopped = if self.cancelled {
            "; stopped, resume to go on"
        } else {
            ""
        };
        format!(
            "{} done, {} failed, {} not suited{stopped}",
            self.done, self.failed, self.skipped
        )
    }
}

/// What reading ahead hands over.
struct Read {
    index: usize,
    volume: Result<Arc<Volume>, String>,
    seconds: f64,
}

/// Runs a batch; `on_row` hears every change of a row.
///
/// Memory: at most two volumes at a time, the one that is inferred and the one read ahead.
///
/// # Errors
/// [`Error`] when it cannot start. A series that fails becomes a row.
pub fn run(
    home: &Home,
    plan: &Plan,
    task: &Arc<Task>,
    mut on_row: impl FnMut(usize, &Row),
) -> Result<(Summary, Vec<Row>), Error> {
    let model = LoadedModel::open(home, &plan.model)?;
    let output = |source| Error::Output {
        source,
        path: plan.output.clone(),
    };
    std::fs::create_dir_all(&plan.output).map_err(output)?;
    let log = audit::Log::open(home.root())?;
    let (mut journal, finished) =
        Journal::open(&plan.output.join("batch-journal.jsonl")).map_err(output)?;
    task.begin("Looking for studies", 0);
    let opened = index_paths(&plan.inputs, task)?;
    let unreadable = opened.worklist.skipped.len();
    let items = items(opened, model.modality());
    let mut rows: Vec<Row> = items
        .iter()
        .map(|item| row_of(item, &plan.output))
        .collect();
    for (item, row) in items.iter().zip(&mut rows) {
        if let Some(reason) = &item.unsuited {
            row.status = Status::Skipped;
            row.reason.clone_from(reason);
        } else if let (true, Some(entry)) = (plan.resume, earlier(&finished, item, &model, plan)) {
            row.status = Status::Done;
            "finished earlier".clone_into(&mut row.reason);
            row.seconds = entry.seconds;
            row.volumes_ml.clone_from(&entry.volumes_ml);
        }
    }
    for (index, row) in rows.iter().enumerate() {
        on_row(index, row);
    }
    let waiting: Vec<usize> = rows
        .iter()
        .enumerate()
        .filter(|(_, r)| r.status == Status::Waiting)
        .map(|(n, _)| n)
        .collect();
    let started = Instant::now();
    let mut cancelled = false;
    // A channel without room: the reader holds one volume and waits with it until it is taken.
    let (sender, receiver) = sync_channel::<Read>(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let sender = sender;
            for &index in &waiting {
                let start = Instant::now();
                let volume = match read(&items[index], task) {
                    Ok(volume) => Ok(Arc::new(volume)),
                    Err(LoadError::Cancelled(_)) => return,
                    Err(error) => Err(chain(&error)),
                };
                let seconds = start.elapsed().as_secs_f64();
                if sender
                    .send(Read {
                        index,
                        volume,
                        seconds,
                    })
                    .is_err()
                {
                    return;
                }
            }
        });
        for (position, read) in receiver.iter().enumerate() {
            let index = read.index;
            rows[index].status = Status::Running;
            on_row(index, &rows[index]);
            let left = time_left(started, position, waiting.len());
            let step = Arc::new(Task::new());
            let over = std::sync::atomic::AtomicBool::new(false);
            let outcome = std::thread::scope(|inner| {
                // The batch's task is what is cancelled and watched; the model reports to its own.
                let watched = Arc::clone(&step);
                let (over, title) = (&over, rows[index].title.clone());
                let total = waiting.len();
                inner.spawn(move || {
                    while !over.load(std::sync::atomic::Ordering::Relaxed) {
                        if task.is_cancelled() {
                            watched.cancel();
                        }
                        let p = watched.progress();
                        let part = p.fraction().unwrap_or(0.0);
                        let phase =
                            format!("{} of {total}: {title}  {}{left}", position + 1, p.phase);
                        task.begin(&phase, total * 1000);
                        task.report(position * 1000 + (part * 1000.0) as usize, total * 1000);
                        std::thread::sleep(std::time::Duration::from_millis(50));
                    }
                });
                let outcome = read
                    .volume
                    .map_err(Failure::Reason)
                    .and_then(|volume| one(&model, &log, plan, &rows[index], &volume, &step));
                over.store(true, std::sync::atomic::Ordering::Relaxed);
                outcome
            });
            let row = &mut rows[index];
            match outcome {
                Ok((seconds, volumes_ml)) => {
                    row.status = Status::Done;
                    row.seconds = read.seconds + seconds;
                    row.volumes_ml = volumes_ml;
                }
                Err(Failure::Cancelled) => {
                    row.status = Status::Waiting;
                    cancelled = true;
                }
                Err(Failure::Reason(reason)) => {
                    row.status = Status::Failed;
                    row.reason = reason;
                }
            }
            if row.status != Status::Waiting
                && let Err(error) = journal.append(&entry_of(row, &model, plan))
            {
                tracing::error!(%error, "the journal could not be written: resuming would run this series again");
            }
            on_row(index, &rows[index]);
            if cancelled {
                break;
            }
        }
        // Lets a reader that waits with a volume go.
        drop(receiver);
    });
    cancelled |= task.is_cancelled();
    let count = |status| rows.iter().filter(|r| r.status == status).count();
    let summary = Summary {
        done: count(Status::Done),
        failed: count(Status::Failed),
        skipped: count(Status::Skipped),
        cancelled,
        unreadable,
    };
    report::write(&plan.output, &model.key(), &rows, &summary).map_err(output)?;
    Ok((summary, rows))
}

enum Failure {
    Cancelled,
    Reason(String),
}

/// Inference and export of one series.
fn one(
    model: &LoadedModel,
    log: &audit::Log,
    plan: &Plan,
    row: &Row,
    volume: &Arc<Volume>,
    task: &Task,
) -> Result<(f64, Vec<(String, f64)>), Failure> {
    let reason = |error: &dyn std::error::Error| Failure::Reason(chain(error));
    let start = Instant::now();
    let event = |kind| about_volume(AuditEvent::new(kind, now_utc()), volume);
    let subject = ParticipantObject::model(&model.key(), model.sha256());
    log.append(&event(EventId::DicomInstancesAccessed))
        .map_err(|e| reason(&e))?;
    log.append(&event(EventId::ModelRun).about(subject))
        .map_err(|e| reason(&e))?;
    let (segmentation, statistics) = match model.run(volume, task) {
        Ok(found) => found,
        Err(RunError::Cancelled(_)) => return Err(Failure::Cancelled),
        Err(error) => return Err(reason(&error)),
    };
    let release = event(EventId::Export).about(ParticipantObject::file(&row.results));
    let receipt = log.append(&release).map_err(|e| reason(&e))?;
    export_to(&segmentation, volume, &plan.formats, &row.results, &receipt)
        .map_err(|error: ExportError| reason(&error))?;
    let volumes_ml = statistics
        .iter()
        .filter_map(|s| {
            let segment = segmentation.segments.iter().find(|g| g.label == s.label)?;
            Some((segment.name.clone(), s.volume_ml))
        })
        .collect();
    Ok((start.elapsed().as_secs_f64(), volumes_ml))
}

fn read(item: &Item, task: &Task) -> Result<Volume, LoadError> {
    match &item.source {
        ItemSource::Stack { headers, stack } => {
            let (patient, study, series) = headers.as_ref();
            // A task of its own: reading ahead must not overwrite the progress that is shown.
            let own = Task::new();
            if task.is_cancelled() {
                own.cancel();
            }
            load_stack(patient, study, series, *stack, &own)
        }
        ItemSource::File(path) => crate::runtime::load_file(path, &Task::new()),
    }
}

fn row_of(item: &Item, output: &Path) -> Row {
    Row {
        key: item.key.clone(),
        title: item.title.clone(),
        status: Status::Waiting,
        reason: String::new(),
        seconds: 0.0,
        volumes_ml: Vec::new(),
        inputs: item.inputs(),
        results: output.join(&item.key),
    }
}

fn entry_of(row: &Row, model: &LoadedModel, plan: &Plan) -> Entry {
    Entry {
        key: row.key.clone(),
        model: model.key(),
        model_sha256: model.sha256().to_owned(),
        formats: plan.formats.iter().map(|f| f.name().to_owned()).collect(),
        status: row.status.word().to_owned(),
        reason: row.reason.clone(),
        seconds: row.seconds,
        volumes_ml: row.volumes_ml.clone(),
    }
}

/// The entry of an item that needs no second run: same model, same forms, results still there.
fn earlier<'a>(
    finished: &'a [Entry],
    item: &Item,
    model: &LoadedModel,
    plan: &Plan,
) -> Option<&'a Entry> {
    let entry = finished.iter().rev().find(|e| e.key == item.key)?;
    let same = entry.status == "done"
        && entry.model == model.key()
        && entry.model_sha256 == model.sha256()
        && plan
            .formats
            .iter()
            .all(|f| entry.formats.iter().any(|e| e == f.name()));
    let folder = plan.output.join(&item.key);
    let there = !plan.formats.contains(&Format::Json) || folder.join("result.json").is_file();
    (same && there && folder.is_dir()).then_some(entry)
}

fn time_left(started: Instant, finished: usize, total: usize) -> String {
    if finished == 0 {
        return String::new();
    }
    let per_item = started.elapsed().as_secs_f64() / finished as f64;
    let seconds = (per_item * (total - finished) as f64).round() as u64;
    let words = if seconds < 60 {
        format!("{seconds} s")
    } else {
        format!("{} min", seconds.div_ceil(60))
    };
    format!(", about {words} left")
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
