//! Models end to end: the bundled one on the phantom, brainchop's against reference results, the
//! native executor against candle's.

use std::path::PathBuf;

use negatoscope::import;
use negatoscope::inference::{Error, Executor, Model, Settings};
use negatoscope::model::{Error as ModelError, PackageFiles, Registry, VerifiedPackage};
use negatoscope::nifti;
use negatoscope::task::Task;
use negatoscope::volume::phantom::{head_geometry, head_mr};

fn settings(executor: Executor) -> Settings {
    Settings {
        executor,
        started: "2026-01-01T00:00:00Z".to_owned(),
        ..Settings::default()
    }
}

fn alone(package: VerifiedPackage) -> Model {
    Model::new(package, &|id| Err(format!("{id} is not there"))).unwrap()
}

fn data() -> Option<PathBuf> {
    let found = std::env::var_os("NEGATOSCOPE_TEST_DATA").map(PathBuf::from);
    if found.is_none() {
        println!("skipped: NEGATOSCOPE_TEST_DATA is not set");
    }
    found
}

fn bundled() -> VerifiedPackage {
    let folder = tempfile::tempdir().unwrap();
    Registry::new(folder.path().to_owned())
        .load("hippocampus-mini")
        .unwrap()
}

#[test]
fn clinical_laterality_the_bundled_model_finds_both_hippocampi_of_an_unseen_phantom() {
    let phantom = head_mr(107, head_geometry());
    let found = alone(bundled())
        .run(&phantom.volume, &settings(Executor::Native), &Task::new())
        .unwrap();
    let labels = &found.segmentation.map.labels;
    let truth = &phantom.truth.labels;
    for side in [1.0, -1.0] {
        let (mut both, mut sum) = (0.0, 0.0);
        let [ni, nj, _] = phantom.volume.geometry.dims();
        for (n, (a, b)) in labels.iter().zip(truth).enumerate() {
            let i = n % ni;
            let lps = phantom
                .volume
                .geometry
                .lps_at(negatoscope::geometry::DVec3::new(
                    i as f64,
                    (n / ni % nj) as f64,
                    (n / ni / nj) as f64,
                ));
            if lps.x * side > 0.0 {
                both += f64::from(u8::from(*a > 0 && *b > 0));
                sum += f64::from(u8::from(*a > 0)) + f64::from(u8::from(*b > 0));
            }
        }
        // The card: 0.886 ± 0.025 over six unseen seeds, worst 0.848, both sides together.
        let dice = 2.0 * both / sum;
        assert!(dice > 0.8, "side {side}: Dice {dice:.3}");
    }
}

#[test]
fn the_native_executor_equals_candle() {
    let geometry = negatoscope::geometry::VolumeGeometry::from_axes(
        [44, 52, 36],
        negatoscope::geometry::DVec3::new(5.0, -40.0, -45.0),
        [
            negatoscope::geometry::DVec3::X,
            negatoscope::geometry::DVec3::Y,
            negatoscope::geometry::DVec3::Z,
        ],
        [1.0; 3],
    )
    .unwrap();
    let phantom = head_mr(3, geometry);
    let model = alone(bundled());
    let native = model
        .run(&phantom.volume, &settings(Executor::Native), &Task::new())
        .unwrap();
    let candle = model
        .run(&phantom.volume, &settings(Executor::Candle), &Task::new())
        .unwrap();
    let labels = (
        &native.segmentation.map.labels,
        &candle.segmentation.map.labels,
    );
    let different = labels
        .0
        .iter()
        .zip(labels.1)
        .filter(|(a, b)| a != b)
        .count();
    // Equal sums in another order may tie differently in single voxels.
    assert!(
        different <= labels.0.len() / 10_000,
        "{different} voxels differ"
    );
    assert!(
        labels.0.iter().any(|l| *l > 0),
        "an empty result compares nothing"
    );
}

#[test]
fn a_run_that_does_not_fit_is_refused_with_the_numbers_and_a_cancelled_one_stops() {
    let phantom = head_mr(1, head_geometry());
    let model = alone(bundled());
    let small = Settings {
        available_bytes: 50_000_000,
        ..settings(Executor::Native)
    };
    let refused = model.run(&phantom.volume, &small, &Task::new());
    assert!(matches!(refused, Err(Error::Memory { .. })));
    let task = Task::new();
    task.cancel();
    let stopped = model.run(&phantom.volume, &settings(Executor::Native), &task);
    assert!(matches!(stopped, Err(Error::Cancelled(_))));
}

