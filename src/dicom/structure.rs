//! A check of a data set's structure before the parser sees it: lengths against the end of the
//! bytes, nesting depth, delimiters. Iterative, so depth costs nothing; it takes no memory.
//!
//! The parser recurses and trusts lengths; after this check both are safe.

use std::ops::Range;

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;

/// Deepest nesting that is followed. Real structured reports stay below 30.
const DEEPEST: usize = 64;

/// Encoding of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// Explicit VR; else implicit.
    pub explicit: bool,
    /// Big endian.
    pub big_endian: bool,
}

/// The top-level pixel data element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PixelData {
    /// Its value bytes (may be shorter than declared: the end of the file).
    Native {
        /// Of the value in the data set.
        value: Range<usize>,
        /// Declared length.
        declared: usize,
    },
    /// Fragments after the offset table.
    Encapsulated {
        /// Of the basic offset table's value.
        offsets: Range<usize>,
        /// Of each fragment's value.
        fragments: Vec<Range<usize>>,
    },
}

/// Where the parser may read, and where pixels lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    /// End of the elements before the pixels.
    pub header_end: usize,
    /// Pixels with their tag's element number (0010, 0008 float, 0009 double), if any.
    pub pixels: Option<(u16, PixelData)>,
}

struct Level {
    /// `None`: until a delimiter.
    end: Option<usize>,
    /// A sequence holds items; an item holds elements.
    sequence: bool,
    encoding: Encoding,
}

/// A cursor with the data set's byte order.
struct Bytes<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

impl Bytes<'_> {
    fn u16(&self, at: usize) -> Option<u16> {
        let b: [u8; 2] = self.bytes.get(at..at + 2)?.try_into().ok()?;
        Some(if self.big_endian {
            u16::from_be_bytes(b)
        } else {
            u16::from_le_bytes(b)
        })
    }

    fn u32(&self, at: usize) -> Option<u32> {
        let b: [u8; 4] = self.bytes.get(at..at + 4)?.try_into().ok()?;
        Some(if self.big_endian {
            u32::from_be_bytes(b)
        } else {
            u32::from_le_bytes(b)
        })
    }
}

const UNDEFINED: u32 = u32::MAX;

