//! From a graph to operations that have a backward pass.

use std::ops::Range;

use super::Planned;
use crate::kernels::{Activation, ConvShape, PoolKind, PoolShape, TransposedShape};
use crate::model::graph::{Affine, Graph, Op, Pool};
use crate::training::{Error, Parameters, Role};

/// Images of up to so many channels stay as they are; convolutions read them so.
const FEW: usize = 4;

/// What is done. Ranges are places of tensors among the parameters.
#[derive(Clone, Debug)]
pub(super) enum Work {
    Input,
    /// Its value is that of the operation that it names: nothing to do.
    Same(usize),
    Conv {
        shape: ConvShape,
        weight: Range<usize>,
        bias: Option<Range<usize>>,
        trained: [bool; 2],
    },
    Up {
        shape: TransposedShape,
        weight: Range<usize>,
        bias: Option<Range<usize>>,
        trained: [bool; 2],
    },
    Norm(Norm),
    Activate(Activation),
    Pool(PoolShape),
    GlobalMean,
    Add,
    Concat,
    /// In training mode some values are zero, the others larger.
    Dropout,
}

/// A norm with the activation behind it.
#[derive(Clone, Debug)]
pub(super) struct Norm {
    pub groups: Groups,
    pub epsilon: f32,
    pub scale: Option<Range<usize>>,
    pub shift: Option<Range<usize>>,
    pub trained: [bool; 2],
    pub activation: Activation,
}

/// What shares a mean and a variance.
#[derive(Clone, Debug)]
pub(super) enum Groups {
    /// A channel over the whole batch; running values are for evaluation.
    Batch {
        mean: Range<usize>,
        variance: Range<usize>,
    },
    /// This number of groups of channels, image by image.
    Channels(usize),
}

pub(super) struct Plan {
    pub nodes: Vec<Planned>,
    pub outputs: Vec<usize>,
}

pub(super) fn plan(
    graph: &Graph,
    parameters: &Parameters,
    spatial: &[usize],
    dropout: bool,
) -> Result<Plan, Error> {
    let places = parameters.places();
    let shape_of = |name: &str| places.get(name).map(|slot| slot.shape.clone());
    let shapes = graph.shapes(spatial, &shape_of).map_err(Error::Network)?;
    let place = |name: &String| places[name.as_str()].range.clone();
    let trained = |name: &String| {
        let slot = places[name.as_str()];
        slot.role.is_trained() && !slot.frozen
    };
    let mut nodes: Vec<Planned> = Vec::new();
    // Where the value of each of the graph's nodes is; dropout makes more nodes than the graph has.
    let mut at: Vec<usize> = Vec::new();
    let last = if dropout {
        last_layers(graph)
    } else {
        Vec::new()
    };
    for (n, node) in graph.nodes.iter().enumerate() {
        let refused =
            |what: &str| Error::Network(format!("operation {n} ({}) {what}", node.op.name()));
        let mut from: Vec<usize> = node.from.iter().map(|f| at[*f]).collect();
        let (dims, channels) =
            grid(&shapes[n]).ok_or_else(|| refused("gives no channels on a grid"))?;
        if last.contains(&n) {
            let before = nodes[from[0]].clone();
            nodes.push(Planned {
                work: Work::Dropout,
                from: vec![from[0]],
                plain: false,
                ..before
            });
            from[0] = nodes.len() - 1;
        }
        let affine = |affine: &Option<Affine>| match affine {
            None => (None, None, [false; 2]),
            Some(Affine { scale, shift }) => (
                Some(place(scale)),
                Some(place(shift)),
                [trained(scale), trained(shift)],
            ),
        };
        let norm = |groups, epsilon: f32, of: &Option<Affine>| {
            let (scale, shift, trained) = affine(of);
            Work::Norm(Norm {
                groups,
                epsilon,
                scale,
                shift,
                trained,
                activation: Activation::Linear,
            })
        };
        let layer = |weight: &String, bias: &Option<String>| {
            (
                place(weight),
                bias.as_ref().map(place),
                [trained(weight), bias.as_ref().is_some_and(trained)],
            )
        };
        let before = from.first().map(|f| nodes[*f].channels).unwrap_or_default();
        let work = match &node.op {
            Op::Input { .. } => Work::Input,
            Op::Conv {
                weight,
                bias,
                stride,
                padding,
                dilation,
                groups,
            } => {
                if *groups != 1 {
                    return Err(refused("has groups, which are not trained yet"));
                }
                let kernel = &places[weight.as_str()].shape[2..];
                let shape = ConvShape {
                    input: before,
                    output: channels,
                    groups: 1,
                    kernel: three(kernel, 1),
                    stride: three(stride, 1),
                    dilation: three(dilation, 1),
                    padding: three(padding, [0; 2]),
                };
                let (weight, bias, trained) = layer(weight, bias);
                Work::Conv {
                    shape,
                    weight,
                    bias,
                    trained,
                }
            }
            Op::Linear { weight, bias } => {
                let shape = ConvShape::same(before, channels, [1; 3]);
                let (weight, bias, trained) = layer(weight, bias);
                Work::Conv {
                    shape,
                    weight,
                    bias,
                    trained,
                }
            }
            Op::ConvTranspose {
                weight,
                bias,
                stride,
                padding,
                output_padding,
                groups,
            } => {
                if *groups != 1 {
                    return Err(refused("has groups, which are not trained yet"));
                }
                let kernel = &places[weight.as_str()].shape[2..];
                let shape = TransposedShape {
                    input: before,
                    output: channels,
                    groups: 1,
                    kernel: three(kernel, 1),
                    stride: three(stride, 1),
                    dilation: [1; 3],
                    padding: three(padding, [0; 2]),
                    output_padding: three(output_padding, 0),
                };
                let (weight, bias, trained) = layer(weight, bias);
                Work::Up {
                    shape,
                    weight,
                    bias,
                    trained,
                }
            }
            Op::BatchNorm {
                epsilon,
                mean,
                variance,
                affine,
            } => {
                let roles = [mean, variance].map(|name| places[name.as_str()].role);
                if roles != [Role::Mean, Role::Variance] {
                    return Err(refused("has no running mean and variance"));
                }
                let (mean, variance) = (place(mean), place(variance));
                norm(Groups::Batch { mean, variance }, *epsilon, affine)
            }
            Op::InstanceNorm { epsilon, affine } => {
                norm(Groups::Channels(channels), *epsilon, affine)
            }
            Op::GroupNorm {
                groups,
                epsilon,
                affine,
            } => norm(Groups::Channels(*groups), *epsilon, affine),
            Op::MaxPool(pool) => Work::Pool(window(PoolKind::Max, pool)),
            Op::AveragePool {
                pool,
                count_padding,
            } => {
                let count_padding = *count_padding;
                Work::Pool(window(PoolKind::Mean { count_padding }, pool))
            }
            Op::GlobalAveragePool => Work::GlobalMean,
            Op::Add => {
                let grids = from.iter().map(|f| (nodes[*f].dims, nodes[*f].channels));
                if grids.into_iter().any(|g| g != (dims, channels)) {
                    return Err(refused("of values of different shapes is not trained yet"));
                }
                Work::Add
            }
            Op::Concat { axis: 1 } => Work::Concat,
            // Channels without a grid stay where they are.
            Op::Reshape { .. } if (nodes[from[0]].dims, before) == ([1; 3], channels) => {
                Work::Same(from[0])
            }
            op => match activation(op) {
                Some(activation) => {
                    // A norm that nobody else sees takes the activation along.
                    let single = graph.uses(node.from[0]) == 1;
                    if let Work::Norm(norm) = &mut nodes[from[0]].work
                        && single
                        && norm.activation == Activation::Linear
                    {
                        norm.activation = activation;
                        Work::Same(from[0])
                    } else {
                        Work::Activate(activation)
                    }
                }
                None => return Err(refused("is not trained yet")),
            },
        };
        if let Work::Same(same) = work {
            at.push(same);
            continue;
        }
        nodes.push(Planned {
            work,
            from,
            dims,
            channels,
            plain: false,
            wanted: false,
            uses: 0,
            moments: false,
        });
        at.push(nodes.len() - 1);
    }
    let outputs: Vec<usize> = graph.outputs.iter().map(|o| at[*o]).collect();
    settle(&mut nodes, &outputs);
    Ok(Plan { nodes, outputs })
}

