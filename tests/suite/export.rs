//! Results as files: what stands in them, and that they are all there or none.

use std::fs;
use std::path::Path;
use std::process::Command;

use negatoscope::audit::{AuditEvent, EventId, Log, Receipt};
use negatoscope::export::{Error, Format, Written, write_results};
use negatoscope::geometry::DVec3;
use negatoscope::nifti;
use negatoscope::study::Issue;
use negatoscope::task::Task;

use crate::seg_export::{now, segmentation, stacks, uids, volume};

fn receipt() -> Receipt {
    let home = tempfile::tempdir().unwrap();
    let log = Log::open(home.path()).unwrap();
    log.append(&AuditEvent::new(EventId::Export, now()))
        .unwrap()
}

fn export(
    folder: &Path,
    formats: &[Format],
    change: impl FnOnce(&mut negatoscope::volume::Volume, &mut negatoscope::findings::Segmentation),
) -> Result<Vec<Written>, Error> {
    let mut volume = volume(&stacks()[0]);
    let mut segmentation = segmentation(&volume);
    change(&mut volume, &mut segmentation);
    write_results(
        &segmentation,
        &volume,
        formats,
        folder,
        &mut uids(50),
        now(),
        &receipt(),
    )
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn sha256(bytes: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
    let words: Vec<String> = hash.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    words.concat()
}

#[test]
fn a_result_is_four_files_with_their_hashes() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new/result");
    let written = export(&out, &Format::ALL, |_, _| {}).unwrap();
    assert_eq!(
        names(&out),
        [
            "measurements.csv",
            "result.json",
            "segmentation.dcm",
            "segmentation.nii.gz"
        ]
    );
    for file in &written {
        let bytes = fs::read(&file.path).unwrap();
        assert_eq!(
            (file.bytes, &file.sha256),
            (bytes.len() as u64, &sha256(&bytes))
        );
    }
    let text = fs::read_to_string(out.join("result.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["notice"], "Research use – not for diagnostic use");
    assert_eq!(json["model"]["id"], "phantom-organs");
    assert_eq!(json["model"]["sha256"], "ab".repeat(32));
    assert_eq!(json["run"]["device"], "cpu (test)");
    assert_eq!(json["run"]["parameters"]["threshold"], "0.5");
    assert_eq!(json["written"], "2026-03-04T05:06:07Z");
    assert_eq!(json["input"]["series_instance_uid"], "2.25.12");
    assert_eq!(json["input"]["instances"].as_array().unwrap().len(), 5);
    assert_eq!(json["issues"][0]["code"], "synthetic");
    assert_eq!(json["audit"]["record"], 1);
    let files = json["files"].as_array().unwrap();
    assert_eq!(files.len(), 3);
    for (file, kept) in files.iter().zip(&written) {
        assert_eq!(file["sha256"], kept.sha256);
        assert_eq!(file["format"], kept.format.name());
    }
    // Patient data has no place in the record.
    assert!(!text.contains("Anna") && !text.contains("P-1") && !text.contains("20260102"));
}

#[test]
fn measurements_follow_their_definition() {
    let folder = tempfile::tempdir().unwrap();
    export(folder.path(), &[Format::Csv], |volume, _| {
        volume.issues.clear();
    })
    .unwrap();
    let mut reader = csv::Reader::from_path(folder.path().join("measurements.csv")).unwrap();
    let head = "label,name,voxels,volume_ml,mean,sd,min,max,unit,centroid_l_mm,centroid_p_mm,centroid_h_mm";
    assert_eq!(
        reader
            .headers()
            .unwrap()
            .iter()
            .collect::<Vec<_>>()
            .join(","),
        head
    );
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let volume = volume(&stacks()[0]);
    let map = segmentation(&volume).map;
    for (row, label) in rows.iter().zip([1_u8, 2, 5]) {
        let members: Vec<usize> = (0..map.labels.len())
            .filter(|&n| map.labels[n] == label)
            .collect();
        let n = members.len() as f64;
        let values: Vec<f64> = members
            .iter()
            .map(|&n| f64::from(volume.value(n)))
            .collect();
        let mean = values.iter().sum::<f64>() / n;
        let sd = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
        let centroid = members
            .iter()
            .map(|&n| {
                volume.geometry.lps_at(DVec3::new(
                    (n % 13) as f64,
                    (n / 13 % 7) as f64,
                    (n / 91) as f64,
                ))
            })
            .sum::<DVec3>()
            / n;
        let number = |column: usize| row[column].parse::<f64>().unwrap();
        assert_eq!(row[0], label.to_string());
        assert_eq!(row[2], members.len().to_string());
        // Volume of a voxel: 0.7 × 0.9 × 2.5 mm³. Tolerances: half of the last digit written.
        assert!((number(3) - n * 1.575e-3).abs() < 6e-7);
        assert!((number(4) - mean).abs() < 6e-5);
        assert!((number(5) - sd).abs() < 6e-5);
        assert_eq!(
            number(6),
            values.iter().copied().fold(f64::INFINITY, f64::min)
        );
        assert_eq!(
            number(7),
            values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
        );
        assert_eq!(&row[8], "HU");
        let place = DVec3::new(number(9), number(10), number(11));
        assert!(place.distance(centroid) < 1e-3);
    }
    assert_eq!(rows.len(), 3);
}

#[test]
fn clinical_laterality_the_nifti_label_map_lies_on_the_volume() {
    let folder = tempfile::tempdir().unwrap();
    export(folder.path(), &[Format::Nifti], |_, _| {}).unwrap();
    let back =
        nifti::read_label_map(&folder.path().join("segmentation.nii.gz"), &Task::new()).unwrap();
    let volume = volume(&stacks()[0]);
    assert!(back.geometry.same_grid(&volume.geometry, 1e-3)); // f32 in the file
    assert_eq!(back.labels, segmentation(&volume).map.labels);
}

#[test]
fn a_segment_that_was_not_found_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    export(folder.path(), &Format::ALL, |_, s| {
        for label in &mut s.map.labels {
            if *label == 5 {
                *label = 0;
            }
        }
    })
    .unwrap();
    let table = fs::read_to_string(folder.path().join("measurements.csv")).unwrap();
    assert!(
        table
            .lines()
            .any(|l| l == "5,Gallbladder,0,0.000000,,,,,HU,,,"),
        "{table}"
    );
}

#[test]
fn a_name_from_a_model_cannot_run_in_a_spreadsheet() {
    let folder = tempfile::tempdir().unwrap();
    export(folder.path(), &[Format::Csv], |_, s| {
        s.segments[0].name = "=HYPERLINK(\"http://x\",\"y\"),\nz".into();
    })
    .unwrap();
    let mut reader = csv::Reader::from_path(folder.path().join("measurements.csv")).unwrap();
    let first = reader.records().next().unwrap().unwrap();
    assert!(first[1].starts_with("'=HYPERLINK"));
}

#[test]
fn a_refused_format_leaves_nothing_of_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let error = export(folder.path(), &Format::ALL, |v, s| {
        v.source.study_instance_uid = None;
        s.source.study_instance_uid = None;
    })
    .unwrap_err();
    assert!(matches!(error, Error::Segmentation(_)), "{error}");
    assert_eq!(names(folder.path()), [] as [&str; 0]);
    let mut v = volume(&stacks()[0]);
    assert!(Format::Seg.suits(&v));
    v.issues.push(Issue::NoGeometry);
    assert!(!Format::Seg.suits(&v) && Format::Csv.suits(&v));
}

