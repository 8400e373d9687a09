//! What a person can ask for. One table feeds menus, shortcuts and the list in the help.

use std::path::PathBuf;

use super::{CopyWanted, Dialog, JobId, SeriesKey, ServerDraft, TrainingChoice};
use crate::findings::{Edit, ExplanationMethod, ReviewState};
use crate::geometry::{DVec2, DVec3, ViewPlane};
use crate::redact::Sensitive;
use crate::volume::VoiWindow;

/// A person's wish, as data.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// File ▸ Open…
    OpenFiles,
    /// File ▸ Open folder…
    OpenFolder,
    /// File ▸ Copy without identity…
    ShowCopy,
    /// What the copy is made of and how; its folder is chosen apart.
    SetCopy(CopyWanted),
    /// Choose the copy's folder.
    ChooseCopyFolder,
    /// Write the copy.
    StartCopy,
    /// Help ▸ Audit log…
    ShowAudit,
    /// Close the audit log.
    HideAudit,
    /// Show records that hold these words.
    FilterAudit(String),
    /// Write the audit log to a file.
    ExportAudit,
    /// Open these (drag and drop, command line).
    Open(Vec<PathBuf>),
    /// Show a series.
    OpenSeries(SeriesKey),
    /// Draw a segmentation (DICOM SEG) of the browser on the open series.
    OpenSegmentation(PathBuf),
    /// Show the next (1) or previous (-1) series.
    StepSeries(i32),
    /// Gray window by hand.
    SetVoiWindow(VoiWindow),
    /// Window preset by its key.
    Preset(u8),
    /// Scroll a view.
    Scroll {
        /// Which view.
        view: ViewPlane,
        /// Slices, positive onwards.
        steps: i64,
    },
    /// Jump to a slice index from 0.
    ScrollTo {
        /// Which view.
        view: ViewPlane,
        /// Index from 0.
        index: usize,
    },
    /// Move the crosshair.
    SetCrosshair(DVec3),
    /// Zoom a view, keeping a point of the plane where it is on screen.
    Zoom {
        /// Which view.
        view: ViewPlane,
        /// Above 1 enlarges.
        factor: f64,
        /// Offset of the fixed point from the middle of the tile, in mm.
        at_mm: DVec2,
    },
    /// Move a view's content.
    Pan {
        /// Which view.
        view: ViewPlane,
        /// Movement of the image in mm.
        by_mm: DVec2,
    },
    /// Fit all views.
    Fit,
    /// Let a view fill the window, or restore.
    Maximize(ViewPlane),
    /// Make a view the one that keys act on.
    Activate(ViewPlane),
    /// Activate the next view.
    NextView(i32),
    /// Swap black and white.
    Invert,
    /// Smooth or plain pixels.
    ToggleInterpolation,
    /// Show or hide the crosshair.
    ToggleCrosshair,
    /// Full, minimal or no corner text.
    CycleCornerText,
    /// Show or hide the segmentation.
    ToggleOverlay,
    /// Show or hide a segment.
    SetSegmentVisible {
        /// Label.
        label: u8,
        /// Shown.
        visible: bool,
    },
    /// Show or hide all segments.
    SetAllSegmentsVisible(bool),
    /// Move the crosshair to a segment.
    GoToSegment(u8),
    /// Fill opacity, 0 to 1.
    SetOverlayFill(f32),
    /// Outline opacity, 0 to 1.
    SetOverlayOutline(f32),
    /// Choose a model by `id@version`.
    SelectModel(String),
    /// With or without the mirrored passes that a model's plans ask for.
    SetMirroring(bool),
    /// Where the chosen model runs: a server's name, or this machine.
    SetPlace(Option<String>),
    /// Send what was shown.
    SendRemote,
    /// Analysis ▸ Server jobs…
    ShowQueue,
    /// Close the list of jobs.
    HideQueue,
    /// Analysis ▸ Model servers…
    ShowServers,
    /// Close the list of servers.
    HideServers,
    /// Choose the certificates of a server's authority.
    ChooseAuthority,
    /// Set a server up; nothing is sent to it.
    AddServer(Box<ServerDraft>),
    /// Remove a server.
    RemoveServer(String),
    /// Whether a person is asked before each sending to a server.
    SetAsks(String, bool),
    /// Call a server and show what it is.
    TestServer(String),
    /// Let go of the test of a server.
    StopTest,
    /// Go on with a job that waits for a server.
    GoOn(String),
    /// Take a job back.
    CancelQueued(String),
    /// Forget the jobs that are over.
    ClearQueue,
    /// Run the chosen model on the open volume.
    RunModel,
    /// Stop a job.
    CancelJob(JobId),
    /// Esc: stop the youngest job, else close a dialog, else fit.
    Escape,
    /// The person agrees with the result.
    AcceptResult,
    /// The person does not.
    RejectResult,
    /// A person's word on a finding: which assessment, which finding.
    ReviewFinding(usize, usize, ReviewState),
    /// Show where the evidence for a finding lies, or hide it: which assessment, which finding.
    Explain(usize, usize),
    /// By which way.
    ExplainBy(ExplanationMethod),
    /// What a person says in the model's place: which assessment, which finding.
    EditFinding(usize, usize, Edit),
    /// Edit the next finding that nobody has reviewed.
    EditNext,
    /// Who reviews at this machine; empty: not to be named.
    SetReviewer(Sensitive<String>),
    /// Save results…
    Export,
    /// Import a model…
    ImportModel,
    /// Analysis ▸ Analyze folder…
    AnalyzeFolder,
    /// Analysis ▸ Open comparison…
    OpenComparison,
    /// Choose the input folder of a batch.
    ChooseBatchInput,
    /// Choose the output folder of a batch.
    ChooseBatchOutput,
    /// Start the batch.
    StartBatch,
    /// Analysis ▸ Train a model…
    ShowTraining,
    /// Close the training's panel; what runs goes on.
    HideTraining,
    /// Choose something for the training.
    ChooseTraining(TrainingChoice),
    /// Use the data that the recipe names.
    TrainingDataOfRecipe,
    /// Start the training, or go on with it.
    StartTraining,
    /// Look on at a training that runs elsewhere.
    FollowTraining,
    /// Install the model that was trained.
    InstallTrained,
    /// Open a study of the batch's table.
    OpenBatchRow(usize),
    /// Show a dialog.
    ShowDialog(Dialog),
    /// Close the dialog.
    CloseDialog,
    /// Take a notice away.
    DismissNotice(usize),
    /// Up or down brightens.
    ToggleDragDirection,
    /// Show a folder in the file manager.
    Reveal(PathBuf),
    /// Leave.
    Quit,
}

