//! Whether a volume is what a model is meant for.

use crate::model::{Conform, Manifest};
use crate::study::Issue;
use crate::volume::{Layout, Volume};

/// What differs from the manifest: the first list refuses, the second only doubts.
pub fn envelope_issues(manifest: &Manifest, volume: &Volume) -> (Vec<String>, Vec<String>) {
    let mut red = Vec::new();
    let mut amber = Vec::new();
    let [_, _, nk] = volume.geometry.dims();
    if volume.voxels.is_color() {
        red.push("color images".to_owned());
    }
    if volume.layout != Layout::Volumetric {
        red.push("plain images without positions, the model needs a volume".to_owned());
    } else if nk < 5 {
        red.push(format!(
            "{nk} slices, the model needs a volume of at least 5"
        ));
    }
    match volume.modality.as_str() {
        "" => amber.push(format!(
            "the file names no modality, the model is for {}",
            manifest.modality
        )),
        found if manifest.modality.is_empty() => {
            amber.push(format!(
                "{found} series, the model does not say what it is for"
            ));
        }
        found if found != manifest.modality => {
            red.push(format!(
                "{found} series, the model is for {}",
                manifest.modality
            ));
        }
        _ => {}
    }
    let spacing = volume.geometry.spacing_mm();
    let wanted = match &manifest.input.conform {
        Conform::Freesurfer256 => 1.0,
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
    let coarsest = spacing.iter().copied().fold(f64::MIN, f64::max);
    if coarsest > 2.5 * wanted {
        amber.push(format!(
            "{coarsest:.1} mm slices, the model was trained at {wanted:.1} mm"
        ));
    }
    for issue in &volume.issues {
        if matches!(
            issue,
            Issue::UnevenSpacing { .. } | Issue::MissingSlices { .. } | Issue::GantryTilt { .. }
        ) {
            amber.push(issue.to_string());
        }
    }
    (red, amber)
}
