//! Patient positions: voxel grids in LPS millimeters, image planes, orientation letters.
//!
//! Absent on purpose: voxels, files. RAS exists only in `nifti`.

mod letters;
mod plane;
mod volume_geometry;

pub use glam::{DAffine3, DMat3, DVec2, DVec3};
pub use letters::{axis_codes, direction_letters, position_words};
pub use plane::{ImagePlane, ViewPlane};
pub use volume_geometry::{Error, VolumeGeometry};
