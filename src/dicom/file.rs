//! From a file's bytes to a checked header and the place of its pixels.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use dicom_dictionary_std::tags;
use dicom_encoding::TransferSyntaxIndex;
use dicom_object::InMemDicomObject;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use super::error::Error;
use super::structure::{Encoding, Structure, check};
use crate::study::FileSource;

/// Bytes read at first when only the header is wanted.
const HEAD: usize = 64 << 10;
/// A header longer than this is not an image's.
const LONGEST_HEADER: usize = 256 << 20;
/// Deflate makes at most about 1000 bytes of one; headers and images stay far below.
const INFLATE_RATIO: u64 = 200;

/// Explicit VR little endian.
pub const EXPLICIT_LE: &str = "1.2.840.10008.1.2.1";
const IMPLICIT_LE: &str = "1.2.840.10008.1.2";
const EXPLICIT_BE: &str = "1.2.840.10008.1.2.2";
const DEFLATED: &str = "1.2.840.10008.1.2.1.99";

/// A checked file. `data` is the data set without file meta (inflated when it was deflated);
/// with only the header read, pixel ranges may be empty.
pub struct ParsedFile {
    /// Elements before the pixels.
    pub header: InMemDicomObject,
    /// Transfer Syntax UID.
    pub transfer_syntax: String,
    /// The data set.
    pub data: Vec<u8>,
    /// Where pixels lie in `data`.
    pub structure: Structure,
    /// Byte order of native pixels.
    pub big_endian: bool,
}

/// Reads a source: up to the pixels, or all of it.
///
/// # Errors
/// [`Error::Io`] and [`Error::File`].
pub fn open(source: &FileSource, whole: bool) -> Result<ParsedFile, Error> {
    let path = source.to_string();
    let bytes = match source {
        FileSource::Path(file) => {
            let io = |source| Error::Io {
                source,
                path: path.clone(),
            };
            let mut file = File::open(file).map_err(io)?;
            let size = file.metadata().map_err(io)?.len();
            let mut wanted = if whole { u64::MAX } else { HEAD as u64 };
            let mut bytes = Vec::new();
            loop {
                file.seek(SeekFrom::Start(bytes.len() as u64)).map_err(io)?;
                let more = wanted.saturating_sub(bytes.len() as u64);
                (&mut file).take(more).read_to_end(&mut bytes).map_err(io)?;
                let complete = bytes.len() as u64 >= size || whole;
                match parse(&bytes, complete).map_err(|reason| Error::File {
                    reason,
                    path: path.clone(),
                })? {
                    Some(_) if whole => break bytes,
                    Some(parsed) => return finish(parsed, bytes, &path),
                    None if complete || bytes.len() > LONGEST_HEADER => {
                        let reason = "no end of the header was found".to_owned();
                        return Err(Error::File { reason, path });
                    }
                    None => wanted = (bytes.len() as u64) * 8,
                }
            }
        }
        FileSource::Zip { archive, index, .. } => {
            super::archive::member(archive, *index).map_err(|reason| Error::File {
                reason,
                path: path.clone(),
            })?
        }
    };
    from_bytes(bytes, &path)
}

/// Reads a file that is in memory.
///
/// # Errors
/// [`Error::File`].
pub fn from_bytes(bytes: Vec<u8>, path: &str) -> Result<ParsedFile, Error> {
    let file = |reason: String| Error::File {
        reason,
        path: path.to_owned(),
    };
    let parsed = parse(&bytes, true).map_err(file)?;
    let parsed = parsed.ok_or_else(|| file("no end of the header was found".to_owned()))?;
    finish(parsed, bytes, path)
}

struct Outline {
    transfer_syntax: String,
    /// Start of the data set in the file.
    start: usize,
    /// The inflated data set.
    inflated: Option<Vec<u8>>,
    structure: Structure,
    encoding: Encoding,
}

fn finish(outline: Outline, mut bytes: Vec<u8>, path: &str) -> Result<ParsedFile, Error> {
    let data = outline.inflated.unwrap_or_else(|| {
        bytes.drain(..outline.start);
        bytes
    });
    let uid = match (outline.encoding.explicit, outline.encoding.big_endian) {
        (true, false) => EXPLICIT_LE,
        (true, true) => EXPLICIT_BE,
        (false, _) => IMPLICIT_LE,
    };
    let syntax = TransferSyntaxRegistry
        .get(uid)
        .expect("the registry holds the three plain syntaxes");
    let header =
        InMemDicomObject::read_dataset_with_ts(&data[..outline.structure.header_end], syntax)
            .map_err(|error| Error::File {
                reason: format!("the header cannot be parsed ({})", innermost(&error)),
                path: path.to_owned(),
            })?;
    Ok(ParsedFile {
        header,
        transfer_syntax: outline.transfer_syntax,
        data,
        structure: outline.structure,
        big_endian: outline.encoding.big_endian,
    })
}

