//! What a run needs, found by walking through it without computing.

use super::Native;
use super::fuse::activation_of;
use super::value::dims_of;
use crate::inference::Error;
use crate::inference::tensor::Program;
use crate::kernels::{Rates, blocked_floats};
use crate::model::graph::Op;

/// Floats of a value: in blocks on a grid, plain otherwise.
fn floats(shape: &[usize]) -> usize {
    if (3..=5).contains(&shape.len()) && shape[0] == 1 {
        blocked_floats(dims_of(shape), shape[1])
    } else {
        shape.iter().product()
    }
}

/// Whether an operation only notes what is to be done, or works in place.
fn takes_no_memory(op: &Op) -> bool {
    activation_of(op).is_some()
        || matches!(
            op,
            Op::InstanceNorm { .. } | Op::GroupNorm { .. } | Op::BatchNorm { .. } | Op::Add
        )
}

/// Peak bytes: values that live together, with scratch, and packed weights.
pub fn bytes(native: &Native, spatial: &[usize]) -> Result<u64, Error> {
    let (program, fused) = (&native.program, &native.fused);
    let shapes = program.shapes(spatial)?;
    let nodes = &program.graph().nodes;
    let mut last = vec![0; nodes.len()];
    for (n, node) in nodes.iter().enumerate() {
        node.from.iter().for_each(|from| last[*from] = n);
    }
    for output in &program.graph().outputs {
        last[*output] = nodes.len();
    }
    // Where a value's memory was made: norms and activations pass it on.
    let mut home: Vec<usize> = (0..nodes.len()).collect();
    for (n, node) in nodes.iter().enumerate() {
        if takes_no_memory(&node.op)
            && let Some(from) = node.from.first()
        {
            home[n] = home[*from];
            let until = last[n];
            let place = home[n];
            last[place] = last[place].max(until);
        }
        if let Some(result) = fused[n].result {
            last[n] = last[n].max(last[result]);
        }
    }
    let threads = rayon::current_num_threads();
    let (mut alive, mut peak) = (0, 0);
    for (n, node) in nodes.iter().enumerate() {
        let new = if home[n] == n {
            4 * floats(&shapes[n])
        } else {
            0
        };
        let from = || dims_of(&shapes[node.from[0]]);
        let scratch = match (native.convs.get(&n), native.transposed.get(&n)) {
            (Some(conv), _) => {
                let settled =
                    takes_no_memory(&nodes[node.from[0]].op) && conv.wants_plain_input(from());
                let copy = if settled {
                    4 * floats(&shapes[node.from[0]])
                } else {
                    0
                };
                copy + conv.scratch_bytes(from(), threads)
            }
            (_, Some(conv)) => conv.scratch_bytes(from(), threads),
            _ => 0,
        };
        alive += new;
        peak = peak.max(alive + scratch);
        for (m, place) in home.iter().enumerate().take(n + 1) {
            if *place == m && last[m] == n {
                alive -= 4 * floats(&shapes[m]);
            }
        }
    }
    Ok(peak as u64 + native.weight_bytes())
}

/// Seconds that a run is expected to take.
pub fn secs(native: &Native, spatial: &[usize], rates: &Rates) -> Result<f64, Error> {
    let program = &native.program;
    let shapes = program.shapes(spatial)?;
    let nodes = &program.graph().nodes;
    let bytes = |n: usize| 4.0 * floats(&shapes[n]) as f64;
    let mut all = 0.0;
    for (n, node) in nodes.iter().enumerate().skip(1) {
        let from = || dims_of(&shapes[node.from[0]]);
        let passes = || node.from.iter().map(|f| bytes(*f)).sum::<f64>() + bytes(n);
        all += match (native.convs.get(&n), native.transposed.get(&n)) {
            (Some(conv), _) => conv.expected_secs(from(), rates),
            // A norm that waits is applied before.
            (_, Some(conv)) => {
                conv.expected_secs(from(), rates) + 2.0 * bytes(node.from[0]) * rates.byte_secs
            }
            _ if takes_no_memory(&node.op) && !matches!(node.op, Op::Add) => 0.0,
            _ => passes() * rates.byte_secs,
        };
    }
    Ok(all)
}

/// Multiplications and additions of convolutions and products.
pub fn flops(program: &Program, spatial: &[usize]) -> Result<f64, Error> {
    let shapes = program.shapes(spatial)?;
    let count = |shape: &[usize]| shape.iter().map(|n| *n as f64).product::<f64>();
    let graph = program.graph();
    Ok(graph
        .nodes
        .iter()
        .zip(&shapes)
        .map(|(node, shape)| match &node.op {
            Op::Conv { weight, .. } => {
                2.0 * count(shape) * count(&program.weight(weight).shape[1..])
            }
            Op::ConvTranspose { weight, .. } => {
                2.0 * count(&shapes[node.from[0]]) * count(&program.weight(weight).shape[1..])
            }
            Op::Linear { weight, .. } => {
                2.0 * count(shape) * program.weight(weight).shape[1] as f64
            }
            Op::MatMul => {
                let a = &shapes[node.from[0]];
                2.0 * count(shape) * a[a.len() - 1] as f64
            }
            Op::Attention { .. } => {
                let [q, k] = [&shapes[node.from[0]], &shapes[node.from[1]]];
                2.0 * count(q) * k[2] as f64 + 2.0 * count(shape) * k[2] as f64
            }
            Op::WindowAttention { window, .. } => {
                4.0 * count(shape) * window.iter().product::<usize>() as f64
            }
            _ => 0.0,
        })
        .sum())
}
