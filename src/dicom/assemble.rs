//! Stacks → volumes: voxels in their place, with their meaning and their doubts.

use std::collections::BTreeMap;

use dicom_dictionary_std::tags;
use rayon::prelude::*;

use super::attributes::{Object, float, floats, item, items, spacing, text, texts};
use super::error::Error;
use super::file::{self, ParsedFile};
use super::header::{self, FrameHeader, ImageHeader};
use super::stacks::median_step;
use super::{SYNTHETIC_COMMENT, decode};
use crate::geometry::{DVec3, VolumeGeometry};
use crate::redact::Sensitive;
use crate::study::{FileSource, Instance, Issue, Patient, Series, Stack, Study};
use crate::task::Task;
use crate::volume::{
    Calibration, Layout, ModalityLut, NamedWindow, Quantity, SourceImage, SourceSeries,
    VoiFunction, VoiWindow, Volume, Voxels, auto_window,
};

/// A series with what stands above it.
#[derive(Clone, Copy, Debug)]
pub struct SeriesContext<'a> {
    /// The person (or phantom).
    pub patient: &'a Patient,
    /// The examination.
    pub study: &'a Study,
    /// The series.
    pub series: &'a Series,
}

/// A small picture.
#[derive(Clone, Debug)]
pub struct Thumbnail {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// RGBA, row by row.
    pub rgba: Vec<u8>,
}

/// Longest side of a thumbnail.
const THUMBNAIL: usize = 112;

/// All images of a stack as one volume; files are read and decoded in parallel.
///
/// Images that cannot be read become [`Issue::UnreadableSlices`], as long as one can.
///
/// # Errors
/// [`Error`].
pub fn load_volume(context: SeriesContext<'_>, stack: usize, task: &Task) -> Result<Volume, Error> {
    let stack = context
        .series
        .stacks
        .get(stack)
        .ok_or(Error::NoSuchImage(stack))?;
    let wanted: Vec<usize> = (0..stack.images.len()).collect();
    load(context, stack, &wanted, task)
}

/// One image of a stack as a volume of one slice, in its place in the patient.
///
/// # Errors
/// [`Error`].
pub fn load_image(context: SeriesContext<'_>, stack: usize, image: usize) -> Result<Volume, Error> {
    let stack = context
        .series
        .stacks
        .get(stack)
        .ok_or(Error::NoSuchImage(stack))?;
    if image >= stack.images.len() {
        return Err(Error::NoSuchImage(image));
    }
    load(context, stack, &[image], &Task::new())
}

/// A small picture of the middle image of a stack.
///
/// # Errors
/// [`Error`].
pub fn thumbnail(context: SeriesContext<'_>, stack: usize) -> Result<Thumbnail, Error> {
    let count = context
        .series
        .stacks
        .get(stack)
        .map_or(0, |s| s.images.len());
    let volume = load_image(context, stack, count / 2)?;
    let [ni, nj, _] = volume.geometry.dims();
    let [si, sj, _] = volume.geometry.spacing_mm();
    // Pixels may be taller than wide.
    let (w, h) = (ni as f64 * si, nj as f64 * sj);
    let scale = THUMBNAIL as f64 / w.max(h);
    let (width, height) = (((w * scale) as usize).max(1), ((h * scale) as usize).max(1));
    let window = volume
        .windows
        .first()
        .map_or_else(|| auto_window(&volume), |w| w.window);
    let mut rgba = Vec::with_capacity(width * height * 4);
    for y in 0..height {
        for x in 0..width {
            // The mean over the pixel's area keeps thin bright lines from flickering.
            let columns = x * ni / width..((x + 1) * ni / width).max(x * ni / width + 1).min(ni);
            let rows = y * nj / height..((y + 1) * nj / height).max(y * nj / height + 1).min(nj);
            let mut sum = [0.0_f32; 3];
            let mut n = 0.0;
            for j in rows {
                for i in columns.clone() {
                    let index = volume.geometry.index(i, j, 0);
                    let rgb = if let Voxels::Rgb8(colors) = &volume.voxels {
                        colors[index].map(|c| f32::from(c) / 255.0)
                    } else {
                        let gray = window.gray(volume.value(index));
                        [if volume.inverted { 1.0 - gray } else { gray }; 3]
                    };
                    for (s, c) in sum.iter_mut().zip(rgb) {
                        *s += c;
                    }
                    n += 1.0;
                }
            }
            rgba.extend(sum.map(|s| (s / n * 255.0) as u8));
            rgba.push(255);
        }
    }
    Ok(Thumbnail {
        width,
        height,
        rgba,
    })
}

