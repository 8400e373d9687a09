//! Elements as JSON numbers: written piece by piece on the way out, read against a shape on the way in.

use std::fmt::{self, Write as _};
use std::io::{self, Read};

use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};

use super::Datatype;

/// Elements turned to a flat list of JSON numbers (without brackets) while it is read.
pub(super) struct NumberText<R> {
    from: R,
    datatype: Datatype,
    text: String,
    /// Bytes of `text` already given.
    given: usize,
    is_first: bool,
    at_end: bool,
}

impl<R: Read> NumberText<R> {
    pub(super) fn new(from: R, datatype: Datatype) -> Self {
        Self {
            from,
            datatype,
            text: String::new(),
            given: 0,
            is_first: true,
            at_end: false,
        }
    }

    /// Turns the next block.
    fn fill(&mut self) -> io::Result<()> {
        const ELEMENTS: usize = 4096;
        let size = self.datatype.size();
        let mut block = vec![0; ELEMENTS * size];
        let mut held = 0;
        while held < block.len() {
            match self.from.read(&mut block[held..]) {
                Ok(0) => break,
                Ok(n) => held += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if held % size != 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at_end = held < block.len();
        self.text.clear();
        self.given = 0;
        for element in block[..held].chunks_exact(size) {
            if !std::mem::take(&mut self.is_first) {
                self.text.push(',');
            }
            write_number(&mut self.text, self.datatype, element)?;
        }
        Ok(())
    }
}

impl<R: Read> Read for NumberText<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.given == self.text.len() {
            if self.at_end {
                return Ok(0);
            }
            self.fill()?;
        }
        let rest = &self.text.as_bytes()[self.given..];
        let n = rest.len().min(to.len());
        to[..n].copy_from_slice(&rest[..n]);
        self.given += n;
        Ok(n)
    }
}

fn write_number(text: &mut String, datatype: Datatype, element: &[u8]) -> io::Result<()> {
    macro_rules! whole {
        ($kind:ty) => {
            write!(
                text,
                "{}",
                <$kind>::from_le_bytes(element.try_into().expect("an element"))
            )
        };
    }
    macro_rules! float {
        ($kind:ty) => {{
            let value = <$kind>::from_le_bytes(element.try_into().expect("an element"));
            if !value.is_finite() {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "JSON has no NaN and no infinity",
                ));
            }
            // Shortest digits that read back to the same value, with an exponent where they are many.
            write!(text, "{value:?}")
        }};
    }
    let written = match datatype {
        Datatype::Bool => write!(text, "{}", element[0] != 0),
        Datatype::Int8 => whole!(i8),
        Datatype::Int16 => whole!(i16),
        Datatype::Int32 => whole!(i32),
        Datatype::Int64 => whole!(i64),
        Datatype::Uint8 => whole!(u8),
        Datatype::Uint16 => whole!(u16),
        Datatype::Uint32 => whole!(u32),
        Datatype::Uint64 => whole!(u64),
        Datatype::Fp32 => float!(f32),
        Datatype::Fp64 => float!(f64),
        Datatype::Fp16 | Datatype::Bf16 => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "JSON has no 16-bit floats",
            ));
        }
    };
    written.map_err(io::Error::other)
}

/// Reads `json`, a flat list or lists nested as the shape says, into little-endian bytes.
///
/// `elements` is the product of `shape`; more than that many numbers are never kept.
pub(super) fn read_numbers(
    json: &str,
    datatype: Datatype,
    shape: &[usize],
    elements: usize,
) -> Result<Vec<u8>, serde_json::Error> {
    let mut into = Into {
        datatype,
        shape,
        elements,
        count: 0,
        bytes: Vec::new(),
        is_flat: false,
    };
    let mut from = serde_json::Deserializer::from_str(json);
    Level {
        into: &mut into,
        level: 0,
    }
    .deserialize(&mut from)?;
    from.end()?;
    if into.count != elements {
        return Err(serde_json::Error::custom(format!(
            "{} numbers for a shape of {elements}",
            into.count
        )));
    }
    Ok(into.bytes)
}

