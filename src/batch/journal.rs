//! What is finished, a line for each series, written and synchronized as it ends.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// One finished series.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Entry {
    /// `Item::key`.
    pub key: String,
    /// Model `id@version`.
    pub model: String,
    /// SHA-256 of its weights.
    pub model_sha256: String,
    /// Result forms.
    pub formats: Vec<String>,
    /// `done`, `failed` or `skipped`.
    pub status: String,
    /// Why it failed or was skipped.
    pub reason: String,
    /// Seconds of the run.
    pub seconds: f64,
    /// Segment name and mL.
    pub volumes_ml: Vec<(String, f64)>,
}

/// The journal of an output folder.
pub struct Journal {
    file: File,
}

impl Journal {
    /// Opens or makes the journal; returns the whole lines that are there. A torn last line
    /// (after a kill) is cut off: its series is simply run again.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(path: &Path) -> std::io::Result<(Self, Vec<Entry>)> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
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
    /// When it cannot be written.
    pub fn append(&mut self, entry: &Entry) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str) -> Entry {
        Entry {
            key: key.to_owned(),
            model: "m@1".to_owned(),
            model_sha256: "00".to_owned(),
            formats: vec![],
            status: "done".to_owned(),
            reason: String::new(),
            seconds: 1.0,
            volumes_ml: vec![("Left".to_owned(), 3.0)],
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
        let (_, entries) = Journal::open(&path).unwrap();
        assert_eq!(entries, [entry("a"), entry("c")]);
    }
}
