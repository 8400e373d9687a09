//! Two models on the same cases: figure by figure, paired over cases.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::evaluate::{ClassCase, ClassFigures, Evaluation, Figures, MaskFigures};
use super::metrics;
use crate::model::Manifest;

/// Seed of the bootstrap's draws: the same for both models and every figure.
const SEED: u64 = 21;

/// What differs.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// `id@version` of the first and the second.
    pub models: [String; 2],
    /// SHA-256 of their weights.
    pub weights_sha256: [String; 2],
    /// Cases.
    pub n: usize,
    /// Figure by figure.
    pub figures: Vec<ComparedFigure>,
    /// What [`ComparedCase::values`] are.
    pub case_figure: &'static str,
    /// All cases; first those where only one has a value, then by their difference, the second
    /// model's losses before its gains.
    pub cases: Vec<ComparedCase>,
}

/// A figure of both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComparedFigure {
    /// As in an evaluation.
    pub name: String,
    /// Of the first and the second model, over the cases that count.
    pub values: [Option<f64>; 2],
    /// Second minus first.
    pub difference: Option<f64>,
    /// Middle 95 % of the difference over draws of cases, each drawn for both.
    pub difference_ci95: Option<[f64; 2]>,
    /// Cases that both have a value for.
    pub n: usize,
    /// Whether more is better.
    pub more_is_better: bool,
}

/// A case of both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComparedCase {
    /// Its file.
    pub file: String,
    /// Of the first and the second model.
    pub values: [Option<f64>; 2],
    /// Second minus first.
    pub difference: Option<f64>,
    /// Its image, where masks were kept: to open it with both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<PathBuf>,
    /// Folder with both masks in one, below that of the comparison.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub both: Option<PathBuf>,
}

/// Whether two models say the same kind of thing; else why not, in words. With `finding` given,
/// classifiers need to share that class alone, which their evaluation looks for.
///
/// # Errors
/// The reason.
pub fn comparable(a: &Manifest, b: &Manifest, finding: Option<&str>) -> Result<(), String> {
    let names = |m: &Manifest| -> Vec<String> {
        match &m.classification {
            Some(c) => c.classes.iter().map(|c| c.name.clone()).collect(),
            None => (m.labels.iter())
                .map(|l| format!("{} {}", l.label, l.name))
                .collect(),
        }
    };
    let kind = |m: &Manifest| {
        if m.classification.is_some() {
            "findings of whole images"
        } else {
            "segments"
        }
    };
    if kind(a) != kind(b) {
        return Err(format!(
            "{} gives {}, {} gives {}",
            a.key(),
            kind(a),
            b.key(),
            kind(b)
        ));
    }
    let (mine, theirs) = (names(a), names(b));
    if mine != theirs && (finding.is_none() || a.classification.is_none()) {
        return Err(format!(
            "{} has the labels {}; {} has {}",
            a.key(),
            mine.join(", "),
            b.key(),
            theirs.join(", ")
        ));
    }
    Ok(())
}

/// Sets two evaluations of the same cases side by side.
///
/// # Errors
/// Other cases, or another kind of figures; the reason in words.
pub fn compare(a: &Evaluation, b: &Evaluation) -> Result<Comparison, String> {
    let (figures, case_figure, cases) = match (&a.figures, &b.figures) {
        (Figures::Classes(a), Figures::Classes(b)) => {
            same_cases(
                a.cases.iter().map(|c| &c.file),
                b.cases.iter().map(|c| &c.file),
            )?;
            (
                of_classes(a, b),
                "probability of what is true",
                class_cases(a, b),
            )
        }
        (Figures::Masks(a), Figures::Masks(b)) => {
            same_cases(
                a.cases.iter().map(|c| &c.file),
                b.cases.iter().map(|c| &c.file),
            )?;
            (of_masks(a, b), "mean Dice over labels", mask_cases(a, b))
        }
        _ => return Err("one gives classes and the other masks".to_owned()),
    };
    Ok(Comparison {
        models: [a.model.clone(), b.model.clone()],
        weights_sha256: [a.weights_sha256.clone(), b.weights_sha256.clone()],
        n: a.n,
        figures,
        case_figure,
        cases: sorted(cases),
    })
}

fn same_cases<'a>(
    a: impl Iterator<Item = &'a String>,
    b: impl Iterator<Item = &'a String>,
) -> Result<(), String> {
    if a.eq(b) {
        Ok(())
    } else {
        Err("they were not measured on the same cases".to_owned())
    }
}

/// A figure that is computed from some of the cases, of both models.
fn figure(
    name: &str,
    more_is_better: bool,
    n: usize,
    of: &(dyn Fn(usize, &[usize]) -> Option<f64> + Sync),
) -> ComparedFigure {
    let every: Vec<usize> = (0..n).collect();
    let values = [of(0, &every), of(1, &every)];
    let apart = |some: &[usize]| Some(of(1, some)? - of(0, some)?);
    ComparedFigure {
        name: name.to_owned(),
        values,
        difference: apart(&every),
        difference_ci95: metrics::interval(n, SEED, &apart),
        n,
        more_is_better,
    }
}

