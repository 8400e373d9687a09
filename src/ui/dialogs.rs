//! Dialogs over the window: keys, about, skipped files, the batch. And notices.

use eframe::egui::{
    self, Align2, Area, Button, CornerRadius, Frame, Grid, Id, Margin, Modal, ProgressBar,
    RichText, ScrollArea, Stroke, Ui, vec2,
};

use super::copy_dialog::copy_ui;
use super::region_editor::forget_copy;
use super::remote_dialog::{forget_picture, leaving_ui, place_ui};
use super::results_panel::mirroring_ui;
use super::review_dialogs::{edit_ui, forget, reviewer_ui};
use super::widgets::{icon_button_ui, icon_line_ui, primary_button_ui};
use super::{icons, theme};
use crate::app::{App, Command, Dialog, NoticeLevel, command_table};

/// Draws the open dialog, if any.
pub fn dialog_ui(ctx: &egui::Context, app: &App, commands: &mut Vec<Command>) {
    let Some(dialog) = app.dialog else {
        forget(ctx);
        forget_picture(ctx);
        forget_copy(ctx);
        return;
    };
    let response = Modal::new(Id::unique("dialog")).show(ctx, |ui| match dialog {
        Dialog::Keys => keys_ui(ui, commands),
        Dialog::About => about_ui(ui, commands),
        Dialog::Skipped => skipped_ui(ui, app, commands),
        Dialog::Batch => batch_ui(ui, app, commands),
        Dialog::Copy => copy_ui(ui, app, commands),
        Dialog::Leaving => leaving_ui(ui, app, commands),
        Dialog::Reviewer => reviewer_ui(ui, app, commands),
        Dialog::EditFinding { image, finding } => edit_ui(ui, app, (image, finding), commands),
    });
    if response.should_close() {
        commands.push(Command::CloseDialog);
    }
}

pub fn title_ui(ui: &mut Ui, title: &str, width: f32, commands: &mut Vec<Command>) {
    ui.set_width(width);
    ui.horizontal(|ui| {
        ui.heading(title);
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            if icon_button_ui(ui, icons::X, "Close").clicked() {
                commands.push(Command::CloseDialog);
            }
        });
    });
    ui.add_space(6.0);
}

/// Gestures, as the help lists them.
const GESTURES: [(&str, &str); 13] = [
    ("Left drag", "Window: right widens, up or down brightens"),
    ("Left click", "Move the crosshair"),
    ("Shift + move", "The crosshair follows"),
    ("Wheel, ↑ ↓", "Scroll"),
    ("Shift + ↑ ↓, Page ↑ ↓", "Ten images"),
    ("Home, End", "First, last image"),
    ("Ctrl + wheel", "Zoom at the pointer"),
    ("Right drag, + −", "Zoom"),
    ("Middle drag", "Pan"),
    ("Ctrl while dragging", "Faster; Ctrl + Shift: faster still"),
    ("Double click, F11", "Maximize a view, restore"),
    ("0 … 9", "Window: 0 auto, 1–2 from the file, 3 … presets"),
    ("Esc", "Close, stop the last job, fit"),
];

fn keys_ui(ui: &mut Ui, commands: &mut Vec<Command>) {
    title_ui(ui, "Keys and gestures", 640.0, commands);
    ui.columns(2, |columns| {
        Grid::new("gestures")
            .num_columns(2)
            .spacing(vec2(14.0, 5.0))
            .show(&mut columns[0], |ui| {
                for (gesture, meaning) in GESTURES {
                    ui.label(RichText::new(gesture).small().color(theme::ACCENT));
                    ui.label(RichText::new(meaning).small());
                    ui.end_row();
                }
            });
        Grid::new("keys")
            .num_columns(2)
            .spacing(vec2(14.0, 5.0))
            .show(&mut columns[1], |ui| {
                for (_, label, _, shortcut) in command_table() {
                    if let Some(shortcut) = shortcut {
                        ui.label(RichText::new(shortcut.text()).small().color(theme::ACCENT));
                        ui.label(RichText::new(label.trim_end_matches('…')).small());
                        ui.end_row();
                    }
                }
            });
    });
}

fn about_ui(ui: &mut Ui, commands: &mut Vec<Command>) {
    title_ui(ui, "About Negatoscope", 460.0, commands);
    ui.label(format!("Version {}", crate::VERSION));
    ui.label(RichText::new(crate::RESEARCH_USE).color(theme::DOUBT));
    ui.add_space(6.0);
    ui.label("Opens DICOM studies, runs models on this machine and keeps the result. Nothing leaves this machine, unless you send it to a model server that you have set up and have seen what leaves.");
    ui.add_space(6.0);
    let text = "MIT or Apache-2.0. Fonts: Inter (OFL 1.1), Phosphor Icons (MIT). Bundled models state their licenses on their cards.";
    ui.label(RichText::new(text).small().color(theme::TEXT_WEAK));
}

