//! A person's word on findings, by the app's commands and in the window.

use std::sync::Arc;

use eframe::egui::Key;
use egui_kittest::kittest::Queryable;
use negatoscope::app::{
    Action, App, AskFor, Command, Dialog, Event, JobId, ReviewNote, Settings, ToExport, VolumeId,
};
use negatoscope::findings::{Assessment, Call, Edit, Finding, Provenance, Review, ReviewState};
use negatoscope::redact::Sensitive;
use negatoscope::volume::{SourceSeries, VoiWindow};

use crate::window::{harness, has_gpu, is_loaded, study, wait};

fn finding(name: &str, probability: f64, call: Call) -> Finding {
    Finding {
        name: name.to_owned(),
        concept: None,
        probability,
        calibrated: true,
        threshold: Some(0.5),
        operating_point: None,
        call: Some(call),
        review: ReviewState::NotReviewed,
        reviewed: None,
        edit: None,
    }
}

fn assessment(model: &str, version: &str, findings: Vec<Finding>) -> Assessment {
    Assessment {
        findings,
        explanations: Vec::new(),
        refused: Vec::new(),
        source: SourceSeries::default(),
        image: 0,
        provenance: Provenance {
            run: format!("run of {model} {version}"),
            model_id: model.to_owned(),
            model_name: model.to_uppercase(),
            model_version: version.to_owned(),
            ..Provenance::default()
        },
        issues: Vec::new(),
    }
}

fn chest() -> Assessment {
    assessment(
        "chest",
        "1",
        vec![
            finding("Pneumonia", 0.9, Call::Present),
            finding("Effusion", 0.1, Call::Absent),
        ],
    )
}

/// An app with images open, the reviewer known, and what a model says of them.
fn with_findings(reviewer: Option<&str>) -> (App, VolumeId) {
    let settings = Settings {
        reviewer: reviewer.map(|name| Sensitive::new(name.to_owned())),
        ..Settings::default()
    };
    let mut app = App::new(settings);
    app.now = "2026-03-04T04:00:01.75Z".parse().unwrap();
    app.on_event(Event::Indexed {
        job: JobId(0),
        worklist: negatoscope::study::Worklist::default(),
        files: vec!["/data/ramp.nii".into()],
    });
    let load = app.take_actions().into_iter().find_map(|a| match a {
        Action::Load { job, volume, .. } => Some((job, volume)),
        _ => None,
    });
    let (job, volume) = load.unwrap();
    app.on_event(Event::Loaded {
        job,
        volume,
        data: Arc::new(crate::app::ramp()),
        auto_window: VoiWindow::spanning(-100.0, 90.0),
    });
    say(&mut app, volume, vec![chest()]);
    app.take_actions();
    (app, volume)
}

fn say(app: &mut App, volume: VolumeId, assessments: Vec<Assessment>) {
    app.on_event(Event::Assessed {
        job: JobId(9),
        volume,
        assessments,
        methods: Vec::new(),
    });
}

fn shown(app: &App, n: usize) -> &Finding {
    app.findings.as_ref().unwrap().finding(0, n).unwrap()
}

fn notes(app: &mut App) -> Vec<ReviewNote> {
    let actions = app.take_actions().into_iter();
    actions
        .filter_map(|a| match a {
            Action::NoteReview(note) => Some(note),
            _ => None,
        })
        .collect()
}

#[test]
fn a_decision_carries_name_and_time_and_goes_to_monitoring_without_the_name() {
    let (mut app, _) = with_findings(Some("Dr. Reader"));
    app.apply(Command::AcceptResult);
    let decided = Review {
        by: Sensitive::new("Dr. Reader".to_owned()),
        at: "2026-03-04T04:00:01Z".parse().unwrap(),
    };
    assert_eq!(shown(&app, 0).review, ReviewState::Accepted);
    assert_eq!(shown(&app, 0).reviewed, Some(decided));
    assert_eq!(shown(&app, 1).reviewed, None);
    let found = notes(&mut app);
    let expected = ReviewNote {
        run: "run of chest 1".to_owned(),
        model: "chest".to_owned(),
        version: "1".to_owned(),
        finding: Some(("Pneumonia".to_owned(), 0)),
        from: ReviewState::NotReviewed,
        to: ReviewState::Accepted,
        model_call: Some(Call::Present),
        reader_call: None,
    };
    assert_eq!(found, [expected]);
    assert!(!format!("{found:?} {:?}", app.findings).contains("Reader"));
    // The same again takes it back, with what was said of it.
    app.apply(Command::ReviewFinding(0, 0, ReviewState::Accepted));
    assert_eq!(shown(&app, 0).reviewed, None);
    assert_eq!(notes(&mut app)[0].to, ReviewState::NotReviewed);
}

