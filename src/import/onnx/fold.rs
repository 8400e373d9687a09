//! Operations on what does not depend on the image: mostly shapes, computed here and now.

use super::known::{Data, Files, Known, count};
use super::translate::{Call, Growing, Value, axis, sizes};
use super::wire::Parsed;
use crate::model::graph::slice_bounds;

/// The results, where all that matters is known; `None` otherwise.
pub(super) fn fold(growing: &Growing<'_>, call: &Call<'_>) -> Parsed<Option<Vec<Value>>> {
    let one = |known: Known| Ok(Some(vec![Value::Known(known)]));
    match call.op() {
        "Constant" => return one(constant(call)?),
        "Shape" => {
            let shape = growing.shape(call.value(0)?);
            let (start, end) = slice_bounds(
                shape.len(),
                call.int("start", 0)?,
                call.int("end", i64::MAX)?,
            );
            let part = shape.get(start..end).unwrap_or_default();
            let lengths: Vec<i64> = part.iter().map(|n| *n as i64).collect();
            return one(Known::ints(&[lengths.len()], lengths));
        }
        "Size" => {
            let shape = growing.shape(call.value(0)?);
            let all = count(&shape).ok_or("a value of no size")?;
            return one(Known::ints(&[], vec![all as i64]));
        }
        "Identity" | "Dropout" => {
            if call.outputs() > 1 {
                return Err("its mask is used".to_owned());
            }
            if let Some(training) = call.known_optional(2)?
                && growing.files.ints(training)? != [0]
            {
                return Err("it is in training mode".to_owned());
            }
            return Ok(Some(vec![call.value(0)?.clone()]));
        }
        _ => {}
    }
    let known: Option<Vec<&Known>> = call
        .inputs
        .iter()
        .flatten()
        .map(|value| match value {
            Value::Known(known) => Some(known),
            _ => None,
        })
        .collect();
    let Some(known) = known else { return Ok(None) };
    if known.len() != call.inputs.len() || known.is_empty() {
        return Ok(None);
    }
    let files = growing.files;
    if left_to_the_run(files, call.op(), &known)? {
        return Ok(None);
    }
    let result = match (call.op(), known.as_slice()) {
        ("ConstantOfShape", [shape]) => {
            let shape = sizes(&files.ints(shape)?)?;
            let all = count(&shape).ok_or("a constant of no size")?;
            files.spend(all)?;
            match call.tensor("value")? {
                Some(value) if value.is_int() => {
                    let value = *files.ints(&value)?.first().ok_or("an empty value")?;
                    Known::ints(&shape, vec![value; all])
                }
                Some(value) => {
                    let value = *files.floats(&value)?.first().ok_or("an empty value")?;
                    Known::floats(&shape, vec![value; all])
                }
                None => Known::floats(&shape, vec![0.0; all]),
            }
        }
        ("Cast", [x]) => cast(files, x, call.int("to", 0)?)?,
        ("Range", [start, limit, delta]) => range(files, start, limit, delta)?,
        ("Gather", [x, at]) => gather(files, x, at, call.int("axis", 0)?)?,
        ("Concat", all) => concat(files, all, call.int("axis", 0)?)?,
        ("Transpose", [x]) => transpose(files, x, call.ints("perm")?)?,
        ("Reshape" | "Flatten" | "Squeeze" | "Unsqueeze", [x, ..]) => {
            let shape = super::values::new_shape(files, call, &x.shape)?;
            let shape = concrete(&x.shape, &shape)?;
            x.reshaped(shape)
        }
        ("Slice", [x, ..]) => slice(files, x, call)?,
        ("Expand", [x, shape]) => {
            let wanted = sizes(&files.ints(shape)?)?;
            let shape = broadcast(&x.shape, &wanted)?;
            picked(files, x, &shape, &spread(&x.shape, &shape))?
        }
        ("Tile", [x, repeats]) => tile(files, x, &sizes(&files.ints(repeats)?)?)?,
        ("ScatterND", [x, at, updates]) => scatter(files, x, at, updates)?,
        ("Where", [condition, a, b]) => select(files, condition, a, b)?,
        ("ReduceProd" | "ReduceSum" | "ReduceMax" | "ReduceMin", [x, ..]) => {
            reduce(files, x, call)?
        }
        (
            "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Pow" | "Min" | "Max" | "Equal" | "Less"
            | "Greater" | "LessOrEqual" | "GreaterOrEqual" | "And" | "Or",
            [a, b],
        ) => binary(files, call.op(), a, b, call)?,
        (
            "Neg" | "Abs" | "Sqrt" | "Exp" | "Log" | "Floor" | "Ceil" | "Reciprocal" | "Not"
            | "Sin" | "Cos",
            [x],
        ) => unary(files, call.op(), x)?,
        _ => return Ok(None),
    };
    one(result)
}

