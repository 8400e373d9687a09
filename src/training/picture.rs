//! Images for training and evaluation: PNG, JPEG and NIfTI files, their masks, and resizing.

use std::path::Path;

use rayon::prelude::*;

use super::Error;
use crate::nifti;
use crate::task::Task;

/// Bytes of a PNG or JPEG file that are read at most.
const LARGEST_FILE: u64 = 256 << 20;
/// Points of an image at most: more is a mistake or an attack.
const MOST_POINTS: usize = 1 << 28;

/// An image of one channel on a grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// `[z, y, x]`; an image has one z.
    pub dims: [usize; 3],
    /// `[z][y][x]`.
    pub values: Values,
    /// Spacing along z, y, x in mm; 1 where the file says nothing.
    pub spacing_mm: [f64; 3],
}

/// Values as they were stored.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// 0 (black) to 255.
    Bytes(Vec<u8>),
    /// Modality values.
    Floats(Vec<f32>),
}

impl Picture {
    /// From bytes, 0 (black) to 255.
    ///
    /// # Panics
    /// When they do not fill the grid.
    pub fn bytes(dims: [usize; 3], bytes: Vec<u8>) -> Self {
        assert_eq!(bytes.len(), dims.iter().product::<usize>(), "a full grid");
        Self {
            dims,
            values: Values::Bytes(bytes),
            spacing_mm: [1.0; 3],
        }
    }

    /// All values as f32.
    pub fn floats(&self) -> Vec<f32> {
        match &self.values {
            Values::Bytes(bytes) => bytes.iter().copied().map(f32::from).collect(),
            Values::Floats(floats) => floats.clone(),
        }
    }

    /// Whether a file's name is that of an image that can be read.
    pub fn is_image_name(path: &Path) -> bool {
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        nifti::is_nifti_name(path)
            || ["png", "jpg", "jpeg"]
                .iter()
                .any(|known| ending.eq_ignore_ascii_case(known))
    }

    /// Reads a file by its content.
    ///
    /// # Errors
    /// [`Error::Data`], [`Error::Io`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        if nifti::is_nifti_name(path) {
            let volume = nifti::read(path, &Task::new()).map_err(|e| refused(path, &e))?;
            let [i, j, k] = volume.geometry.dims();
            let [x, y, z] = volume.geometry.spacing_mm();
            return Ok(Self {
                dims: [k, j, i],
                values: Values::Floats(volume.values()),
                spacing_mm: [z, y, x],
            });
        }
        let bytes = limited(path)?;
        match bytes.as_slice() {
            [0x89, b'P', b'N', b'G', ..] => png(path, &bytes),
            [0xFF, 0xD8, ..] => jpeg(path, &bytes),
            _ => Err(data(path, "neither PNG, JPEG nor NIfTI")),
        }
    }

    /// Reads a mask: a label per point. In PNG files without small numbers, 0 and 255 are 0 and 1.
    ///
    /// # Errors
    /// As [`Picture::read`], and for values that are no labels.
    pub fn read_mask(path: &Path, labels: usize) -> Result<([usize; 3], Vec<u8>), Error> {
        let picture = Self::read(path)?;
        let labels = match picture.values {
            Values::Bytes(mut bytes) => {
                if bytes.iter().any(|b| usize::from(*b) > labels) {
                    if let Some(odd) = bytes.iter().find(|b| !matches!(**b, 0 | 255)) {
                        let reason = format!("a mask with the value {odd}, expected 0 to {labels}");
                        return Err(data(path, &reason));
                    }
                    for b in &mut bytes {
                        *b = u8::from(*b > 0);
                    }
                }
                bytes
            }
            Values::Floats(floats) => floats
                .iter()
                .map(|v| {
                    let label = v.round();
                    if (label - v).abs() > 1e-3 || !(0.0..=labels as f32).contains(&label) {
                        let reason = format!("a mask with the value {v}, expected 0 to {labels}");
                        return Err(data(path, &reason));
                    }
                    Ok(label as u8)
                })
                .collect::<Result<_, _>>()?,
        };
        Ok((picture.dims, labels))
    }
}

fn data(path: &Path, reason: &str) -> Error {
    Error::Data {
        reason: reason.to_owned(),
        path: path.to_owned(),
    }
}

fn refused(path: &Path, error: &dyn std::error::Error) -> Error {
    data(path, &format!("cannot be read ({error})"))
}

pub(super) fn limited(path: &Path) -> Result<Vec<u8>, Error> {
    use std::io::Read;
    let io = |source| Error::Io {
        action: "read",
        source,
        path: path.to_owned(),
    };
    let file = std::fs::File::open(path).map_err(io)?;
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(data(path, &format!("larger than {LARGEST_FILE} bytes")));
    }
    Ok(bytes)
}

/// Gray from red, green, blue (ITU-R BT.601), as image libraries convert.
fn gray(r: u8, g: u8, b: u8) -> u8 {
    let sum = 299 * u32::from(r) + 587 * u32::from(g) + 114 * u32::from(b);
    ((sum + 500) / 1000) as u8
}

fn png(path: &Path, bytes: &[u8]) -> Result<Picture, Error> {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
    // Palettes and few bits become bytes, 16 bits their upper byte.
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(|e| refused(path, &e))?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    check_size(path, width, height)?;
    let size = reader
        .output_buffer_size()
        .ok_or_else(|| data(path, "too large"))?;
    let mut pixels = vec![0; size];
    let frame = reader
        .next_frame(&mut pixels)
        .map_err(|e| refused(path, &e))?;
    pixels.truncate(frame.buffer_size());
    let channels = frame.color_type.samples();
    one_channel(path, &pixels, [1, height, width], channels)
}

