//! `UNETR`: a vision transformer as encoder, convolutions as decoder.
//!
//! # Source
//! Hatamizadeh et al., "UNETR: transformers for 3D medical image segmentation", 2022.

use super::super::config::{Component, counts_per_axis, shown};
use super::blocks::{convolution, double, unet_block, unetr_up};
use super::build::{Builder, Window};
use super::layers::{Act, Norm, norm};
use super::{Network, axes_of, channels};
use crate::model::graph::Op;

/// Edge of a patch, and transformer blocks: fixed in MONAI.
const PATCH: usize = 16;
const BLOCKS: usize = 12;

struct Vit {
    inputs: usize,
    hidden: usize,
    mlp: usize,
    heads: usize,
    qkv_bias: bool,
    perceptron: bool,
    /// In patches.
    grid: Vec<usize>,
}

impl Vit {
    fn patches(&self) -> usize {
        self.grid.iter().product()
    }

    /// Values after each block, and after the last norm; `[1, patches, hidden]`.
    fn add(&self, b: &mut Builder) -> (Vec<usize>, usize) {
        let mut value = self.embed(b);
        let mut states = Vec::new();
        for n in 0..BLOCKS {
            value = self.block(b, value, &format!("vit.blocks.{n}"));
            states.push(value);
        }
        (states, b.layer_norm(value, "vit.norm", self.hidden))
    }

    /// `PatchEmbeddingBlock`.
    fn embed(&self, b: &mut Builder) -> usize {
        let name = "vit.patch_embedding";
        let (patches, axes) = (self.patches(), b.axes);
        let tokens = if self.perceptron {
            // [1, c, h, p, w, p, …] → [1, h·w·…, p·p·…·c]
            let mut shape = vec![1, self.inputs as i64];
            let parts = self.grid.iter().flat_map(|n| [*n as i64, PATCH as i64]);
            shape.extend(parts);
            let mut order = vec![0];
            order.extend((0..axes).map(|a| 2 + 2 * a));
            order.extend((0..axes).map(|a| 3 + 2 * a));
            order.push(1);
            let value = b.push(Op::Reshape { shape }, &[0]);
            let value = b.push(Op::Transpose { order }, &[value]);
            let width = self.inputs * PATCH.pow(axes as u32);
            let shape = vec![1, patches as i64, width as i64];
            let value = b.push(Op::Reshape { shape }, &[value]);
            let linear = format!("{name}.patch_embeddings.1");
            b.linear(value, &linear, [width, self.hidden], true)
        } else {
            let size = vec![PATCH; axes];
            let window = Window {
                padding: vec![[0; 2]; axes],
                ..Window::same(&size, &size)
            };
            let conv = format!("{name}.patch_embeddings");
            let value = b.conv(0, &conv, [self.inputs, self.hidden], &window, true);
            let shape = vec![1, self.hidden as i64, patches as i64];
            let value = b.push(Op::Reshape { shape }, &[value]);
            let order = vec![0, 2, 1];
            b.push(Op::Transpose { order }, &[value])
        };
        b.built.spare.push(format!("{name}.cls_token"));
        let tensor = b.need(
            format!("{name}.position_embeddings"),
            vec![1, patches, self.hidden],
        );
        let position = b.push(Op::Constant { tensor }, &[]);
        b.add(tokens, position)
    }

    /// `TransformerBlock`.
    fn block(&self, b: &mut Builder, from: usize, name: &str) -> usize {
        let (hidden, heads, patches) = (self.hidden, self.heads, self.patches());
        let each = hidden / heads;
        let mut value = b.layer_norm(from, &format!("{name}.norm1"), hidden);
        let qkv = format!("{name}.attn.qkv");
        value = b.linear(value, &qkv, [hidden, 3 * hidden], self.qkv_bias);
        let shape = vec![patches as i64, 3, heads as i64, each as i64];
        value = b.push(Op::Reshape { shape }, &[value]);
        let order = vec![1, 2, 0, 3];
        value = b.push(Op::Transpose { order }, &[value]);
        let parts = [0, 1, 2].map(|n| {
            let op = Op::Slice {
                axis: 0,
                start: n,
                end: n + 1,
            };
            b.push(op, &[value])
        });
        let scale = (each as f64).powf(-0.5) as f32;
        value = b.push(Op::Attention { scale }, &parts);
        let order = vec![0, 2, 1, 3];
        value = b.push(Op::Transpose { order }, &[value]);
        let shape = vec![1, patches as i64, hidden as i64];
        value = b.push(Op::Reshape { shape }, &[value]);
        let out = format!("{name}.attn.out_proj");
        value = b.linear(value, &out, [hidden, hidden], true);
        let sum = b.add(from, value);
        // Made by some versions, used by none here.
        for unused in ["norm_cross_attn", "cross_attn"] {
            b.built.spare.push(format!("{name}.{unused}."));
        }
        value = b.layer_norm(sum, &format!("{name}.norm2"), hidden);
        let mlp = |n: usize| format!("{name}.mlp.linear{n}");
        value = b.linear(value, &mlp(1), [hidden, self.mlp], true);
        value = b.push(Op::Gelu, &[value]);
        value = b.linear(value, &mlp(2), [self.mlp, hidden], true);
        b.add(sum, value)
    }

