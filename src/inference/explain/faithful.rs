//! The test of a map: deletion and insertion, against orders by chance.

use super::{Scorer, blurred, like, plane_of};
use crate::findings::Faithfulness;
use crate::inference::tensor::Array;
use crate::inference::{Error, resize_plane};
use crate::task::Task;

/// Parts of the image that change at a time.
const STEPS: usize = 12;
/// Orders by chance; a map that beats all of 19 does so by chance in one of 20 cases.
const ORDERS: usize = 19;
/// Points along each axis of an order by chance, which is as smooth as a map.
const COARSE: usize = 7;

/// Tests a map of an input.
pub fn test(
    scorer: &Scorer<'_>,
    input: &Array,
    dims: [usize; 2],
    map: &[f32],
    task: &Task,
) -> Result<Faithfulness, Error> {
    let (size, values) = plane_of(input);
    let without = blurred(input);
    let mut chance = Chance(0x4E45_4741_544F);
    let mut orders = vec![order(map, dims, size, &mut chance)];
    for _ in 0..ORDERS {
        let noise: Vec<f32> = (0..COARSE * COARSE).map(|_| chance.unit()).collect();
        orders.push(order(&noise, [COARSE; 2], size, &mut chance));
    }
    // For each order the image with n parts gone, and with n parts there; both ends are shared.
    let inner = STEPS - 1;
    let count = orders.len() * 2 * inner;
    task.begin("Testing the map", count + 2);
    let changed = |n: usize| {
        let (which, rest) = (n / (2 * inner), n % (2 * inner));
        let (insert, step) = (rest >= inner, rest % inner + 1);
        let order = &orders[which];
        let taken = order.len() * step / STEPS;
        let (mut image, other) = if insert {
            (without.to_vec(), values)
        } else {
            (values.to_vec(), without.as_slice())
        };
        for at in &order[..taken] {
            image[*at] = other[*at];
        }
        like(input, image)
    };
    let ends = |n: usize| {
        let image = if n == 0 { values } else { without.as_slice() };
        like(input, image.to_vec())
    };
    let ends = scorer.log_odds_of(2, &ends, task)?;
    let found = scorer.log_odds_of(count, &changed, task)?;
    let [whole, gone] = [ends[0], ends[1]];
    // Of log-odds: probabilities near 0 and 1 hardly move, whatever is taken away.
    let area = |first: f64, inner: &[f64], last: f64| {
        (inner.iter().sum::<f64>() + f64::midpoint(first, last)) / STEPS as f64
    };
    let areas: Vec<[f64; 2]> = found
        .chunks_exact(2 * inner)
        .map(|one| {
            let (deletion, insertion) = one.split_at(inner);
            [area(whole, deletion, gone), area(gone, insertion, whole)]
        })
        .collect();
    let scores: Vec<f64> = areas[1..].iter().map(|[d, i]| i - d).collect();
    Ok(Faithfulness {
        deletion: areas[0][0],
        insertion: areas[0][1],
        chance_mean: scores.iter().sum::<f64>() / scores.len() as f64,
        chance_best: scores.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        chance_orders: ORDERS,
    })
}

/// Points of the image from the map's highest value down; equal ones by chance, so that a flat map
/// has no order of its own.
fn order(map: &[f32], dims: [usize; 2], size: [usize; 2], chance: &mut Chance) -> Vec<usize> {
    let large = resize_plane(map, dims, size);
    let ties: Vec<u64> = large.iter().map(|_| chance.next()).collect();
    let mut points: Vec<usize> = (0..large.len()).collect();
    points.sort_unstable_by(|a, b| {
        large[*b]
            .total_cmp(&large[*a])
            .then(ties[*a].cmp(&ties[*b]))
    });
    points
}

/// Steele et al. 2014, `SplitMix64`; the same numbers in every run.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 16_777_216.0
    }
}
