//! What went wrong, and whether trying again may help.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::endpoint::{Pin, ProfileError};
use super::protocol::{AnswerError, RequestError};
use crate::task::Cancelled;

/// Why a server was not asked, or its answer not used. No secret and nothing of a patient is in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The profile cannot be used.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The request cannot be put into words.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The data of the request cannot be read.
    #[error("the data to send cannot be read")]
    Body {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The model is not among those of the profile.
    #[error("model {0:?} is not among the models of this endpoint")]
    ModelNotAllowed(String),
    /// A question that the service has no way for.
    #[error("a service of the kind {0:?} tells nothing of itself and its models")]
    NotOffered(&'static str),
    /// The body is larger than the server takes.
    #[error("the request has {bytes} bytes, this endpoint takes {limit}")]
    RequestTooLarge {
        /// Its length.
        bytes: u64,
        /// The profile's limit.
        limit: u64,
    },
    /// A secret is not where the profile says.
    #[error("the variable {variable} with this endpoint's secret {why}")]
    Secret {
        /// Its name.
        variable: String,
        /// `is not set`, …
        why: &'static str,
    },
    /// A secret in the system's keyring cannot be used.
    #[error("the entry {entry} of the system's keyring with this endpoint's secret {why}")]
    SecretEntry {
        /// Its name.
        entry: String,
        /// `is empty or holds blanks`, …
        why: &'static str,
    },
    /// The system's keyring does not give a secret.
    #[error(transparent)]
    Keyring(#[from] crate::key_file::Error),
    /// A file of certificates or keys cannot be read.
    #[error("{what} cannot be read: {}", path.display())]
    File {
        /// `the certificate authority`, …
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
        /// The file.
        path: PathBuf,
    },
    /// A file of certificates or keys does not hold what it should.
    #[error("{what} {why}: {}", path.display())]
    FileContent {
        /// `the certificate authority`, …
        what: &'static str,
        /// What is wrong.
        why: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The system has no certificate authorities.
    #[error("this system has no certificate authorities; give the endpoint one of its own")]
    NoRoots,
    /// The encryption or the client cannot be set up.
    #[error("the connection cannot be set up: {0}")]
    Setup(String),
    /// Plain http to another machine.
    #[error("plain http is for this machine alone, and {host:?} is not it")]
    NotLoopback {
        /// The host of the URL.
        host: String,
    },
    /// No connection.
    #[error("no connection: {0}")]
    Connect(String),
    /// The server's certificate is not good.
    #[error("the server's certificate {0}")]
    Certificate(String),
    /// The server's keys are none of those that the profile names.
    #[error(
        "the server's public key is none of those pinned for this endpoint; its SHA-256 is {found}"
    )]
    WrongPin {
        /// Of the certificate that the server showed.
        found: Pin,
    },
    /// The two sides found no way to speak.
    #[error("no secure connection: {0}")]
    Tls(String),
    /// The connection broke.
    #[error("the connection broke while {phase}: {why}")]
    Broken {
        /// `sending`, `waiting for the answer`, `receiving`.
        phase: &'static str,
        /// What happened.
        why: String,
        /// Whether something of the answer had come.
        answer_begun: bool,
    },
    /// Nothing moved for too long.
    #[error("nothing moved for {} s while {phase}", idle.as_secs())]
    Stalled {
        /// As in [`Error::Broken`].
        phase: &'static str,
        /// For how long.
        idle: Duration,
        /// Whether something of the answer had come.
        answer_begun: bool,
    },
    /// The time for this request is over.
    #[error("no answer within {} s", deadline.as_secs())]
    Deadline {
        /// The time it had.
        deadline: Duration,
    },
    /// The server refused.
    #[error("the server answers {status}: {message}")]
    Status {
        /// HTTP's number.
        status: u16,
        /// Its words.
        message: String,
        /// When it may be asked again.
        retry_after: Option<Duration>,
    },
    /// What came was no answer to what was asked.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// No token.
    #[error("no token for this endpoint: {0}")]
    Token(String),
    /// Asked too often without success.
    #[error("this endpoint failed repeatedly; it is asked again in {} s", wait.as_secs())]
    Resting {
        /// Time until it is asked again.
        wait: Duration,
    },
    /// The person stopped it.
    #[error("{}", if *sent { "cancelled; the server may still be working on what was sent" } else { "cancelled before anything was sent" })]
    Cancelled {
        /// Whether anything had gone out.
        sent: bool,
    },
}

impl From<Cancelled> for Error {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled { sent: false }
    }
}

/// Whether the same request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// It would fail again, or it is not known what the first one did.
    Never,
    /// Once: the fault may be the request's.
    Once,
    /// As often as the rules allow.
    Often,
}

impl Error {
    /// Whether the same request may well succeed when it is sent again.
    pub fn may_retry(&self) -> bool {
        self.again() != Again::Never
    }

    pub(super) fn again(&self) -> Again {
        match self {
            Self::Connect(_)
            | Self::Broken {
                answer_begun: false,
                ..
            }
            | Self::Stalled {
                answer_begun: false,
                ..
            }
            | Self::Status {
                status: 408 | 429 | 502 | 503 | 504,
                ..
            } => Again::Often,
            Self::Status { status: 500, .. } => Again::Once,
            _ => Again::Never,
        }
    }

    /// Whether it speaks against the endpoint as a whole, not against one request.
    pub(super) fn counts_against_endpoint(&self) -> bool {
        match self {
            Self::Connect(_)
            | Self::Broken { .. }
            | Self::Stalled { .. }
            | Self::Deadline { .. }
            | Self::Certificate(_)
            | Self::WrongPin { .. }
            | Self::Tls(_) => true,
            Self::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// Whether the server may have been given work that it goes on with.
    pub fn may_have_been_sent(&self) -> bool {
        match self {
            Self::Broken { .. }
            | Self::Stalled { .. }
            | Self::Deadline { .. }
            | Self::Answer(_)
            | Self::Status { .. } => true,
            Self::Cancelled { sent } => *sent,
            _ => false,
        }
    }
}
