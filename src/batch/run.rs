//! The run: one series is read ahead while another is inferred; each result is kept as it ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::engine::{Engine, Failure, ModelIdentity};
use super::journal::{Entry, Journal};
use super::left::TimeLeft;
use super::plan::{FEWEST_SLICES, Item, ItemSource, Plan, items};
use super::report;
use crate::audit::{Act, AuditEvent, EventId, Log, Outcome, ParticipantObject};
use crate::export::{self, Format};
use crate::findings::{Assessment, Call};
use crate::task::{Cancelled, Task};
use crate::volume::{Layout, Volume};

/// Why a batch could not start or could not keep its table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// As asked, before anything was run.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The folder for results.
    #[error("the results folder cannot be used: {path}")]
    Output {
        /// What the system said.
        #[source]
        source: std::io::Error,
        /// The folder.
        path: PathBuf,
    },
}

/// State of one series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not run yet.
    Waiting,
    /// Being inferred.
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
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// [`Item::key`].
    pub key: String,
    /// Name for people.
    pub title: String,
    /// State.
    pub status: Status,
    /// Why it failed or was skipped; for finished ones what a person should know.
    pub reason: String,
    /// Seconds of the run.
    pub seconds: f64,
    /// Segment name and mL, also of segments without a voxel.
    pub volumes_ml: Vec<(String, f64)>,
    /// Finding, probability and call (of several images the highest of each).
    pub findings: Vec<(String, f64, String)>,
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
    /// Files that could not be read or hold no images.
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

/// Runs a batch; `on_row` hears every change of a row.
///
/// Memory: at most two volumes at a time, the one that is inferred and the one read ahead; the
/// second is read only when it fits beside the first and its run.
///
/// # Errors
/// [`Error`] when it cannot start or cannot write its table. A series that fails becomes a row.
pub fn run(
    engine: &impl Engine,
    log: &Log,
    plan: &Plan,
    task: &Task,
    mut on_row: impl FnMut(usize, &Row),
) -> Result<(Summary, Vec<Row>), Error> {
    let mut prepared = Prepared::new(engine, plan, task, &mut on_row)?;
    let mut batch = Batch {
        engine,
        log,
        plan,
        model: prepared.model.clone(),
        items: &prepared.items,
    };
    let cancelled = batch.run_waiting(task, &mut prepared.journal, &mut prepared.rows, &mut on_row);
    prepared.end(plan, cancelled)
}

/// What a batch has when it begins: its series, and which of them are finished.
pub(super) struct Prepared {
    pub(super) model: ModelIdentity,
    pub(super) items: Vec<Item>,
    pub(super) rows: Vec<Row>,
    pub(super) journal: Journal,
    unreadable: usize,
}

fn output(plan: &Plan) -> impl Fn(std::io::Error) -> Error {
    |source| Error::Output {
        source,
        path: plan.output.clone(),
    }
}

impl Prepared {
    pub(super) fn new(
        engine: &dyn Engine,
        plan: &Plan,
        task: &Task,
        on_row: &mut impl FnMut(usize, &Row),
    ) -> Result<Self, Error> {
        std::fs::create_dir_all(&plan.output).map_err(output(plan))?;
        let (journal, finished) =
            Journal::open(&plan.output.join("batch-journal.jsonl")).map_err(output(plan))?;
        let model = engine.model();
        task.begin("Looking for studies", 0);
        let (worklist, files) = engine.index(&plan.inputs, task)?;
        let unreadable = worklist.skipped.len();
        let items = items(worklist, files, &model, plan);
        let mut rows: Vec<Row> = items.iter().map(|item| row_of(item, plan)).collect();
        for (item, row) in items.iter().zip(&mut rows) {
            if let Some(reason) = &item.unsuited {
                row.status = Status::Skipped;
                row.reason.clone_from(reason);
            } else if plan.resume
                && let Some(entry) = earlier(&finished, item, &model, plan, &row.results)
            {
                row.status = Status::Done;
                "finished earlier".clone_into(&mut row.reason);
                row.seconds = entry.seconds;
                row.volumes_ml.clone_from(&entry.volumes_ml);
                row.findings.clone_from(&entry.findings);
            }
        }
        for (index, row) in rows.iter().enumerate() {
            on_row(index, row);
        }
        Ok(Self {
            model,
            items,
            rows,
            journal,
            unreadable,
        })
    }

