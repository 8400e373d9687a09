//! What a batch needs from outside.

use std::path::PathBuf;

use chrono::{DateTime, Utc};

use super::ItemSource;
use crate::export::MapPicture;
use crate::findings::{Assessment, Segmentation};
use crate::study::{Uid, Worklist};
use crate::task::{Cancelled, Task};
use crate::volume::Volume;

/// Which model it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelIdentity {
    /// `id@version`.
    pub key: String,
    /// SHA-256 of the weights.
    pub sha256: String,
    /// Modality that it is for, e.g. `MR`; empty for any.
    pub modality: String,
    /// Names of its input channels where it takes several images of a patient; else empty.
    pub channels: Vec<String>,
    /// It gives findings of whole images, and no segments.
    pub classifies: bool,
    /// It sees plain images one by one and needs no volume.
    pub plain_images: bool,
    /// Mirrored passes that its plans ask for are left out.
    pub unmirrored: bool,
}

/// Why one series has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// As asked.
    Cancelled,
    /// For people; holds no patient data.
    Reason(String),
}

impl Failure {
    /// An error with its causes on one line.
    pub fn from_error(error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            // Transparent errors say the same twice.
            if !text.ends_with(&cause.to_string()) {
                text = format!("{text}: {cause}");
            }
            source = cause.source();
        }
        Self::Reason(text)
    }
}

impl From<Cancelled> for Failure {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

/// Reading, one loaded model, memory, time and new UIDs. Shared by two threads.
pub trait Engine: Sync {
    /// The model, loaded already.
    fn model(&self) -> ModelIdentity;

    /// Headers below `paths`, and volume files of other formats.
    ///
    /// # Errors
    /// [`Cancelled`] alone; what cannot be read is listed as skipped.
    fn index(&self, paths: &[PathBuf], task: &Task) -> Result<(Worklist, Vec<PathBuf>), Cancelled>;

    /// All voxels of one of an item's images.
    ///
    /// # Errors
    /// The files cannot be read.
    fn load(&self, source: &ItemSource, task: &Task) -> Result<Volume, Failure>;

    /// Peak memory that [`Engine::segment`] needs for an item's images.
    fn needed_bytes(&self, volumes: &[Volume]) -> u64;

    /// Memory that the system can give now.
    fn available_bytes(&self) -> u64;

    /// Runs the model on an item's images, one for each channel; the result is on the first one's grid.
    ///
    /// # Errors
    /// The volume is outside of what the model is meant for, does not fit, or the run failed.
    fn segment(&self, volumes: &[Volume], task: &Task) -> Result<Segmentation, Failure>;

    /// What the model says about each image of an item.
    ///
    /// # Errors
    /// The run failed; an image that the model is not for is an assessment that says so.
    fn assess(&self, volume: &Volume, task: &Task) -> Result<Vec<Assessment>, Failure>;

    /// Adds explanations to findings, and draws them.
    ///
    /// # Errors
    /// As [`Engine::assess`].
    fn explain(
        &self,
        assessments: &mut [Assessment],
        volume: &Volume,
        task: &Task,
    ) -> Result<Vec<MapPicture>, Failure>;

    /// The time now.
    fn now(&self) -> DateTime<Utc>;

    /// A UID that nobody has.
    fn fresh_uid(&self) -> Uid;
}
