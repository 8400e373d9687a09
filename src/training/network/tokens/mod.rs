//! Graphs of tokens (transformers): forward and backward, image by image.
//!
//! Values are plain rows with the graph's own axes. Images are independent, so each is done on one
//! thread, and gradients are added up in groups that the size of the batch alone decides: the same
//! bits with any number of threads.

mod backward;
mod forward;
mod plan;

use std::ops::Range;
use std::sync::Arc;

use crate::kernels::{Instructions, Matrix};
use crate::model::graph::{Graph, Op};
use crate::training::{Error, Parameters};

/// A graph of tokens on images of one size.
#[derive(Debug)]
pub(super) struct Tokens {
    steps: Vec<Step>,
    outputs: Vec<usize>,
    dropout: f32,
    pub(super) instructions: Instructions,
}

/// One operation, ready to be done.
#[derive(Clone, Debug)]
struct Step {
    work: Work,
    from: Vec<usize>,
    shape: Vec<usize>,
    /// The gradient of its value is wanted.
    wanted: bool,
    /// Some of its value is dropped in training.
    drops: bool,
}

impl Step {
    fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Length of the last axis.
    fn width(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }
}

/// What is done. Ranges are places of tensors among the parameters.
#[derive(Clone, Debug)]
enum Work {
    Input,
    Constant(Range<usize>),
    /// A convolution whose stride is its kernel: a linear layer on patches.
    Patches(Layer),
    Linear(Layer),
    LayerNorm {
        epsilon: f32,
        scale: Range<usize>,
        shift: Range<usize>,
    },
    Gelu,
    Attention {
        scale: f32,
    },
    Add,
    /// The same values under other axes.
    Same,
    Transpose(Vec<usize>),
    Concat(usize),
    Slice {
        axis: usize,
        start: usize,
    },
}

/// A linear layer.
#[derive(Clone, Debug)]
struct Layer {
    inputs: usize,
    outputs: usize,
    weight: Range<usize>,
    bias: Option<Range<usize>>,
    /// Whether they are trained.
    trained: bool,
}

/// Values of an image, and what the backward pass needs beside them.
#[derive(Debug, Default)]
pub(super) struct ImageTape {
    values: Vec<Option<Arc<Vec<f32>>>>,
    /// Patches, slopes of GELU, attention.
    kept: Vec<Vec<f32>>,
}

impl Tokens {
    pub(super) fn new(
        graph: &Graph,
        parameters: &Parameters,
        spatial: &[usize],
        dropout: f32,
    ) -> Result<Self, Error> {
        let mut steps = plan::plan(graph, parameters, spatial)?;
        if dropout > 0.0 {
            for n in plan::dropped(graph) {
                steps[n].drops = true;
            }
        }
        Ok(Self {
            steps,
            outputs: graph.outputs.clone(),
            dropout,
            instructions: Instructions::detect(),
        })
    }

    /// Whether a graph is one of tokens.
    pub(super) fn takes(graph: &Graph) -> bool {
        let is_tokens = |op: &Op| matches!(op, Op::Attention { .. } | Op::LayerNorm { .. });
        graph.nodes.iter().any(|node| is_tokens(&node.op))
    }

    pub(super) fn input_floats(&self) -> usize {
        self.steps[0].count()
    }

    /// Channels and points of each result.
    pub(super) fn results(&self) -> Vec<(usize, usize)> {
        let of = |n: &usize| {
            let shape = &self.steps[*n].shape;
            let channels = shape.get(1).copied().unwrap_or(1);
            (channels, shape.iter().product::<usize>() / channels)
        };
        self.outputs.iter().map(of).collect()
    }

    fn multiply(&self, matrix: &Matrix, rows: &[f32], columns: usize, inner: usize) -> Vec<f32> {
        let mut to = vec![0.0; rows.len() / inner * columns];
        matrix.multiply_here(rows, &mut to, self.instructions);
        to
    }

    /// `aᵀ · b` of `[rows][m]` and `[rows][n]`: `[m][n]`.
    fn multiply_transposed(&self, a: &[f32], b: &[f32], m: usize, n: usize) -> Vec<f32> {
        let rows = a.len() / m;
        let right = Matrix::new(b, rows, n, false, &[]);
        self.multiply(&right, &transposed(a, rows, m), n, rows)
    }

    fn drops(&self) -> bool {
        self.dropout > 0.0
    }
}

/// `[rows][columns]` as `[columns][rows]`, in tiles that stay in the cache.
fn transposed(from: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const TILE: usize = 16;
    let mut to = vec![0.0; from.len()];
    for first in (0..rows).step_by(TILE) {
        let last = (first + TILE).min(rows);
        for c in 0..columns {
            let line = &mut to[c * rows + first..c * rows + last];
            for (n, to) in line.iter_mut().enumerate() {
                *to = from[(first + n) * columns + c];
            }
        }
    }
    to
}
