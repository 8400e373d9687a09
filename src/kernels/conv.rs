//! Convolutions of any shape on blocked activations: the shape, the packed weights, the call.

use super::blocked::{BLOCK, View, ViewMut};
use super::conv3d::Stopped;
use super::depthwise::Depthwise;
use super::direct::Direct;
use super::pointwise::Activation;
use super::rates::Rates;
use super::simd::Instructions;
use super::slices::{Inputs, Outputs, Slices, Source, Unit};
use super::winograd::Winograd;

/// What a convolution does, without its weights. Axes are `[z, y, x]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvShape {
    /// Input channels.
    pub input: usize,
    /// Output channels.
    pub output: usize,
    /// Groups that do not see each other; both numbers of channels are multiples.
    pub groups: usize,
    /// Taps; 1 along axes that an image does not have.
    pub kernel: [usize; 3],
    /// Steps of the output in the input.
    pub stride: [usize; 3],
    /// Distances of taps.
    pub dilation: [usize; 3],
    /// Zeros before and after the grid.
    pub padding: [[usize; 2]; 3],
}

impl ConvShape {
    /// Stride 1, no dilation, no groups, zeros that keep the grid for odd kernels.
    pub fn same(input: usize, output: usize, kernel: [usize; 3]) -> Self {
        Self {
            input,
            output,
            groups: 1,
            kernel,
            stride: [1; 3],
            dilation: [1; 3],
            padding: kernel.map(|k| [k.saturating_sub(1) / 2, k / 2]),
        }
    }

    /// The same with taps `dilation` apart, and zeros that keep the grid.
    pub fn dilated(self, dilation: [usize; 3]) -> Self {
        let mut shape = Self { dilation, ..self };
        for (axis, padding) in shape.padding.iter_mut().enumerate() {
            let reach = (self.kernel[axis].saturating_sub(1)) * dilation[axis];
            *padding = [reach / 2, reach.div_ceil(2)];
        }
        shape
    }

    /// The same with another stride.
    pub const fn strided(self, stride: [usize; 3]) -> Self {
        Self { stride, ..self }
    }

    /// Whether numbers make sense together.
    pub fn is_valid(&self) -> bool {
        let positive = |axes: [usize; 3]| axes.iter().all(|n| *n > 0);
        self.input > 0
            && self.output > 0
            && self.groups > 0
            && self.input.is_multiple_of(self.groups)
            && self.output.is_multiple_of(self.groups)
            && positive(self.kernel)
            && positive(self.stride)
            && positive(self.dilation)
    }

    /// The grid of the output; `None` where the kernel does not fit into the padded input.
    pub fn output_dims(&self, dims: [usize; 3]) -> Option<[usize; 3]> {
        let mut out = [0; 3];
        for axis in 0..3 {
            let span = (self.kernel[axis] - 1)
                .checked_mul(self.dilation[axis])?
                .checked_add(1)?;
            let [before, after] = self.padding[axis];
            let padded = dims[axis].checked_add(before)?.checked_add(after)?;
            out[axis] = padded.checked_sub(span)? / self.stride[axis] + 1;
        }
        Some(out)
    }

    /// Number of weights, `[co][ci / groups][kz][ky][kx]`.
    pub fn weights(&self) -> usize {
        self.output * (self.input / self.groups) * self.taps()
    }

    /// The weights, of all that there are, for some of the input channels; of one group.
    pub fn inputs_of(&self, weights: &[f32], channels: std::ops::Range<usize>) -> Vec<f32> {
        let taps = self.taps();
        let all = weights.len() / self.output.max(1);
        let outputs = weights.chunks_exact(all.max(1));
        let part = channels.start * taps..channels.end * taps;
        outputs.flat_map(|of| &of[part.clone()]).copied().collect()
    }

