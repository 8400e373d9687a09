//! A graph that can be trained: forward in training or evaluation mode, and backward.
//!
//! Values are batches of grids in blocks of eight channels, and norms take the activation behind
//! them along; graphs with attention or layer norm are of tokens and go by [`tokens`]. What has no
//! backward pass here is refused by name when the network is made.

mod backward;
mod forward;
mod norm;
mod plan;
#[cfg(test)]
mod tests;
mod tokens;

use std::ops::Range;
use std::sync::{Arc, Mutex};

use rayon::prelude::*;

pub use self::forward::{Mode, Tape};
use self::plan::Work;
use self::tokens::Tokens;
use super::{Error, Parameters};
use crate::kernels::{Conv, Instructions, Transposed, View, ViewMut, blocked_floats};
use crate::model::graph::Graph;

/// A network on a grid of a fixed size.
#[derive(Debug)]
pub struct Network {
    graph: Arc<Graph>,
    body: Body,
}

/// What a graph's values are.
#[derive(Debug)]
enum Body {
    Grids(Grids),
    Tokens(Tokens),
}

/// A graph of grids.
#[derive(Debug)]
struct Grids {
    planned: Vec<Planned>,
    outputs: Vec<usize>,
    instructions: Instructions,
    /// Dropout before the last layer of each output, 0 to below 1.
    dropout: f32,
    memory: Mutex<Memory>,
}

/// One operation, ready to be done.
#[derive(Clone, Debug)]
struct Planned {
    work: Work,
    from: Vec<usize>,
    dims: [usize; 3],
    channels: usize,
    /// Values stand channel by channel, not in blocks: an image of few channels.
    plain: bool,
    /// The gradient of its value is wanted.
    wanted: bool,
    /// Number of operations that take its value, one more for a result.
    uses: usize,
    /// A norm takes its value, so that its moments are wanted.
    moments: bool,
}

impl Planned {
    const fn voxels(&self) -> usize {
        self.dims[0] * self.dims[1] * self.dims[2]
    }

    /// Floats of one image.
    const fn floats(&self) -> usize {
        if self.plain {
            self.channels * self.voxels()
        } else {
            blocked_floats(self.dims, self.channels)
        }
    }

    fn view<'a>(&self, data: &'a [f32]) -> View<'a> {
        if self.plain {
            View::plain(data, self.dims, self.channels)
        } else {
            View::new(data, self.dims, self.channels)
        }
    }

    fn views<'a>(&self, data: &'a [f32]) -> Vec<View<'a>> {
        data.chunks(self.floats())
            .map(|one| self.view(one))
            .collect()
    }

    fn view_mut<'a>(&self, data: &'a mut [f32]) -> ViewMut<'a> {
        ViewMut::new(data, self.dims, self.channels)
    }
}

/// Weights packed for the forward pass, by operation.
#[derive(Debug)]
enum Packed {
    Conv(Conv),
    Up(Transposed),
}

/// Pieces of memory that are used again and again: fresh pages cost more than many an operation.
#[derive(Debug, Default)]
struct Memory(Vec<Vec<f32>>);

impl Memory {
    /// Memory of a size with anything in it.
    fn take(&mut self, floats: usize) -> Vec<f32> {
        match self.0.iter().position(|piece| piece.len() == floats) {
            Some(at) => self.0.swap_remove(at),
            None => vec![0.0; floats],
        }
    }
}

impl Network {
    /// Plans a graph for images of a size.
    ///
    /// # Errors
    /// [`Error::Network`]: shapes that do not fit, or an operation without a backward pass.
    pub fn new(
        graph: Arc<Graph>,
        parameters: &Parameters,
        spatial: &[usize],
        dropout: f32,
    ) -> Result<Self, Error> {
        let body = if Tokens::takes(&graph) {
            Body::Tokens(Tokens::new(&graph, parameters, spatial, dropout)?)
        } else {
            let planned = plan::plan(&graph, parameters, spatial, dropout > 0.0)?;
            Body::Grids(Grids {
                planned: planned.nodes,
                outputs: planned.outputs,
                instructions: Instructions::detect(),
                dropout,
                memory: Mutex::default(),
            })
        };
        Ok(Self { graph, body })
    }

