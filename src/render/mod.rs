//! Pixels from volumes: 3-D textures, slices with overlays, and a CPU reference of the same.
//!
//! Comes in: volumes, label maps, [`SliceView`]s. Goes out: pixels, on the screen or in a buffer.
//! Absent on purpose: egui, decisions about what to show.

mod cpu;
mod offscreen;
mod shaders;
mod slice_gpu;
mod slice_view;
mod textures;
mod uniforms;

pub use cpu::draw_slice_cpu;
pub use offscreen::Offscreen;
pub use slice_gpu::{Fidelity, SliceGpu};
pub use slice_view::{OverlayStyle, RgbaPixels, SliceView};
pub use textures::Error;
