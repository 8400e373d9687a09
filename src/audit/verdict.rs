//! What a check of the log can say, in words for people and codes for programs.

use std::collections::BTreeSet;

/// A line of a file of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the file.
    pub file: String,
    /// From 1.
    pub line: u64,
}

impl Place {
    pub(super) fn new(file: &str, line: u64) -> Self {
        Self {
            file: file.to_owned(),
            line,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} line {}", self.file, self.line)
    }
}

/// A word of the verdict, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Finding {
    /// Every line is as it was written and none is missing.
    Intact,
    /// The state of the keys is some lines behind the log, as a power loss leaves it; nothing is missing.
    StateBehind,
    /// The clock of the machine was set back; the order of the records is not in doubt.
    ClockWentBack,
    /// A crash left a half-written line; nothing is missing before it.
    TornTail,
    /// What knows the newest record was lost: records may be missing at the end.
    StateLost,
    /// Records are missing at the end.
    Truncated,
    /// The log, or its state, is an older copy.
    RolledBack,
    /// Records are missing in between.
    Gap,
    /// A line is not as it was written.
    Altered,
    /// Lines were written without the log's keys.
    ForeignKey,
}

impl Finding {
    /// All, the best first.
    pub const ALL: [Self; 10] = [
        Self::Intact,
        Self::StateBehind,
        Self::ClockWentBack,
        Self::TornTail,
        Self::StateLost,
        Self::Truncated,
        Self::RolledBack,
        Self::Gap,
        Self::Altered,
        Self::ForeignKey,
    ];

    /// For programs: `torn-tail`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Intact => "intact",
            Self::StateBehind => "state-behind",
            Self::ClockWentBack => "clock-went-back",
            Self::TornTail => "torn-tail",
            Self::StateLost => "state-lost",
            Self::Truncated => "truncated",
            Self::RolledBack => "rolled-back",
            Self::Gap => "gap",
            Self::Altered => "altered",
            Self::ForeignKey => "foreign-key",
        }
    }

    /// Exit code of `audit verify`.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Intact => 0,
            Self::TornTail => 10,
            Self::Gap => 11,
            Self::Altered => 12,
            Self::Truncated => 13,
            Self::RolledBack => 14,
            Self::ForeignKey => 15,
            Self::ClockWentBack => 16,
            Self::StateLost => 17,
            Self::StateBehind => 18,
        }
    }
}

/// Something in the log that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum Problem {
    #[error("{place} is no line of a log")]
    NotARecord { place: Place },
    #[error("record {seq} ({place}) was changed")]
    Changed { seq: u64, place: Place },
    #[error("records {first} to {last} were removed")]
    Removed { first: u64, last: u64 },
    #[error("segments {first} to {last} are missing")]
    SegmentsMissing { first: u64, last: u64 },
    #[error("record {seq} ({place}) stands after record {after}")]
    OutOfOrder { seq: u64, place: Place, after: u64 },
    #[error("{place} does not follow from the line before it")]
    BrokenLink { place: Place },
    #[error("record {seq} ({place}) was sealed without the log's key")]
    ForeignSeal { seq: u64, place: Place },
    #[error("{place} was signed by another key than the one before it announced")]
    ForeignKey { place: Place },
    #[error("the log's first public key is not the one that was noted")]
    OtherLog,
    #[error("the log ends with record {last}, but record {expected} was written")]
    CutShort { last: u64, expected: u64 },
    #[error(
        "the log ends with record {last} and does not hold the checkpoint of record {known} that was kept elsewhere"
    )]
    RolledBack { last: u64, known: u64 },
    #[error("a checkpoint that was kept elsewhere is none")]
    NotACheckpoint,
    #[error("the log and the state of its keys do not belong together (record {seq})")]
    StateMismatch { seq: u64 },
    #[error("the file with the log's keys and its newest record is missing or unreadable")]
    StateLost,
    #[error("record {seq} reports: {what}")]
    Reported {
        seq: u64,
        word: &'static str,
        what: String,
    },
    #[error("the log of an earlier version (log.jsonl) was changed after this one began")]
    OldLogChanged,
    #[error("the log of an earlier version (log.jsonl) is missing")]
    OldLogGone,
    #[error("log.jsonl does not belong to this log")]
    OldLogStray,
}

