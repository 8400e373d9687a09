//! Models from files to labels: import, proof of integrity, and agreement with brainchop.
#![expect(clippy::naive_bytecount, reason = "labels are counted, not text")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use negatoscope::geometry::{DMat3, DVec3, VolumeGeometry};
use negatoscope::import;
use negatoscope::inference::{Error, Executor, Found, Model, Settings};
use negatoscope::model::{
    Conform, Input, Label, Layer, MANIFEST_SHAPE, Manifest, Network, Normalization, Output,
    OutputKind, PackageFiles, Registry, VerifiedPackage, sha256_hex,
};
use negatoscope::nifti;
use negatoscope::study::CodedConcept;
use negatoscope::task::Task;
use negatoscope::volume::{
    Calibration, Interpolation, LabelMap, Layout, ModalityLut, Quantity, SourceSeries, Volume,
    Voxels, resample_labels, resample_volume,
};
use safetensors::tensor::{Dtype, TensorView};

fn data() -> Option<PathBuf> {
    let found = std::env::var_os("NEGATOSCOPE_TEST_DATA").map(PathBuf::from);
    if found.is_none() {
        println!("skipped: NEGATOSCOPE_TEST_DATA is not set");
    }
    found
}

fn settings(executor: Executor) -> Settings {
    Settings {
        executor,
        started: "2026-01-01T00:00:00Z".to_owned(),
        ..Settings::default()
    }
}

/// All packages of brainchop's folders, by id.
fn brainchop(data: &Path) -> BTreeMap<String, VerifiedPackage> {
    let mut packages = BTreeMap::new();
    for entry in std::fs::read_dir(data.join("brainchop/models")).unwrap() {
        for package in import::read(&entry.unwrap().path()).unwrap() {
            packages.insert(package.manifest().id.clone(), package);
        }
    }
    packages
}

fn run_on(data: &Path, id: &str, volume: &Volume) -> Found {
    let packages = brainchop(data);
    let load = |id: &str| packages.get(id).cloned().ok_or_else(|| "none".to_owned());
    let model = Model::new(packages[id].clone(), &load).unwrap();
    model
        .run(volume, &settings(Executor::Native), &Task::new())
        .unwrap()
}

fn head(data: &Path) -> Volume {
    nifti::read(&data.join("brainchop/t1_crop.nii.gz"), &Task::new()).unwrap()
}

/// Voxels of a label by its name; of all labels for `foreground`.
fn count(found: &Found, name: &str) -> usize {
    let labels = &found.segmentation.map.labels;
    if name == "foreground" {
        return labels.iter().filter(|l| **l != 0).count();
    }
    let segments = found.segmentation.segments.iter();
    let wanted: Vec<u8> = segments
        .filter(|s| s.name.eq_ignore_ascii_case(name))
        .map(|s| s.label)
        .collect();
    assert_eq!(wanted.len(), 1, "one segment is called {name}");
    labels.iter().filter(|l| **l == wanted[0]).count()
}

fn check_counts(id: &str, expected: &[(&str, usize)]) {
    let Some(data) = data() else { return };
    let found = run_on(&data, id, &head(&data));
    for (name, want) in expected {
        let got = count(&found, name);
        println!("{id} {name}: {got}, expected {want}");
        // Sums of f32 in another order move single voxels at borders.
        assert!(
            got.abs_diff(*want) as f64 <= 0.001 * *want as f64,
            "{id} {name}: {got}, expected {want}"
        );
    }
}

