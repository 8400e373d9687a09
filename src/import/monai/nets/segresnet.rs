//! `SegResNet`: residual blocks with norms before convolutions; without its variational branch.
//!
//! # Source
//! Myronenko, "3D MRI brain tumor segmentation using autoencoder regularization", 2018.

use super::super::config::{Component, counts, shown};
use super::build::{Builder, Window};
use super::layers::{Act, Norm, act, norm};
use super::{Network, axes_of, channels};

struct Block<'a> {
    norm: &'a Norm,
    act: &'a Act,
}

impl Block<'_> {
    /// `ResBlock`.
    fn add(&self, b: &mut Builder, from: usize, name: &str, width: usize) -> usize {
        let window = Window::three(b.axes);
        let mut value = from;
        for n in [1, 2] {
            value = b.norm(value, &format!("{name}.norm{n}"), width, self.norm);
            value = b.act(value, &format!("{name}.act"), self.act);
            let conv = format!("{name}.conv{n}.conv");
            value = b.conv(value, &conv, [width, width], &window, false);
        }
        b.add(value, from)
    }
}

pub fn network(c: &Component<'_>) -> Result<Network, String> {
    let axes = axes_of(c, Some(3))?;
    let filters = channels(c, "init_filters", Some(8))?;
    let inputs = channels(c, "in_channels", Some(1))?;
    let outputs = channels(c, "out_channels", Some(2))?;
    let group = |groups| Norm::Group {
        groups,
        epsilon: 1e-5,
        affine: true,
    };
    let mut norm = norm(c, "norm", group(8))?;
    let groups = c.count("num_groups", 8)?;
    let older = c.text("norm_name", "")?;
    if !older.is_empty() {
        if older.to_lowercase() != "group" {
            return Err(format!("{}::norm_name is {}", c.key(), shown(&older)));
        }
        norm = group(groups);
    }
    let act = act(c, "act", Act::Relu)?;
    let blocks = |name: &str, default: &[usize]| -> Result<Vec<usize>, String> {
        let list = match c.get(name)? {
            Some(node) => counts(&node)?,
            None => default.to_vec(),
        };
        if list.is_empty() || list.len() > 8 || list.iter().any(|n| *n > 64) {
            return Err(format!("{}::{name} is {list:?}", c.key()));
        }
        Ok(list)
    };
    let down = blocks("blocks_down", &[1, 2, 2, 4])?;
    let up = blocks("blocks_up", &[1, 1, 1])?;
    if up.len() + 1 != down.len() {
        return Err(format!(
            "{} has {} levels down and {} up",
            c.key(),
            down.len(),
            up.len()
        ));
    }
    let mode = c.text("upsample_mode", "nontrainable")?;
    if !matches!(mode.as_str(), "nontrainable" | "deconv") {
        return Err(format!("{}::upsample_mode is {}", c.key(), shown(&mode)));
    }
    if !c.truth("use_conv_final", true)? {
        return Err(format!("{}::use_conv_final is false", c.key()));
    }
    c.ignore(&["dropout_prob"]);
    let mut b = Builder::new(inputs, axes);
    let block = Block {
        norm: &norm,
        act: &act,
    };
    let mut value = b.conv(
        0,
        "convInit.conv",
        [inputs, filters],
        &Window::three(axes),
        false,
    );
    let mut skips = Vec::new();
    for (level, count) in down.iter().enumerate() {
        let width = filters << level;
        let name = format!("down_layers.{level}");
        if level > 0 {
            let window = Window::same(&vec![3; axes], &vec![2; axes]);
            let conv = format!("{name}.0.conv");
            value = b.conv(value, &conv, [width / 2, width], &window, false);
        }
        for n in 0..*count {
            value = block.add(&mut b, value, &format!("{name}.{}", n + 1), width);
        }
        skips.push(value);
    }
    for (n, count) in up.iter().enumerate() {
        let level = up.len() - n;
        let (below, width) = (filters << level, filters << (level - 1));
        let sample = format!("up_samples.{n}");
        let conv = format!("{sample}.0.conv");
        value = b.conv(value, &conv, [below, width], &Window::one(axes), false);
        if mode == "deconv" {
            let window = Window {
                padding: vec![[0; 2]; axes],
                ..Window::same(&vec![2; axes], &vec![2; axes])
            };
            let name = format!("{sample}.1.deconv");
            value = b.transposed(
                value,
                &name,
                [width, width],
                &window,
                vec![0; axes],
                true,
                1,
            );
        } else {
            value = b.double(value, false);
        }
        value = b.add(value, skips[level - 1]);
        for m in 0..*count {
            value = block.add(&mut b, value, &format!("up_layers.{n}.{m}"), width);
        }
    }
    value = b.norm(value, "conv_final.0", filters, &norm);
    value = b.act(value, "conv_final.1", &act);
    let one = Window::one(axes);
    value = b.conv(value, "conv_final.2.conv", [filters, outputs], &one, true);
    // The final activation once more.
    b.built.again.push("act_mod.".to_owned());
    Ok(Network {
        class: "SegResNet".to_owned(),
        built: b.finish(value),
        axes,
        inputs,
        outputs,
        classifier: false,
        size: None,
        divisor: vec![1 << (down.len() - 1); axes],
    })
}
