//! Many faults over a batch of studies on a server: each study has its result, once, and the right one.
//!
//! `NEGATOSCOPE_FAULTS=200` with forty studies takes some minutes; without it there are fewer of both.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
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
use crate::offload_server::{Authority, Issued, Server, Then, Wire, reply};
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
    /// The server's process is killed while it computes, and started again a moment later.
    ServerKilled,
    /// The same in the middle of its answer.
    ServerKilledAnswering,
}

const TROUBLES: [Trouble; 9] = [
    Trouble::Closed,
    Trouble::Status503,
    Trouble::ServerKilled,
    Trouble::Cut,
    Trouble::Kill,
    Trouble::Status500,
    Trouble::ServerKilledAnswering,
    Trouble::KillAfter,
    Trouble::FullDisk,
];

/// Where the server's process asks what is to happen; then its port, certificate and key.
const ASKS: &str = "NEGATOSCOPE_FAULTS_ASKS";
const AT: &str = "NEGATOSCOPE_FAULTS_AT";

/// Not a test by itself: the server's process, which the test below starts, and kills.
#[test]
fn a_server_until_it_is_killed() {
    let (Ok(asks), Ok(at)) = (std::env::var(ASKS), std::env::var(AT)) else {
        return;
    };
    let at: Vec<&str> = at.split('\n').collect();
    let issued = Issued::read(Path::new(at[1]), Path::new(at[2]));
    let model = Served::small();
    let port = at[0].parse().unwrap();
    let config = issued.config(&[&TLS13], None);
    let _server = Server::encrypted_at(port, config, move |_, heard, wire: &mut dyn Wire| {
        if !heard.path.ends_with("/infer") {
            return about(std::slice::from_ref(&model), &heard.path, wire);
        }
        let mut test = BufReader::new(TcpStream::connect(&asks)?);
        let mut line = String::new();
        test.read_line(&mut line)?;
        let trouble = line.trim().parse().ok().map(|n: usize| TROUBLES[n]);
        // Says that it is time, and goes on when the test has done its part.
        let mut now = || {
            test.get_mut().write_all(b"now\n")?;
            test.read_line(&mut String::new())
        };
        match trouble {
            None => infer(&model, heard, wire, Fault::None),
            Some(Trouble::Closed) => Ok(Then::Close),
            Some(Trouble::Cut) => {
                wire.write_all(PART)?;
                Ok(Then::Close)
            }
            Some(Trouble::Status503) => {
                let headers = [("Retry-After", "0")];
                let body = b"{\"error\":\"busy\"}";
                reply(wire, "503 Service Unavailable", &headers, body)
            }
            Some(Trouble::Status500) => {
                let body = b"{\"error\":\"no\"}";
                reply(wire, "500 Internal Server Error", &[], body)
            }
            Some(Trouble::Kill | Trouble::FullDisk | Trouble::ServerKilled) => {
                now()?;
                Ok(Then::Close)
            }
            Some(Trouble::KillAfter) => {
                let answered = infer(&model, heard, wire, Fault::None);
                wire.flush()?;
                now()?;
                answered
            }
            Some(Trouble::ServerKilledAnswering) => {
                wire.write_all(PART)?;
                wire.flush()?;
                now()?;
                Ok(Then::Close)
            }
        }
    });
    // Ends with the test, however that ends.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// An answer that does not go on.
const PART: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{\"model";

/// The server in a process of its own, always at the same port.
struct Process {
    asks: String,
    at: String,
    child: Child,
}

impl Process {
    fn start(asks: String, port: u16, issued: &Issued) -> Self {
        let (certificate, key) = (&issued.certificate_file, &issued.key_file);
        let at = format!("{port}\n{}\n{}", certificate.display(), key.display());
        let child = Self::spawn(&asks, &at);
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_mins(1), "it never began");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { asks, at, child }
    }

    fn spawn(asks: &str, at: &str) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "remote_faults::a_server_until_it_is_killed"])
            .env(ASKS, asks)
            .env(AT, at)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Kills it, and starts it again after a while.
    fn killed(&mut self, down: Duration) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::thread::sleep(down);
        self.child = Self::spawn(&self.asks, &self.at);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that the system gives to nobody by itself: it must be free again after each kill.
