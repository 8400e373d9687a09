//! A graph with the tensors that it needs, step by step.

use std::collections::BTreeMap;

use super::super::config::Component;
use super::layers::{Act, Norm};
use crate::import::pytorch::{self, Checkpoint, TensorRef};
use crate::model::graph::{Affine, Graph, Op, Pool, ResizeMode, ResizeTo};

/// Most channels of a value: more is a mistake or an attack.
const MOST_CHANNELS: usize = 1 << 16;

/// A graph over the names of a state dict.
#[derive(Debug)]
pub struct Built {
    /// The network.
    pub graph: Graph,
    /// Tensors by name, in order of use.
    pub needed: Vec<Needed>,
    /// Tensors that a state dict may hold besides: whole names, or beginnings that end in a dot.
    pub spare: Vec<String>,
    /// Beginnings of names under which a state dict holds the same tensors again.
    pub again: Vec<String>,
}

/// A tensor of the state dict.
#[derive(Debug, PartialEq)]
pub struct Needed {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// Refuses numbers of channels that no network has.
pub fn plausible(component: &Component<'_>, name: &str, value: usize) -> Result<usize, String> {
    if (1..=MOST_CHANNELS).contains(&value) {
        Ok(value)
    } else {
        Err(format!("{}::{name} is {value}", component.key()))
    }
}

/// Builds a graph; `push`-like methods give the number of the new value.
#[derive(Debug)]
pub struct Builder {
    pub axes: usize,
    pub built: Built,
}

/// Kernel, stride and padding along the spatial axes.
#[derive(Clone, Debug)]
pub struct Window {
    pub kernel: Vec<usize>,
    pub stride: Vec<usize>,
    pub padding: Vec<[usize; 2]>,
}

impl Window {
    /// As MONAI's `Convolution`: padding `(kernel − 1) / 2`.
    pub fn same(kernel: &[usize], stride: &[usize]) -> Self {
        Self {
            kernel: kernel.to_vec(),
            stride: stride.to_vec(),
            padding: kernel.iter().map(|k| [(k - 1) / 2; 2]).collect(),
        }
    }

    /// One voxel.
    pub fn one(axes: usize) -> Self {
        Self::same(&vec![1; axes], &vec![1; axes])
    }

    /// Kernel 3 and stride 1.
    pub fn three(axes: usize) -> Self {
        Self::same(&vec![3; axes], &vec![1; axes])
    }
}

impl Builder {
    pub fn new(inputs: usize, axes: usize) -> Self {
        Self {
            axes,
            built: Built {
                graph: Graph::new(inputs, axes),
                needed: Vec::new(),
                spare: Vec::new(),
                again: Vec::new(),
            },
        }
    }

    pub fn push(&mut self, op: Op, from: &[usize]) -> usize {
        self.built.graph.push(op, from)
    }

    pub fn finish(mut self, output: usize) -> Built {
        self.built.graph.outputs = vec![output];
        self.built
    }

    pub fn need(&mut self, name: String, shape: Vec<usize>) -> String {
        self.built.needed.push(Needed {
            name: name.clone(),
            shape,
        });
        name
    }

    /// A plain convolution named `{name}.weight`.
    pub fn conv(
        &mut self,
        from: usize,
        name: &str,
        [inputs, outputs]: [usize; 2],
        window: &Window,
        bias: bool,
    ) -> usize {
        let shape = [&[outputs, inputs], window.kernel.as_slice()].concat();
        let weight = self.need(format!("{name}.weight"), shape);
        let bias = bias.then(|| self.need(format!("{name}.bias"), vec![outputs]));
        let op = Op::Conv {
            weight,
            bias,
            stride: window.stride.clone(),
            padding: window.padding.clone(),
            dilation: vec![1; self.axes],
            groups: 1,
        };
        self.push(op, &[from])
    }

    /// A plain transposed convolution named `{name}.weight`.
    pub fn transposed(
        &mut self,
        from: usize,
        name: &str,
        [inputs, outputs]: [usize; 2],
        window: &Window,
        output_padding: Vec<usize>,
        bias: bool,
        groups: usize,
    ) -> usize {
        let shape = [&[inputs, outputs / groups], window.kernel.as_slice()].concat();
        let weight = self.need(format!("{name}.weight"), shape);
        let bias = bias.then(|| self.need(format!("{name}.bias"), vec![outputs]));
        let op = Op::ConvTranspose {
            weight,
            bias,
            stride: window.stride.clone(),
            padding: window.padding.clone(),
            output_padding,
            groups,
        };
        self.push(op, &[from])
    }

    /// A linear layer over the last axis.
    pub fn linear(
        &mut self,
        from: usize,
        name: &str,
        [inputs, outputs]: [usize; 2],
        bias: bool,
    ) -> usize {
        let weight = self.need(format!("{name}.weight"), vec![outputs, inputs]);
        let bias = bias.then(|| self.need(format!("{name}.bias"), vec![outputs]));
        self.push(Op::Linear { weight, bias }, &[from])
    }

    fn affine(&mut self, name: &str, channels: usize, there: bool) -> Option<Affine> {
        there.then(|| Affine {
            scale: self.need(format!("{name}.weight"), vec![channels]),
            shift: self.need(format!("{name}.bias"), vec![channels]),
        })
    }

