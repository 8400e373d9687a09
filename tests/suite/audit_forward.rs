//! Records to a collector over TLS: framed, resumed, with pseudonyms, and only to whom can prove its name.

use std::io::{ErrorKind, Read, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;

use negatoscope::audit::{
    AuditEvent, Destination, EventId, Forwarded, Limits, Log, ObjectKind, ParticipantObject,
    forward,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, Stream};

use super::audit::{event, home_with};

/// An authority, a server certificate for `localhost` and a client certificate, as files.
struct Certificates {
    folder: tempfile::TempDir,
    server: Arc<ServerConfig>,
}

impl Certificates {
    fn new(ask_for_client: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let issue = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            (params.signed_by(&key, &authority).unwrap(), key)
        };
        let (server, server_key) = issue("localhost");
        let (client, client_key) = issue("workstation");
        for (name, text) in [
            ("ca.pem", authority.pem()),
            ("client.pem", client.pem()),
            ("client.key", client_key.serialize_pem()),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if ask_for_client {
            let mut roots = RootCertStore::empty();
            roots.add(authority.as_ref().der().clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
        let server = builder
            .with_single_cert(vec![server.der().clone()], key)
            .unwrap();
        Self {
            folder,
            server: Arc::new(server),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn destination(&self, port: u16) -> Destination {
        Destination {
            host: "localhost".to_owned(),
            port,
            ca: self.file("ca.pem"),
            identity: None,
        }
    }
}

/// Takes connections one after the other; gives what each of them said.
fn collector(
    config: &Arc<ServerConfig>,
    connections: usize,
    most: usize,
) -> (u16, JoinHandle<Vec<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = Arc::clone(config);
    let thread = std::thread::spawn(move || {
        (0..connections)
            .map(|_| {
                let (mut socket, _) = listener.accept().unwrap();
                let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = Stream::new(&mut connection, &mut socket);
                let mut said = Vec::new();
                let mut block = [0; 4096];
                while said.len() < most {
                    match stream.read(&mut block) {
                        Ok(0) => break,
                        Ok(count) => said.extend_from_slice(&block[..count]),
                        Err(e) if e.kind() == ErrorKind::UnexpectedEof => break,
                        Err(_) => return said,
                    }
                }
                if said.len() < most {
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                }
                said
            })
            .collect()
    });
    (port, thread)
}

/// RFC 5425: `LENGTH SP MESSAGE`, again and again.
fn messages(mut said: &[u8]) -> Vec<String> {
    let mut all = Vec::new();
    while !said.is_empty() {
        let space = said.iter().position(|&b| b == b' ').unwrap();
        let length: usize = std::str::from_utf8(&said[..space])
            .unwrap()
            .parse()
            .unwrap();
        let (message, rest) = said[space + 1..].split_at(length);
        all.push(String::from_utf8(message.to_vec()).unwrap());
        said = rest;
    }
    all
}

fn sequence(message: &str) -> u64 {
    let (_, rest) = message.split_once("[meta sequenceId=\"").unwrap();
    rest.split_once('"').unwrap().0.parse().unwrap()
}

#[test]
fn each_record_is_sent_once_and_the_next_time_goes_on_behind_it() {
    let certificates = Certificates::new(false);
    let home = home_with(3, Limits::default());
    let log = Log::open(home.path()).unwrap();
    let (port, thread) = collector(&certificates.server, 2, usize::MAX);
    let to = certificates.destination(port);
    let first = forward(home.path(), &log, &to).unwrap();
    assert_eq!((first.sent, first.last), (3, 3));
    log.append(&event(4)).unwrap();
    log.append(&event(5)).unwrap();
    let second = forward(home.path(), &log, &to).unwrap();
    assert_eq!((second.sent, second.last), (2, 5));
    // Nothing new: no connection is made.
    let third = forward(home.path(), &log, &to).unwrap();
    let nothing = Forwarded {
        sent: 0,
        last: 5,
        unreadable: 0,
    };
    assert_eq!(third, nothing);

    let said = thread.join().unwrap();
    let (one, two) = (messages(&said[0]), messages(&said[1]));
    assert_eq!(
        one.iter().map(|m| sequence(m)).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(two.iter().map(|m| sequence(m)).collect::<Vec<_>>(), [4, 5]);
    // RFC 5424: facility 10, notice; version 1; the text in UTF-8 with its mark.
    assert!(
        one[0].starts_with("<85>1 2023-11-14T22:13:21.000Z "),
        "{}",
        one[0]
    );
    assert!(one[0].contains(" DICOM+RFC3881 [meta sequenceId=\"1\"] \u{feff}<AuditMessage>"));
    assert!(
        one.iter()
            .all(|m| !m.contains("\"1.2.") && m.contains("2.25."))
    );
}

#[test]
fn what_a_collector_did_not_take_in_good_order_is_sent_again() {
    let certificates = Certificates::new(false);
    let home = home_with(40, Limits::default());
    let log = Log::open(home.path()).unwrap();
    // It breaks off in the middle.
    let (port, thread) = collector(&certificates.server, 1, 2000);
    assert!(forward(home.path(), &log, &certificates.destination(port)).is_err());
    thread.join().unwrap();
    let (port, thread) = collector(&certificates.server, 1, usize::MAX);
    let again = forward(home.path(), &log, &certificates.destination(port)).unwrap();
    assert_eq!((again.sent, again.last), (40, 40));
    assert_eq!(messages(&thread.join().unwrap()[0]).len(), 40);
}

#[test]
fn nothing_is_said_to_a_collector_that_cannot_prove_its_name() {
    let (certificates, others) = (Certificates::new(false), Certificates::new(false));
    let home = home_with(2, Limits::default());
    let log = Log::open(home.path()).unwrap();
    let (port, thread) = collector(&certificates.server, 2, usize::MAX);
    let mut unknown = certificates.destination(port);
    unknown.ca = others.file("ca.pem");
    assert!(forward(home.path(), &log, &unknown).is_err());
    let mut elsewhere = certificates.destination(port);
    elsewhere.host = "127.0.0.1".to_owned();
    assert!(forward(home.path(), &log, &elsewhere).is_err());
    assert_eq!(thread.join().unwrap(), [b"", b""]);
    let mut no_file = certificates.destination(port);
    no_file.ca = home.path().join("audit/000001.jsonl");
    let error = forward(home.path(), &log, &no_file).unwrap_err();
    assert!(error.to_string().contains("no certificate"), "{error}");
}

#[test]
fn a_collector_that_asks_for_a_certificate_gets_one() {
    let certificates = Certificates::new(true);
    let home = home_with(2, Limits::default());
    let log = Log::open(home.path()).unwrap();
    let (port, thread) = collector(&certificates.server, 2, usize::MAX);
    let mut to = certificates.destination(port);
    assert!(forward(home.path(), &log, &to).is_err());
    to.identity = Some((
        certificates.file("client.pem"),
        certificates.file("client.key"),
    ));
    assert_eq!(forward(home.path(), &log, &to).unwrap().sent, 2);
    let said = thread.join().unwrap();
    assert_eq!((said[0].len(), messages(&said[1]).len()), (0, 2));
}

#[test]
fn no_planted_identity_reaches_the_collector() {
    let certificates = Certificates::new(false);
    let home = home_with(1, Limits::default());
    let log = Log::open(home.path()).unwrap();
    for kind in [
        ObjectKind::Patient,
        ObjectKind::Study,
        ObjectKind::Series,
        ObjectKind::File,
    ] {
        let object = ParticipantObject::new(kind, "PLANTED").with("also", "/data/PLANTED.dcm");
        let event = AuditEvent::new(EventId::Import, event(2).time).about(object);
        log.append(&event.failed(negatoscope::audit::Outcome::SeriousFailure, "no PLANTED"))
            .unwrap();
    }
    let (port, thread) = collector(&certificates.server, 1, usize::MAX);
    forward(home.path(), &log, &certificates.destination(port)).unwrap();
    let said = thread.join().unwrap().remove(0);
    let text = String::from_utf8(said).unwrap();
    // "PLANTED" and "/data/PLANTED.dcm" in base64 begin so.
    for word in ["PLANTED", "UExBTlRFR", "L2RhdGEvUExBTlRFR"] {
        assert!(!text.contains(word), "{word}");
    }
}

/// A real rsyslog (`tests/servers/rsyslog.sh`); NEGATOSCOPE_RSYSLOG names the folder that it was started with.
#[test]
fn rsyslog_takes_the_records() {
    let Some(folder) = std::env::var_os("NEGATOSCOPE_RSYSLOG") else {
        println!("skipped: NEGATOSCOPE_RSYSLOG is not set");
        return;
    };
    let folder = Path::new(&folder);
    let home = home_with(300, Limits::default());
    let ran = Command::new(env!("CARGO_BIN_EXE_negatoscope"))
        .args(["audit", "forward", "--to", "localhost:16514", "--ca"])
        .arg(folder.join("ca.pem"))
        .arg("--cert")
        .arg(folder.join("client.pem"))
        .arg("--key")
        .arg(folder.join("client.key"))
        .env("NEGATOSCOPE_HOME", home.path())
        .output()
        .unwrap();
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    // The collector writes on its own time.
    let mark = "Study Instance UID\"/><ParticipantObjectName>2.25.";
    let start = std::time::Instant::now();
    loop {
        let text = std::fs::read_to_string(folder.join("received.log")).unwrap_or_default();
        let ours = text.lines().filter(|line| line.contains(mark)).count();
        if ours >= 300 {
            break;
        }
        assert!(
            start.elapsed().as_secs() < 30,
            "{ours} of 300 messages arrived"
        );
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}