/// Bytes that the voxels of a stack take, from headers alone.
pub fn estimate_bytes(stack: &Stack) -> u64 {
    // Most stored values take two bytes; decoding holds a second copy of what is in flight.
    (stack.columns * stack.rows) as u64 * stack.images.len() as u64 * 2
}

struct Decoded {
    k: usize,
    voxels: Voxels,
    frame: FrameHeader,
}

/// What the first readable file says for all.
struct Common {
    file: ParsedFile,
    image: ImageHeader,
}

fn load(
    context: SeriesContext<'_>,
    stack: &Stack,
    wanted: &[usize],
    task: &Task,
) -> Result<Volume, Error> {
    task.begin("Reading images", wanted.len());
    // Frames of one file are decoded from one reading of it.
    let mut by_file: BTreeMap<&FileSource, Vec<usize>> = BTreeMap::new();
    for &k in wanted {
        by_file.entry(&stack.images[k].source).or_default().push(k);
    }
    let results: Vec<Result<(Vec<Decoded>, Common), (usize, Error)>> = by_file
        .into_iter()
        .collect::<Vec<_>>()
        .into_par_iter()
        .map(|(source, ks)| {
            task.check().map_err(|c| (0, Error::from(c)))?;
            let count = ks.len();
            let read = read_file(source, &stack.images, &ks, task);
            task.advance(count);
            read.map_err(|error| (count, error))
        })
        .collect();
    let mut decoded = Vec::new();
    let mut common: Option<(usize, Common)> = None;
    let mut unreadable = 0;
    let mut first_error = None;
    for result in results {
        match result {
            Ok((frames, file)) => {
                let k = frames.iter().map(|f| f.k).min().unwrap_or(usize::MAX);
                if common.as_ref().is_none_or(|(first, _)| k < *first) {
                    common = Some((k, file));
                }
                decoded.extend(frames);
            }
            Err((_, Error::Cancelled(cancelled))) => return Err(cancelled.into()),
            Err((count, error)) => {
                unreadable += count;
                first_error.get_or_insert(error);
            }
        }
    }
    let Some((_, common)) = common else {
        return Err(first_error.unwrap_or(Error::NoSuchImage(0)));
    };
    decoded.sort_by_key(|d| d.k);
    let mut issues = stack.issues.clone();
    if let Some(error) = first_error {
        let reason = error.to_string();
        // The path may hold a name; the reason before it does not.
        let reason = reason.split(": /").next().unwrap_or_default().to_owned();
        issues.push(Issue::UnreadableSlices {
            count: unreadable,
            reason,
        });
    }
    for issue in &context.series.issues {
        if !issues.contains(issue) {
            issues.push(issue.clone());
        }
    }
    build(context, stack, &common, decoded, issues)
}

fn read_file(
    source: &FileSource,
    images: &[Instance],
    ks: &[usize],
    task: &Task,
) -> Result<(Vec<Decoded>, Common), Error> {
    let mut parsed = file::open(source, true)?;
    let path = source.to_string();
    let image =
        header::read(&parsed.header, parsed.structure.pixels.is_some()).map_err(|reason| {
            Error::File {
                reason,
                path: path.clone(),
            }
        })?;
    let mut decoded = Vec::with_capacity(ks.len());
    for &k in ks {
        task.check()?;
        let frame = images[k].frame as usize;
        let header = image
            .frames
            .get(frame)
            .cloned()
            .ok_or(Error::NoSuchImage(frame))?;
        let voxels =
            decode::frame(&parsed, &image.format, image.frames.len(), frame).map_err(|reason| {
                Error::Pixels {
                    frame: frame as u32 + 1,
                    reason,
                    path: path.clone(),
                }
            })?;
        decoded.push(Decoded {
            k,
            voxels,
            frame: header,
        });
    }
    parsed.data = Vec::new();
    Ok((
        decoded,
        Common {
            file: parsed,
            image,
        },
    ))
}

