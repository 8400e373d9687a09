//! Why an image or a series cannot be read.

use crate::task::Cancelled;

/// Facts, no patient data; the file last.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// As asked.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The system refused.
    #[error("could not be read: {path}")]
    Io {
        /// What the system said.
        #[source]
        source: std::io::Error,
        /// The file.
        path: String,
    },
    /// Not DICOM, or damaged before the pixels.
    #[error("{reason}: {path}")]
    File {
        /// What was found against what was expected.
        reason: String,
        /// The file.
        path: String,
    },
    /// The pixels cannot be decoded.
    #[error("image {frame} cannot be decoded, {reason}: {path}")]
    Pixels {
        /// Frame, from 1.
        frame: u32,
        /// What was found against what was expected.
        reason: String,
        /// The file.
        path: String,
    },
    /// The stack has no such image.
    #[error("the series has no image {0}")]
    NoSuchImage(usize),
    /// The voxel grid has no volume.
    #[error("the images cannot be placed in the patient")]
    Geometry(#[from] crate::geometry::Error),
    /// Not enough memory.
    #[error("the volume needs {needed_mb} MB, {available_mb} MB are free")]
    Memory {
        /// Needed.
        needed_mb: u64,
        /// Free.
        available_mb: u64,
    },
}
