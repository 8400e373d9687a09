//! One axis of `scipy.ndimage.zoom(grid_mode=True, mode='nearest')`: where samples come from, and the
//! cubic prefilter.
//!
//! # Source
//! scipy's `ni_splines.c` and `ni_interpolation.c`; Unser, "Splines: a perfect fit", 1999.

use std::ops::Range;

/// Samples that scipy repeats on both sides before it filters for `mode='nearest'`.
const PAD: usize = 12;

/// How the samples of an axis of `to` come from one of `from`.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) from: usize,
    pub(super) to: usize,
    /// First index of the taps, in the padded axis where cubic; the others follow, held inside.
    first: Vec<usize>,
    weights: Vec<[f64; 4]>,
    order: u8,
}

/// scipy's coordinate of output sample `index`, before it is held inside.
fn coordinate(index: usize, from: usize, to: usize) -> f64 {
    (index as f64 + 0.5) * (from as f64 / to as f64) - 0.5
}

impl Axis {
    /// scipy's axis: `order` is 0, 1 or 3; equal sizes are the identity.
    pub(super) fn new(from: usize, to: usize, order: u8) -> Self {
        let order = if from == to { 0 } else { order };
        let (mut first, mut weights) = (Vec::with_capacity(to), Vec::with_capacity(to));
        for index in 0..to {
            let at = coordinate(index, from, to);
            let (start, taps) = match order {
                0 => {
                    let at = at.clamp(0.0, (from - 1) as f64);
                    ((at + 0.5).floor() as usize, [1.0, 0.0, 0.0, 0.0])
                }
                1 => {
                    let at = at.clamp(0.0, (from - 1) as f64);
                    let part = at - at.floor();
                    (at.floor() as usize, [1.0 - part, part, 0.0, 0.0])
                }
                _ => {
                    let at = at + PAD as f64;
                    let y = at - at.floor();
                    let z = 1.0 - y;
                    let w1 = (y * y * (y - 2.0) * 3.0 + 4.0) / 6.0;
                    let w2 = (z * z * (z - 2.0) * 3.0 + 4.0) / 6.0;
                    let w0 = z * z * z / 6.0;
                    (at.floor() as usize - 1, [w0, w1, w2, 1.0 - w0 - w1 - w2])
                }
            };
            first.push(start);
            weights.push(taps);
        }
        Self {
            from,
            to,
            first,
            weights,
            order,
        }
    }

    /// An axis whose sample `index` lies at `index * step + offset` of another grid, held inside its `size`, of
    /// which the source holds the samples `held`, from `held.start + shift` on. Linear or nearest; what the
    /// source does not hold counts as 0.
    ///
    /// Gives the samples that the source reaches at all, and their axis.
    pub(super) fn scaled(
        to: Range<usize>,
        (step, offset): (f64, f64),
        size: usize,
        held: Range<usize>,
        shift: isize,
        from: usize,
        linear: bool,
    ) -> (Range<usize>, Self) {
        let taps = |index: usize| {
            let at = (index as f64 * step + offset).clamp(0.0, (size - 1) as f64);
            // torch rounds halves to the even sample.
            let at = if linear { at } else { at.round_ties_even() };
            let part = at - at.floor();
            let low = at.floor() as usize;
            [(low, 1.0 - part), ((low + 1).min(size - 1), part)]
        };
        let reached: Vec<usize> = to
            .filter(|&index| {
                taps(index)
                    .iter()
                    .any(|(at, w)| *w != 0.0 && held.contains(at))
            })
            .collect();
        let range = match (reached.first(), reached.last()) {
            (Some(&first), Some(&last)) => first..last + 1,
            _ => 0..0,
        };
        let mut axis = Self {
            from,
            to: range.len(),
            first: Vec::new(),
            weights: Vec::new(),
            order: 1,
        };
        for index in range.clone() {
            let [low, high] = taps(index);
            let weight = |tap: (usize, f64)| if held.contains(&tap.0) { tap.1 } else { 0.0 };
            let (w_low, w_high) = (weight(low), weight(high));
            let place = |at: usize| (at as isize + shift) as usize;
            if held.contains(&low.0) {
                axis.first.push(place(low.0));
                axis.weights.push([w_low, w_high, 0.0, 0.0]);
            } else {
                // Only the upper sample is there.
                axis.first.push(place(high.0));
                axis.weights.push([w_high, 0.0, 0.0, 0.0]);
            }
        }
        (range, axis)
    }

