//! What would leave this machine, for a person to agree to; and where a model runs.

use eframe::egui::{
    self, ColorImage, Grid, Id, Image, Label, RichText, ScrollArea, TextureHandle, TextureOptions,
    Ui, vec2,
};

use super::dialogs::title_ui;
use super::widgets::{icon_line_ui, primary_button_ui};
use super::{icons, theme};
use crate::app::{App, Command, LeavingPage};

/// Width of the dialog and of the picture in it, in points.
const WIDTH: f32 = 820.0;
const PICTURE: f32 = 230.0;

/// Shows what would leave.
pub fn leaving_ui(ui: &mut Ui, app: &App, commands: &mut Vec<Command>) {
    let Some(page) = &app.remote.leaving else {
        commands.push(Command::CloseDialog);
        return;
    };
    title_ui(ui, "This would leave your machine", WIDTH, commands);
    ScrollArea::vertical().max_height(520.0).show(ui, |ui| {
        ui.horizontal_top(|ui| {
            if page.picture.is_some() {
                ui.vertical(|ui| picture_ui(ui, page));
                ui.add_space(8.0);
            }
            ui.vertical(|ui| facts_ui(ui, page));
        });
        ui.add_space(8.0);
        ui.columns(2, |columns| {
            list_ui(
                &mut columns[0],
                "Is sent",
                icons::ARROW_UP_RIGHT,
                &page.sent,
            );
            list_ui(&mut columns[1], "Stays here", icons::CHECK, &page.stays);
        });
    });
    for doubt in &page.doubts {
        icon_line_ui(ui, icons::WARNING, theme::DOUBT, doubt);
    }
    if let Some(why) = &page.refused {
        icon_line_ui(ui, icons::PROHIBIT, theme::FAILURE, why);
    }
    ui.add_space(8.0);
    let for_good = for_good_ui(ui, page);
    ui.horizontal(|ui| {
        if ui
            .add(egui::Button::new("Do not send").min_size(vec2(150.0, 32.0)))
            .clicked()
        {
            commands.push(Command::CloseDialog);
        }
        let label = format!("Send to {}", page.endpoint);
        if primary_button_ui(ui, icons::ARROW_UP_RIGHT, &label, page.refused.is_none()).clicked() {
            if for_good {
                commands.push(Command::SetAsks(page.endpoint.clone(), false));
            }
            commands.push(Command::SendRemote);
        }
    });
    let text = "Sending and its end are put on record in the audit log. Cancelling stops waiting; a server may go on with what it has.";
    ui.label(RichText::new(text).small().color(theme::TEXT_WEAK));
}

/// Whether the server need not ask again. What is doubtful or refused is asked about each time, whatever
/// was agreed to.
fn for_good_ui(ui: &mut Ui, page: &LeavingPage) -> bool {
    if page.refused.is_some() || !page.doubts.is_empty() {
        return false;
    }
    let lasting = Id::unique("agreed for good");
    let mut for_good = ui.data(|d| d.get_temp(lasting)).unwrap_or(false);
    let words = format!(
        "Send to {} without asking from now on, as long as nothing is doubtful",
        page.endpoint
    );
    ui.checkbox(&mut for_good, words)
        .on_hover_text("Each sending is on record; Analysis, Model servers… has it asked again");
    ui.data_mut(|d| d.insert_temp(lasting, for_good));
    for_good
}

fn picture_ui(ui: &mut Ui, page: &LeavingPage) {
    let Some(texture) = texture_of(ui, page) else {
        return;
    };
    let [width, height] = texture.size().map(|n| n as f32);
    let scale = PICTURE / width.max(height).max(1.0);
    let image = Image::new(&texture)
        .fit_to_exact_size(vec2(width * scale, height * scale))
        .alt_text("A piece of what would leave");
    ui.add(image);
    let words = "One slice of a piece, turned and scaled as the server gets it";
    ui.set_width(PICTURE);
    ui.add(Label::new(RichText::new(words).small().color(theme::TEXT_WEAK)).wrap());
}

/// The picture's texture; kept in egui's memory until another page comes.
fn texture_of(ui: &Ui, page: &LeavingPage) -> Option<TextureHandle> {
    let (width, height, rgba) = page.picture.as_ref()?;
    let place = Id::unique("leaving picture");
    if let Some((job, known)) = ui.data(|d| d.get_temp::<(u64, TextureHandle)>(place))
        && job == page.job.0
    {
        return Some(known);
    }
    let image = ColorImage::from_rgba_unmultiplied([*width, *height], rgba);
    let texture = ui
        .ctx()
        .load_texture("leaving", image, TextureOptions::NEAREST);
    ui.data_mut(|d| d.insert_temp(place, (page.job.0, texture.clone())));
    Some(texture)
}

/// Forgets the picture: it shows a patient.
pub fn forget_picture(ctx: &egui::Context) {
    let place = Id::unique("leaving picture");
    ctx.data_mut(|d| {
        d.remove::<(u64, TextureHandle)>(place);
        d.remove::<bool>(Id::unique("agreed for good"));
    });
}

fn facts_ui(ui: &mut Ui, page: &LeavingPage) {
    Grid::new("leaving")
        .num_columns(2)
        .spacing(vec2(14.0, 5.0))
        .show(ui, |ui| {
            for (name, what) in &page.facts {
                ui.label(RichText::new(name).small().color(theme::TEXT_WEAK));
                ui.scope(|ui| {
                    ui.set_max_width(WIDTH - PICTURE - 130.0);
                    ui.add(Label::new(RichText::new(what).small()).wrap());
                });
                ui.end_row();
            }
        });
}

fn list_ui(ui: &mut Ui, title: &str, icon: &str, lines: &[String]) {
    ui.label(RichText::new(title).font(theme::medium(13.0)));
    for line in lines {
        icon_line_ui(ui, icon, theme::TEXT_WEAK, line);
    }
}

/// Where the chosen model runs; nothing where no server is set up that may run it.
pub fn place_ui(ui: &mut Ui, app: &App, width: f32, commands: &mut Vec<Command>) {
    let places = app.places();
    if places.is_empty() {
        return;
    }
    let here = match app.runs_nowhere() {
        Some(_) => "Choose a server",
        None => "On this machine",
    };
    let words = |place: &crate::app::Place| match place.region.as_str() {
        "" => format!("On {}", place.name),
        region => format!("On {} ({region})", place.name),
    };
    let chosen = app.place();
    egui::ComboBox::from_id_salt("place")
        .width(width)
        .selected_text(chosen.map_or_else(|| here.to_owned(), words))
        .truncate()
        .show_ui(ui, |ui| {
            let has_weights = !app.chosen_model().is_some_and(|m| m.only_on_a_server);
            if has_weights && ui.selectable_label(chosen.is_none(), here).clicked() {
                commands.push(Command::SetPlace(None));
            }
            for place in places {
                let is_it = chosen.is_some_and(|c| c.name == place.name);
                let estimate = app.place_estimate(&place.name);
                let hover = estimate.map_or(&place.url, |e| e.refused.as_ref().unwrap_or(&e.words));
                let label = ui
                    .selectable_label(is_it, words(place))
                    .on_hover_text(hover);
                if label.clicked() {
                    commands.push(Command::SetPlace(Some(place.name.clone())));
                }
            }
        })
        .response
        .widget_info(|| egui::WidgetInfo::labeled(egui::Role::ComboBox, true, "Where it runs"));
}
