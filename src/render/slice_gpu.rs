//! Drawing slices on the GPU, several views at a time.

use std::collections::HashMap;

use eframe::egui_wgpu::wgpu::{
    self, BindGroup, BindGroupDescriptor, BindGroupEntry, BindGroupLayout,
    BindGroupLayoutDescriptor, BindGroupLayoutEntry, BindingResource, BindingType, Buffer,
    BufferBindingType, BufferDescriptor, BufferUsages, Device, Queue, RenderPass, RenderPipeline,
    ShaderStages, Texture, TextureFormat, TextureSampleType, TextureViewDescriptor,
    TextureViewDimension,
};

use super::shaders::{self, VoxelFormat};
use super::slice_view::SliceView;
use super::textures::{Error, VolumeTexture, label_texture};
use super::uniforms::ViewUniforms;
use crate::volume::{LabelMap, ModalityLut, Volume};

/// Bytes uploaded in one frame: about 20 ms on a slow bus.
const BYTES_PER_FRAME: usize = 64 << 20;

/// Pipelines and textures for slices. Textures are a cache; the last two volumes stay.
pub struct SliceGpu {
    pipelines: HashMap<VoxelFormat, (BindGroupLayout, RenderPipeline)>,
    volumes: Vec<((u64, u64), VolumeTexture)>,
    labels: Vec<(u64, Texture)>,
    no_labels: Texture,
    views: HashMap<u64, (VoxelFormat, BindGroup)>,
}

impl SliceGpu {
    /// Compiles the pipelines for a target format (not sRGB: gray values pass unchanged).
    pub fn new(device: &Device, queue: &Queue, target: TextureFormat) -> Self {
        let pipelines = VoxelFormat::ALL
            .into_iter()
            .map(|format| (format, pipeline(device, target, format)))
            .collect();
        let geometry =
            crate::geometry::VolumeGeometry::new([1, 1, 1], crate::geometry::DAffine3::IDENTITY)
                .expect("one voxel is a valid grid");
        let no_labels = label_texture(device, queue, &LabelMap::empty(geometry))
            .expect("one voxel fits every adapter");
        Self {
            pipelines,
            volumes: Vec::new(),
            labels: Vec::new(),
            no_labels,
            views: HashMap::new(),
        }
    }

    /// Makes a view ready to be painted; true when every voxel is on the GPU, false while more
    /// frames are needed.
    ///
    /// `slot` names the view; `volume_key` (id and revision) and the label map's key name textures.
    ///
    /// # Errors
    /// A volume beyond the adapter's limits.
    pub fn prepare(
        &mut self,
        device: &Device,
        queue: &Queue,
        slot: u64,
        view: &SliceView,
        (volume_key, volume): ((u64, u64), &Volume),
        labels: Option<(u64, &LabelMap)>,
        viewport_origin: [f32; 2],
    ) -> Result<bool, Error> {
        if !self.volumes.iter().any(|(key, _)| *key == volume_key) {
            // Room first, so that two large volumes are never joined by a third.
            self.volumes.truncate(1);
            self.volumes
                .insert(0, (volume_key, VolumeTexture::new(device, volume)?));
        }
        let complete = self
            .volumes
            .iter_mut()
            .find(|(key, _)| *key == volume_key)
            .is_some_and(|(_, texture)| texture.upload_some(queue, volume, BYTES_PER_FRAME));
        if let Some((key, map)) = labels
            && !self.labels.iter().any(|(known, _)| *known == key)
        {
            self.labels.truncate(1);
            self.labels
                .insert(0, (key, label_texture(device, queue, map)?));
        }
        let Some((_, volume_texture)) = self.volumes.iter().find(|(key, _)| *key == volume_key)
        else {
            return Ok(false);
        };
        let label_texture = labels
            .and_then(|(key, _)| self.labels.iter().find(|(known, _)| *known == key))
            .map_or(&self.no_labels, |(_, texture)| texture);
        let uniforms = ViewUniforms::new(view, volume, labels.map(|(_, map)| map), viewport_origin);
        let uniform = buffer(
            device,
            queue,
            BufferUsages::UNIFORM,
            bytemuck::bytes_of(&uniforms),
        );
        let lut = buffer(
            device,
            queue,
            BufferUsages::STORAGE,
            bytemuck::cast_slice(&lut_of(volume)),
        );
        let colors = colors_of(view);
        let colors = buffer(
            device,
            queue,
            BufferUsages::STORAGE,
            bytemuck::cast_slice(&colors),
        );
        let texture_view = |texture: &Texture| {
            texture.create_view(&TextureViewDescriptor {
                dimension: Some(TextureViewDimension::D3),
                ..TextureViewDescriptor::default()
            })
        };
        let (voxels, labels) = (
            texture_view(&volume_texture.texture),
            texture_view(label_texture),
        );
        let format = volume_texture.format;
        let entry = |binding, resource| BindGroupEntry { binding, resource };
        let group = device.create_bind_group(&BindGroupDescriptor {
            label: Some("slice"),
            layout: &self.pipelines[&format].0,
            entries: &[
                entry(0, uniform.as_entire_binding()),
                entry(1, BindingResource::TextureView(&voxels)),
                entry(2, lut.as_entire_binding()),
                entry(3, BindingResource::TextureView(&labels)),
                entry(4, colors.as_entire_binding()),
            ],
        });
        self.views.insert(slot, (format, group));
        Ok(complete)
    }

