//! What a run leaves: a package with its model card.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use super::Error;
use super::data::{Sample, Split, common_orientation, typical_spacing};
use super::evaluate::{Evaluation, Figures};
use super::metrics::{self, HalfSplits};
use super::recipe::{ModelWords, Recipe};
use super::run::Trained;
use crate::findings::OperatingPoint;
use crate::inference::{Heads, familiar};
use crate::model::procedure::{
    Channel, LabelRule, Preprocessing, Procedure, Resampling, Scheme, WindowRule,
};
use crate::model::{
    Class, ClassActivation, Classification, Conform, Envelope, ImagePreparation, Input, Label,
    MANIFEST_SHAPE, Manifest, Network, Normalization, Output, OutputKind, PackageFiles, Template,
    VerifiedPackage, sha256_hex,
};
use crate::study::CodedConcept;
use crate::{VERSION, whole_file};

/// Colors of labels, in their order.
const COLORS: [[u8; 3]; 6] = [
    [230, 97, 1],
    [94, 60, 153],
    [0, 136, 55],
    [202, 0, 32],
    [5, 113, 176],
    [247, 206, 70],
];

/// A classifier's decision, made on the validation samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Results are divided by these.
    pub heads: Heads,
    /// For all classes but the first together.
    pub any: Calling,
    /// For each class against the rest.
    pub classes: Vec<Calling>,
}

/// When a finding is called, and how often that was right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calling {
    /// From this probability on the finding counts as present.
    pub threshold: f64,
    /// Below the second and from the first on neither is said.
    pub not_sure: [f64; 2],
    /// On the validation samples.
    pub point: OperatingPoint,
}

/// Sensitivity that the lower end of "not sure" keeps, and specificity that the upper one keeps.
const SURE: f64 = 0.95;

impl Calling {
    fn of(scores: &[(f64, bool)]) -> Self {
        let threshold = metrics::best_threshold(scores);
        let rates = metrics::rates(scores, threshold);
        let count = |truth: bool| scores.iter().filter(|s| s.1 == truth).count();
        let mut values: Vec<f64> = scores.iter().map(|s| s.0).collect();
        values.sort_by(f64::total_cmp);
        // The highest that still finds nearly all, the lowest that is nearly never wrong.
        let low = (values.iter().rev().copied())
            .find(|t| metrics::rates(scores, *t).sensitivity >= SURE)
            .unwrap_or(threshold);
        let high = (values.iter().copied())
            .find(|t| metrics::rates(scores, *t).specificity >= SURE)
            .unwrap_or(threshold);
        Self {
            threshold,
            not_sure: [low.min(threshold), high.max(threshold)],
            point: OperatingPoint {
                sensitivity: rates.sensitivity,
                specificity: rates.specificity,
                cases: [count(true), count(false)],
            },
        }
    }
}

/// Temperatures and thresholds from the network's results on the validation samples, and their
/// classes.
pub fn decide(results: &[Vec<f32>], classes: &[u8]) -> Decision {
    let classes = classes.iter().copied();
    let cases: Vec<(Vec<f32>, u8)> = results.iter().cloned().zip(classes).collect();
    let heads = metrics::best_heads(&cases);
    let scored: Vec<(Vec<f64>, u8)> = (cases.iter())
        .map(|(r, class)| (heads.probabilities(r), *class))
        .collect();
    let any: Vec<(f64, bool)> = (scored.iter()).map(|(p, c)| (1.0 - p[0], *c > 0)).collect();
    let one = |class: usize| {
        let scores = scored
            .iter()
            .map(|(p, c)| (p[class], usize::from(*c) == class));
        Calling::of(&scores.collect::<Vec<_>>())
    };
    Decision {
        heads,
        any: Calling::of(&any),
        classes: (0..scored.first().map_or(0, |s| s.0.len()))
            .map(one)
            .collect(),
    }
}

/// Points of a template along each axis.
const TEMPLATE: [usize; 2] = [16, 16];

/// Part of the training images that a template may take for strangers.
const STRANGERS: f64 = 0.002;

