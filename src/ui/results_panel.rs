//! The panel on the right: the model and its run, segments with volumes, doubts.

use eframe::egui::{self, ProgressBar, RichText, ScrollArea, Slider, Ui};

use super::findings_list::findings_ui;
use super::remote_dialog::place_ui;
use super::widgets::{
    card, icon_button_ui, icon_line_ui, primary_button_ui, section_ui, swatch_ui,
};
use super::{icons, theme};
use crate::app::{App, Command, Job, JobKind, Results, Traffic, bytes_words};
use crate::findings::ReviewState;

/// Draws the panel.
pub fn results_ui(ui: &mut Ui, app: &App, commands: &mut Vec<Command>) {
    ScrollArea::vertical()
        .auto_shrink([false, false])
        .show(ui, |ui| {
            model_ui(ui, app, commands);
            if let Some(results) = &app.results {
                segments_ui(ui, app, results, commands);
            }
            if let Some(findings) = &app.findings {
                findings_ui(ui, app, findings, commands);
            }
            doubts_ui(ui, app);
        });
}

fn model_ui(ui: &mut Ui, app: &App, commands: &mut Vec<Command>) {
    section_ui(ui, "Model");
    let Some(selected) = app
        .selected_model
        .as_ref()
        .and_then(|key| app.models.iter().find(|m| m.key == *key))
    else {
        icon_line_ui(
            ui,
            icons::INFO,
            theme::TEXT_WEAK,
            "No model is installed. Import one:",
        );
        if ui.button("Import model…").clicked() {
            commands.push(Command::ImportModel);
        }
        return;
    };
    let mut chosen = selected.key.clone();
    egui::ComboBox::from_id_salt("model")
        .width(ui.available_width())
        .height(480.0)
        .selected_text(app.words_of(selected))
        .truncate()
        .show_ui(ui, |ui| {
            for model in &app.models {
                let text = format!("{}  {}", app.words_of(model), model.version);
                ui.selectable_value(&mut chosen, model.key.clone(), text)
                    .on_hover_text(&model.intended_use);
            }
        })
        .response
        .widget_info(|| egui::WidgetInfo::labeled(egui::Role::ComboBox, true, "Model"));
    if chosen != selected.key {
        commands.push(Command::SelectModel(chosen));
    }
    card(ui, theme::RAISED, |ui| {
        ui.spacing_mut().item_spacing.y = 4.0;
        ui.add(egui::Label::new(RichText::new(&selected.intended_use).small()).wrap());
        let facts = format!(
            "{}  ·  {}  ·  {}  ·  {}  ·  {}",
            selected.modality,
            // As the command line names it; its name above may be cut.
            selected.key,
            if selected.segments == 0 {
                "findings".to_owned()
            } else {
                format!("{} segments", selected.segments)
            },
            selected.origin,
            selected.license
        );
        ui.add(egui::Label::new(RichText::new(facts).small().color(theme::TEXT_WEAK)).wrap());
        for (channel, title) in &app.channels {
            let words = RichText::new(format!("{channel}: {title}")).small();
            ui.add(egui::Label::new(words).truncate());
        }
        if let Some(Ok(estimate)) = &app.estimate {
            let (icon, color) = match estimate.traffic {
                Traffic::Green => (icons::CHECK_CIRCLE, theme::ACCENT),
                Traffic::Amber => (icons::WARNING, theme::DOUBT),
                Traffic::Red => (icons::X_CIRCLE, theme::FAILURE),
            };
            let reasons = match (estimate.traffic, estimate.reasons.is_empty()) {
                (Traffic::Green, true) => "Fits this series".to_owned(),
                _ => estimate.reasons.join("; "),
            };
            icon_line_ui(ui, icon, color, &reasons);
            let refused = estimate.traffic == Traffic::Red;
            let time = estimate
                .seconds
                .map(|s| format!("about {}  ·  ", seconds_words(s)));
            let needs = format!(
                "Needs {}{} of {} free memory  ·  {}",
                time.unwrap_or_default(),
                bytes_words(estimate.needed_bytes),
                bytes_words(estimate.available_bytes),
                estimate.device
            );
            if !refused && app.place().is_none() && !selected.only_on_a_server {
                let needs = RichText::new(needs).small().color(theme::TEXT_WEAK);
                ui.add(egui::Label::new(needs).wrap());
            }
        }
        if !selected.limits.is_empty() {
            ui.collapsing(RichText::new("Known limits").small(), |ui| {
                for limit in &selected.limits {
                    ui.add(egui::Label::new(RichText::new(limit).small()).wrap());
                }
            });
        }
    });
    if let Some(job) = app.running(JobKind::Model) {
        progress_ui(ui, job, commands);
    } else {
        mirroring_ui(ui, app, commands);
        let width = ui.available_width();
        place_ui(ui, app, width, commands);
        if let Some(estimate) = app.place().and_then(|p| app.place_estimate(&p.name)) {
            let text = RichText::new(&estimate.words)
                .small()
                .color(theme::TEXT_WEAK);
            ui.add(egui::Label::new(text).wrap());
        }
        let can = app.can_run();
        let label = match app.place() {
            Some(place) => format!("Run on {}…", place.name),
            None => "Run model".to_owned(),
        };
        let response = primary_button_ui(ui, icons::PLAY, &label, can.is_ok());
        let response = match &can {
            Err(reason) => response.on_disabled_hover_text(reason),
            Ok(()) => response.on_hover_text("F5"),
        };
        if response.clicked() {
            commands.push(Command::RunModel);
        }
        // A refusal by the envelope stands above already.
        let told = matches!(&app.estimate, Some(Ok(e)) if e.traffic == Traffic::Red);
        if let (Err(reason), true, false) = (&can, app.workspace.open.is_some(), told) {
            ui.label(RichText::new(reason).small().color(theme::TEXT_WEAK));
        }
    }
}

