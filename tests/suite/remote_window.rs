//! A model on a server, from the window: what leaves is seen first, the mask is the one from here,
//! and what was cut short goes on.

use std::path::Path;

use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;
use negatoscope::app::{Command, Dialog, ServerDraft};
use negatoscope::audit;
use negatoscope::findings::Assessment;
use negatoscope::import;
use negatoscope::model::Registry;
use negatoscope::offload::{Endpoints, Profile};
use negatoscope::ui::Window;

use crate::cascade::{ct, results};
use crate::elsewhere::{networks, without_weights};
use crate::remote::{Fault, ModelServer, Served, served_network, with_model};
use crate::remote_findings;
use crate::window::{harness, has_gpu, loaded, study, wait};

/// The window on a study with the model `small`, and a server that runs it.
fn window(folder: &Path, server: &ModelServer) -> Harness<'static, Window> {
    window_with(folder, server.profile.clone())
}

fn window_with(folder: &Path, profile: Profile) -> Harness<'static, Window> {
    let home = folder.join("home");
    with_model(&home);
    Endpoints::add(&home, profile).unwrap();
    let mut h = loaded(folder, vec![study(folder)]);
    choose(&mut h, None);
    h
}

/// Chooses the model `small`, where it runs, and waits until it can.
fn choose(h: &mut Harness<'static, Window>, place: Option<&str>) {
    choose_model(h, "small@", place);
}

fn choose_model(h: &mut Harness<'static, Window>, id: &str, place: Option<&str>) {
    wait(h, "models", |w| {
        w.app().models.iter().any(|m| m.key.starts_with(id)) && !w.app().remote.places.is_empty()
    });
    let key = h
        .state()
        .app()
        .models
        .iter()
        .find(|m| m.key.starts_with(id));
    let key = key.unwrap().key.clone();
    let ctx = h.ctx.clone();
    h.state_mut().command(&ctx, Command::SelectModel(key));
    let place = place.map(str::to_owned);
    h.state_mut().command(&ctx, Command::SetPlace(place));
    wait(h, "the estimate", |w| w.app().estimate.is_some());
}

fn labels(h: &Harness<'static, Window>) -> Vec<u8> {
    let results = h.state().app().results.as_ref().unwrap();
    results.segmentation.map.labels.clone()
}

/// Waits for the question, and until its dialog has found its place.
fn asked(h: &mut Harness<'static, Window>) {
    wait(h, "the question", |w| {
        w.app().dialog == Some(Dialog::Leaving)
    });
    h.run_steps(8);
}

fn ask(h: &mut Harness<'static, Window>) {
    h.get_by_label("Run on ward…").click();
    asked(h);
}

#[test]
fn what_leaves_is_shown_and_the_mask_is_the_one_from_here() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = ModelServer::new(1 << 20);
    let mut h = window(folder.path(), &server);
    h.get_by_label("Run model").click();
    wait(&mut h, "the mask from here", |w| w.app().results.is_some());
    let here = labels(&h);
    assert!(here.iter().any(|l| *l > 0));

    choose(&mut h, Some("ward"));
    ask(&mut h);
    h.get_by_label_contains("https://");
    h.get_by_label_contains("TLS 1.3");
    h.get_by_label_contains("cellar");
    h.get_by_label("A piece of what would leave");
    assert!(server.bodies().is_empty(), "sent before anyone agreed");

    // A no leaves nothing behind.
    h.get_by_label("Do not send").click();
    wait(&mut h, "the end", |w| {
        w.app().jobs.is_empty() && w.app().dialog.is_none()
    });
    wait(&mut h, "the queue", |w| w.app().remote.queue.is_empty());
    assert!(server.bodies().is_empty());

    ask(&mut h);
    let before = h.state().app().results.as_ref().unwrap().revision;
    h.get_by_label("Send to ward").click();
    wait(&mut h, "the mask from there", |w| {
        w.app()
            .results
            .as_ref()
            .is_some_and(|r| r.revision != before && r.provisional.is_none())
    });
    assert_eq!(labels(&h), here);
    assert!(!server.bodies().is_empty());
    let made = &h
        .state()
        .app()
        .results
        .as_ref()
        .unwrap()
        .segmentation
        .provenance;
    assert!(made.device.contains("ward"), "{}", made.device);
    wait(&mut h, "its record", |w| {
        w.app().remote.queue.iter().any(|row| row.state == "done")
    });
}

