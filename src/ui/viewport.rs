//! One view of the volume: the image, what is drawn over it, and the gestures on it.

use eframe::egui::{
    Align2, Color32, CornerRadius, Event, FontId, MouseWheelUnit, PointerButton, Pos2, Rect,
    Response, RichText, Role, Sense, Stroke, StrokeKind, Ui, UiBuilder, Vec2, WidgetInfo, pos2,
    vec2,
};

use super::corner_text::{Corners, carries_text, corners};
use super::evidence::evidence_ui;
use super::slice_painter::{Drawn, paint_slice};
use super::{icons, theme};
use crate::app::{App, Command, CornerText, OpenVolume};
use crate::findings::ReviewState;
use crate::geometry::{DVec2, DVec3, ImagePlane, ViewPlane};
use crate::volume::{Calibration, VoiWindow};

/// What lies under the pointer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hover {
    /// Patient position.
    pub lps_mm: DVec3,
}

/// Where a view's image lies on screen.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    /// The tile.
    pub rect: Rect,
    /// Its middle in the patient.
    pub plane: ImagePlane,
    /// Size of a screen point.
    pub mm_per_point: f64,
}

impl Placement {
    fn offset_at(&self, pos: Pos2) -> DVec2 {
        let d = pos - self.rect.center();
        DVec2::new(f64::from(d.x), f64::from(d.y)) * self.mm_per_point
    }

    fn lps_at(&self, pos: Pos2) -> DVec3 {
        self.plane.lps_at(self.offset_at(pos))
    }

    fn pos_of(&self, lps_mm: DVec3) -> Pos2 {
        let offset = self.plane.offset_of(lps_mm) / self.mm_per_point;
        self.rect.center() + vec2(offset.x as f32, offset.y as f32)
    }
}

/// Draws a view into `rect`; gestures come back as commands.
pub fn viewport_ui(
    ui: &mut Ui,
    app: &App,
    drawn: &Drawn,
    view: ViewPlane,
    rect: Rect,
    commands: &mut Vec<Command>,
) -> Option<Hover> {
    let response = ui.allocate_rect(rect, Sense::click_and_drag());
    let volumetric = app
        .workspace
        .open
        .as_ref()
        .is_some_and(OpenVolume::is_volumetric);
    let name = if volumetric {
        format!("{} view", view.name())
    } else {
        "Image view".to_owned()
    };
    response.widget_info(|| WidgetInfo::labeled(Role::Image, true, &name));
    let painter = ui.painter_at(rect);
    painter.rect_filled(rect, CornerRadius::ZERO, theme::VIEWPORT);
    let placement = place(app, view, rect)?;
    paint_slice(ui, app, &placement, view);
    if let Some(reason) = &drawn.failure {
        // CLINICAL: an empty view says why; black must not be taken for air.
        failure_ui(ui, rect, reason);
        return None;
    }
    let pos_of = |lps_mm| placement.pos_of(lps_mm);
    evidence_ui(ui, app, rect, placement.plane.center_lps, &pos_of);
    let over = Over { ui, rect };
    if volumetric && app.workspace.show_crosshair {
        crosshair_ui(&over, app, view, &placement);
    }
    letters_ui(&over, app, &placement);
    ruler_ui(&over, app, &placement);
    let zoom = 100.0 * pixel_zoom(app, &placement);
    corners_ui(&over, &corners(app, view, zoom));
    if carries_text(app) == view {
        doubts_ui(&over, app);
        fidelity_ui(&over, drawn);
    }
    badge_ui(&over, app, view);
    if volumetric && app.workspace.active == view && app.workspace.maximized.is_none() {
        let stroke = Stroke::new(1.0, theme::ACCENT);
        painter.rect_stroke(
            rect.shrink(0.5),
            CornerRadius::ZERO,
            stroke,
            StrokeKind::Inside,
        );
    }
    gestures(ui, app, view, &placement, &response, commands);
    let pos = response.hover_pos().or(response.interact_pointer_pos())?;
    rect.contains(pos).then(|| Hover {
        lps_mm: placement.lps_at(pos),
    })
}

