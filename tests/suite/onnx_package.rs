//! ONNX files with what a person states beside them, as packages; and files that mean harm.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use negatoscope::import::{self, onnx};
use negatoscope::inference::native::{Native, Workspace};
use negatoscope::inference::{Array, Program};
use negatoscope::model::graph::Op;
use negatoscope::model::monai::{MonaiDecision, MonaiTransform};
use negatoscope::model::{OutputKind, VerifiedPackage};
use negatoscope::task::Task;
use tempfile::TempDir;

const SETTINGS: &str = r#"
intended_use = "Tests"
[input]
size = [8, 8, 8]
orientation = "RAS"
spacing_mm = [1.5, 1.5, 2.0]
intensity = [{ kind = "range", from = [-57, 164], to = [0, 1], clip = true }]
[output]
decision = "argmax"
"#;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/onnx/{name}.onnx"))
}

/// A copy of a golden file alone in a folder.
fn alone(name: &str) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::copy(golden(name), &path).unwrap();
    (folder, path)
}

fn with_settings(name: &str, settings: &str) -> Result<VerifiedPackage, import::Error> {
    let (_folder, path) = alone(name);
    std::fs::write(path.with_extension("toml"), settings).unwrap();
    import::read(&path).map(|mut packages| packages.remove(0))
}

#[test]
fn a_stated_file_becomes_a_package() {
    let package = with_settings("labels_17", SETTINGS).unwrap();
    let manifest = package.manifest();
    assert_eq!(manifest.key(), "onnx-model@1.0.0");
    // From the file's own metadata.
    assert_eq!(manifest.modality, "CT");
    assert_eq!(manifest.license, "CC0-1.0");
    let labels: Vec<_> = manifest
        .labels
        .iter()
        .map(|l| (l.label, l.name.as_str(), l.property.value.as_str()))
        .collect();
    assert_eq!(labels[0], (1, "Spleen", "78961009"));
    assert_eq!(labels[1], (2, "Tumor", "108369006"));
    let monai = manifest.monai.as_ref().unwrap();
    assert_eq!(monai.windows.roi_size, [8, 8, 8]);
    assert_eq!(monai.output.decision, MonaiDecision::Argmax { classes: 3 });
    let [
        MonaiTransform::Orientation { axcodes },
        MonaiTransform::Spacing { pixdim, .. },
        MonaiTransform::ScaleIntensityRange { clip: true, .. },
    ] = monai.transforms[..]
    else {
        panic!("{:?}", monai.transforms);
    };
    assert_eq!((axcodes, pixdim), (['R', 'A', 'S'], [1.5, 1.5, 2.0]));
    // The file's arg max is the procedure's now.
    let graph = manifest.network.graph.as_ref().unwrap();
    let last = &graph.nodes[graph.outputs[0]].op;
    assert!(matches!(last, Op::Softmax { axis: 1 }), "{last:?}");
}

#[test]
fn regions_and_classifications_are_stated_too() {
    let settings = r#"
license = "MIT"
intended_use = "Tests"
modality = "MR"
[input]
orientation = "stored"
spacing_mm = "stored"
intensity = [{ kind = "normalize", nonzero = true }]
[output]
decision = "threshold"
activation = "sigmoid"
threshold = 0.4
[[labels]]
name = "Whole tumor"
value = 2
[[labels]]
name = "Core"
value = 1
color = [1, 2, 3]
[[labels]]
name = "Other"
value = 7
"#;
    let package = with_settings("unet3d_up_17", settings).unwrap();
    let monai = package.manifest().monai.clone().unwrap();
    assert_eq!(
        monai.output.decision,
        MonaiDecision::Threshold {
            order: vec![2, 1, 7],
            threshold: 0.4
        }
    );
    assert_eq!(monai.example, [8, 8, 12]);
    assert_eq!(package.manifest().labels[1].color, [1, 2, 3]);

    let settings = r#"
license = "MIT"
intended_use = "Tests"
modality = "DX"
classes = [{ name = "a" }, { name = "b", threshold = 0.3 }, { name = "c" }, { name = "d" }]
[input]
orientation = "stored"
spacing_mm = "stored"
intensity = [{ kind = "scale" }]
[output]
decision = "classification"
"#;
    let package = with_settings("dense_11", settings).unwrap();
    assert_eq!(package.manifest().output.kind, OutputKind::Classification);
    let classifier = package.manifest().classification.clone().unwrap();
    assert_eq!(classifier.size, [24, 20]);
    assert_eq!(classifier.classes[1].threshold, Some(0.3));
}

