//! The files of a classifier's findings: all of them, or none.

use std::path::Path;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::write_results::{keep_all, written_file};
use super::{Error, Format, Written};
use crate::audit;
use crate::dicom;
use crate::findings::{Assessment, Finding, Review, ReviewState};
use crate::study::Uid;
use crate::volume::Volume;

/// Version of the shape below; a change that breaks a reader counts up.
pub(super) const SHAPE: &str = "negatoscope-findings/1";

/// An explanation as a picture: the image with the map over it, and what its colors mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapPicture {
    /// Index of the assessment.
    pub assessment: usize,
    /// Index among its explanations.
    pub explanation: usize,
    /// Columns and rows.
    pub size_px: [usize; 2],
    /// Three bytes a pixel.
    pub rgb: Vec<u8>,
    /// The same as a file.
    pub png: Vec<u8>,
}

/// Writes what a classifier says about the images of a volume into `folder` (made if absent).
///
/// # Errors
/// Nothing was left behind then, unless a rename fails after others.
pub fn write_findings(
    assessments: &[Assessment],
    pictures: &[MapPicture],
    volume: &Volume,
    formats: &[Format],
    folder: &Path,
    uids: &mut dyn FnMut() -> Uid,
    now: DateTime<Utc>,
    receipt: &audit::Receipt,
) -> Result<Vec<Written>, Error> {
    std::fs::create_dir_all(folder).map_err(|source| Error::Io {
        action: "making the folder",
        source,
        path: folder.to_owned(),
    })?;
    let mut pending = Vec::new();
    let mut written = Vec::new();
    // The record names the other files with their hashes: it comes last.
    for format in Format::OF_FINDINGS {
        if !formats.contains(&format) {
            continue;
        }
        if format == Format::Maps {
            for picture in pictures {
                let a = &assessments[picture.assessment];
                let map = &a.explanations[picture.explanation];
                let stem = folder.join(map_name(a, picture.explanation));
                let png = stem.with_extension("png");
                let (file, one) = written_file(format, &png, |w| Ok(w.write_all(&picture.png)?))?;
                pending.push(file);
                written.push(one);
                if !formats.contains(&Format::Seg) || !has_source(a) {
                    continue;
                }
                let derivation = format!(
                    "{} of {} by {} {}; {}",
                    map.method.words(),
                    map.finding,
                    a.provenance.model_name,
                    a.provenance.model_version,
                    map.faithfulness.words()
                );
                let capture = dicom::Capture {
                    size_px: picture.size_px,
                    rgb: &picture.rgb,
                    series_description: &format!("{}: {}", map.method.words(), map.finding),
                    derivation: &derivation,
                };
                let (file, one) = written_file(format, &stem.with_extension("dcm"), |w| {
                    dicom::write_capture_to(w, &capture, &a.source, a.image, uids, now)?;
                    Ok(())
                })?;
                pending.push(file);
                written.push(one);
            }
            continue;
        }
        if format == Format::Seg {
            // An SR belongs to one image of a DICOM study; other inputs have none.
            for a in assessments.iter().filter(|a| has_source(a)) {
                let name = match a.image {
                    0 => "findings.dcm".to_owned(),
                    n => format!("findings-{}.dcm", n + 1),
                };
                let (file, one) = written_file(format, &folder.join(name), |w| {
                    dicom::write_report_to(w, a, uids, now)?;
                    Ok(())
                })?;
                check(file.temporary(), a)?;
                pending.push(file);
                written.push(one);
            }
            continue;
        }
        let path = folder.join(format.findings_file_name());
        let bytes = match format {
            Format::Csv => table(assessments).map_err(std::io::Error::other)?,
            _ => record(assessments, volume, &written, now, receipt)?,
        };
        let (file, one) = written_file(format, &path, |w| Ok(w.write_all(&bytes)?))?;
        pending.push(file);
        written.push(one);
    }
    keep_all(pending)?;
    Ok(written)
}

/// Whether it is about an image of a DICOM study.
fn has_source(a: &Assessment) -> bool {
    a.source.study_instance_uid.is_some() && a.source.image(a.image).is_some()
}

