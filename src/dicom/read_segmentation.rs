//! DICOM SEG objects → segments, their places in the patient, and label maps.
//!
//! Reads BINARY, FRACTIONAL (cut at one half) and LABELMAP with a position in the patient, in every
//! transfer syntax that images are read in.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::compose::srgb_from_cielab;
use super::dataset::{Dataset, Item};
use super::decode::{self, Samples};
use super::pixels::{self, Frames, PixelFormat};
use super::segmentation_pixels::Pixels;
use crate::findings::{AlgorithmType, Provenance, Segment, Segmentation};
use crate::geometry::{self, DAffine3, DMat3, DVec3, VolumeGeometry};
use crate::study::{CodedConcept, Issue, Uid};
use crate::task::Task;
use crate::volume::{LabelMap, SourceSeries, Volume, resample_labels};

/// Segmentation Storage.
const SEGMENTATION: &str = "1.2.840.10008.5.1.4.1.1.66.4";
/// Label Map Segmentation Storage.
const LABEL_MAP: &str = "1.2.840.10008.5.1.4.1.1.66.7";
/// Frames may always take this many bytes, and beyond it this multiple of the file.
const LARGEST: u64 = 1 << 30;
const LARGEST_RATIO: u64 = 1000;
/// Frames whose planes lie closer than this are one slice; positions have about 1e-9 mm.
const SAME_PLANE_MM: f64 = 1e-3;

/// Why a segmentation cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadSegmentationError {
    /// No readable DICOM file.
    #[error("not a readable DICOM file: {path}")]
    Open {
        /// What the reader said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
        /// The file.
        path: PathBuf,
    },
    /// Another kind of object.
    #[error("not a DICOM segmentation (SOP class {sop_class_uid}): {path}")]
    NotASegmentation {
        /// SOP Class UID found.
        sop_class_uid: String,
        /// The file.
        path: PathBuf,
    },
    /// A required attribute is absent or unusable.
    #[error("{attribute} is absent or cannot be used: {path}")]
    Attribute {
        /// Its name.
        attribute: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A legal object of a kind that is not read.
    #[error("{what} is not supported: {path}")]
    Unsupported {
        /// The kind.
        what: String,
        /// The file.
        path: PathBuf,
    },
    /// Fewer pixels than the header promises.
    #[error("the header promises {needed} bytes of pixels, the file holds {found}: {path}")]
    Truncated {
        /// By rows, columns and frames.
        needed: u64,
        /// There.
        found: u64,
        /// The file.
        path: PathBuf,
    },
    /// Frames that form no grid.
    #[error("the frames do not form a grid ({reason}): {path}")]
    NoGrid {
        /// What stands against it.
        reason: String,
        /// The file.
        path: PathBuf,
    },
}

type Error = ReadSegmentationError;

/// One segment as described and drawn in the file.
#[derive(Clone, Debug)]
pub struct ReadSegment {
    /// Segment Number = label in the label maps made from the object; name, codes and color.
    pub segment: Segment,
    /// Segment Algorithm Type.
    pub algorithm: AlgorithmType,
    /// Segment Algorithm Name.
    pub algorithm_name: String,
    /// Algorithm Version, when the object tells.
    pub algorithm_version: String,
    /// Tracking UID.
    pub tracking_uid: Option<Uid>,
    /// Voxels set, over all frames.
    pub voxels: u64,
    /// Centroid by the frames' own positions; `None` without voxels.
    pub centroid_lps: Option<DVec3>,
}

/// A segmentation object.
#[derive(Clone, Debug)]
pub struct ReadSegmentation {
    /// SOP Instance UID.
    pub sop_instance_uid: Option<Uid>,
    /// Series Instance UID.
    pub series_instance_uid: Option<Uid>,
    /// Study Instance UID.
    pub study_instance_uid: Option<Uid>,
    /// Frame of Reference UID.
    pub frame_of_reference_uid: Option<Uid>,
    /// Series that were segmented.
    pub referenced_series: Vec<Uid>,
    /// Series Description.
    pub description: String,
    /// By number.
    pub segments: Vec<ReadSegment>,
    /// What was put right or is doubtful.
    pub issues: Vec<Issue>,
    plane: Plane,
    frames: Vec<Frame>,
    pixels: Pixels,
    path: PathBuf,
}

