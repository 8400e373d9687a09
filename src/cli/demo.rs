//! `negatoscope demo` and `negatoscope phantom`: the program without other files.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::Ending;
use crate::dicom::{ImageSeriesOptions, write_image_series};
use crate::nifti;
use crate::runtime::{Home, RandomUids, now_utc};
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
    if name.ends_with(".nii") || name.ends_with(".nii.gz") {
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

pub fn run(home: &Home, arguments: &Arguments) -> anyhow::Result<Ending> {
    let study = arguments.out.join("study");
    if study.join("0001.dcm").is_file() {
        eprintln!("The synthetic study is there already: {}", study.display());
    } else {
        eprintln!("Writing a synthetic study to {}", study.display());
        write_study(&head_mr(DEMO_SEED, head_geometry()), &study)?;
    }
    if !arguments.no_window {
        return super::open_window(home.clone(), vec![study]);
    }
    Ok(Ending::Done)
}
