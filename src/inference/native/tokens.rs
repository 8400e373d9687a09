//! Operations of transformers on plain values: rows of channels, one after another.

use rayon::prelude::*;

use super::Run;
use super::fuse::activation_of;
use super::value::{Grid, Store, Value, dims_of};
use crate::inference::Error;
use crate::inference::tensor::{Array, Program};
use crate::kernels::{
    Added, BLOCK, Head, HeadShape, Instructions, Matrix, activate_rows, add_rows, blocks_from_rows,
    broadcast, cut_box, erf, layer_norm_rows, permute, rows_from_blocks, softmax_wide,
};
use crate::model::graph::{Affine, Function, Op, PadMode, slice_bounds};
use crate::task::{Cancelled, Task};

/// What is added between tokens of a window that the shift brought together.
const STRANGERS: f32 = -100.0;

/// Whether an operand, plain, may be added to a value by repeating it.
fn repeats(operand: &[usize], whole: &[usize]) -> bool {
    let ones = operand.iter().take_while(|n| **n == 1).count();
    let rest = &operand[ones..];
    !rest.is_empty() && whole.ends_with(rest)
}

/// Channels go from behind the batch to the end.
pub fn to_the_end(order: &[usize]) -> bool {
    let n = order.len();
    (3..=5).contains(&n)
        && order[0] == 0
        && order[n - 1] == 1
        && order[1..n - 1].iter().copied().eq(2..n)
}

/// Channels come back from the end.
pub fn to_the_front(order: &[usize]) -> bool {
    let n = order.len();
    (3..=5).contains(&n)
        && order[0] == 0
        && order[1] == n - 1
        && order[2..].iter().copied().eq(1..n - 1)
}

/// Whether rows have a way for an operation that grids have none for; `shapes` of what it is applied to.
pub fn has_rows(op: &Op, from: &[&[usize]], shape: &[usize]) -> bool {
    match op {
        Op::Linear { .. }
        | Op::LayerNorm { .. }
        | Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Slice { .. }
        | Op::Attention { .. }
        | Op::WindowAttention { .. }
        | Op::Add => true,
        Op::Pad { mode, .. } => matches!(mode, PadMode::Constant(_)),
        Op::Concat { .. } => from.iter().all(|s| !s.contains(&0)),
        Op::Softmax { axis } => axis + 1 == shape.len(),
        Op::MatMul => batches(from).is_some(),
        op => activation_of(op).is_some() || is_by_place(op),
    }
}

/// Functions of the values at one place.
fn is_by_place(op: &Op) -> bool {
    matches!(
        op,
        Op::Sub
            | Op::Mul
            | Op::Div
            | Op::Minimum
            | Op::Maximum
            | Op::Pow
            | Op::Greater
            | Op::Select
            | Op::Unary { .. }
    )
}

/// Products of matrices, and whether all have the same right side; `None` for other batches.
fn batches(from: &[&[usize]]) -> Option<(usize, bool)> {
    let [a, b] = from else { return None };
    let (outer_a, outer_b) = (&a[..a.len().checked_sub(2)?], &b[..b.len().checked_sub(2)?]);
    if outer_b.iter().all(|n| *n == 1) {
        return Some((1, true));
    }
    (outer_a == outer_b).then(|| (outer_a.iter().product(), false))
}

/// The shape of the heads of an attention, and how many there are.
pub fn heads_of(op: &Op, from: &[&[usize]]) -> Option<(HeadShape, usize)> {
    match op {
        Op::Attention { .. } => {
            let (k, v) = (from[1], from[2]);
            let shape = HeadShape {
                keys: k[2],
                width: k[3],
                value_width: v[3],
            };
            Some((shape, k[0] * k[1]))
        }
        Op::WindowAttention { heads, window, .. } => {
            let each = from[0].last()? / 3 / heads;
            let keys = window.iter().product();
            let shape = HeadShape {
                keys,
                width: each,
                value_width: each,
            };
            Some((shape, *heads))
        }
        _ => None,
    }
}

