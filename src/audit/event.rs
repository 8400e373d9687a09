//! What goes on record: the message of DICOM PS3.15 A.5, without its transport.

use chrono::{DateTime, SubsecRound, Utc};

use crate::study::{CodedConcept, Uid};

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventId {
    /// The program started or stopped.
    ApplicationActivity,
    /// The audit log was shown, verified or exported.
    AuditLogUsed,
    /// Instances are about to go to another node.
    BeginTransferring,
    /// Images were opened.
    DicomInstancesAccessed,
    /// Instances went to another node, or came from one.
    DicomInstancesTransferred,
    /// A study was deleted.
    DicomStudyDeleted,
    /// Results or images were written to files.
    Export,
    /// Data was taken into the program's own storage (a model).
    Import,
    /// A model was run on a volume.
    ModelRun,
    /// This machine joined or left a network of nodes.
    NetworkEntry,
    /// An order was created, read, changed or deleted.
    OrderRecord,
    /// A patient's record was created, read, changed or deleted.
    PatientRecord,
    /// A procedure's record was created, read, changed or deleted.
    ProcedureRecord,
    /// Another node was searched.
    Query,
    /// Something about security was changed or found; the event type says what.
    SecurityAlert,
    /// A person logged in or out.
    UserAuthentication,
}

impl EventId {
    /// Event ID (PS3.16 CID 400).
    ///
    /// The standard has no event for running an algorithm: it is an Application Activity with an
    /// event type of our own, see [`EventId::type_code`].
    pub fn code(self) -> CodedConcept {
        let (value, meaning) = match self {
            Self::ApplicationActivity | Self::ModelRun => ("110100", "Application Activity"),
            Self::AuditLogUsed => ("110101", "Audit Log Used"),
            Self::BeginTransferring => ("110102", "Begin Transferring DICOM Instances"),
            Self::DicomInstancesAccessed => ("110103", "DICOM Instances Accessed"),
            Self::DicomInstancesTransferred => ("110104", "DICOM Instances Transferred"),
            Self::DicomStudyDeleted => ("110105", "DICOM Study Deleted"),
            Self::Export => ("110106", "Export"),
            Self::Import => ("110107", "Import"),
            Self::NetworkEntry => ("110108", "Network Entry"),
            Self::OrderRecord => ("110109", "Order Record"),
            Self::PatientRecord => ("110110", "Patient Record"),
            Self::ProcedureRecord => ("110111", "Procedure Record"),
            Self::Query => ("110112", "Query"),
            Self::SecurityAlert => ("110113", "Security Alert"),
            Self::UserAuthentication => ("110114", "User Authentication"),
        };
        CodedConcept::new(value, "DCM", meaning)
    }

    /// Event type, where the event id alone does not say it.
    pub fn type_code(self) -> Option<CodedConcept> {
        (self == Self::ModelRun)
            .then(|| CodedConcept::new("model-run", "99NEGATOSCOPE", "Model run"))
    }
}

/// Event type: what an event of a kind was in particular (PS3.16 CID 401).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names are those of the standard")]
pub enum EventType {
    ApplicationStart,
    ApplicationStop,
    Login,
    Logout,
    Attach,
    Detach,
    NodeAuthentication,
    EmergencyOverrideStarted,
    NetworkConfiguration,
    SecurityConfiguration,
    HardwareConfiguration,
    SoftwareConfiguration,
    UseOfRestrictedFunction,
    AuditRecordingStopped,
    AuditRecordingStarted,
    ObjectSecurityAttributesChanged,
    SecurityRolesChanged,
    UserSecurityAttributesChanged,
    EmergencyOverrideStopped,
    RemoteServiceOperationStarted,
    RemoteServiceOperationStopped,
    LocalServiceOperationStarted,
    LocalServiceOperationStopped,
}

