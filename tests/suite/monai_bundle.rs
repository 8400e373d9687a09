//! Whole MONAI bundles, imported and run, against MONAI's own predictions; and bundles that lie.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use negatoscope::import;
use negatoscope::inference::native::{Native, Workspace};
use negatoscope::inference::{Array, Model, Program, Settings, reference};
use negatoscope::model::monai::MonaiDecision;
use negatoscope::model::{ImagePreparation, OutputKind, Registry, VerifiedPackage};
use negatoscope::nifti;
use negatoscope::task::Task;
use serde_json::{Value, json};

use crate::monai_networks::formula;

fn golden(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/monai_bundle");
    folder.join(name)
}

fn import_one(path: &Path) -> VerifiedPackage {
    import::read(path).unwrap().remove(0)
}

fn settings() -> Settings {
    Settings {
        available_bytes: 4 << 30,
        started: "2026-11-21T00:00:00Z".into(),
        ..Settings::default()
    }
}

#[test]
fn clinical_laterality_predictions_are_those_of_monai() {
    let mut worst = 1.0_f64;
    for bundle in ["ct", "mr", "slices", "whole"] {
        let package = import_one(&golden("bundles").join(bundle));
        let model = Model::new(package, &|_| Err("none".into())).unwrap();
        for case in ["axial", "sagittal", "oblique"] {
            let task = Task::new();
            let file = |name: String| golden("volumes").join(format!("{name}.nii.gz"));
            let volume = nifti::read(&file(case.to_owned()), &task).unwrap();
            let expected = nifti::read(&file(format!("{bundle}_{case}")), &task).unwrap();
            let planned = model.plan(&volume, &settings(), &task).unwrap();
            let found = model.run(&volume, &settings(), &task).unwrap();
            let labels = &found.segmentation.map.labels;
            let wanted = expected.values();
            assert_eq!(labels.len(), wanted.len());
            let pairs = labels.iter().zip(&wanted);
            let equal = pairs.filter(|(a, b)| f32::from(**a) == **b).count();
            let agreement = equal as f64 / wanted.len() as f64;
            println!(
                "{bundle} {case}: {:.4} % of {}",
                100.0 * agreement,
                wanted.len()
            );
            // Values that nearly tie may fall to the other side.
            worst = worst.min(agreement);
            // A crop depends on the image; the plan before it is the most that may be needed.
            assert!(found.plan.needed_bytes <= planned.needed_bytes);
        }
    }
    assert!(worst >= 0.9995, "{worst}");
}

#[test]
fn a_bundle_says_what_it_is_in_the_manifest() {
    let package = import_one(&golden("bundles/ct"));
    let manifest = package.manifest();
    assert_eq!(manifest.key(), "monai-spleen-ct@0.1.2");
    assert_eq!(manifest.modality, "CT");
    assert_eq!(manifest.labels[0].name, "spleen");
    assert_eq!(manifest.labels[0].property.value, "78961009");
    assert_eq!(manifest.labels[1].property.value, "18639004");
    assert!(
        manifest
            .intended_use
            .contains("stated by the model's authors")
            || manifest
                .intended_use
                .starts_with("Stated by the model's authors: Tests alone.")
    );
    assert_eq!(
        manifest.origin["eval_metrics (stated by the model's authors)"],
        "{\"mean_dice\":0.0}"
    );
    // Regions in each other: the whole tumor writes first, whatever the order of channels.
    let package = import_one(&golden("bundles/mr"));
    let monai = package.manifest().monai.as_ref().unwrap();
    let MonaiDecision::Threshold { order, .. } = &monai.output.decision else {
        panic!("thresholds were expected");
    };
    assert_eq!(order, &[2, 1, 3]);
    let names: Vec<&str> = package
        .manifest()
        .labels
        .iter()
        .map(|l| l.name.as_str())
        .collect();
    assert_eq!(names, ["tumor core", "whole tumor", "enhancing tumor"]);
}

#[test]
fn classifiers_are_imported_and_not_run_as_segmentations() {
    for path in ["bundles/classifier", "xray.pth"] {
        let package = import_one(&golden(path));
        let manifest = package.manifest();
        assert_eq!(manifest.output.kind, OutputKind::Classification);
        assert!(manifest.classification.is_some() && manifest.labels.is_empty());
        let error = Model::new(package, &|_| Err("none".into())).unwrap_err();
        assert!(error.to_string().contains("classifies"), "{error}");
    }
}

