//! The house rules that a compiler does not check: who may use whom, names, words, lengths.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const WORDS: &[&str] = &[
    "geometry",
    "volume",
    "study",
    "findings",
    "task",
    "redact",
    "whole_file",
];

/// Who may use whom; `words` stands for all of [`WORDS`]. A room may always use itself.
const MAY_USE: &[(&str, &[&str])] = &[
    ("geometry", &[]),
    ("redact", &[]),
    ("task", &[]),
    ("whole_file", &[]),
    ("key_file", &["whole_file"]),
    ("kernels", &[]),
    ("study", &["geometry", "redact"]),
    // A volume carries its doubts and the UIDs that it came from.
    ("volume", &["geometry", "task", "study", "redact"]),
    // Who has reviewed a finding is nobody else's business.
    ("findings", &["geometry", "volume", "study", "redact"]),
    ("audit", &["study", "redact", "whole_file", "key_file"]),
    ("dicom", &["words"]),
    (
        "nifti",
        &[
            "geometry",
            "volume",
            "study",
            "findings",
            "task",
            "whole_file",
        ],
    ),
    ("model", &["study", "findings", "task", "whole_file"]),
    ("render", &["geometry", "volume", "findings", "whole_file"]),
    (
        "inference",
        &[
            "geometry", "volume", "study", "findings", "task", "model", "kernels",
        ],
    ),
    (
        "import",
        &[
            "study",
            "findings",
            "model",
            "inference",
            "task",
            "whole_file",
        ],
    ),
    // Training sets lie in NIfTI files too; DICOM comes through a reader that `runtime` gives.
    (
        "training",
        &["words", "model", "inference", "kernels", "nifti"],
    ),
    // What de-identification writes has left: it asks for the receipt of the log.
    ("deidentify", &["words", "dicom", "audit", "key_file"]),
    ("export", &["words", "dicom", "nifti", "audit"]),
    // The wire side knows no room that holds a patient: bytes and numbers alone have a way in.
    ("offload", &["task", "redact", "whole_file", "key_file"]),
    // Sealed bytes; what they are is its owner's business.
    ("queue", &["whole_file", "key_file"]),
    // Plain facts about runs and decisions; no room that knows patients.
    ("monitoring", &["findings"]),
    ("app", &["words", "model", "audit"]),
    (
        "runtime",
        &[
            "words",
            "audit",
            "deidentify",
            "dicom",
            "export",
            "import",
            "inference",
            "kernels",
            "model",
            "monitoring",
            "nifti",
            "offload",
            "queue",
            "render",
            "training",
            "app",
            "batch",
        ],
    ),
    (
        "ui",
        &[
            "geometry", "volume", "study", "findings", "redact", "task", "model", "render", "app",
            "runtime",
        ],
    ),
    // A batch puts each study on record and exports it; what it needs beyond comes through a trait
    // that `runtime` implements.
    ("batch", &["words", "audit", "export", "model"]),
    (
        "cli",
        &[
            "words",
            "audit",
            "deidentify",
            "dicom",
            "export",
            "import",
            "inference",
            "kernels",
            "key_file",
            "model",
            "monitoring",
            "nifti",
            "offload",
            "queue",
            "render",
            "training",
            "app",
            "runtime",
            "ui",
            "batch",
        ],
    ),
];

/// Outside technology and the rooms that may know it.
const KNOWN_BY: &[(&str, &[&str])] = &[
    ("dicom_core", &["dicom"]),
    ("dicom_dictionary_std", &["dicom"]),
    ("dicom_encoding", &["dicom"]),
    ("dicom_object", &["dicom"]),
    ("dicom_parser", &["dicom"]),
    ("dicom_transfer_syntax_registry", &["dicom"]),
    ("jpeg_decoder", &["dicom", "training"]),
    ("zip", &["dicom", "import", "model", "training"]),
    ("candle_core", &["inference", "training"]),
    ("safetensors", &["model", "import", "training"]),
    ("eframe", &["ui", "render"]),
    ("egui", &["ui"]),
    ("keyring", &["key_file"]),
    ("reqwest", &["offload"]),
    ("hyper", &["offload"]),
    ("rustls", &["offload", "audit"]),
    ("webpki", &["offload"]),
    ("tokio", &["offload"]),
    ("rfd", &["runtime"]),
    ("clap", &["cli"]),
    ("anyhow", &["batch", "cli"]),
];

