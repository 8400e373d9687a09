//! Attention: `softmax(scale · Q·Kᵀ + added) · V` of one head, a piece of queries at a time.
//!
//! Scores exist for a few queries only; both products run on the register tile of the convolutions.

use super::blocked::BLOCK;
use super::conv::groups_of;
use super::pointwise::exp;
use super::simd::{Instructions, Job, Lanes, dispatch};
use super::tile::{Row, row};

/// Queries of a piece of work.
const ROWS: usize = 48;
/// Where sums begin.
const ZEROS: [f32; 3 * BLOCK] = [0.0; 3 * BLOCK];
/// A score whose exponential is nothing.
const NEVER: f32 = -1e30;

/// Sizes of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// Tokens that are asked.
    pub keys: usize,
    /// Channels of queries and keys.
    pub width: usize,
    /// Channels of values.
    pub value_width: usize,
}

/// What is added to the scores before the softmax.
#[derive(Clone, Copy, Debug, Default)]
pub struct Added<'a> {
    /// `[query][keys, filled up to a multiple of eight]`; what fills up is not looked at.
    pub bias: Option<&'a [f32]>,
    /// Regions of the tokens, when queries and keys are the same: between different ones
    /// [`Added::strangers`] is added.
    pub regions: Option<&'a [f32]>,
    /// See `regions`.
    pub strangers: f32,
}

/// Keys and values of one head, packed.
#[derive(Clone, Debug)]
pub struct Head {
    shape: HeadShape,
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// What a thread needs beside a head.
#[derive(Clone, Debug)]
pub struct HeadScratch {
    queries: Vec<f32>,
    scores: Vec<f32>,
    sums: Vec<f32>,
    line: Vec<f32>,
}

fn full(count: usize) -> usize {
    count.next_multiple_of(BLOCK)
}

impl HeadShape {
    /// Bytes of a [`Head`].
    pub fn bytes(&self) -> usize {
        4 * full(self.keys) * (full(self.width) + full(self.value_width))
    }

    /// Bytes of a [`HeadScratch`].
    pub fn scratch_bytes(&self) -> usize {
        let line = full(self.width) + full(self.keys) + full(self.value_width);
        4 * (ROWS * line + full(self.value_width))
    }

    /// Memory for a thread.
    pub fn scratch(&self) -> HeadScratch {
        HeadScratch {
            queries: vec![0.0; ROWS * full(self.width)],
            scores: vec![0.0; ROWS * full(self.keys)],
            sums: vec![0.0; ROWS * full(self.value_width)],
            line: vec![0.0; full(self.value_width)],
        }
    }
}

impl Head {
    /// Memory for keys and values.
    pub fn new(shape: HeadShape) -> Self {
        Self {
            shape,
            keys: vec![0.0; full(shape.keys) * full(shape.width)],
            values: vec![0.0; full(shape.keys) * full(shape.value_width)],
        }
    }

    /// Packs keys and values; each function gives the channels of a token.
    pub fn fill<'a>(
        &mut self,
        key: impl Fn(usize) -> &'a [f32],
        value: impl Fn(usize) -> &'a [f32],
    ) {
        let HeadShape { keys, .. } = self.shape;
        let width = full(self.shape.width);
        for (first, blocks) in groups_of(keys) {
            let columns = blocks * BLOCK;
            let group = &mut self.keys[first * width..(first + columns) * width];
            for (c, token) in (first..(first + columns).min(keys)).enumerate() {
                for (k, x) in key(token).iter().enumerate() {
                    group[k * columns + c] = *x;
                }
            }
        }
        let tokens = full(keys);
        for (first, blocks) in groups_of(self.shape.value_width) {
            let columns = blocks * BLOCK;
            let group = &mut self.values[first * tokens..(first + columns) * tokens];
            for (token, line) in group.chunks_exact_mut(columns).enumerate().take(keys) {
                let from = &value(token)[first..];
                let count = from.len().min(columns);
                line[..count].copy_from_slice(&from[..count]);
            }
        }
    }

