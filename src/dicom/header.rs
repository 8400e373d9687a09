//! What an image file says of itself, frame by frame.

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::attributes::{
    Object, float, floats, int, item, items, orientation, position, spacing, text, texts, uid,
};
use crate::geometry::DVec3;
use crate::study::Uid;

/// Format of stored pixels (PS3.3 C.7.6.3).
#[derive(Clone, Debug, PartialEq)]
pub struct PixelFormat {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Samples per pixel, 1 or 3.
    pub samples: usize,
    /// 1, 8, 16, 32 or 64.
    pub bits_allocated: usize,
    /// 1 to `bits_allocated`.
    pub bits_stored: usize,
    /// Position of the highest stored bit.
    pub high_bit: usize,
    /// Two's complement.
    pub signed: bool,
    /// Colors plane by plane.
    pub planar: bool,
    /// Photometric Interpretation.
    pub photometric: String,
}

impl PixelFormat {
    /// Bytes of a native frame.
    pub fn frame_bits(&self) -> usize {
        self.rows * self.columns * self.samples * self.bits_allocated
    }

    /// Whether pixels become colors.
    pub fn is_color(&self) -> bool {
        self.samples == 3 || self.photometric == "PALETTE COLOR"
    }
}

/// What is known of one frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FrameHeader {
    /// Image Position.
    pub position: Option<DVec3>,
    /// Image Orientation.
    pub orientation: Option<[DVec3; 2]>,
    /// Pixel Spacing: between rows, between columns.
    pub spacing: Option<[f64; 2]>,
    /// Rescale Slope and Intercept.
    pub rescale: Option<(f64, f64)>,
    /// Attributes that may set stacks apart: (name, value).
    pub splits: Vec<(&'static str, String)>,
}

/// What is known of an image file.
#[derive(Clone, Debug)]
pub struct ImageHeader {
    /// SOP Class UID.
    pub sop_class_uid: Uid,
    /// SOP Instance UID.
    pub sop_instance_uid: Uid,
    /// Instance Number.
    pub number: Option<i32>,
    /// Modality.
    pub modality: String,
    /// Image Type.
    pub image_type: Vec<String>,
    /// Pixels.
    pub format: PixelFormat,
    /// Slice Thickness.
    pub thickness_mm: Option<f64>,
    /// One per frame.
    pub frames: Vec<FrameHeader>,
}

/// Reads the header of an image; the reason when it cannot be shown.
///
/// # Errors
/// What is wrong, in words.
pub fn read(d: &Object, has_pixels: bool) -> Result<ImageHeader, String> {
    let sop_class_uid = uid(d, tags::SOP_CLASS_UID)
        .or_else(|| Uid::parse("1.2.840.10008.5.1.4.1.1.7").ok())
        .ok_or("no SOP Class UID")?;
    let sop_instance_uid = uid(d, tags::SOP_INSTANCE_UID).ok_or("no usable SOP Instance UID")?;
    if !has_pixels {
        return Err("no pixel data".to_owned());
    }
    let format = pixel_format(d)?;
    let count = match d.get(tags::NUMBER_OF_FRAMES) {
        None => 1,
        Some(_) => match int(d, tags::NUMBER_OF_FRAMES) {
            Some(n) if (1..=1_000_000).contains(&n) => n as usize,
            _ if text(d, tags::NUMBER_OF_FRAMES).is_none() => 1,
            _ => return Err("the number of frames is not a positive number".to_owned()),
        },
    };
    Ok(ImageHeader {
        sop_class_uid,
        sop_instance_uid,
        number: int(d, tags::INSTANCE_NUMBER).map(|n| n as i32),
        modality: text(d, tags::MODALITY).unwrap_or_default(),
        image_type: texts(d, tags::IMAGE_TYPE),
        thickness_mm: float(d, tags::SLICE_THICKNESS).filter(|t| *t > 0.0),
        frames: frames(d, count),
        format,
    })
}

fn pixel_format(d: &Object) -> Result<PixelFormat, String> {
    let number = |tag: Tag, name: &str| {
        int(d, tag)
            .filter(|n| *n >= 0)
            .map(|n| n as usize)
            .ok_or(format!("{name} is absent or no number"))
    };
    let rows = number(tags::ROWS, "Rows")?;
    let columns = number(tags::COLUMNS, "Columns")?;
    if rows == 0 || columns == 0 {
        return Err(format!("an image of {columns} × {rows} pixels"));
    }
    let samples = int(d, tags::SAMPLES_PER_PIXEL).map_or(1, |n| n.max(0) as usize);
    if samples != 1 && samples != 3 {
        return Err(format!("{samples} samples per pixel, expected 1 or 3"));
    }
    let bits_allocated = number(tags::BITS_ALLOCATED, "Bits Allocated")?;
    if ![1, 8, 16, 32, 64].contains(&bits_allocated) {
        return Err(format!(
            "{bits_allocated} bits allocated, expected 1, 8, 16, 32 or 64"
        ));
    }
    let bits_stored = int(d, tags::BITS_STORED).map_or(bits_allocated, |n| n.max(0) as usize);
    if bits_stored == 0 || bits_stored > bits_allocated {
        return Err(format!(
            "{bits_stored} bits stored in {bits_allocated} allocated"
        ));
    }
    let high_bit = int(d, tags::HIGH_BIT).map_or(bits_stored - 1, |n| n.max(0) as usize);
    let high_bit = high_bit.clamp(bits_stored - 1, bits_allocated - 1);
    let default = if samples == 3 { "RGB" } else { "MONOCHROME2" };
    Ok(PixelFormat {
        rows,
        columns,
        samples,
        bits_allocated,
        bits_stored,
        high_bit,
        signed: int(d, tags::PIXEL_REPRESENTATION) == Some(1),
        planar: int(d, tags::PLANAR_CONFIGURATION) == Some(1),
        photometric: text(d, tags::PHOTOMETRIC_INTERPRETATION)
            .unwrap_or_else(|| default.to_owned()),
    })
}

