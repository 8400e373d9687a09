//! The same image on both sides of a split, or nearly the same.

use std::collections::HashMap;

use rayon::prelude::*;

use super::data::{Sample, Split};
use super::picture::Values;
use crate::inference::resize_plane;
use crate::model::sha256_hex;

/// Edge of the small images that are compared.
const EDGE: usize = 32;
/// Correlation of two small images from which on they are called nearly the same. Chest
/// radiographs of different people of one machine reach 0.98.
const NEARLY: f32 = 0.998;

/// Pairs (training, validation) of places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaks {
    /// Every value is the same.
    pub exact: Vec<(usize, usize)>,
    /// Almost.
    pub near: Vec<(usize, usize)>,
}

/// Finds images that are on both sides.
pub fn find(training: &[Sample], validation: &[Sample]) -> Leaks {
    let mut by_hash: HashMap<String, usize> = HashMap::new();
    let hashes: Vec<String> = training.par_iter().map(hash).collect();
    for (n, hash) in hashes.into_iter().enumerate() {
        by_hash.entry(hash).or_insert(n);
    }
    let of_validation: Vec<String> = validation.par_iter().map(hash).collect();
    let mut leaks = Leaks::default();
    for (v, hash) in of_validation.iter().enumerate() {
        if let Some(t) = by_hash.get(hash) {
            leaks.exact.push((*t, v));
        }
    }
    let small: Vec<Vec<f32>> = training.par_iter().map(small).collect();
    let others: Vec<Vec<f32>> = validation.par_iter().map(self::small).collect();
    leaks.near = others
        .par_iter()
        .enumerate()
        .flat_map_iter(|(v, b)| {
            small
                .iter()
                .enumerate()
                .filter_map(move |(t, a)| (product(a, b) >= NEARLY).then_some((t, v)))
        })
        .filter(|pair| !leaks.exact.contains(pair))
        .collect();
    leaks
}

/// Takes images out of the training part that are in the validation part too, and says so.
pub fn take_out(split: &mut Split) -> Leaks {
    let leaks = find(&split.training, &split.validation);
    let mut gone: Vec<usize> = leaks.exact.iter().chain(&leaks.near).map(|p| p.0).collect();
    gone.sort_unstable();
    gone.dedup();
    if !gone.is_empty() {
        split.doubts.push(format!(
            "{} images were taken out of training: {} are in validation too, {} nearly so",
            gone.len(),
            leaks.exact.len(),
            leaks.near.len()
        ));
    }
    for n in gone.into_iter().rev() {
        split.training.remove(n);
    }
    leaks
}

fn hash(sample: &Sample) -> String {
    let mut bytes: Vec<u8> = sample
        .image
        .dims
        .iter()
        .flat_map(|n| (*n as u64).to_le_bytes())
        .collect();
    match &sample.image.values {
        Values::Bytes(values) => bytes.extend_from_slice(values),
        Values::Floats(values) => bytes.extend(values.iter().flat_map(|v| v.to_le_bytes())),
    }
    sha256_hex(&bytes)
}

/// Σ a · b in eight sums, which compilers turn into vectors.
fn product(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    let pairs = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    for (a, b) in pairs {
        for n in 0..8 {
            sums[n] += a[n] * b[n];
        }
    }
    sums.iter().sum()
}

/// A small image (of a volume its middle plane) with mean 0 and length 1.
fn small(sample: &Sample) -> Vec<f32> {
    let [nz, ny, nx] = sample.image.dims;
    let values = sample.image.floats();
    let plane = &values[nz / 2 * ny * nx..(nz / 2 + 1) * ny * nx];
    let mut small = resize_plane(plane, [ny, nx], [EDGE; 2]);
    let mean = small.iter().sum::<f32>() / small.len() as f32;
    for v in &mut small {
        *v -= mean;
    }
    let length = small.iter().map(|v| v * v).sum::<f32>().sqrt();
    if length > 0.0 {
        for v in &mut small {
            *v /= length;
        }
    }
    small
}

#[cfg(test)]
mod tests {
    use super::super::chance::Chance;
    use super::super::data::Target;
    use super::super::picture::Picture;
    use super::*;

    fn sample(seed: u64, noise: f64) -> Sample {
        let mut chance = Chance::at(&[seed]);
        let knots: Vec<f32> = (0..64).map(|_| chance.unit() as f32 * 200.0).collect();
        let mut values = resize_plane(&knots, [8, 8], [64, 64]);
        let mut other = Chance::at(&[seed, 1]);
        for v in &mut values {
            *v += (other.normal() * noise) as f32;
        }
        let bytes = values.iter().map(|v| v.clamp(0.0, 255.0) as u8).collect();
        Sample {
            name: seed.to_string(),
            patient: seed.to_string(),
            split: None,
            group: None,
            image: Picture::bytes([1, 64, 64], bytes),
            target: Target::Class(0),
        }
    }

    #[test]
    fn copies_and_near_copies_are_found() {
        let training: Vec<Sample> = (0..20).map(|n| sample(n, 0.0)).collect();
        let mut validation: Vec<Sample> = (30..40).map(|n| sample(n, 0.0)).collect();
        validation.push(sample(3, 0.0));
        validation.push(sample(4, 2.0));
        let leaks = find(&training, &validation);
        assert_eq!(leaks.exact, [(3, 10)]);
        assert_eq!(leaks.near, [(4, 11)]);
        let mut split = Split {
            training,
            validation,
            doubts: Vec::new(),
        };
        take_out(&mut split);
        assert_eq!((split.training.len(), split.doubts.len()), (18, 1));
        assert!(
            split
                .training
                .iter()
                .all(|s| !["3", "4"].contains(&s.name.as_str()))
        );
    }
}
