//! Direct convolution: bands of output rows, each from a padded copy of its input that fits the cache.
//!
//! The copy ([`Band::pack`]) holds the zeros of the padding, so that the inner loop never asks where
//! the edge is; it also is where a norm is applied to the input. Convolutions of one tap without
//! padding read the input as it is.
#![expect(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the caller's instruction set"
)]
#![expect(
    unsafe_code,
    reason = "raw pointers in the inner loop; bounds are proven before it"
)]

use rayon::prelude::*;

use super::blocked::BLOCK;
use super::conv::{ConvShape, Epilogue, Prologue, groups_of};
use super::conv3d::Stopped;
use super::finish::{Finish, Shared, activate_input};
use super::scratch::Pool;
use super::simd::{Instructions, Job, Lanes, dispatch};
use super::slices::{Inputs, Outputs, Unit};
use super::tile::{Row, row};

/// Inputs with up to so many channels are read channel by channel: a block would be mostly zeros.
const FEW: usize = 4;
/// Bytes of weights that stay in the second-level cache while a band goes by.
const WEIGHT_BYTES: usize = 64 << 10;
/// Bytes of the copy of a band's input.
const INPUT_BYTES: usize = 160 << 10;
/// Fewest pieces of work; fewer bands than that are split by output channels.
const PIECES: usize = 32;
/// The same where the grid is one row.
const ROW_PIECES: usize = 12;

/// Packed weights.
#[derive(Clone, Debug)]
pub(super) struct Direct {
    shape: ConvShape,
    /// Channels of an input block: 8, or 1 for [`FEW`].
    lanes: usize,
    groups: Vec<Group>,
    /// Empty in an outline.
    weights: Vec<f32>,
    floats: usize,
    bias: Vec<f32>,
}

/// One to three output blocks and the input blocks that they see.
#[derive(Clone, Debug)]
struct Group {
    first: usize,
    blocks: usize,
    input: std::ops::Range<usize>,
    weights: usize,
}

impl Direct {
    /// Without weights, an outline that knows its sizes and cannot run.
    pub(super) fn new(shape: ConvShape, weights: Option<&[f32]>, bias: &[f32]) -> Self {
        let lanes = if shape.input <= FEW { 1 } else { BLOCK };
        let (taps, per_group) = (shape.taps(), shape.input / shape.groups);
        let mut groups = Vec::new();
        let mut packed = Vec::new();
        let mut floats = 0;
        for (first, blocks) in groups_of(shape.output) {
            let width = blocks * BLOCK;
            // Input channels that any output channel of the group sees.
            let seen = |co: usize| co / (shape.output / shape.groups) * per_group;
            let last = (first + width).min(shape.output) - 1;
            let input = seen(first) / lanes..(seen(last) + per_group).div_ceil(lanes);
            groups.push(Group {
                first,
                blocks,
                input: input.clone(),
                weights: floats,
            });
            floats += input.len() * taps * lanes * width;
            let Some(weights) = weights else { continue };
            for block in input {
                for tap in 0..taps {
                    for ci in block * lanes..(block + 1) * lanes {
                        for co in first..first + width {
                            let inside =
                                co < shape.output && (seen(co)..seen(co) + per_group).contains(&ci);
                            packed.push(if inside {
                                weights[(co * per_group + ci - seen(co)) * taps + tap]
                            } else {
                                0.0
                            });
                        }
                    }
                }
            }
        }
        let mut bias = bias.to_vec();
        bias.resize(shape.output.next_multiple_of(BLOCK), 0.0);
        Self {
            shape,
            lanes,
            groups,
            weights: packed,
            floats,
            bias,
        }
    }

    pub(super) fn weight_floats(&self) -> usize {
        self.floats + self.bias.len()
    }

