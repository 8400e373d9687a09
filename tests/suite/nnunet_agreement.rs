//! Whole predictions against nnU-Net's own: the same result folder, the same scans.
//!
//! The truth is made by `tests/golden/nnunet/make.py` and too large to keep; `NEGATOSCOPE_NNUNET_DATA`
//! names its folder.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use negatoscope::import::nnunet::{self, Trained};
use negatoscope::inference::native::{Native, Workspace};
use negatoscope::inference::procedure::{
    Accumulator, Image, Labels, NetworkError, PatchNetwork, PreviousStage, plan_stream,
    predict_streamed, prepare,
};
use negatoscope::inference::{Array, Program};
use negatoscope::nifti;
use negatoscope::task::Task;

struct Ensemble {
    networks: Vec<(Native, Workspace)>,
    channels: usize,
    patch: Vec<usize>,
}

impl PatchNetwork for Ensemble {
    fn run(
        &mut self,
        fold: usize,
        patch: &[f32],
        take: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), NetworkError> {
        let (native, workspace) = &mut self.networks[fold];
        let shape = [&[1, self.channels], self.patch.as_slice()].concat();
        let logits = native.run(&Array::new(&shape, patch.to_vec()), workspace, &Task::new())?;
        take(0, &logits[0].values);
        Ok(())
    }
}

fn network(trained: &Trained, folds: usize) -> Ensemble {
    let graph = Arc::new(trained.graph.clone());
    let patch = trained.configuration.patch_size.clone();
    let native = |fold: &nnunet::Fold| {
        let weights: HashMap<String, Array> = fold
            .tensors()
            .iter()
            .enumerate()
            .map(|(n, (name, tensor))| {
                let array = Array::new(tensor.shape(), fold.read(n).unwrap());
                (name.clone(), array)
            })
            .collect();
        Native::new(Program::new(graph.clone(), weights, &patch).unwrap()).unwrap()
    };
    Ensemble {
        networks: trained.folds[..folds]
            .iter()
            .map(|fold| (native(fold), Workspace::default()))
            .collect(),
        channels: graph.input().unwrap().0,
        patch,
    }
}

/// Samples in the file's order, which SimpleITK gives as z, y, x, and the spacing in that order.
fn read_image(files: &[PathBuf]) -> (Image, [f64; 3]) {
    let (mut data, mut grid) = (Vec::new(), None);
    for file in files {
        let volume = nifti::read(file, &Task::new()).unwrap();
        let [i, j, k] = volume.geometry.dims();
        let [di, dj, dk] = volume.geometry.spacing_mm();
        let slice = i * j;
        data.extend((0..volume.voxels.len()).map(|n| {
            let stored = volume.voxels.stored(n);
            volume.modality_lut.apply(stored, n / slice)
        }));
        grid = Some(([k, j, i], [dk, dj, di]));
    }
    let (dims, spacing) = grid.unwrap();
    (Image::new(files.len(), dims, data).unwrap(), spacing)
}

fn read_labels(file: &Path) -> Labels {
    let map = nifti::read_label_map(file, &Task::new()).unwrap();
    let [i, j, k] = map.geometry.dims();
    Labels {
        dims: [k, j, i],
        data: map.labels,
    }
}

/// Parts of the voxels that agree, and the Dice of each label that the truth has.
fn agreement(found: &Labels, truth: &Labels) -> (f64, Vec<f64>) {
    assert_eq!(found.dims, truth.dims);
    let pairs = || found.data.iter().zip(&truth.data);
    let same = pairs().filter(|(a, b)| a == b).count();
    let most = truth.data.iter().copied().max().unwrap();
    let dice = (1..=most)
        .filter(|label| truth.data.contains(label))
        .map(|label| {
            let both = pairs()
                .filter(|(a, b)| **a == label && **b == label)
                .count();
            let sizes = pairs().fold(0, |n, (a, b)| {
                n + usize::from(*a == label) + usize::from(*b == label)
            });
            2.0 * both as f64 / sizes as f64
        })
        .collect();
    (same as f64 / truth.data.len() as f64, dice)
}

#[test]
fn predictions_agree_with_nnunet_voxel_by_voxel() {
    let Some(root) = std::env::var_os("NEGATOSCOPE_NNUNET_DATA").map(PathBuf::from) else {
        println!("skipped: NEGATOSCOPE_NNUNET_DATA is not set");
        return;
    };
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let mut found: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        found.sort();
        found
    };
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let (mut compared, mut with_labels) = (0, 0);
    for dataset in entries(&root.join("results")) {
        for model in entries(&dataset) {
            let trained = nnunet::open(&model).unwrap();
            let reference = root.join("reference").join(name(&dataset));
            let mut procedure = trained.procedure(&model).unwrap();
            let allowed = procedure.windows.mirror_axes.clone();
            for (way, folds, mirrored) in [
                ("fold0", 1, false),
                ("fold0_mirrored", 1, true),
                ("folds01", 2, false),
            ] {
                let truth = reference.join(&trained.configuration.name).join(way);
                if !truth.join("done").is_file() {
                    continue;
                }
                procedure.windows.mirror_axes = if mirrored {
                    allowed.clone()
                } else {
                    Vec::new()
                };
                let mut network = network(&trained, folds);
                for file in entries(&truth) {
                    let Some(case) = name(&file).strip_suffix(".nii.gz").map(str::to_owned) else {
                        continue;
                    };
                    let channels: Vec<PathBuf> = (0..trained.dataset.channels.len())
                        .map(|c| {
                            root.join("inputs")
                                .join(name(&dataset))
                                .join(format!("{case}_{c:04}.nii.gz"))
                        })
                        .collect();
                    let (image, spacing) = read_image(&channels);
                    let before = trained.configuration.previous_stage.as_ref().map(|stage| {
                        let folder = reference.join(stage).join("fold0");
                        read_labels(&folder.join(format!("{case}.nii.gz")))
                    });
                    let foreground: Vec<u8> = trained
                        .dataset
                        .foreground_labels()
                        .iter()
                        .map(|l| *l as u8)
                        .collect();
                    let previous = before.as_ref().map(|labels| PreviousStage {
                        labels,
                        foreground: &foreground,
                    });
                    let task = Task::new();
                    let rule = &procedure.preprocessing;
                    let prepared = prepare(image, spacing, rule, previous, &task).unwrap();
                    let half = Accumulator::Half;
                    let plan =
                        plan_stream(&prepared.grids, &procedure, folds, half, 1 << 30).unwrap();
                    let found = predict_streamed(&prepared, &procedure, &plan, &mut network, &task)
                        .unwrap();
                    let expected = read_labels(&file);
                    let (same, dice) = agreement(&found, &expected);
                    println!(
                        "{} {} {way} {case}: {:.5} % of {} voxels, Dice {dice:.5?}",
                        name(&dataset),
                        trained.configuration.name,
                        100.0 * same,
                        expected.data.len()
                    );
                    assert!(same >= 0.9995, "{way} {case}");
                    // One voxel of a label this small weighs more than the limit allows.
                    for (n, dice) in dice.iter().enumerate() {
                        let size = expected.data.iter().filter(|l| usize::from(**l) == n + 1);
                        assert!(*dice >= 0.9995 || size.count() < 2000, "{way} {case} {n}");
                    }
                    compared += 1;
                    with_labels += usize::from(!dice.is_empty());
                }
            }
        }
    }
    assert!(compared > 0 && with_labels * 2 > compared);
}
