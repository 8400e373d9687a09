//! `negatoscope analyze`: a model over one study or a folder of them.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Ending;
use super::print::{say, say_json};
use super::progress::ProgressLine;
use crate::batch::{Plan, Row, Status, Summary};
use crate::export::Format;
use crate::findings::ExplanationMethod;
use crate::model::Registry;
use crate::runtime::{Home, run_batch};
use crate::task::Task;

#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Files, folders or ZIP archives; DICOM or NIfTI.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Model `ID` or `ID@VERSION` (see `models list`); several with commas or by repeating it, each
    /// with its results in a folder of its name.
    #[arg(
        long,
        required = true,
        value_delimiter = ',',
        value_name = "ID[@VERSION]"
    )]
    model: Vec<String>,
    /// Folder for results.
    #[arg(long, value_name = "DIR", required_unless_present = "choices")]
    out: Option<PathBuf>,
    /// Where it runs.
    #[arg(long, default_value = "auto", value_parser = ["auto", "cpu"])]
    device: String,
    /// Result forms.
    #[arg(long, value_delimiter = ',', default_value = "seg,nifti,csv,json",
          value_parser = ["seg", "nifti", "csv", "json"])]
    format: Vec<String>,
    /// Leave out series that are finished already with this model.
    #[arg(long)]
    resume: bool,
    /// Show where the evidence for findings lies: a map over the image as PNG and Secondary Capture,
    /// with a test of whether it explains anything.
    #[arg(long, value_name = "METHOD", num_args = 0..=1, default_missing_value = "best",
          value_parser = ["best", "grad-cam", "attention-rollout", "occlusion"])]
    explain: Option<String>,
    /// Leave out the mirrored passes that a model's plans ask for: up to eight times faster, a
    /// little worse.
    #[arg(long)]
    no_mirroring: bool,
    /// Which image feeds a channel of a model that takes several, where names leave it open: a
    /// Series Instance UID or a file's name; once for each channel.
    #[arg(long, value_name = "NAME=SERIES", value_parser = named)]
    channel: Vec<(String, String)>,
    /// Run the model's networks on this endpoint (see `endpoints list`): what would leave is shown
    /// first. All else happens here. `auto`: where the policy in places.toml says.
    #[arg(long, value_name = "ENDPOINT", conflicts_with = "explain")]
    remote: Option<String>,
    /// Run on several places at once, each study on whichever is free: `local,ENDPOINT,…`.
    #[arg(
        long,
        value_name = "PLACES",
        value_delimiter = ',',
        conflicts_with_all = ["remote", "explain"]
    )]
    places: Vec<String>,
    /// Only show where it could run, and what each place would take: time, memory, bytes, price.
    #[arg(long = "where", id = "choices", conflicts_with_all = ["remote", "places"])]
    choices: bool,
    /// Send without asking, after showing what leaves.
    #[arg(long)]
    yes: bool,
    /// Print the table as JSON.
    #[arg(long)]
    json: bool,
}

/// The endpoints of `local,ENDPOINT,…`, and whether this machine works too.
fn places_of(places: &[String]) -> anyhow::Result<(Vec<String>, bool)> {
    let here_too = places.iter().any(|place| place == "local");
    let mut others: Vec<String> = Vec::new();
    for place in places.iter().filter(|p| *p != "local") {
        if others.contains(place) {
            anyhow::bail!("{place} is named twice");
        }
        others.push(place.clone());
    }
    Ok((others, here_too))
}

/// `NAME=SERIES`.
fn named(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, series)) if !name.is_empty() && !series.is_empty() => {
            Ok((name.trim().to_owned(), series.trim().to_owned()))
        }
        _ => Err("expected NAME=SERIES, e.g. T1=1.2.840.1".to_owned()),
    }
}

/// A way of explaining by its name; `None` for the best.
fn method_named(name: &str) -> Option<ExplanationMethod> {
    ExplanationMethod::ALL
        .into_iter()
        .find(|method| method.name() == name)
}

pub fn run(home: &Home, arguments: &Arguments) -> anyhow::Result<Ending> {
    // "auto" and "cpu" are the same as long as the CPU is the only device.
    tracing::debug!(device = arguments.device, "device");
    let plan = Plan {
        inputs: arguments.paths.clone(),
        output: arguments.out.clone().unwrap_or_default(),
        formats: arguments
            .format
            .iter()
            .map(|name| name.parse())
            .chain(arguments.explain.iter().map(|_| Ok(Format::Maps)))
            .collect::<Result<Vec<Format>, _>>()?,
        explain: arguments.explain.as_deref().and_then(method_named),
        resume: arguments.resume,
        mirroring: !arguments.no_mirroring,
        channels: arguments.channel.clone(),
    };
    if arguments.choices {
        return super::places::show(home, &arguments.model, &plan, arguments.json);
    }
    let (mut endpoints, here_too) = match &arguments.remote {
        Some(remote) => (vec![remote.clone()], false),
        None => places_of(&arguments.places)?,
    };
    if !endpoints.is_empty() {
        let [model] = &arguments.model[..] else {
            anyhow::bail!("one model at a time runs on a server: begin a job for each");
        };
        if endpoints == ["auto"] {
            endpoints = super::places::chosen(home, model, &plan)?
                .into_iter()
                .collect();
        }
        if let Some((first, further)) = endpoints.split_first() {
            return super::queue::analyze(
                home,
                (first, further, here_too),
                model,
                &plan,
                arguments.yes,
                arguments.json,
            );
        }
    }
    if let [model] = &arguments.model[..] {
        let summary = run_one(home, arguments, model, &plan)?;
        if arguments.json {
            say(std::fs::read_to_string(plan.output.join("batch.json"))?.trim_end())?;
        }
        return Ok(ending(&[summary], 0));
    }
    run_several(home, arguments, &plan)
}

