//! The graph of a U-Net over its checkpoint's tensor names, and the tensors that it needs.
//!
//! A checkpoint names most tensors several times: modules hold their layers by name and again in
//! order (`conv`, `all_modules.0`), and the decoder holds the encoder. The first name is used; the
//! others must be the same tensor.

use std::collections::BTreeMap;

use super::architecture::{Architecture, Encoder, Nonlinearity, Norm};
use crate::import::pytorch::{self, Checkpoint, TensorRef};
use crate::model::graph::{Affine, Graph, Op, Pool};

/// A graph and what its checkpoint must hold.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) graph: Graph,
    /// Name, shape and other names of each tensor, in the graph's order.
    needed: Vec<Needed>,
    /// Tensors of a checkpoint that prediction does not use: the heads of deep supervision.
    spare: Vec<String>,
}

#[derive(Debug)]
struct Needed {
    name: String,
    shape: Vec<usize>,
    also: Vec<String>,
}

/// Builds the network for `channels` inputs and `heads` outputs.
pub(super) fn build(architecture: &Architecture, channels: usize, heads: usize) -> Built {
    let mut builder = Builder {
        a: architecture,
        graph: Graph::new(channels, architecture.axes),
        needed: Vec::new(),
        spare: Vec::new(),
    };
    let skips = builder.encoder(channels);
    let logits = builder.decoder(&skips, heads);
    builder.graph.outputs = vec![logits];
    Built {
        graph: builder.graph,
        needed: builder.needed,
        spare: builder.spare,
    }
}

struct Builder<'a> {
    a: &'a Architecture,
    graph: Graph,
    needed: Vec<Needed>,
    spare: Vec<String>,
}

/// A convolution with what follows it.
struct Step<'s> {
    /// E.g. `encoder.stages.0.0.convs.0`.
    name: &'s str,
    inputs: usize,
    outputs: usize,
    kernel: &'s [usize],
    stride: &'s [usize],
    bias: bool,
    dropout: bool,
    nonlinearity: bool,
}

