//! A value on its way through the graph: where it is, and what is still to be done to it.

use std::sync::Arc;

use rayon::prelude::*;

use super::pool::Pool;
use crate::inference::tensor::Array;
use crate::kernels::{
    Activation, BLOCK, Moments, Prologue, View, ViewMut, blocked_floats, channels_from_blocks,
};

/// Per channel `activation(x · scale + offset)`, not yet applied to the memory.
#[derive(Clone, Debug)]
pub struct Pending {
    pub scale: Vec<f32>,
    pub offset: Vec<f32>,
    pub activation: Activation,
}

impl Pending {
    pub fn prologue(&self) -> Prologue<'_> {
        Prologue {
            scale: &self.scale,
            offset: &self.offset,
            activation: self.activation,
        }
    }
}

/// Activations of a grid in blocks of eight channels.
#[derive(Debug)]
pub struct Grid {
    pub data: Vec<f32>,
    pub dims: [usize; 3],
    pub channels: usize,
}

impl Grid {
    pub fn new(pool: &mut Pool, dims: [usize; 3], channels: usize) -> Self {
        Self {
            data: pool.take(blocked_floats(dims, channels)),
            dims,
            channels,
        }
    }

    /// With memory for more channels that may come.
    pub fn with_room(pool: &mut Pool, dims: [usize; 3], channels: usize, room: usize) -> Self {
        let floats = blocked_floats(dims, channels);
        let mut data = pool.take(room.max(floats));
        data.truncate(floats);
        Self {
            data,
            dims,
            channels,
        }
    }

    pub fn view(&self) -> View<'_> {
        View::new(&self.data, self.dims, self.channels)
    }

    pub fn view_mut(&mut self) -> ViewMut<'_> {
        ViewMut::new(&mut self.data, self.dims, self.channels)
    }

    pub const fn voxels(&self) -> usize {
        self.dims[0] * self.dims[1] * self.dims[2]
    }
}

#[derive(Clone, Debug)]
pub enum Store {
    /// Channels on a grid.
    Grid(Arc<Grid>),
    /// Anything, the last axis fastest.
    Plain(Arc<Array>),
}

/// A value.
#[derive(Clone, Debug)]
pub struct Value {
    pub shape: Vec<usize>,
    pub store: Store,
    pub pending: Option<Arc<Pending>>,
    /// Of the memory as it is, when known.
    pub moments: Option<Arc<Moments>>,
    /// Plain memory that came from the pool, and goes back to it.
    pub pooled: bool,
}

impl Value {
    pub fn grid(shape: &[usize], grid: Grid) -> Self {
        Self {
            shape: shape.to_vec(),
            store: Store::Grid(Arc::new(grid)),
            pending: None,
            moments: None,
            pooled: false,
        }
    }

    /// Plain values in memory of the pool.
    pub fn rows(shape: &[usize], values: Vec<f32>) -> Self {
        Self {
            pooled: true,
            ..Self::plain(Array::new(shape, values))
        }
    }

    pub fn plain(array: Array) -> Self {
        Self {
            shape: array.shape.clone(),
            store: Store::Plain(Arc::new(array)),
            pending: None,
            moments: None,
            pooled: false,
        }
    }

    /// The grid itself, where it has room for so many floats, nobody else has it and nothing is
    /// pending.
    pub fn growing(self, floats: usize) -> Result<Grid, Self> {
        match self.store {
            Store::Grid(grid) if self.pending.is_none() && grid.data.capacity() >= floats => {
                Arc::try_unwrap(grid).map_err(|grid| Self {
                    store: Store::Grid(grid),
                    ..self
                })
            }
            store => Err(Self { store, ..self }),
        }
    }

    /// Gives its memory back when nobody else has it.
    pub fn release(self, pool: &mut Pool) {
        match self.store {
            Store::Grid(grid) => {
                if let Some(grid) = Arc::into_inner(grid) {
                    pool.put(grid.data);
                }
            }
            Store::Plain(array) if self.pooled => {
                if let Some(array) = Arc::into_inner(array) {
                    pool.put(array.values);
                }
            }
            Store::Plain(_) => {}
        }
    }

