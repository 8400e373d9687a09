//! Figures of classifiers: areas under ROC curves, calls, calibration, kinds and subgroups.

use std::collections::BTreeMap;

use serde::Serialize;

use super::data::{self, Sample};
use super::metrics::{self, HalfSplits};
use crate::model::{ClassActivation, Classification};

/// Of intervals and halves.
const SEED: u64 = 20;

/// Figures of a classifier.
#[derive(Clone, Debug, Serialize)]
pub struct ClassFigures {
    /// Area under the ROC curve; of several classes the mean of each against the rest.
    pub auc: Option<f64>,
    /// Its interval.
    pub auc_ci95: Option<[f64; 2]>,
    /// Part of the cases that is called rightly at the threshold (several classes: the likeliest).
    pub accuracy: f64,
    /// Its interval.
    pub accuracy_ci95: Option<[f64; 2]>,
    /// Part of the positive cases that is called positive.
    pub sensitivity: Option<f64>,
    /// Part of the negative cases that is called negative.
    pub specificity: Option<f64>,
    /// The package's.
    pub threshold: f64,
    /// Expected calibration error, 15 bins.
    pub ece: f64,
    /// Probability against truth, in tenths.
    pub calibration: Vec<CalibrationBin>,
    /// Parts of the cases that the data tell apart.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subgroups: Vec<Subgroup>,
    /// Where the finding has kinds and the labels tell which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kinds: Option<KindFigures>,
    /// Of the finding, or of the second of two classes; `None` where there are few cases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half_splits: Option<HalfSplits>,
    /// Every case.
    pub cases: Vec<ClassCase>,
}

/// Which kind of the finding it is, measured on the cases with the finding alone.
///
/// A softmax over "none" and the kinds is two heads in one: log p(kind) = log p(finding) +
/// log p(kind | finding). Its cross-entropy is that of the finding plus, where there is one, that of
/// the kind, and p(kind | finding) is the softmax of the kinds' own results.
#[derive(Clone, Debug, Serialize)]
pub struct KindFigures {
    /// Cases with the finding.
    pub n: usize,
    /// Area under the ROC curve of p(kind | finding); of more than two kinds the mean of each against
    /// the others.
    pub auc: Option<f64>,
    /// Its interval.
    pub auc_ci95: Option<[f64; 2]>,
    /// Part of the cases whose likeliest kind is the right one.
    pub accuracy: f64,
    /// Its interval.
    pub accuracy_ci95: Option<[f64; 2]>,
    /// Expected calibration error of the likeliest kind, 15 bins: of few cases mostly chance.
    pub ece: f64,
    /// Mean of −ln p(kind | finding) of the true kind: what a temperature makes least.
    pub log_loss: f64,
}

/// A tenth of the calibration curve.
#[derive(Clone, Debug, Serialize)]
pub struct CalibrationBin {
    /// Probabilities.
    pub range: [f64; 2],
    /// How many.
    pub cases: usize,
    /// Their mean probability.
    pub mean: f64,
    /// Part of them that is positive.
    pub positive: f64,
}

/// A part of the cases that the data tell apart: a sex, a machine, a kind of pneumonia.
#[derive(Clone, Debug, Serialize)]
pub struct Subgroup {
    /// What the data call it.
    pub name: String,
    /// Cases.
    pub n: usize,
    /// Those of them with the finding.
    pub positive: usize,
    /// Area under the ROC curve; of a group where all cases are alike against the others of the
    /// whole set.
    pub auc: Option<f64>,
    /// Its interval.
    pub auc_ci95: Option<[f64; 2]>,
    /// Part of its positive cases that is called positive.
    pub sensitivity: Option<f64>,
    /// Part of its negative cases that is called negative.
    pub specificity: Option<f64>,
}

/// A case of a classifier.
#[derive(Clone, Debug, Serialize)]
pub struct ClassCase {
    /// Its file.
    pub file: String,
    /// The truth.
    pub label: u8,
    /// Probability of the finding.
    pub score: f64,
    /// What the model calls it.
    pub called: u8,
    /// Probabilities of all classes.
    pub probabilities: Vec<f64>,
}

