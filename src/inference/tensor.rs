//! Values and weights of a graph, in memory.

use std::collections::HashMap;
use std::sync::Arc;

use super::Error;
use crate::model::VerifiedPackage;
use crate::model::graph::Graph;

/// Numbers on axes, the last axis fastest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Array {
    /// Lengths of the axes.
    pub shape: Vec<usize>,
    /// As many as the axes span.
    pub values: Vec<f32>,
}

impl Array {
    /// From values that fill the shape.
    ///
    /// # Panics
    /// When they do not.
    pub fn new(shape: &[usize], values: Vec<f32>) -> Self {
        let count: usize = shape.iter().product();
        assert_eq!(count, values.len(), "values fill the shape {shape:?}");
        let shape = shape.to_vec();
        Self { shape, values }
    }
}

fn missing(name: &str) -> Error {
    Error::Network(format!("tensor {name:?} is missing"))
}

/// A graph with its weights.
#[derive(Clone, Debug)]
pub struct Program {
    graph: Arc<Graph>,
    weights: Arc<HashMap<String, Array>>,
}

impl Program {
    /// Checks that each tensor of the graph is there and fits, on an example grid.
    ///
    /// # Errors
    /// [`Error::Network`].
    pub fn new(
        graph: Arc<Graph>,
        weights: HashMap<String, Array>,
        example: &[usize],
    ) -> Result<Self, Error> {
        let program = Self {
            graph,
            weights: Arc::new(weights),
        };
        program.shapes(example)?;
        Ok(program)
    }

    /// A package's graph with its tensors, for a grid of this size.
    ///
    /// # Errors
    /// [`Error::Network`] when it has none, or they do not fit.
    pub fn of_package(package: &VerifiedPackage, spatial: &[usize]) -> Result<Self, Error> {
        let graph = package.manifest().network.graph.clone();
        let graph = graph.ok_or_else(|| Error::Network("it has no graph".to_owned()))?;
        let mut weights = HashMap::new();
        for name in graph.tensors() {
            let found = package.array(name);
            let (shape, values) = found.ok_or_else(|| missing(name))?;
            weights.insert(name.to_owned(), Array::new(&shape, values));
        }
        Self::new(Arc::new(graph), weights, spatial)
    }

    /// The same program that gives the values of these nodes too, behind its results: what an
    /// explanation reads from inside a network. Weights are shared; any executor can run it.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn keeping(&self, nodes: &[usize]) -> Self {
        let mut graph = self.graph.as_ref().clone();
        assert!(
            nodes.iter().all(|n| *n < graph.nodes.len()),
            "nodes of the graph"
        );
        graph.outputs.extend_from_slice(nodes);
        Self {
            graph: Arc::new(graph),
            weights: Arc::clone(&self.weights),
        }
    }

    /// The graph and its tensors.
    pub fn into_parts(self) -> (Graph, HashMap<String, Array>) {
        (
            Arc::unwrap_or_clone(self.graph),
            Arc::unwrap_or_clone(self.weights),
        )
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// A tensor that [`Program::new`] has found.
    ///
    /// # Panics
    /// When the graph does not name it.
    pub fn weight(&self, name: &str) -> &Array {
        &self.weights[name]
    }

    /// A graph with the shapes of a package's tensors, for an example grid; their values stay where they
    /// are. `member` stands before the tensors' names: a fold of several.
    ///
    /// # Errors
    /// [`Error::Network`] when a tensor is not there or does not fit.
    pub(super) fn shapes_alone(
        package: &VerifiedPackage,
        graph: Arc<Graph>,
        member: &str,
        example: &[usize],
    ) -> Result<Self, Error> {
        let mut weights = HashMap::new();
        for name in graph.tensors() {
            let shape = package.shape(&format!("{member}{name}"));
            let shape = shape.ok_or_else(|| missing(name))?;
            let values = Vec::new();
            weights.insert(name.to_owned(), Array { shape, values });
        }
        Self::new(graph, weights, example)
    }

    /// Reads the values of some tensors, as far as they are not here.
    ///
    /// # Errors
    /// [`Error::Network`] for one that is not there any more.
    pub(super) fn fill<'a>(
        &mut self,
        names: impl Iterator<Item = &'a str>,
        read: impl Fn(&str) -> Option<Vec<f32>>,
    ) -> Result<(), Error> {
        let weights = Arc::make_mut(&mut self.weights);
        for name in names {
            let weight = weights.get_mut(name).ok_or_else(|| missing(name))?;
            if weight.values.is_empty() {
                weight.values = read(name).ok_or_else(|| missing(name))?;
            }
        }
        Ok(())
    }

    /// Memory of the tensors that a rule names.
    pub(super) fn bytes_of(&self, counts: impl Fn(&str) -> bool) -> u64 {
        let named = self.weights.iter().filter(|(name, _)| counts(name));
        named
            .map(|(_, w)| 4 * w.shape.iter().product::<usize>() as u64)
            .sum()
    }

    /// Frees the values of tensors that are not needed any more; shapes stay. Does nothing while the
    /// program is shared.
    pub(super) fn forget(&mut self, values: impl Fn(&str) -> bool) {
        let Some(weights) = Arc::get_mut(&mut self.weights) else {
            return;
        };
        for (_, weight) in weights.iter_mut().filter(|(name, _)| values(name)) {
            weight.values = Vec::new();
        }
    }

    /// The shape of each operation's value for a grid.
    ///
    /// # Errors
    /// [`Error::Network`], e.g. for a grid on which a skip does not fit.
    pub fn shapes(&self, spatial: &[usize]) -> Result<Vec<Vec<usize>>, Error> {
        let shape = |name: &str| self.weights.get(name).map(|w| w.shape.clone());
        self.graph.shapes(spatial, &shape).map_err(Error::Network)
    }
}