    /// The value as a grid; what is pending stays pending.
    pub fn into_grid(self, pool: &mut Pool) -> Self {
        let Store::Plain(array) = &self.store else {
            return self;
        };
        let (dims, channels) = (dims_of(&array.shape), array.shape[1]);
        let mut grid = Grid::new(pool, dims, channels);
        grid.view_mut()
            .fill_from(View::plain(&array.values, dims, channels));
        let shape = array.shape.clone();
        self.release(pool);
        Self::grid(&shape, grid)
    }

    /// The value in plain memory, with everything done to it.
    pub fn into_plain(self, pool: &mut Pool) -> Arc<Array> {
        let Store::Plain(array) = self.into_rows(pool).store else {
            unreachable!("it was made plain");
        };
        array
    }

    /// The value in plain memory, with everything done to it, to be worked on.
    pub fn into_rows(self, pool: &mut Pool) -> Self {
        let done = self.settled(pool);
        let Store::Grid(grid) = &done.store else {
            return done;
        };
        let mut values = pool.take(grid.voxels() * grid.channels);
        channels_from_blocks(&grid.data, grid.voxels(), &mut values);
        let shape = done.shape.clone();
        done.release(pool);
        Self::rows(&shape, values)
    }

    /// The plain values, to be changed: in place where nobody else has them.
    pub fn into_own(self, pool: &mut Pool) -> Vec<f32> {
        let mut rows = self.into_rows(pool);
        let Store::Plain(array) = &mut rows.store else {
            unreachable!("it was made plain");
        };
        if let Some(array) = Arc::get_mut(array) {
            return std::mem::take(&mut array.values);
        }
        let mut values = pool.take(array.values.len());
        copy(&array.values, &mut values);
        values
    }

    /// The value with nothing pending; in place where nobody else has it.
    pub fn settled(mut self, pool: &mut Pool) -> Self {
        let Some(pending) = self.pending.take() else {
            return self;
        };
        let Store::Grid(grid) = &mut self.store else {
            unreachable!("plain values have nothing pending");
        };
        if let Some(grid) = Arc::get_mut(grid) {
            let voxels = grid.voxels();
            grid.data
                .par_chunks_mut(voxels * BLOCK)
                .enumerate()
                .for_each(|(block, values)| apply(&pending, block, values));
        } else {
            let mut copy = Grid::new(pool, grid.dims, grid.channels);
            copy_settled(grid, Some(&pending), &mut copy.data);
            self.store = Store::Grid(Arc::new(copy));
        }
        self.moments = None;
        self
    }
}

/// Copies with all threads.
pub fn copy(from: &[f32], to: &mut [f32]) {
    let pieces = to.par_chunks_mut(PIECE).zip(from.par_chunks(PIECE));
    pieces.for_each(|(to, from)| to.copy_from_slice(from));
}

/// Voxels that are treated at once, small enough for the first cache.
const PIECE: usize = 256 * BLOCK;

/// Floats that one thread copies alone.
const SMALL: usize = 1 << 15;

/// Applies what is pending to a block of eight channels.
fn apply(pending: &Pending, block: usize, values: &mut [f32]) {
    let lane = |of: &[f32], n: usize| of.get(block * BLOCK + n).copied().unwrap_or(0.0);
    let scale: [f32; BLOCK] = std::array::from_fn(|n| lane(&pending.scale, n));
    let offset: [f32; BLOCK] = std::array::from_fn(|n| lane(&pending.offset, n));
    for piece in values.chunks_mut(PIECE) {
        for voxel in piece.as_chunks_mut::<BLOCK>().0 {
            for n in 0..BLOCK {
                voxel[n] = voxel[n] * scale[n] + offset[n];
            }
        }
        pending.activation.apply(piece);
    }
    // Channels that fill up the last block stay zero, also where the activation has f(0) ≠ 0.
    let used = pending.scale.len().saturating_sub(block * BLOCK);
    if used < BLOCK && pending.activation.of(0.0) != 0.0 {
        for voxel in values.as_chunks_mut::<BLOCK>().0 {
            voxel[used..].fill(0.0);
        }
    }
}

