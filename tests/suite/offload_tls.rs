//! Connections to model servers: good certificates are taken, every bad one is refused before a byte
//! of the request goes, and pins hold in addition.

use std::path::Path;
use std::sync::Arc;

use negatoscope::offload::{Binary, Client, Error, Pin, Profile, Secrets};
use negatoscope::task::Task;
use rcgen::{CertifiedIssuer, ExtendedKeyUsagePurpose, KeyPair, SanType, date_time_ymd};
use rustls::version::{TLS12, TLS13};

use crate::offload_server::{Authority, Issued, Server, authority, reply};

/// A server that answers every question with its metadata.
fn server(config: rustls::ServerConfig) -> Server {
    Server::encrypted(config, |_, _, wire| {
        reply(
            wire,
            "200 OK",
            &[],
            br#"{"name":"test","version":"1","extensions":[]}"#,
        )
    })
}

fn profile(server: &Server, authority: &Authority) -> Profile {
    Profile {
        ca: Some(authority.file.clone()),
        binary: Binary::Yes,
        ..server.profile()
    }
}

/// Asks for the server's metadata: the words of its name, or why not.
fn ask(profile: &Profile) -> Result<String, Error> {
    let client = Client::new(profile, Secrets::given([]))?;
    // Whether it is worth another attempt is not the question here.
    client.metadata(&Task::new()).map(|about| about.name)
}

struct Place {
    folder: tempfile::TempDir,
    authority: Authority,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "hospital");
        Self { folder, authority }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// A certificate of which nothing but its own fault is wrong must be refused for that fault, and no
/// request may have been heard.
fn refused(place: &Place, issued: &Issued, words: &str) {
    let server = server(issued.config(&[&TLS13], None));
    let error = ask(&profile(&server, &place.authority)).unwrap_err();
    assert!(error.to_string().contains(words), "{error}");
    assert!(!error.may_retry(), "{error}");
    assert!(server.heard().is_empty());
}

#[test]
fn a_good_certificate_is_taken_and_its_key_is_known() {
    let place = Place::new();
    let issued = place.authority.issue(|_| ());
    let server = server(issued.config(&[&TLS13], None));
    let client = Client::new(&profile(&server, &place.authority), Secrets::given([])).unwrap();
    assert_eq!(client.server_key(), None);
    assert!(client.live(&Task::new()).unwrap());
    assert_eq!(client.server_key(), Some(issued.pin));
    // By its name as well as by its address.
    let by_name = Profile {
        url: server.url().replace("127.0.0.1", "localhost"),
        ..profile(&server, &place.authority)
    };
    assert_eq!(ask(&by_name).unwrap(), "test");
}