    /// Multiplications and additions by the definition, for an output grid, edges counted as full.
    pub fn flops(&self, output_dims: [usize; 3]) -> f64 {
        2.0 * self.weights() as f64 * output_dims.iter().map(|n| *n as f64).product::<f64>()
    }

    pub(super) fn taps(&self) -> usize {
        self.kernel.iter().product()
    }
}

/// Points of a grid that is worth a pass of its own for a norm.
const SMALL_GRID: usize = 64;

/// How a convolution is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Method {
    /// What is expected to be the fastest.
    #[default]
    Auto,
    /// By the definition.
    Direct,
    /// Winograd's minimal filtering, where the shape allows it (three taps, stride 1); else direct.
    Winograd,
}

/// What happens to the input while it is read: per channel `activation(x · scale + offset)`.
///
/// Zeros of the padding stay zeros. This is how a norm costs no pass of its own.
#[derive(Clone, Copy, Debug)]
pub struct Prologue<'a> {
    /// Per input channel.
    pub scale: &'a [f32],
    /// Per input channel.
    pub offset: &'a [f32],
    /// After both.
    pub activation: Activation,
}

/// What happens to the sums before they are stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// Added after the bias: the skip of a residual block. Same shape as the output, blocked.
    pub residual: Option<View<'a>>,
    /// What the output holds is added as well: the sums over other input channels. Only where
    /// [`Conv::accumulates`].
    pub accumulate: bool,
    /// After that.
    pub activation: Activation,
    /// Whether to give the [`Moments`] of what was stored.
    pub moments: bool,
}

/// Sums over the grid per channel, for a norm: `(Σx, Σx²)` in f64.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Number of points that were summed.
    pub count: usize,
    /// Per channel.
    pub sums: Vec<[f64; 2]>,
}

impl Moments {
    /// Scale and offset per channel of an instance norm with optional weight and bias:
    /// `(x − mean) / √(variance + ε) · weight + bias`.
    pub fn norm(&self, epsilon: f32, weight: &[f32], bias: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let count = self.count as f64;
        self.sums
            .iter()
            .enumerate()
            .map(|(c, [sum, squares])| {
                let mean = sum / count;
                let variance = (squares / count - mean * mean).max(0.0);
                let scale = weight.get(c).copied().map_or(1.0, f64::from)
                    / (variance + f64::from(epsilon)).sqrt();
                let offset = bias.get(c).copied().map_or(0.0, f64::from) - mean * scale;
                (scale as f32, offset as f32)
            })
            .unzip()
    }
}

/// A convolution with its weights, packed for its method.
#[derive(Clone, Debug)]
pub struct Conv {
    shape: ConvShape,
    kernel: Kernel,
}

#[derive(Clone, Debug)]
enum Kernel {
    Direct(Direct),
    Winograd(Winograd),
    Depthwise(Depthwise),
}

impl Conv {
    /// Packs weights `[co][ci / groups][kz][ky][kx]`; `bias` is `[co]` or empty.
    ///
    /// # Panics
    /// When the shape is not valid or lengths do not fit it.
    pub fn new(shape: ConvShape, weights: &[f32], bias: &[f32], method: Method) -> Self {
        assert_eq!(weights.len(), shape.weights(), "weights fill the shape");
        assert!(
            bias.is_empty() || bias.len() == shape.output,
            "a bias for each output channel"
        );
        Self::made(shape, Some(weights), bias, method)
    }

    /// What [`Conv::new`] makes, for its sizes alone: nothing is packed, and it cannot run.
    ///
    /// # Panics
    /// When the shape is not valid.
    pub fn outline(shape: ConvShape, method: Method) -> Self {
        Self::made(shape, None, &[], method)
    }

