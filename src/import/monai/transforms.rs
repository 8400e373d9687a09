//! `preprocessing`: MONAI's dictionary transforms as the program's words.

use serde_json::json;

use super::config::{Component, Node, shown};
use crate::model::monai::MonaiTransform;

/// What stands around the transforms.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Axes that sizes are given for: 2 where images are single slices.
    pub axes: usize,
    /// MONAI's version, where metadata say it.
    pub version: Option<(u32, u32)>,
}

/// What `preprocessing` does, in order.
#[derive(Debug, Default)]
pub struct Preparation {
    /// Name of the image in MONAI's dictionaries, e.g. `image`.
    pub image: String,
    /// Transforms that change something.
    pub transforms: Vec<MonaiTransform>,
}

/// The components of a `Compose`, or of a list; disabled ones are left out.
///
/// # Errors
/// Anything else, by its key.
pub fn components(node: Node<'_>) -> Result<Vec<Component<'_>>, String> {
    let list = if node.is_list() {
        node
    } else {
        let Some(compose) = Component::of(node)? else {
            return Ok(Vec::new());
        };
        if compose.name != "Compose" {
            return Err(format!(
                "{} is {}, expected Compose",
                compose.key(),
                shown(&compose.name)
            ));
        }
        compose.ignore(&[
            "map_items",
            "unpack_items",
            "log_stats",
            "lazy",
            "overrides",
        ]);
        let Some(list) = compose.get("transforms")? else {
            return Ok(Vec::new());
        };
        compose.finish()?;
        list
    };
    let mut found = Vec::new();
    for item in list.items()? {
        found.extend(Component::of(item)?);
    }
    Ok(found)
}

/// The class without the mark of dictionary transforms: `Spacingd`, `SpacingD`, `SpacingDict`.
pub fn plain_name(name: &str) -> Result<&str, String> {
    for end in ["Dict", "d", "D"] {
        if let Some(plain) = name.strip_suffix(end) {
            return Ok(plain);
        }
    }
    Err(format!(
        "the transform {} is not one of dictionaries",
        shown(name)
    ))
}

/// The names in `keys`.
///
/// # Errors
/// When there are none.
pub fn keys(c: &Component<'_>) -> Result<Vec<String>, String> {
    let node = c.needed("keys")?;
    let keys = if node.is_list() {
        node.items()?
            .iter()
            .map(Node::text)
            .collect::<Result<_, _>>()?
    } else {
        vec![node.text()?]
    };
    c.ignore(&["allow_missing_keys"]);
    Ok(keys)
}

/// An argument that may be a list with an entry for each key.
///
/// # Errors
/// A list of another length.
pub fn for_key<'a>(
    c: &Component<'a>,
    name: &str,
    at: usize,
    count: usize,
) -> Result<Option<Node<'a>>, String> {
    let Some(node) = c.get(name)? else {
        return Ok(None);
    };
    if !node.is_list() {
        return Ok(Some(node));
    }
    let items = node.items()?;
    if items.len() != count {
        return Err(format!(
            "{} has {} entries for {count} keys",
            node.key(),
            items.len()
        ));
    }
    Ok(items.into_iter().nth(at).filter(|item| !item.is_null()))
}

/// Reads the list.
///
/// # Errors
/// A transform or argument that is not known, by its name.
pub fn preparation(list: &[Component<'_>], setting: Setting) -> Result<Preparation, String> {
    let mut result = Preparation::default();
    for c in list {
        let name = plain_name(&c.name).map_err(|what| format!("{}: {what}", c.key()))?;
        let keys = keys(c)?;
        if name == "LoadImage" {
            if !result.image.is_empty() {
                return Err(format!("{} loads a second time", c.key()));
            }
            result.image = keys[..].first().cloned().unwrap_or_default();
        }
        let Some(at) = keys.iter().position(|key| *key == result.image) else {
            if result.image.is_empty() {
                return Err(format!("{} stands before LoadImaged", c.key()));
            }
            // It changes something else, such as a label.
            continue;
        };
        let reader = Reader {
            c,
            at,
            count: keys.len(),
            setting,
            image: &result.image,
        };
        let transforms = reader.transform(name)?;
        c.finish()?;
        result.transforms.extend(transforms);
    }
    if result.image.is_empty() {
        return Err("preprocessing has no LoadImaged".to_owned());
    }
    Ok(result)
}

struct Reader<'a> {
    c: &'a Component<'a>,
    /// The image among the keys.
    at: usize,
    count: usize,
    setting: Setting,
    image: &'a str,
}

