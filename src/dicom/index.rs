//! Paths in, the worklist out: patients, studies, series, stacks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dicom_dictionary_std::tags;
use rayon::prelude::*;

use super::attributes::{Object, int, text, uid};
use super::header::{self, ImageHeader};
use super::{archive, file, stacks};
use crate::redact::Sensitive;
use crate::study::{FileSource, Patient, Series, Skipped, Study, Uid, Worklist};
use crate::task::{Cancelled, Task};

/// Deepest folder that is entered.
const DEEPEST_FOLDER: usize = 32;

/// One file of a series.
pub struct Found {
    /// Where it is.
    pub source: FileSource,
    /// `None` for objects that hold no images.
    pub image: Option<ImageHeader>,
    transfer_syntax: String,
    head: Head,
}

/// Attributes above the image, as the first file of each level gives them.
struct Head {
    patient: Patient,
    study: Study,
    series_uid: Uid,
    modality: String,
    number: Option<i32>,
    description: String,
    body_part: String,
    frame_of_reference: Option<Uid>,
    sop_instance: Option<Uid>,
}

/// Reads headers of all files below `paths` in parallel. What is not an image or a DICOM object
/// is skipped with the reason; links that lead out of the tree are not followed.
///
/// # Errors
/// [`Cancelled`].
pub fn index(paths: &[PathBuf], task: &Task) -> Result<Worklist, Cancelled> {
    task.begin("Looking for files", 0);
    let mut sources = Vec::new();
    let mut skipped = Vec::new();
    for path in paths {
        collect(path, &mut sources, &mut skipped, task)?;
    }
    sources.sort();
    sources.dedup();
    task.begin("Reading headers", sources.len());
    let read: Vec<Result<Found, Skipped>> = sources
        .into_par_iter()
        .map(|source| {
            task.check()?;
            let found = read_one(&source).map_err(|reason| Skipped { source, reason });
            task.advance(1);
            Ok(found)
        })
        .collect::<Result<_, Cancelled>>()?;
    let mut found = Vec::new();
    for result in read {
        match result {
            Ok(one) => found.push(one),
            Err(reason) => skipped.push(reason),
        }
    }
    skipped.sort_by(|a, b| a.source.cmp(&b.source));
    Ok(Worklist {
        patients: tree(found, &mut skipped),
        skipped,
    })
}

fn collect(
    path: &Path,
    sources: &mut Vec<FileSource>,
    skipped: &mut Vec<Skipped>,
    task: &Task,
) -> Result<(), Cancelled> {
    let skip = |path: &Path, reason: String| Skipped {
        source: FileSource::Path(path.to_owned()),
        reason,
    };
    if !path.exists() {
        skipped.push(skip(path, "no such file or folder".to_owned()));
        return Ok(());
    }
    // The walker does not follow links; the path that a person names is resolved first.
    let root = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let walk = walkdir::WalkDir::new(if path.is_dir() { &root } else { path })
        .max_depth(DEEPEST_FOLDER)
        .sort_by_file_name();
    for entry in walk {
        task.check()?;
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let at = error.path().unwrap_or(path).to_owned();
                let what = error
                    .io_error()
                    .map_or("a loop of links".to_owned(), ToString::to_string);
                skipped.push(skip(&at, format!("cannot be read ({what})")));
                continue;
            }
        };
        let at = entry.path();
        if entry.file_type().is_dir() {
            continue;
        }
        if entry.file_type().is_symlink() {
            // A link to a file within the tree is the file's second name; elsewhere it leads out.
            let inside = at
                .canonicalize()
                .is_ok_and(|target| target.starts_with(&root));
            if entry.depth() > 0 {
                let reason = if inside {
                    "a link to a file that is read anyway"
                } else {
                    "a link out of the folder"
                };
                skipped.push(skip(at, reason.to_owned()));
                continue;
            }
        }
        if is_zip(at) {
            match archive::members(at) {
                Ok(members) => {
                    sources.extend(members.into_iter().map(|(index, name)| FileSource::Zip {
                        archive: at.to_owned(),
                        index,
                        name,
                    }))
                }
                Err(reason) => skipped.push(skip(at, reason)),
            }
        } else {
            sources.push(FileSource::Path(at.to_owned()));
        }
        task.advance(1);
    }
    Ok(())
}

fn is_zip(path: &Path) -> bool {
    let mut magic = [0_u8; 4];
    std::fs::File::open(path)
        .and_then(|mut f| std::io::Read::read_exact(&mut f, &mut magic))
        .is_ok_and(|()| &magic == b"PK\x03\x04")
}

fn read_one(source: &FileSource) -> Result<Found, String> {
    let parsed = file::open(source, false).map_err(|error| match error {
        super::Error::File { reason, .. } => reason,
        super::Error::Io { source, .. } => format!("cannot be read ({source})"),
        other => other.to_string(),
    })?;
    let d = &parsed.header;
    let class = parsed.sop_class().unwrap_or_default();
    if class == "1.2.840.10008.1.3.10" || d.get(tags::DIRECTORY_RECORD_SEQUENCE).is_some() {
        return Err("a DICOMDIR: the files themselves are read".to_owned());
    }
    let head = head(d)?;
    let holds_images = parsed.structure.pixels.is_some() || d.get(tags::ROWS).is_some();
    let is_segmentation =
        class == "1.2.840.10008.5.1.4.1.1.66.4" || class == "1.2.840.10008.5.1.4.1.1.66.7";
    let image = if holds_images && !is_segmentation {
        Some(header::read(d, parsed.structure.pixels.is_some())?)
    } else {
        None
    };
    Ok(Found {
        source: source.clone(),
        image,
        transfer_syntax: parsed.transfer_syntax,
        head,
    })
}

