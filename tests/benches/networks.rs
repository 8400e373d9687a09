//! Whole networks with random weights: time, effective rate, and memory against its estimate.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use negatoscope::inference::native::{Native, Workspace};
use negatoscope::inference::{Array, Program};
use negatoscope::kernels::{Instructions, fma_peak_gflops};
use negatoscope::model::graph::{Affine, Graph, Op, Pool, ResizeMode, ResizeTo};
use negatoscope::task::Task;

/// Runs all.
pub fn run() {
    let threads = rayon::current_num_threads();
    let peak = fma_peak_gflops(Instructions::detect()) * threads as f64;
    println!("networks: f32 FMA peak of {threads} threads: {peak:.0} GFLOP/s");
    measure(
        "nnU-Net 2-D 32–512, 512²",
        &nnunet(2, &[32, 64, 128, 256, 512, 512, 512, 512]),
        &[512, 512],
        peak,
    );
    measure(
        "nnU-Net 3-D 32–320, 128³",
        &nnunet(3, &[32, 64, 128, 256, 320, 320]),
        &[128; 3],
        peak,
    );
    measure(
        "MeshNet 30 channels, 128³",
        &meshnet(30, 18),
        &[128; 3],
        peak,
    );
    measure("DenseNet-121, 224²", &densenet121(), &[224; 2], peak);
    measure("SegResNet 16–128, 96³", &segresnet(16), &[96; 3], peak);
}

