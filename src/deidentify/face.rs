//! Which part of a head is its face: what lies before and below the brain.
//!
//! The brain is estimated, not segmented: soft tissue (CT) or tissue of the brightness of the head's
//! depth (MR), away from the skin, that stays in one piece when thin bridges are worn off. Planes that
//! touch the hull of this estimate from below and before, at several angles, with a margin, bound
//! what stays. Where the estimate is too large, less of the face goes; it is seldom too small, for it is
//! widened at the end.
//!
//! # Source
//! The planes follow Quickshear (Schimke and Hale, "Quickshear defacing for neuroimages", HealthSec
//! 2011), which takes one plane along the hull of a segmented brain.
//!
//! What is left: ears, teeth behind the planes, the shape of the skull.

use super::morphology::{Solid, distances_squared};
use super::slices::{Grid, STEP_MM};
use crate::geometry::DVec3;

/// Between the hull and the planes, with half a grid point's diagonal.
const MARGIN_MM: f64 = 8.0;
/// Angles of the planes' normals below straight ahead.
const ANGLES_DEGREES: [f64; 8] = [20.0, 25.0, 30.0, 35.0, 40.0, 45.0, 50.0, 55.0];
/// An infant's brain to a large one with its surroundings.
const BRAIN_ML: std::ops::RangeInclusive<f64> = 600.0..=2200.0;
/// Right to left, front to back, bottom to top.
const BRAIN_MM: [std::ops::RangeInclusive<f64>; 3] = [95.0..=190.0, 110.0..=220.0, 85.0..=190.0];
/// A nose alone has more.
const SMALLEST_FACE_ML: f64 = 30.0;

/// What the values of a volume are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    /// CT.
    Hounsfield,
    /// MR.
    Signal,
}

/// The part of space in which a face lies: before any of its planes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Zone {
    planes: Vec<(DVec3, f64)>,
    /// Tissue in the zone, ml.
    pub removed_ml: f64,
}

impl Zone {
    pub(super) fn contains(&self, lps: DVec3) -> bool {
        self.planes
            .iter()
            .any(|(normal, far)| normal.dot(lps) > *far)
    }
}

/// Finds the face of a head.
///
/// # Errors
/// What is shown is no whole head, in words.
pub(super) fn find_face(grid: &Grid, values: Values) -> Result<Zone, &'static str> {
    let head = head(grid, values)?;
    let brain = brain(grid, &head, values)?;
    let [width, depth, _] = head.dims;
    let ml = |points: usize| points as f64 * STEP_MM.powi(3) / 1000.0;
    // The shadow of the brain from the side; where it is thin it is a bridge.
    let mut shadow = vec![0_u8; brain.inside.len() / width];
    for (row, thick) in brain.inside.chunks(width).zip(&mut shadow) {
        *thick = row.iter().filter(|v| **v).count().min(3) as u8;
    }
    let shadow: Vec<DVec3> = (0..shadow.len())
        .filter(|n| shadow[*n] == 3)
        .map(|n| grid.origin + DVec3::new(0.0, (n % depth) as f64, (n / depth) as f64) * STEP_MM)
        .collect();
    let planes = ANGLES_DEGREES
        .map(|degrees| {
            let (down, ahead) = degrees.to_radians().sin_cos();
            let normal = DVec3::new(0.0, -ahead, -down);
            let hull = shadow
                .iter()
                .map(|p| normal.dot(*p))
                .fold(f64::MIN, f64::max);
            (normal, hull + MARGIN_MM)
        })
        .to_vec();
    let mut zone = Zone {
        planes,
        removed_ml: 0.0,
    };
    let removed = (0..head.inside.len()).filter(|&n| {
        let ijk = [n % width, n / width % depth, n / width / depth].map(|v| v as f64);
        head.inside[n] && zone.contains(grid.origin + DVec3::from_array(ijk) * STEP_MM)
    });
    zone.removed_ml = ml(removed.count());
    if zone.removed_ml < SMALLEST_FACE_ML {
        return Err("no face lies before and below the brain");
    }
    Ok(zone)
}

/// What is not air, closed and filled.
fn head(grid: &Grid, values: Values) -> Result<Solid, &'static str> {
    let mut sorted: Vec<f32> = grid
        .values
        .iter()
        .copied()
        .filter(|v| !v.is_nan())
        .collect();
    sorted.sort_unstable_by(f32::total_cmp);
    let bright = *sorted.get(sorted.len() * 99 / 100).ok_or("no voxels")?;
    let threshold = match values {
        Values::Hounsfield => -300.0,
        Values::Signal => 0.12 * bright,
    };
    let tissue = grid.values.iter().map(|v| *v > threshold).collect();
    let tissue = Solid::new(grid.covered.dims, tissue);
    let mut head = tissue.eroded(1).dilated(1).largest_part();
    head = head.dilated(4).eroded(4).and(&grid.covered.inside);
    for axis in 0..3 {
        head = head.filled_across(axis);
    }
    Ok(head)
}

/// An estimate of the brain, widened.
fn brain(grid: &Grid, head: &Solid, values: Values) -> Result<Solid, &'static str> {
    let air = Solid::new(
        head.dims,
        (0..head.inside.len())
            .map(|n| grid.covered.inside[n] && !head.inside[n])
            .collect(),
    );
    let far = distances_squared(&air);
    let depth_mm = |n: usize| f64::from(far[n]).sqrt() * STEP_MM;
    let (low, high, skin_mm) = match values {
        Values::Hounsfield => (0.0, 120.0, 4.0),
        Values::Signal => {
            let mut deep: Vec<f32> = (0..far.len())
                .filter(|&n| head.inside[n] && depth_mm(n) > 30.0)
                .map(|n| grid.values[n])
                .filter(|v| !v.is_nan())
                .collect();
            if deep.len() < 5000 {
                return Err("too little lies deep enough for a head");
            }
            deep.sort_unstable_by(f32::total_cmp);
            let middle = deep[deep.len() / 2];
            (0.5 * middle, 1.8 * middle, 5.0)
        }
    };
    let tissue = (0..far.len())
        .map(|n| {
            let value = grid.values[n];
            value > low && value < high && head.inside[n] && depth_mm(n) > skin_mm
        })
        .collect();
    let tissue = Solid::new(head.dims, tissue);
    let ml = |solid: &Solid| solid.count() as f64 * STEP_MM.powi(3) / 1000.0;
    let mut brain = tissue.clone();
    for radius in [2, 3] {
        let core = tissue.eroded(radius).largest_part();
        brain = core.dilated(radius + 1).and(&head.inside);
        if ml(&brain) <= 2100.0 {
            break;
        }
    }
    if !BRAIN_ML.contains(&ml(&brain)) {
        return Err("nothing of the size of a brain was found");
    }
    for (axis, fine) in BRAIN_MM.into_iter().enumerate() {
        let stride: usize = head.dims[..axis].iter().product();
        let places = (0..brain.inside.len())
            .filter(|n| brain.inside[*n])
            .map(|n| n / stride % head.dims[axis]);
        let (first, last) = places.fold((usize::MAX, 0), |(a, b), p| (a.min(p), b.max(p)));
        if !fine.contains(&(last.saturating_sub(first) as f64 * STEP_MM)) {
            return Err("what looks like the brain has not the shape of one, or is cut off");
        }
    }
    Ok(brain)
}
