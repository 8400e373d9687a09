//! Files that attack: names that lead elsewhere, directories, heads that are programs, elements that other
//! readers see differently, sizes without substance. Nothing of a person comes out, nothing lands elsewhere.
#![expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "VRs are written as byte strings"
)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use negatoscope::deidentify::{Key, Options, PixelWork, Report, Request, clean, run};
use negatoscope::dicom::Tree;
use negatoscope::study::Uid;
use negatoscope::task::Task;
use walkdir::WalkDir;

use crate::cli::Place;
use crate::deidentify::receipt;
use crate::deidentify_objects::Object;

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
/// Part of every planted text, in some case.
const MARK: &[u8] = b"qzv";

fn key() -> Key {
    Key::new(&[7; 32])
}

fn object() -> Object {
    let mut o = Object::default();
    o.put(0x0008_0016, b"UI", CT)
        .put(0x0008_0018, b"UI", "1.2.3.4.1")
        .put(0x0020_000D, b"UI", "1.2.3.4.2")
        .put(0x0020_000E, b"UI", "1.2.3.4.3")
        .put(0x0008_0060, b"CS", "CT")
        .put(0x0010_0010, b"PN", "Qzvdoe^Qzvjane")
        .put(0x0010_0020, b"LO", "QZV4711");
    o
}

/// What `bytes` becomes: the written file, or why it is refused.
fn written(bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    let tree = Tree::read(bytes).map_err(|error| error.to_string())?;
    let cleaned = clean(tree, &Options::default(), &key())?;
    let mut out = Vec::new();
    let uid = &cleaned.uids[2];
    (cleaned.tree.write(&mut out, &cleaned.sop_class_uid, uid)).unwrap();
    Ok(out)
}

fn has_mark(bytes: &[u8]) -> bool {
    bytes
        .to_ascii_lowercase()
        .windows(MARK.len())
        .any(|part| part == MARK)
}

fn deidentify(folder: &Path, options: Options) -> Report {
    let request = Request {
        inputs: &[folder.join("in")],
        out: &folder.join("out"),
        options,
        allow_burned_in: false,
        pixel_work: PixelWork::default(),
        key: &key(),
    };
    run(&request, &receipt(&folder.join("home")), &Task::new()).unwrap()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = WalkDir::new(folder).into_iter().map(Result::unwrap);
    let files = entries.filter(|e| e.file_type().is_file());
    files.map(walkdir::DirEntry::into_path).collect()
}

/// `study/series/instance.dcm`, each a UID.
fn is_ours(path: &Path) -> bool {
    let text = path.to_str().unwrap();
    let parts: Vec<&str> = text.strip_suffix(".dcm").unwrap_or("").split('/').collect();
    parts.len() == 3 && parts.iter().all(|part| Uid::parse(part).is_ok())
}

/// File names of a directory are people's own: `DOE_JANE\19580101\…` (PS3.10 8, PS3.3 F.3).
#[test]
fn names_in_directories_go_with_them() {
    let mut record = Object::default();
    record
        .put(0x0004_1430, b"CS", "PATIENT")
        .put(0x0004_1500, b"CS", "QZVDOE\\..\\..\\QZVJANE")
        .put(0x0010_0010, b"PN", "Qzvdoe^Qzvjane");
    let mut directory = Object::default();
    directory
        .put(0x0004_1130, b"CS", "QZVDOE")
        .put(0x0004_1141, b"CS", "QZVDOE\\README")
        .items(0x0004_1220, vec![record.clone()]);
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in");
    fs::create_dir(&input).unwrap();
    // With its class in the file meta group alone, with the class of an image, and without its records.
    let mut head = Object::head("1.2.840.10008.1.2.1", "", "");
    head.extend_from_slice(b"\x02\x00\x02\x00UI\x14\x001.2.840.10008.1.3.10");
    let mut media = head.clone();
    media.extend_from_slice(&directory.encode(true));
    fs::write(input.join("DICOMDIR"), media).unwrap();
    let mut disguised = object();
    disguised.0.extend(directory.0.clone());
    fs::write(input.join("disguised"), disguised.file(true, "", "")).unwrap();
    let mut named = object();
    named
        .put(0x0004_1130, b"CS", "QZVDOE")
        .put(0x0004_1141, b"CS", "QZVDOE\\README")
        .put(0x0004_1500, b"CS", "QZVDOE\\IMAGE")
        .items(0x0008_1140, vec![record]);
    fs::write(input.join("named"), named.file(true, "", "")).unwrap();
    let report = deidentify(folder.path(), Options::default());
    assert_eq!((report.written, report.refused.len()), (1, 2), "{report:?}");
    assert!(!has_mark(
        serde_json::to_string(&report).unwrap().as_bytes()
    ));
    for path in files(&folder.path().join("out")) {
        assert!(!has_mark(&fs::read(&path).unwrap()));
        assert!(!has_mark(path.to_str().unwrap().as_bytes()));
    }
}

