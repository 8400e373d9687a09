//! Drawing slices on the GPU, several views at a time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use eframe::egui_wgpu::wgpu::{
    self, BindGroup, BindGroupDescriptor, BindGroupEntry, BindGroupLayout,
    BindGroupLayoutDescriptor, BindGroupLayoutEntry, BindingResource, BindingType, Buffer,
    BufferBindingType, BufferDescriptor, BufferUsages, Device, Queue, RenderPass, RenderPipeline,
    ShaderModule, ShaderStages, TextureFormat, TextureSampleType, TextureViewDimension,
};

use super::shaders::{self, VoxelFormat};
use super::slice_view::SliceView;
use super::textures::{Error, GridTexture, Texels};
use super::uniforms::{Variant, ViewUniforms};
use crate::geometry::VolumeGeometry;
use crate::volume::{LabelMap, ModalityLut, Volume};

/// Bytes uploaded in one frame, over all views: a frame stays short even without a graphics card.
const BYTES_PER_FRAME: usize = 16 << 20;

/// Bytes of all textures together, unless [`SliceGpu::set_budget`] says otherwise.
const BUDGET: usize = 2 << 30;

/// Names the voxels of a texture: id and revision.
type Key = (u64, u64);

/// How much of a volume is on the GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fidelity {
    /// Every how many voxels are shown along i, j, k; 1 when all are.
    pub voxels_per_texel: [usize; 3],
    /// Uploaded part, 0 to 1.
    pub loaded: f32,
}

impl Fidelity {
    /// Whether every stored voxel of the grid is there to be drawn.
    pub fn is_full(&self) -> bool {
        self.voxels_per_texel == [1; 3] && self.loaded >= 1.0
    }
}

struct Cached {
    key: Key,
    grid: GridTexture,
    /// Modality LUT.
    lut: Buffer,
    last_used: u64,
}

/// What a view needs besides textures; kept while its textures stay the same.
struct PreparedView {
    image: Key,
    labels: Option<Key>,
    variant: Option<Variant>,
    uniforms: Buffer,
    colors: Buffer,
    group: BindGroup,
}

/// Pipelines and textures for slices. Textures are a cache with a budget: what was not drawn for
/// the longest time goes first.
pub struct SliceGpu {
    target: TextureFormat,
    sources: HashMap<VoxelFormat, (BindGroupLayout, ShaderModule)>,
    pipelines: HashMap<Variant, RenderPipeline>,
    cached: Vec<Cached>,
    no_labels: GridTexture,
    views: HashMap<u64, PreparedView>,
    failed: HashMap<Key, Error>,
    budget: usize,
    /// Counts calls of `prepare`: the age of textures.
    clock: u64,
    /// What may still be uploaded in this frame. Painting begins the next.
    left_in_frame: AtomicUsize,
}

/// Label maps share the cache with volumes: their ids carry this bit.
const LABELS: u64 = 1 << 63;

impl SliceGpu {
    /// For a target format that is not sRGB: gray values pass unchanged.
    ///
    /// # Panics
    /// When the adapter cannot hold a texture of one texel.
    pub fn new(device: &Device, queue: &Queue, target: TextureFormat) -> Self {
        let mut no_labels = GridTexture::new(device, Texels::U8(&[0]), [1; 3], BUDGET)
            .expect("one voxel fits every adapter");
        no_labels.upload_some(queue, Texels::U8(&[0]), [1; 3], 0, 1);
        Self {
            target,
            sources: HashMap::new(),
            pipelines: HashMap::new(),
            cached: Vec::new(),
            no_labels,
            views: HashMap::new(),
            failed: HashMap::new(),
            budget: BUDGET,
            clock: 0,
            left_in_frame: AtomicUsize::new(BYTES_PER_FRAME),
        }
    }

    /// Sets the bytes that all textures may take together.
    pub fn set_budget(&mut self, bytes: usize) {
        self.budget = bytes;
        self.evict(0, None);
    }

