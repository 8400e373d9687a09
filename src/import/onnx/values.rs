//! Operations on values of any shape: element by element, products, and the shapes themselves.

use super::fold::{self, order, reduced, scalar};
use super::grid::limit;
use super::known::{Files, Known, count};
use super::translate::{Call, Growing, Value, axis, sizes};
use super::wire::Parsed;
use super::{einsum, patterns};
use crate::model::graph::{Function, Op, PadMode, Reduction};

/// The results; `None` when there is no way with these inputs.
pub(super) fn translate(growing: &mut Growing<'_>, call: &Call<'_>) -> Parsed<Option<Vec<Value>>> {
    let node = match call.op() {
        "Split" => return split(growing, call).map(Some),
        "ArgMax" => {
            let x = growing.node(call.value(0)?)?;
            let along = axis(call.int("axis", 0)?, growing.shapes[x].len())?;
            if along != 1 || call.int("select_last_index", 0)? != 0 {
                return Err("it is not along the channels".to_owned());
            }
            return Ok(Some(vec![Value::Largest(x)]));
        }
        "Add" | "Sub" | "Mul" | "Div" | "Pow" => {
            let (a, b) = (call.value(0)?.clone(), call.value(1)?.clone());
            binary(growing, call.op(), &a, &b)?
        }
        "Min" | "Max" => {
            let mut value = call.value(0)?.clone();
            for n in 1..call.inputs.len() {
                let next = call.value(n)?.clone();
                value = Value::Node(binary(growing, call.op(), &value, &next)?);
            }
            growing.node(&value)?
        }
        "Greater" | "Less" => {
            let (a, b) = (growing.node(call.value(0)?)?, growing.node(call.value(1)?)?);
            let from = if call.op() == "Less" { [b, a] } else { [a, b] };
            growing.emit(Op::Greater, &from)?
        }
        "Equal" => {
            let (a, b) = (growing.node(call.value(0)?)?, growing.node(call.value(1)?)?);
            equal(growing, a, b)?
        }
        "Not" => {
            let x = growing.node(call.value(0)?)?;
            not(growing, x)?
        }
        "Where" => {
            let from: Vec<usize> = (0..3)
                .map(|n| growing.node(call.value(n)?))
                .collect::<Parsed<_>>()?;
            growing.emit(Op::Select, &from)?
        }
        "PRelu" => prelu(growing, call)?,
        "Softmax" | "LogSoftmax" => softmax(growing, call)?,
        "Concat" => concat(growing, call)?,
        "Slice" => slice(growing, call)?,
        "Pad" => pad(growing, call)?,
        "Transpose" => {
            let x = growing.node(call.value(0)?)?;
            let order = order(call.ints("perm")?, growing.shapes[x].len())?;
            growing.emit(Op::Transpose { order }, &[x])?
        }
        "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => {
            let x = growing.node(call.value(0)?)?;
            let shape = new_shape(growing.files, call, &growing.shapes[x])?;
            patterns::reshaped(growing, x, shape)?
        }
        "Expand" => expand(growing, call)?,
        "Tile" => tile(growing, call)?,
        "Gather" => gather(growing, call)?,
        "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceL2" => {
            reduce(growing, call)?
        }
        "MatMul" => matmul(growing, call)?,
        "Gemm" => gemm(growing, call)?,
        "Einsum" => einsum::translate(growing, call)?,
        "DepthToSpace" | "SpaceToDepth" => blocks(growing, call)?,
        "Cast" => {
            if call.int("to", 0)? == 9 {
                // A truth value: anything but zero.
                let x = growing.node(call.value(0)?)?;
                let zero = growing.node(&Value::Known(Known::floats(&[], vec![0.0])))?;
                let zero = equal(growing, x, zero)?;
                return Ok(Some(vec![Value::Node(not(growing, zero)?)]));
            }
            if !matches!(call.int("to", 0)?, 1 | 10 | 11 | 16) {
                return Err("values of the image become whole numbers".to_owned());
            }
            growing.node(call.value(0)?)?
        }
        op => match elementwise(growing, op, call)? {
            Some(node) => node,
            None => return Ok(None),
        },
    };
    Ok(Some(vec![Value::Node(node)]))
}

