//! The app by its commands, and the actions that come back.

use std::sync::Arc;

use negatoscope::app::{
    Action, App, AskFor, Command, Dialog, Event, SeriesKey, Settings, ToExport, VolumeId,
};
use negatoscope::findings::{
    AlgorithmType, Explanation, ExplanationMethod, Faithfulness, Provenance, ReviewState, Segment,
    Segmentation,
};
use negatoscope::geometry::{DVec2, DVec3, ViewPlane, VolumeGeometry};
use negatoscope::redact::Sensitive;
use negatoscope::study::CodedConcept;
use negatoscope::volume::{
    Calibration, LabelMap, Layout, ModalityLut, Quantity, SourceSeries, VoiWindow, Volume, Voxels,
    label_statistics,
};

/// A ramp along i: 20 × 30 × 40 voxels of 1 × 1 × 2 mm, CT.
pub fn ramp() -> Volume {
    let geometry = VolumeGeometry::from_axes(
        [20, 30, 40],
        DVec3::new(-10.0, -15.0, -40.0),
        [DVec3::X, DVec3::Y, DVec3::Z],
        [1.0, 1.0, 2.0],
    )
    .unwrap();
    let voxels = (0..geometry.voxel_count())
        .map(|n| (n % 20) as i16 * 10)
        .collect();
    Volume {
        geometry,
        voxels: Voxels::I16(voxels),
        modality_lut: ModalityLut::Rescale {
            slope: 1.0,
            intercept: -100.0,
        },
        quantity: Quantity::Hounsfield,
        modality: "CT".to_owned(),
        layout: Layout::Volumetric,
        calibration: Calibration::Patient,
        inverted: false,
        windows: Vec::new(),
        padding: None,
        frame_rate: None,
        source: SourceSeries::default(),
        issues: Vec::new(),
    }
}

/// A cube of label 1 in the ramp, on the patient's left, with its record.
pub fn cube_in(volume: &Volume) -> Segmentation {
    let mut map = LabelMap::empty(volume.geometry.clone());
    for k in 10..15 {
        for j in 10..15 {
            for i in 12..17 {
                let n = volume.geometry.index(i, j, k);
                map.labels[n] = 1;
            }
        }
    }
    let code = CodedConcept::new("12738006", "SCT", "Brain");
    Segmentation {
        map,
        segments: vec![Segment {
            label: 1,
            name: "Cube".to_owned(),
            category: CodedConcept::new("123037004", "SCT", "Anatomical Structure"),
            property: code,
            color: [200, 80, 80],
        }],
        algorithm: AlgorithmType::Automatic,
        source: volume.source.clone(),
        provenance: Provenance {
            model_name: "Cube finder".to_owned(),
            ..Provenance::default()
        },
        issues: Vec::new(),
        review: ReviewState::NotReviewed,
        reviewed: None,
    }
}

/// An app with the ramp open, and the id of its volume.
fn with_ramp() -> (App, VolumeId) {
    let mut app = App::new(Settings::default());
    app.on_event(Event::Indexed {
        job: negatoscope::app::JobId(0),
        worklist: negatoscope::study::Worklist::default(),
        files: vec!["/data/ramp.nii".into()],
    });
    let load = app
        .take_actions()
        .into_iter()
        .find_map(|action| match action {
            Action::Load {
                job, volume, key, ..
            } => Some((job, volume, key)),
            _ => None,
        });
    let (job, volume, key) = load.expect("opening a file loads it");
    assert_eq!(key, SeriesKey::File("/data/ramp.nii".into()));
    let auto_window = VoiWindow::spanning(-100.0, 90.0);
    app.on_event(Event::Loaded {
        job,
        volume,
        data: Arc::new(ramp()),
        auto_window,
    });
    (app, volume)
}

#[test]
fn opening_paths_remembers_them_and_reads_headers() {
    let mut app = App::new(Settings::default());
    app.apply(Command::Open(vec!["/data/study".into()]));
    let actions = app.take_actions();
    assert!(
        actions
            .iter()
            .any(|a| matches!(a, Action::Index { paths, .. } if paths.len() == 1))
    );
    assert_eq!(app.settings.recent.len(), 1);
    assert_eq!(app.jobs.len(), 1);
}

