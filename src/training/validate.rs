//! A network in training on the validation samples.

use super::Error;
use super::batches::{in_range, piece, three};
use super::data::{Sample, Target};
use super::loss::Loss;
use super::metrics;
use super::network::{Mode, Network};
use super::recipe::Recipe;
use crate::task::Task;

/// Figures of a validation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Validation {
    /// Mean loss over samples.
    pub loss: f64,
    /// AUC (of several classes their mean), or the mean Dice of all labels.
    pub score: f64,
    /// For classes: the network's results by sample.
    pub results: Vec<Vec<f32>>,
    /// For masks: those of the samples that are shown, by their number.
    pub masks: Vec<(usize, Vec<u8>)>,
}

/// Measures tensors on samples.
///
/// # Errors
/// `Cancelled`.
pub fn validate(
    recipe: &Recipe,
    network: &Network,
    loss: &Loss,
    values: &[f32],
    samples: &[Sample],
    task: &Task,
) -> Result<Validation, Error> {
    let classes = recipe.results();
    let mut found = Validation::default();
    let (mut dices, mut count) = (Vec::new(), 0);
    let shown = super::examples::chosen(samples.len());
    let mut start = 0;
    while start < samples.len() {
        task.check()?;
        match &samples[start].target {
            Target::Class(_) => {
                let end = (start + recipe.training.batch).min(samples.len());
                let batch = &samples[start..end];
                let mut images = Vec::new();
                for sample in batch {
                    images.extend(in_range(&sample.image.floats(), recipe.data.range));
                }
                let targets: Vec<u8> = batch.iter().filter_map(Sample::class).collect();
                let results = network.forward(values, &images, Mode::Evaluation).results;
                let (value, _) = loss.of(&results, &targets, batch.len(), classes, false);
                found.loss += value * batch.len() as f64;
                count += batch.len();
                found
                    .results
                    .extend(results.chunks_exact(classes).map(<[f32]>::to_vec));
                start = end;
            }
            Target::Mask(truth) => {
                let sample = &samples[start];
                let results = whole(recipe, network, values, sample);
                let points = truth.len();
                let (value, _) = loss.of(&results, truth, 1, classes, false);
                let labels = labels_of(&results, points, classes);
                dices.extend((1..classes).filter_map(|l| metrics::dice(&labels, truth, l as u8)));
                found.loss += value;
                if shown.contains(&start) {
                    found.masks.push((start, labels));
                }
                count += 1;
                start += 1;
            }
        }
    }
    found.loss /= count as f64;
    found.score = if dices.is_empty() {
        mean_auc(&found.results, samples, classes)
    } else {
        dices.iter().sum::<f64>() / dices.len() as f64
    };
    Ok(found)
}

/// The results of a run's best tensors on samples.
///
/// # Errors
/// As [`validate`].
pub fn results(
    recipe: &Recipe,
    trained: &super::Trained,
    samples: &[Sample],
    task: &Task,
) -> Result<Vec<Vec<f32>>, Error> {
    let graph = std::sync::Arc::clone(&trained.graph);
    let network = Network::new(graph, &trained.parameters, &recipe.data.size, 0.0)?;
    let values = &trained.parameters.values;
    let found = validate(recipe, &network, &recipe.loss, values, samples, task)?;
    Ok(found.results)
}

/// AUC of the second of two classes, or the mean over classes against the rest.
fn mean_auc(results: &[Vec<f32>], samples: &[Sample], classes: usize) -> f64 {
    let of = |class: usize| {
        let pairs = results.iter().zip(samples).map(|(r, s)| {
            let score = metrics::softmax(r, 1.0)[class];
            (score, s.class() == Some(class as u8))
        });
        metrics::auc(&pairs.collect::<Vec<_>>())
    };
    if classes == 2 {
        return of(1).unwrap_or(f64::NAN);
    }
    let all: Vec<f64> = (0..classes).filter_map(of).collect();
    all.iter().sum::<f64>() / all.len() as f64
}

/// The largest result of each point; results are `[class][point]`.
pub(super) fn labels_of(results: &[f32], points: usize, classes: usize) -> Vec<u8> {
    (0..points)
        .map(|n| {
            let mut best = 0;
            for class in 1..classes {
                if results[class * points + n] > results[best * points + n] {
                    best = class;
                }
            }
            best as u8
        })
        .collect()
}

/// Results for a whole image, from pieces that overlap by half.
fn whole(recipe: &Recipe, network: &Network, values: &[f32], sample: &Sample) -> Vec<f32> {
    let (dims, size) = (sample.image.dims, three(&recipe.data.size));
    let image = sample.image.floats();
    let (points, classes) = (image.len(), recipe.results());
    let corners = [0, 1, 2].map(|axis| starts(dims[axis], size[axis]));
    let mut sums = vec![0.0; points * classes];
    let mut counts = vec![0.0_f32; points];
    let voxels: usize = size.iter().product();
    for z in &corners[0] {
        for y in &corners[1] {
            for x in &corners[2] {
                let corner = [*z, *y, *x];
                let input = piece(&image, dims, corner, size, 0.0);
                let results = network.forward(values, &input, Mode::Evaluation).results;
                let inside = |axis: usize, n: usize| {
                    let at = corner[axis] + n as i64;
                    (0..dims[axis] as i64).contains(&at).then_some(at as usize)
                };
                for n in 0..voxels {
                    let at = [n / (size[1] * size[2]), n / size[2] % size[1], n % size[2]];
                    let (Some(z), Some(y), Some(x)) =
                        (inside(0, at[0]), inside(1, at[1]), inside(2, at[2]))
                    else {
                        continue;
                    };
                    let to = (z * dims[1] + y) * dims[2] + x;
                    counts[to] += 1.0;
                    for class in 0..classes {
                        sums[class * points + to] += results[class * voxels + n];
                    }
                }
            }
        }
    }
    for class in sums.chunks_exact_mut(points) {
        class.iter_mut().zip(&counts).for_each(|(s, c)| *s /= c);
    }
    sums
}

/// Where pieces begin along an axis.
fn starts(n: usize, size: usize) -> Vec<i64> {
    if n <= size {
        return vec![(n as i64 - size as i64) / 2];
    }
    let count = (n - size).div_ceil(size.div_ceil(2)) + 1;
    let step = (n - size) as f64 / (count - 1) as f64;
    (0..count)
        .map(|i| (i as f64 * step).round() as i64)
        .collect()
}
