//! Models: listing, importing, estimating, running.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::carry_out::failed;
use super::clock::now_utc;
use super::compute::behind_the_window;
use super::home::Home;
use super::jobs::Stop;
use super::model_import::import_models;
use super::monitoring::Watched;
use super::remote_view;
use crate::app::{Event, ModelSummary, Notice, RunEstimate, Traffic};
use crate::findings::{Assessment, Explanation, ExplanationMethod, Segmentation};
use crate::import;
use crate::inference::{
    self, Classifier, Elsewhere, Executor, Model, RunPlan, Settings, Watch, device_name,
    envelope_issues,
};
use crate::model::{self, Manifest, Registry};
use crate::monitoring::{Store, Through};
use crate::offload::{History, Measured, slowness_here};
use crate::task::{Cancelled, Task};
use crate::volume::{LabelStatistics, Volume, label_statistics};

/// Why a model was not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// As asked.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The package.
    #[error(transparent)]
    Package(#[from] model::Error),
    /// The run.
    #[error(transparent)]
    Inference(inference::Error),
}

impl From<inference::Error> for RunError {
    fn from(error: inference::Error) -> Self {
        match error {
            inference::Error::Cancelled(cancelled) => Self::Cancelled(cancelled),
            other => Self::Inference(other),
        }
    }
}

/// A model with its weights in memory, for any number of runs. A copy shares them.
#[derive(Clone)]
pub struct LoadedModel {
    ready: Arc<Ready>,
    /// Where its runs are kept for monitoring.
    store: Store,
    /// What its runs here took.
    history: History,
    through: Through,
    /// Its networks run there; here when `None`.
    elsewhere: Option<Arc<dyn Elsewhere>>,
}

/// By what it gives.
enum Ready {
    Segments(Box<Model>),
    Findings(Box<Classifier>),
}

