//! nnU-Net v2's result folders: plans, data set, folds of weights → one checked description.
//!
//! In: a folder with `plans.json`, `dataset.json` and `fold_N/checkpoint_final.pth`. Out: [`Trained`],
//! plain values that say everything about preparing a scan, the network (as a graph over the
//! checkpoint's tensor names) and reading its result. What is not understood is refused by name.
//! Absent on purpose: running, writing packages, nnU-Net v1.

mod architecture;
mod dataset;
mod fields;
mod network;
mod package;
mod plans;
mod trainer;

use std::path::{Path, PathBuf};

pub use architecture::{Architecture, Encoder, Nonlinearity, Norm};
pub use dataset::{Dataset, Region};
pub use package::package;
pub(super) use package::{color, word};
pub use plans::{Configuration, Plans, Reader};

use super::pytorch::{self, Checkpoint, TensorRef, Value};
use super::weights;
use crate::model::graph::Graph;
use crate::model::procedure::{LabelRule, Preprocessing, Procedure, WindowRule};
use fields::Fields;

/// Larger files are no plans.
const LARGEST_JSON: u64 = 64 << 20;

/// Why a result folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused, or a file is missing.
    #[error("could not be read: {path}")]
    Io {
        /// What the system said.
        #[source]
        source: std::io::Error,
        /// The file.
        path: PathBuf,
    },
    /// No JSON.
    #[error("is no JSON: {path}")]
    Json {
        /// Where and why.
        #[source]
        source: serde_json::Error,
        /// The file.
        path: PathBuf,
    },
    /// Something is missing or not understood.
    #[error("{what}: {path}")]
    NotUnderstood {
        /// The field, class or tensor by its name, and what is wrong with it.
        what: String,
        /// The file.
        path: PathBuf,
    },
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] pytorch::Error),
}

/// A trained configuration with all that is needed to predict.
#[derive(Debug)]
pub struct Trained {
    /// nnU-Net's class that trained it, e.g. `nnUNetTrainer`.
    pub trainer: String,
    /// How the data set was planned.
    pub plans: Plans,
    /// Channels and labels.
    pub dataset: Dataset,
    /// The configuration that these weights belong to.
    pub configuration: Configuration,
    /// Axes of the patch that may be mirrored, in tensor order; empty for none.
    pub mirroring_axes: Vec<usize>,
    /// The network with one result, the logits of full resolution; tensors by the checkpoint's names.
    pub graph: Graph,
    /// An ensemble: the logits of all folds are averaged.
    pub folds: Vec<Fold>,
}

/// nnU-Net's step between patches, as a part of the patch.
const STEP: f64 = 0.5;

impl Trained {
    /// Whether the trainer is one of nnU-Net's that leave network and procedure as the plans say.
    /// Others may have changed what neither plans nor weights tell: then say so beside every result.
    pub fn trainer_is_known(&self) -> bool {
        trainer::is_known(&self.trainer)
    }

    /// What is done around the network, with nnU-Net's own defaults for prediction: half a patch as
    /// the step, Gaussian weights, mirroring along all axes that training allowed.
    ///
    /// # Errors
    /// [`Error::NotUnderstood`] for labels above 255.
    pub fn procedure(&self, folder: &Path) -> Result<Procedure, Error> {
        let configuration = &self.configuration;
        let labels = if self.dataset.regions.is_empty() {
            Some(LabelRule::Argmax {
                classes: self.dataset.heads(),
            })
        } else {
            let written = self.dataset.regions.iter().map(|r| u8::try_from(r.written));
            written
                .collect::<Result<_, _>>()
                .ok()
                .map(|order| LabelRule::Regions { order })
        };
        let labels = labels.filter(|_| self.dataset.labels.len() <= 256);
        Ok(Procedure {
            preprocessing: Preprocessing {
                transpose_forward: self.plans.transpose_forward,
                transpose_backward: self.plans.transpose_backward,
                channels: configuration.channels.clone(),
                target_spacing: configuration.spacing.clone(),
                whole_image: None,
                resample_image: configuration.resampling_data,
                resample_labels: configuration.resampling_segmentation,
                resample_logits: configuration.resampling_probabilities,
            },
            input_channels: self.graph.input().map_or(0, |(channels, _)| channels),
            windows: WindowRule {
                patch_size: configuration.patch_size.clone(),
                step: STEP,
                gaussian: true,
                mirror_axes: self.mirroring_axes.clone(),
            },
            labels: labels.ok_or_else(|| Error::NotUnderstood {
                what: "labels above 255 are not supported".to_owned(),
                path: folder.join("dataset.json"),
            })?,
        })
    }
}

/// The weights of one fold.
#[derive(Debug)]
pub struct Fold {
    /// E.g. `fold_0`.
    pub name: String,
    checkpoint: Checkpoint,
    tensors: Vec<(String, TensorRef)>,
}

impl Fold {
    /// The tensors that the graph names, once each, in its order.
    pub fn tensors(&self) -> &[(String, TensorRef)] {
        &self.tensors
    }

    /// Reads one of [`Fold::tensors`].
    ///
    /// # Errors
    /// [`Error::Checkpoint`], also for values that are not finite.
    pub fn read(&self, number: usize) -> Result<Vec<f32>, Error> {
        let (name, tensor) = &self.tensors[number];
        Ok(self.checkpoint.weights_f32(name, tensor)?)
    }

    /// All of [`Fold::tensors`] as the bytes of a `weights.safetensors`.
    ///
    /// # Errors
    /// As [`Fold::read`].
    pub fn safetensors(&self) -> Result<Vec<u8>, Error> {
        let tensors: Vec<(&str, &[usize])> = self
            .tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor.shape()))
            .collect();
        weights::safetensors(&tensors, |n| self.read(n))
    }
}