    /// The same with given instructions, for comparisons.
    pub const fn with(mut self, instructions: Instructions) -> Self {
        match &mut self.body {
            Body::Grids(grids) => grids.instructions = instructions,
            Body::Tokens(tokens) => tokens.instructions = instructions,
        }
        self
    }

    /// The graph.
    pub const fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// Floats of one input image, `[channels][z][y][x]`.
    pub fn input_floats(&self) -> usize {
        match &self.body {
            Body::Grids(grids) => grids.input_floats(),
            Body::Tokens(tokens) => tokens.input_floats(),
        }
    }

    /// Channels and voxels of each result.
    pub fn results(&self) -> Vec<(usize, usize)> {
        match &self.body {
            Body::Grids(grids) => grids.results(),
            Body::Tokens(tokens) => tokens.results(),
        }
    }

    /// Floats of all results of one image, result after result `[channels][z][y][x]`.
    pub fn output_floats(&self) -> usize {
        self.results().iter().map(|(c, v)| c * v).sum()
    }

    /// Runs a batch, images `[channels][z][y][x]` one after another.
    ///
    /// # Panics
    /// When the batch is empty or not of the network's size.
    pub fn forward(&self, parameters: &[f32], images: &[f32], mode: Mode) -> Tape {
        let per_image = self.input_floats();
        let count = images.len() / per_image;
        assert!(
            count > 0 && count * per_image == images.len(),
            "whole images"
        );
        match &self.body {
            Body::Grids(grids) => grids.forward(parameters, images, mode),
            Body::Tokens(tokens) => {
                let (results, tapes) = tokens.forward(parameters, images, mode);
                Tape {
                    images: count,
                    results,
                    tokens: tapes,
                    ..Tape::new(mode)
                }
            }
        }
    }

    /// Gradients of all parameters, from those of the results (in the order of
    /// [`Tape::results`]). The tape's memory goes back to the network.
    ///
    /// # Panics
    /// When lengths do not fit or the pass was one of evaluation.
    pub fn backward(&self, parameters: &[f32], tape: Tape, results: &[f32]) -> Vec<f32> {
        assert_eq!(results.len(), tape.results.len(), "a gradient per result");
        let Mode::Training { place } = tape.mode else {
            panic!("a pass of evaluation keeps nothing");
        };
        match &self.body {
            Body::Grids(grids) => grids.backward(parameters, tape, results, place),
            Body::Tokens(tokens) => tokens.backward(parameters, tape.tokens, results, place),
        }
    }
}

impl Grids {
    fn input_floats(&self) -> usize {
        self.planned[0].channels * self.planned[0].voxels()
    }

    fn results(&self) -> Vec<(usize, usize)> {
        let of = |n: &usize| (self.planned[*n].channels, self.planned[*n].voxels());
        self.outputs.iter().map(of).collect()
    }

    fn output_floats(&self) -> usize {
        self.results().iter().map(|(c, v)| c * v).sum()
    }

    fn take(&self, floats: usize) -> Vec<f32> {
        let mut memory = self.memory.lock().expect("nobody panics with it");
        memory.take(floats)
    }

    fn give(&self, piece: Vec<f32>) {
        let mut memory = self.memory.lock().expect("nobody panics with it");
        memory.0.push(piece);
    }
}

/// Runs over the images of a batch, each with its part of some memory.
fn each_image(to: &mut [f32], floats: usize, work: impl Fn(usize, &mut [f32]) + Sync + Send) {
    to.par_chunks_mut(floats.max(1))
        .enumerate()
        .for_each(|(image, to)| work(image, to));
}

/// The `image`th of equal parts.
fn part(data: &[f32], image: usize, floats: usize) -> &[f32] {
    &data[image * floats..(image + 1) * floats]
}

fn slice<'a>(values: &'a [f32], range: &Range<usize>) -> &'a [f32] {
    &values[range.clone()]
}

fn optional<'a>(values: &'a [f32], range: Option<&Range<usize>>) -> &'a [f32] {
    range.map_or(&[], |range| &values[range.clone()])
}