    /// How much of a volume is on the GPU; `None` when nothing is.
    pub fn fidelity(&self, volume_key: Key) -> Option<Fidelity> {
        let cached = self.cached.iter().find(|c| c.key == volume_key)?;
        Some(Fidelity {
            voxels_per_texel: cached.grid.voxels_per_texel(),
            loaded: cached.grid.loaded().len() as f32 / cached.grid.dims()[2] as f32,
        })
    }

    /// Why a volume cannot be drawn, if it cannot.
    pub fn failure(&self, volume_key: Key) -> Option<&Error> {
        self.failed.get(&volume_key)
    }

    /// Bytes that textures take.
    pub fn texture_bytes(&self) -> usize {
        self.cached.iter().map(|c| c.grid.bytes()).sum()
    }

    /// Makes a view ready to be painted; true when every voxel is on the GPU, false while more
    /// frames are needed: slices that are not there yet show the background.
    ///
    /// `slot` names the view; `volume_key` (id and revision) and the label map's key name textures.
    /// An older revision of the same id is dropped.
    ///
    /// # Errors
    /// A volume for which the adapter has no memory. The view then paints nothing.
    pub fn prepare(
        &mut self,
        device: &Device,
        queue: &Queue,
        slot: u64,
        view: &SliceView,
        (volume_key, volume): (Key, &Volume),
        labels: Option<(u64, &LabelMap)>,
        viewport_origin: [f32; 2],
    ) -> Result<bool, Error> {
        self.clock += 1;
        let labels = labels.filter(|_| view.overlay.is_some());
        let labels = labels.map(|(revision, map)| ((LABELS, revision), map));
        let found = self.textures(device, queue, view, (volume_key, volume), labels);
        let complete = match found {
            Ok(complete) => complete,
            Err(error) => {
                // CLINICAL(laterality): no picture rather than the one of another volume.
                self.views.remove(&slot);
                return Err(error);
            }
        };
        let known = self.views.get(&slot).is_some_and(|prepared| {
            prepared.image == volume_key && prepared.labels == labels.map(|(key, _)| key)
        });
        if !known {
            let prepared = self.new_view(device, volume_key, labels.map(|(key, _)| key));
            self.views.insert(slot, prepared);
        }
        let image = self.cached_grid(volume_key);
        let labels = labels.map(|(key, map)| (map, self.cached_grid(key)));
        let has_labels = labels.is_some();
        let uniforms = ViewUniforms::new(view, (volume, image), labels, viewport_origin);
        let variant = uniforms.variant(view, volume, image.format);
        if !self.pipelines.contains_key(&variant) {
            let made = pipeline(device, self.target, &self.sources[&variant.format], variant);
            self.pipelines.insert(variant, made);
        }
        let prepared = self.views.get_mut(&slot).expect("the view was made above");
        prepared.variant = Some(variant);
        queue.write_buffer(&prepared.uniforms, 0, bytemuck::bytes_of(&uniforms));
        if has_labels {
            let colors = colors_of(view);
            queue.write_buffer(&prepared.colors, 0, bytemuck::cast_slice(&colors));
        }
        Ok(complete)
    }

    /// Paints a prepared view over the pass's viewport.
    pub fn paint(&self, pass: &mut RenderPass<'_>, slot: u64) {
        self.left_in_frame.store(BYTES_PER_FRAME, Ordering::Relaxed);
        let Some(prepared) = self.views.get(&slot) else {
            return;
        };
        let Some(variant) = prepared.variant else {
            return;
        };
        pass.set_pipeline(&self.pipelines[&variant]);
        pass.set_bind_group(0, &prepared.group, &[]);
        pass.draw(0..3, 0..1);
    }

    /// Creates and fills the textures of a view; true when they are complete.
    fn textures(
        &mut self,
        device: &Device,
        queue: &Queue,
        view: &SliceView,
        (volume_key, volume): (Key, &Volume),
        labels: Option<(Key, &LabelMap)>,
    ) -> Result<bool, Error> {
        let wanted = (volume_key, labels.map(|(key, _)| key));
        let mut complete = self.texture(
            device,
            queue,
            volume_key,
            (volume.into(), &volume.geometry, Some(volume)),
            view,
            wanted,
        )?;
        if let Some((key, map)) = labels {
            let grid = (map.into(), &map.geometry, None);
            complete &= self.texture(device, queue, key, grid, view, wanted)?;
        }
        Ok(complete)
    }

