//! The jobs for model servers: what waits, what is done, and going on.

use eframe::egui::{self, RichText, ScrollArea, Ui};

use super::theme;
use super::widgets::cell_ui;
use crate::app::{App, Command, QueueRow};

const HEIGHT: f32 = 26.0;

/// Draws the window when it is open.
pub fn queue_ui(ctx: &egui::Context, app: &App, commands: &mut Vec<Command>) {
    if !app.remote.queue_shown {
        return;
    }
    let mut open = true;
    egui::Window::new("Server jobs")
        .open(&mut open)
        // Below the menu.
        .default_pos([16.0, 44.0])
        .default_size([960.0, 360.0])
        .min_width(560.0)
        .collapsible(false)
        .show(ctx, |ui| {
            let rows = &app.remote.queue;
            ui.horizontal(|ui| {
                if ui.button("Look again").clicked() {
                    commands.push(Command::ShowQueue);
                }
                let over = rows.iter().any(|row| row.is_over);
                if ui
                    .add_enabled(over, egui::Button::new("Forget finished jobs"))
                    .clicked()
                {
                    commands.push(Command::ClearQueue);
                }
                let words = match app.waiting_jobs() {
                    0 => "Nothing waits".to_owned(),
                    1 => "1 job waits".to_owned(),
                    n => format!("{n} jobs wait"),
                };
                ui.label(RichText::new(words).color(theme::TEXT_WEAK));
            });
            ui.separator();
            if rows.is_empty() {
                ui.label("No model has been run on a server.");
            }
            ScrollArea::vertical()
                .auto_shrink([false, false])
                .show(ui, |ui| {
                    // The newest first.
                    for row in rows.iter().rev() {
                        row_ui(ui, row, commands);
                    }
                });
        });
    if !open {
        commands.push(Command::HideQueue);
    }
}

fn row_ui(ui: &mut Ui, row: &QueueRow, commands: &mut Vec<Command>) {
    let first = row.inputs.first().map_or_else(String::new, |path| {
        let name = path.file_name().unwrap_or(path.as_os_str());
        name.to_string_lossy().into_owned()
    });
    let what = match row.inputs.len() {
        0 | 1 => first,
        n => format!("{first} and {} more", n - 1),
    };
    let state = match row.words.as_str() {
        "" => row.state.clone(),
        words if row.state == "running" => format!("running ({words})"),
        words => format!("{}: {words}", row.state),
    };
    let created = row.created.get(..16).unwrap_or(&row.created);
    ui.horizontal(|ui| {
        for (width, text) in [
            (130.0, created.replace('T', " ").as_str()),
            (170.0, &row.model),
            (90.0, &row.endpoint),
            (150.0, &what),
            (240.0, &state),
        ] {
            cell_ui(ui, width, HEIGHT, text);
        }
        if row.waits() {
            if ui.button("Go on").clicked() {
                commands.push(Command::GoOn(row.id.clone()));
            }
            if ui.button("Cancel").clicked() {
                commands.push(Command::CancelQueued(row.id.clone()));
            }
        }
    });
}
