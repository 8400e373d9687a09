//! A copy without identity from the window: files without the phantom's names, on record.

use std::fs;

use egui_kittest::kittest::Queryable;
use negatoscope::app::{AskFor, Command, CopyWanted, Dialog, Event};

use crate::window::{harness, has_gpu, is_loaded, study, wait};

#[test]
fn the_open_study_is_copied_without_identity() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let originals = study(folder.path());
    let mut h = harness(folder.path(), vec![originals.clone()]);
    wait(&mut h, "loading", is_loaded);
    let ctx = h.ctx.clone();
    h.state_mut().command(&ctx, Command::ShowCopy);
    assert_eq!(h.state().app().dialog, Some(Dialog::Copy));
    h.run_steps(8);
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
    let names = |path: &std::path::Path| {
        let bytes = fs::read(path).unwrap();
        bytes.windows(name.len()).any(|w| w == name)
    };
    let original = fs::read_dir(&originals).unwrap().next().unwrap().unwrap();
    assert!(names(&original.path()), "nothing to take away");
    assert!(!files.iter().any(|file| names(file.path())));
    let verdict = negatoscope::audit::verify(&folder.path().join("home")).unwrap();
    assert!(verdict.ok, "{verdict:?}");
}
