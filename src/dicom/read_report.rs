//! A measurement report of a classifier's findings → findings.
//!
//! Reads the report as `write_report` makes it, and what other programs keep of it: containers at
//! fixed depths, so that nothing here goes deeper than a finding's numbers.

use std::path::{Path, PathBuf};

use chrono::{DateTime, NaiveDateTime, Utc};
use dicom_dictionary_std::{tags, uids as sop};

use super::dataset::{Dataset, Item};
use super::report_template as t;
use super::report_template::Content;
use crate::findings::{Call, Edit, Finding, OperatingPoint, Review, ReviewState};
use crate::redact::Sensitive;
use crate::study::Uid;

/// Kinds of SR that can hold a measurement report.
const CLASSES: [&str; 3] = [
    sop::ENHANCED_SR_STORAGE,
    sop::COMPREHENSIVE_SR_STORAGE,
    sop::COMPREHENSIVE3_DSR_STORAGE,
];

/// Why a report cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadReportError {
    /// No readable DICOM file.
    #[error("not a readable DICOM file: {path}")]
    Open {
        /// What the reader said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
        /// The file.
        path: PathBuf,
    },
    /// Another kind of object.
    #[error("not a measurement report ({found}): {path}")]
    NotAReport {
        /// What it is.
        found: String,
        /// The file.
        path: PathBuf,
    },
    /// A part of a finding is absent or unusable.
    #[error("{item} of finding {finding} is absent or cannot be used: {path}")]
    Item {
        /// Name of the content item.
        item: &'static str,
        /// Index of the finding, from 1.
        finding: usize,
        /// The file.
        path: PathBuf,
    },
}

/// One finding as the file tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadFinding {
    /// Name, code, numbers, call, review; who decided and when, where the file tells both.
    pub finding: Finding,
    /// Tracking Unique Identifier.
    pub tracking_uid: Option<Uid>,
    /// Name of the model.
    pub model_name: String,
    /// Its version.
    pub model_version: String,
    /// SOP Instance UIDs of the images that the finding is about.
    pub images: Vec<Uid>,
}

/// A report of findings.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadReport {
    /// SOP Instance UID.
    pub sop_instance_uid: Option<Uid>,
    /// Study Instance UID.
    pub study_instance_uid: Option<Uid>,
    /// Series Description.
    pub description: String,
    /// SOP Instance UIDs of the evidence.
    pub evidence: Vec<Uid>,
    /// Completion Flag says that nothing is left to do.
    pub complete: bool,
    /// Verification Flag: a person has attested it elsewhere; this program never writes that.
    pub verified: bool,
    /// In the file's order.
    pub findings: Vec<ReadFinding>,
    /// Why no finding is given.
    pub refused: Vec<String>,
    /// Notices and doubts.
    pub comments: Vec<String>,
}

/// Reads a DICOM SR of findings.
///
/// # Errors
/// Anything but a whole measurement report whose findings have a name and a probability.
pub fn read_report(path: &Path) -> Result<ReadReport, ReadReportError> {
    let open = |source: super::Error| ReadReportError::Open {
        source: Box::new(source),
        path: path.to_owned(),
    };
    let bytes = std::fs::read(path).map_err(|e| open(e.into()))?;
    let mut dataset = Dataset::from_file(bytes).map_err(open)?;
    // Of a report every item matters: half of it could be the half without the doubts.
    if let Some(error) = dataset.truncated.take() {
        return Err(open(error));
    }
    read(dataset.root(), path)
}

