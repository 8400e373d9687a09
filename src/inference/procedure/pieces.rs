//! The sums of weighted logits between the bounds of windows, for as long as they are needed.

use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::Error;
use super::stream_plan::{Sweep, Windows};
use crate::model::monai::Activation;

/// Samples that are converted at a time.
const RUN: usize = 64;

/// How a sum is stored.
pub(super) trait Element: Copy + Default + Send + Sync {
    fn load(from: &[Self], to: &mut [f32]);
    fn store(from: &[f32], to: &mut [Self]);
    fn one(value: Self) -> f32 {
        let mut out = [0.0];
        Self::load(&[value], &mut out);
        out[0]
    }
    /// As it would be after `store` and `load`.
    fn round(values: &mut [f32]);
}

impl Element for f32 {
    fn load(from: &[Self], to: &mut [f32]) {
        to.copy_from_slice(from);
    }
    fn store(from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }
    fn round(_: &mut [f32]) {}
}

impl Element for f16 {
    fn load(from: &[Self], to: &mut [f32]) {
        from.convert_to_f32_slice(to);
    }
    fn store(from: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(from);
    }
    fn round(values: &mut [f32]) {
        let mut short = [f16::ZERO; RUN];
        for run in values.chunks_mut(RUN) {
            let short = &mut short[..run.len()];
            Self::store(run, short);
            Self::load(short, run);
        }
    }
}

/// Applies `change(index, sum)` to stored samples through f32.
fn through<E: Element>(samples: &mut [E], mut change: impl FnMut(usize, &mut [f32])) {
    let mut values = [0.0_f32; RUN];
    for (index, run) in samples.chunks_mut(RUN).enumerate() {
        let values = &mut values[..run.len()];
        E::load(run, values);
        change(index * RUN, values);
        E::store(values, run);
    }
}

/// A box of rows and lines, over the whole width of the part.
struct Piece<E> {
    /// `[head][layer][row][line][x]`.
    sums: Vec<E>,
    /// `[row][line][x]`.
    weights: Vec<E>,
    rows: Range<usize>,
    lines: Range<usize>,
}

/// All pieces of a part of the grid; those that no window has reached yet and those that are finished are
/// empty.
pub(super) struct Pieces<E> {
    held: Vec<Option<Piece<E>>>,
    along: [Windows; 2],
    x: Range<usize>,
    heads: usize,
    layers: usize,
    folds: usize,
}

impl<E: Element> Pieces<E> {
    pub(super) fn new(sweep: &Sweep, heads: usize, layers: usize, folds: usize) -> Self {
        let [z, y, x] = &sweep.along;
        Self {
            held: (0..z.pieces() * y.pieces()).map(|_| None).collect(),
            along: [z.clone(), y.clone()],
            x: x.range.clone(),
            heads,
            layers,
            folds,
        }
    }

    /// The pieces under a window.
    fn under(&self, at: [usize; 3]) -> impl Iterator<Item = usize> + use<E> {
        let [z, y] = &self.along;
        let (across, lines) = (y.pieces(), y.pieces_of(at[1]));
        z.pieces_of(at[0])
            .flat_map(move |iz| lines.clone().map(move |iy| iz * across + iy))
    }

    /// Makes the pieces that this window reaches first.
    pub(super) fn begin(&mut self, at: [usize; 3]) {
        for index in self.under(at) {
            if self.held[index].is_none() {
                let [z, y] = &self.along;
                let rows = z.piece(index / y.pieces());
                let lines = y.piece(index % y.pieces());
                let area = rows.len() * lines.len() * self.x.len();
                self.held[index] = Some(Piece {
                    sums: vec![E::default(); area * self.heads * self.layers],
                    weights: vec![E::default(); area],
                    rows,
                    lines,
                });
            }
        }
    }

