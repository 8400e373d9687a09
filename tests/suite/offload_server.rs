//! A server inside the test process that behaves as it is told, and the certificates for it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use negatoscope::offload::{Pin, Profile};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion,
};
use serde_json::Value;

/// A request as it was heard.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Heard {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
        self.headers.iter().find(found).map(|(_, v)| v.as_str())
    }

    /// The JSON of the body, and the bytes after it.
    pub fn parts(&self) -> (Value, Vec<u8>) {
        let split = self
            .header("inference-header-content-length")
            .map_or(self.body.len(), |n| n.parse().unwrap());
        let (json, rest) = self.body.split_at(split);
        (serde_json::from_slice(json).unwrap(), rest.to_vec())
    }
}

/// Both ways of a connection, plain or encrypted.
pub trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

/// Whether the connection is kept for another request.
#[derive(PartialEq, Eq)]
pub enum Then {
    Keep,
    Close,
}

/// How a server takes a request's body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bodies {
    Read,
    /// At most some 12 MB a second.
    Slowly,
    /// Not at all.
    Left,
}

type Answer = dyn Fn(usize, &Heard, &mut dyn Wire) -> io::Result<Then> + Send + Sync;

pub struct Server {
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    stopped: Arc<AtomicBool>,
    is_encrypted: bool,
}

impl Server {
    /// Answers plain http; `answer` gets the number of the request from 0.
    pub fn plain(
        answer: impl Fn(usize, &Heard, &mut dyn Wire) -> io::Result<Then> + Send + Sync + 'static,
    ) -> Self {
        Self::start(0, None, Bodies::Read, Arc::new(answer))
    }

    /// Answers https.
    pub fn encrypted(
        config: ServerConfig,
        answer: impl Fn(usize, &Heard, &mut dyn Wire) -> io::Result<Then> + Send + Sync + 'static,
    ) -> Self {
        Self::encrypted_at(0, config, answer)
    }

    /// Answers https at a port; 0 leaves the choice to the system.
    pub fn encrypted_at(
        port: u16,
        config: ServerConfig,
        answer: impl Fn(usize, &Heard, &mut dyn Wire) -> io::Result<Then> + Send + Sync + 'static,
    ) -> Self {
        let tls = Some(Arc::new(config));
        Self::start(port, tls, Bodies::Read, Arc::new(answer))
    }

    /// Answers plain http at the end of a slow line.
    pub fn slow(
        answer: impl Fn(usize, &Heard, &mut dyn Wire) -> io::Result<Then> + Send + Sync + 'static,
    ) -> Self {
        Self::start(0, None, Bodies::Slowly, Arc::new(answer))
    }

    /// Reads no bodies: `answer` finds them on the wire.
    pub fn without_bodies(
        answer: impl Fn(usize, &Heard, &mut dyn Wire) -> io::Result<Then> + Send + Sync + 'static,
    ) -> Self {
        Self::start(0, None, Bodies::Left, Arc::new(answer))
    }

