//! Tensors as views into a file's storages, and their elements as `f32` when asked for.

use std::fmt;
use std::io::{BufReader, Read, Seek, SeekFrom};

use super::Fault;

/// How many elements are converted at once.
const AT_ONCE: usize = 1 << 15;
/// More dimensions than any network has.
const MOST_DIMENSIONS: usize = 16;

/// What a tensor's elements are in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dtype {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// 16-bit float of IEEE 754.
    F16,
    /// The upper half of a 32-bit float.
    Bf16,
    /// 64-bit integer.
    I64,
    /// 32-bit integer.
    I32,
    /// 16-bit integer.
    I16,
    /// 8-bit integer.
    I8,
    /// 8-bit integer without sign.
    U8,
    /// A truth value in a byte.
    Bool,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// PyTorch's class of storages with such elements.
    pub(super) fn of_storage(class: &str) -> Option<Self> {
        Some(match class {
            "DoubleStorage" => Self::F64,
            "FloatStorage" => Self::F32,
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::Bf16,
            "LongStorage" => Self::I64,
            "IntStorage" => Self::I32,
            "ShortStorage" => Self::I16,
            "CharStorage" => Self::I8,
            "ByteStorage" => Self::U8,
            "BoolStorage" => Self::Bool,
            _ => return None,
        })
    }

    fn element(self, b: &[u8]) -> f32 {
        match self {
            Self::F64 => {
                f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32
            }
            Self::F32 => f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            Self::F16 => half::f16::from_le_bytes([b[0], b[1]]).to_f32(),
            Self::Bf16 => half::bf16::from_le_bytes([b[0], b[1]]).to_f32(),
            Self::I64 => {
                i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32
            }
            Self::I32 => i32::from_le_bytes([b[0], b[1], b[2], b[3]]) as f32,
            Self::I16 => f32::from(i16::from_le_bytes([b[0], b[1]])),
            Self::I8 => f32::from(b[0] as i8),
            Self::U8 => f32::from(b[0]),
            Self::Bool => f32::from(u8::from(b[0] != 0)),
        }
    }
}

/// A tensor: where its elements lie in the file, checked against its storage.
#[derive(Clone, PartialEq, Eq)]
pub struct TensorRef {
    dtype: Dtype,
    shape: Vec<usize>,
    /// In elements.
    strides: Vec<usize>,
    /// Of the first element, in bytes from the file's start.
    start: u64,
}

/// One step of the way through a storage, from the largest stride to the smallest.
#[derive(Debug, Clone, Copy)]
struct Step {
    size: usize,
    stride: usize,
    out_stride: usize,
}

impl TensorRef {
    /// A view into a storage of `count` elements that starts at byte `storage_start`.
    ///
    /// Refused: what reaches beyond the storage, and elements that share a place.
    pub(super) fn new(
        dtype: Dtype,
        storage_start: u64,
        count: u64,
        offset: u64,
        shape: Vec<usize>,
        strides: Vec<usize>,
    ) -> Result<Self, Fault> {
        let described = || format!("shape {shape:?}, strides {strides:?}, offset {offset}");
        // Also where a size is 0, products of the others must not overflow anywhere.
        let product = shape
            .iter()
            .try_fold(1_usize, |p, &n| p.checked_mul(n.max(1)));
        if shape.len() != strides.len() || shape.len() > MOST_DIMENSIONS || product.is_none() {
            return Err(Fault::Tensor(format!("{} cannot be", described())));
        }
        if shape.contains(&0) {
            if offset > count {
                return Err(Fault::Tensor(format!(
                    "{} starts beyond its {count} elements",
                    described()
                )));
            }
        } else {
            let mut dims: Vec<(usize, usize)> = strides
                .iter()
                .copied()
                .zip(shape.iter().copied())
                .filter(|&(_, size)| size > 1)
                .collect();
            dims.sort_unstable();
            // Elements from the first to the last of what has been looked at, ends included.
            let mut span = 1_u64;
            for (stride, size) in dims {
                if (stride as u64) < span {
                    return Err(Fault::Tensor(format!(
                        "{} has elements that share a place",
                        described()
                    )));
                }
                span = (size as u64 - 1)
                    .checked_mul(stride as u64)
                    .and_then(|reach| reach.checked_add(span))
                    .ok_or_else(|| Fault::Tensor(format!("{} is too large", described())))?;
            }
            if offset.checked_add(span).is_none_or(|end| end > count) {
                return Err(Fault::Tensor(format!(
                    "{} reaches beyond its {count} elements",
                    described()
                )));
            }
        }
        Ok(Self {
            dtype,
            shape,
            strides,
            // Within a storage that lies in the file.
            start: storage_start + offset * dtype.size() as u64,
        })
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// What the elements are in the file.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// How many elements there are.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// The way through the storage in rising order; neighbors that lie without a gap become one step.
    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut out_stride = 1;
        for (&size, &stride) in self.shape.iter().zip(&self.strides).rev() {
            if size > 1 {
                steps.push(Step {
                    size,
                    stride,
                    out_stride,
                });
            }
            out_stride *= size;
        }
        steps.sort_by_key(|step| std::cmp::Reverse(step.stride));
        let mut merged: Vec<Step> = Vec::new();
        for step in steps {
            match merged.last_mut() {
                Some(outer)
                    if outer.stride == step.stride * step.size
                        && outer.out_stride == step.out_stride * step.size =>
                {
                    *outer = Step {
                        size: outer.size * step.size,
                        ..step
                    };
                }
                _ => merged.push(step),
            }
        }
        if merged.is_empty() {
            merged.push(Step {
                size: 1,
                stride: 1,
                out_stride: 1,
            });
        }
        merged
    }