fn build(
    context: SeriesContext<'_>,
    stack: &Stack,
    common: &Common,
    decoded: Vec<Decoded>,
    mut issues: Vec<Issue>,
) -> Result<Volume, Error> {
    let d = &common.file.header;
    let image = &common.image;
    let instances: Vec<&Instance> = decoded.iter().map(|one| &stack.images[one.k]).collect();
    let frames: Vec<&FrameHeader> = decoded.iter().map(|one| &one.frame).collect();
    let rows = image.format.rows;
    let columns = image.format.columns;
    let placed = place(image, &frames, &mut issues);
    let modality = context.series.modality.as_str();
    let (layout, calibration, geometry) = match placed {
        Some(geometry) => (Layout::Volumetric, Calibration::Patient, geometry?),
        None => {
            let (spacing, calibration) = flat_spacing(d, frames[0], &mut issues);
            let geometry = VolumeGeometry::from_axes(
                [columns, rows, decoded.len()],
                DVec3::ZERO,
                [DVec3::X, DVec3::Y, DVec3::Z],
                [spacing[1], spacing[0], 1.0],
            )?;
            (Layout::Images, calibration, geometry)
        }
    };
    if layout == Layout::Volumetric && stack.images.len() == 1 {
        issues.push(Issue::SingleSlice);
    }
    let color = image.format.is_color();
    let (quantity, expects_rescale) = quantity(d, modality, color);
    let modality_lut = if color {
        ModalityLut::IDENTITY
    } else {
        modality_lut(
            d,
            &frames,
            expects_rescale.then(|| quantity.name().to_owned()),
            &mut issues,
        )
    };
    let quantity = if expects_rescale
        && issues.iter().any(|i| {
            matches!(
                i,
                Issue::RescaleMissing { .. } | Issue::RescaleInvalid { .. }
            )
        }) {
        Quantity::Arbitrary
    } else {
        quantity
    };
    issues.extend(lossy(d, &common.file.transfer_syntax));
    let synthetic = text(d, tags::QUALITY_CONTROL_IMAGE).as_deref() == Some("YES")
        && text(d, tags::IMAGE_COMMENTS).is_some_and(|c| c.starts_with(&SYNTHETIC_COMMENT[..9]));
    if synthetic {
        issues.push(Issue::Synthetic);
    }
    let windows = windows(d, &mut issues);
    Ok(Volume {
        geometry,
        voxels: join(decoded.into_iter().map(|one| one.voxels).collect()),
        modality_lut,
        quantity,
        modality: modality.to_owned(),
        layout,
        calibration,
        inverted: image.format.photometric == "MONOCHROME1",
        windows,
        padding: decode::padding(d).filter(|_| !color),
        frame_rate: float(d, tags::CINE_RATE)
            .or_else(|| float(d, tags::RECOMMENDED_DISPLAY_FRAME_RATE))
            .or_else(|| {
                float(d, tags::FRAME_TIME)
                    .filter(|t| *t > 0.0)
                    .map(|ms| 1000.0 / ms)
            }),
        source: SourceSeries {
            study_instance_uid: Some(context.study.study_instance_uid.clone()),
            series_instance_uid: Some(context.series.series_instance_uid.clone()),
            frame_of_reference_uid: context.series.frame_of_reference_uid.clone(),
            description: context.series.description.clone(),
            number: context.series.number,
            body_part: context.series.body_part.clone(),
            patient_study: patient_study(d),
            images: instances
                .iter()
                .map(|i| SourceImage {
                    sop_class_uid: i.sop_class_uid.clone(),
                    sop_instance_uid: i.sop_instance_uid.clone(),
                    frame: (i.frame_count > 1).then_some(i.frame),
                    number: i.number,
                    position_lps: i.position_lps,
                })
                .collect(),
        },
        issues,
    })
}