/// A turned or inverted image looks more alike by at least this much before it is said to be one.
const LEAST_MARGIN: f64 = 0.15;

/// What the images of the training part look like.
fn template(samples: &[Sample]) -> Template {
    let all: Vec<Vec<f32>> = samples
        .iter()
        .map(|s| {
            let [_, rows, columns] = s.image.dims;
            familiar::features(&s.image.floats(), [rows, columns], TEMPLATE)
        })
        .collect();
    let mut mean = vec![0.0_f32; TEMPLATE[0] * TEMPLATE[1]];
    for one in &all {
        (mean.iter_mut().zip(one)).for_each(|(m, v)| *m += v / all.len() as f32);
    }
    let mut alike: Vec<f64> = all
        .iter()
        .map(|one| familiar::correlation(one, &mean))
        .collect();
    alike.sort_by(f64::total_cmp);
    let lowest = alike[(alike.len() as f64 * STRANGERS) as usize];
    // Odd ones among those that were learned from, such as a wide image with black sides, may look
    // more alike when they are turned.
    let odd = samples.iter().zip(&all).map(|(s, own)| {
        let [_, rows, columns] = s.image.dims;
        let values = s.image.floats();
        let (best, _) = familiar::otherwise(&mean, TEMPLATE, &values, [rows, columns]);
        best - familiar::correlation(own, &mean)
    });
    let mut odd: Vec<f64> = odd.collect();
    odd.sort_by(|a, b| b.total_cmp(a));
    let oddest = odd[(odd.len() as f64 * STRANGERS) as usize];
    Template {
        size: TEMPLATE,
        mean,
        // A little further out than any that was seen.
        lowest: (lowest - 0.05).max(0.0),
        margin: (oddest + 0.05).max(LEAST_MARGIN),
    }
}

/// The package of a run.
///
/// # Errors
/// [`Error::Package`] when its own checks refuse it.
pub fn package(
    recipe: &Recipe,
    split: &Split,
    trained: &Trained,
    decision: Option<&Decision>,
) -> Result<VerifiedPackage, Error> {
    let weights = weights_of(trained);
    let manifest = manifest(recipe, split, trained, decision, sha256_hex(&weights));
    let text = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain data");
    let files = PackageFiles {
        manifest: text,
        weights,
        card: None,
        signature: None,
        path: "the trained model".into(),
    };
    Ok(VerifiedPackage::verify(files)?)
}

fn weights_of(trained: &Trained) -> Vec<u8> {
    let bytes: Vec<(&str, &[usize], Vec<u8>)> = trained
        .parameters
        .slots
        .iter()
        .map(|slot| {
            let values = &trained.parameters.values[slot.range.clone()];
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            (slot.name.as_str(), slot.shape.as_slice(), bytes)
        })
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes);
        (*name, view.expect("values fill their shape"))
    });
    safetensors::serialize(views, None).expect("tensors have different names")
}

fn manifest(
    recipe: &Recipe,
    split: &Split,
    trained: &Trained,
    decision: Option<&Decision>,
    weights_sha256: String,
) -> Manifest {
    let ModelWords {
        id,
        version,
        name,
        license,
        intended_use,
        limits,
        training_data,
        modality,
        ages_years: _,
        views,
    } = recipe.model.clone();
    let kind = if decision.is_some() {
        OutputKind::Classification
    } else {
        OutputKind::Segmentation
    };
    let (text, count) = (
        toml::to_string(&recipe.without_places()).unwrap_or_default(),
        split.training.len(),
    );
    let origin = BTreeMap::from([
        ("trained_by".to_owned(), format!("Negatoscope {VERSION}")),
        ("recipe_sha256".to_owned(), sha256_hex(text.as_bytes())),
        ("training_images".to_owned(), count.to_string()),
        ("epoch".to_owned(), trained.best.0.to_string()),
    ]);
    Manifest {
        shape: MANIFEST_SHAPE.to_owned(),
        id,
        version,
        name,
        license,
        intended_use,
        limits,
        training_data,
        modality,
        envelope: Envelope {
            template: recipe.data.whole_image.then(|| template(&split.training)),
            views,
            ..Envelope::default()
        },
        input: Input {
            // A network that has seen volumes one way around is given all that way around.
            conform: Conform::Stored {
                orientation: (recipe.axes() == 3)
                    .then(|| common_orientation(&split.training))
                    .flatten(),
            },
            channels: Vec::new(),
            normalization: Normalization::None,
            crop: None,
        },
        network: Network {
            layers: Vec::new(),
            graph: Some((*trained.graph).clone()),
            folds: Vec::new(),
        },
        output: Output {
            kind,
            largest_component: recipe.inference.largest_component,
        },
        procedure: decision.is_none().then(|| procedure(recipe, split)),
        earlier: Vec::new(),
        monai: None,
        classification: decision.map(|d| classification(recipe, split, d)),
        labels: if decision.is_some() {
            Vec::new()
        } else {
            labels(recipe)
        },
        weights_sha256,
        origin,
    }
}

