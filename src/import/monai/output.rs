//! `inferer` and `postprocessing`: how the network is moved, and how its output becomes labels.

use serde_json::json;

use super::config::{Component, Node, counts_per_axis, per_axis, shown};
use super::transforms::{for_key, keys, plain_name};
use crate::model::monai::{
    Activation, KeepLargest, MonaiDecision, MonaiOutput, MonaiTransform, MonaiWindows, Padding,
};

/// An inferer's windows, and whether it takes slices out of volumes.
///
/// `axes`: the network's.
///
/// # Errors
/// Inferers and arguments that are not known, by name.
pub fn windows(c: &Component<'_>, axes: usize) -> Result<(MonaiWindows, bool), String> {
    let whole = MonaiWindows {
        roi_size: [0; 3],
        overlap: [0.0; 3],
        gaussian: None,
        padding: Padding::Constant(0.0),
    };
    let slices = match c.name.as_str() {
        "SimpleInferer" => {
            c.finish()?;
            let mut windows = whole;
            if axes == 2 {
                windows.roi_size[2] = 1;
            }
            return Ok((windows, false));
        }
        "SlidingWindowInferer" => false,
        "SliceInferer" if axes == 2 => {
            c.only("spatial_dim", &[json!(2)])?;
            true
        }
        other => {
            return Err(format!(
                "{} is the inferer {}, which is not known (known: SlidingWindowInferer, SimpleInferer)",
                c.key(),
                shown(other)
            ));
        }
    };
    let roi = c.needed("roi_size")?;
    // −1 takes the whole axis.
    let sizes = per_axis(&roi, axes)?;
    let mut roi_size = [0, 0, usize::from(axes == 2)];
    for (to, size) in roi_size.iter_mut().zip(sizes) {
        *to = match size {
            v if v <= 0.0 => 0,
            v if v.fract() == 0.0 && v <= 4096.0 => v as usize,
            v => return Err(format!("{} has {v}", roi.key())),
        };
    }
    let mut overlap = [0.0; 3];
    let given = c.per_axis("overlap", axes)?.unwrap_or(vec![0.25; axes]);
    overlap[..axes].copy_from_slice(&given);
    if overlap.iter().any(|o| !(0.0..1.0).contains(o)) {
        return Err(format!("{}::overlap is {given:?}", c.key()));
    }
    let gaussian = match c.text("mode", "constant")?.as_str() {
        "constant" => None,
        "gaussian" => Some(c.number("sigma_scale")?.unwrap_or(0.125)),
        other => return Err(format!("{}::mode is {}", c.key(), shown(other))),
    };
    let padding = match c.text("padding_mode", "constant")?.as_str() {
        "constant" => Padding::Constant(c.number("cval")?.unwrap_or(0.0) as f32),
        "reflect" => Padding::Reflect,
        "replicate" => Padding::Replicate,
        "circular" => Padding::Circular,
        other => return Err(format!("{}::padding_mode is {}", c.key(), shown(other))),
    };
    c.ignore(&[
        "sigma_scale",
        "cval",
        "sw_batch_size",
        "sw_device",
        "device",
        "progress",
        "cache_roi_weight_map",
        "cpu_thresh",
        "buffer_steps",
        "buffer_dim",
        "with_coord",
    ]);
    c.only("with_coord", &[json!(false)])?;
    c.finish()?;
    let windows = MonaiWindows {
        roi_size,
        overlap,
        gaussian,
        padding,
    };
    Ok((windows, slices))
}

/// What `postprocessing` did so far.
#[derive(Default)]
struct Post {
    activation: Option<Activation>,
    /// Activated after the way back.
    activated_late: bool,
    threshold: Option<f64>,
    argmax: bool,
    /// Way back: linear or not, and whether labels were decided before it.
    inverted: Option<(bool, bool)>,
    keep_largest: Option<KeepLargest>,
    /// Before the way back.
    kept_early: bool,
}

