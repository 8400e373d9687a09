//! The Image Pixel module: what the header says about pixels, and where each frame's bytes are.

use std::ops::Range;

use dicom_dictionary_std::tags;

use super::dataset::{Dataset, Item};
use super::error::Error;
use super::syntax::{Codec, Syntax};

/// Photometric Interpretation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Photometric {
    /// The smallest value is white.
    Monochrome1,
    /// The smallest value is black.
    Monochrome2,
    /// Indices into color tables.
    Palette,
    /// Red, green, blue.
    Rgb,
    /// Luma and two differences, full range.
    YbrFull,
    /// The same with halved columns of the differences.
    YbrFull422,
    /// JPEG 2000, reversible.
    YbrRct,
    /// JPEG 2000, irreversible.
    YbrIct,
}

/// What the header says about pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PixelFormat {
    /// Columns.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
    /// Samples per Pixel, 1 or 3.
    pub samples: usize,
    /// Bits Allocated: 1, 8, 16, 32 or 64.
    pub bits_allocated: u16,
    /// Bits Stored.
    pub bits_stored: u16,
    /// High Bit.
    pub high_bit: u16,
    /// Two's complement.
    pub signed: bool,
    /// IEEE floats (Float or Double Float Pixel Data).
    pub float: bool,
    /// Color planes follow each other.
    pub planar: bool,
    /// Photometric Interpretation.
    pub photometric: Photometric,
}

impl PixelFormat {
    pub(super) fn read(dataset: &Dataset) -> Result<Self, Error> {
        let root = dataset.root();
        let Some(pixels) = dataset.pixels else {
            return Err(Error::NoPixelData);
        };
        let size = |attribute: &'static str, tag| match root.integer(tag) {
            Some(n @ 1..=65535) => Ok(n as usize),
            found => Err(attribute_error(attribute, found)),
        };
        let rows = size("Rows", tags::ROWS)?;
        let columns = size("Columns", tags::COLUMNS)?;
        let samples = match root.integer(tags::SAMPLES_PER_PIXEL) {
            None => 1,
            Some(n @ (1 | 3)) => n as usize,
            found => return Err(attribute_error("SamplesPerPixel", found)),
        };
        let float = pixels.tag != tags::PIXEL_DATA;
        let bits_allocated = match root.integer(tags::BITS_ALLOCATED) {
            Some(n @ (1 | 8 | 16 | 32)) => n as u16,
            Some(64) if pixels.tag == tags::DOUBLE_FLOAT_PIXEL_DATA => 64,
            found => return Err(attribute_error("BitsAllocated", found)),
        };
        if float && bits_allocated < 32 {
            return Err(attribute_error(
                "BitsAllocated",
                Some(bits_allocated.into()),
            ));
        }
        let bits_stored = match root.integer(tags::BITS_STORED) {
            None => bits_allocated,
            Some(n) if (1..=i64::from(bits_allocated)).contains(&n) => n as u16,
            found => return Err(attribute_error("BitsStored", found)),
        };
        let high_bit = match root.integer(tags::HIGH_BIT) {
            Some(n) if n + 1 >= i64::from(bits_stored) && n < i64::from(bits_allocated) => n as u16,
            // A wrong High Bit beside a right Bits Stored is common; the standard asks for this one.
            _ => bits_stored - 1,
        };
        let photometric = match root.text(tags::PHOTOMETRIC_INTERPRETATION).as_deref() {
            Some("MONOCHROME1") => Photometric::Monochrome1,
            Some("MONOCHROME2") => Photometric::Monochrome2,
            Some("PALETTE COLOR") => Photometric::Palette,
            Some("YBR_FULL") => Photometric::YbrFull,
            Some("YBR_FULL_422") => Photometric::YbrFull422,
            Some("YBR_RCT") => Photometric::YbrRct,
            Some("YBR_ICT") => Photometric::YbrIct,
            None if samples == 1 => Photometric::Monochrome2,
            Some("RGB") | None => Photometric::Rgb,
            Some(other) => {
                return Err(Error::Attribute {
                    attribute: "PhotometricInterpretation",
                    found: other.chars().filter(|c| !c.is_control()).take(16).collect(),
                });
            }
        };
        let one_sample = matches!(
            photometric,
            Photometric::Monochrome1 | Photometric::Monochrome2 | Photometric::Palette
        );
        if one_sample != (samples == 1) {
            return Err(attribute_error("SamplesPerPixel", Some(samples as i64)));
        }
        Ok(Self {
            columns,
            rows,
            samples,
            bits_allocated,
            bits_stored,
            high_bit,
            signed: root.integer(tags::PIXEL_REPRESENTATION) == Some(1),
            float,
            planar: samples > 1 && root.integer(tags::PLANAR_CONFIGURATION) == Some(1),
            photometric,
        })
    }

    /// Whether pixels become colors.
    pub fn is_color(&self) -> bool {
        self.samples == 3 || self.photometric == Photometric::Palette
    }

    /// Pixels of a frame.
    pub fn pixels(&self) -> usize {
        self.columns * self.rows
    }

    /// Bytes of a decoded voxel in memory.
    pub fn voxel_bytes(&self) -> usize {
        if self.is_color() {
            3
        } else if self.float || self.bits_allocated > 16 {
            4
        } else if self.bits_allocated == 16 || self.signed {
            2
        } else {
            1
        }
    }

    /// Bits of an uncompressed frame as stored.
    pub(super) fn native_bits(&self) -> u64 {
        let samples = if self.photometric == Photometric::YbrFull422 && !self.planar {
            2
        } else {
            self.samples as u64
        };
        self.pixels() as u64 * samples * u64::from(self.bits_allocated)
    }
}