/// Elements of a result of several known values that is computed at import.
const MOST_JOINED: usize = 1 << 20;

/// Whether a result is so large that it is rather computed from its operands at each run, such as the
/// masks of shifted windows: each window's tokens against each other.
fn left_to_the_run(files: &Files, op: &str, known: &[&Known]) -> Parsed<bool> {
    let shape = match (op, known) {
        ("Add" | "Sub" | "Mul" | "Div" | "Equal" | "Less" | "Greater", [a, b]) => {
            common(&a.shape, &b.shape)?
        }
        ("Where", [condition, a, b]) => common(&common(&condition.shape, &a.shape)?, &b.shape)?,
        ("Expand", [x, shape]) => common(&x.shape, &sizes(&files.ints(shape)?)?)?,
        _ => return Ok(false),
    };
    Ok(count(&shape).is_none_or(|n| n > MOST_JOINED))
}

fn constant(call: &Call<'_>) -> Parsed<Known> {
    if let Some(tensor) = call.tensor("value")? {
        return Ok(tensor);
    }
    if let Some(values) = call.ints("value_ints")? {
        return Ok(Known::ints(&[values.len()], values.to_vec()));
    }
    if let Some(values) = call.floats("value_floats") {
        return Ok(Known::floats(&[values.len()], values.to_vec()));
    }
    if call.has("value_int") {
        return Ok(Known::ints(&[], vec![call.int("value_int", 0)?]));
    }
    if call.has("value_float") {
        return Ok(Known::floats(&[], vec![call.float("value_float", 0.0)?]));
    }
    Err("a constant without a value".to_owned())
}

fn cast(files: &Files, x: &Known, to: i64) -> Parsed<Known> {
    match to {
        1 | 10 | 11 | 16 => {
            if !x.is_int() {
                return Ok(x.clone());
            }
            files.spend(x.count())?;
            Ok(Known::floats(&x.shape, files.floats(x)?))
        }
        2..=7 | 9 | 12 | 13 => {
            if x.is_int() && to != 9 {
                return Ok(x.clone());
            }
            files.spend(x.count())?;
            let values = files.floats(x)?;
            let values = values.iter().map(|v| {
                if to == 9 {
                    i64::from(*v != 0.0)
                } else {
                    *v as i64
                }
            });
            Ok(Known::ints(&x.shape, values.collect()))
        }
        other => Err(format!("to data type {other}")),
    }
}

fn range(files: &Files, start: &Known, limit: &Known, delta: &Known) -> Parsed<Known> {
    let all = [start, limit, delta];
    if all.iter().any(|k| k.count() != 1) {
        return Err("limits that are no single numbers".to_owned());
    }
    let steps = |start: f64, limit: f64, delta: f64| -> Parsed<usize> {
        let steps = ((limit - start) / delta).ceil().max(0.0);
        if steps < 1e9 {
            files.spend(steps as usize)?;
            Ok(steps as usize)
        } else {
            Err(format!("from {start} to {limit} by {delta}"))
        }
    };
    if all.iter().all(|k| k.is_int()) {
        let [start, limit, delta] = [
            files.ints(start)?[0],
            files.ints(limit)?[0],
            files.ints(delta)?[0],
        ];
        let n = steps(start as f64, limit as f64, delta as f64)?;
        let values = (0..n as i64).map(|n| start.wrapping_add(n.wrapping_mul(delta)));
        return Ok(Known::ints(&[n], values.collect()));
    }
    let [start, limit, delta] = [
        files.floats(start)?[0],
        files.floats(limit)?[0],
        files.floats(delta)?[0],
    ];
    let n = steps(f64::from(start), f64::from(limit), f64::from(delta))?;
    let values = (0..n).map(|n| start + n as f32 * delta);
    Ok(Known::floats(&[n], values.collect()))
}

