//! Records in the forms of others: nothing in a field breaks out of it, and codes are those of the standards.

use std::path::Path;

use chrono::DateTime;
use negatoscope::audit::{
    ActiveParticipant, AuditEvent, EventId, EventType, Filter, Log, ObjectKind, Outcome,
    ParticipantObject, Record, Role, atna_xml, fhir, records, row, visible,
};
use negatoscope::study::Uid;

const NASTY: &str = "=1+1\"'<&>]]>\r\n\u{1b}[2J\u{202e}\u{0}\u{2028},end";

fn record(event: AuditEvent) -> Record {
    Record {
        seq: 12,
        act: "begin".to_owned(),
        event,
        sha256: "ab".repeat(32),
    }
}

fn export() -> AuditEvent {
    let time = DateTime::from_timestamp_millis(1_700_000_000_123).unwrap();
    let mut event = AuditEvent::new(EventId::Export, time)
        .about(ParticipantObject::study(&Uid::parse("1.2.3").unwrap(), 20))
        .about(
            ParticipantObject::file(Path::new("/out"))
                .with("role", "destination")
                .with("anonymized", true),
        );
    event.participants = vec![ActiveParticipant {
        user_id: "anna".to_owned(),
        alternative_user_id: String::new(),
        user_is_requestor: true,
        role_id_code: Role::ApplicationLauncher,
        network_access_point: "10.0.0.7".to_owned(),
    }];
    event
}

/// PS3.15 A.5.1: elements in the order of the schema, values as it lists them, details in base64.
#[test]
fn the_message_is_that_of_the_standard() {
    assert_eq!(
        atna_xml(&record(export()), "ws1"),
        concat!(
            r#"<AuditMessage><EventIdentification EventActionCode="R" EventDateTime="2023-11-14T22:13:20.123Z" EventOutcomeIndicator="0">"#,
            r#"<EventID csd-code="110106" codeSystemName="DCM" originalText="Export"/></EventIdentification>"#,
            r#"<ActiveParticipant UserID="anna" UserIsRequestor="true" NetworkAccessPointID="10.0.0.7" NetworkAccessPointTypeCode="2">"#,
            r#"<RoleIDCode csd-code="110151" codeSystemName="DCM" originalText="Application Launcher"/></ActiveParticipant>"#,
            // A.5.3.4: what an export goes to.
            r#"<ActiveParticipant UserID="/out" UserIsRequestor="false"><RoleIDCode csd-code="110154" codeSystemName="DCM" originalText="Destination Media"/>"#,
            r#"<MediaIdentifier><MediaType csd-code="110037" codeSystemName="DCM" originalText="URI"/></MediaIdentifier></ActiveParticipant>"#,
            r#"<AuditSourceIdentification AuditSourceID="ws1"><AuditSourceTypeCode csd-code="1"/></AuditSourceIdentification>"#,
            r#"<ParticipantObjectIdentification ParticipantObjectID="1.2.3" ParticipantObjectTypeCode="2" ParticipantObjectTypeCodeRole="3">"#,
            r#"<ParticipantObjectIDTypeCode csd-code="110180" codeSystemName="DCM" originalText="Study Instance UID"/>"#,
            r#"<ParticipantObjectName>1.2.3</ParticipantObjectName>"#,
            r#"<ParticipantObjectDescription><SOPClass NumberOfInstances="20"/></ParticipantObjectDescription></ParticipantObjectIdentification>"#,
            r#"<ParticipantObjectIdentification ParticipantObjectID="/out" ParticipantObjectTypeCode="2" ParticipantObjectTypeCodeRole="16">"#,
            r#"<ParticipantObjectIDTypeCode csd-code="12" codeSystemName="RFC-3881" originalText="URI"/>"#,
            r#"<ParticipantObjectName>/out</ParticipantObjectName>"#,
            r#"<ParticipantObjectDetail type="role" value="ZGVzdGluYXRpb24="/><ParticipantObjectDetail type="anonymized" value="dHJ1ZQ=="/>"#,
            r#"<ParticipantObjectDescription><Anonymized>true</Anonymized></ParticipantObjectDescription></ParticipantObjectIdentification>"#,
            r#"<ParticipantObjectIdentification ParticipantObjectID="audit" ParticipantObjectTypeCode="2" ParticipantObjectTypeCodeRole="13">"#,
            r#"<ParticipantObjectIDTypeCode csd-code="12" codeSystemName="RFC-3881" originalText="URI"/>"#,
            r#"<ParticipantObjectName>Security Audit Log</ParticipantObjectName>"#,
            r#"<ParticipantObjectDetail type="record" value="MTI="/>"#,
            r#"<ParticipantObjectDetail type="record_sha256" value="YWJhYmFiYWJhYmFiYWJhYmFiYWJhYmFiYWJhYmFiYWJhYmFiYWJhYmFiYWJhYmFiYWJhYmFiYWJhYmFiYWJhYg=="/>"#,
            r#"<ParticipantObjectDetail type="act" value="YmVnaW4="/></ParticipantObjectIdentification></AuditMessage>"#,
        )
    );
}

