//! Marks on a finished picture: rectangles and lettering with a dark halo.

use std::sync::Arc;

use eframe::egui::epaint::text::{Fonts, TextOptions};
use eframe::egui::{Color32, FontData, FontDefinitions, FontFamily, FontId};

use super::slice_view::RgbaPixels;

/// Where a text stands against its anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Low,
    Middle,
    High,
}

/// A font of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    Regular,
    Medium,
}

/// A picture to draw on, and the fonts for it. Positions in pixels, x right, y down.
pub struct Canvas {
    pub picture: RgbaPixels,
    fonts: Fonts,
}

/// A text as coverage, row by row.
struct Mask {
    width: usize,
    height: usize,
    coverage: Vec<u8>,
}

impl Canvas {
    pub fn new(picture: RgbaPixels) -> Self {
        Self {
            picture,
            fonts: Fonts::new(TextOptions::default(), fonts()),
        }
    }

    /// Blends a color over a pixel; outside of the picture nothing happens.
    fn blend(&mut self, x: i64, y: i64, color: [u8; 3], alpha: f32) {
        let (w, h) = (self.picture.width as i64, self.picture.height as i64);
        if x < 0 || y < 0 || x >= w || y >= h || alpha <= 0.0 {
            return;
        }
        let at = (y * w + x) as usize * 4;
        for (byte, c) in self.picture.rgba[at..at + 3].iter_mut().zip(color) {
            let old = f32::from(*byte);
            *byte = (old + (f32::from(c) - old) * alpha).round() as u8;
        }
    }

    /// Fills a rectangle, edges rounded to whole pixels; at least one pixel each way.
    pub fn fill(&mut self, [x, y]: [f32; 2], [w, h]: [f32; 2], color: [u8; 3], alpha: f32) {
        let (x0, y0) = (x.round() as i64, y.round() as i64);
        let (x1, y1) = (
            (x0 + 1).max((x + w).round() as i64),
            (y0 + 1).max((y + h).round() as i64),
        );
        let (right, bottom) = (self.picture.width as i64, self.picture.height as i64);
        for y in y0.max(0)..y1.min(bottom) {
            for x in x0.max(0)..x1.min(right) {
                self.blend(x, y, color, alpha);
            }
        }
    }

    /// Rectangles (corner, size) with a thin dark edge around them all, to be seen on any image.
    pub fn marks(&mut self, rectangles: &[([f32; 2], [f32; 2])], color: [u8; 3]) {
        for &([x, y], [w, h]) in rectangles {
            self.fill([x - 1.0, y - 1.0], [w + 2.0, h + 2.0], [0; 3], 0.55);
        }
        for &(at, size) in rectangles {
            self.fill(at, size, color, 1.0);
        }
    }

    /// Width of a text in pixels.
    pub fn width_of(&mut self, text: &str, size: f32, face: Face) -> f32 {
        self.mask(text, size, face).width as f32
    }

    /// Writes a line of text with a halo; returns its width.
    pub fn text(
        &mut self,
        [x, y]: [f32; 2],
        [across, down]: [Align; 2],
        text: &str,
        size: f32,
        face: Face,
        color: [u8; 3],
    ) -> f32 {
        let mask = self.mask(text, size, face);
        let start = |at: f32, extent: usize, align: Align| -> i64 {
            let extent = extent as f32;
            let start = match align {
                Align::Low => at,
                Align::Middle => at - extent / 2.0,
                Align::High => at - extent,
            };
            start.round() as i64
        };
        let (x0, y0) = (start(x, mask.width, across), start(y, mask.height, down));
        let reach = (size / 11.0).round().max(1.0) as i64;
        let at = |x: i64, y: i64| -> u8 {
            let inside = x >= 0 && y >= 0 && x < mask.width as i64 && y < mask.height as i64;
            if inside {
                mask.coverage[y as usize * mask.width + x as usize]
            } else {
                0
            }
        };
        for y in -reach..mask.height as i64 + reach {
            for x in -reach..mask.width as i64 + reach {
                let around = (-reach..=reach)
                    .flat_map(|dy| (-reach..=reach).map(move |dx| (dx, dy)))
                    .map(|(dx, dy)| at(x + dx, y + dy))
                    .max()
                    .unwrap_or(0);
                self.blend(x0 + x, y0 + y, [0; 3], 0.6 * f32::from(around) / 255.0);
            }
        }
        for y in 0..mask.height as i64 {
            for x in 0..mask.width as i64 {
                self.blend(x0 + x, y0 + y, color, f32::from(at(x, y)) / 255.0);
            }
        }
        mask.width as f32
    }

