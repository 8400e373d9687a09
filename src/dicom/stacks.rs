//! Images of a series → stacks in the order of their positions.

use std::collections::BTreeMap;

use super::header::{FrameHeader, ImageHeader, PixelFormat};
use super::index::Found;
use crate::geometry::DVec3;
use crate::study::{FileSource, Instance, Issue, Stack};

/// Positions closer than this are one.
const SAME_POSITION_MM: f64 = 0.01;
/// Cosines of one orientation differ by less (rounding in the files).
const SAME_ORIENTATION: f64 = 2e-3;
/// Modalities whose positioned slices form volumes.
const VOLUMETRIC: [&str; 6] = ["CT", "MR", "PT", "NM", "RTDOSE", "OT"];

/// One frame of one file.
#[derive(Clone)]
struct Image<'a> {
    source: &'a FileSource,
    file: &'a ImageHeader,
    index: usize,
}

impl Image<'_> {
    fn frame(&self) -> &FrameHeader {
        &self.file.frames[self.index]
    }

    fn instance(&self) -> Instance {
        Instance {
            source: self.source.clone(),
            sop_class_uid: self.file.sop_class_uid.clone(),
            sop_instance_uid: self.file.sop_instance_uid.clone(),
            frame: self.index as u32,
            frame_count: self.file.frames.len() as u32,
            number: self.file.number,
            position_lps: self.frame().position,
        }
    }

    fn is_localizer(&self) -> bool {
        self.file.image_type.iter().any(|t| t == "LOCALIZER")
    }
}

/// Stacks of a series and the doubts about the series as a whole.
pub fn split(files: &[Found]) -> (Vec<Stack>, Vec<Issue>) {
    let images: Vec<Image> = files
        .iter()
        .filter_map(|found| Some((&found.source, found.image.as_ref()?)))
        .flat_map(|(source, file)| {
            (0..file.frames.len()).map(move |index| Image {
                source,
                file,
                index,
            })
        })
        .collect();
    let mut groups: Vec<Vec<Image>> = Vec::new();
    for image in images {
        match groups
            .iter_mut()
            .find(|group| belong_together(&group[0], &image))
        {
            Some(group) => group.push(image),
            None => groups.push(vec![image]),
        }
    }
    let mut issues = Vec::new();
    // The largest group is the series; others of another size or format are named.
    let largest = groups.iter().map(Vec::len).max().unwrap_or(0);
    let main = groups
        .iter()
        .find(|g| g.len() == largest)
        .map(|g| format_key(&g[0].file.format));
    let odd: usize = groups
        .iter()
        .filter(|g| Some(format_key(&g[0].file.format)) != main)
        .map(Vec::len)
        .sum();
    if odd > 0 {
        issues.push(Issue::MixedFormat { count: odd });
    }
    let several = groups.len() > 1;
    let mut stacks: Vec<Stack> = Vec::new();
    for group in groups {
        let label = if several {
            group_label(&group[0])
        } else {
            String::new()
        };
        stacks.extend(stacks_of(group, &label));
    }
    (stacks, issues)
}

type FormatKey = (usize, usize, usize, usize, bool, bool);

fn format_key(f: &PixelFormat) -> FormatKey {
    (
        f.rows,
        f.columns,
        f.samples,
        f.bits_allocated,
        f.signed,
        f.photometric == "MONOCHROME1",
    )
}

fn belong_together(a: &Image, b: &Image) -> bool {
    let same_orientation = match (a.frame().orientation, b.frame().orientation) {
        (Some(a), Some(b)) => a
            .iter()
            .zip(b)
            .all(|(a, b)| a.distance(b) < SAME_ORIENTATION),
        (None, None) => true,
        _ => false,
    };
    let same_spacing = match (a.frame().spacing, b.frame().spacing) {
        (Some(a), Some(b)) => a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3 * a.abs()),
        (None, None) => true,
        _ => false,
    };
    format_key(&a.file.format) == format_key(&b.file.format)
        && same_orientation
        && same_spacing
        && a.is_localizer() == b.is_localizer()
        && a.frame().position.is_some() == b.frame().position.is_some()
}

