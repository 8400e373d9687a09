//! Pixels that are really changed: every pixel of a mask gets one value, all others stay.
//!
//! Native pixels are changed where they lie. Compressed ones are decoded and written native, explicit
//! VR little endian. What comes out is decoded again and held against what went in: inside of the mask
//! one value, outside every sample as it was.

use super::text::Region;
use crate::dicom::{FrameReader, Photometric, PixelFormat, Samples, Tree, TreeNode};

/// Which pixels of which frames.
#[derive(Clone, Debug)]
pub(super) enum Mask {
    /// The same ones in every frame; row by row.
    Every(Vec<bool>),
    /// A mask for each frame.
    Each(Vec<Vec<bool>>),
}

impl Mask {
    fn of_frame(&self, n: usize) -> &[bool] {
        match self {
            Self::Every(mask) => mask,
            Self::Each(masks) => masks.get(n).map_or(&[], Vec::as_slice),
        }
    }

    fn of_frame_mut(&mut self, n: usize) -> &mut [bool] {
        match self {
            Self::Every(mask) => mask,
            Self::Each(masks) => masks.get_mut(n).map_or(&mut [], Vec::as_mut_slice),
        }
    }

    /// Rectangles in an image; what reaches over the edge is cut.
    pub(super) fn of_regions(regions: &[Region], columns: usize, rows: usize) -> Self {
        let mut mask = vec![false; columns * rows];
        for r in regions {
            let right = r.x.saturating_add(r.width).min(columns);
            let bottom = r.y.saturating_add(r.height).min(rows);
            for y in r.y.min(bottom)..bottom {
                mask[y * columns + r.x.min(right)..y * columns + right].fill(true);
            }
        }
        Self::Every(mask)
    }
}

/// What a mask is filled with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ink {
    /// The darkest value of the image; black in colors.
    Darkest,
    /// A stored value, as near as the pixels can hold it.
    Value(f64),
}

/// Native pixels may always take this many bytes …
const FLOOR: u64 = 256 << 20;
/// … and this multiple of the compressed ones.
const RATIO: u64 = 400;

/// Whether the pixel data of a file justify so many bytes.
pub(super) fn justifies(tree: &Tree, bytes: u64) -> bool {
    bytes <= FLOOR.max((tree.pixels().len() as u64).saturating_mul(RATIO))
}

/// Fills the pixels of a mask and says so in the attributes of the image.
///
/// # Errors
/// Pixels that cannot be decoded, of a kind that is not known, or that are not as asked for afterwards.
pub(super) fn fill(tree: &mut Tree, mut mask: Mask, ink: Ink) -> Result<(), &'static str> {
    const UNREADABLE: &str = "pixels to redact cannot be decoded";
    let before = tree.frames().map_err(|_| UNREADABLE)?;
    let format = *before.format();
    if format.float {
        return Err("floating-point pixels cannot be redacted");
    }
    let (pixels, count) = (format.pixels(), before.count());
    if (0..count).any(|n| mask.of_frame(n).len() != pixels) {
        return Err("the mask of a redaction has another size than the image");
    }
    if tree.is_lossy() || tree.text_of(0x0028_2110) == "01" {
        tree.put(TreeNode::new(0x0028_2110, *b"CS", "01"));
    }
    if tree.encapsulated() {
        unpack(tree, &before).map_err(|_| UNREADABLE)?;
    }
    let now = *tree.frames().map_err(|_| UNREADABLE)?.format();
    if now.photometric == Photometric::YbrFull422 {
        whole_pairs(&mut mask, count);
    }
    if matches!(now.photometric, Photometric::YbrRct | Photometric::YbrIct) {
        return Err("native pixels in the colors of JPEG 2000 are not known");
    }
    let inks = inks(&before, &now, ink).map_err(|_| UNREADABLE)?;
    paint(tree, &now, count, &mask, inks)?;
    let mut image_type: Vec<String> = tree
        .text_of(0x0008_0008)
        .split('\\')
        .map(str::to_owned)
        .collect();
    // PS3.3 C.7.6.1.1.2: its pixels are no longer those of the acquisition.
    "DERIVED".clone_into(&mut image_type[0]);
    if image_type.len() < 2 {
        image_type.push("PRIMARY".to_owned());
    }
    tree.put(TreeNode::new(0x0008_0008, *b"CS", image_type.join("\\")));
    guard(&before, tree, &mask)
}

/// Compressed frames as native ones.
fn unpack(tree: &mut Tree, frames: &FrameReader) -> Result<(), Box<dyn std::error::Error>> {
    let format = frames.format();
    let samples = format.pixels() as u64 * format.samples as u64;
    let bits = u64::from(format.bits_allocated);
    let bytes = (samples * bits)
        .checked_mul(frames.count() as u64)
        .ok_or("too large")?
        .div_ceil(8);
    if !justifies(tree, bytes) || bytes > u64::from(u32::MAX) - 2 {
        return Err("more pixels than the file can justify".into());
    }
    let mut native: Vec<u8> = Vec::new();
    let mut bit = 0_usize;
    for n in 0..frames.count() {
        let frame = frames.frame(n)?;
        if frame.samples.len() as u64 != samples {
            return Err("a frame of another size".into());
        }
        for at in 0..frame.samples.len() {
            let value = frame.samples.at(at) as i64;
            match format.bits_allocated {
                1 => {
                    if bit.is_multiple_of(8) {
                        native.push(0);
                    }
                    native[bit / 8] |= ((value & 1) as u8) << (bit % 8);
                    bit += 1;
                }
                bits => native.extend_from_slice(&value.to_le_bytes()[..usize::from(bits / 8)]),
            }
        }
    }
    let wide = format.bits_allocated > 8;
    tree.unpack_pixels(if wide { *b"OW" } else { *b"OB" }, &native);
    tree.put_word(0x0028_0102, format.bits_stored - 1);
    if format.samples == 3 {
        tree.put(TreeNode::new(0x0028_0004, *b"CS", "RGB"));
        tree.put_word(0x0028_0006, 0);
    }
    // Extended offsets and lengths of fragments that are no more.
    tree.root
        .retain(|node| !matches!(node.tag, 0x7FE0_0001..=0x7FE0_0003));
    Ok(())
}