/// The grid of positioned images; `None` when they have no place.
fn place(
    image: &ImageHeader,
    frames: &[&FrameHeader],
    issues: &mut Vec<Issue>,
) -> Option<Result<VolumeGeometry, crate::geometry::Error>> {
    let first = frames.first()?;
    let [row, column] = first.orientation?;
    let [between_rows, between_columns] = first.spacing?;
    let origin = first.position?;
    if image.format.is_color() {
        return None;
    }
    let normal = row.cross(column);
    let depths: Option<Vec<f64>> = frames
        .iter()
        .map(|f| Some(f.position?.dot(normal)))
        .collect();
    let depths = depths?;
    let step = median_step(&depths).filter(|s| *s > 0.0);
    let along = match (step, frames.last().and_then(|f| f.position)) {
        // The direction comes from the positions, so that a tilted stack keeps its shear.
        (Some(step), Some(last)) => {
            let way = last - origin;
            let k = way * (step / way.dot(normal));
            // Rounded positions must not make a shear: below a quarter of a degree it is none.
            let tilted = issues.iter().any(|i| matches!(i, Issue::GantryTilt { .. }));
            if tilted { k } else { normal * step }
        }
        // One slice: its thickness, which says nothing of neighbors.
        _ => normal * image.thickness_mm.unwrap_or(1.0),
    };
    let affine = crate::geometry::DAffine3::from_mat3_translation(
        crate::geometry::DMat3::from_cols(row * between_columns, column * between_rows, along),
        origin,
    );
    Some(VolumeGeometry::new(
        [image.format.columns, image.format.rows, frames.len()],
        affine,
    ))
}

/// Spacing between rows and columns of plain images, and what it means.
fn flat_spacing(
    d: &Object,
    frame: &FrameHeader,
    issues: &mut Vec<Issue>,
) -> ([f64; 2], Calibration) {
    let imager = spacing(d, tags::IMAGER_PIXEL_SPACING);
    let own = frame.spacing.or_else(|| spacing(d, tags::PIXEL_SPACING));
    let calibrated = text(d, tags::PIXEL_SPACING_CALIBRATION_TYPE).is_some();
    match (own, imager) {
        (Some(own), Some(imager)) if own == imager && !calibrated => {
            issues.push(Issue::DetectorSpacing);
            (imager, Calibration::Detector)
        }
        (Some(own), _) => (own, Calibration::Patient),
        (None, Some(imager)) => {
            issues.push(Issue::DetectorSpacing);
            (imager, Calibration::Detector)
        }
        (None, None) => {
            issues.push(Issue::NoPixelSpacing);
            // Pixels may still be known not to be square.
            let ratio = floats(d, tags::PIXEL_ASPECT_RATIO)
                .filter(|r| r.len() == 2 && r[0] > 0.0 && r[1] > 0.0)
                .map_or(1.0, |r| r[0] / r[1]);
            ([ratio, 1.0], Calibration::Unknown)
        }
    }
}

/// What modality values are, and whether the modality must give a rescale.
fn quantity(d: &Object, modality: &str, color: bool) -> (Quantity, bool) {
    if color {
        return (Quantity::Color, false);
    }
    let rescale_type = text(d, tags::RESCALE_TYPE);
    match (modality, rescale_type.as_deref()) {
        ("CT", None | Some("HU")) => (Quantity::Hounsfield, true),
        ("PT", _) => match text(d, tags::UNITS).as_deref() {
            Some("BQML") => (Quantity::ActivityConcentration, true),
            Some(unit) => (Quantity::Named(unit.to_owned()), true),
            None => (Quantity::Arbitrary, true),
        },
        (_, Some("US")) | (_, None) => (Quantity::Arbitrary, false),
        (_, Some(name)) => (Quantity::Named(name.to_owned()), false),
    }
}

