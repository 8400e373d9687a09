//! MONAI's intensity transforms.

use rayon::prelude::*;

use super::Error;
use super::array::Image;
use super::normalize::{each, extent, sums};
use crate::model::monai::MonaiTransform;

/// Carries out an intensity transform; `false` for a spatial one.
pub(super) fn intensity(image: &mut Image, transform: &MonaiTransform) -> Result<bool, Error> {
    let voxels = image.voxels();
    let mut parts = |channel_wise: bool, change: &dyn Fn(&mut [f32]) -> Result<(), Error>| {
        let length = if channel_wise {
            voxels
        } else {
            image.data.len()
        };
        image.data.chunks_exact_mut(length).try_for_each(change)
    };
    match *transform {
        MonaiTransform::ScaleIntensity { to, channel_wise } => parts(channel_wise, &|samples| {
            let (low, high) = extent(samples);
            if low == high {
                let by = to.map_or(1.0, |to| to[0]);
                each(samples, |v| v * by);
                return Ok(());
            }
            let [from, span] = to.map_or([0.0, 1.0], |to| [to[0], to[1] - to[0]]);
            each(samples, |v| (v - low) / (high - low) * span + from);
            Ok(())
        })?,
        MonaiTransform::ScaleIntensityRange { from, to, clip } => {
            parts(false, &|samples| {
                range(samples, from, to, clip);
                Ok(())
            })?;
        }
        MonaiTransform::ScaleIntensityRangePercentiles {
            percentiles,
            to,
            clip,
            relative,
            channel_wise,
        } => {
            if relative && to.is_none() {
                return Err(Error::Mismatch("percentiles relative to no range".into()));
            }
            let aim = match to {
                Some([low, high]) if relative => {
                    Some(percentiles.map(|p| (high - low) * (p / 100.0) + low))
                }
                other => other,
            };
            parts(channel_wise, &|samples| {
                let from = percentiles.map(|p| percentile(samples, p));
                range(samples, from, aim, clip);
                Ok(())
            })?;
        }
        MonaiTransform::NormalizeIntensity {
            nonzero,
            channel_wise,
        } => parts(channel_wise, &|samples| {
            standardize(samples, nonzero);
            Ok(())
        })?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn range(samples: &mut [f32], from: [f64; 2], to: Option<[f64; 2]>, clip: bool) {
    let (low, span) = (from[0] as f32, (from[1] - from[0]) as f32);
    if from[0] == from[1] {
        let start = to.map_or(0.0, |to| to[0] as f32);
        each(samples, |v| v - low + start);
        return;
    }
    let [start, by] = to.map_or([0.0, 1.0], |to| [to[0] as f32, (to[1] - to[0]) as f32]);
    let bounds = match to {
        Some(to) if clip => to.map(|v| v as f32),
        _ => [f32::NEG_INFINITY, f32::INFINITY],
    };
    each(samples, |v| {
        ((v - low) / span * by + start)
            .max(bounds[0])
            .min(bounds[1])
    });
}

/// numpy's percentile, linear between neighbors.
fn percentile(samples: &[f32], percent: f64) -> f64 {
    let mut sorted = samples.to_vec();
    let at = (sorted.len() - 1) as f64 * percent.clamp(0.0, 100.0) / 100.0;
    let index = at.floor() as usize;
    let (_, &mut low, above) = sorted.select_nth_unstable_by(index, f32::total_cmp);
    let high = above.iter().copied().reduce(f32::min).unwrap_or(low);
    let part = at - at.floor();
    f64::from(low) + (f64::from(high) - f64::from(low)) * part
}

fn standardize(samples: &mut [f32], nonzero: bool) {
    let counts = |v: f32| !nonzero || v != 0.0;
    let (sum, count) = sums(samples, &|v| counts(v).then(|| f64::from(v)));
    if count == 0 {
        return;
    }
    let mean = sum / count as f64;
    let (squares, _) = sums(samples, &|v| {
        counts(v).then(|| (f64::from(v) - mean).powi(2))
    });
    let deviation = (squares / count as f64).sqrt() as f32;
    let by = if deviation == 0.0 { 1.0 } else { deviation };
    let mean = mean as f32;
    samples.par_iter_mut().with_min_len(1 << 14).for_each(|v| {
        if counts(*v) {
            *v = (*v - mean) / by;
        }
    });
}
