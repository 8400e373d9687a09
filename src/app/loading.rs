//! From paths to a volume on screen.

use std::path::PathBuf;
use std::sync::Arc;

use super::state::file_name;
use super::workspace::OpenVolume;
use super::{
    Action, App, Browser, JobId, JobKind, ModelSummary, Notice, NoticeLevel, SeriesKey, VolumeId,
};
use crate::geometry::ViewPlane;
use crate::study::{Patient, Series, Study, Uid, Worklist, same_kind};
use crate::volume::{VoiWindow, Volume};

/// A stack that loads.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The id that the volume will have.
    pub volume: VolumeId,
    /// Which stack.
    pub key: SeriesKey,
    /// The job.
    pub job: JobId,
    /// The slice that the person wants to see meanwhile.
    pub wanted: usize,
    /// Slices in the stack.
    pub total: usize,
}

impl App {
    pub(super) fn open_paths(&mut self, paths: Vec<PathBuf>) {
        if paths.is_empty() {
            return;
        }
        for path in &paths {
            self.settings.remember(path.clone());
        }
        self.save_settings();
        let title = match paths.as_slice() {
            [one] => format!("Opening {}", file_name(one)),
            many => format!("Opening {} items", many.len()),
        };
        let (job, task) = self.start(JobKind::Index, title);
        self.actions.push(Action::Index { job, paths, task });
    }

    pub(super) fn indexed(&mut self, job: JobId, worklist: Worklist, files: Vec<PathBuf>) {
        self.finish(job);
        let mut fresh = Browser::default();
        fresh.add(worklist.clone());
        let skipped = worklist.skipped.len();
        self.browser.add(worklist);
        for file in files {
            fresh.add_file(file.clone());
            self.browser.add_file(file);
        }
        if let Some(key) = fresh.first_choice() {
            self.pending_segmentation = segmentation_of(&fresh, &key);
            self.open_series(key);
            if skipped > 0 {
                let text = "They are not DICOM images or could not be read: “Skipped files…” in the File menu tells why.";
                self.notices.push(Notice {
                    level: NoticeLevel::Info,
                    title: format!("{skipped} files skipped"),
                    text: text.to_owned(),
                    details: Vec::new(),
                });
            }
        } else {
            let details = self.browser.worklist.skipped.iter().rev().take(5);
            self.notices.push(Notice {
                level: NoticeLevel::Warning,
                title: "No images found".to_owned(),
                text: format!(
                    "None of the {skipped} files is an image that can be shown. Choose the folder that holds the study."
                ),
                details: details.map(|s| format!("{}: {}", s.source, s.reason)).collect(),
            });
        }
        self.ask_thumbnails();
        // What was missing for a model of several channels may be there now.
        if matches!(self.estimate, Some(Err(_))) {
            self.ask_estimate();
        }
    }

    pub(super) fn ask_thumbnails(&mut self) {
        let wanted = self.browser.keys().into_iter().filter_map(|key| {
            let SeriesKey::Stack { series, .. } = &key else {
                return None;
            };
            if self.thumbnails.contains_key(&key) {
                return None;
            }
            let (patient, study, series) = self.lean(series)?;
            Some((key, patient, study, series))
        });
        let wanted: Vec<_> = wanted.collect();
        if !wanted.is_empty() {
            self.actions.push(Action::Thumbnails(wanted));
        }
    }

    /// Copies of patient and study without their children, and the series.
    fn lean(&self, uid: &Uid) -> Option<(Patient, Study, Series)> {
        let (patient, study, series) = self.browser.find(uid)?;
        let lean_patient = Patient {
            name: patient.name.clone(),
            id: patient.id.clone(),
            birth_date: patient.birth_date.clone(),
            sex: patient.sex.clone(),
            studies: Vec::new(),
        };
        Some((lean_patient, study_head(study), series.clone()))
    }

