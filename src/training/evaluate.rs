//! Any package on any labeled data: figures with intervals, and every case.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

pub use super::class_figures::{
    CalibrationBin, ClassCase, ClassFigures, KindFigures, Subgroup, class_figures,
};
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
#[expect(
    clippy::large_enum_variant,
    reason = "an evaluation has one, and few are held"
)]
pub enum Figures {
    /// Of a classifier.
    Classes(ClassFigures),
    /// Of a segmentation.
    Masks(MaskFigures),
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
                        row("log loss of the kind", kinds.log_loss, None),
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
