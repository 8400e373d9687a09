//! DICOM SEG and image series for stacks of any orientation, read back by the definition.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use chrono::{DateTime, TimeZone, Utc};
use dicom_dictionary_std::tags;
use dicom_object::{InMemDicomObject, OpenFileOptions};
use negatoscope::dicom::{
    self, ImageSeriesOptions, SeriesContext, WriteError, read_segmentation, write_image_series,
    write_segmentation,
};
use negatoscope::findings::{AlgorithmType, Provenance, ReviewState, Segment, Segmentation};
use negatoscope::geometry::{DMat3, DVec3, VolumeGeometry};
use negatoscope::nifti;
use negatoscope::study::{CodedConcept, Issue, Series, Uid};
use negatoscope::task::Task;
use negatoscope::volume::{
    Calibration, LabelMap, Layout, ModalityLut, Quantity, SourceImage, SourceSeries, Volume, Voxels,
};

pub fn now() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 3, 4, 5, 6, 7).unwrap()
}

/// UIDs 2.25.n, n counting from `first`.
pub fn uids(first: u128) -> impl FnMut() -> Uid {
    let mut next = first;
    move || {
        next += 1;
        Uid::from_u128(next - 1)
    }
}

/// Directions and steps of a stack.
pub struct Stack {
    pub name: &'static str,
    pub dims: [usize; 3],
    pub axes: [DVec3; 3],
    pub spacing_mm: [f64; 3],
    /// Distance of each slice from its place on the grid, along k, in mm.
    pub shift_mm: fn(usize) -> f64,
}

pub fn stacks() -> Vec<Stack> {
    let (x, y, z) = (DVec3::X, DVec3::Y, DVec3::Z);
    let r = DMat3::from_euler(glam::EulerRot::XYZ, 0.31, -0.22, 0.53);
    let even = |_| 0.0;
    let stack = |name, dims, axes, spacing_mm| Stack {
        name,
        dims,
        axes,
        spacing_mm,
        shift_mm: even,
    };
    vec![
        stack("axial", [13, 7, 5], [x, y, z], [0.7, 0.9, 2.5]),
        stack("axial-reversed", [13, 7, 5], [x, y, -z], [0.7, 0.9, 2.5]),
        stack("axial-prone", [13, 7, 5], [-x, -y, z], [0.7, 0.9, 2.5]),
        stack("sagittal", [16, 11, 6], [y, -z, x], [0.8, 1.1, 1.5]),
        stack(
            "sagittal-reversed",
            [16, 11, 6],
            [y, -z, -x],
            [0.8, 1.1, 1.5],
        ),
        stack("coronal", [9, 15, 7], [x, -z, y], [1.2, 0.6, 3.0]),
        stack("coronal-reversed", [9, 15, 7], [x, -z, -y], [1.2, 0.6, 3.0]),
        stack(
            "oblique",
            [17, 10, 6],
            [r.x_axis, r.y_axis, r.z_axis],
            [0.71, 0.83, 1.9],
        ),
        stack(
            "oblique-reversed",
            [17, 10, 6],
            [r.x_axis, r.y_axis, -r.z_axis],
            [0.71, 0.83, 1.9],
        ),
        stack(
            "tilted",
            [13, 9, 6],
            [x, (y * 0.95 - z * 0.312_249_899_919_92).normalize(), z],
            [0.9, 0.9, 4.0],
        ),
        Stack {
            shift_mm: |k| [0.0, 0.4, -0.3, 1.1, 0.2][k % 5],
            ..stack("uneven", [13, 7, 5], [x, y, z], [0.7, 0.9, 2.5])
        },
    ]
}

