//! Activations slice by slice: each z of a grid has memory of its own, so that a slice can go as
//! soon as nobody needs it; and what convolutions see of such a grid or of a whole one.
#![expect(
    unsafe_code,
    reason = "pieces of one output are written by several threads, each its own"
)]

use std::marker::PhantomData;

use super::blocked::{BLOCK, View, ViewMut, blocked_floats};

/// The slices of a grid that are there, each `[channel block][y][x][8 channels]` in borrowed memory.
#[derive(Debug)]
pub struct Slices<'a> {
    dims: [usize; 3],
    channels: usize,
    of: Vec<Option<&'a mut [f32]>>,
}

/// What a convolution reads.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// A whole grid.
    Whole(View<'a>),
    /// The slices that are needed.
    Slices(&'a Slices<'a>),
}

/// Slices of an output that are computed together: with them, each value is made by the same
/// operations as in a run over the whole grid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// In rising order; the first names the unit.
    pub outputs: Vec<usize>,
    /// Slices of the input that are read.
    pub inputs: Vec<usize>,
}

impl<'a> Slices<'a> {
    /// A grid `[z, y, x]` of which no slice is there.
    pub fn none(dims: [usize; 3], channels: usize) -> Self {
        Self {
            dims,
            channels,
            of: (0..dims[0]).map(|_| None).collect(),
        }
    }

    /// Floats of a slice.
    pub const fn floats([_, ny, nx]: [usize; 3], channels: usize) -> usize {
        blocked_floats([1, ny, nx], channels)
    }

    /// Brings a slice: memory of its size or more, with values of any kind.
    ///
    /// # Panics
    /// When the memory is too small, the slice beyond the grid, or there already.
    pub fn put(&mut self, z: usize, memory: &'a mut [f32]) {
        let floats = Self::floats(self.dims, self.channels);
        assert!(memory.len() >= floats, "memory for a slice");
        assert!(self.of[z].replace(memory).is_none(), "a slice comes once");
    }

    /// Takes a slice's memory back.
    ///
    /// # Panics
    /// When it is not there.
    pub fn take(&mut self, z: usize) -> &'a mut [f32] {
        self.of[z].take().expect("a slice goes when it is there")
    }

    /// The memory of a slice, when it is there.
    pub fn slice(&self, z: usize) -> Option<&[f32]> {
        let floats = Self::floats(self.dims, self.channels);
        Some(&self.of[z].as_deref()?[..floats])
    }

    /// `[z, y, x]`.
    pub const fn dims(&self) -> [usize; 3] {
        self.dims
    }

    /// Number of channels, without those that fill up the last block.
    pub const fn channels(&self) -> usize {
        self.channels
    }
}

impl Source<'_> {
    /// `[z, y, x]`.
    pub const fn dims(&self) -> [usize; 3] {
        match self {
            Self::Whole(view) => view.dims(),
            Self::Slices(slices) => slices.dims,
        }
    }

    /// Number of channels, without those that fill up the last block.
    pub const fn channels(&self) -> usize {
        match self {
            Self::Whole(view) => view.channels(),
            Self::Slices(slices) => slices.channels,
        }
    }
}

/// Where inputs lie, of a whole grid and of slices alike.
#[derive(Clone, Debug)]
pub(super) struct Inputs<'a> {
    dims: [usize; 3],
    lanes: usize,
    /// For each z the memory from its plane of the first block on; none for a slice that is not there.
    planes: Vec<&'a [f32]>,
    /// Floats from a plane to that of the next block.
    block: usize,
}

impl<'a> Inputs<'a> {
    pub(super) fn new(source: Source<'a>) -> Self {
        match source {
            Source::Whole(view) => Self::whole(view),
            Source::Slices(slices) => Self {
                dims: slices.dims,
                lanes: BLOCK,
                planes: (0..slices.dims[0])
                    .map(|z| slices.slice(z).unwrap_or_default())
                    .collect(),
                block: slices.dims[1] * slices.dims[2] * BLOCK,
            },
        }
    }

    pub(super) fn whole(view: View<'a>) -> Self {
        let ([nz, ny, nx], lanes) = (view.dims(), view.lanes());
        let (data, plane) = (view.as_slice(), ny * nx * lanes);
        Self {
            dims: view.dims(),
            lanes,
            planes: (0..nz).map(|z| &data[z * plane..]).collect(),
            block: nz * plane,
        }
    }

    /// The same with each slice as one row, or all of a whole grid.
    pub(super) fn in_rows(mut self, whole: bool) -> Self {
        self.dims = rows_of(self.dims, whole);
        self.planes.truncate(self.dims[0]);
        self
    }

    pub(super) const fn dims(&self) -> [usize; 3] {
        self.dims
    }

    pub(super) const fn lanes(&self) -> usize {
        self.lanes
    }

