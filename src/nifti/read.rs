//! NIfTI-1 files → volumes and label maps.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::Error;
use super::header::{self, Datatype, HEADER_BYTES, Header};
use crate::geometry::VolumeGeometry;
use crate::study::Issue;
use crate::task::Task;
use crate::volume::{
    Calibration, LabelMap, Layout, ModalityLut, Quantity, SourceSeries, Volume, Voxels,
};

/// The largest first volume that is read. 512 × 512 × 2000 voxels of 8 bytes fit.
const LARGEST_BYTES: u64 = 4 << 30;
/// Deflate cannot do better than 1032 to 1 (RFC 1951: 258 bytes from two bits).
const LARGEST_INFLATION: u64 = 1032;

/// Whether a file's name says NIfTI.
pub fn is_nifti_name(path: &Path) -> bool {
    let name = path
        .file_name()
        .map(|n| n.to_string_lossy().to_ascii_lowercase())
        .unwrap_or_default();
    [".nii", ".nii.gz", ".hdr", ".img", ".hdr.gz", ".img.gz"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// Reads the first volume of a NIfTI-1 file.
///
/// Stored values keep their type where one of ours holds it; scaling becomes the Modality LUT.
/// 32- and 64-bit integers become 16-bit when all values fit, else `f32`. Values that are not
/// numbers are taken as 0, with an issue.
///
/// # Errors
/// Anything but a whole, readable NIfTI-1 file; [`crate::task::Cancelled`].
pub fn read(path: &Path, task: &Task) -> Result<Volume, Error> {
    let mut source = open(path)?;
    let header = &source.header;
    let bad = |field: &'static str, value: String| Error::Header {
        field,
        value,
        path: path.to_owned(),
    };

    let rank = header.dim[0];
    if !(1..=7).contains(&rank) {
        return Err(bad("dim[0]", rank.to_string()));
    }
    let mut sizes = [1_usize; 7];
    for n in 1..=rank as usize {
        sizes[n - 1] = usize::try_from(header.dim[n])
            .ok()
            .filter(|&size| size > 0)
            .ok_or_else(|| bad("dim", format!("{:?}", header.dim)))?;
    }
    let dims = [sizes[0], sizes[1], sizes[2]];
    let datatype = Datatype::from_code(header.datatype).map_err(|what| Error::Unsupported {
        what: what.to_owned(),
        path: path.to_owned(),
    })?;
    if header.bitpix as usize != datatype.bytes() * 8 {
        return Err(bad(
            "bitpix",
            format!("{} for datatype {}", header.bitpix, header.datatype),
        ));
    }

    let mut issues = Vec::new();
    let (lps_from_ijk, _, doubts) = header.lps_from_ijk(dims);
    for (code, message) in doubts {
        issues.push(match code {
            "no-pixel-spacing" => Issue::NoPixelSpacing,
            _ => Issue::Other { code, message },
        });
    }
    let geometry = VolumeGeometry::new(dims, lps_from_ijk).map_err(|source| Error::Geometry {
        source,
        path: path.to_owned(),
    })?;
    let volumes: usize = sizes[3..].iter().product();
    if volumes > 1 {
        issues.push(Issue::Other {
            code: "nifti-first-of-many",
            message: format!("the file holds {volumes} volumes: the first is used"),
        });
    }
    let layout = if dims[2] == 1 {
        issues.push(Issue::SingleSlice);
        Layout::Images
    } else {
        Layout::Volumetric
    };
    let modality_lut = scaling(header, datatype, &mut issues);

    let count = geometry.voxel_count();
    let needed = count as u64 * datatype.bytes() as u64;
    if needed > LARGEST_BYTES {
        return Err(Error::TooLarge {
            bytes: needed,
            limit: LARGEST_BYTES,
            path: path.to_owned(),
        });
    }
    if needed > source.at_most {
        return Err(Error::Truncated {
            needed,
            found: source.at_most,
            path: path.to_owned(),
        });
    }
    task.begin("Reading voxels", count);
    let voxels = source.voxels(datatype, count, task, &mut issues)?;
    let quantity = if voxels.is_color() {
        Quantity::Color
    } else {
        Quantity::Arbitrary
    };
    let calibration = if issues.contains(&Issue::NoPixelSpacing) {
        Calibration::Unknown
    } else {
        Calibration::Patient
    };
    Ok(Volume {
        geometry,
        voxels,
        modality_lut,
        quantity,
        modality: String::new(),
        layout,
        calibration,
        inverted: false,
        windows: Vec::new(),
        padding: None,
        frame_rate: None,
        source: SourceSeries {
            description: name_of(path),
            ..SourceSeries::default()
        },
        issues,
    })
}

/// Reads a label map: every value a whole number from 0 to 255.
///
/// # Errors
/// As [`read`], and [`Error::NotALabel`].
pub fn read_label_map(path: &Path, task: &Task) -> Result<LabelMap, Error> {
    let volume = read(path, task)?;
    let plain = volume.modality_lut == ModalityLut::IDENTITY;
    let labels = match volume.voxels {
        Voxels::U8(labels) if plain => labels,
        Voxels::Rgb8(_) => {
            return Err(Error::Unsupported {
                what: "a label map in color".to_owned(),
                path: path.to_owned(),
            });
        }
        _ => volume
            .values()
            .into_iter()
            .map(|value| {
                let label = value as u8;
                if f32::from(label) == value {
                    Ok(label)
                } else {
                    Err(Error::NotALabel {
                        value,
                        path: path.to_owned(),
                    })
                }
            })
            .collect::<Result<_, _>>()?,
    };
    Ok(LabelMap {
        geometry: volume.geometry,
        labels,
    })
}

fn scaling(header: &Header, datatype: Datatype, issues: &mut Vec<Issue>) -> ModalityLut {
    let (slope, intercept) = (header.scl_slope, header.scl_inter);
    if slope == 0.0 || matches!(datatype, Datatype::Rgb24 | Datatype::Rgba32) {
        return ModalityLut::IDENTITY;
    }
    if slope.is_finite() && intercept.is_finite() {
        return ModalityLut::Rescale { slope, intercept };
    }
    // Some programs write NaN for "no scaling"; both NaN is that and no doubt.
    if !(slope.is_nan() && (intercept.is_nan() || intercept == 0.0)) {
        issues.push(Issue::RescaleInvalid {
            slope: f64::from(slope),
            intercept: f64::from(intercept),
        });
    }
    ModalityLut::IDENTITY
}

/// The name without folder and NIfTI endings.
fn name_of(path: &Path) -> String {
    let name = path
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let mut name = name.as_str();
    for end in [".gz", ".nii", ".hdr", ".img"] {
        let cut = name.len().saturating_sub(end.len());
        if name.is_char_boundary(cut) && name[cut..].eq_ignore_ascii_case(end) {
            name = &name[..cut];
        }
    }
    name.to_owned()
}

/// A header and a stream that stands at the first voxel.
struct Source {
    header: Header,
    stream: Box<dyn Read>,
    /// No more voxel bytes than this can be there.
    at_most: u64,
    /// Of the file with the voxels.
    path: PathBuf,
}

fn open(path: &Path) -> Result<Source, Error> {
    let (header_path, voxel_path) = pair(path);
    let mut file = Stream::open(&header_path)?;
    let mut bytes = [0_u8; HEADER_BYTES];
    file.fill(&mut bytes)?;
    let header = header::parse(&bytes).map_err(|found| Error::NotNifti {
        found,
        path: header_path.clone(),
    })?;
    let offset = header.vox_offset;
    let in_range = offset.is_finite() && (0.0..1e9).contains(&offset);
    let mut offset = offset as u64;
    let mut file = if header.single_file {
        if header_path != voxel_path {
            // The header of a pair that calls itself a single file: a renamed file.
            return Err(Error::NotNifti {
                found: "a .hdr or .img that is a single file inside",
                path: header_path,
            });
        }
        if offset == 0 {
            offset = header::VOXEL_OFFSET as u64;
        }
        file
    } else {
        if header_path == voxel_path {
            return Err(Error::NotNifti {
                found: "the header of a .hdr/.img pair under a single file's name",
                path: header_path,
            });
        }
        Stream::open(&voxel_path)?
    };
    if !in_range || offset < file.position {
        return Err(Error::Header {
            field: "vox_offset",
            value: header.vox_offset.to_string(),
            path: header_path,
        });
    }
    file.skip_to(offset)?;
    Ok(Source {
        header,
        at_most: file.at_most.saturating_sub(offset),
        stream: file.bytes,
        path: voxel_path,
    })
}

/// The files with header and voxels: the same one, or `.hdr` and `.img`.
fn pair(path: &Path) -> (PathBuf, PathBuf) {
    let ends_in = |path: &Path, ending: &str| {
        path.extension()
            .is_some_and(|e| e.eq_ignore_ascii_case(ending))
    };
    let gz = ends_in(path, "gz");
    let inner = if gz {
        path.with_extension("")
    } else {
        path.to_owned()
    };
    if !(ends_in(&inner, "hdr") || ends_in(&inner, "img")) {
        return (path.to_owned(), path.to_owned());
    }
    let upper = inner
        .extension()
        .is_some_and(|e| e.to_string_lossy().chars().all(char::is_uppercase));
    let find = |extension: &str| {
        let extension = if upper {
            extension.to_ascii_uppercase()
        } else {
            extension.to_owned()
        };
        let plain = inner.with_extension(&extension);
        let packed = inner.with_extension(format!("{extension}.gz"));
        // The twin may be packed although this one is not.
        match (gz, plain.exists(), packed.exists()) {
            (true, _, true) | (false, false, true) => packed,
            _ => plain,
        }
    };
    (find("hdr"), find("img"))
}

/// A file, inflated if it is gzip inside, whatever its name.
struct Stream {
    bytes: Box<dyn Read>,
    position: u64,
    at_most: u64,
    path: PathBuf,
}

impl Stream {
    fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source: io::Error| io_error(source, path);
        let mut file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut magic = [0_u8; 2];
        let mut seen = 0;
        while seen < 2 {
            match file.read(&mut magic[seen..]).map_err(failed)? {
                0 => break,
                n => seen += n,
            }
        }
        let start = io::Cursor::new(magic).take(seen as u64);
        let whole = BufReader::with_capacity(1 << 16, start.chain(file));
        let (bytes, at_most): (Box<dyn Read>, u64) = if magic == [0x1f, 0x8b] {
            (
                Box::new(MultiGzDecoder::new(whole)),
                length.saturating_mul(LARGEST_INFLATION),
            )
        } else {
            (Box::new(whole), length)
        };
        Ok(Self {
            bytes,
            position: 0,
            at_most,
            path: path.to_owned(),
        })
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<(), Error> {
        self.bytes.read_exact(out).map_err(|source| {
            if source.kind() == io::ErrorKind::UnexpectedEof {
                Error::NotNifti {
                    found: "too short for a header",
                    path: self.path.clone(),
                }
            } else {
                io_error(source, &self.path)
            }
        })?;
        self.position += out.len() as u64;
        Ok(())
    }

    fn skip_to(&mut self, offset: u64) -> Result<(), Error> {
        let mut gap = (&mut self.bytes).take(offset - self.position);
        io::copy(&mut gap, &mut io::sink()).map_err(|e| io_error(e, &self.path))?;
        self.position = offset;
        Ok(())
    }
}

fn io_error(source: io::Error, path: &Path) -> Error {
    Error::Io {
        action: "reading",
        source,
        path: path.to_owned(),
    }
}

impl Source {
    fn voxels(
        &mut self,
        datatype: Datatype,
        count: usize,
        task: &Task,
        issues: &mut Vec<Issue>,
    ) -> Result<Voxels, Error> {
        let big = self.header.big_endian;
        macro_rules! numbers {
            ($t:ty, $to:expr) => {
                self.collect(count, task, |b| {
                    let x = if big {
                        <$t>::from_be_bytes(b)
                    } else {
                        <$t>::from_le_bytes(b)
                    };
                    #[allow(clippy::redundant_closure_call)]
                    ($to)(x)
                })?
            };
        }
        Ok(match datatype {
            Datatype::U8 => Voxels::U8(self.collect(count, task, |[x]: [u8; 1]| x)?),
            Datatype::I8 => {
                Voxels::I16(self.collect(count, task, |[x]: [u8; 1]| i16::from(x as i8))?)
            }
            Datatype::I16 => Voxels::I16(numbers!(i16, |x| x)),
            Datatype::U16 => Voxels::U16(numbers!(u16, |x| x)),
            Datatype::Rgb24 => Voxels::Rgb8(self.collect(count, task, |x: [u8; 3]| x)?),
            Datatype::Rgba32 => {
                issues.push(Issue::Other {
                    code: "nifti-alpha-dropped",
                    message: "the transparency of the colors is not shown".to_owned(),
                });
                Voxels::Rgb8(self.collect(count, task, |[r, g, b, _]: [u8; 4]| [r, g, b])?)
            }
            Datatype::F32 => {
                let mut bad = 0_u64;
                let values = numbers!(f32, |x: f32| finite(x, &mut bad));
                note_not_finite(bad, issues);
                Voxels::F32(values)
            }
            Datatype::F64 => {
                let (mut bad, mut rounded) = (0_u64, 0_u64);
                let values = numbers!(f64, |x: f64| {
                    let y = finite(x as f32, &mut bad);
                    // A fraction loses digits that no scanner measured; a whole number is a count.
                    rounded += u64::from(x.fract() == 0.0 && f64::from(y) != x && x.is_finite());
                    y
                });
                note_not_finite(bad, issues);
                note_rounded(rounded, issues);
                Voxels::F32(values)
            }
            Datatype::I32 => {
                let mut rounded = 0;
                let values = numbers!(i32, |x: i32| {
                    rounded += u64::from(x as f32 as f64 != f64::from(x));
                    x as f32
                });
                note_rounded(rounded, issues);
                narrowest(values)
            }
            Datatype::U32 => {
                let mut rounded = 0;
                let values = numbers!(u32, |x: u32| {
                    rounded += u64::from(x as f32 as f64 != f64::from(x));
                    x as f32
                });
                note_rounded(rounded, issues);
                narrowest(values)
            }
            Datatype::I64 => {
                let mut rounded = 0;
                let values = numbers!(i64, |x: i64| {
                    rounded += u64::from(x as f32 as i128 != i128::from(x));
                    x as f32
                });
                note_rounded(rounded, issues);
                narrowest(values)
            }
            Datatype::U64 => {
                let mut rounded = 0;
                let values = numbers!(u64, |x: u64| {
                    rounded += u64::from(x as f32 as i128 != i128::from(x));
                    x as f32
                });
                note_rounded(rounded, issues);
                narrowest(values)
            }
        })
    }

    /// Converts `count` voxels of `N` bytes block by block, so that only the result is held.
    fn collect<T, const N: usize>(
        &mut self,
        count: usize,
        task: &Task,
        mut convert: impl FnMut([u8; N]) -> T,
    ) -> Result<Vec<T>, Error> {
        let mut out = Vec::new();
        // The file's length was found to justify this; untouched pages cost nothing.
        out.try_reserve_exact(count).map_err(|_| Error::TooLarge {
            bytes: (count * size_of::<T>()) as u64,
            limit: 0,
            path: self.path.clone(),
        })?;
        let block_voxels = (1 << 18) / N;
        let mut block = vec![0_u8; block_voxels * N];
        while out.len() < count {
            task.check()?;
            let voxels = block_voxels.min(count - out.len());
            let part = &mut block[..voxels * N];
            let mut filled = 0;
            while filled < part.len() {
                match self.stream.read(&mut part[filled..]) {
                    Ok(0) => {
                        return Err(Error::Truncated {
                            needed: (count * N) as u64,
                            found: (out.len() * N + filled) as u64,
                            path: self.path.clone(),
                        });
                    }
                    Ok(n) => filled += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                        return Err(Error::Truncated {
                            needed: (count * N) as u64,
                            found: (out.len() * N + filled) as u64,
                            path: self.path.clone(),
                        });
                    }
                    Err(e) => return Err(io_error(e, &self.path)),
                }
            }
            let (voxel_bytes, _) = part.as_chunks::<N>();
            out.extend(voxel_bytes.iter().map(|&bytes| convert(bytes)));
            task.report(out.len(), count);
        }
        Ok(out)
    }
}

