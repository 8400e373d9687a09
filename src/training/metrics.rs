//! Figures of classifiers and segmentations, each by its definition, with bootstrap intervals.

use super::chance::Chance;
use crate::inference::Heads;

/// Draws of a bootstrap.
const DRAWS: usize = 2000;
/// Bins of the calibration error.
const BINS: usize = 15;

/// Area under the ROC curve: how often a positive case has the higher score, ties counting half
/// (Mann and Whitney). `None` without cases of both kinds.
pub fn auc(cases: &[(f64, bool)]) -> Option<f64> {
    let positive = cases.iter().filter(|c| c.1).count();
    let negative = cases.len() - positive;
    if positive == 0 || negative == 0 {
        return None;
    }
    let mut sorted: Vec<&(f64, bool)> = cases.iter().collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut wins, mut below) = (0.0, 0.0);
    for tied in sorted.chunk_by(|a, b| a.0 == b.0) {
        let up = tied.iter().filter(|c| c.1).count() as f64;
        let down = tied.len() as f64 - up;
        wins += up * (below + down / 2.0);
        below += down;
    }
    Some(wins / (positive as f64 * negative as f64))
}

/// The middle 95 % of a figure over draws of cases with replacement (percentile bootstrap).
pub fn interval(
    cases: usize,
    seed: u64,
    figure: &(dyn Fn(&[usize]) -> Option<f64> + Sync),
) -> Option<[f64; 2]> {
    use rayon::prelude::*;
    if cases == 0 {
        return None;
    }
    let mut found: Vec<f64> = (0..DRAWS as u64)
        .into_par_iter()
        .filter_map(|n| {
            let mut chance = Chance::at(&[seed, 0x42_4F4F_5400, n]);
            let drawn: Vec<usize> = (0..cases).map(|_| chance.below(cases)).collect();
            figure(&drawn)
        })
        .collect();
    if found.len() < DRAWS / 2 {
        return None;
    }
    found.sort_by(f64::total_cmp);
    let at = |part: f64| found[((found.len() - 1) as f64 * part).round() as usize];
    Some([at(0.025), at(0.975)])
}

/// At a threshold: cases with at least this score are called positive.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Part of all cases that is called rightly.
    pub accuracy: f64,
    /// Part of the positive cases that is called positive.
    pub sensitivity: f64,
    /// Part of the negative cases that is called negative.
    pub specificity: f64,
}

/// Rates at a threshold.
pub fn rates(cases: &[(f64, bool)], threshold: f64) -> Rates {
    let count = |f: &dyn Fn(&(f64, bool)) -> bool| cases.iter().filter(|c| f(c)).count() as f64;
    let hit = count(&|c| c.1 && c.0 >= threshold);
    let kept = count(&|c| !c.1 && c.0 < threshold);
    let positive = count(&|c| c.1);
    let part = |a: f64, b: f64| if b > 0.0 { a / b } else { f64::NAN };
    Rates {
        accuracy: part(hit + kept, cases.len() as f64),
        sensitivity: part(hit, positive),
        specificity: part(kept, cases.len() as f64 - positive),
    }
}

/// The threshold with the largest sum of sensitivity and specificity (Youden), halfway to the
/// next lower score.
pub fn best_threshold(cases: &[(f64, bool)]) -> f64 {
    let mut sorted = cases.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let positive = sorted.iter().filter(|c| c.1).count() as f64;
    let part = |a: f64, b: f64| if b > 0.0 { a / b } else { f64::NAN };
    let mut best = (f64::NEG_INFINITY, 0.5);
    // Cases below the threshold, by truth; of equal scores none or all are.
    let (mut missed, mut kept) = (0.0, 0.0);
    let mut before: Option<f64> = None;
    for group in sorted.chunk_by(|a, b| a.0 == b.0) {
        let score = group[0].0;
        let threshold = before.map_or(score, |before| f64::midpoint(score, before));
        let negative = sorted.len() as f64 - positive;
        let sum = part(positive - missed, positive) + part(kept, negative);
        if sum > best.0 {
            best = (sum, threshold);
        }
        missed += group.iter().filter(|c| c.1).count() as f64;
        kept += group.iter().filter(|c| !c.1).count() as f64;
        before = Some(score);
    }
    best.1
}

/// Figures at thresholds that were chosen on other patients: of many random halves of the patients
/// one chooses, the other is called by it.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct HalfSplits {
    /// How many.
    pub splits: usize,
    /// Mean accuracy.
    pub accuracy: f64,
    /// The lowest and the highest.
    pub accuracy_range: [f64; 2],
    /// Mean sensitivity.
    pub sensitivity: f64,
    /// Mean specificity.
    pub specificity: f64,
}