/// Bytes that an operation on rows takes beside its operands and its result.
pub fn scratch_bytes(op: &Op, from: &[&[usize]], shape: &[usize], threads: usize) -> usize {
    if let (Op::MatMul, Some((count, _))) = (op, batches(from)) {
        let Some([inner, columns]) = from[1].last_chunk::<2>() else {
            return 0;
        };
        let matrix = Matrix::outline(*inner, *columns);
        return threads.min(count) * matrix.weight_bytes() + matrix.scratch_bytes(threads);
    }
    let Some((head, count)) = heads_of(op, from) else {
        return 0;
    };
    let thread = head.bytes() + head.scratch_bytes();
    if let Op::WindowAttention { .. } = op {
        // Biases of all heads, and the result in the order of the windows.
        let biases = count * head.keys * head.keys.next_multiple_of(BLOCK);
        let result = shape.iter().product::<usize>();
        return threads * thread + 4 * (biases + result);
    }
    threads.min(count) * head.bytes() + threads * head.scratch_bytes()
}

impl Run<'_> {
    /// An operation that rows have a way for; `None` leaves it to the reference.
    pub(super) fn on_rows(
        &mut self,
        n: usize,
        op: &Op,
        from: &[usize],
    ) -> Result<Option<Value>, Error> {
        let shape = self.shapes[n].clone();
        let shapes: Vec<&[usize]> = from.iter().map(|at| self.shapes[*at].as_slice()).collect();
        if from.is_empty() || !has_rows(op, &shapes, &shape) {
            return Ok(None);
        }
        let instructions = self.native.instructions;
        if let Some(activation) = activation_of(op) {
            let mut values = self.take(from[0]).into_own(self.pool);
            activate_rows(&mut values, activation, instructions);
            return Ok(Some(Value::rows(&shape, values)));
        }
        Ok(Some(match op {
            Op::Linear { .. } => {
                let input = self.take(from[0]).into_rows(self.pool);
                let mut values = self.pool.take(shape.iter().product());
                let matrix = &self.native.matrices[&n];
                matrix.multiply(&plain(&input).values, &mut values, instructions);
                input.release(self.pool);
                Value::rows(&shape, values)
            }
            Op::LayerNorm { epsilon, affine } => {
                let width = shape.last().copied().unwrap_or(1);
                let mut values = self.take(from[0]).into_own(self.pool);
                let affine = affine_of(&self.native.program, affine.as_ref());
                layer_norm_rows(&mut values, width, *epsilon, affine, instructions);
                Value::rows(&shape, values)
            }
            Op::Softmax { .. } => {
                let width = shape.last().copied().unwrap_or(1).max(1);
                let mut values = self.take(from[0]).into_own(self.pool);
                softmax_wide(&mut values, width, instructions);
                Value::rows(&shape, values)
            }
            Op::Add if in_place(&shapes, &shape).is_some() => {
                let (whole, other) = if in_place(&shapes, &shape) == Some(0) {
                    (from[0], from[1])
                } else {
                    (from[1], from[0])
                };
                let mut values = self.take(whole).into_own(self.pool);
                let other = self.take(other).into_rows(self.pool);
                add_rows(&mut values, &plain(&other).values);
                other.release(self.pool);
                Value::rows(&shape, values)
            }
            Op::Reshape { .. } => {
                let values = self.take(from[0]).into_own(self.pool);
                Value::rows(&shape, values)
            }
            Op::Transpose { order } => self.turned(from[0], order, &shape),
            Op::Pad { padding, mode } => {
                let PadMode::Constant(fill) = mode else {
                    unreachable!("it was asked for");
                };
                let start: Vec<isize> = padding.iter().map(|p| -(p[0] as isize)).collect();
                self.cut(from[0], &start, *fill, &shape)
            }
            Op::Slice { axis, start, end } => {
                let mut corner = vec![0; shape.len()];
                corner[*axis] = slice_bounds(self.shapes[from[0]][*axis], *start, *end).0 as isize;
                self.cut(from[0], &corner, 0.0, &shape)
            }
            Op::Concat { axis } => self.one_after_another(from, *axis, &shape),
            Op::MatMul => self.product(from, &shape),
            op if matches!(op, Op::Add) || is_by_place(op) => self.by_place(op, from, &shape),
            Op::Attention { scale } => self.attention(from, *scale, &shape)?,
            Op::WindowAttention { .. } => self.window_attention(op, from[0], &shape)?,
            _ => return Ok(None),
        }))
    }

    fn turned(&mut self, from: usize, order: &[usize], shape: &[usize]) -> Value {
        let value = self.take(from);
        let is_grid = matches!(value.store, Store::Grid(_));
        if is_grid && to_the_end(order) {
            let value = value.settled(self.pool);
            let Store::Grid(grid) = &value.store else {
                unreachable!("it is a grid");
            };
            let mut rows = self.pool.take(shape.iter().product());
            rows_from_blocks(&grid.data, grid.voxels(), grid.channels, &mut rows);
            value.release(self.pool);
            return Value::rows(shape, rows);
        }
        let value = value.into_rows(self.pool);
        let array = plain(&value);
        if to_the_front(order) && shape[0] == 1 {
            let mut grid = Grid::new(self.pool, dims_of(shape), shape[1]);
            let voxels = grid.voxels();
            blocks_from_rows(&array.values, voxels, shape[1], &mut grid.data);
            value.release(self.pool);
            return Value::grid(shape, grid);
        }
        let mut values = self.pool.take(array.values.len());
        permute(&array.values, &array.shape, order, &mut values);
        value.release(self.pool);
        Value::rows(shape, values)
    }

    fn cut(&mut self, from: usize, start: &[isize], fill: f32, shape: &[usize]) -> Value {
        let value = self.take(from).into_rows(self.pool);
        let array = plain(&value);
        let mut values = self.pool.take(shape.iter().product());
        cut_box(&array.values, &array.shape, start, fill, shape, &mut values);
        value.release(self.pool);
        Value::rows(shape, values)
    }

    fn one_after_another(&mut self, from: &[usize], axis: usize, shape: &[usize]) -> Value {
        let mut values = self.pool.take(shape.iter().product());
        let inner: usize = shape[axis + 1..].iter().product();
        let line = shape[axis] * inner;
        let mut first = 0;
        for at in from {
            let part = self.take(*at).into_rows(self.pool);
            let length = self.shapes[*at][axis] * inner;
            values
                .par_chunks_mut(line)
                .zip(plain(&part).values.par_chunks(length))
                .for_each(|(to, from)| to[first..first + length].copy_from_slice(from));
            first += length;
            part.release(self.pool);
        }
        Value::rows(shape, values)
    }

    /// Products of matrices, one after another.
    fn product(&mut self, from: &[usize], shape: &[usize]) -> Value {
        let parts: Vec<Value> = from
            .iter()
            .map(|at| self.take(*at).into_rows(self.pool))
            .collect();
        let [a, b] = [0, 1].map(|n| plain(&parts[n]));
        let count = batches(&[&a.shape, &b.shape]).expect("it was asked for").0;
        let [inner, columns] = *b.shape.last_chunk::<2>().expect("matrices");
        let mut values = self.pool.take(shape.iter().product());
        let instructions = self.native.instructions;
        values
            .par_chunks_mut((a.values.len() / inner / count * columns).max(1))
            .zip(a.values.par_chunks((a.values.len() / count).max(1)))
            .zip(b.values.par_chunks((inner * columns).max(1)))
            .for_each(|((values, a), b)| {
                Matrix::new(b, inner, columns, false, &[]).multiply(a, values, instructions);
            });
        for part in parts {
            part.release(self.pool);
        }
        Value::rows(shape, values)
    }

    fn by_place(&mut self, op: &Op, from: &[usize], shape: &[usize]) -> Value {
        let parts: Vec<Value> = from
            .iter()
            .map(|at| self.take(*at).into_rows(self.pool))
            .collect();
        let mut values = self.pool.take(shape.iter().product());
        let part = |n: usize| {
            let array = plain(&parts[n]);
            (array.values.as_slice(), array.shape.as_slice())
        };
        apply(op, part, shape, &mut values);
        for part in parts {
            part.release(self.pool);
        }
        Value::rows(shape, values)
    }

    fn attention(&mut self, from: &[usize], scale: f32, shape: &[usize]) -> Result<Value, Error> {
        let parts: Vec<Value> = from
            .iter()
            .map(|at| self.take(*at).into_rows(self.pool))
            .collect();
        let [q, k, v] = [0, 1, 2].map(|n| plain(&parts[n]));
        let head = HeadShape {
            keys: k.shape[2],
            width: k.shape[3],
            value_width: v.shape[3],
        };
        let (queries, out) = (q.shape[2], shape[3]);
        let mut values = self.pool.take(shape.iter().product());
        let (instructions, task) = (self.native.instructions, self.task);
        values
            .par_chunks_mut((queries * out).max(1))
            .enumerate()
            .try_for_each(|(number, result)| {
                task.check()?;
                let of = |size: usize| number * size..(number + 1) * size;
                let q = &q.values[of(queries * head.width)];
                let k = &k.values[of(head.keys * head.width)];
                let v = &v.values[of(head.keys * out)];
                let mut packed = Head::new(head);
                packed.fill(
                    |t| &k[t * head.width..][..head.width],
                    |t| &v[t * out..][..out],
                );
                let piece = 96;
                result
                    .par_chunks_mut(piece * out)
                    .enumerate()
                    .for_each_init(
                        || head.scratch(),
                        |scratch, (n, result)| {
                            let (first, count) = (n * piece, result.len() / out);
                            packed.attend(
                                [first, count],
                                scale,
                                |t| &q[t * head.width..][..head.width],
                                Added::default(),
                                scratch,
                                instructions,
                                |t, line| result[(t - first) * out..][..out].copy_from_slice(line),
                            );
                        },
                    );
                Ok::<_, Cancelled>(())
            })?;
        for part in parts {
            part.release(self.pool);
        }
        Ok(Value::rows(shape, values))
    }

    fn window_attention(&mut self, op: &Op, from: usize, shape: &[usize]) -> Result<Value, Error> {
        let Op::WindowAttention {
            heads,
            scale,
            bias,
            table,
            window,
            shift,
        } = op
        else {
            unreachable!("called for this operation alone");
        };
        let value = self.take(from).into_rows(self.pool);
        let windows = Windows {
            grid: &shape[1..shape.len() - 1],
            window,
            shift,
        };
        let biases = biases(
            &self.native.program.weight(bias).values,
            *heads,
            table,
            window,
        );
        let width = shape[shape.len() - 1];
        let each = width / heads;
        let tokens = windows.tokens();
        let mut gathered = self.pool.take(shape.iter().product());
        let input = &plain(&value).values;
        let (instructions, task) = (self.native.instructions, self.task);
        attend_windows(
            &windows,
            input,
            &mut gathered,
            [*heads, each, tokens],
            *scale,
            &biases,
            instructions,
            task,
        )?;
        value.release(self.pool);
        let mut values = self.pool.take(gathered.len());
        windows.scatter(&gathered, width, &mut values);
        self.pool.put(gathered);
        Ok(Value::rows(shape, values))
    }
}

