//! A bundle as the Model Zoo ships it: one ZIP file, its files at the root or in one folder.
//!
//! Nothing is unpacked to a name that the archive chose. Configurations are read into memory; the
//! weights go to a file without a name, which the system removes with its last handle.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use zip::ZipArchive;
use zip::read::ZipFile;

use super::Error;
use super::files::TELLING;

/// More files than any bundle has.
const MOST_ENTRIES: usize = 100_000;
/// Weights hardly get smaller by packing; what unpacks to more than twice the archive and this is none.
const SLACK: u64 = 1 << 20;

/// An archive with one bundle in it.
pub(super) struct Zipped {
    archive: ZipArchive<File>,
    /// What stands before every name: empty, or a folder with its slash.
    root: String,
    names: Vec<String>,
    /// Bytes of the archive.
    length: u64,
    path: PathBuf,
}

impl Zipped {
    /// Whether a file is an archive with the files of a bundle, and no package.
    pub fn is_one(path: &Path) -> bool {
        let archive = File::open(path).ok().and_then(|f| ZipArchive::new(f).ok());
        archive.is_some_and(|archive| {
            let names = || archive.file_names().flatten();
            !names().any(|name| name == "manifest.json")
                && names().any(|name| root_of(&name).is_some())
        })
    }

    /// Reads the archive's directory.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io {
            source,
            path: path.to_owned(),
        };
        let refuse = |what: String| Error::NotUnderstood {
            what,
            path: path.to_owned(),
        };
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let damaged = |e: zip::result::ZipError| refuse(format!("the archive is damaged ({e})"));
        let mut archive = ZipArchive::new(file).map_err(damaged)?;
        if archive.len() > MOST_ENTRIES {
            return Err(refuse(format!("{} entries", archive.len())));
        }
        let names: Vec<String> = archive
            .file_names()
            .map(|name| name.map(std::borrow::Cow::into_owned))
            .collect::<Result<_, _>>()
            .map_err(damaged)?;
        if let Some(name) = names.iter().find(|name| leads_out(name)) {
            let name: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
            return Err(refuse(format!("the entry {name:?} leads out of it")));
        }
        if archive.has_overlapping_files().map_err(damaged)? {
            return Err(refuse("entries of the archive overlap".to_owned()));
        }
        let mut roots: Vec<&str> = names.iter().filter_map(|name| root_of(name)).collect();
        roots.sort_unstable();
        roots.dedup();
        let root = match *roots.as_slice() {
            [one] => one.to_owned(),
            [] => return Err(refuse("no configs/metadata.json in the archive".to_owned())),
            [first, second, ..] => {
                return Err(refuse(format!(
                    "several bundles in one archive ({first:?} and {second:?})"
                )));
            }
        };
        Ok(Self {
            archive,
            root,
            names,
            length,
            path: path.to_owned(),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a file of the bundle is, for messages.
    pub fn shown(&self, name: &str) -> PathBuf {
        self.path.join(format!("{}{name}", self.root))
    }

    pub fn has(&self, name: &str) -> bool {
        let whole = format!("{}{name}", self.root);
        self.names.contains(&whole)
    }

    /// At most the first `most` bytes of a file, whatever it declares.
    pub fn beginning(&mut self, name: &str, most: u64) -> Result<Vec<u8>, Error> {
        let shown = self.shown(name);
        let mut bytes = Vec::new();
        let entry = self.entry(name)?;
        let read = entry.take(most).read_to_end(&mut bytes);
        read.map_err(|source| Error::Io {
            source,
            path: shown,
        })?;
        Ok(bytes)
    }

    /// A file of the bundle, unpacked.
    pub fn unpacked(&mut self, name: &str) -> Result<File, Error> {
        let (shown, most) = (self.shown(name), 2 * self.length + SLACK);
        let refuse = |what: String| Error::NotUnderstood {
            what,
            path: shown.clone(),
        };
        let io = |source| Error::Io {
            source,
            path: shown.clone(),
        };
        let mut entry = self.entry(name)?;
        let declared = entry.size();
        if declared > most {
            return Err(refuse(format!(
                "{declared} bytes are declared, more than weights unpack to ({most})"
            )));
        }
        let mut file = tempfile::tempfile().map_err(io)?;
        let mut buffer = vec![0; 1 << 16];
        let mut written = 0;
        loop {
            let count = entry.read(&mut buffer).map_err(io)?;
            if count == 0 {
                break;
            }
            written += count as u64;
            if written > declared {
                return Err(refuse(format!("more than the declared {declared} bytes")));
            }
            file.write_all(&buffer[..count]).map_err(io)?;
        }
        if written != declared {
            return Err(refuse(format!("{written} of {declared} declared bytes")));
        }
        file.rewind().map_err(io)?;
        Ok(file)
    }

    fn entry(&mut self, name: &str) -> Result<ZipFile<'_, File>, Error> {
        let shown = self.shown(name);
        let refuse = |what: String| Error::NotUnderstood { what, path: shown };
        let whole = format!("{}{name}", self.root);
        let entry = match self.archive.by_name(&whole) {
            Ok(entry) => entry,
            Err(error) => return Err(refuse(format!("it cannot be unpacked ({error})"))),
        };
        if entry.is_file() {
            Ok(entry)
        } else {
            Err(refuse("it is a link, no file".to_owned()))
        }
    }
}

/// The folder of the bundle that a telling file belongs to.
fn root_of(name: &str) -> Option<&str> {
    let root = TELLING
        .iter()
        .find_map(|telling| name.strip_suffix(telling))?;
    (root.is_empty() || root.ends_with('/')).then_some(root)
}

fn leads_out(name: &str) -> bool {
    name.starts_with('/')
        || name.contains(['\\', ':', '\0'])
        || name.split('/').any(|part| part == ".." || part == ".")
}