/// Elements of a tensor in another order or number: `at` gives each one's place.
fn picked(files: &Files, x: &Known, shape: &[usize], at: &[usize]) -> Parsed<Known> {
    files.spend(at.len())?;
    if x.is_int() {
        let values = files.ints(x)?;
        return Ok(Known::ints(shape, at.iter().map(|n| values[*n]).collect()));
    }
    let values = files.floats(x)?;
    Ok(Known::floats(
        shape,
        at.iter().map(|n| values[*n]).collect(),
    ))
}

/// Elements before which each axis of a tensor takes one step.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Places of elements: for each index of `shape` the sum over axes of what `place` says.
fn places(shape: &[usize], place: impl Fn(usize, usize) -> usize) -> Parsed<Vec<usize>> {
    let all = count(shape).filter(|n| *n <= 1 << 24);
    all.ok_or_else(|| format!("a known value of {shape:?}"))?;
    let mut found = vec![0];
    for (axis, n) in shape.iter().enumerate() {
        found = found
            .iter()
            .flat_map(|at| (0..*n).map(move |i| (at, i)))
            .map(|(at, i)| at + place(axis, i))
            .collect();
    }
    Ok(found)
}

/// Places for broadcasting `from` to `to`, which it fits.
fn spread(from: &[usize], to: &[usize]) -> Vec<usize> {
    let (steps, missing) = (strides(from), to.len() - from.len());
    let place = |axis: usize, i: usize| match axis.checked_sub(missing) {
        Some(axis) if from[axis] > 1 => i * steps[axis],
        _ => 0,
    };
    places(to, place).unwrap_or_default()
}

pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Parsed<Vec<usize>> {
    let shape = common(a, b)?;
    match count(&shape) {
        Some(n) if n <= 1 << 24 => Ok(shape),
        _ => Err(format!("a known value of {shape:?}")),
    }
}

/// The shape to which both are repeated.
fn common(a: &[usize], b: &[usize]) -> Parsed<Vec<usize>> {
    let axes = a.len().max(b.len());
    let at = |shape: &[usize], axis: usize| {
        let missing = axes - shape.len();
        axis.checked_sub(missing).map_or(1, |axis| shape[axis])
    };
    (0..axes)
        .map(|axis| match (at(a, axis), at(b, axis)) {
            (x, y) if x == y || y == 1 => Ok(x),
            (1, y) => Ok(y),
            _ => Err(format!("{a:?} and {b:?} do not fit")),
        })
        .collect()
}

fn gather(files: &Files, x: &Known, at: &Known, along: i64) -> Parsed<Known> {
    let along = axis(along, x.shape.len())?;
    let n = x.shape[along];
    let indices: Parsed<Vec<usize>> = files
        .ints(at)?
        .into_iter()
        .map(|i| axis(i, n).map_err(|_| format!("index {i} of {n}")))
        .collect();
    let indices = indices?;
    let steps = strides(&x.shape);
    let mut flat = x.shape.clone();
    flat[along] = indices.len();
    let places = places(&flat, |axis, i| {
        steps[axis] * if axis == along { indices[i] } else { i }
    })?;
    let shape = [&x.shape[..along], &at.shape, &x.shape[along + 1..]].concat();
    picked(files, x, &shape, &places)
}

