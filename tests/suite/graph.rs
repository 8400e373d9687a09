//! Every operation of a network, by every executor, against PyTorch's results.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use negatoscope::inference::native::{Native, Workspace};
use negatoscope::inference::{Array, Error, Program, reference};
use negatoscope::kernels::Instructions;
use negatoscope::model::graph::{Affine, Graph, Op, PadMode, Pool};
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

fn check(run: &mut dyn FnMut(&Program, &Array) -> Vec<Array>) {
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
    check(&mut |program, input| {
        reference::run(program, input, &Device::Cpu, &Task::new()).unwrap()
    });
}

#[test]
fn the_fast_executor_computes_what_pytorch_does() {
    for instructions in Instructions::available() {
        let mut workspace = Workspace::default();
        check(&mut |program, input| {
            let native = Native::with(program.clone(), instructions).unwrap();
            native.run(input, &mut workspace, &Task::new()).unwrap()
        });
    }
}

/// Random weights of fixed sequences.
struct Random(u32);

impl Random {
    fn array(&mut self, shape: &[usize], scale: f32) -> Array {
        let count = shape.iter().product();
        let values = (0..count)
            .map(|_| {
                self.0 ^= self.0 << 13;
                self.0 ^= self.0 >> 17;
                self.0 ^= self.0 << 5;
                ((self.0 % 2001) as f32 / 1000.0 - 1.0) * scale
            })
            .collect();
        Array::new(shape, values)
    }
}

/// Builds graphs with random weights, block by block.
struct Builder {
    graph: Graph,
    weights: HashMap<String, Array>,
    random: Random,
    axes: usize,
}

impl Builder {
    fn new(channels: usize, axes: usize, seed: u32) -> Self {
        Self {
            graph: Graph::new(channels, axes),
            weights: HashMap::new(),
            random: Random(seed | 1),
            axes,
        }
    }

    fn weight(&mut self, shape: &[usize], scale: f32) -> String {
        let name = format!("w{}", self.weights.len());
        let array = self.random.array(shape, scale);
        self.weights.insert(name.clone(), array);
        name
    }

    fn affine(&mut self, channels: usize) -> Affine {
        let (scale, shift) = (self.weight(&[channels], 1.0), self.weight(&[channels], 1.0));
        Affine { scale, shift }
    }

    fn conv(&mut self, from: usize, [ci, co]: [usize; 2], kernel: usize, stride: usize) -> usize {
        let shape: Vec<usize> = [&[co, ci], vec![kernel; self.axes].as_slice()].concat();
        let scale = 1.7 / ((ci * kernel.pow(self.axes as u32)) as f32).sqrt();
        let op = Op::Conv {
            weight: self.weight(&shape, scale),
            bias: Some(self.weight(&[co], 0.5)),
            stride: vec![stride; self.axes],
            padding: vec![[kernel / 2; 2]; self.axes],
            dilation: vec![1; self.axes],
            groups: 1,
        };
        self.graph.push(op, &[from])
    }

    fn norm(&mut self, from: usize, channels: usize) -> usize {
        let affine = self.affine(channels);
        let op = Op::InstanceNorm {
            epsilon: 1e-5,
            affine: Some(affine),
        };
        self.graph.push(op, &[from])
    }

    fn leaky(&mut self, from: usize) -> usize {
        self.graph.push(Op::LeakyRelu { slope: 0.01 }, &[from])
    }

    fn batch_norm(&mut self, from: usize, channels: usize) -> usize {
        let variance = self.weight(&[channels], 1.0);
        let array = self.weights.get_mut(&variance).unwrap();
        array.values.iter_mut().for_each(|v| *v = v.abs() + 0.1);
        let op = Op::BatchNorm {
            epsilon: 1e-5,
            mean: self.weight(&[channels], 1.0),
            variance,
            affine: Some(self.affine(channels)),
        };
        self.graph.push(op, &[from])
    }

    fn block(&mut self, from: usize, channels: [usize; 2], stride: usize) -> usize {
        let conv = self.conv(from, channels, 3, stride);
        let norm = self.norm(conv, channels[1]);
        self.leaky(norm)
    }