const LONGEST_FILE: usize = 950;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(folder: &str, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && name != ".git" && name != ".venv" {
                    folders.push(path);
                }
            } else if extensions.is_empty()
                || extensions.iter().any(|e| name.ends_with(&format!(".{e}")))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn name_of(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap()
        .to_string_lossy()
        .replace('\\', "/")
}

/// `src/dicom/read.rs` and `src/task.rs` belong to the rooms `dicom` and `task`.
fn room_of(path: &Path) -> String {
    let name = name_of(path);
    let inside = name.strip_prefix("src/").unwrap();
    inside
        .split('/')
        .next()
        .unwrap()
        .trim_end_matches(".rs")
        .to_owned()
}

/// The lines before the test module, without comments.
fn code_of(text: &str) -> String {
    let before_tests = text.split("\n#[cfg(test)]\nmod ").next().unwrap();
    before_tests
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The rooms that `code` names after `crate::`, also in `crate::{a, b::c}`.
fn rooms_named(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::<String>::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(is_word) {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 1;
            let mut item = String::new();
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 || (depth == 1 && c == ',') {
                    rooms.insert(item.trim().chars().take_while(|&c| is_word(c)).collect());
                    item.clear();
                } else {
                    item.push(c);
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            rooms.insert(rest.chars().take_while(|&c| is_word(c)).collect());
        }
    }
    rooms.retain(|room| room.starts_with(|c: char| c.is_ascii_lowercase()));
    rooms
}

/// Whether `word` stands in `text` on its own.
fn names(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(is_word) && !text[at + word.len()..].starts_with(is_word)
    })
}

fn report(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn rooms_use_only_what_they_may() {
    let may_use: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let mut problems = Vec::new();
    for path in files_below("src", &["rs"]) {
        let (name, room) = (name_of(&path), room_of(&path));
        if room == "lib" || room == "main" {
            continue;
        }
        let Some(allowed) = may_use.get(room.as_str()) else {
            problems.push(format!("{name}: the room {room} is not in MAY_USE"));
            continue;
        };
        let code = code_of(&fs::read_to_string(&path).unwrap());
        for used in rooms_named(&code) {
            let fine = used == room
                || allowed.contains(&used.as_str())
                || (allowed.contains(&"words") && WORDS.contains(&used.as_str()));
            if !fine {
                problems.push(format!("{name}: {room} may not use {used}"));
            }
        }
        // As many `super` as the file lies deep lead out of its room.
        let inside = name.trim_start_matches("src/").trim_end_matches("/mod.rs");
        if code.contains(&"super::".repeat(inside.split('/').count())) {
            problems.push(format!("{name}: write crate::… to leave the room"));
        }
    }
    report(problems);
}

#[test]
fn each_outside_technology_stays_behind_its_door() {
    let mut problems = Vec::new();
    for path in files_below("src", &["rs"]) {
        let (name, room) = (name_of(&path), room_of(&path));
        let code = code_of(&fs::read_to_string(&path).unwrap());
        for (technology, rooms) in KNOWN_BY {
            let known = code.contains(&format!("use {technology}::"))
                || code
                    .match_indices(&format!("{technology}::"))
                    .any(|(at, _)| {
                        let before = &code[..at];
                        !before.ends_with(is_word) && !before.ends_with("::")
                    });
            if known && !rooms.contains(&room.as_str()) {
                problems.push(format!("{name}: only {rooms:?} may know {technology}"));
            }
        }
    }
    report(problems);
}

#[test]
fn every_room_is_listed_where_people_look() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut problems = Vec::new();
    for line in lib.lines() {
        let Some(room) = line
            .strip_prefix("pub mod ")
            .and_then(|l| l.strip_suffix(';'))
        else {
            continue;
        };
        if !MAY_USE.iter().any(|(name, _)| *name == room) {
            problems.push(format!("{room} is not in MAY_USE"));
        }
        if !architecture.contains(&format!("`{room}`")) {
            problems.push(format!("{room} is not in ARCHITECTURE.md"));
        }
    }
    report(problems);
}

