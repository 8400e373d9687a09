//! Brain of the synthetic head: brainstem, cerebellum, deep nuclei, ventricles, folded cortex.

use glam::{Vec2, Vec3};

use super::head::{Head, Side};
use super::noise::Noise;
use super::shapes::{Bead, blend, chain, ellipsoid, smooth_step};

pub(super) const LATERAL_VENTRICLE: [Bead; 9] = [
    ([9.0, -27.0, 6.0], 2.0),
    ([9.5, -20.0, 9.0], 4.6),
    ([8.0, -8.0, 15.0], 4.2),
    ([9.5, 6.0, 20.0], 3.8),
    ([13.0, 20.0, 19.5], 4.0),
    ([20.0, 32.0, 13.0], 4.6),
    ([24.5, 40.0, 6.5], 4.6),
    ([24.0, 52.0, 4.0], 2.6),
    ([22.0, 60.0, 3.0], 1.0),
];
pub(super) const TEMPORAL_HORN: [Bead; 5] = [
    ([25.5, 39.0, 6.0], 3.4),
    ([31.5, 33.0, -4.0], 2.0),
    ([33.3, 24.0, -11.5], 1.5),
    ([31.5, 13.5, -17.0], 1.6),
    ([28.0, 5.0, -19.5], 1.8),
];
const CAUDATE: [Bead; 5] = [
    ([12.5, -18.0, 5.0], 5.5),
    ([14.5, -10.0, 12.5], 4.6),
    ([16.5, 4.0, 19.0], 2.9),
    ([20.0, 18.0, 19.0], 1.9),
    ([26.5, 27.0, 12.0], 1.3),
];
pub(super) const BRAINSTEM: [Bead; 6] = [
    ([0.0, 12.0, -6.0], 11.0),
    ([0.0, 16.0, -14.0], 12.0),
    ([0.0, 15.0, -25.0], 13.5),
    ([0.0, 19.0, -34.0], 11.0),
    ([0.0, 25.0, -46.0], 7.5),
    ([0.0, 30.0, -82.0], 5.5),
];
const CORPUS_CALLOSUM: [Bead; 9] = [
    ([0.0, -17.0, -3.0], 1.4),
    ([0.0, -25.5, 2.0], 2.8),
    ([0.0, -28.0, 8.5], 4.6),
    ([0.0, -22.0, 17.5], 3.4),
    ([0.0, -9.0, 23.5], 3.0),
    ([0.0, 7.0, 25.5], 2.7),
    ([0.0, 21.0, 22.5], 2.6),
    ([0.0, 32.0, 14.5], 4.0),
    ([0.0, 34.0, 8.0], 4.4),
];
pub(super) const OPTIC_NERVE: [Bead; 4] = [
    ([29.0, -48.0, -27.0], 1.9),
    ([19.0, -25.0, -20.0], 2.0),
    ([5.0, -6.0, -13.0], 2.2),
    ([0.0, -3.0, -12.0], 2.4),
];

impl Head {
    /// Brainstem, cerebellum, cortex with the white matter below, and the fluid between them.
    pub(super) fn shell(
        &self,
        p: Vec3,
        q: Vec3,
        cerebrum: f32,
        cerebellum: f32,
        brainstem: f32,
    ) -> f32 {
        let c = &self.contrast;
        if brainstem < 0.0 {
            let fibers = 0.5 + 0.5 * self.rough.at(p * Vec3::new(1.0, 0.5, 2.0));
            c.white - (c.white - c.deep_gray) * (0.35 + 0.25 * fibers)
        } else if cerebellum < 0.0 {
            self.cerebellum_signal(p, q, -cerebellum)
        } else if cerebrum > 0.0 {
            c.csf
        } else {
            self.cortex_signal(p, q, -cerebrum)
        }
    }