/// Whether mirrored passes are run, for a chosen model whose plans ask for them.
pub fn mirroring_ui(ui: &mut Ui, app: &App, commands: &mut Vec<Command>) {
    let chosen = app.selected_model.as_ref();
    if !app
        .models
        .iter()
        .any(|m| m.mirrors && Some(&m.key) == chosen)
    {
        return;
    }
    let mut on = app.settings.mirroring;
    let text = RichText::new("Mirroring (slower, a little better)").small();
    let hover = "Averages mirrored passes over the images, as the model's authors ran it";
    if ui.checkbox(&mut on, text).on_hover_text(hover).changed() {
        commands.push(Command::SetMirroring(on));
    }
}

/// Progress of a job with its cancel button.
pub fn progress_ui(ui: &mut Ui, job: &Job, commands: &mut Vec<Command>) {
    let progress = job.task.progress();
    card(ui, theme::RAISED, |ui| {
        ui.horizontal(|ui| {
            let width = ui.available_width() - 34.0;
            ui.vertical(|ui| {
                ui.set_width(width);
                let text = if progress.phase.is_empty() {
                    &job.title
                } else {
                    &progress.phase
                };
                ui.add(egui::Label::new(RichText::new(text).small()).truncate());
                let bar = ProgressBar::new(progress.fraction().unwrap_or(0.0))
                    .desired_height(5.0)
                    .desired_width(width)
                    .fill(theme::ACCENT);
                ui.add(bar);
            });
            let stopping = job.task.is_cancelled();
            ui.add_enabled_ui(!stopping, |ui| {
                let label = if stopping { "Stopping…" } else { "Cancel" };
                if icon_button_ui(ui, icons::X, label).clicked() {
                    commands.push(Command::CancelJob(job.id));
                }
            });
        });
    });
}