    /// Lays a line out and takes its glyphs from the font atlas.
    fn mask(&mut self, text: &str, size: f32, face: Face) -> Mask {
        let family = match face {
            Face::Regular => FontFamily::Proportional,
            Face::Medium => FontFamily::Name("medium".into()),
        };
        // Control characters from a file must not start new lines.
        let text: String = text.chars().filter(|c| !c.is_control()).collect();
        let galley = self.fonts.with_pixels_per_point(1.0).layout_no_wrap(
            text,
            FontId::new(size, family),
            Color32::WHITE,
        );
        let atlas = self.fonts.image();
        let (width, height) = (
            galley.rect.width().ceil() as usize,
            galley.rect.height().ceil() as usize,
        );
        let mut coverage = vec![0_u8; width * height];
        for row in &galley.rows {
            for glyph in &row.row.glyphs {
                let uv = glyph.uv_rect;
                let left_top = row.pos + (glyph.pos + uv.offset).to_vec2();
                let (x0, y0) = (left_top.x.round() as i64, left_top.y.round() as i64);
                for v in uv.min[1]..uv.max[1] {
                    for u in uv.min[0]..uv.max[0] {
                        let x = x0 + i64::from(u - uv.min[0]);
                        let y = y0 + i64::from(v - uv.min[1]);
                        if x >= 0 && y >= 0 && x < width as i64 && y < height as i64 {
                            let found = atlas[(usize::from(u), usize::from(v))].a();
                            let byte = &mut coverage[y as usize * width + x as usize];
                            *byte = (*byte).max(found);
                        }
                    }
                }
            }
        }
        Mask {
            width,
            height,
            coverage,
        }
    }
}

fn fonts() -> FontDefinitions {
    let mut fonts = FontDefinitions::empty();
    let regular = include_bytes!("../../assets/fonts/Inter-Regular.otf");
    let medium = include_bytes!("../../assets/fonts/Inter-Medium.otf");
    let faces: [(&str, &'static [u8]); 2] = [("regular", regular), ("medium", medium)];
    for (name, bytes) in faces {
        let data = Arc::new(FontData::from_static(bytes));
        fonts.font_data.insert(name.to_owned(), data);
    }
    let family = |first: &str, second: &str| vec![first.to_owned(), second.to_owned()];
    fonts
        .families
        .insert(FontFamily::Proportional, family("regular", "medium"));
    fonts
        .families
        .insert(FontFamily::Monospace, family("regular", "medium"));
    fonts.families.insert(
        FontFamily::Name("medium".into()),
        family("medium", "regular"),
    );
    fonts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blank(width: usize, height: usize) -> Canvas {
        Canvas::new(RgbaPixels {
            width,
            height,
            rgba: vec![0; width * height * 4],
        })
    }

    #[test]
    fn text_lands_where_it_is_anchored() {
        let check = |align: Align, expected: std::ops::Range<usize>| {
            let mut canvas = blank(200, 40);
            let at = [100.0, 20.0];
            canvas.text(
                at,
                [align, Align::Middle],
                "Hm",
                16.0,
                Face::Medium,
                [255; 3],
            );
            let lit: Vec<usize> = (0..200 * 40)
                .filter(|n| canvas.picture.rgba[n * 4] > 100)
                .map(|n| n % 200)
                .collect();
            assert!(lit.len() > 30, "{} pixels are lit", lit.len());
            assert!(
                lit.iter().all(|x| expected.contains(x)),
                "{align:?}: {lit:?}"
            );
        };
        check(Align::Low, 99..140);
        check(Align::Middle, 80..120);
        check(Align::High, 60..101);
    }

    #[test]
    fn text_beyond_the_picture_and_odd_text_are_harmless() {
        let mut canvas = blank(20, 10);
        for text in ["", "a\nb\u{7}", "\u{10FFFF}", "王^小東", &"W".repeat(500)] {
            canvas.text(
                [-5.0, 9.0],
                [Align::Low; 2],
                text,
                30.0,
                Face::Regular,
                [255; 3],
            );
        }
        canvas.fill([-10.0, -10.0], [1000.0, 15.0], [9; 3], 1.0);
        assert_eq!(canvas.picture.rgba[..3], [9; 3]);
    }
}
