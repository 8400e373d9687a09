//! A frame's bytes → stored values or colors.

use std::panic::catch_unwind;

use dicom_dictionary_std::tags;

use super::attributes::{Object, float, int};
use super::file::ParsedFile;
use super::header::PixelFormat;
use super::structure::PixelData;
use super::{jpeg12, palette, rle};
use crate::volume::Voxels;

/// Largest frame: 32768 × 32768 pixels.
const MOST_PIXELS: usize = 1 << 30;

/// Decodes a frame of a file that was read whole.
///
/// # Errors
/// What is wrong, in words. Memory is taken only when the data can fill it.
pub fn frame(
    file: &ParsedFile,
    format: &PixelFormat,
    frames: usize,
    frame: usize,
) -> Result<Voxels, String> {
    let pixels = format
        .rows
        .checked_mul(format.columns)
        .filter(|n| *n <= MOST_PIXELS);
    let pixels =
        pixels.ok_or_else(|| format!("an image of {} × {} pixels", format.columns, format.rows))?;
    match &file.structure.pixels {
        None => Err("it has no pixel data".to_owned()),
        Some((element @ (0x0008 | 0x0009), PixelData::Native { value, .. })) => {
            let size = if *element == 0x0008 { 4 } else { 8 };
            let bytes = native(&file.data[value.clone()], pixels * size, frame)?;
            Ok(Voxels::F32(floats(bytes, size, file.big_endian)))
        }
        Some((_, PixelData::Native { value, .. })) => {
            let data = &file.data[value.clone()];
            if format.bits_allocated == 1 {
                return one_bit(data, pixels, frame);
            }
            if format.photometric == "YBR_FULL_422" && format.bits_allocated == 8 {
                let bytes = native(data, pixels * 2, frame)?;
                return Ok(Voxels::Rgb8(ybr_422(bytes)));
            }
            let bytes = native(
                data,
                pixels * format.samples * format.bits_allocated / 8,
                frame,
            )?;
            let swapped: Vec<u8>;
            let bytes = if file.big_endian && format.bits_allocated > 8 {
                let size = format.bits_allocated / 8;
                swapped = bytes
                    .chunks_exact(size)
                    .flat_map(|w| w.iter().rev().copied())
                    .collect();
                &swapped
            } else {
                bytes
            };
            samples_to_voxels(
                file,
                format,
                pixels,
                bytes,
                format.planar,
                format.bits_stored,
                false,
            )
        }
        Some((_, PixelData::Encapsulated { offsets, fragments })) => {
            let data = encapsulated(file, offsets, fragments, frames, frame)?;
            compressed(file, format, pixels, &data)
        }
    }
}

fn native(data: &[u8], size: usize, frame: usize) -> Result<&[u8], String> {
    let start = frame.checked_mul(size);
    let range = start.and_then(|start| Some(start..start.checked_add(size)?));
    range.and_then(|range| data.get(range)).ok_or_else(|| {
        format!(
            "the pixel data holds {} bytes, {} are needed",
            data.len(),
            size.saturating_mul(frame + 1)
        )
    })
}

fn floats(bytes: &[u8], size: usize, big_endian: bool) -> Vec<f32> {
    bytes
        .chunks_exact(size)
        .map(|w| {
            let mut w: Vec<u8> = w.to_vec();
            if big_endian {
                w.reverse();
            }
            if size == 4 {
                f32::from_le_bytes([w[0], w[1], w[2], w[3]])
            } else {
                f64::from_le_bytes([w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]]) as f32
            }
        })
        .collect()
}

fn one_bit(data: &[u8], pixels: usize, frame: usize) -> Result<Voxels, String> {
    let first = frame.saturating_mul(pixels);
    let needed = first.saturating_add(pixels).div_ceil(8);
    if data.len() < needed {
        return Err(format!(
            "the pixel data holds {} bytes, {needed} are needed",
            data.len()
        ));
    }
    // PS3.5 8.1.1: the first pixel is the lowest bit; frames follow without padding.
    Ok(Voxels::U8(
        (first..first + pixels)
            .map(|n| data[n / 8] >> (n % 8) & 1)
            .collect(),
    ))
}

