//! A classifier on the images of a volume: probabilities, calls and doubts.

use std::sync::Arc;
use std::time::Instant;

use super::envelope::{modality_issue, view_issue};
use super::heads::Heads;
use super::native::{Native, Workspace};
use super::plan::RunPlan;
use super::tensor::Array;
use super::{
    Error, Executor, Settings, device_name, elsewhere, familiar, has_weights, resize_plane,
};
use crate::findings::{Assessment, Call, Finding, Provenance, ReviewState};
use crate::kernels::Rates;
use crate::model::{ClassActivation, Classification, ImagePreparation, VerifiedPackage};
use crate::task::Task;
use crate::volume::{Volume, auto_window};

/// Passes over an image before the network: windowed, compared with known ones, resized.
const PREPARE: f64 = 40.0;

/// What a result says whose network ran on another machine.
const UNEXPLAINED: &str =
    "none: where the evidence lies can only be shown where the network runs, it ran elsewhere";

/// A classifier ready to run.
#[derive(Clone, Debug)]
pub struct Classifier {
    package: Arc<VerifiedPackage>,
    network: Native,
}

/// A plane `[y][x]` of gray values, 0 (black) to 255 (white).
#[derive(Clone, Debug, PartialEq)]
pub struct GrayPlane {
    /// Rows and columns.
    pub dims: [usize; 2],
    /// Values.
    pub values: Vec<f32>,
}

impl GrayPlane {
    /// A slice as it is shown: by its first window (else one over its values), black and white in
    /// their places.
    ///
    /// # Panics
    /// When there is no such slice.
    pub fn of_slice(volume: &Volume, k: usize) -> Self {
        let [ni, nj, nk] = volume.geometry.dims();
        assert!(k < nk, "a slice of the volume");
        let window = volume
            .windows
            .first()
            .map_or_else(|| auto_window(volume), |w| w.window);
        let values = (k * ni * nj..(k + 1) * ni * nj)
            .map(|n| {
                let gray = window.gray(volume.value(n));
                let gray = if volume.inverted { 1.0 - gray } else { gray };
                (gray * 255.0).round()
            })
            .collect();
        Self {
            dims: [nj, ni],
            values,
        }
    }

    /// The classifier's part of the image at its size, still 0 to 255.
    fn prepared(&self, classification: &Classification) -> Vec<f32> {
        let [ny, nx] = self.dims;
        let size = &classification.size;
        let to = [size[size.len() - 2], size[size.len() - 1]];
        match classification.preparation {
            ImagePreparation::CenterSquare { .. } => {
                let edge = ny.min(nx);
                let (top, left) = ((ny - edge) / 2, (nx - edge) / 2);
                let square: Vec<f32> = (top..top + edge)
                    .flat_map(|y| &self.values[y * nx + left..y * nx + left + edge])
                    .copied()
                    .collect();
                resize_plane(&square, [edge; 2], to)
            }
            _ => resize_plane(&self.values, self.dims, to),
        }
    }
}

impl Classifier {
    /// Makes a package ready.
    ///
    /// # Errors
    /// [`Error::Input`] for a package that does not classify plane images, [`Error::Network`].
    pub fn new(package: VerifiedPackage) -> Result<Self, Error> {
        let refused = |reason: &str| Error::Input(reason.to_owned());
        let manifest = package.manifest();
        let classification = manifest
            .classification
            .as_ref()
            .ok_or_else(|| refused("the model gives no classes of images"))?;
        if matches!(classification.preparation, ImagePreparation::Monai { .. }) {
            return Err(refused(
                "images cannot be prepared by MONAI's transforms yet",
            ));
        }
        if classification.size.len() != 2 {
            return Err(refused(
                "the model classifies volumes, only plane images can be",
            ));
        }
        let graph = manifest.network.graph.clone();
        let graph = graph.ok_or_else(|| Error::Network("it has no graph".to_owned()))?;
        Ok(Self {
            network: Native::of_package(&package, Arc::new(graph), "", &classification.size)?,
            package: Arc::new(package),
        })
    }

