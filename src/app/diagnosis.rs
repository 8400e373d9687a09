//! Findings of whole images on screen, and what a person said of them.

use std::sync::Arc;

use super::{Action, App, JobKind, VolumeId};
use crate::findings::{Assessment, Explanation, ExplanationMethod, Finding, ReviewState};

/// What a classifier says about the open images.
#[derive(Clone, Debug)]
pub struct ShownFindings {
    /// The volume whose images they are.
    pub volume: VolumeId,
    /// One for each image, in their order.
    pub assessments: Vec<Assessment>,
    /// Ways of explaining that the model has, the best first.
    pub methods: Vec<ExplanationMethod>,
    /// The way that is asked for.
    pub method: Option<ExplanationMethod>,
    /// The map over the image, as (assessment, explanation).
    pub map: Option<(usize, usize)>,
    /// Written to disk already.
    pub exported: bool,
}

impl ShownFindings {
    /// The map that is drawn over an image of the series.
    pub fn map_over(&self, image: usize) -> Option<(&Assessment, &Explanation)> {
        let (n, m) = self.map?;
        let assessment = self.assessments.get(n).filter(|a| a.image == image)?;
        Some((assessment, assessment.explanations.get(m)?))
    }

    /// The explanation of a finding by the way that is asked for.
    pub fn explained(&self, n: usize, finding: usize) -> Option<usize> {
        let assessment = self.assessments.get(n)?;
        let name = &assessment.findings.get(finding)?.name;
        let ours = |e: &Explanation| e.finding == *name && Some(e.method) == self.method;
        assessment.explanations.iter().position(ours)
    }

    /// The first finding that nobody has reviewed, as (assessment, finding).
    pub fn next(&self) -> Option<(usize, usize)> {
        let open = |f: &Finding| f.review == ReviewState::NotReviewed;
        (self.assessments.iter().enumerate())
            .find_map(|(n, a)| a.findings.iter().position(open).map(|m| (n, m)))
    }
}

impl App {
    pub(super) fn show_findings(
        &mut self,
        volume: VolumeId,
        assessments: Vec<Assessment>,
        methods: Vec<ExplanationMethod>,
    ) {
        self.findings = Some(ShownFindings {
            volume,
            assessments,
            method: methods.first().copied(),
            methods,
            map: None,
            exported: false,
        });
    }

    /// Shows where the evidence for a finding lies, or hides it again; a map that is not there yet
    /// is made first.
    pub(super) fn explain(&mut self, n: usize, finding: usize) {
        let Some(shown) = &mut self.findings else {
            return;
        };
        if let Some(m) = shown.explained(n, finding) {
            shown.map = if shown.map == Some((n, m)) {
                None
            } else {
                Some((n, m))
            };
            return;
        }
        let (Some(method), Some(assessment)) = (shown.method, shown.assessments.get(n)) else {
            return;
        };
        let Some(name) = assessment.findings.get(finding).map(|f| f.name.clone()) else {
            return;
        };
        let made = &assessment.provenance;
        let model = format!("{}@{}", made.model_id, made.model_version);
        let (volume, image) = (shown.volume, assessment.image);
        let open = self.workspace.open.as_ref().filter(|o| o.id == volume);
        let Some(data) = open.map(|o| Arc::clone(&o.data)) else {
            return;
        };
        if self.running(JobKind::Explain).is_some() {
            return;
        }
        let (job, task) = self.start(JobKind::Explain, format!("Explaining {name}"));
        self.actions.push(Action::Explain {
            job,
            model,
            volume,
            data,
            assessment: n,
            image,
            finding: name,
            method,
            task,
        });
    }

    /// Takes another way of explaining; a finding that is explained now is explained anew.
    pub(super) fn explain_by(&mut self, method: ExplanationMethod) {
        let Some(shown) = &mut self.findings else {
            return;
        };
        shown.method = Some(method);
        let Some((n, m)) = shown.map.take() else {
            return;
        };
        let assessment = &shown.assessments[n];
        let name = &assessment.explanations[m].finding;
        let finding = assessment.findings.iter().position(|f| f.name == *name);
        if let Some(finding) = finding {
            self.explain(n, finding);
        }
    }

    pub(super) fn explained(&mut self, volume: VolumeId, n: usize, map: Explanation) {
        let Some(shown) = self.findings.as_mut().filter(|f| f.volume == volume) else {
            return;
        };
        if let Some(assessment) = shown.assessments.get_mut(n) {
            // Whoever has chosen another way meanwhile is not shown this one.
            let wanted = shown.method == Some(map.method);
            assessment.explanations.push(map);
            if wanted {
                shown.map = Some((n, assessment.explanations.len() - 1));
            }
            shown.exported = false;
        }
    }

    /// Says something of one finding; the same again takes it back.
    pub(super) fn review_finding(&mut self, image: usize, finding: usize, state: ReviewState) {
        let Some(shown) = &mut self.findings else {
            return;
        };
        let assessment = shown.assessments.get_mut(image);
        let Some(finding) = assessment.and_then(|a| a.findings.get_mut(finding)) else {
            return;
        };
        finding.review = if finding.review == state {
            ReviewState::NotReviewed
        } else {
            state
        };
        shown.exported = false;
    }

    /// Says something of the next finding without a word; `false` when there is none.
    pub(super) fn review_next(&mut self, state: ReviewState) -> bool {
        let next = self.findings.as_ref().and_then(ShownFindings::next);
        if let Some((image, finding)) = next {
            self.review_finding(image, finding, state);
        }
        next.is_some()
    }
}
