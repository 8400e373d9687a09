//! DICOM SR of a classifier's findings: round trip, independent readers, hostile files.

use std::fs;
use std::path::Path;
use std::process::Command;

use chrono::{DateTime, TimeZone, Utc};
use dicom_dictionary_std::tags;
use negatoscope::dicom::{self, ReadReportError, WriteError, read_report, write_report};
use negatoscope::findings::{
    Assessment, Call, Edit, Finding, OperatingPoint, Provenance, Review, ReviewState,
};
use negatoscope::redact::Sensitive;
use negatoscope::study::{CodedConcept, Issue, Uid};
use negatoscope::volume::{SourceImage, SourceSeries};

use crate::seg_export::{now, uids};

const DIGITAL_X_RAY: &str = "1.2.840.10008.5.1.4.1.1.1.1";

fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}

fn decided_at() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 3, 4, 4, 0, 1).unwrap()
}

fn decided(by: &str) -> Review {
    Review {
        by: Sensitive::new(by.to_owned()),
        at: decided_at(),
    }
}

pub fn assessment() -> Assessment {
    let image = |n: u32| {
        Some(SourceImage {
            sop_class_uid: uid(DIGITAL_X_RAY),
            sop_instance_uid: uid(&format!("1.2.3.4.{n}")),
            frame: None,
            number: None,
            position_lps: None,
            view: String::new(),
        })
    };
    Assessment {
        explanations: Vec::new(),
        findings: vec![
            Finding {
                name: "Pneumonia".into(),
                concept: Some(CodedConcept::new("233604007", "SCT", "Pneumonia")),
                probability: 0.937_123_456_789_012_3,
                calibrated: true,
                threshold: Some(0.41),
                operating_point: Some(OperatingPoint {
                    sensitivity: 0.96,
                    specificity: 0.883,
                    cases: [388, 135],
                }),
                call: Some(Call::Present),
                review: ReviewState::Accepted,
                reviewed: Some(decided("Dr. Ä. Reader")),
                edit: None,
            },
            Finding {
                name: "Bakteriell – größer \\ als".into(),
                concept: None,
                probability: 1.0 / 3.0,
                calibrated: false,
                threshold: Some(0.5),
                operating_point: None,
                call: Some(Call::NotSure),
                review: ReviewState::Rejected,
                reviewed: Some(decided("")),
                edit: None,
            },
            Finding {
                name: "Effusion".into(),
                concept: Some(CodedConcept::new("L7", "99NEGATOSCOPE", "Effusion")),
                probability: 0.0,
                calibrated: true,
                threshold: Some(1.0),
                operating_point: None,
                call: Some(Call::Absent),
                review: ReviewState::NotReviewed,
                reviewed: None,
                edit: None,
            },
            Finding {
                name: "Nodule".into(),
                concept: None,
                probability: 1.0,
                calibrated: true,
                threshold: None,
                operating_point: None,
                call: None,
                review: ReviewState::NotReviewed,
                reviewed: None,
                edit: None,
            },
        ],
        refused: vec!["the view is lateral, the model knows frontal ones".into()],
        source: SourceSeries {
            study_instance_uid: Some(uid("1.2.3.1")),
            series_instance_uid: Some(uid("1.2.3.2")),
            number: Some(3),
            patient_study: vec![
                ("PatientName".into(), Sensitive::new("Müller^Anna".into())),
                ("PatientID".into(), Sensitive::new("id 7".into())),
                ("StudyDate".into(), Sensitive::new("20260301".into())),
            ],
            images: vec![image(1), None, image(3)],
            ..SourceSeries::default()
        },
        image: 2,
        provenance: Provenance {
            model_id: "cxr/pneumonia".into(),
            model_name: "Pneumonia on children's radiographs, a name of more than forty characters"
                .into(),
            model_version: "1.2.0".into(),
            model_sha256: "ab".repeat(32),
            parameters: vec![("temperature".into(), "1.25".into())],
            ..Provenance::default()
        },
        issues: vec![
            Issue::DetectorSpacing,
            Issue::OutsideEnvelope {
                reason: "the patient is 44 years old".into(),
            },
        ],
    }
}

