//! Any package on any labeled data: figures with intervals, and every case.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

use super::data::{self, Reader, Sample};
use super::metrics;
use super::picture::{Picture, Values};
use super::recipe::{DataRules, Layout};
use super::{Error, batches};
use crate::geometry::{DVec3, VolumeGeometry};
use crate::inference::native::Workspace;
use crate::inference::{Classifier, GrayPlane, Model, Settings};
use crate::model::{
    ClassActivation, Classification, ImagePreparation, OutputKind, VerifiedPackage,
};
use crate::task::Task;
use crate::volume::{
    Calibration, Layout as VolumeLayout, ModalityLut, NamedWindow, Quantity, SourceSeries,
    VoiWindow, Volume, Voxels,
};

/// Seed of the bootstrap's draws.
const SEED: u64 = 20;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// `id@version`.
    pub model: String,
    /// SHA-256 of the weights.
    pub weights_sha256: String,
    /// Cases.
    pub n: usize,
    /// By the kind of model.
    #[serde(flatten)]
    pub figures: Figures,
}

/// Figures of a kind of model.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Figures {
    /// Of a classifier.
    Classes(ClassFigures),
    /// Of a segmentation.
    Masks(MaskFigures),
}

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
    /// Expected calibration error of the likeliest kind, 15 bins.
    pub ece: f64,
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

/// Figures of a segmentation.
#[derive(Clone, Debug, Serialize)]
pub struct MaskFigures {
    /// Overlap, by label.
    pub dice: BTreeMap<String, Summary>,
    /// 95th percentile of surface distances, by label.
    pub hd95: BTreeMap<String, Summary>,
    /// `mm`, or `px` where files tell no spacing.
    pub hd95_unit: &'static str,
    /// Every case.
    pub cases: Vec<MaskCase>,
}

/// Mean of a figure over cases.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Over cases where it exists.
    pub mean: f64,
    /// Standard deviation over them.
    pub sd: f64,
    /// Of the mean.
    pub ci95: Option<[f64; 2]>,
    /// Cases where it exists.
    pub n: usize,
}

