//! A trained configuration as a package of the project's own form.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Reader, Trained};
use crate::import::{Error, snomed, weights};
use crate::model::{
    Conform, Envelope, Input, Label, MANIFEST_SHAPE, Manifest, Network, Normalization, Output,
    OutputKind, PackageFiles, Values, VerifiedPackage, sha256_hex,
};
use crate::study::CodedConcept;

/// Reads a result folder into a package with all its folds.
///
/// # Errors
/// [`Error`], naming what is not understood.
pub fn package(folder: &Path) -> Result<VerifiedPackage, Error> {
    let trained = super::open(folder)?;
    let refuse = |what: &str| Error::NotUnderstood {
        what: what.to_owned(),
        path: folder.join("plans.json"),
    };
    if trained.configuration.previous_stage.is_some() {
        return Err(refuse(
            "a cascade's second stage needs the first stage's labels: running it is not supported yet, the configuration",
        ));
    }
    let procedure = trained.procedure(folder)?;
    let saved = all_folds(&trained)?;
    let dataset = trained.plans.dataset_name.replace('_', " ");
    let configuration = &trained.configuration.name;
    let folds: Vec<String> = trained
        .folds
        .iter()
        .map(|f| format!("{}/", f.name))
        .collect();
    let orientation = match trained.plans.reader {
        Reader::NibabelReoriented => Some("RAS".to_owned()),
        Reader::SimpleItk | Reader::Nibabel => None,
    };
    let mut limits = vec![
        "The folder states no intended use, no license and no accuracy: ask those who trained it."
            .to_owned(),
    ];
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
        license: "not stated".to_owned(),
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
            layers: Vec::new(),
            graph: Some(trained.graph.clone()),
            folds,
        },
        output: Output {
            kind: OutputKind::Segmentation,
            largest_component: false,
        },
        procedure: Some(procedure),
        labels: labels(&trained),
        weights_sha256: sha256_hex(&saved),
        origin: BTreeMap::from([
            ("format".to_owned(), "nnU-Net v2 result folder".to_owned()),
            ("dataset".to_owned(), trained.plans.dataset_name.clone()),
            ("plans".to_owned(), trained.plans.plans_name.clone()),
            ("configuration".to_owned(), configuration.clone()),
            ("trainer".to_owned(), trained.trainer.clone()),
        ]),
    };
    let manifest =
        serde_json::to_vec_pretty(&manifest).map_err(|e| refuse(&format!("the manifest ({e})")))?;
    Ok(VerifiedPackage::verify(PackageFiles {
        manifest,
        weights: saved,
        card: None,
        path: folder.to_owned(),
    })?)
}

/// The tensors of all folds in one file, each with its fold's name before it.
fn all_folds(trained: &Trained) -> Result<Vec<u8>, Error> {
    let mut names = Vec::new();
    let mut places = Vec::new();
    for (fold, weights) in trained.folds.iter().enumerate() {
        for (n, (name, tensor)) in weights.tensors().iter().enumerate() {
            names.push((format!("{}/{name}", weights.name), tensor.shape().to_vec()));
            places.push((fold, n));
        }
    }
    let tensors: Vec<(&str, &[usize])> = names
        .iter()
        .map(|(name, shape)| (name.as_str(), shape.as_slice()))
        .collect();
    let read = |n: usize| {
        let (fold, at) = places[n];
        trained.folds[fold].read(at)
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
        extent_mm: plans.median_extent_mm().map(Envelope::around_extent_mm),
        values,
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
fn color(n: usize) -> [u8; 3] {
    let hue = (n * 137 % 360) as f32 / 60.0;
    let part = |shift: f32| {
        let x = ((hue + shift) % 6.0 - 3.0).abs() - 1.0;
        (90.0 + 150.0 * x.clamp(0.0, 1.0)) as u8
    };
    [part(0.0), part(4.0), part(2.0)]
}

/// A model's id: lower case letters, digits and dashes, at most 64.
fn word(text: &str) -> String {
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
