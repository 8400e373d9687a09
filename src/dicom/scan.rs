//! Paths → files and archive members, and their bytes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use walkdir::WalkDir;
use zip::ZipArchive;

use super::error::Error;
use crate::study::{FileSource, Skipped};
use crate::task::{Cancelled, Task};

/// A member of an archive may inflate to this size …
const MEMBER_FLOOR: u64 = 64 << 20;
/// … or to this multiple of its compressed size.
const MEMBER_RATIO: u64 = 200;

/// Every file below `paths`, members of ZIP archives included, in a stable order.
pub(super) fn find(
    paths: &[PathBuf],
    task: &Task,
) -> Result<(Vec<FileSource>, Vec<Skipped>), Cancelled> {
    let mut found = Found::default();
    for path in paths {
        if path.is_dir() {
            found.folder(path, task)?;
        } else {
            found.file(path);
        }
    }
    found.sources.sort();
    found.sources.dedup();
    Ok((found.sources, found.skipped))
}

#[derive(Default)]
struct Found {
    sources: Vec<FileSource>,
    skipped: Vec<Skipped>,
}

impl Found {
    fn skip(&mut self, path: &Path, reason: String) {
        self.skipped.push(Skipped {
            source: FileSource::Path(path.to_owned()),
            reason,
        });
    }

    fn folder(&mut self, root: &Path, task: &Task) -> Result<(), Cancelled> {
        let real_root = root.canonicalize().ok();
        for entry in WalkDir::new(root).follow_links(false).sort_by_file_name() {
            task.check()?;
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    let path = error.path().unwrap_or(root).to_owned();
                    let reason = error.io_error().map_or_else(
                        || "cannot be read".to_owned(),
                        |e| Error::Io(copy(e)).to_string(),
                    );
                    self.skip(&path, reason);
                    continue;
                }
            };
            let path = entry.path();
            if entry.file_type().is_dir() {
                continue;
            }
            if entry.path_is_symlink() {
                let target = path.canonicalize().ok();
                let inside = match (&target, &real_root) {
                    (Some(target), Some(root)) => target.starts_with(root),
                    _ => false,
                };
                if !inside {
                    self.skip(path, "a link that leads out of the folder".to_owned());
                } else if target.is_some_and(|t| t.is_dir()) {
                    self.skip(path, "a link to a folder that is read anyway".to_owned());
                } else {
                    self.file(path);
                }
                continue;
            }
            self.file(path);
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) {
        match path.metadata() {
            Err(error) => return self.skip(path, Error::Io(error).to_string()),
            Ok(meta) if !meta.is_file() => {
                return self.skip(path, "not a regular file".to_owned());
            }
            Ok(_) => {}
        }
        let name = path
            .file_name()
            .map(|n| n.to_string_lossy().to_lowercase())
            .unwrap_or_default();
        #[expect(
            clippy::case_sensitive_file_extension_comparisons,
            reason = "the name is lower case here"
        )]
        let is_nifti = name.ends_with(".nii") || name.ends_with(".nii.gz");
        if is_nifti {
            return self.skip(
                path,
                "NIfTI: open the file itself, not its folder".to_owned(),
            );
        }
        if starts_as_zip(path) {
            match self.archive(path) {
                Ok(()) => {}
                Err(error) => self.skip(path, error.to_string()),
            }
            return;
        }
        self.sources.push(FileSource::Path(path.to_owned()));
    }

    fn archive(&mut self, path: &Path) -> Result<(), Error> {
        let archive = ZipArchive::new(SharedFile::open(path)?)?;
        for index in 0..archive.len() {
            let Some(Ok(name)) = archive.name_for_index(index) else {
                continue;
            };
            if name.ends_with('/') || name.starts_with("__MACOSX/") {
                continue;
            }
            self.sources.push(FileSource::Zip {
                archive: path.to_owned(),
                index,
                name: name.chars().filter(|c| !c.is_control()).collect(),
            });
        }
        Ok(())
    }
}

fn copy(error: &std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), error.to_string())
}

