//! The study browser on the left: patients, studies, series with thumbnails.

use std::collections::HashMap;

use eframe::egui::{
    self, Color32, ColorImage, CornerRadius, Rect, RichText, Role, ScrollArea, Sense,
    TextureHandle, TextureOptions, Ui, Vec2, WidgetInfo, pos2, vec2,
};

use super::corner_text::date_words;
use super::{icons, theme};
use crate::app::{App, Command, SeriesKey};
use crate::study::{FileSource, Patient, Series, Study};

/// Textures of the thumbnails; a cache, droppable at any time.
#[derive(Default)]
pub struct Thumbnails(HashMap<SeriesKey, TextureHandle>);

impl Thumbnails {
    fn texture(
        &mut self,
        ctx: &egui::Context,
        app: &App,
        key: &SeriesKey,
    ) -> Option<TextureHandle> {
        if let Some(texture) = self.0.get(key) {
            return Some(texture.clone());
        }
        let (width, height, rgba) = app.thumbnails.get(key)?;
        let image = ColorImage::from_rgba_unmultiplied([*width, *height], rgba);
        let texture = ctx.load_texture("thumbnail", image, TextureOptions::LINEAR);
        self.0.insert(key.clone(), texture.clone());
        Some(texture)
    }
}

/// Draws the browser; a click opens a series.
pub fn browser_ui(
    ui: &mut Ui,
    app: &App,
    thumbnails: &mut Thumbnails,
    commands: &mut Vec<Command>,
) {
    ScrollArea::vertical()
        .auto_shrink([false, false])
        .show(ui, |ui| {
            ui.spacing_mut().item_spacing.y = 4.0;
            for patient in &app.browser.worklist.patients {
                patient_ui(ui, patient);
                for study in &patient.studies {
                    study_ui(ui, study);
                    for series in &study.series {
                        if series.stacks.is_empty() {
                            object_ui(ui, series, commands);
                        }
                        for stack in 0..series.stacks.len() {
                            stack_ui(ui, app, thumbnails, series, stack, commands);
                        }
                    }
                }
                ui.add_space(10.0);
            }
            if !app.browser.files.is_empty() {
                super::widgets::section_ui(ui, "Volume files");
                for file in &app.browser.files {
                    let key = SeriesKey::File(file.path.clone());
                    let lines = [file.name.clone(), "NIfTI".to_owned()];
                    row_ui(ui, app, thumbnails, &key, &lines, false, commands);
                }
            }
        });
}

fn patient_ui(ui: &mut Ui, patient: &Patient) {
    ui.add_space(4.0);
    ui.horizontal(|ui| {
        ui.label(
            RichText::new(icons::USER)
                .font(theme::icon_font(16.0))
                .color(theme::TEXT_WEAK),
        );
        let name = patient.name.expose();
        let name = if name.is_empty() { "No name" } else { name };
        ui.add(egui::Label::new(RichText::new(name).font(theme::medium(14.5))).truncate());
    });
    let parts = [
        patient.id.expose().clone(),
        date_words(patient.birth_date.expose()),
        patient.sex.expose().clone(),
    ];
    let line: Vec<&str> = parts
        .iter()
        .map(String::as_str)
        .filter(|p| !p.is_empty())
        .collect();
    if !line.is_empty() {
        let text = RichText::new(line.join("  ·  "))
            .small()
            .color(theme::TEXT_WEAK);
        ui.add(egui::Label::new(text).truncate());
    }
}

fn study_ui(ui: &mut Ui, study: &Study) {
    ui.add_space(4.0);
    let date = date_words(study.date.expose());
    let date = if date.is_empty() {
        "No date".to_owned()
    } else {
        date
    };
    let text = match study.description.as_str() {
        "" => date,
        description => format!("{date}  {description}"),
    };
    ui.add(egui::Label::new(RichText::new(text).small().color(theme::TEXT)).truncate());
}

/// A series that holds no images: listed, so that nothing seems lost. A SEG can be drawn.
fn object_ui(ui: &mut Ui, series: &Series, commands: &mut Vec<Command>) {
    let text = format!(
        "{}  {}  {}",
        icons::STACK,
        series.modality,
        series.description
    );
    let text = RichText::new(text).small().color(theme::TEXT_WEAK);
    let segmentation = series.objects.iter().find_map(|source| match source {
        FileSource::Path(path) if series.modality == "SEG" => Some(path.clone()),
        _ => None,
    });
    match segmentation {
        Some(path) => {
            let button = egui::Button::new(text).truncate();
            if ui
                .add(button)
                .on_hover_text("Draw this segmentation on the open series")
                .clicked()
            {
                commands.push(Command::OpenSegmentation(path));
            }
        }
        None => {
            ui.add(egui::Label::new(text).truncate());
        }
    }
}