/// One model after the other over the same images; one that cannot run does not stop the others.
fn run_several(home: &Home, arguments: &Arguments, plan: &Plan) -> anyhow::Result<Ending> {
    let registry = Registry::new(home.models());
    let mut seen: Vec<String> = Vec::new();
    let mut summaries = Vec::new();
    let mut told = Vec::new();
    let mut broken = 0;
    for wanted in &arguments.model {
        let ran = (|| {
            let key = (registry
                .find(&wanted.replace("brainchop:", "brainchop-"))?
                .manifest)
                .key();
            if seen.contains(&key) {
                return Ok(None);
            }
            seen.push(key.clone());
            eprintln!("{key}:");
            let plan = Plan {
                output: plan.output.join(&key),
                ..plan.clone()
            };
            let summary = run_one(home, arguments, &key, &plan)?;
            let path = plan.output.join("batch.json");
            let table: Value = serde_json::from_slice(&std::fs::read(path)?)?;
            anyhow::Ok(Some((key, summary, table)))
        })();
        match ran {
            Ok(None) => {}
            Ok(Some((key, summary, table))) => {
                summaries.push(summary);
                told.push(json!({ "model": key, "batch": table }));
            }
            Err(error) => {
                eprintln!("negatoscope: {wanted} was not run: {error:#}");
                broken += 1;
                told.push(json!({ "model": wanted, "error": format!("{error:#}") }));
            }
        }
    }
    if arguments.json {
        say_json(&json!({ "models": told }))?;
    }
    Ok(ending(&summaries, broken))
}

/// How it ended; what a model is not for is no failure where another one is.
pub(super) fn ending(summaries: &[Summary], broken: usize) -> Ending {
    let done: usize = summaries.iter().map(|s| s.done).sum();
    let failed: usize = summaries.iter().map(|s| s.failed).sum();
    let cancelled = summaries.iter().any(|s| s.cancelled);
    match (done, failed + broken, cancelled) {
        (0, ..) => Ending::Nothing,
        (_, 0, false) => Ending::Done,
        _ => Ending::Partly,
    }
}

fn run_one(
    home: &Home,
    arguments: &Arguments,
    model: &str,
    plan: &Plan,
) -> anyhow::Result<Summary> {
    let task = Arc::new(Task::new());
    let line = ProgressLine::start(&task);
    let (summary, rows) = run_batch(home, model, plan, &task, |_, row| tell_row(&line, row))?;
    drop(line);
    if !arguments.json {
        tell_rows(&rows)?;
    }
    eprintln!("{}; results in {}", summary.words(), plan.output.display());
    let skipped = match summary.unreadable {
        1 => "1 file skipped".to_owned(),
        n => format!("{n} files skipped"),
    };
    if rows.is_empty() {
        eprintln!("negatoscope: no images found ({skipped}; see `negatoscope info`)");
    } else if summary.unreadable > 0 {
        eprintln!("{skipped}: no images that can be read (see `negatoscope info`)");
    }
    Ok(summary)
}

/// Says how a series ended.
pub(super) fn tell_row(line: &ProgressLine, row: &Row) {
    match row.status {
        Status::Done => line.note(format!("done     {}  {}", row.key, row.reason).trim_end()),
        Status::Failed => line.note(&format!("failed   {}: {}", row.key, row.reason)),
        Status::Skipped => line.note(&format!("skipped  {}: {}", row.key, row.reason)),
        Status::Waiting | Status::Running => {}
    }
}

/// Prints what was found.
pub(super) fn tell_rows(rows: &[Row]) -> anyhow::Result<()> {
    let volumes = (rows.iter())
        .flat_map(|row| row.volumes_ml.iter().map(move |v| (row, v)))
        .map(|(row, (name, ml))| format!("{}\t{name}\t{ml:.3} mL", row.key));
    let findings = (rows.iter())
        .flat_map(|row| row.findings.iter().map(move |f| (row, f)))
        .map(|(row, (name, p, call))| format!("{}\t{name}\t{p:.3}\t{call}", row.key));
    let lines: Vec<String> = volumes.chain(findings).collect();
    if !lines.is_empty() {
        say(&lines.join("\n"))?;
    }
    Ok(())
}
