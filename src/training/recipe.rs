//! `recipe.toml`: everything that a training run depends on but the data themselves.

use std::path::{Path, PathBuf};

use super::Error;
use super::augment::Augmentation;
use super::build::Architecture;
use super::loss::Loss;
use super::optimizer::Method;

/// A training run.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What the result is and may be used for.
    pub model: ModelWords,
    /// Where every stream of chance begins.
    #[serde(default)]
    pub seed: u64,
    /// What is learned from.
    pub data: DataRules,
    /// What learns.
    pub network: Architecture,
    /// What is minimized.
    #[serde(default)]
    pub loss: Loss,
    /// How images are changed on the way.
    #[serde(default)]
    pub augmentation: Augmentation,
    /// How it is learned.
    pub training: TrainingRules,
    /// What a run of the segmentation does beside the network.
    #[serde(default, skip_serializing_if = "InferenceRules::is_plain")]
    pub inference: InferenceRules,
    /// Where the weights come from, instead of chance.
    #[serde(default)]
    pub start: Option<StartRules>,
}

/// Words of the manifest and the model card.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelWords {
    /// Lower case letters, digits and dashes.
    pub id: String,
    /// E.g. `1.0.0`.
    #[serde(default = "first_version")]
    pub version: String,
    /// Name for people.
    pub name: String,
    /// SPDX expression, or words.
    pub license: String,
    /// Who may use it for what.
    pub intended_use: String,
    /// What is known not to work, and what it must not be used for.
    #[serde(default)]
    pub limits: Vec<String>,
    /// Where the data come from, with their license.
    pub training_data: String,
    /// DICOM's modality of the images, e.g. `DX`.
    pub modality: String,
    /// Ages of the patients, in years.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ages_years: Option<[f64; 2]>,
    /// DICOM's View Positions of the radiographs, e.g. `PA`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub views: Vec<String>,
}

fn first_version() -> String {
    "1.0.0".to_owned()
}

/// The layout of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Images anywhere below the folder, and a `labels.csv` with columns `file` and `label`.
    Labels,
    /// Images in folders that are named like the classes.
    ClassFolders,
    /// A MedMNIST file (`.npz`) with `train_images`, `train_labels`, `val_images`, …
    Medmnist,
    /// `images/` and `masks/` (or `labels/`) with matching names.
    Masks,
}

/// What is learned from.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRules {
    /// How it lies.
    pub layout: Layout,
    /// Folder or file; relative to the recipe. `--data` takes its place.
    #[serde(default)]
    pub path: PathBuf,
    /// Names of the classes, in the order of their numbers. For masks without the background.
    pub classes: Vec<String>,
    /// Name of all classes but the first together, where there are more than two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub any_class: Option<String>,
    /// How the data write the classes, in the same order, where not by name or number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class_values: Vec<String>,
    /// Further words for classes, which `evaluate` finds in a package; a class may be
    /// [`ANY_CLASS`](super::data::ANY_CLASS).
    #[serde(skip)]
    pub also: Vec<(String, u8)>,
    /// Column of the class, a number or a name.
    #[serde(default = "label_column")]
    pub label_column: String,
    /// Column of the patient; without one every file is a patient of its own.
    #[serde(default)]
    pub patient_column: Option<String>,
    /// For masks and class folders: a file's name up to this text is the patient.
    #[serde(default)]
    pub patient_until: Option<String>,
    /// Column with `train` or `val`; without one patients are drawn.
    #[serde(default)]
    pub split_column: Option<String>,
    /// Column of sex, age group, machine or kind of finding: each is measured apart too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_column: Option<String>,
    /// Part of the patients that is held out where nothing else says so, 0 to 1.
    #[serde(default = "validation")]
    pub validation: f64,
    /// Cross-validation: every patient is measured once, by a network that learned from the other
    /// folds; the model that is kept learns from all. Each takes its last epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folds: Option<usize>,
    /// Size of the network's input along y, x (or z, y, x) in points: images are resized to it;
    /// volumes and images with masks are cut to pieces of it.
    pub size: Vec<usize>,
    /// For images with masks: every image is brought to `size` whole, whatever its spacing. Right
    /// for radiographs, whose spacing at the patient is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub whole_image: bool,
    /// Spacing along y, x (or z, y, x) in mm of images whose files tell none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spacing_mm: Vec<f64>,
    /// What black (0) and white (255) become, for classes of images.
    #[serde(default = "range")]
    pub range: [f32; 2],
    /// Whether images that appear in training and validation are an error (else a warning: they
    /// are taken out of the training part).
    #[serde(default)]
    pub leaks_are_errors: bool,
}

fn label_column() -> String {
    "label".to_owned()
}

const fn validation() -> f64 {
    0.2
}

const fn range() -> [f32; 2] {
    [-1.0, 1.0]
}

/// How it is learned.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingRules {
    /// Passes over the training data.
    pub epochs: usize,
    /// Images of a step.
    pub batch: usize,
    /// Steps of an epoch; as many as the data give without it.
    #[serde(default)]
    pub steps: Option<usize>,
    /// The optimizer.
    #[serde(default)]
    pub optimizer: Method,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// The last one, as a part of the highest.
    #[serde(default = "last_rate")]
    pub last_rate: f64,
    /// Epochs of the rise at the beginning; may be a part of one.
    #[serde(default)]
    pub warm_up: f64,
    /// Decay of weights (not of biases and norms) per unit of learning rate.
    #[serde(default)]
    pub weight_decay: f64,
    /// Longest gradient; longer ones are shortened.
    #[serde(default)]
    pub clip: Option<f64>,
    /// Decay of the running average of weights, which is what is evaluated and kept; 0: none.
    #[serde(default)]
    pub average: f64,
    /// Epochs without a better validation after which training stops.
    #[serde(default)]
    pub patience: Option<usize>,
    /// Weights of classes by 1 / count, mean 1.
    #[serde(default)]
    pub balanced: bool,
    /// Steps between checkpoints, beside those at the end of each epoch.
    #[serde(default)]
    pub checkpoint_steps: Option<u64>,
}