    /// The package.
    pub fn package(&self) -> &VerifiedPackage {
        &self.package
    }

    /// How it classifies.
    pub fn classification(&self) -> &Classification {
        let classification = self.package.manifest().classification.as_ref();
        classification.expect("checked when it was made")
    }

    /// Peak memory of one image.
    ///
    /// # Errors
    /// As [`Native::bytes`].
    pub fn needed_bytes(&self) -> Result<u64, Error> {
        self.network.bytes(&self.classification().size)
    }

    /// The network's input for an image, `[1, 1, y, x]`.
    pub fn input(&self, plane: &GrayPlane) -> Array {
        let classification = self.classification();
        let range = match &classification.preparation {
            ImagePreparation::CenterSquare { range } | ImagePreparation::WholeImage { range } => {
                *range
            }
            ImagePreparation::Monai { .. } => unreachable!("refused when it was made"),
        };
        let [low, high] = range;
        let factor = (high - low) / 255.0;
        let mut values = plane.prepared(classification);
        for v in &mut values {
            *v = low + *v * factor;
        }
        Array::new(&[&[1, 1], classification.size.as_slice()].concat(), values)
    }

    /// Probability of each class (or score, without an activation).
    ///
    /// # Errors
    /// [`Error::Network`], `Cancelled`.
    pub fn probabilities(
        &self,
        plane: &GrayPlane,
        workspace: &mut Workspace,
        task: &Task,
    ) -> Result<Vec<f64>, Error> {
        self.probabilities_of(&self.input(plane), workspace, task)
    }

    /// The same for a prepared input.
    ///
    /// # Errors
    /// As [`Classifier::probabilities`].
    pub fn probabilities_of(
        &self,
        input: &Array,
        workspace: &mut Workspace,
        task: &Task,
    ) -> Result<Vec<f64>, Error> {
        let results = self.results_of(input, workspace, task)?;
        Ok(self.probabilities_from(&results))
    }

    /// The same for what the network gives.
    fn probabilities_from(&self, results: &[f32]) -> Vec<f64> {
        let classification = self.classification();
        let heads = heads_of(classification);
        match classification.activation {
            ClassActivation::Softmax => heads.probabilities(results),
            ClassActivation::Sigmoid => (heads.logits(results).into_iter())
                .map(|r| 1.0 / (1.0 + (-r).exp()))
                .collect(),
            ClassActivation::None => results.iter().copied().map(f64::from).collect(),
        }
    }

    /// The network's results for a prepared input, one for each class.
    pub(super) fn results_of(
        &self,
        input: &Array,
        workspace: &mut Workspace,
        task: &Task,
    ) -> Result<Vec<f32>, Error> {
        has_weights(self.package.manifest(), &Settings::default())?;
        let mut found = self.network.run(input, workspace, task)?;
        let results = std::mem::take(&mut found[0].values);
        let classification = self.classification();
        if results.len() != classification.classes.len() {
            let (got, want) = (results.len(), classification.classes.len());
            return Err(Error::Network(format!("{got} results for {want} classes")));
        }
        if results.iter().any(|r| !r.is_finite()) {
            return Err(Error::Network("a result is no number".to_owned()));
        }
        Ok(results)
    }

