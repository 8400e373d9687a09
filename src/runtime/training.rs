//! What training and evaluation need of the program: images of any format, and settings of runs.

use std::path::Path;

use super::pick_volume;
use crate::inference::Settings;
use crate::task::Task;
use crate::training::{Error, Picture};
use crate::volume::auto_window;

/// Reads PNG, JPEG and NIfTI as they are; a DICOM image as it is shown: its first window, or one
/// from its values, from 0 (black) to 255.
///
/// # Errors
/// [`Error`].
pub fn image_reader(path: &Path) -> Result<Picture, Error> {
    match Picture::read(path) {
        Err(Error::Data { .. }) if !Picture::is_image_name(path) => dicom_image(path),
        other => other,
    }
}

fn dicom_image(path: &Path) -> Result<Picture, Error> {
    let refused = |reason: String| Error::Data {
        reason,
        path: path.to_owned(),
    };
    let picked = pick_volume(path, None, &Task::new())
        .map_err(|e| refused(format!("no image that can be read ({e})")))?;
    let volume = picked.volume;
    let [ni, nj, _] = volume.geometry.dims();
    let window = volume
        .windows
        .first()
        .map_or_else(|| auto_window(&volume), |w| w.window);
    let bytes = (0..ni * nj)
        .map(|n| {
            let gray = window.gray(volume.value(n));
            let gray = if volume.inverted { 1.0 - gray } else { gray };
            (gray * 255.0).round() as u8
        })
        .collect();
    Ok(Picture::bytes([1, nj, ni], bytes))
}

/// Settings of runs that measure.
pub fn settings_for_runs() -> Settings {
    super::models::settings(true)
}