const fn last_rate() -> f64 {
    0.01
}

/// What a run of a segmentation does beside the network. Nothing of it changes the training.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InferenceRules {
    /// Averages passes that are mirrored along the axes that augmentation flips.
    pub mirror: bool,
    /// Keeps the largest connected part of each label, where anatomy has one.
    pub largest_component: bool,
}

impl InferenceRules {
    fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// Weights of another model to begin with.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartRules {
    /// A package's folder, relative to the recipe. Tensors of the same name and shape are taken;
    /// a head for other classes begins by chance.
    pub package: PathBuf,
    /// Tensors whose names begin so stay as they are.
    #[serde(default)]
    pub freeze: Vec<String>,
}

impl Recipe {
    /// As it may be passed on, and as it means the same on any machine: where data and packages lay
    /// is nobody's business.
    pub fn without_places(&self) -> Self {
        let mut recipe = self.clone();
        recipe.data.path = PathBuf::new();
        if let Some(start) = &mut recipe.start {
            start.package = start
                .package
                .file_name()
                .map_or_else(PathBuf::new, PathBuf::from);
        }
        recipe
    }

    /// Reads and checks a recipe; its paths become absolute or relative to the working folder.
    ///
    /// # Errors
    /// [`Error::Recipe`], [`Error::Io`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Io {
            action: "read",
            source,
            path: path.to_owned(),
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut recipe = Self::parse(&text).map_err(|reason| Error::Recipe {
            reason,
            path: path.to_owned(),
        })?;
        recipe.data.path = folder.join(&recipe.data.path);
        if let Some(start) = &mut recipe.start {
            start.package = folder.join(&start.package);
        }
        Ok(recipe)
    }

    /// Reads and checks a recipe's text.
    ///
    /// # Errors
    /// In words, with the line where there is one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let recipe: Self = toml::from_str(text).map_err(|e| e.to_string().trim().to_owned())?;
        recipe.check()?;
        Ok(recipe)
    }

    /// Spatial axes of the network's input.
    pub fn axes(&self) -> usize {
        self.data.size.len()
    }

    /// Classes of the network's result: for masks with the background.
    pub fn results(&self) -> usize {
        self.data.classes.len() + usize::from(self.data.layout == Layout::Masks)
    }

    /// What the score of an epoch is.
    pub const fn score_name(&self) -> &'static str {
        if self.network.classifies() {
            "AUC"
        } else {
            "Dice"
        }
    }

    fn check(&self) -> Result<(), String> {
        let (data, training) = (&self.data, &self.training);
        let masks = data.layout == Layout::Masks;
        if masks == self.network.classifies() {
            return Err("masks need a network for segmentation, labels one for classes".to_owned());
        }
        if !(2..=3).contains(&data.size.len()) || data.size.iter().any(|n| !(4..=4096).contains(n))
        {
            return Err(format!("a size of {:?}, expected 2 or 3 axes", data.size));
        }
        if !data.class_values.is_empty() && data.class_values.len() != data.classes.len() {
            return Err(format!(
                "{} class values for {} classes",
                data.class_values.len(),
                data.classes.len()
            ));
        }
        if let Some(folds) = data.folds {
            if masks {
                return Err("cross-validation is for classes of images".to_owned());
            }
            if !(2..=20).contains(&folds) {
                return Err(format!("{folds} folds, expected 2 to 20"));
            }
            if data.split_column.is_some() || training.patience.is_some() {
                let reason = "cross-validation draws its own parts and trains to the last epoch";
                return Err(reason.to_owned());
            }
        }
        if data.whole_image && (!masks || data.size.len() != 2) {
            return Err("whole images are for plane images with masks".to_owned());
        }
        let spacing = &data.spacing_mm;
        if !spacing.is_empty()
            && (spacing.len() != data.size.len()
                || spacing.iter().any(|mm| !(1e-3..=1e3).contains(mm)))
        {
            return Err(format!("a spacing of {spacing:?} mm"));
        }
        let multiple = self.network.multiple();
        if data.size.iter().any(|n| !n.is_multiple_of(multiple)) {
            let size = &data.size;
            return Err(format!(
                "a size of {size:?}, expected multiples of {multiple}"
            ));
        }
        if !(2..=254).contains(&self.results()) {
            return Err(format!("{} classes", data.classes.len()));
        }
        let part = |name: &str, value: f64| {
            if (0.0..1.0).contains(&value) {
                Ok(())
            } else {
                Err(format!("{name} of {value}, expected 0 to below 1"))
            }
        };
        part("a validation part", data.validation)?;
        part("a label smoothing", self.loss.label_smoothing)?;
        part("an average", training.average)?;
        part("a dropout", f64::from(self.network.dropout()))?;
        let positive = training.learning_rate > 0.0
            && training.learning_rate.is_finite()
            && training.weight_decay >= 0.0
            && training.warm_up >= 0.0
            && training.clip.is_none_or(|c| c > 0.0);
        if !positive || training.epochs == 0 || training.batch == 0 || training.steps == Some(0) {
            return Err("epochs, batch, steps and rates must be above zero".to_owned());
        }
        if !self.loss.class_weights.is_empty() && self.loss.class_weights.len() != self.results() {
            return Err(format!(
                "{} class weights for {} classes",
                self.loss.class_weights.len(),
                self.results()
            ));
        }
        self.augmentation.check()
    }
}