/// What all frames share.
#[derive(Clone, Debug)]
struct Plane {
    columns: usize,
    rows: usize,
    /// Step of one column, then of one row, LPS mm.
    along_row: DVec3,
    along_column: DVec3,
    /// Distance to the next slice, when the file tells.
    between_slices_mm: Option<f64>,
}

#[derive(Clone, Debug)]
struct Frame {
    /// 0 for frames that hold segment numbers.
    segment: u16,
    position_lps: DVec3,
    source: Option<(Uid, Option<u32>)>,
}

/// Reads a DICOM SEG.
///
/// # Errors
/// Anything but a whole segmentation object in the patient.
pub fn read_segmentation(path: &Path) -> Result<ReadSegmentation, Error> {
    let reader = Reader { path };
    let bytes = std::fs::read(path).map_err(|e| reader.unreadable(e))?;
    let mut dataset = Dataset::from_file(bytes).map_err(|e| reader.unreadable(e))?;
    // Of a segmentation every attribute matters: half an object is none.
    if let Some(error) = dataset.truncated.take() {
        return Err(reader.unreadable(error));
    }
    reader.read(&dataset)
}

struct Reader<'a> {
    path: &'a Path,
}

impl Reader<'_> {
    fn missing(&self, attribute: &'static str) -> Error {
        Error::Attribute {
            attribute,
            path: self.path.to_owned(),
        }
    }

    fn unreadable(&self, source: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::Open {
            source: Box::new(source),
            path: self.path.to_owned(),
        }
    }

    fn unsupported(&self, what: impl Into<String>) -> Error {
        Error::Unsupported {
            what: what.into(),
            path: self.path.to_owned(),
        }
    }

    fn read(&self, dataset: &Dataset) -> Result<ReadSegmentation, Error> {
        let d = dataset.root();
        let class = d.text(tags::SOP_CLASS_UID).unwrap_or_default();
        if class != SEGMENTATION && class != LABEL_MAP {
            return Err(Error::NotASegmentation {
                // Only the form of a UID is repeated: a broken file may hold anything here.
                sop_class_uid: Uid::parse(&class).map_or_else(|_| "?".into(), |u| u.to_string()),
                path: self.path.to_owned(),
            });
        }
        let kind = d.text(tags::SEGMENTATION_TYPE).unwrap_or_default();
        let rows = whole(d, tags::ROWS).filter(|&n| n > 0);
        let columns = whole(d, tags::COLUMNS).filter(|&n| n > 0);
        let rows = rows.ok_or_else(|| self.missing("Rows"))?;
        let columns = columns.ok_or_else(|| self.missing("Columns"))?;
        // Absent where a frame was cut out of an object: then there is one.
        let count = if d.has(tags::NUMBER_OF_FRAMES) {
            whole(d, tags::NUMBER_OF_FRAMES)
                .filter(|&n| n > 0)
                .ok_or_else(|| self.missing("Number of Frames"))?
        } else {
            1
        };

        let mut issues = Vec::new();
        let per_frame: Vec<Item<'_>> = d
            .items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)
            .collect();
        if per_frame.len() != count {
            return Err(self.missing("Per-frame Functional Groups Sequence"));
        }
        let pixels = self.pixels(dataset, &kind, count, &mut issues)?;
        let shared = d.item(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE);
        // A group stands with the frame or is shared (PS3.3 C.7.6.16).
        let group = |n: usize, tag: Tag| {
            per_frame[n]
                .item(tag)
                .or_else(|| shared.and_then(|s| s.item(tag)))
        };
        let plane = self.plane(columns, rows, count, &group)?;
        let frames = (0..count)
            .map(|n| self.frame(n, &kind, &group))
            .collect::<Result<Vec<_>, _>>()?;

        let mut segments = self.segments(d, &kind, &pixels)?;
        let numbered: HashMap<u16, usize> = segments
            .iter()
            .enumerate()
            .map(|(n, s)| (u16::from(s.segment.label), n))
            .collect();
        if let Some(frame) = frames
            .iter()
            .find(|f| f.segment != 0 && !numbered.contains_key(&f.segment))
        {
            return Err(self.unsupported(format!(
                "a frame of segment {}, which is not described,",
                frame.segment
            )));
        }

        let mut sums = vec![(0_u64, DVec3::ZERO); segments.len()];
        for (n, frame) in frames.iter().enumerate() {
            let mut part: HashMap<u16, (u64, u64, u64)> = HashMap::new();
            let mut last = (0_u16, (0, 0, 0));
            pixels.visit(n, rows * columns, frame.segment, |index, segment| {
                if segment != last.0 {
                    part.insert(last.0, last.1);
                    last = (segment, part.get(&segment).copied().unwrap_or_default());
                }
                let sum = &mut last.1;
                sum.0 += 1;
                sum.1 += (index % columns) as u64;
                sum.2 += (index / columns) as u64;
            });
            part.insert(last.0, last.1);
            for (segment, (voxels, i, j)) in part {
                let Some(&at) = numbered.get(&segment) else {
                    continue;
                };
                sums[at].0 += voxels;
                sums[at].1 += frame.position_lps * voxels as f64
                    + plane.along_row * i as f64
                    + plane.along_column * j as f64;
            }
        }
        for (segment, (voxels, sum)) in segments.iter_mut().zip(sums) {
            segment.voxels = voxels;
            segment.centroid_lps = (voxels > 0).then(|| sum / voxels as f64);
        }

        Ok(ReadSegmentation {
            sop_instance_uid: d.uid(tags::SOP_INSTANCE_UID),
            series_instance_uid: d.uid(tags::SERIES_INSTANCE_UID),
            study_instance_uid: d.uid(tags::STUDY_INSTANCE_UID),
            frame_of_reference_uid: d.uid(tags::FRAME_OF_REFERENCE_UID),
            referenced_series: d
                .items(tags::REFERENCED_SERIES_SEQUENCE)
                .filter_map(|item| item.uid(tags::SERIES_INSTANCE_UID))
                .collect(),
            description: d.text(tags::SERIES_DESCRIPTION).unwrap_or_default(),
            segments,
            issues,
            plane,
            frames,
            pixels,
            path: self.path.to_owned(),
        })
    }

    fn plane<'o>(
        &self,
        columns: usize,
        rows: usize,
        count: usize,
        group: &impl Fn(usize, Tag) -> Option<Item<'o>>,
    ) -> Result<Plane, Error> {
        let orientation_of = |n: usize| {
            group(n, tags::PLANE_ORIENTATION_SEQUENCE)
                .and_then(|item| numbers::<6>(item, tags::IMAGE_ORIENTATION_PATIENT))
        };
        let first = orientation_of(0).ok_or_else(|| self.missing("Image Orientation (Patient)"))?;
        for n in 1..count {
            let same = orientation_of(n)
                .is_some_and(|o| o.iter().zip(first).all(|(a, b)| (a - b).abs() < 1e-4));
            if !same {
                return Err(self.unsupported("a segmentation with frames of several orientations"));
            }
        }
        let measures = group(0, tags::PIXEL_MEASURES_SEQUENCE)
            .ok_or_else(|| self.missing("Pixel Measures Sequence"))?;
        let [between_rows_mm, between_columns_mm] = numbers::<2>(measures, tags::PIXEL_SPACING)
            .filter(|s| s.iter().all(|x| *x > 0.0))
            .ok_or_else(|| self.missing("Pixel Spacing"))?;
        let positive = |tag| {
            numbers::<1>(measures, tag)
                .map(|[x]| x)
                .filter(|x| *x > 0.0)
        };
        let row = DVec3::new(first[0], first[1], first[2]);
        let column = DVec3::new(first[3], first[4], first[5]);
        let usable = row.dot(column).abs() < 1e-3
            && (row.length() - 1.0).abs() < 1e-3
            && (column.length() - 1.0).abs() < 1e-3;
        if !usable {
            return Err(self.missing("Image Orientation (Patient)"));
        }
        Ok(Plane {
            columns,
            rows,
            along_row: row.normalize() * between_columns_mm,
            along_column: column.normalize() * between_rows_mm,
            between_slices_mm: positive(tags::SPACING_BETWEEN_SLICES)
                .or_else(|| positive(tags::SLICE_THICKNESS)),
        })
    }

    fn frame<'o>(
        &self,
        n: usize,
        kind: &str,
        group: &impl Fn(usize, Tag) -> Option<Item<'o>>,
    ) -> Result<Frame, Error> {
        let position = group(n, tags::PLANE_POSITION_SEQUENCE)
            .and_then(|item| numbers::<3>(item, tags::IMAGE_POSITION_PATIENT))
            .ok_or_else(|| self.missing("Image Position (Patient)"))?;
        let segment = if kind == "LABELMAP" {
            0
        } else {
            group(n, tags::SEGMENT_IDENTIFICATION_SEQUENCE)
                .and_then(|item| whole(item, tags::REFERENCED_SEGMENT_NUMBER))
                .and_then(|number| u16::try_from(number).ok())
                .filter(|&number| number > 0)
                .ok_or_else(|| self.missing("Referenced Segment Number"))?
        };
        let source = group(n, tags::DERIVATION_IMAGE_SEQUENCE)
            .and_then(|item| item.item(tags::SOURCE_IMAGE_SEQUENCE))
            .and_then(|item| {
                let instance = item.uid(tags::REFERENCED_SOP_INSTANCE_UID)?;
                let frame = whole(item, tags::REFERENCED_FRAME_NUMBER)
                    .and_then(|number| u32::try_from(number.checked_sub(1)?).ok());
                Some((instance, frame))
            });
        Ok(Frame {
            segment,
            position_lps: DVec3::from(position),
            source,
        })
    }

    fn pixels(
        &self,
        dataset: &Dataset,
        kind: &str,
        count: usize,
        issues: &mut Vec<Issue>,
    ) -> Result<Pixels, Error> {
        let d = dataset.root();
        let bits = whole(d, tags::BITS_ALLOCATED).ok_or_else(|| self.missing("Bits Allocated"))?;
        let expected = match kind {
            "BINARY" => bits == 1 || bits == 8,
            "FRACTIONAL" => bits == 8,
            "LABELMAP" => bits == 8 || bits == 16,
            _ => return Err(self.missing("Segmentation Type")),
        };
        if !expected {
            return Err(self.unsupported(format!("a {kind} segmentation of {bits} bits")));
        }
        if dataset.pixels.is_none() {
            return Err(self.missing("Pixel Data"));
        }
        let format = PixelFormat::read(dataset).map_err(|e| self.unreadable(e))?;
        if format.samples != 1 || format.signed {
            return Err(self.unsupported("a segmentation in colors or of signed numbers"));
        }
        let raw = Raw {
            reader: self,
            dataset,
            frames: self.locate(dataset, &format, count)?,
            format,
            count,
        };
        Ok(match (kind, bits) {
            ("BINARY", 1) => raw.bits()?,
            // One half of one: what is set at all.
            ("BINARY", _) => Pixels::Fractions {
                bytes: raw.bytes()?,
                from: 1,
            },
            ("FRACTIONAL", _) => {
                let full = whole(d, tags::MAXIMUM_FRACTIONAL_VALUE)
                    .and_then(|n| u8::try_from(n).ok())
                    .filter(|&n| n > 0)
                    .unwrap_or(255);
                issues.push(Issue::Other {
                    code: "seg-fractional-cut",
                    message: "a fractional segmentation: voxels from one half on are shown"
                        .to_owned(),
                });
                Pixels::Fractions {
                    bytes: raw.bytes()?,
                    from: full.div_ceil(2),
                }
            }
            _ => Pixels::Labels(raw.words()?),
        })
    }

    /// Where the frames are, after a look at whether the file can hold them.
    fn locate(
        &self,
        dataset: &Dataset,
        format: &PixelFormat,
        count: usize,
    ) -> Result<Frames, Error> {
        let needed = format
            .native_bits()
            .saturating_mul(count as u64)
            .div_ceil(8);
        // Every frame has its item in the header, so that `count` is bounded by the file; what
        // frames take is bounded by the file where they are stored as they are.
        if needed > LARGEST.max(dataset.total.saturating_mul(LARGEST_RATIO)) {
            return Err(self.unsupported("a segmentation far larger than its file"));
        }
        pixels::check_length(dataset, format, count).map_err(|e| self.pixel_error(e))?;
        Frames::locate(dataset, count).map_err(|e| self.pixel_error(e))
    }

    fn pixel_error(&self, error: super::Error) -> Error {
        match error {
            super::Error::ShortPixelData { found, needed, .. } => Error::Truncated {
                needed,
                found,
                path: self.path.to_owned(),
            },
            other => self.unreadable(other),
        }
    }

    fn segments(
        &self,
        d: Item<'_>,
        kind: &str,
        pixels: &Pixels,
    ) -> Result<Vec<ReadSegment>, Error> {
        let mut out = Vec::new();
        for item in d.items(tags::SEGMENT_SEQUENCE) {
            let number =
                whole(item, tags::SEGMENT_NUMBER).ok_or_else(|| self.missing("Segment Number"))?;
            if number == 0 && kind == "LABELMAP" {
                continue; // background, described
            }
            let Some(label) = u8::try_from(number).ok().filter(|&n| n > 0) else {
                return Err(self.unsupported("a segmentation with segment numbers above 255"));
            };
            if out.iter().any(|s: &ReadSegment| s.segment.label == label) {
                return Err(self.missing("Segment Number"));
            }
            let name = item.text(tags::SEGMENT_LABEL).filter(|t| !t.is_empty());
            let color = numbers::<3>(item, tags::RECOMMENDED_DISPLAY_CIE_LAB_VALUE).map_or_else(
                || default_color(label),
                |lab| srgb_from_cielab(lab.map(|x| x as u16)),
            );
            let unknown = || CodedConcept::new("T-D0050", "SRT", "Tissue");
            let algorithm = item.item(tags::SEGMENTATION_ALGORITHM_IDENTIFICATION_SEQUENCE);
            out.push(ReadSegment {
                segment: Segment {
                    label,
                    name: name.unwrap_or_else(|| format!("Segment {label}")),
                    category: code(item, tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE)
                        .unwrap_or_else(unknown),
                    property: code(item, tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE)
                        .unwrap_or_else(unknown),
                    color,
                },
                algorithm: match item.text(tags::SEGMENT_ALGORITHM_TYPE).as_deref() {
                    Some("MANUAL") => AlgorithmType::Manual,
                    Some("SEMIAUTOMATIC") => AlgorithmType::Semiautomatic,
                    _ => AlgorithmType::Automatic,
                },
                algorithm_name: item.text(tags::SEGMENT_ALGORITHM_NAME).unwrap_or_default(),
                algorithm_version: algorithm
                    .and_then(|a| a.text(tags::ALGORITHM_VERSION))
                    .unwrap_or_default(),
                tracking_uid: item.uid(tags::TRACKING_UID),
                voxels: 0,
                centroid_lps: None,
            });
        }
        if out.is_empty() {
            return Err(self.missing("Segment Sequence"));
        }
        if let Pixels::Labels(labels) = pixels {
            let mut known = [false; 256];
            known[0] = true;
            for s in &out {
                known[usize::from(s.segment.label)] = true;
            }
            let padding = whole(d, tags::PIXEL_PADDING_VALUE);
            let stray = labels.iter().find(|&&l| {
                !known.get(usize::from(l)).copied().unwrap_or(false)
                    && padding != Some(usize::from(l))
            });
            if let Some(stray) = stray {
                return Err(self.unsupported(format!(
                    "a label map with segment {stray}, which is not described,"
                )));
            }
        }
        out.sort_by_key(|s| s.segment.label);
        Ok(out)
    }
}

