//! Looks for text in every frame of an image, and in what all frames have in common.
//!
//! Lettering stands still while what is imaged moves: the least value over all frames keeps bright
//! letters and loses what was bright for a while, the greatest value keeps dark ones.

use super::text::{FoundText, Region, find_text, joined};
use crate::dicom::{FrameReader, Photometric, Samples, Tree};

/// Larger images are looked at in blocks of pixels; their letters are larger too.
const LONGEST_SIDE: usize = 1200;

/// What was found in an image.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    /// Lines of text, none of which touch.
    pub found: Vec<FoundText>,
    /// Frames that were looked at.
    pub frames: usize,
}

/// Looks at all frames.
///
/// # Errors
/// A frame cannot be decoded.
pub(super) fn look(tree: &Tree) -> Result<Look, crate::dicom::Error> {
    let reader = tree.frames()?;
    let mut found = Vec::new();
    let mut least: Option<Plane> = None;
    let mut greatest: Option<Plane> = None;
    for n in 0..reader.count() {
        let plane = Plane::of(&reader, n)?;
        found.extend(plane.text());
        for (all, keep) in [
            (&mut least, f32::min as fn(f32, f32) -> f32),
            (&mut greatest, f32::max),
        ] {
            let all = all.get_or_insert_with(|| plane.clone());
            for (a, b) in all.values.iter_mut().zip(&plane.values) {
                *a = keep(*a, *b);
            }
        }
    }
    if reader.count() > 1 {
        found.extend(least.into_iter().chain(greatest).flat_map(|p| p.text()));
    }
    Ok(Look {
        found: joined(found),
        frames: reader.count(),
    })
}

/// One value a pixel, or a block of pixels.
#[derive(Clone)]
struct Plane {
    values: Vec<f32>,
    width: usize,
    block: usize,
    columns: usize,
    rows: usize,
}

impl Plane {
    fn of(reader: &FrameReader, n: usize) -> Result<Self, crate::dicom::Error> {
        let format = reader.format();
        let samples = reader.frame(n)?.samples;
        let (columns, rows) = (format.columns, format.rows);
        let block = columns.max(rows).div_ceil(LONGEST_SIDE);
        let (width, height) = (columns.div_ceil(block), rows.div_ceil(block));
        let mut values = Vec::with_capacity(width * height);
        for y in 0..height {
            for x in 0..width {
                let (mut sum, mut count) = (0.0, 0.0_f64);
                for row in y * block..rows.min((y + 1) * block) {
                    for column in x * block..columns.min((x + 1) * block) {
                        sum += pixel(&samples, row * columns + column, format.samples);
                        count += 1.0;
                    }
                }
                values.push((sum / count) as f32);
            }
        }
        if format.photometric == Photometric::Monochrome1 {
            for value in &mut values {
                *value = -*value;
            }
        }
        Ok(Self {
            values,
            width,
            block,
            columns,
            rows,
        })
    }

    fn text(&self) -> Vec<FoundText> {
        let mut found = find_text(&self.values, self.width);
        for FoundText { region, .. } in &mut found {
            let (x, y) = (region.x * self.block, region.y * self.block);
            *region = Region {
                x,
                y,
                width: (region.width * self.block).min(self.columns - x),
                height: (region.height * self.block).min(self.rows - y),
            };
        }
        found
    }
}

/// The brightest of a pixel's colors: letters may have any.
fn pixel(samples: &Samples, at: usize, of_each: usize) -> f64 {
    (0..of_each)
        .map(|s| samples.at(at * of_each + s))
        .fold(f64::NEG_INFINITY, f64::max)
}
