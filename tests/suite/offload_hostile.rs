//! Servers that attack by the form of their answers: heads and frames without end, lengths said twice,
//! answers nobody has asked for, and sign-in that points elsewhere.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use negatoscope::offload::{
    Authorization, Binary, Client, Datatype, Error, InferRequest, InputTensor, Patience, Profile,
    SecretPlace, Secrets, WantedOutput, random_id,
};
use negatoscope::task::Task;
use serde_json::json;

use crate::offload_server::{Heard, Server, Then, Wire, reply};

/// What the system holds for both ends of a connection on this machine, and what the client may keep of a
/// head (some 400 kB).
const TAKEN_AT_MOST: u64 = 16 << 20;
/// An attack that is not over by then has failed to be stopped.
const ATTACK_BYTES: u64 = 256 << 20;

fn client(profile: &Profile) -> Client {
    let patience = Patience {
        connect: Duration::from_secs(10),
        idle: Duration::from_secs(2),
        first_wait: Duration::from_millis(2),
    };
    let profile = Profile {
        binary: Binary::No,
        ..profile.clone()
    };
    let secrets = Secrets::given([("CLIENT_SECRET", "cl13nt-s3cr3t")]);
    Client::with_patience(&profile, secrets, patience).unwrap()
}

/// Two bytes go, their sum comes back.
fn ask(client: &Client, bytes: [u8; 2]) -> Result<u8, Error> {
    let request = InferRequest {
        model: "sum".to_owned(),
        version: None,
        id: random_id(),
        inputs: vec![InputTensor::new("in", Datatype::Uint8, &[2], &bytes)],
        outputs: vec![WantedOutput::new("out", Datatype::Uint8, &[1])],
    };
    let answer = client.infer(&request, &Task::new())?;
    Ok(answer.outputs[0].data[0])
}

fn sum(heard: &Heard) -> Vec<u8> {
    let (asked, _) = heard.parts();
    let data = asked["inputs"][0]["data"].as_array().unwrap();
    let sum: u64 = data.iter().map(|v| v.as_u64().unwrap()).sum();
    let answer = json!({"id": asked["id"], "model_name": "sum",
        "outputs": [{"name": "out", "datatype": "UINT8", "shape": [1], "data": [sum]}]});
    answer.to_string().into_bytes()
}

/// A server that begins an answer and then repeats itself until nobody listens. What the client made of
/// it, and how much it took.
fn attacked(begin: &'static [u8], again: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static) -> Error {
    let taken = Arc::new(AtomicU64::new(0));
    let count = taken.clone();
    let server = Server::plain(move |_, _, wire| {
        wire.write_all(begin)?;
        for n in 0.. {
            let piece = again(n);
            wire.write_all(&piece)?;
            let all = count.fetch_add(piece.len() as u64, Ordering::Relaxed);
            if all > ATTACK_BYTES {
                break;
            }
        }
        Ok(Then::Close)
    });
    let error = ask(&client(&server.profile()), [1, 2]).unwrap_err();
    assert!(
        taken.load(Ordering::Relaxed) < TAKEN_AT_MOST,
        "{taken:?} bytes were taken: {error}"
    );
    // What a server does to one question it would do to the next.
    assert_eq!(server.heard().len(), 1, "{error}");
    assert!(!error.may_retry() && error.may_have_been_sent(), "{error}");
    error
}

#[test]
fn heads_without_end_are_cut_off() {
    let long = || vec![b'y'; 1 << 16];
    let short = |n: u64| format!("x-{n}: y\r\n").into_bytes();
    for error in [
        // Lines without end, of which each alone is fine.
        attacked(b"HTTP/1.1 200 OK\r\n", move |n| short(n).repeat(100)),
        // One header, one header's name, one reason and one blank line that never end.
        attacked(b"HTTP/1.1 200 OK\r\nx: ", move |_| long()),
        attacked(b"HTTP/1.1 200 OK\r\n", move |_| long()),
        attacked(b"HTTP/1.1 200 ", move |_| long()),
        attacked(b"", |_| b"\r\n".repeat(1 << 15)),
    ] {
        assert!(matches!(error, Error::Answer(_)), "{error:?}");
    }
    // A hundred lines are many; a thousand are refused although their bytes are few.
    let thousand = move |n| match n {
        0 => (0..1000).flat_map(short).chain(*b"\r\n").collect(),
        _ => long(),
    };
    let error = attacked(b"HTTP/1.1 200 OK\r\n", thousand);
    assert!(matches!(error, Error::Answer(_)), "{error:?}");
}

#[test]
fn frames_without_end_are_cut_off() {
    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for error in [
        // The extension of one chunk, and small ones of very many.
        attacked(CHUNKED, |n| match n {
            0 => b"1;".to_vec(),
            _ => vec![b'e'; 1 << 16],
        }),
        attacked(CHUNKED, |_| {
            format!("1;{}\r\n \r\n", "e".repeat(200)).into_bytes()
        }),
        // A size beyond all numbers.
        attacked(CHUNKED, |_| b"fffffffffffffffff\r\n".to_vec()),
        // What comes behind the last chunk.
        attacked(CHUNKED, |n| match n {
            0 => b"0\r\n".to_vec(),
            _ => format!("x-{n}: {}\r\n", "y".repeat(1000)).into_bytes(),
        }),
    ] {
        assert!(
            matches!(error, Error::Answer(_) | Error::Broken { .. }),
            "{error:?}"
        );
    }
}

