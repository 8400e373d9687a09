//! Records to a collector: RFC 5424 messages through TLS with octet counting (RFC 5425).
//!
//! The protocol has no answer to a message. A batch counts as taken when the collector has closed the
//! connection in good order after it; else it is sent again, and a collector may see a record twice.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::message::{atna_xml, host_name};
use super::{Error, Log, Outcome, Record, read};
use crate::whole_file;

/// A collector of messages.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Host name or address, as its certificate states it.
    pub host: String,
    /// 6514 by RFC 5425.
    pub port: u16,
    /// File of the certificates that may vouch for it (PEM).
    pub ca: PathBuf,
    /// Files of our own certificate chain and its key (PEM).
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Records sent now.
    pub sent: u64,
    /// Number of the newest record that the collector has.
    pub last: u64,
    /// Records that could not be read and were left out.
    pub unreadable: u64,
}

/// Why records could not be forwarded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// The log.
    #[error(transparent)]
    Log(#[from] Error),
    /// A file of certificates or keys.
    #[error("no certificate or key in PEM: {path}")]
    Pem {
        /// The file.
        path: PathBuf,
    },
    /// What TLS was given, or what it found.
    #[error("the secure connection to {host} cannot be made")]
    Tls {
        /// The collector.
        host: String,
        /// What is wrong.
        #[source]
        source: rustls::Error,
    },
    /// A name that no certificate can hold.
    #[error("{host} is no host name or address")]
    Name {
        /// The name.
        host: String,
    },
    /// The network.
    #[error(
        "the connection to {host} failed ({sent} records had been written to it and are sent again next time)"
    )]
    Network {
        /// The collector.
        host: String,
        /// Written in this connection.
        sent: usize,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Records in one connection.
const BATCH: usize = 2000;
/// Longest wait for the other side.
const PATIENCE: Duration = Duration::from_secs(20);
/// Messages of at least this size are taken by every collector (PS3.15 A.6).
const MESSAGE_BYTES: usize = 32_768;

/// The newest record that a collector has.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Mark {
    record: u64,
    sha256: String,
}

/// Sends what a collector does not have yet, with pseudonyms in place of identifiers.
///
/// # Errors
/// The collector cannot be reached or trusted, or the log cannot be read. What it took stays noted.
pub fn forward(home: &Path, log: &Log, to: &Destination) -> Result<Forwarded, ForwardError> {
    let config = Arc::new(config(to)?);
    let path = log.folder().join("forwarded.json");
    let mut marks: BTreeMap<String, Mark> = std::fs::read(&path)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    let name = format!("{}:{}", to.host, to.port);
    let mut mark = marks.get(&name).cloned().unwrap_or_default();
    let (mut waiting, mut unreadable) = collect(home, &mark)?;
    if waiting.is_none() {
        // Another log than the one that was forwarded: all of it is new.
        (waiting, unreadable) = collect(home, &Mark::default())?;
    }
    let waiting = waiting.unwrap_or_default();
    let pseudonyms = log.pseudonyms()?;
    let host = host_name();
    let mut sent = 0;
    for batch in waiting.chunks(BATCH) {
        let frames: Vec<Vec<u8>> = batch
            .iter()
            .map(|record| frame(&pseudonyms.reduced(record), &host))
            .collect();
        send(&config, to, &frames)?;
        sent += batch.len() as u64;
        if let Some(newest) = batch.last() {
            mark = Mark {
                record: newest.seq,
                sha256: newest.sha256.clone(),
            };
            marks.insert(name.clone(), mark.clone());
            let text = serde_json::to_vec_pretty(&marks).expect("numbers and strings serialize");
            whole_file::write(&path, |w| w.write_all(&text))
                .map_err(super::log::io_error("writing", &path))?;
        }
    }
    Ok(Forwarded {
        sent,
        last: mark.record,
        unreadable,
    })
}

/// Records after a mark, and the number of those that cannot be read; `None` when the log does not hold the mark.
fn collect(home: &Path, mark: &Mark) -> Result<(Option<Vec<Record>>, u64), Error> {
    let (mut waiting, mut unreadable, mut met) = (Vec::new(), 0, mark.record == 0);
    read::records(home, |_, record| match record {
        Some(record) if record.seq > mark.record => waiting.push(record),
        Some(record) => met |= (record.seq, &record.sha256) == (mark.record, &mark.sha256),
        None => unreadable += 1,
    })?;
    Ok((met.then_some(waiting), unreadable))
}

