//! Several models and versions from the command line: run together, compared, and counted.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

pub fn negatoscope(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_negatoscope"))
        .arg("--home")
        .arg(home)
        .args(arguments)
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    let told = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {told}"))
}

pub fn data(path: &str) -> Option<String> {
    let Ok(root) = std::env::var("NEGATOSCOPE_TEST_DATA") else {
        eprintln!("skipped: NEGATOSCOPE_TEST_DATA is not set");
        return None;
    };
    Some(Path::new(&root).join(path).display().to_string())
}

/// A bundled package with another manifest.
pub fn changed_package(folder: &Path, id: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("assets/models")
        .join(id);
    let to = folder.join("other");
    std::fs::create_dir_all(&to).unwrap();
    std::fs::copy(
        from.join("weights.safetensors"),
        to.join("weights.safetensors"),
    )
    .unwrap();
    let text = std::fs::read_to_string(from.join("manifest.json")).unwrap();
    let mut manifest: Value = serde_json::from_str(&text).unwrap();
    change(&mut manifest);
    std::fs::write(to.join("manifest.json"), manifest.to_string()).unwrap();
    to
}

/// Another version, called present from another threshold on.
fn other_version(folder: &Path, version: &str, threshold: f64) -> PathBuf {
    changed_package(folder, "pneumonia-28", |manifest| {
        manifest["version"] = version.into();
        let classes = manifest["classification"]["classes"].as_array_mut();
        for class in classes.unwrap() {
            if !class["threshold"].is_null() {
                class["threshold"] = threshold.into();
                class["not_sure"] = Value::Null;
                class["operating_point"] = Value::Null;
            }
        }
    })
}

