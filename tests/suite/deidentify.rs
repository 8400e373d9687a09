//! De-identification: planted identities, references, every row of the table, real files.
#![expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "VRs are written as byte strings"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use chrono::DateTime;
use negatoscope::audit::{AuditEvent, EventId, Log, Receipt};
use negatoscope::deidentify::{
    Action, Dates, Key, Options, PixelWork, Report, Request, Row, clean, rows, run,
};
use negatoscope::dicom::{Sources, Tree, TreeNode, TreeValue, decode_file, standard_vr};
use negatoscope::task::Task;
use walkdir::WalkDir;

use crate::deidentify_objects::{DATES, KINDS, MARK, OLD_ROOT, Object, instance_uid, plant};

pub fn receipt(home: &Path) -> Receipt {
    let event = AuditEvent::new(EventId::Export, DateTime::UNIX_EPOCH);
    Log::open(home).unwrap().append(&event).unwrap()
}

fn key() -> Key {
    Key::new(&[7; 32])
}

fn everything() -> Options {
    Options {
        dates: Dates::Modified,
        characteristics: true,
        descriptors: true,
        structured: true,
        graphics: true,
        private: true,
        ..Options::default()
    }
}

fn deidentify(input: &Path, out: &Path, home: &Path, options: Options, allow: bool) -> Report {
    let request = Request {
        inputs: &[input.to_owned()],
        out,
        options,
        allow_burned_in: allow,
        pixel_work: PixelWork::default(),
        key: &key(),
    };
    run(&request, &receipt(home), &Task::new()).unwrap()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    WalkDir::new(folder)
        .sort_by_file_name()
        .into_iter()
        .map(Result::unwrap)
        .filter(|e| e.file_type().is_file())
        .map(walkdir::DirEntry::into_path)
        .collect()
}

/// Every way in which a planted identity could still be there.
fn leaks(bytes: &[u8]) -> Vec<String> {
    let lower = bytes.to_ascii_lowercase();
    let mut needles: Vec<(String, Vec<u8>)> = vec![
        ("marker".into(), MARK.into()),
        ("old UID".into(), OLD_ROOT.into()),
    ];
    for date in DATES {
        needles.push((format!("date {date}"), date.into()));
    }
    for text in ["Дмитрий", "山田", "Дми", "王小", "üéß"] {
        needles.push((text.into(), text.to_lowercase().into()));
        needles.push((text.into(), text.into()));
    }
    let wide = |big: bool| {
        let unit = move |u: u16| {
            if big {
                u.to_be_bytes()
            } else {
                u.to_le_bytes()
            }
        };
        MARK.encode_utf16().flat_map(unit).collect::<Vec<u8>>()
    };
    needles.push(("marker in UTF-16".into(), wide(false)));
    needles.push(("marker in UTF-16".into(), wide(true)));
    needles
        .into_iter()
        .filter(|(_, needle)| lower.windows(needle.len()).any(|part| part == &needle[..]))
        .map(|(what, _)| what)
        .collect()
}

fn assert_clean(what: &str, bytes: &[u8]) {
    let found = leaks(bytes);
    assert!(found.is_empty(), "{what}: {found:?}");
}

#[test]
fn no_planted_identity_is_left_anywhere() {
    let temporary = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("NEGATOSCOPE_KEEP_CASES");
    let folder = kept.map_or_else(
        || temporary.path().to_owned(),
        |kept| Path::new(&kept).join("planted"),
    );
    let input = folder.join("in");
    let planted = plant(&input, 220);
    assert!(planted >= 2000, "{planted}");
    assert!(KINDS.len() >= 15);
    // The scan finds what it looks for.
    for file in files(&input) {
        assert!(leaks(&fs::read(&file).unwrap()).contains(&"marker".to_owned()));
    }
    for (name, options) in [("basic", Options::default()), ("most", everything())] {
        let (out, home) = (folder.join(name), folder.join("home"));
        let report = deidentify(&input, &out, &home, options, true);
        // Documents alone cannot be cleaned.
        assert_eq!(report.refused.len(), 11, "{:?}", report.refused);
        assert_eq!(report.written, 209, "{report:?}");
        assert_clean(
            "the report",
            serde_json::to_string(&report).unwrap().as_bytes(),
        );
        for path in files(&out) {
            let place = path.strip_prefix(&out).unwrap().display().to_string();
            assert_clean("a file name", place.as_bytes());
            assert_clean(&place, &fs::read(&path).unwrap());
            let tree = Tree::read(fs::read(&path).unwrap()).unwrap();
            assert_eq!(tree.text_of(0x0012_0062), "YES");
            assert!(tree.find(0x0012_0064).is_some());
            assert!(tree.text_of(0x0010_0010).starts_with("NS"));
        }
        for path in files(&home) {
            assert_clean("the log", &fs::read(&path).unwrap());
        }
        println!(
            "{planted} markers in 220 objects of {} kinds, {name}: none left in {} files",
            KINDS.len(),
            files(&out).len()
        );
    }
}

