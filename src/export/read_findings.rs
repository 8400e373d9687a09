//! `findings.json` back into findings: what a batch has found, to be looked at in the window.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::findings::{
    Assessment, Call, Edit, Explanation, ExplanationMethod, Faithfulness, Finding, Provenance,
    Review, ReviewState,
};
use crate::redact::Sensitive;
use crate::study::{CodedConcept, Issue, Uid};
use crate::volume::Volume;

/// Bytes of a record at most.
const LARGEST: u64 = 64 << 20;
/// Points of a map at most.
const LARGEST_MAP: usize = 1 << 20;

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadFindingsError {
    /// The system refused.
    #[error("could not be read: {path}")]
    Io {
        /// What the system said.
        #[source]
        source: std::io::Error,
        /// The file.
        path: PathBuf,
    },
    /// No record of findings, or one of another shape.
    #[error("no record of findings, {reason}: {path}")]
    Record {
        /// What is wrong.
        reason: String,
        /// The file.
        path: PathBuf,
    },
}

/// Findings as a record tells them.
#[derive(Clone, Debug)]
pub struct ReadFindings {
    /// Series that they are about.
    pub series_instance_uid: Option<Uid>,
    images: Vec<Value>,
    provenance: Provenance,
    path: PathBuf,
}

/// Reads a record.
///
/// # Errors
/// [`ReadFindingsError`].
pub fn read_findings(path: &Path) -> Result<ReadFindings, ReadFindingsError> {
    let io = |source| ReadFindingsError::Io {
        source,
        path: path.to_owned(),
    };
    let refused = |reason: &str| ReadFindingsError::Record {
        reason: reason.to_owned(),
        path: path.to_owned(),
    };
    if std::fs::metadata(path).map_err(io)?.len() > LARGEST {
        return Err(refused("it is too large"));
    }
    let bytes = std::fs::read(path).map_err(io)?;
    let record: Value = serde_json::from_slice(&bytes).map_err(|e| refused(&e.to_string()))?;
    if record["shape"] != super::write_findings::SHAPE {
        return Err(refused("it is of another shape"));
    }
    let images = record["images"].as_array().cloned();
    let (model, run) = (&record["model"], &record["run"]);
    Ok(ReadFindings {
        series_instance_uid: record["input"]["series_instance_uid"]
            .as_str()
            .and_then(|uid| Uid::parse(uid).ok()),
        images: images.ok_or_else(|| refused("it tells of no images"))?,
        provenance: Provenance {
            model_id: text(&model["id"]),
            model_name: text(&model["name"]),
            model_version: text(&model["version"]),
            model_sha256: text(&model["sha256"]),
            run: text(&run["id"]),
            device: text(&run["device"]),
            started: text(&run["started"]),
            software_version: text(&run["software_version"]),
            ..Provenance::default()
        },
        path: path.to_owned(),
    })
}

impl ReadFindings {
    /// `id@version` of the model.
    pub fn model(&self) -> String {
        format!(
            "{}@{}",
            self.provenance.model_id, self.provenance.model_version
        )
    }

    /// The findings, of the images of a volume.
    ///
    /// # Errors
    /// An image that the volume does not have, a number that is none, a word that is unknown.
    pub fn into_assessments(self, volume: &Volume) -> Result<Vec<Assessment>, ReadFindingsError> {
        let [.., images] = volume.geometry.dims();
        self.images
            .iter()
            .map(|image| {
                let found = self.assessment(image, volume, images);
                found.map_err(|reason| ReadFindingsError::Record {
                    reason,
                    path: self.path.clone(),
                })
            })
            .collect()
    }

