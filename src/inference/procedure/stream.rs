//! The sliding window whose logits never cover a whole grid.
//!
//! Windows run in nnU-Net's order: z, then y, then x. Sums of weighted logits live in pieces between the
//! bounds of windows; a piece begins with the first window that touches it and ends with the last, when its
//! logits are divided by their weights, resampled to the original grid, and reduced to labels at once. About
//! half a patch of rows is held at a time, however long the scan is. Every voxel sees the same operations in
//! the same order whatever the parts and threads.

use std::ops::Range;

use rayon::prelude::*;

use super::Error;
use super::array::{Image, Labels, volume};
use super::emit::{Borders, emit};
use super::pieces::{Element, Pieces};
use super::prepare::Prepared;
use super::stream_plan::{StreamPlan, Sweep};
use super::windows::importance_map;
use crate::model::procedure::Procedure;
use crate::task::Task;

/// Whatever a network fails with.
pub type NetworkError = Box<dyn std::error::Error + Send + Sync>;

/// A network with its folds, run on one patch at a time.
pub trait PatchNetwork {
    /// Runs one fold on a patch `[channel][z][y][x]` (z = 1 for slices) and hands its logits
    /// `[head][z][y][x]` to `take`, whole or by runs of heads: the first head of the run, and its logits.
    /// Each head comes once.
    ///
    /// # Errors
    /// Whatever stops it.
    fn run(
        &mut self,
        fold: usize,
        patch: &[f32],
        take: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), NetworkError>;
}

/// Labels of the reader's grid for a prepared image (`predict_logits_from_preprocessed_data` and
/// `convert_predicted_logits_to_segmentation_with_correct_shape` in one).
///
/// # Errors
/// [`Error::Network`], [`Error::NotFinite`] (also where sums overflow 16 bits: then
/// [`super::Accumulator::Single`] may do), [`Error::Mismatch`], [`Error::Cancelled`].
pub fn predict_streamed(
    prepared: &Prepared,
    procedure: &Procedure,
    plan: &StreamPlan,
    network: &mut dyn PatchNetwork,
    task: &Task,
) -> Result<Labels, Error> {
    if prepared.image.channels != procedure.input_channels
        || prepared.image.dims != prepared.grids.network
    {
        return Err(Error::Mismatch(format!(
            "an image of {} channels and {:?} voxels for a network with {} on {:?}",
            prepared.image.channels,
            prepared.image.dims,
            procedure.input_channels,
            prepared.grids.network
        )));
    }
    if plan.accumulator.is_half() {
        run::<half::f16>(prepared, procedure, plan, network, task)
    } else {
        run::<f32>(prepared, procedure, plan, network, task)
    }
}

fn run<E: Element>(
    prepared: &Prepared,
    procedure: &Procedure,
    plan: &StreamPlan,
    network: &mut dyn PatchNetwork,
    task: &Task,
) -> Result<Labels, Error> {
    let weights = if procedure.windows.gaussian {
        importance_map(&procedure.windows.patch_size, plan.accumulator.is_half())
    } else {
        vec![1.0; volume(plan.patch)]
    };
    let mut pass = Pass {
        image: &prepared.image,
        plan,
        heads: procedure.labels.heads(),
        flips: flips(procedure),
        weights,
        patch: Vec::new(),
        flipped: Vec::new(),
        sum: Vec::new(),
    };
    let mut out = Target::new(prepared, procedure);
    task.begin("Predicting", plan.network_runs);
    for sweep in &plan.sweeps {
        let [z, y, x] = &sweep.along;
        let layers = plan.accumulator.layers(plan.folds);
        let mut pieces = Pieces::<E>::new(sweep, pass.heads, layers, plan.folds);
        let mut borders = Borders::new(sweep, &plan.axes, pass.heads);
        for k in 0..z.starts.len() {
            for j in 0..y.starts.len() {
                for i in 0..x.starts.len() {
                    pass.window(sweep, [k, j, i], &mut pieces, network, task)?;
                }
                let region = [z.finished_by(k), y.finished_by(j)];
                if region.iter().any(Range::is_empty) {
                    continue;
                }
                pieces.finish(&region)?;
                for (at, labels) in emit(sweep, plan, &procedure.labels, &region, &pieces, &borders)
                {
                    out.write(sweep, at, &labels);
                }
                borders.keep(&region, &pieces);
                pieces.drop_finished(&region);
            }
        }
    }
    Ok(out.labels)
}

