//! A training as the window shows it: what was chosen, how it gets on, what it sees.

use std::path::PathBuf;
use std::sync::Arc;

use super::state::file_name;
use super::{Action, App, AskFor, JobId, JobKind, Notice};
use crate::task::Task;

/// Steps that are kept at most; beyond, every other one goes.
const MOST_STEPS: usize = 4000;

/// What a person chooses for a training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrainingChoice {
    /// The recipe.
    Recipe,
    /// A folder of data.
    Data,
    /// A file of data (MedMNIST).
    DataFile,
    /// Folder for checkpoint and package.
    Folder,
}

/// A step of a training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepPoint {
    /// Epochs that were done then, with the part of the one under way.
    pub epoch: f64,
    /// Loss of its batch.
    pub loss: f64,
    /// Learning rate.
    pub rate: f64,
}

/// An epoch that is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EpochPoint {
    /// From 0.
    pub epoch: usize,
    /// Mean over its steps.
    pub training_loss: f64,
    /// On the images that are held out; no number without any.
    pub validation_loss: f64,
    /// AUC or Dice on them.
    pub score: f64,
    /// Learning rate of its last step.
    pub rate: f64,
}

/// A validation image with what the network says.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingExample {
    /// Rows and columns.
    pub dims: [usize; 2],
    /// `[y][x]`, 0 black to 255 white.
    pub gray: Vec<u8>,
    /// Truth and finding.
    pub answer: TrainingAnswer,
}

/// Truth and finding of an example.
#[derive(Clone, Debug, PartialEq)]
pub enum TrainingAnswer {
    /// Of a classifier.
    Class {
        /// The truth.
        truth: usize,
        /// By class.
        probabilities: Vec<f64>,
    },
    /// Of a segmentation, `[y][x]`.
    Masks {
        /// The truth.
        truth: Vec<u8>,
        /// The network's.
        found: Vec<u8>,
    },
}

/// What stays the same in a training.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainingWords {
    /// Name of the model.
    pub name: String,
    /// `AUC` or `Dice`.
    pub score: String,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Epochs that are planned.
    pub epochs: usize,
}

/// What a training reports.
#[derive(Clone, Debug, PartialEq)]
pub enum TrainingNews {
    /// The recipe is read.
    Words(TrainingWords),
    /// A line for the log.
    Note(String),
    /// A network begins; the epochs that an earlier run has done.
    Begins(Vec<EpochPoint>),
    /// Steps since the last report.
    Steps(Vec<StepPoint>),
    /// An epoch is done.
    Epoch(EpochPoint),
    /// Images as they are seen after the last epoch.
    Examples(Vec<TrainingExample>),
    /// A package was made.
    Done {
        /// Its folder.
        package: PathBuf,
        /// Its figures, in words.
        figures: Vec<String>,
    },
}

/// The training of the window.
#[derive(Clone, Debug, Default)]
pub struct TrainingState {
    /// Its panel is open.
    pub shown: bool,
    /// The recipe.
    pub recipe: Option<PathBuf>,
    /// Data in place of the recipe's.
    pub data: Option<PathBuf>,
    /// Folder for checkpoint and package.
    pub folder: Option<PathBuf>,
    /// The job while it runs.
    pub job: Option<JobId>,
    /// The job only looks on.
    pub follows: bool,
    /// What stays the same.
    pub words: TrainingWords,
    /// Steps of this network, thinned out.
    pub steps: Vec<StepPoint>,
    /// Epochs of this network.
    pub epochs: Vec<EpochPoint>,
    /// The last examples.
    pub examples: Arc<Vec<TrainingExample>>,
    /// Rises with each set of examples; pictures of it are cached.
    pub revision: u64,
    /// What was said, oldest first.
    pub notes: Vec<String>,
    /// How it ended.
    pub summary: Option<String>,
    /// The package that it has made.
    pub package: Option<PathBuf>,
}

impl TrainingState {
    /// The epoch with the best score.
    pub fn best(&self) -> Option<&EpochPoint> {
        let known = self.epochs.iter().filter(|e| e.score.is_finite());
        known.max_by(|a, b| a.score.total_cmp(&b.score).then(b.epoch.cmp(&a.epoch)))
    }

    fn forget_curves(&mut self) {
        self.steps.clear();
        self.epochs.clear();
        self.examples = Arc::default();
        self.revision += 1;
    }

    fn add_steps(&mut self, steps: Vec<StepPoint>) {
        self.steps.extend(steps);
        while self.steps.len() > MOST_STEPS {
            let mut n = 0;
            self.steps.retain(|_| {
                n += 1;
                n % 2 == 0
            });
        }
    }
}

