//! From ideal signal to stored values: point spread, receive field, texture, Rician noise.

use glam::Vec3;
use rayon::prelude::*;

use super::SplitMix64;
use super::noise::{Noise, normal_pair};
use crate::geometry::{DVec3, VolumeGeometry};

/// Stored values of an ideal signal.
pub fn acquire(seed: u64, geometry: &VolumeGeometry, mut signal: Vec<f32>) -> Vec<i16> {
    let dims = geometry.dims();
    for axis in 0..3 {
        signal = smoothed(&signal, dims, axis);
    }
    let mut chance = SplitMix64::new(seed, 0x5ca);
    let tilt = chance.offset(0.0016);
    let hum = Noise::new(seed, 0xb1a5, 95.0);
    let hum_gain = chance.between(0.10, 0.22);
    let grain = Noise::new(seed, 0x6e41, 2.6);
    let noise_sd = chance.between(10.0, 19.0);
    let [ni, nj, _] = dims;
    let center = Vec3::new(0.0, 12.0, 12.0);
    let mut stored = vec![0_i16; signal.len()];
    stored
        .par_chunks_mut(ni)
        .zip(signal.par_chunks(ni))
        .enumerate()
        .for_each(|(row, (stored, signal))| {
            let (j, k) = ((row % nj) as f64, (row / nj) as f64);
            // The receive field is smooth: one value for every eight voxels of a row, linear between.
            let field: Vec<f32> = (0..=ni.div_ceil(8))
                .map(|n| {
                    let at = geometry.lps_at(DVec3::new((n * 8) as f64, j, k)).as_vec3();
                    1.0 + tilt.dot(at - center) + hum_gain * hum.at(at)
                })
                .collect();
            for (i, (stored, &signal)) in stored.iter_mut().zip(signal).enumerate() {
                let t = (i % 8) as f32 / 8.0;
                let receive = field[i / 8] * (1.0 - t) + field[i / 8 + 1] * t;
                let mut ideal = signal * receive;
                if signal > 40.0 {
                    let at = geometry.lps_at(DVec3::new(i as f64, j, k)).as_vec3();
                    ideal *= 1.0 + 0.035 * grain.at(at);
                }
                let [re, im] = normal_pair(seed, (row * ni + i) as u64);
                let (re, im) = (ideal + re * noise_sd, im * noise_sd);
                *stored = (re * re + im * im).sqrt().round().min(4095.0) as i16;
            }
        });
    stored
}

/// Weights 1, 2, 1 along one axis, edges repeated: about the point spread of a real acquisition.
fn smoothed(values: &[f32], dims: [usize; 3], axis: usize) -> Vec<f32> {
    let step = [1, dims[0], dims[0] * dims[1]][axis];
    let count = dims[axis];
    let mut out = vec![0.0_f32; values.len()];
    out.par_chunks_mut(dims[0])
        .enumerate()
        .for_each(|(row, out)| {
            for (i, out) in out.iter_mut().enumerate() {
                let n = row * dims[0] + i;
                let at = n / step % count;
                let before = if at > 0 { n - step } else { n };
                let after = if at + 1 < count { n + step } else { n };
                *out = 0.22 * values[before] + 0.56 * values[n] + 0.22 * values[after];
            }
        });
    out
}
