//! RLE lossless (PS3.5 annex G), for samples of 1, 8, 16 and 32 bits.

use super::super::error::Error;
use super::super::pixels::PixelFormat;
use super::{Samples, native};

/// Decodes one frame; runs that go beyond the frame are an error.
pub(super) fn frame(stream: &[u8], format: &PixelFormat) -> Result<Samples, Error> {
    let sample_bytes = usize::from(format.bits_allocated.div_ceil(8));
    let wanted = sample_bytes * format.samples;
    let pixels = if format.bits_allocated == 1 {
        format.pixels().div_ceil(8)
    } else {
        format.pixels()
    };
    let header = stream
        .get(..64)
        .ok_or_else(|| damaged("the header is cut off"))?;
    let word = |n: usize| {
        u32::from_le_bytes([
            header[n * 4],
            header[n * 4 + 1],
            header[n * 4 + 2],
            header[n * 4 + 3],
        ]) as usize
    };
    let count = word(0);
    if count != wanted || count > 15 {
        return Err(damaged(&format!("{count} segments, expected {wanted}")));
    }
    // Segments hold one byte of one sample each, the most significant byte first.
    let mut bytes = vec![0_u8; pixels * wanted];
    for segment in 0..count {
        let start = word(segment + 1);
        let end = if segment + 1 < count {
            word(segment + 2)
        } else {
            stream.len()
        };
        let packed = stream
            .get(start..end.max(start))
            .filter(|_| start >= 64)
            .ok_or_else(|| damaged("a segment lies outside of the frame"))?;
        let (sample, byte) = (segment / sample_bytes, segment % sample_bytes);
        let offset = sample * sample_bytes + (sample_bytes - 1 - byte);
        unpack(packed, pixels, |n, value| {
            bytes[n * wanted + offset] = value;
        })?;
    }
    let interleaved = PixelFormat {
        planar: false,
        photometric: match format.photometric {
            // RLE never halves the color differences.
            super::Photometric::YbrFull422 => super::Photometric::YbrFull,
            other => other,
        },
        ..*format
    };
    native::samples(&bytes, &interleaved, false)
}

/// PackBits until `pixels` bytes are out.
fn unpack(packed: &[u8], pixels: usize, mut set: impl FnMut(usize, u8)) -> Result<(), Error> {
    let mut out = 0;
    let mut pos = 0;
    while out < pixels {
        let control = *packed
            .get(pos)
            .ok_or_else(|| damaged("a segment ends before the frame is full"))?;
        pos += 1;
        match control as i8 {
            -128 => {}
            n @ 0.. => {
                let run = packed
                    .get(pos..=pos + n as usize)
                    .ok_or_else(|| damaged("a literal run is cut off"))?;
                pos += run.len();
                if out + run.len() > pixels {
                    return Err(damaged("a run goes beyond the frame"));
                }
                for &value in run {
                    set(out, value);
                    out += 1;
                }
            }
            n => {
                let value = *packed
                    .get(pos)
                    .ok_or_else(|| damaged("a repeated byte is cut off"))?;
                pos += 1;
                let run = 1 - isize::from(n);
                if out + run as usize > pixels {
                    return Err(damaged("a run goes beyond the frame"));
                }
                for _ in 0..run {
                    set(out, value);
                    out += 1;
                }
            }
        }
    }
    // What is left may only be padding; a stream that goes on holds another image than the header says.
    if packed.len() - pos > 2 {
        return Err(damaged("a segment goes on beyond the frame"));
    }
    Ok(())
}

fn damaged(reason: &str) -> Error {
    Error::Codec {
        codec: "RLE",
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standards_example_of_packbits_unpacks() {
        // Apple's and TIFF 6.0's example.
        let packed = [
            0xFE, 0xAA, 0x02, 0x80, 0x00, 0x2A, 0xFD, 0xAA, 0x03, 0x80, 0x00, 0x2A, 0x22, 0xF7,
            0xAA,
        ];
        let mut out = vec![0; 24];
        unpack(&packed, 24, |n, v| out[n] = v).unwrap();
        let mut expected = vec![0xAA, 0xAA, 0xAA, 0x80, 0x00, 0x2A];
        expected.extend([0xAA; 4]);
        expected.extend([0x80, 0x00, 0x2A, 0x22]);
        expected.extend([0xAA; 10]);
        assert_eq!(out, expected);
    }
}
