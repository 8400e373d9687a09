//! The Swin transformer that is `SwinUNETR`'s encoder: attention in shifted windows of the grid.
//!
//! # Source
//! Liu et al., "Swin transformer: hierarchical vision transformer using shifted windows", 2021.

use super::blocks::unet_block;
use super::build::{Builder, Window};
use super::layers::{Act, Norm};
use crate::model::graph::{Op, PadMode};

/// How patches become fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merging {
    /// `PatchMerging` before MONAI 1.5, which takes two corners twice and leaves two out.
    Older,
    /// `PatchMerging`.
    Corrected,
    /// `PatchMergingV2`.
    Second,
}

/// `SwinTransformer`.
#[derive(Clone, Debug)]
pub struct Swin {
    pub inputs: usize,
    pub width: usize,
    pub patch: Vec<usize>,
    pub window: Vec<usize>,
    pub depths: Vec<usize>,
    pub heads: Vec<usize>,
    pub mlp_ratio: f64,
    pub qkv_bias: bool,
    pub patch_norm: bool,
    pub merging: Merging,
    /// A residual block before each stage.
    pub second: bool,
    pub normalize: bool,
}

impl Swin {
    /// The five values that the decoder takes; `grid` is the image's.
    pub fn add(&self, b: &mut Builder, grid: &[usize]) -> Vec<usize> {
        let window = Window {
            padding: vec![[0; 2]; b.axes],
            ..Window::same(&self.patch, &self.patch)
        };
        let embed = "swinViT.patch_embed";
        let channels = [self.inputs, self.width];
        let mut value = b.conv(0, &format!("{embed}.proj"), channels, &window, true);
        if self.patch_norm {
            value = last(b, value);
            value = b.layer_norm(value, &format!("{embed}.norm"), self.width);
            value = first(b, value);
        }
        let mut grid: Vec<usize> = grid.iter().zip(&self.patch).map(|(n, p)| n / p).collect();
        let mut results = vec![self.normalized(b, value)];
        for (stage, depth) in self.depths.iter().enumerate() {
            let width = self.width << stage;
            let layers = format!("swinViT.layers{}", stage + 1);
            if self.second {
                value = unet_block(
                    b,
                    value,
                    &format!("{layers}c.0.layer"),
                    [width, width],
                    &Window::three(b.axes),
                    &Norm::Instance {
                        epsilon: 1e-5,
                        affine: false,
                    },
                    &Act::LEAKY,
                    true,
                );
            }
            value = last(b, value);
            for n in 0..*depth {
                let name = format!("{layers}.0.blocks.{n}");
                let heads = self.heads[stage];
                value = self.block(b, value, &name, width, heads, &grid, n % 2 == 1);
            }
            value = self.merge(b, value, &format!("{layers}.0.downsample"), width, &grid);
            for n in &mut grid {
                *n = n.div_ceil(2);
            }
            value = first(b, value);
            results.push(self.normalized(b, value));
        }
        results
    }

    /// `proj_out`.
    fn normalized(&self, b: &mut Builder, value: usize) -> usize {
        if !self.normalize {
            return value;
        }
        let value = last(b, value);
        let op = Op::LayerNorm {
            epsilon: 1e-5,
            affine: None,
        };
        let value = b.push(op, &[value]);
        first(b, value)
    }

    /// `SwinTransformerBlock`, on values with the channels last.
    fn block(
        &self,
        b: &mut Builder,
        from: usize,
        name: &str,
        width: usize,
        heads: usize,
        grid: &[usize],
        shifted: bool,
    ) -> usize {
        // get_window_size: a window that covers an axis does not shift along it.
        let pairs = grid.iter().zip(&self.window);
        let window: Vec<usize> = pairs.clone().map(|(n, w)| *n.min(w)).collect();
        let shift = pairs
            .map(|(n, w)| if shifted && n > w { w / 2 } else { 0 })
            .collect();
        let missing: Vec<usize> = grid
            .iter()
            .zip(&window)
            .map(|(n, w)| n.next_multiple_of(*w) - n)
            .collect();
        let padded = missing.iter().any(|n| *n > 0);
        let mut value = b.layer_norm(from, &format!("{name}.norm1"), width);
        if padded {
            let mut padding = vec![[0, 0]];
            padding.extend(missing.iter().map(|n| [0, *n]));
            padding.push([0, 0]);
            let mode = PadMode::Constant(0.0);
            value = b.push(Op::Pad { padding, mode }, &[value]);
        }
        let qkv = format!("{name}.attn.qkv");
        value = b.linear(value, &qkv, [width, 3 * width], self.qkv_bias);
        let biases = self.window.iter().map(|w| 2 * w - 1).product();
        let bias = b.need(
            format!("{name}.attn.relative_position_bias_table"),
            vec![biases, heads],
        );
        let index = format!("{name}.attn.relative_position_index");
        b.built.spare.push(index);
        value = b.push(
            Op::WindowAttention {
                heads,
                scale: ((width / heads) as f64).powf(-0.5) as f32,
                bias,
                table: self.window.clone(),
                window,
                shift,
            },
            &[value],
        );
        value = b.linear(value, &format!("{name}.attn.proj"), [width, width], true);
        if padded {
            for (axis, n) in grid.iter().enumerate() {
                let op = Op::Slice {
                    axis: axis + 1,
                    start: 0,
                    end: *n as i64,
                };
                value = b.push(op, &[value]);
            }
        }
        let sum = b.add(from, value);
        let hidden = (width as f64 * self.mlp_ratio) as usize;
        value = b.layer_norm(sum, &format!("{name}.norm2"), width);
        value = b.linear(value, &format!("{name}.mlp.linear1"), [width, hidden], true);
        value = b.push(Op::Gelu, &[value]);
        value = b.linear(value, &format!("{name}.mlp.linear2"), [hidden, width], true);
        b.add(sum, value)
    }

