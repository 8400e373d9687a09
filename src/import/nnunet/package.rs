//! A trained configuration as a package of the project's own form.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Reader, Trained};
use crate::import::{Error, snomed, weights};
use crate::model::{
    Conform, Envelope, Input, Label, MANIFEST_SHAPE, Manifest, Network, Normalization, Output,
    OutputKind, PackageFiles, Stage, Values, VerifiedPackage, sha256_hex,
};
use crate::study::CodedConcept;

/// Stages of a cascade; nnU-Net's own have two.
const MOST_STAGES: usize = 4;

/// Reads a result folder into a package with all its folds; for a cascade, with the stages before
/// it from the folders beside it.
///
/// `orientation`: how scans were stored for training (such as `LPS`), where a person knows it and
/// the folder does not say it.
///
/// # Errors
/// [`Error`], naming what is not understood, or the folder of a stage that is missing.
pub fn package(folder: &Path, orientation: Option<&str>) -> Result<VerifiedPackage, Error> {
    let trained = super::open(folder)?;
    let refuse = |what: &str| Error::NotUnderstood {
        what: what.to_owned(),
        path: folder.join("plans.json"),
    };
    let earlier = stages_before(folder, &trained)?;
    let procedure = trained.procedure(folder)?;
    let saved = all_folds(&earlier, &trained)?;
    let dataset = trained.plans.dataset_name.replace('_', " ");
    let configuration = &trained.configuration.name;
    let stated = orientation.map(str::to_uppercase);
    let orientation = match (trained.plans.reader, &stated) {
        (Reader::NibabelReoriented, Some(other)) if other != "RAS" => {
            return Err(refuse(&format!(
                "image_reader_writer turned every scan to RAS for training: the orientation {other}"
            )));
        }
        (Reader::NibabelReoriented, _) => Some("RAS".to_owned()),
        (Reader::SimpleItk | Reader::Nibabel, stated) => stated.clone(),
    };
    let mut limits = vec![
        "The folder states no intended use, no license and no accuracy: ask those who trained it."
            .to_owned(),
    ];
    if let Some(stated) = &stated {
        limits.push(format!(
            "Whoever imported the model stated that training took scans stored as {stated}; scans are turned to that. The folder itself does not say it."
        ));
    }
    if orientation.is_none() {
        limits.push(
            "Training took scans in the order in which they were stored and the folder does not say which that was: a scan stored otherwise (a DICOM series where training used converted files) reaches the network mirrored. Compare the result with the images."
                .to_owned(),
        );
    }
    if !trained.trainer_is_known() {
        limits.push(format!(
            "{} is not one of nnU-Net's own trainers: it may have changed the network or the preparation in ways that its files do not tell. Compare with its own predictions.",
            trained.trainer
        ));
    }
    let manifest = Manifest {
        shape: MANIFEST_SHAPE.to_owned(),
        id: word(&format!(
            "nnunet-{}-{configuration}",
            trained.plans.dataset_name
        )),
        version: "1.0.0".to_owned(),
        name: format!("{dataset}, nnU-Net {configuration}"),
        license: "license not stated".to_owned(),
        intended_use: "Not stated by the model's folder. Research only.".to_owned(),
        limits,
        training_data: format!("{dataset}, by {}; not described further.", trained.trainer),
        modality: modality(&trained.dataset.channels).to_owned(),
        envelope: envelope(&trained),
        input: Input {
            conform: Conform::Stored { orientation },
            normalization: Normalization::None,
            crop: None,
            channels: match trained.dataset.channels.as_slice() {
                [_] => Vec::new(),
                several => several.to_vec(),
            },
        },
        network: Network {
            folds: prefixes("", &trained),
            ..network(&trained)
        },
        output: Output {
            kind: OutputKind::Segmentation,
            largest_component: false,
        },
        procedure: Some(procedure),
        monai: None,
        classification: None,
        earlier: earlier
            .iter()
            .map(|(stage, folder)| {
                Ok(Stage {
                    name: stage.configuration.name.clone(),
                    network: Network {
                        folds: prefixes(&stage.configuration.name, stage),
                        ..network(stage)
                    },
                    procedure: stage.procedure(folder)?,
                })
            })
            .collect::<Result<_, Error>>()?,
        labels: labels(&trained),
        weights_sha256: sha256_hex(&saved),
        origin: BTreeMap::from([
            ("format".to_owned(), "nnU-Net v2 result folder".to_owned()),
            ("dataset".to_owned(), trained.plans.dataset_name.clone()),
            ("plans".to_owned(), trained.plans.plans_name.clone()),
            ("configuration".to_owned(), configuration.clone()),
            ("trainer".to_owned(), trained.trainer.clone()),
        ])
        .into_iter()
        .chain(stated.map(|letters| {
            let words = format!("{letters}, stated at import");
            ("orientation".to_owned(), words)
        }))
        .collect(),
    };
    let manifest =
        serde_json::to_vec_pretty(&manifest).map_err(|e| refuse(&format!("the manifest ({e})")))?;
    Ok(VerifiedPackage::verify(PackageFiles {
        manifest,
        weights: saved,
        card: None,
        signature: None,
        path: folder.to_owned(),
    })?)
}

