//! Batches: which samples, which piece of each, changed how. Each from its place alone.

use rayon::prelude::*;

use super::augment::Augmentation;
use super::chance::Chance;
use super::data::{Sample, Target};
use super::recipe::Recipe;

/// A batch for one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Images one after another, `[z][y][x]`.
    pub images: Vec<f32>,
    /// A class per image, or a label per point.
    pub targets: Vec<u8>,
}

/// Streams of chance, so that none is drawn from twice.
const ORDER: u64 = 1;
const CHANGE: u64 = 2;

/// Part of the pieces of an image with a mask that are centered on something labeled.
const ON_LABELS: f64 = 0.34;

/// Steps of an epoch.
pub fn steps(recipe: &Recipe, samples: usize) -> usize {
    let all = (samples / recipe.training.batch).max(1);
    recipe.training.steps.unwrap_or(all)
}

/// The batch of a step.
pub fn batch(recipe: &Recipe, samples: &[Sample], epoch: usize, step: usize) -> Batch {
    let size = recipe.training.batch;
    let numbers: Vec<usize> = (step * size..(step + 1) * size).collect();
    // A pass over all samples in a new order, and another one where more are needed.
    let first = numbers[0] / samples.len();
    let orders: Vec<Vec<usize>> = (first..=numbers[size - 1] / samples.len())
        .map(|pass| {
            let place = [recipe.seed, ORDER, epoch as u64, pass as u64];
            Chance::at(&place).order(samples.len())
        })
        .collect();
    let made: Vec<(Vec<f32>, Vec<u8>)> = numbers
        .par_iter()
        .map(|n| {
            let order = &orders[n / samples.len() - first];
            let sample = &samples[order[n % samples.len()]];
            let mut chance = Chance::at(&[recipe.seed, CHANGE, epoch as u64, *n as u64]);
            one(recipe, sample, &mut chance, &recipe.augmentation)
        })
        .collect();
    let mut batch = Batch {
        images: Vec::new(),
        targets: Vec::new(),
    };
    for (image, target) in made {
        batch.images.extend(image);
        batch.targets.extend(target);
    }
    batch
}

fn one(
    recipe: &Recipe,
    sample: &Sample,
    chance: &mut Chance,
    augmentation: &Augmentation,
) -> (Vec<f32>, Vec<u8>) {
    match &sample.target {
        Target::Class(class) => {
            let mut image = in_range(&sample.image.floats(), recipe.data.range);
            augmentation.apply(chance, sample.image.dims, &mut image, None);
            (image, vec![*class])
        }
        Target::Mask(mask) => {
            let dims = three(&recipe.data.size);
            let from = corner(chance, sample.image.dims, dims, mask);
            let mut image = piece(&sample.image.floats(), sample.image.dims, from, dims, 0.0);
            let mut mask = piece(mask, sample.image.dims, from, dims, 0);
            augmentation.apply(chance, dims, &mut image, Some(&mut mask));
            (image, mask)
        }
    }
}

/// Values 0 to 255 in a network's range.
pub fn in_range(values: &[f32], [low, high]: [f32; 2]) -> Vec<f32> {
    let factor = (high - low) / 255.0;
    values.iter().map(|v| low + v * factor).collect()
}

/// `[z, y, x]` of a size on two or three axes.
pub fn three(size: &[usize]) -> [usize; 3] {
    match *size {
        [y, x] => [1, y, x],
        [z, y, x] => [z, y, x],
        _ => unreachable!("a checked recipe has two or three axes"),
    }
}

/// Where a piece begins: at random, or so that something labeled is in it. A piece that is larger
/// than the image has it in its middle.
fn corner(chance: &mut Chance, dims: [usize; 3], size: [usize; 3], mask: &[u8]) -> [i64; 3] {
    let on_labels = chance.happens(ON_LABELS);
    let pick = chance.bits();
    let labeled = mask.iter().filter(|m| **m != 0).count();
    let center = (on_labels && labeled > 0).then(|| {
        let wanted = ((u128::from(pick) * labeled as u128) >> 64) as usize;
        let mut places = mask.iter().enumerate().filter(|(_, m)| **m != 0);
        let at = places.nth(wanted).map_or(0, |(n, _)| n);
        [
            at / (dims[1] * dims[2]),
            at / dims[2] % dims[1],
            at % dims[2],
        ]
    });
    std::array::from_fn(|axis| {
        let (n, m) = (dims[axis] as i64, size[axis] as i64);
        let drawn = chance.unit();
        if n <= m {
            return (n - m) / 2;
        }
        match center {
            Some(center) => (center[axis] as i64 - m / 2).clamp(0, n - m),
            None => (drawn * (n - m + 1) as f64) as i64,
        }
    })
}

/// A piece of a grid; `outside` where the grid ends.
pub fn piece<T: Copy>(
    from: &[T],
    dims: [usize; 3],
    corner: [i64; 3],
    size: [usize; 3],
    outside: T,
) -> Vec<T> {
    let mut to = vec![outside; size.iter().product()];
    let inside = |at: i64, n: usize| (0..n as i64).contains(&at);
    for z in 0..size[0] {
        let pz = corner[0] + z as i64;
        for y in 0..size[1] {
            let py = corner[1] + y as i64;
            if !inside(pz, dims[0]) || !inside(py, dims[1]) {
                continue;
            }
            let line = (pz as usize * dims[1] + py as usize) * dims[2];
            let first = (-corner[2]).clamp(0, size[2] as i64);
            let last = (dims[2] as i64 - corner[2]).clamp(first, size[2] as i64);
            let row = (z * size[1] + y) * size[2];
            let start = (line as i64 + corner[2] + first) as usize;
            to[row + first as usize..row + last as usize]
                .copy_from_slice(&from[start..start + (last - first) as usize]);
        }
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_cut_and_filled_up() {
        let from: Vec<u8> = (1..=24).collect();
        let got = piece(&from, [2, 3, 4], [1, -1, 2], [1, 3, 3], 0);
        assert_eq!(got, [0, 0, 0, 15, 16, 0, 19, 20, 0]);
    }

    #[test]
    fn pieces_on_labels_have_some() {
        let dims = [1, 40, 40];
        let mut mask = vec![0; 1600];
        mask[40 * 37 + 3] = 1;
        let mut with = 0;
        for seed in 0..400 {
            let corner = corner(&mut Chance::at(&[seed]), dims, [1, 8, 8], &mask);
            with += usize::from(piece(&mask, dims, corner, [1, 8, 8], 0).contains(&1));
        }
        // A third of them, and few by chance.
        assert!((100..220).contains(&with), "{with}");
    }
}
