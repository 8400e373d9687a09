//! What servers tell of themselves and of their models.

use serde::{Deserialize, Serialize};

use super::{AnswerError, MAX_JSON_DEPTH, cleaned, depth_of};

/// What a server tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ServerMetadata {
    /// `triton`, `mlserver`, …
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// Its version.
    #[serde(default, deserialize_with = "or_default")]
    pub version: String,
    /// What it offers beyond the protocol.
    #[serde(default, deserialize_with = "or_default")]
    pub extensions: Vec<String>,
}

impl ServerMetadata {
    /// Whether it announces binary tensors. Some take them without a word.
    pub fn announces_binary(&self) -> bool {
        self.extensions.iter().any(|e| e == "binary_tensor_data")
    }
}

/// What a server tells of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ModelMetadata {
    /// The model's name.
    pub name: String,
    /// Versions that are there.
    #[serde(default, deserialize_with = "or_default")]
    pub versions: Vec<String>,
    /// What runs it.
    #[serde(default, deserialize_with = "or_default")]
    pub platform: String,
    /// What it takes.
    #[serde(default, deserialize_with = "or_default")]
    pub inputs: Vec<TensorMetadata>,
    /// What it gives.
    #[serde(default, deserialize_with = "or_default")]
    pub outputs: Vec<TensorMetadata>,
}

/// A tensor of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorMetadata {
    /// Its name.
    pub name: String,
    /// The protocol's word; see [`super::Datatype::of_word`].
    #[serde(default, deserialize_with = "or_default")]
    pub datatype: String,
    /// Slowest dimension first; -1 where any size will do.
    #[serde(default, deserialize_with = "or_default")]
    pub shape: Vec<i64>,
}

/// A model in a server's list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct IndexEntry {
    /// The model's name.
    pub name: String,
    /// Its version, where the list tells it.
    #[serde(default, deserialize_with = "or_default")]
    pub version: String,
    /// `READY`, `UNAVAILABLE`, …
    #[serde(default, deserialize_with = "or_default")]
    pub state: String,
    /// Why it is not ready.
    #[serde(default, deserialize_with = "or_default")]
    pub reason: String,
}

/// Null is as good as absent.
fn or_default<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Reads one of them.
pub(in crate::offload) fn parse<T: for<'de> Deserialize<'de>>(
    body: &[u8],
) -> Result<T, AnswerError> {
    if depth_of(body) > MAX_JSON_DEPTH {
        return Err(AnswerError::TooDeep);
    }
    serde_json::from_slice(body).map_err(|e| AnswerError::NotJson(cleaned(&e.to_string(), 200)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_null_or_absent_is_empty() {
        let server: ServerMetadata =
            parse(br#"{"name":"mlserver","version":null,"more":{"a":[1]}}"#).unwrap();
        assert_eq!(server.name, "mlserver");
        assert!(server.version.is_empty() && !server.announces_binary());
        let model: ModelMetadata = parse(
            br#"{"name":"seg","versions":null,"inputs":[{"name":"x","datatype":"INT16","shape":[-1,-1]}]}"#,
        )
        .unwrap();
        assert_eq!(model.inputs[0].shape, [-1, -1]);
        let index: Vec<IndexEntry> = parse(br#"[{"name":"seg","reason":""}]"#).unwrap();
        assert_eq!(index[0].name, "seg");
    }
}
