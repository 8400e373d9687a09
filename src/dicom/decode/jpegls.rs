//! JPEG-LS through CharLS.

use super::super::error::Error;
use super::super::pixels::PixelFormat;
use super::{Samples, StreamSize, native};

pub(super) fn frame(stream: &[u8], format: &PixelFormat) -> Result<Samples, Error> {
    let (size, precision, interleaved) = header(stream)?;
    size.must_match(format)?;
    if u16::from(precision) > format.bits_allocated {
        return Err(failed(&format!(
            "{precision} bits do not fit {} allocated",
            format.bits_allocated
        )));
    }
    let mut bytes = charls::CharLS::default()
        .decode(stream)
        .map_err(|error| failed(&error.to_string()))?;
    let wide = precision > 8;
    let pixels = format.pixels();
    if bytes.len() < pixels * format.samples * if wide { 2 } else { 1 } {
        return Err(failed("fewer bytes than pixels"));
    }
    if !interleaved && format.samples == 3 && !wide {
        bytes = (0..pixels)
            .flat_map(|n| [bytes[n], bytes[pixels + n], bytes[2 * pixels + n]])
            .collect();
    }
    // The stream's bits begin at bit 0.
    let placed = PixelFormat {
        high_bit: format.bits_stored - 1,
        ..*format
    };
    Ok(if format.bits_allocated == 8 {
        native::from_u8(bytes, &placed)
    } else if wide {
        let words = bytes
            .as_chunks()
            .0
            .iter()
            .map(|&b| u16::from_le_bytes(b))
            .collect();
        native::from_u16(words, &placed)
    } else {
        native::from_u16(bytes.iter().map(|&b| u16::from(b)).collect(), &placed)
    })
}

/// Size and precision of SOF55, and whether the first scan interleaves components.
fn header(stream: &[u8]) -> Result<(StreamSize, u8, bool), Error> {
    let mut found = None;
    for (marker, body) in super::jpeg::segments(stream) {
        match (marker, found) {
            (0xF7, None) if body.len() >= 6 => {
                found = Some((
                    StreamSize {
                        rows: usize::from(u16::from_be_bytes([body[1], body[2]])),
                        columns: usize::from(u16::from_be_bytes([body[3], body[4]])),
                        samples: usize::from(body[5]),
                    },
                    body[0],
                ));
            }
            (0xDA, Some((size, precision))) => {
                let components = usize::from(*body.first().unwrap_or(&0));
                let interleave = body.get(2 + 2 * components).copied().unwrap_or(0);
                return Ok((size, precision, interleave != 0));
            }
            _ => {}
        }
    }
    Err(failed("no frame header"))
}

fn failed(reason: &str) -> Error {
    Error::Codec {
        codec: "JPEG-LS",
        reason: reason.to_owned(),
    }
}
