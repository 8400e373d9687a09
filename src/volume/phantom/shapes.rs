//! Signed distances in mm, negative inside: exact for chains, close for ellipsoids.

use glam::Vec3;

/// Distance to an ellipsoid; exact on its surface, close near it.
pub fn ellipsoid(p: Vec3, center: [f32; 3], radii: [f32; 3]) -> f32 {
    let p = p - Vec3::from(center);
    let r = Vec3::from(radii);
    let outer = (p / r).length();
    let slope = (p / (r * r)).length();
    if slope < 1e-6 {
        return -r.min_element();
    }
    outer * (outer - 1.0) / slope
}

/// A point of a chain's center line with the radius there, in mm.
pub type Bead = ([f32; 3], f32);

/// Distance to a tube along straight pieces, its radius changing evenly along each.
pub fn chain(p: Vec3, beads: &[Bead]) -> f32 {
    beads
        .windows(2)
        .map(|pair| {
            let (a, b) = (Vec3::from(pair[0].0), Vec3::from(pair[1].0));
            let along = b - a;
            let t = ((p - a).dot(along) / along.length_squared()).clamp(0.0, 1.0);
            (p - a - along * t).length() - (pair[0].1 + (pair[1].1 - pair[0].1) * t)
        })
        .fold(f32::INFINITY, f32::min)
}

/// Union of two shapes with a fillet of about `k` mm.
pub fn blend(a: f32, b: f32, k: f32) -> f32 {
    let h = (k - (a - b).abs()).max(0.0) / k;
    a.min(b) - h * h * k * 0.25
}

/// 0 below `low`, 1 above `high`, smooth between.
pub fn smooth_step(low: f32, high: f32, x: f32) -> f32 {
    let t = ((x - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ellipsoid_with_equal_radii_is_a_sphere() {
        let center = [1.0, 2.0, 3.0];
        for p in [
            Vec3::new(9.0, 2.0, 3.0),
            Vec3::new(2.0, 4.0, 5.0),
            Vec3::ZERO,
        ] {
            let expected = (p - Vec3::from(center)).length() - 5.0;
            assert!((ellipsoid(p, center, [5.0; 3]) - expected).abs() < 1e-5);
        }
        assert_eq!(ellipsoid(Vec3::from(center), center, [5.0, 4.0, 6.0]), -4.0);
    }

    #[test]
    fn a_chain_is_as_far_as_its_nearest_piece() {
        let beads = [
            ([0.0, 0.0, 0.0], 1.0),
            ([10.0, 0.0, 0.0], 3.0),
            ([10.0, 10.0, 0.0], 3.0),
        ];
        assert_eq!(chain(Vec3::new(5.0, -7.0, 0.0), &beads), 5.0);
        assert_eq!(chain(Vec3::new(-4.0, 0.0, 0.0), &beads), 3.0);
        assert_eq!(chain(Vec3::new(10.0, 5.0, 0.0), &beads), -3.0);
    }

    #[test]
    fn a_blend_joins_smoothly_and_keeps_far_shapes() {
        assert_eq!(blend(1.0, 9.0, 4.0), 1.0);
        assert_eq!(blend(2.0, 2.0, 4.0), 1.0);
    }
}
