//! How a result was made.

/// Everything needed to make a result again.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Provenance {
    /// Random name of the run, by which reviews of its result are counted; empty where none is kept.
    #[serde(default)]
    pub run: String,
    /// Model id.
    pub model_id: String,
    /// Name for people.
    pub model_name: String,
    /// Model version.
    pub model_version: String,
    /// SHA-256 of the weights, hex.
    pub model_sha256: String,
    /// E.g. `cpu (AVX2+FMA, 2 threads)`.
    pub device: String,
    /// Parameters by name, in order.
    pub parameters: Vec<(String, String)>,
    /// SOP Instance UIDs of the input (or the file name of a NIfTI input).
    pub inputs: Vec<String>,
    /// Start, RFC 3339, UTC.
    pub started: String,
    /// Seconds by phase ("read", "preprocess", "inference", …).
    pub elapsed_secs: Vec<(String, f64)>,
    /// Version of this program.
    pub software_version: String,
}
