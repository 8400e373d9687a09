//! Tokens of OAuth 2.0: fetched once, renewed in time or when they are withdrawn, kept out of sight.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use negatoscope::offload::{Authorization, Client, Error, Patience, Profile, SecretPlace, Secrets};
use negatoscope::task::Task;

use crate::offload_server::{Server, reply};

const ABOUT: &[u8] = br#"{"name":"test","version":"1","extensions":[]}"#;

fn patience() -> Patience {
    Patience {
        first_wait: Duration::from_millis(1),
        ..Patience::default()
    }
}

fn secrets() -> Secrets {
    Secrets::given([("CLIENT_SECRET", "cl13nt-s3cr3t")])
}

/// A model server that takes the newest token of a token server, and the token server.
struct Pair {
    models: Server,
    tokens: Server,
}

impl Pair {
    /// `holds`: seconds that each token is said to hold.
    fn new(holds: u32) -> Self {
        let count = Arc::new(AtomicUsize::new(0));
        let tokens = Server::plain({
            let count = count.clone();
            move |_, _, wire| {
                let n = count.fetch_add(1, Ordering::SeqCst) + 1;
                let body = format!(
                    r#"{{"access_token":"t0ken-{n}","token_type":"Bearer","expires_in":{holds},"refresh_token":"r3fresh-{n}"}}"#
                );
                reply(wire, "200 OK", &[], body.as_bytes())
            }
        });
        let models = Server::plain(move |_, heard, wire| {
            let newest = format!("Bearer t0ken-{}", count.load(Ordering::SeqCst));
            if heard.header("authorization") == Some(&newest) {
                reply(wire, "200 OK", &[], ABOUT)
            } else {
                reply(wire, "401 Unauthorized", &[], b"")
            }
        });
        Self { models, tokens }
    }

    fn profile(&self) -> Profile {
        Profile {
            authorization: Authorization::ClientCredentials {
                token_url: format!("{}/token", self.tokens.url()),
                client_id: "station 7".to_owned(),
                secret: SecretPlace::environment("CLIENT_SECRET"),
                scope: "infer read".to_owned(),
            },
            ..self.models.profile()
        }
    }

    fn client(&self) -> Client {
        Client::with_patience(&self.profile(), secrets(), patience()).unwrap()
    }
}

#[test]
fn a_token_is_fetched_once_for_many_requests() {
    let pair = Pair::new(3600);
    let client = pair.client();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(client.metadata(&Task::new()).is_ok()));
        }
    });
    let heard = pair.tokens.heard();
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0].path, "/token");
    assert_eq!(
        heard[0].body,
        b"grant_type=client_credentials&scope=infer%20read"
    );
    // RFC 6749 section 2.3.1: base64 of "station%207:cl13nt-s3cr3t".
    assert_eq!(
        heard[0].header("authorization"),
        Some("Basic c3RhdGlvbiUyMDc6Y2wxM250LXMzY3IzdA==")
    );
}

#[test]
fn a_token_that_expires_is_renewed_beforehand() {
    let pair = Pair::new(0);
    let client = pair.client();
    for _ in 0..3 {
        client.metadata(&Task::new()).unwrap();
    }
    assert_eq!(pair.tokens.heard().len(), 3);
    assert_eq!(
        pair.models.heard().len(),
        3,
        "no request went with an old one"
    );
}

#[test]
fn a_token_that_was_withdrawn_is_renewed_once() {
    let pair = Pair::new(3600);
    let (one, other) = (pair.client(), pair.client());
    one.metadata(&Task::new()).unwrap();
    // The other's token is newer, so that the first one's holds no longer.
    other.metadata(&Task::new()).unwrap();
    one.metadata(&Task::new()).unwrap();
    assert_eq!(pair.tokens.heard().len(), 3);

    // A server that takes no token at all is not asked for ever.
    let closed = Server::plain(|_, _, wire| reply(wire, "401 Unauthorized", &[], b""));
    let profile = Profile {
        url: closed.url(),
        ..pair.profile()
    };
    let client = Client::with_patience(&profile, secrets(), patience()).unwrap();
    let error = client.metadata(&Task::new()).unwrap_err();
    assert!(
        matches!(error, Error::Status { status: 401, .. }),
        "{error}"
    );
    assert_eq!(closed.heard().len(), 2);
}

