//! Blocks that several of MONAI's networks share.

use super::build::{Builder, Window};
use super::layers::{Act, Norm};

/// What stands in the blocks of one network.
#[derive(Clone, Debug)]
pub struct Style {
    pub norm: Norm,
    pub act: Act,
    pub bias: bool,
    /// Order of norm, dropout and activation, e.g. `NDA`.
    pub order: String,
}

impl Style {
    /// Norm, dropout, activation.
    pub fn nda(norm: Norm, act: Act, bias: bool) -> Self {
        let order = "NDA".to_owned();
        Self {
            norm,
            act,
            bias,
            order,
        }
    }
}

/// `ADN` behind a `Convolution`.
fn adn(b: &mut Builder, mut value: usize, name: &str, channels: usize, style: &Style) -> usize {
    for letter in style.order.chars() {
        value = match letter {
            'N' => b.norm(value, &format!("{name}.adn.N"), channels, &style.norm),
            'A' => b.act(value, &format!("{name}.adn.A"), &style.act),
            _ => value,
        };
    }
    value
}

/// `Convolution`; only the convolution itself where `style` is none.
pub fn convolution(
    b: &mut Builder,
    from: usize,
    name: &str,
    channels: [usize; 2],
    window: &Window,
    bias: bool,
    style: Option<&Style>,
) -> usize {
    let value = b.conv(from, &format!("{name}.conv"), channels, window, bias);
    match style {
        None => value,
        Some(style) => adn(b, value, name, channels[1], style),
    }
}

/// `Convolution` with `is_transposed`.
pub fn transposed(
    b: &mut Builder,
    from: usize,
    name: &str,
    channels: [usize; 2],
    window: &Window,
    output_padding: Vec<usize>,
    bias: bool,
    style: Option<&Style>,
) -> usize {
    let conv = format!("{name}.conv");
    let value = b.transposed(from, &conv, channels, window, output_padding, bias, 1);
    match style {
        None => value,
        Some(style) => adn(b, value, name, channels[1], style),
    }
}

/// `ResidualUnit`.
pub fn residual_unit(
    b: &mut Builder,
    from: usize,
    name: &str,
    [inputs, outputs]: [usize; 2],
    kernel: &[usize],
    stride: &[usize],
    subunits: usize,
    style: &Style,
    last_conv_only: bool,
) -> usize {
    let ones = vec![1; b.axes];
    let mut value = from;
    for unit in 0..subunits.max(1) {
        let (channels, stride) = if unit == 0 {
            ([inputs, outputs], stride)
        } else {
            ([outputs, outputs], ones.as_slice())
        };
        let only = last_conv_only && unit + 1 == subunits.max(1);
        value = convolution(
            b,
            value,
            &format!("{name}.conv.unit{unit}"),
            channels,
            &Window::same(kernel, stride),
            style.bias,
            (!only).then_some(style),
        );
    }
    let strided = stride.iter().any(|s| *s != 1);
    let mut skip = from;
    if strided || inputs != outputs {
        // Without a stride only the number of channels changes.
        let window = Window::same(if strided { kernel } else { &ones }, stride);
        let residual = format!("{name}.residual");
        skip = b.conv(from, &residual, [inputs, outputs], &window, style.bias);
    }
    b.add(value, skip)
}

/// `UnetResBlock` or `UnetBasicBlock`.
pub fn unet_block(
    b: &mut Builder,
    from: usize,
    name: &str,
    [inputs, outputs]: [usize; 2],
    window: &Window,
    norm: &Norm,
    act: &Act,
    residual: bool,
) -> usize {
    let ones = vec![1; b.axes];
    let second = Window {
        padding: window.kernel.iter().map(|k| [k / 2; 2]).collect(),
        ..Window::same(&window.kernel, &ones)
    };
    let lrelu = format!("{name}.lrelu");
    let conv = |n: usize| format!("{name}.conv{n}.conv");
    let mut value = b.conv(from, &conv(1), [inputs, outputs], window, false);
    value = b.norm(value, &format!("{name}.norm1"), outputs, norm);
    value = b.act(value, &lrelu, act);
    value = b.conv(value, &conv(2), [outputs, outputs], &second, false);
    value = b.norm(value, &format!("{name}.norm2"), outputs, norm);
    if residual {
        let mut skip = from;
        if inputs != outputs || window.stride.iter().any(|s| *s != 1) {
            let one = Window::same(&ones, &window.stride);
            skip = b.conv(from, &conv(3), [inputs, outputs], &one, false);
            skip = b.norm(skip, &format!("{name}.norm3"), outputs, norm);
        }
        value = b.add(value, skip);
    }
    b.act(value, &lrelu, act)
}

/// `UnetrUpBlock`: twice the size, joined with a skip.
pub fn unetr_up(
    b: &mut Builder,
    from: usize,
    skip: usize,
    name: &str,
    [inputs, outputs]: [usize; 2],
    norm: &Norm,
    residual: bool,
) -> usize {
    let up = double(b, from, &format!("{name}.transp_conv"), [inputs, outputs]);
    let joined = b.concat(&[up, skip]);
    let window = Window::three(b.axes);
    unet_block(
        b,
        joined,
        &format!("{name}.conv_block"),
        [2 * outputs, outputs],
        &window,
        norm,
        &Act::LEAKY,
        residual,
    )
}

/// A transposed convolution of kernel and stride 2, without bias.
pub fn double(b: &mut Builder, from: usize, name: &str, channels: [usize; 2]) -> usize {
    let two = vec![2; b.axes];
    let window = Window {
        padding: vec![[0; 2]; b.axes],
        ..Window::same(&two, &two)
    };
    let none = vec![0; b.axes];
    transposed(b, from, name, channels, &window, none, false, None)
}
