//! `metadata.json`: what a bundle says about itself.

use serde_json::Value;

/// What is used of it.
#[derive(Debug)]
pub struct Metadata {
    root: Value,
}

/// Most characters of a statement that are kept.
const LONGEST: usize = 600;

impl Metadata {
    /// From the parsed file.
    pub const fn new(root: Value) -> Self {
        Self { root }
    }

    /// MONAI's version that the model was made with.
    pub fn monai_version(&self) -> Option<(u32, u32)> {
        let text = self.root["monai_version"].as_str()?;
        let mut parts = text.split('.');
        let major = parts.next()?.trim().parse().ok()?;
        let minor = parts.next()?.trim().parse().ok()?;
        Some((major, minor))
    }

    /// A statement: a text, or what stands there written out; without control characters.
    pub fn says(&self, name: &str) -> Option<String> {
        let text = match &self.root[name] {
            Value::Null => return None,
            Value::String(text) => text.clone(),
            Value::Array(items) if items.iter().all(Value::is_string) => {
                let texts: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                texts.join("; ")
            }
            other => other.to_string(),
        };
        let clean: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(LONGEST)
            .collect();
        let clean = clean.trim().to_owned();
        (!clean.is_empty()).then_some(clean)
    }

    /// The only input image, or the first.
    fn input(&self) -> &Value {
        let inputs = &self.root["network_data_format"]["inputs"];
        match inputs.get("image") {
            Some(image) => image,
            None => inputs
                .as_object()
                .and_then(|map| map.values().next())
                .unwrap_or(&Value::Null),
        }
    }

    fn output(&self) -> &Value {
        let outputs = &self.root["network_data_format"]["outputs"];
        match outputs.get("pred") {
            Some(pred) => pred,
            None => outputs
                .as_object()
                .and_then(|map| map.values().next())
                .unwrap_or(&Value::Null),
        }
    }

    /// `spatial_shape` where it is all numbers.
    pub fn spatial_shape(&self) -> Option<Vec<usize>> {
        let items = self.input()["spatial_shape"].as_array()?;
        items
            .iter()
            .map(|n| usize::try_from(n.as_u64()?).ok())
            .collect()
    }

    /// Name of an output channel.
    pub fn channel(&self, number: usize) -> Option<String> {
        named(self.output(), number)
    }

    /// Name of an input channel.
    pub fn input_channel(&self, number: usize) -> Option<String> {
        named(self.input(), number)
    }

    /// DICOM's word for the input's modality; empty when it cannot be told.
    pub fn modality(&self) -> &'static str {
        let input = self.input();
        let said = |name: &str| input[name].as_str().unwrap_or_default().to_lowercase();
        match said("modality").as_str() {
            "ct" => return "CT",
            "mr" | "mri" => return "MR",
            "pt" | "pet" => return "PT",
            "cr" | "dx" | "xr" | "x-ray" | "xray" => return "DX",
            "us" | "ultrasound" => return "US",
            _ => {}
        }
        match said("format").as_str() {
            "hounsfield" => "CT",
            "magnitude" => "MR",
            _ => "",
        }
    }
}

/// A channel's name, without control characters.
fn named(format: &Value, number: usize) -> Option<String> {
    let name = format["channel_def"][number.to_string()].as_str()?;
    let clean: String = name
        .chars()
        .map(|c| if c.is_control() || c == '_' { ' ' } else { c })
        .take(64)
        .collect();
    let clean = clean.trim().to_owned();
    (!clean.is_empty()).then_some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn statements_are_plain_and_bounded() {
        let m = Metadata::new(json!({
            "monai_version": "1.4.0rc2",
            "description": "a\nb\u{7}",
            "references": ["one", "two"],
            "eval_metrics": { "mean_dice": 0.961 },
            "network_data_format": {
                "inputs": { "image": { "modality": "n/a", "format": "hounsfield", "spatial_shape": [160, 160, 160] } },
                "outputs": { "pred": { "channel_def": { "0": "background", "1": "spleen_part" } } },
            },
        }));
        assert_eq!(m.monai_version(), Some((1, 4)));
        assert_eq!(m.says("description").unwrap(), "a b");
        assert_eq!(m.says("references").unwrap(), "one; two");
        assert_eq!(m.says("eval_metrics").unwrap(), "{\"mean_dice\":0.961}");
        assert_eq!(m.says("nothing"), None);
        assert_eq!(m.modality(), "CT");
        assert_eq!(m.spatial_shape(), Some(vec![160; 3]));
        assert_eq!(m.channel(1).unwrap(), "spleen part");
        assert_eq!(m.channel(2), None);
    }
}