    /// Writes the table.
    pub(super) fn end(self, plan: &Plan, cancelled: bool) -> Result<(Summary, Vec<Row>), Error> {
        let count = |status| self.rows.iter().filter(|r| r.status == status).count();
        let summary = Summary {
            done: count(Status::Done),
            failed: count(Status::Failed),
            skipped: count(Status::Skipped),
            cancelled,
            unreadable: self.unreadable,
        };
        report::write(&plan.output, &self.model.key, &self.rows, &summary).map_err(output(plan))?;
        Ok((summary, self.rows))
    }
}

/// What does not change while a batch runs.
pub(super) struct Batch<'a, E: ?Sized> {
    pub(super) engine: &'a E,
    pub(super) log: &'a Log,
    pub(super) plan: &'a Plan,
    pub(super) model: ModelIdentity,
    pub(super) items: &'a [Item],
}

/// An item's volumes that were read ahead, or why not.
struct Read {
    index: usize,
    volumes: Result<Vec<Volume>, Failure>,
    seconds: f64,
}

/// What one series gave.
#[derive(Default)]
pub(super) struct Kept {
    volumes_ml: Vec<(String, f64)>,
    findings: Vec<(String, f64, String)>,
    files: Vec<String>,
    note: String,
}

impl<E: Engine + ?Sized> Batch<'_, E> {
    /// Runs every waiting row; `true` when it was cancelled, or its engine could not go on.
    fn run_waiting(
        &mut self,
        task: &Task,
        journal: &mut Journal,
        rows: &mut [Row],
        on_row: &mut impl FnMut(usize, &Row),
    ) -> bool {
        let waiting: Vec<usize> = (0..rows.len())
            .filter(|&n| rows[n].status == Status::Waiting)
            .collect();
        let mut left = TimeLeft::new(waiting.iter().map(|&n| self.items[n].voxels()));
        let started = Instant::now();
        let watch = Watch::new(waiting.len());
        // Without room in the channel: the reader holds one volume until it is taken.
        let (volumes, read) = sync_channel::<Read>(0);
        let (go, allowed) = sync_channel::<u64>(1);
        let mut given_back = false;
        std::thread::scope(|scope| {
            // Ends the watcher also when something below panics.
            let _over = Over(&watch.over);
            scope.spawn(|| watch.follow(task));
            let (engine, log, items) = (self.engine, self.log, self.items);
            let (watch, waiting) = (&watch, &waiting);
            scope.spawn(move || read_ahead(engine, log, items, waiting, watch, volumes, &allowed));
            for (position, read) in read.iter().enumerate() {
                let index = read.index;
                let step = watch.next(position, &rows[index].title, &left.words(secs(started)));
                watch.show(task);
                if !matches!(read.volumes, Err(Failure::Cancelled)) {
                    rows[index].status = Status::Running;
                    on_row(index, &rows[index]);
                }
                let needed = read.volumes.as_ref().map_or(0, |v| engine.needed_bytes(v));
                // The reader goes on; when the channel is full it has not started yet anyway.
                let _ = go.try_send(needed);
                let start = Instant::now();
                let outcome = read
                    .volumes
                    .and_then(|volumes| guarded(|| self.one(index, &rows[index], &volumes, &step)));
                watch.run_ended();
                let row = &mut rows[index];
                row.seconds = read.seconds + secs(start);
                left.finished(self.items[index].voxels());
                if !self.ended(row, index, outcome, journal) {
                    on_row(index, row);
                    given_back = true;
                    break;
                }
                on_row(index, row);
                if task.is_cancelled() {
                    break;
                }
            }
            // Lets a reader that waits go.
            watch.reading.cancel();
            drop(read);
            drop(go);
        });
        given_back || task.is_cancelled()
    }

    /// Puts into a row and the journal how its series ended; `false` when it was cancelled.
    pub(super) fn ended(
        &self,
        row: &mut Row,
        index: usize,
        outcome: Result<Kept, Failure>,
        journal: &mut Journal,
    ) -> bool {
        let files = match outcome {
            Ok(kept) => {
                row.status = Status::Done;
                row.volumes_ml = kept.volumes_ml;
                row.findings = kept.findings;
                row.reason = kept.note;
                kept.files
            }
            Err(Failure::Cancelled) => {
                row.status = Status::Waiting;
                return false;
            }
            Err(Failure::Reason(reason)) => {
                row.status = Status::Failed;
                row.reason = reason;
                Vec::new()
            }
        };
        if let Err(error) = journal.append(&self.entry(row, index, files)) {
            tracing::error!(%error, "the journal could not be written: resuming would run this series again");
        }
        true
    }

    /// Inference and export of one series.
    pub(super) fn one(
        &self,
        index: usize,
        row: &Row,
        volumes: &[Volume],
        task: &Task,
    ) -> Result<Kept, Failure> {
        if self.model.classifies {
            return self.assessed(index, row, &volumes[0], task);
        }
        for volume in volumes.iter().filter(|_| !self.model.plain_images) {
            let [.., slices] = volume.geometry.dims();
            if volume.layout != Layout::Volumetric || slices < FEWEST_SLICES {
                return Err(Failure::Reason(format!(
                    "{slices} slices, a volume of at least {FEWEST_SLICES} is needed"
                )));
            }
        }
        // Results lie on the grid of the first and refer to it.
        let volume = &volumes[0];
        let mut formats = self.plan.formats.clone();
        formats.retain(|format| format.suits(volume) && *format != Format::Maps);
        if formats.is_empty() {
            return Err(Failure::Reason(
                "none of the result forms suits this input (a DICOM SEG needs a DICOM series)"
                    .to_owned(),
            ));
        }
        let note = if self.plan.formats.contains(&Format::Seg) && !formats.contains(&Format::Seg) {
            "no DICOM SEG: the input has no position in a patient".to_owned()
        } else {
            String::new()
        };
        let item = &self.items[index];
        let event = |kind| about(AuditEvent::new(kind, self.engine.now()), item);
        let model = ParticipantObject::model(&self.model.key, &self.model.sha256);
        let run = event(EventId::ModelRun).about(model);
        self.log.append(&run).map_err(|e| Failure::from_error(&e))?;
        let segmentation =
            self.engine
                .segment(volumes, task)
                .inspect_err(|failure| match failure {
                    Failure::Cancelled => {
                        self.record(run.clone().failed(Outcome::MinorFailure, "cancelled"));
                    }
                    Failure::Reason(why) => {
                        self.record(run.clone().failed(Outcome::SeriousFailure, why));
                    }
                })?;
        task.begin("Writing results", 0);
        let release = event(EventId::Export)
            .about(ParticipantObject::file(&row.results).with("role", "destination"));
        let act = (self.log.begin(&release)).map_err(|e| Failure::from_error(&e))?;
        remove_leftovers(&row.results);
        let written = export::write_results(
            &segmentation,
            volume,
            &formats,
            &row.results,
            &mut || self.engine.fresh_uid(),
            self.engine.now(),
            &act,
        )
        .map_err(|error| Failure::from_error(&error));
        let written = self.closed(act, written)?;
        let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
        Ok(Kept {
            volumes_ml: export::measure(&segmentation, volume)
                .into_iter()
                .filter_map(|m| {
                    let ml = m.volume_ml()?;
                    Some((m.segment.name, ml))
                })
                .collect(),
            files: written.iter().filter_map(|w| name(&w.path)).collect(),
            note,
            ..Kept::default()
        })
    }

    /// Findings of the images of one series, and their export.
    fn assessed(
        &self,
        index: usize,
        row: &Row,
        volume: &Volume,
        task: &Task,
    ) -> Result<Kept, Failure> {
        let formats: Vec<Format> = (Format::OF_FINDINGS.into_iter())
            .filter(|format| self.plan.formats.contains(format))
            .collect();
        if formats.is_empty() {
            return Err(Failure::Reason(
                "findings are written as csv or json, neither was asked for".to_owned(),
            ));
        }
        let item = &self.items[index];
        let event = |kind| about(AuditEvent::new(kind, self.engine.now()), item);
        let model = ParticipantObject::model(&self.model.key, &self.model.sha256);
        let run = event(EventId::ModelRun).about(model);
        self.log.append(&run).map_err(|e| Failure::from_error(&e))?;
        let explained = || {
            let mut assessments = self.engine.assess(volume, task)?;
            let pictures = if formats.contains(&Format::Maps) {
                self.engine.explain(&mut assessments, volume, task)?
            } else {
                Vec::new()
            };
            Ok((assessments, pictures))
        };
        let (assessments, pictures) = explained().inspect_err(|failure| {
            let (outcome, why) = match failure {
                Failure::Cancelled => (Outcome::MinorFailure, "cancelled"),
                Failure::Reason(why) => (Outcome::SeriousFailure, why.as_str()),
            };
            self.record(run.clone().failed(outcome, why));
        })?;
        task.begin("Writing results", 0);
        let release = event(EventId::Export)
            .about(ParticipantObject::file(&row.results).with("role", "destination"));
        let act = (self.log.begin(&release)).map_err(|e| Failure::from_error(&e))?;
        remove_leftovers(&row.results);
        let written = export::write_findings(
            &assessments,
            &pictures,
            volume,
            &formats,
            &row.results,
            &mut || self.engine.fresh_uid(),
            self.engine.now(),
            &act,
        )
        .map_err(|error| Failure::from_error(&error));
        let written = self.closed(act, written)?;
        let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
        let mut refused: Vec<String> = (assessments.iter())
            .flat_map(|a| a.refused.clone())
            .collect();
        refused.dedup();
        Ok(Kept {
            findings: highest(&assessments),
            files: written.iter().filter_map(|w| name(&w.path)).collect(),
            note: match (
                refused.is_empty(),
                assessments.iter().all(|a| !a.refused.is_empty()),
            ) {
                (true, _) => String::new(),
                (_, true) => format!("no finding is given: {}", refused.join("; ")),
                _ => format!("some images were left out: {}", refused.join("; ")),
            },
            ..Kept::default()
        })
    }

    /// Puts on record how writing ended. What is written stays when that cannot be.
    fn closed<T>(&self, act: Act, written: Result<T, Failure>) -> Result<T, Failure> {
        let now = self.engine.now();
        let closed = match &written {
            Ok(_) => act.done(now),
            Err(Failure::Cancelled) => act.failed(now, Outcome::MinorFailure, "cancelled"),
            Err(Failure::Reason(why)) => act.failed(now, Outcome::SeriousFailure, why),
        };
        if let Err(error) = closed {
            tracing::error!(%error, "the end of an export could not be put on record");
        }
        written
    }

    /// An event about work that has ended already: the work is not undone when it cannot be written.
    fn record(&self, event: AuditEvent) {
        let event = event.at(self.engine.now());
        if let Err(error) = self.log.append(&event) {
            tracing::error!(%error, "a failure could not be put on record");
        }
    }

    fn entry(&self, row: &Row, index: usize, files: Vec<String>) -> Entry {
        Entry {
            key: row.key.clone(),
            input: self.items[index].fingerprint(),
            model: self.model.key.clone(),
            model_sha256: self.model.sha256.clone(),
            unmirrored: self.model.unmirrored,
            formats: self
                .plan
                .formats
                .iter()
                .map(|f| f.name().to_owned())
                .collect(),
            files,
            status: row.status.word().to_owned(),
            reason: row.reason.clone(),
            seconds: row.seconds,
            volumes_ml: row.volumes_ml.clone(),
            findings: row.findings.clone(),
        }
    }
}

