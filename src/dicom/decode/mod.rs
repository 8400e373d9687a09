//! Frames → samples: the header's word against the stream's, then the codec.
//!
//! Streams are checked before a C library sees them: their own size must be the header's.

mod color;
mod jpeg;
mod jpeg12;
mod jpeg2000;
mod jpegls;
mod native;
mod rle;

use std::borrow::Cow;

use super::dataset::Dataset;
use super::error::Error;
use super::pixels::{Frames, Photometric, PixelFormat, frame_count};
use super::syntax::{Codec, Syntax};
use crate::study::Issue;
pub(super) use color::Palette;

/// A compressed frame may always decode to this many bytes …
const FRAME_FLOOR: u64 = 64 << 20;
/// … and to this multiple of its size.
const FRAME_RATIO: u64 = 2000;

/// Samples of a frame, pixel by pixel (colors interleaved), without any LUT.
#[derive(Clone, Debug, PartialEq)]
pub enum Samples {
    /// Unsigned 8 bit (and single bits as 0 and 1).
    U8(Vec<u8>),
    /// Signed 16 bit (and narrower).
    I16(Vec<i16>),
    /// Unsigned 16 bit.
    U16(Vec<u16>),
    /// Signed 32 bit.
    I32(Vec<i32>),
    /// Unsigned 32 bit.
    U32(Vec<u32>),
    /// Float.
    F32(Vec<f32>),
    /// Double.
    F64(Vec<f64>),
}

impl Samples {
    /// Number of samples.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::I16(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A sample as a number.
    pub fn at(&self, n: usize) -> f64 {
        match self {
            Self::U8(v) => f64::from(v[n]),
            Self::I16(v) => f64::from(v[n]),
            Self::U16(v) => f64::from(v[n]),
            Self::I32(v) => f64::from(v[n]),
            Self::U32(v) => f64::from(v[n]),
            Self::F32(v) => f64::from(v[n]),
            Self::F64(v) => v[n],
        }
    }
}

/// One decoded frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Samples, rows from the top.
    pub samples: Samples,
    /// Doubts found on the way.
    pub issues: Vec<Issue>,
}

/// All frames of one file as stored, before any LUT: for readers of derived objects and for tests.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// What the header says.
    pub format: PixelFormat,
    /// In order. YBR colors are given as RGB.
    pub frames: Vec<Frame>,
}

/// The frames of one file, decoded one at a time.
pub struct FrameReader {
    dataset: Dataset,
    format: PixelFormat,
    frames: Frames,
    count: usize,
}

impl FrameReader {
    /// Finds the frames in the bytes of a file.
    ///
    /// # Errors
    /// No pixels, a header that cannot be used, frames that are not there.
    pub fn new(bytes: Vec<u8>) -> Result<Self, Error> {
        let dataset = Dataset::from_file(bytes)?;
        if dataset.pixels.is_none()
            && let Some(truncated) = dataset.truncated
        {
            return Err(truncated);
        }
        let format = PixelFormat::read(&dataset)?;
        let count = frame_count(dataset.root())?;
        super::pixels::check_length(&dataset, &format, count)?;
        let frames = Frames::locate(&dataset, count)?;
        Ok(Self {
            dataset,
            format,
            frames,
            count,
        })
    }

    /// What the header says.
    pub fn format(&self) -> &PixelFormat {
        &self.format
    }

    /// Number of frames.
    pub fn count(&self) -> usize {
        self.count
    }

    /// One frame, from 0. YBR colors are given as RGB.
    ///
    /// # Errors
    /// Anything that keeps the frame from being read.
    pub fn frame(&self, n: usize) -> Result<Frame, Error> {
        decode_frame(&self.dataset, &self.format, &self.frames, n)
    }
}

/// Decodes all frames of the bytes of a file.
///
/// # Errors
/// Anything that keeps one of the frames from being read.
pub fn decode_file(bytes: Vec<u8>) -> Result<Decoded, Error> {
    let reader = FrameReader::new(bytes)?;
    let frames = (0..reader.count())
        .map(|n| reader.frame(n))
        .collect::<Result<_, _>>()?;
    Ok(Decoded {
        format: reader.format,
        frames,
    })
}

