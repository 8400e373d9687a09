//! The ZIP form: stored entries below one folder: `data.pkl`, `data/KEY`, `version`, `byteorder`.
//!
//! Only the directory is read here; entries are byte ranges of the file. Every range lies inside the
//! file and no two overlap.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Seek, SeekFrom};

use super::build::Storages;
use super::source::{Source, printable};
use super::{Fault, Value, machine};

const END: [u8; 4] = *b"PK\x05\x06";
const END_LENGTH: u64 = 22;
const LONGEST_COMMENT: u64 = 0xffff;
const DIRECTORY_ENTRY: [u8; 4] = *b"PK\x01\x02";
const LOCAL_HEADER: [u8; 4] = *b"PK\x03\x04";
const WIDE_LOCATOR: [u8; 4] = *b"PK\x06\x07";
const WIDE_END: [u8; 4] = *b"PK\x06\x06";
const LARGEST_DIRECTORY: u64 = 64 << 20;

/// A byte range of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: u64,
    pub(super) length: u64,
}

/// Entries by their name below the archive's folder.
#[derive(Debug)]
pub(super) struct Archive {
    entries: BTreeMap<String, Range>,
    length: u64,
}

fn damaged(what: impl Into<String>) -> Fault {
    Fault::Archive(what.into())
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn read_at<const N: usize>(file: &mut (impl Read + Seek), at: u64) -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut bytes).map_err(|e| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => damaged("an early end"),
        _ => Fault::Io(e),
    })?;
    Ok(bytes)
}

/// Where the directory lies and how many entries it has.
struct Directory {
    range: Range,
    count: u64,
}

impl Archive {
    /// The entries of a file of `length` bytes; `None` when the file is no ZIP archive.
    pub(super) fn read(file: &mut (impl Read + Seek), length: u64) -> Result<Option<Self>, Fault> {
        if length < 4 {
            return Err(Fault::NotACheckpoint("shorter than 4 bytes"));
        }
        if read_at::<4>(file, 0)? != LOCAL_HEADER {
            return Ok(None);
        }
        let directory = find_directory(file, length)?;
        let entries = read_entries(file, &directory)?;
        Ok(Some(Self {
            entries: below_one_folder(entries)?,
            length,
        }))
    }

    fn small_text(
        &self,
        file: &mut (impl Read + Seek),
        name: &str,
    ) -> Result<Option<String>, Fault> {
        let Some(&range) = self.entries.get(name) else {
            return Ok(None);
        };
        if range.length > 64 {
            return Err(damaged(format!("{name} has {} bytes", range.length)));
        }
        file.seek(SeekFrom::Start(range.start))?;
        let bytes = Source::new(file, range.length).bytes(range.length)?;
        Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned()))
    }

    /// What `data.pkl` holds.
    pub(super) fn root(&self, file: &mut (impl Read + Seek)) -> Result<Value, Fault> {
        if self.entries.contains_key("constants.pkl")
            || self.entries.keys().any(|name| name.starts_with("code/"))
        {
            return Err(Fault::TorchScript);
        }
        let Some(&pickle) = self.entries.get("data.pkl") else {
            return Err(Fault::NotACheckpoint("the archive has no data.pkl"));
        };
        if let Some(order) = self.small_text(file, "byteorder")?
            && order != "little"
        {
            return Err(damaged(format!(
                "the byte order is {}, only little is read",
                printable(&order)
            )));
        }
        file.seek(SeekFrom::Start(pickle.start))?;
        let mut source = Source::new(BufReader::new(file), pickle.length);
        let mut storages = Storages::of_archive(&self.entries);
        let value = machine::run(&mut source, &mut storages, self.length)?;
        if source.left() > 0 {
            return Err(source.fault(format!("{} bytes after the end", source.left())));
        }
        value.finish(&storages, self.length)
    }
}

