//! The fast executor for CPUs: grids in blocks of eight channels, convolutions with the norm before
//! and the activation behind them done in registers, memory used again and again.
//!
//! What the kernels do not have runs by the reference on plain memory, so that every graph runs.

mod awake;
mod fuse;
mod joint;
mod memory;
mod ops;
mod pool;
mod tokens;
mod value;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use candle_core::Device;
use rayon::prelude::*;

use self::awake::with_awake_threads;
use self::fuse::{Fused, fuse};
use self::joint::{Joint, joints};
use self::pool::Pool;
use self::value::{Grid, Store, Value, dims_of};
use super::tensor::{Array, Program};
use super::{Error, reference};
use crate::kernels::{
    Conv, ConvShape, Epilogue, Instructions, Matrix, Method, Moments, Rates, Transposed,
    TransposedShape, View,
};
use crate::model::VerifiedPackage;
use crate::model::graph::{Graph, Op};
use crate::task::{Cancelled, Task};

/// Nodes for each thread whose weights are held beside their packed form.
const NODES_AT_ONCE: usize = 4;

/// A program made ready for this machine.
#[derive(Clone, Debug)]
pub struct Native {
    program: Program,
    fused: Arc<Vec<Fused>>,
    convs: Arc<HashMap<usize, Conv>>,
    joints: Arc<HashMap<usize, Joint>>,
    /// By the node before which its skip is convolved: a convolution of `joints`.
    skips_first: Arc<HashMap<usize, usize>>,
    transposed: Arc<HashMap<usize, Transposed>>,
    matrices: Arc<HashMap<usize, Matrix>>,
    instructions: Instructions,
    /// Tensors that were not packed, and stay as they are.
    kept_bytes: u64,
}

/// Memory that runs of one size share. One for each run at a time.
#[derive(Debug, Default)]
pub struct Workspace {
    pool: Pool,
}

impl Native {
    /// Packs the weights for the best instructions of this machine.
    ///
    /// # Errors
    /// [`Error::Network`].
    pub fn new(program: Program) -> Result<Self, Error> {
        Self::with(program, Instructions::detect())
    }

    /// Packs the weights for given instructions, for comparisons.
    ///
    /// # Errors
    /// [`Error::Network`].
    pub fn with(program: Program, instructions: Instructions) -> Result<Self, Error> {
        Self::made(program, instructions, true, |_, _| Ok(()))
    }

    /// A network of a package for the best instructions of this machine. Each tensor is read when it is
    /// packed: besides the package, only what is packed is held. `member` stands before the tensors'
    /// names: a fold of several.
    ///
    /// # Errors
    /// [`Error::Network`] when a tensor is not there or does not fit.
    pub fn of_package(
        package: &VerifiedPackage,
        graph: Arc<Graph>,
        member: &str,
        example: &[usize],
    ) -> Result<Self, Error> {
        let program = Program::shapes_alone(package, graph, member, example)?;
        let read = |name: &str| package.tensor(&format!("{member}{name}"));
        let fill =
            |program: &mut Program, names: &[&str]| program.fill(names.iter().copied(), read);
        Self::made(program, Instructions::detect(), true, fill)
    }

    /// What [`Native::new`] makes, for its sizes alone: of the tensors, only shapes are looked at,
    /// nothing is packed, and it cannot run.
    ///
    /// # Errors
    /// [`Error::Network`].
    pub fn outline(program: Program) -> Result<Self, Error> {
        Self::made(program, Instructions::detect(), false, |_, _| Ok(()))
    }