/// The axes along which each pass is mirrored, in nnU-Net's order: none, then all combinations by size.
fn flips(procedure: &Procedure) -> Vec<[bool; 3]> {
    let shift = usize::from(procedure.windows.is_2d());
    let axes = &procedure.windows.mirror_axes;
    // Bit `b` of a mask stands for `axes[b]`; among equal sizes, combinations come in lexicographic order.
    let mut masks: Vec<u32> = (0..1 << axes.len()).collect();
    masks.sort_by_key(|&mask: &u32| (mask.count_ones(), mask.reverse_bits().wrapping_neg()));
    masks
        .into_iter()
        .map(|mask| {
            let mut flip = [false; 3];
            for (bit, &axis) in axes.iter().enumerate() {
                flip[axis + shift] |= mask >> bit & 1 == 1;
            }
            flip
        })
        .collect()
}

/// What all windows share.
struct Pass<'a> {
    image: &'a Image,
    plan: &'a StreamPlan,
    heads: usize,
    flips: Vec<[bool; 3]>,
    weights: Vec<f32>,
    patch: Vec<f32>,
    flipped: Vec<f32>,
    sum: Vec<f32>,
}

impl Pass<'_> {
    /// Runs all folds and mirrorings on one window and adds what they say.
    fn window<E: Element>(
        &mut self,
        sweep: &Sweep,
        at: [usize; 3],
        pieces: &mut Pieces<E>,
        network: &mut dyn PatchNetwork,
        task: &Task,
    ) -> Result<(), Error> {
        let start = [0, 1, 2].map(|axis| sweep.along[axis].starts[at[axis]]);
        self.cut(start);
        let dims = self.plan.patch;
        let voxels = volume(dims);
        pieces.begin(at);
        pieces.weigh(sweep, at, dims, &self.weights);
        let share = self.flips.len() as f32;
        for fold in 0..self.plan.folds {
            let mut seen = vec![false; self.heads];
            for (index, &flip) in self.flips.iter().enumerate() {
                task.check()?;
                seen.fill(false);
                let mut problem = None;
                let input = if index == 0 {
                    &self.patch
                } else {
                    mirror(&self.patch, dims, flip, &mut self.flipped);
                    &self.flipped
                };
                let (heads, flips, weights) = (self.heads, self.flips.len(), &self.weights);
                let sum = &mut self.sum;
                sum.resize(if flips > 1 { heads * voxels } else { 0 }, 0.0);
                let mut take = |first: usize, logits: &[f32]| {
                    let count = logits.len() / voxels;
                    let new = seen.get_mut(first..first.saturating_add(count));
                    match new {
                        Some(new) if logits.len() % voxels == 0 && !new.contains(&true) => {
                            new.fill(true);
                        }
                        _ => {
                            problem = Some(format!(
                                "the network gave {} logits from output {first} on, of {heads} outputs with {voxels}",
                                logits.len()
                            ));
                            return;
                        }
                    }
                    if flips == 1 {
                        pieces.add(sweep, at, dims, weights, fold, first, logits);
                    } else {
                        let sum = &mut sum[first * voxels..(first + count) * voxels];
                        add_mirrored(sum, logits, dims, flip, index == 0);
                    }
                };
                network
                    .run(fold, input, &mut take)
                    .map_err(Error::Network)?;
                if let Some(problem) = problem {
                    return Err(Error::Mismatch(problem));
                }
                if let Some(missing) = seen.iter().position(|&seen| !seen) {
                    return Err(Error::Mismatch(format!(
                        "the network gave no output {missing}"
                    )));
                }
                task.advance(1);
            }
            if self.flips.len() > 1 {
                self.sum
                    .par_iter_mut()
                    .with_min_len(1 << 14)
                    .for_each(|v| *v /= share);
                pieces.add(sweep, at, dims, &self.weights, fold, 0, &self.sum);
            }
        }
        Ok(())
    }

    /// Copies the window's input; zeros where it reaches beyond the image.
    fn cut(&mut self, start: [usize; 3]) {
        let (image, patch, offset) = (self.image, self.plan.patch, self.plan.offset);
        let dims = image.dims;
        self.patch.clear();
        self.patch.resize(image.channels * volume(patch), 0.0);
        let inside = |axis: usize, at: usize| {
            let at = (start[axis] + at).checked_sub(offset[axis])?;
            (at < dims[axis]).then_some(at)
        };
        // The run of x that both have.
        let first = offset[2].saturating_sub(start[2]);
        let last = (offset[2] + dims[2]).saturating_sub(start[2]).min(patch[2]);
        if first >= last {
            return;
        }
        self.patch
            .par_chunks_mut(patch[1] * patch[2])
            .enumerate()
            .for_each(|(plane, to)| {
                let (channel, z) = (plane / patch[0], plane % patch[0]);
                let Some(z) = inside(0, z) else { return };
                let samples = image.channel(channel);
                for (y, to) in to.chunks_exact_mut(patch[2]).enumerate() {
                    let Some(y) = inside(1, y) else { continue };
                    let row = (z * dims[1] + y) * dims[2];
                    let from = row + start[2] + first - offset[2];
                    to[first..last].copy_from_slice(&samples[from..from + last - first]);
                }
            });
    }
}