#[test]
fn torchxrayvisions_state_dicts_become_its_networks() {
    let package = import_one(&golden("xray.pth"));
    let manifest = package.manifest();
    let classes = manifest.classification.as_ref().unwrap();
    assert_eq!(classes.size, [224, 224]);
    assert_eq!(classes.classes[17].name, "Enlarged Cardiomediastinum");
    assert_eq!(classes.classes[9].name, "Pleural Thickening");
    assert_eq!(classes.classes[3].threshold, None);
    assert!((classes.classes[0].threshold.unwrap() - 0.05).abs() < 1e-6);
    let range = [-1024.0, 1024.0];
    assert_eq!(
        classes.preparation,
        ImagePreparation::CenterSquare { range }
    );
    let graph = manifest.network.graph.clone().unwrap();
    let weights: HashMap<String, Array> = graph
        .tensors()
        .into_iter()
        .map(|name| {
            let (shape, values) = package.array(name).unwrap();
            (name.to_owned(), Array::new(&shape, values))
        })
        .collect();
    let text = std::fs::read_to_string(golden("xray.values")).unwrap();
    let expected: Vec<f32> = serde_json::from_str(&text).unwrap();
    let program = Program::new(Arc::new(graph), weights, &[64, 64]).unwrap();
    let input = formula("input", &[1, 1, 64, 64]);
    let task = Task::new();
    let by_reference = reference::run(&program, &input, &Device::Cpu, &task).unwrap();
    let native = Native::new(program).unwrap();
    let by_native = native
        .run(&input, &mut Workspace::default(), &task)
        .unwrap();
    let largest = expected
        .iter()
        .copied()
        .fold(0.0, |a: f32, b| a.max(b.abs()));
    for got in [&by_reference[0], &by_native[0]] {
        for (a, b) in got.values.iter().zip(&expected) {
            assert!((a - b).abs() <= 1e-5 * largest, "{a} {b}");
        }
    }
}

#[test]
fn labels_beside_a_state_dict_are_read_and_must_fit() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("net.pth");
    std::fs::copy(golden("xray.pth"), &weights).unwrap();
    let names: Vec<String> = (0..18).map(|n| format!("Finding {n}")).collect();
    let labels = folder.path().join("labels.json");
    std::fs::write(&labels, json!({ "labels": names }).to_string()).unwrap();
    let package = import_one(&weights);
    let classes = &package.manifest().classification.as_ref().unwrap().classes;
    assert_eq!(classes[7].name, "Finding 7");
    std::fs::write(&labels, json!(["one"]).to_string()).unwrap();
    let error = import::read(&weights).unwrap_err().to_string();
    assert!(error.contains("1 labels for 18 outputs"), "{error}");
}

#[test]
fn whole_modules_are_refused_with_the_way_out() {
    let error = import::read(&golden("xray_module.pt"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("torchxrayvision.models.DenseNet"), "{error}");
    assert!(error.contains("model.state_dict()"), "{error}");
}

/// A copy of the CT bundle that may be spoiled.
struct Spoiled(tempfile::TempDir);

impl Spoiled {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "configs/metadata.json",
            "configs/inference.json",
            "models/model.pt",
        ] {
            let to = folder.path().join(name);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(golden("bundles/ct").join(name), to).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn edit(self, file: &str, change: impl FnOnce(&mut Value)) -> Self {
        let path = self.path(file);
        let mut value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut value);
        std::fs::write(&path, value.to_string()).unwrap();
        self
    }

    fn set(self, pointer: &str, value: Value) -> Self {
        self.edit("configs/inference.json", |config| {
            *config.pointer_mut(pointer).unwrap() = value;
        })
    }

    /// The bundle is refused, with these words.
    fn refused(&self, words: &[&str]) {
        let mut error: &dyn std::error::Error = &import::read(self.0.path()).unwrap_err();
        let mut text = error.to_string();
        while let Some(cause) = error.source() {
            text = format!("{text}: {cause}");
            error = cause;
        }
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {text:?}");
        }
    }
}

#[test]
fn expressions_are_never_evaluated() {
    let spoil = Spoiled::new;
    let evil = "$__import__('os').system('touch evaluated')";
    spoil()
        .set("/inferer/roi_size", json!(evil))
        .refused(&["inferer::roi_size", "not evaluated"]);
    spoil()
        .set("/network_def", json!("$import os"))
        .refused(&["network_def", "not evaluated"]);
    spoil()
        .set("/network_def/channels/1", json!("$8 + 8"))
        .refused(&["network_def::channels::1", "not evaluated"]);
    spoil()
        .set("/preprocessing/transforms/2/axcodes", json!(evil))
        .refused(&["transforms::2::axcodes", "not evaluated"]);
    spoil()
        .set("/network_def/_target_", json!("os.system"))
        .refused(&["os.system"]);
    assert!(!Path::new("evaluated").exists());
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let spoil = Spoiled::new;
    let network = |value: Value| spoil().set("/network_def", value);
    network(json!({ "_target_": "AHNet" })).refused(&["AHNet", "not known"]);
    let edit = |change: fn(&mut Value)| spoil().edit("configs/inference.json", change);
    edit(|c| c["network_def"]["surprise"] = json!(1)).refused(&["network_def", "surprise"]);
    edit(|c| c["inferer"]["surprise"] = json!(1)).refused(&["inferer", "surprise"]);
    edit(|c| c["preprocessing"]["transforms"][3]["surprise"] = json!(1)).refused(&["surprise"]);
    spoil()
        .set(
            "/preprocessing/transforms/4/_target_",
            json!("HistogramNormalized"),
        )
        .refused(&["HistogramNormalize", "not known"]);
    spoil()
        .set("/postprocessing/transforms/2/_target_", json!("FillHolesd"))
        .refused(&["FillHoles", "not known"]);
    spoil()
        .set("/inferer/_target_", json!("SaliencyInferer"))
        .refused(&["SaliencyInferer", "not known"]);
    spoil()
        .set("/evaluator/_target_", json!("scripts.Evaluator"))
        .refused(&["scripts.Evaluator"]);
    spoil()
        .set("/preprocessing/transforms/3/mode", json!("bicubic"))
        .refused(&["bicubic"]);
    edit(|c| {
        c["postprocessing"]["transforms"]
            .as_array_mut()
            .unwrap()
            .remove(1);
    })
    .refused(&["no Invertd"]);
}

