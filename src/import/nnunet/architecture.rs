//! A network as plans describe it, in the current form (`architecture`) and the older one
//! (`UNet_class_name`).
//!
//! # Source
//! dynamic-network-architectures 0.4 (`unet.py`), nnU-Net 2.8 (`plans_handler.py`).

use super::fields::{Fields, Read};

const MOST_STAGES: usize = 12;
const MOST_FEATURES: usize = 4096;
const MOST_BLOCKS: usize = 32;
const LARGEST_KERNEL: usize = 15;
const LARGEST_STRIDE: usize = 8;

/// A U-Net.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    /// Spatial axes, 2 or 3.
    pub axes: usize,
    /// What the way down is made of.
    pub encoder: Encoder,
    /// Channels per stage, from full resolution down.
    pub features: Vec<usize>,
    /// Per stage and axis, odd.
    pub kernels: Vec<Vec<usize>>,
    /// Per stage and axis; of the first stage usually 1.
    pub strides: Vec<Vec<usize>>,
    /// Convolutions or residual blocks per stage.
    pub blocks: Vec<usize>,
    /// Convolutions per stage of the way up, from the lowest resolution.
    pub decoder_convolutions: Vec<usize>,
    /// Whether convolutions have a bias.
    pub bias: bool,
    /// After each convolution.
    pub norm: Option<Norm>,
    /// Training dropped values here; prediction does not.
    pub dropout: bool,
    /// After each normalization.
    pub nonlinearity: Option<Nonlinearity>,
    /// Before the normalization instead.
    pub nonlinearity_first: bool,
}

/// What the way down is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoder {
    /// `PlainConvUNet`.
    Plain,
    /// `ResidualEncoderUNet` of `BasicBlockD`.
    Residual {
        /// Channels of the stem.
        stem: usize,
    },
}

/// A normalization.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Norm {
    /// `InstanceNorm`.
    Instance {
        /// Added to the variance.
        epsilon: f32,
        /// Scale and shift per channel.
        affine: bool,
    },
    /// `BatchNorm`, by stored mean and variance.
    Batch {
        /// Added to the variance.
        epsilon: f32,
        /// Scale and shift per channel.
        affine: bool,
    },
}

/// A nonlinearity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Nonlinearity {
    /// `LeakyReLU`.
    LeakyRelu {
        /// Below zero.
        slope: f32,
    },
    /// `ReLU`.
    Relu,
    /// `ELU`.
    Elu {
        /// Below zero.
        alpha: f32,
    },
    /// `GELU`, exact.
    Gelu,
    /// `SiLU`.
    Silu,
}

impl Architecture {
    pub(super) fn parse(configuration: &Fields, axes: usize) -> Read<Self> {
        if configuration.optional("architecture").is_some() {
            Self::current(&configuration.object("architecture")?, axes)
        } else if configuration.optional("UNet_class_name").is_some() {
            Self::older(configuration, axes)
        } else {
            Err(format!(
                "{} is missing, and UNet_class_name too",
                configuration.name("architecture")
            ))
        }
    }

    fn current(fields: &Fields, axes: usize) -> Read<Self> {
        let class = fields.text("network_class_name")?;
        let residual = match class.rsplit_once('.') {
            Some((module, "PlainConvUNet")) if is_known(module) => false,
            Some((module, "ResidualEncoderUNet")) if is_known(module) => true,
            _ => return fields.refuse("network_class_name"),
        };
        let arguments = fields.object("arch_kwargs")?;
        let blocks_name = if residual {
            "n_blocks_per_stage"
        } else {
            "n_conv_per_stage"
        };
        let also: &[&str] = if residual {
            &["block", "bottleneck_channels", "stem_channels"]
        } else {
            &["nonlin_first"]
        };
        arguments.only(
            &[
                &[
                    "n_stages",
                    "features_per_stage",
                    "conv_op",
                    "kernel_sizes",
                    "strides",
                    blocks_name,
                    "n_conv_per_stage_decoder",
                    "conv_bias",
                    "norm_op",
                    "norm_op_kwargs",
                    "dropout_op",
                    "dropout_op_kwargs",
                    "nonlin",
                    "nonlin_kwargs",
                    "deep_supervision",
                ],
                also,
            ]
            .concat(),
        )?;
        if torch_class(&arguments, "conv_op")? != Some(format!("Conv{axes}d")) {
            return arguments.refuse("conv_op");
        }
        if residual {
            if arguments.optional("block").is_some()
                && !arguments.text("block")?.ends_with(".BasicBlockD")
            {
                return arguments.refuse("block");
            }
            if arguments.optional("bottleneck_channels").is_some() {
                return arguments.refuse("bottleneck_channels");
            }
        }
        let stages = arguments.whole("n_stages", 2, MOST_STAGES)?;
        let features = arguments.wholes("features_per_stage", stages, 1, MOST_FEATURES)?;
        let encoder = if residual {
            let stem = match arguments.optional("stem_channels") {
                None => features[0],
                Some(_) => arguments.whole("stem_channels", 1, MOST_FEATURES)?,
            };
            Encoder::Residual { stem }
        } else {
            Encoder::Plain
        };
        Ok(Self {
            axes,
            encoder,
            features,
            kernels: odd(&arguments, "kernel_sizes", stages, axes)?,
            strides: arguments.per_axis("strides", stages, axes, LARGEST_STRIDE)?,
            blocks: arguments.wholes(blocks_name, stages, 1, MOST_BLOCKS)?,
            decoder_convolutions: arguments.wholes(
                "n_conv_per_stage_decoder",
                stages - 1,
                1,
                MOST_BLOCKS,
            )?,
            bias: arguments.flag("conv_bias", false)?,
            norm: norm(&arguments, axes)?,
            dropout: match torch_class(&arguments, "dropout_op")? {
                None => false,
                Some(class) if class.starts_with("Dropout") => true,
                Some(_) => return arguments.refuse("dropout_op"),
            },
            nonlinearity: nonlinearity(&arguments)?,
            nonlinearity_first: arguments.flag("nonlin_first", false)?,
        })
    }

