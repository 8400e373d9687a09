//! The backward pass of a batch.

use rayon::prelude::*;

use super::forward::{Tape, copy_channels, drop_some};
use super::plan::Work;
use super::{Grids, each_image, norm, part, slice};
use crate::kernels::{
    BLOCK, Conv, ConvShape, Epilogue, GradientTerms, InputGradient, Method, Prologue, View,
    bias_gradient, input_gradient, pool_gradient, weight_gradient,
};

impl Grids {
    pub(super) fn backward(
        &self,
        parameters: &[f32],
        tape: Tape,
        results: &[f32],
        place: [u64; 2],
    ) -> Vec<f32> {
        let mut tape = tape;
        let mut gradients = vec![0.0; parameters.len()];
        let mut by_value: Vec<Option<Vec<f32>>> = self.planned.iter().map(|_| None).collect();
        self.seed(&tape, results, &mut by_value);
        for n in (0..self.planned.len()).rev() {
            let planned = &self.planned[n];
            if let Some(gradient) = by_value[n].take() {
                if planned.wanted {
                    self.step_back(
                        n,
                        parameters,
                        &tape,
                        place,
                        &gradient,
                        &mut gradients,
                        &mut by_value,
                    );
                }
                self.give(gradient);
            }
            // Whoever needed the value comes later in the graph and is done.
            if let Some(piece) = tape.values[n].take() {
                self.give(piece);
            }
        }
        gradients
    }

    /// Gradients of the results, in blocks.
    fn seed(&self, tape: &Tape, results: &[f32], by_value: &mut [Option<Vec<f32>>]) {
        let per_image = self.output_floats();
        let mut at = 0;
        for output in &self.outputs {
            let planned = &self.planned[*output];
            let plain = planned.channels * planned.voxels();
            let mut gradient = self.take(tape.images * planned.floats());
            each_image(&mut gradient, planned.floats(), |image, to| {
                let from = &part(results, image, per_image)[at..at + plain];
                let from = View::plain(from, planned.dims, planned.channels);
                planned.view_mut(to).fill_from(from);
            });
            self.add(by_value, *output, gradient);
            at += plain;
        }
    }

    /// Another part of a value's gradient.
    fn add(&self, by_value: &mut [Option<Vec<f32>>], n: usize, gradient: Vec<f32>) {
        match &mut by_value[n] {
            None => by_value[n] = Some(gradient),
            Some(sum) => {
                sum.par_chunks_mut(1 << 14)
                    .zip(gradient.par_chunks(1 << 14))
                    .for_each(|(sum, other)| {
                        sum.iter_mut().zip(other).for_each(|(a, b)| *a += b);
                    });
                self.give(gradient);
            }
        }
    }

