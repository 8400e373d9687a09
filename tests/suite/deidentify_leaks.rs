//! The leak scan: thousands of invented identities in objects of many kinds, the real program, and
//! every byte that it leaves behind.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::DeflateEncoder;
use serde_json::json;
use walkdir::WalkDir;

use crate::cli::Place;
use crate::deidentify_objects::{KINDS, Object};
use crate::deidentify_people::{CHARSETS, Identity, Town};
use crate::lettering::{dots, width};

const ROWS: usize = 48;
const COLUMNS: usize = 192;
/// Beside the kinds of the other scan.
const MORE_KINDS: [(&str, &str, &str, bool); 4] = [
    ("raw", "1.2.840.10008.5.1.4.1.1.66", "OT", false),
    ("display", "1.2.840.10008.5.1.4.1.1.131", "PR", false),
    ("protocol", "1.2.840.10008.5.1.4.38.1", "OT", false),
    // A CT image with a name burned into it: nothing but its pixels tells.
    ("ct-burned", "1.2.840.10008.5.1.4.1.1.2", "CT", true),
];

/// Elements of one person's study, at the top and in every item.
fn people(town: &mut Town, o: &mut Object) {
    o.put(0x0008_0090, b"PN", town.person("referring physician"))
        .put(0x0008_0092, b"ST", town.place("address"))
        .put(0x0008_0094, b"SH", town.number("phone"))
        .put(0x0008_1048, b"PN", town.person("physician of record"))
        .put(0x0008_1070, b"PN", town.person("operator"))
        .put(0x0010_1005, b"PN", town.person("birth name"))
        .put(0x0010_21B0, b"LT", town.text("history"))
        .put(0x0040_0243, b"SH", town.number("location"))
        .put(0x0040_A124, b"UI", town.uid());
    let block = 0x10 + town.below(0x70) as u32;
    let (group, at) = (0x0009 + 2 * town.below(40) as u32, block << 8);
    o.put(group << 16 | block, b"LO", "INVENTED MAKER 1");
    o.put(group << 16 | at | 0x01, b"LO", town.text("private text"));
    o.put(
        group << 16 | at | 0x02,
        b"UN",
        town.number("private number"),
    );
    o.put(group << 16 | at | 0x03, b"PN", town.person("private name"));
    let mut deep = Object::default();
    deep.put(0x0010_0010, b"PN", town.person("name in a private item"));
    deep.put(group << 16 | block, b"LO", "INVENTED MAKER 1");
    deep.put(group << 16 | at | 0x05, b"DA", town.date("private date"));
    let mut shallow = Object::default();
    shallow.items(group << 16 | at | 0x06, vec![deep]);
    o.items(group << 16 | at | 0x04, vec![shallow]);
}

