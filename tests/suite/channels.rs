//! Models of several channels on a study of several series, through the real program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use negatoscope::dicom::{ImageSeriesOptions, write_image_series};
use negatoscope::geometry::{DVec3, VolumeGeometry};
use negatoscope::study::Uid;
use negatoscope::volume::phantom::head_mr;

struct Place {
    folder: tempfile::TempDir,
    study: Uid,
    frame: Uid,
}

impl Place {
    /// A home with a model of the channels CT and MRI.
    fn new() -> Self {
        let mut uids = crate::seg_export::uids(88_000);
        let place = Self {
            folder: tempfile::tempdir().unwrap(),
            study: uids(),
            frame: uids(),
        };
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/nnunet/residual_3d");
        let (code, _, err) = place.run(&["models", "import", model.to_str().unwrap()]);
        assert_eq!(code, Some(0), "{err}");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let ran = Command::new(env!("CARGO_BIN_EXE_negatoscope"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env("NEGATOSCOPE_HOME", self.path("home"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (ran.status.code(), text(ran.stdout), text(ran.stderr))
    }

    fn analyze(&self, out: &str, more: &[&str]) -> (Option<i32>, String, String) {
        let model = "nnunet-dataset999-golden-3d-fullres";
        let fixed = ["analyze", "study", "--model", model, "--out", out];
        self.run(&[&fixed, more].concat())
    }

    /// Adds a series of the study; its UID comes back.
    fn series(&self, number: i32, modality: &str, words: &str, spacing: f64) -> Uid {
        let axes = [DVec3::X, DVec3::Y, DVec3::Z];
        let [ni, nj, nk] = [16.0, 18.0, 8.0].map(|mm| (mm / spacing) as usize);
        let corner = DVec3::new(-8.0, -9.0, -4.0);
        let grid = VolumeGeometry::from_axes([ni, nj, nk], corner, axes, [spacing; 3]).unwrap();
        let mut uids = crate::seg_export::uids(90_000 + 1000 * number as u128);
        let options = ImageSeriesOptions {
            modality: modality.into(),
            study_instance_uid: self.study.clone(),
            series_instance_uid: uids(),
            frame_of_reference_uid: self.frame.clone(),
            patient_study: vec![
                ("PatientName".into(), "Doe^Jane".to_owned().into()),
                ("PatientID".into(), "4711".to_owned().into()),
            ],
            series_description: words.into(),
            series_number: number,
            body_part: "HEAD".into(),
            synthetic: false,
        };
        let folder = self.path("study").join(number.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        let now = crate::seg_export::now();
        let volume = head_mr(7, grid).volume;
        write_image_series(&volume, &folder, &options, &mut uids, now).unwrap();
        options.series_instance_uid
    }

    fn result(&self, out: &str, first: &Uid) -> serde_json::Value {
        let folder = self
            .path(out)
            .join(self.study.as_str())
            .join(first.as_str());
        assert!(folder.join("segmentation.dcm").is_file());
        serde_json::from_slice(&std::fs::read(folder.join("result.json")).unwrap()).unwrap()
    }
}

#[test]
fn two_series_of_a_study_become_the_channels_of_a_model() {
    let place = Place::new();
    let ct = place.series(1, "CT", "head", 1.0);
    let mr = place.series(2, "MR", "MRI brain", 1.25);
    let (code, _, err) = place.analyze("out", &[]);
    assert_eq!(code, Some(0), "{err}");
    let result = place.result("out", &ct);
    let text = result.to_string();
    assert!(text.contains("channel-resampled"), "{text}");
    assert!(text.contains("linear interpolation"), "{text}");
    assert!(text.contains(mr.as_str()), "{text}");
    // One row for the study.
    let table = std::fs::read_to_string(place.path("out/batch.csv")).unwrap();
    assert_eq!(table.lines().count(), 2, "{table}");

    // A second series that could be the channel makes the choice a person's.
    let other = place.series(3, "MR", "MRI other", 1.0);
    let (code, _, err) = place.analyze("out2", &[]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("2 images for the channel MRI"), "{err}");
    assert!(err.contains(&format!("{mr} (MRI brain)")), "{err}");
    assert!(err.contains("--channel MRI="), "{err}");
    let named = format!("MRI={other}");
    let (code, _, err) = place.analyze("out3", &["--channel", &named]);
    assert_eq!(code, Some(0), "{err}");
    let text = place.result("out3", &ct).to_string();
    assert!(!text.contains("channel-resampled"), "{text}");
    assert!(text.contains(other.as_str()), "{text}");
}

#[test]
fn a_study_without_a_channel_is_listed_with_the_reason() {
    let place = Place::new();
    place.series(1, "CT", "head", 1.0);
    let (code, _, err) = place.analyze("out", &[]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("no image for the channel MRI"), "{err}");
}

#[test]
fn clinical_position_an_image_of_another_frame_of_reference_is_told() {
    let mut place = Place::new();
    let ct = place.series(1, "CT", "head", 1.0);
    place.frame = Uid::from_u128(4711);
    place.series(2, "MR", "MRI brain", 1.0);
    let (code, _, err) = place.analyze("out", &[]);
    assert_eq!(code, Some(0), "{err}");
    let text = place.result("out", &ct).to_string();
    assert!(text.contains("channel-frame-of-reference"), "{text}");
    assert!(!text.contains("channel-resampled"), "{text}");
}