/// Nothing of them is kept, so only the time ends it.
#[test]
fn promises_without_end_meet_the_deadline() {
    for (begin, again) in [
        ("", "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"),
        // The digits of a chunk's size.
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "0"),
    ] {
        let server = Server::plain(move |_, _, wire| {
            wire.write_all(begin.as_bytes())?;
            let again = again.repeat(500);
            loop {
                wire.write_all(again.as_bytes())?;
            }
        });
        let profile = Profile {
            deadline_secs: 1,
            ..server.profile()
        };
        let error = ask(&client(&profile), [1, 2]).unwrap_err();
        assert!(
            matches!(error, Error::Deadline { .. } | Error::Broken { .. }),
            "{error:?}"
        );
        assert_eq!(server.heard().len(), 1);
    }
}

#[test]
fn lengths_that_contradict_each_other_are_refused() {
    for lengths in [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: -1",
        "Content-Length: +5",
        "Content-Length: 0x10",
        "Content-Length: 99999999999999999999999999",
        "Content-Length:",
        "Transfer-Encoding: chunked, identity\r\nContent-Length: 5",
    ] {
        let server = Server::plain(move |_, heard, wire| {
            write!(wire, "HTTP/1.1 200 OK\r\n{lengths}\r\n\r\n")?;
            wire.write_all(&sum(heard)[..5])?;
            Ok(Then::Close)
        });
        let error = ask(&client(&server.profile()), [1, 2]).unwrap_err();
        assert!(
            matches!(error, Error::Answer(_) | Error::Broken { .. }),
            "{lengths}: {error:?}"
        );
        assert_eq!(server.heard().len(), 1, "{lengths}");
    }
}

/// Behind an answer stands another, for a question that has not been asked: whatever comes next is the
/// right one, or none.
#[test]
fn an_answer_that_came_before_its_question_is_not_taken() {
    let forged = |heard: &Heard| {
        let (asked, _) = heard.parts();
        let forged = json!({"id": asked["id"], "model_name": "sum",
            "outputs": [{"name": "out", "datatype": "UINT8", "shape": [1], "data": [99]}]});
        forged.to_string()
    };
    let both = move |heard: &Heard, wire: &mut dyn Wire| -> io::Result<Then> {
        reply(wire, "200 OK", &[], &sum(heard))?;
        reply(wire, "200 OK", &[], forged(heard).as_bytes())
    };
    // Both lengths are said: the chunks end before the content length does.
    let hidden = move |heard: &Heard, wire: &mut dyn Wire| -> io::Result<Then> {
        let body = sum(heard);
        write!(
            wire,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
            body.len() + 500,
            body.len()
        )?;
        wire.write_all(&body)?;
        wire.write_all(b"\r\n0\r\n\r\n")?;
        reply(wire, "200 OK", &[], forged(heard).as_bytes())
    };
    let mut right = 0;
    for server in [
        Server::plain(move |_, heard, wire| both(heard, wire)),
        Server::plain(move |_, heard, wire| hidden(heard, wire)),
    ] {
        let client = client(&server.profile());
        for n in 0..20 {
            match ask(&client, [n, 1]) {
                Ok(answer) => {
                    assert_eq!(answer, n + 1);
                    right += 1;
                }
                Err(error) => assert!(
                    matches!(
                        error,
                        Error::Answer(_) | Error::Broken { .. } | Error::Resting { .. }
                    ),
                    "{error:?}"
                ),
            }
        }
    }
    assert!(right > 0);
}

/// The secret of a client goes to the place that a person has named, and to no other.
#[test]
fn sign_in_that_points_elsewhere_or_never_ends_gives_no_token() {
    let elsewhere = Server::plain(|_, _, wire| {
        let token = br#"{"access_token":"t0ken","token_type":"Bearer","expires_in":60}"#;
        reply(wire, "200 OK", &[], token)
    });
    let models = Server::plain(|_, heard, wire| reply(wire, "200 OK", &[], &sum(heard)));
    let check = |tokens: Server| {
        let profile = Profile {
            authorization: Authorization::ClientCredentials {
                token_url: format!("{}/token", tokens.url()),
                client_id: "x".to_owned(),
                secret: SecretPlace::environment("CLIENT_SECRET"),
                scope: String::new(),
            },
            ..models.profile()
        };
        let error = ask(&client(&profile), [1, 2]).unwrap_err();
        assert!(!error.to_string().contains("cl13nt"), "{error}");
        assert!(elsewhere.heard().is_empty() && models.heard().is_empty());
        assert!(!tokens.heard().is_empty());
    };
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let url = elsewhere.url();
        check(Server::plain(move |_, _, wire| {
            reply(wire, status, &[("Location", &format!("{url}/token"))], b"")
        }));
    }
    check(Server::plain(|_, _, wire| {
        wire.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        loop {
            wire.write_all(&[b' '; 4096])?;
        }
    }));
    check(Server::plain(|_, _, wire| {
        wire.write_all(b"HTTP/1.1 200 OK\r\n")?;
        loop {
            wire.write_all(b"x: y\r\n")?;
        }
    }));
}