/// A key with its modifiers, named as in egui.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortcut {
    /// Ctrl (Cmd on a Mac).
    pub ctrl: bool,
    /// Shift.
    pub shift: bool,
    /// Key name: `O`, `F1`, `Space`, `Tab`, `ArrowUp`, `Home`, `Num0` ….
    pub key: &'static str,
}

const fn key(key: &'static str) -> Shortcut {
    Shortcut {
        ctrl: false,
        shift: false,
        key,
    }
}

const fn ctrl(key: &'static str) -> Shortcut {
    Shortcut {
        ctrl: true,
        shift: false,
        key,
    }
}

const fn ctrl_shift(key: &'static str) -> Shortcut {
    Shortcut {
        ctrl: true,
        shift: true,
        key,
    }
}

/// Menu, label, command, shortcut: of every command that stands in a menu.
pub fn command_table() -> Vec<(&'static str, &'static str, Command, Option<Shortcut>)> {
    vec![
        ("File", "Open…", Command::OpenFiles, Some(ctrl("O"))),
        (
            "File",
            "Open folder…",
            Command::OpenFolder,
            Some(ctrl_shift("O")),
        ),
        ("File", "Save results…", Command::Export, Some(ctrl("S"))),
        ("File", "Copy without identity…", Command::ShowCopy, None),
        (
            "File",
            "Skipped files…",
            Command::ShowDialog(Dialog::Skipped),
            None,
        ),
        ("File", "Quit", Command::Quit, Some(ctrl("Q"))),
        ("View", "Fit", Command::Fit, Some(key("Equals"))),
        ("View", "Invert", Command::Invert, Some(key("I"))),
        (
            "View",
            "Smooth pixels",
            Command::ToggleInterpolation,
            Some(key("P")),
        ),
        (
            "View",
            "Crosshair",
            Command::ToggleCrosshair,
            Some(key("X")),
        ),
        (
            "View",
            "Corner text",
            Command::CycleCornerText,
            Some(key("Space")),
        ),
        (
            "View",
            "Segmentation",
            Command::ToggleOverlay,
            Some(key("G")),
        ),
        ("View", "Next view", Command::NextView(1), Some(key("Tab"))),
        (
            "View",
            "Next series",
            Command::StepSeries(1),
            Some(key("ArrowRight")),
        ),
        (
            "View",
            "Previous series",
            Command::StepSeries(-1),
            Some(key("ArrowLeft")),
        ),
        (
            "View",
            "Drag down brightens",
            Command::ToggleDragDirection,
            None,
        ),
        ("Analysis", "Run model", Command::RunModel, Some(key("F5"))),
        (
            "Analysis",
            "Accept result",
            Command::AcceptResult,
            Some(ctrl("Enter")),
        ),
        (
            "Analysis",
            "Reject result",
            Command::RejectResult,
            Some(ctrl("Backspace")),
        ),
        (
            "Analysis",
            "Edit finding…",
            Command::EditNext,
            Some(ctrl("E")),
        ),
        (
            "Analysis",
            "Reviewer's name…",
            Command::ShowDialog(Dialog::Reviewer),
            None,
        ),
        (
            "Analysis",
            "Analyze folder…",
            Command::AnalyzeFolder,
            Some(ctrl("B")),
        ),
        (
            "Analysis",
            "Open comparison…",
            Command::OpenComparison,
            None,
        ),
        ("Analysis", "Model servers…", Command::ShowServers, None),
        ("Analysis", "Server jobs…", Command::ShowQueue, None),
        ("Analysis", "Import model…", Command::ImportModel, None),
        ("Analysis", "Train a model…", Command::ShowTraining, None),
        (
            "Help",
            "Keys and gestures",
            Command::ShowDialog(Dialog::Keys),
            Some(key("F1")),
        ),
        ("Help", "Audit log…", Command::ShowAudit, None),
        (
            "Help",
            "About Negatoscope",
            Command::ShowDialog(Dialog::About),
            None,
        ),
    ]
}

impl Shortcut {
    /// As menus write it: "Ctrl+Shift+O".
    pub fn text(&self) -> String {
        let name = match self.key {
            "Equals" => "=",
            "ArrowRight" => "→",
            "ArrowLeft" => "←",
            other => other,
        };
        let ctrl = if self.ctrl { "Ctrl+" } else { "" };
        let shift = if self.shift { "Shift+" } else { "" };
        format!("{ctrl}{shift}{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_commands_share_a_shortcut() {
        let table = command_table();
        for (n, (.., a)) in table.iter().enumerate() {
            for (.., b) in &table[n + 1..] {
                assert!(a.is_none() || a != b, "{a:?}");
            }
        }
    }
}
