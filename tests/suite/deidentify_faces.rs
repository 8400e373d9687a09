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
use crate::deidentify_objects::Object;

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

/// What an enhanced image says of the part of the body.
#[derive(Clone, Copy)]
enum Says<'a> {
    BodyPart(&'a str),
    /// The name of an anatomic region, for all frames.
    Region(&'a str),
}

/// The images of a series as the frames of one enhanced MR image (PS3.3 A.36), in another order.
fn enhanced(files: &[PathBuf], order: &[usize], says: Says<'_>) -> Vec<u8> {
    fn group(tag: u32, item: Object) -> Object {
        let mut out = Object::default();
        out.items(tag, vec![item]);
        out
    }
    let trees: Vec<Tree> = (files.iter())
        .map(|path| Tree::read(fs::read(path).unwrap()).unwrap())
        .collect();
    let first = &trees[0];
    let mut o = Object::default();
    for tag in [0x0020_000D, 0x0020_000E, 0x0020_0052] {
        o.put(tag, b"UI", first.text_of(tag));
    }
    o.put(0x0008_0016, b"UI", "1.2.840.10008.5.1.4.1.1.4.1")
        .put(0x0008_0018, b"UI", "1.2.3.4.5.6")
        .put(0x0008_0008, b"CS", "ORIGINAL\\PRIMARY\\VOLUME\\NONE")
        .put(0x0008_0060, b"CS", "MR")
        .put(0x0010_0020, b"LO", "4711")
        .put(0x0028_0004, b"CS", "MONOCHROME2")
        .put(0x0028_0008, b"IS", order.len().to_string());
    for tag in [
        0x0028_0002,
        0x0028_0010,
        0x0028_0011,
        0x0028_0100,
        0x0028_0101,
        0x0028_0102,
        0x0028_0103,
    ] {
        o.word(tag, first.word_of(tag).unwrap());
    }
    let copy = |from: &Tree, tag: u32| {
        let mut item = Object::default();
        item.put(tag, b"DS", from.text_of(tag));
        item
    };
    let mut shared = group(0x0020_9116, copy(first, 0x0020_0037));
    shared.items(0x0028_9110, vec![copy(first, 0x0028_0030)]);
    match says {
        Says::BodyPart(part) => {
            o.put(0x0018_0015, b"CS", part);
        }
        Says::Region(name) => {
            let mut code = Object::default();
            code.put(0x0008_0100, b"SH", "1")
                .put(0x0008_0102, b"SH", "SCT")
                .put(0x0008_0104, b"LO", name);
            shared.items(0x0020_9071, vec![group(0x0008_2218, code)]);
        }
    }
    let mut frames = Vec::new();
    let mut pixels = Vec::new();
    for &n in order {
        frames.push(group(0x0020_9113, copy(&trees[n], 0x0020_0032)));
        pixels.extend_from_slice(trees[n].pixels());
    }
    o.items(0x5200_9229, vec![shared])
        .items(0x5200_9230, frames)
        .put(0x7FE0_0010, b"OW", pixels);
    o.file(true, "", "")
}

/// Each frame of an enhanced image loses what its single image loses, and nothing else.
#[test]
fn frames_of_an_enhanced_image_lose_what_single_images_lose() {
    let Some(data) = data() else { return };
    let volume = nifti::read(&data.join("brainchop/t1_crop.nii.gz"), &Task::new()).unwrap();
    let place = |name: &str| {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join(name);
        (folder, input)
    };
    let (single, input) = place("in");
    let files = write_series(&volume, &input, "HEAD");
    let report = deface(&[input], single.path());
    assert_eq!(report.defaced, files.len(), "{report:#?}");
    // Neither from top to bottom nor the other way.
    let count = files.len();
    let order: Vec<usize> = (0..count).map(|n| n * 5 % count).collect();
    assert!(!count.is_multiple_of(5));
    let (several, input) = place("in");
    fs::create_dir_all(&input).unwrap();
    let bytes = enhanced(&files, &order, Says::Region("Brain"));
    fs::write(input.join("enhanced.dcm"), &bytes).unwrap();
    let report = deface(&[input], several.path());
    assert_eq!((report.written, report.defaced), (1, 1), "{report:#?}");
    let old = Tree::read(bytes).unwrap();
    let bytes = written(several.path(), &old).unwrap();
    assert!(
        Tree::read(bytes.clone())
            .unwrap()
            .text_of(0x0012_0063)
            .ends_with("113102")
    );
    let new = decode_file(bytes).unwrap();
    assert_eq!(new.frames.len(), count);
    let mut changed = 0;
    for (frame, &n) in new.frames.iter().zip(&order) {
        let before = Tree::read(fs::read(&files[n]).unwrap()).unwrap();
        let alone = decode_file(written(single.path(), &before).unwrap()).unwrap();
        let (there, here) = (&alone.frames[0].samples, &frame.samples);
        assert_eq!(there.len(), here.len());
        assert!(
            (0..here.len()).all(|p| here.at(p).to_bits() == there.at(p).to_bits()),
            "image {n}"
        );
        let was = decode_file(fs::read(&files[n]).unwrap()).unwrap();
        let was = &was.frames[0].samples;
        changed += (0..here.len())
            .filter(|&p| here.at(p).to_bits() != was.at(p).to_bits())
            .count();
    }
    println!("{count} frames as {count} single images, {changed} voxels changed");
    assert!(changed > 100_000);
}

#[test]
fn an_enhanced_image_of_a_part_of_a_head_is_held_back() {
    let axes = [DVec3::X, DVec3::Y, DVec3::Z];
    let corner = DVec3::new(-79.5, -84.0, -40.0);
    let grid = VolumeGeometry::from_axes([40, 48, 12], corner, axes, [4.0, 4.0, 5.0]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("single");
    let files = write_series(&head_mr(3, grid).volume, &images, "");
    let order: Vec<usize> = (0..files.len()).collect();
    for (says, held) in [
        (Says::Region("Head"), true),
        (Says::BodyPart("BRAIN"), true),
        (Says::Region("Knee"), false),
        (Says::BodyPart("KNEE"), false),
    ] {
        let place = tempfile::tempdir().unwrap();
        let input = place.path().join("in");
        fs::create_dir(&input).unwrap();
        fs::write(input.join("x.dcm"), enhanced(&files, &order, says)).unwrap();
        let report = deface(&[input], place.path());
        assert_eq!(
            (report.held_back.len(), report.written, report.defaced),
            (usize::from(held), usize::from(!held), 0),
            "{report:#?}"
        );
    }
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
