//! Depthwise convolution: each channel by itself.
#![expect(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the caller's instruction set"
)]
#![expect(unsafe_code, reason = "a job is compiled for an instruction set")]

use rayon::prelude::*;

use super::blocked::{BLOCK, Blocked, View, ViewMut};
use super::conv::{ConvShape, Epilogue, Prologue};
use super::conv3d::Stopped;
use super::finish::{Finish, activate_input};
use super::simd::{Instructions, Job, Lanes, dispatch};

/// Weights `[block][tap][8]`.
#[derive(Clone, Debug)]
pub(super) struct Depthwise {
    shape: ConvShape,
    /// Empty in an outline.
    weights: Vec<f32>,
    floats: usize,
    bias: Vec<f32>,
}

impl Depthwise {
    pub(super) const fn fits(shape: &ConvShape) -> bool {
        shape.groups > 1 && shape.groups == shape.input && shape.groups == shape.output
    }

    /// Without weights, an outline that knows its sizes and cannot run.
    pub(super) fn new(shape: ConvShape, weights: Option<&[f32]>, bias: &[f32]) -> Self {
        let taps = shape.taps();
        let blocks = shape.output.div_ceil(BLOCK);
        let floats = blocks * taps * BLOCK;
        let mut packed = vec![0.0; weights.map_or(0, |_| floats)];
        for (n, weight) in weights.into_iter().flatten().enumerate() {
            let (c, tap) = (n / taps, n % taps);
            packed[(c / BLOCK * taps + tap) * BLOCK + c % BLOCK] = *weight;
        }
        let mut bias = bias.to_vec();
        bias.resize(blocks * BLOCK, 0.0);
        Self {
            shape,
            weights: packed,
            floats,
            bias,
        }
    }

    pub(super) fn weight_floats(&self) -> usize {
        self.floats + self.bias.len()
    }

    pub(super) fn run(
        &self,
        input: View<'_>,
        prologue: Option<Prologue<'_>>,
        mut output: ViewMut<'_>,
        epilogue: &Epilogue<'_>,
        instructions: Instructions,
        row_done: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vec<[f64; 2]>, Stopped> {
        if input.lanes() != BLOCK || prologue.is_some() {
            // Rare: an image, or a norm that is not applied yet.
            let mut ready = Blocked::zeros(input.dims(), input.channels());
            ready.view_mut().fill_from(input);
            if let Some(prologue) = &prologue {
                let block = input.voxels() * BLOCK;
                let mut view = ready.view_mut();
                for (n, values) in view.as_mut_slice().chunks_mut(block.max(1)).enumerate() {
                    activate_input(prologue, n * BLOCK, BLOCK, values);
                }
            }
            return self.run(ready.view(), None, output, epilogue, instructions, row_done);
        }
        let dims = output.dims();
        let line = dims[2] * BLOCK;
        let finish = Finish::new(epilogue, self.shape.output, output.voxels());
        let (lines, channels) = (dims[0] * dims[1], self.shape.output);
        let rows: Result<Vec<_>, Stopped> = output
            .as_mut_slice()
            .par_chunks_mut(line.max(1))
            .enumerate()
            .map(|(n, row)| {
                let mut moments = [[0.0; 2]; BLOCK];
                dispatch(
                    instructions,
                    Run {
                        depthwise: self,
                        input,
                        block: n / lines,
                        z: n % lines / dims[1],
                        y: n % dims[1],
                        row,
                        at: n % lines * line,
                        finish: &finish,
                        moments: &mut moments,
                    },
                );
                if row_done() {
                    Ok(moments)
                } else {
                    Err(Stopped)
                }
            })
            .collect();
        let mut sums = vec![[0.0; 2]; channels];
        for (n, moments) in rows?.iter().enumerate() {
            let first = n / lines * BLOCK;
            for (sum, part) in sums[first..].iter_mut().zip(moments) {
                sum[0] += part[0];
                sum[1] += part[1];
            }
        }
        Ok(sums)
    }
}

struct Run<'a> {
    depthwise: &'a Depthwise,
    input: View<'a>,
    block: usize,
    z: usize,
    y: usize,
    row: &'a mut [f32],
    at: usize,
    finish: &'a Finish<'a>,
    moments: &'a mut [[f64; 2]; BLOCK],
}

impl Job for Run<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let shape = &self.depthwise.shape;
        let [nz, ny, nx] = self.input.dims();
        let [kz, ky, kx] = shape.kernel;
        let taps = shape.taps();
        let bias = &self.depthwise.bias[self.block * BLOCK..][..BLOCK];
        for point in self.row.as_chunks_mut::<BLOCK>().0 {
            point.copy_from_slice(bias);
        }
        let inside = |axis: usize, at: usize, tap: usize, end: usize| {
            (at * shape.stride[axis] + tap * shape.dilation[axis])
                .checked_sub(shape.padding[axis][0])
                .filter(|p| *p < end)
        };
        let data = self.input.as_slice().as_chunks::<BLOCK>().0;
        let weights = self.depthwise.weights.as_chunks::<BLOCK>().0;
        for tap in 0..taps {
            let (tz, ty, tx) = (tap / (ky * kx), tap / kx % ky, tap % kx);
            debug_assert!(tz < kz);
            let (Some(z), Some(y)) = (inside(0, self.z, tz, nz), inside(1, self.y, ty, ny)) else {
                continue;
            };
            let from = &data[((self.block * nz + z) * ny + y) * nx..][..nx];
            let weight = weights[self.block * taps + tap];
            // Columns whose tap lies in the input: x · stride + shift − before.
            let (stride, before) = (shape.stride[2], shape.padding[2][0]);
            let shift = tx * shape.dilation[2];
            let first = before.saturating_sub(shift).div_ceil(stride);
            let to = self.row.as_chunks_mut::<BLOCK>().0;
            if first >= to.len() {
                continue;
            }
            let start = first * stride + shift - before;
            if start >= nx {
                continue;
            }
            let from = from[start..].iter().step_by(stride);
            for (to, from) in to[first..].iter_mut().zip(from) {
                for n in 0..BLOCK {
                    to[n] += from[n] * weight[n];
                }
            }
        }
        let from = self.block * self.finish.block_floats() + self.at;
        self.finish.values(self.block, from, self.row, self.moments);
    }
}
