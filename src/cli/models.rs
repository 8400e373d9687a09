//! `negatoscope models`: what can be run.

use std::path::PathBuf;

use anyhow::Context;
use serde_json::{Value, json};

use super::Ending;
use super::print::{say, say_json};
use crate::audit::{AuditEvent, EventId, EventType, Log, ObjectKind, Outcome, ParticipantObject};
use crate::import;
use crate::model::{self, Registry};
use crate::monitoring::{self, Store};
use crate::runtime::{Home, change_on_record, import_models, now_utc};

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
    /// Write a model's package without its weights: for machines that run it on a server alone.
    Outline {
        /// `ID` or `ID@VERSION`.
        id: String,
        /// Folder to make; it must not exist.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Import a model: a package, or a folder of a known foreign format.
    Import {
        /// A package, an nnU-Net result folder, a MONAI bundle (folder or ZIP file), a brainchop folder,
        /// an ONNX file, or a checkpoint of TorchXRayVision.
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
        /// Take a version older than one that was installed before.
        #[arg(long)]
        allow_older: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Use a version wherever only the id is given, though there are higher ones.
    Pin {
        /// `ID@VERSION`.
        id: String,
    },
    /// Use the highest version again.
    Unpin {
        /// `ID`.
        id: String,
    },
    /// Go back to the version before the one in use.
    Rollback {
        /// `ID`.
        id: String,
    },
    /// Measure two models on the same labeled cases and show what differs.
    Compare(super::compare::Arguments),
    /// Make a key to sign packages with; prints its public half.
    Keygen {
        /// File for the key (PKCS#8); it must not exist.
        file: PathBuf,
    },
    /// Sign a package folder: writes signature.json into it.
    Sign {
        /// Folder with manifest.json.
        folder: PathBuf,
        /// File with the key.
        #[arg(long)]
        key: PathBuf,
        /// What the publisher calls itself.
        #[arg(long)]
        publisher: String,
    },
    /// List the publishers that this machine knows, or trust another one.
    Trust {
        /// Public key, 64 hex digits; none to list.
        #[arg(requires = "name")]
        public_key: Option<String>,
        /// What you call the publisher.
        #[arg(long)]
        name: Option<String>,
    },
    /// Trust a publisher no longer.
    Distrust {
        /// Name or public key.
        publisher: String,
    },
    /// Check the hashes of all models.
    Verify {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// What each version did in each month, and what readers said of its results.
    Usage {
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
                let list: Vec<Value> = entries.iter().map(entry_json).collect();
                say_json(&json!({ "models": list }))?;
            } else {
                for e in &entries {
                    let pinned = if e.pinned { ", pinned" } else { "" };
                    let place = if e.manifest.is_on_a_server() {
                        ", only on a server"
                    } else {
                        ""
                    };
                    say(&format!(
                        "{:<28} {:<8} {} ({}{pinned}{place}, {})",
                        e.manifest.key(),
                        e.manifest.modality,
                        e.manifest.name,
                        e.origin.words(),
                        e.manifest.license
                    ))?;
                }
            }
        }
        What::Outline { id, out } => {
            let package = registry.load(id)?;
            let outline = package.manifest().outline()?;
            std::fs::create_dir(out)
                .with_context(|| format!("the folder cannot be made: {}", out.display()))?;
            let mut text = serde_json::to_vec_pretty(&outline)?;
            text.push(b'\n');
            std::fs::write(out.join("manifest.json"), text)?;
            if let Some(card) = &package.files().card {
                std::fs::write(out.join("MODEL_CARD.md"), card)?;
            }
            say(&format!(
                "{} without weights: {}",
                outline.key(),
                out.display()
            ))?;
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
            allow_older,
            json,
            ..
        } => {
            let packages = import_models(home, path, *allow_older, || match settings {
                Some(settings) => Ok(vec![import::onnx::package(path, Some(settings))?]),
                None => import::read_stored_as(path, orientation.as_deref()),
            })?;
            let mut list = Vec::new();
            for package in &packages {
                list.push(entry_json(&registry.find(&package.manifest().key())?));
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
            for (key, _) in checks.iter().filter(|(_, check)| check.is_err()) {
                record_refused(home, key)?;
            }
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
        What::Pin { id } => {
            let key = on_record(home, id, "pinned", || Ok(registry.pin(id)?))?;
            say(&format!("in use: {key}"))?;
        }
        What::Unpin { id } => {
            let key = on_record(home, id, "unpinned", || Ok(registry.unpin(id)?))?;
            say(&format!("in use: {key}"))?;
        }
        What::Rollback { id } => {
            let key = on_record(home, id, "rolled back", || Ok(registry.roll_back(id)?))?;
            say(&format!("in use: {key}"))?;
        }
        What::Keygen { file } => say(&model::new_key(file)?)?,
        What::Sign {
            folder,
            key,
            publisher,
        } => {
            let files = model::PackageFiles::read(folder)?;
            let signature = model::sign(&files, publisher, key)?;
            let bytes = serde_json::to_vec_pretty(&signature)?;
            crate::whole_file::write(&folder.join(model::SIGNATURE_FILE), |w| w.write_all(&bytes))?;
            // What was just written must be what a receiver accepts.
            model::VerifiedPackage::verify(model::PackageFiles::read(folder)?)?;
            eprintln!("signed with {}", signature.public_key);
        }
        What::Trust { public_key, name } => match (public_key, name) {
            (Some(key), Some(name)) => {
                let subject = publisher_object(name, "trusted").with("public_key", key);
                change_on_record::<_, anyhow::Error>(
                    home,
                    EventType::SecurityConfiguration,
                    subject,
                    || Ok(registry.publishers().trust(name, key)?),
                )?;
            }
            _ => {
                for publisher in registry.publishers().list() {
                    say(&format!("{}  {}", publisher.public_key, publisher.name))?;
                }
            }
        },
        What::Distrust { publisher } => {
            let subject = publisher_object(publisher, "trusted no longer");
            change_on_record::<_, anyhow::Error>(
                home,
                EventType::SecurityConfiguration,
                subject,
                || {
                    anyhow::ensure!(
                        registry.publishers().forget(publisher)?,
                        "no publisher {publisher:?} is known"
                    );
                    Ok(())
                },
            )?;
        }
        What::Compare(arguments) => return super::compare::run(home, arguments),
        What::Usage { json } => usage(home, *json)?,
        What::Remove { id, json } => {
            let key = on_record(home, id, "removed", || Ok(registry.remove(id)?))?;
            eprintln!("removed {key}");
            if *json {
                say_json(&json!({ "removed": key }))?;
            }
        }
    }
    Ok(Ending::Done)
}

/// A change of which models run is a change of the software.
fn on_record<T>(
    home: &Home,
    id: &str,
    what: &str,
    make: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let model = ParticipantObject::new(ObjectKind::Model, id).with("change", what);
    change_on_record::<_, anyhow::Error>(home, EventType::SoftwareConfiguration, model, make)
}

fn publisher_object(publisher: &str, what: &str) -> ParticipantObject {
    ParticipantObject::new(ObjectKind::File, "models/publishers.json")
        .with("publisher", publisher)
        .with("change", what)
}

/// A model whose files are not as they were installed will not run.
fn record_refused(home: &Home, key: &str) -> anyhow::Result<()> {
    let event = AuditEvent::new(EventId::SecurityAlert, now_utc())
        .of_type(EventType::SoftwareConfiguration)
        .about(ParticipantObject::new(ObjectKind::Model, key).with("change", "refused"))
        .failed(
            Outcome::SeriousFailure,
            "the model is not as it was installed",
        );
    Log::open(home.root())?.append(&event)?;
    Ok(())
}

fn usage(home: &Home, json: bool) -> anyhow::Result<()> {
    let usage = monitoring::usage(&Store::new(home.root()).read()?);
    if usage.left_out > 0 {
        eprintln!(
            "{} lines of the monitoring files cannot be read and are left out",
            usage.left_out
        );
    }
    if json {
        say_json(&serde_json::to_value(&usage)?)?;
        return Ok(());
    }
    if usage.rows.is_empty() {
        say("no runs yet")?;
        return Ok(());
    }
    say(&format!(
        "{:<32} {:<8} {:>5} {:>6} {:>7} {:>9} {:>9} {:>8} {:>6} {:>8}",
        "model",
        "month",
        "runs",
        "failed",
        "refused",
        "cancelled",
        "median s",
        "accepted",
        "edited",
        "rejected"
    ))?;
    for row in &usage.rows {
        let seconds = row.median_seconds;
        say(&format!(
            "{:<32} {:<8} {:>5} {:>6} {:>7} {:>9} {:>9} {:>8} {:>6} {:>8}",
            format!("{}@{}", row.model, row.version),
            row.month,
            row.runs,
            row.failed,
            row.refused,
            row.cancelled,
            seconds.map_or_else(|| "-".to_owned(), |s| format!("{s:.2}")),
            row.accepted,
            row.edited,
            row.rejected
        ))?;
        for f in &row.findings {
            say(&format!(
                "  {}: mean probability {:.3} over {}; present {}, absent {}, not sure {}; accepted {}, edited {}, rejected {}",
                f.name,
                f.mean_probability,
                f.n,
                f.present,
                f.absent,
                f.not_sure,
                f.accepted,
                f.edited,
                f.rejected
            ))?;
        }
        for s in &row.segments {
            let Some(mean) = s.mean_volume_ml else {
                continue;
            };
            say(&format!(
                "  {}: mean volume {:.2} mL over {}",
                s.name, mean, s.n
            ))?;
        }
    }
    Ok(())
}

fn entry_json(entry: &model::Entry) -> Value {
    let manifest = &entry.manifest;
    json!({
        "id": manifest.id,
        "version": manifest.version,
        "key": manifest.key(),
        "name": manifest.name,
        "modality": manifest.modality,
        "license": manifest.license,
        "segments": manifest.labels.len(),
        "bundled": entry.bundled,
        "origin": entry.origin.words(),
        "public_key": entry.origin.public_key(),
        "pinned": entry.pinned,
        "only_on_a_server": manifest.is_on_a_server(),
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
