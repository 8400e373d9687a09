//! What training and evaluation need of the program: images of any format, and settings of runs.

use std::path::Path;

use super::pick_volume;
use crate::dicom;
use crate::inference::{GrayPlane, Settings};
use crate::task::Task;
use crate::training::data::Images;
use crate::training::{Error, Picture, Values};
use crate::volume::{Calibration, Layout, Volume};

/// Reads PNG, JPEG and NIfTI as they are, DICOM too. Volumes keep their modality values; a plain
/// DICOM image is taken as it is shown: its first window, or one from its values, from 0 (black) to
/// 255. Masks may be DICOM SEG: segments count by the names of the classes.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnyImages;

impl Images for AnyImages {
    fn image(&self, path: &Path) -> Result<Picture, Error> {
        if path.is_dir() {
            return dicom_image(path);
        }
        match Picture::read(path) {
            Err(Error::Data { .. }) if !Picture::is_image_name(path) => dicom_image(path),
            other => other,
        }
    }

    fn mask(
        &self,
        path: &Path,
        image: &Path,
        classes: &[String],
    ) -> Result<([usize; 3], Vec<u8>), Error> {
        if Picture::is_image_name(path) {
            return Picture::read_mask(path, classes.len());
        }
        segmentation(path, image, classes)
    }
}

fn refused(path: &Path, reason: String) -> Error {
    Error::Data {
        reason,
        path: path.to_owned(),
    }
}

fn volume_at(path: &Path) -> Result<Volume, Error> {
    let picked = pick_volume(path, None, &Task::new())
        .map_err(|e| refused(path, format!("no image that can be read ({e})")))?;
    Ok(picked.volume)
}

fn dicom_image(path: &Path) -> Result<Picture, Error> {
    let volume = volume_at(path)?;
    let [ni, nj, nk] = volume.geometry.dims();
    if volume.layout == Layout::Volumetric && nk > 1 {
        let [x, y, z] = volume.geometry.spacing_mm();
        return Ok(Picture {
            dims: [nk, nj, ni],
            values: Values::Floats(volume.values()),
            spacing_mm: Some([z, y, x]),
            geometry: Some(volume.geometry),
        });
    }
    let shown = GrayPlane::of_slice(&volume, 0);
    let bytes = shown.values.iter().map(|v| *v as u8).collect();
    let mut picture = Picture::bytes([1, nj, ni], bytes);
    if volume.calibration == Calibration::Patient {
        let [x, y, z] = volume.geometry.spacing_mm();
        picture.spacing_mm = Some([z, y, x]);
    }
    Ok(picture)
}

/// A SEG on its image's grid, with the numbers of the classes.
fn segmentation(
    path: &Path,
    image: &Path,
    classes: &[String],
) -> Result<([usize; 3], Vec<u8>), Error> {
    let read = dicom::read_segmentation(path)
        .map_err(|e| refused(path, format!("no mask that can be read ({e})")))?;
    let volume = volume_at(image)?;
    let (ours, theirs) = (
        &volume.source.frame_of_reference_uid,
        &read.frame_of_reference_uid,
    );
    // Also where the grids are the same by chance.
    if let (Some(ours), Some(theirs)) = (ours, theirs)
        && ours != theirs
    {
        let reason = "it does not fit its image: it lies in another frame of reference";
        return Err(refused(path, reason.to_owned()));
    }
    let found = read
        .into_segmentation(&volume)
        .map_err(|e| refused(path, format!("it does not fit its image ({e})")))?;
    let mut numbers = [0_u8; 256];
    for segment in &found.segments {
        let class = classes
            .iter()
            .position(|c| c.eq_ignore_ascii_case(segment.name.trim()));
        numbers[usize::from(segment.label)] = class.map_or(0, |c| c as u8 + 1);
    }
    if numbers.iter().all(|n| *n == 0) {
        let names: Vec<&str> = found.segments.iter().map(|s| s.name.as_str()).collect();
        let reason = format!("its segments {names:?} are none of the classes {classes:?}");
        return Err(refused(path, reason));
    }
    let [ni, nj, nk] = volume.geometry.dims();
    let labels = found.map.labels.iter().map(|l| numbers[usize::from(*l)]);
    Ok(([nk, nj, ni], labels.collect()))
}

/// Settings of runs that measure.
pub fn settings_for_runs() -> Settings {
    super::models::settings(true)
}
