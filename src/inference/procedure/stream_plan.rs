//! What a streamed run takes, before it starts: which windows, in which parts of the grid, in how many bytes.

use std::ops::Range;

use super::Error;
use super::array::volume;
use super::labels::Decision;
use super::prepare::Grids;
use super::spline::Axis;
use super::windows::window_starts;
use crate::model::monai::{Activation, Padding};
use crate::model::procedure::{Procedure, WindowRule};

/// More windows than any scan needs.
const MOST_WINDOWS: f64 = 1e7;
/// More voxels than any grid has that fits into memory with its network.
pub(super) const MOST_VOXELS: usize = 1 << 33;

/// How the sums of weighted logits are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accumulator {
    /// 16 bits, and every fold on its own: rounded where nnU-Net rounds, so labels agree where logits
    /// nearly tie.
    #[default]
    Half,
    /// 16 bits, folds summed together: as small as possible.
    HalfSum,
    /// 32 bits, folds summed together: without nnU-Net's rounding.
    Single,
}

impl Accumulator {
    pub(super) fn is_half(self) -> bool {
        self != Self::Single
    }

    fn bytes(self) -> u64 {
        if self.is_half() { 2 } else { 4 }
    }

    pub(super) fn layers(self, folds: usize) -> usize {
        if self == Self::Half { folds } else { 1 }
    }
}

/// A run that was planned; made by [`plan_stream`], taken by [`super::predict_streamed`].
#[derive(Clone, Debug)]
pub struct StreamPlan {
    /// How sums are kept.
    pub accumulator: Accumulator,
    /// Windows, those counted twice that two parts of the grid need.
    pub windows: usize,
    /// Passes through the network: windows × folds × mirrorings.
    pub network_runs: usize,
    /// Most bytes that the run holds at once: sums, the network's input patch, what mirroring needs, the
    /// labels. The image and what the network itself takes come on top.
    pub bytes: u64,
    pub(super) folds: usize,
    pub(super) sweeps: Vec<Sweep>,
    pub(super) route: Route,
    pub(super) rules: Rules,
    /// Voxels of padding before the image along each axis.
    pub(super) offset: [usize; 3],
    pub(super) patch: [usize; 3],
}

impl StreamPlan {
    /// In how many parts the plane is worked off.
    pub fn parts(&self) -> usize {
        self.sweeps.len()
    }
}

/// From the network's grid back to the reader's.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) network: [usize; 3],
    /// Where the samples of the voxels that get labels come from.
    pub(super) axes: [Axis; 3],
    /// The reader's grid.
    pub(super) reader: [usize; 3],
    /// Place of the first of these voxels on it, and the steps along their axes.
    pub(super) origin: usize,
    pub(super) strides: [isize; 3],
}

/// What a sliding window does, whatever it is called.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) channels: usize,
    pub(super) patch: [usize; 3],
    /// On the padded grid.
    pub(super) starts: [Vec<usize>; 3],
    pub(super) weights: Weights,
    pub(super) padding: Padding,
    /// The mirrored passes, the first as it is.
    pub(super) flips: Vec<[bool; 3]>,
    pub(super) activation: Activation,
    pub(super) decision: Decision,
}

/// What voxels of a window weigh.
#[derive(Clone, Debug)]
pub(super) enum Weights {
    Even,
    Nnunet { patch_size: Vec<usize> },
    Monai { roi: Vec<usize>, sigma_scale: f64 },
}

/// One part of the plane, from the first row of the grid to the last.
#[derive(Clone, Debug)]
pub(super) struct Sweep {
    /// Voxels of the result, on the cropped original grid.
    pub(super) out: [Range<usize>; 3],
    /// The windows that these need.
    pub(super) along: [Windows; 3],
}

/// The windows along one axis that touch a range; positions are on the padded grid.
#[derive(Clone, Debug)]
pub(super) struct Windows {
    pub(super) range: Range<usize>,
    pub(super) starts: Vec<usize>,
    /// Bounds of the pieces between any two neighboring window bounds.
    pub(super) cuts: Vec<usize>,
    patch: usize,
}