/// The last cause of an error, which says most.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// File meta and structure; `None` when more bytes are needed.
fn parse(bytes: &[u8], complete: bool) -> Result<Option<Outline>, String> {
    if bytes.is_empty() {
        return Err("an empty file".to_owned());
    }
    let meta = if bytes.len() >= 132 && &bytes[128..132] == b"DICM" {
        132
    } else if bytes.starts_with(&[2, 0, 0, 0]) || bytes.starts_with(&[2, 0, 0x10, 0]) {
        0
    } else {
        return without_meta(bytes, complete);
    };
    let (transfer_syntax, start) = file_meta(bytes, meta)?;
    let encoding = match transfer_syntax.as_str() {
        IMPLICIT_LE => Encoding {
            explicit: false,
            big_endian: false,
        },
        EXPLICIT_BE => Encoding {
            explicit: true,
            big_endian: true,
        },
        _ => Encoding {
            explicit: true,
            big_endian: false,
        },
    };
    let data = &bytes[start..];
    if transfer_syntax == DEFLATED {
        if !complete {
            return Ok(None);
        }
        let inflated = inflate(data)?;
        let structure = check(&inflated, encoding, true)?;
        return Ok(structure.map(|structure| Outline {
            transfer_syntax,
            start,
            inflated: Some(inflated),
            structure,
            encoding,
        }));
    }
    let structure = check(data, encoding, complete)?;
    Ok(structure.map(|structure| Outline {
        transfer_syntax,
        start,
        inflated: None,
        structure,
        encoding,
    }))
}

/// Old files without preamble and file meta: a data set that starts with group 0008.
fn without_meta(bytes: &[u8], complete: bool) -> Result<Option<Outline>, String> {
    let starts = |group: u16| bytes.len() >= 8 && u16::from_le_bytes([bytes[0], bytes[1]]) == group;
    if !starts(8) {
        return Err("not a DICOM file".to_owned());
    }
    let explicit = bytes[4..6].iter().all(u8::is_ascii_uppercase);
    let encoding = Encoding {
        explicit,
        big_endian: false,
    };
    let structure = check(bytes, encoding, complete).map_err(|_| "not a DICOM file".to_owned())?;
    let uid = if explicit { EXPLICIT_LE } else { IMPLICIT_LE };
    Ok(structure.map(|structure| Outline {
        transfer_syntax: uid.to_owned(),
        start: 0,
        inflated: None,
        structure,
        encoding,
    }))
}

/// Transfer Syntax UID and the start of the data set. The group length is not believed: the
/// meta group ends where another group begins.
fn file_meta(bytes: &[u8], start: usize) -> Result<(String, usize), String> {
    let mut at = start;
    let mut syntax = None;
    loop {
        let Some(head) = bytes.get(at..at + 8) else {
            return Err("the file ends inside the file meta group".to_owned());
        };
        if head[..2] != [2, 0] {
            break;
        }
        let long = matches!(&head[4..6], b"OB" | b"UN" | b"OW" | b"UT");
        let (length, value) = if long {
            let Some(length) = bytes.get(at + 8..at + 12) else {
                return Err("the file ends inside the file meta group".to_owned());
            };
            (
                u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize,
                at + 12,
            )
        } else {
            (usize::from(u16::from_le_bytes([head[6], head[7]])), at + 8)
        };
        let end = value.saturating_add(length);
        let Some(value) = bytes.get(value..end) else {
            return Err("the file ends inside the file meta group".to_owned());
        };
        if head[2..4] == [0x10, 0] {
            let text = String::from_utf8_lossy(value);
            syntax = Some(
                text.trim_matches(|c: char| c == '\0' || c.is_whitespace())
                    .to_owned(),
            );
        }
        at = end;
    }
    let syntax = syntax.ok_or("the file meta group names no transfer syntax")?;
    Ok((syntax, at))
}

fn inflate(data: &[u8]) -> Result<Vec<u8>, String> {
    let limit = (data.len() as u64)
        .saturating_mul(INFLATE_RATIO)
        .saturating_add(1 << 20);
    let mut out = Vec::new();
    let mut reader = flate2::read::DeflateDecoder::new(data).take(limit);
    reader
        .read_to_end(&mut out)
        .map_err(|_| "the deflated data set is damaged".to_owned())?;
    if out.len() as u64 >= limit {
        return Err(format!(
            "the deflated data set grows beyond {INFLATE_RATIO} times its size"
        ));
    }
    Ok(out)
}

impl ParsedFile {
    /// SOP Class UID text.
    pub fn sop_class(&self) -> Option<String> {
        super::attributes::text(&self.header, tags::SOP_CLASS_UID)
    }
}
