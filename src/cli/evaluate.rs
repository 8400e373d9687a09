//! `negatoscope evaluate`: any package on any labeled data.

use std::path::PathBuf;
use std::sync::Arc;

use super::Ending;
use super::print::{say, say_json};
use super::progress::ProgressLine;
use crate::audit::{AuditEvent, EventId, Log, ParticipantObject};
use crate::model::{PackageFiles, Registry, VerifiedPackage};
use crate::runtime::{AnyImages, Home, now_utc, settings_for_runs};
use crate::task::Task;
use crate::training::Layout;
use crate::training::evaluate::{self, Evaluation, Figures, Seen};
use crate::whole_file;

#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Model `ID` or `ID@VERSION` (see `models list`), or a package's folder or file.
    #[arg(long, value_name = "ID|PATH")]
    model: String,
    #[command(flatten)]
    labeled: Labeled,
    /// Folder for evaluation.json.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Labeled data, and how they are read: the same for all that measure.
#[derive(clap::Args, Debug)]
pub(super) struct Labeled {
    /// Folder with labels.csv (columns file, label), with folders of classes, with images and
    /// masks; or a MedMNIST file.
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,
    /// Column of labels.csv with the truth.
    #[arg(long, value_name = "NAME", default_value = "label")]
    pub label_column: String,
    /// Class whose presence the labels 0 and 1 tell, for models of many findings.
    #[arg(long, value_name = "NAME")]
    pub finding: Option<String>,
    /// Part of a MedMNIST file, or of a labels.csv with the column split.
    #[arg(long, value_parser = ["train", "val", "test"])]
    pub part: Option<String>,
    /// Column of labels.csv (sex, machine, …) whose values are measured apart too.
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}

impl Labeled {
    /// Measures a package; `seen` looks at masks as they are found.
    pub fn measure(
        &self,
        registry: &Registry,
        package: &VerifiedPackage,
        seen: &mut Seen<'_>,
        task: &Task,
    ) -> anyhow::Result<Evaluation> {
        let mut rules = evaluate::rules_for(package, &self.data, &self.label_column)?;
        rules.group_column.clone_from(&self.by);
        if self.part.is_some() && rules.layout == Layout::Labels {
            rules.split_column = Some("split".to_owned());
        }
        let parts = evaluate::parts_of(&rules, &self.data, self.part.as_deref())?;
        let load = |id: &str| registry.load(id).map_err(|e| e.to_string());
        Ok(evaluate::evaluate(
            package,
            &rules,
            &self.data,
            &parts,
            self.finding.as_deref(),
            &AnyImages,
            &settings_for_runs(),
            &load,
            seen,
            task,
        )?)
    }
}

/// An installed model, or the package in a folder or file.
pub(super) fn package_of(registry: &Registry, wanted: &str) -> anyhow::Result<VerifiedPackage> {
    let path = PathBuf::from(wanted);
    Ok(if path.exists() {
        VerifiedPackage::verify(PackageFiles::read(&path)?)?
    } else {
        registry.load(wanted)?
    })
}

pub fn run(home: &Home, arguments: &Arguments) -> anyhow::Result<Ending> {
    let registry = Registry::new(home.models());
    let package = package_of(&registry, &arguments.model)?;
    let manifest = package.manifest();
    let access = AuditEvent::new(EventId::DicomInstancesAccessed, now_utc())
        .about(ParticipantObject::file(&arguments.labeled.data).with("role", "evaluation data"))
        .about(ParticipantObject::model(
            &manifest.key(),
            &manifest.weights_sha256,
        ));
    Log::open(home.root())?.append(&access)?;
    let task = Arc::new(Task::new());
    let line = ProgressLine::start(&task);
    let labeled = &arguments.labeled;
    let found = labeled.measure(&registry, &package, &mut |_| Ok(()), &task)?;
    drop(line);
    let value = serde_json::to_value(&found)?;
    if let Some(out) = &arguments.out {
        std::fs::create_dir_all(out)?;
        let text = serde_json::to_string_pretty(&value)?;
        whole_file::write(&out.join("evaluation.json"), |w| -> std::io::Result<()> {
            w.write_all(text.as_bytes())
        })?;
    }
    if arguments.json {
        say_json(&value)?;
    } else {
        say(&format!("{}  {} cases", found.model, found.n))?;
        for (name, value, interval) in found.rows() {
            let interval =
                interval.map_or_else(String::new, |[a, b]| format!("  ({a:.4} to {b:.4})"));
            say(&format!("{name:<24} {value:.4}{interval}"))?;
        }
        if let Figures::Classes(figures) = &found.figures {
            for group in &figures.subgroups {
                say(&group.words())?;
            }
        }
    }
    Ok(Ending::Done)
}