/// 1 where two values are the same: neither is the greater one.
fn equal(growing: &mut Growing<'_>, a: usize, b: usize) -> Parsed<usize> {
    let more = growing.emit(Op::Greater, &[a, b])?;
    let less = growing.emit(Op::Greater, &[b, a])?;
    let other = growing.emit(Op::Add, &[more, less])?;
    not(growing, other)
}

/// 1 for 0, and 0 for 1.
fn not(growing: &mut Growing<'_>, truth: usize) -> Parsed<usize> {
    let one = growing.node(&Value::Known(Known::floats(&[], vec![1.0])))?;
    growing.emit(Op::Sub, &[one, truth])
}

/// A function of each value.
fn elementwise(growing: &mut Growing<'_>, op: &str, call: &Call<'_>) -> Parsed<Option<usize>> {
    let unary = |function| Op::Unary { function };
    let op = match op {
        "Relu" => Op::Relu,
        "LeakyRelu" => Op::LeakyRelu {
            slope: call.float("alpha", 0.01)?,
        },
        "Elu" => Op::Elu {
            alpha: call.float("alpha", 1.0)?,
        },
        "Gelu" => match call.text("approximate", "none")? {
            "none" => Op::Gelu,
            "tanh" => Op::GeluTanh,
            other => return Err(format!("the approximation {other:?}")),
        },
        "Sigmoid" => Op::Sigmoid,
        "Tanh" => Op::Tanh,
        "Softplus" => unary(Function::Softplus),
        "HardSigmoid" => unary(Function::HardSigmoid {
            alpha: call.float("alpha", 0.2)?,
            beta: call.float("beta", 0.5)?,
        }),
        "Abs" => unary(Function::Abs),
        "Neg" => unary(Function::Neg),
        "Reciprocal" => unary(Function::Reciprocal),
        "Sqrt" => unary(Function::Sqrt),
        "Exp" => unary(Function::Exp),
        "Log" => unary(Function::Log),
        "Erf" => unary(Function::Erf),
        "Clip" => {
            let finite = |limit: Option<f32>| limit.filter(|v| v.is_finite());
            let (low, high) = (limit(growing, call, 1)?, limit(growing, call, 2)?);
            let (low, high) = (finite(low), finite(high));
            if low == Some(0.0) && high.is_none_or(|v| v >= f32::MAX) {
                Op::Relu
            } else {
                unary(Function::Clip { low, high })
            }
        }
        "HardSwish" | "Mish" => {
            let x = growing.node(call.value(0)?)?;
            let inner = if op == "Mish" {
                let soft = growing.emit(unary(Function::Softplus), &[x])?;
                growing.emit(Op::Tanh, &[soft])?
            } else {
                let hard = Function::HardSigmoid {
                    alpha: 1.0 / 6.0,
                    beta: 0.5,
                };
                growing.emit(unary(hard), &[x])?
            };
            return growing.emit(Op::Mul, &[x, inner]).map(Some);
        }
        _ => return Ok(None),
    };
    let x = growing.node(call.value(0)?)?;
    growing.emit(op, &[x]).map(Some)
}

/// a ∘ b, or what it is part of.
pub(super) fn binary(growing: &mut Growing<'_>, op: &str, a: &Value, b: &Value) -> Parsed<usize> {
    if let Some(node) = patterns::binary(growing, op, a, b)? {
        return Ok(node);
    }
    let op = match op {
        "Add" => Op::Add,
        "Sub" => Op::Sub,
        "Mul" => Op::Mul,
        "Div" => Op::Div,
        "Pow" => Op::Pow,
        "Min" => Op::Minimum,
        _ => Op::Maximum,
    };
    let (a, b) = (growing.node(a)?, growing.node(b)?);
    growing.emit(op, &[a, b])
}