impl LoadedModel {
    /// Finds `ID` or `ID@VERSION` (also `brainchop:N`), checks its hash and builds the network.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn open(home: &Home, wanted: &str, through: Through) -> Result<Self, RunError> {
        let registry = Registry::new(home.models());
        let wanted = wanted.replace("brainchop:", "brainchop-");
        let package = registry.load(&wanted)?;
        let ready = if package.manifest().classification.is_some() {
            Ready::Findings(Box::new(Classifier::new(package)?))
        } else {
            let load = |id: &str| registry.load(id).map_err(|e| e.to_string());
            Ready::Segments(Box::new(Model::new(package, &load)?))
        };
        Ok(Self {
            ready: Arc::new(ready),
            store: Store::new(home.root()),
            history: History::new(home.root()),
            through,
            elsewhere: None,
        })
    }

    /// The same model with its networks on another machine; on this one with `None`.
    #[must_use]
    pub fn with_networks_on(&self, elsewhere: Option<Arc<dyn Elsewhere>>) -> Self {
        Self {
            elsewhere,
            ..self.clone()
        }
    }

    /// Whether its networks can run on this machine.
    ///
    /// # Errors
    /// [`inference::Error::OnAServer`] for a package without weights.
    pub fn runs_here(&self) -> Result<(), RunError> {
        if self.manifest().is_on_a_server() {
            return Err(inference::Error::OnAServer(self.key()).into());
        }
        Ok(())
    }

    /// Names of its networks for another machine: a cascade's stages and folds; one empty name where
    /// there is one network.
    pub fn parts(&self) -> Vec<String> {
        match &*self.ready {
            Ready::Segments(model) => model.parts(),
            Ready::Findings(_) => vec![String::new()],
        }
    }

    fn settings(&self, mirroring: bool) -> Settings {
        Settings {
            elsewhere: self.elsewhere.clone(),
            ..settings(mirroring)
        }
    }

    /// What a run on this volume would need and exchange.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn plan(&self, volume: &Volume, mirroring: bool, task: &Task) -> Result<RunPlan, RunError> {
        self.plan_with(volume, &self.settings(mirroring), task)
    }

    /// As [`LoadedModel::plan`], with the networks on a machine of one's choice, or here.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn plan_at(
        &self,
        elsewhere: Option<Arc<dyn Elsewhere>>,
        volume: &Volume,
        mirroring: bool,
        task: &Task,
    ) -> Result<RunPlan, RunError> {
        let settings = Settings {
            elsewhere,
            ..settings(mirroring)
        };
        self.plan_with(volume, &settings, task)
    }

    fn plan_with(
        &self,
        volume: &Volume,
        settings: &Settings,
        task: &Task,
    ) -> Result<RunPlan, RunError> {
        Ok(match &*self.ready {
            Ready::Segments(model) => model.plan(volume, settings, task)?,
            Ready::Findings(classifier) => classifier.plan(volume, settings)?,
        })
    }

    fn manifest(&self) -> &Manifest {
        match &*self.ready {
            Ready::Segments(model) => model.manifest(),
            Ready::Findings(classifier) => classifier.package().manifest(),
        }
    }

    /// Modality that it is for.
    pub fn modality(&self) -> &str {
        &self.manifest().modality
    }

    /// Names of its channels where it takes several images; else empty.
    pub fn channels(&self) -> &[String] {
        &self.manifest().input.channels
    }

    /// Whether its plans ask for mirrored passes.
    pub fn mirrors(&self) -> bool {
        self.manifest().mirrors()
    }

    /// `id@version`.
    pub fn key(&self) -> String {
        self.manifest().key()
    }

    /// SHA-256 of the weights.
    pub fn sha256(&self) -> &str {
        &self.manifest().weights_sha256
    }

    /// Peak memory that a run on this volume takes beyond the volume; 0 when it cannot be said.
    pub fn needed_bytes(&self, volume: &Volume, mirroring: bool) -> u64 {
        self.plan(volume, mirroring, &Task::new())
            .map_or(0, |plan| plan.needed_bytes)
    }

    /// Runs on the images of its channels (mostly one); the result is on the first one's grid. How
    /// it ends is kept for monitoring.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn run(
        &self,
        volumes: &[&Volume],
        mirroring: bool,
        watch: Option<Watch>,
        task: &Task,
    ) -> Result<(Segmentation, Vec<LabelStatistics>), RunError> {
        let started = Instant::now();
        let watched = Watched::start(&self.store, self.through, self.manifest(), volumes[0]);
        match self.segment(volumes, mirroring, watch, task) {
            Ok((plan, mut segmentation, statistics)) => {
                if self.elsewhere.is_none() {
                    self.keep(&Measured {
                        voxels: volumes[0].geometry.voxel_count() as u64,
                        planned_secs: plan.seconds,
                        seconds: started.elapsed().as_secs_f64(),
                        ..Measured::default()
                    });
                }
                watched.segmented(&plan, &mut segmentation, &statistics);
                Ok((segmentation, statistics))
            }
            Err(error) => {
                watched.stopped(&error);
                Err(error)
            }
        }
    }

    /// Keeps what a run took. A run does not fail for it.
    pub(super) fn keep(&self, run: &Measured) {
        let run = Measured {
            time: now_utc().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            model: self.key(),
            ..run.clone()
        };
        if let Err(error) = self.history.append(&run) {
            tracing::warn!(%error, "what a run took was not kept");
        }
    }

    fn segment(
        &self,
        volumes: &[&Volume],
        mirroring: bool,
        watch: Option<Watch>,
        task: &Task,
    ) -> Result<(RunPlan, Segmentation, Vec<LabelStatistics>), RunError> {
        let settings = Settings {
            watch,
            ..self.settings(mirroring)
        };
        let Ready::Segments(model) = &*self.ready else {
            return Err(RunError::Inference(inference::Error::Input(
                "it gives findings of whole images, not segments".to_owned(),
            )));
        };
        let found = model.run_channels(volumes, &settings, task)?;
        let statistics = label_statistics(volumes[0], &found.segmentation.map);
        Ok((found.plan, found.segmentation, statistics))
    }

    /// What a run would hand to `elsewhere`, as far as that lets it go: nothing is kept of it.
    pub(super) fn rehearse(
        &self,
        volumes: &[&Volume],
        mirroring: bool,
        elsewhere: Arc<dyn Elsewhere>,
        task: &Task,
    ) -> Result<(), RunError> {
        let settings = Settings {
            elsewhere: Some(elsewhere),
            ..settings(mirroring)
        };
        match &*self.ready {
            Ready::Segments(model) => model.run_channels(volumes, &settings, task).map(drop)?,
            Ready::Findings(classifier) => {
                assess_all(classifier, volumes[0], &settings, task)?;
            }
        }
        Ok(())
    }

    /// Whether it gives findings of whole images.
    pub fn classifies(&self) -> bool {
        matches!(*self.ready, Ready::Findings(_))
    }

    /// Ways of explaining its findings, the best first.
    pub fn explanation_methods(&self) -> Vec<ExplanationMethod> {
        match &*self.ready {
            Ready::Findings(classifier) => classifier.explanation_methods(),
            Ready::Segments(_) => Vec::new(),
        }
    }

    /// A map of the evidence for a finding in image `k` of a volume.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn explain(
        &self,
        volume: &Volume,
        k: usize,
        finding: &str,
        method: ExplanationMethod,
        task: &Task,
    ) -> Result<Explanation, RunError> {
        let Ready::Findings(classifier) = &*self.ready else {
            return Err(RunError::Inference(inference::Error::Input(
                "it gives segments, which need no explanation".to_owned(),
            )));
        };
        Ok(classifier.explain(volume, k, finding, method, task)?)
    }

    /// Whether it sees plain images one by one.
    pub fn takes_plain_images(&self) -> bool {
        self.manifest().takes_plain_images()
    }

    /// What it says about each image of a volume; how the run ends is kept for monitoring.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn assess(&self, volume: &Volume, task: &Task) -> Result<Vec<Assessment>, RunError> {
        let Ready::Findings(classifier) = &*self.ready else {
            return Err(RunError::Inference(inference::Error::Input(
                "it gives segments, not findings of whole images".to_owned(),
            )));
        };
        let started = Instant::now();
        let watched = Watched::start(&self.store, self.through, self.manifest(), volume);
        let settings = self.settings(true);
        match assess_all(classifier, volume, &settings, task) {
            Ok(mut assessments) => {
                let plan = classifier.plan(volume, &settings).ok();
                // An image that the model is not for takes no time worth knowing.
                let all = assessments.iter().all(|a| a.refused.is_empty());
                if let Some(plan) = plan.as_ref().filter(|_| all && self.elsewhere.is_none()) {
                    self.keep(&Measured {
                        voxels: volume.geometry.voxel_count() as u64,
                        planned_secs: plan.seconds,
                        seconds: started.elapsed().as_secs_f64(),
                        ..Measured::default()
                    });
                }
                watched.assessed(plan.map(|plan| plan.needed_bytes), &mut assessments);
                Ok(assessments)
            }
            Err(error) => {
                watched.stopped(&error);
                Err(error)
            }
        }
    }
}

