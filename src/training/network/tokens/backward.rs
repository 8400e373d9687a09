//! The backward pass of a batch, in groups of images.

use rayon::prelude::*;

use super::forward::permuted;
use super::{ImageTape, Layer, Step, Tokens, Work, transposed};
use crate::kernels::{Matrix, norm_rows_gradient, softmax_gradient};

/// Groups of images with sums of their own: as many threads work at most, and so many gradients
/// are held.
const GROUPS: usize = 8;

/// Gradients of an image's values.
type ByValue = Vec<Option<Vec<f32>>>;

impl Tokens {
    /// Gradients of all parameters from those of the results; `place` is the forward pass's.
    pub(in crate::training::network) fn backward(
        &self,
        parameters: &[f32],
        tapes: Vec<ImageTape>,
        results: &[f32],
        place: [u64; 2],
    ) -> Vec<f32> {
        let packed: Vec<Option<Matrix>> = self
            .steps
            .par_iter()
            .map(|step| match &step.work {
                Work::Linear(layer) if self.steps[step.from[0]].wanted => {
                    let weight = &parameters[layer.weight.clone()];
                    let (inner, columns) = (layer.outputs, layer.inputs);
                    Some(Matrix::new(weight, inner, columns, false, &[]))
                }
                _ => None,
            })
            .collect();
        let (count, per_image) = (tapes.len(), results.len() / tapes.len().max(1));
        let size = count.div_ceil(GROUPS).max(1);
        let mut tapes: Vec<(usize, ImageTape)> = tapes.into_iter().enumerate().collect();
        let sums: Vec<Vec<f32>> = tapes
            .par_chunks_mut(size)
            .with_max_len(1)
            .map(|group| {
                let mut sum = vec![0.0; parameters.len()];
                for (n, tape) in group {
                    let tape = std::mem::take(tape);
                    let given = &results[*n * per_image..(*n + 1) * per_image];
                    self.back(parameters, &packed, *n, tape, given, place, &mut sum);
                }
                sum
            })
            .collect();
        let mut sums = sums.into_iter();
        let mut total = sums.next().unwrap_or_else(|| vec![0.0; parameters.len()]);
        for other in sums {
            total
                .par_chunks_mut(1 << 14)
                .zip(other.par_chunks(1 << 14))
                .for_each(|(total, other)| add(total, other));
        }
        total
    }

    fn back(
        &self,
        parameters: &[f32],
        packed: &[Option<Matrix>],
        image: usize,
        mut tape: ImageTape,
        results: &[f32],
        place: [u64; 2],
        sum: &mut [f32],
    ) {
        let mut by_value: ByValue = vec![None; self.steps.len()];
        let mut at = 0;
        for output in &self.outputs {
            let count = self.steps[*output].count();
            give(&mut by_value, *output, results[at..at + count].to_vec());
            at += count;
        }
        for (n, step) in self.steps.iter().enumerate().rev() {
            let gradient = by_value[n].take();
            if let Some(mut gradient) = gradient.filter(|_| step.wanted) {
                if step.drops && self.drops() {
                    self.drop_some(place, n, image, &mut gradient);
                }
                self.step_back(
                    step,
                    parameters,
                    packed[n].as_ref(),
                    &tape,
                    &tape.kept[n],
                    gradient,
                    sum,
                    &mut by_value,
                );
            }
            // Whoever needed it comes later in the graph and is done.
            tape.values[n] = None;
        }
    }