#[test]
fn a_model_for_another_modality_is_refused() {
    let volume = negatoscope::volume::Volume {
        modality: "CT".to_owned(),
        ..head_mr(1, head_geometry()).volume
    };
    let refused = alone(bundled()).run(&volume, &settings(Executor::Native), &Task::new());
    let Err(Error::Input(reason)) = refused else {
        panic!("{refused:?}")
    };
    assert!(reason.contains("CT") && reason.contains("MR"), "{reason}");
}

#[test]
fn weights_with_one_changed_byte_are_refused() {
    let mut files: PackageFiles = bundled().files().clone();
    let last = files.weights.len() - 1;
    files.weights[last] ^= 1;
    assert!(matches!(
        VerifiedPackage::verify(files),
        Err(ModelError::Hash { .. })
    ));
}

#[test]
fn brainchop_model_1_equals_the_reference_in_every_voxel() {
    let Some(data) = data() else { return };
    let mut packages = import::read(&data.join("brainchop/models/model5_gw_ae")).unwrap();
    let at = packages
        .iter()
        .position(|p| p.manifest().id == "brainchop-1")
        .unwrap();
    let model = alone(packages.swap_remove(at));
    let task = Task::new();
    let volume = nifti::read(&data.join("brainchop/t1_crop.nii.gz"), &task).unwrap();
    let found = model
        .run(&volume, &settings(Executor::Native), &task)
        .unwrap();
    let reference = data.join("brainchop/reference-output/t1_crop_id01_model5_gw_ae_labels.nii.gz");
    let reference = nifti::read_label_map(&reference, &task).unwrap();
    let labels = found.segmentation.map.labels.iter();
    let different = labels
        .zip(&reference.labels)
        .filter(|(a, b)| a != b)
        .count();
    assert!(
        different <= reference.labels.len() / 10_000,
        "{different} voxels differ"
    );
}

#[test]
fn brainchop_model_4_gives_the_published_counts() {
    let Some(data) = data() else { return };
    let mut packages = import::read(&data.join("brainchop/models/model30chan18cls")).unwrap();
    let at = packages
        .iter()
        .position(|p| p.manifest().id == "brainchop-4")
        .unwrap();
    let model = alone(packages.swap_remove(at));
    let task = Task::new();
    let volume = nifti::read(&data.join("brainchop/t1_crop.nii.gz"), &task).unwrap();
    let found = model
        .run(&volume, &settings(Executor::Native), &task)
        .unwrap();
    let counts = found.segmentation.map.counts();
    let near = |got: u64, want: u64| got.abs_diff(want) * 1000 <= want;
    let label = |name: &str| {
        let segment = found.segmentation.segments.iter().find(|s| s.name == name);
        counts[usize::from(segment.unwrap().label)]
    };
    assert!(near(counts[1..].iter().sum(), 1_317_856));
    assert!(near(label("Hippocampus"), 8_943));
    assert!(near(label("Thalamus"), 17_404));
}

#[test]
fn all_eight_brainchop_models_load() {
    let Some(data) = data() else { return };
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(data.join("brainchop/models")).unwrap() {
        for package in import::read(&entry.unwrap().path()).unwrap() {
            ids.push(package.manifest().id.clone());
        }
    }
    ids.sort();
    assert_eq!(ids.len(), 17);
    assert!(ids.iter().any(|id| id == "brainchop-16"));
}

#[test]
fn a_package_is_installed_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::new(folder.path().to_owned());
    // A copy under another name, since the bundled one needs no installing.
    let with_name = |name: &str| {
        let original = bundled();
        let files = original.files();
        let mut manifest = original.manifest().clone();
        manifest.id = "copy".to_owned();
        manifest.name = name.to_owned();
        VerifiedPackage::verify(PackageFiles {
            manifest: serde_json::to_vec(&manifest).unwrap(),
            weights: files.weights.clone(),
            card: files.card.clone(),
            signature: None,
            path: PathBuf::from("copy"),
        })
        .unwrap()
    };
    let place = registry.install(&with_name("first"), false).unwrap();
    let parent = place.parent().unwrap();
    // What a kill in the middle of a later install leaves behind is no model.
    let torn = parent.join(".1.0.0.part");
    std::fs::create_dir(&torn).unwrap();
    std::fs::write(torn.join("manifest.json"), b"{").unwrap();
    assert_eq!(registry.find("copy").unwrap().manifest.name, "first");
    assert!(
        registry
            .verify_all()
            .iter()
            .all(|(_, outcome)| outcome.is_ok())
    );
    // The next install takes it away and replaces the package.
    registry.install(&with_name("second"), false).unwrap();
    assert_eq!(registry.find("copy").unwrap().manifest.name, "second");
    assert_eq!(std::fs::read_dir(parent).unwrap().count(), 1);
}
