//! Whole networks: gradients against differences, both modes against the executors of inference.

use std::collections::HashMap;

use candle_core::Device;

use super::*;
use crate::inference::{Array, Program, reference};
use crate::model::graph::{Affine, Op, Pool};
use crate::task::Task;
use crate::training::{Architecture, Chance, Needed, Role, Start, build};

fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut chance = Chance::at(&[seed]);
    (0..n).map(|_| chance.normal() as f32).collect()
}

/// Parameters with running statistics and affine parts that are not the trivial ones.
fn parameters(needed: &[Needed]) -> Parameters {
    let mut parameters = Parameters::new(needed, 5);
    let mut chance = Chance::at(&[77]);
    for slot in parameters.slots.clone() {
        if slot.role != Role::Weight {
            for value in &mut parameters.values[slot.range] {
                *value += chance.between(-0.3, 0.3) as f32;
            }
        }
    }
    parameters
}

/// Σ results · direction is moved along a random direction of each tensor: central differences
/// of f32 passes with a step that balances rounding and curvature.
fn check_gradients(graph: Graph, needed: &[Needed], spatial: &[usize], dropout: f32) {
    let parameters = parameters(needed);
    let network = Network::new(Arc::new(graph), &parameters, spatial, dropout).unwrap();
    let images = values(3 * network.input_floats(), 1);
    let direction = values(3 * network.output_floats(), 2);
    let mode = Mode::Training { place: [3, 4] };
    let value = |p: &[f32]| -> f64 {
        let tape = network.forward(p, &images, mode);
        let pairs = tape.results.iter().zip(&direction);
        pairs.map(|(r, d)| f64::from(*r) * f64::from(*d)).sum()
    };
    let tape = network.forward(&parameters.values, &images, mode);
    let gradients = network.backward(&parameters.values, tape, &direction);
    for (n, slot) in parameters.slots.iter().enumerate() {
        if !slot.role.is_trained() {
            assert!(gradients[slot.range.clone()].iter().all(|g| *g == 0.0));
            continue;
        }
        let mut along = values(slot.range.len(), 100 + n as u64);
        let length = along.iter().map(|a| a * a).sum::<f32>().sqrt();
        for a in &mut along {
            *a /= length;
        }
        let want: f64 = gradients[slot.range.clone()]
            .iter()
            .zip(&along)
            .map(|(g, a)| f64::from(*g) * f64::from(*a))
            .sum();
        let size: f64 = gradients[slot.range.clone()]
            .iter()
            .map(|g| f64::from(*g).powi(2))
            .sum::<f64>()
            .sqrt();
        let moved = |h: f32| {
            let mut p = parameters.values.clone();
            for (p, a) in p[slot.range.clone()].iter_mut().zip(&along) {
                *p += h * a;
            }
            value(&p)
        };
        let h = 1e-3;
        let got = (moved(h) - moved(-h)) / f64::from(2.0 * h);
        assert!(
            (got - want).abs() < 0.02 * size + 0.02,
            "{}: differences give {got}, the backward pass {want} (length {size})",
            slot.name
        );
    }
}

