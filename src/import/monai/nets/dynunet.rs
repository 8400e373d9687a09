//! `DynUNet`: nnU-Net's shape with kernels and strides of each level given.
//!
//! # Source
//! Isensee et al., "Automated design of deep learning methods for biomedical image segmentation", 2019.

use super::super::config::{Component, counts, counts_per_axis};
use super::blocks::{convolution, transposed, unet_block};
use super::build::{Builder, Window, plausible};
use super::layers::{Act, Norm, act, norm};
use super::{Network, axes_of, channels};

pub fn network(c: &Component<'_>) -> Result<Network, String> {
    let axes = axes_of(c, None)?;
    let inputs = channels(c, "in_channels", None)?;
    let outputs = channels(c, "out_channels", None)?;
    let list = |name: &str| -> Result<Vec<Vec<usize>>, String> {
        let node = c.needed(name)?;
        let items = node.items()?;
        let all = items.iter().map(|item| counts_per_axis(item, axes));
        let all = all.collect::<Result<Vec<_>, _>>()?;
        if all.iter().flatten().any(|n| !(1..=31).contains(n)) {
            return Err(format!("{} is {all:?}", node.key()));
        }
        Ok(all)
    };
    let (kernels, strides) = (list("kernel_size")?, list("strides")?);
    let up_kernels = list("upsample_kernel_size")?;
    let stages = strides.len();
    if !(3..=16).contains(&stages) || kernels.len() != stages || up_kernels.len() + 1 != stages {
        return Err(format!(
            "{} has {} kernels, {stages} strides and {} kernels for the way up",
            c.key(),
            kernels.len(),
            up_kernels.len()
        ));
    }
    let filters = match c.get("filters")? {
        Some(node) => counts(&node)?,
        None => (0..stages)
            .map(|i| (1 << (5 + i)).min(if axes == 3 { 320 } else { 512 }))
            .collect(),
    };
    if filters.len() < stages {
        return Err(format!(
            "{}::filters has {} numbers",
            c.key(),
            filters.len()
        ));
    }
    for n in &filters {
        plausible(c, "filters", *n)?;
    }
    let instance = Norm::Instance {
        epsilon: 1e-5,
        affine: true,
    };
    let norm = norm(c, "norm_name", instance)?;
    let act = act(c, "act_name", Act::LEAKY)?;
    let residual = c.truth("res_block", false)?;
    let bias = c.truth("trans_bias", false)?;
    c.ignore(&["dropout", "deep_supervision", "deep_supr_num"]);
    let padded = |kernel: &[usize], stride: &[usize]| -> Result<Window, String> {
        let padding = kernel.iter().zip(stride).map(|(k, s)| {
            let twice = (k + 1).checked_sub(*s);
            twice.map(|p| [p / 2; 2])
        });
        let padding = padding.collect::<Option<Vec<_>>>();
        Ok(Window {
            padding: padding.ok_or(format!("{}: stride {stride:?} of {kernel:?}", c.key()))?,
            ..Window::same(kernel, stride)
        })
    };
    let mut b = Builder::new(inputs, axes);
    let mut skips = Vec::new();
    let (mut value, mut width) = (0, inputs);
    for stage in 0..stages {
        let name = match stage {
            0 => "input_block".to_owned(),
            _ if stage + 1 == stages => "bottleneck".to_owned(),
            _ => format!("downsamples.{}", stage - 1),
        };
        let window = padded(&kernels[stage], &strides[stage])?;
        let channels = [width, filters[stage]];
        value = unet_block(
            &mut b, value, &name, channels, &window, &norm, &act, residual,
        );
        width = filters[stage];
        skips.push(value);
    }
    let ones = vec![1; axes];
    for (n, here) in (0..stages - 1).rev().enumerate() {
        let name = format!("upsamples.{n}");
        let up = &up_kernels[here];
        let window = padded(up, up)?;
        // Kernel and stride are the same, so nothing is added behind.
        let added = up
            .iter()
            .zip(&window.padding)
            .map(|(_, p)| 2 * p[0])
            .collect();
        let channels = [filters[here + 1], filters[here]];
        let conv = format!("{name}.transp_conv");
        value = transposed(&mut b, value, &conv, channels, &window, added, bias, None);
        value = b.concat(&[value, skips[here]]);
        // The block behind it takes the kernel of the level below.
        let window = padded(&kernels[here + 1], &ones)?;
        let channels = [2 * filters[here], filters[here]];
        let block = format!("{name}.conv_block");
        value = unet_block(&mut b, value, &block, channels, &window, &norm, &act, false);
    }
    let channels = [filters[0], outputs];
    let one = Window::one(axes);
    let value = convolution(
        &mut b,
        value,
        "output_block.conv",
        channels,
        &one,
        true,
        None,
    );
    b.built.spare.push("deep_supervision_heads.".to_owned());
    // The same modules again, and supervision heads among them.
    b.built.again.push("skip_layers.".to_owned());
    let divisor = (0..axes)
        .map(|a| strides.iter().map(|s| s[a]).product())
        .collect();
    Ok(Network {
        class: "DynUNet".to_owned(),
        built: b.finish(value),
        axes,
        inputs,
        outputs,
        classifier: false,
        size: None,
        divisor,
    })
}