#[test]
fn the_first_decision_asks_for_the_name_and_waits_for_the_answer() {
    let (mut app, _) = with_findings(None);
    app.apply(Command::RejectResult);
    assert_eq!(app.dialog, Some(Dialog::Reviewer));
    assert_eq!(shown(&app, 0).review, ReviewState::NotReviewed);
    // Without an answer nothing is decided.
    app.apply(Command::Escape);
    app.apply(Command::SetReviewer(Sensitive::new("X".to_owned())));
    assert_eq!(shown(&app, 0).review, ReviewState::NotReviewed);

    let (mut app, _) = with_findings(None);
    app.apply(Command::RejectResult);
    app.apply(Command::SetReviewer(Sensitive::new("  ".to_owned())));
    assert_eq!(
        (app.dialog, shown(&app, 0).review),
        (None, ReviewState::Rejected)
    );
    assert_eq!(shown(&app, 0).reviewed.as_ref().unwrap().by.expose(), "");
    let saved = app.take_actions().into_iter().find_map(|a| match a {
        Action::SaveSettings(settings) => Some(settings),
        _ => None,
    });
    // Not to be named is an answer: nobody is asked again.
    assert_eq!(saved.unwrap().reviewer, Some(Sensitive::new(String::new())));
    app.apply(Command::AcceptResult);
    assert_eq!(shown(&app, 1).review, ReviewState::Accepted);
}

#[test]
fn a_name_is_kept_in_the_settings_and_printed_nowhere() {
    let settings = Settings {
        reviewer: Some(Sensitive::new("Dr. Reader".to_owned())),
        ..Settings::default()
    };
    let text = serde_json::to_string(&settings).unwrap();
    assert!(text.contains("\"reviewer\":\"Dr. Reader\""));
    assert_eq!(serde_json::from_str::<Settings>(&text).unwrap(), settings);
    assert!(!format!("{settings:?}").contains("Reader"));
    let none = serde_json::to_string(&Settings::default()).unwrap();
    assert!(!none.contains("reviewer"));
    assert_eq!(
        serde_json::from_str::<Settings>(&none).unwrap().reviewer,
        None
    );
}

#[test]
fn an_edit_leaves_the_models_word_and_can_be_taken_back() {
    let (mut app, _) = with_findings(Some(""));
    app.apply(Command::EditNext);
    let asked = Dialog::EditFinding {
        image: 0,
        finding: 0,
    };
    assert_eq!(app.dialog, Some(asked));
    let edit = Edit {
        call: Call::Absent,
        comment: Sensitive::new("shadow".to_owned()),
    };
    app.apply(Command::EditFinding(0, 0, edit.clone()));
    assert_eq!(app.dialog, None);
    let found = shown(&app, 0);
    assert_eq!(
        (found.call, found.review),
        (Some(Call::Present), ReviewState::Edited)
    );
    assert_eq!(found.edit, Some(edit));
    let note = notes(&mut app).remove(0);
    assert_eq!(
        (note.to, note.model_call, note.reader_call),
        (ReviewState::Edited, Some(Call::Present), Some(Call::Absent))
    );
    // The next key goes to the next finding.
    app.apply(Command::EditNext);
    assert_eq!(
        app.dialog,
        Some(Dialog::EditFinding {
            image: 0,
            finding: 1
        })
    );
    app.apply(Command::CloseDialog);
    app.apply(Command::ReviewFinding(0, 0, ReviewState::Edited));
    assert_eq!(
        (shown(&app, 0).review, &shown(&app, 0).edit),
        (ReviewState::NotReviewed, &None)
    );
}

