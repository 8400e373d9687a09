//! The first steps of training against PyTorch's, from the same weights and data.

use std::sync::Arc;

use negatoscope::training::build::{Residual, Unet};
use negatoscope::training::optimizer::{self, Memory, Method, Schedule};
use negatoscope::training::{Architecture, Loss, LossKind, Mode, Network, Parameters, Role, tape};

/// As `numbers` in tests/golden/train/make.py.
fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count)
        .map(|n| (((n * 7919 + seed * 104_729) % 2003) as f64 / 1001.5 - 1.0) as f32)
        .collect()
}

/// Weights by the script's formulas.
fn fill(parameters: &mut Parameters) {
    for (n, slot) in parameters.slots.clone().iter().enumerate() {
        let values = numbers(slot.range.len(), n + 1);
        let is_up = slot.name.starts_with("up") && slot.name.ends_with("conv.weight") && {
            slot.shape[2..].iter().all(|k| *k == 2)
        };
        let fan_in = if is_up {
            slot.shape[0]
        } else {
            slot.shape[1..].iter().product()
        };
        let is_scale = slot.role == Role::Variance || slot.name.ends_with("norm.weight");
        for (to, x) in parameters.values[slot.range.clone()].iter_mut().zip(values) {
            *to = match slot.role {
                Role::Weight => x * (6.0_f64 / fan_in as f64).sqrt() as f32,
                _ if is_scale => 1.0 + 0.1 * x,
                _ => 0.1 * x,
            };
        }
    }
}

fn check(
    architecture: &Architecture,
    spatial: &[usize],
    images: usize,
    loss: &Loss,
    method: &Method,
    (peak, decay): (f64, f64),
    expected: &str,
) {
    let text = include_str!("../golden/train/losses.json");
    let golden: serde_json::Value = serde_json::from_str(text).unwrap();
    let golden = golden[expected].as_array().unwrap();
    let (graph, needed) = architecture.build(1, spatial.len(), 3).unwrap();
    let mut parameters = Parameters::new(&needed, 0);
    fill(&mut parameters);
    let network = Network::new(Arc::new(graph), &parameters, spatial, 0.0).unwrap();
    let network = Arc::new(network);
    let mut memory = Memory::new(method, parameters.values.len());
    let schedule = Schedule {
        peak,
        last: 0.01,
        warm_up: 5,
        total: 20,
    };
    let points: usize = spatial.iter().product();
    for (step, want) in golden.iter().enumerate() {
        let mut x = numbers(images * points, 500 + step);
        let targets: Vec<u8> = if architecture.classifies() {
            let y: Vec<u8> = (0..images).map(|n| ((n + step) % 3) as u8).collect();
            for (n, x) in x.iter_mut().enumerate() {
                *x += f32::from(y[n / points]) - 1.0;
            }
            y
        } else {
            let y: Vec<u8> = (0..images * points)
                .map(|n| ((n / 7 + step) % 3) as u8)
                .collect();
            for (x, y) in x.iter_mut().zip(&y) {
                *x += 0.5 * f32::from(*y);
            }
            y
        };
        let mode = Mode::Training {
            place: [0, step as u64],
        };
        let done = tape::step(&network, loss, &parameters.values, x, targets, mode).unwrap();
        let want = want.as_f64().unwrap();
        assert!(
            (done.loss / want - 1.0).abs() < 1e-3,
            "{expected}, step {step}: {} instead of {want}",
            done.loss
        );
        let length = optimizer::length(&parameters, &done.gradients);
        optimizer::step(
            method,
            &mut parameters,
            &mut memory,
            &done.gradients,
            (1.0 / length).min(1.0),
            schedule.rate(step as u64),
            decay,
            step as u64,
        );
        for (at, value) in done.running {
            parameters.values[at] = value;
        }
    }
}

#[test]
fn the_first_steps_of_a_residual_network_are_pytorchs() {
    let loss = Loss {
        label_smoothing: 0.1,
        class_weights: vec![0.5, 1.0, 1.5],
        ..Loss::default()
    };
    let network = Architecture::ResidualCnn(Residual {
        widths: vec![8, 16],
        ..Residual::default()
    });
    let adam = Method::default();
    check(
        &network,
        &[20, 18],
        6,
        &loss,
        &adam,
        (1e-2, 0.05),
        "residual_2d",
    );
}

#[test]
fn the_first_steps_of_a_unet_are_pytorchs() {
    let loss = Loss {
        kind: LossKind::DiceCrossEntropy,
        ..Loss::default()
    };
    let network = Architecture::Unet(Unet {
        widths: vec![8, 16, 24],
        ..Unet::default()
    });
    let sgd = Method::Sgd { momentum: 0.9 };
    check(
        &network,
        &[16, 12, 8],
        2,
        &loss,
        &sgd,
        (5e-3, 0.0),
        "unet_3d",
    );
}