fn base(town: &mut Town, class: &str, modality: &str) -> Object {
    let mut o = Object::default();
    if !CHARSETS[town.charset].is_empty() {
        o.put(0x0008_0005, b"CS", CHARSETS[town.charset]);
    }
    let name = town.person("patient");
    o.put(0x0008_0016, b"UI", class)
        .put(0x0008_0018, b"UI", town.uid())
        .put(0x0020_000D, b"UI", town.uid())
        .put(0x0020_000E, b"UI", town.uid())
        .put(0x0020_0052, b"UI", town.uid())
        .put(0x0008_0060, b"CS", modality)
        .put(0x0008_0070, b"LO", "INVENTED")
        .put(0x0010_0010, b"PN", &name)
        .put(0x0010_0020, b"LO", town.number("patient id"))
        .put(0x0010_0030, b"DA", town.date("birth date"))
        .put(0x0010_1001, b"PN", town.person("other name"))
        .put(0x0010_1040, b"LO", town.place("address"))
        .put(0x0010_1060, b"PN", town.person("mother"))
        .put(0x0010_2154, b"SH", town.number("phone"))
        .put(0x0010_4000, b"LT", town.text("comment"))
        .put(0x0008_0050, b"SH", town.number("accession"))
        .put(0x0020_0010, b"SH", town.number("study id"))
        .put(0x0008_0020, b"DA", town.date("study date"))
        .put(0x0008_0022, b"DA", town.date("acquisition date"))
        .put(0x0008_002A, b"DT", town.date("date-time") + "101112.5+0100")
        .put(0x0008_0080, b"LO", town.place("institution"))
        .put(0x0008_0081, b"ST", town.place("address"))
        .put(0x0008_1010, b"SH", town.number("station"))
        .put(0x0008_1030, b"LO", town.text("description"))
        .put(0x0008_103E, b"LO", town.text("description"))
        .put(0x0018_1000, b"LO", town.number("serial"))
        .put(0x0018_1030, b"LO", town.text("protocol"))
        .put(0x0018_1002, b"UI", town.uid())
        // The name again where no table looks for it, in a text and as a code.
        .put(0x0008_1090, b"LO", &name)
        .put(0x0018_5100, b"CS", town.number("patient id"))
        .put(0x4FFE_0003, b"LO", town.number("patient id"));
    people(town, &mut o);
    let mut request = Object::default();
    people(town, &mut request);
    let mut code = Object::default();
    code.put(0x0008_0100, b"SH", town.number("patient id")).put(
        0x0008_0104,
        b"LO",
        town.text("code meaning"),
    );
    request.items(0x0032_1064, vec![code]);
    o.items(0x0040_0275, vec![request]);
    o
}

fn content(town: &mut Town, o: &mut Object) {
    let item = |kind: &str| {
        let mut name = Object::default();
        name.put(0x0008_0100, b"SH", "121071")
            .put(0x0008_0102, b"SH", "DCM")
            .put(0x0008_0104, b"LO", "Finding");
        let mut item = Object::default();
        item.put(0x0040_A010, b"CS", "CONTAINS")
            .put(0x0040_A040, b"CS", kind)
            .items(0x0040_A043, vec![name]);
        item
    };
    let mut leaves = Vec::new();
    for (kind, tag, vr) in [
        ("TEXT", 0x0040_A160, b"UT"),
        ("PNAME", 0x0040_A123, b"PN"),
        ("DATE", 0x0040_A121, b"DA"),
        ("UIDREF", 0x0040_A124, b"UI"),
    ] {
        let mut leaf = item(kind);
        let value = match kind {
            "TEXT" => town.text("report text"),
            "PNAME" => town.person("name in a report"),
            "DATE" => town.date("date in a report").into_bytes(),
            _ => town.uid().into_bytes(),
        };
        leaf.put(tag, vr, value);
        leaves.push(leaf);
    }
    let mut inner = item("CONTAINER");
    inner.items(0x0040_A730, leaves.clone());
    let mut outer = item("CONTAINER");
    leaves.push(inner);
    outer.items(0x0040_A730, leaves);
    let mut verifier = Object::default();
    verifier
        .put(0x0040_A075, b"PN", town.person("verifier"))
        .put(0x0040_A027, b"LO", town.place("institution"));
    o.put(0x0040_A040, b"CS", "CONTAINER")
        .items(0x0040_A730, vec![outer])
        .items(0x0040_A073, vec![verifier]);
}

