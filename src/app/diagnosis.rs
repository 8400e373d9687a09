//! Findings of whole images on screen, and what a person said of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::SubsecRound;

use super::{Action, App, Dialog, JobKind, ReviewNote, VolumeId};
use crate::findings::{
    Assessment, Edit, Explanation, ExplanationMethod, Finding, Provenance, Review, ReviewState,
};
use crate::redact::Sensitive;

/// What classifiers say about the open images.
#[derive(Clone, Debug)]
pub struct ShownFindings {
    /// The volume whose images they are.
    pub volume: VolumeId,
    /// Model by model in the order of their runs; of each one for every image, in their order.
    pub assessments: Vec<Assessment>,
    /// Ways of explaining that the models have, the best first.
    pub methods: Vec<ExplanationMethod>,
    /// The way that is asked for.
    pub method: Option<ExplanationMethod>,
    /// The ways of each model.
    pub(super) methods_of: BTreeMap<String, Vec<ExplanationMethod>>,
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

    /// The way that an assessment is explained by: what is asked for, where its model has it, else
    /// that model's best.
    pub fn method_for(&self, n: usize) -> Option<ExplanationMethod> {
        let model = key(&self.assessments.get(n)?.provenance);
        let known = self.methods_of.get(&model)?;
        let asked = known.iter().find(|m| Some(**m) == self.method);
        asked.or(known.first()).copied()
    }

    /// The explanation of a finding by the way that is asked for.
    pub fn explained(&self, n: usize, finding: usize) -> Option<usize> {
        let assessment = self.assessments.get(n)?;
        let name = &assessment.findings.get(finding)?.name;
        let method = self.method_for(n);
        let ours = |e: &Explanation| e.finding == *name && Some(e.method) == method;
        assessment.explanations.iter().position(ours)
    }

    /// The first finding that nobody has reviewed, as (assessment, finding).
    pub fn next(&self) -> Option<(usize, usize)> {
        let open = |f: &Finding| f.review == ReviewState::NotReviewed;
        (self.assessments.iter().enumerate())
            .find_map(|(n, a)| a.findings.iter().position(open).map(|m| (n, m)))
    }

    /// A finding by its place.
    pub fn finding(&self, image: usize, finding: usize) -> Option<&Finding> {
        self.assessments.get(image)?.findings.get(finding)
    }

    /// Assessments with their places, by model (`id@version`).
    pub fn by_model(&self) -> Vec<(String, Vec<(usize, &Assessment)>)> {
        let mut groups: Vec<(String, Vec<(usize, &Assessment)>)> = Vec::new();
        for (n, a) in self.assessments.iter().enumerate() {
            let key = key(&a.provenance);
            match groups.iter_mut().find(|(known, _)| *known == key) {
                Some((_, some)) => some.push((n, a)),
                None => groups.push((key, vec![(n, a)])),
            }
        }
        groups
    }
}

fn key(made: &Provenance) -> String {
    format!("{}@{}", made.model_id, made.model_version)
}

/// What waits for the reviewer's name.
#[derive(Clone, Debug)]
pub(super) enum Waiting {
    /// A decision on a finding.
    Finding(Decision),
    /// One on the mask.
    Mask(ReviewState),
}

/// What a person decides on a finding.
#[derive(Clone, Debug)]
pub(super) struct Decision {
    /// Assessment and finding.
    at: (usize, usize),
    state: ReviewState,
    edit: Option<Edit>,
}

