//! A network as data: typed operations, each on the values of operations before it.
//!
//! Values are tensors with PyTorch's axes: `[batch, channel, k, j, i]` (fewer spatial axes for
//! networks on lines and planes), or whatever a reshape made of them. Weights are named tensors of
//! the package. An operation names only earlier ones, so a graph has no cycles by its form.

mod shapes;

pub use shapes::{MOST_ELEMENTS, Shape, WeightShapes, slice_bounds};

/// A network.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Graph {
    /// In an order in which they can be computed; the first is [`Op::Input`].
    pub nodes: Vec<Node>,
    /// Nodes whose values are the results.
    pub outputs: Vec<usize>,
}

/// An operation and what it is applied to.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Node {
    /// What is done.
    #[serde(flatten)]
    pub op: Op,
    /// Earlier nodes whose values are taken, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<usize>,
}

/// Names the two tensors of a normalization's affine part, both or none of `[channels]`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Affine {
    /// Multiplies (PyTorch's `weight`).
    pub scale: String,
    /// Is added (PyTorch's `bias`).
    pub shift: String,
}

/// What is done. Lists along spatial axes are in tensor order (k, j, i).
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Op {
    /// What a network is given: `[1, channels, …]` with this number of spatial axes.
    Input {
        /// Channels.
        channels: usize,
        /// Spatial axes, 1 to 3.
        axes: usize,
    },
    /// A tensor of the package.
    Constant {
        /// Its name.
        tensor: String,
    },
    /// Convolution (cross-correlation), zero padding; weights `[out, in / groups, k, j, i]`.
    Conv {
        /// Tensor name.
        weight: String,
        /// Tensor name, `[out]`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bias: Option<String>,
        /// Step of the output along each axis.
        stride: Vec<usize>,
        /// Zeros before and after, along each axis.
        padding: Vec<[usize; 2]>,
        /// Distance of taps.
        dilation: Vec<usize>,
        /// Channels are split into this number of independent parts.
        groups: usize,
    },
    /// Transposed convolution; weights `[in, out / groups, k, j, i]`.
    ConvTranspose {
        /// Tensor name.
        weight: String,
        /// Tensor name, `[out]`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bias: Option<String>,
        /// Step between inputs on the output.
        stride: Vec<usize>,
        /// Taken off before and after.
        padding: Vec<[usize; 2]>,
        /// Added at the end.
        output_padding: Vec<usize>,
        /// Channels are split into this number of independent parts.
        groups: usize,
    },
    /// Each channel by its own mean and variance over the grid (biased), then affine.
    InstanceNorm {
        /// Added to the variance.
        epsilon: f32,
        /// Scale and shift.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        affine: Option<Affine>,
    },
    /// By stored mean and variance.
    BatchNorm {
        /// Added to the variance.
        epsilon: f32,
        /// Tensor name, `[channels]`.
        mean: String,
        /// Tensor name, `[channels]`.
        variance: String,
        /// Scale and shift.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        affine: Option<Affine>,
    },
    /// Groups of channels by their common mean and variance, then affine per channel.
    GroupNorm {
        /// Number of groups.
        groups: usize,
        /// Added to the variance.
        epsilon: f32,
        /// Scale and shift.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        affine: Option<Affine>,
    },
    /// Over the last axis, affine with tensors of its length.
    LayerNorm {
        /// Added to the variance.
        epsilon: f32,
        /// Scale and shift.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        affine: Option<Affine>,
    },
    /// max(x, 0).
    Relu,
    /// x, or `slope` · x below zero.
    LeakyRelu {
        /// E.g. 0.01.
        slope: f32,
    },
    /// x, or a learned slope · x below zero; one slope or one per channel.
    PRelu {
        /// Tensor name.
        slope: String,
    },
    /// x, or `alpha` · (exp(x) − 1) below zero.
    Elu {
        /// Usually 1.
        alpha: f32,
    },
    /// x · Φ(x), exact.
    Gelu,
    /// GELU by its tanh approximation.
    GeluTanh,
    /// x · sigmoid(x).
    Silu,
    /// 1 / (1 + exp(−x)).
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// Exponential, normalized along an axis.
    Softmax {
        /// Axis, batch is 0.
        axis: usize,
    },
    /// Largest value of a window; padding counts as −∞.
    MaxPool(Pool),
    /// Mean of a window.
    AveragePool {
        /// The window.
        #[serde(flatten)]
        pool: Pool,
        /// Padding counts as zeros in the mean.
        count_padding: bool,
    },
    /// Mean over all spatial axes, which become 1.
    GlobalAveragePool,
    /// Means over equal parts, to a fixed size (PyTorch's `AdaptiveAvgPool`).
    AdaptiveAveragePool {
        /// Size of the result along the spatial axes.
        size: Vec<usize>,
    },
    /// Resampling of the spatial axes.
    Resize {
        /// Size of the result.
        to: ResizeTo,
        /// How values between voxels come about.
        mode: ResizeMode,
    },
    /// a + b, with broadcasting.
    Add,
    /// a − b, with broadcasting.
    Sub,
    /// a · b, with broadcasting.
    Mul,
    /// a / b, with broadcasting.
    Div,
    /// a to the power of b, with broadcasting.
    Pow,
    /// The smaller of both, with broadcasting.
    Minimum,
    /// The larger of both, with broadcasting.
    Maximum,
    /// 1 where a > b, 0 elsewhere, with broadcasting.
    Greater,
    /// b where a is not 0, c elsewhere, with broadcasting.
    Select,
    /// A function of each value on its own.
    Unary {
        /// Which.
        function: Function,
    },
    /// One after another along an axis.
    Concat {
        /// Axis, batch is 0.
        axis: usize,
    },
    /// Part of an axis.
    Slice {
        /// Axis, batch is 0.
        axis: usize,
        /// First index; counted from the end when negative.
        start: i64,
        /// One past the last; counted from the end when negative; cut at the end.
        end: i64,
    },
    /// More of a constant, or of the values themselves, at the ends of all axes.
    Pad {
        /// Before and after, for every axis (batch first).
        padding: Vec<[usize; 2]>,
        /// With what.
        mode: PadMode,
    },
    /// Other axes over the same values: 0 keeps an axis, −1 (once) takes what is left.
    Reshape {
        /// New shape.
        shape: Vec<i64>,
    },
    /// Axes in another order: axis n of the result is axis `order[n]` of the value.
    Transpose {
        /// All axes.
        order: Vec<usize>,
    },
    /// Mean over axes, which stay with length 1 when `keep`.
    Mean {
        /// Axes, batch is 0.
        axes: Vec<usize>,
        /// Keep them.
        keep: bool,
    },
    /// Sum or extreme over axes, which stay with length 1 when `keep`.
    Reduce {
        /// What of the values.
        kind: Reduction,
        /// Axes, batch is 0.
        axes: Vec<usize>,
        /// Keep them.
        keep: bool,
    },
    /// Product of the last two axes, the others alike or broadcast.
    MatMul,
    /// x · Wᵀ + b over the last axis; weights `[out, in]`.
    Linear {
        /// Tensor name.
        weight: String,
        /// Tensor name, `[out]`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bias: Option<String>,
    },
    /// Multi-head attention softmax(q·kᵀ·scale)·v of three values `[batch, heads, tokens, width]`.
    Attention {
        /// Usually 1/√width.
        scale: f32,
    },
    /// Multi-head attention inside windows of a grid (Swin). The value `[1, …, 3 · width]` has the
    /// channels last, queries before keys before values, each by heads; the grid's sizes are multiples
    /// of the window's. With a shift the grid is turned around by so many voxels first and back again
    /// afterwards, and tokens that were no neighbors see each other with −100 added.
    WindowAttention {
        /// Heads.
        heads: usize,
        /// Multiplies queries; usually 1/√(width / heads).
        scale: f32,
        /// Tensor `[∏(2 · table − 1), heads]`: what is added for a relative position.
        bias: String,
        /// The window that the biases were made for. A smaller one takes its first tokens.
        table: Vec<usize>,
        /// Sizes of a window.
        window: Vec<usize>,
        /// Voxels that the grid is turned by.
        shift: Vec<usize>,
    },
}

