//! A convolution over a skip and what a decoder has just enlarged, without their concatenation: the
//! skip's channels are convolved first, its memory goes, and the others are added on top: the
//! channels of both never lie in memory together.

use std::collections::HashMap;
use std::ops::Range;

use super::fuse::{Fused, only_users};
use super::{conv_shape, conv_weights};
use crate::inference::tensor::Program;
use crate::kernels::{BLOCK, Conv, ConvShape, Method};
use crate::model::graph::Op;

/// Such a convolution.
#[derive(Clone, Debug)]
pub struct Joint {
    /// The transposed convolution that gives the first channels.
    pub enlarged: usize,
    /// The other channels; computed before `enlarged` is.
    pub skip: usize,
    /// Joins both, and is not computed.
    pub concat: usize,
    /// Over the channels of `skip`, with the bias.
    pub of_skip: Conv,
    /// Over the channels of `enlarged`, on top of that.
    pub of_enlarged: Conv,
}

impl Joint {
    /// The same with its weights, so that it can run.
    pub fn packed(&self, program: &Program, op: &Op, fused: &Fused) -> Option<Self> {
        let shape = conv_shape(program, op)?;
        let (weights, bias) = conv_weights(program, op, fused)?;
        let part = |part: &Conv, channels: Range<usize>, bias: &[f32]| {
            let weights = shape.inputs_of(&weights, channels);
            Conv::new(*part.shape(), &weights, bias, Method::Auto)
        };
        let first = self.of_enlarged.shape().input;
        Some(Self {
            of_skip: part(&self.of_skip, first..shape.input, &bias),
            of_enlarged: part(&self.of_enlarged, 0..first, &[]),
            ..*self
        })
    }
}

/// The convolutions of a graph that are done so, by their nodes; without weights they cannot run.
pub fn joints(program: &Program, fused: &[Fused]) -> HashMap<usize, Joint> {
    let nodes = &program.graph().nodes;
    let only = only_users(program.graph());
    let joint = |n: usize| {
        let concat = *nodes[n].from.first()?;
        let Op::Concat { axis: 1 } = nodes[concat].op else {
            return None;
        };
        let [enlarged, skip] = *nodes[concat].from.as_slice() else {
            return None;
        };
        let Op::ConvTranspose { weight, groups, .. } = &nodes[enlarged].op else {
            return None;
        };
        let first = program.weight(weight).shape.get(1)? * groups;
        let shape = conv_shape(program, &nodes[n].op)?;
        let alone = only[enlarged] == Some(concat) && only[concat] == Some(n);
        let fits = shape.groups == 1
            && first.is_multiple_of(BLOCK)
            && first < shape.input
            && skip < enlarged
            && skip > 0
            && fused[n].residual.is_none();
        if !alone || !fits {
            return None;
        }
        let part = |input| Conv::outline(ConvShape { input, ..shape }, Method::Auto);
        let of_enlarged = part(first);
        of_enlarged.accumulates().then(|| Joint {
            enlarged,
            skip,
            concat,
            of_skip: part(shape.input - first),
            of_enlarged,
        })
    };
    let convs = (0..nodes.len()).filter(|n| matches!(nodes[*n].op, Op::Conv { .. }));
    convs.filter_map(|n| Some((n, joint(n)?))).collect()
}
