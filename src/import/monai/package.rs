//! A bundle as a package of the project's own form.

use std::collections::BTreeMap;
use std::path::Path;

use super::config::{Component, Config, Node};
use super::files::Files;
use super::metadata::Metadata;
use super::nets::{self, Network};
use super::transforms::{Preparation, Setting, components, preparation};
use super::{Error, output};
use crate::import::nnunet::{color, word};
use crate::import::pytorch::{Checkpoint, TensorRef};
use crate::import::{snomed, weights};
use crate::model::graph::{Graph, Op};
use crate::model::monai::{
    Activation, MonaiDecision, MonaiOutput, MonaiProcedure, MonaiTransform, MonaiWindows,
};
use crate::model::{
    Class, ClassActivation, Classification, Conform, Envelope, ImagePreparation, Input, Label,
    MANIFEST_SHAPE, Manifest, Normalization, Output, OutputKind, PackageFiles, Values,
    VerifiedPackage, sha256_hex,
};

/// Least edge of an input that only checks the network.
const EXAMPLE: usize = 32;

/// Reads a bundle, a folder or a ZIP file, into a package.
///
/// # Errors
/// Naming what is not understood.
pub fn package(path: &Path) -> Result<VerifiedPackage, crate::import::Error> {
    let mut files = Files::open(path)?;
    let (root, config_path) = files.config("inference")?;
    let (about, _) = files.config("metadata")?;
    let refuse = |what: String| Error::NotUnderstood {
        what,
        path: config_path.clone(),
    };
    let config = Config::new(root);
    let metadata = Metadata::new(about);
    let read = Bundle::read(&config, &metadata).map_err(refuse)?;
    let (checkpoint, weights_path) = files.weights()?;
    let in_weights = |what: String| Error::NotUnderstood {
        what,
        path: weights_path.clone(),
    };
    let tensors = nets::tensors(&read.network.built, &checkpoint)
        .map_err(Error::from)?
        .map_err(in_weights)?;
    let (mut graph, saved) = safetensors(&read.network.built.graph, &tensors, &checkpoint)?;
    if let Some(order) = &read.reordered {
        reorder(&mut graph, order);
    }
    let license = metadata.says("license").or_else(|| files.license());
    let manifest = read.manifest(&metadata, graph, &saved, license);
    let manifest = serde_json::to_vec_pretty(&manifest)
        .map_err(|error| refuse(format!("the manifest cannot be written ({error})")))?;
    Ok(VerifiedPackage::verify(PackageFiles {
        manifest,
        weights: saved,
        card: None,
        signature: None,
        path: path.to_owned(),
    })?)
}

/// A state dict as `weights.safetensors`; learned slopes that are one number become part of the graph.
///
/// # Errors
/// The checkpoint's, also for values that are not finite.
pub fn safetensors(
    graph: &Graph,
    tensors: &[(String, TensorRef)],
    checkpoint: &Checkpoint,
) -> Result<(Graph, Vec<u8>), Error> {
    let mut graph = graph.clone();
    for node in &mut graph.nodes {
        if let Op::PRelu { slope } = &node.op
            && let Some((name, tensor)) = tensors.iter().find(|(name, _)| name == slope)
            && tensor.count() == 1
        {
            let values = checkpoint.weights_f32(name, tensor)?;
            node.op = Op::LeakyRelu { slope: values[0] };
        }
    }
    let used = graph.tensors();
    let kept: Vec<&(String, TensorRef)> = tensors
        .iter()
        .filter(|(name, _)| used.contains(&name.as_str()))
        .collect();
    let shapes: Vec<(&str, &[usize])> = kept
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor.shape()))
        .collect();
    let bytes = weights::safetensors(&shapes, |n| {
        let (name, tensor) = kept[n];
        checkpoint.weights_f32(name, tensor)
    })?;
    Ok((graph, bytes))
}

/// Output channels in another order.
fn reorder(graph: &mut Graph, order: &[usize]) {
    let from = graph.outputs[0];
    let parts: Vec<usize> = order
        .iter()
        .map(|&channel| {
            let op = Op::Slice {
                axis: 1,
                start: channel as i64,
                end: channel as i64 + 1,
            };
            graph.push(op, &[from])
        })
        .collect();
    let joined = graph.push(Op::Concat { axis: 1 }, &parts);
    graph.outputs = vec![joined];
}

/// What the configuration says.
struct Bundle {
    network: Network,
    preparation: Preparation,
    /// For segmentations.
    procedure: Option<MonaiProcedure>,
    /// For classifiers: size and scores.
    classifier: Option<(Vec<usize>, ClassActivation)>,
    /// Output channels in the order in which they write.
    reordered: Option<Vec<usize>>,
}

