//! Transposed convolution.
//!
//! Where the stride is the kernel, as in the decoders of U-Nets, each tap fills its own sub-lattice
//! of the output: one product of matrices per tap. Other shapes sum over taps, plainly.

use rayon::prelude::*;

use super::blocked::{BLOCK, View, ViewMut};
use super::conv::{Conv, ConvShape, Epilogue, Method, Moments};
use super::conv3d::Stopped;
use super::finish::{Finish, Shared};
use super::rates::Rates;
use super::simd::Instructions;

/// What a transposed convolution does. Axes are `[z, y, x]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransposedShape {
    /// Input channels.
    pub input: usize,
    /// Output channels.
    pub output: usize,
    /// Groups that do not see each other.
    pub groups: usize,
    /// Taps.
    pub kernel: [usize; 3],
    /// Steps of the input in the output.
    pub stride: [usize; 3],
    /// Distances of taps.
    pub dilation: [usize; 3],
    /// Points cut off before and after.
    pub padding: [[usize; 2]; 3],
    /// Points added at the end.
    pub output_padding: [usize; 3],
}

impl TransposedShape {
    /// The usual step up: stride and kernel the same.
    pub const fn up(input: usize, output: usize, stride: [usize; 3]) -> Self {
        Self {
            input,
            output,
            groups: 1,
            kernel: stride,
            stride,
            dilation: [1; 3],
            padding: [[0; 2]; 3],
            output_padding: [0; 3],
        }
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

    /// The grid of the output; `None` where the padding cuts off everything.
    pub fn output_dims(&self, dims: [usize; 3]) -> Option<[usize; 3]> {
        let mut out = [0; 3];
        for axis in 0..3 {
            let span = (self.kernel[axis] - 1).checked_mul(self.dilation[axis])?;
            let full = dims[axis]
                .checked_sub(1)?
                .checked_mul(self.stride[axis])?
                .checked_add(span)?
                .checked_add(1)?
                .checked_add(self.output_padding[axis])?;
            let [before, after] = self.padding[axis];
            out[axis] = full.checked_sub(before)?.checked_sub(after)?;
            if out[axis] == 0 {
                return None;
            }
        }
        Some(out)
    }

    /// Number of weights, `[ci][co / groups][kz][ky][kx]`.
    pub fn weights(&self) -> usize {
        self.input * (self.output / self.groups) * self.taps()
    }

    /// Multiplications and additions for an input grid.
    pub fn flops(&self, dims: [usize; 3]) -> f64 {
        2.0 * self.weights() as f64 * dims.iter().map(|n| *n as f64).product::<f64>()
    }

    fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Whether each point of the output has one tap.
    fn is_exact(&self) -> bool {
        Self {
            groups: self.groups,
            ..Self::up(self.input, self.output, self.stride)
        } == *self
    }
}

/// Passes over the output's memory beside the products: taps along x share its lines, and the end of
/// all reads and writes it once more.
const PASSES: f64 = 6.0;

/// A transposed convolution with its weights.
#[derive(Clone, Debug)]
pub struct Transposed {
    shape: TransposedShape,
    /// One product per tap.
    taps: Vec<Conv>,
    bias: Vec<f32>,
}

impl Transposed {
    /// Packs weights `[ci][co / groups][kz][ky][kx]`; `bias` is `[co]` or empty.
    ///
    /// # Panics
    /// When the shape is not valid or lengths do not fit it.
    pub fn new(shape: TransposedShape, weights: &[f32], bias: &[f32]) -> Self {
        assert!(shape.is_valid(), "a shape that makes sense");
        assert_eq!(weights.len(), shape.weights(), "weights fill the shape");
        assert!(
            bias.is_empty() || bias.len() == shape.output,
            "a bias for each output channel"
        );
        let (ci, co) = (shape.input / shape.groups, shape.output / shape.groups);
        let point = ConvShape {
            groups: shape.groups,
            ..ConvShape::same(shape.input, shape.output, [1; 3])
        };
        let taps = (0..shape.taps())
            .map(|tap| {
                let mut matrix = Vec::with_capacity(point.weights());
                for o in 0..shape.output {
                    for i in 0..ci {
                        let i = o / co * ci + i;
                        matrix.push(weights[(i * co + o % co) * shape.taps() + tap]);
                    }
                }
                Conv::new(point, &matrix, &[], Method::Direct)
            })
            .collect();
        let mut bias = bias.to_vec();
        bias.resize(shape.output.next_multiple_of(BLOCK), 0.0);
        Self { shape, taps, bias }
    }

