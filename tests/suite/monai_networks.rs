//! MONAI's networks from their arguments, and TorchXRayVision's DenseNet, against the libraries' own
//! modules with the same weights (`tests/golden/monai_bundle/make.py`).

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use negatoscope::import::monai::nets::{self, Built};
use negatoscope::import::monai::{Component, Config};
use negatoscope::import::xrv;
use negatoscope::inference::native::{Native, Workspace};
use negatoscope::inference::{Array, Program, reference};
use negatoscope::kernels::{Instructions, Rates};
use negatoscope::task::Task;
use serde_json::{Value, json};

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    config: Value,
    size: Vec<usize>,
    inputs: usize,
    shape: Vec<usize>,
    step: usize,
    kept: usize,
    largest: f64,
    /// How far PyTorch itself is from its 64-bit result.
    lost: f64,
    /// `name 1,2,3`.
    tensors: Vec<String>,
}

/// The formula of make.py.
pub fn formula(name: &str, shape: &[usize]) -> Array {
    let mut h = 2_166_136_261_u32;
    for byte in name.bytes() {
        h = (h ^ u32::from(byte)).wrapping_mul(16_777_619);
    }
    let count: usize = shape.iter().product();
    let fan_in = (count / shape[0]) as f64;
    let scale = (2.0 / fan_in).sqrt() as f32;
    let at = |index: usize| {
        let mut x = (index as u32).wrapping_mul(2_654_435_761) ^ h;
        x ^= x >> 16;
        x = x.wrapping_mul(0x85EB_CA6B);
        x ^= x >> 13;
        x = x.wrapping_mul(0xC2B2_AE35);
        x ^= x >> 16;
        let u = (x >> 8) as f32 / (1 << 23) as f32 - 1.0;
        if name == "input" {
            u * scale
        } else if name.ends_with("running_var") {
            1.0 + 0.5 * u.abs()
        } else if shape == [1] {
            0.25 + 0.125 * u
        } else if shape.len() == 1 && name.ends_with("weight") {
            1.0 + 0.25 * u
        } else if shape.len() == 1 {
            0.25 * u
        } else if name.ends_with("position_embeddings") || name.ends_with("position_bias_table") {
            0.5 * u
        } else {
            u * scale
        }
    };
    Array::new(shape, (0..count).map(at).collect())
}

fn built(case: &Case) -> Built {
    if case.name == "torchxrayvision" {
        return xrv::dense_net(1, 18).build(nets::Names::Torch);
    }
    let config = Config::new(json!({ "network_def": case.config }));
    let node = config.get("network_def").unwrap().unwrap();
    let component = Component::of(node).unwrap().unwrap();
    let version = if case.name.ends_with("older") {
        (1, 3)
    } else {
        (1, 6)
    };
    let network = nets::network(&component, Some(&case.size), Some(version)).unwrap();
    assert_eq!(network.inputs, case.inputs, "{}", case.name);
    assert_eq!(network.outputs, case.shape[1], "{}", case.name);
    network.built
}

fn cases() -> Vec<(Case, Vec<f32>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/monai_bundle");
    let text = std::fs::read_to_string(folder.join("networks.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_str(&text).unwrap();
    let bytes = std::fs::read(folder.join("networks.bin")).unwrap();
    let mut words = bytes.chunks_exact(4);
    let mut next = || f32::from_le_bytes(words.next().unwrap().try_into().unwrap());
    let cases: Vec<_> = cases
        .into_iter()
        .map(|case| {
            let samples = (0..case.kept).map(|_| next()).collect();
            (case, samples)
        })
        .collect();
    assert!(cases.len() > 15);
    cases
}

#[test]
fn tensors_are_named_as_in_the_state_dicts() {
    for (case, _) in cases() {
        let built = built(&case);
        let needed: BTreeSet<String> = built
            .needed
            .iter()
            .map(|n| {
                let shape: Vec<String> = n.shape.iter().map(ToString::to_string).collect();
                format!("{} {}", n.name, shape.join(","))
            })
            .collect();
        let there: BTreeSet<String> = case.tensors.iter().cloned().collect();
        let missing: Vec<_> = needed.difference(&there).collect();
        assert!(missing.is_empty(), "{}: {missing:?}", case.name);
        for left in there.difference(&needed) {
            let name = left.split(' ').next().unwrap();
            let spare = built
                .spare
                .iter()
                .any(|s| s == name || (s.ends_with('.') && name.starts_with(s.as_str())));
            let again = built.again.iter().any(|s| name.starts_with(s.as_str()));
            assert!(spare || again, "{}: {left} is left over", case.name);
        }
    }
}

fn check(run: &mut dyn FnMut(Program, &Array) -> Array) {
    for (case, samples) in cases() {
        let built = built(&case);
        let weights: HashMap<String, Array> = built
            .needed
            .iter()
            .map(|n| (n.name.clone(), formula(&n.name, &n.shape)))
            .collect();
        let program = Program::new(Arc::new(built.graph), weights, &case.size).unwrap();
        let input = formula("input", &[&[1, case.inputs], case.size.as_slice()].concat());
        let got = run(program, &input);
        assert_eq!(got.shape, case.shape, "{}", case.name);
        let most = got
            .values
            .iter()
            .step_by(case.step)
            .zip(&samples)
            .map(|(a, b)| f64::from((a - b).abs()))
            .fold(0.0, f64::max);
        // f32 sums through up to 120 layers, against PyTorch in 64 bits.
        let relative = most / case.largest;
        println!("{}: {relative:.1e} (PyTorch {:.1e})", case.name, case.lost);
        assert!(relative <= 1e-5, "{}: {relative:e}", case.name);
    }
}

#[test]
fn the_reference_executor_agrees_with_the_libraries_modules() {
    check(&mut |program, input| {
        let result = reference::run(&program, input, &Device::Cpu, &Task::new());
        result.unwrap().remove(0)
    });
}

#[test]
fn the_native_executor_agrees_with_the_libraries_modules() {
    check(&mut |program, input| {
        let native = Native::new(program).unwrap();
        // Planned as well: nodes without an input (positions, a class token) are costs too.
        let rates = Rates::measure(Instructions::detect());
        let secs = native.expected_secs(&input.shape[2..], &rates).unwrap();
        assert!(secs > 0.0 && secs.is_finite());
        let result = native.run(input, &mut Workspace::default(), &Task::new());
        result.unwrap().remove(0)
    });
}