    fn assessment(
        &self,
        image: &Value,
        volume: &Volume,
        images: usize,
    ) -> Result<Assessment, String> {
        let place = image["image"].as_u64().map(|n| n as usize);
        let place = place.filter(|n| *n < images);
        let place = place.ok_or_else(|| "it tells of an image that is not there".to_owned())?;
        // What was found in one image must not be shown on another.
        let told = image["sop_instance_uid"].as_str();
        let here = volume.source.image(place);
        if let (Some(told), Some(here)) = (told, here)
            && here.sop_instance_uid.as_str() != told
        {
            return Err("it tells of other images".to_owned());
        }
        let list = |key: &str| image[key].as_array().map_or(&[][..], Vec::as_slice);
        // The images' own doubts are known anew; those of the run come from the record.
        let mut issues = volume.issues.clone();
        for issue in list("issues") {
            if issue["code"] == "outside-envelope" {
                let reason = text(&issue["message"]);
                let reason = reason.split_once(": ").map_or(reason.as_str(), |(_, r)| r);
                issues.push(Issue::OutsideEnvelope {
                    reason: reason.to_owned(),
                });
            }
        }
        Ok(Assessment {
            findings: list("findings")
                .iter()
                .map(finding)
                .collect::<Result<_, _>>()?,
            explanations: list("explanations")
                .iter()
                .map(explanation)
                .collect::<Result<_, _>>()?,
            refused: list("refused").iter().map(text).collect(),
            source: volume.source.clone(),
            image: place,
            provenance: self.provenance.clone(),
            issues,
        })
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn part(value: &Value, what: &str) -> Result<f64, String> {
    let number = value.as_f64().filter(|v| (0.0..=1.0).contains(v));
    number.ok_or_else(|| format!("{what} is no number from 0 to 1"))
}

fn call(value: &Value) -> Result<Option<Call>, String> {
    match value.as_str() {
        None => Ok(None),
        Some("present") => Ok(Some(Call::Present)),
        Some("absent") => Ok(Some(Call::Absent)),
        Some("not-sure") => Ok(Some(Call::NotSure)),
        Some(_) => Err("a call is unknown".to_owned()),
    }
}

fn finding(f: &Value) -> Result<Finding, String> {
    let known = |value: &Value| -> Result<Option<f64>, String> {
        match value {
            Value::Null => Ok(None),
            value => part(value, "a threshold").map(Some),
        }
    };
    let concept = &f["concept"];
    let mut found = Finding {
        name: text(&f["name"]),
        concept: concept.is_object().then(|| {
            let word = |key: &str| text(&concept[key]);
            CodedConcept::new(&word("value"), &word("scheme"), &word("meaning"))
        }),
        probability: part(&f["probability"], "a probability")?,
        calibrated: f["calibrated"] == true,
        threshold: known(&f["threshold"])?,
        operating_point: serde_json::from_value(f["operating_point"].clone())
            .map_err(|_| "an operating point is unreadable".to_owned())?,
        call: call(&f["call"])?,
        review: ReviewState::NotReviewed,
        reviewed: None,
        edit: None,
    };
    let state = super::write_findings::review_of(&text(&f["review"]))
        .ok_or_else(|| "a review is unknown".to_owned())?;
    let edit = &f["reader"];
    let edit = call(&edit["call"])?.map(|call| Edit {
        call,
        comment: Sensitive::from(text(&edit["comment"])),
    });
    let reviewed = &f["reviewed"];
    let at = reviewed["at"].as_str().map(DateTime::parse_from_rfc3339);
    let review = match at {
        Some(Ok(at)) => Some(Review {
            by: Sensitive::from(text(&reviewed["by"])),
            at: at.with_timezone(&Utc),
        }),
        Some(Err(_)) => return Err("the time of a review is unreadable".to_owned()),
        None => None,
    };
    found.decide(state, edit, review);
    Ok(found)
}

fn explanation(e: &Value) -> Result<Explanation, String> {
    let unreadable = || "an explanation is unreadable".to_owned();
    let method = ExplanationMethod::ALL
        .into_iter()
        .find(|m| e["method"] == m.name())
        .ok_or_else(unreadable)?;
    let length = |key: &str| e[key].as_u64().map(|n| n as usize);
    let dims = [length("rows"), length("columns")];
    let [Some(rows), Some(columns)] = dims else {
        return Err(unreadable());
    };
    let values = e["values"].as_array().ok_or_else(unreadable)?;
    let values: Option<Vec<f32>> = values
        .iter()
        .map(|v| v.as_f64().map(|v| v as f32).filter(|v| v.is_finite()))
        .collect();
    let values = values.ok_or_else(unreadable)?;
    let points = rows
        .checked_mul(columns)
        .filter(|n| (1..=LARGEST_MAP).contains(n));
    if points != Some(values.len()) {
        return Err(unreadable());
    }
    let number = |value: &Value| value.as_f64().ok_or_else(unreadable);
    let (test, region) = (&e["test"], &e["region_px"]);
    let mut region_px = [0.0; 4];
    for (to, key) in region_px.iter_mut().zip(["top", "left", "bottom", "right"]) {
        *to = number(&region[key])?;
    }
    if region_px[0] >= region_px[2] || region_px[1] >= region_px[3] {
        return Err(unreadable());
    }
    Ok(Explanation {
        finding: text(&e["finding"]),
        method,
        dims: [rows, columns],
        values,
        region_px,
        faithfulness: Faithfulness {
            deletion: number(&test["deletion"])?,
            insertion: number(&test["insertion"])?,
            chance_mean: number(&test["chance_mean"])?,
            chance_best: number(&test["chance_best"])?,
            chance_orders: test["chance_orders"].as_u64().ok_or_else(unreadable)? as usize,
        },
    })
}
