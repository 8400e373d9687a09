//! Servers that a cloud runs, by local servers that behave as the clouds' documents say: who is let in, which
//! headers and paths there are, what is too large, how a model's failure looks; and the real program
//! with the same masks as here.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::slice;
use std::sync::Arc;

use negatoscope::import;
use negatoscope::model::Registry;
use negatoscope::offload::{
    Authorization, Client, Datatype, Endpoints, Error, InferRequest, InputTensor, Profile,
    SecretPlace, Secrets, Service, WantedOutput, random_id,
};
use negatoscope::task::Task;
use ring::{digest, hmac};
use rustls::version::TLS13;

use crate::cascade;
use crate::cli::Place;
use crate::elsewhere::local_layers;
use crate::offload_server::{Authority, Heard, Server, Then, Wire, reply};
use crate::remote::{Fault, Served, about, infer, masks_are_equal};

/// A connection that keeps what is written.
struct Kept(Vec<u8>);

impl Read for Kept {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Ok(0)
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

const AWS: &str = "application/vnd.sagemaker-triton.binary+json;json-header-size=";
const VERTEX: &str = "application/vnd.vertex-ai-triton.binary+json;json-header-size=";

/// Triton behind an envelope: the JSON's length stands in the content type, both ways.
fn enveloped(
    model: &Served,
    heard: &Heard,
    wire: &mut dyn Wire,
    kind: &str,
) -> std::io::Result<Then> {
    let length = heard
        .header("content-type")
        .unwrap()
        .strip_prefix(kind)
        .unwrap();
    let inner = Heard {
        headers: vec![(
            "Inference-Header-Content-Length".to_owned(),
            length.to_owned(),
        )],
        ..heard.clone()
    };
    let mut kept = Kept(Vec::new());
    infer(model, &inner, &mut kept, Fault::None)?;
    let end = kept.0.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(kept.0[..end].to_vec()).unwrap();
    let json = head
        .lines()
        .find_map(|l| l.strip_prefix("Inference-Header-Content-Length: "));
    let kind = format!("{kind}{}", json.unwrap());
    reply(
        wire,
        "200 OK",
        &[("Content-Type", &kind)],
        &kept.0[end + 4..],
    )
}

/// The signature that a request should have, from its own words: AWS's recipe step by step, for one
/// form of request.
fn signature(heard: &Heard, region: &str, secret: &str) -> (String, String) {
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    let sha = |bytes: &[u8]| hex(digest::digest(&digest::SHA256, bytes).as_ref());
    let mac = |key: &[u8], text: &str| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
            .as_ref()
            .to_vec()
    };
    let header = |name: &str| heard.header(name).unwrap().to_owned();
    let date = header("x-amz-date");
    let day = &date[..8];
    let mut names = vec!["content-type", "host", "x-amz-date"];
    names.extend(
        heard
            .header("x-amz-security-token")
            .map(|_| "x-amz-security-token"),
    );
    let mut lines = String::new();
    for name in &names {
        let _ = writeln!(lines, "{name}:{}", header(name));
    }
    let names = names.join(";");
    let canonical = format!(
        "POST\n{}\n\n{lines}\n{names}\n{}",
        heard.path,
        sha(&heard.body)
    );
    let scope = format!("{day}/{region}/sagemaker/aws4_request");
    let text = format!(
        "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
        sha(canonical.as_bytes())
    );
    let day_key = mac(format!("AWS4{secret}").as_bytes(), day);
    let service_key = mac(&mac(&day_key, region), "sagemaker");
    let signed = hex(&mac(&mac(&service_key, "aws4_request"), &text));
    (
        format!(
            "AWS4-HMAC-SHA256 Credential=AKIDTEST/{scope}, SignedHeaders={names}, Signature={signed}"
        ),
        date,
    )
}

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// `InvokeEndpoint` of one endpoint with Triton's container.
fn sagemaker(tls: Option<rustls::ServerConfig>) -> Server {
    let model = Served::small();
    let answer = move |_: usize, heard: &Heard, wire: &mut dyn Wire| {
        let error = |wire: &mut dyn Wire, status: &str, message: &str| {
            reply(
                wire,
                status,
                &[],
                format!("{{\"message\":\"{message}\"}}").as_bytes(),
            )
        };
        if heard.header("authorization").is_none() {
            return error(wire, "403 Forbidden", "Missing Authentication Token");
        }
        let (expected, _) = signature(heard, "eu-central-1", SECRET);
        if heard.header("authorization") != Some(&expected) {
            return error(
                wire,
                "403 Forbidden",
                "The request signature does not match",
            );
        }
        if heard.path != "/endpoints/small/invocations" || heard.method != "POST" {
            return error(wire, "400 Bad Request", "Endpoint not found");
        }
        if heard.body.len() > 6_291_456 {
            return error(
                wire,
                "413 Payload Too Large",
                "Received a body that is too large",
            );
        }
        // Headers that the API does not name are stripped; the model sees the body and its type.
        let kind = heard.header("content-type").unwrap_or_default();
        let Some(length) = kind.strip_prefix(AWS) else {
            return error(wire, "424 Failed Dependency", "no json-header-size");
        };
        let json = &heard.body[..length.parse().unwrap()];
        if json.windows(6).any(|w| w == b"broken") {
            let told = br#"{"Message":"Received client error (400) from primary","OriginalStatusCode":400,"OriginalMessage":"{\"error\":\"unexpected input\"}"}"#;
            return reply(wire, "424 Failed Dependency", &[], told);
        }
        enveloped(&model, heard, wire, AWS)
    };
    match tls {
        Some(config) => Server::encrypted(config, answer),
        None => Server::plain(answer),
    }
}

