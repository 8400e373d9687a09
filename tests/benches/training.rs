//! Our side of `peers/training.py`: steps of training, one when asked.
//!
//! `cargo bench -- training NAME [START]`: says `ready`; then each line `run` on standard input is a
//! step, answered by its seconds and its loss; `end` says the peak memory. START is a file that gets
//! what the run begins with, for another engine to begin with the same: each trained tensor as its
//! length and its `f32`s, then 0, then the images and the targets likewise, all little-endian.

use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use negatoscope::training::build::{Residual, Unet};
use negatoscope::training::optimizer::{self, Memory, Method};
use negatoscope::training::{
    Architecture, Chance, Loss, LossKind, Mode, Network, Parameters, tape,
};

/// Network, size of an image, images of a step, loss, classes.
fn subject(name: &str) -> (Architecture, Vec<usize>, usize, Loss, usize) {
    match name {
        "cnn" => (
            Architecture::ResidualCnn(Residual {
                stem_stride: 2,
                ..Residual::default()
            }),
            vec![224; 2],
            16,
            Loss::default(),
            2,
        ),
        "unet" => (
            Architecture::Unet(Unet::default()),
            vec![48; 3],
            2,
            Loss {
                kind: LossKind::DiceCrossEntropy,
                ..Loss::default()
            },
            3,
        ),
        other => panic!("no network {other:?}, there are cnn and unet"),
    }
}

pub fn run(name: &str, start: Option<&Path>) {
    let (architecture, size, images, loss, classes) = subject(name);
    let (graph, needed) = architecture
        .build(1, size.len(), classes)
        .expect("a network");
    let mut parameters = Parameters::new(&needed, 1);
    let network = Network::new(Arc::new(graph), &parameters, &size, 0.0).expect("it fits");
    let network = Arc::new(network);
    let mut chance = Chance::at(&[1]);
    let points: usize = size.iter().product();
    let x: Vec<f32> = (0..images * points)
        .map(|_| chance.normal() as f32)
        .collect();
    let count = if architecture.classifies() {
        images
    } else {
        images * points
    };
    let targets: Vec<u8> = (0..count).map(|_| chance.below(classes) as u8).collect();
    if let Some(file) = start {
        let mut bytes = Vec::new();
        let mut write = |values: &[f32]| {
            bytes.extend((values.len() as u64).to_le_bytes());
            bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        };
        for slot in parameters.slots.iter().filter(|s| s.role.is_trained()) {
            write(&parameters.values[slot.range.clone()]);
        }
        write(&[]);
        write(&x);
        write(&targets.iter().map(|&t| f32::from(t)).collect::<Vec<_>>());
        std::fs::write(file, bytes).expect("a file to begin with");
    }
    let method = Method::default();
    let mut memory = Memory::new(&method, parameters.values.len());
    println!("ready {}", parameters.trained());
    for (step, line) in (0..).zip(std::io::stdin().lock().lines()) {
        let line = line.expect("a line");
        if line.trim() != "run" {
            break;
        }
        let start = Instant::now();
        let place = [1, step];
        let mode = Mode::Training { place };
        let values = &parameters.values;
        let done = tape::step(&network, &loss, values, x.clone(), targets.clone(), mode);
        let done = done.expect("a step");
        optimizer::step(
            &method,
            &mut parameters,
            &mut memory,
            &done.gradients,
            1.0,
            1e-3,
            0.01,
            step,
        );
        for (at, value) in done.running {
            parameters.values[at] = value;
        }
        println!("{} {}", start.elapsed().as_secs_f64(), done.loss);
        std::io::stdout().flush().expect("an open pipe");
    }
    println!("{}", peak_kb());
}

/// Largest memory of this process so far.
fn peak_kb() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("VmHWM:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}
