//! Colors, type and spacing. Every color of the window has its name here.
//!
//! Neutral dark grays leave the eye to the image; one accent marks what is active.

use std::sync::Arc;

use eframe::egui::{
    self, Color32, CornerRadius, FontData, FontDefinitions, FontFamily, FontId, Margin, Stroke,
    TextStyle, Vec2,
};

/// Behind everything.
pub const BACKGROUND: Color32 = Color32::from_rgb(14, 15, 16);
/// Behind images: black, as on a light box that is off.
pub const VIEWPORT: Color32 = Color32::BLACK;
/// Side panels and bars.
pub const PANEL: Color32 = Color32::from_rgb(24, 25, 27);
/// Cards and fields on panels.
pub const RAISED: Color32 = Color32::from_rgb(34, 36, 39);
/// Under the pointer.
pub const HOVERED: Color32 = Color32::from_rgb(46, 48, 52);
/// Thin lines.
pub const LINE: Color32 = Color32::from_rgb(50, 52, 56);
/// Outlines of boxes and buttons at rest: a box that is not ticked must be seen.
pub const CONTROL_LINE: Color32 = Color32::from_rgb(86, 90, 97);
/// Text.
pub const TEXT: Color32 = Color32::from_rgb(222, 224, 227);
/// Second-rank text.
pub const TEXT_WEAK: Color32 = Color32::from_rgb(156, 160, 166);
/// The accent: active, selected, to be pressed.
pub const ACCENT: Color32 = Color32::from_rgb(92, 190, 178);
/// Accent as a background.
pub const ACCENT_DIM: Color32 = Color32::from_rgb(32, 66, 63);
/// Doubt. Always with an icon or a word.
pub const DOUBT: Color32 = Color32::from_rgb(224, 176, 96);
/// Failure. Always with an icon or a word.
pub const FAILURE: Color32 = Color32::from_rgb(226, 120, 108);
/// Text over images.
pub const OVER_IMAGE: Color32 = Color32::from_rgb(206, 210, 214);
/// Shadow under text over images.
pub const OVER_IMAGE_SHADOW: Color32 = Color32::from_black_alpha(190);

/// Lines of the planes, as in Weasis and DICOM's tradition: sagittal red, coronal green, axial blue.
pub const PLANE_LINES: [Color32; 3] = [
    Color32::from_rgb(96, 150, 230),
    Color32::from_rgb(110, 190, 120),
    Color32::from_rgb(214, 110, 104),
];

/// Loss of single steps, behind the other curves.
pub const CURVE_STEPS: Color32 = Color32::from_rgb(72, 86, 108);
/// Figures of the training part.
pub const CURVE_TRAINING: Color32 = Color32::from_rgb(112, 166, 240);
/// Figures of what is held out.
pub const CURVE_VALIDATION: Color32 = Color32::from_rgb(240, 178, 84);
/// Outline of a true mask in examples.
pub const OUTLINE_TRUTH: Color32 = Color32::from_rgb(96, 214, 110);
/// Outline of a model's mask in examples.
pub const OUTLINE_MODEL: Color32 = Color32::from_rgb(236, 96, 214);
/// Where both outlines are the same.
pub const OUTLINE_BOTH: Color32 = Color32::from_rgb(250, 250, 250);

/// Icon in a given size.
pub fn icon_font(size: f32) -> FontId {
    FontId::new(size, FontFamily::Name("icons".into()))
}

/// Semi-bold text.
pub fn medium(size: f32) -> FontId {
    FontId::new(size, FontFamily::Name("medium".into()))
}

/// Small text.
pub const SMALL: f32 = 12.5;

/// Fonts, colors and spacing of the window.
pub fn apply(ctx: &egui::Context) {
    ctx.set_fonts(fonts());
    ctx.set_theme(egui::Theme::Dark);
    ctx.all_styles_mut(style);
}

fn fonts() -> FontDefinitions {
    let mut fonts = FontDefinitions::default();
    let mut add = |name: &str, bytes: &'static [u8]| {
        fonts
            .font_data
            .insert(name.to_owned(), Arc::new(FontData::from_static(bytes)));
    };
    add(
        "inter",
        include_bytes!("../../assets/fonts/Inter-Regular.otf"),
    );
    add(
        "inter-medium",
        include_bytes!("../../assets/fonts/Inter-Medium.otf"),
    );
    add(
        "phosphor",
        include_bytes!("../../assets/fonts/Phosphor.ttf"),
    );
    let proportional = fonts.families.entry(FontFamily::Proportional).or_default();
    proportional.insert(0, "inter".to_owned());
    proportional.insert(1, "phosphor".to_owned());
    let fallback = proportional.clone();
    let with = |first: &str| {
        let mut list = vec![first.to_owned()];
        list.extend(fallback.iter().filter(|name| *name != first).cloned());
        list
    };
    fonts
        .families
        .insert(FontFamily::Name("medium".into()), with("inter-medium"));
    fonts
        .families
        .insert(FontFamily::Name("icons".into()), with("phosphor"));
    fonts
}

fn style(style: &mut egui::Style) {
    let text = |size| FontId::new(size, FontFamily::Proportional);
    style.text_styles = [
        (TextStyle::Small, text(SMALL)),
        (TextStyle::Body, text(14.0)),
        (TextStyle::Button, text(14.0)),
        (TextStyle::Heading, medium(17.0)),
        (
            TextStyle::Monospace,
            FontId::new(13.0, FontFamily::Monospace),
        ),
    ]
    .into();
    let spacing = &mut style.spacing;
    spacing.item_spacing = Vec2::new(8.0, 6.0);
    spacing.button_padding = Vec2::new(10.0, 5.0);
    spacing.interact_size = Vec2::new(36.0, 26.0);
    spacing.window_margin = Margin::same(16);
    spacing.menu_margin = Margin::same(6);
    spacing.menu_width = 260.0;
    spacing.slider_width = 130.0;
    let visuals = &mut style.visuals;
    visuals.dark_mode = true;
    visuals.panel_fill = PANEL;
    visuals.window_fill = Color32::from_rgb(28, 29, 32);
    visuals.window_stroke = Stroke::new(1.0, LINE);
    visuals.window_corner_radius = CornerRadius::same(8);
    visuals.menu_corner_radius = CornerRadius::same(6);
    visuals.extreme_bg_color = Color32::from_rgb(16, 17, 18);
    visuals.faint_bg_color = RAISED;
    visuals.override_text_color = None;
    visuals.weak_text_color = Some(TEXT_WEAK);
    visuals.hyperlink_color = ACCENT;
    visuals.warn_fg_color = DOUBT;
    visuals.error_fg_color = FAILURE;
    visuals.selection.bg_fill = ACCENT_DIM;
    visuals.selection.stroke = Stroke::new(1.0, ACCENT);
    visuals.slider_trailing_fill = true;
    let widgets = &mut visuals.widgets;
    for (state, fill, line, text) in [
        (&mut widgets.noninteractive, PANEL, LINE, TEXT),
        (&mut widgets.inactive, RAISED, CONTROL_LINE, TEXT),
        (&mut widgets.hovered, HOVERED, LINE, Color32::WHITE),
        (&mut widgets.active, ACCENT_DIM, ACCENT, Color32::WHITE),
        (&mut widgets.open, HOVERED, LINE, Color32::WHITE),
    ] {
        state.bg_fill = fill;
        state.weak_bg_fill = fill;
        state.bg_stroke = Stroke::new(1.0, line);
        state.fg_stroke = Stroke::new(1.0, text);
        state.corner_radius = CornerRadius::same(5);
        state.expansion = 0.0;
    }
}
