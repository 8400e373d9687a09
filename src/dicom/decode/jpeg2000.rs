//! JPEG 2000 and HTJ2K through OpenJPEG.

use std::borrow::Cow;
use std::collections::HashMap;

use super::super::error::Error;
use super::super::pixels::PixelFormat;
use super::{Samples, StreamSize, native};
use crate::study::Issue;

pub(super) fn frame(
    stream: &[u8],
    format: &PixelFormat,
) -> Result<(Samples, Option<Issue>), Error> {
    let siz = Siz::read(stream)?;
    siz.size.must_match(format)?;
    if siz.precision > format.bits_allocated {
        return Err(failed(format!(
            "{} bits do not fit {} allocated",
            siz.precision, format.bits_allocated
        )));
    }
    let strict = jpeg2k::DecodeParameters::new().strict(true);
    // The codestream alone: a JP2 wrapper around it (not allowed, but found) may hold a color profile,
    // which the library would apply. What colors mean is the data set's word (PS3.5 A.4.4).
    let codestream = with_true_part_counts(&stream[siz.start..]);
    let image = jpeg2k::Image::from_bytes_with(&codestream, strict)
        .map_err(|error| failed(error.to_string()))?;
    let components = image.components();
    let pixels = format.pixels();
    for component in components {
        let right_size = component.width() as usize == format.columns
            && component.height() as usize == format.rows;
        // A component without data is a null pointer inside; only its debug text tells.
        if !right_size || format!("{component:?}").contains("data: 0x0,") {
            return Err(failed("a component is incomplete".to_owned()));
        }
    }
    if components.len() != format.samples {
        return Err(failed(format!("{} components decoded", components.len())));
    }
    let planes: Vec<&[i32]> = components
        .iter()
        .map(jpeg2k::ImageComponent::data)
        .collect();
    let raw: Vec<i32> = if let [plane] = planes[..] {
        plane.to_vec()
    } else {
        (0..pixels)
            .flat_map(|n| planes.iter().map(move |plane| plane[n]))
            .collect()
    };
    let mismatch = siz.signed != format.signed && format.samples == 1;
    let issue = mismatch.then(|| Issue::HeaderMismatch {
        header: sign_words(format.signed).to_owned(),
        stream: sign_words(siz.signed).to_owned(),
    });
    // A signed stream keeps its negative values whatever the header says. In an unsigned stream
    // under a signed header the sign is the highest coded bit.
    let placed = PixelFormat {
        signed: siz.signed || format.signed,
        bits_stored: if mismatch && format.signed {
            siz.precision
        } else {
            format.bits_stored.max(siz.precision)
        },
        high_bit: 0,
        ..*format
    };
    let placed = PixelFormat {
        high_bit: placed.bits_stored - 1,
        ..placed
    };
    let samples = match format.bits_allocated {
        1 | 8 => native::from_u8(raw.iter().map(|&x| x as u8).collect(), &placed),
        16 => native::from_u16(raw.iter().map(|&x| x as u16).collect(), &placed),
        _ => native::from_u32(raw.iter().map(|&x| x as u32).collect(), &placed),
    };
    Ok((samples, issue))
}

fn sign_words(signed: bool) -> &'static str {
    if signed {
        "signed values"
    } else {
        "unsigned values"
    }
}

/// The image and tile size marker (ISO 15444-1 A.5.1).
struct Siz {
    /// Where the codestream starts.
    start: usize,
    size: StreamSize,
    precision: u16,
    signed: bool,
}

impl Siz {
    fn read(stream: &[u8]) -> Result<Self, Error> {
        // A raw codestream, or one inside a JP2 file.
        let start = stream
            .windows(4)
            .take(4096)
            .position(|w| w == [0xFF, 0x4F, 0xFF, 0x51])
            .ok_or_else(|| failed("no codestream".to_owned()))?;
        let b = stream
            .get(start + 4..start + 4 + 41)
            .ok_or_else(|| failed("the size marker is cut off".to_owned()))?;
        let u32_at = |n: usize| u32::from_be_bytes([b[n], b[n + 1], b[n + 2], b[n + 3]]);
        let (x1, y1, x0, y0) = (u32_at(4), u32_at(8), u32_at(12), u32_at(16));
        let (tile_x, tile_y) = (u32_at(20), u32_at(24));
        let samples = usize::from(u16::from_be_bytes([b[36], b[37]]));
        let columns = x1.saturating_sub(x0) as usize;
        let rows = y1.saturating_sub(y0) as usize;
        if tile_x == 0 || tile_y == 0 {
            return Err(failed("tiles of no size".to_owned()));
        }
        let tiles = (u64::from(x1).div_ceil(u64::from(tile_x)))
            .saturating_mul(u64::from(y1).div_ceil(u64::from(tile_y)));
        // Every tile takes at least a 12-byte tile-part header.
        if tiles.saturating_mul(12) > stream.len() as u64 {
            return Err(failed(format!("{tiles} tiles in {} bytes", stream.len())));
        }
        Ok(Self {
            start,
            size: StreamSize {
                columns,
                rows,
                samples,
            },
            precision: u16::from(b[38] & 0x7F) + 1,
            signed: b[38] & 0x80 != 0,
        })
    }
}