    fn texture(
        &mut self,
        device: &Device,
        queue: &Queue,
        key: Key,
        (texels, geometry, volume): (Texels<'_>, &VolumeGeometry, Option<&Volume>),
        view: &SliceView,
        wanted: (Key, Option<Key>),
    ) -> Result<bool, Error> {
        if let Some(error) = self.failed.get(&key) {
            return Err(error.clone());
        }
        if !self.cached.iter().any(|c| c.key == key) {
            // An older revision will not come back.
            self.drop_textures(|c| c.key.0 == key.0 && key.0 != LABELS);
            let most = self.budget.max(1);
            let grid = GridTexture::new(device, texels, geometry.dims(), most).or_else(|_| {
                // Once more, with everything else out of the way.
                self.drop_textures(|c| c.key != wanted.0);
                GridTexture::new(device, texels, geometry.dims(), most)
            });
            let grid = match grid {
                Ok(grid) => grid,
                Err(error) => {
                    self.failed.insert(key, error.clone());
                    return Err(error);
                }
            };
            self.evict(grid.bytes(), Some(wanted));
            self.keep_few_label_maps();
            let lut = lut_of(volume, grid.voxels_per_texel()[2]);
            let lut = buffer(device, BufferUsages::STORAGE, size_of_val(&lut[..]), |to| {
                queue.write_buffer(to, 0, bytemuck::cast_slice(&lut));
            });
            self.cached.push(Cached {
                key,
                grid,
                lut,
                last_used: 0,
            });
        }
        let left = self.left_in_frame.load(Ordering::Relaxed);
        let clock = self.clock;
        let cached = self
            .cached
            .iter_mut()
            .find(|c| c.key == key)
            .expect("the texture was made above");
        cached.last_used = clock;
        if !cached.grid.is_complete() && (left > 0 || cached.grid.loaded().is_empty()) {
            let middle = geometry.ijk_at(view.plane.center_lps).z.round().max(0.0) as usize;
            let dims = geometry.dims();
            let sent = cached.grid.upload_some(queue, texels, dims, middle, left);
            let left = left.saturating_sub(sent);
            self.left_in_frame.store(left, Ordering::Relaxed);
        }
        Ok(cached.grid.is_complete())
    }

    /// Makes room for `coming` bytes: the textures drawn longest ago go, but never `wanted`.
    fn evict(&mut self, coming: usize, wanted: Option<(Key, Option<Key>)>) {
        while self.texture_bytes() + coming > self.budget {
            let keep = |key: Key| wanted.is_some_and(|(a, b)| key == a || Some(key) == b);
            let oldest = self
                .cached
                .iter()
                .filter(|c| !keep(c.key))
                .min_by_key(|c| c.last_used)
                .map(|c| c.key);
            let Some(oldest) = oldest else { break };
            self.drop_textures(|c| c.key == oldest);
        }
    }

    /// Revisions of a label map follow each other; only the last few may be asked for again.
    fn keep_few_label_maps(&mut self) {
        let mut ages: Vec<(u64, Key)> = self
            .cached
            .iter()
            .filter(|c| c.key.0 == LABELS)
            .map(|c| (c.last_used, c.key))
            .collect();
        ages.sort_unstable();
        for (_, key) in ages.iter().rev().skip(3) {
            self.drop_textures(|c| c.key == *key);
        }
    }

    fn drop_textures(&mut self, which: impl Fn(&Cached) -> bool) {
        let gone: Vec<Key> = self
            .cached
            .iter()
            .filter(|c| which(c))
            .map(|c| c.key)
            .collect();
        self.cached.retain(|c| !gone.contains(&c.key));
        // Their bind groups would keep the memory.
        self.views.retain(|_, v| {
            !gone.contains(&v.image) && !v.labels.is_some_and(|key| gone.contains(&key))
        });
    }

    fn cached(&self, key: Key) -> &Cached {
        self.cached
            .iter()
            .find(|c| c.key == key)
            .expect("textures of a view being prepared are not dropped")
    }

    fn cached_grid(&self, key: Key) -> &GridTexture {
        &self.cached(key).grid
    }

    fn new_view(&mut self, device: &Device, image: Key, labels: Option<Key>) -> PreparedView {
        let format = self.cached(image).grid.format;
        self.sources
            .entry(format)
            .or_insert_with(|| source(device, format));
        let uniforms = buffer(
            device,
            BufferUsages::UNIFORM,
            size_of::<ViewUniforms>(),
            |_| {},
        );
        let colors = buffer(
            device,
            BufferUsages::STORAGE,
            size_of::<[[f32; 4]; 256]>(),
            |_| {},
        );
        let cached = self.cached(image);
        let label_grid = labels.map_or(&self.no_labels, |key| self.cached_grid(key));
        let entry = |binding, resource| BindGroupEntry { binding, resource };
        let group = device.create_bind_group(&BindGroupDescriptor {
            label: Some("slice"),
            layout: &self.sources[&format].0,
            entries: &[
                entry(0, uniforms.as_entire_binding()),
                entry(1, BindingResource::TextureView(&cached.grid.view)),
                entry(2, cached.lut.as_entire_binding()),
                entry(3, BindingResource::TextureView(&label_grid.view)),
                entry(4, colors.as_entire_binding()),
            ],
        });
        PreparedView {
            image,
            labels,
            variant: None,
            uniforms,
            colors,
            group,
        }
    }
}

/// The modality LUT as pairs: slope and intercept of every texture slice, or table entries.
fn lut_of(volume: Option<&Volume>, every: usize) -> Vec<[f32; 2]> {
    let mut lut: Vec<[f32; 2]> = match volume.map(|v| &v.modality_lut) {
        None | Some(ModalityLut::Rescale { .. }) => Vec::new(),
        Some(ModalityLut::PerSlice(slices)) => {
            let nk = volume.map_or(0, |v| v.geometry.dims()[2]);
            // Slices beyond the list are as stored, as in `ModalityLut::apply`.
            (0..nk)
                .step_by(every)
                .map(|k| slices.get(k).map_or([1.0, 0.0], |&(a, b)| [a, b]))
                .collect()
        }
        Some(ModalityLut::Table { values, .. }) => values.iter().map(|&v| [v, 0.0]).collect(),
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

fn buffer(
    device: &Device,
    usage: BufferUsages,
    bytes: usize,
    fill: impl FnOnce(&Buffer),
) -> Buffer {
    let buffer = device.create_buffer(&BufferDescriptor {
        label: Some("slice"),
        size: bytes as u64,
        usage: usage | BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    fill(&buffer);
    buffer
}

fn source(device: &Device, format: VoxelFormat) -> (BindGroupLayout, ShaderModule) {
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
    (layout, module)
}

fn pipeline(
    device: &Device,
    target: TextureFormat,
    (layout, module): &(BindGroupLayout, ShaderModule),
    variant: Variant,
) -> RenderPipeline {
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some("slice"),
        bind_group_layouts: &[Some(layout)],
        immediate_size: 0,
    });
    let constants = variant.constants();
    let compilation_options = wgpu::PipelineCompilationOptions {
        constants: &constants,
        ..wgpu::PipelineCompilationOptions::default()
    };
    device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
        label: Some("slice"),
        layout: Some(&pipeline_layout),
        vertex: wgpu::VertexState {
            module,
            entry_point: Some("vertex"),
            compilation_options: compilation_options.clone(),
            buffers: &[],
        },
        primitive: wgpu::PrimitiveState::default(),
        depth_stencil: None,
        multisample: wgpu::MultisampleState::default(),
        fragment: Some(wgpu::FragmentState {
            module,
            entry_point: Some("fragment"),
            compilation_options,
            targets: &[Some(target.into())],
        }),
        multiview_mask: None,
        cache: None,
    })
}
