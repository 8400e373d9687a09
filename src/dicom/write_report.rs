//! What a classifier says about an image → one DICOM SR object, a measurement report.
//!
//! The object is an Enhanced SR: a tree of containers, codes, numbers and image references is what
//! TID 1500 needs for findings of whole images; coordinates, which the larger kinds add, are absent.
//!
//! # Source
//! PS3.3 A.35.2 (Enhanced SR IOD), C.17 (its modules); PS3.16 TID 1500 (Measurement Report).

use std::io::Write;
use std::path::Path;

use chrono::{DateTime, Utc};
use dicom_dictionary_std::{tags, uids as sop};

use super::compose::{Composer, IMPLEMENTATION_CLASS_UID, WriteError, one_value};
use super::report_template as t;
use super::report_template::Relation::{
    AcquisitionContext, Contains, Modifies, ObservationContext,
};
use crate::findings::{Assessment, Finding, ReviewState};
use crate::study::{CodedConcept, Uid};
use crate::volume::SourceImage;
use crate::whole_file;

/// Writes a DICOM SR with all findings of an assessment; the file appears whole or not at all.
///
/// `uids` gives a new UID at each call. Returns the SOP Instance UID.
///
/// # Errors
/// As [`write_report_to`]; a full disk.
pub fn write_report(
    to: &Path,
    assessment: &Assessment,
    uids: &mut dyn FnMut() -> Uid,
    now: DateTime<Utc>,
) -> Result<Uid, WriteError> {
    let mut instance = Uid::default();
    whole_file::write(to, |w| {
        instance = write_report_to(w, assessment, uids, now)?;
        Ok(())
    })
    .map_err(|e: WriteError| e.at(to))?;
    Ok(instance)
}

/// [`write_report`] into any writer.
///
/// # Errors
/// A source that is no DICOM series or lacks the image, a number that is no probability.
pub fn write_report_to(
    w: &mut dyn Write,
    assessment: &Assessment,
    uids: &mut dyn FnMut() -> Uid,
    now: DateTime<Utc>,
) -> Result<Uid, WriteError> {
    let source = &assessment.source;
    let (Some(study), Some(series)) = (&source.study_instance_uid, &source.series_instance_uid)
    else {
        return Err(WriteError::NoStudy);
    };
    let Some(image) = source.image(assessment.image) else {
        return Err(WriteError::NoSourceImage {
            image: assessment.image,
            images: source.images.len(),
        });
    };
    for (n, finding) in assessment.findings.iter().enumerate() {
        check(n + 1, finding)?;
    }

    let instance = uids();
    let mut d = Composer::new();
    d.patient_study(&source.patient_study)
        .equipment()
        .text(tags::MODALITY, "SR")
        .uid(tags::STUDY_INSTANCE_UID, study)
        .uid(tags::SERIES_INSTANCE_UID, &uids())
        .text(
            tags::SERIES_NUMBER,
            source.number.unwrap_or(0).saturating_add(2000).to_string(),
        )
        .long_string(tags::SERIES_DESCRIPTION, &series_description(assessment))
        .date_time(tags::SERIES_DATE, tags::SERIES_TIME, now)
        .date_time(tags::CONTENT_DATE, tags::CONTENT_TIME, now)
        .sequence(tags::REFERENCED_PERFORMED_PROCEDURE_STEP_SEQUENCE, vec![])
        .sequence(tags::PERFORMED_PROCEDURE_CODE_SEQUENCE, vec![])
        .text(tags::INSTANCE_NUMBER, "1")
        .sequence(
            tags::CODING_SCHEME_IDENTIFICATION_SEQUENCE,
            vec![own_scheme()],
        )
        .sequence(
            tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE,
            vec![evidence(study, series, image)],
        );
    flags(&mut d, assessment);

    d.text(tags::VALUE_TYPE, "CONTAINER")
        .code(tags::CONCEPT_NAME_CODE_SEQUENCE, &t::TITLE.concept());
    let content = content(assessment, image, uids);
    t::container_attributes(&mut d, Some("1500"), content);
    d.write_file(w, sop::ENHANCED_SR_STORAGE, &instance)?;
    Ok(instance)
}

/// A text such as "0" in the place of what is no number would be a finding of its own.
fn check(finding: usize, f: &Finding) -> Result<(), WriteError> {
    let point = f.operating_point.map(|p| [p.sensitivity, p.specificity]);
    let values = [
        ("the probability", Some(f.probability)),
        ("the threshold", f.threshold),
        ("the sensitivity", point.map(|p| p[0])),
        ("the specificity", point.map(|p| p[1])),
    ];
    for (what, value) in values {
        if let Some(value) = value
            && !(0.0..=1.0).contains(&value)
        {
            return Err(WriteError::NotAProbability {
                what,
                finding,
                value,
            });
        }
    }
    Ok(())
}

/// How much of a report a person has looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reviewed {
    Not,
    Partly,
    All,
}

fn reviewed(assessment: &Assessment) -> Reviewed {
    let all = assessment.findings.len();
    let open = (assessment.findings.iter())
        .filter(|f| f.review == ReviewState::NotReviewed)
        .count();
    match open {
        _ if open == all => Reviewed::Not,
        0 => Reviewed::All,
        _ => Reviewed::Partly,
    }
}