fn find_directory(file: &mut (impl Read + Seek), length: u64) -> Result<Directory, Fault> {
    let tail_length = length.min(END_LENGTH + LONGEST_COMMENT);
    if tail_length < END_LENGTH {
        return Err(damaged("no directory"));
    }
    let tail_start = length - tail_length;
    file.seek(SeekFrom::Start(tail_start))?;
    let tail = Source::new(&mut *file, tail_length).bytes(tail_length)?;
    let at = (0..=tail.len() - END_LENGTH as usize)
        .rev()
        .find(|&at| {
            tail[at..at + 4] == END
                && at + END_LENGTH as usize + u16_at(&tail, at + 20) as usize == tail.len()
        })
        .ok_or_else(|| damaged("no directory at the end"))?;
    let end = &tail[at..];
    let mut closes_at = tail_start + at as u64;
    let (mut disks, mut count, mut size, mut offset) = (
        u64::from(u16_at(end, 4)) | u64::from(u16_at(end, 6)),
        u64::from(u16_at(end, 10)),
        u64::from(u32_at(end, 12)),
        u64::from(u32_at(end, 16)),
    );
    if closes_at >= 20 && (count == 0xffff || size == 0xffff_ffff || offset == 0xffff_ffff) {
        let locator = read_at::<20>(file, closes_at - 20)?;
        if locator[..4] == WIDE_LOCATOR {
            let wide_at = u64_at(&locator, 8);
            if wide_at.checked_add(56).is_none_or(|e| e > closes_at - 20) {
                return Err(damaged("the directory lies outside"));
            }
            let wide = read_at::<56>(file, wide_at)?;
            if wide[..4] != WIDE_END {
                return Err(damaged("no wide directory where the file says"));
            }
            closes_at = wide_at;
            disks = u64::from(u32_at(&wide, 16)) | u64::from(u32_at(&wide, 20));
            count = u64_at(&wide, 32);
            size = u64_at(&wide, 40);
            offset = u64_at(&wide, 48);
        }
    }
    if disks != 0 {
        return Err(damaged("it spans several files"));
    }
    if offset.checked_add(size).is_none_or(|end| end > closes_at) {
        return Err(damaged("the directory lies outside"));
    }
    if size > LARGEST_DIRECTORY || count > size / 46 {
        return Err(damaged(format!(
            "a directory of {count} entries in {size} bytes"
        )));
    }
    Ok(Directory {
        range: Range {
            start: offset,
            length: size,
        },
        count,
    })
}

struct Entry {
    name: String,
    header: u64,
    data: Range,
}

fn read_entries(file: &mut (impl Read + Seek), directory: &Directory) -> Result<Vec<Entry>, Fault> {
    file.seek(SeekFrom::Start(directory.range.start))?;
    let bytes = Source::new(&mut *file, directory.range.length).bytes(directory.range.length)?;
    let mut entries = Vec::new();
    let mut rest = bytes.as_slice();
    for _ in 0..directory.count {
        if rest.len() < 46 || rest[..4] != DIRECTORY_ENTRY {
            return Err(damaged("a directory entry is missing"));
        }
        let (flags, method) = (u16_at(rest, 8), u16_at(rest, 10));
        let (name_length, extra_length, comment_length) = (
            u16_at(rest, 28) as usize,
            u16_at(rest, 30) as usize,
            u16_at(rest, 32) as usize,
        );
        let whole = 46 + name_length + extra_length + comment_length;
        if rest.len() < whole {
            return Err(damaged("a directory entry is cut"));
        }
        let name = std::str::from_utf8(&rest[46..46 + name_length])
            .map_err(|_| damaged("a name that is not UTF-8"))?;
        safe_name(name)?;
        if flags & 1 != 0 {
            return Err(damaged(format!("{} is encrypted", printable(name))));
        }
        // The only compressed entries that PyTorch writes are programs.
        if method != 0 && name.contains("/code/") {
            return Err(Fault::TorchScript);
        }
        if method != 0 {
            return Err(damaged(format!(
                "{} is compressed (method {method}), only stored entries are read",
                printable(name)
            )));
        }
        let mut packed = u64::from(u32_at(rest, 20));
        let mut length = u64::from(u32_at(rest, 24));
        let mut header = u64::from(u32_at(rest, 42));
        let extra = &rest[46 + name_length..46 + name_length + extra_length];
        widen(extra, [&mut length, &mut packed, &mut header])?;
        if packed != length {
            return Err(damaged(format!(
                "{} is stored in {packed} bytes but has {length}",
                printable(name)
            )));
        }
        let start = data_start(file, header, name, directory.range.start)?;
        if start
            .checked_add(length)
            .is_none_or(|end| end > directory.range.start)
        {
            return Err(damaged(format!(
                "{} declares {length} bytes, which the file does not have",
                printable(name)
            )));
        }
        entries.push(Entry {
            name: name.to_owned(),
            header,
            data: Range { start, length },
        });
        rest = &rest[whole..];
    }
    if !rest.is_empty() {
        return Err(damaged("the directory has more entries than it counts"));
    }
    let mut by_place: Vec<&Entry> = entries.iter().collect();
    by_place.sort_by_key(|e| e.header);
    for pair in by_place.windows(2) {
        if pair[0].data.start + pair[0].data.length > pair[1].header {
            return Err(damaged(format!(
                "{} and {} overlap",
                printable(&pair[0].name),
                printable(&pair[1].name)
            )));
        }
    }
    Ok(entries)
}

