//! The files of one result: all of them, or none.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use super::{Error, guard, measurements, record};
use crate::audit;
use crate::dicom;
use crate::findings::Segmentation;
use crate::nifti;
use crate::study::Uid;
use crate::volume::Volume;
use crate::whole_file::WholeFile;

/// What can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// DICOM SEG; the source must be a DICOM series with positions.
    Seg,
    /// NIfTI-1 label map.
    Nifti,
    /// Measurements.
    Csv,
    /// How it was made, with the hashes of the other files.
    Json,
    /// Maps of the evidence for findings: PNG, and Secondary Captures beside the DICOM form.
    Maps,
}

impl Format {
    /// In the order of writing: the record comes last.
    pub const ALL: [Self; 4] = [Self::Seg, Self::Nifti, Self::Csv, Self::Json];

    /// Those of a classifier's findings; the DICOM form is an SR there.
    pub const OF_FINDINGS: [Self; 4] = [Self::Maps, Self::Seg, Self::Csv, Self::Json];

    /// Name of the file of a classifier's findings.
    pub const fn findings_file_name(self) -> &'static str {
        match self {
            Self::Seg => "findings.dcm",
            Self::Csv => "findings.csv",
            _ => "findings.json",
        }
    }

    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Seg => "seg",
            Self::Nifti => "nifti",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Maps => "maps",
        }
    }

    /// Name of the file.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Seg => "segmentation.dcm",
            Self::Nifti => "segmentation.nii.gz",
            Self::Csv => "measurements.csv",
            Self::Json | Self::Maps => "result.json",
        }
    }

    /// Whether a result of this volume can be written so.
    pub fn suits(self, volume: &Volume) -> bool {
        self != Self::Seg
            || (volume.source.study_instance_uid.is_some()
                && !volume.issues.contains(&crate::study::Issue::NoGeometry))
    }
}

/// A word that names no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no format: seg, nifti, csv and json are")]
pub struct UnknownFormat(pub String);

impl std::str::FromStr for Format {
    type Err = UnknownFormat;
    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        Self::ALL
            .into_iter()
            .find(|f| f.name().eq_ignore_ascii_case(text.trim()))
            .ok_or_else(|| UnknownFormat(text.to_owned()))
    }
}

/// A file that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// What it is.
    pub format: Format,
    /// Where.
    pub path: PathBuf,
    /// Size.
    pub bytes: u64,
    /// SHA-256, hex.
    pub sha256: String,
}

/// Writes a result into `folder` (made if absent) under fixed names, in place of older ones.
///
/// All files are first written under temporary names; the SEG is read back and compared with the
/// mask. Only then do they get their names, `result.json` last. `receipt` is the proof that the
/// export is on record.
///
/// # Errors
/// Nothing was left behind then, unless a rename fails after others.
pub fn write_results(
    segmentation: &Segmentation,
    volume: &Volume,
    formats: &[Format],
    folder: &Path,
    uids: &mut dyn FnMut() -> Uid,
    now: DateTime<Utc>,
    receipt: &audit::Receipt,
) -> Result<Vec<Written>, Error> {
    let map = &segmentation.map.geometry;
    if !map.same_grid(&volume.geometry, 1e-3) {
        return Err(Error::GridMismatch {
            map: map.dims(),
            volume: volume.geometry.dims(),
        });
    }
    std::fs::create_dir_all(folder).map_err(|source| Error::Io {
        action: "making the folder",
        source,
        path: folder.to_owned(),
    })?;
    let measured = measurements::measure(segmentation, volume);
    let mut pending = Vec::new();
    let mut written = Vec::new();
    for format in Format::ALL {
        if !formats.contains(&format) {
            continue;
        }
        let path = folder.join(format.file_name());
        let (file, one) = written_file(format, &path, |w| {
            match format {
                Format::Seg => {
                    dicom::write_segmentation_to(w, segmentation, uids, now)?;
                }
                Format::Nifti => {
                    nifti::write_label_map_to(w, &segmentation.map, &segmentation.segments, true)?;
                }
                Format::Csv => {
                    let table = measurements::table(&measured).map_err(io::Error::other)?;
                    w.write_all(&table)?;
                }
                Format::Json => {
                    let text =
                        record::result(segmentation, volume, &measured, &written, now, receipt)?;
                    w.write_all(&text)?;
                }
                Format::Maps => unreachable!("of findings alone"),
            }
            Ok(())
        })?;
        if format == Format::Seg {
            guard::check(file.temporary(), segmentation)?;
        }
        written.push(one);
        pending.push(file);
    }
    keep_all(pending)?;
    Ok(written)
}

/// Writes a file under a temporary name and reads its size and hash back.
pub(super) fn written_file(
    format: Format,
    path: &Path,
    fill: impl FnOnce(&mut dyn io::Write) -> Result<(), Error>,
) -> Result<(WholeFile, Written), Error> {
    let failed = |action| {
        move |source| Error::Io {
            action,
            source,
            path: path.to_owned(),
        }
    };
    let mut file = WholeFile::create(path).map_err(failed("writing"))?;
    file.fill(|w| fill(w)).map_err(|e| at_path(e, path))?;
    let (bytes, sha256) = digest(file.temporary()).map_err(failed("reading back"))?;
    let written = Written {
        format,
        path: path.to_owned(),
        bytes,
        sha256,
    };
    Ok((file, written))
}

/// Gives files their names, in their order.
pub(super) fn keep_all(files: Vec<WholeFile>) -> Result<(), Error> {
    for file in files {
        let path = file.destination().to_owned();
        file.keep().map_err(|source| Error::Io {
            action: "renaming",
            source,
            path,
        })?;
    }
    Ok(())
}

impl From<io::Error> for Error {
    fn from(source: io::Error) -> Self {
        Self::Io {
            action: "writing",
            source,
            path: PathBuf::new(),
        }
    }
}

/// A full disk is told with the file's name, whichever writer met it.
fn at_path(error: Error, path: &Path) -> Error {
    match error {
        Error::Io { action, source, .. } => Error::Io {
            action,
            source,
            path: path.to_owned(),
        },
        Error::Segmentation(dicom::WriteError::Io { source, .. })
        | Error::Nifti(nifti::Error::Io { source, .. }) => Error::Io {
            action: "writing",
            source,
            path: path.to_owned(),
        },
        other => other,
    }
}

/// Size and SHA-256 of a file.
fn digest(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut block = vec![0_u8; 1 << 16];
    let mut bytes = 0;
    loop {
        match file.read(&mut block)? {
            0 => break,
            n => {
                context.update(&block[..n]);
                bytes += n as u64;
            }
        }
    }
    let hash = context.finish();
    let mut hex = String::with_capacity(64);
    for byte in hash.as_ref() {
        hex.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('?'));
        hex.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('?'));
    }
    Ok((bytes, hex))
}
