//! Records in the forms of others: the XML message of DICOM PS3.15 A.5, FHIR R4 AuditEvent, and a table.

use std::fmt::Write as _;

use chrono::SecondsFormat;
use serde_json::{Value, json};

use super::text::{base64, visible, xml};
use super::{ActiveParticipant, AuditEvent, EventId, ObjectKind, ParticipantObject, Record, Role};
use crate::study::CodedConcept;

/// The name of this machine as the source of messages.
pub fn host_name() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").unwrap_or_default();
    let plain: String = name
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || ".-_".contains(*c))
        .take(255)
        .collect();
    if plain.is_empty() {
        "-".to_owned()
    } else {
        plain
    }
}

/// How the standard tells what an object is.
struct Described {
    type_code: &'static str,
    role: Option<&'static str>,
    id_type: CodedConcept,
    name: String,
}

fn described(event: EventId, object: &ParticipantObject) -> Described {
    let code = |value: &str, scheme: &str, meaning: &str| CodedConcept::new(value, scheme, meaning);
    // Data Source and Data Destination, where the event says which.
    let way = match detail(object, "role") {
        Some("source") => Some("25"),
        Some("destination") => Some("16"),
        _ => None,
    };
    let (type_code, role, id_type, name) = match object.kind {
        ObjectKind::Patient => ("1", Some("1"), code("2", "RFC-3881", "Patient Number"), ""),
        ObjectKind::Study => (
            "2",
            Some("3"),
            code("110180", "DCM", "Study Instance UID"),
            "",
        ),
        ObjectKind::Series => (
            "2",
            Some("3"),
            code("112002", "DCM", "Series Instance UID"),
            "",
        ),
        ObjectKind::File => ("2", way, code("12", "RFC-3881", "URI"), ""),
        // An alert's subject has a URI or a node (PS3.15 A.5.3.11); `id@version` is one in form.
        ObjectKind::Model if event == EventId::SecurityAlert => {
            ("2", Some("5"), code("12", "RFC-3881", "URI"), "")
        }
        ObjectKind::Model => (
            "2",
            Some("26"),
            code("model", "99NEGATOSCOPE", "Model package"),
            "",
        ),
        ObjectKind::Node => ("2", way, code("110182", "DCM", "Node ID"), ""),
        ObjectKind::AuditLog => (
            "2",
            Some("13"),
            code("12", "RFC-3881", "URI"),
            "Security Audit Log",
        ),
    };
    Described {
        type_code,
        role,
        id_type,
        name: if name.is_empty() { &object.id } else { name }.to_owned(),
    }
}

fn detail<'a>(object: &'a ParticipantObject, name: &str) -> Option<&'a str> {
    (object.detail.iter()).find_map(|(known, value)| (known == name).then_some(value.as_str()))
}

/// Who took part, with the ends of the way that the objects tell of: what an export goes to and an
/// import comes from is a participant (PS3.15 A.5.3.4, A.5.3.5), with the medium's type.
fn participants(event: &AuditEvent) -> Vec<(ActiveParticipant, Option<CodedConcept>)> {
    let mut all: Vec<_> = (event.participants.iter().cloned())
        .map(|participant| (participant, None))
        .collect();
    let (word, media) = match event.id {
        EventId::Export => ("destination", Role::DestinationMedia),
        EventId::Import => ("source", Role::SourceMedia),
        _ => return all,
    };
    let other = |id: &str, role_id_code, address: &str| ActiveParticipant {
        user_id: id.to_owned(),
        alternative_user_id: String::new(),
        user_is_requestor: false,
        role_id_code,
        network_access_point: address.to_owned(),
    };
    for object in &event.objects {
        if object.kind == ObjectKind::File && detail(object, "role") == Some(word) {
            // PS3.16 CID 405 knows no disk of the machine: a path is the URI of a file.
            let kind = CodedConcept::new("110037", "DCM", "URI");
            all.push((other(&object.id, media, ""), Some(kind)));
        } else if let Some(url) = detail(object, "url") {
            all.push((other(url, Role::Destination, url), None));
        }
    }
    all
}

