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
mod copy;
mod dialogs;
mod explain;
mod home;
mod jobs;
mod leaving;
mod model_import;
mod models;
mod monitoring;
mod on_record;
mod open;
mod places;
mod remote;
mod remote_jobs;
mod remote_run;
mod remote_shown;
mod remote_view;
mod results;
mod servers;
mod train_job;
mod training;

pub use batch_engine::{BatchError, run_batch};
pub use carry_out::{Runtime, about_volume};
pub use clock::{RandomUids, now_utc};
pub use copy::{CopyError, CopyRequest, copy_without_identity, copy_words};
pub use home::Home;
pub use leaving::Leaving;
pub use model_import::{ImportError, import_models};
pub use models::{LoadedModel, RunError};
pub use on_record::change_on_record;
pub use open::{
    LoadError, Opened, PickError, Picked, index_paths, load_file, load_key, load_stack, pick_volume,
};
pub use places::{Choice, Choosing, choices, choices_of};
pub use remote::{Purse, Server};
pub use remote_jobs::{RemoteError, RemoteWork, cancel, enqueue};
pub use remote_run::{Ran, RemoteRun};
pub use results::{ExportError, export_to};
pub use servers::{authorization_word, change_endpoint, look_at};
pub use training::{AnyImages, settings_for_runs};
