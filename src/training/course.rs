//! A recipe's whole course: data, leaks, training once or by folds, measuring, package and card.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::data::{self, Reader, Sample, Split, Target};
use super::evaluate::{self, Evaluation, Figures};
use super::recipe::Recipe;
use super::result::{self, Decision};
use super::run::{Told, Trained, train};
use super::{Error, leaks, validate};
use crate::inference::Settings;
use crate::model::VerifiedPackage;
use crate::task::Task;
use crate::whole_file;

/// What a course tells on its way.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// Something doubtful about the data.
    Doubt(String),
    /// Something that is good to know.
    Note(String),
    /// A network begins to learn, or goes on; its checkpoint lies in the folder.
    Begins {
        /// The folder.
        folder: PathBuf,
        /// Images that it is measured by; none for the last of a cross-validation.
        validation: usize,
    },
    /// How the network gets on.
    Told(Told),
}

/// What a course needs beside its recipe.
pub struct Means<'a> {
    /// Folder or file of the data.
    pub place: &'a Path,
    /// Folder for checkpoint, package and report.
    pub out: &'a Path,
    /// Goes on from checkpoints that are there.
    pub resume: bool,
    /// Reads images.
    pub reader: &'a Reader<'a>,
    /// Of runs that measure.
    pub settings: &'a Settings,
    /// Progress and cancellation.
    pub task: &'a Task,
}

/// What a course has led to.
#[derive(Clone, Debug)]
pub struct Course {
    /// Folder of the package.
    pub package: PathBuf,
    /// Its figures on the cases that were held out.
    pub measured: Evaluation,
    /// All that is known, as `report.json` has it.
    pub report: Value,
}

/// A network that is trained, and what is known about it.
struct Made {
    /// What it learned from, and was measured by.
    split: Split,
    trained: Trained,
    decision: Option<Decision>,
    /// Of cross-validation: all cases, with the probabilities by networks that never saw them.
    cases: Vec<Sample>,
    measured: Option<Vec<Vec<f64>>>,
    /// AUC of each fold.
    folds: Vec<f64>,
    /// Images that were the same, and nearly the same, on both sides.
    leaks: [usize; 2],
}

/// Follows a recipe to its package.
///
/// # Errors
/// [`Error`]; checkpoints stay whatever happens.
pub fn follow(
    recipe: &Recipe,
    means: &Means<'_>,
    tell: &mut dyn FnMut(News),
) -> Result<Course, Error> {
    let Means {
        place,
        out,
        reader,
        settings,
        task,
        ..
    } = *means;
    let io = |source| Error::Io {
        action: "written",
        source,
        path: out.to_owned(),
    };
    std::fs::create_dir_all(out).map_err(io)?;
    task.begin("Reading images", 0);
    let samples = data::load(&recipe.data, place, &["train", "val"], reader)?;
    let made = match recipe.data.folds {
        Some(folds) => cross_validated(recipe, samples, folds, means, tell)?,
        None => held_out(recipe, samples, means, tell)?,
    };
    task.begin("Measuring", 0);
    let (split, trained) = (&made.split, &made.trained);
    let package = result::package(recipe, split, trained, made.decision.as_ref())?;
    let figures = match (&package.manifest().classification, &made.measured) {
        (Some(classification), Some(results)) => Figures::Classes(evaluate::class_figures(
            classification,
            &made.cases,
            results,
            None,
        )),
        (Some(_), None) => {
            Figures::Classes(evaluate::classes(&package, &split.validation, None, task)?)
        }
        (None, _) => Figures::Masks(evaluate::masks_of(
            &package,
            &recipe.data,
            place,
            &split.validation,
            reader,
            settings,
            task,
        )?),
    };
    let measured = Evaluation {
        model: package.manifest().key(),
        weights_sha256: package.manifest().weights_sha256.clone(),
        n: made.cases.len().max(split.validation.len()),
        figures,
    };
    let any = any_figures(&package, &made, task)?;
    let card = result::card(recipe, split, &package, trained, &measured, any.as_ref());
    let folder = out.join("package");
    result::write(&package, &card, &folder)?;
    let report = json!({
        "package": folder,
        "weights_sha256": package.manifest().weights_sha256,
        "best_epoch": trained.best.0,
        "best_score": trained.best.1,
        "training_images": split.training.len(),
        "validation_images": split.validation.len(),
        "leaks": { "exact": made.leaks[0], "near": made.leaks[1] },
        "folds": made.folds,
        "history": trained.history,
        "validation": measured,
        "any": any,
    });
    let text = serde_json::to_string_pretty(&report).expect("a report is plain data");
    whole_file::write(&out.join("report.json"), |w| -> std::io::Result<()> {
        w.write_all(text.as_bytes())
    })
    .map_err(io)?;
    Ok(Course {
        package: folder,
        measured,
        report,
    })
}