const ADD: [&str; 14] = [
    "endpoints",
    "add",
    "cloud",
    "--kind",
    "sagemaker",
    "--region",
    "eu-central-1",
    "--model",
    "small",
    "--input",
    "image:FP32:-1,-1,-1",
    "--output",
    "mask:UINT8:-1,-1,-1",
    "--url",
];

fn keys() -> Secrets {
    Secrets::given([
        ("AWS_ACCESS_KEY_ID", "AKIDTEST"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_SESSION_TOKEN", "SESSION/token=="),
    ])
}

/// The profile that the command line makes of these words.
fn added(place: &Place, words: &[&str]) -> Profile {
    place.run(words).ends_with(0);
    let endpoints = Endpoints::load(&place.path("home")).unwrap();
    endpoints.find("cloud").unwrap().clone()
}

fn request<'a>(name: &str, values: &'a [f32]) -> InferRequest<'a> {
    let shape = [16, 16, 16];
    InferRequest {
        model: "small".to_owned(),
        version: None,
        id: random_id(),
        inputs: vec![InputTensor::new(name, Datatype::Fp32, &shape, values)],
        outputs: vec![WantedOutput::new("mask", Datatype::Uint8, &shape)],
    }
}

#[test]
fn sagemaker_lets_in_who_signs_and_its_limits_and_failures_are_told() {
    let server = sagemaker(None);
    let place = Place::new();
    let url = format!("{}/endpoints/small/invocations", server.url());
    let profile = added(
        &place,
        &[&ADD[..], &[&url, "--allow-insecure-loopback"]].concat(),
    );
    assert_eq!(
        (profile.max_request_bytes, profile.deadline_secs),
        (6 << 20, 70)
    );
    let values: Vec<f32> = (0..4096).map(|n| (n % 97) as f32).collect();
    let task = Task::new();
    let ask = |profile: &Profile, secrets: Secrets, name: &str| {
        let client = Client::new(profile, secrets).unwrap();
        client.infer(&request(name, &values), &task)
    };
    let answer = ask(&profile, keys(), "image").unwrap();
    assert_eq!(answer.outputs[0].data.len(), 4096);
    let heard = server.heard().pop().unwrap();
    assert_eq!(
        heard.header("x-amz-security-token"),
        Some("SESSION/token==")
    );
    // Long-lived keys have no token.
    let two = Secrets::given([
        ("AWS_ACCESS_KEY_ID", "AKIDTEST"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
    ]);
    ask(&profile, two, "image").unwrap();
    assert_eq!(
        server.heard().pop().unwrap().header("x-amz-security-token"),
        None
    );
    let told = |error: Error| match error {
        Error::Status {
            status, message, ..
        } => (status, message),
        other => panic!("{other}"),
    };
    let wrong = Secrets::given([
        ("AWS_ACCESS_KEY_ID", "AKIDTEST"),
        ("AWS_SECRET_ACCESS_KEY", "another"),
    ]);
    let (status, message) = told(ask(&profile, wrong, "image").unwrap_err());
    assert_eq!(status, 403);
    assert!(message.contains("does not match") && !message.contains("another"));
    let (status, message) = told(ask(&profile, keys(), "broken").unwrap_err());
    assert_eq!(status, 424);
    assert!(message.contains("unexpected input"), "{message}");
    // A signature holds for one region.
    let mut elsewhere = profile.clone();
    if let Authorization::AwsSignature { region, .. } = &mut elsewhere.authorization {
        *region = "eu-west-1".to_owned();
    }
    assert_eq!(told(ask(&elsewhere, keys(), "image").unwrap_err()).0, 403);
    let missing = ask(&profile, Secrets::given([]), "image").unwrap_err();
    assert!(matches!(missing, Error::Secret { .. }), "{missing}");
    // The limit is known here before anything goes, and the service has one of its own.
    let small = Profile {
        max_request_bytes: 1000,
        ..profile.clone()
    };
    let error = ask(&small, keys(), "image").unwrap_err();
    assert!(matches!(error, Error::RequestTooLarge { .. }), "{error}");
    let client = Client::new(&profile, keys()).unwrap();
    assert!(matches!(client.ready(&task), Err(Error::NotOffered(_))));
    assert_eq!(
        client
            .model_metadata("small", None, &task)
            .unwrap()
            .inputs
            .len(),
        1
    );
    // The clock is part of what is signed.
    let client = Client::new(&profile, keys())
        .unwrap()
        .with_clock(|| "2015-08-30T12:36:00Z".parse().unwrap());
    client.infer(&request("image", &values), &task).unwrap();
    let heard = server.heard().pop().unwrap();
    assert_eq!(heard.header("x-amz-date"), Some("20150830T123600Z"));
}

#[test]
fn names_make_the_addresses_that_the_clouds_document() {
    let place = Place::new();
    let aws = [&ADD[..13], &["--endpoint-name", "liver-ct"]].concat();
    assert_eq!(
        added(&place, &aws).url,
        "https://runtime.sagemaker.eu-central-1.amazonaws.com/endpoints/liver-ct/invocations"
    );
    let place = Place::new();
    let vertex = [
        "endpoints",
        "add",
        "cloud",
        "--kind",
        "vertex-ai",
        "--region",
        "europe-west4",
        "--project",
        "ward-7",
        "--endpoint-name",
        "4711",
        "--token-env",
        "TOKEN",
    ];
    let profile = added(&place, &vertex);
    assert_eq!(
        profile.url,
        "https://europe-west4-aiplatform.googleapis.com/v1/projects/ward-7/locations/europe-west4/endpoints/4711:rawPredict"
    );
    assert_eq!(
        (profile.max_request_bytes, profile.deadline_secs),
        (1_500_000, 60)
    );
    // What cannot be used is not added.
    for wrong in [
        &ADD[..9],
        &["endpoints", "add", "cloud", "--kind", "azure-ml"],
        &[
            "endpoints",
            "add",
            "cloud",
            "--kind",
            "vertex-ai",
            "--region",
            "r",
            "--endpoint-name",
            "1",
        ],
    ] {
        let code = Place::new().run(wrong).code.unwrap();
        assert!([1, 2].contains(&code), "{wrong:?}");
    }
}

#[test]
fn vertex_is_asked_through_one_address_with_a_token() {
    let model = Served::small();
    const PATH: &str = "/v1/projects/p/locations/l/endpoints/1:rawPredict";
    let server = Server::plain(move |_, heard, wire| {
        let error = |wire: &mut dyn Wire, status: &str, message: &str| {
            let text = format!("{{\"error\":{{\"code\":1,\"message\":\"{message}\"}}}}");
            reply(wire, status, &[], text.as_bytes())
        };
        if heard.header("authorization") != Some("Bearer ya29.token") {
            return error(wire, "401 Unauthorized", "Request had invalid credentials");
        }
        if heard.path != PATH || heard.method != "POST" {
            return error(wire, "404 Not Found", "not found");
        }
        if heard.body.len() > 1_500_000 {
            return error(wire, "413 Payload Too Large", "exceeds 1.50MB limit");
        }
        match heard.header("x-vertex-ai-triton-redirect") {
            Some("v2/models/small/infer") => enveloped(&model, heard, wire, VERTEX),
            Some("v2/health/ready") => reply(wire, "200 OK", &[], b""),
            Some(path) => about(slice::from_ref(&model), &format!("/{path}"), wire),
            None => error(wire, "400 Bad Request", "no default model"),
        }
    });
    let profile = Profile {
        service: Service::VertexAi,
        authorization: Authorization::Bearer {
            secret: SecretPlace::environment("TOKEN"),
        },
        url: format!("{}{PATH}", server.url()),
        max_request_bytes: 1_500_000,
        ..server.profile()
    };
    let token = || Secrets::given([("TOKEN", "ya29.token")]);
    let client = Client::new(&profile, token()).unwrap();
    let task = Task::new();
    assert!(client.ready(&task).unwrap());
    assert_eq!(client.metadata(&task).unwrap().name, "ward");
    let told = client.model_metadata("small", None, &task).unwrap();
    assert_eq!(told.inputs[0].datatype, "FP32");
    let values: Vec<f32> = (0..4096).map(|n| (n % 97) as f32).collect();
    let answer = client.infer(&request("image", &values), &task).unwrap();
    assert_eq!(answer.outputs[0].data.len(), 4096);
    let stranger = Client::new(&profile, Secrets::given([("TOKEN", "other")])).unwrap();
    match stranger.metadata(&task).unwrap_err() {
        Error::Status {
            status: 401,
            message,
            ..
        } => assert!(message.contains("invalid credentials"), "{message}"),
        other => panic!("{other}"),
    }
}

#[test]
fn azure_is_asked_below_its_scoring_address_for_one_deployment() {
    let model = Served::small();
    let server = Server::plain(move |_, heard, wire| {
        if heard.header("authorization") != Some("Bearer azure-key") {
            return reply(wire, "401 Unauthorized", &[], b"key_auth_bad_header_format");
        }
        if heard.header("azureml-model-deployment") != Some("blue") {
            return reply(
                wire,
                "404 Not Found",
                &[],
                b"Specified deployment could not be found",
            );
        }
        match heard.path.as_str() {
            "/v2/models/small/infer" => infer(&model, heard, wire, Fault::None),
            "/v2/models/broken/infer" => {
                let headers = [("ms-azureml-model-error-statuscode", "500")];
                reply(wire, "424 Failed Dependency", &headers, b"model error")
            }
            path => about(slice::from_ref(&model), path, wire),
        }
    });
    let profile = |deployment: &str| Profile {
        service: Service::AzureMl {
            deployment: deployment.to_owned(),
        },
        authorization: Authorization::Bearer {
            secret: SecretPlace::environment("KEY"),
        },
        ..server.profile()
    };
    let client = |deployment: &str| {
        Client::new(&profile(deployment), Secrets::given([("KEY", "azure-key")])).unwrap()
    };
    let task = Task::new();
    let values: Vec<f32> = (0..4096).map(|n| (n % 97) as f32).collect();
    let answer = client("blue")
        .infer(&request("image", &values), &task)
        .unwrap();
    assert_eq!(answer.outputs[0].data.len(), 4096);
    let status =
        |result: Result<_, Error>| match result.map(|_: negatoscope::offload::InferAnswer| ()) {
            Err(Error::Status { status, .. }) => status,
            other => panic!("{other:?}"),
        };
    assert_eq!(
        status(client("green").infer(&request("image", &values), &task)),
        404
    );
    let mut broken = request("image", &values);
    broken.model = "broken".to_owned();
    assert_eq!(status(client("blue").infer(&broken, &task)), 424);
}

/// The whole program, over TLS, with keys from the environment as AWS's own tools have them.
#[test]
fn a_study_goes_through_sagemaker_with_the_mask_from_here() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "cloud");
    let config = authority.issue(|_| {}).config(&[&TLS13], None);
    let server = Arc::new(sagemaker(Some(config)));
    let place = Place::new().with_study();
    std::fs::create_dir_all(place.path("home")).unwrap();
    Registry::new(place.path("home").join("models"))
        .install(&local_layers(), false)
        .unwrap();
    let url = format!("{}/endpoints/small/invocations", server.url());
    let ca = authority.file.to_str().unwrap();
    added(&place, &[&ADD[..], &[&url, "--ca", ca]].concat());
    let arguments = [
        "analyze", "study", "--model", "small", "--out", "there", "--remote", "cloud", "--yes",
    ];
    let ran = place
        .command(&arguments)
        .env("AWS_ACCESS_KEY_ID", "AKIDTEST")
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
        .env_remove("AWS_SESSION_TOKEN")
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{words}");
    assert!(words.contains("not seen yet"), "{words}");
    masks_are_equal(&place);
    for file in walkdir::WalkDir::new(place.path("home")) {
        let bytes = std::fs::read(file.unwrap().path()).unwrap_or_default();
        assert!(!bytes.windows(SECRET.len()).any(|w| w == SECRET.as_bytes()));
    }
}

/// Every request goes to the same address, and would be answered by the same model.
#[test]
fn a_cascade_is_refused_by_a_service_with_one_model() {
    let server = sagemaker(None);
    let place = Place::new().with_study();
    let folder = place.path("results");
    let package = import::read(&cascade::results(&folder, true))
        .unwrap()
        .remove(0);
    let registry = Registry::new(place.path("home").join("models"));
    std::fs::create_dir_all(place.path("home")).unwrap();
    registry.install(&package, false).unwrap();
    let url = format!("{}/endpoints/small/invocations", server.url());
    added(
        &place,
        &[&ADD[..], &[&url, "--allow-insecure-loopback"]].concat(),
    );
    let key = package.manifest().key();
    let arguments = [
        "analyze", "study", "--model", &key, "--out", "there", "--remote", "cloud", "--yes",
    ];
    let ran = place.run(&arguments).ends_with(1);
    assert!(ran.err.contains("has one model"), "{}", ran.err);
    assert!(ran.err.contains("several networks"), "{}", ran.err);
    assert!(server.heard().is_empty());
}
