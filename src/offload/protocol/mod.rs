//! The Open Inference Protocol, version 2: what is said to a server and what is taken from its answer.
//!
//! Typed tensors go in and come out; no network here. An answer is checked in full before any of it
//! is handed on: who it is for, what it holds, and that its sizes add up.
//!
//! # Source
//! kserve/open-inference-protocol (`inference_rest.md`, `open_inference_rest.yaml`); Triton's binary
//! tensor data and model repository extensions.

mod datatype;
mod decode;
mod encode;
mod fault;
mod metadata;
mod numbers;

use std::path::PathBuf;

pub use datatype::Datatype;
pub use decode::{AnswerError, OutputTensor};
pub(super) use decode::{Asked, decode, depth_of};
pub use encode::RequestError;
pub(super) use encode::{Encoded, elements_of};
pub(super) use fault::{cleaned, message_of};
pub(super) use metadata::parse;
pub use metadata::{IndexEntry, ModelMetadata, ServerMetadata, TensorMetadata};

/// Deepest nesting of JSON that is read.
pub const MAX_JSON_DEPTH: usize = 32;

/// The header that says how many bytes of a body are JSON; tensors follow (counted before compression).
pub const JSON_LENGTH_HEADER: &str = "inference-header-content-length";

/// Where a tensor's bytes lie: little-endian, row-major, no padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TensorData<'a> {
    /// In memory.
    Bytes(&'a [u8]),
    /// In a file, read while it is sent; once for each attempt.
    File {
        /// The file.
        path: PathBuf,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
}

impl TensorData<'_> {
    /// Number of bytes.
    pub fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { length, .. } => *length,
        }
    }
}

/// A tensor on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputTensor<'a> {
    /// As the model names it.
    pub name: String,
    /// Kind of its elements.
    pub datatype: Datatype,
    /// Slowest dimension first.
    pub shape: Vec<u64>,
    /// Its bytes.
    pub data: TensorData<'a>,
}

impl<'a> InputTensor<'a> {
    /// A tensor in memory.
    pub fn new<T: bytemuck::NoUninit>(
        name: &str,
        datatype: Datatype,
        shape: &[u64],
        values: &'a [T],
    ) -> Self {
        // The protocol is little-endian, and so is every machine that the program is built for.
        const { assert!(cfg!(target_endian = "little")) }
        Self {
            name: name.to_owned(),
            datatype,
            shape: shape.to_vec(),
            data: TensorData::Bytes(bytemuck::cast_slice(values)),
        }
    }
}

/// A tensor that the answer must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedOutput {
    /// As the model names it.
    pub name: String,
    /// Kind of its elements.
    pub datatype: Datatype,
    /// Slowest dimension first; `None` where any size will do.
    pub shape: Vec<Option<u64>>,
    /// Whether NaN and infinities may come; otherwise such an answer is refused.
    pub may_be_not_finite: bool,
}

impl WantedOutput {
    /// A tensor of known shape, all of it finite.
    pub fn new(name: &str, datatype: Datatype, shape: &[u64]) -> Self {
        Self {
            name: name.to_owned(),
            datatype,
            shape: shape.iter().copied().map(Some).collect(),
            may_be_not_finite: false,
        }
    }
}

/// What is asked of a model. Numbers alone: nothing of a file's header has a place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InferRequest<'a> {
    /// Name of the model on the server.
    pub model: String,
    /// Version; `None` leaves the choice to the server.
    pub version: Option<String>,
    /// Tells this work from all other and must come back; the same for every attempt. Random, see
    /// [`crate::offload::random_id`].
    pub id: String,
    /// At least one.
    pub inputs: Vec<InputTensor<'a>>,
    /// At least one.
    pub outputs: Vec<WantedOutput>,
}

/// Whether a name may stand in a path of a URL as it is.
pub fn is_plain_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}