impl EventType {
    /// Its code.
    pub fn code(self) -> CodedConcept {
        let (value, meaning) = match self {
            Self::ApplicationStart => ("110120", "Application Start"),
            Self::ApplicationStop => ("110121", "Application Stop"),
            Self::Login => ("110122", "Login"),
            Self::Logout => ("110123", "Logout"),
            Self::Attach => ("110124", "Attach"),
            Self::Detach => ("110125", "Detach"),
            Self::NodeAuthentication => ("110126", "Node Authentication"),
            Self::EmergencyOverrideStarted => ("110127", "Emergency Override Started"),
            Self::NetworkConfiguration => ("110128", "Network Configuration"),
            Self::SecurityConfiguration => ("110129", "Security Configuration"),
            Self::HardwareConfiguration => ("110130", "Hardware Configuration"),
            Self::SoftwareConfiguration => ("110131", "Software Configuration"),
            Self::UseOfRestrictedFunction => ("110132", "Use of Restricted Function"),
            Self::AuditRecordingStopped => ("110133", "Audit Recording Stopped"),
            Self::AuditRecordingStarted => ("110134", "Audit Recording Started"),
            Self::ObjectSecurityAttributesChanged => {
                ("110135", "Object Security Attributes Changed")
            }
            Self::SecurityRolesChanged => ("110136", "Security Roles Changed"),
            Self::UserSecurityAttributesChanged => ("110137", "User security Attributes Changed"),
            Self::EmergencyOverrideStopped => ("110138", "Emergency Override Stopped"),
            Self::RemoteServiceOperationStarted => ("110139", "Remote Service Operation Started"),
            Self::RemoteServiceOperationStopped => ("110140", "Remote Service Operation Stopped"),
            Self::LocalServiceOperationStarted => ("110141", "Local Service Operation Started"),
            Self::LocalServiceOperationStopped => ("110142", "Local Service Operation Stopped"),
        };
        CodedConcept::new(value, "DCM", meaning)
    }
}

/// Event Action Code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum EventAction {
    /// Create.
    #[serde(rename = "C")]
    Create,
    /// Read.
    #[serde(rename = "R")]
    Read,
    /// Update.
    #[serde(rename = "U")]
    Update,
    /// Delete.
    #[serde(rename = "D")]
    Delete,
    /// Execute.
    #[serde(rename = "E")]
    Execute,
}

/// Event Outcome Indicator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum Outcome {
    /// 0: it happened, or it is about to.
    Success,
    /// 4: it failed and can be tried again.
    MinorFailure,
    /// 8: it failed.
    SeriousFailure,
    /// 12: the program cannot go on.
    MajorFailure,
}

impl From<Outcome> for u8 {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success => 0,
            Outcome::MinorFailure => 4,
            Outcome::SeriousFailure => 8,
            Outcome::MajorFailure => 12,
        }
    }
}

impl TryFrom<u8> for Outcome {
    type Error = String;
    fn try_from(code: u8) -> Result<Self, String> {
        match code {
            0 => Ok(Self::Success),
            4 => Ok(Self::MinorFailure),
            8 => Ok(Self::SeriousFailure),
            12 => Ok(Self::MajorFailure),
            other => Err(format!("{other} is no event outcome (0, 4, 8, 12)")),
        }
    }
}

/// Role ID Code of an active participant (PS3.16 CID 402).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Role {
    /// The person at the program.
    #[serde(rename = "110151")]
    ApplicationLauncher,
    /// The program.
    #[serde(rename = "110150")]
    Application,
    /// Where data goes.
    #[serde(rename = "110152")]
    Destination,
    /// Where data comes from.
    #[serde(rename = "110153")]
    Source,
    /// Files or a medium that data goes to.
    #[serde(rename = "110154")]
    DestinationMedia,
    /// Files or a medium that data comes from.
    #[serde(rename = "110155")]
    SourceMedia,
}

