//! A file and its settings as a package of the project's own form.

use std::collections::BTreeMap;
use std::path::Path;

use super::facts::Facts;
use super::known::{Files, Known};
use super::proto::Dim;
use super::settings::{
    ActivationWord, Code, Decision, Intensity, LabelSettings, Settings, Spacing,
};
use super::translate::Translated;
use super::wire::Parsed;
use crate::import::nnunet::{color, word};
use crate::import::{snomed, weights};
use crate::model::graph::{Graph, Op};
use crate::model::monai::{
    Activation, KeepLargest, MonaiDecision, MonaiOutput, MonaiProcedure, MonaiTransform,
    MonaiWindows, Padding,
};
use crate::model::{
    Class, ClassActivation, Classification, Conform, Envelope, ImagePreparation, Input, Label,
    MANIFEST_SHAPE, Manifest, Network, Normalization, Output, OutputKind, sha256_hex,
};
use crate::study::CodedConcept;

/// The shape of the network's input: the file's own, or as the settings state it.
pub(super) fn input_shape(facts: &Facts, settings: &Settings) -> Parsed<Vec<usize>> {
    let stated = settings.input.size.as_deref();
    if stated.is_some_and(|s| s.len() != facts.size.len()) {
        return Err(format!(
            "input.size has {} numbers, the input {:?} has {} axes",
            stated.map_or(0, <[usize]>::len),
            facts.input,
            facts.size.len()
        ));
    }
    let images = settings.input.images.len();
    let channels = match (facts.channels, images) {
        (Some(there), 1..) if there != images => {
            return Err(format!(
                "input.images names {images}, the file takes {there} channels"
            ));
        }
        (Some(channels), _) => channels,
        (None, images) => images.max(1),
    };
    let mut shape = vec![1, channels];
    for (axis, dim) in facts.size.iter().enumerate() {
        let stated = stated.map(|s| s[axis]);
        let n = match (dim, stated) {
            (Dim::Known(n), None) => usize::try_from(*n).unwrap_or(0),
            (Dim::Known(n), Some(stated)) if usize::try_from(*n) != Ok(stated) => {
                return Err(format!("input.size has {stated} where the file takes {n}"));
            }
            (_, Some(stated)) => stated,
            (Dim::Named(_), None) => return Err("input.size is not stated".to_owned()),
        };
        if !(1..=4096).contains(&n) || !(1..=1024).contains(&channels) {
            return Err(format!("an input of {n} voxels and {channels} channels"));
        }
        shape.push(n);
    }
    Ok(shape)
}

/// What neither file nor settings say, by the names of the settings.
pub(super) fn missing(facts: &Facts, settings: &Settings) -> Vec<&'static str> {
    let open = facts.size.iter().any(|dim| matches!(dim, Dim::Named(_)));
    let license = ["license"];
    let names = settings.labels.is_none() && settings.classes.is_none() && facts.names().is_none();
    let input = &settings.input;
    let all = [
        (
            "license",
            settings.license.is_none() && facts.says(&license).is_none(),
        ),
        ("intended_use", settings.intended_use.is_none()),
        (
            "modality",
            settings.modality.is_none() && facts.says(&["modality"]).is_none(),
        ),
        (
            "input.images",
            facts.channels != Some(1) && input.images.is_empty(),
        ),
        ("input.size", open && input.size.is_none()),
        ("input.orientation", input.orientation.is_none()),
        ("input.spacing_mm", input.spacing_mm.is_none()),
        ("input.intensity", input.intensity.is_none()),
        ("output.decision", settings.output.decision.is_none()),
        (
            "output.name",
            facts.outputs.len() > 1 && settings.output.name.is_none(),
        ),
        ("labels", names),
    ];
    let named = all.into_iter().filter(|(_, is_missing)| *is_missing);
    named.map(|(name, _)| name).collect()
}

