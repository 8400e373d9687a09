//! The model servers that are set up: testing, removing, and adding one.

use eframe::egui::{self, Grid, Id, RichText, ScrollArea, TextEdit, Ui, vec2};

use super::widgets::{cell_ui, icon_line_ui, section_ui};
use super::{icons, theme};
use crate::app::{App, Command, ServerDraft, ServerTest};

/// Draws the window when it is open.
pub fn servers_ui(ctx: &egui::Context, app: &App, commands: &mut Vec<Command>) {
    let place = Id::unique("server draft");
    if !app.remote.servers_shown {
        ctx.data_mut(|data| data.remove::<ServerDraft>(place));
        return;
    }
    let mut open = true;
    egui::Window::new("Model servers")
        .open(&mut open)
        // Below the menu.
        .default_pos([16.0, 44.0])
        .default_size([720.0, 560.0])
        .min_width(560.0)
        .collapsible(false)
        .show(ctx, |ui| {
            ScrollArea::vertical()
                .auto_shrink([false, true])
                .show(ui, |ui| {
                    list_ui(ui, app, commands);
                    if let Some(test) = &app.remote.tested {
                        tested_ui(ui, test, commands);
                    }
                    ui.separator();
                    let mut draft: ServerDraft =
                        ui.data(|data| data.get_temp(place)).unwrap_or_default();
                    draft.authority.clone_from(&app.remote.authority);
                    draft_ui(ui, app, &mut draft, commands);
                    ui.data_mut(|data| data.insert_temp(place, draft));
                });
        });
    if !open {
        commands.push(Command::HideServers);
    }
}

fn list_ui(ui: &mut Ui, app: &App, commands: &mut Vec<Command>) {
    if app.remote.places.is_empty() {
        ui.label("None is set up: every model runs on this machine.");
    }
    for place in &app.remote.places {
        ui.horizontal(|ui| {
            for (width, text) in [
                (110.0, &place.name),
                (260.0, &place.url),
                (100.0, &place.region),
            ] {
                cell_ui(ui, width, 26.0, text);
            }
            let busy = app.remote.tested.as_ref().is_some_and(|t| t.is_running);
            if ui.add_enabled(!busy, egui::Button::new("Test")).clicked() {
                commands.push(Command::TestServer(place.name.clone()));
            }
            let mut asks = place.asks;
            let box_of = ui.checkbox(&mut asks, "Asks");
            if box_of
                .on_hover_text("What would leave is shown before each sending; without, only when something about it is doubtful")
                .changed()
            {
                commands.push(Command::SetAsks(place.name.clone(), asks));
            }
            if ui.button("Remove").clicked() {
                commands.push(Command::RemoveServer(place.name.clone()));
            }
        });
    }
}

fn tested_ui(ui: &mut Ui, test: &ServerTest, commands: &mut Vec<Command>) {
    section_ui(ui, &format!("Test of {}", test.name));
    Grid::new("server test")
        .num_columns(2)
        .spacing(vec2(14.0, 4.0))
        .show(ui, |ui| {
            for (step, found) in &test.steps {
                ui.label(RichText::new(step).small().color(theme::TEXT_WEAK));
                ui.add(egui::Label::new(RichText::new(found).small()).wrap());
                ui.end_row();
            }
        });
    if let Some((place, code)) = &test.sign_in {
        ui.label("Sign in with a browser, on this machine or any other:");
        ui.horizontal(|ui| {
            // A server's word is opened only where it is a page.
            if place.starts_with("https://") {
                ui.hyperlink_to(place, place);
            } else {
                ui.label(place);
            }
            ui.label(RichText::new(code).monospace().size(18.0));
            if ui.button("Copy code").clicked() {
                ui.ctx().copy_text(code.clone());
            }
        });
    }
    match (test.is_running, test.problem.as_str()) {
        (true, _) => {
            ui.horizontal(|ui| {
                ui.spinner();
                if ui.button("Stop").clicked() {
                    commands.push(Command::StopTest);
                }
            });
        }
        (false, "") => icon_line_ui(ui, icons::CHECK_CIRCLE, theme::ACCENT, "It can be used"),
        (false, problem) => icon_line_ui(ui, icons::X_CIRCLE, theme::FAILURE, problem),
    }
}

fn draft_ui(ui: &mut Ui, app: &App, draft: &mut ServerDraft, commands: &mut Vec<Command>) {
    section_ui(ui, "Add a server");
    Grid::new("server draft")
        .num_columns(2)
        .spacing(vec2(14.0, 6.0))
        .show(ui, |ui| {
            for (label, hint, text) in [
                ("Name", "ward", &mut draft.name),
                ("Address", "https://models.hospital.example", &mut draft.url),
                (
                    "Computes in",
                    "for people: Munich, cellar",
                    &mut draft.region,
                ),
                (
                    "Keeps",
                    "for people: nothing, 30 days",
                    &mut draft.retention,
                ),
                ("Models", "any", &mut draft.models),
                (
                    "Pinned keys",
                    "SHA-256, two for a change of keys",
                    &mut draft.pins,
                ),
                ("Token in", "NAME_OF_A_VARIABLE", &mut draft.token_variable),
            ] {
                let name = ui.label(RichText::new(label).color(theme::TEXT_WEAK));
                let field = TextEdit::singleline(text)
                    .hint_text(hint)
                    .desired_width(400.0);
                ui.add(field).labelled_by(name.id);
                ui.end_row();
            }
            ui.label(RichText::new("Authority").color(theme::TEXT_WEAK));
            ui.horizontal(|ui| {
                let text = draft
                    .authority
                    .as_ref()
                    .map_or("The system's".to_owned(), |p| p.display().to_string());
                cell_ui(ui, 280.0, 24.0, &text);
                if ui.button("Choose certificates…").clicked() {
                    commands.push(Command::ChooseAuthority);
                }
            });
            ui.end_row();
        });
    ui.checkbox(&mut draft.plain_http, "Plain http, to this machine alone");
    let text = "It speaks the Open Inference Protocol (Triton, KServe, MLServer, …). A token stays where it is: the profile names the variable that holds it. `negatoscope endpoints add` has more: client certificates, OAuth, prices, clouds.";
    ui.label(RichText::new(text).small().color(theme::TEXT_WEAK));
    let taken = app.remote.places.iter().any(|p| p.name == draft.name);
    let ready = !draft.name.is_empty() && !draft.url.is_empty() && !taken;
    let button = ui.add_enabled(ready, egui::Button::new("Add server"));
    let button = button.on_disabled_hover_text(if taken {
        "The name is taken"
    } else {
        "A server needs a name and an address"
    });
    if button.clicked() {
        commands.push(Command::AddServer(Box::new(draft.clone())));
    }
}