impl Role {
    /// Its code.
    pub fn code(self) -> CodedConcept {
        let (value, meaning) = match self {
            Self::Application => ("110150", "Application"),
            Self::ApplicationLauncher => ("110151", "Application Launcher"),
            Self::Destination => ("110152", "Destination Role ID"),
            Self::Source => ("110153", "Source Role ID"),
            Self::DestinationMedia => ("110154", "Destination Media"),
            Self::SourceMedia => ("110155", "Source Media"),
        };
        CodedConcept::new(value, "DCM", meaning)
    }
}

/// Who took part: a person by the account, or a program.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ActiveParticipant {
    /// Account name, or name and version of the program.
    pub user_id: String,
    /// A second identification: `uid=1000`, `pid=4711`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub alternative_user_id: String,
    /// Whether it asked for the event.
    pub user_is_requestor: bool,
    /// Its part.
    pub role_id_code: Role,
    /// Host name, IP address or URI, where it is another machine.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub network_access_point: String,
}

impl ActiveParticipant {
    /// The person, by the account of the operating system.
    pub fn account() -> Self {
        #[cfg(unix)]
        let alternative_user_id = format!("uid={}", rustix::process::getuid().as_raw());
        #[cfg(not(unix))]
        let alternative_user_id = String::new();
        Self {
            user_id: account_name(),
            alternative_user_id,
            user_is_requestor: true,
            role_id_code: Role::ApplicationLauncher,
            network_access_point: String::new(),
        }
    }

    /// This program.
    pub fn program() -> Self {
        Self {
            user_id: format!("negatoscope {}", env!("CARGO_PKG_VERSION")),
            alternative_user_id: format!("pid={}", std::process::id()),
            user_is_requestor: false,
            role_id_code: Role::Application,
            network_access_point: String::new(),
        }
    }
}

