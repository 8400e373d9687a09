//! Small pieces that several panels share.

use eframe::egui::{
    self, Button, Color32, CornerRadius, Frame, Margin, Response, RichText, Role, Sense, Ui, Vec2,
    WidgetInfo,
};

use super::theme;

/// A button that is only an icon; `label` is its tooltip and its name for screen readers.
pub fn icon_button_ui(ui: &mut Ui, icon: &str, label: &str) -> Response {
    let text = RichText::new(icon).font(theme::icon_font(17.0));
    let response = ui.add(Button::new(text).frame(false).min_size(Vec2::splat(24.0)));
    let enabled = ui.is_enabled();
    response.widget_info(|| WidgetInfo::labeled(Role::Button, enabled, label));
    response.on_hover_text(label)
}

/// A cell of a table: text from the left, cut off where it is too long, whole under the pointer.
pub fn cell_ui(ui: &mut Ui, width: f32, height: f32, text: &str) {
    let left = egui::Layout::left_to_right(egui::Align::Center);
    ui.allocate_ui_with_layout(Vec2::new(width, height), left, |ui| {
        ui.set_width(width);
        ui.add(egui::Label::new(text).truncate())
            .on_hover_text(text);
    });
}

/// The button that a person most likely wants now.
pub fn primary_button_ui(ui: &mut Ui, icon: &str, label: &str, enabled: bool) -> Response {
    let text = RichText::new(format!("{icon}  {label}")).color(if enabled {
        Color32::WHITE
    } else {
        theme::TEXT_WEAK
    });
    let fill = if enabled {
        Color32::from_rgb(38, 112, 104)
    } else {
        theme::RAISED
    };
    let button = Button::new(text)
        .fill(fill)
        .min_size(Vec2::new(ui.available_width(), 32.0));
    let response = ui.add_enabled(enabled, button);
    response.widget_info(|| WidgetInfo::labeled(Role::Button, enabled, label));
    response
}

/// Heading of a section in a side panel.
pub fn section_ui(ui: &mut Ui, title: &str) {
    ui.add_space(6.0);
    ui.label(
        RichText::new(title)
            .font(theme::medium(13.0))
            .color(theme::TEXT_WEAK),
    );
}

/// A card on a panel.
pub fn card<R>(ui: &mut Ui, fill: Color32, content: impl FnOnce(&mut Ui) -> R) -> R {
    Frame::new()
        .fill(fill)
        .corner_radius(CornerRadius::same(6))
        .inner_margin(Margin::symmetric(10, 8))
        .show(ui, |ui| {
            ui.set_width(ui.available_width());
            content(ui)
        })
        .inner
}

/// A line with an icon in front, wrapped.
pub fn icon_line_ui(ui: &mut Ui, icon: &str, color: Color32, text: &str) {
    ui.horizontal_top(|ui| {
        ui.spacing_mut().item_spacing.x = 6.0;
        ui.label(
            RichText::new(icon)
                .font(theme::icon_font(15.0))
                .color(color),
        );
        ui.add(egui::Label::new(RichText::new(text).size(theme::SMALL).color(color)).wrap());
    });
}

/// A swatch of a segment's color.
pub fn swatch_ui(ui: &mut Ui, color: [u8; 3], strong: bool) {
    let (rect, _) = ui.allocate_exact_size(Vec2::splat(14.0), Sense::hover());
    let [r, g, b] = color;
    let alpha = if strong { 255 } else { 70 };
    let color = Color32::from_rgba_unmultiplied(r, g, b, alpha);
    ui.painter()
        .rect_filled(rect.shrink(1.0), CornerRadius::same(3), color);
}