/// Walks the data set in `bytes` (without file meta). `complete`: the bytes are the whole file;
/// else `Ok(None)` says that more bytes are needed.
///
/// # Errors
/// What is wrong, in words.
pub fn check(
    bytes: &[u8],
    encoding: Encoding,
    complete: bool,
) -> Result<Option<Structure>, String> {
    let data = Bytes {
        bytes,
        big_endian: encoding.big_endian,
    };
    let mut at = 0;
    let mut levels: Vec<Level> = Vec::new();
    let short = |what: &str| -> Result<Option<Structure>, String> {
        if complete {
            Err(format!("the file ends inside {what}"))
        } else {
            Ok(None)
        }
    };
    loop {
        while levels.last().is_some_and(|level| level.end == Some(at)) {
            levels.pop();
        }
        if at == bytes.len() {
            return if !complete {
                Ok(None)
            } else if levels.is_empty() {
                Ok(Some(Structure {
                    header_end: at,
                    pixels: None,
                }))
            } else {
                Err("the file ends inside a sequence".to_owned())
            };
        }
        let (Some(group), Some(element)) = (data.u16(at), data.u16(at + 2)) else {
            return short("a tag");
        };
        let top = levels.is_empty();
        let encoding = levels.last().map_or(encoding, |level| level.encoding);
        let in_sequence = levels.last().is_some_and(|level| level.sequence);
        if group == 0xFFFE {
            let Some(length) = data.u32(at + 4) else {
                return short("an item");
            };
            at += 8;
            match element {
                0xE000 if in_sequence => {
                    let end = item_end(at, length, &levels, bytes.len(), complete)?;
                    push(
                        &mut levels,
                        Level {
                            end,
                            sequence: false,
                            encoding,
                        },
                    )?;
                }
                0xE00D | 0xE0DD if !top => {
                    let sequence = element == 0xE0DD;
                    match levels.pop() {
                        Some(level) if level.sequence == sequence && level.end.is_none() => {}
                        _ => return Err("a delimiter stands where none belongs".to_owned()),
                    }
                }
                _ => return Err("an item stands where none belongs".to_owned()),
            }
            continue;
        }
        if in_sequence {
            return Err(format!(
                "({group:04X},{element:04X}) stands in a sequence outside of an item"
            ));
        }
        let tag = at;
        let (vr, length, value) = if encoding.explicit {
            let Some(vr) = bytes.get(at + 4..at + 6) else {
                return short("a value representation");
            };
            match vr {
                b"OB" | b"OD" | b"OF" | b"OL" | b"OV" | b"OW" | b"SQ" | b"UC" | b"UN" | b"UR"
                | b"UT" | b"SV" | b"UV" => match data.u32(at + 8) {
                    Some(length) => (vr, length, at + 12),
                    None => return short("a length"),
                },
                b"AE" | b"AS" | b"AT" | b"CS" | b"DA" | b"DS" | b"DT" | b"FL" | b"FD" | b"IS"
                | b"LO" | b"LT" | b"PN" | b"SH" | b"SL" | b"SS" | b"ST" | b"TM" | b"UI" | b"UL"
                | b"US" => match data.u16(at + 6) {
                    Some(length) => (vr, u32::from(length), at + 8),
                    None => return short("a length"),
                },
                _ => {
                    return Err(format!(
                        "({group:04X},{element:04X}) has a value representation that does not exist"
                    ));
                }
            }
        } else {
            match data.u32(at + 4) {
                Some(length) => (b"??".as_slice(), length, at + 8),
                None => return short("a length"),
            }
        };
        if top && group == 0x7FE0 && matches!(element, 0x0008..=0x0010) {
            let pixels = pixel_data(&data, value, length, complete)?;
            return Ok(pixels.map(|pixels| Structure {
                header_end: tag,
                pixels: Some((element, pixels)),
            }));
        }
        at = value;
        // Implicit VR: the parser takes what its dictionary calls a sequence for one.
        let implicit_sequence = vr == b"??" && is_sequence(Tag(group, element));
        if vr == b"SQ" || implicit_sequence || length == UNDEFINED {
            // PS3.5 6.2.2: a value of unknown representation and undefined length is implicit.
            let inner = if vr == b"UN" {
                Encoding {
                    explicit: false,
                    big_endian: false,
                }
            } else {
                encoding
            };
            if vr != b"SQ" && vr != b"UN" && vr != b"??" {
                return Err(format!("({group:04X},{element:04X}) has no length"));
            }
            let end = item_end(at, length, &levels, bytes.len(), complete)?;
            push(
                &mut levels,
                Level {
                    end,
                    sequence: true,
                    encoding: inner,
                },
            )?;
            continue;
        }
        let end = at.saturating_add(length as usize);
        let limit = levels.iter().rev().find_map(|level| level.end);
        if limit.is_some_and(|limit| end > limit) {
            return Err(format!(
                "({group:04X},{element:04X}) is longer than what holds it"
            ));
        }
        if end > bytes.len() {
            if complete {
                return Err(format!(
                    "({group:04X},{element:04X}) declares {length} bytes, {} are left in the file",
                    bytes.len() - at
                ));
            }
            return Ok(None);
        }
        at = end;
    }
}

fn is_sequence(tag: Tag) -> bool {
    StandardDataDictionary
        .by_tag(tag)
        .is_some_and(|entry| entry.vr().relaxed() == VR::SQ)
}

fn push(levels: &mut Vec<Level>, level: Level) -> Result<(), String> {
    if levels.len() >= DEEPEST {
        return Err(format!("sequences are nested deeper than {DEEPEST}"));
    }
    levels.push(level);
    Ok(())
}

fn item_end(
    at: usize,
    length: u32,
    levels: &[Level],
    size: usize,
    complete: bool,
) -> Result<Option<usize>, String> {
    if length == UNDEFINED {
        return Ok(None);
    }
    let end = at.saturating_add(length as usize);
    let limit = levels.iter().rev().find_map(|level| level.end);
    if limit.is_some_and(|limit| end > limit) || (complete && end > size) {
        return Err(format!(
            "a sequence or item declares {length} bytes, more than are left"
        ));
    }
    Ok(Some(end))
}

