//! A file that appears whole or not at all.
//!
//! Written under a temporary name in the same folder, synchronized, then renamed. When anything
//! fails before that, the temporary file goes away and the old file, if any, stays as it was.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A file on its way: under a temporary name until [`WholeFile::keep`].
#[derive(Debug)]
pub struct WholeFile {
    file: File,
    temporary: PathBuf,
    to: PathBuf,
    kept: bool,
}

impl WholeFile {
    /// Opens the temporary file beside `to`; the folder must exist.
    ///
    /// # Errors
    /// The folder cannot be written, or `to` has no file name.
    pub fn create(to: &Path) -> io::Result<Self> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let name = to
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no file name"))?;
        loop {
            let mut hidden = std::ffi::OsString::from(".");
            hidden.push(name);
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            hidden.push(format!(".{}-{number}.part", std::process::id()));
            let temporary = to.with_file_name(hidden);
            match OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&temporary)
            {
                Ok(file) => {
                    return Ok(Self {
                        file,
                        temporary,
                        to: to.to_owned(),
                        kept: false,
                    });
                }
                // Left over from a process of the same id that was killed: take the next number.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Writes through a buffer and synchronizes the bytes with the disk.
    ///
    /// # Errors
    /// Whatever `write` or the disk says; the file then goes away with `self`.
    pub fn fill<E: From<io::Error>>(
        &mut self,
        write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut buffered = BufWriter::with_capacity(1 << 16, &mut self.file);
        write(&mut buffered)?;
        buffered.flush()?;
        drop(buffered);
        self.file.sync_all()?;
        Ok(())
    }

    /// The temporary name, for reading back what was written.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// The name that the file will have.
    pub fn destination(&self) -> &Path {
        &self.to
    }

    /// Gives the file its name, in place of any file there.
    ///
    /// # Errors
    /// The rename fails; the temporary file is removed.
    pub fn keep(mut self) -> io::Result<()> {
        fs::rename(&self.temporary, &self.to)?;
        self.kept = true;
        // The rename itself reaches the disk with the folder. Not every file system allows this.
        if let Some(folder) = self.to.parent() {
            let folder = if folder.as_os_str().is_empty() {
                Path::new(".")
            } else {
                folder
            };
            if let Ok(folder) = File::open(folder) {
                let _ = folder.sync_all();
            }
        }
        Ok(())
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Writes a file that appears whole or not at all.
///
/// # Errors
/// As [`WholeFile::create`], [`WholeFile::fill`] and [`WholeFile::keep`].
pub fn write<E: From<io::Error>>(
    to: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    let mut file = WholeFile::create(to)?;
    file.fill(write)?;
    file.keep()?;
    Ok(())
}

/// As [`write`], readable by its owner alone where the system can.
///
/// # Errors
/// As [`write`].
pub fn write_private<E: From<io::Error>>(
    to: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    let mut file = WholeFile::create(to)?;
    #[cfg(unix)]
    fs::set_permissions(
        file.temporary(),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )?;
    file.fill(write)?;
    file.keep()?;
    Ok(())
}

/// Makes a folder, and those above it, for its owner alone where the system can.
///
/// # Errors
/// It cannot be made.
pub fn make_private_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Makes a file that only its owner may read, whole or not at all. One that is there stays: another
/// process may have been first, and then its content is the one.
///
/// # Errors
/// It cannot be made.
pub fn make_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no file name"))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(hidden);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // Left over from a process of the same id that was killed.
    let _ = fs::remove_file(&temporary);
    let mut file = options.open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    match linked {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            // No hard links here: the whole-file way, and the rights after it.
            write_private(path, |w| w.write_all(bytes))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write(&path, |w| w.write_all(b"old")).unwrap();
        let failed: io::Result<()> = write(&path, |w| {
            w.write_all(&vec![7; 100_000])?;
            Err(io::Error::other("disk full"))
        });
        assert!(failed.is_err());
        assert_eq!(names(folder.path()), ["a.txt"]);
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }

    #[test]
    fn a_file_is_invisible_until_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let mut file = WholeFile::create(&path).unwrap();
        file.fill(|w| w.write_all(b"new")).unwrap();
        assert!(!path.exists());
        assert_eq!(fs::read(file.temporary()).unwrap(), b"new");
        file.keep().unwrap();
        assert_eq!(names(folder.path()), ["a.txt"]);
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}
