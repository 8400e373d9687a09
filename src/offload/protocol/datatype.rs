//! Kinds of elements: their words in the protocol and their sizes.

/// Kind of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the protocol's")]
pub enum Datatype {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
}

impl Datatype {
    /// All of them; `BYTES` is not among them, since no tensor of ours is text.
    pub const ALL: [Self; 13] = [
        Self::Bool,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Fp16,
        Self::Bf16,
        Self::Fp32,
        Self::Fp64,
    ];

    /// The protocol's word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Fp16 => "FP16",
            Self::Bf16 => "BF16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
        }
    }

    /// The kind of that word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::Bool | Self::Int8 | Self::Uint8 => 1,
            Self::Int16 | Self::Uint16 | Self::Fp16 | Self::Bf16 => 2,
            Self::Int32 | Self::Uint32 | Self::Fp32 => 4,
            Self::Int64 | Self::Uint64 | Self::Fp64 => 8,
        }
    }

    /// Whether JSON can carry it without loss (16-bit floats have no agreed form there).
    pub const fn fits_json(self) -> bool {
        !matches!(self, Self::Fp16 | Self::Bf16)
    }

    /// How many elements are NaN or infinite; 0 for whole numbers.
    pub(super) fn not_finite(self, bytes: &[u8]) -> u64 {
        fn count<const N: usize>(bytes: &[u8], is_finite: impl Fn([u8; N]) -> bool) -> u64 {
            let (elements, _) = bytes.as_chunks::<N>();
            elements.iter().filter(|&&e| !is_finite(e)).count() as u64
        }
        match self {
            Self::Fp16 => count(bytes, |e| half::f16::from_le_bytes(e).is_finite()),
            Self::Bf16 => count(bytes, |e| half::bf16::from_le_bytes(e).is_finite()),
            Self::Fp32 => count(bytes, |e| f32::from_le_bytes(e).is_finite()),
            Self::Fp64 => count(bytes, |e| f64::from_le_bytes(e).is_finite()),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_kinds_belong_together() {
        for kind in Datatype::ALL {
            assert_eq!(Datatype::of_word(kind.word()), Some(kind));
        }
        assert_eq!(Datatype::of_word("BYTES"), None);
        assert_eq!(Datatype::of_word("int8"), None);
    }

    #[test]
    fn what_is_not_finite_is_counted_in_every_kind_of_float() {
        let f32s: Vec<u8> = [1.0, f32::NAN, f32::INFINITY, -0.0]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        assert_eq!(Datatype::Fp32.not_finite(&f32s), 2);
        let f64s: Vec<u8> = [f64::NEG_INFINITY, 2.0].map(f64::to_le_bytes).concat();
        assert_eq!(Datatype::Fp64.not_finite(&f64s), 1);
        // IEEE 754 half: 7C00 is infinity; bfloat16: 7F80 is.
        assert_eq!(Datatype::Fp16.not_finite(&[0x00, 0x7c, 0x80, 0x7f]), 2);
        assert_eq!(Datatype::Bf16.not_finite(&[0x00, 0x7c, 0x80, 0x7f]), 1);
        assert_eq!(Datatype::Int32.not_finite(&f32s), 0);
    }
}