fn series_description(assessment: &Assessment) -> String {
    let state = match reviewed(assessment) {
        Reviewed::Not => "not reviewed",
        Reviewed::Partly => "partly reviewed",
        Reviewed::All => "reviewed",
    };
    // The state must not be what a long name pushes out of the 64 characters.
    format!("AI: {} ({state})", one_value(model_name(assessment), 40))
}

fn model_name(assessment: &Assessment) -> &str {
    let p = &assessment.provenance;
    [&p.model_name, &p.model_id]
        .into_iter()
        .find(|name| !name.is_empty())
        .map_or("unnamed model", String::as_str)
}

/// COMPLETE once a person has decided on every finding. Never VERIFIED: verification (PS3.3
/// C.17.2) is the attestation of a person whom an organization makes accountable. This program
/// knows only a name that somebody typed, so a decision is told as content, not as attestation.
fn flags(d: &mut Composer, assessment: &Assessment) {
    let (completion, words) = match reviewed(assessment) {
        Reviewed::All => (
            "COMPLETE",
            "Every finding was accepted, edited or rejected by a person",
        ),
        Reviewed::Partly => ("PARTIAL", "Some findings were not reviewed by a person"),
        Reviewed::Not => ("PARTIAL", "Output of a model, not reviewed by a person"),
    };
    d.text(tags::COMPLETION_FLAG, completion)
        .long_string(tags::COMPLETION_FLAG_DESCRIPTION, words)
        .text(tags::VERIFICATION_FLAG, "UNVERIFIED")
        .text(tags::PRELIMINARY_FLAG, "PRELIMINARY");
}

/// Whose the private codes are (PS3.3 C.12.1.1).
fn own_scheme() -> Composer {
    let mut item = Composer::new();
    item.text(tags::CODING_SCHEME_DESIGNATOR, t::PRIVATE_SCHEME)
        .text(tags::CODING_SCHEME_NAME, "Codes of Negatoscope")
        .text(tags::CODING_SCHEME_RESPONSIBLE_ORGANIZATION, "Negatoscope");
    item
}

fn evidence(study: &Uid, series: &Uid, image: &SourceImage) -> Composer {
    let mut instance = Composer::new();
    instance
        .uid(tags::REFERENCED_SOP_CLASS_UID, &image.sop_class_uid)
        .uid(tags::REFERENCED_SOP_INSTANCE_UID, &image.sop_instance_uid);
    let mut of_series = Composer::new();
    of_series
        .uid(tags::SERIES_INSTANCE_UID, series)
        .sequence(tags::REFERENCED_SOP_SEQUENCE, vec![instance]);
    let mut of_study = Composer::new();
    of_study
        .uid(tags::STUDY_INSTANCE_UID, study)
        .sequence(tags::REFERENCED_SERIES_SEQUENCE, vec![of_series]);
    of_study
}

/// TID 1500, in its order.
fn content(
    assessment: &Assessment,
    image: &SourceImage,
    uids: &mut dyn FnMut() -> Uid,
) -> Vec<Composer> {
    let device = Uid::parse(IMPLEMENTATION_CLASS_UID).expect("a constant of the form of a UID");
    let name = format!("Negatoscope {} ({})", crate::VERSION, crate::RESEARCH_USE);
    let mut items = vec![
        t::code(Modifies, t::LANGUAGE, &t::ENGLISH.concept()),
        t::code(ObservationContext, t::OBSERVER_TYPE, &t::DEVICE.concept()),
        t::uid(ObservationContext, t::DEVICE_UID, &device),
        t::text(ObservationContext, t::DEVICE_NAME, &name),
        t::text(ObservationContext, t::DEVICE_MAKER, "Negatoscope"),
        t::text(ObservationContext, t::DEVICE_MODEL, "Negatoscope"),
        t::code(
            Modifies,
            t::PROCEDURE_REPORTED,
            &t::IMAGING_PROCEDURE.concept(),
        ),
        image_library(image),
    ];
    if !assessment.findings.is_empty() {
        let groups = assessment
            .findings
            .iter()
            .map(|finding| group(finding, assessment, image, &uids()))
            .collect();
        items.push(t::container(t::MEASUREMENTS, None, groups));
    }
    items.push(t::container(t::EVALUATIONS, None, remarks(assessment)));
    items
}

/// TID 1600 with the one image.
fn image_library(image: &SourceImage) -> Composer {
    let descriptors = modality(&image.sop_class_uid)
        .map(|code| t::code(AcquisitionContext, t::MODALITY, &code))
        .into_iter()
        .collect();
    let entry = t::image(t::SOURCE, image, descriptors);
    let group = t::container(t::IMAGE_LIBRARY_GROUP, None, vec![entry]);
    t::container(t::IMAGE_LIBRARY, Some("1600"), vec![group])
}

