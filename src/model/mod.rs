//! Model packages: what a model is, what it is for, and proof that its weights are the stated ones.
//!
//! A package is a folder (or one `.negmodel` file, a ZIP of it) with `manifest.json`,
//! `weights.safetensors` and a `MODEL_CARD.md`. A model that runs on a server alone has no weights:
//! its manifest says `"weights_sha256": "none"`. Absent on purpose: tensors, running.

mod builtin;
pub mod channels;
mod envelope;
pub mod graph;
mod manifest;
pub mod monai;
mod package;
pub mod procedure;
mod registry;
mod signature;
pub mod stored;

pub use envelope::{Envelope, Template, Values};
pub use manifest::{
    Class, ClassActivation, Classification, Conform, Crop, ImagePreparation, Input, Label, Layer,
    Manifest, ManifestError, Network, Normalization, ON_A_SERVER, Output, OutputKind,
    SHAPE as MANIFEST_SHAPE, Stage,
};
pub use package::{Error, PackageFiles, VerifiedPackage, sha256_hex};
pub use registry::{Entry, Registry};
pub use signature::{
    Origin, Publisher, Publishers, SIGNATURE_FILE, Signature, SignatureError, new_key, sign,
};