/// The account's name as the environment gives it; `unknown` without one.
pub fn account_name() -> String {
    ["USER", "LOGNAME", "USERNAME"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

/// What a participant object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectKind {
    /// A patient, by the ID that the studies give (type 1, role 1, ID type 2).
    Patient,
    /// A study, by its UID (type 2, role 3, ID type 110180).
    Study,
    /// A series, by its UID.
    Series,
    /// A file or folder, by its path (ID type 12, URI).
    File,
    /// A model, by `id@version`.
    Model,
    /// Another machine or service, by name or URL (ID type 110182, Node ID).
    Node,
    /// The audit log itself (type 2, role 13).
    AuditLog,
}

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ParticipantObject {
    /// What it is.
    pub kind: ObjectKind,
    /// UID, path, or `id@version`.
    pub id: String,
    /// Instances concerned, where that has a meaning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<usize>,
    /// Further facts by name: hashes, counts, reasons. No patient data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub detail: Vec<(String, String)>,
}

impl ParticipantObject {
    /// An object of a kind.
    pub fn new(kind: ObjectKind, id: impl Into<String>) -> Self {
        Self {
            kind,
            id: id.into(),
            instances: None,
            detail: Vec::new(),
        }
    }

    /// A study with the number of its instances concerned.
    pub fn study(uid: &Uid, instances: usize) -> Self {
        Self {
            instances: Some(instances),
            ..Self::new(ObjectKind::Study, uid.as_str())
        }
    }

    /// A series.
    pub fn series(uid: &Uid) -> Self {
        Self::new(ObjectKind::Series, uid.as_str())
    }

    /// A file or folder.
    pub fn file(path: &std::path::Path) -> Self {
        Self::new(ObjectKind::File, path.display().to_string())
    }

    /// A model package, `id@version`, with the SHA-256 of its weights.
    pub fn model(key: &str, sha256: &str) -> Self {
        Self::new(ObjectKind::Model, key).with("sha256", sha256)
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.detail.push((name.to_owned(), value.to_string()));
        self
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AuditEvent {
    /// What kind.
    pub id: EventId,
    /// What it was in particular.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<EventType>,
    /// What was done.
    pub action: EventAction,
    /// Event Date Time, to the millisecond.
    #[serde(with = "rfc3339")]
    pub time: DateTime<Utc>,
    /// How it went.
    pub outcome: Outcome,
    /// Who: at least one.
    pub participants: Vec<ActiveParticipant>,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<ParticipantObject>,
    /// Why it went as it did, for people. No patient data.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub outcome_description: String,
}

impl AuditEvent {
    /// An event by the account that runs the program, with the usual action of its kind.
    pub fn new(id: EventId, time: DateTime<Utc>) -> Self {
        let action = match id {
            EventId::ApplicationActivity
            | EventId::ModelRun
            | EventId::SecurityAlert
            | EventId::BeginTransferring
            | EventId::NetworkEntry
            | EventId::Query
            | EventId::UserAuthentication => EventAction::Execute,
            EventId::AuditLogUsed
            | EventId::DicomInstancesAccessed
            | EventId::DicomInstancesTransferred
            | EventId::Export
            | EventId::OrderRecord
            | EventId::PatientRecord
            | EventId::ProcedureRecord => EventAction::Read,
            EventId::Import => EventAction::Create,
            EventId::DicomStudyDeleted => EventAction::Delete,
        };
        Self {
            id,
            event_type: None,
            action,
            time: time.trunc_subsecs(3),
            outcome: Outcome::Success,
            participants: vec![ActiveParticipant::account(), ActiveParticipant::program()],
            objects: Vec::new(),
            outcome_description: String::new(),
        }
    }

    /// Says what it was in particular.
    #[must_use]
    pub const fn of_type(mut self, event_type: EventType) -> Self {
        self.event_type = Some(event_type);
        self
    }

    /// The same at another time.
    #[must_use]
    pub fn at(mut self, time: DateTime<Utc>) -> Self {
        self.time = time.trunc_subsecs(3);
        self
    }

    /// Event type, where there is one.
    pub fn type_code(&self) -> Option<CodedConcept> {
        (self.event_type.map(EventType::code)).or_else(|| self.id.type_code())
    }

    /// The most that the codes say about it: the event type, else the event ID.
    pub fn kind(&self) -> CodedConcept {
        self.type_code().unwrap_or_else(|| self.id.code())
    }

    /// Adds an object.
    #[must_use]
    pub fn about(mut self, object: ParticipantObject) -> Self {
        self.objects.push(object);
        self
    }

    /// Says that it went wrong, and why.
    #[must_use]
    pub fn failed(mut self, outcome: Outcome, why: impl ToString) -> Self {
        self.outcome = outcome;
        self.outcome_description = why.to_string();
        self
    }
}

/// `2026-01-31T12:00:00.000Z`.
mod rfc3339 {
    use chrono::{DateTime, SecondsFormat, Utc};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(time: &DateTime<Utc>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<DateTime<Utc>, D::Error> {
        let text = String::deserialize(from)?;
        DateTime::parse_from_rfc3339(&text)
            .map(|time| time.with_timezone(&Utc))
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_a_round_trip_through_json() {
        let event = AuditEvent::new(EventId::Export, DateTime::UNIX_EPOCH)
            .about(ParticipantObject::study(&Uid::parse("1.2.3").unwrap(), 20))
            .about(ParticipantObject::model("head@1.0.0", "ab12"))
            .failed(Outcome::SeriousFailure, "no space left");
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<AuditEvent>(&text).unwrap(), event);
        assert!(text.contains(r#""outcome":8"#), "{text}");
    }

    /// PS3.16 CID 400.
    #[test]
    fn event_codes_are_those_of_the_standard() {
        let code = |id: EventId| id.code().value;
        assert_eq!(code(EventId::ApplicationActivity), "110100");
        assert_eq!(code(EventId::AuditLogUsed), "110101");
        assert_eq!(code(EventId::DicomInstancesAccessed), "110103");
        assert_eq!(code(EventId::Export), "110106");
        assert_eq!(code(EventId::Import), "110107");
        assert_eq!(code(EventId::SecurityAlert), "110113");
        assert_eq!(EventId::ModelRun.type_code().unwrap().value, "model-run");
    }
}