    /// `starts`: the slices of a run, when it is not over the whole grid.
    pub(super) fn scratch_bytes(
        &self,
        dims: [usize; 3],
        starts: Option<&[usize]>,
        threads: usize,
    ) -> usize {
        let Some(out) = self.shape.output_dims(dims) else {
            return 0;
        };
        let plan = Plan::new(self, dims, out, starts, false, true);
        let moments = plan.pieces() * self.bias.len() / plan.parts * size_of::<[f64; 2]>();
        threads * plan.copy_floats() * 4 + moments
    }

    /// Slice by slice, those that share inputs one after another.
    pub(super) fn units(&self, in_slices: usize, out_slices: usize) -> Vec<Unit> {
        let shape = &self.shape;
        let dilation = if shape.kernel[0] == 1 {
            1
        } else {
            shape.dilation[0]
        };
        let lattices = (0..dilation).flat_map(|first| (first..out_slices).step_by(dilation));
        lattices
            .map(|z| {
                let taps = (0..shape.kernel[0]).map(|k| z * shape.stride[0] + k * dilation);
                let inputs = taps.filter_map(|z| z.checked_sub(shape.padding[0][0]));
                Unit {
                    outputs: vec![z],
                    inputs: inputs.filter(|z| *z < in_slices).collect(),
                }
            })
            .collect()
    }