/// A CT phantom: values that differ in every voxel, a source series without files yet.
pub fn volume(stack: &Stack) -> Volume {
    let geometry = VolumeGeometry::from_axes(
        stack.dims,
        DVec3::new(-41.25, 17.5, 103.125),
        stack.axes,
        stack.spacing_mm,
    )
    .unwrap();
    let voxels = (0..geometry.voxel_count())
        .map(|n| (n % 3000) as u16 + 20)
        .collect();
    let mut new = uids(1_000_000);
    let images = (0..stack.dims[2])
        .map(|k| {
            Some(SourceImage {
                sop_class_uid: Uid::parse("1.2.840.10008.5.1.4.1.1.2").unwrap(),
                sop_instance_uid: new(),
                frame: None,
                number: Some(k as i32 + 1),
                position_lps: Some(
                    geometry.lps_at(DVec3::new(0.0, 0.0, k as f64))
                        + stack.axes[2] * (stack.shift_mm)(k),
                ),
                view: String::new(),
            })
        })
        .collect();
    Volume {
        geometry,
        voxels: Voxels::U16(voxels),
        modality_lut: ModalityLut::Rescale {
            slope: 1.0,
            intercept: -1024.0,
        },
        quantity: Quantity::Hounsfield,
        modality: "CT".into(),
        layout: Layout::Volumetric,
        calibration: Calibration::Patient,
        inverted: false,
        windows: Vec::new(),
        padding: None,
        frame_rate: None,
        source: SourceSeries {
            study_instance_uid: Some(Uid::from_u128(11)),
            series_instance_uid: Some(Uid::from_u128(12)),
            frame_of_reference_uid: Some(Uid::from_u128(13)),
            description: "phantom".into(),
            number: Some(4),
            body_part: "ABDOMEN".into(),
            patient_study: [
                ("PatientName", "Müller^Anna"),
                ("PatientID", "P-1"),
                ("PatientSex", "F"),
                ("StudyDate", "20260102"),
                ("StudyTime", "030405"),
                ("StudyID", "S1"),
            ]
            .map(|(k, v)| (k.to_owned(), v.to_owned().into()))
            .to_vec(),
            images,
        },
        issues: vec![Issue::Synthetic],
    }
}

/// Three labels (1, 2 and 5) in shapes without any symmetry; the first slice stays empty.
pub fn segmentation(volume: &Volume) -> Segmentation {
    let mut map = LabelMap::empty(volume.geometry.clone());
    let [ni, nj, nk] = volume.geometry.dims();
    for k in 1..nk {
        for j in 0..nj {
            for i in 0..ni {
                let label = if i < 3 && j < nj - 2 && (i + 2 * j + k) % 7 != 0 {
                    1
                } else if i > ni / 2 && j > k && k < nk - 1 {
                    2
                } else if i == 4 && j == 1 && k == nk - 1 {
                    5
                } else {
                    0
                };
                map.labels[(k * nj + j) * ni + i] = label;
            }
        }
    }
    let segment = |label, name: &str, code: &str, color| Segment {
        label,
        name: name.into(),
        category: CodedConcept::new("123037004", "SCT", "Anatomical Structure"),
        property: CodedConcept::new(code, "SCT", name),
        color,
    };
    Segmentation {
        map,
        segments: vec![
            segment(1, "Liver", "10200004", [220, 120, 60]),
            segment(2, "Spleen", "78961009", [60, 120, 220]),
            segment(5, "Gallbladder", "28231008", [20, 220, 20]),
        ],
        algorithm: AlgorithmType::Automatic,
        source: volume.source.clone(),
        provenance: Provenance {
            model_id: "phantom-organs".into(),
            model_name: "Phantom organs".into(),
            model_version: "1.2.0".into(),
            model_sha256: "ab".repeat(32),
            device: "cpu (test)".into(),
            parameters: vec![("threshold".into(), "0.5".into())],
            software_version: negatoscope::VERSION.into(),
            ..Provenance::default()
        },
        issues: volume.issues.clone(),
        review: ReviewState::NotReviewed,
        reviewed: None,
    }
}

fn seq(d: &InMemDicomObject, tag: dicom_core::Tag) -> &[InMemDicomObject] {
    d.element(tag).unwrap().items().unwrap()
}
fn floats(d: &InMemDicomObject, tag: dicom_core::Tag) -> Vec<f64> {
    d.element(tag).unwrap().to_multi_float64().unwrap()
}
fn string(d: &InMemDicomObject, tag: dicom_core::Tag) -> String {
    d.element(tag)
        .unwrap()
        .to_str()
        .unwrap()
        .trim_end_matches(['\0', ' '])
        .to_owned()
}