    /// `proj_feat`: tokens back to a grid.
    fn on_grid(&self, b: &mut Builder, value: usize) -> usize {
        let mut shape = vec![1];
        shape.extend(self.grid.iter().map(|n| *n as i64));
        shape.push(self.hidden as i64);
        let mut order = vec![0, b.axes + 1];
        order.extend(1..=b.axes);
        let value = b.push(Op::Reshape { shape }, &[value]);
        b.push(Op::Transpose { order }, &[value])
    }
}

pub fn network(c: &Component<'_>) -> Result<Network, String> {
    let axes = axes_of(c, Some(3))?;
    let inputs = channels(c, "in_channels", None)?;
    let outputs = channels(c, "out_channels", None)?;
    let size = counts_per_axis(&c.needed("img_size")?, axes)?;
    if size
        .iter()
        .any(|n| n % PATCH != 0 || !(PATCH..=1024).contains(n))
    {
        return Err(format!(
            "{}::img_size is {size:?}, expected multiples of 16",
            c.key()
        ));
    }
    let f = channels(c, "feature_size", Some(16))?;
    // Older versions call it `pos_embed`.
    let older = c.text("pos_embed", "conv")?;
    let projection = c.text("proj_type", &older)?;
    let perceptron = match projection.as_str() {
        "conv" => false,
        "perceptron" => true,
        other => return Err(format!("{}::proj_type is {}", c.key(), shown(other))),
    };
    let vit = Vit {
        inputs,
        hidden: channels(c, "hidden_size", Some(768))?,
        mlp: channels(c, "mlp_dim", Some(3072))?,
        heads: channels(c, "num_heads", Some(12))?,
        qkv_bias: c.truth("qkv_bias", false)?,
        perceptron,
        grid: size.iter().map(|n| n / PATCH).collect(),
    };
    if !vit.hidden.is_multiple_of(vit.heads) {
        return Err(format!(
            "{} has {} features and {} heads",
            c.key(),
            vit.hidden,
            vit.heads
        ));
    }
    let norm = norm(
        c,
        "norm_name",
        Norm::Instance {
            epsilon: 1e-5,
            affine: false,
        },
    )?;
    let residual = c.truth("res_block", true)?;
    let blocks = c.truth("conv_block", true)?;
    c.ignore(&["dropout_rate", "save_attn"]);
    let mut b = Builder::new(inputs, axes);
    let (states, last) = vit.add(&mut b);
    let three = Window::three(axes);
    let mut skips = vec![unet_block(
        &mut b,
        0,
        "encoder1.layer",
        [inputs, f],
        &three,
        &norm,
        &Act::LEAKY,
        residual,
    )];
    for (n, state, times) in [(2, 3, 2), (3, 6, 1), (4, 9, 0)] {
        let name = format!("encoder{n}");
        let width = f << (n - 1);
        let mut value = vit.on_grid(&mut b, states[state]);
        let init = format!("{name}.transp_conv_init");
        value = double(&mut b, value, &init, [vit.hidden, width]);
        for m in 0..times {
            let block = format!("{name}.blocks.{m}");
            if blocks {
                value = double(&mut b, value, &format!("{block}.0"), [width, width]);
                value = unet_block(
                    &mut b,
                    value,
                    &format!("{block}.1"),
                    [width, width],
                    &three,
                    &norm,
                    &Act::LEAKY,
                    residual,
                );
            } else {
                value = double(&mut b, value, &block, [width, width]);
            }
        }
        skips.push(value);
    }
    let mut value = vit.on_grid(&mut b, last);
    let mut width = vit.hidden;
    for (n, to) in [(5, 8), (4, 4), (3, 2), (2, 1)] {
        let name = format!("decoder{n}");
        let channels = [width, to * f];
        value = unetr_up(
            &mut b,
            value,
            skips[n - 2],
            &name,
            channels,
            &norm,
            residual,
        );
        width = to * f;
    }
    let one = Window::one(axes);
    let value = convolution(&mut b, value, "out.conv", [f, outputs], &one, true, None);
    Ok(Network {
        class: "UNETR".to_owned(),
        built: b.finish(value),
        axes,
        inputs,
        outputs,
        classifier: false,
        size: Some(size),
        divisor: vec![PATCH; axes],
    })
}
