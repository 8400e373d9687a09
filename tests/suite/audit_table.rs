//! Every kind of event that the real program puts on record, held against the tables of PS3.15 A.5.3.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use negatoscope::audit::{
    AuditEvent, EventId, EventType, Finding, Log, ObjectKind, Outcome, ParticipantObject, Record,
    Session, atna_xml, fhir, records, verify,
};
use negatoscope::runtime::now_utc;
use serde_json::Value;

use crate::cli::Place;

/// What a table of PS3.15 A.5.3 asks for: event ID, allowed actions, roles and objects that must be there
/// (type code, role, ID type).
struct Table {
    id: &'static str,
    actions: &'static str,
    has_type: bool,
    roles: &'static [&'static str],
    objects: &'static [(&'static str, &'static str, &'static [&'static str])],
}

/// Tables A.5.3.1-1, A.5.3.2-1, A.5.3.4-1, A.5.3.5-1, A.5.3.6-1, A.5.3.11-1. What this log has no word for by
/// design, patients, is left out; studies are named where they are known before the act.
const TABLES: &[Table] = &[
    Table {
        id: "110100",
        actions: "E",
        has_type: true,
        roles: &["110150", "110151"],
        objects: &[],
    },
    Table {
        id: "110101",
        actions: "R",
        has_type: false,
        roles: &[],
        objects: &[("2", "13", &["12"])],
    },
    Table {
        id: "110103",
        actions: "CRUD",
        has_type: false,
        roles: &[],
        objects: &[],
    },
    Table {
        id: "110106",
        actions: "R",
        has_type: false,
        roles: &["110154"],
        objects: &[],
    },
    Table {
        id: "110107",
        actions: "C",
        has_type: false,
        roles: &["110155"],
        objects: &[],
    },
    Table {
        id: "110113",
        actions: "E",
        has_type: true,
        roles: &[],
        objects: &[("2", "", &["12", "110182"])],
    },
];

fn values<'a>(xml: &'a str, element: &str, attribute: &str) -> Vec<&'a str> {
    let start = format!("<{element} ");
    xml.match_indices(&start)
        .filter_map(|(at, _)| {
            let tag = xml[at + start.len() - 1..].split('>').next()?;
            let (_, rest) = tag.split_once(&format!(" {attribute}=\""))?;
            rest.split('"').next()
        })
        .collect()
}