#[test]
fn no_secret_is_in_any_message() {
    let echoing = Server::plain(|_, heard, wire| {
        let back = format!(
            r#"{{"error":"invalid_client","error_description":"{}"}}"#,
            heard.header("authorization").unwrap_or_default()
        );
        reply(wire, "401 Unauthorized", &[], back.as_bytes())
    });
    let pair = Pair::new(3600);
    let profile = Profile {
        authorization: Authorization::ClientCredentials {
            token_url: echoing.url(),
            client_id: "x".to_owned(),
            secret: SecretPlace::environment("CLIENT_SECRET"),
            scope: String::new(),
        },
        ..pair.models.profile()
    };
    let client = Client::with_patience(&profile, secrets(), patience()).unwrap();
    let error = client.metadata(&Task::new()).unwrap_err();
    let sent = echoing.heard()[0]
        .header("authorization")
        .unwrap()
        .to_owned();
    for text in [
        format!("{error}"),
        format!("{error:?}"),
        format!("{client:?}"),
    ] {
        assert!(
            !text.contains("cl13nt") && !text.contains(&sent[6..]),
            "{text}"
        );
    }
    assert!(error.to_string().contains("invalid_client"), "{error}");
    assert!(
        pair.models.heard().is_empty(),
        "nothing went without a token"
    );
}

#[test]
fn a_person_signs_in_with_a_browser() {
    let tokens = Server::plain(|number, heard, wire| {
        match (number, heard.path.as_str()) {
        (_, "/device") => reply(
            wire,
            "200 OK",
            &[],
            br#"{"device_code":"d3vice","user_code":"WDJB-MJHT","verification_uri":"https://login.example/device","expires_in":600,"interval":1}"#,
        ),
        (1, _) => reply(wire, "400 Bad Request", &[], br#"{"error":"authorization_pending"}"#),
        // The first token is too old at once, so that the next request renews it.
        (2, _) => reply(
            wire,
            "200 OK",
            &[],
            br#"{"access_token":"t0ken-1","token_type":"Bearer","expires_in":0,"refresh_token":"r3fresh"}"#,
        ),
        _ => reply(
            wire,
            "200 OK",
            &[],
            br#"{"access_token":"t0ken-2","token_type":"Bearer","expires_in":3600}"#,
        ),
    }
    });
    let models = Server::plain(|_, _, wire| reply(wire, "200 OK", &[], ABOUT));
    let profile = Profile {
        authorization: Authorization::Device {
            device_url: format!("{}/device", tokens.url()),
            token_url: format!("{}/token", tokens.url()),
            client_id: "negatoscope".to_owned(),
            scope: "infer".to_owned(),
        },
        ..models.profile()
    };
    let client = Client::with_patience(&profile, secrets(), patience()).unwrap();
    let task = Task::new();
    let error = client.metadata(&task).unwrap_err();
    assert!(error.to_string().contains("sign in"), "{error}");
    let shown = Mutex::new(Vec::new());
    client
        .sign_in(
            |offer| shown.lock().unwrap().push(offer.user_code.clone()),
            &task,
        )
        .unwrap();
    assert_eq!(*shown.lock().unwrap(), ["WDJB-MJHT"]);
    client.metadata(&task).unwrap();
    let heard = tokens.heard();
    let bodies: Vec<String> = heard
        .iter()
        .map(|h| String::from_utf8(h.body.clone()).unwrap())
        .collect();
    assert_eq!(bodies[0], "client_id=negatoscope&scope=infer");
    assert_eq!(
        bodies[1],
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code=d3vice&client_id=negatoscope"
    );
    assert_eq!(
        bodies[3],
        "grant_type=refresh_token&refresh_token=r3fresh&client_id=negatoscope"
    );
    assert_eq!(
        models.heard()[0].header("authorization"),
        Some("Bearer t0ken-2")
    );
}
