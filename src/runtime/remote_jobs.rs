//! Runs on servers as jobs: seen before they leave, kept until they are done.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::batch_engine::{BatchError, LocalEngine};
use super::clock::now_utc;
use super::home::Home;
use super::models::{LoadedModel, RunError};
use super::remote::{Leaving, Server};
use crate::audit::{self, Log};
use crate::batch::{self, Engine, Failure, Plan, Row, Summary, items};
use crate::inference;
use crate::monitoring::Through;
use crate::offload::{self, Client, Endpoints, ProfileError, Secrets};
use crate::queue::{self, Job, JobId, Queue, State};
use crate::task::{Cancelled, Task};
use crate::volume::Volume;

/// Why a job could not be made or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// As asked.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The queue.
    #[error(transparent)]
    Queue(#[from] queue::Error),
    /// The endpoints.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The server.
    #[error(transparent)]
    Server(#[from] offload::Error),
    /// The model, here or there.
    #[error(transparent)]
    Model(#[from] RunError),
    /// The batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A form of results that this version does not know.
    #[error("this version does not know the result form {0:?}")]
    Format(String),
    /// Weights that are others than when the job was made.
    #[error(
        "the model {0} has other weights than when the job was made: cancel the job and begin anew"
    )]
    OtherWeights(String),
    /// A job without a folder for results.
    #[error("the job was begun in the window: go on with it there, under Analysis, Server jobs")]
    Shown,
    /// A series that cannot be read.
    #[error("{0}")]
    Series(String),
}

impl From<inference::Error> for RemoteError {
    fn from(error: inference::Error) -> Self {
        Self::Model(error.into())
    }
}

impl From<audit::Error> for RemoteError {
    fn from(error: audit::Error) -> Self {
        Self::Batch(error.into())
    }
}

impl From<batch::Error> for RemoteError {
    fn from(error: batch::Error) -> Self {
        Self::Batch(error.into())
    }
}

/// What a job says that was under way when its process ended.
pub(super) const INTERRUPTED: &str = "interrupted";

/// A model over studies, its networks on a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteWork {
    /// Files, folders, archives; whole paths.
    pub inputs: Vec<PathBuf>,
    /// Folder for results; a whole path.
    pub output: PathBuf,
    /// `id@version`.
    pub model: String,
    /// SHA-256 of the weights that the package here has.
    pub model_sha256: String,
    /// Result forms by name.
    pub formats: Vec<String>,
    /// As the model's plans say, or one pass each.
    pub mirroring: bool,
    /// Channels that a person has named.
    pub channels: Vec<(String, String)>,
    /// Which of the files' images it is for, where a window shows the result and no file is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<String>,
}

impl RemoteWork {
    /// What a plan does with a model.
    ///
    /// # Errors
    /// [`RunError`] for a model that is not there.
    pub fn new(home: &Home, model: &str, plan: &Plan) -> Result<Self, RunError> {
        let loaded = LoadedModel::open(home, model, Through::Batch)?;
        let whole = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        Ok(Self {
            inputs: plan.inputs.iter().map(whole).collect(),
            output: whole(&plan.output),
            model: loaded.key(),
            model_sha256: loaded.sha256().to_owned(),
            formats: plan.formats.iter().map(|f| f.name().to_owned()).collect(),
            mirroring: plan.mirroring,
            channels: plan.channels.clone(),
            shown: None,
        })
    }

    /// What is finished already is never done again.
    fn plan(&self) -> Result<Plan, RemoteError> {
        if self.shown.is_some() {
            return Err(RemoteError::Shown);
        }
        let format = |name: &String| name.parse().map_err(|_| RemoteError::Format(name.clone()));
        Ok(Plan {
            inputs: self.inputs.clone(),
            output: self.output.clone(),
            formats: self.formats.iter().map(format).collect::<Result<_, _>>()?,
            explain: None,
            resume: true,
            mirroring: self.mirroring,
            channels: self.channels.clone(),
        })
    }
}

