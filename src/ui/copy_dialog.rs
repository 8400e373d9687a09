//! A copy of the open study without identity: what goes into it, what is blackened in its pixels,
//! and what was done.

use eframe::egui::{self, ProgressBar, RichText, Ui};

use super::dialogs::title_ui;
use super::region_editor::regions_ui;
use super::widgets::{cell_ui, icon_line_ui, primary_button_ui};
use super::{icons, theme};
use crate::app::{App, Command, CopyWanted};

/// Draws the dialog.
pub fn copy_ui(ui: &mut Ui, app: &App, commands: &mut Vec<Command>) {
    title_ui(ui, "Copy without identity", 960.0, commands);
    let copy = &app.copy;
    let mut wanted = copy.wanted.clone();
    ui.horizontal_top(|ui| {
        ui.add_enabled_ui(copy.job.is_none(), |ui| {
            ui.vertical(|ui| regions_ui(ui, app, &mut wanted));
        });
        ui.add_space(12.0);
        ui.vertical(|ui| {
            ui.set_width(ui.available_width());
            choices_ui(ui, app, &mut wanted, commands);
        });
    });
    if wanted != copy.wanted {
        commands.push(Command::SetCopy(wanted));
    }
}

/// What is copied and how, the button, and what was done.
fn choices_ui(ui: &mut Ui, app: &App, wanted: &mut CopyWanted, commands: &mut Vec<Command>) {
    let copy = &app.copy;
    let running = copy
        .job
        .and_then(|id| app.jobs.iter().find(|job| job.id == id));
    ui.add_enabled_ui(running.is_none(), |ui| {
        ui.horizontal(|ui| {
            for (whole, label) in [(false, "This series"), (true, "The whole study")] {
                let text = format!("{label} ({} files)", app.copy_files(whole).len());
                ui.radio_value(&mut wanted.whole_study, whole, text);
            }
        });
        ui.add_space(4.0);
        ui.checkbox(
            &mut wanted.for_research,
            "For research: keep intervals of dates, age, sex, technique, structure",
        )
        .on_hover_text("Otherwise the Basic Profile of DICOM PS3.15: all of it goes");
        ui.checkbox(&mut wanted.deface, "Take faces out of CT and MR of heads");
        ui.checkbox(
            &mut wanted.redact_found,
            "Blacken what looks like text in the pixels",
        );
        ui.add_enabled_ui(!wanted.regions.is_empty() || wanted.redact_found, |ui| {
            ui.checkbox(
                &mut wanted.reviewed,
                "I have looked at all images: what is blackened is all the text there is",
            )
            .on_hover_text(
                "Blackened images are then marked as free of burned-in text (Burned In Annotation)",
            );
        });
        ui.add_space(4.0);
        ui.horizontal(|ui| {
            ui.label(RichText::new("Folder").color(theme::TEXT_WEAK));
            let folder = wanted.folder.as_ref();
            let text = folder.map_or("Not chosen".to_owned(), |p| p.display().to_string());
            cell_ui(ui, 250.0, 24.0, &text);
            if ui.button("Choose folder…").clicked() {
                commands.push(Command::ChooseCopyFolder);
            }
        });
    });
    let files = app.copy_files(copy.wanted.whole_study);
    if files
        .iter()
        .any(|f| f.extension().is_some_and(|e| e.eq_ignore_ascii_case("zip")))
    {
        let text = "The study lies in an archive: everything in the archive is copied";
        icon_line_ui(ui, icons::INFO, theme::DOUBT, text);
    }
    ui.add_space(6.0);
    if let Some(job) = running {
        let progress = job.task.progress();
        ui.horizontal(|ui| {
            ui.label(RichText::new(&progress.phase).small());
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                if ui.button("Cancel").clicked() {
                    commands.push(Command::CancelJob(job.id));
                }
            });
        });
        let bar = ProgressBar::new(progress.fraction().unwrap_or(0.0));
        ui.add(bar.desired_height(6.0).fill(theme::ACCENT));
    } else if primary_button_ui(
        ui,
        icons::FLOPPY_DISK,
        "Write copy",
        copy.wanted.folder.is_some(),
    )
    .clicked()
    {
        commands.push(Command::StartCopy);
    }
    for line in &copy.done {
        icon_line_ui(ui, icons::CHECK, theme::TEXT, line);
    }
    for doubt in &copy.doubts {
        icon_line_ui(ui, icons::WARNING, theme::DOUBT, doubt);
    }
    let text = "Attributes go or are replaced by DICOM PS3.15 annex E (2026c); the same patient has the same pseudonym in every copy from this machine. Files whose pixels may show text about a person are held back. Look at the copy before you give it away.";
    ui.add(egui::Label::new(RichText::new(text).small().color(theme::TEXT_WEAK)).wrap());
}
