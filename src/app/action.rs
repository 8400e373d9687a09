//! What the app asks `runtime` to do.

use std::path::PathBuf;
use std::sync::Arc;

use super::{
    ChannelSource, CopyWanted, JobId, RemoteWork, SeriesKey, ServerDraft, Settings, TrainingChoice,
    VolumeId,
};
use crate::audit::EventId;
use crate::findings::{Assessment, Call, ExplanationMethod, ReviewState, Segmentation};
use crate::study::{Patient, Series, Study};
use crate::task::Task;
use crate::volume::Volume;

/// Why a file dialog is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskFor {
    /// Files to open.
    OpenFiles,
    /// A folder to open.
    OpenFolder,
    /// Where results go.
    ExportFolder,
    /// Where the audit log goes.
    AuditExport,
    /// Studies for the batch.
    BatchInput,
    /// Where the batch writes.
    BatchOutput,
    /// A model folder or file to import.
    ModelImport,
    /// Certificates of a model server's authority (PEM).
    ServerAuthority,
    /// Where a copy without identity goes.
    CopyFolder,
    /// A folder that `models compare` has written.
    Comparison,
    /// Something for a training.
    Training(TrainingChoice),
}

/// A result that can be written.
#[derive(Clone, Debug)]
pub enum ToExport {
    /// Labels.
    Segmentation(Arc<Segmentation>),
    /// What a classifier says.
    Findings(Arc<Vec<Assessment>>),
}

/// A person's decision on a result of a run, without the person.
#[derive(Clone, Debug, PartialEq)]
pub struct ReviewNote {
    /// The run's random name.
    pub run: String,
    /// Model id.
    pub model: String,
    /// Model version.
    pub version: String,
    /// Name of the finding and its image; none stands for all segments.
    pub finding: Option<(String, usize)>,
    /// State before.
    pub from: ReviewState,
    /// State now.
    pub to: ReviewState,
    /// What the model says.
    pub model_call: Option<Call>,
    /// What the reader says instead.
    pub reader_call: Option<Call>,
}

