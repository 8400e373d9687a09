//! Results: to files, back from files, and many at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::batch_engine::BatchError;
use super::carry_out::failed;
use super::clock::{RandomUids, now_utc};
use super::compute::behind_the_window;
use super::explain::map_pictures;
use super::home::Home;
use super::jobs::{Outbox, Stop};
use super::models::LoadedModel;
use super::open::{LoadError, Opened, index_paths, load_file, load_stack};
use crate::app::{BatchRow, Browser, Event, JobId, Notice, OpenedResult, SeriesKey};
use crate::audit::Receipt;
use crate::export::{self, Format};
use crate::findings::{Assessment, Provenance, Segmentation, percent_words};
use crate::monitoring::Through;
use crate::task::Task;
use crate::volume::{LabelStatistics, Volume, auto_window, label_statistics};
use crate::{batch, dicom};

pub use crate::export::Error as ExportError;

/// Writes results into `folder` in the forms named (those that suit the volume), all or none.
/// File names come back.
///
/// # Errors
/// [`ExportError`].
pub fn export_to(
    segmentation: &Segmentation,
    volume: &Volume,
    formats: &[Format],
    folder: &Path,
    receipt: &Receipt,
) -> Result<Vec<String>, ExportError> {
    let suited: Vec<Format> = formats
        .iter()
        .copied()
        .filter(|f| f.suits(volume))
        .collect();
    let written = export::write_results(
        segmentation,
        volume,
        &suited,
        folder,
        &mut RandomUids::fresh,
        now_utc(),
        receipt,
    )?;
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
    Ok(written.iter().filter_map(|w| name(&w.path)).collect())
}

/// The window's export: every form into a folder of its own below the chosen one.
pub(super) fn export_all(
    segmentation: &Segmentation,
    volume: &Volume,
    folder: &Path,
    receipt: &Receipt,
) -> Result<Vec<String>, Stop> {
    export_to(segmentation, volume, &Format::ALL, folder, receipt).map_err(|error| {
        failed(
            "The results were not saved",
            "Nothing was left half-written. Check that the folder can be written and the disk has room, then save again.",
            &error,
        )
    })
}

/// The window's export of findings.
pub(super) fn export_findings(
    assessments: &[Assessment],
    volume: &Volume,
    folder: &Path,
    receipt: &Receipt,
) -> Result<Vec<String>, Stop> {
    let formats = Format::OF_FINDINGS;
    let written = export::write_findings(
        assessments,
        &map_pictures(assessments, volume),
        volume,
        &formats,
        folder,
        &mut RandomUids::fresh,
        now_utc(),
        receipt,
    );
    let written = written.map_err(|error| {
        failed(
            "The findings were not saved",
            "Nothing was left half-written. Check that the folder can be written and the disk has room, then save again.",
            &error,
        )
    })?;
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
    Ok(written.iter().filter_map(|w| name(&w.path)).collect())
}

/// Reads a DICOM SEG onto a volume.
pub(super) fn read_onto(
    path: &Path,
    volume: &Volume,
    task: &Task,
) -> Result<(Segmentation, Vec<LabelStatistics>), Stop> {
    task.check()?;
    let advice = "Open the series that it was made from, then the segmentation again.";
    let read = dicom::read_segmentation(path)
        .map_err(|error| failed("The segmentation could not be read", advice, &error))?;
    let segmentation = read
        .into_segmentation(volume)
        .map_err(|error| failed("The segmentation does not fit this series", advice, &error))?;
    let statistics = label_statistics(volume, &segmentation.map);
    Ok((segmentation, statistics))
}

/// Runs a batch and reports its rows.
pub(super) fn run_batch(
    home: &Home,
    input: &Path,
    output: &Path,
    model: &str,
    mirroring: bool,
    task: &Arc<Task>,
    outbox: &Outbox,
) -> Result<String, Stop> {
    let plan = batch::Plan {
        inputs: vec![input.to_owned()],
        output: output.to_owned(),
        formats: Format::ALL.to_vec(),
        resume: true,
        mirroring,
        explain: None,
        channels: Vec::new(),
    };
    let started = |index: usize, row: &batch::Row| {
        let row = batch_row(row);
        outbox.send(Event::BatchRow { index, row });
    };
    let ended = behind_the_window(|| super::run_batch(home, model, &plan, task, started));
    match ended {
        Ok((summary, _)) => Ok(summary.words()),
        Err(BatchError::Batch(batch::Error::Cancelled(_))) => Err(Stop::Cancelled),
        Err(error) => Err(failed(
            "The batch could not run",
            "Check the model and that the results folder can be written.",
            &error,
        )),
    }
}