    /// Whether every sample is taken as it is.
    pub(super) fn is_identity(&self) -> bool {
        self.from == self.to
            && (0..self.to).all(|index| self.first[index] == index && self.weights[index][0] == 1.0)
    }

    /// Whether the weights of every sample add up to 1.
    pub(super) fn is_whole(&self) -> bool {
        let mut sums = self
            .weights
            .iter()
            .map(|weights| weights.iter().sum::<f64>());
        sums.all(|sum| (sum - 1.0).abs() < 1e-9)
    }

    pub(super) fn is_cubic(&self) -> bool {
        self.order == 3
    }

    /// The two source samples (equal where one is enough) and their weights; not for cubic axes.
    pub(super) fn pair(&self, index: usize) -> ([usize; 2], [f64; 2]) {
        let (first, weights) = (self.first[index], &self.weights[index]);
        let second = if weights[1] == 0.0 {
            first
        } else {
            (first + 1).min(self.from - 1)
        };
        ([first, second], [weights[0], weights[1]])
    }

    /// Resamples `width` neighboring lines at once: `source` is `[from][width]`, `out` gets `[to][width]`.
    pub(super) fn lines(
        &self,
        source: &[f64],
        width: usize,
        padded: &mut Vec<f64>,
        out: &mut [f64],
    ) {
        let row = |at: usize| at * width..(at + 1) * width;
        if self.is_cubic() {
            padded.clear();
            for at in 0..self.from + 2 * PAD {
                let at = at.saturating_sub(PAD).min(self.from - 1);
                padded.extend_from_slice(&source[row(at)]);
            }
            prefilter(padded, width);
            for index in 0..self.to {
                let (first, w) = (self.first[index], &self.weights[index]);
                let taps = [0, 1, 2, 3].map(|tap| &padded[row(first + tap)]);
                for (column, out) in out[row(index)].iter_mut().enumerate() {
                    *out = taps[0][column] * w[0]
                        + taps[1][column] * w[1]
                        + taps[2][column] * w[2]
                        + taps[3][column] * w[3];
                }
            }
        } else {
            for index in 0..self.to {
                let ([low, high], [w_low, w_high]) = self.pair(index);
                let (low, high) = (&source[row(low)], &source[row(high)]);
                for ((out, low), high) in out[row(index)].iter_mut().zip(low).zip(high) {
                    *out = low * w_low + high * w_high;
                }
            }
        }
    }
}

/// Samples to the coefficients of a cubic spline, in place; `[sample][width]`, at least two samples.
/// The boundary is scipy's 'reflect', which it uses for 'nearest'.
fn prefilter(lines: &mut [f64], width: usize) {
    let pole = 3.0_f64.sqrt() - 2.0;
    let gain = (1.0 - pole) * (1.0 - 1.0 / pole);
    let count = lines.len() / width;
    for value in lines.iter_mut() {
        *value *= gain;
    }
    let pole_n = pole.powi(count as i32);
    for column in 0..width {
        let at = |index: usize| index * width + column;
        let start = lines[at(0)];
        let mut sum = start + pole_n * lines[at(count - 1)];
        let mut power = pole;
        for index in 1..count {
            sum += power * (lines[at(index)] + pole_n * lines[at(count - 1 - index)]);
            power *= pole;
            // What follows is below the last bit.
            if power.abs() < 1e-30 {
                break;
            }
        }
        lines[at(0)] = sum * (pole / (1.0 - pole_n * pole_n)) + start;
    }
    for index in 1..count {
        let (before, here) = lines.split_at_mut(index * width);
        let before = &before[(index - 1) * width..];
        for (here, before) in here[..width].iter_mut().zip(before) {
            *here += pole * before;
        }
    }
    for value in &mut lines[(count - 1) * width..] {
        *value *= pole / (pole - 1.0);
    }
    for index in (0..count - 1).rev() {
        let (here, after) = lines.split_at_mut((index + 1) * width);
        let here = &mut here[index * width..];
        for (here, after) in here.iter_mut().zip(&after[..width]) {
            *here = pole * (after - *here);
        }
    }
}