#[test]
fn bad_certificates_are_refused_before_anything_is_said() {
    let place = Place::new();
    let issue = |change: fn(&mut rcgen::CertificateParams)| place.authority.issue(change);
    refused(
        &place,
        &issue(|p| {
            p.not_before = date_time_ymd(2020, 1, 1);
            p.not_after = date_time_ymd(2021, 1, 1);
        }),
        "has expired",
    );
    refused(
        &place,
        &issue(|p| {
            p.not_before = date_time_ymd(2090, 1, 1);
            p.not_after = date_time_ymd(2091, 1, 1);
        }),
        "is not valid yet",
    );
    refused(
        &place,
        &issue(|p| {
            p.subject_alt_names = vec![SanType::DnsName("models.example".try_into().unwrap())];
        }),
        "is for another host",
    );
    refused(
        &place,
        &issue(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
        "is not for servers",
    );
    refused(
        &place,
        &Issued::self_signed(place.path()),
        "not trusted here",
    );
    let stranger = Authority::new(place.path(), "stranger");
    refused(&place, &stranger.issue(|_| ()), "not trusted here");
}

#[test]
fn a_missing_or_unfit_link_of_the_chain_is_refused() {
    let place = Place::new();
    let middle = CertifiedIssuer::signed_by(
        authority("middle"),
        KeyPair::generate().unwrap(),
        &place.authority.issuer,
    )
    .unwrap();
    let issued = Issued::by(&middle, place.path(), |_| ());
    refused(&place, &issued, "not trusted here");
    // With the link it is taken.
    let whole = Issued {
        chain: vec![issued.chain[0].clone(), middle.der().clone()],
        key: issued.key.clone_key(),
        ..issued
    };
    let good = server(whole.config(&[&TLS13], None));
    assert_eq!(ask(&profile(&good, &place.authority)).unwrap(), "test");
    // A server's certificate is no authority.
    let mut no_authority = authority("no authority");
    no_authority.is_ca = rcgen::IsCa::ExplicitNoCa;
    let unfit = CertifiedIssuer::signed_by(
        no_authority,
        KeyPair::generate().unwrap(),
        &place.authority.issuer,
    )
    .unwrap();
    let issued = Issued::by(&unfit, place.path(), |_| ());
    let shown = Issued {
        chain: vec![issued.chain[0].clone(), unfit.der().clone()],
        key: issued.key.clone_key(),
        ..issued
    };
    refused(&place, &shown, "certificate");
}

#[test]
fn the_systems_own_authorities_do_not_vouch_for_ours() {
    let place = Place::new();
    let issued = place.authority.issue(|_| ());
    let server = server(issued.config(&[&TLS13], None));
    let without = Profile {
        ca: None,
        ..profile(&server, &place.authority)
    };
    // A system without any says so when the client is made.
    match ask(&without).unwrap_err() {
        Error::NoRoots | Error::Certificate(_) => {}
        other => panic!("{other}"),
    }
    assert!(server.heard().is_empty());
}

#[test]
fn a_server_that_knows_no_tls_1_3_is_refused() {
    let place = Place::new();
    let issued = place.authority.issue(|_| ());
    let old = server(issued.config(&[&TLS12], None));
    let error = ask(&profile(&old, &place.authority)).unwrap_err();
    assert!(matches!(error, Error::Tls(_)), "{error}");
    assert!(error.to_string().contains("TLS 1.3"), "{error}");
    assert!(old.heard().is_empty());
    // One that knows both is spoken to in 1.3.
    let both = server(issued.config(&[&TLS12, &TLS13], None));
    assert_eq!(ask(&profile(&both, &place.authority)).unwrap(), "test");
}

#[test]
fn a_server_that_asks_for_a_certificate_gets_ours() {
    let place = Place::new();
    let issued = place.authority.issue(|_| ());
    let ours = place.authority.issue(|_| ());
    let stranger = Authority::new(place.path(), "stranger").issue(|_| ());
    let server = server(issued.config(&[&TLS13], Some(&place.authority)));
    let without = profile(&server, &place.authority);
    let error = ask(&without).unwrap_err();
    assert!(
        error.to_string().contains("asks for a client certificate"),
        "{error}"
    );
    let with = |issued: &Issued| Profile {
        client_certificate: Some(issued.certificate_file.clone()),
        client_key: Some(issued.key_file.clone()),
        ..without.clone()
    };
    assert!(ask(&with(&stranger)).is_err());
    assert!(server.heard().is_empty());
    assert_eq!(ask(&with(&ours)).unwrap(), "test");
    let mixed = Profile {
        client_key: Some(stranger.key_file.clone()),
        ..with(&ours)
    };
    assert!(matches!(ask(&mixed), Err(Error::FileContent { .. })));
}

#[test]
fn a_pin_holds_for_the_leaf_its_authority_or_a_backup() {
    let place = Place::new();
    let middle = CertifiedIssuer::signed_by(
        authority("middle"),
        KeyPair::generate().unwrap(),
        &place.authority.issuer,
    )
    .unwrap();
    let middle_pin = Pin::of(&rcgen::PublicKeyData::subject_public_key_info(middle.key()));
    let mut issued = Issued::by(&middle, place.path(), |_| ());
    issued.chain.push(middle.der().clone());
    let server = server(issued.config(&[&TLS13], None));
    let pinned = |pins: &[Pin]| {
        ask(&Profile {
            pins: pins.to_vec(),
            ..profile(&server, &place.authority)
        })
    };
    let backup = Pin([7; 32]);
    for pins in [
        &[issued.pin][..],
        &[middle_pin],
        &[place.authority.pin()],
        &[backup, issued.pin],
    ] {
        assert_eq!(pinned(pins).unwrap(), "test");
    }
    let heard = server.heard().len();
    match pinned(&[backup]).unwrap_err() {
        Error::WrongPin { found } => assert_eq!(found, issued.pin),
        other => panic!("{other}"),
    }
    assert_eq!(server.heard().len(), heard, "nothing was said");
}

/// A server may show any certificate beside its chain; only those that vouch for it count.
#[test]
fn a_pinned_certificate_that_is_merely_shown_does_not_count() {
    let place = Place::new();
    let pinned = CertifiedIssuer::signed_by(
        authority("pinned"),
        KeyPair::generate().unwrap(),
        &place.authority.issuer,
    )
    .unwrap();
    let pin = Pin::of(&rcgen::PublicKeyData::subject_public_key_info(pinned.key()));
    let mut issued = place.authority.issue(|_| ());
    issued.chain.push(pinned.der().clone());
    let server = server(issued.config(&[&TLS13], None));
    let profile = Profile {
        pins: vec![pin],
        ..profile(&server, &place.authority)
    };
    assert!(matches!(ask(&profile), Err(Error::WrongPin { .. })));
    assert!(server.heard().is_empty());
}

#[test]
fn a_pin_does_not_make_a_bad_certificate_good() {
    let place = Place::new();
    let issued = place.authority.issue(|p| {
        p.not_before = date_time_ymd(2020, 1, 1);
        p.not_after = date_time_ymd(2021, 1, 1);
    });
    let server = server(issued.config(&[&TLS13], None));
    let profile = Profile {
        pins: vec![issued.pin],
        ..profile(&server, &place.authority)
    };
    assert!(matches!(ask(&profile), Err(Error::Certificate(_))));
}

#[test]
fn files_that_hold_no_certificates_are_refused_when_the_client_is_made() {
    let place = Place::new();
    let file = |name: &str, content: &str| {
        let path = place.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let check = |ca: std::path::PathBuf| {
        let profile = Profile {
            ca: Some(ca),
            ..Profile::new("x", "https://models.example")
        };
        Client::new(&profile, Secrets::given([])).unwrap_err()
    };
    assert!(matches!(
        check(place.path().join("absent")),
        Error::File { .. }
    ));
    assert!(matches!(
        check(file("empty", "")),
        Error::FileContent { .. }
    ));
    let torn = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    assert!(matches!(
        check(file("torn", torn)),
        Error::FileContent { .. }
    ));
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(
        check(file("nonsense", nonsense)),
        Error::FileContent { .. }
    ));
}

#[test]
fn plain_http_to_an_encrypted_server_and_the_other_way_round_fail() {
    let place = Place::new();
    let issued = place.authority.issue(|_| ());
    let encrypted = server(issued.config(&[&TLS13], None));
    let profile_of = |url: String| Profile {
        allow_insecure_loopback: true,
        ca: Some(place.authority.file.clone()),
        ..Profile::new("x", &url)
    };
    let plain_to_encrypted = profile_of(encrypted.url().replace("https", "http"));
    assert!(ask(&plain_to_encrypted).is_err());
    let plain = Server::plain(|_, _, wire| reply(wire, "200 OK", &[], b"{}"));
    let encrypted_to_plain = profile_of(plain.url().replace("http", "https"));
    assert!(ask(&encrypted_to_plain).is_err());
    assert!(encrypted.heard().is_empty());
}

#[test]
fn many_threads_ask_through_one_client() {
    let place = Place::new();
    let issued = place.authority.issue(|_| ());
    let server = server(issued.config(&[&TLS13], None));
    let client = Client::new(&profile(&server, &place.authority), Secrets::given([])).unwrap();
    let client = Arc::new(client);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert!(client.live(&Task::new()).unwrap());
                }
            });
        }
    });
    assert_eq!(server.heard().len(), 40);
}