/// A case of a segmentation.
#[derive(Clone, Debug, Serialize)]
pub struct MaskCase {
    /// Its file.
    pub file: String,
    /// By label; absent where neither mask has it.
    pub dice: BTreeMap<String, f64>,
    /// By label; absent where one mask lacks it.
    pub hd95: BTreeMap<String, f64>,
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

impl Evaluation {
    /// Name, value and interval of each figure, for tables.
    pub fn rows(&self) -> Vec<(String, f64, Option<[f64; 2]>)> {
        match &self.figures {
            Figures::Classes(f) => {
                let mut rows = vec![
                    ("AUC".to_owned(), f.auc.unwrap_or(f64::NAN), f.auc_ci95),
                    ("accuracy".to_owned(), f.accuracy, f.accuracy_ci95),
                ];
                let optional = [
                    ("sensitivity", f.sensitivity),
                    ("specificity", f.specificity),
                ];
                rows.extend(
                    optional
                        .into_iter()
                        .filter_map(|(n, v)| Some((n.to_owned(), v?, None))),
                );
                rows.push(("threshold".to_owned(), f.threshold, None));
                rows.push(("calibration error".to_owned(), f.ece, None));
                if let Some(kinds) = &f.kinds {
                    let auc = kinds.auc.unwrap_or(f64::NAN);
                    let row = |name: &str, value, interval| (name.to_owned(), value, interval);
                    rows.extend([
                        row("AUC of the kind", auc, kinds.auc_ci95),
                        row("accuracy of the kind", kinds.accuracy, kinds.accuracy_ci95),
                        row("calibration of the kind", kinds.ece, None),
                    ]);
                }
                rows
            }
            Figures::Masks(f) => {
                let part = |what: &str, of: &BTreeMap<String, Summary>| {
                    of.iter()
                        .map(|(label, s)| (format!("{what} {label}"), s.mean, s.ci95))
                        .collect::<Vec<_>>()
                };
                let mut rows = part("Dice", &f.dice);
                let unit = format!("HD95 ({})", f.hd95_unit);
                rows.extend(part(&unit, &f.hd95));
                rows
            }
        }
    }
}

/// The rules by which data lie in a folder or file that no recipe describes.
///
/// # Errors
/// [`Error::Data`] for a package that can neither classify nor segment.
pub fn rules_for(
    package: &VerifiedPackage,
    path: &Path,
    label_column: &str,
) -> Result<DataRules, Error> {
    let manifest = package.manifest();
    let refused = |reason: &str| Error::Data {
        reason: reason.to_owned(),
        path: path.to_owned(),
    };
    let layout = if path.is_file() {
        Layout::Medmnist
    } else if path.join("labels.csv").is_file() {
        Layout::Labels
    } else if path.join("images").is_dir() {
        Layout::Masks
    } else if path.is_dir() {
        Layout::ClassFolders
    } else {
        return Err(refused("no such file or folder"));
    };
    let classifies = manifest.output.kind == OutputKind::Classification;
    if classifies == (layout == Layout::Masks) {
        return Err(refused(if classifies {
            "a model of classes needs labels.csv, folders of classes or a MedMNIST file"
        } else {
            "a model of masks needs the folders images and masks (or labels)"
        }));
    }
    let (classes, size): (Vec<String>, Vec<usize>) = if let Some(c) = &manifest.classification {
        (
            c.classes.iter().map(|c| c.name.clone()).collect(),
            c.size.clone(),
        )
    } else {
        let most = manifest.labels.iter().map(|l| l.label).max().unwrap_or(1);
        ((1..=most).map(|n| n.to_string()).collect(), vec![8, 8])
    };
    Ok(DataRules {
        folds: None,
        layout,
        path: path.to_owned(),
        classes,
        label_column: label_column.to_owned(),
        patient_column: None,
        patient_until: None,
        split_column: None,
        group_column: None,
        validation: 0.0,
        size,
        class_values: (manifest.classification.as_ref())
            .map(|c| c.class_values.clone())
            .unwrap_or_default(),
        also: manifest
            .classification
            .as_ref()
            .map_or_else(Vec::new, words_for),
        any_class: None,
        whole_image: false,
        // Images whose files tell none are taken to have that of the training images.
        spacing_mm: (manifest.procedure.as_ref())
            .filter(|p| p.preprocessing.whole_image.is_none())
            .map(|p| p.preprocessing.target_spacing.clone())
            .unwrap_or_default(),
        range: [0.0, 255.0],
        leaks_are_errors: false,
    })
}

/// Words for "not the finding" and "the finding", of models with a class of those without it.
const WORDS: [&[&str]; 2] = [
    &["normal", "negative", "no", "false"],
    &["abnormal", "positive", "yes", "true"],
];

/// Words that labels may use beside the names of classes: of classes that exclude each other, for
/// the first one and for all others together.
fn words_for(classification: &Classification) -> Vec<(String, u8)> {
    let names: Vec<String> = (classification.classes.iter())
        .map(|c| c.name.to_lowercase())
        .collect();
    let any = classification.any.as_ref();
    if classification.activation != ClassActivation::Softmax || (names.len() > 2 && any.is_none()) {
        return Vec::new();
    }
    let other = if names.len() == 2 { 1 } else { data::ANY_CLASS };
    let mut words: Vec<(String, u8)> = Vec::new();
    words.extend(any.map(|any| (any.name.to_lowercase(), other)));
    // "Pneumonia" is what "bacterial pneumonia" and "viral pneumonia" have in common.
    if let [_, second, rest @ ..] = names.as_slice()
        && !rest.is_empty()
    {
        let shared = second.split_whitespace().filter(|word| {
            let is_in = |name: &String| name.split_whitespace().any(|w| w == *word);
            rest.iter().all(is_in) && !is_in(&names[0])
        });
        words.extend(shared.map(|word| (word.to_owned(), other)));
    }
    for (class, list) in [(0, WORDS[0]), (other, WORDS[1])] {
        words.extend(list.iter().map(|word| ((*word).to_owned(), class)));
    }
    words
}

/// The rules for the presence of one finding: 0 and 1, its name, and of classes that exclude each
/// other all names.
fn rules_of_finding(
    rules: &DataRules,
    classification: &Classification,
    finding: &str,
) -> DataRules {
    let mut rules = rules.clone();
    let is_it = |name: &str| u8::from(name.eq_ignore_ascii_case(finding));
    let names = classification.classes.iter().map(|c| c.name.as_str());
    let at = names.clone().position(|n| is_it(n) == 1);
    rules.also = if classification.activation == ClassActivation::Softmax {
        let values = classification.class_values.iter().enumerate();
        let values = values.map(|(n, v)| (v.to_lowercase(), u8::from(Some(n) == at)));
        names
            .map(|n| (n.to_lowercase(), is_it(n)))
            .chain(values)
            .collect()
    } else {
        vec![(finding.to_lowercase(), 1)]
    };
    for (class, list) in (0..).zip(WORDS) {
        rules
            .also
            .extend(list.iter().map(|word| ((*word).to_owned(), class)));
    }
    rules.classes = vec!["0".to_owned(), "1".to_owned()];
    rules.class_values = Vec::new();
    rules
}

/// A case whose mask was just found.
pub struct SeenCase<'a> {
    /// Its name in the data set.
    pub name: &'a str,
    /// Its image.
    pub image: &'a Path,
    /// What the model has seen.
    pub volume: &'a Volume,
    /// What was found, i fastest.
    pub labels: &'a [u8],
}

