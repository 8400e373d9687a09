//! `DenseNet`, MONAI's and TorchXRayVision's: every layer sees all layers before it.
//!
//! # Source
//! Huang et al., "Densely connected convolutional networks", 2017.

use super::super::config::{Component, counts};
use super::build::{Builder, Built, Window, plausible};
use super::layers::{Act, Norm, act, norm};
use super::{Network, axes_of, channels};
use crate::model::graph::Op;

/// The size of a DenseNet.
#[derive(Clone, Debug)]
pub struct DenseNet {
    /// Axes of the image.
    pub axes: usize,
    /// Channels of the image.
    pub inputs: usize,
    /// Values that come out.
    pub outputs: usize,
    /// Channels of the first convolution.
    pub first: usize,
    /// Channels that each layer adds.
    pub growth: usize,
    /// Layers of each block.
    pub blocks: Vec<usize>,
    /// Channels between a layer's convolutions, in multiples of what it adds.
    pub bottleneck: usize,
    /// Norms.
    pub norm: Norm,
    /// Activations.
    pub act: Act,
}

/// How modules are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// `denselayer1.layers.norm1`, `class_layers.out`.
    Monai,
    /// `denselayer1.norm1`, `classifier`.
    Torch,
}

impl DenseNet {
    /// The graph; its result is `[1, outputs]`.
    pub fn build(&self, names: Names) -> Built {
        let axes = self.axes;
        let mut b = Builder::new(self.inputs, axes);
        let inner = if names == Names::Monai { ".layers" } else { "" };
        let normed = |b: &mut Builder, from: usize, at: &str, n: &str, width: usize| {
            let value = b.norm(from, &format!("{at}.norm{n}"), width, &self.norm);
            b.act(value, &format!("{at}.relu{n}"), &self.act)
        };
        let first = Window::same(&vec![7; axes], &vec![2; axes]);
        let mut value = b.conv(
            0,
            "features.conv0",
            [self.inputs, self.first],
            &first,
            false,
        );
        value = normed(&mut b, value, "features", "0", self.first);
        let pool = b.pool(3, 2, 1);
        value = b.push(Op::MaxPool(pool), &[value]);
        let mut width = self.first;
        let (one, three) = (Window::one(axes), Window::three(axes));
        for (n, layers) in self.blocks.iter().enumerate() {
            for layer in 1..=*layers {
                let at = format!("features.denseblock{}.denselayer{layer}{inner}", n + 1);
                let middle = self.bottleneck * self.growth;
                let mut new = normed(&mut b, value, &at, "1", width);
                new = b.conv(new, &format!("{at}.conv1"), [width, middle], &one, false);
                new = normed(&mut b, new, &at, "2", middle);
                let conv = format!("{at}.conv2");
                new = b.conv(new, &conv, [middle, self.growth], &three, false);
                value = b.concat(&[value, new]);
                width += self.growth;
            }
            if n + 1 == self.blocks.len() {
                value = b.norm(value, "features.norm5", width, &self.norm);
            } else {
                let at = format!("features.transition{}", n + 1);
                value = normed(&mut b, value, &at, "", width);
                let conv = format!("{at}.conv");
                value = b.conv(value, &conv, [width, width / 2], &one, false);
                width /= 2;
                let pool = b.pool(2, 2, 0);
                let count_padding = true;
                let op = Op::AveragePool {
                    pool,
                    count_padding,
                };
                value = b.push(op, &[value]);
            }
        }
        let (last, head) = match names {
            Names::Monai => ("class_layers.relu", "class_layers.out"),
            Names::Torch => ("relu", "classifier"),
        };
        let act = if names == Names::Torch {
            &Act::Relu
        } else {
            &self.act
        };
        value = b.act(value, last, act);
        value = b.push(Op::GlobalAveragePool, &[value]);
        value = b.push(
            Op::Reshape {
                shape: vec![1, width as i64],
            },
            &[value],
        );
        value = b.linear(value, head, [width, self.outputs], true);
        b.finish(value)
    }
}

pub fn network(
    c: &Component<'_>,
    blocks: &[usize],
    first: usize,
    growth: usize,
) -> Result<Network, String> {
    let axes = axes_of(c, None)?;
    let blocks = match c.get("block_config")? {
        Some(node) => counts(&node)?,
        None => blocks.to_vec(),
    };
    if blocks.is_empty() || blocks.len() > 8 || blocks.iter().any(|n| !(1..=128).contains(n)) {
        return Err(format!("{}::block_config is {blocks:?}", c.key()));
    }
    let batch = Norm::Batch {
        epsilon: 1e-5,
        affine: true,
    };
    let net = DenseNet {
        axes,
        inputs: channels(c, "in_channels", None)?,
        outputs: channels(c, "out_channels", None)?,
        first: channels(c, "init_features", Some(first))?,
        growth: channels(c, "growth_rate", Some(growth))?,
        blocks,
        bottleneck: plausible(c, "bn_size", c.count("bn_size", 4)?.min(1 << 17))?,
        norm: norm(c, "norm", batch)?,
        act: act(c, "act", Act::Relu)?,
    };
    c.ignore(&["dropout_prob", "pretrained", "progress"]);
    Ok(Network {
        class: c.name.clone(),
        built: net.build(Names::Monai),
        axes,
        inputs: net.inputs,
        outputs: net.outputs,
        classifier: true,
        size: None,
        divisor: vec![1; axes],
    })
}