    /// What a run on all images of a volume would need and exchange; at most, since an image that the
    /// model is not for goes no further.
    ///
    /// # Errors
    /// [`Error::Network`]; [`Error::Input`] for an image that is more than one call may carry.
    pub fn plan(&self, volume: &Volume, settings: &Settings) -> Result<RunPlan, Error> {
        has_weights(self.package.manifest(), settings)?;
        let classification = self.classification();
        let (size, classes) = (&classification.size, classification.classes.len());
        let [ni, nj, images] = volume.geometry.dims();
        let rates = Rates::of_this_machine();
        let preparing = 4.0 * PREPARE * (ni * nj) as f64 * rates.byte_secs;
        let of_all = |one: f64| one * images as f64;
        let dims = [images, size[0], size[1]];
        Ok(match &settings.elsewhere {
            Some(other) => RunPlan {
                // Values and scores, twice each: as numbers and on their way.
                needed_bytes: 8 * (size.iter().product::<usize>() + classes) as u64,
                flops: of_all(self.network.flops(size)?),
                seconds: of_all(preparing),
                traffic: elsewhere::classes_traffic(images, size, classes, other.most_bytes())?,
                dims,
            },
            None => RunPlan {
                needed_bytes: self.needed_bytes()?,
                flops: of_all(self.network.flops(size)?),
                seconds: of_all(preparing + self.network.expected_secs(size, &rates)?),
                traffic: elsewhere::Traffic::default(),
                dims,
            },
        })
    }

    /// Probability of each class of a plane, its network here or elsewhere.
    fn looked_at(
        &self,
        plane: &GrayPlane,
        settings: &Settings,
        task: &Task,
    ) -> Result<Vec<f64>, Error> {
        let Some(other) = &settings.elsewhere else {
            return self.probabilities(plane, &mut Workspace::default(), task);
        };
        let classes = self.classification().classes.len();
        let scores = elsewhere::classes(other.as_ref(), &self.input(plane), classes, task)?;
        Ok(self.probabilities_from(&scores))
    }

    /// Assesses one image of a volume. Where its network runs elsewhere, all else is done here: an
    /// image that the model is not for never leaves.
    ///
    /// # Errors
    /// [`Error`]; an image that the model is not for gives an assessment that says so.
    pub fn assess(
        &self,
        volume: &Volume,
        k: usize,
        settings: &Settings,
        task: &Task,
    ) -> Result<Assessment, Error> {
        let start = Instant::now();
        let manifest = self.package.manifest();
        let classification = self.classification();
        let mut refused: Vec<String> = Vec::new();
        if volume.voxels.is_color() {
            refused.push("color images".to_owned());
        }
        let mut doubts = Vec::new();
        match modality_issue(manifest, volume) {
            Some((true, reason)) => refused.push(reason),
            Some((false, reason)) => doubts.push(reason),
            None => {}
        }
        match view_issue(&manifest.envelope, volume, k) {
            Some((true, reason)) => refused.push(reason),
            Some((false, reason)) => doubts.push(reason),
            None => {}
        }
        doubts.extend(age_doubt(classification, volume));
        let mut findings = Vec::new();
        if refused.is_empty() {
            let plane = GrayPlane::of_slice(volume, k);
            let strange = classification
                .template
                .as_ref()
                .and_then(|t| familiar::stranger(t, &plane.values, plane.dims));
            refused.extend(strange);
            if refused.is_empty() {
                let found = self.looked_at(&plane, settings, task)?;
                findings = findings_of(classification, &found);
            }
        }
        let mut issues = volume.issues.clone();
        issues.extend(
            (doubts.into_iter()).map(|reason| crate::study::Issue::OutsideEnvelope { reason }),
        );
        let source = &volume.source;
        let mut parameters = vec![
            ("size".to_owned(), format!("{:?}", classification.size)),
            (
                "temperature".to_owned(),
                format!("{:?}", classification.temperature),
            ),
        ];
        if let Some(temperature) = classification.kind_temperature {
            parameters.push((
                "temperature of the kinds".to_owned(),
                temperature.to_string(),
            ));
        }
        if settings.elsewhere.is_some() {
            parameters.push(("explanation".to_owned(), UNEXPLAINED.to_owned()));
        }
        Ok(Assessment {
            findings,
            explanations: Vec::new(),
            refused,
            source: source.clone(),
            image: k,
            provenance: Provenance {
                run: String::new(),
                model_id: manifest.id.clone(),
                model_name: manifest.name.clone(),
                model_version: manifest.version.clone(),
                model_sha256: manifest.weights_sha256.clone(),
                device: match &settings.elsewhere {
                    Some(other) => other.device(),
                    None => device_name(Executor::Native),
                },
                parameters,
                inputs: (source.image(k))
                    .map(|image| image.sop_instance_uid.to_string())
                    .into_iter()
                    .collect(),
                started: settings.started.clone(),
                elapsed_secs: vec![("classification".to_owned(), start.elapsed().as_secs_f64())],
                software_version: crate::VERSION.to_owned(),
            },
            issues,
        })
    }
}

