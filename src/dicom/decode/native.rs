//! Uncompressed samples.

use super::super::dataset::Dataset;
use super::super::error::Error;
use super::super::pixels::{Photometric, PixelFormat};
use super::Samples;

/// Frame `n` of pixel data that begins at `start`.
pub(super) fn frame(
    dataset: &Dataset,
    format: &PixelFormat,
    start: usize,
    n: usize,
) -> Result<Samples, Error> {
    let bytes = &dataset.bytes[..];
    let short = || Error::ShortPixelData {
        found: bytes.len().saturating_sub(start) as u64,
        needed: (format.native_bits().saturating_mul(n as u64 + 1)).div_ceil(8),
        columns: format.columns,
        rows: format.rows,
        frames: n + 1,
    };
    let bits = format.native_bits() as usize;
    if format.bits_allocated == 1 {
        // Frames of single bits follow each other without padding (PS3.5 8.1.1).
        let first = bits.checked_mul(n).ok_or_else(short)?;
        let last = first.checked_add(bits).ok_or_else(short)?;
        let packed = bytes
            .get(start + first / 8..start + last.div_ceil(8))
            .ok_or_else(short)?;
        return Ok(Samples::U8(unpack(packed, first % 8, bits)));
    }
    let size = bits / 8;
    let from = size
        .checked_mul(n)
        .and_then(|o| o.checked_add(start))
        .ok_or_else(short)?;
    let frame = bytes.get(from..from + size).ok_or_else(short)?;
    let big_endian = dataset.encoding.big_endian;
    // 8-bit samples in 16-bit words: each pair is swapped in big endian.
    let word = dataset.pixels.is_some_and(|p| p.vr == dicom_core::VR::OW);
    if big_endian && word && format.bits_allocated == 8 && frame.len().is_multiple_of(2) {
        let swapped: Vec<u8> = frame
            .chunks_exact(2)
            .flat_map(|pair| [pair[1], pair[0]])
            .collect();
        return samples(&swapped, format, false);
    }
    samples(frame, format, big_endian)
}

/// Raw deflate of one frame; more than `needed` (and padding) is refused.
pub(super) fn inflate(stream: &[u8], needed: u64) -> Result<Vec<u8>, Error> {
    use std::io::Read as _;
    let mut out = Vec::new();
    let limit = needed + 1024;
    let done = flate2::read::DeflateDecoder::new(stream)
        .take(limit + 1)
        .read_to_end(&mut out);
    if out.len() as u64 > limit {
        return Err(Error::Bomb { limit });
    }
    match done {
        Ok(_) => Ok(out),
        Err(error) => Err(Error::Inflate(error)),
    }
}

/// Samples of one frame from its bytes.
pub(super) fn samples(
    bytes: &[u8],
    format: &PixelFormat,
    big_endian: bool,
) -> Result<Samples, Error> {
    let needed = format.native_bits().div_ceil(8);
    let Some(bytes) = bytes.get(..needed as usize) else {
        return Err(Error::ShortPixelData {
            found: bytes.len() as u64,
            needed,
            columns: format.columns,
            rows: format.rows,
            frames: 1,
        });
    };
    let expanded;
    let bytes = if format.photometric == Photometric::YbrFull422
        && format.samples == 3
        && !format.planar
        && format.bits_allocated == 8
    {
        // PS3.3 C.7.6.3.1.2: Y Y Cb Cr for each pair of pixels.
        expanded = expand_422(bytes, format.columns);
        &expanded[..]
    } else {
        bytes
    };
    if format.float {
        return Ok(match format.bits_allocated {
            64 => Samples::F64(words(bytes, |b: [u8; 8]| {
                if big_endian {
                    f64::from_be_bytes(b)
                } else {
                    f64::from_le_bytes(b)
                }
            })),
            _ => Samples::F32(words(bytes, |b: [u8; 4]| {
                if big_endian {
                    f32::from_be_bytes(b)
                } else {
                    f32::from_le_bytes(b)
                }
            })),
        });
    }
    Ok(match format.bits_allocated {
        1 => Samples::U8(unpack(bytes, 0, format.native_bits() as usize)),
        8 => from_u8(bytes.to_vec(), format),
        16 => from_u16(
            words(bytes, |b| {
                if big_endian {
                    u16::from_be_bytes(b)
                } else {
                    u16::from_le_bytes(b)
                }
            }),
            format,
        ),
        _ => from_u32(
            words(bytes, |b| {
                if big_endian {
                    u32::from_be_bytes(b)
                } else {
                    u32::from_le_bytes(b)
                }
            }),
            format,
        ),
    })
}

fn words<const N: usize, T>(bytes: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|&b| value(b)).collect()
}

/// Bits, the lowest of a byte first.
fn unpack(bytes: &[u8], skip: usize, count: usize) -> Vec<u8> {
    (skip..skip + count)
        .map(|n| bytes[n / 8] >> (n % 8) & 1)
        .collect()
}

fn expand_422(bytes: &[u8], columns: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() / 2 * 3);
    for row in bytes.chunks_exact((columns * 2).max(1)) {
        for group in row.chunks(4) {
            match *group {
                [y0, y1, cb, cr] => out.extend([y0, cb, cr, y1, cb, cr]),
                [y, cb, ..] => out.extend([y, cb, 128]),
                _ => out.extend([0, 128, 128]),
            }
        }
    }
    out
}

/// Bits beyond the stored ones (old overlays) go away; the sign bit is carried up.
pub(super) fn from_u8(raw: Vec<u8>, format: &PixelFormat) -> Samples {
    let (shift, mask) = place(format);
    if format.signed {
        let up = 32 - u32::from(format.bits_stored);
        return Samples::I16(
            raw.iter()
                .map(|&b| (((u32::from(b) >> shift & mask) << up) as i32 >> up) as i16)
                .collect(),
        );
    }
    if format.bits_stored == 8 {
        return Samples::U8(raw);
    }
    Samples::U8(
        raw.iter()
            .map(|&b| (u32::from(b) >> shift & mask) as u8)
            .collect(),
    )
}

/// As [`from_u8`].
pub(super) fn from_u16(mut raw: Vec<u16>, format: &PixelFormat) -> Samples {
    let (shift, mask) = place(format);
    let whole = format.bits_stored == 16;
    if format.signed {
        let mut raw: Vec<i16> = bytemuck::allocation::cast_vec(raw);
        if !whole {
            let up = 16 - u32::from(format.bits_stored);
            for x in &mut raw {
                *x = ((*x as u16 >> shift) << up) as i16 >> up;
            }
        }
        return Samples::I16(raw);
    }
    if !whole {
        let mask = mask as u16;
        for x in &mut raw {
            *x = *x >> shift & mask;
        }
    }
    Samples::U16(raw)
}

/// As [`from_u8`].
pub(super) fn from_u32(mut raw: Vec<u32>, format: &PixelFormat) -> Samples {
    let (shift, mask) = place(format);
    if format.signed {
        let up = 32 - u32::from(format.bits_stored);
        return Samples::I32(
            raw.iter()
                .map(|&x| ((x >> shift) << up) as i32 >> up)
                .collect(),
        );
    }
    for x in &mut raw {
        *x = *x >> shift & mask;
    }
    Samples::U32(raw)
}

/// Position and mask of the stored bits.
fn place(format: &PixelFormat) -> (u32, u32) {
    let shift = u32::from(format.high_bit + 1 - format.bits_stored);
    let mask = u32::MAX >> (32 - u32::from(format.bits_stored));
    (shift, mask)
}
