//! Series with missing or unreadable slices: what is there stays in its place.

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use negatoscope::dicom::{
    SeriesContext, load_image, load_volume, read_segmentation, write_segmentation,
};
use negatoscope::findings::{AlgorithmType, Provenance, ReviewState, Segment, Segmentation};
use negatoscope::geometry::DVec3;
use negatoscope::study::{CodedConcept, Issue, Uid};
use negatoscope::task::Task;
use negatoscope::volume::{LabelMap, Layout, ModalityLut, Volume};

use crate::dicom_read::{bytes_of, folder, only_volume, orientations, slice};

/// Slices of the phantom at these places, in another order than they lie.
fn write(dir: &std::path::Path, axes: usize, places: &[u16]) {
    for (n, &k) in places.iter().rev().enumerate() {
        let bytes = bytes_of(slice(orientations()[axes], k, n as u16));
        std::fs::write(dir.join(format!("{n}.dcm")), bytes).unwrap();
    }
}

/// Where the phantom's builder puts slice `k` (2.5 mm apart).
fn true_place(axes: usize, k: u16) -> DVec3 {
    DVec3::new(-20.0, 30.0, 40.0) + orientations()[axes].z_axis * 2.5 * f64::from(k)
}

fn assert_in_place(volume: &Volume, axes: usize, places: &[u16]) {
    let [_, _, nk] = volume.geometry.dims();
    assert_eq!(nk, usize::from(places[places.len() - 1] - places[0]) + 1);
    assert_eq!(volume.source.images.len(), nk);
    for k in 0..nk {
        let place = places[0] + k as u16;
        let at = volume.geometry.lps_at(DVec3::new(0.0, 0.0, k as f64));
        // Six decimals in the file.
        assert!(at.distance(true_place(axes, place)) < 1e-5, "slice {k}");
        let value = volume.value_at([3, 2, k as i64]).unwrap();
        if places.contains(&place) {
            assert_eq!(value, f32::from(1000 * place + 23) - 1024.0);
            let image = volume.source.image(k).unwrap();
            assert_eq!(image.sop_instance_uid.as_str(), format!("1.2.3.{place}"));
        } else {
            // The lowest value of the first slice, not something between its neighbors.
            assert_eq!(value, f32::from(1000 * places[0]) - 1024.0);
            assert!(volume.source.image(k).is_none());
        }
    }
}

#[test]
fn clinical_spacing_slices_beyond_a_gap_stay_in_their_place() {
    for axes in 0..orientations().len() {
        let dir = tempfile::tempdir().unwrap();
        let places = [0, 1, 2, 5, 6, 8];
        write(dir.path(), axes, &places);
        let worklist = folder(dir.path());
        let volume = only_volume(&worklist);
        assert_in_place(&volume, axes, &places);
        assert_eq!(volume.layout, Layout::Volumetric);
        assert_eq!(volume.issues.len(), 2, "{:?}", volume.issues);
        for (issue, (count, after, gap_mm)) in volume.issues.iter().zip([(2, 2, 7.5), (1, 6, 5.0)])
        {
            let Issue::MissingSlices {
                count: c,
                after: a,
                gap_mm: g,
            } = issue
            else {
                panic!("{issue:?}")
            };
            assert_eq!((*c, *a), (count, after));
            assert!((g - gap_mm).abs() < 1e-5);
        }
        // The single image is at the same place as in the volume.
        let ctx = SeriesContext::all(&worklist).next().unwrap();
        let one = load_image(ctx, 0, 5).unwrap();
        let at = one.geometry.lps_at(DVec3::ZERO);
        assert!(at.distance(true_place(axes, 8)) < 1e-5);
    }
}

#[test]
fn clinical_spacing_an_unreadable_slice_leaves_its_place_empty() {
    let dir = tempfile::tempdir().unwrap();
    for k in 0..5 {
        let mut bytes = bytes_of(slice(orientations()[0], k, k));
        if k == 2 {
            // The header is fine when the folder is indexed …
            let short = bytes.len() - 1;
            bytes.truncate(short);
            bytes.push(0);
        }
        std::fs::write(dir.path().join(k.to_string()), bytes).unwrap();
    }
    let worklist = folder(dir.path());
    // … and the file is gone when it is loaded.
    std::fs::remove_file(dir.path().join("2")).unwrap();
    let volume = only_volume(&worklist);
    assert_in_place(&volume, 0, &[0, 1, 3, 4]);
    let codes: Vec<_> = volume.issues.iter().map(Issue::code).collect();
    assert_eq!(codes, ["unreadable-slices", "missing-slices"]);
}

