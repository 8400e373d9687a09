//! Faces of real heads: gone, with the brain as it was; what is no whole head is not written.

use std::fs;
use std::path::{Path, PathBuf};

use negatoscope::deidentify::{Key, Options, PixelWork, Report, Request, run};
use negatoscope::dicom::{ImageSeriesOptions, Sources, Tree, decode_file, write_image_series};
use negatoscope::geometry::{DVec3, VolumeGeometry};
use negatoscope::nifti;
use negatoscope::study::Uid;
use negatoscope::task::Task;
use negatoscope::volume::Volume;
use negatoscope::volume::phantom::head_mr;

use crate::deidentify::receipt;

fn key() -> Key {
    Key::new(&[7; 32])
}

fn deface(inputs: &[PathBuf], folder: &Path) -> Report {
    let request = Request {
        inputs,
        out: &folder.join("out"),
        options: Options::default(),
        allow_burned_in: false,
        pixel_work: PixelWork {
            deface: true,
            ..PixelWork::default()
        },
        key: &key(),
    };
    run(&request, &receipt(&folder.join("home")), &Task::new()).unwrap()
}

fn written(folder: &Path, old: &Tree) -> Option<Vec<u8>> {
    let uid = |tag| key().uid(&old.text_of(tag));
    let series = folder.join("out").join(uid(0x0020_000D).as_str());
    let name = format!("{}.dcm", uid(0x0008_0018));
    fs::read(series.join(uid(0x0020_000E).as_str()).join(name)).ok()
}

fn write_series(volume: &Volume, folder: &Path, body_part: &str) -> Vec<PathBuf> {
    let mut next = 900;
    let mut uids = || {
        next += 1;
        Uid::from_u128(next)
    };
    let options = ImageSeriesOptions {
        modality: "MR".into(),
        study_instance_uid: uids(),
        series_instance_uid: uids(),
        frame_of_reference_uid: uids(),
        body_part: body_part.into(),
        ..ImageSeriesOptions::default()
    };
    fs::create_dir_all(folder).unwrap();
    let now = chrono::DateTime::UNIX_EPOCH;
    write_image_series(volume, folder, &options, &mut uids, now).unwrap()
}

fn data() -> Option<PathBuf> {
    let data = std::env::var_os("NEGATOSCOPE_TEST_DATA").map(PathBuf::from);
    if data.is_none() {
        println!("skipped: NEGATOSCOPE_TEST_DATA is not set");
    }
    data
}

/// A T1 image of a whole head, and the brain of it as a network of others has drawn it.
#[test]
fn the_brain_of_a_real_head_stays_and_its_face_goes() {
    let Some(data) = data() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = data.join("brainchop");
    let volume = nifti::read(&data.join("t1_crop.nii.gz"), &Task::new()).unwrap();
    let truth = data.join("reference-output/t1_crop_id01_model5_gw_ae_labels.nii.gz");
    let truth = nifti::read_label_map(&truth, &Task::new()).unwrap();
    assert!(truth.geometry.same_grid(&volume.geometry, 0.01));
    let input = folder.path().join("in");
    let files = write_series(&volume, &input, "HEAD");
    let report = deface(&[input], folder.path());
    assert_eq!(
        (report.written, report.defaced),
        (files.len(), files.len()),
        "{report:#?}"
    );
    let lps = |n: usize| {
        let [ni, nj, _] = volume.geometry.dims();
        let ijk = [n % ni, n / ni % nj, n / ni / nj].map(|v| v as f64);
        volume.geometry.lps_at(DVec3::from_array(ijk))
    };
    let slice = volume.geometry.dims()[0] * volume.geometry.dims()[1];
    let mut after = Vec::with_capacity(slice * files.len());
    for path in &files {
        let tree = Tree::read(fs::read(path).unwrap()).unwrap();
        let new = decode_file(written(folder.path(), &tree).unwrap()).unwrap();
        let samples = &new.frames[0].samples;
        after.extend((0..slice).map(|n| samples.at(n) as f32));
    }
    // The front of the brain, from the network's labels.
    let brain = |n: &usize| truth.labels[*n] > 0;
    let front = (0..after.len()).filter(brain).map(lps);
    let front = front.min_by(|a, b| a.y.total_cmp(&b.y)).unwrap();
    let (mut lost, mut changed, mut nose_before, mut before_planes) = (0, 0, f64::MAX, 0);
    for (n, &new) in after.iter().enumerate() {
        let old = volume.value(n);
        if new.to_bits() != old.to_bits() {
            assert!(new == 0.0);
            changed += 1;
            lost += usize::from(brain(&n));
        }
        let at = lps(n);
        if at.z < front.z - 40.0 {
            if old > 40.0 {
                nose_before = nose_before.min(at.y);
            }
            before_planes += usize::from(after[n] > 40.0 && at.y < front.y);
        }
    }
    let tissue = (0..after.len()).filter(|n| volume.value(*n) > 20.0).count();
    println!(
        "{changed} of {tissue} voxels of tissue or air changed; {lost} of the brain's {}; the face stood out {:.0} mm before the brain, {before_planes} of its voxels are left",
        (0..after.len()).filter(brain).count(),
        front.y - nose_before
    );
    assert_eq!(lost, 0);
    assert!(nose_before < front.y - 10.0);
    assert_eq!(before_planes, 0);
}

