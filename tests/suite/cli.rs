//! The real program, as scripts use it: exit codes, standard output, standard error, and a kill.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use negatoscope::dicom::{ImageSeriesOptions, write_image_series};
use negatoscope::geometry::{DVec3, VolumeGeometry};
use negatoscope::volume::phantom::head_mr;
use serde_json::Value;

/// A folder with a home of its own.
pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_negatoscope"));
        command
            .args(arguments)
            .current_dir(self.0.path())
            .env("NEGATOSCOPE_HOME", self.path("home"))
            .env("NEGATOSCOPE_KEYRING", "off")
            .env_remove("RUST_LOG")
            .env_remove("DISPLAY")
            .env_remove("WAYLAND_DISPLAY")
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::from(&self.command(arguments).output().unwrap())
    }

    /// A synthetic head of few slices as DICOM, in the folder `study`.
    pub fn with_study(self) -> Self {
        let axes = [DVec3::X, DVec3::Y, DVec3::Z];
        let corner = DVec3::new(-79.5, -84.0, -40.0);
        let grid = VolumeGeometry::from_axes([40, 48, 8], corner, axes, [4.0, 4.0, 5.0]).unwrap();
        write_study(&self.path("study"), 7, grid, 77_000);
        self
    }
}

/// A synthetic head as a DICOM series of a patient whose name and number are looked for later.
pub fn write_study(folder: &Path, seed: u64, grid: VolumeGeometry, first_uid: u128) {
    let phantom = head_mr(seed, grid);
    let mut uids = crate::seg_export::uids(first_uid);
    let options = ImageSeriesOptions {
        modality: "MR".into(),
        study_instance_uid: uids(),
        series_instance_uid: uids(),
        frame_of_reference_uid: uids(),
        patient_study: vec![
            ("PatientName".into(), "Secretname^Jane".to_owned().into()),
            ("PatientID".into(), "SECRET-4711".to_owned().into()),
        ],
        series_description: "T1".into(),
        series_number: 3,
        body_part: "HEAD".into(),
        synthetic: false,
    };
    fs::create_dir_all(folder).unwrap();
    let now = crate::seg_export::now();
    write_image_series(&phantom.volume, folder, &options, &mut uids, now).unwrap();
}

pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    fn from(output: &Output) -> Self {
        let ran = Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        for word in ["panicked", "RUST_BACKTRACE", "Secretname", "SECRET-4711"] {
            assert!(!ran.err.contains(word), "{word} in: {}", ran.err);
        }
        assert!(
            // 10 to 18 are the verdicts of `audit verify`.
            matches!(ran.code, Some(0..=3 | 10..=18)),
            "{:?}: {}",
            ran.code,
            ran.err
        );
        ran
    }

    #[track_caller]
    pub fn ends_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}", self.out))
    }
}

fn test_data() -> Option<PathBuf> {
    let data = std::env::var_os("NEGATOSCOPE_TEST_DATA").map(PathBuf::from);
    if data.is_none() {
        println!("skipped: NEGATOSCOPE_TEST_DATA is not set");
    }
    data
}

#[test]
fn wrong_usage_ends_with_2_and_leaves_standard_output_alone() {
    let place = Place::new();
    for arguments in [
        &["info"][..],
        &["render", "x"],
        &["analyze", "x"],
        &["render", "x", "--out", "a.png", "--window", "40"],
        &["render", "x", "--out", "a.png", "--slice", "0"],
        &[
            "analyze", "x", "--model", "m", "--out", "o", "--format", "pdf",
        ],
        &["models"],
        &["--no-such-option"],
        &["study", "info", "study"],
    ] {
        let ran = place.run(arguments).ends_with(2);
        assert!(
            ran.out.is_empty() && ran.err.contains("--help"),
            "{arguments:?}"
        );
    }
    assert!(
        place
            .run(&["--help"])
            .ends_with(0)
            .out
            .contains("not for diagnostic use")
    );
}

