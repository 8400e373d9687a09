//! MONAI bundles as the Model Zoo ships them: one ZIP file; and archives that lie.

use std::io::Write;
use std::path::{Path, PathBuf};

use negatoscope::import;
use zip::CompressionMethod::{Deflated, Stored};
use zip::write::{FullFileOptions, SimpleFileOptions, ZipWriter};

const FILES: [&str; 3] = [
    "configs/metadata.json",
    "configs/inference.json",
    "models/model.pt",
];

fn bundle() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/monai_bundle/bundles/ct")
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(bundle().join(name)).unwrap()
}

/// An archive of these entries.
fn archive(path: &Path, entries: &[(String, Vec<u8>)], method: zip::CompressionMethod) {
    let mut zip = ZipWriter::new(std::fs::File::create(path).unwrap());
    let options = SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in entries {
        zip.start_file(name.as_str(), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
}

fn entries(root: &str) -> Vec<(String, Vec<u8>)> {
    FILES
        .iter()
        .map(|name| (format!("{root}{name}"), read(name)))
        .collect()
}

/// The archive is refused, with these words, and nothing lies beside it.
fn refused(folder: &tempfile::TempDir, words: &[&str]) {
    let path = folder.path().join("bundle.zip");
    let mut error: &dyn std::error::Error = &import::read(&path).unwrap_err();
    let mut text = error.to_string();
    while let Some(cause) = error.source() {
        text = format!("{text}: {cause}");
        error = cause;
    }
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

fn place(entries: &[(String, Vec<u8>)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    archive(&folder.path().join("bundle.zip"), entries, Deflated);
    folder
}

#[test]
fn a_zipped_bundle_is_the_same_model_as_its_folder() {
    let expected = import::read(&bundle()).unwrap().remove(0);
    for root in ["", "spleen_ct/", "zoo/spleen_ct/"] {
        for method in [Stored, Deflated] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("bundle.zip");
            let mut all = entries(root);
            all.push((format!("{root}docs/README.md"), b"words".to_vec()));
            // What some systems put beside every file.
            all.push((
                format!("__MACOSX/{root}configs/._metadata.json"),
                vec![0; 10],
            ));
            archive(&path, &all, method);
            let found = import::read(&path).unwrap().remove(0);
            assert_eq!(found.manifest(), expected.manifest(), "{root:?}");
            assert_eq!(found.files().weights, expected.files().weights);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }
}

#[test]
fn archives_that_lead_out_or_hold_several_bundles_are_refused() {
    for name in ["../evil", "a/../../evil", "/etc/evil", "C:\\evil"] {
        let mut all = entries("");
        all.push((name.to_owned(), b"x".to_vec()));
        refused(&place(&all), &["leads out"]);
    }
    let two = [entries("a/"), entries("b/")].concat();
    refused(&place(&two), &["several bundles", "a/", "b/"]);
    let mut no_weights = entries("a/");
    no_weights.remove(2);
    refused(&place(&no_weights), &["models/model.pt is missing"]);
    let other = vec![("readme.txt".to_owned(), b"x".to_vec())];
    refused(&place(&other), &["manifest.json"]);
    let gone = place(&other).path().join("bundle.zip");
    assert!(matches!(import::read(&gone), Err(import::Error::Io { .. })));
}

#[test]
fn links_in_an_archive_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bundle.zip");
    let mut zip = ZipWriter::new(std::fs::File::create(&path).unwrap());
    for (name, bytes) in &entries("")[..2] {
        zip.start_file(name.as_str(), SimpleFileOptions::default())
            .unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.add_symlink("models/model.pt", "/etc/passwd", FullFileOptions::default())
        .unwrap();
    zip.finish().unwrap();
    refused(&folder, &["link", "model.pt"]);
}

#[test]
fn weights_that_unpack_to_more_than_weights_can_are_refused() {
    // A bomb: zeros pack a thousand times.
    let mut all = entries("");
    all[2].1 = vec![0; 64 << 20];
    refused(&place(&all), &["more than weights unpack to"]);
    // Configurations are cut at their limit, whatever they unpack to.
    let mut all = entries("");
    all[0].1 = vec![b' '; 64 << 20];
    refused(&place(&all), &["metadata.json", "more than"]);
}

#[test]
fn sizes_that_are_not_those_of_the_content_are_refused() {
    let packed = read("models/model.pt").len();
    for declared in [u32::MAX - 1, packed as u32 + 1, packed as u32 - 1, 0] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bundle.zip");
        archive(&path, &entries(""), Deflated);
        let mut bytes = std::fs::read(&path).unwrap();
        // The last entry of the directory is the weights'; its unpacked size stands at byte 24.
        let at = bytes
            .windows(4)
            .rposition(|w| w == b"PK\x01\x02")
            .expect("a directory");
        bytes[at + 24..at + 28].copy_from_slice(&declared.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        refused(&folder, &["model.pt"]);
    }
}

#[test]
fn cut_and_altered_archives_are_refused_or_read_as_they_were() {
    let folder = place(&entries("spleen/"));
    let path = folder.path().join("bundle.zip");
    let whole = std::fs::read(&path).unwrap();
    for part in (0..whole.len()).step_by(whole.len() / 40 + 1) {
        std::fs::write(&path, &whole[..part]).unwrap();
        assert!(import::read(&path).is_err(), "cut at {part}");
    }
    let expected = import::read(&bundle()).unwrap().remove(0);
    for at in (0..whole.len()).step_by(whole.len() / 60 + 1) {
        let mut altered = whole.clone();
        altered[at] ^= 0x41;
        std::fs::write(&path, &altered).unwrap();
        if let Ok(found) = import::read(&path) {
            assert_eq!(found[0].files().weights, expected.files().weights, "{at}");
        }
    }
}
