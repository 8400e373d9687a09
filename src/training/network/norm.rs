//! Norms: statistics of batches or groups, the running ones, and gradients from sums.

use rayon::prelude::*;

use super::plan::{Groups, Norm};
use super::{Planned, part, slice};
use crate::kernels::{
    GradientTerms, Instructions, Moments, Prologue, gradient_sums, input_gradient, moments,
};

/// Weight of the newest batch in running statistics (PyTorch's default).
const MOMENTUM: f64 = 0.1;

/// What a norm did in a forward pass.
#[derive(Debug)]
pub(super) struct Applied {
    /// Per image (one for all with batch norm) and channel.
    pub scale: Vec<Vec<f32>>,
    pub offset: Vec<Vec<f32>>,
    /// Per image and channel in f64: mean and 1 / √(variance + ε).
    statistics: Vec<Vec<[f64; 2]>>,
    /// Values that a mean is of.
    count: usize,
}

impl Applied {
    pub(super) fn prologue(&self, norm: &Norm, image: usize) -> Prologue<'_> {
        let n = image.min(self.scale.len() - 1);
        Prologue {
            scale: &self.scale[n],
            offset: &self.offset[n],
            activation: norm.activation,
        }
    }
}

fn affine(norm: &Norm, parameters: &[f32], channels: usize) -> (Vec<f64>, Vec<f64>) {
    let values = |range: Option<&std::ops::Range<usize>>, other: f64| match range {
        Some(range) => slice(parameters, range)
            .iter()
            .map(|x| f64::from(*x))
            .collect(),
        None => vec![other; channels],
    };
    (
        values(norm.scale.as_ref(), 1.0),
        values(norm.shift.as_ref(), 0.0),
    )
}

/// Statistics of a batch from each image's moments; running ones are renewed in `running`.
pub(super) fn in_training(
    norm: &Norm,
    parameters: &[f32],
    images: &[Moments],
    running: &mut Vec<(usize, f32)>,
) -> Applied {
    let channels = images[0].sums.len();
    let (count, groups): (usize, Vec<Vec<[f64; 2]>>) = match &norm.groups {
        Groups::Batch { .. } => {
            let mut total = vec![[0.0; 2]; channels];
            for image in images {
                for (total, sums) in total.iter_mut().zip(&image.sums) {
                    total[0] += sums[0];
                    total[1] += sums[1];
                }
            }
            (images.iter().map(|m| m.count).sum(), vec![total])
        }
        Groups::Channels(groups) => {
            let grouped: Vec<Moments> = images.iter().map(|m| m.grouped(*groups)).collect();
            let count = grouped[0].count;
            (count, grouped.into_iter().map(|m| m.sums).collect())
        }
    };
    let n = count as f64;
    let moments: Vec<Vec<[f64; 2]>> = groups
        .iter()
        .map(|sums| {
            let of = |[sum, squares]: &[f64; 2]| {
                let mean = sum / n;
                [mean, (squares / n - mean * mean).max(0.0)]
            };
            sums.iter().map(of).collect()
        })
        .collect();
    if let Groups::Batch { mean, variance } = &norm.groups {
        let unbiased = n / (n - 1.0).max(1.0);
        for (c, [m, v]) in moments[0].iter().enumerate() {
            for (at, new) in [(mean.start + c, *m), (variance.start + c, v * unbiased)] {
                let old = f64::from(parameters[at]);
                running.push((at, (old + MOMENTUM * (new - old)) as f32));
            }
        }
    }
    applied(norm, parameters, &moments, count)
}

/// With the running statistics, or for groups with the image's own.
pub(super) fn in_evaluation(norm: &Norm, parameters: &[f32], images: &[Moments]) -> Applied {
    match &norm.groups {
        Groups::Batch { mean, variance } => {
            let pairs = slice(parameters, mean)
                .iter()
                .zip(slice(parameters, variance));
            let moments = pairs.map(|(m, v)| [f64::from(*m), f64::from(*v)]).collect();
            applied(norm, parameters, &[moments], 1)
        }
        Groups::Channels(_) => in_training(norm, parameters, images, &mut Vec::new()),
    }
}

fn applied(norm: &Norm, parameters: &[f32], moments: &[Vec<[f64; 2]>], count: usize) -> Applied {
    let channels = moments[0].len();
    let (gamma, beta) = affine(norm, parameters, channels);
    let mut applied = Applied {
        scale: Vec::new(),
        offset: Vec::new(),
        statistics: Vec::new(),
        count,
    };
    for image in moments {
        let statistics: Vec<[f64; 2]> = image
            .iter()
            .map(|[mean, variance]| [*mean, 1.0 / (variance + f64::from(norm.epsilon)).sqrt()])
            .collect();
        let scale = statistics
            .iter()
            .zip(&gamma)
            .map(|([_, inverse], g)| inverse * g);
        let scale: Vec<f64> = scale.collect();
        let offset = statistics.iter().zip(&beta).zip(&scale);
        let offset = offset.map(|(([mean, _], b), scale)| (b - mean * scale) as f32);
        applied.offset.push(offset.collect());
        applied
            .scale
            .push(scale.iter().map(|s| *s as f32).collect());
        applied.statistics.push(statistics);
    }
    applied
}