fn concat(files: &Files, all: &[&Known], along: i64) -> Parsed<Known> {
    let first = all[0];
    let along = axis(along, first.shape.len())?;
    let mut shape = first.shape.clone();
    shape[along] = 0;
    for other in all {
        let fits = other.shape.len() == shape.len()
            && (0..shape.len()).all(|a| a == along || other.shape[a] == shape[a]);
        if !fits {
            return Err(format!("{:?} and {:?}", first.shape, other.shape));
        }
        shape[along] += other.shape[along];
    }
    files.spend(count(&shape).ok_or("too long")?)?;
    let outer: usize = shape[..along].iter().product();
    let chunk = |known: &Known| known.shape[along..].iter().product::<usize>();
    if all.iter().all(|k| k.is_int()) {
        let parts: Parsed<Vec<Vec<i64>>> = all.iter().map(|k| files.ints(k)).collect();
        let parts = parts?;
        let mut values = Vec::new();
        for row in 0..outer {
            for (known, part) in all.iter().zip(&parts) {
                let n = chunk(known);
                values.extend(&part[row * n..(row + 1) * n]);
            }
        }
        return Ok(Known::ints(&shape, values));
    }
    let parts: Parsed<Vec<Vec<f32>>> = all.iter().map(|k| files.floats(k)).collect();
    let parts = parts?;
    let mut values = Vec::new();
    for row in 0..outer {
        for (known, part) in all.iter().zip(&parts) {
            let n = chunk(known);
            values.extend(&part[row * n..(row + 1) * n]);
        }
    }
    Ok(Known::floats(&shape, values))
}

/// The order of axes that a transposition asks for.
pub(super) fn order(perm: Option<&[i64]>, rank: usize) -> Parsed<Vec<usize>> {
    let order = match perm {
        None => (0..rank).rev().collect(),
        Some(perm) => sizes(perm)?,
    };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if sorted.into_iter().eq(0..rank) {
        Ok(order)
    } else {
        Err(format!("order {order:?} of {rank} axes"))
    }
}

fn transpose(files: &Files, x: &Known, perm: Option<&[i64]>) -> Parsed<Known> {
    let order = order(perm, x.shape.len())?;
    if order.iter().copied().eq(0..x.shape.len()) {
        return Ok(x.clone());
    }
    // Matrices of weights stay in the file.
    if let Some(turned) = x.turned() {
        return Ok(turned);
    }
    let steps = strides(&x.shape);
    let shape: Vec<usize> = order.iter().map(|a| x.shape[*a]).collect();
    let places = places(&shape, |axis, i| i * steps[order[axis]])?;
    picked(files, x, &shape, &places)
}

/// A shape with 0 and −1 filled in.
pub(super) fn concrete(from: &[usize], to: &[i64]) -> Parsed<Vec<usize>> {
    let wrong = || format!("{from:?} as {to:?}");
    let mut shape = Vec::new();
    let mut open = None;
    for (n, length) in to.iter().enumerate() {
        shape.push(match length {
            0 => *from.get(n).ok_or_else(wrong)?,
            -1 if open.is_none() => {
                open = Some(n);
                1
            }
            length => usize::try_from(*length).map_err(|_| wrong())?,
        });
    }
    let all = count(from).ok_or_else(wrong)?;
    let known = count(&shape).ok_or_else(wrong)?;
    if let Some(n) = open {
        shape[n] = all.checked_div(known).ok_or_else(wrong)?;
    }
    if count(&shape) == Some(all) {
        Ok(shape)
    } else {
        Err(wrong())
    }
}

/// Axis, first index, end and step of each part of a slice.
pub(super) fn slices(
    files: &Files,
    call: &Call<'_>,
    rank: usize,
) -> Parsed<Vec<(usize, i64, i64, i64)>> {
    let starts = files.ints(call.known(1)?)?;
    let ends = files.ints(call.known(2)?)?;
    let axes = match call.known_optional(3)? {
        Some(axes) => files.ints(axes)?,
        None => (0..starts.len() as i64).collect(),
    };
    let steps = match call.known_optional(4)? {
        Some(steps) => files.ints(steps)?,
        None => vec![1; starts.len()],
    };
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err("lists of different lengths".to_owned());
    }
    (0..starts.len())
        .map(|n| Ok((axis(axes[n], rank)?, starts[n], ends[n], steps[n])))
        .collect()
}

