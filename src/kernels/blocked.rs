//! Memory of activations for any network: `[channel block][z][y][x][8 channels]`.

/// Channels of a block: the lanes of AVX2.
pub const BLOCK: usize = 8;

/// Activations of one image on a grid.
///
/// `lanes` is 8, as all operations give, or 1: plain `[channel][z][y][x]`, which convolutions
/// read too (an image needs no conversion). Channels that fill up the last block are zero.
/// 2-D images have one z, 1-D signals also one y.
#[derive(Clone, Debug, PartialEq)]
pub struct Blocked {
    dims: [usize; 3],
    channels: usize,
    lanes: usize,
    data: Vec<f32>,
}

/// A borrowed [`Blocked`], perhaps some of its channel blocks, perhaps a part of an arena.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    dims: [usize; 3],
    channels: usize,
    lanes: usize,
    data: &'a [f32],
}

/// A mutable [`View`]; always in blocks of eight.
#[derive(Debug)]
pub struct ViewMut<'a> {
    dims: [usize; 3],
    channels: usize,
    data: &'a mut [f32],
}

/// Floats that blocks of eight take for a grid.
pub const fn blocked_floats(dims: [usize; 3], channels: usize) -> usize {
    channels.div_ceil(BLOCK) * BLOCK * dims[0] * dims[1] * dims[2]
}

impl Blocked {
    /// Zeros. `dims` is `[z, y, x]`.
    pub fn zeros(dims: [usize; 3], channels: usize) -> Self {
        Self {
            dims,
            channels,
            lanes: BLOCK,
            data: vec![0.0; blocked_floats(dims, channels)],
        }
    }

    /// Takes values in `[channel][z][y][x]` order as they are.
    ///
    /// # Panics
    /// When the number of values is not that of the shape.
    pub fn plain(values: Vec<f32>, dims: [usize; 3], channels: usize) -> Self {
        assert_eq!(
            values.len(),
            channels * dims.iter().product::<usize>(),
            "values fill the shape"
        );
        Self {
            dims,
            channels,
            lanes: 1,
            data: values,
        }
    }

    /// From values in `[channel][z][y][x]` order, into blocks of eight.
    ///
    /// # Panics
    /// When the number of values is not that of the shape.
    pub fn from_channels(values: &[f32], dims: [usize; 3], channels: usize) -> Self {
        let mut blocked = Self::zeros(dims, channels);
        blocked
            .view_mut()
            .fill_from(View::plain(values, dims, channels));
        blocked
    }

    /// Values in `[channel][z][y][x]` order.
    pub fn to_channels(&self) -> Vec<f32> {
        self.view().to_channels()
    }

    /// `[z, y, x]`.
    pub const fn dims(&self) -> [usize; 3] {
        self.dims
    }

    /// Number of channels, without those that fill up the last block.
    pub const fn channels(&self) -> usize {
        self.channels
    }

    /// All of it.
    pub fn view(&self) -> View<'_> {
        View {
            dims: self.dims,
            channels: self.channels,
            lanes: self.lanes,
            data: &self.data,
        }
    }

    /// All of it, to write.
    ///
    /// # Panics
    /// When it is plain.
    pub fn view_mut(&mut self) -> ViewMut<'_> {
        assert_eq!(self.lanes, BLOCK, "operations write blocks of eight");
        ViewMut {
            dims: self.dims,
            channels: self.channels,
            data: &mut self.data,
        }
    }
}

impl<'a> View<'a> {
    /// Blocks of eight in a piece of memory that has just their size.
    ///
    /// # Panics
    /// When the size is another.
    pub fn new(data: &'a [f32], dims: [usize; 3], channels: usize) -> Self {
        assert_eq!(
            data.len(),
            blocked_floats(dims, channels),
            "memory fits the shape"
        );
        Self {
            dims,
            channels,
            lanes: BLOCK,
            data,
        }
    }

    /// Plain `[channel][z][y][x]`.
    ///
    /// # Panics
    /// When the size is another.
    pub fn plain(data: &'a [f32], dims: [usize; 3], channels: usize) -> Self {
        assert_eq!(
            data.len(),
            channels * dims.iter().product::<usize>(),
            "values fill the shape"
        );
        Self {
            dims,
            channels,
            lanes: 1,
            data,
        }
    }

    /// `[z, y, x]`.
    pub const fn dims(&self) -> [usize; 3] {
        self.dims
    }

    /// Number of channels, without those that fill up the last block.
    pub const fn channels(&self) -> usize {
        self.channels
    }

    /// 8, or 1 when plain.
    pub const fn lanes(&self) -> usize {
        self.lanes
    }

    /// Points of the grid.
    pub const fn voxels(&self) -> usize {
        self.dims[0] * self.dims[1] * self.dims[2]
    }

