//! Color spaces and palettes.

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::super::dataset::Item;
use super::super::error::Error;
use super::Samples;

/// Planes to pixels.
pub(super) fn interleave(samples: Samples, pixels: usize) -> Samples {
    fn turn<T: Copy>(v: &[T], pixels: usize) -> Vec<T> {
        (0..pixels)
            .flat_map(|n| [v[n], v[pixels + n], v[2 * pixels + n]])
            .collect()
    }
    match samples {
        Samples::U8(v) => Samples::U8(turn(&v, pixels)),
        Samples::I16(v) => Samples::I16(turn(&v, pixels)),
        Samples::U16(v) => Samples::U16(turn(&v, pixels)),
        Samples::I32(v) => Samples::I32(turn(&v, pixels)),
        Samples::U32(v) => Samples::U32(turn(&v, pixels)),
        Samples::F32(v) => Samples::F32(turn(&v, pixels)),
        Samples::F64(v) => Samples::F64(turn(&v, pixels)),
    }
}

/// YBR_FULL to RGB, 8 bit (PS3.3 C.7.6.3.1.2); other depths are left as they are.
pub(super) fn rgb_from_ybr(samples: Samples) -> Samples {
    let Samples::U8(mut v) = samples else {
        return samples;
    };
    for pixel in v.as_chunks_mut::<3>().0 {
        let [y, b, r] = pixel.map(f32::from);
        let (b, r) = (b - 128.0, r - 128.0);
        *pixel = [
            y + 1.402 * r,
            y - (0.114 * 1.772 / 0.587) * b - (0.299 * 1.402 / 0.587) * r,
            y + 1.772 * b,
        ]
        .map(|x| (x + 0.5).floor().clamp(0.0, 255.0) as u8);
    }
    Samples::U8(v)
}

/// Tables of PALETTE COLOR (PS3.3 C.7.6.3.1.5), 8 bit per channel.
#[derive(Clone, Debug)]
pub(in super::super) struct Palette {
    first: i64,
    channels: [Vec<u8>; 3],
}

impl Palette {
    pub fn read(root: Item<'_>, signed: bool) -> Result<Self, Error> {
        let missing = |found: &str| Error::Attribute {
            attribute: "PaletteColorLookupTable",
            found: found.to_owned(),
        };
        let table = |descriptor: Tag, data: Tag, segmented: Tag| {
            let [entries, first, bits, ..] = root.numbers(descriptor)[..] else {
                return Err(missing("no descriptor"));
            };
            let entries = if entries == 0.0 {
                65536
            } else {
                entries as usize
            };
            let first = if signed {
                i64::from(first as i64 as i16)
            } else {
                first as i64
            };
            let wide = bits > 8.0;
            let words = if root.has(segmented) && !root.has(data) {
                expand_segments(&root.numbers(segmented), entries)
            } else {
                let bytes = root.bytes(data).ok_or_else(|| missing("no table"))?;
                if wide || bytes.len() >= entries * 2 {
                    root.words(data)
                } else {
                    bytes.iter().map(|&b| u16::from(b)).collect()
                }
            };
            if words.is_empty() {
                return Err(missing("an empty table"));
            }
            // 16-bit tables hold the color in the high byte; some writers fill the low byte only.
            let high = wide && words.iter().any(|&w| w > 255);
            let channel = words
                .iter()
                .take(entries)
                .map(|&w| if high { (w >> 8) as u8 } else { w as u8 })
                .collect::<Vec<u8>>();
            Ok((first, channel))
        };
        let (first, red) = table(
            tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
            tags::SEGMENTED_RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        )?;
        let (_, green) = table(
            tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
            tags::SEGMENTED_GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        )?;
        let (_, blue) = table(
            tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
            tags::SEGMENTED_BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        )?;
        Ok(Self {
            first,
            channels: [red, green, blue],
        })
    }

    /// Color of a stored value; the ends of the table extend.
    pub fn color(&self, stored: i64) -> [u8; 3] {
        std::array::from_fn(|c| {
            let channel = &self.channels[c];
            let n = (stored - self.first).clamp(0, channel.len() as i64 - 1);
            channel[n as usize]
        })
    }
}

/// Segmented palettes (PS3.3 C.7.9.2): discrete, linear and indirect segments.
fn expand_segments(words: &[f64], entries: usize) -> Vec<u16> {
    let words: Vec<u16> = words.iter().map(|&w| w as u16).collect();
    let mut out: Vec<u16> = Vec::new();
    let mut pos = 0;
    while out.len() < entries && pos + 2 <= words.len() {
        pos = expand_one(&words, pos, entries, &mut out, true);
    }
    out
}

fn expand_one(
    words: &[u16],
    pos: usize,
    entries: usize,
    out: &mut Vec<u16>,
    indirect: bool,
) -> usize {
    let (op, length) = (words[pos], usize::from(words[pos + 1]));
    match op {
        0 => {
            let end = (pos + 2 + length).min(words.len());
            out.extend(&words[pos + 2..end]);
            end
        }
        1 => {
            let Some(&to) = words.get(pos + 2) else {
                return words.len();
            };
            let from = i64::from(out.last().copied().unwrap_or(0));
            let step = i64::from(to) - from;
            for n in 1..=length as i64 {
                out.push((from + step * n / (length as i64).max(1)) as u16);
            }
            pos + 3
        }
        2 if indirect && pos + 4 <= words.len() => {
            let offset = usize::from(words[pos + 2]) | usize::from(words[pos + 3]) << 16;
            // The offset is in bytes from the start of the table.
            let mut at = offset / 2;
            for _ in 0..length {
                if out.len() >= entries || at + 2 > words.len() {
                    break;
                }
                at = expand_one(words, at, entries, out, false);
            }
            pos + 4
        }
        _ => words.len(),
    }
}