/// Copies a grid's blocks, with what is pending applied.
pub fn copy_settled(from: &Grid, pending: Option<&Pending>, to: &mut [f32]) {
    let size = from.voxels() * BLOCK;
    let copy = |(block, (to, from)): (usize, (&mut [f32], &[f32]))| {
        for (to, from) in to.chunks_mut(PIECE).zip(from.chunks(PIECE)) {
            to.copy_from_slice(from);
            if let Some(pending) = pending {
                apply(pending, block, to);
            }
        }
    };
    // Handing out a few cache lines takes longer than copying them.
    if to.len() < SMALL {
        let blocks = to.chunks_mut(size).zip(from.data.chunks(size));
        blocks.enumerate().for_each(copy);
    } else {
        let blocks = to.par_chunks_mut(size).zip(from.data.par_chunks(size));
        blocks.enumerate().for_each(copy);
    }
}

/// a + b, each with what is pending for it, then an activation; into a's memory or new memory.
pub fn sum(a: Value, b: &Value, activation: Activation, pool: &mut Pool) -> Value {
    let mut a = a.settled(pool);
    let shape = a.shape.clone();
    let (Store::Grid(mine), Store::Grid(other)) = (&mut a.store, &b.store) else {
        unreachable!("sums are of grids");
    };
    if Arc::get_mut(mine).is_none() {
        let mut copy = Grid::new(pool, mine.dims, mine.channels);
        copy_settled(mine, None, &mut copy.data);
        *mine = Arc::new(copy);
    }
    let grid = Arc::get_mut(mine).expect("nobody else has it");
    let size = grid.voxels() * BLOCK;
    let used = grid.channels;
    grid.data
        .par_chunks_mut(size)
        .zip(other.data.par_chunks(size))
        .enumerate()
        .for_each_init(
            || vec![0.0; PIECE],
            |buffer, (block, (to, from))| {
                for (to, from) in to.chunks_mut(PIECE).zip(from.chunks(PIECE)) {
                    let from = match &b.pending {
                        None => from,
                        Some(pending) => {
                            let piece = &mut buffer[..from.len()];
                            piece.copy_from_slice(from);
                            apply(pending, block, piece);
                            piece
                        }
                    };
                    for (a, b) in to.iter_mut().zip(from) {
                        *a += b;
                    }
                    activation.apply(to);
                }
                let used = used.saturating_sub(block * BLOCK);
                if used < BLOCK && activation.of(0.0) != 0.0 {
                    for voxel in to.as_chunks_mut::<BLOCK>().0 {
                        voxel[used..].fill(0.0);
                    }
                }
            },
        );
    a.shape = shape;
    a.moments = None;
    a
}

/// Sums per channel of a grid, in pieces, so that long sums keep their digits.
pub fn moments(grid: &Grid) -> Moments {
    let sums: Vec<[[f64; 2]; BLOCK]> = grid
        .data
        .par_chunks(grid.voxels() * BLOCK)
        .map(|values| {
            let mut sums = [[0.0_f64; 2]; BLOCK];
            for voxel in values.as_chunks::<BLOCK>().0 {
                for (sum, x) in sums.iter_mut().zip(voxel) {
                    let x = f64::from(*x);
                    sum[0] += x;
                    sum[1] += x * x;
                }
            }
            sums
        })
        .collect();
    Moments {
        count: grid.voxels(),
        sums: sums.into_iter().flatten().take(grid.channels).collect(),
    }
}

/// `[z, y, x]` of `[batch, channels, …]`.
pub fn dims_of(shape: &[usize]) -> [usize; 3] {
    let spatial = &shape[2..];
    let mut dims = [1; 3];
    dims[3 - spatial.len()..].copy_from_slice(spatial);
    dims
}