    fn start(
        port: u16,
        tls: Option<Arc<ServerConfig>>,
        bodies: Bodies,
        answer: Arc<Answer>,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let stopped = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicUsize::new(0));
        let server = Self {
            address,
            heard: heard.clone(),
            stopped: stopped.clone(),
            is_encrypted: tls.is_some(),
        };
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (tls, answer) = (tls.clone(), answer.clone());
                let (heard, count) = (heard.clone(), count.clone());
                thread::spawn(move || {
                    let wire: Box<dyn Wire> = match tls {
                        None => Box::new(stream),
                        Some(config) => {
                            let connection = ServerConnection::new(config).unwrap();
                            Box::new(StreamOwned::new(connection, stream))
                        }
                    };
                    // Whatever goes wrong here is what the client is tested with.
                    let _ = serve(wire, bodies, &heard, &count, &*answer);
                });
            }
        });
        server
    }

    pub fn url(&self) -> String {
        let scheme = if self.is_encrypted { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.address.port())
    }

    /// A profile for it.
    pub fn profile(&self) -> Profile {
        Profile {
            allow_insecure_loopback: !self.is_encrypted,
            ..Profile::new("test", &self.url())
        }
    }

    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(
    wire: Box<dyn Wire>,
    bodies: Bodies,
    heard: &Mutex<Vec<Heard>>,
    count: &AtomicUsize,
    answer: &Answer,
) -> io::Result<()> {
    let mut wire = BufReader::with_capacity(1 << 16, wire);
    loop {
        let mut request = Heard::default();
        let mut line = String::new();
        if wire.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        request.method = words.next().unwrap_or_default().to_owned();
        request.path = words.next().unwrap_or_default().to_owned();
        loop {
            line.clear();
            wire.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            let header = (name.to_owned(), value.trim().to_owned());
            request.headers.push(header);
        }
        if bodies != Bodies::Left {
            let length = request.header("content-length").unwrap_or("0");
            request.body = vec![0; length.parse().unwrap()];
            for piece in request.body.chunks_mut(1 << 16) {
                wire.read_exact(piece)?;
                if bodies == Bodies::Slowly {
                    thread::sleep(Duration::from_millis(5));
                }
            }
        }
        heard.lock().unwrap().push(request.clone());
        let number = count.fetch_add(1, Ordering::Relaxed);
        let then = answer(number, &request, wire.get_mut())?;
        wire.get_mut().flush()?;
        if then == Then::Close {
            return Ok(());
        }
    }
}

/// Writes an answer with headers of one's own.
pub fn reply(
    wire: &mut dyn Wire,
    status: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Then> {
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head = format!("{head}{name}: {value}\r\n");
    }
    wire.write_all(format!("{head}\r\n").as_bytes())?;
    wire.write_all(body)?;
    Ok(Then::Keep)
}

/// A certificate authority with its certificate in a file.
pub struct Authority {
    pub issuer: CertifiedIssuer<'static, KeyPair>,
    pub file: PathBuf,
    folder: PathBuf,
}

impl Authority {
    pub fn new(folder: &Path, name: &str) -> Self {
        let issuer = CertifiedIssuer::self_signed(authority(name), KeyPair::generate().unwrap());
        let issuer = issuer.unwrap();
        let file = folder.join(format!("{name}.pem"));
        std::fs::write(&file, issuer.pem()).unwrap();
        Self {
            issuer,
            file,
            folder: folder.to_owned(),
        }
    }

    pub fn pin(&self) -> Pin {
        Pin::of(&self.issuer.key().subject_public_key_info())
    }

    /// A certificate for this machine, after `change`.
    pub fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        Issued::by(&self.issuer, &self.folder, change)
    }
}

/// What a certificate authority's certificate says.
pub fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// A certificate with its key, in memory and in files.
pub struct Issued {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub pin: Pin,
    pub certificate_file: PathBuf,
    pub key_file: PathBuf,
}

impl Issued {
    pub fn by(
        issuer: &CertifiedIssuer<'static, KeyPair>,
        folder: &Path,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let mut params =
            CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()]).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, "a server");
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, issuer).unwrap();
        Self::kept(folder, &certificate, &key)
    }

    pub fn self_signed(folder: &Path) -> Self {
        let params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self::kept(folder, &certificate, &key)
    }

    fn kept(folder: &Path, certificate: &rcgen::Certificate, key: &KeyPair) -> Self {
        let pin = Pin::of(&key.subject_public_key_info());
        let certificate_file = folder.join(format!("{pin}.pem"));
        let key_file = folder.join(format!("{pin}.key"));
        std::fs::write(&certificate_file, certificate.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        Self {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
            pin,
            certificate_file,
            key_file,
        }
    }

    /// What another process has issued.
    pub fn read(certificate_file: &Path, key_file: &Path) -> Self {
        let key = std::fs::read_to_string(key_file).unwrap();
        let certificate = CertificateDer::from_pem_file(certificate_file).unwrap();
        Self {
            chain: vec![certificate],
            key: PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            pin: Pin::of(&KeyPair::from_pem(&key).unwrap().subject_public_key_info()),
            certificate_file: certificate_file.to_owned(),
            key_file: key_file.to_owned(),
        }
    }

    /// How a server shows it; asks for a client certificate of `clients`, where that is given.
    pub fn config(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        clients: Option<&Authority>,
    ) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.issuer.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        builder
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .unwrap()
    }
}
