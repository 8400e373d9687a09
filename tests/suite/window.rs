//! The window through its accessibility tree, on the software adapter.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use eframe::egui::{
    Event as InputEvent, Key, Modifiers, MouseWheelSource, MouseWheelUnit, TouchPhase, Vec2, vec2,
};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;
use negatoscope::app::{AskFor, Event};
use negatoscope::dicom::{ImageSeriesOptions, write_image_series};
use negatoscope::geometry::{DVec3, VolumeGeometry};
use negatoscope::runtime::{Home, RandomUids, Runtime};
use negatoscope::ui::Window;
use negatoscope::volume::phantom::head_mr;

pub fn has_gpu() -> bool {
    let found = negatoscope::render::Offscreen::new().is_some();
    assert!(
        found || std::env::var_os("REQUIRE_GPU").is_none(),
        "REQUIRE_GPU is set and no adapter was found"
    );
    if !found {
        println!("skipped: no graphics adapter");
    }
    found
}

/// A small synthetic study around the left hippocampus.
pub fn study(folder: &Path) -> PathBuf {
    let axes = [DVec3::X, DVec3::Y, DVec3::Z];
    let geometry =
        VolumeGeometry::from_axes([56, 64, 40], DVec3::new(0.0, -35.0, -45.0), axes, [1.0; 3])
            .unwrap();
    let phantom = head_mr(5, geometry);
    let options = ImageSeriesOptions {
        modality: "MR".to_owned(),
        study_instance_uid: RandomUids::fresh(),
        series_instance_uid: RandomUids::fresh(),
        frame_of_reference_uid: RandomUids::fresh(),
        series_description: "Test head".to_owned(),
        series_number: 1,
        synthetic: true,
        ..ImageSeriesOptions::default()
    };
    let study = folder.join("study");
    std::fs::create_dir_all(&study).unwrap();
    write_image_series(
        &phantom.volume,
        &study,
        &options,
        &mut RandomUids::fresh,
        // Shown in the corner, so that pictures of it stay the same.
        "2026-01-02T03:04:05Z".parse().unwrap(),
    )
    .unwrap();
    study
}

pub fn harness(home: &Path, paths: Vec<PathBuf>) -> Harness<'static, Window> {
    harness_of(vec2(1280.0, 800.0), home, paths)
}

pub fn harness_of(size: Vec2, home: &Path, paths: Vec<PathBuf>) -> Harness<'static, Window> {
    let home = Home::resolve(Some(home.join("home")));
    Harness::builder()
        .with_size(size)
        .wgpu()
        .build_eframe(move |cc| Window::new(cc, Runtime::new(home).unwrap(), paths))
}

/// Steps frames until something holds; fails after a minute, which no step needs.
pub fn wait(h: &mut Harness<'static, Window>, what: &str, holds: impl Fn(&Window) -> bool) {
    let start = Instant::now();
    while !holds(h.state()) {
        assert!(
            start.elapsed() < Duration::from_mins(1),
            "{what} did not happen: {:?}",
            h.state().app().notices
        );
        h.run_steps(1);
        std::thread::sleep(Duration::from_millis(10));
    }
    h.run_steps(2);
}

/// The window with a study that is loaded.
pub fn loaded(home: &Path, paths: Vec<PathBuf>) -> Harness<'static, Window> {
    let mut h = harness(home, paths);
    wait(&mut h, "loading", is_loaded);
    h
}

pub fn is_loaded(window: &Window) -> bool {
    window
        .app()
        .workspace
        .open
        .as_ref()
        .is_some_and(|open| open.loading.is_none())
}

#[test]
fn an_empty_window_offers_to_open() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut h = harness(folder.path(), vec![]);
    h.run_steps(3);
    h.get_by_label_contains("Open folder…");
    h.get_by_label_contains("Research use");
}

