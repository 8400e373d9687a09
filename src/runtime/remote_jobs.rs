//! What a run on a server is as a job: kept until it is done.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::batch_engine::BatchError;
use super::clock::now_utc;
use super::home::Home;
use super::models::{LoadedModel, RunError};
use crate::audit;
use crate::batch::{self, Plan};
use crate::inference;
use crate::monitoring::Through;
use crate::offload::{self, PolicyError, ProfileError, SpendingError};
use crate::queue::{self, Job, JobId, Queue, State};
use crate::task::Cancelled;

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
    /// A job on several servers, of which a window shows one.
    #[error("the job was begun for several servers: go on with `negatoscope queue resume`")]
    Several,
    /// What a person's policy says.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// What was spent cannot be counted.
    #[error(transparent)]
    Spending(#[from] SpendingError),
    /// More than a person's policy allows.
    #[error("nothing is sent: {0}")]
    Over(String),
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
    /// Whether this machine works on it too, beside the server.
    #[serde(default)]
    pub here_too: bool,
    /// Further endpoints that work on it, beside the job's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also_on: Vec<String>,
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
            here_too: false,
            also_on: Vec::new(),
        })
    }

    /// The model's id: its name on a server.
    pub fn model_id(&self) -> &str {
        self.model.split('@').next().unwrap_or_default()
    }

    /// All endpoints of a job, its own first.
    pub fn endpoints<'a>(&'a self, own: &'a str) -> impl Iterator<Item = &'a str> {
        std::iter::once(own).chain(self.also_on.iter().map(String::as_str))
    }

    /// The names of [`RemoteWork::endpoints`].
    pub fn places(&self, own: &str) -> String {
        self.endpoints(own).collect::<Vec<_>>().join(", ")
    }

    /// What is finished already is never done again.
    pub(super) fn plan(&self) -> Result<Plan, RemoteError> {
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
