//! (room being furnished)

mod compose;
mod read_segmentation;
mod write_image;
mod write_segmentation;

pub use compose::WriteError;
pub use read_segmentation::{
    PlacedLabels, ReadSegment, ReadSegmentation, ReadSegmentationError, read_segmentation,
};
pub use write_image::{
    ImageSeriesOptions, SYNTHETIC_COMMENT, SYNTHETIC_PATIENT, write_image_series,
};
pub use write_segmentation::{slice_position_lps, write_segmentation, write_segmentation_to};