    /// `PatchMerging`: the corners of cells of 2 side by side, then half as many channels.
    fn merge(
        &self,
        b: &mut Builder,
        from: usize,
        name: &str,
        width: usize,
        grid: &[usize],
    ) -> usize {
        let axes = grid.len();
        let mut value = from;
        if grid.iter().any(|n| n % 2 == 1) {
            let mut padding = vec![[0, 0]];
            padding.extend(grid.iter().map(|n| [0, n % 2]));
            padding.push([0, 0]);
            let mode = PadMode::Constant(0.0);
            value = b.push(Op::Pad { padding, mode }, &[value]);
        }
        let half: Vec<i64> = grid.iter().map(|n| n.div_ceil(2) as i64).collect();
        // [1, d, 2, h, 2, w, 2, c] → [1, d, h, w, 2·2·2, c]
        let mut shape = vec![1];
        shape.extend(half.iter().flat_map(|n| [*n, 2]));
        shape.push(width as i64);
        value = b.push(Op::Reshape { shape }, &[value]);
        let mut order = vec![0];
        order.extend((0..axes).map(|a| 1 + 2 * a));
        order.extend((0..axes).map(|a| 2 + 2 * a));
        order.push(1 + 2 * axes);
        value = b.push(Op::Transpose { order }, &[value]);
        let corners = 1_i64 << axes;
        let cells = [&[1], half.as_slice(), &[corners, width as i64]].concat();
        value = b.push(Op::Reshape { shape: cells }, &[value]);
        // Numbers whose bits, highest first, are the offsets along the axes.
        let wanted: &[usize] = match (axes, self.merging) {
            (2, _) => &[0b00, 0b10, 0b01, 0b11],
            (_, Merging::Second) => &[0, 1, 2, 3, 4, 5, 6, 7],
            (_, Merging::Corrected) => &[0b000, 0b100, 0b010, 0b001, 0b110, 0b101, 0b011, 0b111],
            (_, Merging::Older) => &[0b000, 0b100, 0b010, 0b001, 0b101, 0b010, 0b001, 0b111],
        };
        if self.merging != Merging::Second || axes == 2 {
            let parts: Vec<usize> = wanted
                .iter()
                .map(|&corner| {
                    let op = Op::Slice {
                        axis: axes + 1,
                        start: corner as i64,
                        end: corner as i64 + 1,
                    };
                    b.push(op, &[value])
                })
                .collect();
            value = b.push(Op::Concat { axis: axes + 1 }, &parts);
        }
        let joined = width << axes;
        let shape = [&[1], half.as_slice(), &[joined as i64]].concat();
        value = b.push(Op::Reshape { shape }, &[value]);
        value = b.layer_norm(value, &format!("{name}.norm"), joined);
        b.linear(
            value,
            &format!("{name}.reduction"),
            [joined, 2 * width],
            false,
        )
    }
}

/// Channels to the end.
fn last(b: &mut Builder, value: usize) -> usize {
    let mut order: Vec<usize> = (2..b.axes + 2).collect();
    order.insert(0, 0);
    order.push(1);
    b.push(Op::Transpose { order }, &[value])
}

/// Channels back to the front.
fn first(b: &mut Builder, value: usize) -> usize {
    let mut order = vec![0, b.axes + 1];
    order.extend(1..=b.axes);
    b.push(Op::Transpose { order }, &[value])
}
