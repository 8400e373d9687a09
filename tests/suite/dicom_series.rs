//! Series as scanners and archives really send them: mixed, repeated, cut short.

use std::path::Path;

use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use negatoscope::dicom::{SeriesContext, load_volume};
use negatoscope::geometry::{DMat3, DVec3};
use negatoscope::study::{Issue, Worklist};
use negatoscope::task::Task;
use negatoscope::volume::{Layout, ModalityLut, Quantity, Volume};

use crate::dicom_read::{bytes_of, folder, only_volume, orientations, slice};

fn axial(k: u16) -> InMemDicomObject {
    slice(orientations()[0], k, k)
}

fn with(mut d: InMemDicomObject, changes: &[(Tag, VR, &str)]) -> InMemDicomObject {
    for &(tag, vr, value) in changes {
        d.put(DataElement::new(tag, vr, PrimitiveValue::from(value)));
    }
    d
}

fn write(dir: &Path, images: Vec<InMemDicomObject>) {
    for (n, d) in images.into_iter().enumerate() {
        std::fs::write(dir.join(n.to_string()), bytes_of(d)).unwrap();
    }
}

fn read(images: Vec<InMemDicomObject>) -> Worklist {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), images);
    // The files must outlive the volumes that are loaded from them.
    folder(&dir.keep())
}

/// Label and volume of each stack of the only series, largest first.
fn stacks(worklist: &Worklist) -> Vec<(String, Volume)> {
    let all: Vec<_> = SeriesContext::all(worklist).collect();
    assert_eq!(all.len(), 1);
    (0..all[0].series.stacks.len())
        .map(|n| {
            let volume = load_volume(all[0], n, &Task::new()).unwrap();
            (all[0].series.stacks[n].label.clone(), volume)
        })
        .collect()
}

fn labels(stacks: &[(String, Volume)]) -> Vec<&str> {
    stacks.iter().map(|(label, _)| label.as_str()).collect()
}

fn codes(volume: &Volume) -> Vec<&str> {
    volume.issues.iter().map(Issue::code).collect()
}

#[test]
fn labels_of_stacks_are_distinct() {
    let photometric = tags::PHOTOMETRIC_INTERPRETATION;
    let images = (0..6).map(|k| {
        let term = if k < 4 { "MONOCHROME2" } else { "MONOCHROME1" };
        with(axial(k), &[(photometric, VR::CS, term)])
    });
    assert_eq!(
        labels(&stacks(&read(images.collect()))),
        ["stack 1", "stack 2"]
    );
}

#[test]
fn an_image_cut_short_leaves_its_place_empty_and_its_missing_rows_are_named() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), (0..5).map(axial).collect());
    let path = dir.path().join("2");
    let mut bytes = std::fs::read(&path).unwrap();
    // Rows of 8 bytes: two rows and a part of the third are there.
    bytes.truncate(bytes.len() - 17);
    std::fs::write(&path, bytes).unwrap();
    let worklist = folder(dir.path());
    assert_eq!(worklist.skipped.len(), 1);
    let volume = only_volume(&worklist);
    assert_eq!(volume.geometry.dims(), [4, 5, 5]);
    assert_eq!(codes(&volume), ["missing-slices", "unreadable-slices"]);
    let text = volume.issues[1].to_string();
    assert!(
        text.starts_with("1 image of the series could not"),
        "{text}"
    );
    assert!(text.contains("rows 3 to 5 are missing"), "{text}");
    assert_eq!(volume.value_at([1, 0, 4]), Some(4001.0 - 1024.0));
    assert_eq!(volume.value_at([1, 0, 2]), Some(-1024.0));
}

#[test]
fn clinical_hu_pet_slices_keep_their_own_slopes() {
    let slopes = [0.5, 1.75, 0.125];
    let images = (0..3).map(|k| {
        let slope = slopes[usize::from(k)].to_string();
        with(
            axial(k),
            &[
                (tags::MODALITY, VR::CS, "PT"),
                (tags::UNITS, VR::CS, "BQML"),
                (tags::RESCALE_SLOPE, VR::DS, &slope),
                (tags::RESCALE_INTERCEPT, VR::DS, "0"),
            ],
        )
    });
    let volume = only_volume(&read(images.collect()));
    assert_eq!(volume.quantity, Quantity::ActivityConcentration);
    assert!(matches!(volume.modality_lut, ModalityLut::PerSlice(_)));
    assert_eq!(volume.issues, []);
    for (k, slope) in slopes.iter().enumerate() {
        let stored = (1000 * k + 12) as f32;
        assert_eq!(
            volume.value_at([2, 1, k as i64]),
            Some(stored * *slope as f32)
        );
    }
}

