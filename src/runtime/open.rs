//! Opening: from paths to headers, from a stack to voxels.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::app::SeriesKey;
use crate::study::{Patient, Series, Study, Worklist};
use crate::task::{Cancelled, Task};
use crate::volume::{VoiWindow, Volume, auto_window};
use crate::{dicom, nifti};

/// Why voxels could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// As asked.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// A DICOM stack.
    #[error(transparent)]
    Dicom(dicom::Error),
    /// A volume file.
    #[error(transparent)]
    Nifti(nifti::Error),
    /// The key names nothing that is known.
    #[error("the series is not among the opened ones")]
    Unknown,
}

/// What paths held.
#[derive(Debug, Default)]
pub struct Opened {
    /// DICOM.
    pub worklist: Worklist,
    /// NIfTI.
    pub files: Vec<PathBuf>,
}

/// Reads headers below `paths`.
///
/// # Errors
/// [`Cancelled`]; everything else ends in `skipped`.
pub fn index_paths(paths: &[PathBuf], task: &Task) -> Result<Opened, Cancelled> {
    let (files, rest): (Vec<_>, Vec<_>) = paths
        .iter()
        .cloned()
        .partition(|path| path.is_file() && is_nifti(path));
    let mut opened = Opened {
        worklist: dicom::index(&rest, task)?,
        files,
    };
    // NIfTI files inside of folders are offered too.
    let (found, skipped) = std::mem::take(&mut opened.worklist.skipped)
        .into_iter()
        .partition(|s| matches!(&s.source, crate::study::FileSource::Path(path) if is_nifti(path)));
    opened.worklist.skipped = skipped;
    let found: Vec<crate::study::Skipped> = found;
    for entry in found {
        if let crate::study::FileSource::Path(path) = entry.source {
            opened.files.push(path);
        }
    }
    Ok(opened)
}

/// Whether a name ends like a NIfTI file's.
pub fn is_nifti(path: &Path) -> bool {
    nifti::is_nifti_name(path)
}

/// All voxels of a stack.
///
/// # Errors
/// [`LoadError`].
pub fn load_stack(
    patient: &Patient,
    study: &Study,
    series: &Series,
    stack: usize,
    task: &Task,
) -> Result<Volume, LoadError> {
    let context = dicom::SeriesContext {
        patient,
        study,
        series,
    };
    dicom::load_volume(context, stack, task).map_err(dicom_error)
}

/// All voxels of a volume file.
///
/// # Errors
/// [`LoadError`].
pub fn load_file(path: &Path, task: &Task) -> Result<Volume, LoadError> {
    nifti::read(path, task).map_err(nifti_error)
}

/// All voxels of what a key names.
///
/// # Errors
/// [`LoadError`].
pub fn load_key(
    key: &SeriesKey,
    headers: Option<&(Patient, Study, Series)>,
    task: &Task,
) -> Result<(Arc<Volume>, VoiWindow), LoadError> {
    let volume = match (key, headers) {
        (SeriesKey::File(path), _) => nifti::read(path, task).map_err(nifti_error)?,
        (SeriesKey::Stack { stack, .. }, Some((patient, study, series))) => {
            load_stack(patient, study, series, *stack, task)?
        }
        _ => return Err(LoadError::Unknown),
    };
    task.check()?;
    let window = auto_window(&volume);
    Ok((Arc::new(volume), window))
}

/// One slice of a stack.
///
/// # Errors
/// [`LoadError`].
pub fn load_slice(
    headers: &(Patient, Study, Series),
    stack: usize,
    slice: usize,
) -> Result<(Arc<Volume>, VoiWindow), LoadError> {
    let (patient, study, series) = headers;
    let context = dicom::SeriesContext {
        patient,
        study,
        series,
    };
    let volume = dicom::load_image(context, stack, slice).map_err(dicom_error)?;
    let window = auto_window(&volume);
    Ok((Arc::new(volume), window))
}

