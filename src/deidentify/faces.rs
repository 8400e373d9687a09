//! Faces of whole folders: which series show a head, and what is taken out of their files.

use std::collections::BTreeMap;

use super::face::{Values, Zone, find_face};
use super::paint::{Ink, Mask, fill};
use super::slices::{FramePlace, Grid, Slice, rescale};
use crate::dicom::{Sources, Tree};
use crate::task::{Cancelled, Task};

const NOT_A_VOLUME: &str = "a head of which no volume of CT or MR can be made";

/// A stack of slices: series and direction.
type StackKey = (String, [i64; 3]);

/// The faces that were found, by stack.
#[derive(Debug, Default)]
pub(super) struct Faces(BTreeMap<StackKey, Result<Zone, &'static str>>);

impl Faces {
    /// Reads all files once, and looks for a face in each stack that may show a head.
    ///
    /// # Errors
    /// The task was stopped.
    pub(super) fn find(sources: &Sources, task: &Task) -> Result<Self, Cancelled> {
        task.begin("Looking for faces", sources.found.len());
        let mut stacks: BTreeMap<StackKey, (Values, Vec<Slice>)> = BTreeMap::new();
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
            for n in 0..reader.count() {
                let key = FramePlace::of(&tree, n).map(|place| key_of(&tree, place));
                if let Some((key, slice)) = key.zip(Slice::read(&tree, &reader, n)) {
                    stacks
                        .entry(key)
                        .or_insert((values, Vec::new()))
                        .1
                        .push(slice);
                }
            }
        }
        let found = stacks.into_iter().map(|(key, (values, slices))| {
            let zone = Grid::of(&slices).and_then(|grid| find_face(&grid, values));
            (key, zone)
        });
        Ok(Self(found.collect()))
    }

    /// Takes the face out of a file. `true` when there was one, `false` when it shows no head.
    ///
    /// # Errors
    /// It says that it shows a head, and its face cannot be found or taken out.
    pub(super) fn remove(&self, tree: &mut Tree) -> Result<bool, &'static str> {
        let says_head = is_head(tree);
        let Some(values) = may_show_a_head(tree) else {
            return if says_head {
                Err(NOT_A_VOLUME)
            } else {
                Ok(false)
            };
        };
        let reader = tree.frames().map_err(|_| NOT_A_VOLUME)?;
        let (columns, rows) = (reader.format().columns, reader.format().rows);
        let mut masks = Vec::new();
        for n in 0..reader.count() {
            let place = FramePlace::of(tree, n).ok_or(NOT_A_VOLUME);
            let zone = place.and_then(|place| match self.0.get(&key_of(tree, place)) {
                Some(Ok(zone)) => Ok((place, zone)),
                Some(Err(reason)) => Err(*reason),
                None => Err(NOT_A_VOLUME),
            });
            let (place, zone) = match zone {
                Ok(found) => found,
                Err(reason) if says_head => return Err(reason),
                Err(_) => return Ok(false),
            };
            let mask = (0..rows * columns)
                .map(|p| zone.contains(place.at((p % columns) as f64, (p / columns) as f64)));
            masks.push(mask.collect());
        }
        let ink = match values {
            Values::Signal => 0.0,
            Values::Hounsfield => {
                let (slope, intercept) = rescale(tree, 0);
                (-1000.0 - intercept) / slope
            }
        };
        fill(tree, Mask::Each(masks), Ink::Value(ink))?;
        Ok(true)
    }
}

fn key_of(tree: &Tree, place: FramePlace) -> StackKey {
    (tree.text_of(0x0020_000E), place.direction())
}

/// CT or MR images that do not say that they show another part of the body.
fn may_show_a_head(tree: &Tree) -> Option<Values> {
    let class = tree.text_of(0x0008_0016);
    let values = match class.strip_prefix("1.2.840.10008.5.1.4.1.1.")? {
        "2" | "2.1" | "2.2" => Values::Hounsfield,
        "4" | "4.1" | "4.4" => Values::Signal,
        _ => return None,
    };
    (tree.text_of(0x0018_0015).is_empty() || is_head(tree)).then_some(values)
}

/// CT, MR and PET of the head, by what the file says of itself.
pub(super) fn is_head(tree: &Tree) -> bool {
    let said = format!(
        "{} {} {}",
        tree.text_of(0x0018_0015),
        tree.text_of(0x0008_103E),
        tree.text_of(0x0008_1030)
    )
    .to_uppercase();
    matches!(&*tree.text_of(0x0008_0060), "CT" | "MR" | "PT")
        && ["HEAD", "BRAIN", "SKULL", "FACE", "SINUS", "ORBIT", "NEURO"]
            .iter()
            .any(|word| said.contains(word))
}