fn place(app: &App, view: ViewPlane, rect: Rect) -> Option<Placement> {
    let plane = app.workspace.centered_plane(view)?;
    let extent = app.workspace.extent_mm(view)?;
    let fit = (extent.x / f64::from(rect.width().max(1.0)))
        .max(extent.y / f64::from(rect.height().max(1.0)));
    let mm_per_point = fit * 1.02 / app.workspace.views[view as usize].zoom;
    (mm_per_point > 0.0).then_some(Placement {
        rect,
        plane,
        mm_per_point,
    })
}

/// Screen points per stored pixel.
fn pixel_zoom(app: &App, placement: &Placement) -> f64 {
    let spacing = app
        .workspace
        .open
        .as_ref()
        .map_or(1.0, |open| open.data.geometry.spacing_mm()[0]);
    spacing / placement.mm_per_point
}

fn gestures(
    ui: &Ui,
    app: &App,
    view: ViewPlane,
    placement: &Placement,
    response: &Response,
    commands: &mut Vec<Command>,
) {
    let modifiers = ui.input(|i| i.modifiers);
    let volumetric = app
        .workspace
        .open
        .as_ref()
        .is_some_and(OpenVolume::is_volumetric);
    if response.is_pointer_button_down_on() && app.workspace.active != view {
        commands.push(Command::Activate(view));
    }
    if response.double_clicked() {
        commands.push(Command::Maximize(view));
    } else if let (true, Some(pos)) = (
        response.clicked() && volumetric,
        response.interact_pointer_pos(),
    ) {
        commands.push(Command::SetCrosshair(placement.lps_at(pos)));
    }
    if let (true, Some(pos)) = (modifiers.shift && volumetric, response.hover_pos())
        && !response.dragged()
    {
        commands.push(Command::SetCrosshair(placement.lps_at(pos)));
    }
    let delta = response.drag_delta();
    if delta != Vec2::ZERO {
        let speed = match (modifiers.command, modifiers.shift) {
            (true, true) => 8.0,
            (true, false) => 3.0,
            _ => 1.0,
        };
        if response.dragged_by(PointerButton::Primary) {
            let down_brightens = app.settings.drag_down_brightens;
            let window = dragged_window(app.workspace.window, delta * speed, down_brightens);
            commands.push(Command::SetVoiWindow(window));
        } else if response.dragged_by(PointerButton::Middle) {
            let by_mm = DVec2::new(f64::from(delta.x), f64::from(delta.y)) * placement.mm_per_point;
            commands.push(Command::Pan { view, by_mm });
        } else if response.dragged_by(PointerButton::Secondary) {
            let factor = (-0.006 * f64::from(delta.y * speed)).exp();
            commands.push(Command::Zoom {
                view,
                factor,
                at_mm: DVec2::ZERO,
            });
        }
    }
    let Some(pos) = response.hover_pos() else {
        return;
    };
    let zoom = ui.input(eframe::egui::InputState::zoom_delta);
    if zoom != 1.0 {
        let at_mm = placement.offset_at(pos);
        commands.push(Command::Zoom {
            view,
            factor: f64::from(zoom),
            at_mm,
        });
    }
    let steps = wheel_steps(ui, response);
    if steps != 0 {
        commands.push(Command::Scroll { view, steps });
    }
}

/// Whole slices that the wheel has turned since the last frame; fractions are kept for the next.
fn wheel_steps(ui: &Ui, response: &Response) -> i64 {
    let turned: f32 = ui.input(|i| {
        let turn = |event: &Event| match event {
            Event::MouseWheel {
                unit,
                delta,
                modifiers,
                ..
            } if !modifiers.command => match unit {
                MouseWheelUnit::Line => delta.y,
                MouseWheelUnit::Page => delta.y * 10.0,
                MouseWheelUnit::Point => delta.y / 24.0,
            },
            _ => 0.0,
        };
        i.events.iter().map(turn).sum()
    });
    if turned == 0.0 {
        return 0;
    }
    let id = response.id.with("wheel");
    let total = ui.data(|d| d.get_temp::<f32>(id)).unwrap_or(0.0) - turned;
    let steps = total.trunc();
    ui.data_mut(|d| d.insert_temp(id, total - steps));
    steps as i64
}

