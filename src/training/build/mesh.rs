//! MeshNet (Fedorov et al. 2017): convolutions with growing and shrinking dilation, one grid.

use super::blocks::{Builder, NormKind};
use super::check_widths;
use crate::model::graph::Graph;
use crate::training::parameters::Needed;

/// Settings of a MeshNet.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mesh {
    /// Channels of all layers.
    #[serde(default = "width")]
    pub width: usize,
    /// Distance of taps, layer by layer.
    #[serde(default = "dilations")]
    pub dilations: Vec<usize>,
    /// The norm behind each convolution.
    #[serde(default)]
    pub norm: NormKind,
    /// Dropout before the last layer while training, 0 to below 1.
    #[serde(default)]
    pub dropout: f32,
}

const fn width() -> usize {
    21
}

fn dilations() -> Vec<usize> {
    vec![1, 2, 4, 8, 16, 8, 4, 2, 1]
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            width: width(),
            dilations: dilations(),
            norm: NormKind::default(),
            dropout: 0.0,
        }
    }
}

impl Mesh {
    pub(super) fn build(
        &self,
        channels: usize,
        axes: usize,
        classes: usize,
    ) -> Result<(Graph, Vec<Needed>), String> {
        check_widths(&[self.width])?;
        let dilations = &self.dilations;
        if dilations.is_empty()
            || dilations.len() > 32
            || dilations.iter().any(|d| !(1..=64).contains(d))
        {
            return Err(format!("dilations {dilations:?}"));
        }
        let mut b = Builder::new(channels, axes, self.norm, 0.0);
        let (mut x, mut before) = (0, channels);
        for (n, dilation) in dilations.iter().enumerate() {
            x = b.layer(&format!("layer{n}"), x, [before, self.width], 1, *dilation);
            before = self.width;
        }
        let last = b.conv("head", x, [before, classes], 1, 1, 1, true);
        b.graph.outputs = vec![last];
        Ok((b.graph, b.needed))
    }
}
