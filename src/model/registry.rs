//! The models that can be run: bundled ones, and those installed in the home folder.

use std::path::{Path, PathBuf};

use super::builtin;
use super::manifest::Manifest;
use super::package::{Error, PackageFiles, VerifiedPackage};
use crate::whole_file;

/// Models of a home folder: `models/<id>/<version>/`.
#[derive(Clone, Debug)]
pub struct Registry {
    folder: PathBuf,
}

/// A model in the list.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its manifest (checked, but the weights' hash was not).
    pub manifest: Manifest,
    /// Comes with the program.
    pub bundled: bool,
}

impl Registry {
    /// The models in `folder`, which need not exist yet.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// All models, bundled first, then by key. Damaged ones are left out; `verify` names them.
    pub fn list(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = builtin::packages()
            .iter()
            .filter_map(|files| Manifest::parse(&files.manifest).ok())
            .map(|manifest| Entry {
                manifest,
                bundled: true,
            })
            .collect();
        let mut installed: Vec<Entry> = self
            .folders()
            .iter()
            .filter_map(|folder| std::fs::read(folder.join("manifest.json")).ok())
            .filter_map(|bytes| Manifest::parse(&bytes).ok())
            .map(|manifest| Entry {
                manifest,
                bundled: false,
            })
            .collect();
        installed.sort_by_key(|e| e.manifest.key());
        entries.extend(installed);
        entries
    }

    /// Finds `ID` (its highest version) or `ID@VERSION` and verifies it.
    ///
    /// # Errors
    /// [`Error`].
    pub fn load(&self, wanted: &str) -> Result<VerifiedPackage, Error> {
        let entry = self.find(wanted)?;
        let files = if entry.bundled {
            let key = entry.manifest.key();
            let mut bundled = builtin::packages().into_iter();
            bundled
                .find(|f| Manifest::parse(&f.manifest).is_ok_and(|m| m.key() == key))
                .ok_or_else(|| self.no_such(wanted))?
        } else {
            PackageFiles::read(&self.place(&entry.manifest))?
        };
        VerifiedPackage::verify(files)
    }

    /// Finds a model in the list.
    ///
    /// # Errors
    /// [`Error::NoSuchModel`].
    pub fn find(&self, wanted: &str) -> Result<Entry, Error> {
        let (id, version) = match wanted.split_once('@') {
            Some((id, version)) => (id, Some(version)),
            None => (wanted, None),
        };
        let numbers = |text: &str| -> Vec<u64> {
            text.split(['.', '-'])
                .map(|part| part.parse().unwrap_or(0))
                .collect()
        };
        self.list()
            .into_iter()
            .filter(|e| e.manifest.id == id && version.is_none_or(|v| e.manifest.version == v))
            .max_by_key(|e| numbers(&e.manifest.version))
            .ok_or_else(|| self.no_such(wanted))
    }

    /// Installs a verified package; an older copy of the same version is replaced.
    ///
    /// The folder is written whole beside its place and renamed into it: a kill at any moment
    /// leaves the old package or the new one.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn install(&self, package: &VerifiedPackage) -> Result<PathBuf, Error> {
        let folder = self.place(package.manifest());
        let io = |source| Error::Io {
            source,
            path: folder.clone(),
        };
        let parent = folder
            .parent()
            .expect("a place has its id's folder above it");
        std::fs::create_dir_all(parent).map_err(io)?;
        // A dot in front: no package, whatever happens to it.
        let coming = parent.join(format!(".{}.part", package.manifest().version));
        if coming.exists() {
            std::fs::remove_dir_all(&coming).map_err(io)?;
        }
        std::fs::create_dir(&coming).map_err(io)?;
        let files = package.files();
        let write = |name: &str, bytes: &[u8]| {
            whole_file::write(&coming.join(name), |w| -> std::io::Result<()> {
                w.write_all(bytes)
            })
            .map_err(io)
        };
        write("weights.safetensors", &files.weights)?;
        if let Some(card) = &files.card {
            write("MODEL_CARD.md", card)?;
        }
        write("manifest.json", &files.manifest)?;
        swap_in(&coming, &folder).map_err(io)?;
        Ok(folder)
    }

    /// Key and outcome of every model's check, bundled and installed, damaged ones too.
    pub fn verify_all(&self) -> Vec<(String, Result<(), Error>)> {
        let bundled = builtin::packages().into_iter().map(Ok);
        let installed = self
            .folders()
            .into_iter()
            .map(|folder| PackageFiles::read(&folder).map_err(|e| (folder, e)));
        bundled
            .chain(installed)
            .map(|files| match files {
                Ok(files) => {
                    let name = Manifest::parse(&files.manifest)
                        .map_or_else(|_| files.path.display().to_string(), |m| m.key());
                    (name, VerifiedPackage::verify(files).map(|_| ()))
                }
                Err((folder, error)) => (folder.display().to_string(), Err(error)),
            })
            .collect()
    }

    /// Removes an installed model.
    ///
    /// # Errors
    /// [`Error`].
    pub fn remove(&self, wanted: &str) -> Result<String, Error> {
        let entry = self.find(wanted)?;
        let key = entry.manifest.key();
        if entry.bundled {
            return Err(Error::Bundled(key));
        }
        let folder = self.place(&entry.manifest);
        std::fs::remove_dir_all(&folder).map_err(|source| Error::Io {
            source,
            path: folder.clone(),
        })?;
        // The id's folder goes with its last version.
        let _ = folder.parent().map(std::fs::remove_dir);
        Ok(key)
    }

    fn place(&self, manifest: &Manifest) -> PathBuf {
        self.folder.join(&manifest.id).join(&manifest.version)
    }

    fn folders(&self) -> Vec<PathBuf> {
        let children = |folder: &Path| -> Vec<PathBuf> {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let visible = |p: &PathBuf| {
                let name = p.file_name().unwrap_or_default().to_string_lossy();
                p.is_dir() && !name.starts_with('.')
            };
            let mut paths: Vec<PathBuf> = entries.map(|e| e.path()).filter(visible).collect();
            paths.sort();
            paths
        };
        children(&self.folder)
            .iter()
            .flat_map(|id| children(id))
            .collect()
    }

    fn no_such(&self, wanted: &str) -> Error {
        let installed = self.list().iter().map(|e| e.manifest.key()).collect();
        Error::NoSuchModel {
            wanted: wanted.to_owned(),
            installed,
        }
    }
}

/// Moves a finished folder into its place; what was there goes.
fn swap_in(coming: &Path, place: &Path) -> std::io::Result<()> {
    if !place.exists() {
        return std::fs::rename(coming, place);
    }
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        // Some file systems cannot exchange; they take the way below.
        if renameat_with(CWD, coming, CWD, place, RenameFlags::EXCHANGE).is_ok() {
            return std::fs::remove_dir_all(coming);
        }
    }
    std::fs::remove_dir_all(place)?;
    std::fs::rename(coming, place)
}
