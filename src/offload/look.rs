//! A look at an endpoint, step by step, before anything is trusted to it.

use std::io::Write;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::certificate::Certificate;
use super::endpoint::Profile;
use super::{Error, tls};

const TIME: Duration = Duration::from_secs(10);

/// What a connection showed, before a word was said.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Looked {
    /// Where the call was taken.
    pub address: SocketAddr,
    /// `TLS 1.3`; `None` over plain http.
    pub tls_version: Option<String>,
    /// The server's own certificate, verified as every call verifies it.
    pub certificate: Option<Certificate>,
}

/// Calls an endpoint, goes through the handshake, and hangs up. Goes directly, past any proxy.
///
/// # Errors
/// Nobody takes the call, or what every call would refuse.
pub fn look(profile: &Profile) -> Result<Looked, Error> {
    profile.check()?;
    let url = profile.parsed_url(&profile.url)?;
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_or_known_default().unwrap_or(443);
    let failed = |e: std::io::Error| Error::Connect(e.to_string());
    let mut last = Error::Connect("the host has no address".to_owned());
    let mut stream = None;
    for address in (bare, port).to_socket_addrs().map_err(failed)? {
        if url.scheme() != "https" && !address.ip().is_loopback() {
            return Err(Error::NotLoopback {
                host: host.to_owned(),
            });
        }
        match TcpStream::connect_timeout(&address, TIME) {
            Ok(connected) => {
                stream = Some((address, connected));
                break;
            }
            Err(error) => last = failed(error),
        }
    }
    let Some((address, stream)) = stream else {
        return Err(last);
    };
    if url.scheme() != "https" {
        return Ok(Looked {
            address,
            tls_version: None,
            certificate: None,
        });
    }
    stream.set_read_timeout(Some(TIME)).map_err(failed)?;
    stream.set_write_timeout(Some(TIME)).map_err(failed)?;
    let (config, _) = tls::config(profile, &profile.pins)?;
    let name = ServerName::try_from(bare.to_owned())
        .map_err(|_| Error::Setup("the host's name cannot be verified".to_owned()))?;
    let connection =
        ClientConnection::new(Arc::new(config), name).map_err(|e| tls::error_of(&e))?;
    let mut secured = StreamOwned::new(connection, stream);
    // A write of nothing goes through the handshake. A server that asks for a certificate refuses
    // only afterwards, which every call would show; here it is enough to have seen its own.
    let shaken = secured.flush().and_then(|()| {
        while secured.conn.is_handshaking() {
            secured.conn.complete_io(&mut secured.sock)?;
        }
        Ok(())
    });
    if let Err(error) = shaken {
        let inner = error
            .get_ref()
            .and_then(|e| e.downcast_ref::<rustls::Error>());
        return Err(inner.map_or_else(|| failed(error.kind().into()), tls::error_of));
    }
    let looked = Looked {
        address,
        tls_version: secured.conn.protocol_version().map(|version| {
            let name = format!("{version:?}");
            name.replace("TLSv1_", "TLS 1.")
        }),
        certificate: secured
            .conn
            .peer_certificates()
            .and_then(|chain| chain.first())
            .and_then(|leaf| Certificate::read(leaf)),
    };
    secured.conn.send_close_notify();
    let _ = secured.flush();
    Ok(looked)
}