/// Looks at masks as they are found.
pub type Seen<'a> = dyn FnMut(&SeenCase<'_>) -> Result<(), Error> + 'a;

/// Measures a package on a data set; `seen` looks at every mask that is found.
///
/// `parts` are those of a MedMNIST file. `finding` names the class whose presence `labels.csv`
/// tells with 0 and 1, for models of many findings.
///
/// # Errors
/// [`Error`].
pub fn evaluate(
    package: &VerifiedPackage,
    rules: &DataRules,
    path: &Path,
    parts: &[&str],
    finding: Option<&str>,
    reader: &Reader<'_>,
    settings: &Settings,
    load: &dyn Fn(&str) -> Result<VerifiedPackage, String>,
    seen: &mut Seen<'_>,
    task: &Task,
) -> Result<Evaluation, Error> {
    let manifest = package.manifest();
    let (n, figures) = if let Some(classification) = &manifest.classification {
        let rules = match finding {
            Some(finding) => rules_of_finding(rules, classification, finding),
            None => rules.clone(),
        };
        let squares = matches!(
            classification.preparation,
            ImagePreparation::CenterSquare { .. }
        );
        // Images come at the model's size; what is cut off must go before.
        let reader = |path: &Path| {
            let image = reader.image(path)?;
            Ok(if squares { square(&image) } else { image })
        };
        let mut samples = data::load(&rules, path, parts, &reader)?;
        if rules.split_column.is_some() {
            samples.retain(|s| s.split.as_deref().is_some_and(|s| parts.contains(&s)));
            if samples.is_empty() {
                return Err(Error::Data {
                    reason: format!("no image of the part {parts:?}"),
                    path: path.to_owned(),
                });
            }
        }
        let figures = classes(package, &samples, finding, task)?;
        (samples.len(), Figures::Classes(figures))
    } else {
        let figures = masks(
            package,
            rules,
            &data::pairs(rules, path)?,
            reader,
            settings,
            load,
            seen,
            task,
        )?;
        (figures.cases.len(), Figures::Masks(figures))
    };
    Ok(Evaluation {
        model: manifest.key(),
        weights_sha256: manifest.weights_sha256.clone(),
        n,
        figures,
    })
}

