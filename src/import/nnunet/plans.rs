//! `plans.json`: how scans are prepared and what the networks are, per configuration.

use serde_json::{Map, Value};

use super::architecture::Architecture;
use super::fields::{Fields, Read};
use crate::model::procedure::{Channel, Intensities, Resampling, Scheme};

/// Configurations that inherit from each other, at most.
const LONGEST_LINE: usize = 16;

/// The plans of a data set.
#[derive(Debug, Clone)]
pub struct Plans {
    /// E.g. `Dataset004_Hippocampus`.
    pub dataset_name: String,
    /// E.g. `nnUNetPlans`.
    pub plans_name: String,
    /// Axis n of the prepared scan is axis `[n]` of the scan as it was read.
    pub transpose_forward: [usize; 3],
    /// The way back.
    pub transpose_backward: [usize; 3],
    /// What read the scans, which decides on the order of their axes.
    pub reader: Reader,
    /// Everything, for what depends on the configuration.
    json: Value,
}

/// nnU-Net's reading class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reader {
    /// `SimpleITKIO`: axes k, j, i of the file; the orientation is not looked at.
    SimpleItk,
    /// `NibabelIO`: as [`Reader::SimpleItk`].
    Nibabel,
    /// `NibabelIOWithReorient`: axes k, j, i after turning to rising RAS.
    NibabelReoriented,
}

/// One configuration, inheritance resolved. Lists along axes are in tensor order after the transpose.
#[derive(Debug, Clone, PartialEq)]
pub struct Configuration {
    /// E.g. `3d_fullres`.
    pub name: String,
    /// Two axes for slices, three for volumes.
    pub patch_size: Vec<usize>,
    /// In mm; in 2D, the spacing between slices is kept as it is.
    pub spacing: Vec<f64>,
    /// How each channel is normalized, before resampling.
    pub channels: Vec<Channel>,
    /// Of the scan.
    pub resampling_data: Resampling,
    /// Of label maps (the previous stage's).
    pub resampling_segmentation: Resampling,
    /// Of logits, on the way back.
    pub resampling_probabilities: Resampling,
    /// The network.
    pub architecture: Architecture,
    /// The configuration whose label map is input here.
    pub previous_stage: Option<String>,
    /// Configurations that take this one's label map.
    pub next_stages: Vec<String>,
}

impl Plans {
    pub(super) fn parse(json: Value) -> Read<Self> {
        let fields = Fields::root(&json);
        let forward = permutation(&fields, "transpose_forward")?;
        let backward = permutation(&fields, "transpose_backward")?;
        if (0..3).any(|axis| forward[backward[axis]] != axis) {
            return Err("transpose_backward does not undo transpose_forward".to_owned());
        }
        let reader = match fields.text("image_reader_writer")? {
            "SimpleITKIO" => Reader::SimpleItk,
            "NibabelIO" => Reader::Nibabel,
            "NibabelIOWithReorient" => Reader::NibabelReoriented,
            _ => return fields.refuse("image_reader_writer"),
        };
        if !matches!(
            fields.optional("label_manager").map(Value::as_str),
            None | Some(Some("LabelManager"))
        ) {
            return fields.refuse("label_manager");
        }
        Ok(Self {
            dataset_name: fields.text("dataset_name")?.to_owned(),
            plans_name: fields.text("plans_name")?.to_owned(),
            transpose_forward: forward,
            transpose_backward: backward,
            reader,
            json,
        })
    }

    /// Names of all configurations, in the order of the file.
    pub fn configurations(&self) -> Vec<&str> {
        self.json["configurations"]
            .as_object()
            .into_iter()
            .flat_map(Map::keys)
            .map(String::as_str)
            .collect()
    }

    /// A configuration's fields over those that it inherits.
    fn resolved(&self, name: &str) -> Read<Map<String, Value>> {
        let mut line = vec![name.to_owned()];
        let mut merged = Map::new();
        loop {
            let current = line.last().expect("at least one");
            let Some(own) = self.json["configurations"][current.as_str()].as_object() else {
                return Err(format!("configurations.{current} is missing"));
            };
            for (key, value) in own {
                if !merged.contains_key(key) {
                    merged.insert(key.clone(), value.clone());
                }
            }
            let Some(parent) = own.get("inherits_from").filter(|p| !p.is_null()) else {
                return Ok(merged);
            };
            let Some(parent) = parent.as_str() else {
                return Err(format!("configurations.{current}.inherits_from is no text"));
            };
            if line.iter().any(|l| l == parent) || line.len() == LONGEST_LINE {
                return Err(format!(
                    "configurations.{current}.inherits_from leads in a circle"
                ));
            }
            line.push(parent.to_owned());
        }
    }

