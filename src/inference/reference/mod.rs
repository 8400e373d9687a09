//! The plain executor: every operation by candle's tensors, whole and one after another.
//!
//! It is the definition that the fast executor is compared with, and the way to candle's other
//! devices. What candle lacks (N-D convolution, pooling, resize) is put together from its tensors
//! tap by tap; nothing here is shared with the project's own kernels.

mod attention;
mod elementwise;
mod resample;
mod windows;

use std::sync::Arc;

use candle_core::{D, DType, Device, Result as CandleResult, Tensor};

use super::Error;
use super::tensor::{Array, Program};
use crate::model::graph::{Affine, Op, PadMode, Reduction, slice_bounds};
use crate::task::Task;

/// Results of a graph for an input `[1, channels, …]`.
///
/// # Errors
/// [`Error::Network`] for a grid that does not fit, [`Error::Candle`], `Cancelled` between
/// operations.
pub fn run(
    program: &Program,
    input: &Array,
    device: &Device,
    task: &Task,
) -> Result<Vec<Array>, Error> {
    let shapes = program.shapes(input.shape.get(2..).unwrap_or_default())?;
    if shapes[0] != input.shape {
        return Err(Error::Network(format!(
            "the input is {:?}, expected {:?}",
            input.shape, shapes[0]
        )));
    }
    let nodes = &program.graph().nodes;
    let mut last_use = vec![0; nodes.len()];
    for (n, node) in nodes.iter().enumerate() {
        node.from.iter().for_each(|from| last_use[*from] = n);
    }
    for output in &program.graph().outputs {
        last_use[*output] = usize::MAX;
    }
    let mut values: Vec<Option<Tensor>> = Vec::with_capacity(nodes.len());
    values.push(Some(Tensor::from_slice(
        &input.values,
        input.shape.clone(),
        device,
    )?));
    task.begin("Operations", nodes.len());
    for (n, node) in nodes.iter().enumerate().skip(1) {
        task.check()?;
        let from: Vec<Tensor> = node
            .from
            .iter()
            .map(|at| {
                values[*at]
                    .clone()
                    .expect("values live until their last use")
            })
            .collect();
        let value = step(program, &node.op, &from, &shapes[n], device)?;
        if value.dims() != shapes[n] {
            return Err(Error::Network(format!(
                "operation {n} gave {:?}, expected {:?}",
                value.dims(),
                shapes[n]
            )));
        }
        values.push(Some(value));
        for at in &node.from {
            if last_use[*at] == n {
                values[*at] = None;
            }
        }
        task.report(n + 1, nodes.len());
    }
    program
        .graph()
        .outputs
        .iter()
        .map(|at| {
            let value = values[*at].as_ref().expect("results live to the end");
            Ok(Array::new(value.dims(), value.flatten_all()?.to_vec1()?))
        })
        .collect()
}

/// One operation on plain values.
///
/// # Errors
/// [`Error::Candle`].
pub fn one(
    program: &Program,
    op: &Op,
    from: &[Arc<Array>],
    shape: &[usize],
    device: &Device,
) -> Result<Array, Error> {
    let from = from
        .iter()
        .map(|a| Tensor::from_slice(&a.values, a.shape.clone(), device))
        .collect::<CandleResult<Vec<_>>>()?;
    let value = step(program, op, &from, shape, device)?;
    Ok(Array::new(value.dims(), value.flatten_all()?.to_vec1()?))
}

/// The attention of queries and keys `[batch, heads, tokens, width]`: how much of each key's value
/// goes to each query, `[batch, heads, queries, keys]`.
///
/// # Errors
/// [`Error::Candle`] when shapes do not fit.
pub fn attention_shares(queries: &Array, keys: &Array, scale: f32) -> Result<Array, Error> {
    let tensor = |of: &Array| Tensor::from_slice(&of.values, of.shape.clone(), &Device::Cpu);
    let value = shares(&tensor(queries)?, &tensor(keys)?, scale)?;
    Ok(Array::new(value.dims(), value.flatten_all()?.to_vec1()?))
}

struct Weights<'a> {
    program: &'a Program,
    device: &'a Device,
}

