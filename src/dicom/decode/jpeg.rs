//! JPEG: baseline, extended, progressive, lossless.

use super::super::error::Error;
use super::super::pixels::{Photometric, PixelFormat};
use super::{Layout, Samples, StreamSize, jpeg12, native};

/// Marker segments up to the first scan: marker byte and body.
pub(super) fn segments(stream: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut pos = 0;
    let mut ended = false;
    std::iter::from_fn(move || {
        while !ended {
            // Fill bytes may come before a marker.
            if *stream.get(pos)? != 0xFF {
                return None;
            }
            while *stream.get(pos)? == 0xFF {
                pos += 1;
            }
            let marker = *stream.get(pos)?;
            pos += 1;
            if marker == 0xD8 || marker == 0x01 {
                continue;
            }
            let length = usize::from(u16::from_be_bytes([
                *stream.get(pos)?,
                *stream.get(pos + 1)?,
            ]));
            let body = stream.get(pos + 2..pos + length.max(2))?;
            pos += length.max(2);
            ended = marker == 0xDA;
            return Some((marker, body));
        }
        None
    })
}

/// The frame header and what tells the color space.
struct Header {
    process: u8,
    precision: u8,
    size: StreamSize,
    ids: Vec<u8>,
    adobe_transform: Option<u8>,
}

fn header(stream: &[u8]) -> Result<Header, Error> {
    let mut adobe_transform = None;
    let mut frame = None;
    for (marker, body) in segments(stream) {
        match marker {
            0xEE if body.starts_with(b"Adobe") => adobe_transform = body.get(11).copied(),
            0xC0..=0xCF if !matches!(marker, 0xC4 | 0xC8 | 0xCC) && frame.is_none() => {
                if body.len() < 6 {
                    return Err(failed("the frame header is cut off"));
                }
                frame = Some((
                    marker,
                    body[0],
                    StreamSize {
                        rows: usize::from(u16::from_be_bytes([body[1], body[2]])),
                        columns: usize::from(u16::from_be_bytes([body[3], body[4]])),
                        samples: usize::from(body[5]),
                    },
                    body[6..].iter().step_by(3).copied().collect(),
                ));
            }
            _ => {}
        }
    }
    let (process, precision, size, ids) = frame.ok_or_else(|| failed("no frame header"))?;
    Ok(Header {
        process,
        precision,
        size,
        ids,
        adobe_transform,
    })
}

pub(super) fn frame(stream: &[u8], format: &PixelFormat) -> Result<(Samples, Layout), Error> {
    let header = header(stream)?;
    header.size.must_match(format)?;
    if u16::from(header.precision) > format.bits_allocated {
        return Err(failed(&format!(
            "{} bits do not fit {} allocated",
            header.precision, format.bits_allocated
        )));
    }
    let lossless = header.process == 0xC3;
    let is_rgb = match header.adobe_transform {
        Some(transform) => transform == 0,
        None => format.photometric == Photometric::Rgb || header.ids == *b"RGB",
    };
    // Bits of the stream begin at bit 0.
    let placed = PixelFormat {
        high_bit: format.bits_stored - 1,
        ..*format
    };
    if header.precision == 12 && matches!(header.process, 0xC0 | 0xC1) {
        let layout = if is_rgb {
            Layout::Rgb
        } else {
            Layout::Interleaved
        };
        return Ok((native::from_u16(jpeg12::decode(stream)?, &placed), layout));
    }
    if !matches!(header.process, 0xC0..=0xC3) {
        return Err(failed(
            "a process other than Huffman-coded sequential, progressive or lossless",
        ));
    }
    let mut decoder = jpeg_decoder::Decoder::new(stream);
    if header.size.samples == 3 {
        decoder.set_color_transform(if is_rgb || lossless {
            jpeg_decoder::ColorTransform::RGB
        } else {
            jpeg_decoder::ColorTransform::YCbCr
        });
    }
    decoder.set_max_decoding_buffer_size(format.pixels() * format.samples * 2);
    let bytes = decoder
        .decode()
        .map_err(|error| failed(&error.to_string()))?;
    let wide = header.precision > 8;
    let count = format.pixels() * format.samples;
    if bytes.len() != count * if wide { 2 } else { 1 } {
        return Err(failed("the stream is incomplete"));
    }
    let samples = match (wide, format.bits_allocated) {
        (false, 1 | 8) => native::from_u8(bytes, &placed),
        (false, _) => native::from_u16(bytes.iter().map(|&b| u16::from(b)).collect(), &placed),
        (true, _) => {
            let words = bytes
                .as_chunks()
                .0
                .iter()
                .map(|&b| u16::from_ne_bytes(b))
                .collect();
            native::from_u16(words, &placed)
        }
    };
    // The lossless process has no color transform of its own: the header's color space holds.
    let layout = if lossless {
        Layout::Interleaved
    } else {
        Layout::Rgb
    };
    Ok((samples, layout))
}

fn failed(reason: &str) -> Error {
    Error::Codec {
        codec: "JPEG",
        reason: reason.to_owned(),
    }
}
