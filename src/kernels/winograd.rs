//! Winograd's minimal filtering for kernels of three taps per axis, stride 1, any dilation.
//!
//! Tiles of 2×2×2 outputs (1×2×2 in 2-D) go in batches: their 4×4×4 inputs are transformed, each of
//! the 64 points becomes a small matrix product over channels, and the products are transformed
//! back. A batch's points stay in the cache. A dilated convolution is the plain one on its
//! sub-lattices, so a tile's points lie `dilation` apart.
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
use super::finish::{Finish, activate_input};
use super::minimal;
use super::scratch::Pool;
use super::simd::{Instructions, Job, Lanes, dispatch};
use super::slices::{Inputs, Outputs, Unit};
use super::tile::{Row, row};

/// Fewest pieces of work; fewer batches than that are split by output channels.
const PIECES: usize = 8;
/// Rows of tiles that go together, so that rows of inputs are met again in the cache.
const ROWS: usize = 16;
/// Points of a tile in 3-D.
const POINTS: usize = 64;

/// Transformed weights, `[point][group][ci][co of the group]`.
#[derive(Clone, Debug)]
pub(super) struct Winograd {
    shape: ConvShape,
    /// Outputs of a tile per axis.
    outputs: [usize; 3],
    groups: Vec<(usize, usize)>,
    /// Empty in an outline.
    weights: Vec<f32>,
    floats: usize,
    bias: Vec<f32>,
}

impl Winograd {
    /// Whether the method knows the shape.
    pub(super) fn fits(shape: &ConvShape) -> bool {
        shape.groups == 1 && shape.stride == [1; 3] && matches!(shape.kernel, [1 | 3, 3, 3])
    }

    /// Whether it is expected to be faster than the direct method.
    pub(super) fn pays(shape: &ConvShape) -> bool {
        Self::fits(shape) && shape.input >= 16 && shape.output >= 8
    }

    /// Without weights, an outline that knows its sizes and cannot run.
    pub(super) fn new(shape: ConvShape, weights: Option<&[f32]>, bias: &[f32]) -> Self {
        let outputs = shape.kernel.map(|k| if k == 3 { 2 } else { 1 });
        let groups = groups_of(shape.output);
        let [az, ay, ax] = outputs.map(minimal::inputs_of);
        let points = az * ay * ax;
        let (ci, co) = (
            shape.input.next_multiple_of(BLOCK),
            shape.output.next_multiple_of(BLOCK),
        );
        let floats = points * ci * co;
        let mut packed = vec![0.0; weights.map_or(0, |_| floats)];
        for (&(first, blocks), weights) in groups
            .iter()
            .zip(std::iter::repeat_n(weights, groups.len()).flatten())
        {
            let width = blocks * BLOCK;
            // Output channels of a group stand side by side: they are written together.
            for i in 0..shape.input {
                for o in first..(first + width).min(shape.output) {
                    let taps = shape.taps();
                    let g = &weights[(o * shape.input + i) * taps..][..taps];
                    let transformed = filter(g, shape.kernel);
                    for (p, value) in transformed[..points].iter().enumerate() {
                        let at = p * ci * co + ci * first + i * width + o - first;
                        packed[at] = *value as f32;
                    }
                }
            }
        }
        let mut bias = bias.to_vec();
        bias.resize(co, 0.0);
        Self {
            shape,
            outputs,
            groups,
            weights: packed,
            floats,
            bias,
        }
    }

    pub(super) fn weight_floats(&self) -> usize {
        self.floats + self.bias.len()
    }

    /// `starts`: the units of a run, when it is not over the whole grid.
    pub(super) fn scratch_bytes(
        &self,
        dims: [usize; 3],
        starts: Option<&[usize]>,
        threads: usize,
    ) -> usize {
        let Some(out) = self.shape.output_dims(dims) else {
            return 0;
        };
        let plan = Plan::new(self, dims, out, starts);
        let moments = plan.batches * self.bias.len() * size_of::<[f64; 2]>();
        threads * plan.floats() * 4 + moments + plan.rows.len() * 16
    }

