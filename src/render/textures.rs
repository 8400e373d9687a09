//! Volumes and labels as 3-D textures, uploaded in slabs.

use eframe::egui_wgpu::wgpu::{
    Device, Extent3d, Origin3d, Queue, TexelCopyBufferLayout, TexelCopyTextureInfo, Texture,
    TextureAspect, TextureDescriptor, TextureDimension, TextureFormat, TextureUsages,
};

use super::shaders::VoxelFormat;
use crate::volume::{LabelMap, Volume, Voxels};

/// Why a volume cannot be drawn on this adapter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Larger than a 3-D texture may be.
    #[error("{dims:?} voxels are more than this graphics adapter draws, {limit} an axis")]
    TooLarge {
        /// The volume.
        dims: [usize; 3],
        /// The adapter's limit.
        limit: u32,
    },
}

/// A volume on the GPU.
pub struct VolumeTexture {
    pub texture: Texture,
    pub format: VoxelFormat,
    uploaded: usize,
}

fn create(device: &Device, dims: [usize; 3], format: TextureFormat) -> Result<Texture, Error> {
    let limit = device.limits().max_texture_dimension_3d;
    if dims.iter().any(|&d| d > limit as usize) {
        return Err(Error::TooLarge { dims, limit });
    }
    Ok(device.create_texture(&TextureDescriptor {
        label: Some("volume"),
        size: extent(dims),
        mip_level_count: 1,
        sample_count: 1,
        dimension: TextureDimension::D3,
        format,
        usage: TextureUsages::TEXTURE_BINDING | TextureUsages::COPY_DST,
        view_formats: &[],
    }))
}

fn extent(dims: [usize; 3]) -> Extent3d {
    Extent3d {
        width: dims[0] as u32,
        height: dims[1] as u32,
        depth_or_array_layers: dims[2] as u32,
    }
}

impl VolumeTexture {
    /// An empty texture for a volume.
    pub fn new(device: &Device, volume: &Volume) -> Result<Self, Error> {
        let (texture_format, format) = match volume.voxels {
            Voxels::U8(_) => (TextureFormat::R8Uint, VoxelFormat::Unsigned),
            Voxels::I16(_) => (TextureFormat::R16Sint, VoxelFormat::Signed),
            Voxels::U16(_) => (TextureFormat::R16Uint, VoxelFormat::Unsigned),
            Voxels::F32(_) => (TextureFormat::R32Float, VoxelFormat::Float),
            Voxels::Rgb8(_) => (TextureFormat::Rgba8Unorm, VoxelFormat::Color),
        };
        let texture = create(device, volume.geometry.dims(), texture_format)?;
        Ok(Self {
            texture,
            format,
            uploaded: 0,
        })
    }

    /// Uploads slices worth up to `budget` bytes (at least one); true when all are there.
    pub fn upload_some(&mut self, queue: &Queue, volume: &Volume, budget: usize) -> bool {
        let [ni, nj, nk] = volume.geometry.dims();
        let slice = ni * nj;
        if self.uploaded >= nk {
            return true;
        }
        let texel = match volume.voxels {
            Voxels::U8(_) => 1,
            Voxels::I16(_) | Voxels::U16(_) => 2,
            Voxels::F32(_) | Voxels::Rgb8(_) => 4,
        };
        let count = (budget / (slice * texel)).clamp(1, nk - self.uploaded);
        let range = self.uploaded * slice..(self.uploaded + count) * slice;
        let rgba: Vec<u8>;
        let bytes: &[u8] = match &volume.voxels {
            Voxels::U8(v) => &v[range],
            Voxels::I16(v) => bytemuck::cast_slice(&v[range]),
            Voxels::U16(v) => bytemuck::cast_slice(&v[range]),
            Voxels::F32(v) => bytemuck::cast_slice(&v[range]),
            Voxels::Rgb8(v) => {
                rgba = v[range]
                    .iter()
                    .flat_map(|&[r, g, b]| [r, g, b, 255])
                    .collect();
                &rgba
            }
        };
        write_slices(
            queue,
            &self.texture,
            bytes,
            [ni, nj, count],
            self.uploaded,
            texel,
        );
        self.uploaded += count;
        self.uploaded >= nk
    }
}

/// Labels as a texture, uploaded at once (one byte a voxel).
pub fn label_texture(device: &Device, queue: &Queue, map: &LabelMap) -> Result<Texture, Error> {
    let dims = map.geometry.dims();
    let texture = create(device, dims, TextureFormat::R8Uint)?;
    write_slices(queue, &texture, &map.labels, dims, 0, 1);
    Ok(texture)
}

fn write_slices(
    queue: &Queue,
    texture: &Texture,
    bytes: &[u8],
    dims: [usize; 3],
    first: usize,
    texel: usize,
) {
    queue.write_texture(
        TexelCopyTextureInfo {
            texture,
            mip_level: 0,
            origin: Origin3d {
                x: 0,
                y: 0,
                z: first as u32,
            },
            aspect: TextureAspect::All,
        },
        bytes,
        TexelCopyBufferLayout {
            offset: 0,
            bytes_per_row: Some((dims[0] * texel) as u32),
            rows_per_image: Some(dims[1] as u32),
        },
        extent(dims),
    );
}
