//! How tensors are stored: as f32, as f16, or as int8 with a scale per output channel.
//!
//! Whoever reads a package gets f32: storage alone is smaller, the arithmetic stays. A tensor `w`
//! of int8 has beside it the f32 tensor `w.int8_scale` with as many axes, of which all but at most
//! one are 1; a value is its whole number times the scale of its place along that axis.

use half::f16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// Stands behind the name of an int8 tensor in the name of its scales.
const SCALE: &str = ".int8_scale";

/// How a tensor is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is computed with.
    F32,
    /// Rounded to the nearest half-precision number, ties to even.
    F16,
    /// Whole numbers −127 to 127, a scale for each place along an axis.
    Int8 {
        /// That of the output channels.
        axis: usize,
    },
}

/// A tensor that is to be stored.
#[derive(Clone, Copy, Debug)]
pub struct ToStore<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its axes.
    pub shape: &'a [usize],
    /// Its values, in memory order.
    pub values: &'a [f32],
    /// How.
    pub form: Form,
}

/// Name of the tensor with the scales of an int8 tensor.
pub(super) fn scale_name(name: &str) -> String {
    format!("{name}{SCALE}")
}

/// The whole numbers of a tensor and the scales along `axis`: the largest magnitude of each place
/// becomes 127.
pub fn quantize(shape: &[usize], values: &[f32], axis: usize) -> (Vec<i8>, Vec<f32>) {
    let places = shape[axis];
    let inner: usize = shape[axis + 1..].iter().product();
    let place = |n: usize| n / inner % places;
    let mut scales = vec![0.0_f32; places];
    for (n, value) in values.iter().enumerate() {
        let most = &mut scales[place(n)];
        *most = most.max(value.abs());
    }
    for scale in &mut scales {
        *scale /= 127.0;
        // Of nothing but zeros, or of numbers so small that they are as good as zeros.
        if !scale.is_normal() {
            *scale = 1.0;
        }
    }
    let whole = |(n, v): (usize, &f32)| (v / scales[place(n)]).round().clamp(-127.0, 127.0) as i8;
    (values.iter().enumerate().map(whole).collect(), scales)
}

/// The bytes of a `weights.safetensors`.
///
/// # Errors
/// In words: a value that half precision cannot hold, a name that stands for scales.
pub fn write(tensors: &[ToStore<'_>]) -> Result<Vec<u8>, String> {
    let mut stored: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for ToStore {
        name,
        shape,
        values,
        form,
    } in tensors
    {
        let mut put = |name: String, dtype, shape: &[usize], bytes: Vec<u8>| {
            stored.push((name, dtype, shape.to_vec(), bytes));
        };
        let plain = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let taken = scale_name(name);
        match form {
            Form::F32 => put((*name).to_owned(), Dtype::F32, shape, plain(values)),
            Form::F16 => {
                let halves: Vec<f16> = values.iter().map(|v| f16::from_f32(*v)).collect();
                if let Some(n) = halves.iter().position(|h| !h.is_finite()) {
                    return Err(format!(
                        "tensor {name:?} holds {}, f16 ends at 65504",
                        values[n]
                    ));
                }
                let bytes = halves.iter().flat_map(|h| h.to_le_bytes()).collect();
                put((*name).to_owned(), Dtype::F16, shape, bytes);
            }
            Form::Int8 { .. } if tensors.iter().any(|t| t.name == taken) => {
                return Err(format!("it has a tensor {taken:?} of its own"));
            }
            Form::Int8 { axis } => {
                let (numbers, scales) = quantize(shape, values, *axis);
                let mut along = vec![1; shape.len()];
                along[*axis] = shape[*axis];
                put(taken, Dtype::F32, &along, plain(&scales));
                let bytes = numbers.iter().map(|n| n.cast_unsigned()).collect();
                put((*name).to_owned(), Dtype::I8, shape, bytes);
            }
        }
    }
    let views = stored.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes);
        (name, view.expect("values fill their shape"))
    });
    safetensors::serialize(views, None).map_err(|e| format!("it cannot be written ({e})"))
}

/// A tensor's values as f32, whatever it is stored as.
///
/// # Errors
/// In words: no such tensor, another type, scales that are missing or no scales.
pub(super) fn floats(tensors: &SafeTensors<'_>, name: &str) -> Result<Vec<f32>, String> {
    let missing = || format!("tensor {name:?} is missing");
    let tensor = tensors.tensor(name).map_err(|_| missing())?;
    match tensor.dtype() {
        Dtype::F32 => Ok(plain(tensor.data())),
        Dtype::F16 => {
            let words = tensor.data().as_chunks::<2>().0;
            Ok(words
                .iter()
                .map(|w| f16::from_le_bytes(*w).into())
                .collect())
        }
        Dtype::I8 => {
            let (scales, inner) = scales(tensors, name, tensor.shape())?;
            let place = |n: usize| n / inner % scales.len();
            let value = |(n, b): (usize, &u8)| f32::from(b.cast_signed()) * scales[place(n)];
            Ok(tensor.data().iter().enumerate().map(value).collect())
        }
        other => Err(format!(
            "tensor {name:?} is {other:?}, expected F32, F16 or I8"
        )),
    }
}

