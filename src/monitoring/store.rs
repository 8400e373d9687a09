//! The files: a month each, appended to line by line.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::record::{self, Record};

/// Why a record was not kept, or the store could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{action} failed: {path}")]
pub struct Error {
    /// `opening`, `locking`, `writing`, …
    pub action: &'static str,
    /// What the system said.
    #[source]
    pub source: io::Error,
    /// The file or folder.
    pub path: PathBuf,
}

/// The records of one home folder. Cheap to clone; any number of threads and processes may append.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

/// What the files hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// In the order of files and lines.
    pub records: Vec<Record>,
    /// Lines that are damaged, half-written or of a shape that is not known.
    pub left_out: usize,
}

impl Store {
    /// The store in `home/monitoring`, which need not exist yet.
    pub fn new(home: &Path) -> Self {
        Self {
            folder: home.join("monitoring"),
        }
    }

    /// Appends a record to the file of its month: when this returns, it has reached the disk.
    ///
    /// A half-written line that a crash left behind goes first; a whole one that only lacks its
    /// end gets it.
    ///
    /// # Errors
    /// The file cannot be written; nothing was kept then.
    pub fn append(&self, record: &Record) -> Result<(), Error> {
        let path = self
            .folder
            .join(record.time().format("%Y-%m.jsonl").to_string());
        let at = |action| {
            let path = path.clone();
            move |source| Error {
                action,
                source,
                path,
            }
        };
        let mut line = record::line(record).map_err(|e| at("writing")(e.into()))?;
        line.push(b'\n');
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.folder).map_err(at("creating"))?;
        let is_new = !path.exists();
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .map_err(at("opening"))?;
        // Advisory and released with the handle: one writer at a time among all processes.
        file.lock().map_err(at("locking"))?;
        let before = mend(&mut file).map_err(at("mending"))?;
        if let Err(source) = file.write_all(&line).and_then(|()| file.sync_data()) {
            // A full disk: what was written of the line goes away again, if the system lets us.
            let _ = file.set_len(before);
            return Err(at("writing")(source));
        }
        if is_new && let Ok(folder) = File::open(&self.folder) {
            // Not every file system allows this.
            let _ = folder.sync_all();
        }
        Ok(())
    }

    /// All that is kept; an absent folder holds nothing.
    ///
    /// # Errors
    /// A file that is there cannot be read.
    pub fn read(&self) -> Result<Kept, Error> {
        let at = |action, path: &Path| {
            let path = path.to_owned();
            move |source| Error {
                action,
                source,
                path,
            }
        };
        let mut kept = Kept::default();
        let entries = match fs::read_dir(&self.folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(kept),
            other => other.map_err(at("reading", &self.folder))?,
        };
        let mut paths: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "jsonl"))
            .collect();
        paths.sort();
        for path in paths {
            let text = fs::read(&path).map_err(at("reading", &path))?;
            let lines = text.split(|&b| b == b'\n').filter(|line| !line.is_empty());
            for line in lines {
                match record::parse(line) {
                    Some(record) => kept.records.push(record),
                    None => kept.left_out += 1,
                }
            }
        }
        Ok(kept)
    }
}

/// Brings a file to the end of a line and gives its length.
fn mend(file: &mut File) -> io::Result<u64> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut torn: Vec<u8> = Vec::new();
    let mut end = length;
    // Back to the last end of line, piece by piece.
    while end > 0 {
        let take = end.min(4096);
        file.seek(SeekFrom::Start(end - take))?;
        let mut piece = vec![0; take as usize];
        file.read_exact(&mut piece)?;
        let whole = piece.iter().rposition(|&b| b == b'\n').map(|n| n + 1);
        torn.splice(0..0, piece[whole.unwrap_or(0)..].iter().copied());
        end = end - take + whole.unwrap_or(0) as u64;
        if whole.is_some() {
            break;
        }
    }
    if torn.is_empty() {
        return Ok(length);
    }
    if record::parse(&torn).is_some() {
        file.write_all(b"\n")?;
        return Ok(length + 1);
    }
    file.set_len(end)?;
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitoring::{Review, Reviewed, Verdict};

    fn review(day: &str, run: &str) -> Record {
        Record::Review(Review {
            time: format!("{day}T10:00:00.125Z").parse().unwrap(),
            run: run.to_owned(),
            model: "m".to_owned(),
            version: "1".to_owned(),
            of: Reviewed::Segments,
            from: Verdict::NotReviewed,
            to: Verdict::Accepted,
            model_call: None,
            reader_call: None,
        })
    }

    #[test]
    fn months_have_files_and_records_come_back_as_they_were() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path());
        assert_eq!(store.read().unwrap(), Kept::default());
        let records = [
            review("2026-10-31", "a"),
            review("2026-11-01", "b"),
            review("2026-11-30", "c"),
        ];
        for record in &records {
            store.append(record).unwrap();
        }
        let kept = store.read().unwrap();
        assert_eq!((kept.records.as_slice(), kept.left_out), (&records[..], 0));
        let text = fs::read_to_string(home.path().join("monitoring/2026-11.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.starts_with("{\"shape\":\"negatoscope-monitoring/1\",\"kind\":\"review\""));
    }

    #[test]
    fn a_line_torn_by_a_kill_at_any_byte_costs_that_line_alone() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path());
        let path = home.path().join("monitoring/2026-11.jsonl");
        store.append(&review("2026-11-01", "a")).unwrap();
        let first = fs::read(&path).unwrap().len();
        store.append(&review("2026-11-02", "b")).unwrap();
        let whole = fs::read(&path).unwrap();
        for cut in first..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let complete = cut + 1 == whole.len();
            let known = if complete { 2 } else { 1 };
            assert_eq!(store.read().unwrap().records.len(), known, "{cut}");
            store.append(&review("2026-11-03", "c")).unwrap();
            let kept = store.read().unwrap();
            // A line that lacks only its end is kept.
            assert_eq!((kept.records.len(), kept.left_out), (known + 1, 0), "{cut}");
            assert_eq!(kept.records[known], review("2026-11-03", "c"));
        }
    }

    #[test]
    fn a_torn_line_longer_than_one_reading_is_found() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path());
        store.append(&review("2026-11-01", "a")).unwrap();
        let path = home.path().join("monitoring/2026-11.jsonl");
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend(std::iter::repeat_n(b'x', 10_000));
        fs::write(&path, &bytes).unwrap();
        store.append(&review("2026-11-02", "b")).unwrap();
        assert_eq!(store.read().unwrap().records.len(), 2);
    }

    #[test]
    fn lines_of_another_shape_are_left_out_and_stay() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path());
        let path = home.path().join("monitoring/2026-11.jsonl");
        fs::create_dir_all(home.path().join("monitoring")).unwrap();
        fs::write(&path, "{\"shape\":\"negatoscope-monitoring/9\"}\nno json\n").unwrap();
        store.append(&review("2026-11-02", "b")).unwrap();
        let kept = store.read().unwrap();
        assert_eq!((kept.records.len(), kept.left_out), (1, 2));
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);
    }

    #[test]
    fn writers_at_the_same_time_lose_nothing() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path());
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let store = &store;
                scope.spawn(move || {
                    for n in 0..10 {
                        let run = format!("{thread}-{n}");
                        store.append(&review("2026-11-02", &run)).unwrap();
                    }
                });
            }
        });
        let kept = store.read().unwrap();
        assert_eq!((kept.records.len(), kept.left_out), (40, 0));
    }
}
