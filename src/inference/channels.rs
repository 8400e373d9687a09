//! Further images of one patient, on the grid of the first.

use super::Error;
use super::conform::Conformed;
use crate::geometry::{DVec3, VolumeGeometry};
use crate::model::Manifest;
use crate::study::Issue;
use crate::task::Task;
use crate::volume::{Interpolation, Volume, resample_volume};

/// Grids whose corners lie this close are one: scanners round positions.
const SAME_PLACE_MM: f64 = 0.01;
/// Less of the first image's grid inside of another is no pair.
const LEAST_OVERLAP: f64 = 0.5;

/// Whether the images that a run was given can be this model's channels, and what is doubtful.
///
/// # Errors
/// [`Error::Input`] for another number of images, or images of different places.
pub fn check(manifest: &Manifest, volumes: &[&Volume]) -> Result<Vec<Issue>, Error> {
    let wanted = manifest.images();
    if volumes.len() != wanted {
        let names = manifest.input.channels.join(", ");
        return Err(Error::Input(if wanted == 1 {
            format!("it takes one image, {} are given", volumes.len())
        } else {
            format!(
                "it takes {wanted} images ({names}) of one study, {} given",
                if volumes.len() == 1 {
                    "one is".to_owned()
                } else {
                    format!("{} are", volumes.len())
                }
            )
        }));
    }
    let Some((first, further)) = volumes.split_first() else {
        return Ok(Vec::new());
    };
    let mut issues = Vec::new();
    for (volume, name) in further.iter().zip(manifest.input.channels.iter().skip(1)) {
        let part = overlap(&first.geometry, &volume.geometry);
        if part < LEAST_OVERLAP {
            return Err(Error::Input(format!(
                "the image for {name} covers {:.0} % of the first one's grid",
                100.0 * part
            )));
        }
        let of = |v: &Volume| v.source.frame_of_reference_uid.clone();
        if let (Some(a), Some(b)) = (of(first), of(volume))
            && a != b
        {
            // CLINICAL(position): nothing but the patient holding still ties these two together.
            issues.push(Issue::Other {
                code: "channel-frame-of-reference",
                message: format!(
                    "the image for {name} has another frame of reference than the first: it was taken as lying in the same place, which nobody checked"
                ),
            });
        }
        if !first.geometry.same_grid(&volume.geometry, SAME_PLACE_MM) {
            issues.push(Issue::Other {
                code: "channel-resampled",
                message: format!(
                    "the image for {name} was brought onto the grid of the first by linear interpolation ({})",
                    difference(&first.geometry, &volume.geometry)
                ),
            });
        }
        for issue in &volume.issues {
            if !first.issues.contains(issue) && !issues.contains(issue) {
                issues.push(issue.clone());
            }
        }
    }
    Ok(issues)
}

/// Adds the values of the further images on the conformed grid of the first, channel by channel.
///
/// # Errors
/// [`Error::Cancelled`].
pub fn add(
    conformed: &mut Conformed,
    first: &VolumeGeometry,
    further: &[&Volume],
    task: &Task,
) -> Result<(), Error> {
    for volume in further {
        let same = first.same_grid(&volume.geometry, SAME_PLACE_MM);
        let values = if same && conformed.untouched {
            volume.values()
        } else {
            let how = if same {
                Interpolation::Nearest
            } else {
                Interpolation::Linear
            };
            let outside = volume.range().map_or(0.0, |(low, _)| low);
            resample_volume(volume, &conformed.geometry, how, outside, task)?
        };
        conformed.values.extend(values);
    }
    Ok(())
}

/// The part of a grid that lies inside of another, from a coarse sample of it.
fn overlap(of: &VolumeGeometry, inside: &VolumeGeometry) -> f64 {
    const STEPS: usize = 8;
    let dims = of.dims();
    let mut hits = 0;
    for n in 0..STEPS.pow(3) {
        let steps = [n % STEPS, n / STEPS % STEPS, n / STEPS / STEPS];
        let at = |axis: usize| (steps[axis] as f64 + 0.5) / STEPS as f64 * dims[axis] as f64 - 0.5;
        let ijk = inside.ijk_at(of.lps_at(DVec3::new(at(0), at(1), at(2))));
        let within = |(x, n): (f64, usize)| x >= -0.5 && x <= n as f64 - 0.5;
        hits += usize::from(ijk.to_array().into_iter().zip(inside.dims()).all(within));
    }
    hits as f64 / STEPS.pow(3) as f64
}

/// "512 × 512 × 30 voxels of 0.5 × 0.5 × 5.0 mm against …".
fn difference(first: &VolumeGeometry, other: &VolumeGeometry) -> String {
    let words = |g: &VolumeGeometry| {
        let ([i, j, k], [x, y, z]) = (g.dims(), g.spacing_mm());
        format!("{i} × {j} × {k} voxels of {x:.2} × {y:.2} × {z:.2} mm")
    };
    let (a, b) = (words(first), words(other));
    if a == b {
        "the same voxels elsewhere".to_owned()
    } else {
        format!("{b} against {a}")
    }
}
