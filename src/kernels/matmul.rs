//! Products of dense matrices, row by row, on the register tile of the convolutions.

use rayon::prelude::*;

use super::blocked::BLOCK;
use super::conv::groups_of;
use super::scratch::Pool;
use super::simd::{Instructions, Job, Lanes, dispatch};
use super::tile::{Row, row};

/// Rows of a piece of work.
const ROWS: usize = 48;

/// The right-hand matrix of a product, packed.
#[derive(Clone, Debug)]
pub struct Matrix {
    inner: usize,
    columns: usize,
    /// `[group][inner][column of the group]`.
    packed: Vec<f32>,
    bias: Vec<f32>,
}

impl Matrix {
    /// Packs `[inner][columns]`, or with `transposed` `[columns][inner]` as linear layers have it;
    /// `bias` is `[columns]` or empty.
    ///
    /// # Panics
    /// When lengths do not fit.
    pub fn new(
        values: &[f32],
        inner: usize,
        columns: usize,
        transposed: bool,
        bias: &[f32],
    ) -> Self {
        assert_eq!(values.len(), inner * columns, "values fill the matrix");
        assert!(
            bias.is_empty() || bias.len() == columns,
            "a bias for each column"
        );
        let mut packed = Vec::with_capacity(inner * columns.next_multiple_of(BLOCK));
        for (first, blocks) in groups_of(columns) {
            let width = blocks * BLOCK;
            let filled = width.min(columns - first);
            if transposed {
                let start = packed.len();
                packed.resize(start + inner * width, 0.0);
                let group = &mut packed[start..];
                for c in 0..filled {
                    let column = &values[(first + c) * inner..][..inner];
                    let places = group.iter_mut().skip(c).step_by(width);
                    places.zip(column).for_each(|(to, from)| *to = *from);
                }
            } else {
                for row in values.chunks_exact(columns) {
                    packed.extend_from_slice(&row[first..first + filled]);
                    packed.resize(packed.len() + width - filled, 0.0);
                }
            }
        }
        let mut bias = bias.to_vec();
        bias.resize(columns.next_multiple_of(BLOCK), 0.0);
        Self {
            inner,
            columns,
            packed,
            bias,
        }
    }

    /// A matrix for its sizes alone, which cannot multiply.
    pub const fn outline(inner: usize, columns: usize) -> Self {
        Self {
            inner,
            columns,
            packed: Vec::new(),
            bias: Vec::new(),
        }
    }

    /// Bytes of the packed matrix.
    pub fn weight_bytes(&self) -> usize {
        (self.inner + 1) * self.columns.next_multiple_of(BLOCK) * 4
    }

    /// Bytes that a product takes beside its matrices.
    pub fn scratch_bytes(&self, threads: usize) -> usize {
        threads * ROWS * self.columns.next_multiple_of(BLOCK) * 4
    }

    /// `output = input · matrix + bias`: `input` `[rows][inner]`, `output` `[rows][columns]`.
    ///
    /// # Panics
    /// When lengths do not fit.
    pub fn multiply(&self, input: &[f32], output: &mut [f32], instructions: Instructions) {
        self.check(input, output);
        let pool = Pool::new(ROWS * self.bias.len());
        output
            .par_chunks_mut((ROWS * self.columns).max(1))
            .zip(input.par_chunks((ROWS * self.inner).max(1)))
            .for_each(|(output, input)| {
                let mut sums = pool.take();
                self.piece(input, output, &mut sums, instructions);
                pool.give(sums);
            });
    }

    /// The same on the caller's thread, for many small products at a time; the same values.
    ///
    /// # Panics
    /// When lengths do not fit.
    pub fn multiply_here(&self, input: &[f32], output: &mut [f32], instructions: Instructions) {
        self.check(input, output);
        let mut sums = vec![0.0; ROWS * self.bias.len()];
        let pieces = output.chunks_mut((ROWS * self.columns).max(1));
        for (output, input) in pieces.zip(input.chunks((ROWS * self.inner).max(1))) {
            self.piece(input, output, &mut sums, instructions);
        }
    }