fn measure(name: &str, program: &Program, spatial: &[usize], peak: f64) {
    let start = Instant::now();
    let native = Native::new(program.clone()).expect("a network");
    let packed = start.elapsed().as_secs_f64();
    let count: usize = spatial.iter().product();
    let shape = [&[1, 1], spatial].concat();
    let values = (0..count).map(|n| ((n * 7919) % 1001) as f32 / 500.0 - 1.0);
    let input = Array::new(&shape, values.collect());
    let mut workspace = Workspace::default();
    let mut times: Vec<f64> = (0..3)
        .map(|_| {
            let start = Instant::now();
            let out = native.run(&input, &mut workspace, &Task::new());
            std::hint::black_box(out.expect("nothing stops it"));
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let rate = native.flops(spatial).expect("it fits") / times[1] / 1e9;
    println!(
        "{name}: {:.2} s (packing {packed:.2} s), {rate:.0} GFLOP/s effective, {:.0} % of the peak, {:.0} MB planned",
        times[1],
        100.0 * rate / peak,
        native.bytes(spatial).expect("it fits") as f64 / 1e6,
    );
}

struct Builder {
    graph: Graph,
    weights: HashMap<String, Array>,
    axes: usize,
    seed: u32,
}

impl Builder {
    fn new(axes: usize) -> Self {
        let (graph, weights) = (Graph::new(1, axes), HashMap::new());
        Self {
            graph,
            weights,
            axes,
            seed: 1,
        }
    }

    fn weight(&mut self, shape: &[usize], scale: f32) -> String {
        let name = format!("w{}", self.weights.len());
        let count = shape.iter().product();
        let mut seed = self.seed;
        let values = (0..count).map(|_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((seed >> 8) as f32 / (1 << 23) as f32 - 1.0) * scale
        });
        self.weights
            .insert(name.clone(), Array::new(shape, values.collect()));
        self.seed = seed;
        name
    }

    fn conv(
        &mut self,
        from: usize,
        [ci, co]: [usize; 2],
        kernel: usize,
        stride: usize,
        dilation: usize,
    ) -> usize {
        let shape: Vec<usize> = [&[co, ci], vec![kernel; self.axes].as_slice()].concat();
        let scale = (3.0 / (ci * kernel.pow(self.axes as u32)) as f32).sqrt();
        let op = Op::Conv {
            weight: self.weight(&shape, scale),
            bias: Some(self.weight(&[co], 0.1)),
            stride: vec![stride; self.axes],
            padding: vec![[kernel / 2 * dilation; 2]; self.axes],
            dilation: vec![dilation; self.axes],
            groups: 1,
        };
        self.graph.push(op, &[from])
    }

    fn block(&mut self, from: usize, channels: [usize; 2], stride: usize) -> usize {
        let x = self.conv(from, channels, 3, stride, 1);
        let (scale, shift) = (
            self.weight(&[channels[1]], 1.0),
            self.weight(&[channels[1]], 0.1),
        );
        let affine = Some(Affine { scale, shift });
        let x = self.graph.push(
            Op::InstanceNorm {
                epsilon: 1e-5,
                affine,
            },
            &[x],
        );
        self.graph.push(Op::LeakyRelu { slope: 0.01 }, &[x])
    }

    fn norm_relu(&mut self, from: usize, channels: usize, groups: Option<usize>) -> usize {
        let affine = Some(Affine {
            scale: self.weight(&[channels], 1.0),
            shift: self.weight(&[channels], 0.1),
        });
        let epsilon = 1e-5;
        let norm = if let Some(groups) = groups {
            Op::GroupNorm {
                groups,
                epsilon,
                affine,
            }
        } else {
            let variance = format!("v{}", self.weights.len());
            let ones = Array::new(&[channels], vec![1.0; channels]);
            self.weights.insert(variance.clone(), ones);
            Op::BatchNorm {
                epsilon,
                mean: self.weight(&[channels], 0.1),
                variance,
                affine,
            }
        };
        let x = self.graph.push(norm, &[from]);
        self.graph.push(Op::Relu, &[x])
    }

    fn done(mut self, output: usize, example: usize) -> Program {
        self.graph.outputs = vec![output];
        let spatial = vec![example; self.axes];
        Program::new(Arc::new(self.graph), self.weights, &spatial).expect("a network")
    }
}

/// PlainConvUNet with two convolutions a stage.
pub fn nnunet(axes: usize, features: &[usize]) -> Program {
    let mut b = Builder::new(axes);
    let (mut x, mut channels, mut skips) = (0, 1, Vec::new());
    for (stage, f) in features.iter().enumerate() {
        x = b.block(x, [channels, *f], if stage == 0 { 1 } else { 2 });
        x = b.block(x, [*f, *f], 1);
        channels = *f;
        skips.push((x, *f));
    }
    skips.pop();
    while let Some((skip, f)) = skips.pop() {
        let shape: Vec<usize> = [&[channels, f], vec![2; axes].as_slice()].concat();
        let up = Op::ConvTranspose {
            weight: b.weight(&shape, 0.1),
            bias: Some(b.weight(&[f], 0.1)),
            stride: vec![2; axes],
            padding: vec![[0; 2]; axes],
            output_padding: vec![0; axes],
            groups: 1,
        };
        let up = b.graph.push(up, &[x]);
        x = b.graph.push(Op::Concat { axis: 1 }, &[up, skip]);
        x = b.block(x, [2 * f, f], 1);
        x = b.block(x, [f, f], 1);
        channels = f;
    }
    let x = b.conv(x, [channels, 3], 1, 1, 1);
    b.done(x, 128)
}

fn meshnet(channels: usize, classes: usize) -> Program {
    let mut b = Builder::new(3);
    let (mut x, mut ci) = (0, 1);
    for dilation in [1, 2, 4, 8, 16, 8, 4, 2, 1] {
        x = b.conv(x, [ci, channels], 3, 1, dilation);
        x = b.graph.push(Op::Elu { alpha: 1.0 }, &[x]);
        ci = channels;
    }
    let x = b.conv(x, [ci, classes], 1, 1, 1);
    b.done(x, 64)
}

/// torchvision's, for one channel and 18 findings.
fn densenet121() -> Program {
    let mut b = Builder::new(2);
    let x = b.conv(0, [1, 64], 7, 2, 1);
    let x = b.norm_relu(x, 64, None);
    let pool = |kernel: usize, padding: usize| Pool {
        kernel: vec![kernel; 2],
        stride: vec![2; 2],
        padding: vec![[padding; 2]; 2],
        ceil: false,
    };
    let mut x = b.graph.push(Op::MaxPool(pool(3, 1)), &[x]);
    let mut channels = 64;
    for (block, layers) in [6, 12, 24, 16].into_iter().enumerate() {
        for _ in 0..layers {
            let y = b.norm_relu(x, channels, None);
            let y = b.conv(y, [channels, 128], 1, 1, 1);
            let y = b.norm_relu(y, 128, None);
            let y = b.conv(y, [128, 32], 3, 1, 1);
            x = b.graph.push(Op::Concat { axis: 1 }, &[x, y]);
            channels += 32;
        }
        x = b.norm_relu(x, channels, None);
        if block < 3 {
            x = b.conv(x, [channels, channels / 2], 1, 1, 1);
            channels /= 2;
            let mean = Op::AveragePool {
                pool: pool(2, 0),
                count_padding: false,
            };
            x = b.graph.push(mean, &[x]);
        }
    }
    let x = b.graph.push(Op::GlobalAveragePool, &[x]);
    let x = b.conv(x, [channels, 18], 1, 1, 1);
    b.done(x, 224)
}

/// MONAI's, with group norm of 8 groups and trilinear upsampling.
fn segresnet(features: usize) -> Program {
    let mut b = Builder::new(3);
    let block = |b: &mut Builder, x: usize, f: usize| {
        let y = b.norm_relu(x, f, Some(8));
        let y = b.conv(y, [f, f], 3, 1, 1);
        let y = b.norm_relu(y, f, Some(8));
        let y = b.conv(y, [f, f], 3, 1, 1);
        b.graph.push(Op::Add, &[y, x])
    };
    let mut x = b.conv(0, [1, features], 3, 1, 1);
    let mut skips = Vec::new();
    for (stage, blocks) in [1, 2, 2, 4].into_iter().enumerate() {
        let f = features << stage;
        if stage > 0 {
            x = b.conv(x, [f / 2, f], 3, 2, 1);
        }
        for _ in 0..blocks {
            x = block(&mut b, x, f);
        }
        skips.push(x);
    }
    for stage in (0..3).rev() {
        let f = features << stage;
        let y = b.conv(x, [2 * f, f], 1, 1, 1);
        let up = Op::Resize {
            to: ResizeTo::Factor(vec![2.0; 3]),
            mode: ResizeMode::Linear,
        };
        let y = b.graph.push(up, &[y]);
        let y = b.graph.push(Op::Add, &[y, skips[stage]]);
        x = block(&mut b, y, f);
    }
    let x = b.norm_relu(x, features, Some(8));
    let x = b.conv(x, [features, 3], 1, 1, 1);
    b.done(x, 96)
}