#[test]
fn scrolling_stops_at_both_ends_and_moves_whole_slices() {
    let (mut app, _) = with_ramp();
    let view = ViewPlane::Axial;
    let (start, count) = app.workspace.slice(view).unwrap();
    assert_eq!(count, 40);
    app.apply(Command::Scroll { view, steps: 3 });
    assert_eq!(app.workspace.slice(view).unwrap().0, start + 3);
    app.apply(Command::Scroll { view, steps: 1000 });
    assert_eq!(app.workspace.slice(view).unwrap().0, 39);
    app.apply(Command::Scroll { view, steps: -1000 });
    assert_eq!(app.workspace.slice(view).unwrap().0, 0);
    app.apply(Command::ScrollTo { view, index: 17 });
    assert_eq!(app.workspace.slice(view).unwrap().0, 17);
    let z = app.workspace.crosshair_lps.z;
    assert!((z - (-40.0 + 17.0 * 2.0)).abs() < 1e-9, "{z}");
}

#[test]
fn clinical_laterality_scrolling_a_sagittal_view_onwards_goes_to_the_left() {
    let (mut app, _) = with_ramp();
    let before = app.workspace.crosshair_lps.x;
    app.apply(Command::Scroll {
        view: ViewPlane::Sagittal,
        steps: 2,
    });
    assert!((app.workspace.crosshair_lps.x - before - 2.0).abs() < 1e-9);
}

#[test]
fn zooming_keeps_the_point_under_the_cursor() {
    let (mut app, _) = with_ramp();
    let view = ViewPlane::Axial;
    let at_mm = DVec2::new(5.0, -3.0);
    let before = app.workspace.centered_plane(view).unwrap().lps_at(at_mm);
    app.apply(Command::Zoom {
        view,
        factor: 2.0,
        at_mm,
    });
    // The same screen point is now half as many millimeters from the middle.
    let after = app
        .workspace
        .centered_plane(view)
        .unwrap()
        .lps_at(at_mm / 2.0);
    assert!(before.abs_diff_eq(after, 1e-9), "{before} {after}");
}

#[test]
fn presets_carry_a_name_and_a_change_by_hand_clears_it() {
    let (mut app, _) = with_ramp();
    assert_eq!(app.workspace.window_name.as_deref(), Some("Soft tissue"));
    app.apply(Command::Preset(4));
    assert_eq!(app.workspace.window_name.as_deref(), Some("Lung"));
    assert_eq!(
        (app.workspace.window.width, app.workspace.window.center),
        (1500.0, -600.0)
    );
    app.apply(Command::SetVoiWindow(VoiWindow::new(0.0, 10.0)));
    assert_eq!(app.workspace.window_name, None);
}

#[test]
fn results_of_a_series_that_is_no_longer_open_are_dropped() {
    let (mut app, volume) = with_ramp();
    let data = ramp();
    let segmentation = Arc::new(cube_in(&data));
    let statistics = label_statistics(&data, &segmentation.map);
    let job = negatoscope::app::JobId(77);
    let other = VolumeId(volume.0 + 1000);
    app.on_event(Event::Segmented {
        job,
        volume: other,
        segmentation: Arc::clone(&segmentation),
        statistics: statistics.clone(),
    });
    assert!(app.results.is_none());
    assert_eq!(app.notices.len(), 1);
    app.on_event(Event::Segmented {
        job,
        volume,
        segmentation,
        statistics,
    });
    let results = app.results.as_ref().unwrap();
    assert_eq!(results.badge(), "AI – not reviewed");
    // The crosshair goes to the largest segment.
    assert!(app.workspace.crosshair_lps.x > 0.0);
}

