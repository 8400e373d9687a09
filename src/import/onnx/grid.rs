//! Operations on grids of channels: convolutions, norms, pooling.

use super::fold::{scalar, small};
use super::known::Known;
use super::resize;
use super::translate::{Call, Growing, Value, sizes};
use super::wire::Parsed;
use crate::model::graph::{Affine, Op, Pool};

/// The results; `None` when it is another kind of operation.
pub(super) fn translate(growing: &mut Growing<'_>, call: &Call<'_>) -> Parsed<Option<Vec<Value>>> {
    let node = match call.op() {
        "Conv" => conv(growing, call)?,
        "ConvTranspose" => conv_transpose(growing, call)?,
        "BatchNormalization" => batch_norm(growing, call)?,
        "InstanceNormalization" => instance_norm(growing, call)?,
        "GroupNormalization" => group_norm(growing, call)?,
        "LayerNormalization" => layer_norm(growing, call)?,
        "MaxPool" | "AveragePool" => pool(growing, call)?,
        "GlobalAveragePool" => {
            let x = growing.node(call.value(0)?)?;
            growing.emit(Op::GlobalAveragePool, &[x])?
        }
        "GlobalMaxPool" => {
            let x = growing.node(call.value(0)?)?;
            let kernel = spatial(&growing.shapes[x])?.to_vec();
            let axes = kernel.len();
            let pool = Pool {
                kernel,
                stride: vec![1; axes],
                padding: vec![[0; 2]; axes],
                ceil: false,
            };
            growing.emit(Op::MaxPool(pool), &[x])?
        }
        "Resize" => resize::translate(growing, call)?,
        _ => return Ok(None),
    };
    Ok(Some(vec![Value::Node(node)]))
}

pub(super) fn spatial(shape: &[usize]) -> Parsed<&[usize]> {
    if (3..=5).contains(&shape.len()) {
        Ok(&shape[2..])
    } else {
        Err(format!("a value of {shape:?} is no grid with channels"))
    }
}

/// One number per axis, or ones.
fn per_axis(call: &Call<'_>, name: &str, axes: usize) -> Parsed<Vec<usize>> {
    let found = match call.ints(name)? {
        None => return Ok(vec![1; axes]),
        Some(values) => sizes(values)?,
    };
    if found.len() == axes && found.iter().all(|n| (1..=4096).contains(n)) {
        Ok(found)
    } else {
        Err(format!("{name} {found:?} for {axes} axes"))
    }
}

/// Zeros before and after each axis, as the file says or as `auto_pad` makes them.
fn padding(
    call: &Call<'_>,
    grid: &[usize],
    span: &[usize],
    stride: &[usize],
) -> Parsed<Vec<[usize; 2]>> {
    let axes = grid.len();
    match call.text("auto_pad", "NOTSET")? {
        "NOTSET" => {}
        "VALID" => return Ok(vec![[0; 2]; axes]),
        same @ ("SAME_UPPER" | "SAME_LOWER") => {
            let pair = |axis: usize| {
                let places = grid[axis].div_ceil(stride[axis]);
                let total = ((places - 1) * stride[axis] + span[axis]).saturating_sub(grid[axis]);
                let less = total / 2;
                if same == "SAME_UPPER" {
                    [less, total - less]
                } else {
                    [total - less, less]
                }
            };
            return Ok((0..axes).map(pair).collect());
        }
        other => return Err(format!("auto_pad {other:?}")),
    }
    pairs(call, axes)
}

fn pairs(call: &Call<'_>, axes: usize) -> Parsed<Vec<[usize; 2]>> {
    match call.ints("pads")? {
        None => Ok(vec![[0; 2]; axes]),
        Some(pads) if pads.len() == 2 * axes => {
            let pads = sizes(pads)?;
            Ok((0..axes).map(|a| [pads[a], pads[a + axes]]).collect())
        }
        Some(pads) => Err(format!("pads {pads:?} for {axes} axes")),
    }
}

fn span(kernel: &[usize], dilation: &[usize]) -> Parsed<Vec<usize>> {
    let pairs = kernel.iter().zip(dilation);
    pairs
        .map(|(k, d)| {
            let reach = k.checked_sub(1).and_then(|k| k.checked_mul(*d));
            reach.filter(|r| *r < 4096).map(|r| r + 1)
        })
        .collect::<Option<_>>()
        .ok_or_else(|| format!("a kernel of {kernel:?} with dilation {dilation:?}"))
}

/// The weights of a convolution and their kernel's sizes.
fn kernel(growing: &Growing<'_>, call: &Call<'_>) -> Parsed<(Known, Vec<usize>)> {
    let weights = call.known(1)?.clone();
    let grid = growing.shape(call.value(0)?);
    let axes = spatial(&grid)?.len();
    if weights.shape.len() != axes + 2 {
        return Err(format!("weights of {:?} for {grid:?}", weights.shape));
    }
    let kernel = weights.shape[2..].to_vec();
    match call.ints("kernel_shape")? {
        Some(stated) if sizes(stated)? != kernel => Err(format!(
            "a kernel of {stated:?}, weights of {:?}",
            weights.shape
        )),
        _ => Ok((weights, kernel)),
    }
}