    pub(super) fn run(
        &self,
        input: Inputs<'_>,
        prologue: Option<Prologue<'_>>,
        output: Outputs<'_>,
        epilogue: &Epilogue<'_>,
        instructions: Instructions,
        row_done: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vec<[f64; 2]>, Stopped> {
        let as_it_is = self.reads_as_it_is(&input, prologue.as_ref());
        let (mut input, mut output) = (input, output);
        if self.reads_any_grid() {
            let whole = output.starts().is_none();
            (input, output) = (input.in_rows(whole), output.in_rows(whole));
        }
        let out_dims = output.dims();
        let plane = out_dims[1] * out_dims[2] * BLOCK;
        let starts = output.starts();
        let plan = Plan::new(self, input.dims(), out_dims, starts, as_it_is, true);
        let pool = Pool::new(plan.copy_floats());
        let finish = Finish::new(epilogue, self.shape.output, output.voxels());
        let pieces: Result<Vec<_>, Stopped> = (0..plan.pieces())
            .into_par_iter()
            .map(|n| {
                let band = Band {
                    direct: self,
                    plan: &plan,
                    input: &input,
                    prologue,
                    piece: plan.piece(n),
                };
                let mut copy = pool.take();
                let Piece { z, y, x, .. } = band.piece;
                let sums = dispatch(
                    instructions,
                    Run {
                        band,
                        copy: &mut copy,
                        to: Target {
                            data: output.plane(0, z),
                            block: output.block_floats(),
                            line: out_dims[2] * BLOCK,
                            start: (y * out_dims[2] + x) * BLOCK,
                            plane: z * plane,
                        },
                        finish: Some(&finish),
                    },
                );
                pool.give(copy);
                if row_done() { Ok(sums) } else { Err(Stopped) }
            })
            .collect();
        let pieces = pieces?;
        let mut sums = vec![[0.0; 2]; self.shape.output];
        if epilogue.moments {
            for (n, piece) in pieces.iter().enumerate() {
                let first = self.groups[plan.piece(n).groups.start].first;
                for (sum, part) in sums[first..].iter_mut().zip(piece) {
                    sum[0] += part[0];
                    sum[1] += part[1];
                }
            }
        }
        Ok(sums)
    }

    /// Of the slices in `starts`, or of all.
    pub(super) fn run_argmax(
        &self,
        input: Inputs<'_>,
        prologue: Option<Prologue<'_>>,
        (labels, starts): (&mut [u8], Option<&[usize]>),
        instructions: Instructions,
        row_done: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), Stopped> {
        let as_it_is = self.reads_as_it_is(&input, prologue.as_ref());
        let mut out_dims = self.shape.output_dims(input.dims()).expect("checked");
        let mut input = input;
        if as_it_is && self.shape.stride == [1; 3] {
            input = input.in_rows(starts.is_none());
            out_dims = input.dims();
        }
        let plan = Plan::new(self, input.dims(), out_dims, starts, as_it_is, false);
        let pool = Pool::new(plan.copy_floats() + plan.ty * plan.tx * self.bias.len());
        let labels = Shared::of(labels);
        (0..plan.pieces()).into_par_iter().try_for_each(|n| {
            let band = Band {
                direct: self,
                plan: &plan,
                input: &input,
                prologue,
                piece: plan.piece(n),
            };
            let piece = band.piece.clone();
            let mut scratch = pool.take();
            let (copy, sums) = scratch.split_at_mut(plan.copy_floats());
            let block = piece.rows * piece.columns * BLOCK;
            let _ = dispatch(
                instructions,
                Run {
                    band,
                    copy,
                    to: Target {
                        data: sums.as_mut_ptr(),
                        block,
                        line: piece.columns * BLOCK,
                        start: 0,
                        plane: 0,
                    },
                    finish: None,
                },
            );
            for row in 0..piece.rows {
                let y = piece.y + row * plan.y_step;
                let at = (piece.z * out_dims[1] + y) * out_dims[2] + piece.x;
                // SAFETY: pieces cover the grid without overlap.
                let labels = unsafe { labels.slice(at, piece.columns) };
                for (x, label) in labels.iter_mut().enumerate() {
                    let from = (row * piece.columns + x) * BLOCK;
                    *label = largest(&sums[from..], block, self.shape.output);
                }
            }
            pool.give(scratch);
            if row_done() { Ok(()) } else { Err(Stopped) }
        })
    }

    /// One tap at every point: the grid's shape does not matter.
    pub(super) fn reads_any_grid(&self) -> bool {
        let shape = &self.shape;
        shape.taps() == 1
            && shape.padding == [[0; 2]; 3]
            && shape.stride == [1; 3]
            && self.lanes == BLOCK
    }

    fn reads_as_it_is(&self, input: &Inputs<'_>, prologue: Option<&Prologue<'_>>) -> bool {
        self.shape.taps() == 1
            && self.shape.padding == [[0; 2]; 3]
            && prologue.is_none()
            && input.lanes() == self.lanes
    }
}

/// The channel with the largest value, the first of equals.
fn largest(values: &[f32], block: usize, channels: usize) -> u8 {
    let (mut best, mut label) = (f32::NEG_INFINITY, 0);
    for c in 0..channels {
        let value = values[c / BLOCK * block + c % BLOCK];
        if value > best {
            (best, label) = (value, c as u8);
        }
    }
    label
}

/// How the work is cut; by the shapes alone, so that sums do not depend on the threads.
struct Plan {
    in_dims: [usize; 3],
    out_dims: [usize; 3],
    as_it_is: bool,
    /// Slices of the output.
    zs: Vec<usize>,
    /// Input blocks at a time.
    chunk: usize,
    /// Most columns and rows of a piece.
    tx: usize,
    ty: usize,
    x_pieces: usize,
    /// `(first row, rows)`, rows `y_step` apart.
    bands: Vec<(usize, usize)>,
    y_step: usize,
    /// Rows of the copy from one output row to the next.
    row_step: usize,
    /// Rows of the copy, for the most rows of a band.
    copy_rows: usize,
    /// Columns of the copy.
    copy_columns: usize,
    lanes: usize,
    kz: usize,
    group_count: usize,
    parts: usize,
}

/// A piece of the output.
#[derive(Clone, Debug)]
struct Piece {
    z: usize,
    y: usize,
    x: usize,
    rows: usize,
    columns: usize,
    groups: std::ops::Range<usize>,
}

impl Plan {
    fn new(
        direct: &Direct,
        in_dims: [usize; 3],
        out_dims: [usize; 3],
        starts: Option<&[usize]>,
        as_it_is: bool,
        split: bool,
    ) -> Self {
        let shape = &direct.shape;
        let [kz, ky, kx] = shape.kernel;
        let lanes = direct.lanes;
        let blocks = shape.input.div_ceil(lanes);
        let chunk = (WEIGHT_BYTES / (shape.taps() * lanes * 2 * BLOCK * 4)).clamp(1, blocks);
        // Chunks of nearly equal size.
        let chunk = blocks.div_ceil(blocks.div_ceil(chunk));
        let [_, ny, nx] = out_dims;
        let (sx, dx) = (shape.stride[2], shape.dilation[2]);
        let columns = |tx: usize| (tx - 1) * sx + (kx - 1) * dx + 1;
        let most = (INPUT_BYTES / 4) / (chunk * lanes * kz * ky);
        let mut most_x = (most.saturating_sub((kx - 1) * dx) / sx).clamp(24, 1024);
        if direct.reads_any_grid() && !as_it_is {
            // Pieces that are packed once for all output channels, and enough of them.
            most_x = most_x
                .min(nx.div_ceil(ROW_PIECES))
                .next_multiple_of(6)
                .max(24);
        }
        let x_pieces = nx.div_ceil(most_x).max(1);
        let tx = nx.div_ceil(x_pieces).max(1);
        // Taps of dilated rows fall on their own sub-lattice.
        let dy = shape.dilation[1];
        let apart = dy > 1 && ky > 1;
        let (y_step, row_step) = if apart { (dy, 1) } else { (1, shape.stride[1]) };
        let rows = |ty: usize| (ty - 1) * row_step + ky;
        let fits = |ty: usize| rows(ty) * kz * columns(tx) * chunk * lanes * 4 <= INPUT_BYTES;
        let single = apart && shape.stride[1] > 1;
        let mut ty = 1;
        while !single && ty < ny && ty < 64 && fits(ty + 1) {
            ty += 1;
        }
        let mut bands = Vec::new();
        for residue in 0..y_step.min(ny) {
            let class = (ny - residue).div_ceil(y_step);
            let count = class.div_ceil(ty);
            let height = class.div_ceil(count.max(1)).max(1);
            let mut first = 0;
            while first < class {
                let rows = height.min(class - first);
                bands.push((residue + first * y_step, rows));
                first += rows;
            }
        }
        let zs = starts.map_or_else(|| (0..out_dims[0]).collect(), <[usize]>::to_vec);
        let whole = zs.len() * bands.len() * x_pieces;
        let group_count = direct.groups.len();
        let wanted = if direct.reads_any_grid() && !as_it_is {
            ROW_PIECES / 2
        } else {
            PIECES
        };
        let parts = if split && whole > 0 {
            wanted.div_ceil(whole).min(group_count)
        } else {
            1
        };
        Self {
            in_dims,
            out_dims,
            as_it_is,
            zs,
            chunk,
            tx,
            ty,
            x_pieces,
            bands,
            y_step,
            row_step,
            copy_rows: rows(ty),
            copy_columns: columns(tx),
            lanes,
            kz,
            group_count,
            parts,
        }
    }

