//! A parsed data set and typed access to its values.

use std::ops::Range;
use std::sync::Arc;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;

use super::charset::CharacterSets;
use super::error::Error;
use super::parse::{self, Element, Encoding, Outcome, PixelElement, Value};
use super::syntax::Syntax;
use crate::geometry::DVec3;
use crate::study::Uid;

/// Inflated size that is always allowed, and the ratio allowed beyond it.
const INFLATE_FLOOR: u64 = 64 << 20;
const INFLATE_RATIO: u64 = 100;

/// A data set up to its pixel data, with the bytes it was parsed from.
#[derive(Debug)]
pub(super) struct Dataset {
    /// The file, or its beginning; for deflated files the inflated data set.
    pub bytes: Arc<Vec<u8>>,
    /// Length of the whole file (of `bytes` when deflated).
    pub total: u64,
    elements: Vec<Element>,
    pub syntax: Syntax,
    pub encoding: Encoding,
    pub pixels: Option<PixelElement>,
    pub truncated: Option<Error>,
    charset: CharacterSets,
    /// Media Storage SOP Class and Instance UID of the file meta group.
    pub meta_sop: [Option<Uid>; 2],
}

/// The file meta group, as far as reading needs it.
#[derive(Default)]
struct Meta {
    syntax: Option<String>,
    sop: [Option<Uid>; 2],
    end: usize,
}

/// What [`Dataset::read`] needs more bytes for.
pub(super) enum Read {
    Done(Box<Dataset>),
    NeedMore,
}

impl Dataset {
    /// Parses the whole bytes of a file.
    pub fn from_file(bytes: Vec<u8>) -> Result<Self, Error> {
        let total = bytes.len() as u64;
        match Self::read(bytes, total)?.0 {
            Read::Done(dataset) => Ok(*dataset),
            Read::NeedMore => unreachable!("the whole file was given"),
        }
    }

    /// Parses the beginning of a file of `total` bytes; gives the bytes back when they are too few.
    pub fn read(bytes: Vec<u8>, total: u64) -> Result<(Read, Vec<u8>), Error> {
        let whole = bytes.len() as u64 >= total;
        let start = if bytes.get(128..132) == Some(b"DICM") {
            132
        } else if !whole && bytes.len() < 132 {
            return Ok((Read::NeedMore, bytes));
        } else {
            0
        };
        if bytes.is_empty() {
            return Err(Error::NotDicom {
                found: "an empty file",
            });
        }
        let has_meta = bytes
            .get(start..start + 4)
            .is_some_and(|b| b[..2] == [2, 0]);
        let meta = if has_meta {
            match read_meta(&bytes, start, total)? {
                Some(meta) => meta,
                None => return Ok((Read::NeedMore, bytes)),
            }
        } else {
            Meta {
                end: start,
                ..Meta::default()
            }
        };
        let at = meta.end;
        let declared = meta.syntax.as_deref().map(Syntax::from_uid);
        if start == 0 && !has_meta {
            looks_like_data_set(&bytes)?;
        }
        if let Some(Syntax::Deflated) = declared {
            if !whole {
                return Ok((Read::NeedMore, bytes));
            }
            let inflated = inflate(&bytes[at..], bytes.len() as u64)?;
            let total = inflated.len() as u64;
            let encoding = Encoding::EXPLICIT_LE;
            return Self::parse(inflated, 0, total, encoding, Syntax::Deflated, meta.sop);
        }
        let guessed = guess_encoding(bytes.get(at..).unwrap_or_default());
        let encoding = match (&declared, guessed) {
            // The first element shows what the data set really is.
            (Some(syntax), Some(guess)) if guess.explicit != syntax.encoding().explicit => guess,
            (Some(syntax), _) => syntax.encoding(),
            (None, Some(guess)) => guess,
            (None, None) => Encoding::IMPLICIT_LE,
        };
        let syntax = declared.unwrap_or_else(|| Syntax::native(encoding));
        Self::parse(bytes, at, total, encoding, syntax, meta.sop)
    }