impl Builder<'_> {
    fn need(&mut self, name: String, shape: Vec<usize>, also: Vec<String>) -> String {
        let also = also
            .into_iter()
            // The decoder holds the encoder.
            .chain(std::iter::once(name.clone()))
            .flat_map(|n| {
                let again = n.starts_with("encoder.").then(|| format!("decoder.{n}"));
                [Some(n), again]
            })
            .flatten()
            .filter(|n| *n != name)
            .collect();
        self.needed.push(Needed {
            name: name.clone(),
            shape,
            also,
        });
        name
    }

    /// `ConvDropoutNormReLU`.
    fn convolution(&mut self, from: usize, step: &Step) -> usize {
        let name = step.name;
        let ones = vec![1; self.a.axes];
        let weight = self.need(
            format!("{name}.conv.weight"),
            [&[step.outputs, step.inputs], step.kernel].concat(),
            vec![format!("{name}.all_modules.0.weight")],
        );
        let bias = step.bias.then(|| {
            self.need(
                format!("{name}.conv.bias"),
                vec![step.outputs],
                vec![format!("{name}.all_modules.0.bias")],
            )
        });
        let mut value = self.graph.push(
            Op::Conv {
                weight,
                bias,
                stride: step.stride.to_vec(),
                padding: step.kernel.iter().map(|k| [(k - 1) / 2; 2]).collect(),
                dilation: ones,
                groups: 1,
            },
            &[from],
        );
        let nonlinearity = self.a.nonlinearity.filter(|_| step.nonlinearity);
        // Only where there is something to exchange it with.
        let first = self.a.nonlinearity_first && nonlinearity.is_some() && self.a.norm.is_some();
        let place = 1 + usize::from(step.dropout && self.a.dropout) + usize::from(first);
        if first {
            value = self.nonlinearity(value);
        }
        value = self.norm(value, name, place, step.outputs);
        if nonlinearity.is_some() && !first {
            value = self.nonlinearity(value);
        }
        value
    }

    fn norm(&mut self, from: usize, name: &str, place: usize, channels: usize) -> usize {
        let Some(norm) = self.a.norm else {
            return from;
        };
        let mut tensor = |part: &str| {
            self.need(
                format!("{name}.norm.{part}"),
                vec![channels],
                vec![format!("{name}.all_modules.{place}.{part}")],
            )
        };
        let op = match norm {
            Norm::Instance { epsilon, affine } => Op::InstanceNorm {
                epsilon,
                affine: affine.then(|| Affine {
                    scale: tensor("weight"),
                    shift: tensor("bias"),
                }),
            },
            Norm::Batch { epsilon, affine } => Op::BatchNorm {
                epsilon,
                mean: tensor("running_mean"),
                variance: tensor("running_var"),
                affine: affine.then(|| Affine {
                    scale: tensor("weight"),
                    shift: tensor("bias"),
                }),
            },
        };
        if matches!(norm, Norm::Batch { .. }) {
            for n in ["norm".to_owned(), format!("all_modules.{place}")] {
                let counter = format!("{name}.{n}.num_batches_tracked");
                self.spare.push(format!("decoder.{counter}"));
                self.spare.push(counter);
            }
        }
        self.graph.push(op, &[from])
    }

    fn nonlinearity(&mut self, from: usize) -> usize {
        let op = match self.a.nonlinearity {
            None => return from,
            Some(Nonlinearity::LeakyRelu { slope }) => Op::LeakyRelu { slope },
            Some(Nonlinearity::Relu) => Op::Relu,
            Some(Nonlinearity::Elu { alpha }) => Op::Elu { alpha },
            Some(Nonlinearity::Gelu) => Op::Gelu,
            Some(Nonlinearity::Silu) => Op::Silu,
        };
        self.graph.push(op, &[from])
    }

    /// `StackedConvBlocks`.
    fn stack(
        &mut self,
        mut value: usize,
        name: &str,
        count: usize,
        channels: [usize; 2],
        kernel: &[usize],
        stride: &[usize],
    ) -> usize {
        let ones = vec![1; self.a.axes];
        for n in 0..count {
            value = self.convolution(
                value,
                &Step {
                    name: &format!("{name}.convs.{n}"),
                    inputs: channels[usize::from(n > 0)],
                    outputs: channels[1],
                    kernel,
                    stride: if n == 0 { stride } else { &ones },
                    bias: self.a.bias,
                    dropout: true,
                    nonlinearity: true,
                },
            );
        }
        value
    }

    /// Values of all stages, from full resolution down.
    fn encoder(&mut self, channels: usize) -> Vec<usize> {
        let a = self.a;
        let ones = vec![1; a.axes];
        let (mut value, mut inputs) = (0, channels);
        if let Encoder::Residual { stem } = a.encoder {
            let channels = [inputs, stem];
            value = self.stack(value, "encoder.stem", 1, channels, &a.kernels[0], &ones);
            inputs = stem;
        }
        let mut skips = Vec::new();
        for (s, &outputs) in a.features.iter().enumerate() {
            let (kernel, stride) = (&a.kernels[s], &a.strides[s]);
            if a.encoder == Encoder::Plain {
                let name = format!("encoder.stages.{s}.0");
                value = self.stack(value, &name, a.blocks[s], [inputs, outputs], kernel, stride);
            } else {
                for b in 0..a.blocks[s] {
                    let name = format!("encoder.stages.{s}.blocks.{b}");
                    let (inputs, stride) = if b == 0 {
                        (inputs, stride)
                    } else {
                        (outputs, &ones)
                    };
                    value = self.residual_block(value, &name, [inputs, outputs], kernel, stride);
                }
            }
            skips.push(value);
            inputs = outputs;
        }
        skips
    }

    /// `BasicBlockD`.
    fn residual_block(
        &mut self,
        from: usize,
        name: &str,
        [inputs, outputs]: [usize; 2],
        kernel: &[usize],
        stride: &[usize],
    ) -> usize {
        let ones = vec![1; self.a.axes];
        let bias = self.a.bias;
        let strided = stride.iter().any(|s| *s != 1);
        let mut skip = from;
        if strided {
            let pool = Pool {
                kernel: stride.to_vec(),
                stride: stride.to_vec(),
                padding: vec![[0, 0]; stride.len()],
                ceil: false,
            };
            let count_padding = true;
            skip = self.graph.push(
                Op::AveragePool {
                    pool,
                    count_padding,
                },
                &[skip],
            );
        }
        if inputs != outputs {
            skip = self.convolution(
                skip,
                &Step {
                    name: &format!("{name}.skip.{}", usize::from(strided)),
                    inputs,
                    outputs,
                    kernel: &ones,
                    stride: &ones,
                    bias: false,
                    dropout: false,
                    nonlinearity: false,
                },
            );
        }
        let mut value = self.convolution(
            from,
            &Step {
                name: &format!("{name}.conv1"),
                inputs,
                outputs,
                kernel,
                stride,
                bias,
                dropout: true,
                nonlinearity: true,
            },
        );
        value = self.convolution(
            value,
            &Step {
                name: &format!("{name}.conv2"),
                inputs: outputs,
                outputs,
                kernel,
                stride: &ones,
                bias,
                dropout: false,
                nonlinearity: false,
            },
        );
        value = self.graph.push(Op::Add, &[value, skip]);
        self.nonlinearity(value)
    }

    /// `UNetDecoder`, with the head of full resolution alone.
    fn decoder(&mut self, skips: &[usize], heads: usize) -> usize {
        let a = self.a;
        let ones = vec![1; a.axes];
        let stages = a.features.len();
        let mut value = skips[stages - 1];
        for s in 0..stages - 1 {
            let (below, here) = (stages - 1 - s, stages - 2 - s);
            let (inputs, outputs) = (a.features[below], a.features[here]);
            let stride = &a.strides[below];
            let name = format!("decoder.transpconvs.{s}");
            let shape = [&[inputs, outputs], stride.as_slice()].concat();
            let weight = self.need(format!("{name}.weight"), shape, Vec::new());
            let bias = a
                .bias
                .then(|| self.need(format!("{name}.bias"), vec![outputs], Vec::new()));
            value = self.graph.push(
                Op::ConvTranspose {
                    weight,
                    bias,
                    stride: stride.clone(),
                    padding: vec![[0, 0]; a.axes],
                    output_padding: vec![0; a.axes],
                    groups: 1,
                },
                &[value],
            );
            value = self
                .graph
                .push(Op::Concat { axis: 1 }, &[value, skips[here]]);
            value = self.stack(
                value,
                &format!("decoder.stages.{s}"),
                a.decoder_convolutions[s],
                [2 * outputs, outputs],
                &a.kernels[here],
                &ones,
            );
            let head = format!("decoder.seg_layers.{s}");
            if s + 2 < stages {
                self.spare.push(format!("{head}.weight"));
                self.spare.push(format!("{head}.bias"));
            }
        }
        let head = format!("decoder.seg_layers.{}", stages - 2);
        let shape = [&[heads, a.features[0]], ones.as_slice()].concat();
        let weight = self.need(format!("{head}.weight"), shape, Vec::new());
        let bias = Some(self.need(format!("{head}.bias"), vec![heads], Vec::new()));
        self.graph.push(
            Op::Conv {
                weight,
                bias,
                stride: ones.clone(),
                padding: vec![[0, 0]; a.axes],
                dilation: ones,
                groups: 1,
            },
            &[value],
        )
    }
}