fn starts_as_zip(path: &Path) -> bool {
    let mut head = [0; 4];
    File::open(path).is_ok_and(|mut f| f.read_exact(&mut head).is_ok())
        && (head == *b"PK\x03\x04" || head == *b"PK\x05\x06")
}

/// Opens sources; archives once each. Cheap to share between threads.
#[derive(Default)]
pub(super) struct Opener {
    archives: HashMap<PathBuf, ZipArchive<SharedFile>>,
}

impl Opener {
    /// For these sources.
    pub fn new<'a>(sources: impl Iterator<Item = &'a FileSource>) -> Self {
        let mut archives = HashMap::new();
        for source in sources {
            if let FileSource::Zip { archive, .. } = source
                && !archives.contains_key(archive)
                && let Ok(file) = SharedFile::open(archive)
                && let Ok(opened) = ZipArchive::new(file)
            {
                archives.insert(archive.clone(), opened);
            }
        }
        Self { archives }
    }

    /// Up to `limit` bytes from the start, and the length of the whole.
    pub fn prefix(&self, source: &FileSource, limit: usize) -> Result<(Vec<u8>, u64), Error> {
        match source {
            FileSource::Path(path) => {
                let file = File::open(path)?;
                let total = file.metadata()?.len();
                let mut bytes = Vec::with_capacity(limit.min(total as usize));
                file.take(limit as u64).read_to_end(&mut bytes)?;
                let whole = bytes.len() < limit;
                let total = if whole { bytes.len() as u64 } else { total };
                Ok((bytes, total))
            }
            FileSource::Zip { archive, index, .. } => {
                let mut archive = self.archive(archive)?;
                let member = archive.by_index(*index)?;
                let total = member.size();
                let mut bytes = Vec::new();
                member.take(limit as u64).read_to_end(&mut bytes)?;
                let whole = bytes.len() < limit;
                let total = if whole { bytes.len() as u64 } else { total };
                Ok((bytes, total))
            }
        }
    }

    /// All bytes.
    pub fn whole(&self, source: &FileSource) -> Result<Vec<u8>, Error> {
        match source {
            FileSource::Path(path) => Ok(std::fs::read(path)?),
            FileSource::Zip { archive, index, .. } => {
                let mut archive = self.archive(archive)?;
                let member = archive.by_index(*index)?;
                let limit = MEMBER_FLOOR.max(member.compressed_size().saturating_mul(MEMBER_RATIO));
                let mut bytes = Vec::new();
                member.take(limit + 1).read_to_end(&mut bytes)?;
                if bytes.len() as u64 > limit {
                    return Err(Error::Bomb { limit });
                }
                Ok(bytes)
            }
        }
    }

    /// Bytes on disk.
    pub fn stored_bytes(&self, source: &FileSource) -> u64 {
        match source {
            FileSource::Path(path) => path.metadata().map_or(0, |m| m.len()),
            FileSource::Zip { archive, index, .. } => self
                .archive(archive)
                .ok()
                .and_then(|mut a| a.by_index_raw(*index).ok().map(|m| m.compressed_size()))
                .unwrap_or(0),
        }
    }

    fn archive(&self, path: &Path) -> Result<ZipArchive<SharedFile>, Error> {
        match self.archives.get(path) {
            Some(archive) => Ok(archive.clone()),
            None => Ok(ZipArchive::new(SharedFile::open(path)?)?),
        }
    }
}

/// One open file read by several threads, each with its own position.
#[derive(Clone)]
struct SharedFile {
    file: Arc<Mutex<File>>,
    position: u64,
    length: u64,
}

impl SharedFile {
    fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self {
            file: Arc::new(Mutex::new(file)),
            position: 0,
            length,
        })
    }
}

impl Read for SharedFile {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut file = self
            .file
            .lock()
            .map_err(|_| std::io::Error::other("another reader of the archive failed"))?;
        file.seek(SeekFrom::Start(self.position))?;
        let count = file.read(buffer)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for SharedFile {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let target = match to {
            SeekFrom::Start(n) => i128::from(n),
            SeekFrom::End(n) => i128::from(self.length) + i128::from(n),
            SeekFrom::Current(n) => i128::from(self.position) + i128::from(n),
        };
        self.position = u64::try_from(target)
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}
