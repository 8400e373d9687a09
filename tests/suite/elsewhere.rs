//! Networks on another machine: the same labels as here, whatever one call may carry, and what it
//! sends is believed only as far as it can be checked.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use negatoscope::import;
use negatoscope::inference::native::{Native, Workspace};
use negatoscope::inference::{
    Array, Call, Elsewhere, Error, Executor, Model, Network, Settings, forward,
};
use negatoscope::model::{Layer, PackageFiles, VerifiedPackage};
use negatoscope::task::Task;
use negatoscope::volume::Volume;

use crate::cascade::{ct, results};
use crate::engine::{package, phantom};

/// What becomes of labels on their way.
type Spoil = fn(Vec<u8>) -> Vec<u8>;

/// Another machine with the same weights, in this process.
struct Other {
    most_bytes: u64,
    layers: Option<Network>,
    graphs: HashMap<String, Native>,
    calls: Mutex<Vec<(String, usize)>>,
    /// What becomes of an answer on its way.
    spoil: Spoil,
}

impl std::fmt::Debug for Other {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Other")
    }
}

impl Other {
    fn new(package: &VerifiedPackage, most_bytes: u64) -> Self {
        Self {
            most_bytes,
            layers: Network::new(package).ok(),
            graphs: networks(package),
            calls: Mutex::default(),
            spoil: |labels| labels,
        }
    }

    fn note(&self, call: &Call<'_>) {
        let count: usize = call.shape.iter().product();
        assert_eq!(call.values.len(), count);
        let mut calls = self.calls.lock().unwrap();
        calls.push((call.part.to_owned(), 4 * count));
    }
}

/// A package's graphs by the names of its parts.
pub fn networks(package: &VerifiedPackage) -> HashMap<String, Native> {
    let manifest = package.manifest();
    let mut graphs = HashMap::new();
    let names = manifest.earlier.iter().map(|s| s.name.as_str()).chain([""]);
    for ((network, example, _), stage) in manifest.examples().into_iter().zip(names) {
        let Some(graph) = &network.graph else {
            continue;
        };
        let folds = network.members();
        for fold in &folds {
            let native = Native::of_package(package, Arc::new(graph.clone()), fold, &example);
            // `3d_lowres/fold_0/`; a fold that is alone needs no name.
            let own = fold.split('/').rev().nth(1).unwrap_or_default();
            let name = [stage, if folds.len() > 1 { own } else { "" }];
            let name: Vec<&str> = name.into_iter().filter(|n| !n.is_empty()).collect();
            graphs.insert(name.join("."), native.unwrap());
        }
    }
    graphs
}

impl Elsewhere for Other {
    fn device(&self) -> String {
        "another machine".to_owned()
    }

    fn most_bytes(&self) -> u64 {
        self.most_bytes
    }

    fn labels(&self, call: &Call<'_>, task: &Task) -> Result<Vec<u8>, Error> {
        self.note(call);
        let [1, 1, k, j, i] = call.shape else {
            panic!("{:?}", call.shape)
        };
        let network = self.layers.as_ref().expect("layers");
        let values = call.values.to_vec();
        let found = forward(network, values, [*k, *j, *i], Executor::Native, task)?;
        Ok((self.spoil)(found))
    }

    fn scores(&self, call: &Call<'_>, heads: usize, task: &Task) -> Result<Vec<f32>, Error> {
        self.note(call);
        let input = Array::new(call.shape, call.values.to_vec());
        let native = &self.graphs[call.part];
        let mut found = native.run(&input, &mut Workspace::default(), task)?;
        let points: usize = call.shape[2..].iter().product();
        assert_eq!(found[0].values.len(), heads * points);
        Ok(found.remove(0).values)
    }

    fn class_scores(&self, _: &Call<'_>, _: usize, _: &Task) -> Result<Vec<f32>, Error> {
        panic!("no model of these tests classifies")
    }
}

fn alone(package: VerifiedPackage) -> Model {
    Model::new(package, &|id| Err(format!("{id} is not there"))).unwrap()
}

fn there(other: &Arc<Other>) -> Settings {
    Settings {
        elsewhere: Some(Arc::clone(other) as Arc<dyn Elsewhere>),
        ..Settings::default()
    }
}

/// Plans and runs on both machines; the calls of the other one come back.
fn compare(model: &Model, volume: &Volume, other: &Arc<Other>) -> Vec<(String, usize)> {
    let task = Task::new();
    let here = model.run(volume, &Settings::default(), &task).unwrap();
    let settings = there(other);
    let plan = model.plan(volume, &settings, &task).unwrap();
    let found = model.run(volume, &settings, &task).unwrap();
    assert_eq!(found.segmentation.map, here.segmentation.map);
    let labels = &found.segmentation.map.labels;
    assert!(labels.iter().any(|l| *l != labels[0]), "nothing to compare");
    assert_eq!(found.segmentation.provenance.device, "another machine");
    let calls = std::mem::take(&mut *other.calls.lock().unwrap());
    // A plan made before the image was looked at may count more: what is cropped is not known yet.
    let sent: usize = calls.iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(found.plan.traffic.calls, calls.len() as u64);
    assert_eq!(found.plan.traffic.sent_bytes, sent as u64);
    assert!(plan.traffic.calls >= found.plan.traffic.calls);
    assert!(plan.traffic.sent_bytes >= found.plan.traffic.sent_bytes);
    assert!(calls.iter().all(|(_, b)| *b as u64 <= other.most_bytes));
    let here = model.plan(volume, &Settings::default(), &task).unwrap();
    assert_eq!(here.traffic.calls, 0);
    assert!(plan.seconds < here.seconds);
    calls
}