/// Halves that are tried.
const HALVES: u64 = 100;
/// Cases below which halves tell nothing.
const LEAST_CASES: usize = 20;

/// See [`HalfSplits`]; `None` where there are few cases, or where a half lacks one of both truths.
/// Cases are (score, truth), in the order of their patients.
pub fn half_splits(cases: &[(f64, bool)], patients: &[&str], seed: u64) -> Option<HalfSplits> {
    if cases.len() < LEAST_CASES {
        return None;
    }
    let names: std::collections::BTreeSet<&str> = patients.iter().copied().collect();
    let names: Vec<&str> = names.into_iter().collect();
    let one = |n: u64| -> Option<Rates> {
        let mut chance = Chance::at(&[seed, 0x48_414C_5645, n]);
        let mut order = names.clone();
        for last in (1..order.len()).rev() {
            order.swap(last, chance.below(last + 1));
        }
        let first: std::collections::BTreeSet<&str> =
            order[..order.len() / 2].iter().copied().collect();
        let half = |of: bool| -> Vec<(f64, bool)> {
            let all = cases.iter().zip(patients);
            let own = all.filter(|(_, patient)| first.contains(**patient) == of);
            own.map(|(case, _)| *case).collect()
        };
        let (chooses, called) = (half(true), half(false));
        let both = |some: &[(f64, bool)]| some.iter().any(|c| c.1) && some.iter().any(|c| !c.1);
        (both(&chooses) && both(&called)).then(|| rates(&called, best_threshold(&chooses)))
    };
    use rayon::prelude::*;
    let all: Option<Vec<Rates>> = (0..HALVES).into_par_iter().map(one).collect();
    let all = all?;
    let mean = |of: fn(&Rates) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
    let most = |less: bool| {
        let values = all.iter().map(|r| r.accuracy);
        values.reduce(if less { f64::min } else { f64::max })
    };
    Some(HalfSplits {
        splits: all.len(),
        accuracy: mean(|r| r.accuracy),
        accuracy_range: [most(true)?, most(false)?],
        sensitivity: mean(|r| r.sensitivity),
        specificity: mean(|r| r.specificity),
    })
}

/// Expected calibration error: mean distance of confidence and accuracy over bins of equal width
/// (Guo et al. 2017). Cases are (confidence of the called class, whether it is right).
pub fn calibration_error(cases: &[(f64, bool)]) -> f64 {
    let mut bins = [(0.0, 0.0, 0.0); BINS];
    for (confidence, right) in cases {
        let bin = &mut bins[((confidence * BINS as f64) as usize).min(BINS - 1)];
        bin.0 += 1.0;
        bin.1 += confidence;
        bin.2 += f64::from(u8::from(*right));
    }
    let error = |(n, confidence, right): &(f64, f64, f64)| {
        if *n > 0.0 {
            (confidence - right).abs()
        } else {
            0.0
        }
    };
    bins.iter().map(error).sum::<f64>() / cases.len().max(1) as f64
}

/// The temperature that makes scores most likely: results are divided by it before the softmax.
/// Cases are (results, class).
pub fn best_temperature(cases: &[(Vec<f32>, u8)]) -> f64 {
    cheapest(|temperature| {
        let one = |(results, class): &(Vec<f32>, u8)| {
            -(softmax(results, temperature)[usize::from(*class)].max(1e-30)).ln()
        };
        cases.iter().map(one).sum()
    })
}

/// The temperatures of both heads, each the one that makes its own answers most likely: whether there
/// is a finding, on all cases; of which kind it is, on those with one. Cases are (results, class).
pub fn best_heads(cases: &[(Vec<f32>, u8)]) -> Heads {
    let of_kinds: Vec<(Vec<f32>, u8)> = (cases.iter())
        .filter(|(results, class)| *class > 0 && results.len() > 2)
        .map(|(results, class)| (results[1..].to_vec(), *class - 1))
        .collect();
    let several = of_kinds.iter().any(|(_, kind)| *kind != of_kinds[0].1);
    let finding = cheapest(|finding| {
        let heads = Heads {
            finding,
            kinds: None,
        };
        let one = |(results, class): &(Vec<f32>, u8)| {
            let none = heads.probabilities(results)[0];
            let right = if *class == 0 { none } else { 1.0 - none };
            -right.max(1e-30).ln()
        };
        cases.iter().map(one).sum()
    });
    Heads {
        finding,
        kinds: several.then(|| best_temperature(&of_kinds)),
    }
}

