//! A segmentation → one DICOM SEG object, BINARY.
//!
//! # Source
//! PS3.3 A.51 (Segmentation IOD), C.8.20 (its modules), C.7.6.16 and C.7.6.17 (multi-frame).

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use chrono::{DateTime, SecondsFormat, Utc};
use dicom_core::{PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids as sop};

use super::compose::{
    Composer, WriteError, cielab_from_srgb, image_orientation, one_value, slice_distance_mm,
};
use crate::findings::{AlgorithmType, ReviewState, Segment, Segmentation};
use crate::geometry::DVec3;
use crate::study::{CodedConcept, Issue, Uid};
use crate::volume::SourceImage;
use crate::whole_file;

/// Pixel Data has a 32-bit even length.
const LARGEST_PIXEL_BYTES: u64 = 0xFFFF_FFFE - 1;

/// Writes a DICOM SEG with all segments; the file appears whole or not at all.
///
/// Segment Numbers are 1, 2, … in the order of labels; frames without voxels are left out.
/// `uids` gives a new UID at each call. Returns the SOP Instance UID.
///
/// # Errors
/// As [`write_segmentation_to`]; a full disk.
pub fn write_segmentation(
    to: &Path,
    segmentation: &Segmentation,
    uids: &mut dyn FnMut() -> Uid,
    now: DateTime<Utc>,
) -> Result<Uid, WriteError> {
    let mut instance = Uid::default();
    whole_file::write(to, |w| {
        instance = write_segmentation_to(w, segmentation, uids, now)?;
        Ok(())
    })
    .map_err(|e: WriteError| e.at(to))?;
    Ok(instance)
}

/// [`write_segmentation`] into any writer.
///
/// # Errors
/// A source that is no DICOM series or has no positions, rows and columns not at right angles,
/// labels without segment, more voxels than the format holds.
pub fn write_segmentation_to(
    w: &mut dyn Write,
    segmentation: &Segmentation,
    uids: &mut dyn FnMut() -> Uid,
    now: DateTime<Utc>,
) -> Result<Uid, WriteError> {
    let source = &segmentation.source;
    let (Some(study), Some(series)) = (&source.study_instance_uid, &source.series_instance_uid)
    else {
        return Err(WriteError::NoStudy);
    };
    if segmentation.issues.contains(&Issue::NoGeometry) {
        return Err(WriteError::NoGeometry);
    }
    let [ni, nj, nk] = segmentation.map.geometry.dims();
    if source.images.len() != nk {
        return Err(WriteError::SourceMismatch {
            slices: nk,
            images: source.images.len(),
        });
    }
    for (what, found) in [("columns", ni), ("rows", nj)] {
        if found > 65535 {
            return Err(WriteError::TooLarge {
                what,
                found: found as u64,
                limit: 65535,
            });
        }
    }
    let numbers = segment_numbers(segmentation)?;
    let frames = Frames::of(segmentation, &numbers)?;

    let instance = uids();
    let mut d = Composer::new();
    d.patient_study(&source.patient_study)
        .equipment()
        .text(tags::IMAGE_TYPE, "DERIVED\\PRIMARY")
        .text(tags::MODALITY, "SEG")
        .uid(tags::STUDY_INSTANCE_UID, study)
        .uid(tags::SERIES_INSTANCE_UID, &uids())
        .text(
            tags::SERIES_NUMBER,
            source.number.unwrap_or(0).saturating_add(1000).to_string(),
        )
        .long_string(tags::SERIES_DESCRIPTION, &series_description(segmentation))
        .date_time(tags::SERIES_DATE, tags::SERIES_TIME, now)
        .date_time(tags::CONTENT_DATE, tags::CONTENT_TIME, now)
        .text(tags::INSTANCE_NUMBER, "1")
        .text(tags::CONTENT_LABEL, "SEGMENTATION")
        .long_string(tags::CONTENT_DESCRIPTION, crate::RESEARCH_USE)
        .text(
            tags::CONTENT_CREATOR_NAME,
            format!("Negatoscope^{}", segmentation.algorithm.term()),
        )
        .text(tags::IMAGE_COMMENTS, comments(segmentation))
        .text(tags::LOSSY_IMAGE_COMPRESSION, "00");
    if segmentation
        .issues
        .iter()
        .any(|i| matches!(i, Issue::Synthetic))
    {
        d.text(tags::QUALITY_CONTROL_IMAGE, "YES");
    }
    // Frames lie in the source's frame of reference; a source without one gets a new one.
    let frame_of_reference = source
        .frame_of_reference_uid
        .clone()
        .unwrap_or_else(&mut *uids);
    d.uid(tags::FRAME_OF_REFERENCE_UID, &frame_of_reference)
        .empty(tags::POSITION_REFERENCE_INDICATOR);
    if !source.body_part.is_empty() {
        d.text(
            tags::BODY_PART_EXAMINED,
            one_value(&source.body_part, 16).to_ascii_uppercase(),
        );
    }
    d.sequence(
        tags::CONTRIBUTING_EQUIPMENT_SEQUENCE,
        vec![contribution(segmentation, now)],
    );
    d.sequence(
        tags::REFERENCED_SERIES_SEQUENCE,
        vec![referenced_series(series, source.known_images())],
    );

    d.text(tags::SEGMENTATION_TYPE, "BINARY")
        .text(tags::SEGMENTS_OVERLAP, "NO");
    let segments = segmentation
        .segments
        .iter()
        .map(|segment| {
            let number = numbers[usize::from(segment.label)];
            segment_item(segment, number, segmentation, &uids())
        })
        .collect::<Vec<_>>();
    let mut segments: Vec<(u16, Composer)> = segments;
    segments.sort_by_key(|(number, _)| *number);
    d.sequence(
        tags::SEGMENT_SEQUENCE,
        segments.into_iter().map(|(_, item)| item).collect(),
    );

    dimensions(&mut d, &uids());
    functional_groups(&mut d, segmentation, &frames)?;

    d.unsigned(tags::SAMPLES_PER_PIXEL, 1)
        .text(tags::PHOTOMETRIC_INTERPRETATION, "MONOCHROME2")
        .text(tags::NUMBER_OF_FRAMES, frames.list.len().to_string())
        .unsigned(tags::ROWS, nj as u16)
        .unsigned(tags::COLUMNS, ni as u16)
        .unsigned(tags::BITS_ALLOCATED, 1)
        .unsigned(tags::BITS_STORED, 1)
        .unsigned(tags::HIGH_BIT, 0)
        .unsigned(tags::PIXEL_REPRESENTATION, 0);
    let bits = frames.bits(segmentation, &numbers);
    d.value(tags::PIXEL_DATA, VR::OB, PrimitiveValue::U8(bits.into()));
    d.write_file(w, sop::SEGMENTATION_STORAGE, &instance)?;
    Ok(instance)
}