impl Built {
    /// The tensors of a checkpoint under the graph's names. None may be missing, of another shape,
    /// or left over; the inner `Err` names it.
    pub(super) fn tensors(
        &self,
        checkpoint: &Checkpoint,
    ) -> Result<Result<Vec<(String, TensorRef)>, String>, pytorch::Error> {
        let weights = checkpoint.weights()?;
        // Trained on several devices, every name starts so.
        let plain = |name: &str| name.strip_prefix("module.").unwrap_or(name).to_owned();
        let mut left: BTreeMap<String, &TensorRef> = BTreeMap::new();
        for (name, tensor) in weights {
            if left.insert(plain(name), tensor).is_some() {
                return Ok(Err(format!("the tensor {} is there twice", plain(name))));
            }
        }
        let mut found = Vec::with_capacity(self.needed.len());
        for needed in &self.needed {
            let name = &needed.name;
            let Some(tensor) = left.remove(name) else {
                return Ok(Err(format!("the tensor {name} is missing")));
            };
            if tensor.shape() != needed.shape {
                return Ok(Err(format!(
                    "the tensor {name} has shape {:?}, the plans say {:?}",
                    tensor.shape(),
                    needed.shape
                )));
            }
            for also in &needed.also {
                let Some(again) = left.remove(also) else {
                    continue;
                };
                if again != tensor
                    && checkpoint.tensor_f32(again)? != checkpoint.tensor_f32(tensor)?
                {
                    return Ok(Err(format!("the tensors {name} and {also} are different")));
                }
            }
            found.push((name.clone(), tensor.clone()));
        }
        for name in &self.spare {
            left.remove(name);
        }
        Ok(match left.keys().next() {
            None => Ok(found),
            Some(name) => Err(format!("the tensor {name} is not used by this network")),
        })
    }

    /// Checks the whole graph for a patch: sizes that do not divide end here.
    pub(super) fn check(
        &self,
        patch: &[usize],
        tensors: &[(String, TensorRef)],
        heads: usize,
    ) -> Result<(), String> {
        let shapes: BTreeMap<&str, &[usize]> = tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor.shape()))
            .collect();
        let values = self
            .graph
            .shapes(patch, &|name| shapes.get(name).map(|s| s.to_vec()))
            .map_err(|what| format!("the network does not fit patches of {patch:?}: {what}"))?;
        let logits = &values[self.graph.outputs[0]];
        if *logits != [&[1, heads], patch].concat() {
            return Err(format!("patches of {patch:?} give results of {logits:?}"));
        }
        Ok(())
    }
}
