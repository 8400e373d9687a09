//! Jobs: what is to be done, where, and how far it is.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::seal::{Seal, fill, hex, make_private};
use super::{Answers, Error};

/// Random name of a job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobId(String);

impl std::fmt::Display for JobId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// It has not begun, or it was interrupted; in words why.
    Waiting {
        /// "the server cannot be reached", …
        why: String,
    },
    /// All of it is done.
    Done {
        /// How it ended.
        words: String,
    },
    /// It cannot be done.
    Failed {
        /// Why.
        why: String,
    },
    /// A person took it back.
    Cancelled {
        /// What is known and what is not about what was under way.
        words: String,
    },
}

impl State {
    /// Whether there is nothing left to do.
    pub const fn is_over(&self) -> bool {
        !matches!(self, Self::Waiting { .. })
    }

    /// One word.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Done { .. } => "done",
            Self::Failed { .. } => "failed",
            Self::Cancelled { .. } => "cancelled",
        }
    }

    /// What there is to say about it.
    pub fn words(&self) -> &str {
        match self {
            Self::Waiting { why } | Self::Failed { why } => why,
            Self::Done { words } | Self::Cancelled { words } => words,
        }
    }
}

/// A job. `work` is whatever its owner needs to do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job<W> {
    /// Its name.
    pub id: JobId,
    /// When it was made, RFC 3339.
    pub created: String,
    /// The endpoint that does it.
    pub endpoint: String,
    /// What is to be done.
    pub work: W,
    /// How far it is.
    #[serde(flatten)]
    pub state: State,
    /// Values that have left so far, repeats included.
    #[serde(default)]
    pub sent_bytes: u64,
    /// Values that came back.
    #[serde(default)]
    pub received_bytes: u64,
}

/// The jobs of a home.
#[derive(Clone, Debug)]
pub struct Queue {
    folder: PathBuf,
    seal: Arc<Seal>,
}

impl Queue {
    /// The queue in a home.
    ///
    /// # Errors
    /// [`Error`].
    pub fn open(home: &Path) -> Result<Self, Error> {
        let folder = home.join("queue");
        make_private(&folder)?;
        let seal = Arc::new(Seal::open(home)?);
        Ok(Self { folder, seal })
    }

    /// A new job, on disk when this returns.
    ///
    /// # Errors
    /// [`Error`].
    pub fn add<W: Serialize>(
        &self,
        created: &str,
        endpoint: &str,
        work: W,
    ) -> Result<Job<W>, Error> {
        let mut bytes = [0; 8];
        fill(&mut bytes, &self.folder)?;
        let job = Job {
            id: JobId(hex(&bytes)),
            created: created.to_owned(),
            endpoint: endpoint.to_owned(),
            work,
            state: State::Waiting {
                why: "not begun".to_owned(),
            },
            sent_bytes: 0,
            received_bytes: 0,
        };
        make_private(&self.place(&job.id))?;
        self.write(&job)?;
        Ok(job)
    }

    /// All jobs, the oldest first; those that cannot be read apart.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn list<W: for<'a> Deserialize<'a>>(&self) -> Result<(Vec<Job<W>>, Vec<Error>), Error> {
        let (mut jobs, mut broken) = (Vec::new(), Vec::new());
        let entries = fs::read_dir(&self.folder).map_err(Error::io("reading", &self.folder))?;
        for entry in entries.filter_map(Result::ok) {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if !entry.path().is_dir() {
                continue;
            }
            match self.read(&JobId(name)) {
                Ok(Some(job)) => jobs.push(job),
                // Made, and killed before it was written: nothing was asked of anybody yet.
                Ok(None) => {}
                Err(error) => broken.push(error),
            }
        }
        jobs.sort_by(|a, b| (&a.created, &a.id).cmp(&(&b.created, &b.id)));
        Ok((jobs, broken))
    }

    /// The job whose name begins so.
    ///
    /// # Errors
    /// [`Error::Unknown`] when there is none, or more than one.
    pub fn find<W: for<'a> Deserialize<'a>>(&self, name: &str) -> Result<Job<W>, Error> {
        let (jobs, _) = self.list()?;
        let mut found = jobs.into_iter().filter(|j| j.id.0.starts_with(name));
        match (found.next(), found.next()) {
            (Some(job), None) if !name.is_empty() => Ok(job),
            _ => Err(Error::Unknown(name.to_owned())),
        }
    }

    /// Takes a job to run it: no other process can until this is dropped.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Io`].
    pub fn take(&self, id: &JobId) -> Result<Running, Error> {
        let path = self.place(id).join("lock");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(Error::io("opening", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Busy(id.clone())),
            Err(TryLockError::Error(e)) => return Err(Error::io("locking", &path)(e)),
        }
        Ok(Running {
            queue: self.clone(),
            id: id.clone(),
            answers: Arc::new(Answers::open(
                Arc::clone(&self.seal),
                id.clone(),
                &self.place(id),
            )?),
            _lock: file,
        })
    }

    /// Whether a process is on it.
    pub fn is_running(&self, id: &JobId) -> bool {
        matches!(self.take(id), Err(Error::Busy(_)))
    }

    /// Forgets a job that is over, and all that it has kept.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Io`].
    pub fn remove(&self, id: &JobId) -> Result<(), Error> {
        let _running = self.take(id)?;
        let place = self.place(id);
        fs::remove_dir_all(&place).map_err(Error::io("removing", &place))
    }

    fn place(&self, id: &JobId) -> PathBuf {
        self.folder.join(&id.0)
    }

    fn read<W: for<'a> Deserialize<'a>>(&self, id: &JobId) -> Result<Option<Job<W>>, Error> {
        let path = self.place(id).join("job");
        let Some(bytes) = self.seal.read(&path, &format!("{id}/job"))? else {
            return Ok(None);
        };
        match serde_json::from_slice(&bytes) {
            Ok(job) => Ok(Some(job)),
            Err(source) => Err(Error::Content { source, path }),
        }
    }

    fn write<W: Serialize>(&self, job: &Job<W>) -> Result<(), Error> {
        let path = self.place(&job.id).join("job");
        let bytes = serde_json::to_vec(job).map_err(|source| Error::Content {
            source,
            path: path.clone(),
        })?;
        self.seal.write(&path, &format!("{}/job", job.id), &bytes)
    }
}