fn conv(growing: &mut Growing<'_>, call: &Call<'_>) -> Parsed<usize> {
    let (weights, kernel) = kernel(growing, call)?;
    let axes = kernel.len();
    let (stride, dilation) = (
        per_axis(call, "strides", axes)?,
        per_axis(call, "dilations", axes)?,
    );
    let x = growing.node(call.value(0)?)?;
    let span = span(&kernel, &dilation)?;
    let padding = padding(call, &growing.shapes[x][2..], &span, &stride)?;
    let bias = call.known_optional(2)?.cloned();
    let op = Op::Conv {
        weight: growing.weight(&weights, "conv.weight"),
        bias: bias.map(|bias| growing.weight(&bias, "conv.bias")),
        stride,
        padding,
        dilation,
        groups: group(call)?,
    };
    growing.emit(op, &[x])
}

fn group(call: &Call<'_>) -> Parsed<usize> {
    let group = call.int("group", 1)?;
    usize::try_from(group).map_err(|_| format!("{group} groups"))
}

fn conv_transpose(growing: &mut Growing<'_>, call: &Call<'_>) -> Parsed<usize> {
    let (weights, kernel) = kernel(growing, call)?;
    let axes = kernel.len();
    let stride = per_axis(call, "strides", axes)?;
    let dilation = per_axis(call, "dilations", axes)?;
    if dilation.iter().any(|d| *d != 1) {
        return Err(format!("dilations {dilation:?} are not supported"));
    }
    let x = growing.node(call.value(0)?)?;
    let grid = growing.shapes[x][2..].to_vec();
    let mut output_padding = match call.ints("output_padding")? {
        None => vec![0; axes],
        Some(values) => sizes(values)?,
    };
    if output_padding.len() != axes {
        return Err(format!("output padding {output_padding:?}"));
    }
    let auto = call.text("auto_pad", "NOTSET")?;
    let wanted = match (call.ints("output_shape")?, auto) {
        (Some(shape), _) => Some(sizes(shape)?),
        (None, "SAME_UPPER" | "SAME_LOWER") => {
            let sizes = grid.iter().zip(&stride).map(|(n, s)| n.checked_mul(*s));
            Some(sizes.collect::<Option<_>>().ok_or("it is too large")?)
        }
        _ => None,
    };
    let padding = match wanted {
        None if auto == "VALID" => vec![[0; 2]; axes],
        None => pairs(call, axes)?,
        Some(wanted) if wanted.len() == axes => {
            let mut padding = Vec::new();
            for axis in 0..axes {
                let full = (grid[axis] - 1) * stride[axis] + kernel[axis] + output_padding[axis];
                let total = full.saturating_sub(wanted[axis]);
                // Too short without padding: the rest is added at the end.
                output_padding[axis] += wanted[axis].saturating_sub(full);
                let less = total / 2;
                padding.push(if auto == "SAME_UPPER" {
                    [less, total - less]
                } else {
                    [total - less, less]
                });
            }
            padding
        }
        Some(wanted) => return Err(format!("an output shape of {wanted:?}")),
    };
    let bias = call.known_optional(2)?.cloned();
    let op = Op::ConvTranspose {
        weight: growing.weight(&weights, "conv.weight"),
        bias: bias.map(|bias| growing.weight(&bias, "conv.bias")),
        stride,
        padding,
        output_padding,
        groups: group(call)?,
    };
    growing.emit(op, &[x])
}

fn batch_norm(growing: &mut Growing<'_>, call: &Call<'_>) -> Parsed<usize> {
    if call.int("training_mode", 0)? != 0 || call.outputs() > 1 {
        return Err("it is in training mode".to_owned());
    }
    let x = growing.node(call.value(0)?)?;
    let [scale, shift, mean, variance] = [1, 2, 3, 4].map(|n| call.known(n));
    let op = Op::BatchNorm {
        epsilon: epsilon(call)?,
        affine: Some(Affine {
            scale: growing.weight(scale?, "norm.weight"),
            shift: growing.weight(shift?, "norm.bias"),
        }),
        mean: growing.weight(mean?, "norm.mean"),
        variance: growing.weight(variance?, "norm.variance"),
    };
    growing.emit(op, &[x])
}

fn epsilon(call: &Call<'_>) -> Parsed<f32> {
    let epsilon = call.float("epsilon", 1e-5)?;
    if (0.0..1.0).contains(&epsilon) {
        Ok(epsilon)
    } else {
        Err(format!("epsilon {epsilon}"))
    }
}