/// An enhanced MR image of 2 × 3 frames: the first index may be time or anything else.
fn enhanced(temporal: bool) -> InMemDicomObject {
    let element = |tag, vr, value| DataElement::new(tag, vr, value);
    let item = |elements: Vec<DataElement<InMemDicomObject>>| {
        let mut d = InMemDicomObject::new_empty();
        for e in elements {
            d.put(e);
        }
        d
    };
    let group =
        |tag, elements| DataElement::new(tag, VR::SQ, DataSetSequence::from(vec![item(elements)]));
    let mut per_frame = Vec::new();
    let mut pixels: Vec<u16> = Vec::new();
    // Frames in no useful order.
    for (phase, k) in [(2_u32, 2_u32), (1, 0), (2, 0), (1, 2), (1, 1), (2, 1)] {
        let position = format!("-20\\30\\{}", 40.0 + 2.5 * f64::from(k));
        let mut content = vec![element(
            tags::DIMENSION_INDEX_VALUES,
            VR::UL,
            PrimitiveValue::U32(vec![phase, k + 1].into()),
        )];
        if temporal {
            content.push(element(
                tags::TEMPORAL_POSITION_INDEX,
                VR::UL,
                PrimitiveValue::from(phase),
            ));
        }
        let transformation = vec![
            element(
                tags::RESCALE_SLOPE,
                VR::DS,
                PrimitiveValue::from(phase.to_string().as_str()),
            ),
            element(tags::RESCALE_INTERCEPT, VR::DS, PrimitiveValue::from("7")),
        ];
        per_frame.push(item(vec![
            group(tags::FRAME_CONTENT_SEQUENCE, content),
            group(
                tags::PLANE_POSITION_SEQUENCE,
                vec![element(
                    tags::IMAGE_POSITION_PATIENT,
                    VR::DS,
                    PrimitiveValue::from(position.as_str()),
                )],
            ),
            group(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE, transformation),
        ]));
        pixels.extend((0..20).map(|n| (1000 * phase + 100 * k) as u16 + n));
    }
    let shared = item(vec![
        group(
            tags::PLANE_ORIENTATION_SEQUENCE,
            vec![element(
                tags::IMAGE_ORIENTATION_PATIENT,
                VR::DS,
                PrimitiveValue::from("1\\0\\0\\0\\1\\0"),
            )],
        ),
        group(
            tags::PIXEL_MEASURES_SEQUENCE,
            vec![
                element(
                    tags::PIXEL_SPACING,
                    VR::DS,
                    PrimitiveValue::from("0.7\\0.5"),
                ),
                element(tags::SLICE_THICKNESS, VR::DS, PrimitiveValue::from("2.5")),
            ],
        ),
    ]);
    let mut d = with(
        axial(0),
        &[
            (tags::SOP_CLASS_UID, VR::UI, "1.2.840.10008.5.1.4.1.1.4.1"),
            (tags::MODALITY, VR::CS, "MR"),
            (tags::NUMBER_OF_FRAMES, VR::IS, "6"),
        ],
    );
    for tag in [
        tags::IMAGE_POSITION_PATIENT,
        tags::IMAGE_ORIENTATION_PATIENT,
        tags::PIXEL_SPACING,
        tags::RESCALE_SLOPE,
        tags::RESCALE_INTERCEPT,
    ] {
        d.remove_element(tag);
    }
    d.put(DataElement::new(
        tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE,
        VR::SQ,
        DataSetSequence::from(vec![shared]),
    ));
    d.put(DataElement::new(
        tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE,
        VR::SQ,
        DataSetSequence::from(per_frame),
    ));
    d.put(DataElement::new(
        tags::PIXEL_DATA,
        VR::OW,
        PrimitiveValue::U16(pixels.into()),
    ));
    d
}