#[test]
fn a_mask_is_accepted_with_name_and_time_and_the_first_decision_asks_for_the_name() {
    let (mut app, volume) = with_ramp();
    let data = ramp();
    let segmentation = Arc::new(cube_in(&data));
    let statistics = label_statistics(&data, &segmentation.map);
    let finished = Event::Segmented {
        job: negatoscope::app::JobId(77),
        volume,
        segmentation,
        statistics,
    };
    app.on_event(finished.clone());
    app.now = "2026-03-04T05:06:07.891Z".parse().unwrap();
    app.apply(Command::AcceptResult);
    assert_eq!(app.dialog, Some(Dialog::Reviewer));
    // Closing the question decides nothing.
    app.apply(Command::CloseDialog);
    assert_eq!(app.results.as_ref().unwrap().badge(), "AI – not reviewed");
    app.apply(Command::AcceptResult);
    app.apply(Command::SetReviewer(Sensitive::from(
        "Reader One".to_owned(),
    )));
    let results = app.results.as_ref().unwrap();
    assert_eq!(results.badge(), "AI – accepted");
    let reviewed = results.reviewed.as_ref().unwrap();
    assert_eq!(reviewed.by.expose(), "Reader One");
    assert_eq!(reviewed.at.to_rfc3339(), "2026-03-04T05:06:07+00:00");
    // Saved with it.
    app.take_actions();
    app.apply(Command::Export);
    app.on_event(Event::Chosen(AskFor::ExportFolder, vec!["/tmp/out".into()]));
    let saved = app.take_actions().into_iter().find_map(|a| match a {
        Action::Export {
            result: ToExport::Segmentation(s),
            ..
        } => Some(s),
        _ => None,
    });
    assert_eq!(saved.unwrap().reviewed.as_ref(), Some(reviewed_of(&app)));
    // Taken back, nobody has said anything.
    app.apply(Command::AcceptResult);
    assert!(app.results.as_ref().unwrap().reviewed.is_none());
    // A decision that waits for a name is not made on another mask.
    app.settings.reviewer = None;
    app.apply(Command::RejectResult);
    app.on_event(finished);
    app.apply(Command::SetReviewer(Sensitive::from(
        "Reader One".to_owned(),
    )));
    assert_eq!(app.results.as_ref().unwrap().badge(), "AI – not reviewed");
}

fn reviewed_of(app: &App) -> &negatoscope::findings::Review {
    app.results.as_ref().unwrap().reviewed.as_ref().unwrap()
}

#[test]
fn a_provisional_mask_is_neither_kept_nor_reviewed_and_leaves_with_its_run() {
    let (mut app, volume) = with_ramp();
    let data = ramp();
    let segmentation = Arc::new(cube_in(&data));
    let statistics = label_statistics(&data, &segmentation.map);
    let finished = Event::Segmented {
        job: negatoscope::app::JobId(77),
        volume,
        segmentation: Arc::clone(&segmentation),
        statistics: statistics.clone(),
    };
    app.on_event(finished.clone());
    app.settings.reviewer = Some(Sensitive::from("Reader One".to_owned()));
    app.apply(Command::AcceptResult);
    app.on_event(Event::Models(vec![summary()]));
    app.on_event(Event::Estimated {
        model: "m@1".to_owned(),
        volume,
        mirroring: true,
        estimate: Ok(enough()),
    });
    app.apply(Command::RunModel);
    let job = app.jobs[0].id;
    let provisional = |job| Event::Provisional {
        job,
        volume,
        stage: "Being computed".to_owned(),
        segmentation: Arc::clone(&segmentation),
        statistics: statistics.clone(),
    };
    app.on_event(provisional(negatoscope::app::JobId(78)));
    assert_eq!(app.results.as_ref().unwrap().badge(), "AI – accepted");
    app.on_event(provisional(job));
    assert_eq!(app.results.as_ref().unwrap().badge(), "AI – provisional");
    app.take_actions();
    app.apply(Command::AcceptResult);
    app.apply(Command::Export);
    let results = app.results.as_ref().unwrap();
    assert_eq!(results.badge(), "AI – provisional");
    assert_eq!(
        results.review,
        negatoscope::findings::ReviewState::NotReviewed
    );
    assert!(app.take_actions().is_empty());
    assert_eq!(app.notices.last().unwrap().title, "Not saved yet");
    // What is chosen to be seen stays as the mask is refined, and when it is final.
    app.apply(Command::SetSegmentVisible {
        label: 1,
        visible: false,
    });
    app.on_event(provisional(job));
    assert!(app.results.as_ref().unwrap().overlay.hidden[1]);
    // A run that is stopped leaves what was there before it; a late preview changes nothing.
    app.on_event(Event::Cancelled(job));
    app.on_event(provisional(job));
    assert_eq!(app.results.as_ref().unwrap().badge(), "AI – accepted");
    app.on_event(finished);
    assert_eq!(app.results.as_ref().unwrap().badge(), "AI – not reviewed");
}

