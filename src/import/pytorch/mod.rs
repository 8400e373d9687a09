//! PyTorch checkpoints (`.pth`, `.pt`, `.ckpt`) as plain values and tensors.
//!
//! In: the ZIP form with stored entries and the older form (magic number, pickles, raw storages).
//! Out: [`Value`]s of plain kinds, and tensors that are read when asked for. Nothing of the file is
//! executed: the pickle's instructions run on a machine that can build only those kinds, and every
//! other name in it is refused. Sizes and offsets are checked against the file before they are used.
//! Absent on purpose: TorchScript, storages in big-endian order, writing.

mod archive;
mod build;
mod legacy;
mod machine;
mod source;
mod tensor;
mod value;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

pub use tensor::{Dtype, TensorRef};
pub use value::{Array, Value};

/// Why a checkpoint cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused.
    #[error("could not be read: {path}")]
    Io {
        /// What the system said.
        #[source]
        source: std::io::Error,
        /// The file.
        path: PathBuf,
    },
    /// The file is not what it should be.
    #[error("{fault}: {path}")]
    Refused {
        /// What was found.
        #[source]
        fault: Fault,
        /// The file.
        path: PathBuf,
    },
}

/// What is wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// While reading.
    #[error("could not be read")]
    Io(#[from] std::io::Error),
    /// Neither form.
    #[error("no PyTorch checkpoint ({0})")]
    NotACheckpoint(&'static str),
    /// A program, not weights.
    #[error("a TorchScript archive (a program), where a checkpoint of weights was expected")]
    TorchScript,
    /// The archive around the pickle.
    #[error("the archive is damaged: {0}")]
    Archive(String),
    /// The pickle asks for something that is not plain.
    #[error("the file asks for {0}, which is not plain data")]
    Foreign(String),
    /// The pickle is wrong.
    #[error("the pickle is damaged: {what} at byte {at}")]
    Pickle {
        /// What was found.
        what: String,
        /// Position in the pickle.
        at: u64,
    },
    /// Deeper, larger or more shared than any checkpoint.
    #[error("{0}")]
    TooMuch(String),
    /// A tensor does not fit its storage.
    #[error("a tensor is wrong: {0}")]
    Tensor(String),
    /// A weight that no computation survives.
    #[error("the tensor {name} holds {found} at element {element}")]
    NotFinite {
        /// The tensor.
        name: String,
        /// NaN or an infinity.
        found: f32,
        /// Its place in row-major order.
        element: usize,
    },
    /// Nothing that looks like weights.
    #[error("no weights found: {0}")]
    NoWeights(String),
}

/// A checkpoint: its values, and the file from which tensors are read.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    file: Mutex<File>,
    root: Value,
}

impl Checkpoint {
    /// Reads everything but the tensors.
    ///
    /// # Errors
    /// [`Error`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io {
            source,
            path: path.to_owned(),
        };
        Self::from_file(File::open(path).map_err(io)?, path)
    }

    /// [`Checkpoint::open`] of a file that goes by `path` in messages.
    ///
    /// # Errors
    /// [`Error`].
    pub fn from_file(mut file: File, path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io {
            source,
            path: path.to_owned(),
        };
        let length = file.metadata().map_err(io)?.len();
        let root = read_root(&mut file, length).map_err(|fault| refused(fault, path))?;
        Ok(Self {
            path: path.to_owned(),
            file: Mutex::new(file),
            root,
        })
    }

    /// What the file holds.
    pub fn root(&self) -> &Value {
        &self.root
    }

    /// The elements in row-major order, whatever their kind and order in the file.
    ///
    /// Values that are not finite are passed on; [`Checkpoint::weights_f32`] refuses them.
    ///
    /// # Errors
    /// [`Error`] when the file changed or cannot be read.
    pub fn tensor_f32(&self, tensor: &TensorRef) -> Result<Vec<f32>, Error> {
        let mut file = self
            .file
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        tensor
            .read_f32(&mut *file)
            .map_err(|fault| refused(fault, &self.path))
    }

    /// [`Checkpoint::tensor_f32`] of weights that go by `name`.
    ///
    /// # Errors
    /// [`Error`]; also when an element is not finite.
    pub fn weights_f32(&self, name: &str, tensor: &TensorRef) -> Result<Vec<f32>, Error> {
        let values = self.tensor_f32(tensor)?;
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(values),
            Some(element) => Err(refused(
                Fault::NotFinite {
                    name: source::printable(name),
                    found: values[element],
                    element,
                },
                &self.path,
            )),
        }
    }

    /// The weights by name, in the file's order: nnU-Net's `network_weights`, a `state_dict`, a
    /// `model_state_dict`, a `model`, or the file itself.
    ///
    /// # Errors
    /// [`Error`] when there are none, or when an entry is not a tensor.
    pub fn weights(&self) -> Result<Vec<(&str, &TensorRef)>, Error> {
        state_dict(&self.root).map_err(|fault| refused(fault, &self.path))
    }
}

fn refused(fault: Fault, path: &Path) -> Error {
    let path = path.to_owned();
    match fault {
        Fault::Io(source) => Error::Io { source, path },
        fault => Error::Refused { fault, path },
    }
}

fn read_root(file: &mut File, length: u64) -> Result<Value, Fault> {
    match archive::Archive::read(file, length)? {
        Some(archive) => archive.root(file),
        None => legacy::root(file, length),
    }
}

fn state_dict(root: &Value) -> Result<Vec<(&str, &TensorRef)>, Fault> {
    const PLACES: [&str; 4] = ["network_weights", "state_dict", "model_state_dict", "model"];
    let Some(pairs) = root.as_dict() else {
        return Err(Fault::NoWeights(format!("the file holds {}", root.kind())));
    };
    let found = PLACES
        .iter()
        .find_map(|place| root.get(place).filter(|v| v.as_dict().is_some()));
    let pairs = found.and_then(Value::as_dict).unwrap_or(pairs);
    if pairs.is_empty() {
        return Err(Fault::NoWeights("the dictionary is empty".to_owned()));
    }
    pairs
        .iter()
        .map(|(key, value)| match (key.as_str(), value.as_tensor()) {
            (Some(name), Some(tensor)) => Ok((name, tensor)),
            (Some(name), None) => Err(Fault::NoWeights(format!(
                "{} is {}, not a tensor",
                source::printable(name),
                value.kind()
            ))),
            (None, _) => Err(Fault::NoWeights(format!(
                "an entry is named by {}, not by text",
                key.kind()
            ))),
        })
        .collect()
}
