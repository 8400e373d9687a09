//! `negatoscope render`: one slice into a PNG.

use std::path::PathBuf;

use super::{Ending, PlaneArgument};

#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// File, folder or ZIP archive.
    path: PathBuf,
    /// File to write.
    #[arg(long, value_name = "F.png")]
    out: PathBuf,
    /// Series Instance UID, when there are several.
    #[arg(long, value_name = "UID")]
    series: Option<String>,
    /// Plane.
    #[arg(long)]
    plane: Option<PlaneArgument>,
    /// Slice, from 1; the middle one by default.
    #[arg(long)]
    slice: Option<usize>,
    /// Window, e.g. `40,400`.
    #[arg(long, value_name = "CENTER,WIDTH", allow_hyphen_values = true)]
    window: Option<String>,
    /// Size in pixels, e.g. `800x800`.
    #[arg(long, value_name = "WxH", default_value = "800x800")]
    size: String,
    /// DICOM SEG or NIfTI label map to draw over it.
    #[arg(long, value_name = "SEG")]
    overlay: Option<PathBuf>,
    /// Text in the corners.
    #[arg(long, default_value = "minimal", value_parser = ["none", "minimal", "full"])]
    info: String,
}

pub fn run(_arguments: &Arguments) -> anyhow::Result<Ending> {
    anyhow::bail!("not wired yet")
}
