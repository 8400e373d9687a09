//! Bytes → elements, iteratively and within bounds.
//!
//! Lengths are checked against the end of the file before anything is kept, nesting is limited,
//! and values stay where they are: an element is a tag, a VR and a range of bytes. dicom-rs
//! recurses into sequences and trusts lengths, so hostile files must pass here first.

use std::ops::Range;

use dicom_core::{DataDictionary, Tag, VR, dictionary::DataDictionaryEntry};
use dicom_dictionary_std::{StandardDataDictionary, tags};

use super::error::Error;

/// Sequences may nest this deep; SR documents stay below 20.
pub(super) const DEPTH_LIMIT: usize = 64;

const UNDEFINED: u32 = u32::MAX;
const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);

/// How elements are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Encoding {
    /// VRs are written out.
    pub explicit: bool,
    /// Most significant byte first.
    pub big_endian: bool,
}

impl Encoding {
    pub const EXPLICIT_LE: Self = Self {
        explicit: true,
        big_endian: false,
    };
    pub const IMPLICIT_LE: Self = Self {
        explicit: false,
        big_endian: false,
    };

    pub fn u16(self, b: &[u8]) -> u16 {
        let b = [b[0], b[1]];
        if self.big_endian {
            u16::from_be_bytes(b)
        } else {
            u16::from_le_bytes(b)
        }
    }

    pub fn u32(self, b: &[u8]) -> u32 {
        let b = [b[0], b[1], b[2], b[3]];
        if self.big_endian {
            u32::from_be_bytes(b)
        } else {
            u32::from_le_bytes(b)
        }
    }
}

/// One element.
#[derive(Clone, Debug)]
pub(super) struct Element {
    pub tag: Tag,
    pub vr: VR,
    pub value: Value,
}

/// Where its value is.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Bytes of the buffer.
    Bytes(Range<usize>),
    /// Items of a sequence, each sorted by tag.
    Items(Vec<Vec<Element>>),
}

/// Where the pixels start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PixelElement {
    pub tag: Tag,
    pub vr: VR,
    /// Offset of the first byte of the value.
    pub start: u64,
    /// Declared length; `None` for encapsulated fragments.
    pub length: Option<u32>,
}

/// A data set up to its pixel data.
#[derive(Debug)]
pub(super) struct Parsed {
    pub elements: Vec<Element>,
    pub pixels: Option<PixelElement>,
    /// The bytes ended inside an element; what came before is kept.
    pub truncated: Option<Error>,
}

/// How parsing ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Done(Parsed),
    /// The buffer is a prefix of the file and ended before the pixel data.
    NeedMore,
}

struct Open {
    tag: Tag,
    vr: VR,
    /// `None` while the end is marked by a delimiter.
    end: Option<usize>,
    encoding: Encoding,
    items: Vec<Vec<Element>>,
    /// Elements of the item that is open, with its end.
    item: Option<(Vec<Element>, Option<usize>)>,
}

