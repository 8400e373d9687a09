//! `negatoscope models compare`: two versions on the same cases.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Ending;
use super::evaluate::{Labeled, package_of};
use super::print::{say, say_json};
use super::progress::ProgressLine;
use crate::audit::{AuditEvent, EventId, Log, ParticipantObject};
use crate::model::{Registry, VerifiedPackage};
use crate::runtime::{Home, now_utc};
use crate::task::Task;
use crate::training::compare::{Comparison, comparable, compare};
use crate::training::evaluate::{Evaluation, Figures};
use crate::training::kept_masks::{keep_both, keep_mask};
use crate::whole_file;

/// Cases of each end that are printed.
const PRINTED: usize = 5;

#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The first: `ID` or `ID@VERSION` (see `models list`), or a package's folder or file.
    first: String,
    /// The second; differences are second minus first.
    second: String,
    #[command(flatten)]
    labeled: Labeled,
    /// Folder for comparison.json, and for the masks or probabilities of both, case by case; the
    /// window opens it (Analysis ▸ Open comparison…).
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(home: &Home, arguments: &Arguments) -> anyhow::Result<Ending> {
    let registry = Registry::new(home.models());
    let packages = [
        package_of(&registry, &arguments.first)?,
        package_of(&registry, &arguments.second)?,
    ];
    let [a, b] = [packages[0].manifest(), packages[1].manifest()];
    comparable(a, b, arguments.labeled.finding.as_deref())
        .map_err(|reason| anyhow::anyhow!("these two cannot be compared: {reason}"))?;
    let access = AuditEvent::new(EventId::DicomInstancesAccessed, now_utc())
        .about(ParticipantObject::file(&arguments.labeled.data).with("role", "evaluation data"))
        .about(ParticipantObject::model(&a.key(), &a.weights_sha256))
        .about(ParticipantObject::model(&b.key(), &b.weights_sha256));
    Log::open(home.root())?.append(&access)?;
    // Two packages of one key (a folder beside an installed one) get folders of their own.
    let folders = match &arguments.out {
        None => [None, None],
        Some(out) if a.key() == b.key() => [
            Some(out.join(format!("1-{}", a.key()))),
            Some(out.join(format!("2-{}", b.key()))),
        ],
        Some(out) => [Some(out.join(a.key())), Some(out.join(b.key()))],
    };
    let mut found = Vec::new();
    let mut images = BTreeMap::new();
    for (package, folder) in packages.iter().zip(&folders) {
        let measured = measure(
            &registry,
            package,
            folder.as_deref(),
            arguments,
            &mut images,
        )?;
        found.push(measured);
    }
    let mut comparison = compare(&found[0], &found[1])
        .map_err(|reason| anyhow::anyhow!("these two cannot be compared: {reason}"))?;
    if let (Some(out), [Some(first), Some(second)]) = (&arguments.out, &folders) {
        for case in &mut comparison.cases {
            let Some(image) = images.get(&case.file) else {
                continue;
            };
            case.image = Some(std::path::absolute(image)?);
            let models = &comparison.models;
            case.both = keep_both(out, [first, second], models, &a.labels, &case.file)?;
        }
    }
    let value = serde_json::to_value(&comparison)?;
    if let Some(out) = &arguments.out {
        std::fs::create_dir_all(out)?;
        let text = serde_json::to_string_pretty(&value)?;
        whole_file::write(&out.join("comparison.json"), |w| -> std::io::Result<()> {
            w.write_all(text.as_bytes())
        })?;
    }
    if arguments.json {
        say_json(&value)?;
    } else {
        print(&comparison)?;
    }
    Ok(Ending::Done)
}

fn measure(
    registry: &Registry,
    package: &VerifiedPackage,
    folder: Option<&Path>,
    arguments: &Arguments,
    images: &mut BTreeMap<String, PathBuf>,
) -> anyhow::Result<Evaluation> {
    let task = Arc::new(Task::new());
    let line = ProgressLine::start(&task);
    let found = arguments.labeled.measure(
        registry,
        package,
        &mut |case| {
            if let (Some(folder), Some(out)) = (folder, &arguments.out) {
                let image = keep_mask(folder, &out.join("images"), case)?;
                images.insert(case.name.to_owned(), image);
            }
            Ok(())
        },
        &task,
    )?;
    drop(line);
    if let (Some(folder), Figures::Classes(figures)) = (folder, &found.figures) {
        std::fs::create_dir_all(folder)?;
        let mut table = String::from("file,label,score,called,probabilities\n");
        for case in &figures.cases {
            let all: Vec<String> = case.probabilities.iter().map(f64::to_string).collect();
            let file = case.file.replace('"', "\"\"");
            let (label, score, called) = (case.label, case.score, case.called);
            let all = all.join(" ");
            let _ = writeln!(table, "\"{file}\",{label},{score},{called},{all}");
        }
        let path = folder.join("probabilities.csv");
        whole_file::write(&path, |w| -> std::io::Result<()> {
            w.write_all(table.as_bytes())
        })?;
    }
    Ok(found)
}

fn print(found: &Comparison) -> anyhow::Result<()> {
    let [a, b] = &found.models;
    say(&format!("{a}  against  {b}: {} cases", found.n))?;
    let number = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.4}"));
    say(&format!(
        "{:<24} {:>9} {:>9} {:>10}  95 % of the difference",
        "", "first", "second", "difference"
    ))?;
    for f in &found.figures {
        let interval = f.difference_ci95.map_or_else(
            || "-".to_owned(),
            |[low, high]| format!("{low:+.4} to {high:+.4}"),
        );
        let better = match f.difference_ci95 {
            Some([low, _]) if low > 0.0 && f.more_is_better => "  second is better",
            Some([_, high]) if high < 0.0 && !f.more_is_better => "  second is better",
            Some([_, high]) if high < 0.0 && f.more_is_better => "  first is better",
            Some([low, _]) if low > 0.0 && !f.more_is_better => "  first is better",
            _ => "",
        };
        let difference = f
            .difference
            .map_or_else(|| "-".to_owned(), |d| format!("{d:+.4}"));
        say(&format!(
            "{:<24} {:>9} {:>9} {difference:>10}  {interval}{better}",
            f.name,
            number(f.values[0]),
            number(f.values[1]),
        ))?;
    }
    say(&format!("\n{}, by case:", found.case_figure))?;
    let left_out = found.cases.len().saturating_sub(2 * PRINTED);
    for (n, case) in found.cases.iter().enumerate() {
        if left_out > 0 && n == PRINTED {
            say(&format!("  … {left_out} cases between"))?;
        }
        if left_out > 0 && (PRINTED..PRINTED + left_out).contains(&n) {
            continue;
        }
        let difference = case
            .difference
            .map_or_else(|| "-".to_owned(), |d| format!("{d:+.4}"));
        say(&format!(
            "  {difference:>8}  {:>7} {:>7}  {}",
            number(case.values[0]),
            number(case.values[1]),
            case.file
        ))?;
    }
    Ok(())
}
