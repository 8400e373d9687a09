//! Many studies with one model: the same engine for the window and the command line.
//!
//! Comes in: paths, a model, a folder for results. Goes out: results per series, `batch.csv`,
//! `batch.json`, and a journal that survives a kill. Absent on purpose: windows, printing.

mod journal;
mod plan;
mod report;
mod run;

pub use journal::Entry;
pub use plan::{Item, ItemSource, Plan};
pub use run::{Error, Row, Status, Summary, run};