struct Into<'a> {
    datatype: Datatype,
    shape: &'a [usize],
    elements: usize,
    count: usize,
    bytes: Vec<u8>,
    is_flat: bool,
}

impl Into<'_> {
    fn add<E: serde::de::Error>(&mut self, level: usize, element: &[u8]) -> Result<(), E> {
        // A number lies in one list (flat) or in as many as there are dimensions.
        if level != self.shape.len() {
            if level != 1 || (self.count > 0 && !self.is_flat) {
                return Err(E::custom(format!(
                    "a number {level} lists deep in a shape of {} dimensions",
                    self.shape.len()
                )));
            }
            self.is_flat = true;
        }
        if self.count == self.elements {
            return Err(E::custom("more numbers than the shape has"));
        }
        self.count += 1;
        self.bytes.extend_from_slice(element);
        Ok(())
    }

    fn whole<E: serde::de::Error>(&mut self, level: usize, value: i128) -> Result<(), E> {
        macro_rules! fit {
            ($kind:ty) => {
                match <$kind>::try_from(value) {
                    Ok(value) => self.add(level, &value.to_le_bytes()),
                    Err(_) => Err(E::custom(format!("{value} is no {}", self.datatype.word()))),
                }
            };
        }
        match self.datatype {
            Datatype::Bool => match value {
                0 | 1 => self.add(level, &[value as u8]),
                _ => Err(E::custom(format!("{value} is no BOOL"))),
            },
            Datatype::Int8 => fit!(i8),
            Datatype::Int16 => fit!(i16),
            Datatype::Int32 => fit!(i32),
            Datatype::Int64 => fit!(i64),
            Datatype::Uint8 => fit!(u8),
            Datatype::Uint16 => fit!(u16),
            Datatype::Uint32 => fit!(u32),
            Datatype::Uint64 => fit!(u64),
            Datatype::Fp32 => self.add(level, &(value as f32).to_le_bytes()),
            Datatype::Fp64 => self.add(level, &(value as f64).to_le_bytes()),
            Datatype::Fp16 | Datatype::Bf16 => Err(E::custom("JSON has no 16-bit floats")),
        }
    }

    fn float<E: serde::de::Error>(&mut self, level: usize, value: f64) -> Result<(), E> {
        match self.datatype {
            Datatype::Fp32 => self.add(level, &(value as f32).to_le_bytes()),
            Datatype::Fp64 => self.add(level, &value.to_le_bytes()),
            other => Err(E::custom(format!("{value} is no {}", other.word()))),
        }
    }
}

/// What may stand inside `level` lists.
struct Level<'a, 'b> {
    into: &'a mut Into<'b>,
    level: usize,
}

