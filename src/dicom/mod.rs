//! DICOM bytes in, the study model out; findings in, DICOM SEG out.
//!
//! The only module that knows tags, value representations and transfer syntaxes.
//! Untrusted bytes pass [`structure`] before the parser sees them.
//! Absent on purpose: networking, caching, anything that draws.

mod archive;
mod assemble;
mod attributes;
mod compose;
mod decode;
mod error;
mod file;
mod header;
mod index;
mod jpeg12;
mod palette;
mod read_segmentation;
mod rle;
mod stacks;
mod structure;
mod write_image;
mod write_segmentation;

pub use assemble::{SeriesContext, Thumbnail, estimate_bytes, load_image, load_volume, thumbnail};
pub use compose::WriteError;
pub use error::Error;
pub use index::index;
pub use read_segmentation::{
    PlacedLabels, ReadSegment, ReadSegmentation, ReadSegmentationError, read_segmentation,
};
pub use write_image::{
    ImageSeriesOptions, SYNTHETIC_COMMENT, SYNTHETIC_PATIENT, write_image_series,
};
pub use write_segmentation::{slice_position_lps, write_segmentation, write_segmentation_to};
