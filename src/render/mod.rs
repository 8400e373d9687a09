//! Pixels from volumes: 3-D textures, slices with overlays, and a CPU reference of the same.
//!
//! Comes in: volumes, label maps, [`SliceView`]s. Goes out: pixels, on the screen, in a buffer or
//! in a PNG. Absent on purpose: widgets, decisions about what to show.

mod canvas;
mod cpu;
mod heat;
mod offscreen;
mod png;
mod shaders;
mod slice_gpu;
mod slice_view;
mod snapshot;
mod textures;
mod uniforms;

pub use self::png::{png_bytes, write_png};
pub use cpu::{draw_slice_cpu, draw_stored_cpu};
pub use heat::{heat_color, heat_opacity};
pub use offscreen::Offscreen;
pub use slice_gpu::{Fidelity, SliceGpu};
pub use slice_view::{OverlayStyle, RgbaPixels, SliceView};
pub use snapshot::{CornerLines, SnapshotOptions, snapshot, tick_words};
pub use textures::Error;