/// The stages that a cascade takes labels from, first to last, with their folders.
fn stages_before(folder: &Path, trained: &Trained) -> Result<Vec<(Trained, PathBuf)>, Error> {
    let mut stages: Vec<(Trained, PathBuf)> = Vec::new();
    let mut wanted = trained.configuration.previous_stage.clone();
    while let Some(name) = wanted.take() {
        let beside = beside(folder, trained, &name);
        let refuse = |what: String| Error::NotUnderstood {
            what,
            path: beside.clone(),
        };
        if stages.len() == MOST_STAGES {
            return Err(refuse(format!(
                "a cascade of more than {MOST_STAGES} stages"
            )));
        }
        if !super::is_result_folder(&beside) {
            return Err(refuse(format!(
                "{} takes the labels of {name}, whose result folder is missing (expected beside this one): a cascade without it",
                trained.configuration.name
            )));
        }
        let stage = super::open(&beside)?;
        let same = stage.dataset == trained.dataset
            && stage.configuration.name == name
            && stage.plans.reader == trained.plans.reader;
        if !same {
            return Err(refuse(format!(
                "another configuration ({}), reader, or other channels and labels than {} has: this stage",
                stage.configuration.name, trained.configuration.name
            )));
        }
        wanted.clone_from(&stage.configuration.previous_stage);
        stages.insert(0, (stage, beside));
    }
    Ok(stages)
}

/// Where nnU-Net keeps another configuration of the same training: `TRAINER__PLANS__CONFIGURATION`.
fn beside(folder: &Path, trained: &Trained, configuration: &str) -> PathBuf {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let own = folder
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let name = match own.rsplit_once("__") {
        Some((start, end)) if end == trained.configuration.name => {
            format!("{start}__{configuration}")
        }
        _ => format!(
            "{}__{}__{configuration}",
            trained.trainer, trained.plans.plans_name
        ),
    };
    folder.with_file_name(name)
}

/// What stands before the names of each fold's tensors; `stage` is empty for the last one.
fn prefixes(stage: &str, trained: &Trained) -> Vec<String> {
    let start = match stage {
        "" => String::new(),
        stage => format!("{stage}/"),
    };
    let folds = trained.folds.iter();
    folds.map(|f| format!("{start}{}/", f.name)).collect()
}

fn network(trained: &Trained) -> Network {
    Network {
        layers: Vec::new(),
        graph: Some(trained.graph.clone()),
        folds: Vec::new(),
    }
}

/// The tensors of all stages and folds in one file, each with its stage's and fold's name before it.
fn all_folds(earlier: &[(Trained, PathBuf)], last: &Trained) -> Result<Vec<u8>, Error> {
    let mut names = Vec::new();
    let mut places = Vec::new();
    let named = earlier
        .iter()
        .map(|(t, _)| (t.configuration.name.as_str(), t));
    for (stage, trained) in named.chain([("", last)]) {
        for (weights, prefix) in trained.folds.iter().zip(prefixes(stage, trained)) {
            for (n, (name, tensor)) in weights.tensors().iter().enumerate() {
                names.push((format!("{prefix}{name}"), tensor.shape().to_vec()));
                places.push((weights, n));
            }
        }
    }
    let tensors: Vec<(&str, &[usize])> = names
        .iter()
        .map(|(name, shape)| (name.as_str(), shape.as_slice()))
        .collect();
    let read = |n: usize| {
        let (fold, at) = places[n];
        fold.read(at)
    };
    Ok(weights::safetensors(&tensors, read)?)
}

