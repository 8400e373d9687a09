//! From a view of the app to the GPU: what `render` draws under the text.

use eframe::egui::Ui;
use eframe::egui_wgpu::RenderState;

use super::viewport::Placement;
use crate::app::App;
use crate::geometry::ViewPlane;

/// Makes the pipelines, once.
pub fn install(_state: &RenderState) {}

/// Draws the slice of a view into its tile.
pub fn paint_slice(_ui: &Ui, _app: &App, _placement: &Placement, _view: ViewPlane) {}
