//! Smaller packages: what is stored comes back by the literal formula, hostile files are refused,
//! and the loss is measured.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use half::f16;
use negatoscope::model::{PackageFiles, Registry, VerifiedPackage, sha256_hex};
use negatoscope::training::compress::{Over, Storage, Wish, compress};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

fn bundled(id: &str) -> VerifiedPackage {
    let nowhere = tempfile::tempdir().unwrap();
    Registry::new(nowhere.path().to_owned()).load(id).unwrap()
}

const fn wish(storage: Storage, prune: f64) -> Wish {
    Wish {
        storage,
        prune,
        over: Over::Layer,
    }
}

#[test]
fn weights_come_back_by_the_literal_formula() {
    for id in ["pneumonia-28", "hippocampus-mini", "lungs-cxr"] {
        let package = bundled(id);
        let halves = compress(&package, &wish(Storage::F16, 0.0), None).unwrap();
        let bytes = compress(&package, &wish(Storage::Int8, 0.0), None).unwrap();
        let (mut seen, mut exact) = (0, 0);
        for (name, _) in package.stored_types() {
            let (shape, values) = package.array(&name).unwrap();
            let half = halves.package.array(&name).unwrap();
            let byte = bytes.package.array(&name).unwrap();
            assert_eq!((&half.0, &byte.0), (&shape, &shape));
            // Biases, norms and statistics stay; so do all tensors of one axis.
            if half.1 == values && byte.1 == values {
                exact += 1;
                continue;
            }
            assert!(shape.len() >= 2, "{name} {shape:?}");
            seen += 1;
            // lungs-cxr has transposed convolutions, whose second axis is that of the outputs.
            let kinds = bytes.package.stored_types();
            let scale = format!("{name}.int8_scale");
            assert!(kinds.contains(&(name.clone(), "I8".to_owned())), "{name}");
            let tensors = SafeTensors::deserialize(bytes.package.weights()).unwrap();
            let along = tensors.tensor(&scale).unwrap().shape().to_vec();
            let axis = along.iter().position(|n| *n != 1).unwrap_or(0);
            let inner: usize = shape[axis + 1..].iter().product();
            for (n, value) in values.iter().enumerate() {
                assert_eq!(half.1[n], f16::from_f32(*value).to_f32());
                let channel = n / inner % shape[axis];
                let same = |m: &usize| m / inner % shape[axis] == channel;
                // The first of each channel is enough to go through all of them.
                if (0..n).rev().take(inner * shape[axis]).any(|m| same(&m)) {
                    continue;
                }
                let all: Vec<usize> = (0..values.len()).filter(same).collect();
                let most = all.iter().map(|m| values[*m].abs()).fold(0.0, f32::max);
                let scale = if most == 0.0 { 1.0 } else { most / 127.0 };
                for m in all {
                    assert_eq!(byte.1[m], (values[m] / scale).round() * scale, "{name}");
                }
            }
        }
        assert!(seen > 2 && exact > 2, "{id}: {seen} {exact}");
        let size = |p: &VerifiedPackage| p.weights().len() as f64;
        let part = size(&halves.package) / size(&package);
        assert!((0.5..0.6).contains(&part), "{id} {part}");
        let part = size(&bytes.package) / size(&package);
        assert!((0.25..0.37).contains(&part), "{id} {part}");
    }
}

#[test]
fn pruning_takes_its_part_of_each_layer_or_of_all() {
    let package = bundled("pneumonia-28");
    let parts = |over: Over| -> Vec<f64> {
        let wish = Wish {
            storage: Storage::F32,
            prune: 0.5,
            over,
        };
        let made = compress(&package, &wish, None).unwrap();
        let all = made.zeros as f64 / made.weights as f64;
        assert!((all - 0.5).abs() < 1e-3, "{all}");
        let mut parts = Vec::new();
        for (name, _) in package.stored_types() {
            let (before, after) = (
                package.tensor(&name).unwrap(),
                made.package.tensor(&name).unwrap(),
            );
            if before != after {
                let zeros = after.iter().filter(|v| **v == 0.0).count();
                parts.push(zeros as f64 / after.len() as f64);
                // What is left is what was there.
                assert!(before.iter().zip(&after).all(|(b, a)| *a == 0.0 || a == b));
            }
        }
        parts
    };
    assert!(parts(Over::Layer).iter().all(|p| (p - 0.5).abs() < 0.02));
    let of_all = parts(Over::Network);
    assert!(of_all.iter().any(|p| *p < 0.4) && of_all.iter().any(|p| *p > 0.5));
}

