//! Burned-in text: found by its looks, blackened in every kind of pixels, and nothing else changed.

use std::fs;
use std::path::{Path, PathBuf};

use negatoscope::deidentify::{
    FoundText, Key, Options, PixelWork, Redactions, Report, Request, find_text, run,
};
use negatoscope::dicom::{Sources, Tree, decode_file};
use negatoscope::task::Task;
use serde_json::{Value, json};

use crate::deidentify::receipt;
use crate::deidentify_objects::Object;
use crate::lettering::{dots, width};

/// Runs over a folder `in`; gives what was written, by the SOP Instance UID of the original.
struct Bench {
    folder: tempfile::TempDir,
    key: Key,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("in")).unwrap();
        Self {
            folder,
            key: Key::new(&[7; 32]),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, inputs: &[PathBuf], out: &str, rules: Value, work: PixelWork) -> Report {
        let list = self.path("list.json");
        fs::write(&list, json!({ "rules": rules }).to_string()).unwrap();
        let request = Request {
            inputs,
            out: &self.path(out),
            options: Options::default(),
            allow_burned_in: false,
            pixel_work: PixelWork {
                redactions: Redactions::read(&list).unwrap(),
                ..work
            },
            key: &self.key,
        };
        run(&request, &receipt(&self.path("home")), &Task::new()).unwrap()
    }

    fn written(&self, out: &str, old: &Tree) -> Option<Vec<u8>> {
        let uid = |tag| self.key.uid(&old.text_of(tag));
        let folder = self.path(out).join(uid(0x0020_000D).as_str());
        let name = format!("{}.dcm", uid(0x0008_0018));
        fs::read(folder.join(uid(0x0020_000E).as_str()).join(name)).ok()
    }
}

/// A small image whose bytes count up.
struct Made {
    samples: u16,
    photometric: &'static str,
    planar: u16,
    bits: u16,
    stored: u16,
    high: u16,
    signed: u16,
    vr: &'static [u8; 2],
}

const ROWS: usize = 6;
const COLUMNS: usize = 8;
const FRAMES: usize = 2;

impl Made {
    fn bytes(&self) -> Vec<u8> {
        let samples = if self.photometric == "YBR_FULL_422" {
            2
        } else {
            usize::from(self.samples)
        };
        let bits = ROWS * COLUMNS * FRAMES * samples * usize::from(self.bits);
        (0..bits / 8).map(|n| (n * 37 % 251) as u8).collect()
    }

    fn object(&self) -> Object {
        let mut o = Object::default();
        o.put(0x0008_0016, b"UI", "1.2.840.10008.5.1.4.1.1.7.4")
            .put(0x0008_0018, b"UI", "1.2.3.4.1")
            .put(0x0020_000D, b"UI", "1.2.3.4.2")
            .put(0x0020_000E, b"UI", "1.2.3.4.3")
            .put(0x0008_0008, b"CS", "ORIGINAL\\PRIMARY")
            .put(0x0008_0060, b"CS", "OT")
            .word(0x0028_0002, self.samples)
            .put(0x0028_0004, b"CS", self.photometric)
            .put(0x0028_0008, b"IS", FRAMES.to_string())
            .word(0x0028_0010, ROWS as u16)
            .word(0x0028_0011, COLUMNS as u16)
            .word(0x0028_0100, self.bits)
            .word(0x0028_0101, self.stored)
            .word(0x0028_0102, self.high)
            .word(0x0028_0103, self.signed)
            .put(0x7FE0_0010, self.vr, self.bytes());
        if self.samples == 3 {
            o.word(0x0028_0006, self.planar);
        }
        o
    }

    /// Literal: the bits of pixel `(x, y)` of a frame, as (first bit, number of bits).
    fn bits_of(&self, frame: usize, x: usize, y: usize) -> Vec<(usize, usize)> {
        let (pixels, bits) = (ROWS * COLUMNS, usize::from(self.bits));
        let at = y * COLUMNS + x;
        match (self.photometric, self.planar, self.samples) {
            // Y Y Cb Cr of a pair.
            ("YBR_FULL_422", ..) => vec![((frame * pixels + at / 2 * 2) * 16, 32)],
            (_, 1, 3) => (0..3)
                .map(|s| ((frame * 3 * pixels + s * pixels + at) * bits, bits))
                .collect(),
            (_, _, samples) => {
                let samples = usize::from(samples);
                vec![((frame * pixels + at) * samples * bits, samples * bits)]
            }
        }
    }
}