/// The manifest's part that follows from the weights' bytes.
pub(super) fn manifest(
    path: &Path,
    facts: &Facts,
    settings: &Settings,
    shape: &[usize],
    translated: Translated,
    saved: &[u8],
) -> Parsed<Manifest> {
    let mut graph = translated.graph;
    let heads = *translated.result.get(1).unwrap_or(&0);
    let stem = path
        .file_stem()
        .map(|s| s.to_string_lossy().into_owned())
        .unwrap_or_default();
    let name = settings.name.clone().unwrap_or_else(|| stem.clone());
    let transforms = transforms(settings)?;
    let decision = settings
        .output
        .decision
        .ok_or("output.decision is missing")?;
    let mut labels = Vec::new();
    let (mut monai, mut classification) = (None, None);
    let kind = if decision == Decision::Classification {
        if translated.result[2..].iter().any(|n| *n != 1) || translated.largest {
            return Err(format!(
                "a classification is expected, the result is {:?}",
                translated.result
            ));
        }
        if translated.result.len() > 2 {
            flat(&mut graph);
        }
        classification = Some(classifier(facts, settings, shape, transforms, heads)?);
        OutputKind::Classification
    } else {
        if translated.result[2..] != shape[2..] {
            return Err(format!(
                "labels for each voxel of {:?} are expected, the result is {:?}",
                &shape[2..],
                translated.result
            ));
        }
        labels = named_labels(facts, settings, decision, heads)?;
        let output = output(settings, decision, &labels, heads, translated.largest)?;
        monai = Some(MonaiProcedure {
            transforms,
            input_channels: shape[1],
            example: shape[2..].to_vec(),
            slices: shape.len() == 4,
            windows: windows(settings, shape)?,
            output,
        });
        OutputKind::Segmentation
    };
    let says = |stated: &Option<String>, keys: &[&str], otherwise: &str| {
        let found = stated
            .clone()
            .or_else(|| facts.says(keys).map(str::to_owned));
        found.unwrap_or_else(|| otherwise.to_owned())
    };
    let mut limits = settings.limits.clone();
    limits.push(
        "The file does not say how scans are prepared and what the labels mean: whoever imported it stated that. Compare the result with the images."
            .to_owned(),
    );
    Ok(Manifest {
        shape: MANIFEST_SHAPE.to_owned(),
        id: word(&format!("onnx-{stem}")),
        version: settings
            .version
            .clone()
            .unwrap_or_else(|| "1.0.0".to_owned()),
        name,
        license: says(&settings.license, &["license"], "license not stated"),
        intended_use: says(&settings.intended_use, &[], "Not stated. Research only."),
        limits,
        training_data: says(
            &settings.training_data,
            &["training_data", "dataset"],
            "Not stated.",
        ),
        modality: says(&settings.modality, &["modality"], "").to_uppercase(),
        envelope: Envelope::default(),
        input: Input {
            conform: Conform::Stored { orientation: None },
            normalization: Normalization::None,
            crop: None,
            channels: settings.input.images.clone(),
        },
        network: Network {
            graph: Some(graph),
            ..Network::default()
        },
        output: Output {
            kind,
            largest_component: false,
        },
        procedure: None,
        earlier: Vec::new(),
        monai,
        classification,
        labels,
        weights_sha256: sha256_hex(saved),
        origin: BTreeMap::from([
            (
                "format".to_owned(),
                format!("ONNX, operation set {}", facts.opset),
            ),
            ("file".to_owned(), stem),
            ("producer".to_owned(), facts.producer.clone()),
        ]),
    })
}

/// The weights as the package keeps them.
pub(super) fn saved(tensors: &BTreeMap<String, Known>, files: &Files) -> Parsed<Vec<u8>> {
    let all: Vec<(&str, &Known)> = tensors.iter().map(|(n, k)| (n.as_str(), k)).collect();
    let shapes: Vec<(&str, &[usize])> = all.iter().map(|(n, k)| (*n, &k.shape[..])).collect();
    weights::safetensors(&shapes, |n| {
        let values = files.floats(all[n].1)?;
        if values.iter().all(|v| v.is_finite()) {
            Ok(values)
        } else {
            Err(format!(
                "tensor {:?} holds values that are no numbers",
                all[n].0
            ))
        }
    })
}

