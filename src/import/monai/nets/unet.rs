//! `UNet`: residual units down and up, skips by concatenation.
//!
//! # Source
//! Kerfoot et al., "Left-ventricle quantification using residual U-Net", 2018; MONAI's `UNet`.

use super::super::config::{Component, Node, counts, counts_per_axis, shown};
use super::blocks::{Style, convolution, residual_unit, transposed};
use super::build::{Builder, Window, plausible};
use super::layers::{Act, Norm, act, norm};
use super::{Network, axes_of, channels};

struct Plan {
    channels: Vec<usize>,
    strides: Vec<Vec<usize>>,
    kernel: Vec<usize>,
    up_kernel: Vec<usize>,
    units: usize,
    style: Style,
}

pub fn network(c: &Component<'_>) -> Result<Network, String> {
    let axes = axes_of(c, None)?;
    let (inputs, outputs) = (
        channels(c, "in_channels", None)?,
        channels(c, "out_channels", None)?,
    );
    let features = counts(&c.needed("channels")?)?;
    for n in &features {
        plausible(c, "channels", *n)?;
    }
    let strides = strides(&c.needed("strides")?, axes)?;
    if !(2..=16).contains(&features.len()) || strides.len() + 1 < features.len() {
        return Err(format!(
            "{} has {} channels and {} strides",
            c.key(),
            features.len(),
            strides.len()
        ));
    }
    let kernel = |name: &str| -> Result<Vec<usize>, String> {
        let kernel = match c.get(name)? {
            Some(node) => counts_per_axis(&node, axes)?,
            None => vec![3; axes],
        };
        if kernel.iter().any(|k| k % 2 == 0 || *k > 31) {
            return Err(format!(
                "{}::{name} is {kernel:?}, expected odd sizes",
                c.key()
            ));
        }
        Ok(kernel)
    };
    let order = c.text("adn_ordering", "NDA")?.to_uppercase();
    if order.chars().any(|l| !"NDA".contains(l)) {
        return Err(format!("{}::adn_ordering is {}", c.key(), shown(&order)));
    }
    let instance = Norm::Instance {
        epsilon: 1e-5,
        affine: false,
    };
    let plan = Plan {
        kernel: kernel("kernel_size")?,
        up_kernel: kernel("up_kernel_size")?,
        units: c.count("num_res_units", 0)?.min(64),
        style: Style {
            norm: norm(c, "norm", instance)?,
            act: act(c, "act", Act::PRelu { parameters: 1 })?,
            bias: c.truth("bias", true)?,
            order,
        },
        channels: features,
        strides,
    };
    c.ignore(&["dropout"]);
    let mut b = Builder::new(inputs, axes);
    let result = level(&mut b, &plan, 0, "model", 0, [inputs, outputs]);
    let divisor = (0..axes)
        .map(|a| {
            let used = &plan.strides[..plan.channels.len() - 1];
            used.iter().map(|s| s[a]).product()
        })
        .collect();
    Ok(Network {
        class: "UNet".to_owned(),
        built: b.finish(result),
        axes,
        inputs,
        outputs,
        classifier: false,
        size: None,
        divisor,
    })
}

/// One stride for all axes or one for each, for every level.
fn strides(node: &Node<'_>, axes: usize) -> Result<Vec<Vec<usize>>, String> {
    let items = node.items()?;
    let all = items.iter().map(|item| counts_per_axis(item, axes));
    let all = all.collect::<Result<Vec<_>, _>>()?;
    if all.iter().flatten().any(|s| !(1..=16).contains(s)) {
        return Err(format!("{} is {all:?}", node.key()));
    }
    Ok(all)
}

/// `_create_block`: down, what lies below, and up again.
fn level(
    b: &mut Builder,
    plan: &Plan,
    from: usize,
    name: &str,
    depth: usize,
    [inputs, outputs]: [usize; 2],
) -> usize {
    let (here, below) = (plan.channels[depth], plan.channels[depth + 1]);
    let stride = &plan.strides[depth];
    let top = depth == 0;
    let down = down(b, plan, from, &format!("{name}.0"), [inputs, here], stride);
    let inner = format!("{name}.1.submodule");
    let (deep, width) = if depth + 2 < plan.channels.len() {
        let value = level(b, plan, down, &inner, depth + 1, [here, here]);
        (value, 2 * here)
    } else {
        let ones = vec![1; b.axes];
        let value = self::down(b, plan, down, &inner, [here, below], &ones);
        (value, here + below)
    };
    let joined = b.concat(&[down, deep]);
    let residual = plan.units > 0;
    let up = format!("{name}.2{}", if residual { ".0" } else { "" });
    let value = transposed(
        b,
        joined,
        &up,
        [width, outputs],
        &Window::same(&plan.up_kernel, stride),
        stride.iter().map(|s| s - 1).collect(),
        plan.style.bias,
        (residual || !top).then_some(&plan.style),
    );
    if !residual {
        return value;
    }
    let ones = vec![1; b.axes];
    residual_unit(
        b,
        value,
        &format!("{name}.2.1"),
        [outputs, outputs],
        &plan.kernel,
        &ones,
        1,
        &plan.style,
        top,
    )
}

/// `_get_down_layer`.
fn down(
    b: &mut Builder,
    plan: &Plan,
    from: usize,
    name: &str,
    channels: [usize; 2],
    stride: &[usize],
) -> usize {
    let style = &plan.style;
    if plan.units > 0 {
        return residual_unit(
            b,
            from,
            name,
            channels,
            &plan.kernel,
            stride,
            plan.units,
            style,
            false,
        );
    }
    let window = Window::same(&plan.kernel, stride);
    convolution(b, from, name, channels, &window, style.bias, Some(style))
}
