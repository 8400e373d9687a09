//! Layers with their tensors, named as PyTorch names them.

use crate::model::graph::{Affine, Graph, Op};
use crate::training::parameters::{Needed, Role, Start};

/// The norm behind convolutions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormKind {
    /// Over the batch; running statistics afterwards.
    #[default]
    Batch,
    /// Each channel of each image.
    Instance,
    /// Eight groups of channels of each image.
    Group,
}

/// A graph on its way, with its tensors.
pub(super) struct Builder {
    pub graph: Graph,
    pub needed: Vec<Needed>,
    pub axes: usize,
    pub norm: NormKind,
    /// Slope below zero of the activations; 0 is ReLU.
    pub slope: f32,
}

impl Builder {
    pub fn new(channels: usize, axes: usize, norm: NormKind, slope: f32) -> Self {
        Self {
            graph: Graph::new(channels, axes),
            needed: Vec::new(),
            axes,
            norm,
            slope,
        }
    }

    fn need(&mut self, name: &str, shape: Vec<usize>, role: Role, start: Start) -> String {
        self.needed.push(Needed {
            name: name.to_owned(),
            shape,
            role,
            start,
        });
        name.to_owned()
    }

    /// A convolution that keeps the grid, or takes every `stride`th point of it.
    pub fn conv(
        &mut self,
        name: &str,
        from: usize,
        [input, output]: [usize; 2],
        kernel: usize,
        stride: usize,
        dilation: usize,
        bias: bool,
    ) -> usize {
        let axes = self.axes;
        let shape = [vec![output, input], vec![kernel; axes]].concat();
        let fan_in = input * kernel.pow(axes as u32);
        let weight = self.need(
            &format!("{name}.weight"),
            shape,
            Role::Weight,
            Start::He { fan_in },
        );
        let bias = bias.then(|| {
            let start = Start::Uniform { fan_in };
            self.need(&format!("{name}.bias"), vec![output], Role::Offset, start)
        });
        let around = (kernel - 1) / 2 * dilation;
        let op = Op::Conv {
            weight,
            bias,
            stride: vec![stride; axes],
            padding: vec![[around; 2]; axes],
            dilation: vec![dilation; axes],
            groups: 1,
        };
        self.graph.push(op, &[from])
    }

    /// Twice the grid along each axis.
    pub fn up(&mut self, name: &str, from: usize, [input, output]: [usize; 2]) -> usize {
        let axes = self.axes;
        let shape = [vec![input, output], vec![2; axes]].concat();
        // Each output point is the sum over the input channels of one tap.
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let fan_in = input;
        let weight = self.need(&weight, shape, Role::Weight, Start::He { fan_in });
        let bias = self.need(&bias, vec![output], Role::Offset, Start::Fill(0.0));
        let op = Op::ConvTranspose {
            weight,
            bias: Some(bias),
            stride: vec![2; axes],
            padding: vec![[0; 2]; axes],
            output_padding: vec![0; axes],
            groups: 1,
        };
        self.graph.push(op, &[from])
    }

    /// The norm of the network.
    pub fn normalize(&mut self, name: &str, from: usize, channels: usize) -> usize {
        let kind = self.norm;
        let mut need = |part: &str, role, value| {
            let start = Start::Fill(value);
            self.need(&format!("{name}.{part}"), vec![channels], role, start)
        };
        let affine = Some(Affine {
            scale: need("weight", Role::Offset, 1.0),
            shift: need("bias", Role::Offset, 0.0),
        });
        let epsilon = 1e-5;
        let op = match kind {
            NormKind::Batch => Op::BatchNorm {
                epsilon,
                mean: need("running_mean", Role::Mean, 0.0),
                variance: need("running_var", Role::Variance, 1.0),
                affine,
            },
            NormKind::Instance => Op::InstanceNorm { epsilon, affine },
            NormKind::Group => {
                let groups = (1..=8).rev().find(|g| channels.is_multiple_of(*g));
                Op::GroupNorm {
                    groups: groups.expect("one divides everything"),
                    epsilon,
                    affine,
                }
            }
        };
        self.graph.push(op, &[from])
    }

    pub fn activate(&mut self, from: usize) -> usize {
        let op = if self.slope == 0.0 {
            Op::Relu
        } else {
            Op::LeakyRelu { slope: self.slope }
        };
        self.graph.push(op, &[from])
    }

    /// Convolution, norm, activation.
    pub fn layer(
        &mut self,
        name: &str,
        from: usize,
        channels: [usize; 2],
        stride: usize,
        dilation: usize,
    ) -> usize {
        let conv = self.conv(
            &format!("{name}.conv"),
            from,
            channels,
            3,
            stride,
            dilation,
            false,
        );
        let norm = self.normalize(&format!("{name}.norm"), conv, channels[1]);
        self.activate(norm)
    }

    /// Mean over the grid, then one value for each class.
    pub fn classify(&mut self, name: &str, from: usize, input: usize, classes: usize) {
        let mean = self.graph.push(Op::GlobalAveragePool, &[from]);
        let row = Op::Reshape { shape: vec![0, -1] };
        let row = self.graph.push(row, &[mean]);
        let start = Start::Uniform { fan_in: input };
        let weight = self.need(
            &format!("{name}.weight"),
            vec![classes, input],
            Role::Weight,
            start,
        );
        let bias = self.need(&format!("{name}.bias"), vec![classes], Role::Offset, start);
        let bias = Some(bias);
        let last = self.graph.push(Op::Linear { weight, bias }, &[row]);
        self.graph.outputs = vec![last];
    }
}