    /// Adds the window's weights to those of its voxels.
    pub(super) fn weigh(
        &mut self,
        sweep: &Sweep,
        at: [usize; 3],
        patch: [usize; 3],
        weights: &[f32],
    ) {
        let window = Window::new(sweep, at, patch);
        for index in self.under(at) {
            let piece = self.held[index]
                .as_mut()
                .expect("begun before it is weighed");
            window.each_row(
                piece.rows.clone(),
                piece.lines.clone(),
                &self.x,
                |from, to| {
                    let weights = &weights[from];
                    through(&mut piece.weights[to], |first, sums| {
                        for (sum, weight) in sums.iter_mut().zip(&weights[first..]) {
                            *sum += weight;
                        }
                    });
                },
            );
        }
    }

    /// Adds weighted logits of some heads, `[head][z][y][x]` from head `first` on.
    pub(super) fn add(
        &mut self,
        sweep: &Sweep,
        at: [usize; 3],
        patch: [usize; 3],
        weights: &[f32],
        fold: usize,
        first: usize,
        logits: &[f32],
    ) {
        let window = Window::new(sweep, at, patch);
        let layer = if self.layers > 1 { fold } else { 0 };
        let voxels = weights.len();
        let heads = logits.len() / voxels;
        for index in self.under(at) {
            let piece = self.held[index]
                .as_mut()
                .expect("begun before logits are added");
            let area = piece.weights.len();
            let (rows, lines, x) = (&piece.rows, &piece.lines, &self.x);
            piece
                .sums
                .par_chunks_mut(area * self.layers)
                .skip(first)
                .take(heads)
                .zip(logits.par_chunks(voxels))
                .for_each(|(sums, logits)| {
                    let sums = &mut sums[layer * area..(layer + 1) * area];
                    window.each_row(rows.clone(), lines.clone(), x, |from, to| {
                        let (logits, weights) = (&logits[from.clone()], &weights[from]);
                        through(&mut sums[to], |first, sums| {
                            let both = logits[first..].iter().zip(&weights[first..]);
                            for (sum, (logit, weight)) in sums.iter_mut().zip(both) {
                                *sum += logit * weight;
                            }
                        });
                    });
                });
        }
    }

    /// The pieces of a region.
    fn inside(&self, region: &[Range<usize>; 2]) -> impl Iterator<Item = usize> + use<E> {
        let [z, y] = &self.along;
        let (across, lines) = (y.pieces(), y.pieces_in(&region[1]));
        z.pieces_in(&region[0])
            .flat_map(move |iz| lines.clone().map(move |iy| iz * across + iy))
    }

    /// Turns the sums of a region into logits: divided by their weights, folds averaged, into the first
    /// layer.
    pub(super) fn finish(&mut self, region: &[Range<usize>; 2]) -> Result<(), Error> {
        let folds = self.folds as f32;
        // Folds that share a layer were summed: one division does for weights and folds.
        let shared = if self.layers == 1 { folds } else { 1.0 };
        for index in self.inside(region) {
            let piece = self.held[index]
                .as_mut()
                .expect("every voxel lies under a window");
            let area = piece.weights.len();
            let weights = &piece.weights;
            piece
                .sums
                .par_chunks_mut(area * self.layers)
                .try_for_each(|sums| {
                    let (sum, others) = sums.split_at_mut(area);
                    let mut finite = true;
                    let mut weight = [0.0_f32; RUN];
                    let mut other = [0.0_f32; RUN];
                    through(sum, |first, values| {
                        let run = first..first + values.len();
                        let weight = &mut weight[..values.len()];
                        let other = &mut other[..values.len()];
                        E::load(&weights[run.clone()], weight);
                        for (value, weight) in values.iter_mut().zip(weight.iter()) {
                            *value /= weight * shared;
                        }
                        if !others.is_empty() {
                            E::round(values);
                            for layer in others.chunks_exact(area) {
                                E::load(&layer[run.clone()], other);
                                for (value, weight) in other.iter_mut().zip(weight.iter()) {
                                    *value /= weight;
                                }
                                E::round(other);
                                for (value, other) in values.iter_mut().zip(other.iter()) {
                                    *value += other;
                                }
                                E::round(values);
                            }
                            for value in values.iter_mut() {
                                *value /= folds;
                            }
                        }
                        E::round(values);
                        finite &= values.iter().all(|value| value.is_finite());
                    });
                    if finite {
                        Ok(())
                    } else {
                        Err(Error::NotFinite)
                    }
                })?;
        }
        Ok(())
    }

