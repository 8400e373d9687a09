//! Files → patients, studies, series, stacks.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use rayon::prelude::*;

use super::dataset::{Dataset, Read};
use super::error::Error;
use super::header::FileInfo;
use super::scan::{self, Opener};
use super::stacks::{self, Candidate};
use crate::redact::Sensitive;
use crate::study::{FileSource, Instance, Issue, Patient, Series, Skipped, Study, Uid, Worklist};
use crate::task::{Cancelled, Task};

/// First bytes read of a file; most headers end before.
const FIRST_BYTES: usize = 32 << 10;
const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";

/// Finds and sorts everything in files, folders (recursive) and ZIP archives.
///
/// Reads headers only, in parallel. What is not DICOM is listed in `skipped` with the reason;
/// a DICOMDIR is skipped as an index, its files are found like all others.
///
/// # Errors
/// [`Cancelled`].
pub fn index(paths: &[PathBuf], task: &Task) -> Result<Worklist, Cancelled> {
    task.begin("Looking for files", 0);
    let (sources, mut skipped) = scan::find(paths, task)?;
    let opener = Opener::new(sources.iter());
    task.begin("Reading headers", sources.len());
    let read: Vec<(FileSource, Result<FileInfo, Error>)> = sources
        .into_par_iter()
        .map(|source| {
            task.check()?;
            let info = read_header(&opener, &source);
            task.advance(1);
            Ok((source, info))
        })
        .collect::<Result<_, Cancelled>>()?;

    let mut files = Vec::new();
    let mut seen = HashSet::new();
    let mut unreadable: BTreeMap<Uid, Vec<String>> = BTreeMap::new();
    for (source, info) in read {
        match info {
            Ok(FileInfo {
                unreadable: Some(error),
                series_uid,
                ..
            }) => {
                let reason = error.to_string();
                if let Some(uid) = series_uid {
                    unreadable.entry(uid).or_default().push(reason.clone());
                }
                skipped.push(Skipped { source, reason });
            }
            Ok(info) => {
                // The same image twice: its UID, number and place are those of an earlier file.
                let place = info.images.as_ref().and_then(|(_, images)| {
                    images
                        .first()
                        .and_then(|i| i.position)
                        .map(|p| format!("{p:?}"))
                });
                let key = (info.sop_instance.clone(), info.instance_number, place);
                if info.sop_instance.is_some() && !seen.insert(key) {
                    skipped.push(Skipped {
                        source,
                        reason: "the same image as another file (same SOP Instance UID)".to_owned(),
                    });
                } else {
                    files.push((source, info));
                }
            }
            Err(error) => skipped.push(Skipped {
                source,
                reason: error.to_string(),
            }),
        }
    }
    skipped.sort_by(|a, b| a.source.cmp(&b.source));
    let mut patients = group(files);
    let series = patients
        .iter_mut()
        .flat_map(|p| &mut p.studies)
        .flat_map(|s| &mut s.series);
    for series in series {
        if let Some(reasons) = unreadable.get(&series.series_instance_uid) {
            series.issues.push(Issue::UnreadableSlices {
                count: reasons.len(),
                reason: reasons[0].clone(),
            });
        }
    }
    Ok(Worklist { patients, skipped })
}

fn read_header(opener: &Opener, source: &FileSource) -> Result<FileInfo, Error> {
    FileInfo::read(&read_dataset(opener, source)?)
}

/// Reads as much of a file as its header takes.
pub(super) fn read_dataset(opener: &Opener, source: &FileSource) -> Result<Dataset, Error> {
    let mut limit = FIRST_BYTES;
    loop {
        let (bytes, total) = opener.prefix(source, limit)?;
        match Dataset::read(bytes, total)?.0 {
            Read::Done(dataset) => return Ok(*dataset),
            Read::NeedMore => limit = limit.saturating_mul(8),
        }
        if limit as u64 > total {
            let bytes = opener.whole(source)?;
            return Dataset::from_file(bytes);
        }
    }
}

type File = (FileSource, FileInfo);
type Studies = BTreeMap<Uid, BTreeMap<Uid, Vec<File>>>;

fn group(files: Vec<File>) -> Vec<Patient> {
    let mut patients: BTreeMap<[String; 4], Studies> = BTreeMap::new();
    // One person is one (name, ID); birth date and sex may be missing in some files.
    for file in files {
        let info = &file.1;
        let [name, id, ..] = &info.patient;
        let study = info
            .study_uid
            .clone()
            .unwrap_or_else(|| stand_in(&["study", name, id, &info.study[0]]));
        let series = info
            .series_uid
            .clone()
            .unwrap_or_else(|| stand_in(&["series", study.as_str(), &info.modality]));
        patients
            .entry([name.clone(), id.clone(), String::new(), String::new()])
            .or_default()
            .entry(study)
            .or_default()
            .entry(series)
            .or_default()
            .push(file);
    }
    patients
        .into_values()
        .map(|studies| {
            let first = studies
                .values()
                .flat_map(BTreeMap::values)
                .flatten()
                .map(|(_, info)| info);
            let best = |n: usize| {
                first
                    .clone()
                    .map(|info| info.patient[n].clone())
                    .find(|v| !v.is_empty())
                    .unwrap_or_default()
            };
            let mut patient = Patient {
                name: Sensitive::new(best(0)),
                id: Sensitive::new(best(1)),
                birth_date: Sensitive::new(best(2)),
                sex: Sensitive::new(best(3)),
                studies: Vec::new(),
            };
            patient.studies = studies
                .into_iter()
                .map(|(uid, series)| study(uid, series))
                .collect();
            patient.studies.sort_by(|a, b| {
                (b.date.expose(), b.time.expose()).cmp(&(a.date.expose(), a.time.expose()))
            });
            patient
        })
        .collect()
}

