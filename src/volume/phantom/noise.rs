//! Repeatable chance: a small generator, a hash per voxel, and smooth noise in space.
//!
//! Only additions, products and square roots, so a seed gives the same voxels on every machine.

use glam::Vec3;

/// SplitMix64.
///
/// # Source
/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// A stream for one purpose (`stream`) of a seed.
    pub const fn new(seed: u64, stream: u64) -> Self {
        Self(mix(seed ^ mix(stream.wrapping_add(0x9e37_79b9_7f4a_7c15))))
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Evenly spread between `low` and `high`.
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * ((self.next_u64() >> 40) as f32 / (1_u64 << 24) as f32)
    }

    /// Evenly spread around 0, each component up to `reach`.
    pub fn offset(&mut self, reach: f32) -> Vec3 {
        Vec3::new(
            self.between(-reach, reach),
            self.between(-reach, reach),
            self.between(-reach, reach),
        )
    }
}

const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Two numbers close to a normal distribution (mean 0, SD 1), by seed and index.
///
/// Each is a sum of two 16-bit uniforms scaled to SD 1 (a triangle: bounded at ±2.45 SD).
pub fn normal_pair(seed: u64, index: u64) -> [f32; 2] {
    let bits = mix(seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let part = |shift: u32| ((bits >> shift) & 0xffff) as f32 / 65536.0 - 0.5;
    // Variance of a uniform of width 1 is 1/12.
    let scale = 2.449_489_7;
    [(part(0) + part(16)) * scale, (part(32) + part(48)) * scale]
}

/// Gradient noise in about -1 to 1, with features of about `1 / frequency` mm.
///
/// # Source
/// Perlin, "Improving noise", SIGGRAPH 2002, with a hash in place of the permutation table.
#[derive(Clone, Copy, Debug)]
pub struct Noise {
    seed: u32,
    frequency: f32,
}

impl Noise {
    /// Features of `size_mm`.
    pub const fn new(seed: u64, stream: u64, size_mm: f32) -> Self {
        Self {
            seed: mix(seed ^ mix(stream)) as u32,
            frequency: 1.0 / size_mm,
        }
    }

    /// Value at a position in mm.
    pub fn at(self, p: Vec3) -> f32 {
        let p = p * self.frequency;
        let (x, y, z) = (floor(p.x), floor(p.y), floor(p.z));
        let f = p - Vec3::new(x as f32, y as f32, z as f32);
        let fade = f * f * f * (f * (f * 6.0 - 15.0) + 10.0);
        let [hx, hy, hz] =
            [(x, 0x8da6_b343), (y, 0xd816_3841), (z, 0xcb1a_b31f)].map(|(n, k): (i32, u32)| {
                [
                    (n as u32).wrapping_mul(k),
                    (n as u32).wrapping_add(1).wrapping_mul(k),
                ]
            });
        let corner = |dx: usize, dy: usize, dz: usize| {
            let h = self.seed ^ hx[dx] ^ hy[dy] ^ hz[dz];
            let h = (h ^ (h >> 15)).wrapping_mul(0x2c1b_3c6d);
            let h = (h ^ (h >> 13)).wrapping_mul(0x297a_2d39);
            DIRECTIONS[(h >> 28) as usize].dot(f - Vec3::new(dx as f32, dy as f32, dz as f32))
        };
        let lerp = |a: f32, b: f32, t: f32| a + (b - a) * t;
        let edge = |dy, dz| lerp(corner(0, dy, dz), corner(1, dy, dz), fade.x);
        let face = |dz| lerp(edge(0, dz), edge(1, dz), fade.y);
        lerp(face(0), face(1), fade.z)
    }

    /// Three independent values.
    pub fn vector_at(self, p: Vec3) -> Vec3 {
        let shift = Vec3::new(317.0, -211.0, 127.0) / self.frequency;
        Vec3::new(self.at(p), self.at(p + shift), self.at(p - shift))
    }

    /// Value and approximate distance in mm to where the value is 0.
    pub fn distance_to_zero(self, p: Vec3, map: impl Fn(Vec3) -> Vec3) -> f32 {
        let step = 0.5;
        let value = |p| self.at(map(p));
        let here = value(p);
        let gradient = Vec3::new(
            value(p + Vec3::X * step) - here,
            value(p + Vec3::Y * step) - here,
            value(p + Vec3::Z * step) - here,
        ) / step;
        here.abs() / gradient.length().max(0.25 * self.frequency)
    }
}

/// Without the call into the math library that `f32::floor` is on plain x86-64.
const fn floor(x: f32) -> i32 {
    let toward_zero = x as i32;
    toward_zero - (x < toward_zero as f32) as i32
}

/// Perlin's twelve edge directions, four of them twice.
const DIRECTIONS: [Vec3; 16] = {
    const fn d(x: i32, y: i32, z: i32) -> Vec3 {
        Vec3::new(x as f32, y as f32, z as f32)
    }
    [
        d(1, 1, 0),
        d(-1, 1, 0),
        d(1, -1, 0),
        d(-1, -1, 0),
        d(1, 0, 1),
        d(-1, 0, 1),
        d(1, 0, -1),
        d(-1, 0, -1),
        d(0, 1, 1),
        d(0, -1, 1),
        d(0, 1, -1),
        d(0, -1, -1),
        d(1, 1, 0),
        d(-1, 1, 0),
        d(0, -1, 1),
        d(0, -1, -1),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_gives_the_published_numbers() {
        // Rosetta Code, "Pseudo-random numbers/Splitmix64", seed 1234567.
        let mut chance = SplitMix64(1_234_567);
        let numbers = [chance.next_u64(), chance.next_u64(), chance.next_u64()];
        let published = [
            6457827717110365317,
            3203168211198807973,
            9817491932198370423,
        ];
        assert_eq!(numbers, published);
    }

    #[test]
    fn pairs_have_mean_0_and_variance_1() {
        let (mut sum, mut squares) = (0.0_f64, 0.0_f64);
        for n in 0..20_000 {
            for x in normal_pair(3, n) {
                sum += f64::from(x);
                squares += f64::from(x * x);
            }
        }
        // 40,000 draws: the standard error of the mean is 0.005, of the variance about 0.006.
        assert!((sum / 40_000.0).abs() < 0.02);
        assert!((squares / 40_000.0 - 1.0).abs() < 0.025);
    }

    #[test]
    fn noise_is_0_at_its_lattice_and_continuous() {
        let noise = Noise::new(1, 2, 10.0);
        assert_eq!(noise.at(Vec3::new(-30.0, 20.0, 10.0)), 0.0);
        let before = noise.at(Vec3::new(19.999, -4.0, 3.0));
        let after = noise.at(Vec3::new(20.001, -4.0, 3.0));
        // 0.002 mm of a slope of at most about 0.3 per mm.
        assert!((before - after).abs() < 1e-3);
    }
}