#[test]
fn a_study_is_opened_scrolled_windowed_segmented_and_saved() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = study(folder.path());
    let mut h = loaded(folder.path(), vec![path]);
    h.get_by_label("Test head");
    for view in ["Axial view", "Coronal view", "Sagittal view"] {
        h.get_by_label(view);
    }

    // The wheel scrolls one slice.
    let axial = h.get_by_label("Axial view").rect();
    let view = negatoscope::geometry::ViewPlane::Axial;
    let before = h.state().app().workspace.slice(view).unwrap().0;
    h.hover_at(axial.center());
    h.event(InputEvent::MouseWheel {
        unit: MouseWheelUnit::Line,
        delta: vec2(0.0, -1.0),
        modifiers: Modifiers::NONE,
        phase: TouchPhase::Move,
        source: MouseWheelSource::Unknown,
    });
    h.run_steps(2);
    let after = h.state().app().workspace.slice(view).unwrap().0;
    assert_eq!(after, before + 1);

    // Left drag to the right widens the window; 0 brings the automatic one back.
    let width = h.state().app().workspace.window.width;
    h.drag_at(axial.center());
    h.run_steps(1);
    h.hover_at(axial.center() + vec2(60.0, 0.0));
    h.run_steps(1);
    h.drop_at(axial.center() + vec2(60.0, 0.0));
    h.run_steps(2);
    assert!(h.state().app().workspace.window.width > width);
    h.key_press(Key::Num0);
    h.run_steps(2);
    assert_eq!(
        h.state().app().workspace.window_name.as_deref(),
        Some("Auto")
    );

    // The bundled model runs from its button.
    wait(&mut h, "the estimate", |w| w.app().can_run().is_ok());
    h.get_by_label("Run model").click();
    wait(&mut h, "the result", |w| w.app().results.is_some());
    let results = h.state().app().results.as_ref().unwrap();
    assert!(
        results
            .statistics
            .iter()
            .any(|s| s.volume_ml.is_some_and(|ml| ml > 0.2)),
        "{:?}",
        results.statistics
    );
    h.get_by_label_contains("AI – not reviewed");

    // Saving writes all forms; the dialog's answer is given by the test.
    let out = folder.path().join("out");
    let ctx = h.ctx.clone();
    h.state_mut()
        .event(&ctx, Event::Chosen(AskFor::ExportFolder, vec![out.clone()]));
    wait(&mut h, "saving", |w| {
        w.app().results.as_ref().is_some_and(|r| r.exported)
    });
    for name in [
        "segmentation.dcm",
        "segmentation.nii.gz",
        "measurements.csv",
        "result.json",
    ] {
        assert!(out.join(name).is_file(), "{name}");
    }
    let verdict = negatoscope::audit::verify(&folder.path().join("home")).unwrap();
    assert!(verdict.ok && verdict.records >= 3, "{verdict:?}");

    // The run, and what a person says of it, are kept for monitoring under the same name.
    use negatoscope::monitoring::{Outcome, Record, Reviewed, Store, Through, Verdict};
    h.key_press_modifiers(Modifiers::COMMAND, Key::Enter);
    // The first decision asks for the reader's name.
    h.run_steps(8);
    h.get_by_label("Keep this name").click();
    h.run_steps(3);
    let kept = Store::new(&folder.path().join("home")).read().unwrap();
    let [Record::Run(run), Record::Review(review)] = &kept.records[..] else {
        panic!("{kept:?}")
    };
    assert_eq!((run.outcome, run.through), (Outcome::Done, Through::Window));
    assert!(run.planned_seconds.is_some() && !run.segments.is_empty());
    assert_eq!((&review.run, &review.of), (&run.run, &Reviewed::Segments));
    assert_eq!(review.to, Verdict::Accepted);
}

#[test]
fn a_running_model_is_cancelled_from_the_window() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = study(folder.path());
    let mut h = loaded(folder.path(), vec![path]);
    wait(&mut h, "the estimate", |w| w.app().can_run().is_ok());
    h.get_by_label("Run model").click();
    h.run_steps(1);
    h.key_press(Key::Escape);
    wait(&mut h, "the end of the job", |w| w.app().jobs.is_empty());
    assert!(h.state().app().results.is_none());
}

/// Copies of the study's folder stand for studies of other patients.
#[test]
fn a_folder_is_analyzed_from_the_menu_and_a_row_opened() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let studies = folder.path().join("studies");
    for name in ["one", "two"] {
        study(&studies.join(name));
    }
    std::fs::write(studies.join("notes.txt"), "no image").unwrap();
    let mut h = harness(folder.path(), vec![]);
    h.run_steps(2);
    h.get_by_label("Analysis").click();
    h.run_steps(2);
    h.get_by_label_contains("Analyze folder…").click();
    h.run_steps(2);
    // The answers of the two file dialogs are given by the test.
    let out = folder.path().join("out");
    let ctx = h.ctx.clone();
    for (ask, path) in [
        (AskFor::BatchInput, studies),
        (AskFor::BatchOutput, out.clone()),
    ] {
        h.state_mut().event(&ctx, Event::Chosen(ask, vec![path]));
        h.run_steps(2);
    }
    h.get_by_label_contains("Start batch").click();
    wait(&mut h, "the end of the batch", |w| {
        w.app().batch.summary.is_some() && w.app().jobs.is_empty()
    });
    let rows = &h.state().app().batch.rows;
    assert_eq!(
        rows.iter().filter(|r| r.status == "done").count(),
        2,
        "{rows:?}"
    );
    assert!(out.join("batch.csv").is_file() && out.join("batch.json").is_file());

    h.get_all_by_label("Open").last().unwrap().click();
    wait(&mut h, "the row's study", |w| {
        is_loaded(w) && w.app().results.is_some()
    });
    assert!(
        h.state().app().dialog.is_none(),
        "the dialog gives way to the images"
    );
}
