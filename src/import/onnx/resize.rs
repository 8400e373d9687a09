//! ONNX's Resize: many rules for where a voxel comes from. What comes to PyTorch's rules becomes the
//! graph's own operation; the rest becomes a small matrix along each axis.

use super::grid::spatial;
use super::known::Known;
use super::translate::{Call, Growing, axis, sizes};
use super::wire::Parsed;
use crate::model::graph::{Op, ResizeMode, ResizeTo};

/// For each voxel of the result: source voxels and their parts.
type Taps = Vec<Vec<(usize, f64)>>;

/// One axis: from `n` to `m` voxels.
#[derive(Clone, Copy)]
struct Axis {
    n: usize,
    m: usize,
    scale: f64,
}

pub(super) fn translate(growing: &mut Growing<'_>, call: &Call<'_>) -> Parsed<usize> {
    let x = growing.node(call.value(0)?)?;
    let shape = growing.shapes[x].clone();
    let rank = shape.len();
    spatial(&shape)?;
    if call.int("antialias", 0)? != 0 || call.int("exclude_outside", 0)? != 0 {
        return Err("antialias or exclude_outside are not supported".to_owned());
    }
    if call.text("keep_aspect_ratio_policy", "stretch")? != "stretch" {
        return Err("keep_aspect_ratio_policy is not supported".to_owned());
    }
    let along: Vec<usize> = match call.ints("axes")? {
        None => (0..rank).collect(),
        Some(axes) => axes.iter().map(|a| axis(*a, rank)).collect::<Parsed<_>>()?,
    };
    let scales = call.known_optional(2)?.filter(|known| known.count() > 0);
    let stated = call.known_optional(3)?.filter(|known| known.count() > 0);
    let mut all: Vec<Axis> = shape
        .iter()
        .map(|&n| Axis {
            n,
            m: n,
            scale: 1.0,
        })
        .collect();
    let fits = |count: usize| {
        if count == along.len() {
            Ok(())
        } else {
            Err(format!("{count} sizes for {} axes", along.len()))
        }
    };
    match (scales, stated) {
        (Some(scales), None) => {
            let scales = growing.files.floats(scales)?;
            fits(scales.len())?;
            for (axis, scale) in along.iter().zip(scales) {
                let scale = f64::from(scale);
                let m = (all[*axis].n as f64 * scale).floor();
                if !(1.0..=65_536.0).contains(&m) {
                    return Err(format!("{} voxels times {scale}", all[*axis].n));
                }
                (all[*axis].m, all[*axis].scale) = (m as usize, scale);
            }
        }
        (None, Some(stated)) => {
            let stated = sizes(&growing.files.ints(stated)?)?;
            fits(stated.len())?;
            for (axis, m) in along.iter().zip(stated) {
                if !(1..=65_536).contains(&m) {
                    return Err(format!("a size of {m}"));
                }
                (all[*axis].m, all[*axis].scale) = (m, m as f64 / all[*axis].n as f64);
            }
        }
        _ => return Err("it has neither scales nor sizes, or both".to_owned()),
    }
    let given = scales.is_some();
    if all[..2].iter().any(|a| a.m != a.n) {
        return Err("the batch or the channels are resized".to_owned());
    }
    let taps: Vec<Taps> = all[2..]
        .iter()
        .map(|axis| taps(call, *axis))
        .collect::<Parsed<_>>()?;
    for mode in [
        ResizeMode::Nearest,
        ResizeMode::Linear,
        ResizeMode::LinearAlignCorners,
    ] {
        let mut pairs = all[2..].iter().zip(&taps);
        if pairs.all(|(axis, taps)| alike(taps, &ours(mode, *axis, given))) {
            let to = if given {
                ResizeTo::Factor(all[2..].iter().map(|a| a.scale).collect())
            } else {
                ResizeTo::Size(all[2..].iter().map(|a| a.m).collect())
            };
            return growing.emit(Op::Resize { to, mode }, &[x]);
        }
    }
    by_matrices(growing, x, &all[2..], &taps)
}

