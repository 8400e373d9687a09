//! DICOM bytes in, the study model out; findings in, DICOM SEG and SR out.
//!
//! The only module that knows tags, value representations and transfer syntaxes.
//! Absent on purpose: networking, caching, anything that draws.
//!
//! Reading goes in this order: `scan` finds files, `parse` turns bytes into elements within
//! bounds, `header` takes what the index needs, `stacks` sorts images into stacks, `decode`
//! turns frames into samples, `assemble` makes a volume of a stack.

mod assemble;
mod charset;
mod compose;
mod dataset;
mod decode;
mod error;
mod header;
mod index;
mod meaning;
mod parse;
mod pixels;
mod read_report;
mod read_segmentation;
mod report_template;
mod scan;
mod segmentation_pixels;
mod spacing;
mod stacks;
mod syntax;
mod tree;
mod write_capture;
mod write_image;
mod write_report;
mod write_segmentation;

pub use assemble::{SeriesContext, Thumbnail, estimate_bytes, load_image, load_volume, thumbnail};
pub use compose::WriteError;
pub use decode::{Decoded, Frame, FrameReader, Samples, decode_file};
pub use error::Error;
pub use index::index;
pub use pixels::{Photometric, PixelFormat};
pub use read_report::{ReadFinding, ReadReport, ReadReportError, read_report};
pub use read_segmentation::{
    PlacedLabels, ReadSegment, ReadSegmentation, ReadSegmentationError, read_segmentation,
};
pub use tree::{Sources, Tree, TreeNode, TreeValue, standard_keyword, standard_vr};
pub use write_capture::{Capture, write_capture_to};
pub use write_image::{
    ImageSeriesOptions, SYNTHETIC_COMMENT, SYNTHETIC_PATIENT, write_image_series,
};
pub use write_report::{write_report, write_report_to};
pub use write_segmentation::{slice_position_lps, write_segmentation, write_segmentation_to};
