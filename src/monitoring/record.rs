//! One line of the store: a run that has ended, or a person's decision.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::findings::Call;

/// Version of the shape of a line; a change that breaks a reader counts up.
pub(super) const SHAPE: &str = "negatoscope-monitoring/1";
/// Findings of a run that are kept; a long series has more.
pub(super) const MOST_FINDINGS: usize = 256;

/// What is kept.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Record {
    /// A run has ended.
    Run(Box<Run>),
    /// A person has decided.
    Review(Review),
}

impl Record {
    /// When it happened.
    pub const fn time(&self) -> DateTime<Utc> {
        match self {
            Self::Run(run) => run.time,
            Self::Review(review) => review.time,
        }
    }
}

/// What a model gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Segments.
    Segmentation,
    /// Findings of whole images.
    Classification,
}

/// From where a run was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Through {
    /// The window, for the series on screen.
    Window,
    /// The command line or a folder of studies.
    Batch,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// With a result.
    Done,
    /// As asked.
    Cancelled,
    /// Against what was expected.
    Failed,
    /// Not run, or without a number: the images are none that the model is for, or memory is short.
    Refused,
}

/// Why it failed or was refused; a class, since words could quote a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Outside of what the model is for.
    Input,
    /// More memory than there is.
    Memory,
    /// The package or its network.
    Model,
    /// Anything else.
    Other,
}

/// A run of a model on the images of one series.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Run {
    /// When it ended.
    #[serde(with = "stamp")]
    pub time: DateTime<Utc>,
    /// Its random name, which reviews repeat.
    pub run: String,
    /// Model id.
    pub model: String,
    /// Model version.
    pub version: String,
    /// SHA-256 of the weights.
    pub sha256: String,
    /// Version of this program.
    pub software: String,
    /// What computed.
    pub device: String,
    /// Of the images; `other` where it is none that is known.
    pub modality: String,
    /// What the model gives.
    pub work: Work,
    /// From where it was asked for.
    pub through: Through,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, where it did not end with a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Images that a classifier looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<usize>,
    /// Of them without a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_refused: Option<usize>,
    /// Seconds by stage.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stages: BTreeMap<String, f64>,
    /// Seconds in all.
    pub seconds: f64,
    /// Seconds that were planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_seconds: Option<f64>,
    /// Bytes that were planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_bytes: Option<u64>,
    /// Kinds of doubts, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<String>,
    /// What a classifier said, at most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Said>,
    /// What a segmentation measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<SaidSegment>,
}

/// A finding with its number.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Said {
    /// As the model names it.
    pub name: String,
    /// 0 to 1.
    pub probability: f64,
    /// What it amounts to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<Call>,
    /// Which image of the series, from 0.
    pub image: usize,
}

/// A segment with its volume.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SaidSegment {
    /// As the model names it.
    pub name: String,
    /// Absent for plane images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_ml: Option<f64>,
}

/// A person's decision, as a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// None yet, or taken back.
    NotReviewed,
    /// Agreed.
    Accepted,
    /// Changed.
    Edited,
    /// Disagreed.
    Rejected,
}

/// What was decided on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reviewed {
    /// A finding of an image.
    Finding {
        /// As the model names it.
        name: String,
        /// Which image of the series, from 0.
        image: usize,
    },
    /// All segments of a run together.
    Segments,
}

/// A person's decision on a result. Who decided stands with the result and not here.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Review {
    /// When it was made.
    #[serde(with = "stamp")]
    pub time: DateTime<Utc>,
    /// The run's random name.
    pub run: String,
    /// Model id.
    pub model: String,
    /// Model version.
    pub version: String,
    /// On what.
    pub of: Reviewed,
    /// State before.
    pub from: Verdict,
    /// State now.
    pub to: Verdict,
    /// What the model says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_call: Option<Call>,
    /// What the reader says instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader_call: Option<Call>,
}

/// A modality as it may be kept: a defined term (PS3.3 C.7.3.1.1.1), since a file could hold
/// anything there.
pub fn known_modality(modality: &str) -> String {
    const KNOWN: [&str; 22] = [
        "CR", "CT", "DX", "ES", "GM", "IO", "MG", "MR", "NM", "OP", "OPT", "OT", "PT", "PX", "RF",
        "RG", "SC", "SM", "US", "XA", "XC", "TG",
    ];
    let known = KNOWN.iter().find(|known| **known == modality);
    match (known, modality.is_empty()) {
        (Some(known), _) => (*known).to_owned(),
        (None, true) => "none".to_owned(),
        (None, false) => "other".to_owned(),
    }
}

/// A line without its end.
pub(super) fn line(record: &Record) -> serde_json::Result<Vec<u8>> {
    #[derive(serde::Serialize)]
    struct Line<'a> {
        shape: &'static str,
        #[serde(flatten)]
        record: &'a Record,
    }
    let shape = SHAPE;
    let mut kept;
    let record = match record {
        Record::Run(run) if run.findings.len() > MOST_FINDINGS => {
            kept = run.clone();
            kept.findings.truncate(MOST_FINDINGS);
            &Record::Run(kept)
        }
        other => other,
    };
    serde_json::to_vec(&Line { shape, record })
}

/// A record from its line; `None` for one of another shape or a damaged one.
pub(super) fn parse(line: &[u8]) -> Option<Record> {
    #[derive(serde::Deserialize)]
    struct Shaped {
        shape: String,
    }
    let shaped: Shaped = serde_json::from_slice(line).ok()?;
    if shaped.shape != SHAPE {
        return None;
    }
    serde_json::from_slice(line).ok()
}

/// Times as text, RFC 3339 in UTC with milliseconds.
mod stamp {
    use chrono::{DateTime, SecondsFormat, Utc};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(time: &DateTime<Utc>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<DateTime<Utc>, D::Error> {
        let text = String::deserialize(from)?;
        let time = DateTime::parse_from_rfc3339(&text).map_err(D::Error::custom)?;
        Ok(time.with_timezone(&Utc))
    }
}
