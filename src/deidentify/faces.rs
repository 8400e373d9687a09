//! Faces of whole folders: which series show a head, and what is taken out of their files.

use std::collections::{BTreeMap, BTreeSet};

use super::face::{Values, Zone, find_face};
use super::paint::{Ink, Mask, fill, justifies};
use super::slices::{FramePlace, Grid, Slice, rescale};
use crate::dicom::{Sources, Tree, TreeNode, TreeValue};
use crate::task::{Cancelled, Task};

const FRAME_OF_REFERENCE: u32 = 0x0020_0052;
const NOT_A_VOLUME: &str = "a head of which no volume of CT or MR can be made";

/// A stack of slices: series and direction.
type StackKey = (String, [i64; 3]);

/// The faces that were found.
#[derive(Debug, Default)]
pub(super) struct Faces {
    zones: BTreeMap<StackKey, Result<Zone, &'static str>>,
    /// Frames of reference in which a face was found: what else lies in them shows the same person's head,
    /// a localizer of three slices, too.
    frames_of_reference: BTreeSet<String>,
}

impl Faces {
    /// Reads all files once, and looks for a face in each stack that may show a head.
    ///
    /// # Errors
    /// The task was stopped.
    pub(super) fn find(sources: &Sources, task: &Task) -> Result<Self, Cancelled> {
        task.begin("Looking for faces", sources.found.len());
        let mut stacks: BTreeMap<StackKey, (Values, String, Vec<Slice>)> = BTreeMap::new();
        for source in &sources.found {
            task.check()?;
            task.advance(1);
            let Ok(tree) = sources.open(source) else {
                continue;
            };
            let Some(values) = may_show_a_head(&tree) else {
                continue;
            };
            let Ok(reader) = tree.frames() else { continue };
            let frame_of_reference = tree.text_of(FRAME_OF_REFERENCE);
            for n in 0..reader.count() {
                let key = FramePlace::of(&tree, n).map(|place| key_of(&tree, place));
                if let Some((key, slice)) = key.zip(Slice::read(&tree, &reader, n)) {
                    stacks
                        .entry(key)
                        .or_insert_with(|| (values, frame_of_reference.clone(), Vec::new()))
                        .2
                        .push(slice);
                }
            }
        }
        let mut faces = Self::default();
        for (key, (values, frame_of_reference, slices)) in stacks {
            let zone = Grid::of(&slices).and_then(|grid| find_face(&grid, values));
            if zone.is_ok() && !frame_of_reference.is_empty() {
                faces.frames_of_reference.insert(frame_of_reference);
            }
            faces.zones.insert(key, zone);
        }
        Ok(faces)
    }

    /// Takes the face out of a file. `true` when there was one, `false` when it shows no head.
    ///
    /// # Errors
    /// It says that it shows a head, and its face cannot be found or taken out.
    pub(super) fn remove(&self, tree: &mut Tree) -> Result<bool, &'static str> {
        let says_head = is_head(tree) || self.lies_beside_a_face(tree);
        let Some(values) = may_show_a_head(tree) else {
            return if says_head {
                Err(NOT_A_VOLUME)
            } else {
                Ok(false)
            };
        };
        let reader = tree.frames().map_err(|_| NOT_A_VOLUME)?;
        let zones: Vec<_> = (0..reader.count())
            .map(|n| {
                let place = FramePlace::of(tree, n).ok_or(NOT_A_VOLUME)?;
                match self.zones.get(&key_of(tree, place)) {
                    Some(Ok(zone)) => Ok((place, zone)),
                    Some(Err(reason)) => Err(*reason),
                    None => Err(NOT_A_VOLUME),
                }
            })
            .collect();
        if !says_head && zones.iter().all(Result::is_err) {
            return Ok(false);
        }
        // A face in some of the frames is a face in the file.
        let zones: Vec<_> = zones.into_iter().collect::<Result<_, _>>()?;
        let (columns, rows) = (reader.format().columns, reader.format().rows);
        if !justifies(tree, (rows * columns).saturating_mul(zones.len()) as u64) {
            return Err(NOT_A_VOLUME);
        }
        let masks: Vec<Vec<bool>> = (zones.iter())
            .map(|(place, zone)| {
                let at = |p: usize| place.at((p % columns) as f64, (p / columns) as f64);
                (0..rows * columns).map(|p| zone.contains(at(p))).collect()
            })
            .collect();
        let ink = match values {
            Values::Signal => Ink::Value(0.0),
            Values::Hounsfield => air(tree, reader.count()),
        };
        fill(tree, Mask::Each(masks), ink)?;
        Ok(true)
    }

    /// An image that does not say what it shows, in the space of a head.
    fn lies_beside_a_face(&self, tree: &Tree) -> bool {
        (self.frames_of_reference).contains(&tree.text_of(FRAME_OF_REFERENCE))
            && matches!(&*tree.text_of(0x0008_0060), "CT" | "MR" | "PT")
            && part_of(tree).is_empty()
    }
}

fn key_of(tree: &Tree, place: FramePlace) -> StackKey {
    (tree.text_of(0x0020_000E), place.direction())
}

/// −1000 HU, or the darkest value where the frames of a file have different scales.
fn air(tree: &Tree, frames: usize) -> Ink {
    let first = rescale(tree, 0);
    if (1..frames).any(|n| rescale(tree, n) != first) {
        return Ink::Darkest;
    }
    let (slope, intercept) = first;
    Ink::Value((-1000.0 - intercept) / slope)
}

/// CT or MR images that do not say that they show another part of the body.
fn may_show_a_head(tree: &Tree) -> Option<Values> {
    let class = tree.text_of(0x0008_0016);
    let values = match class.strip_prefix("1.2.840.10008.5.1.4.1.1.")? {
        "2" | "2.1" | "2.2" => Values::Hounsfield,
        "4" | "4.1" | "4.4" => Values::Signal,
        _ => return None,
    };
    (part_of(tree).is_empty() || is_head(tree)).then_some(values)
}

/// CT, MR and PET of the head, by what the file says of itself.
pub(super) fn is_head(tree: &Tree) -> bool {
    let said = format!(
        "{} {} {}",
        part_of(tree),
        tree.text_of(0x0008_103E),
        tree.text_of(0x0008_1030)
    )
    .to_uppercase();
    matches!(&*tree.text_of(0x0008_0060), "CT" | "MR" | "PT")
        && ["HEAD", "BRAIN", "SKULL", "FACE", "SINUS", "ORBIT", "NEURO"]
            .iter()
            .any(|word| said.contains(word))
}

/// Body Part Examined and the names of anatomic regions, which enhanced images have for each frame or for
/// all of them (PS3.3 C.7.6.16.2.8).
fn part_of(tree: &Tree) -> String {
    const ANATOMIC_REGION: u32 = 0x0008_2218;
    const CODE_MEANING: u32 = 0x0008_0104;
    fn named(tree: &Tree, nodes: &[TreeNode], in_region: bool, said: &mut Vec<String>) {
        for node in nodes {
            match &node.value {
                TreeValue::Items(items) => {
                    let region = node.tag == ANATOMIC_REGION;
                    let group = matches!(node.tag, 0x5200_9229 | 0x5200_9230 | 0x0020_9071);
                    for item in items.iter().filter(|_| region || group) {
                        named(tree, item, region, said);
                    }
                }
                _ if in_region && node.tag == CODE_MEANING => said.push(tree.text(node)),
                _ => {}
            }
        }
    }
    let mut said = vec![tree.text_of(0x0018_0015)];
    named(tree, &tree.root, false, &mut said);
    said.dedup();
    said.join(" ").trim().to_owned()
}
