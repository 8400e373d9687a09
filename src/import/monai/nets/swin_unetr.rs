//! `SwinUNETR`: a Swin transformer as encoder, convolutions as decoder.
//!
//! # Source
//! Hatamizadeh et al., "Swin UNETR: Swin transformers for semantic segmentation of brain tumors in
//! MRI images", 2022.

use serde_json::json;

use super::super::config::{Component, counts, counts_per_axis, shown};
use super::blocks::{convolution, unet_block, unetr_up};
use super::build::{Builder, Window};
use super::layers::{Act, Norm, norm};
use super::swin::{Merging, Swin};
use super::{Network, axes_of, channels};

/// `PatchMerging` was corrected in this version of MONAI.
const CORRECTED: (u32, u32) = (1, 5);

pub fn network(
    c: &Component<'_>,
    example: Option<&[usize]>,
    version: Option<(u32, u32)>,
) -> Result<Network, String> {
    let axes = axes_of(c, Some(3))?;
    let inputs = channels(c, "in_channels", None)?;
    let outputs = channels(c, "out_channels", None)?;
    let width = channels(c, "feature_size", Some(24))?;
    let per_axis = |name: &str, default: usize| -> Result<Vec<usize>, String> {
        let list = match c.get(name)? {
            Some(node) => counts_per_axis(&node, axes)?,
            None => vec![default; axes],
        };
        if list.iter().any(|n| !(1..=64).contains(n)) {
            return Err(format!("{}::{name} is {list:?}", c.key()));
        }
        Ok(list)
    };
    c.only("patch_size", &[json!(2)])?;
    let (patch, window) = (vec![2; axes], per_axis("window_size", 7)?);
    let four = |name: &str, default: [usize; 4]| -> Result<Vec<usize>, String> {
        let list = match c.get(name)? {
            Some(node) => counts(&node)?,
            None => default.to_vec(),
        };
        if list.len() != 4 || list.iter().any(|n| !(1..=64).contains(n)) {
            return Err(format!(
                "{}::{name} is {list:?}, expected four numbers",
                c.key()
            ));
        }
        Ok(list)
    };
    let (depths, heads) = (
        four("depths", [2, 2, 2, 2])?,
        four("num_heads", [3, 6, 12, 24])?,
    );
    if width % 12 != 0 || (0..4).any(|n| (width << n) % heads[n] != 0) {
        return Err(format!(
            "{} has {width} features and {heads:?} heads",
            c.key()
        ));
    }
    let downsample = c.text("downsample", "merging")?;
    let merging = match (downsample.as_str(), axes) {
        ("mergingv2", _) | ("merging", 2) => Merging::Second,
        ("merging", _) => match version {
            Some(version) if version >= CORRECTED => Merging::Corrected,
            Some(_) => Merging::Older,
            None => {
                return Err(format!(
                    "{} merges patches in a way that differs before and after MONAI 1.5, and metadata.json has no monai_version",
                    c.key()
                ));
            }
        },
        (other, _) => return Err(format!("{}::downsample is {}", c.key(), shown(other))),
    };
    c.only("use_hyena", &[json!(false)])?;
    c.only("hyena_stages", &[])?;
    let norm = norm(
        c,
        "norm_name",
        Norm::Instance {
            epsilon: 1e-5,
            affine: false,
        },
    )?;
    let swin = Swin {
        inputs,
        width,
        patch,
        window,
        depths,
        heads,
        mlp_ratio: ratio(c)?,
        qkv_bias: c.truth("qkv_bias", true)?,
        patch_norm: c.truth("patch_norm", false)?,
        merging,
        second: c.truth("use_v2", false)?,
        normalize: c.truth("normalize", true)?,
    };
    c.ignore(&[
        "drop_rate",
        "attn_drop_rate",
        "dropout_path_rate",
        "use_checkpoint",
        "use_flash_attention",
    ]);
    let said = match c.get("img_size")? {
        Some(node) => Some(counts_per_axis(&node, axes)?),
        None => None,
    };
    let Some(size) = example.map(<[usize]>::to_vec).or(said) else {
        return Err(format!(
            "{} needs to know the size of its input: neither the inferer's roi_size nor metadata.json says it",
            c.key()
        ));
    };
    if size.len() != axes || size.iter().any(|n| n % 32 != 0 || !(32..=1024).contains(n)) {
        return Err(format!(
            "{} cannot take images of {size:?}: sizes must be multiples of 32",
            c.key()
        ));
    }
    let mut b = Builder::new(inputs, axes);
    let hidden = swin.add(&mut b, &size);
    let three = Window::three(axes);
    let encode = |b: &mut Builder, from: usize, n: usize, channels: [usize; 2]| {
        let name = format!("encoder{n}.layer");
        unet_block(b, from, &name, channels, &three, &norm, &Act::LEAKY, true)
    };
    let f = width;
    let mut skips = vec![encode(&mut b, 0, 1, [inputs, f])];
    for (n, factor) in [(2, 1), (3, 2), (4, 4)] {
        skips.push(encode(&mut b, hidden[n - 2], n, [factor * f, factor * f]));
    }
    skips.push(hidden[3]);
    let mut value = encode(&mut b, hidden[4], 10, [16 * f, 16 * f]);
    for (n, [from, to]) in [
        (5, [16, 8]),
        (4, [8, 4]),
        (3, [4, 2]),
        (2, [2, 1]),
        (1, [1, 1]),
    ] {
        let name = format!("decoder{n}");
        let channels = [from * f, to * f];
        value = unetr_up(&mut b, value, skips[n - 1], &name, channels, &norm, true);
    }
    let one = Window::one(axes);
    let value = convolution(&mut b, value, "out.conv", [f, outputs], &one, true, None);
    Ok(Network {
        class: "SwinUNETR".to_owned(),
        built: b.finish(value),
        axes,
        inputs,
        outputs,
        classifier: false,
        size: Some(size),
        divisor: vec![32; axes],
    })
}

fn ratio(c: &Component<'_>) -> Result<f64, String> {
    let ratio = c.number("mlp_ratio")?.unwrap_or(4.0);
    if (0.1..=64.0).contains(&ratio) {
        Ok(ratio)
    } else {
        Err(format!("{}::mlp_ratio is {ratio}", c.key()))
    }
}