    /// Paints a prepared view over the pass's viewport.
    pub fn paint(&self, pass: &mut RenderPass<'_>, slot: u64) {
        let Some((format, group)) = self.views.get(&slot) else {
            return;
        };
        pass.set_pipeline(&self.pipelines[format].1);
        pass.set_bind_group(0, group, &[]);
        pass.draw(0..3, 0..1);
    }
}

fn lut_of(volume: &Volume) -> Vec<[f32; 2]> {
    let mut lut: Vec<[f32; 2]> = match &volume.modality_lut {
        ModalityLut::Rescale { .. } => Vec::new(),
        ModalityLut::PerSlice(slices) => slices.iter().map(|&(a, b)| [a, b]).collect(),
        ModalityLut::Table { values, .. } => values.iter().map(|&v| [v, 0.0]).collect(),
    };
    if lut.is_empty() {
        lut.push([1.0, 0.0]);
    }
    lut
}

fn colors_of(view: &SliceView) -> Vec<[f32; 4]> {
    let mut colors = vec![[0.0; 4]; 256];
    if let Some(overlay) = &view.overlay {
        for (slot, color) in colors.iter_mut().zip(overlay.colors.iter()).skip(1) {
            if let Some(rgb) = color {
                let [r, g, b] = rgb.map(|c| f32::from(c) / 255.0);
                *slot = [r, g, b, 1.0];
            }
        }
    }
    colors
}

fn buffer(device: &Device, queue: &Queue, usage: BufferUsages, bytes: &[u8]) -> Buffer {
    let buffer = device.create_buffer(&BufferDescriptor {
        label: Some("slice"),
        size: bytes.len() as u64,
        usage: usage | BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    queue.write_buffer(&buffer, 0, bytes);
    buffer
}

fn pipeline(
    device: &Device,
    target: TextureFormat,
    format: VoxelFormat,
) -> (BindGroupLayout, RenderPipeline) {
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some("slice"),
        source: wgpu::ShaderSource::Wgsl(shaders::slice(format).into()),
    });
    let texture = |sample_type| BindingType::Texture {
        sample_type,
        view_dimension: TextureViewDimension::D3,
        multisampled: false,
    };
    let data = |ty| BindingType::Buffer {
        ty,
        has_dynamic_offset: false,
        min_binding_size: None,
    };
    let voxels = match format {
        VoxelFormat::Signed => TextureSampleType::Sint,
        VoxelFormat::Unsigned => TextureSampleType::Uint,
        VoxelFormat::Float | VoxelFormat::Color => TextureSampleType::Float { filterable: false },
    };
    let storage = BufferBindingType::Storage { read_only: true };
    let entries: Vec<BindGroupLayoutEntry> = [
        data(BufferBindingType::Uniform),
        texture(voxels),
        data(storage),
        texture(TextureSampleType::Uint),
        data(storage),
    ]
    .into_iter()
    .zip(0..)
    .map(|(ty, binding)| BindGroupLayoutEntry {
        binding,
        visibility: ShaderStages::FRAGMENT,
        ty,
        count: None,
    })
    .collect();
    let layout = device.create_bind_group_layout(&BindGroupLayoutDescriptor {
        label: Some("slice"),
        entries: &entries,
    });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some("slice"),
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let pipeline = device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
        label: Some("slice"),
        layout: Some(&pipeline_layout),
        vertex: wgpu::VertexState {
            module: &module,
            entry_point: Some("vertex"),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            buffers: &[],
        },
        primitive: wgpu::PrimitiveState::default(),
        depth_stencil: None,
        multisample: wgpu::MultisampleState::default(),
        fragment: Some(wgpu::FragmentState {
            module: &module,
            entry_point: Some("fragment"),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            targets: &[Some(target.into())],
        }),
        multiview_mask: None,
        cache: None,
    });
    (layout, pipeline)
}