#[test]
fn clinical_geometry_frames_of_several_times_become_a_volume_each() {
    for (temporal, names) in [
        (true, ["phase 1", "phase 2"]),
        (false, ["dimension 1 1", "dimension 1 2"]),
    ] {
        let worklist = read(vec![enhanced(temporal)]);
        let stacks = stacks(&worklist);
        assert_eq!(labels(&stacks), names);
        for (n, (_, volume)) in stacks.iter().enumerate() {
            let phase = n + 1;
            assert_eq!(volume.geometry.dims(), [4, 5, 3]);
            assert_eq!(volume.layout, Layout::Volumetric);
            assert_eq!(volume.issues, []);
            for k in 0..3 {
                let stored = (1000 * phase + 100 * k + 6) as f32;
                let value = volume.value_at([2, 1, k as i64]).unwrap();
                assert_eq!(value, stored * phase as f32 + 7.0);
                let at = volume.geometry.lps_at(DVec3::new(2.0, 1.0, k as f64));
                let expected = DVec3::new(-19.0, 30.7, 40.0 + 2.5 * k as f64);
                assert!(at.distance(expected) < 1e-9);
            }
        }
    }
}

#[cfg(unix)]
#[test]
fn links_that_lead_out_of_the_folder_are_not_followed() {
    use std::os::unix::fs::symlink;
    let outside = tempfile::tempdir().unwrap();
    write(outside.path(), vec![axial(0), axial(1)]);
    let root = tempfile::tempdir().unwrap();
    let inner = root.path().join("series");
    std::fs::create_dir(&inner).unwrap();
    write(&inner, vec![axial(2), axial(3)]);
    symlink(outside.path(), root.path().join("folder-outside")).unwrap();
    symlink(outside.path().join("0"), root.path().join("file-outside")).unwrap();
    symlink(root.path(), inner.join("loop")).unwrap();
    symlink("nowhere", root.path().join("broken")).unwrap();
    let worklist = folder(root.path());
    let (_, series) = worklist.series().next().unwrap();
    assert_eq!(series.images(), 2);
    let mut reasons: Vec<_> = worklist
        .skipped
        .iter()
        .map(|s| {
            let name = s.source.to_string();
            let name = name.rsplit('/').next().unwrap().to_owned();
            (name, s.reason.as_str())
        })
        .collect();
    reasons.sort();
    let out = "a link that leads out of the folder";
    assert_eq!(
        reasons,
        [
            ("broken".to_owned(), out),
            ("file-outside".to_owned(), out),
            ("folder-outside".to_owned(), out),
            ("loop".to_owned(), "a link to a folder that is read anyway"),
        ]
    );
}

#[test]
fn clinical_spacing_images_of_another_pixel_spacing_are_a_volume_of_their_own() {
    let spacing = tags::PIXEL_SPACING;
    let images = (0..7).map(|k| {
        let text = if k < 4 { "0.7\\0.5" } else { "0.9\\0.8" };
        with(axial(k), &[(spacing, VR::DS, text)])
    });
    let stacks = stacks(&read(images.collect()));
    assert_eq!(labels(&stacks), ["0.50 mm pixels", "0.80 mm pixels"]);
    for ((_, volume), expected) in stacks.iter().zip([[0.5, 0.7, 2.5], [0.8, 0.9, 2.5]]) {
        let found = volume.geometry.spacing_mm();
        assert!(
            found
                .iter()
                .zip(expected)
                .all(|(a, b)| (a - b).abs() < 1e-6)
        );
        assert!(codes(volume).contains(&"mixed-format"));
    }
}

#[test]
fn clinical_spacing_radiographs_of_one_series_keep_their_own_scale() {
    let images = [("0.1\\0.1", 0), ("0.2\\0.2", 1)].map(|(spacing, k)| {
        let mut d = with(
            axial(k),
            &[
                (tags::MODALITY, VR::CS, "DX"),
                (tags::IMAGER_PIXEL_SPACING, VR::DS, spacing),
            ],
        );
        d.remove_element(tags::PIXEL_SPACING);
        d.remove_element(tags::IMAGE_POSITION_PATIENT);
        d
    });
    let stacks = stacks(&read(images.to_vec()));
    assert_eq!(stacks.len(), 2);
    for ((_, volume), expected) in stacks.iter().zip([0.1, 0.2]) {
        assert!((volume.geometry.spacing_mm()[0] - expected).abs() < 1e-9);
        assert!(volume.issues.contains(&Issue::DetectorSpacing));
    }
}