/// Every kind of native pixels: the region gets the ink, every other bit stays as it was.
#[test]
fn native_pixels_change_in_the_region_alone() {
    let check = |made: Made, ink: &[u8]| {
        let bench = Bench::new();
        let file = bench.path("in/a.dcm");
        let original = made.object().file(true, "", "");
        fs::write(&file, &original).unwrap();
        // Even columns: pairs of YBR_FULL_422 are whole.
        let rules = json!([{"file": "a.dcm", "regions": [[2, 1, 4, 3]]}]);
        let work = PixelWork {
            reviewed: true,
            ..PixelWork::default()
        };
        let report = bench.run(&[bench.path("in")], "out", rules, work);
        let what = format!("{} {} bit", made.photometric, made.bits);
        assert_eq!(report.written, 1, "{what}: {report:?}");
        assert_eq!(report.redacted.len(), 1);
        let old = Tree::read(original).unwrap();
        let new = Tree::read(bench.written("out", &old).unwrap()).unwrap();
        assert_eq!(new.text_of(0x0008_0008), "DERIVED\\PRIMARY");
        assert_eq!(new.text_of(0x0028_0301), "NO");
        assert!(new.text_of(0x0012_0063).ends_with("113101"));
        let mut expected = made.bytes();
        for frame in 0..FRAMES {
            for (x, y) in (1..4).flat_map(|y| (2..6).map(move |x| (x, y))) {
                for (sample, (first, count)) in made.bits_of(frame, x, y).into_iter().enumerate() {
                    if count == 1 {
                        expected[first / 8] &= !(1 << (first % 8));
                    } else {
                        let bytes = count / 8;
                        let ink = if ink.len() == bytes {
                            ink
                        } else {
                            &ink[sample * bytes..][..bytes]
                        };
                        expected[first / 8..first / 8 + bytes].copy_from_slice(ink);
                    }
                }
            }
        }
        assert!(new.pixels() == expected, "{what}");
    };
    let gray = |bits, stored, signed| Made {
        samples: 1,
        photometric: "MONOCHROME2",
        planar: 0,
        bits,
        stored,
        high: stored - 1,
        signed,
        vr: b"OW",
    };
    let color = |photometric, planar, bits| Made {
        samples: 3,
        photometric,
        planar,
        vr: b"OB",
        ..gray(bits, bits, 0)
    };
    // The counting bytes of 8-bit pixels begin with 0.
    check(gray(8, 8, 0), &[0]);
    let made = Made {
        photometric: "MONOCHROME1",
        ..gray(8, 8, 0)
    };
    let greatest = made.bytes().into_iter().max().unwrap();
    check(made, &[greatest]);
    check(gray(1, 1, 0), &[]);
    check(color("RGB", 0, 8), &[0; 3]);
    check(color("RGB", 1, 8), &[0; 3]);
    check(color("RGB", 0, 16), &[0; 6]);
    check(color("YBR_FULL", 0, 8), &[0, 128, 128]);
    check(color("YBR_FULL_422", 0, 8), &[0, 0, 128, 128]);
    // Lowest values, found by hand.
    let least = |made: &Made, of: &dyn Fn([u8; 2]) -> i32| {
        let bytes = made.bytes();
        bytes.chunks(2).map(|b| of([b[0], b[1]])).min().unwrap()
    };
    let made = gray(16, 16, 1);
    let low = least(&made, &|b| i32::from(i16::from_le_bytes(b)));
    check(made, &(low as i16).to_le_bytes());
    let made = gray(16, 16, 0);
    let low = least(&made, &|b| i32::from(u16::from_le_bytes(b)));
    check(made, &(low as u16).to_le_bytes());
    // Twelve bits that begin at the fourth.
    let made = Made {
        high: 15,
        ..gray(16, 12, 0)
    };
    let low = least(&made, &|b| i32::from(u16::from_le_bytes(b) >> 4));
    check(made, &((low as u16) << 4).to_le_bytes());
}

fn data() -> Option<PathBuf> {
    let data = std::env::var_os("NEGATOSCOPE_TEST_DATA").map(PathBuf::from);
    if data.is_none() {
        println!("skipped: NEGATOSCOPE_TEST_DATA is not set");
    }
    data
}