    /// Everything.
    pub const fn as_slice(&self) -> &'a [f32] {
        self.data
    }

    /// The same memory on another grid of as many points, such as a matrix for an image.
    ///
    /// # Panics
    /// When the number of points is another.
    pub fn reshaped(self, dims: [usize; 3]) -> Self {
        assert_eq!(
            dims.iter().product::<usize>(),
            self.voxels(),
            "as many points"
        );
        Self { dims, ..self }
    }

    /// Channels from `first` on; `first` begins a block.
    ///
    /// # Panics
    /// When it does not, or there are fewer channels.
    pub fn part(self, first: usize, channels: usize) -> Self {
        assert!(
            first.is_multiple_of(self.lanes) && first + channels <= self.channels,
            "a part begins with a block"
        );
        // A part that ends within a block would take other channels for zeros.
        assert!(
            channels.is_multiple_of(self.lanes) || first + channels == self.channels,
            "a part ends with a block"
        );
        let from = first * self.voxels();
        let to = from + channels.div_ceil(self.lanes) * self.lanes * self.voxels();
        Self {
            channels,
            data: &self.data[from..to],
            ..self
        }
    }

    /// The value of a channel at a point of the flat grid.
    pub fn at(&self, channel: usize, voxel: usize) -> f32 {
        let (block, lane) = (channel / self.lanes, channel % self.lanes);
        self.data[(block * self.voxels() + voxel) * self.lanes + lane]
    }

    /// Values in `[channel][z][y][x]` order.
    pub fn to_channels(&self) -> Vec<f32> {
        if self.lanes == 1 {
            return self.data.to_vec();
        }
        let n = self.voxels();
        let mut values = vec![0.0; self.channels * n];
        for (c, to) in values.chunks_mut(n.max(1)).enumerate() {
            let from = self.data[c / BLOCK * n * BLOCK + c % BLOCK..].iter();
            for (to, from) in to.iter_mut().zip(from.step_by(BLOCK)) {
                *to = *from;
            }
        }
        values
    }
}

impl<'a> ViewMut<'a> {
    /// Blocks of eight in a piece of memory that has just their size.
    ///
    /// # Panics
    /// When the size is another.
    pub fn new(data: &'a mut [f32], dims: [usize; 3], channels: usize) -> Self {
        assert_eq!(
            data.len(),
            blocked_floats(dims, channels),
            "memory fits the shape"
        );
        Self {
            dims,
            channels,
            data,
        }
    }

    /// `[z, y, x]`.
    pub const fn dims(&self) -> [usize; 3] {
        self.dims
    }

    /// Number of channels, without those that fill up the last block.
    pub const fn channels(&self) -> usize {
        self.channels
    }

    /// Points of the grid.
    pub const fn voxels(&self) -> usize {
        self.dims[0] * self.dims[1] * self.dims[2]
    }

    /// Everything.
    pub const fn as_slice(&self) -> &[f32] {
        self.data
    }

    /// Everything.
    pub const fn as_mut_slice(&mut self) -> &mut [f32] {
        self.data
    }

    /// To read.
    pub const fn view(&self) -> View<'_> {
        View {
            dims: self.dims,
            channels: self.channels,
            lanes: BLOCK,
            data: self.data,
        }
    }

    /// The same for a shorter time.
    pub const fn reborrow(&mut self) -> ViewMut<'_> {
        ViewMut {
            dims: self.dims,
            channels: self.channels,
            data: self.data,
        }
    }

    /// Channels from `first` on, so that an operation writes its part of a concatenation.
    ///
    /// # Panics
    /// When the part does not begin and end with a block.
    pub fn part(self, first: usize, channels: usize) -> ViewMut<'a> {
        assert!(
            first.is_multiple_of(BLOCK) && first + channels <= self.channels,
            "a part begins with a block"
        );
        assert!(
            channels.is_multiple_of(BLOCK) || first + channels == self.channels,
            "a part ends with a block"
        );
        let voxels = self.voxels();
        let from = first * voxels;
        let to = from + channels.div_ceil(BLOCK) * BLOCK * voxels;
        ViewMut {
            dims: self.dims,
            channels,
            data: &mut self.data[from..to],
        }
    }

    /// Copies values of the same shape, from either layout.
    ///
    /// # Panics
    /// When shapes differ.
    pub fn fill_from(&mut self, from: View<'_>) {
        assert_eq!(
            (self.dims, self.channels),
            (from.dims, from.channels),
            "one shape"
        );
        if from.lanes == BLOCK {
            self.data.copy_from_slice(from.data);
            return;
        }
        let n = self.voxels();
        if !self.channels.is_multiple_of(BLOCK) {
            let last = self.channels / BLOCK * BLOCK * n;
            self.data[last..].fill(0.0);
        }
        for c in 0..self.channels {
            let to = self.data[c / BLOCK * n * BLOCK + c % BLOCK..].iter_mut();
            for (to, from) in to.step_by(BLOCK).zip(&from.data[c * n..(c + 1) * n]) {
                *to = *from;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_both_layouts() {
        let dims = [2, 3, 5];
        for channels in [1, 7, 8, 9, 16, 21] {
            let values: Vec<f32> = (0..channels * 30).map(|n| n as f32 + 1.0).collect();
            let blocked = Blocked::from_channels(&values, dims, channels);
            assert_eq!(blocked.to_channels(), values);
            assert_eq!(
                Blocked::plain(values.clone(), dims, channels).to_channels(),
                values
            );
            for c in channels..channels.next_multiple_of(BLOCK) {
                assert!((0..30).all(|v| blocked.view().at(c, v) == 0.0));
            }
        }
    }

    #[test]
    fn parts_are_channels() {
        let values: Vec<f32> = (0..20 * 4).map(|n| n as f32).collect();
        let blocked = Blocked::from_channels(&values, [1, 2, 2], 20);
        assert_eq!(blocked.view().part(8, 8).to_channels(), values[32..64]);
        assert_eq!(blocked.view().part(16, 4).to_channels(), values[64..]);
    }
}
