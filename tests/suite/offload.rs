//! The client of model servers: every answer that is right is taken, every one that is not is
//! refused, and nothing goes where it should not.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use negatoscope::offload::protocol::AnswerError;
use negatoscope::offload::{
    Authorization, Binary, Client, Datatype, Error, InferAnswer, InferRequest, InputTensor,
    Patience, Profile, SecretPlace, Secrets, WantedOutput, random_id,
};
use negatoscope::task::Task;
use serde_json::{Value, json};

use crate::offload_server::{Heard, Server, Then, Wire, reply};

/// Threshold at zero: what the model in these tests computes.
const VOXELS: [i16; 8] = [-1000, 0, 1, 40, -1, 300, -5, 32767];
const MASK: [u8; 8] = [0, 0, 1, 1, 0, 1, 0, 1];
const SHAPE: [u64; 3] = [2, 2, 2];

fn request(voxels: &[i16]) -> InferRequest<'_> {
    InferRequest {
        model: "seg".to_owned(),
        version: Some("1".to_owned()),
        id: random_id(),
        inputs: vec![InputTensor::new("image", Datatype::Int16, &SHAPE, voxels)],
        outputs: vec![WantedOutput::new("mask", Datatype::Uint8, &SHAPE)],
    }
}

fn impatient() -> Patience {
    Patience {
        connect: Duration::from_secs(10),
        idle: Duration::from_millis(300),
        first_wait: Duration::from_millis(2),
    }
}

fn client(profile: &Profile) -> Client {
    Client::with_patience(
        profile,
        Secrets::given([("TOKEN", "s3cr3t-t0ken")]),
        impatient(),
    )
    .unwrap()
}

/// Asks once, in the binary form.
fn ask(server: &Server) -> Result<InferAnswer, Error> {
    ask_as(&Profile {
        binary: Binary::Yes,
        ..server.profile()
    })
}

fn ask_as(profile: &Profile) -> Result<InferAnswer, Error> {
    client(profile).infer(&request(&VOXELS), &Task::new())
}

/// The right answer to a request, as its JSON (without numbers) and the mask.
fn right(heard: &Heard) -> (Value, Vec<u8>) {
    let (asked, rest) = heard.parts();
    let input = &asked["inputs"][0];
    let voxels: Vec<i64> = match input["data"].as_array() {
        Some(list) => list.iter().map(|v| v.as_i64().unwrap()).collect(),
        None => rest
            .chunks_exact(2)
            .map(|b| i16::from_le_bytes([b[0], b[1]]).into())
            .collect(),
    };
    let mask = voxels.iter().map(|&v| u8::from(v > 0)).collect();
    let head = json!({
        "id": asked["id"], "model_name": "seg", "model_version": "1",
        "outputs": [{ "name": "mask", "datatype": "UINT8", "shape": input["shape"] }],
    });
    (head, mask)
}

fn reply_json(wire: &mut dyn Wire, heard: &Heard) -> io::Result<Then> {
    let (mut head, mask) = right(heard);
    head["outputs"][0]["data"] = json!(mask);
    reply(wire, "200 OK", &[], head.to_string().as_bytes())
}

/// The binary answer after a change of its head and its bytes, with its length header.
fn binary(heard: &Heard, change: impl FnOnce(&mut Value, &mut Vec<u8>)) -> (String, Vec<u8>) {
    let (mut head, mut mask) = right(heard);
    head["outputs"][0]["parameters"] = json!({ "binary_data_size": mask.len() });
    change(&mut head, &mut mask);
    let head = head.to_string();
    let length = head.len().to_string();
    (length, [head.into_bytes(), mask].concat())
}

const LENGTH: &str = "Inference-Header-Content-Length";

fn reply_binary(
    wire: &mut dyn Wire,
    heard: &Heard,
    change: impl FnOnce(&mut Value, &mut Vec<u8>),
) -> io::Result<Then> {
    let (length, body) = binary(heard, change);
    reply(wire, "200 OK", &[(LENGTH, &length)], &body)
}

fn good() -> Server {
    Server::plain(|_, heard, wire| reply_binary(wire, heard, |_, _| ()))
}