    /// Turns finished logits into probabilities where the model asks for it before it resamples.
    pub(super) fn activate(&mut self, region: &[Range<usize>; 2], activation: Activation) {
        if activation == Activation::None {
            return;
        }
        let (heads, stride) = (self.heads, self.layers);
        for index in self.inside(region) {
            let piece = self.held[index]
                .as_mut()
                .expect("finished before it is activated");
            let area = piece.weights.len();
            // Of each voxel: its largest logit, and what its exponentials add up to.
            let sums = &piece.sums;
            let totals: Vec<(f32, f32)> = (0..area)
                .into_par_iter()
                .with_min_len(1 << 12)
                .map(|at| {
                    let logits = || (0..heads).map(|head| E::one(sums[head * stride * area + at]));
                    let most = logits().fold(f32::NEG_INFINITY, f32::max);
                    (most, logits().map(|logit| (logit - most).exp()).sum())
                })
                .collect();
            piece.sums.par_chunks_mut(area * stride).for_each(|sums| {
                through(&mut sums[..area], |first, values| {
                    for (value, (most, sum)) in values.iter_mut().zip(&totals[first..]) {
                        *value = match activation {
                            Activation::Softmax => (*value - most).exp() / sum,
                            _ => 1.0 / (1.0 + (-*value).exp()),
                        };
                    }
                });
            });
        }
    }

    /// Finished logits of one line; row and line on the padded grid.
    pub(super) fn line(&self, head: usize, row: usize, line: usize) -> &[E] {
        let [z, y] = &self.along;
        let find = |along: &Windows, at: usize| along.cuts.partition_point(|&cut| cut <= at) - 1;
        let index = find(z, row) * y.pieces() + find(y, line);
        let piece = self.held[index]
            .as_ref()
            .expect("read before it is dropped");
        let area = piece.weights.len();
        let at = head * self.layers * area
            + ((row - piece.rows.start) * piece.lines.len() + line - piece.lines.start)
                * self.x.len();
        &piece.sums[at..at + self.x.len()]
    }

    /// Gives the memory of a region back.
    pub(super) fn drop_finished(&mut self, region: &[Range<usize>; 2]) {
        for index in self.inside(region) {
            self.held[index] = None;
        }
    }
}

/// A window, and which of its samples fall on which of a piece.
struct Window {
    start: [usize; 3],
    patch: [usize; 3],
    x: Range<usize>,
}

impl Window {
    fn new(sweep: &Sweep, at: [usize; 3], patch: [usize; 3]) -> Self {
        Self {
            start: [0, 1, 2].map(|axis| sweep.along[axis].starts[at[axis]]),
            patch,
            x: sweep.along[2].covered(at[2]),
        }
    }

    /// Calls `each(samples of the patch, samples of the piece)` for every line.
    fn each_row(
        &self,
        rows: Range<usize>,
        lines: Range<usize>,
        whole_x: &Range<usize>,
        mut each: impl FnMut(Range<usize>, Range<usize>),
    ) {
        let width = self.x.len();
        for (row, z) in rows.enumerate() {
            for (line, y) in lines.clone().enumerate() {
                let from = ((z - self.start[0]) * self.patch[1] + y - self.start[1])
                    * self.patch[2]
                    + self.x.start
                    - self.start[2];
                let to = (row * lines.len() + line) * whole_x.len() + self.x.start - whole_x.start;
                each(from..from + width, to..to + width);
            }
        }
    }
}
