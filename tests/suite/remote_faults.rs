//! Many faults over a batch of studies on a server: each study has its result, once, and the right one.
//!
//! `NEGATOSCOPE_FAULTS=200` with forty studies takes some minutes; without it there are fewer of both.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use negatoscope::geometry::{DVec3, VolumeGeometry};
use negatoscope::model::Registry;
use negatoscope::nifti;
use negatoscope::offload::{Endpoints, Profile};
use negatoscope::task::Task;
use rustls::version::TLS13;
use serde_json::Value;

use crate::cli::{Place, write_study};
use crate::elsewhere::local_layers;
use crate::offload_server::{Authority, Server, Then, Wire, reply};
use crate::remote::{Fault, Served, about, infer, nobody_is_named_in};

/// What happens at a request, in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    /// The connection ends before an answer.
    Closed,
    /// In the middle of one.
    Cut,
    Status503,
    Status500,
    /// The program is killed while the server computes.
    Kill,
    /// The program is killed when the answer is on its way.
    KillAfter,
    /// No file can be written any more until the program is begun anew.
    FullDisk,
}

const TROUBLES: [Trouble; 7] = [
    Trouble::Closed,
    Trouble::Status503,
    Trouble::Cut,
    Trouble::Kill,
    Trouble::Status500,
    Trouble::KillAfter,
    Trouble::FullDisk,
];

pub fn studies(folder: &Path, count: usize) {
    for n in 0..count {
        let axes = [DVec3::X, DVec3::Y, DVec3::Z];
        let corner = DVec3::new(-20.0, -24.0, -6.0);
        let grid = VolumeGeometry::from_axes([20, 24, 6], corner, axes, [2.0; 3]).unwrap();
        let first_uid = 880_000 + 1000 * n as u128;
        write_study(&folder.join(n.to_string()), 100 + n as u64, grid, first_uid);
    }
}

/// Masks by the folder of their series.
pub fn masks(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for file in walkdir::WalkDir::new(folder)
        .into_iter()
        .map(Result::unwrap)
    {
        if !file.file_name().to_string_lossy().ends_with(".nii.gz") {
            continue;
        }
        let map = nifti::read(file.path(), &Task::new()).unwrap();
        let parent = file.path().parent().unwrap().strip_prefix(folder).unwrap();
        let values = map.values().iter().map(|v| *v as u8).collect();
        let before = found.insert(parent.to_string_lossy().into_owned(), values);
        assert!(before.is_none(), "two masks for one series");
    }
    found
}