#[test]
fn what_is_missing_is_named() {
    let spoil = Spoiled::new;
    let edit = |change: fn(&mut Value)| spoil().edit("configs/inference.json", change);
    let remove = |key: &'static str| {
        spoil().edit("configs/inference.json", |c| {
            c.as_object_mut().unwrap().shift_remove(key);
        })
    };
    remove("preprocessing").refused(&["preprocessing"]);
    edit(|c| {
        let map = c.as_object_mut().unwrap();
        map.shift_remove("network_def");
        map.shift_remove("network");
    })
    .refused(&["network_def"]);
    spoil()
        .set("/network_def/channels", json!("@nothing"))
        .refused(&["network_def::channels", "nothing"]);
    spoil()
        .set("/network_def/channels", json!("%../../secret.json::key"))
        .refused(&["another file"]);
    let without = |name: &str| {
        let bundle = spoil();
        std::fs::remove_file(bundle.path(name)).unwrap();
        bundle
    };
    without("configs/metadata.json").refused(&["configs/metadata.json is missing"]);
    without("configs/inference.json").refused(&["configs/inference.json is missing"]);
    without("models/model.pt").refused(&["models/model.pt is missing"]);
    let script = without("models/model.pt");
    std::fs::write(script.path("models/model.ts"), b"PK").unwrap();
    script.refused(&["TorchScript", "state_dict"]);
}

#[test]
fn weights_must_be_whole_finite_and_fit() {
    let spoil = Spoiled::new;
    spoil()
        .set("/network_def/channels/0", json!(5))
        .refused(&["has shape", "the configuration says"]);
    spoil()
        .set("/network_def/num_res_units", json!(0))
        .refused(&["the tensor", "missing"]);
    spoil()
        .set("/network_def/channels", json!([4, 8]))
        .refused(&["the tensor"]);
    let truncated = spoil();
    let bytes = std::fs::read(truncated.path("models/model.pt")).unwrap();
    for part in [0, 10, bytes.len() / 2, bytes.len() - 30] {
        std::fs::write(truncated.path("models/model.pt"), &bytes[..part]).unwrap();
        truncated.refused(&["model.pt"]);
    }
    let nan = spoil();
    std::fs::copy(golden("nan.pt"), nan.path("models/model.pt")).unwrap();
    nan.refused(&["NaN", "model.0.conv.unit0.conv.weight"]);
    // Numbers that no memory holds end before memory is asked for.
    spoil()
        .set("/network_def/channels/2", json!(900_000_000))
        .refused(&["channels"]);
    spoil()
        .set("/inferer/roi_size", json!([4096, 4096, 4096]))
        .refused(&["the weights do not fit the network"]);
}

#[cfg(unix)]
#[test]
fn links_out_of_a_bundle_are_not_followed() {
    for name in ["models/model.pt", "configs/metadata.json"] {
        let bundle = Spoiled::new();
        let path = bundle.path(name);
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(golden("bundles/ct").join(name), &path).unwrap();
        bundle.refused(&["leads out of the bundle"]);
    }
}

#[test]
fn an_archive_with_paths_that_climb_is_refused_and_leaves_nothing() {
    use std::io::Write;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("inner").join("bundle.zip");
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    for name in [
        "../configs/metadata.json",
        "../../evil",
        "configs/inference.json",
    ] {
        zip.start_file(name, zip::write::SimpleFileOptions::default())
            .unwrap();
        zip.write_all(b"{}").unwrap();
    }
    zip.finish().unwrap();
    assert!(import::read(&path).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(
        std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
        1
    );
}

#[test]
fn an_imported_bundle_is_installed_and_loads_again() {
    let home = tempfile::tempdir().unwrap();
    let registry = Registry::new(home.path().join("models"));
    let package = import_one(&golden("bundles/slices"));
    registry.install(&package, false).unwrap();
    let again = registry.load("monai-slices").unwrap();
    assert_eq!(again.manifest(), package.manifest());
}
