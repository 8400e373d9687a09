//! Cascades: imported with all their stages, run one after the other, the first shown at once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use negatoscope::geometry::{DVec3, VolumeGeometry};
use negatoscope::import::{self, nnunet};
use negatoscope::inference::native::{Native, Workspace};
use negatoscope::inference::procedure::{
    Accumulator, Image, Labels, NetworkError, PatchNetwork, PreviousStage, plan_stream,
    predict_streamed, prepare,
};
use negatoscope::inference::{Array, Model, Program, Settings, Watch};
use negatoscope::model::VerifiedPackage;
use negatoscope::task::Task;
use negatoscope::volume::{
    Calibration, Layout, ModalityLut, Quantity, SourceSeries, Volume, Voxels,
};

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/nnunet")
        .join(case)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// A training's result folders side by side, as nnU-Net leaves them; the cascade's one comes back.
pub fn results(place: &Path, with_first_stage: bool) -> PathBuf {
    let named =
        |configuration: &str| place.join(format!("nnUNetTrainer__nnUNetPlans__{configuration}"));
    copy(&golden("cascade_3d"), &named("3d_cascade_fullres"));
    if with_first_stage {
        copy(&golden("lowres_3d"), &named("3d_lowres"));
    }
    named("3d_cascade_fullres")
}

/// Smooth waves, so that random networks find more than one label.
pub fn ct() -> Volume {
    let [ni, nj, nk] = [18, 15, 11];
    let stored = (0..ni * nj * nk)
        .map(|n| {
            let (i, j, k) = (n % ni, n / ni % nj, n / ni / nj);
            let wave = (i as f32 * 0.7).sin() + (j as f32 * 0.5).cos() + (k as f32 * 0.9).sin();
            (120.0 * wave) as i16 + 100
        })
        .collect();
    Volume {
        geometry: VolumeGeometry::from_axes(
            [ni, nj, nk],
            DVec3::new(5.0, -3.0, 2.0),
            [DVec3::X, DVec3::Y, DVec3::Z],
            [1.0, 0.9, 2.5],
        )
        .unwrap(),
        voxels: Voxels::I16(stored),
        modality_lut: ModalityLut::IDENTITY,
        quantity: Quantity::Hounsfield,
        modality: "CT".to_owned(),
        layout: Layout::Volumetric,
        calibration: Calibration::Patient,
        inverted: false,
        windows: vec![],
        padding: None,
        frame_rate: None,
        source: SourceSeries::default(),
        issues: vec![],
    }
}

struct One {
    native: Native,
    shape: Vec<usize>,
}

impl PatchNetwork for One {
    fn run(
        &mut self,
        _: usize,
        patch: &[f32],
        take: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), NetworkError> {
        let input = Array::new(&self.shape, patch.to_vec());
        let found = self
            .native
            .run(&input, &mut Workspace::default(), &Task::new())?;
        take(0, &found[0].values);
        Ok(())
    }
}

/// One stage by the procedure's own functions.
fn stage(folder: &Path, volume: &Volume, before: Option<&Labels>) -> Labels {
    stage_along(folder, volume, before, None)
}

/// One stage, mirrored along these axes in place of the plans'.
fn stage_along(
    folder: &Path,
    volume: &Volume,
    before: Option<&Labels>,
    axes: Option<Vec<usize>>,
) -> Labels {
    let trained = nnunet::open(folder).unwrap();
    let mut procedure = trained.procedure(folder).unwrap();
    if let Some(axes) = axes {
        procedure.windows.mirror_axes = axes;
    }
    let [ni, nj, nk] = volume.geometry.dims();
    let [x, y, z] = volume.geometry.spacing_mm();
    let image = Image::new(1, [nk, nj, ni], volume.values()).unwrap();
    let previous = before.map(|labels| PreviousStage {
        labels,
        foreground: &[1, 2],
    });
    let task = Task::new();
    let rule = &procedure.preprocessing;
    let prepared = prepare(image, [z, y, x], rule, previous, &task).unwrap();
    let fold = &trained.folds[0];
    let weights: HashMap<String, Array> = fold
        .tensors()
        .iter()
        .enumerate()
        .map(|(n, (name, tensor))| {
            let array = Array::new(tensor.shape(), fold.read(n).unwrap());
            (name.clone(), array)
        })
        .collect();
    let patch = &trained.configuration.patch_size;
    let program = Program::new(Arc::new(trained.graph.clone()), weights, patch).unwrap();
    let mut network = One {
        native: Native::new(program).unwrap(),
        shape: [&[1, procedure.input_channels], patch.as_slice()].concat(),
    };
    let plan = plan_stream(&prepared.grids, &procedure, 1, Accumulator::Half, u64::MAX).unwrap();
    predict_streamed(&prepared, &procedure, &plan, &mut network, &task).unwrap()
}