/// Bytes of a frame: its fragments joined.
fn encapsulated(
    file: &ParsedFile,
    offsets: &std::ops::Range<usize>,
    fragments: &[std::ops::Range<usize>],
    frames: usize,
    frame: usize,
) -> Result<Vec<u8>, String> {
    let join = |parts: &[std::ops::Range<usize>]| {
        parts
            .iter()
            .flat_map(|part| &file.data[part.clone()])
            .copied()
            .collect()
    };
    if fragments.is_empty() {
        return Err("the pixel data holds no fragments".to_owned());
    }
    if frames <= 1 {
        return Ok(join(fragments));
    }
    if fragments.len() == frames {
        return Ok(join(&fragments[frame..=frame]));
    }
    // The basic offset table counts from the first fragment's item tag.
    let table: Vec<usize> = file.data[offsets.clone()]
        .chunks_exact(4)
        .map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]) as usize)
        .collect();
    let base = fragments[0].start - 8;
    if table.len() == frames {
        let start = base.saturating_add(table[frame]);
        let end = table
            .get(frame + 1)
            .map_or(usize::MAX, |next| base.saturating_add(*next));
        let parts: Vec<_> = fragments
            .iter()
            .filter(|f| f.start >= start + 8 && f.start < end)
            .cloned()
            .collect();
        if !parts.is_empty() {
            return Ok(join(&parts));
        }
    }
    Err(format!(
        "{} fragments for {frames} frames, without a usable offset table",
        fragments.len()
    ))
}

fn compressed(
    file: &ParsedFile,
    format: &PixelFormat,
    pixels: usize,
    data: &[u8],
) -> Result<Voxels, String> {
    let size = (format.bits_allocated / 8).max(1);
    match file.transfer_syntax.as_str() {
        "1.2.840.10008.1.2.5" => {
            if format.bits_allocated == 1 {
                let bytes = rle::decode(data, pixels.div_ceil(8), 1, 1)?;
                return one_bit(&bytes, pixels, 0);
            }
            // A run of two bytes makes at most 128: less data cannot fill the frame.
            if pixels.saturating_mul(format.samples * size) > data.len().saturating_mul(128) {
                return Err(format!(
                    "{} bytes of RLE data are too few for the image",
                    data.len()
                ));
            }
            let bytes = rle::decode(data, pixels, format.samples, size)?;
            samples_to_voxels(
                file,
                format,
                pixels,
                &bytes,
                false,
                format.bits_stored,
                false,
            )
        }
        "1.2.840.10008.1.2.8.1" => {
            let needed = (format.frame_bits()).div_ceil(8);
            let mut bytes = Vec::new();
            let limit = needed as u64 + 16;
            let mut reader = std::io::Read::take(flate2::read::DeflateDecoder::new(data), limit);
            std::io::Read::read_to_end(&mut reader, &mut bytes)
                .map_err(|_| "the deflated frame is damaged".to_owned())?;
            if format.bits_allocated == 1 {
                return one_bit(&bytes, pixels, 0);
            }
            let bytes = native(&bytes, needed, 0)?;
            samples_to_voxels(
                file,
                format,
                pixels,
                bytes,
                format.planar,
                format.bits_stored,
                false,
            )
        }
        "1.2.840.10008.1.2.4.50"
        | "1.2.840.10008.1.2.4.51"
        | "1.2.840.10008.1.2.4.57"
        | "1.2.840.10008.1.2.4.70" => jpeg(file, format, pixels, data),
        "1.2.840.10008.1.2.4.80" | "1.2.840.10008.1.2.4.81" => jpeg_ls(file, format, pixels, data),
        "1.2.840.10008.1.2.4.90"
        | "1.2.840.10008.1.2.4.91"
        | "1.2.840.10008.1.2.4.92"
        | "1.2.840.10008.1.2.4.93"
        | "1.2.840.10008.1.2.4.201"
        | "1.2.840.10008.1.2.4.202"
        | "1.2.840.10008.1.2.4.203" => jpeg_2000(file, format, pixels, data),
        other => Err(format!("transfer syntax {other} is not supported")),
    }
}

/// What a stream says of itself against the header; the stream decides nothing silently.
fn expect_size(
    format: &PixelFormat,
    columns: usize,
    rows: usize,
    components: usize,
) -> Result<(), String> {
    if (columns, rows) != (format.columns, format.rows) || components != format.samples {
        return Err(format!(
            "the stream holds {columns} × {rows} pixels of {components} samples, the header says {} × {} of {}",
            format.columns, format.rows, format.samples
        ));
    }
    Ok(())
}