    /// Floats from a plane to that of the next block.
    pub(super) const fn block_floats(&self) -> usize {
        self.block
    }

    /// The plane `[y][x][lanes]` of a block.
    #[inline]
    pub(super) fn plane(&self, block: usize, z: usize) -> &'a [f32] {
        let floats = self.dims[1] * self.dims[2] * self.lanes;
        &self.planes[z][block * self.block..][..floats]
    }
}

fn rows_of([nz, ny, nx]: [usize; 3], whole: bool) -> [usize; 3] {
    if whole {
        [nz.min(1), 1, nz * ny * nx]
    } else {
        [nz, 1, ny * nx]
    }
}

/// Where outputs go, to a whole grid or to slices, written by several threads, each its own points.
pub(super) struct Outputs<'a> {
    dims: [usize; 3],
    /// For each z its plane of the first block; null for a slice that is not there.
    planes: Vec<*mut f32>,
    /// Floats from a plane to that of the next block.
    block: usize,
    /// First slices of the units that are wanted; all of them when not given.
    starts: Option<&'a [usize]>,
    _borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: it only hands out pointers; those who write through them keep to their own points.
unsafe impl Sync for Outputs<'_> {}
// SAFETY: as above.
unsafe impl Send for Outputs<'_> {}

impl<'a> Outputs<'a> {
    pub(super) fn whole(mut view: ViewMut<'a>) -> Self {
        let dims = view.dims();
        let [nz, ny, nx] = dims;
        let plane = ny * nx * BLOCK;
        let data = view.as_mut_slice().as_mut_ptr();
        Self {
            dims,
            planes: (0..nz).map(|z| data.wrapping_add(z * plane)).collect(),
            block: nz * plane,
            starts: None,
            _borrow: PhantomData,
        }
    }

    pub(super) fn slices(slices: &'a mut Slices<'_>, starts: &'a [usize]) -> Self {
        let dims = slices.dims;
        let pointer = |slice: &mut Option<&mut [f32]>| {
            let slice = slice.as_deref_mut();
            slice.map_or(std::ptr::null_mut(), <[f32]>::as_mut_ptr)
        };
        Self {
            dims,
            planes: slices.of.iter_mut().map(pointer).collect(),
            block: dims[1] * dims[2] * BLOCK,
            starts: Some(starts),
            _borrow: PhantomData,
        }
    }

    /// As [`Inputs::in_rows`].
    pub(super) fn in_rows(mut self, whole: bool) -> Self {
        self.dims = rows_of(self.dims, whole);
        self.planes.truncate(self.dims[0]);
        self
    }

    pub(super) const fn dims(&self) -> [usize; 3] {
        self.dims
    }

    /// Points of the grid.
    pub(super) const fn voxels(&self) -> usize {
        self.dims[0] * self.dims[1] * self.dims[2]
    }