#[test]
fn all_brainchop_folders_become_packages_with_the_published_networks() {
    let Some(data) = data() else { return };
    let packages = brainchop(&data);
    assert_eq!(packages.len(), 17);
    // Parameters, channels, dilations and classes as brainchop's documents give them.
    let wave = vec![1, 2, 4, 8, 16, 8, 4, 2, 1, 1];
    let mut grab = [16, 8, 4, 2, 1].repeat(5);
    grab.push(1);
    for (id, parameters, channels, dilations, classes) in [
        ("brainchop-1", 5_598, 5, wave.clone(), 3),
        (
            "brainchop-11",
            23_290,
            11,
            vec![1, 2, 4, 8, 4, 2, 2, 1, 1],
            3,
        ),
        ("brainchop-2", 87_183, 20, wave.clone(), 3),
        ("brainchop-6", 96_408, 21, wave.clone(), 18),
        ("brainchop-4", 196_038, 30, wave.clone(), 18),
        ("brainchop-8", 197_030, 30, wave, 50),
        (
            "brainchop-14",
            86_372,
            21,
            vec![1, 2, 2, 4, 4, 8, 8, 16, 1],
            104,
        ),
        ("brainchop-16", 146_237, 15, grab, 2),
    ] {
        let manifest = packages[id].manifest();
        let mut found = (0, Vec::new());
        for layer in &manifest.network.layers {
            if let Layer::Conv3d {
                bias,
                input,
                output,
                kernel,
                dilation,
                ..
            } = layer
            {
                found.0 += input * output * kernel.pow(3) + bias.as_ref().map_or(0, |_| *output);
                found.1.push(*dilation);
                assert!(*output == channels || *output == classes, "{id}");
            }
        }
        assert_eq!((found.0, found.1), (parameters, dilations), "{id}");
        assert_eq!(manifest.classes(), classes, "{id}");
        assert_eq!(manifest.modality, "MR");
    }
    let pre = |id: &str| {
        packages[id]
            .manifest()
            .input
            .crop
            .as_ref()
            .unwrap()
            .pre_model
            .clone()
    };
    assert_eq!(pre("brainchop-7").as_deref(), Some("brainchop-1"));
    assert_eq!(pre("brainchop-15"), None);
}

#[test]
fn brainchop_1_equals_the_reference_label_map() {
    let Some(data) = data() else { return };
    let found = run_on(&data, "brainchop-1", &head(&data));
    let path = "brainchop/reference-output/t1_crop_id01_model5_gw_ae_labels.nii.gz";
    let want = nifti::read_label_map(&data.join(path), &Task::new()).unwrap();
    let map = &found.segmentation.map;
    assert!(map.geometry.same_grid(&want.geometry, 1e-4));
    let pairs = map.labels.iter().zip(&want.labels);
    let differ = pairs.filter(|(a, b)| a != b).count();
    println!(
        "brainchop-1: {differ} of {} voxels differ",
        want.labels.len()
    );
    assert!(
        differ as f64 <= 1e-4 * want.labels.len() as f64,
        "{differ} voxels differ"
    );
    assert_eq!(map.labels.len(), want.labels.len());
}

#[test]
fn brainchop_4_finds_the_published_voxel_counts() {
    check_counts(
        "brainchop-4",
        &[
            ("foreground", 1_317_856),
            ("Hippocampus", 8_943),
            ("Thalamus", 17_404),
        ],
    );
}

#[test]
#[ignore = "a minute of computing; brainchop-4 runs the same path"]
fn brainchop_2_finds_the_published_voxel_counts() {
    check_counts(
        "brainchop-2",
        &[("White Matter", 595_634), ("Grey Matter", 711_441)],
    );
}

#[test]
#[ignore = "a minute of computing; instance norm has its own tests"]
fn brainchop_16_finds_the_published_voxel_count() {
    check_counts("brainchop-16", &[("foreground", 1_647_232)]);
}

#[test]
#[ignore = "two runs of a large network"]
fn clinical_laterality_an_oblique_head_gives_the_same_volumes_in_the_same_place() {
    let Some(data) = data() else { return };
    let straight = head(&data);
    // A sagittal-like stack, turned about two axes, values as a scanner would store them.
    let turn = DMat3::from_rotation_z(0.2) * DMat3::from_rotation_x(0.15);
    let axes = [DVec3::Y, DVec3::NEG_Z, DVec3::NEG_X].map(|a| turn * a);
    let middle = straight.geometry.lps_at(DVec3::splat(127.5));
    let origin = middle - (axes[0] + axes[1] + axes[2]) * 139.5;
    let geometry = VolumeGeometry::from_axes([280; 3], origin, axes, [1.0; 3]).unwrap();
    let task = Task::new();
    let values = resample_volume(&straight, &geometry, Interpolation::Linear, 0.0, &task).unwrap();
    let voxels = Voxels::I16(values.iter().map(|v| (v * 4.0).round() as i16).collect());
    let oblique = Volume {
        geometry,
        voxels,
        modality: "MR".to_owned(),
        ..straight.clone()
    };
    let (a, b) = (
        run_on(&data, "brainchop-4", &straight),
        run_on(&data, "brainchop-4", &oblique),
    );
    for name in ["foreground", "Hippocampus", "Thalamus"] {
        let (x, y) = (count(&a, name) as f64, count(&b, name) as f64);
        println!("{name}: {x} straight, {y} oblique");
        assert!(
            (x - y).abs() <= 0.02 * x,
            "{name}: {x} and {y} voxels of 1 mm³"
        );
    }
    // On the straight grid again the two agree voxel by voxel: nothing is mirrored or shifted.
    let back = resample_labels(&b.segmentation.map, &straight.geometry, &task).unwrap();
    let same = a.segmentation.map.labels.iter().zip(&back.labels);
    let both = same.filter(|(x, y)| **x != 0 && x == y).count();
    let dice = 2.0 * both as f64 / (count(&a, "foreground") + count(&b, "foreground")) as f64;
    println!("same label: {dice:.3}");
    assert!(dice > 0.9, "labels agree in {dice}");
}