/// A job that this process runs.
#[derive(Debug)]
pub struct Running {
    queue: Queue,
    id: JobId,
    /// What it has from the other machine.
    pub answers: Arc<Answers>,
    _lock: File,
}

impl Running {
    /// Writes how far the job is; on disk when this returns. Answers of a job that is over go away.
    ///
    /// # Errors
    /// [`Error`].
    pub fn update<W: Serialize>(&self, job: &Job<W>) -> Result<(), Error> {
        debug_assert_eq!(job.id, self.id);
        self.queue.write(job)?;
        if job.state.is_over() {
            self.answers.clear()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> (tempfile::TempDir, Queue) {
        let home = tempfile::tempdir().unwrap();
        let queue = Queue::open(home.path()).unwrap();
        (home, queue)
    }

    #[test]
    fn jobs_and_their_answers_are_there_after_all_else_is_gone() {
        let (home, queue) = queue();
        let job = queue
            .add("2026-11-21T10:00:00Z", "ward", "PATIENT^NAME/ct".to_owned())
            .unwrap();
        let running = queue.take(&job.id).unwrap();
        let question = running.answers.question(&["seg", "1"], b"values");
        running.answers.keep(&question, b"labels").unwrap();
        // A kill: nothing is closed in order.
        std::mem::forget(running);
        let queue = Queue::open(home.path()).unwrap();
        let (jobs, broken) = queue.list::<String>().unwrap();
        assert_eq!(
            (jobs.as_slice(), broken.len()),
            ([job.clone()].as_slice(), 0)
        );
        for entry in walkdir::WalkDir::new(home.path()) {
            let entry = entry.unwrap();
            assert!(!entry.path().to_string_lossy().contains("PATIENT"));
            let bytes = fs::read(entry.path()).unwrap_or_default();
            assert!(!bytes.windows(7).any(|w| w == b"PATIENT"));
            assert!(!bytes.windows(6).any(|w| w == b"labels"));
        }
    }

    #[test]
    fn one_process_at_a_time_and_answers_go_when_a_job_is_over() {
        let (_home, queue) = queue();
        let mut job = queue.add("2026-11-21T10:00:00Z", "ward", 7).unwrap();
        let running = queue.take(&job.id).unwrap();
        assert!(matches!(queue.take(&job.id), Err(Error::Busy(_))));
        assert!(queue.is_running(&job.id));
        assert!(queue.remove(&job.id).is_err());
        let question = running.answers.question(&["a"], b"b");
        running.answers.keep(&question, b"c").unwrap();
        assert_eq!(running.answers.of(&question).unwrap().unwrap(), b"c");
        assert_eq!(running.answers.count(), 1);
        job.state = State::Done {
            words: "1 done".to_owned(),
        };
        running.update(&job).unwrap();
        assert_eq!(running.answers.of(&question).unwrap(), None);
        drop(running);
        assert!(!queue.is_running(&job.id));
        assert_eq!(queue.find::<i32>(&job.id.0[..6]).unwrap(), job);
        assert!(matches!(queue.find::<i32>("zz"), Err(Error::Unknown(_))));
        assert!(matches!(queue.find::<i32>(""), Err(Error::Unknown(_))));
        queue.remove(&job.id).unwrap();
        assert!(queue.list::<i32>().unwrap().0.is_empty());
    }

    #[test]
    fn questions_differ_in_every_part() {
        let (_home, queue) = queue();
        let job = queue.add("2026-11-21T10:00:00Z", "ward", ()).unwrap();
        let running = queue.take(&job.id).unwrap();
        let ask = |words: &[&str], values: &[u8]| running.answers.question(words, values);
        let all = [
            ask(&["ab", "c"], b"d"),
            ask(&["a", "bc"], b"d"),
            ask(&["ab"], b"cd"),
            ask(&["ab", "c"], b"e"),
            ask(&["ab", "c", ""], b"d"),
        ];
        for (n, a) in all.iter().enumerate() {
            assert!(all[n + 1..].iter().all(|b| a != b));
        }
        // An answer that is put in the place of another is not taken for it.
        running.answers.keep(&all[0], b"first").unwrap();
        let folder = queue.place(&job.id).join("answers");
        let file = fs::read_dir(&folder)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        running.answers.keep(&all[1], b"second").unwrap();
        let other = fs::read_dir(&folder)
            .unwrap()
            .map(|e| e.unwrap().path())
            .find(|p| *p != file)
            .unwrap();
        fs::copy(&file, &other).unwrap();
        assert!(matches!(
            running.answers.of(&all[1]),
            Err(Error::Sealed { .. })
        ));
    }
}
