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
    /// Of this machine, measured at the first call: about a third of a second.
    pub fn of_this_machine() -> Self {
        static RATES: OnceLock<Rates> = OnceLock::new();
        *RATES.get_or_init(|| Self::measure(Instructions::detect()))
    }

    /// Measures: of some rounds the middle one, part by part, so that neither another program nor a
    /// moment of a higher clock is taken for the machine.
    pub fn measure(instructions: Instructions) -> Self {
        let mut subjects = Subjects::new();
        let rounds: Vec<[f64; 5]> = (0..ROUNDS).map(|_| subjects.round(instructions)).collect();
        let middle = |part: usize| {
            let mut found: Vec<f64> = rounds.iter().map(|round| round[part]).collect();
            found.sort_by(f64::total_cmp);
            found[ROUNDS / 2]
        };
        let winograd_secs = IN_A_NETWORK * middle(0);
        Self {
            winograd_secs,
            transform_secs: TRANSFORM * winograd_secs,
            direct_secs: IN_A_NETWORK * middle(1),
            narrow_secs: NARROW_IN_A_NETWORK * middle(2),
            byte_secs: middle(3),
            start_secs: middle(4),
        }
    }
}

/// Rounds of all measurements.
const ROUNDS: usize = 7;
/// Bytes that are copied, more than caches hold.
const BYTES: usize = 40 << 20;
/// Runs of each measurement in a round.
const RUNS: usize = 3;

/// What is measured.
struct Subjects {
    winograd: Subject,
    direct: Subject,
    narrow: Subject,
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Subjects {
    fn new() -> Self {
        let wide = ConvShape {
            stride: [2; 3],
            ..ConvShape::same(32, 64, [3; 3])
        };
        let narrow = ConvShape::same(BLOCK, BLOCK, [3; 3]);
        Self {
            winograd: Subject::new(
                ConvShape::same(32, 32, [3; 3]),
                [8, 32, 48],
                Method::Winograd,
            ),
            direct: Subject::new(wide, [16, 32, 32], Method::Direct),
            narrow: Subject::new(narrow, [16, 32, 32], Method::Direct),
            from: vec![1; BYTES],
            to: vec![0; BYTES],
        }
    }

    /// Seconds: of a unit of Winograd's method, of a multiplication and addition by the definition, the
    /// same with one block of outputs, of a byte, of a start.
    fn round(&mut self, instructions: Instructions) -> [f64; 5] {
        let Subject { conv, input } = &self.winograd;
        let (points, c) = (input.view().voxels() as f64, conv.shape().input as f64);
        let units = points * (54.0 * c * c + TRANSFORM * 2.0 * c);
        let direct = |subject: &Subject| subject.secs(instructions) / subject.flops();
        [
            self.winograd.secs(instructions) / units,
            direct(&self.direct),
            direct(&self.narrow),
            memory(&self.from, &mut self.to),
            start(),
        ]
    }
}

/// A convolution of zeros, which take as long as anything.
struct Subject {
    conv: Conv,
    input: Blocked,
}

impl Subject {
    fn new(shape: ConvShape, dims: [usize; 3], method: Method) -> Self {
        Self {
            conv: Conv::new(shape, &vec![0.0; shape.weights()], &[], method),
            input: Blocked::zeros(dims, shape.input),
        }
    }

    fn output_dims(&self) -> [usize; 3] {
        let out = self.conv.shape().output_dims(self.input.dims());
        out.expect("the kernel fits")
    }

    fn flops(&self) -> f64 {
        self.conv.shape().flops(self.output_dims())
    }

    fn secs(&self, instructions: Instructions) -> f64 {
        let mut output = Blocked::zeros(self.output_dims(), self.conv.shape().output);
        best(|| {
            let (from, to) = (self.input.view(), output.view_mut());
            let end = Epilogue::default();
            let ran = self.conv.run(from, None, to, &end, instructions, &|| true);
            debug_assert!(ran.is_ok());
        })
    }
}

/// What a convolution takes in a network on a large grid against one alone whose values stay in the
/// caches, at its best of some runs: found on AVX2 from brainchop's models and an nnU-Net of 32 to 320
/// features.
const IN_A_NETWORK: f64 = 1.4;
/// The same where one block of outputs is all there is: found from brainchop's model of five channels.
const NARROW_IN_A_NETWORK: f64 = 1.7;

/// What transforming a channel of a grid point takes against one multiplication and addition of the
/// definition, by Winograd's method: found from 16 and 64 channels on AVX2.
const TRANSFORM: f64 = 650.0;

/// Seconds per byte: a copy beyond the caches.
fn memory(from: &[u8], to: &mut [u8]) -> f64 {
    let secs = best(|| {
        let pieces = to.par_chunks_mut(1 << 18).zip(from.par_chunks(1 << 18));
        pieces.for_each(|(to, from)| to.copy_from_slice(from));
    });
    secs / (2 * from.len()) as f64
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

/// The shortest of some runs, after one that does not count.
fn best(mut work: impl FnMut()) -> f64 {
    work();
    (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
        .max(1e-9)
}