/// Where slice `k` of a segmentation's source lies: the image's own position where it is known,
/// else the grid's. They differ where slices are uneven.
// CLINICAL(laterality): the mask goes to where its image is.
pub fn slice_position_lps(segmentation: &Segmentation, k: usize) -> DVec3 {
    segmentation
        .source
        .image(k)
        .and_then(|image| image.position_lps)
        .unwrap_or_else(|| {
            segmentation
                .map
                .geometry
                .lps_at(DVec3::new(0.0, 0.0, k as f64))
        })
}

/// Segment Number of each label, 0 where there is none: 1, 2, … by label (PS3.3 C.8.20.2).
fn segment_numbers(segmentation: &Segmentation) -> Result<[u16; 256], WriteError> {
    let mut used = [false; 256];
    for segment in &segmentation.segments {
        let label = usize::from(segment.label);
        if label == 0 || used[label] {
            return Err(WriteError::BadLabel {
                label: segment.label,
            });
        }
        used[label] = true;
    }
    let mut numbers = [0; 256];
    let mut next = 1;
    for label in 1..256 {
        if used[label] {
            numbers[label] = next;
            next += 1;
        }
    }
    let counts = segmentation.map.counts();
    if let Some(label) = (1..256).find(|&label| counts[label] > 0 && !used[label]) {
        return Err(WriteError::UnknownLabel { label: label as u8 });
    }
    if next == 1 {
        return Err(WriteError::BadLabel { label: 0 });
    }
    Ok(numbers)
}

/// The frames that hold voxels, by segment, then slice.
struct Frames {
    /// Segment Number and slice.
    list: Vec<(u16, usize)>,
}

