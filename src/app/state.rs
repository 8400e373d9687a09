//! The application's state, and how commands and events change it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::diagnosis::Waiting;
use super::loading::Pending;
use super::workspace::OpenVolume;
use super::{
    Action, AskFor, AuditView, BatchRow, Browser, Command, CopyState, CornerText, Event, Job,
    JobId, JobKind, ModelSummary, Notice, OpenedResult, RemoteState, Results, RunEstimate,
    SeriesKey, Settings, ShownFindings, Traffic, TrainingState, VolumeId, Workspace,
};
use crate::findings::ReviewState;
use crate::task::Task;

/// A dialog over the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialog {
    /// Keys and gestures.
    Keys,
    /// Version, licenses, research use.
    About,
    /// Files that were left out.
    Skipped,
    /// The batch: input, model, output, table.
    Batch,
    /// What would leave this machine.
    Leaving,
    /// A copy of the study without identity.
    Copy,
    /// Who reviews at this machine.
    Reviewer,
    /// What a reader says in the model's place.
    EditFinding {
        /// Which assessment.
        image: usize,
        /// Which of its findings.
        finding: usize,
    },
}

/// The batch as the window shows it.
#[derive(Clone, Debug, Default)]
pub struct BatchState {
    /// Folder of studies.
    pub input: Option<PathBuf>,
    /// Folder of results.
    pub output: Option<PathBuf>,
    /// The job while it runs.
    pub job: Option<JobId>,
    /// One row per series.
    pub rows: Vec<BatchRow>,
    /// Closing line.
    pub summary: Option<String>,
}

/// The truth about everything on screen. Belongs to the window's thread.
#[derive(Debug, Default)]
pub struct App {
    /// What was opened.
    pub browser: Browser,
    /// What is shown.
    pub workspace: Workspace,
    /// The segmentation of the open volume.
    pub results: Option<Results>,
    /// What a classifier says about the open images.
    pub findings: Option<ShownFindings>,
    /// Small pictures of stacks: width, height, RGBA.
    pub thumbnails: HashMap<SeriesKey, (usize, usize, Arc<Vec<u8>>)>,
    /// Installed models.
    pub models: Vec<ModelSummary>,
    /// The chosen model.
    pub selected_model: Option<String>,
    /// What a run of the chosen model on the open volume would need.
    pub estimate: Option<Result<RunEstimate, String>>,
    /// For a model of several channels: which image each would take, by name and title.
    pub channels: Vec<(String, String)>,
    /// Background work.
    pub jobs: Vec<Job>,
    /// Messages.
    pub notices: Vec<Notice>,
    /// The open dialog.
    pub dialog: Option<Dialog>,
    /// The batch.
    pub batch: BatchState,
    /// The training.
    pub training: TrainingState,
    /// The auditor's view.
    pub audit: AuditView,
    /// A copy of the open study without identity.
    pub copy: CopyState,
    /// Models on servers.
    pub remote: RemoteState,
    /// Settings.
    pub settings: Settings,
    /// The time, as the window has told it last.
    pub now: DateTime<Utc>,
    /// A decision that waits for the reviewer's name.
    pub(super) waiting: Option<Waiting>,
    /// What a provisional result has replaced.
    pub(super) replaced: Option<Results>,
    /// The stack that loads, until its last voxel is there.
    pub(super) pending: Option<Pending>,
    /// A segmentation that was opened together with images: drawn when they are there.
    pub(super) pending_segmentation: Option<PathBuf>,
    pub(super) next_id: u64,
    pub(super) actions: Vec<Action>,
}

