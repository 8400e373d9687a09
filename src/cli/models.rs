//! `negatoscope models`: what can be run.

use std::path::PathBuf;

use super::Ending;
use crate::runtime::Home;

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

pub fn run(_home: &Home, _arguments: &Arguments) -> anyhow::Result<Ending> {
    anyhow::bail!("not wired yet")
}