impl Frames {
    fn of(segmentation: &Segmentation, numbers: &[u16; 256]) -> Result<Self, WriteError> {
        let [ni, nj, nk] = segmentation.map.geometry.dims();
        let slice = ni * nj;
        let mut list = Vec::new();
        for k in 0..nk {
            let mut present = [false; 256];
            for &label in &segmentation.map.labels[k * slice..(k + 1) * slice] {
                present[usize::from(label)] = true;
            }
            list.extend((1..256).filter(|&l| present[l]).map(|l| (numbers[l], k)));
        }
        list.sort_unstable();
        if list.is_empty() {
            // Nothing was found. An object needs a frame (PS3.3 C.7.6.6): one without voxels.
            list.push((1, nk / 2));
        }
        let bytes = (list.len() as u64 * slice as u64).div_ceil(8);
        if bytes > LARGEST_PIXEL_BYTES {
            return Err(WriteError::TooLarge {
                what: "pixel data",
                found: bytes,
                limit: LARGEST_PIXEL_BYTES,
            });
        }
        Ok(Self { list })
    }

    /// One bit per voxel, the first in the lowest bit, frames joined without gap
    /// (PS3.5 8.1.1 and 8.2), padded to an even length.
    fn bits(&self, segmentation: &Segmentation, numbers: &[u16; 256]) -> Vec<u8> {
        let [ni, nj, _] = segmentation.map.geometry.dims();
        let slice = ni * nj;
        let mut bytes = vec![0_u8; (self.list.len() * slice).div_ceil(8).next_multiple_of(2)];
        let mut by_slice: BTreeMap<usize, Vec<(u16, usize)>> = BTreeMap::new();
        for (frame, &(number, k)) in self.list.iter().enumerate() {
            by_slice.entry(k).or_default().push((number, frame));
        }
        for (k, members) in by_slice {
            let mut first_bit = [None; 257];
            for (number, frame) in members {
                first_bit[usize::from(number)] = Some(frame * slice);
            }
            let labels = &segmentation.map.labels[k * slice..(k + 1) * slice];
            for (n, &label) in labels.iter().enumerate() {
                if label != 0
                    && let Some(first) = first_bit[usize::from(numbers[usize::from(label)])]
                {
                    let bit = first + n;
                    bytes[bit / 8] |= 1 << (bit % 8);
                }
            }
        }
        bytes
    }
}

fn series_description(segmentation: &Segmentation) -> String {
    let p = &segmentation.provenance;
    match segmentation.algorithm {
        AlgorithmType::Manual => "Segmentation by hand".to_owned(),
        _ => format!("AI {} {}", model_name(segmentation), p.model_version),
    }
}

fn model_name(segmentation: &Segmentation) -> &str {
    let p = &segmentation.provenance;
    [&p.model_name, &p.model_id]
        .into_iter()
        .find(|name| !name.is_empty())
        .map_or("unnamed model", String::as_str)
}

/// What a person must know who opens the object elsewhere; LT holds 10240 characters.
fn comments(segmentation: &Segmentation) -> String {
    let review = match segmentation.review {
        ReviewState::NotReviewed => "not reviewed by a person",
        ReviewState::Accepted => "accepted by a person",
        ReviewState::Edited => "edited by a person",
        ReviewState::Rejected => "rejected by a person",
    };
    let who = segmentation
        .reviewed
        .as_ref()
        .map_or_else(String::new, |r| {
            let at = r.at.to_rfc3339_opts(SecondsFormat::Secs, true);
            match one_value(r.by.expose(), 64).as_str() {
                "" => format!(" on {at}"),
                name => format!(" ({name}) on {at}"),
            }
        });
    let mut text = format!("{}. {}{who}.", crate::RESEARCH_USE, capitalized(review));
    for issue in &segmentation.issues {
        text.push_str("\r\n");
        text.push_str(&one_value(&format!("{}: {issue}", issue.code()), 400));
    }
    text.chars().take(10240).collect()
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map(|c| c.to_uppercase().chain(chars).collect())
        .unwrap_or_default()
}

fn contribution(segmentation: &Segmentation, now: DateTime<Utc>) -> Composer {
    let p = &segmentation.provenance;
    let mut item = Composer::new();
    let description = format!(
        "model {} {} sha256 {} on {}",
        p.model_id, p.model_version, p.model_sha256, p.device
    );
    item.equipment()
        .code(
            tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE,
            &CodedConcept::new("109102", "DCM", "Processing Equipment"),
        )
        .text(
            tags::CONTRIBUTION_DATE_TIME,
            now.format("%Y%m%d%H%M%S+0000").to_string(),
        )
        .text(
            tags::CONTRIBUTION_DESCRIPTION,
            one_value(&description, 1024),
        );
    item
}

