//! A stack → a volume: frames decoded in parallel, placed in the patient, doubts kept.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use dicom_dictionary_std::tags;
use rayon::prelude::*;

use super::dataset::Dataset;
use super::decode::{self, Frame, Palette, Samples};
use super::error::Error;
use super::header::{self, FrameView, PATIENT_STUDY};
use super::meaning::{self, SliceLut};
use super::pixels::{self, Frames, Photometric, PixelFormat};
use super::scan::Opener;
use super::spacing::Spacing;
use crate::geometry::{DAffine3, DMat3, DVec3, VolumeGeometry};
use crate::redact::Sensitive;
use crate::study::{FileSource, Instance, Issue, Patient, Series, Stack, Study, Uid, Worklist};
use crate::task::{Cancelled, Task};
use crate::volume::{
    Calibration, Layout, Quantity, SourceImage, SourceSeries, VoiWindow, Volume, Voxels,
    auto_window,
};

/// A volume may always take this much memory, and beyond it this multiple of its files.
const VOLUME_FLOOR: u64 = 1 << 30;
const VOLUME_RATIO: u64 = 1000;
/// Longest side of a thumbnail in pixels.
const THUMBNAIL: usize = 128;

/// A series with the study and patient it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct SeriesContext<'a> {
    /// Whose it is.
    pub patient: &'a Patient,
    /// Its examination.
    pub study: &'a Study,
    /// The series.
    pub series: &'a Series,
}

impl<'a> SeriesContext<'a> {
    /// All series of a worklist, in order.
    pub fn all(worklist: &'a Worklist) -> impl Iterator<Item = Self> {
        worklist.patients.iter().flat_map(|patient| {
            patient.studies.iter().flat_map(move |study| {
                study.series.iter().map(move |series| Self {
                    patient,
                    study,
                    series,
                })
            })
        })
    }

    /// The series of a UID.
    pub fn find(worklist: &'a Worklist, series_instance_uid: &Uid) -> Option<Self> {
        Self::all(worklist).find(|c| c.series.series_instance_uid == *series_instance_uid)
    }

    fn stack(&self, stack: usize) -> Result<&'a Stack, Error> {
        self.series
            .stacks
            .get(stack)
            .filter(|s| !s.images.is_empty())
            .ok_or(Error::NoSuchImage { stack, image: 0 })
    }
}

/// A small picture of a stack, for the browser.
#[derive(Clone, Debug, PartialEq)]
pub struct Thumbnail {
    /// Columns, at most 128.
    pub width: usize,
    /// Rows, at most 128.
    pub height: usize,
    /// Red, green, blue, rows from the top.
    pub rgb: Vec<[u8; 3]>,
}

/// Bytes of memory that the stack will take, from the header of its first image; 0 when even that
/// cannot be read.
pub fn estimate_bytes(stack: &Stack) -> u64 {
    let Some(first) = stack.images.first() else {
        return 0;
    };
    let opener = Opener::new(std::iter::once(&first.source));
    let voxel_bytes = super::index::read_dataset(&opener, &first.source)
        .and_then(|dataset| PixelFormat::read(&dataset))
        .map_or(0, |format| format.voxel_bytes());
    let slices = stack.images.len() + missing(&stack.issues);
    let voxels = stack.columns as u64 * stack.rows as u64 * slices as u64;
    // A multi-frame file stays in memory while its frames are decoded.
    let held = if first.frame_count > 1 {
        opener.stored_bytes(&first.source)
    } else {
        0
    };
    voxels * voxel_bytes as u64 + held
}

/// Loads all images of a stack.
///
/// Images that cannot be read are left out with an issue; the rest stands. Where slices are
/// missing, the volume has empty ones (see [`Issue::MissingSlices`]), so that every image is at its
/// own position.
///
/// # Errors
/// No image can be read, memory that the files cannot justify, or [`Error::Cancelled`].
pub fn load_volume(ctx: SeriesContext<'_>, stack: usize, task: &Task) -> Result<Volume, Error> {
    let stack = ctx.stack(stack)?;
    let images: Vec<&Instance> = stack.images.iter().collect();
    let middle = images.len() / 2;
    load(ctx, stack, &images, middle, Some(task))
}