    fn up(&mut self, from: usize, [ci, co]: [usize; 2]) -> usize {
        let shape: Vec<usize> = [&[ci, co], vec![2; self.axes].as_slice()].concat();
        let op = Op::ConvTranspose {
            weight: self.weight(&shape, 0.5),
            bias: Some(self.weight(&[co], 0.5)),
            stride: vec![2; self.axes],
            padding: vec![[0; 2]; self.axes],
            output_padding: vec![0; self.axes],
            groups: 1,
        };
        self.graph.push(op, &[from])
    }

    fn program(mut self, output: usize, spatial: &[usize]) -> Program {
        self.graph.outputs = vec![output];
        Program::new(Arc::new(self.graph), self.weights, spatial).unwrap()
    }
}

/// nnU-Net's plain form, in small.
pub fn unet(axes: usize, features: [usize; 3], classes: usize, seed: u32) -> Program {
    let mut b = Builder::new(1, axes, seed);
    let [f0, f1, f2] = features;
    let x = b.block(0, [1, f0], 1);
    let skip0 = b.block(x, [f0, f0], 1);
    let x = b.block(skip0, [f0, f1], 2);
    let skip1 = b.block(x, [f1, f1], 1);
    let x = b.block(skip1, [f1, f2], 2);
    let x = b.block(x, [f2, f2], 1);
    let up = b.up(x, [f2, f1]);
    let x = b.graph.push(Op::Concat { axis: 1 }, &[up, skip1]);
    let x = b.block(x, [2 * f1, f1], 1);
    let up = b.up(x, [f1, f0]);
    let x = b.graph.push(Op::Concat { axis: 1 }, &[up, skip0]);
    let x = b.block(x, [2 * f0, f0], 1);
    let x = b.conv(x, [f0, classes], 1, 1);
    b.program(x, &vec![16; axes])
}

/// Residual blocks with norms before and after the sum, of both kinds.
fn residual(seed: u32) -> Program {
    let mut b = Builder::new(2, 3, seed);
    let stem = b.block(0, [2, 16], 1);
    // nnU-Net: norm, sum, activation; the skip by a 1³ convolution with a norm.
    let x = b.block(stem, [16, 24], 2);
    let x = b.conv(x, [24, 24], 3, 1);
    let x = b.norm(x, 24);
    let pool = Pool {
        kernel: vec![2; 3],
        stride: vec![2; 3],
        padding: vec![[0; 2]; 3],
        ceil: false,
    };
    let skip = Op::AveragePool {
        pool,
        count_padding: true,
    };
    let skip = b.graph.push(skip, &[stem]);
    let skip = b.conv(skip, [16, 24], 1, 1);
    let skip = b.norm(skip, 24);
    let x = b.graph.push(Op::Add, &[x, skip]);
    let first = b.leaky(x);
    // SegResNet: group norm, ReLU, convolution, then a bare sum.
    let mut x = first;
    for _ in 0..2 {
        let affine = b.affine(24);
        let op = Op::GroupNorm {
            groups: 8,
            epsilon: 1e-5,
            affine: Some(affine),
        };
        x = b.graph.push(op, &[x]);
        x = b.graph.push(Op::Relu, &[x]);
        x = b.conv(x, [24, 24], 3, 1);
    }
    let x = b.graph.push(Op::Add, &[x, first]);
    // A stored norm behind a convolution, and the sum's operands the other way round.
    let y = b.conv(x, [24, 24], 3, 1);
    let y = b.batch_norm(y, 24);
    let y = b.graph.push(Op::Add, &[x, y]);
    let y = b.graph.push(Op::Relu, &[y]);
    b.program(y, &[8; 3])
}

/// A dense block: norms before, channels joined.
fn dense(seed: u32) -> Program {
    let mut b = Builder::new(3, 2, seed);
    let mut x = b.conv(0, [3, 21], 3, 2);
    let mut channels = 21;
    for _ in 0..3 {
        let y = b.batch_norm(x, channels);
        let y = b.graph.push(Op::Relu, &[y]);
        let y = b.conv(y, [channels, 32], 1, 1);
        let y = b.batch_norm(y, 32);
        let y = b.graph.push(Op::Relu, &[y]);
        let y = b.conv(y, [32, 11], 3, 1);
        x = b.graph.push(Op::Concat { axis: 1 }, &[x, y]);
        channels += 11;
    }
    let x = b.graph.push(Op::GlobalAveragePool, &[x]);
    let x = b.graph.push(Op::Reshape { shape: vec![1, -1] }, &[x]);
    let op = Op::Linear {
        weight: b.weight(&[5, channels], 0.3),
        bias: None,
    };
    let x = b.graph.push(op, &[x]);
    b.program(x, &[24, 20])
}