fn dicom_error(error: dicom::Error) -> LoadError {
    match error {
        dicom::Error::Cancelled(cancelled) => LoadError::Cancelled(cancelled),
        other => LoadError::Dicom(other),
    }
}

fn nifti_error(error: nifti::Error) -> LoadError {
    match error {
        nifti::Error::Cancelled(cancelled) => LoadError::Cancelled(cancelled),
        other => LoadError::Nifti(other),
    }
}

/// The volume that a command line means.
#[derive(Debug)]
pub struct Picked {
    /// Its voxels.
    pub volume: Volume,
    /// What a person should know about the choice.
    pub notes: Vec<String>,
}

/// Why no volume was picked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PickError {
    /// Loading failed.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Nothing is there.
    #[error("no images in {path}{}", first_reason(.reasons))]
    NoImages {
        /// What was searched.
        path: PathBuf,
        /// Why files were skipped.
        reasons: Vec<String>,
    },
    /// The series is not there.
    #[error("no series {uid} in {path}; there are: {}", .available.join(", "))]
    NoSuchSeries {
        /// Wanted.
        uid: String,
        /// What was searched.
        path: PathBuf,
        /// Series with images.
        available: Vec<String>,
    },
}

fn first_reason(reasons: &[String]) -> String {
    match reasons {
        [] => String::new(),
        [one] => format!(": {one}"),
        [first, ..] => format!(": {} files skipped, the first: {first}", reasons.len()),
    }
}

/// Loads the series `uid`, or the largest stack below `path`.
///
/// # Errors
/// [`PickError`].
pub fn pick_volume(path: &Path, uid: Option<&str>, task: &Task) -> Result<Picked, PickError> {
    let opened = index_paths(&[path.to_owned()], task).map_err(LoadError::from)?;
    let mut browser = crate::app::Browser::default();
    let reasons: Vec<String> = opened
        .worklist
        .skipped
        .iter()
        .map(|s| s.reason.clone())
        .collect();
    browser.add(opened.worklist);
    for file in opened.files {
        browser.add_file(file);
    }
    let keys = browser.keys();
    let key = match uid {
        None => browser.first_choice(),
        Some(uid) => {
            // The largest stack of that series.
            let of_series = keys.iter().filter(
                |key| matches!(key, SeriesKey::Stack { series, .. } if series.as_str() == uid),
            );
            of_series
                .max_by_key(|key| stack_size(&browser, key))
                .cloned()
                .map(Some)
                .ok_or_else(|| PickError::NoSuchSeries {
                    uid: uid.to_owned(),
                    path: path.to_owned(),
                    available: browser
                        .worklist
                        .series()
                        .filter(|(_, s)| !s.stacks.is_empty())
                        .map(|(_, s)| s.series_instance_uid.to_string())
                        .collect(),
                })?
        }
    };
    let Some(key) = key else {
        return Err(PickError::NoImages {
            path: path.to_owned(),
            reasons,
        });
    };
    let mut notes = Vec::new();
    if keys.len() > 1 {
        let name = match &key {
            SeriesKey::Stack { series, stack } => format!("series {series}, stack {stack}"),
            SeriesKey::File(path) => path.display().to_string(),
        };
        notes.push(format!("{} volumes found, took {name}", keys.len()));
    }
    let volume = match &key {
        SeriesKey::File(path) => nifti::read(path, task).map_err(nifti_error)?,
        SeriesKey::Stack { series, stack } => {
            let (patient, study, series) = browser.find(series).ok_or(LoadError::Unknown)?;
            load_stack(patient, study, series, *stack, task)?
        }
    };
    Ok(Picked { volume, notes })
}

fn stack_size(browser: &crate::app::Browser, key: &SeriesKey) -> usize {
    let SeriesKey::Stack { series, stack } = key else {
        return 0;
    };
    browser
        .find(series)
        .map_or(0, |(_, _, s)| s.stacks[*stack].images.len())
}