fn prelu(growing: &mut Growing<'_>, call: &Call<'_>) -> Parsed<usize> {
    let x = growing.node(call.value(0)?)?;
    let slope = call.known(1)?;
    let channels = growing.shapes[x].get(1).copied().unwrap_or(0);
    // Broadcasting from the end: one number, or `[channels, 1, …]` for each axis behind the batch.
    let rank = growing.shapes[x].len();
    let per_channel = slope.count() == channels
        && slope.shape.len() + 1 >= rank
        && slope.shape[slope.shape.len() + 1 - rank..].first() == Some(&channels);
    if slope.count() != 1 && !per_channel {
        return Err(format!("slopes of {:?}", slope.shape));
    }
    let slope = slope.reshaped(vec![slope.count()]);
    let slope = growing.weight(&slope, "slope");
    growing.emit(Op::PRelu { slope }, &[x])
}

fn softmax(growing: &mut Growing<'_>, call: &Call<'_>) -> Parsed<usize> {
    let x = growing.node(call.value(0)?)?;
    let shape = growing.shapes[x].clone();
    let old = call.opset < 13;
    let along = axis(call.int("axis", if old { 1 } else { -1 })?, shape.len())?;
    // Before opset 13 all axes from this one on are one.
    let flat = old && shape[along + 1..].iter().any(|n| *n != 1);
    let (y, along) = if flat {
        let rows: usize = shape[..along].iter().product();
        let op = Op::Reshape {
            shape: vec![rows as i64, -1],
        };
        (growing.emit(op, &[x])?, 1)
    } else {
        (x, along)
    };
    let mut y = if call.op() == "Softmax" {
        growing.emit(Op::Softmax { axis: along }, &[y])?
    } else {
        // x − max − ln Σ exp(x − max).
        let over = |kind| Op::Reduce {
            kind,
            axes: vec![along],
            keep: true,
        };
        let most = growing.emit(over(Reduction::Max), &[y])?;
        let below = growing.emit(Op::Sub, &[y, most])?;
        let unary = |function| Op::Unary { function };
        let powers = growing.emit(unary(Function::Exp), &[below])?;
        let sum = growing.emit(over(Reduction::Sum), &[powers])?;
        let log = growing.emit(unary(Function::Log), &[sum])?;
        growing.emit(Op::Sub, &[below, log])?
    };
    if flat {
        let shape = shape.iter().map(|n| *n as i64).collect();
        y = growing.emit(Op::Reshape { shape }, &[y])?;
    }
    Ok(y)
}

fn concat(growing: &mut Growing<'_>, call: &Call<'_>) -> Parsed<usize> {
    let nodes: Vec<usize> = (0..call.inputs.len())
        .map(|n| growing.node(call.value(n)?))
        .collect::<Parsed<_>>()?;
    let first = *nodes.first().ok_or("nothing to join")?;
    let axis = axis(call.int("axis", 0)?, growing.shapes[first].len())?;
    growing.emit(Op::Concat { axis }, &nodes)
}

fn slice(growing: &mut Growing<'_>, call: &Call<'_>) -> Parsed<usize> {
    let mut x = growing.node(call.value(0)?)?;
    let rank = growing.shapes[x].len();
    for (axis, start, end, step) in fold::slices(growing.files, call, rank)? {
        let n = growing.shapes[x][axis] as i64;
        let all = (start == 0 || start <= -n) && end >= n;
        if step < 1 {
            return Err(format!("a step of {step} is not supported"));
        }
        if !all {
            x = growing.emit(Op::Slice { axis, start, end }, &[x])?;
        }
        if step > 1 {
            x = every(growing, x, axis, step)?;
        }
    }
    Ok(x)
}

