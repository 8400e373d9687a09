//! A model's networks on a server, by the real program: the same masks as here, nothing of anybody
//! on the way or on disk, and nothing lost when the server or the program goes away.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use negatoscope::inference::native::{Native, Workspace};
use negatoscope::inference::{Array, Executor, Network, forward};
use negatoscope::model::{Registry, VerifiedPackage};
use negatoscope::nifti;
use negatoscope::offload::{Endpoints, Profile};
use negatoscope::task::Task;
use rustls::version::TLS13;
use serde_json::{Value, json};

use crate::cli::Place;
use crate::elsewhere::local_layers;
use crate::offload_server::{Authority, Heard, Server, Then, Wire, reply};

/// Bytes of a slice of the test study on the model's grid.
pub const SLICE: u64 = 4 * 160 * 192;

/// What a server does instead of answering.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Says that it is busy.
    Busy,
    /// Never answers.
    Silence,
    /// Another model's labels.
    Label,
    /// One value too few.
    Short,
    /// Another version of the model.
    Version,
    /// Right, and late.
    Slow,
    /// A score that is no number.
    Nan,
}

/// How a model computes: the shape and bytes of its answer.
type Compute = Box<dyn Fn(&[usize], Vec<f32>) -> (Vec<usize>, Vec<u8>) + Send + Sync>;

/// A model on a server.
pub struct Served {
    pub name: String,
    /// What it takes and gives, as the server tells it.
    pub input: Value,
    pub output: Value,
    pub compute: Compute,
}

impl Served {
    /// The model `small`.
    pub fn small() -> Self {
        let network = Network::new(&local_layers()).unwrap();
        Self {
            name: "small".to_owned(),
            input: json!({"name": "image", "datatype": "FP32", "shape": [-1, -1, -1]}),
            output: json!({"name": "mask", "datatype": "UINT8", "shape": [-1, -1, -1]}),
            compute: Box::new(move |shape, values| {
                let dims = shape.to_vec().try_into().unwrap();
                let labels = forward(&network, values, dims, Executor::Native, &Task::new());
                (shape.to_vec(), labels.unwrap())
            }),
        }
    }
}

/// A network as a server's model: its input and its scores have as many axes as it says.
pub fn served_network(name: &str, network: Native, input: &[i64], scores: &[i64]) -> Served {
    Served {
        name: name.to_owned(),
        input: json!({"name": "image", "datatype": "FP32", "shape": input}),
        output: json!({"name": "scores", "datatype": "FP32", "shape": scores}),
        compute: Box::new(move |shape, values| {
            let input = Array::new(shape, values);
            let mut found = network
                .run(&input, &mut Workspace::default(), &Task::new())
                .unwrap();
            let scores = found.remove(0);
            let bytes = scores.values.iter().flat_map(|s| s.to_le_bytes()).collect();
            (scores.shape, bytes)
        }),
    }
}

/// A server with models.
pub struct ModelServer {
    pub server: Server,
    /// From which inference on what goes wrong.
    fault: Arc<Mutex<(usize, Fault)>>,
    pub infers: Arc<AtomicUsize>,
    _folder: tempfile::TempDir,
    pub profile: Profile,
}

impl ModelServer {
    /// `ward`, with the model `small`.
    pub fn new(max_request_bytes: u64) -> Self {
        Self::of("ward", vec![Served::small()], max_request_bytes)
    }

    pub fn of(name: &str, models: Vec<Served>, max_request_bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), name);
        let config = authority.issue(|_| {}).config(&[&TLS13], None);
        let fault = Arc::new(Mutex::new((usize::MAX, Fault::None)));
        let infers = Arc::new(AtomicUsize::new(0));
        let (faults, counted) = (Arc::clone(&fault), Arc::clone(&infers));
        let server = Server::encrypted(config, move |_, heard, wire| {
            if !heard.path.ends_with("/infer") {
                return about(&models, &heard.path, wire);
            }
            let number = counted.fetch_add(1, Ordering::SeqCst);
            let (from, fault) = *faults.lock().unwrap();
            let fault = if number >= from { fault } else { Fault::None };
            let asked = |m: &&Served| heard.path == format!("/v2/models/{}/infer", m.name);
            infer(models.iter().find(asked).unwrap(), heard, wire, fault)
        });
        let profile = Profile {
            name: name.to_owned(),
            ca: Some(authority.file),
            max_request_bytes,
            region: "cellar".to_owned(),
            ..server.profile()
        };
        Self {
            server,
            fault,
            infers,
            _folder: folder,
            profile,
        }
    }

    pub fn goes_wrong(&self, number: usize, fault: Fault) {
        *self.fault.lock().unwrap() = (number, fault);
    }

    pub fn bodies(&self) -> Vec<Vec<u8>> {
        let heard = self.server.heard();
        let infers = heard.into_iter().filter(|h| h.path.ends_with("/infer"));
        infers.map(|h| h.parts().1).collect()
    }
}