#[test]
fn a_job_that_was_cut_short_goes_on_from_the_list_and_asks_for_the_rest_alone() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // A slice has at most 64 × 56 values: several pieces.
    let server = ModelServer::new(13 * 4 * 64 * 56 + (64 << 10));
    let mut h = window(folder.path(), &server);
    choose(&mut h, Some("ward"));
    server.goes_wrong(2, Fault::Busy);
    ask(&mut h);
    h.get_by_label("Send to ward").click();
    wait(&mut h, "the notice", |w| {
        w.app()
            .notices
            .iter()
            .any(|n| n.title.contains("the job waits"))
    });
    assert!(h.state().app().results.is_none());
    wait(&mut h, "the row", |w| w.app().waiting_jobs() == 1);
    let before = server.bodies();
    drop(h);

    // The program is begun anew, without the study.
    server.goes_wrong(usize::MAX, Fault::None);
    let mut h = harness(folder.path(), vec![]);
    wait(&mut h, "the row", |w| w.app().waiting_jobs() == 1);
    h.run_steps(2);
    h.get_by_label("1 job waits for a server").click();
    wait(&mut h, "the list", |w| w.app().remote.queue_shown);
    h.get_by_label("Go on").click();
    asked(&mut h);
    h.get_by_label_contains("was answered before");
    h.get_by_label("Send to ward").click();
    wait(&mut h, "the mask", |w| w.app().results.is_some());
    let all = server.bodies();
    let (first, rest) = all.split_at(before.len());
    // What was answered in the first run is not among what is asked for in the second.
    assert!(!rest.is_empty());
    for body in rest {
        assert!(!first[..2].contains(body));
    }
}

#[test]
fn a_server_is_added_tested_and_removed_in_the_window() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = ModelServer::new(1 << 20);
    let mut h = harness(folder.path(), vec![]);
    let ctx = h.ctx.clone();
    h.state_mut().command(&ctx, Command::ShowServers);
    h.run_steps(8);
    h.get_by_label_contains("every model runs on this machine");
    let mut draft = ServerDraft {
        name: "ward".to_owned(),
        url: "http://127.0.0.1:9".to_owned(),
        authority: server.profile.ca.clone(),
        ..ServerDraft::default()
    };
    h.state_mut()
        .command(&ctx, Command::AddServer(Box::new(draft.clone())));
    wait(&mut h, "the refusal", |w| {
        w.app()
            .notices
            .iter()
            .any(|n| n.title.contains("not added"))
    });
    draft.url.clone_from(&server.profile.url);
    h.state_mut()
        .command(&ctx, Command::AddServer(Box::new(draft)));
    wait(&mut h, "the server", |w| w.app().remote.places.len() == 1);
    h.run_steps(4);
    h.get_by_label("Test").click();
    wait(&mut h, "the test's end", |w| {
        w.app()
            .remote
            .tested
            .as_ref()
            .is_some_and(|t| !t.is_running)
    });
    let test = h.state().app().remote.tested.clone().unwrap();
    let found = |name: &str| {
        let step = test.steps.iter().find(|(step, _)| step == name);
        step.map(|(_, found)| found.clone()).unwrap_or_default()
    };
    assert_eq!(found("encryption"), "TLS 1.3", "{test:?}");
    assert!(!found("key SHA-256").is_empty());
    // What it may be asked before it is trusted with anything.
    assert!(server.bodies().is_empty());
    h.run_steps(4);
    h.get_by_label("Remove").click();
    wait(&mut h, "its end", |w| w.app().remote.places.is_empty());
    let log = folder.path().join("home");
    let mut changes = Vec::new();
    audit::records(&log, |_, record| {
        let row = record.map(|record| audit::row(&record).join(" "));
        changes.extend(row.filter(|row| row.contains("change=")));
    })
    .unwrap();
    // Each with its beginning and its end.
    let of = |what: &str| changes.iter().filter(|row| row.contains(what)).count();
    assert_eq!(
        (of("change=added"), of("change=removed")),
        (2, 2),
        "{changes:?}"
    );
}

/// The device that the shown result names.
fn device(h: &Harness<'static, Window>) -> String {
    let results = h.state().app().results.as_ref().unwrap();
    results.segmentation.provenance.device.clone()
}

