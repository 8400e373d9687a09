//! Operations on blocked activations, against the machine's measured FMA peak.

use std::time::Instant;

use negatoscope::kernels::{
    Activation, Blocked, Conv, ConvShape, Epilogue, Instructions, Method, Transposed,
    TransposedShape, fma_peak_gflops,
};

/// Runs all: per shape the direct method and, where it fits, Winograd's.
///
/// Rates count the multiplications and additions of the definition, so that Winograd's may lie
/// above the peak.
pub fn run() {
    let instructions = Instructions::detect();
    let threads = rayon::current_num_threads();
    let peak = fma_peak_gflops(instructions) * threads as f64;
    println!(
        "f32 FMA peak, {}, {threads} threads: {peak:.0} GFLOP/s",
        instructions.name()
    );
    let cubic = |input, output| ConvShape::same(input, output, [3; 3]);
    let flat = |input, output| ConvShape::same(input, output, [1, 3, 3]);
    for (shape, dims) in [
        (cubic(30, 30), [128; 3]),
        (cubic(30, 30).dilated([4; 3]), [128; 3]),
        (cubic(30, 30).dilated([16; 3]), [128; 3]),
        (cubic(21, 21), [128; 3]),
        (cubic(32, 32), [96; 3]),
        (cubic(64, 64), [48; 3]),
        (cubic(128, 128), [32; 3]),
        (cubic(320, 320), [8; 3]),
        (cubic(1, 32), [128; 3]),
        (cubic(32, 64).strided([2; 3]), [128; 3]),
        (flat(64, 64), [1, 256, 256]),
        (flat(32, 32), [1, 512, 512]),
        (ConvShape::same(64, 64, [1; 3]), [64; 3]),
        (flat(128, 32), [1, 56, 56]),
    ] {
        for method in [Method::Direct, Method::Winograd] {
            convolution(shape, dims, method, instructions, peak);
        }
    }
    transposed(instructions, peak);
}

fn values(n: usize, span: f32) -> Vec<f32> {
    (0..n)
        .map(|n| (((n * 7919) % 1001) as f32 / 500.0 - 1.0) * span)
        .collect()
}

fn best(mut work: impl FnMut()) -> f64 {
    (0..5)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}

fn convolution(
    shape: ConvShape,
    dims: [usize; 3],
    method: Method,
    instructions: Instructions,
    peak: f64,
) {
    let conv = Conv::new(shape, &values(shape.weights(), 0.1), &[], method);
    if method == Method::Winograd && conv.method() != "winograd" {
        return;
    }
    let out_dims = shape.output_dims(dims).expect("the kernel fits");
    let x = values(shape.input * dims.iter().product::<usize>(), 1.0);
    let input = if shape.input <= 4 {
        Blocked::plain(x, dims, shape.input)
    } else {
        Blocked::from_channels(&x, dims, shape.input)
    };
    let mut out = Blocked::zeros(out_dims, shape.output);
    let epilogue = Epilogue {
        activation: Activation::LeakyRelu(0.01),
        moments: true,
        ..Epilogue::default()
    };
    let secs = best(|| {
        conv.run(
            input.view(),
            None,
            out.view_mut(),
            &epilogue,
            instructions,
            &|| true,
        )
        .expect("nothing stops it");
    });
    let rate = shape.flops(out_dims) / secs / 1e9;
    println!(
        "{:9} {}→{} {:?} kernel {:?} stride {:?} dilation {:?}: {:.1} ms, {rate:.0} GFLOP/s, {:.0} % of the peak, \
         scratch {} KiB",
        conv.method(),
        shape.input,
        shape.output,
        dims,
        shape.kernel,
        shape.stride,
        shape.dilation,
        secs * 1e3,
        100.0 * rate / peak,
        conv.scratch_bytes(dims, rayon::current_num_threads()) >> 10,
    );
}

/// A step up in the decoder of a U-Net.
fn transposed(instructions: Instructions, peak: f64) {
    let (shape, dims) = (TransposedShape::up(64, 32, [2; 3]), [64; 3]);
    let conv = Transposed::new(shape, &values(shape.weights(), 0.1), &[]);
    let input = Blocked::from_channels(&values(64 * 64 * 64 * 64, 1.0), dims, 64);
    let mut out = Blocked::zeros([128; 3], 32);
    let secs = best(|| {
        conv.run(
            input.view(),
            out.view_mut(),
            &Epilogue::default(),
            instructions,
            &|| true,
        )
        .expect("nothing stops it");
    });
    let rate = shape.flops(dims) / secs / 1e9;
    println!(
        "transposed 64→32 {dims:?} stride 2: {:.1} ms, {rate:.0} GFLOP/s, {:.0} % of the peak",
        secs * 1e3,
        100.0 * rate / peak
    );
}