fn pixel_data(
    data: &Bytes<'_>,
    value: usize,
    length: u32,
    complete: bool,
) -> Result<Option<PixelData>, String> {
    let size = data.bytes.len();
    if length != UNDEFINED {
        let end = value.saturating_add(length as usize);
        if end > size && !complete {
            return Ok(Some(PixelData::Native {
                value: value..value,
                declared: length as usize,
            }));
        }
        let value = value..end.min(size);
        return Ok(Some(PixelData::Native {
            value,
            declared: length as usize,
        }));
    }
    let mut at = value;
    let mut items: Vec<Range<usize>> = Vec::new();
    loop {
        let (Some(group), Some(element), Some(length)) =
            (data.u16(at), data.u16(at + 2), data.u32(at + 4))
        else {
            break; // No delimiter before the end: what is there is used.
        };
        at += 8;
        if (group, element) != (0xFFFE, 0xE000) {
            break; // Delimiter, or damage: what was found is used.
        }
        let end = at.saturating_add(length as usize);
        if end > size {
            items.push(at.min(size)..size);
            break;
        }
        items.push(at..end);
        at = end;
    }
    let mut items = items.into_iter();
    let offsets = items.next().unwrap_or(value..value);
    Ok(Some(PixelData::Encapsulated {
        offsets,
        fragments: items.collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPLICIT: Encoding = Encoding {
        explicit: true,
        big_endian: false,
    };

    fn element(group: u16, element: u16, vr: &[u8; 2], value: &[u8]) -> Vec<u8> {
        let mut out = [group.to_le_bytes(), element.to_le_bytes()].concat();
        out.extend(vr);
        if matches!(vr, b"OB" | b"OW" | b"SQ" | b"UN") {
            out.extend([0, 0]);
            out.extend((value.len() as u32).to_le_bytes());
        } else {
            out.extend((value.len() as u16).to_le_bytes());
        }
        out.extend(value);
        out
    }

    #[test]
    fn deep_nesting_is_refused_without_recursion() {
        let mut bytes = Vec::new();
        for _ in 0..10_000 {
            bytes.extend([0x40, 0, 0x00, 0xA7]);
            bytes.extend(b"SQ\0\0");
            bytes.extend(u32::MAX.to_le_bytes());
            bytes.extend([0xFE, 0xFF, 0x00, 0xE0]);
            bytes.extend(u32::MAX.to_le_bytes());
        }
        assert!(
            check(&bytes, EXPLICIT, true)
                .unwrap_err()
                .contains("nested")
        );
    }

    #[test]
    fn deep_nesting_by_lengths_alone_is_refused_in_implicit_vr() {
        // Content Sequence in an item in Content Sequence …, each of known length.
        let mut bytes = Vec::new();
        for depth in (0..5000_u32).rev() {
            bytes.extend([0x40, 0, 0x30, 0xA7]);
            bytes.extend((depth * 16 + 8).to_le_bytes());
            bytes.extend([0xFE, 0xFF, 0x00, 0xE0]);
            bytes.extend((depth * 16).to_le_bytes());
        }
        let implicit = Encoding {
            explicit: false,
            big_endian: false,
        };
        let refused = check(&bytes, implicit, true).unwrap_err();
        assert!(refused.contains("nested"), "{refused}");
    }

    #[test]
    fn a_length_beyond_the_end_is_refused() {
        let mut bytes = element(0x0010, 0x0010, b"PN", b"A^B ");
        bytes[6] = 200;
        assert!(
            check(&bytes, EXPLICIT, true)
                .unwrap_err()
                .contains("declares 200 bytes")
        );
        assert_eq!(check(&bytes, EXPLICIT, false), Ok(None));
    }

    #[test]
    fn native_pixels_are_found_and_clipped_to_the_file() {
        let mut bytes = element(0x0028, 0x0010, b"US", &[1, 0]);
        let header_end = bytes.len();
        bytes.extend(element(0x7FE0, 0x0010, b"OW", &[1, 2, 3, 4]));
        let whole = check(&bytes, EXPLICIT, true).unwrap().unwrap();
        assert_eq!(whole.header_end, header_end);
        let cut = check(&bytes[..bytes.len() - 1], EXPLICIT, true)
            .unwrap()
            .unwrap();
        let value = header_end + 12..header_end + 15;
        assert_eq!(
            cut.pixels,
            Some((0x10, PixelData::Native { value, declared: 4 }))
        );
    }
}
