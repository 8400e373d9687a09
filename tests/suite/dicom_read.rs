//! From files to volumes: geometry and values against independent truths, doubts, bad input.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use negatoscope::dicom::{Error, SeriesContext, index, load_image, load_volume, thumbnail};
use negatoscope::geometry::{DMat3, DVec3};
use negatoscope::study::{Issue, Worklist};
use negatoscope::task::Task;
use negatoscope::volume::{Layout, Quantity, Volume, Voxels};
use proptest::prelude::*;

use crate::dicom_decode::data;

pub fn folder(path: &Path) -> Worklist {
    index(&[path.to_owned()], &Task::new()).unwrap()
}

/// The only stack of the only series.
pub fn only_volume(worklist: &Worklist) -> Volume {
    let all: Vec<_> = SeriesContext::all(worklist).collect();
    assert_eq!(all.len(), 1, "one series, skipped {:?}", worklist.skipped);
    assert_eq!(all[0].series.stacks.len(), 1, "{:?}", all[0].series.stacks);
    load_volume(all[0], 0, &Task::new()).unwrap()
}

/// A NIfTI-1 file, read literally: dims, RAS affine of voxel indices, values by channel.
pub struct Nifti {
    pub dims: [usize; 3],
    pub rows: [[f64; 4]; 3],
    pub values: Vec<Vec<f64>>,
}

pub fn read_nifti(path: &Path) -> Nifti {
    let mut b = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap())
        .read_to_end(&mut b)
        .unwrap();
    let i16_at = |n: usize| i16::from_le_bytes([b[n], b[n + 1]]);
    let f32_at = |n: usize| f64::from(f32::from_le_bytes([b[n], b[n + 1], b[n + 2], b[n + 3]]));
    assert_eq!(b[..4], 348_i32.to_le_bytes(), "little endian NIfTI-1");
    let dims = [42, 44, 46].map(|n| i16_at(n) as usize);
    assert!(i16_at(254) > 0, "a file with sform");
    let rows = [280, 296, 312].map(|n| [0, 4, 8, 12].map(|m| f32_at(n + m)));
    let (slope, inter) = match (f32_at(112), f32_at(116)) {
        (s, i) if s != 0.0 && s.is_finite() => (s, i),
        _ => (1.0, 0.0),
    };
    let at = f32_at(108) as usize;
    let count: usize = dims.iter().product();
    let scaled = |x: f64| x * slope + inter;
    let values = match i16_at(70) {
        2 => vec![
            b[at..at + count]
                .iter()
                .map(|&x| scaled(x.into()))
                .collect(),
        ],
        4 => vec![
            b[at..]
                .chunks_exact(2)
                .take(count)
                .map(|c| scaled(i16::from_le_bytes([c[0], c[1]]).into()))
                .collect(),
        ],
        512 => vec![
            b[at..]
                .chunks_exact(2)
                .take(count)
                .map(|c| scaled(u16::from_le_bytes([c[0], c[1]]).into()))
                .collect(),
        ],
        8 => vec![
            b[at..]
                .chunks_exact(4)
                .take(count)
                .map(|c| scaled(i32::from_le_bytes([c[0], c[1], c[2], c[3]]).into()))
                .collect(),
        ],
        16 => vec![
            b[at..]
                .chunks_exact(4)
                .take(count)
                .map(|c| scaled(f32::from_le_bytes([c[0], c[1], c[2], c[3]]).into()))
                .collect(),
        ],
        64 => vec![
            b[at..]
                .chunks_exact(8)
                .take(count)
                .map(|c| {
                    scaled(f64::from_le_bytes([
                        c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7],
                    ]))
                })
                .collect(),
        ],
        // RGB24 and RGBA32.
        kind @ (128 | 2304) => {
            let size = if kind == 128 { 3 } else { 4 };
            let channel = |c: usize| {
                let pixels = b[at..].chunks_exact(size).take(count);
                pixels.map(|p| f64::from(p[c])).collect()
            };
            (0..3).map(channel).collect()
        }
        other => panic!("data type {other}"),
    };
    Nifti { dims, rows, values }
}

