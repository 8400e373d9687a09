//! The forward pass of an image, with all that the backward pass needs.

use std::sync::Arc;

use rayon::prelude::*;

use super::{ImageTape, Layer, Step, Tokens, Work, transposed};
use crate::kernels::{Matrix, gelu_rows, norm_rows, softmax_scaled};
use crate::training::Chance;
use crate::training::network::Mode;

impl Tokens {
    /// Results of a batch, image by image, and in training mode a tape of each.
    pub(in crate::training::network) fn forward(
        &self,
        parameters: &[f32],
        images: &[f32],
        mode: Mode,
    ) -> (Vec<f32>, Vec<ImageTape>) {
        let packed: Vec<Option<Matrix>> = self
            .steps
            .par_iter()
            .map(|step| match &step.work {
                Work::Linear(layer) | Work::Patches(layer) => Some(forth(layer, parameters)),
                _ => None,
            })
            .collect();
        let each: Vec<(Vec<f32>, ImageTape)> = images
            .par_chunks(self.input_floats())
            .with_max_len(1)
            .enumerate()
            .map(|(n, image)| self.one(parameters, &packed, n, image, mode))
            .collect();
        let (results, tapes): (Vec<_>, Vec<_>) = each.into_iter().unzip();
        (results.concat(), tapes)
    }

    fn one(
        &self,
        parameters: &[f32],
        packed: &[Option<Matrix>],
        image: usize,
        input: &[f32],
        mode: Mode,
    ) -> (Vec<f32>, ImageTape) {
        let training = matches!(mode, Mode::Training { .. });
        let mut left = vec![0_usize; self.steps.len()];
        for at in self.steps.iter().flat_map(|s| &s.from).chain(&self.outputs) {
            left[*at] += 1;
        }
        let mut tape = ImageTape::default();
        for (n, step) in self.steps.iter().enumerate() {
            let mut kept = Vec::new();
            let value = {
                let from: Vec<&Arc<Vec<f32>>> = step
                    .from
                    .iter()
                    .map(|f| tape.values[*f].as_ref().expect("kept until its use"))
                    .collect();
                if let Work::Same = step.work {
                    Arc::clone(from[0])
                } else {
                    let packed = packed[n].as_ref();
                    Arc::new(self.value(step, parameters, packed, input, &from, &mut kept))
                }
            };
            let value = match mode {
                Mode::Training { place } if step.drops => {
                    let mut dropped = value.as_ref().clone();
                    self.drop_some(place, n, image, &mut dropped);
                    Arc::new(dropped)
                }
                _ => value,
            };
            tape.values.push(Some(value));
            if training {
                tape.kept.push(kept);
                continue;
            }
            for at in &step.from {
                left[*at] -= 1;
                if left[*at] == 0 {
                    tape.values[*at] = None;
                }
            }
        }
        let mut results = Vec::new();
        for output in &self.outputs {
            let value = tape.values[*output].as_ref();
            results.extend_from_slice(value.expect("kept to the end"));
        }
        if training {
            (results, tape)
        } else {
            (results, ImageTape::default())
        }
    }

