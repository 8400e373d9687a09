//! A slice as a picture that stands for itself: letters, ruler, texts, legend, warning.
//!
//! Drawn by the CPU reference, so it needs no graphics adapter.

use super::canvas::{Align, Canvas, Face};
use super::cpu::draw_slice_cpu;
use super::heat::{self, heat_color};
use super::slice_view::{OverlayStyle, RgbaPixels, SliceView};
use crate::findings::Explanation;
use crate::geometry::ViewPlane;
use crate::volume::{Calibration, LabelMap, VoiWindow, Volume};

/// What a picture shows.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotOptions {
    /// Width and height of the whole picture.
    pub size_px: [u32; 2],
    /// `None`: the plane of the stored slices, turned to the radiological convention.
    pub plane: Option<ViewPlane>,
    /// Index along the grid axis that leaves the plane, from 0; `None`: the middle.
    pub slice: Option<usize>,
    /// Gray window.
    pub window: VoiWindow,
    /// Black and white swapped.
    pub invert: bool,
    /// Trilinear; else nearest voxel.
    pub interpolate: bool,
    /// How labels are drawn.
    pub overlay: Option<OverlayStyle>,
    /// A map of evidence over the slice, which must be of its image.
    pub explanation: Option<Explanation>,
    /// Names by label, for the legend.
    pub legend: Vec<(u8, String)>,
    /// Orientation letters and ruler.
    pub marks: bool,
    /// Orientation letters may be drawn: the volume's place in the patient is known.
    pub oriented: bool,
    /// Texts in the corners.
    pub corners: CornerLines,
    /// What is doubtful about the data, in words.
    pub doubts: Vec<String>,
}

/// Texts in the corners of a picture; the caller decides what may be said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CornerLines {
    /// Patient.
    pub top_left: Vec<String>,
    /// Study.
    pub top_right: Vec<String>,
    /// Image, window.
    pub bottom_left: Vec<String>,
    /// Series.
    pub bottom_right: Vec<String>,
}

impl SnapshotOptions {
    /// The middle slice with letters and ruler.
    pub fn new(size_px: [u32; 2], window: VoiWindow) -> Self {
        Self {
            size_px,
            plane: None,
            slice: None,
            window,
            invert: false,
            interpolate: true,
            overlay: None,
            explanation: None,
            legend: Vec::new(),
            marks: true,
            oriented: true,
            corners: CornerLines::default(),
            doubts: Vec::new(),
        }
    }
}

const INK: [u8; 3] = [206, 210, 214];
const WEAK: [u8; 3] = [156, 160, 166];
const DOUBT: [u8; 3] = [224, 176, 96];
const STRIP: [u8; 3] = [24, 25, 27];
/// Beyond the image: a little lighter than black, so that its edges show.
const BACKGROUND: [u8; 3] = [11, 12, 13];

/// Draws a slice with all that belongs to it.
///
/// The strip with the warning takes the lowest part of the picture, the image what is above.
pub fn snapshot(
    volume: &Volume,
    labels: Option<&LabelMap>,
    options: &SnapshotOptions,
) -> RgbaPixels {
    let [width, height] = options.size_px.map(|n| n.max(1));
    let scale = (width.min(height) as f32 / 768.0).clamp(0.72, 4.0);
    let strip = ((24.0 * scale) as u32).min(height / 4);
    let mut view = SliceView::fitted(
        volume,
        options.plane,
        options.slice,
        [width, height - strip],
        options.window,
    );
    view.invert = options.invert;
    view.interpolate = options.interpolate;
    view.background = BACKGROUND;
    view.overlay.clone_from(&options.overlay);
    let mut picture = draw_slice_cpu(volume, labels, &view);
    if let Some(map) = &options.explanation {
        heat::blend(&mut picture, volume, &view, map);
    }
    let present = labels.map(|map| visible_labels(map, &view));
    picture.height = height as usize;
    picture
        .rgba
        .resize(width as usize * height as usize * 4, 255);
    let mut page = Page {
        canvas: Canvas::new(picture),
        scale,
        width: width as f32,
        height: (height - strip) as f32,
    };
    page.strip(strip as f32);
    if options.marks {
        if options.oriented {
            page.letters(view.plane.edge_letters());
        }
        page.ruler(view.mm_per_pixel, volume.calibration);
    }
    let left = page.corners(&options.corners);
    let left = page.doubts(left, &options.doubts);
    if let (Some(style), Some(present)) = (&options.overlay, present) {
        page.legend(left, style, &options.legend, &present);
    }
    if let Some(map) = &options.explanation {
        page.color_bar(map);
    }
    page.canvas.picture
}

