//! Operations beside convolutions that work on grids, or only change what is pending.

use std::sync::Arc;

use super::fuse::activation_of;
use super::value::{self, Grid, Pending, Store, Value, dims_of};
use super::{Run, spread};
use crate::inference::Error;
use crate::inference::tensor::{Array, Program};
use crate::kernels::{
    Activation, BLOCK, Interpolation, PoolKind, PoolShape, View, ViewMut, blocked_floats,
    global_mean, pool, resize,
};
use crate::model::graph::{Affine, Graph, Op, Pool, ResizeMode, ResizeTo};

impl Run<'_> {
    /// An operation that grids have a way for; `None` leaves it to the reference.
    pub(super) fn fast(
        &mut self,
        n: usize,
        op: &Op,
        from: &[usize],
    ) -> Result<Option<Value>, Error> {
        let Some(first) = from.first() else {
            return Ok(None);
        };
        let on_grid = (3..=5).contains(&self.shapes[*first].len()) && self.shapes[*first][0] == 1;
        let is_grid = matches!(
            self.values[*first].as_ref().map(|v| &v.store),
            Some(Store::Grid(_))
        );
        if !on_grid {
            return Ok(None);
        }
        if let Some(activation) = activation_of(op) {
            if !is_grid {
                return Ok(None);
            }
            let value = self.take(*first);
            return Ok(Some(self.activated(value, activation)));
        }
        Ok(Some(match op {
            Op::InstanceNorm { epsilon, affine } => {
                let value = self.take(*first).into_grid(self.pool);
                self.normalized(value, *epsilon, affine.as_ref(), None)
            }
            Op::GroupNorm {
                groups,
                epsilon,
                affine,
            } => {
                let value = self.take(*first).into_grid(self.pool);
                self.normalized(value, *epsilon, affine.as_ref(), Some(*groups))
            }
            Op::BatchNorm { .. } => {
                let Some((scale, offset)) = batch_norm(&self.native.program, op) else {
                    return Ok(None);
                };
                let value = self.take(*first).into_grid(self.pool);
                self.pending(value, scale, offset)
            }
            Op::Concat { axis: 1 } => {
                let aligned = from[..from.len() - 1]
                    .iter()
                    .all(|at| self.shapes[*at][1].is_multiple_of(BLOCK));
                if !aligned {
                    return Ok(None);
                }
                self.joined(n, from)
            }
            Op::MaxPool(window) => self.pooled(n, *first, window, PoolKind::Max),
            Op::AveragePool {
                pool: window,
                count_padding,
            } => {
                let kind = PoolKind::Mean {
                    count_padding: *count_padding,
                };
                self.pooled(n, *first, window, kind)
            }
            Op::GlobalAveragePool if is_grid => {
                let value = self.take(*first).settled(self.pool);
                let Store::Grid(grid) = &value.store else {
                    unreachable!("it is a grid");
                };
                let means = Array::new(&self.shapes[n], global_mean(grid.view()));
                value.release(self.pool);
                Value::plain(means)
            }
            Op::Resize { to, mode } if is_grid => {
                let how = match mode {
                    ResizeMode::Nearest => Interpolation::Nearest,
                    ResizeMode::Linear => Interpolation::Linear {
                        align_corners: false,
                    },
                    ResizeMode::LinearAlignCorners => Interpolation::Linear {
                        align_corners: true,
                    },
                };
                // A factor that was rounded keeps its own coordinates; the reference knows them.
                let old = &self.shapes[*first][2..];
                let whole = |f: &[f64]| {
                    let sizes = old.iter().zip(f);
                    sizes
                        .into_iter()
                        .all(|(n, f)| (*n as f64 * f).fract() == 0.0)
                };
                if let ResizeTo::Factor(factors) = to
                    && !whole(factors)
                {
                    return Ok(None);
                }
                if from.len() > 1 {
                    let like = self.take(from[1]);
                    like.release(self.pool);
                }
                self.mapped(n, *first, |from, to| resize(how, from, to))
            }
            _ => return Ok(None),
        }))
    }

    fn pooled(&mut self, n: usize, from: usize, window: &Pool, kind: PoolKind) -> Value {
        let shape = PoolShape {
            kind,
            kernel: spread(&window.kernel, 1),
            stride: spread(&window.stride, 1),
            dilation: [1; 3],
            padding: spread(&window.padding, [0; 2]),
            ceil: window.ceil,
        };
        self.mapped(n, from, |from, to| pool(&shape, from, to))
    }

    /// A new grid from the settled values of another.
    fn mapped(&mut self, n: usize, from: usize, work: impl FnOnce(View<'_>, ViewMut<'_>)) -> Value {
        let value = self.take(from).into_grid(self.pool).settled(self.pool);
        let shape = self.shapes[n].clone();
        let room = room(self.native.program.graph(), &self.shapes, n);
        let mut grid = Grid::with_room(self.pool, dims_of(&shape), shape[1], room);
        let Store::Grid(source) = &value.store else {
            unreachable!("it was made a grid");
        };
        work(source.view(), grid.view_mut());
        value.release(self.pool);
        Value::grid(&shape, grid)
    }

    fn activated(&mut self, value: Value, activation: Activation) -> Value {
        let mut value = match &value.pending {
            Some(pending) if pending.activation != Activation::Linear => value.settled(self.pool),
            _ => value,
        };
        let channels = value.shape[1];
        let pending = value.pending.take();
        let (scale, offset) = match pending {
            Some(p) => (p.scale.clone(), p.offset.clone()),
            None => (vec![1.0; channels], vec![0.0; channels]),
        };
        value.pending = Some(Arc::new(Pending {
            scale,
            offset,
            activation,
        }));
        value
    }

    /// Scale and offset after what is pending already.
    fn pending(&mut self, value: Value, scale: Vec<f32>, offset: Vec<f32>) -> Value {
        let mut value = match &value.pending {
            Some(pending) if pending.activation != Activation::Linear => value.settled(self.pool),
            _ => value,
        };
        let (scale, offset) = match value.pending.take() {
            None => (scale, offset),
            Some(before) => {
                let pairs = before.offset.iter().zip(&scale).zip(&offset);
                let joined = pairs.map(|((b, s), o)| b * s + o).collect();
                let product = before.scale.iter().zip(&scale).map(|(a, b)| a * b);
                (product.collect(), joined)
            }
        };
        value.pending = Some(Arc::new(Pending {
            scale,
            offset,
            activation: Activation::Linear,
        }));
        value
    }

    fn normalized(
        &mut self,
        value: Value,
        epsilon: f32,
        affine: Option<&Affine>,
        groups: Option<usize>,
    ) -> Value {
        let mut value = value.settled(self.pool);
        let Store::Grid(grid) = &value.store else {
            unreachable!("it was made a grid");
        };
        let moments = match value.moments.take() {
            Some(moments) => moments,
            None => Arc::new(value::moments(grid)),
        };
        let mut sums = moments.sums.clone();
        let mut count = moments.count;
        if let Some(groups) = groups {
            let per = sums.len() / groups;
            count *= per;
            for group in sums.chunks_mut(per) {
                let total = group
                    .iter()
                    .fold([0.0; 2], |t, s| [t[0] + s[0], t[1] + s[1]]);
                group.fill(total);
            }
        }
        let program = &self.native.program;
        let weight = |name: Option<&String>| -> &[f32] {
            name.map_or(&[], |name| &program.weight(name).values)
        };
        let moments = crate::kernels::Moments { count, sums };
        let (scale, offset) = moments.norm(
            epsilon,
            weight(affine.map(|a| &a.scale)),
            weight(affine.map(|a| &a.shift)),
        );
        value.pending = Some(Arc::new(Pending {
            scale,
            offset,
            activation: Activation::Linear,
        }));
        value
    }

    /// Channels one after another, each with what is pending for it.
    fn joined(&mut self, n: usize, from: &[usize]) -> Value {
        let shape = self.shapes[n].clone();
        let dims = dims_of(&shape);
        let floats = blocked_floats(dims, shape[1]);
        // Dense blocks join their channels to all before, again and again, and decoders join a skip
        // to what they enlarged: where nobody else has the first channels, and there is room behind
        // them, only the new ones are written.
        let first = self.take(from[0]).into_grid(self.pool);
        let (mut grid, mut at) = match first.growing(floats) {
            Ok(mut grid) => {
                let at = grid.data.len();
                grid.data.resize(floats, 0.0);
                grid.channels = shape[1];
                (grid, at)
            }
            Err(first) => {
                let room = room(self.native.program.graph(), &self.shapes, n);
                let mut joined = Grid::with_room(self.pool, dims, shape[1], room);
                let Store::Grid(part) = &first.store else {
                    unreachable!("it was made a grid");
                };
                let at = part.data.len();
                value::copy_settled(part, first.pending.as_deref(), &mut joined.data[..at]);
                first.release(self.pool);
                (joined, at)
            }
        };
        for source in &from[1..] {
            let value = self.take(*source).into_grid(self.pool);
            let Store::Grid(part) = &value.store else {
                unreachable!("it was made a grid");
            };
            let floats = part.data.len();
            value::copy_settled(
                part,
                value.pending.as_deref(),
                &mut grid.data[at..at + floats],
            );
            at += floats;
            value.release(self.pool);
        }
        Value::grid(&shape, grid)
    }
}