/// Takes the 64-bit sizes and offset of the extra field for those that are marked as too large.
fn widen(mut extra: &[u8], fields: [&mut u64; 3]) -> Result<(), Fault> {
    if fields.iter().all(|f| **f != 0xffff_ffff) {
        return Ok(());
    }
    while extra.len() >= 4 {
        let (kind, length) = (u16_at(extra, 0), u16_at(extra, 2) as usize);
        let Some(body) = extra.get(4..4 + length) else {
            break;
        };
        if kind == 1 {
            let mut wide = body.chunks_exact(8);
            for field in fields {
                if *field == 0xffff_ffff {
                    let value = wide.next().ok_or_else(|| damaged("a wide size is cut"))?;
                    *field = u64_at(value, 0);
                }
            }
            return Ok(());
        }
        extra = &extra[4 + length..];
    }
    Err(damaged("a wide size is missing"))
}

/// Where an entry's bytes start: behind its own header, which must carry the same name.
fn data_start(
    file: &mut (impl Read + Seek),
    header: u64,
    name: &str,
    limit: u64,
) -> Result<u64, Fault> {
    let missing = || damaged(format!("{} lies outside", printable(name)));
    let name_start = header.checked_add(30).ok_or_else(missing)?;
    let name_end = name_start
        .checked_add(name.len() as u64)
        .ok_or_else(missing)?;
    if name_end > limit {
        return Err(missing());
    }
    let local = read_at::<30>(file, header)?;
    if local[..4] != LOCAL_HEADER {
        return Err(damaged(format!("{} has no header", printable(name))));
    }
    let (name_length, extra_length) = (u16_at(&local, 26), u16_at(&local, 28));
    let mut own_name = vec![0; name.len()];
    file.read_exact(&mut own_name)?;
    if usize::from(name_length) != name.len() || own_name != name.as_bytes() {
        return Err(damaged(format!(
            "{} goes by another name in its header",
            printable(name)
        )));
    }
    if u16_at(&local, 8) != 0 || u16_at(&local, 6) & 1 != 0 {
        return Err(damaged(format!(
            "{} is stored in its directory entry only",
            printable(name)
        )));
    }
    Ok(name_end + u64::from(extra_length))
}

/// Nothing is ever unpacked to these names; a name that tries to lead out is still no checkpoint's.
fn safe_name(name: &str) -> Result<(), Fault> {
    let leads_out = name.starts_with('/')
        || name.contains(['\\', ':', '\0'])
        || name.split('/').any(|part| part == ".." || part == ".");
    if leads_out || name.is_empty() {
        return Err(damaged(format!(
            "the entry name {} leads out of the archive",
            printable(name)
        )));
    }
    Ok(())
}

/// Drops the folder that all entries share (`archive/`, or the name under which it was saved).
fn below_one_folder(entries: Vec<Entry>) -> Result<BTreeMap<String, Range>, Fault> {
    let mut below = BTreeMap::new();
    let mut folder: Option<String> = None;
    for entry in entries {
        let Some((first, inside)) = entry.name.split_once('/') else {
            return Err(Fault::NotACheckpoint(
                "the archive's entries lie in no folder",
            ));
        };
        if folder.get_or_insert_with(|| first.to_owned()) != first {
            return Err(Fault::NotACheckpoint("the archive has several folders"));
        }
        if below.insert(inside.to_owned(), entry.data).is_some() {
            return Err(damaged(format!(
                "{} is there twice",
                printable(&entry.name)
            )));
        }
    }
    Ok(below)
}