impl Subgroup {
    /// One line for a person.
    pub fn words(&self) -> String {
        let Self {
            name, n, positive, ..
        } = self;
        let mut words = vec![format!("{name}: {n} cases, {positive} positive")];
        if let Some(auc) = self.auc {
            let interval = self.auc_ci95;
            let interval =
                interval.map_or_else(String::new, |[a, b]| format!(" ({a:.4} to {b:.4})"));
            let against = match *positive {
                0 => " against all positive",
                all if all == *n => " against all negative",
                _ => "",
            };
            words.push(format!("AUC {auc:.4}{interval}{against}"));
        }
        for (what, value) in [
            ("sensitivity", self.sensitivity),
            ("specificity", self.specificity),
        ] {
            if let Some(value) = value {
                words.push(format!("{what} {value:.4}"));
            }
        }
        words.join(", ")
    }
}

/// Figures of probabilities by class, one list for each sample.
pub fn class_figures(
    classification: &Classification,
    samples: &[Sample],
    results: &[Vec<f64>],
    finding: Option<usize>,
) -> ClassFigures {
    let softmax = classification.activation == ClassActivation::Softmax;
    let mut truth: Vec<u8> = samples.iter().filter_map(Sample::class).collect();
    // Where some labels do not tell which class it is, all are about the finding alone.
    if truth.contains(&data::ANY_CLASS) {
        for t in &mut truth {
            *t = (*t).min(1);
        }
    }
    let several = finding.is_none() && truth.iter().any(|t| *t > 1);
    // Of classes that exclude each other all but the first are the finding.
    let score = |p: &[f64]| match finding {
        Some(class) => p[class],
        None if softmax => 1.0 - p[0],
        None => p[p.len() - 1],
    };
    let named = finding.unwrap_or(classification.classes.len() - 1);
    let class = match &classification.any {
        Some(any) if finding.is_none() => any,
        _ => &classification.classes[named],
    };
    let threshold = class.threshold.unwrap_or(0.5);
    let pairs: Vec<(f64, bool)> = results
        .iter()
        .zip(&truth)
        .map(|(p, t)| (score(p), *t > 0))
        .collect();
    let called: Vec<u8> = results
        .iter()
        .zip(&pairs)
        .map(|(p, (score, _))| {
            if several {
                likeliest(p) as u8
            } else {
                u8::from(*score >= threshold)
            }
        })
        .collect();
    let auc_of = |some: &[usize]| -> Option<f64> {
        if !several {
            return metrics::auc(&some.iter().map(|n| pairs[*n]).collect::<Vec<_>>());
        }
        mean_auc(
            some.iter()
                .map(|n| (&results[*n][..], usize::from(truth[*n]))),
        )
    };
    let right = |n: &usize| called[*n] == truth[*n];
    let accuracy_of = |some: &[usize]| {
        Some(some.iter().filter(|n| right(n)).count() as f64 / some.len().max(1) as f64)
    };
    let every: Vec<usize> = (0..truth.len()).collect();
    let rates = metrics::rates(&pairs, threshold);
    let known = |rate: f64| (!several && rate.is_finite()).then_some(rate);
    let confidences: Vec<(f64, bool)> = results
        .iter()
        .zip(&pairs)
        .zip(&truth)
        .map(|((p, (score, positive)), t)| {
            if several {
                let class = likeliest(p);
                (p[class], class == usize::from(*t))
            } else {
                (score.max(1.0 - score), (*score >= 0.5) == *positive)
            }
        })
        .collect();
    ClassFigures {
        auc: auc_of(&every),
        auc_ci95: metrics::interval(truth.len(), SEED, &auc_of),
        accuracy: accuracy_of(&every).unwrap_or(f64::NAN),
        accuracy_ci95: metrics::interval(truth.len(), SEED, &accuracy_of),
        sensitivity: known(rates.sensitivity),
        specificity: known(rates.specificity),
        threshold,
        ece: metrics::calibration_error(&confidences),
        calibration: tenths(&pairs),
        subgroups: subgroups(samples, &pairs, threshold),
        kinds: (several && softmax).then(|| kinds(results, &truth)),
        half_splits: {
            let patients: Vec<&str> = samples.iter().map(|s| s.patient.as_str()).collect();
            metrics::half_splits(&pairs, &patients, SEED)
        },
        cases: samples
            .iter()
            .zip(results)
            .enumerate()
            .map(|(n, (sample, p))| ClassCase {
                file: sample.name.clone(),
                label: truth[n],
                score: pairs[n].0,
                called: called[n],
                probabilities: p.clone(),
            })
            .collect(),
    }
}

/// The class of the highest probability; of equal ones the first.
fn likeliest(p: &[f64]) -> usize {
    let most = (0..p.len()).max_by(|a, b| p[*a].total_cmp(&p[*b]).then(b.cmp(a)));
    most.unwrap_or(0)
}

