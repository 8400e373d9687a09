//! Models of whole images with their networks on a server, by the real program: the same findings as
//! from here, strangers stay here, and what cannot be right is not used.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use negatoscope::inference::{
    Call, Classifier, Elsewhere, Error, Settings, familiar, resize_plane,
};
use negatoscope::model::{Registry, Template, VerifiedPackage};
use negatoscope::offload::Endpoints;
use negatoscope::task::Task;
use serde_json::{Value, json};

use crate::cli::{Place, Ran};
use crate::dicom_read::{bytes_of, folder, only_volume, orientations, slice};
use crate::elsewhere::networks;
use crate::remote::{Fault, ModelServer, Served, jobs, nobody_is_named, served_network};

const MODELS: [&str; 3] = ["pneumonia-28", "pneumonia-cnn", "tuberculosis-cnn"];
const EDGE: usize = 96;

pub fn bundled(id: &str) -> VerifiedPackage {
    Registry::new("none".into()).load(id).unwrap()
}

pub fn template(id: &str) -> Template {
    let package = bundled(id);
    let classification = package.manifest().classification.clone().unwrap();
    classification.template.unwrap()
}

/// The package's network, computed as here.
pub fn served(id: &str) -> Served {
    let package = bundled(id);
    let classification = package.manifest().classification.clone().unwrap();
    let network = networks(&package).remove("").unwrap();
    let [y, x] = [0, 1].map(|axis| classification.size[axis] as i64);
    let classes = classification.classes.len() as i64;
    served_network(id, network, &[-1, 1, y, x], &[-1, classes])
}

/// Radiographs of one series: what a model's images look like on average, each a little otherwise;
/// a stranger has black and white exchanged.
pub fn write_chests(to: &Path, template: &Template, series: u32, images: u16, stranger: bool) {
    fs::create_dir_all(to).unwrap();
    let mean = resize_plane(&template.mean, template.size, [EDGE, EDGE]);
    let sign = if stranger { -1.0 } else { 1.0 };
    for n in 0..images {
        let mut d = slice(orientations()[0], n, n);
        let pixels: Vec<u16> = (mean.iter().enumerate())
            .map(|(at, v)| {
                let wave = (at as f32 * 0.37 * f32::from(n + 1)).sin();
                (2000.0 + sign * 400.0 * v + 40.0 * wave) as u16
            })
            .collect();
        for tag in [
            tags::IMAGE_POSITION_PATIENT,
            tags::IMAGE_ORIENTATION_PATIENT,
            tags::FRAME_OF_REFERENCE_UID,
            tags::PIXEL_SPACING,
        ] {
            d.remove_element(tag);
        }
        let uid = |kind: u32| format!("2.25.{series}{kind}{n}");
        let words: [(Tag, VR, &str); 8] = [
            (tags::SOP_CLASS_UID, VR::UI, "1.2.840.10008.5.1.4.1.1.1.1"),
            (tags::SOP_INSTANCE_UID, VR::UI, &uid(1)),
            (tags::SERIES_INSTANCE_UID, VR::UI, &format!("2.25.{series}")),
            (tags::MODALITY, VR::CS, "DX"),
            (tags::PATIENT_NAME, VR::PN, "Secretname^Jane"),
            (tags::PATIENT_ID, VR::LO, "SECRET-4711"),
            (tags::PATIENT_AGE, VR::AS, "004Y"),
            (tags::IMAGER_PIXEL_SPACING, VR::DS, "0.2\\0.2"),
        ];
        for (tag, vr, word) in words {
            d.put(DataElement::new(tag, vr, PrimitiveValue::from(word)));
        }
        for tag in [tags::ROWS, tags::COLUMNS] {
            let edge = PrimitiveValue::from(EDGE as u16);
            d.put(DataElement::new(tag, VR::US, edge));
        }
        let pixels = PrimitiveValue::U16(pixels.into());
        d.put(DataElement::new(tags::PIXEL_DATA, VR::OW, pixels));
        fs::write(to.join(format!("{series}-{n}.dcm")), bytes_of(d)).unwrap();
    }
}

/// A home with the endpoint, and two radiographs of one series.
fn place(server: &ModelServer, id: &str) -> Place {
    let place = Place::new();
    write_chests(&place.path("study"), &template(id), 71, 2, false);
    fs::create_dir_all(place.path("home")).unwrap();
    Endpoints::add(&place.path("home"), server.profile.clone()).unwrap();
    place
}

pub fn server(ids: &[&str]) -> ModelServer {
    let models = ids.iter().map(|id| served(id)).collect();
    ModelServer::of("ward", models, 1 << 20)
}

