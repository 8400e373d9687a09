//! Real servers: Triton, alone and behind nginx with TLS 1.3 and client certificates. Runs where
//! `NEGATOSCOPE_SERVERS` names the virtual environment that `tests/servers/triton.sh install` makes.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use negatoscope::offload::{
    Binary, Client, Datatype, Error, InferRequest, InputTensor, Pin, Profile, Secrets, TensorData,
    WantedOutput, look, random_id,
};
use negatoscope::task::Task;

use crate::offload_server::Authority;

fn environment() -> Option<PathBuf> {
    let found = std::env::var_os("NEGATOSCOPE_SERVERS").map(PathBuf::from);
    if found.is_none() {
        println!("skipped: NEGATOSCOPE_SERVERS is not set");
    }
    found
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/servers")
        .join(name)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A server that is told to end when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // A polite end, so that it takes its own children with it.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(40) {
            if matches!(self.0.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = self.0.kill();
    }
}

struct Triton {
    _running: Running,
    _folder: tempfile::TempDir,
    port: u16,
}

impl Triton {
    fn start(environment: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let child = Command::new(script("triton.sh"))
            .arg("start")
            .args([environment, folder.path()])
            .arg(port.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let triton = Self {
            _running: Running(child),
            _folder: folder,
            port,
        };
        let client = Client::new(&triton.profile(), Secrets::of_environment()).unwrap();
        let begun = Instant::now();
        while !client
            .model_ready("threshold", None, &Task::new())
            .unwrap_or(false)
        {
            assert!(
                begun.elapsed() < Duration::from_mins(2),
                "Triton does not start"
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        triton
    }

    fn profile(&self) -> Profile {
        Profile {
            allow_insecure_loopback: true,
            max_request_bytes: 1 << 30,
            ..Profile::new("triton", &format!("http://127.0.0.1:{}", self.port))
        }
    }
}

fn voxels(count: usize) -> Vec<i16> {
    // A fixed sequence with both signs.
    let mut state = 7_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as i16
    };
    (0..count).map(next).collect()
}

fn request<'a>(voxels: &'a [i16], shape: &[u64; 3]) -> InferRequest<'a> {
    InferRequest {
        model: "threshold".to_owned(),
        version: None,
        id: random_id(),
        inputs: vec![InputTensor::new("image", Datatype::Int16, shape, voxels)],
        outputs: vec![WantedOutput::new("mask", Datatype::Uint8, shape)],
    }
}

#[test]
fn triton_gives_the_local_mask_in_every_form() {
    let Some(environment) = environment() else {
        return;
    };
    let triton = Triton::start(&environment);
    let shape = [20, 30, 40];
    let voxels = voxels(24_000);
    let local: Vec<u8> = voxels.iter().map(|&v| u8::from(v > 0)).collect();
    let task = Task::new();
    for (binary, gzip) in [
        (Binary::Probe, false),
        (Binary::Yes, true),
        (Binary::No, false),
        (Binary::No, true),
    ] {
        let profile = Profile {
            binary,
            gzip,
            ..triton.profile()
        };
        let client = Client::new(&profile, Secrets::of_environment()).unwrap();
        let answer = client.infer(&request(&voxels, &shape), &task).unwrap();
        assert_eq!(answer.outputs[0].data, local, "{binary:?} {gzip}");
        assert_eq!(answer.model_version.as_deref(), Some("1"));
        assert_eq!((answer.attempts, answer.server_key), (1, None));
    }

    // The same from a file.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.raw");
    std::fs::write(&path, bytemuck::cast_slice::<i16, u8>(&voxels)).unwrap();
    let client = Client::new(&triton.profile(), Secrets::of_environment()).unwrap();
    let mut from_file = request(&[], &shape);
    from_file.inputs[0].data = TensorData::File {
        path,
        offset: 0,
        length: 48_000,
    };
    let answer = client.infer(&from_file, &task).unwrap();
    assert_eq!(answer.outputs[0].data, local);

    // What the server tells, and how it refuses.
    assert!(client.live(&task).unwrap() && client.ready(&task).unwrap());
    let about = client.metadata(&task).unwrap();
    assert_eq!(about.name, "triton");
    assert!(about.announces_binary());
    let model = client
        .model_metadata("threshold", Some("1"), &task)
        .unwrap();
    assert_eq!(model.inputs[0].datatype, "INT16");
    assert_eq!(model.outputs[0].shape, [-1, -1, -1]);
    let index = client.index(&task).unwrap().unwrap();
    assert!(
        index
            .iter()
            .any(|m| m.name == "threshold" && m.state == "READY")
    );
    assert!(!client.model_ready("nothing", None, &task).unwrap());
    let mut unknown = request(&voxels, &shape);
    unknown.model = "nothing".to_owned();
    match client.infer(&unknown, &task).unwrap_err() {
        Error::Status {
            status, message, ..
        } => {
            assert!((400..500).contains(&status), "{status}");
            assert!(message.contains("nothing"), "{message}");
        }
        other => panic!("{other}"),
    }
    let mut misnamed = request(&voxels, &shape);
    misnamed.inputs[0].name = "picture".to_owned();
    let error = client.infer(&misnamed, &task).unwrap_err();
    assert!(matches!(error, Error::Status { .. }) && !error.to_string().is_empty());
}

/// nginx with TLS and certificates of its clients, before a Triton.
struct Nginx {
    _running: Running,
    folder: tempfile::TempDir,
    /// With our certificate, without pins.
    profile: Profile,
    key: Pin,
}