/// Each finding where its probability is highest.
fn highest(assessments: &[Assessment]) -> Vec<(String, f64, String)> {
    let mut rows: Vec<(String, f64, String)> = Vec::new();
    for finding in assessments.iter().flat_map(|a| &a.findings) {
        let call = finding.call.map_or("", Call::words).to_owned();
        let row = (finding.name.clone(), finding.probability, call);
        match rows.iter_mut().find(|(name, ..)| *name == finding.name) {
            Some(known) if known.1 < finding.probability => *known = row,
            Some(_) => {}
            None => rows.push(row),
        }
    }
    rows
}

/// Reads the waiting items one after the other, each while the one before is inferred.
fn read_ahead(
    engine: &(impl Engine + ?Sized),
    log: &Log,
    items: &[Item],
    waiting: &[usize],
    watch: &Watch,
    out: SyncSender<Read>,
    allowed: &Receiver<u64>,
) {
    for (position, &index) in waiting.iter().enumerate() {
        let item = &items[index];
        if position > 0 {
            // The run of the item before has started, or is about to, and needs this much.
            let Ok(needed) = allowed.recv() else { return };
            // Stored values and what decoding needs beside them.
            let next = 8 * item.voxels() as u64;
            if needed.saturating_add(next) > engine.available_bytes() {
                watch.wait_for_run(position);
            }
        }
        let start = Instant::now();
        let volumes = volumes_of(engine, log, item, &watch.reading);
        let stop = matches!(volumes, Err(Failure::Cancelled));
        let read = Read {
            index,
            volumes,
            seconds: secs(start),
        };
        if out.send(read).is_err() || stop {
            return;
        }
    }
}

