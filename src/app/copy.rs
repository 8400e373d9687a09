//! A copy of the open study without identity.

use std::path::PathBuf;

use super::{Action, App, Command, Dialog, JobId, JobKind, Notice, SeriesKey};

/// What a copy is made of and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyWanted {
    /// All series of the study, or the open one alone.
    pub whole_study: bool,
    /// Intervals of dates, age, sex, technique and structure stay, as most research needs it.
    pub for_research: bool,
    /// Faces are taken out of CT and MR of heads.
    pub deface: bool,
    /// What looks like text in the pixels is blackened.
    pub redact_found: bool,
    /// Where it goes.
    pub folder: Option<PathBuf>,
}

/// The copy as the window shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyState {
    /// As the person has chosen.
    pub wanted: CopyWanted,
    /// The job while it runs.
    pub job: Option<JobId>,
    /// What was done, line by line; doubts and what remains after it.
    pub done: Vec<String>,
    /// What the person must know about the copy.
    pub doubts: Vec<String>,
}

impl App {
    /// Carries out a command about the copy.
    pub(super) fn copy_command(&mut self, command: Command) {
        match command {
            Command::ShowCopy => {
                if self.copy_files(true).is_empty() {
                    self.notices.push(Notice::info(
                        "Nothing to copy",
                        "Open a DICOM study first. Volume files have no attributes to take away.",
                    ));
                } else {
                    self.copy.done.clear();
                    self.copy.doubts.clear();
                    self.dialog = Some(Dialog::Copy);
                }
            }
            Command::SetCopy(wanted) => {
                let folder = self.copy.wanted.folder.take();
                self.copy.wanted = CopyWanted { folder, ..wanted };
            }
            Command::StartCopy => self.start_copy(),
            _ => {}
        }
    }

    /// Files of the open series, or of all series of its study.
    pub fn copy_files(&self, whole_study: bool) -> Vec<PathBuf> {
        let open = self.workspace.open.as_ref();
        let Some(SeriesKey::Stack { series, .. }) = open.map(|open| &open.key) else {
            return Vec::new();
        };
        let Some((_, study, series)) = self.browser.find(series) else {
            return Vec::new();
        };
        let chosen = if whole_study {
            study.series.iter().collect()
        } else {
            vec![series]
        };
        let sources = chosen.into_iter().flat_map(|series| {
            let images = series.stacks.iter().flat_map(|stack| &stack.images);
            images.map(|image| &image.source).chain(&series.objects)
        });
        let mut files: Vec<PathBuf> = sources.map(|source| source.file().clone()).collect();
        files.sort();
        files.dedup();
        files
    }

    fn start_copy(&mut self) {
        let inputs = self.copy_files(self.copy.wanted.whole_study);
        if self.copy.job.is_some() || inputs.is_empty() || self.copy.wanted.folder.is_none() {
            return;
        }
        let (job, task) = self.start(
            JobKind::Export,
            "Writing a copy without identity".to_owned(),
        );
        self.copy.job = Some(job);
        self.copy.done.clear();
        self.copy.doubts.clear();
        self.actions.push(Action::Copy {
            job,
            inputs,
            wanted: self.copy.wanted.clone(),
            task,
        });
    }

    /// Says what was done.
    pub(super) fn copied(&mut self, job: JobId, done: Vec<String>, doubts: Vec<String>) {
        self.finish(job);
        self.copy.done = done;
        self.copy.doubts = doubts;
        if self.dialog != Some(Dialog::Copy) {
            self.notices.push(Notice::info(
                "The copy without identity is written",
                &self.copy.done.join("; "),
            ));
        }
    }
}
