//! TorchXRayVision's DenseNets for chest radiographs: state dicts → classifiers.
//!
//! In: a `.pt` or `.pth` whose tensors are named `features.conv0.weight` … `classifier.weight`,
//! perhaps with `op_threshs`, and beside it a `.json` of the same name (or `labels.json`) that lists
//! the pathologies. Out: a package that classifies. Absent on purpose: running, and checkpoints of
//! whole modules (they hold a program's classes).

use std::collections::BTreeMap;
use std::path::Path;

use super::Error;
use super::monai::nets::{Act, DenseNet, Names, Norm, tensors};
use super::monai::safetensors;
use super::nnunet::word;
use super::pytorch::{self, Checkpoint, Fault};
use crate::model::graph::Op;
use crate::model::{
    Class, ClassActivation, Classification, Conform, Envelope, ImagePreparation, Input,
    MANIFEST_SHAPE, Manifest, Network, Normalization, Output, OutputKind, PackageFiles,
    VerifiedPackage, sha256_hex,
};

/// `xrv.datasets.default_pathologies`, the order of the outputs where nothing else is said.
const PATHOLOGIES: [&str; 18] = [
    "Atelectasis",
    "Consolidation",
    "Infiltration",
    "Pneumothorax",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Effusion",
    "Pneumonia",
    "Pleural_Thickening",
    "Cardiomegaly",
    "Nodule",
    "Mass",
    "Hernia",
    "Lung Lesion",
    "Fracture",
    "Lung Opacity",
    "Enlarged Cardiomediastinum",
];
/// Edge of the input.
const SIZE: usize = 224;
/// Larger files list no labels.
const LARGEST_LABELS: u64 = 1 << 20;

/// `xrv.models.DenseNet` with its defaults (DenseNet-121).
pub fn dense_net(inputs: usize, outputs: usize) -> DenseNet {
    DenseNet {
        axes: 2,
        inputs,
        outputs,
        first: 64,
        growth: 32,
        blocks: vec![6, 12, 24, 16],
        bottleneck: 4,
        norm: Norm::Batch {
            epsilon: 1e-5,
            affine: true,
        },
        act: Act::Relu,
    }
}