fn skipped_ui(ui: &mut Ui, app: &App, commands: &mut Vec<Command>) {
    title_ui(ui, "Skipped files", 720.0, commands);
    let skipped = &app.browser.worklist.skipped;
    if skipped.is_empty() {
        ui.label("Every file was read.");
        return;
    }
    ui.label(format!("{} files were left out:", skipped.len()));
    let row = 20.0;
    ScrollArea::vertical()
        .max_height(420.0)
        .show_rows(ui, row, skipped.len(), |ui, range| {
            for entry in &skipped[range] {
                ui.horizontal(|ui| {
                    let name = entry.source.to_string();
                    let short = name.rsplit(['/', '\\']).next().unwrap_or(&name).to_owned();
                    ui.add_sized(
                        vec2(240.0, row),
                        egui::Label::new(RichText::new(short).small()).truncate(),
                    )
                    .on_hover_text(name);
                    let reason = RichText::new(&entry.reason).small().color(theme::TEXT_WEAK);
                    ui.add(egui::Label::new(reason).truncate())
                        .on_hover_text(&entry.reason);
                });
            }
        });
}

fn batch_ui(ui: &mut Ui, app: &App, commands: &mut Vec<Command>) {
    title_ui(ui, "Analyze folder", 820.0, commands);
    let running = app
        .batch
        .job
        .and_then(|id| app.jobs.iter().find(|job| job.id == id));
    ui.add_enabled_ui(running.is_none(), |ui| {
        Grid::new("batch")
            .num_columns(3)
            .spacing(vec2(12.0, 8.0))
            .show(ui, |ui| {
                for (label, path, command) in [
                    ("Studies", &app.batch.input, Command::ChooseBatchInput),
                    ("Results", &app.batch.output, Command::ChooseBatchOutput),
                ] {
                    ui.label(RichText::new(label).color(theme::TEXT_WEAK));
                    let text = path
                        .as_ref()
                        .map_or("Not chosen".to_owned(), |p| p.display().to_string());
                    ui.add_sized(vec2(520.0, 24.0), egui::Label::new(text).truncate());
                    if ui
                        .button(format!("Choose {}…", label.to_lowercase()))
                        .clicked()
                    {
                        commands.push(command);
                    }
                    ui.end_row();
                }
                ui.label(RichText::new("Model").color(theme::TEXT_WEAK));
                let name = app.chosen_model().map(|model| app.words_of(model));
                egui::ComboBox::from_id_salt("batch model")
                    .width(520.0)
                    .selected_text(name.unwrap_or_else(|| "None".to_owned()))
                    .show_ui(ui, |ui| {
                        for model in &app.models {
                            let chosen = app.selected_model.as_ref() == Some(&model.key);
                            if ui.selectable_label(chosen, app.words_of(model)).clicked() {
                                commands.push(Command::SelectModel(model.key.clone()));
                            }
                        }
                    });
                ui.end_row();
                if !app.places().is_empty() {
                    ui.label(RichText::new("Runs").color(theme::TEXT_WEAK));
                    place_ui(ui, app, 520.0, commands);
                    ui.end_row();
                }
            });
    });
    ui.add_space(8.0);
    if let Some(job) = running {
        let progress = job.task.progress();
        ui.horizontal(|ui| {
            ui.label(RichText::new(&progress.phase).small());
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                if ui.add(Button::new("Cancel")).clicked() {
                    commands.push(Command::CancelJob(job.id));
                }
            });
        });
        ui.add(
            ProgressBar::new(progress.fraction().unwrap_or(0.0))
                .desired_height(6.0)
                .fill(theme::ACCENT),
        );
    } else {
        let (input, output) = (&app.batch.input, &app.batch.output);
        let chosen = input.is_some() && output.is_some() && app.selected_model.is_some();
        let nowhere = app.runs_nowhere();
        let ready = chosen && nowhere.is_none();
        mirroring_ui(ui, app, commands);
        let label = match app.place() {
            Some(place) => format!("Start batch on {}…", place.name),
            None => "Start batch".to_owned(),
        };
        if primary_button_ui(ui, icons::PLAY, &label, ready).clicked() {
            commands.push(Command::StartBatch);
        }
        if let Some(why) = nowhere {
            icon_line_ui(ui, icons::INFO, theme::TEXT_WEAK, why);
        }
        let text = "Studies that are finished already with this model are not run again. Every result is kept as soon as it is there.";
        ui.label(RichText::new(text).small().color(theme::TEXT_WEAK));
    }
    if let Some(summary) = &app.batch.summary {
        ui.add_space(4.0);
        icon_line_ui(ui, icons::LIST_CHECKS, theme::TEXT, summary);
    }
    if app.batch.rows.is_empty() {
        return;
    }
    ui.add_space(6.0);
    ScrollArea::vertical()
        .max_height(320.0)
        .auto_shrink([false, true])
        .show(ui, |ui| {
            for (index, row) in app.batch.rows.iter().enumerate() {
                let (icon, color) = match row.status.as_str() {
                    "done" => (icons::CHECK_CIRCLE, theme::ACCENT),
                    "failed" => (icons::X_CIRCLE, theme::FAILURE),
                    "skipped" => (icons::PROHIBIT, theme::TEXT_WEAK),
                    _ => (icons::BRAIN, theme::DOUBT),
                };
                ui.horizontal(|ui| {
                    ui.label(
                        RichText::new(icon)
                            .font(theme::icon_font(16.0))
                            .color(color),
                    );
                    let title = egui::Label::new(&row.title).truncate();
                    ui.add_sized(vec2(230.0, 24.0), title);
                    let text = match row.status.as_str() {
                        // A case of a comparison was not run here.
                        "done" if row.seconds <= 0.0 => row.summary.clone(),
                        "done" => format!(
                            "{}  ·  {}",
                            row.summary,
                            super::results_panel::seconds_words(row.seconds)
                        ),
                        _ if row.reason.is_empty() => row.status.clone(),
                        _ => format!("{}: {}", row.status, row.reason),
                    };
                    let label =
                        egui::Label::new(RichText::new(&text).small().color(theme::TEXT_WEAK))
                            .truncate();
                    ui.add_sized(vec2(430.0, 24.0), label).on_hover_text(text);
                    if row.status == "done" && ui.button("Open").clicked() {
                        commands.push(Command::OpenBatchRow(index));
                    }
                });
            }
        });
}