/// The pixel data and where its frames are.
struct Raw<'a> {
    reader: &'a Reader<'a>,
    dataset: &'a Dataset,
    format: PixelFormat,
    frames: Frames,
    count: usize,
}

impl Raw<'_> {
    fn samples(&self, n: usize) -> Result<Samples, Error> {
        let frame = decode::decode_frame(self.dataset, &self.format, &self.frames, n)
            .map_err(|e| self.reader.pixel_error(e))?;
        if frame.samples.len() == self.format.pixels() {
            Ok(frame.samples)
        } else {
            Err(self.reader.missing("Pixel Data"))
        }
    }

    /// Single bits: as they lie in the file, or of each decoded frame joined without padding.
    fn bits(&self) -> Result<Pixels, Error> {
        if let Frames::Native(start) = self.frames {
            return Ok(Pixels::Bits {
                bytes: self.dataset.bytes.clone(),
                start,
            });
        }
        let voxels = self.format.pixels();
        let mut bytes = vec![0_u8; (voxels * self.count).div_ceil(8)];
        for n in 0..self.count {
            let Samples::U8(samples) = self.samples(n)? else {
                return Err(self.reader.missing("Pixel Data"));
            };
            let set = samples.iter().enumerate().filter(|(_, x)| **x != 0);
            for (at, _) in set {
                let bit = n * voxels + at;
                bytes[bit / 8] |= 1 << (bit % 8);
            }
        }
        Ok(Pixels::Bits {
            bytes: Arc::new(bytes),
            start: 0,
        })
    }

    fn bytes(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        for n in 0..self.count {
            match self.samples(n)? {
                Samples::U8(samples) => bytes.extend_from_slice(&samples),
                _ => return Err(self.reader.missing("Pixel Data")),
            }
        }
        Ok(bytes)
    }

    fn words(&self) -> Result<Vec<u16>, Error> {
        let mut words = Vec::new();
        for n in 0..self.count {
            match self.samples(n)? {
                Samples::U8(samples) => words.extend(samples.into_iter().map(u16::from)),
                Samples::U16(samples) => words.extend_from_slice(&samples),
                _ => return Err(self.reader.missing("Pixel Data")),
            }
        }
        Ok(words)
    }
}