/// A function of one value.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Function {
    /// |x|.
    Abs,
    /// −x.
    Neg,
    /// 1 / x.
    Reciprocal,
    /// √x.
    Sqrt,
    /// eˣ.
    Exp,
    /// Natural logarithm.
    Log,
    /// The error function.
    Erf,
    /// ln(1 + eˣ).
    Softplus,
    /// `alpha` · x + `beta`, between 0 and 1.
    HardSigmoid {
        /// Usually 1/6 or 0.2.
        alpha: f32,
        /// Usually 0.5.
        beta: f32,
    },
    /// Not below `low` and not above `high`.
    Clip {
        /// No limit without one.
        low: Option<f32>,
        /// No limit without one.
        high: Option<f32>,
    },
}

/// What is taken of several values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reduction {
    /// Their sum.
    Sum,
    /// The largest.
    Max,
    /// The smallest.
    Min,
}

/// A window that moves over the spatial axes.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Pool {
    /// Size.
    pub kernel: Vec<usize>,
    /// Step.
    pub stride: Vec<usize>,
    /// Before and after.
    pub padding: Vec<[usize; 2]>,
    /// Windows that reach beyond the end count (PyTorch's `ceil_mode`).
    #[serde(default)]
    pub ceil: bool,
}

/// Size of a resized value.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResizeTo {
    /// Factors along the spatial axes; sizes are rounded down.
    Factor(Vec<f64>),
    /// Sizes along the spatial axes.
    Size(Vec<usize>),
    /// The spatial axes of the second value.
    Second,
}

