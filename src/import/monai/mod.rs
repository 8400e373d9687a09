//! MONAI bundles, as folders and as ZIP files: `configs/metadata.json`, `configs/inference.json` (or `.yaml`) and `models/model.pt`.
//!
//! The configuration's components become plain values: a graph over the names of the state dict,
//! transforms, windows and decisions in the program's words ([`crate::model::monai`]). No Python
//! expression is ever evaluated; a component or argument that is not understood is refused by name.
//! Absent on purpose: running, TorchScript, training configurations.

mod config;
mod files;
mod literal;
mod metadata;
pub mod nets;
mod output;
mod package;
mod transforms;
mod yaml;
mod zipped;

use std::path::PathBuf;

pub use config::{Component, Config};
pub use files::is_bundle;
pub use package::{package, safetensors};

use super::pytorch;

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused, or a file is missing.
    #[error("could not be read: {path}")]
    Io {
        /// What the system said.
        #[source]
        source: std::io::Error,
        /// The file.
        path: PathBuf,
    },
    /// Something is missing or not understood.
    #[error("{what}: {path}")]
    NotUnderstood {
        /// The key, class or tensor by its name, and what is wrong with it.
        what: String,
        /// The file.
        path: PathBuf,
    },
    /// The weights.
    #[error(transparent)]
    Checkpoint(#[from] pytorch::Error),
}