/// Notices at the lower right of the images, newest below; they stay until taken away.
pub fn notices_ui(ctx: &egui::Context, app: &App, commands: &mut Vec<Command>) {
    if app.notices.is_empty() {
        return;
    }
    Area::new(Id::unique("notices"))
        .anchor(Align2::RIGHT_BOTTOM, vec2(-336.0, -44.0))
        .show(ctx, |ui| {
            ui.set_width(400.0);
            let hidden = app.notices.len().saturating_sub(4);
            for (index, notice) in app.notices.iter().enumerate().skip(hidden) {
                let (icon, color) = match notice.level {
                    NoticeLevel::Info => (icons::INFO, theme::ACCENT),
                    NoticeLevel::Warning => (icons::WARNING, theme::DOUBT),
                    NoticeLevel::Error => (icons::X_CIRCLE, theme::FAILURE),
                };
                Frame::new()
                    .fill(egui::Color32::from_rgb(30, 31, 34))
                    .stroke(Stroke::new(1.0, color.gamma_multiply(0.6)))
                    .corner_radius(CornerRadius::same(8))
                    .inner_margin(Margin::same(12))
                    .show(ui, |ui| {
                        ui.set_width(376.0);
                        ui.horizontal(|ui| {
                            ui.label(
                                RichText::new(icon)
                                    .font(theme::icon_font(17.0))
                                    .color(color),
                            );
                            ui.label(RichText::new(&notice.title).font(theme::medium(14.0)));
                            ui.with_layout(
                                egui::Layout::right_to_left(egui::Align::Center),
                                |ui| {
                                    if icon_button_ui(ui, icons::X, "Dismiss").clicked() {
                                        commands.push(Command::DismissNotice(index));
                                    }
                                },
                            );
                        });
                        ui.add(egui::Label::new(RichText::new(&notice.text).small()).wrap());
                        if !notice.details.is_empty() {
                            ui.push_id(index, |ui| {
                                ui.collapsing(RichText::new("Details").small(), |ui| {
                                    for line in &notice.details {
                                        let text =
                                            RichText::new(line).small().color(theme::TEXT_WEAK);
                                        ui.add(egui::Label::new(text).wrap());
                                    }
                                });
                            });
                        }
                    });
                ui.add_space(6.0);
            }
        });
}
