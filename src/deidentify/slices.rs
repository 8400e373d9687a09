//! Where frames lie in the patient, and their values on a coarse grid.

use super::morphology::Solid;
use crate::dicom::{FrameReader, Tree, TreeNode, TreeValue};
use crate::geometry::DVec3;

/// Millimeters between the points of the grid.
pub(super) const STEP_MM: f64 = 2.0;
/// Slices further apart leave too much to guess.
const WIDEST_GAP_MM: f64 = 8.0;
const FEWEST_SLICES: usize = 10;
/// Millimeters; a larger field holds more than a head.
const LARGEST_FIELD_MM: f64 = 480.0;

/// Where the pixels of a frame are (PS3.3 C.7.6.2.1.1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FramePlace {
    /// Center of the first pixel, LPS.
    corner: DVec3,
    /// To the next column, mm.
    right: DVec3,
    /// To the next row, mm.
    down: DVec3,
}

impl FramePlace {
    /// The place of frame `n`: from the image, or from functional groups.
    pub(super) fn of(tree: &Tree, n: usize) -> Option<Self> {
        let numbers = |group: u32, tag: u32| -> Option<Vec<f64>> {
            let node = group_value(tree, n, group, tag)?;
            tree.text(node)
                .split('\\')
                .map(|v| v.trim().parse::<f64>().ok().filter(|v| v.is_finite()))
                .collect()
        };
        let corner = numbers(0x0020_9113, 0x0020_0032)?;
        let axes = numbers(0x0020_9116, 0x0020_0037)?;
        let spacing = numbers(0x0028_9110, 0x0028_0030)?;
        let ([x, y, z], [a, b, c, d, e, f], [rows, columns]) =
            (&corner[..], &axes[..], &spacing[..])
        else {
            return None;
        };
        let (right, down) = (DVec3::new(*a, *b, *c), DVec3::new(*d, *e, *f));
        let square = (right.length() - 1.0).abs() < 0.01
            && (down.length() - 1.0).abs() < 0.01
            && right.dot(down).abs() < 0.01;
        (square && *rows > 0.0 && *columns > 0.0).then(|| Self {
            corner: DVec3::new(*x, *y, *z),
            right: right * *columns,
            down: down * *rows,
        })
    }

    /// Center of a pixel, LPS.
    pub(super) fn at(&self, column: f64, row: f64) -> DVec3 {
        self.corner + self.right * column + self.down * row
    }

    /// Column and row of the point of this plane that is nearest to a point.
    fn pixel_of(&self, lps: DVec3) -> [f64; 2] {
        let from = lps - self.corner;
        [self.right, self.down].map(|axis| from.dot(axis) / axis.length_squared())
    }

    fn normal(&self) -> DVec3 {
        self.right.cross(self.down).normalize()
    }

    /// The same for all slices of a stack.
    pub(super) fn direction(&self) -> [i64; 3] {
        (self.normal() * 1000.0)
            .round()
            .to_array()
            .map(|v| v as i64)
    }
}

/// An attribute of a frame: at the top, else in its own functional group, else in the shared one.
fn group_value(tree: &Tree, n: usize, group: u32, tag: u32) -> Option<&TreeNode> {
    fn item(nodes: &[TreeNode], tag: u32, n: usize) -> Option<&[TreeNode]> {
        match &nodes.iter().find(|node| node.tag == tag)?.value {
            TreeValue::Items(items) => items.get(n).map(Vec::as_slice),
            _ => None,
        }
    }
    let inside = |sequence: u32, n: usize| {
        let frame = item(&tree.root, sequence, n)?;
        item(frame, group, 0)?.iter().find(|node| node.tag == tag)
    };
    tree.find(tag)
        .or_else(|| inside(0x5200_9230, n))
        .or_else(|| inside(0x5200_9229, 0))
}

/// Slope and intercept of a frame; 1 and 0 where the file says nothing.
pub(super) fn rescale(tree: &Tree, n: usize) -> (f64, f64) {
    let number = |tag| {
        let text = tree.text(group_value(tree, n, 0x0028_9145, tag)?);
        text.parse::<f64>().ok().filter(|v| v.is_finite())
    };
    let slope = number(0x0028_1053).filter(|s| *s != 0.0).unwrap_or(1.0);
    (slope, number(0x0028_1052).unwrap_or(0.0))
}

/// One frame, made coarser.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    place: FramePlace,
    width: usize,
    values: Vec<f32>,
}

