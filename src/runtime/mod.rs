//! Carries out actions: jobs on threads, files, models, the clock, settings, the audit log.
//!
//! Comes in: [`Action`](crate::app::Action)s. Goes out: [`Event`](crate::app::Event)s, through a
//! bounded channel that the window empties each frame. A person's wish is on record before the
//! work starts. Absent on purpose: decisions, drawing.

mod audit_view;
mod batch_engine;
mod carry_out;
mod clock;
mod compute;
mod dialogs;
mod explain;
mod home;
mod jobs;
mod models;
mod monitoring;
mod open;
mod remote;
mod remote_jobs;
mod remote_shown;
mod remote_view;
mod results;
mod train_job;
mod training;

pub use batch_engine::{BatchError, run_batch};
pub use carry_out::{Runtime, about_volume};
pub use clock::{RandomUids, now_utc};
pub use home::Home;
pub use models::{LoadedModel, RunError};
pub use open::{
    LoadError, Opened, PickError, Picked, index_paths, load_file, load_key, load_stack, pick_volume,
};
pub use remote::{Leaving, Server};
pub use remote_jobs::{RemoteError, RemoteRun, RemoteWork, cancel, enqueue};
pub use results::{ExportError, export_to};
pub use training::{AnyImages, settings_for_runs};