#[test]
fn a_second_model_adds_its_findings_and_the_same_one_replaces_its_own() {
    let (mut app, volume) = with_findings(Some("A"));
    app.apply(Command::AcceptResult);
    let other = assessment("lungs", "2", vec![finding("Nodule", 0.3, Call::Absent)]);
    say(&mut app, volume, vec![other]);
    let models = |app: &App| -> Vec<(String, usize)> {
        let groups = app.findings.as_ref().unwrap().by_model();
        groups
            .into_iter()
            .map(|(m, some)| (m, some.len()))
            .collect()
    };
    assert_eq!(
        models(&app),
        [("chest@1".to_owned(), 1), ("lungs@2".to_owned(), 1)]
    );
    assert_eq!(shown(&app, 0).review, ReviewState::Accepted, "it stays");
    // Each model's files go into a folder of their own.
    app.take_actions();
    app.on_event(Event::Chosen(AskFor::ExportFolder, vec!["/out".into()]));
    let folders: Vec<_> = app
        .take_actions()
        .into_iter()
        .filter_map(|a| match a {
            Action::Export {
                result: ToExport::Findings(some),
                folder,
                ..
            } => Some((folder, some.len())),
            _ => None,
        })
        .collect();
    assert_eq!(
        folders,
        [("/out/chest@1".into(), 1), ("/out/lungs@2".into(), 1)]
    );
    // Run again, the first one's words are new and nobody has seen them.
    app.apply(Command::EditNext);
    say(&mut app, volume, vec![chest()]);
    assert_eq!(app.dialog, None, "the question was about what is gone");
    assert_eq!(models(&app).len(), 2);
    let all = &app.findings.as_ref().unwrap().assessments;
    assert!(
        all.iter()
            .flat_map(|a| &a.findings)
            .all(|f| f.reviewed.is_none())
    );
}

#[test]
fn a_finding_is_edited_by_key_and_click_and_the_name_asked_once() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = study(folder.path());
    let mut h = harness(folder.path(), vec![path]);
    wait(&mut h, "loading", is_loaded);
    let volume = h.state().app().workspace.open.as_ref().unwrap().id;
    let ctx = h.ctx.clone();
    let job = JobId(900);
    let mut a = chest();
    a.provenance.run = "00112233445566778899aabbccddeeff".to_owned();
    let assessments = vec![a];
    h.state_mut().event(
        &ctx,
        Event::Assessed {
            job,
            volume,
            assessments,
            methods: Vec::new(),
        },
    );
    h.run_steps(3);
    h.get_by_label("Edit Pneumonia").click();
    h.run_steps(3);
    h.get_by_label("The model: 90 %, present");
    h.key_press(Key::A);
    h.run_steps(2);
    h.get_by_label("Comment").focus();
    h.run_steps(1);
    h.get_by_label("Comment").type_text("thymus");
    h.run_steps(2);
    h.get_by_label("Keep the edit").click();
    h.run_steps(3);
    // The first decision asks who decides; what was typed before is no name.
    assert_eq!(h.state().app().dialog, Some(Dialog::Reviewer));
    h.get_by_label("Your name").focus();
    h.run_steps(1);
    h.get_by_label("Your name").type_text("Dr. Reader");
    h.run_steps(2);
    h.get_by_label("Keep this name").click();
    h.run_steps(3);
    assert_eq!(h.state().app().dialog, None);
    let decided = shown(h.state().app(), 0);
    assert_eq!(decided.edit.as_ref().unwrap().call, Call::Absent);
    let review = decided.reviewed.as_ref().unwrap();
    assert_eq!(review.by.expose(), "Dr. Reader");
    assert!(review.at.timestamp() > 1_700_000_000);
    h.get_by_label("·  edited by reader: absent – thymus");
    h.get_by_label("present");
    // A comment may hold letters that are keys; then the key for the next finding.
    h.key_press_modifiers(eframe::egui::Modifiers::COMMAND, Key::E);
    h.run_steps(3);
    h.get_by_label("Present (P)").click();
    h.run_steps(1);
    h.get_by_label("Comment").focus();
    h.run_steps(1);
    h.get_by_label("Comment").type_text("an apple");
    h.run_steps(2);
    h.key_press(Key::Enter);
    h.run_steps(3);
    let edit = shown(h.state().app(), 1).edit.clone().unwrap();
    assert_eq!(
        (edit.call, edit.comment.expose().as_str()),
        (Call::Present, "an apple")
    );
    // What was decided is kept for monitoring, and neither who nor the words.
    let home = folder.path().join("home");
    let kept = negatoscope::monitoring::Store::new(&home).read().unwrap();
    assert_eq!((kept.records.len(), kept.left_out), (2, 0));
    for file in std::fs::read_dir(home.join("monitoring")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(text.contains("00112233445566778899aabbccddeeff"));
        assert!(
            ["Reader", "apple", "thymus"]
                .iter()
                .all(|w| !text.contains(w))
        );
    }
}