fn write(folder: &Path, a: &Assessment) -> std::path::PathBuf {
    let path = folder.join("report.dcm");
    write_report(&path, a, &mut uids(900), now()).unwrap();
    path
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 4.0 * f64::EPSILON
}

#[test]
fn a_report_read_back_holds_the_same_findings() {
    let folder = tempfile::tempdir().unwrap();
    let a = assessment();
    let read = read_report(&write(folder.path(), &a)).unwrap();
    assert_eq!(read.findings.len(), a.findings.len());
    for (read, f) in read.findings.iter().zip(&a.findings) {
        let found = &read.finding;
        assert_eq!(found.name, f.name.replace('\\', "/"));
        assert_eq!(found.concept, f.concept, "{}", f.name);
        assert!(near(found.probability, f.probability), "{}", f.name);
        assert_eq!(found.calibrated, f.calibrated);
        assert_eq!(found.threshold.is_some(), f.threshold.is_some());
        for (x, y) in found.threshold.iter().zip(f.threshold) {
            assert!(near(*x, y));
        }
        assert_eq!(found.operating_point.is_some(), f.operating_point.is_some());
        for (x, y) in found.operating_point.iter().zip(f.operating_point) {
            assert!(near(x.sensitivity, y.sensitivity) && near(x.specificity, y.specificity));
            assert_eq!(x.cases, y.cases);
        }
        assert_eq!(found.call, f.call);
        assert_eq!(found.review, f.review);
        assert_eq!(found.reviewed, f.reviewed);
        assert_eq!(found.edit, f.edit);
        assert!(read.tracking_uid.is_some());
        assert_eq!(read.model_name, a.provenance.model_name);
        assert_eq!(read.model_version, "1.2.0");
        assert_eq!(read.images, [uid("1.2.3.4.3")]);
    }
    assert_eq!(read.study_instance_uid, Some(uid("1.2.3.1")));
    assert_eq!(read.evidence, [uid("1.2.3.4.3")]);
    assert_eq!(read.refused, a.refused);
    assert_eq!(read.comments[0], negatoscope::RESEARCH_USE);
    assert_eq!(read.comments.len(), 3);
    assert!(read.comments[2].contains("44 years"));
    assert!(!read.complete && !read.verified);
    assert!(
        read.description.ends_with("(partly reviewed)"),
        "{}",
        read.description
    );
    // Decisions that were taken back are not told.
    let mut a = a;
    for f in &mut a.findings {
        f.review = ReviewState::NotReviewed;
    }
    let read = read_report(&write(folder.path(), &a)).unwrap();
    assert!(read.findings.iter().all(|f| f.finding.reviewed.is_none()));
    assert!(read.description.ends_with("(not reviewed)"));
}

#[test]
fn a_report_is_complete_when_every_finding_was_decided_on_but_never_verified() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = assessment();
    for f in &mut a.findings {
        f.review = ReviewState::Accepted;
    }
    let path = write(folder.path(), &a);
    let read = read_report(&path).unwrap();
    assert!(read.complete && !read.verified);
    assert!(read.description.ends_with("(reviewed)"));
    let object = dicom_object::open_file(&path).unwrap();
    let flag = |tag| object.element(tag).unwrap().to_str().unwrap().to_string();
    assert_eq!(flag(tags::VERIFICATION_FLAG), "UNVERIFIED");
    assert_eq!(flag(tags::PRELIMINARY_FLAG), "PRELIMINARY");
    assert_eq!(flag(tags::PATIENT_NAME), "Müller^Anna");
    assert_eq!(flag(tags::STUDY_INSTANCE_UID), "1.2.3.1");
    assert_ne!(flag(tags::SERIES_INSTANCE_UID), "1.2.3.2");
}

