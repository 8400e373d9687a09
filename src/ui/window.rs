//! The window: panels around the views, one frame at a time.

use std::path::PathBuf;
use std::time::Duration;

use eframe::egui::{
    self, CentralPanel, Color32, Frame, Margin, Panel, Rect, Ui, ViewportCommand, pos2, vec2,
};
use eframe::egui_wgpu;

use super::audit_window::audit_ui;
use super::browser_panel::{Thumbnails, browser_ui};
use super::dialogs::{dialog_ui, notices_ui};
use super::empty::{drop_hint_ui, empty_ui};
use super::menu::{keys, menu_ui};
use super::queue_window::queue_ui;
use super::results_panel::results_ui;
use super::servers_window::servers_ui;
use super::status_bar::status_bar_ui;
use super::training_window::{TrainingPictures, training_ui};
use super::viewport::{Hover, viewport_ui};
use super::{slice_painter, theme};
use crate::app::{Action, App, Command, OpenVolume};
use crate::geometry::ViewPlane;
use crate::runtime::{Runtime, now_utc};

/// The program's window: app, runtime, and caches of what is drawn.
pub struct Window {
    app: App,
    runtime: Runtime,
    thumbnails: Thumbnails,
    training_pictures: TrainingPictures,
    hover: Option<Hover>,
    title: String,
    gpu: Option<egui_wgpu::RenderState>,
}

impl Window {
    /// Sets up look and GPU, and opens `paths` if there are any.
    pub fn new(
        cc: &eframe::CreationContext<'_>,
        mut runtime: Runtime,
        paths: Vec<PathBuf>,
    ) -> Self {
        theme::apply(&cc.egui_ctx);
        if let Some(state) = &cc.wgpu_render_state {
            slice_painter::install(state);
        }
        let ctx = cc.egui_ctx.clone();
        runtime.set_wake(std::sync::Arc::new(move || ctx.request_repaint()));
        let mut app = App::new(runtime.settings());
        if !paths.is_empty() {
            app.apply(Command::Open(paths));
        }
        let mut window = Self {
            app,
            runtime,
            thumbnails: Thumbnails::default(),
            training_pictures: TrainingPictures::default(),
            hover: None,
            title: String::new(),
            gpu: cc.wgpu_render_state.clone(),
        };
        window.carry_out(&cc.egui_ctx);
        window
    }

    /// What the program knows; for tests.
    pub const fn app(&self) -> &App {
        &self.app
    }

    /// Applies a command as if a person had given it; for tests.
    pub fn command(&mut self, ctx: &egui::Context, command: Command) {
        self.app.now = now_utc();
        self.app.apply(command);
        self.carry_out(ctx);
    }

    /// Takes in an event as if work had reported it (the answer of a file dialog); for tests.
    pub fn event(&mut self, ctx: &egui::Context, event: crate::app::Event) {
        self.app.on_event(event);
        self.carry_out(ctx);
    }

    /// Bounds the graphics memory of volumes; for tests of what is shown when it is short.
    pub fn limit_graphics_memory(&self, bytes: usize) {
        if let Some(state) = &self.gpu {
            slice_painter::limit(state, bytes);
        }
    }

    fn carry_out(&mut self, ctx: &egui::Context) {
        for action in self.app.take_actions() {
            if matches!(action, Action::Quit) {
                ctx.send_viewport_cmd(ViewportCommand::Close);
            } else {
                self.runtime.carry_out(action);
            }
        }
    }
}

impl eframe::App for Window {
    fn logic(&mut self, ctx: &egui::Context, _frame: &mut eframe::Frame) {
        self.app.now = now_utc();
        for event in self.runtime.poll() {
            self.app.on_event(event);
        }
        let dropped = ctx.input(|i| {
            let paths = i.raw.dropped_files.iter().filter_map(|file| {
                let path = file.path();
                (!path.as_os_str().is_empty()).then(|| path.to_path_buf())
            });
            paths.collect::<Vec<_>>()
        });
        if !dropped.is_empty() {
            self.app.apply(Command::Open(dropped));
        }
        self.carry_out(ctx);
        if !self.app.jobs.is_empty() {
            // Progress is polled, not pushed.
            ctx.request_repaint_after(Duration::from_millis(100));
        }
    }