#[test]
fn pixels_that_may_show_text_are_held_back() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in");
    plant(&input, KINDS.len());
    let (out, home) = (folder.path().join("out"), folder.path().join("home"));
    let report = deidentify(&input, &out, &home, Options::default(), false);
    // CR, DX, MG, US, SC and XA; the document is refused.
    assert_eq!(report.held_back.len(), 6, "{:?}", report.held_back);
    assert_eq!(report.refused.len(), 1);
    assert_eq!(report.written, 13);
    assert_eq!(files(&out).len(), 13);
    assert!(report.held_back.iter().all(|line| !line.reason.is_empty()));
}

fn tree_of(out: &Path, class: &str) -> Vec<Tree> {
    files(out)
        .into_iter()
        .map(|path| Tree::read(fs::read(path).unwrap()).unwrap())
        .filter(|tree| tree.text_of(0x0008_0016) == class)
        .collect()
}

fn texts(tree: &Tree, nodes: &[TreeNode], tag: u32, into: &mut Vec<String>) {
    for node in nodes {
        if node.tag == tag {
            into.push(tree.text(node));
        }
        if let TreeValue::Items(items) = &node.value {
            for item in items {
                texts(tree, item, tag, into);
            }
        }
    }
}

#[test]
fn references_lead_to_the_new_uids_and_a_second_run_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in");
    plant(&input, 40);
    let (out, home) = (folder.path().join("out"), folder.path().join("home"));
    let first = deidentify(&input, &out, &home, everything(), true);
    let image = key().uid(&instance_uid(0));
    let ct = tree_of(&out, "1.2.840.10008.5.1.4.1.1.2");
    assert!(ct.iter().any(|t| t.text_of(0x0008_0018) == image.as_str()));
    for class in ["88.33", "88.59", "66.4", "481.3"] {
        let found = tree_of(&out, &format!("1.2.840.10008.5.1.4.1.1.{class}"));
        assert!(!found.is_empty(), "{class}");
        for tree in found {
            let mut uids = Vec::new();
            texts(&tree, &tree.root, 0x0008_1155, &mut uids);
            assert!(!uids.is_empty());
            assert!(uids.iter().all(|u| u == image.as_str()), "{class} {uids:?}");
        }
    }
    // A file that was lost is written again; the others are known.
    let before: BTreeMap<PathBuf, Vec<u8>> = files(&out)
        .into_iter()
        .map(|p| (p.clone(), fs::read(p).unwrap()))
        .collect();
    let lost = before.keys().next().unwrap();
    fs::remove_file(lost).unwrap();
    fs::write(lost.with_file_name(".1.dcm.4194300-0.part"), b"half").unwrap();
    let second = deidentify(&input, &out, &home, everything(), true);
    assert_eq!(
        (second.written, second.already_there),
        (1, first.written - 1)
    );
    let after: BTreeMap<PathBuf, Vec<u8>> = files(&out)
        .into_iter()
        .map(|p| (p.clone(), fs::read(p).unwrap()))
        .collect();
    assert!(before == after, "the same bytes under the same names");
    // Other options do not overwrite.
    let other = deidentify(&input, &out, &home, Options::default(), true);
    assert_eq!(other.written, 0);
    assert!(before.iter().all(|(p, b)| fs::read(p).unwrap() == *b));
}