/// Thick slices, a tilted gantry, uneven steps: in each slice the rows before one line are gone.
#[test]
fn heads_of_ct_and_mr_lose_what_lies_before_a_line() {
    let Some(data) = data() else { return };
    let data = data.join("dicom-series");
    for (series, images) in [
        ("ct_head_ge_gantry_tilt_irregular", 28),
        ("mr_brain_tumour_Study3/11-T1post-18670", 22),
        ("mr_brain_tumour_Study3/36468-FLAIRreg-58706", 22),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let input = [data.join(series)];
        let report = deface(&input, folder.path());
        assert_eq!(
            (report.written, report.defaced),
            (images, images),
            "{series}: {report:#?}"
        );
        assert!(
            report
                .residual_risk
                .iter()
                .any(|risk| risk.contains("estimate of the brain"))
        );
        let sources = Sources::find(&input, &Task::new()).unwrap();
        let (mut cut, mut all) = (0, 0);
        for source in &sources.found {
            let tree = sources.open(source).unwrap();
            let old = decode_file(fs::read(source.to_string()).unwrap()).unwrap();
            let bytes = written(folder.path(), &tree).unwrap();
            let new_tree = Tree::read(bytes.clone()).unwrap();
            assert!(new_tree.text_of(0x0012_0063).ends_with("113102"));
            let new = decode_file(bytes).unwrap();
            let columns = old.format.columns;
            let (old, new) = (&old.frames[0].samples, &new.frames[0].samples);
            let changed = (0..old.len()).filter(|n| old.at(*n) != new.at(*n));
            let rows = changed.max().map_or(0, |last| last / columns + 1);
            // All rows of the front hold one value: air, or no signal. A head that is turned a little
            // against the image has a slanting line.
            let inks = (0..rows.saturating_sub(6) * columns).map(|n| new.at(n));
            assert!(inks.clone().all(|ink| ink == new.at(0)), "{series}");
            cut += rows;
            all += old.len() / columns;
        }
        println!("{series}: {cut} of {all} rows are gone");
        assert!(
            cut * 100 > all * 4 && cut * 100 < all * 45,
            "{series}: {cut} of {all}"
        );
    }
}

#[test]
fn what_is_no_whole_head_is_not_written_as_one() {
    let axes = [DVec3::X, DVec3::Y, DVec3::Z];
    let corner = DVec3::new(-79.5, -84.0, -40.0);
    let check = |dims: [usize; 3], steps: [f64; 3], body_part: &str, reason: Option<&str>| {
        let folder = tempfile::tempdir().unwrap();
        let grid = VolumeGeometry::from_axes(dims, corner, axes, steps).unwrap();
        let input = folder.path().join("in");
        write_series(&head_mr(3, grid).volume, &input, body_part);
        let report = deface(&[input], folder.path());
        assert_eq!(report.defaced, 0);
        match reason {
            None => assert_eq!(report.written, dims[2], "{report:#?}"),
            Some(reason) => {
                assert_eq!((report.written, report.held_back.len()), (0, dims[2]));
                let said = &report.held_back[0].reason;
                assert!(said.contains(reason), "{said}");
            }
        }
    };
    check([40, 48, 6], [4.0, 4.0, 5.0], "HEAD", Some("too few slices"));
    check(
        [40, 48, 12],
        [4.0, 4.0, 12.0],
        "BRAIN",
        Some("too far apart"),
    );
    // A slab of 55 mm.
    check([40, 48, 12], [4.0, 4.0, 5.0], "HEAD", Some(""));
    // Another part of the body is left alone.
    check([40, 48, 12], [4.0, 4.0, 5.0], "KNEE", None);
}
