//! How fast this machine is: a few short measurements, from which the time of a network is told.

use std::sync::OnceLock;
use std::time::Instant;

use rayon::prelude::*;

use super::blocked::{BLOCK, Blocked};
use super::conv::{Conv, ConvShape, Epilogue, Method};
use super::simd::Instructions;

/// Seconds of the parts of work, with all threads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Winograd's method: per multiplication and addition of the definition.
    pub winograd_secs: f64,
    /// And per tap and channel that is transformed, at input or output, of each grid point.
    pub transform_secs: f64,
    /// By the definition: per multiplication and addition.
    pub direct_secs: f64,
    /// The same where one block of outputs is all there is: each input that is loaded serves few sums.
    pub narrow_secs: f64,
    /// Per byte that is read or written in memory.
    pub byte_secs: f64,
    /// Handing a piece of work to all threads and waiting for the last.
    pub start_secs: f64,
}

impl Rates {
    /// Of this machine, measured at the first call: about a tenth of a second.
    pub fn of_this_machine() -> Self {
        static RATES: OnceLock<Rates> = OnceLock::new();
        *RATES.get_or_init(|| Self::measure(Instructions::detect()))
    }

    /// Measures; the best of many short runs, so that other programs disturb little.
    pub fn measure(instructions: Instructions) -> Self {
        let (dims, channels) = ([8, 32, 48], 32);
        let shape = ConvShape::same(channels, channels, [3; 3]);
        let points = dims.iter().product::<usize>() as f64;
        let c = channels as f64;
        let per_point = time(shape, dims, Method::Winograd, instructions) / points;
        let winograd_secs = IN_A_NETWORK * per_point / (54.0 * c * c + TRANSFORM * 2.0 * c);
        let shape = ConvShape {
            stride: [2; 3],
            ..ConvShape::same(32, 64, [3; 3])
        };
        let direct = |shape: ConvShape, dims| {
            let flops = shape.flops(shape.output_dims(dims).unwrap_or([1; 3]));
            IN_A_NETWORK * time(shape, dims, Method::Direct, instructions) / flops
        };
        let direct_secs = direct(shape, [16, 32, 32]);
        let narrow_secs = direct(ConvShape::same(BLOCK, BLOCK, [3; 3]), [16, 32, 32]);
        Self {
            winograd_secs,
            transform_secs: TRANSFORM * winograd_secs,
            direct_secs,
            narrow_secs,
            byte_secs: memory(),
            start_secs: start(),
        }
    }
}

/// What a convolution takes in a network on a large grid against one alone whose values stay in the
/// caches, at its best of some runs: found on AVX2 from brainchop's models and an nnU-Net of 32 to 320
/// features.
const IN_A_NETWORK: f64 = 1.4;

/// What transforming a channel of a grid point takes against one multiplication and addition of the
/// definition, by Winograd's method: found from 16 and 64 channels on AVX2.
const TRANSFORM: f64 = 650.0;

/// Seconds of a convolution of zeros, which take as long as anything.
fn time(shape: ConvShape, dims: [usize; 3], method: Method, instructions: Instructions) -> f64 {
    let conv = Conv::new(shape, &vec![0.0; shape.weights()], &[], method);
    let input = Blocked::zeros(dims, shape.input);
    let out = shape.output_dims(dims).expect("the kernel fits");
    let mut output = Blocked::zeros(out, shape.output);
    best(|| {
        let (from, to) = (input.view(), output.view_mut());
        let ran = conv.run(from, None, to, &Epilogue::default(), instructions, &|| true);
        debug_assert!(ran.is_ok());
    })
}

/// Seconds per byte: a copy beyond the caches.
fn memory() -> f64 {
    const BYTES: usize = 48 << 20;
    let from = vec![1_u8; BYTES];
    let mut to = vec![0_u8; BYTES];
    let secs = best_of(3, || {
        let pieces = to.par_chunks_mut(1 << 18).zip(from.par_chunks(1 << 18));
        pieces.for_each(|(to, from)| to.copy_from_slice(from));
    });
    secs / (2 * BYTES) as f64
}

/// Seconds until all threads have done next to nothing.
fn start() -> f64 {
    let pieces = 4 * rayon::current_num_threads();
    let mut done = vec![0_u64; pieces];
    let secs = best(|| {
        for _ in 0..20 {
            done.par_iter_mut().for_each(|done| *done += 1);
        }
    });
    secs / 20.0
}

/// Runs of each measurement.
const RUNS: usize = 10;

/// The shortest of some runs, after one that does not count.
fn best(work: impl FnMut()) -> f64 {
    best_of(RUNS, work)
}

fn best_of(runs: usize, mut work: impl FnMut()) -> f64 {
    work();
    (0..runs)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
        .max(1e-9)
}