/// Loads one image quickly, as a volume of one slice in its place: something to show while the
/// rest still loads.
///
/// # Errors
/// The image does not exist or cannot be read.
pub fn load_image(ctx: SeriesContext<'_>, stack: usize, image: usize) -> Result<Volume, Error> {
    let found = ctx.stack(stack)?;
    let instance = found
        .images
        .get(image)
        .ok_or(Error::NoSuchImage { stack, image })?;
    load(ctx, found, &[instance], 0, None)
}

/// The middle image of a stack, windowed, at most 128 pixels wide and high.
///
/// # Errors
/// As [`load_image`].
pub fn thumbnail(ctx: SeriesContext<'_>, stack: usize) -> Result<Thumbnail, Error> {
    let middle = ctx.stack(stack)?.images.len() / 2;
    Ok(shrink(&load_image(ctx, stack, middle)?))
}

/// One file, read whole.
struct Loaded {
    dataset: Dataset,
    format: PixelFormat,
    frames: Frames,
    count: usize,
    palette: Option<Palette>,
}

impl Loaded {
    fn read(opener: &Opener, source: &FileSource) -> Result<Self, Error> {
        let dataset = Dataset::from_file(opener.whole(source)?)?;
        let format = PixelFormat::read(&dataset)?;
        let count = pixels::frame_count(dataset.root())?;
        pixels::check_length(&dataset, &format, count)?;
        let frames = Frames::locate(&dataset, count)?;
        let palette = (format.photometric == Photometric::Palette)
            .then(|| Palette::read(dataset.root(), format.signed))
            .transpose()?;
        Ok(Self {
            dataset,
            format,
            frames,
            count,
            palette,
        })
    }

    fn view(&self, frame: u32) -> Result<FrameView<'_>, Error> {
        header::frames(&self.dataset, self.count)
            .nth(frame as usize)
            .ok_or(Error::NoSuchFrame {
                frame: frame as usize,
                found: self.count,
            })
    }

    fn decode(&self, frame: u32) -> Result<Frame, Error> {
        decode::decode_frame(&self.dataset, &self.format, &self.frames, frame as usize)
    }
}

/// Files of several frames are read once and shared; others live as long as their slice.
struct Files<'a> {
    opener: Opener,
    shared: HashMap<&'a FileSource, OnceLock<Result<Loaded, String>>>,
}

impl<'a> Files<'a> {
    fn new(images: &[&'a Instance]) -> Self {
        Self {
            opener: Opener::new(images.iter().map(|i| &i.source)),
            shared: images
                .iter()
                .filter(|i| i.frame_count > 1)
                .map(|i| (&i.source, OnceLock::new()))
                .collect(),
        }
    }

    fn with<R>(
        &self,
        image: &Instance,
        run: impl FnOnce(&Loaded) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let Some(cell) = self.shared.get(&image.source) else {
            return run(&Loaded::read(&self.opener, &image.source)?);
        };
        match cell.get_or_init(|| {
            Loaded::read(&self.opener, &image.source).map_err(|error| error.to_string())
        }) {
            Ok(loaded) => run(loaded),
            Err(reason) => Err(Error::WholeFile {
                reason: reason.clone(),
            }),
        }
    }

    /// Bytes of all files on disk.
    fn stored_bytes(&self, images: &[&Instance]) -> u64 {
        let mut seen = std::collections::HashSet::new();
        images
            .iter()
            .filter(|i| seen.insert(&i.source))
            .map(|i| self.opener.stored_bytes(&i.source))
            .sum()
    }
}

/// A slice's own part of the volume.
struct Slice {
    lut: SliceLut,
    issues: Vec<Issue>,
}

/// What the volume takes from one image on behalf of all.
struct Common {
    format: PixelFormat,
    kind: Kind,
    quantity: Quantity,
    windows: Vec<crate::volume::NamedWindow>,
    padding: Option<(f32, f32)>,
    frame_rate: Option<f64>,
    orientation: Option<header::Orientation>,
    pixel_spacing: Option<header::PixelSpacing>,
    calibration: Calibration,
    thickness_mm: Option<f64>,
    frame_of_reference: Option<Uid>,
    patient_study: Vec<(String, Sensitive<String>)>,
    issues: Vec<Issue>,
}

/// Memory type of the voxels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    U8,
    I16,
    U16,
    F32,
    Rgb8,
}

