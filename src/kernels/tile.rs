//! The register tile of all convolutions and matrix products: positions × output channels.
//!
//! Sums of `P` positions and `W` vectors of channels stay in registers while all inputs go by:
//! per input channel `W` loads of weights and `P` broadcasts serve `P · W` multiply-adds.
#![expect(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the caller's instruction set"
)]
#![expect(
    unsafe_code,
    reason = "raw pointers in the inner loop; callers prove the bounds"
)]

use super::blocked::BLOCK;
use super::simd::Lanes;

/// A row of positions, computed tile by tile.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    /// The first position's input.
    pub input: *const f32,
    /// Floats from one position's input to the next.
    pub step: usize,
    /// Where, from the position, each run of input channels begins: by taps and channel blocks.
    pub offsets: &'a [usize],
    /// `[run][channel of the run][output channel of the group]`.
    pub weights: *const f32,
    /// The first position's output in the group's first block; positions are 8 floats apart.
    pub output: *mut f32,
    /// Floats from one output block to the next.
    pub output_block: usize,
    /// What the sums begin with, per channel; none: what stands in the output.
    pub bias: *const f32,
    /// Positions.
    pub count: usize,
}

/// Computes a row for a group of `blocks` output blocks (1 to 3); runs are of `L` channels.
///
/// # Safety
/// The instruction set is there; for each position, all `input + offset` hold `L` floats;
/// the weights, the output and the bias (when not null) have the sizes above.
#[inline(always)]
pub(super) unsafe fn row<V: Lanes, const L: usize>(blocks: usize, row: Row<'_>) {
    // SAFETY: passed on; tiles together cover exactly the positions of the row.
    unsafe {
        match (blocks, V::N) {
            (1, 4) => tiles::<V::Eight, 2, L, false>(row),
            (1, _) => tiles::<V::Eight, 1, L, false>(row),
            (2, 4) => tiles::<V, 4, L, true>(row),
            (2, 8) => tiles::<V, 2, L, true>(row),
            (2, _) => tiles::<V, 1, L, false>(row),
            (_, 4) => tiles::<V::Eight, 6, L, false>(row),
            _ => tiles::<V::Eight, 3, L, false>(row),
        }
    }
}

/// `SIXES`: the best number of positions is six; else twelve, or four when `W · V::N` is 24.
#[inline(always)]
unsafe fn tiles<V: Lanes, const W: usize, const L: usize, const SIXES: bool>(mut row: Row<'_>) {
    let threes = W * V::N == 3 * BLOCK;
    while row.count > 0 {
        let left = row.count;
        // SAFETY: passed on; no tile is longer than what is left.
        let done = unsafe {
            if SIXES {
                match left {
                    6 | 11.. => tile::<V, 6, W, L>(row),
                    5 | 9 | 10 => tile::<V, 5, W, L>(row),
                    4 | 7 | 8 => tile::<V, 4, W, L>(row),
                    3 => tile::<V, 3, W, L>(row),
                    2 => tile::<V, 2, W, L>(row),
                    _ => tile::<V, 1, W, L>(row),
                }
            } else if threes {
                match left {
                    4 | 7.. => tile::<V, 4, W, L>(row),
                    3 | 5 | 6 => tile::<V, 3, W, L>(row),
                    2 => tile::<V, 2, W, L>(row),
                    _ => tile::<V, 1, W, L>(row),
                }
            } else {
                match left {
                    12.. => tile::<V, 12, W, L>(row),
                    8.. => tile::<V, 8, W, L>(row),
                    4.. => tile::<V, 4, W, L>(row),
                    2.. => tile::<V, 2, W, L>(row),
                    _ => tile::<V, 1, W, L>(row),
                }
            }
        };
        row.count -= done;
        row.input = row.input.wrapping_add(done.wrapping_mul(row.step));
        row.output = row.output.wrapping_add(done * BLOCK);
    }
}

#[inline(always)]
unsafe fn tile<V: Lanes, const P: usize, const W: usize, const L: usize>(row: Row<'_>) -> usize {
    // SAFETY: passed on from the caller.
    unsafe {
        let mut sums = [[V::splat(0.0); W]; P];
        if row.bias.is_null() {
            for (p, sums) in sums.iter_mut().enumerate() {
                for (n, sum) in sums.iter_mut().enumerate() {
                    *sum = load_blocks(at_output::<V>(&row, p, n), row.output_block);
                }
            }
        } else {
            let mut bias = [V::splat(0.0); W];
            for (n, bias) in bias.iter_mut().enumerate() {
                *bias = V::load(row.bias.wrapping_add(n * V::N));
            }
            sums = [bias; P];
        }
        V::accumulate::<P, W, L>(&mut sums, row.input, row.step, row.offsets, row.weights);
        for (p, sums) in sums.iter().enumerate() {
            for (n, sum) in sums.iter().enumerate() {
                store_blocks(*sum, at_output::<V>(&row, p, n), row.output_block);
            }
        }
    }
    P
}

#[inline(always)]
fn at_output<V: Lanes>(row: &Row<'_>, position: usize, vector: usize) -> *mut f32 {
    let channel = vector * V::N;
    let block = (channel / BLOCK).wrapping_mul(row.output_block);
    row.output
        .wrapping_add(block)
        .wrapping_add(position * BLOCK + channel % BLOCK)
}

/// A vector, of which 16 lanes stand in two blocks.
#[inline(always)]
unsafe fn load_blocks<V: Lanes>(from: *const f32, block: usize) -> V {
    // SAFETY: passed on from the caller.
    unsafe {
        if V::N <= BLOCK {
            return V::load(from);
        }
        let mut both = [0.0_f32; 2 * BLOCK];
        V::Eight::load(from).store(both.as_mut_ptr());
        V::Eight::load(from.wrapping_add(block)).store(both.as_mut_ptr().wrapping_add(BLOCK));
        V::load(both.as_ptr())
    }
}

#[inline(always)]
unsafe fn store_blocks<V: Lanes>(vector: V, to: *mut f32, block: usize) {
    // SAFETY: passed on from the caller.
    unsafe {
        if V::N <= BLOCK {
            vector.store(to);
            return;
        }
        let mut both = [0.0_f32; 2 * BLOCK];
        vector.store(both.as_mut_ptr());
        V::Eight::load(both.as_ptr()).store(to);
        V::Eight::load(both.as_ptr().wrapping_add(BLOCK)).store(to.wrapping_add(block));
    }
}
