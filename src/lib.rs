//! Negatoscope: opens DICOM studies, runs models on this machine, shows and keeps the result.
//!
//! Modules in reading order. `tests/tidy.rs` holds the list of who may use whom.

// Words: plain types and math. No files, threads, clock or GPU.
pub mod findings;
pub mod geometry;
pub mod redact;
pub mod study;
pub mod task;
pub mod volume;

// The one way in which files are written, and keys among them.
pub mod key_file;
pub mod whole_file;

// Doors and engines: each is the only one to know one outside technology.
pub mod audit;
pub mod deidentify;
pub mod dicom;
pub mod export;
pub mod import;
pub mod inference;
pub mod kernels;
pub mod model;
pub mod monitoring;
pub mod nifti;
pub mod offload;
pub mod queue;
pub mod render;
pub mod training;

// The application.
pub mod app;
pub mod batch;
pub mod cli;
pub mod runtime;
pub mod ui;

/// The version in every provenance, log and file that the program writes.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The sentence that stays on screen and goes with every result.
pub const RESEARCH_USE: &str = "Research use – not for diagnostic use";