/// Floats that the memory of a value has room for: its own, or those of the concatenation that it
/// begins, and of concatenations that follow on that.
///
/// Only what is computed just before has such room; a skip would hold it for most of the run.
pub fn room(graph: &Graph, shapes: &[Vec<usize>], n: usize) -> usize {
    let nodes = &graph.nodes;
    let is_early = !matches!(
        nodes[n].op,
        Op::ConvTranspose { .. } | Op::Resize { .. } | Op::Concat { .. }
    );
    let mut last = n;
    for (at, node) in nodes.iter().enumerate().skip(n + 1) {
        if is_early {
            break;
        }
        if matches!(node.op, Op::Concat { axis: 1 }) && node.from.first() == Some(&last) {
            last = at;
        }
    }
    let shape = &shapes[last];
    blocked_floats(dims_of(shape), shape[1])
}

/// Scale and offset per channel of a stored norm.
pub fn batch_norm(program: &Program, op: &Op) -> Option<(Vec<f32>, Vec<f32>)> {
    let Op::BatchNorm {
        epsilon,
        mean,
        variance,
        affine,
    } = op
    else {
        return None;
    };
    let values = |name: &String| &program.weight(name).values;
    let (means, variances) = (values(mean), values(variance));
    let affine = affine
        .as_ref()
        .map(|a| (values(&a.scale), values(&a.shift)));
    let mut scales = Vec::with_capacity(means.len());
    let mut offsets = Vec::with_capacity(means.len());
    for (c, (mean, variance)) in means.iter().zip(variances).enumerate() {
        let (weight, bias) = affine.map_or((1.0, 0.0), |(scale, shift)| {
            (f64::from(scale[c]), f64::from(shift[c]))
        });
        let scale = weight / (f64::from(*variance) + f64::from(*epsilon)).sqrt();
        scales.push(scale as f32);
        offsets.push((bias - f64::from(*mean) * scale) as f32);
    }
    Some((scales, offsets))
}
