//! Compression where it pays: on slow lines, for servers that take it.

use std::io::Read;

use negatoscope::offload::{
    Binary, Client, Datatype, InferRequest, InputTensor, Profile, Secrets, WantedOutput, random_id,
};
use negatoscope::task::Task;
use serde_json::{Value, json};

use crate::offload_server::{Heard, Server, Then, Wire, reply};

fn request(values: &[u8]) -> InferRequest<'_> {
    InferRequest {
        model: "one".to_owned(),
        version: None,
        id: random_id(),
        inputs: vec![InputTensor::new(
            "image",
            Datatype::Uint8,
            &[values.len() as u64],
            values,
        )],
        outputs: vec![WantedOutput::new("mask", Datatype::Uint8, &[1])],
    }
}

/// One byte for whatever was asked; the id is read out of the JSON.
fn answer(wire: &mut dyn Wire, json: &[u8]) -> std::io::Result<Then> {
    let asked: Value = serde_json::from_slice(json).unwrap();
    let told = json!({"model_name": "one", "id": asked["id"],
        "outputs": [{"name": "mask", "datatype": "UINT8", "shape": [1], "data": [1]}]});
    reply(wire, "200 OK", &[], told.to_string().as_bytes())
}

fn json_of<'a>(heard: &Heard, plain: &'a [u8]) -> &'a [u8] {
    let length = heard.header("inference-header-content-length").unwrap();
    &plain[..length.parse().unwrap()]
}

fn unpacked(heard: &Heard) -> Vec<u8> {
    let mut plain = Vec::new();
    match heard.header("content-encoding") {
        Some("gzip") => {
            let mut from = flate2::read::GzDecoder::new(heard.body.as_slice());
            from.read_to_end(&mut plain).unwrap();
        }
        None => plain.clone_from(&heard.body),
        Some(other) => panic!("{other}"),
    }
    plain
}

fn client(server: &Server) -> Client {
    let profile = Profile {
        gzip: true,
        binary: Binary::Yes,
        ..server.profile()
    };
    Client::new(&profile, Secrets::given([])).unwrap()
}

fn was_compressed(server: &Server) -> Vec<bool> {
    let heard = server.heard();
    let all = heard.iter().map(|h| h.header("content-encoding").is_some());
    all.collect()
}

#[test]
fn a_line_that_was_fast_before_gets_no_compression() {
    let server = Server::plain(|_, heard, wire| {
        let plain = unpacked(heard);
        answer(wire, json_of(heard, &plain))
    });
    let values = [7; 1000];
    for (rate, compressed) in [(None, true), (Some(39e6), true), (Some(41e6), false)] {
        let client = client(&server);
        if let Some(rate) = rate {
            client.expect_rate(rate);
        }
        client.infer(&request(&values), &Task::new()).unwrap();
        assert_eq!(
            was_compressed(&server).last(),
            Some(&compressed),
            "{rate:?}"
        );
    }
}

#[test]
fn a_server_that_refuses_compression_is_asked_without_and_remembered() {
    for status in [
        "415 Unsupported Media Type",
        "501 Not Implemented",
        "400 Bad Request",
        "500 Internal Server Error",
    ] {
        let server = Server::plain(move |_, heard, wire| {
            if heard.header("content-encoding").is_some() {
                return reply(wire, status, &[], b"{\"error\":\"no gzip\"}");
            }
            answer(wire, json_of(heard, &heard.body))
        });
        let client = client(&server);
        for _ in 0..2 {
            client.infer(&request(&[1; 100]), &Task::new()).unwrap();
        }
        // A failure of the server's own is tried once more before it is laid to the compression.
        let tries = if status.starts_with("500") { 2 } else { 1 };
        let asked = was_compressed(&server);
        assert_eq!(asked[..tries], vec![true; tries], "{status}");
        assert_eq!(asked[tries..], [false, false], "{status}");
    }
    // A refusal for another reason is told as it is, and not remembered as this one.
    let server = Server::plain(|_, _, wire| reply(wire, "400 Bad Request", &[], b"{}"));
    let client = client(&server);
    for _ in 0..2 {
        assert!(client.infer(&request(&[1; 100]), &Task::new()).is_err());
    }
    assert_eq!(was_compressed(&server), [true, false, true, false]);
}

#[test]
fn a_slow_line_is_measured_and_compressed_from_then_on() {
    let server = Server::slow(|_, heard, wire| {
        let plain = unpacked(heard);
        answer(wire, json_of(heard, &plain))
    });
    // Nothing that compresses well: as many bytes go in both forms.
    let mut state = 1_u64;
    let values: Vec<u8> = (0..24 << 20)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect();
    let client = client(&server);
    client.expect_rate(1e9);
    for _ in 0..2 {
        client.infer(&request(&values), &Task::new()).unwrap();
    }
    assert_eq!(was_compressed(&server), [false, true]);
}
