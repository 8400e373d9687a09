//! brainchop's models: TensorFlow.js layers (`model.json`, `.bin`) and label names (`colormap.json`).
//!
//! The network comes from the file's layers. How a scan is prepared is not in the file: for the
//! weights that brainchop ships it is known per use (by the SHA-256 of the weights); for others
//! stated defaults apply and the manifest says so.
//!
//! | weights | uses become packages |
//! |---|---|
//! | model5_gw_ae | `brainchop-1` tissue, `brainchop-10` extraction, `brainchop-12` mask |
//! | model11_gw_ae | `brainchop-11` extraction, `brainchop-13` mask |
//! | model20chan3cls | `brainchop-2`, `brainchop-3` tissue |
//! | model18cls | `brainchop-6` subcortical |
//! | model30chan18cls | `brainchop-4`, `brainchop-5` subcortical, `brainchop-7` with a region model |
//! | model30chan50cls | `brainchop-8`, `brainchop-9` parcellation, with a region model |
//! | model21_104class | `brainchop-14` with a region model, `brainchop-15` parcellation |
//! | mindgrab | `brainchop-16`, `brainchop-17` skull stripping |
//!
//! Extraction and mask models give the brain as one segment.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

use super::{Error, snomed};
use crate::model::{
    Conform, Crop, Envelope, Input, Label, Layer, MANIFEST_SHAPE, Manifest, Network, Normalization,
    Output, OutputKind, PackageFiles, VerifiedPackage, sha256_hex,
};
use crate::study::CodedConcept;

/// Files larger than this are none of brainchop's.
const LARGEST: u64 = 1 << 30;

struct Use {
    id: u32,
    name: &'static str,
    normalization: Normalization,
    threshold: f64,
    padding: usize,
    pre_model: bool,
    kind: OutputKind,
}

/// Uses of the weights with a SHA-256, as brainchop's settings give them.
fn known_uses(sha256: &str) -> Vec<Use> {
    let quantile = || Normalization::Quantile {
        low: 0.05,
        high: 0.95,
    };
    let one = |id, name, normalization, threshold, padding, pre_model, kind| Use {
        id,
        name,
        normalization,
        threshold,
        padding,
        pre_model,
        kind,
    };
    use Normalization::MinMax;
    use OutputKind::{Mask, Segmentation};
    match &sha256[..8] {
        "ca0d1b8f" => vec![
            one(
                1,
                "Brain tissue, light",
                MinMax,
                0.0,
                18,
                false,
                Segmentation,
            ),
            one(10, "Brain extraction, light", MinMax, 0.0, 18, false, Mask),
            one(12, "Brain mask, light", MinMax, 0.0, 17, false, Mask),
        ],
        "7f93edb8" => vec![
            one(11, "Brain extraction", MinMax, 0.0, 0, false, Mask),
            one(13, "Brain mask", quantile(), 0.0, 0, false, Mask),
        ],
        "aecc03e3" => vec![
            one(2, "Brain tissue", quantile(), 0.2, 0, false, Segmentation),
            one(
                3,
                "Brain tissue (low memory setting)",
                quantile(),
                0.2,
                0,
                false,
                Segmentation,
            ),
        ],
        "72509643" => vec![one(
            6,
            "Subcortical structures, light",
            MinMax,
            0.2,
            0,
            false,
            Segmentation,
        )],
        "7039651d" => vec![
            one(
                4,
                "Subcortical structures",
                MinMax,
                0.2,
                0,
                false,
                Segmentation,
            ),
            one(
                5,
                "Subcortical structures (low memory setting)",
                MinMax,
                0.2,
                0,
                false,
                Segmentation,
            ),
            one(
                7,
                "Subcortical structures in the brain's box",
                MinMax,
                0.0,
                0,
                true,
                Segmentation,
            ),
        ],
        "a7e59756" => vec![
            one(
                8,
                "Cortical parcellation, 50 labels",
                quantile(),
                0.0,
                0,
                true,
                Segmentation,
            ),
            one(
                9,
                "Cortical parcellation, 50 labels (low memory setting)",
                quantile(),
                0.0,
                0,
                true,
                Segmentation,
            ),
        ],
        "8a0aa1e2" => vec![
            one(
                14,
                "Cortical parcellation, 104 labels",
                MinMax,
                0.0,
                0,
                true,
                Segmentation,
            ),
            one(
                15,
                "Cortical parcellation, 104 labels, whole head",
                MinMax,
                0.0,
                0,
                false,
                Segmentation,
            ),
        ],
        "c9a01490" => vec![
            one(
                16,
                "Skull stripping (mindgrab)",
                MinMax,
                0.5,
                20,
                false,
                Mask,
            ),
            one(
                17,
                "Skull stripping (mindgrab, low memory setting)",
                MinMax,
                0.5,
                20,
                false,
                Mask,
            ),
        ],
        _ => Vec::new(),
    }
}

