//! What a model's plans say about the work around its network; importers fill these.

use serde::{Deserialize, Serialize};

/// Why rules cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// A rule that the plans ask for and that does not exist here.
    #[error("the model asks for {0}, which is not supported")]
    Unsupported(String),
    /// Image, plans and network do not belong together.
    #[error("{0}")]
    Mismatch(String),
}

/// Everything around one network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Procedure {
    /// To the network's input and back.
    pub preprocessing: Preprocessing,
    /// The network's input channels: those of the image, and a cascade's one-hot labels.
    pub input_channels: usize,
    /// How the network is moved.
    pub windows: WindowRule,
    /// What its output means.
    pub labels: LabelRule,
}

/// From the reader's image to the network's input (nnU-Net's `plans.json`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preprocessing {
    /// Axis `a` of the network's grid is axis `transpose_forward[a]` of the reader's.
    pub transpose_forward: [usize; 3],
    /// The way back.
    pub transpose_backward: [usize; 3],
    /// One per image channel.
    pub channels: Vec<Channel>,
    /// Spacing of the network's grid, already transposed: three numbers, or two for a 2-D
    /// configuration (the first axis keeps its spacing).
    pub target_spacing: Vec<f64>,
    /// Rows and columns to which every image is brought whole, whatever its spacing: smoothed where
    /// it gets smaller, neither cropped nor measured in mm. Not a rule of nnU-Net.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole_image: Option<[usize; 2]>,
    /// `resampling_fn_data`.
    pub resample_image: Resampling,
    /// `resampling_fn_seg`, for the labels of a cascade's previous stage.
    pub resample_labels: Resampling,
    /// `resampling_fn_probabilities`.
    pub resample_logits: Resampling,
}

impl Preprocessing {
    /// Spacing of the network's grid, for an image with this spacing (already transposed).
    pub fn spacing_for(&self, original: [f64; 3]) -> Result<[f64; 3], RuleError> {
        match *self.target_spacing.as_slice() {
            [z, y, x] => Ok([z, y, x]),
            [y, x] => Ok([original[0], y, x]),
            _ => Err(RuleError::Mismatch(format!(
                "the target spacing has {} entries, expected 2 or 3",
                self.target_spacing.len()
            ))),
        }
    }
}

/// How one channel is normalized.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Channel {
    /// The scheme.
    pub scheme: Scheme,
    /// Statistics inside the nonzero mask only (z-score); what lies outside stays as it is.
    pub use_mask: bool,
}

/// nnU-Net's normalization schemes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Scheme {
    /// `CTNormalization`: clip to the percentiles of the training data, then mean and deviation.
    Ct(Intensities),
    /// `ZScoreNormalization`.
    ZScore,
    /// `RescaleTo01Normalization`.
    RescaleTo01,
    /// `RGBTo01Normalization`.
    RgbTo01,
    /// `NoNormalization`.
    None,
}

impl Scheme {
    /// By nnU-Net's class name.
    ///
    /// # Errors
    /// [`RuleError::Unsupported`] with the name; also for CT without the fingerprint's intensities.
    pub fn named(name: &str, intensities: Option<Intensities>) -> Result<Self, RuleError> {
        Ok(match name {
            "CTNormalization" => Self::Ct(intensities.ok_or_else(|| {
                RuleError::Unsupported("CTNormalization without intensity properties".into())
            })?),
            "ZScoreNormalization" => Self::ZScore,
            "RescaleTo01Normalization" => Self::RescaleTo01,
            "RGBTo01Normalization" => Self::RgbTo01,
            "NoNormalization" => Self::None,
            other => {
                return Err(RuleError::Unsupported(format!(
                    "the normalization {other:?}"
                )));
            }
        })
    }
}

/// `foreground_intensity_properties_per_channel`, as far as it is used.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intensities {
    /// Mean of the foreground.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
    /// Lower bound.
    pub percentile_00_5: f64,
    /// Upper bound.
    pub percentile_99_5: f64,
}

/// nnU-Net's `resample_data_or_seg_to_shape` with its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resampling {
    /// Labels: each label's indicator is resampled on its own.
    pub is_seg: bool,
    /// Spline order: 0, 1 or 3.
    pub order: u8,
    /// Order along the coarse axis where that is resampled separately: 0, 1 or 3.
    pub order_z: u8,
    /// Whether the coarse axis is resampled separately; `None`: where it is coarser than `threshold`.
    pub force_separate_z: Option<bool>,
    /// Ratio of the largest to the smallest spacing above which an image counts as anisotropic.
    pub threshold: f64,
}

impl Resampling {
    /// nnU-Net's defaults for images: cubic, the coarse axis nearest.
    pub const IMAGE: Self = Self {
        is_seg: false,
        order: 3,
        order_z: 0,
        force_separate_z: None,
        threshold: 3.0,
    };
    /// nnU-Net's defaults for labels.
    pub const LABELS: Self = Self {
        is_seg: true,
        order: 1,
        ..Self::IMAGE
    };
    /// nnU-Net's defaults for logits.
    pub const LOGITS: Self = Self {
        order: 1,
        ..Self::IMAGE
    };

