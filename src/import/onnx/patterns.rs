//! What exporters take apart and the graph has as one operation.
//!
//! | written as | becomes |
//! |---|---|
//! | x · sigmoid(x) | SiLU |
//! | ½ · x · (1 + erf(x / √2)) | GELU |
//! | (x − mean) / √(mean((x − mean)²) + ε) | layer or instance norm |
//! | reshape, instance norm, reshape back | group norm |
//! | a bare norm · scale + shift | the norm with its affine part |
//! | x · W + b | one linear operation |
//! | whole powers | products |

use super::fold::concrete;
use super::known::Known;
use super::translate::{Growing, Value};
use super::values::number;
use super::wire::Parsed;
use crate::model::graph::{Affine, Function, Op};

/// The operation that `a ∘ b` is the last part of.
pub(super) fn binary(
    growing: &mut Growing<'_>,
    op: &str,
    a: &Value,
    b: &Value,
) -> Parsed<Option<usize>> {
    match op {
        "Pow" => power(growing, a, b),
        "Mul" => {
            if let Some(x) = gelu(growing, a, b) {
                return growing.emit(Op::Gelu, &[x]).map(Some);
            }
            let (Value::Node(a), Value::Node(b)) = (a, b) else {
                return Ok(None);
            };
            for (x, gate) in [(*a, *b), (*b, *a)] {
                if matches!(growing.op(gate), Op::Sigmoid) && growing.from(gate) == [x] {
                    return growing.emit(Op::Silu, &[x]).map(Some);
                }
            }
            Ok(None)
        }
        "Div" => norm(growing, a, b),
        "Add" => match (a, b) {
            (Value::Node(x), Value::Known(known)) | (Value::Known(known), Value::Node(x)) => {
                added(growing, *x, known)
            }
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

fn power(growing: &mut Growing<'_>, a: &Value, b: &Value) -> Parsed<Option<usize>> {
    let (Value::Node(x), Some(exponent)) = (a, number(growing, b)) else {
        return Ok(None);
    };
    let x = *x;
    let function = |function| Op::Unary { function };
    Ok(Some(match exponent {
        1.0 => x,
        2.0 => growing.emit(Op::Mul, &[x, x])?,
        3.0 => {
            let square = growing.emit(Op::Mul, &[x, x])?;
            growing.emit(Op::Mul, &[square, x])?
        }
        0.5 => growing.emit(function(Function::Sqrt), &[x])?,
        -1.0 => growing.emit(function(Function::Reciprocal), &[x])?,
        _ => return Ok(None),
    }))
}

/// x, when a · b is ½ · x · (1 + erf(x / √2)) in any order.
fn gelu(growing: &Growing<'_>, a: &Value, b: &Value) -> Option<usize> {
    let mut factors = Vec::new();
    let mut scale = 1.0;
    let mut open = vec![(a.clone(), 0), (b.clone(), 0)];
    while let Some((value, depth)) = open.pop() {
        if let Some(by) = number(growing, &value) {
            scale *= by;
            continue;
        }
        let Value::Node(n) = value else { return None };
        if matches!(growing.op(n), Op::Mul) && depth < 2 {
            let parts = growing.from(n).iter();
            open.extend(parts.map(|part| (Value::Node(*part), depth + 1)));
        } else {
            factors.push(n);
        }
    }
    let [p, q] = *factors.as_slice() else {
        return None;
    };
    if (scale - 0.5).abs() > 1e-6 {
        return None;
    }
    [(p, q), (q, p)]
        .into_iter()
        .find(|(x, gate)| one_plus_erf(growing, *gate) == Some(*x))
        .map(|(x, _)| x)
}

/// x, when a node is 1 + erf(x / √2).
fn one_plus_erf(growing: &Growing<'_>, n: usize) -> Option<usize> {
    let (erf, one) = with_number(growing, n, &Op::Add)?;
    let is_erf = matches!(
        growing.op(erf),
        Op::Unary {
            function: Function::Erf
        }
    );
    let inner = *growing.from(erf).first()?;
    let near = |a: f32, b: f32| (a - b).abs() < 1e-5;
    if !is_erf || !near(one, 1.0) {
        return None;
    }
    let divided = with_number(growing, inner, &Op::Div)
        .filter(|(x, by)| growing.from(inner)[0] == *x && near(*by, std::f32::consts::SQRT_2));
    let times = with_number(growing, inner, &Op::Mul)
        .filter(|(_, by)| near(*by, std::f32::consts::FRAC_1_SQRT_2));
    divided.or(times).map(|(x, _)| x)
}

/// The two sides of an operation when one is a number: the other side first.
fn with_number(growing: &Growing<'_>, n: usize, op: &Op) -> Option<(usize, f32)> {
    if growing.op(n) != op {
        return None;
    }
    let &[a, b] = growing.from(n) else {
        return None;
    };
    match (
        number(growing, &Value::Node(a)),
        number(growing, &Value::Node(b)),
    ) {
        (None, Some(value)) => Some((a, value)),
        (Some(value), None) => Some((b, value)),
        _ => None,
    }
}

/// A mean with its axes kept: of what, and over which axes.
fn mean(growing: &Growing<'_>, n: usize) -> Option<(usize, Vec<usize>)> {
    let x = *growing.from(n).first()?;
    match growing.op(n) {
        Op::Mean { axes, keep: true } => Some((x, axes.clone())),
        Op::GlobalAveragePool => Some((x, (2..growing.shapes[x].len()).collect())),
        _ => None,
    }
}

/// A norm that is written as its definition.
fn norm(growing: &mut Growing<'_>, a: &Value, b: &Value) -> Parsed<Option<usize>> {
    let (Value::Node(centered), Value::Node(deviation)) = (a, b) else {
        return Ok(None);
    };
    let Some((x, axes, epsilon)) = definition(growing, *centered, *deviation) else {
        return Ok(None);
    };
    let rank = growing.shapes[x].len();
    let op = if axes == [rank - 1] {
        Op::LayerNorm {
            epsilon,
            affine: None,
        }
    } else if (3..=5).contains(&rank) && axes.iter().copied().eq(2..rank) {
        Op::InstanceNorm {
            epsilon,
            affine: None,
        }
    } else {
        return Ok(None);
    };
    growing.emit(op, &[x]).map(Some)
}

/// x, axes and ε of (x − mean) / √(mean((x − mean)²) + ε).
fn definition(
    growing: &Growing<'_>,
    centered: usize,
    deviation: usize,
) -> Option<(usize, Vec<usize>, f32)> {
    let difference = |n: usize| {
        let &[x, m] = growing.from(n) else {
            return None;
        };
        let (of, axes) = mean(growing, m)?;
        (matches!(growing.op(n), Op::Sub) && of == x).then_some((x, axes))
    };
    let (x, axes) = difference(centered)?;
    let root = matches!(
        growing.op(deviation),
        Op::Unary {
            function: Function::Sqrt
        }
    );
    let (variance, epsilon) =
        with_number(growing, *growing.from(deviation).first()?, &Op::Add).filter(|_| root)?;
    let (square, same_axes) = mean(growing, variance)?;
    let &[s, t] = growing.from(square) else {
        return None;
    };
    let squared = matches!(growing.op(square), Op::Mul) && s == t;
    let same = s == centered || difference(s) == Some((x, axes.clone()));
    (squared && same && same_axes == axes).then_some((x, axes, epsilon))
}

/// x + known, where x is a linear operation without a bias or a bare norm times a scale.
fn added(growing: &mut Growing<'_>, x: usize, known: &Known) -> Parsed<Option<usize>> {
    match growing.op(x).clone() {
        Op::Linear { weight, bias: None } => {
            let out = *growing.shapes[x].last().unwrap_or(&0);
            if known.count() != out || known.shape.last() != Some(&out) {
                return Ok(None);
            }
            let bias = growing.weight(&known.reshaped(vec![out]), "linear.bias");
            let from = growing.from(x).to_vec();
            let op = Op::Linear {
                weight,
                bias: Some(bias),
            };
            growing.emit(op, &from).map(Some)
        }
        Op::Mul => {
            let &[a, b] = growing.from(x) else {
                return Ok(None);
            };
            for (norm, scale) in [(a, b), (b, a)] {
                let Op::Constant { tensor } = growing.op(scale) else {
                    continue;
                };
                let scale = growing.weights[tensor].clone();
                if let Some(node) = affine(growing, norm, &scale, known)? {
                    return Ok(Some(node));
                }
            }
            Ok(None)
        }
        _ => Ok(None),
    }
}

fn affine(
    growing: &mut Growing<'_>,
    norm: usize,
    scale: &Known,
    shift: &Known,
) -> Parsed<Option<usize>> {
    let shape = growing.shapes[norm].clone();
    let op = growing.op(norm).clone();
    let along = match &op {
        Op::InstanceNorm { affine: None, .. } | Op::GroupNorm { affine: None, .. } => 1,
        Op::LayerNorm { affine: None, .. } => shape.len() - 1,
        _ => return Ok(None),
    };
    let channels = shape[along];
    // One number per index of the norm's axis, the other axes of length 1.
    let fits = |known: &Known| {
        let behind = shape.len() - 1 - along;
        let at = known.shape.len().checked_sub(behind + 1);
        known.count() == channels && at.is_some_and(|at| known.shape[at] == channels)
    };
    if !fits(scale) || !fits(shift) {
        return Ok(None);
    }
    let affine = Some(Affine {
        scale: growing.weight(&scale.reshaped(vec![channels]), "norm.weight"),
        shift: growing.weight(&shift.reshaped(vec![channels]), "norm.bias"),
    });
    let op = match op {
        Op::InstanceNorm { epsilon, .. } => Op::InstanceNorm { epsilon, affine },
        Op::GroupNorm {
            groups, epsilon, ..
        } => Op::GroupNorm {
            groups,
            epsilon,
            affine,
        },
        Op::LayerNorm { epsilon, .. } => Op::LayerNorm { epsilon, affine },
        _ => return Ok(None),
    };
    let from = growing.from(norm).to_vec();
    growing.emit(op, &from).map(Some)
}

/// Another shape for a value; a reshaped instance norm that comes back is a group norm.
pub(super) fn reshaped(growing: &mut Growing<'_>, x: usize, shape: Vec<i64>) -> Parsed<usize> {
    let wanted = concrete(&growing.shapes[x], &shape)?;
    if wanted == growing.shapes[x] {
        return Ok(x);
    }
    if let Op::InstanceNorm {
        epsilon,
        affine: None,
    } = *growing.op(x)
        && let [inner] = *growing.from(x)
        && matches!(growing.op(inner), Op::Reshape { .. })
        && let [source] = *growing.from(inner)
    {
        let (groups, from) = (growing.shapes[x][1], &growing.shapes[source]);
        let grid = (3..=5).contains(&from.len()) && from[1].is_multiple_of(groups);
        if *from == wanted && grid {
            return growing.emit(
                Op::GroupNorm {
                    groups,
                    epsilon,
                    affine: None,
                },
                &[source],
            );
        }
    }
    growing.emit(Op::Reshape { shape }, &[x])
}
