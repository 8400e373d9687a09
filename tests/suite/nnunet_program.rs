//! Result folders through the whole program (`models import`, `analyze`) against nnU-Net's own
//! predictions: several channels, several folds, a cascade of two stages.
//!
//! The truth is made by `tests/golden/nnunet/make.py` and too large to keep; `NEGATOSCOPE_NNUNET_DATA`
//! names its folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use negatoscope::nifti;
use negatoscope::task::Task;

fn run(home: &Path, arguments: &[&str]) -> String {
    let ran = Command::new(env!("CARGO_BIN_EXE_negatoscope"))
        .args(arguments)
        .env("NEGATOSCOPE_HOME", home)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(0), "{arguments:?}: {err}");
    String::from_utf8(ran.stdout).unwrap()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|path| !path.ends_with("versions.json"))
        .collect();
    found.sort();
    found
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// Equal voxels as a part of all, and the Dice of each label that has more than a few voxels.
fn compare(found: &Path, truth: &Path) -> (f64, Vec<f64>) {
    let read = |path| nifti::read_label_map(path, &Task::new()).unwrap();
    let (found, truth) = (read(found), read(truth));
    assert!(found.geometry.same_grid(&truth.geometry, 1e-3));
    let pairs = || found.labels.iter().zip(&truth.labels);
    let same = pairs().filter(|(a, b)| a == b).count();
    let dice = (1..=truth.labels.iter().copied().max().unwrap_or(0))
        .filter_map(|label| {
            let of = |l: &[u8]| l.iter().map(|l| usize::from(*l == label)).sum::<usize>();
            let (a, b) = (of(&found.labels), of(&truth.labels));
            // One voxel of a label this small weighs more than the limit allows.
            let both = pairs().filter(|(a, b)| a == b && **a == label).count();
            (b >= 2000).then(|| 2.0 * both as f64 / (a + b) as f64)
        })
        .collect();
    (same as f64 / truth.labels.len() as f64, dice)
}

/// Runs one result folder over all held-out inputs; cases that were compared.
fn check(root: &Path, dataset: &str, folder: &str, way: &str) -> usize {
    let configuration = folder.rsplit("__").next().unwrap();
    let truth = root
        .join("reference")
        .join(dataset)
        .join(configuration)
        .join(way);
    if !truth.join("done").is_file() {
        println!("{dataset} {configuration} {way}: no reference yet");
        return 0;
    }
    let place = tempfile::tempdir().unwrap();
    let (home, out) = (place.path().join("home"), place.path().join("out"));
    let results = root.join("results").join(dataset).join(folder);
    let imported = run(
        &home,
        &["models", "import", results.to_str().unwrap(), "--json"],
    );
    let imported: serde_json::Value = serde_json::from_str(&imported).unwrap();
    let key = imported["imported"][0]["key"].as_str().unwrap();
    // Only the cases that were predicted by the other side.
    let inputs = place.path().join("in");
    std::fs::create_dir(&inputs).unwrap();
    let cases: Vec<String> = entries(&truth)
        .iter()
        .filter_map(|path| name(path).strip_suffix(".nii.gz").map(str::to_owned))
        .collect();
    let mut several = false;
    for file in entries(&root.join("inputs").join(dataset)) {
        let (case, channel) = name(&file)
            .strip_suffix(".nii.gz")
            .and_then(|stem| stem.rsplit_once('_'))
            .map(|(case, channel)| (case.to_owned(), channel.to_owned()))
            .unwrap();
        several |= channel == "0001";
        if cases.contains(&case) {
            std::fs::copy(&file, inputs.join(name(&file))).unwrap();
        }
    }
    let (input, output) = (inputs.to_str().unwrap(), out.to_str().unwrap());
    let mut analyze = vec!["analyze", input, "--model", key, "--out", output];
    if way != "fold0_mirrored" {
        analyze.push("--no-mirroring");
    }
    run(&home, &analyze);
    for case in &cases {
        let folder = if several {
            case.clone()
        } else {
            format!("{case}_0000")
        };
        let found = out.join(folder).join("segmentation.nii.gz");
        let (same, dice) = compare(&found, &truth.join(format!("{case}.nii.gz")));
        println!(
            "{dataset} {configuration} {way} {case}: {:.5} %, Dice {dice:.5?}",
            100.0 * same
        );
        assert!(same >= 0.9995, "{configuration} {case}");
        assert!(dice.iter().all(|d| *d >= 0.9995), "{configuration} {case}");
    }
    cases.len()
}

#[test]
fn the_program_agrees_with_nnunet_for_models_of_two_channels() {
    let Some(root) = std::env::var_os("NEGATOSCOPE_NNUNET_DATA").map(PathBuf::from) else {
        println!("skipped: NEGATOSCOPE_NNUNET_DATA is not set");
        return;
    };
    let mut compared = 0;
    for folder in [
        "nnUNetTrainer__nnUNetResEncUNetMPlans__3d_fullres",
        "nnUNetTrainer__nnUNetResEncUNetMPlans__2d",
    ] {
        for way in ["fold0", "fold0_mirrored"] {
            compared += check(&root, "Dataset405_Regions", folder, way);
        }
    }
    assert!(compared > 0);
}

#[test]
fn the_program_agrees_with_nnunet_for_one_channel_folds_and_cascades() {
    let Some(root) = std::env::var_os("NEGATOSCOPE_NNUNET_DATA").map(PathBuf::from) else {
        println!("skipped: NEGATOSCOPE_NNUNET_DATA is not set");
        return;
    };
    let mut compared = 0;
    // An imported folder runs with all its folds; the cascade's reference took its first stage's
    // labels without mirroring.
    for (configuration, ways) in [
        ("2d", &["fold0", "fold0_mirrored"][..]),
        ("3d_fullres", &["folds01"]),
        ("3d_lowres", &["fold0", "fold0_mirrored"]),
        ("3d_cascade_fullres", &["fold0"]),
    ] {
        let folder = format!("nnUNetTrainer__nnUNetPlans__{configuration}");
        for way in ways {
            compared += check(&root, "Dataset404_Hippocampus", &folder, way);
        }
    }
    assert!(compared > 0);
}
