//! What a checkpoint can hold besides tensors: plain values.

use std::fmt;
use std::sync::Arc;

use super::tensor::TensorRef;

/// A plain value. Containers are shared, so that a clone is cheap.
#[derive(Clone)]
#[non_exhaustive]
pub enum Value {
    /// Python's `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A number.
    Float(f64),
    /// Text; also `torch.device` and `torch.dtype`, by their name.
    Str(Arc<str>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A list.
    List(Arc<[Value]>),
    /// A tuple, also a `torch.Size`.
    Tuple(Arc<[Value]>),
    /// A set or frozen set, in the order of the file.
    Set(Arc<[Value]>),
    /// A dictionary, ordered or not, in the order of the file; text keys are unique.
    Dict(Arc<[(Value, Value)]>),
    /// A tensor or parameter of PyTorch.
    Tensor(Arc<TensorRef>),
    /// An array of NumPy.
    Array(Arc<Array>),
}

impl Value {
    /// The kind in words, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::None => "nothing",
            Self::Bool(_) => "a truth value",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Str(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "a list",
            Self::Tuple(_) => "a tuple",
            Self::Set(_) => "a set",
            Self::Dict(_) => "a dictionary",
            Self::Tensor(_) => "a tensor",
            Self::Array(_) => "an array",
        }
    }

    /// Whether this is `None`.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// The truth value, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The whole number, if it is one of 64 bits.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => i64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The number, whole or not.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            Self::Int(value) => Some(*value as f64),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The items of a list or tuple.
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Self::List(items) | Self::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// The entries of a dictionary, in the order of the file.
    pub fn as_dict(&self) -> Option<&[(Value, Value)]> {
        match self {
            Self::Dict(pairs) => Some(pairs),
            _ => None,
        }
    }

    /// The tensor, if it is one.
    pub fn as_tensor(&self) -> Option<&TensorRef> {
        match self {
            Self::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// The entry of a dictionary that goes by the text `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.as_dict()?
            .iter()
            .find(|(k, _)| k.as_str() == Some(key))
            .map(|(_, value)| value)
    }
}

/// The kind and size; no content, which may be large.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Str(text) => write!(f, "{text:?}"),
            Self::Bytes(bytes) => write!(f, "bytes({})", bytes.len()),
            Self::List(items) => write!(f, "list({})", items.len()),
            Self::Tuple(items) => write!(f, "tuple({})", items.len()),
            Self::Set(items) => write!(f, "set({})", items.len()),
            Self::Dict(pairs) => write!(f, "dict({})", pairs.len()),
            Self::Tensor(tensor) => write!(f, "{tensor:?}"),
            Self::Array(array) => write!(f, "{array:?}"),
        }
    }
}

/// What the elements of a NumPy array are: `f8`, `i4`, `b1`, `U5`, …
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Elements {
    /// `f`, `i`, `u`, `b` or `U`.
    pub(super) class: u8,
    /// Bytes of one element.
    pub(super) size: usize,
    pub(super) big_endian: bool,
}

impl Elements {
    /// From NumPy's code; `None` for kinds that are not numbers, truth values or text.
    pub(super) fn parse(code: &str) -> Option<Self> {
        let (order, code) = match code.as_bytes().first()? {
            b'<' | b'|' | b'=' | b'>' => code.split_at(1),
            _ => ("", code),
        };
        let class = *code.as_bytes().first()?;
        let number: usize = code.get(1..)?.parse().ok()?;
        let size = match (class, number) {
            (b'f', 2 | 4 | 8) | (b'i' | b'u', 1 | 2 | 4 | 8) | (b'b', 1) => number,
            (b'U', 0..=4096) => 4 * number,
            _ => return None,
        };
        Some(Self {
            class,
            size,
            big_endian: order == ">",
        })
    }

    /// One element.
    pub(super) fn value(self, bytes: &[u8]) -> Option<Value> {
        if bytes.len() != self.size {
            return None;
        }
        if self.class == b'U' {
            let text: Option<String> = bytes
                .chunks_exact(4)
                .map(|c| char::from_u32(self.bits(c) as u32))
                .collect();
            return Some(Value::Str(text?.trim_end_matches('\0').into()));
        }
        let bits = self.bits(bytes);
        let unused = 64 - 8 * self.size as u32;
        Some(match (self.class, self.size) {
            (b'f', 2) => Value::Float(half::f16::from_bits(bits as u16).to_f64()),
            (b'f', 4) => Value::Float(f64::from(f32::from_bits(bits as u32))),
            (b'f', _) => Value::Float(f64::from_bits(bits)),
            (b'i', _) => Value::Int(i128::from((bits << unused) as i64 >> unused)),
            (b'u', _) => Value::Int(i128::from(bits)),
            _ => Value::Bool(bits != 0),
        })
    }

    fn bits(self, bytes: &[u8]) -> u64 {
        let shift = |bits: u64, byte: &u8| bits << 8 | u64::from(*byte);
        if self.big_endian {
            bytes.iter().fold(0, shift)
        } else {
            bytes.iter().rev().fold(0, shift)
        }
    }
}

/// A NumPy array of numbers, truth values or text.
#[derive(Clone)]
pub struct Array {
    pub(super) shape: Vec<usize>,
    pub(super) elements: Elements,
    /// First index fastest.
    pub(super) fortran: bool,
    pub(super) bytes: Arc<[u8]>,
}

impl Array {
    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The numbers in row-major order; `None` for text.
    pub fn to_f64(&self) -> Option<Vec<f64>> {
        if self.elements.class == b'U' {
            return None;
        }
        let stored: Vec<f64> = self
            .bytes
            .chunks_exact(self.elements.size)
            .map(|one| match self.elements.value(one) {
                Some(Value::Bool(value)) => f64::from(u8::from(value)),
                Some(value) => value.as_float().unwrap_or(f64::NAN),
                None => f64::NAN,
            })
            .collect();
        if !self.fortran || self.shape.len() < 2 {
            return Some(stored);
        }
        let mut index = vec![0; self.shape.len()];
        let ordered = (0..stored.len()).map(|_| {
            let (mut at, mut stride) = (0, 1);
            for (i, size) in index.iter().zip(&self.shape) {
                at += i * stride;
                stride *= size;
            }
            for (i, size) in index.iter_mut().zip(&self.shape).rev() {
                *i += 1;
                if *i < *size {
                    break;
                }
                *i = 0;
            }
            stored[at]
        });
        Some(ordered.collect())
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "array{:?}", self.shape)
    }
}