/// What a server says of itself and its models.
pub fn about(models: &[Served], path: &str, wire: &mut dyn Wire) -> std::io::Result<Then> {
    let name = path.strip_prefix("/v2/models/");
    let model = models.iter().find(|m| Some(m.name.as_str()) == name);
    let told = match (path, model) {
        ("/v2", _) => {
            json!({"name": "ward", "version": "1", "extensions": ["binary_tensor_data"]})
        }
        (_, Some(model)) => json!({"name": model.name, "versions": ["1"], "platform": "test",
            "inputs": [model.input], "outputs": [model.output]}),
        (_, None) => {
            let error = b"{\"error\":\"no such path\"}";
            return reply(wire, "404 Not Found", &[], error);
        }
    };
    reply(wire, "200 OK", &[], told.to_string().as_bytes())
}

pub fn infer(
    model: &Served,
    heard: &Heard,
    wire: &mut dyn Wire,
    fault: Fault,
) -> std::io::Result<Then> {
    match fault {
        Fault::Busy => {
            let headers = [("Retry-After", "0")];
            return reply(
                wire,
                "503 Service Unavailable",
                &headers,
                b"{\"error\":\"busy\"}",
            );
        }
        Fault::Silence => {
            std::thread::sleep(Duration::from_mins(2));
            return Ok(Then::Close);
        }
        Fault::Slow => std::thread::sleep(Duration::from_millis(400)),
        Fault::None | Fault::Label | Fault::Short | Fault::Version | Fault::Nan => {}
    }
    let (asked, values) = heard.parts();
    let shape: Vec<usize> = serde_json::from_value(asked["inputs"][0]["shape"].clone()).unwrap();
    let values = bytemuck::pod_collect_to_vec(&values);
    let (shape, mut bytes) = (model.compute)(&shape, values);
    match fault {
        Fault::Label => bytes[7] = 9,
        Fault::Nan => bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes()),
        Fault::Short => drop(bytes.pop()),
        _ => {}
    }
    let version = if fault == Fault::Version { "2" } else { "1" };
    let (output, datatype) = (&model.output["name"], &model.output["datatype"]);
    let head = json!({"model_name": model.name, "model_version": version, "id": asked["id"],
        "outputs": [{"name": output, "datatype": datatype, "shape": shape,
            "parameters": {"binary_data_size": bytes.len()}}]});
    let head = head.to_string().into_bytes();
    let length = head.len().to_string();
    let headers = [("Inference-Header-Content-Length", length.as_str())];
    reply(wire, "200 OK", &headers, &[head, bytes].concat())
}

/// Puts the model into a home.
pub fn with_model(home: &Path) {
    fs::create_dir_all(home).unwrap();
    Registry::new(home.join("models"))
        .install(&local_layers(), false)
        .unwrap();
}

/// A home with the model and the endpoint, and a study.
pub fn place(server: &ModelServer) -> Place {
    let place = Place::new().with_study();
    let home = place.path("home");
    with_model(&home);
    Endpoints::add(&home, server.profile.clone()).unwrap();
    place
}

const REMOTE: [&str; 9] = [
    "analyze", "study", "--model", "small", "--out", "there", "--remote", "ward", "--format",
];

pub fn remote(place: &Place, more: &[&str]) -> crate::cli::Ran {
    place.run(&[&REMOTE[..], &["nifti,json,csv"], more].concat())
}

/// The mask that a folder of results holds.
pub fn mask(folder: &Path) -> Vec<u8> {
    let files = walkdir::WalkDir::new(folder)
        .into_iter()
        .map(Result::unwrap);
    let mut masks = files.filter(|f| f.file_name().to_string_lossy().ends_with(".nii.gz"));
    let file = masks.next().expect("a mask").into_path();
    assert!(masks.next().is_none());
    let map = nifti::read(&file, &Task::new()).unwrap();
    map.values().iter().map(|v| *v as u8).collect()
}