fn of_classes(a: &ClassFigures, b: &ClassFigures) -> Vec<ComparedFigure> {
    let cases = [&a.cases, &b.cases];
    let n = a.cases.len();
    let several = a.cases.iter().any(|c| c.label > 1);
    let auc = |model: usize, some: &[usize]| {
        let of = |class: Option<usize>| {
            let pair = |i: &usize| {
                let case = &cases[model][*i];
                match class {
                    None => (case.score, case.label > 0),
                    Some(class) => (case.probabilities[class], usize::from(case.label) == class),
                }
            };
            metrics::auc(&some.iter().map(pair).collect::<Vec<_>>())
        };
        if !several {
            return of(None);
        }
        // As an evaluation has it: each class against the rest.
        let classes = cases[model].first()?.probabilities.len();
        let all: Option<Vec<f64>> = (0..classes).map(|class| of(Some(class))).collect();
        all.map(|all| all.iter().sum::<f64>() / all.len() as f64)
    };
    // Part of the cases of a kind that is called rightly.
    let rightly = |kind: fn(&ClassCase) -> bool| {
        move |model: usize, some: &[usize]| {
            let of_kind = some.iter().map(|i| &cases[model][*i]).filter(|c| kind(c));
            let (right, all) = of_kind.fold((0_usize, 0_usize), |(right, all), c| {
                (right + usize::from(c.called == c.label), all + 1)
            });
            (all > 0).then(|| right as f64 / all as f64)
        }
    };
    let mut figures = vec![
        figure("AUC", true, n, &auc),
        figure("accuracy", true, n, &rightly(|_| true)),
    ];
    if !several {
        figures.push(figure("sensitivity", true, n, &rightly(|c| c.label > 0)));
        figures.push(figure("specificity", true, n, &rightly(|c| c.label == 0)));
        let brier = |model: usize, some: &[usize]| {
            let one = |i: &usize| {
                let case = &cases[model][*i];
                (case.score - f64::from(u8::from(case.label > 0))).powi(2)
            };
            (!some.is_empty()).then(|| some.iter().map(one).sum::<f64>() / some.len() as f64)
        };
        figures.push(figure("Brier score", false, n, &brier));
    }
    figures
}

fn class_cases(a: &ClassFigures, b: &ClassFigures) -> Vec<ComparedCase> {
    let several = a.cases.iter().any(|c| c.label > 1);
    let of_truth = |case: &ClassCase| match (several, case.label) {
        (true, label) => case.probabilities.get(usize::from(label)).copied(),
        (false, 0) => Some(1.0 - case.score),
        (false, _) => Some(case.score),
    };
    (a.cases.iter().zip(&b.cases))
        .map(|(a, b)| compared(&a.file, [of_truth(a), of_truth(b)]))
        .collect()
}

fn of_masks(a: &MaskFigures, b: &MaskFigures) -> Vec<ComparedFigure> {
    let mut figures = Vec::new();
    let hd95 = format!("HD95 ({})", a.hd95_unit);
    let kinds: [(&str, bool, bool); 2] = [("Dice", true, true), (&hd95, false, false)];
    for (what, more_is_better, is_dice) in kinds {
        let of = |f: &MaskFigures| -> Vec<BTreeMap<String, f64>> {
            let of =
                |c: &super::evaluate::MaskCase| if is_dice { &c.dice } else { &c.hd95 }.clone();
            f.cases.iter().map(of).collect()
        };
        let (mine, theirs) = (of(a), of(b));
        let labels: std::collections::BTreeSet<&String> = mine
            .iter()
            .chain(&theirs)
            .flat_map(BTreeMap::keys)
            .collect();
        for label in labels {
            // Paired: a case counts where both have a value.
            let pairs: Vec<[f64; 2]> = (mine.iter().zip(&theirs))
                .filter_map(|(a, b)| Some([*a.get(label)?, *b.get(label)?]))
                .collect();
            let mean = |model: usize, some: &[usize]| {
                let sum: f64 = some.iter().map(|i| pairs[*i][model]).sum();
                (!some.is_empty()).then(|| sum / some.len() as f64)
            };
            let name = format!("{what} {label}");
            figures.push(figure(&name, more_is_better, pairs.len(), &mean));
        }
    }
    figures
}

fn mask_cases(a: &MaskFigures, b: &MaskFigures) -> Vec<ComparedCase> {
    let mean = |of: &BTreeMap<String, f64>| {
        (!of.is_empty()).then(|| of.values().sum::<f64>() / of.len() as f64)
    };
    (a.cases.iter().zip(&b.cases))
        .map(|(a, b)| compared(&a.file, [mean(&a.dice), mean(&b.dice)]))
        .collect()
}