/// The patch with some axes reversed.
fn mirror(source: &[f32], dims: [usize; 3], flip: [bool; 3], out: &mut Vec<f32>) {
    out.resize(source.len(), 0.0);
    rows(out, source, dims, flip, |to, from| {
        if flip[2] {
            to.iter_mut()
                .zip(from.iter().rev())
                .for_each(|(to, from)| *to = *from);
        } else {
            to.copy_from_slice(from);
        }
    });
}

/// Adds logits with some axes reversed; sets them on the first pass.
fn add_mirrored(sum: &mut [f32], logits: &[f32], dims: [usize; 3], flip: [bool; 3], first: bool) {
    rows(sum, logits, dims, flip, |to, from| {
        if first {
            to.copy_from_slice(from);
        } else if flip[2] {
            to.iter_mut()
                .zip(from.iter().rev())
                .for_each(|(to, from)| *to += *from);
        } else {
            to.iter_mut().zip(from).for_each(|(to, from)| *to += *from);
        }
    });
}

/// Pairs each row of `to` with the row of `from` that mirroring puts there.
fn rows(
    to: &mut [f32],
    from: &[f32],
    dims: [usize; 3],
    flip: [bool; 3],
    each: impl Fn(&mut [f32], &[f32]) + Sync,
) {
    let turned = |axis: usize, at: usize| if flip[axis] { dims[axis] - 1 - at } else { at };
    to.par_chunks_mut(dims[2])
        .with_min_len(64)
        .enumerate()
        .for_each(|(row, to)| {
            let (channel, z, y) = (
                row / (dims[0] * dims[1]),
                row / dims[1] % dims[0],
                row % dims[1],
            );
            let at = ((channel * dims[0] + turned(0, z)) * dims[1] + turned(1, y)) * dims[2];
            each(to, &from[at..at + dims[2]]);
        });
}

/// The result on the reader's grid.
struct Target {
    labels: Labels,
    /// Where the crop starts, and the strides of the transposed axes.
    origin: usize,
    strides: [usize; 3],
}

impl Target {
    fn new(prepared: &Prepared, procedure: &Procedure) -> Self {
        let grids = &prepared.grids;
        let backward = procedure.preprocessing.transpose_backward;
        let dims = backward.map(|axis| grids.before_crop[axis]);
        let reader = [dims[1] * dims[2], dims[2], 1];
        let mut strides = [0; 3];
        for (axis, &from) in backward.iter().enumerate() {
            strides[from] = reader[axis];
        }
        let origin = (0..3)
            .map(|axis| grids.crop.start[axis] * strides[axis])
            .sum();
        let data = vec![0; volume(dims)];
        Self {
            labels: Labels { dims, data },
            origin,
            strides,
        }
    }

    /// Writes rows of one output slice, `at` = `[z, first y]`; background stays as it is.
    fn write(&mut self, sweep: &Sweep, at: [usize; 2], labels: &[u8]) {
        let [sz, sy, sx] = self.strides;
        let x = &sweep.out[2];
        for (y, row) in labels.chunks_exact(x.len()).enumerate() {
            let base = self.origin + at[0] * sz + (at[1] + y) * sy + x.start * sx;
            if sx == 1 {
                self.labels.data[base..base + row.len()].copy_from_slice(row);
            } else {
                for (x, &label) in row.iter().enumerate() {
                    self.labels.data[base + x * sx] = label;
                }
            }
        }
    }
}