fn attribute_error(attribute: &'static str, found: Option<i64>) -> Error {
    Error::Attribute {
        attribute,
        found: found.map_or_else(|| "no value".to_owned(), |n| n.to_string()),
    }
}

/// Number of Frames; 1 when absent.
pub(super) fn frame_count(root: Item<'_>) -> Result<usize, Error> {
    if root.text(tags::NUMBER_OF_FRAMES).is_none() {
        return Ok(1);
    }
    let number = root.numbers(tags::NUMBER_OF_FRAMES).first().copied();
    match number {
        // Whole-slide images reach some 100,000 tiles; more would only take memory.
        Some(n) if (1.0..=200_000.0).contains(&n) && n.fract() == 0.0 => Ok(n as usize),
        Some(0.0) => Ok(1),
        Some(n) if n.is_finite() => Err(attribute_error("NumberOfFrames", Some(n as i64))),
        _ => Err(Error::Attribute {
            attribute: "NumberOfFrames",
            found: "not a number".to_owned(),
        }),
    }
}

/// Checks from the header alone that uncompressed pixels are all there.
pub(super) fn check_length(
    dataset: &Dataset,
    format: &PixelFormat,
    frames: usize,
) -> Result<(), Error> {
    let Some(pixels) = dataset.pixels else {
        return Err(Error::NoPixelData);
    };
    let left = dataset.total.saturating_sub(pixels.start);
    match pixels.length {
        Some(declared) => {
            let found = left.min(u64::from(declared));
            let needed = (format.native_bits().saturating_mul(frames as u64)).div_ceil(8);
            if found < needed {
                return Err(Error::ShortPixelData {
                    found,
                    needed,
                    columns: format.columns,
                    rows: format.rows,
                    frames,
                });
            }
            Ok(())
        }
        None if (frames as u64).saturating_mul(8) > left => Err(Error::NoSuchFrame {
            frame: frames - 1,
            found: (left / 8) as usize,
        }),
        None => Ok(()),
    }
}

/// Where frames are in the bytes of the whole file.
pub(super) enum Frames {
    /// One after the other from this offset.
    Native(usize),
    /// Fragments of each frame.
    Encapsulated(Vec<Vec<Range<usize>>>),
}

impl Frames {
    /// Locates the frames in `dataset`, whose bytes must be the whole file.
    pub fn locate(dataset: &Dataset, frames: usize) -> Result<Self, Error> {
        let pixels = dataset.pixels.ok_or(Error::NoPixelData)?;
        let start = pixels.start as usize;
        if pixels.length.is_some() {
            return Ok(Self::Native(start));
        }
        let bytes = &dataset.bytes[..];
        let mut items: Vec<Range<usize>> = Vec::new();
        let mut pos = start;
        // Encapsulated pixels are always little endian.
        while let Some(head) = bytes.get(pos..pos + 8) {
            let tag = [head[0], head[1], head[2], head[3]];
            let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
            if tag != [0xFE, 0xFF, 0x00, 0xE0] {
                break;
            }
            pos += 8;
            let end = pos.saturating_add(length);
            if end > bytes.len() {
                if frames == 1 || items.len() <= 1 {
                    return Err(Error::Truncated {
                        tag: "(fffe,e000) of the pixel data".to_owned(),
                        declared: length as u64,
                        available: (bytes.len() - pos) as u64,
                    });
                }
                break;
            }
            items.push(pos..end);
            pos = end;
        }
        if items.is_empty() {
            return Err(Error::NoPixelData);
        }
        let offsets: Vec<u64> = bytes[items[0].clone()]
            .chunks_exact(4)
            .map(|b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])))
            .collect();
        let fragments = &items[1..];
        Ok(Self::Encapsulated(group(
            dataset, fragments, &offsets, frames,
        )))
    }
}

/// Fragments of each frame: by count, by offset table, or by the codec's start marker.
fn group(
    dataset: &Dataset,
    fragments: &[Range<usize>],
    basic: &[u64],
    frames: usize,
) -> Vec<Vec<Range<usize>>> {
    if frames == 1 {
        return vec![fragments.to_vec()];
    }
    if fragments.len() == frames {
        return fragments.iter().map(|f| vec![f.clone()]).collect();
    }
    let extended: Vec<u64> = dataset
        .root()
        .numbers(tags::EXTENDED_OFFSET_TABLE)
        .iter()
        .map(|&x| x as u64)
        .collect();
    let Some(first) = fragments.first().map(|f| f.start as u64 - 8) else {
        return Vec::new();
    };
    let by_starts = |is_start: &dyn Fn(&Range<usize>) -> bool| {
        let mut groups: Vec<Vec<Range<usize>>> = Vec::new();
        for fragment in fragments {
            if is_start(fragment) || groups.is_empty() {
                groups.push(Vec::new());
            }
            groups
                .last_mut()
                .expect("a group was pushed for the first fragment")
                .push(fragment.clone());
        }
        groups
    };
    for table in [&extended[..], basic] {
        if table.len() == frames {
            let groups = by_starts(&|f| table.contains(&(f.start as u64 - 8 - first)));
            if groups.len() == frames {
                return groups;
            }
        }
    }
    let marker: &[u8] = match dataset.syntax {
        Syntax::Encapsulated(Codec::Jpeg | Codec::JpegLs, _) => &[0xFF, 0xD8],
        Syntax::Encapsulated(Codec::Jpeg2000, _) => &[0xFF, 0x4F, 0xFF, 0x51],
        _ => return fragments.iter().map(|f| vec![f.clone()]).collect(),
    };
    by_starts(&|f| dataset.bytes[f.clone()].starts_with(marker))
}