fn load(
    ctx: SeriesContext<'_>,
    stack: &Stack,
    images: &[&Instance],
    middle: usize,
    task: Option<&Task>,
) -> Result<Volume, Error> {
    if let Some(task) = task {
        task.begin("Reading images", images.len());
    }
    let files = Files::new(images);
    let pixels = stack.columns * stack.rows;
    let empty = if images.len() > 1 {
        missing(&stack.issues)
    } else {
        0
    };
    let voxels = (pixels as u64).saturating_mul((images.len() + empty) as u64);

    // The middle image speaks for all; if it cannot be read, the first that can.
    let order = std::iter::once(middle).chain(0..images.len());
    let mut first_error = None;
    let mut common = None;
    for n in order {
        if let Some(task) = task {
            task.check()?;
        }
        match files.with(images[n], |loaded| common_of(loaded, images[n], stack)) {
            Ok(found) => {
                common = Some(found);
                break;
            }
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    let Some(common) = common else {
        let error = first_error.unwrap_or(Error::NoPixelData);
        return Err(if images.len() == 1 {
            error
        } else {
            Error::AllFailed {
                count: images.len(),
                first: error.to_string(),
            }
        });
    };
    let needed = voxels.saturating_mul(common.format.voxel_bytes() as u64);
    let stored = files.stored_bytes(images);
    if needed > VOLUME_FLOOR.max(stored.saturating_mul(VOLUME_RATIO)) {
        return Err(Error::Unjustified { needed, stored });
    }

    let read = Reader {
        files: &files,
        images,
        pixels,
        empty,
        common: &common,
        task,
        mixed: AtomicBool::new(false),
    };
    let mut result = match common.kind {
        Kind::U8 => read.all(|s, _| narrow_u8(s), Voxels::U8),
        Kind::I16 => read.all(|s, _| narrow_i16(s), Voxels::I16),
        Kind::U16 => read.all(|s, _| narrow_u16(s), Voxels::U16),
        Kind::F32 => read.all(|s, _| Some(floats(s)), Voxels::F32),
        Kind::Rgb8 => read.all(rgb, Voxels::Rgb8),
    }?;
    if read.mixed.load(Ordering::Relaxed) && common.kind != Kind::Rgb8 {
        // Signed and unsigned images in one stack: floats hold both exactly.
        if let Some(task) = task {
            task.begin("Reading images", images.len());
        }
        result = read.all(|s, _| Some(floats(s)), Voxels::F32)?;
    }
    let (mut voxels, slices) = result;

    // What could not be read leaves the volume.
    let mut issues = Vec::new();
    if slices.len() == 1 && slices[0].is_err() {
        return Err(slices
            .into_iter()
            .find_map(Result::err)
            .unwrap_or(Error::NoPixelData));
    }
    let failed: Vec<&Error> = slices.iter().filter_map(|s| s.as_ref().err()).collect();
    if let Some(first) = failed.first() {
        if failed.len() == slices.len() {
            return Err(Error::AllFailed {
                count: slices.len(),
                first: first.to_string(),
            });
        }
        issues.push(Issue::UnreadableSlices {
            count: failed.len(),
            reason: first.to_string(),
        });
        let keep: Vec<bool> = slices.iter().map(Result::is_ok).collect();
        compact(&mut voxels, pixels, &keep);
    }
    let lost_some = !failed.is_empty();
    let mut kept: Vec<&Instance> = Vec::new();
    let mut luts = Vec::new();
    let mut slice_issues: Vec<Issue> = Vec::new();
    for (image, slice) in images.iter().zip(slices) {
        if let Ok(slice) = slice {
            kept.push(*image);
            luts.push(slice.lut);
            for issue in slice.issues {
                if !slice_issues.contains(&issue) {
                    slice_issues.push(issue);
                }
            }
        }
    }
    let placed = place(stack, &common, &kept)?;
    let [_, _, nk] = placed.geometry.dims();
    let mut source_images: Vec<Option<SourceImage>> =
        kept.iter().map(|image| Some(source_image(image))).collect();
    if nk > kept.len() {
        // CLINICAL(spacing): every image goes to its own place; what is missing stays empty.
        let empty = empty_value(&voxels, &common);
        spread(&mut voxels, pixels, &placed.slots, empty);
        spread_each(&mut source_images, &placed.slots, |_| None);
        spread_each(&mut luts, &placed.slots, Clone::clone);
    }
    issues.extend(
        stack
            .issues
            .iter()
            .filter(|i| !lost_some || !is_about_spacing(i))
            .cloned(),
    );
    if lost_some {
        issues.extend(placed.issues);
    }
    let (modality_lut, lut_issue) = meaning::modality_lut(&luts, &ctx.series.modality);
    let rescale_matters = common.quantity != Quantity::Color;
    issues.extend(lut_issue.filter(|_| rescale_matters));
    issues.extend(slice_issues);
    issues.extend(common.issues);
    issues.extend(ctx.series.issues.iter().cloned());
    let mut unique: Vec<Issue> = Vec::with_capacity(issues.len());
    for issue in issues {
        if !unique.contains(&issue) {
            unique.push(issue);
        }
    }

    Ok(Volume {
        geometry: placed.geometry,
        voxels,
        modality_lut,
        quantity: common.quantity,
        modality: ctx.series.modality.clone(),
        layout: placed.layout,
        calibration: common.calibration,
        inverted: common.format.photometric == Photometric::Monochrome1,
        windows: common.windows,
        padding: common.padding,
        frame_rate: common.frame_rate,
        source: SourceSeries {
            study_instance_uid: Some(ctx.study.study_instance_uid.clone()),
            series_instance_uid: Some(ctx.series.series_instance_uid.clone()),
            frame_of_reference_uid: common
                .frame_of_reference
                .or_else(|| ctx.series.frame_of_reference_uid.clone()),
            description: ctx.series.description.clone(),
            number: ctx.series.number,
            body_part: ctx.series.body_part.clone(),
            patient_study: common.patient_study,
            images: source_images,
        },
        issues: unique,
    })
}

fn source_image(image: &Instance) -> SourceImage {
    SourceImage {
        sop_class_uid: image.sop_class_uid.clone(),
        sop_instance_uid: image.sop_instance_uid.clone(),
        frame: (image.frame_count > 1).then_some(image.frame),
        number: image.number,
        position_lps: image.position_lps,
        view: image.view.clone(),
    }
}

/// Slices without image, as the headers tell.
fn missing(issues: &[Issue]) -> usize {
    let missing = |issue: &Issue| match issue {
        Issue::MissingSlices { count, .. } => *count,
        _ => 0,
    };
    issues.iter().map(missing).sum()
}

fn is_about_spacing(issue: &Issue) -> bool {
    matches!(
        issue,
        Issue::UnevenSpacing { .. }
            | Issue::MissingSlices { .. }
            | Issue::GantryTilt { .. }
            | Issue::SingleSlice
            | Issue::Other {
                code: "missing-slices" | "positions-off-line",
                ..
            }
    )
}

fn common_of(loaded: &Loaded, image: &Instance, stack: &Stack) -> Result<Common, Error> {
    let view = loaded.view(image.frame)?;
    let root = loaded.dataset.root();
    let format = loaded.format;
    same_size(&format, stack)?;
    let kind = if format.is_color() {
        Kind::Rgb8
    } else {
        // The stream may know better than the header whether values are signed.
        match loaded.decode(image.frame)?.samples {
            Samples::U8(_) => Kind::U8,
            Samples::I16(_) => Kind::I16,
            Samples::U16(_) => Kind::U16,
            _ => Kind::F32,
        }
    };
    let mut issues = Vec::new();
    let (lut, _) = meaning::slice_lut(root, &view, &format);
    let (windows, window_issue) = meaning::windows(&view);
    issues.extend(window_issue);
    let localizer = stack.issues.contains(&Issue::Localizer);
    let quantity = meaning::quantity(root, &view, &format, &lut, localizer);
    let placed = image.position_lps.is_some() && view.orientation().is_some();
    let (pixel_spacing, calibration) = calibration(&view, root, placed);
    match calibration {
        Calibration::Unknown => issues.push(Issue::NoPixelSpacing),
        Calibration::Detector => issues.push(Issue::DetectorSpacing),
        Calibration::Patient => {}
    }
    let patient_study = PATIENT_STUDY
        .iter()
        .filter_map(|(keyword, tag)| {
            root.text(*tag)
                .map(|value| ((*keyword).to_owned(), Sensitive::new(value)))
        })
        .collect();
    Ok(Common {
        format,
        kind,
        quantity,
        windows,
        padding: meaning::padding(root, &format).filter(|_| kind != Kind::Rgb8),
        frame_rate: meaning::frame_rate(root),
        orientation: view.orientation(),
        pixel_spacing,
        calibration,
        thickness_mm: view.thickness_mm(),
        frame_of_reference: root.uid(tags::FRAME_OF_REFERENCE_UID),
        patient_study,
        issues,
    })
}

/// In-plane spacing and what it is measured at.
///
/// # Source
/// PS3.3 10.7.1.3: Pixel Spacing equal to Imager Pixel Spacing is not corrected for magnification.
fn calibration(
    view: &FrameView<'_>,
    root: super::dataset::Item<'_>,
    placed: bool,
) -> (Option<header::PixelSpacing>, Calibration) {
    let own = view.pixel_spacing();
    let imager = view.imager_spacing();
    let projection = matches!(
        root.line(tags::MODALITY).as_str(),
        "CR" | "DX" | "MG" | "IO" | "PX" | "XA" | "RF"
    );
    // Screen shots keep the spacing of what they show, at another size.
    let secondary = root
        .uid(tags::SOP_CLASS_UID)
        .is_some_and(|uid| uid.as_str().starts_with("1.2.840.10008.5.1.4.1.1.7"));
    let calibrated = root.text(tags::PIXEL_SPACING_CALIBRATION_TYPE).is_some();
    match (own, imager) {
        (Some(own), _) if placed || calibrated => (Some(own), Calibration::Patient),
        (Some(_), None) if secondary => (None, Calibration::Unknown),
        (Some(own), Some(imager)) if own == imager => (Some(own), Calibration::Detector),
        (Some(own), None) if projection => (Some(own), Calibration::Detector),
        (Some(own), _) => (Some(own), Calibration::Patient),
        (None, Some(imager)) => (Some(imager), Calibration::Detector),
        (None, None) => (None, Calibration::Unknown),
    }
}

fn same_size(format: &PixelFormat, stack: &Stack) -> Result<(), Error> {
    if (format.columns, format.rows) == (stack.columns, stack.rows) {
        return Ok(());
    }
    Err(Error::StreamMismatch {
        header: format!(
            "{}×{} pixels when it was indexed",
            stack.columns, stack.rows
        ),
        stream: format!("{}×{} pixels now", format.columns, format.rows),
    })
}

/// Reads slices in parallel into one block of memory.
struct Reader<'a> {
    files: &'a Files<'a>,
    images: &'a [&'a Instance],
    pixels: usize,
    /// Room to keep for slices without image.
    empty: usize,
    common: &'a Common,
    task: Option<&'a Task>,
    /// Samples of another kind than the middle image's were found.
    mixed: AtomicBool,
}

