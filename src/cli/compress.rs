//! `negatoscope compress`: a smaller version of a model, measured before and after.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::ValueEnum;
use serde_json::json;

use super::Ending;
use super::evaluate::{Labeled, package_of};
use super::print::{say, say_json};
use super::progress::ProgressLine;
use crate::audit::{AuditEvent, EventId, Log, ParticipantObject};
use crate::inference::{Classifier, Model};
use crate::model::{Registry, VerifiedPackage};
use crate::runtime::{Home, now_utc};
use crate::task::Task;
use crate::training::compress::{self, Measured, Over, Storage, Wish};
use crate::training::{Evaluation, compare, result};
use crate::whole_file;

#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Model `ID` or `ID@VERSION` (see `models list`), or a package's folder or file.
    #[arg(value_name = "ID|PATH")]
    model: String,
    /// How weights are stored. All are expanded to f32 when loaded.
    #[arg(long, value_enum, default_value_t = To::F16)]
    to: To,
    /// Part of the weights of convolutions and linear layers that becomes zero, the smallest first.
    #[arg(long, value_name = "0…1", default_value_t = 0.0)]
    prune: f64,
    /// Where the smallest weights are looked for.
    #[arg(long, value_enum, default_value_t = PruneOver::Network)]
    prune_over: PruneOver,
    /// Folder for the package and report.json.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Version of the new package (else the old one's with what was done behind it).
    #[arg(long = "as-version", value_name = "VERSION")]
    version: Option<String>,
    #[command(flatten)]
    labeled: Labeled,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum To {
    F32,
    F16,
    Int8,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PruneOver {
    /// Each layer loses the same part.
    Layer,
    /// All layers together: those with small weights lose more. Costs far less accuracy.
    Network,
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
    let wish = Wish {
        storage: match arguments.to {
            To::F32 => Storage::F32,
            To::F16 => Storage::F16,
            To::Int8 => Storage::Int8,
        },
        prune: arguments.prune,
        over: match arguments.prune_over {
            PruneOver::Layer => Over::Layer,
            PruneOver::Network => Over::Network,
        },
    };
    let made = compress::compress(&original, &wish, arguments.version.as_deref())?;
    let manifest = original.manifest();
    let access = AuditEvent::new(EventId::DicomInstancesAccessed, now_utc())
        .about(ParticipantObject::file(&arguments.labeled.data).with("role", "evaluation data"))
        .about(ParticipantObject::model(
            &manifest.key(),
            &manifest.weights_sha256,
        ));
    Log::open(home.root())?.append(&access)?;
    let task = Arc::new(Task::new());
    let line = ProgressLine::start(&task);
    let load = |id: &str| registry.load(id).map_err(|e| e.to_string());
    // Both before any run: what a run leaves behind in caches and threads would blur them.
    let load_secs = [loading(&original, &load)?, loading(&made.package, &load)?];
    let measure = |package: &VerifiedPackage| -> anyhow::Result<(Evaluation, f64)> {
        let start = Instant::now();
        let labeled = &arguments.labeled;
        let found = labeled.measure(&registry, package, &mut |_| Ok(()), &task)?;
        Ok((found, start.elapsed().as_secs_f64()))
    };
    let (before, run_before) = measure(&original)?;
    let (after, run_after) = measure(&made.package)?;
    drop(line);
    let sizes = [&original, &made.package].map(VerifiedPackage::weights);
    let measured = Measured {
        cases: before.n,
        figures: compare::compare(&before, &after)
            .map_err(anyhow::Error::msg)?
            .figures,
        bytes: sizes.map(<[u8]>::len),
        deflated_bytes: sizes.map(compress::deflated),
        load_secs,
        run_secs: [run_before, run_after],
        zeros: made.zeros as f64 / made.weights as f64,
    };
    let package = compress::with_card(&made, &original, &measured)?;
    let card = package.files().card.clone().unwrap_or_default();
    result::write(&package, &String::from_utf8_lossy(&card), &folder)?;
    let report = json!({
        "package": folder,
        "model": package.manifest().key(),
        "made_from": manifest.key(),
        "weights_sha256": package.manifest().weights_sha256,
        "measured": measured,
    });
    write_report(&arguments.out, &report)?;
    if arguments.json {
        say_json(&report)?;
    } else {
        say(&format!(
            "{} from {}, {} cases, {:.1} % of weights are zero\n",
            package.manifest().key(),
            manifest.key(),
            measured.cases,
            measured.zeros * 100.0
        ))?;
        say(measured.table().trim_end())?;
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

/// Seconds from the files to a model that runs, the middle one of three.
fn loading(
    package: &VerifiedPackage,
    load: &dyn Fn(&str) -> Result<VerifiedPackage, String>,
) -> anyhow::Result<f64> {
    let mut times = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        let package = VerifiedPackage::verify(package.files().clone())?;
        if package.manifest().classification.is_some() {
            Classifier::new(package)?;
        } else {
            Model::new(package, load)?;
        }
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[1])
}

fn write_report(out: &Path, report: &serde_json::Value) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(report)?;
    whole_file::write(&out.join("report.json"), |w| -> std::io::Result<()> {
        w.write_all(text.as_bytes())
    })?;
    Ok(())
}
