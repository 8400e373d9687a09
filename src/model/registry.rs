//! The models that can be run: bundled ones, and those installed in the home folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::builtin;
use super::manifest::Manifest;
use super::package::{Error, PackageFiles, VerifiedPackage};
use super::signature::{self, Origin, Publishers, SIGNATURE_FILE};
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
    /// Where it comes from.
    pub origin: Origin,
    /// The version that is meant where only the id is given, though there are higher ones.
    pub pinned: bool,
}

/// What is remembered of a model beside its packages.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
struct Memory {
    /// The version in use where only the id is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pinned: Option<String>,
    /// The highest version that was ever installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    highest: Option<String>,
    /// Who has signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
}

impl Registry {
    /// The models in `folder`, which need not exist yet.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// All models, bundled first, then by key. Damaged ones are left out; `verify` names them.
    pub fn list(&self) -> Vec<Entry> {
        let memory = self.memory();
        let pinned = |m: &Manifest| {
            let known = memory.get(&m.id);
            known.is_some_and(|known| known.pinned.as_ref() == Some(&m.version))
        };
        let mut entries: Vec<Entry> = builtin::packages()
            .iter()
            .filter_map(|files| Manifest::parse(&files.manifest).ok())
            .map(|manifest| Entry {
                pinned: pinned(&manifest),
                manifest,
                bundled: true,
                origin: Origin::Bundled,
            })
            .collect();
        let publishers = self.publishers();
        let mut installed: Vec<Entry> = self
            .folders()
            .iter()
            .filter_map(|folder| {
                // Without its weights: their hash is in the manifest, and checked when it is loaded.
                let files = PackageFiles {
                    manifest: std::fs::read(folder.join("manifest.json")).ok()?,
                    weights: Vec::new(),
                    card: std::fs::read(folder.join("MODEL_CARD.md")).ok(),
                    signature: std::fs::read(folder.join(SIGNATURE_FILE)).ok(),
                    path: folder.clone(),
                };
                let manifest = Manifest::parse(&files.manifest).ok()?;
                let origin = publishers.origin(signature::verify(&files).ok()?);
                Some(Entry {
                    pinned: pinned(&manifest),
                    manifest,
                    bundled: false,
                    origin,
                })
            })
            .collect();
        installed.sort_by_key(|e| e.manifest.key());
        entries.extend(installed);
        entries
    }

    /// The publishers that this machine knows.
    pub fn publishers(&self) -> Publishers {
        Publishers::new(self.folder.join("publishers.json"))
    }

    fn memory(&self) -> BTreeMap<String, Memory> {
        let read = std::fs::read(self.folder.join("versions.json")).ok();
        read.and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    fn remember(&self, change: impl FnOnce(&mut BTreeMap<String, Memory>)) -> Result<(), Error> {
        let path = self.folder.join("versions.json");
        let io = |source| Error::Io {
            source,
            path: path.clone(),
        };
        let mut memory = self.memory();
        change(&mut memory);
        std::fs::create_dir_all(&self.folder).map_err(io)?;
        let bytes = serde_json::to_vec_pretty(&memory).expect("strings");
        whole_file::write(&path, |w| -> std::io::Result<()> { w.write_all(&bytes) }).map_err(io)
    }

    /// Makes a version the one that is meant where only the id is given.
    ///
    /// # Errors
    /// [`Error::NoSuchModel`], [`Error::Io`].
    pub fn pin(&self, wanted: &str) -> Result<String, Error> {
        let manifest = self.find(wanted)?.manifest;
        let key = manifest.key();
        self.remember(|all| all.entry(manifest.id).or_default().pinned = Some(manifest.version))?;
        Ok(key)
    }

    /// The highest version is meant again where only the id is given.
    ///
    /// # Errors
    /// [`Error::NoSuchModel`], [`Error::Io`].
    pub fn unpin(&self, id: &str) -> Result<String, Error> {
        let id = self.find(id)?.manifest.id;
        self.remember(|all| {
            if let Some(known) = all.get_mut(&id) {
                known.pinned = None;
            }
        })?;
        Ok(self.find(&id)?.manifest.key())
    }

    /// Pins the version before the one in use.
    ///
    /// # Errors
    /// [`Error::NoSuchModel`], [`Error::NothingBefore`], [`Error::Io`].
    pub fn roll_back(&self, id: &str) -> Result<String, Error> {
        let used = self.find(id)?.manifest;
        let now = numbers(&used.version);
        let mut before: Vec<Manifest> = self
            .list()
            .into_iter()
            .map(|e| e.manifest)
            .filter(|m| m.id == used.id && numbers(&m.version) < now)
            .collect();
        before.sort_by_key(|m| numbers(&m.version));
        match before.pop() {
            Some(manifest) => self.pin(&manifest.key()),
            None => Err(Error::NothingBefore(used.id)),
        }
    }

    /// Finds `ID` (its pinned version, else its highest) or `ID@VERSION` and verifies it.
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
        let package = VerifiedPackage::verify(files)?;
        if !entry.bundled {
            self.check_publisher(&package)?;
        }
        Ok(package)
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
        self.list()
            .into_iter()
            .filter(|e| e.manifest.id == id && version.is_none_or(|v| e.manifest.version == v))
            .max_by_key(|e| (version.is_none() && e.pinned, numbers(&e.manifest.version)))
            .ok_or_else(|| self.no_such(wanted))
    }