impl Weights<'_> {
    fn tensor(&self, name: &str) -> CandleResult<Tensor> {
        let array = self.program.weight(name);
        Tensor::from_slice(&array.values, array.shape.clone(), self.device)
    }

    /// `[channels]` as `[1, channels, 1, …]`.
    fn per_channel(&self, name: &str, axes: usize) -> CandleResult<Tensor> {
        let t = self.tensor(name)?;
        let mut shape = vec![1; axes];
        shape[1] = t.elem_count();
        t.reshape(shape)
    }

    fn affine(&self, x: &Tensor, affine: Option<&Affine>) -> CandleResult<Tensor> {
        let Some(affine) = affine else {
            return Ok(x.clone());
        };
        x.broadcast_mul(&self.per_channel(&affine.scale, x.rank())?)?
            .broadcast_add(&self.per_channel(&affine.shift, x.rank())?)
    }
}

fn step(
    program: &Program,
    op: &Op,
    from: &[Tensor],
    shape: &[usize],
    device: &Device,
) -> CandleResult<Tensor> {
    let weights = Weights { program, device };
    match op {
        Op::Input { .. } => unreachable!("a checked graph has one input"),
        Op::Constant { tensor } => weights.tensor(tensor),
        Op::Conv {
            weight,
            bias,
            stride,
            padding,
            dilation,
            groups,
        } => {
            let padded = windows::pad(&from[0], padding, 0.0)?;
            let w = weights.tensor(weight)?;
            let out = windows::conv(&padded, &w, stride, dilation, *groups, &shape[2..])?;
            add_bias(&weights, &out, bias.as_deref())
        }
        Op::ConvTranspose {
            weight,
            bias,
            stride,
            padding,
            output_padding,
            groups,
        } => {
            let w = weights.tensor(weight)?;
            let out = windows::conv_transpose(
                &from[0],
                &w,
                stride,
                padding,
                output_padding,
                *groups,
                &shape[2..],
            )?;
            add_bias(&weights, &out, bias.as_deref())
        }
        Op::InstanceNorm { epsilon, affine } => {
            let x = normalized(&from[0], from[0].dims()[1], *epsilon)?;
            weights.affine(&x, affine.as_ref())
        }
        Op::GroupNorm {
            groups,
            epsilon,
            affine,
        } => weights.affine(&normalized(&from[0], *groups, *epsilon)?, affine.as_ref()),
        Op::BatchNorm {
            epsilon,
            mean,
            variance,
            affine,
        } => {
            let rank = from[0].rank();
            let mean = weights.per_channel(mean, rank)?;
            let deviation = (weights.per_channel(variance, rank)? + f64::from(*epsilon))?.sqrt()?;
            let x = from[0].broadcast_sub(&mean)?.broadcast_div(&deviation)?;
            weights.affine(&x, affine.as_ref())
        }
        Op::LayerNorm { epsilon, affine } => {
            let x = standardized(&from[0], *epsilon)?;
            match affine {
                None => Ok(x),
                Some(a) => x
                    .broadcast_mul(&weights.tensor(&a.scale)?)?
                    .broadcast_add(&weights.tensor(&a.shift)?),
            }
        }
        Op::Relu => from[0].relu(),
        Op::LeakyRelu { slope } => {
            from[0].relu()? - ((from[0].neg()?.relu()? * f64::from(*slope))?)
        }
        Op::PRelu { slope } => {
            let slope = weights.per_channel(slope, from[0].rank())?;
            from[0].relu()? - from[0].neg()?.relu()?.broadcast_mul(&slope)?
        }
        Op::Elu { alpha } => from[0].elu(f64::from(*alpha)),
        Op::Gelu => from[0].gelu_erf(),
        Op::GeluTanh => from[0].gelu(),
        Op::Silu => from[0].silu(),
        Op::Sigmoid => (from[0].neg()?.exp()? + 1.0)?.recip(),
        Op::Tanh => from[0].tanh(),
        Op::Softmax { axis } => softmax(&from[0], *axis),
        Op::MaxPool(pool) => windows::max_pool(&from[0], pool, &shape[2..]),
        Op::AveragePool {
            pool,
            count_padding,
        } => windows::average_pool(&from[0], pool, *count_padding, &shape[2..]),
        Op::GlobalAveragePool => {
            let axes: Vec<usize> = (2..from[0].rank()).collect();
            from[0].mean_keepdim(axes)
        }
        Op::AdaptiveAveragePool { size } => windows::adaptive_average(&from[0], size),
        Op::Resize { to, mode } => resample::resize(&from[0], to, *mode, &shape[2..]),
        Op::Add => from[0].broadcast_add(&from[1]),
        Op::Sub => from[0].broadcast_sub(&from[1]),
        Op::Mul => from[0].broadcast_mul(&from[1]),
        Op::Div => from[0].broadcast_div(&from[1]),
        Op::Minimum => from[0].broadcast_minimum(&from[1]),
        Op::Maximum => from[0].broadcast_maximum(&from[1]),
        Op::Pow => elementwise::power(&from[0], &from[1], shape),
        Op::Greater => elementwise::greater(&from[0], &from[1], shape),
        Op::Select => elementwise::select(from, shape),
        Op::Unary { function } => elementwise::unary(&from[0], *function),
        Op::Concat { axis } => Tensor::cat(from, *axis),
        Op::Slice { axis, start, end } => {
            let (start, end) = slice_bounds(from[0].dims()[*axis], *start, *end);
            from[0].narrow(*axis, start, end - start)?.contiguous()
        }
        Op::Pad { padding, mode } => match mode {
            PadMode::Constant(value) => windows::pad_all(&from[0], padding, f64::from(*value)),
            PadMode::Reflect | PadMode::Replicate => resample::pad_edge(&from[0], padding, *mode),
        },
        Op::Reshape { .. } => from[0].contiguous()?.reshape(shape),
        Op::Transpose { order } => from[0].permute(order.as_slice())?.contiguous(),
        Op::Mean { axes, keep } => {
            let mean = from[0].mean_keepdim(axes.as_slice())?;
            if *keep { Ok(mean) } else { mean.reshape(shape) }
        }
        Op::Reduce { kind, axes, .. } => {
            let mut x = from[0].clone();
            for axis in axes {
                x = match kind {
                    Reduction::Sum => x.sum_keepdim(*axis)?,
                    Reduction::Max => x.max_keepdim(*axis)?,
                    Reduction::Min => x.min_keepdim(*axis)?,
                };
            }
            x.reshape(shape)
        }
        Op::MatMul => from[0]
            .contiguous()?
            .broadcast_matmul(&from[1].contiguous()?),
        Op::Linear { weight, bias } => {
            let w = weights.tensor(weight)?;
            let width = *from[0].dims().last().expect("checked");
            let rows = from[0].contiguous()?.reshape(((), width))?;
            let out = rows.matmul(&w.t()?.contiguous()?)?;
            let out = match bias {
                Some(bias) => out.broadcast_add(&weights.tensor(bias)?)?,
                None => out,
            };
            out.reshape(shape)
        }
        Op::Attention { scale } => {
            shares(&from[0], &from[1], *scale)?.matmul(&from[2].contiguous()?)
        }
        Op::WindowAttention { bias, .. } => {
            let table = &program.weight(bias).values;
            let values = from[0].contiguous()?.flatten_all()?.to_vec1::<f32>()?;
            let result = attention::windows(op, table, &from[0].dims()[1..], &values);
            Tensor::from_vec(result, shape, device)
        }
    }
}