fn read(d: Item<'_>, path: &Path) -> Result<ReadReport, ReadReportError> {
    let not = |found: String| ReadReportError::NotAReport {
        found,
        path: path.to_owned(),
    };
    let class = d.uid(tags::SOP_CLASS_UID);
    if !class
        .as_ref()
        .is_some_and(|c| CLASSES.contains(&c.as_str()))
    {
        let class = class.map_or_else(|| "?".to_owned(), |c| c.to_string());
        return Err(not(format!("SOP class {class}")));
    }
    let template = d
        .item(tags::CONTENT_TEMPLATE_SEQUENCE)
        .and_then(|item| item.text(tags::TEMPLATE_IDENTIFIER));
    let root = Content(d);
    if template.as_deref() != Some("1500") || !root.is(t::TITLE, "CONTAINER") {
        return Err(not("another kind of structured report".to_owned()));
    }
    let groups = root
        .named(t::MEASUREMENTS, "CONTAINER")
        .flat_map(|m| m.named(t::GROUP, "CONTAINER"));
    let findings = groups
        .enumerate()
        .map(|(n, group)| {
            read_group(group).map_err(|item| ReadReportError::Item {
                item,
                finding: n + 1,
                path: path.to_owned(),
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let remarks = |name| {
        root.named(t::EVALUATIONS, "CONTAINER")
            .flat_map(move |e| e.named(name, "TEXT"))
            .filter_map(Content::own_text)
            .collect::<Vec<_>>()
    };
    Ok(ReadReport {
        sop_instance_uid: d.uid(tags::SOP_INSTANCE_UID),
        study_instance_uid: d.uid(tags::STUDY_INSTANCE_UID),
        description: d.line(tags::SERIES_DESCRIPTION),
        evidence: d
            .items(tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE)
            .flat_map(|study| study.items(tags::REFERENCED_SERIES_SEQUENCE))
            .flat_map(|series| series.items(tags::REFERENCED_SOP_SEQUENCE))
            .filter_map(|image| image.uid(tags::REFERENCED_SOP_INSTANCE_UID))
            .collect(),
        complete: d.text(tags::COMPLETION_FLAG).as_deref() == Some("COMPLETE"),
        verified: d.text(tags::VERIFICATION_FLAG).as_deref() == Some("VERIFIED"),
        findings,
        refused: remarks(t::REFUSED),
        comments: remarks(t::COMMENT),
    })
}

/// A finding, or the name of what it lacks.
fn read_group(group: Content<'_>) -> Result<ReadFinding, &'static str> {
    let concept = group.code(t::FINDING).ok_or(t::FINDING.meaning)?;
    let name = group
        .text(t::TRACKING_ID)
        .unwrap_or_else(|| concept.meaning.clone());
    let (probability, kind) = percent(group, t::PROBABILITY)?.ok_or(t::PROBABILITY.meaning)?;
    let calibrated = kind
        .code(t::MEASUREMENT_METHOD)
        .is_some_and(|method| t::CALIBRATED.is(&method));
    let part = |name| Ok::<_, &'static str>(percent(group, name)?.map(|(value, _)| value));
    let (sensitivity, specificity) = (part(t::SENSITIVITY)?, part(t::SPECIFICITY)?);
    let operating_point = match (sensitivity, specificity) {
        (Some(sensitivity), Some(specificity)) => Some(OperatingPoint {
            sensitivity,
            specificity,
            cases: [
                count(group, t::CASES_WITH)?,
                count(group, t::CASES_WITHOUT)?,
            ],
        }),
        _ => None,
    };
    let call = call_of(group, t::CALL)?;
    // A code that is not known is no review.
    let review_state = group
        .code(t::REVIEW)
        .and_then(|found| t::REVIEWS.iter().find(|(_, code)| code.is(&found)))
        .map_or(ReviewState::NotReviewed, |(state, _)| *state);
    let edit = match review_state {
        // Without what the reader says, the model's call would stand there as if it were that.
        ReviewState::Edited => Some(Edit {
            call: call_of(group, t::READER_CALL)?.ok_or(t::READER_CALL.meaning)?,
            comment: Sensitive::new(group.text(t::COMMENT).unwrap_or_default()),
        }),
        _ => None,
    };
    let private = t::private_finding(&name);
    Ok(ReadFinding {
        tracking_uid: group
            .named(t::TRACKING_UID, "UIDREF")
            .find_map(|item| item.0.uid(tags::UID)),
        model_name: group.text(t::ALGORITHM_NAME).unwrap_or_default(),
        model_version: group.text(t::ALGORITHM_VERSION).unwrap_or_default(),
        images: group
            .named(t::SOURCE_OF_MEASUREMENT, "IMAGE")
            .filter_map(|item| item.0.item(tags::REFERENCED_SOP_SEQUENCE))
            .filter_map(|image| image.uid(tags::REFERENCED_SOP_INSTANCE_UID))
            .collect(),
        finding: Finding {
            name,
            concept: Some(concept).filter(|c| *c != private),
            probability,
            calibrated,
            threshold: part(t::THRESHOLD)?,
            operating_point,
            call,
            review: review_state,
            reviewed: review_of(group),
            edit,
        },
    })
}

/// A part of one that is written in percent, with its item; what is there must be usable.
fn percent(group: Content<'_>, name: t::Code) -> Result<Option<(f64, Content<'_>)>, &'static str> {
    if group.named(name, "NUM").next().is_none() {
        return Ok(None);
    }
    let (value, unit, item) = group.number(name).ok_or(name.meaning)?;
    if !t::PERCENT.is(&unit) || !(0.0..=100.0).contains(&value) {
        return Err(name.meaning);
    }
    Ok(Some((value / 100.0, item)))
}

/// A call; a code that is not known must not become another one.
fn call_of(group: Content<'_>, name: t::Code) -> Result<Option<Call>, &'static str> {
    let Some(found) = group.code(name) else {
        return Ok(None);
    };
    let known = t::CALLS.iter().find(|(_, code)| code.is(&found));
    Ok(Some(known.ok_or(name.meaning)?.0))
}

fn count(group: Content<'_>, name: t::Code) -> Result<usize, &'static str> {
    match group.number(name) {
        // 2^53: beyond it a number of floating point is no count.
        Some((value, _, _)) if (0.0..=9_007_199_254_740_992.0).contains(&value) => {
            Ok(value as usize)
        }
        Some(_) => Err(name.meaning),
        None => Ok(0),
    }
}

fn review_of(group: Content<'_>) -> Option<Review> {
    let by = group
        .named(t::REVIEWED_BY, "PNAME")
        .find_map(|item| item.0.text(tags::PERSON_NAME))
        .unwrap_or_default();
    let at = group
        .named(t::REVIEWED_AT, "DATETIME")
        .find_map(|item| item.0.text(tags::DATE_TIME))?;
    Some(Review {
        by: Sensitive::new(by.chars().take(64).collect()),
        at: instant(&at)?,
    })
}

/// `YYYYMMDDHHMMSS` with or without fraction and offset (PS3.5 6.2, DT); without one it is UTC.
fn instant(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(at) = DateTime::parse_from_str(text, "%Y%m%d%H%M%S%.f%z") {
        return Some(at.with_timezone(&Utc));
    }
    let naive = NaiveDateTime::parse_from_str(text, "%Y%m%d%H%M%S%.f").ok()?;
    Some(naive.and_utc())
}