/// Attention inside each window; the results in the order of the windows.
fn attend_windows(
    windows: &Windows<'_>,
    input: &[f32],
    gathered: &mut [f32],
    [heads, each, tokens]: [usize; 3],
    scale: f32,
    biases: &[f32],
    instructions: Instructions,
    task: &Task,
) -> Result<(), Cancelled> {
    let width = heads * each;
    let shape = HeadShape {
        keys: tokens,
        width: each,
        value_width: each,
    };
    let shifted = windows.shift.iter().any(|s| *s > 0);
    let per_head = biases.len() / heads;
    gathered
        .par_chunks_mut(tokens * width)
        .enumerate()
        .try_for_each_init(
            || (Head::new(shape), shape.scratch()),
            |(head, scratch), (number, result)| {
                task.check()?;
                let (places, regions) = windows.tokens_of(number);
                for n in 0..heads {
                    let part = |token: usize, which: usize| {
                        &input[(places[token] * 3 + which) * width + n * each..][..each]
                    };
                    head.fill(|t| part(t, 1), |t| part(t, 2));
                    let added = Added {
                        bias: Some(&biases[n * per_head..(n + 1) * per_head]),
                        regions: shifted.then_some(&regions[..]),
                        strangers: STRANGERS,
                    };
                    head.attend(
                        [0, tokens],
                        scale,
                        |t| part(t, 0),
                        added,
                        scratch,
                        instructions,
                        |t, line| {
                            result[t * width + n * each..][..each].copy_from_slice(line);
                        },
                    );
                }
                Ok(())
            },
        )
}