    /// The tiles along z.
    pub(super) fn units(&self, in_slices: usize, out_slices: usize) -> Vec<Unit> {
        let (outputs, step) = (self.outputs[0], self.step(0));
        let starts = lattices(out_slices, step, outputs).into_iter().flatten();
        starts
            .map(|start| {
                let of = |n: usize| (0..n).map(|k| start + k * step);
                let before = self.shape.padding[0][0];
                let inputs = of(minimal::inputs_of(outputs)).filter_map(|z| z.checked_sub(before));
                Unit {
                    outputs: of(outputs).filter(|z| *z < out_slices).collect(),
                    inputs: inputs.filter(|z| *z < in_slices).collect(),
                }
            })
            .collect()
    }

    /// Distance of a tile's points along an axis.
    #[inline(always)]
    fn step(&self, axis: usize) -> usize {
        if self.shape.kernel[axis] == 1 {
            1
        } else {
            self.shape.dilation[axis]
        }
    }

    pub(super) fn run(
        &self,
        input: &Inputs<'_>,
        prologue: Option<Prologue<'_>>,
        output: &Outputs<'_>,
        epilogue: &Epilogue<'_>,
        instructions: Instructions,
        row_done: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vec<[f64; 2]>, Stopped> {
        let plan = Plan::new(self, input.dims(), output.dims(), output.starts());
        let finish = Finish::new(epilogue, self.shape.output, output.voxels());
        let pool = Pool::new(plan.floats());
        let pieces: Result<Vec<_>, Stopped> = (0..plan.batches * plan.parts)
            .into_par_iter()
            .map(|n| {
                let mut scratch = pool.take();
                let sums = dispatch(
                    instructions,
                    Run {
                        winograd: self,
                        plan: &plan,
                        input,
                        prologue,
                        batch: n / plan.parts,
                        groups: plan.part(n % plan.parts, self.groups.len()),
                        scratch: &mut scratch,
                        output,
                        finish: &finish,
                    },
                );
                pool.give(scratch);
                if row_done() { Ok(sums) } else { Err(Stopped) }
            })
            .collect();
        let pieces = pieces?;
        let mut sums = vec![[0.0; 2]; self.shape.output];
        if epilogue.moments {
            for (n, piece) in pieces.iter().enumerate() {
                let first = plan.part(n % plan.parts, self.groups.len()).start;
                for (sum, part) in sums[self.groups[first].0..].iter_mut().zip(piece) {
                    sum[0] += part[0];
                    sum[1] += part[1];
                }
            }
        }
        Ok(sums)
    }
}

/// Most points of a filter: four along each axis.
const MOST_POINTS: usize = 64;

/// A filter's points, `[z][y][x]`; those that the kernel does not have are zero.
fn filter(g: &[f32], kernel: [usize; 3]) -> [f64; MOST_POINTS] {
    let mut values = [0.0; MOST_POINTS];
    for (value, g) in values.iter_mut().zip(g) {
        *value = f64::from(*g);
    }
    let mut shape = kernel;
    for axis in (0..3).filter(|axis| kernel[*axis] == 3) {
        let inner: usize = shape[axis + 1..].iter().product();
        let outer: usize = shape[..axis].iter().product();
        let mut next = [0.0; MOST_POINTS];
        for o in 0..outer {
            for i in 0..inner {
                let line = [0, 1, 2].map(|k| values[(o * 3 + k) * inner + i]);
                for (k, value) in minimal::filter(line).into_iter().enumerate() {
                    next[(o * 4 + k) * inner + i] = value;
                }
            }
        }
        shape[axis] = 4;
        values = next;
    }
    values
}

/// How the work is cut; by the shapes alone.
struct Plan {
    in_dims: [usize; 3],
    out_dims: [usize; 3],
    points: usize,
    /// First outputs of tiles: of rows (z, y) in the order of the work, and along x.
    rows: Vec<[usize; 2]>,
    columns: Vec<usize>,
    /// Where, in `columns`, the sub-lattice of each ends.
    ends: Vec<usize>,
    tiles: usize,
    /// Tiles of a batch, a multiple of 12.
    batch: usize,
    batches: usize,
    parts: usize,
    input_blocks: usize,
    /// Floats from one point to the next, of inputs and of products.
    input_point: usize,
    output_point: usize,
    /// Lines (z, y) of a row of tiles, and floats from one to the next.
    lines: usize,
    line: usize,
}

/// First outputs of tiles along an axis, by sub-lattice.
fn lattices(n: usize, dilation: usize, outputs: usize) -> Vec<Vec<usize>> {
    (0..dilation.min(n))
        .map(|residue| {
            let class = (n - residue).div_ceil(dilation);
            (0..class.div_ceil(outputs))
                .map(|t| residue + t * outputs * dilation)
                .collect()
        })
        .collect()
}

impl Plan {
    fn new(
        winograd: &Winograd,
        in_dims: [usize; 3],
        out_dims: [usize; 3],
        starts: Option<&[usize]>,
    ) -> Self {
        let shape = &winograd.shape;
        let axis = |n: usize| lattices(out_dims[n], winograd.step(n), winograd.outputs[n]);
        let (mut columns, mut ends) = (Vec::new(), Vec::new());
        for xs in axis(2) {
            columns.extend_from_slice(&xs);
            ends.resize(columns.len(), columns.len());
        }
        let mut rows = Vec::new();
        let by_y = axis(1);
        for zs in starts.map_or_else(|| axis(0), |starts| vec![starts.to_vec()]) {
            for ys in &by_y {
                for band in ys.chunks(ROWS) {
                    for z in &zs {
                        rows.extend(band.iter().map(|y| [*z, *y]));
                    }
                }
            }
        }
        let points: usize = winograd.outputs.map(minimal::inputs_of).iter().product();
        let lines = points / minimal::inputs_of(winograd.outputs[2]);
        let tiles = rows.len() * columns.len();
        let input_blocks = shape.input.div_ceil(BLOCK);
        // Many weights are worth larger batches, for they pass by once per batch.
        let most = if winograd.weights.len() * 4 > 1 << 20 {
            48
        } else {
            24 * POINTS / points
        };
        let batches = tiles.div_ceil(most);
        let batch = tiles.div_ceil(batches.max(1)).next_multiple_of(12);
        let batches = tiles.div_ceil(batch.max(1));
        let parts = if batches == 0 {
            1
        } else {
            PIECES.div_ceil(batches).min(winograd.groups.len())
        };
        let widest = winograd.groups.iter().map(|g| g.1).max().unwrap_or(1);
        // An odd number of cache lines, or the points of a tile would fall on few cache sets.
        let odd = |floats: usize| (floats.div_ceil(16) | 1) * 16;
        Self {
            in_dims,
            out_dims,
            points,
            rows,
            columns,
            ends,
            tiles,
            batch,
            batches,
            parts,
            input_blocks,
            input_point: odd(input_blocks * batch * BLOCK),
            output_point: odd(widest * batch * BLOCK),
            lines,
            line: odd((2 * batch + 2) * BLOCK),
        }
    }