/// A color for segments without one; neighbors differ (steps of the golden angle).
fn default_color(label: u8) -> [u8; 3] {
    let hue = f64::from(label) * 137.507_764 % 360.0;
    let part = |shift: f64| {
        let k = (shift + hue / 60.0) % 6.0;
        let v = 1.0 - 0.65 * k.min(4.0 - k).clamp(0.0, 1.0);
        (v * 255.0).round() as u8
    };
    [part(5.0), part(3.0), part(1.0)]
}

/// A label map made from an object, and what was lost or doubtful on the way.
#[derive(Clone, Debug)]
pub struct PlacedLabels {
    /// Labels are segment numbers.
    pub map: LabelMap,
    /// Overlaps, resampling, frames outside.
    pub issues: Vec<Issue>,
}

impl ReadSegmentation {
    /// Labels on the grid of the images that were segmented.
    ///
    /// A frame goes to the slice that it refers to and lies on, or to the slice at its position;
    /// when there is none for some frame, all are resampled (nearest neighbor).
    ///
    /// # Errors
    /// Frames that form no grid and fit none.
    pub fn on_source(
        &self,
        geometry: &VolumeGeometry,
        source: &SourceSeries,
    ) -> Result<PlacedLabels, Error> {
        let slice_of = |frame: &Frame| self.slice_of(frame, geometry, source);
        let slices: Option<Vec<usize>> = self.frames.iter().map(slice_of).collect();
        if let Some(slices) = slices {
            let mut map = LabelMap::empty(geometry.clone());
            let overlap = self.draw(&mut map, &slices);
            return Ok(PlacedLabels {
                map,
                issues: overlap_issue(overlap),
            });
        }
        let own = self.on_own_grid()?;
        // A fresh task is never cancelled.
        let map = resample_labels(&own.map, geometry, &Task::new())
            .unwrap_or_else(|_| LabelMap::empty(geometry.clone()));
        let mut issues = own.issues;
        issues.push(Issue::Other {
            code: "seg-resampled",
            message: "the segmentation lies on another grid than the images: \
                      it is shown resampled to the nearest voxel"
                .to_owned(),
        });
        Ok(PlacedLabels { map, issues })
    }

