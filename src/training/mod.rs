//! Networks trained on this machine: data sets in, a model package with measured figures out.
//!
//! A network is a [`Graph`](crate::model::graph::Graph) from the start, so what was trained runs
//! as it is. Its forward and backward passes are the project's kernels, put into candle's tape as
//! one operation; losses are another. Every number of a run depends on the recipe, the data and
//! the machine alone: not on threads, time or kills.
//! Absent on purpose: windows, downloads, data of its own.

mod augment;
mod batches;
pub mod build;
pub mod calibrate;
mod chance;
mod checkpoint;
mod class_figures;
pub mod compare;
pub mod compress;
pub mod course;
pub mod data;
pub mod evaluate;
mod examples;
pub mod kept_masks;
pub mod leaks;
pub mod loss;
pub mod metrics;
pub mod network;
mod npz;
pub mod optimizer;
mod parameters;
mod picture;
mod recipe;
pub mod result;
mod run;
pub mod tape;
pub mod validate;

use std::path::PathBuf;

pub use augment::Augmentation;
pub use build::Architecture;
pub use chance::Chance;
pub use checkpoint::{EpochFigures, State, history};
pub use evaluate::Evaluation;
pub use examples::{Answer, Example};
pub use loss::{Loss, LossKind};
pub use network::{Mode, Network, Tape};
pub use parameters::{Needed, Parameters, Role, Slot, Start};
pub use picture::{Picture, Values};
pub use recipe::{DataRules, Layout, ModelWords, Recipe, StartRules, TrainingRules};
pub use run::{CHECKPOINT, Told, Trained, train};

/// Why training or an evaluation cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// As asked.
    #[error(transparent)]
    Cancelled(#[from] crate::task::Cancelled),
    /// A recipe that cannot be followed.
    #[error("the recipe cannot be used, {reason}: {path}")]
    Recipe {
        /// What is wrong.
        reason: String,
        /// The file.
        path: PathBuf,
    },
    /// Data that cannot be used.
    #[error("{reason}: {path}")]
    Data {
        /// What is wrong.
        reason: String,
        /// The file or folder.
        path: PathBuf,
    },
    /// The system refused.
    #[error("could not be {action}: {path}")]
    Io {
        /// `read` or `written`.
        action: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
        /// The file.
        path: PathBuf,
    },
    /// A network that cannot be trained.
    #[error("the network cannot be trained: {0}")]
    Network(String),
    /// The loss is no number any more.
    #[error(
        "the loss became {loss} in step {step} (epoch {epoch}): a lower learning rate or gradient clipping may help; the last good state is kept"
    )]
    Diverged {
        /// What it became.
        loss: f64,
        /// The step.
        step: u64,
        /// The epoch.
        epoch: usize,
    },
    /// A checkpoint of another run.
    #[error("the checkpoint belongs to another run, {reason}: {path}")]
    Checkpoint {
        /// What differs.
        reason: String,
        /// The file.
        path: PathBuf,
    },
    /// A classifier cannot be calibrated so.
    #[error("the model cannot be calibrated: {0}")]
    Calibration(String),
    /// A model that cannot be made smaller.
    #[error("the model cannot be compressed, {0}")]
    Compression(String),
    /// candle refused.
    #[error("a tensor operation failed")]
    Candle(#[from] candle_core::Error),
    /// The model that was made is refused by its own checks.
    #[error("the result is no usable model")]
    Package(#[from] crate::model::Error),
}