/// Tokens: attention of heads and of shifted windows, products of values, values that several take,
/// operands that are repeated, and the ways between tokens and grids.
fn transformer(seed: u32) -> Program {
    let mut b = Builder::new(3, 2, seed);
    let x = b.conv(0, [3, 24], 3, 4);
    let last = Op::Transpose {
        order: vec![0, 2, 3, 1],
    };
    let grid = b.graph.push(last, &[x]);
    let norm = |b: &mut Builder, x: usize| {
        let affine = Some(b.affine(24));
        let op = Op::LayerNorm {
            epsilon: 1e-5,
            affine,
        };
        b.graph.push(op, &[x])
    };
    let linear = |b: &mut Builder, x: usize, [from, to]: [usize; 2]| {
        let weight = b.weight(&[to, from], 0.3);
        let bias = Some(b.weight(&[to], 0.2));
        b.graph.push(Op::Linear { weight, bias }, &[x])
    };
    let reshape = |b: &mut Builder, x: usize, shape: &[i64]| {
        let shape = shape.to_vec();
        b.graph.push(Op::Reshape { shape }, &[x])
    };
    // Attention of four heads over all tokens.
    let tokens = reshape(&mut b, grid, &[1, 30, 24]);
    let tensor = b.weight(&[1, 30, 24], 0.5);
    let places = b.graph.push(Op::Constant { tensor }, &[]);
    let tokens = b.graph.push(Op::Add, &[tokens, places]);
    let x = norm(&mut b, tokens);
    let x = linear(&mut b, x, [24, 72]);
    let x = reshape(&mut b, x, &[30, 3, 4, 6]);
    let order = vec![1, 2, 0, 3];
    let x = b.graph.push(Op::Transpose { order }, &[x]);
    let parts: Vec<usize> = (0..3)
        .map(|n| {
            let part = Op::Slice {
                axis: 0,
                start: n,
                end: n + 1,
            };
            b.graph.push(part, &[x])
        })
        .collect();
    let x = b.graph.push(Op::Attention { scale: 0.4 }, &parts);
    let order = vec![0, 2, 1, 3];
    let x = b.graph.push(Op::Transpose { order }, &[x]);
    let x = reshape(&mut b, x, &[1, 30, 24]);
    let x = linear(&mut b, x, [24, 24]);
    let tokens = b.graph.push(Op::Add, &[tokens, x]);
    let x = norm(&mut b, tokens);
    let x = linear(&mut b, x, [24, 50]);
    let x = b.graph.push(Op::Gelu, &[x]);
    let x = linear(&mut b, x, [50, 24]);
    let tokens = b.graph.push(Op::Add, &[x, tokens]);
    // Attention in windows of a grid that is filled up and turned.
    let grid = reshape(&mut b, tokens, &[1, 6, 5, 24]);
    let x = norm(&mut b, grid);
    let pad = Op::Pad {
        padding: vec![[0, 0], [0, 2], [0, 1], [0, 0]],
        mode: PadMode::Constant(0.0),
    };
    let x = b.graph.push(pad, &[x]);
    let mut x = linear(&mut b, x, [24, 72]);
    for shift in [vec![0, 0], vec![2, 1]] {
        let bias = b.weight(&[7 * 5, 3], 0.5);
        let op = Op::WindowAttention {
            heads: 3,
            scale: 0.35,
            bias,
            table: vec![4, 3],
            window: vec![4, 3],
            shift,
        };
        let y = b.graph.push(op, &[x]);
        x = linear(&mut b, y, [24, 72]);
    }
    let mut x = linear(&mut b, x, [72, 24]);
    for (axis, end) in [(1, 6), (2, 5)] {
        let start = 0;
        x = b.graph.push(Op::Slice { axis, start, end }, &[x]);
    }
    let grid = b.graph.push(Op::Add, &[grid, x]);
    // As exporters write it: products, a mask that is chosen, softmax.
    let rows = reshape(&mut b, grid, &[5, 6, 24]);
    let order = vec![0, 2, 1];
    let columns = b.graph.push(Op::Transpose { order }, &[rows]);
    let scores = b.graph.push(Op::MatMul, &[rows, columns]);
    let tensor = b.weight(&[6, 1], 0.5);
    let a = b.graph.push(Op::Constant { tensor }, &[]);
    let tensor = b.weight(&[5, 1, 6], 0.5);
    let c = b.graph.push(Op::Constant { tensor }, &[]);
    let more = b.graph.push(Op::Greater, &[a, c]);
    let scores = b.graph.push(Op::Select, &[more, scores, c]);
    let shares = b.graph.push(Op::Softmax { axis: 2 }, &[scores]);
    let x = b.graph.push(Op::MatMul, &[shares, rows]);
    let halves: Vec<usize> = [(0, 10), (10, 24)]
        .map(|(start, end)| {
            let axis = 2;
            b.graph.push(Op::Slice { axis, start, end }, &[x])
        })
        .to_vec();
    let x = b
        .graph
        .push(Op::Concat { axis: 2 }, &[halves[1], halves[0]]);
    let x = b.graph.push(Op::Mul, &[x, rows]);
    let x = reshape(&mut b, x, &[1, 6, 5, 24]);
    let first = Op::Transpose {
        order: vec![0, 3, 1, 2],
    };
    let x = b.graph.push(first, &[x]);
    let y = b.conv(x, [24, 24], 3, 1);
    let x = b.graph.push(Op::Add, &[x, y]);
    let x = b.conv(x, [24, 5], 3, 1);
    b.program(x, &[24, 20])
}

