//! Background work and messages, as the app sees them.

use std::sync::Arc;

use crate::task::Task;

/// Names a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub u64);

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobKind {
    /// Reading headers.
    Index,
    /// Reading voxels.
    Load,
    /// Running a model.
    Model,
    /// Showing where the evidence lies.
    Explain,
    /// Writing results.
    Export,
    /// Many studies.
    Batch,
    /// Training a model, or looking on.
    Training,
}

/// One piece of background work.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// What it does.
    pub kind: JobKind,
    /// For people.
    pub title: String,
    /// Progress and cancellation.
    pub task: Arc<Task>,
}

/// How much a notice matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeLevel {
    /// Good to know.
    Info,
    /// It worked, but not as asked.
    Warning,
    /// Something could not be done.
    Error,
}

/// A message: what happened, what it means, what can be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// How much it matters.
    pub level: NoticeLevel,
    /// One line.
    pub title: String,
    /// What it means and what can be done.
    pub text: String,
    /// The chain of causes, under "Details".
    pub details: Vec<String>,
}

impl Notice {
    /// From an error and its sources.
    pub fn from_error(title: &str, what_to_do: &str, error: &dyn std::error::Error) -> Self {
        let mut details = vec![error.to_string()];
        let mut source = error.source();
        while let Some(cause) = source {
            details.push(cause.to_string());
            source = cause.source();
        }
        Self {
            level: NoticeLevel::Error,
            title: title.to_owned(),
            text: what_to_do.to_owned(),
            details,
        }
    }

    /// A message without an error behind it.
    pub fn info(title: &str, text: &str) -> Self {
        Self {
            level: NoticeLevel::Info,
            title: title.to_owned(),
            text: text.to_owned(),
            details: Vec::new(),
        }
    }
}