/// Every voxel of `volume` lies on a voxel of the truth with the same value.
fn assert_equals_nifti(volume: &Volume, truth: &Nifti) {
    assert_eq!(
        volume.geometry.voxel_count(),
        truth.dims.iter().product::<usize>()
    );
    let r = truth.rows;
    let matrix = DMat3::from_cols(
        DVec3::new(r[0][0], r[1][0], r[2][0]),
        DVec3::new(r[0][1], r[1][1], r[2][1]),
        DVec3::new(r[0][2], r[1][2], r[2][2]),
    );
    let origin = DVec3::new(r[0][3], r[1][3], r[2][3]);
    let inverse = matrix.inverse();
    let [ni, nj, nk] = volume.geometry.dims();
    for k in 0..nk {
        for j in 0..nj {
            for i in 0..ni {
                let lps = volume
                    .geometry
                    .lps_at(DVec3::new(i as f64, j as f64, k as f64));
                let ras = DVec3::new(-lps.x, -lps.y, lps.z);
                let at = inverse * (ras - origin);
                // f32 affines of a head: positions agree to a thousandth of a voxel.
                assert!(
                    (at - at.round()).abs().max_element() < 5e-3,
                    "{at} at {i},{j},{k}"
                );
                let at = at.round();
                let n =
                    (at.z as usize * truth.dims[1] + at.y as usize) * truth.dims[0] + at.x as usize;
                let mine = volume.geometry.index(i, j, k);
                if let Voxels::Rgb8(v) = &volume.voxels {
                    let truth: Vec<f64> = truth.values.iter().map(|c| c[n]).collect();
                    assert_eq!(v[mine].map(f64::from).to_vec(), truth);
                } else {
                    let (value, truth) = (f64::from(volume.value(mine)), truth.values[0][n]);
                    // One step of the truth's own rounding to integers or f32.
                    assert!(
                        (value - truth).abs() <= 0.5 + 1e-5 * truth.abs(),
                        "{value} {truth}"
                    );
                }
            }
        }
    }
}

#[test]
fn clinical_geometry_series_equal_their_nifti_truth() {
    let Some(data) = data() else { return };
    let root = data.join("dicom-with-nifti-truth");
    for (dicom, truth) in [
        ("ge/anatomical/001", "ge/anatomical/001_ground_truth.nii.gz"),
        (
            "philips_enhanced/anatomical/001",
            "philips_enhanced/anatomical/001_ground_truth.nii.gz",
        ),
        (
            "generic/compressed/001",
            "generic/compressed/001_ground_truth.nii.gz",
        ),
        (
            "generic/compressed_jpeg/001",
            "generic/compressed/001_ground_truth.nii.gz",
        ),
        (
            "generic/compressed_jpegls/001",
            "generic/compressed/001_ground_truth.nii.gz",
        ),
        (
            "generic/compressed_rle/001",
            "generic/compressed/001_ground_truth.nii.gz",
        ),
        ("generic/rgb/001", "generic/rgb/001_ground_truth.nii.gz"),
    ] {
        let volume = only_volume(&folder(&root.join(dicom)));
        assert_eq!(volume.layout, Layout::Volumetric, "{dicom}");
        assert_equals_nifti(&volume, &read_nifti(&root.join(truth)));
    }
}

