//! ONNX files of several exporters against ONNX Runtime's results, by both executors.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use negatoscope::import::onnx::{self, Imported};
use negatoscope::inference::native::{Native, Workspace};
use negatoscope::inference::{Array, Program, reference};
use negatoscope::model::graph::Op;
use negatoscope::task::Task;
use safetensors::SafeTensors;

use crate::graph::difference;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/onnx")
}

fn array(file: &SafeTensors<'_>, name: &str) -> Array {
    let view = file.tensor(name).unwrap();
    let words = view.data().chunks_exact(4);
    let values = words.map(|w| f32::from_le_bytes(w.try_into().unwrap()));
    Array::new(view.shape(), values.collect())
}

fn program(imported: &Imported, spatial: &[usize]) -> Program {
    let weights = SafeTensors::deserialize(&imported.weights).unwrap();
    let names = imported.graph.tensors();
    let weights: HashMap<String, Array> = names
        .into_iter()
        .map(|name| (name.to_owned(), array(&weights, name)))
        .collect();
    Program::new(Arc::new(imported.graph.clone()), weights, spatial).unwrap()
}

/// The file's name, its input and what ONNX Runtime gives.
fn cases() -> Vec<(String, Array, Array)> {
    let bytes = std::fs::read(folder().join("golden.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut names: Vec<String> = file
        .names()
        .iter()
        .filter_map(|name| name.strip_suffix("/input").map(str::to_owned))
        .collect();
    names.sort();
    names
        .into_iter()
        .map(|name| {
            let [input, want] = ["input", "want"].map(|of| array(&file, &format!("{name}/{of}")));
            (name, input, want)
        })
        .collect()
}

fn imported(name: &str, input: &Array) -> Imported {
    let path = folder().join(format!("{name}.onnx"));
    onnx::network(&path, Some(&input.shape[2..]), None).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The index of the largest channel, without the channels' axis.
fn largest(values: &Array) -> Array {
    let voxels: usize = values.shape[2..].iter().product();
    let of = |v: usize, c: usize| values.values[c * voxels + v];
    let indices = (0..voxels).map(|v| {
        let channels = 0..values.shape[1];
        channels.fold(0, |best, c| if of(v, c) > of(v, best) { c } else { best }) as f32
    });
    let shape = [&values.shape[..1], &values.shape[2..]].concat();
    Array::new(&shape, indices.collect())
}

#[test]
fn both_executors_compute_what_onnx_runtime_does() {
    let cases = cases();
    assert!(cases.len() > 35, "{}", cases.len());
    let mut failures = Vec::new();
    for (name, input, want) in cases {
        let imported = imported(&name, &input);
        let program = program(&imported, &input.shape[2..]);
        let native = Native::new(program.clone()).unwrap();
        let by_reference = reference::run(&program, &input, &Device::Cpu, &Task::new()).unwrap();
        let by_native = native
            .run(&input, &mut Workspace::default(), &Task::new())
            .unwrap();
        for (executor, got) in [("reference", &by_reference[0]), ("native", &by_native[0])] {
            let got = if imported.largest {
                largest(got)
            } else {
                assert_eq!(got.shape, imported.result, "{name}");
                got.clone()
            };
            let most = difference(&got, &want);
            // f32 sums in another order.
            if most > 1e-5 {
                failures.push(format!("{name} by the {executor} executor: {most:e}"));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn what_exporters_take_apart_is_put_together_again() {
    let cases = cases();
    let count = |name: &str, test: &dyn Fn(&Op) -> bool| {
        let (_, input, _) = cases.iter().find(|case| case.0 == name).unwrap();
        let graph = imported(name, input).graph;
        graph.nodes.iter().filter(|node| test(&node.op)).count()
    };
    let norm = |op: &Op| {
        matches!(
            op,
            Op::LayerNorm {
                affine: Some(_),
                ..
            }
        )
    };
    let linear = |op: &Op| matches!(op, Op::Linear { bias: Some(_), .. });
    for name in ["vit_11", "vit_17"] {
        assert_eq!(count(name, &norm), 5, "{name}");
        assert_eq!(count(name, &|op| *op == Op::Gelu), 2, "{name}");
        assert_eq!(count(name, &linear), 9, "{name}");
    }
    let grouped = |op: &Op| {
        matches!(
            op,
            Op::GroupNorm {
                groups: 3,
                affine: Some(_),
                ..
            }
        )
    };
    assert_eq!(count("mixed_17", &grouped), 1);
    assert_eq!(count("mixed_17", &|op| *op == Op::Silu), 1);
    let resize = |op: &Op| matches!(op, Op::Resize { .. });
    for (name, resizes) in [
        ("unet3d_trilinear_13", 1),
        ("resize_asymmetric_nearest_floor", 1),
        ("resize_half_pixel_linear", 1),
        ("resize_half_pixel_cubic", 0),
    ] {
        assert_eq!(count(name, &resize), resizes, "{name}");
    }
}

/// An open file serves any size that its network takes.
#[test]
fn open_sizes_take_what_is_stated() {
    let path = folder().join("unet3d_open_17.onnx");
    let refused = onnx::network(&path, None, None).unwrap_err().to_string();
    assert!(refused.contains("input.size is not stated"), "{refused}");
    let imported = onnx::network(&path, Some(&[4, 6, 10]), None).unwrap();
    assert_eq!(imported.result, [1, 3, 4, 6, 10]);
    let fixed = folder().join("unet3d_up_17.onnx");
    let refused = onnx::network(&fixed, Some(&[4, 6, 10]), None).unwrap_err();
    assert!(
        refused.to_string().contains("where the file takes 8"),
        "{refused}"
    );
}