/// Right widens; down or up brightens. A drag over 300 points doubles the width.
pub fn dragged_window(window: VoiWindow, delta: Vec2, down_brightens: bool) -> VoiWindow {
    let unit = window.width.max(1e-3) / 300.0;
    let width = (window.width * (1.0 + delta.x / 300.0)).max(1e-3);
    let up = if down_brightens { -delta.y } else { delta.y };
    VoiWindow {
        center: window.center + up * unit,
        width,
        ..window
    }
}

struct Over<'a> {
    ui: &'a Ui,
    rect: Rect,
}

impl Over<'_> {
    fn text(&self, pos: Pos2, align: Align2, text: &str, color: Color32, font: FontId) -> Rect {
        let painter = self.ui.painter_at(self.rect);
        // Dark on every side: readable on bone and on air.
        for shift in [
            vec2(1.0, 1.0),
            vec2(-1.0, 1.0),
            vec2(1.0, -1.0),
            vec2(-1.0, -1.0),
        ] {
            painter.text(
                pos + shift,
                align,
                text,
                font.clone(),
                theme::OVER_IMAGE_SHADOW,
            );
        }
        painter.text(pos, align, text, font, color)
    }

    fn small(&self, pos: Pos2, align: Align2, text: &str, color: Color32) -> Rect {
        self.text(pos, align, text, color, FontId::proportional(12.5))
    }
}

fn crosshair_ui(over: &Over, app: &App, view: ViewPlane, placement: &Placement) {
    let center = placement.pos_of(app.workspace.crosshair_lps);
    let painter = over.ui.painter_at(over.rect);
    let (vertical, horizontal) = match view {
        ViewPlane::Axial => (ViewPlane::Sagittal, ViewPlane::Coronal),
        ViewPlane::Coronal => (ViewPlane::Sagittal, ViewPlane::Axial),
        ViewPlane::Sagittal => (ViewPlane::Coronal, ViewPlane::Axial),
    };
    let line = |plane: ViewPlane| {
        Stroke::new(1.0, theme::PLANE_LINES[plane as usize].gamma_multiply(0.65))
    };
    let (rect, gap) = (over.rect, 14.0);
    let (v, h) = (line(vertical), line(horizontal));
    painter.line_segment(
        [pos2(center.x, rect.top()), pos2(center.x, center.y - gap)],
        v,
    );
    painter.line_segment(
        [
            pos2(center.x, center.y + gap),
            pos2(center.x, rect.bottom()),
        ],
        v,
    );
    painter.line_segment(
        [pos2(rect.left(), center.y), pos2(center.x - gap, center.y)],
        h,
    );
    painter.line_segment(
        [pos2(center.x + gap, center.y), pos2(rect.right(), center.y)],
        h,
    );
}

fn letters_ui(over: &Over, app: &App, placement: &Placement) {
    let Some(open) = &app.workspace.open else {
        return;
    };
    // CLINICAL(laterality): images without patient geometry get no letters rather than guessed ones.
    if !open.data.is_oriented() {
        return;
    }
    let [left, right, top, bottom] = placement.plane.edge_letters();
    let (r, font) = (over.rect, theme::medium(15.0));
    // In narrow tiles the slice number reaches the middle.
    let below = if r.width() < 260.0 { 26.0 } else { 8.0 };
    let spots = [
        (
            pos2(r.left() + 10.0, r.center().y),
            Align2::LEFT_CENTER,
            left,
        ),
        (
            pos2(r.right() - 10.0, r.center().y),
            Align2::RIGHT_CENTER,
            right,
        ),
        (pos2(r.center().x, r.top() + below), Align2::CENTER_TOP, top),
        (
            pos2(r.center().x, r.bottom() - 26.0),
            Align2::CENTER_BOTTOM,
            bottom,
        ),
    ];
    for (pos, align, text) in spots {
        over.text(pos, align, &text, theme::OVER_IMAGE, font.clone());
    }
}

/// A length for the ruler: 1, 2 or 5 times a power of ten, at most `longest`.
fn ruler_length(longest: f64) -> f64 {
    let power = 10_f64.powf(longest.log10().floor());
    [5.0, 2.0, 1.0]
        .iter()
        .map(|m| m * power)
        .find(|l| *l <= longest)
        .unwrap_or(power)
}

