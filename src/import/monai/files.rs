//! A bundle's files: a folder with `configs` and `models`.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Error, yaml};

/// Larger files are no configurations.
const LARGEST_CONFIG: u64 = 4 << 20;

/// Whether a folder looks like a bundle.
pub fn is_bundle(folder: &Path) -> bool {
    folder.join("configs").is_dir()
        && [
            "metadata.json",
            "inference.json",
            "inference.yaml",
            "inference.yml",
        ]
        .iter()
        .any(|name| folder.join("configs").join(name).is_file())
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

/// The first of these configurations that is there, and its path.
pub fn config(folder: &Path, stem: &str) -> Result<(Value, PathBuf), Error> {
    let names = ["json", "yaml", "yml"].map(|end| format!("configs/{stem}.{end}"));
    let found = names.iter().find(|name| folder.join(name).is_file());
    let Some(name) = found else {
        return Err(Error::NotUnderstood {
            what: format!("{} is missing", names[0]),
            path: folder.to_owned(),
        });
    };
    let path = inside(folder, name)?;
    let not_understood = |what: String| Error::NotUnderstood {
        what,
        path: folder.join(name),
    };
    let io = |source| Error::Io {
        source,
        path: path.clone(),
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(&path).map_err(io)?;
    file.take(LARGEST_CONFIG + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() as u64 > LARGEST_CONFIG {
        return Err(not_understood(format!("more than {LARGEST_CONFIG} bytes")));
    }
    let value = if name.ends_with("json") {
        serde_json::from_slice(&bytes).map_err(|e| not_understood(format!("no JSON ({e})")))?
    } else {
        let text = String::from_utf8(bytes).map_err(|_| not_understood("no UTF-8".to_owned()))?;
        yaml::parse(&text).map_err(|e| not_understood(format!("no plain YAML ({e})")))?
    };
    Ok((value, path))
}

/// The weights.
pub fn weights(folder: &Path) -> Result<PathBuf, Error> {
    let name = "models/model.pt";
    if folder.join(name).is_file() {
        return inside(folder, name);
    }
    let script = folder.join("models/model.ts").is_file();
    Err(Error::NotUnderstood {
        what: if script {
            "models/model.ts is TorchScript, a program, and is not run: save its weights with torch.save(network.state_dict(), \"models/model.pt\")"
        } else {
            "models/model.pt is missing (download the bundle with its weights)"
        }
        .to_owned(),
        path: folder.to_owned(),
    })
}

/// What the bundle's license file begins with.
pub fn license(folder: &Path) -> Option<String> {
    let path = inside(folder, "LICENSE").ok()?;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(4096).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    if text.contains("Apache License") {
        return Some("Apache-2.0".to_owned());
    }
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    let clean = line.chars().filter(|c| !c.is_control()).take(100).collect();
    Some(clean)
}