/// Who uses what, and whose gradient is wanted.
fn settle(nodes: &mut [Planned], outputs: &[usize]) {
    let mut only_convs = true;
    for n in 1..nodes.len() {
        let from = nodes[n].from.clone();
        let is_conv = matches!(nodes[n].work, Work::Conv { .. });
        let is_norm = matches!(nodes[n].work, Work::Norm(_));
        let trained = match &nodes[n].work {
            Work::Conv { trained, .. } | Work::Up { trained, .. } => trained.contains(&true),
            Work::Norm(norm) => norm.trained.contains(&true),
            _ => false,
        };
        nodes[n].wanted = trained || from.iter().any(|f| nodes[*f].wanted);
        for f in from {
            nodes[f].uses += 1;
            nodes[f].moments |= is_norm;
            only_convs &= f != 0 || is_conv;
        }
    }
    for output in outputs {
        nodes[*output].uses += 1;
    }
    nodes[0].plain = only_convs && nodes[0].channels <= FEW;
}

/// The last layer with weights before each result.
fn last_layers(graph: &Graph) -> Vec<usize> {
    let mut found = Vec::new();
    for output in &graph.outputs {
        let mut at = *output;
        loop {
            let node = &graph.nodes[at];
            if matches!(node.op, Op::Conv { .. } | Op::Linear { .. }) {
                found.push(at);
                break;
            }
            match node.from.first() {
                Some(before) => at = *before,
                None => break,
            }
        }
    }
    found
}

/// `[1, channels, …]` as a grid and channels.
fn grid(shape: &[usize]) -> Option<([usize; 3], usize)> {
    ((2..=5).contains(&shape.len()) && shape[0] == 1).then(|| (three(&shape[2..], 1), shape[1]))
}

/// Settings along up to three axes; axes that are not there come first.
fn three<T: Copy>(of: &[T], other: T) -> [T; 3] {
    let mut all = [other; 3];
    for (to, from) in all.iter_mut().rev().zip(of.iter().rev()) {
        *to = *from;
    }
    all
}

fn window(kind: PoolKind, pool: &Pool) -> PoolShape {
    PoolShape {
        kind,
        kernel: three(&pool.kernel, 1),
        stride: three(&pool.stride, 1),
        dilation: [1; 3],
        padding: three(&pool.padding, [0; 2]),
        ceil: pool.ceil,
    }
}

fn activation(op: &Op) -> Option<Activation> {
    Some(match op {
        Op::Relu => Activation::Relu,
        Op::LeakyRelu { slope } => Activation::LeakyRelu(*slope),
        Op::Elu { alpha } if *alpha == 1.0 => Activation::Elu,
        Op::Gelu => Activation::Gelu,
        Op::Silu => Activation::Silu,
        Op::Sigmoid => Activation::Sigmoid,
        Op::Tanh => Activation::Tanh,
        _ => return None,
    })
}