/// Reads the images of an item, once that is on record.
pub(super) fn volumes_of(
    engine: &(impl Engine + ?Sized),
    log: &Log,
    item: &Item,
    task: &Task,
) -> Result<Vec<Volume>, Failure> {
    let access = about(
        AuditEvent::new(EventId::DicomInstancesAccessed, engine.now()),
        item,
    );
    let read_all = || {
        item.sources()
            .map(|source| engine.load(source, task))
            .collect()
    };
    log.append(&access)
        .map_err(|e| Failure::from_error(&e))
        .and_then(|_| guarded(read_all))
}

/// A panic in the work on one series (a decoder, a kernel) fails that series, not the batch.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Failure::Reason(
            "an error in Negatoscope itself, please report it".to_owned(),
        ))
    })
}

/// Passes cancellation down and progress up.
struct Watch {
    over: AtomicBool,
    total: usize,
    /// The run: its position, title, time left, and task.
    current: Mutex<(usize, String, std::sync::Arc<Task>)>,
    ended: Mutex<usize>,
    run_has_ended: std::sync::Condvar,
    /// Reading ahead reports here, where nobody looks, and is cancelled with the rest.
    reading: Task,
}

impl Watch {
    fn new(total: usize) -> Self {
        Self {
            over: AtomicBool::new(false),
            total,
            current: Mutex::new((0, "Reading".to_owned(), std::sync::Arc::default())),
            ended: Mutex::new(0),
            run_has_ended: std::sync::Condvar::new(),
            reading: Task::new(),
        }
    }