fn referenced_series<'a>(series: &Uid, images: impl Iterator<Item = &'a SourceImage>) -> Composer {
    let mut seen = std::collections::BTreeSet::new();
    let instances = images
        .filter(|image| seen.insert(&image.sop_instance_uid))
        .map(|image| {
            let mut item = Composer::new();
            item.uid(tags::REFERENCED_SOP_CLASS_UID, &image.sop_class_uid)
                .uid(tags::REFERENCED_SOP_INSTANCE_UID, &image.sop_instance_uid);
            item
        })
        .collect();
    let mut item = Composer::new();
    item.uid(tags::SERIES_INSTANCE_UID, series)
        .sequence(tags::REFERENCED_INSTANCE_SEQUENCE, instances);
    item
}

fn segment_item(
    segment: &Segment,
    number: u16,
    segmentation: &Segmentation,
    tracking: &Uid,
) -> (u16, Composer) {
    let p = &segmentation.provenance;
    let mut item = Composer::new();
    item.unsigned(tags::SEGMENT_NUMBER, number)
        .long_string(tags::SEGMENT_LABEL, &or_label(&segment.name, segment.label))
        .text(
            tags::SEGMENT_DESCRIPTION,
            format!("label {} of the model", segment.label),
        )
        .code(
            tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE,
            &segment.category,
        )
        .code(
            tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE,
            &segment.property,
        )
        .text(tags::SEGMENT_ALGORITHM_TYPE, segmentation.algorithm.term())
        .value(
            tags::RECOMMENDED_DISPLAY_CIE_LAB_VALUE,
            VR::US,
            PrimitiveValue::U16(cielab_from_srgb(segment.color).as_slice().into()),
        )
        .text(
            tags::TRACKING_ID,
            one_value(
                &format!(
                    "{} {}",
                    model_name(segmentation),
                    or_label(&segment.name, segment.label)
                ),
                1024,
            ),
        )
        .uid(tags::TRACKING_UID, tracking);
    if segmentation.algorithm != AlgorithmType::Manual {
        item.long_string(tags::SEGMENT_ALGORITHM_NAME, model_name(segmentation));
        // PS3.3 table 10-19: family, name and version are required.
        let mut algorithm = Composer::new();
        let parameters: Vec<String> = p
            .parameters
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .chain([format!("weights sha256={}", p.model_sha256)])
            .collect();
        let version = if p.model_version.is_empty() {
            "unspecified"
        } else {
            &p.model_version
        };
        algorithm
            .code(
                tags::ALGORITHM_FAMILY_CODE_SEQUENCE,
                &CodedConcept::new("123110", "DCM", "Artificial Intelligence"),
            )
            .long_string(tags::ALGORITHM_NAME, model_name(segmentation))
            .long_string(tags::ALGORITHM_VERSION, version)
            .text(
                tags::ALGORITHM_PARAMETERS,
                one_value(&parameters.join("; "), 10240),
            );
        if !p.model_id.is_empty() {
            algorithm.long_string(tags::ALGORITHM_SOURCE, &p.model_id);
        }
        item.sequence(
            tags::SEGMENTATION_ALGORITHM_IDENTIFICATION_SEQUENCE,
            vec![algorithm],
        );
    }
    (number, item)
}

fn or_label(name: &str, label: u8) -> String {
    if name.trim().is_empty() {
        format!("Label {label}")
    } else {
        name.to_owned()
    }
}

/// Frames are told apart by segment, then position.
fn dimensions(d: &mut Composer, organization: &Uid) {
    let mut item = Composer::new();
    item.uid(tags::DIMENSION_ORGANIZATION_UID, organization);
    d.sequence(tags::DIMENSION_ORGANIZATION_SEQUENCE, vec![item]);
    let index = |pointer, group, label: &str| {
        let mut item = Composer::new();
        item.uid(tags::DIMENSION_ORGANIZATION_UID, organization)
            .value(
                tags::DIMENSION_INDEX_POINTER,
                VR::AT,
                PrimitiveValue::Tags(vec![pointer].into()),
            )
            .value(
                tags::FUNCTIONAL_GROUP_POINTER,
                VR::AT,
                PrimitiveValue::Tags(vec![group].into()),
            )
            .long_string(tags::DIMENSION_DESCRIPTION_LABEL, label);
        item
    };
    d.sequence(
        tags::DIMENSION_INDEX_SEQUENCE,
        vec![
            index(
                tags::REFERENCED_SEGMENT_NUMBER,
                tags::SEGMENT_IDENTIFICATION_SEQUENCE,
                "Segment Number",
            ),
            index(
                tags::IMAGE_POSITION_PATIENT,
                tags::PLANE_POSITION_SEQUENCE,
                "Image Position Patient",
            ),
        ],
    );
}

