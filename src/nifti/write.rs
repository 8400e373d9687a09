//! Volumes and label maps → NIfTI-1 single files.

use std::io::Write;
use std::path::Path;

use flate2::{Compression, write::GzEncoder};
use rayon::prelude::*;

use super::Error;
use super::header::{self, Datatype, Description};
use crate::findings::Segment;
use crate::geometry::VolumeGeometry;
use crate::study::Issue;
use crate::volume::{LabelMap, Volume, Voxels};
use crate::whole_file;

/// `NIFTI_INTENT_LABEL`.
const INTENT_LABEL: i16 = 1002;

/// Writes modality values: `int16` when all are whole numbers in its range, else `f32`; colors
/// as RGB24. Never with scaling, so that every reader sees the same numbers.
///
/// `.nii`, or `.nii.gz` for a compressed file. The file appears whole or not at all.
///
/// # Errors
/// Another ending, dims beyond 32767, a full disk.
pub fn write_volume(path: &Path, volume: &Volume) -> Result<(), Error> {
    check_name(path)?;
    let gzip = is_gzip(path);
    whole_file::write(path, |w| write_volume_to(w, volume, gzip)).map_err(|e| at_path(e, path))
}

/// Writes labels as `uint8`, intent "label"; names of the segments go into the description as
/// far as its 79 characters reach.
///
/// # Errors
/// As [`write_volume`].
pub fn write_label_map(path: &Path, map: &LabelMap, segments: &[Segment]) -> Result<(), Error> {
    check_name(path)?;
    let gzip = is_gzip(path);
    whole_file::write(path, |w| write_label_map_to(w, map, segments, gzip))
        .map_err(|e| at_path(e, path))
}

/// [`write_volume`] into any writer.
///
/// # Errors
/// As [`write_volume`]; paths in errors are empty.
pub fn write_volume_to(w: &mut dyn Write, volume: &Volume, gzip: bool) -> Result<(), Error> {
    let color = match &volume.voxels {
        Voxels::Rgb8(colors) => Some(colors),
        _ => None,
    };
    let [ni, nj, nk] = volume.geometry.dims();
    let slice = ni * nj;
    let value = |k: usize, n: usize| {
        volume
            .modality_lut
            .apply(volume.voxels.stored(k * slice + n), k)
    };
    let datatype = if color.is_some() {
        Datatype::Rgb24
    } else if (0..nk).into_par_iter().all(|k| {
        (0..slice).all(|n| {
            let x = value(k, n);
            f32::from(x as i16) == x
        })
    }) {
        Datatype::I16
    } else {
        Datatype::F32
    };
    let about = Description {
        datatype,
        intent_code: 0,
        intent_name: "",
        descrip: concat!("Negatoscope ", env!("CARGO_PKG_VERSION")),
        in_patient: !volume.issues.contains(&Issue::NoGeometry),
    };
    write(w, &volume.geometry, &about, gzip, |w| {
        let mut bytes = Vec::with_capacity(slice * datatype.bytes());
        for k in 0..nk {
            bytes.clear();
            match (datatype, color) {
                (Datatype::Rgb24, Some(colors)) => {
                    bytes.extend(colors[k * slice..(k + 1) * slice].iter().flatten());
                }
                (Datatype::I16, _) => {
                    bytes.extend((0..slice).flat_map(|n| (value(k, n) as i16).to_le_bytes()));
                }
                _ => bytes.extend((0..slice).flat_map(|n| value(k, n).to_le_bytes())),
            }
            w.write_all(&bytes)?;
        }
        Ok(())
    })
}

/// [`write_label_map`] into any writer.
///
/// # Errors
/// As [`write_label_map`]; paths in errors are empty.
pub fn write_label_map_to(
    w: &mut dyn Write,
    map: &LabelMap,
    segments: &[Segment],
    gzip: bool,
) -> Result<(), Error> {
    let names: Vec<String> = segments
        .iter()
        .map(|s| format!("{} {}", s.label, s.name))
        .collect();
    let about = Description {
        datatype: Datatype::U8,
        intent_code: INTENT_LABEL,
        intent_name: "labels",
        descrip: &names.join("; "),
        in_patient: true,
    };
    write(w, &map.geometry, &about, gzip, |w| {
        Ok(w.write_all(&map.labels)?)
    })
}

fn write(
    w: &mut dyn Write,
    geometry: &VolumeGeometry,
    about: &Description,
    gzip: bool,
    voxels: impl FnOnce(&mut dyn Write) -> Result<(), Error>,
) -> Result<(), Error> {
    let header = header::encode(geometry, about).ok_or_else(|| Error::Unsupported {
        what: format!("a grid of {:?} voxels in NIfTI-1", geometry.dims()),
        path: std::path::PathBuf::new(),
    })?;
    if gzip {
        // Level 4: within a few percent of the default's size at about twice its speed.
        let mut w = GzEncoder::new(w, Compression::new(4));
        w.write_all(&header)?;
        voxels(&mut w)?;
        w.finish()?;
    } else {
        w.write_all(&header)?;
        voxels(w)?;
    }
    Ok(())
}

fn is_gzip(path: &Path) -> bool {
    path.extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("gz"))
}

fn check_name(path: &Path) -> Result<(), Error> {
    let inner = if is_gzip(path) {
        path.with_extension("")
    } else {
        path.to_owned()
    };
    if inner
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("nii"))
    {
        Ok(())
    } else {
        Err(Error::Unsupported {
            what: "writing NIfTI under a name that ends neither in .nii nor .nii.gz".to_owned(),
            path: path.to_owned(),
        })
    }
}

impl From<std::io::Error> for Error {
    fn from(source: std::io::Error) -> Self {
        Self::Io {
            action: "writing",
            source,
            path: std::path::PathBuf::new(),
        }
    }
}

fn at_path(error: Error, to: &Path) -> Error {
    match error {
        Error::Io { action, source, .. } => Error::Io {
            action,
            source,
            path: to.to_owned(),
        },
        Error::Unsupported { what, .. } => Error::Unsupported {
            what,
            path: to.to_owned(),
        },
        other => other,
    }
}
