//! From a model to results on disk, for one study or a folder.

use std::path::PathBuf;
use std::sync::Arc;

use chrono::SubsecRound;

use super::diagnosis::Waiting;
use super::state::file_name;
use super::{
    Action, App, Dialog, JobId, JobKind, ModelSummary, Notice, Overlay, RemoteWork, Results,
    ReviewNote, SeriesKey, ToExport, VolumeId,
};
use crate::findings::{Review, ReviewState, Segmentation};
use crate::volume::LabelStatistics;

impl App {
    /// A model's name; with its identifier where another model has the same name.
    pub fn words_of(&self, model: &ModelSummary) -> String {
        let id = |m: &ModelSummary| m.key.split('@').next().unwrap_or_default().to_owned();
        let mut others = self.models.iter();
        if others.any(|other| other.name == model.name && id(other) != id(model)) {
            format!("{} ({})", model.name, id(model))
        } else {
            model.name.clone()
        }
    }

    /// Asks what a run of the chosen model on the open volume would need.
    pub(super) fn ask_estimate(&mut self) {
        self.estimate = None;
        self.channels.clear();
        let Some(model) = self.selected_model.clone() else {
            return;
        };
        let Some(open) = self.workspace.open.as_ref().filter(|o| o.loading.is_none()) else {
            return;
        };
        let data = Arc::clone(&open.data);
        let id = open.id;
        match self.channel_sources() {
            Ok(sources) => {
                let named = sources.into_iter().map(|s| (s.channel, s.title));
                self.channels = named.collect();
            }
            Err(reason) => {
                self.estimate = Some(Err(reason));
                return;
            }
        }
        self.actions.push(Action::Estimate {
            model,
            volume: id,
            data,
            mirroring: self.settings.mirroring,
        });
    }

    pub(super) fn run_model(&mut self) {
        if let Err(reason) = self.can_run() {
            self.notices
                .push(Notice::info("The model was not started", &reason));
            return;
        }
        let (Some(model), Some(open)) = (self.selected_model.clone(), &self.workspace.open) else {
            return;
        };
        let (volume, data) = (open.id, Arc::clone(&open.data));
        let further = match self.channel_sources() {
            Ok(sources) => sources.into_iter().skip(1).collect(),
            Err(reason) => {
                self.estimate = Some(Err(reason));
                return;
            }
        };
        if let Some(place) = self.place() {
            let endpoint = place.name.clone();
            return self.prepare_open(endpoint, further);
        }
        let name = self
            .models
            .iter()
            .find(|m| m.key == model)
            .map_or(&model, |m| &m.name);
        let title = format!("Running {name}");
        let (job, task) = self.start(JobKind::Model, title);
        self.actions.push(Action::RunModel {
            job,
            model,
            volume,
            data,
            further,
            mirroring: self.settings.mirroring,
            task,
        });
    }

    pub(super) fn show_results(
        &mut self,
        volume: VolumeId,
        segmentation: Arc<Segmentation>,
        statistics: Vec<LabelStatistics>,
    ) {
        let revision = self.fresh_id();
        let (review, reviewed) = (segmentation.review, segmentation.reviewed.clone());
        if matches!(self.waiting, Some(Waiting::Mask(_))) {
            // A decision on the mask before.
            self.close_dialog();
        }
        let before = self.results.take();
        let refined = before.filter(|r| r.provisional.is_some() && r.volume == volume);
        self.replaced = None;
        let largest = statistics
            .iter()
            .max_by_key(|s| s.voxels)
            .map(|s| s.centroid_lps);
        self.results = Some(Results {
            volume,
            revision,
            segmentation,
            statistics,
            // Whoever watched the mask grow has chosen already what to look at.
            overlay: refined
                .as_ref()
                .map_or_else(Overlay::default, |r| r.overlay.clone()),
            review,
            reviewed,
            exported: false,
            provisional: None,
        });
        if let (Some(lps), None) = (largest, refined) {
            self.workspace.set_crosshair(lps);
        }
    }

    /// Shows a mask that is still being computed, in place of the one before it.
    pub(super) fn show_provisional(
        &mut self,
        job: JobId,
        volume: VolumeId,
        stage: String,
        segmentation: Arc<Segmentation>,
        statistics: Vec<LabelStatistics>,
    ) {
        let runs = self
            .jobs
            .iter()
            .any(|j| j.id == job && !j.task.is_cancelled());
        let open = self.workspace.open.as_ref().is_some_and(|o| o.id == volume);
        if !runs || !open {
            return;
        }
        let revision = self.fresh_id();
        let before = self.results.take();
        let overlay = match &before {
            Some(r) if r.provisional.is_some() => r.overlay.clone(),
            _ => Overlay::default(),
        };
        if before.as_ref().is_some_and(|r| r.provisional.is_none()) {
            self.replaced = before;
        }
        self.results = Some(Results {
            volume,
            revision,
            segmentation,
            statistics,
            overlay,
            review: ReviewState::NotReviewed,
            reviewed: None,
            exported: false,
            provisional: Some((job, stage)),
        });
    }

    /// A run that did not end leaves the result before it.
    pub(super) fn drop_provisional(&mut self, job: JobId) {
        let shows = |r: &Results| r.provisional.as_ref().is_some_and(|(from, _)| *from == job);
        if self.results.as_ref().is_some_and(shows) {
            let open = self.workspace.open.as_ref().map(|o| o.id);
            self.results = self.replaced.take().filter(|r| Some(r.volume) == open);
        }
    }

