//! A training run from its recipe to its best tensors, with checkpoints on the way.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use super::batches::{Batch, batch, steps};
use super::checkpoint::{EpochFigures, State};
use super::data::{Sample, Split};
use super::examples::{self, Example};
use super::loss::Loss;
use super::network::{Mode, Network};
use super::optimizer::{self, Memory, Schedule};
use super::parameters::Parameters;
use super::recipe::{InferenceRules, Recipe};
use super::validate::{Validation, validate};
use super::{Error, tape};
use crate::model::graph::Graph;
use crate::model::{PackageFiles, VerifiedPackage, sha256_hex};
use crate::task::Task;

/// Batches that are made ahead.
const AHEAD: usize = 4;

/// What a run tells on its way.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// A step is done.
    Step {
        /// Epoch, from 0.
        epoch: usize,
        /// Step of the epoch that is done, from 1.
        step: usize,
        /// Steps of an epoch.
        steps: usize,
        /// The batch's loss.
        loss: f64,
        /// Learning rate.
        rate: f64,
    },
    /// An epoch is done and measured.
    Epoch {
        /// Its figures.
        figures: EpochFigures,
        /// Whether it is the best so far.
        best: bool,
    },
    /// Some validation samples as they are seen after an epoch.
    Examples(Vec<Example>),
}

/// A run that is done.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The network.
    pub graph: Arc<Graph>,
    /// Its best tensors.
    pub parameters: Parameters,
    /// Epoch and score of them.
    pub best: (usize, f64),
    /// All epochs.
    pub history: Vec<EpochFigures>,
}

/// Name of the checkpoint in a run's folder.
pub const CHECKPOINT: &str = "checkpoint.bin";

/// Trains, from the checkpoint in `out` when `resume` is set and there is one.
///
/// # Errors
/// [`Error`]; the last checkpoint stays whatever happens.
pub fn train(
    recipe: &Recipe,
    split: &Split,
    out: &Path,
    resume: bool,
    tell: &mut dyn FnMut(Told),
    task: &Task,
) -> Result<Trained, Error> {
    let (graph, mut parameters) = network_of(recipe)?;
    let dropout = recipe.network.dropout();
    let network = Arc::new(Network::new(
        Arc::clone(&graph),
        &parameters,
        &recipe.data.size,
        dropout,
    )?);
    let loss = loss_of(recipe, &split.training);
    let rules = &recipe.training;
    let per_epoch = steps(recipe, split.training.len());
    let schedule = Schedule {
        peak: rules.learning_rate,
        last: rules.last_rate,
        warm_up: (rules.warm_up * per_epoch as f64).round() as u64,
        total: (rules.epochs * per_epoch) as u64,
    };
    let name = run_name(recipe, split);
    let checkpoint = out.join(CHECKPOINT);
    let mut state = if resume && checkpoint.is_file() {
        State::read(&checkpoint, &name)?
    } else {
        let memory = Memory::new(&rules.optimizer, parameters.values.len());
        State {
            values: parameters.values.clone(),
            first: memory.first,
            second: memory.second,
            average: if rules.average > 0.0 {
                parameters.values.clone()
            } else {
                Vec::new()
            },
            ..State::default()
        }
    };
    parameters.values = std::mem::take(&mut state.values);
    let mut memory = Memory {
        first: std::mem::take(&mut state.first),
        second: std::mem::take(&mut state.second),
    };
    let is_over = |state: &State| {
        state.epoch >= rules.epochs
            || rules.patience.is_some_and(|patience| {
                let best = state.best_figures.map_or(0, |(epoch, _)| epoch);
                state.epoch > best + patience
            })
    };
    let begin = (state.epoch, state.step);
    let ended = std::thread::scope(|threads| -> Result<(), Error> {
        let (send, batches) = sync_channel::<Batch>(AHEAD);
        if !is_over(&state) {
            threads.spawn(move || {
                let (mut epoch, mut step) = begin;
                while epoch < rules.epochs {
                    while step < per_epoch {
                        // Nobody listens any more: the run has ended.
                        if send
                            .send(batch(recipe, &split.training, epoch, step))
                            .is_err()
                        {
                            return;
                        }
                        step += 1;
                    }
                    (epoch, step) = (epoch + 1, 0);
                }
            });
        }
        while !is_over(&state) {
            while state.step < per_epoch {
                if let Err(cancelled) = task.check() {
                    // Not a step is lost.
                    keep(&mut state, &mut parameters, &mut memory, &checkpoint, &name)?;
                    return Err(cancelled.into());
                }
                // Only a failure of the program itself ends the other thread early.
                let next = batches.recv();
                let Batch { images, targets } =
                    next.map_err(|_| Error::Network("no more batches came".to_owned()))?;
                let place = [recipe.seed ^ 0x4452_4F50, state.steps];
                let mode = Mode::Training { place };
                let done = tape::step(&network, &loss, &parameters.values, images, targets, mode)?;
                let length = optimizer::length(&parameters, &done.gradients);
                if !done.loss.is_finite() || !length.is_finite() {
                    return Err(Error::Diverged {
                        loss: done.loss,
                        step: state.steps,
                        epoch: state.epoch,
                    });
                }
                let factor = match rules.clip {
                    Some(most) if length > most => most / length,
                    _ => 1.0,
                };
                let rate = schedule.rate(state.steps);
                optimizer::step(
                    &rules.optimizer,
                    &mut parameters,
                    &mut memory,
                    &done.gradients,
                    factor,
                    rate,
                    rules.weight_decay,
                    state.steps,
                );
                for (at, value) in done.running {
                    parameters.values[at] = value;
                }
                if rules.average > 0.0 {
                    optimizer::average(
                        &mut state.average,
                        &parameters.values,
                        rules.average,
                        state.steps,
                    );
                }
                state.loss += done.loss;
                state.step += 1;
                state.steps += 1;
                tell(Told::Step {
                    epoch: state.epoch,
                    step: state.step,
                    steps: per_epoch,
                    loss: done.loss,
                    rate,
                });
                let due = rules
                    .checkpoint_steps
                    .is_some_and(|n| n > 0 && state.steps.is_multiple_of(n));
                if due && state.step < per_epoch {
                    keep(&mut state, &mut parameters, &mut memory, &checkpoint, &name)?;
                }
            }
            let values = if rules.average > 0.0 {
                &state.average
            } else {
                &parameters.values
            };
            // Of cross-validation's last model nothing is held out.
            let found = if split.validation.is_empty() {
                Validation {
                    loss: f64::NAN,
                    score: f64::NAN,
                    ..Validation::default()
                }
            } else {
                validate(recipe, &network, &loss, values, &split.validation, task)?
            };
            let figures = EpochFigures {
                epoch: state.epoch,
                training_loss: state.loss / per_epoch as f64,
                validation_loss: found.loss,
                score: found.score,
                learning_rate: schedule.rate(state.steps.saturating_sub(1)),
            };
            // Choosing an epoch by what is measured would flatter cross-validation.
            let last_counts = recipe.data.folds.is_some();
            let best = last_counts
                || state
                    .best_figures
                    .is_none_or(|(_, score)| found.score > score || score.is_nan());
            if best {
                state.best_figures = Some((state.epoch, found.score));
                state.best.clone_from(values);
            }
            state.history.push(figures);
            (state.epoch, state.step, state.loss) = (state.epoch + 1, 0, 0.0);
            keep(&mut state, &mut parameters, &mut memory, &checkpoint, &name)?;
            tell(Told::Epoch { figures, best });
            tell(Told::Examples(examples::of(&split.validation, &found)));
        }
        Ok(())
    });
    ended?;
    parameters.values.clone_from(&state.best);
    Ok(Trained {
        graph,
        parameters,
        best: state.best_figures.unwrap_or_default(),
        history: state.history,
    })
}

