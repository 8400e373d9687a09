//! A volume → a series of single-frame CT or MR images.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use dicom_core::{PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids as sop};

use super::compose::{Composer, WriteError, image_orientation, one_value, slice_distance_mm};
use crate::geometry::DVec3;
use crate::redact::Sensitive;
use crate::study::Uid;
use crate::volume::{ModalityLut, Quantity, Volume, Voxels};
use crate::whole_file;

/// Identity of the series to write. Nothing is taken from the clock or made up here.
#[derive(Clone, Debug, Default)]
pub struct ImageSeriesOptions {
    /// `CT` or `MR`.
    pub modality: String,
    /// Study Instance UID.
    pub study_instance_uid: Uid,
    /// Series Instance UID.
    pub series_instance_uid: Uid,
    /// Frame of Reference UID.
    pub frame_of_reference_uid: Uid,
    /// Patient and study attributes by keyword, as in
    /// [`SourceSeries::patient_study`](crate::volume::SourceSeries).
    pub patient_study: Vec<(String, Sensitive<String>)>,
    /// Series Description.
    pub series_description: String,
    /// Series Number.
    pub series_number: i32,
    /// Body Part Examined; empty leaves it out.
    pub body_part: String,
    /// Marks every image as a phantom: Quality Control Image, comment, patient name, image type.
    pub synthetic: bool,
}

/// Name of the patient in synthetic studies.
pub const SYNTHETIC_PATIENT: &str = "Phantom^Synthetic";
/// Image Comments of synthetic studies.
pub const SYNTHETIC_COMMENT: &str = "SYNTHETIC – not a patient";

/// Writes one file per slice, Explicit VR Little Endian, `0001.dcm` and so on in the order of k.
///
/// Whole stored values keep their numbers and their rescale; others are rounded to 16 bits over
/// the volume's range. Any orientation and slice direction; slices may be sheared (tilted
/// gantry), rows and columns not. `uids` gives a new UID at each call.
///
/// # Errors
/// Color, a modality other than CT and MR, a full disk.
pub fn write_image_series(
    volume: &Volume,
    folder: &Path,
    options: &ImageSeriesOptions,
    uids: &mut dyn FnMut() -> Uid,
    now: DateTime<Utc>,
) -> Result<Vec<PathBuf>, WriteError> {
    let sop_class = match options.modality.as_str() {
        "CT" => sop::CT_IMAGE_STORAGE,
        "MR" => sop::MR_IMAGE_STORAGE,
        _ => {
            return Err(WriteError::Modality {
                modality: options.modality.clone(),
            });
        }
    };
    let [ni, nj, nk] = volume.geometry.dims();
    for (what, found) in [("columns", ni), ("rows", nj)] {
        if found > 65535 {
            return Err(WriteError::TooLarge {
                what,
                found: found as u64,
                limit: 65535,
            });
        }
    }
    image_orientation(&volume.geometry)?;
    let pixels = Pixels::of(volume).ok_or_else(|| WriteError::Color {
        modality: options.modality.clone(),
    })?;
    let mut paths = Vec::with_capacity(nk);
    for k in 0..nk {
        let path = folder.join(format!("{:04}.dcm", k + 1));
        let instance = uids();
        let image = image(volume, k, &pixels, options, now)?;
        whole_file::write(&path, |w| image.write_file(w, sop_class, &instance))
            .map_err(|e: WriteError| e.at(&path))?;
        paths.push(path);
    }
    Ok(paths)
}

/// Stored values in 16 bits and their way back to modality values.
struct Pixels<'a> {
    signed: bool,
    slope: f64,
    intercept: f64,
    stored: Box<dyn Fn(usize) -> u16 + 'a>,
}

impl<'a> Pixels<'a> {
    fn of(volume: &'a Volume) -> Option<Self> {
        let rescale = match volume.modality_lut {
            ModalityLut::Rescale { slope, intercept } => Some((slope.into(), intercept.into())),
            _ => None,
        };
        Some(match (&volume.voxels, rescale) {
            (Voxels::Rgb8(_), _) => return None,
            (Voxels::U8(v), Some((slope, intercept))) => Self {
                signed: false,
                slope,
                intercept,
                stored: Box::new(move |n| u16::from(v[n])),
            },
            (Voxels::U16(v), Some((slope, intercept))) => Self {
                signed: false,
                slope,
                intercept,
                stored: Box::new(move |n| v[n]),
            },
            (Voxels::I16(v), Some((slope, intercept))) => Self {
                signed: true,
                slope,
                intercept,
                stored: Box::new(move |n| v[n].cast_unsigned()),
            },
            _ => Self::rounded(volume),
        })
    }

    fn rounded(volume: &'a Volume) -> Self {
        let (low, high) = volume.range().unwrap_or((0.0, 0.0));
        let whole = low >= -32768.0
            && high <= 32767.0
            && (0..volume.voxels.len()).all(|n| volume.value(n).fract() == 0.0);
        if whole {
            return Self {
                signed: true,
                slope: 1.0,
                intercept: 0.0,
                stored: Box::new(|n| (volume.value(n) as i16).cast_unsigned()),
            };
        }
        let (low, high) = (f64::from(low), f64::from(high));
        let slope = if high > low {
            (high - low) / 65535.0
        } else {
            1.0
        };
        Self {
            signed: false,
            slope,
            intercept: low,
            // A value that is no number becomes the lowest one: `as` maps NaN to 0.
            stored: Box::new(move |n| ((f64::from(volume.value(n)) - low) / slope).round() as u16),
        }
    }
}

