//! Convolutions and a whole model, against the machine's measured FMA peak.

use std::path::PathBuf;
use std::time::Instant;

use negatoscope::import;
use negatoscope::inference::{Model, Settings};
use negatoscope::kernels::{Activation, Conv3d, Instructions, Planes, conv3d, fma_peak_gflops};
use negatoscope::nifti;
use negatoscope::task::Task;

/// Runs all.
pub fn run() {
    let instructions = Instructions::detect();
    let threads = rayon::current_num_threads();
    let peak = fma_peak_gflops(instructions) * threads as f64;
    println!(
        "f32 FMA peak, {}, {threads} threads: {peak:.0} GFLOP/s",
        instructions.name()
    );
    for (input, output, edge, dilation) in [
        (30, 30, 128, 1),
        (30, 30, 128, 16),
        (21, 21, 128, 1),
        (32, 32, 96, 1),
        (64, 64, 48, 1),
        (8, 16, 128, 1),
        (1, 21, 128, 1),
    ] {
        convolution(input, output, edge, dilation, instructions, peak);
    }
    subcortical(peak);
}

fn convolution(
    input: usize,
    output: usize,
    edge: usize,
    dilation: usize,
    instructions: Instructions,
    peak: f64,
) {
    let dims = [edge; 3];
    let values: Vec<f32> = (0..input * edge * edge * edge)
        .map(|n| ((n * 7919) % 1001) as f32 / 500.0 - 1.0)
        .collect();
    let weights: Vec<f32> = (0..input * output * 27)
        .map(|n| ((n * 104_729) % 1001) as f32 / 5000.0 - 0.1)
        .collect();
    let conv = Conv3d::new(&weights, &[], [output, input], 3, dilation, Activation::Elu);
    let planes = Planes::from_channels(&values, dims, input, conv.reach());
    let mut out = Planes::zeros(dims, output, conv.reach());
    let best = (0..5)
        .map(|_| {
            let start = Instant::now();
            conv3d(&conv, &planes, &mut out, instructions, &|| true).expect("nothing stops it");
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min);
    let rate = conv.flops(dims) / best / 1e9;
    println!(
        "conv3d {input}→{output} {edge}³ dilation {dilation}, ELU: {:.0} ms, {rate:.0} GFLOP/s, {:.0} % of the peak",
        best * 1e3,
        100.0 * rate / peak
    );
}

/// brainchop's model 4 on a whole head, when the test data are there.
fn subcortical(peak: f64) {
    let Some(data) = std::env::var_os("NEGATOSCOPE_TEST_DATA").map(PathBuf::from) else {
        println!("skipped: NEGATOSCOPE_TEST_DATA is not set");
        return;
    };
    let task = Task::new();
    let volume = nifti::read(&data.join("brainchop/t1_crop.nii.gz"), &task).expect("readable");
    let packages = import::read(&data.join("brainchop/models/model30chan18cls")).expect("known");
    let package = packages
        .into_iter()
        .find(|p| p.manifest().id == "brainchop-4")
        .expect("one of its uses");
    let model = Model::new(package, &|_| Err("none".to_owned())).expect("a network");
    let settings = Settings::default();
    let found = model.run(&volume, &settings, &task).expect("it fits");
    for (phase, secs) in &found.segmentation.provenance.elapsed_secs {
        println!("brainchop-4 {phase}: {secs:.2} s");
        if phase == "inference" {
            let rate = found.plan.flops / secs / 1e9;
            println!(
                "brainchop-4 {:?}: {rate:.0} GFLOP/s, {:.0} % of the peak",
                found.plan.dims,
                100.0 * rate / peak
            );
        }
    }
}
