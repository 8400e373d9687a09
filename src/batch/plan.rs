//! Which series a model is run on, and where each result goes.

use std::path::{Path, PathBuf};

use ring::digest;

use super::channels;
use super::engine::ModelIdentity;
use crate::export::Format;
use crate::findings::ExplanationMethod;
use crate::study::{FileSource, Issue, Patient, Series, Stack, Study, Worklist, same_kind};

/// Fewest slices that count as a volume.
pub(super) const FEWEST_SLICES: usize = 5;

/// What a batch does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Files, folders, archives.
    pub inputs: Vec<PathBuf>,
    /// Folder for results.
    pub output: PathBuf,
    /// Result forms.
    pub formats: Vec<Format>,
    /// How findings are explained where [`Format::Maps`] is asked for; `None`: the best way that
    /// the model has.
    pub explain: Option<ExplanationMethod>,
    /// Leave out what the journal says is done.
    pub resume: bool,
    /// Averages mirrored passes where the model's plans ask for them.
    pub mirroring: bool,
    /// Channels that a person has named, and the series (by UID) or file (by name) for each.
    pub channels: Vec<(String, String)>,
}

/// Where an item's voxels come from.
#[derive(Clone, Debug)]
pub enum ItemSource {
    /// A stack of a DICOM series.
    Stack {
        /// Headers: patient and study without their lists, and the series.
        headers: Box<(Patient, Study, Series)>,
        /// Index of the stack.
        stack: usize,
    },
    /// A volume file.
    File(PathBuf),
    /// A series without images.
    Nothing,
}

/// One stack of a series (or one volume file) of a batch.
#[derive(Clone, Debug)]
pub struct Item {
    /// Name for people: series description or file name.
    pub title: String,
    /// Name in the journal, and the folder below the output, with `/` between its parts.
    pub key: String,
    /// Voxels; of the first channel where a model takes several images.
    pub source: ItemSource,
    /// The other channels.
    pub further: Vec<ItemSource>,
    /// Why it is not suited; `None` when it is.
    pub unsuited: Option<String>,
}

impl Item {
    /// The images of all channels.
    pub fn sources(&self) -> impl Iterator<Item = &ItemSource> {
        std::iter::once(&self.source).chain(&self.further)
    }

    /// Files of the item, without repetition.
    pub fn inputs(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = self.sources().flat_map(ItemSource::inputs).collect();
        paths.sort();
        paths.dedup();
        paths
    }

    /// Voxels as far as headers tell; files count their bytes.
    pub fn voxels(&self) -> usize {
        self.sources()
            .fold(0, |sum, source| sum.saturating_add(source.voxels()))
    }

    /// Tells this input from another one under the same key: a study that has grown, a file that
    /// was replaced.
    pub fn fingerprint(&self) -> String {
        let mut hash = digest::Context::new(&digest::SHA256);
        for source in self.sources() {
            source.add_to(&mut hash);
        }
        let digest = hash.finish();
        digest.as_ref()[..16]
            .iter()
            .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }
}

impl ItemSource {
    fn inputs(&self) -> Vec<PathBuf> {
        match self {
            Self::Nothing => Vec::new(),
            Self::File(path) => vec![path.clone()],
            Self::Stack { headers, stack } => headers.2.stacks[*stack]
                .images
                .iter()
                .map(|image| match &image.source {
                    FileSource::Path(path) | FileSource::Zip { archive: path, .. } => path.clone(),
                })
                .collect(),
        }
    }

    fn voxels(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::File(path) => {
                std::fs::metadata(path).map_or(0, |m| usize::try_from(m.len()).unwrap_or(0))
            }
            Self::Stack { headers, stack } => {
                let stack = &headers.2.stacks[*stack];
                stack
                    .columns
                    .saturating_mul(stack.rows)
                    .saturating_mul(stack.images.len())
            }
        }
    }

    fn add_to(&self, hash: &mut digest::Context) {
        match self {
            Self::Nothing => {}
            Self::File(path) => {
                hash.update(path.as_os_str().as_encoded_bytes());
                if let Ok(meta) = std::fs::metadata(path) {
                    hash.update(&meta.len().to_le_bytes());
                    let modified = meta
                        .modified()
                        .ok()
                        .and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
                    hash.update(&modified.map_or(0, |t| t.as_nanos()).to_le_bytes());
                }
            }
            Self::Stack { headers, stack } => {
                for image in &headers.2.stacks[*stack].images {
                    hash.update(image.sop_instance_uid.as_str().as_bytes());
                    hash.update(&image.frame.to_le_bytes());
                }
            }
        }
    }
}

/// A label map that a run has written, of another model's batch in the same place.
fn is_result(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name == Format::Nifti.file_name())
        && path.with_file_name(Format::Json.file_name()).is_file()
}

