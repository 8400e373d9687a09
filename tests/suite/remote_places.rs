//! Where a run goes and what it may cost, by the real program: choices from measured runs, limits that
//! hold before anything is sent, the person's policy, this machine in place of a server, and one
//! version of a model for one job.

use std::fs;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use negatoscope::offload::{Endpoints, Price, Profile};
use serde_json::{Value, json};

use crate::cli::Place;
use crate::remote::{Fault, ModelServer, SLICE, jobs, masks_are_equal, place, remote};

fn policy(place: &Place, text: &str) {
    fs::write(place.path("home/places.toml"), text).unwrap();
}

/// The endpoint with other settings.
fn change(place: &Place, server: &ModelServer, change: impl FnOnce(&mut Profile)) {
    let home = place.path("home");
    Endpoints::remove(&home, "ward").unwrap();
    let mut profile = server.profile.clone();
    change(&mut profile);
    Endpoints::add(&home, profile).unwrap();
}

fn euros(per_request: f64) -> Price {
    Price {
        currency: "EUR".to_owned(),
        per_request,
        ..Price::default()
    }
}

fn choices(place: &Place) -> Vec<Value> {
    let told = place.run(&["analyze", "study", "--model", "small", "--where", "--json"]);
    let told = told.ends_with(0).json();
    assert_eq!(told["models"][0]["series"], 1);
    told["models"][0]["places"].as_array().unwrap().clone()
}

fn infers(server: &ModelServer) -> usize {
    server.infers.load(Ordering::SeqCst)
}

/// What the count of the day says.
fn spent(place: &Place) -> (u64, u64, f64) {
    let text = fs::read(place.path("home/places/spent.json")).unwrap();
    let count: Value = serde_json::from_slice(&text).unwrap();
    let days = count["days"].as_array().unwrap();
    let [day] = days.as_slice() else {
        panic!("{count}")
    };
    let number = |key: &str| day[key].as_u64().unwrap();
    (
        number("requests"),
        number("bytes"),
        day["cost"].as_f64().unwrap(),
    )
}

#[test]
fn choices_come_from_the_plan_first_and_then_from_measured_runs() {
    let server = ModelServer::new(64 << 20);
    let place = place(&server);
    change(&place, &server, |p| p.price = euros(0.25));
    let rows = choices(&place);
    let (here, there) = (&rows[0], &rows[1]);
    assert_eq!(
        (&here["endpoint"], &here["runs"]),
        (&json!(null), &json!(0))
    );
    assert!(here["seconds"].as_f64().unwrap() > 0.0);
    assert!(here["needed_bytes"].as_u64().unwrap() > 40 * SLICE);
    assert_eq!(here["chosen"], true);
    assert_eq!(
        (&there["endpoint"], &there["seconds"]),
        (&json!("ward"), &json!(null))
    );
    assert!(there["sent_bytes"].as_u64().unwrap() >= 40 * SLICE);
    assert_eq!(there["price"], 0.25 * there["requests"].as_f64().unwrap());
    // Nobody was asked.
    assert_eq!(server.server.heard().len(), 0);
    let told = place.run(&["analyze", "study", "--model", "small", "--where"]);
    let told = told.ends_with(0).out;
    assert!(
        told.contains("not measured yet") && told.contains("this machine"),
        "{told}"
    );

    let local = [
        "analyze", "study", "--model", "small", "--out", "a", "--format", "csv",
    ];
    place.run(&local).ends_with(0);
    remote(&place, &["--yes"]).ends_with(0);
    let rows = choices(&place);
    let (here, there) = (&rows[0], &rows[1]);
    assert_eq!((&here["runs"], &there["runs"]), (&json!(1), &json!(1)));
    // What was heard is what is expected of the next run of the same study.
    let heard: usize = server.bodies().iter().map(Vec::len).sum();
    let sent = there["sent_bytes"].as_u64().unwrap();
    assert!(
        (heard as u64..heard as u64 + 4096).contains(&sent),
        "{sent} {heard}"
    );
    assert!(there["seconds"].as_f64().unwrap() > 0.0);
    let text = fs::read_to_string(place.path("home/places/runs.jsonl")).unwrap();
    assert_eq!(text.lines().count(), 2);
    for word in ["Secretname", "SECRET", "study", "2.25."] {
        assert!(!text.contains(word), "{text}");
    }
}

