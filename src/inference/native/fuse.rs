//! Which operations are done together with the one before them.

use crate::kernels::Activation;
use crate::model::graph::{Graph, Op};

/// What a node's only user wants done while the node's value is still in registers.
#[derive(Clone, Debug, Default)]
pub struct Fused {
    /// The stored norm behind a convolution, folded into its weights.
    pub batch_norm: Option<usize>,
    /// The other operand of a sum behind a convolution, when it is computed before.
    pub residual: Option<usize>,
    /// The activation at the end.
    pub activation: Activation,
    /// Whether a norm needs the sums of the result.
    pub moments: bool,
    /// Last node that is done with this one.
    pub result: Option<usize>,
}

/// The activation of an operation, if the kernels have it.
pub fn activation_of(op: &Op) -> Option<Activation> {
    match op {
        Op::Relu => Some(Activation::Relu),
        Op::LeakyRelu { slope } => Some(Activation::LeakyRelu(*slope)),
        Op::Elu { alpha } if *alpha == 1.0 => Some(Activation::Elu),
        Op::Gelu => Some(Activation::Gelu),
        Op::Silu => Some(Activation::Silu),
        Op::Sigmoid => Some(Activation::Sigmoid),
        Op::Tanh => Some(Activation::Tanh),
        _ => None,
    }
}

/// The only user of each node; `None` for several, or for a result of the graph.
pub fn only_users(graph: &Graph) -> Vec<Option<usize>> {
    let mut users = vec![Vec::new(); graph.nodes.len()];
    for (n, node) in graph.nodes.iter().enumerate() {
        for from in &node.from {
            users[*from].push(n);
        }
    }
    for output in &graph.outputs {
        users[*output].extend([usize::MAX, usize::MAX]);
    }
    users
        .iter()
        .map(|users| match users.as_slice() {
            [one] => Some(*one),
            _ => None,
        })
        .collect()
}

/// What is done together with each node.
pub fn fuse(graph: &Graph) -> Vec<Fused> {
    let only = only_users(graph);
    let op = |n: usize| &graph.nodes[n].op;
    (0..graph.nodes.len())
        .map(|n| {
            let mut fused = Fused::default();
            let mut at = n;
            let is_conv = matches!(op(n), Op::Conv { .. });
            if !is_conv && !matches!(op(n), Op::Add) {
                return fused;
            }
            if is_conv {
                if let Some(next) = only[at]
                    && matches!(op(next), Op::BatchNorm { .. })
                {
                    fused.batch_norm = Some(next);
                    at = next;
                }
                if let Some(next) = only[at]
                    && matches!(op(next), Op::Add)
                {
                    let from = &graph.nodes[next].from;
                    let other = if from[0] == at { from[1] } else { from[0] };
                    if other < n {
                        fused.residual = Some(other);
                        at = next;
                    }
                }
            }
            if let Some(next) = only[at]
                && let Some(activation) = activation_of(op(next))
            {
                fused.activation = activation;
                at = next;
            }
            let wants =
                |user: usize| matches!(op(user), Op::InstanceNorm { .. } | Op::GroupNorm { .. });
            fused.moments = is_conv
                && graph
                    .nodes
                    .iter()
                    .enumerate()
                    .any(|(user, node)| wants(user) && node.from.contains(&at));
            fused.result = (at != n).then_some(at);
            fused
        })
        .collect()
}