/// Parses from `at` up to the pixel data. `total` is the length of the whole file, of which
/// `data` may be the beginning.
pub(super) fn parse(
    data: &[u8],
    at: usize,
    total: u64,
    encoding: Encoding,
) -> Result<Outcome, Error> {
    let mut pos = at;
    let mut root: Vec<Element> = Vec::new();
    let mut stack: Vec<Open> = Vec::new();
    let mut truncated = None;
    let mut pixels = None;
    let whole = data.len() as u64 >= total;

    loop {
        // Close what has ended by its length.
        if let Some(open) = stack.last_mut() {
            if let Some((_, Some(end))) = &open.item
                && pos >= *end
            {
                pos = *end;
                close_item(open);
                continue;
            }
            if open.item.is_none() && open.end.is_some_and(|end| pos >= end) {
                pos = open.end.unwrap_or(pos);
                close_sequence(&mut stack, &mut root);
                continue;
            }
        }
        let in_items = stack.last().is_some_and(|open| open.item.is_none());
        let enc = stack.last().map_or(encoding, |open| open.encoding);

        if pos + 8 > data.len() {
            if !whole {
                return Ok(Outcome::NeedMore);
            }
            // Up to 7 stray bytes at the end of a complete data set are padding.
            if !stack.is_empty() {
                truncated = Some(Error::Truncated {
                    tag: stack.first().map_or_else(String::new, |o| tag_text(o.tag)),
                    declared: stack
                        .first()
                        .and_then(|o| o.end)
                        .map_or(u64::from(UNDEFINED), |e| e.saturating_sub(pos) as u64),
                    available: (data.len() - pos.min(data.len())) as u64,
                });
            }
            break;
        }
        let tag = Tag(enc.u16(&data[pos..]), enc.u16(&data[pos + 2..]));

        if in_items {
            let length = enc.u32(&data[pos + 4..]);
            let open = stack.last_mut().expect("in_items implies an open sequence");
            if tag == ITEM {
                pos += 8;
                let end = (length != UNDEFINED).then(|| pos.saturating_add(length as usize));
                if end.is_some_and(|end| end as u64 > total) {
                    truncated = Some(past_end(open.tag, length, pos, total));
                    break;
                }
                // Nothing reaches beyond its parent, so every header is visited once.
                open.item = Some((Vec::new(), earlier(end, open.end)));
            } else if tag == SEQUENCE_END {
                pos += 8;
                close_sequence(&mut stack, &mut root);
            } else if open.end.is_some() {
                // Something else inside a sequence of known length: skip the rest of it.
                pos = open.end.unwrap_or(pos);
                close_sequence(&mut stack, &mut root);
            } else {
                // A sequence that was never delimited: the element belongs to the parent.
                close_sequence(&mut stack, &mut root);
            }
            continue;
        }

        if tag == ITEM_END || tag == SEQUENCE_END {
            pos += 8;
            if let Some(open) = stack.last_mut() {
                close_item(open);
                if tag == SEQUENCE_END {
                    close_sequence(&mut stack, &mut root);
                }
            }
            continue;
        }

        let Some(head) = element_head(data, pos, enc) else {
            if whole {
                truncated = Some(past_end(tag, 0, pos, total));
                break;
            }
            return Ok(Outcome::NeedMore);
        };
        let value_at = pos + head.size;
        if stack.is_empty() && is_pixel_tag(tag) {
            pixels = Some(PixelElement {
                tag,
                vr: head.vr,
                start: value_at as u64,
                length: (head.length != UNDEFINED).then_some(head.length),
            });
            break;
        }
        let undefined = head.length == UNDEFINED;
        if !undefined && value_at as u64 + u64::from(head.length) > total {
            truncated = Some(past_end(tag, head.length, value_at, total));
            break;
        }
        let dictionary_vr = (head.vr == VR::UN).then(|| dictionary_vr(tag)).flatten();
        let is_sequence = head.vr == VR::SQ || undefined || dictionary_vr == Some(VR::SQ);
        if is_sequence {
            if stack.len() >= DEPTH_LIMIT {
                return Err(Error::TooDeep { limit: DEPTH_LIMIT });
            }
            let own_end = (!undefined).then(|| value_at + head.length as usize);
            let parent_end = stack
                .last()
                .and_then(|o| o.item.as_ref())
                .and_then(|(_, end)| *end);
            stack.push(Open {
                tag,
                vr: VR::SQ,
                end: earlier(own_end, parent_end),
                // PS3.5 6.2.2 note 2: a sequence of VR UN is written in implicit little endian.
                encoding: if head.vr == VR::UN && enc.explicit {
                    Encoding::IMPLICIT_LE
                } else {
                    enc
                },
                items: Vec::new(),
                item: None,
            });
            pos = value_at;
            continue;
        }
        let end = value_at + head.length as usize;
        if end > data.len() {
            // Known to be inside the file, not yet inside the buffer.
            return Ok(Outcome::NeedMore);
        }
        let element = Element {
            tag,
            vr: if head.vr == VR::UN {
                dictionary_vr.unwrap_or(VR::UN)
            } else {
                head.vr
            },
            value: Value::Bytes(value_at..end),
        };
        push(&mut stack, &mut root, element);
        pos = end;
    }

    while !stack.is_empty() {
        if let Some(open) = stack.last_mut() {
            close_item(open);
        }
        close_sequence(&mut stack, &mut root);
    }
    sort(&mut root);
    Ok(Outcome::Done(Parsed {
        elements: root,
        pixels,
        truncated,
    }))
}