fn jpeg(
    file: &ParsedFile,
    format: &PixelFormat,
    pixels: usize,
    data: &[u8],
) -> Result<Voxels, String> {
    if jpeg12::is_12_bit(data) {
        let image = jpeg12::decode(data)?;
        expect_size(format, image.columns, image.rows, 1)?;
        let bytes: Vec<u8> = image.samples.iter().flat_map(|s| s.to_le_bytes()).collect();
        let wide = PixelFormat {
            bits_allocated: 16,
            high_bit: format.bits_stored - 1,
            ..format.clone()
        };
        return samples_to_voxels(file, &wide, pixels, &bytes, false, format.bits_stored, true);
    }
    let mut decoder = jpeg_decoder::Decoder::new(data);
    decoder.set_max_decoding_buffer_size(pixels.saturating_mul(8).saturating_add(1 << 16));
    decoder
        .read_info()
        .map_err(|e| format!("the JPEG stream is damaged ({e})"))?;
    let info = decoder
        .info()
        .ok_or("the JPEG stream has no frame header")?;
    let components = match info.pixel_format {
        jpeg_decoder::PixelFormat::RGB24 => 3,
        jpeg_decoder::PixelFormat::CMYK32 => 4,
        _ => 1,
    };
    expect_size(
        format,
        usize::from(info.width),
        usize::from(info.height),
        components,
    )?;
    let lossless = info.coding_process == jpeg_decoder::CodingProcess::Lossless;
    if components == 3 {
        // DICOM's header knows whether the stream is YBR; an Adobe marker knows better.
        let ybr =
            adobe_transform(data).unwrap_or(format.photometric.starts_with("YBR") && !lossless);
        decoder.set_color_transform(if ybr {
            jpeg_decoder::ColorTransform::YCbCr
        } else {
            jpeg_decoder::ColorTransform::RGB
        });
    }
    let bytes = catch_unwind(std::panic::AssertUnwindSafe(|| decoder.decode()))
        .map_err(|_| "the JPEG stream is damaged".to_owned())?
        .map_err(|e| format!("the JPEG stream is damaged ({e})"))?;
    if components == 3 {
        let ybr = lossless && format.photometric == "YBR_FULL";
        let rgb = bytes.chunks_exact(3).map(|p| {
            if ybr {
                rgb_of_ybr(p[0], p[1], p[2])
            } else {
                [p[0], p[1], p[2]]
            }
        });
        return Ok(Voxels::Rgb8(rgb.collect()));
    }
    let wide = matches!(info.pixel_format, jpeg_decoder::PixelFormat::L16);
    let bytes: Vec<u8> = if wide {
        // jpeg-decoder gives the machine's byte order.
        bytes
            .chunks_exact(2)
            .flat_map(|w| u16::from_ne_bytes([w[0], w[1]]).to_le_bytes())
            .collect()
    } else {
        bytes
    };
    let bits = if wide { 16 } else { 8 };
    let format = PixelFormat {
        bits_allocated: bits,
        bits_stored: format.bits_stored.min(bits),
        high_bit: format.bits_stored.min(bits) - 1,
        ..format.clone()
    };
    samples_to_voxels(
        file,
        &format,
        pixels,
        &bytes,
        false,
        format.bits_stored,
        true,
    )
}

/// The transform flag of an Adobe APP14 marker: `Some(false)` for RGB.
fn adobe_transform(data: &[u8]) -> Option<bool> {
    let mut at = 2;
    loop {
        let marker = data.get(at..at + 4)?;
        if marker[0] != 0xFF || marker[1] == 0xDA {
            return None;
        }
        let length = usize::from(u16::from_be_bytes([marker[2], marker[3]]));
        if marker[1] == 0xEE && data.get(at + 4..at + 9) == Some(b"Adobe") {
            return data.get(at + 15).map(|&transform| transform != 0);
        }
        at += 2 + length.max(2);
    }
}

fn jpeg_ls(
    file: &ParsedFile,
    format: &PixelFormat,
    pixels: usize,
    data: &[u8],
) -> Result<Voxels, String> {
    let mut codec = charls::CharLS::default();
    let info = codec
        .get_frame_info(data)
        .map_err(|e| format!("the JPEG-LS stream is damaged ({e})"))?;
    expect_size(
        format,
        info.width as usize,
        info.height as usize,
        info.component_count.max(0) as usize,
    )?;
    let bits = info.bits_per_sample.clamp(1, 16) as usize;
    let bytes = codec
        .decode(data)
        .map_err(|e| format!("the JPEG-LS stream is damaged ({e})"))?;
    let size = if bits > 8 { 2 } else { 1 };
    if bytes.len() < pixels * format.samples * size {
        return Err("the JPEG-LS stream holds fewer pixels than it declares".to_owned());
    }
    // Interleave mode none gives planes: the scan header says so.
    let planar = format.samples == 3 && interleave_none(data);
    let format = PixelFormat {
        bits_allocated: size * 8,
        high_bit: bits - 1,
        ..format.clone()
    };
    samples_to_voxels(
        file,
        &format,
        pixels,
        &bytes,
        planar,
        bits.max(format.bits_stored.min(size * 8)),
        true,
    )
}

