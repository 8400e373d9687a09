//! `BasicUNet`: five levels with max pooling.
//!
//! # Source
//! Falk et al., "U-Net: deep learning for cell counting, detection, and morphometry", 2019.

use super::super::config::{Component, counts, shown};
use super::blocks::{Style, convolution};
use super::build::{Builder, Window, plausible};
use super::layers::{Act, Norm, act, norm};
use super::{Network, axes_of, channels};
use crate::model::graph::Op;

pub fn network(c: &Component<'_>) -> Result<Network, String> {
    let axes = axes_of(c, Some(3))?;
    let inputs = channels(c, "in_channels", Some(1))?;
    let outputs = channels(c, "out_channels", Some(2))?;
    let f = match c.get("features")? {
        Some(node) => counts(&node)?,
        None => vec![32, 32, 64, 128, 256, 32],
    };
    if f.len() != 6 {
        return Err(format!(
            "{}::features has {} numbers, expected 6",
            c.key(),
            f.len()
        ));
    }
    for n in &f {
        plausible(c, "features", *n)?;
    }
    let upsample = c.text("upsample", "deconv")?;
    let transposed = match upsample.as_str() {
        "deconv" => true,
        "nontrainable" => false,
        other => return Err(format!("{}::upsample is {}", c.key(), shown(other))),
    };
    let instance = Norm::Instance {
        epsilon: 1e-5,
        affine: true,
    };
    let style = Style::nda(
        norm(c, "norm", instance)?,
        act(c, "act", Act::LeakyRelu { slope: 0.1 })?,
        c.truth("bias", true)?,
    );
    c.ignore(&["dropout"]);
    let mut b = Builder::new(inputs, axes);
    let two = |b: &mut Builder, mut value: usize, name: &str, [from, to]: [usize; 2]| {
        for (n, channels) in [[from, to], [to, to]].into_iter().enumerate() {
            let name = format!("{name}.conv_{n}");
            let window = Window::three(b.axes);
            value = convolution(b, value, &name, channels, &window, style.bias, Some(&style));
        }
        value
    };
    let mut levels = vec![two(&mut b, 0, "conv_0", [inputs, f[0]])];
    for n in 1..5 {
        let pool = b.pool(2, 2, 0);
        let pooled = b.push(Op::MaxPool(pool), &[levels[n - 1]]);
        levels.push(two(
            &mut b,
            pooled,
            &format!("down_{n}.convs"),
            [f[n - 1], f[n]],
        ));
    }
    let mut value = levels[4];
    for n in (1..5).rev() {
        let name = format!("upcat_{n}");
        let (below, here) = (f[n], f[n - 1]);
        let up = if n == 1 { below } else { below / 2 };
        if transposed {
            let window = Window {
                padding: vec![[0; 2]; axes],
                ..Window::same(&vec![2; axes], &vec![2; axes])
            };
            let name = format!("{name}.upsample.deconv");
            value = b.transposed(value, &name, [below, up], &window, vec![0; axes], true, 1);
        } else {
            if up != below {
                let name = format!("{name}.upsample.preconv");
                value = b.conv(value, &name, [below, up], &Window::one(axes), true);
            }
            value = b.double(value, true);
        }
        // Odd sizes would be padded by repetition: such grids do not fit the graph and are refused.
        value = b.concat(&[levels[n - 1], value]);
        let out = if n == 1 { f[5] } else { here };
        value = two(&mut b, value, &format!("{name}.convs"), [here + up, out]);
    }
    let value = b.conv(
        value,
        "final_conv",
        [f[5], outputs],
        &Window::one(axes),
        true,
    );
    Ok(Network {
        class: "BasicUNet".to_owned(),
        built: b.finish(value),
        axes,
        inputs,
        outputs,
        classifier: false,
        size: None,
        divisor: vec![16; axes],
    })
}
