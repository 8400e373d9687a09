//! Images for training and evaluation: PNG, JPEG and NIfTI files, their masks, and resizing.

use std::path::Path;

use super::Error;
use crate::geometry::VolumeGeometry;
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
    /// Spacing along z, y, x in mm, where the file tells it.
    pub spacing_mm: Option<[f64; 3]>,
    /// Where a volume lies in the patient, where the file tells it: models that ask for an
    /// orientation need it.
    pub geometry: Option<VolumeGeometry>,
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
            spacing_mm: None,
            geometry: None,
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
                spacing_mm: Some([z, y, x]),
                geometry: Some(volume.geometry),
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
