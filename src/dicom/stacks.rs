//! Images of a series → stacks: split by what differs, order by position, doubts in numbers.
//!
//! File names and instance numbers never decide the order of images that have positions.

use std::collections::BTreeMap;

use super::header::{ImageInfo, Orientation, PixelSpacing};
use super::pixels::PixelFormat;
use super::spacing::{SAME_POSITION_MM, Spacing};
use crate::geometry::DVec3;
use crate::study::{Instance, Issue, Stack, Uid};

/// Orientations within half a degree are one orientation.
const SAME_DIRECTION_COS: f64 = 0.999_96;

/// An image of a series before sorting.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub instance: Instance,
    pub info: ImageInfo,
    pub format: PixelFormat,
    pub frame_of_reference: Option<Uid>,
    pub localizer: bool,
    pub lossy: Option<String>,
    pub synthetic: bool,
}

impl Candidate {
    /// Orientation, position and spacing: what a volume needs.
    fn place(&self) -> Option<(Orientation, DVec3)> {
        self.info.spacing[0]?;
        Some((self.info.orientation?, self.info.position?))
    }
}

/// What always separates images.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    localizer: bool,
    rows: usize,
    columns: usize,
    samples: usize,
    bits_allocated: u16,
    float: bool,
    photometric: super::pixels::Photometric,
    /// Among the spacings of the series: a millimeter must be one for all images of a stack.
    spacing: usize,
    orientation: Option<usize>,
    /// Among the frames of reference: positions of two of them cannot be compared.
    frame_of_reference: usize,
    /// Clips and other multi-frame images without positions stay by themselves.
    clip: Option<String>,
}

/// Sorts the images of one series. The second value: doubts about the series as a whole.
pub(super) fn sort(candidates: Vec<Candidate>) -> (Vec<Stack>, Vec<Issue>) {
    let mut orientations: Vec<Orientation> = Vec::new();
    let mut spacings: Vec<[Option<PixelSpacing>; 2]> = Vec::new();
    let mut frames_of_reference: Vec<Uid> = Vec::new();
    let mut kinds: BTreeMap<Kind, Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        let orientation = candidate.place().map(|(orientation, _)| {
            let same = |o: &Orientation| {
                o.row.dot(orientation.row) > SAME_DIRECTION_COS
                    && o.column.dot(orientation.column) > SAME_DIRECTION_COS
            };
            place_of(&mut orientations, orientation, same)
        });
        let own = candidate.info.spacing;
        let spacing = place_of(&mut spacings, own, |known| {
            known.iter().zip(&own).all(|(a, b)| match (a, b) {
                (Some(a), Some(b)) => a.is_about(b),
                (a, b) => a == b,
            })
        });
        // Images that name none are taken to lie in the first.
        let frame_of_reference = candidate.frame_of_reference.clone().map_or(0, |own| {
            place_of(&mut frames_of_reference, own.clone(), |known| *known == own)
        });
        let format = candidate.format;
        let instance = &candidate.instance;
        let kind = Kind {
            localizer: candidate.localizer,
            rows: format.rows,
            columns: format.columns,
            samples: format.samples,
            bits_allocated: format.bits_allocated,
            float: format.float,
            photometric: format.photometric,
            spacing,
            orientation,
            frame_of_reference,
            clip: (orientation.is_none() && instance.frame_count > 1)
                .then(|| instance.sop_instance_uid.to_string()),
        };
        kinds.entry(kind).or_default().push(candidate);
    }
    let mut issues = mixed_formats(&kinds);
    let several_orientations = orientations.len() > 1;
    let mut stacks = Vec::new();
    for (kind, group) in kinds {
        let mut label = Vec::new();
        if kind.localizer {
            label.push("localizer".to_owned());
        }
        if several_orientations && let Some(n) = kind.orientation {
            label.push(orientation_name(&orientations[n], n));
        }
        if spacings.len() > 1
            && let Some(own) = spacings[kind.spacing].into_iter().flatten().next()
        {
            label.push(format!("{:.2} mm pixels", own.between_columns_mm));
        }
        if frames_of_reference.len() > 1 {
            label.push(format!(
                "frame of reference {}",
                kind.frame_of_reference + 1
            ));
        }
        let labels = label.join(", ");
        match kind.orientation {
            Some(n) => {
                let normal = orientations[n].normal();
                if one_place(&group) {
                    stacks.push(run(labels, group));
                    continue;
                }
                for (extra, part, duplicates) in split(group, normal) {
                    let label = match (labels.is_empty(), extra.is_empty()) {
                        (true, _) => extra,
                        (false, true) => labels.clone(),
                        (false, false) => format!("{labels}, {extra}"),
                    };
                    stacks.extend(placed(&label, part, normal, duplicates));
                }
            }
            None => stacks.push(unplaced(labels, group)),
        }
    }
    // The largest first: it is what people came for; localizers last.
    stacks.sort_by_key(|stack| {
        let localizer = stack.issues.contains(&Issue::Localizer);
        (localizer, usize::MAX - stack.images.len())
    });
    let formats: std::collections::BTreeSet<(usize, usize)> =
        stacks.iter().map(|s| (s.rows, s.columns)).collect();
    if formats.len() > 1 {
        for stack in &mut stacks {
            let size = format!("{}×{}", stack.columns, stack.rows);
            stack.label = if stack.label.is_empty() {
                size
            } else {
                format!("{}, {size}", stack.label)
            };
        }
    }
    make_distinct(&mut stacks);
    issues.dedup();
    (stacks, issues)
}