/// Real files in every transfer syntax: decoded before and after by the reader of the program.
#[test]
fn compressed_pixels_are_unpacked_and_stay_the_same_outside() {
    let Some(data) = data() else { return };
    let bench = Bench::new();
    let inputs = [data.join("dicom-syntax")];
    let sources = Sources::find(&inputs, &Task::new()).unwrap();
    let mut rules = Vec::new();
    let mut originals = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for source in &sources.found {
        let path = source.to_string();
        let Ok(tree) = sources.open(source) else {
            continue;
        };
        let Some(old) = fs::read(&path).ok().and_then(|b| decode_file(b).ok()) else {
            continue;
        };
        // Several test files are versions of one instance: the first is written.
        if !seen.insert(tree.text_of(0x0008_0018)) {
            continue;
        }
        let size = |tag| usize::from(tree.word_of(tag).unwrap());
        let (rows, columns) = (size(0x0028_0010), size(0x0028_0011));
        let region = [
            columns / 4,
            rows / 4,
            (columns / 2).max(1),
            (rows / 2).max(1),
        ];
        rules.push(json!({"file": path, "regions": [region]}));
        originals.push((path, tree, old, region, columns));
    }
    let report = bench.run(&inputs, "out", json!(rules), PixelWork::default());
    let (mut unpacked, mut compared) = (0, 0);
    for (path, tree, old, [x, y, w, h], columns) in originals {
        let Some(bytes) = bench.written("out", &tree) else {
            continue;
        };
        let new_tree = Tree::read(bytes.clone()).unwrap();
        if old.format.float || !new_tree.text_of(0x0008_0008).starts_with("DERIVED") {
            continue;
        }
        unpacked += usize::from(tree.encapsulated());
        assert!(!new_tree.encapsulated());
        if tree.is_lossy() {
            assert_eq!(new_tree.text_of(0x0028_2110), "01", "{path}");
        }
        let new = decode_file(bytes).unwrap();
        assert_eq!(old.frames.len(), new.frames.len());
        let samples = old.format.samples;
        // Pairs that share their colors are blackened together.
        let (left, right) = if tree.text_of(0x0028_0004) == "YBR_FULL_422" && !tree.encapsulated() {
            (x / 2 * 2, (x + w).next_multiple_of(2))
        } else {
            (x, x + w)
        };
        for (a, b) in old.frames.iter().zip(&new.frames) {
            let inside = |n: usize| {
                let (column, row) = (n / samples % columns, n / samples / columns);
                (left..right).contains(&column) && (y..y + h).contains(&row)
            };
            for n in (0..a.samples.len()).filter(|n| !inside(*n)) {
                assert!(a.samples.at(n) == b.samples.at(n), "{path}: sample {n}");
            }
            let first = (y * columns + x) * samples;
            for n in (0..a.samples.len()).filter(|n| inside(*n)) {
                assert!(
                    b.samples.at(n) == b.samples.at(first + n % samples),
                    "{path}"
                );
            }
        }
        compared += 1;
    }
    println!(
        "{compared} compared, {unpacked} of them unpacked; {} refused",
        report.refused.len()
    );
    assert!(
        compared >= 35 && unpacked >= 20,
        "{compared} {unpacked}: {report:#?}"
    );
}

fn hits(found: &[FoundText], text: &str, scale: usize, (x, y): (usize, usize)) -> bool {
    found.iter().any(|f| {
        let r = f.region;
        let (right, bottom) = (x + width(text, scale), y + 7 * scale);
        f.score >= 0.5 && r.x < right && r.x + r.width > x && r.y < bottom && r.y + r.height > y
    })
}

/// Text over real images of patients, and the same images without it. Rates are printed.
#[test]
fn letters_are_found_on_real_images_and_hardly_any_where_none_are() {
    let Some(data) = data() else { return };
    let folders = ["dicom-series", "dicom-with-nifti-truth"].map(|f| data.join(f));
    let sources = Sources::find(&folders, &Task::new()).unwrap();
    let texts = ["SMITH JOHN", "MRN 4711023", "1961-03-12", "A20417734 F"];
    let (mut images, mut wrong, mut tried, mut found) = (0, 0, 0, 0);
    for (n, source) in sources.found.iter().enumerate().filter(|(n, _)| n % 4 == 0) {
        let Some(old) = fs::read(source.to_string())
            .ok()
            .and_then(|b| decode_file(b).ok())
        else {
            continue;
        };
        let (columns, rows) = (old.format.columns, old.format.rows);
        let samples = &old.frames[0].samples;
        let plain: Vec<f32> = (0..columns * rows)
            .map(|p| samples.at(p * old.format.samples) as f32)
            .collect();
        images += 1;
        wrong += usize::from(find_text(&plain, columns).iter().any(|f| f.score >= 0.8));
        let text = texts[n / 4 % 4];
        let scale = 1 + n / 4 % 3;
        if columns < width(text, scale) + 8 {
            continue;
        }
        let highest = plain.iter().copied().fold(f32::MIN, f32::max);
        // In a corner, where machines write.
        let left = if n % 8 == 0 {
            4
        } else {
            columns - width(text, scale) - 4
        };
        let place = (left, if n % 3 == 0 { 4 } else { rows - 7 * scale - 5 });
        let mut written = plain.clone();
        for (x, y) in dots(text, place, scale) {
            written[y * columns + x] = highest;
        }
        tried += 1;
        found += usize::from(hits(&find_text(&written, columns), text, scale, place));
    }
    println!(
        "text found on {found} of {tried} images; {wrong} of {images} images without text taken for text"
    );
    assert!(
        tried >= 20 && found * 100 >= tried * 85,
        "{found} of {tried}"
    );
    assert!(
        images >= 25 && wrong * 100 <= images * 4,
        "{wrong} of {images}"
    );
}

