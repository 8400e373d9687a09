//! Bytes from a file, counted, and never more than there are.

use std::io::{BufReader, Read, Seek};

use super::Fault;

/// A stretch of a file, read from its start to its end.
pub(super) struct Source<R> {
    inner: R,
    read: u64,
    left: u64,
}

impl<R: Read> Source<R> {
    /// The next `left` bytes of `inner`.
    pub(super) fn new(inner: R, left: u64) -> Self {
        Self {
            inner,
            read: 0,
            left,
        }
    }

    /// How many bytes have been read.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    /// How many bytes remain.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// An error at this place.
    pub(super) fn fault(&self, what: impl Into<String>) -> Fault {
        Fault::Pickle {
            what: what.into(),
            at: self.read,
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Fault> {
        self.inner.read_exact(bytes)?;
        self.read += bytes.len() as u64;
        self.left -= bytes.len() as u64;
        Ok(())
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        if self.left < N as u64 {
            return Err(self.fault("an early end"));
        }
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// The next `length` bytes; none are taken from memory before they are known to exist.
    pub(super) fn bytes(&mut self, length: u64) -> Result<Vec<u8>, Fault> {
        if length > self.left {
            let left = self.left;
            return Err(self.fault(format!("{length} bytes declared where {left} are left")));
        }
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Bytes up to a line feed, which is dropped.
    pub(super) fn line(&mut self, longest: usize) -> Result<Vec<u8>, Fault> {
        let mut line = Vec::new();
        loop {
            let [byte] = self.array()?;
            if byte == b'\n' {
                return Ok(line);
            }
            if line.len() == longest {
                return Err(self.fault(format!("a line of more than {longest} bytes")));
            }
            line.push(byte);
        }
    }
}

impl<R: Read + Seek> Source<BufReader<R>> {
    /// Passes over the next `length` bytes.
    pub(super) fn skip(&mut self, length: u64) -> Result<(), Fault> {
        if length > self.left {
            let left = self.left;
            return Err(self.fault(format!("{length} bytes declared where {left} are left")));
        }
        self.inner.seek_relative(length.cast_signed())?;
        self.read += length;
        self.left -= length;
        Ok(())
    }
}

/// Text of a file as it may be shown: without control characters, at most 120 characters.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .take(120)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