fn assess_all(
    classifier: &Classifier,
    volume: &Volume,
    settings: &Settings,
    task: &Task,
) -> Result<Vec<Assessment>, RunError> {
    let [.., images] = volume.geometry.dims();
    task.begin("Looking at the images", images);
    (0..images)
        .map(|k| {
            task.check()?;
            let found = classifier.assess(volume, k, settings, task)?;
            task.report(k + 1, images);
            Ok(found)
        })
        .collect()
}

/// A run that starts now, in the memory that is free.
pub(super) fn settings(mirroring: bool) -> Settings {
    Settings {
        executor: Executor::Native,
        available_bytes: available_bytes(),
        mirroring,
        started: now_utc().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        watch: None,
        elsewhere: None,
    }
}

/// The model that was used last, with its weights as they were made ready: between an estimate and
/// the run nothing is read or packed twice.
#[derive(Default)]
pub struct LastModel(Mutex<Option<Arc<LoadedModel>>>);

impl LastModel {
    /// The model, read anew only when another one (or the same with another manifest) is wanted.
    fn open(&self, home: &Home, wanted: &str) -> Result<Arc<LoadedModel>, RunError> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = &*last {
            let entries = Registry::new(home.models()).list();
            if model.key() == wanted && entries.iter().any(|e| e.manifest == *model.manifest()) {
                return Ok(Arc::clone(model));
            }
        }
        // The old one's memory goes first.
        *last = None;
        let model = Arc::new(LoadedModel::open(home, wanted, Through::Window)?);
        *last = Some(Arc::clone(&model));
        Ok(model)
    }
}

/// What the window lists of a model.
pub fn summary_of(entry: &model::Entry) -> ModelSummary {
    let manifest = &entry.manifest;
    ModelSummary {
        key: manifest.key(),
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        intended_use: manifest.intended_use.clone(),
        limits: manifest.limits.clone(),
        license: manifest.license.clone(),
        modality: manifest.modality.clone(),
        segments: manifest.labels.len(),
        channels: manifest.input.channels.clone(),
        mirrors: manifest.mirrors(),
        only_on_a_server: manifest.is_on_a_server(),
        bundled: entry.bundled,
        origin: entry.origin.words(),
    }
}

pub(super) fn list(home: &Home) -> Event {
    let entries = Registry::new(home.models()).list();
    Event::Models(entries.iter().map(summary_of).collect())
}

/// Imports a model folder or file; returns what to tell.
pub(super) fn import(home: &Home, path: &Path) -> Result<Notice, Stop> {
    let advice = "Nothing was installed. A model is a package (manifest.json) or a brainchop folder (model.json).";
    let refused =
        |error: &dyn std::error::Error| failed("The model was not imported", advice, error);
    let packages =
        import_models(home, path, false, || import::read(path)).map_err(|e| refused(&e))?;
    let names: Vec<&str> = packages
        .iter()
        .map(|p| p.manifest().name.as_str())
        .collect();
    Ok(Notice::info("Model imported", &names.join(", ")))
}

