//! Findings of whole images from the command line, by the models that come with the program.

use std::path::Path;
use std::process::{Command, Output};

use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use serde_json::Value;

use crate::remote_findings::{bundled, template, write_chests};

fn negatoscope(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_negatoscope"))
        .arg("--home")
        .arg(home)
        .args(arguments)
        .output()
        .unwrap()
}

fn evaluated(arguments: &[&str]) -> Value {
    let home = tempfile::tempdir().unwrap();
    let output = negatoscope(home.path(), &[&["evaluate", "--json"], arguments].concat());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn data(path: &str) -> Option<String> {
    let Ok(root) = std::env::var("NEGATOSCOPE_TEST_DATA") else {
        eprintln!("skipped: NEGATOSCOPE_TEST_DATA is not set");
        return None;
    };
    Some(Path::new(&root).join(path).display().to_string())
}

#[test]
fn the_bundled_classifier_is_as_good_as_its_card_says() {
    let Some(file) = data("pneumoniamnist/pneumoniamnist_trainval.npz") else {
        return;
    };
    let found = evaluated(&["--model", "pneumonia-28", "--data", &file, "--part", "val"]);
    assert_eq!(found["n"], 524);
    assert!(found["auc"].as_f64().unwrap() > 0.99, "{}", found["auc"]);
    assert!(
        found["accuracy"].as_f64().unwrap() > 0.96,
        "{}",
        found["accuracy"]
    );
}

#[test]
fn the_bundled_lungs_are_those_that_readers_drew() {
    let Some(folder) = data("cxr-lungs-montgomery") else {
        return;
    };
    let found = evaluated(&["--model", "lungs-cxr", "--data", &folder]);
    assert_eq!(found["n"], 98);
    let dice = found["dice"]["Lung"]["mean"].as_f64().unwrap();
    assert!(dice > 0.97, "{dice}");
    // PNG files tell no spacing.
    assert_eq!(found["hd95_unit"], "px");
}

/// Rows of a CSV file as maps.
fn rows(path: &Path) -> Vec<std::collections::HashMap<String, String>> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    reader.deserialize().map(Result::unwrap).collect()
}

#[test]
fn chests_get_a_number_and_strangers_a_reason() {
    let Some(chest) = data("dicom-objects/fo-dicom/CR-MONO1-10-chest.dcm") else {
        return;
    };
    let others = [
        // A hip, a dog from the side, and a CT.
        "dicom-syntax/nema-wg04/RG2_J2KI.dcm",
        "dicom-objects/highdicom/dx_image.dcm",
        "dicom-syntax/pydicom/CT_small.dcm",
    ];
    let [hip, dog, ct] = others.map(|p| data(p).unwrap());
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("out");
    let place = out.display().to_string();
    let analyze = [
        "analyze",
        &chest,
        &hip,
        &dog,
        &ct,
        "--model",
        "pneumonia-28",
        "--out",
        &place,
    ];
    let output = negatoscope(home.path(), &analyze);
    assert!(output.status.success(), "{output:?}");
    let batch: Value =
        serde_json::from_slice(&std::fs::read(out.join("batch.json")).unwrap()).unwrap();
    assert_eq!((&batch["done"], &batch["skipped"]), (&3.into(), &1.into()));
    let (mut numbers, mut refused) = (0, 0);
    for row in batch["rows"].as_array().unwrap() {
        if row["status"] == "skipped" {
            assert_eq!(row["reason"], "CT series, the model is for DX");
            continue;
        }
        let folder = Path::new(row["results"].as_str().unwrap());
        let table = rows(&folder.join("findings.csv"));
        assert_eq!(table.len(), 1);
        let one = &table[0];
        // The dog's file and both others are DICOM: each has its report.
        let report = negatoscope::dicom::read_report(&folder.join("findings.dcm")).unwrap();
        assert_eq!(report.findings.is_empty(), one["finding"].is_empty());
        assert!(!report.verified && report.comments.iter().any(|c| c.contains("Research use")));
        let record: Value =
            serde_json::from_slice(&std::fs::read(folder.join("findings.json")).unwrap()).unwrap();
        let image = &record["images"][0];
        assert_eq!(
            image["sop_instance_uid"].as_str(),
            Some(one["sop_instance_uid"].as_str())
        );
        if one["finding"].is_empty() {
            refused += 1;
            assert!(one["probability"].is_empty() && one["refused"].contains("does not look like"));
            assert!(image["findings"].as_array().unwrap().is_empty());
            assert!(
                row["reason"]
                    .as_str()
                    .unwrap()
                    .starts_with("no finding is given")
            );
        } else {
            numbers += 1;
            assert_eq!(
                (one["finding"].as_str(), one["review"].as_str()),
                ("Pneumonia", "AI - not reviewed")
            );
            let p: f64 = one["probability"].parse().unwrap();
            assert!((0.0..=1.0).contains(&p));
            assert!((image["findings"][0]["probability"].as_f64().unwrap() - p).abs() < 1e-4);
            // An adult's image, or one that tells no age, is doubtful for a model of children.
            let issues = image["issues"].as_array().unwrap();
            assert!(
                issues.iter().any(|i| i["code"] == "outside-envelope"),
                "{issues:?}"
            );
        }
    }
    assert_eq!((numbers, refused), (1, 2));
    // Nothing is run twice.
    let again = negatoscope(home.path(), &[&analyze[..], &["--resume"]].concat());
    assert!(again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("finished earlier"));
    let verify = negatoscope(home.path(), &["audit", "verify"]);
    assert!(verify.status.success());
}