fn mask_of(answer: Result<InferAnswer, Error>) -> Vec<u8> {
    let answer = answer.unwrap();
    assert_eq!(answer.outputs.len(), 1);
    assert_eq!(answer.outputs[0].shape, [2, 2, 2]);
    answer.outputs[0].data.to_vec()
}

#[test]
fn binary_and_json_give_the_same_mask() {
    let server = good();
    assert_eq!(mask_of(ask(&server)), MASK);
    let heard = &server.heard()[0];
    assert_eq!(heard.path, "/v2/models/seg/versions/1/infer");
    assert_eq!(heard.header("transfer-encoding"), None);
    assert_eq!(
        heard.header("content-type"),
        Some("application/octet-stream")
    );
    assert!(heard.parts().1.ends_with(&32767_i16.to_le_bytes()));

    let server = Server::plain(|_, heard, wire| reply_json(wire, heard));
    let profile = Profile {
        binary: Binary::No,
        ..server.profile()
    };
    assert_eq!(mask_of(ask_as(&profile)), MASK);
    let heard = &server.heard()[0];
    assert_eq!(heard.header("content-type"), Some("application/json"));
    assert_eq!(heard.header(LENGTH), None);
}

#[test]
fn the_form_follows_what_the_server_announces() {
    for announced in [true, false] {
        let server = Server::plain(move |_, heard, wire| {
            if heard.path == "/v2" {
                let extensions = if announced {
                    json!(["binary_tensor_data"])
                } else {
                    Value::Null
                };
                let about = json!({ "name": "triton", "version": "2", "extensions": extensions });
                return reply(wire, "200 OK", &[], about.to_string().as_bytes());
            }
            reply_json(wire, heard)
        });
        let client = client(&server.profile());
        for _ in 0..2 {
            mask_of(client.infer(&request(&VOXELS), &Task::new()));
        }
        let heard = server.heard();
        let paths: Vec<&str> = heard.iter().map(|h| h.path.as_str()).collect();
        assert_eq!(paths[0], "/v2");
        assert_eq!(heard.len(), 3, "asked once: {paths:?}");
        assert_eq!(heard[1].header(LENGTH).is_some(), announced);
    }
}

#[test]
fn nothing_leaves_but_numbers_names_and_random_ids() {
    let server = good();
    ask(&server).unwrap();
    let heard = &server.heard()[0];
    let mut names: Vec<String> = heard
        .headers
        .iter()
        .map(|(n, _)| n.to_lowercase())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "accept",
            "accept-encoding",
            "content-length",
            "content-type",
            "host",
            "idempotency-key",
            "inference-header-content-length",
            "user-agent",
            "x-request-id"
        ]
    );
    let (json, rest) = heard.parts();
    let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["id", "inputs", "outputs"]);
    assert_eq!(rest.len(), 16);
    let id = json["id"].as_str().unwrap();
    assert_eq!(heard.header("idempotency-key"), Some(&*format!("\"{id}\"")));
}

/// Headers in any case, no content type, chunks of one byte, the length of each line in digits.
#[test]
fn an_answer_in_chunks_of_one_byte_is_read() {
    let server = Server::plain(|_, heard, wire| {
        let (length, body) = binary(heard, |head, _| head["model_version"] = Value::Null);
        let head = format!(
            "HTTP/1.1 200 OK\r\ninference-header-content-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        wire.write_all(head.as_bytes())?;
        for byte in body {
            wire.write_all(&[b'1', b'\r', b'\n', byte, b'\r', b'\n'])?;
        }
        wire.write_all(b"0\r\n\r\n")?;
        Ok(Then::Keep)
    });
    assert_eq!(mask_of(ask(&server)), MASK);
}

#[test]
fn gzip_goes_both_ways_and_the_header_counts_plain_bytes() {
    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        to.write_all(bytes).unwrap();
        to.finish().unwrap()
    }
    let server = Server::plain(|_, heard, wire| {
        assert_eq!(heard.header("content-encoding"), Some("gzip"));
        assert_eq!(heard.header("accept-encoding"), Some("gzip"));
        let mut plain = heard.clone();
        plain.body.clear();
        io::Read::read_to_end(
            &mut flate2::read::GzDecoder::new(&heard.body[..]),
            &mut plain.body,
        )?;
        let (length, body) = binary(&plain, |_, _| ());
        let headers = [(LENGTH, &*length), ("Content-Encoding", "gzip")];
        reply(wire, "200 OK", &headers, &gzip(&body))
    });
    let profile = Profile {
        binary: Binary::Yes,
        gzip: true,
        ..server.profile()
    };
    assert_eq!(mask_of(ask_as(&profile)), MASK);

    // 16 MiB of zeros in less than the answer's limit.
    let bomb = gzip(&vec![0; 16 << 20]);
    assert!(bomb.len() < 200_000);
    let server = Server::plain(move |_, _, wire| {
        reply(wire, "200 OK", &[("Content-Encoding", "gzip")], &bomb)
    });
    let profile = Profile {
        binary: Binary::Yes,
        gzip: true,
        ..server.profile()
    };
    let error = ask_as(&profile).unwrap_err();
    assert!(
        matches!(error, Error::Answer(AnswerError::TooLarge { .. })),
        "{error}"
    );
}