/// Index of the first that is the same, or of the new one at the end.
fn place_of<T>(known: &mut Vec<T>, new: T, same: impl Fn(&T) -> bool) -> usize {
    known.iter().position(same).unwrap_or_else(|| {
        known.push(new);
        known.len() - 1
    })
}

/// Numbers labels that occur more than once, so that people can tell stacks apart.
fn make_distinct(stacks: &mut [Stack]) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for stack in &*stacks {
        *counts.entry(stack.label.clone()).or_default() += 1;
    }
    let mut taken: std::collections::BTreeSet<String> = counts
        .iter()
        .filter(|(_, count)| **count == 1)
        .map(|(label, _)| label.clone())
        .collect();
    let mut last: BTreeMap<String, usize> = BTreeMap::new();
    for stack in stacks {
        if counts[&stack.label] == 1 {
            continue;
        }
        let number = last.entry(stack.label.clone()).or_default();
        let base = if stack.label.is_empty() {
            "stack"
        } else {
            &stack.label
        };
        let mut label = String::new();
        while label.is_empty() || taken.contains(&label) {
            *number += 1;
            label = format!("{base} {number}");
        }
        taken.insert(label.clone());
        stack.label = label;
    }
}

/// Several images, all at one place: a run over time, not a volume.
fn one_place(group: &[Candidate]) -> bool {
    let first = group[0].info.position;
    group.len() > 1
        && group.iter().all(|c| {
            matches!((c.info.position, first), (Some(a), Some(b)) if a.distance(b) < SAME_POSITION_MM)
        })
}

fn run(label: String, mut images: Vec<Candidate>) -> Stack {
    images.sort_by_key(|c| {
        (
            c.instance.number,
            c.instance.frame,
            c.instance.sop_instance_uid.clone(),
        )
    });
    let mut issues = common_issues(&images);
    issues.push(Issue::Other {
        code: "one-place",
        message: format!(
            "all {} images lie at one place: they are shown one after the other, not as a volume",
            images.len()
        ),
    });
    Stack {
        label,
        columns: images[0].format.columns,
        rows: images[0].format.rows,
        is_volume: false,
        images: images.into_iter().map(|c| c.instance).collect(),
        issues,
    }
}

/// Images apart from the most common size or pixel format of the series.
fn mixed_formats(kinds: &BTreeMap<Kind, Vec<Candidate>>) -> Vec<Issue> {
    let mut counts: BTreeMap<Kind, usize> = BTreeMap::new();
    for (kind, group) in kinds.iter().filter(|(kind, _)| !kind.localizer) {
        let format = Kind {
            orientation: None,
            frame_of_reference: 0,
            clip: None,
            ..kind.clone()
        };
        *counts.entry(format).or_default() += group.len();
    }
    let total: usize = counts.values().sum();
    let most = counts.values().max().copied().unwrap_or(0);
    if total > most {
        vec![Issue::MixedFormat {
            count: total - most,
        }]
    } else {
        Vec::new()
    }
}

fn orientation_name(orientation: &Orientation, n: usize) -> String {
    let a = orientation.normal().abs();
    let largest = a.max_element();
    let name = if largest < 0.9 {
        "oblique"
    } else if a.z == largest {
        "axial"
    } else if a.y == largest {
        "coronal"
    } else {
        "sagittal"
    };
    if largest < 0.9 {
        format!("{name} {}", n + 1)
    } else {
        name.to_owned()
    }
}