/// Work outside of the app's own state.
#[derive(Clone, Debug)]
pub enum Action {
    /// Show a file dialog; the answer comes as `Event::Chosen`.
    Ask(AskFor),
    /// Read headers.
    Index {
        /// The job.
        job: JobId,
        /// Files, folders, archives.
        paths: Vec<PathBuf>,
        /// Progress and cancellation.
        task: Arc<Task>,
    },
    /// Read one slice at once, then the whole stack.
    Load {
        /// The job.
        job: JobId,
        /// Which.
        key: SeriesKey,
        /// Headers needed to load (`None` for files).
        series: Option<Box<(Patient, Study, Series)>>,
        /// The id that the volume will have.
        volume: VolumeId,
        /// Slice to show first.
        first: usize,
        /// Progress and cancellation.
        task: Arc<Task>,
    },
    /// Read one slice of a stack that is still loading.
    LoadSlice {
        /// Which.
        key: SeriesKey,
        /// Headers.
        series: Box<(Patient, Study, Series)>,
        /// The volume that is loading.
        volume: VolumeId,
        /// Index of the slice.
        slice: usize,
    },
    /// Make small pictures of stacks.
    Thumbnails(Vec<(SeriesKey, Patient, Study, Series)>),
    /// List the installed models.
    ListModels,
    /// Import a model.
    ImportModel(PathBuf),
    /// Read the cases of a comparison from its folder.
    ReadComparison(PathBuf),
    /// Check and read the audit log.
    ReadAudit,
    /// Write the audit log in the form that the file's name asks for.
    ExportAudit(PathBuf),
    /// Say what a run would need.
    Estimate {
        /// Model `id@version`.
        model: String,
        /// The input.
        volume: VolumeId,
        /// Its voxels.
        data: Arc<Volume>,
        /// With mirrored passes, where the model's plans ask for them.
        mirroring: bool,
    },
    /// Run a model.
    RunModel {
        /// The job.
        job: JobId,
        /// Model `id@version`.
        model: String,
        /// The input.
        volume: VolumeId,
        /// Its voxels.
        data: Arc<Volume>,
        /// The images of the model's further channels, in order.
        further: Vec<ChannelSource>,
        /// With mirrored passes, where the model's plans ask for them.
        mirroring: bool,
        /// Progress and cancellation.
        task: Arc<Task>,
    },
    /// List the model servers that are set up, and jobs that wait for one.
    ListPlaces,
    /// Write a copy without identity.
    Copy {
        /// The job.
        job: JobId,
        /// Its files.
        inputs: Vec<PathBuf>,
        /// How.
        wanted: CopyWanted,
        /// Progress and cancellation.
        task: Arc<Task>,
    },
    /// Set a server up.
    AddServer(Box<ServerDraft>),
    /// Remove a server.
    RemoveServer(String),
    /// Whether a person is asked before each sending to a server.
    SetAsks(String, bool),
    /// Call a server and show what it is.
    TestServer(String, Arc<Task>),
    /// Count and show what a run on a server would send. Nothing is sent.
    PrepareRemote {
        /// The job.
        job: JobId,
        /// The server's name.
        endpoint: String,
        /// Model `id@version`.
        model: String,
        /// On what.
        work: RemoteWork,
        /// With mirrored passes, where the model's plans ask for them.
        mirroring: bool,
        /// Progress and cancellation.
        task: Arc<Task>,
    },
    /// Do what was prepared: a person has seen what leaves and agreed.
    SendRemote {
        /// The job.
        job: JobId,
        /// Progress and cancellation.
        task: Arc<Task>,
    },
    /// Let go of what was prepared.
    DropRemote(JobId),
    /// The result of a server's job is on screen.
    CloseQueued(String),
    /// List the jobs for servers.
    ReadQueue,
    /// Take a job back.
    CancelQueued(String),
    /// Forget the jobs that are over.
    ClearQueue,
    /// Make a map of the evidence for a finding.
    Explain {
        /// The job.
        job: JobId,
        /// Model `id@version`.
        model: String,
        /// The input.
        volume: VolumeId,
        /// Its voxels.
        data: Arc<Volume>,
        /// Index of the assessment.
        assessment: usize,
        /// Which image of the series, from 0.
        image: usize,
        /// Name of the finding.
        finding: String,
        /// How.
        method: ExplanationMethod,
        /// Progress and cancellation.
        task: Arc<Task>,
    },
    /// Write results.
    Export {
        /// The job.
        job: JobId,
        /// The result.
        result: ToExport,
        /// Its input.
        data: Arc<Volume>,
        /// Folder.
        folder: PathBuf,
        /// Progress and cancellation.
        task: Arc<Task>,
    },
    /// Analyze a folder of studies.
    Batch {
        /// The job.
        job: JobId,
        /// Folder of studies.
        input: PathBuf,
        /// Folder of results.
        output: PathBuf,
        /// Model `id@version`.
        model: String,
        /// With mirrored passes, where the model's plans ask for them.
        mirroring: bool,
        /// Progress and cancellation.
        task: Arc<Task>,
    },
    /// Train a model, or go on with it.
    Train {
        /// The job.
        job: JobId,
        /// The recipe.
        recipe: PathBuf,
        /// Data in place of the recipe's.
        data: Option<PathBuf>,
        /// Folder for checkpoint and package.
        folder: PathBuf,
        /// Progress and cancellation.
        task: Arc<Task>,
    },
    /// Look on at a training that runs elsewhere.
    FollowTraining {
        /// The job.
        job: JobId,
        /// Folder of its checkpoint.
        folder: PathBuf,
        /// Cancellation.
        task: Arc<Task>,
    },
    /// Read results of a batch back for showing.
    OpenResult {
        /// The job.
        job: JobId,
        /// The study's files.
        inputs: Vec<PathBuf>,
        /// Folder with `segmentation.dcm` or `.nii.gz`.
        results: PathBuf,
        /// Progress and cancellation.
        task: Arc<Task>,
    },
    /// Read a DICOM SEG onto the open volume.
    LoadSegmentation {
        /// The job.
        job: JobId,
        /// Files of the SEG series.
        path: PathBuf,
        /// The volume to show it on.
        volume: VolumeId,
        /// Its voxels.
        data: Arc<Volume>,
        /// Progress and cancellation.
        task: Arc<Task>,
    },
    /// Keep settings.
    SaveSettings(Settings),
    /// Keep a person's decision for monitoring.
    NoteReview(ReviewNote),
    /// Open a folder in the desktop's file manager.
    Reveal(PathBuf),
    /// Close the window.
    Quit,
}

impl Action {
    /// The event that goes on record before the work starts; `None` when no patient data is
    /// touched. Batches record each study on their own.
    pub fn audit(&self) -> Option<EventId> {
        match self {
            Self::Load { .. }
            | Self::LoadSegmentation { .. }
            | Self::OpenResult { .. }
            | Self::Train { .. } => Some(EventId::DicomInstancesAccessed),
            Self::RunModel { .. } | Self::Explain { .. } => Some(EventId::ModelRun),
            Self::Export { .. } => Some(EventId::Export),
            Self::ReadAudit | Self::ExportAudit(_) => Some(EventId::AuditLogUsed),
            // What leaves for a server is put on record series by series, as it leaves; changes of
            // servers are, where they are made.
            Self::ListPlaces
            // Put on record where it is written, with its outcome.
            | Self::Copy { .. }
            | Self::AddServer(_)
            | Self::RemoveServer(_)
            | Self::SetAsks(..)
            | Self::TestServer(..)
            | Self::PrepareRemote { .. }
            | Self::SendRemote { .. }
            | Self::DropRemote(_)
            | Self::CloseQueued(_)
            | Self::ReadQueue
            | Self::CancelQueued(_)
            | Self::ClearQueue
            | Self::Ask(_)
            | Self::Index { .. }
            | Self::LoadSlice { .. }
            | Self::Thumbnails(_)
            | Self::ListModels
            | Self::ImportModel(_)
            | Self::ReadComparison(_)
            | Self::Estimate { .. }
            | Self::Batch { .. }
            | Self::FollowTraining { .. }
            | Self::SaveSettings(_)
            | Self::NoteReview(_)
            | Self::Reveal(_)
            | Self::Quit => None,
        }
    }
}
