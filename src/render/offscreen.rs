//! A graphics device without a window, and pictures read back from it.

use eframe::egui_wgpu::wgpu::{
    self, BufferDescriptor, BufferUsages, CommandEncoderDescriptor, Device, Extent3d, Instance,
    InstanceDescriptor, MapMode, PollType, Queue, RenderPassColorAttachment, RenderPassDescriptor,
    TexelCopyBufferInfo, TexelCopyBufferLayout, TextureDescriptor, TextureDimension, TextureFormat,
    TextureUsages, TextureViewDescriptor,
};

use super::slice_gpu::SliceGpu;
use super::slice_view::{RgbaPixels, SliceView};
use super::textures::Error;
use crate::volume::{LabelMap, Volume};

/// A device of its own, for tests and benches.
pub struct Offscreen {
    device: Device,
    queue: Queue,
    slices: SliceGpu,
    adapter: String,
}

impl Offscreen {
    /// The first adapter that works; `None` when there is none (not even a software one).
    pub fn new() -> Option<Self> {
        let instance = Instance::new(InstanceDescriptor::new_without_display_handle());
        let adapter =
            pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))
                .ok()?;
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("offscreen"),
            required_limits: adapter.limits(),
            ..wgpu::DeviceDescriptor::default()
        }))
        .ok()?;
        let slices = SliceGpu::new(&device, &queue, TextureFormat::Rgba8Unorm);
        Some(Self {
            device,
            queue,
            slices,
            adapter: adapter.get_info().name,
        })
    }

    /// Name of the adapter.
    pub fn adapter(&self) -> &str {
        &self.adapter
    }

    /// Draws a view of a volume. `key` names its textures: a new key for new voxels.
    ///
    /// # Errors
    /// A volume beyond the adapter's limits.
    ///
    /// # Panics
    /// When the device is lost.
    pub fn draw(
        &mut self,
        key: u64,
        volume: &Volume,
        labels: Option<&LabelMap>,
        view: &SliceView,
    ) -> Result<RgbaPixels, Error> {
        let labels = labels.map(|map| (key, map));
        let (device, queue) = (&self.device, &self.queue);
        while !self
            .slices
            .prepare(device, queue, 0, view, ((key, 0), volume), labels, [0.0; 2])?
        {}
        let [width, height] = view.size_px;
        let size = Extent3d {
            width,
            height,
            depth_or_array_layers: 1,
        };
        let target = device.create_texture(&TextureDescriptor {
            label: Some("offscreen"),
            size,
            mip_level_count: 1,
            sample_count: 1,
            dimension: TextureDimension::D2,
            format: TextureFormat::Rgba8Unorm,
            usage: TextureUsages::RENDER_ATTACHMENT | TextureUsages::COPY_SRC,
            view_formats: &[],
        });
        let target_view = target.create_view(&TextureViewDescriptor::default());
        // Rows of a copy are aligned to 256 bytes.
        let row = (width * 4).next_multiple_of(256);
        let readback = device.create_buffer(&BufferDescriptor {
            label: Some("readback"),
            size: u64::from(row) * u64::from(height),
            usage: BufferUsages::COPY_DST | BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        let mut encoder = device.create_command_encoder(&CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_render_pass(&RenderPassDescriptor {
                label: Some("slice"),
                color_attachments: &[Some(RenderPassColorAttachment {
                    view: &target_view,
                    depth_slice: None,
                    resolve_target: None,
                    ops: wgpu::Operations::default(),
                })],
                ..RenderPassDescriptor::default()
            });
            self.slices.paint(&mut pass, 0);
        }
        let layout = TexelCopyBufferLayout {
            offset: 0,
            bytes_per_row: Some(row),
            rows_per_image: Some(height),
        };
        let to = TexelCopyBufferInfo {
            buffer: &readback,
            layout,
        };
        encoder.copy_texture_to_buffer(target.as_image_copy(), to, size);
        queue.submit([encoder.finish()]);
        let slice = readback.slice(..);
        slice.map_async(MapMode::Read, |_| {});
        device
            .poll(PollType::wait_indefinitely())
            .expect("the device answers");
        let mapped = slice
            .get_mapped_range()
            .expect("the buffer is mapped after the wait");
        let rgba = mapped
            .chunks_exact(row as usize)
            .flat_map(|line| &line[..width as usize * 4])
            .copied()
            .collect();
        Ok(RgbaPixels {
            width: width as usize,
            height: height as usize,
            rgba,
        })
    }
}