/// Labels that the picture shows, by number.
fn visible_labels(map: &LabelMap, view: &SliceView) -> [bool; 256] {
    let mut present = [false; 256];
    let grid = view.on_grid(&map.geometry);
    let last = map.geometry.dims().map(|n| n as f64 - 0.5);
    for y in 0..view.size_px[1] {
        for x in 0..view.size_px[0] {
            let pixel = view.from_middle(x, y);
            let p = (grid.origin + grid.dx * pixel.x + grid.dy * pixel.y).to_array();
            if (0..3).all(|axis| p[axis] >= -0.5 && p[axis] < last[axis]) {
                let [i, j, k] = p.map(|x| (x + 0.5) as usize);
                present[usize::from(map.labels[map.geometry.index(i, j, k)])] = true;
            }
        }
    }
    present
}

/// A length for the ruler: 1, 2 or 5 times a power of ten, at most `longest`.
fn ruler_length(longest: f64) -> f64 {
    let power = 10_f64.powf(longest.log10().floor());
    [5.0, 2.0, 1.0]
        .iter()
        .map(|m| m * power)
        .find(|l| *l <= longest * (1.0 + 1e-9))
        .unwrap_or(power)
}

/// A length with the unit that it may have.
// CLINICAL(length): without a calibration the geometry counts pixels, and says so.
fn length_words(length: f64, calibration: Calibration) -> String {
    let unit = match calibration {
        Calibration::Patient => "mm",
        Calibration::Detector => "mm at detector",
        Calibration::Unknown => "px",
    };
    format!("{length} {unit}")
}

/// A number of a color bar, with three figures.
pub fn tick_words(value: f32) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        v if v >= 0.001 => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}

struct Page {
    canvas: Canvas,
    scale: f32,
    width: f32,
    /// Of the image, without the strip.
    height: f32,
}

impl Page {
    fn line_height(&self) -> f32 {
        17.0 * self.scale
    }

    fn text_size(&self) -> f32 {
        13.0 * self.scale
    }

    fn strip(&mut self, height: f32) {
        let (top, s) = (self.height, self.scale);
        self.canvas
            .fill([0.0, top], [self.width, height], STRIP, 1.0);
        let (y, size) = (top + height / 2.0, 11.5 * s);
        let margin = 12.0 * s;
        let left = [Align::Low, Align::Middle];
        let used = self.canvas.text(
            [margin, y],
            left,
            crate::RESEARCH_USE,
            size,
            Face::Regular,
            WEAK,
        );
        let name = format!("Negatoscope {}", crate::VERSION);
        let needed = self.canvas.width_of(&name, size, Face::Regular);
        if used + needed + 4.0 * margin < self.width {
            let right = [Align::High, Align::Middle];
            let at = [self.width - margin, y];
            self.canvas
                .text(at, right, &name, size, Face::Regular, WEAK);
        }
    }

    // CLINICAL(laterality): letters come from the plane that was drawn, never from the plane asked for.
    fn letters(&mut self, [left, right, top, bottom]: [String; 4]) {
        let (w, h, s) = (self.width, self.height, self.scale);
        let (low, middle, high) = (Align::Low, Align::Middle, Align::High);
        let spots = [
            ([22.0 * s, h / 2.0], [low, middle], left),
            ([w - 12.0 * s, h / 2.0], [high, middle], right),
            ([w / 2.0, 8.0 * s], [middle, low], top),
            ([w / 2.0, h - 26.0 * s], [middle, high], bottom),
        ];
        for (at, align, text) in spots {
            self.canvas
                .text(at, align, &text, 17.0 * s, Face::Medium, INK);
        }
    }

