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

use super::blocked::{BLOCK, View, ViewMut};
use super::conv::{ConvShape, Epilogue, Prologue, groups_of};
use super::conv3d::Stopped;
use super::finish::{Finish, Shared, activate_input};
use super::minimal;
use super::scratch::Pool;
use super::simd::{Instructions, Job, Lanes, dispatch};
use super::tile::{Row, row};

/// Fewest pieces of work; fewer batches than that are split by output channels.
const PIECES: usize = 8;
/// Rows of tiles that go together, so that rows of inputs are met again in the cache.
const ROWS: usize = 16;
/// Most points of a tile.
const POINTS: usize = 64;

/// Transformed weights, `[point][group][ci][co of the group]`.
#[derive(Clone, Debug)]
pub(super) struct Winograd {
    shape: ConvShape,
    /// Outputs of a tile per axis.
    outputs: [usize; 3],
    groups: Vec<(usize, usize)>,
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl Winograd {
    /// Whether the method knows the shape.
    pub(super) fn fits(shape: &ConvShape) -> bool {
        shape.groups == 1 && shape.stride == [1; 3] && matches!(shape.kernel, [3, 3, 3] | [1, 3, 3])
    }

    /// Whether it is expected to be faster than the direct method.
    pub(super) fn pays(shape: &ConvShape) -> bool {
        Self::fits(shape) && shape.input >= 16 && shape.output >= 8
    }

    pub(super) fn new(shape: ConvShape, weights: &[f32], bias: &[f32]) -> Self {
        let outputs = shape.kernel.map(|k| if k == 3 { 2 } else { 1 });
        let groups = groups_of(shape.output);
        let [az, ay, ax] = outputs.map(minimal::inputs_of);
        let points = az * ay * ax;
        let (ci, co) = (
            shape.input.next_multiple_of(BLOCK),
            shape.output.next_multiple_of(BLOCK),
        );
        let mut packed = vec![0.0; points * ci * co];
        for &(first, blocks) in &groups {
            let width = blocks * BLOCK;
            for o in first..(first + width).min(shape.output) {
                for i in 0..shape.input {
                    let taps = shape.taps();
                    let g = &weights[(o * shape.input + i) * taps..][..taps];
                    let transformed = filter(g, shape.kernel, outputs);
                    for (p, value) in transformed.iter().enumerate() {
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
            bias,
        }
    }

    pub(super) fn weight_floats(&self) -> usize {
        self.weights.len() + self.bias.len()
    }

    pub(super) fn scratch_bytes(&self, dims: [usize; 3], threads: usize) -> usize {
        let Some(out) = self.shape.output_dims(dims) else {
            return 0;
        };
        let plan = Plan::new(self, dims, out);
        let moments = plan.batches * self.bias.len() * size_of::<[f64; 2]>();
        threads * plan.floats() * 4 + moments + plan.rows.len() * 16
    }

    pub(super) fn run(
        &self,
        input: View<'_>,
        prologue: Option<Prologue<'_>>,
        output: ViewMut<'_>,
        epilogue: &Epilogue<'_>,
        instructions: Instructions,
        row_done: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vec<[f64; 2]>, Stopped> {
        let plan = Plan::new(self, input.dims(), output.dims());
        let finish = Finish::new(epilogue, self.shape.output, output.voxels());
        let pool = Pool::new(plan.floats());
        let data = Shared::new(output);
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
                        output: data.pointer(),
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

/// A filter's points, `[z][y][x]`.
fn filter(g: &[f32], kernel: [usize; 3], outputs: [usize; 3]) -> Vec<f64> {
    let mut values: Vec<f64> = g.iter().copied().map(f64::from).collect();
    let mut shape = kernel;
    for axis in 0..3 {
        let inner: usize = shape[axis + 1..].iter().product();
        let outer: usize = shape[..axis].iter().product();
        let (old, new) = (shape[axis], minimal::inputs_of(outputs[axis]));
        let mut next = vec![0.0; outer * new * inner];
        for o in 0..outer {
            for i in 0..inner {
                let line: Vec<f64> = (0..old)
                    .map(|k| values[(o * old + k) * inner + i])
                    .collect();
                for (k, value) in minimal::filter(outputs[axis], &line).iter().enumerate() {
                    next[(o * new + k) * inner + i] = *value;
                }
            }
        }
        shape[axis] = new;
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
    tiles: usize,
    /// Tiles of a batch, a multiple of 12.
    batch: usize,
    batches: usize,
    parts: usize,
    input_blocks: usize,
    /// Floats from one point to the next, of inputs and of products.
    input_point: usize,
    output_point: usize,
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
    fn new(winograd: &Winograd, in_dims: [usize; 3], out_dims: [usize; 3]) -> Self {
        let shape = &winograd.shape;
        let dilation = |axis: usize| {
            if shape.kernel[axis] == 1 {
                1
            } else {
                shape.dilation[axis]
            }
        };
        let axis = |n: usize| lattices(out_dims[n], dilation(n), winograd.outputs[n]);
        let mut columns: Vec<usize> = axis(2).concat();
        columns.sort_unstable();
        let mut rows = Vec::new();
        let by_y = axis(1);
        for zs in axis(0) {
            for ys in &by_y {
                for band in ys.chunks(ROWS) {
                    for z in &zs {
                        rows.extend(band.iter().map(|y| [*z, *y]));
                    }
                }
            }
        }
        let points: usize = winograd.outputs.map(minimal::inputs_of).iter().product();
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
        let odd = |floats: usize| (floats / 16 | 1) * 16 + 16 * usize::from(floats % 16 > 0) * 2;
        Self {
            in_dims,
            out_dims,
            points,
            rows,
            columns,
            tiles,
            batch,
            batches,
            parts,
            input_blocks,
            input_point: odd(input_blocks * batch * BLOCK),
            output_point: odd(widest * batch * BLOCK),
        }
    }

    fn floats(&self) -> usize {
        self.points * (self.input_point + self.output_point)
    }

    fn part(&self, n: usize, groups: usize) -> std::ops::Range<usize> {
        n * groups / self.parts..(n + 1) * groups / self.parts
    }
}

struct Run<'a> {
    winograd: &'a Winograd,
    plan: &'a Plan,
    input: View<'a>,
    prologue: Option<Prologue<'a>>,
    batch: usize,
    groups: std::ops::Range<usize>,
    scratch: &'a mut [f32],
    output: *mut f32,
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
        let (inputs, products) = scratch.split_at_mut(plan.points * plan.input_point);
        for t in 0..count {
            let (z, y, x) = plan.place(first + t);
            // SAFETY: passed on; the tile's points lie within the scratch.
            unsafe {
                self.gather::<V::Eight, AZ, AY, AX>([z, y, x], t, inputs.as_mut_ptr());
            }
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
                let from = products[b * plan.batch * BLOCK..].as_ptr();
                for t in 0..count {
                    let (z, y, x) = plan.place(first + t);
                    // SAFETY: passed on; tiles write their own outputs.
                    unsafe {
                        self.scatter::<V::Eight, AZ, AY, AX>(
                            [z, y, x],
                            from.wrapping_add(t * BLOCK),
                            channel / BLOCK + b,
                            &mut moments,
                        );
                    }
                }
                if self.finish.moments {
                    sums.extend_from_slice(&moments);
                }
            }
        }
        sums
    }

    /// Transforms the inputs of tile `t` of the batch, all channels.
    #[inline(always)]
    unsafe fn gather<V: Lanes, const AZ: usize, const AY: usize, const AX: usize>(
        &self,
        first: [usize; 3],
        t: usize,
        to: *mut f32,
    ) {
        let plan = self.plan;
        let shape = &self.winograd.shape;
        let [nz, ny, nx] = plan.in_dims;
        let points = [AZ, AY, AX];
        let step: [usize; 3] =
            std::array::from_fn(|n| if points[n] == 1 { 1 } else { shape.dilation[n] });
        let inside = (0..3).all(|n| {
            first[n] >= shape.padding[n][0]
                && first[n] - shape.padding[n][0] + (points[n] - 1) * step[n] < plan.in_dims[n]
        });
        let voxels = nz * ny * nx;
        let lanes = self.input.lanes();
        let data = self.input.as_slice();
        let whole = inside && lanes == BLOCK && self.prologue.is_none();
        for block in 0..plan.input_blocks {
            let to = to.wrapping_add((block * plan.batch + t) * BLOCK);
            if whole {
                let at: [usize; 3] = std::array::from_fn(|n| first[n] - shape.padding[n][0]);
                let at = (block * voxels + (at[0] * ny + at[1]) * nx + at[2]) * BLOCK;
                let strides = [
                    step[0] * ny * nx * BLOCK,
                    step[1] * nx * BLOCK,
                    step[2] * BLOCK,
                ];
                let from = data.as_ptr().wrapping_add(at);
                // SAFETY: all points lie in the input.
                unsafe { forward::<V, AZ, AY, AX>(from, strides, to, plan.input_point) };
                continue;
            }
            let mut copy = [0.0_f32; POINTS * BLOCK];
            let place = |n: usize, i: usize| {
                (first[n] + i * step[n])
                    .checked_sub(shape.padding[n][0])
                    .filter(|p| *p < plan.in_dims[n])
            };
            for z in 0..AZ {
                for y in 0..AY {
                    let (Some(pz), Some(py)) = (place(0, z), place(1, y)) else {
                        continue;
                    };
                    for x in 0..AX {
                        let Some(px) = place(2, x) else {
                            continue;
                        };
                        let voxel = (pz * ny + py) * nx + px;
                        let point = &mut copy[((z * AY + y) * AX + x) * BLOCK..][..BLOCK];
                        if lanes == BLOCK {
                            let at = (block * voxels + voxel) * BLOCK;
                            point.copy_from_slice(&data[at..at + BLOCK]);
                        } else {
                            let channels = (shape.input - block * BLOCK).min(BLOCK);
                            for (lane, value) in point[..channels].iter_mut().enumerate() {
                                *value = data[(block * BLOCK + lane) * voxels + voxel];
                            }
                        }
                        if let Some(prologue) = &self.prologue {
                            activate_input(prologue, block * BLOCK, BLOCK, point);
                        }
                    }
                }
            }
            let strides = [AY * AX * BLOCK, AX * BLOCK, BLOCK];
            // SAFETY: the copy holds all points.
            unsafe { forward::<V, AZ, AY, AX>(copy.as_ptr(), strides, to, plan.input_point) };
        }
    }

    /// Transforms a tile's products back, finishes and stores them.
    #[inline(always)]
    unsafe fn scatter<V: Lanes, const AZ: usize, const AY: usize, const AX: usize>(
        &self,
        first: [usize; 3],
        from: *const f32,
        block: usize,
        moments: &mut [[f64; 2]; BLOCK],
    ) {
        let plan = self.plan;
        let shape = &self.winograd.shape;
        let [_, ny, nx] = plan.out_dims;
        let outputs = self.winograd.outputs;
        let step: [usize; 3] = std::array::from_fn(|n| {
            if outputs[n] == 1 {
                1
            } else {
                shape.dilation[n]
            }
        });
        let mut values = [0.0_f32; 8 * BLOCK];
        let bias = &self.winograd.bias[block * BLOCK..][..BLOCK];
        // SAFETY: the products hold all points; 2 × 2 × 2 outputs of 8 channels.
        unsafe {
            backward::<V, AZ, AY, AX>(from, plan.output_point, bias.as_ptr(), values.as_mut_ptr());
        }
        // Dilated outputs lie apart: each point is finished by itself.
        let mut n = 0;
        for z in 0..outputs[0] {
            for y in 0..outputs[1] {
                for x in 0..outputs[2] {
                    let value = &mut values[n * BLOCK..(n + 1) * BLOCK];
                    n += 1;
                    let at = [
                        first[0] + z * step[0],
                        first[1] + y * step[1],
                        first[2] + x * step[2],
                    ];
                    if (0..3).any(|n| at[n] >= plan.out_dims[n]) {
                        continue;
                    }
                    let at = ((at[0] * ny + at[1]) * nx + at[2]) * BLOCK
                        + block * self.finish.block_floats();
                    self.finish.values(block, at, value, moments);
                    // SAFETY: in bounds; no other tile has this point.
                    unsafe {
                        for half in 0..BLOCK / V::N {
                            let value = V::load(value.as_ptr().wrapping_add(half * V::N));
                            value.store(self.output.wrapping_add(at + half * V::N));
                        }
                    }
                }
            }
        }
    }
}

impl Plan {
    #[inline(always)]
    fn place(&self, tile: usize) -> (usize, usize, usize) {
        let [z, y] = self.rows[tile / self.columns.len()];
        (z, y, self.columns[tile % self.columns.len()])
    }
}

/// The input's transform of one tile and block; points go `point` floats apart.
#[inline(always)]
unsafe fn forward<V: Lanes, const AZ: usize, const AY: usize, const AX: usize>(
    from: *const f32,
    strides: [usize; 3],
    to: *mut f32,
    point: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        for half in 0..BLOCK / V::N {
            let from = from.wrapping_add(half * V::N);
            let to = to.wrapping_add(half * V::N);
            let mut tile = [[[V::splat(0.0); AX]; AY]; AZ];
            for (z, plane) in tile.iter_mut().enumerate() {
                for (y, row) in plane.iter_mut().enumerate() {
                    let from = from
                        .wrapping_add(z.wrapping_mul(strides[0]))
                        .wrapping_add(y.wrapping_mul(strides[1]));
                    for (x, value) in row.iter_mut().enumerate() {
                        *value = V::load(from.wrapping_add(x.wrapping_mul(strides[2])));
                    }
                    *row = minimal::input::<V, AX>(*row);
                }
                for x in 0..AX {
                    let column = minimal::input::<V, AY>(std::array::from_fn(|y| plane[y][x]));
                    for (row, value) in plane.iter_mut().zip(column) {
                        row[x] = value;
                    }
                }
            }
            for y in 0..AY {
                for x in 0..AX {
                    let line = minimal::input::<V, AZ>(std::array::from_fn(|z| tile[z][y][x]));
                    for (z, value) in line.into_iter().enumerate() {
                        let p = (z * AY + y) * AX + x;
                        value.store(to.wrapping_add(p.wrapping_mul(point)));
                    }
                }
            }
        }
    }
}

/// The products' transform of one tile and block, with the bias; outputs go one after another.
#[inline(always)]
unsafe fn backward<V: Lanes, const AZ: usize, const AY: usize, const AX: usize>(
    from: *const f32,
    point: usize,
    bias: *const f32,
    to: *mut f32,
) {
    let (oz, oy, ox) = (if AZ == 1 { 1 } else { 2 }, AY - 2, AX - 2);
    // SAFETY: the caller's.
    unsafe {
        for half in 0..BLOCK / V::N {
            let from = from.wrapping_add(half * V::N);
            let to = to.wrapping_add(half * V::N);
            let bias = V::load(bias.wrapping_add(half * V::N));
            let mut tile = [[[V::splat(0.0); AX]; AY]; AZ];
            for y in 0..AY {
                for x in 0..AX {
                    let line: [V; AZ] = std::array::from_fn(|z| {
                        let p = (z * AY + y) * AX + x;
                        V::load(from.wrapping_add(p.wrapping_mul(point)))
                    });
                    let line = minimal::output::<V, AZ>(line);
                    for z in 0..oz {
                        tile[z][y][x] = line[z];
                    }
                }
            }
            for (z, plane) in tile.iter_mut().take(oz).enumerate() {
                for x in 0..AX {
                    let column = minimal::output::<V, AY>(std::array::from_fn(|y| plane[y][x]));
                    for (row, value) in plane.iter_mut().zip(column) {
                        row[x] = value;
                    }
                }
                for (y, row) in plane.iter().take(oy).enumerate() {
                    let row = minimal::output::<V, AX>(*row);
                    for (x, value) in row.into_iter().take(ox).enumerate() {
                        let n = (z * oy + y) * ox + x;
                        value.add(bias).store(to.wrapping_add(n * BLOCK));
                    }
                }
            }
        }
    }
}
