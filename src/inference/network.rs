//! A package's layers with their weights, ready to run.

use super::Error;
use crate::kernels::{Activation, Conv, Conv3d, ConvShape, Method, Rates, blocked_floats};
use crate::model::{Layer, VerifiedPackage};

/// One convolution with what follows it.
#[derive(Clone, Debug)]
pub struct Step {
    /// Weights; its activation is applied at once when no norm comes between.
    pub conv: Conv3d,
    /// The same, packed for its fastest method.
    pub fast: Conv,
    /// Weights and bias as in the package, for the reference executor.
    pub raw: (Vec<f32>, Vec<f32>),
    /// Instance norm (epsilon) and the activation after it.
    pub norm: Option<(f32, Activation)>,
}

/// A network of convolutions one after another; the last is followed by the argmax.
#[derive(Clone, Debug)]
pub struct Network {
    steps: Vec<Step>,
}

impl Network {
    /// Builds the network from the package's layers, not from a table of known names.
    ///
    /// # Errors
    /// A layer that stands where it cannot, or a tensor that is not there.
    pub fn new(package: &VerifiedPackage) -> Result<Self, Error> {
        let mut steps: Vec<Step> = Vec::new();
        let mut taken = false; // the last step has its activation
        let layers = &package.manifest().network.layers;
        for (n, layer) in layers.iter().enumerate() {
            match layer {
                Layer::Conv3d {
                    weight,
                    bias,
                    input,
                    output,
                    kernel,
                    dilation,
                } => {
                    let tensor = |name: &String| {
                        package
                            .tensor(name)
                            .ok_or_else(|| Error::Network(format!("tensor {name:?} is missing")))
                    };
                    let weights = tensor(weight)?;
                    let bias = bias.as_ref().map(tensor).transpose()?.unwrap_or_default();
                    let shape = [*output, *input];
                    let conv = Conv3d::new(
                        &weights,
                        &bias,
                        shape,
                        *kernel,
                        *dilation,
                        Activation::Linear,
                    );
                    let same = ConvShape::same(*input, *output, [*kernel; 3]);
                    let same = same.dilated([*dilation; 3]);
                    // The last layer's channels are reduced on the fly, which only the direct
                    // method does.
                    let method = if n + 1 == layers.len() {
                        Method::Direct
                    } else {
                        Method::Auto
                    };
                    steps.push(Step {
                        conv,
                        fast: Conv::new(same, &weights, &bias, method),
                        raw: (weights, bias),
                        norm: None,
                    });
                    taken = false;
                }
                Layer::InstanceNorm { epsilon } => {
                    let step = steps.last_mut().filter(|s| s.norm.is_none() && !taken);
                    let step = step.ok_or_else(|| misplaced("an instance norm"))?;
                    step.norm = Some((*epsilon, Activation::Linear));
                }
                Layer::Relu | Layer::Elu | Layer::Gelu => {
                    let activation = match layer {
                        Layer::Relu => Activation::Relu,
                        Layer::Elu => Activation::Elu,
                        _ => Activation::Gelu,
                    };
                    let step = steps.last_mut().filter(|_| !taken);
                    let step = step.ok_or_else(|| misplaced("an activation"))?;
                    match &mut step.norm {
                        Some((_, after)) => *after = activation,
                        None => step.conv.activation = activation,
                    }
                    taken = true;
                }
            }
        }
        match steps.last() {
            Some(last) if last.norm.is_none() && !taken => Ok(Self { steps }),
            _ => Err(Error::Network(
                "it does not end in a linear convolution".to_owned(),
            )),
        }
    }

    /// In order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// How many points away along an axis a label's value can come from; `None` where norms make
    /// every value depend on all others.
    pub fn reach(&self) -> Option<usize> {
        let of = |s: &Step| {
            s.norm
                .is_none()
                .then_some(s.conv.size / 2 * s.conv.dilation)
        };
        self.steps.iter().map(of).sum()
    }

    /// Labels that it tells apart, the background among them.
    pub fn classes(&self) -> usize {
        self.steps.last().map_or(0, |s| s.conv.output)
    }

    /// Multiplications and additions on a grid `[k, j, i]`.
    pub fn flops(&self, dims: [usize; 3]) -> f64 {
        self.steps.iter().map(|s| s.conv.flops(dims)).sum()
    }

    /// Seconds that a run on a grid `[k, j, i]` is expected to take.
    pub fn expected_secs(&self, dims: [usize; 3], rates: &Rates) -> f64 {
        let steps = self.steps.iter();
        steps.map(|s| s.fast.expected_secs(dims, rates)).sum()
    }

    /// Peak bytes of activations, scratch and packed weights on a grid `[k, j, i]`.
    pub fn bytes(&self, dims: [usize; 3]) -> u64 {
        let last = self.steps.len() - 1;
        let threads = rayon::current_num_threads();
        let layers = self.steps.iter().enumerate().map(|(n, step)| {
            // The first reads plain values; the last one's channels are never held.
            let input = match n {
                0 => dims.iter().product(),
                _ => blocked_floats(dims, step.conv.input),
            };
            let output = match n {
                n if n == last => 0,
                _ => blocked_floats(dims, step.conv.output),
            };
            4 * (input + output) + step.fast.scratch_bytes(dims, threads)
        });
        let weights: usize = self.steps.iter().map(|s| s.fast.weight_bytes()).sum();
        (layers.max().unwrap_or(0) + weights) as u64
    }
}

fn misplaced(what: &str) -> Error {
    Error::Network(format!("{what} stands where none can"))
}
