//! The real servers of the Python world, each with its own reading of the protocol, and Triton: asked
//! by the client in every form, and by the real program. Runs where `NEGATOSCOPE_SERVERS` names the
//! folder that `tests/servers/install.sh` has filled; what is not in it is skipped by name.

use std::collections::BTreeMap;

use negatoscope::model::{Layer, PackageFiles, Registry, VerifiedPackage, sha256_hex};
use negatoscope::offload::protocol::IndexEntry;
use negatoscope::offload::{Binary, Client, Error, InferAnswer, Profile, Secrets};
use negatoscope::task::Task;
use safetensors::tensor::{Dtype, TensorView};

use crate::cli::Place;
use crate::engine::package;
use crate::offload_started::{Started, above_zero, installed, request, voxels};
use crate::remote::mask;

/// What a server may have beyond the protocol's core.
#[derive(PartialEq)]
enum Has {
    /// Says that it takes tensors as bytes.
    AnnouncedBytes,
    /// Takes them, said or not.
    Bytes,
    Versions,
    /// Its answers name the model's version.
    VersionInAnswers,
    Index,
}

/// How a server reads the protocol.
struct Reading {
    name: &'static str,
    /// What it calls itself.
    calls_itself: &'static str,
    has: &'static [Has],
}

const MLSERVER: Reading = Reading {
    name: "mlserver",
    calls_itself: "mlserver",
    has: &[Has::Versions, Has::VersionInAnswers, Has::Index],
};

const KSERVE: Reading = Reading {
    name: "kserve",
    calls_itself: "kserve",
    has: &[Has::Bytes],
};

const RAYSERVE: Reading = Reading {
    name: "rayserve",
    calls_itself: "ray",
    has: &[
        Has::AnnouncedBytes,
        Has::Bytes,
        Has::Versions,
        Has::VersionInAnswers,
    ],
};

const SHAPE: [u64; 3] = [20, 30, 40];

fn client(profile: &Profile) -> Client {
    Client::new(profile, Secrets::of_environment()).unwrap()
}

/// Status and words of a refusal.
fn refusal(said: Result<InferAnswer, Error>) -> (u16, String) {
    match said {
        Err(Error::Status {
            status, message, ..
        }) => (status, message),
        other => panic!("{other:?}"),
    }
}

/// Everything that the client says to a server, and what it must make of the answers.
fn asked_in_every_form(server: &Started, reading: &Reading) {
    let task = Task::new();
    let has = |what: &Has| reading.has.contains(what);
    let plain = server.profile(reading.name);
    let asks = client(&plain);
    assert!(asks.live(&task).unwrap() && asks.ready(&task).unwrap());
    let about = asks.metadata(&task).unwrap();
    assert_eq!(about.name, reading.calls_itself);
    assert_eq!(about.announces_binary(), has(&Has::AnnouncedBytes));
    let model = asks.model_metadata("threshold", None, &task).unwrap();
    assert_eq!(model.inputs[0].name, "image");
    assert_eq!(model.inputs[0].datatype, "INT16");
    assert_eq!(model.outputs[0].datatype, "UINT8");
    assert_eq!(model.outputs[0].shape, [-1, -1, -1]);
    let index = asks.index(&task).unwrap();
    assert_eq!(index.is_some(), has(&Has::Index));
    let is_ready = |m: &IndexEntry| m.name == "threshold" && m.state == "READY";
    assert!(index.is_none_or(|models| models.iter().any(is_ready)));

    let values = voxels(24_000);
    let local = above_zero(&values);
    for (binary, gzip) in [
        (Binary::Probe, false),
        (Binary::No, false),
        // Who takes no gzip is asked again without it.
        (Binary::No, true),
        (Binary::Yes, false),
        (Binary::Yes, true),
    ] {
        let profile = Profile {
            binary,
            gzip,
            ..plain.clone()
        };
        let said = client(&profile).infer(&request(&values, &SHAPE), &task);
        if binary == Binary::Yes && !has(&Has::Bytes) {
            assert!(matches!(said, Err(Error::Status { .. })), "{said:?}");
            continue;
        }
        let answer = said.unwrap_or_else(|error| panic!("{binary:?} {gzip}: {error}"));
        assert_eq!(answer.outputs[0].data, local, "{binary:?} {gzip}");
        assert_eq!(answer.model_version.is_some(), has(&Has::VersionInAnswers));
    }

    // A version that is there, and one that is not.
    let mut asked = request(&values, &SHAPE);
    asked.version = Some("1".to_owned());
    let said = asks.infer(&asked, &task);
    if has(&Has::Versions) {
        assert_eq!(said.unwrap().outputs[0].data, local);
        assert!(asks.model_ready("threshold", Some("1"), &task).unwrap());
        assert!(!asks.model_ready("threshold", Some("7"), &task).unwrap());
    } else {
        assert_eq!(refusal(said).0, 501);
    }
    asked.version = Some("7".to_owned());
    let (status, words) = refusal(asks.infer(&asked, &task));
    assert!((400..=501).contains(&status) && !words.is_empty());
    // A model that is not there.
    assert!(!asks.model_ready("nothing", None, &task).unwrap());
    let mut asked = request(&values, &SHAPE);
    "nothing".clone_into(&mut asked.model);
    let (status, words) = refusal(asks.infer(&asked, &task));
    assert!((400..500).contains(&status), "{status} {words}");
    assert!(asks.model_metadata("nothing", None, &task).is_err());
    // A tensor of another shape than the answer must have: refused there, or found here.
    let mut asked = request(&values, &SHAPE);
    asked.inputs[0].shape = vec![600, 40];
    let error = asks.infer(&asked, &task).unwrap_err();
    assert!(
        matches!(error, Error::Status { .. } | Error::Answer(_)),
        "{error}"
    );
}

