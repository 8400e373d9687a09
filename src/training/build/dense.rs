//! DenseNet-121 (Huang et al. 2017), tensors named as torchvision names them.

use super::blocks::{Builder, NormKind};
use crate::model::graph::{Graph, Op, Pool};
use crate::training::parameters::Needed;

/// Settings of a DenseNet-121.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dense {
    /// Dropout before the last layer while training, 0 to below 1.
    #[serde(default)]
    pub dropout: f32,
}

const LAYERS: [usize; 4] = [6, 12, 24, 16];
const GROWTH: usize = 32;

impl Dense {
    pub(super) fn build(channels: usize, axes: usize, classes: usize) -> (Graph, Vec<Needed>) {
        let mut b = Builder::new(channels, axes, NormKind::Batch, 0.0);
        let mut width = 2 * GROWTH;
        let mut x = b.conv("features.conv0", 0, [channels, width], 7, 2, 1, false);
        x = b.normalize("features.norm0", x, width);
        x = b.activate(x);
        let pool = |kernel: usize, around: usize| Pool {
            kernel: vec![kernel; axes],
            stride: vec![2; axes],
            padding: vec![[around; 2]; axes],
            ceil: false,
        };
        x = b.graph.push(Op::MaxPool(pool(3, 1)), &[x]);
        for (block, layers) in LAYERS.into_iter().enumerate() {
            for layer in 0..layers {
                let name = format!("features.denseblock{}.denselayer{}", block + 1, layer + 1);
                let norm = b.normalize(&format!("{name}.norm1"), x, width);
                let a = b.activate(norm);
                let inner = 4 * GROWTH;
                let a = b.conv(&format!("{name}.conv1"), a, [width, inner], 1, 1, 1, false);
                let a = b.normalize(&format!("{name}.norm2"), a, inner);
                let a = b.activate(a);
                let new = b.conv(&format!("{name}.conv2"), a, [inner, GROWTH], 3, 1, 1, false);
                x = b.graph.push(Op::Concat { axis: 1 }, &[x, new]);
                width += GROWTH;
            }
            if block + 1 < LAYERS.len() {
                let name = format!("features.transition{}", block + 1);
                let a = b.normalize(&format!("{name}.norm"), x, width);
                let a = b.activate(a);
                let half = width / 2;
                let a = b.conv(&format!("{name}.conv"), a, [width, half], 1, 1, 1, false);
                let mean = Op::AveragePool {
                    pool: pool(2, 0),
                    count_padding: true,
                };
                x = b.graph.push(mean, &[a]);
                width = half;
            }
        }
        x = b.normalize("features.norm5", x, width);
        x = b.activate(x);
        b.classify("classifier", x, width, classes);
        (b.graph, b.needed)
    }
}