    /// What [`Transposed::new`] makes, for its sizes alone: nothing is packed, and it cannot run.
    ///
    /// # Panics
    /// When the shape is not valid.
    pub fn outline(shape: TransposedShape) -> Self {
        assert!(shape.is_valid(), "a shape that makes sense");
        let point = ConvShape {
            groups: shape.groups,
            ..ConvShape::same(shape.input, shape.output, [1; 3])
        };
        Self {
            taps: vec![Conv::outline(point, Method::Direct); shape.taps()],
            bias: vec![0.0; shape.output.next_multiple_of(BLOCK)],
            shape,
        }
    }

    /// Its shape.
    pub const fn shape(&self) -> &TransposedShape {
        &self.shape
    }

    /// Bytes of the packed weights.
    pub fn weight_bytes(&self) -> usize {
        self.taps.iter().map(Conv::weight_bytes).sum::<usize>() + self.bias.len() * 4
    }

    /// Seconds that a run on an input grid is expected to take.
    pub fn expected_secs(&self, dims: [usize; 3], rates: &Rates) -> f64 {
        let products: f64 = self.taps.iter().map(|t| t.expected_secs(dims, rates)).sum();
        let out = self.shape.output_dims(dims).unwrap_or([0; 3]);
        let bytes = 4 * super::blocked_floats(out, self.shape.output);
        products + PASSES * bytes as f64 * rates.byte_secs
    }

    /// Bytes that a run takes beside input, output and weights.
    ///
    /// The products of one tap are held for a slab of the input's z only.
    pub fn scratch_bytes(&self, dims: [usize; 3], threads: usize) -> usize {
        let slab = [self.slab(dims), dims[1], dims[2]];
        let products = super::blocked_floats(slab, self.shape.output) * 4;
        let taps = self.taps.iter().map(|t| t.scratch_bytes(slab, threads));
        products + taps.max().unwrap_or(0) + super::blocked_floats(slab, self.shape.input) * 4
    }

    /// Planes of the input at a time: products of about 4 MB.
    fn slab(&self, dims: [usize; 3]) -> usize {
        let plane = dims[1] * dims[2] * self.bias.len() * 4;
        ((4 << 20) / plane.max(1)).clamp(1, dims[0].max(1))
    }