fn words<'a>(id: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let first = ["analyze", "study", "--model", id, "--out", out];
    [&first[..], &["--format", "json,csv"], more].concat()
}

fn remote(place: &Place, id: &str) -> Ran {
    place.run(&words(id, "there", &["--remote", "ward", "--yes"]))
}

/// The records of findings below a folder, by place.
fn records(folder: &Path) -> BTreeMap<String, Value> {
    let files = walkdir::WalkDir::new(folder)
        .into_iter()
        .map(Result::unwrap);
    let found = files.filter(|f| f.file_name() == "findings.json");
    found
        .map(|f| {
            let told = serde_json::from_slice(&fs::read(f.path()).unwrap()).unwrap();
            let place = f.path().strip_prefix(folder).unwrap();
            (place.display().to_string(), told)
        })
        .collect()
}

/// What is said of each image, from here and from there, is the same to the last bit.
fn findings_are_equal(place: &Place, id: &str) -> usize {
    place.run(&words(id, "here", &[])).ends_with(0);
    let images = |folder: &str| {
        let all = records(&place.path(folder)).into_iter();
        all.map(|(name, mut told)| (name, told["images"].take()))
            .collect::<BTreeMap<_, _>>()
    };
    let (here, there) = (images("here"), images("there"));
    assert!(!here.is_empty());
    assert_eq!(here, there);
    let all = here.values().flat_map(|images| images.as_array().unwrap());
    all.filter(|image| !image["findings"].as_array().unwrap().is_empty())
        .count()
}

#[test]
fn findings_from_a_server_are_those_from_here_and_strangers_stay() {
    let server = server(&MODELS);
    for id in MODELS {
        let place = place(&server, id);
        write_chests(&place.path("study"), &template(id), 72, 1, true);
        let before = server.bodies().len();
        let ran = remote(&place, id).ends_with(0);
        assert!(ran.err.contains("Whole pictures leave"), "{}", ran.err);
        // Two images have findings, and they alone have left; each is one plane of numbers.
        assert_eq!(findings_are_equal(&place, id), 2);
        let size = bundled(id).manifest().classification.clone().unwrap().size;
        let bodies = server.bodies().split_off(before);
        let lengths: Vec<usize> = bodies.iter().map(Vec::len).collect();
        assert_eq!(lengths, [4 * size[0] * size[1]; 2]);
        let told = records(&place.path("there"));
        let runs: Vec<String> = told.values().map(|t| t["run"].to_string()).collect();
        assert_eq!(runs.len(), 2);
        assert!(
            runs.iter().all(|run| run.contains("model server ward")),
            "{runs:?}"
        );
        assert!(
            runs.iter().all(|run| run.contains("it ran elsewhere")),
            "{runs:?}"
        );
        let refused = told
            .values()
            .filter(|t| t.to_string().contains("exchanged"));
        assert_eq!(refused.count(), 1);
        nobody_is_named(&server, &place.path("home"));
        assert_eq!(jobs(&place)[0]["state"], "done");
        place.run(&["audit", "verify"]).ends_with(0);
        let log = place.run(&["audit", "show", "--json"]).ends_with(0).out;
        assert!(log.contains("server_key_sha256"), "{log}");
        // A map of the evidence is not to be had there.
        let ran = place.run(&words(id, "there", &["--remote", "ward", "--explain"]));
        assert!(ran.ends_with(2).err.contains("cannot be used with"));
    }
}