/// Pixels of `frames` frames: samples of `bytes` bytes; with a name burned in where asked for.
fn image(town: &mut Town, o: &mut Object, samples: usize, bytes: usize, burned: bool) -> Vec<u8> {
    let frames = if bytes == 1 && samples == 1 { 2 } else { 1 };
    let (bits, stored) = (8 * bytes as u16, if bytes == 2 { 12 } else { 8 });
    o.word(0x0028_0002, samples as u16)
        .put(
            0x0028_0004,
            b"CS",
            if samples == 3 { "RGB" } else { "MONOCHROME2" },
        )
        .word(0x0028_0010, ROWS as u16)
        .word(0x0028_0011, COLUMNS as u16)
        .word(0x0028_0100, bits)
        .word(0x0028_0101, stored)
        .word(0x0028_0102, stored - 1)
        .word(0x0028_0103, 0);
    if samples == 3 {
        o.word(0x0028_0006, 0);
    }
    if frames > 1 {
        o.put(0x0028_0008, b"IS", frames.to_string());
    }
    let text = town.latin();
    let mut letters = vec![false; ROWS * COLUMNS];
    for (x, y) in dots(&text, (6, 4), 2) {
        letters[y * COLUMNS + x] = true;
    }
    let mut out = Vec::new();
    for n in 0..frames * ROWS * COLUMNS {
        let (row, place) = (n / COLUMNS % ROWS, n % (ROWS * COLUMNS));
        let ink = burned && letters[place];
        // Even along a row, so that letters are the same bytes in every frame.
        let value: u16 = if ink { 250 } else { 20 + row as u16 };
        let value = if bytes == 2 { value * 16 } else { value };
        for sample in 0..samples {
            let value = if sample == 2 { value / 2 } else { value };
            out.extend_from_slice(&value.to_le_bytes()[..bytes]);
        }
    }
    if burned {
        // The row through the middle of the letters; of a long one the first 96 bytes.
        let row = 4 + 7;
        let step = samples * bytes;
        let from = (row * COLUMNS + 6) * step;
        let length = (width(&text, 2) * step).min(88);
        town.note_form("burned into pixels", &text, &out[from..from + length]);
    }
    out
}

/// An overlay plane with a name drawn in bits.
fn overlay(town: &mut Town, o: &mut Object) {
    let text = town.latin();
    let mut bits = vec![0_u8; ROWS * COLUMNS / 8];
    for (x, y) in dots(&text, (0, 20), 2) {
        bits[(y * COLUMNS + x) / 8] |= 1 << (x % 8);
    }
    let row = 27 * COLUMNS / 8;
    let drawn = &bits[row..row + width(&text, 2) / 8];
    town.note_form("drawn in an overlay", &text, drawn);
    o.word(0x6000_0010, ROWS as u16)
        .word(0x6000_0011, COLUMNS as u16)
        .put(0x6000_0040, b"CS", "G")
        .put(0x6000_0050, b"SS", [1_u8, 0, 1, 0])
        .word(0x6000_0100, 1)
        .word(0x6000_0102, 0)
        .put(0x6000_0022, b"LO", town.text("overlay description"))
        .put(0x6000_1500, b"LO", town.text("overlay label"))
        .put(0x6000_3000, b"OW", bits);
}

/// A name in the bits above the stored ones.
fn overlay_in_high_bits(town: &mut Town, o: &mut Object, pixels: &mut [u8]) {
    let text = town.latin();
    for (x, y) in dots(&text, (0, 30), 1) {
        pixels[2 * (y * COLUMNS + x) + 1] |= 0x80;
    }
    let row = 2 * 33 * COLUMNS;
    let drawn = pixels[row..row + 2 * width(&text, 1)].to_vec();
    town.note_form("drawn in high bits", &text, &drawn);
    o.word(0x6002_0010, ROWS as u16)
        .word(0x6002_0011, COLUMNS as u16)
        .word(0x6002_0100, 16)
        .word(0x6002_0102, 15);
}

