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
use super::prepare::{OneHot, Prepared};
use super::stream_plan::{Route, StreamPlan, Sweep, Weights};
use super::windows::{importance_map, monai_importance_map};
use crate::model::monai::Padding;
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

    /// Labels of an earlier, coarser pass on the reader's grid: what [`PatchNetwork::seen`] shows
    /// where this pass has not come yet. The result does not depend on them.
    fn earlier(&mut self) -> Option<Labels> {
        None
    }

    /// Sees the reader's grid whenever more voxels have got their labels.
    fn seen(&mut self, _labels: &Labels) {}
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
    let spread = prepared.one_hot.as_ref().map_or(0, |o| o.foreground.len());
    let channels = prepared.image.channels + spread;
    if channels != procedure.input_channels {
        return Err(Error::Mismatch(format!(
            "an image of {channels} channels for a network with {}",
            procedure.input_channels
        )));
    }
    let one_hot = prepared.one_hot.as_ref();
    predict_image(&prepared.image, one_hot, plan, network, task)
}

/// Labels of the reader's grid for the image that the plan is for.
pub(super) fn predict_image(
    image: &Image,
    one_hot: Option<&OneHot>,
    plan: &StreamPlan,
    network: &mut dyn PatchNetwork,
    task: &Task,
) -> Result<Labels, Error> {
    let channels = image.channels + one_hot.map_or(0, |o| o.foreground.len());
    let labeled = one_hot.is_none_or(|o| o.labels.len() == image.voxels());
    if channels != plan.rules.channels || image.dims != plan.route.network || !labeled {
        return Err(Error::Mismatch(format!(
            "an image of {channels} channels and {:?} voxels for a plan with {} on {:?}",
            image.dims, plan.rules.channels, plan.route.network
        )));
    }
    if plan.accumulator.is_half() {
        run::<half::f16>(image, one_hot, plan, network, task)
    } else {
        run::<f32>(image, one_hot, plan, network, task)
    }
}

fn run<E: Element>(
    image: &Image,
    one_hot: Option<&OneHot>,
    plan: &StreamPlan,
    network: &mut dyn PatchNetwork,
    task: &Task,
) -> Result<Labels, Error> {
    let rules = &plan.rules;
    let weights = match &rules.weights {
        Weights::Even => vec![1.0; volume(plan.patch)],
        Weights::Nnunet { patch_size } => importance_map(patch_size, plan.accumulator.is_half()),
        Weights::Monai { roi, sigma_scale } => monai_importance_map(roi, *sigma_scale),
    };
    let mut pass = Pass {
        image,
        one_hot,
        plan,
        heads: rules.decision.heads(),
        weights,
        patch: Vec::new(),
        flipped: Vec::new(),
        sum: Vec::new(),
    };
    let mut out = Target::new(&plan.route);
    if let Some(earlier) = network.earlier() {
        out.begin_with(&earlier, &plan.sweeps)?;
    }
    task.begin("Predicting", plan.network_runs);
    for sweep in &plan.sweeps {
        let [z, y, x] = &sweep.along;
        let layers = plan.accumulator.layers(plan.folds);
        let mut pieces = Pieces::<E>::new(sweep, pass.heads, layers, plan.folds);
        let mut borders = Borders::new(sweep, &plan.route.axes, pass.heads);
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
                pieces.activate(&region, rules.activation);
                for (at, labels) in emit(sweep, plan, &rules.decision, &region, &pieces, &borders) {
                    out.write(sweep, at, &labels);
                }
                borders.keep(&region, &pieces);
                pieces.drop_finished(&region);
                network.seen(&out.labels);
            }
        }
    }
    Ok(out.labels)
}

