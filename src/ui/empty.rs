//! The middle of the window when there is no image: start, or loading.

use eframe::egui::{
    self, Align2, Color32, CornerRadius, Rect, RichText, Spinner, Stroke, StrokeKind, Ui, vec2,
};

use super::widgets::icon_button_ui;
use super::{icons, theme};
use crate::app::{App, Command, JobKind};

/// Nothing is open: what a person can do.
pub fn empty_ui(ui: &mut Ui, app: &App, rect: Rect, commands: &mut Vec<Command>) {
    ui.painter()
        .rect_filled(rect, CornerRadius::ZERO, theme::BACKGROUND);
    let busy = app.running(JobKind::Load).or(app.running(JobKind::Index));
    let size = vec2(420.0, 400.0);
    let middle = Rect::from_center_size(rect.center(), size.min(rect.size()));
    let mut child = ui.new_child(
        egui::UiBuilder::new()
            .max_rect(middle)
            .layout(egui::Layout::top_down(egui::Align::Center)),
    );
    let ui = &mut child;
    if let Some(job) = busy {
        ui.add_space(120.0);
        ui.add(Spinner::new().size(34.0).color(theme::ACCENT));
        ui.add_space(12.0);
        ui.heading(&job.title);
        let progress = job.task.progress();
        let counted = match progress.total {
            0 if progress.done > 0 => format!("{}  {}", progress.phase, progress.done),
            0 => progress.phase,
            total => format!("{}  {} of {total}", progress.phase, progress.done),
        };
        ui.label(RichText::new(counted).color(theme::TEXT_WEAK));
        ui.add_space(8.0);
        if icon_button_ui(ui, icons::X, "Cancel").clicked() {
            commands.push(Command::CancelJob(job.id));
        }
        return;
    }
    ui.add_space(40.0);
    light_box(ui);
    ui.add_space(22.0);
    ui.heading("Open a study");
    ui.label(RichText::new("Drop files, a folder or a ZIP here, or").color(theme::TEXT_WEAK));
    ui.add_space(10.0);
    ui.horizontal(|ui| {
        ui.add_space((ui.available_width() - 258.0).max(0.0) / 2.0);
        if ui
            .button(format!("{}  Open folder…", icons::FOLDER_OPEN))
            .clicked()
        {
            commands.push(Command::OpenFolder);
        }
        if ui.button(format!("{}  Open files…", icons::FILE)).clicked() {
            commands.push(Command::OpenFiles);
        }
    });
    if !app.settings.recent.is_empty() {
        ui.add_space(18.0);
        ui.label(RichText::new("Recent").small().color(theme::TEXT_WEAK));
        for path in app.settings.recent.iter().take(4) {
            let text = RichText::new(path.display().to_string()).small();
            let button = egui::Button::new(text).frame(false).truncate();
            if ui.add(button).clicked() {
                commands.push(Command::Open(vec![path.clone()]));
            }
        }
    }
}

/// A light box, switched on.
fn light_box(ui: &mut Ui) {
    let (rect, _) = ui.allocate_exact_size(vec2(120.0, 84.0), egui::Sense::hover());
    let painter = ui.painter();
    painter.rect_filled(rect, CornerRadius::same(10), Color32::from_rgb(30, 32, 34));
    let glass = rect.shrink2(vec2(9.0, 9.0));
    painter.rect_filled(
        glass,
        CornerRadius::same(4),
        Color32::from_rgb(196, 208, 206),
    );
    let film = Rect::from_center_size(glass.center(), vec2(50.0, 58.0));
    painter.rect_filled(film, CornerRadius::same(2), Color32::from_rgb(20, 24, 26));
    let (c, bone) = (film.center(), Color32::from_rgb(150, 168, 168));
    let stroke = Stroke::new(2.0, bone);
    for n in 0..4 {
        let half = vec2(11.0 + n as f32 * 2.2, 4.5);
        let rib = Rect::from_center_size(c + vec2(0.0, n as f32 * 11.0 - 17.0), half * 2.0);
        painter.rect_stroke(
            rib,
            CornerRadius::same(4),
            Stroke::new(1.4, bone.gamma_multiply(0.7)),
            StrokeKind::Middle,
        );
    }
    painter.line_segment([c - vec2(0.0, 24.0), c + vec2(0.0, 24.0)], stroke);
}

/// Over the whole window while files are dragged over it.
pub fn drop_hint_ui(ctx: &egui::Context) {
    let hovering = ctx.input(|i| !i.raw.hovered_files.is_empty());
    if !hovering {
        return;
    }
    let layer = egui::LayerId::new(egui::Order::Foreground, egui::Id::unique("drop"));
    let painter = ctx.layer_painter(layer);
    let rect = ctx.content_rect();
    painter.rect_filled(rect, CornerRadius::ZERO, Color32::from_black_alpha(170));
    let inner = rect.shrink(24.0);
    painter.rect_stroke(
        inner,
        CornerRadius::same(12),
        Stroke::new(2.0, theme::ACCENT),
        StrokeKind::Inside,
    );
    painter.text(
        rect.center(),
        Align2::CENTER_CENTER,
        "Drop to open",
        theme::medium(24.0),
        Color32::WHITE,
    );
}