fn frames(d: &Object, count: usize) -> Vec<FrameHeader> {
    let shared = item(d, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE);
    let per_frame = items(d, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
    if shared.is_none() && per_frame.is_empty() {
        let plain = FrameHeader {
            position: position(d),
            orientation: orientation(d),
            spacing: spacing(d, tags::PIXEL_SPACING),
            rescale: rescale(d),
            splits: splits(d),
        };
        let count = count.max(1);
        if count == 1 {
            return vec![plain];
        }
        // Several frames share one position: a cine, not a volume (NM and RTDOSE give offsets).
        let offsets = floats(d, tags::GRID_FRAME_OFFSET_VECTOR).filter(|o| o.len() == count);
        let normal = plain.orientation.map(|[row, column]| row.cross(column));
        return (0..count)
            .map(|frame| match (&offsets, normal, plain.position) {
                (Some(offsets), Some(normal), Some(first)) => {
                    let step = offsets[frame] - if offsets[0] == 0.0 { 0.0 } else { offsets[0] };
                    FrameHeader {
                        position: Some(first + normal * step),
                        ..plain.clone()
                    }
                }
                _ => FrameHeader {
                    position: None,
                    ..plain.clone()
                },
            })
            .collect();
    }
    (0..count)
        .map(|frame| {
            let own = per_frame.get(frame);
            let group = |tag: Tag| {
                own.and_then(|g| item(g, tag))
                    .or_else(|| shared.and_then(|g| item(g, tag)))
            };
            let mut header = FrameHeader {
                position: group(tags::PLANE_POSITION_SEQUENCE).and_then(position),
                orientation: group(tags::PLANE_ORIENTATION_SEQUENCE).and_then(orientation),
                spacing: group(tags::PIXEL_MEASURES_SEQUENCE)
                    .and_then(|g| spacing(g, tags::PIXEL_SPACING)),
                rescale: group(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE).and_then(rescale),
                splits: Vec::new(),
            };
            let mut split = |name: &'static str, value: Option<String>| {
                header.splits.extend(value.map(|v| (name, v)));
            };
            let content = group(tags::FRAME_CONTENT_SEQUENCE);
            let of = |g: Option<&Object>, tag: Tag| g.and_then(|g| text(g, tag));
            split("stack", of(content, tags::STACK_ID));
            split(
                "echo",
                of(group(tags::MR_ECHO_SEQUENCE), tags::EFFECTIVE_ECHO_TIME),
            );
            split("phase", of(content, tags::TEMPORAL_POSITION_INDEX));
            split(
                "b-value",
                of(group(tags::MR_DIFFUSION_SEQUENCE), tags::DIFFUSION_B_VALUE),
            );
            let direction = group(tags::MR_DIFFUSION_SEQUENCE)
                .and_then(|g| item(g, tags::DIFFUSION_GRADIENT_DIRECTION_SEQUENCE));
            split(
                "direction",
                direction.map(|g| texts(g, tags::DIFFUSION_GRADIENT_ORIENTATION).join("\\")),
            );
            let kind = group(tags::MR_IMAGE_FRAME_TYPE_SEQUENCE)
                .or(group(tags::CT_IMAGE_FRAME_TYPE_SEQUENCE));
            split("type", kind.map(|g| texts(g, tags::FRAME_TYPE).join("\\")));
            split(
                "trigger",
                of(
                    group(tags::CARDIAC_SYNCHRONIZATION_SEQUENCE),
                    tags::NOMINAL_CARDIAC_TRIGGER_DELAY_TIME,
                ),
            );
            header
        })
        .collect()
}

fn rescale(d: &Object) -> Option<(f64, f64)> {
    // Present but no number is NaN, which the assembling step reports; absent is `None`.
    let slope = d.get(tags::RESCALE_SLOPE)?;
    let intercept = d.get(tags::RESCALE_INTERCEPT);
    let slope = slope.to_float64().unwrap_or(f64::NAN);
    let intercept = intercept.map_or(0.0, |i| i.to_float64().unwrap_or(f64::NAN));
    Some((slope, intercept))
}

fn splits(d: &Object) -> Vec<(&'static str, String)> {
    let one = |name: &'static str, tag: Tag| text(d, tag).map(|value| (name, value));
    let mut splits: Vec<_> = [
        one("stack", tags::STACK_ID),
        one("echo", tags::ECHO_TIME).or(one("echo", tags::ECHO_NUMBERS)),
        one("phase", tags::TEMPORAL_POSITION_IDENTIFIER),
        one("b-value", tags::DIFFUSION_B_VALUE),
        one("acquisition", tags::ACQUISITION_NUMBER),
        one("trigger", tags::TRIGGER_TIME),
        one("inversion", tags::INVERSION_TIME),
        one("kernel", tags::CONVOLUTION_KERNEL),
    ]
    .into_iter()
    .flatten()
    .collect();
    splits.push(("type", texts(d, tags::IMAGE_TYPE).join("\\")));
    splits
}