fn ruler_ui(over: &Over, app: &App, placement: &Placement) {
    let Some(open) = &app.workspace.open else {
        return;
    };
    // Without a calibration the geometry counts pixels.
    let unit = match open.data.calibration {
        Calibration::Patient => "mm",
        Calibration::Detector => "mm at detector",
        Calibration::Unknown => "px",
    };
    let r = over.rect;
    let length = ruler_length(f64::from(r.width()) * placement.mm_per_point / 3.5);
    if !length.is_finite() || length <= 0.0 {
        return;
    }
    let points = (length / placement.mm_per_point) as f32;
    let painter = over.ui.painter_at(r);
    let (x0, y) = (r.center().x - points / 2.0, r.bottom() - 9.0);
    let line = |a: Pos2, b: Pos2| {
        painter.line_segment(
            [a + vec2(0.0, 1.0), b + vec2(0.0, 1.0)],
            Stroke::new(2.0, theme::OVER_IMAGE_SHADOW),
        );
        painter.line_segment([a, b], Stroke::new(1.2, theme::OVER_IMAGE));
    };
    line(pos2(x0, y), pos2(x0 + points, y));
    for n in 0..=10 {
        let x = x0 + points * n as f32 / 10.0;
        let tick = if n % 5 == 0 { 6.0 } else { 3.0 };
        line(pos2(x, y - tick), pos2(x, y));
    }
    let label = format!("{length} {unit}");
    over.small(
        pos2(x0 + points + 8.0, y + 3.0),
        Align2::LEFT_BOTTOM,
        &label,
        theme::OVER_IMAGE,
    );
    // The same length on the left edge, below the orientation letter.
    let (x, y0) = (r.left() + 5.0, r.center().y + 16.0);
    if y0 + points < r.bottom() - 80.0 {
        line(pos2(x, y0), pos2(x, y0 + points));
        for n in 0..=10 {
            let ty = y0 + points * n as f32 / 10.0;
            let tick = if n % 5 == 0 { 6.0 } else { 3.0 };
            line(pos2(x, ty), pos2(x + tick, ty));
        }
    }
}

fn corners_ui(over: &Over, corners: &Corners) {
    let r = over.rect.shrink2(vec2(12.0, 9.0));
    let step = 16.5;
    let column = |lines: &[String], start: Pos2, align: Align2, down: bool| {
        for (n, line) in lines.iter().enumerate() {
            let n = if down { n } else { lines.len() - 1 - n };
            let dy = n as f32 * step;
            let pos = if down {
                start + vec2(0.0, dy)
            } else {
                start - vec2(0.0, dy)
            };
            over.small(pos, align, line, theme::OVER_IMAGE);
        }
    };
    // Small tiles keep what belongs to the image and drop the rest.
    let roomy = over.rect.width() > 420.0;
    if roomy {
        column(&corners.top_left, r.left_top(), Align2::LEFT_TOP, true);
        column(&corners.top_right, r.right_top(), Align2::RIGHT_TOP, true);
        column(
            &corners.bottom_right,
            r.right_bottom(),
            Align2::RIGHT_BOTTOM,
            false,
        );
        column(
            &corners.bottom_left,
            r.left_bottom(),
            Align2::LEFT_BOTTOM,
            false,
        );
    } else {
        column(
            &corners.bottom_left[..corners.bottom_left.len().min(1)],
            r.left_top(),
            Align2::LEFT_TOP,
            true,
        );
    }
}