    /// Convolves; `row_done` is asked now and then and stops the work by returning false.
    ///
    /// # Errors
    /// [`Stopped`].
    ///
    /// # Panics
    /// When shapes do not fit.
    pub fn run(
        &self,
        input: View<'_>,
        mut output: ViewMut<'_>,
        epilogue: &Epilogue<'_>,
        instructions: Instructions,
        row_done: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<Moments>, Stopped> {
        let shape = &self.shape;
        assert_eq!(input.channels(), shape.input, "channels of the input");
        assert_eq!(output.channels(), shape.output, "channels of the output");
        let (dims, out_dims) = (input.dims(), output.dims());
        assert_eq!(
            Some(out_dims),
            shape.output_dims(dims),
            "the grid of the output"
        );
        let voxels = output.voxels();
        let line = (out_dims[2] * BLOCK).max(1);
        let lines = out_dims[0] * out_dims[1];
        // Where taps meet in the output, it begins with the bias.
        if !shape.is_exact() {
            let rows = output.as_mut_slice().par_chunks_mut(line).enumerate();
            rows.for_each(|(n, row)| {
                let bias = self.bias.as_chunks::<BLOCK>().0[n / lines];
                row.as_chunks_mut::<BLOCK>().0.fill(bias);
            });
        }
        let depth = self.slab(dims);
        let plane = dims[1] * dims[2];
        let mut slab = Vec::new();
        let mut products = Vec::new();
        let mut z = 0;
        while z < dims[0] {
            let planes = depth.min(dims[0] - z);
            let slab_dims = [planes, dims[1], dims[2]];
            copy_planes(&input, z, planes, &mut slab);
            let source = if input.lanes() == BLOCK {
                View::new(&slab, slab_dims, shape.input)
            } else {
                View::plain(&slab, slab_dims, shape.input)
            };
            products.resize(super::blocked_floats(slab_dims, shape.output), 0.0);
            for (tap, conv) in self.taps.iter().enumerate() {
                let target = ViewMut::new(&mut products, slab_dims, shape.output);
                conv.run(
                    source,
                    None,
                    target,
                    &Epilogue::default(),
                    instructions,
                    row_done,
                )?;
                let [_, ky, kx] = shape.kernel;
                let tap = [tap / (ky * kx), tap / kx % ky, tap % kx];
                self.scatter(&products, tap, z, planes, plane, dims, output.reborrow());
            }
            z += planes;
        }
        let finish = Finish::new(epilogue, shape.output, voxels);
        let rows: Vec<_> = output
            .as_mut_slice()
            .par_chunks_mut(line)
            .enumerate()
            .map(|(n, row)| {
                let mut moments = [[0.0; 2]; BLOCK];
                finish.values(n / lines, n * line, row, &mut moments);
                moments
            })
            .collect();
        if !row_done() {
            return Err(Stopped);
        }
        Ok(epilogue.moments.then(|| {
            let mut sums = vec![[0.0; 2]; shape.output];
            for (n, moments) in rows.iter().enumerate() {
                for (sum, part) in sums[n / lines * BLOCK..].iter_mut().zip(moments) {
                    sum[0] += part[0];
                    sum[1] += part[1];
                }
            }
            Moments {
                count: voxels,
                sums,
            }
        }))
    }

    /// Adds the products of one tap to the output; where each point has one tap, to its bias.
    fn scatter(
        &self,
        products: &[f32],
        tap: [usize; 3],
        z: usize,
        planes: usize,
        plane: usize,
        dims: [usize; 3],
        output: ViewMut<'_>,
    ) {
        let shape = &self.shape;
        let out_dims = output.dims();
        let voxels = output.voxels();
        let blocks = self.bias.len() / BLOCK;
        let place = |axis: usize, at: usize| {
            (at * shape.stride[axis] + tap[axis] * shape.dilation[axis])
                .checked_sub(shape.padding[axis][0])
                .filter(|p| *p < out_dims[axis])
        };
        let data = Shared::new(output);
        let exact = shape.is_exact();
        (0..blocks * planes).into_par_iter().for_each(|n| {
            let (block, pz) = (n / planes, n % planes);
            let Some(oz) = place(0, z + pz) else { return };
            for y in 0..dims[1] {
                let Some(oy) = place(1, y) else { continue };
                let at = ((block * planes + pz) * plane + y * dims[2]) * BLOCK;
                let from = products[at..at + dims[2] * BLOCK].as_chunks::<BLOCK>().0;
                let to = (block * voxels + (oz * out_dims[1] + oy) * out_dims[2]) * BLOCK;
                #[expect(unsafe_code, reason = "threads add to rows of their own")]
                // SAFETY: a row (block, z, y) of the output is met by one (block, z) of the input.
                let row = unsafe { data.slice(to, out_dims[2] * BLOCK) };
                let row = row.as_chunks_mut::<BLOCK>().0;
                if exact {
                    let bias = self.bias.as_chunks::<BLOCK>().0[block];
                    let to = row[tap[2]..].iter_mut().step_by(shape.stride[2]);
                    for (to, from) in to.zip(from) {
                        for lane in 0..BLOCK {
                            to[lane] = bias[lane] + from[lane];
                        }
                    }
                    continue;
                }
                for (x, from) in from.iter().enumerate() {
                    let Some(ox) = place(2, x) else { continue };
                    for lane in 0..BLOCK {
                        row[ox][lane] += from[lane];
                    }
                }
            }
        });
    }
}

/// Planes of all channels, in the layout of the input.
fn copy_planes(input: &View<'_>, z: usize, planes: usize, to: &mut Vec<f32>) {
    let [nz, ny, nx] = input.dims();
    let plane = ny * nx * input.lanes();
    let channels = input.as_slice().par_chunks((nz * plane).max(1));
    to.resize(channels.len() * planes * plane, 0.0);
    let copies = to.par_chunks_mut((planes * plane).max(1)).zip(channels);
    copies.for_each(|(to, channel)| {
        to.copy_from_slice(&channel[z * plane..(z + planes) * plane]);
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Activation;
    use super::super::Blocked;
    use super::*;

    fn values(n: usize, seed: usize) -> Vec<f32> {
        (0..n)
            .map(|n| ((n * 7919 + seed * 104_729) % 2003) as f32 / 1000.0 - 1.0)
            .collect()
    }

    /// Each input point adds its weighted kernel to the output, in f64.
    fn literal(
        shape: &TransposedShape,
        input: &[f32],
        dims: [usize; 3],
        weights: &[f32],
        bias: &[f32],
    ) -> Vec<f64> {
        let [oz, oy, ox] = shape.output_dims(dims).unwrap();
        let count = oz * oy * ox;
        let voxels: usize = dims.iter().product();
        let (ci, co) = (shape.input / shape.groups, shape.output / shape.groups);
        let mut out: Vec<f64> = (0..shape.output * count)
            .map(|n| f64::from(bias[n / count]))
            .collect();
        let [_, ky, kx] = shape.kernel;
        let taps = shape.taps();
        for i in 0..shape.input {
            for v in 0..voxels {
                let at = [v / (dims[1] * dims[2]), v / dims[2] % dims[1], v % dims[2]];
                for tap in 0..taps {
                    let t = [tap / (ky * kx), tap / kx % ky, tap % kx];
                    let mut to = [0; 3];
                    let mut inside = true;
                    for axis in 0..3 {
                        let p = (at[axis] * shape.stride[axis] + t[axis] * shape.dilation[axis])
                            as i64
                            - shape.padding[axis][0] as i64;
                        inside &= p >= 0 && p < [oz, oy, ox][axis] as i64;
                        to[axis] = p;
                    }
                    if !inside {
                        continue;
                    }
                    let to = ((to[0] * oy as i64 + to[1]) * ox as i64 + to[2]) as usize;
                    for o in 0..co {
                        let weight = weights[(i * co + o) * taps + tap];
                        out[(i / ci * co + o) * count + to] +=
                            f64::from(weight) * f64::from(input[i * voxels + v]);
                    }
                }
            }
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn any_shape_equals_the_definition(
            dims in [1_usize..4, 1_usize..5, 1_usize..9],
            (input, output, groups) in prop_oneof![
                (1_usize..20, 1_usize..20).prop_map(|(i, o)| (i, o, 1)),
                (1_usize..5, 1_usize..5).prop_map(|(i, o)| (2 * i, 2 * o, 2)),
            ],
            kernel in [1_usize..4, 1_usize..4, 1_usize..4],
            stride in [1_usize..4, 1_usize..4, 1_usize..4],
            dilation in [1_usize..3, 1_usize..3, 1_usize..3],
            padding in [[0_usize..2, 0_usize..2], [0_usize..2, 0_usize..2], [0_usize..2, 0_usize..2]],
            output_padding in [0_usize..2, 0_usize..2, 0_usize..2],
            up in any::<bool>(),
            seed in 0_usize..1000,
        ) {
            let shape = if up {
                TransposedShape { groups, ..TransposedShape::up(input, output, stride) }
            } else {
                TransposedShape { input, output, groups, kernel, stride, dilation, padding, output_padding }
            };
            prop_assume!(shape.output_dims(dims).is_some());
            let out_dims = shape.output_dims(dims).unwrap();
            let x = values(input * dims.iter().product::<usize>(), seed);
            let weights = values(shape.weights(), seed + 1);
            let bias = values(output, seed + 2);
            let want = literal(&shape, &x, dims, &weights, &bias);
            let conv = Transposed::new(shape, &weights, &bias);
            let epilogue = Epilogue { activation: Activation::Relu, moments: true, ..Epilogue::default() };
            for instructions in Instructions::available() {
                let view = Blocked::from_channels(&x, dims, input);
                let mut out = Blocked::zeros(out_dims, output);
                let moments = conv
                    .run(view.view(), out.view_mut(), &epilogue, instructions, &|| true)
                    .unwrap()
                    .unwrap();
                let got = out.to_channels();
                for (got, want) in got.iter().zip(&want) {
                    // f32 sums of up to 20·27 terms of size 1.
                    prop_assert!((f64::from(*got) - want.max(0.0)).abs() < 1e-4);
                }
                let count = out_dims.iter().product::<usize>();
                for (c, sums) in moments.sums.iter().enumerate() {
                    let own: f64 = got[c * count..(c + 1) * count].iter().copied().map(f64::from).sum();
                    prop_assert!((sums[0] - own).abs() < 1e-6);
                }
            }
        }
    }
}
