//! `manifest.json`: everything about a model but its weights.

use std::collections::BTreeMap;

use super::envelope::{Envelope, Template};
use super::graph::Graph;
use super::monai::{MonaiProcedure, MonaiTransform};
use super::procedure::{LabelRule, Procedure};
use crate::findings::OperatingPoint;
use crate::study::{CodedConcept, Uid, same_kind};

/// In place of a hash: the package has no weights, and its graph nothing but the input.
pub const ON_A_SERVER: &str = "none";

/// Version of the manifest's own shape.
pub const SHAPE: &str = "negatoscope-model/1";

/// A model.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Manifest {
    /// [`SHAPE`].
    pub shape: String,
    /// Lower case letters, digits and dashes.
    pub id: String,
    /// E.g. `1.0.0`.
    pub version: String,
    /// Name for people.
    pub name: String,
    /// SPDX expression, or words.
    pub license: String,
    /// Who may use it for what.
    pub intended_use: String,
    /// What is known not to work.
    pub limits: Vec<String>,
    /// What it was trained on.
    pub training_data: String,
    /// Modality of the input, e.g. `MR`.
    pub modality: String,
    /// What it was trained on, where that is known.
    #[serde(default, skip_serializing_if = "Envelope::is_empty")]
    pub envelope: Envelope,
    /// From a scan to the network.
    pub input: Input,
    /// The network.
    pub network: Network,
    /// From the network to labels.
    pub output: Output,
    /// Preparation, sliding window and way back of nnU-Net and its kin; without one the network
    /// runs over the whole conformed grid at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub procedure: Option<Procedure>,
    /// The same by MONAI's rules, instead of a [`Manifest::procedure`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monai: Option<MonaiProcedure>,
    /// What a network says about a whole image ([`OutputKind::Classification`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<Classification>,
    /// A cascade's earlier stages, first to last: each takes the same images, and its labels are
    /// input of the next.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Stage>,
    /// Labels 1 to 255.
    pub labels: Vec<Label>,
    /// SHA-256 of `weights.safetensors`, hex; [`ON_A_SERVER`] for a model whose weights are on a
    /// server alone.
    pub weights_sha256: String,
    /// Where it came from (origin, commit, file hashes).
    #[serde(default)]
    pub origin: BTreeMap<String, String>,
}

/// From a scan to the network.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Input {
    /// The grid that the network works on.
    pub conform: Conform,
    /// Of the values on that grid.
    pub normalization: Normalization,
    /// Box that is computed; the whole grid without one.
    #[serde(default)]
    pub crop: Option<Crop>,
    /// What each input channel is called, in order, where the model takes several images of one
    /// patient; empty for one image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<String>,
}

/// The network's grid.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Conform {
    /// 256³ at 1 mm, axes L, I, A, values 0 to 255 (FreeSurfer's and NiiVue's conform).
    Freesurfer256,
    /// The scan's own voxels, in stored order or with axes turned; a procedure does the rest.
    Stored {
        /// Directions of rising i, j, k, e.g. `RAS`; as stored without.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        orientation: Option<String>,
    },
    /// The scan's own extent at a spacing and orientation.
    Grid {
        /// Spacing along i, j, k.
        spacing_mm: [f64; 3],
        /// Directions of rising i, j, k, e.g. `RAS`.
        orientation: String,
    },
}

/// Of values before the network. Constants are those of the whole conformed grid.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Normalization {
    /// As they are; a procedure does it.
    None,
    /// (v − min) / (max − min).
    MinMax,
    /// Sorted values s: lo = s[⌊low·n⌋], hi = s[⌈high·n⌉ − 1]; (v − lo) / (hi − lo), not clipped.
    Quantile {
        /// E.g. 0.05.
        low: f64,
        /// E.g. 0.95.
        high: f64,
    },
    /// (v − mean) / SD.
    ZScore,
    /// Clipped to a window, then 0 to 1.
    Window {
        /// Maps to 0.
        low: f64,
        /// Maps to 1.
        high: f64,
    },
}

