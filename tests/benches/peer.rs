//! Our side of `peers/peers.py`: one network of nnU-Net's, run when asked.
//!
//! `cargo bench -- peer FOLDER`: FOLDER holds a result folder `model` and `x.safetensors` (`x`, one
//! patch). Says `ready` with the figures below as JSON; then each line `run` on standard input is a
//! run, answered by its seconds; `end` writes `ours.safetensors` (`y`) and says the peak memory.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use negatoscope::import::{nnunet, weights};
use negatoscope::inference::native::{Native, Workspace};
use negatoscope::inference::{Array, Program};
use negatoscope::kernels::{Instructions, fma_peak_gflops};
use negatoscope::task::Task;
use safetensors::SafeTensors;

/// Runs until `end`.
pub fn run(folder: &Path) {
    let trained = nnunet::open(&folder.join("model")).expect("a result folder");
    let fold = &trained.folds[0];
    let arrays: HashMap<String, Array> = fold
        .tensors()
        .iter()
        .enumerate()
        .map(|(n, (name, tensor))| {
            let values = fold.read(n).expect("finite weights");
            (name.clone(), Array::new(tensor.shape(), values))
        })
        .collect();
    let patch = trained.configuration.patch_size.clone();
    let program = Program::new(Arc::new(trained.graph), arrays, &patch).expect("a network");
    let native = Native::new(program).expect("a network");
    let bytes = std::fs::read(folder.join("x.safetensors")).expect("x.safetensors");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let x = file.tensor("x").expect("x");
    let values = x
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let x = Array::new(x.shape(), values.collect());
    let threads = rayon::current_num_threads();
    say(&serde_json::json!({
        "ready": true,
        "gflop": native.flops(&patch).expect("it fits") / 1e9,
        "peak_gflops": fma_peak_gflops(Instructions::detect()) * threads as f64,
        "planned_bytes": native.bytes(&patch).expect("it fits"),
        "threads": threads,
    }));
    let mut workspace = Workspace::default();
    let mut last = None;
    for line in std::io::stdin().lock().lines() {
        if line.expect("text") != "run" {
            break;
        }
        let start = Instant::now();
        let mut results = native
            .run(&x, &mut workspace, &Task::new())
            .expect("nothing stops it");
        say(&serde_json::json!({ "secs": start.elapsed().as_secs_f64() }));
        last = results.pop();
    }
    let y = last.expect("at least one run");
    let out = weights::safetensors(&[("y", &y.shape)], |_| Ok::<_, ()>(y.values.clone()));
    std::fs::write(folder.join("ours.safetensors"), out.expect("no reading")).expect("writable");
    say(&serde_json::json!({ "peak_bytes": peak_bytes() }));
}

fn say(value: &serde_json::Value) {
    println!("{value}");
    std::io::stdout().flush().expect("somebody listens");
}

/// The most memory that this process has had, where the system tells.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes << 10)
}