fn image(
    volume: &Volume,
    k: usize,
    pixels: &Pixels,
    options: &ImageSeriesOptions,
    now: DateTime<Utc>,
) -> Result<Composer, WriteError> {
    let geometry = &volume.geometry;
    let [ni, nj, nk] = geometry.dims();
    let is_ct = options.modality == "CT";
    let mut d = Composer::new();
    d.patient_study(&options.patient_study);
    if options.synthetic {
        d.text(tags::PATIENT_NAME, SYNTHETIC_PATIENT)
            .text(tags::QUALITY_CONTROL_IMAGE, "YES")
            .text(tags::IMAGE_COMMENTS, SYNTHETIC_COMMENT)
            .text(
                tags::IMAGE_TYPE,
                if is_ct {
                    "DERIVED\\SECONDARY\\AXIAL"
                } else {
                    "DERIVED\\SECONDARY\\OTHER"
                },
            );
    } else {
        d.text(
            tags::IMAGE_TYPE,
            if is_ct {
                "ORIGINAL\\PRIMARY\\AXIAL"
            } else {
                "ORIGINAL\\PRIMARY\\OTHER"
            },
        );
    }
    d.equipment()
        .date_time(tags::SERIES_DATE, tags::SERIES_TIME, now)
        .date_time(tags::ACQUISITION_DATE, tags::ACQUISITION_TIME, now)
        .date_time(tags::CONTENT_DATE, tags::CONTENT_TIME, now)
        .text(tags::MODALITY, options.modality.as_str())
        .uid(tags::STUDY_INSTANCE_UID, &options.study_instance_uid)
        .uid(tags::SERIES_INSTANCE_UID, &options.series_instance_uid)
        .uid(
            tags::FRAME_OF_REFERENCE_UID,
            &options.frame_of_reference_uid,
        )
        .empty(tags::POSITION_REFERENCE_INDICATOR)
        .text(tags::SERIES_NUMBER, options.series_number.to_string())
        .long_string(tags::SERIES_DESCRIPTION, &options.series_description)
        .text(tags::PATIENT_POSITION, "HFS")
        .text(tags::ACQUISITION_NUMBER, "1")
        .text(tags::INSTANCE_NUMBER, (k + 1).to_string());
    if !options.body_part.is_empty() {
        d.text(
            tags::BODY_PART_EXAMINED,
            one_value(&options.body_part, 16).to_ascii_uppercase(),
        );
    }

    // Geometry. Pixel Spacing gives the distance between rows first (PS3.3 10.7.1.3).
    let [between_columns_mm, between_rows_mm, _] = geometry.spacing_mm();
    let position = geometry.lps_at(DVec3::new(0.0, 0.0, k as f64));
    let distance_mm = slice_distance_mm(geometry);
    d.decimals(tags::IMAGE_POSITION_PATIENT, &position.to_array())
        .decimals(
            tags::IMAGE_ORIENTATION_PATIENT,
            &image_orientation(geometry)?,
        )
        .decimals(tags::PIXEL_SPACING, &[between_rows_mm, between_columns_mm])
        .decimals(tags::SLICE_THICKNESS, &[distance_mm]);
    if is_ct {
        d.empty(tags::KVP);
    } else {
        d.text(tags::SCANNING_SEQUENCE, "RM")
            .text(tags::SEQUENCE_VARIANT, "NONE")
            .empty(tags::SCAN_OPTIONS)
            .text(tags::MR_ACQUISITION_TYPE, if nk > 1 { "3D" } else { "2D" })
            .empty(tags::REPETITION_TIME)
            .empty(tags::ECHO_TIME)
            .empty(tags::ECHO_TRAIN_LENGTH)
            .decimals(tags::SPACING_BETWEEN_SLICES, &[distance_mm]);
    }

    d.unsigned(tags::SAMPLES_PER_PIXEL, 1)
        .text(
            tags::PHOTOMETRIC_INTERPRETATION,
            if volume.inverted {
                "MONOCHROME1"
            } else {
                "MONOCHROME2"
            },
        )
        .unsigned(tags::ROWS, nj as u16)
        .unsigned(tags::COLUMNS, ni as u16)
        .unsigned(tags::BITS_ALLOCATED, 16)
        .unsigned(tags::BITS_STORED, 16)
        .unsigned(tags::HIGH_BIT, 15)
        .unsigned(tags::PIXEL_REPRESENTATION, u16::from(pixels.signed));
    if is_ct || pixels.slope != 1.0 || pixels.intercept != 0.0 {
        let unit = match volume.quantity {
            Quantity::Hounsfield => "HU",
            _ => "US", // unspecified
        };
        d.decimals(tags::RESCALE_SLOPE, &[pixels.slope])
            .decimals(tags::RESCALE_INTERCEPT, &[pixels.intercept])
            .text(tags::RESCALE_TYPE, unit);
    }
    if let Some(first) = volume.windows.first() {
        d.decimals(tags::WINDOW_CENTER, &[f64::from(first.window.center)])
            .decimals(tags::WINDOW_WIDTH, &[f64::from(first.window.width)]);
    }
    let slice = ni * nj;
    let words: Vec<u16> = (k * slice..(k + 1) * slice)
        .map(|n| (pixels.stored)(n))
        .collect();
    d.value(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(words.into()));
    Ok(d)
}