#[test]
fn nothing_in_a_field_breaks_out_of_it() {
    let mut event = export()
        .about(ParticipantObject::new(ObjectKind::File, NASTY).with(NASTY, NASTY))
        .failed(Outcome::SeriousFailure, NASTY);
    event.participants[0].user_id = NASTY.to_owned();
    let record = record(event);
    let hidden = |text: &str| {
        text.chars()
            .any(|c| c != '\n' && visible(&c.to_string()) != c.to_string())
    };

    let xml = atna_xml(&record, "ws1");
    assert!(!xml.contains('\n') && !hidden(&xml));
    // Each tag is one of ours: what the fields hold has no angle of its own.
    let plain = atna_xml(&self::record(export()), "ws1");
    let tags = |xml: &str| xml.matches('<').count();
    assert_eq!(tags(&xml), tags(&plain) + 8, "{xml}");
    assert_eq!(xml.matches("=1+1").count(), 5);

    crate::audit_table::keep("nasty", std::slice::from_ref(&record));

    let json = fhir(&record, "ws1");
    let text = json.to_string();
    assert!(!hidden(&text) && !text.contains("\\u001b") && !text.contains("\\n"));

    for cell in row(&record) {
        assert!(
            !cell.starts_with(['=', '+', '-', '@']) && !hidden(&cell) && !cell.contains('\n'),
            "{cell}"
        );
    }

    let home = tempfile::tempdir().unwrap();
    let log = Log::open(home.path()).unwrap();
    log.append(&record.event).unwrap();
    assert_eq!(
        std::fs::read_to_string(home.path().join("audit/000001.jsonl"))
            .unwrap()
            .lines()
            .count(),
        2
    );
    let mut read = Vec::new();
    records(home.path(), |_, record| read.push(record.unwrap().event)).unwrap();
    assert_eq!(read, [record.event]);
}

#[test]
fn the_second_form_is_an_audit_event_of_fhir() {
    let json = fhir(&record(export()), "ws1");
    assert_eq!(json["resourceType"], "AuditEvent");
    assert_eq!(
        json["type"]["system"],
        "http://dicom.nema.org/resources/ontology/DCM"
    );
    assert_eq!(
        (&json["type"]["code"], &json["outcome"]),
        (&"110106".into(), &"0".into())
    );
    assert_eq!(json["agent"][0]["network"]["type"], "2");
    assert_eq!(
        json["entity"][0]["what"]["identifier"]["value"],
        "urn:oid:1.2.3"
    );
    assert!(json["meta"].is_null(), "no profile without a patient");

    let mut disclosure = export().about(ParticipantObject::new(ObjectKind::Patient, "P1"));
    for role in [Role::Source, Role::Destination] {
        let mut who = disclosure.participants[0].clone();
        who.role_id_code = role;
        disclosure.participants.push(who);
    }
    let json = fhir(&record(disclosure), "ws1");
    assert!(
        json["meta"]["profile"][0]
            .as_str()
            .unwrap()
            .ends_with("PrivacyDisclosure.Source")
    );
    assert_eq!(json["subtype"][0]["code"], "disclose");
}

