//! A package's files, and the proof that they belong together.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::manifest::{Layer, Manifest, ManifestError, ON_A_SERVER};
use super::signature::{self, SIGNATURE_FILE, Signature, SignatureError};
use super::stored;

/// Weights larger than this are not a model of this kind, in the file and expanded to f32.
const LARGEST_WEIGHTS: u64 = 4 << 30;
const LARGEST_TEXT: u64 = 16 << 20;

/// Why a package is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused.
    #[error("could not be read or written: {path}")]
    Io {
        /// What the system said.
        #[source]
        source: std::io::Error,
        /// The file.
        path: PathBuf,
    },
    /// The manifest.
    #[error("{path}")]
    Manifest {
        /// What is wrong.
        #[source]
        source: ManifestError,
        /// The package.
        path: PathBuf,
    },
    /// The weights are not the stated ones.
    #[error(
        "the weights are not those of the manifest (SHA-256 {found}, expected {expected}): import the model again: {path}"
    )]
    Hash {
        /// Of the file.
        found: String,
        /// Of the manifest.
        expected: String,
        /// The package.
        path: PathBuf,
    },
    /// The weights do not fit the network.
    #[error("the weights do not fit the network, {reason}: {path}")]
    Weights {
        /// What is wrong.
        reason: String,
        /// The package.
        path: PathBuf,
    },
    /// No package.
    #[error("not a model package, {reason}: {path}")]
    NotAPackage {
        /// What is missing.
        reason: String,
        /// The file or folder.
        path: PathBuf,
    },
    /// No such model.
    #[error("no model {wanted:?}; installed are {}", list(.installed))]
    NoSuchModel {
        /// Asked for.
        wanted: String,
        /// Keys.
        installed: Vec<String>,
    },
    /// Bundled models stay.
    #[error("{0} comes with the program and cannot be removed")]
    Bundled(String),
    /// A signature that is not the package's.
    #[error("{path}")]
    Signature {
        /// What is wrong.
        #[source]
        source: SignatureError,
        /// The package.
        path: PathBuf,
    },
    /// A model changes hands.
    #[error(
        "{id} was installed {before}, this package is {now}: remove the installed one first if that is meant: {path}"
    )]
    OtherPublisher {
        /// Id of the model.
        id: String,
        /// What was installed, in words.
        before: String,
        /// What comes, in words.
        now: String,
        /// The package.
        path: PathBuf,
    },
    /// A signed model goes back behind a version that was here.
    #[error(
        "version {version} of {id} is older than {highest}, which was installed here: allow an older version if that is meant: {path}"
    )]
    Older {
        /// Id of the model.
        id: String,
        /// What comes.
        version: String,
        /// The highest that was installed.
        highest: String,
        /// The package.
        path: PathBuf,
    },
    /// Nothing to go back to.
    #[error("there is no version of {0} before the one in use")]
    NothingBefore(String),
}

fn list(keys: &[String]) -> String {
    if keys.is_empty() {
        "none".to_owned()
    } else {
        keys.join(", ")
    }
}

/// The bytes of a package, not yet believed.
#[derive(Clone, Debug)]
pub struct PackageFiles {
    /// `manifest.json`.
    pub manifest: Vec<u8>,
    /// `weights.safetensors`.
    pub weights: Vec<u8>,
    /// `MODEL_CARD.md`.
    pub card: Option<Vec<u8>>,
    /// `signature.json`.
    pub signature: Option<Vec<u8>>,
    /// Where they are, for messages.
    pub path: PathBuf,
}

/// A package whose weights have the manifest's hash and fit its network, or one that has none and
/// says so. Made only by [`VerifiedPackage::verify`].
#[derive(Clone, Debug)]
pub struct VerifiedPackage {
    manifest: Manifest,
    files: PackageFiles,
    signature: Option<Signature>,
}

