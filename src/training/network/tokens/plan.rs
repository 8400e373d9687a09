//! From a graph to operations on tokens that have a backward pass.

use super::{Layer, Step, Work};
use crate::model::graph::{Affine, Graph, Op, slice_bounds};
use crate::training::{Error, Parameters};

pub(super) fn plan(
    graph: &Graph,
    parameters: &Parameters,
    spatial: &[usize],
) -> Result<Vec<Step>, Error> {
    let places = parameters.places();
    let shape_of = |name: &str| places.get(name).map(|slot| slot.shape.clone());
    let shapes = graph.shapes(spatial, &shape_of).map_err(Error::Network)?;
    let place = |name: &String| places[name.as_str()].range.clone();
    let trained = |name: &String| {
        let slot = places[name.as_str()];
        slot.role.is_trained() && !slot.frozen
    };
    let mut steps: Vec<Step> = Vec::new();
    for (n, node) in graph.nodes.iter().enumerate() {
        let refused =
            |what: &str| Error::Network(format!("operation {n} ({}) {what}", node.op.name()));
        let layer = |weight: &String, bias: &Option<String>| {
            let shape = &places[weight.as_str()].shape;
            Layer {
                inputs: shape[1..].iter().product(),
                outputs: shape[0],
                weight: place(weight),
                bias: bias.as_ref().map(place),
                trained: trained(weight) || bias.as_ref().is_some_and(trained),
            }
        };
        let mut own = false;
        let work = match &node.op {
            Op::Input { .. } => Work::Input,
            Op::Constant { tensor } => {
                own = trained(tensor);
                Work::Constant(place(tensor))
            }
            Op::Conv {
                weight,
                bias,
                stride,
                padding,
                dilation,
                groups,
            } => {
                let kernel = &places[weight.as_str()].shape[2..];
                let apart = kernel == stride
                    && kernel.len() == 2
                    && *groups == 1
                    && padding.iter().all(|p| *p == [0; 2])
                    && dilation.iter().all(|d| *d == 1);
                if !apart || node.from != [0] {
                    return Err(refused("is not one of patches of the input"));
                }
                let layer = layer(weight, bias);
                own = layer.trained;
                Work::Patches(layer)
            }
            Op::Linear { weight, bias } => {
                let layer = layer(weight, bias);
                own = layer.trained;
                Work::Linear(layer)
            }
            Op::LayerNorm { epsilon, affine } => {
                let Some(Affine { scale, shift }) = affine else {
                    return Err(refused("has no scale and shift"));
                };
                own = trained(scale) || trained(shift);
                Work::LayerNorm {
                    epsilon: *epsilon,
                    scale: place(scale),
                    shift: place(shift),
                }
            }
            Op::Gelu => Work::Gelu,
            Op::Attention { scale } => Work::Attention { scale: *scale },
            Op::Add => {
                if node.from.iter().any(|f| shapes[*f] != shapes[n]) {
                    return Err(refused("of values of different shapes is not trained yet"));
                }
                Work::Add
            }
            Op::Reshape { .. } => Work::Same,
            Op::Transpose { order } => Work::Transpose(order.clone()),
            Op::Concat { axis } => Work::Concat(*axis),
            Op::Slice { axis, start, end } => {
                let (start, _) = slice_bounds(shapes[node.from[0]][*axis], *start, *end);
                Work::Slice { axis: *axis, start }
            }
            _ => return Err(refused("is not trained yet among tokens")),
        };
        let wanted = own || node.from.iter().any(|f| steps[*f].wanted);
        steps.push(Step {
            work,
            from: node.from.clone(),
            shape: shapes[n].clone(),
            wanted,
            drops: false,
        });
    }
    Ok(steps)
}

/// Whose values are dropped by chance: what is added to others by a linear layer, and what each
/// result's last layer is given.
pub(super) fn dropped(graph: &Graph) -> Vec<usize> {
    let is_linear = |n: &usize| matches!(graph.nodes[*n].op, Op::Linear { .. });
    let added = graph.nodes.iter().filter(|node| node.op == Op::Add);
    let added = added.flat_map(|node| node.from.iter().copied().filter(is_linear));
    let last = graph.outputs.iter().copied().filter(is_linear);
    let given = last.filter_map(|n| graph.nodes[n].from.first().copied());
    added.chain(given).filter(|n| *n > 0).collect()
}