/// As much memory as this.
fn of(available_bytes: u64) -> Settings {
    Settings {
        available_bytes,
        ..Settings::default()
    }
}

/// A stage in words, and its labels.
type Seen = (String, Vec<u8>);

#[test]
fn a_cascade_runs_its_stages_and_shows_the_first_one_at_once() {
    let place = tempfile::tempdir().unwrap();
    let folder = results(place.path(), true);
    let package = import::read(&folder).unwrap().remove(0);
    let names: Vec<&str> = package
        .manifest()
        .earlier
        .iter()
        .map(|s| s.name.as_str())
        .collect();
    assert_eq!(names, ["3d_lowres"]);
    let model = Model::new(package, &|_| Err(String::new())).unwrap();
    let volume = ct();
    let first = stage(
        &folder.with_file_name("nnUNetTrainer__nnUNetPlans__3d_lowres"),
        &volume,
        None,
    );
    let second = stage(&folder, &volume, Some(&first));
    assert_ne!(first.data, second.data);
    assert!(first.data.iter().any(|l| *l != first.data[0]));

    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let keep = Arc::clone(&seen);
    let settings = Settings {
        watch: Some(Watch(Arc::new(move |preview| {
            let labels = preview.segmentation.map.labels;
            keep.lock().unwrap().push((preview.stage, labels));
        }))),
        ..Settings::default()
    };
    let before = model.plan(&volume, &settings, &Task::new()).unwrap();
    let found = model.run(&volume, &settings, &Task::new()).unwrap();
    assert_eq!(found.segmentation.map.labels, second.data);
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0].0, "First pass (3d lowres)");
    let refined = seen.iter().find(|(stage, _)| stage == "Being refined");
    // What the second pass has not reached yet shows the first.
    let shown = &refined.unwrap().1;
    let pairs = shown.iter().zip(&first.data).zip(&second.data);
    assert!(pairs.clone().all(|((s, a), b)| s == a || s == b));

    // Weights that are there already are not asked for again.
    let again = model.plan(&volume, &settings, &Task::new()).unwrap();
    assert!(again.needed_bytes < before.needed_bytes);
    assert!((again.flops - before.flops).abs() < 1.0);
    let refused = model.plan(&volume, &of(1000), &Task::new());
    assert!(refused.is_err());
}

#[test]
fn mirrored_passes_are_left_out_of_every_stage_when_asked() {
    let place = tempfile::tempdir().unwrap();
    let folder = results(place.path(), true);
    let package = import::read(&folder).unwrap().remove(0);
    assert!(!package.manifest().mirrors());
    // As a training with mirroring leaves it.
    let (mut manifest, mut files) = (package.manifest().clone(), package.files().clone());
    let earlier = manifest
        .earlier
        .iter_mut()
        .map(|stage| &mut stage.procedure);
    for procedure in earlier.chain(&mut manifest.procedure) {
        procedure.windows.mirror_axes = vec![0, 1, 2];
    }
    assert!(manifest.mirrors());
    files.manifest = serde_json::to_vec(&manifest).unwrap();
    let package = VerifiedPackage::verify(files).unwrap();
    let model = Model::new(package, &|_| Err(String::new())).unwrap();
    let volume = ct();
    let beside = folder.with_file_name("nnUNetTrainer__nnUNetPlans__3d_lowres");
    let stages = |axes: &[usize]| {
        let first = stage_along(&beside, &volume, None, Some(axes.to_vec()));
        stage_along(&folder, &volume, Some(&first), Some(axes.to_vec())).data
    };
    let (plain, turned) = (stages(&[]), stages(&[0, 1, 2]));
    assert_ne!(plain, turned);
    let with = |mirroring| {
        let settings = Settings {
            mirroring,
            ..Settings::default()
        };
        let plan = model.plan(&volume, &settings, &Task::new()).unwrap();
        let found = model.run(&volume, &settings, &Task::new()).unwrap();
        let said = &found.segmentation.provenance.parameters;
        let said = said.iter().find(|(name, _)| name == "mirroring").unwrap();
        (plan, found.segmentation.map.labels, said.1.clone())
    };
    let (planned, labels, said) = with(false);
    assert_eq!(labels, plain);
    assert_eq!(said, "left out");
    let (mirrored, labels, said) = with(true);
    assert_eq!(labels, turned);
    assert_eq!(said, "as the plans say");
    // Three axes: eight passes in place of one.
    assert!((mirrored.flops / planned.flops - 8.0).abs() < 1e-9);
    assert!(planned.seconds < mirrored.seconds);
}

