//! Results to files: DICOM SEG, NIfTI label map, CSV, and the record of how they were made.
//!
//! In: a [`Segmentation`](crate::findings::Segmentation) with its volume, and proof that the export is on record. Out: files that
//! are all there or none. Absent on purpose: what to export and where to, which a person decides.

mod guard;
mod measurements;
mod read_findings;
mod record;
mod write_findings;
mod write_results;

use std::path::PathBuf;

use crate::dicom;
use crate::nifti;

pub use measurements::{Measured, measure};
pub use read_findings::{ReadFindings, ReadFindingsError, read_findings};
pub use write_findings::{MapPicture, write_findings};
pub use write_results::{Format, UnknownFormat, Written, write_results};

/// Why results were not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused.
    #[error("{action} failed: {path}")]
    Io {
        /// `writing`, `reading back` or `renaming`.
        action: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
        /// The file, by its final name.
        path: PathBuf,
    },
    /// The SEG.
    #[error("the DICOM object was not written")]
    Segmentation(#[from] dicom::WriteError),
    /// The label map.
    #[error("the NIfTI label map was not written")]
    Nifti(#[from] nifti::Error),
    /// The SR just written cannot be read.
    #[error("the DICOM report could not be read back, it was not kept")]
    ReadReport(#[from] dicom::ReadReportError),
    /// The SEG just written cannot be read.
    #[error("the DICOM segmentation could not be read back, it was not kept")]
    ReadBack(#[from] dicom::ReadSegmentationError),
    /// The SEG just written says something else than the mask.
    #[error("the DICOM object was not kept: read back, {what}")]
    Guard {
        /// What differs, with numbers.
        what: String,
    },
    /// Mask and volume lie on different grids.
    #[error("the segmentation has {map:?} voxels, the volume {volume:?}, or they lie apart")]
    GridMismatch {
        /// Dims of the label map.
        map: [usize; 3],
        /// Dims of the volume.
        volume: [usize; 3],
    },
    /// The record cannot be encoded.
    #[error("result.json cannot be encoded")]
    Json(#[from] serde_json::Error),
}
