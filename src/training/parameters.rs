//! All tensors of a network in one piece of memory.

use std::collections::HashMap;
use std::ops::Range;

use super::Error;
use super::chance::Chance;

/// How a tensor is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Trained, with weight decay.
    Weight,
    /// Trained without decay: biases, scales and shifts of norms.
    Offset,
    /// A running mean: follows the batches, not the gradient.
    Mean,
    /// A running variance.
    Variance,
}

impl Role {
    /// Whether gradients change it.
    pub const fn is_trained(self) -> bool {
        matches!(self, Self::Weight | Self::Offset)
    }
}

/// What a tensor holds before training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    /// Normal with variance 2 / fan-in (He et al. 2015), for layers with ReLU behind them.
    He {
        /// Inputs that are summed for one output.
        fan_in: usize,
    },
    /// Uniform within ±1/√fan-in, PyTorch's default of linear layers.
    Uniform {
        /// As above.
        fan_in: usize,
    },
    /// Normal with this deviation.
    Normal {
        /// Above 0.
        deviation: f64,
    },
    /// One number.
    Fill(f32),
}

/// A tensor that a network needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Needed {
    /// Its name in the graph and in the package.
    pub name: String,
    /// Its axes.
    pub shape: Vec<usize>,
    /// How it is treated.
    pub role: Role,
    /// What it begins with.
    pub start: Start,
}

/// A tensor's place.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Its axes.
    pub shape: Vec<usize>,
    /// How it is treated.
    pub role: Role,
    /// Stays as it is.
    #[serde(default)]
    pub frozen: bool,
    /// Where it is.
    pub range: Range<usize>,
}

/// The tensors of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// In memory order.
    pub slots: Vec<Slot>,
    /// All values.
    pub values: Vec<f32>,
}

impl Parameters {
    /// Tensors with their first values; each has its own stream of chance, by its place.
    pub fn new(needed: &[Needed], seed: u64) -> Self {
        let (mut slots, mut values) = (Vec::new(), Vec::new());
        for (n, tensor) in needed.iter().enumerate() {
            let count: usize = tensor.shape.iter().product();
            let start = values.len();
            let mut chance = Chance::at(&[seed, 0x0057_4549_4748_5453, n as u64]);
            values.extend((0..count).map(|_| match tensor.start {
                Start::He { fan_in } => (chance.normal() * (2.0 / fan_in as f64).sqrt()) as f32,
                Start::Uniform { fan_in } => {
                    let most = 1.0 / (fan_in as f64).sqrt();
                    chance.between(-most, most) as f32
                }
                Start::Normal { deviation } => (chance.normal() * deviation) as f32,
                Start::Fill(value) => value,
            }));
            slots.push(Slot {
                name: tensor.name.clone(),
                shape: tensor.shape.clone(),
                role: tensor.role,
                frozen: false,
                range: start..start + count,
            });
        }
        Self { slots, values }
    }

    /// Where each tensor is, by its name.
    pub fn places(&self) -> HashMap<&str, &Slot> {
        self.slots.iter().map(|s| (s.name.as_str(), s)).collect()
    }

    /// A tensor's values.
    pub fn tensor(&self, name: &str) -> Option<&[f32]> {
        let slot = self.slots.iter().find(|s| s.name == name)?;
        Some(&self.values[slot.range.clone()])
    }

    /// Puts a tensor's values in place.
    ///
    /// # Errors
    /// [`Error::Network`] when there is no such tensor or its shape is another.
    pub fn set(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Result<(), Error> {
        let slot = self.slots.iter().find(|s| s.name == name);
        match slot {
            Some(slot) if slot.shape == shape && slot.range.len() == values.len() => {
                self.values[slot.range.clone()].copy_from_slice(values);
                Ok(())
            }
            Some(slot) => Err(Error::Network(format!(
                "tensor {name:?} is {shape:?}, expected {:?}",
                slot.shape
            ))),
            None => Err(Error::Network(format!("no tensor {name:?}"))),
        }
    }

    /// Number of trained values.
    pub fn trained(&self) -> usize {
        let trained = self
            .slots
            .iter()
            .filter(|s| s.role.is_trained() && !s.frozen);
        trained.map(|s| s.range.len()).sum()
    }
}