#[test]
fn every_file_says_what_it_holds() {
    let mut problems = Vec::new();
    for path in [files_below("src", &["rs"]), files_below("tests", &["rs"])].concat() {
        if !fs::read_to_string(&path).unwrap().starts_with("//! ") {
            problems.push(format!("{}: no `//!` line at the top", name_of(&path)));
        }
    }
    for path in files_below("shaders", &["wgsl"]) {
        if !fs::read_to_string(&path).unwrap().starts_with("// ") {
            problems.push(format!("{}: no comment at the top", name_of(&path)));
        }
    }
    report(problems);
}

#[test]
fn files_hold_one_idea() {
    let mut problems = Vec::new();
    for path in files_below("src", &["rs"]) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        if lines > LONGEST_FILE {
            problems.push(format!(
                "{}: {lines} lines, at most {LONGEST_FILE}",
                name_of(&path)
            ));
        }
    }
    report(problems);
}

#[test]
fn names_say_what_things_are() {
    let mut problems = Vec::new();
    for path in [files_below("src", &["rs"]), files_below("tests", &["rs"])].concat() {
        let name = name_of(&path);
        for empty in [
            "util", "utils", "helper", "helpers", "manager", "misc", "common",
        ] {
            if name.ends_with(&format!("/{empty}.rs")) || name.contains(&format!("/{empty}/")) {
                problems.push(format!("{name}: `{empty}` says nothing"));
            }
        }
        if name == "tests/tidy.rs" {
            continue;
        }
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let declares = |word: &str| line.contains(word) && !line.trim_start().starts_with("//");
            if declares("fn get_") || (declares("fn test_") && !line.contains("fn test_data()")) {
                problems.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
            if (declares("struct ") || declares("trait ") || declares("enum "))
                && ["Manager", "Helper", "Util"]
                    .iter()
                    .any(|w| line.contains(w))
            {
                problems.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    report(problems);
}

#[test]
fn spelling_is_american() {
    const BRITISH: &[&str] = &[
        "colour",
        "centre",
        "grey",
        "behaviour",
        "neighbour",
        "favour",
        "normalis",
        "initialis",
        "optimis",
        "organis",
        "recognis",
        "visualis",
        "serialis",
        "catalogue",
        "analyse",
        "millimetre",
        "licence",
        "labelled",
        "labelling",
        "modelling",
    ];
    // Names of others and standards that are spelled so.
    const FINE: &[&str] = &["labelled_by", "Grey Matter", "grey matter"];
    let mut problems = Vec::new();
    let texts = [
        files_below("src", &["rs"]),
        files_below("tests", &["rs", "md"]),
        files_below("shaders", &["wgsl"]),
        files_below("packaging", &["sh", "desktop"]),
        ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"]
            .map(|name| root().join(name))
            .to_vec(),
    ]
    .concat();
    for path in texts {
        let name = name_of(&path);
        if name == "tests/tidy.rs" {
            continue;
        }
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let low = FINE
                .iter()
                .fold(line.to_owned(), |l, fine| l.replace(fine, ""))
                .to_lowercase();
            for word in BRITISH.iter().filter(|word| low.contains(*word)) {
                problems.push(format!("{name}:{}: {word}: {}", number + 1, line.trim()));
            }
        }
    }
    report(problems);
}

#[test]
fn every_clinical_mark_has_a_test_of_its_name() {
    let texts: Vec<(String, String)> = [files_below("src", &["rs"]), files_below("tests", &["rs"])]
        .concat()
        .iter()
        .map(|path| (name_of(path), fs::read_to_string(path).unwrap()))
        .collect();
    let mut problems = Vec::new();
    for (name, text) in texts.iter().filter(|(name, _)| name != "tests/tidy.rs") {
        for (_, after) in text
            .match_indices("CLINICAL(")
            .map(|(at, m)| (at, &text[at + m.len()..]))
        {
            let topic = after.split(')').next().unwrap();
            let test = format!("fn clinical_{topic}_");
            if !texts.iter().any(|(_, text)| text.contains(&test)) {
                problems.push(format!("{name}: no test begins with clinical_{topic}_"));
            }
        }
    }
    report(problems);
}

#[test]
fn only_tests_may_panic_on_purpose() {
    let mut problems = Vec::new();
    for path in files_below("src", &["rs"]) {
        // A room's tests in a file of their own.
        if path.ends_with("tests.rs") {
            continue;
        }
        let code = code_of(&fs::read_to_string(&path).unwrap());
        for call in [
            ".unwrap()",
            ".expect(\"\")",
            "todo!(",
            "unimplemented!(",
            "dbg!(",
        ] {
            if code.contains(call) {
                problems.push(format!("{}: {call}", name_of(&path)));
            }
        }
    }
    report(problems);
}

#[test]
fn only_the_command_line_prints() {
    let mut problems = Vec::new();
    for path in files_below("src", &["rs"]) {
        let room = room_of(&path);
        let code = code_of(&fs::read_to_string(&path).unwrap());
        if room != "cli"
            && room != "main"
            && ["print!", "println!", "eprint!", "eprintln!"]
                .iter()
                .any(|call| names(&code, call.trim_end_matches('!')) && code.contains(call))
        {
            problems.push(format!("{}: prints; use tracing", name_of(&path)));
        }
    }
    report(problems);
}

#[test]
fn every_shader_is_known_to_the_test_that_validates_shaders() {
    let list = root().join("src/render/shaders.rs");
    let listed = fs::read_to_string(list).unwrap();
    let missing: Vec<String> = files_below("shaders", &["wgsl"])
        .iter()
        .map(|path| name_of(path))
        .filter(|name| !listed.contains(name.as_str()))
        .map(|name| format!("{name} is not in src/render/shaders.rs"))
        .collect();
    report(missing);
}

#[test]
fn no_patient_data_lies_in_the_tree() {
    let mut problems = Vec::new();
    for path in files_below("", &[]) {
        let name = name_of(&path);
        let low = name.to_lowercase();
        let image = [
            ".dcm", ".nii", ".nii.gz", ".ima", ".dicom", ".seg", ".mha", ".nrrd", ".npz", ".npy",
            ".pth", ".pt",
        ]
        .iter()
        .any(|e| low.ends_with(e));
        let kept = name.starts_with("tests/data/") || name.starts_with("tests/golden/");
        if image && !kept {
            problems.push(format!("{name}: image or foreign weights in the tree"));
        }
        if name.starts_with("tests/data/") && name != "tests/data/MANIFEST.toml" {
            let manifest =
                fs::read_to_string(root().join("tests/data/MANIFEST.toml")).unwrap_or_default();
            if !manifest.contains(name.trim_start_matches("tests/data/")) {
                problems.push(format!(
                    "{name}: origin and license are not in tests/data/MANIFEST.toml"
                ));
            }
        }
    }
    report(problems);
}

/// The studies that tests read from elsewhere must not end up here under another name.
#[test]
fn no_file_of_the_test_data_lies_in_the_tree() {
    let Some(data) = std::env::var_os("NEGATOSCOPE_TEST_DATA") else {
        println!("skipped: NEGATOSCOPE_TEST_DATA is not set");
        return;
    };
    let mut by_size: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
    let mut folders = vec![PathBuf::from(data)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let size = entry.metadata().unwrap().len();
                by_size.entry(size).or_default().push(entry.path());
            }
        }
    }
    let mut problems = Vec::new();
    for path in files_below("", &[]) {
        let size = fs::metadata(&path).unwrap().len();
        if size < 64 {
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        for same_size in by_size.get(&size).into_iter().flatten() {
            if fs::read(same_size).unwrap() == bytes {
                problems.push(format!("{} is {}", name_of(&path), same_size.display()));
            }
        }
    }
    report(problems);
}

#[test]
fn paths_are_read_as_the_compiler_reads_them() {
    let code = "use crate::{app::{App, Event}, task};\nfn f(x: crate::study::Uid) { mycrate::no(); crate::VERSION }";
    let rooms: Vec<String> = rooms_named(code).into_iter().collect();
    assert_eq!(rooms, ["app", "study", "task"]);
}
