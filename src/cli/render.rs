//! `negatoscope render`: one slice into a PNG.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;

use super::progress::ProgressLine;
use super::{Ending, PlaneArgument, opening};
use crate::findings::{AlgorithmType, Segmentation};
use crate::geometry::ViewPlane;
use crate::render::{CornerLines, OverlayStyle, SliceView, SnapshotOptions, snapshot, write_png};
use crate::runtime::Home;
use crate::task::Task;
use crate::volume::{LabelMap, Layout, NamedWindow, VoiWindow, Volume, auto_window, presets_for};
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
    /// Plane; that of the stored slices by default.
    #[arg(long)]
    plane: Option<PlaneArgument>,
    /// Slice, from 1; the middle one by default.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    slice: Option<u64>,
    /// Window in modality units, e.g. `40,400`; else the file's, the modality's, or from the data.
    #[arg(long, value_name = "CENTER,WIDTH", allow_hyphen_values = true, value_parser = window)]
    window: Option<VoiWindow>,
    /// Size of the picture in pixels.
    #[arg(long, value_name = "WxH", default_value = "800x800", value_parser = size)]
    size: [u32; 2],
    /// DICOM SEG or NIfTI label map to draw over it.
    #[arg(long, value_name = "SEG")]
    overlay: Option<PathBuf>,
    /// Text in the corners; `full` names the patient.
    #[arg(long, value_enum, default_value_t = Info::Minimal)]
    info: Info,
}

/// Text in the corners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Info {
    /// Letters and ruler only.
    None,
    /// Without the patient's identity.
    Minimal,
    /// Everything, with the patient.
    Full,
}

fn window(text: &str) -> Result<VoiWindow, String> {
    let numbers = text.split_once(',').and_then(|(center, width)| {
        let center: f32 = center.trim().parse().ok()?;
        let width: f32 = width.trim().parse().ok()?;
        (center.is_finite() && width.is_finite() && width > 0.0).then_some((center, width))
    });
    let (center, width) =
        numbers.ok_or("expected CENTER,WIDTH with a width above 0, for example 40,400")?;
    Ok(VoiWindow::new(center, width))
}

fn size(text: &str) -> Result<[u32; 2], String> {
    let numbers = text
        .split_once(['x', 'X', '×'])
        .and_then(|(w, h)| Some([w.trim().parse().ok()?, h.trim().parse().ok()?]));
    numbers
        .filter(|size: &[u32; 2]| size.iter().all(|n| (64..=8192).contains(n)))
        .ok_or_else(|| {
            "expected WIDTHxHEIGHT, each from 64 to 8192, for example 800x800".to_owned()
        })
}

pub fn run(home: &Home, arguments: &Arguments) -> anyhow::Result<Ending> {
    let task = Arc::new(Task::new());
    let line = ProgressLine::start(&task);
    let opened = opening::open_one(home, &arguments.path, arguments.series.as_deref(), &task)?;
    let volume = &opened.volume;
    let plane = arguments.plane.map(ViewPlane::from);
    let count = SliceView::slice_count(volume, plane);
    if let Some(slice) = arguments.slice {
        ensure!(
            slice <= count as u64,
            "slice {slice} of {count} slices in this plane"
        );
    }
    let overlay = arguments
        .overlay
        .as_deref()
        .map(|path| Overlay::read(path, volume, &task))
        .transpose()?;
    let chosen = match arguments.window {
        Some(window) => NamedWindow {
            name: String::new(),
            window,
        },
        None => first_window(volume),
    };
    let mut options = SnapshotOptions::new(arguments.size, chosen.window);
    options.plane = plane;
    options.slice = arguments.slice.map(|slice| slice as usize - 1);
    options.oriented = volume.is_oriented();
    if arguments.info != Info::None {
        let slice = options.slice.unwrap_or(count / 2);
        options.corners = corners(arguments, volume, [slice + 1, count], &chosen);
        options.doubts = volume.issues.iter().map(ToString::to_string).collect();
    }
    if let Some(overlay) = &overlay {
        options.overlay = Some(overlay.style(arguments.size));
        options.legend.clone_from(&overlay.names);
    }
    let picture = snapshot(volume, overlay.as_ref().map(|o| &o.map), &options);
    let act = opening::record_export(home, volume, &arguments.path, &arguments.out)?;
    opening::closed(act, write_png(&arguments.out, &picture))
        .with_context(|| format!("could not write {}", arguments.out.display()))?;
    drop(line);
    opened.tell();
    eprintln!("{}", arguments.out.display());
    Ok(Ending::Done)
}

/// As the window does it: from the file, else the modality's first, else from the data.
fn first_window(volume: &Volume) -> NamedWindow {
    let named = volume.windows.first().cloned();
    named
        .or_else(|| presets_for(&volume.modality).into_iter().next())
        .unwrap_or_else(|| NamedWindow {
            name: "Auto".to_owned(),
            window: auto_window(volume),
        })
}

/// Labels to draw, with what is known about them.
struct Overlay {
    map: LabelMap,
    names: Vec<(u8, String)>,
    colors: Box<[Option<[u8; 3]>; 256]>,
    /// Made by a program, and nobody has reviewed it.
    unreviewed: bool,
}

impl Overlay {
    fn read(path: &Path, volume: &Volume, task: &Task) -> anyhow::Result<Self> {
        if nifti::is_nifti_name(path) {
            return Ok(Self::plain(nifti::read_label_map(path, task)?));
        }
        let read = dicom::read_segmentation(path)?;
        let (ours, theirs) = (
            &volume.source.frame_of_reference_uid,
            &read.frame_of_reference_uid,
        );
        if let (Some(ours), Some(theirs)) = (ours, theirs)
            && ours != theirs
        {
            bail!(
                "the segmentation lies in another frame of reference than the images: {}",
                path.display()
            );
        }
        Ok(Self::segmentation(read.into_segmentation(volume)?))
    }