impl Bundle {
    fn read(config: &Config, metadata: &Metadata) -> Result<Self, String> {
        let first = |ids: &[&str]| -> Result<Option<(String, Node<'_>)>, String> {
            for id in ids {
                if let Some(node) = config.get(id)?.filter(|node| !node.is_null()) {
                    return Ok(Some(((*id).to_owned(), node)));
                }
            }
            Ok(None)
        };
        let version = metadata.monai_version();
        check_evaluator(config)?;
        let (id, node) = first(&["network_def", "network", "net"])?
            .ok_or("there is no network_def in the configuration")?;
        if let Some(expression) = node.expression() {
            return Err(format!(
                "{id} is the expression {}, and expressions are not evaluated: name a network with _target_",
                super::config::shown(expression)
            ));
        }
        let component = Component::of(node)?.ok_or(format!("{id} is disabled"))?;
        let older = component.count("dimensions", 3)?;
        let axes = component.count("spatial_dims", older)?;
        if !matches!(axes, 2 | 3) {
            return Err(format!("{id} has {axes} spatial_dims, expected 2 or 3"));
        }
        let inferer = match first(&["evaluator::inferer", "inferer"])? {
            Some((id, node)) => Component::of(node)?.ok_or(format!("{id} is disabled"))?,
            None => return Err("there is no inferer in the configuration".to_owned()),
        };
        let (windows, slices) = output::windows(&inferer, axes)?;
        let shape = metadata.spatial_shape().filter(|shape| shape.len() == axes);
        let roi = &windows.roi_size[..axes];
        let known = (!roi.contains(&0)).then(|| roi.to_vec()).or(shape);
        let network = nets::network(&component, known.as_deref(), version)?;
        let setting = Setting {
            axes: if slices { 3 } else { axes },
            version,
        };
        let (_, before) = first(&["dataset::transform", "preprocessing"])?
            .ok_or("there is no preprocessing in the configuration")?;
        let preparation = preparation(&components(before)?, setting)?;
        let after = match first(&["evaluator::postprocessing", "postprocessing"])? {
            Some((_, node)) => components(node)?,
            None => Vec::new(),
        };
        let mut bundle = Self {
            network,
            preparation,
            procedure: None,
            classifier: None,
            reordered: None,
        };
        if bundle.network.classifier {
            bundle.classify(known, &after)?;
        } else {
            bundle.segment(known, &windows, slices, &after, metadata)?;
        }
        Ok(bundle)
    }