    /// The elements in row-major order. The file is read once, forward, in small pieces.
    pub(super) fn read_f32(&self, file: &mut (impl Read + Seek)) -> Result<Vec<f32>, Fault> {
        let count = self.count();
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut out = vec![0.0; count];
        let width = self.dtype.size();
        let steps = self.steps();
        let (inner, outer) = steps.split_last().expect("at least one step");
        let run = if inner.stride == 1 { AT_ONCE } else { 1 };
        let mut piece = vec![0; run.min(inner.size) * width];
        file.seek(SeekFrom::Start(self.start))?;
        let mut reader = BufReader::with_capacity(1 << 16, file);
        let mut index = vec![0; outer.len()];
        // Elements read or skipped so far.
        let mut place = 0_u64;
        loop {
            let (mut row, mut out_row) = (0_u64, 0);
            for (i, step) in index.iter().zip(outer) {
                row += (i * step.stride) as u64;
                out_row += i * step.out_stride;
            }
            let mut done = 0;
            while done < inner.size {
                let wanted = row + (done * inner.stride) as u64;
                if wanted > place {
                    reader.seek_relative(((wanted - place) * width as u64).cast_signed())?;
                }
                let now = run.min(inner.size - done);
                reader.read_exact(&mut piece[..now * width])?;
                place = wanted + now as u64;
                for (n, bytes) in piece[..now * width].chunks_exact(width).enumerate() {
                    out[out_row + (done + n) * inner.out_stride] = self.dtype.element(bytes);
                }
                done += now;
            }
            let Some(turn) = (0..outer.len())
                .rev()
                .find(|&d| index[d] + 1 < outer[d].size)
            else {
                return Ok(out);
            };
            index[turn] += 1;
            index[turn + 1..].fill(0);
        }
    }
}

impl fmt::Debug for TensorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tensor {:?} {:?}", self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    /// The definition: every index, its place, its element.
    fn literal(shape: &[usize], strides: &[usize], offset: usize, stored: &[f32]) -> Vec<f32> {
        let count: usize = shape.iter().product();
        (0..count)
            .map(|n| {
                let (mut rest, mut at) = (n, offset);
                for (size, stride) in shape.iter().zip(strides).rev() {
                    at += rest % size * stride;
                    rest /= size;
                }
                stored[at]
            })
            .collect()
    }

    proptest! {
        #[test]
        fn views_read_as_their_definition(
            shape in proptest::collection::vec(1_usize..5, 0..5),
            order in any::<u64>(),
            gaps in proptest::collection::vec(1_usize..3, 5),
            offset in 0_usize..4,
        ) {
            // Strides in some order of the dimensions, with gaps.
            let mut dims: Vec<usize> = (0..shape.len()).collect();
            dims.sort_by_key(|&d| (order >> (8 * d)) & 0xff);
            let mut strides = vec![0; shape.len()];
            let mut stride = 1;
            for &d in &dims {
                stride *= gaps[d];
                strides[d] = stride;
                stride *= shape[d];
            }
            let stored: Vec<f32> = (0..offset + stride).map(|n| n as f32).collect();
            let mut bytes = vec![0xee; 3];
            bytes.extend(stored.iter().flat_map(|v| v.to_le_bytes()));
            let tensor = TensorRef::new(
                Dtype::F32, 3, stored.len() as u64, offset as u64, shape.clone(), strides.clone(),
            ).unwrap();
            let read = tensor.read_f32(&mut Cursor::new(bytes)).unwrap();
            prop_assert_eq!(read, literal(&shape, &strides, offset, &stored));
        }

        #[test]
        fn no_view_is_accepted_that_leaves_its_storage_or_repeats_a_place(
            shape in proptest::collection::vec(0_usize..5, 0..4),
            strides in proptest::collection::vec(0_usize..20, 4),
            offset in 0_usize..10,
            count in 0_usize..40,
        ) {
            let strides = strides[..shape.len()].to_vec();
            let tensor = TensorRef::new(
                Dtype::U8, 0, count as u64, offset as u64, shape.clone(), strides.clone(),
            );
            if tensor.is_ok() {
                let places: Vec<f32> = (0..1000).map(|n| n as f32).collect();
                let mut touched = literal(&shape, &strides, offset, &places);
                touched.sort_by(f32::total_cmp);
                prop_assert!(touched.windows(2).all(|p| p[0] < p[1]));
                prop_assert!(touched.last().is_none_or(|&last| last < count as f32));
            }
        }
    }

    #[test]
    fn every_kind_of_element_becomes_f32() {
        let check = |dtype: Dtype, bytes: &[u8], expected: f32| {
            assert_eq!(bytes.len(), dtype.size());
            assert_eq!(dtype.element(bytes), expected, "{dtype:?}");
        };
        check(Dtype::F64, &(-1.5_f64).to_le_bytes(), -1.5);
        check(Dtype::F32, &0.1_f32.to_le_bytes(), 0.1);
        check(Dtype::F16, &[0x00, 0x3e], 1.5);
        check(Dtype::Bf16, &[0xc0, 0x3f], 1.5);
        check(Dtype::I64, &(-7_i64).to_le_bytes(), -7.0);
        check(Dtype::I32, &70000_i32.to_le_bytes(), 70000.0);
        check(Dtype::I16, &(-300_i16).to_le_bytes(), -300.0);
        check(Dtype::I8, &[0xff], -1.0);
        check(Dtype::U8, &[0xff], 255.0);
        check(Dtype::Bool, &[1], 1.0);
    }
}