/// A small network: 1 → 3 (elu) → 4 (norm, gelu) → 2, with weights from a seed.
pub fn package(
    change: impl FnOnce(&mut Manifest, &mut BTreeMap<String, Vec<f32>>),
) -> PackageFiles {
    let conv = |name: &str, input, output, kernel, dilation| Layer::Conv3d {
        weight: format!("{name}.weight"),
        bias: Some(format!("{name}.bias")),
        input,
        output,
        kernel,
        dilation,
    };
    let mut state = 1_u32;
    let mut weights = BTreeMap::new();
    let mut shapes = BTreeMap::new();
    for (name, input, output, kernel) in [("a", 1, 3, 3), ("b", 3, 4, 3), ("c", 4, 2, 1_usize)] {
        for (part, shape) in [
            ("weight", vec![output, input, kernel, kernel, kernel]),
            ("bias", vec![output]),
        ] {
            let values: Vec<f32> = (0..shape.iter().product::<usize>())
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 8) as f32 / (1 << 23) as f32 - 1.0
                })
                .collect();
            weights.insert(format!("{name}.{part}"), values);
            shapes.insert(format!("{name}.{part}"), shape);
        }
    }
    let concept = CodedConcept::new("123037004", "SCT", "Anatomical Structure");
    let mut manifest = Manifest {
        shape: MANIFEST_SHAPE.to_owned(),
        id: "small".to_owned(),
        version: "1.0.0".to_owned(),
        name: "Small".to_owned(),
        license: "CC0-1.0".to_owned(),
        intended_use: "tests".to_owned(),
        limits: vec![],
        training_data: "none".to_owned(),
        modality: "MR".to_owned(),
        envelope: negatoscope::model::Envelope::default(),
        input: Input {
            conform: Conform::Grid {
                spacing_mm: [1.0; 3],
                orientation: "LPS".to_owned(),
            },
            normalization: Normalization::ZScore,
            crop: None,
            channels: vec![],
        },
        network: Network {
            layers: vec![
                conv("a", 1, 3, 3, 2),
                Layer::Elu,
                conv("b", 3, 4, 3, 1),
                Layer::InstanceNorm { epsilon: 1e-5 },
                Layer::Gelu,
                conv("c", 4, 2, 1, 1),
            ],
            ..Network::default()
        },
        procedure: None,
        output: Output {
            kind: OutputKind::Segmentation,
            largest_component: false,
        },
        monai: None,
        classification: None,
        earlier: Vec::new(),
        labels: vec![Label {
            label: 1,
            name: "One".to_owned(),
            color: [255, 0, 0],
            category: concept.clone(),
            property: concept,
        }],
        weights_sha256: String::new(),
        origin: BTreeMap::new(),
    };
    change(&mut manifest, &mut weights);
    let bytes: BTreeMap<String, Vec<u8>> = weights
        .iter()
        .map(|(n, v)| (n.clone(), v.iter().flat_map(|x| x.to_le_bytes()).collect()))
        .collect();
    let views = bytes.iter().map(|(name, bytes)| {
        let view = TensorView::new(Dtype::F32, shapes[name].clone(), bytes).unwrap();
        (name.clone(), view)
    });
    let weights = safetensors::serialize(views, None).unwrap();
    if manifest.weights_sha256.is_empty() {
        manifest.weights_sha256 = sha256_hex(&weights);
    }
    PackageFiles {
        manifest: serde_json::to_vec(&manifest).unwrap(),
        weights,
        card: None,
        signature: None,
        path: PathBuf::from("small"),
    }
}

