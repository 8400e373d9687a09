//! What stored values of an image mean: Modality LUT, quantity, windows, padding.

use dicom_dictionary_std::tags;

use super::dataset::Item;
use super::header::FrameView;
use super::pixels::PixelFormat;
use crate::study::Issue;
use crate::volume::{ModalityLut, NamedWindow, Quantity, VoiFunction, VoiWindow};

const MODALITY_LUT_ENTRIES: usize = 65536;

/// The Modality LUT of one slice.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum SliceLut {
    /// Slope and intercept.
    Rescale(f32, f32),
    /// First mapped value and table.
    Table(i32, Vec<f32>),
    /// The file has none.
    Absent,
}

/// Reads the Modality LUT of a frame.
pub(super) fn slice_lut(
    root: Item<'_>,
    view: &FrameView<'_>,
    format: &PixelFormat,
) -> (SliceLut, Option<Issue>) {
    if format.is_color() {
        return (SliceLut::Rescale(1.0, 0.0), None);
    }
    if let Some(lut) = root.item(tags::MODALITY_LUT_SEQUENCE)
        && let [_, first, ..] = lut.numbers(tags::LUT_DESCRIPTOR)[..]
    {
        let first = if format.signed {
            i32::from(first as i64 as i16)
        } else {
            first as i32
        };
        let values: Vec<f32> = lut
            .words(tags::LUT_DATA)
            .into_iter()
            .take(MODALITY_LUT_ENTRIES)
            .map(f32::from)
            .collect();
        if !values.is_empty() {
            return (SliceLut::Table(first, values), None);
        }
    }
    let sequence = tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE;
    let of = |tag| {
        let holder = view.holder(sequence, tag);
        // Absent, unusable and usable are three things.
        holder
            .text_or_number(tag)
            .map(|_| holder.numbers(tag).first().copied().unwrap_or(f64::NAN))
    };
    let dose = root.number(tags::DOSE_GRID_SCALING);
    let slope = of(tags::RESCALE_SLOPE).or(dose);
    let intercept = of(tags::RESCALE_INTERCEPT);
    match (slope, intercept) {
        (None, None) => (SliceLut::Absent, None),
        (slope, intercept) => {
            let (slope, intercept) = (slope.unwrap_or(1.0), intercept.unwrap_or(0.0));
            // Beyond f32 a slope cannot be applied either.
            let usable = slope != 0.0
                && (slope as f32).is_finite()
                && (intercept as f32).is_finite()
                && slope as f32 != 0.0;
            if usable {
                (SliceLut::Rescale(slope as f32, intercept as f32), None)
            } else {
                let issue = Issue::RescaleInvalid { slope, intercept };
                (SliceLut::Rescale(1.0, 0.0), Some(issue))
            }
        }
    }
}

/// One LUT for the volume from those of its slices, in the order of k.
pub(super) fn modality_lut(slices: &[SliceLut], modality: &str) -> (ModalityLut, Option<Issue>) {
    let Some(first) = slices.first() else {
        return (ModalityLut::IDENTITY, None);
    };
    if slices.contains(&SliceLut::Absent) {
        let expected = match modality {
            "CT" => Some("HU"),
            "PT" => Some("Bq/mL"),
            _ => None,
        };
        let issue = expected.map(|unit| Issue::RescaleMissing {
            expected: unit.to_owned(),
        });
        if slices.iter().all(|s| *s == SliceLut::Absent) {
            return (ModalityLut::IDENTITY, issue);
        }
        return (per_slice(slices), issue);
    }
    if slices.iter().all(|s| s == first) {
        let lut = match first {
            SliceLut::Rescale(slope, intercept) => ModalityLut::Rescale {
                slope: *slope,
                intercept: *intercept,
            },
            SliceLut::Table(first, values) => ModalityLut::Table {
                first: *first,
                values: values.clone(),
            },
            SliceLut::Absent => ModalityLut::IDENTITY,
        };
        return (lut, None);
    }
    let tables = slices.iter().any(|s| matches!(s, SliceLut::Table(..)));
    let issue = tables.then(|| Issue::Other {
        code: "modality-lut-differs",
        message: "slices have different modality tables: values are stored values".to_owned(),
    });
    if tables {
        return (ModalityLut::IDENTITY, issue);
    }
    (per_slice(slices), None)
}

fn per_slice(slices: &[SliceLut]) -> ModalityLut {
    ModalityLut::PerSlice(
        slices
            .iter()
            .map(|s| match s {
                SliceLut::Rescale(slope, intercept) => (*slope, *intercept),
                _ => (1.0, 0.0),
            })
            .collect(),
    )
}