fn compared(file: &str, values: [Option<f64>; 2]) -> ComparedCase {
    ComparedCase {
        file: file.to_owned(),
        values,
        difference: values[0].zip(values[1]).map(|(a, b)| b - a),
        image: None,
        both: None,
    }
}

fn sorted(mut cases: Vec<ComparedCase>) -> Vec<ComparedCase> {
    let place = |c: &ComparedCase| match (c.difference, c.values) {
        (Some(difference), _) => (1, difference),
        (None, [None, None]) => (2, 0.0),
        (None, _) => (0, 0.0),
    };
    cases.sort_by(|a, b| {
        let (a, b) = (place(a), place(b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::evaluate::MaskCase;

    fn classes(scores: &[(f64, u8)], threshold: f64) -> Evaluation {
        let cases: Vec<ClassCase> = (scores.iter().enumerate())
            .map(|(n, (score, label))| ClassCase {
                file: format!("{n}.png"),
                label: *label,
                score: *score,
                called: u8::from(*score >= threshold),
                probabilities: vec![1.0 - score, *score],
            })
            .collect();
        evaluation(Figures::Classes(ClassFigures {
            auc: None,
            auc_ci95: None,
            accuracy: 0.0,
            accuracy_ci95: None,
            sensitivity: None,
            specificity: None,
            threshold,
            ece: 0.0,
            calibration: Vec::new(),
            subgroups: Vec::new(),
            kinds: None,
            half_splits: None,
            cases,
        }))
    }

    fn evaluation(figures: Figures) -> Evaluation {
        Evaluation {
            model: "m@1".to_owned(),
            weights_sha256: String::new(),
            n: match &figures {
                Figures::Classes(f) => f.cases.len(),
                Figures::Masks(f) => f.cases.len(),
            },
            figures,
        }
    }

    fn named<'a>(found: &'a Comparison, name: &str) -> &'a ComparedFigure {
        found.figures.iter().find(|f| f.name == name).unwrap()
    }

    #[test]
    fn classifiers_differ_by_what_is_counted_by_hand() {
        // Truth 0 0 1 1. The first confuses one pair of four and calls one case wrongly at 0.5.
        let a = classes(&[(0.1, 0), (0.45, 0), (0.4, 1), (0.9, 1)], 0.5);
        let b = classes(&[(0.1, 0), (0.7, 0), (0.8, 1), (0.9, 1)], 0.5);
        let found = compare(&a, &b).unwrap();
        let auc = named(&found, "AUC");
        assert_eq!(auc.values, [Some(0.75), Some(1.0)]);
        assert_eq!(auc.difference, Some(0.25));
        assert_eq!(named(&found, "accuracy").values, [Some(0.75), Some(0.75)]);
        assert_eq!(named(&found, "sensitivity").values, [Some(0.5), Some(1.0)]);
        assert_eq!(named(&found, "specificity").values, [Some(1.0), Some(0.5)]);
        // The second loses most on the second case and gains most on the third.
        let files: Vec<&str> = found.cases.iter().map(|c| c.file.as_str()).collect();
        assert_eq!((files[0], files[3]), ("1.png", "2.png"));
        assert!((found.cases[0].difference.unwrap() + 0.25).abs() < 1e-12);
        // The same model twice differs by nothing, in every draw.
        let same = compare(&a, &a).unwrap();
        for figure in &same.figures {
            assert_eq!(figure.difference, Some(0.0), "{}", figure.name);
            assert_eq!(figure.difference_ci95, Some([0.0, 0.0]), "{}", figure.name);
        }
    }

    #[test]
    fn masks_are_paired_and_a_constant_gain_has_an_interval_without_width() {
        let of = |gain: f64, lacks: usize| {
            let case = |n: usize| {
                let dice = 0.5 + 0.05 * n as f64 + gain;
                let both = [("A".to_owned(), dice)];
                MaskCase {
                    file: format!("{n}.nii"),
                    dice: both.into_iter().filter(|_| n != lacks).collect(),
                    hd95: BTreeMap::new(),
                }
            };
            evaluation(Figures::Masks(MaskFigures {
                dice: BTreeMap::new(),
                hd95: BTreeMap::new(),
                hd95_unit: "mm",
                cases: (0..6).map(case).collect(),
            }))
        };
        let found = compare(&of(0.0, 9), &of(0.1, 2)).unwrap();
        let dice = named(&found, "Dice A");
        assert_eq!(dice.n, 5);
        // Without the pairing the interval would be as wide as the cases differ.
        let [low, high] = dice.difference_ci95.unwrap();
        assert!((low - 0.1).abs() < 1e-9 && (high - 0.1).abs() < 1e-9);
        assert_eq!(found.cases[0].file, "2.nii");
        assert_eq!(found.cases[0].difference, None);
        let mut other = of(0.0, 9);
        if let Figures::Masks(f) = &mut other.figures {
            f.cases.remove(0);
        }
        assert!(compare(&of(0.0, 9), &other).is_err());
    }
}
