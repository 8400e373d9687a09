//! From a view of the app to the GPU: what `render` draws under the text.

use std::sync::Arc;

use eframe::egui::{self, Ui};
use eframe::egui_wgpu::{
    Callback, CallbackResources, CallbackTrait, RenderState, ScreenDescriptor, wgpu,
};

use super::viewport::Placement;
use crate::app::App;
use crate::findings::{ReviewState, Segmentation};
use crate::geometry::ViewPlane;
use crate::render::{OverlayStyle, SliceGpu, SliceView};
use crate::volume::Volume;

/// Makes the pipelines, once.
pub fn install(state: &RenderState) {
    let slices = SliceGpu::new(&state.device, &state.queue, state.target_format);
    state.renderer.write().callback_resources.insert(slices);
}

/// Bounds the bytes of all textures.
pub fn limit(state: &RenderState, bytes: usize) {
    let mut renderer = state.renderer.write();
    if let Some(slices) = renderer.callback_resources.get_mut::<SliceGpu>() {
        slices.set_budget(bytes);
    }
}

/// What the GPU can show of the open volume.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Drawn {
    /// Why it shows nothing.
    pub failure: Option<String>,
    /// Every how many voxels are shown along i, j, k, when not all are.
    pub voxels_per_texel: Option<[usize; 3]>,
    /// Uploaded part, 0 to 1, while it is not all there.
    pub uploading: Option<f32>,
}

/// Asks the GPU what it shows of the open volume, as of the last frame.
pub fn drawn(state: Option<&RenderState>, app: &App) -> Drawn {
    let (Some(state), Some(open)) = (state, &app.workspace.open) else {
        return Drawn::default();
    };
    let renderer = state.renderer.read();
    let Some(slices) = renderer.callback_resources.get::<SliceGpu>() else {
        return Drawn::default();
    };
    let key = (open.id.0, open.revision);
    let fidelity = slices.fidelity(key);
    Drawn {
        failure: slices.failure(key).map(ToString::to_string),
        voxels_per_texel: fidelity
            .map(|f| f.voxels_per_texel)
            .filter(|v| *v != [1; 3]),
        uploading: fidelity.map(|f| f.loaded).filter(|l| *l < 1.0),
    }
}

struct SliceCallback {
    slot: u64,
    view: SliceView,
    key: (u64, u64),
    volume: Arc<Volume>,
    labels: Option<(u64, Arc<Segmentation>)>,
    origin_px: [f32; 2],
    ctx: egui::Context,
}

impl CallbackTrait for SliceCallback {
    fn prepare(
        &self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        _screen: &ScreenDescriptor,
        _encoder: &mut wgpu::CommandEncoder,
        resources: &mut CallbackResources,
    ) -> Vec<wgpu::CommandBuffer> {
        if let Some(slices) = resources.get_mut::<SliceGpu>() {
            let labels = self.labels.as_ref().map(|(key, s)| (*key, &s.map));
            let volume = (self.key, self.volume.as_ref());
            match slices.prepare(
                device,
                queue,
                self.slot,
                &self.view,
                volume,
                labels,
                self.origin_px,
            ) {
                Ok(true) => {}
                Ok(false) => self.ctx.request_repaint(),
                Err(error) => tracing::warn!(%error, "a volume cannot be drawn"),
            }
        }
        Vec::new()
    }

    fn paint(
        &self,
        _info: egui::PaintCallbackInfo,
        pass: &mut wgpu::RenderPass<'static>,
        resources: &CallbackResources,
    ) {
        if let Some(slices) = resources.get::<SliceGpu>() {
            slices.paint(pass, self.slot);
        }
    }
}

/// Draws the slice of a view into its tile.
pub fn paint_slice(ui: &Ui, app: &App, placement: &Placement, view: ViewPlane) {
    let Some(open) = &app.workspace.open else {
        return;
    };
    let scale = ui.ctx().pixels_per_point();
    // The callback's viewport is rounded to pixels; the view must be the same.
    let px = |x: f32| (x * scale).round();
    let (rect, min) = (
        placement.rect,
        [px(placement.rect.min.x), px(placement.rect.min.y)],
    );
    let size_px = [px(rect.max.x) - min[0], px(rect.max.y) - min[1]].map(|n| n.max(1.0) as u32);
    let results = app
        .results
        .as_ref()
        .filter(|r| r.volume == open.id && r.overlay.visible);
    let overlay = results.map(|r| {
        let mut colors = Box::new([None; 256]);
        for segment in &r.segmentation.segments {
            let label = usize::from(segment.label);
            if !r.overlay.hidden[label] {
                colors[label] = Some(segment.color);
            }
        }
        OverlayStyle {
            fill: app.settings.overlay_fill,
            outline: app.settings.overlay_outline,
            outline_px: (1.2 * scale).round() as u32,
            dashed: r.review == ReviewState::NotReviewed,
            colors,
        }
    });
    let callback = SliceCallback {
        slot: view as u64,
        view: SliceView {
            plane: placement.plane,
            mm_per_pixel: placement.mm_per_point / f64::from(scale),
            size_px,
            window: app.workspace.window,
            invert: app.workspace.invert,
            interpolate: app.settings.interpolate,
            background: [0, 0, 0],
            overlay,
        },
        key: (open.id.0, open.revision),
        volume: Arc::clone(&open.data),
        labels: results.map(|r| (r.revision, Arc::clone(&r.segmentation))),
        origin_px: min,
        ctx: ui.ctx().clone(),
    };
    ui.painter_at(rect)
        .add(Callback::new_paint_callback(rect, callback));
}