/// What a run would need; the reason in words when it cannot be run.
pub(super) fn estimate(
    home: &Home,
    last: &LastModel,
    model: &str,
    volume: &Volume,
    mirroring: bool,
) -> Result<RunEstimate, String> {
    let loaded = last.open(home, model).map_err(|e| e.to_string())?;
    let (red, amber) = envelope_issues(loaded.manifest(), volume);
    let device = device_name(Executor::Native);
    if !red.is_empty() {
        return Ok(RunEstimate {
            traffic: Traffic::Red,
            reasons: red,
            needed_bytes: 0,
            available_bytes: available_bytes(),
            seconds: None,
            device,
            places: Vec::new(),
        });
    }
    let fits = RunEstimate {
        traffic: if amber.is_empty() {
            Traffic::Green
        } else {
            Traffic::Amber
        },
        reasons: amber,
        needed_bytes: 0,
        available_bytes: available_bytes(),
        seconds: None,
        device,
        places: remote_view::place_estimates(home, &loaded, volume, mirroring),
    };
    if loaded.runs_here().is_err() {
        return Ok(fits);
    }
    let model = match &*loaded.ready {
        Ready::Segments(model) => model,
        Ready::Findings(classifier) => {
            return Ok(RunEstimate {
                needed_bytes: classifier.needed_bytes().map_err(|e| e.to_string())?,
                seconds: Some(1.0),
                ..fits
            });
        }
    };
    match model.plan(volume, &settings(mirroring), &Task::new()) {
        // A refusal for memory is an estimate too: the window shows its numbers.
        Err(crate::inference::Error::Memory {
            needed_bytes,
            available_bytes,
        }) => Ok(RunEstimate {
            traffic: Traffic::Amber,
            needed_bytes,
            available_bytes,
            ..fits
        }),
        plan => {
            let plan = plan.map_err(|e| e.to_string())?;
            // As much longer than planned as its runs on this machine were.
            let runs = loaded.history.read().unwrap_or_default();
            let slowness = slowness_here(&runs, &loaded.key()).map_or(1.0, |(factor, _)| factor);
            Ok(RunEstimate {
                needed_bytes: plan.needed_bytes,
                seconds: Some((plan.seconds * slowness).max(1.0)),
                ..fits
            })
        }
    }
}

/// The window's run.
pub(super) fn run(
    home: &Home,
    last: &LastModel,
    model: &str,
    volumes: &[&Volume],
    mirroring: bool,
    watch: Watch,
    task: &Task,
) -> Result<(Segmentation, Vec<LabelStatistics>), Stop> {
    let ended = behind_the_window(|| {
        let loaded = last.open(home, model)?;
        loaded.run(volumes, mirroring, Some(watch), task)
    });
    ended.map_err(|error| stopped(&error))
}

/// A map of the evidence for a finding in an image of a volume.
pub(super) fn explain(
    home: &Home,
    last: &LastModel,
    model: &str,
    (volume, image): (&Volume, usize),
    finding: &str,
    method: ExplanationMethod,
    task: &Task,
) -> Result<Explanation, Stop> {
    let ended = behind_the_window(|| {
        let loaded = last.open(home, model)?;
        loaded.explain(volume, image, finding, method, task)
    });
    ended.map_err(|error| stopped(&error))
}

/// Findings, and ways of explaining them.
pub(super) type Assessed = (Vec<Assessment>, Vec<ExplanationMethod>);

/// What a classifier says about all images of a volume, and how it can be explained; `None` for a
/// model that gives segments.
pub(super) fn assess(
    home: &Home,
    last: &LastModel,
    model: &str,
    volume: &Volume,
    task: &Task,
) -> Result<Option<Assessed>, Stop> {
    let ended = behind_the_window(|| {
        let loaded = last.open(home, model)?;
        if !loaded.classifies() {
            return Ok(None);
        }
        let found = loaded.assess(volume, task)?;
        Ok(Some((found, loaded.explanation_methods())))
    });
    ended.map_err(|error| stopped(&error))
}

fn stopped(error: &RunError) -> Stop {
    match error {
        RunError::Cancelled(_) => Stop::Cancelled,
        error => failed(
            "The model could not be run",
            "The images are not changed. The reason stands under Details.",
            error,
        ),
    }
}

/// Memory that the system can give without swapping; unlimited where it cannot be asked.
pub fn available_bytes() -> u64 {
    let Ok(text) = std::fs::read_to_string("/proc/meminfo") else {
        return u64::MAX;
    };
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"));
    let kb = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kb.map_or(u64::MAX, |kb| kb * 1024)
}