#[test]
fn what_is_not_stated_is_listed() {
    let (_folder, path) = alone("labels_17");
    let refused = import::read(&path).unwrap_err().to_string();
    for fact in [
        "intended_use",
        "input.size",
        "input.orientation",
        "input.spacing_mm",
        "input.intensity",
        "output.decision",
        "model.toml",
    ] {
        assert!(refused.contains(fact), "{fact}: {refused}");
    }
    // The file's metadata says these.
    for fact in ["modality", "license,", "labels"] {
        assert!(!refused.contains(fact), "{fact}: {refused}");
    }
    let refused = |settings: &str, words: &str| {
        let refused = with_settings("labels_17", settings)
            .unwrap_err()
            .to_string();
        assert!(refused.contains(words), "{refused}");
    };
    refused(&SETTINGS.replace("RAS", "RAL"), "three letters");
    refused(&SETTINGS.replace("argmax", "threshold"), "arg max");
    refused(
        &SETTINGS.replace("size = [8, 8, 8]", "size = [8, 8]"),
        "3 axes",
    );
    refused(&SETTINGS.replace("decision", "decisions"), "decisions");
    refused(&format!("{SETTINGS}[[labels]]\nname = \"one\""), "1 labels");
    refused(&SETTINGS.replace("8, 8, 8", "0, 8, 8"), "0 voxels");
}

#[test]
fn the_template_is_settings_that_work() {
    let (_folder, path) = alone("labels_17");
    let text = onnx::template(&path).unwrap();
    let text = text.replace("96, 96, 96", "8, 8, 8");
    // It keeps the names of the file's metadata, the background among them.
    let text = text.replace("[[labels]]\nname = \"background\"\n", "");
    std::fs::write(path.with_extension("toml"), &text).unwrap();
    let package = import::read(&path).unwrap().remove(0);
    assert_eq!(package.manifest().labels.len(), 2);
    assert_eq!(package.manifest().license, "CC0-1.0");
}

/// A message's fields, as the wire has them.
#[derive(Clone, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    fn int(mut self, number: u64, value: u64) -> Self {
        self.0.extend(Self::varint(number << 3));
        self.0.extend(Self::varint(value));
        self
    }

    fn bytes(mut self, number: u64, bytes: &[u8]) -> Self {
        self.0.extend(Self::varint(number << 3 | 2));
        self.0.extend(Self::varint(bytes.len() as u64));
        self.0.extend(bytes);
        self
    }

    fn text(self, number: u64, text: &str) -> Self {
        self.bytes(number, text.as_bytes())
    }

    fn held(self, number: u64, message: &Self) -> Self {
        self.bytes(number, &message.0)
    }
}

fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> Message {
    let node = inputs.iter().fold(Message::default(), |m, i| m.text(1, i));
    let node = outputs.iter().fold(node, |m, o| m.text(2, o));
    node.text(4, op).text(3, "the-node")
}

fn tensor(name: &str, dims: &[u64]) -> Message {
    let tensor = dims.iter().fold(Message::default(), |m, d| m.int(1, *d));
    tensor.int(2, 1).text(8, name)
}

fn raw(name: &str, dims: &[u64], values: &[f32]) -> Message {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    tensor(name, dims).bytes(9, &bytes)
}