    fn ruler(&mut self, mm_per_pixel: f64, calibration: Calibration) {
        let (w, h, s) = (self.width, self.height, self.scale);
        let length = ruler_length(f64::from(w.min(h)) * mm_per_pixel / 3.5);
        if !length.is_finite() || length <= 0.0 {
            return;
        }
        let pixels = (length / mm_per_pixel) as f32;
        let thick = (1.2 * s).round().max(1.0);
        let tick = |n: u32| {
            if n.is_multiple_of(5) {
                7.0 * s
            } else {
                3.5 * s
            }
        };
        let (x0, y) = (w / 2.0 - pixels / 2.0, h - 10.0 * s);
        let mut marks = vec![([x0, y], [pixels + thick, thick])];
        // The same length on the left edge, open where the letter stands.
        let (x, y0) = (7.0 * s, h / 2.0 - pixels / 2.0);
        let gap = 14.0 * s;
        let half = pixels / 2.0 - gap;
        if half > 0.0 {
            marks.push(([x, y0], [thick, half]));
            marks.push(([x, h / 2.0 + gap], [thick, half + thick]));
        }
        for n in 0..=10 {
            let along = pixels * n as f32 / 10.0;
            let size = tick(n);
            marks.push(([x0 + along, y - size], [thick, size]));
            if (along - pixels / 2.0).abs() > gap {
                marks.push(([x, y0 + along], [size, thick]));
            }
        }
        self.canvas.marks(&marks, INK);
        let at = [x0 + pixels + 9.0 * s, y + 4.0 * s];
        let text = length_words(length, calibration);
        let (align, size) = ([Align::Low, Align::High], self.text_size());
        self.canvas.text(at, align, &text, size, Face::Regular, INK);
    }

    /// Draws the corners; returns where the left column ends. Small pictures keep what belongs
    /// to the image and drop the rest.
    fn corners(&mut self, corners: &CornerLines) -> f32 {
        let s = self.scale;
        let (margin, top, bottom) = (12.0 * s, 9.0 * s, self.height - 8.0 * s);
        let (left, right) = (Align::Low, Align::High);
        if self.width < 420.0 {
            let first = &corners.bottom_left[..corners.bottom_left.len().min(1)];
            return self.column(first, [margin, top], left, true);
        }
        self.column(&corners.top_right, [self.width - margin, top], right, true);
        // The lowest row belongs to the ruler where texts would reach it.
        let clear = self.width * 0.5 - self.width / 7.0 - margin;
        let lift = |page: &mut Self, lines: &[String], taken: f32| {
            let size = page.text_size();
            let widest = lines
                .last()
                .map_or(0.0, |line| page.canvas.width_of(line, size, Face::Regular));
            if widest > clear - taken {
                page.line_height()
            } else {
                0.0
            }
        };
        let up = lift(self, &corners.bottom_left, 10.0 * s);
        self.column(&corners.bottom_left, [margin, bottom - up], left, false);
        let up = lift(self, &corners.bottom_right, 120.0 * s);
        let at = [self.width - margin, bottom - up];
        self.column(&corners.bottom_right, at, right, false);
        self.column(&corners.top_left, [margin, top], left, true)
    }

    /// Lines from `at` downwards, or upwards to end there; returns where the block ends.
    fn column(&mut self, lines: &[String], at: [f32; 2], align: Align, down: bool) -> f32 {
        let (step, size) = (self.line_height(), self.text_size());
        for (n, line) in lines.iter().enumerate() {
            let (y, vertical) = if down {
                (at[1] + n as f32 * step, Align::Low)
            } else {
                (at[1] - (lines.len() - 1 - n) as f32 * step, Align::High)
            };
            let place = [align, vertical];
            self.canvas
                .text([at[0], y], place, line, size, Face::Regular, INK);
        }
        at[1] + lines.len() as f32 * step
    }

    /// Doubts below the left column, the first three; returns where they end.
    fn doubts(&mut self, start: f32, doubts: &[String]) -> f32 {
        let (step, size) = (self.line_height(), self.text_size());
        let longest = (self.width * 0.9 / (size * 0.55)) as usize;
        let mut y = start;
        for doubt in doubts.iter().take(3) {
            let mut text = format!("! {doubt}");
            if text.chars().count() > longest {
                text = text.chars().take(longest.max(2) - 1).collect();
                text.push('…');
            }
            let (at, place) = ([12.0 * self.scale, y], [Align::Low, Align::Low]);
            self.canvas
                .text(at, place, &text, size, Face::Regular, DOUBT);
            y += step;
        }
        y
    }

