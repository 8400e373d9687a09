//! What an ONNX file does not say and a person states beside it, in TOML or JSON.
//!
//! `MODEL.toml` or `MODEL.json` lies beside `MODEL.onnx`, or is named on the command line. Keys are
//! those of the structs here; [`super::template`] writes a file to fill in.

use std::path::Path;

use serde::Deserialize;

use super::wire::Parsed;
use crate::model::monai::MonaiTransform;

/// Larger files are no settings.
const LARGEST: u64 = 1 << 20;

/// All that can be stated.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    pub(super) name: Option<String>,
    pub(super) version: Option<String>,
    pub(super) license: Option<String>,
    pub(super) intended_use: Option<String>,
    pub(super) training_data: Option<String>,
    #[serde(default)]
    pub(super) limits: Vec<String>,
    /// DICOM's word, e.g. `CT`.
    pub(super) modality: Option<String>,
    #[serde(default)]
    pub(super) input: InputSettings,
    #[serde(default)]
    pub(super) output: OutputSettings,
    pub(super) labels: Option<Vec<LabelSettings>>,
    pub(super) classes: Option<Vec<ClassSettings>>,
}

/// From a scan to the network.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InputSettings {
    /// Of the network's input, along its spatial axes.
    pub(super) size: Option<Vec<usize>>,
    /// Names of the images that are the network's channels, where there are several.
    #[serde(default)]
    pub(super) images: Vec<String>,
    /// Ends that the network's axes run to, e.g. `RAS`; `stored` for the scan's own.
    pub(super) orientation: Option<String>,
    /// Along the network's axes; `stored` for the scan's own.
    pub(super) spacing_mm: Option<Spacing>,
    #[serde(default)]
    pub(super) crop_foreground: bool,
    /// In order.
    pub(super) intensity: Option<Vec<Intensity>>,
    /// Part of a window that the next one covers again.
    pub(super) overlap: Option<f64>,
    /// Windows weigh less towards their border.
    #[serde(default)]
    pub(super) gaussian: bool,
    /// What lies beyond a scan that is smaller than the window, after normalization.
    #[serde(default)]
    pub(super) padding: f32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Spacing {
    Millimeters([f64; 3]),
    /// `stored`.
    Word(String),
}

/// MONAI's transforms of values.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Intensity {
    /// Smallest and largest value become these.
    Scale { to: Option<[f32; 2]> },
    /// These values become those.
    Range {
        from: [f64; 2],
        to: [f64; 2],
        #[serde(default)]
        clip: bool,
    },
    /// These percentiles (0 to 100) become those values.
    Percentiles {
        from: [f64; 2],
        to: [f64; 2],
        #[serde(default)]
        clip: bool,
    },
    /// Less the mean, by the deviation.
    Normalize {
        /// Of the voxels that are not 0.
        #[serde(default)]
        nonzero: bool,
    },
}

/// From the network to labels.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutputSettings {
    /// The result to take, where there are several.
    pub(super) name: Option<String>,
    pub(super) decision: Option<Decision>,
    #[serde(default)]
    pub(super) activation: ActivationWord,
    /// For `threshold`, after the activation.
    pub(super) threshold: Option<f32>,
    /// The result goes back to the scan's grid by the nearest voxel.
    #[serde(default)]
    pub(super) nearest: bool,
    #[serde(default)]
    pub(super) largest_component: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Decision {
    /// The channel with the largest value is the label; 0 is background.
    Argmax,
    /// Each channel is a region of its own.
    Threshold,
    /// Scores for the whole image.
    Classification,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ActivationWord {
    /// The network's own values, or the file ends with the activation already.
    #[default]
    None,
    Softmax,
    Sigmoid,
}

/// What a label means.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LabelSettings {
    pub(super) name: String,
    /// 1, 2, … in order without it.
    pub(super) value: Option<u8>,
    pub(super) color: Option<[u8; 3]>,
    /// Segmented Property Category and Type.
    pub(super) category: Option<Code>,
    pub(super) property: Option<Code>,
}

/// A coded concept.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Code {
    pub(super) scheme: String,
    pub(super) value: String,
    pub(super) meaning: String,
}

/// A value of a classifier.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClassSettings {
    pub(super) name: String,
    pub(super) threshold: Option<f64>,
}

impl Settings {
    /// Reads a file of settings by its ending.
    pub(super) fn read(path: &Path) -> Parsed<Self> {
        let size = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
        if size > LARGEST {
            return Err(format!("{size} bytes are no settings"));
        }
        let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
        if path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("json"))
        {
            serde_json::from_str(&text).map_err(|e| e.to_string())
        } else {
            toml::from_str(&text).map_err(|e| e.to_string())
        }
    }
}

impl Intensity {
    pub(super) const fn transform(self) -> MonaiTransform {
        match self {
            Self::Scale { to } => MonaiTransform::ScaleIntensity {
                to: match to {
                    None => Some([0.0, 1.0]),
                    some => some,
                },
                channel_wise: false,
            },
            Self::Range { from, to, clip } => MonaiTransform::ScaleIntensityRange {
                from,
                to: Some(to),
                clip,
            },
            Self::Percentiles { from, to, clip } => {
                MonaiTransform::ScaleIntensityRangePercentiles {
                    percentiles: from,
                    to: Some(to),
                    clip,
                    relative: false,
                    channel_wise: false,
                }
            }
            Self::Normalize { nonzero } => MonaiTransform::NormalizeIntensity {
                nonzero,
                channel_wise: false,
            },
        }
    }
}