/// Box that is computed. Voxels inside are not masked.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Crop {
    /// Voxels above this part of the maximum count (strictly).
    pub threshold: f64,
    /// Voxels around the box.
    pub padding: usize,
    /// Id of a model whose foreground counts instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_model: Option<String>,
}

/// A network: layers one after another, or a graph. Tensors are `[channel][k][j][i]` on the
/// conformed grid.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Network {
    /// In order; empty where there is a graph.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Layer>,
    /// A network of any form, for a procedure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<Graph>,
    /// Members of an ensemble, by what stands before the names of their tensors; one member
    /// without a prefix when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub folds: Vec<String>,
}

impl Network {
    /// Prefixes of all members' tensors.
    pub fn members(&self) -> Vec<&str> {
        if self.folds.is_empty() {
            vec![""]
        } else {
            self.folds.iter().map(String::as_str).collect()
        }
    }
}

/// A cascade's earlier stage.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Stage {
    /// E.g. `3d_lowres`.
    pub name: String,
    /// A graph.
    pub network: Network,
    /// What is done around it.
    pub procedure: Procedure,
}

/// One layer.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Layer {
    /// "Same" convolution with stride 1; weights `[out][in][k][j][i]`.
    Conv3d {
        /// Tensor name.
        weight: String,
        /// Tensor name; none for a convolution without bias.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bias: Option<String>,
        /// Input channels.
        input: usize,
        /// Output channels.
        output: usize,
        /// Edge of the cubic kernel, odd.
        kernel: usize,
        /// Distance of taps.
        dilation: usize,
    },
    /// Per channel over the grid, without affine.
    InstanceNorm {
        /// Added to the variance.
        epsilon: f32,
    },
    /// max(x, 0).
    Relu,
    /// x, or exp(x) − 1 below zero.
    Elu,
    /// x · Φ(x).
    Gelu,
}

/// From the network to labels.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Output {
    /// What the labels are.
    pub kind: OutputKind,
    /// Keep only the largest 26-connected part of all that is not background.
    #[serde(default)]
    pub largest_component: bool,
}

/// What the argmax is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputKind {
    /// The labels themselves.
    Segmentation,
    /// Anything that is not background becomes label 1.
    Mask,
    /// Values for the whole image, by [`Manifest::classification`]; no labels.
    Classification,
}

/// From an image to a network's input, and what its values mean.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Classification {
    /// Size of the input, along the network's own axes.
    pub size: Vec<usize>,
    /// From an image to the input.
    pub preparation: ImagePreparation,
    /// From the network's values to scores.
    pub activation: ClassActivation,
    /// Values are divided by this before the activation, so that scores are probabilities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Of classes that exclude each other those after the first, as a head of their own, have this one
    /// among themselves; without it [`Self::temperature`] is for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind_temperature: Option<f64>,
    /// One for each value of the network.
    pub classes: Vec<Class>,
    /// How the training data wrote the classes, in the same order; none where by name or number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class_values: Vec<String>,
    /// Of classes that exclude each other: all but the first together, where they are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub any: Option<Class>,
    /// What its images look like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Template>,
    /// Ages of the patients that it has learned from, in years.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ages_years: Option<[f64; 2]>,
}

impl Classification {
    fn check(&self) -> Result<(), String> {
        let sizes = self.size.iter().all(|n| (1..=4096).contains(n));
        if !sizes || !(1..=3).contains(&self.size.len()) || self.classes.is_empty() {
            return Err(format!("a classification at {:?}", self.size));
        }
        let temperatures = [self.temperature, self.kind_temperature];
        if (temperatures.into_iter().flatten()).any(|t| !(t.is_finite() && t > 0.0)) {
            return Err("a temperature that is not above zero".to_owned());
        }
        let excludes = self.activation == ClassActivation::Softmax && self.classes.len() > 2;
        if self.kind_temperature.is_some() && !excludes {
            return Err("a temperature of kinds without kinds".to_owned());
        }
        if !self.class_values.is_empty() && self.class_values.len() != self.classes.len() {
            return Err(format!(
                "{} class values for {} classes",
                self.class_values.len(),
                self.classes.len()
            ));
        }
        for class in self.classes.iter().chain(&self.any) {
            let numbers = class
                .threshold
                .iter()
                .chain(class.not_sure.iter().flatten());
            let ordered = class.not_sure.is_none_or(|[low, high]| low <= high);
            if numbers.into_iter().any(|x| !x.is_finite()) || !ordered {
                return Err(format!("thresholds of {:?}", class.name));
            }
        }
        if let Some(template) = &self.template {
            template.check()?;
        }
        let ages = self.ages_years;
        if ages.is_some_and(|[low, high]| {
            !(0.0..=150.0).contains(&low) || !(low..=150.0).contains(&high)
        }) {
            return Err(format!("ages of {ages:?}"));
        }
        Ok(())
    }
}