#[test]
fn doubtful_series_carry_their_issue_with_numbers() {
    let Some(data) = data() else { return };
    let tilt = only_volume(&folder(
        &data.join("dicom-series/ct_head_ge_gantry_tilt_irregular"),
    ));
    assert_eq!(tilt.geometry.dims(), [512, 512, 28]);
    assert!(
        tilt.issues
            .iter()
            .any(|i| matches!(i, Issue::GantryTilt { degrees } if (degrees - 18.5).abs() < 0.1))
    );
    assert!(
        tilt.issues
            .iter()
            .any(|i| matches!(i, Issue::UnevenSpacing { .. }))
    );
    assert_eq!(tilt.quantity, Quantity::Hounsfield);
    for (name, dims, issue) in [
        (
            "malformed/series/duplicate_positions",
            [64, 64, 5],
            Some(Issue::DuplicateSlices { count: 4 }),
        ),
        (
            "malformed/series/missing_slices",
            [64, 64, 14],
            Some(Issue::MissingSlices {
                count: 5,
                after: 3,
                gap_mm: 18.0,
            }),
        ),
        (
            "malformed/series/reversed_instance_numbers",
            [64, 64, 9],
            None,
        ),
        (
            "dicom-with-nifti-truth/failing/sliceincrement",
            [512, 512, 5],
            Some(Issue::MissingSlices {
                count: 1,
                after: 2,
                gap_mm: 10.0,
            }),
        ),
    ] {
        let volume = only_volume(&folder(&data.join(name)));
        assert_eq!(volume.geometry.dims(), dims, "{name}");
        assert_eq!(
            volume.issues,
            issue.into_iter().collect::<Vec<_>>(),
            "{name}"
        );
    }
    let mixed = folder(&data.join("malformed/series/mixed_sizes"));
    let (_, series) = mixed.series().next().unwrap();
    assert_eq!(series.issues, [Issue::MixedFormat { count: 1 }]);
    assert_eq!(series.stacks.len(), 2);
}

#[test]
fn every_malformed_file_has_a_reason_or_a_volume() {
    let Some(data) = data() else { return };
    for part in [
        "malformed/synthetic",
        "malformed/as-found",
        "malformed/as-found/fo-dicom",
    ] {
        for entry in std::fs::read_dir(data.join(part)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                continue;
            }
            let worklist = folder(&path);
            let all: Vec<_> = SeriesContext::all(&worklist).collect();
            assert_eq!(all.len() + worklist.skipped.len(), 1, "{}", path.display());
            for skipped in &worklist.skipped {
                assert!(skipped.reason.len() > 10, "{}", path.display());
            }
            for ctx in all {
                for stack in 0..ctx.series.stacks.len() {
                    let _ = thumbnail(ctx, stack);
                    match load_volume(ctx, stack, &Task::new()) {
                        Ok(volume) => {
                            assert_eq!(volume.voxels.len(), volume.geometry.voxel_count());
                        }
                        Err(error) => assert!(error.to_string().len() > 10, "{}", path.display()),
                    }
                }
            }
        }
    }
    let reason = |name: &str| {
        folder(&data.join("malformed/synthetic").join(name)).skipped[0]
            .reason
            .clone()
    };
    assert!(reason("sq_nested_deep.dcm").contains("64 deep"));
    assert!(reason("rows_cols_huge.dcm").contains("holds 512 bytes"));
    assert!(reason("deflate_bomb.dcm").contains("refused"));
    assert!(reason("trunc_in_pixels.dcm").contains("5329"));
}

