//! Attention rollout: what a Vision Transformer's class token saw of each patch.
//!
//! # Source
//! Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers": each layer's attention is
//! the mean over heads, half of it the token itself (the way around the layer); layers are
//! multiplied.

use super::native::{Native, Workspace};
use super::tensor::{Array, Program};
use super::{Error, reference};
use crate::model::graph::{Graph, Op};
use crate::task::Task;

/// Shares of the patches in the class token, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    /// Patches along y.
    pub rows: usize,
    /// Patches along x.
    pub columns: usize,
    /// `[rows][columns]`, from 0 up; with the class token's share of itself they add up to 1.
    pub values: Vec<f32>,
}

/// A layer's attention: `[1, heads, tokens, tokens]`.
#[derive(Clone, Copy)]
enum Layer {
    /// The value of a softmax.
    Shares(usize),
    /// The softmax of the products of queries and keys.
    Products {
        queries: usize,
        keys: usize,
        scale: f32,
    },
}

/// The rollout for an input `[1, channels, y, x]`.
///
/// # Errors
/// [`Error::Network`] when the graph is no plain Vision Transformer with a class token before its
/// patches, or the input does not fit; `Cancelled`.
pub fn attention_rollout(program: &Program, input: &Array, task: &Task) -> Result<Rollout, Error> {
    let refused = |what: &str| Error::Network(format!("it has no attention rollout: {what}"));
    let shapes = program.shapes(input.shape.get(2..).unwrap_or_default())?;
    let layers = layers(program.graph(), &shapes);
    let first = layers
        .first()
        .ok_or_else(|| refused("it has no attention"))?;
    let tokens = match first {
        Layer::Shares(n) => shapes[*n][2],
        Layer::Products { queries, .. } => shapes[*queries][2],
    };
    let (rows, columns) = patches(program.graph(), &shapes, tokens)
        .ok_or_else(|| refused("its tokens are not a class and the patches of a grid"))?;
    let wanted: Vec<usize> = layers
        .iter()
        .flat_map(|layer| match layer {
            Layer::Shares(n) => vec![*n],
            Layer::Products { queries, keys, .. } => vec![*queries, *keys],
        })
        .collect();
    let results = program.graph().outputs.len();
    let native = Native::new(program.keeping(&wanted))?;
    let mut kept = native
        .run(input, &mut Workspace::default(), task)?
        .into_iter()
        .skip(results);
    let mut total: Vec<f64> = Vec::new();
    for layer in layers {
        task.check()?;
        let mut next = || kept.next().expect("a value per node that was asked for");
        let shares = match layer {
            Layer::Shares(_) => next(),
            Layer::Products { scale, .. } => reference::attention_shares(&next(), &next(), scale)?,
        };
        if shares.shape[2..] != [tokens, tokens] {
            return Err(refused("its layers see different tokens"));
        }
        total = rolled(&shares, &total);
    }
    let values = total[1..tokens].iter().map(|v| *v as f32).collect();
    Ok(Rollout {
        rows,
        columns,
        values,
    })
}

/// Whether a graph has attention that could be rolled out.
pub(super) fn has_layers(graph: &Graph) -> bool {
    let attends = |op: &Op| matches!(op, Op::Attention { .. } | Op::Softmax { axis: 3 });
    graph.nodes.iter().any(|node| attends(&node.op))
}

/// All attention of a graph, in order.
fn layers(graph: &Graph, shapes: &[Vec<usize>]) -> Vec<Layer> {
    let square = |n: usize| shapes[n].len() == 4 && shapes[n][2] == shapes[n][3];
    let each = graph.nodes.iter().enumerate();
    each.filter_map(|(n, node)| match &node.op {
        Op::Attention { scale } => Some(Layer::Products {
            queries: node.from[0],
            keys: node.from[1],
            scale: *scale,
        }),
        Op::Softmax { axis: 3 } if square(n) => Some(Layer::Shares(n)),
        _ => None,
    })
    .collect()
}

/// The grid of the first convolution that gives a patch for every token but one.
fn patches(graph: &Graph, shapes: &[Vec<usize>], tokens: usize) -> Option<(usize, usize)> {
    let convs = graph.nodes.iter().zip(shapes).filter_map(|(node, shape)| {
        let is_grid = matches!(node.op, Op::Conv { .. }) && shape.len() == 4;
        is_grid.then(|| (shape[2], shape[3]))
    });
    convs
        .into_iter()
        .find(|(rows, columns)| rows * columns + 1 == tokens)
}

/// The next layer on top of what came before: ½ (mean over heads + identity) · before. The mean's
/// rows add up to 1, so the sum's do as well.
fn rolled(shares: &Array, before: &[f64]) -> Vec<f64> {
    let (heads, tokens) = (shares.shape[1], shares.shape[2]);
    let mut mixed = vec![0.0_f64; tokens * tokens];
    for head in shares.values.chunks_exact(tokens * tokens) {
        for (sum, share) in mixed.iter_mut().zip(head) {
            *sum += 0.5 * f64::from(*share) / heads as f64;
        }
    }
    for n in 0..tokens {
        mixed[n * tokens + n] += 0.5;
    }
    if before.is_empty() {
        return mixed;
    }
    let mut product = vec![0.0; tokens * tokens];
    for (row, to) in mixed
        .chunks_exact(tokens)
        .zip(product.chunks_exact_mut(tokens))
    {
        for (part, from) in row.iter().zip(before.chunks_exact(tokens)) {
            for (to, from) in to.iter_mut().zip(from) {
                *to += part * from;
            }
        }
    }
    product
}
