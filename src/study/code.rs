//! Coded concepts.

/// Code value, scheme and meaning (PS3.3 section 8).
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct CodedConcept {
    /// Code Value, at most 16 characters, e.g. `10200004`.
    pub value: String,
    /// Coding Scheme Designator, e.g. `SCT`.
    pub scheme: String,
    /// Code Meaning, at most 64 characters, e.g. `Liver`.
    pub meaning: String,
}

impl CodedConcept {
    /// Builds one.
    pub fn new(value: &str, scheme: &str, meaning: &str) -> Self {
        Self {
            value: value.into(),
            scheme: scheme.into(),
            meaning: meaning.into(),
        }
    }
}