    /// `fill` has the values of tensors ready before they are packed.
    fn made(
        mut program: Program,
        instructions: Instructions,
        pack: bool,
        fill: impl Fn(&mut Program, &[&str]) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let fused = fuse(program.graph());
        let (mut convs, mut transposed) = (HashMap::new(), HashMap::new());
        let mut matrices = HashMap::new();
        let mut joints = joints(&program, &fused);
        let graph = program.graph().clone();
        let nodes = &graph.nodes;
        // Nodes that still need a tensor; those that keep it as it is.
        let (mut users, mut other) = (HashMap::<&str, usize>::new(), HashSet::<&str>::new());
        for tensor in nodes.iter().flat_map(|node| node.op.tensors()) {
            *users.entry(tensor).or_default() += 1;
        }
        let mut kept_bytes = 0;
        let all: Vec<usize> = (0..nodes.len()).collect();
        for some in all.chunks(NODES_AT_ONCE * rayon::current_num_threads()) {
            // With the norms that are folded into convolutions.
            let norms = some.iter().filter_map(|n| fused[*n].batch_norm);
            let tensors = some.iter().copied().chain(norms);
            let tensors: Vec<&str> = tensors.flat_map(|n| nodes[n].op.tensors()).collect();
            fill(&mut program, &tensors)?;
            let made: Vec<_> = some
                .par_iter()
                .map(|&n| {
                    let op = &nodes[n].op;
                    if let Some(joint) = joints.get(&n) {
                        let joint = pack.then(|| joint.packed(&program, op, &fused[n]));
                        return (joint.flatten(), None, None, None);
                    }
                    let conv = packed(&program, op, &fused[n], pack);
                    let up = packed_transposed(&program, op, pack);
                    (None, conv, up, packed_matrix(&program, op, pack))
                })
                .collect();
            for (&n, (joint, conv, up, matrix)) in some.iter().zip(made) {
                joints.extend(joint.map(|joint| (n, joint)));
                convs.extend(conv.map(|conv| (n, conv)));
                transposed.extend(up.map(|up| (n, up)));
                matrices.extend(matrix.map(|matrix| (n, matrix)));
                let by_kernel = joints.contains_key(&n)
                    || convs.contains_key(&n)
                    || transposed.contains_key(&n)
                    || matrices.contains_key(&n);
                for tensor in nodes[n].op.tensors() {
                    *users.entry(tensor).or_default() -= 1;
                    if !by_kernel {
                        other.insert(tensor);
                    }
                }
            }
            // What kernels have packed is not needed twice, nor held twice for long.
            let done = |name: &str| users.get(name) == Some(&0) && !other.contains(name);
            program.forget(done);
            kept_bytes = program.bytes_of(|name| !done(name));
        }
        Ok(Self {
            program,
            fused: Arc::new(fused),
            convs: Arc::new(convs),
            skips_first: Arc::new(joints.iter().map(|(n, j)| (j.enlarged, *n)).collect()),
            joints: Arc::new(joints),
            transposed: Arc::new(transposed),
            matrices: Arc::new(matrices),
            instructions,
            kept_bytes,
        })
    }

    /// The program.
    pub const fn program(&self) -> &Program {
        &self.program
    }

    /// Multiplications and additions of the convolutions and products for a grid.
    ///
    /// # Errors
    /// As [`Program::shapes`].
    pub fn flops(&self, spatial: &[usize]) -> Result<f64, Error> {
        memory::flops(&self.program, spatial)
    }

    /// Seconds that a run on a grid is expected to take on a machine.
    ///
    /// # Errors
    /// As [`Program::shapes`].
    pub fn expected_secs(&self, spatial: &[usize], rates: &Rates) -> Result<f64, Error> {
        memory::secs(self, spatial, rates)
    }

    /// Peak memory of a run on a grid: activations, scratch and packed weights.
    ///
    /// # Errors
    /// As [`Program::shapes`].
    pub fn bytes(&self, spatial: &[usize]) -> Result<u64, Error> {
        memory::bytes(self, spatial)
    }

    /// Memory of the packed weights and of the tensors beside them.
    pub fn weight_bytes(&self) -> u64 {
        let parts = self
            .joints
            .values()
            .flat_map(|j| [&j.of_skip, &j.of_enlarged]);
        let convs: usize = self
            .convs
            .values()
            .chain(parts)
            .map(Conv::weight_bytes)
            .sum();
        let ups: usize = self.transposed.values().map(Transposed::weight_bytes).sum();
        let matrices: usize = self.matrices.values().map(Matrix::weight_bytes).sum();
        (convs + ups + matrices) as u64 + self.kept_bytes
    }

    /// Results for an input `[1, channels, …]`; the task's progress counts operations.
    ///
    /// # Errors
    /// [`Error::Network`] for a grid that does not fit, `Cancelled` soon after it is asked for.
    pub fn run(
        &self,
        input: &Array,
        workspace: &mut Workspace,
        task: &Task,
    ) -> Result<Vec<Array>, Error> {
        let shapes = self
            .program
            .shapes(input.shape.get(2..).unwrap_or_default())?;
        if shapes[0] != input.shape {
            return Err(Error::Network(format!(
                "the input is {:?}, expected {:?}",
                input.shape, shapes[0]
            )));
        }
        let graph = self.program.graph();
        let mut left = vec![0_usize; graph.nodes.len()];
        for node in &graph.nodes {
            node.from.iter().for_each(|from| left[*from] += 1);
        }
        for output in &graph.outputs {
            left[*output] += 1;
        }
        with_awake_threads(|| self.run_here(input, shapes, left, workspace, task))
    }