fn group_label(image: &Image) -> String {
    let f = &image.file.format;
    let size = format!("{} × {}", f.columns, f.rows);
    match image.frame().orientation {
        Some([row, column]) => {
            let n = row.cross(column).abs();
            let plane = if n.z >= n.x && n.z >= n.y {
                "axial"
            } else if n.y >= n.x {
                "coronal"
            } else {
                "sagittal"
            };
            format!("{plane}, {size}")
        }
        None => size,
    }
}

fn stacks_of(group: Vec<Image>, label: &str) -> Vec<Stack> {
    let first = group[0].file;
    let placed = group[0].frame().orientation.is_some()
        && group[0].frame().position.is_some()
        && group[0].frame().spacing.is_some();
    let modality = VOLUMETRIC.contains(&first.modality.as_str()) || first.modality.is_empty();
    if !placed || !modality || first.format.is_color() {
        return vec![plain(group, label)];
    }
    let mut parts = vec![(String::new(), group)];
    // Attributes in the order of how surely they set stacks apart; each is used only where
    // positions repeat and it makes them repeat less.
    for name in [
        "stack",
        "echo",
        "phase",
        "b-value",
        "direction",
        "inversion",
        "acquisition",
        "kernel",
        "type",
        "trigger",
    ] {
        parts = parts
            .into_iter()
            .flat_map(|(label, part)| split_by(name, label, part))
            .collect();
    }
    let several = parts.len() > 1;
    parts
        .into_iter()
        .map(|(part_label, part)| {
            let labels: Vec<&str> = [label, if several { &part_label } else { "" }]
                .into_iter()
                .filter(|l| !l.is_empty())
                .collect();
            volume(part, &labels.join(", "))
        })
        .collect()
}

fn split_by<'a>(name: &str, label: String, part: Vec<Image<'a>>) -> Vec<(String, Vec<Image<'a>>)> {
    let before = repeated(&part);
    if before == 0 {
        return vec![(label, part)];
    }
    let value = |image: &Image| {
        let found = image.frame().splits.iter().find(|(n, _)| *n == name);
        found.map(|(_, v)| v.clone()).unwrap_or_default()
    };
    let mut by_value: BTreeMap<(i64, String), Vec<Image>> = BTreeMap::new();
    for image in &part {
        let value = value(image);
        // Numbers in numeric order.
        let order = value
            .parse::<f64>()
            .map_or(i64::MAX, |x| (x * 1000.0) as i64);
        by_value
            .entry((order, value))
            .or_default()
            .push(image.clone());
    }
    let after: usize = by_value.values().map(|p| repeated(p)).sum();
    if by_value.len() < 2 || after >= before {
        return vec![(label, part)];
    }
    by_value
        .into_iter()
        .map(|((_, value), part)| {
            let own = if name == "type" {
                value.to_lowercase().replace('\\', " ")
            } else {
                format!("{name} {value}")
            };
            let label = if label.is_empty() {
                own
            } else {
                format!("{label}, {own}")
            };
            (label, part)
        })
        .collect()
}

fn normal(image: &Image) -> DVec3 {
    image
        .frame()
        .orientation
        .map_or(DVec3::Z, |[row, column]| row.cross(column).normalize())
}

fn sorted<'a>(part: &[Image<'a>]) -> Vec<(f64, Image<'a>)> {
    let n = normal(&part[0]);
    let mut images: Vec<(f64, Image)> = part
        .iter()
        .map(|image| {
            (
                image.frame().position.map_or(0.0, |p| p.dot(n)),
                image.clone(),
            )
        })
        .collect();
    images.sort_by(|a, b| {
        let number = |i: &Image| (i.file.number, i.index);
        a.0.total_cmp(&b.0)
            .then_with(|| number(&a.1).cmp(&number(&b.1)))
    });
    images
}

/// Images whose position is another's.
fn repeated(part: &[Image]) -> usize {
    sorted(part)
        .windows(2)
        .filter(|w| w[1].0 - w[0].0 < SAME_POSITION_MM)
        .count()
}