/// Windows of a grid that is turned by a shift.
struct Windows<'a> {
    grid: &'a [usize],
    window: &'a [usize],
    shift: &'a [usize],
}

impl Windows<'_> {
    fn tokens(&self) -> usize {
        self.window.iter().product()
    }

    /// Where the tokens of a window lie on the grid, and the regions that they belong to.
    fn tokens_of(&self, number: usize) -> (Vec<usize>, Vec<f32>) {
        let axes = self.grid.len();
        let counts: Vec<usize> = self
            .grid
            .iter()
            .zip(self.window)
            .map(|(n, w)| n / w)
            .collect();
        let corner = place(number, &counts);
        let tokens = self.tokens();
        let (mut places, mut regions) = (Vec::with_capacity(tokens), Vec::with_capacity(tokens));
        for token in 0..tokens {
            let inside = place(token, self.window);
            let (mut index, mut region) = (0, 0);
            for a in 0..axes {
                let (n, window, shift) = (self.grid[a], self.window[a], self.shift[a]);
                let at = corner[a] * window + inside[a];
                index = index * n + (at + shift) % n;
                // From the end of the turned grid: the last window, and in it what came round.
                let end = n - at;
                let own = usize::from(end <= window) + usize::from(end <= shift);
                region = region * 3 + if shift == 0 { 0 } else { own };
            }
            places.push(index);
            regions.push(region as f32);
        }
        (places, regions)
    }

    /// From the order of the windows to the grid's.
    fn scatter(&self, gathered: &[f32], width: usize, values: &mut [f32]) {
        let axes = self.grid.len();
        let line = self.grid[axes - 1];
        let counts: Vec<usize> = self
            .grid
            .iter()
            .zip(self.window)
            .map(|(n, w)| n / w)
            .collect();
        values
            .par_chunks_mut(line * width)
            .enumerate()
            .for_each(|(number, to)| {
                let mut at = place(number, &self.grid[..axes - 1]);
                at.push(0);
                for (x, to) in to.chunks_exact_mut(width).enumerate() {
                    at[axes - 1] = x;
                    let (mut window, mut token) = (0, 0);
                    for a in 0..axes {
                        let (n, size) = (self.grid[a], self.window[a]);
                        let turned = (at[a] + n - self.shift[a]) % n;
                        window = window * counts[a] + turned / size;
                        token = token * size + turned % size;
                    }
                    let from = (window * self.tokens() + token) * width;
                    to.copy_from_slice(&gathered[from..from + width]);
                }
            });
    }
}

