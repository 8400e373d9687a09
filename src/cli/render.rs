//! `negatoscope render`: one slice into a PNG.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};

use super::progress::ProgressLine;
use super::{Ending, PlaneArgument, opening};
use crate::findings::ReviewState;
use crate::geometry::{ImagePlane, ViewPlane};
use crate::render::{CornerLines, OverlayStyle, SnapshotOptions, snapshot, write_png};
use crate::runtime::Home;
use crate::study::Issue;
use crate::task::Task;
use crate::volume::{Calibration, LabelMap, Layout, VoiWindow, Volume, auto_window};
use crate::{dicom, nifti};

#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// File, folder or ZIP archive.
    path: PathBuf,
    /// File to write.
    #[arg(long, value_name = "F.png")]
    out: PathBuf,
    /// Series Instance UID, when there are several.
    #[arg(long, value_name = "UID")]
    series: Option<String>,
    /// Plane; that of the stored images by default.
    #[arg(long)]
    plane: Option<PlaneArgument>,
    /// Slice, from 1; the middle one by default.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    slice: Option<u64>,
    /// Window, e.g. `40,400`; that of the file, or of the values, by default.
    #[arg(long, value_name = "CENTER,WIDTH", allow_hyphen_values = true, value_parser = parse_window)]
    window: Option<VoiWindow>,
    /// Size in pixels.
    #[arg(long, value_name = "WxH", default_value = "800x800", value_parser = parse_size)]
    size: [u32; 2],
    /// DICOM SEG or NIfTI label map to draw over it.
    #[arg(long, value_name = "SEG")]
    overlay: Option<PathBuf>,
    /// Text in the corners; `full` shows the patient.
    #[arg(long, default_value = "minimal")]
    info: InfoArgument,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum InfoArgument {
    None,
    Minimal,
    Full,
}

fn parse_window(text: &str) -> Result<VoiWindow, String> {
    let numbers: Vec<f32> = text
        .split(',')
        .map(|part| part.trim().parse::<f32>())
        .collect::<Result<_, _>>()
        .map_err(|_| "two numbers are needed, e.g. 40,400".to_owned())?;
    match numbers[..] {
        [center, width] if center.is_finite() && width.is_finite() && width > 0.0 => {
            Ok(VoiWindow::new(center, width))
        }
        [_, _] => Err("the width must be above 0".to_owned()),
        _ => Err("two numbers are needed, e.g. 40,400".to_owned()),
    }
}

fn parse_size(text: &str) -> Result<[u32; 2], String> {
    let size = text
        .split_once(['x', 'X'])
        .and_then(|(w, h)| Some([w.trim().parse().ok()?, h.trim().parse().ok()?]))
        .ok_or("width and height are needed, e.g. 800x600")?;
    if size.iter().all(|n| (16..=8192).contains(n)) {
        Ok(size)
    } else {
        Err("width and height are 16 to 8192 pixels".to_owned())
    }
}

pub fn run(home: &Home, arguments: &Arguments) -> anyhow::Result<Ending> {
    let task = Arc::new(Task::new());
    let line = ProgressLine::start(&task);
    let opened = opening::open_one(home, &arguments.path, arguments.series.as_deref(), &task)?;
    let volume = &opened.volume;
    let plane = arguments.plane.map(ViewPlane::from);
    let options = options(volume, plane, arguments)?;
    let overlay = arguments
        .overlay
        .as_deref()
        .map(|path| Overlay::read(path, volume, &task))
        .transpose()?;
    let options = SnapshotOptions {
        overlay: overlay.as_ref().map(|o| o.style.clone()),
        legend: overlay
            .as_ref()
            .map(|o| o.legend.clone())
            .unwrap_or_default(),
        ..options
    };
    let picture = snapshot(volume, overlay.as_ref().map(|o| &o.map), &options);
    opening::record_export(home, volume, &arguments.path, &arguments.out)?;
    write_png(&arguments.out, &picture)
        .with_context(|| format!("the picture was not written: {}", arguments.out.display()))?;
    drop(line);
    opened.tell();
    for issue in overlay.iter().flat_map(|o| &o.issues) {
        eprintln!("negatoscope: doubt: {issue}");
    }
    eprintln!("{}", arguments.out.display());
    Ok(Ending::Done)
}

fn options(
    volume: &Volume,
    plane: Option<ViewPlane>,
    arguments: &Arguments,
) -> anyhow::Result<SnapshotOptions> {
    let volumetric = volume.layout == Layout::Volumetric;
    if let (Some(plane), false) = (plane, volumetric) {
        bail!(
            "these are plain images, not a volume: there is no {} plane",
            plane.name().to_lowercase()
        );
    }
    let axis = match plane {
        Some(plane) => ImagePlane::normal_axis(&volume.geometry, plane),
        None => 2,
    };
    let count = volume.geometry.dims()[axis] as u64;
    if let Some(slice) = arguments.slice.filter(|&slice| slice > count) {
        bail!("there is no slice {slice}: slices are numbered from 1 to {count}");
    }
    let window = arguments.window.unwrap_or_else(|| {
        volume
            .windows
            .first()
            .map_or_else(|| auto_window(volume), |named| named.window)
    });
    let slice = arguments.slice.unwrap_or(count / 2 + 1);
    let placed = volumetric || volume.calibration == Calibration::Patient;
    Ok(SnapshotOptions {
        plane,
        slice: Some(slice as usize - 1),
        // CLINICAL(laterality): images without patient geometry get no letters rather than guessed ones.
        oriented: placed && !volume.issues.contains(&Issue::NoGeometry),
        marks: arguments.info != InfoArgument::None,
        corners: corners(volume, plane, slice, count, window, arguments.info),
        ..SnapshotOptions::new(arguments.size, window)
    })
}