fn study(uid: Uid, series: BTreeMap<Uid, Vec<File>>) -> Study {
    let infos = || series.values().flatten().map(|(_, info)| info);
    let best = |n: usize| {
        infos()
            .map(|info| info.study[n].clone())
            .find(|v| !v.is_empty())
            .unwrap_or_default()
    };
    let mut study = Study {
        study_instance_uid: uid,
        date: Sensitive::new(best(0)),
        time: Sensitive::new(best(1)),
        description: best(2),
        study_id: Sensitive::new(best(3)),
        accession: Sensitive::new(best(4)),
        institution: Sensitive::new(best(5)),
        series: Vec::new(),
    };
    study.series = series
        .into_iter()
        .map(|(uid, files)| one_series(uid, files))
        .collect();
    study.series.sort_by(|a, b| {
        (a.number.unwrap_or(i32::MAX), &a.series_instance_uid)
            .cmp(&(b.number.unwrap_or(i32::MAX), &b.series_instance_uid))
    });
    study
}

fn one_series(uid: Uid, files: Vec<File>) -> Series {
    let infos = || files.iter().map(|(_, info)| info);
    let mut transfer_syntaxes: Vec<String> = infos().map(|info| info.syntax.clone()).collect();
    transfer_syntaxes.sort();
    transfer_syntaxes.dedup();
    let text = |of: fn(&FileInfo) -> &String| {
        infos()
            .map(of)
            .find(|v| !v.is_empty())
            .cloned()
            .unwrap_or_default()
    };
    let mut series = Series {
        series_instance_uid: uid,
        modality: text(|info| &info.modality),
        number: infos().find_map(|info| info.series_number),
        description: text(|info| &info.series_description),
        body_part: text(|info| &info.body_part),
        protocol: text(|info| &info.protocol),
        contrast: infos().any(|info| info.contrast),
        frame_of_reference_uid: infos().find_map(|info| info.frame_of_reference.clone()),
        instances: files.len(),
        transfer_syntaxes,
        stacks: Vec::new(),
        objects: files
            .iter()
            .filter(|(_, info)| info.images.is_none())
            .map(|(source, _)| source.clone())
            .collect(),
        issues: Vec::new(),
    };
    let made_up = infos().any(|info| {
        info.study_uid.is_none() || info.series_uid.is_none() || info.sop_instance.is_none()
    });
    if made_up {
        series.issues.push(Issue::Other {
            code: "uid-replaced",
            message:
                "a study, series or image UID is missing or cannot be used: a made-up one stands in"
                    .to_owned(),
        });
    }
    let mut named = HashSet::new();
    let repeated = infos()
        .filter_map(|info| info.sop_instance.as_ref())
        .filter(|uid| !named.insert(*uid))
        .count();
    if repeated > 0 {
        series.issues.push(Issue::Other {
            code: "uid-repeated",
            message: "different images have the same SOP Instance UID: \
                      results cannot refer to them one by one"
                .to_owned(),
        });
    }
    let mut candidates = Vec::new();
    for (source, info) in files {
        let Some((format, images)) = info.images else {
            continue;
        };
        let sop_instance_uid = info.sop_instance.unwrap_or_else(|| {
            stand_in(&[
                "image",
                series.series_instance_uid.as_str(),
                &source.to_string(),
            ])
        });
        let frame_count = images.len() as u32;
        for image in images {
            candidates.push(Candidate {
                instance: Instance {
                    source: source.clone(),
                    sop_class_uid: info.sop_class.clone().unwrap_or_else(|| {
                        Uid::parse(SECONDARY_CAPTURE).expect("a literal UID is valid")
                    }),
                    sop_instance_uid: sop_instance_uid.clone(),
                    frame: image.frame,
                    frame_count,
                    number: info.instance_number,
                    position_lps: image.position,
                    view: info.view.clone(),
                },
                info: image,
                format,
                frame_of_reference: info.frame_of_reference.clone(),
                localizer: info.localizer,
                lossy: info.lossy.clone(),
                synthetic: info.synthetic,
            });
        }
    }
    let (stacks, issues) = stacks::sort(candidates);
    series.stacks = stacks;
    series.issues.extend(issues);
    series
}

/// A UID that is the same whenever the same file is opened again.
fn stand_in(parts: &[&str]) -> Uid {
    let digest = ring::digest::digest(&ring::digest::SHA256, parts.join("\u{1F}").as_bytes());
    let mut bits = [0; 16];
    bits.copy_from_slice(&digest.as_ref()[..16]);
    Uid::from_u128(u128::from_be_bytes(bits))
}
