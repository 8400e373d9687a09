//! nnU-Net's normalization schemes, in f32 as it computes them.

use rayon::prelude::*;

use super::Error;
use super::array::Image;
use crate::model::procedure::{Channel, Scheme};

const SMALLEST_DEVIATION: f32 = 1e-8;
const CHUNK: usize = 1 << 16;

/// Normalizes every channel by its scheme. `mask` says what is nonzero; it is needed where a channel
/// uses it.
///
/// # Errors
/// [`Error::Mismatch`] for another number of channels, and values outside 0 to 255 in an RGB channel.
pub fn normalize(
    image: &mut Image,
    channels: &[Channel],
    mask: Option<&[bool]>,
) -> Result<(), Error> {
    if channels.len() != image.channels {
        return Err(Error::Mismatch(format!(
            "{} image channels for a model with {}",
            image.channels,
            channels.len()
        )));
    }
    let voxels = image.voxels();
    for (samples, channel) in image.data.chunks_exact_mut(voxels).zip(channels) {
        let mask = if channel.use_mask { mask } else { None };
        one_channel(samples, &channel.scheme, mask)?;
    }
    Ok(())
}

fn one_channel(samples: &mut [f32], scheme: &Scheme, mask: Option<&[bool]>) -> Result<(), Error> {
    match scheme {
        Scheme::None => {}
        Scheme::Ct(of) => {
            let (low, high) = (of.percentile_00_5 as f32, of.percentile_99_5 as f32);
            let (mean, by) = (
                of.mean as f32,
                of.std.max(f64::from(SMALLEST_DEVIATION)) as f32,
            );
            // min and max rather than clamp: foreign bounds may be crossed.
            each(samples, |v| (v.max(low).min(high) - mean) / by);
        }
        Scheme::ZScore => match mask {
            None => {
                let (mean, by) = moments(samples, None);
                each(samples, |v| (v - mean) / by);
            }
            Some(mask) => {
                let (mean, by) = moments(samples, Some(mask));
                samples
                    .par_iter_mut()
                    .with_min_len(CHUNK)
                    .zip(mask)
                    .filter(|(_, inside)| **inside)
                    .for_each(|(v, _)| *v = (*v - mean) / by);
            }
        },
        Scheme::RescaleTo01 => {
            let (low, high) = extent(samples);
            let by = (high - low).max(SMALLEST_DEVIATION);
            each(samples, |v| (v - low) / by);
        }
        Scheme::RgbTo01 => {
            let (low, high) = extent(samples);
            if !(low >= 0.0 && high <= 255.0) {
                return Err(Error::Mismatch(format!(
                    "values from {low} to {high} in a color channel, expected 0 to 255"
                )));
            }
            each(samples, |v| v / 255.0);
        }
    }
    Ok(())
}

pub(super) fn each(samples: &mut [f32], change: impl Fn(f32) -> f32 + Sync) {
    samples
        .par_chunks_mut(CHUNK)
        .for_each(|chunk| chunk.iter_mut().for_each(|v| *v = change(*v)));
}

/// Smallest and largest sample.
pub(super) fn extent(samples: &[f32]) -> (f32, f32) {
    samples
        .par_chunks(CHUNK)
        .map(|chunk| {
            chunk
                .iter()
                .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &v| {
                    (low.min(v), high.max(v))
                })
        })
        .reduce(
            || (f32::INFINITY, f32::NEG_INFINITY),
            |a, b| (a.0.min(b.0), a.1.max(b.1)),
        )
}

/// Adds up what `of` gives, and counts it.
///
/// Sums of chunks are added in order, so the number of threads changes nothing.
pub(super) fn sums(samples: &[f32], of: &(dyn Fn(f32) -> Option<f64> + Sync)) -> (f64, usize) {
    indexed_sums(samples, &|_, v| of(v))
}

fn indexed_sums(samples: &[f32], of: &(dyn Fn(usize, f32) -> Option<f64> + Sync)) -> (f64, usize) {
    let parts: Vec<(f64, usize)> = samples
        .par_chunks(CHUNK)
        .enumerate()
        .map(|(index, chunk)| {
            let values = chunk.iter().enumerate();
            values.fold((0.0, 0), |(sum, n), (at, &v)| {
                match of(index * CHUNK + at, v) {
                    Some(value) => (sum + value, n + 1),
                    None => (sum, n),
                }
            })
        })
        .collect();
    parts
        .iter()
        .fold((0.0, 0), |(sum, n), part| (sum + part.0, n + part.1))
}

/// Mean and deviation (not below [`SMALLEST_DEVIATION`]), inside the mask if there is one.
fn moments(samples: &[f32], mask: Option<&[bool]>) -> (f32, f32) {
    let inside = |at: usize| mask.is_none_or(|mask| mask[at]);
    let (total, count) = indexed_sums(samples, &|at, v| inside(at).then(|| f64::from(v)));
    let mean = total / count.max(1) as f64;
    let (squares, _) = indexed_sums(samples, &|at, v| {
        inside(at).then(|| (f64::from(v) - mean).powi(2))
    });
    let deviation = (squares / count.max(1) as f64).sqrt();
    (mean as f32, (deviation as f32).max(SMALLEST_DEVIATION))
}