/// Resampling, with PyTorch's coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResizeMode {
    /// ⌊i · from / to⌋.
    Nearest,
    /// Linear along each axis, voxel centers at halves.
    Linear,
    /// Linear along each axis, first and last voxels on each other.
    LinearAlignCorners,
}

/// What padding is filled with.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PadMode {
    /// This value.
    Constant(f32),
    /// Mirrored without the edge.
    Reflect,
    /// The edge's value.
    Replicate,
}

impl Graph {
    /// An empty graph that takes `channels` on a grid of `axes` axes.
    pub fn new(channels: usize, axes: usize) -> Self {
        let op = Op::Input { channels, axes };
        let from = Vec::new();
        Self {
            nodes: vec![Node { op, from }],
            outputs: Vec::new(),
        }
    }

    /// Appends an operation; the answer names its value.
    pub fn push(&mut self, op: Op, from: &[usize]) -> usize {
        let from = from.to_vec();
        self.nodes.push(Node { op, from });
        self.nodes.len() - 1
    }

    /// Channels and spatial axes of the input; `None` when the first node is no input.
    pub fn input(&self) -> Option<(usize, usize)> {
        match self.nodes.first().map(|node| &node.op) {
            Some(Op::Input { channels, axes }) => Some((*channels, *axes)),
            _ => None,
        }
    }

    /// How many operations and results take a node's value.
    pub fn uses(&self, node: usize) -> usize {
        let taken = self.nodes.iter().flat_map(|n| &n.from).chain(&self.outputs);
        taken.filter(|n| **n == node).count()
    }

    /// Names of the tensors that the graph uses, each once, in order of use.
    pub fn tensors(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for node in &self.nodes {
            for name in node.op.tensors() {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names
    }
}

impl Op {
    /// Names of the tensors that the operation uses.
    pub fn tensors(&self) -> Vec<&str> {
        match self {
            Self::Constant { tensor } => vec![tensor],
            Self::Conv { weight, bias, .. }
            | Self::ConvTranspose { weight, bias, .. }
            | Self::Linear { weight, bias } => std::iter::once(weight)
                .chain(bias)
                .map(String::as_str)
                .collect(),
            Self::InstanceNorm { affine, .. }
            | Self::GroupNorm { affine, .. }
            | Self::LayerNorm { affine, .. } => affine_names(affine.as_ref()),
            Self::BatchNorm {
                mean,
                variance,
                affine,
                ..
            } => {
                let mut names = vec![mean.as_str(), variance.as_str()];
                names.extend(affine_names(affine.as_ref()));
                names
            }
            Self::PRelu { slope } => vec![slope],
            Self::WindowAttention { bias, .. } => vec![bias],
            _ => Vec::new(),
        }
    }
}

fn affine_names(affine: Option<&Affine>) -> Vec<&str> {
    affine.map_or_else(Vec::new, |a| vec![a.scale.as_str(), a.shift.as_str()])
}