pub fn masks_are_equal(place: &Place) {
    let local = [
        "analyze", "study", "--model", "small", "--out", "here", "--format", "nifti",
    ];
    place.run(&local).ends_with(0);
    let (here, there) = (mask(&place.path("here")), mask(&place.path("there")));
    assert!(here.iter().any(|l| *l != here[0]), "nothing to compare");
    assert_eq!(here, there);
}

pub fn jobs(place: &Place) -> Vec<Value> {
    let listed = place.run(&["queue", "list", "--json"]).ends_with(0).json();
    listed["jobs"].as_array().unwrap().clone()
}

/// Nothing of the study's words is in what a server has heard, nor in a folder.
pub fn nobody_is_named(server: &ModelServer, home: &Path) {
    for heard in server.server.heard() {
        let text = format!("{} {} {:?}", heard.method, heard.path, heard.headers);
        for word in WORDS {
            assert!(!holds(text.as_bytes(), word) && !holds(&heard.body, word));
        }
    }
    nobody_is_named_in(home);
}

const WORDS: [&[u8]; 4] = [b"Secretname", b"SECRET-4711", b"Jane", b"2.25."];

fn holds(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|w| w == word)
}

/// Nothing of the studies' words, and no path of theirs, is in the queue's files and their names.
pub fn nobody_is_named_in(home: &Path) {
    for file in walkdir::WalkDir::new(home.join("queue")) {
        // A file may go away meanwhile.
        let Ok(file) = file else { continue };
        let name = file.path().to_string_lossy().into_owned();
        let name = name.rsplit("queue").next().unwrap();
        let bytes = fs::read(file.path()).unwrap_or_default();
        for word in WORDS.into_iter().chain([&b"stud"[..]]) {
            assert!(!holds(&bytes, word) && !holds(name.as_bytes(), word));
        }
    }
}

#[test]
fn masks_from_a_server_are_those_from_here() {
    let server = ModelServer::new(64 << 20);
    let place = place(&server);
    let ran = remote(&place, &["--yes"]).ends_with(0);
    assert!(ran.err.contains("image values of 1 series"), "{}", ran.err);
    masks_are_equal(&place);
    assert_eq!(server.bodies().len(), 1);
    let found: Value = {
        let files = walkdir::WalkDir::new(place.path("there"))
            .into_iter()
            .map(Result::unwrap);
        let file = files
            .into_iter()
            .find(|f| f.file_name() == "result.json")
            .unwrap();
        serde_json::from_slice(&fs::read(file.path()).unwrap()).unwrap()
    };
    let text = found.to_string();
    assert!(
        text.contains("model server ward (small version 1)"),
        "{text}"
    );
    nobody_is_named(&server, &place.path("home"));
    let jobs = jobs(&place);
    assert_eq!(jobs[0]["state"], "done");
    assert!(jobs[0]["sent_bytes"].as_u64().unwrap() > 40 * SLICE);
    // What left is on record, before and after, and the log is whole.
    place.run(&["audit", "verify"]).ends_with(0);
    let log = place.run(&["audit", "show", "--json"]).ends_with(0).out;
    assert!(
        log.contains("\"endpoint\"") && log.contains("server_key_sha256"),
        "{log}"
    );
    place.run(&["queue", "clear"]).ends_with(0);
    assert!(self::jobs(&place).is_empty());
}

#[test]
fn nothing_is_sent_before_somebody_agrees() {
    let server = ModelServer::new(64 << 20);
    let place = place(&server);
    let ran = remote(&place, &[]).ends_with(1);
    assert!(ran.err.contains("nobody has agreed"), "{}", ran.err);
    assert_eq!(server.infers.load(Ordering::SeqCst), 0);
    assert!(!place.path("there").exists());
    let id = jobs(&place)[0]["id"].as_str().unwrap().to_owned();
    place.run(&["queue", "resume", &id]).ends_with(1);
    assert_eq!(server.infers.load(Ordering::SeqCst), 0);
    let ran = place.run(&["queue", "cancel", &id]).ends_with(0);
    assert!(ran.out.contains("nothing had been sent"), "{}", ran.out);
    place.run(&["queue", "resume", "--yes"]).ends_with(0);
    assert_eq!(server.infers.load(Ordering::SeqCst), 0);
    // Agreed to later, it runs.
    remote(&place, &[]).ends_with(1);
    place.run(&["queue", "resume", "--yes"]).ends_with(0);
    masks_are_equal(&place);
}