#[test]
fn no_name_becomes_a_path() {
    let long = "1.".repeat(2000) + "1";
    let names = [
        "../../../evil",
        "/evil",
        "C:\\evil",
        "..",
        ".",
        "1.2/../../evil",
        "1.2\\..\\evil",
        "1.2\0/../evil",
        "CON",
        "1..2",
        "\u{202e}1.2",
        &long,
    ];
    for uids in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("in");
        fs::create_dir(&input).unwrap();
        let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (n, name) in names.iter().enumerate() {
            for tag in [0x0008_0018, 0x0020_000D, 0x0020_000E] {
                let mut o = object();
                o.put(0x0008_0018, b"UI", format!("1.2.3.{n}.{tag}"));
                o.put(tag, b"UI", name);
                let path = input.join(format!("{n}-{tag}"));
                // A short VR holds no more than 64 kB.
                fs::write(path, o.file(false, "", "")).unwrap();
            }
            // As the name of a member of an archive.
            let mut o = object();
            o.put(0x0008_0018, b"UI", format!("1.2.5.{n}"));
            let options = zip::write::SimpleFileOptions::default();
            if archive.start_file(*name, options).is_ok() {
                archive.write_all(&o.file(true, "", "")).unwrap();
            }
        }
        let archive = archive.finish().unwrap().into_inner();
        fs::write(input.join("more.zip"), archive).unwrap();
        #[cfg(unix)]
        {
            let outside = folder.path().join("outside.dcm");
            fs::write(&outside, object().file(true, "", "")).unwrap();
            std::os::unix::fs::symlink(&outside, input.join("link")).unwrap();
        }
        let report = deidentify(
            folder.path(),
            Options {
                uids,
                ..Options::default()
            },
        );
        assert!(report.written > names.len(), "{report:#?}");
        let out = folder.path().join("out");
        for path in files(&out) {
            let inside = path.strip_prefix(&out).unwrap();
            assert!(is_ours(inside), "{}", inside.display());
        }
        assert_eq!(files(&out).len(), report.written);
        let mut there: Vec<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        there.retain(|name| name != "outside.dcm");
        there.sort();
        assert_eq!(there, ["home", "in", "out"]);
        #[cfg(unix)]
        assert!(
            report.refused.iter().any(|l| l.reason.contains("a link")),
            "{report:#?}"
        );
    }
}

/// CVE-2019-11687: a file that is an image to one program and a program to another.
#[test]
fn heads_that_are_programs_are_not_written() {
    for head in ["MZ\u{90}", "\u{7f}ELF", "#!/bin/sh\n", "II*\0", "%PDF-1.7"] {
        let out = written(object().file(true, head, "QZVAE")).unwrap();
        assert_eq!(out[..128], [0; 128], "{head}");
        assert_eq!(&out[128..132], b"DICM");
        assert!(!has_mark(&out));
    }
}