type Slices = Vec<Result<Slice, Error>>;

impl Reader<'_> {
    fn all<T: Copy + Default + Send + Sync>(
        &self,
        convert: impl Fn(&Samples, &Loaded) -> Option<Vec<T>> + Sync,
        wrap: impl Fn(Vec<T>) -> Voxels,
    ) -> Result<(Voxels, Slices), Error>
    where
        Vec<T>: Zeroed,
    {
        let mut voxels = Vec::<T>::zeroed(self.pixels * (self.images.len() + self.empty));
        voxels.truncate(self.pixels * self.images.len());
        let slices = voxels
            .par_chunks_mut(self.pixels)
            .zip(self.images)
            .map(|(out, image)| {
                if let Some(task) = self.task {
                    task.check()?;
                }
                let slice = self.files.with(image, |loaded| {
                    let frame = loaded.decode(image.frame)?;
                    let values = convert(&frame.samples, loaded);
                    if values.is_none() {
                        self.mixed.store(true, Ordering::Relaxed);
                    }
                    let values = values
                        .filter(|values| values.len() == out.len())
                        .ok_or_else(|| self.differs(loaded))?;
                    out.copy_from_slice(&values);
                    let view = loaded.view(image.frame)?;
                    let (lut, issue) =
                        meaning::slice_lut(loaded.dataset.root(), &view, &loaded.format);
                    let mut issues = frame.issues;
                    issues.extend(issue);
                    Ok(Slice { lut, issues })
                });
                if let Some(task) = self.task {
                    task.advance(1);
                }
                Ok(slice)
            })
            .collect::<Result<Slices, Cancelled>>()?;
        Ok((wrap(voxels), slices))
    }

    fn differs(&self, loaded: &Loaded) -> Error {
        let words = |f: &PixelFormat| {
            format!(
                "{}×{} pixels of {} bits, {}",
                f.columns,
                f.rows,
                f.bits_allocated,
                if f.signed { "signed" } else { "unsigned" }
            )
        };
        Error::StreamMismatch {
            header: words(&self.common.format),
            stream: words(&loaded.format),
        }
    }
}