    fn copy_floats(&self) -> usize {
        if self.as_it_is {
            0
        } else {
            self.chunk * self.kz * self.copy_rows * self.copy_columns * self.lanes
        }
    }

    fn pieces(&self) -> usize {
        self.zs.len() * self.bands.len() * self.x_pieces * self.parts
    }

    fn piece(&self, n: usize) -> Piece {
        let (n, part) = (n / self.parts, n % self.parts);
        let (n, x) = (n / self.x_pieces, n % self.x_pieces);
        let (z, band) = (n / self.bands.len(), n % self.bands.len());
        let (y, rows) = self.bands[band];
        let x = x * self.tx;
        Piece {
            z: self.zs[z],
            y,
            x,
            rows,
            columns: self.tx.min(self.out_dims[2].saturating_sub(x)),
            groups: part * self.group_count / self.parts
                ..(part + 1) * self.group_count / self.parts,
        }
    }
}

/// A piece and what it is made from.
#[derive(Clone)]
struct Band<'a> {
    direct: &'a Direct,
    plan: &'a Plan,
    input: &'a Inputs<'a>,
    prologue: Option<Prologue<'a>>,
    piece: Piece,
}

/// Where the sums go.
#[derive(Clone, Copy)]
struct Target {
    /// The slice, in the first block.
    data: *mut f32,
    block: usize,
    line: usize,
    /// The piece's first point in the slice.
    start: usize,
    /// Where the slice begins in a block of the whole grid.
    plane: usize,
}