/// Doubts about the data, where they cannot be overlooked.
fn doubts_ui(over: &Over, app: &App) {
    let Some(open) = &app.workspace.open else {
        return;
    };
    if app.settings.corner_text == CornerText::None && open.data.issues.is_empty() {
        return;
    }
    let above = corners(app, carries_text(app), 0.0).top_left.len() as f32;
    let start = over.rect.left_top() + vec2(12.0, 15.0 + 16.5 * above);
    let fit = ((over.rect.width() * 0.6) / 6.6) as usize;
    for (n, issue) in open.data.issues.iter().take(3).enumerate() {
        let text = issue.to_string();
        let text = if text.chars().count() > fit {
            text.chars()
                .take(fit.saturating_sub(1))
                .chain(['…'])
                .collect()
        } else {
            text
        };
        let pos = start + vec2(0.0, 17.0 * n as f32);
        over.small(
            pos,
            Align2::LEFT_TOP,
            &format!("{}  {text}", icons::WARNING),
            theme::DOUBT,
        );
    }
    let more = open.data.issues.len().saturating_sub(3);
    if more > 0 {
        let pos = start + vec2(0.0, 17.0 * 3.0);
        over.small(
            pos,
            Align2::LEFT_TOP,
            &format!("and {more} more, listed on the right"),
            theme::DOUBT,
        );
    }
}

/// The volume cannot be drawn: what happened, what it means, what can be done.
fn failure_ui(ui: &mut Ui, rect: Rect, reason: &str) {
    let width = (rect.width() - 32.0).clamp(60.0, 460.0);
    let middle = Rect::from_center_size(rect.center(), vec2(width, 130.0));
    let mut child = ui.new_child(UiBuilder::new().max_rect(middle));
    child.set_clip_rect(rect);
    child.label(
        RichText::new(format!("{}  This series cannot be drawn", icons::WARNING))
            .size(15.0)
            .color(theme::FAILURE),
    );
    if rect.width() < 300.0 {
        return;
    }
    child.label(RichText::new(reason).color(theme::TEXT));
    child.label(
        RichText::new("The data are untouched: models, measurements and exports work. Close other series or programs that use graphics memory, then open it again.")
            .color(theme::TEXT_WEAK),
    );
}

/// Says when the picture holds less than the data, above the ruler.
fn fidelity_ui(over: &Over, drawn: &Drawn) {
    let lines = match (drawn.voxels_per_texel, drawn.uploading) {
        (Some([i, j, k]), _) => vec![
            format!(
                "{}  Coarse picture: one of {i} × {j} × {k} voxels",
                icons::WARNING
            ),
            "Graphics memory is short. Values and models use all.".to_owned(),
        ],
        (None, Some(part)) => vec![format!("Preparing the views  {:.0} %", part * 100.0)],
        (None, None) => return,
    };
    for (n, line) in lines.iter().rev().enumerate() {
        let pos = over.rect.center_bottom() - vec2(0.0, 50.0 + 17.0 * n as f32);
        over.small(pos, Align2::CENTER_BOTTOM, line, theme::DOUBT);
    }
}

/// "AI – not reviewed", while the overlay is drawn.
fn badge_ui(over: &Over, app: &App, view: ViewPlane) {
    let Some(results) = app.results.as_ref().filter(|r| r.overlay.visible) else {
        return;
    };
    if carries_text(app) != view {
        return;
    }
    let color = match results.review {
        ReviewState::NotReviewed => theme::DOUBT,
        ReviewState::Accepted | ReviewState::Edited => theme::ACCENT,
        ReviewState::Rejected => theme::FAILURE,
    };
    let above = corners(app, view, 0.0).top_right.len() as f32;
    let pos = over.rect.right_top() + vec2(-12.0, 15.0 + 16.5 * above);
    over.small(pos, Align2::RIGHT_TOP, results.badge(), color);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dragging_right_widens_and_down_brightens() {
        let w = VoiWindow::new(40.0, 400.0);
        let wide = dragged_window(w, vec2(30.0, 0.0), true);
        assert!(wide.width > w.width && wide.center == w.center);
        let bright = dragged_window(w, vec2(0.0, 30.0), true);
        assert!(bright.gray(40.0) > w.gray(40.0));
        let other_way = dragged_window(w, vec2(0.0, 30.0), false);
        assert!(other_way.gray(40.0) < w.gray(40.0));
    }

    #[test]
    fn rulers_have_round_lengths() {
        let got: Vec<f64> = [7.0, 23.0, 99.0, 0.7].map(ruler_length).to_vec();
        for (got, want) in got.iter().zip([5.0, 20.0, 50.0, 0.5]) {
            assert!((got - want).abs() < 1e-9);
        }
    }
}