fn classification(recipe: &Recipe, split: &Split, decision: &Decision) -> Classification {
    let range = recipe.data.range;
    let class = |name: &str, calling: Option<&Calling>| Class {
        name: name.to_owned(),
        threshold: calling.map(|c| c.threshold),
        operating_point: calling.map(|c| c.point),
        not_sure: calling.map(|c| c.not_sure),
        concept: None,
    };
    let names = &recipe.data.classes;
    let several = names.len() > 2;
    Classification {
        size: recipe.data.size.clone(),
        preparation: ImagePreparation::WholeImage { range },
        activation: ClassActivation::Softmax,
        temperature: Some(decision.heads.finding),
        kind_temperature: decision.heads.kinds,
        classes: (names.iter().enumerate())
            .map(|(n, name)| class(name, (n > 0).then(|| &decision.classes[n])))
            .collect(),
        any: several.then(|| {
            let name = recipe.data.any_class.as_deref().unwrap_or("Any finding");
            class(name, Some(&decision.any))
        }),
        template: (recipe.axes() == 2).then(|| template(&split.training)),
        ages_years: recipe.model.ages_years,
        class_values: recipe.data.class_values.clone(),
    }
}

/// The way to the network that training took: cut to what is not zero, mean 0 and deviation 1.
fn procedure(recipe: &Recipe, split: &Split) -> Procedure {
    let spacing = typical_spacing(&recipe.data, &split.training);
    Procedure {
        preprocessing: Preprocessing {
            transpose_forward: [0, 1, 2],
            transpose_backward: [0, 1, 2],
            channels: vec![Channel {
                scheme: Scheme::ZScore,
                use_mask: false,
            }],
            target_spacing: spacing[3 - recipe.axes()..].to_vec(),
            whole_image: (recipe.data.whole_image)
                .then(|| [recipe.data.size[0], recipe.data.size[1]]),
            resample_image: Resampling::IMAGE,
            resample_labels: Resampling::LABELS,
            resample_logits: Resampling::LOGITS,
        },
        input_channels: 1,
        windows: WindowRule {
            patch_size: recipe.data.size.clone(),
            step: 0.5,
            gaussian: true,
            mirror_axes: mirrored(recipe),
        },
        labels: LabelRule::Argmax {
            classes: recipe.results(),
        },
    }
}

/// Axes of the window that a run mirrors; flips count z, y, x.
fn mirrored(recipe: &Recipe) -> Vec<usize> {
    let first = 3 - recipe.axes();
    let flips = recipe.augmentation.flip.iter();
    flips
        .filter(|axis| recipe.inference.mirror && **axis >= first)
        .map(|axis| axis - first)
        .collect()
}

fn labels(recipe: &Recipe) -> Vec<Label> {
    let label = |(n, name): (usize, &String)| Label {
        label: n as u8 + 1,
        name: name.clone(),
        color: COLORS[n % COLORS.len()],
        category: CodedConcept::new("123037004", "SCT", "Anatomical Structure"),
        // A private code: a recipe's words are no coded concept.
        property: CodedConcept::new(&format!("L{}", n + 1), "99NEGATOSCOPE", name),
    };
    recipe.data.classes.iter().enumerate().map(label).collect()
}