/// How an image becomes a classifier's input.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ImagePreparation {
    /// TorchXRayVision's: possible values (black, white) become this range, the largest square in the
    /// middle is cut out and resized with smoothing.
    CenterSquare {
        /// E.g. −1024 and 1024.
        range: [f32; 2],
    },
    /// The whole image, whatever its shape, resized with smoothing; possible values (black, white)
    /// become this range.
    WholeImage {
        /// E.g. −1 and 1.
        range: [f32; 2],
    },
    /// MONAI's transforms.
    Monai {
        /// In order.
        transforms: Vec<MonaiTransform>,
    },
}

/// From values to scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClassActivation {
    /// As they are.
    None,
    /// Each on its own.
    Sigmoid,
    /// Over all of them.
    Softmax,
}

/// A value of a classifier.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Class {
    /// Name for people; empty where training had no such label.
    pub name: String,
    /// Score from which on the finding counts as present; that becomes 0.5 by a broken line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// How good the threshold was on cases with known truth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operating_point: Option<OperatingPoint>,
    /// Scores from the first to below the second are called neither present nor absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_sure: Option<[f64; 2]>,
    /// What it stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concept: Option<CodedConcept>,
}

/// What a label means.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Label {
    /// 1 to 255.
    pub label: u8,
    /// Name for people.
    pub name: String,
    /// sRGB.
    pub color: [u8; 3],
    /// Segmented Property Category.
    pub category: CodedConcept,
    /// Segmented Property Type.
    pub property: CodedConcept,
}

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// No JSON of the expected shape.
    #[error("the manifest cannot be read")]
    Json(#[from] serde_json::Error),
    /// A value that makes no sense.
    #[error("the manifest is not usable: {0}")]
    Value(String),
}

impl Manifest {
    /// Whether images of a modality are of the kind that the model is for.
    pub fn takes_modality(&self, modality: &str) -> bool {
        same_kind(&self.modality, modality)
    }