/// The model `half` as a package of this machine: one if the value is above a half.
fn half() -> VerifiedPackage {
    let values: BTreeMap<&str, (Vec<usize>, Vec<f32>)> = [
        ("c.weight", (vec![2, 1, 1, 1, 1], vec![0.0, 1.0])),
        ("c.bias", (vec![2], vec![0.0, -0.5])),
    ]
    .into();
    let views = values.iter().map(|(name, (shape, values))| {
        let bytes = bytemuck::cast_slice(values);
        (
            *name,
            TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
        )
    });
    let weights = safetensors::serialize(views, None).unwrap();
    let sum = sha256_hex(&weights);
    let files = package(|manifest, _| {
        "half".clone_into(&mut manifest.id);
        manifest.weights_sha256 = sum;
        manifest.network.layers = vec![Layer::Conv3d {
            weight: "c.weight".to_owned(),
            bias: Some("c.bias".to_owned()),
            input: 1,
            output: 2,
            kernel: 1,
            dilation: 1,
        }];
    });
    VerifiedPackage::verify(PackageFiles { weights, ..files }).unwrap()
}

/// The real program: the endpoint is added and tested, and a study's mask is that of this machine.
fn the_program_gets_the_mask_of_this_machine(server: &Started, more: &[&str]) {
    let place = Place::new().with_study();
    Registry::new(place.path("home/models"))
        .install(&half(), false)
        .unwrap();
    let url = format!("http://127.0.0.1:{}", server.port);
    let add = ["endpoints", "add", "ward", "--url", &url];
    let add = [&add[..], &["--allow-insecure-loopback"], more].concat();
    place.run(&add).ends_with(0);
    let told = place.run(&["endpoints", "test", "ward"]).ends_with(0).out;
    assert!(told.contains("ready"), "{told}");
    let analyze = |out: &str, more: &[&str]| {
        let arguments = ["analyze", "study", "--model", "half", "--format", "nifti"];
        place
            .run(&[&arguments[..], &["--out", out], more].concat())
            .ends_with(0);
        mask(&place.path(out))
    };
    let here = analyze("here", &[]);
    let there = analyze("there", &["--remote", "ward", "--yes"]);
    let ones: usize = here.iter().map(|label| usize::from(*label == 1)).sum();
    assert!(
        ones > 1000 && ones < here.len() - 1000,
        "nothing to compare"
    );
    assert!(here == there);
    let told = place.run(&["queue", "list"]).ends_with(0).out;
    assert!(told.contains("done"), "{told}");
}

fn check(reading: &Reading, forms: &[&[&str]]) {
    let Some(place) = installed(reading.name) else {
        return;
    };
    let server = Started::model_server(reading.name, &place);
    asked_in_every_form(&server, reading);
    for more in forms {
        the_program_gets_the_mask_of_this_machine(&server, more);
    }
}

#[test]
fn mlserver_is_spoken_to_in_json() {
    check(&MLSERVER, &[&[], &["--gzip"]]);
}

#[test]
fn kserve_takes_bytes_where_a_person_says_so() {
    check(&KSERVE, &[&[], &["--binary", "yes"]]);
}

#[test]
fn ray_serve_is_spoken_to_in_bytes() {
    check(&RAYSERVE, &[&[]]);
}

#[test]
fn triton_is_driven_by_the_program() {
    let Some(place) = installed("triton") else {
        return;
    };
    let server = Started::model_server("triton", &place);
    the_program_gets_the_mask_of_this_machine(&server, &["--gzip"]);
}
