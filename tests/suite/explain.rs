//! Explanations: a network whose evidence is known, chance as the opponent, and what is written.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use negatoscope::findings::ExplanationMethod;
use negatoscope::geometry::{DVec3, VolumeGeometry};
use negatoscope::inference::Classifier;
use negatoscope::model::graph::{Graph, Op};
use negatoscope::model::{PackageFiles, VerifiedPackage, sha256_hex};
use negatoscope::task::Task;
use negatoscope::volume::{
    Calibration, Layout, ModalityLut, NamedWindow, Quantity, SourceSeries, VoiWindow, Volume,
    Voxels,
};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

/// Points of an image's edge.
const EDGE: usize = 28;

/// A convolution 1 → channels of one point and its ReLU, their mean, and a linear layer.
fn classifier(kernel: &[f32], offset: &[f32], linear: &[f32], bias: &[f32]) -> Classifier {
    let (channels, classes) = (kernel.len(), bias.len());
    let mut graph = Graph::new(1, 2);
    let conv: Op = serde_json::from_value(json!({
        "op": "conv", "weight": "c.weight", "bias": "c.bias", "stride": [1, 1],
        "padding": [[0, 0], [0, 0]], "dilation": [1, 1], "groups": 1,
    }))
    .unwrap();
    let x = graph.push(conv, &[0]);
    let x = graph.push(Op::Relu, &[x]);
    let x = graph.push(Op::GlobalAveragePool, &[x]);
    let row = Op::Reshape { shape: vec![0, -1] };
    let x = graph.push(row, &[x]);
    let head = Op::Linear {
        weight: "h.weight".to_owned(),
        bias: Some("h.bias".to_owned()),
    };
    let x = graph.push(head, &[x]);
    graph.outputs = vec![x];
    let tensors: [(&str, Vec<usize>, &[f32]); 4] = [
        ("c.weight", vec![channels, 1, 1, 1], kernel),
        ("c.bias", vec![channels], offset),
        ("h.weight", vec![classes, channels], linear),
        ("h.bias", vec![classes], bias),
    ];
    let bytes: BTreeMap<&str, (Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(name, shape, values)| {
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            (name, (shape, bytes))
        })
        .collect();
    let views = bytes.iter().map(|(name, (shape, bytes))| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
        (*name, view)
    });
    let weights = safetensors::serialize(views, None).unwrap();
    let text = std::fs::read("assets/models/pneumonia-28/manifest.json").unwrap();
    let mut manifest: Value = serde_json::from_slice(&text).unwrap();
    manifest["id"] = "known".into();
    manifest["weights_sha256"] = sha256_hex(&weights).into();
    manifest["network"]["graph"] = serde_json::to_value(&graph).unwrap();
    let names = ["Nothing", "One", "Two", "Three"];
    let c = &mut manifest["classification"];
    c["size"] = json!([EDGE, EDGE]);
    c["temperature"] = 2.0.into();
    c["classes"] = (0..classes)
        .map(|n| json!({ "name": names[n], "threshold": 0.5 }))
        .collect();
    if classes > 2 {
        c["any"] = json!({ "name": "Any", "threshold": 0.5 });
    }
    let files = PackageFiles {
        manifest: serde_json::to_vec(&manifest).unwrap(),
        weights,
        card: None,
        signature: None,
        path: "known".into(),
    };
    Classifier::new(VerifiedPackage::verify(files).unwrap()).unwrap()
}

/// Black, with bright points where `bright` says so.
fn image(bright: impl Fn(usize, usize) -> bool) -> Volume {
    let bytes = (0..EDGE * EDGE)
        .map(|n| if bright(n / EDGE, n % EDGE) { 255 } else { 0 })
        .collect();
    let geometry = VolumeGeometry::from_axes(
        [EDGE, EDGE, 1],
        DVec3::ZERO,
        [DVec3::X, DVec3::Y, DVec3::Z],
        [1.0; 3],
    );
    Volume {
        voxels: Voxels::U8(bytes),
        geometry: geometry.unwrap(),
        modality_lut: ModalityLut::Rescale {
            slope: 1.0,
            intercept: 0.0,
        },
        quantity: Quantity::Arbitrary,
        modality: "DX".to_owned(),
        layout: Layout::Images,
        calibration: Calibration::Unknown,
        inverted: false,
        padding: None,
        frame_rate: None,
        windows: vec![NamedWindow {
            name: String::new(),
            window: VoiWindow::spanning(0.0, 255.0),
        }],
        source: SourceSeries::default(),
        issues: Vec::new(),
    }
}