/// Interleave mode of the first scan (ISO 14495-1 C.2.3), 0 = none.
fn interleave_none(data: &[u8]) -> bool {
    let mut at = 2;
    while let Some(marker) = data.get(at..at + 4) {
        if marker[0] != 0xFF {
            return false;
        }
        let length = usize::from(u16::from_be_bytes([marker[2], marker[3]]));
        if marker[1] == 0xDA {
            let components = data.get(at + 4).map_or(0, |&n| usize::from(n));
            return data.get(at + 6 + 2 * components) == Some(&0);
        }
        at += 2 + length.max(2);
    }
    false
}

fn jpeg_2000(
    file: &ParsedFile,
    format: &PixelFormat,
    pixels: usize,
    data: &[u8],
) -> Result<Voxels, String> {
    let (columns, rows, components) = siz(data).ok_or("the JPEG 2000 stream has no size")?;
    expect_size(format, columns, rows, components)?;
    let image = catch_unwind(|| jpeg2k::Image::from_bytes(data))
        .map_err(|_| "the JPEG 2000 stream is damaged".to_owned())?
        .map_err(|e| format!("the JPEG 2000 stream is damaged ({e})"))?;
    let components = image.components();
    if components.len() < format.samples || components.iter().any(|c| c.data().len() != pixels) {
        return Err("the JPEG 2000 stream holds fewer pixels than it declares".to_owned());
    }
    if format.samples == 3 {
        let shift = components[0].precision().saturating_sub(8);
        let byte = |c: usize, n: usize| (components[c].data()[n] >> shift).clamp(0, 255) as u8;
        return Ok(Voxels::Rgb8(
            (0..pixels)
                .map(|n| [byte(0, n), byte(1, n), byte(2, n)])
                .collect(),
        ));
    }
    let precision = components[0].precision() as usize;
    let values = components[0].data();
    if precision > 16 {
        return finish(
            file,
            format,
            Voxels::F32(values.iter().map(|&v| v as f32).collect()),
        );
    }
    // The stream's own sign counts; where it is unsigned and the header says signed, the bits
    // are two's complement of the stored width.
    let reinterpret = format.signed && !components[0].is_signed();
    let shift = 32 - precision.max(1) as u32;
    let value = |v: i32| if reinterpret { v << shift >> shift } else { v };
    let voxels = if format.signed || components[0].is_signed() {
        Voxels::I16(values.iter().map(|&v| value(v) as i16).collect())
    } else if precision <= 8 {
        Voxels::U8(values.iter().map(|&v| v as u8).collect())
    } else {
        Voxels::U16(values.iter().map(|&v| v as u16).collect())
    };
    finish(file, format, voxels)
}

/// Columns, rows and components of the SIZ marker (ISO 15444-1 A.5.1).
fn siz(data: &[u8]) -> Option<(usize, usize, usize)> {
    // A codestream starts at once; in a JP2 file it follows the boxes.
    let start = if data.starts_with(&[0xFF, 0x4F]) {
        0
    } else {
        data.windows(4)
            .take(4096)
            .position(|w| w == [0xFF, 0x4F, 0xFF, 0x51])?
    };
    let siz = data.get(start + 2..start + 42)?;
    if siz[..2] != [0xFF, 0x51] {
        return None;
    }
    let u32_at =
        |n: usize| u32::from_be_bytes([siz[n], siz[n + 1], siz[n + 2], siz[n + 3]]) as usize;
    let columns = u32_at(6).checked_sub(u32_at(14))?;
    let rows = u32_at(10).checked_sub(u32_at(18))?;
    Some((
        columns,
        rows,
        usize::from(u16::from_be_bytes([siz[38], siz[39]])),
    ))
}