/// Reads a folder: one package for each use.
///
/// # Errors
/// [`Error`].
pub fn read(folder: &Path) -> Result<Vec<VerifiedPackage>, Error> {
    let path = folder.join("model.json");
    let refuse = |what: String| Error::NotUnderstood {
        what,
        path: path.clone(),
    };
    let text = read_file(&path)?;
    let model: Value =
        serde_json::from_slice(&text).map_err(|e| refuse(format!("the JSON ({e})")))?;
    let Some([group]) = model["weightsManifest"].as_array().map(Vec::as_slice) else {
        return Err(refuse(
            "a weights manifest of other than one group".to_owned(),
        ));
    };
    let mut bytes = Vec::new();
    for file in group["paths"].as_array().into_iter().flatten() {
        let name = file.as_str().unwrap_or_default();
        // Names of files beside model.json, never paths.
        if name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.') {
            return Err(refuse(format!("the weights file name {name:?}")));
        }
        bytes.extend(read_file(&folder.join(name))?);
    }
    let tensors = tensors(group, &bytes).map_err(refuse)?;
    let (layers, weights) = network(&model, &tensors).map_err(refuse)?;
    let classes = layers
        .iter()
        .rev()
        .find_map(|l| {
            if let Layer::Conv3d { output, .. } = l {
                Some(*output)
            } else {
                None
            }
        })
        .unwrap_or(0);
    let hash = sha256_hex(&bytes);
    let names = label_names(folder, classes)?;
    let uses = known_uses(&hash);
    let folder_name = folder
        .canonicalize()
        .ok()
        .and_then(|p| p.file_name().map(|n| n.to_string_lossy().into_owned()))
        .unwrap_or_default();
    let saved = safetensors::serialize(
        weights.iter().map(|(name, (shape, data))| {
            let view = TensorView::new(Dtype::F32, shape.clone(), data);
            (
                name.clone(),
                view.expect("shapes and bytes were made together"),
            )
        }),
        None,
    )
    .map_err(|e| refuse(format!("the set of weights ({e})")))?;
    let mut packages = Vec::new();
    let unknown = uses.is_empty();
    let uses = if unknown { vec![default_use()] } else { uses };
    for one in uses {
        let id = if unknown {
            default_id(&folder_name)
        } else {
            format!("brainchop-{}", one.id)
        };
        let mut limits = vec![
            "T1-weighted MR of a whole adult head; other contrasts, crops and children were not looked at.".to_owned(),
            "The models' authors give no accuracy for single scans; compare with the images.".to_owned(),
        ];
        if unknown {
            limits.push("These weights are not known: preparation follows brainchop's most common settings (min-max, box of all values above zero) and may be wrong.".to_owned());
        }
        let name = if unknown {
            format!("brainchop model {folder_name}")
        } else {
            one.name.to_owned()
        };
        let manifest = Manifest {
            shape: MANIFEST_SHAPE.to_owned(),
            id,
            version: "1.0.0".to_owned(),
            name,
            license: "MIT".to_owned(),
            intended_use: "Research on T1-weighted MR of the head. Not for diagnosis.".to_owned(),
            limits,
            training_data: "Human Connectome Project scans, by brainchop's authors (MeshNet)."
                .to_owned(),
            modality: "MR".to_owned(),
            envelope: Envelope {
                body_parts: ["HEAD", "BRAIN", "SKULL"].map(str::to_owned).to_vec(),
                views: Vec::new(),
                // A whole head; more than 256 mm would not fit the grid.
                extent_mm: Some([[110.0, 256.0], [130.0, 256.0], [150.0, 256.0]]),
                values: None,
                template: None,
            },
            input: Input {
                conform: Conform::Freesurfer256,
                normalization: one.normalization,
                crop: Some(Crop {
                    threshold: one.threshold,
                    padding: one.padding,
                    pre_model: one.pre_model.then(|| "brainchop-1".to_owned()),
                }),
                channels: Vec::new(),
            },
            network: Network {
                layers: layers.clone(),
                ..Network::default()
            },
            procedure: None,
            output: Output {
                kind: one.kind,
                largest_component: true,
            },
            monai: None,
            classification: None,
            earlier: Vec::new(),
            labels: labels(one.kind, &names, classes),
            weights_sha256: sha256_hex(&saved),
            origin: BTreeMap::from([
                (
                    "format".to_owned(),
                    "brainchop, TensorFlow.js layers".to_owned(),
                ),
                ("folder".to_owned(), folder_name.clone()),
                ("weights_sha256".to_owned(), hash.clone()),
            ]),
        };
        let manifest = serde_json::to_vec_pretty(&manifest)
            .map_err(|e| refuse(format!("the manifest ({e})")))?;
        let files = PackageFiles {
            manifest,
            weights: saved.clone(),
            card: None,
            signature: None,
            path: folder.to_owned(),
        };
        packages.push(VerifiedPackage::verify(files)?);
    }
    Ok(packages)
}