impl PackageFiles {
    /// Reads a package folder or a `.negmodel` file.
    ///
    /// # Errors
    /// [`Error`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        if path.is_dir() {
            let file = |name: &str, limit| read_limited(&path.join(name), limit);
            if !path.join("manifest.json").is_file() {
                let reason = "manifest.json is missing".to_owned();
                return Err(Error::NotAPackage {
                    reason,
                    path: path.to_owned(),
                });
            }
            let manifest = file("manifest.json", LARGEST_TEXT)?;
            return Ok(Self {
                weights: match file("weights.safetensors", LARGEST_WEIGHTS) {
                    Err(_) if is_on_a_server(&manifest) => Vec::new(),
                    other => other?,
                },
                manifest,
                card: file("MODEL_CARD.md", LARGEST_TEXT).ok(),
                signature: optional(path.join(SIGNATURE_FILE))?,
                path: path.to_owned(),
            });
        }
        let refused = |reason: String| Error::NotAPackage {
            reason,
            path: path.to_owned(),
        };
        let io = |source| Error::Io {
            source,
            path: path.to_owned(),
        };
        let file = std::fs::File::open(path).map_err(io)?;
        let mut zip = zip::ZipArchive::new(file).map_err(|e| refused(format!("no ZIP ({e})")))?;
        // Members are read by their exact names into memory: no path of the archive is followed.
        let mut member = |name: &str, limit: u64| -> Result<Vec<u8>, Error> {
            let member = zip
                .by_name(name)
                .map_err(|_| refused(format!("{name} is missing")))?;
            let mut bytes = Vec::new();
            member.take(limit + 1).read_to_end(&mut bytes).map_err(io)?;
            if bytes.len() as u64 > limit {
                return Err(refused(format!("{name} is larger than {limit} bytes")));
            }
            Ok(bytes)
        };
        let manifest = member("manifest.json", LARGEST_TEXT)?;
        Ok(Self {
            weights: match member("weights.safetensors", LARGEST_WEIGHTS) {
                Err(_) if is_on_a_server(&manifest) => Vec::new(),
                other => other?,
            },
            manifest,
            card: member("MODEL_CARD.md", LARGEST_TEXT).ok(),
            signature: match member(SIGNATURE_FILE, LARGEST_TEXT) {
                Err(Error::NotAPackage { reason, .. }) if reason.ends_with("is missing") => None,
                other => Some(other?),
            },
            path: path.to_owned(),
        })
    }
}

/// What a manifest says of its weights, whatever else may be wrong with it.
fn is_on_a_server(manifest: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Weights {
        weights_sha256: String,
    }
    serde_json::from_slice::<Weights>(manifest).is_ok_and(|w| w.weights_sha256 == ON_A_SERVER)
}

/// A file that may be absent. One that cannot be read is an error: an unreadable signature must not
/// make a package an unsigned one.
fn optional(path: PathBuf) -> Result<Option<Vec<u8>>, Error> {
    if path.symlink_metadata().is_err() {
        return Ok(None);
    }
    read_limited(&path, LARGEST_TEXT).map(Some)
}

fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let io = |source| Error::Io {
        source,
        path: path.to_owned(),
    };
    let file = std::fs::File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    if size > limit {
        let reason = format!("{size} bytes, at most {limit} are read");
        return Err(Error::NotAPackage {
            reason,
            path: path.to_owned(),
        });
    }
    let mut bytes = Vec::with_capacity(size as usize);
    file.take(limit).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

/// SHA-256 in hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

impl VerifiedPackage {
    /// Checks manifest, hash, and that every tensor is there in its shape with finite values.
    ///
    /// # Errors
    /// [`Error`].
    pub fn verify(files: PackageFiles) -> Result<Self, Error> {
        let path = files.path.clone();
        let manifest = Manifest::parse(&files.manifest).map_err(|source| Error::Manifest {
            source,
            path: path.clone(),
        })?;
        let signature = signature::verify(&files).map_err(|source| Error::Signature {
            source,
            path: path.clone(),
        })?;
        if manifest.is_on_a_server() {
            if !files.weights.is_empty() {
                let reason = "the manifest says that there are none here".to_owned();
                return Err(Error::Weights { reason, path });
            }
            return Ok(Self {
                manifest,
                files,
                signature,
            });
        }
        let found = sha256_hex(&files.weights);
        if !found.eq_ignore_ascii_case(&manifest.weights_sha256) {
            let expected = manifest.weights_sha256.clone();
            return Err(Error::Hash {
                found,
                expected,
                path,
            });
        }
        check_weights(&manifest, &files.weights)
            .map_err(|reason| Error::Weights { reason, path })?;
        Ok(Self {
            manifest,
            files,
            signature,
        })
    }

    /// The manifest.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Who has signed it: the signature fits, whether the key is known is another matter.
    pub const fn signature(&self) -> Option<&Signature> {
        self.signature.as_ref()
    }

    /// Bytes of the weights.
    pub fn weights(&self) -> &[u8] {
        &self.files.weights
    }

