//! A map of the evidence for a finding, over its image, and what its colors mean.

use eframe::egui::{
    self, Align2, Color32, ColorImage, Mesh, Pos2, Rect, Shape, Stroke, StrokeKind, TextureHandle,
    TextureOptions, Ui, pos2, vec2,
};

use super::theme;
use crate::app::{App, VolumeId};
use crate::findings::Explanation;
use crate::geometry::DVec3;
use crate::render::{heat_color, heat_opacity, tick_words};

/// Points of a map's texture along its longer edge.
const TEXTURE: usize = 256;

/// What a texture was made of.
#[derive(Clone, Debug, PartialEq)]
struct Key {
    volume: VolumeId,
    map: (usize, usize),
    finding: String,
    method: &'static str,
}

/// A map as it is drawn now; kept by egui between frames.
#[derive(Clone)]
struct Kept(Key, TextureHandle);

/// Draws the map that is shown, if it is of the image in this view. `pos_of` places a patient
/// position on the screen.
pub fn evidence_ui(
    ui: &Ui,
    app: &App,
    rect: Rect,
    center_lps: DVec3,
    pos_of: &dyn Fn(DVec3) -> Pos2,
) {
    let (Some(open), Some(shown)) = (&app.workspace.open, &app.findings) else {
        return;
    };
    if shown.volume != open.id || open.is_volumetric() {
        return;
    }
    let geometry = &open.data.geometry;
    let k = geometry.ijk_at(center_lps).z.round().max(0.0);
    let Some((_, map)) = shown.map_over(k as usize) else {
        return;
    };
    let key = Key {
        volume: open.id,
        map: shown.map.unwrap_or_default(),
        finding: map.finding.clone(),
        method: map.method.name(),
    };
    let id = egui::Id::unique("evidence");
    let kept: Option<Kept> = ui.ctx().data(|d| d.get_temp(id));
    let texture = match kept {
        Some(Kept(known, texture)) if known == key => texture,
        _ => {
            let options = TextureOptions::LINEAR;
            let texture = ui.ctx().load_texture("evidence", picture(map), options);
            let kept = Kept(key, texture.clone());
            ui.ctx().data_mut(|d| d.insert_temp(id, kept));
            texture
        }
    };
    // Indices are of pixels' middles, the map counts from the first one's corner.
    let [top, left, bottom, right] = map.region_px;
    let corner =
        |row: f64, column: f64| pos_of(geometry.lps_at(DVec3::new(column - 0.5, row - 0.5, k)));
    let mut mesh = Mesh::with_texture(texture.id());
    for (pos, uv) in [
        (corner(top, left), pos2(0.0, 0.0)),
        (corner(top, right), pos2(1.0, 0.0)),
        (corner(bottom, right), pos2(1.0, 1.0)),
        (corner(bottom, left), pos2(0.0, 1.0)),
    ] {
        mesh.vertices.push(egui::epaint::Vertex {
            pos,
            uv,
            color: Color32::WHITE,
        });
    }
    mesh.add_triangle(0, 1, 2);
    mesh.add_triangle(0, 2, 3);
    ui.painter_at(rect).add(Shape::mesh(mesh));
    bar_ui(ui, rect, map);
}

/// The map's colors with their opacity.
fn picture(map: &Explanation) -> ColorImage {
    let [rows, columns] = map.dims;
    let [top, left, bottom, right] = map.region_px;
    let longer = rows.max(columns) as f64;
    let size =
        [columns, rows].map(|n| ((n as f64 / longer * TEXTURE as f64).round() as usize).max(1));
    let highest = map.highest();
    let mut pixels = Vec::with_capacity(size[0] * size[1]);
    for y in 0..size[1] {
        for x in 0..size[0] {
            let part = |n: usize, of: usize| (n as f64 + 0.5) / of as f64;
            let row = top + (bottom - top) * part(y, size[1]);
            let column = left + (right - left) * part(x, size[0]);
            let value = map.at(row, column).unwrap_or(0.0);
            let share = if highest > 0.0 { value / highest } else { 0.0 };
            let [r, g, b] = heat_color(share);
            let alpha = (heat_opacity(share) * 255.0).round() as u8;
            pixels.push(Color32::from_rgba_unmultiplied(r, g, b, alpha));
        }
    }
    ColorImage::new(size, pixels)
}

/// The color bar with its numbers, and the map's name.
fn bar_ui(ui: &Ui, rect: Rect, map: &Explanation) {
    let painter = ui.painter_at(rect);
    let height = (rect.height() * 0.34).min(260.0);
    let bar = Rect::from_min_size(
        pos2(rect.right() - 74.0, rect.center().y - height / 2.0),
        vec2(12.0, height),
    );
    let steps = 64;
    for n in 0..steps {
        let [low, high] = [n, n + 1].map(|n| bar.bottom() - height * n as f32 / steps as f32);
        let [r, g, b] = heat_color((n as f32 + 0.5) / steps as f32);
        let piece = Rect::from_x_y_ranges(bar.x_range(), high..=low);
        painter.rect_filled(piece, 0.0, Color32::from_rgb(r, g, b));
    }
    let edge = Stroke::new(1.0, theme::OVER_IMAGE);
    painter.rect_stroke(bar, 0.0, edge, StrokeKind::Outside);
    let text = |pos: Pos2, align: Align2, words: &str, color: Color32| {
        let font = egui::FontId::proportional(12.5);
        for d in [
            vec2(1.0, 0.0),
            vec2(-1.0, 0.0),
            vec2(0.0, 1.0),
            vec2(0.0, -1.0),
        ] {
            painter.text(
                pos + d,
                align,
                words,
                font.clone(),
                theme::OVER_IMAGE_SHADOW,
            );
        }
        painter.text(pos, align, words, font, color);
    };
    for part in [0.0, 0.5, 1.0] {
        let pos = pos2(bar.right() + 6.0, bar.bottom() - height * part);
        let words = tick_words(map.highest() * part);
        text(pos, Align2::LEFT_CENTER, &words, theme::OVER_IMAGE);
    }
    let above = pos2(rect.right() - 12.0, bar.top() - 10.0);
    text(
        above,
        Align2::RIGHT_BOTTOM,
        map.method.unit(),
        theme::OVER_IMAGE,
    );
    let title = format!("{}: {}", map.method.words(), map.finding);
    let higher = above - vec2(0.0, 17.0);
    text(higher, Align2::RIGHT_BOTTOM, &title, theme::OVER_IMAGE);
    if !map.faithfulness.explains() {
        let below = pos2(rect.right() - 12.0, bar.bottom() + 12.0);
        text(
            below,
            Align2::RIGHT_TOP,
            "this map explains nothing",
            theme::DOUBT,
        );
    }
}
