//! What is done to the pixels of one file before its attributes are cleaned, and what remains.

use super::faces::Faces;
use super::look::{Look, look};
use super::paint::{Ink, Mask, fill};
use super::redaction::Redactions;
use super::risk::burned_in_risk;
use super::text::{FoundText, Region, SURE};
use crate::dicom::{Tree, TreeNode};

/// What a person wants done to pixels.
#[derive(Clone, Debug, Default)]
pub struct PixelWork {
    /// Regions to blacken.
    pub redactions: Redactions,
    /// Blacken what looks like text, too.
    pub redact_found: bool,
    /// Take faces out of CT and MR of heads.
    pub deface: bool,
    /// A person has looked at all images with their redactions and says that no text is left.
    pub reviewed: bool,
}

/// What was done to one file.
#[derive(Clone, Debug, Default)]
pub(super) struct PixelsDone {
    /// Frames that were looked at; none when there are no pixels, or they cannot be decoded.
    pub frames: usize,
    /// Whether pixels are there that could not be looked at.
    pub unseen: bool,
    /// What looked like text before anything was done.
    pub found: Vec<FoundText>,
    /// What was blackened.
    pub regions: Vec<Region>,
    /// Whether some of it was on the person's list.
    pub by_list: bool,
    /// Whether a face was taken out.
    pub defaced: bool,
    /// Why the pixels may still show text.
    pub risk: Option<&'static str>,
    /// Why a face may still be there, though it was to be taken out.
    pub face: Option<&'static str>,
}

impl PixelWork {
    /// Looks at the pixels, blackens regions, and says what remains.
    ///
    /// # Errors
    /// Regions that do not fit, pixels that cannot be changed.
    pub(super) fn carry_out(
        &self,
        tree: &mut Tree,
        path: &str,
        label: &str,
        faces: &Faces,
    ) -> Result<PixelsDone, &'static str> {
        if tree.pixel_tag().is_none() {
            return Ok(PixelsDone::default());
        }
        let by_class = burned_in_risk(tree);
        let (defaced, face) = match self.deface.then(|| faces.remove(tree)) {
            None => (false, None),
            Some(Ok(defaced)) => (defaced, None),
            Some(Err(reason)) => (false, Some(reason)),
        };
        let mut regions = self.redactions.regions(tree, path, label)?;
        let by_list = !regions.is_empty();
        let seen = look(tree).ok();
        let unseen = seen.is_none();
        let Look { found, frames } = seen.unwrap_or_default();
        if self.redact_found {
            regions.extend(found.iter().map(|text| text.region));
        }
        let mut left = found.clone();
        if !regions.is_empty() {
            let size = |tag| usize::from(tree.word_of(tag).unwrap_or(0));
            let (rows, columns) = (size(0x0028_0010), size(0x0028_0011));
            fill(
                tree,
                Mask::of_regions(&regions, columns, rows),
                Ink::Darkest,
            )?;
            left = look(tree)
                .map_err(|_| "redacted pixels cannot be decoded")?
                .found;
        }
        let said = self.reviewed && !regions.is_empty();
        if said {
            tree.put(TreeNode::new(0x0028_0301, *b"CS", "NO"));
        }
        if defaced && self.reviewed {
            tree.put(TreeNode::new(0x0028_0302, *b"CS", "NO"));
        }
        let risk = if by_class.is_some() && !by_list && !said {
            by_class
        } else if left.iter().any(|text| text.score >= SURE) {
            Some("lines of text were found in the pixels")
        } else {
            None
        };
        Ok(PixelsDone {
            frames,
            unseen,
            found,
            regions,
            by_list,
            defaced,
            risk,
            face,
        })
    }
}