fn finite(x: f32, bad: &mut u64) -> f32 {
    if x.is_finite() {
        x
    } else {
        *bad += 1;
        0.0
    }
}

fn note_not_finite(count: u64, issues: &mut Vec<Issue>) {
    if count > 0 {
        issues.push(Issue::Other {
            code: "values-not-finite",
            message: format!("{count} values are not finite numbers and are taken as 0"),
        });
    }
}

fn note_rounded(count: u64, issues: &mut Vec<Issue>) {
    if count > 0 {
        issues.push(Issue::Other {
            code: "values-rounded",
            message: format!("{count} values have more digits than are kept (24 bits)"),
        });
    }
}

/// Whole numbers in 16 bits when they fit.
fn narrowest(values: Vec<f32>) -> Voxels {
    let (low, high) = values
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), &x| {
            (a.min(x), b.max(x))
        });
    if low >= -32768.0 && high <= 32767.0 {
        Voxels::I16(values.into_iter().map(|x| x as i16).collect())
    } else if low >= 0.0 && high <= 65535.0 {
        Voxels::U16(values.into_iter().map(|x| x as u16).collect())
    } else {
        Voxels::F32(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_found_from_either_file() {
        let folder = tempfile::tempdir().unwrap();
        let [h, i] = ["a.hdr", "a.img.gz"].map(|n| folder.path().join(n));
        std::fs::write(&h, b"x").unwrap();
        std::fs::write(&i, b"x").unwrap();
        assert_eq!(pair(&h), (h.clone(), i.clone()));
        assert_eq!(pair(&i), (h, i));
        let single = folder.path().join("b.nii.gz");
        assert_eq!(pair(&single), (single.clone(), single));
    }

    #[test]
    fn names_lose_their_endings() {
        for (path, name) in [
            ("/x/a.b.nii.gz", "a.b"),
            ("a.NII", "a"),
            ("a.img", "a"),
            ("é", "é"),
        ] {
            assert_eq!(name_of(Path::new(path)), name);
        }
    }

    #[test]
    fn wide_integers_are_narrowed_only_when_they_fit() {
        assert_eq!(narrowest(vec![-1.0, 7.0]), Voxels::I16(vec![-1, 7]));
        assert_eq!(narrowest(vec![0.0, 65535.0]), Voxels::U16(vec![0, 65535]));
        let wide = vec![-1.0, 65535.0];
        assert_eq!(narrowest(wide.clone()), Voxels::F32(wide));
    }
}
