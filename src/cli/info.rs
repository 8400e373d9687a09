//! `negatoscope info`: what is there, and what is doubtful about it.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Ending;
use super::print::{say, say_json};
use super::progress::ProgressLine;
use crate::app::SeriesKey;
use crate::audit::{AuditEvent, EventId, Log, ParticipantObject};
use crate::runtime::{Home, Opened, index_paths, load_key, load_stack, now_utc};
use crate::study::{Issue, Patient, Series, Study};
use crate::task::Task;
use crate::volume::{Layout, Volume};

#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Files, folders or ZIP archives.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(home: &Home, arguments: &Arguments) -> anyhow::Result<Ending> {
    let task = Arc::new(Task::new());
    let line = ProgressLine::start(&task);
    let opened = index_paths(&arguments.paths, &task)?;
    record_access(home, &opened)?;
    let mut studies = Vec::new();
    let mut failed = 0;
    let mut read = 0;
    for patient in &opened.worklist.patients {
        for study in &patient.studies {
            let series: Vec<Value> = study
                .series
                .iter()
                .map(|series| series_json(patient, study, series, &task, &mut read, &mut failed))
                .collect();
            studies.push(json!({
                "study_instance_uid": study.study_instance_uid.as_str(),
                "description": study.description,
                "series": series,
            }));
        }
    }
    for path in &opened.files {
        match load_key(&SeriesKey::File(path.clone()), None, &task) {
            Ok((volume, _)) => {
                read += 1;
                studies.push(json!({
                    "study_instance_uid": null,
                    "series": [{
                        "series_instance_uid": null,
                        "modality": volume.modality,
                        "description": path.file_name().map(|n| n.to_string_lossy()),
                        "file": path.display().to_string(),
                        "instances": 1,
                        "transfer_syntaxes": [],
                        "volumes": [volume_json(&volume)],
                        "issues": issues_json(&volume.issues),
                    }],
                }));
            }
            Err(error) => {
                failed += 1;
                eprintln!("negatoscope: {error}");
            }
        }
    }
    drop(line);
    let skipped: Vec<Value> = opened
        .worklist
        .skipped
        .iter()
        .map(|s| json!({ "path": s.source.to_string(), "reason": s.reason }))
        .collect();
    let nothing = studies.is_empty();
    let all = json!({ "studies": studies, "skipped": skipped });
    if arguments.json {
        say_json(&all)?;
    } else {
        say(words(&all).trim_end())?;
    }
    if nothing {
        eprintln!(
            "negatoscope: no studies found, {} files skipped",
            skipped.len()
        );
        for entry in opened.worklist.skipped.iter().take(5) {
            eprintln!("negatoscope: {}: {}", entry.source, entry.reason);
        }
        return Ok(Ending::Nothing);
    }
    Ok(match (read, failed) {
        (_, 0) => Ending::Done,
        (0, _) => Ending::Nothing,
        _ => Ending::Partly,
    })
}

fn series_json(
    patient: &Patient,
    study: &Study,
    series: &Series,
    task: &Task,
    read: &mut usize,
    failed: &mut usize,
) -> Value {
    let mut volumes = Vec::new();
    let mut issues: Vec<Issue> = series.issues.clone();
    if series.stacks.is_empty() {
        *read += 1; // listed, holds no images
    }
    for stack in 0..series.stacks.len() {
        match load_stack(patient, study, series, stack, task) {
            Ok(volume) => {
                *read += 1;
                volumes.push(volume_json(&volume));
                issues.extend(volume.issues);
            }
            Err(error) => {
                *failed += 1;
                let message = error.to_string();
                eprintln!(
                    "negatoscope: series {}: {message}",
                    series.series_instance_uid
                );
                issues.push(Issue::Other {
                    code: "unreadable",
                    message,
                });
            }
        }
    }
    json!({
        "series_instance_uid": series.series_instance_uid.as_str(),
        "modality": series.modality,
        "description": series.description,
        "instances": series.instances,
        "transfer_syntaxes": series.transfer_syntaxes,
        "volumes": volumes,
        "issues": issues_json(&issues),
    })
}

fn volume_json(volume: &Volume) -> Value {
    let (min, max) = volume
        .range()
        .map_or((None, None), |(a, b)| (Some(a), Some(b)));
    json!({
        "dims": volume.geometry.dims(),
        "spacing_mm": volume.geometry.spacing_mm(),
        "lps_from_ijk": volume.geometry.lps_from_ijk_rows(),
        "quantity": volume.quantity.name(),
        "min": min,
        "max": max,
        "volumetric": volume.layout == Layout::Volumetric,
    })
}

fn issues_json(issues: &[Issue]) -> Vec<Value> {
    let mut seen: Vec<Value> = Vec::new();
    for issue in issues {
        let value = json!({ "code": issue.code(), "message": issue.to_string() });
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    seen
}

/// Opening studies is on record before their pixels are read.
fn record_access(home: &Home, opened: &Opened) -> anyhow::Result<()> {
    let studies = opened.worklist.studies().map(|study| {
        let instances = study.series.iter().map(|s| s.instances).sum();
        ParticipantObject::study(&study.study_instance_uid, instances)
    });
    let files = opened
        .files
        .iter()
        .map(|path| ParticipantObject::file(path));
    let objects: Vec<ParticipantObject> = studies.chain(files).collect();
    let log = Log::open(home.root())?;
    // A record holds so many at most.
    for some in objects.chunks(500) {
        let event = AuditEvent::new(EventId::DicomInstancesAccessed, now_utc());
        log.append(&some.iter().cloned().fold(event, AuditEvent::about))?;
    }
    Ok(())
}

/// The same for people.
fn words(all: &Value) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for study in list(all, "studies") {
        let _ = writeln!(
            out,
            "Study {}  {}",
            text(&study["study_instance_uid"]),
            text(&study["description"])
        );
        for series in list(&study, "series") {
            let _ = writeln!(
                out,
                "  {}  {}  {} instances  {}",
                text(&series["modality"]),
                text(&series["description"]),
                series["instances"],
                text(&series["series_instance_uid"]),
            );
            for volume in list(&series, "volumes") {
                let mm: Vec<String> = list(&volume, "spacing_mm")
                    .iter()
                    .map(|x| format!("{:.3}", x.as_f64().unwrap_or(f64::NAN)))
                    .collect();
                let _ = writeln!(
                    out,
                    "    {} voxels, {} mm, {} to {} {}",
                    list(&volume, "dims")
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(" × "),
                    mm.join(" × "),
                    volume["min"],
                    volume["max"],
                    text(&volume["quantity"]),
                );
            }
            for issue in list(&series, "issues") {
                let _ = writeln!(out, "    ! {}", text(&issue["message"]));
            }
        }
    }
    let skipped = list(all, "skipped");
    if !skipped.is_empty() {
        let _ = writeln!(out, "Skipped {} files:", skipped.len());
        for entry in skipped {
            let _ = writeln!(
                out,
                "  {}: {}",
                text(&entry["path"]),
                text(&entry["reason"])
            );
        }
    }
    out
}
