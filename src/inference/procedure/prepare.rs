//! From the reader's image to the network's input, and what is needed for the way back.

use super::array::{Image, Labels, transpose};
use super::crop::{Box3, crop_box, nonzero_mask};
use super::normalize::normalize;
use super::resample::{resample_image, resample_labels, resampling_voxels};
use super::stream_plan::MOST_VOXELS;
use super::{Error, array};
use crate::inference::resize_plane;
use crate::model::procedure::{Preprocessing, new_shape};
use crate::task::Task;

/// The network's input, and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// Transposed, cropped, normalized, resampled.
    pub image: Image,
    /// A cascade's further channels.
    pub one_hot: Option<OneHot>,
    /// The way back.
    pub grids: Grids,
}

/// Channels of 0 and 1, one per label: kept as labels, and spread only patch by patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneHot {
    /// On the network's grid.
    pub labels: Vec<u8>,
    /// The label of each channel.
    pub foreground: Vec<u8>,
}

/// The grids between the reader's image and the network's input; all but the first step transposed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grids {
    /// The reader's grid, transposed.
    pub before_crop: [usize; 3],
    /// The part of it that is kept.
    pub crop: Box3,
    /// The network's grid.
    pub network: [usize; 3],
    /// Spacing before resampling.
    pub original_spacing: [f64; 3],
    /// Spacing of the network's grid.
    pub spacing: [f64; 3],
}

impl Grids {
    /// Bytes of the network's input, as it is held during the run.
    pub fn image_bytes(&self, channels: usize) -> u64 {
        4 * (channels * array::volume(self.network)) as u64
    }

    /// Most bytes that [`prepare`] holds at once, the image that it takes included.
    pub fn prepare_bytes(&self, rule: &Preprocessing) -> u64 {
        let channels = rule.channels.len().max(1) as u64;
        let voxels = |dims: [usize; 3]| array::volume(dims) as u64;
        let (reader, old) = (voxels(self.before_crop), self.crop.size());
        let turned = rule.transpose_forward != [0, 1, 2];
        let taken = 4 * channels * reader * (1 + u64::from(turned));
        let masks = if uses_mask(rule) { 2 * voxels(old) } else { 0 };
        let cropped = 4 * channels * voxels(old);
        // Several channels wait while one is worked on, and the finished ones stay.
        let (mut resampled, mut waiting) = (0, 0);
        if old != self.network {
            let passes = resampling_voxels(old, self.network, self, rule);
            resampled = 4 * passes;
            if channels > 1 {
                waiting = cropped + self.image_bytes(rule.channels.len());
            }
        }
        taken.max(cropped + masks).max(waiting + resampled)
    }

    /// For planning before an image is prepared: `crop` on the transposed grid, `None` for all of it.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for spacings and orders that make no grid.
    pub fn new(
        dims: [usize; 3],
        spacing: [f64; 3],
        rule: &Preprocessing,
        crop: Option<Box3>,
    ) -> Result<Self, Error> {
        check_orders(rule.transpose_forward, rule.transpose_backward)?;
        let before_crop = rule.transpose_forward.map(|axis| dims[axis]);
        let original_spacing = rule.transpose_forward.map(|axis| spacing[axis]);
        let spacing = rule.spacing_for(original_spacing)?;
        let whole = Box3::whole(before_crop);
        let (crop, network, spacing) = if let Some([rows, columns]) = rule.whole_image {
            let to = [before_crop[0], rows, columns];
            let spacing = std::array::from_fn(|axis| {
                original_spacing[axis] * before_crop[axis] as f64 / to[axis].max(1) as f64
            });
            (whole, to, spacing)
        } else {
            let crop = crop.unwrap_or(whole);
            let network = new_shape(crop.size(), original_spacing, spacing)?;
            (crop, network, spacing)
        };
        if network.iter().map(|&size| size as f64).product::<f64>() > MOST_VOXELS as f64 {
            return Err(Error::Mismatch(format!(
                "a grid of {network:?} voxels for {:?} of {original_spacing:?} mm",
                crop.size()
            )));
        }
        Ok(Self {
            before_crop,
            crop,
            network,
            original_spacing,
            spacing,
        })
    }
}

/// The labels of a cascade's previous stage, on the reader's grid.
#[derive(Clone, Copy, Debug)]
pub struct PreviousStage<'a> {
    /// What it found.
    pub labels: &'a Labels,
    /// `foreground_labels` of this stage, one channel each.
    pub foreground: &'a [u8],
}