    /// Structures at and near the midline that lie in front of everything else.
    pub(super) fn midline(
        &self,
        p: Vec3,
        q: Vec3,
        side: &Side,
        ventricle: f32,
        brainstem: f32,
    ) -> Option<f32> {
        if q.x > 24.0 {
            return None;
        }
        let c = &self.contrast;
        let callosum = chain(Vec3::new((q.x - 7.0).max(0.0), p.y, p.z), &CORPUS_CALLOSUM);
        if callosum < 0.0 && ventricle > -1.0 {
            return Some(c.white * 1.02);
        }
        let third = ellipsoid(q, [0.0, 7.0, -1.0], [2.0 * side.ventricle, 13.0, 9.0]);
        let bridge = Vec2::new(p.y - 7.0, p.z - 1.5).length() - 3.0;
        if third < 0.0 && bridge > 0.0 {
            return Some(c.csf);
        }
        let fourth = ellipsoid(q, [0.0, 29.0, -30.0], [5.5, 3.4, 9.0]);
        let aqueduct = chain(p, &[([0.0, 19.0, -4.0], 1.0), ([0.0, 26.0, -21.0], 1.2)]);
        if fourth.min(aqueduct) < 0.0 {
            return Some(c.csf);
        }
        let optic = chain(q, &OPTIC_NERVE);
        if optic < 0.0 && p.y > -14.0 {
            return Some(c.deep_gray);
        }
        // Basilar artery: a flow void in front of the pons.
        let basilar = chain(
            p,
            &[
                ([0.0, -0.5, -18.0], 1.3),
                ([0.8, 3.0, -33.0], 1.4),
                ([3.0, 14.0, -46.0], 1.2),
            ],
        );
        if basilar < 0.0 {
            return Some(c.vessel);
        }
        let pituitary = ellipsoid(p, [0.0, -8.0, -23.0], [5.5, 4.5, 3.6]);
        if pituitary < 0.0 {
            return Some(c.deep_gray);
        }
        // Colliculi and pineal gland behind the midbrain.
        let colliculi = ellipsoid(q, [4.0, 25.5, -7.0], [4.2, 4.0, 6.5]);
        if colliculi < 0.0 {
            return Some(c.deep_gray);
        }
        let pineal = ellipsoid(p, [0.0, 27.5, 1.0], [2.6, 3.6, 2.4]);
        if pineal < 0.0 {
            return Some(c.gray);
        }
        // Interpeduncular, ambient and quadrigeminal cisterns.
        let cistern = ellipsoid(q, [0.0, 14.0, -12.0], [16.8, 16.5, 15.0]);
        let peduncle = chain(q, &[([15.0, 4.0, -1.0], 6.5), ([8.0, 9.0, -14.0], 6.0)]);
        if peduncle < 0.0 && brainstem > 0.0 {
            return Some(c.white);
        }
        let diencephalon = ellipsoid(q, [0.0, 8.0, 2.0], [22.0, 20.0, 13.0]);
        if cistern < 0.0 && brainstem > 0.0 && diencephalon > 0.0 {
            return Some(c.csf);
        }
        let suprasellar = ellipsoid(q, [0.0, -6.0, -16.0], [11.0, 9.0, 6.5]);
        (suprasellar < 0.0 && brainstem > 0.0).then_some(c.csf)
    }

    /// Ventricles and deep nuclei of a hemisphere.
    pub(super) fn deep(&self, p: Vec3, q: Vec3, s: Vec3, ventricle: f32) -> Option<f32> {
        let c = &self.contrast;
        if ventricle < 0.0 {
            // Choroid plexus in the atrium.
            let plexus = ellipsoid(s, [22.0, 35.0, 9.0], [2.2, 4.5, 2.6]);
            return Some(if plexus < 0.0 { c.gray } else { c.csf });
        }
        let fornix = [
            ([2.0, 28.0, 12.0], 1.7),
            ([1.8, 8.0, 19.5], 1.7),
            ([2.0, -5.0, 12.0], 1.5),
        ];
        if q.x < 4.0 && chain(q, &fornix) < 0.0 {
            return Some(c.white);
        }
        let thalamus = ellipsoid(s, [11.5, 12.0, 6.0], [9.0, 14.0, 8.5]);
        if thalamus < 0.0 {
            let pale = smooth_step(8.0, 18.0, q.x);
            return Some(c.thalamus + (c.white - c.thalamus) * 0.45 * pale);
        }
        if chain(s, &CAUDATE) < 0.0 {
            return Some(c.deep_gray);
        }
        let pallidus = ellipsoid(rotated(s, [18.5, 0.5, 0.5]), [0.0; 3], [4.6, 9.0, 6.5]);
        if pallidus < 0.0 {
            return Some(c.thalamus + (c.white - c.thalamus) * 0.4);
        }
        let putamen = ellipsoid(rotated(s, [25.0, -2.0, 3.0]), [0.0; 3], [5.2, 16.0, 10.5]);
        if putamen < 0.0 {
            return Some(c.deep_gray);
        }
        let hypothalamus = ellipsoid(q, [0.0, 0.0, -6.0], [7.0, 9.0, 7.0]);
        let septum = callosal_arch(p) < 0.0 && q.x < 2.0 && p.z > 4.0;
        (hypothalamus < 0.0 || septum).then_some(c.deep_gray)
    }