/// Smooth activations only, so that differences have no kinks to step over.
#[test]
fn gradients_of_a_network_equal_differences() {
    let need = |name: &str, shape: &[usize], role, start| Needed {
        name: name.to_owned(),
        shape: shape.to_vec(),
        role,
        start,
    };
    let he = |fan_in| Start::He { fan_in };
    let (w, o) = (Role::Weight, Role::Offset);
    let needed = [
        need("a", &[6, 2, 3, 3], w, he(18)),
        need("ab", &[6], o, Start::Fill(0.0)),
        need("n1w", &[6], o, Start::Fill(1.0)),
        need("n1b", &[6], o, Start::Fill(0.0)),
        need("n1m", &[6], Role::Mean, Start::Fill(0.0)),
        need("n1v", &[6], Role::Variance, Start::Fill(1.0)),
        need("b", &[10, 6, 3, 3], w, he(54)),
        need("n2w", &[10], o, Start::Fill(1.0)),
        need("n2b", &[10], o, Start::Fill(0.0)),
        need("up", &[10, 6, 2, 2], w, he(10)),
        need("c", &[12, 12, 1, 1], w, he(12)),
        need("n3w", &[12], o, Start::Fill(1.0)),
        need("n3b", &[12], o, Start::Fill(0.0)),
        need("d", &[3, 12, 3, 3], w, he(108)),
        need("db", &[3], o, Start::Fill(0.0)),
    ];
    let conv =
        |weight: &str, bias: Option<&str>, stride: usize, around: usize, dilation| Op::Conv {
            weight: weight.to_owned(),
            bias: bias.map(str::to_owned),
            stride: vec![stride; 2],
            padding: vec![[around; 2]; 2],
            dilation: vec![dilation; 2],
            groups: 1,
        };
    let affine = |n: usize| {
        Some(Affine {
            scale: format!("n{n}w"),
            shift: format!("n{n}b"),
        })
    };
    let mut g = Graph::new(2, 2);
    let a = g.push(conv("a", Some("ab"), 1, 1, 1), &[0]);
    let n = g.push(
        Op::BatchNorm {
            epsilon: 1e-5,
            mean: "n1m".into(),
            variance: "n1v".into(),
            affine: affine(1),
        },
        &[a],
    );
    let n = g.push(Op::Silu, &[n]);
    let b = g.push(conv("b", None, 2, 2, 2), &[n]);
    let b = g.push(
        Op::GroupNorm {
            groups: 5,
            epsilon: 1e-5,
            affine: affine(2),
        },
        &[b],
    );
    let b = g.push(Op::Elu { alpha: 1.0 }, &[b]);
    let up = g.push(
        Op::ConvTranspose {
            weight: "up".into(),
            bias: None,
            stride: vec![2; 2],
            padding: vec![[0; 2]; 2],
            output_padding: vec![0; 2],
            groups: 1,
        },
        &[b],
    );
    let up = g.push(Op::Tanh, &[up]);
    let c = g.push(Op::Concat { axis: 1 }, &[up, n]);
    let c = g.push(conv("c", None, 1, 0, 1), &[c]);
    let c = g.push(
        Op::InstanceNorm {
            epsilon: 1e-5,
            affine: affine(3),
        },
        &[c],
    );
    let c = g.push(Op::Gelu, &[c]);
    let pool = Pool {
        kernel: vec![2; 2],
        stride: vec![2; 2],
        padding: vec![[0; 2]; 2],
        ceil: false,
    };
    let mean = Op::AveragePool {
        pool: pool.clone(),
        count_padding: true,
    };
    let p = g.push(mean, &[c]);
    let q = g.push(Op::MaxPool(pool), &[c]);
    let s = g.push(Op::Add, &[p, q]);
    let d = g.push(conv("d", Some("db"), 1, 1, 1), &[s]);
    let m = g.push(Op::GlobalAveragePool, &[d]);
    g.outputs = vec![d, m];
    check_gradients(g.clone(), &needed, &[8, 12], 0.0);
    check_gradients(g, &needed, &[8, 12], 0.3);
}

/// A Vision Transformer on a plane that is no square; nine images, so that groups of them differ.
fn vit() -> (Graph, Vec<Needed>) {
    let settings = build::Vit {
        patch: 4,
        width: 24,
        depth: 2,
        heads: 3,
        mlp: 2,
        dropout: 0.0,
    };
    let vit = Architecture::Vit(settings);
    vit.build_for(1, &[12, 8], 3).unwrap()
}

#[test]
fn gradients_of_a_vision_transformer_equal_differences() {
    let (graph, needed) = vit();
    check_gradients(graph.clone(), &needed, &[12, 8], 0.0);
    check_gradients(graph, &needed, &[12, 8], 0.3);
}

#[test]
fn a_vision_transformer_does_not_depend_on_threads() {
    let (graph, needed) = vit();
    let parameters = parameters(&needed);
    let network = Network::new(Arc::new(graph), &parameters, &[12, 8], 0.2).unwrap();
    let images = values(9 * network.input_floats(), 9);
    let direction = values(9 * network.output_floats(), 2);
    let mode = Mode::Training { place: [1, 2] };
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap().install(|| {
            let tape = network.forward(&parameters.values, &images, mode);
            network.backward(&parameters.values, tape, &direction)
        })
    };
    let bits = |g: Vec<f32>| g.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    assert_eq!(bits(run(1)), bits(run(3)));
}

fn architectures() -> Vec<(Architecture, usize, Vec<usize>)> {
    vec![
        (
            Architecture::ResidualCnn(build::Residual {
                widths: vec![8, 12],
                ..build::Residual::default()
            }),
            1,
            vec![14, 12],
        ),
        (
            Architecture::Unet(build::Unet {
                widths: vec![8, 12, 16],
                ..build::Unet::default()
            }),
            1,
            vec![8, 4, 8],
        ),
        (
            Architecture::Meshnet(build::Mesh {
                width: 5,
                dilations: vec![1, 2],
                ..build::Mesh::default()
            }),
            2,
            vec![6, 7, 8],
        ),
        (
            Architecture::Densenet121(build::Dense::default()),
            3,
            vec![33, 32],
        ),
    ]
}

