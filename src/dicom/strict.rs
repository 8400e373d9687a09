//! A whole data set, read strictly: for objects of which every attribute matters (SEG).
//!
//! dicom-rs trusts lengths and recurses into sequences. So the bytes are walked first: every
//! length must end inside its parent, nesting is limited. Memory stays at the file's size and a
//! copy of its values.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags, uids};
use dicom_encoding::TransferSyntaxIndex;
use dicom_object::{FileDicomObject, FileMetaTable, InMemDicomObject};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

/// Sequences of segmentations nest five deep.
const DEPTH_LIMIT: usize = 24;
/// A deflated data set may grow to this.
const INFLATED_LIMIT: u64 = 1 << 30;
const UNDEFINED: u32 = u32::MAX;
/// Retired.
const EXPLICIT_VR_BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

/// Why the bytes are refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot be read")]
    Io(#[from] io::Error),
    #[error("no DICOM file with a preamble")]
    NoPreamble,
    #[error("element {0} ends beyond what holds it")]
    PastEnd(Tag),
    #[error("element {0} has an unknown value representation")]
    UnknownVr(Tag),
    #[error("an item or delimiter was expected, {0} found")]
    NoItem(Tag),
    #[error("sequences are nested more than {DEPTH_LIMIT} deep")]
    TooDeep,
    #[error("the deflated data set grows beyond {INFLATED_LIMIT} bytes")]
    Bomb,
    #[error("big endian or an unknown transfer syntax")]
    Syntax,
    #[error("the data set cannot be read")]
    Data(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Reads a file with preamble in any little-endian transfer syntax.
pub(super) fn open(path: &Path) -> Result<FileDicomObject<InMemDicomObject>, Error> {
    let mut bytes = Vec::new();
    let mut file = File::open(path)?;
    let mut start = [0_u8; 132];
    file.read_exact(&mut start).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => Error::NoPreamble,
        _ => e.into(),
    })?;
    if &start[128..] != b"DICM" {
        return Err(Error::NoPreamble);
    }
    bytes.extend_from_slice(b"DICM");
    file.read_to_end(&mut bytes)?;

    let explicit = Walker {
        bytes: &bytes,
        explicit: true,
    };
    let body = explicit.end_of_meta(4)?;
    let meta = FileMetaTable::from_reader(&bytes[..body]).map_err(|e| Error::Data(Box::new(e)))?;
    let uid = meta
        .transfer_syntax()
        .trim_end_matches(['\0', ' '])
        .to_owned();
    let syntax = TransferSyntaxRegistry.get(&uid).ok_or(Error::Syntax)?;
    if uid == EXPLICIT_VR_BIG_ENDIAN {
        return Err(Error::Syntax);
    }
    let (data, syntax) = if uid == uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN {
        let mut inflated = Vec::new();
        let limit = INFLATED_LIMIT.min((bytes.len() as u64).saturating_mul(1032));
        flate2::read::DeflateDecoder::new(&bytes[body..])
            .take(limit + 1)
            .read_to_end(&mut inflated)?;
        if inflated.len() as u64 > limit {
            return Err(Error::Bomb);
        }
        let plain = TransferSyntaxRegistry
            .get(uids::EXPLICIT_VR_LITTLE_ENDIAN)
            .ok_or(Error::Syntax)?;
        (inflated, plain)
    } else {
        bytes.drain(..body);
        (bytes, syntax)
    };
    let walker = Walker {
        bytes: &data,
        explicit: uid != uids::IMPLICIT_VR_LITTLE_ENDIAN,
    };
    walker.data_set(0, Some(data.len()), 0)?;
    let object = InMemDicomObject::read_dataset_with_ts(data.as_slice(), syntax)
        .map_err(|e| Error::Data(Box::new(e)))?;
    Ok(object.with_exact_meta(meta))
}

struct Walker<'a> {
    bytes: &'a [u8],
    explicit: bool,
}

/// What an element's value is made of.
enum Inside {
    Bytes,
    Items,
    /// A sequence of VR UN: written in implicit VR (PS3.5 6.2.2 note 2).
    ImplicitItems,
    /// Encapsulated pixel data.
    Fragments,
}

struct Head {
    tag: Tag,
    inside: Inside,
    /// `None` when undefined.
    length: Option<usize>,
    value: usize,
}

