//! What happens around a network: nnU-Net v2's procedure and MONAI's sliding window, in bounded memory.
//!
//! Comes in: an image `[channel][z][y][x]` in the order of the model's own reader, and a network as a
//! callback ([`PatchNetwork`]). Goes out: labels on the image's own grid. [`prepare`] transposes, crops,
//! normalizes and resamples; [`predict_streamed`] runs the patches, and resamples and reduces the logits
//! as they complete, so that classes × voxels never exist on a whole grid; [`plan_stream`] says before a
//! run what it takes. Absent on purpose: files, the network itself, patient positions.

mod array;
mod crop;
mod emit;
mod labels;
mod monai;
mod monai_intensity;
mod normalize;
mod pieces;
mod prepare;
mod resample;
mod spline;
mod stream;
mod stream_plan;
mod windows;

pub use crate::model::procedure::{
    Channel, Intensities, LabelRule, Preprocessing, Procedure, Resampling, RuleError, Scheme,
    WindowRule, new_shape,
};
pub use array::{Image, Labels, transpose};
pub use crop::{Box3, crop_box, nonzero_mask};
pub use monai::{MonaiPrepared, outline_monai, plan_monai, predict_monai, prepare_monai};
pub use normalize::normalize;
pub use prepare::{Grids, OneHot, Prepared, PreviousStage, prepare};
pub use resample::{resample_image, resample_labels};
pub use stream::{NetworkError, PatchNetwork, predict_streamed};
pub use stream_plan::{Accumulator, StreamPlan, plan_stream};
pub use windows::{importance_map, monai_importance_map, monai_window_starts, window_starts};

/// Why the procedure cannot be carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// As asked.
    #[error(transparent)]
    Cancelled(#[from] crate::task::Cancelled),
    /// The plans' rules cannot be followed.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// A rule that the plans ask for and that does not exist here.
    #[error("the model asks for {0}, which is not supported")]
    Unsupported(String),
    /// Image, plans and network do not belong together.
    #[error("{0}")]
    Mismatch(String),
    /// No split of the grid stays within the limit.
    #[error(
        "the run needs at least {needed_bytes} bytes for its logits, the limit is {limit_bytes}"
    )]
    Memory {
        /// The least that any split takes.
        needed_bytes: u64,
        /// What was allowed.
        limit_bytes: u64,
    },
    /// Logits that are infinite or not a number.
    #[error("the network's output is infinite or not a number")]
    NotFinite,
    /// The callback failed.
    #[error("the network failed on a patch")]
    Network(#[source] NetworkError),
}