/// The affine part of a norm; none where it changes nothing.
pub(super) fn affine(
    growing: &mut Growing<'_>,
    scale: &Known,
    shift: Option<&Known>,
) -> Parsed<Option<Affine>> {
    let zeros = Known::floats(&scale.shape, vec![0.0; scale.count()]);
    let shift = shift.unwrap_or(&zeros);
    let all = |growing: &Growing<'_>, known: &Known, value: f32| -> Parsed<bool> {
        if !small(known) {
            return Ok(false);
        }
        let values = growing.files.floats(known)?;
        Ok(values.iter().all(|v| v.to_bits() == value.to_bits()))
    };
    if all(growing, scale, 1.0)? && all(growing, shift, 0.0)? {
        return Ok(None);
    }
    Ok(Some(Affine {
        scale: growing.weight(scale, "norm.weight"),
        shift: growing.weight(shift, "norm.bias"),
    }))
}

fn instance_norm(growing: &mut Growing<'_>, call: &Call<'_>) -> Parsed<usize> {
    let x = growing.node(call.value(0)?)?;
    let affine = affine(growing, call.known(1)?, Some(call.known(2)?))?;
    let epsilon = epsilon(call)?;
    growing.emit(Op::InstanceNorm { epsilon, affine }, &[x])
}

fn group_norm(growing: &mut Growing<'_>, call: &Call<'_>) -> Parsed<usize> {
    let x = growing.node(call.value(0)?)?;
    let groups = call.int("num_groups", 0)?;
    let groups = usize::try_from(groups).map_err(|_| format!("{groups} groups"))?;
    let channels = growing.shapes[x].get(1).copied().unwrap_or(0);
    let mut parts = Vec::new();
    for n in [1, 2] {
        let known = call.known(n)?;
        // Before opset 21 one number per group.
        let known = if call.opset < 21 && known.shape == [groups] && groups > 0 {
            let values = growing.files.floats(known)?;
            let per = channels / groups;
            let repeated = values.iter().flat_map(|v| std::iter::repeat_n(*v, per));
            Known::floats(&[per * groups], repeated.collect())
        } else {
            known.clone()
        };
        parts.push(known);
    }
    let op = Op::GroupNorm {
        groups,
        epsilon: epsilon(call)?,
        affine: affine(growing, &parts[0], Some(&parts[1]))?,
    };
    growing.emit(op, &[x])
}

fn layer_norm(growing: &mut Growing<'_>, call: &Call<'_>) -> Parsed<usize> {
    if call.outputs() > 1 {
        return Err("its mean is used".to_owned());
    }
    let x = growing.node(call.value(0)?)?;
    let shape = growing.shapes[x].clone();
    let first = super::translate::axis(call.int("axis", -1)?, shape.len())?;
    let epsilon = epsilon(call)?;
    // Several axes are one long one.
    let width: usize = shape[first..].iter().product();
    let flat = |known: &Known| {
        if known.shape == shape[first..] {
            Ok(known.reshaped(vec![width]))
        } else {
            Err(format!("scales of {:?} for {shape:?}", known.shape))
        }
    };
    let scale = flat(call.known(1)?)?;
    let shift = call.known_optional(2)?.map(flat).transpose()?;
    let affine = affine(growing, &scale, shift.as_ref())?;
    let norm = Op::LayerNorm { epsilon, affine };
    if first + 1 == shape.len() {
        return growing.emit(norm, &[x]);
    }
    let joined: Vec<i64> = shape[..first].iter().map(|n| *n as i64).collect();
    let op = Op::Reshape {
        shape: [joined, vec![-1]].concat(),
    };
    let x = growing.emit(op, &[x])?;
    let x = growing.emit(norm, &[x])?;
    let shape = shape.iter().map(|n| *n as i64).collect();
    growing.emit(Op::Reshape { shape }, &[x])
}

fn pool(growing: &mut Growing<'_>, call: &Call<'_>) -> Parsed<usize> {
    if call.outputs() > 1 {
        return Err("its indices are used".to_owned());
    }
    let x = growing.node(call.value(0)?)?;
    let grid = spatial(&growing.shapes[x])?.to_vec();
    let axes = grid.len();
    let kernel = match call.ints("kernel_shape")? {
        Some(_) => per_axis(call, "kernel_shape", axes)?,
        None => return Err("it has no kernel_shape".to_owned()),
    };
    let stride = per_axis(call, "strides", axes)?;
    let dilation = per_axis(call, "dilations", axes)?;
    if dilation.iter().any(|d| *d != 1) {
        return Err(format!("dilations {dilation:?} are not supported"));
    }
    let pool = Pool {
        padding: padding(call, &grid, &kernel, &stride)?,
        kernel,
        stride,
        ceil: call.int("ceil_mode", 0)? != 0,
    };
    let op = if call.op() == "MaxPool" {
        Op::MaxPool(pool)
    } else {
        Op::AveragePool {
            pool,
            count_padding: call.int("count_include_pad", 0)? != 0,
        }
    };
    growing.emit(op, &[x])
}

/// A known tensor of one number, as an input that may be missing.
pub(super) fn limit(growing: &Growing<'_>, call: &Call<'_>, n: usize) -> Parsed<Option<f32>> {
    let known = call.known_optional(n)?;
    known.map(|known| scalar(growing.files, known)).transpose()
}