/// Memory that the system hands out as zeros, touched only where a slice is written.
trait Zeroed {
    fn zeroed(count: usize) -> Self;
}

macro_rules! zeroed {
    ($($t:ty, $zero:expr);*) => {$(
        impl Zeroed for Vec<$t> {
            fn zeroed(count: usize) -> Self {
                vec![$zero; count]
            }
        }
    )*};
}
zeroed!(u8, 0; i16, 0; u16, 0; f32, 0.0; [u8; 3], [0; 3]);

fn narrow_u8(samples: &Samples) -> Option<Vec<u8>> {
    match samples {
        Samples::U8(v) => Some(v.clone()),
        _ => None,
    }
}

fn narrow_i16(samples: &Samples) -> Option<Vec<i16>> {
    match samples {
        Samples::I16(v) => Some(v.clone()),
        Samples::U8(v) => Some(v.iter().map(|&x| i16::from(x)).collect()),
        _ => None,
    }
}

fn narrow_u16(samples: &Samples) -> Option<Vec<u16>> {
    match samples {
        Samples::U16(v) => Some(v.clone()),
        Samples::U8(v) => Some(v.iter().map(|&x| u16::from(x)).collect()),
        _ => None,
    }
}

fn floats(samples: &Samples) -> Vec<f32> {
    match samples {
        Samples::U8(v) => v.iter().map(|&x| f32::from(x)).collect(),
        Samples::I16(v) => v.iter().map(|&x| f32::from(x)).collect(),
        Samples::U16(v) => v.iter().map(|&x| f32::from(x)).collect(),
        Samples::I32(v) => v.iter().map(|&x| x as f32).collect(),
        Samples::U32(v) => v.iter().map(|&x| x as f32).collect(),
        Samples::F32(v) => v.clone(),
        Samples::F64(v) => v.iter().map(|&x| x as f32).collect(),
    }
}