fn default_use() -> Use {
    Use {
        id: 0,
        name: "",
        normalization: Normalization::MinMax,
        threshold: 0.0,
        padding: 18,
        pre_model: false,
        kind: OutputKind::Segmentation,
    }
}

/// An id from a folder's name: lower case letters, digits, dashes.
fn default_id(folder: &str) -> String {
    let word: String = folder
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .take(40)
        .collect();
    format!("brainchop-{}", word.trim_matches('-'))
}

fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    let io = |source| Error::Io {
        source,
        path: path.to_owned(),
    };
    let size = std::fs::metadata(path).map_err(io)?.len();
    if size > LARGEST {
        let what = format!("a file of {size} bytes");
        return Err(Error::NotUnderstood {
            what,
            path: path.to_owned(),
        });
    }
    std::fs::read(path).map_err(io)
}

type Tensors<'a> = BTreeMap<String, (Vec<usize>, &'a [u8])>;

/// Tensors by name; their sizes must use up the file exactly.
fn tensors<'a>(group: &Value, bytes: &'a [u8]) -> Result<Tensors<'a>, String> {
    let mut at = 0_usize;
    let mut found = BTreeMap::new();
    for weight in group["weights"].as_array().into_iter().flatten() {
        let name = weight["name"].as_str().ok_or("a weight without a name")?;
        if weight["dtype"] != "float32" || !weight["quantization"].is_null() {
            return Err(format!("weight {name:?} that is not plain float32"));
        }
        let shape: Option<Vec<usize>> = weight["shape"]
            .as_array()
            .and_then(|s| s.iter().map(|n| n.as_u64().map(|n| n as usize)).collect());
        let shape = shape.ok_or_else(|| format!("the shape of weight {name:?}"))?;
        let count = shape.iter().try_fold(4_usize, |n, &d| n.checked_mul(d));
        let end = count
            .and_then(|n| at.checked_add(n))
            .filter(|end| *end <= bytes.len());
        let end = end.ok_or_else(|| {
            format!(
                "weight {name:?} of shape {shape:?}: the file holds only {} bytes",
                bytes.len()
            )
        })?;
        found.insert(name.to_owned(), (shape, &bytes[at..end]));
        at = end;
    }
    if at == bytes.len() {
        Ok(found)
    } else {
        Err(format!(
            "a weights file of {} bytes, its tensors take {at}",
            bytes.len()
        ))
    }
}