/// `[1, n, 1, …]` as `[1, n]`.
fn flat(graph: &mut Graph) {
    let last = graph.outputs[0];
    let op = Op::Reshape { shape: vec![1, -1] };
    graph.outputs = vec![graph.push(op, &[last])];
}

fn transforms(settings: &Settings) -> Parsed<Vec<MonaiTransform>> {
    let input = &settings.input;
    let mut transforms = Vec::new();
    let stored = |text: &str| text.eq_ignore_ascii_case("stored");
    match input.orientation.as_deref() {
        Some(text) if stored(text) => {}
        Some(text) => {
            let letters: Vec<char> = text.to_uppercase().chars().collect();
            let axcodes = <[char; 3]>::try_from(letters).ok();
            let pairs = ["LR", "AP", "SI"];
            let mut axes: Vec<Option<usize>> = axcodes
                .iter()
                .flatten()
                .map(|c| pairs.iter().position(|p| p.contains(*c)))
                .collect();
            axes.sort();
            let axcodes = axcodes.filter(|_| axes == [Some(0), Some(1), Some(2)]);
            let axcodes = axcodes.ok_or_else(|| {
                format!(
                    "input.orientation is {text:?}, expected three letters such as RAS, or stored"
                )
            })?;
            transforms.push(MonaiTransform::Orientation { axcodes });
        }
        None => return Err("input.orientation is missing".to_owned()),
    }
    match &input.spacing_mm {
        Some(Spacing::Word(text)) if stored(text) => {}
        Some(Spacing::Millimeters(pixdim)) if pixdim.iter().all(|s| (0.0..=100.0).contains(s)) => {
            transforms.push(MonaiTransform::Spacing {
                pixdim: *pixdim,
                linear: true,
            });
        }
        other => return Err(format!("input.spacing_mm is {other:?}")),
    }
    let intensity = input
        .intensity
        .as_deref()
        .ok_or("input.intensity is missing")?;
    transforms.extend(intensity.iter().copied().map(Intensity::transform));
    if input.crop_foreground {
        transforms.push(MonaiTransform::CropForeground {
            margin: [0; 3],
            k_divisible: [1; 3],
            allow_smaller: true,
        });
    }
    Ok(transforms)
}

fn windows(settings: &Settings, shape: &[usize]) -> Parsed<MonaiWindows> {
    let size = &shape[2..];
    if !(2..=3).contains(&size.len()) {
        return Err(format!(
            "a network on {} axes cannot be moved over a scan",
            size.len()
        ));
    }
    let mut roi_size = [1; 3];
    roi_size[..size.len()].copy_from_slice(size);
    let overlap = settings.input.overlap.unwrap_or(0.25);
    if !(0.0..1.0).contains(&overlap) {
        return Err(format!("input.overlap is {overlap}, expected 0 to below 1"));
    }
    let mut overlaps = [overlap; 3];
    if size.len() == 2 {
        overlaps[2] = 0.0;
    }
    Ok(MonaiWindows {
        roi_size,
        overlap: overlaps,
        gaussian: settings.input.gaussian.then_some(0.125),
        padding: Padding::Constant(settings.input.padding),
    })
}

fn output(
    settings: &Settings,
    decision: Decision,
    labels: &[Label],
    heads: usize,
    largest: bool,
) -> Parsed<MonaiOutput> {
    let stated = &settings.output;
    let decision = if decision == Decision::Argmax {
        if !(2..=256).contains(&heads) {
            return Err(format!(
                "output.decision is argmax, the network gives {heads} channels: \
                 2 to 256 are needed, one of them background"
            ));
        }
        MonaiDecision::Argmax { classes: heads }
    } else {
        if largest {
            return Err("output.decision is threshold, the file ends with an arg max".to_owned());
        }
        MonaiDecision::Threshold {
            order: labels.iter().map(|label| label.label).collect(),
            threshold: stated.threshold.unwrap_or(0.5),
        }
    };
    Ok(MonaiOutput {
        activation: match stated.activation {
            ActivationWord::None => Activation::None,
            ActivationWord::Softmax => Activation::Softmax,
            ActivationWord::Sigmoid => Activation::Sigmoid,
        },
        decision,
        linear: !stated.nearest,
        keep_largest: stated.largest_component.then(|| KeepLargest {
            labels: Vec::new(),
            independent: true,
        }),
    })
}

