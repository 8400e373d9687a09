//! Findings of whole images on screen, and what a person said of them.

use super::{App, VolumeId};
use crate::findings::{Assessment, Finding, ReviewState};

/// What a classifier says about the open images.
#[derive(Clone, Debug)]
pub struct ShownFindings {
    /// The volume whose images they are.
    pub volume: VolumeId,
    /// One for each image, in their order.
    pub assessments: Vec<Assessment>,
    /// Written to disk already.
    pub exported: bool,
}

impl ShownFindings {
    /// The first finding that nobody has reviewed, as (assessment, finding).
    pub fn next(&self) -> Option<(usize, usize)> {
        let open = |f: &Finding| f.review == ReviewState::NotReviewed;
        (self.assessments.iter().enumerate())
            .find_map(|(n, a)| a.findings.iter().position(open).map(|m| (n, m)))
    }
}

impl App {
    pub(super) fn show_findings(&mut self, volume: VolumeId, assessments: Vec<Assessment>) {
        self.findings = Some(ShownFindings {
            volume,
            assessments,
            exported: false,
        });
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