    fn segmentation(found: Segmentation) -> Self {
        let mut colors = Box::new([None; 256]);
        for segment in &found.segments {
            colors[usize::from(segment.label)] = Some(segment.color);
        }
        Self {
            names: found
                .segments
                .iter()
                .map(|s| (s.label, s.name.clone()))
                .collect(),
            colors,
            unreviewed: found.algorithm != AlgorithmType::Manual,
            map: found.map,
        }
    }

    /// A label map that says nothing about its labels.
    fn plain(map: LabelMap) -> Self {
        let mut colors = Box::new([None; 256]);
        let mut names = Vec::new();
        for (label, _) in (0_u8..=255)
            .zip(map.counts())
            .skip(1)
            .filter(|(_, n)| *n > 0)
        {
            colors[usize::from(label)] = Some(COLORS[(usize::from(label) - 1) % COLORS.len()]);
            names.push((label, format!("Label {label}")));
        }
        Self {
            map,
            names,
            colors,
            unreviewed: false,
        }
    }

    fn style(&self, [width, height]: [u32; 2]) -> OverlayStyle {
        OverlayStyle {
            fill: 0.25,
            outline: 0.9,
            outline_px: 1 + width.min(height) / 1200,
            dashed: self.unreviewed,
            colors: self.colors.clone(),
        }
    }
}

/// For labels without colors of their own: apart in hue and in lightness.
const COLORS: [[u8; 3]; 10] = [
    [235, 179, 92],
    [92, 150, 220],
    [120, 196, 128],
    [214, 110, 104],
    [170, 136, 214],
    [92, 200, 200],
    [222, 222, 120],
    [226, 140, 190],
    [160, 176, 120],
    [200, 160, 130],
];

fn corners(
    arguments: &Arguments,
    volume: &Volume,
    [slice, count]: [usize; 2],
    chosen: &NamedWindow,
) -> CornerLines {
    let source = &volume.source;
    let known = |keyword: &str| -> String {
        let found = source
            .patient_study
            .iter()
            .find(|(name, _)| name == keyword);
        found
            .map(|(_, value)| value.expose().trim().to_owned())
            .unwrap_or_default()
    };
    let mut corners = CornerLines::default();
    if arguments.info == Info::Full {
        let born = [date_words(&known("PatientBirthDate")), known("PatientSex")].join("  ");
        let time = known("StudyTime");
        let time = match time.get(..4) {
            Some(hhmm) if hhmm.is_ascii() => format!("{}:{}", &hhmm[..2], &hhmm[2..]),
            _ => String::new(),
        };
        let when = [date_words(&known("StudyDate")), time].join(" ");
        corners.top_left = lines([known("PatientName"), known("PatientID"), born]);
        corners.top_right = lines([known("StudyDescription"), known("AccessionNumber"), when]);
    }
    let plane = match (volume.layout, arguments.plane.map(ViewPlane::from)) {
        (Layout::Images, _) => "Image",
        (_, Some(plane)) => plane.name(),
        (_, None) => "Slice",
    };
    corners
        .bottom_left
        .push(format!("{plane} {slice} / {count}"));
    if !volume.voxels.is_color() {
        let VoiWindow { center, width, .. } = chosen.window;
        let text = format!("W {} L {}  {}", number(width), number(center), chosen.name);
        corners.bottom_left.push(cut(text.trim()));
    }
    let title = source
        .number
        .map(|n| format!("Series {n}  "))
        .unwrap_or_default()
        + &volume.modality;
    corners.bottom_right = lines([title, source.description.clone(), String::new()]);
    if source.series_instance_uid.is_none() {
        let name = arguments
            .path
            .file_name()
            .map(|n| n.to_string_lossy().into_owned());
        corners.bottom_right.extend(name.map(|n| cut(&n)));
    }
    if volume.layout == Layout::Volumetric {
        let [a, b, c] = volume.geometry.spacing_mm();
        corners
            .bottom_right
            .push(format!("{a:.2} × {b:.2} × {c:.2} mm"));
    }
    corners
}

fn lines(lines: [String; 3]) -> Vec<String> {
    lines
        .iter()
        .map(|line| cut(line.trim()))
        .filter(|line| !line.is_empty())
        .collect()
}

/// Long values are cut.
fn cut(line: &str) -> String {
    const LONGEST: usize = 28;
    if line.chars().count() <= LONGEST {
        line.to_owned()
    } else {
        line.chars().take(LONGEST - 1).chain(['…']).collect()
    }
}

/// `20240131` as `2024-01-31`; anything else as it is.
fn date_words(date: &str) -> String {
    if date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit()) {
        format!("{}-{}-{}", &date[..4], &date[4..6], &date[6..])
    } else {
        date.to_owned()
    }
}

/// A number without needless digits.
fn number(value: f32) -> String {
    if value.abs() >= 10.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_and_sizes_are_read_or_refused_with_an_example() {
        assert_eq!(window("-600,1500"), Ok(VoiWindow::new(-600.0, 1500.0)));
        assert_eq!(window(" 0.5 , 0.25 "), Ok(VoiWindow::new(0.5, 0.25)));
        for bad in ["", "40", "40,", "40,0", "40,-1", "nan,3", "1,inf", "1,2,3"] {
            assert!(window(bad).unwrap_err().contains("40,400"), "{bad}");
        }
        assert_eq!(size("640x480"), Ok([640, 480]));
        for bad in ["640", "0x0", "x", "640x", "-3x9", "100000x100", "640x480x3"] {
            assert!(size(bad).unwrap_err().contains("800x800"), "{bad}");
        }
    }
}