/// A job that this process has taken.
pub struct RemoteRun {
    pub(super) job: Job<RemoteWork>,
    pub(super) running: queue::Running,
    pub(super) server: Arc<Server>,
    pub(super) engine: LocalEngine,
    log: Log,
}

impl RemoteRun {
    /// Takes a job; nothing is sent.
    ///
    /// # Errors
    /// [`RemoteError`]: the endpoint, the model or the job is not there, or another process runs it.
    pub fn take(home: &Home, queue: &Queue, id: &JobId) -> Result<Self, RemoteError> {
        let running = queue.take(id)?;
        let job: Job<RemoteWork> = queue.find(&id.to_string())?;
        let profile = Endpoints::load(home.root())?.find(&job.endpoint)?.clone();
        let client = Client::new(&profile, Secrets::of_environment())?;
        let model = LoadedModel::open(home, &job.work.model, Through::Batch)?;
        if model.sha256() != job.work.model_sha256 {
            return Err(RemoteError::OtherWeights(job.work.model));
        }
        let name = job.work.model.split('@').next().unwrap_or_default();
        let server = Arc::new(Server::new(client, name, Arc::clone(&running.answers)));
        let log = Log::open(home.root())?;
        let engine = LocalEngine {
            model: model.with_networks_on(Arc::clone(&server) as _)?,
            mirroring: job.work.mirroring,
            explain: None,
            server: Some((Arc::clone(&server), Log::open(home.root())?)),
        };
        Ok(Self {
            job,
            running,
            server,
            engine,
            log,
        })
    }

    /// The job as it is.
    pub const fn job(&self) -> &Job<RemoteWork> {
        &self.job
    }

    /// Asks the server whether it has the model, and counts what would leave: reads every series
    /// that is not finished, and sends none.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn leaving(&self, task: &Task) -> Result<Leaving, RemoteError> {
        let mut leaving = self.asked(task)?;
        let plan = self.job.work.plan()?;
        let (worklist, files) = self.engine.index(&plan.inputs, task)?;
        let all = items(worklist, files, &self.engine.model(), &plan);
        let suited: Vec<_> = all.iter().filter(|item| item.unsuited.is_none()).collect();
        task.begin("Counting what would leave", suited.len());
        for (n, item) in suited.iter().enumerate() {
            task.check()?;
            let volume = match self.engine.load(&item.source, task) {
                Ok(volume) => volume,
                Err(Failure::Cancelled) => return Err(Cancelled.into()),
                // It will be a row of the table.
                Err(Failure::Reason(_)) => continue,
            };
            self.count(&mut leaving, &volume, task)?;
            task.report(n + 1, suited.len());
        }
        leaving.priced(self.server.client().profile());
        Ok(leaving)
    }

    /// Asks the server whether it has the model; nothing is counted yet.
    pub(super) fn asked(&self, task: &Task) -> Result<Leaving, RemoteError> {
        task.begin("Asking the server", 0);
        self.server.check(task)?;
        let client = self.server.client();
        let key = client.server_key().map(|k| k.to_string());
        let name = self.job.work.model.split('@').next().unwrap_or_default();
        Ok(Leaving::new(client.profile(), name, key))
    }

    /// Adds what would leave of one series.
    pub(super) fn count(
        &self,
        leaving: &mut Leaving,
        volume: &Volume,
        task: &Task,
    ) -> Result<(), RemoteError> {
        let mirroring = self.job.work.mirroring;
        if let Some(planned) = self.engine.model.plan(volume, mirroring, task)? {
            leaving.series += 1;
            leaving.requests += planned.traffic.calls;
            leaving.sent_bytes += planned.traffic.sent_bytes;
            leaving.received_bytes += planned.traffic.received_bytes;
            leaving.heads += usize::from(may_show_a_face(volume));
        }
        Ok(())
    }

    /// Does what is left of the job. How it ended is on disk when this returns.
    ///
    /// # Errors
    /// [`RemoteError`] where not even a batch could begin; the job waits then.
    pub fn run(
        mut self,
        task: &Task,
        on_row: impl FnMut(usize, &Row),
    ) -> Result<(Job<RemoteWork>, Summary, Vec<Row>), RemoteError> {
        let plan = self.job.work.plan()?;
        // What a kill from here on leaves behind.
        self.job.state = State::Waiting {
            why: INTERRUPTED.to_owned(),
        };
        self.running.update(&self.job)?;
        let ran = batch::run(&self.engine, &self.log, &plan, task, on_row);
        let [sent, received] = self.server.moved();
        self.job.sent_bytes += sent;
        self.job.received_bytes += received;
        let waiting = |why: &str| State::Waiting {
            why: why.to_owned(),
        };
        self.job.state = match (&ran, self.server.trouble()) {
            (_, Some(why)) => State::Waiting { why },
            (Err(error), _) => waiting(&error.to_string()),
            (Ok((summary, _)), _) if summary.cancelled => waiting("stopped"),
            (Ok((summary, _)), _) if summary.done == 0 && summary.failed > 0 => State::Failed {
                why: summary.words(),
            },
            (Ok((summary, _)), _) => State::Done {
                words: summary.words(),
            },
        };
        self.running.update(&self.job)?;
        let (summary, rows) = ran?;
        Ok((self.job, summary, rows))
    }
}