/// What modality values are.
pub(super) fn quantity(
    root: Item<'_>,
    view: &FrameView<'_>,
    format: &PixelFormat,
    lut: &SliceLut,
    localizer: bool,
) -> Quantity {
    if format.is_color() {
        return Quantity::Color;
    }
    let modality = root.line(tags::MODALITY);
    let sequence = tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE;
    let kind = match lut {
        SliceLut::Table(..) => root
            .item(tags::MODALITY_LUT_SEQUENCE)
            .map(|item| item.line(tags::MODALITY_LUT_TYPE)),
        _ => Some(
            view.holder(sequence, tags::RESCALE_TYPE)
                .line(tags::RESCALE_TYPE),
        ),
    }
    .unwrap_or_default();
    // Screen shots of modality CT carry gray levels.
    let secondary = root
        .uid(tags::SOP_CLASS_UID)
        .is_some_and(|uid| uid.as_str().starts_with("1.2.840.10008.5.1.4.1.1.7"));
    match (modality.as_str(), kind.as_str()) {
        ("CT", "HU" | "")
            if *lut != SliceLut::Absent && !secondary && (kind == "HU" || !localizer) =>
        {
            Quantity::Hounsfield
        }
        ("PT", _) => match root.line(tags::UNITS).as_str() {
            "BQML" if *lut != SliceLut::Absent => Quantity::ActivityConcentration,
            "" | "BQML" => Quantity::Arbitrary,
            "GML" => Quantity::Named("g/mL".to_owned()),
            other => Quantity::Named(other.to_owned()),
        },
        ("RTDOSE", _) => match root.line(tags::DOSE_UNITS).as_str() {
            "GY" => Quantity::Named("Gy".to_owned()),
            "" => Quantity::Arbitrary,
            other => Quantity::Named(other.to_lowercase()),
        },
        (_, "" | "US") | ("CT" | "MR", "HU") => Quantity::Arbitrary,
        (_, other) => Quantity::Named(other.to_owned()),
    }
}

/// Windows of the file, and a doubt when one of them cannot be used.
pub(super) fn windows(view: &FrameView<'_>) -> (Vec<NamedWindow>, Option<Issue>) {
    let holder = view.holder(tags::FRAME_VOILUT_SEQUENCE, tags::WINDOW_CENTER);
    let centers = holder.numbers(tags::WINDOW_CENTER);
    let widths = holder.numbers(tags::WINDOW_WIDTH);
    let names = holder.texts(tags::WINDOW_CENTER_WIDTH_EXPLANATION);
    let function = match holder.line(tags::VOILUT_FUNCTION).as_str() {
        "SIGMOID" => VoiFunction::Sigmoid,
        "LINEAR_EXACT" => VoiFunction::LinearExact,
        _ => VoiFunction::Linear,
    };
    let mut windows = Vec::new();
    let mut issue = (centers.len() != widths.len()).then_some(Issue::WindowInvalid);
    for (n, (&center, &width)) in centers.iter().zip(&widths).enumerate() {
        let (center, width) = (center as f32, width as f32);
        if !center.is_finite() || !width.is_finite() || width <= 0.0 {
            issue = Some(Issue::WindowInvalid);
            continue;
        }
        // LINEAR needs a width of 1 (C.11.2.1.2.1); writers of small float ranges mean the exact one.
        let function = if width < 1.0 && function == VoiFunction::Linear {
            VoiFunction::LinearExact
        } else {
            function
        };
        let name = names.get(n).filter(|name| !name.is_empty());
        windows.push(NamedWindow {
            name: name.map_or_else(
                || match n {
                    0 => "From file".to_owned(),
                    n => format!("From file {}", n + 1),
                },
                |name| name.chars().filter(|c| !c.is_control()).take(64).collect(),
            ),
            window: VoiWindow {
                center,
                width,
                function,
            },
        });
    }
    (windows, issue)
}

/// Stored values that mark pixels outside of the image.
pub(super) fn padding(root: Item<'_>, format: &PixelFormat) -> Option<(f32, f32)> {
    let stored = |tag| {
        let value = root.number(tag)? as i64;
        // The VR may be US while values are signed, and the other way round.
        Some(match (format.signed, format.bits_allocated) {
            (true, ..=16) => value as i16 as f32,
            (false, ..=16) => value as u16 as f32,
            _ => value as f32,
        })
    };
    let value = stored(tags::PIXEL_PADDING_VALUE)?;
    let limit = stored(tags::PIXEL_PADDING_RANGE_LIMIT).unwrap_or(value);
    Some((value.min(limit), value.max(limit)))
}

/// Frames per second, when the file says so.
pub(super) fn frame_rate(root: Item<'_>) -> Option<f64> {
    let rate = root
        .number(tags::RECOMMENDED_DISPLAY_FRAME_RATE)
        .or_else(|| root.number(tags::CINE_RATE))
        .or_else(|| root.number(tags::FRAME_TIME).map(|ms| 1000.0 / ms))?;
    (0.01..1000.0).contains(&rate).then_some(rate)
}