    fn parse(
        bytes: Vec<u8>,
        at: usize,
        total: u64,
        encoding: Encoding,
        syntax: Syntax,
        meta_sop: [Option<Uid>; 2],
    ) -> Result<(Read, Vec<u8>), Error> {
        let parsed = match parse::parse(&bytes, at, total, encoding)? {
            Outcome::Done(parsed) => parsed,
            Outcome::NeedMore => return Ok((Read::NeedMore, bytes)),
        };
        let mut dataset = Self {
            bytes: Arc::new(bytes),
            total,
            elements: parsed.elements,
            syntax,
            encoding,
            pixels: parsed.pixels,
            truncated: parsed.truncated,
            charset: CharacterSets::default(),
            meta_sop,
        };
        let names = dataset.root().text(tags::SPECIFIC_CHARACTER_SET);
        dataset.charset = CharacterSets::new(&names.unwrap_or_default());
        Ok((Read::Done(Box::new(dataset)), Vec::new()))
    }

    /// The data set itself as an item.
    pub fn root(&self) -> Item<'_> {
        Item {
            dataset: self,
            elements: &self.elements,
        }
    }

    /// The elements themselves and the character sets, for writing them again.
    pub fn into_parts(self) -> (Arc<Vec<u8>>, Vec<Element>, CharacterSets) {
        (self.bytes, self.elements, self.charset)
    }
}

/// The data set or an item of a sequence.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    dataset: &'a Dataset,
    elements: &'a [Element],
}