    pub(super) fn open_series(&mut self, key: SeriesKey) {
        if let Some(job) = self.running(JobKind::Load).map(|job| job.id) {
            self.cancel(job);
        }
        let (title, series, images) = match &key {
            SeriesKey::File(path) => (format!("Loading {}", file_name(path)), None, 1),
            SeriesKey::Stack { series, stack } => {
                let Some(found) = self.lean(series) else {
                    return;
                };
                let Some(images) = found.2.stacks.get(*stack).map(|s| s.images.len()) else {
                    return;
                };
                let name = if found.2.description.is_empty() {
                    found.2.modality.clone()
                } else {
                    found.2.description.clone()
                };
                (format!("Loading {name}"), Some(Box::new(found)), images)
            }
        };
        let volume = VolumeId(self.fresh_id());
        let (job, task) = self.start(JobKind::Load, title);
        let first = images / 2;
        self.pending = Some(Pending {
            volume,
            key: key.clone(),
            job,
            wanted: first,
            total: images,
        });
        self.actions.push(Action::Load {
            job,
            key,
            series,
            volume,
            first,
            task,
        });
    }

    pub(super) fn step_series(&mut self, step: i32) {
        let keys = self.browser.keys();
        if keys.is_empty() {
            return;
        }
        let open = self.pending.as_ref().map(|p| &p.key);
        let now = open.or(self.workspace.open.as_ref().map(|o| &o.key));
        let position = now.and_then(|key| keys.iter().position(|k| k == key));
        let next = position.map_or(0, |p| {
            (p as i64 + i64::from(step)).clamp(0, keys.len() as i64 - 1) as usize
        });
        if position != Some(next) {
            self.open_series(keys[next].clone());
        }
    }

    /// One slice of a stack that still loads.
    pub(super) fn slice_arrived(
        &mut self,
        volume: VolumeId,
        slice: usize,
        data: Arc<Volume>,
        auto_window: VoiWindow,
    ) {
        let Some(pending) = self.pending.clone().filter(|p| p.volume == volume) else {
            return;
        };
        let loading = Some((pending.job, slice, pending.total));
        if let Some(open) = self
            .workspace
            .open
            .as_mut()
            .filter(|open| open.id == volume)
        {
            open.data = data;
            open.loading = loading;
            open.revision += 1;
            self.workspace.crosshair_lps = open.data.geometry.center_lps();
        } else {
            let key = pending.key;
            let open = OpenVolume {
                id: volume,
                key,
                data,
                loading,
                revision: 0,
                auto_window,
            };
            self.show_volume(open);
        }
    }

    /// All voxels are there.
    pub(super) fn loaded(&mut self, volume: VolumeId, data: Arc<Volume>, auto_window: VoiWindow) {
        let Some(pending) = self.pending.take_if(|p| p.volume == volume) else {
            return;
        };
        let revision = self
            .workspace
            .open
            .as_ref()
            .filter(|open| open.id == volume)
            .map_or(0, |open| open.revision + 1);
        let key = pending.key;
        let open = OpenVolume {
            id: volume,
            key,
            data,
            loading: None,
            revision,
            auto_window,
        };
        self.show_volume(open);
        if let Some(path) = self.pending_segmentation.take() {
            self.open_segmentation(path);
        }
        self.go_on_with_open();
    }

    pub(super) fn show_volume(&mut self, open: OpenVolume) {
        if self
            .results
            .as_ref()
            .is_some_and(|results| results.volume != open.id)
        {
            self.results = None;
            self.replaced = None;
        }
        if self.findings.as_ref().is_some_and(|f| f.volume != open.id) {
            self.findings = None;
            self.drop_half_said();
        }
        self.choose_model_for(&open.data.modality);
        self.workspace.show(open);
        self.ask_estimate();
    }