#[test]
fn what_is_read_is_never_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in");
    plant(&input, 2);
    for out in [
        input.clone(),
        input.join("new/deep"),
        folder.path().to_owned(),
    ] {
        let request = Request {
            inputs: std::slice::from_ref(&input),
            out: &out,
            options: Options::default(),
            allow_burned_in: false,
            pixel_work: PixelWork::default(),
            key: &key(),
        };
        let receipt = receipt(&tempfile::tempdir().unwrap().path().join("home"));
        let error = run(&request, &receipt, &Task::new()).unwrap_err();
        assert!(
            error.to_string().contains("lies in what is read"),
            "{error}"
        );
    }
}

#[test]
fn a_file_cut_at_any_place_is_refused_or_whole() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path(), 1);
    let bytes = fs::read(&files(folder.path())[0]).unwrap();
    let mut refused = 0;
    for length in (0..bytes.len()).step_by(7) {
        match Tree::read(bytes[..length].to_vec()) {
            Err(_) => refused += 1,
            Ok(tree) => {
                if let Ok(cleaned) = clean(tree, &Options::default(), &key()) {
                    let mut out = Vec::new();
                    let uid = &cleaned.uids[2];
                    let class = &cleaned.sop_class_uid;
                    cleaned.tree.write(&mut out, class, uid).unwrap();
                    assert_clean("a cut file", &out);
                }
            }
        }
    }
    assert!(refused > bytes.len() / 7 / 2, "{refused}");
}

const OLD: &str = "Qzvorig";

fn value_of(vr: &[u8; 2]) -> Vec<u8> {
    match vr {
        b"DA" => b"18930607".to_vec(),
        b"TM" => b"101113".to_vec(),
        b"DT" => b"18930607101113".to_vec(),
        b"AS" => b"045Y".to_vec(),
        b"DS" | b"IS" => b"77".to_vec(),
        b"UI" => format!("{OLD_ROOT}3").into_bytes(),
        b"US" | b"SS" => vec![9, 9],
        b"UL" | b"SL" | b"FL" | b"AT" => vec![9; 4],
        b"FD" => vec![9; 8],
        b"CS" | b"AE" | b"SH" => b"QZVORIG".to_vec(),
        _ => OLD.as_bytes().to_vec(),
    }
}

/// An SC-like object with one attribute of the table, nothing else about a person.
fn with_row(tag: u32, vr: &[u8; 2], class: &str) -> Object {
    let mut o = Object::default();
    o.put(0x0008_0016, b"UI", class)
        .put(0x0008_0018, b"UI", "1.2.3.4.1")
        .put(0x0020_000D, b"UI", "1.2.3.4.2")
        .put(0x0020_000E, b"UI", "1.2.3.4.3");
    if vr == b"SQ" {
        let mut item = Object::default();
        item.put(0x0008_0090, b"PN", OLD);
        o.items(tag, vec![item]);
    } else {
        o.put(tag, vr, value_of(vr));
    }
    o
}

fn tags_of(row: &Row) -> Vec<u32> {
    match row.tag {
        "50xxxxxx" => vec![0x5000_3000, 0x501E_0022],
        "60xx3000" => vec![0x6000_3000, 0x601E_3000],
        "60xx4000" => vec![0x6000_4000, 0x6002_4000],
        "private" => vec![0x0009_0010, 0x0029_1001],
        tag => vec![u32::from_str_radix(tag, 16).unwrap()],
    }
}

/// The new element of a tag, or `None`; with the bytes of the file.
fn cleaned(
    object: &Object,
    tag: u32,
    options: &Options,
) -> Option<(Option<TreeNode>, Vec<u8>, Tree)> {
    let tree = Tree::read(object.file(true, "", "")).unwrap();
    let cleaned = clean(tree, options, &key()).ok()?;
    let mut out = Vec::new();
    cleaned
        .tree
        .write(&mut out, &cleaned.sop_class_uid, &cleaned.uids[2])
        .unwrap();
    let tree = Tree::read(out.clone()).unwrap();
    let node = tree.find(tag).cloned();
    Some((node, out, tree))
}