    /// By the name of nnU-Net's function.
    ///
    /// # Errors
    /// [`RuleError::Unsupported`] for other functions (`resample_torch_…`) and other orders, by name.
    pub fn named(
        function: &str,
        is_seg: bool,
        order: u8,
        order_z: u8,
        force_separate_z: Option<bool>,
    ) -> Result<Self, RuleError> {
        if function != "resample_data_or_seg_to_shape" {
            return Err(RuleError::Unsupported(format!(
                "the resampling {function:?}"
            )));
        }
        let rule = Self {
            is_seg,
            order,
            order_z,
            force_separate_z,
            threshold: 3.0,
        };
        rule.check()?;
        Ok(rule)
    }

    /// Refuses orders that do not exist here.
    pub fn check(&self) -> Result<(), RuleError> {
        for order in [self.order, self.order_z] {
            if !matches!(order, 0 | 1 | 3) {
                return Err(RuleError::Unsupported(format!(
                    "resampling of order {order}"
                )));
            }
        }
        Ok(())
    }

    /// The axis that is resampled on its own, if any (`determine_do_sep_z_and_axis`).
    pub fn separate_axis(&self, current: [f64; 3], new: [f64; 3]) -> Option<usize> {
        let by_spacing = self.force_separate_z.is_none();
        let coarse = if self.force_separate_z == Some(true)
            || by_spacing && anisotropy(current) > self.threshold
        {
            current
        } else if by_spacing && anisotropy(new) > self.threshold {
            new
        } else {
            return None;
        };
        let most = coarse.iter().copied().fold(f64::MIN, f64::max);
        let mut axes = (0..3).filter(|&axis| most / coarse[axis] == 1.0);
        // Two coarse axes, or none: all are resampled alike.
        match (axes.next(), axes.next()) {
            (Some(axis), None) => Some(axis),
            _ => None,
        }
    }
}

fn anisotropy(spacing: [f64; 3]) -> f64 {
    let most = spacing.iter().copied().fold(f64::MIN, f64::max);
    most / spacing.iter().copied().fold(f64::MAX, f64::min)
}

/// The grid that an image gets at another spacing (`compute_new_shape`).
///
/// # Errors
/// [`RuleError::Mismatch`] for spacings that are not positive, and grids without voxels or beyond memory.
pub fn new_shape(
    dims: [usize; 3],
    current: [f64; 3],
    new: [f64; 3],
) -> Result<[usize; 3], RuleError> {
    let mut shape = [0; 3];
    for axis in 0..3 {
        // Python rounds halves to the even number.
        let size = (current[axis] / new[axis] * dims[axis] as f64).round_ties_even();
        if !(1.0..=65_536.0).contains(&size) {
            return Err(RuleError::Mismatch(format!(
                "{} voxels of {} mm at {} mm",
                dims[axis], current[axis], new[axis]
            )));
        }
        shape[axis] = size as usize;
    }
    Ok(shape)
}

/// How a network is moved over its grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowRule {
    /// Three sizes, or two for a network that takes slices.
    pub patch_size: Vec<usize>,
    /// Step as a part of the patch; nnU-Net's 0.5.
    pub step: f64,
    /// Weights fall off towards the border.
    pub gaussian: bool,
    /// Axes of the patch along which mirrored passes are averaged; empty: none.
    pub mirror_axes: Vec<usize>,
}

impl WindowRule {
    /// The patch as `[z, y, x]`; a slice is one deep.
    ///
    /// # Errors
    /// [`RuleError::Mismatch`] for other ranks, empty sizes, a step outside 0 to 1 and foreign axes.
    pub fn patch(&self) -> Result<[usize; 3], RuleError> {
        let patch = match *self.patch_size.as_slice() {
            [z, y, x] => [z, y, x],
            [y, x] => [1, y, x],
            _ => {
                return Err(RuleError::Mismatch(format!(
                    "the patch has {} axes, expected 2 or 3",
                    self.patch_size.len()
                )));
            }
        };
        if patch.contains(&0) || !(self.step > 0.0 && self.step <= 1.0) {
            return Err(RuleError::Mismatch(format!(
                "a patch of {patch:?} with step {}",
                self.step
            )));
        }
        if self.mirror_axes.iter().any(|&a| a >= self.patch_size.len()) {
            return Err(RuleError::Mismatch(format!(
                "mirroring along {:?} of a patch with {} axes",
                self.mirror_axes,
                self.patch_size.len()
            )));
        }
        Ok(patch)
    }

    /// Whether the network takes slices.
    pub fn is_2d(&self) -> bool {
        self.patch_size.len() == 2
    }
}

/// How logits become labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LabelRule {
    /// The label is the index of the largest logit; so many logits, background first.
    Argmax {
        /// Logits per voxel. An ignore label has none.
        classes: usize,
    },
    /// Overlapping regions: in this order, each writes its label where its probability is above one half.
    Regions {
        /// `regions_class_order`, one label per logit.
        order: Vec<u8>,
    },
}

impl LabelRule {
    /// Logits per voxel.
    pub fn heads(&self) -> usize {
        match self {
            Self::Argmax { classes } => *classes,
            Self::Regions { order } => order.len(),
        }
    }
}