    fn check(&self, input: &[f32], output: &[f32]) {
        let rows = input.len().checked_div(self.inner).unwrap_or(0);
        assert_eq!(input.len(), rows * self.inner, "rows of the input");
        assert_eq!(output.len(), rows * self.columns, "rows of the output");
    }

    /// Up to [`ROWS`] rows.
    fn piece(
        &self,
        input: &[f32],
        output: &mut [f32],
        sums: &mut [f32],
        instructions: Instructions,
    ) {
        let job = Run {
            matrix: self,
            input,
            count: input.len() / self.inner.max(1),
            sums,
        };
        dispatch(instructions, job);
        for (n, line) in output.chunks_mut(self.columns.max(1)).enumerate() {
            for (c, to) in line.chunks_mut(BLOCK).enumerate() {
                let from = (c * ROWS + n) * BLOCK;
                to.copy_from_slice(&sums[from..from + to.len()]);
            }
        }
    }
}

struct Run<'a> {
    matrix: &'a Matrix,
    input: &'a [f32],
    count: usize,
    sums: &'a mut [f32],
}

#[expect(
    clippy::inline_always,
    unsafe_code,
    reason = "compiled for the caller's instruction set"
)]
impl Job for Run<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Matrix { inner, .. } = *self.matrix;
        let eights: Vec<usize> = (0..inner / BLOCK).map(|n| n * BLOCK).collect();
        let rest: Vec<usize> = (inner / BLOCK * BLOCK..inner).collect();
        for (first, blocks) in groups_of(self.matrix.columns) {
            let packed = &self.matrix.packed[first * inner..(first + blocks * BLOCK) * inner];
            let mut tiles = Row {
                input: self.input.as_ptr(),
                step: inner,
                offsets: &eights,
                weights: packed.as_ptr(),
                output: self.sums[first * ROWS..].as_mut_ptr(),
                output_block: ROWS * BLOCK,
                bias: self.matrix.bias[first..].as_ptr(),
                count: self.count,
            };
            // SAFETY: rows of `inner` floats, and sums for all blocks of `ROWS` rows.
            unsafe {
                row::<V, BLOCK>(blocks, tiles);
                if !rest.is_empty() {
                    tiles.offsets = &rest;
                    tiles.weights = tiles
                        .weights
                        .wrapping_add(eights.len() * BLOCK * blocks * BLOCK);
                    tiles.bias = std::ptr::null();
                    row::<V, 1>(blocks, tiles);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn products_equal_the_definition(
            rows in 1_usize..120,
            inner in 1_usize..40,
            columns in 1_usize..70,
            transposed in any::<bool>(),
        ) {
            let value = |n: usize| ((n * 7919) % 1009) as f32 / 500.0 - 1.0;
            let a: Vec<f32> = (0..rows * inner).map(value).collect();
            let b: Vec<f32> = (0..inner * columns).map(|n| value(n + 17)).collect();
            let bias: Vec<f32> = (0..columns).map(|n| value(n + 5)).collect();
            let matrix = Matrix::new(&b, inner, columns, transposed, &bias);
            for instructions in Instructions::available() {
                let mut out = vec![f32::NAN; rows * columns];
                matrix.multiply(&a, &mut out, instructions);
                for (n, got) in out.iter().enumerate() {
                    let (r, c) = (n / columns, n % columns);
                    let want: f64 = f64::from(bias[c]) + (0..inner)
                        .map(|k| {
                            let at = if transposed { c * inner + k } else { k * columns + c };
                            f64::from(a[r * inner + k]) * f64::from(b[at])
                        })
                        .sum::<f64>();
                    prop_assert!((f64::from(*got) - want).abs() < 2e-5);
                }
                let mut here = vec![f32::NAN; rows * columns];
                matrix.multiply_here(&a, &mut here, instructions);
                prop_assert_eq!(out, here);
            }
        }
    }
}