fn modality_lut(
    d: &Object,
    frames: &[&FrameHeader],
    expected: Option<String>,
    issues: &mut Vec<Issue>,
) -> ModalityLut {
    if let Some(table) = item(d, tags::MODALITY_LUT_SEQUENCE).and_then(lut_table) {
        return table;
    }
    let rescales: Vec<Option<(f64, f64)>> = frames.iter().map(|f| f.rescale).collect();
    if rescales.iter().all(Option::is_none) {
        if let Some(expected) = expected {
            issues.push(Issue::RescaleMissing { expected });
        }
        return ModalityLut::IDENTITY;
    }
    let usable =
        |(slope, intercept): (f64, f64)| slope.is_finite() && slope != 0.0 && intercept.is_finite();
    if let Some((slope, intercept)) = rescales.iter().flatten().copied().find(|r| !usable(*r)) {
        issues.push(Issue::RescaleInvalid { slope, intercept });
        return ModalityLut::IDENTITY;
    }
    let all: Vec<(f32, f32)> = rescales
        .iter()
        .map(|r| r.map_or((1.0, 0.0), |(s, i)| (s as f32, i as f32)))
        .collect();
    match all.windows(2).all(|w| w[0] == w[1]) {
        true => ModalityLut::Rescale {
            slope: all[0].0,
            intercept: all[0].1,
        },
        false => ModalityLut::PerSlice(all),
    }
}

fn lut_table(lut: &Object) -> Option<ModalityLut> {
    let descriptor = lut.get(tags::LUT_DESCRIPTOR)?.to_multi_int::<i64>().ok()?;
    let &[entries, first, bits] = descriptor.as_slice() else {
        return None;
    };
    let entries = if entries == 0 {
        65536
    } else {
        (entries & 0xFFFF) as usize
    };
    let values: Vec<f32> = match lut.get(tags::LUT_DATA)?.to_multi_int::<i64>() {
        Ok(values) if values.len() >= entries => {
            values.iter().map(|v| (*v & 0xFFFF) as f32).collect()
        }
        _ => {
            let bytes = lut.get(tags::LUT_DATA)?.to_bytes().ok()?;
            if bits <= 8 && bytes.len() < entries * 2 {
                bytes.iter().map(|b| f32::from(*b)).collect()
            } else {
                bytes
                    .chunks_exact(2)
                    .map(|w| f32::from(u16::from_le_bytes([w[0], w[1]])))
                    .collect()
            }
        }
    };
    (values.len() >= entries).then(|| ModalityLut::Table {
        first: first as i32,
        values: values[..entries].to_vec(),
    })
}

fn windows(d: &Object, issues: &mut Vec<Issue>) -> Vec<NamedWindow> {
    // Enhanced images keep windows in the functional groups.
    let group = |tag| {
        items(d, tag)
            .first()
            .and_then(|g| item(g, tags::FRAME_VOILUT_SEQUENCE))
    };
    let d = if d.get(tags::WINDOW_CENTER).is_some() {
        d
    } else {
        group(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE)
            .or_else(|| group(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE))
            .unwrap_or(d)
    };
    if d.get(tags::WINDOW_CENTER).is_none() && d.get(tags::WINDOW_WIDTH).is_none() {
        return Vec::new();
    }
    let number = |text: &String| text.parse::<f32>().ok().filter(|x| x.is_finite());
    let centers = texts(d, tags::WINDOW_CENTER);
    let widths = texts(d, tags::WINDOW_WIDTH);
    let names = texts(d, tags::WINDOW_CENTER_WIDTH_EXPLANATION);
    let function = match text(d, tags::VOILUT_FUNCTION).as_deref() {
        Some("SIGMOID") => VoiFunction::Sigmoid,
        Some("LINEAR_EXACT") => VoiFunction::LinearExact,
        _ => VoiFunction::Linear,
    };
    let mut windows = Vec::new();
    for (n, (center, width)) in centers.iter().zip(&widths).enumerate() {
        let fine = number(center).zip(number(width)).filter(|(_, w)| {
            if function == VoiFunction::Linear {
                *w >= 1.0
            } else {
                *w > 0.0
            }
        });
        match fine {
            Some((center, width)) => {
                let name = names.get(n).filter(|name| !name.is_empty()).cloned();
                let name = name.unwrap_or_else(|| format!("File {}", n + 1));
                windows.push(NamedWindow {
                    name,
                    window: VoiWindow {
                        center,
                        width,
                        function,
                    },
                });
            }
            None if !issues.contains(&Issue::WindowInvalid) => issues.push(Issue::WindowInvalid),
            None => {}
        }
    }
    windows
}