/// `[head][token][token, filled up to a multiple of eight]`. A window that is smaller than the table's takes the
/// biases of the table's first tokens.
fn biases(table: &[f32], heads: usize, reach: &[usize], window: &[usize]) -> Vec<f32> {
    let tokens: usize = window.iter().product();
    let stride = tokens.next_multiple_of(BLOCK);
    let places: Vec<Vec<usize>> = (0..tokens).map(|token| place(token, reach)).collect();
    let mut rows = Vec::with_capacity(tokens * tokens);
    for one in &places {
        for other in &places {
            rows.push((0..reach.len()).fold(0, |row, axis| {
                row * (2 * reach[axis] - 1) + one[axis] + reach[axis] - 1 - other[axis]
            }));
        }
    }
    let mut biases = vec![0.0; heads * tokens * stride];
    biases
        .par_chunks_mut((tokens * stride).max(1))
        .enumerate()
        .for_each(|(head, biases)| {
            for (to, rows) in biases
                .chunks_exact_mut(stride)
                .zip(rows.chunks_exact(tokens))
            {
                for (to, row) in to.iter_mut().zip(rows) {
                    *to = table[row * heads + head];
                }
            }
        });
    biases
}

/// Where a number lies on a grid, last axis fastest.
fn place(mut number: usize, grid: &[usize]) -> Vec<usize> {
    let mut place = vec![0; grid.len()];
    for (at, n) in place.iter_mut().zip(grid).rev() {
        *at = number % n;
        number /= n;
    }
    place
}