impl Slice {
    /// Means of blocks of pixels that are no wider than the grid's step, in modality values.
    pub(super) fn read(tree: &Tree, reader: &FrameReader, n: usize) -> Option<Self> {
        let place = FramePlace::of(tree, n)?;
        let format = reader.format();
        if format.samples != 1 {
            return None;
        }
        let samples = reader.frame(n).ok()?.samples;
        let (slope, intercept) = rescale(tree, n);
        let coarse = place.right.length().max(place.down.length());
        let block = ((STEP_MM / coarse) as usize).clamp(1, 64);
        let (width, height) = (format.columns / block, format.rows / block);
        let mut values = Vec::with_capacity(width * height);
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            let mut sum = 0.0;
            for row in y * block..(y + 1) * block {
                for column in x * block..(x + 1) * block {
                    sum += samples.at(row * format.columns + column);
                }
            }
            let mean = sum / (block * block) as f64;
            values.push((mean * slope + intercept) as f32);
        }
        let middle = (block as f64 - 1.0) / 2.0;
        let place = FramePlace {
            corner: place.at(middle, middle),
            right: place.right * block as f64,
            down: place.down * block as f64,
        };
        (width > 1 && height > 1).then_some(Self {
            place,
            width,
            values,
        })
    }

    fn height(&self) -> usize {
        self.values.len() / self.width
    }

    /// Between four pixels; `None` outside.
    fn value_at(&self, lps: DVec3) -> Option<f32> {
        let [x, y] = self.place.pixel_of(lps);
        let (right, bottom) = ((self.width - 1) as f64, (self.height() - 1) as f64);
        if !(0.0..=right).contains(&x) || !(0.0..=bottom).contains(&y) {
            return None;
        }
        let (i, j) = (
            x.min(right - 0.001) as usize,
            y.min(bottom - 0.001) as usize,
        );
        let (u, v) = ((x - i as f64) as f32, (y - j as f64) as f32);
        let at = |i: usize, j: usize| self.values[j * self.width + i];
        let upper = at(i, j) * (1.0 - u) + at(i + 1, j) * u;
        let lower = at(i, j + 1) * (1.0 - u) + at(i + 1, j + 1) * u;
        Some(upper * (1.0 - v) + lower * v)
    }
}

/// Values on a grid along left, posterior and superior.
#[derive(Debug)]
pub(super) struct Grid {
    /// Center of the first point, LPS.
    pub origin: DVec3,
    /// NaN where no slice lies.
    pub values: Vec<f32>,
    /// Where slices lie.
    pub covered: Solid,
}

impl Grid {
    /// Slices of one direction, in any order.
    ///
    /// # Errors
    /// Slices that do not show a head as a whole, in words.
    pub(super) fn of(slices: &[Slice]) -> Result<Self, &'static str> {
        let normal = slices.first().ok_or("no slices")?.place.normal();
        let mut sorted: Vec<(f64, &Slice)> = slices
            .iter()
            .map(|s| (normal.dot(s.place.corner), s))
            .collect();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Several images of one place: the first stands for all.
        sorted.dedup_by(|b, a| b.0 - a.0 < 0.01);
        if sorted.len() < FEWEST_SLICES {
            return Err("too few slices to find a face in");
        }
        if sorted.windows(2).any(|w| w[1].0 - w[0].0 > WIDEST_GAP_MM) {
            return Err("slices too far apart to find a face in");
        }
        let (mut low, mut high) = (DVec3::INFINITY, DVec3::NEG_INFINITY);
        for (_, slice) in &sorted {
            let (w, h) = ((slice.width - 1) as f64, (slice.height() - 1) as f64);
            for corner in [[0.0, 0.0], [w, 0.0], [0.0, h], [w, h]] {
                let corner = slice.place.at(corner[0], corner[1]);
                (low, high) = (low.min(corner), high.max(corner));
            }
        }
        if (high - low).max_element() > LARGEST_FIELD_MM {
            return Err("a field of view larger than a head");
        }
        let dims = ((high - low) / STEP_MM)
            .ceil()
            .to_array()
            .map(|n| n as usize + 1);
        let mut values = Vec::with_capacity(dims.iter().product());
        for n in 0..dims.iter().product::<usize>() {
            let ijk = [n % dims[0], n / dims[0] % dims[1], n / dims[0] / dims[1]];
            let lps = low + DVec3::from_array(ijk.map(|i| i as f64)) * STEP_MM;
            let along = normal.dot(lps);
            let above = sorted.partition_point(|(t, _)| *t <= along);
            let value = if above == 0 || above == sorted.len() {
                None
            } else {
                let ((t0, a), (t1, b)) = (sorted[above - 1], sorted[above]);
                let share = ((along - t0) / (t1 - t0)) as f32;
                let pair = a.value_at(lps).zip(b.value_at(lps));
                pair.map(|(a, b)| a * (1.0 - share) + b * share)
            };
            values.push(value.unwrap_or(f32::NAN));
        }
        let covered = values.iter().map(|v| !v.is_nan()).collect();
        Ok(Self {
            origin: low,
            values,
            covered: Solid::new(dims, covered),
        })
    }
}