/// One element, explicit VR little endian, with a length that may lie.
fn element(tag: u32, vr: &[u8; 2], length: u32, value: &[u8]) -> Vec<u8> {
    let mut out = ((tag >> 16) as u16).to_le_bytes().to_vec();
    out.extend_from_slice(&(tag as u16).to_le_bytes());
    out.extend_from_slice(vr);
    if matches!(vr, b"SQ" | b"UN" | b"OB" | b"OW" | b"UT") {
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&length.to_le_bytes());
    } else {
        out.extend_from_slice(&(length as u16).to_le_bytes());
    }
    out.extend_from_slice(value);
    out
}

fn honest(tag: u32, vr: &[u8; 2], value: &[u8]) -> Vec<u8> {
    assert!(value.len().is_multiple_of(2), "{tag:08x}");
    element(tag, vr, value.len() as u32, value)
}

/// An item or a delimiter.
fn item(number: u16, length: u32, value: &[u8]) -> Vec<u8> {
    let mut out = vec![0xFE, 0xFF];
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(value);
    out
}

/// The raw bytes are looked at, so it does not matter how another reader takes the file apart.
#[test]
fn what_other_readers_would_show_is_gone() {
    const NAME: &[u8] = b"Qzvdoe^Qzvjane";
    const SEQUENCE: u32 = 0x0008_1140;
    const OPEN: u32 = u32::MAX;
    let name = honest(0x0010_0010, b"PN", NAME);
    let study = honest(0x0020_000D, b"UI", b"1.2.3.4.22");
    let text = |vr: &[u8; 2], tag| honest(tag, vr, NAME);
    let in_item = |inner: &[u8]| item(0xE000, inner.len() as u32, inner);
    let in_sequence = |inner: &[u8]| honest(SEQUENCE, b"SQ", &in_item(inner));
    let other_charset = [
        honest(0x0008_0005, b"CS", b"\\ISO 2022 IR 87 "),
        honest(0x0010_0010, b"PN", b"Qzvd\x1B$B;3ED\x1B(B^Qzv"),
        honest(0x0008_1030, b"LO", b"Qzvdoe"),
    ]
    .concat();
    let mut cases: Vec<(&str, Vec<u8>)> = vec![
        ("a second name", [name.clone(), name.clone()].concat()),
        (
            "a second study that is a name, behind others",
            [
                study,
                honest(0x0028_0002, b"US", b"\x01\0"),
                text(b"UI", 0x0020_000D),
            ]
            .concat(),
        ),
        (
            "elements out of order",
            [honest(0x4FFE_0001, b"LO", b"QZV1"), name.clone()].concat(),
        ),
        (
            "the length of a group that lies",
            [
                honest(0x0010_0000, b"UL", &9999_u32.to_le_bytes()),
                name.clone(),
            ]
            .concat(),
        ),
        (
            "a text in the length of a group",
            honest(0x0010_0000, b"UL", NAME),
        ),
        (
            "a sequence of unknown VR",
            honest(SEQUENCE, b"UN", &in_item(&name)),
        ),
        (
            "an unknown sequence without its length",
            [
                element(0x0009_1001, b"UN", OPEN, &[]),
                item(0xE000, OPEN, &[]),
                vec![0x10, 0, 0x10, 0, 14, 0, 0, 0],
                NAME.to_vec(),
                item(0xE00D, 0, &[]),
                item(0xE0DD, 0, &[]),
            ]
            .concat(),
        ),
        (
            "a sequence within bytes",
            honest(SEQUENCE, b"OB", &in_item(&name)),
        ),
        (
            "bytes between items",
            honest(
                SEQUENCE,
                b"SQ",
                &[in_item(&name), NAME.to_vec(), in_item(&name)].concat(),
            ),
        ),
        (
            "an item that ends before its sequence",
            [
                element(
                    SEQUENCE,
                    b"SQ",
                    200,
                    &item(0xE000, name.len() as u32, &name),
                ),
                NAME.repeat(13)[..200 - 8 - name.len()].to_vec(),
            ]
            .concat(),
        ),
        (
            "a delimiter in an item of known length",
            in_sequence(&[item(0xE00D, 0, &[]), name.clone(), item(0xE0DD, 0, &[])].concat()),
        ),
        (
            "a delimiter with a length",
            [
                element(SEQUENCE, b"SQ", OPEN, &in_item(&name)),
                item(0xE0DD, 14, NAME),
            ]
            .concat(),
        ),
        (
            "an item in another character set",
            in_sequence(&other_charset),
        ),
        ("a name in a sequence's place", text(b"LO", SEQUENCE)),
        (
            "bytes behind the last element",
            [name.clone(), b"Qzvdo".to_vec()].concat(),
        ),
        ("an unknown VR", honest(0x0010_0010, b"ZZ", NAME)),
    ];
    // A name that says it is something else, and something else that is a name.
    for vr in [b"US", b"FD", b"OB", b"UN", b"AT", b"DA", b"UI", b"UT"] {
        for tag in [
            0x0010_0010,
            0x0008_0060,
            0x0018_0050,
            0x0020_0032,
            0x0028_0011,
            0x0028_1201,
        ] {
            cases.push(("another VR", text(vr, tag)));
            cases.push(("another VR in an item", in_sequence(&text(vr, tag))));
        }
    }
    let (mut came, mut refused) = (0, 0);
    for (what, more) in cases {
        for first in [true, false] {
            // Before everything else that has the name right, and behind it.
            let head = Object::head("1.2.840.10008.1.2.1", "", "QZVAE");
            let rest = object().encode(true);
            let file = if first {
                [head, more.clone(), rest].concat()
            } else {
                [head, rest, more.clone()].concat()
            };
            assert!(has_mark(&file));
            match written(file) {
                Ok(out) => {
                    came += 1;
                    assert!(!has_mark(&out), "{what}");
                    // A reader of ours sees the new name, once.
                    let tree = Tree::read(out).unwrap();
                    assert!(tree.text_of(0x0010_0010).starts_with("NS"), "{what}");
                    let tags: Vec<u32> = tree.root.iter().map(|node| node.tag).collect();
                    assert!(tags.is_sorted_by(|a, b| a < b), "{what}");
                }
                Err(reason) => {
                    refused += 1;
                    assert!(!has_mark(reason.as_bytes()), "{what}: {reason}");
                }
            }
        }
    }
    println!("{came} files came out without the name, {refused} were refused");
    assert!(came > 100, "{came}");
}