/// The scales of an int8 tensor, and how many values stand side by side under one.
fn scales(
    tensors: &SafeTensors<'_>,
    name: &str,
    shape: &[usize],
) -> Result<(Vec<f32>, usize), String> {
    let own = scale_name(name);
    let tensor = tensors
        .tensor(&own)
        .map_err(|_| format!("tensor {own:?} is missing, which {name:?} needs as int8"))?;
    let along = tensor.shape();
    let longer: Vec<usize> = (0..along.len()).filter(|n| along[*n] != 1).collect();
    let fits = along.len() == shape.len()
        && longer.len() <= 1
        && longer
            .iter()
            .all(|n| along[*n] == shape[*n] && shape[*n] > 0);
    if !fits || tensor.dtype() != Dtype::F32 {
        return Err(format!(
            "tensor {own:?} is {:?} of shape {along:?}, expected F32 along one axis of {shape:?}",
            tensor.dtype()
        ));
    }
    let scales = plain(tensor.data());
    if scales.iter().any(|s| !(s.is_finite() && *s > 0.0)) {
        return Err(format!(
            "tensor {own:?} holds scales that are not above zero"
        ));
    }
    let inner = longer
        .first()
        .map_or(1, |axis| shape[axis + 1..].iter().product());
    Ok((scales, inner))
}

fn plain(bytes: &[u8]) -> Vec<f32> {
    let words = bytes.as_chunks::<4>().0;
    words.iter().map(|w| f32::from_le_bytes(*w)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stored(shape: &[usize], values: &[f32], form: Form) -> Result<Vec<f32>, String> {
        let name = "w";
        let bytes = write(&[ToStore {
            name,
            shape,
            values,
            form,
        }])?;
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.tensor(name).unwrap().shape(), shape);
        floats(&tensors, name)
    }

    proptest! {
        #[test]
        fn f16_is_the_nearest_half(values in prop::collection::vec(-60000.0_f32..60000.0, 12)) {
            let small: Vec<f32> = values.iter().map(|v| v / 1e6).collect();
            for values in [values, small] {
                for (got, want) in stored(&[3, 4], &values, Form::F16).unwrap().iter().zip(&values) {
                    // No half-precision number is nearer: all 65536 are asked.
                    let far = |h: f32| (f64::from(h) - f64::from(*want)).abs();
                    let nearest = (0..=u16::MAX)
                        .map(|bits| f16::from_bits(bits).to_f32())
                        .filter(|h| h.is_finite())
                        .map(far)
                        .fold(f64::INFINITY, f64::min);
                    prop_assert!(far(*got) == nearest, "{} for {}", got, want);
                }
            }
        }

        #[test]
        fn int8_follows_its_definition(
            values in prop::collection::vec(-3.0_f32..3.0, 24),
            axis in 0_usize..3,
            zeros in 0_usize..2,
        ) {
            let shape = [2, 3, 4];
            let mut values = values;
            let at = |n: usize| [n / 12, n / 4 % 3, n % 4];
            if zeros == 1 {
                for (n, v) in values.iter_mut().enumerate() {
                    if at(n)[axis] == 1 { *v = 0.0; }
                }
            }
            let got = stored(&shape, &values, Form::Int8 { axis }).unwrap();
            for channel in 0..shape[axis] {
                let inside: Vec<usize> = (0..24).filter(|n| at(*n)[axis] == channel).collect();
                let most = inside.iter().map(|n| values[*n].abs()).fold(0.0, f32::max);
                let scale = if most == 0.0 { 1.0 } else { most / 127.0 };
                for n in inside {
                    let want = (values[n] / scale).round() * scale;
                    prop_assert_eq!(got[n], want);
                    prop_assert!((got[n] - values[n]).abs() <= scale * 0.5001);
                }
            }
        }
    }

    #[test]
    fn what_half_precision_cannot_hold_is_refused() {
        let error = stored(&[2], &[1.0, 70000.0], Form::F16).unwrap_err();
        assert!(error.contains("65504"), "{error}");
    }

    #[test]
    fn numbers_too_small_for_a_scale_become_zeros() {
        let tiny = [f32::MIN_POSITIVE, -f32::MIN_POSITIVE / 2.0];
        assert_eq!(
            stored(&[2], &tiny, Form::Int8 { axis: 0 }).unwrap(),
            [0.0, 0.0]
        );
    }
}
