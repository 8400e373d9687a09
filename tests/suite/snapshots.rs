//! Pictures of the real views, on the software adapter only: small, with a tight threshold.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test` renews them. Other adapters filter and round otherwise; for
//! those the slices are compared with the CPU reference (`render`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use eframe::egui::{Key, Rect, vec2};
use egui_kittest::kittest::Queryable;
use egui_kittest::{Harness, SnapshotOptions, image_snapshot_options};
use negatoscope::ui::Window;

use crate::window::{harness_of, has_gpu, is_loaded, study, wait};

fn is_software() -> bool {
    has_gpu()
        && negatoscope::render::Offscreen::new().is_some_and(|gpu| {
            let found = gpu.adapter().contains("llvmpipe");
            if !found {
                println!("skipped: {} is not the software adapter", gpu.adapter());
            }
            found
        })
}

/// A window in which the views are small.
fn small(home: &Path, paths: Vec<PathBuf>) -> Harness<'static, Window> {
    harness_of(vec2(900.0, 540.0), home, paths)
}

/// Draws frames until nothing moves: uploads, hover and scroll animations end.
fn drawn(h: &mut Harness<'static, Window>) {
    for _ in 0..6 {
        h.run_steps(1);
        h.render().expect("the window is drawn");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The part of the window around the given labels, compared with the kept picture.
fn check(h: &mut Harness<'static, Window>, labels: &[&str], name: &str) {
    drawn(h);
    let rect = labels
        .iter()
        .map(|label| h.get_by_label(label).rect())
        .fold(Rect::NOTHING, |all, one| all | one);
    let picture = h.render().expect("the window is drawn");
    let [x, y] = [rect.min.x.round() as u32, rect.min.y.round() as u32];
    let [w, h] = [rect.width().round() as u32, rect.height().round() as u32];
    let part = image::imageops::crop_imm(&picture, x, y, w, h).to_image();
    // Mesa versions round a few edges of text and outlines differently.
    let options = SnapshotOptions::new()
        .threshold(0.6)
        .max_failed_pixels(60)
        .output_path("tests/snapshots");
    image_snapshot_options(&part, name, &options);
}

const VIEWS: [&str; 3] = ["Axial view", "Coronal view", "Sagittal view"];

#[test]
fn views_look_as_they_did() {
    if !is_software() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = study(folder.path());
    let mut h = small(folder.path(), vec![path]);
    wait(&mut h, "loading", is_loaded);
    check(&mut h, &VIEWS, "views");

    wait(&mut h, "the estimate", |w| w.app().can_run().is_ok());
    h.get_by_label("Run model").click();
    wait(&mut h, "the result", |w| w.app().results.is_some());
    check(&mut h, &VIEWS, "views_with_segments");

    // Inverted, without interpolation, the axial view alone.
    h.key_press(Key::I);
    h.key_press(Key::F11);
    h.run_steps(2);
    check(&mut h, &["Axial view"], "axial_inverted");
}

#[test]
fn short_graphics_memory_is_said_on_the_picture() {
    if !is_software() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = study(folder.path());
    let mut h = small(folder.path(), vec![]);
    let ctx = h.ctx.clone();
    // A quarter of the study's 287 kB.
    h.state().limit_graphics_memory(72_000);
    let open = || negatoscope::app::Command::Open(vec![path.clone()]);
    h.state_mut().command(&ctx, open());
    wait(&mut h, "loading", is_loaded);
    check(&mut h, &["Axial view"], "axial_reduced");
}

#[test]
fn a_volume_beyond_graphics_memory_is_an_error_on_screen() {
    if !is_software() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = study(folder.path());
    let mut h = small(folder.path(), vec![]);
    let ctx = h.ctx.clone();
    h.state().limit_graphics_memory(1);
    h.state_mut()
        .command(&ctx, negatoscope::app::Command::Open(vec![path]));
    wait(&mut h, "loading", is_loaded);
    drawn(&mut h);
    // One message in each view.
    assert_eq!(h.get_all_by_label_contains("cannot be drawn").count(), 3);
    check(&mut h, &VIEWS, "views_without_memory");
}
