//! JPEG 2000 and HTJ2K through OpenJPEG.

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
    let image = jpeg2k::Image::from_bytes_with(stream, strict)
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

fn failed(reason: String) -> Error {
    Error::Codec {
        codec: "JPEG 2000",
        reason,
    }
}
