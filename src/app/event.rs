//! What finished work reports.

use std::path::PathBuf;
use std::sync::Arc;

use super::{
    AskFor, AuditPage, JobId, LeavingPage, Notice, Place, PlaceEstimate, QueueRow, SeriesKey,
    ServerTest, TrainingNews, VolumeId,
};
use crate::findings::{Assessment, Explanation, ExplanationMethod, Segmentation};
use crate::study::Worklist;
use crate::volume::{LabelStatistics, VoiWindow, Volume};

/// Whether a run is inside of what a model is meant for. Never shown as a color alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Fits.
    Green,
    /// Doubtful; the result carries the reason.
    Amber,
    /// Refused.
    Red,
}

/// What a run would need, before it starts.
#[derive(Clone, Debug, PartialEq)]
pub struct RunEstimate {
    /// Inside the envelope?
    pub traffic: Traffic,
    /// Reasons, in words.
    pub reasons: Vec<String>,
    /// Peak memory beyond what is open now; 0 for a model whose weights are not here.
    pub needed_bytes: u64,
    /// Memory that the system can give.
    pub available_bytes: u64,
    /// Expected time; `None` when nothing is known yet.
    pub seconds: Option<f64>,
    /// "CPU, AVX2+FMA, 2 threads".
    pub device: String,
    /// The same on the servers that are set up.
    pub places: Vec<PlaceEstimate>,
}

/// A model as the window lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSummary {
    /// `id@version`.
    pub key: String,
    /// Name for people.
    pub name: String,
    /// Version.
    pub version: String,
    /// What it is for.
    pub intended_use: String,
    /// Known limits.
    pub limits: Vec<String>,
    /// License.
    pub license: String,
    /// Modality, e.g. `MR`.
    pub modality: String,
    /// Number of segments.
    pub segments: usize,
    /// Names of its input channels where it takes several images; else empty.
    pub channels: Vec<String>,
    /// Its plans ask for mirrored passes.
    pub mirrors: bool,
    /// Its weights are not here: it runs on a server alone.
    pub only_on_a_server: bool,
    /// Comes with the program.
    pub bundled: bool,
    /// Who vouches for it: "bundled", "signed by …", "unsigned".
    pub origin: String,
}

/// One study of a batch, for the table.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchRow {
    /// Name on screen (series description or file name).
    pub title: String,
    /// "done", "failed", "skipped", "running".
    pub status: String,
    /// Why it failed or was skipped.
    pub reason: String,
    /// Seconds of the run.
    pub seconds: f64,
    /// Segments and mL, "Hippocampus 3.1, …".
    pub summary: String,
    /// Files of the study.
    pub inputs: Vec<PathBuf>,
    /// Folder of its results.
    pub results: PathBuf,
}

/// What a batch has found in a study.
#[derive(Clone, Debug)]
pub enum OpenedResult {
    /// Labels, and numbers by label.
    Segments(Arc<Segmentation>, Vec<LabelStatistics>),
    /// What a classifier says, and how it can be explained.
    Findings(Vec<Assessment>, Vec<ExplanationMethod>),
}

