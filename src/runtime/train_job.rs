//! Trainings in the background: one of the window's own, or a look at one that runs elsewhere.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::AnyImages;
use super::jobs::{Outbox, Stop};
use super::settings_for_runs;
use crate::app::{
    EpochPoint, Event, JobId, Notice, StepPoint, TrainingAnswer, TrainingExample, TrainingNews,
    TrainingWords,
};
use crate::task::Task;
use crate::training::course::{self, Means, News};
use crate::training::{Answer, CHECKPOINT, EpochFigures, Error, Example, Recipe, Told, history};

/// Between two reports of steps: the eye sees no more.
const REPORT_EVERY: Duration = Duration::from_millis(200);
/// Between two looks at a checkpoint.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Trains by a recipe, from the checkpoint in the folder if there is one.
pub fn train(
    job: JobId,
    recipe: &Path,
    data: Option<&Path>,
    folder: &Path,
    task: &Task,
    outbox: &Outbox,
) -> Result<Event, Stop> {
    let send = |news: TrainingNews| outbox.send(Event::Training(job, news));
    let recipe = Recipe::read(recipe).map_err(failed)?;
    send(TrainingNews::Words(TrainingWords {
        name: recipe.model.name.clone(),
        score: recipe.score_name().to_owned(),
        classes: recipe.data.classes.clone(),
        epochs: recipe.training.epochs,
    }));
    let means = Means {
        place: data.unwrap_or(&recipe.data.path),
        out: folder,
        resume: true,
        reader: &AnyImages,
        settings: &settings_for_runs(),
        task,
    };
    let mut steps = Vec::new();
    let mut reported = Instant::now();
    let made = course::follow(&recipe, &means, &mut |news| match news {
        News::Doubt(doubt) => send(TrainingNews::Note(format!("Doubt: {doubt}"))),
        News::Note(note) => send(TrainingNews::Note(note)),
        News::Begins { folder, .. } => {
            steps.clear();
            let earlier = history(&folder.join(CHECKPOINT)).unwrap_or_default();
            send(TrainingNews::Begins(earlier.iter().map(point).collect()));
        }
        News::Told(Told::Step {
            epoch,
            step,
            steps: all,
            loss,
            rate,
        }) => {
            steps.push(StepPoint {
                epoch: epoch as f64 + step as f64 / all as f64,
                loss,
                rate,
            });
            if reported.elapsed() >= REPORT_EVERY {
                reported = Instant::now();
                send(TrainingNews::Steps(std::mem::take(&mut steps)));
            }
        }
        News::Told(Told::Epoch { figures, .. }) => {
            send(TrainingNews::Steps(std::mem::take(&mut steps)));
            send(TrainingNews::Epoch(point(&figures)));
        }
        News::Told(Told::Examples(examples)) => {
            let examples = examples.into_iter().map(example).collect();
            send(TrainingNews::Examples(examples));
        }
    })
    .map_err(failed)?;
    let rows = made.measured.rows().into_iter();
    let figures = rows
        .filter(|(name, ..)| {
            ["AUC", "accuracy"].contains(&name.as_str()) || name.starts_with("Dice")
        })
        .map(|(name, value, interval)| match interval {
            Some([low, high]) => format!("{name} {value:.3} ({low:.3} to {high:.3})"),
            None => format!("{name} {value:.3}"),
        });
    Ok(Event::Training(
        job,
        TrainingNews::Done {
            figures: figures.collect(),
            package: made.package,
        },
    ))
}

/// Looks at the checkpoint of a training that runs elsewhere, until it is stopped or that one has
/// made its package. Nothing is written.
pub fn follow(job: JobId, folder: &Path, task: &Task, outbox: &Outbox) -> Result<Event, Stop> {
    let checkpoint = folder.join(CHECKPOINT);
    let changed = || -> Option<SystemTime> { checkpoint.metadata().ok()?.modified().ok() };
    if changed().is_none() {
        let text = "Choose the folder that the training writes its checkpoint into.";
        return Err(Stop::Failed(Notice::info("There is no checkpoint", text)));
    }
    let mut seen = None;
    loop {
        task.check()?;
        let now = changed();
        if now.is_some() && now != seen {
            seen = now;
            let epochs = history(&checkpoint).map_err(failed)?;
            task.begin(&format!("{} epochs are done", epochs.len()), 0);
            let epochs = epochs.iter().map(point).collect();
            outbox.send(Event::Training(job, TrainingNews::Begins(epochs)));
        }
        let report = folder.join("report.json");
        let made = report.metadata().ok().and_then(|m| m.modified().ok());
        if made.is_some() && made >= seen {
            return Ok(Event::Training(
                job,
                TrainingNews::Done {
                    package: folder.join("package"),
                    figures: vec!["The training has made its package".to_owned()],
                },
            ));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn point(figures: &EpochFigures) -> EpochPoint {
    EpochPoint {
        epoch: figures.epoch,
        training_loss: figures.training_loss,
        validation_loss: figures.validation_loss,
        score: figures.score,
        rate: figures.learning_rate,
    }
}

fn example(example: Example) -> TrainingExample {
    TrainingExample {
        dims: example.dims,
        gray: example.gray,
        answer: match example.answer {
            Answer::Class {
                truth,
                probabilities,
            } => TrainingAnswer::Class {
                truth: usize::from(truth),
                probabilities,
            },
            Answer::Masks { truth, found } => TrainingAnswer::Masks { truth, found },
        },
    }
}

fn failed(error: Error) -> Stop {
    if let Error::Cancelled(_) = error {
        return Stop::Cancelled;
    }
    let what_to_do = match &error {
        Error::Checkpoint { .. } => {
            "The folder holds the checkpoint of another training. Choose another folder, or the recipe and data that it belongs to."
        }
        Error::Io { .. } => {
            "Free some space or check the rights of the folder, then start again: it goes on from the last checkpoint."
        }
        _ => "Nothing that was learned is lost: after the reason is gone, start again.",
    };
    Stop::Failed(Notice::from_error(
        "The training cannot go on",
        what_to_do,
        &error,
    ))
}