pub fn phantom(dims: [usize; 3]) -> Volume {
    let geometry = VolumeGeometry::from_axes(
        dims,
        DVec3::new(-10.0, 5.0, 3.0),
        [DVec3::X, DVec3::Y, DVec3::Z],
        [1.0; 3],
    )
    .unwrap();
    let values = (0..geometry.voxel_count())
        .map(|n| ((n * 7919) % 257) as i16)
        .collect();
    Volume {
        geometry,
        voxels: Voxels::I16(values),
        modality_lut: ModalityLut::IDENTITY,
        quantity: Quantity::Arbitrary,
        modality: "MR".to_owned(),
        layout: Layout::Volumetric,
        calibration: Calibration::Patient,
        inverted: false,
        windows: Vec::new(),
        padding: None,
        frame_rate: None,
        source: SourceSeries::default(),
        issues: Vec::new(),
    }
}

fn small_model() -> Model {
    let package = VerifiedPackage::verify(package(|_, _| {})).unwrap();
    Model::new(package, &|_| Err("none".to_owned())).unwrap()
}

#[test]
fn both_executors_find_the_same_labels() {
    let model = small_model();
    let volume = phantom([21, 17, 13]);
    let labels = |executor| -> LabelMap {
        let found = model
            .run(&volume, &settings(executor), &Task::new())
            .unwrap();
        found.segmentation.map
    };
    let (native, candle) = (labels(Executor::Native), labels(Executor::Candle));
    let ones = native.labels.iter().filter(|l| **l == 1).count();
    // Both labels occur, or the comparison would say nothing.
    assert!(ones > 100 && ones < native.labels.len() - 100, "{ones}");
    let differ = native
        .labels
        .iter()
        .zip(&candle.labels)
        .filter(|(a, b)| a != b)
        .count();
    // Ties within the rounding of f32.
    assert!(differ <= native.labels.len() / 1000, "{differ} differ");
}

#[test]
fn a_package_is_refused_when_anything_is_not_as_stated() {
    let refused = |files: PackageFiles, word: &str| {
        let mut text = String::new();
        let error = VerifiedPackage::verify(files).unwrap_err();
        let mut part: Option<&dyn std::error::Error> = Some(&error);
        while let Some(error) = part {
            text.push_str(&error.to_string());
            part = error.source();
        }
        assert!(text.contains(word), "{text:?} names {word:?}");
    };
    assert!(VerifiedPackage::verify(package(|_, _| {})).is_ok());
    refused(
        package(|m, _| m.weights_sha256 = "00".repeat(32)),
        "SHA-256",
    );
    let mut flipped = package(|_, _| {});
    *flipped.weights.last_mut().unwrap() ^= 1;
    refused(flipped, "SHA-256");
    refused(
        package(|_, w| w.get_mut("a.weight").unwrap()[5] = f32::NAN),
        "no numbers",
    );
    refused(package(|m, _| m.id = "../evil".to_owned()), "plain word");
    refused(package(|m, _| m.version = "..".to_owned()), "plain word");
    refused(package(|m, _| drop(m.network.layers.remove(2))), "arrive");
    refused(
        package(|m, _| {
            if let Layer::Conv3d { kernel, .. } = &mut m.network.layers[0] {
                *kernel = 5;
            }
        }),
        "expected [3, 1, 5, 5, 5]",
    );
    refused(
        package(|m, _| {
            if let Layer::Conv3d { bias, .. } = &mut m.network.layers[0] {
                *bias = None;
            }
        }),
        "belongs to no layer",
    );
    let mut cut = package(|_, _| {});
    cut.manifest.truncate(100);
    refused(cut, "cannot be read");
    // A header that declares more than there is.
    let mut huge = package(|_, _| {});
    huge.weights[..8].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    let mut manifest = Manifest::parse(&huge.manifest).unwrap();
    manifest.weights_sha256 = sha256_hex(&huge.weights);
    huge.manifest = serde_json::to_vec(&manifest).unwrap();
    refused(huge, "no readable safetensors");
}