fn segments_ui(ui: &mut Ui, app: &App, results: &Results, commands: &mut Vec<Command>) {
    ui.horizontal(|ui| {
        section_ui(ui, "Segments");
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            let (icon, label) = if results.overlay.visible {
                (icons::EYE, "Hide segmentation (G)")
            } else {
                (icons::EYE_SLASH, "Show segmentation (G)")
            };
            if icon_button_ui(ui, icon, label).clicked() {
                commands.push(Command::ToggleOverlay);
            }
        });
    });
    let (icon, color) = match results.review {
        ReviewState::NotReviewed => (icons::WARNING_CIRCLE, theme::DOUBT),
        ReviewState::Accepted | ReviewState::Edited => (icons::CHECK_CIRCLE, theme::ACCENT),
        ReviewState::Rejected => (icons::PROHIBIT, theme::FAILURE),
    };
    let made = &results.segmentation.provenance;
    icon_line_ui(
        ui,
        icon,
        color,
        &format!(
            "{}  ·  {} {}",
            results.badge(),
            made.model_name,
            made.model_version
        ),
    );
    if let Some(review) = &results.reviewed {
        let by = match review.by.expose().as_str() {
            "" => String::new(),
            name => format!("{name}, "),
        };
        let words = format!("{by}{}", review.at.format("%Y-%m-%d %H:%M UTC"));
        ui.label(RichText::new(words).small().color(theme::TEXT_WEAK));
    }
    if let Some((_, stage)) = &results.provisional {
        icon_line_ui(
            ui,
            icons::INFO,
            theme::DOUBT,
            &format!("{stage}: mask and volumes change until the run has ended."),
        );
    }
    let present: Vec<_> = results
        .segmentation
        .segments
        .iter()
        .filter_map(|segment| Some((segment, results.of(segment.label)?)))
        .collect();
    if present.is_empty() && results.provisional.is_none() {
        icon_line_ui(
            ui,
            icons::INFO,
            theme::TEXT_WEAK,
            "The model found none of its structures here.",
        );
    }
    let unit = app
        .workspace
        .open
        .as_ref()
        .map(|o| o.data.quantity.unit().to_owned())
        .unwrap_or_default();
    for (segment, numbers) in present {
        let visible = !results.overlay.hidden[usize::from(segment.label)];
        ui.horizontal(|ui| {
            ui.spacing_mut().item_spacing.x = 6.0;
            let (icon, verb) = if visible { (icons::EYE, "Hide") } else { (icons::EYE_SLASH, "Show") };
            if icon_button_ui(ui, icon, &format!("{verb} {}", segment.name)).clicked() {
                commands.push(Command::SetSegmentVisible { label: segment.label, visible: !visible });
            }
            swatch_ui(ui, segment.color, visible);
            let width = (ui.available_width() - 76.0).max(40.0);
            let name = ui
                .scope(|ui| {
                    ui.set_width(width);
                    let text = RichText::new(&segment.name);
                    ui.add(egui::Label::new(text).truncate().sense(egui::Sense::click()))
                })
                .inner;
            let details = format!(
                "{}: {} voxels\nMean {:.1} ± {:.1} {unit}, {:.1} to {:.1} {unit}\nCenter {}\nClick: go there",
                segment.name, numbers.voxels, numbers.mean, numbers.sd, numbers.min, numbers.max,
                crate::geometry::position_words(numbers.centroid_lps),
            );
            if name.on_hover_text(details).clicked() {
                commands.push(Command::GoToSegment(segment.label));
            }
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                // A radiograph has points, no volume.
                let size = numbers.volume_ml.map_or_else(|| format!("{} px", numbers.voxels), ml_words);
                ui.label(RichText::new(size).color(theme::TEXT));
            });
        });
    }
    egui::Grid::new("overlay")
        .num_columns(2)
        .spacing([10.0, 4.0])
        .show(ui, |ui| {
            for (label, value, command) in [
                (
                    "Fill",
                    app.settings.overlay_fill,
                    Command::SetOverlayFill as fn(f32) -> Command,
                ),
                (
                    "Outline",
                    app.settings.overlay_outline,
                    Command::SetOverlayOutline,
                ),
            ] {
                let name = ui.label(RichText::new(label).small().color(theme::TEXT_WEAK));
                let mut percent = value * 100.0;
                let slider = Slider::new(&mut percent, 0.0..=100.0)
                    .suffix(" %")
                    .fixed_decimals(0);
                if ui.add(slider).labelled_by(name.id).changed() {
                    commands.push(command(percent / 100.0));
                }
                ui.end_row();
            }
        });
    if results.provisional.is_some() {
        return;
    }
    ui.add_space(2.0);
    ui.horizontal(|ui| {
        let accepted = results.review == ReviewState::Accepted;
        let rejected = results.review == ReviewState::Rejected;
        let text = format!("{}  Accept", icons::CHECK);
        if ui
            .selectable_label(accepted, text)
            .on_hover_text("Ctrl+Enter")
            .clicked()
        {
            commands.push(Command::AcceptResult);
        }
        let text = format!("{}  Reject", icons::X);
        if ui
            .selectable_label(rejected, text)
            .on_hover_text("Ctrl+Backspace")
            .clicked()
        {
            commands.push(Command::RejectResult);
        }
    });
    if let Some(job) = app.running(JobKind::Export) {
        progress_ui(ui, job, commands);
    } else {
        let label = if results.exported {
            "Save again…"
        } else {
            "Save results…"
        };
        let response = primary_button_ui(ui, icons::FLOPPY_DISK, label, true);
        if response
            .on_hover_text("DICOM SEG, NIfTI, CSV and JSON (Ctrl+S)")
            .clicked()
        {
            commands.push(Command::Export);
        }
    }
}

fn doubts_ui(ui: &mut Ui, app: &App) {
    let volume = app.workspace.open.iter().flat_map(|open| &open.data.issues);
    let run = app.results.iter().flat_map(|r| &r.segmentation.issues);
    let said = (app.findings.iter()).flat_map(|f| f.assessments.iter().flat_map(|a| &a.issues));
    let mut seen: Vec<String> = Vec::new();
    for issue in volume.chain(run).chain(said) {
        let text = issue.to_string();
        if !seen.contains(&text) {
            seen.push(text);
        }
    }
    if seen.is_empty() {
        return;
    }
    section_ui(ui, "Doubts about this data");
    for text in seen {
        icon_line_ui(ui, icons::WARNING, theme::DOUBT, &text);
    }
}

/// "3.21 mL", "1240 mL".
pub fn ml_words(ml: f64) -> String {
    if ml < 100.0 {
        format!("{ml:.2} mL")
    } else {
        format!("{ml:.0} mL")
    }
}

/// "8 s", "2 min 10 s".
pub fn seconds_words(seconds: f64) -> String {
    let s = seconds.round().max(1.0) as u64;
    if s < 60 {
        format!("{s} s")
    } else {
        format!("{} min {} s", s / 60, s % 60)
    }
}
