//! Anatomy of the synthetic head: ideal T1 signal and hippocampus labels at any position.
//!
//! Coordinates: LPS mm with the anterior commissure near the origin; `q` mirrors the right side onto the left.

use glam::Vec3;

use super::brain::{BRAINSTEM, LATERAL_VENTRICLE, TEMPORAL_HORN, cerebellum, cerebrum, tentorium};
use super::hippocampus::Hippocampus;
use super::noise::{Noise, SplitMix64};
use super::shapes::{blend, chain, ellipsoid, smooth_step};
use super::{ANTERIOR_HIPPOCAMPUS, POSTERIOR_HIPPOCAMPUS};

/// Ideal signal of each tissue.
#[derive(Clone, Debug)]
pub(super) struct Contrast {
    pub(super) white: f32,
    pub(super) gray: f32,
    pub(super) deep_gray: f32,
    pub(super) thalamus: f32,
    pub(super) hippocampus: f32,
    pub(super) csf: f32,
    pub(super) fat: f32,
    pub(super) muscle: f32,
    pub(super) marrow: f32,
    pub(super) bone: f32,
    pub(super) air: f32,
    pub(super) vessel: f32,
}

/// What differs between left and right.
#[derive(Clone, Debug)]
pub(super) struct Side {
    pub(super) hippocampus: Hippocampus,
    pub(super) ventricle: f32,
    pub(super) shift: Vec3,
}

/// One synthetic head.
#[derive(Clone, Debug)]
pub struct Head {
    pub(super) contrast: Contrast,
    pub(super) sides: [Side; 2],
    pub(super) scale: Vec3,
    pub(super) warp: Noise,
    pub(super) warp_mm: f32,
    pub(super) folds: Noise,
    pub(super) small_folds: Noise,
    pub(super) folia: Noise,
    pub(super) rough: Noise,
    pub(super) sulcus_mm: f32,
}

impl Head {
    /// A head from a seed.
    pub fn new(seed: u64) -> Self {
        let mut chance = SplitMix64::new(seed, 1);
        let scale = Vec3::splat(chance.between(0.945, 0.985)) + chance.offset(0.012);
        let mut vary = |value: f32| value * chance.between(0.96, 1.04);
        let contrast = Contrast {
            white: vary(735.0),
            gray: vary(505.0),
            deep_gray: vary(560.0),
            thalamus: vary(610.0),
            hippocampus: vary(492.0),
            csf: vary(165.0),
            fat: vary(980.0),
            muscle: vary(400.0),
            marrow: vary(640.0),
            bone: vary(75.0),
            air: 8.0,
            vessel: vary(120.0),
        };
        let (size, open) = (chance.between(1.0, 1.09), chance.between(0.75, 1.35));
        let mut side = || {
            let scale = size * chance.between(0.97, 1.03);
            Side {
                hippocampus: Hippocampus::new(&mut chance, scale),
                ventricle: open * chance.between(0.9, 1.1),
                shift: chance.offset(0.8),
            }
        };
        let sides = [side(), side()];
        Self {
            contrast,
            sides,
            scale,
            warp: Noise::new(seed, 2, 42.0),
            warp_mm: chance.between(2.0, 3.0),
            folds: Noise::new(seed, 3, 13.5),
            small_folds: Noise::new(seed, 4, 8.5),
            folia: Noise::new(seed, 5, 4.6),
            rough: Noise::new(seed, 6, 7.0),
            sulcus_mm: chance.between(0.55, 1.0),
        }
    }

    /// How far this head is bent at a position in LPS mm; smooth over several mm.
    pub fn bend(&self, lps: Vec3) -> Vec3 {
        self.warp.vector_at(lps) * self.warp_mm
    }

    /// Ideal signal and label at a position in LPS mm, where the head is bent by `bend`.
    pub fn at(&self, lps: Vec3, bend: Vec3) -> (f32, u8) {
        let p = (lps - Vec3::new(0.0, 14.0, 10.0)) / self.scale + Vec3::new(0.0, 14.0, 10.0);
        if surely_outside(p) {
            return (self.contrast.air, 0);
        }
        let p = p + bend;
        // CLINICAL(laterality): sides[0] is the patient's left, +x in LPS.
        let side = &self.sides[usize::from(p.x < 0.0)];
        let q = Vec3::new(p.x.abs(), p.y, p.z);

        let cerebrum = cerebrum(q);
        let cerebellum = cerebellum(q);
        let brainstem = chain(Vec3::new(p.x * 0.92, p.y, p.z), &BRAINSTEM);
        let bed = cerebellum.min(tentorium(q).max(8.0 - p.y));
        let cavity = blend(cerebrum.min(bed), brainstem, 10.0) - 2.2;
        if cavity < 0.0 {
            return self.inside_skull(p, q, side, cerebrum, cerebellum, brainstem);
        }
        (self.outside_brain(p, q, cavity), 0)
    }

    fn inside_skull(
        &self,
        p: Vec3,
        q: Vec3,
        side: &Side,
        cerebrum: f32,
        cerebellum: f32,
        brainstem: f32,
    ) -> (f32, u8) {
        let c = &self.contrast;
        let s = q - side.shift;
        // Far from the middle there is only cortex, white matter and cerebellum.
        if ellipsoid(q, [0.0, 14.0, 0.0], [46.0, 56.0, 40.0]) > 0.0 {
            return (self.shell(p, q, cerebrum, cerebellum, brainstem), 0);
        }
        let hippocampus = side.hippocampus.distance(q);

        // The hippocampus lies in the temporal horn's floor: horn above and lateral, white matter below.
        let horn = chain(s, &TEMPORAL_HORN) - 0.5 * (side.ventricle - 1.0);
        if hippocampus < 0.0 {
            let label = if side.hippocampus.is_anterior(q) {
                ANTERIOR_HIPPOCAMPUS
            } else {
                POSTERIOR_HIPPOCAMPUS
            };
            // Alveus and the dark-bright layering inside, faintly.
            let layer = smooth_step(-1.2, -0.3, hippocampus);
            return (
                c.hippocampus + (c.white - c.hippocampus) * 0.12 * layer,
                label,
            );
        }

        let ventricle = chain(s, &LATERAL_VENTRICLE) - 1.6 * (side.ventricle - 1.0);
        let signal = self
            .midline(p, q, side, ventricle, brainstem)
            .or_else(|| {
                let deep = cerebrum < 0.0 && brainstem > 0.0 && cerebellum > 0.0;
                deep.then(|| self.deep(p, q, s, ventricle)).flatten()
            })
            .or_else(|| {
                let beside = cerebrum < 0.0 && brainstem > 0.0;
                beside
                    .then(|| self.around_hippocampus(side, q, s, hippocampus, horn))
                    .flatten()
            })
            .unwrap_or_else(|| self.shell(p, q, cerebrum, cerebellum, brainstem));
        (signal, 0)
    }
}

/// Cheap and generous: air for certain.
fn surely_outside(p: Vec3) -> bool {
    ellipsoid(p, [0.0, 14.0, 8.0], [80.0, 101.0, 82.0]) > 6.0 && p.z > -20.0
}
