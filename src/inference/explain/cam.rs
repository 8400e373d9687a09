//! Grad-CAM for networks that end in a mean over the grid and a linear layer.
//!
//! # Source
//! Selvaraju et al. 2017, "Grad-CAM". For such a head the gradient is the same at every cell, so it
//! is exact, and the map before its negative part is cut off adds up to the log-odds' part that
//! varies with the image.

use crate::inference::Error;
use crate::inference::native::{Native, Workspace};
use crate::inference::tensor::{Array, Program};
use crate::model::graph::{Graph, Op};
use crate::task::Task;

use super::Scorer;

/// A network's end: the grid of features, and the name of the weights `[classes, features]`.
pub struct Head<'a> {
    features: usize,
    weight: &'a str,
}

/// The head of a graph, when it is a mean and a linear layer.
pub fn head(graph: &Graph) -> Option<Head<'_>> {
    let [output] = graph.outputs[..] else {
        return None;
    };
    let mut at = output;
    let mut weight = None;
    loop {
        let node = &graph.nodes[at];
        let from = *node.from.first()?;
        match &node.op {
            Op::Linear { weight: name, .. } if weight.is_none() => weight = Some(name.as_str()),
            Op::Reshape { .. } => {}
            Op::GlobalAveragePool => {
                return Some(Head {
                    features: from,
                    weight: weight?,
                });
            }
            _ => return None,
        }
        at = from;
    }
}

/// Evidence per cell of the features' grid, negative parts cut off, in log-odds.
pub fn map(
    program: &Program,
    input: &Array,
    scorer: &Scorer<'_>,
    task: &Task,
) -> Result<([usize; 2], Vec<f32>), Error> {
    let (dims, all) = signed(program, input, scorer, task)?;
    Ok((dims, all.into_iter().map(|v| v.max(0.0) as f32).collect()))
}

/// The same before the cut.
fn signed(
    program: &Program,
    input: &Array,
    scorer: &Scorer<'_>,
    task: &Task,
) -> Result<([usize; 2], Vec<f64>), Error> {
    let head = head(program.graph()).ok_or_else(|| {
        let reason = "it has no Grad-CAM: it does not end in a mean and a linear layer";
        Error::Network(reason.to_owned())
    })?;
    let weights = program.weight(head.weight).clone();
    let native = Native::new(program.keeping(&[head.features]))?;
    let mut found = native.run(input, &mut Workspace::default(), task)?;
    let features = found.pop().expect("the features were asked for");
    let results = found.first().expect("a result");
    let (_, gradient) = scorer.log_odds(&results.values);
    let [1, channels, rows, columns] = features.shape[..] else {
        let shape = &features.shape;
        return Err(Error::Network(format!("features of the shape {shape:?}")));
    };
    let cells = rows * columns;
    let mut map = vec![0.0; cells];
    for (c, plane) in features.values.chunks_exact(cells).enumerate() {
        let slope: f64 = (gradient.iter().enumerate())
            .map(|(class, g)| g * f64::from(weights.values[class * channels + c]))
            .sum();
        for (to, value) in map.iter_mut().zip(plane) {
            *to += slope * f64::from(*value) / cells as f64;
        }
    }
    Ok(([rows, columns], map))
}