    /// As nnU-Net itself reads older plans.
    fn older(fields: &Fields, axes: usize) -> Read<Self> {
        let residual = match fields.text("UNet_class_name")? {
            "PlainConvUNet" => false,
            "ResidualEncoderUNet" => true,
            _ => return fields.refuse("UNet_class_name"),
        };
        let stages = fields.list("n_conv_per_stage_encoder")?.len();
        if !(2..=MOST_STAGES).contains(&stages) {
            return fields.refuse("n_conv_per_stage_encoder");
        }
        let base = fields.whole("UNet_base_num_features", 1, MOST_FEATURES)?;
        let most = fields.whole("unet_max_num_features", 1, MOST_FEATURES)?;
        let features: Vec<usize> = (0..stages).map(|stage| (base << stage).min(most)).collect();
        Ok(Self {
            axes,
            encoder: if residual {
                Encoder::Residual { stem: features[0] }
            } else {
                Encoder::Plain
            },
            features,
            kernels: odd(fields, "conv_kernel_sizes", stages, axes)?,
            strides: fields.per_axis("pool_op_kernel_sizes", stages, axes, LARGEST_STRIDE)?,
            blocks: fields.wholes("n_conv_per_stage_encoder", stages, 1, MOST_BLOCKS)?,
            decoder_convolutions: fields.wholes(
                "n_conv_per_stage_decoder",
                stages - 1,
                1,
                MOST_BLOCKS,
            )?,
            bias: true,
            norm: Some(Norm::Instance {
                epsilon: 1e-5,
                affine: true,
            }),
            dropout: false,
            nonlinearity: Some(Nonlinearity::LeakyRelu { slope: 0.01 }),
            nonlinearity_first: false,
        })
    }
}

/// The module has moved within the package over time.
fn is_known(module: &str) -> bool {
    module.starts_with("dynamic_network_architectures.architectures.")
}

/// `Conv3d` of `torch.nn.modules.conv.Conv3d`.
fn torch_class(fields: &Fields, field: &str) -> Read<Option<String>> {
    if fields.optional(field).is_none() {
        return Ok(None);
    }
    match fields.text(field)?.rsplit_once('.') {
        Some((module, class))
            if module == "torch.nn" || module.starts_with("torch.nn.modules.") =>
        {
            Ok(Some(class.to_owned()))
        }
        _ => fields.refuse(field),
    }
}

fn odd(fields: &Fields, field: &str, stages: usize, axes: usize) -> Read<Vec<Vec<usize>>> {
    let kernels = fields.per_axis(field, stages, axes, LARGEST_KERNEL)?;
    if kernels.iter().flatten().any(|size| size % 2 == 0) {
        return fields.refuse(field);
    }
    Ok(kernels)
}

fn norm(fields: &Fields, axes: usize) -> Read<Option<Norm>> {
    let Some(class) = torch_class(fields, "norm_op")? else {
        return Ok(None);
    };
    let arguments = fields.object_or_empty("norm_op_kwargs")?;
    arguments.only(&["eps", "affine", "momentum", "track_running_stats"])?;
    let epsilon = arguments.number_or("eps", 1e-5)? as f32;
    if epsilon <= 0.0 {
        return arguments.refuse("eps");
    }
    if class == format!("InstanceNorm{axes}d") {
        if arguments.flag("track_running_stats", false)? {
            return arguments.refuse("track_running_stats");
        }
        Ok(Some(Norm::Instance {
            epsilon,
            affine: arguments.flag("affine", false)?,
        }))
    } else if class == format!("BatchNorm{axes}d") {
        if !arguments.flag("track_running_stats", true)? {
            return arguments.refuse("track_running_stats");
        }
        Ok(Some(Norm::Batch {
            epsilon,
            affine: arguments.flag("affine", true)?,
        }))
    } else {
        fields.refuse("norm_op")
    }
}

fn nonlinearity(fields: &Fields) -> Read<Option<Nonlinearity>> {
    let Some(class) = torch_class(fields, "nonlin")? else {
        return Ok(None);
    };
    let arguments = fields.object_or_empty("nonlin_kwargs")?;
    let (known, found): (&[&str], _) = match class.as_str() {
        "LeakyReLU" => {
            let slope = arguments.number_or("negative_slope", 0.01)? as f32;
            (
                &["negative_slope", "inplace"],
                Nonlinearity::LeakyRelu { slope },
            )
        }
        "ReLU" => (&["inplace"], Nonlinearity::Relu),
        "ELU" => {
            let alpha = arguments.number_or("alpha", 1.0)? as f32;
            (&["alpha", "inplace"], Nonlinearity::Elu { alpha })
        }
        "GELU" => (&[], Nonlinearity::Gelu),
        "SiLU" => (&["inplace"], Nonlinearity::Silu),
        _ => return fields.refuse("nonlin"),
    };
    arguments.only(known)?;
    Ok(Some(found))
}
