//! The study browser: what was found, and which of it is chosen.

use std::path::PathBuf;

use crate::study::{Patient, Series, Study, Uid, Worklist};

/// Names one stack of a series, or a volume file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SeriesKey {
    /// A stack of a DICOM series.
    Stack {
        /// Series Instance UID.
        series: Uid,
        /// Index in `Series::stacks`.
        stack: usize,
    },
    /// A volume file (NIfTI).
    File(PathBuf),
}

impl SeriesKey {
    /// Tells the images of one set of files apart.
    pub fn word(&self) -> String {
        match self {
            Self::Stack { series, stack } => format!("{series}#{stack}"),
            Self::File(_) => "file".to_owned(),
        }
    }
}

/// A volume file outside of DICOM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeFile {
    /// Where it is.
    pub path: PathBuf,
    /// Name on screen.
    pub name: String,
}

/// Everything that was opened, in one list.
#[derive(Clone, Debug, Default)]
pub struct Browser {
    /// DICOM.
    pub worklist: Worklist,
    /// NIfTI.
    pub files: Vec<VolumeFile>,
}

impl Browser {
    /// Adds what an index found; series that are known already are replaced.
    pub fn add(&mut self, found: Worklist) {
        for patient in found.patients {
            let same = |p: &Patient| {
                p.id.expose() == patient.id.expose() && p.name.expose() == patient.name.expose()
            };
            if let Some(known) = self.worklist.patients.iter_mut().find(|p| same(p)) {
                for study in patient.studies {
                    add_study(known, study);
                }
                known
                    .studies
                    .sort_by(|a, b| b.date.expose().cmp(a.date.expose()));
            } else {
                self.worklist.patients.push(patient);
            }
        }
        for skipped in found.skipped {
            if !self.worklist.skipped.contains(&skipped) {
                self.worklist.skipped.push(skipped);
            }
        }
    }

    /// Adds a volume file once.
    pub fn add_file(&mut self, path: PathBuf) {
        if self.files.iter().all(|f| f.path != path) {
            let name = path.file_name().map_or_else(
                || path.display().to_string(),
                |n| n.to_string_lossy().into_owned(),
            );
            self.files.push(VolumeFile { path, name });
        }
    }

    /// Patient, study and series of a key.
    pub fn find(&self, uid: &Uid) -> Option<(&Patient, &Study, &Series)> {
        self.worklist.patients.iter().find_map(|patient| {
            patient.studies.iter().find_map(|study| {
                let series = study
                    .series
                    .iter()
                    .find(|s| s.series_instance_uid == *uid)?;
                Some((patient, study, series))
            })
        })
    }

    /// All stacks and files in the order of the screen.
    pub fn keys(&self) -> Vec<SeriesKey> {
        let stacks = self.worklist.series().flat_map(|(_, series)| {
            (0..series.stacks.len()).map(|stack| SeriesKey::Stack {
                series: series.series_instance_uid.clone(),
                stack,
            })
        });
        let files = self.files.iter().map(|f| SeriesKey::File(f.path.clone()));
        stacks.chain(files).collect()
    }

    /// The stack that a person most likely wants first: the largest volume of the newest study,
    /// else the first stack.
    pub fn first_choice(&self) -> Option<SeriesKey> {
        let score = |key: &SeriesKey| match key {
            SeriesKey::File(_) => 1,
            SeriesKey::Stack { series, stack } => self.find(series).map_or(0, |(_, _, s)| {
                let stack = &s.stacks[*stack];
                if stack.is_volume {
                    1 + stack.images.len()
                } else {
                    1
                }
            }),
        };
        let keys = self.keys();
        let best = keys.iter().map(score).max()?;
        keys.into_iter().find(|key| score(key) == best)
    }

    /// Whether nothing was opened yet.
    pub fn is_empty(&self) -> bool {
        self.worklist.patients.is_empty() && self.files.is_empty()
    }
}

fn add_study(patient: &mut Patient, study: Study) {
    let uid = study.study_instance_uid.clone();
    let Some(known) = patient
        .studies
        .iter_mut()
        .find(|s| s.study_instance_uid == uid)
    else {
        patient.studies.push(study);
        return;
    };
    for series in study.series {
        let uid = &series.series_instance_uid;
        if let Some(old) = known
            .series
            .iter_mut()
            .find(|s| s.series_instance_uid == *uid)
        {
            *old = series;
        } else {
            known.series.push(series);
        }
    }
    known
        .series
        .sort_by_key(|s| (s.number.unwrap_or(i32::MAX), s.series_instance_uid.clone()));
}