/// Literal: what PS3.15 table E.1-1a says of each code, held against the file that was written.
#[test]
fn every_row_of_the_table_does_what_its_code_says() {
    let single = "1.2.840.10008.5.1.4.1.1.2";
    let report = "1.2.840.10008.5.1.4.1.1.88.33";
    let mut checked = 0;
    for class in [single, report] {
        for row in rows() {
            for tag in tags_of(row) {
                let vr = standard_vr(tag).unwrap_or(match row.action {
                    Action::U => *b"UI",
                    _ => *b"LO",
                });
                let object = with_row(tag, &vr, class);
                let Some((node, bytes, tree)) = cleaned(&object, tag, &Options::default()) else {
                    // An encapsulated document, and records of a directory.
                    assert!(matches!(tag, 0x0042_0011), "{tag:08x}");
                    continue;
                };
                let what = format!("{} {} in {class}", row.tag, row.name);
                let lower = bytes.to_ascii_lowercase();
                assert!(!lower.windows(4).any(|p| p == b"qzvo"), "{what}");
                assert!(
                    !lower.windows(14).any(|p| p == OLD_ROOT.as_bytes()),
                    "{what}"
                );
                let meta = tag >> 16 < 8;
                let old = value_of(&vr);
                let value = node.as_ref().map(|n| tree.bytes(n).to_vec());
                let items = node.as_ref().and_then(|n| match &n.value {
                    TreeValue::Items(items) => Some(items.len()),
                    _ => None,
                });
                let gone = node.is_none();
                let empty = items == Some(0) || items.is_none() && value.as_deref() == Some(b"");
                let dummy = items.is_some_and(|n| n > 0)
                    || value
                        .as_ref()
                        .is_some_and(|v| !v.is_empty() && !v.starts_with(&old));
                let renamed = value.as_ref().is_some_and(|v| {
                    let uid = key().uid(&format!("{OLD_ROOT}3"));
                    v.starts_with(uid.as_str().as_bytes())
                });
                let written_anew = matches!(tag, 0x0010_0010 | 0x0010_0020);
                let own = matches!(tag, 0x0008_0018 | 0x0020_000D | 0x0020_000E);
                let right = match row.action {
                    _ if written_anew => dummy,
                    _ if meta => gone,
                    Action::X => gone,
                    Action::Z => empty,
                    Action::D => dummy,
                    Action::U => renamed || own && dummy,
                    Action::ZD => empty || dummy,
                    Action::XZ => gone || empty,
                    Action::XD => gone || dummy,
                    Action::XZD | Action::XZU => gone || empty || dummy,
                };
                assert!(right, "{what}: {node:?}");
                checked += 1;
            }
        }
    }
    assert!(checked >= 2 * 656 - 2, "{checked}");
    println!("{checked} rows checked");
}

