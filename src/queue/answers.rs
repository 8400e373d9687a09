//! What another machine has answered, by what it was asked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest::{Context, SHA256};

use super::seal::{Seal, hex, make_private};
use super::{Error, JobId};

/// The answers of a job. Each is kept under the SHA-256 of everything that was asked: model, part,
/// shape and values; so an answer can never stand for another question.
#[derive(Debug)]
pub struct Answers {
    seal: Arc<Seal>,
    job: JobId,
    folder: PathBuf,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question(String);

impl Answers {
    pub(super) fn open(seal: Arc<Seal>, job: JobId, folder: &Path) -> Result<Self, Error> {
        let folder = folder.join("answers");
        make_private(&folder)?;
        Ok(Self { seal, job, folder })
    }

    /// The question that these bytes ask: `words` are names and sizes, each told apart from the next.
    pub fn question(&self, words: &[&str], values: &[u8]) -> Question {
        let mut context = Context::new(&SHA256);
        for word in words {
            context.update(&(word.len() as u64).to_le_bytes());
            context.update(word.as_bytes());
        }
        context.update(&u64::MAX.to_le_bytes());
        context.update(values);
        let digest = context.finish();
        Question(hex(digest.as_ref()))
    }

    /// The version of a model that its answers are of, where one has come.
    ///
    /// # Errors
    /// [`Error`].
    pub fn version(&self, model: &[&str]) -> Result<Option<String>, Error> {
        let question = self.question(model, b"version");
        let bytes = self
            .seal
            .read(&self.version_file(&question), &self.name(&question))?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Says of which version of a model all of its answers are.
    ///
    /// # Errors
    /// [`Error`].
    pub fn bind(&self, model: &[&str], version: &str) -> Result<(), Error> {
        let question = self.question(model, b"version");
        let path = self.version_file(&question);
        self.seal
            .write(&path, &self.name(&question), version.as_bytes())
    }

    fn version_file(&self, question: &Question) -> PathBuf {
        self.folder.join(format!("version-{}", question.0))
    }

    /// The answer, if it came before.
    ///
    /// # Errors
    /// [`Error`].
    pub fn of(&self, question: &Question) -> Result<Option<Vec<u8>>, Error> {
        self.seal
            .read(&self.folder.join(&question.0), &self.name(question))
    }

    /// Keeps an answer; when this returns, the disk has it.
    ///
    /// # Errors
    /// [`Error`].
    pub fn keep(&self, question: &Question, answer: &[u8]) -> Result<(), Error> {
        let path = self.folder.join(&question.0);
        self.seal.write(&path, &self.name(question), answer)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        std::fs::read_dir(&self.folder).map_or(0, |entries| {
            let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
            names.filter(|n| n.len() == 64).count()
        })
    }

    /// Lets go of all of them, when their results are written.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn clear(&self) -> Result<(), Error> {
        std::fs::remove_dir_all(&self.folder).map_err(Error::io("removing", &self.folder))?;
        make_private(&self.folder)
    }

    fn name(&self, question: &Question) -> String {
        format!("{}/{}", self.job, question.0)
    }
}
