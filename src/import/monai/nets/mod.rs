//! MONAI's networks as graphs, from the arguments of their constructors.
//!
//! A file for each class, with the names of its state dict. What a class can do and these files
//! cannot is refused by the argument's name. Absent on purpose: what only training uses (dropout,
//! heads of deep supervision, variational branches).

mod basic_unet;
mod blocks;
mod build;
mod densenet;
mod dynunet;
mod layers;
mod segresnet;
mod swin;
mod swin_unetr;
mod unet;
mod unetr;

pub use build::{Built, Needed, tensors};
pub use densenet::{DenseNet, Names};
pub use layers::{Act, Norm};

use super::config::Component;

/// A network that was built, and what it takes and gives.
#[derive(Debug)]
pub struct Network {
    /// MONAI's class.
    pub class: String,
    /// The graph with the tensors that it needs.
    pub built: Built,
    /// Axes of the images.
    pub axes: usize,
    /// Channels of the input.
    pub inputs: usize,
    /// Channels of the output, or number of values of a classifier.
    pub outputs: usize,
    /// Values for the whole image, not for each voxel.
    pub classifier: bool,
    /// The only size that the network takes, if it has one.
    pub size: Option<Vec<usize>>,
    /// Sizes must be multiples of these.
    pub divisor: Vec<usize>,
}

/// Builds a network.
///
/// `example`: a size that the network will see, for those whose graph depends on it;
/// `version`: MONAI's, by which the model was made.
///
/// # Errors
/// A class or argument that is not known, by its name.
pub fn network(
    component: &Component<'_>,
    example: Option<&[usize]>,
    version: Option<(u32, u32)>,
) -> Result<Network, String> {
    let network = match component.name.as_str() {
        "UNet" | "Unet" => unet::network(component),
        "BasicUNet" | "BasicUnet" | "Basicunet" | "basicunet" => basic_unet::network(component),
        "DynUNet" | "DynUnet" | "Dynunet" => dynunet::network(component),
        "SegResNet" => segresnet::network(component),
        "SwinUNETR" => swin_unetr::network(component, example, version),
        "UNETR" => unetr::network(component),
        "DenseNet" | "Densenet" => densenet::network(component, &[6, 12, 24, 16], 64, 32),
        "DenseNet121" | "Densenet121" | "densenet121" => {
            densenet::network(component, &[6, 12, 24, 16], 64, 32)
        }
        "DenseNet169" | "Densenet169" | "densenet169" => {
            densenet::network(component, &[6, 12, 32, 32], 64, 32)
        }
        "DenseNet201" | "Densenet201" | "densenet201" => {
            densenet::network(component, &[6, 12, 48, 32], 64, 32)
        }
        "DenseNet264" | "Densenet264" | "densenet264" => {
            densenet::network(component, &[6, 12, 64, 48], 64, 32)
        }
        other => {
            return Err(format!(
                "{} asks for the network {}, which is not known (known: UNet, BasicUNet, DynUNet, SegResNet, SwinUNETR, UNETR, DenseNet)",
                component.key(),
                super::config::shown(other)
            ));
        }
    }?;
    component.finish()?;
    Ok(network)
}

/// `spatial_dims`, 2 or 3 (`dimensions` in older versions).
fn axes_of(component: &Component<'_>, default: Option<usize>) -> Result<usize, String> {
    let older = component.get("dimensions")?;
    let axes = match (component.get("spatial_dims")?, older, default) {
        (Some(node), ..) | (None, Some(node), _) => node.count()?,
        (None, None, Some(default)) => default,
        (None, None, None) => component.needed_count("spatial_dims")?,
    };
    if matches!(axes, 2 | 3) {
        Ok(axes)
    } else {
        Err(format!(
            "{}::spatial_dims is {axes}, expected 2 or 3",
            component.key()
        ))
    }
}

/// A number of channels that makes sense.
fn channels(
    component: &Component<'_>,
    name: &str,
    default: Option<usize>,
) -> Result<usize, String> {
    let value = match default {
        Some(default) => component.count(name, default)?,
        None => component.needed_count(name)?,
    };
    build::plausible(component, name, value)
}
