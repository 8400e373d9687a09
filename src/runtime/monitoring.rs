//! Puts runs and decisions into the store for monitoring. Nothing here may stop a run.

use std::collections::BTreeMap;
use std::time::Instant;

use super::clock::{now_utc, random_name};
use super::home::Home;
use super::models::RunError;
use crate::app::ReviewNote;
use crate::findings::{Assessment, ReviewState, Segmentation};
use crate::inference::{self, Executor, RunPlan, device_name};
use crate::model::Manifest;
use crate::monitoring::{
    Outcome, Reason, Record, Review, Reviewed, Run, Said, SaidSegment, Store, Through, Verdict,
    Work, known_modality,
};
use crate::study::Issue;
use crate::volume::{LabelStatistics, Volume};

/// A run that is going on; kept as failed when it ends without a word (a panic).
pub(super) struct Watched {
    store: Store,
    started: Instant,
    record: Run,
    kept: bool,
}

impl Watched {
    /// A run starts now.
    pub fn start(store: &Store, through: Through, manifest: &Manifest, volume: &Volume) -> Self {
        let work = if manifest.classification.is_some() {
            Work::Classification
        } else {
            Work::Segmentation
        };
        Self {
            store: store.clone(),
            started: Instant::now(),
            kept: false,
            record: Run {
                time: now_utc(),
                run: random_name(),
                model: manifest.id.clone(),
                version: manifest.version.clone(),
                sha256: manifest.weights_sha256.clone(),
                software: crate::VERSION.to_owned(),
                device: device_name(Executor::Native),
                modality: known_modality(&volume.modality),
                work,
                through,
                outcome: Outcome::Failed,
                reason: Some(Reason::Other),
                images: None,
                images_refused: None,
                stages: BTreeMap::new(),
                seconds: 0.0,
                planned_seconds: None,
                planned_bytes: None,
                doubts: Vec::new(),
                findings: Vec::new(),
                segments: Vec::new(),
            },
        }
    }

    /// The run has ended with segments.
    pub fn segmented(
        mut self,
        plan: &RunPlan,
        segmentation: &mut Segmentation,
        statistics: &[LabelStatistics],
    ) {
        segmentation.provenance.run.clone_from(&self.record.run);
        let record = &mut self.record;
        record.outcome = Outcome::Done;
        record.reason = None;
        record.planned_seconds = Some(plan.seconds);
        record.planned_bytes = Some(plan.needed_bytes);
        for (stage, seconds) in &segmentation.provenance.elapsed_secs {
            *record.stages.entry(stage.clone()).or_default() += seconds;
        }
        record.doubts = kinds(&segmentation.issues);
        record.segments = (statistics.iter())
            .filter_map(|s| {
                let segment = segmentation.segments.iter().find(|g| g.label == s.label)?;
                Some(SaidSegment {
                    name: segment.name.clone(),
                    volume_ml: s.volume_ml,
                })
            })
            .collect();
        self.keep();
    }

    /// The run has ended with findings, or with reasons why there are none.
    pub fn assessed(mut self, planned_bytes: Option<u64>, assessments: &mut [Assessment]) {
        let record = &mut self.record;
        let refused = assessments.iter().filter(|a| !a.refused.is_empty()).count();
        if refused == assessments.len() && refused > 0 {
            (record.outcome, record.reason) = (Outcome::Refused, Some(Reason::Input));
        } else {
            (record.outcome, record.reason) = (Outcome::Done, None);
        }
        record.images = Some(assessments.len());
        record.images_refused = Some(refused);
        record.planned_bytes = planned_bytes;
        for a in assessments.iter_mut() {
            a.provenance.run.clone_from(&record.run);
            for (stage, seconds) in &a.provenance.elapsed_secs {
                *record.stages.entry(stage.clone()).or_default() += seconds;
            }
            for kind in kinds(&a.issues) {
                if !record.doubts.contains(&kind) {
                    record.doubts.push(kind);
                }
            }
            let said = a.findings.iter().map(|f| Said {
                name: f.name.clone(),
                probability: f.probability,
                call: f.call,
                image: a.image,
            });
            record.findings.extend(said);
        }
        self.keep();
    }

    /// The run has ended without a result.
    pub fn stopped(mut self, error: &RunError) {
        let record = &mut self.record;
        let (outcome, reason) = match error {
            RunError::Cancelled(_) => (Outcome::Cancelled, None),
            RunError::Package(_) => (Outcome::Failed, Some(Reason::Model)),
            RunError::Inference(inner) => match inner {
                inference::Error::Cancelled(_) => (Outcome::Cancelled, None),
                inference::Error::Memory { needed_bytes, .. } => {
                    record.planned_bytes = Some(*needed_bytes);
                    (Outcome::Refused, Some(Reason::Memory))
                }
                inference::Error::Input(_) => (Outcome::Refused, Some(Reason::Input)),
                inference::Error::Network(_) => (Outcome::Failed, Some(Reason::Model)),
                _ => (Outcome::Failed, Some(Reason::Other)),
            },
        };
        (record.outcome, record.reason) = (outcome, reason);
        self.keep();
    }

    fn keep(&mut self) {
        self.kept = true;
        self.record.time = now_utc();
        self.record.seconds = self.started.elapsed().as_secs_f64();
        let record = Record::Run(Box::new(self.record.clone()));
        if let Err(error) = self.store.append(&record) {
            tracing::warn!(%error, "a run was not kept for monitoring");
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.kept {
            self.keep();
        }
    }
}

/// Each kind once.
fn kinds(issues: &[Issue]) -> Vec<String> {
    let mut kinds: Vec<String> = Vec::new();
    for issue in issues {
        let kind = issue.code().to_owned();
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

/// Keeps a person's decision.
pub(super) fn note_review(home: &Home, note: &ReviewNote) {
    let verdict = |state| match state {
        ReviewState::NotReviewed => Verdict::NotReviewed,
        ReviewState::Accepted => Verdict::Accepted,
        ReviewState::Edited => Verdict::Edited,
        ReviewState::Rejected => Verdict::Rejected,
    };
    let record = Record::Review(Review {
        time: now_utc(),
        run: note.run.clone(),
        model: note.model.clone(),
        version: note.version.clone(),
        of: match &note.finding {
            Some((name, image)) => Reviewed::Finding {
                name: name.clone(),
                image: *image,
            },
            None => Reviewed::Segments,
        },
        from: verdict(note.from),
        to: verdict(note.to),
        model_call: note.model_call,
        reader_call: note.reader_call,
    });
    if let Err(error) = Store::new(home.root()).append(&record) {
        tracing::warn!(%error, "a decision was not kept for monitoring");
    }
}