    fn made(shape: ConvShape, weights: Option<&[f32]>, bias: &[f32], method: Method) -> Self {
        assert!(shape.is_valid(), "a shape that makes sense");
        let winograd = match method {
            Method::Direct => false,
            Method::Winograd => Winograd::fits(&shape),
            Method::Auto => Winograd::pays(&shape),
        };
        let kernel = if Depthwise::fits(&shape) {
            Kernel::Depthwise(Depthwise::new(shape, weights, bias))
        } else if winograd {
            Kernel::Winograd(Winograd::new(shape, weights, bias))
        } else {
            Kernel::Direct(Direct::new(shape, weights, bias))
        };
        Self { shape, kernel }
    }

    /// Its shape.
    pub const fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// Whether a run on an input grid is faster when a norm was applied to the input before, by a
    /// pass of its own: one tap on a small grid, where each group of output channels would apply
    /// it again and rows are short.
    pub fn wants_plain_input(&self, dims: [usize; 3]) -> bool {
        matches!(&self.kernel, Kernel::Direct(k) if k.reads_any_grid())
            && dims.iter().product::<usize>() <= SMALL_GRID
    }

    /// Whether a run can add to what its output holds.
    pub const fn accumulates(&self) -> bool {
        matches!(self.kernel, Kernel::Winograd(_))
    }