#[test]
fn info_has_the_shape_that_scripts_read() {
    let place = Place::new().with_study();
    fs::write(place.path("study/notes.txt"), "no image").unwrap();
    let all = place.run(&["info", "study", "--json"]).ends_with(0).json();
    let series = &all["studies"][0]["series"][0];
    assert_eq!(series["series_instance_uid"], "2.25.77001");
    assert_eq!(
        (&series["modality"], &series["instances"]),
        (&"MR".into(), &8.into())
    );
    assert_eq!(series["transfer_syntaxes"][0], "1.2.840.10008.1.2.1");
    let volume = &series["volumes"][0];
    assert_eq!(volume["dims"], serde_json::json!([40, 48, 8]));
    assert_eq!(volume["spacing_mm"], serde_json::json!([4.0, 4.0, 5.0]));
    let expected = [
        [4.0, 0.0, 0.0, -79.5],
        [0.0, 4.0, 0.0, -84.0],
        [0.0, 0.0, 5.0, -40.0],
        [0.0, 0.0, 0.0, 1.0],
    ];
    assert_eq!(volume["lps_from_ijk"], serde_json::json!(expected));
    assert!(volume["min"].as_f64() < volume["max"].as_f64());
    let skipped = &all["skipped"][0];
    assert!(skipped["path"].as_str().unwrap().ends_with("notes.txt"));
    assert!(!skipped["reason"].as_str().unwrap().is_empty());
}

/// `--home` stands before or after the subcommand and wins over the environment.
#[test]
fn the_home_can_be_named_on_either_side_of_the_subcommand() {
    let place = Place::new().with_study();
    for arguments in [
        &["--home", "other", "info", "study"][..],
        &["info", "--home", "other", "study"],
        &["info", "study", "--home=other"],
    ] {
        assert!(
            place.run(arguments).ends_with(0).out.contains("2.25.77001"),
            "{arguments:?}"
        );
    }
    assert!(!place.path("home").exists());
    let records = place
        .run(&["--home", "other", "audit", "verify", "--json"])
        .json();
    assert_eq!(records["records"], 3);
}

#[test]
fn without_a_display_the_window_says_so() {
    let place = Place::new().with_study();
    let ran = place.run(&["study"]);
    if cfg!(target_os = "linux") {
        assert!(ran.ends_with(1).err.contains("no display"));
    }
}

#[test]
fn nothing_to_open_ends_with_1_and_names_the_place() {
    let place = Place::new();
    fs::write(place.path("a.txt"), "no image").unwrap();
    for arguments in [
        &["info", "a.txt"][..],
        &["info", "absent"],
        &["convert", "a.txt", "--out", "a.nii.gz"],
        &["render", "a.txt", "--out", "a.png"],
    ] {
        let ran = place.run(arguments).ends_with(1);
        assert!(ran.err.contains(arguments[1]), "{arguments:?}: {}", ran.err);
    }
    assert!(!place.path("a.nii.gz").exists() && !place.path("a.png").exists());
}

#[test]
fn a_converted_series_keeps_values_and_place() {
    let place = Place::new().with_study();
    place
        .run(&["convert", "study", "--out", "t1.nii.gz"])
        .ends_with(0);
    let of = |path: &str| {
        let all = place.run(&["info", path, "--json"]).ends_with(0).json();
        let mut volume = all["studies"][0]["series"][0]["volumes"][0].clone();
        volume.as_object_mut().unwrap().remove("quantity");
        volume
    };
    assert_eq!(of("study"), of("t1.nii.gz"));
    place
        .run(&["convert", "study", "--out", "t1.png"])
        .ends_with(1);
    place
        .run(&["convert", "study", "--series", "1.2.3", "--out", "b.nii"])
        .ends_with(1);
}