/// Name of an explanation's files, without their ending.
fn map_name(a: &Assessment, explanation: usize) -> String {
    let map = &a.explanations[explanation];
    let letters = map.finding.chars().map(|c| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    });
    let (finding, method): (String, _) = (letters.take(40).collect(), map.method.name());
    let number = explanation + 1;
    match a.image {
        0 => format!("explanation-{number}-{finding}-{method}"),
        n => format!("explanation-image{}-{number}-{finding}-{method}", n + 1),
    }
}

/// An SR just written must say what was found.
fn check(path: &Path, a: &Assessment) -> Result<(), Error> {
    let read = dicom::read_report(path)?;
    let same = read.findings.len() == a.findings.len()
        && (read.findings.iter().zip(&a.findings)).all(|(r, f)| {
            (r.finding.probability - f.probability).abs() < 1e-9
                && (r.finding.call, r.finding.review) == (f.call, f.review)
                && r.finding.edit.as_ref().map(|e| e.call) == f.edit.as_ref().map(|e| e.call)
                && r.finding.reviewed.as_ref().map(|v| v.at) == f.reviewed.as_ref().map(|v| v.at)
        })
        && read.refused.len() == a.refused.len();
    if same {
        return Ok(());
    }
    Err(Error::Guard {
        what: "the report holds other findings".to_owned(),
    })
}

const fn review_words(review: ReviewState) -> &'static str {
    match review {
        ReviewState::NotReviewed => "AI - not reviewed",
        ReviewState::Accepted => "accepted",
        ReviewState::Edited => "edited by reader",
        ReviewState::Rejected => "rejected",
    }
}

/// The same back.
pub(super) fn review_of(words: &str) -> Option<ReviewState> {
    let states = [
        ReviewState::NotReviewed,
        ReviewState::Accepted,
        ReviewState::Edited,
        ReviewState::Rejected,
    ];
    states
        .into_iter()
        .find(|state| review_words(*state) == words)
}