impl Reader<'_> {
    fn transform(&self, name: &str) -> Result<Option<MonaiTransform>, String> {
        let c = self.c;
        c.ignore(&["lazy"]);
        Ok(match name {
            "LoadImage" => {
                c.ignore(&[
                    "reader",
                    "image_only",
                    "ensure_channel_first",
                    "meta_keys",
                    "meta_key_postfix",
                    "overwriting",
                    "simple_keys",
                    "prune_meta_pattern",
                    "prune_meta_sep",
                ]);
                self.floats()?;
                None
            }
            "EnsureChannelFirst" => {
                c.ignore(&["strict_check", "meta_keys", "meta_key_postfix"]);
                c.only("channel_dim", &[json!("no_channel")])?;
                None
            }
            "EnsureType" | "ToTensor" | "CastToType" | "ToDevice" => {
                c.ignore(&[
                    "data_type",
                    "device",
                    "wrap_sequence",
                    "track_meta",
                    "non_blocking",
                ]);
                self.floats()?;
                None
            }
            "AddChannel" | "Identity" => None,
            "DataStats" => {
                let ignored = [
                    "prefix",
                    "data_type",
                    "data_shape",
                    "value_range",
                    "data_value",
                    "name",
                    "meta_info",
                ];
                c.ignore(&ignored);
                None
            }
            "Orientation" => Some(self.orientation()?),
            "Spacing" => Some(self.spacing()?),
            "Resize" => Some(self.resize()?),
            "CropForeground" => Some(self.foreground()?),
            "SpatialPad" => {
                c.only("mode", &[json!("constant")])?;
                let end = match c.text("method", "symmetric")?.as_str() {
                    "symmetric" => false,
                    "end" => true,
                    other => return Err(format!("{}::method is {}", c.key(), shown(other))),
                };
                let spatial_size = self
                    .sizes("spatial_size", 0)?
                    .ok_or_else(|| format!("{}::spatial_size is missing", c.key()))?;
                let value = c.number("value")?.or(c.number("constant_values")?);
                Some(MonaiTransform::SpatialPad {
                    spatial_size,
                    end,
                    value: value.unwrap_or(0.0) as f32,
                })
            }
            "DivisiblePad" => {
                c.only("mode", &[json!("constant")])?;
                c.only("method", &[json!("symmetric")])?;
                c.only("value", &[json!(0)])?;
                let k = self.sizes("k", 1)?;
                let k = k.ok_or_else(|| format!("{}::k is missing", c.key()))?;
                Some(MonaiTransform::DivisiblePad { k })
            }
            "ScaleIntensity" => {
                c.only("factor", &[])?;
                self.floats()?;
                let (low, high) = (c.number("minv")?, c.number("maxv")?);
                // A null takes the range away; the default is 0 to 1.
                for name in ["minv", "maxv"] {
                    c.refuse_null(name)?;
                }
                Some(MonaiTransform::ScaleIntensity {
                    to: Some([low.unwrap_or(0.0) as f32, high.unwrap_or(1.0) as f32]),
                    channel_wise: c.truth("channel_wise", false)?,
                })
            }
            "ScaleIntensityRange" => {
                self.floats()?;
                Some(MonaiTransform::ScaleIntensityRange {
                    from: [c.needed("a_min")?.number()?, c.needed("a_max")?.number()?],
                    to: self.range("b_min", "b_max")?,
                    clip: c.truth("clip", false)?,
                })
            }
            "ScaleIntensityRangePercentiles" => {
                self.floats()?;
                let percentiles = [c.needed("lower")?.number()?, c.needed("upper")?.number()?];
                if percentiles.iter().any(|p| !(0.0..=100.0).contains(p)) {
                    return Err(format!("{} has the percentiles {percentiles:?}", c.key()));
                }
                Some(MonaiTransform::ScaleIntensityRangePercentiles {
                    percentiles,
                    to: self.range("b_min", "b_max")?,
                    clip: c.truth("clip", false)?,
                    relative: c.truth("relative", false)?,
                    channel_wise: c.truth("channel_wise", false)?,
                })
            }
            "NormalizeIntensity" => Some(self.normalize()?),
            other => {
                return Err(format!(
                    "{} is the transform {}d, which is not known",
                    c.key(),
                    shown(other)
                ));
            }
        })
    }

    /// `dtype` must be one of floats: others would round.
    fn floats(&self) -> Result<(), String> {
        let Some(node) = for_key(self.c, "dtype", self.at, self.count)? else {
            return Ok(());
        };
        let text = match node.expression() {
            Some(expression) => expression.to_owned(),
            None => node.text()?,
        };
        let plain = text.trim_start_matches('$').trim();
        let known = [
            "float32",
            "float64",
            "float",
            "np.float32",
            "np.float64",
            "numpy.float32",
            "torch.float32",
            "torch.float64",
            "torch.float",
        ];
        if known.contains(&plain) {
            Ok(())
        } else {
            Err(format!("{} is {}", node.key(), shown(&text)))
        }
    }

    fn orientation(&self) -> Result<MonaiTransform, String> {
        let c = self.c;
        c.only("labels", &[json!([["L", "R"], ["P", "A"], ["I", "S"]])])?;
        let letters = if c.truth("as_closest_canonical", false)? {
            "RAS".to_owned()
        } else {
            c.needed("axcodes")?.text()?
        };
        let letters: Vec<char> = letters.to_uppercase().chars().collect();
        let axcodes: Option<[char; 3]> = letters.clone().try_into().ok();
        let known = |c: &char| "LRPAIS".contains(*c);
        match axcodes {
            Some(axcodes) if axcodes.iter().all(known) => {
                Ok(MonaiTransform::Orientation { axcodes })
            }
            _ => Err(format!("{}::axcodes is {letters:?}", c.key())),
        }
    }

    fn spacing(&self) -> Result<MonaiTransform, String> {
        let c = self.c;
        for name in ["diagonal", "scale_extent", "recompute_affine"] {
            c.only(name, &[json!(false)])?;
        }
        for name in ["min_pixdim", "max_pixdim"] {
            c.only(name, &[])?;
        }
        self.only_for_key("padding_mode", &["border"])?;
        if let Some(node) = for_key(c, "align_corners", self.at, self.count)?
            && node.truth()?
        {
            return Err(format!("{} is true", node.key()));
        }
        c.ignore(&[
            "image_only",
            "ensure_same_shape",
            "meta_keys",
            "meta_key_postfix",
        ]);
        self.floats()?;
        let node = c.needed("pixdim")?;
        let given = if node.is_list() {
            node.items()?
                .iter()
                .map(Node::number)
                .collect::<Result<Vec<_>, _>>()?
        } else {
            vec![node.number()?]
        };
        if !(1..=3).contains(&given.len()) || given.iter().any(|mm| *mm > 1000.0) {
            return Err(format!("{} is {given:?}", node.key()));
        }
        // The last number stands for the axes that are not given.
        let pixdim = [0, 1, 2].map(|axis| given[axis.min(given.len() - 1)]);
        Ok(MonaiTransform::Spacing {
            pixdim,
            linear: self.linear("bilinear")?,
        })
    }

    fn resize(&self) -> Result<MonaiTransform, String> {
        let c = self.c;
        c.only("size_mode", &[json!("all")])?;
        c.only("anti_aliasing", &[json!(false)])?;
        c.only("anti_aliasing_sigma", &[])?;
        self.floats()?;
        let align = for_key(c, "align_corners", self.at, self.count)?;
        let align_corners = align.map_or(Ok(false), |node| node.truth())?;
        let spatial_size = self
            .sizes("spatial_size", 0)?
            .ok_or_else(|| format!("{}::spatial_size is missing", c.key()))?;
        Ok(MonaiTransform::Resize {
            spatial_size,
            linear: self.linear("area")?,
            align_corners,
        })
    }

    fn foreground(&self) -> Result<MonaiTransform, String> {
        let c = self.c;
        let source = c.needed("source_key")?.text()?;
        if source != self.image {
            return Err(format!("{}::source_key is {}", c.key(), shown(&source)));
        }
        if let Some(node) = c.get("select_fn")? {
            let said = node.expression().unwrap_or_default().replace(' ', "");
            if said != "$lambdax:x>0" {
                return Err(format!("{} is not the default", node.key()));
            }
        }
        c.only("channel_indices", &[])?;
        self.only_for_key("mode", &["constant"])?;
        c.ignore(&["start_coord_key", "end_coord_key"]);
        let margin = self.sizes("margin", 0)?.unwrap_or([0; 3]);
        let said = c
            .get("allow_smaller")?
            .map(|node| node.truth())
            .transpose()?;
        let allow_smaller = match (said, self.setting.version) {
            (Some(said), _) => said,
            // Without a margin the box never leaves the image.
            _ if margin == [0; 3] => false,
            (None, Some(version)) => version < (1, 5),
            (None, None) => {
                return Err(format!(
                    "{}::allow_smaller is missing: its default changed with MONAI 1.5, and metadata.json has no monai_version",
                    c.key()
                ));
            }
        };
        Ok(MonaiTransform::CropForeground {
            margin,
            k_divisible: self.sizes("k_divisible", 1)?.unwrap_or([1; 3]),
            allow_smaller,
        })
    }

    fn normalize(&self) -> Result<MonaiTransform, String> {
        let c = self.c;
        self.floats()?;
        let nonzero = c.truth("nonzero", false)?;
        let channel_wise = c.truth("channel_wise", false)?;
        let single = |name: &str| -> Result<Option<f64>, String> {
            let Some(node) = c.get(name)? else {
                return Ok(None);
            };
            if !node.is_list() {
                return Ok(Some(node.number()?));
            }
            match node.items()?.as_slice() {
                [one] => Ok(Some(one.number()?)),
                _ => Err(format!("{} has several numbers", node.key())),
            }
        };
        match (single("subtrahend")?, single("divisor")?) {
            (None, None) => Ok(MonaiTransform::NormalizeIntensity {
                nonzero,
                channel_wise,
            }),
            (Some(low), Some(span)) if !nonzero && span != 0.0 => {
                Ok(MonaiTransform::ScaleIntensityRange {
                    from: [low, low + span],
                    to: None,
                    clip: false,
                })
            }
            _ => Err(format!(
                "{} has a subtrahend or divisor in a way that is not supported",
                c.key()
            )),
        }
    }

    fn range(&self, low: &str, high: &str) -> Result<Option<[f64; 2]>, String> {
        match (self.c.number(low)?, self.c.number(high)?) {
            (Some(low), Some(high)) => Ok(Some([low, high])),
            (None, None) => Ok(None),
            _ => Err(format!("{} has one of {low} and {high}", self.c.key())),
        }
    }

    /// Sizes along i, j, k; −1 keeps an axis (0). Images of two axes keep the third, by `neutral`.
    fn sizes(&self, name: &str, neutral: usize) -> Result<Option<[usize; 3]>, String> {
        let Some(given) = self.c.per_axis(name, self.setting.axes)? else {
            return Ok(None);
        };
        let mut sizes = [neutral; 3];
        for (size, value) in sizes.iter_mut().zip(given) {
            *size = match value {
                v if v < 0.0 => 0,
                v if v.fract() == 0.0 && v <= 4096.0 => v as usize,
                v => return Err(format!("{}::{name} has {v}", self.c.key())),
            };
        }
        Ok(Some(sizes))
    }

    fn only_for_key(&self, name: &str, allowed: &[&str]) -> Result<(), String> {
        match for_key(self.c, name, self.at, self.count)? {
            Some(node) if !allowed.contains(&node.text()?.as_str()) => {
                Err(format!("{} is {}", node.key(), shown(&node.text()?)))
            }
            _ => Ok(()),
        }
    }

    /// `mode`: linear (true) or nearest.
    fn linear(&self, default: &str) -> Result<bool, String> {
        let node = for_key(self.c, "mode", self.at, self.count)?;
        let said = match &node {
            // Orders of splines.
            Some(node) if node.integer() == Ok(1) => "bilinear".to_owned(),
            Some(node) if node.integer() == Ok(0) => "nearest".to_owned(),
            Some(node) => node.text()?,
            None => default.to_owned(),
        };
        match said.to_lowercase().as_str() {
            "bilinear" | "trilinear" | "linear" => Ok(true),
            "nearest" => Ok(false),
            other => Err(format!(
                "{}::mode is {}, which is not supported",
                self.c.key(),
                shown(other)
            )),
        }
    }
}