#[test]
fn a_slice_is_drawn_in_the_size_asked_for() {
    let place = Place::new().with_study();
    for (plane, slice) in [("axial", "8"), ("coronal", "48"), ("sagittal", "40")] {
        let arguments = [
            "render", "study", "--out", "a.png", "--size", "320x240", "--plane", plane,
        ];
        place
            .run(&[&arguments[..], &["--slice", slice]].concat())
            .ends_with(0);
        let png = png::Decoder::new(std::io::BufReader::new(
            fs::File::open(place.path("a.png")).unwrap(),
        ));
        let reader = png.read_info().unwrap();
        assert_eq!((reader.info().width, reader.info().height), (320, 240));
    }
    let beyond = ["render", "study", "--out", "b.png", "--slice", "9"];
    place.run(&beyond).ends_with(1);
    assert!(!place.path("b.png").exists());
}

#[test]
fn every_access_and_export_is_on_record_and_a_change_is_found() {
    let place = Place::new().with_study();
    place.run(&["info", "study"]).ends_with(0);
    place
        .run(&["convert", "study", "--out", "t1.nii"])
        .ends_with(0);
    let shown = place.run(&["audit", "show"]).ends_with(0);
    let kinds: Vec<bool> = shown
        .out
        .lines()
        .map(|l| l.contains("DICOM Instances Accessed"))
        .collect();
    // The export is on record as begun and as done.
    assert_eq!(kinds, [true, true, false, false]);
    assert!(shown.out.lines().last().unwrap().contains("t1.nii"));
    assert!(!shown.out.contains("Secretname"));
    let verdict = place
        .run(&["audit", "verify", "--json"])
        .ends_with(0)
        .json();
    // The look at the log is the fifth.
    assert_eq!(
        (&verdict["records"], &verdict["verdict"]),
        (&5.into(), &"intact".into())
    );
    let exports = place.run(&["audit", "show", "--event", "export"]);
    assert_eq!(exports.ends_with(0).out.lines().count(), 2);
    assert_eq!(place.run(&["audit", "show", "--study", "1.2.3"]).out, "");

    let log = place.path("home/audit/000001.jsonl");
    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, text.replacen("\"whole\"", "\"begin\"", 1)).unwrap();
    let verdict = place
        .run(&["audit", "verify", "--json"])
        .ends_with(12)
        .json();
    assert_eq!(verdict["verdict"], "altered");
    assert_eq!(verdict["ok"], false);
    assert!(!verdict["problems"].as_array().unwrap().is_empty());
}

#[test]
fn an_unknown_model_is_named_and_nothing_is_written() {
    let place = Place::new().with_study();
    let arguments = ["analyze", "study", "--model", "no-such", "--out", "out"];
    let ran = place.run(&arguments).ends_with(1);
    assert!(ran.err.contains("no-such"), "{}", ran.err);
    assert!(!place.path("out/batch.json").exists());
}

#[test]
fn the_phantom_says_that_it_is_synthetic() {
    let place = Place::new();
    place
        .run(&["phantom", "--seed", "3", "--out", "head"])
        .ends_with(0);
    let all = place.run(&["info", "head", "--json"]).ends_with(0).json();
    let codes: Vec<&str> = all["studies"][0]["series"][0]["issues"]
        .as_array()
        .unwrap()
        .iter()
        .map(|issue| issue["code"].as_str().unwrap())
        .collect();
    assert!(codes.contains(&"synthetic"), "{codes:?}");
}

