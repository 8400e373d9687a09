//! Masks of two models kept case by case, and both of a case in one, to be opened over its image.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Error;
use super::evaluate::SeenCase;
use crate::findings::Segment;
use crate::model::Label;
use crate::nifti;
use crate::task::Task;
use crate::volume::LabelMap;
use crate::whole_file;

/// Where one model says something and the other something else, or nothing.
const COLORS: [[u8; 3]; 4] = [
    [96, 180, 120],
    [240, 160, 40],
    [80, 140, 245],
    [220, 60, 160],
];

/// A case's name as a file's.
pub fn stem(name: &str) -> String {
    // Names are paths below the data's folder; each becomes one file name.
    let name = name.replace(['/', '\\'], "_");
    let ends = [".nii.gz", ".nii", ".png", ".jpg", ".jpeg", ".dcm"];
    let end = ends.iter().find(|end| name.ends_with(*end));
    name[..name.len() - end.map_or(0, |end| end.len())].to_owned()
}

fn refused(reason: String, path: &Path) -> Error {
    Error::Data {
        reason,
        path: path.to_owned(),
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io {
        action: "written",
        source,
        path,
    }
}

fn write(path: &Path, map: &LabelMap) -> Result<(), Error> {
    let none: [Segment; 0] = [];
    nifti::write_label_map(path, map, &none)
        .map_err(|e| refused(format!("cannot be written ({e})"), path))
}

/// Keeps a mask that a model has found as `folder/<case>.nii.gz`, on its image's own grid. An image
/// of another kind than NIfTI is kept beside it, in `images`. Returns the image's file.
///
/// # Errors
/// [`Error`].
pub fn keep_mask(folder: &Path, images: &Path, case: &SeenCase<'_>) -> Result<PathBuf, Error> {
    let name = format!("{}.nii.gz", stem(case.name));
    std::fs::create_dir_all(folder).map_err(io(folder))?;
    let (geometry, image) = if nifti::is_nifti_name(case.image) {
        let volume = nifti::read(case.image, &Task::new())
            .map_err(|e| refused(format!("cannot be read ({e})"), case.image))?;
        (volume.geometry, case.image.to_owned())
    } else {
        std::fs::create_dir_all(images).map_err(io(images))?;
        let path = images.join(&name);
        nifti::write_volume(&path, case.volume)
            .map_err(|e| refused(format!("cannot be written ({e})"), &path))?;
        (case.volume.geometry.clone(), path)
    };
    if geometry.dims() != case.volume.geometry.dims() {
        let reason = "has changed while it was read".to_owned();
        return Err(refused(reason, case.image));
    }
    let mut map = LabelMap::empty(geometry);
    map.labels.copy_from_slice(case.labels);
    write(&folder.join(name), &map)?;
    Ok(image)
}

/// Puts both masks of a case into one, as a result that the window opens: for each label where both
/// say it, where the first alone does, and where the second alone does. `None` where there are more
/// labels than a mask can tell apart.
///
/// `folders` are those of the two models.
///
/// # Errors
/// [`Error`].
pub fn keep_both(
    out: &Path,
    folders: [&Path; 2],
    models: &[String; 2],
    labels: &[Label],
    name: &str,
) -> Result<Option<PathBuf>, Error> {
    // Three for each, and one where each says another label.
    if 3 * labels.len() + 1 > 255 {
        return Ok(None);
    }
    let file = format!("{}.nii.gz", stem(name));
    let read = |folder: &Path| {
        let path = folder.join(&file);
        nifti::read_label_map(&path, &Task::new())
            .map_err(|e| refused(format!("cannot be read ({e})"), &path))
    };
    let (first, second) = (read(folders[0])?, read(folders[1])?);
    let mut map = LabelMap::empty(first.geometry.clone());
    let place = |label: u8| labels.iter().position(|l| l.label == label);
    let differ = (3 * labels.len() + 1) as u8;
    for (to, (a, b)) in map
        .labels
        .iter_mut()
        .zip(first.labels.iter().zip(&second.labels))
    {
        *to = match (place(*a), place(*b)) {
            (None, None) => 0,
            (Some(n), Some(m)) if n == m => (3 * n + 1) as u8,
            (Some(n), None) => (3 * n + 2) as u8,
            (None, Some(n)) => (3 * n + 3) as u8,
            (Some(_), Some(_)) => differ,
        };
    }
    let below = Path::new("both").join(stem(name));
    let folder = out.join(&below);
    std::fs::create_dir_all(&folder).map_err(io(&folder))?;
    write(&folder.join("segmentation.nii.gz"), &map)?;
    let code =
        |value: &str, meaning: &str| json!({ "value": value, "scheme": "SCT", "meaning": meaning });
    let mut segments: Vec<Value> = Vec::new();
    for (n, label) in labels.iter().enumerate() {
        let words = [
            "both".to_owned(),
            format!("only {}", models[0]),
            format!("only {}", models[1]),
        ];
        for (part, words) in words.iter().enumerate() {
            segments.push(json!({
                "label": 3 * n + part + 1,
                "name": format!("{}: {words}", label.name),
                "category": label.category,
                "property": label.property,
                "color": COLORS[part],
            }));
        }
    }
    segments.push(json!({
        "label": differ,
        "name": "One label and another",
        "category": code("123037004", "Anatomical Structure"),
        "property": code("91723000", "Anatomical structure"),
        "color": COLORS[3],
    }));
    let record = json!({
        "shape": "negatoscope-compared-case/1",
        "notice": crate::RESEARCH_USE,
        "model": { "name": format!("{} and {}", models[0], models[1]), "version": "" },
        "segments": segments,
    });
    let path = folder.join("result.json");
    whole_file::write(&path, |w| -> std::io::Result<()> {
        Ok(serde_json::to_writer_pretty(w, &record)?)
    })
    .map_err(io(&path))?;
    Ok(Some(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_one_file_name() {
        assert_eq!(stem("a/b.nii.gz"), "a_b");
        assert_eq!(stem("x.tar.png"), "x.tar");
        assert_eq!(stem("..\\..\\x"), ".._.._x");
    }
}