/// Every n-th of an axis: padded to whole groups, of which the first is kept.
fn every(growing: &mut Growing<'_>, x: usize, axis: usize, step: i64) -> Parsed<usize> {
    let shape = growing.shapes[x].clone();
    let n = shape[axis];
    let step = usize::try_from(step)
        .map_err(|_| "a step too large")?
        .min(n);
    let groups = n.div_ceil(step);
    let mut padding = vec![[0; 2]; shape.len()];
    padding[axis][1] = groups * step - n;
    let mut x = x;
    if padding[axis][1] > 0 {
        let mode = PadMode::Constant(0.0);
        x = growing.emit(Op::Pad { padding, mode }, &[x])?;
    }
    let mut split: Vec<i64> = shape.iter().map(|n| *n as i64).collect();
    split[axis] = groups as i64;
    let whole = split.clone();
    split.insert(axis + 1, step as i64);
    let x = growing.emit(Op::Reshape { shape: split }, &[x])?;
    let first = Op::Slice {
        axis: axis + 1,
        start: 0,
        end: 1,
    };
    let x = growing.emit(first, &[x])?;
    growing.emit(Op::Reshape { shape: whole }, &[x])
}

fn split(growing: &mut Growing<'_>, call: &Call<'_>) -> Parsed<Vec<Value>> {
    let x = growing.node(call.value(0)?)?;
    let axis = axis(call.int("axis", 0)?, growing.shapes[x].len())?;
    let n = growing.shapes[x][axis];
    let stated = match call.ints("split")? {
        Some(parts) => Some(parts.to_vec()),
        None => call
            .known_optional(1)?
            .map(|k| growing.files.ints(k))
            .transpose()?,
    };
    let parts: Vec<usize> = if let Some(parts) = stated {
        sizes(&parts)?
    } else {
        let count = call.int("num_outputs", call.node.outputs.len() as i64)?;
        let count = usize::try_from(count).ok().filter(|c| (1..=n).contains(c));
        let each = n.div_ceil(count.ok_or("parts of nothing")?);
        // The last part may be shorter.
        (0..n).step_by(each).map(|at| each.min(n - at)).collect()
    };
    if parts.iter().sum::<usize>() != n || parts.len() < call.outputs() {
        return Err(format!("{n} in parts of {parts:?}"));
    }
    let mut results = Vec::new();
    let mut start = 0;
    for part in parts.into_iter().take(call.outputs()) {
        let end = start + part;
        let op = Op::Slice {
            axis,
            start: start as i64,
            end: end as i64,
        };
        results.push(Value::Node(growing.emit(op, &[x])?));
        start = end;
    }
    Ok(results)
}

fn pad(growing: &mut Growing<'_>, call: &Call<'_>) -> Parsed<usize> {
    let mut x = growing.node(call.value(0)?)?;
    let rank = growing.shapes[x].len();
    let pads = growing.files.ints(call.known(1)?)?;
    let axes: Vec<usize> = match call.known_optional(3)? {
        None => (0..rank).collect(),
        Some(axes) => {
            let axes = growing.files.ints(axes)?;
            axes.iter().map(|a| axis(*a, rank)).collect::<Parsed<_>>()?
        }
    };
    if pads.len() != 2 * axes.len() {
        return Err(format!("pads {pads:?} for {} axes", axes.len()));
    }
    let mode = match call.text("mode", "constant")? {
        "constant" => PadMode::Constant(limit(growing, call, 2)?.unwrap_or(0.0)),
        "reflect" => PadMode::Reflect,
        "edge" => PadMode::Replicate,
        other => return Err(format!("the mode {other:?} is not supported")),
    };
    if matches!(mode, PadMode::Constant(value) if !value.is_finite()) {
        return Err("padding with what is no number".to_owned());
    }
    let mut padding = vec![[0; 2]; rank];
    for (n, axis) in axes.iter().enumerate() {
        let (before, after) = (pads[n], pads[n + axes.len()]);
        // Less than nothing is cut away.
        if before < 0 || after < 0 {
            let end = if after < 0 { after } else { i64::MAX };
            let op = Op::Slice {
                axis: *axis,
                start: before.saturating_neg().max(0),
                end,
            };
            x = growing.emit(op, &[x])?;
        }
        padding[*axis] = [before.max(0) as usize, after.max(0) as usize];
        if mode == PadMode::Reflect {
            let room = growing.shapes[x][*axis];
            if padding[*axis].iter().any(|p| *p >= room) {
                return Err(format!("mirroring {padding:?} of {:?}", growing.shapes[x]));
            }
        }
    }
    if padding.iter().all(|p| *p == [0; 2]) {
        return Ok(x);
    }
    growing.emit(Op::Pad { padding, mode }, &[x])
}