    /// A norm of the last axis, with affine.
    pub fn layer_norm(&mut self, from: usize, name: &str, channels: usize) -> usize {
        let affine = self.affine(name, channels, true);
        let epsilon = 1e-5;
        self.push(Op::LayerNorm { epsilon, affine }, &[from])
    }

    /// A norm, if there is one.
    pub fn norm(&mut self, from: usize, name: &str, channels: usize, norm: &Norm) -> usize {
        let op = match *norm {
            Norm::None => return from,
            Norm::Instance { epsilon, affine } => Op::InstanceNorm {
                epsilon,
                affine: self.affine(name, channels, affine),
            },
            Norm::Batch { epsilon, affine } => {
                self.built.spare.push(format!("{name}.num_batches_tracked"));
                Op::BatchNorm {
                    epsilon,
                    mean: self.need(format!("{name}.running_mean"), vec![channels]),
                    variance: self.need(format!("{name}.running_var"), vec![channels]),
                    affine: self.affine(name, channels, affine),
                }
            }
            Norm::Group {
                groups,
                epsilon,
                affine,
            } => Op::GroupNorm {
                groups,
                epsilon,
                affine: self.affine(name, channels, affine),
            },
        };
        self.push(op, &[from])
    }

    /// An activation, if there is one; `name` is that of its module.
    pub fn act(&mut self, from: usize, name: &str, act: &Act) -> usize {
        let op = match *act {
            Act::None => return from,
            Act::Relu => Op::Relu,
            Act::LeakyRelu { slope } => Op::LeakyRelu { slope },
            Act::PRelu { parameters } => {
                let slope = format!("{name}.weight");
                // Modules are shared: the same name may come twice.
                if !self.built.needed.iter().any(|n| n.name == slope) {
                    self.need(slope.clone(), vec![parameters]);
                }
                Op::PRelu { slope }
            }
            Act::Elu { alpha } => Op::Elu { alpha },
            Act::Gelu => Op::Gelu,
            Act::GeluTanh => Op::GeluTanh,
            Act::Silu => Op::Silu,
            Act::Sigmoid => Op::Sigmoid,
            Act::Tanh => Op::Tanh,
        };
        self.push(op, &[from])
    }

    pub fn concat(&mut self, from: &[usize]) -> usize {
        self.push(Op::Concat { axis: 1 }, from)
    }

    pub fn add(&mut self, a: usize, b: usize) -> usize {
        self.push(Op::Add, &[a, b])
    }

    /// Twice the size, linear.
    pub fn double(&mut self, from: usize, align_corners: bool) -> usize {
        let to = ResizeTo::Factor(vec![2.0; self.axes]);
        let mode = if align_corners {
            ResizeMode::LinearAlignCorners
        } else {
            ResizeMode::Linear
        };
        self.push(Op::Resize { to, mode }, &[from])
    }

    /// Kernel and stride alike.
    pub fn pool(&self, size: usize, stride: usize, padding: usize) -> Pool {
        Pool {
            kernel: vec![size; self.axes],
            stride: vec![stride; self.axes],
            padding: vec![[padding; 2]; self.axes],
            ceil: false,
        }
    }
}

/// The tensors of a checkpoint under the graph's names. None may be missing, of another shape, or
/// left over; the inner `Err` names it.
///
/// # Errors
/// The checkpoint's.
pub fn tensors(
    built: &Built,
    checkpoint: &Checkpoint,
) -> Result<Result<Vec<(String, TensorRef)>, String>, pytorch::Error> {
    let mut left: BTreeMap<String, &TensorRef> = BTreeMap::new();
    for (name, tensor) in checkpoint.weights()? {
        // Trained on several devices, or compiled, every name starts so.
        let plain = name.strip_prefix("module.").unwrap_or(name);
        let plain = plain.strip_prefix("_orig_mod.").unwrap_or(plain);
        if left.insert(plain.to_owned(), tensor).is_some() {
            return Ok(Err(format!("the tensor {plain} is there twice")));
        }
    }
    let mut found: Vec<(String, TensorRef)> = Vec::with_capacity(built.needed.len());
    for Needed { name, shape } in &built.needed {
        let Some(tensor) = left.remove(name) else {
            return Ok(Err(format!("the tensor {name} is missing")));
        };
        if tensor.shape() != shape {
            return Ok(Err(format!(
                "the tensor {name} has shape {:?}, the configuration says {shape:?}",
                tensor.shape()
            )));
        }
        found.push((name.clone(), tensor.clone()));
    }
    let is_spare = |name: &str| {
        let fits = |s: &String| name == s || (s.ends_with('.') && name.starts_with(s.as_str()));
        built.spare.iter().any(fits)
    };
    let spare: Vec<&TensorRef> = left
        .iter()
        .filter(|(name, _)| is_spare(name))
        .map(|(_, tensor)| *tensor)
        .collect();
    for (name, tensor) in &left {
        if is_spare(name) {
            continue;
        }
        // Modules that are registered twice: the same storage under another name.
        let again = built.again.iter().any(|start| name.starts_with(start));
        if again && (found.iter().any(|(_, t)| t == *tensor) || spare.contains(tensor)) {
            continue;
        }
        return Ok(Err(if again {
            format!("the tensor {name} is none of those that it should be again")
        } else {
            format!("the tensor {name} is not used by this network")
        }));
    }
    Ok(Ok(found))
}