/// What all windows share.
struct Pass<'a> {
    image: &'a Image,
    one_hot: Option<&'a OneHot>,
    plan: &'a StreamPlan,
    heads: usize,
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
        let share = self.plan.rules.flips.len() as f32;
        for fold in 0..self.plan.folds {
            let mut seen = vec![false; self.heads];
            for (index, &flip) in self.plan.rules.flips.iter().enumerate() {
                task.check()?;
                seen.fill(false);
                let mut problem = None;
                let input = if index == 0 {
                    &self.patch
                } else {
                    mirror(&self.patch, dims, flip, &mut self.flipped);
                    &self.flipped
                };
                let (heads, flips, weights) =
                    (self.heads, self.plan.rules.flips.len(), &self.weights);
                let sum = &mut self.sum;
                sum.resize(if flips > 1 { heads * voxels } else { 0 }, 0.0);
                let mut take = |first: usize, logits: &[f32]| {
                    let count = logits.len() / voxels;
                    let new = seen.get_mut(first..first.saturating_add(count));
                    match new {
                        Some(new)
                            if logits.len().is_multiple_of(voxels) && !new.contains(&true) =>
                        {
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
            if self.plan.rules.flips.len() > 1 {
                self.sum
                    .par_iter_mut()
                    .with_min_len(1 << 14)
                    .for_each(|v| *v /= share);
                pieces.add(sweep, at, dims, &self.weights, fold, 0, &self.sum);
            }
        }
        Ok(())
    }

    /// Copies the window's input, padded where it reaches beyond the image.
    fn cut(&mut self, start: [usize; 3]) {
        let (image, one_hot) = (self.image, self.one_hot);
        let (patch, offset) = (self.plan.patch, self.plan.offset);
        let (dims, padding) = (image.dims, self.plan.rules.padding);
        let outside = match padding {
            Padding::Constant(value) => value,
            _ => 0.0,
        };
        self.patch.clear();
        self.patch
            .resize(self.plan.rules.channels * volume(patch), outside);
        let source = [0, 1, 2].map(|axis| -> Vec<Option<usize>> {
            (start[axis]..start[axis] + patch[axis])
                .map(|at| padded_from(at as isize - offset[axis] as isize, dims[axis], padding))
                .collect()
        });
        let [zs, ys, xs] = &source;
        // Without padding, a row is one run.
        let run = match (xs[0], xs[patch[2] - 1]) {
            (Some(first), Some(last)) if last + 1 - first.min(last) == patch[2] => Some(first),
            _ => None,
        };
        self.patch
            .par_chunks_mut(patch[1] * patch[2])
            .enumerate()
            .for_each(|(plane, to)| {
                let Some(z) = zs[plane % patch[0]] else {
                    return;
                };
                let channel = plane / patch[0];
                if channel >= image.channels {
                    // Without a cascade there are no channels beyond those of the image.
                    let Some(one_hot) = one_hot else { return };
                    let wanted = one_hot.foreground[channel - image.channels];
                    for (to, y) in to.chunks_exact_mut(patch[2]).zip(ys) {
                        let Some(y) = y else { continue };
                        let row = &one_hot.labels[(z * dims[1] + y) * dims[2]..][..dims[2]];
                        for (to, x) in to.iter_mut().zip(xs) {
                            *to = x.map_or(outside, |x| f32::from(u8::from(row[x] == wanted)));
                        }
                    }
                    return;
                }
                let samples = image.channel(channel);
                for (to, y) in to.chunks_exact_mut(patch[2]).zip(ys) {
                    let Some(y) = y else { continue };
                    let row = &samples[(z * dims[1] + y) * dims[2]..][..dims[2]];
                    if let Some(first) = run {
                        to.copy_from_slice(&row[first..first + patch[2]]);
                    } else {
                        for (to, x) in to.iter_mut().zip(xs) {
                            *to = x.map_or(outside, |x| row[x]);
                        }
                    }
                }
            });
    }
}

/// Where a padded sample comes from (`torch.nn.functional.pad`); `None`: from nowhere.
fn padded_from(at: isize, size: usize, padding: Padding) -> Option<usize> {
    let size = size as isize;
    let from = match padding {
        _ if (0..size).contains(&at) => at,
        Padding::Constant(_) => return None,
        Padding::Replicate => at.clamp(0, size - 1),
        Padding::Circular => at.rem_euclid(size),
        Padding::Reflect if size == 1 => 0,
        Padding::Reflect => {
            let around = at.rem_euclid(2 * (size - 1));
            around.min(2 * (size - 1) - around)
        }
    };
    Some(from as usize)
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
struct Target<'a> {
    labels: Labels,
    route: &'a Route,
}

impl<'a> Target<'a> {
    fn new(route: &'a Route) -> Self {
        Self {
            labels: Labels {
                dims: route.reader,
                data: vec![0; volume(route.reader)],
            },
            route,
        }
    }

    /// Fills the voxels that will be written with an earlier pass' labels.
    fn begin_with(&mut self, earlier: &Labels, sweeps: &[Sweep]) -> Result<(), Error> {
        if earlier.dims != self.labels.dims || earlier.data.len() != self.labels.data.len() {
            return Err(Error::Mismatch(format!(
                "labels of an earlier pass on {:?} voxels, the image has {:?}",
                earlier.dims, self.labels.dims
            )));
        }
        let [sz, sy, sx] = self.route.strides;
        for sweep in sweeps {
            let [z, y, x] = &sweep.out;
            for z in z.clone() {
                for y in y.clone() {
                    let row = self.route.origin as isize + z as isize * sz + y as isize * sy;
                    for x in x.clone() {
                        let at = (row + x as isize * sx) as usize;
                        self.labels.data[at] = earlier.data[at];
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes rows of one output slice, `at` = `[z, first y]`; background stays as it is.
    fn write(&mut self, sweep: &Sweep, at: [usize; 2], labels: &[u8]) {
        let [sz, sy, sx] = self.route.strides;
        let x = &sweep.out[2];
        let base = self.route.origin as isize + at[0] as isize * sz + x.start as isize * sx;
        for (y, row) in labels.chunks_exact(x.len()).enumerate() {
            let base = base + (at[1] + y) as isize * sy;
            if sx == 1 {
                let base = base as usize;
                self.labels.data[base..base + row.len()].copy_from_slice(row);
            } else {
                for (x, &label) in row.iter().enumerate() {
                    self.labels.data[(base + x as isize * sx) as usize] = label;
                }
            }
        }
    }
}
