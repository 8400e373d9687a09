//! A batch over this machine and a server at once, by the real program: each study once, whoever does
//! it, with the masks that this machine alone gives.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use negatoscope::model::Registry;
use negatoscope::offload::Endpoints;
use serde_json::Value;

use crate::cli::Place;
use crate::elsewhere::local_layers;
use crate::remote::{Fault, ModelServer, jobs};
use crate::remote_faults::{masks, studies};

const COUNT: usize = 6;

fn place(server: &ModelServer) -> Place {
    let place = Place::new();
    studies(&place.path("studies"), COUNT);
    let home = place.path("home");
    Registry::new(home.join("models"))
        .install(&local_layers(), false)
        .unwrap();
    Endpoints::add(&home, server.profile.clone()).unwrap();
    place
}

const SPREAD: [&str; 10] = [
    "analyze",
    "studies",
    "--model",
    "small",
    "--out",
    "there",
    "--places",
    "local,ward",
    "--format",
    "nifti,json",
];

fn all_are_as_from_here(place: &Place) {
    let local = [
        "analyze", "studies", "--model", "small", "--out", "here", "--format", "nifti",
    ];
    place.run(&local).ends_with(0);
    let (here, there) = (masks(&place.path("here")), masks(&place.path("there")));
    assert_eq!(there.len(), COUNT);
    assert!(here == there, "masks differ");
    let table = fs::read(place.path("there/batch.json")).unwrap();
    let table: Value = serde_json::from_slice(&table).unwrap();
    assert_eq!(
        (&table["done"], &table["failed"]),
        (&COUNT.into(), &0.into())
    );
    // Each once: a line in the journal for each.
    let journal = fs::read_to_string(place.path("there/batch-journal.jsonl")).unwrap();
    let mut lines = BTreeMap::<String, usize>::new();
    for line in journal.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        *lines.entry(line["key"].to_string()).or_default() += 1;
    }
    assert!(
        lines.len() == COUNT && lines.values().all(|n| *n == 1),
        "{lines:?}"
    );
    place.run(&["audit", "verify"]).ends_with(0);
}

/// How many results were made on the server.
fn from_the_server(folder: &Path) -> usize {
    let files = walkdir::WalkDir::new(folder)
        .into_iter()
        .map(Result::unwrap);
    let results = files.filter(|f| f.file_name() == "result.json");
    let texts = results.map(|f| fs::read_to_string(f.path()).unwrap());
    texts.filter(|t| t.contains("model server ward")).count()
}

#[test]
fn whoever_is_free_takes_the_next_study() {
    let server = ModelServer::new(64 << 20);
    let place = place(&server);
    server.goes_wrong(0, Fault::Slow);
    let ran = place.run(&[&SPREAD[..], &["--yes"]].concat()).ends_with(0);
    assert!(ran.err.contains(&format!("{COUNT} done")), "{}", ran.err);
    let there = from_the_server(&place.path("there"));
    assert!((1..COUNT).contains(&there), "{there} on the server");
    assert_eq!(server.infers.load(Ordering::SeqCst), there);
    assert_eq!(jobs(&place)[0]["state"], "done");
    all_are_as_from_here(&place);
}

#[test]
fn a_server_that_goes_away_leaves_its_studies_to_this_machine() {
    let server = ModelServer::new(64 << 20);
    let place = place(&server);
    server.goes_wrong(0, Fault::Busy);
    place.run(&[&SPREAD[..], &["--yes"]].concat()).ends_with(0);
    assert_eq!(from_the_server(&place.path("there")), 0);
    assert_eq!(jobs(&place)[0]["state"], "done");
    all_are_as_from_here(&place);
}

#[test]
fn a_kill_costs_at_most_what_was_under_way() {
    let server = ModelServer::new(64 << 20);
    let place = place(&server);
    server.goes_wrong(0, Fault::Silence);
    let arguments = [&SPREAD[..], &["--yes"]].concat();
    let mut child = place
        .command(&arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let journal = place.path("there/batch-journal.jsonl");
    let finished = || fs::read_to_string(&journal).map_or(0, |t| t.lines().count());
    let start = Instant::now();
    // The server keeps one for itself; this machine does the others.
    while finished() < COUNT - 1 {
        assert!(start.elapsed() < Duration::from_mins(2), "{}", finished());
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    server.goes_wrong(0, Fault::Slow);
    place.run(&["queue", "resume", "--yes"]).ends_with(0);
    all_are_as_from_here(&place);
}