#[test]
fn whole_networks_are_the_same_fused_or_not() {
    for (name, program, spatial) in [
        ("unet 3-D", unet(3, [16, 24, 40], 5, 1), vec![16, 12, 20]),
        (
            "unet 3-D odd channels",
            unet(3, [12, 21, 33], 3, 2),
            vec![8, 8, 12],
        ),
        ("unet 2-D", unet(2, [32, 40, 64], 4, 3), vec![28, 36]),
        ("residual", residual(4), vec![8, 10, 12]),
        ("dense", dense(5), vec![24, 20]),
        ("transformer", transformer(6), vec![24, 20]),
    ] {
        let (channels, _) = program.graph().input().unwrap();
        let shape = [&[1, channels], spatial.as_slice()].concat();
        let input = Random(77).array(&shape, 2.0);
        let want = reference::run(&program, &input, &Device::Cpu, &Task::new()).unwrap();
        let native = Native::new(program).unwrap();
        let mut workspace = Workspace::default();
        // A second run finds used memory and must not see what it holds.
        for _ in 0..2 {
            let got = native.run(&input, &mut workspace, &Task::new()).unwrap();
            let most = difference(&got[0], &want[0]);
            // Deep chains of f32 sums in another order.
            assert!(most < 2e-5, "{name}: {most:e}");
        }
        assert!(native.bytes(&spatial).unwrap() > 0 && native.flops(&spatial).unwrap() > 1e5);
    }
}

#[test]
fn a_network_does_not_depend_on_the_number_of_threads() {
    let input = Random(7).array(&[1, 1, 16, 12, 20], 2.0);
    let results: Vec<Array> = [1, 2, 3]
        .into_iter()
        .map(|threads| {
            let native = Native::new(unet(3, [16, 24, 40], 5, 1)).unwrap();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().unwrap().install(|| {
                let mut workspace = Workspace::default();
                native
                    .run(&input, &mut workspace, &Task::new())
                    .unwrap()
                    .remove(0)
            })
        })
        .collect();
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0], results[2]);
}

#[test]
fn a_cancelled_network_stops() {
    let native = Native::new(unet(3, [16, 24, 40], 5, 1)).unwrap();
    let input = Random(7).array(&[1, 1, 16, 12, 20], 2.0);
    let task = Task::new();
    task.cancel();
    let stopped = native.run(&input, &mut Workspace::default(), &task);
    assert!(matches!(stopped, Err(Error::Cancelled(_))));
}
