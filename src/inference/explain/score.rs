//! The number that is explained: the log-odds of one finding, and its gradient.

use rayon::prelude::*;

use crate::inference::Error;
use crate::inference::classify::{Classifier, heads_of};
use crate::inference::native::Workspace;
use crate::inference::tensor::Array;
use crate::model::ClassActivation;
use crate::task::Task;

/// Scores images for one finding.
pub struct Scorer<'a> {
    classifier: &'a Classifier,
    finding: Target,
}

/// Which of a network's results a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// All classes but the first, of classes that exclude each other.
    Any,
    /// One class.
    Class(usize),
}

impl<'a> Scorer<'a> {
    /// For a finding by its name.
    pub fn new(classifier: &'a Classifier, finding: &str) -> Result<Self, Error> {
        let classification = classifier.classification();
        let softmax = classification.activation == ClassActivation::Softmax;
        let several = softmax && classification.classes.len() > 2;
        let any = classification.any.as_ref().filter(|_| several);
        let target = if any.is_some_and(|any| any.name == finding) {
            Target::Any
        } else {
            let mut named = classification.classes.iter();
            let place = named.position(|c| !c.name.is_empty() && c.name == finding);
            Target::Class(place.ok_or_else(|| {
                Error::Network(format!(
                    "it has no finding {finding:?} that could be explained"
                ))
            })?)
        };
        Ok(Self {
            classifier,
            finding: target,
        })
    }

    /// Log-odds of many images: `make` gives the n-th.
    pub fn log_odds_of(
        &self,
        count: usize,
        make: &(dyn Fn(usize) -> Array + Sync),
        task: &Task,
    ) -> Result<Vec<f64>, Error> {
        (0..count)
            .into_par_iter()
            .map_init(Workspace::default, |workspace, n| {
                task.check()?;
                let results = self
                    .classifier
                    .results_of(&make(n), workspace, &Task::new())?;
                task.advance(1);
                Ok(self.log_odds(&results).0)
            })
            .collect()
    }

    /// The log-odds, and their derivatives by the network's results.
    pub fn log_odds(&self, results: &[f32]) -> (f64, Vec<f64>) {
        let classification = self.classifier.classification();
        let heads = heads_of(classification);
        let z = heads.logits(results);
        let mut gradient = vec![0.0; z.len()];
        let value = match (classification.activation, self.finding) {
            (ClassActivation::Softmax, Target::Any) => {
                let (sum, shares) = log_sum(&z, |c| c != 0);
                gradient = shares;
                gradient[0] = -1.0;
                sum - z[0]
            }
            (ClassActivation::Softmax, Target::Class(class)) => {
                let (sum, shares) = log_sum(&z, |c| c != class);
                for (g, share) in gradient.iter_mut().zip(shares) {
                    *g = -share;
                }
                gradient[class] = 1.0;
                z[class] - sum
            }
            (_, Target::Any) => unreachable!("only of classes that exclude each other"),
            (_, Target::Class(class)) => {
                gradient[class] = 1.0;
                z[class]
            }
        };
        (value, heads.gradient(results, &gradient))
    }
}

/// Log of the sum of exponentials of some values, and the shares of each in it.
fn log_sum(z: &[f64], of: impl Fn(usize) -> bool) -> (f64, Vec<f64>) {
    let chosen = |c: usize| of(c).then_some(z[c]);
    let most = (0..z.len())
        .filter_map(chosen)
        .fold(f64::NEG_INFINITY, f64::max);
    let mut shares: Vec<f64> = (0..z.len())
        .map(|c| chosen(c).map_or(0.0, |v| (v - most).exp()))
        .collect();
    let sum: f64 = shares.iter().sum();
    for share in &mut shares {
        *share /= sum;
    }
    (most + sum.ln(), shares)
}
