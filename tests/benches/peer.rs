//! Our side of `peers/peers.py`: one network, run when asked.
//!
//! `cargo bench -- peer FOLDER`: FOLDER holds `model` or `model.pt`, anything that can be imported, and
//! `x.safetensors` (`x`, one patch). Says `ready` with the figures below as JSON; then each line `run`
//! on standard input is a run, answered by its seconds; `end` writes `ours.safetensors` (`y`: logits,
//! or the labels of a network of plain layers) and says the peak memory.

use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use negatoscope::import::{self, weights};
use negatoscope::inference::native::{Native, Workspace};
use negatoscope::inference::{Array, Executor, Network, forward};
use negatoscope::kernels::{Instructions, fma_peak_gflops};
use negatoscope::model::VerifiedPackage;
use negatoscope::task::Task;
use safetensors::SafeTensors;

/// A network with its input.
enum Subject {
    Graph(Native, Workspace, Array),
    Layers(Network, Array),
}

impl Subject {
    fn new(package: &VerifiedPackage, x: Array) -> Self {
        let network = &package.manifest().network;
        let Some(graph) = &network.graph else {
            let layers = Network::new(package).expect("a network");
            return Self::Layers(layers, x);
        };
        let member = network.members()[0];
        let graph = Arc::new(graph.clone());
        let native = Native::of_package(package, graph, member, &x.shape[2..]);
        Self::Graph(native.expect("a network"), Workspace::default(), x)
    }

    /// Multiplications and additions of a run, and its planned memory.
    fn costs(&self) -> (f64, u64) {
        match self {
            Self::Graph(native, _, x) => (
                native.flops(&x.shape[2..]).expect("it fits"),
                native.bytes(&x.shape[2..]).expect("it fits"),
            ),
            Self::Layers(network, x) => {
                let dims = [x.shape[2], x.shape[3], x.shape[4]];
                (network.flops(dims), network.bytes(dims))
            }
        }
    }

    fn run(&mut self) -> Array {
        match self {
            Self::Graph(native, workspace, x) => native
                .run(x, workspace, &Task::new())
                .expect("nothing stops it")
                .pop()
                .expect("an output"),
            Self::Layers(network, x) => {
                let dims = [x.shape[2], x.shape[3], x.shape[4]];
                let values = x.values.clone();
                let labels = forward(network, values, dims, Executor::Native, &Task::new());
                let labels = labels.expect("nothing stops it").into_iter().map(f32::from);
                Array::new(&x.shape, labels.collect())
            }
        }
    }
}

/// Runs until `end`.
pub fn run(folder: &Path) {
    let file = folder.join("model.pt");
    let model = if file.is_file() {
        file
    } else {
        folder.join("model")
    };
    let packages = import::read(&model).expect("a model");
    let bytes = std::fs::read(folder.join("x.safetensors")).expect("x.safetensors");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let x = file.tensor("x").expect("x");
    let values = x
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let mut subject = Subject::new(&packages[0], Array::new(x.shape(), values.collect()));
    drop(packages);
    let threads = rayon::current_num_threads();
    let (flops, bytes) = subject.costs();
    say(&serde_json::json!({
        "ready": true,
        "gflop": flops / 1e9,
        "peak_gflops": fma_peak_gflops(Instructions::detect()) * threads as f64,
        "planned_bytes": bytes,
        "threads": threads,
    }));
    let mut last = None;
    for line in std::io::stdin().lock().lines() {
        if line.expect("text") != "run" {
            break;
        }
        let start = Instant::now();
        let y = subject.run();
        say(&serde_json::json!({ "secs": start.elapsed().as_secs_f64() }));
        last = Some(y);
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