    fn classify(
        &mut self,
        known: Option<Vec<usize>>,
        after: &[Component<'_>],
    ) -> Result<(), String> {
        let resized = self
            .preparation
            .transforms
            .iter()
            .rev()
            .find_map(|t| match t {
                MonaiTransform::Resize { spatial_size, .. } => {
                    Some(spatial_size[..self.network.axes].to_vec())
                }
                _ => None,
            });
        let size = resized
            .filter(|size| !size.contains(&0))
            .or(known)
            .ok_or("neither Resized nor metadata.json say the size of the network's input")?;
        let activation = class_activation(after)?;
        self.classifier = Some((size, activation));
        Ok(())
    }

    fn segment(
        &mut self,
        known: Option<Vec<usize>>,
        windows: &MonaiWindows,
        slices: bool,
        after: &[Component<'_>],
        metadata: &Metadata,
    ) -> Result<(), String> {
        let transforms = &self.preparation.transforms;
        let heads = self.network.outputs;
        let mut output = output::output(after, heads, &self.preparation.image, transforms)?;
        let mut windows = windows.clone();
        if let Some(size) = &self.network.size {
            // Networks of one size see nothing else.
            let roi = &mut windows.roi_size[..size.len()];
            let fixed = roi.iter().zip(size).all(|(r, n)| *r == 0 || r == n);
            if !fixed {
                return Err(format!(
                    "the network takes images of {size:?}, the inferer gives it {roi:?}"
                ));
            }
            roi.copy_from_slice(size);
        }
        if self.network.axes == 2 && !slices {
            let volumes = |t: &MonaiTransform| {
                matches!(
                    t,
                    MonaiTransform::Orientation { .. } | MonaiTransform::Spacing { .. }
                )
            };
            if transforms.iter().any(volumes) {
                return Err(
                    "the network takes slices, preprocessing prepares volumes, and the inferer is no SliceInferer"
                        .to_owned(),
                );
            }
        }
        let example = known.unwrap_or_else(|| {
            let divisor = &self.network.divisor;
            divisor
                .iter()
                .map(|d| EXAMPLE.next_multiple_of(*d))
                .collect()
        });
        if let MonaiDecision::Threshold { order, .. } = &mut output.decision {
            let names: Vec<String> = (0..heads)
                .map(|n| metadata.channel(n).unwrap_or_default())
                .collect();
            if let Some(nested) = nested(&names) {
                *order = nested.iter().map(|n| *n as u8 + 1).collect();
                self.reordered = Some(nested);
            }
        }
        self.procedure = Some(MonaiProcedure {
            transforms: self.preparation.transforms.clone(),
            input_channels: self.network.inputs,
            example,
            slices,
            windows,
            output,
        });
        Ok(())
    }

    /// Names of the images, where there are several.
    fn channels(&self, metadata: &Metadata) -> Vec<String> {
        let count = self.network.inputs;
        let name = |n: usize| metadata.input_channel(n);
        let names = (0..count).map(|n| name(n).unwrap_or_else(|| format!("Image {}", n + 1)));
        names.filter(|_| count > 1).collect()
    }

    fn labels(output: &MonaiOutput, metadata: &Metadata) -> Vec<Label> {
        let label = |n: usize, channel: usize| {
            let name = metadata.channel(channel);
            let name = name.unwrap_or_else(|| format!("Label {n}"));
            let (category, property) = snomed::structure(&name);
            Label {
                label: n as u8,
                color: color(n),
                category,
                property,
                name,
            }
        };
        match &output.decision {
            MonaiDecision::Argmax { classes } => (1..*classes).map(|n| label(n, n)).collect(),
            MonaiDecision::Threshold { order, .. } => {
                (1..=order.len()).map(|n| label(n, n - 1)).collect()
            }
        }
    }

    fn manifest(
        self,
        metadata: &Metadata,
        graph: Graph,
        saved: &[u8],
        license: Option<String>,
    ) -> Manifest {
        let name = metadata
            .says("name")
            .unwrap_or_else(|| format!("{} bundle", self.network.class));
        let says = |what: &str| metadata.says(what);
        let mut limits = self.limits(metadata);
        if says("intended_use").is_none() {
            limits.push("The bundle states no intended use.".to_owned());
        }
        let version = word_of_version(&says("version").unwrap_or_default());
        let labels = self
            .procedure
            .as_ref()
            .map_or_else(Vec::new, |p| Self::labels(&p.output, metadata));
        let mut origin = BTreeMap::from([
            ("format".to_owned(), "MONAI bundle".to_owned()),
            ("network".to_owned(), self.network.class.clone()),
        ]);
        for key in [
            "monai_version",
            "pytorch_version",
            "authors",
            "copyright",
            "task",
            "description",
            "references",
            "eval_metrics",
            "data_source",
        ] {
            if let Some(text) = says(key) {
                origin.insert(format!("{key} (stated by the model's authors)"), text);
            }
        }
        let kind = if self.classifier.is_some() {
            OutputKind::Classification
        } else {
            OutputKind::Segmentation
        };
        Manifest {
            shape: MANIFEST_SHAPE.to_owned(),
            id: word(&format!("monai-{name}")),
            version,
            license: license.unwrap_or_else(|| "license not stated".to_owned()),
            intended_use: match says("intended_use") {
                Some(text) => format!("Stated by the model's authors: {text}"),
                None => "Not stated by the bundle. Research only.".to_owned(),
            },
            limits,
            training_data: match says("data_source").or_else(|| says("data_type")) {
                Some(text) => format!("Stated by the model's authors: {text}"),
                None => "Not stated by the bundle.".to_owned(),
            },
            modality: metadata.modality().to_owned(),
            envelope: self.envelope(metadata),
            input: Input {
                conform: Conform::Stored { orientation: None },
                channels: self.channels(metadata),
                normalization: Normalization::None,
                crop: None,
            },
            network: crate::model::Network {
                graph: Some(graph),
                ..Default::default()
            },
            output: Output {
                kind,
                largest_component: false,
            },
            procedure: None,
            earlier: Vec::new(),
            classification: self.classifier.map(|(size, activation)| Classification {
                size,
                temperature: None,
                kind_temperature: None,
                preparation: ImagePreparation::Monai {
                    transforms: self.preparation.transforms,
                },
                activation,
                classes: (0..self.network.outputs)
                    .map(|n| Class {
                        name: metadata.channel(n).unwrap_or_else(|| format!("Class {n}")),
                        threshold: None,
                        concept: None,
                        operating_point: None,
                        not_sure: None,
                    })
                    .collect(),
                any: None,
                template: None,
                ages_years: None,
                class_values: Vec::new(),
            }),
            monai: self.procedure,
            labels,
            weights_sha256: sha256_hex(saved),
            name,
            origin,
        }
    }

    /// Values that the model tells apart, on the scale of CT.
    fn envelope(&self, metadata: &Metadata) -> Envelope {
        let window = |t: &MonaiTransform| match t {
            MonaiTransform::ScaleIntensityRange { from, .. } => Some(*from),
            _ => None,
        };
        let found = self.preparation.transforms.iter().find_map(window);
        let values = found.filter(|_| metadata.modality() == "CT");
        Envelope {
            values: values.map(|[low, high]| Values {
                low,
                high,
                unit: "HU".to_owned(),
            }),
            ..Envelope::default()
        }
    }

    fn limits(&self, metadata: &Metadata) -> Vec<String> {
        let mut limits = Vec::new();
        let oriented = |t: &MonaiTransform| matches!(t, MonaiTransform::Orientation { .. });
        if self.network.axes == 3 && !self.preparation.transforms.iter().any(oriented) {
            limits.push(
                "Training took scans in the order in which they were stored and the bundle does not say which that was: a scan stored otherwise reaches the network mirrored. Compare the result with the images."
                    .to_owned(),
            );
        }
        let Some(procedure) = &self.procedure else {
            return limits;
        };
        if let MonaiDecision::Threshold { order, .. } = &procedure.output.decision
            && order.len() > 1
        {
            let names: Vec<String> = order
                .iter()
                .map(|n| metadata.channel(usize::from(*n) - 1))
                .map(|name| name.unwrap_or_else(|| "unnamed".to_owned()))
                .collect();
            limits.push(format!(
                "Its regions may overlap; a voxel gets the last of: {}.",
                names.join(", ")
            ));
        }
        if procedure.output.activation == Activation::None
            && matches!(procedure.output.decision, MonaiDecision::Threshold { .. })
        {
            limits.push("Its threshold is applied to the network's own values.".to_owned());
        }
        limits
    }
}

/// Only MONAI's plain evaluator does what is done here.
fn check_evaluator(config: &Config) -> Result<(), String> {
    let Some(node) = config.get("evaluator::_target_")? else {
        return Ok(());
    };
    let target = node.text()?;
    match target.rsplit('.').next() {
        Some("SupervisedEvaluator") => Ok(()),
        _ => Err(format!(
            "evaluator is {}, expected SupervisedEvaluator",
            super::config::shown(&target)
        )),
    }
}

/// From a classifier's values to scores.
fn class_activation(after: &[Component<'_>]) -> Result<ClassActivation, String> {
    let mut activation = ClassActivation::None;
    for c in after {
        match c.name.trim_end_matches("Dict").trim_end_matches(['d', 'D']) {
            "Activations" => {
                activation = match (c.truth("softmax", false)?, c.truth("sigmoid", false)?) {
                    (true, false) => ClassActivation::Softmax,
                    (false, true) => ClassActivation::Sigmoid,
                    _ => return Err(format!("{} is not one activation", c.key())),
                };
            }
            // Decisions and files are left to those who read the scores.
            "AsDiscrete" | "SaveClassification" | "EnsureType" | "ToTensor" | "SaveImage" => {}
            other => {
                return Err(format!(
                    "{} is the transform {}d, which is not known for a classifier",
                    c.key(),
                    super::config::shown(other)
                ));
            }
        }
    }
    Ok(activation)
}

/// An order in which regions that lie in each other write, the largest first; for BraTS' regions.
fn nested(names: &[String]) -> Option<Vec<usize>> {
    let rank = |name: &str| {
        let name = name.to_lowercase();
        let is = |words: &[&str]| words.iter().any(|word| name.contains(word));
        if is(&["whole"]) || name == "wt" {
            Some(0)
        } else if is(&["core"]) || name == "tc" {
            Some(1)
        } else if is(&["enhancing"]) || name == "et" {
            Some(2)
        } else {
            None
        }
    };
    let ranks: Option<Vec<u8>> = names.iter().map(|name| rank(name)).collect();
    let ranks = ranks.filter(|ranks| ranks.len() > 1)?;
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by_key(|n| ranks[*n]);
    (!order.is_sorted()).then_some(order)
}

/// A version that may be part of a folder's name.
fn word_of_version(version: &str) -> String {
    let plain: String = version
        .chars()
        .filter(|c| c.is_ascii_digit() || *c == '.' || c.is_ascii_lowercase())
        .take(32)
        .collect();
    let plain = plain.trim_matches('.').to_owned();
    if plain.is_empty() || plain.contains("..") {
        "1.0.0".to_owned()
    } else {
        plain
    }
}