#[test]
fn a_view_that_the_model_has_not_seen_gets_no_number() {
    let home = tempfile::tempdir().unwrap();
    let chests = home.path().join("chests");
    write_chests(&chests, &template("pneumonia-28"), 5, 1, false);
    let chest = dicom_object::open_file(chests.join("5-0.dcm")).unwrap();
    let code = |value: &str| {
        InMemDicomObject::from_element_iter([
            DataElement::new(tags::CODE_VALUE, VR::SH, PrimitiveValue::from(value)),
            DataElement::new(
                tags::CODING_SCHEME_DESIGNATOR,
                VR::SH,
                PrimitiveValue::from("SCT"),
            ),
            DataElement::new(tags::CODE_MEANING, VR::LO, PrimitiveValue::from("a view")),
        ])
    };
    let refused = |view: &str| format!("view {view}, the model is for AP, PA");
    // View Position, the code in its place, and why there is no number.
    let cases = [
        ("PA", None, None),
        ("", None, None),
        ("", Some("399348003"), None),
        ("LL", None, Some(refused("LL"))),
        ("PA", Some("399198007"), None),
        ("", Some("399198007"), Some(refused("RL"))),
        ("SIDEWAYS", None, None),
    ];
    for (n, (position, coded, reason)) in cases.into_iter().enumerate() {
        let mut object = chest.clone();
        object.put(DataElement::new(
            tags::VIEW_POSITION,
            VR::CS,
            PrimitiveValue::from(position),
        ));
        if let Some(value) = coded {
            let items = DataSetSequence::from(vec![code(value)]);
            object.put(DataElement::new(tags::VIEW_CODE_SEQUENCE, VR::SQ, items));
        }
        let file = home.path().join(format!("{n}.dcm"));
        object.write_to_file(&file).unwrap();
        let (file, out) = (
            file.display().to_string(),
            home.path().join(format!("out{n}")),
        );
        let place = out.display().to_string();
        let words = ["analyze", &file, "--model", "pneumonia-28", "--out", &place];
        let output = negatoscope(home.path(), &words);
        assert!(output.status.success(), "{output:?}");
        let batch: Value =
            serde_json::from_slice(&std::fs::read(out.join("batch.json")).unwrap()).unwrap();
        let folder = Path::new(batch["rows"][0]["results"].as_str().unwrap());
        let table = rows(&folder.join("findings.csv"));
        let (found, told) = (&table[0]["finding"], &table[0]["refused"]);
        match reason {
            Some(reason) => assert!(found.is_empty() && told.contains(&reason), "{n}: {told}"),
            None => assert!(!found.is_empty() && told.is_empty(), "{n}: {told}"),
        }
        let record = std::fs::read_to_string(folder.join("findings.json")).unwrap();
        let doubtful = record.contains("not one of the standard's");
        assert_eq!(doubtful, position == "SIDEWAYS", "{record}");
    }
}

