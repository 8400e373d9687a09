//! Voxels and what they mean: stored values, modality and VOI transforms, label maps, statistics.
//!
//! Absent on purpose: where voxels came from as files, how they are drawn.

mod label_map;
mod modality;
pub mod phantom;
mod resample;
mod statistics;
mod voi;
mod voxels;

pub use label_map::LabelMap;
pub use modality::{ModalityLut, Quantity};
pub use resample::{Interpolation, resample_labels, resample_volume};
pub use statistics::{LabelStatistics, label_statistics};
pub use voi::{NamedWindow, VoiFunction, VoiWindow, auto_window, presets_for};
pub use voxels::{Calibration, Layout, SourceImage, SourceSeries, Volume, Voxels};