    /// Temporal horn, choroid fissure, the thin white matter of alveus and angular bundle, amygdala.
    pub(super) fn around_hippocampus(
        &self,
        side: &Side,
        q: Vec3,
        s: Vec3,
        hippocampus: f32,
        horn: f32,
    ) -> Option<f32> {
        let c = &self.contrast;
        if horn < 0.0 && hippocampus > 0.35 {
            return Some(c.csf);
        }
        let above = q.z - side.hippocampus.height_at(q.y);
        if hippocampus < 0.4 {
            return Some(c.white * 0.9);
        }
        // Dark above the body and on its medial side, bright below.
        if hippocampus < 1.6 && above > 1.0 && q.y > 9.0 {
            return Some(c.csf);
        }
        if hippocampus < 1.7 && above < 0.5 {
            return Some(c.white * 0.97);
        }
        let amygdala = ellipsoid(s, [21.5, -4.0, -17.5], [7.5, 7.0, 7.0]);
        (amygdala < 0.0).then_some(c.gray)
    }

    /// Gray matter along the surface, the midline, the Sylvian fissure and every sulcus; white matter below.
    pub(super) fn cortex_signal(&self, p: Vec3, q: Vec3, hull_depth: f32) -> f32 {
        let c = &self.contrast;
        // The falx side: open where the corpus callosum does not join the hemispheres.
        let arch = callosal_arch(p);
        let joined = arch < 2.5 || (p.y > -30.0 && p.y < 34.0 && p.z < 4.0 && q.x < 16.0);
        let falx = if joined { 1e3 } else { q.x - 0.5 };
        let wave = self.rough.vector_at(p * 0.45);
        let sylvian = sylvian_fissure(q + wave * 3.6);
        let depth = hull_depth.min(falx);
        if falx < 0.35 || sylvian < 0.0 {
            return c.csf;
        }
        // Sheets that run from the surface inward, wavy, deeper in some places.
        let center = Vec3::new(if p.x < 0.0 { -20.0 } else { 20.0 }, 12.0, 8.0);
        let bend = wave * 1.6;
        let onto_shell = |p: Vec3| {
            let d = p - center;
            center + d * (58.0 / (d.length() + 18.0)) + bend
        };
        let reach = 18.0 + 8.0 * self.warp.at(p * 2.1);
        let small_reach = 7.0 + 4.0 * self.warp.at(p * 3.0 + Vec3::splat(50.0));
        let sheet = |noise: &Noise, reach: f32| {
            if depth > reach + 4.5 {
                return 1e3;
            }
            let beyond = (depth - reach).max(0.0);
            let off = noise.distance_to_zero(p, onto_shell);
            (off * off + beyond * beyond).sqrt()
        };
        let large = sheet(&self.folds, reach);
        let small = sheet(&self.small_folds, small_reach);
        let widening = 1.0 - smooth_step(0.0, 12.0, depth);
        if large < self.sulcus_mm * (0.45 + 1.1 * widening)
            || small < self.sulcus_mm * 0.9 * widening
        {
            return c.csf;
        }
        let thickness = 2.9 + 0.7 * self.rough.at(p);
        let to_surface = depth.min(sylvian).min(large).min(small);
        c.gray + (c.white - c.gray) * smooth_step(thickness - 0.5, thickness + 0.6, to_surface)
    }