impl App {
    /// Takes in what was chosen for a training.
    pub(super) fn training_chosen(&mut self, what: TrainingChoice, path: PathBuf) {
        let training = &mut self.training;
        match what {
            TrainingChoice::Recipe => training.recipe = Some(path),
            TrainingChoice::Data | TrainingChoice::DataFile => training.data = Some(path),
            TrainingChoice::Folder => training.folder = Some(path),
        }
    }

    /// Starts the training, or goes on with it.
    pub(super) fn start_training(&mut self) {
        let training = &self.training;
        let missing = match (&training.recipe, &training.folder) {
            _ if training.job.is_some() => "A training is running.",
            (Some(recipe), Some(folder)) => {
                let (recipe, folder) = (recipe.clone(), folder.clone());
                let title = format!("Training by {}", file_name(&recipe));
                let (job, task) = self.begin_training(title, false);
                self.actions.push(Action::Train {
                    job,
                    recipe,
                    data: self.training.data.clone(),
                    folder,
                    task,
                });
                return;
            }
            (None, _) => "Choose a recipe.",
            (_, None) => "Choose a folder for the checkpoint and the package.",
        };
        self.notices
            .push(Notice::info("The training was not started", missing));
    }

    /// Looks on at a training that runs elsewhere.
    pub(super) fn follow_training(&mut self) {
        let Some(folder) = self.training.folder.clone() else {
            self.ask(AskFor::Training(TrainingChoice::Folder));
            return;
        };
        if self.training.job.is_some() {
            return;
        }
        let title = format!("Looking on at {}", file_name(&folder));
        let (job, task) = self.begin_training(title, true);
        self.actions
            .push(Action::FollowTraining { job, folder, task });
    }

    fn begin_training(&mut self, title: String, follows: bool) -> (JobId, Arc<Task>) {
        let (job, task) = self.start(JobKind::Training, title);
        let training = &mut self.training;
        training.job = Some(job);
        training.follows = follows;
        training.words = TrainingWords::default();
        training.notes.clear();
        training.summary = None;
        training.package = None;
        training.forget_curves();
        (job, task)
    }

    /// Takes in what a training reports.
    pub(super) fn training_news(&mut self, job: JobId, news: TrainingNews) {
        let training = &mut self.training;
        if training.job != Some(job) {
            return;
        }
        match news {
            TrainingNews::Words(words) => training.words = words,
            TrainingNews::Note(note) => training.notes.push(note),
            TrainingNews::Begins(epochs) => {
                training.forget_curves();
                training.epochs = epochs;
            }
            TrainingNews::Steps(steps) => training.add_steps(steps),
            TrainingNews::Epoch(epoch) => training.epochs.push(epoch),
            TrainingNews::Examples(examples) => {
                training.examples = Arc::new(examples);
                training.revision += 1;
            }
            TrainingNews::Done { package, figures } => {
                training.summary = Some(format!("Done. {}", figures.join(", ")));
                training.package = Some(package);
                self.finish(job);
            }
        }
    }

    /// A training has stopped before its end.
    pub(super) fn training_stopped(&mut self, job: JobId, failed: bool) {
        let training = &mut self.training;
        if training.job != Some(job) {
            return;
        }
        training.job = None;
        training.summary = Some(
            match (training.follows, failed) {
                (true, _) => "No longer looking on.",
                (false, true) => {
                    "Stopped by an error. What was learned up to the last checkpoint is kept."
                }
                (false, false) => {
                    "Stopped. The checkpoint is kept: start again to go on where it was."
                }
            }
            .to_owned(),
        );
    }

    /// Imports the package that a training has made.
    pub(super) fn install_trained(&mut self) {
        if let Some(package) = &self.training.package {
            self.actions.push(Action::ImportModel(package.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_thinned_evenly() {
        let mut state = TrainingState::default();
        for n in 0..20_000 {
            let point = StepPoint {
                epoch: f64::from(n) / 100.0,
                loss: 1.0,
                rate: 1e-3,
            };
            state.add_steps(vec![point]);
        }
        assert!((MOST_STEPS / 2..=MOST_STEPS).contains(&state.steps.len()));
        assert_eq!(state.steps.last().unwrap().epoch, 199.99);
        assert!(state.steps.windows(2).all(|w| w[0].epoch < w[1].epoch));
    }

    #[test]
    fn the_first_of_equal_scores_is_the_best() {
        let epoch = |epoch, score| EpochPoint {
            epoch,
            training_loss: 0.1,
            validation_loss: 0.2,
            score,
            rate: 1e-3,
        };
        let state = TrainingState {
            epochs: vec![
                epoch(0, 0.5),
                epoch(1, 0.9),
                epoch(2, 0.9),
                epoch(3, f64::NAN),
            ],
            ..TrainingState::default()
        };
        assert_eq!(state.best().unwrap().epoch, 1);
        assert!(TrainingState::default().best().is_none());
    }
}