/// FHIR knows no empty text, and no element with nothing in it (R4 2.24, 2.6.0.1).
#[test]
fn the_second_form_leaves_out_what_is_empty() {
    fn check(value: &serde_json::Value) {
        use serde_json::Value;
        match value {
            Value::Object(fields) => {
                assert!(!fields.is_empty());
                fields.values().for_each(check);
            }
            Value::Array(items) => {
                assert!(!items.is_empty());
                items.iter().for_each(check);
            }
            Value::String(text) => assert!(!text.trim().is_empty()),
            _ => {}
        }
    }
    let mut event = export()
        .about(ParticipantObject::new(ObjectKind::Node, "").with("region", ""))
        .about(ParticipantObject::new(ObjectKind::File, "x").with("retention", " "));
    event.participants[0].user_id = String::new();
    let json = fhir(&record(event), "ws1");
    check(&json);
    assert!(!json.to_string().contains("retention"));
}

#[test]
fn what_may_leave_holds_pseudonyms_that_stay_the_same() {
    let home = tempfile::tempdir().unwrap();
    let log = Log::open(home.path()).unwrap();
    let pseudonyms = log.pseudonyms().unwrap();
    let planted = [
        "PLANTED-ID",
        "1.2.840.99",
        "/home/x/Doe^Jane/scan.dcm",
        "reason with Doe^Jane",
    ];
    let event = export()
        .about(ParticipantObject::new(ObjectKind::Patient, planted[0]).with("issuer", planted[0]))
        .about(ParticipantObject::study(
            &Uid::parse(planted[1]).unwrap(),
            3,
        ))
        .about(ParticipantObject::new(ObjectKind::Series, planted[1]))
        .about(ParticipantObject::new(ObjectKind::File, planted[2]).with("kept_in", planted[2]))
        .failed(Outcome::SeriousFailure, planted[3]);
    let record = record(event);
    let reduced = pseudonyms.reduced(&record);
    for text in [
        atna_xml(&reduced, "ws1"),
        fhir(&reduced, "ws1").to_string(),
        row(&reduced).join(","),
    ] {
        for word in planted.iter().chain(&["Doe", "Jane"]) {
            assert!(!text.contains(word), "{word} in {text}");
        }
    }
    let again = log.pseudonyms().unwrap().reduced(&record);
    assert_eq!(reduced, again);
    // What says how it was done stays.
    assert_eq!(
        reduced.event.objects[1].detail,
        record.event.objects[1].detail
    );
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Log::open(elsewhere.path()).unwrap().pseudonyms().unwrap();
    assert_ne!(other.reduced(&record), reduced);
}

#[test]
fn filters_ask_for_time_event_user_and_study() {
    let record = record(export().of_type(EventType::UseOfRestrictedFunction));
    let at = |millis| DateTime::from_timestamp_millis(millis);
    let text = |text: &str| Some(text.to_owned());
    let all = Filter::default();
    for (filter, expected) in [
        (all.clone(), true),
        (
            Filter {
                since: at(1_700_000_000_123),
                ..all.clone()
            },
            true,
        ),
        (
            Filter {
                since: at(1_700_000_000_124),
                ..all.clone()
            },
            false,
        ),
        (
            Filter {
                until: at(1_700_000_000_123),
                ..all.clone()
            },
            false,
        ),
        (
            Filter {
                event: text("110106"),
                ..all.clone()
            },
            true,
        ),
        (
            Filter {
                event: text("restricted"),
                ..all.clone()
            },
            true,
        ),
        (
            Filter {
                event: text("import"),
                ..all.clone()
            },
            false,
        ),
        (
            Filter {
                user: text("ANN"),
                ..all.clone()
            },
            true,
        ),
        (
            Filter {
                user: text("bob"),
                ..all.clone()
            },
            false,
        ),
        (
            Filter {
                study: text("1.2.3"),
                ..all.clone()
            },
            true,
        ),
        (
            Filter {
                study: text("1.2"),
                ..all
            },
            false,
        ),
    ] {
        assert_eq!(filter.lets_through(&record), expected, "{filter:?}");
    }
}