    fn run_here(
        &self,
        input: &Array,
        shapes: Vec<Vec<usize>>,
        left: Vec<usize>,
        workspace: &mut Workspace,
        task: &Task,
    ) -> Result<Vec<Array>, Error> {
        let graph = self.program.graph();
        let mut run = Run {
            native: self,
            shapes,
            left,
            values: vec![None; graph.nodes.len()],
            done: vec![false; graph.nodes.len()],
            begun: HashMap::new(),
            pool: &mut workspace.pool,
            task,
        };
        run.values[0] = Some(Value::plain(input.clone()));
        for n in 1..graph.nodes.len() {
            task.check()?;
            if !run.done[n] {
                run.step(n)?;
            }
        }
        let mut results = Vec::new();
        for output in &graph.outputs {
            let value = run.take(*output);
            let array = value.into_plain(run.pool);
            results.push(Arc::unwrap_or_clone(array));
        }
        Ok(results)
    }
}

/// A run on its way.
struct Run<'a> {
    native: &'a Native,
    shapes: Vec<Vec<usize>>,
    /// Uses of each value that are still to come.
    left: Vec<usize>,
    values: Vec<Option<Value>>,
    /// Nodes that were done together with an earlier one.
    done: Vec<bool>,
    /// Sums over the skips of convolutions that wait for their other channels.
    begun: HashMap<usize, Grid>,
    pool: &'a mut Pool,
    task: &'a Task,
}

