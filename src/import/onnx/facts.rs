//! What the file itself says: input, results, names of classes in its metadata.

use serde_json::Value;

use super::proto::{Dim, Model, ValueInfo};
use super::translate::OPSETS;
use super::wire::Parsed;

/// Facts of a file.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) opset: i64,
    pub(super) producer: String,
    /// The only input that is no weight.
    pub(super) input: String,
    /// `None` where the file leaves it open.
    pub(super) channels: Option<usize>,
    /// Along the spatial axes.
    pub(super) size: Vec<Dim>,
    pub(super) outputs: Vec<String>,
    pub(super) metadata: Vec<(String, String)>,
}

impl Facts {
    /// Checks what every network here needs: one image with channels in, results out.
    pub(super) fn of(model: &Model) -> Parsed<Self> {
        let versions: Vec<i64> = model
            .opsets
            .iter()
            .filter(|(domain, _)| matches!(domain.as_str(), "" | "ai.onnx"))
            .map(|(_, version)| *version)
            .collect();
        let [opset] = *versions.as_slice() else {
            return Err("it does not say which operation set it uses".to_owned());
        };
        if !OPSETS.contains(&opset) {
            return Err(format!(
                "operation set {opset} is not supported, only {} to {}",
                OPSETS.start(),
                OPSETS.end()
            ));
        }
        let weights: std::collections::HashSet<&str> = model
            .graph
            .initializers
            .iter()
            .map(|t| t.name.as_str())
            .collect();
        let inputs: Vec<&ValueInfo> = model
            .graph
            .inputs
            .iter()
            .filter(|input| !weights.contains(input.name.as_str()))
            .collect();
        let [input] = *inputs.as_slice() else {
            let names: Vec<&str> = inputs.iter().take(8).map(|i| i.name.as_str()).collect();
            return Err(format!(
                "it takes {} inputs ({names:?}), expected one image",
                inputs.len()
            ));
        };
        if !matches!(input.kind, 1 | 10 | 11 | 16) {
            return Err(format!(
                "its input {:?} is of data type {}, expected floats",
                input.name, input.kind
            ));
        }
        let dims = input.dims.clone().unwrap_or_default();
        let (Some(batch), true) = (dims.first(), (3..=5).contains(&dims.len())) else {
            return Err(format!(
                "its input {:?} has {} axes, expected batch, channels and 1 to 3 axes of an image",
                input.name,
                dims.len()
            ));
        };
        if matches!(batch, Dim::Known(n) if *n != 1) {
            return Err(format!(
                "its batch is {batch:?}: export it for one image at a time"
            ));
        }
        let channels = match &dims[1] {
            Dim::Known(n) => Some(
                usize::try_from(*n)
                    .ok()
                    .filter(|n| (1..=1024).contains(n))
                    .ok_or_else(|| format!("an input of {n} channels"))?,
            ),
            Dim::Named(_) => None,
        };
        let outputs: Vec<String> = model.graph.outputs.iter().map(|o| o.name.clone()).collect();
        if outputs.is_empty() {
            return Err("it has no result".to_owned());
        }
        Ok(Self {
            opset,
            producer: model.producer.clone(),
            input: input.name.clone(),
            channels,
            size: dims[2..].to_vec(),
            outputs,
            metadata: model.metadata.clone(),
        })
    }

    /// The first entry of the metadata with one of these keys.
    pub(super) fn says(&self, keys: &[&str]) -> Option<&str> {
        let plain = |key: &str| key.to_lowercase().replace(['-', ' '], "_");
        let found = self
            .metadata
            .iter()
            .find(|(key, _)| keys.contains(&plain(key).as_str()));
        found.map(|(_, text)| text.trim()).filter(|t| !t.is_empty())
    }

    /// Names of classes, as exporters keep them: a list, an object from numbers to names or from
    /// names to numbers, or names with commas between.
    pub(super) fn names(&self) -> Option<Vec<String>> {
        let text = self.says(&["labels", "label_names", "class_names", "classes", "names"])?;
        if let Ok(value) = serde_json::from_str::<Value>(text) {
            return match value {
                Value::Array(list) => list
                    .iter()
                    .map(|name| name.as_str().map(str::to_owned))
                    .collect(),
                Value::Object(object) => {
                    let mut numbered: Vec<(u64, String)> = object
                        .iter()
                        .map(|(key, value)| match value {
                            Value::String(name) => Some((key.parse().ok()?, name.clone())),
                            Value::Number(n) => Some((n.as_u64()?, key.clone())),
                            _ => None,
                        })
                        .collect::<Option<_>>()?;
                    numbered.sort();
                    let whole = numbered
                        .iter()
                        .map(|(n, _)| *n)
                        .eq(0..numbered.len() as u64);
                    whole.then(|| numbered.into_iter().map(|(_, name)| name).collect())
                }
                _ => None,
            };
        }
        if text.contains(['{', '[', '\'', '"']) {
            return None;
        }
        Some(text.split(',').map(|name| name.trim().to_owned()).collect())
    }
}