#[test]
fn clinical_geometry_frames_of_reference_are_never_mixed() {
    let images = (0..6).map(|k| {
        let uid = if k < 4 { "1.2.3.102" } else { "1.2.3.103" };
        with(axial(k), &[(tags::FRAME_OF_REFERENCE_UID, VR::UI, uid)])
    });
    let stacks = stacks(&read(images.collect()));
    assert_eq!(
        labels(&stacks),
        ["frame of reference 1", "frame of reference 2"]
    );
    for ((_, volume), expected) in stacks.iter().zip(["1.2.3.102", "1.2.3.103"]) {
        let found = volume.source.frame_of_reference_uid.as_ref().unwrap();
        assert_eq!(found.as_str(), expected);
    }
}

#[test]
fn clinical_hu_signed_and_unsigned_images_make_one_volume() {
    let images = (0..4_u16).map(|k| {
        let mut d = axial(k);
        let signed = k % 2;
        d.put(DataElement::new(
            tags::PIXEL_REPRESENTATION,
            VR::US,
            PrimitiveValue::from(signed),
        ));
        let first: u16 = if signed == 1 {
            (-5_i16).cast_unsigned()
        } else {
            40_000
        };
        let mut values = vec![0_u16; 20];
        values[0] = first;
        d.put(DataElement::new(
            tags::PIXEL_DATA,
            VR::OW,
            PrimitiveValue::U16(values.into()),
        ));
        d
    });
    let volume = only_volume(&read(images.collect()));
    assert_eq!(volume.geometry.dims(), [4, 5, 4]);
    assert_eq!(volume.issues, []);
    for k in 0..4 {
        let stored = if k % 2 == 1 { -5.0 } else { 40_000.0 };
        assert_eq!(volume.value_at([0, 0, k]), Some(stored - 1024.0));
    }
}

#[test]
fn images_of_one_place_are_a_run_and_none_is_lost() {
    let images = (0..5_u16).map(|n| {
        with(
            slice(orientations()[0], 0, 9 - n),
            &[
                (tags::SOP_INSTANCE_UID, VR::UI, &format!("1.2.3.50.{n}")),
                (tags::TRIGGER_TIME, VR::DS, &(n * 40).to_string()),
            ],
        )
    });
    let stacks = stacks(&read(images.collect()));
    assert_eq!(stacks.len(), 1);
    let volume = &stacks[0].1;
    assert_eq!(volume.layout, Layout::Images);
    assert_eq!(codes(volume), ["one-place"]);
    let numbers: Vec<_> = volume.source.known_images().map(|i| i.number).collect();
    assert_eq!(numbers, [5, 6, 7, 8, 9].map(Some));
}

#[test]
fn clinical_laterality_two_knees_side_by_side_are_two_volumes() {
    let axes: DMat3 = orientations()[0];
    let images = (0..8_u16).map(|n| {
        let (right, k) = (n % 2 == 1, n / 2);
        let x = if right { -180.0 } else { 20.0 };
        with(
            slice(axes, k, n),
            &[
                (tags::SOP_INSTANCE_UID, VR::UI, &format!("1.2.3.60.{n}")),
                (
                    tags::IMAGE_POSITION_PATIENT,
                    VR::DS,
                    &format!("{x}\\30\\{}", 2.5 * f64::from(k)),
                ),
            ],
        )
    });
    let stacks = stacks(&read(images.collect()));
    assert_eq!(stacks.len(), 2);
    for ((label, volume), x) in stacks.iter().zip([-180.0, 20.0]) {
        assert!(label.starts_with("offset"), "{label}");
        assert_eq!(volume.issues, []);
        assert_eq!(volume.geometry.dims(), [4, 5, 4]);
        assert!((volume.geometry.lps_at(DVec3::ZERO).x - x).abs() < 1e-9);
    }
}

#[test]
fn different_images_of_one_uid_are_kept_and_named() {
    let images = (0..3).map(|k| with(axial(k), &[(tags::SOP_INSTANCE_UID, VR::UI, "1.2.3.70")]));
    let volume = only_volume(&read(images.collect()));
    assert_eq!(volume.geometry.dims(), [4, 5, 3]);
    assert_eq!(codes(&volume), ["uid-repeated"]);
}