#[test]
fn a_cascade_without_its_first_stage_is_refused_by_the_folders_name() {
    let place = tempfile::tempdir().unwrap();
    let folder = results(place.path(), false);
    let text = import::read(&folder).unwrap_err().to_string();
    assert!(text.contains("result folder is missing"), "{text}");
    assert!(
        text.contains("nnUNetTrainer__nnUNetPlans__3d_lowres"),
        "{text}"
    );
}

#[test]
fn a_first_stage_of_another_training_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let folder = results(place.path(), true);
    let beside = folder.with_file_name("nnUNetTrainer__nnUNetPlans__3d_lowres");
    std::fs::remove_dir_all(&beside).unwrap();
    copy(&golden("residual_3d"), &beside);
    let text = import::read(&folder).unwrap_err().to_string();
    assert!(
        text.contains("another configuration (3d_fullres)"),
        "{text}"
    );
}

#[test]
fn clinical_laterality_an_orientation_stated_at_import_is_recorded_and_followed() {
    let of = |orientation| {
        let packages = import::read_stored_as(&golden("lowres_3d"), orientation).unwrap();
        packages.into_iter().next().unwrap()
    };
    let (stored, stated) = (of(None), of(Some("RPI")));
    let limits = |p: &negatoscope::model::VerifiedPackage| p.manifest().limits.join("\n");
    assert!(limits(&stored).contains("does not say which that was"));
    assert!(limits(&stated).contains("stated that training took scans stored as RPI"));
    assert_eq!(
        stated.manifest().origin["orientation"],
        "RPI, stated at import"
    );
    assert!(import::read_stored_as(&golden("lowres_3d"), Some("RAX")).is_err());

    // A scan stored so runs as it is; the same scan stored otherwise gives the same labels there.
    let model = Model::new(stated, &|_| Err(String::new())).unwrap();
    let settings = Settings::default();
    let volume = ct();
    let found = model.run(&volume, &settings, &Task::new()).unwrap();
    let mut turned = ct();
    let [ni, nj, nk] = volume.geometry.dims();
    turned.geometry = VolumeGeometry::from_axes(
        [ni, nj, nk],
        volume
            .geometry
            .lps_at(DVec3::new(ni as f64 - 1.0, 0.0, nk as f64 - 1.0)),
        [DVec3::NEG_X, DVec3::Y, DVec3::NEG_Z],
        volume.geometry.spacing_mm(),
    )
    .unwrap();
    let place = |n: usize| {
        let (i, j, k) = (n % ni, n / ni % nj, n / ni / nj);
        ((nk - 1 - k) * nj + j) * ni + ni - 1 - i
    };
    let Voxels::I16(stored) = &volume.voxels else {
        unreachable!()
    };
    turned.voxels = Voxels::I16((0..stored.len()).map(|n| stored[place(n)]).collect());
    let other = model.run(&turned, &settings, &Task::new()).unwrap();
    let back: Vec<u8> = (0..stored.len())
        .map(|n| other.segmentation.map.labels[place(n)])
        .collect();
    assert_eq!(found.segmentation.map.labels, back);
    assert!(back.iter().any(|l| *l != back[0]));
}

#[test]
fn a_run_takes_less_when_less_is_free_before_it_is_refused() {
    let packages = import::read(&golden("plain_3d")).unwrap();
    let model = Model::new(
        packages.into_iter().next().unwrap(),
        &|_| Err(String::new()),
    )
    .unwrap();
    let volume = ct();
    let task = Task::new();
    let plan = |available| {
        model
            .plan(&volume, &of(available), &task)
            .map(|p| p.needed_bytes)
    };
    let free = plan(u64::MAX).unwrap();
    let (mut refused, mut enough) = (0, free);
    while enough - refused > 1 {
        let middle = refused.midpoint(enough);
        match plan(middle) {
            Ok(needed) if needed <= middle => enough = middle,
            _ => refused = middle,
        }
    }
    assert!(enough < free, "{enough} of {free}");
    let with = |available_bytes| {
        let settings = Settings {
            available_bytes,
            ..Settings::default()
        };
        model.run(&volume, &settings, &task)
    };
    // Weights are packed by the first run; the refusal comes before that.
    let error = with(refused).unwrap_err().to_string();
    assert!(error.contains("the run needs"), "{error}");
    let small = with(enough).unwrap().segmentation.map.labels;
    let large = with(u64::MAX).unwrap().segmentation.map.labels;
    // Two folds summed together may round otherwise.
    let same = small.iter().zip(&large).filter(|(a, b)| a == b).count();
    assert!(
        same * 1000 >= small.len() * 999,
        "{same} of {}",
        small.len()
    );
}