/// One slice of a CT phantom: value = 1000·k + 10·j + i − 1024 HU in stored values.
pub fn slice(axes: DMat3, k: u16, number: u16) -> InMemDicomObject {
    let position = DVec3::new(-20.0, 30.0, 40.0) + axes.z_axis * 2.5 * f64::from(k);
    let ds = |values: &[f64]| {
        PrimitiveValue::from(
            values
                .iter()
                .map(|v| format!("{v:.6}"))
                .collect::<Vec<_>>()
                .join("\\"),
        )
    };
    let text = |t: &str| PrimitiveValue::from(t);
    let mut d = InMemDicomObject::new_empty();
    let mut put = |tag: Tag, vr: VR, value: PrimitiveValue| {
        d.put(DataElement::new(tag, vr, value));
    };
    put(
        tags::SOP_CLASS_UID,
        VR::UI,
        text("1.2.840.10008.5.1.4.1.1.2"),
    );
    put(tags::SOP_INSTANCE_UID, VR::UI, text(&format!("1.2.3.{k}")));
    put(tags::STUDY_INSTANCE_UID, VR::UI, text("1.2.3.100"));
    put(tags::SERIES_INSTANCE_UID, VR::UI, text("1.2.3.101"));
    put(tags::FRAME_OF_REFERENCE_UID, VR::UI, text("1.2.3.102"));
    put(tags::MODALITY, VR::CS, text("CT"));
    put(tags::PATIENT_NAME, VR::PN, text("Phantom^Test"));
    put(tags::INSTANCE_NUMBER, VR::IS, text(&number.to_string()));
    put(
        tags::IMAGE_POSITION_PATIENT,
        VR::DS,
        ds(&position.to_array()),
    );
    let (r, c) = (axes.x_axis, axes.y_axis);
    put(
        tags::IMAGE_ORIENTATION_PATIENT,
        VR::DS,
        ds(&[r.x, r.y, r.z, c.x, c.y, c.z]),
    );
    put(tags::PIXEL_SPACING, VR::DS, ds(&[0.7, 0.5]));
    put(tags::RESCALE_SLOPE, VR::DS, text("1"));
    put(tags::RESCALE_INTERCEPT, VR::DS, text("-1024"));
    for (tag, value) in [
        (tags::SAMPLES_PER_PIXEL, 1_u16),
        (tags::ROWS, 5),
        (tags::COLUMNS, 4),
        (tags::BITS_ALLOCATED, 16),
        (tags::BITS_STORED, 16),
        (tags::HIGH_BIT, 15),
        (tags::PIXEL_REPRESENTATION, 0),
    ] {
        put(tag, VR::US, PrimitiveValue::from(value));
    }
    put(
        tags::PHOTOMETRIC_INTERPRETATION,
        VR::CS,
        text("MONOCHROME2"),
    );
    let pixels: Vec<u16> = (0..20).map(|n| 1000 * k + 10 * (n / 4) + n % 4).collect();
    put(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(pixels.into()));
    d
}

pub fn bytes_of(object: InMemDicomObject) -> Vec<u8> {
    let file = object
        .with_meta(FileMetaTableBuilder::new().transfer_syntax("1.2.840.10008.1.2.1"))
        .unwrap();
    let mut bytes = Vec::new();
    file.write_all(&mut bytes).unwrap();
    bytes
}

/// Right-handed axes: axial, sagittal, coronal, reversed, oblique.
pub fn orientations() -> Vec<DMat3> {
    let from = |r: DVec3, c: DVec3| DMat3::from_cols(r, c, r.cross(c));
    vec![
        from(DVec3::X, DVec3::Y),
        from(DVec3::Y, DVec3::NEG_Z),
        from(DVec3::X, DVec3::NEG_Z),
        from(DVec3::NEG_X, DVec3::Y),
        from(DVec3::new(0.8, 0.6, 0.0), DVec3::new(-0.36, 0.48, 0.8)),
    ]
}

#[test]
fn clinical_geometry_any_order_and_orientation_gives_the_same_patient() {
    for axes in orientations() {
        let folder_of = tempfile::tempdir().unwrap();
        // File names and instance numbers both contradict the positions.
        for (name, k) in [(0, 2_u16), (1, 0), (2, 3), (3, 1)] {
            let bytes = bytes_of(slice(axes, k, 9 - k));
            std::fs::write(folder_of.path().join(format!("{name}.dcm")), bytes).unwrap();
        }
        std::fs::write(folder_of.path().join("notes.txt"), "nothing to see").unwrap();
        let worklist = folder(folder_of.path());
        assert_eq!(worklist.skipped.len(), 1);
        assert!(worklist.skipped[0].reason.contains("text"));
        let volume = only_volume(&worklist);
        assert_eq!(volume.issues, []);
        assert_eq!(volume.quantity, Quantity::Hounsfield);
        let g = &volume.geometry;
        assert_eq!(g.dims(), [4, 5, 4]);
        for k in 0..4_u16 {
            // Literal PS3.3 C.7.6.2.1.1: rows are 0.7 mm apart, columns 0.5 mm.
            let expected = DVec3::new(-20.0, 30.0, 40.0)
                + axes.x_axis * 0.5 * 3.0
                + axes.y_axis * 0.7 * 2.0
                + axes.z_axis * 2.5 * f64::from(k);
            // Six decimals in the file.
            assert!(
                g.lps_at(DVec3::new(3.0, 2.0, f64::from(k)))
                    .distance(expected)
                    < 1e-5
            );
            let value = volume.value_at([3, 2, i64::from(k)]).unwrap();
            assert_eq!(value, f32::from(1000 * k + 23) - 1024.0);
        }
        let ctx = SeriesContext::all(&worklist).next().unwrap();
        let one = load_image(ctx, 0, 2).unwrap();
        assert_eq!(one.geometry.dims(), [4, 5, 1]);
        assert!(
            one.geometry
                .lps_at(DVec3::ZERO)
                .distance(g.lps_at(DVec3::new(0.0, 0.0, 2.0)))
                < 1e-9
        );
        assert_eq!(one.value(0), 2000.0 - 1024.0);
    }
}

