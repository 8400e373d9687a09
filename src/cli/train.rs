//! `negatoscope train`: a recipe and data in, a model package with measured figures out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::Ending;
use super::print::{say, say_json};
use super::progress::ProgressLine;
use crate::audit::{AuditEvent, EventId, Log, ParticipantObject};
use crate::runtime::{AnyImages, Home, now_utc, settings_for_runs};
use crate::task::Task;
use crate::training::data::{Sample, Split};
use crate::training::evaluate::{self, Evaluation};
use crate::training::result::Decision;
use crate::training::{Recipe, Told, Trained, data, leaks, metrics, result, train, validate};
use crate::whole_file;

#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The recipe.
    #[arg(value_name = "RECIPE.toml")]
    recipe: PathBuf,
    /// Folder or file of the data, in place of the recipe's.
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Folder for the checkpoint and the package (else the model's id in the working folder).
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on from the checkpoint in the folder, when there is one.
    #[arg(long)]
    resume: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(home: &Home, arguments: &Arguments) -> anyhow::Result<Ending> {
    let recipe = Recipe::read(&arguments.recipe)?;
    let place = arguments.data.as_ref().unwrap_or(&recipe.data.path).clone();
    let id = Path::new(&recipe.model.id);
    let out = arguments.out.as_deref().unwrap_or(id);
    let access = AuditEvent::new(EventId::DicomInstancesAccessed, now_utc())
        .about(ParticipantObject::file(&place).with("role", "training data"));
    Log::open(home.root())?.append(&access)?;
    std::fs::create_dir_all(out)?;
    if !arguments.resume && out.join(crate::training::CHECKPOINT).exists() {
        anyhow::bail!(
            "there is a checkpoint already: use --resume to go on with it, or another --out: {}",
            out.display()
        );
    }
    let task = Arc::new(Task::new());
    task.begin("Reading images", 0);
    let line = ProgressLine::start(&task);
    let samples = data::load(&recipe.data, &place, &["train", "val"], &AnyImages)?;
    let mut made = match recipe.data.folds {
        Some(folds) => cross_validated(&recipe, &place, samples, folds, out, arguments, &line)?,
        None => held_out(&recipe, &place, samples, out, arguments, &line)?,
    };
    task.begin("Measuring", 0);
    let (split, trained) = (&made.split, &made.trained);
    let package = result::package(&recipe, split, trained, made.decision.as_ref())?;
    let figures = match (&package.manifest().classification, made.measured.take()) {
        (Some(classification), Some(results)) => {
            let figures = evaluate::class_figures(classification, &made.cases, &results, None);
            evaluate::Figures::Classes(figures)
        }
        (Some(_), None) => {
            evaluate::Figures::Classes(evaluate::classes(&package, &split.validation, None, &task)?)
        }
        (None, _) => evaluate::Figures::Masks(evaluate::masks_of(
            &package,
            &recipe.data,
            &place,
            &split.validation,
            &AnyImages,
            &settings_for_runs(),
            &task,
        )?),
    };
    drop(line);
    let measured = Evaluation {
        model: package.manifest().key(),
        weights_sha256: package.manifest().weights_sha256.clone(),
        n: made.cases.len().max(split.validation.len()),
        figures,
    };
    let card = result::card(&recipe, split, &package, trained, &measured);
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
    });
    let text = serde_json::to_string_pretty(&report)?;
    whole_file::write(&out.join("report.json"), |w| -> std::io::Result<()> {
        w.write_all(text.as_bytes())
    })?;
    if arguments.json {
        say_json(&report)?;
    } else {
        for (name, value, interval) in measured.rows() {
            let interval =
                interval.map_or_else(String::new, |[a, b]| format!("  ({a:.4} to {b:.4})"));
            say(&format!("{name:<24} {value:.4}{interval}"))?;
        }
    }
    eprintln!(
        "package in {}; install it with `negatoscope models import`",
        folder.display()
    );
    Ok(Ending::Done)
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

