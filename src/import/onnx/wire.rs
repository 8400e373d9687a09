//! Protocol buffers' wire format, read in place: no message is held, only where its parts are.
//!
//! Every length is checked against what holds it before anything is read, and what the caller keeps
//! is counted, so that a file cannot ask for more memory than its bytes justify.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;

/// Why something cannot be read, in words.
pub(super) type Parsed<T> = Result<T, String>;

/// Parts (fields that are kept, list entries) that one file may have.
const MOST_PARTS: usize = 1 << 20;

/// A field's content.
#[derive(Clone, Debug)]
pub(super) enum Field {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64,
    /// Wire type 2: where the bytes are.
    Bytes(Range<u64>),
    /// Wire type 5.
    Fixed32([u8; 4]),
}

/// A file that is read from place to place.
#[derive(Debug)]
pub(super) struct Wire {
    reader: BufReader<File>,
    at: u64,
    size: u64,
    parts: usize,
}

impl Wire {
    pub(super) fn new(file: File) -> Parsed<Self> {
        let size = file.metadata().map_err(said)?.len();
        Ok(Self {
            reader: BufReader::new(file),
            at: 0,
            size,
            // A part takes two bytes at least.
            parts: MOST_PARTS.min(usize::try_from(size / 2).unwrap_or(MOST_PARTS)),
        })
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Counts a part that is kept.
    pub(super) fn count(&mut self) -> Parsed<()> {
        self.parts = self
            .parts
            .checked_sub(1)
            .ok_or_else(|| format!("more than {MOST_PARTS} parts"))?;
        Ok(())
    }

    /// Calls `each` with the fields of the message that lies at `range`.
    pub(super) fn message(
        &mut self,
        range: &Range<u64>,
        each: &mut dyn FnMut(&mut Self, u32, Field) -> Parsed<()>,
    ) -> Parsed<()> {
        self.seek(range.start)?;
        while self.at < range.end {
            let (number, field) = self.field(range.end)?;
            let next = match &field {
                Field::Bytes(bytes) => bytes.end,
                _ => self.at,
            };
            each(self, number, field)?;
            self.seek(next)?;
        }
        Ok(())
    }

    fn field(&mut self, end: u64) -> Parsed<(u32, Field)> {
        let start = self.at;
        let tag = self.varint(end)?;
        let number = u32::try_from(tag >> 3)
            .ok()
            .filter(|n| (1..1 << 29).contains(n))
            .ok_or_else(|| format!("a field of number {} at byte {start}", tag >> 3))?;
        let field = match tag & 7 {
            0 => Field::Varint(self.varint(end)?),
            1 => {
                self.fixed::<8>(end)?;
                Field::Fixed64
            }
            2 => {
                let length = self.varint(end)?;
                let stop = self.at.checked_add(length).filter(|stop| *stop <= end);
                let stop = stop.ok_or_else(|| {
                    format!(
                        "{length} bytes are announced at byte {start}, {} are there",
                        end - self.at
                    )
                })?;
                Field::Bytes(self.at..stop)
            }
            5 => Field::Fixed32(self.fixed(end)?),
            other => return Err(format!("a field of wire type {other} at byte {start}")),
        };
        Ok((number, field))
    }

    fn seek(&mut self, to: u64) -> Parsed<()> {
        if to != self.at {
            let by = to as i64 - self.at as i64;
            self.reader.seek_relative(by).map_err(said)?;
            self.at = to;
        }
        Ok(())
    }

    fn fixed<const N: usize>(&mut self, end: u64) -> Parsed<[u8; N]> {
        let mut bytes = [0; N];
        if end - self.at < N as u64 {
            return Err(format!("it ends at byte {end} within a number"));
        }
        self.reader.read_exact(&mut bytes).map_err(said)?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn varint(&mut self, end: u64) -> Parsed<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.fixed(end)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(format!("a number of more than 64 bits at byte {}", self.at))
    }

    /// A text of at most `most` bytes.
    pub(super) fn text(&mut self, field: &Field, most: u64) -> Parsed<String> {
        let bytes = self.bytes(field, most)?;
        String::from_utf8(bytes).map_err(|_| "a text that is no UTF-8".to_owned())
    }

    /// At most `most` bytes.
    pub(super) fn bytes(&mut self, field: &Field, most: u64) -> Parsed<Vec<u8>> {
        let range = range(field)?;
        let length = range.end - range.start;
        if length > most {
            return Err(format!("a text of {length} bytes, at most {most} are read"));
        }
        self.seek(range.start)?;
        let mut bytes = vec![0; length as usize];
        self.reader.read_exact(&mut bytes).map_err(said)?;
        self.at = range.end;
        Ok(bytes)
    }

    /// Whole numbers, one or packed.
    pub(super) fn wholes(&mut self, field: &Field, to: &mut Vec<i64>) -> Parsed<()> {
        match field {
            Field::Varint(one) => {
                self.count()?;
                to.push(one.cast_signed());
            }
            other => {
                let range = range(other)?;
                self.seek(range.start)?;
                while self.at < range.end {
                    self.count()?;
                    to.push(self.varint(range.end)?.cast_signed());
                }
            }
        }
        Ok(())
    }

    /// Floats, one or packed.
    pub(super) fn floats(&mut self, field: &Field, to: &mut Vec<f32>) -> Parsed<()> {
        match field {
            Field::Fixed32(one) => {
                self.count()?;
                to.push(f32::from_le_bytes(*one));
            }
            other => {
                let range = range(other)?;
                self.seek(range.start)?;
                while self.at < range.end {
                    self.count()?;
                    to.push(f32::from_le_bytes(self.fixed(range.end)?));
                }
            }
        }
        Ok(())
    }

    /// Bytes of the file that were found before.
    pub(super) fn at(&mut self, range: &Range<u64>) -> Parsed<Vec<u8>> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.reader
            .seek(SeekFrom::Start(range.start))
            .and_then(|_| self.reader.read_exact(&mut bytes))
            .map_err(said)?;
        self.at = range.end;
        Ok(bytes)
    }
}

pub(super) fn whole(field: &Field) -> Parsed<i64> {
    match field {
        Field::Varint(value) => Ok(value.cast_signed()),
        other => Err(format!("{other:?} instead of a whole number")),
    }
}

pub(super) fn range(field: &Field) -> Parsed<Range<u64>> {
    match field {
        Field::Bytes(range) => Ok(range.clone()),
        other => Err(format!("{other:?} instead of bytes")),
    }
}

fn said(error: std::io::Error) -> String {
    format!("the system said: {error}")
}