#[test]
fn a_server_that_was_agreed_to_for_good_is_not_asked_about_again_until_it_is_to_be() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let server = ModelServer::new(1 << 20);
    let mut h = window(folder.path(), &server);
    choose(&mut h, Some("ward"));
    ask(&mut h);
    h.get_by_label_contains("without asking from now on")
        .click();
    h.run_steps(2);
    h.get_by_label("Send to ward").click();
    wait(&mut h, "the mask", |w| w.app().results.is_some());
    let asks = |h: &Harness<'static, Window>| h.state().app().remote.places[0].asks;
    wait(&mut h, "the change", |w| !w.app().remote.places[0].asks);
    assert!(
        Endpoints::load(&home)
            .unwrap()
            .find("ward")
            .unwrap()
            .without_asking
    );

    // The second run goes without a question, and says so.
    let (sent, before) = (
        server.bodies().len(),
        h.state().app().results.as_ref().unwrap().revision,
    );
    wait(&mut h, "the end", |w| w.app().jobs.is_empty());
    h.get_by_label("Run on ward…").click();
    wait(&mut h, "the second mask", |w| {
        assert_ne!(w.app().dialog, Some(Dialog::Leaving));
        w.app()
            .results
            .as_ref()
            .is_some_and(|r| r.revision != before)
    });
    assert!(server.bodies().len() > sent);
    let told = h.state().app().notices.iter();
    let told: Vec<_> = told.map(|n| n.title.clone()).collect();
    assert!(
        told.contains(&"Sending to ward without asking".to_owned()),
        "{told:?}"
    );
    assert!(device(&h).contains("ward"), "{}", device(&h));

    // Asked again from here on.
    let ctx = h.ctx.clone();
    h.state_mut()
        .command(&ctx, Command::SetAsks("ward".to_owned(), true));
    wait(&mut h, "the change back", |w| w.app().remote.places[0].asks);
    assert!(asks(&h));
    wait(&mut h, "the end", |w| w.app().jobs.is_empty());
    ask(&mut h);
    let verdict = audit::verify(&home).unwrap();
    assert!(verdict.ok, "{verdict:?}");
}

#[test]
fn open_images_are_run_here_where_the_server_is_away_and_the_policy_says_so() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = ModelServer::new(1 << 20);
    // Nobody listens there any more.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let profile = Profile {
        url: format!("https://{}", gone.local_addr().unwrap()),
        ..server.profile.clone()
    };
    drop(gone);
    let mut h = window_with(folder.path(), profile);
    choose(&mut h, Some("ward"));
    let policy = folder.path().join("home").join("places.toml");
    std::fs::write(policy, "fallback_to_local = true\n").unwrap();
    h.get_by_label("Run on ward…").click();
    wait(&mut h, "the mask", |w| w.app().results.is_some());
    let made = device(&h);
    assert!(
        made.contains("in place of model server ward, which could not be reached"),
        "{made}"
    );
    assert!(h.state().app().dialog.is_none());
    assert!(server.bodies().is_empty());
    wait(&mut h, "its record", |w| {
        w.app().jobs.is_empty() && w.app().remote.queue.iter().all(|row| row.is_over)
    });
}

fn found(w: &Window) -> Vec<Assessment> {
    let found = w.app().findings.as_ref();
    found.map(|f| f.assessments.clone()).unwrap_or_default()
}

fn probabilities(assessments: &[Assessment]) -> Vec<f64> {
    let all = assessments.iter().flat_map(|a| &a.findings);
    all.map(|finding| finding.probability).collect()
}