#[test]
fn limits_hold_before_anything_is_sent_and_what_was_spent_is_counted() {
    // 13 slices at once: six requests.
    let server = ModelServer::new(13 * SLICE + (64 << 10));
    let place = place(&server);
    change(&place, &server, |p| p.price = euros(0.25));
    for (limits, setting) in [
        (
            "currency = 'EUR'\nprice_per_job = 1.49",
            "limits.price_per_job",
        ),
        (
            "currency = 'EUR'\nprice_per_day = 1.49",
            "limits.price_per_day",
        ),
        ("bytes_per_day = 1000000", "limits.bytes_per_day"),
        (
            "currency = 'USD'\nprice_per_job = 100",
            "the limits in \"USD\"",
        ),
    ] {
        policy(&place, &format!("[limits]\n{limits}\n"));
        let ran = remote(&place, &["--yes"]).ends_with(1);
        assert!(ran.err.contains(setting), "{}", ran.err);
        assert_eq!(infers(&server), 0);
        // The same is known before anybody asks for a run.
        let refused = choices(&place)[1]["refused"].to_string();
        assert!(refused.contains(&setting.replace('"', "\\\"")), "{refused}");
    }
    policy(
        &place,
        "[limits]\ncurrency = 'EUR'\nprice_per_job = 1.5\nprice_per_day = 2\n",
    );
    remote(&place, &["--yes"]).ends_with(0);
    assert_eq!(infers(&server), 6);
    let (requests, bytes, cost) = spent(&place);
    assert_eq!((requests, cost), (6, 1.5));
    let sent: usize = server.bodies().iter().map(Vec::len).sum();
    // Bodies, and answers: a byte for each value of four, and heads.
    let expected = sent as u64 * 5 / 4;
    assert!(
        (expected..expected + 10_000).contains(&bytes),
        "{bytes} {expected}"
    );
    // The rest of the day is too little for another.
    let again = [
        "analyze", "study", "--model", "small", "--out", "b", "--remote", "ward", "--yes",
    ];
    let ran = place.run(&again).ends_with(1);
    assert!(ran.err.contains("limits.price_per_day"), "{}", ran.err);
    assert_eq!(infers(&server), 6);
}

