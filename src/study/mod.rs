//! DICOM's information model: Patient, Study, Series, Instance, UIDs, coded concepts, issues.
//!
//! Absent on purpose: tags, files' bytes, voxels.

mod code;
mod issue;
mod modality;
mod tree;
mod uid;

pub use code::CodedConcept;
pub use issue::Issue;
pub use modality::same_kind;
pub use tree::{FileSource, Instance, Patient, Series, Skipped, Stack, Study, Worklist};
pub use uid::{Uid, UidError};