/// A row as the window's table has it.
pub(super) fn batch_row(row: &batch::Row) -> BatchRow {
    let volumes: Vec<String> = row
        .volumes_ml
        .iter()
        .take(4)
        .map(|(name, ml)| format!("{name} {ml:.2} mL"))
        .chain(
            (row.findings.iter().take(4))
                .map(|(name, p, call)| format!("{name} {} ({call})", percent_words(*p))),
        )
        .collect();
    BatchRow {
        title: row.title.clone(),
        status: row.status.word().to_owned(),
        reason: row.reason.clone(),
        seconds: row.seconds,
        summary: volumes.join(", "),
        inputs: row.inputs.clone(),
        results: row.results.clone(),
    }
}

/// Opens a study of a batch with its result.
pub(super) fn open_result(
    home: &Home,
    job: JobId,
    inputs: &[PathBuf],
    folder: &Path,
    task: &Task,
) -> Result<Event, Stop> {
    let Opened { worklist, files } = index_paths(inputs, task)?;
    let advice = "The study or its results were moved or removed since the batch.";
    let load = |error: LoadError| match error {
        LoadError::Cancelled(_) => Stop::Cancelled,
        error => failed("The study could not be opened", advice, &error),
    };
    let mut browser = Browser::default();
    browser.add(worklist.clone());
    for file in &files {
        browser.add_file(file.clone());
    }
    let record = folder.join(Format::Json.findings_file_name());
    let found = if record.is_file() {
        let read = export::read_findings(&record);
        Some(read.map_err(|error| failed("The findings could not be read", advice, &error))?)
    } else {
        None
    };
    let seg = folder.join("segmentation.dcm");
    let read = if seg.is_file() {
        dicom::read_segmentation(&seg).ok()
    } else {
        None
    };
    // The series that the result was made from, else the only candidate.
    let referenced = read
        .as_ref()
        .and_then(|r| r.referenced_series.first().cloned())
        .or_else(|| found.as_ref().and_then(|f| f.series_instance_uid.clone()));
    let of_reference = browser.keys().into_iter().find(
        |key| matches!((key, &referenced), (SeriesKey::Stack { series, .. }, Some(uid)) if series == uid),
    );
    let key = of_reference.or_else(|| browser.first_choice());
    let Some(key) = key else {
        return Err(Stop::Failed(Notice::info(
            "The study is not there any more",
            advice,
        )));
    };
    let volume = match &key {
        SeriesKey::File(path) => load_file(path, task).map_err(load)?,
        SeriesKey::Stack { series, stack } => {
            let Some((patient, study, series)) = browser.find(series) else {
                return Err(load(LoadError::Unknown));
            };
            load_stack(patient, study, series, *stack, task).map_err(load)?
        }
    };
    let misfit =
        |error: &dyn std::error::Error| failed("The result does not fit the study", advice, error);
    let result = match (found, read) {
        (Some(found), _) => {
            // A model that is gone can explain nothing any more; its findings stand.
            let model = LoadedModel::open(home, &found.model(), Through::Window);
            let methods = model.map_or_else(|_| Vec::new(), |m| m.explanation_methods());
            let assessments = found.into_assessments(&volume).map_err(|e| misfit(&e))?;
            OpenedResult::Findings(assessments, methods)
        }
        (None, read) => {
            let mut segmentation = match read {
                Some(read) => read.into_segmentation(&volume).map_err(|e| misfit(&e))?,
                None => from_label_map(folder, &volume, task)?,
            };
            remember_run(folder, &mut segmentation.provenance);
            let statistics = label_statistics(&volume, &segmentation.map);
            OpenedResult::Segments(Arc::new(segmentation), statistics)
        }
    };
    let auto_window = auto_window(&volume);
    Ok(Event::ResultOpened {
        job,
        worklist,
        files,
        key,
        data: Arc::new(volume),
        auto_window,
        result,
    })
}

