//! A copy without identity from the window: files without the phantom's names, on record.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dicom_dictionary_std::tags;
use eframe::egui::vec2;
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;
use negatoscope::app::{AskFor, Command, CopyWanted, Dialog, Event, PixelRegion};
use negatoscope::ui::Window;

use crate::window::{has_gpu, loaded, study, wait};

/// A study, and the window with the dialog for its copy.
fn dialog(folder: &Path) -> (PathBuf, Harness<'static, Window>) {
    let originals = study(folder);
    let mut h = loaded(folder, vec![originals.clone()]);
    let ctx = h.ctx.clone();
    h.state_mut().command(&ctx, Command::ShowCopy);
    h.run_steps(8);
    (originals, h)
}

#[test]
fn the_open_study_is_copied_without_identity() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (originals, mut h) = dialog(folder.path());
    let ctx = h.ctx.clone();
    assert_eq!(h.state().app().dialog, Some(Dialog::Copy));
    h.get_by_label_contains("This series (40 files)");
    // Without a folder nothing begins.
    h.state_mut().command(&ctx, Command::StartCopy);
    assert!(h.state().app().copy.job.is_none());
    let out = folder.path().join("copy");
    h.state_mut()
        .event(&ctx, Event::Chosen(AskFor::CopyFolder, vec![out.clone()]));
    let wanted = CopyWanted {
        whole_study: true,
        for_research: true,
        ..CopyWanted::default()
    };
    h.state_mut().command(&ctx, Command::SetCopy(wanted));
    h.run_steps(4);
    h.get_by_label("Write copy").click();
    wait(&mut h, "the copy", |w| !w.app().copy.done.is_empty());
    let done = &h.state().app().copy.done[0];
    assert!(done.starts_with("40 files: 40 written"), "{done}");
    let files: Vec<_> = walkdir::WalkDir::new(&out)
        .into_iter()
        .map(Result::unwrap)
        .filter(|f| f.file_type().is_file())
        .collect();
    assert_eq!(files.len(), 40);
    let name = b"Phantom^Synthetic";
    let names = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        bytes.windows(name.len()).any(|w| w == name)
    };
    let original = fs::read_dir(&originals).unwrap().next().unwrap().unwrap();
    assert!(names(&original.path()), "nothing to take away");
    assert!(!files.iter().any(|file| names(file.path())));
    let verdict = negatoscope::audit::verify(&folder.path().join("home")).unwrap();
    assert!(verdict.ok, "{verdict:?}");
}

/// Stored values of each image by its number.
fn pixels(folder: &Path) -> BTreeMap<i32, Vec<u16>> {
    let files = walkdir::WalkDir::new(folder)
        .into_iter()
        .map(Result::unwrap);
    let images = files.filter(|f| f.file_type().is_file()).map(|f| {
        let object = dicom_object::open_file(f.path()).unwrap();
        let number = object.element(tags::INSTANCE_NUMBER).unwrap();
        let values = object.element(tags::PIXEL_DATA).unwrap();
        (
            number.to_int().unwrap(),
            values.to_multi_int::<u16>().unwrap(),
        )
    });
    images.collect()
}

#[test]
fn what_is_drawn_is_black_in_every_image_of_the_copy_and_nothing_else_is() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (originals, mut h) = dialog(folder.path());
    let ctx = h.ctx.clone();
    let image = h.get_by_label("Image for regions to blacken").rect();
    let columns = 56;
    let at = |x: f32, y: f32| image.min + vec2(x, y) * (image.width() / columns as f32);
    h.drag_at(at(29.5, 27.5));
    h.run_steps(2);
    for step in [0.7, 0.4, 0.0] {
        h.hover_at(at(10.5 + 19.0 * step, 20.5 + 7.0 * step));
        h.run_steps(2);
    }
    h.drop_at(at(10.5, 20.5));
    h.run_steps(4);
    let region = PixelRegion {
        x: 10,
        y: 20,
        width: 20,
        height: 8,
    };
    assert_eq!(h.state().app().copy.wanted.regions, [region]);
    assert_eq!(h.state().app().copy.wanted.drawn_on, [columns, 64]);
    h.get_by_label_contains("1 region, in all images of 56 × 64 pixels");
    h.get_by_label_contains("I have looked at all images")
        .click();
    h.run_steps(4);
    assert!(h.state().app().copy.wanted.reviewed);
    let out = folder.path().join("copy");
    h.state_mut()
        .event(&ctx, Event::Chosen(AskFor::CopyFolder, vec![out.clone()]));
    h.run_steps(4);
    h.get_by_label("Write copy").click();
    wait(&mut h, "the copy", |w| !w.app().copy.done.is_empty());
    let (before, after) = (pixels(&originals), pixels(&out));
    assert_eq!((before.len(), after.len()), (40, 40));
    let mut changed = 0;
    for (number, values) in &after {
        let darkest = *values.iter().min().unwrap();
        for (n, (now, then)) in values.iter().zip(&before[number]).enumerate() {
            let (x, y) = (n % columns, n / columns);
            let inside = (10..30).contains(&x) && (20..28).contains(&y);
            let want = if inside { darkest } else { *then };
            assert_eq!(*now, want, "image {number}, column {x}, row {y}");
            changed += usize::from(now != then);
        }
    }
    assert!(
        changed > 40 * 20 * 8 / 2,
        "{changed} pixels had something to hide"
    );
    // Marked as looked at, for a person said so.
    let mut copies = walkdir::WalkDir::new(&out).into_iter().map(Result::unwrap);
    let one = copies.find(|f| f.file_type().is_file()).unwrap();
    let object = dicom_object::open_file(one.path()).unwrap();
    let mark = object.element(tags::BURNED_IN_ANNOTATION).unwrap();
    assert_eq!(mark.to_str().unwrap().trim(), "NO");

    // Another look begins without what was drawn and said before.
    h.state_mut().command(&ctx, Command::CloseDialog);
    h.state_mut().command(&ctx, Command::ShowCopy);
    h.run_steps(4);
    let wanted = &h.state().app().copy.wanted;
    assert!(wanted.regions.is_empty() && !wanted.reviewed);
}
