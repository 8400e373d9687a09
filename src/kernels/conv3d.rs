//! Direct 3-D convolution: a register tile of output channels × x-vectors per output row.
//!
//! For each output row and block of output channels, a tile of the row is accumulated over all
//! taps and input channels in registers, then bias and activation are applied and it is stored
//! once. Rows beyond the grid in y and z are skipped; in x the rows' own zeros are read.
#![expect(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the caller's instruction set"
)]
#![expect(
    unsafe_code,
    reason = "raw pointers in the inner loop; bounds are proven before it"
)]

use rayon::prelude::*;

use super::Planes;
use super::pointwise::Activation;
use super::simd::{Instructions, Lanes};

/// Most output channels of a register tile; with six, compilers spill registers.
const BLOCK: usize = 5;
/// Vectors of x in a register tile: with [`BLOCK`] channels ten sums, as many as two
/// multiply-adds per cycle of four cycles need to be busy.
const VECTORS: usize = 2;

/// The work was stopped by its watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

/// Weights of a convolution, packed for the kernel.
#[derive(Clone, Debug)]
pub struct Conv3d {
    /// Input channels.
    pub input: usize,
    /// Output channels.
    pub output: usize,
    /// Edge of the cubic kernel, odd.
    pub size: usize,
    /// Distance of taps.
    pub dilation: usize,
    /// After the bias.
    pub activation: Activation,
    bias: Vec<f32>,
    /// Per block of output channels: `[kz][ky][ci][kx][co in block]`.
    blocks: Vec<(usize, Vec<f32>)>,
}

impl Conv3d {
    /// Packs weights `[co][ci][kz][ky][kx]`; `bias` is `[co]` or empty.
    ///
    /// # Panics
    /// When lengths do not fit the shape, or the kernel's edge is even.
    pub fn new(
        weights: &[f32],
        bias: &[f32],
        [output, input]: [usize; 2],
        size: usize,
        dilation: usize,
        activation: Activation,
    ) -> Self {
        assert!(size % 2 == 1 && dilation > 0, "kernels have a middle");
        let taps = size * size * size;
        assert_eq!(
            weights.len(),
            output * input * taps,
            "weights fill the shape"
        );
        assert!(
            bias.is_empty() || bias.len() == output,
            "a bias for each output channel"
        );
        // Blocks of nearly equal size waste no lanes: 21 channels are 5+4+4+4+4, not 5+5+5+5+1.
        let count = output.div_ceil(BLOCK);
        let mut blocks = Vec::new();
        let mut first = 0;
        for n in 0..count {
            let width = (output - first).div_ceil(count - n);
            let mut packed = Vec::with_capacity(width * input * taps);
            for kz in 0..size {
                for ky in 0..size {
                    for ci in 0..input {
                        for kx in 0..size {
                            for co in first..first + width {
                                let at = (((co * input + ci) * size + kz) * size + ky) * size + kx;
                                packed.push(weights[at]);
                            }
                        }
                    }
                }
            }
            blocks.push((width, packed));
            first += width;
        }
        let bias = if bias.is_empty() {
            vec![0.0; output]
        } else {
            bias.to_vec()
        };
        Self {
            input,
            output,
            size,
            dilation,
            activation,
            bias,
            blocks,
        }
    }

    /// Multiplications and additions for a grid, edges counted as full.
    pub fn flops(&self, dims: [usize; 3]) -> f64 {
        let taps = self.size.pow(3);
        2.0 * (self.input * self.output * taps) as f64 * dims.iter().product::<usize>() as f64
    }

    /// Zeros that rows of the input need on each side.
    pub const fn reach(&self) -> usize {
        self.size / 2 * self.dilation
    }

    fn check(&self, input: &Planes) {
        assert_eq!(
            input.channels(),
            self.input,
            "channels of the input fit the weights"
        );
        assert!(
            input.pad() >= self.reach(),
            "rows are padded as far as the taps reach"
        );
    }
}

/// Convolves into `output`, which has the input's grid and the convolution's output channels.
///
/// `row_done` is called after each (z, y) and stops the work by returning false.
///
/// # Errors
/// [`Stopped`].
///
/// # Panics
/// When shapes do not fit.
pub fn conv3d(
    conv: &Conv3d,
    input: &Planes,
    output: &mut Planes,
    instructions: Instructions,
    row_done: &(dyn Fn() -> bool + Sync),
) -> Result<(), Stopped> {
    conv.check(input);
    assert_eq!(output.dims(), input.dims(), "one grid");
    assert_eq!(output.channels(), conv.output, "channels of the output");
    let (stride, pad, line) = (output.stride(), output.pad(), output.line());
    let [_, ny, nx] = input.dims();
    output
        .as_mut_lines()
        .par_chunks_mut(line)
        .enumerate()
        .try_for_each(|(n, out)| {
            row(
                conv,
                input,
                n / ny,
                n % ny,
                instructions,
                &mut |co, x, values: &[f32]| {
                    let count = values.len().min(nx - x);
                    let at = co * stride + pad + x;
                    out[at..at + count].copy_from_slice(&values[..count]);
                },
            );
            if row_done() { Ok(()) } else { Err(Stopped) }
        })
}