#[test]
fn two_echoes_become_two_stacks_and_the_same_file_twice_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for echo in [1_u16, 2] {
        for k in 0..3 {
            let mut d = slice(orientations()[0], k, k);
            d.put(DataElement::new(
                tags::ECHO_NUMBERS,
                VR::IS,
                PrimitiveValue::from(echo.to_string().as_str()),
            ));
            d.put(DataElement::new(
                tags::SOP_INSTANCE_UID,
                VR::UI,
                PrimitiveValue::from(format!("1.2.3.{echo}.{k}")),
            ));
            std::fs::write(dir.path().join(format!("{echo}-{k}")), bytes_of(d)).unwrap();
        }
    }
    std::fs::copy(dir.path().join("1-0"), dir.path().join("copy")).unwrap();
    let worklist = folder(dir.path());
    let (_, series) = worklist.series().next().unwrap();
    let labels: Vec<_> = series
        .stacks
        .iter()
        .map(|s| (s.label.as_str(), s.images.len()))
        .collect();
    assert_eq!(labels, [("echo 1", 3), ("echo 2", 3)]);
    assert_eq!(worklist.skipped.len(), 1);
    assert!(worklist.skipped[0].reason.contains("same image"));
}

#[test]
fn a_zip_reads_like_its_folder() {
    use std::io::Write as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("study.zip");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    for k in [1_u16, 0, 2] {
        zip.start_file(format!("a/{k}"), zip::write::SimpleFileOptions::default())
            .unwrap();
        zip.write_all(&bytes_of(slice(orientations()[0], k, k)))
            .unwrap();
    }
    zip.finish().unwrap();
    let volume = only_volume(&folder(&path));
    assert_eq!(volume.geometry.dims(), [4, 5, 3]);
    assert_eq!(volume.value_at([1, 0, 2]), Some(2001.0 - 1024.0));
}

#[test]
fn a_cancelled_load_ends_as_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("0"),
        bytes_of(slice(orientations()[0], 0, 0)),
    )
    .unwrap();
    std::fs::write(
        dir.path().join("1"),
        bytes_of(slice(orientations()[0], 1, 1)),
    )
    .unwrap();
    let worklist = folder(dir.path());
    let ctx = SeriesContext::all(&worklist).next().unwrap();
    let task = Task::new();
    task.cancel();
    assert!(matches!(
        load_volume(ctx, 0, &task),
        Err(Error::Cancelled(_))
    ));
    assert!(index(&[dir.path().to_owned()], &task).is_err());
}

fn survives(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("altered.dcm");
    std::fs::write(&path, bytes).unwrap();
    let worklist = folder(&path);
    for ctx in SeriesContext::all(&worklist) {
        for stack in 0..ctx.series.stacks.len() {
            let _ = load_volume(ctx, stack, &Task::new());
            let _ = thumbnail(ctx, stack);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn truncated_and_altered_files_never_panic(
        cut in 0.0_f64..1.0,
        flips in prop::collection::vec((0.0_f64..1.0, any::<u8>()), 0..12),
    ) {
        let mut bytes = bytes_of(slice(orientations()[4], 1, 1));
        for (at, value) in flips {
            let n = ((bytes.len() - 1) as f64 * at) as usize;
            bytes[n] = value;
        }
        survives(&bytes);
        bytes.truncate((bytes.len() as f64 * cut) as usize);
        survives(&bytes);
    }
}