#[test]
fn what_cannot_be_done_is_said() {
    let package = bundled("pneumonia-28");
    let error = |package: &VerifiedPackage, wish: Wish, version: Option<&str>| {
        compress(package, &wish, version).unwrap_err().to_string()
    };
    let refused = error(&package, wish(Storage::F32, 0.0), None);
    assert!(refused.contains("nothing is asked for"), "{refused}");
    for part in [-0.1, 1.0, f64::NAN] {
        let refused = error(&package, wish(Storage::F16, part), None);
        assert!(refused.contains("expected 0 to below 1"), "{refused}");
    }
    let version = package.manifest().version.clone();
    let refused = error(&package, wish(Storage::F16, 0.0), Some(&version));
    assert!(refused.contains("is the old one"), "{refused}");
    let made = compress(&package, &wish(Storage::F16, 0.0), None).unwrap();
    let refused = error(&made.package, wish(Storage::Int8, 0.0), None);
    let key = package.manifest().key();
    assert!(refused.contains(&format!("begin with {key}")), "{refused}");
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// The package with other tensors, whose hash it states rightly.
fn with_weights(package: &VerifiedPackage, weights: Vec<u8>) -> Result<VerifiedPackage, String> {
    let mut manifest: Value = serde_json::from_slice(&package.files().manifest).unwrap();
    manifest["weights_sha256"] = sha256_hex(&weights).into();
    let files = PackageFiles {
        manifest: serde_json::to_vec(&manifest).unwrap(),
        weights,
        card: None,
        signature: None,
        path: "altered".into(),
    };
    VerifiedPackage::verify(files).map_err(|e| e.to_string())
}

#[test]
fn hostile_weights_are_refused() {
    let package = compress(&bundled("pneumonia-28"), &wish(Storage::Int8, 0.0), None)
        .unwrap()
        .package;
    let read = SafeTensors::deserialize(package.weights()).unwrap();
    let tensors: Tensors = (read.tensors().into_iter())
        .map(|(n, t)| (n, (t.dtype(), t.shape().to_vec(), t.data().to_vec())))
        .collect();
    let is_scale = |n: &str, shape: &[usize]| n.ends_with(".int8_scale") && shape[0] > 2;
    let (scale, _) = tensors
        .iter()
        .find(|(n, (_, shape, _))| is_scale(n, shape))
        .unwrap();
    let scale = scale.clone();
    let check = |alter: &dyn Fn(&mut Tensors), words: &str| {
        let mut tensors = tensors.clone();
        alter(&mut tensors);
        let views = tensors
            .iter()
            .map(|(n, (d, s, b))| (n, TensorView::new(*d, s.clone(), b).unwrap()));
        let weights = safetensors::serialize(views, None).unwrap();
        match with_weights(&package, weights) {
            Ok(_) => assert!(words.is_empty(), "{words}"),
            Err(error) => assert!(!words.is_empty() && error.contains(words), "{error}"),
        }
    };
    check(&|_| {}, "");
    check(&|t| drop(t.remove(&scale)), "is missing, which");
    check(
        &|t| {
            let (_, shape, bytes) = t.get_mut(&scale).unwrap();
            shape[0] -= 1;
            bytes.truncate(bytes.len() - 4);
        },
        "expected F32 along one axis of",
    );
    check(
        &|t| {
            // As many values, in fewer axes.
            let (_, shape, _) = t.get_mut(&scale).unwrap();
            shape.truncate(1);
        },
        "expected F32 along one axis of",
    );
    for wrong in [f32::NAN, f32::INFINITY, 0.0, -1.0] {
        check(
            &|t| {
                let (_, _, bytes) = t.get_mut(&scale).unwrap();
                bytes[..4].copy_from_slice(&wrong.to_le_bytes());
            },
            "scales that are not above zero",
        );
    }
    check(
        &|t| {
            // So large that values times it are no numbers any more.
            let (_, _, bytes) = t.get_mut(&scale).unwrap();
            bytes[..4].copy_from_slice(&f32::MAX.to_le_bytes());
        },
        "no numbers",
    );
    check(
        &|t| {
            let (kind, _, bytes) = t.get_mut(&scale).unwrap();
            *kind = Dtype::F16;
            bytes.truncate(bytes.len() / 2);
        },
        "expected F32 along one axis of",
    );
    check(
        &|t| {
            let stray = (Dtype::F32, vec![1], vec![0; 4]);
            t.insert("stray.int8_scale".to_owned(), stray);
        },
        "belongs to no layer",
    );
    check(
        &|t| {
            let weight = scale.trim_end_matches(".int8_scale");
            t.get_mut(weight).unwrap().0 = Dtype::U8;
        },
        "expected F32, F16 or I8",
    );
}

#[test]
fn declared_sizes_take_no_memory() {
    let package = bundled("pneumonia-28");
    let check = |head: &str, data: usize| {
        let mut bytes = (head.len() as u64).to_le_bytes().to_vec();
        bytes.extend(head.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        let error = with_weights(&package, bytes).unwrap_err();
        assert!(error.contains("do not fit"), "{error}");
    };
    // 2⁴⁰ values that are not there, sizes that overflow, and a header longer than the file.
    check(
        r#"{"w":{"dtype":"I8","shape":[1099511627776],"data_offsets":[0,8]}}"#,
        8,
    );
    check(
        r#"{"w":{"dtype":"I8","shape":[1099511627776],"data_offsets":[0,1099511627776]}}"#,
        8,
    );
    check(
        r#"{"w":{"dtype":"F16","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,0]}}"#,
        0,
    );
    let mut long = 99_000_000_u64.to_le_bytes().to_vec();
    long.extend(b"{}");
    assert!(with_weights(&package, long).is_err());
}

fn json_of(home: &Path, arguments: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_negatoscope"));
    let output = command
        .arg("--home")
        .arg(home)
        .args(arguments)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_loss_is_measured_and_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (home, data, out) = (folder.path().join("home"), at("data"), at("out"));
    crate::training::class_folder(Path::new(&data));
    let arguments = [
        "compress",
        "pneumonia-28",
        "--data",
        &data,
        "--to",
        "int8",
        "--prune",
        "0.5",
        "--out",
        &out,
        "--json",
    ];
    let report = json_of(&home, &arguments);
    let package = format!("{out}/package");
    let before = json_of(
        &home,
        &[
            "evaluate",
            "--model",
            "pneumonia-28",
            "--data",
            &data,
            "--json",
        ],
    );
    let after = json_of(
        &home,
        &["evaluate", "--model", &package, "--data", &data, "--json"],
    );
    let measured = &report["measured"];
    let mut seen = 0;
    for row in measured["figures"].as_array().unwrap() {
        let key = row["name"].as_str().unwrap().to_lowercase();
        // An evaluation has no Brier score.
        if row["name"] == "Brier score" {
            continue;
        }
        let number = |v: &Value| v.as_f64().unwrap();
        assert!(
            (number(&row["values"][0]) - number(&before[&key])).abs() < 1e-12,
            "{key}"
        );
        assert!(
            (number(&row["values"][1]) - number(&after[&key])).abs() < 1e-12,
            "{key}"
        );
        let difference = number(&after[&key]) - number(&before[&key]);
        assert!((number(&row["difference"]) - difference).abs() < 1e-12);
        let [low, high] = [0, 1].map(|n| number(&row["difference_ci95"][n]));
        assert!(
            low <= difference + 1e-9 && difference <= high + 1e-9,
            "{row}"
        );
        seen += 1;
    }
    assert_eq!(seen, 4);
    assert!(measured["zeros"].as_f64().unwrap() >= 0.5);
    let bytes = |what: &str, n: usize| measured[what][n].as_u64().unwrap();
    let file = fs::metadata(format!("{package}/weights.safetensors"))
        .unwrap()
        .len();
    assert_eq!(bytes("bytes", 1), file);
    assert!(bytes("bytes", 1) * 3 < bytes("bytes", 0));
    assert!(bytes("deflated_bytes", 1) < bytes("bytes", 1));
    // The package says what it is.
    let manifest = fs::read(format!("{package}/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["version"], "1.0.0-pruned50-int8");
    assert_eq!(manifest["origin"]["compressed_from"], "pneumonia-28@1.0.0");
    assert!(
        manifest["origin"]["pruned"]
            .as_str()
            .unwrap()
            .contains("0.5")
    );
    let card = fs::read_to_string(format!("{package}/MODEL_CARD.md")).unwrap();
    for words in [
        "1.0.0-pruned50-int8",
        "## Compression",
        "| AUC |",
        "must not be used for",
    ] {
        assert!(card.contains(words), "{words} in {card}");
    }
    // Not over an older package.
    let mut again = Command::new(env!("CARGO_BIN_EXE_negatoscope"));
    let again = again
        .arg("--home")
        .arg(&home)
        .args(arguments)
        .output()
        .unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("a package already"));
    // It can be installed beside the one that it was made from.
    json_of(&home, &["models", "import", &package, "--json"]);
    let shown = json_of(
        &home,
        &[
            "models",
            "show",
            "pneumonia-28@1.0.0-pruned50-int8",
            "--json",
        ],
    );
    assert_eq!(shown["weights_sha256"], manifest["weights_sha256"]);
}

#[test]
fn real_radiographs_lose_next_to_nothing() {
    let Some(data) = std::env::var_os("NEGATOSCOPE_TEST_DATA") else {
        println!("skipped: NEGATOSCOPE_TEST_DATA is not set");
        return;
    };
    let data = Path::new(&data).join("pneumoniamnist/pneumoniamnist_trainval.npz");
    for (to, most) in [("f16", 1e-4), ("int8", 2e-3)] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let report = json_of(
            folder.path(),
            &[
                "compress",
                "pneumonia-28",
                "--data",
                data.to_str().unwrap(),
                "--to",
                to,
                "--out",
                out.to_str().unwrap(),
                "--json",
            ],
        );
        let auc = &report["measured"]["figures"][0];
        assert_eq!(auc["name"], "AUC");
        assert!(auc["values"][0].as_f64().unwrap() > 0.99, "{auc}");
        assert!(auc["difference"].as_f64().unwrap().abs() < most, "{auc}");
    }
}