/// Where the file says that values come from.
fn taps(call: &Call<'_>, axis: Axis) -> Parsed<Taps> {
    let Axis { n, m, scale } = axis;
    let half = |i: f64| (i + 0.5) / scale - 0.5;
    let source: Box<dyn Fn(f64) -> f64> =
        match call.text("coordinate_transformation_mode", "half_pixel")? {
            "half_pixel" => Box::new(half),
            "pytorch_half_pixel" => Box::new(move |i| if m > 1 { half(i) } else { 0.0 }),
            "align_corners" => Box::new(move |i| {
                if m > 1 {
                    i * (n - 1) as f64 / (m - 1) as f64
                } else {
                    0.0
                }
            }),
            "asymmetric" => Box::new(move |i| i / scale),
            "half_pixel_symmetric" => Box::new(move |i| {
                let exact = scale * n as f64;
                n as f64 / 2.0 * (1.0 - m as f64 / exact) + half(i)
            }),
            other => return Err(format!("the coordinates {other:?} are not supported")),
        };
    let inside = |at: f64| at.clamp(0.0, (n - 1) as f64) as usize;
    let rounding = call.text("nearest_mode", "round_prefer_floor")?;
    let a = f64::from(call.float("cubic_coeff_a", -0.75)?);
    (0..m)
        .map(|i| {
            let x = source(i as f64);
            let low = x.floor();
            let part = x - low;
            Ok(match call.text("mode", "nearest")? {
                "nearest" => {
                    let at = match rounding {
                        "floor" => low,
                        "ceil" => x.ceil(),
                        "round_prefer_floor" => (x - 0.5).ceil(),
                        "round_prefer_ceil" => (x + 0.5).floor(),
                        other => return Err(format!("the rounding {other:?}")),
                    };
                    vec![(inside(at), 1.0)]
                }
                "linear" => vec![(inside(low), 1.0 - part), (inside(low + 1.0), part)],
                "cubic" => (-1..=2)
                    .map(|k| {
                        let at = f64::from(k);
                        (inside(low + at), cubic((part - at).abs(), a))
                    })
                    .collect(),
                other => return Err(format!("the mode {other:?} is not supported")),
            })
        })
        .collect()
}

/// Keys' kernel.
fn cubic(x: f64, a: f64) -> f64 {
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

/// Where the graph's own operation takes values from.
fn ours(mode: ResizeMode, axis: Axis, given: bool) -> Taps {
    let Axis { n, m, scale } = axis;
    let step = if given {
        1.0 / scale
    } else {
        n as f64 / m as f64
    };
    let between = |x: f64| {
        let low = (x.floor() as usize).min(n - 1);
        let part = x - low as f64;
        vec![(low, 1.0 - part), ((low + 1).min(n - 1), part)]
    };
    (0..m)
        .map(|i| match mode {
            ResizeMode::Nearest => vec![(((i as f64 * step) as usize).min(n - 1), 1.0)],
            ResizeMode::Linear => between(((i as f64 + 0.5) * step - 0.5).max(0.0)),
            ResizeMode::LinearAlignCorners => between(if m > 1 {
                i as f64 * (n - 1) as f64 / (m - 1) as f64
            } else {
                0.0
            }),
        })
        .collect()
}

/// Whether all voxels are made of the same ones in the same parts.
fn alike(a: &Taps, b: &Taps) -> bool {
    let weight = |taps: &[(usize, f64)], at: usize| -> f64 {
        taps.iter().filter(|t| t.0 == at).map(|t| t.1).sum()
    };
    a.iter().zip(b).all(|(a, b)| {
        a.iter()
            .chain(b)
            .all(|(at, _)| (weight(a, *at) - weight(b, *at)).abs() < 1e-6)
    })
}

/// One matrix per axis that changes, applied with that axis last.
fn by_matrices(growing: &mut Growing<'_>, x: usize, axes: &[Axis], taps: &[Taps]) -> Parsed<usize> {
    let mut x = x;
    let rank = axes.len() + 2;
    for (a, (axis, taps)) in axes.iter().zip(taps).enumerate() {
        let still: Taps = (0..axis.n).map(|i| vec![(i, 1.0)]).collect();
        if axis.m == axis.n && alike(taps, &still) {
            continue;
        }
        growing.files.spend(axis.n * axis.m)?;
        let mut matrix = vec![0.0; axis.n * axis.m];
        for (row, taps) in taps.iter().enumerate() {
            for (at, part) in taps {
                matrix[row * axis.n + at] += *part as f32;
            }
        }
        let matrix = Known::floats(&[axis.m, axis.n], matrix);
        let mut order: Vec<usize> = (0..rank).collect();
        order.swap(a + 2, rank - 1);
        let turn = Op::Transpose { order };
        let last = a + 2 == rank - 1;
        if !last {
            x = growing.emit(turn.clone(), &[x])?;
        }
        let weight = growing.weight(&matrix, "resize");
        x = growing.emit(Op::Linear { weight, bias: None }, &[x])?;
        if !last {
            x = growing.emit(turn, &[x])?;
        }
    }
    Ok(x)
}
