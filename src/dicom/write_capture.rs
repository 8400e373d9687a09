//! A picture of the program's making → a Secondary Capture, to lie beside the image it is about.
//!
//! # Source
//! PS3.3 A.8.1 (Secondary Capture Image IOD), C.8.6 (its modules), C.7.6.1.1.2 (image type).

use std::io::Write;

use chrono::{DateTime, Utc};
use dicom_core::{PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids as sop};

use super::compose::{Composer, WriteError, one_value};
use crate::study::Uid;
use crate::volume::SourceSeries;

/// A color picture with what it shows.
#[derive(Clone, Copy, Debug)]
pub struct Capture<'a> {
    /// Columns and rows.
    pub size_px: [usize; 2],
    /// Three bytes a pixel, row by row.
    pub rgb: &'a [u8],
    /// Series Description.
    pub series_description: &'a str,
    /// Derivation Description: how it was made.
    pub derivation: &'a str,
}

/// Writes a picture that was made of one image of a series. `uids` gives a new UID at each call.
///
/// # Errors
/// A source that is no DICOM series or lacks the image, a picture beyond 65,535 pixels an edge, a
/// full disk.
///
/// # Panics
/// When the bytes do not fill the size.
pub fn write_capture_to(
    w: &mut dyn Write,
    capture: &Capture<'_>,
    source: &SourceSeries,
    image: usize,
    uids: &mut dyn FnMut() -> Uid,
    now: DateTime<Utc>,
) -> Result<Uid, WriteError> {
    let [columns, rows] = capture.size_px;
    assert_eq!(capture.rgb.len(), 3 * columns * rows, "bytes fill the size");
    let Some(study) = &source.study_instance_uid else {
        return Err(WriteError::NoStudy);
    };
    let Some(of) = source.image(image) else {
        let images = source.images.len();
        return Err(WriteError::NoSourceImage { image, images });
    };
    for (what, found) in [("columns", columns), ("rows", rows)] {
        if found > 65535 {
            return Err(WriteError::TooLarge {
                what,
                found: found as u64,
                limit: 65535,
            });
        }
    }
    let instance = uids();
    let mut reference = Composer::new();
    reference
        .uid(tags::REFERENCED_SOP_CLASS_UID, &of.sop_class_uid)
        .uid(tags::REFERENCED_SOP_INSTANCE_UID, &of.sop_instance_uid);
    let mut d = Composer::new();
    d.patient_study(&source.patient_study)
        .equipment()
        .text(tags::MODALITY, "OT")
        // Workstation.
        .text(tags::CONVERSION_TYPE, "WSD")
        .text(tags::SECONDARY_CAPTURE_DEVICE_MANUFACTURER, "Negatoscope")
        .text(tags::IMAGE_TYPE, "DERIVED\\SECONDARY")
        .uid(tags::STUDY_INSTANCE_UID, study)
        .uid(tags::SERIES_INSTANCE_UID, &uids())
        .text(
            tags::SERIES_NUMBER,
            source.number.unwrap_or(0).saturating_add(3000).to_string(),
        )
        .long_string(tags::SERIES_DESCRIPTION, capture.series_description)
        .date_time(tags::SERIES_DATE, tags::SERIES_TIME, now)
        .date_time(tags::CONTENT_DATE, tags::CONTENT_TIME, now)
        .text(tags::INSTANCE_NUMBER, "1")
        .empty(tags::LATERALITY)
        .empty(tags::PATIENT_ORIENTATION)
        .text(
            tags::DERIVATION_DESCRIPTION,
            one_value(capture.derivation, 1024),
        )
        .long_string(tags::IMAGE_COMMENTS, crate::RESEARCH_USE)
        // Texts are in the picture, but none that tells who the patient is.
        .text(tags::BURNED_IN_ANNOTATION, "NO")
        .text(tags::LOSSY_IMAGE_COMPRESSION, "00")
        .sequence(tags::SOURCE_IMAGE_SEQUENCE, vec![reference])
        .unsigned(tags::SAMPLES_PER_PIXEL, 3)
        .text(tags::PHOTOMETRIC_INTERPRETATION, "RGB")
        .unsigned(tags::PLANAR_CONFIGURATION, 0)
        .unsigned(tags::ROWS, rows as u16)
        .unsigned(tags::COLUMNS, columns as u16)
        .unsigned(tags::BITS_ALLOCATED, 8)
        .unsigned(tags::BITS_STORED, 8)
        .unsigned(tags::HIGH_BIT, 7)
        .unsigned(tags::PIXEL_REPRESENTATION, 0);
    let mut bytes = capture.rgb.to_vec();
    // PS3.5 section 8: an even length.
    if bytes.len() % 2 == 1 {
        bytes.push(0);
    }
    d.value(tags::PIXEL_DATA, VR::OB, PrimitiveValue::U8(bytes.into()));
    d.write_file(w, sop::SECONDARY_CAPTURE_IMAGE_STORAGE, &instance)?;
    Ok(instance)
}
