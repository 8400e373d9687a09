//! A bundle's files: a folder with `configs` and `models`, or the ZIP file of one.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::zipped::Zipped;
use super::{Error, yaml};
use crate::import::pytorch::Checkpoint;

/// Larger files are no configurations.
pub(super) const LARGEST_CONFIG: u64 = 4 << 20;
/// One of these makes a folder a bundle.
pub(super) const TELLING: [&str; 4] = [
    "configs/metadata.json",
    "configs/inference.json",
    "configs/inference.yaml",
    "configs/inference.yml",
];

/// Whether a folder, or a ZIP file, looks like a bundle.
pub fn is_bundle(path: &Path) -> bool {
    if path.is_file() {
        return Zipped::is_one(path);
    }
    TELLING.iter().any(|name| path.join(name).is_file())
}

/// A bundle that is there.
pub(super) enum Files {
    /// A folder.
    Folder(PathBuf),
    /// One ZIP file.
    Zip(Zipped),
}

impl Files {
    /// Opens a folder or a ZIP file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if path.is_file() {
            return Ok(Self::Zip(Zipped::open(path)?));
        }
        Ok(Self::Folder(path.to_owned()))
    }

    /// Where the bundle is.
    pub fn path(&self) -> &Path {
        match self {
            Self::Folder(folder) => folder,
            Self::Zip(zip) => zip.path(),
        }
    }

    /// Where a file of the bundle is, for messages.
    pub fn shown(&self, name: &str) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.join(name),
            Self::Zip(zip) => zip.shown(name),
        }
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Self::Folder(folder) => folder.join(name).is_file(),
            Self::Zip(zip) => zip.has(name),
        }
    }

    /// At most the first `most` bytes of a file.
    fn beginning(&mut self, name: &str, most: u64) -> Result<Vec<u8>, Error> {
        match self {
            Self::Folder(folder) => {
                let path = inside(folder, name)?;
                let io = |source| Error::Io {
                    source,
                    path: path.clone(),
                };
                let mut bytes = Vec::new();
                let file = File::open(&path).map_err(io)?;
                file.take(most).read_to_end(&mut bytes).map_err(io)?;
                Ok(bytes)
            }
            Self::Zip(zip) => zip.beginning(name, most),
        }
    }

    /// The first of these configurations that is there, and its path.
    pub fn config(&mut self, stem: &str) -> Result<(Value, PathBuf), Error> {
        let names = ["json", "yaml", "yml"].map(|end| format!("configs/{stem}.{end}"));
        let Some(name) = names.iter().find(|name| self.has(name)) else {
            return Err(Error::NotUnderstood {
                what: format!("{} is missing", names[0]),
                path: self.path().to_owned(),
            });
        };
        let path = self.shown(name);
        let not_understood = |what: String| Error::NotUnderstood {
            what,
            path: path.clone(),
        };
        let bytes = self.beginning(name, LARGEST_CONFIG + 1)?;
        if bytes.len() as u64 > LARGEST_CONFIG {
            return Err(not_understood(format!("more than {LARGEST_CONFIG} bytes")));
        }
        let value = if name.ends_with("json") {
            serde_json::from_slice(&bytes).map_err(|e| not_understood(format!("no JSON ({e})")))?
        } else {
            let text =
                String::from_utf8(bytes).map_err(|_| not_understood("no UTF-8".to_owned()))?;
            yaml::parse(&text).map_err(|e| not_understood(format!("no plain YAML ({e})")))?
        };
        Ok((value, path))
    }

    /// The weights, and their path.
    pub fn weights(&mut self) -> Result<(Checkpoint, PathBuf), Error> {
        let name = "models/model.pt";
        if !self.has(name) {
            let script = self.has("models/model.ts");
            return Err(Error::NotUnderstood {
                what: if script {
                    "models/model.ts is TorchScript, a program, and is not run: save its weights with torch.save(network.state_dict(), \"models/model.pt\")"
                } else {
                    "models/model.pt is missing (download the bundle with its weights)"
                }
                .to_owned(),
                path: self.path().to_owned(),
            });
        }
        match self {
            Self::Folder(folder) => {
                let path = inside(folder, name)?;
                Ok((Checkpoint::open(&path)?, path))
            }
            Self::Zip(zip) => {
                let path = zip.shown(name);
                Ok((Checkpoint::from_file(zip.unpacked(name)?, &path)?, path))
            }
        }
    }

    /// What the bundle's license file begins with.
    pub fn license(&mut self) -> Option<String> {
        let bytes = self.beginning("LICENSE", 4096).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        if text.contains("Apache License") {
            return Some("Apache-2.0".to_owned());
        }
        let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
        let clean = line.chars().filter(|c| !c.is_control()).take(100).collect();
        Some(clean)
    }
}

/// A file inside the folder, also after links are followed.
fn inside(folder: &Path, name: &str) -> Result<PathBuf, Error> {
    let path = folder.join(name);
    let io = |source| Error::Io {
        source,
        path: path.clone(),
    };
    let real = path.canonicalize().map_err(io)?;
    if !real.starts_with(folder.canonicalize().map_err(io)?) {
        return Err(Error::NotUnderstood {
            what: "it leads out of the bundle".to_owned(),
            path,
        });
    }
    Ok(real)
}