fn external(name: &str, dims: &[u64], entries: &[(&str, &str)]) -> Message {
    let entries = entries
        .iter()
        .map(|(key, value)| Message::default().text(1, key).text(2, value));
    entries
        .fold(tensor(name, dims), |m, entry| m.held(13, &entry))
        .int(14, 1)
}

/// A file that takes `[1, 1, 4, 4]` and gives `y`.
fn file(nodes: &[Message], tensors: &[Message], opset: u64) -> Vec<u8> {
    let dims = [1, 1, 4, 4].into_iter().fold(Message::default(), |m, n| {
        m.held(1, &Message::default().int(1, n))
    });
    let kind = Message::default().int(1, 1).held(2, &dims);
    let input = Message::default()
        .text(1, "x")
        .held(2, &Message::default().held(1, &kind));
    let graph = nodes.iter().fold(Message::default(), |m, n| m.held(1, n));
    let graph = tensors.iter().fold(graph, |m, t| m.held(5, t));
    let graph = graph
        .held(11, &input)
        .held(12, &Message::default().text(1, "y"));
    let set = Message::default().text(1, "").int(2, opset);
    Message::default().int(1, 8).held(7, &graph).held(8, &set).0
}

fn network(bytes: &[u8]) -> Result<onnx::Imported, onnx::Error> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("made.onnx");
    std::fs::write(&path, bytes).unwrap();
    onnx::network(&path, None, None)
}

fn refused(bytes: &[u8], words: &[&str]) {
    let refused = network(bytes).unwrap_err().to_string();
    assert!(words.iter().all(|w| refused.contains(w)), "{refused}");
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let conv = || node("Conv", &["x", "w"], &["y"]);
    let good = raw("w", &[1, 1, 1, 1], &[2.0]);
    assert!(network(&file(&[conv()], std::slice::from_ref(&good), 17)).is_ok());
    let check = |nodes: &[Message], tensors: &[Message], words: &[&str]| {
        refused(&file(nodes, tensors, 17), words);
    };
    let tensors = [good.clone()];
    check(
        &[node("LSTM", &["x"], &["y"])],
        &[],
        &["LSTM", "the-node", "opset 17"],
    );
    check(
        &[node("If", &["x"], &["y"])],
        &[],
        &["\"If\"", "not supported"],
    );
    let foreign = node("Relu", &["x"], &["y"]).text(7, "com.microsoft");
    check(&[foreign], &[], &["com.microsoft"]);
    // Cycles, unknown names, two givers, no giver.
    check(
        &[
            node("Add", &["x", "y"], &["z"]),
            node("Relu", &["z"], &["y"]),
        ],
        &[],
        &["\"y\"", "nothing before it gives"],
    );
    check(&[node("Relu", &["nobody"], &["y"])], &[], &["nobody"]);
    check(
        &[node("Relu", &["x"], &["y"]), node("Relu", &["x"], &["y"])],
        &[],
        &["two operations"],
    );
    check(
        &[node("Relu", &["x"], &["z"])],
        &[],
        &["no operation gives"],
    );
    // Weights of other sizes, kinds and values.
    check(
        &[conv()],
        &[raw("w", &[1, 3, 1, 1], &[1.0; 3])],
        &["Conv", "channels"],
    );
    check(
        &[conv()],
        &[raw("w", &[1, 1, 1, 1], &[1.0; 2])],
        &["\"w\"", "8 are there"],
    );
    check(
        &[conv()],
        &[tensor("w", &[1, 1, 1, 1])],
        &["\"w\"", "0 are there"],
    );
    check(
        &[conv()],
        &[raw("w", &[1, 1, 1, 1], &[f32::NAN])],
        &["no numbers"],
    );
    check(
        &[conv()],
        &[raw("w", &[u64::MAX, 1, 1, 1], &[])],
        &["\"w\""],
    );
    check(&[conv()], &[raw("w", &[1 << 40, 1 << 40], &[])], &["\"w\""]);
    check(&[conv()], &[tensor("w", &[1; 40])], &["40 axes"]);
    // An attribute that nobody knows.
    let odd = node("Relu", &["x"], &["y"]).held(5, &Message::default().text(1, "odd").int(20, 2));
    check(&[odd], &[], &["odd"]);
    let sets = [(10, "10"), (22, "22"), (0, "0")];
    for (opset, words) in sets {
        refused(&file(&[conv()], &tensors, opset), &["operation set", words]);
    }
}