#[test]
fn places_are_compared_and_chosen_for_findings_too() {
    let id = "pneumonia-28";
    let server = server(&[id]);
    let place = place(&server, id);
    let rows = || {
        let told = place.run(&["analyze", "study", "--model", id, "--where", "--json"]);
        let told = told.ends_with(0).json()["models"][0]["places"].take();
        told.as_array().unwrap().clone()
    };
    let before = rows();
    assert_eq!(
        (&before[0]["runs"], &before[1]["runs"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(before[1]["requests"], 2);
    assert_eq!(before[1]["sent_bytes"], 2 * 4 * 28 * 28);
    assert_eq!(before[1]["received_bytes"], 2 * 4 * 2);
    assert_eq!(before[1]["refused"], Value::Null);
    assert!(server.server.heard().is_empty());
    fs::write(place.path("home/places.toml"), "prefer = 'remote'\n").unwrap();
    let ran = place.run(&words(id, "there", &["--remote", "auto", "--yes"]));
    assert!(ran.ends_with(0).err.contains("takes ward"));
    assert_eq!(findings_are_equal(&place, id), 2);
    let after = rows();
    assert_eq!(
        (&after[0]["runs"], &after[1]["runs"]),
        (&json!(1), &json!(1))
    );
    // Over both places at once, another folder.
    write_chests(&place.path("study"), &template(id), 73, 1, false);
    fs::remove_dir_all(place.path("there")).unwrap();
    fs::remove_dir_all(place.path("here")).unwrap();
    let spread = words(id, "there", &["--places", "local,ward", "--yes"]);
    place.run(&spread).ends_with(0);
    assert_eq!(findings_are_equal(&place, id), 3);
}

#[test]
fn a_kill_between_two_images_asks_for_the_second_alone() {
    let id = "pneumonia-28";
    let server = server(&[id]);
    let place = place(&server, id);
    server.goes_wrong(1, Fault::Silence);
    let mut child = place
        .command(&words(id, "there", &["--remote", "ward", "--yes"]))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while server.infers.load(Ordering::SeqCst) < 2 {
        assert!(start.elapsed() < Duration::from_mins(2), "it never came");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(jobs(&place)[0]["state"], "waiting");
    nobody_is_named(&server, &place.path("home"));
    server.goes_wrong(usize::MAX, Fault::None);
    place.run(&["queue", "resume", "--yes"]).ends_with(0);
    assert_eq!(findings_are_equal(&place, id), 2);
    let bodies = server.bodies();
    assert_eq!(bodies.len(), 3);
    assert!(bodies[0] != bodies[1] && bodies[1] == bodies[2]);
}

#[test]
fn scores_that_cannot_be_right_are_not_used() {
    let id = "pneumonia-28";
    for (fault, said) in [
        (Fault::Nan, "NaN or infinite"),
        (Fault::Short, "no answer that can be used"),
    ] {
        let server = server(&[id]);
        let place = place(&server, id);
        server.goes_wrong(0, fault);
        let ran = remote(&place, id).ends_with(1);
        assert!(ran.err.contains(said), "{}", ran.err);
        assert_eq!(jobs(&place)[0]["state"], "failed");
        assert!(records(&place.path("there")).is_empty());
    }
    // A model of another number of classes under the same name, and one that is not there.
    let other = Served {
        name: id.to_owned(),
        ..served("pneumonia-cnn")
    };
    let server = ModelServer::of("ward", vec![other], 1 << 20);
    let place = place(&server, id);
    let ran = remote(&place, id).ends_with(1);
    assert!(ran.err.contains("is needed"), "{}", ran.err);
    let ran = remote(&place, "tuberculosis-cnn").ends_with(1);
    assert!(ran.err.contains("404"), "{}", ran.err);
    assert!(server.bodies().is_empty());
    // Another version in the middle ends the job.
    let server = self::server(&[id]);
    let place = self::place(&server, id);
    server.goes_wrong(1, Fault::Version);
    remote(&place, id).ends_with(1);
    assert_eq!(jobs(&place)[0]["state"], "failed");
    assert!(records(&place.path("there")).is_empty());
    // A server that is away leaves a job that waits.
    let place = self::place(&server, id);
    server.goes_wrong(0, Fault::Busy);
    remote(&place, id).ends_with(1);
    assert_eq!(jobs(&place)[0]["state"], "waiting");
}

/// Answers as it is told.
#[derive(Debug)]
struct Told(Vec<f32>);

impl Elsewhere for Told {
    fn device(&self) -> String {
        "another machine".to_owned()
    }
    fn most_bytes(&self) -> u64 {
        u64::MAX
    }
    fn labels(&self, _: &Call<'_>, _: &Task) -> Result<Vec<u8>, Error> {
        panic!("a classifier has no labels")
    }
    fn scores(&self, _: &Call<'_>, _: usize, _: &Task) -> Result<Vec<f32>, Error> {
        panic!("a classifier has no points")
    }
    fn class_scores(&self, call: &Call<'_>, classes: usize, _: &Task) -> Result<Vec<f32>, Error> {
        assert_eq!(
            (call.part, call.shape, classes),
            ("", &[1, 1, 28, 28][..], 2)
        );
        Ok(self.0.clone())
    }
}

#[test]
fn scores_become_the_probabilities_that_the_manifest_says() {
    let place = tempfile::tempdir().unwrap();
    write_chests(place.path(), &template("pneumonia-28"), 71, 1, false);
    let volume = only_volume(&folder(place.path()));
    // The same image is known to the template.
    let template = template("pneumonia-28");
    let plane = negatoscope::inference::GrayPlane::of_slice(&volume, 0);
    assert_eq!(
        familiar::stranger(&template, &plane.values, plane.dims),
        None
    );
    let package = bundled("pneumonia-28");
    let temperature = package
        .manifest()
        .classification
        .clone()
        .unwrap()
        .temperature;
    let classifier = Classifier::new(package).unwrap();
    let run = |scores: &[f32]| {
        let settings = Settings {
            elsewhere: Some(std::sync::Arc::new(Told(scores.to_vec()))),
            ..Settings::default()
        };
        classifier.assess(&volume, 0, &settings, &Task::new())
    };
    let found = run(&[0.5, 1.75]).unwrap();
    // Softmax of two is a sigmoid of their difference.
    let expected = 1.0 / (1.0 + (-1.25 / temperature.unwrap()).exp());
    assert!((found.findings[0].probability - expected).abs() < 1e-12);
    assert_eq!(found.provenance.device, "another machine");
    for wrong in [
        &[1.0][..],
        &[1.0, 2.0, 3.0],
        &[f32::NAN, 0.0],
        &[f32::INFINITY, 0.0],
    ] {
        assert!(matches!(run(wrong), Err(Error::Elsewhere(_))), "{wrong:?}");
    }
}

/// A package of the bundled model's outline under another name, as a person imports it.
fn far(place: &Place) {
    place
        .run(&["models", "outline", "pneumonia-28", "--out", "outline"])
        .ends_with(0);
    let path = place.path("outline/manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(manifest["weights_sha256"], "none");
    assert_eq!(
        manifest["origin"]["weights_sha256"].as_str().unwrap(),
        bundled("pneumonia-28").manifest().weights_sha256
    );
    manifest["id"] = "far".into();
    fs::write(&path, manifest.to_string()).unwrap();
    place.run(&["models", "import", "outline"]).ends_with(0);
}

#[test]
fn a_package_without_weights_runs_on_a_server_alone() {
    let model = Served {
        name: "far".to_owned(),
        ..served("pneumonia-28")
    };
    let server = ModelServer::of("ward", vec![model], 1 << 20);
    let place = place(&server, "pneumonia-28");
    far(&place);
    let listed = place.run(&["models", "list"]).ends_with(0).out;
    let line = listed.lines().find(|l| l.starts_with("far@")).unwrap();
    assert!(line.contains("only on a server"), "{line}");
    place.run(&["models", "verify"]).ends_with(0);
    let sentence = "far@1.0.0 is here without its weights";
    let ran = place.run(&words("far", "o", &[])).ends_with(1);
    assert!(ran.err.contains(sentence), "{}", ran.err);
    let ran = place.run(&words("far", "o", &["--places", "local,ward", "--yes"]));
    assert!(ran.ends_with(1).err.contains(sentence));
    let told = place.run(&["analyze", "study", "--model", "far", "--where"]);
    let told = told.ends_with(0).out;
    assert!(
        told.contains(&format!("this machine: {sentence}")),
        "{told}"
    );
    assert!(server.bodies().is_empty());
    // There, its findings are those of the model with weights.
    remote(&place, "far").ends_with(0);
    assert_eq!(findings_are_equal(&place, "pneumonia-28"), 2);
    // A server that is away is no reason to try it here.
    fs::write(place.path("home/places.toml"), "fallback_to_local = true\n").unwrap();
    server.goes_wrong(0, Fault::Busy);
    let again = words("far", "again", &["--remote", "ward", "--yes"]);
    place.run(&again).ends_with(1);
    assert!(jobs(&place).iter().any(|job| job["state"] == "waiting"));
}

#[test]
fn a_manifest_without_weights_has_no_network_either() {
    let folder = tempfile::tempdir().unwrap();
    let write = |change: &dyn Fn(&mut Value)| {
        let outline = bundled("pneumonia-28").manifest().outline().unwrap();
        let mut manifest = serde_json::to_value(outline).unwrap();
        change(&mut manifest);
        let path = folder.path().join("manifest.json");
        fs::write(path, manifest.to_string()).unwrap();
        negatoscope::import::read(folder.path()).map(|_| ())
    };
    write(&|_| {}).unwrap();
    // The whole graph, a hash without a file, a file beside it.
    let graph = bundled("pneumonia-28").manifest().network.graph.clone();
    let whole = serde_json::to_value(graph).unwrap();
    let refused = write(&|m| m["network"]["graph"] = whole.clone()).unwrap_err();
    let why = std::error::Error::source(&refused).map(ToString::to_string);
    assert!(
        why.unwrap_or_else(|| refused.to_string())
            .contains("their input")
    );
    assert!(write(&|m| m["weights_sha256"] = "0".repeat(64).into()).is_err());
    fs::write(folder.path().join("weights.safetensors"), b"weights").unwrap();
    assert!(write(&|_| {}).is_err());
    // Layers over the whole grid have no outline.
    let layers = crate::elsewhere::local_layers();
    assert!(layers.manifest().outline().is_err());
}