struct Run<'a> {
    band: Band<'a>,
    copy: &'a mut [f32],
    to: Target,
    finish: Option<&'a Finish<'a>>,
}

impl Job for Run<'_> {
    /// Moments per channel of the piece's groups.
    type Out = Vec<[f64; 2]>;

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) -> Self::Out {
        let Run {
            band,
            copy,
            to,
            finish,
        } = self;
        let (direct, plan, piece) = (band.direct, band.plan, &band.piece);
        let shape = &direct.shape;
        let [_, ky, kx] = shape.kernel;
        let lanes = direct.lanes;
        let taps = shape.taps();
        let blocks = shape.input.div_ceil(lanes);
        let y_to = |row: usize| to.start + row * plan.y_step * to.line;
        let line_to = |row: usize| {
            if finish.is_some() {
                y_to(row)
            } else {
                row * to.line
            }
        };
        // Strides of what is read: the input itself, or the copy.
        let [_, iy, ix] = plan.in_dims;
        let (block, plane, line) = if plan.as_it_is {
            (band.input.block_floats(), iy * ix * lanes, ix * lanes)
        } else {
            let line = plan.copy_columns * lanes;
            let plane = plan.copy_rows * line;
            (plan.kz * plane, plane, line)
        };
        let mut offsets = Vec::with_capacity(plan.chunk * taps);
        for b in 0..plan.chunk {
            for z in 0..plan.kz {
                for y in 0..ky {
                    for x in 0..kx {
                        offsets
                            .push(b * block + z * plane + y * line + x * shape.dilation[2] * lanes);
                    }
                }
            }
        }
        let mut first = 0;
        while first < blocks {
            let end = (first + plan.chunk).min(blocks);
            let source = if plan.as_it_is {
                let at = piece.y * shape.stride[1] * ix + piece.x * shape.stride[2];
                let plane = band.input.plane(first, piece.z * shape.stride[0]);
                plane.as_ptr().wrapping_add(at * lanes)
            } else {
                band.pack(first..end, copy);
                copy.as_ptr()
            };
            for group in &direct.groups[piece.groups.clone()] {
                let (from, until) = (group.input.start.max(first), group.input.end.min(end));
                if from >= until {
                    continue;
                }
                let run = lanes * group.blocks * BLOCK;
                let weights = direct.weights[group.weights..]
                    .as_ptr()
                    .wrapping_add((from - group.input.start) * taps * run);
                let bias = if from == group.input.start {
                    direct.bias[group.first..].as_ptr()
                } else {
                    std::ptr::null()
                };
                for r in 0..piece.rows {
                    let tiles = Row {
                        input: source.wrapping_add(r * plan.row_step * line),
                        step: shape.stride[2] * lanes,
                        offsets: &offsets[(from - first) * taps..(until - first) * taps],
                        weights,
                        output: to
                            .data
                            .wrapping_add(group.first / BLOCK * to.block + line_to(r)),
                        output_block: to.block,
                        bias,
                        count: piece.columns,
                    };
                    // SAFETY: the copy holds every input of its piece, or the one tap lies in the
                    // input; output rows belong to this piece alone.
                    unsafe {
                        if lanes == 1 {
                            row::<V, 1>(group.blocks, tiles);
                        } else {
                            row::<V, BLOCK>(group.blocks, tiles);
                        }
                    }
                }
            }
            first = end;
        }
        let mut sums = Vec::new();
        if let Some(finish) = finish {
            for group in &direct.groups[piece.groups.clone()] {
                for b in 0..group.blocks {
                    let block = group.first / BLOCK + b;
                    let mut moments = [[0.0; 2]; BLOCK];
                    for r in 0..piece.rows {
                        // SAFETY: rows of this piece alone.
                        unsafe {
                            let row = to.data.wrapping_add(block * to.block + y_to(r));
                            let at = to.plane + y_to(r);
                            finish.row(block, at, piece.columns, row, &mut moments);
                        }
                    }
                    if finish.moments {
                        sums.extend_from_slice(&moments);
                    }
                }
            }
        }
        sums
    }
}