/// Of temperatures the one with the least cost: golden section over the logarithm, 0.05 to 20.
fn cheapest(cost: impl Fn(f64) -> f64) -> f64 {
    let golden = (5.0_f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (0.05_f64.ln(), 20.0_f64.ln());
    for _ in 0..60 {
        let (a, b) = (high - golden * (high - low), low + golden * (high - low));
        if cost(a.exp()) < cost(b.exp()) {
            high = b;
        } else {
            low = a;
        }
    }
    f64::midpoint(low, high).exp()
}

/// Probabilities from a network's results.
pub fn softmax(results: &[f32], temperature: f64) -> Vec<f64> {
    let heads = Heads {
        finding: temperature,
        kinds: None,
    };
    heads.probabilities(results)
}

/// Overlap of a label in two masks, 2 |A ∩ B| / (|A| + |B|); `None` where neither has it.
pub fn dice(found: &[u8], truth: &[u8], label: u8) -> Option<f64> {
    let (mut both, mut sum) = (0_usize, 0_usize);
    for (a, b) in found.iter().zip(truth) {
        both += usize::from(*a == label && *b == label);
        sum += usize::from(*a == label) + usize::from(*b == label);
    }
    (sum > 0).then(|| 2.0 * both as f64 / sum as f64)
}

/// 95th percentile of the distances between two surfaces in mm, taken in both directions together;
/// `None` where a mask is empty.
///
/// `dims` and `spacing_mm` are `[z, y, x]`. A surface is what has a neighbor outside.
pub fn hausdorff95(
    found: &[u8],
    truth: &[u8],
    label: u8,
    dims: [usize; 3],
    spacing_mm: [f64; 3],
) -> Option<f64> {
    let (a, b) = (surface(found, label, dims), surface(truth, label, dims));
    if !a.contains(&true) || !b.contains(&true) {
        return None;
    }
    let (to_a, to_b) = (
        distances(&a, dims, spacing_mm),
        distances(&b, dims, spacing_mm),
    );
    let mut all: Vec<f64> = (0..a.len())
        .flat_map(|n| [(a[n], to_b[n]), (b[n], to_a[n])])
        .filter(|(on, _)| *on)
        .map(|(_, squared)| squared.sqrt())
        .collect();
    all.sort_by(f64::total_cmp);
    Some(all[((all.len() - 1) as f64 * 0.95).round() as usize])
}

fn surface(mask: &[u8], label: u8, dims: [usize; 3]) -> Vec<bool> {
    let strides = [dims[1] * dims[2], dims[2], 1];
    (0..mask.len())
        .map(|n| {
            mask[n] == label
                && (0..3).any(|axis| {
                    let at = n / strides[axis] % dims[axis];
                    // A plane has no neighbors above and below.
                    dims[axis] > 1
                        && (at == 0
                            || at + 1 == dims[axis]
                            || mask[n - strides[axis]] != label
                            || mask[n + strides[axis]] != label)
                })
        })
        .collect()
}

/// Squared distances to the nearest point that is set, axis by axis (Felzenszwalb and
/// Huttenlocher 2012).
fn distances(set: &[bool], dims: [usize; 3], spacing_mm: [f64; 3]) -> Vec<f64> {
    const FAR: f64 = 1e30;
    let mut squared: Vec<f64> = set.iter().map(|s| if *s { 0.0 } else { FAR }).collect();
    let strides = [dims[1] * dims[2], dims[2], 1];
    for axis in 0..3 {
        let (n, stride, step) = (dims[axis], strides[axis], spacing_mm[axis]);
        for start in 0..squared.len() {
            if start / stride % n != 0 {
                continue;
            }
            let line: Vec<f64> = (0..n).map(|i| squared[start + i * stride]).collect();
            // The lowest of parabolas with their feet at the points.
            let place = |i: usize| i as f64 * step;
            let meet = |a: usize, b: usize| {
                let top = (line[b] + place(b).powi(2)) - (line[a] + place(a).powi(2));
                top / (2.0 * (place(b) - place(a)))
            };
            let (mut feet, mut from): (Vec<usize>, Vec<f64>) = (vec![0], vec![f64::NEG_INFINITY]);
            for i in 1..n {
                let mut border = meet(feet[feet.len() - 1], i);
                while feet.len() > 1 && border <= from[feet.len() - 1] {
                    feet.pop();
                    from.pop();
                    border = meet(feet[feet.len() - 1], i);
                }
                feet.push(i);
                from.push(border);
            }
            let mut at = 0;
            for i in 0..n {
                while at + 1 < feet.len() && from[at + 1] < place(i) {
                    at += 1;
                }
                let foot = feet[at];
                squared[start + i * stride] = (place(i) - place(foot)).powi(2) + line[foot];
            }
        }
    }
    squared
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases(n: usize) -> Vec<(f64, bool)> {
        let mut chance = Chance::at(&[5]);
        (0..n)
            .map(|_| {
                let positive = chance.happens(0.4);
                let score = (chance.normal() + f64::from(u8::from(positive))) * 4.0;
                (score.round() / 4.0, positive)
            })
            .collect()
    }

    #[test]
    fn auc_counts_pairs() {
        let cases = cases(200);
        let (mut wins, mut pairs) = (0.0, 0.0);
        for (a, up) in &cases {
            for (b, down) in &cases {
                if *up && !*down {
                    pairs += 1.0;
                    wins += if a > b {
                        1.0
                    } else if a == b {
                        0.5
                    } else {
                        0.0
                    };
                }
            }
        }
        assert!((auc(&cases).unwrap() - wins / pairs).abs() < 1e-12);
        assert_eq!(auc(&[(0.1, true)]), None);
    }

    #[test]
    fn an_interval_covers_and_narrows() {
        let width = |n: usize| {
            let cases = cases(n);
            let figure = |drawn: &[usize]| {
                let some: Vec<(f64, bool)> = drawn.iter().map(|n| cases[*n]).collect();
                auc(&some)
            };
            let [low, high] = interval(cases.len(), 1, &figure).unwrap();
            assert!((low..high).contains(&auc(&cases).unwrap()));
            high - low
        };
        let (few, many) = (width(100), width(1600));
        assert!((2.5..6.5).contains(&(few / many)), "{few} {many}");
    }

    #[test]
    fn rates_and_threshold_follow_their_definitions() {
        let cases = [(0.1, false), (0.4, true), (0.35, false), (0.8, true)];
        let threshold = best_threshold(&cases);
        assert!((threshold - 0.375).abs() < 1e-12);
        let rates = rates(&cases, 0.5);
        assert_eq!(
            (rates.accuracy, rates.sensitivity, rates.specificity),
            (0.75, 0.5, 1.0)
        );
    }

    #[test]
    fn the_best_threshold_is_that_of_trying_all() {
        for seed in 0..40_u64 {
            let mut chance = Chance::at(&[7, seed]);
            let cases: Vec<(f64, bool)> = (0..3 + seed as usize)
                .map(|_| (chance.below(12) as f64 / 12.0, chance.happens(0.4)))
                .collect();
            let mut scores: Vec<f64> = cases.iter().map(|c| c.0).collect();
            scores.sort_by(f64::total_cmp);
            scores.dedup();
            let mut best = (f64::NEG_INFINITY, 0.5);
            for (n, score) in scores.iter().enumerate() {
                let before = n.checked_sub(1).map_or(*score, |n| scores[n]);
                let threshold = f64::midpoint(*score, before);
                let found = rates(&cases, threshold);
                if found.sensitivity + found.specificity > best.0 {
                    best = (found.sensitivity + found.specificity, threshold);
                }
            }
            assert_eq!(best_threshold(&cases), best.1, "{cases:?}");
        }
    }

    #[test]
    fn halves_that_agree_are_called_rightly_and_patients_stay_together() {
        let names: Vec<String> = (0..40).map(|n| format!("p{}", n / 2)).collect();
        let patients: Vec<&str> = names.iter().map(String::as_str).collect();
        // Two images of each patient; the score tells the truth.
        let clear: Vec<(f64, bool)> = (0..40)
            .map(|n| (if n % 4 < 2 { 0.9 } else { 0.1 }, n % 4 < 2))
            .collect();
        let found = half_splits(&clear, &patients, 1).unwrap();
        assert_eq!((found.splits, found.accuracy), (100, 1.0));
        // A score that tells each patient apart and nothing else: chosen on some, wrong on others.
        let blind: Vec<(f64, bool)> = (0..40).map(|n| ((n / 2) as f64, n % 4 < 2)).collect();
        let found = half_splits(&blind, &patients, 1).unwrap();
        assert!(
            found.accuracy < 0.7 && found.accuracy_range[0] < 0.5,
            "{found:?}"
        );
        assert_eq!(half_splits(&clear[..10], &patients[..10], 1), None);
    }

    #[test]
    fn each_head_gets_the_temperature_of_its_own_answers() {
        let mut chance = Chance::at(&[3]);
        let cases: Vec<(Vec<f32>, u8)> = (0..6000)
            .map(|_| {
                let [any, kind] = [(); 2].map(|()| chance.normal() as f32 * 1.5);
                let p = |x: f32| 1.0 / (1.0 + f64::from(-x).exp());
                let class = match (chance.happens(p(any)), chance.happens(p(kind))) {
                    (false, _) => 0,
                    (true, first) => {
                        if first {
                            1
                        } else {
                            2
                        }
                    }
                };
                // Said three times too surely of the kind, and rightly of the finding: the log of both
                // kinds' exponentials is its log-odds.
                let kinds = [kind * 1.5, kind * -1.5];
                let sum = (kinds[0].exp() + kinds[1].exp()).ln();
                (vec![sum - any, kinds[0], kinds[1]], class)
            })
            .collect();
        let heads = best_heads(&cases);
        assert!((heads.finding - 1.0).abs() < 0.12, "{heads:?}");
        assert!((heads.kinds.unwrap() - 3.0).abs() < 0.5, "{heads:?}");
        // Without kinds there is no second head.
        let two: Vec<(Vec<f32>, u8)> = cases
            .iter()
            .map(|(r, c)| (r[..2].to_vec(), (*c).min(1)))
            .collect();
        assert_eq!(best_heads(&two).kinds, None);
    }

    #[test]
    fn a_temperature_undoes_itself() {
        let mut chance = Chance::at(&[2]);
        let cases: Vec<(Vec<f32>, u8)> = (0..4000)
            .map(|_| {
                let honest = [chance.normal() as f32 * 1.5, 0.0];
                let p = softmax(&honest, 1.0);
                let class = u8::from(!chance.happens(p[0]));
                (honest.map(|h| h * 3.0).to_vec(), class)
            })
            .collect();
        // Of 4000 cases: the standard error is about 0.1.
        let found = best_temperature(&cases);
        assert!((found - 3.0).abs() < 0.4, "{found}");
        let error = |t: f64| {
            let of = |(r, class): &(Vec<f32>, u8)| {
                let p = softmax(r, t);
                let called = usize::from(p[1] > p[0]);
                (p[called], called == usize::from(*class))
            };
            calibration_error(&cases.iter().map(of).collect::<Vec<_>>())
        };
        assert!(error(found) < 0.03 && error(1.0) > 0.08);
    }

    #[test]
    fn surfaces_have_their_distances() {
        let dims = [6, 9, 8];
        let boxed = |from: [usize; 3], to: [usize; 3]| -> Vec<u8> {
            let mut mask = vec![0; 432];
            for z in from[0]..to[0] {
                for y in from[1]..to[1] {
                    for x in from[2]..to[2] {
                        mask[(z * 9 + y) * 8 + x] = 1;
                    }
                }
            }
            mask
        };
        let a = boxed([1, 1, 1], [4, 5, 4]);
        let b = boxed([1, 3, 2], [5, 8, 6]);
        assert!((dice(&a, &b, 1).unwrap() - 2.0 * 12.0 / (36.0 + 80.0)).abs() < 1e-12);
        let spacing = [2.0, 1.0, 1.5];
        // Every pair of surface points.
        let points = |mask: &[u8]| -> Vec<[f64; 3]> {
            let on = surface(mask, 1, dims);
            (0..432)
                .filter(|n| on[*n])
                .map(|n| [n / 72, n / 8 % 9, n % 8])
                .map(|p| std::array::from_fn(|a| p[a] as f64 * spacing[a]))
                .collect()
        };
        let (pa, pb) = (points(&a), points(&b));
        let near = |p: &[f64; 3], of: &[[f64; 3]]| {
            let far = |q: &[f64; 3]| (0..3).map(|n| (p[n] - q[n]).powi(2)).sum::<f64>().sqrt();
            of.iter().map(far).fold(f64::INFINITY, f64::min)
        };
        let mut all: Vec<f64> = pa
            .iter()
            .map(|p| near(p, &pb))
            .chain(pb.iter().map(|p| near(p, &pa)))
            .collect();
        all.sort_by(f64::total_cmp);
        let want = all[((all.len() - 1) as f64 * 0.95).round() as usize];
        let got = hausdorff95(&a, &b, 1, dims, spacing).unwrap();
        assert!((got - want).abs() < 1e-9, "{got} {want}");
        assert_eq!(hausdorff95(&a, &[0; 432], 1, dims, spacing), None);
    }
}