#[test]
fn a_model_without_weights_runs_on_the_server_that_is_chosen() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let chests = folder.path().join("chests");
    let template = remote_findings::template("pneumonia-28");
    remote_findings::write_chests(&chests, &template, 72, 1, false);
    let far = without_weights(&remote_findings::bundled("pneumonia-28"), "far");
    Registry::new(home.join("models"))
        .install(&far, false)
        .unwrap();
    let served = Served {
        name: "far".to_owned(),
        ..remote_findings::served("pneumonia-28")
    };
    let server = ModelServer::of("ward", vec![served], 1 << 20);
    let limited = Profile {
        models: vec!["another".to_owned()],
        ..server.profile.clone()
    };
    Endpoints::add(&home, limited).unwrap();
    let mut h = loaded(folder.path(), vec![chests]);
    // No server has it.
    choose_model(&mut h, "far@", None);
    h.run_steps(2);
    h.get_by_label_contains("Add the server that has them");
    assert!(h.state().app().can_run().is_err());
    Endpoints::remove(&home, "ward").unwrap();
    Endpoints::add(&home, server.profile.clone()).unwrap();
    let ctx = h.ctx.clone();
    h.state_mut().command(&ctx, Command::ShowServers);
    wait(&mut h, "the server", |w| !w.app().places().is_empty());
    h.state_mut().command(&ctx, Command::HideServers);
    // One has it, and a person chooses it.
    h.run_steps(2);
    h.get_by_label_contains("choose the server that it runs on");
    choose_model(&mut h, "far@", Some("ward"));
    h.run_steps(2);
    ask(&mut h);
    h.get_by_label("Send to ward").click();
    wait(&mut h, "findings from there", |w| !found(w).is_empty());
    let there = found(h.state());
    assert!(there.iter().all(|a| a.provenance.device.contains("ward")));
    choose_model(&mut h, "pneumonia-28@", None);
    h.get_by_label("Run model").click();
    wait(&mut h, "findings from here", |w| {
        found(w).len() > there.len()
    });
    let mut here = found(h.state());
    here.retain(|a| !a.provenance.device.contains("ward"));
    assert!(!probabilities(&here).is_empty());
    assert_eq!(probabilities(&there), probabilities(&here));
}

#[test]
fn a_mask_from_a_server_is_seen_before_it_is_whole() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let trained = folder.path().join("trained");
    let package = import::read(&results(&trained, true)).unwrap().remove(0);
    Registry::new(home.join("models"))
        .install(&package, false)
        .unwrap();
    let id = package.manifest().id.clone();
    let any = [-1; 5];
    let parts = networks(&package).into_iter().map(|(part, network)| {
        let name = [id.as_str(), part.as_str()].join(".");
        served_network(name.trim_end_matches('.'), network, &any, &any)
    });
    let server = ModelServer::of("ward", parts.collect(), 1 << 20);
    server.goes_wrong(0, Fault::Slow);
    Endpoints::add(&home, server.profile.clone()).unwrap();
    let scan = folder.path().join("scan.nii.gz");
    negatoscope::nifti::write_volume(&scan, &ct()).unwrap();
    let mut h = loaded(folder.path(), vec![scan]);
    choose_model(&mut h, &format!("{id}@"), Some("ward"));
    h.run_steps(2);
    ask(&mut h);
    h.get_by_label("Send to ward").click();
    wait(&mut h, "a mask that is not whole", |w| {
        let results = w.app().results.as_ref();
        results.is_some_and(|r| r.badge() == "AI – provisional")
    });
    wait(&mut h, "the mask", |w| {
        let results = w.app().results.as_ref();
        results.is_some_and(|r| r.provisional.is_none())
    });
    assert!(device(&h).contains("ward"));
}

#[test]
fn findings_from_a_server_are_those_from_here() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let id = "pneumonia-28";
    let server = remote_findings::server(&[id]);
    let chests = folder.path().join("chests");
    remote_findings::write_chests(&chests, &remote_findings::template(id), 71, 2, false);
    Endpoints::add(&folder.path().join("home"), server.profile.clone()).unwrap();
    let mut h = loaded(folder.path(), vec![chests]);
    choose_model(&mut h, "pneumonia-28@", None);
    h.get_by_label("Run model").click();
    wait(&mut h, "findings from here", |w| !found(w).is_empty());
    let here = found(h.state());

    choose_model(&mut h, "pneumonia-28@", Some("ward"));
    ask(&mut h);
    // A picture may show words in its pixels: this is asked about each time.
    h.get_by_label_contains("Whole pictures leave");
    assert!(server.bodies().is_empty());
    h.get_by_label("Send to ward").click();
    wait(&mut h, "findings from there", |w| {
        let there = found(w);
        there.iter().any(|a| a.provenance.device.contains("ward"))
    });
    let mut there = found(h.state());
    there.retain(|a| a.provenance.device.contains("ward"));
    assert_eq!(probabilities(&there), probabilities(&here));
    assert!(!probabilities(&here).is_empty());
    wait(&mut h, "its record", |w| {
        w.app().remote.queue.iter().all(|row| row.state == "done")
    });
}