    /// Whether the model sees plain images one by one and needs no volume.
    pub fn takes_plain_images(&self) -> bool {
        let classes = self.classification.as_ref();
        let whole = self.procedure.as_ref();
        classes.is_some_and(|c| c.size.len() == 2)
            || whole.is_some_and(|p| p.preprocessing.whole_image.is_some())
    }

    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_slice(bytes)?;
        manifest.check().map_err(ManifestError::Value)?;
        Ok(manifest)
    }

    /// Whether there are no weights here: its networks run on a server alone.
    pub fn is_on_a_server(&self) -> bool {
        self.weights_sha256 == ON_A_SERVER
    }

    /// The same model for machines that have no weights of it: each graph is its input alone.
    ///
    /// # Errors
    /// [`ManifestError::Value`] for layers over the whole grid, whose form says what a server needs
    /// to see for a part of it.
    pub fn outline(&self) -> Result<Self, ManifestError> {
        let mut outline = self.clone();
        let stages = outline.earlier.iter_mut().map(|stage| &mut stage.network);
        for network in stages.chain([&mut outline.network]) {
            let input = network.graph.as_ref().and_then(Graph::input);
            let (channels, axes) = input.ok_or_else(|| {
                let why = "a model without a graph runs only where its weights are";
                ManifestError::Value(why.to_owned())
            })?;
            let mut graph = Graph::new(channels, axes);
            graph.outputs = vec![0];
            network.graph = Some(graph);
        }
        let hash = std::mem::replace(&mut outline.weights_sha256, ON_A_SERVER.to_owned());
        outline.origin.insert("weights_sha256".to_owned(), hash);
        outline.check().map_err(ManifestError::Value)?;
        Ok(outline)
    }

    /// Graphs of nothing but an input go with weights elsewhere, and the other way round.
    fn check_outline(&self) -> Result<(), String> {
        let stages = self.earlier.iter().map(|stage| &stage.network);
        let is_outline = |network: &Network| {
            let graph = network.graph.as_ref();
            graph.is_some_and(|g| g.nodes.len() == 1 && g.outputs == [0])
        };
        if self.is_on_a_server() && !stages.chain([&self.network]).all(is_outline) {
            return Err("a model without weights has graphs of one node, their input".to_owned());
        }
        Ok(())
    }

    /// `id@version`.
    pub fn key(&self) -> String {
        format!("{}@{}", self.id, self.version)
    }

    /// Whether mirrored passes are averaged, in any stage.
    pub fn mirrors(&self) -> bool {
        let stages = self.earlier.iter().map(|stage| &stage.procedure);
        stages
            .chain(&self.procedure)
            .any(|p| !p.windows.mirror_axes.is_empty())
    }

    /// One more than the highest label: output channels of the last convolution, or by the rule.
    pub fn classes(&self) -> usize {
        if let Some(monai) = &self.monai {
            return monai.classes();
        }
        if let Some(procedure) = &self.procedure {
            return classes(procedure);
        }
        let mut backwards = self.network.layers.iter().rev();
        let output = backwards.find_map(|layer| match layer {
            Layer::Conv3d { output, .. } => Some(*output),
            _ => None,
        });
        output.unwrap_or(0)
    }

    fn check(&self) -> Result<(), String> {
        if self.shape != SHAPE {
            return Err(format!("shape {:?}, expected {SHAPE:?}", self.shape));
        }
        // Both become folder names.
        let word = |text: &str, also: &str| {
            (1..=64).contains(&text.len())
                && text
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || also.contains(c))
                && !text.starts_with(['.', '-'])
        };
        if !word(&self.id, "-") || !word(&self.version, "-.") {
            return Err("the id or version is no plain word".to_owned());
        }
        self.check_procedure()?;
        self.check_outline()?;
        self.envelope.check()?;
        let mut channels = 1;
        for (n, layer) in self.network.layers.iter().enumerate() {
            if let Layer::Conv3d {
                input,
                output,
                kernel,
                dilation,
                ..
            } = layer
            {
                if *input != channels {
                    return Err(format!(
                        "layer {n} takes {input} channels, {channels} arrive"
                    ));
                }
                if !(1..=1024).contains(output)
                    || kernel % 2 == 0
                    || *kernel > 15
                    || !(1..=128).contains(dilation)
                {
                    return Err(format!(
                        "layer {n} has {output} channels, kernel {kernel}, dilation {dilation}"
                    ));
                }
                channels = *output;
            }
        }
        let last = self.network.layers.last();
        let classes = self.classes();
        let ends_well = matches!(last, Some(Layer::Conv3d { .. })) || self.network.graph.is_some();
        let classifies = self.output.kind == OutputKind::Classification;
        if classifies != self.classification.is_some() || (classifies && !self.labels.is_empty()) {
            return Err("a classification has classes and no labels".to_owned());
        }
        if !classifies && (!ends_well || !(2..=256).contains(&classes)) {
            return Err(
                "the network does not end in a convolution with 2 to 256 channels".to_owned(),
            );
        }
        if let Some(classification) = &self.classification {
            classification.check()?;
        }
        let mut seen = [false; 256];
        for label in &self.labels {
            if label.label == 0
                || usize::from(label.label) >= classes
                || seen[usize::from(label.label)]
            {
                return Err(format!(
                    "label {} is twice there or has no class",
                    label.label
                ));
            }
            seen[usize::from(label.label)] = true;
        }
        if let Conform::Stored {
            orientation: Some(orientation),
        } = &self.input.conform
        {
            check_orientation(orientation)?;
        }
        if let Conform::Grid {
            spacing_mm,
            orientation,
        } = &self.input.conform
        {
            check_orientation(orientation)?;
            if spacing_mm
                .iter()
                .any(|s| !s.is_finite() || *s < 0.05 || *s > 100.0)
            {
                return Err(format!("spacing {spacing_mm:?} mm"));
            }
        }
        if let Normalization::Quantile { low, high } = self.input.normalization
            && !(0.0 <= low && low < high && high <= 1.0)
        {
            return Err(format!("quantiles {low} and {high}"));
        }
        Ok(())
    }

    /// Graph, procedure and the scan's stored grid go together; members are plain words.
    fn check_procedure(&self) -> Result<(), String> {
        let stored = matches!(self.input.conform, Conform::Stored { .. });
        let plain = self.input.normalization == Normalization::None && self.input.crop.is_none();
        let rules = [
            self.procedure.is_some(),
            self.monai.is_some(),
            self.classification.is_some(),
        ];
        let count = rules.iter().filter(|there| **there).count();
        if count > 1 {
            return Err("it has the rules of several kinds of models".to_owned());
        }
        let together = [count > 0, self.network.graph.is_some(), stored];
        if together.iter().any(|there| *there != together[0])
            || (together[0] && !(plain && self.network.layers.is_empty()))
            || (!together[0] && (!self.network.folds.is_empty() || self.images() != 1))
        {
            return Err(
                "a graph, a procedure and a scan as stored belong together, without layers, \
                 normalization and crop"
                    .to_owned(),
            );
        }
        if let Some(graph) = &self.network.graph
            && self.procedure.is_none()
        {
            return self.check_other(graph);
        }
        let Some(procedure) = &self.procedure else {
            if !self.earlier.is_empty() {
                return Err("earlier stages without a procedure".to_owned());
            }
            return Ok(());
        };
        let images = procedure.preprocessing.channels.len();
        let named = self.input.channels.len();
        if images == 0 || (named != images && (images > 1 || named > 0)) {
            return Err(format!(
                "{named} channels are named, the procedure takes {images} images"
            ));
        }
        if self.earlier.len() > 4 || self.earlier.iter().any(|s| s.name.is_empty()) {
            return Err("more stages than a cascade has, or one without a name".to_owned());
        }
        let mut labels = 0;
        for stage in &self.earlier {
            check_stage(&stage.network, &stage.procedure, images, labels)
                .map_err(|reason| format!("stage {:?}: {reason}", stage.name))?;
            labels = classes(&stage.procedure) - 1;
        }
        check_stage(&self.network, procedure, images, labels)
    }

    /// Images that a run takes.
    pub fn images(&self) -> usize {
        self.input.channels.len().max(1)
    }

    /// A graph with MONAI's rules, or one that classifies.
    fn check_other(&self, graph: &Graph) -> Result<(), String> {
        if let Some(monai) = &self.monai
            && monai.input_channels != self.images()
        {
            return Err(format!(
                "{} channels are named, the network takes {}",
                self.input.channels.len(),
                monai.input_channels
            ));
        }
        let (channels, size) = match (&self.monai, &self.classification) {
            (_, Some(classifier)) => (graph.input().map_or(0, |(c, _)| c), &classifier.size),
            (Some(monai), None) => (monai.input_channels, &monai.example),
            (None, None) => return Ok(()),
        };
        if graph.input() != Some((channels, size.len())) || !(2..=3).contains(&size.len()) {
            return Err(format!(
                "the network takes {:?} channels and axes, its rules give {channels} on {size:?}",
                graph.input()
            ));
        }
        let windows = self.monai.as_ref().map(|m| m.windows.roi_size);
        if size
            .iter()
            .chain(windows.iter().flatten())
            .any(|n| *n > 4096)
            || size.contains(&0)
            || self.network.folds.len() > 64
        {
            return Err(format!("an input of {size:?}, windows of {windows:?}"));
        }
        if let Some(classifier) = &self.classification
            && classifier
                .temperature
                .is_some_and(|t| !(t > 0.0 && t.is_finite()))
        {
            return Err("a temperature that is not above zero".to_owned());
        }
        if let Some(classifier) = &self.classification
            && !(1..=4096).contains(&classifier.classes.len())
        {
            return Err(format!("{} classes", classifier.classes.len()));
        }
        Ok(())
    }

    /// Every network of graphs with a size that it takes, and the shape that it gives for it.
    pub fn examples(&self) -> Vec<(&Network, Vec<usize>, Vec<usize>)> {
        let gives = |heads: usize, size: &[usize]| [&[1, heads], size].concat();
        if let Some(classifier) = &self.classification {
            let size = classifier.size.clone();
            return vec![(&self.network, size, vec![1, classifier.classes.len()])];
        }
        if let Some(monai) = &self.monai {
            let size = monai.example.clone();
            let want = gives(monai.heads(), &size);
            return vec![(&self.network, size, want)];
        }
        let last = self.procedure.as_ref().map(|p| (&self.network, p));
        let earlier = self.earlier.iter().map(|s| (&s.network, &s.procedure));
        earlier
            .chain(last)
            .map(|(network, procedure)| {
                let size = procedure.windows.patch_size.clone();
                let want = gives(procedure.labels.heads(), &size);
                (network, size, want)
            })
            .collect()
    }

    /// A UID that stays the same for this model, for tracking; made from its weights' hash.
    pub fn tracking_uid(&self) -> Option<Uid> {
        let bits = u128::from_str_radix(self.weights_sha256.get(..32)?, 16).ok()?;
        Some(Uid::from_u128(bits))
    }
}