fn lossy(d: &Object, transfer_syntax: &str) -> Option<Issue> {
    let by_syntax = match transfer_syntax {
        "1.2.840.10008.1.2.4.50" | "1.2.840.10008.1.2.4.51" => Some("JPEG"),
        "1.2.840.10008.1.2.4.81" => Some("JPEG-LS near-lossless"),
        _ => None,
    };
    let declared = text(d, tags::LOSSY_IMAGE_COMPRESSION).as_deref() == Some("01");
    let method = text(d, tags::LOSSY_IMAGE_COMPRESSION_METHOD);
    match (by_syntax, declared) {
        (Some(name), _) => Some(Issue::LossyCompression {
            method: name.to_owned(),
        }),
        (None, true) => Some(Issue::LossyCompression {
            method: method.unwrap_or_else(|| "unknown method".to_owned()),
        }),
        _ => None,
    }
}

/// Attributes that derived objects of the study repeat.
fn patient_study(d: &Object) -> Vec<(String, Sensitive<String>)> {
    let keep = [
        ("PatientName", tags::PATIENT_NAME),
        ("PatientID", tags::PATIENT_ID),
        ("PatientBirthDate", tags::PATIENT_BIRTH_DATE),
        ("PatientSex", tags::PATIENT_SEX),
        ("PatientAge", tags::PATIENT_AGE),
        ("PatientSize", tags::PATIENT_SIZE),
        ("PatientWeight", tags::PATIENT_WEIGHT),
        ("StudyID", tags::STUDY_ID),
        ("StudyDate", tags::STUDY_DATE),
        ("StudyTime", tags::STUDY_TIME),
        ("StudyDescription", tags::STUDY_DESCRIPTION),
        ("AccessionNumber", tags::ACCESSION_NUMBER),
        ("ReferringPhysicianName", tags::REFERRING_PHYSICIAN_NAME),
        (
            "PositionReferenceIndicator",
            tags::POSITION_REFERENCE_INDICATOR,
        ),
    ];
    keep.into_iter()
        .filter_map(|(name, tag)| Some((name.to_owned(), Sensitive::new(text(d, tag)?))))
        .collect()
}

/// Slices one after another. Stacks hold one format, but codecs may differ in width: the widest wins.
fn join(slices: Vec<Voxels>) -> Voxels {
    let all = |test: fn(&Voxels) -> bool| slices.iter().all(test);
    macro_rules! concat {
        ($kind:ident) => {{
            let mut all = Vec::with_capacity(slices.iter().map(Voxels::len).sum());
            for slice in slices {
                if let Voxels::$kind(values) = slice {
                    all.extend_from_slice(&values);
                }
            }
            Voxels::$kind(all)
        }};
    }
    if slices.len() == 1 {
        return slices.into_iter().next().unwrap_or(Voxels::U8(Vec::new()));
    }
    if all(|s| matches!(s, Voxels::I16(_))) {
        concat!(I16)
    } else if all(|s| matches!(s, Voxels::U16(_))) {
        concat!(U16)
    } else if all(|s| matches!(s, Voxels::U8(_))) {
        concat!(U8)
    } else if all(|s| matches!(s, Voxels::Rgb8(_))) {
        concat!(Rgb8)
    } else {
        let values = slices
            .iter()
            .flat_map(|s| (0..s.len()).map(|n| s.stored(n)));
        Voxels::F32(values.collect())
    }
}
