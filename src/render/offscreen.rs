//! A graphics device without a window, and pictures read back from it.

use eframe::egui_wgpu::wgpu::{
    self, BufferDescriptor, BufferUsages, CommandEncoderDescriptor, Device, Extent3d, Instance,
    InstanceDescriptor, MapMode, PollType, Queue, RenderPassColorAttachment, RenderPassDescriptor,
    TexelCopyBufferInfo, TexelCopyBufferLayout, Texture, TextureDescriptor, TextureDimension,
    TextureFormat, TextureUsages, TextureViewDescriptor,
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

    /// The pipelines and textures, to set a budget or to ask what is loaded.
    pub fn slices(&mut self) -> &mut SliceGpu {
        &mut self.slices
    }

    /// Draws a view of a volume. `key` names its textures: a new key for new voxels.
    ///
    /// # Errors
    /// A volume for which the adapter has no memory.
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
        loop {
            let (picture, complete) =
                self.draw_frame(key, volume, labels, view, [0; 2], view.size_px)?;
            if complete {
                return Ok(picture);
            }
        }
    }

    /// One frame as a window draws it: the view lies at `origin_px` of a larger target. Also says
    /// whether all voxels were there.
    ///
    /// # Errors
    /// A volume for which the adapter has no memory.
    ///
    /// # Panics
    /// When the device is lost.
    pub fn draw_frame(
        &mut self,
        key: u64,
        volume: &Volume,
        labels: Option<&LabelMap>,
        view: &SliceView,
        origin_px: [u32; 2],
        target_px: [u32; 2],
    ) -> Result<(RgbaPixels, bool), Error> {
        let complete = self.prepare(key, volume, labels, view, origin_px)?;
        let target = self.paint(view, origin_px, target_px);
        Ok((self.read(&target), complete))
    }

    /// Draws without reading back, and waits for the device: what a frame costs.
    ///
    /// # Errors
    /// A volume for which the adapter has no memory.
    ///
    /// # Panics
    /// When the device is lost.
    pub fn draw_unseen(
        &mut self,
        key: u64,
        volume: &Volume,
        labels: Option<&LabelMap>,
        view: &SliceView,
    ) -> Result<bool, Error> {
        let complete = self.prepare(key, volume, labels, view, [0; 2])?;
        self.paint(view, [0; 2], view.size_px);
        self.wait();
        Ok(complete)
    }

    fn prepare(
        &mut self,
        key: u64,
        volume: &Volume,
        labels: Option<&LabelMap>,
        view: &SliceView,
        origin_px: [u32; 2],
    ) -> Result<bool, Error> {
        let labels = labels.map(|map| (key, map));
        let origin = origin_px.map(|n| n as f32);
        let (device, queue) = (&self.device, &self.queue);
        self.slices
            .prepare(device, queue, 0, view, ((key, 0), volume), labels, origin)
    }

    fn paint(&self, view: &SliceView, origin_px: [u32; 2], target_px: [u32; 2]) -> Texture {
        let target = self.device.create_texture(&TextureDescriptor {
            label: Some("offscreen"),
            size: Extent3d {
                width: target_px[0],
                height: target_px[1],
                depth_or_array_layers: 1,
            },
            mip_level_count: 1,
            sample_count: 1,
            dimension: TextureDimension::D2,
            format: TextureFormat::Rgba8Unorm,
            usage: TextureUsages::RENDER_ATTACHMENT | TextureUsages::COPY_SRC,
            view_formats: &[],
        });
        let mut encoder = self
            .device
            .create_command_encoder(&CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_render_pass(&RenderPassDescriptor {
                label: Some("slice"),
                color_attachments: &[Some(RenderPassColorAttachment {
                    view: &target.create_view(&TextureViewDescriptor::default()),
                    depth_slice: None,
                    resolve_target: None,
                    ops: wgpu::Operations::default(),
                })],
                ..RenderPassDescriptor::default()
            });
            let [x, y] = origin_px.map(|n| n as f32);
            let [w, h] = view.size_px.map(|n| n as f32);
            pass.set_viewport(x, y, w, h, 0.0, 1.0);
            self.slices.paint(&mut pass, 0);
        }
        self.queue.submit([encoder.finish()]);
        target
    }

    fn wait(&self) {
        self.device
            .poll(PollType::wait_indefinitely())
            .expect("the device answers");
    }

    fn read(&self, target: &Texture) -> RgbaPixels {
        let size = target.size();
        // Rows of a copy are aligned to 256 bytes.
        let row = (size.width * 4).next_multiple_of(256);
        let readback = self.device.create_buffer(&BufferDescriptor {
            label: Some("readback"),
            size: u64::from(row) * u64::from(size.height),
            usage: BufferUsages::COPY_DST | BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        let to = TexelCopyBufferInfo {
            buffer: &readback,
            layout: TexelCopyBufferLayout {
                offset: 0,
                bytes_per_row: Some(row),
                rows_per_image: Some(size.height),
            },
        };
        let mut encoder = self
            .device
            .create_command_encoder(&CommandEncoderDescriptor::default());
        encoder.copy_texture_to_buffer(target.as_image_copy(), to, size);
        self.queue.submit([encoder.finish()]);
        let slice = readback.slice(..);
        slice.map_async(MapMode::Read, |_| {});
        self.wait();
        let mapped = slice
            .get_mapped_range()
            .expect("the buffer is mapped after the wait");
        let rgba = mapped
            .chunks_exact(row as usize)
            .flat_map(|line| &line[..size.width as usize * 4])
            .copied()
            .collect();
        RgbaPixels {
            width: size.width as usize,
            height: size.height as usize,
            rgba,
        }
    }
}