fn summary() -> negatoscope::app::ModelSummary {
    negatoscope::app::ModelSummary {
        key: "m@1".to_owned(),
        name: "M".to_owned(),
        version: "1".to_owned(),
        intended_use: String::new(),
        limits: vec![],
        license: String::new(),
        modality: "CT".to_owned(),
        segments: 1,
        channels: Vec::new(),
        mirrors: true,
        only_on_a_server: false,
        bundled: true,
        origin: "bundled".to_owned(),
    }
}

fn enough() -> negatoscope::app::RunEstimate {
    negatoscope::app::RunEstimate {
        traffic: negatoscope::app::Traffic::Green,
        reasons: vec![],
        needed_bytes: 1,
        available_bytes: 2,
        seconds: None,
        device: "cpu".to_owned(),
        places: Vec::new(),
    }
}

#[test]
fn a_choice_about_mirroring_is_kept_and_asks_for_a_new_estimate() {
    let (mut app, volume) = with_ramp();
    app.on_event(Event::Models(vec![summary()]));
    app.take_actions();
    app.apply(Command::SetMirroring(false));
    let asked = app.take_actions();
    assert!(
        asked
            .iter()
            .any(|a| matches!(a, Action::SaveSettings(s) if !s.mirroring))
    );
    assert!(asked.iter().any(|a| matches!(
        a,
        Action::Estimate {
            mirroring: false,
            ..
        }
    )));
    let mut answer = |mirroring| {
        app.on_event(Event::Estimated {
            model: "m@1".to_owned(),
            volume,
            mirroring,
            estimate: Ok(enough()),
        });
        app.can_run().is_ok()
    };
    // An answer to the question before.
    assert!(!answer(true));
    assert!(answer(false));
    app.apply(Command::RunModel);
    assert!(app.take_actions().iter().any(|a| matches!(
        a,
        Action::RunModel {
            mirroring: false,
            ..
        }
    )));
}

#[test]
fn a_run_without_enough_memory_is_refused_with_the_numbers() {
    let (mut app, volume) = with_ramp();
    app.on_event(Event::Models(vec![summary()]));
    app.take_actions();
    let estimate = negatoscope::app::RunEstimate {
        needed_bytes: 5_100_000_000,
        available_bytes: 3_200_000_000,
        ..enough()
    };
    app.on_event(Event::Estimated {
        model: "m@1".to_owned(),
        volume,
        mirroring: true,
        estimate: Ok(estimate),
    });
    app.apply(Command::RunModel);
    assert!(
        app.take_actions()
            .iter()
            .all(|a| !matches!(a, Action::RunModel { .. }))
    );
    let notice = app.notices.last().unwrap();
    assert!(
        notice.text.contains("5.1 GB") && notice.text.contains("3.2 GB"),
        "{}",
        notice.text
    );
}

#[test]
fn cancelling_asks_the_task_to_stop() {
    let mut app = App::new(Settings::default());
    app.apply(Command::Open(vec!["/data/study".into()]));
    let job = app.jobs[0].id;
    let task = Arc::clone(&app.jobs[0].task);
    app.apply(Command::CancelJob(job));
    assert!(task.is_cancelled());
    app.on_event(Event::Cancelled(job));
    assert!(app.jobs.is_empty());
}

#[test]
fn every_action_that_touches_a_patient_goes_on_record() {
    let (mut app, volume) = with_ramp();
    let data = ramp();
    let segmentation = Arc::new(cube_in(&data));
    let statistics = label_statistics(&data, &segmentation.map);
    let job = negatoscope::app::JobId(5);
    app.on_event(Event::Segmented {
        job,
        volume,
        segmentation,
        statistics,
    });
    app.on_event(Event::Chosen(
        negatoscope::app::AskFor::ExportFolder,
        vec!["/out".into()],
    ));
    let export = app
        .take_actions()
        .into_iter()
        .find(|a| matches!(a, Action::Export { .. }));
    assert!(export.unwrap().audit().is_some());
}