/// Every wrong answer is refused, none is asked for again, and each is refused for its own reason.
#[test]
fn answers_that_are_not_what_was_asked_for_are_refused() {
    use AnswerError as E;
    fn refused(change: fn(&mut Value, &mut Vec<u8>), is_right: fn(&E) -> bool) {
        let server = Server::plain(move |_, heard, wire| reply_binary(wire, heard, change));
        match ask(&server) {
            Err(Error::Answer(error)) => assert!(is_right(&error), "{error}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(server.heard().len(), 1);
    }
    refused(
        |head, _| head["id"] = json!("another"),
        |e| {
            matches!(
                e,
                E::Mismatch {
                    what: "request",
                    ..
                }
            )
        },
    );
    refused(
        |head, _| head["model_name"] = json!("other"),
        |e| matches!(e, E::Mismatch { what: "model", .. }),
    );
    refused(
        |head, _| head["model_version"] = json!("2"),
        |e| {
            matches!(
                e,
                E::Mismatch {
                    what: "version",
                    ..
                }
            )
        },
    );
    refused(
        |head, _| head["outputs"][0]["datatype"] = json!("INT8"),
        |e| matches!(e, E::Datatype { .. }),
    );
    refused(
        |head, _| head["outputs"][0]["shape"] = json!([2, 4, 1]),
        |e| matches!(e, E::Shape { .. }),
    );
    refused(
        |head, _| head["outputs"][0]["shape"] = json!([2, 2]),
        |e| matches!(e, E::Shape { .. }),
    );
    refused(
        |head, _| head["outputs"][0]["name"] = json!("other"),
        |e| matches!(e, E::Missing(_)),
    );
    refused(|_, mask| mask.truncate(7), |e| matches!(e, E::Size { .. }));
    refused(|_, mask| mask.push(0), |e| matches!(e, E::LeftOver(1)));
    refused(
        |head, _| head["error"] = json!("out of memory"),
        |e| matches!(e, E::Reported(_)),
    );
    refused(
        |head, _| {
            let mut deep = json!(1);
            for _ in 0..100 {
                deep = json!([deep]);
            }
            head["parameters"] = deep;
        },
        |e| matches!(e, E::TooDeep),
    );
}

#[test]
fn the_answer_to_an_earlier_request_is_refused() {
    let server = Server::plain({
        let first = std::sync::Mutex::new(None);
        move |_, heard, wire| {
            let mut first = first.lock().unwrap();
            let (length, body) = first
                .get_or_insert_with(|| binary(heard, |_, _| ()))
                .clone();
            reply(wire, "200 OK", &[(LENGTH, &length)], &body)
        }
    });
    assert_eq!(mask_of(ask(&server)), MASK);
    let error = ask(&server).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Answer(AnswerError::Mismatch {
                what: "request",
                ..
            })
        ),
        "{error}"
    );
}

