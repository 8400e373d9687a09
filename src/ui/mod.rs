//! The window: reads the app, returns commands.
//!
//! Comes in: `&App`. Goes out: `Command`s. egui's memory holds only what nobody would miss.
//! Absent on purpose: files, models, decisions.

mod audit_window;
mod browser_panel;
mod copy_dialog;
mod corner_text;
mod curves;
mod dialogs;
mod empty;
mod evidence;
mod findings_list;
mod icons;
mod menu;
mod queue_window;
mod region_editor;
mod remote_dialog;
mod results_panel;
mod review_dialogs;
mod servers_window;
mod slice_painter;
mod status_bar;
mod theme;
mod training_window;
mod viewport;
mod widgets;
mod window;

pub use window::{Window, open_window, wgpu_options};