impl Windows {
    fn new(all: &[usize], patch: usize, range: Range<usize>) -> Self {
        let starts: Vec<usize> = all
            .iter()
            .copied()
            .filter(|&start| start < range.end && start + patch > range.start)
            .collect();
        let mut cuts = vec![range.start, range.end];
        for &start in &starts {
            cuts.push(start.clamp(range.start, range.end));
            cuts.push((start + patch).clamp(range.start, range.end));
        }
        cuts.sort_unstable();
        cuts.dedup();
        Self {
            range,
            starts,
            cuts,
            patch,
        }
    }

    pub(super) fn pieces(&self) -> usize {
        self.cuts.len() - 1
    }

    pub(super) fn piece(&self, index: usize) -> Range<usize> {
        self.cuts[index]..self.cuts[index + 1]
    }

    /// The part of the range that a window covers.
    pub(super) fn covered(&self, window: usize) -> Range<usize> {
        let start = self.starts[window];
        start.max(self.range.start)..(start + self.patch).min(self.range.end)
    }

    /// The pieces that a window covers.
    pub(super) fn pieces_of(&self, window: usize) -> Range<usize> {
        self.pieces_in(&self.covered(window))
    }

    /// The pieces inside a range that begins and ends at window bounds.
    pub(super) fn pieces_in(&self, range: &Range<usize>) -> Range<usize> {
        self.cuts.partition_point(|&cut| cut < range.start)
            ..self.cuts.partition_point(|&cut| cut < range.end)
    }

    /// What no window after this one touches and windows before did not finish; may be empty.
    pub(super) fn finished_by(&self, window: usize) -> Range<usize> {
        let inside = |at: usize| at.clamp(self.range.start, self.range.end);
        let start = if window == 0 {
            self.range.start
        } else {
            inside(self.starts[window])
        };
        let end = self
            .starts
            .get(window + 1)
            .map_or(self.range.end, |&next| inside(next));
        start..end
    }
}

/// Plans a run that holds at most `limit_bytes` (see [`StreamPlan::bytes`]).
///
/// The plane is split into parts only as far as the limit asks: windows across a border are computed for
/// both sides. The result is the same for every split.
///
/// # Errors
/// [`Error::Memory`] when no split is small enough, [`Error::Unsupported`] for logits that are to be
/// resampled by cubic splines, [`Error::Mismatch`] for rules that contradict each other.
pub fn plan_stream(
    grids: &Grids,
    procedure: &Procedure,
    folds: usize,
    accumulator: Accumulator,
    limit_bytes: u64,
) -> Result<StreamPlan, Error> {
    let patch = procedure.windows.patch()?;
    check_windows(grids.network, patch, procedure.windows.step)?;
    if procedure.windows.mirror_axes.len() > 3 {
        return Err(Error::Mismatch(
            "mirroring along more than three axes".into(),
        ));
    }
    let axes = logit_axes(grids, procedure)?;
    let padded = [0, 1, 2].map(|axis| grids.network[axis].max(patch[axis]));
    let starts = [0, 1, 2].map(|axis| {
        if axis == 0 && procedure.windows.is_2d() {
            (0..padded[0]).collect()
        } else {
            window_starts(padded[axis], patch[axis], procedure.windows.step)
        }
    });
    let backward = procedure.preprocessing.transpose_backward;
    let reader = backward.map(|axis| grids.before_crop[axis]);
    let steps = [reader[1] * reader[2], reader[2], 1];
    let mut strides = [0; 3];
    for (axis, &from) in backward.iter().enumerate() {
        strides[from] = steps[axis] as isize;
    }
    let route = Route {
        network: grids.network,
        axes,
        reader,
        origin: (0..3)
            .map(|axis| grids.crop.start[axis] * strides[axis] as usize)
            .sum(),
        strides,
    };
    let rules = Rules {
        channels: procedure.input_channels,
        patch,
        starts,
        weights: if procedure.windows.gaussian {
            Weights::Nnunet {
                patch_size: procedure.windows.patch_size.clone(),
            }
        } else {
            Weights::Even
        },
        padding: Padding::Constant(0.0),
        flips: flips(&procedure.windows),
        activation: Activation::None,
        decision: Decision::from(&procedure.labels),
    };
    plan(route, rules, folds, accumulator, limit_bytes)
}