    /// What the colors stand for, and whether the map holds.
    fn color_bar(&mut self, map: &Explanation) {
        let (s, step, size) = (self.scale, self.line_height(), self.text_size());
        let (width, height) = (12.0 * s, self.height * 0.36);
        let (x, top) = (self.width - 84.0 * s, self.height * 0.32);
        let edges = [([x - 1.0, top - 1.0], [width + 2.0, height + 2.0])];
        self.canvas.marks(&edges, INK);
        let rows = height as usize;
        for row in 0..rows {
            let part = 1.0 - row as f32 / (rows - 1).max(1) as f32;
            let at = [x, top + row as f32];
            self.canvas.fill(at, [width, 1.0], heat_color(part), 1.0);
        }
        let left = [Align::Low, Align::Middle];
        for part in [0.0, 0.5, 1.0] {
            let y = top + height * (1.0 - part);
            let text = tick_words(map.highest() * part);
            let at = [x + width + 6.0 * s, y];
            self.canvas.text(at, left, &text, size, Face::Regular, INK);
        }
        let right = [Align::High, Align::High];
        let above = [self.width - 12.0 * s, top - 0.6 * step];
        let unit = map.method.unit();
        self.canvas
            .text(above, right, unit, size, Face::Regular, INK);
        let title = format!("{}: {}", map.method.words(), map.finding);
        let at = [above[0], above[1] - step];
        self.canvas.text(at, right, &title, size, Face::Medium, INK);
        if !map.faithfulness.explains() {
            let right = [Align::High, Align::Low];
            let at = [above[0], top + height + 0.8 * step];
            let text = "this map explains nothing";
            self.canvas.text(at, right, text, size, Face::Medium, DOUBT);
        }
    }

    /// Names the segments that the picture shows; results that nobody reviewed are called so.
    fn legend(
        &mut self,
        start: f32,
        style: &OverlayStyle,
        names: &[(u8, String)],
        present: &[bool; 256],
    ) {
        let (s, step, size) = (self.scale, self.line_height(), self.text_size());
        let margin = 12.0 * s;
        let place = [Align::Low, Align::Low];
        let mut y = start + 0.5 * step;
        if style.dashed {
            let text = "AI – not reviewed";
            self.canvas
                .text([margin, y], place, text, size, Face::Medium, DOUBT);
            y += step * 1.1;
        }
        let shown: Vec<(&str, [u8; 3])> = names
            .iter()
            .filter(|(label, _)| present[usize::from(*label)])
            .filter_map(|(label, name)| Some((name.as_str(), style.colors[usize::from(*label)]?)))
            .collect();
        // Down to the letter at the left edge, but always a few.
        let room = (((self.height / 2.0 - 1.5 * step - y) / step) as usize).max(3);
        let listed = if shown.len() > room {
            room - 1
        } else {
            shown.len()
        };
        for (name, color) in &shown[..listed] {
            let side = 10.0 * s;
            let top = y + (step - side) / 2.0 - s;
            self.canvas.marks(&[([margin, top], [side, side])], *color);
            let name: String = name.chars().take(40).collect();
            let at = [margin + side + 8.0 * s, y];
            self.canvas.text(at, place, &name, size, Face::Regular, INK);
            y += step;
        }
        let rest = shown.len() - listed;
        let last = match (shown.len(), rest) {
            (0, _) => Some("no segment in this slice".to_owned()),
            (_, 0) => None,
            _ => Some(format!("and {rest} more")),
        };
        if let Some(text) = last {
            self.canvas
                .text([margin, y], place, &text, size, Face::Regular, WEAK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rulers_have_round_lengths() {
        for (longest, expected) in [(99.0, 50.0), (100.0, 100.0), (7.0, 5.0), (0.3, 0.2)] {
            let found = ruler_length(longest);
            assert!((found - expected).abs() < 1e-9, "{longest}: {found}");
        }
    }

    #[test]
    fn clinical_length_a_ruler_is_as_long_as_it_says() {
        assert_eq!(length_words(50.0, Calibration::Patient), "50 mm");
        assert_eq!(
            length_words(50.0, Calibration::Detector),
            "50 mm at detector"
        );
        assert_eq!(length_words(50.0, Calibration::Unknown), "50 px");
        let check = |mm_per_pixel: f64, expected_mm: f64| {
            let (width, height) = (600, 500);
            let rgba = vec![0; width * height * 4];
            let picture = RgbaPixels {
                width,
                height,
                rgba,
            };
            let mut page = Page {
                canvas: Canvas::new(picture),
                scale: 1.0,
                width: width as f32,
                height: height as f32,
            };
            page.ruler(mm_per_pixel, Calibration::Patient);
            // The row of the bar, left of its label: a gap ends the bar.
            let row = 490 * width;
            let lit = |x: usize| page.canvas.picture.rgba[(row + x) * 4] > 150;
            let first = (100..width).find(|&x| lit(x)).unwrap();
            let length = (first..width).take_while(|&x| lit(x)).count();
            let drawn_mm = (length as f64 - 1.0) * mm_per_pixel;
            // Both ends are rounded to whole pixels.
            assert!((drawn_mm - expected_mm).abs() <= mm_per_pixel, "{drawn_mm}");
        };
        check(0.5, 50.0);
        check(0.71, 100.0);
        check(0.02, 2.0);
    }
}
