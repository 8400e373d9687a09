//! Whether a volume is what a model is meant for.

use super::classify::GrayPlane;
use super::familiar;
use crate::model::monai::{MonaiProcedure, MonaiTransform};
use crate::model::{Conform, Envelope, Manifest, Template};
use crate::study::Issue;
use crate::volume::{Layout, Quantity, Volume};

/// Values that are looked at, spread over the volume.
const SAMPLES: usize = 100_000;

/// What differs from the manifest: the first list refuses, the second only doubts.
pub fn envelope_issues(manifest: &Manifest, volume: &Volume) -> (Vec<String>, Vec<String>) {
    let mut red = Vec::new();
    let mut amber = Vec::new();
    let [_, _, nk] = volume.geometry.dims();
    if volume.voxels.is_color() {
        red.push("color images".to_owned());
    }
    if manifest.takes_plain_images() {
        // Each image on its own.
    } else if volume.layout != Layout::Volumetric {
        red.push("plain images without positions, the model needs a volume".to_owned());
    } else if nk < 5 && !takes_slices(manifest) {
        red.push(format!(
            "{nk} slices, the model needs a volume of at least 5"
        ));
    }
    match modality_issue(manifest, volume) {
        Some((true, reason)) => red.push(reason),
        Some((false, reason)) => amber.push(reason),
        None => {}
    }
    let [.., images] = volume.geometry.dims();
    let views = (0..images).find_map(|k| view_issue(&manifest.envelope, volume, k));
    match views {
        Some((true, reason)) => red.push(reason),
        Some((false, reason)) => amber.push(reason),
        None => {}
    }
    for issue in &volume.issues {
        match issue {
            Issue::UnevenSpacing { .. }
            | Issue::MissingSlices { .. }
            | Issue::GantryTilt { .. } => amber.push(issue.to_string()),
            Issue::RescaleMissing { .. } | Issue::RescaleInvalid { .. } => {
                red.push(format!("{issue}: the model needs measured values"));
            }
            _ => {}
        }
    }
    if red.is_empty()
        && let Some(template) = &manifest.envelope.template
    {
        red.extend(stranger_among(template, volume));
    }
    if red.is_empty() {
        amber.extend(spacing_doubt(manifest, volume));
        amber.extend(turned_doubt(manifest, volume));
        amber.extend(body_part_doubt(&manifest.envelope, volume));
        amber.extend(extent_doubt(&manifest.envelope, volume));
        amber.extend(value_doubt(&manifest.envelope, volume));
    }
    (red, amber)
}

/// What is wrong with the modality, and whether it refuses.
pub(super) fn modality_issue(manifest: &Manifest, volume: &Volume) -> Option<(bool, String)> {
    let wanted = &manifest.modality;
    match volume.modality.as_str() {
        "" => Some((
            false,
            format!("the file names no modality, the model is for {wanted}"),
        )),
        found if wanted.is_empty() => Some((
            false,
            format!("{found} series, the model does not say what it is for"),
        )),
        found if !manifest.takes_modality(found) => {
            Some((true, format!("{found} series, the model is for {wanted}")))
        }
        _ => None,
    }
}

/// Views of radiographs that the standard names (PS3.3 C.8.1.1 and C.8.11.5).
const VIEWS: [&str; 12] = [
    "AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO", "RPO", "LPO", "LATERAL", "OBLIQUE",
];

/// What is wrong with the view of image `k`, and whether it refuses.
pub(super) fn view_issue(envelope: &Envelope, volume: &Volume, k: usize) -> Option<(bool, String)> {
    let found = volume.source.image(k)?.view.as_str();
    let known = envelope.views.iter().any(|v| v == found);
    if found.is_empty() || envelope.views.is_empty() || known {
        return None;
    }
    let wanted = envelope.views.join(", ");
    Some(if VIEWS.contains(&found) {
        (true, format!("view {found}, the model is for {wanted}"))
    } else {
        // Some makers have words of their own.
        let reason = "the file's word for the view is not one of the standard's";
        (false, format!("{reason}; the model is for {wanted}"))
    })
}

/// Why one of the images is none of those that the model has learned from.
fn stranger_among(template: &Template, volume: &Volume) -> Option<String> {
    let [.., images] = volume.geometry.dims();
    (0..images).find_map(|k| {
        let plane = GrayPlane::of_slice(volume, k);
        let reason = familiar::stranger(template, &plane.values, plane.dims)?;
        Some(if images > 1 {
            format!("image {}: {reason}", k + 1)
        } else {
            reason
        })
    })
}

/// A network of slices takes any number of them.
fn takes_slices(manifest: &Manifest) -> bool {
    let procedure = manifest.procedure.as_ref();
    let monai = manifest.monai.as_ref();
    procedure.is_some_and(|p| p.windows.is_2d()) || monai.is_some_and(MonaiProcedure::is_2d)
}