/// Layers without a norm: a label depends on three slices on each side.
pub fn local_layers() -> VerifiedPackage {
    VerifiedPackage::verify(package(|m, _| {
        m.network
            .layers
            .retain(|l| !matches!(l, Layer::InstanceNorm { .. }));
    }))
    .unwrap()
}

/// A package's outline, as another machine has it, by some name.
pub fn without_weights(package: &VerifiedPackage, id: &str) -> VerifiedPackage {
    let mut outline = package.manifest().outline().unwrap();
    id.clone_into(&mut outline.id);
    VerifiedPackage::verify(PackageFiles {
        manifest: serde_json::to_vec(&outline).unwrap(),
        weights: Vec::new(),
        signature: None,
        ..package.files().clone()
    })
    .unwrap()
}

#[test]
fn layers_give_the_same_labels_in_one_call_and_in_slabs() {
    let package = local_layers();
    let model = alone(package.clone());
    let volume = phantom([21, 17, 13]);
    let slice = 4 * 21 * 17;
    for (slices, calls) in [(13, 1), (12, 3), (9, 5), (7, 13)] {
        let other = Arc::new(Other::new(&package, slices * slice + 3));
        assert_eq!(compare(&model, &volume, &other).len(), calls, "{slices}");
    }
    // Six slices hold no slice with three on both sides.
    let other = Arc::new(Other::new(&package, 6 * slice));
    let error = model
        .run(&volume, &there(&other), &Task::new())
        .unwrap_err();
    assert!(
        error.to_string().contains("3 others on both sides"),
        "{error}"
    );
    assert!(other.calls.lock().unwrap().is_empty());
}

#[test]
fn layers_with_norms_go_whole_or_not_at_all() {
    let package = VerifiedPackage::verify(package(|_, _| {})).unwrap();
    let model = alone(package.clone());
    let volume = phantom([21, 17, 13]);
    let bytes = 4 * 21 * 17 * 13;
    let other = Arc::new(Other::new(&package, bytes));
    assert_eq!(compare(&model, &volume, &other).len(), 1);
    let other = Arc::new(Other::new(&package, bytes - 1));
    let error = model
        .plan(&volume, &there(&other), &Task::new())
        .unwrap_err();
    assert!(error.to_string().contains("whole image at once"), "{error}");
}

#[test]
fn both_stages_of_a_cascade_run_elsewhere() {
    let place = tempfile::tempdir().unwrap();
    let folder = results(place.path(), true);
    let package = import::read(&folder).unwrap().remove(0);
    let model = alone(package.clone());
    let other = Arc::new(Other::new(&package, u64::MAX));
    let calls = compare(&model, &ct(), &other);
    let of = |stage: &str| {
        calls
            .iter()
            .filter(|(part, _)| part.starts_with(stage))
            .count()
    };
    assert!(of("3d_lowres") > 0 && of("3d_lowres") < calls.len());
    // What is asked for before anything leaves is what is called.
    let called: BTreeSet<String> = calls.into_iter().map(|(part, _)| part).collect();
    assert_eq!(called, BTreeSet::from_iter(model.parts()));
    assert_eq!(model.parts(), ["3d_lowres", ""]);
    // Without the weights here, the same labels come from there.
    let here = model
        .run(&ct(), &Settings::default(), &Task::new())
        .unwrap();
    let outline = alone(without_weights(&package, "far"));
    let found = outline.run(&ct(), &there(&other), &Task::new()).unwrap();
    assert_eq!(found.segmentation.map, here.segmentation.map);
    let error = outline.run(&ct(), &Settings::default(), &Task::new());
    assert!(matches!(error, Err(Error::OnAServer(_))), "{error:?}");
}

#[test]
fn a_monai_bundle_runs_elsewhere() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/monai_bundle");
    for bundle in ["ct", "slices"] {
        let package = import::read(&folder.join("bundles").join(bundle))
            .unwrap()
            .remove(0);
        let model = alone(package.clone());
        let file = folder.join("volumes/axial.nii.gz");
        let volume = negatoscope::nifti::read(&file, &Task::new()).unwrap();
        let other = Arc::new(Other::new(&package, u64::MAX));
        assert!(!compare(&model, &volume, &other).is_empty());
        let here = model.run(&volume, &Settings::default(), &Task::new());
        let outline = alone(without_weights(&package, "far"));
        let found = outline.run(&volume, &there(&other), &Task::new()).unwrap();
        assert_eq!(found.segmentation.map, here.unwrap().segmentation.map);
    }
}

#[test]
fn what_another_machine_sends_is_checked() {
    let package = local_layers();
    let model = alone(package.clone());
    let volume = phantom([21, 17, 13]);
    let spoils: [(Spoil, &str); 2] = [
        (
            |mut labels| {
                labels[700] = 2;
                labels
            },
            "label 2",
        ),
        (
            |mut labels| {
                labels.pop();
                labels
            },
            "fewer than were asked for",
        ),
    ];
    for (spoil, words) in spoils {
        let mut other = Other::new(&package, u64::MAX);
        other.spoil = spoil;
        let error = model
            .run(&volume, &there(&Arc::new(other)), &Task::new())
            .unwrap_err();
        let Error::Elsewhere(source) = &error else {
            panic!("{error:?}")
        };
        assert!(source.to_string().contains(words), "{source}");
    }
    let task = Task::new();
    task.cancel();
    let other = Arc::new(Other::new(&package, u64::MAX));
    let error = model.run(&volume, &there(&other), &task).unwrap_err();
    assert!(matches!(error, Error::Cancelled(_)), "{error:?}");
    assert!(other.calls.lock().unwrap().is_empty());
}
