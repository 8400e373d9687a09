//! `negatoscope models`: what can be run.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::Ending;
use super::print::{say, say_json};
use crate::audit::{AuditEvent, EventId, Log, ParticipantObject};
use crate::import;
use crate::model::{self, Manifest, Registry};
use crate::runtime::{Home, now_utc};

#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// List the models that can be run.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print a model's manifest.
    Show {
        /// `ID` or `ID@VERSION`.
        id: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Import a model: a package, or a folder of a known foreign format.
    Import {
        /// Folder or file.
        path: PathBuf,
        /// How scans were stored for training, as the directions in which voxels rise: only for
        /// nnU-Nets that take scans as stored, when you know it.
        #[arg(long, value_name = "LPS|RAS|…", value_parser = letters)]
        orientation: Option<String>,
        /// What an ONNX file does not say; `MODEL.toml` or `MODEL.json` beside it without.
        #[arg(long, value_name = "FILE")]
        settings: Option<PathBuf>,
        /// Print settings for an ONNX file to fill in, and import nothing.
        #[arg(long, conflicts_with_all = ["settings", "orientation", "json"])]
        template: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check the hashes of all models.
    Verify {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove an installed model.
    Remove {
        /// `ID` or `ID@VERSION`.
        id: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Three letters, one of each pair.
fn letters(text: &str) -> Result<String, String> {
    let upper = text.to_uppercase();
    let pairs = ["LR", "AP", "SI"];
    let mut axes: Vec<_> = upper
        .chars()
        .map(|c| pairs.iter().position(|p| p.contains(c)))
        .collect();
    axes.sort();
    if axes == [Some(0), Some(1), Some(2)] {
        Ok(upper)
    } else {
        Err("expected three letters, one each of L/R, A/P and S/I, such as LPS".to_owned())
    }
}

pub fn run(home: &Home, arguments: &Arguments) -> anyhow::Result<Ending> {
    let registry = Registry::new(home.models());
    match &arguments.what {
        What::List { json } => {
            let entries = registry.list();
            if *json {
                let list: Vec<Value> = entries
                    .iter()
                    .map(|e| entry_json(&e.manifest, e.bundled))
                    .collect();
                say_json(&json!({ "models": list }))?;
            } else {
                for e in &entries {
                    let origin = if e.bundled { "bundled" } else { "imported" };
                    say(&format!(
                        "{:<28} {:<8} {} ({origin}, {})",
                        e.manifest.key(),
                        e.manifest.modality,
                        e.manifest.name,
                        e.manifest.license
                    ))?;
                }
            }
        }
        What::Show { id, json } => {
            let package = registry.load(id)?;
            let manifest = package.manifest();
            if *json {
                say_json(&serde_json::to_value(manifest)?)?;
            } else {
                say(&format!("{}  {}", manifest.key(), manifest.name))?;
                say(&format!("License: {}", manifest.license))?;
                say(&format!("Intended use: {}", manifest.intended_use))?;
                say(&format!("Trained on: {}", manifest.training_data))?;
                for limit in &manifest.limits {
                    say(&format!("Limit: {limit}"))?;
                }
                for label in &manifest.labels {
                    say(&format!(
                        "{:>4}  {}  ({}, {})",
                        label.label, label.name, label.property.value, label.property.scheme
                    ))?;
                }
                if let Some(card) = &package.files().card {
                    say(&format!("\n{}", String::from_utf8_lossy(card)))?;
                }
            }
        }
        What::Import {
            path,
            template: true,
            ..
        } => say(import::onnx::template(path)?.trim_end())?,
        What::Import {
            path,
            orientation,
            settings,
            json,
            ..
        } => {
            let packages = match settings {
                Some(settings) => vec![import::onnx::package(path, Some(settings))?],
                None => import::read_stored_as(path, orientation.as_deref())?,
            };
            let event =
                AuditEvent::new(EventId::Import, now_utc()).about(ParticipantObject::file(path));
            let event = packages.iter().fold(event, |event, p| {
                event.about(ParticipantObject::model(
                    &p.manifest().key(),
                    &p.manifest().weights_sha256,
                ))
            });
            Log::open(home.root())?.append(&event)?;
            let mut list = Vec::new();
            for package in &packages {
                registry.install(package)?;
                list.push(entry_json(package.manifest(), false));
                eprintln!(
                    "imported {}  {}",
                    package.manifest().key(),
                    package.manifest().name
                );
            }
            if *json {
                say_json(&json!({ "imported": list }))?;
            }
        }
        What::Verify { json } => {
            let checks = registry.verify_all();
            let bad = checks.iter().filter(|(_, check)| check.is_err()).count();
            let list: Vec<Value> = checks
                .iter()
                .map(|(key, check)| {
                    json!({ "model": key, "ok": check.is_ok(), "problem": check.as_ref().err().map(chain) })
                })
                .collect();
            if *json {
                say_json(&json!({ "ok": bad == 0, "models": list }))?;
            } else {
                for (key, check) in &checks {
                    match check {
                        Ok(()) => say(&format!("{key}: as it was installed"))?,
                        Err(error) => say(&format!("{key}: {}", chain(error)))?,
                    }
                }
            }
            return Ok(match bad {
                0 => Ending::Done,
                n if n == checks.len() => Ending::Nothing,
                _ => Ending::Partly,
            });
        }
        What::Remove { id, json } => {
            let key = registry.remove(id)?;
            eprintln!("removed {key}");
            if *json {
                say_json(&json!({ "removed": key }))?;
            }
        }
    }
    Ok(Ending::Done)
}

fn entry_json(manifest: &Manifest, bundled: bool) -> Value {
    json!({
        "id": manifest.id,
        "version": manifest.version,
        "key": manifest.key(),
        "name": manifest.name,
        "modality": manifest.modality,
        "license": manifest.license,
        "segments": manifest.labels.len(),
        "bundled": bundled,
        "sha256": manifest.weights_sha256,
    })
}

fn chain(error: &model::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
