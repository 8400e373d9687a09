//! Many studies with one model: the same engine for the window and the command line.
//!
//! In: paths, a model, a folder for results. Out: results per series, `batch.csv`, `batch.json`,
//! and a journal that survives a kill. What it needs from outside (reading, the model, time) comes
//! through [`Engine`]. Absent on purpose: windows, printing, file formats.

mod channels;
mod engine;
mod journal;
mod left;
mod plan;
mod report;
mod run;
mod spread;

pub use engine::{Engine, Failure, ModelIdentity};
pub use journal::Entry;
pub use plan::{Item, ItemSource, Plan, items};
pub use run::{Error, Row, Status, Summary, run};
pub use spread::run_spread;