impl Run<'_> {
    /// A value for one of its uses; the last use gets the value itself.
    fn take(&mut self, n: usize) -> Value {
        self.left[n] -= 1;
        let value = if self.left[n] == 0 {
            self.values[n].take()
        } else {
            self.values[n].clone()
        };
        value.expect("values live until their last use")
    }

    /// Keeps a value, if anybody wants it.
    fn keep(&mut self, n: usize, value: Value) {
        if self.left[n] == 0 {
            value.release(self.pool);
        } else {
            self.values[n] = Some(value);
        }
    }

    fn step(&mut self, n: usize) -> Result<(), Error> {
        let native = self.native;
        let node = &native.program.graph().nodes[n];
        let fused = &native.fused[n];
        let value = match &node.op {
            Op::Conv { .. } if native.convs.contains_key(&n) => self.conv(n, fused)?,
            Op::Conv { .. } if native.joints.contains_key(&n) => self.on_top(n, fused)?,
            Op::ConvTranspose { .. } if native.transposed.contains_key(&n) => self.up(n)?,
            Op::Add if self.same_grid(&node.from) && self.any_grid(&node.from) => {
                let (a, b) = (self.take(node.from[0]), self.take(node.from[1]));
                let (a, b) = (a.into_grid(self.pool), b.into_grid(self.pool));
                let sum = value::sum(a, &b, fused.activation, self.pool);
                b.release(self.pool);
                self.mark(n, fused);
                sum
            }
            op => match self.fast(n, op, &node.from)? {
                Some(value) => value,
                None => match self.on_rows(n, op, &node.from)? {
                    Some(value) => value,
                    None => self.plain(n, op, &node.from)?,
                },
            },
        };
        self.keep(fused.result.unwrap_or(n), value);
        Ok(())
    }

    /// Marks what was done together with a node.
    fn mark(&mut self, n: usize, fused: &Fused) {
        let graph = self.native.program.graph();
        let mut at = n;
        while Some(at) != fused.result && fused.result.is_some() {
            // The only user of a value in the chain is the next one.
            let next =
                (at + 1..graph.nodes.len()).find(|user| graph.nodes[*user].from.contains(&at));
            at = next.expect("a chain ends with its result");
            self.done[at] = true;
        }
    }

    /// Whether two values have one shape on a grid of channels.
    fn same_grid(&self, from: &[usize]) -> bool {
        let [a, b] = [&self.shapes[from[0]], &self.shapes[from[1]]];
        a == b && (3..=5).contains(&a.len()) && a[0] == 1
    }

    /// Whether one of the values is in blocks already; plain ones (tokens) stay plain.
    fn any_grid(&self, from: &[usize]) -> bool {
        let stores = from.iter().map(|n| self.values[*n].as_ref());
        stores
            .flatten()
            .any(|value| matches!(value.store, Store::Grid(_)))
    }

    fn conv(&mut self, n: usize, fused: &Fused) -> Result<Value, Error> {
        let native = self.native;
        let conv = &native.convs[&n];
        let from = native.program.graph().nodes[n].from[0];
        let input = self.take(from);
        // The other side of the sum that is done at once.
        let residual = match fused.residual {
            Some(other) if self.shapes[other] == self.shapes[n] => {
                let value = self.take(other).into_grid(self.pool).settled(self.pool);
                Some(value)
            }
            _ => None,
        };
        let alone = fused.residual.is_some() && residual.is_none();
        let result = if alone { n } else { fused.result.unwrap_or(n) };
        let shape = self.shapes[result].clone();
        let mut grid = Grid::new(self.pool, dims_of(&shape), shape[1]);
        let epilogue = Epilogue {
            residual: residual.as_ref().map(|r| match &r.store {
                Store::Grid(grid) => grid.view(),
                Store::Plain(_) => unreachable!("it was made a grid"),
            }),
            accumulate: false,
            activation: fused.activation,
            moments: fused.moments,
        };
        let moments = self.convolve(conv, input, &mut grid, &epilogue)?;
        if let Some(residual) = residual {
            residual.release(self.pool);
        }
        self.mark(n, fused);
        let mut value = Value::grid(&shape, grid);
        value.moments = moments.map(Arc::new);
        Ok(value)
    }

    fn up(&mut self, n: usize) -> Result<Value, Error> {
        let native = self.native;
        let mut room = 0;
        if let Some(conv) = native.skips_first.get(&n) {
            self.skip_first(*conv)?;
        } else {
            room = ops::room(native.program.graph(), &self.shapes, n);
        }
        let input = self.take(native.program.graph().nodes[n].from[0]);
        let input = input.into_grid(self.pool).settled(self.pool);
        let shape = self.shapes[n].clone();
        let mut grid = Grid::with_room(self.pool, dims_of(&shape), shape[1], room);
        let Store::Grid(from) = &input.store else {
            unreachable!("it was made a grid");
        };
        let (task, epilogue) = (self.task, Epilogue::default());
        let goes_on = || !task.is_cancelled();
        native.transposed[&n]
            .run(
                from.view(),
                grid.view_mut(),
                &epilogue,
                native.instructions,
                &goes_on,
            )
            .map_err(|_| Cancelled)?;
        input.release(self.pool);
        Ok(Value::grid(&shape, grid))
    }

    /// Convolves a skip alone; what is enlarged comes on top of it later.
    fn skip_first(&mut self, n: usize) -> Result<(), Error> {
        let native = self.native;
        let joint = &native.joints[&n];
        let input = self.take(joint.skip);
        let mut grid = Grid::new(self.pool, dims_of(&self.shapes[n]), self.shapes[n][1]);
        let epilogue = Epilogue::default();
        self.convolve(&joint.of_skip, input, &mut grid, &epilogue)?;
        self.begun.insert(n, grid);
        self.done[joint.concat] = true;
        Ok(())
    }

    /// The rest of what [`Run::skip_first`] has begun.
    fn on_top(&mut self, n: usize, fused: &Fused) -> Result<Value, Error> {
        let native = self.native;
        let joint = &native.joints[&n];
        let input = self.take(joint.enlarged);
        let mut grid = self.begun.remove(&n).expect("its skip was first");
        let epilogue = Epilogue {
            residual: None,
            accumulate: true,
            activation: fused.activation,
            moments: fused.moments,
        };
        let moments = self.convolve(&joint.of_enlarged, input, &mut grid, &epilogue)?;
        self.mark(n, fused);
        let mut value = Value::grid(&self.shapes[fused.result.unwrap_or(n)], grid);
        value.moments = moments.map(Arc::new);
        Ok(value)
    }

    /// Convolves a value that is not needed afterwards.
    fn convolve(
        &mut self,
        conv: &Conv,
        mut input: Value,
        grid: &mut Grid,
        epilogue: &Epilogue<'_>,
    ) -> Result<Option<Moments>, Error> {
        let dims = dims_of(&input.shape);
        if input.pending.is_some() && conv.wants_plain_input(dims) {
            input = input.settled(self.pool);
        }
        let view = match &input.store {
            Store::Grid(grid) => grid.view(),
            Store::Plain(array) => View::plain(&array.values, dims, input.shape[1]),
        };
        let prologue = input.pending.as_deref().map(value::Pending::prologue);
        let (task, instructions) = (self.task, self.native.instructions);
        let goes_on = || !task.is_cancelled();
        let moments = conv
            .run(
                view,
                prologue,
                grid.view_mut(),
                epilogue,
                instructions,
                &goes_on,
            )
            .map_err(|_| Cancelled)?;
        input.release(self.pool);
        Ok(moments)
    }

    /// By the reference, on plain memory.
    fn plain(&mut self, n: usize, op: &Op, from: &[usize]) -> Result<Value, Error> {
        let mut arrays = Vec::new();
        for at in from {
            arrays.push(self.take(*at).into_plain(self.pool));
        }
        let value = reference::one(
            &self.native.program,
            op,
            &arrays,
            &self.shapes[n],
            &Device::Cpu,
        )?;
        Ok(Value::plain(value))
    }
}