/// The largest square in the middle of an image.
fn square(image: &Picture) -> Picture {
    let [nz, ny, nx] = image.dims;
    let edge = ny.min(nx);
    let corner = [0, ((ny - edge) / 2) as i64, ((nx - edge) / 2) as i64];
    Picture {
        dims: [nz, edge, edge],
        values: Values::Floats(batches::piece(
            &image.floats(),
            image.dims,
            corner,
            [nz, edge, edge],
            0.0,
        )),
        spacing_mm: image.spacing_mm,
        geometry: None,
    }
}

/// Measures a classifier on samples that are read already.
///
/// # Errors
/// [`Error`].
pub fn classes(
    package: &VerifiedPackage,
    samples: &[Sample],
    finding: Option<&str>,
    task: &Task,
) -> Result<ClassFigures, Error> {
    let refused = |e: crate::inference::Error| match e {
        crate::inference::Error::Cancelled(c) => Error::Cancelled(c),
        other => Error::Network(other.to_string()),
    };
    let classifier = Classifier::new(package.clone()).map_err(refused)?;
    let classification = classifier.classification();
    let finding = match finding {
        None => None,
        Some(name) => {
            let mut names = classification.classes.iter().map(|c| c.name.as_str());
            let at = names.position(|n| n.eq_ignore_ascii_case(name));
            Some(at.ok_or_else(|| Error::Network(format!("it has no class {name:?}")))?)
        }
    };
    task.begin("Cases", samples.len());
    let results: Vec<Vec<f64>> = samples
        .par_iter()
        .map_init(Workspace::default, |workspace, sample| {
            task.check()?;
            let [_, rows, columns] = sample.image.dims;
            let plane = GrayPlane {
                dims: [rows, columns],
                values: sample.image.floats(),
            };
            let found = classifier.probabilities(&plane, workspace, &Task::new());
            task.advance(1);
            found.map_err(refused)
        })
        .collect::<Result<_, Error>>()?;
    Ok(class_figures(classification, samples, &results, finding))
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

/// The parts of a MedMNIST file that are measured: what is asked for, else its test part, else its
/// validation part.
///
/// # Errors
/// [`Error::Data`].
pub fn parts_of<'a>(
    rules: &DataRules,
    path: &Path,
    asked: Option<&'a str>,
) -> Result<Vec<&'a str>, Error> {
    if let Some(part) = asked {
        return Ok(vec![part]);
    }
    if rules.layout != Layout::Medmnist {
        return Ok(Vec::new());
    }
    let has_test = super::npz::read(path)?.contains_key("test_images");
    Ok(vec![if has_test { "test" } else { "val" }])
}

/// Measures a segmentation on the cases of some samples, from their files.
///
/// # Errors
/// [`Error`].
pub fn masks_of(
    package: &VerifiedPackage,
    rules: &DataRules,
    path: &Path,
    samples: &[Sample],
    reader: &Reader<'_>,
    settings: &Settings,
    task: &Task,
) -> Result<MaskFigures, Error> {
    let mut cases = data::pairs(rules, path)?;
    cases.retain(|(name, ..)| samples.iter().any(|s| s.name == *name));
    let none = |id: &str| Err(format!("no model {id:?}"));
    masks(
        package,
        rules,
        &cases,
        reader,
        settings,
        &none,
        &mut |_| Ok(()),
        task,
    )
}

