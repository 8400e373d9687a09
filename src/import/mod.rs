//! Foreign models → packages. Nothing of a model file is ever executed.
//!
//! Known: model packages themselves, brainchop's folders (TensorFlow.js layers), nnU-Net v2's
//! result folders, MONAI bundles and ONNX files. What is not understood in full is refused by name. Absent on purpose: running
//! models.

mod brainchop;
pub mod monai;
pub mod nnunet;
pub mod onnx;
pub mod pytorch;
mod snomed;
pub mod weights;
pub mod xrv;

use std::path::{Path, PathBuf};

use crate::model::{self, PackageFiles, VerifiedPackage};

/// Why a model cannot be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused.
    #[error("could not be read: {path}")]
    Io {
        /// What the system said.
        #[source]
        source: std::io::Error,
        /// The file.
        path: PathBuf,
    },
    /// Neither a package nor a known foreign format.
    #[error(
        "no known model format (a package has manifest.json, a brainchop folder model.json, an nnU-Net folder plans.json and dataset.json, a MONAI bundle (a folder or a ZIP file) configs/metadata.json, an ONNX file the ending .onnx): {0}"
    )]
    UnknownFormat(PathBuf),
    /// Something in the file is not understood.
    #[error("{what} is not understood: {path}")]
    NotUnderstood {
        /// Layer, attribute or length, with what was expected.
        what: String,
        /// The file.
        path: PathBuf,
    },
    /// An nnU-Net result folder.
    #[error(transparent)]
    NnUnet(#[from] nnunet::Error),
    /// A MONAI bundle.
    #[error(transparent)]
    Monai(#[from] monai::Error),
    /// An ONNX file.
    #[error(transparent)]
    Onnx(#[from] onnx::Error),
    /// The package.
    #[error(transparent)]
    Package(#[from] model::Error),
}

/// Reads a model: one verified package for each use that the format describes.
///
/// # Errors
/// [`Error`].
pub fn read(path: &Path) -> Result<Vec<VerifiedPackage>, Error> {
    read_stored_as(path, None)
}

/// [`read`], with the orientation in which scans were stored for training (such as `LPS`): for
/// nnU-Net's folders whose plans do not say it, as a person states it.
///
/// # Errors
/// [`Error`]; also for an orientation that the format does not leave open.
pub fn read_stored_as(
    path: &Path,
    orientation: Option<&str>,
) -> Result<Vec<VerifiedPackage>, Error> {
    if let Err(source) = path.metadata() {
        let path = path.to_owned();
        return Err(Error::Io { source, path });
    }
    if nnunet::is_result_folder(path) && !path.join("manifest.json").is_file() {
        return Ok(vec![nnunet::package(path, orientation)?]);
    }
    if orientation.is_some() {
        return Err(Error::NotUnderstood {
            what: "an orientation for a model that is no nnU-Net folder".to_owned(),
            path: path.to_owned(),
        });
    }
    if xrv::is_checkpoint(path) {
        return Ok(vec![xrv::package(path)?]);
    }
    if onnx::is_model(path) {
        return Ok(vec![onnx::package(path, None)?]);
    }
    if path.is_file() && monai::is_bundle(path) {
        return Ok(vec![monai::package(path)?]);
    }
    if path.is_file() || path.join("manifest.json").is_file() {
        return Ok(vec![VerifiedPackage::verify(PackageFiles::read(path)?)?]);
    }
    if path.join("model.json").is_file() {
        return brainchop::read(path);
    }
    if monai::is_bundle(path) {
        return Ok(vec![monai::package(path)?]);
    }
    Err(Error::UnknownFormat(path.to_owned()))
}