    fn step_back(
        &self,
        step: &Step,
        parameters: &[f32],
        packed: Option<&Matrix>,
        tape: &ImageTape,
        kept: &[f32],
        gradient: Vec<f32>,
        sum: &mut [f32],
        by_value: &mut ByValue,
    ) {
        let source = |n: usize| &self.steps[step.from[n]];
        let value = |n: usize| tape.values[step.from[n]].as_deref().expect("it is kept");
        match &step.work {
            Work::Input => {}
            Work::Constant(place) => add(&mut sum[place.clone()], &gradient),
            Work::Patches(layer) => {
                let rows = gradient.len() / layer.outputs;
                let gradient = transposed(&gradient, layer.outputs, rows);
                self.layer_back(layer, kept, &gradient, sum);
            }
            Work::Linear(layer) => {
                if layer.trained {
                    self.layer_back(layer, value(0), &gradient, sum);
                }
                if let Some(packed) = packed {
                    let back = self.multiply(packed, &gradient, layer.inputs, layer.outputs);
                    give(by_value, step.from[0], back);
                }
            }
            Work::LayerNorm {
                epsilon,
                scale,
                shift,
            } => {
                let mut back = vec![0.0; gradient.len()];
                let (mut to_scale, mut to_shift) = (vec![0.0; scale.len()], vec![0.0; shift.len()]);
                norm_rows_gradient(
                    value(0),
                    *epsilon,
                    &parameters[scale.clone()],
                    &gradient,
                    &mut back,
                    [&mut to_scale, &mut to_shift],
                    self.instructions,
                );
                add(&mut sum[scale.clone()], &to_scale);
                add(&mut sum[shift.clone()], &to_shift);
                give(by_value, step.from[0], back);
            }
            Work::Gelu => {
                let mut gradient = gradient;
                for (g, slope) in gradient.iter_mut().zip(kept) {
                    *g *= slope;
                }
                give(by_value, step.from[0], gradient);
            }
            Work::Attention { scale } => {
                let heads = source(0).shape[1];
                let dims = [source(1).shape[2], source(0).width(), step.width()];
                let values = [value(0), value(1), value(2)];
                let backs = self.attention_back(values, heads, dims, *scale, kept, &gradient);
                for (from, back) in step.from.iter().zip(backs) {
                    give(by_value, *from, back);
                }
            }
            Work::Add => {
                give(by_value, step.from[0], gradient.clone());
                give(by_value, step.from[1], gradient);
            }
            Work::Same => give(by_value, step.from[0], gradient),
            Work::Transpose(order) => {
                let mut inverse = vec![0; order.len()];
                for (to, from) in order.iter().enumerate() {
                    inverse[*from] = to;
                }
                let back = permuted(&gradient, &step.shape, &inverse);
                give(by_value, step.from[0], back);
            }
            Work::Concat(axis) => {
                let inner: usize = step.shape[axis + 1..].iter().product();
                let mut first = 0;
                for (n, from) in step.from.iter().enumerate() {
                    let length = source(n).shape[*axis] * inner;
                    let rows = gradient.chunks_exact(step.shape[*axis] * inner);
                    let part = rows.flat_map(|row| &row[first..first + length]);
                    give(by_value, *from, part.copied().collect());
                    first += length;
                }
            }
            Work::Slice { axis, start } => {
                let inner: usize = step.shape[axis + 1..].iter().product();
                let (whole, length) = (source(0).shape[*axis] * inner, step.shape[*axis] * inner);
                let mut back = vec![0.0; source(0).count()];
                let rows = gradient.chunks_exact(length);
                for (row, to) in rows.zip(back.chunks_exact_mut(whole)) {
                    to[start * inner..][..length].copy_from_slice(row);
                }
                give(by_value, step.from[0], back);
            }
        }
    }

    /// Gradients of a layer's weights and biases, from rows and the gradients of theirs.
    fn layer_back(&self, layer: &Layer, rows: &[f32], gradient: &[f32], sum: &mut [f32]) {
        let own = self.multiply_transposed(gradient, rows, layer.outputs, layer.inputs);
        add(&mut sum[layer.weight.clone()], &own);
        if let Some(bias) = &layer.bias {
            let sum = &mut sum[bias.clone()];
            for row in gradient.chunks_exact(layer.outputs) {
                add(sum, row);
            }
        }
    }

    /// Gradients of queries, keys and values; `dims` are tokens and the widths of keys and values.
    fn attention_back(
        &self,
        [q, k, v]: [&Vec<f32>; 3],
        heads: usize,
        [tokens, width, out]: [usize; 3],
        scale: f32,
        shares: &[f32],
        gradient: &[f32],
    ) -> [Vec<f32>; 3] {
        let part = |of: &'_ [f32], head: usize| {
            let count = of.len() / heads;
            head * count..(head + 1) * count
        };
        let mut backs = [Vec::new(), Vec::new(), Vec::new()];
        for head in 0..heads {
            let (qs, ks) = (&q[part(q, head)], &k[part(k, head)]);
            let vs = &v[part(v, head)];
            let (g, p) = (&gradient[part(gradient, head)], &shares[part(shares, head)]);
            let turned = Matrix::new(vs, out, tokens, true, &[]);
            let mut inner = self.multiply(&turned, g, tokens, out);
            softmax_gradient(p, &mut inner, tokens, scale, self.instructions);
            let keys = Matrix::new(ks, tokens, width, false, &[]);
            backs[0].extend(self.multiply(&keys, &inner, width, tokens));
            backs[1].extend(self.multiply_transposed(&inner, qs, tokens, width));
            backs[2].extend(self.multiply_transposed(p, g, tokens, out));
        }
        backs
    }
}

fn add(sum: &mut [f32], other: &[f32]) {
    sum.iter_mut().zip(other).for_each(|(a, b)| *a += b);
}

/// Another part of a value's gradient.
fn give(by_value: &mut ByValue, n: usize, gradient: Vec<f32>) {
    match &mut by_value[n] {
        None => by_value[n] = Some(gradient),
        Some(sum) => add(sum, &gradient),
    }
}