/// A small file asks for much: constants, ranges and repeats beyond what it justifies.
#[test]
fn computing_is_bounded() {
    let shape = |name: &str, values: &[i64]| {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Message::default()
            .int(1, values.len() as u64)
            .int(2, 7)
            .text(8, name)
            .bytes(9, &bytes)
    };
    for values in [&[1 << 24][..], &[1 << 30, 1 << 30], &[i64::MAX; 2], &[-1]] {
        let nodes = [
            node("ConstantOfShape", &["s"], &["c"]),
            node("Add", &["x", "c"], &["y"]),
        ];
        refused(
            &file(&nodes, &[shape("s", values)], 17),
            &["ConstantOfShape"],
        );
    }
    let nodes = [
        node("Tile", &["x", "s"], &["y"]),
        node("Tile", &["y", "s"], &["y"]),
    ];
    refused(
        &file(&nodes[..1], &[shape("s", &[1, 1, 1 << 40, 1])], 17),
        &["repeats"],
    );
    let pads = [0, 0, i64::MAX, i64::MAX, 0, 0, i64::MAX, i64::MAX];
    refused(
        &file(
            &[node("Pad", &["x", "s"], &["y"])],
            &[shape("s", &pads)],
            17,
        ),
        &["Pad"],
    );
}

/// Each token against each other, as the masks of shifted windows are made: not stored, but computed
/// at each run.
#[test]
fn large_results_of_known_values_are_left_to_the_run() {
    const N: usize = 1500;
    let ints = |name: &str, values: &[i64]| {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let message = Message::default().int(1, values.len() as u64).int(2, 7);
        message.text(8, name).bytes(9, &bytes)
    };
    let regions: Vec<f32> = (0..N).map(|n| (n % 7) as f32).collect();
    let tensors = [
        raw("rows", &[1, 1, N as u64, 1], &regions),
        raw("columns", &[1, 1, 1, N as u64], &regions),
        raw("zero", &[], &[0.0]),
        ints("axes", &[2, 3]),
    ];
    let to_float = Message::default().text(1, "to").int(3, 1).int(20, 2);
    let nodes = [
        node("Sub", &["rows", "columns"], &["apart"]),
        node("Equal", &["apart", "zero"], &["same"]),
        node("Not", &["same"], &["other"]),
        node("Cast", &["other"], &["ones"]).held(5, &to_float),
        node("ReduceSum", &["ones", "axes"], &["count"]),
        node("Add", &["x", "count"], &["y"]),
    ];
    let imported = network(&file(&nodes, &tensors, 17)).unwrap();
    // Rows, columns, a few numbers: nothing of N · N.
    assert!(imported.weights.len() < 8 * 4 * N);
    let tensors = safetensors::SafeTensors::deserialize(&imported.weights).unwrap();
    let array = |name: &str| {
        let view = tensors.tensor(name).unwrap();
        let words = view.data().chunks_exact(4);
        let values = words.map(|w| f32::from_le_bytes(w.try_into().unwrap()));
        Array::new(view.shape(), values.collect())
    };
    let weights = imported.graph.tensors().into_iter();
    let weights = weights.map(|name| (name.to_owned(), array(name))).collect();
    let program = Program::new(Arc::new(imported.graph.clone()), weights, &[4, 4]).unwrap();
    let input = Array::new(&[1, 1, 4, 4], (0..16).map(|n| n as f32).collect());
    let native = Native::new(program).unwrap();
    let found = native.run(&input, &mut Workspace::default(), &Task::new());
    let pairs = regions
        .iter()
        .flat_map(|a| regions.iter().map(move |b| (a, b)));
    let count = pairs.filter(|(a, b)| a != b).count() as f32;
    for (n, value) in found.unwrap()[0].values.iter().enumerate() {
        assert!((value - (n as f32 + count)).abs() <= 1.0, "{value}");
    }
}