/// A classification's temperatures.
pub(super) fn heads_of(classification: &Classification) -> Heads {
    Heads {
        finding: classification.temperature.unwrap_or(1.0),
        kinds: classification.kind_temperature,
    }
}

/// Probabilities as findings. Of classes that exclude each other the first means nothing found, and
/// all others together are a finding of their own where there are several.
pub fn findings_of(classification: &Classification, probabilities: &[f64]) -> Vec<Finding> {
    let softmax = classification.activation == ClassActivation::Softmax;
    let finding = |name: &str, class: &crate::model::Class, probability: f64| {
        let call = class.threshold.map(|threshold| match class.not_sure {
            Some([low, high]) if (low..high).contains(&probability) => Call::NotSure,
            _ if probability >= threshold => Call::Present,
            _ => Call::Absent,
        });
        Finding {
            name: name.to_owned(),
            concept: class.concept.clone(),
            probability,
            calibrated: classification.temperature.is_some(),
            threshold: class.threshold,
            operating_point: class.operating_point,
            call,
            review: ReviewState::NotReviewed,
            reviewed: None,
            edit: None,
        }
    };
    let named = || {
        let pairs = classification.classes.iter().zip(probabilities);
        pairs.filter(|(class, _)| !class.name.is_empty())
    };
    if !softmax {
        return named()
            .map(|(class, p)| finding(&class.name, class, *p))
            .collect();
    }
    let mut findings: Vec<Finding> = Vec::new();
    if classification.classes.len() > 2
        && let Some(any) = &classification.any
    {
        let all = 1.0 - probabilities[0];
        findings.push(finding(&any.name, any, all));
        // Their share of what was found: of no use where nothing was.
        for (class, p) in classification.classes.iter().zip(probabilities).skip(1) {
            findings.push(finding(&class.name, class, *p));
        }
        return findings;
    }
    findings.extend(
        named()
            .skip(1)
            .map(|(class, p)| finding(&class.name, class, *p)),
    );
    findings
}

/// Patient's Age (PS3.3 C.7.2.2) against the years that the model has seen.
fn age_doubt(classification: &Classification, volume: &Volume) -> Option<String> {
    let [low, high] = classification.ages_years?;
    let found = (volume.source.patient_study.iter()).find(|(keyword, _)| keyword == "PatientAge");
    let years = found.and_then(|(_, value)| years_of(value.expose()));
    let range = format!("the model has learned from patients of {low:.0} to {high:.0} years");
    match years {
        None => Some(format!("the image tells no age, {range}")),
        Some(years) if (low..=high).contains(&years) => None,
        // The age itself stays out of messages.
        Some(_) => Some(format!("the patient's age is outside of that: {range}")),
    }
}

/// An Age String (PS3.5 6.2), e.g. `018M`, in years.
fn years_of(text: &str) -> Option<f64> {
    let text = text.trim();
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: f64 = number.parse().ok()?;
    let per_year = match unit {
        "D" => 365.25,
        "W" => 365.25 / 7.0,
        "M" => 12.0,
        "Y" => 1.0,
        _ => return None,
    };
    Some(number / per_year)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read() {
        assert_eq!(years_of("018M"), Some(1.5));
        assert_eq!(years_of("045Y "), Some(45.0));
        assert_eq!(years_of("Y"), None);
        assert_eq!(years_of("12"), None);
        assert_eq!(years_of("١٢Y"), None);
    }
}
