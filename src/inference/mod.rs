//! Models on volumes: conform, normalize, run, clean up, and the way back to the patient's grid.
//!
//! Comes in: a verified package and a volume. Goes out: a segmentation with its record.
//! Executors: [`Executor::Native`] (the project's kernels) and [`Executor::Candle`] (the plain
//! reference). Absent on purpose: files, threads of its own, windows.

mod candle_executor;
mod channels;
mod classify;
mod components;
mod conform;
mod elsewhere;
mod envelope;
mod explain;
pub mod familiar;
mod heads;
mod layers;
pub mod native;
mod network;
mod normalize;
mod plan;
mod predict;
mod predict_monai;
pub mod procedure;
pub mod reference;
mod resize_plane;
mod rollout;
mod run;
mod schedule;
mod tensor;

pub use classify::{Classifier, GrayPlane, findings_of};
pub use components::largest_component;
pub use elsewhere::{Call, Elsewhere, Traffic};
pub use envelope::envelope_issues;
pub use heads::Heads;
pub use network::Network;
pub use plan::RunPlan;
pub use resize_plane::resize_plane;
pub use rollout::{Rollout, attention_rollout};
pub use run::{Executor, Found, Model, Preview, Settings, Watch, device_name, forward};
pub use tensor::{Array, Program};

/// Why a model cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// As asked.
    #[error(transparent)]
    Cancelled(#[from] crate::task::Cancelled),
    /// Refused before anything was computed.
    #[error("the run needs {} of memory, {} are free: close other programs or use a smaller model", gb(*needed_bytes), gb(*available_bytes))]
    Memory {
        /// Needed.
        needed_bytes: u64,
        /// Free.
        available_bytes: u64,
    },
    /// The volume is nothing that the model can take.
    #[error("the model cannot run on this series: {0}")]
    Input(String),
    /// A package that passed its checks but not these.
    #[error("the model cannot be built: {0}")]
    Network(String),
    /// A package without weights, asked to run here.
    #[error("{0} is here without its weights: it runs on a server alone (`--remote ENDPOINT`)")]
    OnAServer(String),
    /// A network that runs on another machine gave no answer that can be used.
    #[error("the model on the other machine gave no answer that can be used")]
    Elsewhere(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The reference executor failed.
    #[error("the reference executor failed")]
    Candle(#[from] candle_core::Error),
}

/// Whether a model's networks can run where the settings say.
fn has_weights(manifest: &crate::model::Manifest, settings: &Settings) -> Result<(), Error> {
    if manifest.is_on_a_server() && settings.elsewhere.is_none() {
        return Err(Error::OnAServer(manifest.key()));
    }
    Ok(())
}

fn gb(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}