/// Labels as stated, or named by the file's metadata.
fn named_labels(
    facts: &Facts,
    settings: &Settings,
    decision: Decision,
    heads: usize,
) -> Parsed<Vec<Label>> {
    let background = usize::from(decision == Decision::Argmax);
    let wanted = heads.saturating_sub(background);
    let plain = |name: String| LabelSettings {
        name,
        value: None,
        color: None,
        category: None,
        property: None,
    };
    let list = match (&settings.labels, facts.names()) {
        (Some(labels), _) => labels.clone(),
        (None, Some(names)) => {
            // The file may name the background too.
            let skip = usize::from(names.len() == wanted + background && background == 1);
            names.into_iter().skip(skip).map(plain).collect()
        }
        (None, None) => return Err("labels are missing".to_owned()),
    };
    let stated = list.iter().filter_map(|label| label.value).count();
    let complete = if decision == Decision::Argmax {
        list.len() <= wanted && (stated == list.len() || list.len() == wanted)
    } else {
        list.len() == wanted
    };
    if !complete || (stated != 0 && stated != list.len()) {
        return Err(format!(
            "{} labels are named, the network gives {wanted} besides the background",
            list.len()
        ));
    }
    let code = |code: Code| CodedConcept::new(&code.value, &code.scheme, &code.meaning);
    list.into_iter()
        .enumerate()
        .map(|(n, label)| {
            let value = label.value.map_or(n + 1, usize::from);
            let in_range = u8::try_from(value).ok().filter(|v| *v > 0);
            let number = in_range.ok_or_else(|| format!("a label of {value}"))?;
            let (category, property) = snomed::structure(&label.name);
            Ok(Label {
                label: number,
                color: label.color.unwrap_or_else(|| color(value)),
                category: label.category.map_or(category, code),
                property: label.property.map_or(property, code),
                name: label.name,
            })
        })
        .collect()
}

fn classifier(
    facts: &Facts,
    settings: &Settings,
    shape: &[usize],
    transforms: Vec<MonaiTransform>,
    heads: usize,
) -> Parsed<Classification> {
    let class = |name: String, threshold| Class {
        name,
        threshold,
        concept: None,
        operating_point: None,
        not_sure: None,
    };
    let classes: Vec<Class> = match (&settings.classes, facts.names()) {
        (Some(classes), _) => {
            let classes = classes.iter().cloned();
            classes.map(|c| class(c.name, c.threshold)).collect()
        }
        (None, Some(names)) => names.into_iter().map(|name| class(name, None)).collect(),
        (None, None) => return Err("classes are missing".to_owned()),
    };
    if classes.len() != heads {
        return Err(format!(
            "{} classes are named, the network gives {heads} values",
            classes.len()
        ));
    }
    let mut size = [0; 3];
    size[..shape.len() - 2].copy_from_slice(&shape[2..]);
    let resize = MonaiTransform::Resize {
        spatial_size: size,
        linear: true,
        align_corners: false,
    };
    Ok(Classification {
        size: shape[2..].to_vec(),
        temperature: None,
        kind_temperature: None,
        preparation: ImagePreparation::Monai {
            transforms: transforms.into_iter().chain([resize]).collect(),
        },
        activation: match settings.output.activation {
            ActivationWord::None => ClassActivation::None,
            ActivationWord::Softmax => ClassActivation::Softmax,
            ActivationWord::Sigmoid => ClassActivation::Sigmoid,
        },
        classes,
        any: None,
        template: None,
        ages_years: None,
        class_values: Vec::new(),
    })
}