/// Mean of the areas under the ROC curves of each class against the others; `None` where a class has
/// no case, or all.
fn mean_auc<'a>(cases: impl Iterator<Item = (&'a [f64], usize)>) -> Option<f64> {
    let cases: Vec<(&[f64], usize)> = cases.collect();
    let classes = cases.first()?.0.len();
    let of = |class: usize| {
        let one = |(p, truth): &(&[f64], usize)| (p[class], *truth == class);
        metrics::auc(&cases.iter().map(one).collect::<Vec<_>>())
    };
    let all: Option<Vec<f64>> = (0..classes).map(of).collect();
    all.map(|all| all.iter().sum::<f64>() / all.len() as f64)
}

fn kinds(results: &[Vec<f64>], truth: &[u8]) -> KindFigures {
    let cases: Vec<(Vec<f64>, usize)> = (results.iter().zip(truth))
        .filter(|(_, t)| **t > 0)
        .map(|(p, t)| {
            let any: f64 = p[1..].iter().sum();
            let among = p[1..].iter().map(|k| k / any.max(f64::MIN_POSITIVE));
            (among.collect(), usize::from(*t) - 1)
        })
        .collect();
    let every: Vec<usize> = (0..cases.len()).collect();
    let auc = |some: &[usize]| mean_auc(some.iter().map(|n| (&cases[*n].0[..], cases[*n].1)));
    let right = |n: usize| likeliest(&cases[n].0) == cases[n].1;
    let accuracy = |some: &[usize]| {
        Some(some.iter().filter(|n| right(**n)).count() as f64 / some.len().max(1) as f64)
    };
    let confidences: Vec<(f64, bool)> = (every.iter())
        .map(|n| (cases[*n].0[likeliest(&cases[*n].0)], right(*n)))
        .collect();
    KindFigures {
        n: cases.len(),
        auc: auc(&every),
        auc_ci95: metrics::interval(cases.len(), SEED, &auc),
        accuracy: accuracy(&every).unwrap_or(f64::NAN),
        accuracy_ci95: metrics::interval(cases.len(), SEED, &accuracy),
        ece: metrics::calibration_error(&confidences),
        log_loss: {
            let of_truth = cases.iter().map(|(p, truth)| -p[*truth].max(1e-30).ln());
            of_truth.sum::<f64>() / cases.len().max(1) as f64
        },
    }
}

fn subgroups(samples: &[Sample], pairs: &[(f64, bool)], threshold: f64) -> Vec<Subgroup> {
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (n, sample) in samples.iter().enumerate() {
        if let Some(group) = &sample.group {
            groups.entry(group.trim()).or_default().push(n);
        }
    }
    let measured = |(name, own): (&str, Vec<usize>)| {
        let positive = own.iter().filter(|n| pairs[**n].1).count();
        let mut all = own.clone();
        if positive == 0 || positive == own.len() {
            all.extend((0..pairs.len()).filter(|n| pairs[*n].1 == (positive == 0)));
        }
        let of =
            |some: &[usize]| metrics::auc(&some.iter().map(|n| pairs[all[*n]]).collect::<Vec<_>>());
        let every: Vec<usize> = (0..all.len()).collect();
        let rates = metrics::rates(
            &own.iter().map(|n| pairs[*n]).collect::<Vec<_>>(),
            threshold,
        );
        let known = |rate: f64| rate.is_finite().then_some(rate);
        Subgroup {
            name: name.to_owned(),
            n: own.len(),
            positive,
            auc: of(&every),
            auc_ci95: metrics::interval(all.len(), SEED, &of),
            sensitivity: known(rates.sensitivity),
            specificity: known(rates.specificity),
        }
    };
    groups.into_iter().map(measured).collect()
}

fn tenths(pairs: &[(f64, bool)]) -> Vec<CalibrationBin> {
    (0..10)
        .filter_map(|n| {
            let range = [f64::from(n) / 10.0, f64::from(n + 1) / 10.0];
            let inside = |s: f64| ((s * 10.0) as i32).clamp(0, 9) == n;
            let some: Vec<&(f64, bool)> = pairs.iter().filter(|p| inside(p.0)).collect();
            let count = some.len() as f64;
            (!some.is_empty()).then(|| CalibrationBin {
                range,
                cases: some.len(),
                mean: some.iter().map(|p| p.0).sum::<f64>() / count,
                positive: some.iter().filter(|p| p.1).count() as f64 / count,
            })
        })
        .collect()
}
