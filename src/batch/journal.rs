//! What is finished, a line for each series, written and synchronized as it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::ModelIdentity;
use crate::export::Format;

/// One finished series.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Entry {
    /// [`Item::key`](super::Item::key).
    pub key: String,
    /// [`Item::fingerprint`](super::Item::fingerprint).
    pub input: String,
    /// Model `id@version`.
    pub model: String,
    /// SHA-256 of its weights.
    pub model_sha256: String,
    /// Mirrored passes that its plans ask for were left out.
    #[serde(default)]
    pub unmirrored: bool,
    /// Result forms that were asked for.
    pub formats: Vec<String>,
    /// Files that were written, by name.
    pub files: Vec<String>,
    /// `done`, `failed` or `skipped`.
    pub status: String,
    /// Why it failed or was skipped; what a person should know when it is done.
    pub reason: String,
    /// Seconds of the run.
    pub seconds: f64,
    /// Segment name and mL.
    pub volumes_ml: Vec<(String, f64)>,
    /// Finding, probability and call.
    #[serde(default)]
    pub findings: Vec<(String, f64, String)>,
}

impl Entry {
    /// Whether this is the result of the same input, model and forms, and its files are still there.
    pub(super) fn stands_for(
        &self,
        input: &str,
        model: &ModelIdentity,
        formats: &[Format],
        folder: &Path,
    ) -> bool {
        self.status == "done"
            && self.input == input
            && (&self.model, &self.model_sha256) == (&model.key, &model.sha256)
            && self.unmirrored == model.unmirrored
            && formats
                .iter()
                .all(|f| self.formats.iter().any(|known| known == f.name()))
            && !self.files.is_empty()
            && self.files.iter().all(|name| folder.join(name).is_file())
    }
}

/// The journal of an output folder. While it is open, no other batch writes there.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
}

impl Journal {
    /// Opens or makes the journal and returns the whole lines that are there. A torn last line
    /// (after a kill) is cut off: its series is run again.
    ///
    /// # Errors
    /// The file cannot be read or written, or another batch has it open.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<Entry>)> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    "another batch is writing there",
                ));
            }
            // Some network file systems have no locks; one batch at a time is then up to the user.
            Err(TryLockError::Error(error)) => tracing::warn!(%error, "the journal was not locked"),
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let whole = text.iter().rposition(|&b| b == b'\n').map_or(0, |n| n + 1);
        let entries = text[..whole]
            .split(|&b| b == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect();
        file.set_len(whole as u64)?;
        file.seek(SeekFrom::End(0))?;
        Ok((Self { file }, entries))
    }

    /// Appends an entry and waits until the disk has it.
    ///
    /// # Errors
    /// It cannot be written; what was written of the line goes away.
    pub(super) fn append(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let before = self.file.stream_position()?;
        let written = self
            .file
            .write_all(&line)
            .and_then(|()| self.file.sync_data());
        if written.is_err() {
            let _ = self.file.set_len(before);
            let _ = self.file.seek(SeekFrom::Start(before));
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str) -> Entry {
        Entry {
            key: key.to_owned(),
            input: "20 images".to_owned(),
            model: "m@1".to_owned(),
            model_sha256: "00".to_owned(),
            unmirrored: false,
            formats: vec!["csv".to_owned()],
            files: vec!["measurements.csv".to_owned()],
            status: "done".to_owned(),
            reason: String::new(),
            seconds: 1.0,
            volumes_ml: vec![("Left".to_owned(), 3.0)],
            findings: Vec::new(),
        }
    }

    #[test]
    fn a_torn_last_line_is_cut_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (mut journal, _) = Journal::open(&path).unwrap();
        journal.append(&entry("a")).unwrap();
        journal.append(&entry("b")).unwrap();
        drop(journal);
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 9]).unwrap();
        let (mut journal, entries) = Journal::open(&path).unwrap();
        assert_eq!(entries, [entry("a")]);
        journal.append(&entry("c")).unwrap();
        drop(journal);
        let (_, entries) = Journal::open(&path).unwrap();
        assert_eq!(entries, [entry("a"), entry("c")]);
    }

    #[test]
    fn two_batches_do_not_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let _open = Journal::open(&path).unwrap();
        assert_eq!(
            Journal::open(&path).unwrap_err().kind(),
            io::ErrorKind::ResourceBusy
        );
    }

    #[test]
    fn an_entry_stands_only_for_the_same_run_with_its_files_there() {
        let folder = tempfile::tempdir().unwrap();
        let entry = entry("a");
        let of = |input, sha: &str, unmirrored, formats: &[Format]| {
            let model = ModelIdentity {
                key: "m@1".to_owned(),
                sha256: sha.to_owned(),
                modality: String::new(),
                channels: Vec::new(),
                classifies: false,
                plain_images: false,
                unmirrored,
            };
            entry.stands_for(input, &model, formats, folder.path())
        };
        let stands = |input, sha, formats: &[Format]| of(input, sha, false, formats);
        assert!(!stands("20 images", "00", &[Format::Csv]), "no file yet");
        std::fs::write(folder.path().join("measurements.csv"), "x").unwrap();
        assert!(stands("20 images", "00", &[Format::Csv]));
        assert!(!of("20 images", "00", true, &[Format::Csv]));
        assert!(!stands("21 images", "00", &[Format::Csv]));
        assert!(!stands("20 images", "01", &[Format::Csv]));
        assert!(!stands("20 images", "00", &[Format::Csv, Format::Nifti]));
    }
}
