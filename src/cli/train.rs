//! `negatoscope train`: a recipe and data in, a model package with measured figures out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Ending;
use super::print::{say, say_json};
use super::progress::ProgressLine;
use crate::audit::{AuditEvent, EventId, Log, ParticipantObject};
use crate::runtime::{AnyImages, Home, now_utc, settings_for_runs};
use crate::task::Task;
use crate::training::course::{self, Means, News};
use crate::training::{Recipe, Told};

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
    if !arguments.resume && out.join(crate::training::CHECKPOINT).exists() {
        anyhow::bail!(
            "there is a checkpoint already: use --resume to go on with it, or another --out: {}",
            out.display()
        );
    }
    let task = Arc::new(Task::new());
    let line = ProgressLine::start(&task);
    let means = Means {
        place: &place,
        out,
        resume: arguments.resume,
        reader: &AnyImages,
        settings: &settings_for_runs(),
        task: &task,
    };
    let score = recipe.score_name();
    let mut measures = true;
    let made = course::follow(&recipe, &means, &mut |news| match news {
        News::Doubt(doubt) => line.note(&format!("negatoscope: doubt: {doubt}")),
        News::Note(note) => line.note(&note),
        News::Begins { validation, .. } => measures = validation > 0,
        News::Told(Told::Epoch { figures, best }) => {
            let (loss, value) = (figures.validation_loss, figures.score);
            let measured = if measures {
                format!("  validation loss {loss:.4}  {score} {value:.4}")
            } else {
                String::new()
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
        News::Told(Told::Step { .. } | Told::Examples(_)) => {}
    })?;
    drop(line);
    if arguments.json {
        say_json(&made.report)?;
    } else {
        for (name, value, interval) in made.measured.rows() {
            let interval =
                interval.map_or_else(String::new, |[a, b]| format!("  ({a:.4} to {b:.4})"));
            say(&format!("{name:<24} {value:.4}{interval}"))?;
        }
    }
    eprintln!(
        "package in {}; install it with `negatoscope models import`",
        made.package.display()
    );
    Ok(Ending::Done)
}