/// Pixels of YBR_FULL_422 share their colors in pairs.
fn whole_pairs(mask: &mut Mask, count: usize) {
    let frames = if matches!(mask, Mask::Every(_)) {
        1
    } else {
        count
    };
    for n in 0..frames {
        for pair in mask.of_frame_mut(n).chunks_mut(2) {
            if pair.contains(&true) {
                pair.fill(true);
            }
        }
    }
}

/// Stored values of the ink, one for each sample.
fn inks(
    before: &FrameReader,
    now: &PixelFormat,
    ink: Ink,
) -> Result<[i64; 3], crate::dicom::Error> {
    let middle = 1_i64 << (now.bits_stored - 1);
    match (now.samples, now.photometric) {
        (3, Photometric::YbrFull | Photometric::YbrFull422) => return Ok([0, middle, middle]),
        (3, _) => return Ok([0; 3]),
        _ => {}
    }
    let (lowest, highest) = if now.signed {
        (-middle, middle - 1)
    } else {
        (0, 2 * middle - 1)
    };
    let value = match ink {
        Ink::Value(value) => (value.round() as i64).clamp(lowest, highest),
        Ink::Darkest => {
            let (mut low, mut high) = (highest, lowest);
            for n in 0..before.count() {
                let samples = before.frame(n)?.samples;
                for at in 0..samples.len() {
                    let value = samples.at(at) as i64;
                    (low, high) = (low.min(value), high.max(value));
                }
            }
            if now.photometric == Photometric::Monochrome1 {
                high
            } else {
                low
            }
        }
    };
    Ok([value; 3])
}

/// Writes the ink into native pixels.
fn paint(
    tree: &mut Tree,
    format: &PixelFormat,
    count: usize,
    mask: &Mask,
    inks: [i64; 3],
) -> Result<(), &'static str> {
    const SHORT: &str = "pixel data shorter than its declared size";
    let pixels = format.pixels();
    let size = usize::from(format.bits_allocated / 8);
    // Samples of 8 bits in words of 16: the bytes of each pair are swapped (PS3.5 8.1.1, annex D).
    let swapped = tree.big_endian() && size == 1 && tree.pixel_vr() == *b"OW";
    if swapped && pixels * format.samples % 2 == 1 {
        return Err("bytes in words over the end of a frame are not known");
    }
    let big_endian = tree.big_endian();
    // Values that do not begin at the lowest bit.
    let shift = u32::from((format.high_bit + 1).saturating_sub(format.bits_stored));
    let inks = inks.map(|ink| ink << shift);
    let halved = format.photometric == Photometric::YbrFull422 && !format.planar;
    let bytes = tree.pixels_mut();
    for n in 0..count {
        for (at, _) in mask.of_frame(n).iter().enumerate().filter(|(_, m)| **m) {
            if size == 0 {
                let bit = n * pixels + at;
                let byte = bytes.get_mut(bit / 8).ok_or(SHORT)?;
                *byte = *byte & !(1 << (bit % 8)) | ((inks[0] & 1) as u8) << (bit % 8);
                continue;
            }
            if halved {
                let pair = (n * pixels + at / 2 * 2) * 2;
                let four = bytes.get_mut(pair..pair + 4).ok_or(SHORT)?;
                four.copy_from_slice(&[inks[0], inks[0], inks[1], inks[2]].map(|ink| ink as u8));
                continue;
            }
            for (sample, ink) in inks.iter().enumerate().take(format.samples) {
                let place = if format.planar {
                    (n * format.samples + sample) * pixels + at
                } else {
                    (n * pixels + at) * format.samples + sample
                };
                let place = if swapped { place ^ 1 } else { place } * size;
                let to = bytes.get_mut(place..place + size).ok_or(SHORT)?;
                let value = ink.to_le_bytes();
                to.copy_from_slice(&value[..size]);
                if big_endian {
                    to.reverse();
                }
            }
        }
    }
    Ok(())
}

/// Holds the new pixels against the old ones.
fn guard(before: &FrameReader, tree: &Tree, mask: &Mask) -> Result<(), &'static str> {
    const WRONG: &str = "redacted pixels are not what was asked for";
    let after = tree.frames().map_err(|_| WRONG)?;
    let (old_format, new_format) = (before.format(), after.format());
    if before.count() != after.count()
        || old_format.pixels() != new_format.pixels()
        || old_format.samples != new_format.samples
    {
        return Err(WRONG);
    }
    let samples = old_format.samples;
    let mut inside: Option<[f64; 3]> = None;
    for n in 0..before.count() {
        let (old, new) = (before.frame(n), after.frame(n));
        let (Ok(old), Ok(new)) = (old, new) else {
            return Err(WRONG);
        };
        if old.samples.len() != new.samples.len() {
            return Err(WRONG);
        }
        let pixel = |from: &Samples, at: usize| -> [f64; 3] {
            std::array::from_fn(|s| from.at(at * samples + s.min(samples - 1)))
        };
        for (at, &covered) in mask.of_frame(n).iter().enumerate() {
            let value = pixel(&new.samples, at);
            let fine = if covered {
                *inside.get_or_insert(value) == value
            } else {
                value == pixel(&old.samples, at)
            };
            if !fine {
                return Err(WRONG);
            }
        }
    }
    Ok(())
}
