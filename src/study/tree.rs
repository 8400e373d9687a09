//! Patient ▸ study ▸ series ▸ stack ▸ instance, as found in a set of files.

use std::path::PathBuf;

use super::{Issue, Uid};
use crate::geometry::DVec3;
use crate::redact::Sensitive;

/// Where an instance's bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileSource {
    /// A file.
    Path(PathBuf),
    /// A member of a ZIP archive.
    Zip {
        /// The archive.
        archive: PathBuf,
        /// Index of the member in the archive's directory.
        index: usize,
        /// Name of the member, for people.
        name: String,
    },
}

impl FileSource {
    /// The file or the archive.
    pub const fn file(&self) -> &PathBuf {
        match self {
            Self::Path(path) | Self::Zip { archive: path, .. } => path,
        }
    }
}

impl std::fmt::Display for FileSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Zip { archive, name, .. } => write!(f, "{}!{name}", archive.display()),
        }
    }
}

/// Everything found in the opened files.
#[derive(Clone, Debug, Default)]
pub struct Worklist {
    /// Sorted by name, then ID.
    pub patients: Vec<Patient>,
    /// Files that were left out, with the reason.
    pub skipped: Vec<Skipped>,
}

impl Worklist {
    /// All studies, in order.
    pub fn studies(&self) -> impl Iterator<Item = &Study> {
        self.patients.iter().flat_map(|p| &p.studies)
    }

    /// All series, in order, with their study.
    pub fn series(&self) -> impl Iterator<Item = (&Study, &Series)> {
        self.studies()
            .flat_map(|study| study.series.iter().map(move |series| (study, series)))
    }
}

/// A file that is not shown, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file or archive member.
    pub source: FileSource,
    /// For people; holds no patient data.
    pub reason: String,
}

/// A person (or phantom).
#[derive(Clone, Debug, Default)]
pub struct Patient {
    /// Patient's Name, decoded, components joined for display.
    pub name: Sensitive<String>,
    /// Patient ID.
    pub id: Sensitive<String>,
    /// Patient's Birth Date, `YYYYMMDD` or empty.
    pub birth_date: Sensitive<String>,
    /// Patient's Sex, `M`, `F`, `O` or empty.
    pub sex: Sensitive<String>,
    /// Newest first.
    pub studies: Vec<Study>,
}

/// One examination.
#[derive(Clone, Debug)]
pub struct Study {
    /// Study Instance UID.
    pub study_instance_uid: Uid,
    /// Study Date, `YYYYMMDD` or empty.
    pub date: Sensitive<String>,
    /// Study Time, `HHMMSS` or empty.
    pub time: Sensitive<String>,
    /// Study Description.
    pub description: String,
    /// Study ID.
    pub study_id: Sensitive<String>,
    /// Accession Number.
    pub accession: Sensitive<String>,
    /// Institution Name.
    pub institution: Sensitive<String>,
    /// By series number, then UID.
    pub series: Vec<Series>,
}

/// One series.
#[derive(Clone, Debug)]
pub struct Series {
    /// Series Instance UID.
    pub series_instance_uid: Uid,
    /// Modality, e.g. `CT`.
    pub modality: String,
    /// Series Number.
    pub number: Option<i32>,
    /// Series Description.
    pub description: String,
    /// Body Part Examined.
    pub body_part: String,
    /// Protocol Name and Sequence Name, as far as they are there.
    pub protocol: String,
    /// Contrast/Bolus Agent names something.
    pub contrast: bool,
    /// Frame of Reference UID of its first image.
    pub frame_of_reference_uid: Option<Uid>,
    /// Number of instances (files) of the series.
    pub instances: usize,
    /// Transfer syntax UIDs in use, sorted.
    pub transfer_syntaxes: Vec<String>,
    /// Groups of images that make one volume (or one run of plain images) each.
    pub stacks: Vec<Stack>,
    /// Files without images of their own (SEG, SR, plans).
    pub objects: Vec<FileSource>,
    /// Doubts that concern the series as a whole.
    pub issues: Vec<Issue>,
}

impl Series {
    /// Number of images over all stacks.
    pub fn images(&self) -> usize {
        self.stacks.iter().map(|s| s.images.len()).sum()
    }
}

/// Images of one orientation, echo, phase and format, in display order.
#[derive(Clone, Debug)]
pub struct Stack {
    /// What sets the stack apart within its series ("echo 2", "acquisition 3"); empty when alone.
    pub label: String,
    /// Columns of an image.
    pub columns: usize,
    /// Rows of an image.
    pub rows: usize,
    /// Whether images have positions and form a volume.
    pub is_volume: bool,
    /// In order of position along the slice normal (or acquisition order for plain images).
    pub images: Vec<Instance>,
    /// Doubts known from headers alone.
    pub issues: Vec<Issue>,
}

/// One image: an instance, or one frame of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Where the bytes are.
    pub source: FileSource,
    /// SOP Class UID.
    pub sop_class_uid: Uid,
    /// SOP Instance UID.
    pub sop_instance_uid: Uid,
    /// Frame of a multi-frame instance, from 0.
    pub frame: u32,
    /// Frames in that instance.
    pub frame_count: u32,
    /// Instance Number.
    pub number: Option<i32>,
    /// Position of the first pixel's center, LPS mm.
    pub position_lps: Option<DVec3>,
    /// View Position of a radiograph, e.g. `PA`; empty when nobody says.
    pub view: String,
}
