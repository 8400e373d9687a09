//! ONNX files (operation sets 11 to 21) → packages.
//!
//! In: `MODEL.onnx` (with its external weights inside its folder) and what a person states beside it
//! in `MODEL.toml` or `MODEL.json`, because the format has no words for it: modality, grid,
//! normalization, labels. Out: a package that runs by MONAI's procedure. The file is read by an own
//! reader of its wire format; its nodes become operations of the project's graph, shape arithmetic
//! is computed once for the stated input size. What is not understood is refused with the
//! operation's and the node's name. Absent on purpose: control flow, quantized weights, training,
//! operations of other domains.

mod einsum;
mod facts;
mod fold;
mod grid;
mod known;
mod package;
mod patterns;
mod proto;
mod resize;
mod settings;
mod template;
mod translate;
mod values;
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use facts::Facts;
use known::Files;
use settings::Settings;
use translate::Translated;

use crate::model::graph::Graph;
use crate::model::{PackageFiles, VerifiedPackage};

/// Why an ONNX file cannot be used.
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
    /// Something in the file is broken or not understood.
    #[error("{what}: {path}")]
    NotUnderstood {
        /// Operation, tensor or field by its name, and what is wrong with it.
        what: String,
        /// The file.
        path: PathBuf,
    },
    /// The settings.
    #[error("the settings cannot be used, {what}: {path}")]
    Settings {
        /// What is wrong.
        what: String,
        /// The file of settings.
        path: PathBuf,
    },
    /// Neither the file nor settings say how to use it.
    #[error(
        "an ONNX file does not say how a scan is prepared and what the result means; state {} in {beside} (`negatoscope models import --template` writes such a file to fill in): {path}", facts.join(", ")
    )]
    Missing {
        /// Names of settings.
        facts: Vec<&'static str>,
        /// Where they are looked for.
        beside: PathBuf,
        /// The model.
        path: PathBuf,
    },
}

/// A network with its weights, for those who have an own way to prepare and decide.
#[derive(Debug)]
pub struct Imported {
    /// The network.
    pub graph: Graph,
    /// The bytes of a `weights.safetensors`.
    pub weights: Vec<u8>,
    /// The result's shape for the input that was asked for.
    pub result: Vec<usize>,
    /// The file ends with an arg max over the channels, which is left out.
    pub largest: bool,
}

/// Whether a path is an ONNX file by its ending.
pub fn is_model(path: &Path) -> bool {
    path.extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("onnx"))
        && path.is_file()
}

/// Reads a file with its settings into a package.
///
/// `settings`: a file; without one `MODEL.toml` or `MODEL.json` beside the model.
///
/// # Errors
/// [`Error`], naming what is missing or not understood.
pub fn package(path: &Path, settings: Option<&Path>) -> Result<VerifiedPackage, super::Error> {
    let opened = Opened::new(path)?;
    let beside = match settings {
        Some(file) => file.to_owned(),
        None => opened.beside()?,
    };
    let in_settings = |what: String| Error::Settings {
        what,
        path: beside.clone(),
    };
    let stated = if settings.is_some() || beside.is_file() {
        Settings::read(&beside).map_err(in_settings)?
    } else {
        Settings::default()
    };
    let facts = package::missing(&opened.facts, &stated);
    if !facts.is_empty() {
        return Err(Error::Missing {
            facts,
            beside,
            path: path.to_owned(),
        }
        .into());
    }
    let shape = package::input_shape(&opened.facts, &stated).map_err(in_settings)?;
    let (translated, saved) = opened.translate(&shape, stated.output.name.as_deref())?;
    let manifest = package::manifest(path, &opened.facts, &stated, &shape, translated, &saved)
        .map_err(in_settings)?;
    let manifest = serde_json::to_vec_pretty(&manifest)
        .map_err(|e| opened.refuse(format!("the manifest cannot be written ({e})")))?;
    Ok(VerifiedPackage::verify(PackageFiles {
        manifest,
        weights: saved,
        card: None,
        signature: None,
        path: path.to_owned(),
    })?)
}

/// Reads the network alone.
///
/// `spatial`: sizes along the input's spatial axes; `None` takes the file's.
///
/// # Errors
/// [`Error`].
pub fn network(
    path: &Path,
    spatial: Option<&[usize]>,
    output: Option<&str>,
) -> Result<Imported, Error> {
    let opened = Opened::new(path)?;
    let mut settings = Settings::default();
    settings.input.size = spatial.map(<[usize]>::to_vec);
    let shape = package::input_shape(&opened.facts, &settings).map_err(|e| opened.refuse(e))?;
    let (translated, weights) = opened.translate(&shape, output)?;
    Ok(Imported {
        graph: translated.graph,
        weights,
        result: translated.result,
        largest: translated.largest,
    })
}

/// Settings to fill in, with what the file itself says.
///
/// # Errors
/// [`Error`].
pub fn template(path: &Path) -> Result<String, Error> {
    let opened = Opened::new(path)?;
    Ok(template::template(path, &opened.facts))
}

/// A file whose messages were read.
struct Opened {
    path: PathBuf,
    model: proto::Model,
    files: Files,
    facts: Facts,
}

impl Opened {
    fn new(path: &Path) -> Result<Self, Error> {
        let refuse = |what: String| Error::NotUnderstood {
            what,
            path: path.to_owned(),
        };
        let file = std::fs::File::open(path).map_err(|source| Error::Io {
            source,
            path: path.to_owned(),
        })?;
        let (model, wire) =
            proto::read(file).map_err(|e| refuse(format!("no readable ONNX file, {e}")))?;
        let facts = Facts::of(&model).map_err(refuse)?;
        Ok(Self {
            path: path.to_owned(),
            model,
            files: Files::new(wire, path),
            facts,
        })
    }

    fn refuse(&self, what: String) -> Error {
        Error::NotUnderstood {
            what,
            path: self.path.clone(),
        }
    }

    /// Where settings are looked for.
    fn beside(&self) -> Result<PathBuf, Error> {
        let [toml, json] = ["toml", "json"].map(|e| self.path.with_extension(e));
        match (toml.is_file(), json.is_file()) {
            (true, true) => Err(self
                .refuse("there are settings in TOML and in JSON beside it: name one".to_owned())),
            (false, true) => Ok(json),
            _ => Ok(toml),
        }
    }

    fn translate(
        &self,
        shape: &[usize],
        output: Option<&str>,
    ) -> Result<(Translated, Vec<u8>), Error> {
        let names = &self.facts.outputs;
        let output = match output {
            Some(name) if names.iter().any(|n| n == name) => name,
            None if names.len() == 1 => &names[0],
            _ => {
                return Err(self.refuse(format!(
                    "its results are {names:?}: state one of them as output.name"
                )));
            }
        };
        let input = (self.facts.input.as_str(), shape);
        let translated = translate::translate(
            &self.model.graph,
            self.facts.opset,
            &self.files,
            input,
            output,
        )
        .map_err(|e| self.refuse(e))?;
        let saved = package::saved(&translated.weights, &self.files).map_err(|e| self.refuse(e))?;
        let shapes: BTreeMap<&str, &[usize]> = translated
            .weights
            .iter()
            .map(|(name, known)| (name.as_str(), known.shape.as_slice()))
            .collect();
        // The whole graph once more, as every package is checked.
        translated
            .graph
            .shapes(&shape[2..], &|name| shapes.get(name).map(|s| s.to_vec()))
            .map_err(|e| self.refuse(e))?;
        Ok((translated, saved))
    }
}