    /// Installs a verified package; an older copy of the same version is replaced. A model stays
    /// with the publisher that has signed it, and a signed one does not go back behind a version
    /// that was here, unless that is allowed.
    ///
    /// The folder is written whole beside its place and renamed into it: a kill at any moment
    /// leaves the old package or the new one.
    ///
    /// # Errors
    /// [`Error::OtherPublisher`], [`Error::Older`], [`Error::Io`].
    pub fn install(&self, package: &VerifiedPackage, allow_older: bool) -> Result<PathBuf, Error> {
        self.check_history(package, allow_older)?;
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
        if !package.manifest().is_on_a_server() {
            write("weights.safetensors", &files.weights)?;
        }
        if let Some(card) = &files.card {
            write("MODEL_CARD.md", card)?;
        }
        if let Some(signature) = &files.signature {
            write(SIGNATURE_FILE, signature)?;
        }
        write("manifest.json", &files.manifest)?;
        swap_in(&coming, &folder).map_err(io)?;
        let Manifest { id, version, .. } = package.manifest();
        self.remember(|all| {
            let known = all.entry(id.clone()).or_default();
            known.public_key = package.signature().map(|s| s.public_key.clone());
            let highest = known.highest.as_deref().map(numbers);
            if highest.is_none_or(|highest| highest < numbers(version)) {
                known.highest = Some(version.clone());
            }
        })?;
        Ok(folder)
    }

    /// A model that was signed once stays with the key that has signed it.
    fn check_publisher(&self, package: &VerifiedPackage) -> Result<(), Error> {
        let id = &package.manifest().id;
        let memory = self.memory();
        let Some(key) = memory.get(id).and_then(|m| m.public_key.as_ref()) else {
            return Ok(());
        };
        let now = package.signature();
        if now.is_some_and(|s| s.public_key.eq_ignore_ascii_case(key)) {
            return Ok(());
        }
        let mut known = self.publishers().list().into_iter();
        let before = known.find(|p| p.public_key.eq_ignore_ascii_case(key));
        Err(Error::OtherPublisher {
            id: id.clone(),
            before: match before {
                Some(publisher) => Origin::Known(publisher).words(),
                None => format!("signed by the key {key}"),
            },
            now: self.publishers().origin(now.cloned()).words(),
            path: package.files().path.clone(),
        })
    }

    fn check_history(&self, package: &VerifiedPackage, allow_older: bool) -> Result<(), Error> {
        self.check_publisher(package)?;
        let Manifest { id, version, .. } = package.manifest();
        let memory = self.memory();
        let highest = memory.get(id).and_then(|m| m.highest.as_ref());
        match highest {
            Some(highest)
                if package.signature().is_some()
                    && numbers(version) < numbers(highest)
                    && !allow_older =>
            {
                Err(Error::Older {
                    id: id.clone(),
                    version: version.clone(),
                    highest: highest.clone(),
                    path: package.files().path.clone(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Key and outcome of every model's check, bundled and installed, damaged ones too.
    pub fn verify_all(&self) -> Vec<(String, Result<(), Error>)> {
        let bundled = builtin::packages()
            .into_iter()
            .map(|files| (Ok(files), PathBuf::new()));
        let installed = self
            .folders()
            .into_iter()
            .map(|folder| (PackageFiles::read(&folder), folder));
        bundled
            .chain(installed)
            .map(|(files, folder)| match files {
                Ok(files) => {
                    let name = Manifest::parse(&files.manifest)
                        .map_or_else(|_| files.path.display().to_string(), |m| m.key());
                    (name, VerifiedPackage::verify(files).map(|_| ()))
                }
                Err(error) => (folder.display().to_string(), Err(error)),
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
        // The id's folder goes with its last version, and what was remembered of it too.
        let last = folder
            .parent()
            .is_some_and(|p| std::fs::remove_dir(p).is_ok());
        let Manifest { id, version, .. } = &entry.manifest;
        self.remember(|all| {
            if last {
                all.remove(id);
            } else if let Some(known) = all.get_mut(id)
                && known.pinned.as_ref() == Some(version)
            {
                known.pinned = None;
            }
        })?;
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

/// Parts of a version, for comparing.
fn numbers(version: &str) -> Vec<u64> {
    version
        .split(['.', '-'])
        .map(|part| part.parse().unwrap_or(0))
        .collect()
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