/// Writes the package's folder: manifest, weights and card.
///
/// # Errors
/// [`Error::Io`].
pub fn write(package: &VerifiedPackage, card: &str, folder: &Path) -> Result<(), Error> {
    let io = |source| Error::Io {
        action: "written",
        source,
        path: folder.to_owned(),
    };
    std::fs::create_dir_all(folder).map_err(io)?;
    let files = package.files();
    for (name, bytes) in [
        ("weights.safetensors", files.weights.as_slice()),
        ("MODEL_CARD.md", card.as_bytes()),
        // Last: without it the folder is no package.
        ("manifest.json", files.manifest.as_slice()),
    ] {
        whole_file::write(&folder.join(name), |w| -> std::io::Result<()> {
            w.write_all(bytes)
        })
        .map_err(io)?;
    }
    Ok(())
}

/// An older version's card under a new one's title, with a section before all others; what stands
/// before the sections (for research use, what for) stays there.
pub(super) fn card_with(original: &VerifiedPackage, made: &Manifest, section: &str) -> String {
    let old = original.files().card.as_deref().unwrap_or_default();
    let old = String::from_utf8_lossy(old);
    // The title names the version.
    let body = match old.split_once('\n') {
        Some((title, rest)) if title.starts_with("# ") => rest,
        _ => &old,
    };
    let body = body.trim_start_matches('\n');
    let (before, rest) = body.split_at(body.find("## ").unwrap_or(0));
    format!(
        "# {} {}\n\n{before}{section}\n{rest}",
        made.name, made.version
    )
}

/// The same package with a card.
///
/// # Errors
/// [`Error::Package`].
pub fn with_card(package: &VerifiedPackage, card: &str) -> Result<VerifiedPackage, Error> {
    let mut files = package.files().clone();
    files.card = Some(card.as_bytes().to_vec());
    Ok(VerifiedPackage::verify(files)?)
}

/// What halves of the patients tell about a threshold, as a paragraph.
pub(super) fn half_splits_words(halves: &HalfSplits) -> String {
    let [lowest, highest] = halves.accuracy_range;
    format!(
        "With the threshold chosen on one half of the patients and measured on the other, {} times by \
         chance: accuracy {:.3} ({lowest:.3} to {highest:.3}), sensitivity {:.3}, specificity {:.3}.\n",
        halves.splits, halves.accuracy, halves.sensitivity, halves.specificity
    )
}