    /// Where the chosen model is for another kind of image and one for this kind is there, that.
    fn choose_model_for(&mut self, modality: &str) {
        let suits = |m: &ModelSummary| same_kind(&m.modality, modality);
        let chosen = self
            .models
            .iter()
            .find(|m| Some(&m.key) == self.selected_model.as_ref());
        if chosen.is_some_and(suits) {
            return;
        }
        if let Some(model) = self.models.iter().find(|m| suits(m)) {
            self.selected_model = Some(model.key.clone());
        }
    }

    /// A load that failed or was cancelled leaves what was shown before; a lone slice goes.
    pub(super) fn drop_loading(&mut self, job: JobId) {
        if self.pending.as_ref().is_some_and(|p| p.job == job) {
            self.pending = None;
        }
        let loads = |open: &OpenVolume| open.loading.is_some_and(|(loading, ..)| loading == job);
        if self.workspace.open.as_ref().is_some_and(loads) {
            self.workspace.open = None;
        }
    }

    pub(super) fn scroll(&mut self, view: ViewPlane, steps: i64) {
        self.workspace.active = view;
        if self
            .workspace
            .open
            .as_ref()
            .is_some_and(|open| open.loading.is_some())
        {
            let wanted = self.pending.as_ref().map_or(0, |p| p.wanted as i64);
            self.want_slice((wanted + steps).max(0) as usize);
        } else {
            self.workspace.scroll(view, steps);
        }
    }

    pub(super) fn scroll_to(&mut self, view: ViewPlane, index: usize) {
        self.workspace.active = view;
        if self
            .workspace
            .open
            .as_ref()
            .is_some_and(|open| open.loading.is_some())
        {
            self.want_slice(index);
        } else {
            self.workspace.scroll_to(view, index);
        }
    }

    fn want_slice(&mut self, slice: usize) {
        let Some(pending) = &mut self.pending else {
            return;
        };
        let slice = slice.min(pending.total - 1);
        if slice == pending.wanted {
            return;
        }
        pending.wanted = slice;
        let (key, volume) = (pending.key.clone(), pending.volume);
        let SeriesKey::Stack { series, .. } = &key else {
            return;
        };
        let Some(found) = self.lean(series) else {
            return;
        };
        // Only the last wish matters.
        self.actions
            .retain(|action| !matches!(action, Action::LoadSlice { .. }));
        self.actions.push(Action::LoadSlice {
            key,
            series: Box::new(found),
            volume,
            slice,
        });
    }

    pub(super) fn next_view(&mut self, step: i32) {
        let order = ViewPlane::ALL;
        let now = order
            .iter()
            .position(|&v| v == self.workspace.active)
            .unwrap_or(0) as i32;
        let next = order[(now + step).rem_euclid(3) as usize];
        self.workspace.active = next;
        if self.workspace.maximized.is_some() {
            self.workspace.maximized = Some(next);
        }
    }

    pub(super) fn preset(&mut self, key: u8) {
        let Some(open) = &self.workspace.open else {
            return;
        };
        if let Some((_, named)) = open
            .windows()
            .into_iter()
            .find(|(number, _)| *number == key)
        {
            self.workspace.window = named.window;
            self.workspace.window_name = Some(named.name);
        }
    }
}

/// The only DICOM SEG that was opened with a series of the same study.
fn segmentation_of(found: &Browser, key: &SeriesKey) -> Option<PathBuf> {
    let SeriesKey::Stack { series, .. } = key else {
        return None;
    };
    let (_, study, _) = found.find(series)?;
    let mut files = study
        .series
        .iter()
        .filter(|s| s.modality == "SEG")
        .flat_map(|s| &s.objects);
    match (files.next(), files.next()) {
        (Some(crate::study::FileSource::Path(path)), None) => Some(path.clone()),
        _ => None,
    }
}

fn study_head(study: &Study) -> Study {
    Study {
        study_instance_uid: study.study_instance_uid.clone(),
        date: study.date.clone(),
        time: study.time.clone(),
        description: study.description.clone(),
        study_id: study.study_id.clone(),
        accession: study.accession.clone(),
        institution: study.institution.clone(),
        series: Vec::new(),
    }
}