/// The training scans' usual extent and, on a scale that means something, their values.
fn envelope(trained: &Trained) -> Envelope {
    let plans = &trained.plans;
    let values = match plans.intensities(0) {
        Ok(found) if modality(&trained.dataset.channels) == "CT" => Some(Values {
            low: found.percentile_00_5,
            high: found.percentile_99_5,
            unit: "HU".to_owned(),
        }),
        _ => None,
    };
    Envelope {
        body_parts: Vec::new(),
        views: Vec::new(),
        extent_mm: plans.median_extent_mm().map(Envelope::around_extent_mm),
        values,
        template: None,
    }
}

/// DICOM's word for what a data set's channel is called; empty when it cannot be told.
fn modality(channels: &[String]) -> &'static str {
    let name = channels
        .first()
        .map(|c| c.to_lowercase())
        .unwrap_or_default();
    let has = |words: &[&str]| words.iter().any(|w| name.contains(w));
    if name == "ct" || has(&["hounsfield", "computed"]) {
        "CT"
    } else if has(&["mr", "t1", "t2", "flair", "adc", "dwi", "pd"]) {
        "MR"
    } else if has(&["pet", "suv"]) {
        "PT"
    } else {
        ""
    }
}

fn labels(trained: &Trained) -> Vec<Label> {
    let dataset = &trained.dataset;
    let named: Vec<(usize, String)> = if dataset.regions.is_empty() {
        let names = dataset.labels.iter().enumerate().skip(1);
        names
            .map(|(n, name)| (n, name.clone().unwrap_or_else(|| format!("Label {n}"))))
            .collect()
    } else {
        let mut written: Vec<(usize, String)> = Vec::new();
        for region in &dataset.regions {
            // A later region writes over what an earlier one of the same number wrote.
            written.retain(|(n, _)| *n != region.written);
            written.push((region.written, region.name.clone()));
        }
        written.sort();
        written
    };
    named
        .into_iter()
        .filter_map(|(n, name)| {
            let name = name.replace(['_', '-'], " ");
            Some(Label {
                label: u8::try_from(n).ok().filter(|n| *n > 0)?,
                color: color(n),
                category: CodedConcept::new("123037004", "SCT", "Anatomical Structure"),
                property: snomed::brain_structure(&name),
                name,
            })
        })
        .collect()
}

/// Colors far from each other: the golden angle around the circle.
pub(in crate::import) fn color(n: usize) -> [u8; 3] {
    let hue = (n * 137 % 360) as f32 / 60.0;
    let part = |shift: f32| {
        let x = ((hue + shift) % 6.0 - 3.0).abs() - 1.0;
        (90.0 + 150.0 * x.clamp(0.0, 1.0)) as u8
    };
    [part(0.0), part(4.0), part(2.0)]
}

/// A model's id: lower case letters, digits and dashes, at most 64.
pub(in crate::import) fn word(text: &str) -> String {
    let lower = text.to_lowercase();
    let plain = lower.chars().map(|c| {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            c
        } else {
            '-'
        }
    });
    plain.take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_tell_the_modality() {
        let of = |name: &str| modality(&[name.to_owned()]);
        assert_eq!(of("CT"), "CT");
        assert_eq!(of("T1w"), "MR");
        assert_eq!(of("MRI"), "MR");
        assert_eq!(of("PET"), "PT");
        assert_eq!(of("noNorm"), "");
    }

    #[test]
    fn ids_are_plain_words() {
        assert_eq!(
            word("nnunet-Dataset004_Hippocampus-3d_fullres"),
            "nnunet-dataset004-hippocampus-3d-fullres"
        );
        assert_eq!(word(&"x".repeat(100)).len(), 64);
    }
}
