//! Which series a model is run on.

use std::path::{Path, PathBuf};

use crate::export::Format;
use crate::runtime::Opened;
use crate::study::{FileSource, Issue, Patient, Series, Stack, Study};

/// Fewest slices that count as a volume.
const FEWEST_SLICES: usize = 5;

/// What a batch does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Files, folders, archives.
    pub inputs: Vec<PathBuf>,
    /// Folder for results.
    pub output: PathBuf,
    /// Model `id` or `id@version`.
    pub model: String,
    /// Result forms.
    pub formats: Vec<Format>,
    /// Leave out what the journal says is done.
    pub resume: bool,
}

/// Where an item's voxels come from.
#[derive(Clone, Debug)]
pub enum ItemSource {
    /// A stack of a DICOM series.
    Stack {
        /// Headers: patient, study, series.
        headers: Box<(Patient, Study, Series)>,
        /// Index of the stack.
        stack: usize,
    },
    /// A volume file.
    File(PathBuf),
}

/// One series (or file) of a batch.
#[derive(Clone, Debug)]
pub struct Item {
    /// Name for people: series description or file name.
    pub title: String,
    /// Name in the journal, and the folder below the output.
    pub key: String,
    /// Voxels.
    pub source: ItemSource,
    /// Why it is not suited; `None` when it is.
    pub unsuited: Option<String>,
}

impl Item {
    /// Files of the item, without repetition.
    pub fn inputs(&self) -> Vec<PathBuf> {
        match &self.source {
            ItemSource::File(path) => vec![path.clone()],
            ItemSource::Stack { headers, stack } => {
                let mut paths: Vec<PathBuf> = headers.2.stacks[*stack]
                    .images
                    .iter()
                    .map(|image| match &image.source {
                        FileSource::Path(path) | FileSource::Zip { archive: path, .. } => {
                            path.clone()
                        }
                    })
                    .collect();
                paths.sort();
                paths.dedup();
                paths
            }
        }
    }
}

/// Items of everything that was found, in reading order; unsuited ones say why.
pub fn items(opened: Opened, modality: &str) -> Vec<Item> {
    let mut items = Vec::new();
    for patient in opened.worklist.patients {
        let lean_patient = Patient {
            studies: Vec::new(),
            ..patient.clone()
        };
        for study in patient.studies {
            let lean_study = Study {
                series: Vec::new(),
                ..study.clone()
            };
            for series in study.series {
                for stack in 0..series.stacks.len() {
                    let suffix = if series.stacks.len() > 1 {
                        format!("-stack{stack}")
                    } else {
                        String::new()
                    };
                    let key = format!(
                        "{}/{}{suffix}",
                        study.study_instance_uid, series.series_instance_uid
                    );
                    let unsuited = unsuited(&series, &series.stacks[stack], modality);
                    let headers = (lean_patient.clone(), lean_study.clone(), series.clone());
                    items.push(Item {
                        title: title(&series),
                        key,
                        source: ItemSource::Stack {
                            headers: Box::new(headers),
                            stack,
                        },
                        unsuited,
                    });
                }
            }
        }
    }
    for path in opened.files {
        let key = unique(file_key(&path), &items);
        let title = path
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        items.push(Item {
            title,
            key,
            source: ItemSource::File(path),
            unsuited: None,
        });
    }
    items
}

fn title(series: &Series) -> String {
    if series.description.is_empty() {
        format!("{} series", series.modality)
    } else {
        series.description.clone()
    }
}

fn unsuited(series: &Series, stack: &Stack, modality: &str) -> Option<String> {
    if !modality.is_empty() && series.modality != modality {
        return Some(format!(
            "{} series, the model is for {modality}",
            series.modality
        ));
    }
    if series.issues.contains(&Issue::Localizer) || stack.issues.contains(&Issue::Localizer) {
        return Some("localizer".to_owned());
    }
    if !stack.is_volume {
        return Some("plain images, not a volume".to_owned());
    }
    (stack.images.len() < FEWEST_SLICES).then(|| {
        format!(
            "{} slices, at least {FEWEST_SLICES} are needed",
            stack.images.len()
        )
    })
}

/// A folder name from a file name: letters, digits, `-`, `_`, `.`; never a path.
fn file_key(path: &Path) -> String {
    let name = path
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let stem = name.strip_suffix(".gz").unwrap_or(&name);
    let stem = stem.strip_suffix(".nii").unwrap_or(stem);
    let safe: String = stem
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    let safe = safe.trim_matches('.');
    if safe.is_empty() {
        "volume".to_owned()
    } else {
        safe.to_owned()
    }
}

fn unique(key: String, items: &[Item]) -> String {
    let taken = |key: &str| items.iter().any(|item| item.key == key);
    if !taken(&key) {
        return key;
    }
    (2..)
        .map(|n| format!("{key}-{n}"))
        .find(|key| !taken(key))
        .expect("numbers do not end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_become_folders_that_stay_inside() {
        for (path, key) in [
            ("/a/t1 crop.nii.gz", "t1_crop"),
            ("/a/..nii", "volume"),
            ("/a/x.nii", "x"),
            ("/a/..\\..\\evil.nii", "_.._evil"),
        ] {
            assert_eq!(file_key(Path::new(path)), key, "{path}");
        }
    }

    #[test]
    fn files_of_one_name_get_folders_of_their_own() {
        let opened = Opened {
            files: vec!["/a/x.nii".into(), "/b/x.nii".into()],
            ..Opened::default()
        };
        let keys: Vec<String> = items(opened, "MR").into_iter().map(|i| i.key).collect();
        assert_eq!(keys, ["x", "x-2"]);
    }
}