/// What the picture says about its image; the patient only when asked for.
fn corners(
    volume: &Volume,
    plane: Option<ViewPlane>,
    slice: u64,
    count: u64,
    window: VoiWindow,
    info: InfoArgument,
) -> CornerLines {
    if info == InfoArgument::None {
        return CornerLines::default();
    }
    let source = &volume.source;
    let mut corners = CornerLines::default();
    if info == InfoArgument::Full {
        let value = |keyword: &str| {
            source
                .patient_study
                .iter()
                .find(|(k, _)| k == keyword)
                .map(|(_, v)| v.expose().replace('^', " ").trim().to_owned())
                .unwrap_or_default()
        };
        let filled = |lines: [String; 3]| lines.into_iter().filter(|l| !l.is_empty()).collect();
        corners.top_left = filled(["PatientName", "PatientID", "PatientBirthDate"].map(value));
        corners.top_right = filled(["StudyDescription", "AccessionNumber", "StudyDate"].map(value));
    }
    let word = plane.map_or("Image", ViewPlane::name);
    corners
        .bottom_left
        .push(format!("{word} {slice} / {count}"));
    if !volume.voxels.is_color() {
        let text = format!("W {} L {}", plain(window.width), plain(window.center));
        corners.bottom_left.push(text);
    }
    let number = source.number.map(|n| format!("Series {n}"));
    let series = format!("{}  {}", number.unwrap_or_default(), volume.modality);
    for line in [series.trim(), source.description.trim()] {
        if !line.is_empty() {
            corners.bottom_right.push(line.chars().take(40).collect());
        }
    }
    corners
}

/// A number without needless digits.
fn plain(value: f32) -> String {
    if value.abs() >= 10.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

/// Colors of labels that have no color of their own, well apart also for color-blind readers.
///
/// # Source
/// Wong, "Points of view: Color blindness", Nature Methods 8, 441 (2011), without black.
const COLORS: [[u8; 3]; 7] = [
    [230, 159, 0],
    [86, 180, 233],
    [0, 158, 115],
    [240, 228, 66],
    [0, 114, 178],
    [213, 94, 0],
    [204, 121, 167],
];

/// Labels to draw over the image.
struct Overlay {
    map: LabelMap,
    style: OverlayStyle,
    legend: Vec<(u8, String)>,
    issues: Vec<Issue>,
}

impl Overlay {
    fn read(path: &Path, volume: &Volume, task: &Task) -> anyhow::Result<Self> {
        if nifti::is_nifti_name(path) {
            let map = nifti::read_label_map(path, task)?;
            let labels = map.counts();
            let segments: Vec<(u8, String, [u8; 3])> = (1..=255_u8)
                .filter(|&label| labels[usize::from(label)] > 0)
                .map(|label| {
                    let color = COLORS[usize::from(label - 1) % COLORS.len()];
                    (label, format!("Label {label}"), color)
                })
                .collect();
            return Ok(Self::new(map, segments, false, Vec::new()));
        }
        let read = dicom::read_segmentation(path)?;
        let (theirs, ours) = (
            &read.frame_of_reference_uid,
            &volume.source.frame_of_reference_uid,
        );
        // CLINICAL(laterality): labels of another patient or position are never drawn over an image.
        if theirs.is_some() && ours.is_some() && theirs != ours {
            bail!(
                "the segmentation belongs to other images (another frame of reference): {}",
                path.display()
            );
        }
        let segmentation = read
            .into_segmentation(volume)
            .with_context(|| format!("the segmentation does not fit: {}", path.display()))?;
        let segments = segmentation
            .segments
            .iter()
            .map(|s| (s.label, s.name.clone(), s.color))
            .collect();
        let reviewed = segmentation.review == ReviewState::Accepted;
        let issues = segmentation
            .issues
            .iter()
            .filter(|issue| !volume.issues.contains(issue))
            .cloned()
            .collect();
        Ok(Self::new(segmentation.map, segments, !reviewed, issues))
    }

    fn new(
        map: LabelMap,
        segments: Vec<(u8, String, [u8; 3])>,
        dashed: bool,
        issues: Vec<Issue>,
    ) -> Self {
        let mut colors = Box::new([None; 256]);
        for (label, _, color) in &segments {
            colors[usize::from(*label)] = Some(*color);
        }
        Self {
            map,
            style: OverlayStyle {
                fill: 0.3,
                outline: 0.9,
                outline_px: 2,
                dashed,
                colors,
            },
            legend: segments
                .into_iter()
                .map(|(label, name, _)| (label, name))
                .collect(),
            issues,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_and_sizes_are_read_or_refused_with_a_hint() {
        assert_eq!(
            parse_window("-600, 1500"),
            Ok(VoiWindow::new(-600.0, 1500.0))
        );
        for bad in ["40", "40,0", "40,-1", "a,b", "1,2,3", "nan,4", "1,inf"] {
            assert!(parse_window(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_size("640x480"), Ok([640, 480]));
        for bad in ["640", "0x0", "99999x10", "x", "axb"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