#[test]
fn what_a_reader_says_stands_beside_what_the_model_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = assessment();
    let edit = Edit {
        call: Call::Absent,
        comment: Sensitive::new("shadow of the thymus, größer als üblich".to_owned()),
    };
    a.findings[0].decide(
        ReviewState::Edited,
        Some(edit.clone()),
        Some(decided("Dr. Ä. Reader")),
    );
    let path = write(folder.path(), &a);
    let read = read_report(&path).unwrap();
    let found = &read.findings[0].finding;
    assert_eq!(found.review, ReviewState::Edited);
    assert_eq!(found.edit, Some(edit));
    assert_eq!(found.reviewed, Some(decided("Dr. Ä. Reader")));
    // The model's call and number are as before.
    assert_eq!(found.call, Some(Call::Present));
    assert!(near(found.probability, a.findings[0].probability));
    // An edit that lost what the reader said must not read as the model's call.
    let bytes = fs::read(&path).unwrap();
    let at = (bytes.windows(10).position(|w| w == b"READERCALL")).unwrap();
    let mut changed = bytes.clone();
    changed[at] = b'X';
    fs::write(&path, &changed).unwrap();
    let error = read_report(&path).unwrap_err();
    assert!(
        matches!(error, ReadReportError::Item { finding: 1, .. }),
        "{error}"
    );
    // A decision that was taken back leaves no trace.
    a.findings[0].decide(ReviewState::NotReviewed, None, Some(decided("X")));
    assert_eq!(a.findings[0].reviewed, None);
    assert_eq!(a.findings[0].edit, None);
}

#[test]
fn a_refusal_is_a_report_without_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = assessment();
    a.findings.clear();
    let read = read_report(&write(folder.path(), &a)).unwrap();
    assert!(read.findings.is_empty() && !read.complete);
    assert_eq!(read.refused, a.refused);
}

#[test]
fn what_cannot_be_a_report_is_refused_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.dcm");
    let refused = |change: &dyn Fn(&mut Assessment)| {
        let mut a = assessment();
        change(&mut a);
        let error = write_report(&path, &a, &mut uids(1), now()).unwrap_err();
        assert!(!path.exists());
        error
    };
    let e = refused(&|a| a.source.study_instance_uid = None);
    assert!(matches!(e, WriteError::NoStudy), "{e}");
    for image in [1, 3] {
        let e = refused(&|a| a.image = image);
        assert!(matches!(e, WriteError::NoSourceImage { .. }), "{e}");
    }
    for value in [f64::NAN, -0.1, 1.01, f64::INFINITY] {
        let e = refused(&|a| a.findings[1].probability = value);
        assert!(matches!(e, WriteError::NotAProbability { finding: 2, .. }));
        let e = refused(&|a| a.findings[0].threshold = Some(value));
        assert!(matches!(e, WriteError::NotAProbability { finding: 1, .. }));
    }
}