/// The model card, with the figures that were measured.
pub fn card(
    recipe: &Recipe,
    split: &Split,
    package: &VerifiedPackage,
    trained: &Trained,
    measured: &Evaluation,
    any: Option<&Evaluation>,
) -> String {
    let manifest = package.manifest();
    let mut text = String::new();
    let mut line = |words: &str| {
        text.push_str(words);
        text.push('\n');
    };
    line(&format!("# {} {}\n", manifest.name, manifest.version));
    line(&format!(
        "{}. {}\n",
        crate::RESEARCH_USE,
        manifest.intended_use
    ));
    line("## What it must not be used for\n");
    line("Any decision about a patient without a reader who looks at the images.");
    for limit in &manifest.limits {
        line(&format!("- {limit}"));
    }
    line("\n## Data\n");
    line(&format!(
        "{}. License of the model: {}.\n",
        manifest.training_data, manifest.license
    ));
    let patients = |samples: &[Sample]| {
        let all: std::collections::BTreeSet<&str> =
            samples.iter().map(|s| s.patient.as_str()).collect();
        all.len()
    };
    line("| part | images | patients |\n|---|---|---|");
    for (name, samples) in [
        ("training", &split.training),
        ("validation", &split.validation),
    ] {
        if samples.is_empty() {
            continue;
        }
        let images = samples.len();
        // Where nothing names patients, each image stands for one of its own.
        let patients = if samples.iter().all(|s| s.patient == s.name) {
            "not told".to_owned()
        } else {
            patients(samples).to_string()
        };
        line(&format!("| {name} | {images} | {patients} |"));
    }
    for doubt in &split.doubts {
        line(&format!("\n{doubt}."));
    }
    line("\n## Training\n");
    let weights = trained.parameters.trained();
    let which = match recipe.data.folds {
        Some(_) => format!("the last of {} epochs", trained.history.len()),
        None => format!(
            "best of {} epochs: {} (from 0)",
            trained.history.len(),
            trained.best.0
        ),
    };
    line(&format!(
        "{weights} weights, seed {}, {which}. Reproduced by the recipe below with `negatoscope \
         train`.\n",
        recipe.seed
    ));
    if let Some(start) = &recipe.without_places().start {
        line(&format!(
            "Its weights began as those of {}, not by chance.\n",
            start.package.display()
        ));
    }
    if let Some(folds) = recipe.data.folds {
        line("## Measured by cross-validation\n");
        line(&format!(
            "{folds} folds, split by patient: every image was measured once, by a network that had \
             learned from the other folds in the same way, at its last epoch. The model of this \
             package learned from all images; it is expected to be about as good, and was not \
             measured itself. The temperatures and the thresholds were chosen on all these \
             measurements together, so accuracy, sensitivity and specificity are a little better \
             than on patients that nobody has seen. Intervals: 95 %, bootstrap over cases, 2000 \
             draws.\n"
        ));
    } else {
        line("## Measured on the validation part\n");
        line(
            "The best epoch, the temperatures and the thresholds were chosen on this part too, so \
             these figures are a little better than on patients that nobody has seen. Intervals: \
             95 %, bootstrap over cases, 2000 draws.\n",
        );
    }
    let any_name = manifest
        .classification
        .as_ref()
        .and_then(|c| c.any.as_ref());
    let parts = any.map(|of| (any_name.map_or("Any finding", |a| a.name.as_str()), of));
    let several = parts.is_some();
    for (name, of) in parts.into_iter().chain([("All classes", measured)]) {
        if several {
            line(&format!("### {name}\n"));
        }
        line("| figure | value | interval |\n|---|---|---|");
        for (name, value, interval) in of.rows() {
            let interval = interval.map_or_else(String::new, |[a, b]| format!("{a:.4} to {b:.4}"));
            line(&format!("| {name} | {value:.4} | {interval} |"));
        }
        line("");
    }
    if let Figures::Classes(figures) = &measured.figures
        && let Some(kinds) = &figures.kinds
    {
        line(&format!(
            "The kind is measured on the {} cases with the finding, by its part of the finding's \
             probability.\n",
            kinds.n
        ));
    }
    if let Figures::Classes(figures) = &any.unwrap_or(measured).figures {
        if let Some(halves) = &figures.half_splits {
            line(&half_splits_words(halves));
        }
        line(
            "### Calibration\n\n| probability | cases | mean probability | positive |\n|---|---|---|---|",
        );
        for bin in &figures.calibration {
            let [low, high] = bin.range;
            let (n, mean, positive) = (bin.cases, bin.mean, bin.positive);
            line(&format!(
                "| {low:.1} to {high:.1} | {n} | {mean:.3} | {positive:.3} |"
            ));
        }
    }
    line("\n## Subgroups\n");
    let subgroups = match &any.unwrap_or(measured).figures {
        Figures::Classes(figures) => figures.subgroups.as_slice(),
        Figures::Masks(_) => &[],
    };
    for group in subgroups {
        line(&format!("- {}", group.words()));
    }
    line(match (subgroups.is_empty(), &recipe.data.group_column) {
        (true, _) => "Not measured: the data name no age, sex or machine.\n",
        (false, None) => "\nNot measured by age, sex or machine: the data name none.\n",
        (false, Some(_)) => "",
    });
    let _ = write!(
        text,
        "## Recipe\n\n```toml\n{}```\n",
        toml::to_string(&recipe.without_places()).unwrap_or_default()
    );
    text
}
