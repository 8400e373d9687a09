//! Memory of activations: `[z][y][channel][x]`, each row padded.

/// Extra floats after the last row, so that a vector that starts inside a row may end beyond it.
const SLACK: usize = 64;

/// A block of channels over a 3-D grid, `[z][y][c][x]`, with `pad` zeros before and after x.
///
/// The zeros are never written: convolutions with "same" padding read them as the outside.
#[derive(Clone, Debug)]
pub struct Planes {
    dims: [usize; 3],
    channels: usize,
    pad: usize,
    data: Vec<f32>,
}

impl Planes {
    /// Zeros. `dims` is `[z, y, x]`.
    pub fn zeros(dims: [usize; 3], channels: usize, pad: usize) -> Self {
        Self {
            dims,
            channels,
            pad,
            data: vec![0.0; Self::floats(dims, channels, pad)],
        }
    }

    /// Floats that a block takes.
    pub const fn floats(dims: [usize; 3], channels: usize, pad: usize) -> usize {
        dims[0] * dims[1] * channels * (dims[2] + 2 * pad) + SLACK
    }

    /// From values in `[channel][z][y][x]` order.
    ///
    /// # Panics
    /// When the number of values is not that of the shape.
    pub fn from_channels(values: &[f32], dims: [usize; 3], channels: usize, pad: usize) -> Self {
        assert_eq!(
            values.len(),
            channels * dims[0] * dims[1] * dims[2],
            "values fill the shape"
        );
        let mut planes = Self::zeros(dims, channels, pad);
        for c in 0..channels {
            for z in 0..dims[0] {
                for y in 0..dims[1] {
                    let from = ((c * dims[0] + z) * dims[1] + y) * dims[2];
                    planes
                        .row_mut(z, y, c)
                        .copy_from_slice(&values[from..from + dims[2]]);
                }
            }
        }
        planes
    }

    /// Values in `[channel][z][y][x]` order.
    pub fn to_channels(&self) -> Vec<f32> {
        let [nz, ny, _] = self.dims;
        let rows = (0..self.channels)
            .flat_map(|c| (0..nz).flat_map(move |z| (0..ny).map(move |y| (z, y, c))));
        rows.flat_map(|(z, y, c)| self.row(z, y, c))
            .copied()
            .collect()
    }

    /// `[z, y, x]`.
    pub const fn dims(&self) -> [usize; 3] {
        self.dims
    }

    /// Number of channels.
    pub const fn channels(&self) -> usize {
        self.channels
    }

    /// Zeros on each side of a row.
    pub const fn pad(&self) -> usize {
        self.pad
    }

    /// Floats from one row to the next.
    pub const fn stride(&self) -> usize {
        self.dims[2] + 2 * self.pad
    }

    /// Floats from one (z, y) to the next.
    pub const fn line(&self) -> usize {
        self.channels * self.stride()
    }

    /// Makes the block fit another number of channels, keeping its memory; values are stale.
    pub fn reshape(&mut self, channels: usize) {
        let needed = Self::floats(self.dims, channels, self.pad);
        self.data.clear();
        self.data.resize(needed, 0.0);
        self.channels = channels;
    }

    /// One row without its padding.
    pub fn row(&self, z: usize, y: usize, c: usize) -> &[f32] {
        let start = self.start(z, y, c) + self.pad;
        &self.data[start..start + self.dims[2]]
    }

    /// One row without its padding.
    pub fn row_mut(&mut self, z: usize, y: usize, c: usize) -> &mut [f32] {
        let start = self.start(z, y, c) + self.pad;
        let width = self.dims[2];
        &mut self.data[start..start + width]
    }

    /// Everything, padding included.
    pub fn as_slice(&self) -> &[f32] {
        &self.data
    }

    /// Everything but the slack, padding included.
    pub fn as_mut_lines(&mut self) -> &mut [f32] {
        let end = self.dims[0] * self.dims[1] * self.line();
        &mut self.data[..end]
    }

    const fn start(&self, z: usize, y: usize, c: usize) -> usize {
        ((z * self.dims[1] + y) * self.channels + c) * self.stride()
    }
}