#[test]
fn a_reason_tells_nothing_of_the_file() {
    // The UID of a transfer syntax is copied by nobody who invents one.
    let mut unknown = Object::head("1.2.826.0.1.4711.19580101", "", "");
    unknown.extend_from_slice(&object().encode(true));
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in");
    fs::create_dir(&input).unwrap();
    fs::write(input.join("Qzvdoe"), unknown).unwrap();
    fs::write(input.join("Qzvjane.zip"), b"PK\x03\x04Qzvdoe").unwrap();
    let report = deidentify(folder.path(), Options::default());
    assert_eq!(report.refused.len(), 2, "{report:?}");
    let text = serde_json::to_string(&report).unwrap();
    assert!(
        !has_mark(text.as_bytes()) && !text.contains("4711"),
        "{text}"
    );
}

/// Levels of sequences in sequences: 20 bytes each.
fn nested(levels: usize) -> Vec<u8> {
    let mut level = element(0x0040_A730, b"SQ", u32::MAX, &[]);
    level.extend_from_slice(&item(0xE000, u32::MAX, &[]));
    let mut out = object().file(true, "", "");
    out.extend_from_slice(&level.repeat(levels));
    out
}

#[test]
fn depth_is_limited() {
    for levels in [65, 10_000, 1_000_000] {
        let reason = written(nested(levels)).unwrap_err();
        assert!(reason.contains("nested more than 64"), "{reason}");
    }
    let mut deep = nested(60);
    deep.extend_from_slice(&honest(0x0010_0010, b"PN", b"Qzvdoe"));
    let ends = [item(0xE00D, 0, &[]), item(0xE0DD, 0, &[])].concat();
    deep.extend_from_slice(&ends.repeat(60));
    assert!(!has_mark(&written(deep).unwrap()));
}