    fn value(
        &self,
        step: &Step,
        parameters: &[f32],
        packed: Option<&Matrix>,
        input: &[f32],
        from: &[&Arc<Vec<f32>>],
        kept: &mut Vec<f32>,
    ) -> Vec<f32> {
        let source = |n: usize| &self.steps[step.from[n]];
        match &step.work {
            Work::Input => input.to_vec(),
            Work::Constant(place) => parameters[place.clone()].to_vec(),
            Work::Patches(layer) => {
                let packed = packed.expect("layers are packed");
                *kept = patches(from[0], &source(0).shape, &step.shape);
                let rows = self.multiply(packed, kept, layer.outputs, layer.inputs);
                transposed(&rows, rows.len() / layer.outputs, layer.outputs)
            }
            Work::Linear(layer) => {
                let packed = packed.expect("layers are packed");
                self.multiply(packed, from[0], layer.outputs, layer.inputs)
            }
            Work::LayerNorm {
                epsilon,
                scale,
                shift,
            } => {
                let mut to = vec![0.0; from[0].len()];
                let (scale, shift) = (&parameters[scale.clone()], &parameters[shift.clone()]);
                norm_rows(from[0], *epsilon, scale, shift, &mut to, self.instructions);
                to
            }
            Work::Gelu => {
                let mut to = from[0].to_vec();
                kept.resize(to.len(), 0.0);
                gelu_rows(&mut to, Some(kept), self.instructions);
                to
            }
            Work::Attention { scale } => {
                let (tokens, width) = (source(1).shape[2], source(0).width());
                let out = step.width();
                let heads = source(0).shape[1];
                let mut to = Vec::with_capacity(step.count());
                let parts = |n: usize| from[n].chunks_exact(from[n].len() / heads);
                for ((q, k), v) in parts(0).zip(parts(1)).zip(parts(2)) {
                    let keys = Matrix::new(k, width, tokens, true, &[]);
                    let mut shares = self.multiply(&keys, q, tokens, width);
                    softmax_scaled(&mut shares, tokens, *scale, self.instructions);
                    let values = Matrix::new(v, tokens, out, false, &[]);
                    to.extend(self.multiply(&values, &shares, out, tokens));
                    kept.extend(shares);
                }
                to
            }
            Work::Add => from[0].iter().zip(&**from[1]).map(|(a, b)| a + b).collect(),
            Work::Same => unreachable!("nothing is done for it"),
            Work::Transpose(order) => permuted(from[0], &source(0).shape, order),
            Work::Concat(axis) => {
                let inner: usize = step.shape[axis + 1..].iter().product();
                let outer: usize = step.shape[..*axis].iter().product();
                let mut to = Vec::with_capacity(step.count());
                for row in 0..outer {
                    for (n, value) in from.iter().enumerate() {
                        let length = source(n).shape[*axis] * inner;
                        to.extend_from_slice(&value[row * length..(row + 1) * length]);
                    }
                }
                to
            }
            Work::Slice { axis, start } => {
                let inner: usize = step.shape[axis + 1..].iter().product();
                let whole = source(0).shape[*axis] * inner;
                let (first, length) = (start * inner, step.shape[*axis] * inner);
                let rows = from[0].chunks_exact(whole);
                rows.flat_map(|row| &row[first..first + length])
                    .copied()
                    .collect()
            }
        }
    }

    /// Sets values to zero by chance and makes up for it in the others.
    pub(super) fn drop_some(&self, place: [u64; 2], step: usize, image: usize, of: &mut [f32]) {
        let mut chance = Chance::at(&[place[0], place[1], step as u64, image as u64]);
        let factor = 1.0 / (1.0 - self.dropout);
        for x in of {
            let dropped = chance.happens(f64::from(self.dropout));
            *x = if dropped { 0.0 } else { *x * factor };
        }
    }
}

/// A layer's weights packed for `x · Wᵀ + b`.
fn forth(layer: &Layer, parameters: &[f32]) -> Matrix {
    let bias = layer
        .bias
        .as_ref()
        .map_or(&[][..], |b| &parameters[b.clone()]);
    let weight = &parameters[layer.weight.clone()];
    Matrix::new(weight, layer.inputs, layer.outputs, true, bias)
}

/// Patches of an image `[1, channels, y, x]`, one after another: `[channels][y][x]` of each.
fn patches(image: &[f32], shape: &[usize], to: &[usize]) -> Vec<f32> {
    let [channels, ny, nx] = [shape[1], shape[2], shape[3]];
    let (across, down) = (to[3], to[2]);
    // A rest that fills no patch is not seen.
    let (y, x) = (ny / down, nx / across);
    let mut rows = Vec::with_capacity(channels * down * y * across * x);
    for patch in 0..down * across {
        let (top, start) = (patch / across * y, patch % across * x);
        for channel in image.chunks_exact(ny * nx) {
            for line in channel.chunks_exact(nx).skip(top).take(y) {
                rows.extend_from_slice(&line[start..start + x]);
            }
        }
    }
    rows
}

/// Axes in another order.
pub(super) fn permuted(from: &[f32], shape: &[usize], order: &[usize]) -> Vec<f32> {
    let mut steps = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        steps[axis - 1] = steps[axis] * shape[axis];
    }
    let lengths: Vec<usize> = order.iter().map(|axis| shape[*axis]).collect();
    let steps: Vec<usize> = order.iter().map(|axis| steps[*axis]).collect();
    let last = lengths.len() - 1;
    let (count, step) = (lengths[last], steps[last]);
    let mut to = Vec::with_capacity(from.len());
    for row in 0..from.len() / count {
        let (mut rest, mut first) = (row, 0);
        for axis in (0..last).rev() {
            first += rest % lengths[axis] * steps[axis];
            rest /= lengths[axis];
        }
        if step == 1 {
            to.extend_from_slice(&from[first..first + count]);
        } else {
            to.extend((0..count).map(|n| from[first + n * step]));
        }
    }
    to
}