impl Nginx {
    fn before(triton: &Triton) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "hospital");
        let (server, ours) = (authority.issue(|_| ()), authority.issue(|_| ()));
        let copy = |from: &Path, to: &str| std::fs::copy(from, folder.path().join(to)).unwrap();
        copy(&server.certificate_file, "server.pem");
        copy(&server.key_file, "server.key");
        copy(&authority.file, "clients.pem");
        let port = free_port();
        let child = Command::new(script("nginx.sh"))
            .arg(folder.path())
            .args([port.to_string(), triton.port.to_string()])
            .spawn()
            .unwrap();
        let profile = Profile {
            ca: Some(authority.file),
            client_certificate: Some(ours.certificate_file),
            client_key: Some(ours.key_file),
            max_request_bytes: 1 << 30,
            binary: Binary::Yes,
            ..Profile::new("nginx", &format!("https://127.0.0.1:{port}"))
        };
        Self {
            _running: Running(child),
            folder,
            profile,
            key: server.pin,
        }
    }
}

#[test]
fn triton_behind_nginx_is_spoken_to_in_tls_1_3_with_our_certificate() {
    let Some(environment) = environment() else {
        return;
    };
    let has_nginx = ["/usr/sbin/nginx", "/usr/bin/nginx"]
        .iter()
        .any(|p| Path::new(p).exists());
    if !has_nginx {
        println!("skipped: nginx is not installed");
        return;
    }
    let triton = Triton::start(&environment);
    let nginx = Nginx::before(&triton);
    let profile = Profile {
        pins: vec![nginx.key],
        ..nginx.profile.clone()
    };
    let begun = Instant::now();
    let looked = loop {
        match look(&profile) {
            Ok(looked) => break looked,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(30), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(looked.tls_version.as_deref(), Some("TLS 1.3"));
    let certificate = looked.certificate.unwrap();
    assert!(
        certificate.subject.contains("CN=a server"),
        "{}",
        certificate.subject
    );
    assert!(
        certificate.issuer.contains("CN=hospital"),
        "{}",
        certificate.issuer
    );
    assert_eq!(certificate.key, nginx.key);

    let shape = [20, 30, 40];
    let voxels = voxels(24_000);
    let local: Vec<u8> = voxels.iter().map(|&v| u8::from(v > 0)).collect();
    let task = Task::new();
    let ask = |profile: &Profile| {
        Client::new(profile, Secrets::of_environment())
            .unwrap()
            .infer(&request(&voxels, &shape), &task)
    };
    let answer = ask(&profile).unwrap();
    assert_eq!(answer.outputs[0].data, local);
    assert_eq!(answer.server_key, Some(nginx.key));

    let status = |error: Error| match error {
        Error::Status { status, .. } => status,
        other => panic!("{other}"),
    };
    let without = Profile {
        client_certificate: None,
        client_key: None,
        ..profile.clone()
    };
    assert_eq!(status(ask(&without).unwrap_err()), 400);
    let below = |path: &str| Profile {
        url: format!("{}/{path}", profile.url),
        ..profile.clone()
    };
    assert_eq!(status(ask(&below("small")).unwrap_err()), 413);
    match ask(&below("busy")).unwrap_err() {
        Error::Status {
            status: 503,
            retry_after,
            ..
        } => assert_eq!(retry_after, Some(Duration::from_hours(1))),
        other => panic!("{other}"),
    }
}

/// Prints what 256 MiB take, over TLS through nginx and without: run by hand beside tritonclient.
#[test]
#[ignore = "a measurement: cargo test --test suite measured_256_mib -- --ignored --nocapture"]
fn measured_256_mib() {
    let Some(environment) = environment() else {
        return;
    };
    let triton = Triton::start(&environment);
    println!("triton at port {}", triton.port);
    let nginx = Nginx::before(&triton);
    std::thread::sleep(Duration::from_secs(2));
    let encrypted = nginx.profile.clone();
    let plain = Profile {
        binary: Binary::Yes,
        ..triton.profile()
    };
    let shape = [512, 512, 512];
    let path = nginx.folder.path().join("image.raw");
    std::fs::write(&path, bytemuck::cast_slice::<i16, u8>(&voxels(1 << 27))).unwrap();
    let python = r"
import sys, time, numpy as np, tritonclient.http as t
x = np.fromfile(sys.argv[2], np.int16).reshape(512, 512, 512)
c = t.InferenceServerClient('127.0.0.1:' + sys.argv[1], network_timeout=300)
for _ in range(3):
    b = time.time()
    i = t.InferInput('image', x.shape, 'INT16'); i.set_data_from_numpy(x)
    o = t.InferRequestedOutput('mask')
    r = c.infer('threshold', [i], outputs=[o]).as_numpy('mask')
    print('tritonclient, plain http: %.2f s' % (time.time() - b))
";
    let ran = Command::new(environment.join("bin/python"))
        .args(["-c", python, &triton.port.to_string()])
        .arg(&path)
        .status();
    assert!(ran.unwrap().success());
    for (name, profile) in [
        ("TLS 1.3 through nginx", &encrypted),
        ("plain http", &plain),
    ] {
        let client = Client::new(profile, Secrets::of_environment()).unwrap();
        for _ in 0..3 {
            let mut asked = request(&[], &shape);
            asked.inputs[0].data = TensorData::File {
                path: path.clone(),
                offset: 0,
                length: 1 << 28,
            };
            let begun = Instant::now();
            let answer = client.infer(&asked, &Task::new()).unwrap();
            println!(
                "ours, {name}: {:.2} s (sending {:.2}, waiting {:.2}, receiving {:.2})",
                begun.elapsed().as_secs_f64(),
                answer.sending.as_secs_f64(),
                answer.waiting.as_secs_f64(),
                answer.receiving.as_secs_f64()
            );
        }
    }
    let peak = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    println!(
        "{}",
        peak.lines().find(|l| l.starts_with("VmHWM")).unwrap_or("")
    );
}
