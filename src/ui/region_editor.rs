//! Regions of an image's pixels, drawn with the mouse on one of its images.

use eframe::egui::{
    self, Color32, ColorImage, CornerRadius, Id, Pos2, Rect, RichText, Sense, Slider, Stroke,
    StrokeKind, TextureHandle, TextureOptions, Ui, Vec2, pos2,
};

use super::icons;
use super::theme;
use super::widgets::icon_button_ui;
use crate::app::{App, CopyWanted, OpenVolume, PixelRegion};
use crate::render::draw_stored_cpu;
use crate::volume::VoiWindow;

/// Longest edge of the image on screen, in points, and of its picture, in pixels.
const EDGE: f32 = 430.0;
const MOST_PIXELS: usize = 1024;

/// What the picture on screen is of.
#[derive(Clone, Debug, PartialEq)]
struct Shown {
    volume: u64,
    image: usize,
    window: VoiWindow,
}

/// One stored image with the regions; a drag adds one.
pub fn regions_ui(ui: &mut Ui, app: &App, wanted: &mut CopyWanted) {
    let open = app.workspace.open.as_ref();
    let Some(open) = open.filter(|open| open.loading.is_none()) else {
        ui.label("The images are being loaded.");
        return;
    };
    let [columns, rows, images] = open.data.geometry.dims();
    let place = Id::unique("copy image");
    let mut image = ui
        .data(|d| d.get_temp::<usize>(place))
        .unwrap_or(images / 2);
    image = image.min(images.saturating_sub(1));
    let texture = texture_of(ui, open, image, app.workspace.window);
    let longest = columns.max(rows).max(1) as f32;
    let points_per_pixel = EDGE / longest;
    let size = Vec2::new(columns as f32, rows as f32) * points_per_pixel;
    let (response, painter) = ui.allocate_painter(size, Sense::drag());
    response.widget_info(|| {
        egui::WidgetInfo::labeled(egui::Role::Image, true, "Image for regions to blacken")
    });
    let rect = response.rect;
    let whole = Rect::from_min_max(Pos2::ZERO, pos2(1.0, 1.0));
    painter.image(texture.id(), rect, whole, Color32::WHITE);
    let on_screen = |r: &PixelRegion| {
        let corner = rect.min + Vec2::new(r.x as f32, r.y as f32) * points_per_pixel;
        let size = Vec2::new(r.width as f32, r.height as f32) * points_per_pixel;
        Rect::from_min_size(corner, size)
    };
    for region in &wanted.regions {
        painter.rect(
            on_screen(region),
            CornerRadius::ZERO,
            Color32::BLACK,
            Stroke::new(1.0, theme::ACCENT),
            StrokeKind::Outside,
        );
    }
    let in_pixels = |at: Pos2| {
        let v = (at - rect.min) / points_per_pixel;
        [v.x, v.y]
    };
    let start = Id::unique("copy region");
    if response.drag_started()
        && let Some(at) = ui.input(|i| i.pointer.press_origin())
    {
        ui.data_mut(|d| d.insert_temp(start, at));
    }
    let from = ui.data(|d| d.get_temp::<Pos2>(start));
    if let (Some(from), Some(to)) = (from, response.interact_pointer_pos()) {
        let region = PixelRegion::between(in_pixels(from), in_pixels(to), [columns, rows]);
        if let Some(region) = region {
            let outline = Stroke::new(1.5, theme::DOUBT);
            let drawn = on_screen(&region);
            painter.rect_stroke(drawn, CornerRadius::ZERO, outline, StrokeKind::Inside);
        }
        if response.drag_stopped() {
            wanted.regions.extend(region);
            // What was said before was said of other pixels.
            wanted.reviewed = false;
        }
    }
    if response.drag_stopped() || !response.dragged() && !response.drag_started() {
        ui.data_mut(|d| d.remove::<Pos2>(start));
    }
    if images > 1 {
        ui.horizontal(|ui| {
            ui.spacing_mut().slider_width = EDGE - 130.0;
            let mut number = image + 1;
            let slider = Slider::new(&mut number, 1..=images).text("image");
            if ui.add(slider).changed() {
                image = number - 1;
            }
        });
    }
    let scrolled = ui.input(|i| i.smooth_scroll_delta.y);
    if response.hovered() && scrolled != 0.0 {
        image = if scrolled < 0.0 {
            (image + 1).min(images - 1)
        } else {
            image.saturating_sub(1)
        };
    }
    ui.data_mut(|d| d.insert_temp(place, image));
    ui.horizontal(|ui| {
        let words = match wanted.regions.len() {
            0 => "Drag over the image to blacken a region in all images of this size".to_owned(),
            1 => format!("1 region, in all images of {columns} × {rows} pixels"),
            n => format!("{n} regions, in all images of {columns} × {rows} pixels"),
        };
        ui.label(RichText::new(words).small().color(theme::TEXT_WEAK));
        if !wanted.regions.is_empty()
            && icon_button_ui(
                ui,
                icons::ARROW_COUNTER_CLOCKWISE,
                "Take back the last region",
            )
            .clicked()
        {
            wanted.regions.pop();
            wanted.reviewed = false;
        }
    });
}

/// The image's texture; kept in egui's memory until another image is wanted.
fn texture_of(ui: &Ui, open: &OpenVolume, image: usize, window: VoiWindow) -> TextureHandle {
    let wanted = Shown {
        volume: open.id.0,
        image,
        window,
    };
    if let Some((shown, texture)) = ui.data(|d| d.get_temp::<(Shown, TextureHandle)>(place()))
        && shown == wanted
    {
        return texture;
    }
    let picture = draw_stored_cpu(&open.data, image, window, MOST_PIXELS);
    let size = [picture.width, picture.height];
    let picture = ColorImage::from_rgba_unmultiplied(size, &picture.rgba);
    let texture = ui
        .ctx()
        .load_texture("copy", picture, TextureOptions::LINEAR);
    ui.data_mut(|d| d.insert_temp(place(), (wanted, texture.clone())));
    texture
}

fn place() -> Id {
    Id::unique("copy picture")
}

/// Forgets the picture: it shows a patient.
pub fn forget_copy(ctx: &egui::Context) {
    ctx.data_mut(|d| {
        d.remove::<(Shown, TextureHandle)>(place());
        d.remove::<usize>(Id::unique("copy image"));
    });
}
