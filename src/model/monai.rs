//! What a MONAI bundle says about the work around its network; importers fill these.
//!
//! Names and defaults are those of MONAI's classes. Arrays have the axes of its reader: `[channel][i][j][k]`.

use serde::{Deserialize, Serialize};

/// Everything around one network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MonaiProcedure {
    /// In order; those that only load or rearrange files (`EnsureChannelFirst`, `EnsureType`) are left out.
    pub transforms: Vec<MonaiTransform>,
    /// Channels of the network's input.
    pub input_channels: usize,
    /// A size that the network takes, along its own axes: two for one that takes slices.
    pub example: Vec<usize>,
    /// A network of slices goes through volumes slice by slice (`SliceInferer`); else it takes single
    /// images.
    #[serde(default)]
    pub slices: bool,
    /// `SlidingWindowInferer`; for `SimpleInferer` a region of zeros.
    pub windows: MonaiWindows,
    /// What the output means, and how it comes back.
    pub output: MonaiOutput,
}

/// `SlidingWindowInferer`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MonaiWindows {
    /// `roi_size`; 0 stands for the whole axis.
    pub roi_size: [usize; 3],
    /// Part of a window that the next one covers again.
    pub overlap: [f64; 3],
    /// `sigma_scale` where `mode` is gaussian; none: all voxels weigh the same.
    pub gaussian: Option<f64>,
    /// What lies beyond an image that is smaller than the region.
    pub padding: Padding,
}

/// `padding_mode`, with `cval`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Padding {
    /// One value.
    Constant(f32),
    /// Mirrored at the border voxels.
    Reflect,
    /// The border voxel.
    Replicate,
    /// From the other end.
    Circular,
}

impl MonaiProcedure {
    /// Values that the network gives for each voxel.
    pub fn heads(&self) -> usize {
        match &self.output.decision {
            MonaiDecision::Argmax { classes } => *classes,
            MonaiDecision::Threshold { order, .. } => order.len(),
        }
    }

    /// One more than the highest label.
    pub fn classes(&self) -> usize {
        match &self.output.decision {
            MonaiDecision::Argmax { classes } => *classes,
            MonaiDecision::Threshold { order, .. } => {
                1 + order.iter().copied().max().map_or(0, usize::from)
            }
        }
    }

    /// Whether the network takes slices.
    pub fn is_2d(&self) -> bool {
        self.example.len() == 2
    }
}

/// From the network's output to labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MonaiOutput {
    /// `Activations`, before the output goes back to the image's grid.
    pub activation: Activation,
    /// `AsDiscrete`.
    pub decision: MonaiDecision,
    /// `Invertd` interpolates linearly (on values, before `AsDiscrete`), or takes the nearest voxel.
    pub linear: bool,
    /// `KeepLargestConnectedComponent`, at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_largest: Option<KeepLargest>,
}

/// `KeepLargestConnectedComponent` with diagonal neighbors and one component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepLargest {
    /// `applied_labels`; all when empty.
    pub labels: Vec<u8>,
    /// Each label on its own, else their union.
    pub independent: bool,
}

/// `Activations`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// Values as they are.
    #[default]
    None,
    /// Over the channels.
    Softmax,
    /// Each channel on its own.
    Sigmoid,
}

/// `AsDiscrete`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MonaiDecision {
    /// The channel with the largest value, background first.
    Argmax {
        /// Channels.
        classes: usize,
    },
    /// In this order, each channel writes its label where it reaches the threshold.
    Threshold {
        /// One label per channel.
        order: Vec<u8>,
        /// `threshold`.
        threshold: f32,
    },
}

/// MONAI's transforms, as far as they are known here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MonaiTransform {
    /// `Orientation`: for each axis, the end that it runs to ("RAS").
    Orientation {
        /// `axcodes`.
        axcodes: [char; 3],
    },
    /// `Spacing` (`scale_extent`, `diagonal` and the limits of `pixdim` are not known).
    Spacing {
        /// `pixdim` in mm; 0 or less keeps an axis.
        pixdim: [f64; 3],
        /// `mode`: bilinear, else nearest.
        linear: bool,
    },
    /// `Resize` to a size; 0 keeps an axis.
    Resize {
        /// `spatial_size`.
        spatial_size: [usize; 3],
        /// `mode`: linear, else nearest.
        linear: bool,
        /// `align_corners`.
        align_corners: bool,
    },
    /// `CropForeground` with `select_fn` at its default: values above 0.
    CropForeground {
        /// Voxels kept around.
        margin: [usize; 3],
        /// Sizes become multiples of these.
        k_divisible: [usize; 3],
        /// The box stays inside the image.
        allow_smaller: bool,
    },
    /// `SpatialPad` with a constant.
    SpatialPad {
        /// Least sizes.
        spatial_size: [usize; 3],
        /// At the end only, else on both sides.
        end: bool,
        /// `value`.
        value: f32,
    },
    /// `DivisiblePad` with zeros, on both sides.
    DivisiblePad {
        /// Sizes become multiples of these.
        k: [usize; 3],
    },
    /// `ScaleIntensity` to `minv` and `maxv`.
    ScaleIntensity {
        /// Both or none.
        to: Option<[f32; 2]>,
        /// Each channel on its own.
        channel_wise: bool,
    },
    /// `ScaleIntensityRange`.
    ScaleIntensityRange {
        /// `a_min` and `a_max`.
        from: [f64; 2],
        /// `b_min` and `b_max`.
        to: Option<[f64; 2]>,
        /// `clip`.
        clip: bool,
    },
    /// `ScaleIntensityRangePercentiles`.
    ScaleIntensityRangePercentiles {
        /// `lower` and `upper`, 0 to 100.
        percentiles: [f64; 2],
        /// `b_min` and `b_max`.
        to: Option<[f64; 2]>,
        /// `clip`.
        clip: bool,
        /// `relative`.
        relative: bool,
        /// Each channel on its own.
        channel_wise: bool,
    },
    /// `NormalizeIntensity` by mean and deviation.
    NormalizeIntensity {
        /// Of the voxels that are not 0; the others stay.
        nonzero: bool,
        /// Each channel on its own.
        channel_wise: bool,
    },
}