/// The shape that a reshape, flatten, squeeze or unsqueeze asks for; 0 keeps an axis, −1 takes the rest.
pub(super) fn new_shape(files: &Files, call: &Call<'_>, from: &[usize]) -> Parsed<Vec<i64>> {
    let rank = from.len();
    let axes = || -> Parsed<Option<Vec<i64>>> {
        match call.ints("axes")? {
            Some(axes) => Ok(Some(axes.to_vec())),
            None => call.known_optional(1)?.map(|k| files.ints(k)).transpose(),
        }
    };
    match call.op() {
        "Reshape" => {
            let shape = files.ints(call.known(1)?)?;
            if call.int("allowzero", 0)? != 0 && shape.contains(&0) {
                return Err("an axis of length 0".to_owned());
            }
            Ok(shape)
        }
        "Flatten" => {
            let at = call.int("axis", 1)?;
            let at = if at == rank as i64 {
                rank
            } else {
                axis(at, rank)?
            };
            let rows: usize = from[..at].iter().product();
            Ok(vec![rows as i64, -1])
        }
        "Squeeze" => {
            let gone: Vec<usize> = match axes()? {
                None => (0..rank).filter(|a| from[*a] == 1).collect(),
                Some(axes) => axes.iter().map(|a| axis(*a, rank)).collect::<Parsed<_>>()?,
            };
            if gone.iter().any(|a| from[*a] != 1) {
                return Err(format!("axes {gone:?} of {from:?}"));
            }
            let kept = (0..rank).filter(|a| !gone.contains(a));
            Ok(kept.map(|a| from[a] as i64).collect())
        }
        _ => {
            let axes = axes()?.ok_or("it has no axes")?;
            let rank = rank + axes.len();
            let new: Vec<usize> = axes.iter().map(|a| axis(*a, rank)).collect::<Parsed<_>>()?;
            let mut rest = from.iter();
            let shape: Option<Vec<i64>> = (0..rank)
                .map(|a| {
                    if new.contains(&a) {
                        Some(1)
                    } else {
                        rest.next().map(|n| *n as i64)
                    }
                })
                .collect();
            shape
                .filter(|_| rest.next().is_none())
                .ok_or_else(|| format!("axes {axes:?}"))
        }
    }
}

fn expand(growing: &mut Growing<'_>, call: &Call<'_>) -> Parsed<usize> {
    let x = growing.node(call.value(0)?)?;
    let wanted = sizes(&growing.files.ints(call.known(1)?)?)?;
    let shape = growing.shapes[x].clone();
    if fold::broadcast(&shape, &wanted)? == shape {
        return Ok(x);
    }
    let all = count(&wanted).ok_or("it is too large")?;
    growing.files.spend(all)?;
    let zeros = Known::floats(&wanted, vec![0.0; all]);
    let zeros = growing.node(&Value::Known(zeros))?;
    growing.emit(Op::Add, &[x, zeros])
}

fn tile(growing: &mut Growing<'_>, call: &Call<'_>) -> Parsed<usize> {
    let mut x = growing.node(call.value(0)?)?;
    let repeats = sizes(&growing.files.ints(call.known(1)?)?)?;
    if repeats.len() != growing.shapes[x].len() || repeats.iter().any(|r| !(1..=1024).contains(r)) {
        return Err(format!("{repeats:?} repeats"));
    }
    for (axis, repeats) in repeats.iter().enumerate().filter(|r| *r.1 > 1) {
        x = growing.emit(Op::Concat { axis }, &vec![x; *repeats])?;
    }
    Ok(x)
}