/// Moments of each image of a batch.
pub(super) fn image_moments(
    planned: &Planned,
    data: &[f32],
    instructions: Instructions,
) -> Vec<Moments> {
    let images = data.par_chunks(planned.floats());
    images
        .map(|image| moments(planned.view(image), instructions))
        .collect()
}

/// Gradients by scale and shift go into `gradients`, that of the input into `to` when it is there.
pub(super) fn backward(
    norm: &Norm,
    applied: &Applied,
    planned: &Planned,
    parameters: &[f32],
    input: &[f32],
    gradient: &[f32],
    gradients: &mut [f32],
    to: Option<&mut [f32]>,
    instructions: Instructions,
) {
    let (floats, channels) = (planned.floats(), planned.channels);
    let images = input.len() / floats;
    let sums: Vec<Vec<[f64; 2]>> = (0..images)
        .into_par_iter()
        .map(|n| {
            gradient_sums(
                planned.view(part(input, n, floats)),
                planned.view(part(gradient, n, floats)),
                &applied.prologue(norm, n),
                instructions,
            )
        })
        .collect();
    let (gamma, _) = affine(norm, parameters, channels);
    let statistics = |n: usize| &applied.statistics[n.min(applied.statistics.len() - 1)];
    // By scale: Σ g′ · (x − mean) / deviation; by shift: Σ g′.
    let by_scale = |n: usize, c: usize| {
        let [mean, inverse] = statistics(n)[c];
        (sums[n][c][1] - mean * sums[n][c][0]) * inverse
    };
    for c in 0..channels {
        if let Some(range) = norm.scale.as_ref().filter(|_| norm.trained[0]) {
            gradients[range.start + c] += (0..images).map(|n| by_scale(n, c)).sum::<f64>() as f32;
        }
        if let Some(range) = norm.shift.as_ref().filter(|_| norm.trained[1]) {
            gradients[range.start + c] += (0..images).map(|n| sums[n][c][0]).sum::<f64>() as f32;
        }
    }
    let Some(to) = to else {
        return;
    };
    // Means over what shares its statistics of γ · g′ and of γ · g′ · x̂.
    let size = match norm.groups {
        Groups::Batch { .. } => 1,
        Groups::Channels(groups) => channels / groups,
    };
    let shared: Vec<Vec<[f64; 2]>> = (0..images)
        .map(|n| {
            let of = |c: usize| [gamma[c] * sums[n][c][0], gamma[c] * by_scale(n, c)];
            let group = |g: usize| {
                (g * size..(g + 1) * size)
                    .map(of)
                    .fold([0.0; 2], |t, s| [t[0] + s[0], t[1] + s[1]])
            };
            (0..channels / size).map(group).collect()
        })
        .collect();
    let total: Vec<Vec<[f64; 2]>> = match norm.groups {
        Groups::Batch { .. } => {
            let all = |c: usize| {
                (0..images).fold([0.0; 2], |t, n| {
                    [t[0] + shared[n][c][0], t[1] + shared[n][c][1]]
                })
            };
            vec![(0..channels).map(all).collect()]
        }
        Groups::Channels(_) => shared,
    };
    let count = applied.count as f64;
    let terms: Vec<GradientTerms> = total
        .iter()
        .enumerate()
        .map(|(n, total)| {
            let mut terms = GradientTerms {
                gradient: Vec::with_capacity(channels),
                value: Vec::with_capacity(channels),
                constant: Vec::with_capacity(channels),
            };
            for c in 0..channels {
                let [mean, inverse] = statistics(n)[c];
                let [ones, products] = total[c / size];
                let slope = inverse * inverse * products / count;
                terms.gradient.push((inverse * gamma[c]) as f32);
                terms.value.push(-slope as f32);
                terms
                    .constant
                    .push((slope * mean - inverse * ones / count) as f32);
            }
            terms
        })
        .collect();
    super::each_image(to, floats, |n, to| {
        input_gradient(
            planned.view(part(input, n, floats)),
            planned.view(part(gradient, n, floats)),
            &applied.prologue(norm, n),
            &terms[n.min(terms.len() - 1)],
            planned.view_mut(to),
            instructions,
        );
    });
}