/// Writes the checkpoint; the tensors are lent to it.
fn keep(
    state: &mut State,
    parameters: &mut Parameters,
    memory: &mut Memory,
    path: &Path,
    name: &str,
) -> Result<(), Error> {
    std::mem::swap(&mut state.values, &mut parameters.values);
    std::mem::swap(&mut state.first, &mut memory.first);
    std::mem::swap(&mut state.second, &mut memory.second);
    let written = state.write(path, name);
    std::mem::swap(&mut state.values, &mut parameters.values);
    std::mem::swap(&mut state.first, &mut memory.first);
    std::mem::swap(&mut state.second, &mut memory.second);
    written
}

/// What a checkpoint must agree with: the recipe without the data's place, and the samples.
fn run_name(recipe: &Recipe, split: &Split) -> String {
    let mut recipe = recipe.without_places();
    // Words about the result change nothing in the run.
    (recipe.data.any_class, recipe.model.ages_years) = (None, None);
    recipe.model.views = Vec::new();
    recipe.inference = InferenceRules::default();
    let mut text = serde_json::to_string(&recipe).expect("a recipe is plain data");
    for (side, samples) in [("train", &split.training), ("val", &split.validation)] {
        for sample in samples {
            text.push_str(side);
            text.push_str(&sample.name);
            let _ = write!(text, "{:?}", sample.class());
        }
    }
    sha256_hex(text.as_bytes())
}

/// The loss with its class weights.
fn loss_of(recipe: &Recipe, samples: &[Sample]) -> Loss {
    let mut loss = recipe.loss.clone();
    if recipe.training.balanced && loss.class_weights.is_empty() {
        let mut counts = vec![0.0_f64; recipe.results()];
        for sample in samples {
            match &sample.target {
                super::data::Target::Class(class) => counts[usize::from(*class)] += 1.0,
                super::data::Target::Mask(mask) => {
                    for l in mask {
                        counts[usize::from(*l)] += 1.0;
                    }
                }
            }
        }
        let weights: Vec<f64> = counts.iter().map(|c| 1.0 / c.max(1.0)).collect();
        let mean = weights.iter().sum::<f64>() / weights.len() as f64;
        loss.class_weights = weights.into_iter().map(|w| w / mean).collect();
    }
    loss
}

/// The recipe's network with its first tensors.
fn network_of(recipe: &Recipe) -> Result<(Arc<Graph>, Parameters), Error> {
    let (graph, needed) = recipe
        .network
        .build_for(1, &recipe.data.size, recipe.results())
        .map_err(Error::Network)?;
    let mut parameters = Parameters::new(&needed, recipe.seed);
    if let Some(start) = &recipe.start {
        let package = VerifiedPackage::verify(PackageFiles::read(&start.package)?)?;
        let mut taken = 0;
        for slot in parameters.slots.clone() {
            if let Some((shape, values)) = package.array(&slot.name)
                && shape == slot.shape
            {
                parameters.set(&slot.name, &shape, &values)?;
                taken += 1;
            }
        }
        if taken == 0 {
            return Err(Error::Network(format!(
                "{} has no tensor that fits",
                package.manifest().key()
            )));
        }
        for slot in &mut parameters.slots {
            slot.frozen = start.freeze.iter().any(|name| slot.name.starts_with(name));
        }
    }
    Ok((Arc::new(graph), parameters))
}