impl Walker<'_> {
    fn tag(&self, at: usize) -> Option<Tag> {
        let b = self.bytes.get(at..at.checked_add(4)?)?;
        Some(Tag(
            u16::from_le_bytes([b[0], b[1]]),
            u16::from_le_bytes([b[2], b[3]]),
        ))
    }

    fn long(&self, at: usize) -> Option<u32> {
        let b = self.bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    fn head(&self, at: usize) -> Result<Head, Error> {
        let tag = self.tag(at).ok_or(Error::PastEnd(Tag(0, 0)))?;
        let past_end = || Error::PastEnd(tag);
        let (vr, length, value) = if self.explicit {
            let letters = self.bytes.get(at + 4..at + 6).ok_or_else(past_end)?;
            let vr = VR::from_binary([letters[0], letters[1]]).ok_or(Error::UnknownVr(tag))?;
            let long = matches!(
                vr,
                VR::OB
                    | VR::OD
                    | VR::OF
                    | VR::OL
                    | VR::OV
                    | VR::OW
                    | VR::SQ
                    | VR::SV
                    | VR::UC
                    | VR::UN
                    | VR::UR
                    | VR::UT
                    | VR::UV
            );
            if long {
                (vr, self.long(at + 8).ok_or_else(past_end)?, at + 12)
            } else {
                let b = self.bytes.get(at + 6..at + 8).ok_or_else(past_end)?;
                (vr, u32::from(u16::from_le_bytes([b[0], b[1]])), at + 8)
            }
        } else {
            let vr = StandardDataDictionary
                .by_tag(tag)
                .map_or(VR::UN, |entry| entry.vr().relaxed());
            (vr, self.long(at + 4).ok_or_else(past_end)?, at + 8)
        };
        let undefined = length == UNDEFINED;
        let inside = if tag == tags::PIXEL_DATA && undefined {
            Inside::Fragments
        } else if vr == VR::UN && undefined {
            Inside::ImplicitItems
        } else if vr == VR::SQ || undefined {
            Inside::Items
        } else {
            Inside::Bytes
        };
        Ok(Head {
            tag,
            inside,
            length: (!undefined).then_some(length as usize),
            value,
        })
    }

    /// End of the group 0002 that starts at `at`.
    fn end_of_meta(&self, mut at: usize) -> Result<usize, Error> {
        while self.tag(at).is_some_and(|tag| tag.0 == 2) {
            let head = self.head(at)?;
            let length = head.length.ok_or(Error::PastEnd(head.tag))?;
            at = self.within(head.tag, head.value, length, self.bytes.len())?;
        }
        Ok(at)
    }

    fn within(&self, tag: Tag, start: usize, length: usize, end: usize) -> Result<usize, Error> {
        start
            .checked_add(length)
            .filter(|&stop| stop <= end.min(self.bytes.len()))
            .ok_or(Error::PastEnd(tag))
    }

    /// Walks elements up to `end`, or up to an item delimiter; returns where the walk stopped.
    fn data_set(&self, mut at: usize, end: Option<usize>, depth: usize) -> Result<usize, Error> {
        if depth > DEPTH_LIMIT {
            return Err(Error::TooDeep);
        }
        let limit = end.unwrap_or(self.bytes.len());
        loop {
            if end == Some(at) {
                return Ok(at);
            }
            let tag = self.tag(at).ok_or(Error::PastEnd(Tag(0, 0)))?;
            if end.is_none() && tag == Tag(0xFFFE, 0xE00D) {
                return self.within(tag, at, 8, limit);
            }
            let head = self.head(at)?;
            at = match (head.inside, head.length) {
                (Inside::Bytes, Some(length)) => {
                    self.within(head.tag, head.value, length, limit)?
                }
                (Inside::Fragments, _) => self.items(head.value, None, limit, None)?,
                (Inside::ImplicitItems, _) => {
                    let implicit = Walker {
                        bytes: self.bytes,
                        explicit: false,
                    };
                    implicit.items(head.value, None, limit, Some(depth + 1))?
                }
                (_, Some(length)) => {
                    let stop = self.within(head.tag, head.value, length, limit)?;
                    self.items(head.value, Some(stop), limit, Some(depth + 1))?
                }
                (_, None) => self.items(head.value, None, limit, Some(depth + 1))?,
            };
        }
    }

    /// Walks items; `depth` is `None` for fragments, which hold bytes.
    fn items(
        &self,
        mut at: usize,
        end: Option<usize>,
        limit: usize,
        depth: Option<usize>,
    ) -> Result<usize, Error> {
        let limit = end.unwrap_or(limit);
        loop {
            if end == Some(at) {
                return Ok(at);
            }
            let tag = self.tag(at).ok_or(Error::PastEnd(Tag(0, 0)))?;
            let length = self.long(at + 4).ok_or(Error::PastEnd(tag))?;
            match (tag, depth) {
                (Tag(0xFFFE, 0xE0DD), _) if end.is_none() => return self.within(tag, at, 8, limit),
                (Tag(0xFFFE, 0xE000), None) => {
                    at = self.within(tag, at + 8, length as usize, limit)?;
                }
                (Tag(0xFFFE, 0xE000), Some(depth)) if length == UNDEFINED => {
                    at = self.data_set(at + 8, None, depth)?;
                    if at > limit {
                        return Err(Error::PastEnd(tag));
                    }
                }
                (Tag(0xFFFE, 0xE000), Some(depth)) => {
                    let stop = self.within(tag, at + 8, length as usize, limit)?;
                    at = self.data_set(at + 8, Some(stop), depth)?;
                }
                _ => return Err(Error::NoItem(tag)),
            }
        }
    }
}