impl App {
    /// Shows what a classifier says, in place of what the same one said before and beside what
    /// others say of the same images.
    pub(super) fn show_findings(
        &mut self,
        volume: VolumeId,
        assessments: Vec<Assessment>,
        methods: Vec<ExplanationMethod>,
    ) {
        let before = self.findings.take().filter(|f| f.volume == volume);
        let mut shown = before.unwrap_or_else(|| ShownFindings {
            volume,
            assessments: Vec::new(),
            methods: Vec::new(),
            method: methods.first().copied(),
            methods_of: BTreeMap::new(),
            map: None,
            exported: false,
        });
        let new = assessments.first().map(|a| key(&a.provenance));
        let ours = |a: &Assessment| Some(key(&a.provenance)) == new;
        // The places of all others stay as they are: work that is going on names them.
        let place = shown.assessments.iter().position(ours);
        if place.is_some() || shown.assessments.is_empty() {
            // What was half said was about findings that are gone.
            self.drop_half_said();
        }
        if (shown.map).is_some_and(|(n, _)| shown.assessments.get(n).is_none_or(ours)) {
            shown.map = None;
        }
        shown.assessments.retain(|a| !ours(a));
        let place = place.unwrap_or(shown.assessments.len());
        shown.assessments.splice(place..place, assessments);
        if let Some(new) = new {
            shown.methods_of.insert(new, methods);
        }
        shown.methods.clear();
        for method in shown.methods_of.values().flatten() {
            if !shown.methods.contains(method) {
                shown.methods.push(*method);
            }
        }
        shown.exported = false;
        self.findings = Some(shown);
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
        let (Some(method), Some(assessment)) = (shown.method_for(n), shown.assessments.get(n))
        else {
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
        // Whoever has chosen another way meanwhile is not shown this one.
        let wanted = shown.method_for(n) == Some(map.method);
        if let Some(assessment) = shown.assessments.get_mut(n) {
            assessment.explanations.push(map);
            if wanted {
                shown.map = Some((n, assessment.explanations.len() - 1));
            }
            shown.exported = false;
        }
    }

    /// Says something of one finding; the same again takes it back.
    pub(super) fn review_finding(&mut self, image: usize, finding: usize, state: ReviewState) {
        let shown = self.findings.as_ref();
        let Some(known) = shown.and_then(|s| s.finding(image, finding)) else {
            return;
        };
        let state = if known.review == state {
            ReviewState::NotReviewed
        } else {
            state
        };
        self.decide(Decision {
            at: (image, finding),
            state,
            edit: None,
        });
    }

    /// Says something in the model's place.
    pub(super) fn edit_finding(&mut self, image: usize, finding: usize, edit: Edit) {
        if let Some(Dialog::EditFinding { .. }) = self.dialog {
            self.dialog = None;
        }
        self.decide(Decision {
            at: (image, finding),
            state: ReviewState::Edited,
            edit: Some(edit),
        });
    }

    /// Opens the next finding without a word for editing.
    pub(super) fn edit_next(&mut self) {
        if let Some((image, finding)) = self.findings.as_ref().and_then(ShownFindings::next) {
            self.dialog = Some(Dialog::EditFinding { image, finding });
        }
    }

    /// Says something of the next finding without a word; `false` when there is none.
    pub(super) fn review_next(&mut self, state: ReviewState) -> bool {
        let next = self.findings.as_ref().and_then(ShownFindings::next);
        if let Some((image, finding)) = next {
            self.review_finding(image, finding, state);
        }
        next.is_some()
    }

    /// Takes the reviewer's name, and the decision that has waited for it.
    pub(super) fn set_reviewer(&mut self, name: Sensitive<String>) {
        let name = Sensitive::new(name.expose().trim().chars().take(64).collect::<String>());
        self.settings.reviewer = Some(name);
        self.save_settings();
        if self.dialog == Some(Dialog::Reviewer) {
            self.dialog = None;
        }
        match self.waiting.take() {
            Some(Waiting::Finding(decision)) => self.decide(decision),
            Some(Waiting::Mask(state)) => self.review(state),
            None => {}
        }
    }

    /// Closes the dialog; a decision that has waited for a name is not made.
    pub(super) fn close_dialog(&mut self) {
        self.dialog = None;
        self.waiting = None;
        self.decline_leaving();
    }

    /// Closes what is asked about findings that are no longer on screen.
    pub(super) fn drop_half_said(&mut self) {
        let about_finding = matches!(self.dialog, Some(Dialog::EditFinding { .. }));
        if about_finding || self.waiting.is_some() {
            self.close_dialog();
        }
    }

    /// Puts a decision on its finding, with name and time; the first one asks for the name.
    fn decide(&mut self, decision: Decision) {
        let Some(by) = self.settings.reviewer.clone() else {
            self.waiting = Some(Waiting::Finding(decision));
            self.dialog = Some(Dialog::Reviewer);
            return;
        };
        let Decision { at, state, edit } = decision;
        let Some(shown) = &mut self.findings else {
            return;
        };
        let Some(assessment) = shown.assessments.get_mut(at.0) else {
            return;
        };
        let image = assessment.image;
        let Some(finding) = assessment.findings.get_mut(at.1) else {
            return;
        };
        let from = finding.review;
        // Files keep whole seconds.
        let at = self.now.trunc_subsecs(0);
        finding.decide(state, edit, Some(Review { by, at }));
        shown.exported = false;
        let made = &assessment.provenance;
        if !made.run.is_empty() {
            self.actions.push(Action::NoteReview(ReviewNote {
                run: made.run.clone(),
                model: made.model_id.clone(),
                version: made.model_version.clone(),
                finding: Some((finding.name.clone(), image)),
                from,
                to: state,
                model_call: finding.call,
                reader_call: finding.edit.as_ref().map(|e| e.call),
            }));
        }
    }
}
