//! Volumes and label maps as 3-D textures, uploaded slice by slice from the middle of interest.

use std::borrow::Cow;
use std::ops::Range;

use eframe::egui_wgpu::wgpu::{
    Device, ErrorFilter, Extent3d, Origin3d, Queue, TexelCopyBufferLayout, TexelCopyTextureInfo,
    Texture, TextureAspect, TextureDescriptor, TextureDimension, TextureFormat, TextureUsages,
    TextureView, TextureViewDescriptor, TextureViewDimension,
};

use super::shaders::VoxelFormat;
use crate::volume::{LabelMap, Volume, Voxels};

/// Why a volume cannot be drawn on this adapter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The adapter refused even a reduced texture.
    #[error(
        "the graphics memory does not hold {} × {} × {} voxels, not even coarsely",
        dims[0], dims[1], dims[2]
    )]
    OutOfMemory {
        /// The volume.
        dims: [usize; 3],
        /// The last reduction tried.
        voxels_per_texel: [usize; 3],
    },
}

/// Voxels of a grid, as they are in memory.
#[derive(Clone, Copy)]
pub enum Texels<'a> {
    U8(&'a [u8]),
    I16(&'a [i16]),
    U16(&'a [u16]),
    F32(&'a [f32]),
    Rgb8(&'a [[u8; 3]]),
}

impl<'a> From<&'a Volume> for Texels<'a> {
    fn from(volume: &'a Volume) -> Self {
        match &volume.voxels {
            Voxels::U8(v) => Self::U8(v),
            Voxels::I16(v) => Self::I16(v),
            Voxels::U16(v) => Self::U16(v),
            Voxels::F32(v) => Self::F32(v),
            Voxels::Rgb8(v) => Self::Rgb8(v),
        }
    }
}

impl<'a> From<&'a LabelMap> for Texels<'a> {
    fn from(map: &'a LabelMap) -> Self {
        Self::U8(&map.labels)
    }
}

impl<'a> Texels<'a> {
    /// Bytes of a texel on the GPU.
    const fn size(self) -> usize {
        match self {
            Self::U8(_) => 1,
            Self::I16(_) | Self::U16(_) => 2,
            Self::F32(_) | Self::Rgb8(_) => 4,
        }
    }

    const fn format(self) -> (TextureFormat, VoxelFormat) {
        match self {
            Self::U8(_) => (TextureFormat::R8Uint, VoxelFormat::Unsigned),
            Self::I16(_) => (TextureFormat::R16Sint, VoxelFormat::Signed),
            Self::U16(_) => (TextureFormat::R16Uint, VoxelFormat::Unsigned),
            Self::F32(_) => (TextureFormat::R32Float, VoxelFormat::Float),
            Self::Rgb8(_) => (TextureFormat::Rgba8Unorm, VoxelFormat::Color),
        }
    }

    /// The bytes of some slices, with only every n-th voxel.
    fn bytes(self, dims: [usize; 3], every: [usize; 3], slices: Range<usize>) -> Cow<'a, [u8]> {
        let [ni, nj, _] = dims;
        if every == [1; 3] {
            let range = slices.start * ni * nj..slices.end * ni * nj;
            return match self {
                Self::U8(v) => Cow::Borrowed(&v[range]),
                Self::I16(v) => Cow::Borrowed(bytemuck::cast_slice(&v[range])),
                Self::U16(v) => Cow::Borrowed(bytemuck::cast_slice(&v[range])),
                Self::F32(v) if v[range.clone()].iter().all(|x| x.is_finite()) => {
                    Cow::Borrowed(bytemuck::cast_slice(&v[range]))
                }
                Self::F32(v) => {
                    let v: Vec<f32> = v[range].iter().map(|&x| finite(x)).collect();
                    Cow::Owned(bytemuck::cast_slice(&v).to_vec())
                }
                Self::Rgb8(v) => Cow::Owned(v[range].iter().copied().flat_map(rgba).collect()),
            };
        }
        let mut out = Vec::new();
        for k in slices {
            for j in (0..nj).step_by(every[1]) {
                for i in (0..ni).step_by(every[0]) {
                    let n = (k * every[2] * nj + j) * ni + i;
                    match self {
                        Self::U8(v) => out.push(v[n]),
                        Self::I16(v) => out.extend(v[n].to_ne_bytes()),
                        Self::U16(v) => out.extend(v[n].to_ne_bytes()),
                        Self::F32(v) => out.extend(finite(v[n]).to_ne_bytes()),
                        Self::Rgb8(v) => out.extend(rgba(v[n])),
                    }
                }
            }
        }
        Cow::Owned(out)
    }
}

/// Shaders cannot rely on NaN: values that are not finite become one beyond `NOT_FINITE`.
fn finite(x: f32) -> f32 {
    if x.is_finite() { x } else { f32::MAX }
}

fn rgba([r, g, b]: [u8; 3]) -> [u8; 4] {
    [r, g, b, 255]
}

/// With fewer than every 16th voxel a picture shows nothing that one could trust.
const COARSEST: usize = 16;

/// A grid of voxels on the GPU, whole or every n-th voxel of it.
pub struct GridTexture {
    pub view: TextureView,
    pub format: VoxelFormat,
    texture: Texture,
    /// Of the texture.
    dims: [usize; 3],
    voxels_per_texel: [usize; 3],
    texel_bytes: usize,
    /// Slices of the texture that are uploaded.
    loaded: Range<usize>,
}

impl GridTexture {
    /// An empty texture for a grid that takes at most `most_bytes`, reduced where it must be.
    pub fn new(
        device: &Device,
        texels: Texels<'_>,
        dims: [usize; 3],
        most_bytes: usize,
    ) -> Result<Self, Error> {
        let limit = device.limits().max_texture_dimension_3d as usize;
        let mut every = reduction(dims, texels.size(), limit, most_bytes);
        for _ in 0..3 {
            if every.iter().any(|n| *n > COARSEST) {
                break;
            }
            if let Some(texture) = Self::create(device, texels, dims, every) {
                return Ok(texture);
            }
            every[2] *= 2;
        }
        Err(Error::OutOfMemory {
            dims,
            voxels_per_texel: every,
        })
    }

    fn create(
        device: &Device,
        texels: Texels<'_>,
        dims: [usize; 3],
        every: [usize; 3],
    ) -> Option<Self> {
        let dims = reduced(dims, every);
        let (texture_format, format) = texels.format();
        let scope = device.push_error_scope(ErrorFilter::OutOfMemory);
        let texture = device.create_texture(&TextureDescriptor {
            label: Some("grid"),
            size: extent(dims),
            mip_level_count: 1,
            sample_count: 1,
            dimension: TextureDimension::D3,
            format: texture_format,
            usage: TextureUsages::TEXTURE_BINDING | TextureUsages::COPY_DST,
            view_formats: &[],
        });
        if pollster::block_on(scope.pop()).is_some() {
            return None;
        }
        let view = texture.create_view(&TextureViewDescriptor {
            dimension: Some(TextureViewDimension::D3),
            ..TextureViewDescriptor::default()
        });
        Some(Self {
            view,
            format,
            texture,
            dims,
            voxels_per_texel: every,
            texel_bytes: texels.size(),
            loaded: 0..0,
        })
    }

    /// Dims of the texture.
    pub const fn dims(&self) -> [usize; 3] {
        self.dims
    }

    /// 1 along every axis unless the grid had to be reduced.
    pub const fn voxels_per_texel(&self) -> [usize; 3] {
        self.voxels_per_texel
    }

    /// Slices of the texture that are there.
    pub fn loaded(&self) -> Range<usize> {
        self.loaded.clone()
    }

    /// Whether all of it is there.
    pub fn is_complete(&self) -> bool {
        self.loaded == (0..self.dims[2])
    }

    /// Bytes on the GPU.
    pub fn bytes(&self) -> usize {
        self.dims.iter().product::<usize>() * self.texel_bytes
    }

    /// Uploads slices worth up to `budget` bytes (at least one, if any is missing), those next to
    /// voxel slice `middle` first; returns the bytes sent.
    pub fn upload_some(
        &mut self,
        queue: &Queue,
        texels: Texels<'_>,
        grid_dims: [usize; 3],
        middle: usize,
        budget: usize,
    ) -> usize {
        let [ni, nj, nk] = self.dims;
        let slice_bytes = ni * nj * self.texel_bytes;
        let mut count = (budget / slice_bytes).max(1);
        if self.loaded.is_empty() {
            let start = (middle / self.voxels_per_texel[2]).min(nk - 1);
            self.loaded = start..start;
        }
        let mut sent = 0;
        let mut send = |slices: Range<usize>| {
            if !slices.is_empty() {
                let bytes = texels.bytes(grid_dims, self.voxels_per_texel, slices.clone());
                write_slices(
                    queue,
                    &self.texture,
                    &bytes,
                    [ni, nj, slices.len()],
                    slices.start,
                );
                sent += bytes.len();
            }
        };
        // Half above, half below, and what one side does not need goes to the other.
        let (above, below) = (nk - self.loaded.end, self.loaded.start);
        let up = count
            .div_ceil(2)
            .max(count.saturating_sub(below))
            .min(above);
        count -= up;
        let down = count.min(below);
        send(self.loaded.end..self.loaded.end + up);
        send(self.loaded.start - down..self.loaded.start);
        self.loaded = self.loaded.start - down..self.loaded.end + up;
        sent
    }
}

/// Every how many voxels are kept along each axis, so that the texture is allowed and fits.
fn reduction(dims: [usize; 3], texel: usize, limit: usize, most_bytes: usize) -> [usize; 3] {
    let mut every = dims.map(|n| n.div_ceil(limit.max(1)));
    let bytes = |every: [usize; 3]| reduced(dims, every).iter().product::<usize>() * texel;
    while bytes(every) > most_bytes {
        // Slices first: in-plane detail is what is read.
        let axis = (0..3)
            .rev()
            .max_by_key(|&axis| {
                let left = dims[axis].div_ceil(every[axis]);
                (axis == 2 && every[2] < 8 && left > 1, left)
            })
            .expect("there are three axes");
        if every[axis] >= dims[axis] {
            break;
        }
        every[axis] += 1;
    }
    every
}

fn reduced(dims: [usize; 3], every: [usize; 3]) -> [usize; 3] {
    std::array::from_fn(|axis| dims[axis].div_ceil(every[axis]))
}

fn extent(dims: [usize; 3]) -> Extent3d {
    Extent3d {
        width: dims[0] as u32,
        height: dims[1] as u32,
        depth_or_array_layers: dims[2] as u32,
    }
}

fn write_slices(queue: &Queue, texture: &Texture, bytes: &[u8], dims: [usize; 3], first: usize) {
    let row = bytes.len() / (dims[1] * dims[2]);
    let to = TexelCopyTextureInfo {
        texture,
        mip_level: 0,
        origin: Origin3d {
            x: 0,
            y: 0,
            z: first as u32,
        },
        aspect: TextureAspect::All,
    };
    let layout = TexelCopyBufferLayout {
        offset: 0,
        bytes_per_row: Some(row as u32),
        rows_per_image: Some(dims[1] as u32),
    };
    queue.write_texture(to, bytes, layout, extent(dims));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_is_reduced_only_where_it_must_be() {
        let check = |dims, limit, most, expected: [usize; 3]| {
            assert_eq!(reduction(dims, 2, limit, most), expected, "{dims:?}");
        };
        check([512, 512, 300], 2048, 1 << 30, [1, 1, 1]);
        check([512, 512, 5000], 2048, 8 << 30, [1, 1, 3]);
        check([4096, 512, 10], 2048, 1 << 30, [2, 1, 1]);
        // 512 · 512 · 1000 · 2 bytes = 500 MiB; every third slice is 167 MiB.
        check([512, 512, 1000], 2048, 200 << 20, [1, 1, 3]);
        // One slice that is too large by itself is thinned in its plane.
        let every = reduction([3000, 3000, 1], 2, 4096, 4 << 20);
        assert!(reduced([3000, 3000, 1], every).iter().product::<usize>() * 2 <= 4 << 20);
    }

    #[test]
    fn reduced_slices_hold_every_nth_voxel() {
        let values: Vec<u8> = (0..60).collect(); // 5 × 4 × 3
        let found = Texels::U8(&values).bytes([5, 4, 3], [2, 3, 2], 0..2);
        assert_eq!(*found, [0, 2, 4, 15, 17, 19, 40, 42, 44, 55, 57, 59]);
    }

    #[test]
    fn values_that_are_not_finite_are_marked() {
        let values = [1.5, f32::NAN, f32::NEG_INFINITY, -2.0];
        let found = Texels::F32(&values).bytes([2, 2, 1], [1; 3], 0..1);
        let found: Vec<f32> = found
            .chunks_exact(4)
            .map(bytemuck::pod_read_unaligned)
            .collect();
        assert_eq!(found, [1.5, f32::MAX, f32::MAX, -2.0]);
    }
}
