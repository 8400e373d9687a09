//! A real Triton, alone and behind a real nginx with TLS 1.3 and client certificates. Runs where
//! `NEGATOSCOPE_SERVERS` names the folder that `tests/servers/install.sh` has filled.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use negatoscope::offload::{Binary, Client, Error, Pin, Profile, Secrets, TensorData, look};
use negatoscope::task::Task;

use crate::offload_server::Authority;
use crate::offload_started::{Started, above_zero, installed, request, script, voxels};

#[test]
fn triton_gives_the_local_mask_in_every_form() {
    let Some(place) = installed("triton") else {
        return;
    };
    let triton = Started::model_server("triton", &place);
    let shape = [20, 30, 40];
    let voxels = voxels(24_000);
    let local = above_zero(&voxels);
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
            ..triton.profile("triton")
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
    let client = Client::new(&triton.profile("triton"), Secrets::of_environment()).unwrap();
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

/// nginx with TLS and certificates of its clients, before a model server.
struct Nginx {
    server: Started,
    /// With our certificate, without pins.
    profile: Profile,
    key: Pin,
}

impl Nginx {
    fn before(behind: &Started, place: &Path) -> Self {
        let mut made = None;
        let mut server = Started::new(|folder, port| {
            let authority = Authority::new(folder, "hospital");
            let (server, ours) = (authority.issue(|_| ()), authority.issue(|_| ()));
            let copy = |from: &Path, to: &str| std::fs::copy(from, folder.join(to)).unwrap();
            copy(&server.certificate_file, "server.pem");
            copy(&server.key_file, "server.key");
            copy(&authority.file, "clients.pem");
            let profile = Profile {
                ca: Some(authority.file),
                client_certificate: Some(ours.certificate_file),
                client_key: Some(ours.key_file),
                max_request_bytes: 1 << 30,
                binary: Binary::Yes,
                ..Profile::new("nginx", &format!("https://127.0.0.1:{port}"))
            };
            made = Some((profile, server.pin));
            let mut command = Command::new(script("nginx.sh"));
            command.args([place, folder]);
            command.args([port.to_string(), behind.port.to_string()]);
            command
        });
        let (profile, key) = made.expect("the command was made");
        server.wait_until(|| look(&profile).is_ok());
        Self {
            server,
            profile,
            key,
        }
    }
}

#[test]
fn triton_behind_nginx_is_spoken_to_in_tls_1_3_with_our_certificate() {
    let (Some(place), Some(nginx)) = (installed("triton"), installed("nginx")) else {
        return;
    };
    let triton = Started::model_server("triton", &place);
    let nginx = Nginx::before(&triton, &nginx);
    let profile = Profile {
        pins: vec![nginx.key],
        ..nginx.profile.clone()
    };
    let looked = look(&profile).unwrap();
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
    let local = above_zero(&voxels);
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

/// Prints what 256 MiB take, over TLS through nginx and without, beside Triton's own client (which
/// `NEGATOSCOPE_SERVERS/triton/bin/python -m pip install "tritonclient[http]"` adds).
#[test]
#[ignore = "a measurement: cargo test --test suite measured_256_mib -- --ignored --nocapture"]
fn measured_256_mib() {
    let (Some(place), Some(nginx)) = (installed("triton"), installed("nginx")) else {
        return;
    };
    let triton = Started::model_server("triton", &place);
    println!("triton at port {}", triton.port);
    let nginx = Nginx::before(&triton, &nginx);
    let encrypted = nginx.profile.clone();
    let plain = Profile {
        binary: Binary::Yes,
        ..triton.profile("triton")
    };
    let shape = [512, 512, 512];
    let path = nginx.server.folder.path().join("image.raw");
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
    let ran = Command::new(place.join("bin/python"))
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