#[test]
fn every_study_has_its_result_once_whatever_happens() {
    let faults: usize = std::env::var("NEGATOSCOPE_FAULTS").map_or(28, |n| n.parse().unwrap());
    let count = if faults >= 200 { 40 } else { 6 };
    let authority_folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(authority_folder.path(), "ward");
    let config = authority.issue(|_| {}).config(&[&TLS13], None);
    let model = Served::small();
    // What the test and the server tell each other.
    let done = Arc::new(Mutex::new(BTreeMap::<Trouble, usize>::new()));
    let (kill, killed) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let number = Arc::new(AtomicUsize::new(0));
    let (counts, wants, gone, numbers) =
        (done.clone(), kill.clone(), killed.clone(), number.clone());
    let server = Server::encrypted(config, move |_, heard, wire: &mut dyn Wire| {
        if !heard.path.ends_with("/infer") {
            return about(std::slice::from_ref(&model), &heard.path, wire);
        }
        let n = numbers.fetch_add(1, Ordering::SeqCst);
        let so_far: usize = counts.lock().unwrap().values().sum();
        // Every request but each sixth goes wrong, as long as there are faults left.
        if so_far >= faults || n % 6 == 5 {
            return infer(&model, heard, wire, Fault::None);
        }
        let trouble = TROUBLES[so_far % TROUBLES.len()];
        *counts.lock().unwrap().entry(trouble).or_default() += 1;
        match trouble {
            Trouble::Closed => Ok(Then::Close),
            Trouble::Cut => {
                wire.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{\"model")?;
                Ok(Then::Close)
            }
            Trouble::Status503 => {
                let headers = [("Retry-After", "0")];
                reply(
                    wire,
                    "503 Service Unavailable",
                    &headers,
                    b"{\"error\":\"busy\"}",
                )
            }
            Trouble::Status500 => reply(
                wire,
                "500 Internal Server Error",
                &[],
                b"{\"error\":\"no\"}",
            ),
            Trouble::Kill | Trouble::FullDisk => {
                // A full disk is one from the next start on: the test reads the count.
                gone.store(false, Ordering::SeqCst);
                wants.store(true, Ordering::SeqCst);
                let start = Instant::now();
                while !gone.load(Ordering::SeqCst) && start.elapsed() < Duration::from_secs(30) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(Then::Close)
            }
            Trouble::KillAfter => {
                let answered = infer(&model, heard, wire, Fault::None);
                wire.flush()?;
                wants.store(true, Ordering::SeqCst);
                answered
            }
        }
    });
    let place = Place::new();
    studies(&place.path("studies"), count);
    let home = place.path("home");
    Registry::new(home.join("models"))
        .install(&local_layers(), false)
        .unwrap();
    let profile = Profile {
        name: "ward".to_owned(),
        ca: Some(authority.file.clone()),
        // 9 slices of 40 × 48 at once: four slabs for a study.
        max_request_bytes: 9 * 4 * 40 * 48 + (64 << 10),
        ..server.profile()
    };
    Endpoints::add(&home, profile).unwrap();
    let begin = [
        "analyze", "studies", "--model", "small", "--out", "there", "--remote", "ward", "--format",
        "nifti", "--yes",
    ];
    let resume = ["queue", "resume", "--yes"];
    let start = Instant::now();
    let (mut runs, mut full_disks) = (0, 0);
    loop {
        assert!(start.elapsed() < Duration::from_mins(20), "it never ended");
        let arguments: &[&str] = if runs == 0 { &begin } else { &resume };
        runs += 1;
        let wanted = done
            .lock()
            .unwrap()
            .get(&Trouble::FullDisk)
            .copied()
            .unwrap_or(0);
        let mut command = if wanted > full_disks {
            // No file may grow beyond a block: what a full disk says, without one.
            full_disks = wanted;
            let plain = place.command(arguments);
            let mut shell = Command::new("sh");
            shell
                .args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\""])
                .arg(plain.get_program())
                .args(plain.get_args())
                .current_dir(place.path("."))
                .env("NEGATOSCOPE_HOME", &home)
                .stdin(Stdio::null());
            shell
        } else {
            place.command(arguments)
        };
        let out = fs::File::create(place.path("words")).unwrap();
        let mut child = command.stdout(Stdio::null()).stderr(out).spawn().unwrap();
        loop {
            if kill.swap(false, Ordering::SeqCst) {
                // Now, or a moment later: while an answer is read, kept or written.
                std::thread::sleep(Duration::from_millis((runs * 7 % 40) as u64));
                child.kill().unwrap();
                child.wait().unwrap();
                killed.store(true, Ordering::SeqCst);
                break;
            }
            if child.try_wait().unwrap().is_some() {
                break;
            }
            assert!(start.elapsed() < Duration::from_mins(20), "it never ended");
            std::thread::sleep(Duration::from_millis(5));
        }
        let words = fs::read_to_string(place.path("words")).unwrap();
        assert!(
            !words.contains("Secretname") && !words.contains("SECRET"),
            "{words}"
        );
        let jobs = place.run(&["queue", "list", "--json"]).ends_with(0).json();
        let jobs = jobs["jobs"].as_array().unwrap().clone();
        // Killed before the job was on disk: the person begins anew.
        if jobs.is_empty() {
            runs = 0;
            continue;
        }
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        nobody_is_named_in(&home);
        match jobs[0]["state"].as_str().unwrap() {
            "done" => break,
            "waiting" => {}
            state => panic!("{state}: {}", jobs[0]),
        }
    }
    let counts = done.lock().unwrap().clone();
    let sum: usize = counts.values().sum();
    println!(
        "{sum} faults over {count} studies in {runs} runs, {:?}: {counts:?}",
        start.elapsed()
    );
    assert_eq!(
        sum, faults,
        "the batch ended before all faults had happened"
    );
    // Forty results, each once, each as it is here.
    let local = [
        "analyze", "studies", "--model", "small", "--out", "here", "--format", "nifti",
    ];
    place.run(&local).ends_with(0);
    let (here, there) = (masks(&place.path("here")), masks(&place.path("there")));
    assert_eq!(here.len(), count);
    assert!(here == there, "masks differ");
    let table: Value =
        serde_json::from_slice(&fs::read(place.path("there/batch.json")).unwrap()).unwrap();
    let rows = table["rows"].as_array().unwrap();
    assert!(
        rows.len() == count && rows.iter().all(|r| r["status"] == "done"),
        "{table}"
    );
    place.run(&["audit", "verify"]).ends_with(0);
}
