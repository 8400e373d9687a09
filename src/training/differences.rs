//! Two evaluations of the same cases, figure by figure, with intervals of the differences.

use super::evaluate::{ClassCase, ClassFigures, Evaluation, Figures, MaskFigures};
use super::metrics;

/// Seed of the bootstrap's draws.
const SEED: u64 = 21;

/// A figure before and after.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Difference {
    /// E.g. `AUC`.
    pub figure: String,
    /// Of the first evaluation.
    pub before: f64,
    /// Of the second one.
    pub after: f64,
    /// After minus before.
    pub difference: f64,
    /// Of the difference: cases are drawn for both together.
    pub ci95: Option<[f64; 2]>,
}

/// What has changed from one evaluation to another; empty when they are not of the same cases.
pub fn differences(before: &Evaluation, after: &Evaluation) -> Vec<Difference> {
    match (&before.figures, &after.figures) {
        (Figures::Classes(a), Figures::Classes(b)) => of_classes(a, b),
        (Figures::Masks(a), Figures::Masks(b)) => of_masks(a, b),
        _ => Vec::new(),
    }
}

fn difference(
    figure: &str,
    cases: usize,
    of: [&(dyn Fn(&[usize]) -> Option<f64> + Sync); 2],
) -> Option<Difference> {
    let every: Vec<usize> = (0..cases).collect();
    let [before, after] = [of[0](&every)?, of[1](&every)?];
    let drawn = |some: &[usize]| Some(of[1](some)? - of[0](some)?);
    Some(Difference {
        figure: figure.to_owned(),
        before,
        after,
        difference: after - before,
        ci95: metrics::interval(cases, SEED, &drawn),
    })
}

fn of_classes(a: &ClassFigures, b: &ClassFigures) -> Vec<Difference> {
    let same = |(x, y): (&ClassCase, &ClassCase)| x.file == y.file && x.label == y.label;
    if a.cases.len() != b.cases.len() || !a.cases.iter().zip(&b.cases).all(same) {
        return Vec::new();
    }
    let several = a.cases.iter().any(|c| c.label > 1);
    let auc = |cases: &[ClassCase], some: &[usize]| -> Option<f64> {
        if !several {
            let pair = |n: &usize| (cases[*n].score, cases[*n].label > 0);
            return metrics::auc(&some.iter().map(pair).collect::<Vec<_>>());
        }
        let classes = cases.first()?.probabilities.len();
        let of = |class: usize| {
            let one = |n: &usize| {
                let case = &cases[*n];
                (case.probabilities[class], usize::from(case.label) == class)
            };
            metrics::auc(&some.iter().map(one).collect::<Vec<_>>())
        };
        let all: Option<Vec<f64>> = (0..classes).map(of).collect();
        all.map(|all| all.iter().sum::<f64>() / all.len() as f64)
    };
    // Part of the cases of some kind that is called rightly.
    let right = |cases: &[ClassCase], some: &[usize], of: &dyn Fn(&ClassCase) -> bool| {
        let kind: Vec<&ClassCase> = some.iter().map(|n| &cases[*n]).filter(|c| of(c)).collect();
        let right = kind.iter().filter(|c| c.called == c.label).count();
        (!kind.is_empty()).then(|| right as f64 / kind.len() as f64)
    };
    let n = a.cases.len();
    let kinds: [(&str, fn(&ClassCase) -> bool); 3] = [
        ("accuracy", |_| true),
        ("sensitivity", |c| c.label > 0),
        ("specificity", |c| c.label == 0),
    ];
    let mut found: Vec<Difference> = Vec::new();
    found.extend(difference(
        "AUC",
        n,
        [&|s: &[usize]| auc(&a.cases, s), &|s: &[usize]| {
            auc(&b.cases, s)
        }],
    ));
    for (name, of) in kinds.into_iter().take(if several { 1 } else { 3 }) {
        found.extend(difference(
            name,
            n,
            [&|s: &[usize]| right(&a.cases, s, &of), &|s: &[usize]| {
                right(&b.cases, s, &of)
            }],
        ));
    }
    found
}

fn of_masks(a: &MaskFigures, b: &MaskFigures) -> Vec<Difference> {
    let same = a.cases.iter().zip(&b.cases).all(|(x, y)| x.file == y.file);
    if a.cases.len() != b.cases.len() || !same {
        return Vec::new();
    }
    let mean = |cases: &[super::evaluate::MaskCase], some: &[usize], label: &String| {
        let values: Vec<f64> = (some.iter())
            .filter_map(|n| cases[*n].dice.get(label).copied())
            .collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let of = |label: &String| {
        difference(
            &format!("Dice {label}"),
            a.cases.len(),
            [&|s: &[usize]| mean(&a.cases, s, label), &|s: &[usize]| {
                mean(&b.cases, s, label)
            }],
        )
    };
    a.dice.keys().filter_map(of).collect()
}
