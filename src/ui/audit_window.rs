//! The auditor's view: the verdict on top, the newest records below, words to find some by.

use eframe::egui::{self, RichText, ScrollArea, TextEdit, Ui};

use super::theme;
use super::widgets::cell_ui;
use crate::app::{App, AuditPage, AuditRow, Command};

/// Draws the window when it is open.
pub fn audit_ui(ctx: &egui::Context, app: &App, commands: &mut Vec<Command>) {
    let view = &app.audit;
    if !view.shown {
        return;
    }
    let mut open = true;
    egui::Window::new("Audit log")
        .open(&mut open)
        // Below the menu.
        .default_pos([16.0, 44.0])
        .default_size([900.0, 560.0])
        .min_width(520.0)
        .collapsible(false)
        .show(ctx, |ui| match &view.page {
            None => {
                ui.label("Checking the log…");
            }
            Some(page) => {
                verdict_ui(ui, page);
                let mut words = view.words.clone();
                ui.horizontal(|ui| {
                    let label = ui.label("Find");
                    let field = ui
                        .add(TextEdit::singleline(&mut words).hint_text("user, event, study, day"))
                        .labelled_by(label.id);
                    if field.changed() {
                        commands.push(Command::FilterAudit(words.clone()));
                    }
                    if ui.button("Check again").clicked() {
                        commands.push(Command::ShowAudit);
                    }
                    if ui.button("Save log…").clicked() {
                        commands.push(Command::ExportAudit);
                    }
                });
                let rows: Vec<&AuditRow> = page
                    .rows
                    .iter()
                    .filter(|row| row.holds(&view.words))
                    .collect();
                let count = format!("{} of {} records", rows.len(), page.records);
                ui.label(RichText::new(count).color(theme::TEXT_WEAK));
                rows_ui(ui, &rows);
            }
        });
    if !open {
        commands.push(Command::HideAudit);
    }
}

fn verdict_ui(ui: &mut Ui, page: &AuditPage) {
    let (words, color) = if page.ok {
        ("The log is whole", theme::TEXT)
    } else {
        ("The log is BROKEN", theme::FAILURE)
    };
    ui.label(
        RichText::new(format!("{words}: {}", page.verdict))
            .color(color)
            .strong(),
    );
    for problem in page.problems.iter().take(8) {
        ui.label(RichText::new(problem).color(theme::FAILURE));
    }
    if page.problems.len() > 8 {
        ui.label(format!("and {} more", page.problems.len() - 8));
    }
    for note in &page.notes {
        ui.label(RichText::new(note).small().color(theme::TEXT_WEAK));
    }
    ui.separator();
}

fn rows_ui(ui: &mut Ui, rows: &[&AuditRow]) {
    const HEIGHT: f32 = 22.0;
    let area = ScrollArea::vertical().auto_shrink([false, false]);
    area.show_rows(ui, HEIGHT, rows.len(), |ui, shown| {
        for row in &rows[shown] {
            ui.horizontal(|ui| {
                for (width, text) in [
                    (44.0, row.seq.to_string().as_str()),
                    (190.0, &row.time),
                    (180.0, &row.event),
                    (130.0, &row.users),
                    (180.0, &row.objects),
                    (80.0, &row.outcome),
                ] {
                    cell_ui(ui, width, HEIGHT, text);
                }
            });
        }
    });
}