/// Convolves and keeps only the channel with the largest value (the first of equals), `[z][y][x]`.
///
/// The channels of the last layer are never held for the whole grid.
///
/// # Errors
/// [`Stopped`].
///
/// # Panics
/// When shapes do not fit, or there are more than 256 channels.
pub fn conv3d_argmax(
    conv: &Conv3d,
    input: &Planes,
    instructions: Instructions,
    row_done: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<u8>, Stopped> {
    conv.check(input);
    assert!(conv.output <= 256, "labels are bytes");
    let [nz, ny, nx] = input.dims();
    let mut labels = vec![0_u8; nz * ny * nx];
    labels.par_chunks_mut(nx).enumerate().try_for_each_init(
        || vec![0.0_f32; nx],
        |best, (n, labels)| {
            best.fill(f32::NEG_INFINITY);
            row(
                conv,
                input,
                n / ny,
                n % ny,
                instructions,
                &mut |co, x, values: &[f32]| {
                    let count = values.len().min(nx - x);
                    let row = best[x..x + count].iter_mut().zip(&mut labels[x..x + count]);
                    for ((best, label), value) in row.zip(values) {
                        // Channels come in rising order, so the first of equals stays.
                        if *value > *best {
                            *best = *value;
                            *label = co as u8;
                        }
                    }
                },
            );
            if row_done() { Ok(()) } else { Err(Stopped) }
        },
    )?;
    Ok(labels)
}

/// One output row: `put(channel, x, values)` for each tile, channels rising within a tile's block.
fn row(
    conv: &Conv3d,
    input: &Planes,
    z: usize,
    y: usize,
    instructions: Instructions,
    put: &mut impl FnMut(usize, usize, &[f32]),
) {
    // SAFETY: `instructions` comes from `Instructions::available`.
    match instructions {
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 => unsafe { row_avx512(conv, input, z, y, put) },
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2Fma => unsafe { row_avx2(conv, input, z, y, put) },
        #[cfg(target_arch = "aarch64")]
        Instructions::Neon => unsafe {
            row_of::<std::arch::aarch64::float32x4_t>(conv, input, z, y, put)
        },
        _ => unsafe { row_of::<[f32; 8]>(conv, input, z, y, put) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn row_avx2(
    conv: &Conv3d,
    input: &Planes,
    z: usize,
    y: usize,
    put: &mut impl FnMut(usize, usize, &[f32]),
) {
    // SAFETY: the features are on.
    unsafe { row_of::<std::arch::x86_64::__m256>(conv, input, z, y, put) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn row_avx512(
    conv: &Conv3d,
    input: &Planes,
    z: usize,
    y: usize,
    put: &mut impl FnMut(usize, usize, &[f32]),
) {
    // SAFETY: the feature is on.
    unsafe { row_of::<std::arch::x86_64::__m512>(conv, input, z, y, put) }
}

#[inline(always)]
unsafe fn row_of<V: Lanes>(
    conv: &Conv3d,
    input: &Planes,
    z: usize,
    y: usize,
    put: &mut impl FnMut(usize, usize, &[f32]),
) {
    let mut first = 0;
    for (width, weights) in &conv.blocks {
        // SAFETY: passed on from the caller.
        unsafe {
            match (conv.size, width) {
                // The usual size is known while compiling, so that its loop is unrolled.
                (3, 3) => tiles::<V, 3, 3>(conv, input, z, y, first, weights, put),
                (3, 4) => tiles::<V, 4, 3>(conv, input, z, y, first, weights, put),
                (3, 5) => tiles::<V, 5, 3>(conv, input, z, y, first, weights, put),
                (_, 1) => tiles::<V, 1, 0>(conv, input, z, y, first, weights, put),
                (_, 2) => tiles::<V, 2, 0>(conv, input, z, y, first, weights, put),
                (_, 3) => tiles::<V, 3, 0>(conv, input, z, y, first, weights, put),
                (_, 4) => tiles::<V, 4, 0>(conv, input, z, y, first, weights, put),
                _ => tiles::<V, BLOCK, 0>(conv, input, z, y, first, weights, put),
            }
        }
        first += width;
    }
}

/// The tiles of one block of `CO` output channels; `SIZE` is the kernel's edge, 0 for any.
#[inline(always)]
unsafe fn tiles<V: Lanes, const CO: usize, const SIZE: usize>(
    conv: &Conv3d,
    input: &Planes,
    z: usize,
    y: usize,
    first: usize,
    weights: &[f32],
    put: &mut impl FnMut(usize, usize, &[f32]),
) {
    let [nz, ny, nx] = input.dims();
    let (stride, line) = (input.stride(), input.line());
    let size = if SIZE > 0 { SIZE } else { conv.size };
    let (dilation, reach) = (conv.dilation, conv.reach());
    let data = input.as_slice();
    let tap_weights = conv.input * size * CO;
    debug_assert_eq!(weights.len(), size * size * tap_weights);
    let tile = V::N * VECTORS;
    let mut x = 0;
    let mut values = [0.0_f32; 16 * VECTORS];
    while x < nx {
        // SAFETY: the largest read starts at row start + pad − reach + 2·reach + x, that is at
        // most stride beyond the row's start minus one tile's surplus; a tile surplus of at most
        // 32 floats lies in the next row or in the slack of 64 floats behind the last one.
        unsafe {
            let mut sums = [[V::splat(0.0); VECTORS]; CO];
            for (co, sums) in sums.iter_mut().enumerate() {
                *sums = [V::splat(conv.bias[first + co]); VECTORS];
            }
            for kz in 0..size {
                let Some(pz) = (z + kz * dilation).checked_sub(reach).filter(|p| *p < nz) else {
                    continue;
                };
                for ky in 0..size {
                    let Some(py) = (y + ky * dilation).checked_sub(reach).filter(|p| *p < ny)
                    else {
                        continue;
                    };
                    let start = (pz * ny + py) * line + input.pad() - reach + x;
                    // Pointers wrap, so that builds with debug assertions check nothing here.
                    let mut row = data.as_ptr().wrapping_add(start);
                    let taps = &weights[(kz * size + ky) * tap_weights..][..tap_weights];
                    for taps in taps.as_chunks::<CO>().0.chunks_exact(size) {
                        for (kx, taps) in taps.iter().enumerate() {
                            let at = row.wrapping_add(kx * dilation);
                            let mut loaded = [V::splat(0.0); VECTORS];
                            for (n, vector) in loaded.iter_mut().enumerate() {
                                *vector = V::load(at.wrapping_add(n * V::N));
                            }
                            for (sums, tap) in sums.iter_mut().zip(taps) {
                                let weight = V::splat(*tap);
                                for (sum, vector) in sums.iter_mut().zip(loaded) {
                                    *sum = sum.add_product(vector, weight);
                                }
                            }
                        }
                        row = row.wrapping_add(stride);
                    }
                }
            }
            for (co, sums) in sums.iter().enumerate() {
                for (n, sum) in sums.iter().enumerate() {
                    sum.store(values.as_mut_ptr().add(n * V::N));
                }
                conv.activation.apply(&mut values[..tile]);
                put(first + co, x, &values[..tile]);
            }
        }
        x += tile;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::conv3d_literal;
    use super::*;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut x = seed | 1;
        (0..n)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 17;
                x ^= x << 5;
                (x % 2001) as f32 / 1000.0 - 1.0
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn every_version_equals_the_definition(
            dims in [1_usize..7, 1_usize..7, 1_usize..40],
            ci in 1_usize..7,
            co in 1_usize..15,
            size in prop::sample::select(vec![1_usize, 3, 5]),
            dilation in 1_usize..6,
            seed in any::<u32>(),
        ) {
            let input = values(ci * dims.iter().product::<usize>(), seed);
            let weights = values(co * ci * size.pow(3), seed ^ 0xABCD);
            let bias = values(co, seed ^ 0x1234);
            let want = conv3d_literal(&input, dims, &weights, &bias, size, dilation);
            for instructions in Instructions::available() {
                for activation in [Activation::Linear, Activation::Relu] {
                    let conv = Conv3d::new(&weights, &bias, [co, ci], size, dilation, activation);
                    let planes = Planes::from_channels(&input, dims, ci, conv.reach() + 1);
                    let mut out = Planes::zeros(dims, co, 3);
                    conv3d(&conv, &planes, &mut out, instructions, &|| true).unwrap();
                    for (got, want) in out.to_channels().iter().zip(&want) {
                        let want = if activation == Activation::Relu { want.max(0.0) } else { *want };
                        // f32 sums of up to 6·125 terms of size 1.
                        prop_assert!((f64::from(*got) - want).abs() < 1e-3, "{instructions:?} {got} {want}");
                    }
                    if activation == Activation::Linear {
                        let labels = conv3d_argmax(&conv, &planes, instructions, &|| true).unwrap();
                        let n = dims.iter().product::<usize>();
                        for (v, label) in labels.iter().enumerate() {
                            let best = (0..co).map(|c| want[c * n + v]).fold(f64::MIN, f64::max);
                            prop_assert!(best - want[usize::from(*label) * n + v] < 2e-3);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_watcher_can_stop_the_work() {
        let conv = Conv3d::new(&[1.0], &[], [1, 1], 1, 1, Activation::Linear);
        let planes = Planes::zeros([4, 4, 4], 1, 0);
        let mut out = Planes::zeros([4, 4, 4], 1, 0);
        let stopped = conv3d(&conv, &planes, &mut out, Instructions::detect(), &|| false);
        assert_eq!(stopped, Err(Stopped));
    }
}
