//! NIfTI-1 in and out: volumes and label maps.
//!
//! In: `.nii`, `.nii.gz`, `.hdr` with `.img`, both byte orders. Out: `.nii` and `.nii.gz`.
//! The patient frame of NIfTI is RAS+, everywhere else in this program it is LPS: the turn
//! happens in `header.rs` and nowhere else.
//! Absent on purpose: NIfTI-2, ANALYZE 7.5, time (the first volume of a series is taken).

mod header;
mod read;
mod write;

use std::path::PathBuf;

use crate::geometry;
use crate::task::Cancelled;

pub use read::{is_nifti_name, read, read_label_map};
pub use write::{write_label_map, write_label_map_to, write_volume, write_volume_to};

/// Why a NIfTI file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused.
    #[error("{action} failed: {path}")]
    Io {
        /// `reading` or `writing`.
        action: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
        /// The file.
        path: PathBuf,
    },
    /// No NIfTI-1 header.
    #[error("not a NIfTI-1 file ({found}): {path}")]
    NotNifti {
        /// What stands there instead.
        found: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A header field that cannot be right.
    #[error("NIfTI header field {field} cannot be used ({value}): {path}")]
    Header {
        /// Name in the standard.
        field: &'static str,
        /// Value found.
        value: String,
        /// The file.
        path: PathBuf,
    },
    /// A legal file of a kind that is not read.
    #[error("{what} is not supported: {path}")]
    Unsupported {
        /// The kind.
        what: String,
        /// The file.
        path: PathBuf,
    },
    /// Fewer bytes than the header promises.
    #[error("the header promises {needed} bytes of voxels, the file holds {found}: {path}")]
    Truncated {
        /// Bytes of the first volume, by the header.
        needed: u64,
        /// Bytes there (an upper bound for compressed files).
        found: u64,
        /// The file.
        path: PathBuf,
    },
    /// More than this program takes into memory.
    #[error("the volume has {bytes} bytes, the limit is {limit}: {path}")]
    TooLarge {
        /// By the header.
        bytes: u64,
        /// [`read`]'s limit, or the memory there is.
        limit: u64,
        /// The file.
        path: PathBuf,
    },
    /// No usable affine.
    #[error("the voxel grid cannot be placed in the patient: {path}")]
    Geometry {
        /// Why.
        #[source]
        source: geometry::Error,
        /// The file.
        path: PathBuf,
    },
    /// A value that is no label.
    #[error("{value} is not a label from 0 to 255: {path}")]
    NotALabel {
        /// First value found.
        value: f32,
        /// The file.
        path: PathBuf,
    },
    /// The user asked for the work to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}