impl App {
    /// The state at the start; asks for the list of models.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            actions: vec![Action::ListModels, Action::ListPlaces],
            ..Self::default()
        }
    }

    /// Takes the actions that commands and events have asked for.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// The job of a kind that runs now.
    pub fn running(&self, kind: JobKind) -> Option<&Job> {
        self.jobs.iter().find(|job| job.kind == kind)
    }

    /// Whether the chosen model may run on the open volume; else the reason.
    pub fn can_run(&self) -> Result<(), String> {
        let Some(open) = &self.workspace.open else {
            return Err("Open a study first".to_owned());
        };
        if open.loading.is_some() {
            return Err("The series is still loading".to_owned());
        }
        if self.running(JobKind::Model).is_some() {
            return Err("A model is running".to_owned());
        }
        if self.selected_model.is_none() {
            return Err("Choose a model".to_owned());
        }
        if let Some(why) = self.runs_nowhere() {
            return Err(why.to_owned());
        }
        let there = self.place().and_then(|p| self.place_estimate(&p.name));
        if let Some(why) = there.and_then(|there| there.refused.clone()) {
            return Err(why);
        }
        match &self.estimate {
            Some(Ok(e)) if e.traffic == Traffic::Red => Err(e.reasons.join("; ")),
            // A server's memory is its own; what is needed here is counted before anything leaves.
            Some(Ok(e)) if e.needed_bytes > e.available_bytes && self.place().is_none() => {
                Err(format!(
                    "Needs {}, {} are free",
                    bytes_words(e.needed_bytes),
                    bytes_words(e.available_bytes)
                ))
            }
            Some(Err(reason)) => Err(reason.clone()),
            Some(Ok(_)) => Ok(()),
            None => Err("Checking what the run needs…".to_owned()),
        }
    }

    /// Carries out a command.
    pub fn apply(&mut self, command: Command) {
        match command {
            Command::OpenFiles => self.ask(AskFor::OpenFiles),
            Command::OpenFolder => self.ask(AskFor::OpenFolder),
            Command::Open(paths) => self.open_paths(paths),
            Command::OpenSeries(key) => self.open_series(key),
            Command::OpenSegmentation(path) => self.open_segmentation(path),
            Command::StepSeries(step) => self.step_series(step),
            Command::SetVoiWindow(window) => {
                self.workspace.window = window;
                self.workspace.window_name = None;
            }
            Command::Preset(key) => self.preset(key),
            Command::Scroll { view, steps } => self.scroll(view, steps),
            Command::ScrollTo { view, index } => self.scroll_to(view, index),
            Command::SetCrosshair(lps) => self.workspace.set_crosshair(lps),
            Command::Zoom {
                view,
                factor,
                at_mm,
            } => {
                let state = &mut self.workspace.views[view as usize];
                let zoom = (state.zoom * factor).clamp(0.2, 40.0);
                // The point under the cursor stays: its offset from the middle shrinks by the factor.
                state.pan_mm += at_mm * (1.0 - state.zoom / zoom);
                state.zoom = zoom;
            }
            Command::Pan { view, by_mm } => self.workspace.views[view as usize].pan_mm -= by_mm,
            Command::Fit => self.workspace.views = Default::default(),
            Command::Maximize(view) => {
                self.workspace.active = view;
                let now = self.workspace.maximized;
                self.workspace.maximized = if now == Some(view) { None } else { Some(view) };
            }
            Command::Activate(view) => self.workspace.active = view,
            Command::NextView(step) => self.next_view(step),
            Command::Invert => self.workspace.invert = !self.workspace.invert,
            Command::ToggleInterpolation => {
                self.settings.interpolate = !self.settings.interpolate;
                self.save_settings();
            }
            Command::ToggleCrosshair => {
                self.workspace.show_crosshair = !self.workspace.show_crosshair;
            }
            Command::CycleCornerText => {
                self.settings.corner_text = CornerText::next(self.settings.corner_text);
                self.save_settings();
            }
            Command::ToggleOverlay => {
                if let Some(results) = &mut self.results {
                    results.overlay.visible = !results.overlay.visible;
                }
            }
            Command::SetSegmentVisible { label, visible } => {
                if let Some(results) = &mut self.results {
                    results.overlay.hidden[usize::from(label)] = !visible;
                }
            }
            Command::SetAllSegmentsVisible(visible) => {
                if let Some(results) = &mut self.results {
                    results.overlay.hidden.fill(!visible);
                }
            }
            Command::GoToSegment(label) => {
                let centroid = self
                    .results
                    .as_ref()
                    .and_then(|r| r.of(label))
                    .map(|s| s.centroid_lps);
                if let Some(lps) = centroid {
                    self.workspace.set_crosshair(lps);
                }
            }
            Command::SetOverlayFill(fill) => {
                self.settings.overlay_fill = fill.clamp(0.0, 1.0);
                self.save_settings();
            }
            Command::SetOverlayOutline(outline) => {
                self.settings.overlay_outline = outline.clamp(0.0, 1.0);
                self.save_settings();
            }
            Command::SelectModel(model) => {
                self.selected_model = Some(model);
                self.ask_estimate();
            }
            Command::SetMirroring(on) => {
                self.settings.mirroring = on;
                self.save_settings();
                self.ask_estimate();
            }
            Command::RunModel => self.run_model(),
            Command::CancelJob(id) => self.cancel(id),
            Command::Escape => self.escape(),
            Command::ReviewFinding(image, finding, state) => {
                self.review_finding(image, finding, state);
            }
            Command::Explain(assessment, finding) => self.explain(assessment, finding),
            Command::ExplainBy(method) => self.explain_by(method),
            Command::EditFinding(image, finding, edit) => self.edit_finding(image, finding, edit),
            Command::EditNext => self.edit_next(),
            Command::SetReviewer(name) => self.set_reviewer(name),
            Command::AcceptResult => {
                if !self.review_next(ReviewState::Accepted) {
                    self.review(ReviewState::Accepted);
                }
            }
            Command::RejectResult => {
                if !self.review_next(ReviewState::Rejected) {
                    self.review(ReviewState::Rejected);
                }
            }
            Command::Export => {
                let still = self.results.as_ref().map(|r| r.provisional.is_some());
                if still == Some(false) || (still.is_none() && self.findings.is_some()) {
                    self.ask(AskFor::ExportFolder);
                } else if still == Some(true) {
                    self.notices.push(Notice::info(
                        "Not saved yet",
                        "The mask on screen is still being computed. Save it when the run has ended.",
                    ));
                } else {
                    self.notices
                        .push(Notice::info("Nothing to save yet", "Run a model first."));
                }
            }
            Command::ImportModel => self.ask(AskFor::ModelImport),
            Command::AnalyzeFolder => self.dialog = Some(Dialog::Batch),
            Command::OpenComparison if self.batch.job.is_some() => {
                self.notices.push(Notice::info(
                    "A folder is being analyzed",
                    "Its table is in use. Open the comparison when it has ended.",
                ));
            }
            Command::OpenComparison => self.ask(AskFor::Comparison),
            Command::ChooseBatchInput => self.ask(AskFor::BatchInput),
            Command::ChooseBatchOutput => self.ask(AskFor::BatchOutput),
            Command::StartBatch => self.start_batch(),
            Command::ShowAudit => {
                self.audit.shown = true;
                self.audit.page = None;
                self.actions.push(Action::ReadAudit);
            }
            Command::HideAudit => self.audit = AuditView::default(),
            Command::FilterAudit(words) => self.audit.words = words,
            Command::ExportAudit => self.ask(AskFor::AuditExport),
            command @ (Command::SetPlace(_)
            | Command::SendRemote
            | Command::ShowQueue
            | Command::HideQueue
            | Command::ShowServers
            | Command::HideServers
            | Command::ChooseAuthority
            | Command::AddServer(_)
            | Command::RemoveServer(_)
            | Command::SetAsks(..)
            | Command::TestServer(_)
            | Command::StopTest
            | Command::GoOn(_)
            | Command::CancelQueued(_)
            | Command::ClearQueue) => self.remote(command),
            Command::ChooseCopyFolder => self.ask(AskFor::CopyFolder),
            command @ (Command::ShowCopy | Command::SetCopy(_) | Command::StartCopy) => {
                self.copy_command(command);
            }
            Command::ShowTraining => self.training.shown = true,
            Command::HideTraining => self.training.shown = false,
            Command::ChooseTraining(what) => self.ask(AskFor::Training(what)),
            Command::TrainingDataOfRecipe => self.training.data = None,
            Command::StartTraining => self.start_training(),
            Command::FollowTraining => self.follow_training(),
            Command::InstallTrained => self.install_trained(),
            Command::OpenBatchRow(index) => self.open_batch_row(index),
            Command::ShowDialog(dialog) => self.dialog = Some(dialog),
            Command::CloseDialog => self.close_dialog(),
            Command::DismissNotice(index) => {
                if index < self.notices.len() {
                    self.notices.remove(index);
                }
            }
            Command::ToggleDragDirection => {
                self.settings.drag_down_brightens = !self.settings.drag_down_brightens;
                self.save_settings();
            }
            Command::Reveal(path) => self.actions.push(Action::Reveal(path)),
            Command::Quit => {
                for job in &self.jobs {
                    job.task.cancel();
                }
                self.actions.push(Action::Quit);
            }
        }
    }

    /// Takes in what finished work reports.
    pub fn on_event(&mut self, event: Event) {
        match event {
            Event::Chosen(what, paths) => self.chosen(what, paths),
            Event::Indexed {
                job,
                worklist,
                files,
            } => self.indexed(job, worklist, files),
            Event::Slice {
                volume,
                slice,
                data,
                auto_window,
            } => {
                self.slice_arrived(volume, slice, data, auto_window);
            }
            Event::Loaded {
                job,
                volume,
                data,
                auto_window,
            } => {
                self.finish(job);
                self.loaded(volume, data, auto_window);
            }
            Event::Thumbnail {
                key,
                width,
                height,
                rgba,
            } => {
                self.thumbnails.insert(key, (width, height, rgba));
            }
            Event::Models(models) => {
                self.models = models;
                let known = |key: &String| self.models.iter().any(|m| m.key == *key);
                if !self.selected_model.as_ref().is_some_and(known) {
                    self.selected_model = self.models.first().map(|m| m.key.clone());
                }
                self.ask_estimate();
            }
            Event::Estimated {
                model,
                volume,
                mirroring,
                estimate,
            } => {
                let current = self.workspace.open.as_ref().map(|o| o.id) == Some(volume)
                    && mirroring == self.settings.mirroring;
                if current && self.selected_model.as_ref() == Some(&model) {
                    self.estimate = Some(estimate);
                }
            }
            Event::Assessed {
                job,
                volume,
                assessments,
                methods,
            } => {
                self.finish(job);
                if self.workspace.open.as_ref().is_some_and(|o| o.id == volume) {
                    self.show_findings(volume, assessments, methods);
                } else {
                    self.notices.push(Notice::info(
                        "Result dropped",
                        "Another series was opened while the model ran. Open the series and run it again.",
                    ));
                }
            }
            Event::Explained {
                job,
                volume,
                assessment,
                map,
            } => {
                self.finish(job);
                self.explained(volume, assessment, *map);
            }
            Event::Segmented {
                job,
                volume,
                segmentation,
                statistics,
            } => {
                self.finish(job);
                // Results of a series that is no longer open are dropped, not drawn on another.
                if self.workspace.open.as_ref().is_some_and(|o| o.id == volume) {
                    self.show_results(volume, segmentation, statistics);
                } else {
                    self.notices.push(Notice::info(
                        "Result dropped",
                        "Another series was opened while the model ran. Open the series and run it again.",
                    ));
                }
                self.ask_estimate();
            }
            Event::Places(places) => self.remote.places = places,
            Event::ServerTested(test) => self.server_tested(test),
            Event::Copied { job, done, doubts } => self.copied(job, done, doubts),
            Event::Leaving(page) => self.leaving(*page),
            Event::QueueRead(rows) => self.remote.queue = rows,
            Event::Returned {
                job,
                queued,
                volume,
                segmentation,
                statistics,
            } => self.returned(job, queued, volume, segmentation, statistics),
            Event::Provisional {
                job,
                volume,
                stage,
                segmentation,
                statistics,
            } => self.show_provisional(job, volume, stage, segmentation, statistics),
            Event::Exported { job, folder, files } => {
                self.finish(job);
                if let Some(results) = &mut self.results {
                    results.exported = true;
                }
                if let Some(findings) = &mut self.findings {
                    findings.exported = true;
                }
                let text = format!("{} in {}", files.join(", "), folder.display());
                self.notices.push(Notice::info("Results saved", &text));
            }
            Event::BatchRow { index, row } => {
                if index < self.batch.rows.len() {
                    self.batch.rows[index] = row;
                } else {
                    self.batch.rows.push(row);
                }
            }
            Event::ComparisonRead { rows, summary } if self.batch.job.is_none() => {
                self.batch.rows = rows;
                self.batch.summary = Some(summary);
                self.dialog = Some(Dialog::Batch);
            }
            // A batch has begun meanwhile: the table is its own.
            Event::ComparisonRead { .. } => {}
            Event::BatchDone { job, summary } => {
                self.finish(job);
                self.batch.job = None;
                self.batch.summary = Some(summary);
            }
            Event::ResultOpened {
                job,
                worklist,
                files,
                key,
                data,
                auto_window,
                result,
            } => {
                self.finish(job);
                self.browser.add(worklist);
                for file in files {
                    self.browser.add_file(file);
                }
                self.ask_thumbnails();
                let id = VolumeId(self.fresh_id());
                self.show_volume(OpenVolume {
                    id,
                    key,
                    data,
                    loading: None,
                    revision: 0,
                    auto_window,
                });
                match result {
                    OpenedResult::Segments(segmentation, statistics) => {
                        self.show_results(id, segmentation, statistics);
                    }
                    OpenedResult::Findings(assessments, methods) => {
                        self.show_findings(id, assessments, methods);
                    }
                }
                self.dialog = None;
            }
            Event::AuditRead(page) => self.audit.page = Some(*page),
            Event::Training(job, news) => self.training_news(job, news),
            Event::Failed { job, notice } => {
                if let Some(job) = job {
                    self.training_stopped(job, true);
                    self.drop_loading(job);
                    self.drop_provisional(job);
                    self.finish(job);
                }
                self.notices.push(notice);
            }
            Event::Cancelled(job) => {
                self.training_stopped(job, false);
                self.drop_loading(job);
                self.drop_provisional(job);
                self.finish(job);
            }
            Event::Notice(notice) => self.notices.push(notice),
        }
    }

    pub(super) fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(super) fn start(&mut self, kind: JobKind, title: String) -> (JobId, Arc<Task>) {
        let id = JobId(self.fresh_id());
        let task = Arc::new(Task::new());
        self.jobs.push(Job {
            id,
            kind,
            title,
            task: Arc::clone(&task),
        });
        (id, task)
    }

    pub(super) fn finish(&mut self, id: JobId) {
        self.jobs.retain(|job| job.id != id);
        if self.batch.job == Some(id) {
            self.batch.job = None;
        }
        if self.copy.job == Some(id) {
            self.copy.job = None;
        }
        if self.training.job == Some(id) {
            self.training.job = None;
        }
    }

    pub(super) fn cancel(&mut self, id: JobId) {
        if let Some(job) = self.jobs.iter().find(|job| job.id == id) {
            job.task.cancel();
        }
    }

    fn escape(&mut self) {
        let windows = [
            (self.audit.shown, Command::HideAudit),
            (self.remote.queue_shown, Command::HideQueue),
            (self.remote.servers_shown, Command::HideServers),
            (self.training.shown, Command::HideTraining),
        ];
        if self.dialog.is_some() {
            self.close_dialog();
        } else if let Some((_, hide)) = windows.into_iter().find(|(shown, _)| *shown) {
            self.apply(hide);
        } else if let Some(job) = (self.jobs.iter().rev()).find(|j| j.kind != JobKind::Training) {
            // A training of hours is stopped by its own button alone.
            job.task.cancel();
        } else {
            self.workspace.views = Default::default();
            self.workspace.maximized = None;
        }
    }

    pub(super) fn ask(&mut self, what: AskFor) {
        self.actions.push(Action::Ask(what));
    }

    pub(super) fn save_settings(&mut self) {
        // Sliders change settings every frame; the last one counts.
        self.actions
            .retain(|a| !matches!(a, Action::SaveSettings(_)));
        self.actions
            .push(Action::SaveSettings(self.settings.clone()));
    }

    fn chosen(&mut self, what: AskFor, mut paths: Vec<PathBuf>) {
        if paths.is_empty() {
            return;
        }
        match what {
            AskFor::OpenFiles | AskFor::OpenFolder => self.open_paths(paths),
            AskFor::ExportFolder => self.export_to(paths.remove(0)),
            AskFor::AuditExport => self.actions.push(Action::ExportAudit(paths.remove(0))),
            AskFor::BatchInput => self.batch.input = paths.pop(),
            AskFor::BatchOutput => self.batch.output = paths.pop(),
            AskFor::Comparison => {
                let folder = paths.remove(0);
                self.actions.push(Action::ReadComparison(folder));
            }
            AskFor::Training(what) => self.training_chosen(what, paths.remove(0)),
            AskFor::CopyFolder => self.copy.wanted.folder = paths.pop(),
            AskFor::ServerAuthority => self.remote.authority = paths.pop(),
            AskFor::ModelImport => self.actions.push(Action::ImportModel(paths.remove(0))),
        }
    }
}

pub(super) fn file_name(path: &std::path::Path) -> String {
    path.file_name().map_or_else(
        || path.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// "1.5 GB", "230 MB".
pub fn bytes_words(bytes: u64) -> String {
    let mb = bytes as f64 / 1e6;
    if mb >= 1000.0 {
        format!("{:.1} GB", mb / 1000.0)
    } else {
        format!("{mb:.0} MB")
    }
}