/// Colors in 8 bit: the highest bits of deeper samples; palettes looked up.
fn rgb(samples: &Samples, loaded: &Loaded) -> Option<Vec<[u8; 3]>> {
    if let Some(palette) = &loaded.palette {
        return Some(match samples {
            Samples::U8(v) => v.iter().map(|&x| palette.color(x.into())).collect(),
            Samples::I16(v) => v.iter().map(|&x| palette.color(x.into())).collect(),
            Samples::U16(v) => v.iter().map(|&x| palette.color(x.into())).collect(),
            _ => return None,
        });
    }
    let down = u32::from(loaded.format.bits_stored.saturating_sub(8));
    Some(match samples {
        Samples::U8(v) => v.as_chunks().0.to_vec(),
        Samples::U16(v) => (v.as_chunks::<3>().0.iter())
            .map(|p| p.map(|x| (x >> down).min(255) as u8))
            .collect(),
        Samples::U32(v) => (v.as_chunks::<3>().0.iter())
            .map(|p| p.map(|x| (x >> down).min(255) as u8))
            .collect(),
        _ => return None,
    })
}

/// Takes slices out that are not to be kept.
fn compact(voxels: &mut Voxels, pixels: usize, keep: &[bool]) {
    fn go<T: Copy>(v: &mut Vec<T>, pixels: usize, keep: &[bool]) {
        let mut to = 0;
        for (k, _) in keep.iter().enumerate().filter(|(_, keep)| **keep) {
            v.copy_within(k * pixels..(k + 1) * pixels, to * pixels);
            to += 1;
        }
        v.truncate(to * pixels);
    }
    match voxels {
        Voxels::U8(v) => go(v, pixels, keep),
        Voxels::I16(v) => go(v, pixels, keep),
        Voxels::U16(v) => go(v, pixels, keep),
        Voxels::F32(v) => go(v, pixels, keep),
        Voxels::Rgb8(v) => go(v, pixels, keep),
    }
}