    /// The task of the next run.
    fn next(&self, position: usize, title: &str, left: &str) -> std::sync::Arc<Task> {
        let task = std::sync::Arc::new(Task::new());
        let title = format!("{} of {}{left}: {title}", position + 1, self.total);
        *lock(&self.current) = (position, title, std::sync::Arc::clone(&task));
        task
    }

    fn run_ended(&self) {
        *lock(&self.ended) += 1;
        self.run_has_ended.notify_all();
    }

    /// Waits until `runs` runs have ended, or the batch is to stop.
    fn wait_for_run(&self, runs: usize) {
        let mut ended = lock(&self.ended);
        while *ended < runs && !self.reading.is_cancelled() {
            ended = self
                .run_has_ended
                .wait_timeout(ended, Duration::from_millis(200))
                .map_or_else(|e| e.into_inner().0, |(guard, _)| guard);
        }
    }

    fn follow(&self, task: &Task) {
        while !self.over.load(Ordering::Relaxed) {
            self.show(task);
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Passes cancellation down and progress up, once.
    fn show(&self, task: &Task) {
        let current = lock(&self.current);
        let (position, title, step) = &*current;
        if task.is_cancelled() {
            step.cancel();
            self.reading.cancel();
        }
        let progress = step.progress();
        let part = (progress.fraction().unwrap_or(0.0) * 1000.0) as usize;
        let phase = match progress.phase.as_str() {
            "" => title.clone(),
            phase => format!("{title}, {phase}"),
        };
        task.begin(&phase, self.total * 1000);
        task.report(position * 1000 + part, self.total * 1000);
    }
}

/// Ends the watcher when it goes out of scope.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The value behind a lock, also after a panic elsewhere: these values are whole at any time.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Adds what an item is to an event: its study once, each of its series and files.
fn about(mut event: AuditEvent, item: &Item) -> AuditEvent {
    let images = item.sources().filter_map(|source| match source {
        ItemSource::Stack { headers, stack } => Some(headers.2.stacks[*stack].images.len()),
        _ => None,
    });
    let images = images.sum();
    for (n, source) in item.sources().enumerate() {
        event = match source {
            ItemSource::Stack { headers, .. } => {
                if n == 0 {
                    let study = &headers.1.study_instance_uid;
                    event = event.about(ParticipantObject::study(study, images));
                }
                event.about(ParticipantObject::series(&headers.2.series_instance_uid))
            }
            ItemSource::File(path) => event.about(ParticipantObject::file(path)),
            ItemSource::Nothing => event,
        };
    }
    event
}

fn row_of(item: &Item, plan: &Plan) -> Row {
    Row {
        key: item.key.clone(),
        title: item.title.clone(),
        status: Status::Waiting,
        reason: String::new(),
        seconds: 0.0,
        volumes_ml: Vec::new(),
        findings: Vec::new(),
        inputs: item.inputs(),
        results: item
            .key
            .split('/')
            .fold(plan.output.clone(), |p, part| p.join(part)),
    }
}

/// The entry of an item that needs no second run: same input, model and forms, results still there.
fn earlier<'a>(
    finished: &'a [Entry],
    item: &Item,
    model: &ModelIdentity,
    plan: &Plan,
    folder: &Path,
) -> Option<&'a Entry> {
    let entry = finished.iter().rev().find(|e| e.key == item.key)?;
    entry
        .stands_for(&item.fingerprint(), model, &plan.formats, folder)
        .then_some(entry)
}

/// Temporary files of a batch that was killed; the journal's lock says that nobody writes there now.
fn remove_leftovers(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let begins = |words: &str| name.starts_with(&format!(".{words}"));
        let ours = Format::ALL.iter().any(|f| begins(f.file_name()))
            || begins("findings")
            || begins("explanation-");
        let temporary = entry.path().extension().is_some_and(|e| e == "part");
        if ours && temporary {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

pub(super) fn secs(start: Instant) -> f64 {
    start.elapsed().as_secs_f64()
}