/// Transposes, crops, normalizes and resamples (`DefaultPreprocessor.run_case_npy`).
///
/// `spacing` belongs to the reader's grid, `[z, y, x]`.
///
/// # Errors
/// [`Error::Mismatch`], [`Error::Unsupported`] and [`Error::Cancelled`].
pub fn prepare(
    image: Image,
    spacing: [f64; 3],
    rule: &Preprocessing,
    previous: Option<PreviousStage<'_>>,
    task: &Task,
) -> Result<Prepared, Error> {
    let order = rule.transpose_forward;
    check_orders(order, rule.transpose_backward)?;
    let previous = match previous {
        Some(p) if p.labels.dims != image.dims => {
            return Err(Error::Mismatch(format!(
                "labels of {:?} voxels for an image of {:?}",
                p.labels.dims, image.dims
            )));
        }
        other => other,
    };

    let reader_dims = image.dims;
    let image = transposed(image, order);
    let crop = match rule.whole_image {
        Some(_) => Box3::whole(image.dims),
        None => crop_box(&image),
    };
    let grids = Grids::new(reader_dims, spacing, rule, Some(crop))?;
    let mut image = cropped(image, crop);
    if rule.whole_image.is_some() {
        image = whole_planes(&image, grids.network);
    }
    task.check()?;
    let mask = (uses_mask(rule) || previous.is_some()).then(|| nonzero_mask(&image));

    let labels = previous.map(|p| {
        let (labels, dims) = transpose(&p.labels.data, reader_dims, order);
        let labels = cut(&labels, dims, crop);
        labels
            .iter()
            .zip(mask.iter().flatten())
            .map(|(&label, &inside)| match label {
                0 if !inside => -1,
                label => i16::from(label),
            })
            .collect::<Vec<_>>()
    });

    normalize(&mut image, &rule.channels, mask.as_deref())?;
    drop(mask);
    let old = image.dims;
    let to = grids.network;
    let image = resample_image(
        image,
        to,
        grids.original_spacing,
        grids.spacing,
        &rule.resample_image,
        task,
    )?;
    let one_hot = match (labels, previous) {
        (Some(labels), Some(previous)) => {
            let labels = resample_labels(
                &labels,
                old,
                to,
                grids.original_spacing,
                grids.spacing,
                &rule.resample_labels,
            )?;
            Some(OneHot {
                // -1 has no channel, and neither has 0.
                labels: labels.iter().map(|&label| label.max(0) as u8).collect(),
                foreground: previous.foreground.to_vec(),
            })
        }
        _ => None,
    };
    Ok(Prepared {
        image,
        one_hot,
        grids,
    })
}

/// Every plane at another size, smoothed where it gets smaller.
fn whole_planes(image: &Image, to: [usize; 3]) -> Image {
    let [_, rows, columns] = image.dims;
    let planes = image.data.chunks_exact((rows * columns).max(1));
    Image {
        channels: image.channels,
        dims: to,
        data: planes
            .flat_map(|plane| resize_plane(plane, [rows, columns], [to[1], to[2]]))
            .collect(),
    }
}

fn uses_mask(rule: &Preprocessing) -> bool {
    let mut channels = rule.channels.iter();
    channels.any(|c| c.use_mask && c.scheme == super::Scheme::ZScore)
}

fn check_orders(forward: [usize; 3], backward: [usize; 3]) -> Result<(), Error> {
    let fits = (0..3).all(|axis| forward.get(backward[axis]) == Some(&axis))
        && (0..3).all(|axis| backward.get(forward[axis]) == Some(&axis));
    if fits {
        Ok(())
    } else {
        Err(Error::Mismatch(format!(
            "axis orders {forward:?} and {backward:?} do not undo each other"
        )))
    }
}

fn transposed(image: Image, order: [usize; 3]) -> Image {
    if order == [0, 1, 2] {
        return image;
    }
    let mut data = Vec::with_capacity(image.data.len());
    let mut dims = image.dims;
    for channel in 0..image.channels {
        let (one, to) = transpose(image.channel(channel), image.dims, order);
        data.extend(one);
        dims = to;
    }
    Image {
        channels: image.channels,
        dims,
        data,
    }
}

fn cropped(mut image: Image, crop: Box3) -> Image {
    if crop == Box3::whole(image.dims) {
        return image;
    }
    // Rows only move towards the front: in place, so that no second image is needed.
    let [depth, rows, columns] = image.dims;
    let mut to = 0;
    for channel in 0..image.channels {
        for z in crop.start[0]..crop.end[0] {
            for y in crop.start[1]..crop.end[1] {
                let row = ((channel * depth + z) * rows + y) * columns;
                let (start, end) = (row + crop.start[2], row + crop.end[2]);
                image.data.copy_within(start..end, to);
                to += end - start;
            }
        }
    }
    image.data.truncate(to);
    image.data.shrink_to_fit();
    image.dims = crop.size();
    image
}

fn cut(labels: &[u8], dims: [usize; 3], crop: Box3) -> Vec<u8> {
    let mut out = Vec::with_capacity(array::volume(crop.size()));
    for z in crop.start[0]..crop.end[0] {
        for y in crop.start[1]..crop.end[1] {
            let row = (z * dims[1] + y) * dims[2];
            out.extend_from_slice(&labels[row + crop.start[2]..row + crop.end[2]]);
        }
    }
    out
}
