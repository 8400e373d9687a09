//! Real servers as children of a test: found in the folder that `NEGATOSCOPE_SERVERS` names
//! (`tests/servers/install.sh` fills it), started, waited for, and ended with the test.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use negatoscope::offload::{
    Client, Datatype, InferRequest, InputTensor, Profile, Secrets, WantedOutput, random_id,
};
use negatoscope::task::Task;

/// Where a server is installed.
pub fn installed(name: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("NEGATOSCOPE_SERVERS") else {
        println!("skipped: NEGATOSCOPE_SERVERS is not set");
        return None;
    };
    let place = Path::new(&folder).join(name);
    let is_there = place.join("installed").exists();
    if !is_there {
        println!("skipped: {name} is not in the folder that NEGATOSCOPE_SERVERS names");
    }
    is_there.then_some(place)
}

pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/servers")
        .join(name)
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A server that is told to end when the test ends.
pub struct Started {
    child: Child,
    pub folder: tempfile::TempDir,
    pub port: u16,
}

impl Started {
    /// `command` gets an empty folder and a free port.
    pub fn new(command: impl FnOnce(&Path, u16) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let log = File::create(folder.path().join("server.log")).unwrap();
        let child = command(folder.path(), port)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        Self {
            child,
            folder,
            port,
        }
    }

    /// A model server of `start.sh`; comes back when its models are ready.
    pub fn model_server(name: &str, place: &Path) -> Self {
        let mut server = Self::new(|folder, port| {
            let scratch = folder.join("scratch");
            fs::create_dir(&scratch).unwrap();
            let port = OsString::from(port.to_string());
            let mut command = Command::new(script("start.sh"));
            command.arg(name).args([place, &scratch]).arg(port);
            command
        });
        let client = Client::new(&server.profile(name), Secrets::of_environment()).unwrap();
        server.wait_until(|| {
            let is_ready = |model| client.model_ready(model, None, &Task::new());
            ["threshold", "half"]
                .into_iter()
                .all(|model| is_ready(model).unwrap_or(false))
        });
        server
    }

    /// Waits for a server that starts; one that ends or takes minutes fails the test with its words.
    pub fn wait_until(&mut self, is_ready: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is_ready() {
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() || begun.elapsed() > Duration::from_mins(3) {
                let words = fs::read_to_string(self.folder.path().join("server.log"));
                panic!("the server does not start: {}", words.unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn profile(&self, name: &str) -> Profile {
        Profile {
            allow_insecure_loopback: true,
            max_request_bytes: 1 << 30,
            ..Profile::new(name, &format!("http://127.0.0.1:{}", self.port))
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let tell = |signal: &str, whom: String| {
            let mut kill = Command::new("kill");
            let _ = kill
                .args([signal, "--", &whom])
                .stderr(Stdio::null())
                .status();
        };
        // A polite end first, so that it takes its own children with it; then whoever is left.
        tell("-TERM", self.child.id().to_string());
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(40) && matches!(self.child.try_wait(), Ok(None))
        {
            std::thread::sleep(Duration::from_millis(50));
        }
        tell("-KILL", format!("-{}", self.child.id()));
        let _ = self.child.wait();
    }
}

/// A fixed sequence with both signs.
pub fn voxels(count: usize) -> Vec<i16> {
    let mut state = 7_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as i16
    };
    (0..count).map(next).collect()
}

/// What the model `threshold` must say of them.
pub fn above_zero(voxels: &[i16]) -> Vec<u8> {
    voxels.iter().map(|&v| u8::from(v > 0)).collect()
}

pub fn request<'a>(voxels: &'a [i16], shape: &[u64; 3]) -> InferRequest<'a> {
    InferRequest {
        model: "threshold".to_owned(),
        version: None,
        id: random_id(),
        inputs: vec![InputTensor::new("image", Datatype::Int16, shape, voxels)],
        outputs: vec![WantedOutput::new("mask", Datatype::Uint8, shape)],
    }
}

/// What a server answers to a plain GET, with its status line.
pub fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