/// A CT image, `frames` of them in one file, with noise that changes and letters that do not.
fn noisy(frames: usize, text: Option<(&str, (usize, usize))>) -> Object {
    let (columns, rows) = (128_usize, 96_usize);
    let mut o = Object::default();
    o.put(0x0008_0016, b"UI", "1.2.840.10008.5.1.4.1.1.2.1")
        .put(0x0008_0018, b"UI", "1.2.3.4.1")
        .put(0x0020_000D, b"UI", "1.2.3.4.2")
        .put(0x0020_000E, b"UI", "1.2.3.4.3")
        .put(0x0008_0060, b"CS", "CT")
        .word(0x0028_0002, 1)
        .put(0x0028_0004, b"CS", "MONOCHROME2")
        .put(0x0028_0008, b"IS", frames.to_string())
        .word(0x0028_0010, rows as u16)
        .word(0x0028_0011, columns as u16)
        .word(0x0028_0100, 8)
        .word(0x0028_0101, 8)
        .word(0x0028_0102, 7)
        .word(0x0028_0103, 0);
    let mut state = 1_u32;
    let mut bytes = Vec::new();
    for _ in 0..frames {
        let mut frame: Vec<u8> = (0..columns * rows)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // Now and then as bright as letters.
                if state >> 27 == 0 {
                    255
                } else {
                    (state >> 25) as u8
                }
            })
            .collect();
        if let Some((text, place)) = text {
            for (x, y) in dots(text, place, 2) {
                frame[y * columns + x] = 255;
            }
        }
        bytes.extend(frame);
    }
    o.put(0x7FE0_0010, b"OB", bytes);
    o
}

#[test]
fn letters_that_stand_still_are_found_through_moving_noise_and_blackened() {
    let bench = Bench::new();
    let file = bench.path("in/a.dcm");
    let text = ("KOWALSKI", (14, 40));
    let bytes = noisy(12, Some(text)).file(true, "", "");
    fs::write(&file, &bytes).unwrap();
    let held = bench.run(&[bench.path("in")], "held", json!([]), PixelWork::default());
    assert_eq!((held.written, held.held_back.len()), (0, 1), "{held:#?}");
    assert!(held.held_back[0].reason.contains("lines of text"));
    assert!(hits(&held.text_found[0].lines, text.0, 2, text.1));
    let work = PixelWork {
        redact_found: true,
        ..PixelWork::default()
    };
    let done = bench.run(&[bench.path("in")], "out", json!([]), work);
    assert_eq!((done.written, done.redacted.len()), (1, 1), "{done:#?}");
    let tree = Tree::read(bytes).unwrap();
    let new = bench.written("out", &tree).unwrap();
    let new_tree = Tree::read(new.clone()).unwrap();
    // Nobody has looked at it: nothing is claimed.
    assert_eq!(new_tree.text_of(0x0028_0301), "");
    assert!(!new_tree.text_of(0x0012_0063).contains("113101"));
    for frame in decode_file(new).unwrap().frames {
        let ink = frame
            .samples
            .at(dots(text.0, text.1, 2)[0].1 * 128 + text.1.0);
        for (x, y) in dots(text.0, text.1, 2) {
            assert!(frame.samples.at(y * 128 + x) == ink);
        }
    }
    // The same without letters goes through.
    fs::write(&file, noisy(12, None).file(true, "", "")).unwrap();
    let plain = bench.run(
        &[bench.path("in")],
        "plain",
        json!([]),
        PixelWork::default(),
    );
    assert_eq!(plain.written, 1, "{plain:#?}");
}

#[test]
fn a_region_outside_of_the_image_is_refused() {
    let bench = Bench::new();
    let bytes = noisy(1, None).file(true, "", "");
    fs::write(bench.path("in/a.dcm"), bytes).unwrap();
    let check = |region: [usize; 4], written: usize| {
        let rules = json!([{"modality": "ct", "rows": 96, "regions": [region]}]);
        let out = format!("out {region:?}");
        let report = bench.run(&[bench.path("in")], &out, rules, PixelWork::default());
        assert_eq!(report.written, written, "{report:#?}");
        assert_eq!(report.refused.len(), 1 - written);
    };
    check([128, 0, 5, 5], 0);
    check([0, 96, 5, 5], 0);
    check([120, 90, usize::MAX / 2, usize::MAX], 1);
    assert!(Path::new(&bench.path("in")).exists());
}