/// How often the most crowded position is taken.
fn crowding(group: &[Candidate], normal: DVec3) -> usize {
    positions(group, normal)
        .iter()
        .map(Vec::len)
        .max()
        .unwrap_or(0)
}

/// Indices of images by position, in order along the normal.
fn positions(group: &[Candidate], normal: DVec3) -> Vec<Vec<usize>> {
    let mut along: Vec<(f64, usize)> = group
        .iter()
        .enumerate()
        .map(|(n, c)| (c.info.position.unwrap_or_default().dot(normal), n))
        .collect();
    along.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut bins: Vec<Vec<usize>> = Vec::new();
    let mut last = f64::NEG_INFINITY;
    for (position, n) in along {
        match bins.last_mut() {
            Some(bin) if position - last < SAME_POSITION_MM => bin.push(n),
            _ => {
                bins.push(vec![n]);
                last = position;
            }
        }
    }
    bins
}

/// Splits images that share positions by the attributes that set them apart.
/// Each part: its label, its images in order, and how many duplicates were left out.
fn split(mut group: Vec<Candidate>, normal: DVec3) -> Vec<(String, Vec<Candidate>, usize)> {
    let crowd = crowding(&group, normal);
    if crowd > 1 {
        name_offsets(&mut group, normal);
        let mut names: Vec<&str> = Vec::new();
        for candidate in &group {
            for (name, _) in &candidate.info.keys {
                if !names.contains(&name.as_str()) {
                    names.push(name);
                }
            }
        }
        let parts_by = |name: &str| {
            let mut parts: BTreeMap<SortableText, Vec<usize>> = BTreeMap::new();
            for (n, candidate) in group.iter().enumerate() {
                let value = candidate.info.keys.iter().find(|(k, _)| k == name);
                let value = SortableText::new(value.map_or("", |(_, v)| v));
                parts.entry(value).or_default().push(n);
            }
            parts
        };
        let crowd_of = |part: &[usize]| {
            let images: Vec<Candidate> = part.iter().map(|&n| group[n].clone()).collect();
            crowding(&images, normal)
        };
        // No more parts than images at the most crowded position: so attributes that change from
        // slice to slice never tear a stack apart. An attribute that settles everything wins.
        let useful: Vec<_> = names
            .iter()
            .map(|name| (*name, parts_by(name)))
            .filter(|(_, parts)| parts.len() > 1 && parts.len() <= crowd)
            .map(|(name, parts)| {
                let worst = parts.values().map(|p| crowd_of(p)).max().unwrap_or(crowd);
                (name.to_owned(), parts, worst)
            })
            .filter(|(_, _, worst)| *worst < crowd)
            .collect();
        let best = useful
            .iter()
            .find(|(_, _, worst)| *worst == 1)
            .or_else(|| useful.first());
        if let Some((name, parts, _)) = best {
            let mut out = Vec::new();
            for (value, part) in parts {
                let images = part.iter().map(|&n| group[n].clone()).collect();
                for (rest, images, duplicates) in split(images, normal) {
                    let own = format!("{name} {}", value.text);
                    let label = if rest.is_empty() {
                        own
                    } else {
                        format!("{own}, {rest}")
                    };
                    out.push((label, images, duplicates));
                }
            }
            return out;
        }
    }
    let mut bins = positions(&group, normal);
    for bin in &mut bins {
        bin.sort_by_key(|&n| {
            let instance = &group[n].instance;
            (
                instance.number,
                instance.frame,
                instance.sop_instance_uid.clone(),
            )
        });
    }
    // Every position taken equally often, without a word why: passes in order of acquisition.
    if crowd > 1 && bins.len() > 1 && bins.iter().all(|bin| bin.len() == crowd) {
        return (0..crowd)
            .map(|pass| {
                let images = bins.iter().map(|bin| group[bin[pass]].clone()).collect();
                (format!("pass {}", pass + 1), images, 0)
            })
            .collect();
    }
    let duplicates = group.len() - bins.len();
    let images = bins.iter().map(|bin| group[bin[0]].clone()).collect();
    vec![(String::new(), images, duplicates)]
}