#[test]
fn floats_that_are_not_finite_are_refused_or_counted() {
    let server = Server::plain(|_, heard, wire| {
        let (mut head, _) = right(heard);
        let scores: Vec<u8> = [0.5_f32, f32::NAN, 1.0, f32::INFINITY]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        head["outputs"] = json!([{
            "name": "score", "datatype": "FP32", "shape": [4],
            "parameters": { "binary_data_size": 16 },
        }]);
        let head = head.to_string();
        let body = [head.as_bytes(), &scores].concat();
        reply(wire, "200 OK", &[(LENGTH, &head.len().to_string())], &body)
    });
    let client = client(&Profile {
        binary: Binary::Yes,
        ..server.profile()
    });
    let mut asked = request(&VOXELS);
    asked.outputs = vec![WantedOutput::new("score", Datatype::Fp32, &[4])];
    let error = client.infer(&asked, &Task::new()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Answer(AnswerError::NotFinite { count: 2, .. })
        ),
        "{error}"
    );
    asked.outputs[0].may_be_not_finite = true;
    let answer = client.infer(&asked, &Task::new()).unwrap();
    assert_eq!(answer.outputs[0].not_finite, 2);
}

#[test]
fn refusals_are_told_in_the_servers_words_and_not_repeated() {
    let refusals: [(&str, &str, &str); 6] = [
        (
            "400 Bad Request",
            r#"{"error":"unexpected shape"}"#,
            "unexpected shape",
        ),
        ("401 Unauthorized", "", ""),
        ("404 Not Found", r#"{"detail":"Not Found"}"#, "Not Found"),
        (
            "413 Payload Too Large",
            "<title>413 Too Large</title>",
            "413 Too Large",
        ),
        (
            "422 Unprocessable Entity",
            r#"{"detail":[{"msg":"field required"}]}"#,
            "field required",
        ),
        (
            "501 Not Implemented",
            "{\"error\":\"no\\r\\nversions\"}",
            "no versions",
        ),
    ];
    for (status, body, words) in refusals {
        let server = Server::plain(move |_, _, wire| reply(wire, status, &[], body.as_bytes()));
        match ask(&server) {
            Err(Error::Status {
                status: found,
                message,
                ..
            }) => {
                assert!(status.starts_with(&found.to_string()));
                assert_eq!(message, words);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(server.heard().len(), 1, "{status}");
    }
}

#[test]
fn redirects_are_not_followed() {
    let elsewhere = good();
    let to = elsewhere.url();
    let server = Server::plain(move |_, _, wire| {
        reply(wire, "307 Temporary Redirect", &[("Location", &to)], b"")
    });
    let error = ask(&server).unwrap_err();
    assert!(
        matches!(error, Error::Status { status: 307, .. }),
        "{error}"
    );
    assert!(elsewhere.heard().is_empty());
}

#[test]
fn a_busy_server_is_asked_again_with_the_same_key() {
    for status in [
        "429 Too Many Requests",
        "502 Bad Gateway",
        "503 Service Unavailable",
        "504 Gateway Timeout",
        "408 Request Timeout",
    ] {
        let server = Server::plain(move |number, heard, wire| match number {
            0 | 1 => reply(wire, status, &[("Retry-After", "0")], b"busy"),
            _ => reply_binary(wire, heard, |_, _| ()),
        });
        let answer = ask(&server);
        assert_eq!(answer.as_ref().unwrap().attempts, 3);
        assert_eq!(mask_of(answer), MASK);
        let heard = server.heard();
        assert!(heard.iter().all(|h| h.body == heard[0].body));
        let keys: Vec<_> = heard.iter().map(|h| h.header("idempotency-key")).collect();
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert_ne!(
            heard[0].header("x-request-id"),
            heard[1].header("x-request-id")
        );
    }
}

#[test]
fn a_server_that_wants_a_long_rest_is_left_alone() {
    let server = Server::plain(|_, _, wire| {
        reply(
            wire,
            "503 Service Unavailable",
            &[("Retry-After", "3600")],
            b"",
        )
    });
    match ask(&server) {
        Err(Error::Status { retry_after, .. }) => {
            assert_eq!(retry_after, Some(Duration::from_hours(1)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(server.heard().len(), 1);
}

#[test]
fn an_error_of_the_server_is_tried_once_more() {
    let server = Server::plain(|_, _, wire| reply(wire, "500 Internal Server Error", &[], b"x"));
    assert!(ask(&server).unwrap_err().may_retry());
    assert_eq!(server.heard().len(), 2);
}

#[test]
fn an_endpoint_that_fails_repeatedly_is_left_alone() {
    let server = Server::plain(|_, _, wire| reply(wire, "503 Service Unavailable", &[], b""));
    let client = client(&Profile {
        binary: Binary::Yes,
        ..server.profile()
    });
    let ask = || client.infer(&request(&VOXELS), &Task::new()).unwrap_err();
    assert!(matches!(ask(), Error::Status { status: 503, .. }));
    assert!(matches!(ask(), Error::Resting { .. }));
    assert_eq!(server.heard().len(), 5);
}

#[test]
fn a_connection_that_breaks_before_the_answer_is_made_again() {
    // Closed without a word.
    let server = Server::plain(|number, heard, wire| match number {
        0 => Ok(Then::Close),
        _ => reply_binary(wire, heard, |_, _| ()),
    });
    assert_eq!(ask(&server).unwrap().attempts, 2);

    // Reset in the middle of the body.
    let server = Server::without_bodies(|number, heard, wire| {
        // None from a stranger: another test's client that still looks for a port of its own.
        let Some(length) = heard.header("content-length").and_then(|n| n.parse().ok()) else {
            return Ok(Then::Close);
        };
        if number == 0 {
            // What is never read makes the system reset the connection.
            return Ok(Then::Close);
        }
        let mut all = heard.clone();
        all.body = vec![0; length];
        // The buffered reader may have taken the first part of the body: only its end matters here.
        let (asked, _) = json_answer_to(&mut all, wire)?;
        reply(wire, "200 OK", &[], asked.as_bytes())
    });
    let voxels = vec![1_i16; 4 << 20];
    let shape = [voxels.len() as u64];
    let asked = InferRequest {
        inputs: vec![InputTensor::new("image", Datatype::Int16, &shape, &voxels)],
        ..request(&VOXELS)
    };
    let profile = Profile {
        binary: Binary::Yes,
        ..server.profile()
    };
    let error = client(&profile).infer(&asked, &Task::new()).unwrap_err();
    // It was sent again; what the second answer says does not matter here.
    assert!(matches!(error, Error::Answer(_)), "{error:?}");
    assert_eq!(server.heard().len(), 2);
}

/// Reads a body of which a part may be read already, until nothing more comes for a while.
fn json_answer_to(heard: &mut Heard, wire: &mut dyn Wire) -> io::Result<(String, usize)> {
    let mut read = 0;
    let mut block = vec![0; 1 << 16];
    while read + (1 << 16) < heard.body.len() {
        read += wire.read(&mut block)?;
    }
    Ok(("{}".to_owned(), read))
}

#[test]
fn an_answer_that_breaks_off_is_not_used_and_not_asked_for_again() {
    let server = Server::plain(|_, heard, wire| {
        let (length, body) = binary(heard, |_, _| ());
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{LENGTH}: {length}\r\n\r\n",
            body.len()
        );
        wire.write_all(head.as_bytes())?;
        wire.write_all(&body[..body.len() - 1])?;
        Ok(Then::Close)
    });
    let error = ask(&server).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Broken {
                answer_begun: true,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(!error.may_retry() && error.may_have_been_sent());
    assert_eq!(server.heard().len(), 1);
}

#[test]
fn an_answer_that_stalls_is_given_up() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let server = Server::plain(move |_, heard, wire| {
        let (length, body) = binary(heard, |_, _| ());
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{LENGTH}: {length}\r\n\r\n",
            body.len()
        );
        wire.write_all(head.as_bytes())?;
        wire.write_all(&body[..body.len() / 2])?;
        wire.flush()?;
        let _ = wait.lock().unwrap().recv();
        Ok(Then::Close)
    });
    let error = ask(&server).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Stalled {
                answer_begun: true,
                ..
            }
        ),
        "{error:?}"
    );
    drop(release);
}

#[test]
fn a_server_that_takes_no_bytes_is_given_up_after_all_attempts() {
    let server = Server::without_bodies(|_, _, _| {
        thread::sleep(Duration::from_secs(3));
        Ok(Then::Close)
    });
    // More than the system's buffers hold.
    let voxels = vec![0_i16; 16 << 20];
    let shape = [voxels.len() as u64];
    let asked = InferRequest {
        inputs: vec![InputTensor::new("image", Datatype::Int16, &shape, &voxels)],
        ..request(&VOXELS)
    };
    let profile = Profile {
        binary: Binary::Yes,
        deadline_secs: 1,
        ..server.profile()
    };
    let error = client(&profile).infer(&asked, &Task::new()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Stalled {
                phase: "sending",
                ..
            } | Error::Deadline { .. }
        ),
        "{error:?}"
    );
}

#[test]
fn a_server_that_works_too_long_meets_the_deadline() {
    let server = Server::plain(|_, _, _| {
        thread::sleep(Duration::from_secs(3));
        Ok(Then::Close)
    });
    let profile = Profile {
        binary: Binary::Yes,
        deadline_secs: 1,
        ..server.profile()
    };
    let error = ask_as(&profile).unwrap_err();
    assert!(
        matches!(error, Error::Deadline { deadline } if deadline.as_secs() == 1),
        "{error:?}"
    );
    assert!(error.may_have_been_sent());
}

#[test]
fn answers_without_an_end_are_cut_off() {
    // A body that goes on and on.
    let server = Server::plain(|_, _, wire| {
        wire.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        loop {
            wire.write_all(&[b' '; 4096])?;
        }
    });
    let error = ask(&server).unwrap_err();
    assert!(
        matches!(error, Error::Answer(AnswerError::TooLarge { .. })),
        "{error:?}"
    );

    // One that says so beforehand.
    let server = Server::plain(|_, _, wire| {
        wire.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")?;
        Ok(Then::Close)
    });
    let error = ask(&server).unwrap_err();
    assert!(
        matches!(error, Error::Answer(AnswerError::TooLarge { .. })),
        "{error:?}"
    );

    // Headers that go on and on.
    let server = Server::plain(|_, _, wire| {
        wire.write_all(b"HTTP/1.1 200 OK\r\n")?;
        for n in 0_u64.. {
            wire.write_all(format!("x-{n}: {}\r\n", "y".repeat(1000)).as_bytes())?;
        }
        Ok(Then::Close)
    });
    let error = ask(&server).unwrap_err();
    assert!(
        matches!(error, Error::Answer(_) | Error::Broken { .. }),
        "{error:?}"
    );

    // A refusal that goes on and on is told by its beginning.
    let server = Server::plain(|_, _, wire| {
        wire.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")?;
        loop {
            wire.write_all(b"no ")?;
        }
    });
    match ask(&server) {
        Err(Error::Status { message, .. }) => assert!(message.starts_with("no no"), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_http_is_refused() {
    for answer in [
        &b"\0\x01\x02\x03\r\n\r\n"[..],
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
    ] {
        let server = Server::plain(move |_, _, wire| {
            wire.write_all(answer)?;
            Ok(Then::Close)
        });
        let error = ask(&server).unwrap_err();
        assert!(
            matches!(error, Error::Answer(AnswerError::NotJson(_))),
            "{error:?}"
        );
        assert_eq!(server.heard().len(), 1);
    }
}

#[test]
fn nobody_there_is_no_connection() {
    let address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let profile = Profile {
        allow_insecure_loopback: true,
        binary: Binary::Yes,
        ..Profile::new("x", &format!("http://{address}"))
    };
    let error = ask_as(&profile).unwrap_err();
    assert!(matches!(error, Error::Connect(_)), "{error:?}");
    assert!(error.may_retry() && !error.may_have_been_sent());
}

#[test]
fn a_run_is_stopped_while_the_server_works_and_the_connection_goes() {
    let gone = Arc::new(AtomicBool::new(false));
    let (arrived, wait) = std::sync::mpsc::channel();
    let arrived = std::sync::Mutex::new(arrived);
    let server = Server::plain({
        let gone = gone.clone();
        move |_, _, wire| {
            arrived.lock().unwrap().send(()).unwrap();
            // Ends when the client closes.
            let end = wire.read(&mut [0]);
            gone.store(matches!(end, Ok(0) | Err(_)), Ordering::SeqCst);
            Ok(Then::Close)
        }
    });
    let task = Task::new();
    let error = thread::scope(|scope| {
        let task = &task;
        scope.spawn(move || {
            wait.recv().unwrap();
            task.cancel();
        });
        let profile = Profile {
            binary: Binary::Yes,
            ..server.profile()
        };
        client(&profile).infer(&request(&VOXELS), task).unwrap_err()
    });
    assert!(
        matches!(error, Error::Cancelled { sent: true }),
        "{error:?}"
    );
    assert!(error.to_string().contains("may still be working"));
    for _ in 0..400 {
        if gone.load(Ordering::SeqCst) {
            return;
        }
        thread::sleep(Duration::from_millis(25));
    }
    panic!("the connection stayed open");
}

#[test]
fn a_run_stopped_beforehand_sends_nothing() {
    let server = good();
    let task = Task::new();
    task.cancel();
    let client = client(&Profile {
        binary: Binary::Yes,
        ..server.profile()
    });
    let error = client.infer(&request(&VOXELS), &task).unwrap_err();
    assert!(
        matches!(error, Error::Cancelled { sent: false }),
        "{error:?}"
    );
    assert!(server.heard().is_empty());
}

#[test]
fn a_body_over_the_endpoints_limit_or_a_model_that_is_not_its_own_is_not_sent() {
    let server = good();
    let profile = Profile {
        binary: Binary::Yes,
        max_request_bytes: 100,
        ..server.profile()
    };
    let error = ask_as(&profile).unwrap_err();
    assert!(
        matches!(error, Error::RequestTooLarge { limit: 100, .. }),
        "{error:?}"
    );
    let profile = Profile {
        binary: Binary::Yes,
        models: vec!["lung".to_owned()],
        ..server.profile()
    };
    let error = ask_as(&profile).unwrap_err();
    assert!(matches!(error, Error::ModelNotAllowed(_)), "{error:?}");
    assert!(server.heard().is_empty());
}

#[test]
fn a_token_goes_in_its_header_and_nowhere_else() {
    let server = Server::plain(|_, _, wire| reply(wire, "403 Forbidden", &[], b"no"));
    let profile = Profile {
        binary: Binary::Yes,
        authorization: Authorization::Bearer {
            secret: SecretPlace::environment("TOKEN"),
        },
        ..server.profile()
    };
    let client = client(&profile);
    let error = client.infer(&request(&VOXELS), &Task::new()).unwrap_err();
    let heard = &server.heard()[0];
    assert_eq!(heard.header("authorization"), Some("Bearer s3cr3t-t0ken"));
    for text in [
        format!("{client:?}"),
        format!("{error:?} {error}"),
        heard.path.clone(),
        String::from_utf8_lossy(&heard.body).into_owned(),
    ] {
        assert!(!text.contains("s3cr3t"), "{text}");
    }
}

#[test]
fn questions_are_answered_or_not_offered() {
    let server = Server::plain(|_, heard, wire| {
        let (status, body) = match (heard.method.as_str(), heard.path.as_str()) {
            ("GET", "/v2/health/live") => ("200 OK", r#"{"live":true}"#),
            ("GET", "/v2/health/ready") => ("503 Service Unavailable", ""),
            ("GET", "/v2") => (
                "200 OK",
                r#"{"name":"kserve","version":"0.21.0","extensions":["model_repository_extension"]}"#,
            ),
            ("GET", "/v2/models/seg") => (
                "200 OK",
                r#"{"name":"seg","versions":["1"],"platform":"","inputs":[{"name":"image","datatype":"INT16","shape":[-1,-1,-1]}],"outputs":[]}"#,
            ),
            // Triton says 400 for a model that it does not know.
            ("GET", "/v2/models/none/ready") => ("400 Bad Request", r#"{"error":"unknown"}"#),
            ("GET", "/v2/models/seg/ready") => ("200 OK", ""),
            ("POST", "/v2/repository/index") => ("404 Not Found", r#"{"detail":"Not Found"}"#),
            _ => ("404 Not Found", ""),
        };
        reply(wire, status, &[], body.as_bytes())
    });
    let client = client(&server.profile());
    let task = Task::new();
    assert!(client.live(&task).unwrap());
    assert!(!client.ready(&task).unwrap());
    let about = client.metadata(&task).unwrap();
    assert_eq!(
        (about.name.as_str(), about.announces_binary()),
        ("kserve", false)
    );
    let model = client.model_metadata("seg", None, &task).unwrap();
    assert_eq!(model.inputs[0].shape, [-1, -1, -1]);
    assert!(!client.model_ready("none", None, &task).unwrap());
    assert!(client.model_ready("seg", None, &task).unwrap());
    assert_eq!(client.index(&task).unwrap(), None);
    assert!(client.model_metadata("lost", None, &task).is_err());
}