#[test]
fn a_server_that_goes_away_leaves_a_job_that_goes_on() {
    // 13 slices at once, three of them on each side for the others: six slabs.
    let server = ModelServer::new(13 * SLICE + (64 << 10));
    let place = place(&server);
    server.goes_wrong(2, Fault::Busy);
    let ran = remote(&place, &["--yes"]).ends_with(1);
    assert!(ran.err.contains("queue resume"), "{}", ran.err);
    let job = &jobs(&place)[0];
    assert_eq!(job["state"], "waiting");
    assert!(job["words"].as_str().unwrap().contains("503"), "{job}");
    nobody_is_named(&server, &place.path("home"));
    let tried = server.bodies().len();
    server.goes_wrong(usize::MAX, Fault::None);
    place.run(&["queue", "resume", "--yes"]).ends_with(0);
    masks_are_equal(&place);
    // What was answered before was not asked again.
    let bodies = server.bodies();
    assert_eq!(bodies.len(), tried + 4);
    assert_eq!(jobs(&place)[0]["state"], "done");
}

#[test]
fn a_kill_loses_no_answer() {
    let server = ModelServer::new(13 * SLICE + (64 << 10));
    let place = place(&server);
    server.goes_wrong(3, Fault::Silence);
    let arguments = [&REMOTE[..], &["nifti", "--yes"]].concat();
    let mut child = place
        .command(&arguments)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while server.infers.load(Ordering::SeqCst) < 4 {
        assert!(
            start.elapsed() < Duration::from_mins(2),
            "the fourth request never came"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(jobs(&place)[0]["state"], "running");
    // Another process leaves it alone.
    let ran = place.run(&["queue", "resume", "--yes"]).ends_with(1);
    assert!(ran.err.contains("another process"), "{}", ran.err);
    child.kill().unwrap();
    child.wait().unwrap();
    let job = &jobs(&place)[0];
    assert_eq!(
        (&job["state"], &job["words"]),
        (&json!("waiting"), &json!("interrupted"))
    );
    nobody_is_named(&server, &place.path("home"));
    server.goes_wrong(usize::MAX, Fault::None);
    place.run(&["queue", "resume", "--yes"]).ends_with(0);
    masks_are_equal(&place);
    let mut bodies = server.bodies();
    assert_eq!(bodies.len(), 3 + 1 + 3);
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 6);
    place.run(&["audit", "verify"]).ends_with(0);
}

#[test]
fn answers_that_cannot_be_right_are_not_used() {
    for (fault, words) in [
        (Fault::Label, "label 9"),
        (Fault::Short, "no answer that can be used"),
    ] {
        let server = ModelServer::new(64 << 20);
        let place = place(&server);
        server.goes_wrong(0, fault);
        let ran = remote(&place, &["--yes"]).ends_with(1);
        assert!(ran.err.contains(words), "{}", ran.err);
        assert_eq!(jobs(&place)[0]["state"], "failed");
    }
    // No such model there, or no such endpoint here.
    let server = ModelServer::new(64 << 20);
    let place = place(&server);
    let asked = "analyze study --model hippocampus-mini --out o --remote ward --yes";
    let ran = place.run(&asked.split(' ').collect::<Vec<_>>());
    assert!(ran.ends_with(1).err.contains("404"));
    let ran = place.run(&[
        "analyze", "study", "--model", "small", "--out", "o", "--remote", "cellar", "--yes",
    ]);
    assert!(ran.ends_with(1).err.contains("no endpoint \"cellar\""));
    assert_eq!(server.infers.load(Ordering::SeqCst), 0);
}

/// The package as it is installed.
#[test]
fn a_job_keeps_to_the_weights_that_it_was_made_for() {
    let server = ModelServer::new(64 << 20);
    let place = place(&server);
    remote(&place, &[]).ends_with(1);
    let other = VerifiedPackage::verify(crate::engine::package(|m, weights| {
        m.network
            .layers
            .retain(|l| !matches!(l, negatoscope::model::Layer::InstanceNorm { .. }));
        for value in weights.values_mut().flatten() {
            *value *= 0.5;
        }
    }))
    .unwrap();
    let registry = Registry::new(place.path("home").join("models"));
    registry.install(&other, false).unwrap();
    let ran = place.run(&["queue", "resume", "--yes"]).ends_with(1);
    assert!(ran.err.contains("other weights"), "{}", ran.err);
    assert_eq!(server.infers.load(Ordering::SeqCst), 0);
}