impl<'de> DeserializeSeed<'de> for Level<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} numbers", self.into.datatype.word())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        match self.into.datatype {
            Datatype::Bool => self.into.add(self.level, &[u8::from(value)]),
            other => Err(E::custom(format!("{value} is no {}", other.word()))),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.into.whole(self.level, value.into())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.into.whole(self.level, value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.into.float(self.level, value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if self.level >= self.into.shape.len().max(1) || self.into.is_flat {
            return Err(A::Error::custom("lists nested deeper than the shape"));
        }
        let mut length = 0;
        while list
            .next_element_seed(Level {
                into: self.into,
                level: self.level + 1,
            })?
            .is_some()
        {
            length += 1;
        }
        let expected = self.into.shape.get(self.level).copied();
        // A flat list is held against the product of the shape at the end.
        if !(self.level == 0 && (self.into.is_flat || expected.is_none()))
            && expected != Some(length)
            && self.into.elements > 0
        {
            return Err(A::Error::custom(format!(
                "a list of {length} where the shape has {}",
                expected.unwrap_or(0)
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(datatype: Datatype, bytes: &[u8]) -> String {
        let mut text = String::new();
        NumberText::new(bytes, datatype)
            .read_to_string(&mut text)
            .unwrap();
        text
    }

    #[test]
    fn numbers_survive_a_round_trip() {
        let values = [0.1_f32, -0.0, 1e30, f32::MIN_POSITIVE, 16_777_217.0];
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let text = format!("[{}]", written(Datatype::Fp32, &bytes));
        assert_eq!(read_numbers(&text, Datatype::Fp32, &[5], 5).unwrap(), bytes);
        let values = [i64::MIN, -1, 0, i64::MAX];
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let text = format!("[{}]", written(Datatype::Int64, &bytes));
        assert_eq!(text, format!("[{},-1,0,{}]", i64::MIN, i64::MAX));
        assert_eq!(
            read_numbers(&text, Datatype::Int64, &[2, 2], 4).unwrap(),
            bytes
        );
    }

    #[test]
    fn many_blocks_are_written_as_one() {
        let bytes: Vec<u8> = (0..10_000_u16).flat_map(u16::to_le_bytes).collect();
        let expected: Vec<String> = (0..10_000).map(|n: u16| n.to_string()).collect();
        assert_eq!(written(Datatype::Uint16, &bytes), expected.join(","));
        assert_eq!(written(Datatype::Uint16, &[]), "");
    }

    #[test]
    fn lists_are_flat_or_nested_as_the_shape() {
        let read = |json: &str, shape: &[usize]| {
            read_numbers(json, Datatype::Uint8, shape, shape.iter().product()).ok()
        };
        let all = Some(vec![1, 2, 3, 4, 5, 6]);
        assert_eq!(read("[1,2,3,4,5,6]", &[2, 3]), all);
        assert_eq!(read("[[1,2,3],[4,5,6]]", &[2, 3]), all);
        assert_eq!(read("[[[1,2,3],[4,5,6]]]", &[1, 2, 3]), all);
        assert_eq!(read("[7]", &[]), Some(vec![7]));
        assert_eq!(read("[]", &[0, 3]), Some(vec![]));
        for (wrong, shape) in [
            ("[[1,2],[3,4],[5,6]]", &[2, 3][..]),
            ("[[1,2,3],[4,5]]", &[2, 3]),
            ("[1,2,3,[4,5,6]]", &[2, 3]),
            ("[1,2,3,4,5]", &[2, 3]),
            ("[1,2,3,4,5,6,7]", &[2, 3]),
            ("[[[1,2,3]],[[4,5,6]]]", &[2, 3]),
            ("[[1,2,3]]", &[3]),
            ("[256]", &[1]),
            ("[-1]", &[1]),
            ("[1.0]", &[1]),
            ("[null]", &[1]),
            ("[\"1\"]", &[1]),
            ("[true]", &[1]),
            ("7", &[1]),
            ("{}", &[1]),
            ("[1] 2", &[1]),
        ] {
            assert_eq!(read(wrong, shape), None, "{wrong}");
        }
    }

    #[test]
    fn truth_is_a_word_or_a_digit() {
        let read = |json: &str| read_numbers(json, Datatype::Bool, &[2], 2).ok();
        assert_eq!(read("[true,false]"), Some(vec![1, 0]));
        assert_eq!(read("[1,0]"), Some(vec![1, 0]));
        assert_eq!(read("[2,0]"), None);
    }

    #[test]
    fn what_json_cannot_say_is_not_written() {
        let nan = f32::NAN.to_le_bytes();
        let mut text = String::new();
        for (datatype, bytes) in [(Datatype::Fp32, &nan[..]), (Datatype::Fp16, &[0, 0])] {
            assert!(
                NumberText::new(bytes, datatype)
                    .read_to_string(&mut text)
                    .is_err()
            );
        }
    }
}