    fn floats(&self) -> usize {
        self.points * (self.input_point + self.output_point) + 2 * self.lines * self.line
    }

    fn part(&self, n: usize, groups: usize) -> std::ops::Range<usize> {
        n * groups / self.parts..(n + 1) * groups / self.parts
    }
}

struct Run<'a> {
    winograd: &'a Winograd,
    plan: &'a Plan,
    input: &'a Inputs<'a>,
    prologue: Option<Prologue<'a>>,
    batch: usize,
    groups: std::ops::Range<usize>,
    scratch: &'a mut [f32],
    output: &'a Outputs<'a>,
    finish: &'a Finish<'a>,
}

impl Job for Run<'_> {
    type Out = Vec<[f64; 2]>;

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) -> Self::Out {
        // SAFETY: passed on.
        unsafe {
            if self.winograd.outputs[0] == 2 {
                self.batch_of::<V, 4, 4, 4>()
            } else {
                self.batch_of::<V, 1, 4, 4>()
            }
        }
    }
}

impl Run<'_> {
    #[inline(always)]
    unsafe fn batch_of<V: Lanes, const AZ: usize, const AY: usize, const AX: usize>(
        mut self,
    ) -> Vec<[f64; 2]> {
        let plan = self.plan;
        let first = self.batch * plan.batch;
        let count = plan.batch.min(plan.tiles - first);
        let scratch = std::mem::take(&mut self.scratch);
        let (inputs, rest) = scratch.split_at_mut(plan.points * plan.input_point);
        let (products, rest) = rest.split_at_mut(plan.points * plan.output_point);
        let (lines, columns) = rest.split_at_mut(plan.lines * plan.line);
        let mut t = 0;
        while t < count {
            let run = plan.run(first + t, count - t);
            for block in 0..plan.input_blocks {
                let to = inputs[(block * plan.batch + t) * BLOCK..].as_mut_ptr();
                // SAFETY: passed on; the run's points lie within the scratch.
                unsafe {
                    self.gather::<V::Eight, AZ, AY, AX>(run, block, lines, columns, to);
                }
            }
            t += run.tiles;
        }
        let (ci, co) = (plan.input_blocks * BLOCK, self.winograd.bias.len());
        let offsets: Vec<usize> = (0..plan.input_blocks)
            .map(|b| b * plan.batch * BLOCK)
            .collect();
        let zeros = [0.0_f32; 3 * BLOCK];
        let mut sums = Vec::new();
        for &(channel, blocks) in &self.winograd.groups[self.groups.clone()] {
            for p in 0..plan.points {
                let weights = &self.winograd.weights[p * ci * co + ci * channel..];
                let tiles = Row {
                    input: inputs[p * plan.input_point..].as_ptr(),
                    step: BLOCK,
                    offsets: &offsets,
                    weights: weights[..ci * blocks * BLOCK].as_ptr(),
                    output: products[p * plan.output_point..].as_mut_ptr(),
                    output_block: plan.batch * BLOCK,
                    bias: zeros.as_ptr(),
                    count,
                };
                // SAFETY: a point's inputs are `input_blocks` runs of `batch` × 8, its products
                // `blocks` of these, and `count` is at most `batch`.
                unsafe { row::<V, BLOCK>(blocks, tiles) };
            }
            for b in 0..blocks {
                let mut moments = [[0.0; 2]; BLOCK];
                let mut t = 0;
                while t < count {
                    let run = plan.run(first + t, count - t);
                    let from = products[(b * plan.batch + t) * BLOCK..].as_ptr();
                    let block = channel / BLOCK + b;
                    // SAFETY: passed on; tiles write their own outputs.
                    unsafe {
                        self.scatter::<V::Eight, AZ, AY, AX>(
                            run,
                            block,
                            from,
                            lines,
                            columns,
                            &mut moments,
                        );
                    }
                    t += run.tiles;
                }
                if self.finish.moments {
                    sums.extend_from_slice(&moments);
                }
            }
        }
        sums
    }

    /// Transforms the inputs of a run of tiles, one block of channels.
    #[inline(always)]
    unsafe fn gather<V: Lanes, const AZ: usize, const AY: usize, const AX: usize>(
        &self,
        run: TileRun,
        block: usize,
        lines: &mut [f32],
        columns: &mut [f32],
        to: *mut f32,
    ) {
        let plan = self.plan;
        let shape = &self.winograd.shape;
        let nx = plan.in_dims[2];
        let step = self.steps();
        let width = run.tiles * (AX - 2) + 2;
        let place = |axis: usize, first: usize, i: usize| {
            (first + i * step[axis])
                .checked_sub(shape.padding[axis][0])
                .filter(|p| *p < plan.in_dims[axis])
        };
        // Columns that lie in the input.
        let before = shape.padding[2][0].saturating_sub(run.x).div_ceil(step[2]);
        let before = before.min(width);
        let after = (nx + shape.padding[2][0])
            .saturating_sub(run.x)
            .div_ceil(step[2])
            .clamp(before, width);
        let whole = self.input.lanes() == BLOCK
            && self.prologue.is_none()
            && (0..AZ).all(|i| place(0, run.z, i).is_some())
            && (0..AY).all(|i| place(1, run.y, i).is_some());
        let (from, strides) = if whole && before < after {
            let at = |axis: usize, first: usize| first - shape.padding[axis][0];
            let x = run.x + before * step[2] - shape.padding[2][0];
            let point = at(1, run.y) * nx + x;
            let from: [*const f32; AZ] = std::array::from_fn(|z| {
                let plane = self.input.plane(block, at(0, run.z) + z * step[0]);
                plane[point * BLOCK..].as_ptr()
            });
            (from, [step[1] * nx, step[2]].map(|s| s * BLOCK))
        } else {
            for z in 0..AZ {
                for y in 0..AY {
                    let line = &mut lines[(z * AY + y) * plan.line..][..width * BLOCK];
                    let line = &mut line[before * BLOCK..after * BLOCK];
                    let (Some(pz), Some(py)) = (place(0, run.z, z), place(1, run.y, y)) else {
                        line.fill(0.0);
                        continue;
                    };
                    if before < after {
                        let x = run.x + before * step[2] - shape.padding[2][0];
                        self.copy_line(block, pz, py * nx + x, step[2], line);
                    }
                }
            }
            let first = lines.as_ptr().wrapping_add(before * BLOCK);
            let from = std::array::from_fn(|z| first.wrapping_add(z * AY * plan.line));
            (from, [plan.line, BLOCK])
        };
        // SAFETY: `from` and the strides lead to points of the input or of the lines.
        unsafe {
            for half in 0..BLOCK / V::N {
                let half = half * V::N;
                let zero = V::splat(0.0);
                for c in (0..before).chain(after..width) {
                    for k in 0..AZ * AY {
                        zero.store(
                            columns
                                .as_mut_ptr()
                                .wrapping_add(k * plan.line + c * BLOCK + half),
                        );
                    }
                }
                let mut from = from.map(|plane| plane.wrapping_add(half));
                let mut column = columns.as_mut_ptr().wrapping_add(before * BLOCK + half);
                for _ in before..after {
                    forward::<V, AZ, AY>(from, strides[0], column, plan.line);
                    from = from.map(|plane| plane.wrapping_add(strides[1]));
                    column = column.wrapping_add(BLOCK);
                }
                for k in 0..AZ * AY {
                    let mut column = columns.as_ptr().wrapping_add(k * plan.line + half);
                    let mut to = to.wrapping_add(k * AX * plan.input_point + half);
                    for _ in 0..run.tiles {
                        let mut values = [zero; AX];
                        for (x, value) in values.iter_mut().enumerate() {
                            *value = V::load(column.wrapping_add(x * BLOCK));
                        }
                        for (x, value) in minimal::input::<V, AX>(values).into_iter().enumerate() {
                            value.store(to.wrapping_add(x.wrapping_mul(plan.input_point)));
                        }
                        column = column.wrapping_add((AX - 2) * BLOCK);
                        to = to.wrapping_add(BLOCK);
                    }
                }
            }
        }
    }

    /// Copies points of a line that lie `step` apart, and applies the norm of the input.
    #[inline(always)]
    fn copy_line(&self, block: usize, z: usize, point: usize, step: usize, line: &mut [f32]) {
        if self.input.lanes() == BLOCK {
            let plane = self.input.plane(block, z);
            let from = plane[point * BLOCK..].as_chunks::<BLOCK>().0;
            let to = line.as_chunks_mut::<BLOCK>().0.iter_mut();
            for (to, from) in to.zip(from.iter().step_by(step)) {
                *to = *from;
            }
        } else {
            line.fill(0.0);
            let channels = (self.winograd.shape.input - block * BLOCK).min(BLOCK);
            for lane in 0..channels {
                let plane = self.input.plane(block * BLOCK + lane, z);
                let from = plane[point..].iter().step_by(step);
                for (to, from) in line[lane..].iter_mut().step_by(BLOCK).zip(from) {
                    *to = *from;
                }
            }
        }
        if let Some(prologue) = &self.prologue {
            activate_input(prologue, block * BLOCK, BLOCK, line);
        }
    }

    /// Transforms the products of a run of tiles back, finishes and stores them, one block.
    #[inline(always)]
    unsafe fn scatter<V: Lanes, const AZ: usize, const AY: usize, const AX: usize>(
        &self,
        run: TileRun,
        block: usize,
        from: *const f32,
        lines: &mut [f32],
        columns: &mut [f32],
        moments: &mut [[f64; 2]; BLOCK],
    ) {
        let plan = self.plan;
        let [_, ny, nx] = plan.out_dims;
        let step = self.steps();
        let outputs = self.winograd.outputs;
        let width = (run.tiles * (AX - 2)).min((nx - run.x).div_ceil(step[2]));
        let bias = &self.winograd.bias[block * BLOCK..][..BLOCK];
        // SAFETY: the products and both buffers hold all points of the run.
        unsafe {
            for half in 0..BLOCK / V::N {
                let half = half * V::N;
                for k in 0..AZ * AY {
                    let mut from = from.wrapping_add(k * AX * plan.output_point + half);
                    let mut column = columns.as_mut_ptr().wrapping_add(k * plan.line + half);
                    for _ in 0..run.tiles {
                        let mut values = [V::splat(0.0); AX];
                        for (x, value) in values.iter_mut().enumerate() {
                            *value = V::load(from.wrapping_add(x.wrapping_mul(plan.output_point)));
                        }
                        let values = minimal::output::<V, AX>(values);
                        for (x, value) in values.into_iter().take(AX - 2).enumerate() {
                            value.store(column.wrapping_add(x * BLOCK));
                        }
                        column = column.wrapping_add((AX - 2) * BLOCK);
                        from = from.wrapping_add(BLOCK);
                    }
                }
                let bias = V::load(bias.as_ptr().wrapping_add(half));
                let mut column = columns.as_ptr().wrapping_add(half);
                let mut line = lines.as_mut_ptr().wrapping_add(half);
                for _ in 0..width {
                    backward::<V, AZ, AY>(column, plan.line, bias, line);
                    column = column.wrapping_add(BLOCK);
                    line = line.wrapping_add(BLOCK);
                }
            }
        }
        let block_at = block * self.finish.block_floats();
        for z in 0..outputs[0] {
            for y in 0..outputs[1] {
                let (pz, py) = (run.z + z * step[0], run.y + y * step[1]);
                if pz >= plan.out_dims[0] || py >= ny {
                    continue;
                }
                let line = &mut lines[(z * outputs[1] + y) * plan.line..][..width * BLOCK];
                let in_plane = (py * nx + run.x) * BLOCK;
                let to = self.output.plane(block, pz).wrapping_add(in_plane);
                let at = block_at + pz * ny * nx * BLOCK + in_plane;
                if self.finish.accumulate {
                    // SAFETY: in bounds, and no other tile has these points.
                    unsafe { add_points::<V>(to, step[2] * BLOCK, line) };
                }
                if step[2] == 1 {
                    self.finish.values(block, at, line, moments);
                    // SAFETY: in bounds, and no other tile has these points.
                    unsafe {
                        std::ptr::copy_nonoverlapping(line.as_ptr(), to, line.len());
                    }
                    continue;
                }
                let apart = step[2] * BLOCK;
                if self.finish.has_residual() {
                    for (n, point) in line.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
                        self.finish.values(block, at + n * apart, point, moments);
                    }
                } else {
                    self.finish.values(block, at, line, moments);
                }
                for n in 0..width {
                    // SAFETY: as above.
                    unsafe {
                        for half in 0..BLOCK / V::N {
                            let value =
                                V::load(line.as_ptr().wrapping_add(n * BLOCK + half * V::N));
                            value.store(to.wrapping_add(n * apart + half * V::N));
                        }
                    }
                }
            }
        }
    }

    /// Distances of a tile's points per axis.
    #[inline(always)]
    fn steps(&self) -> [usize; 3] {
        std::array::from_fn(|axis| self.winograd.step(axis))
    }
}