/// The modality (PS3.16 CID 29) that a storage class is for, where it is for one.
fn modality(class: &Uid) -> Option<CodedConcept> {
    let (value, meaning) = match class.as_str() {
        sop::COMPUTED_RADIOGRAPHY_IMAGE_STORAGE => ("CR", "Computed Radiography"),
        sop::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION
        | sop::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PROCESSING => ("DX", "Digital Radiography"),
        sop::DIGITAL_MAMMOGRAPHY_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION
        | sop::DIGITAL_MAMMOGRAPHY_X_RAY_IMAGE_STORAGE_FOR_PROCESSING => ("MG", "Mammography"),
        sop::CT_IMAGE_STORAGE | sop::ENHANCED_CT_IMAGE_STORAGE => ("CT", "Computed Tomography"),
        sop::MR_IMAGE_STORAGE | sop::ENHANCED_MR_IMAGE_STORAGE => ("MR", "Magnetic Resonance"),
        sop::ULTRASOUND_IMAGE_STORAGE | sop::ULTRASOUND_MULTI_FRAME_IMAGE_STORAGE => {
            ("US", "Ultrasound")
        }
        _ => return None,
    };
    Some(CodedConcept::new(value, "DCM", meaning))
}

/// TID 1501: one finding.
fn group(
    finding: &Finding,
    assessment: &Assessment,
    image: &SourceImage,
    tracking: &Uid,
) -> Composer {
    let concept = (finding.concept.clone()).unwrap_or_else(|| t::private_finding(&finding.name));
    let p = &assessment.provenance;
    let mut items = vec![
        t::text(ObservationContext, t::TRACKING_ID, &finding.name),
        t::uid(ObservationContext, t::TRACKING_UID, tracking),
        t::code(Contains, t::CATEGORY, &t::CLINICAL_FINDING.concept()),
        t::code(Contains, t::FINDING, &concept),
        // TID 4019
        t::text(Modifies, t::ALGORITHM_NAME, model_name(assessment)),
        t::text(Modifies, t::ALGORITHM_VERSION, &p.model_version),
    ];
    let parameters = [
        ("model id", &p.model_id),
        ("weights sha256", &p.model_sha256),
    ]
    .into_iter()
    .chain(p.parameters.iter().map(|(name, value)| (&**name, value)));
    items.extend(
        parameters
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| {
                t::text(
                    Modifies,
                    t::ALGORITHM_PARAMETERS,
                    &format!("{name}={value}"),
                )
            }),
    );
    items.push(t::image(t::SOURCE_OF_MEASUREMENT, image, vec![]));

    let percent = |name, value: f64, content| t::number(name, value * 100.0, t::PERCENT, content);
    let method = if finding.calibrated {
        t::CALIBRATED
    } else {
        t::SCORE
    };
    items.push(percent(
        t::PROBABILITY,
        finding.probability,
        vec![t::code(Modifies, t::MEASUREMENT_METHOD, &method.concept())],
    ));
    if let Some(threshold) = finding.threshold {
        items.push(percent(t::THRESHOLD, threshold, vec![]));
    }
    if let Some(point) = finding.operating_point {
        items.push(percent(t::SENSITIVITY, point.sensitivity, vec![]));
        items.push(percent(t::SPECIFICITY, point.specificity, vec![]));
        let [with, without] = point.cases;
        items.push(t::number(t::CASES_WITH, with as f64, t::UNITY, vec![]));
        items.push(t::number(
            t::CASES_WITHOUT,
            without as f64,
            t::UNITY,
            vec![],
        ));
    }
    if let Some((_, code)) = (t::CALLS.iter()).find(|(call, _)| Some(*call) == finding.call) {
        items.push(t::code(Contains, t::CALL, &code.concept()));
    }
    if let Some((_, code)) = (t::REVIEWS.iter()).find(|(state, _)| *state == finding.review) {
        items.push(t::code(Contains, t::REVIEW, &code.concept()));
    }
    // What the reader says is an item of its own: the model's call stays what the model said.
    if let (ReviewState::Edited, Some(edit)) = (finding.review, &finding.edit) {
        if let Some((_, code)) = t::CALLS.iter().find(|(call, _)| *call == edit.call) {
            items.push(t::code(Contains, t::READER_CALL, &code.concept()));
        }
        if !edit.comment.expose().trim().is_empty() {
            items.push(t::text(Contains, t::COMMENT, edit.comment.expose()));
        }
    }
    if let Some(review) = &finding.reviewed
        && finding.review != ReviewState::NotReviewed
    {
        if !review.by.expose().trim().is_empty() {
            items.push(t::person(t::REVIEWED_BY, review.by.expose()));
        }
        items.push(t::date_time(t::REVIEWED_AT, review.at));
    }
    t::container(t::GROUP, Some("1501"), items)
}

/// What a person must know who opens the object elsewhere.
fn remarks(assessment: &Assessment) -> Vec<Composer> {
    let mut items = vec![t::text(Contains, t::COMMENT, crate::RESEARCH_USE)];
    items.extend((assessment.refused.iter()).map(|why| t::text(Contains, t::REFUSED, why)));
    items.extend(assessment.issues.iter().map(|issue| {
        let words = one_value(&format!("{}: {issue}", issue.code()), 400);
        t::text(Contains, t::COMMENT, &words)
    }));
    items
}