    /// Labels on the regular grid that the frames themselves span.
    ///
    /// # Errors
    /// Frames that form no grid.
    pub fn on_own_grid(&self) -> Result<PlacedLabels, Error> {
        let (geometry, slices, uneven) = self.own_grid()?;
        let mut map = LabelMap::empty(geometry);
        let overlap = self.draw(&mut map, &slices);
        let mut issues = overlap_issue(overlap);
        if uneven {
            issues.push(Issue::Other {
                code: "seg-uneven",
                message: "the frames of the segmentation are not evenly spaced: \
                          each is shown at the nearest slice of a regular grid"
                    .to_owned(),
            });
        }
        Ok(PlacedLabels { map, issues })
    }

    /// As a [`Segmentation`] of a volume, for the window and for exports.
    ///
    /// # Errors
    /// As [`ReadSegmentation::on_source`].
    pub fn into_segmentation(self, volume: &Volume) -> Result<Segmentation, Error> {
        let placed = self.on_source(&volume.geometry, &volume.source)?;
        let first = self.segments.first();
        let mut issues = volume.issues.clone();
        issues.extend(self.issues);
        issues.extend(placed.issues);
        Ok(Segmentation {
            map: placed.map,
            algorithm: first.map_or(AlgorithmType::Automatic, |s| s.algorithm),
            provenance: Provenance {
                model_name: first.map(|s| s.algorithm_name.clone()).unwrap_or_default(),
                model_version: first
                    .map(|s| s.algorithm_version.clone())
                    .unwrap_or_default(),
                inputs: self.sop_instance_uid.iter().map(Uid::to_string).collect(),
                ..Provenance::default()
            },
            segments: self.segments.into_iter().map(|s| s.segment).collect(),
            source: volume.source.clone(),
            issues,
            review: crate::findings::ReviewState::NotReviewed,
            reviewed: None,
        })
    }