/// Adds points that stand `apart` floats from one another.
///
/// # Safety
/// They are in bounds and the caller's alone.
#[inline(always)]
unsafe fn add_points<V: Lanes>(from: *const f32, apart: usize, line: &mut [f32]) {
    for (n, point) in line.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        for half in 0..BLOCK / V::N {
            // SAFETY: the caller's.
            unsafe {
                let to = point.as_mut_ptr().wrapping_add(half * V::N);
                let held = V::load(from.wrapping_add(n * apart + half * V::N));
                V::load(to).add(held).store(to);
            }
        }
    }
}

/// Tiles one after another along x, by their first output.
#[derive(Clone, Copy)]
struct TileRun {
    z: usize,
    y: usize,
    x: usize,
    tiles: usize,
}

impl Plan {
    /// The run that begins with a tile, of at most so many.
    #[inline(always)]
    fn run(&self, tile: usize, most: usize) -> TileRun {
        let [z, y] = self.rows[tile / self.columns.len()];
        let column = tile % self.columns.len();
        TileRun {
            z,
            y,
            x: self.columns[column],
            tiles: most.min(self.ends[column] - column),
        }
    }
}

/// The input's transform of one column along y and z, from its planes with rows `row` floats apart;
/// its values go `line` floats apart.
#[inline(always)]
unsafe fn forward<V: Lanes, const AZ: usize, const AY: usize>(
    from: [*const f32; AZ],
    row: usize,
    to: *mut f32,
    line: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut plane = [[V::splat(0.0); AY]; AZ];
        for (values, from) in plane.iter_mut().zip(from) {
            for (y, value) in values.iter_mut().enumerate() {
                *value = V::load(from.wrapping_add(y.wrapping_mul(row)));
            }
            *values = minimal::input::<V, AY>(*values);
        }
        for y in 0..AY {
            let column = plane.map(|row| row[y]);
            for (z, value) in minimal::input::<V, AZ>(column).into_iter().enumerate() {
                value.store(to.wrapping_add((z * AY + y).wrapping_mul(line)));
            }
        }
    }
}

/// The products' transform of one column along y and z, with the bias.
#[inline(always)]
unsafe fn backward<V: Lanes, const AZ: usize, const AY: usize>(
    from: *const f32,
    line: usize,
    bias: V,
    to: *mut f32,
) {
    let (oz, oy) = (if AZ == 1 { 1 } else { AZ - 2 }, AY - 2);
    // SAFETY: the caller's.
    unsafe {
        let mut plane = [[V::splat(0.0); AY]; AZ];
        for y in 0..AY {
            let mut values = [V::splat(0.0); AZ];
            for (z, value) in values.iter_mut().enumerate() {
                *value = V::load(from.wrapping_add((z * AY + y).wrapping_mul(line)));
            }
            let values = minimal::output::<V, AZ>(values);
            for (row, value) in plane.iter_mut().zip(values).take(oz) {
                row[y] = value;
            }
        }
        for (z, row) in plane.into_iter().take(oz).enumerate() {
            let row = minimal::output::<V, AY>(row);
            for (y, value) in row.into_iter().take(oy).enumerate() {
                let to = to.wrapping_add((z * oy + y).wrapping_mul(line));
                value.add(bias).store(to);
            }
        }
    }
}