/// The record itself, as an object of its message: its number, its hash, and the act that it belongs to.
fn own_object(record: &Record) -> ParticipantObject {
    ParticipantObject::new(ObjectKind::AuditLog, "audit")
        .with("record", record.seq)
        .with("record_sha256", &record.sha256)
        .with("act", &record.act)
}

/// 1 machine name, 2 IP address, 5 URI.
fn access_point_type(address: &str) -> &'static str {
    if address.contains("://") {
        "5"
    } else if address.parse::<std::net::IpAddr>().is_ok() {
        "2"
    } else {
        "1"
    }
}

/// One `AuditMessage` on one line (PS3.15 A.5.1, edition 2024e).
pub fn atna_xml(record: &Record, source: &str) -> String {
    let event = &record.event;
    let mut out = String::from("<AuditMessage>");
    let code = |out: &mut String, element: &str, code: &CodedConcept| {
        let _ = write!(
            out,
            r#"<{element} csd-code="{}" codeSystemName="{}" originalText="{}"/>"#,
            xml(&code.value),
            xml(&code.scheme),
            xml(&code.meaning)
        );
    };
    let action = serde_json::to_value(event.action).unwrap_or_default();
    let _ = write!(
        out,
        r#"<EventIdentification EventActionCode="{}" EventDateTime="{}" EventOutcomeIndicator="{}">"#,
        action.as_str().unwrap_or_default(),
        event.time.to_rfc3339_opts(SecondsFormat::Millis, true),
        u8::from(event.outcome)
    );
    code(&mut out, "EventID", &event.id.code());
    if let Some(kind) = event.type_code() {
        code(&mut out, "EventTypeCode", &kind);
    }
    if !event.outcome_description.is_empty() {
        let text = xml(&event.outcome_description);
        let _ = write!(
            out,
            "<EventOutcomeDescription>{text}</EventOutcomeDescription>"
        );
    }
    out.push_str("</EventIdentification>");
    for (participant, medium) in participants(event) {
        let ActiveParticipant {
            user_id,
            alternative_user_id,
            user_is_requestor,
            role_id_code,
            network_access_point: address,
        } = participant;
        let _ = write!(out, r#"<ActiveParticipant UserID="{}""#, xml(&user_id));
        if !alternative_user_id.is_empty() {
            let _ = write!(out, r#" AlternativeUserID="{}""#, xml(&alternative_user_id));
        }
        let _ = write!(out, r#" UserIsRequestor="{user_is_requestor}""#);
        if !address.is_empty() {
            let _ = write!(
                out,
                r#" NetworkAccessPointID="{}" NetworkAccessPointTypeCode="{}""#,
                xml(&address),
                access_point_type(&address)
            );
        }
        out.push('>');
        code(&mut out, "RoleIDCode", &role_id_code.code());
        if let Some(medium) = &medium {
            out.push_str("<MediaIdentifier>");
            code(&mut out, "MediaType", medium);
            out.push_str("</MediaIdentifier>");
        }
        out.push_str("</ActiveParticipant>");
    }
    let _ = write!(
        out,
        r#"<AuditSourceIdentification AuditSourceID="{}"><AuditSourceTypeCode csd-code="1"/></AuditSourceIdentification>"#,
        xml(source)
    );
    for object in event.objects.iter().chain([&own_object(record)]) {
        let Described {
            type_code,
            role,
            id_type,
            name,
        } = described(event.id, object);
        let _ = write!(
            out,
            r#"<ParticipantObjectIdentification ParticipantObjectID="{}" ParticipantObjectTypeCode="{type_code}""#,
            xml(&object.id)
        );
        if let Some(role) = role {
            let _ = write!(out, r#" ParticipantObjectTypeCodeRole="{role}""#);
        }
        out.push('>');
        code(&mut out, "ParticipantObjectIDTypeCode", &id_type);
        let _ = write!(
            out,
            "<ParticipantObjectName>{}</ParticipantObjectName>",
            xml(&name)
        );
        // An alert says of its subject what it is about (PS3.15 A.5.3.11).
        let alert = (event.id == EventId::SecurityAlert)
            .then(|| ("Alert Description".to_owned(), words_of(event)));
        for (name, value) in alert.iter().chain(&object.detail) {
            let _ = write!(
                out,
                r#"<ParticipantObjectDetail type="{}" value="{}"/>"#,
                xml(name),
                base64(value.as_bytes())
            );
        }
        let flag = |name: &str| detail(object, name).filter(|v| matches!(*v, "true" | "false"));
        let (encrypted, anonymized) = (flag("encrypted"), flag("anonymized"));
        if object.instances.is_some() || encrypted.is_some() || anonymized.is_some() {
            out.push_str("<ParticipantObjectDescription>");
            if let Some(count) = object.instances {
                let _ = write!(out, r#"<SOPClass NumberOfInstances="{count}"/>"#);
            }
            if let Some(encrypted) = encrypted {
                let _ = write!(out, "<Encrypted>{encrypted}</Encrypted>");
            }
            if let Some(anonymized) = anonymized {
                let _ = write!(out, "<Anonymized>{anonymized}</Anonymized>");
            }
            out.push_str("</ParticipantObjectDescription>");
        }
        out.push_str("</ParticipantObjectIdentification>");
    }
    out.push_str("</AuditMessage>");
    out
}

/// What an alert is about, in words.
fn words_of(event: &AuditEvent) -> String {
    if event.outcome_description.is_empty() {
        event.kind().meaning
    } else {
        event.outcome_description.clone()
    }
}

const DCM: &str = "http://dicom.nema.org/resources/ontology/DCM";
const DISCLOSURE: &str =
    "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit.PrivacyDisclosure.Source";

fn coding(code: &CodedConcept) -> Value {
    let system = match code.scheme.as_str() {
        "DCM" => DCM.to_owned(),
        other => format!("urn:negatoscope:{other}"),
    };
    json!({ "system": system, "code": code.value, "display": code.meaning })
}

/// A FHIR R4 AuditEvent with the codes of IHE BALP.
///
/// The profile of a privacy disclosure is claimed only where the event names what that profile
/// asks for: patient, source and recipient.
pub fn fhir(record: &Record, source: &str) -> Value {
    let event = &record.event;
    let participants = participants(event);
    let agents: Vec<Value> = (participants.iter())
        .map(|(p, medium)| {
            let mut agent = json!({
                "type": { "coding": [coding(&p.role_id_code.code())] },
                "who": { "identifier": { "value": visible(&p.user_id) } },
                "requestor": p.user_is_requestor,
            });
            if !p.alternative_user_id.is_empty() {
                agent["altId"] = visible(&p.alternative_user_id).into();
            }
            if let Some(medium) = medium {
                agent["media"] = coding(medium);
            }
            if !p.network_access_point.is_empty() {
                agent["network"] = json!({
                    "address": visible(&p.network_access_point),
                    "type": access_point_type(&p.network_access_point),
                });
            }
            agent
        })
        .collect();
    let entities: Vec<Value> = (event.objects.iter())
        .chain([&own_object(record)])
        .map(|object| entity(event.id, object))
        .collect();
    let mut subtypes: Vec<Value> = event.type_code().iter().map(coding).collect();
    let has_role = |role: Role| participants.iter().any(|(p, _)| p.role_id_code == role);
    let discloses = event.id == EventId::Export
        && event.objects.iter().any(|o| o.kind == ObjectKind::Patient)
        && has_role(Role::Source)
        && has_role(Role::Destination);
    let mut out = json!({ "resourceType": "AuditEvent" });
    if discloses {
        out["meta"] = json!({ "profile": [DISCLOSURE] });
        subtypes.push(json!({
            "system": "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle",
            "code": "disclose",
            "display": "Disclose Record Lifecycle Event",
        }));
    }
    out["type"] = coding(&event.id.code());
    if !subtypes.is_empty() {
        out["subtype"] = subtypes.into();
    }
    out["action"] = serde_json::to_value(event.action).unwrap_or_default();
    out["recorded"] = (event.time.to_rfc3339_opts(SecondsFormat::Millis, true)).into();
    out["outcome"] = u8::from(event.outcome).to_string().into();
    if !event.outcome_description.is_empty() {
        out["outcomeDesc"] = visible(&event.outcome_description).into();
    }
    out["agent"] = agents.into();
    out["source"] = json!({
        "observer": { "identifier": { "value": source } },
        "type": [{
            "system": "http://terminology.hl7.org/CodeSystem/security-source-type",
            "code": "1",
            "display": "User Device",
        }],
    });
    out["entity"] = entities.into();
    without_nothing(&mut out);
    out
}

/// FHIR knows no empty text and no element without content.
fn without_nothing(value: &mut Value) {
    let says_something = |value: &mut Value| {
        without_nothing(value);
        match value {
            Value::String(text) => !text.trim().is_empty(),
            Value::Object(fields) => !fields.is_empty(),
            Value::Array(items) => !items.is_empty(),
            _ => true,
        }
    };
    match value {
        Value::Object(fields) => fields.retain(|_, value| says_something(value)),
        Value::Array(items) => items.retain_mut(says_something),
        _ => {}
    }
}

fn entity(event: EventId, object: &ParticipantObject) -> Value {
    let Described {
        type_code,
        role,
        name,
        ..
    } = described(event, object);
    let identifier = match object.kind {
        ObjectKind::Study | ObjectKind::Series => {
            json!({ "system": "urn:dicom:uid", "value": format!("urn:oid:{}", visible(&object.id)) })
        }
        _ => json!({ "value": visible(&object.id) }),
    };
    let mut entity = json!({
        "what": { "identifier": identifier },
        "type": {
            "system": "http://terminology.hl7.org/CodeSystem/audit-entity-type",
            "code": type_code,
        },
        "name": visible(&name),
    });
    // Object roles of R4 end with 24.
    if let Some(role) = role.filter(|role| !matches!(*role, "25" | "26")) {
        entity["role"] = json!({
            "system": "http://terminology.hl7.org/CodeSystem/object-role",
            "code": role,
        });
    }
    let count = object
        .instances
        .map(|n| ("instances".to_owned(), n.to_string()));
    let detail: Vec<Value> = (object.detail.iter().cloned())
        .chain(count)
        .filter(|(_, value)| !value.trim().is_empty())
        .map(|(name, value)| json!({ "type": visible(&name), "valueString": visible(&value) }))
        .collect();
    if !detail.is_empty() {
        entity["detail"] = detail.into();
    }
    entity
}

/// The first row of the table.
pub const COLUMNS: [&str; 11] = [
    "record", "time", "act", "event_id", "event", "action", "outcome", "reason", "users",
    "objects", "sha256",
];

/// A row of the table. No cell is a formula to a spreadsheet.
pub fn row(record: &Record) -> [String; 11] {
    let event = &record.event;
    let users: Vec<&str> = event
        .participants
        .iter()
        .map(|p| p.user_id.as_str())
        .collect();
    let objects: Vec<String> = (event.objects.iter())
        .map(|object| {
            let mut text = object.id.clone();
            if let Some(count) = object.instances {
                let _ = write!(text, " ({count} instances)");
            }
            for (name, value) in &object.detail {
                let _ = write!(text, " {name}={value}");
            }
            text
        })
        .collect();
    let action = serde_json::to_value(event.action).unwrap_or_default();
    [
        record.seq.to_string(),
        event.time.to_rfc3339_opts(SecondsFormat::Millis, true),
        record.act.clone(),
        event.id.code().value,
        event.kind().meaning,
        action.as_str().unwrap_or_default().to_owned(),
        u8::from(event.outcome).to_string(),
        event.outcome_description.clone(),
        users.join("; "),
        objects.join("; "),
        record.sha256.clone(),
    ]
    .map(|cell| cell_of(&cell))
}

fn cell_of(text: &str) -> String {
    let text = visible(text);
    if text.starts_with(['=', '+', '-', '@']) {
        format!("'{text}")
    } else {
        text
    }
}