impl Band<'_> {
    /// Copies the piece's input of some channel blocks, with zeros where the padding is.
    #[inline(always)]
    fn pack(&self, blocks: std::ops::Range<usize>, copy: &mut [f32]) {
        let (plan, shape, piece) = (self.plan, &self.direct.shape, &self.piece);
        let lanes = plan.lanes;
        let [nz, ny, nx] = plan.in_dims;
        let line = plan.copy_columns * lanes;
        let before = |axis: usize| shape.padding[axis][0];
        let (left, columns) = (piece.x * shape.stride[2], plan.copy_columns);
        // Columns of the copy that lie in the input.
        let from = before(2).saturating_sub(left).min(columns);
        let to = (nx + before(2)).saturating_sub(left).clamp(from, columns);
        let rows = (piece.rows - 1) * plan.row_step + shape.kernel[1];
        for (n, block) in blocks.enumerate() {
            for kz in 0..plan.kz {
                let z = (piece.z * shape.stride[0] + kz * shape.dilation[0])
                    .checked_sub(before(0))
                    .filter(|z| *z < nz);
                for r in 0..rows {
                    let y_step = if shape.kernel[1] > 1 {
                        shape.dilation[1]
                    } else {
                        1
                    };
                    let y = (piece.y * shape.stride[1] + r * y_step)
                        .checked_sub(before(1))
                        .filter(|y| *y < ny);
                    let at = ((n * plan.kz + kz) * plan.copy_rows + r) * line;
                    let row = &mut copy[at..at + line];
                    let (Some(z), Some(y)) = (z, y) else {
                        row.fill(0.0);
                        continue;
                    };
                    if from == to {
                        row.fill(0.0);
                        continue;
                    }
                    let point = y * nx + left + from - before(2);
                    row[..from * lanes].fill(0.0);
                    row[to * lanes..].fill(0.0);
                    let row = &mut row[from * lanes..to * lanes];
                    self.copy_row(block, z, point, row);
                    if let Some(prologue) = &self.prologue {
                        activate_input(prologue, block * lanes, lanes, row);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn copy_row(&self, block: usize, z: usize, point: usize, row: &mut [f32]) {
        let lanes = self.plan.lanes;
        if self.input.lanes() == lanes {
            let plane = self.input.plane(block, z);
            row.copy_from_slice(&plane[point * lanes..][..row.len()]);
        } else {
            let width = row.len() / lanes;
            for lane in 0..lanes {
                let c = block * lanes + lane;
                let to = row[lane..].iter_mut().step_by(lanes);
                if c >= self.direct.shape.input {
                    to.for_each(|x| *x = 0.0);
                    continue;
                }
                let step = self.input.lanes();
                let plane = self.input.plane(c / step, z);
                let from = plane[point * step + c % step..].iter().step_by(step);
                for (to, from) in to.zip(from).take(width) {
                    *to = *from;
                }
            }
        }
    }
}