fn jpeg(path: &Path, bytes: &[u8]) -> Result<Picture, Error> {
    let mut decoder = jpeg_decoder::Decoder::new(bytes);
    decoder.read_info().map_err(|e| refused(path, &e))?;
    let info = decoder.info().ok_or_else(|| data(path, "no JPEG header"))?;
    let (width, height) = (usize::from(info.width), usize::from(info.height));
    check_size(path, width, height)?;
    let pixels = decoder.decode().map_err(|e| refused(path, &e))?;
    let channels = match info.pixel_format {
        jpeg_decoder::PixelFormat::L8 => 1,
        jpeg_decoder::PixelFormat::RGB24 => 3,
        other => return Err(data(path, &format!("a JPEG of {other:?}"))),
    };
    one_channel(path, &pixels, [1, height, width], channels)
}

fn check_size(path: &Path, width: usize, height: usize) -> Result<(), Error> {
    match width.checked_mul(height) {
        Some(1..=MOST_POINTS) => Ok(()),
        _ => Err(data(path, &format!("an image of {width} × {height}"))),
    }
}

fn one_channel(
    path: &Path,
    pixels: &[u8],
    dims: [usize; 3],
    channels: usize,
) -> Result<Picture, Error> {
    let points: usize = dims.iter().product();
    if pixels.len() != points * channels {
        return Err(data(path, "pixels do not fill the image"));
    }
    let bytes = match channels {
        1 => pixels.to_vec(),
        2 => pixels.chunks_exact(2).map(|p| p[0]).collect(),
        _ => {
            let colors = pixels.chunks_exact(channels);
            colors.map(|p| gray(p[0], p[1], p[2])).collect()
        }
    };
    Ok(Picture::bytes(dims, bytes))
}

/// Resizes a plane by triangles that widen where it gets smaller, so that nothing is skipped
/// (as image libraries do; edges repeat).
pub fn resize_plane(values: &[f32], [ny, nx]: [usize; 2], [my, mx]: [usize; 2]) -> Vec<f32> {
    if [ny, nx] == [my, mx] {
        return values.to_vec();
    }
    let across = weights(nx, mx);
    let along = weights(ny, my);
    let mut rows = vec![0.0; ny * mx];
    rows.par_chunks_mut(mx.max(1))
        .zip(values.par_chunks(nx.max(1)))
        .for_each(|(to, from)| {
            for (to, (first, w)) in to.iter_mut().zip(&across) {
                *to = w.iter().zip(&from[*first..]).map(|(w, v)| w * v).sum();
            }
        });
    let mut out = vec![0.0; my * mx];
    out.par_chunks_mut(mx.max(1))
        .zip(along.par_iter())
        .for_each(|(to, (first, w))| {
            for (n, w) in w.iter().enumerate() {
                let from = &rows[(first + n) * mx..(first + n + 1) * mx];
                to.iter_mut().zip(from).for_each(|(to, v)| *to += w * v);
            }
        });
    out
}

/// For each of `m` points: the first of `n` points that counts and all weights, whose sum is 1.
fn weights(n: usize, m: usize) -> Vec<(usize, Vec<f32>)> {
    let scale = n as f64 / m as f64;
    let reach = scale.max(1.0);
    (0..m)
        .map(|i| {
            let center = (i as f64 + 0.5) * scale;
            let first = (center - reach).floor().max(0.0) as usize;
            let last = ((center + reach).ceil() as usize).min(n);
            let mut all: Vec<f64> = (first..last)
                .map(|p| (1.0 - ((p as f64 + 0.5 - center) / reach).abs()).max(0.0))
                .collect();
            let sum: f64 = all.iter().sum();
            for w in &mut all {
                *w /= sum;
            }
            (first, all.into_iter().map(|w| w as f32).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_are_resized_as_by_image_libraries() {
        let ramp: Vec<f32> = (0..8 * 12).map(|n| (n % 12) as f32).collect();
        // Pillow 13.0, `resize((7, 5), BILINEAR)` of the same ramp as 32-bit floats: every row.
        let pillow = [
            0.485_714_3,
            2.046_511_7,
            3.853_658_4,
            5.5,
            7.146_341_3,
            8.953_488,
            10.514_286,
        ];
        let got = resize_plane(&ramp, [8, 12], [5, 7]);
        for (n, got) in got.iter().enumerate() {
            assert!((got - pillow[n % 7]).abs() < 1e-5, "{got} at {n}");
        }
        // A whole factor keeps a ramp, away from the edges, which repeat.
        for (ny, nx) in [(16, 24), (4, 6)] {
            let got = resize_plane(&ramp, [8, 12], [ny, nx]);
            for (n, got) in got.iter().enumerate() {
                let want = ((n % nx) as f32 + 0.5) * 12.0 / nx as f32 - 0.5;
                if (2.0..10.0).contains(&want) {
                    assert!((got - want).abs() < 1e-5, "{got} {want}");
                }
            }
        }
    }

    #[test]
    fn a_mean_survives_shrinking() {
        let values: Vec<f32> = (0..64 * 64).map(|n| ((n * 7919) % 256) as f32).collect();
        let mean = |v: &[f32]| v.iter().sum::<f32>() / v.len() as f32;
        let small = resize_plane(&values, [64, 64], [16, 16]);
        assert!((mean(&small) - mean(&values)).abs() < 2.0);
    }
}