/// Literal runs of RLE: every byte as it is.
fn run_length(frames: &[u8], frame_size: usize) -> Vec<u8> {
    let item = |out: &mut Vec<u8>, bytes: &[u8]| {
        out.extend_from_slice(&[0xFE, 0xFF, 0x00, 0xE0]);
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    let mut out = Vec::new();
    item(&mut out, &[]);
    for frame in frames.chunks(frame_size) {
        let mut stream = vec![0; 64];
        stream[0] = 1;
        stream[4] = 64;
        for run in frame.chunks(COLUMNS / 2) {
            stream.push(run.len() as u8 - 1);
            stream.extend_from_slice(run);
        }
        stream.resize(stream.len().next_multiple_of(2), 0);
        item(&mut out, &stream);
    }
    out.extend_from_slice(&[0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]);
    out
}

/// One object of a kind; its data set, and pixels that come behind it with their own heads.
fn object(town: &mut Town, kind: (&str, &str, &str, bool)) -> (Object, Vec<u8>) {
    let (name, class, modality, pixels) = kind;
    let mut o = base(town, class, modality);
    let mut behind = Vec::new();
    if pixels {
        let burned = matches!(name, "us" | "sc" | "ct-burned");
        match name {
            "us" => {
                let frames = image(town, &mut o, 1, 1, burned);
                behind.extend_from_slice(&[0xE0, 0x7F, 0x10, 0x00, b'O', b'B', 0, 0]);
                behind.extend_from_slice(&[0xFF; 4]);
                behind.extend(run_length(&frames, ROWS * COLUMNS));
            }
            "sc" => {
                let samples = image(town, &mut o, 3, 1, burned);
                o.put(0x7FE0_0010, b"OB", samples);
            }
            _ => {
                let mut samples = image(town, &mut o, 1, 2, burned);
                if name == "mr" {
                    overlay_in_high_bits(town, &mut o, &mut samples);
                }
                // Behind the last pixel, and in the padding of the file.
                samples.extend_from_slice(town.number("behind the pixels").as_bytes());
                o.put(0x7FE0_0010, b"OW", samples);
                o.put(0xFFFC_FFFC, b"OB", town.number("trailing padding"));
            }
        }
        overlay(town, &mut o);
        if matches!(name, "cr" | "dx") {
            o.put(0x0028_0301, b"CS", "NO");
        }
        let mut icon = Object::default();
        icon.word(0x0028_0010, 2)
            .word(0x0028_0011, 8)
            .put(0x7FE0_0010, b"OW", town.number("icon"));
        o.items(0x0088_0200, vec![icon]);
    }
    let mut item = Object::default();
    match name {
        "sr" | "ko" => content(town, &mut o),
        "pdf" => {
            o.put(
                0x0042_0011,
                b"OB",
                format!("%PDF-1.4 {}", town.place("document")),
            );
        }
        "seg" => {
            item.put(0x0062_0005, b"LO", town.text("segment")).put(
                0x0062_0006,
                b"ST",
                town.text("segment"),
            );
            o.items(0x0062_0002, vec![item]);
        }
        "rtstruct" => {
            item.put(0x3006_0026, b"LO", town.text("region of interest"))
                .put(0x3006_0028, b"ST", town.text("region of interest"));
            o.items(0x3006_0020, vec![item]);
        }
        "rtplan" => {
            o.put(0x300A_0002, b"SH", town.number("plan")).put(
                0x300E_0008,
                b"PN",
                town.person("reviewer"),
            );
        }
        "pr" => {
            item.put(0x0070_0006, b"ST", town.text("annotation"));
            let mut note = Object::default();
            note.put(0x0070_0002, b"CS", "LAYER")
                .items(0x0070_0008, vec![item]);
            o.items(0x0070_0001, vec![note])
                .put(0x0070_0084, b"PN", town.person("creator"));
        }
        "ecg" => {
            item.put(0x003A_0203, b"SH", town.number("channel")).put(
                0x5400_1010,
                b"OW",
                [1_u8, 0, 2, 0],
            );
            o.items(0x5400_0100, vec![item]);
        }
        "raw" => {
            o.put(0x0023_0010, b"LO", "INVENTED MAKER 2")
                .put(0x0023_1001, b"OB", town.text("raw data"))
                .put(0x0040_0555, b"SQ", b"");
        }
        "display" | "protocol" => {
            item.put(0x0072_0006, b"LO", town.text("display"))
                .put(0x0072_000E, b"SH", town.number("display"))
                .put(0x0070_0006, b"ST", town.text("display"));
            o.put(0x0072_0002, b"SH", town.number("display"))
                .put(0x0072_0008, b"PN", town.person("creator"))
                .items(0x0072_0422, vec![item]);
        }
        _ => {}
    }
    (o, behind)
}

/// The file: in turn with VRs, without, deflated.
fn file(town: &mut Town, o: &Object, behind: &[u8], n: usize) -> (Vec<u8>, &'static str) {
    let preamble = town.number("preamble");
    let meta = town.number("file meta");
    let syntax = match (behind.is_empty(), n % 5) {
        (false, _) => "1.2.840.10008.1.2.5",
        (true, 1 | 2) => "1.2.840.10008.1.2",
        (true, 4) => "1.2.840.10008.1.2.1.99",
        _ => "1.2.840.10008.1.2.1",
    };
    let mut data = o.encode(syntax != "1.2.840.10008.1.2");
    if syntax.ends_with(".99") {
        let mut deflate = DeflateEncoder::new(Vec::new(), Compression::fast());
        deflate.write_all(&data).unwrap();
        data = deflate.finish().unwrap();
    }
    let bytes = [
        Object::head(syntax, &preamble, &meta),
        data,
        behind.to_vec(),
    ]
    .concat();
    (bytes, syntax)
}

/// What is looked for: bytes in lower case, or base64 as it stands.
struct Scan {
    by_start: HashMap<[u8; 4], Vec<(usize, Vec<u8>)>>,
    exact: HashMap<[u8; 4], Vec<(usize, Vec<u8>)>>,
    /// Needles in all.
    count: usize,
}

impl Scan {
    fn new(known: &[Identity]) -> Self {
        let mut scan = Self {
            by_start: HashMap::new(),
            exact: HashMap::new(),
            count: 0,
        };
        for (n, identity) in known.iter().enumerate() {
            let text = &identity.text;
            let in_text = !identity.what.contains("burned") && !identity.what.contains("drawn");
            let mut forms = vec![identity.planted.clone()];
            // Without the escape sequences that lead in and out of a character set.
            let inner = identity.planted.strip_prefix(b"\x1B$B");
            let inner = inner.and_then(|i| i.strip_suffix(b"\x1B(B"));
            forms.extend(inner.map(<[u8]>::to_vec));
            forms.extend(
                identity
                    .planted
                    .strip_prefix(b"\x1B$)C")
                    .map(<[u8]>::to_vec),
            );
            if in_text {
                for text in [
                    text.clone(),
                    text.to_lowercase(),
                    text.replace('^', " "),
                    text.replace(' ', "^"),
                ] {
                    forms.push(text.clone().into_bytes());
                    forms.push(text.encode_utf16().flat_map(u16::to_le_bytes).collect());
                    forms.push(text.encode_utf16().flat_map(u16::to_be_bytes).collect());
                }
            }
            forms.sort();
            forms.dedup();
            for form in forms {
                let mut hex = String::new();
                for byte in &form {
                    let _ = write!(hex, "{byte:02x}");
                }
                scan.add(n, hex.into_bytes(), false);
                for skip in 0..3 {
                    scan.add(n, base64(&form, skip), true);
                }
                scan.add(n, form.to_ascii_lowercase(), false);
            }
        }
        scan
    }

    fn add(&mut self, n: usize, needle: Vec<u8>, exact: bool) {
        let Some(start) = needle.first_chunk::<4>().copied() else {
            return;
        };
        self.count += 1;
        let to = if exact {
            &mut self.exact
        } else {
            &mut self.by_start
        };
        to.entry(start).or_default().push((n, needle));
    }

    /// Which identities stand in the bytes.
    fn found(&self, bytes: &[u8]) -> Vec<usize> {
        let masked = without_new_uids(bytes);
        let mut found = Vec::new();
        for (needles, hay) in [
            (&self.by_start, masked.to_ascii_lowercase()),
            (&self.exact, masked),
        ] {
            for at in 0..hay.len().saturating_sub(3) {
                let Some(list) = needles.get(&hay[at..at + 4]) else {
                    continue;
                };
                let here = list
                    .iter()
                    .filter(|(_, needle)| hay[at..].starts_with(needle));
                found.extend(here.map(|(n, _)| *n));
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// New UIDs are 39 digits of a keyed hash: in millions of them any date turns up.
fn without_new_uids(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let mut at = 0;
    while let Some(next) = out[at..].windows(5).position(|part| part == b"2.25.") {
        at += next;
        while at < out.len() && (out[at].is_ascii_digit() || out[at] == b'.') {
            out[at] = b'#';
            at += 1;
        }
    }
    out
}

/// Base64 of bytes that stand `skip` bytes behind a multiple of three, without the digits at the ends
/// that depend on what stands beside.
fn base64(bytes: &[u8], skip: usize) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: Vec<u8> = bytes
        .iter()
        .flat_map(|b| (0..8).rev().map(move |n| b >> n & 1))
        .collect();
    let start = [0, 4, 2][skip];
    bits[start..]
        .chunks_exact(6)
        .map(|six| DIGITS[six.iter().fold(0, |n, bit| n << 1 | usize::from(*bit))])
        .collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = WalkDir::new(folder).sort_by_file_name().into_iter();
    let files = entries
        .map(Result::unwrap)
        .filter(|e| e.file_type().is_file());
    files.map(walkdir::DirEntry::into_path).collect()
}

#[test]
fn base64_is_found_at_every_place() {
    // RFC 4648: "Hello" is SGVsbG8=, "xHello" eEhlbGxv, "xyHello" eHlIZWxsbw==.
    assert_eq!(base64(b"Hello", 0), b"SGVsbG");
    assert_eq!(base64(b"Hello", 1), b"hlbGxv");
    assert_eq!(base64(b"Hello", 2), b"IZWxsb");
}

/// The whole way through the program; nothing of what went in may come out.
#[test]
fn nothing_that_the_program_leaves_behind_names_anybody() {
    let place = Place::new();
    // Kept for a comparison with other programs: tests/golden/deidentify/compare.py.
    let kept =
        std::env::var_os("NEGATOSCOPE_KEEP_CASES").map(|kept| Path::new(&kept).join("leaks"));
    let input = place.path("in");
    let kinds: Vec<_> = KINDS.into_iter().chain(MORE_KINDS).collect();
    let mut town = Town::new(20_260_131);
    let mut raw = Vec::new();
    let mut zipped = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let objects = 264;
    for n in 0..objects {
        town.charset = n % CHARSETS.len();
        let kind = kinds[n % kinds.len()];
        let (o, behind) = object(&mut town, kind);
        let (bytes, _) = file(&mut town, &o, &behind, n);
        let (folder, name) = (town.latin(), town.number("file name"));
        town.note_form("folder name", &folder, folder.as_bytes());
        raw.extend_from_slice(&o.encode(true));
        raw.extend_from_slice(&bytes);
        let path = format!("{folder}/{name}.dcm");
        raw.extend_from_slice(path.as_bytes());
        if n % 7 == 3 {
            let options = zip::write::SimpleFileOptions::default();
            zipped.start_file(path, options).unwrap();
            zipped.write_all(&bytes).unwrap();
        } else {
            let path = input.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, &bytes).unwrap();
        }
        if let Some(kept) = &kept {
            fs::create_dir_all(kept.join("in")).unwrap();
            fs::write(kept.join(format!("in/{n:03}-{}.dcm", kind.0)), &bytes).unwrap();
        }
    }
    if let Some(kept) = &kept {
        let all = town
            .known
            .iter()
            .map(|i| json!({"what": i.what, "text": i.text, "planted": i.planted}));
        fs::write(
            kept.join("identities.json"),
            json!(all.collect::<Vec<_>>()).to_string(),
        )
        .unwrap();
    }
    let archive = zipped.finish().unwrap().into_inner();
    fs::write(input.join("more.zip"), archive).unwrap();
    let scan = Scan::new(&town.known);
    assert!(town.known.len() >= 2000 && kinds.len() >= 15);
    // The scan finds everybody in what goes in.
    let there = scan.found(&raw);
    let missing: Vec<&Identity> = (0..town.known.len())
        .filter(|n| there.binary_search(n).is_err())
        .map(|n| &town.known[n])
        .collect();
    assert!(
        missing.is_empty(),
        "{} of {}: {:?}",
        missing.len(),
        town.known.len(),
        &missing[..3.min(missing.len())]
    );
    let list = json!({"rules": [
        {"modality": "US", "rows": ROWS, "columns": COLUMNS, "regions": [[0, 0, COLUMNS, 22]]},
        {"modality": "OT", "sop_class": "1.2.840.10008.5.1.4.1.1.7", "regions": [[0, 0, COLUMNS, 22]]},
    ]});
    fs::write(place.path("list.json"), list.to_string()).unwrap();
    for profile in [
        "basic",
        "clean-descriptors,clean-structured-content,clean-graphics,retain-safe-private",
    ] {
        let out = place.path(&format!("out {}", profile.len()));
        let ran = place.run(&[
            "deidentify",
            "in",
            "--out",
            out.to_str().unwrap(),
            "--profile",
            profile,
            "--redact",
            "list.json",
            "--report",
            "report.json",
            "--json",
        ]);
        assert_eq!(ran.code, Some(3), "{}", ran.err);
        let report = ran.json();
        let count = |name: &str| report[name].as_array().unwrap().len();
        let (written, held, refused) = (
            report["written"].as_u64().unwrap(),
            count("held_back"),
            count("refused"),
        );
        // MG, XA and the CT with a name in it are held; documents are refused.
        assert_eq!((written, held, refused), (220, 33, 11), "{report:#}");
        assert_eq!(count("redacted"), 22, "{report:#}");
        let mut leaks: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut look = |place: &str, bytes: &[u8]| {
            for n in scan.found(bytes) {
                let Identity { what, text, .. } = &town.known[n];
                leaks
                    .entry(format!("{what} in {place}"))
                    .or_default()
                    .push(text.clone());
            }
        };
        look("standard output", ran.out.as_bytes());
        look("standard error", ran.err.as_bytes());
        look("the report", &fs::read(place.path("report.json")).unwrap());
        let mut bytes = 0;
        for path in files(&out) {
            look(
                "a file name",
                path.strip_prefix(&out)
                    .unwrap()
                    .to_string_lossy()
                    .as_bytes(),
            );
            let written = fs::read(&path).unwrap();
            bytes += written.len();
            // Nothing that is written is packed, so no identity hides in a stream.
            assert!(
                !written
                    .windows(22)
                    .any(|part| part == b"1.2.840.10008.1.2.1.99")
            );
            look("a written file", &written);
        }
        if let Some(kept) = &kept {
            for (n, path) in files(&out).iter().enumerate() {
                let to = kept.join(out.file_name().unwrap());
                fs::create_dir_all(&to).unwrap();
                fs::copy(path, to.join(format!("{n:03}.dcm"))).unwrap();
            }
        }
        for path in files(&place.path("home")) {
            look("the program's home", &fs::read(&path).unwrap());
            look("the program's home", path.to_string_lossy().as_bytes());
        }
        for form in ["atna-xml", "fhir", "csv"] {
            for more in [&[][..], &["--pseudonyms"]] {
                let told = place.run(&[&["audit", "export", "--format", form], more].concat());
                assert_eq!(told.code, Some(0), "{}", told.err);
                assert!(told.out.len() > 200);
                look("an export of the log", told.out.as_bytes());
            }
        }
        assert!(leaks.is_empty(), "{leaks:#?}");
        println!(
            "{} identities as {} needles in {objects} objects of {} kinds, {profile}: none in {written} written files ({bytes} bytes), report, log and its exports; {held} held, {refused} refused",
            town.known.len(),
            scan.count,
            kinds.len(),
        );
    }
}