/// The axes along which each pass is mirrored, in nnU-Net's order: none, then all combinations by size.
fn flips(rule: &WindowRule) -> Vec<[bool; 3]> {
    let shift = usize::from(rule.is_2d());
    let axes = &rule.mirror_axes;
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

/// Plans the run of any sliding window.
pub(super) fn plan(
    route: Route,
    rules: Rules,
    folds: usize,
    accumulator: Accumulator,
    limit_bytes: u64,
) -> Result<StreamPlan, Error> {
    let heads = check_heads(&rules.decision)?;
    let voxels = rules.patch.iter().map(|&size| size as f64).product::<f64>();
    if voxels > MOST_VOXELS as f64 || route.reader.contains(&0) {
        return Err(Error::Mismatch(format!(
            "a window of {:?} voxels on a grid of {:?}",
            rules.patch, route.reader
        )));
    }
    if folds == 0 {
        return Err(Error::Mismatch("a model without folds".into()));
    }
    let (patch, axes) = (rules.patch, &route.axes);
    let out = [0, 1, 2].map(|axis| axes[axis].to);
    let offset = [0, 1, 2].map(|axis| patch[axis].saturating_sub(route.network[axis]) / 2);
    let part = |out: [Range<usize>; 3]| {
        let along = [0, 1, 2].map(|axis| {
            let (first, last) = (out[axis].start, out[axis].end - 1);
            let from = axes[axis].pair(first).0[0] + offset[axis];
            let to = axes[axis].pair(last).0[1] + offset[axis] + 1;
            Windows::new(&rules.starts[axis], patch[axis], from..to)
        });
        Sweep { out, along }
    };
    let layers = accumulator.layers(folds);
    let mirrored = rules.flips.len() > 1;
    // The labels, the patch (twice, and its sums, where mirrored), and its weights.
    let fixed = volume(route.reader) as u64
        + 4 * (volume(patch) * (rules.channels * (1 + usize::from(mirrored)) + 1)) as u64
        + if mirrored {
            4 * (volume(patch) * heads) as u64
        } else {
            0
        };

    let mut least = u64::MAX;
    let mut best: Option<(usize, u64, Vec<Sweep>)> = None;
    for split_y in splits(out[1]) {
        for split_x in splits(out[2]) {
            let mut sweeps = Vec::new();
            let (mut windows, mut bytes) = (0, 0);
            for y in pieces(out[1], split_y) {
                for x in pieces(out[2], split_x) {
                    let sweep = part([0..out[0], y.clone(), x]);
                    windows += sweep
                        .along
                        .iter()
                        .map(|w| w.starts.len())
                        .product::<usize>();
                    bytes = bytes.max(sweep.bytes(axes, heads, layers, accumulator));
                    sweeps.push(sweep);
                }
            }
            let bytes = bytes + fixed;
            least = least.min(bytes);
            let better = best
                .as_ref()
                .is_none_or(|found| (windows, bytes) < (found.0, found.1));
            if bytes <= limit_bytes && better {
                best = Some((windows, bytes, sweeps));
            }
        }
        // More parts only mean more windows.
        if best.is_some() && split_y > 1 {
            break;
        }
    }
    let Some((windows, bytes, sweeps)) = best else {
        return Err(Error::Memory {
            needed_bytes: least,
            limit_bytes,
        });
    };
    Ok(StreamPlan {
        accumulator,
        windows,
        network_runs: windows * folds * rules.flips.len(),
        bytes,
        folds,
        sweeps,
        offset,
        patch,
        route,
        rules,
    })
}

/// Refuses windows so large or so many that counting them would be trouble: rules come from foreign files.
fn check_windows(network: [usize; 3], patch: [usize; 3], step: f64) -> Result<(), Error> {
    let mut windows = 1.0;
    for axis in 0..3 {
        let room = network[axis].saturating_sub(patch[axis]) as f64;
        windows *= (room / (patch[axis] as f64 * step)).ceil() + 1.0;
    }
    if windows <= MOST_WINDOWS {
        Ok(())
    } else {
        Err(Error::Mismatch(format!(
            "{windows} windows of {patch:?} on {network:?} voxels"
        )))
    }
}

fn check_heads(decision: &Decision) -> Result<usize, Error> {
    match decision.heads() {
        0 => Err(Error::Mismatch("a model without outputs".into())),
        heads @ 1..=256 => Ok(heads),
        heads => Err(Error::Unsupported(format!(
            "{heads} outputs, more than 256"
        ))),
    }
}

/// How logits come back onto the cropped original grid.
fn logit_axes(grids: &Grids, procedure: &Procedure) -> Result<[Axis; 3], Error> {
    let out = grids.crop.size();
    let rule = &procedure.preprocessing.resample_logits;
    rule.check()?;
    if rule.is_seg {
        return Err(Error::Unsupported("logits resampled as labels".into()));
    }
    let alone = rule.separate_axis(grids.spacing, grids.original_spacing);
    let axes = [0, 1, 2].map(|axis| {
        let order = if alone == Some(axis) {
            rule.order_z
        } else {
            rule.order
        };
        Axis::new(grids.network[axis], out[axis], order)
    });
    if axes.iter().any(Axis::is_cubic) {
        return Err(Error::Unsupported(
            "resampling logits by cubic splines".into(),
        ));
    }
    Ok(axes)
}

fn splits(size: usize) -> impl Iterator<Item = usize> {
    (1..=16).filter(move |&parts| parts <= size)
}

fn pieces(size: usize, parts: usize) -> impl Iterator<Item = Range<usize>> {
    (0..parts).map(move |part| part * size / parts..(part + 1) * size / parts)
}

/// Whether neighboring samples are mixed along an axis, so that the last one before a border is kept.
pub(super) fn mixes(axis: &Axis) -> bool {
    (0..axis.to).any(|index| axis.pair(index).1[1] != 0.0)
}

impl Sweep {
    /// Most bytes of sums, kept borders and intermediate rows at once, by going through the motions.
    fn bytes(
        &self,
        axes: &[Axis; 3],
        heads: usize,
        layers: usize,
        accumulator: Accumulator,
    ) -> u64 {
        let [z, y, x] = &self.along;
        let width = x.range.len() as u64;
        let voxel = accumulator.bytes() * (heads * layers + 1) as u64;
        let mut held = vec![false; z.pieces() * y.pieces()];
        let (mut now, mut most) = (0_u64, 0_u64);
        for k in 0..z.starts.len() {
            for j in 0..y.starts.len() {
                for iz in z.pieces_of(k) {
                    for iy in y.pieces_of(j) {
                        let held = &mut held[iz * y.pieces() + iy];
                        if !*held {
                            *held = true;
                            now += (z.piece(iz).len() * y.piece(iy).len()) as u64 * width * voxel;
                        }
                    }
                }
                most = most.max(now);
                let (rows, lines) = (z.finished_by(k), y.finished_by(j));
                for iz in z.pieces_in(&rows) {
                    for iy in y.pieces_in(&lines) {
                        let held = &mut held[iz * y.pieces() + iy];
                        if *held {
                            *held = false;
                            now -= (z.piece(iz).len() * y.piece(iy).len()) as u64 * width * voxel;
                        }
                    }
                }
            }
        }
        let rows = (0..z.starts.len()).map(|k| z.finished_by(k).len()).max();
        let lines = (0..y.starts.len()).map(|j| y.finished_by(j).len()).max();
        let (rows, lines) = (rows.unwrap_or(0) as u64, lines.unwrap_or(0) as u64);
        let logit = accumulator.bytes() * heads as u64 * width;
        let mut borders = 0;
        if mixes(&axes[0]) {
            borders += logit * y.range.len() as u64;
        }
        if mixes(&axes[1]) {
            borders += logit * (rows + 1);
        }
        // Labels of the piece being reduced, and the rows that each thread works on.
        let scale = |axis: usize| {
            self.out[axis].len() as u64 * 2 / self.along[axis].range.len().max(1) as u64 + 2
        };
        let reduced = rows * scale(0) * lines * scale(1) * self.out[2].len() as u64;
        let threads = rayon::current_num_threads() as u64;
        let rows_at_work = threads * ((lines + 2) * width * 4 + 16 * 5 * self.out[2].len() as u64);
        most + borders + reduced + rows_at_work
    }
}