fn head(d: &Object) -> Result<Head, String> {
    let some = |tag| text(d, tag).unwrap_or_default();
    let hidden = |tag| Sensitive::new(text(d, tag).unwrap_or_default());
    let series_uid = uid(d, tags::SERIES_INSTANCE_UID);
    let sop_instance = uid(d, tags::SOP_INSTANCE_UID);
    // Loose images without a series still can be looked at: each is a series of its own.
    let series_uid = series_uid
        .or_else(|| sop_instance.clone())
        .ok_or("no usable series or instance UID")?;
    let study_uid = uid(d, tags::STUDY_INSTANCE_UID).unwrap_or_else(|| series_uid.clone());
    Ok(Head {
        patient: Patient {
            name: Sensitive::new(person_name(&some(tags::PATIENT_NAME))),
            id: hidden(tags::PATIENT_ID),
            birth_date: hidden(tags::PATIENT_BIRTH_DATE),
            sex: hidden(tags::PATIENT_SEX),
            studies: Vec::new(),
        },
        study: Study {
            study_instance_uid: study_uid,
            date: hidden(tags::STUDY_DATE),
            time: hidden(tags::STUDY_TIME),
            description: some(tags::STUDY_DESCRIPTION),
            study_id: hidden(tags::STUDY_ID),
            accession: hidden(tags::ACCESSION_NUMBER),
            institution: hidden(tags::INSTITUTION_NAME),
            series: Vec::new(),
        },
        modality: some(tags::MODALITY),
        number: int(d, tags::SERIES_NUMBER).map(|n| n as i32),
        description: some(tags::SERIES_DESCRIPTION),
        body_part: some(tags::BODY_PART_EXAMINED),
        frame_of_reference: uid(d, tags::FRAME_OF_REFERENCE_UID),
        series_uid,
        sop_instance,
    })
}

/// "Family^Given^Middle" as "Family, Given Middle"; the first written form that is not empty.
fn person_name(raw: &str) -> String {
    let form = raw
        .split('=')
        .map(str::trim)
        .find(|f| !f.is_empty())
        .unwrap_or("");
    let mut parts = form.split('^').map(str::trim);
    let family = parts.next().unwrap_or("").to_owned();
    let rest: Vec<&str> = parts.filter(|p| !p.is_empty()).collect();
    if rest.is_empty() {
        family
    } else {
        format!("{family}, {}", rest.join(" "))
    }
}

fn tree(found: Vec<Found>, skipped: &mut Vec<Skipped>) -> Vec<Patient> {
    let mut by_series: BTreeMap<(Uid, Uid), Vec<Found>> = BTreeMap::new();
    for one in found {
        let key = (
            one.head.study.study_instance_uid.clone(),
            one.head.series_uid.clone(),
        );
        by_series.entry(key).or_default().push(one);
    }
    let mut patients: Vec<Patient> = Vec::new();
    for (_, mut files) in by_series {
        // The same object twice (copied folders) counts once.
        let mut seen = std::collections::HashSet::new();
        files.retain(|one| {
            let fresh = one
                .head
                .sop_instance
                .clone()
                .is_none_or(|uid| seen.insert(uid));
            if !fresh {
                let reason = "a second copy of an image that is read already".to_owned();
                skipped.push(Skipped {
                    source: one.source.clone(),
                    reason,
                });
            }
            fresh
        });
        let Some(first) = files.first() else { continue };
        let head = &first.head;
        let at = patients.iter().position(|p| {
            p.id.expose() == head.patient.id.expose()
                && p.name.expose() == head.patient.name.expose()
        });
        let patient = match at {
            Some(at) => &mut patients[at],
            None => {
                patients.push(head.patient.clone());
                patients.last_mut().expect("one was just added")
            }
        };
        let uid = &head.study.study_instance_uid;
        let study = match patient
            .studies
            .iter()
            .position(|s| s.study_instance_uid == *uid)
        {
            Some(at) => &mut patient.studies[at],
            None => {
                patient.studies.push(head.study.clone());
                patient.studies.last_mut().expect("one was just added")
            }
        };
        let mut transfer_syntaxes: Vec<String> =
            files.iter().map(|f| f.transfer_syntax.clone()).collect();
        transfer_syntaxes.sort();
        transfer_syntaxes.dedup();
        let (stacks, issues) = stacks::split(&files);
        study.series.push(Series {
            series_instance_uid: head.series_uid.clone(),
            modality: head.modality.clone(),
            number: head.number,
            description: head.description.clone(),
            body_part: head.body_part.clone(),
            frame_of_reference_uid: head.frame_of_reference.clone(),
            instances: files.len(),
            transfer_syntaxes,
            stacks,
            issues,
        });
    }
    for patient in &mut patients {
        for study in &mut patient.studies {
            study
                .series
                .sort_by_key(|s| (s.number.unwrap_or(i32::MAX), s.series_instance_uid.clone()));
        }
        patient
            .studies
            .sort_by(|a, b| b.date.expose().cmp(a.date.expose()));
    }
    patients
        .sort_by(|a, b| (a.name.expose(), a.id.expose()).cmp(&(b.name.expose(), b.id.expose())));
    patients
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_people_read_them() {
        assert_eq!(person_name("Doe^Jane^Q^^"), "Doe, Jane Q");
        assert_eq!(person_name("=山田^太郎"), "山田, 太郎");
        assert_eq!(person_name(""), "");
    }
}