#[test]
fn an_independent_reader_finds_every_number_and_code() {
    let Some(python) = std::env::var_os("NEGATOSCOPE_PYTHON") else {
        println!("skipped: NEGATOSCOPE_PYTHON is not set (a Python with highdicom)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("NEGATOSCOPE_KEEP_CASES");
    let folder = kept.map_or_else(|| folder.path().to_owned(), Into::into);
    let a = assessment();
    let path = write(&folder, &a);
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/report/check_with_highdicom.py");
    let done = Command::new(python)
        .arg(script)
        .arg(&path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    let wrong = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}{wrong}");
    let lines: Vec<&str> = said.lines().collect();
    let has = |line: &str| assert!(lines.contains(&line), "{line}\n{said}");
    has("template 1500");
    has("flags PARTIAL UNVERIFIED PRELIMINARY");
    has(&format!(
        "evidence 1.2.3.1 1.2.3.2 {DIGITAL_X_RAY} 1.2.3.4.3"
    ));
    has("group Pneumonia | SCT 233604007");
    has("group Effusion | 99NEGATOSCOPE L7");
    has("number 99NEGATOSCOPE THRESHOLD 41.0 % -");
    has("number 99NEGATOSCOPE SENSITIVITY 96.0 % -");
    has("number 99NEGATOSCOPE CASESWITH 388.0 1 -");
    has("code 99NEGATOSCOPE CALL SCT 52101004");
    has("code 99NEGATOSCOPE CALL SCT 373068000");
    has("code 99NEGATOSCOPE CALL SCT 272519000");
    has("code 99NEGATOSCOPE REVIEW 99NEGATOSCOPE REJECTED");
    has("text 111003 1.2.0");
    has(&format!("text 111002 weights sha256={}", "ab".repeat(32)));
    has("text 111002 temperature=1.25");
    has(&format!("text 121106 {}", negatoscope::RESEARCH_USE));
    has(&format!("text REFUSED {}", a.refused[0]));
    has("person Dr. Ä. Reader");
    has("time 20260304040001+0000");
    assert_eq!(
        lines.iter().filter(|l| **l == "source 1.2.3.4.3").count(),
        4
    );
    let numbers: Vec<(f64, &str)> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("number DCM 111012 "))
        .map(|rest| rest.split_once(" % ").unwrap())
        .map(|(number, method)| (number.parse().unwrap(), method))
        .collect();
    assert_eq!(numbers.len(), a.findings.len());
    for ((percent, method), f) in numbers.iter().zip(&a.findings) {
        assert!((percent / 100.0 - f.probability).abs() < 1e-14, "{said}");
        assert_eq!(*method, if f.calibrated { "CALIBRATED" } else { "SCORE" });
    }
}

#[test]
fn altered_reports_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &assessment());
    let bytes = fs::read(&path).unwrap();
    let other = folder.path().join("t.dcm");
    let mut read = 0;
    for n in 0..3000_usize {
        let mut changed = bytes.clone();
        if n % 3 > 0 {
            let at = 132 + n * 104_729 % (bytes.len() - 132);
            changed[at] = changed[at].wrapping_add((n % 255) as u8 + 1);
        } else {
            changed.truncate(n * 7919 % bytes.len());
        }
        fs::write(&other, &changed).unwrap();
        if let Ok(report) = read_report(&other) {
            read += 1;
            for f in &report.findings {
                assert!((0.0..=1.0).contains(&f.finding.probability));
            }
        }
    }
    // Most altered bytes are in texts; a cut file is never half a report.
    assert!((100..2000).contains(&read), "{read}");
}

#[test]
fn a_cut_report_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &assessment());
    let bytes = fs::read(&path).unwrap();
    for length in (1..bytes.len() - 8).step_by(97) {
        fs::write(&path, &bytes[..length]).unwrap();
        let whole = read_report(&path);
        assert!(whole.is_err(), "{length} of {}", bytes.len());
    }
}

#[test]
fn other_objects_are_no_reports() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.dcm");
    let volume = crate::seg_export::volume(&crate::seg_export::stacks()[0]);
    let seg = crate::seg_export::segmentation(&volume);
    dicom::write_segmentation(&path, &seg, &mut uids(50), now()).unwrap();
    let e = read_report(&path).unwrap_err();
    assert!(matches!(e, ReadReportError::NotAReport { .. }), "{e}");
}

#[test]
fn hostile_files_are_refused_as_reports() {
    let Some(data) = std::env::var_os("NEGATOSCOPE_TEST_DATA") else {
        println!("skipped: NEGATOSCOPE_TEST_DATA is not set");
        return;
    };
    let mut count = 0;
    for entry in walkdir::WalkDir::new(Path::new(&data).join("malformed")) {
        let entry = entry.unwrap();
        if entry.file_type().is_file() {
            count += 1;
            assert!(read_report(entry.path()).is_err());
        }
    }
    assert!(count > 30);
}