#[test]
fn a_model_of_two_channels_says_what_is_missing() {
    let (mut app, _) = with_ramp();
    let mut model = summary();
    model.channels = vec!["T1".to_owned(), "FLAIR".to_owned()];
    app.on_event(Event::Models(vec![model]));
    let Some(Err(reason)) = &app.estimate else {
        panic!("one image is not two")
    };
    assert!(reason.contains("takes 2 images of one study"), "{reason}");
    assert!(
        reason.contains("no image for the channel FLAIR"),
        "{reason}"
    );
    app.take_actions();
    app.apply(Command::RunModel);
    assert!(app.take_actions().is_empty());
}

#[test]
fn evidence_is_made_when_asked_for_and_shown_over_its_own_image_only() {
    let (mut app, volume) = with_ramp();
    let _ = app.take_actions();
    let job = negatoscope::app::JobId(9);
    let assessment = super::report::assessment();
    let image = assessment.image;
    app.on_event(Event::Assessed {
        job,
        volume,
        assessments: vec![assessment],
        methods: vec![ExplanationMethod::GradCam, ExplanationMethod::Occlusion],
    });
    let asked = |app: &mut App| {
        let actions = app.take_actions();
        actions.into_iter().find_map(|action| match &action {
            Action::Explain {
                job,
                finding,
                method,
                ..
            } => Some((*job, finding.clone(), *method, action.audit())),
            _ => None,
        })
    };
    app.apply(Command::Explain(0, 1));
    let (job, finding, method, audit) = asked(&mut app).expect("there is no map yet");
    assert_eq!(finding, "Bakteriell – größer \\ als");
    assert_eq!(method, ExplanationMethod::GradCam);
    assert!(audit.is_some(), "a model looks at a patient's image");
    // One at a time.
    app.apply(Command::Explain(0, 0));
    assert!(asked(&mut app).is_none());
    let map = |method| Explanation {
        finding: "Bakteriell – größer \\ als".to_owned(),
        method,
        dims: [1, 2],
        values: vec![0.0, 1.0],
        region_px: [0.0, 0.0, 30.0, 20.0],
        faithfulness: Faithfulness {
            deletion: 0.1,
            insertion: 0.8,
            chance_mean: 0.0,
            chance_best: 0.2,
            chance_orders: 19,
        },
    };
    let arrived = |app: &mut App, job, method| {
        app.on_event(Event::Explained {
            job,
            volume,
            assessment: 0,
            map: Box::new(map(method)),
        });
    };
    arrived(&mut app, job, method);
    let over = |app: &App, image| {
        let shown = app.findings.as_ref().unwrap();
        shown.map_over(image).map(|(_, map)| map.method)
    };
    assert_eq!(over(&app, image), Some(ExplanationMethod::GradCam));
    assert_eq!(over(&app, image + 1), None);
    // The same again hides it, and shows what is there already.
    app.apply(Command::Explain(0, 1));
    assert_eq!(over(&app, image), None);
    app.apply(Command::Explain(0, 1));
    assert_eq!(over(&app, image), Some(ExplanationMethod::GradCam));
    assert!(asked(&mut app).is_none());
    // Another way explains the same finding anew.
    app.apply(Command::ExplainBy(ExplanationMethod::Occlusion));
    let (job, _, method, _) = asked(&mut app).expect("another map");
    assert_eq!(method, ExplanationMethod::Occlusion);
    arrived(&mut app, job, method);
    assert_eq!(over(&app, image), Some(ExplanationMethod::Occlusion));
}

#[test]
fn escape_closes_what_lies_on_top_before_it_stops_or_resets_anything() {
    let mut app = App::new(Settings::default());
    app.apply(Command::ShowServers);
    app.apply(Command::ShowQueue);
    app.apply(Command::ShowDialog(Dialog::Batch));
    app.workspace.maximized = Some(ViewPlane::Coronal);
    let shown = |app: &App| {
        let windows = (app.remote.queue_shown, app.remote.servers_shown);
        (app.dialog.is_some(), windows, app.workspace.maximized)
    };
    let kept = Some(ViewPlane::Coronal);
    for left in [
        (true, (true, true), kept),
        (false, (true, true), kept),
        (false, (false, true), kept),
        (false, (false, false), kept),
        (false, (false, false), None),
    ] {
        assert_eq!(shown(&app), left);
        app.apply(Command::Escape);
    }
}
