//! TLS 1.3 and nothing else: roots, client certificates, and pins that hold in addition to the usual
//! verification, before a byte of a request goes.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, Once};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, TrustAnchor, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
};

use super::Error;
use super::endpoint::{Pin, Profile};

/// Largest file of certificates or keys that is read.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// The cryptography, which `reqwest` wants to find before any client is made.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Somebody else of this process may have been first, with the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    Arc::new(rustls::crypto::ring::default_provider())
}

/// None of the pinned keys is in the server's chain.
#[derive(Debug, thiserror::Error)]
#[error("none of the pinned keys is in the server's chain")]
pub(super) struct WrongPin {
    /// Of the server's own certificate.
    pub(super) found: Pin,
}

/// The certificate that a server showed, as far as it was verified.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(Arc<Mutex<Option<Pin>>>);

impl Seen {
    /// The newest one's key.
    pub(super) fn newest(&self) -> Option<Pin> {
        self.0.lock().ok().and_then(|seen| *seen)
    }
}

/// How connections to an endpoint are secured. `pins`: empty for any key that verifies.
pub(super) fn config(profile: &Profile, pins: &[Pin]) -> Result<(ClientConfig, Seen), Error> {
    let provider = provider();
    let roots = Arc::new(match &profile.ca {
        Some(path) => own_roots(path)?,
        None => system_roots()?,
    });
    let usual = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|e| Error::Setup(e.to_string()))?;
    let seen = Seen::default();
    let verifier = Verifier {
        usual,
        roots,
        pins: pins.to_vec(),
        provider: provider.clone(),
        seen: seen.clone(),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| Error::Setup(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match (&profile.client_certificate, &profile.client_key) {
        (Some(certificate), Some(key)) => {
            let what = "the client certificate";
            let chain = certificates(what, certificate)?;
            let key_what = "the client certificate's key";
            let pem = read(key_what, key)?;
            let private = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| Error::FileContent {
                what: key_what,
                why: "holds no private key in PEM",
                path: key.clone(),
            })?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|_| Error::FileContent {
                    what,
                    why: "and its key do not belong together",
                    path: certificate.clone(),
                })?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((config, seen))
}

/// For plain http: a set-up that would take no server's certificate.
pub(super) fn trusting_nobody() -> Result<(ClientConfig, Seen), Error> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| Error::Setup(e.to_string()))?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Ok((config, Seen::default()))
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::File {
        what,
        source,
        path: path.to_owned(),
    };
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_FILE_BYTES {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    std::fs::read(path).map_err(failed)
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = read(what, path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(Error::FileContent {
            what,
            why: "holds no certificate in PEM",
            path: path.to_owned(),
        }),
    }
}

fn own_roots(path: &Path) -> Result<RootCertStore, Error> {
    let what = "the certificate authority";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(what, path)? {
        roots.add(certificate).map_err(|_| Error::FileContent {
            what,
            why: "holds what is no certificate",
            path: path.to_owned(),
        })?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    // Old roots that cannot be read are passed over, as every browser does.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(Error::NoRoots);
    }
    Ok(roots)
}

/// The usual verification, and then the pins.
#[derive(Debug)]
struct Verifier {
    usual: Arc<WebPkiServerVerifier>,
    roots: Arc<RootCertStore>,
    pins: Vec<Pin>,
    provider: Arc<CryptoProvider>,
    seen: Seen,
}

impl Verifier {
    /// Looks for a pinned key in a path that verifies: what a server merely shows beside its chain
    /// does not count.
    fn check_pins(
        &self,
        leaf: &webpki::EndEntityCert<'_>,
        found: Pin,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let has_pinned_key = |path: &webpki::VerifiedPath<'_>| {
            let anchor = Pin::of(&public_key_of(path.anchor()));
            let between = path
                .intermediate_certificates()
                .map(|c| Pin::of(&c.subject_public_key_info()));
            if between.chain([anchor]).any(|pin| self.pins.contains(&pin)) {
                Ok(())
            } else {
                Err(webpki::Error::UnknownIssuer)
            }
        };
        if self.pins.contains(&found) {
            return Ok(());
        }
        leaf.verify_for_usage(
            self.provider.signature_verification_algorithms.all,
            &self.roots.roots,
            intermediates,
            now,
            webpki::KeyUsage::server_auth(),
            None,
            Some(&has_pinned_key),
        )
        .map(|_| ())
        .map_err(|_| {
            let wrong = OtherError(Arc::new(WrongPin { found }));
            rustls::Error::InvalidCertificate(CertificateError::Other(wrong))
        })
    }
}

/// The DER of an anchor's public key: `webpki` keeps it without its outer tag and length.
fn public_key_of(anchor: &TrustAnchor<'_>) -> Vec<u8> {
    let inner = anchor.subject_public_key_info.as_ref();
    let mut der = vec![0x30];
    let length = inner.len();
    match length {
        0..=0x7f => der.push(length as u8),
        0x80..=0xff => der.extend([0x81, length as u8]),
        0x100..=0xffff => der.extend([0x82, (length >> 8) as u8, length as u8]),
        // No key is that long; its pin then matches none.
        _ => {}
    }
    der.extend_from_slice(inner);
    der
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.usual.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        let leaf = webpki::EndEntityCert::try_from(end_entity)
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let found = Pin::of(&leaf.subject_public_key_info());
        if !self.pins.is_empty() {
            self.check_pins(&leaf, found, intermediates, now)?;
        }
        if let Ok(mut seen) = self.seen.0.lock() {
            *seen = Some(found);
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// What rustls says, in the words of [`Error`].
pub(super) fn error_of(error: &rustls::Error) -> Error {
    use CertificateError as C;
    use rustls::Error as T;
    let certificate = |why: &str| Error::Certificate(why.to_owned());
    match error {
        T::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => certificate("has expired"),
        T::InvalidCertificate(C::NotValidYet | C::NotValidYetContext { .. }) => {
            certificate("is not valid yet")
        }
        T::InvalidCertificate(C::UnknownIssuer) => {
            certificate("comes from an authority that is not trusted here")
        }
        T::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            certificate("is for another host")
        }
        T::InvalidCertificate(C::InvalidPurpose | C::InvalidPurposeContext { .. }) => {
            certificate("is not for servers")
        }
        T::InvalidCertificate(C::Other(other)) => match other.0.downcast_ref::<WrongPin>() {
            Some(wrong) => Error::WrongPin { found: wrong.found },
            // A certificate authority in the place of a server's certificate, for one.
            None => Error::Certificate(format!("is not good: {}", other.0)),
        },
        T::InvalidCertificate(other) => Error::Certificate(format!("is not good: {other}")),
        T::AlertReceived(rustls::AlertDescription::CertificateRequired) => {
            Error::Tls("the server asks for a client certificate".to_owned())
        }
        T::AlertReceived(rustls::AlertDescription::ProtocolVersion) => {
            Error::Tls("the server does not speak TLS 1.3".to_owned())
        }
        T::PeerIncompatible(why) => Error::Tls(format!(
            "the server does not speak TLS 1.3 as needed ({why:?})"
        )),
        other => Error::Tls(other.to_string()),
    }
}