fn config(to: &Destination) -> Result<ClientConfig, ForwardError> {
    let pem = |path: &PathBuf| ForwardError::Pem { path: path.clone() };
    let tls = |source| ForwardError::Tls {
        host: to.host.clone(),
        source,
    };
    let chain = |path: &PathBuf| -> Result<Vec<CertificateDer<'static>>, ForwardError> {
        let bytes = std::fs::read(path).map_err(super::log::io_error("reading", path))?;
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        all.ok()
            .filter(|all| !all.is_empty())
            .ok_or_else(|| pem(path))
    };
    let mut roots = RootCertStore::empty();
    for certificate in chain(&to.ca)? {
        roots.add(certificate).map_err(tls)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(tls)?
        .with_root_certificates(roots);
    match &to.identity {
        None => Ok(builder.with_no_client_auth()),
        Some((certificates, key_path)) => {
            let bytes =
                std::fs::read(key_path).map_err(super::log::io_error("reading", key_path))?;
            let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| pem(key_path))?;
            builder
                .with_client_auth_cert(chain(certificates)?, key)
                .map_err(tls)
        }
    }
}

fn send(
    config: &Arc<ClientConfig>,
    to: &Destination,
    frames: &[Vec<u8>],
) -> Result<(), ForwardError> {
    let name = ServerName::try_from(to.host.clone()).map_err(|_| ForwardError::Name {
        host: to.host.clone(),
    })?;
    let mut connection =
        ClientConnection::new(Arc::clone(config), name).map_err(|source| ForwardError::Tls {
            host: to.host.clone(),
            source,
        })?;
    let mut sent = 0;
    let mut exchange = || -> io::Result<()> {
        let mut last = None;
        let mut socket = None;
        for address in (to.host.as_str(), to.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(connected) => {
                    socket = Some(connected);
                    break;
                }
                Err(error) => last = Some(error),
            }
        }
        let mut socket = socket.ok_or_else(|| {
            last.unwrap_or_else(|| io::Error::new(ErrorKind::NotFound, "the name has no address"))
        })?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        {
            let mut stream = rustls::Stream::new(&mut connection, &mut socket);
            for frame in frames {
                stream.write_all(frame)?;
                sent += 1;
            }
            stream.flush()?;
        }
        connection.send_close_notify();
        while connection.wants_write() {
            connection.write_tls(&mut socket)?;
        }
        socket.shutdown(Shutdown::Write)?;
        // Nothing is answered; that the other side closes in good order is all that can be known.
        let mut rest = [0; 256];
        let mut stream = rustls::Stream::new(&mut connection, &mut socket);
        loop {
            match stream.read(&mut rest) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    };
    exchange().map_err(|source| ForwardError::Network {
        host: to.host.clone(),
        sent,
        source,
    })
}

/// RFC 5425 section 4.3: `LENGTH SP MESSAGE`; the message by RFC 5424, its text by PS3.15 A.6.
fn frame(record: &Record, host: &str) -> Vec<u8> {
    let event = &record.event;
    // Facility 10, security and authorization.
    let severity = match event.outcome {
        Outcome::Success => 5,
        Outcome::MinorFailure => 4,
        Outcome::SeriousFailure => 3,
        Outcome::MajorFailure => 2,
    };
    let head = format!(
        "<{}>1 {} {host} negatoscope {} DICOM+RFC3881 [meta sequenceId=\"{}\"] \u{feff}",
        10 * 8 + severity,
        event
            .time
            .to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        std::process::id(),
        // 1 to 2147483647 (RFC 5424 section 7.3.1).
        (record.seq - 1) % 2_147_483_647 + 1
    );
    let mut text = atna_xml(record, host);
    if head.len() + text.len() > MESSAGE_BYTES {
        let mut shorter = record.clone();
        for object in &mut shorter.event.objects {
            object.detail.clear();
        }
        shorter.event.objects.truncate(16);
        text = atna_xml(&shorter, host);
    }
    let message = head + &text;
    [format!("{} ", message.len()).as_bytes(), message.as_bytes()].concat()
}