/// One more than the highest label of a procedure.
fn classes(procedure: &Procedure) -> usize {
    match &procedure.labels {
        LabelRule::Argmax { classes } => *classes,
        LabelRule::Regions { order } => 1 + order.iter().copied().max().map_or(0, usize::from),
    }
}

/// One network with its procedure, for `images` and the labels of a stage before it.
fn check_stage(
    network: &Network,
    procedure: &Procedure,
    images: usize,
    labels: usize,
) -> Result<(), String> {
    let patch = procedure.windows.patch().map_err(|e| e.to_string())?;
    let axes = procedure.windows.patch_size.len();
    let input = network.graph.as_ref().and_then(Graph::input);
    if input != Some((procedure.input_channels, axes)) || !network.layers.is_empty() {
        return Err(format!(
            "the network takes {input:?} channels and axes, the procedure gives {} on {axes}",
            procedure.input_channels
        ));
    }
    // Regions may leave labels out that have a channel all the same.
    let further = procedure.input_channels.checked_sub(images);
    let fits = procedure.preprocessing.channels.len() == images
        && further.is_some_and(|n| n <= 255 && n >= labels && (n > 0) == (labels > 0));
    if !fits {
        return Err(format!(
            "{} input channels for {images} images and {labels} labels of a stage before",
            procedure.input_channels
        ));
    }
    let heads = procedure.labels.heads();
    if !(1..=256).contains(&heads) || classes(procedure) < 2 {
        return Err(format!("{heads} outputs"));
    }
    if patch.iter().any(|n| *n > 4096) || network.folds.len() > 64 {
        return Err(format!(
            "a patch of {patch:?} for {} networks",
            network.folds.len()
        ));
    }
    Ok(())
}

fn check_orientation(orientation: &str) -> Result<(), String> {
    let pairs = ["LR", "AP", "SI"];
    let mut axes: Vec<Option<usize>> = orientation
        .chars()
        .map(|c| pairs.iter().position(|p| p.contains(c)))
        .collect();
    axes.sort();
    if axes == [Some(0), Some(1), Some(2)] {
        Ok(())
    } else {
        Err(format!(
            "orientation {orientation:?}, expected three letters such as RAS"
        ))
    }
}