/// `[z, y, x]` from fewer spatial axes.
fn spread<T: Copy>(of: &[T], one: T) -> [T; 3] {
    let mut all = [one; 3];
    all[3 - of.len()..].copy_from_slice(of);
    all
}

/// A linear layer, packed.
fn packed_matrix(program: &Program, op: &Op, pack: bool) -> Option<Matrix> {
    let Op::Linear { weight, bias } = op else {
        return None;
    };
    let weights = program.weight(weight);
    let [columns, inner] = *weights.shape.as_slice() else {
        return None;
    };
    let bias = bias
        .as_ref()
        .map_or(&[][..], |name| &program.weight(name).values);
    Some(if pack {
        Matrix::new(&weights.values, inner, columns, true, bias)
    } else {
        Matrix::outline(inner, columns)
    })
}

/// A transposed convolution, packed.
fn packed_transposed(program: &Program, op: &Op, pack: bool) -> Option<Transposed> {
    let Op::ConvTranspose {
        weight,
        bias,
        stride,
        padding,
        output_padding,
        groups,
    } = op
    else {
        return None;
    };
    let weights = program.weight(weight);
    let shape = TransposedShape {
        input: weights.shape[0],
        output: weights.shape[1] * groups,
        groups: *groups,
        kernel: spread(&weights.shape[2..], 1),
        stride: spread(stride, 1),
        dilation: [1; 3],
        padding: spread(padding, [0; 2]),
        output_padding: spread(output_padding, 0),
    };
    let bias = bias
        .as_ref()
        .map_or(&[][..], |name| &program.weight(name).values);
    if !shape.is_valid() {
        return None;
    }
    Some(if pack {
        Transposed::new(shape, &weights.values, bias)
    } else {
        Transposed::outline(shape)
    })
}

/// The shape of a convolution; `None` for what is none, or makes no sense.
fn conv_shape(program: &Program, op: &Op) -> Option<ConvShape> {
    let Op::Conv {
        weight,
        stride,
        padding,
        dilation,
        groups,
        ..
    } = op
    else {
        return None;
    };
    let weights = program.weight(weight);
    let shape = ConvShape {
        input: weights.shape[1] * groups,
        output: weights.shape[0],
        groups: *groups,
        kernel: spread(&weights.shape[2..], 1),
        stride: spread(stride, 1),
        dilation: spread(dilation, 1),
        padding: spread(padding, [0; 2]),
    };
    shape.is_valid().then_some(shape)
}

/// Weights and bias of a convolution with the norm behind it.
fn conv_weights<'a>(
    program: &'a Program,
    op: &Op,
    fused: &Fused,
) -> Option<(Cow<'a, [f32]>, Vec<f32>)> {
    let Op::Conv { weight, bias, .. } = op else {
        return None;
    };
    let weights = program.weight(weight);
    let mut bias = bias
        .as_ref()
        .map_or_else(Vec::new, |name| program.weight(name).values.clone());
    let mut folded = Cow::from(&weights.values);
    let Some(norm) = fused.batch_norm else {
        return Some((folded, bias));
    };
    let (scale, offset) = ops::batch_norm(program, &program.graph().nodes[norm].op)?;
    let output = weights.shape[0];
    let per = folded.len() / output;
    bias.resize(output, 0.0);
    for (co, weights) in folded.to_mut().chunks_mut(per).enumerate() {
        for weight in weights {
            *weight *= scale[co];
        }
        bias[co] = bias[co] * scale[co] + offset[co];
    }
    Some((folded, bias))
}

/// A convolution packed with the norm behind it.
fn packed(program: &Program, op: &Op, fused: &Fused, pack: bool) -> Option<Conv> {
    let shape = conv_shape(program, op)?;
    if !pack {
        return Some(Conv::outline(shape, Method::Auto));
    }
    let (weights, bias) = conv_weights(program, op, fused)?;
    Some(Conv::new(shape, &weights, &bias, Method::Auto))
}