/// K keeps the value to the byte; C never lets the old text through.
#[test]
fn every_option_does_what_its_column_says() {
    let all: [(&str, Options); 10] = [
        (
            "uids",
            Options {
                uids: true,
                ..Options::default()
            },
        ),
        (
            "device",
            Options {
                device: true,
                ..Options::default()
            },
        ),
        (
            "institution",
            Options {
                institution: true,
                ..Options::default()
            },
        ),
        (
            "characteristics",
            Options {
                characteristics: true,
                ..Options::default()
            },
        ),
        (
            "full",
            Options {
                dates: Dates::Full,
                ..Options::default()
            },
        ),
        (
            "modified",
            Options {
                dates: Dates::Modified,
                ..Options::default()
            },
        ),
        (
            "descriptors",
            Options {
                descriptors: true,
                ..Options::default()
            },
        ),
        (
            "structured",
            Options {
                structured: true,
                ..Options::default()
            },
        ),
        (
            "graphics",
            Options {
                graphics: true,
                ..Options::default()
            },
        ),
        (
            "private",
            Options {
                private: true,
                ..Options::default()
            },
        ),
    ];
    let (mut kept, mut cleaned_rows) = (0, 0);
    for row in rows() {
        for &(name, does) in &row.options {
            let options = all.iter().find(|(n, _)| *n == name).unwrap().1;
            for tag in tags_of(row) {
                if tag >> 16 < 8 {
                    continue;
                }
                let vr = standard_vr(tag).unwrap_or(if name == "uids" { *b"UI" } else { *b"DT" });
                let mut object = with_row(tag, &vr, "1.2.840.10008.5.1.4.1.1.88.33");
                if tag == 0x0008_0201 {
                    object.put(tag, b"SH", "+0100");
                }
                let Some((node, bytes, tree)) = cleaned(&object, tag, &options) else {
                    panic!("{} {name}", row.name);
                };
                let what = format!("{} {} {name}", row.tag, row.name);
                // The time stamp of a frame is binary: always a dummy. Offsets stay with shifted dates.
                if tag == 0x0034_0007 {
                    assert!(node.is_some(), "{what}");
                } else if does == 'K' {
                    let node = node.unwrap_or_else(|| panic!("{what}"));
                    if vr == *b"SQ" {
                        assert!(matches!(&node.value, TreeValue::Items(i) if i.len() == 1));
                    } else {
                        let old = if tag == 0x0008_0201 {
                            b"+0100".to_vec()
                        } else {
                            value_of(&vr)
                        };
                        let own = matches!(tag, 0x0008_0018 | 0x0020_000D | 0x0020_000E);
                        let found = tree.bytes(&node);
                        assert!(found.starts_with(&old) || own, "{what}");
                    }
                    kept += 1;
                } else {
                    let lower = bytes.to_ascii_lowercase();
                    assert!(!lower.windows(4).any(|p| p == b"qzvo"), "{what}");
                    if name == "modified" {
                        assert!(!lower.windows(6).any(|p| p == b"189306"), "{what}");
                        assert!(!tree.text(&node.unwrap()).is_empty(), "{what}");
                    }
                    cleaned_rows += 1;
                }
            }
        }
    }
    println!("{kept} kept, {cleaned_rows} cleaned");
    assert!(kept > 250 && cleaned_rows > 250, "{kept} {cleaned_rows}");
}

#[test]
fn dates_of_a_patient_move_together_and_ages_stop_at_90() {
    let options = everything();
    let study = |id: &str, date: &str, age: &str| {
        let mut o = with_row(0x0008_0020, b"DA", "1.2.840.10008.5.1.4.1.1.2");
        o.put(0x0008_0020, b"DA", date)
            .put(0x0008_0030, b"TM", "101112")
            .put(0x0010_0020, b"LO", id)
            .put(0x0010_1010, b"AS", age);
        let tree = Tree::read(o.file(true, "", "")).unwrap();
        clean(tree, &options, &key()).unwrap().tree
    };
    let day = |tree: &Tree| {
        chrono::NaiveDate::parse_from_str(&tree.text_of(0x0008_0020), "%Y%m%d").unwrap()
    };
    let first = study("A", "20200101", "089Y");
    let later = study("A", "20200301", "090Y");
    let other = study("B", "20200101", "101Y");
    assert_eq!((day(&later) - day(&first)).num_days(), 60);
    assert_ne!(day(&first), day(&other));
    assert_eq!(first.text_of(0x0008_0030), "101112");
    assert_eq!(first.text_of(0x0010_1010), "089Y");
    assert_eq!(later.text_of(0x0010_1010), "090Y");
    assert_eq!(other.text_of(0x0010_1010), "090Y");
    assert_eq!(first.text_of(0x0028_0303), "MODIFIED");
    assert_eq!(first.text_of(0x0010_0020), later.text_of(0x0010_0020));
    assert_ne!(first.text_of(0x0010_0020), other.text_of(0x0010_0020));
}

#[test]
fn overlays_in_the_bits_of_pixels_are_cleared() {
    let mut o = with_row(0x0010_0010, b"PN", "1.2.840.10008.5.1.4.1.1.2");
    o.word(0x0028_0002, 1)
        .put(0x0028_0004, b"CS", "MONOCHROME2")
        .word(0x0028_0010, 1)
        .word(0x0028_0011, 2)
        .word(0x0028_0100, 16)
        .word(0x0028_0101, 12)
        .word(0x0028_0102, 11)
        .word(0x0028_0103, 0)
        .word(0x6000_0010, 1)
        .word(0x6000_0102, 15)
        .put(0x7FE0_0010, b"OW", [0x34_u8, 0x82, 0xFF, 0xFF]);
    let tree = Tree::read(o.file(true, "", "")).unwrap();
    let cleaned = clean(tree, &Options::default(), &key()).unwrap();
    assert_eq!(cleaned.tree.pixels(), [0x34, 0x02, 0xFF, 0x0F]);
}