fn volume(part: Vec<Image>, label: &str) -> Stack {
    let mut images = sorted(&part);
    let before = images.len();
    let mut last = f64::NEG_INFINITY;
    images.retain(|(depth, _)| {
        let fresh = depth - last >= SAME_POSITION_MM;
        if fresh {
            last = *depth;
        }
        fresh
    });
    let mut issues = Vec::new();
    if images.len() < before {
        issues.push(Issue::DuplicateSlices {
            count: before - images.len(),
        });
    }
    let depths: Vec<f64> = images.iter().map(|(depth, _)| *depth).collect();
    issues.extend(spacing_issues(&depths));
    issues.extend(tilt(&images));
    if images[0].1.is_localizer() {
        issues.push(Issue::Localizer);
    }
    let format = &images[0].1.file.format;
    Stack {
        label: label.to_owned(),
        columns: format.columns,
        rows: format.rows,
        is_volume: images.len() > 1 && !images[0].1.is_localizer(),
        images: images.iter().map(|(_, image)| image.instance()).collect(),
        issues,
    }
}

/// Median distance of neighbors; `None` for fewer than two.
pub fn median_step(depths: &[f64]) -> Option<f64> {
    let mut steps: Vec<f64> = depths.windows(2).map(|w| w[1] - w[0]).collect();
    if steps.is_empty() {
        return None;
    }
    steps.sort_by(f64::total_cmp);
    Some(steps[(steps.len() - 1) / 2])
}

fn spacing_issues(depths: &[f64]) -> Vec<Issue> {
    let Some(step) = median_step(depths) else {
        return Vec::new();
    };
    let mut issues = Vec::new();
    let mut worst: Option<Issue> = None;
    let mut worst_by = 0.0;
    for (before, w) in depths.windows(2).enumerate() {
        let gap = w[1] - w[0];
        // Positions are written with about 1e-3 mm; 1 % covers stacks computed in tenths.
        if (gap - step).abs() <= 0.01 + 0.01 * step {
            continue;
        }
        let times = gap / step;
        if times > 1.5 && (times - times.round()).abs() < 0.05 {
            issues.push(Issue::MissingSlices {
                count: times.round() as usize - 1,
                after: before,
            });
        } else if (gap - step).abs() > worst_by {
            worst_by = (gap - step).abs();
            worst = Some(Issue::UnevenSpacing {
                before,
                after: before + 1,
                gap_mm: gap,
                expected_mm: step,
            });
        }
    }
    issues.extend(worst);
    issues
}

fn tilt(images: &[(f64, Image)]) -> Option<Issue> {
    let (first, last) = (images.first()?, images.last()?);
    let way = last.1.frame().position? - first.1.frame().position?;
    let along = way.dot(normal(&first.1));
    if along < SAME_POSITION_MM {
        return None;
    }
    let degrees = (along / way.length()).clamp(-1.0, 1.0).acos().to_degrees();
    // Rounded cosines make up to about 0.1°.
    (degrees > 0.25).then_some(Issue::GantryTilt { degrees })
}

fn plain(mut group: Vec<Image>, label: &str) -> Stack {
    group.sort_by_key(|image| (image.file.number.unwrap_or(i32::MAX), image.index));
    let first = &group[0];
    let mut issues = Vec::new();
    if first.is_localizer() {
        issues.push(Issue::Localizer);
    }
    let wants_place = VOLUMETRIC[..3].contains(&first.file.modality.as_str());
    if wants_place && (first.frame().orientation.is_none() || first.frame().position.is_none()) {
        issues.push(Issue::NoGeometry);
    }
    Stack {
        label: label.to_owned(),
        columns: first.file.format.columns,
        rows: first.file.format.rows,
        is_volume: false,
        images: group.iter().map(Image::instance).collect(),
        issues,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_and_uneven_slices_are_told_apart() {
        let missing = spacing_issues(&[0.0, 2.0, 4.0, 10.0, 12.0]);
        assert_eq!(missing, [Issue::MissingSlices { count: 2, after: 2 }]);
        let uneven = spacing_issues(&[0.0, 2.0, 4.0, 4.7, 6.7]);
        assert!(matches!(
            uneven[..],
            [Issue::UnevenSpacing { before: 2, .. }]
        ));
        assert!(spacing_issues(&[0.0, 1.001, 2.0, 2.999]).is_empty());
    }
}