    /// The files, for installing.
    pub const fn files(&self) -> &PackageFiles {
        &self.files
    }

    /// A tensor's shape and values, in memory order; as f32 whatever it is stored as.
    pub fn array(&self, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        let tensors = safetensors::SafeTensors::deserialize(&self.files.weights).ok()?;
        let shape = tensors.tensor(name).ok()?.shape().to_vec();
        Some((shape, stored::floats(&tensors, name).ok()?))
    }

    /// A tensor's shape.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let (_, header) = safetensors::SafeTensors::read_metadata(&self.files.weights).ok()?;
        Some(header.info(name)?.shape.clone())
    }

    /// A tensor's values, in memory order.
    pub fn tensor(&self, name: &str) -> Option<Vec<f32>> {
        let tensors = safetensors::SafeTensors::deserialize(&self.files.weights).ok()?;
        stored::floats(&tensors, name).ok()
    }

    /// Names and types of all stored tensors, e.g. `F16`, in the order of their names.
    pub fn stored_types(&self) -> Vec<(String, String)> {
        let header = safetensors::SafeTensors::read_metadata(&self.files.weights);
        let mut types: Vec<(String, String)> = header.map_or_else(
            |_| Vec::new(),
            |(_, header)| {
                let tensors = header.tensors().into_iter();
                let types = tensors.map(|(name, info)| (name, format!("{:?}", info.dtype)));
                types.collect()
            },
        );
        types.sort();
        types
    }
}

fn check_weights(manifest: &Manifest, bytes: &[u8]) -> Result<(), String> {
    let tensors = safetensors::SafeTensors::deserialize(bytes)
        .map_err(|error| format!("no readable safetensors file ({error})"))?;
    // A byte of int8 becomes four: what the tensors will take is known before any of it is taken.
    let values = tensors.tensors().iter().fold(0_u64, |sum, (_, t)| {
        sum.saturating_add(
            t.shape()
                .iter()
                .fold(1, |n: u64, m| n.saturating_mul(*m as u64)),
        )
    });
    if values.saturating_mul(4) > LARGEST_WEIGHTS {
        return Err(format!(
            "{values} values, at most {} are read",
            LARGEST_WEIGHTS / 4
        ));
    }
    let mut used = BTreeSet::new();
    let mut check = |name: &str, shape: &[usize]| -> Result<(), String> {
        let tensor = tensors
            .tensor(name)
            .map_err(|_| format!("tensor {name:?} is missing"))?;
        if tensor.shape() != shape {
            return Err(format!(
                "tensor {name:?} has shape {:?}, expected {shape:?}",
                tensor.shape()
            ));
        }
        let values = stored::floats(&tensors, name)?;
        if values.iter().any(|v| !v.is_finite()) {
            return Err(format!("tensor {name:?} holds values that are no numbers"));
        }
        used.insert(name.to_owned());
        if tensor.dtype() == safetensors::Dtype::I8 {
            used.insert(stored::scale_name(name));
        }
        Ok(())
    };
    for (network, size, want) in manifest.examples() {
        let Some(graph) = &network.graph else {
            continue;
        };
        for member in network.members() {
            let shape = |name: &str| {
                let tensor = tensors.tensor(&format!("{member}{name}")).ok()?;
                Some(tensor.shape().to_vec())
            };
            let shapes = graph.shapes(&size, &shape)?;
            let got: Vec<_> = graph.outputs.iter().map(|o| &shapes[*o]).collect();
            if got != [&want] {
                return Err(format!("the network gives {got:?}, expected {want:?}"));
            }
            for name in graph.tensors() {
                let name = format!("{member}{name}");
                check(&name, &shape_of(&tensors, &name))?;
            }
        }
    }
    for layer in &manifest.network.layers {
        if let Layer::Conv3d {
            weight,
            bias,
            input,
            output,
            kernel,
            ..
        } = layer
        {
            check(weight, &[*output, *input, *kernel, *kernel, *kernel])?;
            if let Some(bias) = bias {
                check(bias, &[*output])?;
            }
        }
    }
    match tensors
        .names()
        .into_iter()
        .find(|name| !used.contains(*name))
    {
        Some(name) => Err(format!("tensor {name:?} belongs to no layer")),
        None => Ok(()),
    }
}

fn shape_of(tensors: &safetensors::SafeTensors<'_>, name: &str) -> Vec<usize> {
    tensors
        .tensor(name)
        .map_or_else(|_| Vec::new(), |t| t.shape().to_vec())
}