fn quiet_port() -> u16 {
    let first = 20_000 + (std::process::id() % 10_000) as u16;
    let mut ports = first..first + 1000;
    ports
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .unwrap()
}

/// What the test and those who answer the server's process tell each other.
struct Course {
    faults: usize,
    asked: AtomicUsize,
    done: Mutex<BTreeMap<Trouble, usize>>,
    /// The program is to be killed; it was.
    kill: AtomicBool,
    killed: AtomicBool,
    server: Mutex<Option<Process>>,
}

impl Course {
    fn count(&self, trouble: Trouble) -> usize {
        self.done
            .lock()
            .unwrap()
            .get(&trouble)
            .copied()
            .unwrap_or(0)
    }

    /// Tells the server what happens at a request, and does this side's part of it.
    fn answer(&self, server: TcpStream) -> std::io::Result<()> {
        let n = self.asked.fetch_add(1, Ordering::SeqCst);
        let mut done = self.done.lock().unwrap();
        let so_far: usize = done.values().sum();
        let mut server = BufReader::new(server);
        // Every request but each sixth goes wrong, as long as there are faults left.
        if so_far >= self.faults || n % 6 == 5 {
            return server.get_mut().write_all(b"none\n");
        }
        let turn = so_far % TROUBLES.len();
        let trouble = TROUBLES[turn];
        *done.entry(trouble).or_default() += 1;
        drop(done);
        server.get_mut().write_all(format!("{turn}\n").as_bytes())?;
        // It says when it is time, where there is something to do, and waits while this is kept.
        if server.read_line(&mut String::new())? == 0 {
            return Ok(());
        }
        match trouble {
            Trouble::Kill | Trouble::FullDisk => {
                // A full disk is one from the next start on: the test reads the count.
                self.killed.store(false, Ordering::SeqCst);
                self.kill.store(true, Ordering::SeqCst);
                let start = Instant::now();
                while !self.killed.load(Ordering::SeqCst)
                    && start.elapsed() < Duration::from_secs(30)
                {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            Trouble::KillAfter => self.kill.store(true, Ordering::SeqCst),
            Trouble::ServerKilled | Trouble::ServerKilledAnswering => {
                let down = Duration::from_millis((n * 37 % 400) as u64);
                let mut process = self.server.lock().unwrap();
                process.as_mut().unwrap().killed(down);
            }
            _ => {}
        }
        Ok(())
    }
}

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
    let issued = authority.issue(|_| {});
    let asks = TcpListener::bind("127.0.0.1:0").unwrap();
    let asks_at = asks.local_addr().unwrap().to_string();
    let port = quiet_port();
    let course = Arc::new(Course {
        faults,
        asked: AtomicUsize::new(0),
        done: Mutex::default(),
        kill: AtomicBool::new(false),
        killed: AtomicBool::new(false),
        server: Mutex::new(Some(Process::start(asks_at, port, &issued))),
    });
    let answering = Arc::clone(&course);
    std::thread::spawn(move || {
        for server in asks.incoming().flatten() {
            let course = Arc::clone(&answering);
            // A server that is killed goes without a word.
            std::thread::spawn(move || drop(course.answer(server)));
        }
    });
    let place = Place::new();
    studies(&place.path("studies"), count);
    let home = place.path("home");
    Registry::new(home.join("models"))
        .install(&local_layers(), false)
        .unwrap();
    let profile = Profile {
        ca: Some(authority.file.clone()),
        // 9 slices of 40 × 48 at once: four slabs for a study.
        max_request_bytes: 9 * 4 * 40 * 48 + (64 << 10),
        ..Profile::new("ward", &format!("https://127.0.0.1:{port}"))
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
        let wanted = course.count(Trouble::FullDisk);
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
            if course.kill.swap(false, Ordering::SeqCst) {
                // Now, or a moment later: while an answer is read, kept or written.
                std::thread::sleep(Duration::from_millis((runs * 7 % 40) as u64));
                child.kill().unwrap();
                child.wait().unwrap();
                course.killed.store(true, Ordering::SeqCst);
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
    let counts = course.done.lock().unwrap().clone();
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
    // The thread that answers the server holds the course too.
    drop(course.server.lock().unwrap().take());
}