/// Of several classes that are a finding together: figures of that finding.
fn any_figures(
    package: &VerifiedPackage,
    made: &Made,
    task: &Task,
) -> Result<Option<Evaluation>, Error> {
    let manifest = package.manifest();
    let Some(classification) = manifest.classification.as_ref().filter(|c| c.any.is_some()) else {
        return Ok(None);
    };
    let held = if made.cases.is_empty() {
        &made.split.validation
    } else {
        &made.cases
    };
    let mut cases = held.clone();
    for case in &mut cases {
        let class = case.class().unwrap_or(0);
        // How well each kind is found is told apart.
        if class > 0 && case.group.is_none() {
            let kind = classification.classes.get(usize::from(class));
            case.group = kind.map(|kind| kind.name.clone());
        }
        case.target = Target::Class(class.min(1));
    }
    let figures = match &made.measured {
        Some(results) => evaluate::class_figures(classification, &cases, results, None),
        None => evaluate::classes(package, &cases, None, task)?,
    };
    Ok(Some(Evaluation {
        model: manifest.key(),
        weights_sha256: manifest.weights_sha256.clone(),
        n: cases.len(),
        figures: Figures::Classes(figures),
    }))
}

/// One part is held out.
fn held_out(
    recipe: &Recipe,
    samples: Vec<Sample>,
    means: &Means<'_>,
    tell: &mut dyn FnMut(News),
) -> Result<Made, Error> {
    let mut split = data::split(&recipe.data, means.place, samples, recipe.seed)?;
    let leaks = without_leaks(recipe, &mut split, means.place, tell)?;
    let trained = trained(recipe, &split, means.out, means, tell)?;
    let decision = if recipe.network.classifies() {
        let results = validate::results(recipe, &trained, &split.validation, means.task)?;
        let classes: Vec<u8> = (split.validation.iter().filter_map(Sample::class)).collect();
        Some(result::decide(&results, &classes))
    } else {
        None
    };
    Ok(Made {
        split,
        trained,
        decision,
        cases: Vec::new(),
        measured: None,
        folds: Vec::new(),
        leaks,
    })
}

/// Each part is held out once; then all images are learned from.
fn cross_validated(
    recipe: &Recipe,
    samples: Vec<Sample>,
    folds: usize,
    means: &Means<'_>,
    tell: &mut dyn FnMut(News),
) -> Result<Made, Error> {
    let mut leaks = [0; 2];
    let (mut cases, mut results, mut scores) = (Vec::new(), Vec::new(), Vec::new());
    for (n, mut split) in data::folds(means.place, &samples, folds, recipe.seed)?
        .into_iter()
        .enumerate()
    {
        tell(News::Note(format!("fold {} of {folds}", n + 1)));
        let found = without_leaks(recipe, &mut split, means.place, tell)?;
        (leaks[0], leaks[1]) = (leaks[0] + found[0], leaks[1] + found[1]);
        let folder = means.out.join(format!("fold-{}", n + 1));
        let trained = trained(recipe, &split, &folder, means, tell)?;
        scores.push(trained.best.1);
        results.extend(validate::results(
            recipe,
            &trained,
            &split.validation,
            means.task,
        )?);
        cases.extend(split.validation);
    }
    let classes: Vec<u8> = cases.iter().filter_map(Sample::class).collect();
    let decision = result::decide(&results, &classes);
    let probabilities = results
        .iter()
        .map(|r| decision.heads.probabilities(r))
        .collect();
    tell(News::Note("the model from all images".to_owned()));
    let split = Split {
        training: samples,
        validation: Vec::new(),
        doubts: Vec::new(),
    };
    let trained = trained(recipe, &split, means.out, means, tell)?;
    Ok(Made {
        split,
        trained,
        decision: Some(decision),
        cases,
        measured: Some(probabilities),
        folds: scores,
        leaks,
    })
}

/// Takes images out of training that are held out too, and says so.
fn without_leaks(
    recipe: &Recipe,
    split: &mut Split,
    place: &Path,
    tell: &mut dyn FnMut(News),
) -> Result<[usize; 2], Error> {
    let found = leaks::take_out(split);
    if recipe.data.leaks_are_errors && !split.doubts.is_empty() {
        return Err(Error::Data {
            reason: split.doubts.join("; "),
            path: place.to_owned(),
        });
    }
    for doubt in &split.doubts {
        tell(News::Doubt(doubt.clone()));
    }
    Ok([found.exact.len(), found.near.len()])
}

/// Trains on a split, telling the epochs.
fn trained(
    recipe: &Recipe,
    split: &Split,
    folder: &Path,
    means: &Means<'_>,
    tell: &mut dyn FnMut(News),
) -> Result<Trained, Error> {
    std::fs::create_dir_all(folder).map_err(|source| Error::Io {
        action: "written",
        source,
        path: folder.to_owned(),
    })?;
    tell(News::Note(format!(
        "{} images to learn from, {} to measure by",
        split.training.len(),
        split.validation.len()
    )));
    tell(News::Begins {
        folder: folder.to_owned(),
        validation: split.validation.len(),
    });
    let task = means.task;
    let mut told = |told: Told| {
        if let Told::Step {
            epoch, step, steps, ..
        } = told
        {
            if step == 1 {
                task.begin(&format!("Epoch {epoch}"), steps);
            }
            task.report(step, steps);
        }
        tell(News::Told(told));
    };
    train(recipe, split, folder, means.resume, &mut told, task)
}