#[test]
fn a_map_on_another_grid_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let volume = volume(&stacks()[0]);
    let other = segmentation(&crate::seg_export::volume(&stacks()[1]));
    let error = write_results(
        &other,
        &volume,
        &Format::ALL,
        folder.path(),
        &mut uids(1),
        now(),
        &receipt(),
    );
    assert!(matches!(error, Err(Error::GridMismatch { .. })));
}

#[test]
fn an_older_result_is_replaced_or_stays_whole() {
    let folder = tempfile::tempdir().unwrap();
    export(folder.path(), &Format::ALL, |_, _| {}).unwrap();
    let before = fs::read(folder.path().join("segmentation.dcm")).unwrap();
    export(folder.path(), &Format::ALL, |_, s| s.segments.truncate(1)).unwrap_err();
    assert_eq!(
        fs::read(folder.path().join("segmentation.dcm")).unwrap(),
        before
    );
    export(folder.path(), &Format::ALL, |_, s| {
        s.provenance.model_version = "2".into();
    })
    .unwrap();
    assert_ne!(
        fs::read(folder.path().join("segmentation.dcm")).unwrap(),
        before
    );
    assert_eq!(names(folder.path()).len(), 4);
}

/// The part of the test below that runs in a process of its own, where files end at 4 KiB as soon
/// as the log has taken the event.
#[test]
#[cfg(unix)]
fn child_with_a_full_disk() {
    let Some(folder) = std::env::var_os("NEGATOSCOPE_TEST_FULL_DISK") else {
        return;
    };
    let volume = volume(&stacks()[0]);
    let segmentation = segmentation(&volume);
    let log = Log::open(&Path::new(&folder).join("home")).unwrap();
    let receipt = log
        .append(&AuditEvent::new(EventId::Export, now()))
        .unwrap();
    let out = Path::new(&folder).join("out");
    let limit = rustix::process::Rlimit {
        current: Some(4096),
        ..rustix::process::getrlimit(rustix::process::Resource::Fsize)
    };
    rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
    let error = write_results(
        &segmentation,
        &volume,
        &Format::ALL,
        &out,
        &mut uids(1),
        now(),
        &receipt,
    )
    .unwrap_err();
    let Error::Io {
        action: "writing",
        path,
        ..
    } = &error
    else {
        panic!("{error:?}")
    };
    println!("refused {}", path.display());
}

#[test]
#[cfg(unix)]
fn a_full_disk_is_told_with_the_name_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // A limit on file size meets every writer as a full disk does: with an error in mid-write.
    let done = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["export::child_with_a_full_disk", "--exact", "--nocapture"])
        .env("NEGATOSCOPE_TEST_FULL_DISK", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(
        said.contains("refused") && said.contains("segmentation.dcm"),
        "{said}"
    );
    assert_eq!(names(&folder.path().join("out")), [] as [&str; 0]);
}