impl<'a> Item<'a> {
    fn find(&self, tag: Tag) -> Option<&'a Element> {
        let at = self.elements.partition_point(|e| e.tag < tag);
        self.elements.get(at).filter(|e| e.tag == tag)
    }

    /// Whether the element exists, empty or not.
    pub fn has(&self, tag: Tag) -> bool {
        self.find(tag).is_some()
    }

    /// VR of an element.
    pub fn vr(&self, tag: Tag) -> Option<VR> {
        self.find(tag).map(|e| e.vr)
    }

    /// Raw bytes of a value.
    pub fn bytes(&self, tag: Tag) -> Option<&'a [u8]> {
        match &self.find(tag)?.value {
            Value::Bytes(range) => self.dataset.bytes.get(Range::clone(range)),
            Value::Items(_) => None,
        }
    }

    /// Items of a sequence; none when it is absent.
    pub fn items(&self, tag: Tag) -> impl Iterator<Item = Item<'a>> + use<'a> {
        let items: &'a [Vec<Element>] = match self.find(tag).map(|e| &e.value) {
            Some(Value::Items(items)) => items,
            _ => &[],
        };
        let dataset = self.dataset;
        items.iter().map(move |elements| Item { dataset, elements })
    }

    /// First item of a sequence.
    pub fn item(&self, tag: Tag) -> Option<Item<'a>> {
        self.items(tag).next()
    }

    /// 16-bit words of a value.
    pub fn words(&self, tag: Tag) -> Vec<u16> {
        let enc = self.value_encoding();
        let bytes = self.bytes(tag).unwrap_or_default();
        bytes.chunks_exact(2).map(|b| enc.u16(b)).collect()
    }

    /// Text in the data set's character set, padding trimmed; `None` when absent or empty.
    pub fn text(&self, tag: Tag) -> Option<String> {
        let bytes = self.bytes(tag)?;
        let text = self.dataset.charset.decode(bytes);
        let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// Text for a single line on screen: control characters out, at most 256 characters.
    pub fn line(&self, tag: Tag) -> String {
        self.text(tag)
            .unwrap_or_default()
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(256)
            .collect()
    }

    /// Values of a backslash-separated text, each trimmed.
    pub fn texts(&self, tag: Tag) -> Vec<String> {
        self.text(tag).map_or_else(Vec::new, |text| {
            text.split('\\').map(|v| v.trim().to_owned()).collect()
        })
    }

    /// A value as text, whatever its VR: for comparing, not for people.
    pub fn text_or_number(&self, tag: Tag) -> Option<String> {
        let numeric = matches!(
            self.vr(tag)?,
            VR::FD | VR::FL | VR::US | VR::SS | VR::UL | VR::SL
        );
        if !numeric {
            return self.text(tag);
        }
        let numbers: Vec<String> = self.numbers(tag).iter().map(f64::to_string).collect();
        (!numbers.is_empty()).then(|| numbers.join(" "))
    }

    /// A UID, when it has the form of one.
    pub fn uid(&self, tag: Tag) -> Option<Uid> {
        let bytes = self.bytes(tag)?;
        Uid::parse(std::str::from_utf8(bytes).ok()?).ok()
    }

    /// Numbers of any numeric VR (or decimal text); values that are no number become NaN.
    pub fn numbers(&self, tag: Tag) -> Vec<f64> {
        let Some(element) = self.find(tag) else {
            return Vec::new();
        };
        let Some(bytes) = self.bytes(tag) else {
            return Vec::new();
        };
        let enc = self.value_encoding();
        let long = |b: &[u8]| {
            let (a, z) = (enc.u32(b), enc.u32(&b[4..]));
            if enc.big_endian {
                u64::from(a) << 32 | u64::from(z)
            } else {
                u64::from(z) << 32 | u64::from(a)
            }
        };
        match element.vr {
            VR::US | VR::OW => each(bytes, 2, |b| f64::from(enc.u16(b))),
            VR::SS => each(bytes, 2, |b| f64::from(enc.u16(b) as i16)),
            VR::UL | VR::OL => each(bytes, 4, |b| f64::from(enc.u32(b))),
            VR::SL => each(bytes, 4, |b| f64::from(enc.u32(b) as i32)),
            VR::FL | VR::OF => each(bytes, 4, |b| f64::from(f32::from_bits(enc.u32(b)))),
            VR::FD | VR::OD => each(bytes, 8, |b| f64::from_bits(long(b))),
            VR::UV | VR::OV => each(bytes, 8, |b| long(b) as f64),
            VR::SV => each(bytes, 8, |b| long(b) as i64 as f64),
            VR::OB => bytes.iter().map(|&b| f64::from(b)).collect(),
            VR::DS | VR::IS | VR::UN | VR::LO | VR::SH | VR::CS => {
                let text = String::from_utf8_lossy(bytes);
                let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
                if text.is_empty() {
                    return Vec::new();
                }
                text.split('\\')
                    .map(|v| {
                        // Some writers use a comma for the decimal point.
                        let v = v.trim_matches(|c: char| c == '\0' || c.is_whitespace());
                        v.parse()
                            .or_else(|_| v.replace(',', ".").parse())
                            .unwrap_or(f64::NAN)
                    })
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    /// First number, if finite.
    pub fn number(&self, tag: Tag) -> Option<f64> {
        self.numbers(tag).first().copied().filter(|x| x.is_finite())
    }

    /// First number as an integer.
    pub fn integer(&self, tag: Tag) -> Option<i64> {
        self.number(tag).map(|x| x as i64)
    }

    /// Three finite numbers.
    pub fn vector(&self, tag: Tag) -> Option<DVec3> {
        match self.numbers(tag)[..] {
            [x, y, z, ..] => Some(DVec3::new(x, y, z)).filter(|v| v.is_finite()),
            _ => None,
        }
    }

    fn value_encoding(&self) -> Encoding {
        // Items inside a sequence of VR UN are little endian, as is every syntax but one.
        self.dataset.encoding
    }
}

fn each(bytes: &[u8], size: usize, value: impl Fn(&[u8]) -> f64) -> Vec<f64> {
    bytes.chunks_exact(size).map(value).collect()
}

/// Reads the meta group; `None` when the buffer is too short.
fn read_meta(bytes: &[u8], start: usize, total: u64) -> Result<Option<Meta>, Error> {
    // The group length is often wrong: go on while the group is 0002.
    let mut pos = start;
    let mut meta = Meta::default();
    loop {
        if bytes.len() < pos + 12 {
            if (bytes.len() as u64) < total {
                return Ok(None);
            }
            meta.end = pos.min(bytes.len());
            return Ok(Some(meta));
        }
        let b = &bytes[pos..];
        if b[..2] != [2, 0] {
            meta.end = pos;
            return Ok(Some(meta));
        }
        let long = matches!(&b[4..6], b"OB" | b"UN" | b"OW" | b"UT" | b"SQ");
        let explicit = b[4..6].iter().all(u8::is_ascii_uppercase);
        let u32_at = |n: usize| u32::from_le_bytes([b[n], b[n + 1], b[n + 2], b[n + 3]]);
        let (size, length) = if !explicit {
            (8, u32_at(4))
        } else if long {
            (12, u32_at(8))
        } else {
            (8, u32::from(u16::from_le_bytes([b[6], b[7]])))
        };
        let value_at = pos + size;
        let end = value_at as u64 + u64::from(length);
        if end > total {
            return Err(Error::Truncated {
                tag: parse::tag_text(Tag(2, u16::from_le_bytes([b[2], b[3]]))),
                declared: u64::from(length),
                available: total.saturating_sub(value_at as u64),
            });
        }
        if end > bytes.len() as u64 {
            return Ok(None);
        }
        let uid = || {
            let value = &bytes[value_at..end as usize];
            Uid::parse(std::str::from_utf8(value).ok()?).ok()
        };
        match b[2] {
            0x02 if b[3] == 0 => meta.sop[0] = uid(),
            0x03 if b[3] == 0 => meta.sop[1] = uid(),
            0x10 if b[3] == 0 => meta.syntax = uid().map(String::from),
            _ => {}
        }
        pos = end as usize;
    }
}

/// Refuses files without `DICM` whose first bytes cannot be a data set, saying what they look like.
fn looks_like_data_set(bytes: &[u8]) -> Result<(), Error> {
    let known: [(&[u8], &'static str); 8] = [
        (b"%PDF", "a PDF document"),
        (b"\x89PNG", "a PNG image"),
        (b"\xFF\xD8\xFF", "a JPEG image"),
        (b"GIF8", "a GIF image"),
        (b"\x1F\x8B", "a gzip file"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"{", "JSON text"),
        (b"<", "XML or HTML text"),
    ];
    if let Some((_, found)) = known.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Err(Error::NotDicom { found });
    }
    if guess_encoding(bytes).is_some() {
        return Ok(());
    }
    let sample = &bytes[..bytes.len().min(512)];
    let found = if sample.iter().all(|&b| b == 0) {
        "zero bytes"
    } else if sample
        .iter()
        .all(|&b| b.is_ascii_graphic() || b.is_ascii_whitespace())
    {
        "text"
    } else {
        "no DICM mark and no data set at the start"
    };
    Err(Error::NotDicom { found })
}

/// Encoding of a data set from its first element: a known tag of the low groups whose length fits.
fn guess_encoding(bytes: &[u8]) -> Option<Encoding> {
    if bytes.len() < 8 {
        return None;
    }
    for big_endian in [false, true] {
        let enc = Encoding {
            explicit: true,
            big_endian,
        };
        let tag = Tag(enc.u16(bytes), enc.u16(&bytes[2..]));
        let low = matches!(tag.0, 0x0004 | 0x0008 | 0x0010 | 0x0018 | 0x0020 | 0x0028);
        if !low || parse::dictionary_vr(tag).is_none() {
            continue;
        }
        if VR::from_binary([bytes[4], bytes[5]]).is_some() {
            return Some(enc);
        }
        let letters = bytes[4..6].iter().all(u8::is_ascii_uppercase);
        if !letters && enc.u32(&bytes[4..]) < 1 << 16 {
            return Some(Encoding {
                explicit: false,
                big_endian,
            });
        }
    }
    None
}

/// Raw deflate within bounds (PS3.5 A.5).
fn inflate(compressed: &[u8], stored: u64) -> Result<Vec<u8>, Error> {
    use std::io::Read as _;
    let limit = INFLATE_FLOOR.max(stored.saturating_mul(INFLATE_RATIO));
    let mut out = Vec::new();
    let mut reader = flate2::read::DeflateDecoder::new(compressed).take(limit + 1);
    let done = reader.read_to_end(&mut out);
    if out.len() as u64 > limit {
        return Err(Error::Bomb { limit });
    }
    match done {
        Ok(_) => Ok(out),
        Err(error) => Err(Error::Inflate(error)),
    }
}
