//! `negatoscope demo` and `negatoscope phantom`: the program without other files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;

use super::Ending;
use super::progress::ProgressLine;
use crate::batch::{Plan, Status};
use crate::dicom::{ImageSeriesOptions, write_image_series};
use crate::export::Format;
use crate::model::Registry;
use crate::nifti;
use crate::runtime::{Home, RandomUids, now_utc, run_batch};
use crate::task::Task;
use crate::volume::phantom::{DEMO_SEED, Phantom, head_geometry, head_mr};

#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Folder for the study and its results.
    #[arg(long, value_name = "DIR", default_value = "negatoscope-demo")]
    out: PathBuf,
    /// Stop after the results.
    #[arg(long)]
    no_window: bool,
}

#[derive(clap::Args, Debug)]
pub struct PhantomArguments {
    /// Another seed, another head.
    #[arg(long, default_value_t = DEMO_SEED)]
    seed: u64,
    /// `F.nii.gz` for an image with `F_truth.nii.gz` beside it, or a folder for a DICOM series.
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
}

pub fn phantom(arguments: &PhantomArguments) -> anyhow::Result<Ending> {
    let phantom = head_mr(arguments.seed, head_geometry());
    let name = arguments.out.to_string_lossy().into_owned();
    let unpacked = Path::new(name.strip_suffix(".gz").unwrap_or(&name));
    if unpacked.extension().is_some_and(|e| e == "nii") {
        let stem = name.trim_end_matches(".gz").trim_end_matches(".nii");
        let truth = PathBuf::from(format!("{stem}_truth.nii.gz"));
        nifti::write_volume(&arguments.out, &phantom.volume)?;
        nifti::write_label_map(&truth, &phantom.truth, &[])?;
        eprintln!("{}, {}", arguments.out.display(), truth.display());
    } else {
        let files = write_study(&phantom, &arguments.out)?;
        eprintln!("{} images in {}", files.len(), arguments.out.display());
    }
    Ok(Ending::Done)
}

/// The phantom as a DICOM series, marked as synthetic.
fn write_study(phantom: &Phantom, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("the folder cannot be made: {}", folder.display()))?;
    let options = ImageSeriesOptions {
        modality: "MR".to_owned(),
        study_instance_uid: RandomUids::fresh(),
        series_instance_uid: RandomUids::fresh(),
        frame_of_reference_uid: RandomUids::fresh(),
        patient_study: Vec::new(),
        series_description: "Synthetic T1 head".to_owned(),
        series_number: 1,
        body_part: "HEAD".to_owned(),
        synthetic: true,
    };
    Ok(write_image_series(
        &phantom.volume,
        folder,
        &options,
        &mut RandomUids::fresh,
        now_utc(),
    )?)
}

/// Slices of the synthetic study.
fn slices() -> usize {
    head_geometry().dims()[2]
}

pub fn run(home: &Home, arguments: &Arguments) -> anyhow::Result<Ending> {
    let study = arguments.out.join("study");
    let results = arguments.out.join("results");
    if (1..=slices()).all(|n| study.join(format!("{n:04}.dcm")).is_file()) {
        eprintln!("The synthetic study is there already: {}", study.display());
    } else {
        eprintln!("Writing a synthetic study to {}", study.display());
        write_study(&head_mr(DEMO_SEED, head_geometry()), &study)?;
    }
    let entry = Registry::new(home.models())
        .list()
        .into_iter()
        .find(|entry| entry.bundled)
        .context("this build carries no model")?;
    let model = entry.manifest.key();
    eprintln!("Running {} ({model}) on it", entry.manifest.name);
    let plan = Plan {
        inputs: vec![study.clone()],
        output: results.clone(),
        formats: Format::ALL.to_vec(),
        resume: true,
        mirroring: true,
        explain: None,
        channels: Vec::new(),
    };
    let task = Arc::new(Task::new());
    let line = ProgressLine::start(&task);
    let (summary, rows) = run_batch(home, &model, &plan, &task, |_, row| {
        if row.status == Status::Failed {
            line.note(&format!("failed: {}", row.reason));
        }
    })?;
    drop(line);
    let mut opened = vec![study];
    for row in rows.iter().filter(|row| row.status == Status::Done) {
        for (name, ml) in &row.volumes_ml {
            eprintln!("  {name}: {ml:.2} mL");
        }
        eprintln!("Results: {}", row.results.display());
        opened.push(row.results.join(Format::Seg.file_name()));
    }
    if summary.done == 0 {
        return Ok(Ending::Nothing);
    }
    if arguments.no_window {
        return Ok(Ending::Done);
    }
    super::open_window(home.clone(), opened)
}