    // CLINICAL(laterality): a frame is copied straight only onto a slice with the same corner
    // and the same row and column steps.
    fn slice_of(
        &self,
        frame: &Frame,
        geometry: &VolumeGeometry,
        source: &SourceSeries,
    ) -> Option<usize> {
        let [ni, nj, nk] = geometry.dims();
        if (ni, nj) != (self.plane.columns, self.plane.rows) {
            return None;
        }
        let m = geometry.lps_from_ijk().matrix3;
        // The far corner may be off by a twentieth of a pixel.
        let tolerance_mm = 0.05 * m.x_axis.length().min(m.y_axis.length());
        let drift = (m.x_axis - self.plane.along_row).length() * ni as f64
            + (m.y_axis - self.plane.along_column).length() * nj as f64;
        if drift > tolerance_mm {
            return None;
        }
        let position_of = |k: usize| {
            source
                .image(k)
                .and_then(|image| image.position_lps)
                .unwrap_or_else(|| geometry.lps_at(DVec3::new(0.0, 0.0, k as f64)))
        };
        let fits = |k: &usize| position_of(*k).distance(frame.position_lps) <= tolerance_mm;
        let referred = frame.source.as_ref().and_then(|(instance, number)| {
            source.images.iter().position(|image| {
                image.as_ref().is_some_and(|image| {
                    image.sop_instance_uid == *instance && image.frame == *number
                })
            })
        });
        referred
            .filter(fits)
            .or_else(|| {
                let k = geometry.ijk_at(frame.position_lps).z.round();
                (k >= 0.0 && k < nk as f64)
                    .then_some(k as usize)
                    .filter(fits)
            })
            .or_else(|| (0..nk).find(fits))
    }