fn slice(files: &Files, x: &Known, call: &Call<'_>) -> Parsed<Known> {
    let mut chosen: Vec<Vec<usize>> = x.shape.iter().map(|n| (0..*n).collect()).collect();
    for (axis, start, end, step) in slices(files, call, x.shape.len())? {
        let n = x.shape[axis];
        let stride = usize::try_from(step.unsigned_abs()).map_err(|_| "a step too large")?;
        chosen[axis] = match step.signum() {
            1 => {
                let (start, end) = slice_bounds(n, start, end);
                (start..end.max(start)).step_by(stride).collect()
            }
            -1 => {
                // Backwards: from `start` down to just above `end`.
                let place = |at: i64| {
                    if at < 0 {
                        at.saturating_add(n as i64)
                    } else {
                        at
                    }
                };
                let start = place(start).min(n as i64 - 1);
                let end = place(end).max(-1);
                let down = (end + 1..=start).rev().step_by(stride);
                down.map(|i| i as usize).collect()
            }
            _ => return Err("a step of 0".to_owned()),
        };
    }
    let shape: Vec<usize> = chosen.iter().map(Vec::len).collect();
    let steps = strides(&x.shape);
    let places = places(&shape, |axis, i| chosen[axis][i] * steps[axis])?;
    picked(files, x, &shape, &places)
}

fn tile(files: &Files, x: &Known, repeats: &[usize]) -> Parsed<Known> {
    if repeats.len() != x.shape.len() {
        return Err(format!("{repeats:?} repeats of {:?}", x.shape));
    }
    let steps = strides(&x.shape);
    let shape: Option<Vec<usize>> = x
        .shape
        .iter()
        .zip(repeats)
        .map(|(n, r)| n.checked_mul(*r))
        .collect();
    let shape = shape.ok_or("too many repeats")?;
    let places = places(&shape, |axis, i| (i % x.shape[axis]) * steps[axis])?;
    picked(files, x, &shape, &places)
}

/// A tensor with some of its parts written over.
fn scatter(files: &Files, x: &Known, at: &Known, updates: &Known) -> Parsed<Known> {
    let wrong = || format!("{:?} at {:?} of {:?}", updates.shape, at.shape, x.shape);
    let (depth, rows) = at.shape.split_last().ok_or_else(wrong)?;
    let inner = x.shape.get(*depth..).ok_or_else(wrong)?;
    if updates.shape != [rows, inner].concat() || *depth == 0 {
        return Err(wrong());
    }
    files.spend(x.count())?;
    files.spend(updates.count())?;
    let steps = strides(&x.shape);
    let each: usize = inner.iter().product();
    let starts: Vec<usize> = files
        .ints(at)?
        .chunks_exact(*depth)
        .map(|index| {
            let parts = index.iter().enumerate();
            parts
                .map(|(n, i)| Ok(axis(*i, x.shape[n])? * steps[n]))
                .sum()
        })
        .collect::<Parsed<_>>()?;
    let (mut values, new) = (files.floats(x)?, files.floats(updates)?);
    for (start, new) in starts.iter().zip(new.chunks_exact(each.max(1))) {
        values[*start..start + each].copy_from_slice(new);
    }
    if x.is_int() {
        if values.iter().any(|v| v.abs() > 16_777_216.0) {
            return Err("numbers of more than 24 bits".to_owned());
        }
        let values = values.iter().map(|v| *v as i64).collect();
        return Ok(Known::ints(&x.shape, values));
    }
    Ok(Known::floats(&x.shape, values))
}

fn select(files: &Files, condition: &Known, a: &Known, b: &Known) -> Parsed<Known> {
    let shape = broadcast(&broadcast(&condition.shape, &a.shape)?, &b.shape)?;
    let at = |known: &Known| spread(&known.shape, &shape);
    let chosen = files.ints(condition)?;
    let (places, in_a, in_b) = (at(condition), at(a), at(b));
    files.spend(places.len())?;
    let truth = |n: usize| chosen[places[n]] != 0;
    if a.is_int() && b.is_int() {
        let (a, b) = (files.ints(a)?, files.ints(b)?);
        let values = (0..places.len()).map(|n| if truth(n) { a[in_a[n]] } else { b[in_b[n]] });
        return Ok(Known::ints(&shape, values.collect()));
    }
    let (a, b) = (files.floats(a)?, files.floats(b)?);
    let values = (0..places.len()).map(|n| if truth(n) { a[in_a[n]] } else { b[in_b[n]] });
    Ok(Known::floats(&shape, values.collect()))
}

