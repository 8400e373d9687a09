//! A batch over this machine and servers at once, by the real program: each study once, whoever does
//! it, with the masks that this machine alone gives.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use negatoscope::model::Registry;
use negatoscope::offload::{Endpoints, Profile};
use serde_json::{Value, json};

use crate::cli::Place;
use crate::elsewhere::local_layers;
use crate::remote::{Fault, ModelServer, Served, jobs};
use crate::remote_faults::{masks, studies};

const COUNT: usize = 6;

fn place(servers: &[&ModelServer]) -> Place {
    let place = Place::new();
    studies(&place.path("studies"), COUNT);
    let home = place.path("home");
    Registry::new(home.join("models"))
        .install(&local_layers(), false)
        .unwrap();
    for server in servers {
        Endpoints::add(&home, server.profile.clone()).unwrap();
    }
    place
}

const fn spread(places: &str) -> [&str; 11] {
    [
        "analyze",
        "studies",
        "--model",
        "small",
        "--out",
        "there",
        "--places",
        places,
        "--format",
        "nifti,json",
        "--yes",
    ]
}

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

/// How many results were made on a server.
fn made_on(name: &str, folder: &Path) -> usize {
    let files = walkdir::WalkDir::new(folder)
        .into_iter()
        .map(Result::unwrap);
    let results = files.filter(|f| f.file_name() == "result.json");
    let texts = results.map(|f| fs::read_to_string(f.path()).unwrap());
    let device = format!("model server {name} ");
    texts.filter(|t| t.contains(&device)).count()
}

#[test]
fn whoever_is_free_takes_the_next_study() {
    let server = ModelServer::new(64 << 20);
    let place = place(&[&server]);
    server.goes_wrong(0, Fault::Slow);
    let ran = place.run(&spread("local,ward")).ends_with(0);
    assert!(ran.err.contains(&format!("{COUNT} done")), "{}", ran.err);
    let there = made_on("ward", &place.path("there"));
    assert!((1..COUNT).contains(&there), "{there} on the server");
    assert_eq!(server.infers.load(Ordering::SeqCst), there);
    assert_eq!(jobs(&place)[0]["state"], "done");
    all_are_as_from_here(&place);
}

#[test]
fn a_server_that_goes_away_leaves_its_studies_to_this_machine() {
    let server = ModelServer::new(64 << 20);
    let place = place(&[&server]);
    server.goes_wrong(0, Fault::Busy);
    place.run(&spread("local,ward")).ends_with(0);
    assert_eq!(made_on("ward", &place.path("there")), 0);
    assert_eq!(jobs(&place)[0]["state"], "done");
    all_are_as_from_here(&place);
}

#[test]
fn a_kill_costs_at_most_what_was_under_way() {
    let server = ModelServer::new(64 << 20);
    let place = place(&[&server]);
    server.goes_wrong(0, Fault::Silence);
    killed_but_for_one(&place, "local,ward");
    server.goes_wrong(0, Fault::Slow);
    place.run(&["queue", "resume", "--yes"]).ends_with(0);
    all_are_as_from_here(&place);
}

/// Begins a batch of which one study is never answered, and kills it when all others are done.
fn killed_but_for_one(place: &Place, places: &str) {
    let mut child = place
        .command(&spread(places))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let journal = place.path("there/batch-journal.jsonl");
    let finished = || fs::read_to_string(&journal).map_or(0, |t| t.lines().count());
    let start = Instant::now();
    // One server keeps a study for itself; the others are done elsewhere.
    while finished() < COUNT - 1 {
        assert!(start.elapsed() < Duration::from_mins(2), "{}", finished());
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Two servers with the same model.
fn two() -> (ModelServer, ModelServer) {
    let cellar = ModelServer::of("cellar", vec![Served::small()], 64 << 20);
    (ModelServer::new(64 << 20), cellar)
}

#[test]
fn two_servers_share_a_batch() {
    let (ward, cellar) = two();
    let place = place(&[&ward, &cellar]);
    ward.goes_wrong(0, Fault::Slow);
    cellar.goes_wrong(0, Fault::Slow);
    let ran = place.run(&spread("ward,cellar")).ends_with(0);
    // Both are shown before anything leaves.
    for name in ["ward (https://", "cellar (https://", "whichever is free"] {
        assert!(ran.err.contains(name), "{}", ran.err);
    }
    let made = ["ward", "cellar"].map(|name| made_on(name, &place.path("there")));
    assert!(
        made[0] > 0 && made[1] > 0 && made[0] + made[1] == COUNT,
        "{made:?}"
    );
    assert_eq!([ward.bodies().len(), cellar.bodies().len()], made);
    let job = &jobs(&place)[0];
    assert_eq!(
        (&job["endpoint"], &job["also_on"], &job["state"]),
        (&json!("ward"), &json!(["cellar"]), &json!("done"))
    );
    all_are_as_from_here(&place);
    let ran = place.run(&spread("ward,cellar,ward")).ends_with(1);
    assert!(ran.err.contains("ward is named twice"), "{}", ran.err);
    let ran = place.run(&spread("ward,attic")).ends_with(1);
    assert!(ran.err.contains("no endpoint \"attic\""), "{}", ran.err);
}

#[test]
fn a_server_that_dies_leaves_its_studies_to_the_other() {
    let (ward, cellar) = two();
    let place = place(&[&ward, &cellar]);
    // On the way, the job's own one.
    ward.goes_wrong(1, Fault::Busy);
    place.run(&spread("ward,cellar")).ends_with(0);
    assert_eq!(jobs(&place)[0]["state"], "done");
    assert!(made_on("ward", &place.path("there")) <= 1);
    all_are_as_from_here(&place);
    // Before the beginning.
    fs::remove_dir_all(place.path("there")).unwrap();
    ward.goes_wrong(usize::MAX, Fault::None);
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = gone.local_addr().unwrap().port();
    drop(gone);
    let home = place.path("home");
    Endpoints::remove(&home, "ward").unwrap();
    let profile = Profile {
        url: format!("https://127.0.0.1:{port}"),
        ..ward.profile.clone()
    };
    Endpoints::add(&home, profile).unwrap();
    let before = ward.bodies().len();
    let ran = place.run(&spread("ward,cellar")).ends_with(0);
    assert!(ran.err.contains("ward is left out"), "{}", ran.err);
    assert_eq!(made_on("cellar", &place.path("there")), COUNT);
    assert_eq!(ward.bodies().len(), before);
}

#[test]
fn a_kill_over_two_servers_costs_at_most_what_was_under_way() {
    let (ward, cellar) = two();
    let place = place(&[&ward, &cellar]);
    ward.goes_wrong(0, Fault::Slow);
    cellar.goes_wrong(0, Fault::Silence);
    killed_but_for_one(&place, "ward,cellar");
    assert_eq!((ward.bodies().len(), cellar.bodies().len()), (COUNT - 1, 1));
    cellar.goes_wrong(usize::MAX, Fault::None);
    place.run(&["queue", "resume", "--yes"]).ends_with(0);
    assert_eq!(ward.bodies().len() + cellar.bodies().len(), COUNT + 1);
    all_are_as_from_here(&place);
}