    fn step_back(
        &self,
        n: usize,
        parameters: &[f32],
        tape: &Tape,
        place: [u64; 2],
        gradient: &[f32],
        gradients: &mut [f32],
        by_value: &mut [Option<Vec<f32>>],
    ) {
        let planned = &self.planned[n];
        let Some(first) = planned.from.first().copied() else {
            return;
        };
        let source = &self.planned[first];
        let (floats, given) = (planned.floats(), source.floats());
        let wanted = source.wanted;
        let value = |n: usize| tape.values[n].as_deref().expect("kept for this pass");
        let fresh = || self.take(tape.images * given);
        let instructions = self.instructions;
        match &planned.work {
            Work::Conv {
                shape,
                weight,
                bias,
                trained,
            } => {
                let outs = planned.views(gradient);
                if trained[0] {
                    let found =
                        weight_gradient(shape, &source.views(value(first)), &outs, instructions);
                    add_to(&mut gradients[weight.clone()], &found);
                }
                if let Some(bias) = bias.as_ref().filter(|_| trained[1]) {
                    add_to(
                        &mut gradients[bias.clone()],
                        &bias_gradient(&outs, instructions),
                    );
                }
                if wanted {
                    let weights = slice(parameters, weight);
                    let back = InputGradient::new(*shape, source.dims, weights);
                    let mut to = fresh();
                    each_image(&mut to, given, |image, to| {
                        back.run(outs[image], source.view_mut(to), instructions);
                    });
                    self.add(by_value, first, to);
                }
            }
            Work::Up {
                shape,
                weight,
                bias,
                trained,
            } => {
                // The transposed of a transposed convolution, with the same weights.
                let conv = ConvShape {
                    input: shape.output,
                    output: shape.input,
                    groups: 1,
                    kernel: shape.kernel,
                    stride: shape.stride,
                    dilation: shape.dilation,
                    padding: shape.padding,
                };
                let outs = planned.views(gradient);
                if trained[0] {
                    let found =
                        weight_gradient(&conv, &outs, &source.views(value(first)), instructions);
                    add_to(&mut gradients[weight.clone()], &found);
                }
                if let Some(bias) = bias.as_ref().filter(|_| trained[1]) {
                    add_to(
                        &mut gradients[bias.clone()],
                        &bias_gradient(&outs, instructions),
                    );
                }
                if wanted {
                    let back = Conv::new(conv, slice(parameters, weight), &[], Method::Auto);
                    let mut to = fresh();
                    each_image(&mut to, given, |image, to| {
                        let to = source.view_mut(to);
                        let epilogue = Epilogue::default();
                        back.run(outs[image], None, to, &epilogue, instructions, &|| true)
                            .expect("nobody stops it");
                    });
                    self.add(by_value, first, to);
                }
            }
            Work::Norm(work) => {
                let applied = tape.norms[n].as_ref().expect("kept for this pass");
                let mut to = wanted.then(fresh);
                norm::backward(
                    work,
                    applied,
                    planned,
                    parameters,
                    value(first),
                    gradient,
                    gradients,
                    to.as_deref_mut(),
                    instructions,
                );
                if let Some(to) = to {
                    self.add(by_value, first, to);
                }
            }
            _ if !planned.from.iter().any(|f| self.planned[*f].wanted) => {}
            Work::Activate(activation) => {
                let channels = planned.channels;
                let (ones, zeros) = (vec![1.0; channels], vec![0.0; channels]);
                let terms = GradientTerms {
                    gradient: ones.clone(),
                    value: zeros.clone(),
                    constant: zeros.clone(),
                };
                let norm = Prologue {
                    scale: &ones,
                    offset: &zeros,
                    activation: *activation,
                };
                let (x, mut to) = (value(first), fresh());
                each_image(&mut to, given, |image, to| {
                    input_gradient(
                        source.view(part(x, image, given)),
                        planned.view(part(gradient, image, floats)),
                        &norm,
                        &terms,
                        source.view_mut(to),
                        instructions,
                    );
                });
                self.add(by_value, first, to);
            }
            Work::Pool(shape) => {
                let (x, mut to) = (value(first), fresh());
                each_image(&mut to, given, |image, to| {
                    pool_gradient(
                        shape,
                        source.view(part(x, image, given)),
                        planned.view(part(gradient, image, floats)),
                        source.view_mut(to),
                    );
                });
                self.add(by_value, first, to);
            }
            Work::GlobalMean => {
                let mut to = fresh();
                let block = source.voxels() * BLOCK;
                each_image(&mut to, given, |image, to| {
                    let gradient = part(gradient, image, floats).as_chunks::<BLOCK>().0;
                    for (to, from) in to.chunks_mut(block).zip(gradient) {
                        let each = from.map(|g| g / source.voxels() as f32);
                        to.as_chunks_mut::<BLOCK>().0.fill(each);
                    }
                });
                self.add(by_value, first, to);
            }
            Work::Add => {
                for f in &planned.from {
                    if self.planned[*f].wanted {
                        let mut to = fresh();
                        to.copy_from_slice(gradient);
                        self.add(by_value, *f, to);
                    }
                }
            }
            Work::Concat => {
                let mut at = 0;
                for f in &planned.from {
                    let of = &self.planned[*f];
                    if of.wanted {
                        let mut to = self.take(tape.images * of.floats());
                        each_image(&mut to, of.floats(), |image, to| {
                            to.fill(0.0);
                            let from = planned.view(part(gradient, image, floats));
                            copy_channels(from, at, of.view_mut(to), 0, of.channels);
                        });
                        self.add(by_value, *f, to);
                    }
                    at += of.channels;
                }
            }
            Work::Dropout => {
                let mut to = fresh();
                drop_some(place, n, self.dropout, gradient, &mut to);
                self.add(by_value, first, to);
            }
            Work::Input | Work::Same(_) => {}
        }
    }
}

fn add_to(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}