/// Little-endian samples → voxels: planes joined, bits masked, signs extended, colors made.
fn samples_to_voxels(
    file: &ParsedFile,
    format: &PixelFormat,
    pixels: usize,
    bytes: &[u8],
    planar: bool,
    bits_stored: usize,
    from_codec: bool,
) -> Result<Voxels, String> {
    let size = format.bits_allocated / 8;
    if bytes.len() < pixels * format.samples * size {
        return Err(format!(
            "{} bytes decoded, {} are needed",
            bytes.len(),
            pixels * format.samples * size
        ));
    }
    if format.samples == 3 {
        let at = |n: usize, c: usize| if planar { c * pixels + n } else { n * 3 + c };
        let shift = bits_stored.saturating_sub(8) as u32;
        let sample = |n: usize, c: usize| -> u8 {
            let at = at(n, c) * size;
            match size {
                1 => bytes[at],
                2 => (u16::from_le_bytes([bytes[at], bytes[at + 1]]) >> shift) as u8,
                _ => {
                    (u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
                        >> shift) as u8
                }
            }
        };
        let ybr = format.photometric == "YBR_FULL";
        let rgb = (0..pixels).map(|n| {
            let [a, b, c] = [sample(n, 0), sample(n, 1), sample(n, 2)];
            if ybr { rgb_of_ybr(a, b, c) } else { [a, b, c] }
        });
        return Ok(Voxels::Rgb8(rgb.collect()));
    }
    let shift = if from_codec {
        0
    } else {
        (format.high_bit + 1 - format.bits_stored) as u32
    };
    let stored = bits_stored.min(format.bits_allocated) as u32;
    let unused = format.bits_allocated as u32 - stored;
    let bytes = &bytes[..pixels * size];
    let voxels = match (size, format.signed) {
        (1, false) => {
            let mask = 0xFF_u8 >> unused;
            Voxels::U8(bytes.iter().map(|b| (b >> shift) & mask).collect())
        }
        (1, true) => Voxels::I16(
            bytes
                .iter()
                .map(|b| i16::from(((b >> shift << unused) as i8) >> unused))
                .collect(),
        ),
        (2, false) => {
            let mask = 0xFFFF_u16 >> unused;
            Voxels::U16(
                bytes
                    .chunks_exact(2)
                    .map(|w| (u16::from_le_bytes([w[0], w[1]]) >> shift) & mask)
                    .collect(),
            )
        }
        (2, true) => Voxels::I16(
            bytes
                .chunks_exact(2)
                .map(|w| ((u16::from_le_bytes([w[0], w[1]]) >> shift << unused) as i16) >> unused)
                .collect(),
        ),
        (4, signed) => Voxels::F32(
            bytes
                .chunks_exact(4)
                .map(|w| {
                    let raw = u32::from_le_bytes([w[0], w[1], w[2], w[3]]) >> shift << unused;
                    if signed {
                        ((raw as i32) >> unused) as f32
                    } else {
                        (raw >> unused) as f32
                    }
                })
                .collect(),
        ),
        (bytes, _) => return Err(format!("{bytes}-byte samples are not supported")),
    };
    finish(file, format, voxels)
}

/// Palette colors, where the header asks for them.
fn finish(file: &ParsedFile, format: &PixelFormat, voxels: Voxels) -> Result<Voxels, String> {
    if format.photometric == "PALETTE COLOR" {
        return palette::apply(&file.header, &voxels);
    }
    Ok(voxels)
}

/// PS3.3 C.7.6.3.1.2, YBR_FULL (ITU-R BT.601, full range).
fn rgb_of_ybr(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    let (y, cb, cr) = (f32::from(y), f32::from(cb) - 128.0, f32::from(cr) - 128.0);
    [
        y + 1.402 * cr,
        y - 0.344_136 * cb - 0.714_136 * cr,
        y + 1.772 * cb,
    ]
    .map(|c| c.round().clamp(0.0, 255.0) as u8)
}

/// Two pixels share Cb and Cr: Y1 Y2 Cb Cr.
fn ybr_422(bytes: &[u8]) -> Vec<[u8; 3]> {
    bytes
        .chunks_exact(4)
        .flat_map(|q| [rgb_of_ybr(q[0], q[2], q[3]), rgb_of_ybr(q[1], q[2], q[3])])
        .collect()
}

/// Stored values that are no image (PS3.3 C.7.5.1.1.2), inclusive.
pub fn padding(d: &Object) -> Option<(f32, f32)> {
    let value = float(d, tags::PIXEL_PADDING_VALUE)
        .or_else(|| int(d, tags::PIXEL_PADDING_VALUE).map(|n| n as f64))?;
    let limit = float(d, tags::PIXEL_PADDING_RANGE_LIMIT).unwrap_or(value);
    let (value, limit) = (value as f32, limit as f32);
    Some((value.min(limit), value.max(limit)))
}
