//! Why a classifier says what it says: maps of evidence over the image, each put to the test.
//!
//! A map is of the log-odds of a finding: ln(p / (1 − p)), which neither the other classes' sum nor
//! a number near 0 or 1 flattens.

mod cam;
mod faithful;
mod occlusion;
mod score;

use std::sync::Arc;

use super::classify::{Classifier, GrayPlane};
use super::tensor::{Array, Program};
use super::{Error, attention_rollout};
use crate::findings::{Explanation, ExplanationMethod};
use crate::model::ImagePreparation;
use crate::task::Task;
use crate::volume::Volume;
pub(super) use score::Scorer;

impl Classifier {
    /// Ways of explaining that fit its network, the best first; none without weights.
    pub fn explanation_methods(&self) -> Vec<ExplanationMethod> {
        if self.package().manifest().is_on_a_server() {
            return Vec::new();
        }
        let graph = self.package().manifest().network.graph.as_ref();
        let mut methods = Vec::new();
        if let Some(graph) = graph {
            if cam::head(graph).is_some() {
                methods.push(ExplanationMethod::GradCam);
            }
            if super::rollout::has_layers(graph) {
                methods.push(ExplanationMethod::AttentionRollout);
            }
        }
        methods.push(ExplanationMethod::Occlusion);
        methods
    }

    /// A map of the evidence for a finding in one image, and its test.
    ///
    /// # Errors
    /// [`Error::Network`] for a finding or a method that the model does not have, `Cancelled`.
    pub fn explain(
        &self,
        volume: &Volume,
        k: usize,
        finding: &str,
        method: ExplanationMethod,
        task: &Task,
    ) -> Result<Explanation, Error> {
        let plane = GrayPlane::of_slice(volume, k);
        let input = self.input(&plane);
        let scorer = Scorer::new(self, finding)?;
        task.begin(method.words(), 0);
        let (dims, values) = match method {
            ExplanationMethod::GradCam => cam::map(&self.program()?, &input, &scorer, task)?,
            ExplanationMethod::AttentionRollout => {
                let rollout = attention_rollout(&self.program()?, &input, task)?;
                let even = rollout.values.len() as f32;
                let values = rollout.values.into_iter().map(|v| v * even).collect();
                ([rollout.rows, rollout.columns], values)
            }
            ExplanationMethod::Occlusion => occlusion::map(&scorer, &input, task)?,
        };
        let faithfulness = faithful::test(&scorer, &input, dims, &values, task)?;
        Ok(Explanation {
            finding: finding.to_owned(),
            method,
            dims,
            values,
            region_px: self.region_px(&plane),
            faithfulness,
        })
    }

    /// Its network with all tensors, which a run has packed away.
    fn program(&self) -> Result<Program, Error> {
        Program::of_package(self.package(), &self.classification().size)
    }

    /// The part of an image that it sees: top, left, bottom, right.
    fn region_px(&self, plane: &GrayPlane) -> [f64; 4] {
        let [rows, columns] = plane.dims;
        match self.classification().preparation {
            ImagePreparation::CenterSquare { .. } => {
                let edge = rows.min(columns);
                let (top, left) = ((rows - edge) / 2, (columns - edge) / 2);
                [top, left, top + edge, left + edge].map(|n| n as f64)
            }
            _ => [0.0, 0.0, rows as f64, columns as f64],
        }
    }
}

/// The plane of an input `[1, 1, y, x]`.
fn plane_of(input: &Array) -> ([usize; 2], &[f32]) {
    let [.., rows, columns] = input.shape[..] else {
        unreachable!("an input has axes");
    };
    ([rows, columns], &input.values)
}

/// An input like another with other values.
fn like(input: &Array, values: Vec<f32>) -> Array {
    Array::new(&input.shape, values)
}

/// The image without its details: what stands for "not seen". A Gaussian of a tenth of the smaller
/// edge, edges repeated.
fn blurred(input: &Array) -> Arc<Vec<f32>> {
    let ([rows, columns], values) = plane_of(input);
    let sigma = rows.min(columns) as f64 / 10.0;
    let reach = (3.0 * sigma).ceil() as i64;
    let weights: Vec<f64> = (-reach..=reach)
        .map(|d| (-0.5 * (d as f64 / sigma).powi(2)).exp())
        .collect();
    let sum: f64 = weights.iter().sum();
    let along = |values: &[f32], n: usize, step: usize, others: usize, other_step: usize| {
        let mut out = vec![0.0_f32; values.len()];
        for other in 0..others {
            for at in 0..n {
                let mut total = 0.0;
                for (w, d) in weights.iter().zip(-reach..) {
                    let from = (at as i64 + d).clamp(0, n as i64 - 1) as usize;
                    total += w * f64::from(values[other * other_step + from * step]);
                }
                out[other * other_step + at * step] = (total / sum) as f32;
            }
        }
        out
    };
    let once = along(values, columns, 1, rows, columns);
    Arc::new(along(&once, rows, columns, columns, 1))
}