fn square(y: usize, x: usize) -> bool {
    (4..12).contains(&y) && (14..24).contains(&x)
}

#[test]
fn grad_cam_is_the_evidence_where_it_is_known() {
    // White is 1 and black −1 at the input: the ReLU of (x − 0.5) is 0.5 in the square.
    let model = classifier(&[1.0], &[-0.5], &[-3.0, 9.0], &[0.25, 0.0]);
    let methods = model.explanation_methods();
    assert_eq!(
        methods,
        [ExplanationMethod::GradCam, ExplanationMethod::Occlusion]
    );
    let volume = image(square);
    let map = model
        .explain(&volume, 0, "One", methods[0], &Task::new())
        .unwrap();
    assert_eq!(map.dims, [EDGE, EDGE]);
    // Half of a difference of 12 at a temperature of 2, shared among all points.
    let each = 0.5 * 12.0 / 2.0 / (EDGE * EDGE) as f32;
    for (n, value) in map.values.iter().enumerate() {
        let expected = if square(n / EDGE, n % EDGE) {
            each
        } else {
            0.0
        };
        assert!((value - expected).abs() < 1e-6, "{n}: {value}");
    }
    assert!(map.faithfulness.explains(), "{:?}", map.faithfulness);
    assert_eq!(map.region_px, [0.0, 0.0, 28.0, 28.0]);
    // What speaks against a finding is no evidence for it.
    let against = classifier(&[1.0], &[-0.5], &[9.0, -3.0], &[0.0, 0.0]);
    let map = against
        .explain(&volume, 0, "One", methods[0], &Task::new())
        .unwrap();
    assert!(map.values.iter().all(|v| *v == 0.0));
    assert!(!map.faithfulness.explains(), "{:?}", map.faithfulness);
    let refused = model.explain(&volume, 0, "Two", methods[0], &Task::new());
    assert!(refused.unwrap_err().to_string().contains("\"Two\""));
    let rollout = ExplanationMethod::AttentionRollout;
    assert!(
        model
            .explain(&volume, 0, "One", rollout, &Task::new())
            .is_err()
    );
}

/// Log-odds of all but the first class, at a temperature, written out.
fn any_log_odds(features: &[f64], linear: &[f32], bias: &[f32], temperature: f64) -> f64 {
    let z: Vec<f64> = (0..bias.len())
        .map(|c| {
            let row = &linear[c * features.len()..(c + 1) * features.len()];
            let sum: f64 = row
                .iter()
                .zip(features)
                .map(|(w, f)| f64::from(*w) * f)
                .sum();
            (sum + f64::from(bias[c])) / temperature
        })
        .collect();
    z[1..].iter().map(|v| v.exp()).sum::<f64>().ln() - z[0]
}

#[test]
fn grad_cam_follows_the_gradient_of_several_classes() {
    let (kernel, offset) = ([1.0, -1.0], [0.0, 0.2]);
    let linear = [-1.0, 0.5, 2.0, 0.3, 1.0, -2.0];
    let bias = [0.1, 0.0, -0.2];
    let model = classifier(&kernel, &offset, &linear, &bias);
    let volume = image(square);
    let map = model
        .explain(&volume, 0, "Any", ExplanationMethod::GradCam, &Task::new())
        .unwrap();
    let cells = (EDGE * EDGE) as f64;
    let inside = 80.0 / cells;
    // Means over the grid: the first kernel sees the square, the second what is around it.
    let features = [inside, 1.2 * (1.0 - inside)];
    let slopes = [0, 1].map(|k| {
        let step = 1e-5;
        let at = |d: f64| {
            let mut moved = features;
            moved[k] += d;
            any_log_odds(&moved, &linear, &bias, 2.0)
        };
        (at(step) - at(-step)) / (2.0 * step)
    });
    for (n, value) in map.values.iter().enumerate() {
        let activation = if square(n / EDGE, n % EDGE) {
            slopes[0]
        } else {
            1.2 * slopes[1]
        };
        let expected = (activation / cells).max(0.0);
        assert!(
            (f64::from(*value) - expected).abs() < 1e-7,
            "{n}: {value} {expected}"
        );
    }
}