fn shares(queries: &Tensor, keys: &Tensor, scale: f32) -> CandleResult<Tensor> {
    let keys = keys.transpose(D::Minus1, D::Minus2)?.contiguous()?;
    let scores = (queries.contiguous()?.matmul(&keys)? * f64::from(scale))?;
    softmax(&scores, 3)
}

fn add_bias(weights: &Weights<'_>, x: &Tensor, bias: Option<&str>) -> CandleResult<Tensor> {
    match bias {
        None => Ok(x.clone()),
        Some(name) => x.broadcast_add(&weights.per_channel(name, x.rank())?),
    }
}

/// (x − mean) / √(variance + ε) over groups of channels and the grid.
fn normalized(x: &Tensor, groups: usize, epsilon: f32) -> CandleResult<Tensor> {
    let flat = x.contiguous()?.reshape((x.dims()[0], groups, ()))?;
    standardized(&flat, epsilon)?.reshape(x.dims())
}

/// The same over the last axis; in f64, since long f32 sums lose digits.
fn standardized(x: &Tensor, epsilon: f32) -> CandleResult<Tensor> {
    let x = x.to_dtype(DType::F64)?;
    let centered = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centered.sqr()?.mean_keepdim(D::Minus1)?;
    let deviation = (variance + f64::from(epsilon))?.sqrt()?;
    centered.broadcast_div(&deviation)?.to_dtype(DType::F32)
}

fn softmax(x: &Tensor, axis: usize) -> CandleResult<Tensor> {
    let powers = x.broadcast_sub(&x.max_keepdim(axis)?)?.exp()?;
    powers.broadcast_div(&powers.sum_keepdim(axis)?)
}