    /// Puts a decision on the mask, with name and time; the first one asks for the name.
    pub(super) fn review(&mut self, state: ReviewState) {
        let by = self.settings.reviewer.clone();
        let at = self.now.trunc_subsecs(0);
        let Some(results) = self.results.as_mut().filter(|r| r.provisional.is_none()) else {
            return;
        };
        let Some(by) = by else {
            self.waiting = Some(Waiting::Mask(state));
            self.dialog = Some(Dialog::Reviewer);
            return;
        };
        let from = results.review;
        results.review = if from == state {
            ReviewState::NotReviewed
        } else {
            state
        };
        let is_said = results.review != ReviewState::NotReviewed;
        results.reviewed = is_said.then_some(Review { by, at });
        results.exported = false;
        let made = &results.segmentation.provenance;
        if !made.run.is_empty() {
            self.actions.push(Action::NoteReview(ReviewNote {
                run: made.run.clone(),
                model: made.model_id.clone(),
                version: made.model_version.clone(),
                finding: None,
                from,
                to: results.review,
                model_call: None,
                reader_call: None,
            }));
        }
    }

    pub(super) fn export_to(&mut self, folder: PathBuf) {
        let Some(open) = &self.workspace.open else {
            return;
        };
        let data = Arc::clone(&open.data);
        let mut results = Vec::new();
        if let Some(shown) = &self.results {
            let mut segmentation = (*shown.segmentation).clone();
            segmentation.review = shown.review;
            segmentation.reviewed.clone_from(&shown.reviewed);
            results.push((
                ToExport::Segmentation(Arc::new(segmentation)),
                folder.clone(),
            ));
        }
        if let Some(shown) = &self.findings {
            let models = shown.by_model();
            for (model, some) in &models {
                // Each model's files have the same names.
                let folder = if models.len() > 1 {
                    folder.join(model)
                } else {
                    folder.clone()
                };
                let some = some.iter().map(|(_, a)| (*a).clone()).collect();
                results.push((ToExport::Findings(Arc::new(some)), folder));
            }
        }
        for (result, folder) in results {
            let (job, task) = self.start(JobKind::Export, "Saving results".to_owned());
            self.actions.push(Action::Export {
                job,
                result,
                data: Arc::clone(&data),
                folder,
                task,
            });
        }
    }

    pub(super) fn start_batch(&mut self) {
        let nowhere = self.runs_nowhere();
        let (input, output) = (&self.batch.input, &self.batch.output);
        let missing = match (input, output, &self.selected_model, nowhere) {
            (Some(_), Some(_), Some(_), Some(why)) => why,
            (Some(input), Some(output), Some(model), None) => {
                let (input, output, model) = (input.clone(), output.clone(), model.clone());
                self.batch.rows.clear();
                self.batch.summary = None;
                if let Some(place) = self.place() {
                    let endpoint = place.name.clone();
                    let work = RemoteWork::Folder { input, output };
                    self.batch.job = self.prepare(endpoint, work);
                    return;
                }
                let title = format!("Analyzing {}", file_name(&input));
                let (job, task) = self.start(JobKind::Batch, title);
                self.batch.job = Some(job);
                self.actions.push(Action::Batch {
                    job,
                    input,
                    output,
                    model,
                    mirroring: self.settings.mirroring,
                    task,
                });
                return;
            }
            (None, ..) => "Choose the folder of studies.",
            (_, None, ..) => "Choose where results go.",
            _ => "Choose a model.",
        };
        self.notices
            .push(Notice::info("The batch was not started", missing));
        self.dialog = Some(Dialog::Batch);
    }

    pub(super) fn open_batch_row(&mut self, index: usize) {
        let Some(row) = self.batch.rows.get(index) else {
            return;
        };
        if row.status != "done" {
            return;
        }
        let (inputs, results) = (row.inputs.clone(), row.results.clone());
        let title = format!("Opening {}", row.title);
        let (job, task) = self.start(JobKind::Load, title);
        self.actions.push(Action::OpenResult {
            job,
            inputs,
            results,
            task,
        });
    }

    /// Shows a DICOM SEG of the browser on the open volume.
    pub(super) fn open_segmentation(&mut self, path: PathBuf) {
        let Some(open) = self.workspace.open.as_ref().filter(|o| o.loading.is_none()) else {
            self.notices.push(Notice::info(
                "Open the images first",
                "A segmentation is drawn on the series that it was made from.",
            ));
            return;
        };
        let (volume, data) = (open.id, Arc::clone(&open.data));
        let (job, task) = self.start(JobKind::Load, format!("Reading {}", file_name(&path)));
        self.actions.push(Action::LoadSegmentation {
            job,
            path,
            volume,
            data,
            task,
        });
    }

    /// Whether a key is the stack on screen.
    pub fn is_open(&self, key: &SeriesKey) -> bool {
        self.workspace
            .open
            .as_ref()
            .is_some_and(|open| open.key == *key)
    }

    /// Whether a key is the stack that loads.
    pub fn is_loading(&self, key: &SeriesKey) -> bool {
        self.pending
            .as_ref()
            .is_some_and(|pending| pending.key == *key)
    }
}