/// What was trained must run as it was evaluated: against the executor that is candle's alone.
#[test]
fn evaluation_equals_the_reference_executor() {
    for (architecture, channels, spatial) in architectures() {
        let (graph, needed) = architecture.build(channels, spatial.len(), 3).unwrap();
        let parameters = parameters(&needed);
        let graph = Arc::new(graph);
        let network = Network::new(Arc::clone(&graph), &parameters, &spatial, 0.2).unwrap();
        let images = values(2 * network.input_floats(), 9);
        let got = network.forward(&parameters.values, &images, Mode::Evaluation);
        let weights: HashMap<String, Array> = parameters
            .slots
            .iter()
            .map(|s| {
                let values = parameters.values[s.range.clone()].to_vec();
                (s.name.clone(), Array::new(&s.shape, values))
            })
            .collect();
        let program = Program::new(graph, weights, &spatial).unwrap();
        let shape = [&[1, channels], spatial.as_slice()].concat();
        for (n, image) in images.chunks(network.input_floats()).enumerate() {
            let input = Array::new(&shape, image.to_vec());
            let want = reference::run(&program, &input, &Device::Cpu, &Task::new()).unwrap();
            let got = part(&got.results, n, network.output_floats());
            let most = want[0].values.iter().fold(1.0_f32, |a, b| a.max(b.abs()));
            for (got, want) in got.iter().zip(&want[0].values) {
                // 120 layers deep, each rounded to f32 in another order.
                assert!((got - want).abs() < 2e-4 * most, "{got} {want}");
            }
        }
    }
}

#[test]
fn running_statistics_follow_the_batch() {
    let (architecture, channels, spatial) = architectures().remove(0);
    let (graph, needed) = architecture.build(channels, 2, 2).unwrap();
    let parameters = parameters(&needed);
    let network = Network::new(Arc::new(graph), &parameters, &spatial, 0.0).unwrap();
    let images = values(4 * network.input_floats(), 9);
    let mode = Mode::Training { place: [0; 2] };
    let tape = network.forward(&parameters.values, &images, mode);
    let statistics: usize = parameters
        .slots
        .iter()
        .filter(|s| !s.role.is_trained())
        .map(|s| s.range.len())
        .sum();
    assert_eq!(tape.running.len(), statistics);
    // Where the batch is, running statistics are after many steps.
    let mut moved = parameters.values.clone();
    for _ in 0..200 {
        for (at, value) in network.forward(&moved, &images, mode).running {
            moved[at] = value;
        }
    }
    let trained = network.forward(&moved, &images, mode).results;
    let evaluated = network.forward(&moved, &images, Mode::Evaluation).results;
    for (a, b) in trained.iter().zip(&evaluated) {
        // The running variance is the unbiased one: n / (n − 1) with n = 4 · 42 at the least.
        assert!((a - b).abs() < 0.02, "{a} {b}");
    }
}

#[test]
fn gradients_do_not_depend_on_threads() {
    let (architecture, channels, spatial) = architectures().remove(1);
    let (graph, needed) = architecture.build(channels, 3, 3).unwrap();
    let parameters = parameters(&needed);
    let network = Network::new(Arc::new(graph), &parameters, &spatial, 0.1).unwrap();
    let images = values(2 * network.input_floats(), 9);
    let direction = values(2 * network.output_floats(), 2);
    let mode = Mode::Training { place: [1, 2] };
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap().install(|| {
            let tape = network.forward(&parameters.values, &images, mode);
            network.backward(&parameters.values, tape, &direction)
        })
    };
    let bits = |g: Vec<f32>| g.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    assert_eq!(bits(run(1)), bits(run(3)));
}

#[test]
fn what_cannot_be_trained_is_named() {
    let mut graph = Graph::new(1, 2);
    let last = graph.push(Op::Softmax { axis: 1 }, &[0]);
    graph.outputs = vec![last];
    let refused = Network::new(Arc::new(graph), &Parameters::new(&[], 0), &[4, 4], 0.0);
    let words = refused.unwrap_err().to_string();
    assert!(
        words.contains("operation 1 (softmax) is not trained"),
        "{words}"
    );
}