/// Axes and whether they stay, of a reduction.
pub(super) fn reduced(files: &Files, call: &Call<'_>, rank: usize) -> Parsed<(Vec<usize>, bool)> {
    let given = match call.ints("axes")? {
        Some(axes) => Some(axes.to_vec()),
        None => call.known_optional(1)?.map(|k| files.ints(k)).transpose()?,
    };
    let given = given.filter(|axes| !axes.is_empty());
    if given.is_none() && call.int("noop_with_empty_axes", 0)? != 0 {
        return Err("no axes, which stands for nothing to do".to_owned());
    }
    let mut axes: Vec<usize> = match given {
        None => (0..rank).collect(),
        Some(axes) => axes.iter().map(|a| axis(*a, rank)).collect::<Parsed<_>>()?,
    };
    axes.sort_unstable();
    axes.dedup();
    Ok((axes, call.int("keepdims", 1)? != 0))
}

fn reduce(files: &Files, x: &Known, call: &Call<'_>) -> Parsed<Known> {
    let (axes, keep) = reduced(files, call, x.shape.len())?;
    let op = call.op();
    let joined = |a: f64, b: f64| match op {
        "ReduceProd" => a * b,
        "ReduceSum" => a + b,
        "ReduceMax" => a.max(b),
        _ => a.min(b),
    };
    let full: Vec<usize> = (0..x.shape.len())
        .map(|a| if axes.contains(&a) { 1 } else { x.shape[a] })
        .collect();
    let steps = strides(&full);
    let places = places(&x.shape, |axis, i| {
        if axes.contains(&axis) {
            0
        } else {
            i * steps[axis]
        }
    })?;
    files.spend(places.len())?;
    let values: Vec<f64> = if x.is_int() {
        files.ints(x)?.iter().map(|v| *v as f64).collect()
    } else {
        files.floats(x)?.iter().map(|v| f64::from(*v)).collect()
    };
    let mut results: Vec<Option<f64>> = vec![None; full.iter().product()];
    for (at, value) in places.iter().zip(&values) {
        let old = &mut results[*at];
        *old = Some(old.map_or(*value, |old| joined(old, *value)));
    }
    let results: Option<Vec<f64>> = results.into_iter().collect();
    let results = results.ok_or("nothing to reduce")?;
    let shape = if keep {
        full
    } else {
        let kept = (0..x.shape.len()).filter(|a| !axes.contains(a));
        kept.map(|a| x.shape[a]).collect()
    };
    Ok(if x.is_int() {
        Known::ints(&shape, results.iter().map(|v| *v as i64).collect())
    } else {
        Known::floats(&shape, results.iter().map(|v| *v as f32).collect())
    })
}

