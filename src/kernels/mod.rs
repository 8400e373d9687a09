//! 3-D convolutions for the CPU: direct, register-tiled, for any dilation; and their definition.
//!
//! Knows slices of `f32` and shapes, nothing else. Activations live in [`Planes`]: rows of one
//! channel padded with zeros at both ends, so that the inner loop never asks where the edge is.

mod conv3d;
mod literal;
mod planes;
mod pointwise;
mod simd;

pub use conv3d::{Conv3d, Stopped, conv3d, conv3d_argmax};
pub use literal::conv3d_literal;
pub use planes::Planes;
pub use pointwise::{Activation, instance_norm};
pub use simd::{Instructions, fma_peak_gflops};