fn earlier(a: Option<usize>, b: Option<usize>) -> Option<usize> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// `(gggg,eeee)`.
pub(super) fn tag_text(tag: Tag) -> String {
    format!("({:04x},{:04x})", tag.0, tag.1)
}

fn past_end(tag: Tag, declared: u32, value_at: usize, total: u64) -> Error {
    Error::Truncated {
        tag: tag_text(tag),
        declared: u64::from(declared),
        available: total.saturating_sub(value_at as u64),
    }
}

fn is_pixel_tag(tag: Tag) -> bool {
    tag == tags::PIXEL_DATA || tag == tags::FLOAT_PIXEL_DATA || tag == tags::DOUBLE_FLOAT_PIXEL_DATA
}

fn push(stack: &mut [Open], root: &mut Vec<Element>, element: Element) {
    match stack.last_mut().and_then(|open| open.item.as_mut()) {
        Some((elements, _)) => elements.push(element),
        None => root.push(element),
    }
}

fn close_item(open: &mut Open) {
    if let Some((mut elements, _)) = open.item.take() {
        sort(&mut elements);
        open.items.push(elements);
    }
}

fn close_sequence(stack: &mut Vec<Open>, root: &mut Vec<Element>) {
    if let Some(open) = stack.pop() {
        let element = Element {
            tag: open.tag,
            vr: open.vr,
            value: Value::Items(open.items),
        };
        push(stack, root, element);
    }
}

/// By tag; of repeated tags the first stays in front and is the one that is found.
fn sort(elements: &mut [Element]) {
    if !elements.is_sorted_by_key(|e| e.tag) {
        elements.sort_by_key(|e| e.tag);
    }
}

/// VR of the standard dictionary, when it names exactly one.
pub(super) fn dictionary_vr(tag: Tag) -> Option<VR> {
    if tag.1 == 0 {
        return Some(VR::UL);
    }
    StandardDataDictionary
        .by_tag(tag)
        .map(|entry| entry.vr().relaxed())
}

struct Head {
    vr: VR,
    length: u32,
    size: usize,
}

/// Tag, VR and length at `pos`; `None` when the buffer ends first.
fn element_head(data: &[u8], pos: usize, enc: Encoding) -> Option<Head> {
    let rest = data.get(pos..)?;
    if rest.len() < 8 {
        return None;
    }
    let tag = Tag(enc.u16(rest), enc.u16(&rest[2..]));
    let implicit = |vr: Option<VR>| Head {
        vr: vr.unwrap_or(VR::UN),
        length: enc.u32(&rest[4..]),
        size: 8,
    };
    if !enc.explicit {
        return Some(implicit(dictionary_vr(tag)));
    }
    let letters = [rest[4], rest[5]];
    if !letters.iter().all(u8::is_ascii_uppercase) {
        // No VR where one must be: writers that mix both encodings. Read it as implicit.
        return Some(implicit(dictionary_vr(tag)));
    }
    let long = |vr: VR| {
        (rest.len() >= 12).then(|| Head {
            vr,
            length: enc.u32(&rest[8..]),
            size: 12,
        })
    };
    let short = |vr: VR| Head {
        vr,
        length: u32::from(enc.u16(&rest[6..])),
        size: 8,
    };
    match VR::from_binary(letters) {
        Some(vr) if is_long(vr) => long(vr),
        Some(vr) => Some(short(vr)),
        // PS3.5 6.2 note 3: new VRs have the long form, with two zero bytes.
        None if rest[6..8] == [0, 0] => long(VR::UN),
        None => Some(short(VR::UN)),
    }
}

fn is_long(vr: VR) -> bool {
    matches!(
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
    )
}