fn spacing_doubt(manifest: &Manifest, volume: &Volume) -> Option<String> {
    let wanted = match &manifest.input.conform {
        Conform::Freesurfer256 => 1.0,
        Conform::Stored { .. } if manifest.monai.is_some() => {
            let transforms = manifest.monai.iter().flat_map(|m| &m.transforms);
            let mut spacing = transforms.filter_map(|t| match t {
                MonaiTransform::Spacing { pixdim, .. } => pixdim
                    .iter()
                    .copied()
                    .reduce(f64::max)
                    .filter(|mm| *mm > 0.0),
                _ => None,
            });
            spacing.next_back().unwrap_or(f64::INFINITY)
        }
        // A procedure's own spacing; a 2-D one says nothing across slices.
        Conform::Stored { .. } => manifest.procedure.as_ref().map_or(1.0, |p| {
            let spacing = p.preprocessing.target_spacing.iter().copied();
            if p.windows.is_2d() {
                f64::INFINITY
            } else {
                spacing.fold(f64::MIN, f64::max)
            }
        }),
        Conform::Grid { spacing_mm, .. } => spacing_mm.iter().copied().fold(f64::MIN, f64::max),
    };
    let spacing = volume.geometry.spacing_mm();
    let coarsest = spacing.into_iter().fold(f64::MIN, f64::max);
    (coarsest > 2.5 * wanted).then(|| {
        format!(
            "{coarsest:.1} mm between slices or pixels, the model was trained at {wanted:.1} mm"
        )
    })
}

/// A model that takes voxels as they are stored sees an oblique scan turned.
fn turned_doubt(manifest: &Manifest, volume: &Volume) -> Option<String> {
    if !matches!(manifest.input.conform, Conform::Stored { .. }) {
        return None;
    }
    let worst = (0..3)
        .map(|axis| {
            let direction = volume.geometry.direction(axis).normalize().abs();
            direction.max_element().min(1.0).acos().to_degrees()
        })
        .fold(0.0, f64::max);
    (worst > 20.0).then(|| {
        format!(
            "the scan is turned by {worst:.0}° against the patient's axes, the model sees it turned"
        )
    })
}

fn body_part_doubt(envelope: &Envelope, volume: &Volume) -> Option<String> {
    let found = volume.source.body_part.trim().to_ascii_uppercase();
    let known = !found.is_empty() && !envelope.body_parts.is_empty();
    (known && !envelope.body_parts.contains(&found)).then(|| {
        format!(
            "body part {found}, the model is for {}",
            envelope.body_parts.join(", ")
        )
    })
}

fn extent_doubt(envelope: &Envelope, volume: &Volume) -> Option<String> {
    let bounds = envelope.extent_mm?;
    let (dims, spacing) = (volume.geometry.dims(), volume.geometry.spacing_mm());
    let mut extent = [0, 1, 2].map(|axis| dims[axis] as f64 * spacing[axis]);
    extent.sort_by(f64::total_cmp);
    let outside = |(mm, [low, high]): (&f64, &[f64; 2])| mm < low || mm > high;
    extent.iter().zip(&bounds).any(outside).then(|| {
        let [a, b, c] = extent;
        let [x, y, z] = bounds.map(|[low, high]| format!("{low:.0}–{high:.0}"));
        format!("field of view {a:.0} × {b:.0} × {c:.0} mm, the model knows {x} × {y} × {z} mm")
    })
}

fn value_doubt(envelope: &Envelope, volume: &Volume) -> Option<String> {
    let values = envelope.values.as_ref()?;
    let step = volume.voxels.len().div_ceil(SAMPLES).max(1);
    let sampled: Vec<f64> = (0..volume.voxels.len())
        .step_by(step)
        .map(|n| f64::from(volume.value(n)))
        .collect();
    let inside = |v: &&f64| (values.low..=values.high).contains(*v);
    let share = sampled.iter().filter(inside).count() as f64 / sampled.len().max(1) as f64;
    let unit = &values.unit;
    if share < 0.005 {
        return Some(format!(
            "{:.1} % of the values lie between {:.0} and {:.0} {unit}, where the model's structures are",
            share * 100.0,
            values.low,
            values.high
        ));
    }
    // CT has air around or in the patient; values from 0 on are mostly HU + 1024.
    let lowest = sampled.iter().copied().fold(f64::INFINITY, f64::min);
    let said = volume.quantity == Quantity::Hounsfield;
    (unit == "HU" && !said && lowest >= 0.0 && values.low < 0.0)
        .then(|| "no value is below 0: the values are perhaps not Hounsfield units".to_owned())
}