/// What stands in slices without image, as a stored value: the padding value of the file, else
/// the darkest value that occurs. Never something that could be taken for anatomy in between.
fn empty_value(voxels: &Voxels, common: &Common) -> f32 {
    if let Some((low, high)) = common.padding {
        return if common.format.photometric == Photometric::Monochrome1 {
            high
        } else {
            low
        };
    }
    let count = voxels.len();
    let (low, high) = (0..count)
        .into_par_iter()
        .map(|n| voxels.stored(n))
        .filter(|x| x.is_finite())
        .fold(
            || (f32::INFINITY, f32::NEG_INFINITY),
            |(low, high), x| (low.min(x), high.max(x)),
        )
        .reduce(
            || (f32::INFINITY, f32::NEG_INFINITY),
            |a, b| (a.0.min(b.0), a.1.max(b.1)),
        );
    match common.format.photometric {
        _ if low > high => 0.0,
        Photometric::Monochrome1 => high,
        _ => low,
    }
}

/// Moves slices to their places `slots` (rising); those in between take `empty`, colors black.
fn spread(voxels: &mut Voxels, pixels: usize, slots: &[usize], empty: f32) {
    fn go<T: Copy>(v: &mut Vec<T>, pixels: usize, slots: &[usize], empty: T) {
        let Some(last) = slots.last() else { return };
        v.resize((last + 1) * pixels, empty);
        let mut end = last + 1;
        for (from, &to) in slots.iter().enumerate().rev() {
            // From the end, so that nothing is overwritten before it has moved.
            v.copy_within(from * pixels..(from + 1) * pixels, to * pixels);
            v[(to + 1) * pixels..end * pixels].fill(empty);
            end = to;
        }
    }
    match voxels {
        Voxels::U8(v) => go(v, pixels, slots, empty as u8),
        Voxels::I16(v) => go(v, pixels, slots, empty as i16),
        Voxels::U16(v) => go(v, pixels, slots, empty as u16),
        Voxels::F32(v) => go(v, pixels, slots, empty),
        Voxels::Rgb8(v) => go(v, pixels, slots, [0; 3]),
    }
}

/// The same for what each slice has one of; `filler` is asked with the one before.
fn spread_each<T>(each: &mut Vec<T>, slots: &[usize], filler: impl Fn(&T) -> T) {
    let mut out: Vec<T> = Vec::with_capacity(slots.last().map_or(0, |last| last + 1));
    for (one, &to) in each.drain(..).zip(slots) {
        while out.len() < to {
            let next = filler(out.last().unwrap_or(&one));
            out.push(next);
        }
        out.push(one);
    }
    *each = out;
}

struct Placed {
    geometry: VolumeGeometry,
    layout: Layout,
    /// Place of each kept image along k.
    slots: Vec<usize>,
    issues: Vec<Issue>,
}

