//! Networks to train, as graphs with the tensors that they need.

mod blocks;
mod dense;
mod mesh;
mod residual;
mod unet;
mod vit;

pub use self::blocks::NormKind;
pub use self::dense::Dense;
pub use self::mesh::Mesh;
pub use self::residual::Residual;
pub use self::unet::Unet;
pub use self::vit::Vit;

use super::parameters::Needed;
use crate::model::graph::Graph;

/// Which network, with its settings.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Architecture {
    /// A compact residual network, for classes of images.
    ResidualCnn(Residual),
    /// DenseNet-121 (Huang et al. 2017), for classes of images.
    Densenet121(Dense),
    /// U-Net in two or three dimensions (Ronneberger et al. 2015), for segmentation.
    Unet(Unet),
    /// MeshNet (Fedorov et al. 2017): dilated convolutions, for segmentation with few weights.
    Meshnet(Mesh),
    /// A Vision Transformer (Dosovitskiy et al. 2021), for classes of images.
    Vit(Vit),
}

impl Architecture {
    /// The graph for images of `channels` and a size with `classes` results, and its tensors.
    ///
    /// # Errors
    /// In words, when the settings make no network.
    pub fn build_for(
        &self,
        channels: usize,
        size: &[usize],
        classes: usize,
    ) -> Result<(Graph, Vec<Needed>), String> {
        match self {
            Self::Vit(settings) => settings.build(channels, size, classes),
            _ => self.build(channels, size.len(), classes),
        }
    }

    /// The same for images of any size on `axes` spatial axes.
    ///
    /// # Errors
    /// In words, also for a network that is made for one size.
    pub fn build(
        &self,
        channels: usize,
        axes: usize,
        classes: usize,
    ) -> Result<(Graph, Vec<Needed>), String> {
        match self {
            Self::ResidualCnn(settings) => settings.build(channels, axes, classes),
            Self::Densenet121(_) => Ok(Dense::build(channels, axes, classes)),
            Self::Unet(settings) => settings.build(channels, axes, classes),
            Self::Meshnet(settings) => settings.build(channels, axes, classes),
            Self::Vit(_) => Err("a Vision Transformer is made for images of one size".to_owned()),
        }
    }

    /// Whether it gives values for whole images, not for voxels.
    pub const fn classifies(&self) -> bool {
        matches!(
            self,
            Self::ResidualCnn(_) | Self::Densenet121(_) | Self::Vit(_)
        )
    }

    /// Dropout before the last layer while training, 0 to below 1.
    pub const fn dropout(&self) -> f32 {
        match self {
            Self::ResidualCnn(s) => s.dropout,
            Self::Densenet121(s) => s.dropout,
            Self::Unet(s) => s.dropout,
            Self::Meshnet(s) => s.dropout,
            Self::Vit(s) => s.dropout,
        }
    }

    /// What sizes of an image must be multiples of, along each axis.
    pub fn multiple(&self) -> usize {
        match self {
            Self::Unet(settings) => 1 << settings.widths.len().saturating_sub(1),
            Self::Vit(settings) => settings.patch.max(1),
            _ => 1,
        }
    }
}

/// Refuses widths of no channels or too many.
fn check_widths(widths: &[usize]) -> Result<(), String> {
    if widths.is_empty() || widths.len() > 8 || widths.iter().any(|w| !(1..=2048).contains(w)) {
        return Err(format!("widths {widths:?}, expected 1 to 8 of 1 to 2048"));
    }
    Ok(())
}
