//! One hippocampus: a curved, tapered, slightly flattened body, its head anterior and its tail rising behind.

use glam::Vec3;

use super::noise::SplitMix64;
use super::shapes::{Bead, chain};

/// Center line and radii in mm; x is the distance from the midline.
const BEADS: [Bead; 8] = [
    ([18.5, 4.0, -17.0], 2.6),
    ([21.5, 6.5, -19.5], 5.9),
    ([25.0, 11.0, -20.0], 6.8),
    ([27.3, 16.5, -17.5], 5.7),
    ([28.3, 22.0, -15.0], 4.7),
    ([28.0, 28.0, -10.0], 4.4),
    ([25.5, 33.0, -4.5], 4.0),
    ([21.5, 36.0, 0.5], 2.6),
];

/// The body of one side.
#[derive(Clone, Debug)]
pub struct Hippocampus {
    beads: [Bead; 8],
    /// y in mm where the head ends (apex of the uncus).
    apex_y: f32,
}

impl Hippocampus {
    /// A body that differs a little from seed to seed and from side to side.
    pub fn new(chance: &mut SplitMix64, scale: f32) -> Self {
        let shift = chance.offset(1.2);
        let beads = BEADS.map(|(at, radius)| {
            let at = Vec3::from(at) + shift + chance.offset(0.5);
            (at.to_array(), radius * scale * chance.between(0.96, 1.04))
        });
        let apex_y = 15.2 + shift.y + chance.between(-0.8, 0.8);
        Self { beads, apex_y }
    }

    /// Distance to its surface in mm, negative inside; x is the distance from the midline.
    pub fn distance(&self, p: Vec3) -> f32 {
        // Wider than high: heights count 1.22 times around the center line's height at this y.
        let height = self.height_at(p.y);
        let flat = Vec3::new(p.x * 0.96, p.y, height + (p.z - height) * 1.22);
        let beads = self.beads.map(|(at, r)| ([at[0] * 0.96, at[1], at[2]], r));
        chain(flat, &beads)
    }

    /// Whether a position belongs to the anterior part.
    pub fn is_anterior(&self, p: Vec3) -> bool {
        p.y < self.apex_y
    }

    /// Height of the center line, extended at both ends.
    pub fn height_at(&self, y: f32) -> f32 {
        let last = self.beads.len() - 1;
        if y <= self.beads[0].0[1] {
            return self.beads[0].0[2];
        }
        self.beads
            .windows(2)
            .find(|pair| y <= pair[1].0[1])
            .map_or(self.beads[last].0[2], |pair| {
                let (a, b) = (pair[0].0, pair[1].0);
                a[2] + (b[2] - a[2]) * (y - a[1]) / (b[1] - a[1]).max(1e-3)
            })
    }
}
