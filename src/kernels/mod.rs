//! Operations of networks on the CPU: convolutions, norms, pooling and their literal definitions.
//!
//! Knows slices of `f32` and shapes, nothing else. [`Blocked`] holds activations in blocks of eight
//! channels; [`Conv`] is a convolution of any shape on them, computed directly or by Winograd's
//! method. [`Planes`] with [`Conv3d`] is the older layer for MeshNet: rows of one channel padded
//! with zeros at both ends.

mod attention;
mod blocked;
mod broadcast;
mod combine;
mod conv;
mod conv3d;
mod conv_backward;
mod depthwise;
mod direct;
mod finish;
mod literal;
mod matmul;
mod minimal;
mod norm;
mod norm_backward;
mod planes;
mod pointwise;
mod pool;
mod pool_backward;
mod rates;
mod resize;
mod scratch;
mod simd;
mod slices;
mod tile;
mod tokens;
mod tokens_backward;
mod transposed;
mod winograd;

pub use attention::{Added, Head, HeadScratch, HeadShape};
pub use blocked::{BLOCK, Blocked, View, ViewMut, blocked_floats};
pub use broadcast::broadcast;
pub use combine::{add, concat, multiply, softmax_channels, softmax_rows};
pub use conv::{Conv, ConvShape, Epilogue, Method, Moments, Prologue};
pub use conv_backward::{InputGradient, bias_gradient, weight_gradient};
pub use conv3d::{Conv3d, Stopped, conv3d, conv3d_argmax};
pub use literal::{conv_literal, conv3d_literal};
pub use matmul::Matrix;
pub use norm::{activate, batch_norm, layer_norm, moments, scale_offset};
pub use norm_backward::{
    GradientSums, GradientTerms, gradient_sums, input_gradient, normalize_into,
};
pub use planes::Planes;
pub use pointwise::{Activation, erf, instance_norm};
pub use pool::{PoolKind, PoolShape, global_mean, pool};
pub use pool_backward::pool_gradient;
pub use rates::Rates;
pub use resize::{Interpolation, resize};
pub use simd::{Instructions, fma_peak_gflops};
pub use slices::{Slices, Source, Unit};
pub use tokens::{
    activate_rows, add_rows, blocks_from_rows, channels_from_blocks, cut_box, layer_norm_rows,
    permute, rows_from_blocks, softmax_wide,
};
pub use tokens_backward::{
    gelu_rows, norm_rows, norm_rows_gradient, softmax_gradient, softmax_scaled,
};
pub use transposed::{Transposed, TransposedShape};