#[test]
fn safe_private_numbers_stay_with_their_creator_alone() {
    let mut o = with_row(0x0010_0010, b"PN", "1.2.840.10008.5.1.4.1.1.4");
    o.put(0x0019_0010, b"LO", "SIEMENS MR HEADER")
        .put(0x0019_100C, b"IS", "1000")
        .put(0x0019_100A, b"US", [1_u8, 0])
        .put(0x0019_1015, b"FD", [9_u8; 8])
        .put(0x0019_0011, b"LO", "SOMEBODY")
        .put(0x0019_110C, b"IS", "4711");
    let options = Options {
        private: true,
        ..Options::default()
    };
    let check = |options: &Options, expected: &[u32]| {
        let tree = Tree::read(o.file(true, "", "")).unwrap();
        let tree = clean(tree, options, &key()).unwrap().tree;
        let found: Vec<u32> = tree
            .root
            .iter()
            .map(|n| n.tag)
            .filter(|t| t >> 16 == 0x0019)
            .collect();
        assert_eq!(found, expected);
    };
    check(&options, &[0x0019_0010, 0x0019_100A, 0x0019_100C]);
    check(&Options::default(), &[]);
}

/// Every real file: written ones are read by us with the same pixels, and by pydicom.
#[test]
fn real_files_stay_readable_with_the_same_pixels() {
    let Some(data) = std::env::var_os("NEGATOSCOPE_TEST_DATA") else {
        println!("skipped: NEGATOSCOPE_TEST_DATA is not set");
        return;
    };
    let folders = ["dicom-objects", "dicom-syntax"].map(|part| Path::new(&data).join(part));
    let sources = Sources::find(&folders, &Task::new()).unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("NEGATOSCOPE_KEEP_CASES");
    let folder = kept.map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let (mut written, mut decoded, mut refused) = (0, 0, BTreeMap::<String, usize>::new());
    let mut pairs = String::new();
    for source in &sources.found {
        let path = source.to_string();
        let mut refuse = |why: String| *refused.entry(why).or_default() += 1;
        let tree = match sources.open(source) {
            Ok(tree) => tree,
            Err(error) => {
                refuse(error.to_string());
                continue;
            }
        };
        let cleaned = match clean(tree, &everything(), &key()) {
            Ok(cleaned) => cleaned,
            Err(why) => {
                refuse(why.to_owned());
                continue;
            }
        };
        let to = folder.join(format!("{written}.dcm"));
        let mut out = Vec::new();
        cleaned
            .tree
            .write(&mut out, &cleaned.sop_class_uid, &cleaned.uids[2])
            .unwrap();
        fs::write(&to, &out).unwrap();
        pairs.extend([path.as_str(), "\t", to.to_str().unwrap(), "\n"]);
        written += 1;
        if let Ok(before) = fs::read(&path)
            .map_err(|e| e.to_string())
            .and_then(|b| decode_file(b).map_err(|e| e.to_string()))
        {
            let after = decode_file(out).unwrap_or_else(|e| panic!("{path}: {e}"));
            assert_eq!(before.frames.len(), after.frames.len(), "{path}");
            for (a, b) in before.frames.iter().zip(&after.frames) {
                assert!(a.samples == b.samples, "{path}");
            }
            decoded += 1;
        }
    }
    println!("{written} written, {decoded} with the same pixels; refused: {refused:#?}");
    assert!(written >= 50 && decoded >= 40, "{written} {decoded}");
    let list = folder.join("pairs.tsv");
    fs::write(&list, pairs).unwrap();
    let Some(python) = std::env::var_os("NEGATOSCOPE_PYTHON") else {
        println!("skipped: NEGATOSCOPE_PYTHON is not set (a Python with pydicom)");
        return;
    };
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/deidentify/check_with_pydicom.py");
    let done = Command::new(python)
        .arg(script)
        .arg(&list)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    let wrong = String::from_utf8_lossy(&done.stderr);
    println!("{said}");
    assert!(done.status.success(), "{said}{wrong}");
}
