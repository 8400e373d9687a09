//! Every operation of a network, by every executor, against PyTorch's results.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use negatoscope::inference::{Array, Program, reference};
use negatoscope::model::graph::Graph;
use negatoscope::task::Task;
use safetensors::SafeTensors;

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    graph: Graph,
}

fn array(file: &SafeTensors<'_>, name: &str) -> Array {
    let view = file.tensor(name).unwrap();
    let words = view.data().chunks_exact(4);
    let values = words.map(|w| f32::from_le_bytes(w.try_into().unwrap()));
    Array::new(view.shape(), values.collect())
}

/// Largest difference, in parts of the results' root mean square.
pub fn difference(got: &Array, want: &Array) -> f64 {
    assert_eq!(got.shape, want.shape);
    let square: f64 = want.values.iter().map(|v| f64::from(*v).powi(2)).sum();
    let scale = (square / want.values.len() as f64).sqrt();
    let pairs = got.values.iter().zip(&want.values);
    let most = pairs
        .map(|(a, b)| f64::from((a - b).abs()))
        .fold(0.0, f64::max);
    assert!(most.is_finite());
    most / scale
}

fn check(run: &dyn Fn(&Program, &Array) -> Vec<Array>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/graph");
    let bytes = std::fs::read(folder.join("ops.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let text = std::fs::read_to_string(folder.join("ops.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() > 70);
    for case in cases {
        let weights: HashMap<String, Array> = case
            .graph
            .tensors()
            .into_iter()
            .map(|name| {
                let at = format!("{}/w/{name}", case.name);
                (name.to_owned(), array(&file, &at))
            })
            .collect();
        let input = array(&file, &format!("{}/input", case.name));
        let want = array(&file, &format!("{}/want", case.name));
        let graph = Arc::new(case.graph);
        let program = Program::new(graph, weights, &input.shape[2..]).unwrap();
        let got = run(&program, &input);
        // f32 sums of up to 900 terms, in another order than PyTorch's.
        let most = difference(&got[0], &want);
        assert!(most < 1e-5, "{}: {most:e}", case.name);
    }
}

#[test]
fn the_reference_executor_computes_what_pytorch_does() {
    check(&|program, input| reference::run(program, input, &Device::Cpu, &Task::new()).unwrap());
}