    /// Writes frames into slices; returns the number of voxels that two segments claim.
    fn draw(&self, map: &mut LabelMap, slices: &[usize]) -> u64 {
        let voxels = self.plane.columns * self.plane.rows;
        let mut overlap = 0;
        for (n, (frame, &k)) in self.frames.iter().zip(slices).enumerate() {
            let out = &mut map.labels[k * voxels..(k + 1) * voxels];
            self.pixels
                .visit(n, voxels, frame.segment, |index, segment| {
                    // Checked when read: every number has a segment of at most 255.
                    let label = segment as u8;
                    overlap += u64::from(out[index] != 0 && out[index] != label);
                    out[index] = label;
                });
        }
        overlap
    }

    fn own_grid(&self) -> Result<(VolumeGeometry, Vec<usize>, bool), Error> {
        let no_grid = |reason: String| Error::NoGrid {
            reason,
            path: self.path.clone(),
        };
        let plane = &self.plane;
        let normal = plane.along_row.cross(plane.along_column).normalize();
        let along: Vec<f64> = self
            .frames
            .iter()
            .map(|f| f.position_lps.dot(normal))
            .collect();
        let mut levels: Vec<(f64, DVec3)> = along
            .iter()
            .zip(&self.frames)
            .map(|(&t, f)| (t, f.position_lps))
            .collect();
        levels.sort_by(|a, b| a.0.total_cmp(&b.0));
        let split = levels
            .windows(2)
            .any(|w| w[1].0 - w[0].0 < SAME_PLANE_MM && w[1].1.distance(w[0].1) > 0.01);
        if split {
            return Err(no_grid(
                "two frames share a plane but not a corner".to_owned(),
            ));
        }
        levels.dedup_by(|b, a| b.0 - a.0 < SAME_PLANE_MM);
        let (first, last) = (levels[0], levels[levels.len() - 1]);
        let reach = last.0 - first.0;
        let mut gaps: Vec<f64> = levels.windows(2).map(|w| w[1].0 - w[0].0).collect();
        gaps.sort_by(f64::total_cmp);
        let fits = |step: f64| {
            gaps.iter().all(|gap| {
                ((gap / step).round() * step - gap).abs() < 0.01 * step && *gap > 0.5 * step
            })
        };
        // The declared distance if positions agree with it, else the smallest that occurs.
        let step = plane
            .between_slices_mm
            .filter(|&s| fits(s))
            .or_else(|| gaps.first().copied())
            .or(plane.between_slices_mm)
            .unwrap_or(1.0);
        let count = (reach / step).round() + 1.0;
        let voxels = plane.columns as f64 * plane.rows as f64 * count;
        // Empty frames are left out of files, so gaps are usual; a grid of mostly nothing is not.
        let justified = 4096.0 * self.frames.len() as f64;
        if !(count <= justified && voxels <= 2e9) {
            return Err(no_grid(format!(
                "{count:.0} slices for {} frames",
                self.frames.len()
            )));
        }
        let count = count as usize;
        // From the positions, so that a tilted stack keeps its shear.
        let between = if levels.len() > 1 {
            (last.1 - first.1) * (step / reach)
        } else {
            normal * step
        };
        let affine = DAffine3::from_mat3_translation(
            DMat3::from_cols(plane.along_row, plane.along_column, between),
            first.1,
        );
        let geometry = VolumeGeometry::new([plane.columns, plane.rows, count], affine)
            .map_err(|e: geometry::Error| no_grid(e.to_string()))?;
        let slices: Vec<usize> = along
            .iter()
            .map(|t| (((t - first.0) / step).round() as usize).min(count - 1))
            .collect();
        let uneven = slices.iter().zip(&self.frames).any(|(&k, frame)| {
            geometry
                .lps_at(DVec3::new(0.0, 0.0, k as f64))
                .distance(frame.position_lps)
                > 0.01 * step.max(1.0)
        });
        Ok((geometry, slices, uneven))
    }
}