/// Takes a job back that no process runs.
///
/// # Errors
/// [`RemoteError::Queue`].
pub fn cancel(queue: &Queue, id: &JobId) -> Result<Job<RemoteWork>, RemoteError> {
    let running = queue.take(id)?;
    let mut job: Job<RemoteWork> = queue.find(&id.to_string())?;
    if !job.state.is_over() {
        job.state = State::Cancelled {
            words: if job.sent_bytes == 0 && job.state.words() != INTERRUPTED {
                "nothing had been sent".to_owned()
            } else {
                "what had been sent is with the server; its answers were removed here".to_owned()
            },
        };
        running.update(&job)?;
    }
    Ok(job)
}

/// A new job that waits.
///
/// # Errors
/// [`RemoteError`].
pub fn enqueue(
    queue: &Queue,
    endpoint: &str,
    work: RemoteWork,
) -> Result<Job<RemoteWork>, RemoteError> {
    let created = now_utc().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    Ok(queue.add(&created, endpoint, work)?)
}

/// Whether the outline of a face may be seen in the slices: a head, or nobody says what, that is
/// large enough (Schwarz et al. 2021 match such images with photographs).
fn may_show_a_face(volume: &Volume) -> bool {
    const HEADS: [&str; 7] = ["HEAD", "BRAIN", "SKULL", "FACE", "NECK", "ORBIT", "SINUS"];
    let part = volume.source.body_part.to_ascii_uppercase();
    let sliced = ["MR", "CT", "PT", ""].contains(&volume.modality.as_str());
    let (dims, spacing) = (volume.geometry.dims(), volume.geometry.spacing_mm());
    let large = (0..3).all(|axis| dims[axis] as f64 * spacing[axis] >= 100.0);
    sliced && large && (part.trim().is_empty() || HEADS.iter().any(|head| part.contains(head)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::phantom::{head_geometry, head_mr};

    #[test]
    fn heads_are_doubted_and_small_or_other_parts_are_not() {
        let mut volume = head_mr(1, head_geometry()).volume;
        assert!(may_show_a_face(&volume));
        volume.source.body_part = String::new();
        assert!(may_show_a_face(&volume));
        volume.source.body_part = "ABDOMEN".to_owned();
        assert!(!may_show_a_face(&volume));
        volume.source.body_part = "HEADNECK".to_owned();
        volume.modality = "CT".to_owned();
        assert!(may_show_a_face(&volume));
        volume.modality = "US".to_owned();
        assert!(!may_show_a_face(&volume));
    }
}