#[test]
fn occlusion_finds_what_the_model_needs() {
    let model = classifier(&[1.0], &[-0.5], &[-3.0, 9.0], &[0.25, 0.0]);
    let volume = image(square);
    let map = model
        .explain(
            &volume,
            0,
            "One",
            ExplanationMethod::Occlusion,
            &Task::new(),
        )
        .unwrap();
    assert_eq!(map.dims, [14, 14]);
    let most = (0..map.values.len())
        .max_by(|a, b| map.values[*a].total_cmp(&map.values[*b]))
        .unwrap();
    let (y, x) = (2 * (most / 14) + 1, 2 * (most % 14) + 1);
    assert!(square(y, x), "{y} {x}");
    // Far from the square nothing is lost.
    assert!(map.values[13 * 14] < 0.01 * map.highest());
    assert!(map.faithfulness.explains(), "{:?}", map.faithfulness);
    // A model that looks at nothing has nothing to explain.
    let blind = classifier(&[1.0], &[-0.5], &[0.0, 0.0], &[0.0, 1.0]);
    for method in [ExplanationMethod::GradCam, ExplanationMethod::Occlusion] {
        let map = blind
            .explain(&volume, 0, "One", method, &Task::new())
            .unwrap();
        assert_eq!(map.highest(), 0.0);
        assert!(!map.faithfulness.explains(), "{:?}", map.faithfulness);
        assert!(map.faithfulness.words().contains("explains nothing"));
    }
}

#[test]
fn explanations_are_written_beside_the_findings() {
    let Ok(root) = std::env::var("NEGATOSCOPE_TEST_DATA") else {
        eprintln!("skipped: NEGATOSCOPE_TEST_DATA is not set");
        return;
    };
    let chest = Path::new(&root).join("dicom-objects/fo-dicom/CR-MONO1-10-chest.dcm");
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("out");
    let output = Command::new(env!("CARGO_BIN_EXE_negatoscope"))
        .arg("--home")
        .arg(home.path())
        .args(["analyze", "--model", "pneumonia-28", "--explain", "--out"])
        .args([&out, &chest])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let batch: Value =
        serde_json::from_slice(&std::fs::read(out.join("batch.json")).unwrap()).unwrap();
    let folder = Path::new(batch["rows"][0]["results"].as_str().unwrap());
    let record: Value =
        serde_json::from_slice(&std::fs::read(folder.join("findings.json")).unwrap()).unwrap();
    let map = &record["images"][0]["explanations"][0];
    assert_eq!(map["finding"], "Pneumonia");
    assert_eq!(map["method"], "grad-cam");
    let values = map["values"].as_array().unwrap();
    let count = map["rows"].as_u64().unwrap() * map["columns"].as_u64().unwrap();
    assert_eq!(values.len() as u64, count);
    let test = &map["test"];
    let number = |key: &str| test[key].as_f64().unwrap();
    let explains = number("insertion") - number("deletion") > number("chance_best");
    assert_eq!(map["explains"], explains);
    let png = folder.join(map["picture"].as_str().unwrap());
    let decoder = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(&png).unwrap()));
    assert_eq!(decoder.read_info().unwrap().info().size(), (1024, 1024));
    // The same picture as a Secondary Capture of the same patient, beside the report.
    let capture = dicom_object::open_file(png.with_extension("dcm")).unwrap();
    let report = dicom_object::open_file(folder.join("findings.dcm")).unwrap();
    let text = |o: &dicom_object::DefaultDicomObject, name: &str| {
        o.element_by_name(name)
            .unwrap()
            .to_str()
            .unwrap()
            .trim()
            .to_owned()
    };
    for name in ["StudyInstanceUID", "PatientID", "PatientName"] {
        assert_eq!(text(&capture, name), text(&report, name), "{name}");
    }
    assert_eq!(text(&capture, "PhotometricInterpretation"), "RGB");
    let pixels = capture
        .element_by_name("PixelData")
        .unwrap()
        .to_bytes()
        .unwrap();
    assert_eq!(pixels.len(), 3 * 1024 * 1024);
    let derivation = text(&capture, "DerivationDescription");
    assert!(derivation.contains("Grad-CAM of Pneumonia"), "{derivation}");
}
