//! `negatoscope train`: a recipe and data in, a model package with measured figures out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::Ending;
use super::print::{say, say_json};
use super::progress::ProgressLine;
use crate::audit::{AuditEvent, EventId, Log, ParticipantObject};
use crate::runtime::{Home, image_reader, now_utc, settings_for_runs};
use crate::task::Task;
use crate::training::evaluate::{self, Evaluation};
use crate::training::{Recipe, Told, data, leaks, result, train, validate};
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
    let samples = data::load(&recipe.data, &place, &["train", "val"], &image_reader)?;
    let mut split = data::split(&recipe.data, &place, samples, recipe.seed)?;
    let found = leaks::take_out(&mut split);
    if recipe.data.leaks_are_errors && !split.doubts.is_empty() {
        anyhow::bail!("{}: {}", split.doubts.join("; "), place.display());
    }
    for doubt in &split.doubts {
        line.note(&format!("negatoscope: doubt: {doubt}"));
    }
    line.note(&format!(
        "{} images to learn from, {} to measure by",
        split.training.len(),
        split.validation.len()
    ));
    let mut tell = |told: Told| match told {
        Told::Step {
            epoch, step, steps, ..
        } => {
            if step == 1 {
                task.begin(&format!("Epoch {epoch}"), steps);
            }
            task.report(step, steps);
        }
        Told::Epoch { figures, best } => line.note(&format!(
            "epoch {:>4}  loss {:.4}  validation loss {:.4}  {} {:.4}  rate {:.2e}{}",
            figures.epoch,
            figures.training_loss,
            figures.validation_loss,
            if recipe.network.classifies() {
                "AUC"
            } else {
                "Dice"
            },
            figures.score,
            figures.learning_rate,
            if best { "  best" } else { "" }
        )),
    };
    let trained = train(&recipe, &split, out, arguments.resume, &mut tell, &task)?;
    task.begin("Measuring", 0);
    let decision = if recipe.network.classifies() {
        let results = validate::results(&recipe, &trained, &split.validation, &task)?;
        Some(result::decide(&results, &split.validation))
    } else {
        None
    };
    let package = result::package(&recipe, &split, &trained, decision.as_ref())?;
    let figures = match &package.manifest().classification {
        Some(_) => {
            evaluate::Figures::Classes(evaluate::classes(&package, &split.validation, None, &task)?)
        }
        None => evaluate::Figures::Masks(evaluate::masks_of(
            &package,
            &recipe.data,
            &place,
            &split.validation,
            &image_reader,
            &settings_for_runs(),
            &task,
        )?),
    };
    drop(line);
    let measured = Evaluation {
        model: package.manifest().key(),
        weights_sha256: package.manifest().weights_sha256.clone(),
        n: split.validation.len(),
        figures,
    };
    let card = result::card(&recipe, &split, &package, &trained, &measured);
    let folder = out.join("package");
    result::write(&package, &card, &folder)?;
    let report = json!({
        "package": folder,
        "weights_sha256": package.manifest().weights_sha256,
        "best_epoch": trained.best.0,
        "best_score": trained.best.1,
        "training_images": split.training.len(),
        "validation_images": split.validation.len(),
        "leaks": { "exact": found.exact.len(), "near": found.near.len() },
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
