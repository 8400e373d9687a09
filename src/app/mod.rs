//! What the program knows and can do: state, commands, actions, events.
//!
//! Comes in: [`Command`]s of a person, [`Event`]s of finished work. Goes out: [`Action`]s that
//! `runtime` carries out. Absent on purpose: egui, wgpu, threads, files.

mod action;
mod audit_view;
mod browser;
mod channels;
mod command;
mod copy;
mod diagnosis;
mod event;
mod jobs;
mod loading;
mod remote;
mod review;
mod running;
mod settings;
mod state;
mod training;
mod workspace;

pub use action::{Action, AskFor, ReviewNote, ToExport};
pub use audit_view::{AuditPage, AuditRow, AuditView};
pub use browser::{Browser, SeriesKey, VolumeFile};
pub use channels::ChannelSource;
pub use command::{Command, Shortcut, command_table};
pub use copy::{CopyState, CopyWanted, PixelRegion};
pub use diagnosis::ShownFindings;
pub use event::{BatchRow, Event, ModelSummary, OpenedResult, RunEstimate, Traffic};
pub use jobs::{Job, JobId, JobKind, Notice, NoticeLevel};
pub use remote::{
    LeavingPage, Place, PlaceEstimate, QueueRow, RemoteState, RemoteWork, ServerDraft, ServerTest,
};
pub use review::{Overlay, Results};
pub use settings::{CornerText, Settings};
pub use state::{App, BatchState, Dialog, bytes_words};
pub use training::{
    EpochPoint, StepPoint, TrainingAnswer, TrainingChoice, TrainingExample, TrainingNews,
    TrainingState, TrainingWords,
};
pub use workspace::{OpenVolume, PlaneView, VolumeId, Workspace};