fn gather(growing: &mut Growing<'_>, call: &Call<'_>) -> Parsed<usize> {
    let x = growing.node(call.value(0)?)?;
    let shape = growing.shapes[x].clone();
    let along = axis(call.int("axis", 0)?, shape.len())?;
    let at = call.known(1)?;
    let indices = growing.files.ints(at)?;
    if indices.is_empty() || indices.len() > 4096 || at.shape.len() > 1 {
        return Err(format!("indices of {:?}", at.shape));
    }
    let mut parts = Vec::new();
    let mut n = 0;
    while n < indices.len() {
        let start = axis(indices[n], shape[along])? as i64;
        let mut end = start + 1;
        // Neighbors are taken together.
        n += 1;
        while n < indices.len() && indices[n] == end && end < shape[along] as i64 {
            end += 1;
            n += 1;
        }
        let op = Op::Slice {
            axis: along,
            start,
            end,
        };
        parts.push(growing.emit(op, &[x])?);
    }
    let joined = match parts.as_slice() {
        [one] => *one,
        several => growing.emit(Op::Concat { axis: along }, several)?,
    };
    if at.shape.len() == 1 {
        return Ok(joined);
    }
    let mut shape: Vec<i64> = shape.iter().map(|n| *n as i64).collect();
    shape.remove(along);
    growing.emit(Op::Reshape { shape }, &[joined])
}

fn reduce(growing: &mut Growing<'_>, call: &Call<'_>) -> Parsed<usize> {
    let mut x = growing.node(call.value(0)?)?;
    let shape = growing.shapes[x].clone();
    let (axes, keep) = reduced(growing.files, call, shape.len())?;
    let over = |kind| Op::Reduce {
        kind,
        axes: axes.clone(),
        keep,
    };
    let op = match call.op() {
        "ReduceMean" => {
            // The mean of a whole grid has a fast way.
            let whole = (3..=5).contains(&shape.len()) && axes.iter().copied().eq(2..shape.len());
            if whole {
                let x = growing.emit(Op::GlobalAveragePool, &[x])?;
                if keep {
                    return Ok(x);
                }
                let shape = vec![0, shape[1] as i64];
                return growing.emit(Op::Reshape { shape }, &[x]);
            }
            Op::Mean { axes, keep }
        }
        "ReduceSum" => over(Reduction::Sum),
        "ReduceMax" => over(Reduction::Max),
        "ReduceMin" => over(Reduction::Min),
        _ => {
            x = growing.emit(Op::Mul, &[x, x])?;
            let sum = growing.emit(over(Reduction::Sum), &[x])?;
            let function = Function::Sqrt;
            return growing.emit(Op::Unary { function }, &[sum]);
        }
    };
    growing.emit(op, &[x])
}

fn matmul(growing: &mut Growing<'_>, call: &Call<'_>) -> Parsed<usize> {
    let (a, b) = (call.value(0)?.clone(), call.value(1)?.clone());
    if let (Value::Node(x), Value::Known(weights)) = (&a, &b)
        && let Some(turned) = weights.turned()
    {
        let weight = growing.weight(&turned, "linear.weight");
        return growing.emit(Op::Linear { weight, bias: None }, &[*x]);
    }
    let (a, b) = (growing.node(&a)?, growing.node(&b)?);
    growing.emit(Op::MatMul, &[a, b])
}