    /// Attends for the queries `first..first + count` and hands on the channels of each.
    pub fn attend<'a>(
        &self,
        [first, count]: [usize; 2],
        scale: f32,
        query: impl Fn(usize) -> &'a [f32],
        added: Added<'_>,
        scratch: &mut HeadScratch,
        instructions: Instructions,
        mut take: impl FnMut(usize, &[f32]),
    ) {
        let width = full(self.shape.width);
        for start in (first..first + count).step_by(ROWS) {
            let count = ROWS.min(first + count - start);
            for (n, line) in scratch
                .queries
                .chunks_exact_mut(width)
                .enumerate()
                .take(count)
            {
                for (to, from) in line.iter_mut().zip(query(start + n)) {
                    *to = from * scale;
                }
            }
            dispatch(
                instructions,
                Piece {
                    head: self,
                    first: start,
                    count,
                    added,
                    scratch,
                },
            );
            let HeadScratch { sums, line, .. } = &mut *scratch;
            for n in 0..count {
                for (c, to) in line.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
                    to.copy_from_slice(&sums[(c * ROWS + n) * BLOCK..][..BLOCK]);
                }
                take(start + n, &line[..self.shape.value_width]);
            }
        }
    }
}

struct Piece<'a, 'b> {
    head: &'a Head,
    first: usize,
    count: usize,
    added: Added<'b>,
    scratch: &'a mut HeadScratch,
}

#[expect(
    clippy::inline_always,
    unsafe_code,
    reason = "compiled for the caller's instruction set"
)]
impl Job for Piece<'_, '_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let shape = self.head.shape;
        let (width, tokens) = (full(shape.width), full(shape.keys));
        let offsets = |count: usize, step: usize| -> Vec<usize> {
            (0..count / BLOCK).map(|n| n * step).collect()
        };
        let channels = offsets(width, BLOCK);
        let HeadScratch {
            queries,
            scores,
            sums,
            ..
        } = self.scratch;
        for (first, blocks) in groups_of(shape.keys) {
            // SAFETY: `count` ≤ ROWS rows of queries, packed keys of the group, scores of ROWS rows.
            unsafe {
                row::<V, BLOCK>(
                    blocks,
                    Row {
                        input: queries.as_ptr(),
                        step: width,
                        offsets: &channels,
                        weights: self.head.keys[first * width..].as_ptr(),
                        output: scores[first * ROWS..].as_mut_ptr(),
                        output_block: ROWS * BLOCK,
                        bias: ZEROS.as_ptr(),
                        count: self.count,
                    },
                );
            }
        }
        for n in 0..self.count {
            soften(scores, n, self.first + n, shape.keys, self.added);
        }
        let steps = offsets(tokens, ROWS * BLOCK);
        for (first, blocks) in groups_of(shape.value_width) {
            // SAFETY: scores of all tokens for each of the rows, packed values, sums of ROWS rows.
            unsafe {
                row::<V, BLOCK>(
                    blocks,
                    Row {
                        input: scores.as_ptr(),
                        step: BLOCK,
                        offsets: &steps,
                        weights: self.head.values[first * tokens..].as_ptr(),
                        output: sums[first * ROWS..].as_mut_ptr(),
                        output_block: ROWS * BLOCK,
                        bias: ZEROS.as_ptr(),
                        count: self.count,
                    },
                );
            }
        }
    }
}