#[test]
fn versions_lie_side_by_side_and_are_compared_on_the_same_cases() {
    let Some(file) = data("pneumoniamnist/pneumoniamnist_trainval.npz") else {
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let other = other_version(home.path(), "1.1.0", 0.5);
    let place = other.display().to_string();
    let imported = negatoscope(home.path(), &["models", "import", &place]);
    assert!(imported.status.success(), "{imported:?}");
    // Both are there; the newer is meant by the id, until it is rolled back or another is pinned.
    let used = |arguments: &[&str]| {
        let output = negatoscope(home.path(), &[&["models"], arguments].concat());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let listed = used(&["list"]);
    assert!(listed.contains("pneumonia-28@1.0.0") && listed.contains("pneumonia-28@1.1.0"));
    let shown =
        |id: &str| -> Value { serde_json::from_str(&used(&["show", id, "--json"])).unwrap() };
    assert_eq!(shown("pneumonia-28")["version"], "1.1.0");
    assert_eq!(
        used(&["rollback", "pneumonia-28"]),
        "in use: pneumonia-28@1.0.0"
    );
    assert_eq!(shown("pneumonia-28")["version"], "1.0.0");
    assert_eq!(
        used(&["pin", "pneumonia-28@1.1.0"]),
        "in use: pneumonia-28@1.1.0"
    );
    assert_eq!(shown("pneumonia-28@1.0.0")["version"], "1.0.0");

    let out = home.path().join("out");
    let folder = out.display().to_string();
    let compare = [
        "models",
        "compare",
        "pneumonia-28@1.0.0",
        "pneumonia-28@1.1.0",
        "--data",
        &file,
        "--part",
        "val",
        "--json",
        "--out",
        &folder,
    ];
    let found = json(&negatoscope(home.path(), &compare));
    assert_eq!(found["n"], 524);
    let figure = |name: &str| {
        let all = found["figures"].as_array().unwrap().iter();
        all.clone().find(|f| f["name"] == name).unwrap().clone()
    };
    // The same numbers and another threshold.
    assert_eq!(figure("AUC")["difference"], 0.0);
    assert_eq!(
        figure("AUC")["difference_ci95"],
        serde_json::json!([0.0, 0.0])
    );
    assert!(figure("sensitivity")["difference"].as_f64().unwrap() < 0.0);
    assert!(figure("specificity")["difference"].as_f64().unwrap() > 0.0);
    // As each is measured alone.
    for (n, id) in ["pneumonia-28@1.0.0", "pneumonia-28@1.1.0"]
        .iter()
        .enumerate()
    {
        let alone = [
            "evaluate", "--model", id, "--data", &file, "--part", "val", "--json",
        ];
        let alone = json(&negatoscope(home.path(), &alone));
        for name in ["accuracy", "sensitivity", "specificity"] {
            let (a, b) = (&figure(name)["values"][n], &alone[name]);
            assert!(
                (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-12,
                "{id} {name}"
            );
        }
        let table = out.join(id).join("probabilities.csv");
        assert_eq!(
            csv::Reader::from_path(table).unwrap().records().count(),
            524
        );
    }
    assert!(out.join("comparison.json").is_file());

    // What says something else is not set beside it.
    let lungs = [
        "models",
        "compare",
        "pneumonia-28",
        "lungs-cxr",
        "--data",
        &file,
    ];
    let refused = negatoscope(home.path(), &lungs);
    assert_eq!(refused.status.code(), Some(1));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        told.contains("cannot be compared") && told.contains("gives segments"),
        "{told}"
    );
}

/// A chest radiograph of the data with a name in the place of the word that hides it.
fn named_chest(folder: &Path) -> Option<PathBuf> {
    let from = data("dicom-objects/fo-dicom/CR-MONO1-10-chest.dcm")?;
    let mut bytes = std::fs::read(from).unwrap();
    let hidden = b"Anonymized";
    let at = bytes.windows(hidden.len()).position(|w| w == hidden);
    bytes[at.unwrap()..][..hidden.len()].copy_from_slice(b"Verborgen^");
    let to = folder.join("Verborgen_Annegret.dcm");
    std::fs::write(&to, bytes).unwrap();
    Some(to)
}

#[test]
fn several_models_run_in_one_go_and_every_run_is_counted_without_the_patient() {
    let place = tempfile::tempdir().unwrap();
    let Some(chest) = named_chest(place.path()) else {
        return;
    };
    let home = place.path().join("home");
    let out = place.path().join("out");
    let (chest, folder) = (chest.display().to_string(), out.display().to_string());
    let analyze = |models: &[&str]| {
        let with: Vec<&str> = models.iter().flat_map(|m| ["--model", *m]).collect();
        let all = [&["analyze", &chest, "--out", &folder, "--json"], &with[..]].concat();
        negatoscope(&home, &all)
    };
    let output = analyze(&["pneumonia-28,lungs-cxr", "pneumonia-28@1.0.0"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let told = json(&output);
    // Named twice, it is run once.
    assert_eq!(told["models"].as_array().unwrap().len(), 2);
    for (model, file) in [
        ("pneumonia-28@1.0.0", "findings.dcm"),
        ("lungs-cxr@1.0.0", "segmentation.nii.gz"),
    ] {
        let all = told["models"].as_array().unwrap();
        let one = all.iter().find(|m| m["model"] == model).unwrap();
        let results = one["batch"]["rows"][0]["results"].as_str().unwrap();
        assert!(Path::new(results).starts_with(out.join(model)), "{results}");
        assert!(Path::new(results).join(file).is_file());
    }
    // One that is not there does not stop the other; one that is for heads has nothing to do.
    let output = analyze(&["no-such-model", "pneumonia-28", "hippocampus-mini"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let told = json(&output);
    assert!(
        told["models"][0]["error"]
            .as_str()
            .unwrap()
            .contains("no-such-model")
    );
    assert_eq!(told["models"][1]["batch"]["done"], 1);
    assert_eq!(told["models"][2]["batch"]["done"], 0);

    let table = json(&negatoscope(&home, &["models", "usage", "--json"]));
    let rows = table["rows"].as_array().unwrap();
    let row = |model: &str| rows.iter().find(|r| r["model"] == model).unwrap();
    let pneumonia = row("pneumonia-28");
    assert_eq!(
        (&pneumonia["runs"], &pneumonia["done"]),
        (&2.into(), &2.into())
    );
    assert_eq!(pneumonia["findings"][0]["name"], "Pneumonia");
    assert_eq!(pneumonia["findings"][0]["n"], 2);
    assert!(pneumonia["median_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(row("lungs-cxr")["runs"], 1);
    assert_eq!(row("lungs-cxr")["segments"][0]["name"], "Lung");
    // The number is the one in the result.
    let record = out.join("pneumonia-28@1.0.0");
    let results = files_below(&record, "findings.json");
    let text = std::fs::read_to_string(&results[0]).unwrap();
    let result: Value = serde_json::from_str(&text).unwrap();
    let p = result["images"][0]["findings"][0]["probability"]
        .as_f64()
        .unwrap();
    let mean = pneumonia["findings"][0]["mean_probability"]
        .as_f64()
        .unwrap();
    assert!((p - mean).abs() < 1e-9);

    // Nothing in the store names the patient, the image, or a file.
    let kept = files_below(&home.join("monitoring"), ".jsonl");
    assert_eq!(kept.len(), 1);
    let text = std::fs::read_to_string(&kept[0]).unwrap();
    assert_eq!(text.lines().count(), 3);
    assert!(text.contains(result["run"]["id"].as_str().unwrap()));
    let hidden = [
        "Verborgen",
        "Annegret",
        "1.2.392",
        "19950720",
        ".dcm",
        place.path().to_str().unwrap(),
    ];
    for secret in hidden {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}

#[test]
fn a_store_that_cannot_be_written_stops_no_run() {
    let place = tempfile::tempdir().unwrap();
    let Some(chest) = named_chest(place.path()) else {
        return;
    };
    let home = place.path().join("home");
    std::fs::create_dir_all(&home).unwrap();
    // A file where the folder should be.
    std::fs::write(home.join("monitoring"), "").unwrap();
    let (chest, out) = (chest.display().to_string(), place.path().join("out"));
    let folder = out.display().to_string();
    let output = negatoscope(
        &home,
        &[
            "analyze",
            &chest,
            "--model",
            "pneumonia-28",
            "--out",
            &folder,
        ],
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(files_below(&out, "findings.json").len(), 1);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("was not kept for monitoring"), "{told}");
}

fn files_below(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path, end));
        } else if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    found
}

/// A NIfTI volume of bright blocks, and a mask.
fn write_nifti(path: &Path, dims: [usize; 3], value: impl Fn(usize) -> u8) {
    let mut volume = crate::app::ramp();
    let axes = [
        negatoscope::geometry::DVec3::X,
        negatoscope::geometry::DVec3::Y,
        negatoscope::geometry::DVec3::Z,
    ];
    volume.geometry = negatoscope::geometry::VolumeGeometry::from_axes(
        dims,
        negatoscope::geometry::DVec3::new(-7.0, 4.0, 2.0),
        axes,
        [1.0; 3],
    )
    .unwrap();
    let n = volume.geometry.voxel_count();
    volume.voxels = negatoscope::volume::Voxels::U8((0..n).map(value).collect());
    volume.modality_lut = negatoscope::volume::ModalityLut::IDENTITY;
    negatoscope::nifti::write_volume(path, &volume).unwrap();
}

#[test]
fn both_masks_of_a_case_are_kept_in_one_that_opens_over_its_image() {
    let Some(root) = data("hippocampus-msd") else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let (images, masks) = (
        place.path().join("set/images"),
        place.path().join("set/masks"),
    );
    std::fs::create_dir_all(&images).unwrap();
    std::fs::create_dir_all(&masks).unwrap();
    let mut names: Vec<String> = files_below(&Path::new(&root).join("images"), ".nii.gz")
        .iter()
        .map(|p| p.file_name().unwrap().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    let labels = ["masks", "labels"].map(|f| Path::new(&root).join(f));
    let labels = labels.iter().find(|f| f.is_dir()).unwrap();
    for name in names.iter().take(2) {
        std::fs::copy(
            Path::new(&root).join("images").join(name),
            images.join(name),
        )
        .unwrap();
        std::fs::copy(labels.join(name), masks.join(name)).unwrap();
    }
    let out = place.path().join("out");
    let (set, folder) = (
        place.path().join("set").display().to_string(),
        out.display().to_string(),
    );
    let compare = [
        "models",
        "compare",
        "hippocampus-mini",
        "hippocampus-mini",
        "--data",
        &set,
        "--out",
        &folder,
        "--json",
    ];
    let output = negatoscope(&place.path().join("home"), &compare);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let found = json(&output);
    for case in found["cases"].as_array().unwrap() {
        assert_eq!(case["difference"], 0.0);
        let both = out.join(case["both"].as_str().unwrap());
        let record: Value =
            serde_json::from_slice(&std::fs::read(both.join("result.json")).unwrap()).unwrap();
        let task = negatoscope::task::Task::new();
        let map =
            negatoscope::nifti::read_label_map(&both.join("segmentation.nii.gz"), &task).unwrap();
        let image = Path::new(case["image"].as_str().unwrap());
        let volume = negatoscope::nifti::read(image, &task).unwrap();
        assert_eq!(map.geometry.dims(), volume.geometry.dims());
        // One model with itself: only what both say.
        let said: std::collections::BTreeSet<u8> = map.labels.iter().copied().collect();
        assert!(
            said.len() > 1 && said.iter().all(|l| *l == 0 || l % 3 == 1),
            "{said:?}"
        );
        let names: Vec<&str> = (record["segments"].as_array().unwrap().iter())
            .map(|s| s["name"].as_str().unwrap())
            .collect();
        assert!(names[0].ends_with(": both") && names[1].contains(": only "));
    }
}

#[test]
fn two_masks_become_one_by_who_says_what() {
    let place = tempfile::tempdir().unwrap();
    let folders = ["a", "b"].map(|f| place.path().join(f));
    for folder in &folders {
        std::fs::create_dir_all(folder).unwrap();
    }
    // Points by number: 0 none, 1 both the first label, 2 only the first model, 3 only the second,
    // 4 each another label, 5 both the second label.
    let [a, b] = [[0, 1, 1, 0, 1, 2], [0, 1, 0, 2, 2, 2]];
    write_nifti(&folders[0].join("x.nii.gz"), [3, 2, 1], |n| a[n]);
    write_nifti(&folders[1].join("x.nii.gz"), [3, 2, 1], |n| b[n]);
    let code = |v: &str| negatoscope::study::CodedConcept::new(v, "SCT", v);
    let labels = [1, 2].map(|label| negatoscope::model::Label {
        label,
        name: format!("L{label}"),
        color: [0; 3],
        category: code("1"),
        property: code("2"),
    });
    let below = negatoscope::training::kept_masks::keep_both(
        place.path(),
        [&folders[0], &folders[1]],
        &["m@1".to_owned(), "m@2".to_owned()],
        &labels,
        "x.nii.gz",
    );
    let folder = place.path().join(below.unwrap().unwrap());
    let task = negatoscope::task::Task::new();
    let map = negatoscope::nifti::read_label_map(&folder.join("segmentation.nii.gz"), &task);
    assert_eq!(map.unwrap().labels, [0, 1, 2, 6, 7, 4]);
    let record: Value =
        serde_json::from_slice(&std::fs::read(folder.join("result.json")).unwrap()).unwrap();
    let name = |n: usize| record["segments"][n]["name"].as_str().unwrap().to_owned();
    assert_eq!(
        [name(0), name(1), name(5), name(6)],
        [
            "L1: both",
            "L1: only m@1",
            "L2: only m@2",
            "One label and another"
        ]
    );
}