#[test]
fn an_installed_model_is_checked_at_every_load() {
    let home = tempfile::tempdir().unwrap();
    let registry = Registry::new(home.path().join("models"));
    for version in ["1.0.0", "1.10.0", "1.9.0"] {
        let files = package(|m, _| m.version = version.to_owned());
        registry
            .install(&VerifiedPackage::verify(files).unwrap(), false)
            .unwrap();
    }
    let newest = registry.load("small").unwrap();
    assert_eq!(newest.manifest().version, "1.10.0");
    assert_eq!(
        registry.load("small@1.9.0").unwrap().manifest().version,
        "1.9.0"
    );
    let weights = home.path().join("models/small/1.10.0/weights.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let error = registry.load("small").unwrap_err().to_string();
    assert!(error.contains("SHA-256"), "{error}");
    assert_eq!(
        registry
            .verify_all()
            .iter()
            .filter(|(_, r)| r.is_err())
            .count(),
        1
    );
    registry.remove("small@1.10.0").unwrap();
    assert_eq!(registry.load("small").unwrap().manifest().version, "1.9.0");
    assert!(
        registry
            .load("absent")
            .unwrap_err()
            .to_string()
            .contains("small@1.9.0")
    );
}

#[test]
fn what_does_not_fit_or_suit_is_refused_before_the_start() {
    let model = small_model();
    let volume = phantom([21, 17, 13]);
    let plan = model
        .plan(&volume, &settings(Executor::Native), &Task::new())
        .unwrap();
    let little = Settings {
        available_bytes: plan.needed_bytes - 1,
        ..settings(Executor::Native)
    };
    match model.run(&volume, &little, &Task::new()) {
        Err(Error::Memory { needed_bytes, .. }) => assert_eq!(needed_bytes, plan.needed_bytes),
        other => panic!("{other:?}"),
    }
    let mut ct = volume.clone();
    ct.modality = "CT".to_owned();
    let error = model
        .run(&ct, &settings(Executor::Native), &Task::new())
        .unwrap_err();
    assert!(
        error.to_string().contains("CT series, the model is for MR"),
        "{error}"
    );
    let error = model
        .run(
            &phantom([21, 17, 1]),
            &settings(Executor::Native),
            &Task::new(),
        )
        .unwrap_err();
    assert!(error.to_string().contains("1 slices"), "{error}");
    let task = Task::new();
    task.cancel();
    let error = model
        .run(&volume, &settings(Executor::Native), &task)
        .unwrap_err();
    assert!(matches!(error, Error::Cancelled(_)));
}

#[test]
fn a_model_file_is_a_zip_whose_paths_are_never_followed() {
    use std::io::Write;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.negmodel");
    let files = package(|_, _| {});
    let write = |members: &[(&str, &[u8])]| {
        let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
        for (name, bytes) in members {
            zip.start_file(*name, zip::write::SimpleFileOptions::default())
                .unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
    };
    write(&[
        ("../outside.txt", b"x"),
        ("manifest.json", &files.manifest),
        ("weights.safetensors", &files.weights),
    ]);
    assert_eq!(import::read(&path).unwrap()[0].manifest().id, "small");
    assert!(!folder.path().parent().unwrap().join("outside.txt").exists());
    write(&[("sub/manifest.json", &files.manifest)]);
    let error = import::read(&path).unwrap_err().to_string();
    assert!(error.contains("manifest.json is missing"), "{error}");
    std::fs::write(&path, b"PK\x03\x04 no archive").unwrap();
    assert!(import::read(&path).is_err());
}

#[test]
fn a_foreign_layer_or_a_cut_file_is_refused_by_name() {
    let Some(data) = data() else { return };
    let source = data.join("brainchop/models/model5_gw_ae");
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(source.join("model.json")).unwrap();
    let bytes = std::fs::read(source.join("group1-shard1of1.bin")).unwrap();
    let check = |text: &str, bytes: &[u8], word: &str| {
        std::fs::write(folder.path().join("model.json"), text).unwrap();
        std::fs::write(folder.path().join("group1-shard1of1.bin"), bytes).unwrap();
        let error = import::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains(word), "{error:?} names {word:?}");
    };
    check(
        &text.replacen("\"Activation\"", "\"Lambda\"", 1),
        &bytes,
        "Lambda",
    );
    check(&text, &bytes[..bytes.len() - 4], "holds only");
    check(
        &text.replacen("group1-shard1of1.bin", "../x.bin", 1),
        &bytes,
        "../x.bin",
    );
    check(&text[..text.len() / 2], &bytes, "JSON");
}