    pub(super) const fn starts(&self) -> Option<&'a [usize]> {
        self.starts
    }

    /// Floats from a plane to that of the next block.
    pub(super) const fn block_floats(&self) -> usize {
        self.block
    }

    /// The plane `[y][x][8]` of a block.
    ///
    /// # Panics
    /// When the slice is not there.
    #[inline]
    pub(super) fn plane(&self, block: usize, z: usize) -> *mut f32 {
        let first = self.planes[z];
        assert!(!first.is_null(), "the output has this slice");
        first.wrapping_add(block * self.block)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Blocked;
    use super::super::conv::{Conv, ConvShape, Epilogue, Method};
    use super::super::pointwise::Activation;
    use super::super::simd::Instructions;
    use super::*;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut x = seed | 1;
        (0..n)
            .map(|_| {
                x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (x >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    /// Slice `z` of a whole grid, block by block.
    fn cut(view: View<'_>, z: usize) -> Vec<f32> {
        let [nz, ny, nx] = view.dims();
        let plane = ny * nx * BLOCK;
        let blocks = view.as_slice().chunks(nz * plane);
        blocks
            .flat_map(|b| &b[z * plane..][..plane])
            .copied()
            .collect()
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|x| x.to_bits()).collect()
    }

    /// Units, so many at a time, see no slice beside those that they name, and give the bits of a run
    /// over the whole grid.
    fn check(shape: ConvShape, dims: [usize; 3], at_once: usize, plain: bool, seed: u32) {
        let Some(out_dims) = shape.output_dims(dims) else {
            return;
        };
        let input = values(shape.input * dims.iter().product::<usize>(), seed);
        let (weights, bias) = (
            values(shape.weights(), !seed),
            values(shape.output, seed ^ 7),
        );
        let blocked = Blocked::from_channels(&input, dims, shape.input);
        let view = if plain {
            View::plain(&input, dims, shape.input)
        } else {
            blocked.view()
        };
        let mut copies: Vec<_> = (0..dims[0]).map(|z| cut(blocked.view(), z)).collect();
        let activation = Activation::Elu;
        for method in [Method::Direct, Method::Winograd] {
            let conv = Conv::new(shape, &weights, &bias, method);
            let units = conv.units(dims).unwrap();
            for instructions in Instructions::available() {
                let mut want = Blocked::zeros(out_dims, shape.output);
                let epilogue = Epilogue {
                    activation,
                    ..Epilogue::default()
                };
                let to = want.view_mut();
                conv.run(view, None, to, &epilogue, instructions, &|| true)
                    .unwrap();
                let mut seen = vec![0; out_dims[0]];
                for units in units.chunks(at_once) {
                    let floats = Slices::floats(out_dims, shape.output);
                    let mut memory = vec![vec![f32::NAN; floats + 3]; out_dims[0]];
                    let mut output = Slices::none(out_dims, shape.output);
                    let mut few = Slices::none(dims, shape.input);
                    for (z, memory) in memory.iter_mut().enumerate() {
                        if units.iter().any(|unit| unit.outputs.contains(&z)) {
                            output.put(z, memory);
                            seen[z] += 1;
                        }
                    }
                    for (z, copy) in copies.iter_mut().enumerate() {
                        if units.iter().any(|unit| unit.inputs.contains(&z)) {
                            few.put(z, copy);
                        }
                    }
                    let source = if plain {
                        Source::Whole(view)
                    } else {
                        Source::Slices(&few)
                    };
                    let starts: Vec<_> = units.iter().map(|unit| unit.outputs[0]).collect();
                    conv.run_units(
                        &starts,
                        source,
                        &mut output,
                        activation,
                        instructions,
                        &|| true,
                    )
                    .unwrap();
                    for z in units.iter().flat_map(|unit| &unit.outputs) {
                        let got = bits(output.slice(*z).unwrap());
                        assert_eq!(
                            got,
                            bits(&cut(want.view(), *z)),
                            "{method:?} {instructions:?} {shape:?} {dims:?} slice {z}"
                        );
                    }
                }
                assert!(
                    seen.iter().all(|seen| *seen == 1),
                    "each slice is in one unit"
                );
            }
        }
        if shape.output < 2 {
            return;
        }
        let conv = Conv::new(shape, &weights, &bias, Method::Direct);
        let instructions = Instructions::detect();
        let mut want = vec![0; out_dims.iter().product()];
        conv.run_argmax(view, None, &mut want, instructions, &|| true)
            .unwrap();
        let mut got = vec![255; want.len()];
        for units in conv.units(dims).unwrap().chunks(at_once) {
            let mut few = Slices::none(dims, shape.input);
            for (z, copy) in copies.iter_mut().enumerate() {
                if units.iter().any(|unit| unit.inputs.contains(&z)) {
                    few.put(z, copy);
                }
            }
            let starts: Vec<_> = units.iter().map(|unit| unit.outputs[0]).collect();
            let few = Source::Slices(&few);
            conv.run_argmax_units(&starts, few, &mut got, instructions, &|| true)
                .unwrap();
        }
        assert_eq!(got, want, "{shape:?} {dims:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn units_give_the_bits_of_the_whole(
            kernel in prop::sample::select(vec![[3, 3, 3], [1, 3, 3], [1, 1, 1], [3, 1, 3], [5, 3, 2]]),
            dims in [1_usize..12, 1_usize..10, 1_usize..18],
            (input, output) in (1_usize..40, 1_usize..40),
            dilation in [1_usize..6, 1_usize..4, 1_usize..4],
            stride in prop::sample::select(vec![1_usize, 1, 1, 2]),
            more in [0_usize..2, 0_usize..2],
            at_once in prop::sample::select(vec![1_usize, 2, 5, 100]),
            plain in any::<bool>(),
            seed in any::<u32>(),
        ) {
            let mut shape = ConvShape::same(input, output, kernel).dilated(dilation);
            shape.stride = [stride; 3];
            shape.padding[0][0] += more[0];
            shape.padding[0][1] += more[1];
            check(shape, dims, at_once, plain, seed);
        }
    }

    #[test]
    #[should_panic(expected = "the output has this slice")]
    fn a_slice_that_is_not_there_is_not_written() {
        let shape = ConvShape::same(1, 1, [1, 3, 3]);
        let conv = Conv::new(shape, &[0.0; 9], &[], Method::Direct);
        let values = [0.0; 32];
        let source = Source::Whole(View::plain(&values, [2, 4, 4], 1));
        let mut output = Slices::none([2, 4, 4], 1);
        let instructions = Instructions::Portable;
        let _ = conv.run_units(
            &[1],
            source,
            &mut output,
            Activation::Linear,
            instructions,
            &|| true,
        );
    }
}