/// Writers are known that count the parts of a tile one too low (TNsot, ISO 15444-1 A.4.2): the
/// library then stops before the last part, and fine detail is silently lost. Such counts are put
/// right in a copy.
fn with_true_part_counts(codestream: &[u8]) -> Cow<'_, [u8]> {
    // Offset of each tile part's TNsot, and its tile.
    let mut parts: Vec<(usize, u16)> = Vec::new();
    let u16_at = |n: usize| {
        Some(u16::from_be_bytes([
            *codestream.get(n)?,
            *codestream.get(n + 1)?,
        ]))
    };
    let mut at = 2; // after SOC
    while let Some(marker) = u16_at(at) {
        if marker == 0xFF90 {
            let Some(&[tile_1, tile_0, a, b, c, d, _, _]) = codestream
                .get(at + 4..at + 12)
                .and_then(|b| b.first_chunk::<8>())
            else {
                break;
            };
            parts.push((at + 11, u16::from_be_bytes([tile_1, tile_0])));
            match u32::from_be_bytes([a, b, c, d]) as usize {
                // The last part may reach to the end; shorter than its own marker it cannot be.
                ..12 => break,
                length => at = at.saturating_add(length),
            }
        } else if parts.is_empty() && marker > 0xFF4F {
            // Segments of the main header.
            let Some(length) = u16_at(at + 2).filter(|&n| n >= 2) else {
                break;
            };
            at += 2 + usize::from(length);
        } else {
            break;
        }
    }
    let mut counts: HashMap<u16, u8> = HashMap::new();
    for (_, tile) in &parts {
        let count = counts.entry(*tile).or_default();
        *count = count.saturating_add(1);
    }
    let wrong = |&&(at, tile): &&(usize, u16)| {
        let declared = codestream[at];
        declared != 0 && declared < counts[&tile]
    };
    if !parts.iter().any(|part| wrong(&part)) {
        return Cow::Borrowed(codestream);
    }
    let mut repaired = codestream.to_vec();
    for (at, tile) in &parts {
        repaired[*at] = counts[tile];
    }
    Cow::Owned(repaired)
}

fn failed(reason: String) -> Error {
    Error::Codec {
        codec: "JPEG 2000",
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SOC, a comment, then parts of tiles: (tile, declared count).
    fn stream(parts: &[(u8, u8)]) -> Vec<u8> {
        let mut out = vec![0xFF, 0x4F, 0xFF, 0x64, 0, 4, 1, 2];
        for (n, &(tile, count)) in parts.iter().enumerate() {
            out.extend([0xFF, 0x90, 0, 10, 0, tile, 0, 0, 0, 16, n as u8, count]);
            out.extend([0xFF, 0x93, 7, 7]);
        }
        out.extend([0xFF, 0xD9]);
        out
    }

    #[test]
    fn clinical_pixels_part_counts_that_are_too_low_are_put_right() {
        let check = |parts: &[(u8, u8)], wanted: &[(u8, u8)]| {
            assert_eq!(&with_true_part_counts(&stream(parts))[..], stream(wanted));
        };
        let right = [(0, 2), (1, 1), (0, 2)];
        check(&right, &right);
        check(&[(0, 1), (1, 1), (0, 1)], &right);
        // Not told at all, or more to come: nothing is known to be wrong.
        check(&[(0, 0), (0, 0)], &[(0, 0), (0, 0)]);
        check(&[(0, 3), (0, 3)], &[(0, 3), (0, 3)]);
    }

    #[test]
    fn altered_streams_never_panic() {
        let whole = stream(&[(0, 1), (1, 1), (0, 1)]);
        for cut in 0..whole.len() {
            let _ = with_true_part_counts(&whole[..cut]);
            for value in [0, 1, 0x7F, 0xFF] {
                let mut changed = whole.clone();
                changed[cut] = value;
                let _ = with_true_part_counts(&changed);
            }
        }
    }
}