fn check(record: &Record) {
    let xml = atna_xml(record, "ws1");
    let id = values(&xml, "EventID", "csd-code");
    let table = TABLES.iter().find(|table| [table.id] == *id);
    let table = table.unwrap_or_else(|| panic!("no table for {xml}"));
    // A.5.2: mandatory in every message.
    let event = |name: &str| values(&xml, "EventIdentification", name);
    assert!(
        matches!(*event("EventOutcomeIndicator"), ["0" | "4" | "8" | "12"]),
        "{xml}"
    );
    assert!(matches!(*event("EventDateTime"), [time] if time.ends_with('Z')));
    let action = event("EventActionCode");
    assert!(
        action.len() == 1 && table.actions.contains(action[0]),
        "{xml}"
    );
    assert!(!table.has_type || !values(&xml, "EventTypeCode", "csd-code").is_empty());
    let who = values(&xml, "ActiveParticipant", "UserID");
    let asked = values(&xml, "ActiveParticipant", "UserIsRequestor");
    assert!(!who.is_empty() && who.iter().all(|id| !id.is_empty()));
    assert_eq!(who.len(), asked.len());
    assert!(asked.iter().filter(|a| **a == "true").count() <= 1);
    assert_eq!(
        values(&xml, "AuditSourceIdentification", "AuditSourceID"),
        ["ws1"]
    );
    let objects = xml.matches("</ParticipantObjectIdentification>").count();
    for (element, attribute) in [
        ("ParticipantObjectIdentification", "ParticipantObjectID"),
        ("ParticipantObjectIDTypeCode", "csd-code"),
    ] {
        let found = values(&xml, element, attribute);
        assert!(found.len() == objects && found.iter().all(|v| !v.is_empty()));
    }
    // A.5.3: what this kind asks for beyond.
    let roles = values(&xml, "RoleIDCode", "csd-code");
    for role in table.roles {
        assert!(roles.contains(role), "{role} in {xml}");
    }
    let each: Vec<&str> = xml
        .split("<ParticipantObjectIdentification ")
        .skip(1)
        .collect();
    for (kind, role, id_types) in table.objects {
        let fits = |object: &&&str| {
            object.contains(&format!("ParticipantObjectTypeCode=\"{kind}\""))
                && (role.is_empty()
                    || object.contains(&format!("ParticipantObjectTypeCodeRole=\"{role}\"")))
                && id_types
                    .iter()
                    .any(|id| object.contains(&format!("IDTypeCode csd-code=\"{id}\"")))
        };
        // The last object is the record itself.
        assert!(each[..each.len() - 1].iter().any(|o| fits(&o)), "{xml}");
    }
    if table.id == "110113" {
        assert!(xml.contains(r#"type="Alert Description" value=""#), "{xml}");
    }
    check_fhir(&fhir(record, "ws1"));
}

/// http://hl7.org/fhir/R4/auditevent.html: elements with a minimum of one, and required value sets.
fn check_fhir(event: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for required in ["type", "recorded", "agent", "source"] {
        assert!(!event[required].is_null(), "{required} in {event}");
    }
    assert!(!text(&event["type"]["code"]).is_empty());
    assert!("CRUDE".contains(&text(&event["action"])));
    assert!(["0", "4", "8", "12"].contains(&text(&event["outcome"]).as_str()));
    let agents = event["agent"].as_array().unwrap();
    assert!(!agents.is_empty() && agents.iter().all(|a| a["requestor"].is_boolean()));
    for agent in agents {
        let network = &agent["network"];
        assert!(network.is_null() || "12345".contains(&text(&network["type"])));
    }
    assert!(event["source"]["observer"].is_object());
    for entity in event["entity"].as_array().unwrap() {
        // Object role of R4 ends with 24.
        let role = &entity["role"]["code"];
        assert!(
            role.is_null() || (1..=24).contains(&text(role).parse::<u8>().unwrap()),
            "{entity}"
        );
        for detail in entity["detail"].as_array().into_iter().flatten() {
            assert!(detail["type"].is_string() && detail["valueString"].is_string());
        }
    }
}

fn all_of(home: &Path) -> Vec<Record> {
    let mut all = Vec::new();
    records(home, |_, record| all.push(record.unwrap())).unwrap();
    all
}

/// A home in which the program did what it can do without a network and a large model.
fn busy() -> Place {
    let place = Place::new().with_study();
    let pdf = "https://models.example";
    let package = place.path("package");
    fs::create_dir(&package).unwrap();
    fs::write(package.join("manifest.json"), "{}").unwrap();
    for (arguments, code) in [
        (vec!["info", "study"], 0),
        (vec!["convert", "study", "--out", "a.nii.gz"], 0),
        (vec!["deidentify", "study", "--out", "plain"], 0),
        (
            vec!["analyze", "study", "--out", "out", "--model", "none-such"],
            1,
        ),
        (vec!["models", "import", "package"], 1),
        (vec!["models", "trust", "aa", "--name", "x"], 1),
        (vec!["models", "remove", "none-such"], 1),
        (vec!["endpoints", "add", "far", "--url", pdf], 0),
        (vec!["endpoints", "remove", "far"], 0),
        (vec!["audit", "show"], 0),
        (
            vec!["audit", "export", "--format", "csv", "--out", "a.csv"],
            0,
        ),
    ] {
        place.run(&arguments).ends_with(code);
    }
    place
}

#[test]
fn what_the_program_puts_on_record_is_what_the_tables_ask_for() {
    let place = busy();
    let all = all_of(&place.path("home"));
    all.iter().for_each(check);
    let kinds: BTreeSet<String> = all.iter().map(|r| r.event.kind().meaning).collect();
    for kind in [
        "Application Start",
        "Application Stop",
        "Audit Log Used",
        "DICOM Instances Accessed",
        "Export",
        "Import",
        "Security Configuration",
        "Software Configuration",
    ] {
        assert!(kinds.contains(kind), "{kind} in {kinds:?}");
    }
    // A refused import and a refused change are on record as failed.
    let failed = |id| {
        let ended = all
            .iter()
            .filter(|r| r.act.starts_with("end:") && r.event.id == id);
        ended
            .filter(|r| r.event.outcome == Outcome::SeriousFailure)
            .count()
    };
    assert_eq!(
        (failed(EventId::Import), failed(EventId::SecurityAlert)),
        (1, 2)
    );
    check_by_schema(&all, &place.path("schema"));
    keep("program", &all);
}

/// For a check by other programs: tests/golden/audit/check.py.
pub fn keep(name: &str, records: &[Record]) {
    let Some(kept) = std::env::var_os("NEGATOSCOPE_KEEP_CASES") else {
        return;
    };
    let folder = Path::new(&kept).join("audit");
    fs::create_dir_all(&folder).unwrap();
    let write = |ending: &str, form: fn(&Record) -> String| {
        let lines: Vec<String> = records.iter().map(|record| form(record) + "\n").collect();
        fs::write(folder.join(format!("{name}.{ending}")), lines.concat()).unwrap();
    };
    write("xml", |record| atna_xml(record, "ws1"));
    write("ndjson", |record| fhir(record, "ws1").to_string());
}

#[test]
fn every_kind_of_alert_fits_its_table() {
    let mut alerts = Vec::new();
    for kind in [
        EventType::SecurityConfiguration,
        EventType::SoftwareConfiguration,
        EventType::NetworkConfiguration,
        EventType::AuditRecordingStarted,
        EventType::AuditRecordingStopped,
        EventType::UseOfRestrictedFunction,
    ] {
        for object in [ObjectKind::Model, ObjectKind::File, ObjectKind::AuditLog] {
            // A file's role is its way; an alert's subject is a resource.
            let object = ParticipantObject::new(object, "x");
            alerts.push(Record {
                seq: 1,
                act: "whole".to_owned(),
                event: AuditEvent::new(EventId::SecurityAlert, now_utc())
                    .of_type(kind)
                    .about(object),
                sha256: "ab".repeat(32),
            });
        }
    }
    alerts.iter().for_each(check);
    keep("alerts", &alerts);
}

#[test]
fn a_name_of_a_file_forges_no_line_and_steers_no_terminal() {
    let place = Place::new();
    let name = "a\u{1b}[2J\u{202e}\nnegatoscope: all is fine";
    let ran = place.run(&["convert", name, "--out", "b.nii.gz"]);
    ran.ends_with(1);
    let ran = place.run(&["convert", name, "--out", "b.nii.gz"]);
    assert!(ran.err.contains("all is fine"), "{}", ran.err);
    assert!(!ran.err.contains(['\u{1b}', '\u{202e}']), "{:?}", ran.err);
    let forged = ran
        .err
        .lines()
        .any(|line| line.starts_with("negatoscope: all"));
    assert!(!forged, "{}", ran.err);
    // What is on record shows what it holds, on one line for each record.
    let shown = place.run(&["audit", "show"]);
    assert!(!shown.out.contains(['\u{1b}', '\u{202e}']) && shown.out.contains("\\u{1b}"));
    let records = all_of(&place.path("home")).len();
    // The look itself is the newest record.
    assert_eq!(shown.out.lines().count() + 1, records);
}

/// The schema of PS3.15 A.5.1 by libxml2, where it is installed.
fn check_by_schema(all: &[Record], folder: &Path) {
    fs::create_dir(folder).unwrap();
    let files: Vec<PathBuf> = all
        .iter()
        .map(|record| {
            let path = folder.join(format!("{}.xml", record.seq));
            fs::write(&path, atna_xml(record, "ws1")).unwrap();
            path
        })
        .collect();
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/audit/message.rng");
    let validate = |files: &[PathBuf]| {
        let mut command = Command::new("xmllint");
        command
            .args(["--noout", "--nonet", "--relaxng"])
            .arg(&schema);
        command.args(files).output()
    };
    let Ok(valid) = validate(&files) else {
        println!("skipped: xmllint is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&valid.stderr);
    assert!(valid.status.success(), "{said}");
    // The schema refuses what is none: a message without an outcome.
    let bad = folder.join("bad.xml");
    let text = atna_xml(&all[0], "ws1");
    fs::write(&bad, text.replace("EventOutcomeIndicator", "Outcome")).unwrap();
    assert!(!validate(&[bad]).unwrap().status.success());
}

#[test]
fn a_program_that_was_killed_is_noticed_at_the_next_start() {
    let home = tempfile::tempdir().unwrap();
    let log = Log::open(home.path()).unwrap();
    let first = Session::start(&log, now_utc()).unwrap();
    let second = Session::start(&log, now_utc()).unwrap();
    second.stop(now_utc()).unwrap();
    // As a kill does it: the lock goes, the mark stays.
    let mark = |home: &Path| {
        fs::read_dir(home.join("audit"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| {
                path.file_name()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .starts_with("running-")
            })
    };
    let kept = mark(home.path()).unwrap();
    let number = fs::read(&kept).unwrap();
    std::mem::forget(first);
    // The handle of the first is still there: move the mark to a file that nobody holds.
    fs::remove_file(&kept).unwrap();
    fs::write(&kept, number).unwrap();
    let third = Session::start(&log, now_utc()).unwrap();
    third.stop(now_utc()).unwrap();
    assert_eq!(mark(home.path()), None);
    let all = all_of(home.path());
    let told: Vec<(String, String, u8)> = all
        .iter()
        .map(|r| {
            (
                r.act.clone(),
                r.event.kind().meaning,
                r.event.outcome.into(),
            )
        })
        .collect();
    let line = |act: &str, kind: &str, outcome| (act.to_owned(), kind.to_owned(), outcome);
    assert_eq!(
        told,
        [
            line("whole", "Audit Recording Started", 0),
            line("begin", "Application Start", 0),
            line("begin", "Application Start", 0),
            line("end:3", "Application Stop", 0),
            line("end:2", "Application Stop", 8),
            line("begin", "Application Start", 0),
            line("end:6", "Application Stop", 0),
        ]
    );
    all.iter().for_each(check);
    let verdict = verify(home.path()).unwrap();
    assert_eq!(verdict.finding(), Finding::Intact, "{verdict:?}");
}