#[test]
fn weights_beside_the_file_stay_inside_its_folder() {
    let outer = TempDir::new().unwrap();
    let folder = outer.path().join("model");
    std::fs::create_dir_all(folder.join("sub")).unwrap();
    let bytes: Vec<u8> = [7.0_f32, 2.0]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    std::fs::write(outer.path().join("secret"), &bytes).unwrap();
    std::fs::write(folder.join("sub/weights.bin"), &bytes).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(outer.path().join("secret"), folder.join("link")).unwrap();
    let path = folder.join("made.onnx");
    let import = |entries: &[(&str, &str)]| {
        let weights = external("w", &[1, 1, 1, 1], entries);
        let conv = node("Conv", &["x", "w"], &["y"]);
        std::fs::write(&path, file(&[conv], &[weights], 17)).unwrap();
        onnx::network(&path, None, None)
    };
    let inside = import(&[
        ("location", "sub/weights.bin"),
        ("offset", "4"),
        ("length", "4"),
    ]);
    let inside = inside.unwrap();
    assert!(inside.weights.ends_with(&2.0_f32.to_le_bytes()));
    let secret = outer.path().join("secret");
    for (entries, words) in [
        (vec![("location", "../secret")], "inside the model's folder"),
        (
            vec![("location", "sub/../../secret")],
            "inside the model's folder",
        ),
        (
            vec![("location", secret.to_str().unwrap())],
            "inside the model's folder",
        ),
        #[cfg(unix)]
        (vec![("location", "link")], "inside the model's folder"),
        (vec![("location", "sub")], "inside the model's folder"),
        (vec![("location", "none")], "could not be opened"),
        (vec![("location", "")], "not named plainly"),
        (
            vec![("location", "sub/weights.bin"), ("offset", "8")],
            "which has 8",
        ),
        (
            vec![
                ("location", "sub/weights.bin"),
                ("offset", "18446744073709551615"),
            ],
            "which has 8",
        ),
        (
            vec![("location", "sub/weights.bin"), ("length", "8")],
            "8 are there",
        ),
        (
            vec![("location", "sub/weights.bin"), ("offset", "x")],
            "not named plainly",
        ),
    ] {
        let refused = import(&entries).unwrap_err().to_string();
        assert!(refused.contains(words), "{entries:?}: {refused}");
    }
}

#[test]
fn lengths_beyond_the_file_are_refused() {
    let huge = |number: u64| {
        let mut bytes = Message::varint(number << 3 | 2);
        bytes.extend(Message::varint(u64::MAX >> 1));
        bytes
    };
    for number in [2, 7, 8, 14] {
        refused(&huge(number), &["announced"]);
    }
    refused(&[], &["0 graphs"]);
    refused(&[0xff; 40], &["no readable ONNX file"]);
    refused(b"PK\x03\x04 no model at all", &["no readable ONNX file"]);
}

/// Every beginning of a file, and every byte of it changed: words or a network, never a panic.
#[test]
fn broken_files_end_in_words() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("broken.onnx");
    let check = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        onnx::network(&path, Some(&[6, 7]), None).is_ok()
    };
    let whole = std::fs::read(golden("shapes_13")).unwrap();
    assert!(check(&whole));
    let cut = (0..whole.len()).filter(|n| check(&whole[..*n])).count();
    assert_eq!(cut, 0);
    let mut changed = whole.clone();
    for n in 0..whole.len() {
        for value in [whole[n] ^ 1, whole[n] ^ 0x80, 0xff, 0] {
            changed[n] = value;
            check(&changed);
        }
        changed[n] = whole[n];
    }
}