/// The softmax of row `n` of the scores, which is that of a query.
#[expect(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the caller's instruction set"
)]
#[inline(always)]
fn soften(scores: &mut [f32], n: usize, query: usize, keys: usize, added: Added<'_>) {
    let tokens = full(keys);
    let bias = added.bias.map(|b| &b[query * tokens..(query + 1) * tokens]);
    let own = added.regions.map(|r| (r[query], r));
    let mut most = [NEVER; BLOCK];
    for c in 0..tokens / BLOCK {
        let block = &mut scores[(c * ROWS + n) * BLOCK..][..BLOCK];
        if let Some(bias) = bias {
            for (x, b) in block.iter_mut().zip(&bias[c * BLOCK..][..BLOCK]) {
                *x += b;
            }
        }
        if let Some((own, regions)) = own {
            for (lane, x) in block.iter_mut().enumerate() {
                let region = regions.get(c * BLOCK + lane).copied().unwrap_or(own);
                *x += if region == own { 0.0 } else { added.strangers };
            }
        }
        if (c + 1) * BLOCK > keys {
            block[keys - c * BLOCK..].fill(NEVER);
        }
        for (most, x) in most.iter_mut().zip(block) {
            *most = if *x > *most { *x } else { *most };
        }
    }
    let most = most.iter().copied().fold(NEVER, f32::max);
    let mut sums = [0.0_f32; BLOCK];
    for c in 0..tokens / BLOCK {
        let block = &mut scores[(c * ROWS + n) * BLOCK..][..BLOCK];
        for (sum, x) in sums.iter_mut().zip(block) {
            *x = exp(*x - most);
            *sum += *x;
        }
    }
    let share = 1.0 / sums.iter().sum::<f32>();
    for c in 0..tokens / BLOCK {
        for x in &mut scores[(c * ROWS + n) * BLOCK..][..BLOCK] {
            *x *= share;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count)
            .map(|n| ((n * 7919 + seed * 104_729) % 1009) as f32 / 400.0 - 1.25)
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn attention_equals_its_definition(
            queries in 1_usize..110,
            keys in 1_usize..90,
            width in 1_usize..40,
            value_width in 1_usize..70,
            biased in any::<bool>(),
            apart in any::<bool>(),
        ) {
            let shape = HeadShape { keys, width, value_width };
            let q = values(queries * width, 1);
            let k = values(keys * width, 2);
            let v = values(keys * value_width, 3);
            let tokens = keys.next_multiple_of(BLOCK);
            let bias = values(queries * tokens, 4);
            // Regions are of tokens that ask themselves.
            let regions: Vec<f32> = (0..keys.max(queries)).map(|n| (n * 5 % 3) as f32).collect();
            let apart = apart && queries == keys;
            let added = Added {
                bias: biased.then_some(&bias[..]),
                regions: apart.then_some(&regions[..]),
                strangers: -100.0,
            };
            let scale = 0.4;
            for instructions in Instructions::available() {
                let mut head = Head::new(shape);
                head.fill(|t| &k[t * width..][..width], |t| &v[t * value_width..][..value_width]);
                let mut out = vec![f32::NAN; queries * value_width];
                head.attend(
                    [0, queries],
                    scale,
                    |t| &q[t * width..][..width],
                    added,
                    &mut shape.scratch(),
                    instructions,
                    |t, line| out[t * value_width..][..value_width].copy_from_slice(line),
                );
                for a in 0..queries {
                    let scores: Vec<f64> = (0..keys)
                        .map(|b| {
                            let dot: f64 = (0..width)
                                .map(|c| f64::from(q[a * width + c]) * f64::from(k[b * width + c]))
                                .sum();
                            let mut score = dot * f64::from(scale);
                            if biased {
                                score += f64::from(bias[a * tokens + b]);
                            }
                            if apart && regions[a] != regions[b] {
                                score -= 100.0;
                            }
                            score
                        })
                        .collect();
                    let most = scores.iter().copied().fold(f64::MIN, f64::max);
                    let powers: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
                    let sum: f64 = powers.iter().sum();
                    for c in 0..value_width {
                        let want: f64 = (0..keys)
                            .map(|b| powers[b] / sum * f64::from(v[b * value_width + c]))
                            .sum();
                        let got = f64::from(out[a * value_width + c]);
                        prop_assert!((got - want).abs() < 2e-5, "{got} {want}");
                    }
                }
            }
        }
    }
}