/// Items of everything that was found, in reading order; unsuited ones say why.
///
/// `files` are volume files; those below the plan's output are results of an earlier batch and left
/// out. A model of several channels gets one item for each study, folder or case.
pub fn items(
    worklist: Worklist,
    files: Vec<PathBuf>,
    model: &ModelIdentity,
    plan: &Plan,
) -> Vec<Item> {
    let output = plan.output.canonicalize();
    let output = output.as_deref().unwrap_or(&plan.output);
    let mut files: Vec<PathBuf> = files
        .into_iter()
        .filter(|path| {
            !path
                .canonicalize()
                .is_ok_and(|path| path.starts_with(output))
                && !is_result(path)
        })
        .collect();
    files.sort();
    files.dedup();
    if model.channels.len() > 1 {
        return channels::items(worklist, files, model, &plan.channels);
    }
    let mut items = Vec::new();
    for mut patient in worklist.patients {
        for mut study in std::mem::take(&mut patient.studies) {
            for series in std::mem::take(&mut study.series) {
                let folder = format!(
                    "{}/{}",
                    study.study_instance_uid, series.series_instance_uid
                );
                if series.stacks.is_empty() {
                    let reason = format!("{} series without images", series.modality);
                    items.push(Item::nothing(title(&series), folder, reason));
                    continue;
                }
                for (stack, images) in series.stacks.iter().enumerate() {
                    items.push(Item {
                        title: title(&series),
                        key: format!("{folder}{}", stack_suffix(&series, stack)),
                        unsuited: unsuited(&series, images, &model.modality, model.plain_images),
                        source: ItemSource::Stack {
                            headers: Box::new((patient.clone(), study.clone(), series.clone())),
                            stack,
                        },
                        further: Vec::new(),
                    });
                }
            }
        }
    }
    for path in files {
        let key = unique(file_key(&file_name(&path)), &items);
        items.push(Item {
            title: file_name(&path),
            key,
            source: ItemSource::File(path),
            further: Vec::new(),
            unsuited: None,
        });
    }
    items
}

impl Item {
    /// What cannot be run.
    pub(super) fn nothing(title: String, key: String, reason: String) -> Self {
        Self {
            title,
            key,
            source: ItemSource::Nothing,
            further: Vec::new(),
            unsuited: Some(reason),
        }
    }
}

/// Sets the stacks of one series apart.
fn stack_suffix(series: &Series, stack: usize) -> String {
    if series.stacks.len() > 1 {
        format!("-stack{stack}")
    } else {
        String::new()
    }
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default()
}

pub(super) fn title(series: &Series) -> String {
    if series.description.is_empty() {
        format!("{} series", series.modality)
    } else {
        series.description.clone()
    }
}

pub(super) fn unsuited(
    series: &Series,
    stack: &Stack,
    modality: &str,
    plain_images: bool,
) -> Option<String> {
    if !modality.is_empty() && !same_kind(&series.modality, modality) {
        return Some(format!(
            "{} series, the model is for {modality}",
            series.modality
        ));
    }
    if series.issues.contains(&Issue::Localizer) || stack.issues.contains(&Issue::Localizer) {
        return Some("localizer".to_owned());
    }
    if plain_images {
        return None;
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
pub(super) fn file_key(name: &str) -> String {
    let stem = [".nii.gz", ".nii", ".hdr", ".img"]
        .iter()
        .find_map(|end| {
            let at = name.len().checked_sub(end.len())?;
            name.get(at..)?
                .eq_ignore_ascii_case(end)
                .then(|| &name[..at])
        })
        .unwrap_or(name);
    let safe: String = stem
        .chars()
        .take(80)
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    let safe = safe.trim_matches('.');
    let device = ["con", "prn", "aux", "nul"].iter().any(|d| {
        safe.split('.')
            .next()
            .is_some_and(|s| s.eq_ignore_ascii_case(d))
    });
    match safe {
        "" => "volume".to_owned(),
        safe if device => format!("_{safe}"),
        safe => safe.to_owned(),
    }
}

pub(super) fn unique(key: String, items: &[Item]) -> String {
    // Case does not count: some file systems take both for one folder.
    let taken = |key: &str| items.iter().any(|item| item.key.eq_ignore_ascii_case(key));
    let mut free = key.clone();
    let mut n = 2;
    while taken(&free) {
        free = format!("{key}-{n}");
        n += 1;
    }
    free
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_become_folders_that_stay_inside() {
        for (path, key) in [
            ("/a/t1 crop.nii.gz", "t1_crop"),
            ("/a/T1.NII", "T1"),
            ("/a/..nii", "volume"),
            ("/a/x.nii", "x"),
            ("/a/..\\..\\evil.nii", "_.._evil"),
            ("/a/nul.nii", "_nul"),
        ] {
            assert_eq!(file_key(&file_name(Path::new(path))), key, "{path}");
        }
    }

    fn items_of(files: Vec<PathBuf>, output: &Path) -> Vec<Item> {
        let model = ModelIdentity {
            key: "m@1".to_owned(),
            sha256: String::new(),
            modality: "MR".to_owned(),
            channels: Vec::new(),
            classifies: false,
            plain_images: false,
            unmirrored: false,
        };
        let plan = Plan {
            inputs: Vec::new(),
            output: output.to_owned(),
            formats: Vec::new(),
            explain: None,
            resume: false,
            mirroring: true,
            channels: Vec::new(),
        };
        items(Worklist::default(), files, &model, &plan)
    }

    #[test]
    fn files_of_one_name_get_folders_of_their_own() {
        let files = vec!["/b/X.nii".into(), "/a/x.nii".into()];
        let items = items_of(files, Path::new("/out"));
        let keys: Vec<&str> = items.iter().map(|i| i.key.as_str()).collect();
        assert_eq!(keys, ["x", "X-2"]);
    }

    #[test]
    fn results_of_an_earlier_batch_are_no_inputs() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out");
        std::fs::create_dir(&output).unwrap();
        let (input, result) = (
            folder.path().join("a.nii"),
            output.join("segmentation.nii.gz"),
        );
        for file in [&input, &result] {
            std::fs::write(file, "x").unwrap();
        }
        let items = items_of(vec![result, input], &output);
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].key, "a");
    }
}