fn gemm(growing: &mut Growing<'_>, call: &Call<'_>) -> Parsed<usize> {
    let mut x = growing.node(call.value(0)?)?;
    let turn = || Op::Transpose { order: vec![1, 0] };
    if call.int("transA", 0)? != 0 {
        x = growing.emit(turn(), &[x])?;
    }
    let turned = call.int("transB", 0)? != 0;
    let (alpha, beta) = (call.float("alpha", 1.0)?, call.float("beta", 1.0)?);
    let scaled = |growing: &Growing<'_>, known: &Known, by: f32| -> Parsed<Known> {
        if by.to_bits() == 1.0_f32.to_bits() {
            return Ok(known.clone());
        }
        growing.files.spend(known.count())?;
        let values = growing.files.floats(known)?;
        let values = values.into_iter().map(|v| v * by).collect();
        Ok(Known::floats(&known.shape, values))
    };
    let mut product = match call.value(1)? {
        Value::Known(known) => {
            let known = if turned {
                Some(known.clone())
            } else {
                known.turned()
            };
            let known = known.filter(|k| k.shape.len() == 2).ok_or("no matrix")?;
            let known = scaled(growing, &known, alpha)?;
            let weight = growing.weight(&known, "linear.weight");
            growing.emit(Op::Linear { weight, bias: None }, &[x])?
        }
        other => {
            let mut b = growing.node(other)?;
            if turned {
                b = growing.emit(turn(), &[b])?;
            }
            let product = growing.emit(Op::MatMul, &[x, b])?;
            times(growing, product, alpha)?
        }
    };
    match call.optional(2) {
        None => {}
        Some(Value::Known(known)) => {
            let known = Value::Known(scaled(growing, known, beta)?);
            product = binary(growing, "Add", &Value::Node(product), &known)?;
        }
        Some(other) => {
            let c = growing.node(other)?;
            let c = times(growing, c, beta)?;
            product = growing.emit(Op::Add, &[product, c])?;
        }
    }
    Ok(product)
}

fn times(growing: &mut Growing<'_>, x: usize, by: f32) -> Parsed<usize> {
    if by.to_bits() == 1.0_f32.to_bits() {
        return Ok(x);
    }
    let by = growing.node(&Value::Known(Known::floats(&[], vec![by])))?;
    growing.emit(Op::Mul, &[x, by])
}

/// Channels to squares of voxels and back.
fn blocks(growing: &mut Growing<'_>, call: &Call<'_>) -> Parsed<usize> {
    let x = growing.node(call.value(0)?)?;
    let [_, c, h, w] = *growing.shapes[x].as_slice() else {
        return Err("it is only understood on planes".to_owned());
    };
    let size = call.int("blocksize", 0)?;
    let b = usize::try_from(size).ok().filter(|b| (1..=64).contains(b));
    let b = b.ok_or_else(|| format!("a block of {size}"))?;
    let wrong = || format!("blocks of {b} in {:?}", [c, h, w]);
    let (split, order, whole) = if call.op() == "DepthToSpace" {
        if c % (b * b) != 0 {
            return Err(wrong());
        }
        let d = c / (b * b);
        let (split, order) = match call.text("mode", "DCR")? {
            "DCR" => ([b, b, d, h, w], vec![0, 3, 4, 1, 5, 2]),
            "CRD" => ([d, b, b, h, w], vec![0, 1, 4, 2, 5, 3]),
            other => return Err(format!("the mode {other:?}")),
        };
        (split, order, [d, h * b, w * b])
    } else {
        if h % b != 0 || w % b != 0 {
            return Err(wrong());
        }
        (
            [c, h / b, b, w / b, b],
            vec![0, 3, 5, 1, 2, 4],
            [c * b * b, h / b, w / b],
        )
    };
    let shape = |of: &[usize]| {
        let rest = of.iter().map(|n| *n as i64);
        let shape = std::iter::once(1).chain(rest).collect();
        Op::Reshape { shape }
    };
    let x = growing.emit(shape(&split), &[x])?;
    let x = growing.emit(Op::Transpose { order }, &[x])?;
    growing.emit(shape(&whole), &[x])
}

/// The only number of a value that is known, if it is one.
pub(super) fn number(growing: &Growing<'_>, value: &Value) -> Option<f32> {
    match value {
        Value::Known(known) if known.count() == 1 => scalar(growing.files, known).ok(),
        Value::Node(n) => match growing.op(*n) {
            Op::Constant { tensor } => {
                let known = &growing.weights[tensor];
                (known.count() == 1)
                    .then(|| scalar(growing.files, known).ok())
                    .flatten()
            }
            _ => None,
        },
        _ => None,
    }
}
