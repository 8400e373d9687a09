//! Results on screen: segmentation, its numbers, visibility, and what a person said of it.

use std::sync::Arc;

use super::{JobId, VolumeId};
use crate::findings::{Review, ReviewState, Segmentation};
use crate::volume::LabelStatistics;

/// How the segmentation is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Overlay {
    /// The whole group.
    pub visible: bool,
    /// By label number.
    pub hidden: Vec<bool>,
}

impl Default for Overlay {
    fn default() -> Self {
        Self {
            visible: true,
            hidden: vec![false; 256],
        }
    }
}

/// A segmentation of the open volume.
#[derive(Clone, Debug)]
pub struct Results {
    /// The volume it belongs to.
    pub volume: VolumeId,
    /// Key of its texture.
    pub revision: u64,
    /// Labels and record.
    pub segmentation: Arc<Segmentation>,
    /// Numbers, by label.
    pub statistics: Vec<LabelStatistics>,
    /// Drawing.
    pub overlay: Overlay,
    /// Said by the person at this machine.
    pub review: ReviewState,
    /// Who said it, and when.
    pub reviewed: Option<Review>,
    /// Written to disk already.
    pub exported: bool,
    /// Still being computed: the run and how far it is. Neither kept nor reviewed.
    pub provisional: Option<(JobId, String)>,
}

impl Results {
    /// The numbers of a label.
    pub fn of(&self, label: u8) -> Option<&LabelStatistics> {
        self.statistics.iter().find(|s| s.label == label)
    }

    /// The mark that stays on the group.
    pub const fn badge(&self) -> &'static str {
        if self.provisional.is_some() {
            return "AI – provisional";
        }
        match self.review {
            ReviewState::NotReviewed => "AI – not reviewed",
            ReviewState::Accepted => "AI – accepted",
            ReviewState::Edited => "AI – edited by reader",
            ReviewState::Rejected => "AI – rejected",
        }
    }
}