/// Every hostile or damaged file: an answer in words, no crash, no endless work.
#[test]
fn malformed_files_end_in_an_answer() {
    let Some(data) = test_data() else { return };
    let place = Place::new();
    let mut seen = 0;
    for folder in ["synthetic", "as-found"] {
        for entry in fs::read_dir(data.join("malformed").join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let path = path.to_str().unwrap();
            let ran = place.run(&["info", "--json", path]);
            assert!(ran.code != Some(2), "{path}");
            ran.json();
            assert!(
                ran.code == Some(0) || !ran.err.is_empty(),
                "{path}: ends with 1 in silence"
            );
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen} files");
}

/// The folder as a whole: what is readable is listed, the rest has a reason, nothing is lost.
#[test]
fn a_folder_of_malformed_files_accounts_for_every_file() {
    let Some(data) = test_data() else { return };
    let place = Place::new();
    let folder = data.join("malformed/synthetic");
    let ran = place.run(&["info", "--json", folder.to_str().unwrap()]);
    let all = ran.json();
    let instances: u64 = all["studies"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|study| study["series"].as_array().unwrap())
        .map(|series| series["instances"].as_u64().unwrap())
        .sum();
    let skipped = all["skipped"].as_array().unwrap().len() as u64;
    let files = fs::read_dir(&folder).unwrap().count() as u64;
    assert_eq!(instances + skipped, files, "{}", ran.err);
}

/// Brainchop's smallest model, imported, over three volumes; killed in the middle, then resumed.
#[test]
fn a_killed_batch_leaves_whole_results_and_resumes() {
    let Some(data) = test_data() else { return };
    let place = Place::new();
    let model = data.join("brainchop/models/model5_gw_ae");
    let imported = place
        .run(&["models", "import", model.to_str().unwrap(), "--json"])
        .ends_with(0)
        .json();
    let key = imported["imported"][0]["key"].as_str().unwrap().to_owned();
    place.run(&["models", "verify"]).ends_with(0);
    // Small heads, so that the run is about reading and writing.
    for n in 0..3 {
        let small = Place::new().with_study();
        fs::rename(small.path("study"), place.path(&format!("study{n}"))).unwrap();
        small.run(&["audit", "verify"]).ends_with(0);
        rename_uids(&place.path(&format!("study{n}")), n);
    }
    let inputs = ["study0", "study1", "study2"];
    let rest = [
        "--model",
        &key,
        "--out",
        "out",
        "--format",
        "seg,csv,json",
        "--resume",
    ];
    let arguments = [&["analyze"][..], &inputs, &rest].concat();
    let mut child = place
        .command(&arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let journal = place.path("out/batch-journal.jsonl");
    let lines = || fs::read_to_string(&journal).map_or(0, |text| text.lines().count());
    let start = Instant::now();
    while lines() == 0 && start.elapsed() < Duration::from_mins(4) {
        if child.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(lines() >= 1, "one series ended before the kill");
    for file in files_below(&place.path("out")) {
        if file.ends_with("result.json") {
            serde_json::from_slice::<Value>(&fs::read(&file).unwrap()).unwrap();
        }
    }
    let table = place
        .run(&[&arguments[..], &["--json"]].concat())
        .ends_with(0)
        .json();
    assert_eq!(
        (&table["done"], &table["failed"]),
        (&3.into(), &0.into()),
        "{table}"
    );
    assert_eq!(table["rows"][0]["reason"], "finished earlier");
    for row in table["rows"].as_array().unwrap() {
        let folder = place.path("out").join(row["series"].as_str().unwrap());
        for file in ["segmentation.dcm", "measurements.csv", "result.json"] {
            assert!(folder.join(file).is_file(), "{file} of {row}");
        }
    }
    let leftovers = files_below(&place.path("out"))
        .into_iter()
        .filter(|f| f.extension().is_some_and(|e| e == "part"));
    assert_eq!(leftovers.count(), 0);
    place.run(&["audit", "verify"]).ends_with(0);
}

/// Gives a copy of the study UIDs of its own, of the same length, so that files stay whole.
fn rename_uids(folder: &Path, n: u8) {
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let old = b"2.25.77";
        let places: Vec<usize> = bytes
            .windows(old.len())
            .enumerate()
            .filter(|(_, w)| w == old)
            .map(|(at, _)| at)
            .collect();
        for at in places {
            bytes[at + 6] = b'1' + n;
        }
        fs::write(path, bytes).unwrap();
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files_below(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}