type Weights = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

fn network(model: &Value, tensors: &Tensors<'_>) -> Result<(Vec<Layer>, Weights), String> {
    let list = model["modelTopology"]["model_config"]["config"]["layers"]
        .as_array()
        .ok_or("a topology without layers")?;
    let mut layers = Vec::new();
    let mut weights = Weights::new();
    let mut before: Option<&str> = None;
    let mut channels = 1;
    for layer in list {
        let class = layer["class_name"].as_str().unwrap_or_default();
        let config = &layer["config"];
        let name = config["name"].as_str().ok_or("a layer without a name")?;
        // A plain sequence: each layer takes the one before it.
        let inbound = &layer["inbound_nodes"][0];
        let from = inbound[0][0].as_str();
        if before.is_some() && (from != before || inbound.as_array().map_or(0, Vec::len) != 1) {
            return Err(format!(
                "layer {name:?} that takes other than the layer before it"
            ));
        }
        before = Some(name);
        match class {
            "InputLayer" => {
                if config["batch_input_shape"][4] != 1 {
                    return Err("an input of other than one channel".to_owned());
                }
            }
            "Conv3D" => {
                channels = convolution(config, name, channels, tensors, &mut layers, &mut weights)?;
            }
            "Activation" => layers.extend(activation(&config["activation"], name)?),
            other => return Err(format!("layer {name:?} of class {other:?}")),
        }
    }
    if layers.is_empty() {
        return Err("a network without layers".to_owned());
    }
    Ok((layers, weights))
}

fn activation(value: &Value, name: &str) -> Result<Option<Layer>, String> {
    match value.as_str() {
        Some("linear") => Ok(None),
        Some("relu") => Ok(Some(Layer::Relu)),
        Some("elu") => Ok(Some(Layer::Elu)),
        Some("gelu") => Ok(Some(Layer::Gelu)),
        other => Err(format!("activation {other:?} of layer {name:?}")),
    }
}

