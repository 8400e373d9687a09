//! The files of a log: `000001.jsonl` and on, each closed when it is full.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::Error;
use super::line::{Kind, Link, MAX_BYTES};
use super::log::io_error;

pub(super) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:06}.jsonl"))
}

/// All segments of a folder, by number.
pub(super) fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    numbered(folder, "jsonl")
}

/// What stays of deleted segments, by number.
pub(super) fn kept(folder: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    numbered(folder, "kept")
}

fn numbered(folder: &Path, extension: &str) -> Result<Vec<(u64, PathBuf)>, Error> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(io_error("reading", folder)(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io_error("reading", folder))?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_suffix(extension)?.strip_suffix('.'))
            .filter(|digits| digits.len() >= 6 && digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok());
        if let Some(number) =
            number.filter(|&n| path(folder, n).with_extension(extension) == entry.path())
        {
            found.push((number, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The end of a segment.
pub(super) struct Tail {
    /// The last whole line without its end.
    pub(super) line: Vec<u8>,
    /// Bytes after the last end of line.
    pub(super) torn: Vec<u8>,
    /// Length of the segment without them.
    pub(super) end: u64,
}

impl Tail {
    pub(super) fn read(file: &mut File) -> io::Result<Self> {
        let length = file.seek(SeekFrom::End(0))?;
        let mut window = 8 << 10;
        loop {
            let take = length.min(window);
            file.seek(SeekFrom::Start(length - take))?;
            let mut bytes = Vec::with_capacity(take as usize);
            Read::take(&mut *file, take).read_to_end(&mut bytes)?;
            let torn_from = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |n| n + 1);
            let whole = &bytes[..torn_from];
            let line_from = whole[..whole.len().saturating_sub(1)]
                .iter()
                .rposition(|&b| b == b'\n');
            let all = take == length || take > 2 * MAX_BYTES as u64;
            if line_from.is_none() && !all {
                window *= 4;
                continue;
            }
            let line = &whole[line_from.map_or(0, |n| n + 1)..];
            return Ok(Self {
                line: line.strip_suffix(b"\n").unwrap_or(line).to_vec(),
                end: length - (bytes.len() - torn_from) as u64,
                torn: bytes.split_off(torn_from),
            });
        }
    }

    /// The last whole line, if it is one of ours.
    pub(super) fn newest(&self) -> Option<Link<'_>> {
        Link::read(&self.line)
    }
}

/// Highest number of a record in a segment, as its lines state it; 0 when there is none.
pub(super) fn highest_record(path: &Path) -> io::Result<u64> {
    let mut highest = 0;
    Lines::new(File::open(path)?, u64::MAX).each(|line| {
        if let Line::Whole(bytes) = line
            && let Some(link) = Link::read(bytes)
        {
            highest = highest.max(match link.kind {
                Kind::Record | Kind::Checkpoint => link.number,
                Kind::Segment => {
                    let first = link.field("first").and_then(|n| n.parse::<u64>().ok());
                    first.unwrap_or(1).saturating_sub(1)
                }
            });
        }
        true
    })?;
    Ok(highest)
}

/// A piece of a segment.
#[derive(Debug)]
pub(super) enum Line<'a> {
    /// Without its end; empty when it is longer than any line of ours.
    Whole(&'a [u8]),
    /// Bytes after the last end of line.
    Torn(usize),
}

/// Reads a file line by line, with a bound on each.
pub(super) struct Lines {
    reader: BufReader<io::Take<File>>,
}

impl Lines {
    /// Reads the first `bytes` of a file.
    pub(super) fn new(file: File, bytes: u64) -> Self {
        Self {
            reader: BufReader::with_capacity(1 << 18, file.take(bytes)),
        }
    }

    /// Calls `each` until it says `false` or the file ends.
    pub(super) fn each(mut self, mut each: impl FnMut(Line<'_>) -> bool) -> io::Result<()> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut self.reader)
                .take(MAX_BYTES as u64)
                .read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(());
            }
            let go_on = if line.pop_if(|&mut b| b == b'\n').is_some() {
                each(Line::Whole(&line))
            } else if read < MAX_BYTES {
                each(Line::Torn(read))
            } else {
                // Longer than any line of ours: the rest of it is passed over.
                self.reader.skip_until(b'\n')?;
                each(Line::Whole(b""))
            };
            if !go_on {
                return Ok(());
            }
        }
    }
}
