//! Subcommands: parse, call, print. No logic of their own.
//!
//! JSON goes to standard output alone; messages and progress go to standard error.

mod analyze;
mod audit;
mod calibrate;
mod compare;
mod compress;
mod convert;
mod deidentify;
mod demo;
mod endpoints;
mod evaluate;
mod info;
mod keys;
mod models;
mod opening;
mod places;
mod print;
mod progress;
mod queue;
mod render;
mod train;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use crate::audit::{Log, Session};
use crate::geometry::ViewPlane;
use crate::runtime::{Home, Runtime, now_utc};

/// How a command ended; the process's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All done.
    Done,
    /// Nothing could be done.
    Nothing,
    /// Partly done.
    Partly,
    /// What a check of the audit log found.
    Verdict(u8),
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        Self::from(match ending {
            Ending::Done => 0,
            Ending::Nothing => 1,
            Ending::Partly => 3,
            Ending::Verdict(code) => code,
        })
    }
}

#[derive(Parser, Debug)]
#[command(
    name = "negatoscope",
    version,
    about = "Opens DICOM studies, runs segmentation models on this machine, keeps the result.",
    after_help = "Research use – not for diagnostic use.\nExit codes: 0 all done, 1 nothing could be done, 2 usage, 3 partly done.",
    subcommand_precedence_over_arg = true
)]
struct Arguments {
    /// Folder of all state: models, audit log, settings (else NEGATOSCOPE_HOME, else the system's place).
    #[arg(long, global = true, value_name = "DIR")]
    home: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Subcommands>,
    /// Files, folders or ZIP archives to open in the window.
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

#[derive(Subcommand, Debug)]
enum Subcommands {
    /// Write a synthetic study, segment it with the bundled model, save the results, open the window.
    Demo(demo::Arguments),
    /// Write the synthetic phantom: NIfTI image and labels, or a DICOM series.
    Phantom(demo::PhantomArguments),
    /// List studies, series, geometry, issues and skipped files.
    Info(info::Arguments),
    /// Draw one slice into a PNG.
    Render(render::Arguments),
    /// Write a series as NIfTI, in modality values.
    Convert(convert::Arguments),
    /// Write DICOM files without identity (PS3.15 annex E), with a report.
    Deidentify(deidentify::Arguments),
    /// Run a model on every suited series and save the results.
    Analyze(analyze::Arguments),
    /// Jobs that wait for a model server, or have been there.
    Queue(queue::Arguments),
    /// Train a model by a recipe.
    Train(train::Arguments),
    /// Measure a model on labeled data.
    Evaluate(evaluate::Arguments),
    /// Fit a classifier's temperatures and thresholds to labeled images of one's own.
    Calibrate(calibrate::Arguments),
    /// Make a smaller version of a model, and measure what that costs.
    Compress(compress::Arguments),
    /// List, show, import, verify and remove models.
    Models(models::Arguments),
    /// Add, list, test and remove model servers.
    Endpoints(endpoints::Arguments),
    /// Say where the keys of this home are, and move them.
    Keys(keys::Arguments),
    /// Show, verify, export and forward the audit log.
    Audit(audit::Arguments),
}

/// A standard plane, as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum PlaneArgument {
    Axial,
    Coronal,
    Sagittal,
}

impl From<PlaneArgument> for ViewPlane {
    fn from(plane: PlaneArgument) -> Self {
        match plane {
            PlaneArgument::Axial => Self::Axial,
            PlaneArgument::Coronal => Self::Coronal,
            PlaneArgument::Sagittal => Self::Sagittal,
        }
    }
}