fn overlap_issue(voxels: u64) -> Vec<Issue> {
    if voxels == 0 {
        return Vec::new();
    }
    vec![Issue::Other {
        code: "seg-overlap",
        message: format!(
            "segments overlap in {voxels} voxels: the one with the higher number is shown there"
        ),
    }]
}

fn whole(d: Item<'_>, tag: Tag) -> Option<usize> {
    let number = d.number(tag)?;
    // Beyond 2^32 nothing is counted in a segmentation.
    (number.fract() == 0.0 && (0.0..4_294_967_296.0).contains(&number)).then_some(number as usize)
}

fn numbers<const N: usize>(d: Item<'_>, tag: Tag) -> Option<[f64; N]> {
    let values: [f64; N] = d.numbers(tag).try_into().ok()?;
    values.iter().all(|x| x.is_finite()).then_some(values)
}

fn code(d: Item<'_>, tag: Tag) -> Option<CodedConcept> {
    let item = d.item(tag)?;
    let value = [
        tags::CODE_VALUE,
        tags::LONG_CODE_VALUE,
        tags::URN_CODE_VALUE,
    ]
    .into_iter()
    .find_map(|tag| item.text(tag))?;
    Some(CodedConcept {
        value,
        scheme: item
            .text(tags::CODING_SCHEME_DESIGNATOR)
            .unwrap_or_default(),
        meaning: item.text(tags::CODE_MEANING).unwrap_or_default(),
    })
}