    fn ui(&mut self, ui: &mut Ui, _frame: &mut eframe::Frame) {
        let mut commands = Vec::new();
        let app = &self.app;
        let drawn = slice_painter::drawn(self.gpu.as_ref(), app);
        let bar = |margin: Margin| Frame::new().fill(theme::PANEL).inner_margin(margin);
        Panel::top("menu")
            .frame(bar(Margin::symmetric(10, 4)))
            .show(ui, |ui| {
                menu_ui(ui, app, &mut commands);
            });
        Panel::bottom("status")
            .exact_size(30.0)
            .resizable(false)
            .frame(bar(Margin::symmetric(12, 2)))
            .show(ui, |ui| status_bar_ui(ui, app, self.hover, &mut commands));
        if !app.browser.is_empty() {
            Panel::left("browser")
                .default_size(270.0)
                .size_range(180.0..=460.0)
                .frame(bar(Margin::symmetric(10, 6)))
                .show(ui, |ui| {
                    browser_ui(ui, app, &mut self.thumbnails, &mut commands);
                });
        }
        if !app.browser.is_empty() {
            Panel::right("results")
                .default_size(310.0)
                .size_range(240.0..=480.0)
                .frame(bar(Margin::symmetric(12, 6)))
                .show(ui, |ui| results_ui(ui, app, &mut commands));
        }
        let mut hover = None;
        CentralPanel::default()
            .frame(Frame::new().fill(theme::BACKGROUND))
            .show(ui, |ui| {
                let rect = ui.available_rect_before_wrap();
                if app.workspace.open.is_none() {
                    empty_ui(ui, app, rect, &mut commands);
                    return;
                }
                for (view, tile) in tiles(app, rect) {
                    if let Some(found) = viewport_ui(ui, app, &drawn, view, tile, &mut commands) {
                        hover = Some(found);
                    }
                }
            });
        self.hover = hover;
        training_ui(ui.ctx(), app, &mut self.training_pictures, &mut commands);
        audit_ui(ui.ctx(), app, &mut commands);
        queue_ui(ui.ctx(), app, &mut commands);
        servers_ui(ui.ctx(), app, &mut commands);
        dialog_ui(ui.ctx(), app, &mut commands);
        notices_ui(ui.ctx(), app, &mut commands);
        drop_hint_ui(ui.ctx());
        keys(ui, app, &mut commands);
        let title = title(app);
        if title != self.title {
            ui.ctx()
                .send_viewport_cmd(ViewportCommand::Title(title.clone()));
            self.title = title;
        }
        for command in commands {
            self.app.apply(command);
        }
        let ctx = ui.ctx().clone();
        self.carry_out(&ctx);
    }

    fn clear_color(&self, _visuals: &egui::Visuals) -> [f32; 4] {
        Color32::from(egui::Rgba::from(theme::BACKGROUND)).to_normalized_gamma_f32()
    }
}

/// The series in the title bar; never the patient, since desktops log window titles.
fn title(app: &App) -> String {
    let series = app
        .workspace
        .open
        .as_ref()
        .map(|open| open.data.source.description.clone());
    match series.filter(|s| !s.is_empty()) {
        Some(series) => format!("{series} – Negatoscope"),
        None => "Negatoscope".to_owned(),
    }
}

/// Tiles of the views: the plane of the stored slices large, the other two beside it.
fn tiles(app: &App, rect: Rect) -> Vec<(ViewPlane, Rect)> {
    let workspace = &app.workspace;
    let volumetric = workspace
        .open
        .as_ref()
        .is_some_and(OpenVolume::is_volumetric);
    if !volumetric {
        return vec![(workspace.main, rect)];
    }
    if let Some(view) = workspace.maximized {
        return vec![(view, rect)];
    }
    let gap = 2.0;
    let others: Vec<ViewPlane> = ViewPlane::ALL
        .into_iter()
        .filter(|&view| view != workspace.main)
        .collect();
    let (w, h) = (rect.width(), rect.height());
    if w > h {
        let split = rect.left() + (w * 0.62).round();
        let middle = rect.top() + (h / 2.0).round();
        vec![
            (
                workspace.main,
                Rect::from_min_max(rect.min, pos2(split - gap, rect.bottom())),
            ),
            (
                others[0],
                Rect::from_min_max(pos2(split, rect.top()), pos2(rect.right(), middle - gap)),
            ),
            (others[1], Rect::from_min_max(pos2(split, middle), rect.max)),
        ]
    } else {
        let split = rect.top() + (h * 0.6).round();
        let middle = rect.left() + (w / 2.0).round();
        vec![
            (
                workspace.main,
                Rect::from_min_max(rect.min, pos2(rect.right(), split - gap)),
            ),
            (
                others[0],
                Rect::from_min_max(pos2(rect.left(), split), pos2(middle - gap, rect.bottom())),
            ),
            (others[1], Rect::from_min_max(pos2(middle, split), rect.max)),
        ]
    }
}

/// The GPU as this program needs it: the adapter's own limits (3-D textures beyond the default).
pub fn wgpu_options() -> egui_wgpu::WgpuConfiguration {
    let mut options = egui_wgpu::WgpuConfiguration::default();
    if let egui_wgpu::WgpuSetup::CreateNew(setup) = &mut options.wgpu_setup {
        setup.device_descriptor =
            std::sync::Arc::new(|adapter| egui_wgpu::wgpu::DeviceDescriptor {
                label: Some("negatoscope"),
                required_limits: adapter.limits(),
                ..Default::default()
            });
    }
    options
}

/// Opens the window and returns when it closes.
///
/// # Errors
/// When the system has no display or no usable GPU driver.
pub fn open_window(runtime: Runtime, paths: Vec<PathBuf>) -> Result<(), eframe::Error> {
    let viewport = egui::ViewportBuilder::default()
        .with_title("Negatoscope")
        .with_app_id("negatoscope")
        .with_inner_size(vec2(1440.0, 900.0))
        .with_min_inner_size(vec2(760.0, 520.0));
    let options = eframe::NativeOptions {
        viewport,
        wgpu_options: wgpu_options(),
        ..Default::default()
    };
    eframe::run_native(
        "Negatoscope",
        options,
        Box::new(move |cc| Ok(Box::new(Window::new(cc, runtime, paths)))),
    )
}