/// Finished work.
#[derive(Clone, Debug)]
pub enum Event {
    /// Answer of a file dialog; empty when closed.
    Chosen(AskFor, Vec<PathBuf>),
    /// Headers were read.
    Indexed {
        /// The job.
        job: JobId,
        /// DICOM.
        worklist: Worklist,
        /// NIfTI.
        files: Vec<PathBuf>,
    },
    /// One slice, while the rest loads.
    Slice {
        /// The volume that loads.
        volume: VolumeId,
        /// Index of the slice.
        slice: usize,
        /// A volume of one slice.
        data: Arc<Volume>,
        /// Window from its data.
        auto_window: VoiWindow,
    },
    /// All voxels.
    Loaded {
        /// The job.
        job: JobId,
        /// The volume.
        volume: VolumeId,
        /// Its voxels.
        data: Arc<Volume>,
        /// Window from the data.
        auto_window: VoiWindow,
    },
    /// A small picture.
    Thumbnail {
        /// Of which stack.
        key: SeriesKey,
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// RGBA, row by row.
        rgba: Arc<Vec<u8>>,
    },
    /// The installed models.
    Models(Vec<ModelSummary>),
    /// What a run would need.
    Estimated {
        /// Model.
        model: String,
        /// Input.
        volume: VolumeId,
        /// Whether mirrored passes are counted.
        mirroring: bool,
        /// Answer.
        estimate: Result<RunEstimate, String>,
    },
    /// A model has finished, or a SEG was read.
    Segmented {
        /// The job.
        job: JobId,
        /// Input.
        volume: VolumeId,
        /// Result.
        segmentation: Arc<Segmentation>,
        /// Numbers by label.
        statistics: Vec<LabelStatistics>,
    },
    /// A classifier has looked at the images.
    Assessed {
        /// The job.
        job: JobId,
        /// Input.
        volume: VolumeId,
        /// One for each image.
        assessments: Vec<Assessment>,
        /// Ways of explaining that the model has, the best first.
        methods: Vec<ExplanationMethod>,
    },
    /// A map of the evidence is there.
    Explained {
        /// The job.
        job: JobId,
        /// Input.
        volume: VolumeId,
        /// Index of the assessment.
        assessment: usize,
        /// The map.
        map: Box<Explanation>,
    },
    /// Model servers that are set up.
    Places(Vec<Place>),
    /// A copy without identity is written.
    Copied {
        /// The job.
        job: JobId,
        /// What was done.
        done: Vec<String>,
        /// What must be known about it.
        doubts: Vec<String>,
    },
    /// What a server has shown so far.
    ServerTested(ServerTest),
    /// What a run on a server would send.
    Leaving(Box<LeavingPage>),
    /// The jobs for servers.
    QueueRead(Vec<QueueRow>),
    /// A server's answers have made a result.
    Returned {
        /// The job.
        job: JobId,
        /// Its name in the queue.
        queued: String,
        /// Input.
        volume: VolumeId,
        /// Result.
        segmentation: Arc<Segmentation>,
        /// Numbers by label.
        statistics: Vec<LabelStatistics>,
    },
    /// A model shows what it has found so far.
    Provisional {
        /// The job.
        job: JobId,
        /// Input.
        volume: VolumeId,
        /// How far it is, in words.
        stage: String,
        /// What is known.
        segmentation: Arc<Segmentation>,
        /// Numbers by label.
        statistics: Vec<LabelStatistics>,
    },
    /// Results were written.
    Exported {
        /// The job.
        job: JobId,
        /// Folder.
        folder: PathBuf,
        /// File names.
        files: Vec<String>,
    },
    /// A study of a batch has changed its state; same index replaces.
    BatchRow {
        /// Position in the table.
        index: usize,
        /// The row.
        row: BatchRow,
    },
    /// A batch has ended.
    BatchDone {
        /// The job.
        job: JobId,
        /// "12 done, 1 failed, 3 skipped".
        summary: String,
    },
    /// The audit log, checked and read.
    AuditRead(Box<AuditPage>),
    /// The cases of a comparison, for the table.
    ComparisonRead {
        /// One for each case.
        rows: Vec<BatchRow>,
        /// What was compared.
        summary: String,
    },
    /// A result of a batch is open: its study's worklist, its volume and what was found.
    ResultOpened {
        /// The job.
        job: JobId,
        /// Headers.
        worklist: Worklist,
        /// NIfTI input.
        files: Vec<PathBuf>,
        /// The stack that was analyzed.
        key: SeriesKey,
        /// Voxels.
        data: Arc<Volume>,
        /// Window from the data.
        auto_window: VoiWindow,
        /// Result.
        result: OpenedResult,
    },
    /// How a training gets on.
    Training(JobId, TrainingNews),
    /// A job could not be done.
    Failed {
        /// The job, if one was running.
        job: Option<JobId>,
        /// What happened.
        notice: Notice,
    },
    /// A job has stopped as asked.
    Cancelled(JobId),
    /// Something to say.
    Notice(Notice),
}