fn convolution(
    config: &Value,
    name: &str,
    channels: usize,
    tensors: &Tensors<'_>,
    layers: &mut Vec<Layer>,
    weights: &mut Weights,
) -> Result<usize, String> {
    let cubic = |key: &str| -> Result<usize, String> {
        let values = config[key]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        match values {
            [a, b, c] if a == b && b == c => a.as_u64().map(|n| n as usize),
            _ => None,
        }
        .ok_or_else(|| format!("{key} {} of layer {name:?}", config[key]))
    };
    let (size, dilation) = (cubic("kernel_size")?, cubic("dilation_rate")?);
    let groups = config["groups"].as_u64().unwrap_or(1);
    if cubic("strides")? != 1
        || config["padding"] != "same"
        || config["data_format"] != "channels_last"
        || groups != 1
        || size % 2 == 0
    {
        return Err(format!(
            "strides, padding, format, groups or kernel of layer {name:?}"
        ));
    }
    let output = config["filters"].as_u64().unwrap_or(0) as usize;
    let (shape, bytes) = tensors
        .get(&format!("{name}/kernel"))
        .ok_or_else(|| format!("layer {name:?} without a kernel"))?;
    if shape[..] != [size, size, size, channels, output] {
        return Err(format!("the kernel of layer {name:?} with shape {shape:?}"));
    }
    // Theirs: [x][y][z][in][out], because brainchop hands the network reversed axes.
    // Ours: [out][in][k][j][i] with k = z, j = y, i = x.
    let mut turned = Vec::with_capacity(bytes.len());
    for out in 0..output {
        for input in 0..channels {
            for z in 0..size {
                for y in 0..size {
                    for x in 0..size {
                        let at = (((x * size + y) * size + z) * channels + input) * output + out;
                        turned.extend(&bytes[at * 4..at * 4 + 4]);
                    }
                }
            }
        }
    }
    let weight = format!("{name}.weight");
    weights.insert(
        weight.clone(),
        (vec![output, channels, size, size, size], turned),
    );
    let bias = if config["use_bias"] == true {
        let (shape, bytes) = tensors
            .get(&format!("{name}/bias"))
            .filter(|(shape, _)| shape[..] == [output])
            .ok_or_else(|| format!("the bias of layer {name:?}"))?;
        let key = format!("{name}.bias");
        weights.insert(key.clone(), (shape.clone(), bytes.to_vec()));
        Some(key)
    } else {
        None
    };
    layers.push(Layer::Conv3d {
        weight,
        bias,
        input: channels,
        output,
        kernel: size,
        dilation,
    });
    // brainchop's runtime normalizes after layers of this name.
    if name.ends_with("_gn") {
        layers.push(Layer::InstanceNorm { epsilon: 1e-5 });
    }
    layers.extend(activation(&config["activation"], name)?);
    Ok(output)
}

/// Name and color by class; the file whose list has as many entries as there are classes.
fn label_names(folder: &Path, classes: usize) -> Result<Vec<(String, [u8; 3])>, Error> {
    for name in ["colormap.json", "colormap3.json"] {
        let path = folder.join(name);
        if !path.is_file() {
            continue;
        }
        let value: Value =
            serde_json::from_slice(&read_file(&path)?).map_err(|e| Error::NotUnderstood {
                what: format!("the JSON ({e})"),
                path,
            })?;
        let labels = value["labels"].as_array().cloned().unwrap_or_default();
        if labels.len() == classes {
            let channel =
                |key: &str, n: usize| value[key][n].as_u64().unwrap_or(200).min(255) as u8;
            return Ok(labels
                .iter()
                .enumerate()
                .map(|(n, l)| {
                    let name = l.as_str().unwrap_or_default().replace(['-', '_'], " ");
                    (name, [channel("R", n), channel("G", n), channel("B", n)])
                })
                .collect());
        }
    }
    // No list fits: three classes are brainchop's tissue labels, others get numbers.
    Ok((0..classes)
        .map(|n| {
            let name = match (classes, n) {
                (3, 1) => "White Matter".to_owned(),
                (3, 2) => "Grey Matter".to_owned(),
                _ => format!("Label {n}"),
            };
            let hue = (n * 137 % 360) as f32 / 60.0;
            let part = |shift: f32| {
                let x = ((hue + shift) % 6.0 - 3.0).abs() - 1.0;
                (90.0 + 150.0 * x.clamp(0.0, 1.0)) as u8
            };
            (name, [part(0.0), part(4.0), part(2.0)])
        })
        .collect())
}

fn labels(kind: OutputKind, names: &[(String, [u8; 3])], classes: usize) -> Vec<Label> {
    let category = CodedConcept::new("123037004", "SCT", "Anatomical Structure");
    if kind == OutputKind::Mask {
        return vec![Label {
            label: 1,
            name: "Brain".to_owned(),
            color: [236, 132, 120],
            category,
            property: CodedConcept::new("12738006", "SCT", "Brain"),
        }];
    }
    (1..classes.min(256))
        .filter_map(|n| {
            let (name, color) = names.get(n)?;
            Some(Label {
                label: n as u8,
                name: name.clone(),
                color: *color,
                category: category.clone(),
                property: snomed::brain_structure(name),
            })
        })
        .collect()
}
