//! A compact residual network (after He et al. 2016): basic blocks, mean over the grid, classes.

use super::blocks::{Builder, NormKind};
use super::check_widths;
use crate::model::graph::{Graph, Op};
use crate::training::parameters::Needed;

/// Settings of a compact residual network.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Residual {
    /// Channels of each stage; the grid is halved before every stage but the first.
    #[serde(default = "widths")]
    pub widths: Vec<usize>,
    /// Blocks of two convolutions in each stage.
    #[serde(default = "blocks")]
    pub blocks: usize,
    /// Step of the first convolution: 1 for small images, 2 or 4 for large ones.
    #[serde(default = "stem_stride")]
    pub stem_stride: usize,
    /// The norm behind each convolution.
    #[serde(default)]
    pub norm: NormKind,
    /// Dropout before the last layer while training, 0 to below 1.
    #[serde(default)]
    pub dropout: f32,
}

fn widths() -> Vec<usize> {
    vec![16, 32, 64, 128]
}

const fn blocks() -> usize {
    1
}

const fn stem_stride() -> usize {
    1
}

impl Default for Residual {
    fn default() -> Self {
        Self {
            widths: widths(),
            blocks: blocks(),
            stem_stride: stem_stride(),
            norm: NormKind::default(),
            dropout: 0.0,
        }
    }
}

impl Residual {
    pub(super) fn build(
        &self,
        channels: usize,
        axes: usize,
        classes: usize,
    ) -> Result<(Graph, Vec<Needed>), String> {
        check_widths(&self.widths)?;
        if !(1..=16).contains(&self.blocks) || !(1..=4).contains(&self.stem_stride) {
            return Err(format!(
                "{} blocks, a stem of stride {}",
                self.blocks, self.stem_stride
            ));
        }
        let mut b = Builder::new(channels, axes, self.norm, 0.0);
        let mut width = self.widths[0];
        let mut x = b.layer("stem", 0, [channels, width], self.stem_stride, 1);
        for (stage, &next) in self.widths.iter().enumerate() {
            for block in 0..self.blocks {
                let name = format!("stage{stage}.block{block}");
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let first = b.layer(&format!("{name}.0"), x, [width, next], stride, 1);
                let second = b.conv(&format!("{name}.1.conv"), first, [next; 2], 3, 1, 1, false);
                let second = b.normalize(&format!("{name}.1.norm"), second, next);
                let skip = if stride == 1 && width == next {
                    x
                } else {
                    let skip = format!("{name}.skip");
                    let conv = b.conv(
                        &format!("{skip}.conv"),
                        x,
                        [width, next],
                        1,
                        stride,
                        1,
                        false,
                    );
                    b.normalize(&format!("{skip}.norm"), conv, next)
                };
                let sum = b.graph.push(Op::Add, &[second, skip]);
                x = b.activate(sum);
                width = next;
            }
        }
        b.classify("head", x, width, classes);
        Ok((b.graph, b.needed))
    }
}
