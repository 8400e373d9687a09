//! Skull, orbits, airways, muscle, fat and skin of the synthetic head.

use glam::Vec3;

use super::brain::OPTIC_NERVE;
use super::head::Head;
use super::shapes::{blend, chain, ellipsoid, smooth_step};

impl Head {
    /// Skull, face, neck and skin; `cavity` is the distance from the dura in mm.
    pub(super) fn outside_brain(&self, p: Vec3, q: Vec3, cavity: f32) -> f32 {
        let c = &self.contrast;
        let face = ellipsoid(q, [0.0, -22.0, -48.0], [59.0, 52.0, 46.0]);
        let jaw = ellipsoid(q, [0.0, -18.0, -78.0], [52.0, 56.0, 40.0]);
        let neck = ellipsoid(q, [0.0, 40.0, -84.0], [58.0, 52.0, 62.0]);
        let skin = blend(blend(cavity - 12.0, face.min(jaw), 14.0), neck, 14.0);
        if skin > 0.0 {
            return c.air;
        }
        if skin > -1.6 {
            return c.muscle * 1.15;
        }
        let base = smooth_step(-18.0, -30.0, p.z - 0.12 * p.y);
        if let Some(signal) = self.face(p, q) {
            return signal;
        }
        let thickness = 6.8 + 1.6 * self.warp.at(p * 1.3);
        if cavity < thickness && (p.z > -64.0 || cavity < 2.5) {
            let middle = (cavity / thickness - 0.5).abs();
            let spongy = (0.27 - middle) * 8.0 * (1.0 - 0.5 * base);
            return c.bone + (c.marrow - c.bone) * spongy.clamp(0.0, 1.0);
        }
        // Soft tissue: fat with bundles of muscle that grow toward the base.
        let vertebra = ellipsoid(p, [0.0, 14.0, -80.0], [12.0, 9.0, 18.0]);
        if vertebra < 0.0 {
            return if vertebra > -1.3 { c.bone } else { c.marrow };
        }
        let temporalis = ellipsoid(q, [66.0, -14.0, -8.0], [9.0, 30.0, 34.0]);
        let bundles = self.rough.at(q * Vec3::new(0.45, 0.45, 0.16)).abs() - 0.20 + 0.15 * base;
        if temporalis < 0.0 || (bundles > 0.0 && base > 0.3 && skin < -6.0) {
            return c.muscle * (1.0 + 0.1 * self.rough.at(q * 1.7));
        }
        c.fat * (0.9 + 0.12 * self.rough.at(p * 0.6))
    }

    /// Orbits, sinuses and airways.
    pub(super) fn face(&self, p: Vec3, q: Vec3) -> Option<f32> {
        let c = &self.contrast;
        let globe = ellipsoid(q, [30.0, -60.0, -27.0], [11.6, 12.0, 11.6]);
        if globe < 0.0 {
            let lens = ellipsoid(q, [30.0, -69.5, -27.0], [4.6, 2.0, 4.6]);
            if lens < 0.0 {
                return Some(c.gray);
            }
            return Some(if globe > -1.0 { c.muscle } else { c.csf * 1.15 });
        }
        if chain(q, &OPTIC_NERVE) < 0.0 && p.y < -14.0 {
            return Some(c.deep_gray);
        }
        let orbit = chain(
            q,
            &[([30.0, -62.0, -27.0], 16.5), ([17.0, -26.0, -22.0], 3.5)],
        );
        if orbit < 0.0 {
            let rectus = (orbit + 3.0).abs() < 1.1 && p.y > -56.0;
            return Some(if rectus { c.muscle } else { c.fat * 0.93 });
        }
        if orbit < 1.6 {
            return Some(c.bone);
        }
        let wall = 1.3;
        let sinuses = [
            ellipsoid(q, [27.0, -44.0, -54.0], [13.0, 15.0, 15.0]),
            ellipsoid(q, [6.0, -17.0, -31.0], [7.0, 9.0, 7.0]),
            ellipsoid(q, [7.0, -44.0, -30.0], [4.5, 16.0, 8.0]),
            ellipsoid(q, [9.0, -68.0, -6.0 + 0.4 * q.x], [11.0, 3.2, 7.0]),
        ];
        let air = sinuses.into_iter().fold(f32::INFINITY, f32::min);
        if air < 0.0 {
            return Some(c.air);
        }
        if air < wall {
            return Some(c.muscle * 1.1);
        }
        // Nasal cavity with septum and turbinates.
        let nose = ellipsoid(q, [0.0, -40.0, -52.0], [12.5, 32.0, 15.0]);
        if nose < 0.0 {
            let turbinate = chain(q, &[([7.6, -60.0, -57.0], 4.0), ([7.6, -25.0, -57.0], 4.0)])
                .min(chain(
                    q,
                    &[([6.6, -54.0, -47.0], 3.4), ([6.6, -25.0, -47.0], 3.4)],
                ));
            return Some(if q.x < 1.2 || turbinate < 0.0 || nose > -1.2 {
                c.muscle * 1.15
            } else {
                c.air
            });
        }
        let pharynx = chain(p, &[([0.0, -8.0, -50.0], 6.5), ([0.0, -2.0, -90.0], 7.0)]);
        if pharynx < 0.0 {
            return Some(c.air);
        }
        // Mastoid cells and ear canal.
        let mastoid = ellipsoid(q, [49.0, 27.0, -36.0], [12.0, 12.0, 15.0]);
        if mastoid < 0.0 {
            return Some(if self.rough.at(p * 2.2) > -0.12 {
                c.air * 3.0
            } else {
                c.muscle * 0.5
            });
        }
        let canal = chain(q, &[([42.0, 16.0, -34.0], 3.0), ([80.0, 12.0, -36.0], 3.4)]);
        if canal < 0.0 {
            return Some(c.air);
        }
        // Petrous bone and clivus.
        let petrous = chain(q, &[([14.0, 6.0, -33.0], 5.0), ([44.0, 22.0, -32.0], 9.0)]);
        if petrous < 0.0 {
            return Some(c.bone * 1.2);
        }
        let clivus = chain(p, &[([0.0, -6.0, -32.0], 5.5), ([0.0, 10.0, -54.0], 3.5)]);
        if clivus < 0.0 {
            return Some(if clivus < -1.2 {
                c.marrow * 1.2
            } else {
                c.bone
            });
        }
        let tongue = ellipsoid(q, [0.0, -34.0, -88.0], [22.0, 28.0, 15.0]);
        (tongue < 0.0).then_some(c.muscle * 1.1)
    }
}