/// Where the kept images lie.
fn place(stack: &Stack, common: &Common, kept: &[&Instance]) -> Result<Placed, Error> {
    let grid = |slices: usize| [stack.columns, stack.rows, slices];
    let (between_columns, between_rows) = common
        .pixel_spacing
        .map_or((1.0, 1.0), |s| (s.between_columns_mm, s.between_rows_mm));
    let origin = kept.first().and_then(|image| image.position_lps);
    let (Some(orientation), Some(origin)) = (common.orientation, origin) else {
        let geometry = VolumeGeometry::from_axes(
            grid(kept.len()),
            DVec3::ZERO,
            [DVec3::X, DVec3::Y, DVec3::Z],
            [between_columns, between_rows, 1.0],
        )?;
        return Ok(Placed {
            geometry,
            layout: Layout::Images,
            slots: (0..kept.len()).collect(),
            issues: Vec::new(),
        });
    };
    let normal = orientation.normal();
    let positions: Vec<DVec3> = kept.iter().filter_map(|i| i.position_lps).collect();
    let mut spacing = Spacing::of(&positions, normal);
    let mut issues = std::mem::take(&mut spacing.issues);
    // A single slice takes the step of its stack, else its thickness.
    let step = spacing
        .step
        .or_else(|| {
            let all: Vec<DVec3> = stack.images.iter().filter_map(|i| i.position_lps).collect();
            Spacing::of(&all, normal).step
        })
        .unwrap_or_else(|| normal * common.thickness_mm.unwrap_or(1.0));
    if kept.len() == 1 && stack.images.len() > 1 {
        issues.push(Issue::SingleSlice);
    }
    // CLINICAL(spacing): the third column is the step between positions, so that a tilted
    // gantry keeps its shear. PS3.3 C.7.6.2.1.1.
    let axes = DMat3::from_cols(
        orientation.row * between_columns,
        orientation.column * between_rows,
        step,
    );
    let dims = grid(spacing.slots.len().max(spacing.slices()));
    let geometry = VolumeGeometry::new(dims, DAffine3::from_mat3_translation(axes, origin))?;
    Ok(Placed {
        geometry,
        slots: spacing.slots,
        layout: if stack.is_volume {
            Layout::Volumetric
        } else {
            Layout::Images
        },
        issues,
    })
}

/// Box average of the windowed first slice, true to the pixels' shape.
fn shrink(volume: &Volume) -> Thumbnail {
    let [columns, rows, _] = volume.geometry.dims();
    let [across, down, _] = volume.geometry.spacing_mm();
    let size_mm = (columns as f64 * across, rows as f64 * down);
    let scale = (THUMBNAIL as f64 / size_mm.0.max(size_mm.1)).min(1.0 / across.min(down));
    let side = |mm: f64| ((mm * scale).round() as usize).clamp(1, THUMBNAIL);
    let (width, height) = (side(size_mm.0), side(size_mm.1));
    let window: VoiWindow = volume
        .windows
        .first()
        .map_or_else(|| auto_window(volume), |w| w.window);
    let color = |n: usize| -> [f32; 3] {
        if let Voxels::Rgb8(v) = &volume.voxels {
            return v[n].map(f32::from);
        }
        let gray = window.gray(volume.value(n)) * 255.0;
        [if volume.inverted { 255.0 - gray } else { gray }; 3]
    };
    let span = |n: usize, of: usize, count: usize| {
        let from = n * count / of;
        from..((n + 1) * count).div_ceil(of).clamp(from + 1, count)
    };
    let mut rgb = Vec::with_capacity(width * height);
    for y in 0..height {
        for x in 0..width {
            let mut sum = [0.0_f32; 3];
            let mut count = 0.0;
            for j in span(y, height, rows) {
                for i in span(x, width, columns) {
                    for (s, c) in sum.iter_mut().zip(color(j * columns + i)) {
                        *s += c;
                    }
                    count += 1.0;
                }
            }
            rgb.push(sum.map(|s| (s / count).round() as u8));
        }
    }
    Thumbnail { width, height, rgb }
}