    /// `direct`, `winograd` or `depthwise`.
    pub const fn method(&self) -> &'static str {
        match &self.kernel {
            Kernel::Direct(_) => "direct",
            Kernel::Winograd(_) => "winograd",
            Kernel::Depthwise(_) => "depthwise",
        }
    }

    /// Bytes of the packed weights.
    pub fn weight_bytes(&self) -> usize {
        4 * match &self.kernel {
            Kernel::Direct(k) => k.weight_floats(),
            Kernel::Winograd(k) => k.weight_floats(),
            Kernel::Depthwise(k) => k.weight_floats(),
        }
    }

    /// Bytes that a run takes beside input, output and weights, on an input grid.
    pub fn scratch_bytes(&self, dims: [usize; 3], threads: usize) -> usize {
        match &self.kernel {
            Kernel::Direct(k) => k.scratch_bytes(dims, None, threads),
            Kernel::Winograd(k) => k.scratch_bytes(dims, None, threads),
            Kernel::Depthwise(_) => 0,
        }
    }

    /// The same for a run unit by unit.
    pub fn unit_scratch_bytes(&self, dims: [usize; 3], threads: usize) -> usize {
        match &self.kernel {
            Kernel::Direct(k) => k.scratch_bytes(dims, Some(&[0]), threads),
            Kernel::Winograd(k) => k.scratch_bytes(dims, Some(&[0]), threads),
            Kernel::Depthwise(_) => 0,
        }
    }

    /// In which units the slices of an output can be computed, for an input grid; in an order in which
    /// they share inputs. None where it takes the whole grid.
    pub fn units(&self, dims: [usize; 3]) -> Option<Vec<Unit>> {
        let [slices, ..] = self.shape.output_dims(dims)?;
        match &self.kernel {
            Kernel::Direct(k) => Some(k.units(dims[0], slices)),
            Kernel::Winograd(k) => Some(k.units(dims[0], slices)),
            Kernel::Depthwise(_) => None,
        }
    }

    /// Seconds that a run on an input grid is expected to take.
    pub fn expected_secs(&self, dims: [usize; 3], rates: &Rates) -> f64 {
        let Some(out) = self.shape.output_dims(dims) else {
            return 0.0;
        };
        // Channels go in blocks.
        let (ci, co) = (self.shape.input, self.shape.output);
        let full = |c: usize| c.next_multiple_of(BLOCK) as f64;
        let activations = super::blocked_floats(dims, ci) + super::blocked_floats(out, co);
        let passes = 4.0 * activations as f64 * rates.byte_secs;
        // Deep in a U-Net a layer has more weights than values: each comes from memory.
        let weights = self.weight_bytes() as f64 * rates.byte_secs + rates.start_secs;
        // Winograd's tiles are of two voxels along each axis of the kernel.
        let tiled = [0, 1, 2].map(|axis| match (&self.kernel, self.shape.kernel[axis]) {
            (Kernel::Winograd(_), 3) => out[axis].next_multiple_of(2),
            _ => out[axis],
        });
        let points = tiled.iter().product::<usize>() as f64;
        let flops = self.shape.flops(tiled);
        let work = match &self.kernel {
            Kernel::Direct(_) => {
                let narrow = co <= BLOCK;
                let rate = if narrow {
                    rates.narrow_secs
                } else {
                    rates.direct_secs
                };
                flops / co as f64 * full(co) * rate
            }
            Kernel::Winograd(_) => {
                let padded = flops / (ci * co) as f64 * full(ci) * full(co);
                // In 2-D a tile saves 9/4 of the products in place of 27/8, and has half the points.
                let (more, half) = match self.shape.kernel[0] {
                    1 => (1.5, 0.5),
                    _ => (1.0, 1.0),
                };
                let moved = points * (full(ci) + full(co)) * half;
                padded * more * rates.winograd_secs + moved * rates.transform_secs
            }
            Kernel::Depthwise(_) => flops * rates.direct_secs,
        };
        work.max(passes) + weights
    }

    /// Convolves. `row_done` is asked now and then and stops the work by returning false.
    ///
    /// The moments are those of what was stored, when the epilogue asks for them.
    ///
    /// # Errors
    /// [`Stopped`].
    ///
    /// # Panics
    /// When shapes do not fit.
    pub fn run(
        &self,
        input: View<'_>,
        prologue: Option<Prologue<'_>>,
        mut output: ViewMut<'_>,
        epilogue: &Epilogue<'_>,
        instructions: Instructions,
        row_done: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<Moments>, Stopped> {
        assert_eq!(input.channels(), self.shape.input, "channels of the input");
        assert_eq!(
            output.channels(),
            self.shape.output,
            "channels of the output"
        );
        assert_eq!(
            Some(output.dims()),
            self.shape.output_dims(input.dims()),
            "the grid of the output"
        );
        assert!(
            !epilogue.accumulate || self.accumulates(),
            "a kernel that can add to its output"
        );
        if let Some(residual) = &epilogue.residual {
            assert_eq!(
                (residual.dims(), residual.channels(), residual.lanes()),
                (output.dims(), output.channels(), BLOCK),
                "the shape of the residual"
            );
        }
        if let Some(prologue) = &prologue {
            assert!(
                prologue.scale.len() == self.shape.input
                    && prologue.offset.len() == self.shape.input,
                "a scale and an offset for each input channel"
            );
        }
        let sums = match &self.kernel {
            Kernel::Direct(k) => k.run(
                Inputs::whole(input),
                prologue,
                Outputs::whole(output.reborrow()),
                epilogue,
                instructions,
                row_done,
            ),
            Kernel::Winograd(k) => k.run(
                &Inputs::whole(input),
                prologue,
                &Outputs::whole(output.reborrow()),
                epilogue,
                instructions,
                row_done,
            ),
            Kernel::Depthwise(k) => k.run(
                input,
                prologue,
                output.reborrow(),
                epilogue,
                instructions,
                row_done,
            ),
        }?;
        Ok(epilogue.moments.then(|| Moments {
            count: output.voxels(),
            sums,
        }))
    }

    /// Convolves some units of [`Conv::units`], by the first slice of each, into slices that are there.
    /// Each value is the same, to the last bit, as in a run over the whole grid.
    ///
    /// # Errors
    /// [`Stopped`].
    ///
    /// # Panics
    /// When shapes do not fit, a slice is not there, or it takes the whole grid.
    pub fn run_units(
        &self,
        starts: &[usize],
        input: Source<'_>,
        output: &mut Slices<'_>,
        activation: Activation,
        instructions: Instructions,
        row_done: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), Stopped> {
        assert_eq!(
            (input.channels(), output.channels()),
            (self.shape.input, self.shape.output),
            "channels of the input and of the output"
        );
        assert_eq!(
            Some(output.dims()),
            self.shape.output_dims(input.dims()),
            "the grid of the output"
        );
        let epilogue = Epilogue {
            activation,
            ..Epilogue::default()
        };
        let (input, output) = (Inputs::new(input), Outputs::slices(output, starts));
        match &self.kernel {
            Kernel::Direct(k) => k.run(input, None, output, &epilogue, instructions, row_done),
            Kernel::Winograd(k) => k.run(&input, None, &output, &epilogue, instructions, row_done),
            Kernel::Depthwise(_) => panic!("it takes the whole grid"),
        }
        .map(|_| ())
    }

    /// Convolves and keeps only the channel with the largest value (the first of equals),
    /// `[z][y][x]`: the classes are never held for the whole grid.
    ///
    /// # Errors
    /// [`Stopped`].
    ///
    /// # Panics
    /// When shapes do not fit, or there are more than 256 output channels.
    pub fn run_argmax(
        &self,
        input: View<'_>,
        prologue: Option<Prologue<'_>>,
        labels: &mut [u8],
        instructions: Instructions,
        row_done: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), Stopped> {
        let labels = (labels, None);
        self.labels(
            Source::Whole(input),
            prologue,
            labels,
            instructions,
            row_done,
        )
    }

    /// The same for some units, by the first slice of each; labels of others stay as they are.
    ///
    /// # Errors
    /// [`Stopped`].
    ///
    /// # Panics
    /// As [`Conv::run_argmax`], and when a slice is not there.
    pub fn run_argmax_units(
        &self,
        starts: &[usize],
        input: Source<'_>,
        labels: &mut [u8],
        instructions: Instructions,
        row_done: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), Stopped> {
        let labels = (labels, Some(starts));
        self.labels(input, None, labels, instructions, row_done)
    }

    fn labels(
        &self,
        input: Source<'_>,
        prologue: Option<Prologue<'_>>,
        labels: (&mut [u8], Option<&[usize]>),
        instructions: Instructions,
        row_done: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), Stopped> {
        assert_eq!(input.channels(), self.shape.input, "channels of the input");
        assert!(self.shape.output <= 256, "labels are bytes");
        let dims = self
            .shape
            .output_dims(input.dims())
            .expect("the kernel fits into the padded input");
        assert_eq!(
            labels.0.len(),
            dims.iter().product::<usize>(),
            "a label for each point"
        );
        let Kernel::Direct(direct) = &self.kernel else {
            panic!("made with Method::Direct and without groups");
        };
        let input = Inputs::new(input);
        direct.run_argmax(input, prologue, labels, instructions, row_done)
    }
}