/// The sizes that a state dict's names and shapes tell.
fn sized(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Result<DenseNet, String> {
    let axes = |name: &str, count: usize| {
        let found = shape(name).ok_or(format!("the tensor {name} is missing"))?;
        if found.len() == count && found.iter().all(|n| (1..=1 << 16).contains(n)) {
            Ok(found)
        } else {
            Err(format!("the tensor {name} has shape {found:?}"))
        }
    };
    let layer = |block: usize, layer: usize, conv: usize| {
        format!("features.denseblock{block}.denselayer{layer}.conv{conv}.weight")
    };
    let first = axes("features.conv0.weight", 4)?;
    let growth = axes(&layer(1, 1, 2), 4)?;
    let last = axes("classifier.weight", 2)?;
    let mut blocks = Vec::new();
    while blocks.len() < 8 && shape(&layer(blocks.len() + 1, 1, 1)).is_some() {
        let block = blocks.len() + 1;
        let layers = (1..=256).take_while(|n| shape(&layer(block, *n, 1)).is_some());
        blocks.push(layers.count());
    }
    Ok(DenseNet {
        first: first[0],
        growth: growth[0],
        bottleneck: (growth[1] / growth[0]).max(1),
        blocks,
        ..dense_net(first[1], last[0])
    })
}

/// Whether a file may be one of these: by its ending.
pub fn is_checkpoint(path: &Path) -> bool {
    let ending = path.extension().and_then(|e| e.to_str());
    path.is_file() && matches!(ending, Some("pt" | "pth"))
}

/// Reads a checkpoint into a package.
///
/// # Errors
/// Naming what is not understood.
pub fn package(path: &Path) -> Result<VerifiedPackage, Error> {
    let refuse = |what: String| Error::NotUnderstood {
        what,
        path: path.to_owned(),
    };
    let checkpoint = Checkpoint::open(path).map_err(|error| match &error {
        pytorch::Error::Refused {
            fault: Fault::Foreign(name),
            ..
        } if name.starts_with("torchxrayvision") || name.starts_with("torch.nn") => refuse(format!(
            "the whole module {name} is stored, which needs its program: save only the weights with torch.save(model.state_dict(), …); this file"
        )),
        _ => super::monai::Error::Checkpoint(error).into(),
    })?;
    let monai = |error| Error::Monai(super::monai::Error::Checkpoint(error));
    let weights = checkpoint.weights().map_err(monai)?;
    let plain = |name: &str| name.strip_prefix("module.").unwrap_or(name).to_owned();
    let shape = |wanted: &str| {
        let found = weights.iter().find(|(name, _)| plain(name) == wanted);
        found.map(|(_, tensor)| tensor.shape().to_vec())
    };
    let there = |name: &str| shape(name).is_some();
    if !there("features.conv0.weight") || !there("classifier.weight") {
        return Err(refuse(
            "no network that is known by its tensors alone (TorchXRayVision's DenseNet has features.conv0.weight and classifier.weight)"
                .to_owned(),
        ));
    }
    let net = sized(&shape).map_err(refuse)?;
    let outputs = net.outputs;
    if net.inputs != 1 || outputs > 4096 {
        return Err(refuse(format!(
            "{} channels and {outputs} outputs, expected one channel",
            net.inputs
        )));
    }
    let mut built = net.build(Names::Torch);
    built.spare.push("op_threshs".to_owned());
    let thresholds = match weights.iter().find(|(name, _)| plain(name) == "op_threshs") {
        None => None,
        // NaN stands for a label without one.
        Some((_, tensor)) => Some(checkpoint.tensor_f32(tensor).map_err(monai)?),
    };
    let thresholds = thresholds.filter(|t| !t.is_empty());
    if let Some(values) = &thresholds
        && (values.len() != outputs || values.iter().any(|t| *t <= 0.0 || *t >= 1.0))
    {
        return Err(refuse(format!(
            "op_threshs are not {outputs} numbers between 0 and 1"
        )));
    }
    let names = labels(path, outputs).map_err(refuse)?;
    let found = tensors(&built, &checkpoint)
        .map_err(monai)?
        .map_err(refuse)?;
    let (graph, saved) = safetensors(&built.graph, &found, &checkpoint)?;
    debug_assert!(!graph.nodes.iter().any(|n| matches!(n.op, Op::PRelu { .. })));
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut limits = vec![
        "The file states no intended use, no license and no accuracy: ask those who trained it."
            .to_owned(),
        "For frontal chest radiographs.".to_owned(),
    ];
    if thresholds.is_none() {
        limits.push(
            "The file has no operating thresholds: scores are not comparable between findings."
                .to_owned(),
        );
    }
    let classes = names.into_iter().enumerate().map(|(n, name)| Class {
        name,
        threshold: thresholds
            .as_ref()
            .map(|t| f64::from(t[n]))
            .filter(|t| t.is_finite()),
        concept: None,
        operating_point: None,
        not_sure: None,
    });
    let manifest = Manifest {
        shape: MANIFEST_SHAPE.to_owned(),
        id: word(&format!("xrv-{stem}")),
        version: "1.0.0".to_owned(),
        name: "Chest radiograph findings (TorchXRayVision DenseNet-121)".to_owned(),
        license: "license not stated".to_owned(),
        intended_use: "Not stated by the model's file. Research only.".to_owned(),
        limits,
        training_data: "Not stated by the model's file.".to_owned(),
        modality: "DX".to_owned(),
        envelope: Envelope {
            body_parts: vec!["CHEST".to_owned()],
            // What the library's own data sets are narrowed to.
            views: vec!["PA".to_owned(), "AP".to_owned()],
            ..Envelope::default()
        },
        input: Input {
            conform: Conform::Stored { orientation: None },
            channels: Vec::new(),
            normalization: Normalization::None,
            crop: None,
        },
        network: Network {
            graph: Some(graph),
            ..Default::default()
        },
        output: Output {
            kind: OutputKind::Classification,
            largest_component: false,
        },
        procedure: None,
        earlier: Vec::new(),
        monai: None,
        classification: Some(Classification {
            size: vec![SIZE; 2],
            preparation: ImagePreparation::CenterSquare {
                range: [-1024.0, 1024.0],
            },
            temperature: None,
            kind_temperature: None,
            activation: ClassActivation::Sigmoid,
            classes: classes.collect(),
            any: None,
            template: None,
            ages_years: None,
            class_values: Vec::new(),
        }),
        labels: Vec::new(),
        weights_sha256: sha256_hex(&saved),
        origin: BTreeMap::from([(
            "format".to_owned(),
            "TorchXRayVision DenseNet state dict".to_owned(),
        )]),
    };
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

/// Names of the outputs: from a file beside the weights, or the library's own.
fn labels(path: &Path, outputs: usize) -> Result<Vec<String>, String> {
    let beside = [
        path.with_extension("json"),
        path.with_file_name("labels.json"),
    ];
    for file in beside {
        let Ok(data) = std::fs::metadata(&file) else {
            continue;
        };
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let name = name.into_owned();
        if data.len() > LARGEST_LABELS {
            return Err(format!("{name} beside it is too large"));
        }
        let text = std::fs::read(&file).map_err(|_| format!("{name} beside it cannot be read"))?;
        let value: serde_json::Value =
            serde_json::from_slice(&text).map_err(|_| format!("{name} beside it is no JSON"))?;
        let list = ["labels", "pathologies", "targets"]
            .iter()
            .find_map(|key| value.get(key))
            .unwrap_or(&value);
        let texts = list.as_array().and_then(|items| {
            let texts = items.iter().map(|item| item.as_str());
            texts.collect::<Option<Vec<_>>>()
        });
        let texts = texts.ok_or(format!("{name} beside it lists no labels"))?;
        if texts.len() != outputs {
            return Err(format!(
                "{name} beside it lists {} labels for {outputs} outputs",
                texts.len()
            ));
        }
        return Ok(texts.into_iter().map(readable).collect());
    }
    if outputs == PATHOLOGIES.len() {
        return Ok(PATHOLOGIES.into_iter().map(readable).collect());
    }
    Err(format!(
        "{outputs} outputs and no labels beside it (labels.json with a list of names)"
    ))
}

fn readable(name: &str) -> String {
    let clean = name
        .chars()
        .map(|c| if c == '_' || c.is_control() { ' ' } else { c });
    clean.take(64).collect::<String>().trim().to_owned()
}