fn binary(files: &Files, op: &str, a: &Known, b: &Known, call: &Call<'_>) -> Parsed<Known> {
    let shape = broadcast(&a.shape, &b.shape)?;
    let (in_a, in_b) = (spread(&a.shape, &shape), spread(&b.shape, &shape));
    files.spend(in_a.len())?;
    let places = in_a.iter().zip(&in_b);
    if a.is_int() && b.is_int() {
        let (a, b) = (files.ints(a)?, files.ints(b)?);
        let fmod = call.int("fmod", 0)? != 0;
        let values: Parsed<Vec<i64>> = places.map(|(i, j)| whole(op, a[*i], b[*j], fmod)).collect();
        return Ok(Known::ints(&shape, values?));
    }
    let (a, b) = (files.floats(a)?, files.floats(b)?);
    let pairs = places.map(|(i, j)| (a[*i], b[*j]));
    let truth = |of: &dyn Fn(f32, f32) -> bool| {
        let values = pairs.clone().map(|(a, b)| i64::from(of(a, b)));
        Ok(Known::ints(&shape, values.collect()))
    };
    let value = |of: &dyn Fn(f32, f32) -> f32| {
        let values = pairs.clone().map(|(a, b)| of(a, b));
        Ok(Known::floats(&shape, values.collect()))
    };
    #[expect(clippy::float_cmp, reason = "the file asks for equality")]
    match op {
        "Add" => value(&|a, b| a + b),
        "Sub" => value(&|a, b| a - b),
        "Mul" => value(&|a, b| a * b),
        "Div" => value(&|a, b| a / b),
        "Pow" => value(&f32::powf),
        "Min" => value(&f32::min),
        "Max" => value(&f32::max),
        "Equal" => truth(&|a, b| a == b),
        "Less" => truth(&|a, b| a < b),
        "Greater" => truth(&|a, b| a > b),
        "LessOrEqual" => truth(&|a, b| a <= b),
        "GreaterOrEqual" => truth(&|a, b| a >= b),
        _ => Err("numbers with fractions".to_owned()),
    }
}

fn whole(op: &str, a: i64, b: i64, fmod: bool) -> Parsed<i64> {
    let some = |value: Option<i64>| value.ok_or_else(|| format!("{a} and {b}"));
    some(match op {
        "Add" => a.checked_add(b),
        "Sub" => a.checked_sub(b),
        "Mul" => a.checked_mul(b),
        "Div" => a.checked_div(b),
        "Mod" if fmod => a.checked_rem(b),
        // The sign of the divisor, as in Python.
        "Mod" => a.checked_rem(b).map(|r| {
            if r != 0 && (r < 0) != (b < 0) {
                r + b
            } else {
                r
            }
        }),
        "Pow" => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
        "Min" => Some(a.min(b)),
        "Max" => Some(a.max(b)),
        "Equal" => Some(i64::from(a == b)),
        "Less" => Some(i64::from(a < b)),
        "Greater" => Some(i64::from(a > b)),
        "LessOrEqual" => Some(i64::from(a <= b)),
        "GreaterOrEqual" => Some(i64::from(a >= b)),
        "And" => Some(i64::from(a != 0 && b != 0)),
        "Or" => Some(i64::from(a != 0 || b != 0)),
        _ => None,
    })
}

fn unary(files: &Files, op: &str, x: &Known) -> Parsed<Known> {
    files.spend(x.count())?;
    if x.is_int() {
        let values = files.ints(x)?;
        let of = |f: &dyn Fn(i64) -> i64| {
            Ok(Known::ints(
                &x.shape,
                values.iter().map(|v| f(*v)).collect(),
            ))
        };
        match op {
            "Neg" => return of(&i64::wrapping_neg),
            "Abs" => return of(&i64::wrapping_abs),
            "Not" => return of(&|v| i64::from(v == 0)),
            "Floor" | "Ceil" => return Ok(x.clone()),
            _ => {}
        }
    }
    let function: fn(f32) -> f32 = match op {
        "Neg" => |v| -v,
        "Abs" => f32::abs,
        "Sqrt" => f32::sqrt,
        "Exp" => f32::exp,
        "Log" => f32::ln,
        "Floor" => f32::floor,
        "Ceil" => f32::ceil,
        "Reciprocal" => f32::recip,
        "Sin" => f32::sin,
        "Cos" => f32::cos,
        _ => return Err("numbers with fractions".to_owned()),
    };
    let values = files.floats(x)?;
    Ok(Known::floats(
        &x.shape,
        values.into_iter().map(function).collect(),
    ))
}

/// The only number of a tensor.
pub(super) fn scalar(files: &Files, known: &Known) -> Parsed<f32> {
    if known.count() == 1 {
        Ok(files.floats(known)?[0])
    } else {
        Err(format!("{:?} where one number is expected", known.shape))
    }
}

/// Whether a tensor is there already (and short to look at).
pub(super) fn small(known: &Known) -> bool {
    known.count() <= 65_536 || matches!(known.data, Data::Floats(_))
}