fn at(review: &Review) -> String {
    review.at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A person's text that no spreadsheet takes for a formula (OWASP, CSV Injection).
fn plain(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

/// A line for each finding, and one for each image without.
fn table(assessments: &[Assessment]) -> Result<Vec<u8>, csv::Error> {
    let mut table = csv::Writer::from_writer(Vec::new());
    table.write_record([
        "image",
        "sop_instance_uid",
        "finding",
        "probability",
        "calibrated",
        "call",
        "threshold",
        "sensitivity",
        "specificity",
        "review",
        "refused",
        "model",
        "reader_call",
        "reader_comment",
        "reviewed_by",
        "reviewed_at",
    ])?;
    for a in assessments {
        let uid = a.source.image(a.image);
        let uid = uid.map_or_else(String::new, |i| i.sop_instance_uid.to_string());
        let model = format!("{}@{}", a.provenance.model_id, a.provenance.model_version);
        let image = (a.image + 1).to_string();
        if a.findings.is_empty() {
            let refused = a.refused.join("; ");
            let cells = [
                &image, &uid, "", "", "", "", "", "", "", "", &refused, &model, "", "", "", "",
            ];
            table.write_record(cells)?;
        }
        for f in &a.findings {
            let rate = |of: fn(&crate::findings::OperatingPoint) -> f64| {
                f.operating_point
                    .as_ref()
                    .map_or_else(String::new, |p| format!("{:.4}", of(p)))
            };
            let yes = if f.calibrated { "yes" } else { "no" };
            table.write_record([
                image.as_str(),
                &uid,
                &f.name,
                &format!("{:.4}", f.probability),
                yes,
                f.call.map_or("", crate::findings::Call::words),
                &f.threshold.map_or_else(String::new, |t| format!("{t:.4}")),
                &rate(|p| p.sensitivity),
                &rate(|p| p.specificity),
                review_words(f.review),
                "",
                &model,
                f.edit.as_ref().map_or("", |e| e.call.words()),
                &plain(f.edit.as_ref().map_or("", |e| e.comment.expose())),
                &plain(f.reviewed.as_ref().map_or("", |r| r.by.expose())),
                &f.reviewed.as_ref().map_or_else(String::new, at),
            ])?;
        }
    }
    table.into_inner().map_err(|e| e.into_error().into())
}

fn record(
    assessments: &[Assessment],
    volume: &Volume,
    files: &[Written],
    now: DateTime<Utc>,
    receipt: &audit::Receipt,
) -> Result<Vec<u8>, serde_json::Error> {
    let uid = |uid: &Option<Uid>| uid.as_ref().map(Uid::to_string);
    let first = assessments.first().map(|a| &a.provenance);
    let document = json!({
        "shape": SHAPE,
        "notice": crate::RESEARCH_USE,
        "software": { "name": "Negatoscope", "version": crate::VERSION },
        "written": now.to_rfc3339_opts(SecondsFormat::Secs, true),
        "model": first.map(|p| json!({
            "id": p.model_id,
            "name": p.model_name,
            "version": p.model_version,
            "sha256": p.model_sha256,
        })),
        "run": first.map(|p| json!({
            "id": p.run,
            "device": p.device,
            "software_version": p.software_version,
            "started": p.started,
            "parameters": p.parameters.iter().map(|(k, v)| (k.clone(), json!(v))).collect::<serde_json::Map<_, _>>(),
        })),
        "input": {
            "study_instance_uid": uid(&volume.source.study_instance_uid),
            "series_instance_uid": uid(&volume.source.series_instance_uid),
            "modality": volume.modality,
            "dims": volume.geometry.dims(),
        },
        "images": assessments.iter().map(image).collect::<Vec<_>>(),
        "files": files
            .iter()
            .map(|file| json!({
                "format": file.format.name(),
                "name": file.path.file_name().map(|n| n.to_string_lossy()),
                "bytes": file.bytes,
                "sha256": file.sha256,
            }))
            .collect::<Vec<_>>(),
        "audit": { "record": receipt.seq(), "sha256": receipt.sha256() },
    });
    let mut bytes = serde_json::to_vec_pretty(&document)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn image(a: &Assessment) -> Value {
    json!({
        "image": a.image,
        "sop_instance_uid": a.source.image(a.image).map(|i| i.sop_instance_uid.to_string()),
        "refused": a.refused,
        "findings": a.findings.iter().map(finding).collect::<Vec<_>>(),
        "explanations": (0..a.explanations.len()).map(|n| explanation(a, n)).collect::<Vec<_>>(),
        "issues": a
            .issues
            .iter()
            .map(|issue| json!({ "code": issue.code(), "message": issue.to_string() }))
            .collect::<Vec<_>>(),
    })
}

fn explanation(a: &Assessment, n: usize) -> Value {
    let map = &a.explanations[n];
    json!({
        "finding": map.finding,
        "method": map.method.name(),
        "unit": map.method.unit(),
        "explains": map.faithfulness.explains(),
        "test": map.faithfulness,
        "rows": map.dims[0],
        "columns": map.dims[1],
        "values": map.values,
        "region_px": {
            "top": map.region_px[0],
            "left": map.region_px[1],
            "bottom": map.region_px[2],
            "right": map.region_px[3],
        },
        "picture": map_name(a, n) + ".png",
    })
}

fn finding(f: &Finding) -> Value {
    json!({
        "name": f.name,
        "concept": f.concept.as_ref().map(|c| json!({
            "value": c.value, "scheme": c.scheme, "meaning": c.meaning
        })),
        "probability": f.probability,
        "calibrated": f.calibrated,
        "threshold": f.threshold,
        "operating_point": f.operating_point,
        "call": f.call,
        "review": review_words(f.review),
        "reviewed": f.reviewed.as_ref().map(|r| json!({ "by": r.by.expose(), "at": at(r) })),
        "reader": f.edit.as_ref().map(|e| json!({
            "call": e.call, "comment": e.comment.expose()
        })),
    })
}