/// The output channels in groups of one to three blocks, as `(first channel, blocks)`: pairs of
/// blocks keep most registers busy, a group of three takes the odd one.
pub(super) fn groups_of(channels: usize) -> Vec<(usize, usize)> {
    let blocks = channels.div_ceil(BLOCK);
    let mut groups = Vec::new();
    let mut first = 0;
    while first < blocks {
        let width = match blocks - first {
            1 => 1,
            n if n % 2 == 1 => 3,
            _ => 2,
        };
        groups.push((first * BLOCK, width));
        first += width;
    }
    groups
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Blocked;
    use super::super::literal::conv_literal;
    use super::*;

    pub(crate) fn values(n: usize, seed: u32) -> Vec<f32> {
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

    fn rms(values: &[f64]) -> f64 {
        (values.iter().map(|x| x * x).sum::<f64>() / values.len().max(1) as f64).sqrt()
    }

    /// Input channels in two runs, the second on top of the first, against all in one by the definition.
    fn check_in_parts(shape: ConvShape, dims: [usize; 3], first: usize, seed: u32) {
        let voxels: usize = dims.iter().product();
        let input = values(shape.input * voxels, seed);
        let weights = values(shape.weights(), !seed);
        let bias = values(shape.output, seed ^ 0x1234);
        let mut want = conv_literal(&shape, &input, dims, &weights, &bias);
        let scale = rms(&want).max(1.0);
        for x in &mut want {
            *x = x.max(0.0);
        }
        let part = |channels: std::ops::Range<usize>, bias: &[f32]| {
            let shape = ConvShape {
                input: channels.len(),
                ..shape
            };
            let weights = shape.inputs_of(&weights, channels.clone());
            let values = &input[channels.start * voxels..channels.end * voxels];
            let input = Blocked::from_channels(values, dims, channels.len());
            (Conv::new(shape, &weights, bias, Method::Winograd), input)
        };
        let (before, some) = part(first..shape.input, &bias);
        let (on_top, others) = part(0..first, &[]);
        assert!(on_top.accumulates());
        for instructions in Instructions::available() {
            let out_dims = shape.output_dims(dims).unwrap();
            let mut out = Blocked::zeros(out_dims, shape.output);
            out.view_mut().as_mut_slice().fill(f32::NAN);
            let mut run = |conv: &Conv, input: &Blocked, epilogue: Epilogue<'_>| {
                conv.run(
                    input.view(),
                    None,
                    out.view_mut(),
                    &epilogue,
                    instructions,
                    &|| true,
                )
                .unwrap()
            };
            run(&before, &some, Epilogue::default());
            let epilogue = Epilogue {
                accumulate: true,
                activation: Activation::Relu,
                moments: true,
                ..Epilogue::default()
            };
            let moments = run(&on_top, &others, epilogue).unwrap();
            let got = out.to_channels();
            for (got, want) in got.iter().zip(&want) {
                let off = (f64::from(*got) - want).abs() / scale;
                assert!(off < 1e-5, "{shape:?} {dims:?} {got} {want}");
            }
            let count: usize = out_dims.iter().product();
            for (c, sums) in moments.sums.iter().enumerate() {
                let all = &got[c * count..][..count];
                let sum: f64 = all.iter().map(|x| f64::from(*x)).sum();
                assert!((sums[0] - sum).abs() < 1e-4 * scale * count as f64);
            }
        }
    }

    /// Everything that a run gives, against the definition.
    fn check(shape: ConvShape, dims: [usize; 3], seed: u32, extras: bool, plain: bool) {
        let Some(out_dims) = shape.output_dims(dims) else {
            return;
        };
        let voxels: usize = dims.iter().product();
        let input = values(shape.input * voxels, seed);
        let weights = values(shape.weights(), seed ^ 0xABCD);
        let bias = values(shape.output, seed ^ 0x1234);
        let scale = values(shape.input, seed ^ 0x77);
        let offset = values(shape.input, seed ^ 0x99);
        let count: usize = out_dims.iter().product();
        let residual = values(shape.output * count, seed ^ 0x55);
        let (mut read, mut prologue, mut epilogue) = (input.clone(), None, Epilogue::default());
        let blocked_residual = Blocked::from_channels(&residual, out_dims, shape.output);
        if extras {
            for (n, x) in read.iter_mut().enumerate() {
                let c = n / voxels;
                *x = *x * scale[c] + offset[c];
                *x = if *x > 0.0 { *x } else { *x * 0.01 };
            }
            prologue = Some(Prologue {
                scale: &scale,
                offset: &offset,
                activation: Activation::LeakyRelu(0.01),
            });
            epilogue = Epilogue {
                residual: Some(blocked_residual.view()),
                activation: Activation::Sigmoid,
                moments: true,
                ..Epilogue::default()
            };
        }
        let mut want = conv_literal(&shape, &read, dims, &weights, &bias);
        let scale_of_sums = rms(&want).max(1.0);
        if extras {
            for (x, r) in want.iter_mut().zip(&residual) {
                *x = 1.0 / (1.0 + (-*x - f64::from(*r)).exp());
            }
        }
        let view = if plain {
            Blocked::plain(input.clone(), dims, shape.input)
        } else {
            Blocked::from_channels(&input, dims, shape.input)
        };
        for method in [Method::Direct, Method::Winograd] {
            let conv = Conv::new(shape, &weights, &bias, method);
            for instructions in Instructions::available() {
                let mut out = Blocked::zeros(out_dims, shape.output);
                // What stood there before does not matter.
                out.view_mut().as_mut_slice().fill(f32::NAN);
                let moments = conv
                    .run(
                        view.view(),
                        prologue,
                        out.view_mut(),
                        &epilogue,
                        instructions,
                        &|| true,
                    )
                    .unwrap();
                let got = out.to_channels();
                for (n, (got, want)) in got.iter().zip(&want).enumerate() {
                    // The bound, on the sums' own scale; sigmoid's slope is below 1.
                    assert!(
                        (f64::from(*got) - want).abs() <= 1e-5 * scale_of_sums,
                        "{method:?} {instructions:?} {shape:?} {dims:?} at {n}: {got} {want}"
                    );
                }
                let filled = shape.output.next_multiple_of(BLOCK);
                for c in shape.output..filled {
                    assert!((0..count).all(|v| out.view().at(c, v) == 0.0));
                }
                if let Some(moments) = moments {
                    for (c, [sum, squares]) in moments.sums.iter().enumerate() {
                        let own = got[c * count..(c + 1) * count]
                            .iter()
                            .copied()
                            .map(f64::from);
                        let own_squares: f64 = own.clone().map(|x| x * x).sum();
                        assert!((sum - own.sum::<f64>()).abs() < 1e-9 * count as f64);
                        assert!((squares - own_squares).abs() < 1e-9 * count as f64);
                    }
                }
            }
        }
    }

    fn axis() -> impl Strategy<Value = (usize, usize, usize, [usize; 2])> {
        (
            prop::sample::select(vec![1_usize, 1, 2, 3, 3, 5]),
            prop::sample::select(vec![1_usize, 1, 1, 2, 3]),
            prop::sample::select(vec![1_usize, 1, 2, 3]),
            [0_usize..4, 0_usize..4],
        )
    }

    #[test]
    fn input_channels_can_come_in_two_runs() {
        for (shape, first, dims) in [
            (ConvShape::same(32, 16, [3; 3]), 16, [5, 6, 7]),
            (ConvShape::same(40, 20, [3; 3]), 24, [4, 9, 18]),
            (ConvShape::same(24, 9, [1, 3, 3]), 8, [1, 11, 13]),
            (
                ConvShape::same(32, 8, [3; 3]).dilated([2, 1, 3]),
                16,
                [6, 5, 11],
            ),
        ] {
            check_in_parts(shape, dims, first, 77);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn any_shape_equals_the_definition(
            axes in [axis(), axis(), axis()],
            dims in [1_usize..6, 1_usize..9, 1_usize..30],
            (input, output, groups) in prop_oneof![
                (1_usize..20, 1_usize..30).prop_map(|(i, o)| (i, o, 1)),
                (1_usize..4, 1_usize..4, 2_usize..9).prop_map(|(i, o, g)| (i * g, o * g, g)),
                (2_usize..20).prop_map(|n| (n, n, n)),
            ],
            seed in any::<u32>(),
            extras in any::<bool>(),
            plain in any::<bool>(),
        ) {
            let shape = ConvShape {
                input,
                output,
                groups,
                kernel: axes.map(|a| a.0),
                stride: axes.map(|a| a.1),
                dilation: axes.map(|a| a.2),
                padding: axes.map(|a| a.3),
            };
            check(shape, dims, seed, extras, plain);
        }

        #[test]
        fn three_taps_equal_the_definition(
            flat in any::<bool>(),
            dims in [1_usize..9, 1_usize..12, 1_usize..20],
            input in 1_usize..40,
            output in 1_usize..60,
            dilation in [1_usize..5, 1_usize..5, 1_usize..5],
            seed in any::<u32>(),
            extras in any::<bool>(),
            plain in any::<bool>(),
        ) {
            let kernel = if flat { [1, 3, 3] } else { [3, 3, 3] };
            check(ConvShape::same(input, output, kernel).dilated(dilation), dims, seed, extras, plain);
        }
    }

    #[test]
    fn deep_layers_equal_the_definition() {
        // More channels than one chunk, fewer points than threads have tiles.
        check(
            ConvShape::same(80, 72, [3, 3, 3]),
            [3, 4, 4],
            7,
            true,
            false,
        );
        check(
            ConvShape::same(40, 40, [3, 3, 3]).strided([2, 2, 2]),
            [5, 20, 70],
            8,
            false,
            false,
        );
    }

    #[test]
    fn labels_are_the_first_largest_channel() {
        let dims = [3, 5, 70];
        for (shape, plain) in [
            (ConvShape::same(20, 18, [1, 1, 1]), false),
            (ConvShape::same(20, 18, [3, 3, 3]), false),
            (ConvShape::same(1, 300 / 2, [3, 3, 3]), true),
        ] {
            let input = values(shape.input * 1050, 3);
            let weights = values(shape.weights(), 4);
            let want = conv_literal(&shape, &input, dims, &weights, &[]);
            let conv = Conv::new(shape, &weights, &[], Method::Direct);
            let view = if plain {
                Blocked::plain(input, dims, shape.input)
            } else {
                Blocked::from_channels(&input, dims, shape.input)
            };
            for instructions in Instructions::available() {
                let mut labels = vec![255; 1050];
                conv.run_argmax(view.view(), None, &mut labels, instructions, &|| true)
                    .unwrap();
                for (v, label) in labels.iter().enumerate() {
                    let best = (0..shape.output)
                        .map(|c| want[c * 1050 + v])
                        .fold(f64::MIN, f64::max);
                    assert!(best - want[usize::from(*label) * 1050 + v] < 1e-4);
                }
            }
        }
    }

    #[test]
    fn a_watcher_can_stop_any_method() {
        for (method, groups) in [
            (Method::Direct, 1),
            (Method::Winograd, 1),
            (Method::Direct, 16),
        ] {
            let shape = ConvShape {
                groups,
                ..ConvShape::same(16, 16, [3, 3, 3])
            };
            let conv = Conv::new(shape, &vec![0.0; shape.weights()], &[], method);
            let input = Blocked::zeros([4; 3], 16);
            let mut out = Blocked::zeros([4; 3], 16);
            let stopped = conv.run(
                input.view(),
                None,
                out.view_mut(),
                &Epilogue::default(),
                Instructions::detect(),
                &|| false,
            );
            assert_eq!(stopped, Err(Stopped));
        }
    }

    #[test]
    fn results_do_not_depend_on_the_threads() {
        let shape = ConvShape::same(24, 24, [3, 3, 3]);
        let dims = [9, 17, 33];
        let input = Blocked::from_channels(&values(24 * 9 * 17 * 33, 1), dims, 24);
        let weights = values(shape.weights(), 2);
        for method in [Method::Direct, Method::Winograd] {
            let conv = Conv::new(shape, &weights, &[], method);
            let run = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                let mut out = Blocked::zeros(dims, 24);
                let epilogue = Epilogue {
                    moments: true,
                    ..Epilogue::default()
                };
                let moments = pool.install(|| {
                    conv.run(
                        input.view(),
                        None,
                        out.view_mut(),
                        &epilogue,
                        Instructions::detect(),
                        &|| true,
                    )
                });
                (out, moments)
            };
            let one = run(1);
            assert_eq!(one, run(2));
            assert_eq!(one, run(5));
        }
    }
}