#[test]
fn a_model_is_calibrated_to_labeled_images() {
    let Some(file) = data("pneumoniamnist/pneumoniamnist_trainval.npz") else {
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("out").display().to_string();
    let of_part = ["--data", &file, "--part", "val"];
    let words = ["calibrate", "pneumonia-28", "--out", &out, "--json"];
    let output = negatoscope(home.path(), &[&words[..], &of_part].concat());
    assert!(output.status.success(), "{output:?}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let package = format!("{out}/package");
    let found = evaluated(&[&["--model", &package][..], &of_part].concat());
    let cases: Vec<(f64, bool)> = (found["cases"].as_array().unwrap().iter())
        .map(|c| (c["score"].as_f64().unwrap(), c["label"] == 1))
        .collect();
    assert_eq!((cases.len(), told["cases"].as_u64()), (524, Some(524)));
    // No other temperature makes the truth likelier.
    let cost = |times: f64| -> f64 {
        let one = |(p, truth): &(f64, bool)| {
            let odds = (p / (1.0 - p)).ln() * times;
            (1.0 + (if *truth { -odds } else { odds }).exp()).ln()
        };
        cases.iter().map(one).sum()
    };
    assert!(cost(1.0) < cost(1.02) && cost(1.0) < cost(0.98));
    // Nor does another threshold call both truths better.
    let youden = |t: f64| {
        let part = |truth: bool| {
            let own: Vec<f64> = (cases.iter().filter(|c| c.1 == truth))
                .map(|c| c.0)
                .collect();
            own.iter().filter(|p| (**p >= t) == truth).count() as f64 / own.len() as f64
        };
        part(true) + part(false)
    };
    let threshold = found["threshold"].as_f64().unwrap();
    for (p, _) in &cases {
        assert!(youden(threshold) + 1e-12 >= youden(*p), "{threshold} {p}");
    }
    let halves = found["half_splits"]["accuracy"].as_f64().unwrap();
    assert!((0.94..0.99).contains(&halves), "{halves}");
    // The weights are the same, the version is not, and the card tells of both.
    let manifest = std::fs::read_to_string(format!("{package}/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["version"], "1.0.0-calibrated");
    assert_eq!(manifest["origin"]["calibrated_from"], "pneumonia-28@1.0.0");
    let old = bundled("pneumonia-28");
    assert_eq!(
        manifest["weights_sha256"],
        old.manifest().weights_sha256.as_str()
    );
    let card = std::fs::read_to_string(format!("{package}/MODEL_CARD.md")).unwrap();
    assert!(
        card.contains("## Calibration") && card.contains("524 labeled images"),
        "{card}"
    );
    // What cannot be calibrated says why, and leaves nothing behind.
    let few = home.path().join("few");
    crate::training::class_folder(&few);
    let lines = std::fs::read_to_string(few.join("labels.csv")).unwrap();
    let lines: Vec<&str> = lines.lines().take(31).collect();
    std::fs::write(few.join("labels.csv"), lines.join("\n")).unwrap();
    let (few, none) = (few.display().to_string(), home.path().join("none"));
    let place = none.display().to_string();
    for (model, why) in [
        (
            "pneumonia-28",
            "15 images with the finding and 15 without it",
        ),
        ("lungs-cxr", "only classes that exclude each other"),
        ("pneumonia-cnn", "do not tell of which kind"),
    ] {
        let words = ["calibrate", model, "--data", &few, "--out", &place];
        let output = negatoscope(home.path(), &words);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(why), "{told}");
        assert!(!none.exists());
    }
}

#[test]
fn a_radiograph_has_points_and_no_volume() {
    let Some(chest) = data("dicom-objects/fo-dicom/CR-MONO1-10-chest.dcm") else {
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("out");
    let place = out.display().to_string();
    let output = negatoscope(
        home.path(),
        &["analyze", &chest, "--model", "lungs-cxr", "--out", &place],
    );
    assert!(output.status.success(), "{output:?}");
    let batch: Value =
        serde_json::from_slice(&std::fs::read(out.join("batch.json")).unwrap()).unwrap();
    let row = &batch["rows"][0];
    assert!(row["volumes_ml"].as_object().unwrap().is_empty(), "{row}");
    let folder = Path::new(row["results"].as_str().unwrap());
    let table = rows(&folder.join("measurements.csv"));
    // The lungs cover a good part of a chest.
    let points: f64 = table[0]["voxels"].parse().unwrap();
    assert!((0.2..0.5).contains(&(points / (440.0 * 440.0))), "{points}");
    assert_eq!(
        (
            table[0]["volume_ml"].as_str(),
            table[0]["centroid_l_mm"].as_str()
        ),
        ("", "")
    );
}

#[test]
fn the_lungs_of_a_hip_are_not_drawn() {
    let Some(chest) = data("dicom-objects/fo-dicom/CR-MONO1-10-chest.dcm") else {
        return;
    };
    let hip = data("dicom-syntax/nema-wg04/RG2_J2KI.dcm").unwrap();
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("out");
    let place = out.display().to_string();
    let analyze = [
        "analyze",
        &chest,
        &hip,
        "--model",
        "lungs-cxr",
        "--out",
        &place,
    ];
    let output = negatoscope(home.path(), &analyze);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let batch: Value =
        serde_json::from_slice(&std::fs::read(out.join("batch.json")).unwrap()).unwrap();
    let mut seen = [0, 0];
    for row in batch["rows"].as_array().unwrap() {
        let mask = Path::new(row["results"].as_str().unwrap()).join("segmentation.nii.gz");
        if row["status"] == "done" {
            seen[0] += 1;
            assert!(mask.is_file());
        } else {
            seen[1] += 1;
            let reason = row["reason"].as_str().unwrap();
            assert!(reason.contains("does not look like"), "{reason}");
            assert!(!mask.exists());
        }
    }
    assert_eq!(seen, [1, 1]);
}