/// The cases of a comparison that `models compare` has written; each opens with both masks.
pub(super) fn read_comparison(folder: &Path) -> Result<Event, Stop> {
    use serde_json::Value;
    let advice = "Choose the folder that was given to “models compare … --out”.";
    let broken =
        |error: &dyn std::error::Error| failed("The comparison could not be opened", advice, error);
    let bytes = std::fs::read(folder.join("comparison.json")).map_err(|e| broken(&e))?;
    let found: Value = serde_json::from_slice(&bytes).map_err(|e| broken(&e))?;
    let number = |v: &Value| {
        v.as_f64()
            .map_or_else(|| "–".to_owned(), |v| format!("{v:.4}"))
    };
    let cases = found["cases"].as_array().cloned().unwrap_or_default();
    let rows = cases.iter().map(|case| {
        let both = case["both"].as_str().map(Path::new);
        let image = case["image"].as_str().map(PathBuf::from);
        let opens = both.is_some() && image.is_some();
        let difference = case["difference"].as_f64();
        let difference = difference.map_or_else(String::new, |d| format!("  ({d:+.4})"));
        let values = &case["values"];
        let summary = format!(
            "{} → {}{difference}",
            number(&values[0]),
            number(&values[1])
        );
        BatchRow {
            title: case["file"].as_str().unwrap_or_default().to_owned(),
            status: if opens { "done" } else { "compared" }.to_owned(),
            reason: summary.clone(),
            seconds: 0.0,
            summary,
            inputs: image.into_iter().collect(),
            // The name alone: what a record says does not lead out of its folder.
            results: both
                .and_then(Path::file_name)
                .map_or_else(PathBuf::new, |name| folder.join("both").join(name)),
        }
    });
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    Ok(Event::ComparisonRead {
        rows: rows.collect(),
        summary: format!(
            "{} → {}: {}",
            text(&found["models"][0]),
            text(&found["models"][1]),
            text(&found["case_figure"])
        ),
    })
}

/// The run that a result came from, so that reviews of it are counted with it. A record of any other
/// form than this program writes says nothing.
fn remember_run(folder: &Path, made: &mut Provenance) {
    let record = std::fs::read(folder.join("result.json")).ok();
    let record = record.and_then(|b| serde_json::from_slice::<serde_json::Value>(&b).ok());
    let text = |part: &str, name: &str, good: fn(char) -> bool| {
        let text = record.as_ref()?[part][name].as_str()?;
        (!text.is_empty() && text.len() <= 80 && text.chars().all(good)).then(|| text.to_owned())
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let run = text("run", "id", |c| c.is_ascii_hexdigit()).filter(|run| run.len() == 32);
    let (id, version) = (text("model", "id", plain), text("model", "version", plain));
    if let (Some(run), Some(id), Some(version)) = (run, id, version) {
        (made.run, made.model_id, made.model_version) = (run, id, version);
    }
}

/// A result without DICOM: the NIfTI label map, with the segments of `result.json`.
fn from_label_map(folder: &Path, volume: &Volume, task: &Task) -> Result<Segmentation, Stop> {
    use crate::findings::{AlgorithmType, ReviewState, Segment};
    use crate::study::CodedConcept;
    let advice = "The study or its results were moved or removed since the batch.";
    let map = crate::nifti::read_label_map(&folder.join("segmentation.nii.gz"), task)
        .map_err(|error| failed("The result could not be read", advice, &error))?;
    if map.geometry.dims() != volume.geometry.dims() {
        return Err(Stop::Failed(Notice::info(
            "The result does not fit the study",
            advice,
        )));
    }
    let record = std::fs::read(folder.join("result.json"))
        .ok()
        .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok())
        .unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let code = |value: &serde_json::Value| {
        CodedConcept::new(
            &text(&value["value"]),
            &text(&value["scheme"]),
            &text(&value["meaning"]),
        )
    };
    let segments = record["segments"].as_array().cloned().unwrap_or_default();
    let segments = segments
        .iter()
        .filter_map(|s| {
            let label = u8::try_from(s["label"].as_u64()?).ok()?;
            let color: Vec<u8> = s["color"]
                .as_array()
                .map(|c| {
                    c.iter()
                        .filter_map(|x| x.as_u64().map(|x| x as u8))
                        .collect()
                })
                .unwrap_or_default();
            Some(Segment {
                label,
                name: text(&s["name"]),
                category: code(&s["category"]),
                property: code(&s["property"]),
                color: <[u8; 3]>::try_from(color).unwrap_or([230, 120, 90]),
            })
        })
        .collect();
    Ok(Segmentation {
        map,
        segments,
        algorithm: AlgorithmType::Automatic,
        source: volume.source.clone(),
        provenance: Provenance {
            model_name: text(&record["model"]["name"]),
            model_version: text(&record["model"]["version"]),
            ..Provenance::default()
        },
        issues: volume.issues.clone(),
        review: ReviewState::NotReviewed,
        reviewed: None,
    })
}