/// One part is held out.
fn held_out(
    recipe: &Recipe,
    place: &Path,
    samples: Vec<Sample>,
    out: &Path,
    arguments: &Arguments,
    line: &ProgressLine,
) -> anyhow::Result<Made> {
    let mut split = data::split(&recipe.data, place, samples, recipe.seed)?;
    let leaks = without_leaks(recipe, &mut split, place, line)?;
    let trained = trained(recipe, &split, out, arguments, line)?;
    let decision = if recipe.network.classifies() {
        let results = validate::results(recipe, &trained, &split.validation, line.task())?;
        Some(result::decide(&results, &split.validation))
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
    place: &Path,
    samples: Vec<Sample>,
    folds: usize,
    out: &Path,
    arguments: &Arguments,
    line: &ProgressLine,
) -> anyhow::Result<Made> {
    let mut leaks = [0; 2];
    let (mut cases, mut results, mut scores) = (Vec::new(), Vec::new(), Vec::new());
    for (n, mut split) in data::folds(place, &samples, folds, recipe.seed)?
        .into_iter()
        .enumerate()
    {
        line.note(&format!("fold {} of {folds}", n + 1));
        let found = without_leaks(recipe, &mut split, place, line)?;
        (leaks[0], leaks[1]) = (leaks[0] + found[0], leaks[1] + found[1]);
        let folder = out.join(format!("fold-{}", n + 1));
        std::fs::create_dir_all(&folder)?;
        let trained = trained(recipe, &split, &folder, arguments, line)?;
        scores.push(trained.best.1);
        results.extend(validate::results(
            recipe,
            &trained,
            &split.validation,
            line.task(),
        )?);
        cases.extend(split.validation);
    }
    let decision = result::decide(&results, &cases);
    let probabilities = results
        .iter()
        .map(|r| metrics::softmax(r, decision.temperature))
        .collect();
    line.note("the model from all images");
    let split = Split {
        training: samples,
        validation: Vec::new(),
        doubts: Vec::new(),
    };
    let trained = trained(recipe, &split, out, arguments, line)?;
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
    line: &ProgressLine,
) -> anyhow::Result<[usize; 2]> {
    let found = leaks::take_out(split);
    if recipe.data.leaks_are_errors && !split.doubts.is_empty() {
        anyhow::bail!("{}: {}", split.doubts.join("; "), place.display());
    }
    for doubt in &split.doubts {
        line.note(&format!("negatoscope: doubt: {doubt}"));
    }
    Ok([found.exact.len(), found.near.len()])
}

/// Trains on a split, telling the epochs.
fn trained(
    recipe: &Recipe,
    split: &Split,
    out: &Path,
    arguments: &Arguments,
    line: &ProgressLine,
) -> anyhow::Result<Trained> {
    line.note(&format!(
        "{} images to learn from, {} to measure by",
        split.training.len(),
        split.validation.len()
    ));
    let task = line.task();
    let score = if recipe.network.classifies() {
        "AUC"
    } else {
        "Dice"
    };
    let mut tell = |told: Told| match told {
        Told::Step {
            epoch, step, steps, ..
        } => {
            if step == 1 {
                task.begin(&format!("Epoch {epoch}"), steps);
            }
            task.report(step, steps);
        }
        Told::Epoch { figures, best } => {
            let measured = if split.validation.is_empty() {
                String::new()
            } else {
                let (loss, value) = (figures.validation_loss, figures.score);
                format!("  validation loss {loss:.4}  {score} {value:.4}")
            };
            line.note(&format!(
                "epoch {:>4}  loss {:.4}{measured}  rate {:.2e}{}",
                figures.epoch,
                figures.training_loss,
                figures.learning_rate,
                if best && recipe.data.folds.is_none() {
                    "  best"
                } else {
                    ""
                }
            ));
        }
        Told::Examples(_) => {}
    };
    Ok(train(
        recipe,
        split,
        out,
        arguments.resume,
        &mut tell,
        task,
    )?)
}