#[test]
fn a_gap_wider_than_the_images_justify_makes_two_volumes_in_their_places() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 0, &[0, 1, 2, 30, 31]);
    let worklist = folder(dir.path());
    let ctx = SeriesContext::all(&worklist).next().unwrap();
    let labels: Vec<_> = ctx
        .series
        .stacks
        .iter()
        .map(|s| (s.label.as_str(), s.images.len()))
        .collect();
    assert_eq!(labels, [("part 1", 3), ("part 2", 2)]);
    for (stack, places) in [(0, &[0, 1, 2][..]), (1, &[30, 31][..])] {
        let volume = load_volume(ctx, stack, &Task::new()).unwrap();
        assert_in_place(&volume, 0, places);
        assert_eq!(volume.issues.len(), 1);
        assert_eq!(volume.issues[0].code(), "stack-cut");
    }
}

#[test]
fn clinical_hu_slopes_of_single_slices_stay_with_their_slice_beside_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    for k in [0_u16, 1, 3] {
        let mut d = slice(orientations()[0], k, k);
        let slope = format!("{}", 1.0 + f64::from(k));
        d.put(DataElement::new(
            tags::RESCALE_SLOPE,
            VR::DS,
            PrimitiveValue::from(slope.as_str()),
        ));
        std::fs::write(dir.path().join(k.to_string()), bytes_of(d)).unwrap();
    }
    let volume = only_volume(&folder(dir.path()));
    let ModalityLut::PerSlice(slopes) = &volume.modality_lut else {
        panic!("{:?}", volume.modality_lut)
    };
    assert_eq!(slopes.len(), 4);
    assert_eq!(volume.value_at([1, 0, 3]), Some(3001.0 * 4.0 - 1024.0));
    assert_eq!(volume.value_at([1, 0, 2]), Some(-1024.0));
}

#[test]
fn clinical_laterality_a_seg_of_a_series_with_a_gap_comes_back_in_place() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 4, &[0, 1, 4]);
    let volume = only_volume(&folder(dir.path()));
    let mut map = LabelMap::empty(volume.geometry.clone());
    for k in 0..5 {
        let n = map.geometry.index(k % 4, 1 + k % 3, k);
        map.labels[n] = 1;
    }
    let segmentation = Segmentation {
        map,
        segments: vec![Segment {
            label: 1,
            name: "liver".into(),
            category: CodedConcept::new("123037004", "SCT", "Anatomical Structure"),
            property: CodedConcept::new("10200004", "SCT", "Liver"),
            color: [200, 100, 50],
        }],
        source: volume.source.clone(),
        algorithm: AlgorithmType::Automatic,
        provenance: Provenance::default(),
        issues: volume.issues.clone(),
        review: ReviewState::NotReviewed,
        reviewed: None,
    };
    let path = dir.path().join("seg.dcm");
    let mut next = 500;
    let mut uids = || {
        next += 1;
        Uid::from_u128(next)
    };
    let now = chrono::DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    write_segmentation(&path, &segmentation, &mut uids, now).unwrap();
    let object = dicom_object::open_file(&path).unwrap();
    let frames = object
        .element(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)
        .unwrap()
        .items()
        .unwrap();
    let derived: Vec<bool> = frames
        .iter()
        .map(|f| f.get(tags::DERIVATION_IMAGE_SEQUENCE).is_some())
        .collect();
    assert_eq!(derived, [true, true, false, false, true]);
    let references = object
        .element(tags::REFERENCED_SERIES_SEQUENCE)
        .unwrap()
        .items()
        .unwrap()[0]
        .element(tags::REFERENCED_INSTANCE_SEQUENCE)
        .unwrap()
        .items()
        .unwrap()
        .len();
    assert_eq!(references, 3);
    let comments = object.element(tags::IMAGE_COMMENTS).unwrap();
    assert!(comments.to_str().unwrap().contains("missing-slices"));
    let back = read_segmentation(&path)
        .unwrap()
        .on_source(&volume.geometry, &volume.source)
        .unwrap();
    assert_eq!(back.map.labels, segmentation.map.labels);
    assert!(back.issues.is_empty(), "{:?}", back.issues);
}