/// Parses the process's arguments and carries them out.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.command.is_some() && !arguments.paths.is_empty() {
        let text = "paths before a subcommand have no meaning; put them after it";
        let error = Arguments::command().error(clap::error::ErrorKind::ArgumentConflict, text);
        let _ = error.print();
        return ExitCode::from(2);
    }
    start_logging();
    hide_panic_payloads();
    let home = Home::resolve(arguments.home);
    let ended = match arguments.command {
        None => open_window(home, arguments.paths),
        Some(Subcommands::Demo(a)) => demo::run(&home, &a),
        Some(Subcommands::Phantom(a)) => demo::phantom(&a),
        Some(Subcommands::Info(a)) => info::run(&home, &a),
        Some(Subcommands::Render(a)) => render::run(&home, &a),
        Some(Subcommands::Convert(a)) => convert::run(&home, &a),
        Some(Subcommands::Deidentify(a)) => deidentify::run(&home, &a),
        Some(Subcommands::Analyze(a)) => in_session(&home, || analyze::run(&home, &a)),
        Some(Subcommands::Queue(a)) => queue::run(&home, &a),
        Some(Subcommands::Train(a)) => in_session(&home, || train::run(&home, &a)),
        Some(Subcommands::Evaluate(a)) => evaluate::run(&home, &a),
        Some(Subcommands::Calibrate(a)) => calibrate::run(&home, &a),
        Some(Subcommands::Compress(a)) => compress::run(&home, &a),
        Some(Subcommands::Models(a)) => models::run(&home, &a),
        Some(Subcommands::Endpoints(a)) => endpoints::run(&home, &a),
        Some(Subcommands::Keys(a)) => keys::run(&home, &a),
        Some(Subcommands::Audit(a)) => audit::run(&home, &a),
    };
    match ended {
        Ok(ending) => ending.into(),
        Err(error) => {
            eprintln!("negatoscope: {}", plain(&format!("{error:#}")));
            Ending::Nothing.into()
        }
    }
}

/// Words that may hold names of files and of others: nothing in them steers the terminal, and no line of
/// them begins like one of ours.
fn plain(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(crate::audit::visible).collect();
    lines.join("\n    ")
}

fn open_window(home: Home, paths: Vec<PathBuf>) -> anyhow::Result<Ending> {
    let display = ["DISPLAY", "WAYLAND_DISPLAY", "WAYLAND_SOCKET"];
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if cfg!(target_os = "linux") && !display.iter().any(is_set) {
        anyhow::bail!(
            "there is no display for the window; the subcommands work without one, see --help"
        );
    }
    let runtime = Runtime::new(home.clone())?;
    in_session(&home, || {
        crate::ui::open_window(runtime, paths).map_err(|error| {
            anyhow::anyhow!("the window could not be opened: {error} (is a display there? try a subcommand, see --help)")
        })?;
        Ok(Ending::Done)
    })
}

/// What runs for long is on record with its start and its stop.
fn in_session(
    home: &Home,
    work: impl FnOnce() -> anyhow::Result<Ending>,
) -> anyhow::Result<Ending> {
    // Care does not wait for a log: what touches patients asks for its own record.
    let session = Log::open(home.root())
        .and_then(|log| Session::start(&log, now_utc()))
        .inspect_err(|error| tracing::warn!(%error, "the program's start is not on record"))
        .ok();
    let ended = work();
    if let Some(Err(error)) = session.map(|session| session.stop(now_utc())) {
        tracing::warn!(%error, "the program's stop is not on record");
    }
    ended
}

/// Warnings and errors on standard error; more with `RUST_LOG`.
fn start_logging() {
    use tracing_subscriber::EnvFilter;
    let mut filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,wgpu_hal=error,wgpu_core=error,naga=error"));
    // The parser's own messages quote values of attributes, which may be a patient's.
    for quoting in [
        "dicom_core=off",
        "dicom_encoding=off",
        "dicom_object=off",
        "dicom_parser=off",
        "dicom_transfer_syntax_registry=off",
    ] {
        filter = filter.add_directive(quoting.parse().expect("a crate and a level"));
    }
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        .finish();
    // Only the first caller sets it; tests may come second.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// A failure of the program itself names its place in the source and nothing of what it worked on:
/// the words of a panic may quote a patient's data.
fn hide_panic_payloads() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map_or_else(String::new, ToString::to_string);
        tracing::error!("an error in Negatoscope itself ({place}), please report it");
    }));
}