/// The operand of a sum that takes the sum's place.
pub fn in_place(from: &[&[usize]], shape: &[usize]) -> Option<usize> {
    (0..2).find(|n| from[*n] == shape && repeats(from[1 - n], shape))
}

/// A function of the values at each place.
fn apply<'a>(
    op: &Op,
    part: impl Fn(usize) -> (&'a [f32], &'a [usize]),
    shape: &[usize],
    values: &mut [f32],
) {
    let two = || [part(0), part(1)];
    match op {
        Op::Add => broadcast(two(), shape, values, |[a, b]| a + b),
        Op::Sub => broadcast(two(), shape, values, |[a, b]| a - b),
        Op::Mul => broadcast(two(), shape, values, |[a, b]| a * b),
        Op::Div => broadcast(two(), shape, values, |[a, b]| a / b),
        Op::Minimum => broadcast(two(), shape, values, |[a, b]| if b < a { b } else { a }),
        Op::Maximum => broadcast(two(), shape, values, |[a, b]| if b > a { b } else { a }),
        Op::Pow => broadcast(two(), shape, values, |[a, b]| a.powf(b)),
        Op::Greater => broadcast(two(), shape, values, |[a, b]| f32::from(u8::from(a > b))),
        Op::Select => {
            let three = [part(0), part(1), part(2)];
            let choose = |[which, a, b]: [f32; 3]| if which == 0.0 { b } else { a };
            broadcast(three, shape, values, choose);
        }
        Op::Unary { function } => {
            let one = [part(0)];
            match *function {
                Function::Abs => broadcast(one, shape, values, |[x]| x.abs()),
                Function::Neg => broadcast(one, shape, values, |[x]| -x),
                Function::Reciprocal => broadcast(one, shape, values, |[x]| 1.0 / x),
                Function::Sqrt => broadcast(one, shape, values, |[x]| x.sqrt()),
                Function::Exp => broadcast(one, shape, values, |[x]| x.exp()),
                Function::Log => broadcast(one, shape, values, |[x]| x.ln()),
                Function::Erf => broadcast(one, shape, values, |[x]| erf(x)),
                Function::Softplus => broadcast(one, shape, values, |[x]| {
                    // Written so that large values do not overflow.
                    x.max(0.0) + (-x.abs()).exp().ln_1p()
                }),
                Function::HardSigmoid { alpha, beta } => {
                    broadcast(one, shape, values, |[x]| (alpha * x + beta).clamp(0.0, 1.0));
                }
                Function::Clip { low, high } => {
                    let low = low.unwrap_or(f32::NEG_INFINITY);
                    let high = high.unwrap_or(f32::INFINITY);
                    broadcast(one, shape, values, |[x]| x.max(low).min(high));
                }
            }
        }
        _ => unreachable!("it was asked for"),
    }
}

fn plain(value: &Value) -> &Array {
    match &value.store {
        Store::Plain(array) => array,
        Store::Grid(_) => unreachable!("it was made plain"),
    }
}

fn affine_of<'a>(program: &'a Program, affine: Option<&Affine>) -> [&'a [f32]; 2] {
    affine.map_or([&[], &[]], |a| {
        [&a.scale, &a.shift].map(|name| program.weight(name).values.as_slice())
    })
}