/// Every set bit of a SEG as (segment number, LPS position), by PS3.5 8.1.1 and PS3.3 C.7.6.2.1.1,
/// bit by bit.
fn drawn(path: &Path) -> Vec<(u16, DVec3)> {
    let d = OpenFileOptions::new().open_file(path).unwrap();
    let rows = d.element(tags::ROWS).unwrap().to_int::<usize>().unwrap();
    let columns = d.element(tags::COLUMNS).unwrap().to_int::<usize>().unwrap();
    let bytes = d
        .element(tags::PIXEL_DATA)
        .unwrap()
        .to_bytes()
        .unwrap()
        .into_owned();
    let shared = &seq(&d, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE)[0];
    let o = floats(
        &seq(shared, tags::PLANE_ORIENTATION_SEQUENCE)[0],
        tags::IMAGE_ORIENTATION_PATIENT,
    );
    let spacing = floats(
        &seq(shared, tags::PIXEL_MEASURES_SEQUENCE)[0],
        tags::PIXEL_SPACING,
    );
    let (x, y) = (DVec3::new(o[0], o[1], o[2]), DVec3::new(o[3], o[4], o[5]));
    let mut out = Vec::new();
    let frames = seq(&d, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
    assert_eq!(
        d.element(tags::NUMBER_OF_FRAMES)
            .unwrap()
            .to_int::<usize>()
            .unwrap(),
        frames.len()
    );
    for (n, frame) in frames.iter().enumerate() {
        let s = floats(
            &seq(frame, tags::PLANE_POSITION_SEQUENCE)[0],
            tags::IMAGE_POSITION_PATIENT,
        );
        let number = seq(frame, tags::SEGMENT_IDENTIFICATION_SEQUENCE)[0]
            .element(tags::REFERENCED_SEGMENT_NUMBER)
            .unwrap()
            .to_int::<u16>()
            .unwrap();
        for row in 0..rows {
            for column in 0..columns {
                let bit = (n * rows + row) * columns + column;
                if bytes[bit / 8] & (1 << (bit % 8)) != 0 {
                    let p = x * spacing[1] * column as f64 + y * spacing[0] * row as f64;
                    out.push((number, DVec3::new(s[0], s[1], s[2]) + p));
                }
            }
        }
    }
    out
}

#[test]
fn clinical_laterality_every_voxel_of_a_seg_lies_where_the_mask_does() {
    for stack in stacks() {
        let volume = volume(&stack);
        let segmentation = segmentation(&volume);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seg.dcm");
        write_segmentation(&path, &segmentation, &mut uids(50), now()).unwrap();
        let drawn = drawn(&path);
        let [ni, nj, nk] = stack.dims;
        let mut expected = Vec::new();
        for (number, label) in [(1, 1), (2, 2), (3, 5)] {
            for k in 0..nk {
                for n in 0..ni * nj {
                    if segmentation.map.labels[k * ni * nj + n] == label {
                        let ijk = DVec3::new((n % ni) as f64, (n / ni) as f64, k as f64);
                        let at = volume.geometry.lps_at(ijk) + stack.axes[2] * (stack.shift_mm)(k);
                        expected.push((number, at));
                    }
                }
            }
        }
        assert_eq!(drawn.len(), expected.len(), "{}", stack.name);
        for (a, b) in drawn.iter().zip(&expected) {
            assert_eq!(a.0, b.0, "{}", stack.name);
            // Decimal strings of 16 characters keep 1e-11 mm here.
            assert!(a.1.distance(b.1) < 1e-9, "{}: {a:?} {b:?}", stack.name);
        }
    }
}

#[test]
fn clinical_laterality_a_seg_read_back_is_the_label_map() {
    for stack in stacks() {
        let volume = volume(&stack);
        let segmentation = segmentation(&volume);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seg.dcm");
        write_segmentation(&path, &segmentation, &mut uids(50), now()).unwrap();
        let read = read_segmentation(&path).unwrap();
        let placed = read.on_source(&volume.geometry, &volume.source).unwrap();
        assert_eq!(placed.issues, [], "{}", stack.name);
        let renumbered: Vec<u8> = segmentation
            .map
            .labels
            .iter()
            .map(|&l| if l == 5 { 3 } else { l })
            .collect();
        assert!(placed.map.labels == renumbered, "{}", stack.name);

        // On its own grid: each voxel at the same place in the patient.
        if stack.name != "uneven" {
            let own = read.on_own_grid().unwrap();
            assert_eq!(own.issues, [], "{}", stack.name);
            assert_eq!(
                own.map.labels.iter().filter(|&&l| l > 0).count(),
                renumbered.iter().filter(|&&l| l > 0).count()
            );
            let [ni, nj, _] = own.map.geometry.dims();
            for (n, &label) in own.map.labels.iter().enumerate() {
                let ijk = [n % ni, n / ni % nj, n / (ni * nj)].map(|x| x as f64);
                let there = volume
                    .geometry
                    .ijk_at(own.map.geometry.lps_at(DVec3::from(ijk)));
                let r = there.round();
                assert!(there.distance(r) < 1e-6);
                let index = (r.z as usize * nj + r.y as usize) * ni + r.x as usize;
                assert_eq!(label, renumbered[index], "{}", stack.name);
            }
        }
    }
}

#[test]
fn a_seg_tells_who_made_it_from_what() {
    let volume = volume(&stacks()[0]);
    let segmentation = segmentation(&volume);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seg.dcm");
    let instance = write_segmentation(&path, &segmentation, &mut uids(50), now()).unwrap();
    let d = OpenFileOptions::new().open_file(&path).unwrap();
    for (tag, expected) in [
        (tags::SOP_CLASS_UID, "1.2.840.10008.5.1.4.1.1.66.4"),
        (tags::SOP_INSTANCE_UID, instance.as_str()),
        (tags::STUDY_INSTANCE_UID, "2.25.11"),
        (tags::FRAME_OF_REFERENCE_UID, "2.25.13"),
        (tags::SERIES_DESCRIPTION, "AI Phantom organs 1.2.0"),
        (tags::MODALITY, "SEG"),
        (tags::PATIENT_NAME, "Müller^Anna"),
        (tags::PATIENT_ID, "P-1"),
        (tags::STUDY_DATE, "20260102"),
        (tags::CONTENT_DATE, "20260304"),
        (tags::CONTENT_TIME, "050607"),
        (tags::MANUFACTURER, "Negatoscope"),
        (tags::SOFTWARE_VERSIONS, negatoscope::VERSION),
        (tags::SEGMENTATION_TYPE, "BINARY"),
        (tags::QUALITY_CONTROL_IMAGE, "YES"),
    ] {
        assert_eq!(string(&d, tag), expected, "{tag}");
    }
    let comments = string(&d, tags::IMAGE_COMMENTS);
    assert!(
        comments.contains("not for diagnostic use") && comments.contains("synthetic"),
        "{comments}"
    );
    let reference = &seq(&d, tags::REFERENCED_SERIES_SEQUENCE)[0];
    assert_eq!(string(reference, tags::SERIES_INSTANCE_UID), "2.25.12");
    assert_eq!(seq(reference, tags::REFERENCED_INSTANCE_SEQUENCE).len(), 5);

    let read = read_segmentation(&path).unwrap();
    let names: Vec<_> = read
        .segments
        .iter()
        .map(|s| {
            (
                s.segment.label,
                s.segment.name.as_str(),
                s.segment.property.value.as_str(),
            )
        })
        .collect();
    assert_eq!(
        names,
        [
            (1, "Liver", "10200004"),
            (2, "Spleen", "78961009"),
            (3, "Gallbladder", "28231008")
        ]
    );
    assert_eq!(read.segments[0].algorithm_version, "1.2.0");
    for (s, expected) in read.segments.iter().zip(&segmentation.segments) {
        for (a, b) in s.segment.color.iter().zip(expected.color) {
            assert!(a.abs_diff(b) <= 1);
        }
    }
    assert_eq!(read.referenced_series, [Uid::from_u128(12)]);
}

#[test]
fn what_cannot_be_a_seg_is_refused_and_leaves_no_file() {
    let check = |change: &dyn Fn(&mut Segmentation), expected: &str| {
        let volume = volume(&stacks()[0]);
        let mut s = segmentation(&volume);
        change(&mut s);
        let folder = tempfile::tempdir().unwrap();
        let error = write_segmentation(&folder.path().join("s.dcm"), &s, &mut uids(50), now())
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    };
    check(
        &|s| s.source.study_instance_uid = None,
        "needs a DICOM study",
    );
    check(
        &|s| s.issues.push(Issue::NoGeometry),
        "position and orientation",
    );
    check(
        &|s| drop(s.source.images.pop()),
        "5 slices, its source 4 images",
    );
    check(&|s| drop(s.segments.pop()), "label 5 occurs");
    check(&|s| s.segments[1].label = 1, "label 1 cannot be used");
    check(&|s| s.segments[1].label = 0, "label 0 cannot be used");
    check(
        &|s| {
            let g = &s.map.geometry;
            let axes = [DVec3::X, (DVec3::X * 0.1 + DVec3::Y).normalize(), DVec3::Z];
            s.map.geometry =
                VolumeGeometry::from_axes(g.dims(), DVec3::ZERO, axes, [1.0; 3]).unwrap();
        },
        "need 90°",
    );
}

#[test]
fn a_segmentation_that_found_nothing_is_still_an_object() {
    let volume = volume(&stacks()[0]);
    let mut s = segmentation(&volume);
    s.map.labels.fill(0);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.dcm");
    write_segmentation(&path, &s, &mut uids(50), now()).unwrap();
    let read = read_segmentation(&path).unwrap();
    assert!(
        read.segments
            .iter()
            .all(|s| s.voxels == 0 && s.centroid_lps.is_none())
    );
    let placed = read.on_source(&volume.geometry, &volume.source).unwrap();
    assert!(placed.map.labels.iter().all(|&l| l == 0));
}

#[test]
fn clinical_laterality_a_seg_on_another_grid_is_resampled_in_place() {
    let volume = volume(&stacks()[0]);
    let s = segmentation(&volume);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.dcm");
    write_segmentation(&path, &s, &mut uids(50), now()).unwrap();
    // The same grid, read from the other side: i runs the other way.
    let [ni, nj, nk] = volume.geometry.dims();
    let g = &volume.geometry;
    let mirrored = VolumeGeometry::from_axes(
        g.dims(),
        g.lps_at(DVec3::new(ni as f64 - 1.0, 0.0, 0.0)),
        [-DVec3::X, DVec3::Y, DVec3::Z],
        g.spacing_mm(),
    )
    .unwrap();
    let placed = read_segmentation(&path)
        .unwrap()
        .on_source(&mirrored, &SourceSeries::default())
        .unwrap();
    assert_eq!(placed.issues[0].code(), "seg-resampled");
    for k in 0..nk {
        for j in 0..nj {
            for i in 0..ni {
                let a = placed.map.labels[(k * nj + j) * ni + i];
                let b = s.map.labels[(k * nj + j) * ni + (ni - 1 - i)];
                assert_eq!(a, if b == 5 { 3 } else { b });
            }
        }
    }
}

pub fn options() -> ImageSeriesOptions {
    ImageSeriesOptions {
        modality: "CT".into(),
        study_instance_uid: Uid::from_u128(11),
        series_instance_uid: Uid::from_u128(12),
        frame_of_reference_uid: Uid::from_u128(13),
        patient_study: vec![("PatientID".into(), "P-1".to_owned().into())],
        series_description: "phantom".into(),
        series_number: 4,
        body_part: "ABDOMEN".into(),
        synthetic: true,
    }
}

#[test]
fn an_image_series_keeps_stored_values_and_says_that_it_is_synthetic() {
    let volume = volume(&stacks()[7]);
    let folder = tempfile::tempdir().unwrap();
    let paths = write_image_series(
        &volume,
        folder.path(),
        &options(),
        &mut uids(1_000_000),
        now(),
    )
    .unwrap();
    assert_eq!(paths.len(), 6);
    let Voxels::U16(stored) = &volume.voxels else {
        unreachable!()
    };
    for (k, path) in paths.iter().enumerate() {
        let d = OpenFileOptions::new().open_file(path).unwrap();
        assert_eq!(string(&d, tags::PATIENT_NAME), "Phantom^Synthetic");
        assert_eq!(
            string(&d, tags::IMAGE_COMMENTS),
            "SYNTHETIC – not a patient"
        );
        assert_eq!(string(&d, tags::QUALITY_CONTROL_IMAGE), "YES");
        assert_eq!(
            string(&d, tags::SOP_INSTANCE_UID),
            volume.source.image(k).unwrap().sop_instance_uid.as_str()
        );
        assert_eq!(floats(&d, tags::RESCALE_INTERCEPT), [-1024.0]);
        assert_eq!(floats(&d, tags::PIXEL_SPACING), [0.83, 0.71]);
        let position = DVec3::from_slice(&floats(&d, tags::IMAGE_POSITION_PATIENT));
        assert!(position.distance(volume.source.image(k).unwrap().position_lps.unwrap()) < 1e-9);
        let words = d
            .element(tags::PIXEL_DATA)
            .unwrap()
            .to_multi_int::<u16>()
            .unwrap();
        assert_eq!(words, stored[k * 170..(k + 1) * 170]);
    }
}

#[test]
fn fractional_values_are_rounded_to_16_bits_over_their_range() {
    let mut v = volume(&stacks()[0]);
    v.modality_lut = ModalityLut::IDENTITY;
    v.voxels = Voxels::F32(
        (0..v.geometry.voxel_count())
            .map(|n| n as f32 * 0.37 - 50.0)
            .collect(),
    );
    let mut o = options();
    o.modality = "MR".into();
    let folder = tempfile::tempdir().unwrap();
    let paths = write_image_series(&v, folder.path(), &o, &mut uids(1), now()).unwrap();
    let step = f64::from(v.range().unwrap().1 - v.range().unwrap().0) / 65535.0;
    for (k, path) in paths.iter().enumerate() {
        let d = OpenFileOptions::new().open_file(path).unwrap();
        let (slope, intercept) = (
            floats(&d, tags::RESCALE_SLOPE)[0],
            floats(&d, tags::RESCALE_INTERCEPT)[0],
        );
        let words = d
            .element(tags::PIXEL_DATA)
            .unwrap()
            .to_multi_int::<u16>()
            .unwrap();
        for (n, word) in words.into_iter().enumerate() {
            let value = f64::from(word) * slope + intercept;
            // Half a step, and f32 of values up to 200.
            assert!((value - f64::from(v.value(k * 91 + n))).abs() < 0.5 * step + 1e-4);
        }
    }
    o.modality = "US".into();
    assert!(matches!(
        write_image_series(&v, folder.path(), &o, &mut uids(1), now()),
        Err(WriteError::Modality { .. })
    ));
}

/// Writes every stack as images, SEG and NIfTI: `folder/<stack>/{images/, segmentation.dcm, labels.nii}`.
fn write_cases(folder: &Path) {
    for stack in stacks() {
        let mut volume = volume(&stack);
        if stack.name == "uneven" {
            continue; // NIfTI cannot say where uneven slices are
        }
        let case = folder.join(stack.name);
        let images = case.join("images");
        fs::create_dir_all(&images).unwrap();
        let mut o = options();
        o.patient_study.clone_from(&volume.source.patient_study);
        o.synthetic = false;
        write_image_series(&volume, &images, &o, &mut uids(1_000_000), now()).unwrap();
        volume.issues.clear();
        let mut s = segmentation(&volume);
        // Segment numbers have no gaps; the label map of the check should have none either.
        for label in &mut s.map.labels {
            if *label == 5 {
                *label = 3;
            }
        }
        s.segments[2].label = 3;
        write_segmentation(&case.join("segmentation.dcm"), &s, &mut uids(50), now()).unwrap();
        nifti::write_label_map(&case.join("labels.nii.gz"), &s.map, &s.segments).unwrap();
    }
}

#[test]
fn an_independent_reader_sees_the_same_voxels_in_the_same_place() {
    let (_temporary, folder) = case_folder("phantoms");
    write_cases(&folder);
    check_with_highdicom(&folder);
}

/// A temporary folder, or one that stays, for a look at the files with other checkers.
fn case_folder(name: &str) -> (tempfile::TempDir, PathBuf) {
    let temporary = tempfile::tempdir().unwrap();
    let root = std::env::var_os("NEGATOSCOPE_KEEP_CASES")
        .map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let folder = root.join(name);
    fs::create_dir_all(&folder).unwrap();
    (temporary, folder)
}

/// Runs the independent readers over a folder of cases, where there is a Python that has them.
fn check_with_highdicom(folder: &Path) {
    let Some(python) = std::env::var_os("NEGATOSCOPE_PYTHON") else {
        println!("skipped: NEGATOSCOPE_PYTHON is not set (a Python with highdicom and nibabel)");
        return;
    };
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/seg/check_with_highdicom.py");
    let done = Command::new(python)
        .arg(script)
        .arg(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    println!("{said}");
    let wrong = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}{wrong}");
}

#[test]
fn clinical_laterality_segs_of_real_series_lie_on_their_images() {
    let Some(data) = test_data() else { return };
    let (_temporary, folder) = case_folder("real");
    let parts = [
        "dicom-series",
        "dicom-with-nifti-truth",
        "dicom-objects/dcmqi/24x38x3",
    ]
    .map(|part| data.join(part));
    let worklist = dicom::index(&parts, &Task::new()).unwrap();
    let mut cases = 0;
    for patient in &worklist.patients {
        for study in &patient.studies {
            for series in &study.series {
                let context = SeriesContext {
                    patient,
                    study,
                    series,
                };
                for stack in 0..series.stacks.len() {
                    let Ok(volume) = dicom::load_volume(context, stack, &Task::new()) else {
                        continue;
                    };
                    if volume.layout == Layout::Volumetric && volume.geometry.dims()[2] > 1 {
                        real_case(&folder.join(format!("{cases:02}")), &volume, series);
                        cases += 1;
                    }
                }
            }
        }
    }
    assert!(cases >= 8, "{cases}");
    check_with_highdicom(&folder);
}

/// A SEG of what is bright in a volume, different on both sides, with its images by name.
fn real_case(folder: &Path, volume: &Volume, series: &Series) {
    fs::create_dir_all(folder).unwrap();
    let (low, high) = volume.range().unwrap();
    let mut s = segmentation(volume);
    let [ni, nj, _] = volume.geometry.dims();
    for n in 0..s.map.labels.len() {
        let share = (volume.value(n) - low) / (high - low).max(1e-6);
        s.map.labels[n] = match share {
            x if x > 0.6 => 1,
            x if x > 0.3 && n % ni < ni / 3 => 2,
            x if x > 0.2 && n / ni % nj < nj / 4 => 3,
            _ => 0,
        };
    }
    s.segments[2].label = 3;
    write_segmentation(&folder.join("segmentation.dcm"), &s, &mut uids(50), now()).unwrap();
    let read = read_segmentation(&folder.join("segmentation.dcm")).unwrap();
    let placed = read.on_source(&volume.geometry, &volume.source).unwrap();
    assert_eq!(placed.issues, []);
    assert!(placed.map == s.map);
    nifti::write_label_map(&folder.join("labels.nii.gz"), &s.map, &s.segments).unwrap();
    let mut listed = String::new();
    for image in &volume.source.images {
        let Some(image) = image else {
            listed.push('\n'); // no image is known of this slice
            continue;
        };
        let instance = series
            .stacks
            .iter()
            .flat_map(|stack| &stack.images)
            .find(|i| {
                i.sop_instance_uid == image.sop_instance_uid
                    && image.frame.is_none_or(|frame| frame == i.frame)
            })
            .unwrap();
        listed.push_str(&instance.source.to_string());
        if let Some(frame) = image.frame {
            listed.push('\t');
            listed.push_str(&(frame + 1).to_string());
        }
        listed.push('\n');
    }
    fs::write(folder.join("images.txt"), listed).unwrap();
}

fn test_data() -> Option<PathBuf> {
    let found = std::env::var_os("NEGATOSCOPE_TEST_DATA").map(PathBuf::from);
    if found.is_none() {
        println!("skipped: NEGATOSCOPE_TEST_DATA is not set");
    }
    found
}

#[test]
fn segmentations_of_other_programs_are_read() {
    let Some(data) = test_data() else { return };
    let objects = data.join("dicom-objects");
    let check = |name: &str, segments: usize, voxels: u64, codes: &[&str]| {
        let read = dicom::read_segmentation(&objects.join(name)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(read.segments.len(), segments, "{name}");
        assert_eq!(
            read.segments.iter().map(|s| s.voxels).sum::<u64>(),
            voxels,
            "{name}"
        );
        let own = read.on_own_grid().unwrap();
        let found: Vec<&str> = read
            .issues
            .iter()
            .chain(&own.issues)
            .map(Issue::code)
            .collect();
        assert_eq!(found, codes, "{name}");
    };
    // Counted by highdicom and pydicom.
    check("dcmqi/liver.dcm", 1, 107_098, &[]);
    check("dcmqi/24x38x3/seg_label.seg", 1, 315, &[]);
    check("dcmqi/sparse-labelmap-ppv5.dcm", 1, 630, &[]);
    check(
        "highdicom/seg_image_ct_binary_fractional.dcm",
        1,
        638,
        &["seg-fractional-cut"],
    );
    check(
        "highdicom/seg_image_ct_binary_overlap.dcm",
        2,
        80,
        &["seg-overlap"],
    );
    // One frame cut out of an object, without its functional groups: no place in the patient.
    let cut = dicom::read_segmentation(&objects.join("liver_1frame.dcm")).unwrap_err();
    assert!(cut.to_string().contains("Functional Groups"), "{cut}");
    let slide = dicom::read_segmentation(
        &objects.join("highdicom/seg_image_sm_control_labelmap_palette_color.dcm"),
    );
    assert!(slide.is_err());
    let image = dicom::read_segmentation(&objects.join("dcmqi/01.dcm")).unwrap_err();
    assert!(
        image.to_string().contains("not a DICOM segmentation"),
        "{image}"
    );
}

/// Segmentations in every type and encoding, written by other programs.
#[test]
fn clinical_laterality_segs_of_every_encoding_hold_the_same_voxels() {
    let Some(python) = std::env::var_os("NEGATOSCOPE_PYTHON") else {
        println!("skipped: NEGATOSCOPE_PYTHON is not set (a Python with highdicom and nibabel)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/seg/make_encodings.py");
    let done = Command::new(python)
        .arg(script)
        .arg(folder.path())
        .output()
        .unwrap();
    println!("{}", String::from_utf8_lossy(&done.stdout));
    let wrong = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{wrong}");
    let mut read = Vec::new();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "dcm") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let truth = fs::read(path.with_extension("labels")).unwrap();
        let seg = read_segmentation(&path).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        let cut = seg.issues.iter().any(|i| i.code() == "seg-fractional-cut");
        assert_eq!(cut, name.starts_with("fractional"), "{name}");
        let own = seg.on_own_grid().unwrap();
        assert_eq!(own.issues, [], "{name}");
        assert_eq!(own.map.geometry.dims(), [35, 33, 5], "{name}");
        let far = own.map.geometry.lps_at(DVec3::new(34.0, 32.0, 4.0));
        let expected = DVec3::new(-20.0 + 34.0 * 0.5, 30.0 + 32.0 * 0.7, 50.0);
        assert!(far.distance(expected) < 1e-9, "{name}: {far}");
        assert!(own.map.labels == truth, "{name}");
        for segment in &seg.segments {
            let label = segment.segment.label;
            let drawn: u64 = truth.iter().map(|&l| u64::from(l == label)).sum();
            assert_eq!(segment.voxels, drawn, "{name}");
        }
        read.push(name);
    }
    // What needs no encoder but Python's own is always there.
    for name in [
        "binary-explicit",
        "binary-implicit",
        "binary-deflated",
        "binary-rle-by-hand",
        "binary-deflated-frames",
        "fractional-rle",
        "labelmap-rle",
        "labelmap-16-bit",
    ] {
        assert!(read.iter().any(|r| r == name), "{name} of {read:?}");
    }
}

#[test]
fn altered_segs_never_panic() {
    let volume = volume(&stacks()[0]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.dcm");
    write_segmentation(&path, &segmentation(&volume), &mut uids(50), now()).unwrap();
    let bytes = fs::read(&path).unwrap();
    let other = folder.path().join("t.dcm");
    for n in 0..2000_usize {
        let mut changed = bytes.clone();
        if n % 3 > 0 {
            let at = 132 + n * 104_729 % (bytes.len() - 132);
            changed[at] = changed[at].wrapping_add((n % 255) as u8 + 1);
        } else {
            changed.truncate(n * 7919 % bytes.len());
        }
        fs::write(&other, &changed).unwrap();
        if let Ok(read) = read_segmentation(&other) {
            let _ = read.on_source(&volume.geometry, &volume.source);
            let _ = read.on_own_grid();
        }
    }
}

#[test]
fn hostile_files_are_refused_as_segs() {
    let Some(data) = test_data() else { return };
    let mut count = 0;
    for entry in walkdir::WalkDir::new(data.join("malformed")) {
        let entry = entry.unwrap();
        if entry.file_type().is_file() {
            count += 1;
            // None is a segmentation; what matters is that each ends, with an error.
            assert!(
                read_segmentation(entry.path()).is_err(),
                "{}",
                entry.path().display()
            );
        }
    }
    assert!(count > 30);
}