/// Measures a segmentation through the whole way that a run takes.
fn masks(
    package: &VerifiedPackage,
    rules: &DataRules,
    listed: &[(String, PathBuf, PathBuf)],
    reader: &Reader<'_>,
    settings: &Settings,
    load: &dyn Fn(&str) -> Result<VerifiedPackage, String>,
    seen: &mut Seen<'_>,
    task: &Task,
) -> Result<MaskFigures, Error> {
    let labels = package.manifest().labels.clone();
    let refused = |e: crate::inference::Error| match e {
        crate::inference::Error::Cancelled(c) => Error::Cancelled(c),
        other => Error::Network(other.to_string()),
    };
    let model = Model::new(package.clone(), load).map_err(refused)?;
    task.begin("Cases", listed.len());
    let mut cases = Vec::new();
    let mut unit = "mm";
    for (name, file, mask) in listed {
        task.check()?;
        let (dims, truth) = reader.mask(mask, file, &rules.classes)?;
        let image = reader.image(file)?;
        if dims != image.dims {
            return Err(Error::Data {
                reason: format!("a mask of {dims:?} for an image of {:?}", image.dims),
                path: mask.clone(),
            });
        }
        if image.spacing_mm.is_none() && rules.spacing_mm.is_empty() {
            unit = "px";
        }
        let spacing_mm = data::spacing_of(rules, &image);
        let volume = volume_of(&image, spacing_mm)?;
        let found = model
            .run(&volume, settings, &Task::new())
            .map_err(refused)?;
        let found = found.segmentation.map.labels;
        seen(&SeenCase {
            name,
            image: file,
            volume: &volume,
            labels: &found,
        })?;
        let mut case = MaskCase {
            file: name.clone(),
            dice: BTreeMap::new(),
            hd95: BTreeMap::new(),
        };
        for label in &labels {
            if let Some(dice) = metrics::dice(&found, &truth, label.label) {
                case.dice.insert(label.name.clone(), dice);
            }
            let far = metrics::hausdorff95(&found, &truth, label.label, dims, spacing_mm);
            if let Some(far) = far {
                case.hd95.insert(label.name.clone(), far);
            }
        }
        cases.push(case);
        task.advance(1);
    }
    let summary = |of: &dyn Fn(&MaskCase) -> &BTreeMap<String, f64>| {
        let one = |label: &crate::model::Label| {
            let values = cases.iter().filter_map(|c| of(c).get(&label.name).copied());
            Some((label.name.clone(), summarize(&values.collect::<Vec<_>>())?))
        };
        labels.iter().filter_map(one).collect::<BTreeMap<_, _>>()
    };
    Ok(MaskFigures {
        dice: summary(&|c| &c.dice),
        hd95: summary(&|c| &c.hd95),
        hd95_unit: unit,
        cases,
    })
}

fn summarize(values: &[f64]) -> Option<Summary> {
    let n = values.len();
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / n as f64;
    if n == 0 {
        return None;
    }
    let middle = mean(&mut values.iter().copied());
    let squares: f64 = values.iter().map(|v| (v - middle).powi(2)).sum();
    let figure = |some: &[usize]| Some(mean(&mut some.iter().map(|i| values[*i])));
    Some(Summary {
        mean: middle,
        sd: (squares / (n as f64 - 1.0).max(1.0)).sqrt(),
        ci95: metrics::interval(n, SEED, &figure),
        n,
    })
}

/// An image as a volume: where its file says it lies, else in a frame of its own.
fn volume_of(image: &Picture, [z, y, x]: [f64; 3]) -> Result<Volume, Error> {
    let [k, j, i] = image.dims;
    let geometry = if let Some(geometry) = &image.geometry {
        geometry.clone()
    } else {
        let axes = [DVec3::X, DVec3::Y, DVec3::Z];
        VolumeGeometry::from_axes([i, j, k], DVec3::ZERO, axes, [x, y, z])
            .map_err(|e| Error::Network(e.to_string()))?
    };
    let voxels = match &image.values {
        Values::Bytes(bytes) => Voxels::U8(bytes.clone()),
        Values::Floats(floats) => Voxels::F32(floats.clone()),
    };
    Ok(Volume {
        geometry,
        voxels,
        modality_lut: ModalityLut::IDENTITY,
        quantity: Quantity::Arbitrary,
        modality: String::new(),
        layout: VolumeLayout::Volumetric,
        calibration: Calibration::Patient,
        inverted: false,
        windows: match image.values {
            // A picture is shown as it is.
            Values::Bytes(_) => vec![NamedWindow {
                window: VoiWindow::spanning(0.0, 255.0),
                name: String::new(),
            }],
            Values::Floats(_) => Vec::new(),
        },
        padding: None,
        frame_rate: None,
        source: SourceSeries::default(),
        issues: Vec::new(),
    })
}