/// Images side by side in one plane (two knees, two breasts) are never one stack: their way across
/// the normal, in whole millimeters, comes before all other attributes.
fn name_offsets(group: &mut [Candidate], normal: DVec3) {
    const OFFSET: &str = "offset";
    for candidate in group {
        let keys = &mut candidate.info.keys;
        if keys.first().is_some_and(|(name, _)| name == OFFSET) {
            continue;
        }
        let position = candidate.info.position.unwrap_or_default();
        let [x, y, z] = position.reject_from(normal).round().to_array();
        keys.insert(0, (OFFSET.to_owned(), format!("{x:.0} {y:.0} {z:.0} mm")));
    }
}

/// Text that sorts by number where it is one.
#[derive(Clone, Debug, PartialEq)]
struct SortableText {
    number: f64,
    text: String,
}

impl SortableText {
    fn new(text: &str) -> Self {
        Self {
            number: text.parse().unwrap_or(f64::INFINITY),
            text: text.chars().filter(|c| !c.is_control()).take(64).collect(),
        }
    }
}

impl Eq for SortableText {}

impl Ord for SortableText {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.number
            .total_cmp(&other.number)
            .then_with(|| self.text.cmp(&other.text))
    }
}

impl PartialOrd for SortableText {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Images with positions, already in order along the normal: one stack, or several where gaps are
/// wider than the images justify to fill.
fn placed(label: &str, images: Vec<Candidate>, normal: DVec3, duplicates: usize) -> Vec<Stack> {
    let mut parts = cut(images, normal);
    let count = parts.len();
    let mut stacks = Vec::with_capacity(count);
    for (n, (images, spacing)) in parts.drain(..).enumerate() {
        let mut issues = common_issues(&images);
        if n == 0 && duplicates > 0 {
            issues.push(Issue::DuplicateSlices { count: duplicates });
        }
        if images.len() == 1 {
            issues.push(Issue::SingleSlice);
        }
        issues.extend(spacing);
        if count > 1 {
            issues.push(Issue::Other {
                code: "stack-cut",
                message: format!(
                    "part {} of {count}: the images leave a gap too wide to be missing slices",
                    n + 1
                ),
            });
        }
        let part = format!("part {}", n + 1);
        stacks.push(Stack {
            label: match (count, label.is_empty()) {
                (1, _) => label.to_owned(),
                (_, true) => part,
                (_, false) => format!("{label}, {part}"),
            },
            columns: images[0].format.columns,
            rows: images[0].format.rows,
            is_volume: images.len() > 1,
            images: images.into_iter().map(|c| c.instance).collect(),
            issues,
        });
    }
    stacks
}

/// Cuts where more slices would be missing than there are; each part with its doubts about
/// spacing, in order.
fn cut(images: Vec<Candidate>, normal: DVec3) -> Vec<(Vec<Candidate>, Vec<Issue>)> {
    let mut done = Vec::new();
    let mut open = vec![images];
    while let Some(mut images) = open.pop() {
        let positions: Vec<DVec3> = images.iter().filter_map(|c| c.info.position).collect();
        let spacing = Spacing::of(&positions, normal);
        match spacing.cut {
            Some(before) => {
                let rest = images.split_off(before + 1);
                open.push(rest);
                open.push(images);
            }
            None => done.push((images, spacing.issues)),
        }
    }
    done
}

/// Images without positions, in order of acquisition.
fn unplaced(label: String, mut images: Vec<Candidate>) -> Stack {
    images.sort_by_key(|c| {
        (
            c.instance.number,
            c.instance.sop_instance_uid.clone(),
            c.instance.frame,
        )
    });
    let mut issues = common_issues(&images);
    issues.push(Issue::NoGeometry);
    Stack {
        label,
        columns: images[0].format.columns,
        rows: images[0].format.rows,
        is_volume: false,
        images: images
            .into_iter()
            .map(|mut c| {
                // A position without orientation or spacing places nothing.
                c.instance.position_lps = None;
                c.instance
            })
            .collect(),
        issues,
    }
}

fn common_issues(images: &[Candidate]) -> Vec<Issue> {
    let mut issues = Vec::new();
    if images.iter().any(|c| c.synthetic) {
        issues.push(Issue::Synthetic);
    }
    if images.iter().any(|c| c.localizer) {
        issues.push(Issue::Localizer);
    }
    if let Some(method) = images.iter().find_map(|c| c.lossy.clone()) {
        issues.push(Issue::LossyCompression { method });
    }
    issues
}