/// A data set that would be written if it were not one that grows from 200 kB to 200 MiB.
fn write_bomb(to: &mut dyn Write) {
    to.write_all(&object().encode(true)).unwrap();
    to.write_all(&element(0x0009_1001, b"OB", 200 << 20, &[]))
        .unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..200 {
        to.write_all(&zeros).unwrap();
    }
}

/// An image that declares more than is there.
fn image(rows: &[u8], columns: u16, frames: &str, syntax: &str, pixels: &[u8]) -> Vec<u8> {
    let mut o = object();
    let rows_vr = if rows.len() == 2 { b"US" } else { b"UL" };
    o.put(0x0018_0015, b"CS", "HEAD")
        .put(0x0020_0032, b"DS", "0\\0\\0")
        .put(0x0020_0037, b"DS", "1\\0\\0\\0\\1\\0")
        .put(0x0028_0030, b"DS", "1\\1")
        .word(0x0028_0002, 1)
        .put(0x0028_0004, b"CS", "MONOCHROME2")
        .put(0x0028_0008, b"IS", frames)
        .put(0x0028_0010, rows_vr, rows)
        .word(0x0028_0011, columns)
        .word(0x0028_0100, 16)
        .word(0x0028_0101, 16)
        .word(0x0028_0102, 15)
        .word(0x0028_0103, 0);
    let mut out = Object::head(syntax, "", "");
    out.extend_from_slice(&o.encode(syntax != "1.2.840.10008.1.2"));
    out.extend_from_slice(pixels);
    out
}

/// What is declared and not there, in a process that may have one gigabyte of addresses (on Linux).
#[test]
fn what_is_declared_takes_no_memory() {
    let place = Place::new();
    let input = place.path("in");
    fs::create_dir(&input).unwrap();
    let native = "1.2.840.10008.1.2.1";
    let most = u16::MAX.to_le_bytes();
    let ten = honest(0x7FE0_0010, b"OW", &[0; 10]);
    let fragments = |inner: &[u8]| {
        let mut out = element(0x7FE0_0010, b"OB", u32::MAX, &item(0xE000, 0, &[]));
        out.extend_from_slice(inner);
        out.extend_from_slice(&item(0xE0DD, 0, &[]));
        out
    };
    let run_length = |segments: u32| {
        let mut stream = segments.to_le_bytes().to_vec();
        stream.resize(64, 0x40);
        // Each pair of bytes is 128 bytes of zeros.
        stream.extend_from_slice(&[0x81, 0].repeat(50_000));
        fragments(&item(0xE000, stream.len() as u32, &stream))
    };
    let head = Object::head("1.2.840.10008.1.2.1.99", "", "");
    let mut deflated = flate2::write::DeflateEncoder::new(head, flate2::Compression::fast());
    write_bomb(&mut deflated);
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let packed = zip::write::SimpleFileOptions::default();
    archive.start_file("bomb", packed).unwrap();
    (archive.write_all(&Object::head(native, "", ""))).unwrap();
    write_bomb(&mut archive);
    let element_beyond = |length| {
        let mut out = object().file(true, "", "");
        out.extend_from_slice(&element(0x7FE0_0010, b"OW", length, &[1, 2]));
        out
    };
    let rle = "1.2.840.10008.1.2.5";
    let cases = [
        element_beyond(u32::MAX - 1),
        element_beyond(1 << 31),
        image(&most, u16::MAX, "2147483647", native, &ten),
        image(&most, u16::MAX, "99999999999999999999", native, &ten),
        image(&most, u16::MAX, "1", native, &ten),
        image(&[0xFF; 4], u16::MAX, "1", native, &ten),
        image(&most, u16::MAX, "1", rle, &run_length(2)),
        image(&most, u16::MAX, "100000", rle, &run_length(15)),
        image(
            &most,
            u16::MAX,
            "1",
            rle,
            &fragments(&item(0xE000, u32::MAX - 1, &[1, 2])),
        ),
        deflated.finish().unwrap(),
        archive.finish().unwrap().into_inner(),
        nested(200_000),
    ];
    for (n, bytes) in cases.iter().enumerate() {
        fs::write(input.join(format!("{n}.dcm")), bytes).unwrap();
    }
    fs::write(input.join("good.dcm"), object().file(true, "", "")).unwrap();
    let report = bounded(&place, 1 << 20, &["--deface", "--redact-found"]);
    let count = |name: &str| report[name].as_array().unwrap().len();
    assert_eq!(report["files"], cases.len() + 1, "{report:#}");
    assert_eq!(report["written"], 1, "{report:#}");
    assert_eq!(count("refused") + count("held_back"), cases.len());
}