/// Decodes one frame of a whole file.
pub(super) fn decode_frame(
    dataset: &Dataset,
    format: &PixelFormat,
    frames: &Frames,
    n: usize,
) -> Result<Frame, Error> {
    let bytes = &dataset.bytes[..];
    let fragments = match frames {
        Frames::Native(start) => {
            let samples = native::frame(dataset, format, *start, n)?;
            return Ok(Frame {
                samples: finish(samples, format, Layout::Header),
                issues: Vec::new(),
            });
        }
        Frames::Encapsulated(frames) => frames.get(n).ok_or(Error::NoSuchFrame {
            frame: n,
            found: frames.len(),
        })?,
    };
    let stream: Cow<'_, [u8]> = match &fragments[..] {
        [one] => Cow::Borrowed(&bytes[one.clone()]),
        many => many
            .iter()
            .flat_map(|f| bytes[f.clone()].iter().copied())
            .collect::<Vec<u8>>()
            .into(),
    };
    let needed = format.native_bits().div_ceil(8);
    let limit = FRAME_FLOOR.max((stream.len() as u64).saturating_mul(FRAME_RATIO));
    if needed > limit {
        return Err(Error::Unjustified {
            needed,
            stored: stream.len() as u64,
        });
    }
    let Syntax::Encapsulated(codec, _) = &dataset.syntax else {
        return Err(Error::Attribute {
            attribute: "TransferSyntaxUID",
            found: "uncompressed, but the pixel data comes in fragments".to_owned(),
        });
    };
    let mut issues = Vec::new();
    let run = || -> Result<(Samples, Layout), Error> {
        match codec {
            Codec::Uncompressed => Ok((native::samples(&stream, format, false)?, Layout::Header)),
            Codec::DeflatedFrame => {
                let bytes = native::inflate(&stream, needed)?;
                Ok((native::samples(&bytes, format, false)?, Layout::Header))
            }
            Codec::Rle => Ok((rle::frame(&stream, format)?, Layout::Interleaved)),
            Codec::Jpeg => jpeg::frame(&stream, format),
            Codec::JpegLs => Ok((jpegls::frame(&stream, format)?, Layout::Interleaved)),
            Codec::Jpeg2000 => {
                let (samples, issue) = jpeg2000::frame(&stream, format)?;
                issues.extend(issue);
                Ok((samples, Layout::Rgb))
            }
        }
    };
    // The last fence around code that is not ours: a panic there becomes this file's error.
    let (samples, layout) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run))
        .unwrap_or_else(|_| {
            Err(Error::Codec {
                codec: codec.name(),
                reason: "the decoder gave up".to_owned(),
            })
        })?;
    Ok(Frame {
        samples: finish(samples, format, layout),
        issues,
    })
}

/// How colors come out of a codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// As Planar Configuration and Photometric Interpretation say.
    Header,
    /// Pixel by pixel, in the color space of Photometric Interpretation.
    Interleaved,
    /// Pixel by pixel, already red, green, blue.
    Rgb,
}

/// Brings colors into red, green, blue, pixel by pixel.
fn finish(samples: Samples, format: &PixelFormat, layout: Layout) -> Samples {
    if format.samples != 3 {
        return samples;
    }
    let samples = if layout == Layout::Header && format.planar {
        color::interleave(samples, format.pixels())
    } else {
        samples
    };
    match format.photometric {
        Photometric::YbrFull | Photometric::YbrFull422 if layout != Layout::Rgb => {
            color::rgb_from_ybr(samples)
        }
        _ => samples,
    }
}

/// What a stream says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StreamSize {
    columns: usize,
    rows: usize,
    samples: usize,
}

impl StreamSize {
    /// The stream must have the size that memory was planned for.
    fn must_match(self, format: &PixelFormat) -> Result<(), Error> {
        let header = Self {
            columns: format.columns,
            rows: format.rows,
            samples: format.samples,
        };
        if self == header {
            return Ok(());
        }
        let words = |s: Self| format!("{}×{} pixels of {} samples", s.columns, s.rows, s.samples);
        Err(Error::StreamMismatch {
            header: words(header),
            stream: words(self),
        })
    }
}