    /// The configuration that goes by `name`, for scans of `channels` channels.
    ///
    /// # Errors
    /// In words, naming the field.
    pub fn configuration(&self, name: &str, channels: usize) -> Result<Configuration, String> {
        let whole = Value::Object(self.resolved(name)?);
        let holder = serde_json::json!({ "configurations": { name: whole } });
        let fields = Fields::root(&holder)
            .object("configurations")?
            .object(name)?;
        if fields.optional("preprocessor_name").is_some()
            && fields.text("preprocessor_name")? != "DefaultPreprocessor"
        {
            return fields.refuse("preprocessor_name");
        }
        let axes = fields.list("patch_size")?.len();
        if !(2..=3).contains(&axes) {
            return fields.refuse("patch_size");
        }
        let patch_size = fields.wholes("patch_size", axes, 1, 4096)?;
        let spacing = fields.positives("spacing")?;
        if spacing.len() != axes {
            return fields.refuse("spacing");
        }
        let mut previous_stage = None;
        if fields.optional("previous_stage").is_some() {
            let stage = fields.text("previous_stage")?;
            if !self.configurations().contains(&stage) {
                return fields.refuse("previous_stage");
            }
            previous_stage = Some(stage.to_owned());
        }
        let next_stages = match fields.optional("next_stage") {
            None => Vec::new(),
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(list)) if list.iter().all(Value::is_string) => list
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            Some(_) => return fields.refuse("next_stage"),
        };
        Ok(Configuration {
            name: name.to_owned(),
            patch_size,
            spacing,
            channels: self.channels(&fields, channels)?,
            resampling_data: resampling(&fields, "resampling_fn_data", false)?,
            resampling_segmentation: resampling(&fields, "resampling_fn_seg", true)?,
            resampling_probabilities: resampling(&fields, "resampling_fn_probabilities", false)?,
            architecture: Architecture::parse(&fields, axes)?,
            previous_stage,
            next_stages,
        })
    }

    fn channels(&self, fields: &Fields, channels: usize) -> Read<Vec<Channel>> {
        let schemes = fields.list("normalization_schemes")?;
        let masks = fields.list("use_mask_for_norm")?;
        if schemes.len() != channels || masks.len() != channels {
            return Err(format!(
                "{} and use_mask_for_norm have {} and {} entries for {channels} channels",
                fields.name("normalization_schemes"),
                schemes.len(),
                masks.len()
            ));
        }
        let mut all = Vec::new();
        for (channel, (scheme, mask)) in schemes.iter().zip(masks).enumerate() {
            let Some(use_mask) = mask.as_bool() else {
                return fields.refuse("use_mask_for_norm");
            };
            let intensities = match scheme.as_str() {
                Some("CTNormalization") => Some(self.intensities(channel)?),
                _ => None,
            };
            match scheme.as_str().map(|name| Scheme::named(name, intensities)) {
                Some(Ok(scheme)) => all.push(Channel { scheme, use_mask }),
                _ => return fields.refuse("normalization_schemes"),
            }
        }
        Ok(all)
    }

    /// Usual extent of the training scans along their axes; `None` where the plans do not say.
    pub(super) fn median_extent_mm(&self) -> Option<[f64; 3]> {
        let three = |name: &str| {
            let numbers = self.json.get(name)?.as_array()?;
            let numbers: Vec<f64> = numbers.iter().filter_map(Value::as_f64).collect();
            <[f64; 3]>::try_from(numbers).ok()
        };
        let shape = three("original_median_shape_after_transp")?;
        let spacing = three("original_median_spacing_after_transp")?;
        let extent = [0, 1, 2].map(|axis| shape[axis] * spacing[axis]);
        extent
            .iter()
            .all(|mm| *mm > 0.0 && mm.is_finite())
            .then_some(extent)
    }

    pub(super) fn intensities(&self, channel: usize) -> Read<Intensities> {
        let root = Fields::root(&self.json);
        let name = "foreground_intensity_properties_per_channel";
        let older = "foreground_intensity_properties_by_modality";
        let name = if root.optional(name).is_none() && root.optional(older).is_some() {
            older
        } else {
            name
        };
        let values = root.object(name)?.object(&channel.to_string())?;
        let found = Intensities {
            mean: values.number("mean")?,
            std: values.number("std")?,
            percentile_00_5: values.number("percentile_00_5")?,
            percentile_99_5: values.number("percentile_99_5")?,
        };
        if found.percentile_00_5 > found.percentile_99_5 || found.std < 0.0 {
            return values.refuse("percentile_00_5");
        }
        Ok(found)
    }
}

/// A resampling function of the plans with its arguments.
fn resampling(fields: &Fields, function: &str, is_seg: bool) -> Read<Resampling> {
    let arguments = fields.object(&format!("{function}_kwargs"))?;
    let force_separate_z = match arguments.optional("force_separate_z") {
        // nnU-Net's default is `False`; plans write `null` for "where anisotropic".
        None if arguments.all().any(|(key, _)| key == "force_separate_z") => None,
        None => Some(false),
        Some(Value::Bool(flag)) => Some(*flag),
        Some(_) => return arguments.refuse("force_separate_z"),
    };
    if arguments.flag("is_seg", false)? != is_seg {
        return arguments.refuse("is_seg");
    }
    let order = |field: &str, otherwise| match arguments.optional(field) {
        None => Ok(otherwise),
        Some(_) => arguments.whole(field, 0, 5).map(|order| order as u8),
    };
    let named = Resampling::named(
        fields.text(function)?,
        is_seg,
        order("order", 3)?,
        order("order_z", 0)?,
        force_separate_z,
    );
    let mut rule = named.map_err(|e| format!("{}: {e}", fields.name(function)))?;
    arguments.only(&[
        "is_seg",
        "order",
        "order_z",
        "force_separate_z",
        "separate_z_anisotropy_threshold",
    ])?;
    rule.threshold = arguments.number_or("separate_z_anisotropy_threshold", 3.0)?;
    Ok(rule)
}

fn permutation(fields: &Fields, name: &str) -> Read<[usize; 3]> {
    let order = fields.wholes(name, 3, 0, 2)?;
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if fields.required(name)?.is_array() && sorted == [0, 1, 2] {
        Ok([order[0], order[1], order[2]])
    } else {
        fields.refuse(name)
    }
}