/// Whether a folder looks like one of nnU-Net's result folders.
pub fn is_result_folder(folder: &Path) -> bool {
    folder.join("plans.json").is_file() && folder.join("dataset.json").is_file()
}

/// Reads and checks a result folder; of the weights, only where they are.
///
/// # Errors
/// [`Error`], naming the field, class or tensor.
pub fn open(folder: &Path) -> Result<Trained, Error> {
    let plans_path = folder.join("plans.json");
    let in_plans = |what| Error::NotUnderstood {
        what,
        path: plans_path.clone(),
    };
    let dataset_path = folder.join("dataset.json");
    let dataset = Dataset::parse(&Fields::root(&read_json(&dataset_path)?)).map_err(|what| {
        Error::NotUnderstood {
            what,
            path: dataset_path,
        }
    })?;
    let plans = Plans::parse(read_json(&plans_path)?).map_err(in_plans)?;
    let mut folds = Vec::new();
    let mut said: Option<Said> = None;
    let mut built: Option<(Configuration, network::Built)> = None;
    for (name, path) in fold_files(folder)? {
        let checkpoint = Checkpoint::open(&path)?;
        let in_checkpoint = |what| Error::NotUnderstood {
            what,
            path: path.clone(),
        };
        let own = Said::parse(checkpoint.root()).map_err(in_checkpoint)?;
        match &said {
            None => said = Some(own),
            Some(first) if *first == own => {}
            Some(first) => {
                return Err(in_checkpoint(format!(
                    "{own:?}, where the first fold has {first:?}"
                )));
            }
        }
        let said = said.as_ref().expect("set above");
        if built.is_none() {
            let configuration = plans
                .configuration(&said.configuration, dataset.channels.len())
                .map_err(in_plans)?;
            let mut channels = dataset.channels.len();
            if configuration.previous_stage.is_some() {
                channels += dataset.foreground_labels().len();
            }
            let network = network::build(&configuration.architecture, channels, dataset.heads());
            built = Some((configuration, network));
        }
        let (configuration, network) = built.as_ref().expect("set above");
        let axes = configuration.patch_size.len();
        if said.mirroring_axes.iter().any(|axis| *axis >= axes) {
            return Err(in_checkpoint(format!(
                "inference_allowed_mirroring_axes is {:?} for {axes} axes",
                said.mirroring_axes
            )));
        }
        let tensors = network.tensors(&checkpoint)?.map_err(in_checkpoint)?;
        folds.push(Fold {
            name,
            checkpoint,
            tensors,
        });
    }
    let (Some(said), Some((configuration, network))) = (said, built) else {
        return Err(Error::NotUnderstood {
            what: "there is no fold with a checkpoint_final.pth".to_owned(),
            path: folder.to_owned(),
        });
    };
    network
        .check(
            &configuration.patch_size,
            &folds[0].tensors,
            dataset.heads(),
        )
        .map_err(in_plans)?;
    Ok(Trained {
        trainer: said.trainer,
        plans,
        dataset,
        configuration,
        mirroring_axes: said.mirroring_axes,
        graph: network.graph,
        folds,
    })
}

fn read_json(path: &Path) -> Result<serde_json::Value, Error> {
    let io = |source| Error::Io {
        source,
        path: path.to_owned(),
    };
    let length = std::fs::metadata(path).map_err(io)?.len();
    if length > LARGEST_JSON {
        return Err(Error::NotUnderstood {
            what: format!("{length} bytes are too many"),
            path: path.to_owned(),
        });
    }
    serde_json::from_slice(&std::fs::read(path).map_err(io)?).map_err(|source| Error::Json {
        source,
        path: path.to_owned(),
    })
}

/// The checkpoints: of the numbered folds in order, or of `fold_all` when there are none.
fn fold_files(folder: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let io = |source| Error::Io {
        source,
        path: folder.to_owned(),
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(fold) = name.strip_prefix("fold_") else {
            continue;
        };
        let number = fold.parse::<u32>().ok();
        let path = entry.path().join("checkpoint_final.pth");
        if (number.is_some() || fold == "all") && path.is_file() {
            found.push((number, name, path));
        }
    }
    if found.iter().any(|(number, ..)| number.is_some()) {
        found.retain(|(number, ..)| number.is_some());
    }
    found.sort();
    Ok(found
        .into_iter()
        .map(|(_, name, path)| (name, path))
        .collect())
}

/// What a checkpoint says about itself.
#[derive(Debug, PartialEq)]
struct Said {
    trainer: String,
    configuration: String,
    mirroring_axes: Vec<usize>,
}

impl Said {
    fn parse(root: &Value) -> Result<Self, String> {
        let text = |value: Option<&Value>, name: &str| {
            value
                .and_then(Value::as_str)
                .map(str::to_owned)
                .ok_or_else(|| format!("{name} is missing or no text"))
        };
        let axes = match root.get("inference_allowed_mirroring_axes") {
            None | Some(Value::None) => Some(Vec::new()),
            Some(value) => value.as_list().and_then(|items| {
                items
                    .iter()
                    .map(|item| usize::try_from(item.as_int()?).ok())
                    .collect()
            }),
        };
        Ok(Self {
            trainer: text(root.get("trainer_name"), "trainer_name")?,
            configuration: text(
                root.get("init_args")
                    .and_then(|args| args.get("configuration")),
                "init_args.configuration",
            )?,
            mirroring_axes: axes
                .ok_or("inference_allowed_mirroring_axes is no list of axes".to_owned())?,
        })
    }
}