    /// Leaves of gray matter around a small tree of white matter.
    pub(super) fn cerebellum_signal(&self, p: Vec3, q: Vec3, depth: f32) -> f32 {
        let c = &self.contrast;
        // Sheets that run from side to side and fan out from the fourth ventricle.
        let root = Vec3::new(0.0, 36.0 + 0.25 * q.x, -33.0);
        let fan = |p: Vec3| {
            let d = p - root;
            let out = Vec2::new(d.y, d.z).length();
            let onto_arc = 21.0 / (out + 4.0);
            Vec3::new(d.x * 0.14 + out * 0.22, d.y * onto_arc, d.z * onto_arc)
        };
        let off = self.folia.distance_to_zero(p, fan);
        if off < 0.75 - 0.055 * depth {
            return c.csf + (c.gray - c.csf) * 0.3;
        }
        let stem = (p - root).with_x((q.x - 16.0).max(0.0) * 0.9).length();
        let core = 1.0 - smooth_step(8.0, 12.0, stem);
        let leaf = smooth_step(1.25, 1.9, off) * smooth_step(2.0, 4.5, depth) * 0.75;
        c.gray + (c.white - c.gray) * leaf.max(core)
    }
}

/// Hull of the hemispheres, without the cerebellum's place.
pub(super) fn cerebrum(q: Vec3) -> f32 {
    let convexity = ellipsoid(q, [0.0, 15.0, 19.0], [64.0, 77.0, 49.0]);
    let parietal = ellipsoid(q, [22.0, 24.0, 17.0], [44.0, 62.0, 47.0]);
    let temporal = ellipsoid(q, [41.0, 8.0, -18.0], [21.0, 42.0, 20.0]);
    let medial = ellipsoid(q, [24.0, 14.0, -16.0], [16.0, 30.0, 14.0]);
    let hull = blend(
        blend(convexity, parietal, 8.0),
        blend(temporal, medial, 6.0),
        9.0,
    );
    hull.max(1.2 - tentorium(q))
}

/// Distance from the cerebellum's bed; negative below the tentorium.
pub(super) fn tentorium(q: Vec3) -> f32 {
    ellipsoid(q, [0.0, 50.0, -37.0], [51.5, 31.5, 25.0])
}

pub(super) fn cerebellum(q: Vec3) -> f32 {
    let hemisphere = ellipsoid(q, [21.0, 50.5, -37.5], [29.5, 30.5, 23.5]);
    let vermis = ellipsoid(q, [0.0, 47.0, -34.0], [12.0, 21.0, 21.5]);
    let notch = ellipsoid(q, [0.0, 76.0, -52.0], [4.0, 11.0, 14.0]);
    blend(hemisphere, vermis, 4.0).max(-notch)
}

/// Below the corpus callosum's arch: negative.
fn callosal_arch(p: Vec3) -> f32 {
    let along = (p.y - 4.0) / 33.0;
    (p.z - (26.0 - 24.0 * along * along)) * 0.7
}

/// Distance from the Sylvian fissure's sheet and the insula, less half its width.
fn sylvian_fissure(q: Vec3) -> f32 {
    let roof = -9.0 + 0.42 * q.y + 0.006 * q.y * q.y;
    let along = (q.y - 34.0).max(-26.0 - q.y).max(0.0);
    let into = (37.0 - q.x).max(0.0);
    let sheet = Vec3::new((q.z - roof) * 0.9, along, into).length() - 1.3;
    // The insula's surface behind it.
    let out = q.x - 37.5 - 0.02 * (q.y - 2.0) * (q.y - 2.0) * 0.25;
    let beside = (q.y - 20.0).max(-20.0 - q.y).max(0.0);
    let above = (q.z - roof - 15.0).max(roof - 8.0 - q.z).max(0.0);
    let insula = Vec3::new(out, beside, above).length() - 0.9;
    sheet.min(insula)
}

/// Into the frame of a lentiform nucleus: its front turned toward the midline by about 17°.
fn rotated(p: Vec3, center: [f32; 3]) -> Vec3 {
    let d = p - Vec3::from(center);
    Vec3::new(0.956 * d.x - 0.292 * d.y, 0.292 * d.x + 0.956 * d.y, d.z)
}