/// Runs `deidentify in --out out` in so many kilobytes of addresses, on Linux; its report.
fn bounded(place: &Place, kilobytes: u32, more: &[&str]) -> serde_json::Value {
    let program = env!("CARGO_BIN_EXE_negatoscope");
    let mut arguments = vec!["deidentify", "in", "--out", "out", "--json"];
    arguments.extend(more);
    let mut command = place.command(&arguments);
    if cfg!(target_os = "linux") {
        let mut limited = Command::new("sh");
        limited
            .arg("-c")
            .arg(format!("ulimit -v {kilobytes}; exec \"$0\" \"$@\""))
            .arg(program)
            .args(&arguments)
            .current_dir(place.path(""))
            .envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
        command = limited;
    }
    let done = command.output().unwrap();
    let told = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(3), "{told}");
    assert!(!told.contains("panicked"), "{told}");
    serde_json::from_slice(&done.stdout).unwrap()
}

/// What GDCM lost in each malformed file group (CVE-2026-3650) would be a gigabyte here.
#[test]
fn a_thousand_malformed_files_leave_no_memory_behind() {
    let place = Place::new();
    let input = place.path("in");
    fs::create_dir(&input).unwrap();
    let mut good = object();
    good.put(0x0009_1001, b"OB", vec![0x55; 1 << 20]);
    let good = good.file(true, "", "QZVAE");
    let damaged: [fn(&mut Vec<u8>); 5] = [
        // A VR that is none in the file meta group.
        |f| f[136..138].copy_from_slice(b"\x01\x02"),
        // Its first length leads beyond the file.
        |f| f[138..140].copy_from_slice(&[0xFE, 0xFF]),
        |f| f.truncate(f.len() - 1000),
        |f| f[400..600].fill(0xFF),
        |f| f.extend_from_slice(&element(0x7FE0_0010, b"OW", u32::MAX - 1, &[])),
    ];
    for (n, damage) in damaged.iter().enumerate() {
        let mut bytes = good.clone();
        damage(&mut bytes);
        let first = input.join(format!("{n}-0"));
        fs::write(&first, bytes).unwrap();
        for copy in 1..200 {
            fs::hard_link(&first, input.join(format!("{n}-{copy}"))).unwrap();
        }
    }
    fs::write(input.join("good"), &good).unwrap();
    let report = bounded(&place, 512 << 10, &[]);
    assert_eq!(report["files"], 1001, "{report:#}");
    let refused = report["refused"].as_array().unwrap().len();
    assert!(refused >= 400, "{refused}");
    assert!(!has_mark(report.to_string().as_bytes()));
}