impl Problem {
    /// Its word of the verdict.
    pub fn finding(&self) -> Finding {
        match self {
            Self::NotARecord { .. }
            | Self::Changed { .. }
            | Self::OutOfOrder { .. }
            | Self::BrokenLink { .. }
            | Self::OldLogChanged
            | Self::OldLogStray
            | Self::NotACheckpoint => Finding::Altered,
            Self::Removed { .. } | Self::SegmentsMissing { .. } | Self::OldLogGone => Finding::Gap,
            Self::ForeignSeal { .. } | Self::ForeignKey { .. } | Self::OtherLog => {
                Finding::ForeignKey
            }
            Self::CutShort { .. } => Finding::Truncated,
            Self::RolledBack { .. } | Self::StateMismatch { .. } => Finding::RolledBack,
            Self::StateLost => Finding::StateLost,
            Self::Reported { word, .. } => match *word {
                super::log::STATE_LOST => Finding::StateLost,
                super::log::STATE_OLD => Finding::RolledBack,
                _ => Finding::Truncated,
            },
        }
    }
}

/// Something that is worth knowing and no reason to doubt the records.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum Note {
    #[error("{bytes} bytes of a half-written record at the end, as a crash leaves them")]
    Torn { bytes: usize },
    #[error("a half-written record was kept aside before record {seq}")]
    TornBefore { seq: u64 },
    #[error("the disk was full at record {seq}; what was asked for was refused")]
    DiskFull { seq: u64 },
    #[error("the state is one line behind, as a crash leaves it")]
    OneBehind,
    #[error("the state is {lines} lines behind, as a power loss leaves it, or it was put back")]
    Behind { lines: u64 },
    #[error("one of the two copies of the state is damaged")]
    OneCopy,
    #[error("the clock was set back {count} times, first at record {seq}")]
    ClockBack { seq: u64, count: u64 },
    #[error("acts begun and never closed: records {}", listed(.acts))]
    NeverClosed { acts: Vec<u64> },
    #[error(
        "the seals of {records} records were not checked: the verification key is elsewhere (--key)"
    )]
    SealsUnchecked { records: u64 },
    #[error(
        "the verification key lies beside the log: who can read this account's files could rewrite the log unseen; take it away (audit key --take)"
    )]
    KeyBeside,
    #[error("the verification key beside the log is damaged: seals were not checked with it")]
    KeyDamaged,
    #[error("others than the account may read the log's secret: audit-keys/{0}")]
    OpenToOthers(String),
    #[error(
        "segments {first} to {last} with {records} records were deleted on purpose by record {seq}"
    )]
    Deleted {
        first: u64,
        last: u64,
        records: u64,
        seq: u64,
    },
    #[error("this log is of an earlier version: nothing in it is keyed")]
    Plain,
}

fn listed(numbers: &[u64]) -> String {
    let mut text: Vec<String> = numbers.iter().take(20).map(u64::to_string).collect();
    if numbers.len() > text.len() {
        text.push(format!("and {} more", numbers.len() - text.len()));
    }
    text.join(", ")
}

/// The outcome of [`super::verify`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether every record is as it was written, and none is missing.
    pub ok: bool,
    /// Records that were read.
    pub records: u64,
    /// Number of the newest one.
    pub last: u64,
    /// Signed checkpoints.
    pub checkpoints: u64,
    /// The log's first public key, in hexadecimal: to be noted elsewhere.
    pub public_key: String,
    /// What is not as it was written.
    pub problems: Vec<Problem>,
    /// What is no reason to doubt the records.
    pub notes: Vec<Note>,
}

impl Verdict {
    /// All words that apply, the worst last; `intact` alone when there is nothing to say.
    pub fn findings(&self) -> BTreeSet<Finding> {
        let of_notes = self.notes.iter().filter_map(|note| match note {
            Note::Torn { .. } => Some(Finding::TornTail),
            Note::Behind { .. } => Some(Finding::StateBehind),
            Note::ClockBack { .. } => Some(Finding::ClockWentBack),
            _ => None,
        });
        let mut all: BTreeSet<Finding> = self.problems.iter().map(Problem::finding).collect();
        all.extend(of_notes);
        if all.is_empty() {
            all.insert(Finding::Intact);
        }
        all
    }

    /// The worst word.
    pub fn finding(&self) -> Finding {
        self.findings().last().copied().unwrap_or(Finding::Intact)
    }
}