#[test]
fn a_kill_does_not_make_spent_money_forgotten() {
    let server = ModelServer::new(13 * SLICE + (64 << 10));
    let place = place(&server);
    change(&place, &server, |p| p.price = euros(0.25));
    policy(&place, "[limits]\ncurrency = 'EUR'\nprice_per_job = 1.5\n");
    server.goes_wrong(3, Fault::Silence);
    let begin = [
        "analyze", "study", "--model", "small", "--out", "there", "--remote", "ward", "--yes",
    ];
    let mut child = place.command(&begin).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while infers(&server) < 4 {
        assert!(start.elapsed() < Duration::from_mins(2), "it never came");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(spent(&place).0, 4);
    assert_eq!(spent(&place).2, 1.0);
    // Three are left, and the limit leaves room for two: it stops there, and waits.
    server.goes_wrong(usize::MAX, Fault::None);
    let ran = place.run(&["queue", "resume", "--yes"]).ends_with(1);
    assert!(ran.err.contains("limits.price_per_job"), "{}", ran.err);
    assert_eq!((spent(&place).0, infers(&server)), (6, 6));
    assert_eq!(jobs(&place)[0]["state"], "waiting");
    policy(&place, "[limits]\ncurrency = 'EUR'\nprice_per_job = 1.75\n");
    place.run(&["queue", "resume", "--yes"]).ends_with(0);
    assert_eq!(infers(&server), 7);
}

#[test]
fn what_may_not_leave_stays() {
    let server = ModelServer::new(64 << 20);
    let place = place(&server);
    policy(&place, "modalities = ['CT', 'CR']\n");
    let ran = remote(&place, &["--yes"]).ends_with(1);
    assert!(ran.err.contains("MR may not leave"), "{}", ran.err);
    assert_eq!(infers(&server), 0);
    policy(&place, "modalities = ['MR']\n");
    remote(&place, &["--yes"]).ends_with(0);
    // A policy that is not understood is none that could be kept.
    policy(&place, "modality = ['MR']\n");
    let ran = remote(&place, &["--yes"]).ends_with(1);
    assert!(ran.err.contains("places.toml"), "{}", ran.err);
    assert_eq!(infers(&server), 1);
}

#[test]
fn auto_goes_where_the_policy_says() {
    let server = ModelServer::new(64 << 20);
    let place = place(&server);
    let auto = |out: &str| {
        place.run(&[
            "analyze", "study", "--model", "small", "--out", out, "--remote", "auto", "--yes",
        ])
    };
    let ran = auto("a").ends_with(0);
    assert!(ran.err.contains("takes this machine"), "{}", ran.err);
    assert_eq!(infers(&server), 0);
    policy(&place, "prefer = 'remote'\n");
    let ran = auto("b").ends_with(0);
    assert!(ran.err.contains("takes ward"), "{}", ran.err);
    assert_eq!(infers(&server), 1);
    // Cheapest: what costs nothing.
    change(&place, &server, |p| p.price = euros(0.1));
    policy(&place, "prefer = 'cheapest'\n");
    auto("c").ends_with(0);
    assert_eq!(infers(&server), 1);
}

/// What the results say of where they were made.
fn devices(place: &Place) -> Vec<String> {
    let files = walkdir::WalkDir::new(place.path("there")).into_iter();
    let files = files.map(Result::unwrap);
    let results = files.filter(|f| f.file_name() == "result.json");
    let told = results.map(|f| {
        let told: Value = serde_json::from_slice(&fs::read(f.path()).unwrap()).unwrap();
        told.to_string()
    });
    told.collect()
}

#[test]
fn this_machine_steps_in_only_where_the_policy_says_and_the_result_says_so() {
    let server = ModelServer::new(13 * SLICE + (64 << 10));
    let place = place(&server);
    server.goes_wrong(2, Fault::Busy);
    remote(&place, &["--yes"]).ends_with(1);
    assert_eq!(jobs(&place)[0]["state"], "waiting");
    policy(&place, "fallback_to_local = true\n");
    place.run(&["queue", "resume", "--yes"]).ends_with(0);
    masks_are_equal(&place);
    let job = &jobs(&place)[0];
    assert_eq!(job["state"], "done");
    assert!(
        job["words"]
            .as_str()
            .unwrap()
            .contains("could not be reached"),
        "{job}"
    );
    let told = devices(&place);
    assert_eq!(told.len(), 1);
    assert!(
        told[0].contains("in place of model server ward, which could not be reached"),
        "{told:?}"
    );
    // The same when it is gone from the beginning.
    fs::remove_dir_all(place.path("there")).unwrap();
    fs::remove_dir_all(place.path("here")).unwrap();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = gone.local_addr().unwrap().port();
    drop(gone);
    change(&place, &server, |p| {
        p.url = format!("https://127.0.0.1:{port}");
    });
    remote(&place, &["--yes"]).ends_with(0);
    masks_are_equal(&place);
    assert!(devices(&place)[0].contains("in place of"));
    place.run(&["audit", "verify"]).ends_with(0);
    // A limit is no such case: nothing steps in for it.
    fs::remove_dir_all(place.path("there")).unwrap();
    change(&place, &server, |p| p.price = euros(1.0));
    server.goes_wrong(usize::MAX, Fault::None);
    policy(
        &place,
        "fallback_to_local = true\n[limits]\ncurrency = 'EUR'\nprice_per_job = 0.5\n",
    );
    remote(&place, &["--yes"]).ends_with(1);
    assert!(!place.path("there/batch.json").exists());
}

#[test]
fn answers_of_two_versions_of_a_model_are_never_put_together() {
    let server = ModelServer::new(13 * SLICE + (64 << 10));
    let place = place(&server);
    // In one run.
    server.goes_wrong(3, Fault::Version);
    let ran = remote(&place, &["--yes"]).ends_with(1);
    assert!(ran.err.contains("begin anew"), "{}", ran.err);
    let job = &jobs(&place)[0];
    assert_eq!(job["state"], "failed");
    assert!(
        job["words"].as_str().unwrap().contains("\"1\" to \"2\""),
        "{job}"
    );
    assert_eq!(infers(&server), 4);
    assert!(devices(&place).is_empty());
    place.run(&["queue", "clear"]).ends_with(0);
    // Across two: the server is replaced while the job waits.
    server.goes_wrong(6, Fault::Busy);
    remote(&place, &["--yes"]).ends_with(1);
    assert_eq!(jobs(&place)[0]["state"], "waiting");
    server.goes_wrong(0, Fault::Version);
    let before = infers(&server);
    place.run(&["queue", "resume", "--yes"]).ends_with(1);
    assert_eq!(infers(&server), before + 1);
    assert_eq!(jobs(&place)[0]["state"], "failed");
    // Begun anew, all of it is of the new version.
    remote(&place, &["--yes"]).ends_with(0);
    assert!(devices(&place)[0].contains("small version 2"));
}
