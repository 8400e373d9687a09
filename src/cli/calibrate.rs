//! `negatoscope calibrate`: a classifier's temperatures and thresholds anew, for labeled images of
//! one's own.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::Ending;
use super::evaluate::{Labeled, package_of};
use super::print::{say, say_json};
use super::progress::ProgressLine;
use crate::audit::{AuditEvent, EventId, Log, ParticipantObject};
use crate::model::{Registry, VerifiedPackage};
use crate::runtime::{Home, now_utc};
use crate::task::Task;
use crate::training::{Evaluation, calibrate, result};

#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Model `ID` or `ID@VERSION` (see `models list`), or a package's folder or file.
    #[arg(value_name = "ID|PATH")]
    model: String,
    /// Folder for the package.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Version of the new package (else the old one's with `-calibrated` behind it).
    #[arg(long = "as-version", value_name = "VERSION")]
    version: Option<String>,
    #[command(flatten)]
    labeled: Labeled,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(home: &Home, arguments: &Arguments) -> anyhow::Result<Ending> {
    let registry = Registry::new(home.models());
    let original = package_of(&registry, &arguments.model)?;
    let folder = arguments.out.join("package");
    if folder.join("manifest.json").exists() {
        anyhow::bail!(
            "there is a package already, use another --out: {}",
            folder.display()
        );
    }
    if arguments.labeled.finding.is_some() {
        anyhow::bail!("--finding is for models of many findings, which cannot be calibrated");
    }
    let bare = calibrate::bare(&original)?;
    let manifest = original.manifest();
    let access = AuditEvent::new(EventId::DicomInstancesAccessed, now_utc())
        .about(ParticipantObject::file(&arguments.labeled.data).with("role", "calibration data"))
        .about(ParticipantObject::model(
            &manifest.key(),
            &manifest.weights_sha256,
        ));
    Log::open(home.root())?.append(&access)?;
    let task = Arc::new(Task::new());
    let line = ProgressLine::start(&task);
    let measure = |package: &VerifiedPackage| -> anyhow::Result<Evaluation> {
        let labeled = &arguments.labeled;
        labeled.measure(&registry, package, &mut |_| Ok(()), &task)
    };
    let made = calibrate::calibrate(&original, &measure(&bare)?, arguments.version.as_deref())?;
    let (before, after) = (measure(&original)?, measure(&made.package)?);
    drop(line);
    let package = calibrate::with_card(&made, &original, [&before, &after])?;
    let card = package.files().card.clone().unwrap_or_default();
    result::write(&package, &String::from_utf8_lossy(&card), &folder)?;
    if arguments.json {
        say_json(&json!({
            "package": folder,
            "model": package.manifest().key(),
            "made_from": manifest.key(),
            "temperature": made.decision.heads.finding,
            "kind_temperature": made.decision.heads.kinds,
            "half_splits": made.half_splits,
            "cases": made.cases,
        }))?;
    } else {
        say(&format!(
            "{} from {}, {} cases\n",
            package.manifest().key(),
            manifest.key(),
            made.cases
        ))?;
        say(calibrate::table(&made, [&before, &after]).trim_end())?;
    }
    let also = if original.signature().is_some() {
        "; the signature of the original does not cover it"
    } else {
        ""
    };
    eprintln!(
        "package in {}; install it with `negatoscope models import`{also}",
        folder.display()
    );
    Ok(Ending::Done)
}