fn stack_ui(
    ui: &mut Ui,
    app: &App,
    thumbnails: &mut Thumbnails,
    series: &Series,
    index: usize,
    commands: &mut Vec<Command>,
) {
    let stack = &series.stacks[index];
    let key = SeriesKey::Stack {
        series: series.series_instance_uid.clone(),
        stack: index,
    };
    let title = if series.description.is_empty() {
        "No description"
    } else {
        &series.description
    };
    let images = match stack.images.len() {
        1 => "1 image".to_owned(),
        n => format!("{n} images"),
    };
    let mut second = format!("{}  ·  {images}", series.modality);
    if !stack.label.is_empty() {
        second = format!("{second}  ·  {}", stack.label);
    }
    let doubtful = !stack.issues.is_empty() || !series.issues.is_empty();
    row_ui(
        ui,
        app,
        thumbnails,
        &key,
        &[title.to_owned(), second],
        doubtful,
        commands,
    );
}

fn row_ui(
    ui: &mut Ui,
    app: &App,
    thumbnails: &mut Thumbnails,
    key: &SeriesKey,
    lines: &[String; 2],
    doubtful: bool,
    commands: &mut Vec<Command>,
) {
    let size = vec2(ui.available_width(), 64.0);
    let (rect, response) = ui.allocate_exact_size(size, Sense::click());
    let open = app.is_open(key) || app.is_loading(key);
    let enabled = ui.is_enabled();
    response.widget_info(|| WidgetInfo::selected(Role::Button, enabled, open, &lines[0]));
    let fill = match (open, response.hovered()) {
        (true, _) => theme::ACCENT_DIM,
        (false, true) => theme::HOVERED,
        _ => theme::RAISED,
    };
    let painter = ui.painter_at(rect);
    painter.rect_filled(rect, CornerRadius::same(6), fill);
    let picture = Rect::from_min_size(rect.min + Vec2::splat(4.0), Vec2::splat(56.0));
    painter.rect_filled(picture, CornerRadius::same(4), Color32::BLACK);
    if let Some(texture) = thumbnails.texture(ui.ctx(), app, key) {
        let size = texture.size_vec2();
        let scale = (picture.width() / size.x).min(picture.height() / size.y);
        let inner = Rect::from_center_size(picture.center(), size * scale);
        let uv = Rect::from_min_max(pos2(0.0, 0.0), pos2(1.0, 1.0));
        painter.image(texture.id(), inner, uv, Color32::WHITE);
    } else {
        let align = egui::Align2::CENTER_CENTER;
        let font = theme::icon_font(22.0);
        painter.text(
            picture.center(),
            align,
            icons::IMAGES,
            font,
            theme::TEXT_WEAK,
        );
    }
    let left = picture.right() + 10.0;
    let width = rect.right() - left - if doubtful { 26.0 } else { 8.0 };
    let line = |text: &str, y: f32, font: egui::FontId, color: Color32| {
        let mut job = egui::text::LayoutJob::simple_singleline(text.to_owned(), font, color);
        job.wrap = egui::text::TextWrapping::truncate_at_width(width);
        let galley = ui.fonts_mut(|fonts| fonts.layout_job(job));
        painter.galley(pos2(left, y), galley, color);
    };
    line(
        &lines[0],
        rect.top() + 14.0,
        egui::FontId::proportional(13.5),
        theme::TEXT,
    );
    line(
        &lines[1],
        rect.top() + 34.0,
        egui::FontId::proportional(theme::SMALL),
        theme::TEXT_WEAK,
    );
    if doubtful {
        let pos = pos2(rect.right() - 16.0, rect.center().y);
        let align = egui::Align2::CENTER_CENTER;
        painter.text(
            pos,
            align,
            icons::WARNING,
            theme::icon_font(15.0),
            theme::DOUBT,
        );
    }
    let response = if doubtful {
        response.on_hover_text("Doubtful: the reasons stand beside the image when it is open")
    } else {
        response
    };
    if response.clicked() {
        commands.push(Command::OpenSeries(key.clone()));
    }
}