/// From the network's output to labels.
///
/// `heads`: values for each voxel; `image`: the image's name in the dictionary; `done`: what came before.
///
/// # Errors
/// Transforms that are not known, and orders that cannot be followed, by name.
pub fn output(
    list: &[Component<'_>],
    heads: usize,
    image: &str,
    done: &[MonaiTransform],
) -> Result<MonaiOutput, String> {
    let mut post = Post::default();
    for c in list {
        let name = plain_name(&c.name).map_err(|what| format!("{}: {what}", c.key()))?;
        let keys = keys(c)?;
        let Some(at) = keys.iter().position(|key| key == "pred") else {
            continue;
        };
        post.read(c, name, at, keys.len(), image, heads)?;
        c.finish()?;
    }
    let resampled = done.iter().any(|t| {
        matches!(
            t,
            MonaiTransform::Spacing { .. } | MonaiTransform::Resize { .. }
        )
    });
    let cropped = done.iter().any(|t| {
        matches!(
            t,
            MonaiTransform::CropForeground { .. }
                | MonaiTransform::SpatialPad { .. }
                | MonaiTransform::DivisiblePad { .. }
        )
    });
    let linear = match post.inverted {
        None if resampled || cropped => {
            return Err(
                "postprocessing has no Invertd, so the result stays on the network's grid"
                    .to_owned(),
            );
        }
        None => false,
        Some((true, true)) if resampled => {
            return Err("postprocessing interpolates labels between voxels (Invertd after AsDiscreted with nearest_interp false)".to_owned());
        }
        Some((linear, _)) => linear && resampled,
    };
    if post.kept_early && resampled {
        return Err(
            "postprocessing keeps the largest parts before Invertd, on another grid".to_owned(),
        );
    }
    let activation = post.activation.unwrap_or_default();
    let decision = match (post.argmax, post.threshold) {
        (true, _) if heads >= 2 => {
            if heads > 256 {
                return Err(format!(
                    "the network has {heads} outputs, at most 256 are supported"
                ));
            }
            MonaiDecision::Argmax { classes: heads }
        }
        (false, Some(threshold)) if heads < 256 => {
            let mut threshold = threshold as f32;
            if post.activated_late && activation == Activation::Sigmoid {
                if cropped && threshold <= 0.5 {
                    return Err("postprocessing takes the sigmoid of what Invertd put around the cropped image (0, so 0.5)".to_owned());
                }
                threshold = (threshold / (1.0 - threshold)).ln();
            }
            if !threshold.is_finite() {
                return Err(format!("postprocessing has the threshold {threshold}"));
            }
            MonaiDecision::Threshold {
                order: (1..=heads).map(|n| n as u8).collect(),
                threshold,
            }
        }
        _ => {
            return Err(format!(
                "postprocessing does not say how {heads} outputs become labels (AsDiscreted with argmax or a threshold)"
            ));
        }
    };
    if post.activated_late
        && activation == Activation::Softmax
        && !matches!(decision, MonaiDecision::Argmax { .. })
    {
        return Err("postprocessing takes a softmax after Invertd and then a threshold".to_owned());
    }
    Ok(MonaiOutput {
        // The largest value is the same before and after; so is what reaches a moved threshold.
        activation: if post.activated_late {
            Activation::None
        } else {
            activation
        },
        decision,
        linear,
        keep_largest: post.keep_largest,
    })
}

impl Post {
    fn read(
        &mut self,
        c: &Component<'_>,
        name: &str,
        at: usize,
        count: usize,
        image: &str,
        heads: usize,
    ) -> Result<(), String> {
        let truth = |name: &str, default: bool| -> Result<bool, String> {
            for_key(c, name, at, count)?.map_or(Ok(default), |node| node.truth())
        };
        let decided = self.argmax || self.threshold.is_some();
        match name {
            "Activations" => {
                c.only("other", &[])?;
                c.ignore(&["dim", "kind"]);
                c.only("dim", &[json!(0)])?;
                let activation = match (truth("softmax", false)?, truth("sigmoid", false)?) {
                    (true, false) => Activation::Softmax,
                    (false, true) => Activation::Sigmoid,
                    (false, false) => Activation::None,
                    (true, true) => return Err(format!("{} asks for two", c.key())),
                };
                if decided || self.activation.is_some() {
                    return Err(format!("{} comes too late", c.key()));
                }
                self.activation = Some(activation);
                self.activated_late = self.inverted.is_some();
            }
            "AsDiscrete" => {
                c.only("to_onehot", &[])?;
                c.only("rounding", &[])?;
                c.ignore(&["dim", "keepdim", "dtype", "kind"]);
                c.only("dim", &[json!(0)])?;
                c.only("keepdim", &[json!(true)])?;
                let argmax = truth("argmax", false)?;
                let threshold = for_key(c, "threshold", at, count)?;
                let older = truth("threshold_values", false)?;
                let threshold = match (threshold, older) {
                    (Some(node), _) => Some(node.number()?),
                    (None, true) => Some(c.number("logit_thresh")?.unwrap_or(0.5)),
                    (None, false) => None,
                };
                if decided || argmax == threshold.is_some() {
                    return Err(format!("{} is not one decision", c.key()));
                }
                (self.argmax, self.threshold) = (argmax, threshold);
            }
            "Invert" => {
                if let Some(orig) = c.get("orig_keys")? {
                    let orig = if orig.is_list() {
                        orig.items()?
                            .iter()
                            .map(Node::text)
                            .collect::<Result<_, _>>()?
                    } else {
                        vec![orig.text()?]
                    };
                    if !orig.iter().any(|key| key == image) {
                        return Err(format!("{}::orig_keys are {orig:?}", c.key()));
                    }
                }
                c.only("post_func", &[])?;
                c.ignore(&[
                    "transform",
                    "meta_keys",
                    "orig_meta_keys",
                    "meta_key_postfix",
                    "to_tensor",
                    "device",
                ]);
                if self.inverted.is_some() {
                    return Err(format!("{} is a second Invertd", c.key()));
                }
                self.inverted = Some((!truth("nearest_interp", true)?, decided));
            }
            "KeepLargestConnectedComponent" => {
                if !decided || (heads > 1 && !self.argmax) {
                    return Err(format!("{} does not see labels", c.key()));
                }
                if self.keep_largest.is_some() {
                    return Err(format!("{} is a second one", c.key()));
                }
                c.only("is_onehot", &[json!(false)])?;
                c.only("connectivity", &[json!(3)])?;
                c.only("num_components", &[json!(1)])?;
                let labels = match c.get("applied_labels")? {
                    None => Vec::new(),
                    Some(node) => {
                        let count = if node.is_list() {
                            node.items()?.len()
                        } else {
                            1
                        };
                        let all = counts_per_axis(&node, count)?;
                        let bytes = all.iter().map(|n| u8::try_from(*n));
                        bytes
                            .collect::<Result<_, _>>()
                            .map_err(|_| format!("{} has labels above 255", node.key()))?
                    }
                };
                self.kept_early = self.inverted.is_none();
                self.keep_largest = Some(KeepLargest {
                    labels,
                    independent: truth("independent", true)?,
                });
            }
            "EnsureType" | "ToTensor" | "ToDevice" | "Identity" | "CastToType" => {
                c.ignore(&[
                    "data_type",
                    "device",
                    "dtype",
                    "wrap_sequence",
                    "track_meta",
                ]);
            }
            // The result goes to the program, not to a file.
            "SaveImage" => c.ignore(&[
                "meta_keys",
                "meta_key_postfix",
                "output_dir",
                "output_postfix",
                "output_ext",
                "resample",
                "mode",
                "padding_mode",
                "scale",
                "dtype",
                "output_dtype",
                "squeeze_end_dims",
                "data_root_dir",
                "separate_folder",
                "print_log",
                "output_format",
                "writer",
                "folder_layout",
                "output_name_formatter",
                "savepath_in_metadict",
                "align_corners",
            ]),
            other => {
                return Err(format!(
                    "{} is the transform {}d, which is not known",
                    c.key(),
                    shown(other)
                ));
            }
        }
        Ok(())
    }
}
