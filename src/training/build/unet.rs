//! U-Net: two convolutions at each size, down by strides, up by transposed convolutions, skips.

use super::blocks::{Builder, NormKind};
use super::check_widths;
use crate::model::graph::{Graph, Op};
use crate::training::parameters::Needed;

/// Settings of a U-Net.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unet {
    /// Channels at each size, the full one first; every step down halves the grid.
    #[serde(default = "widths")]
    pub widths: Vec<usize>,
    /// The norm behind each convolution.
    #[serde(default = "instance")]
    pub norm: NormKind,
    /// Dropout before the last layer while training, 0 to below 1.
    #[serde(default)]
    pub dropout: f32,
}

fn widths() -> Vec<usize> {
    vec![16, 32, 64, 128]
}

const fn instance() -> NormKind {
    NormKind::Instance
}

impl Default for Unet {
    fn default() -> Self {
        Self {
            widths: widths(),
            norm: instance(),
            dropout: 0.0,
        }
    }
}

/// Slope of the activations, nnU-Net's.
const SLOPE: f32 = 0.01;

impl Unet {
    pub(super) fn build(
        &self,
        channels: usize,
        axes: usize,
        classes: usize,
    ) -> Result<(Graph, Vec<Needed>), String> {
        check_widths(&self.widths)?;
        let mut b = Builder::new(channels, axes, self.norm, SLOPE);
        let (mut x, mut width) = (0, channels);
        let mut skips = Vec::new();
        for (level, &next) in self.widths.iter().enumerate() {
            let stride = if level == 0 { 1 } else { 2 };
            x = b.layer(&format!("down{level}.0"), x, [width, next], stride, 1);
            x = b.layer(&format!("down{level}.1"), x, [next; 2], 1, 1);
            skips.push((x, next));
            width = next;
        }
        skips.pop();
        for (level, (skip, next)) in skips.into_iter().enumerate().rev() {
            let up = b.up(&format!("up{level}.conv"), x, [width, next]);
            let both = b.graph.push(Op::Concat { axis: 1 }, &[up, skip]);
            x = b.layer(&format!("up{level}.0"), both, [2 * next, next], 1, 1);
            x = b.layer(&format!("up{level}.1"), x, [next; 2], 1, 1);
            width = next;
        }
        let last = b.conv("head", x, [width, classes], 1, 1, 1, true);
        b.graph.outputs = vec![last];
        Ok((b.graph, b.needed))
    }
}
