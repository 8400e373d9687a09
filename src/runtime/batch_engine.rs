//! What a batch needs, from the rooms that the window uses too.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};

use super::carry_out::about_volume;
use super::clock::{RandomUids, now_utc};
use super::explain::{explain_findings, map_pictures};
use super::home::Home;
use super::models::{LoadedModel, RunError};
use super::open::{LoadError, Opened, index_paths, load_file, load_stack};
use super::remote::Server;
use crate::audit::{self, AuditEvent, EventId, Log, ObjectKind, Outcome, ParticipantObject};
use crate::batch::{self, Engine, Failure, ItemSource, ModelIdentity, Plan, Row, Summary};
use crate::export::MapPicture;
use crate::findings::{Assessment, ExplanationMethod, Segmentation};
use crate::inference::Watch;
use crate::monitoring::Through;
use crate::offload::{Measured, Policy};
use crate::study::{Uid, Worklist};
use crate::task::{Cancelled, Task};
use crate::volume::Volume;

/// Why a batch could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// The model.
    #[error(transparent)]
    Model(#[from] RunError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] audit::Error),
    /// The batch itself.
    #[error(transparent)]
    Batch(#[from] batch::Error),
}

/// Loads the model once and runs it over everything in the plan; `on_row` hears every change.
///
/// # Errors
/// [`BatchError`] when it cannot start or keep its table; a series that fails becomes a row.
pub fn run_batch(
    home: &Home,
    model: &str,
    plan: &Plan,
    task: &Task,
    on_row: impl FnMut(usize, &Row),
) -> Result<(Summary, Vec<Row>), BatchError> {
    let model = LoadedModel::open(home, model, Through::Batch)?;
    model.runs_here()?;
    let engine = LocalEngine {
        model,
        mirroring: plan.mirroring,
        explain: plan.explain,
        away: None,
        instead_of: None,
    };
    let log = Log::open(home.root())?;
    Ok(batch::run(&engine, &log, plan, task, on_row)?)
}

/// Files of this machine, and models whose networks run here or on a server.
pub(super) struct LocalEngine {
    pub model: LoadedModel,
    pub mirroring: bool,
    pub explain: Option<ExplanationMethod>,
    pub away: Option<Away>,
    /// The endpoint that could not be reached, where this machine does its work.
    pub instead_of: Option<String>,
}

/// Where networks run that do not run here.
pub(super) struct Away {
    pub server: Arc<Server>,
    pub log: Log,
    pub policy: Policy,
}

impl LocalEngine {
    /// A model's result on the images of its channels; `watch` sees what is known before it is whole.
    pub fn segment_of(
        &self,
        volumes: &[&Volume],
        watch: Option<Watch>,
        task: &Task,
    ) -> Result<Segmentation, Failure> {
        let run = || {
            let (segmentation, _) = self.model.run(volumes, self.mirroring, watch, task)?;
            Ok(segmentation)
        };
        if let Some(away) = &self.away {
            return self.on_record(away, volumes, run);
        }
        let mut segmentation = run().map_err(|error| failure(&error))?;
        self.stands_in(&mut segmentation.provenance.device);
        Ok(segmentation)
    }

    /// What a model of whole images says about each image of a volume.
    pub fn assess_of(&self, volume: &Volume, task: &Task) -> Result<Vec<Assessment>, Failure> {
        let run = || self.model.assess(volume, task);
        if let Some(away) = &self.away {
            return self.on_record(away, &[volume], run);
        }
        let mut found = run().map_err(|error| failure(&error))?;
        for assessment in &mut found {
            self.stands_in(&mut assessment.provenance.device);
        }
        Ok(found)
    }

    /// Says for which server this machine did the work.
    fn stands_in(&self, device: &mut String) {
        if let Some(endpoint) = &self.instead_of {
            *device = format!(
                "{device}, in place of model server {endpoint}, which could not be reached"
            );
        }
    }

    /// One run with what leaves on record before it does, and how it ended after.
    fn on_record<T>(
        &self,
        Away {
            server,
            log,
            policy,
        }: &Away,
        volumes: &[&Volume],
        run: impl FnOnce() -> Result<T, RunError>,
    ) -> Result<T, Failure> {
        if let Some(why) = volumes.iter().find_map(|v| policy.keeps(&v.modality)) {
            return Err(Failure::Reason(why));
        }
        let event = || {
            let event = volumes.iter().fold(
                AuditEvent::new(EventId::Export, now_utc()),
                |event, volume| about_volume(event, volume),
            );
            event.about(server.object(&self.model.key(), self.model.sha256()))
        };
        server.take_measured();
        let started = Instant::now();
        let act = log.begin(&event()).map_err(|e| Failure::from_error(&e))?;
        let ran = run();
        let measured = Measured {
            voxels: volumes[0].geometry.voxel_count() as u64,
            seconds: started.elapsed().as_secs_f64(),
            ..server.take_measured()
        };
        let object = ParticipantObject::new(ObjectKind::File, "what was exchanged")
            .with("requests", measured.requests)
            .with("sent_bytes", measured.sent_bytes)
            .with("received_bytes", measured.received_bytes)
            .with("cost", format!("{:.4}", measured.cost));
        let end = event().about(object);
        let end = match &ran {
            Ok(_) => end,
            Err(RunError::Cancelled(_)) => end.failed(
                Outcome::MinorFailure,
                "cancelled; the server may still be working on what was sent",
            ),
            Err(error) => end.failed(Outcome::SeriousFailure, error),
        };
        act.close(&end).map_err(|e| Failure::from_error(&e))?;
        match ran {
            Ok(found) => {
                // Answers of an earlier run took no time in this one.
                if measured.requests > 0 {
                    self.model.keep(&measured);
                }
                Ok(found)
            }
            // The rest would meet the same: the job waits, or ends.
            Err(_) if server.trouble().or(server.ended()).is_some() => Err(Failure::Cancelled),
            Err(error) => Err(failure(&error)),
        }
    }
}

fn failure(error: &RunError) -> Failure {
    match error {
        RunError::Cancelled(_) => Failure::Cancelled,
        error => Failure::from_error(error),
    }
}

/// What a batch knows of a model.
pub(super) fn identity(model: &LoadedModel, mirroring: bool) -> ModelIdentity {
    ModelIdentity {
        key: model.key(),
        sha256: model.sha256().to_owned(),
        modality: model.modality().to_owned(),
        channels: model.channels().to_vec(),
        classifies: model.classifies(),
        plain_images: model.takes_plain_images(),
        unmirrored: model.mirrors() && !mirroring,
    }
}

/// All voxels of one of an item's images.
pub(super) fn load_item(source: &ItemSource, task: &Task) -> Result<Volume, Failure> {
    let loaded = match source {
        ItemSource::Stack { headers, stack } => {
            let (patient, study, series) = headers.as_ref();
            load_stack(patient, study, series, *stack, task)
        }
        ItemSource::File(path) => load_file(path, task),
        ItemSource::Nothing => Err(LoadError::Unknown),
    };
    loaded.map_err(|error| match error {
        LoadError::Cancelled(_) => Failure::Cancelled,
        error => Failure::from_error(&error),
    })
}

impl Engine for LocalEngine {
    fn model(&self) -> ModelIdentity {
        identity(&self.model, self.mirroring)
    }

    fn index(&self, paths: &[PathBuf], task: &Task) -> Result<(Worklist, Vec<PathBuf>), Cancelled> {
        let Opened { worklist, files } = index_paths(paths, task)?;
        Ok((worklist, files))
    }

    fn load(&self, source: &ItemSource, task: &Task) -> Result<Volume, Failure> {
        load_item(source, task)
    }

    fn needed_bytes(&self, volumes: &[Volume]) -> u64 {
        volumes
            .first()
            .map_or(0, |v| self.model.needed_bytes(v, self.mirroring))
    }

    fn available_bytes(&self) -> u64 {
        super::models::available_bytes()
    }

    fn segment(&self, volumes: &[Volume], task: &Task) -> Result<Segmentation, Failure> {
        let volumes: Vec<&Volume> = volumes.iter().collect();
        self.segment_of(&volumes, None, task)
    }

    fn assess(&self, volume: &Volume, task: &Task) -> Result<Vec<Assessment>, Failure> {
        self.assess_of(volume, task)
    }

    fn explain(
        &self,
        assessments: &mut [Assessment],
        volume: &Volume,
        task: &Task,
    ) -> Result<Vec<MapPicture>, Failure> {
        explain_findings(&self.model, assessments, volume, self.explain, task)
            .map_err(|error| failure(&error))?;
        Ok(map_pictures(assessments, volume))
    }

    fn now(&self) -> DateTime<Utc> {
        now_utc()
    }

    fn fresh_uid(&self) -> Uid {
        RandomUids::fresh()
    }
}