fn functional_groups(
    d: &mut Composer,
    segmentation: &Segmentation,
    frames: &Frames,
) -> Result<(), WriteError> {
    let geometry = &segmentation.map.geometry;
    let [between_columns_mm, between_rows_mm, _] = geometry.spacing_mm();
    let distance_mm = slice_distance_mm(geometry);
    let mut orientation = Composer::new();
    orientation.decimals(
        tags::IMAGE_ORIENTATION_PATIENT,
        &image_orientation(geometry)?,
    );
    let mut measures = Composer::new();
    measures
        .decimals(tags::SLICE_THICKNESS, &[distance_mm])
        .decimals(tags::SPACING_BETWEEN_SLICES, &[distance_mm])
        .decimals(tags::PIXEL_SPACING, &[between_rows_mm, between_columns_mm]);
    let mut shared = Composer::new();
    shared
        .sequence(tags::PLANE_ORIENTATION_SEQUENCE, vec![orientation])
        .sequence(tags::PIXEL_MEASURES_SEQUENCE, vec![measures]);
    d.sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![shared]);

    // Dimension Index Values are ranks, without gap, of the positions that occur.
    let mut rank_of_slice: BTreeMap<usize, u32> = frames.list.iter().map(|f| (f.1, 0)).collect();
    for (rank, value) in rank_of_slice.values_mut().enumerate() {
        *value = rank as u32 + 1;
    }
    let mut rank_of_segment: BTreeMap<u16, u32> = frames.list.iter().map(|f| (f.0, 0)).collect();
    for (rank, value) in rank_of_segment.values_mut().enumerate() {
        *value = rank as u32 + 1;
    }
    let per_frame = frames
        .list
        .iter()
        .map(|&(number, k)| {
            let mut content = Composer::new();
            content.value(
                tags::DIMENSION_INDEX_VALUES,
                VR::UL,
                PrimitiveValue::U32(vec![rank_of_segment[&number], rank_of_slice[&k]].into()),
            );
            let mut position = Composer::new();
            position.decimals(
                tags::IMAGE_POSITION_PATIENT,
                &slice_position_lps(segmentation, k).to_array(),
            );
            let mut identification = Composer::new();
            identification.unsigned(tags::REFERENCED_SEGMENT_NUMBER, number);
            let mut item = Composer::new();
            item.sequence(tags::FRAME_CONTENT_SEQUENCE, vec![content])
                .sequence(tags::PLANE_POSITION_SEQUENCE, vec![position])
                .sequence(tags::SEGMENT_IDENTIFICATION_SEQUENCE, vec![identification]);
            // A slice that stands for a missing one was derived from no image.
            if let Some(image) = segmentation.source.image(k) {
                item.sequence(tags::DERIVATION_IMAGE_SEQUENCE, vec![derivation(image)]);
            }
            item
        })
        .collect();
    d.sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, per_frame);
    Ok(())
}

fn derivation(image: &SourceImage) -> Composer {
    let mut source = Composer::new();
    source
        .uid(tags::REFERENCED_SOP_CLASS_UID, &image.sop_class_uid)
        .uid(tags::REFERENCED_SOP_INSTANCE_UID, &image.sop_instance_uid)
        .code(
            tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE,
            &CodedConcept::new(
                "121322",
                "DCM",
                "Source image for image processing operation",
            ),
        )
        .text(tags::SPATIAL_LOCATIONS_PRESERVED, "YES");
    if let Some(frame) = image.frame {
        source.text(
            tags::REFERENCED_FRAME_NUMBER,
            (u64::from(frame) + 1).to_string(),
        );
    }
    let mut item = Composer::new();
    item.code(
        tags::DERIVATION_CODE_SEQUENCE,
        &CodedConcept::new("113076", "DCM", "Segmentation"),
    )
    .sequence(tags::SOURCE_IMAGE_SEQUENCE, vec![source]);
    item
}
