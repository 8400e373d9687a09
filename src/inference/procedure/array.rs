//! Arrays in the order of the model's own reader: `[channel][z][y][x]`, x fastest.

use rayon::prelude::*;

use super::Error;

/// Samples of one or more channels on a grid; `data` is `[channel][z][y][x]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Channels.
    pub channels: usize,
    /// `[z, y, x]`.
    pub dims: [usize; 3],
    /// `channels * z * y * x` samples.
    pub data: Vec<f32>,
}

/// One label per voxel; `data` is `[z][y][x]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// `[z, y, x]`.
    pub dims: [usize; 3],
    /// Labels, 0 = background.
    pub data: Vec<u8>,
}

/// Voxels of a grid.
pub(super) fn volume(dims: [usize; 3]) -> usize {
    dims.iter().product()
}

impl Image {
    /// An image whose sizes agree.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when the number of samples is another, or a size is 0.
    pub fn new(channels: usize, dims: [usize; 3], data: Vec<f32>) -> Result<Self, Error> {
        let samples = dims
            .iter()
            .try_fold(channels, |product, &size| product.checked_mul(size));
        if samples != Some(data.len()) || data.is_empty() {
            return Err(Error::Mismatch(format!(
                "{} samples for {channels} channels of {dims:?} voxels",
                data.len()
            )));
        }
        Ok(Self {
            channels,
            dims,
            data,
        })
    }

    /// Voxels of one channel.
    pub fn voxels(&self) -> usize {
        volume(self.dims)
    }

    /// One channel's samples.
    pub fn channel(&self, channel: usize) -> &[f32] {
        let voxels = self.voxels();
        &self.data[channel * voxels..(channel + 1) * voxels]
    }
}

/// The grid with its axes in another order: axis `a` of the result is axis `order[a]` of the source
/// (numpy's `transpose`).
pub fn transpose<T: Copy + Send + Sync>(
    source: &[T],
    dims: [usize; 3],
    order: [usize; 3],
) -> (Vec<T>, [usize; 3]) {
    let strides = [dims[1] * dims[2], dims[2], 1];
    let to = order.map(|axis| dims[axis]);
    let by = order.map(|axis| strides[axis]);
    let mut out = Vec::with_capacity(source.len());
    (0..volume(to))
        .into_par_iter()
        .with_min_len(1 << 14)
        .map(|at| {
            let (z, y, x) = (at / (to[1] * to[2]), at / to[2] % to[1], at % to[2]);
            source[z * by[0] + y * by[1] + x * by[2]]
        })
        .collect_into_vec(&mut out);
    (out, to)
}
