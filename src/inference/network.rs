//! A package's layers with their weights, ready to run.

use super::Error;
use super::schedule::Schedule;
use crate::kernels::{
    Activation, Conv, Conv3d, ConvShape, Method, Rates, Slices, Unit, blocked_floats,
};
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
        let weights: usize = self.steps.iter().map(|s| s.fast.weight_bytes()).sum();
        let activations = match self.schedule(dims) {
            Some(schedule) => self.bytes_by_slices(dims, schedule.most),
            None => self.bytes_whole(dims),
        };
        (activations + weights) as u64
    }

    /// How the layers are computed slice by slice, where that is worth it.
    pub(super) fn schedule(&self, dims: [usize; 3]) -> Option<Schedule> {
        let whole = self.bytes_whole(dims);
        if whole < MUCH || self.steps.len() > MOST_LAYERS {
            return None;
        }
        let schedule = self.any_schedule(dims)?;
        (self.bytes_by_slices(dims, schedule.most) < whole).then_some(schedule)
    }

    /// The same whether it is worth it or not. None where a norm needs a whole grid before it is read.
    pub(super) fn any_schedule(&self, dims: [usize; 3]) -> Option<Schedule> {
        Some(Schedule::new(&self.units(dims)?, dims[0]))
    }

    pub(super) fn units(&self, dims: [usize; 3]) -> Option<Vec<Vec<Unit>>> {
        let units = |step: &Step| match step.norm {
            None => step.fast.units(dims),
            Some(_) => None,
        };
        self.steps.iter().map(units).collect()
    }

    /// Convolutions with weights by chance, for tests: `(channels, kernel, dilation)` each.
    #[cfg(test)]
    pub(super) fn by_chance(layers: &[(usize, usize, usize)]) -> Self {
        let mut x = 1_u32;
        let mut random = |_| {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (x >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        let mut input = 1;
        let mut steps = Vec::new();
        for (n, &(output, kernel, dilation)) in layers.iter().enumerate() {
            let shape = ConvShape::same(input, output, [kernel; 3]).dilated([dilation; 3]);
            let weights: Vec<f32> = (0..shape.weights()).map(&mut random).collect();
            let bias: Vec<f32> = (0..output).map(&mut random).collect();
            let method = if n + 1 == layers.len() {
                Method::Direct
            } else {
                Method::Auto
            };
            let size = [output, input];
            steps.push(Step {
                conv: Conv3d::new(&weights, &bias, size, kernel, dilation, Activation::Elu),
                fast: Conv::new(shape, &weights, &bias, method),
                raw: (Vec::new(), Vec::new()),
                norm: None,
            });
            input = output;
        }
        Self { steps }
    }

    /// Floats of the largest slice that is held.
    pub(super) fn slice_floats(&self, dims: [usize; 3]) -> usize {
        let held = &self.steps[..self.steps.len() - 1];
        let floats = held.iter().map(|s| Slices::floats(dims, s.conv.output));
        floats.max().unwrap_or(0)
    }

    fn bytes_by_slices(&self, dims: [usize; 3], most: usize) -> usize {
        let threads = rayon::current_num_threads();
        let scratch = |step: &Step| step.fast.unit_scratch_bytes(dims, threads);
        let scratch = self.steps.iter().map(scratch).max().unwrap_or(0);
        let input = dims.iter().product::<usize>();
        4 * (input + most * self.slice_floats(dims)) + scratch
    }

    fn bytes_whole(&self, dims: [usize; 3]) -> usize {
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
        layers.max().unwrap_or(0)
    }
}

/// Bytes of whole layers from which slices are worth their turns.
const MUCH: usize = 256 << 20;

/// Layers that are scheduled slice by slice.
const MOST_LAYERS: usize = 256;

fn misplaced(what: &str) -> Error {
    Error::Network(format!("{what} stands where none can"))
}
