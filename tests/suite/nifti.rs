//! NIfTI in and out, against the standard's definition written out by hand.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use negatoscope::geometry::{DMat3, DVec3, VolumeGeometry};
use negatoscope::nifti::{self, Error};
use negatoscope::study::Issue;
use negatoscope::task::Task;
use negatoscope::volume::{
    Calibration, LabelMap, Layout, ModalityLut, Quantity, SourceSeries, Volume, Voxels,
};
use proptest::prelude::*;

fn volume(geometry: VolumeGeometry, voxels: Voxels, modality_lut: ModalityLut) -> Volume {
    Volume {
        geometry,
        voxels,
        modality_lut,
        quantity: Quantity::Arbitrary,
        modality: String::new(),
        layout: Layout::Volumetric,
        calibration: Calibration::Patient,
        inverted: false,
        windows: Vec::new(),
        padding: None,
        frame_rate: None,
        source: SourceSeries::default(),
        issues: Vec::new(),
    }
}

/// A header field by field, in either byte order: the standard's table written out.
struct Raw {
    big: bool,
    bytes: Vec<u8>,
}

impl Raw {
    fn new(big: bool, dims: &[i16], datatype: i16, bits: i16) -> Self {
        let mut raw = Self {
            big,
            bytes: vec![0; 352],
        };
        raw.i32(0, 348);
        raw.i16(40, dims.len() as i16);
        for n in 0..7 {
            raw.i16(42 + 2 * n, dims.get(n).copied().unwrap_or(1));
        }
        raw.i16(70, datatype);
        raw.i16(72, bits);
        for n in 0..4 {
            raw.f32(76 + 4 * n, 1.0);
        }
        raw.f32(108, 352.0);
        raw.bytes[123] = 2;
        raw.i16(254, 1);
        // RAS = (-2 i + 90, 3 j - 60, 4 k + 5)
        for (at, x) in [
            (280, -2.0),
            (292, 90.0),
            (300, 3.0),
            (308, -60.0),
            (320, 4.0),
            (324, 5.0),
        ] {
            raw.f32(at, x);
        }
        raw.bytes[344..348].copy_from_slice(b"n+1\0");
        raw
    }
    fn put<const N: usize>(&mut self, at: usize, le: [u8; N]) {
        let mut b = le;
        if self.big {
            b.reverse();
        }
        self.bytes[at..at + N].copy_from_slice(&b);
    }
    fn i16(&mut self, at: usize, x: i16) {
        self.put(at, x.to_le_bytes());
    }
    fn i32(&mut self, at: usize, x: i32) {
        self.put(at, x.to_le_bytes());
    }
    fn f32(&mut self, at: usize, x: f32) {
        self.put(at, x.to_le_bytes());
    }
    fn voxel<const N: usize>(&mut self, le: [u8; N]) {
        let at = self.bytes.len();
        self.bytes.extend([0; N]);
        self.put(at, le);
    }
    fn save(&self, name: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, &self.bytes).unwrap();
        (folder, path)
    }
    fn read(&self) -> Result<Volume, Error> {
        let (_folder, path) = self.save("a.nii");
        nifti::read(&path, &Task::new())
    }
}

fn values(volume: &Volume) -> Vec<f32> {
    volume.values()
}

#[test]
fn every_datatype_reads_in_both_byte_orders() {
    for big in [false, true] {
        macro_rules! check {
            ($code:expr, $t:ty, [$($x:expr),*], $expected:pat) => {{
                let numbers: Vec<$t> = vec![$($x),*];
                let mut raw = Raw::new(big, &[1, 1, numbers.len() as i16], $code, size_of::<$t>() as i16 * 8);
                for x in &numbers {
                    raw.voxel(x.to_le_bytes());
                }
                let v = raw.read().unwrap();
                assert!(matches!(v.voxels, $expected), "{} {:?}", stringify!($t), v.voxels);
                assert_eq!(values(&v), numbers.iter().map(|&x| x as f32).collect::<Vec<_>>());
                assert_eq!(v.issues, []);
            }};
        }
        check!(2, u8, [0, 200, 255], Voxels::U8(_));
        check!(256, i8, [-128, 0, 127], Voxels::I16(_));
        check!(4, i16, [-32768, 0, 32767], Voxels::I16(_));
        check!(512, u16, [0, 40000, 65535], Voxels::U16(_));
        check!(8, i32, [-32768, 0, 32767], Voxels::I16(_));
        check!(8, i32, [-70000, 0, 32767], Voxels::F32(_));
        check!(768, u32, [0, 65535], Voxels::U16(_));
        check!(1024, i64, [-1, 100_000], Voxels::F32(_));
        check!(1280, u64, [0, 255], Voxels::I16(_));
        check!(16, f32, [-1.5, 0.0, 3e9], Voxels::F32(_));
        check!(64, f64, [-1.5, 0.0, 0.25], Voxels::F32(_));
    }
}

#[test]
fn colors_are_read_and_written() {
    let mut raw = Raw::new(false, &[2, 1, 1], 128, 24);
    raw.bytes.extend([1, 2, 3, 250, 251, 252]);
    let v = raw.read().unwrap();
    assert_eq!(v.voxels, Voxels::Rgb8(vec![[1, 2, 3], [250, 251, 252]]));
    assert_eq!(v.quantity, Quantity::Color);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.nii.gz");
    nifti::write_volume(&path, &v).unwrap();
    assert_eq!(nifti::read(&path, &Task::new()).unwrap().voxels, v.voxels);
}

#[test]
fn clinical_laterality_positions_are_ras_negated() {
    let mut raw = Raw::new(false, &[2, 2, 2], 2, 8);
    raw.bytes.extend([0; 8]);
    let v = raw.read().unwrap();
    // RAS (-2 i + 90, 3 j - 60, 4 k + 5) is LPS (2 i - 90, -3 j + 60, 4 k + 5).
    let p = v.geometry.lps_at(DVec3::new(1.0, 1.0, 1.0));
    assert!(p.abs_diff_eq(DVec3::new(-88.0, 57.0, 9.0), 1e-9));
}

#[test]
fn clinical_laterality_the_quaternion_follows_the_standards_formula() {
    // a=0, b=1: rotation by 180° about x: RAS = (i, -j, -k) with qfac 1.
    let mut raw = Raw::new(false, &[2, 2, 2], 2, 8);
    raw.bytes.extend([0; 8]);
    raw.i16(252, 1);
    raw.i16(254, 0);
    raw.f32(256, 1.0);
    raw.f32(268, 10.0);
    raw.f32(88, 5.0);
    let v = raw.read().unwrap();
    let p = v.geometry.lps_at(DVec3::new(1.0, 1.0, 1.0));
    assert!(p.abs_diff_eq(DVec3::new(-11.0, 1.0, -5.0), 1e-6), "{p}");
    raw.f32(76, -1.0); // qfac
    let v = raw.read().unwrap();
    let p = v.geometry.lps_at(DVec3::new(1.0, 1.0, 1.0));
    assert!(p.abs_diff_eq(DVec3::new(-11.0, 1.0, 5.0), 1e-6), "{p}");
}

#[test]
fn scaling_stays_apart_from_stored_values() {
    let mut raw = Raw::new(false, &[1, 1, 2], 4, 16);
    raw.f32(112, 2.0);
    raw.f32(116, -1024.0);
    raw.voxel(7_i16.to_le_bytes());
    raw.voxel(1000_i16.to_le_bytes());
    let v = raw.read().unwrap();
    assert_eq!(v.voxels, Voxels::I16(vec![7, 1000]));
    assert_eq!(values(&v), [-1010.0, 976.0]);
    raw.f32(112, 0.0);
    assert_eq!(values(&raw.read().unwrap()), [7.0, 1000.0]);
    raw.f32(112, f32::INFINITY);
    let v = raw.read().unwrap();
    assert_eq!(v.issues[0].code(), "rescale-invalid");
    assert_eq!(values(&v), [7.0, 1000.0]);
}

#[test]
fn of_a_time_series_the_first_volume_is_read_and_said_so() {
    let mut raw = Raw::new(false, &[1, 1, 2, 3], 2, 8);
    raw.bytes.extend([1, 2, 3, 4, 5, 6]);
    let v = raw.read().unwrap();
    assert_eq!(v.voxels, Voxels::U8(vec![1, 2]));
    assert_eq!(v.issues[0].code(), "nifti-first-of-many");
}

#[test]
fn values_that_are_no_numbers_are_said() {
    let mut raw = Raw::new(false, &[1, 1, 3], 16, 32);
    for x in [1.5_f32, f32::NAN, f32::INFINITY] {
        raw.voxel(x.to_le_bytes());
    }
    let v = raw.read().unwrap();
    assert_eq!(values(&v), [1.5, 0.0, 0.0]);
    assert_eq!(v.issues[0].code(), "values-not-finite");
}

#[test]
fn a_single_slice_is_said() {
    let mut raw = Raw::new(false, &[2, 2], 2, 8);
    raw.bytes.extend([0; 4]);
    let v = raw.read().unwrap();
    assert!(v.issues.contains(&Issue::SingleSlice));
    assert_eq!(v.geometry.dims(), [2, 2, 1]);
}

#[test]
fn a_pair_of_header_and_image_is_read_from_either_name() {
    let mut raw = Raw::new(true, &[1, 1, 2], 2, 8);
    raw.bytes[344..348].copy_from_slice(b"ni1\0");
    raw.f32(108, 0.0);
    let (folder, header) = raw.save("a.hdr");
    let image = folder.path().join("a.img");
    fs::write(&image, [5, 6]).unwrap();
    for path in [&header, &image] {
        let v = nifti::read(path, &Task::new()).unwrap();
        assert_eq!(v.voxels, Voxels::U8(vec![5, 6]));
    }
    fs::remove_file(&image).unwrap();
    assert!(matches!(
        nifti::read(&header, &Task::new()),
        Err(Error::Io { .. })
    ));
}

#[test]
fn what_is_no_nifti_1_is_named() {
    let check = |change: &dyn Fn(&mut Raw), expected: &str| {
        let mut raw = Raw::new(false, &[1, 1, 2], 2, 8);
        raw.bytes.extend([1, 2]);
        change(&mut raw);
        let text = raw.read().unwrap_err().to_string();
        assert!(text.contains(expected), "{text} / {expected}");
    };
    check(&|r| r.bytes.truncate(100), "too short");
    check(&|r| r.i32(0, 540), "NIfTI-2");
    check(&|r| r.i32(0, 7), "no NIfTI header");
    check(&|r| r.bytes[344] = 0, "no NIfTI magic");
    check(&|r| r.bytes[344..348].fill(0), "ANALYZE");
    check(&|r| r.i16(40, 9), "dim[0]");
    check(&|r| r.i16(44, -1), "dim");
    check(&|r| r.i16(46, 0), "dim");
    check(&|r| r.i16(70, 32), "complex");
    check(&|r| r.i16(70, 99), "unknown NIfTI datatype");
    check(&|r| r.i16(72, 16), "bitpix");
    check(&|r| r.f32(108, 100.0), "vox_offset");
    check(&|r| r.f32(108, f32::NAN), "vox_offset");
    check(&|r| r.f32(108, -5.0), "vox_offset");
    check(&|r| r.f32(108, 1e30), "vox_offset");
    check(
        &|r| r.i16(46, 3),
        "promises 3 bytes of voxels, the file holds 2",
    );
    check(
        &|r| [42, 44, 46].iter().for_each(|&at| r.i16(at, 32767)),
        "limit",
    );
}

#[test]
fn a_small_compressed_file_cannot_claim_a_large_volume() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.nii.gz");
    let mut raw = Raw::new(false, &[1000, 1000, 1000], 2, 8);
    raw.bytes.extend([0; 1000]);
    let mut gz = flate2::write::GzEncoder::new(
        fs::File::create(&path).unwrap(),
        flate2::Compression::best(),
    );
    gz.write_all(&raw.bytes).unwrap();
    gz.finish().unwrap();
    let error = nifti::read(&path, &Task::new()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Truncated {
                needed: 1_000_000_000,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn modality_values_are_written_as_int16_when_whole() {
    let g = VolumeGeometry::from_axes(
        [2, 1, 2],
        DVec3::ZERO,
        [DVec3::X, DVec3::Y, DVec3::Z],
        [1.0; 3],
    )
    .unwrap();
    let check = |voxels: Voxels, lut: ModalityLut, code: i16| {
        let v = volume(g.clone(), voxels, lut);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.nii");
        nifti::write_volume(&path, &v).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(i16::from_le_bytes([bytes[70], bytes[71]]), code);
        assert_eq!(
            values(&nifti::read(&path, &Task::new()).unwrap()),
            values(&v)
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    };
    let ct = ModalityLut::Rescale {
        slope: 1.0,
        intercept: -1024.0,
    };
    check(Voxels::U16(vec![0, 1024, 4095, 2]), ct, 4);
    check(
        Voxels::U16(vec![0, 1024, 40000, 2]),
        ModalityLut::IDENTITY,
        16,
    );
    let half = ModalityLut::Rescale {
        slope: 0.5,
        intercept: 0.0,
    };
    check(Voxels::I16(vec![1, 2, 3, 4]), half, 16);
    check(
        Voxels::F32(vec![-5.0, 0.0, 32767.0, -32768.0]),
        ModalityLut::IDENTITY,
        4,
    );
    check(
        Voxels::U8(vec![1, 2, 3, 4]),
        ModalityLut::PerSlice(vec![(1.0, 0.0), (0.1, 5.0)]),
        16,
    );
}

#[test]
fn a_label_map_with_other_values_is_refused() {
    let mut raw = Raw::new(false, &[1, 1, 2], 4, 16);
    raw.voxel(3_i16.to_le_bytes());
    raw.voxel(256_i16.to_le_bytes());
    let (_folder, path) = raw.save("a.nii");
    let error = nifti::read_label_map(&path, &Task::new()).unwrap_err();
    assert!(
        matches!(error, Error::NotALabel { value: 256.0, .. }),
        "{error}"
    );
}

#[test]
fn cancelled_reading_stops() {
    let mut raw = Raw::new(false, &[1, 1, 2], 2, 8);
    raw.bytes.extend([1, 2]);
    let (_folder, path) = raw.save("a.nii");
    let task = Task::new();
    task.cancel();
    assert!(matches!(
        nifti::read(&path, &task),
        Err(Error::Cancelled(_))
    ));
}

fn any_geometry() -> impl Strategy<Value = VolumeGeometry> {
    (
        prop::array::uniform3(1_usize..7),
        prop::array::uniform3(-3.2_f64..3.2),
        prop::array::uniform3(0.2_f64..8.0),
        prop::array::uniform3(-500.0_f64..500.0),
        any::<bool>(),
        -0.5_f64..0.5,
    )
        .prop_map(|(dims, angles, spacing, origin, mirrored, shear)| {
            let r = DMat3::from_euler(glam::EulerRot::XYZ, angles[0], angles[1], angles[2]);
            let z = if mirrored { -r.z_axis } else { r.z_axis };
            // One half of the cases is sheared, like a tilted gantry.
            let z = if shear > 0.0 {
                (z + r.y_axis * shear).normalize()
            } else {
                z
            };
            VolumeGeometry::from_axes(dims, DVec3::from(origin), [r.x_axis, r.y_axis, z], spacing)
                .unwrap()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn clinical_laterality_label_maps_survive_a_round_trip(geometry in any_geometry(), seed in any::<u8>()) {
        let labels = (0..geometry.voxel_count()).map(|n| (n as u8).wrapping_mul(31) ^ seed).collect();
        let map = LabelMap { geometry, labels };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.nii.gz");
        nifti::write_label_map(&path, &map, &[]).unwrap();
        let back = nifti::read_label_map(&path, &Task::new()).unwrap();
        prop_assert_eq!(&back.labels, &map.labels);
        // f32 in the file: 500 mm to 3e-5 mm.
        prop_assert!(back.geometry.same_grid(&map.geometry, 1e-3));
    }

    #[test]
    fn altered_files_never_panic(at in 0_usize..420, byte in any::<u8>(), cut in 0_usize..420) {
        let mut raw = Raw::new(false, &[4, 4, 4], 2, 8);
        raw.bytes.extend([9; 64]);
        raw.bytes[at.min(415)] = byte;
        raw.bytes.truncate(cut.max(1));
        let _ = raw.read();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.nii.gz");
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&raw.bytes).unwrap();
        let mut packed = gz.finish().unwrap();
        let n = packed.len();
        packed[at % n] ^= byte;
        fs::write(&path, &packed).unwrap();
        let _ = nifti::read(&path, &Task::new());
    }
}

fn test_data() -> Option<PathBuf> {
    let found = std::env::var_os("NEGATOSCOPE_TEST_DATA").map(PathBuf::from);
    if found.is_none() {
        println!("skipped: NEGATOSCOPE_TEST_DATA is not set");
    }
    found
}

fn nifti_files(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            nifti_files(&path, out);
        } else if nifti::is_nifti_name(&path) {
            out.push(path);
        }
    }
}

#[test]
fn every_real_nifti_file_reads_and_survives_a_round_trip() {
    let Some(data) = test_data() else { return };
    let mut files = Vec::new();
    for part in ["volumes", "dicom-with-nifti-truth", "hippocampus-msd"] {
        nifti_files(&data.join(part), &mut files);
    }
    files.sort();
    // The hippocampus set has hundreds of like files.
    let mut like = 0;
    files.retain(|f| {
        like += usize::from(f.starts_with(data.join("hippocampus-msd")));
        like < 10 || !f.starts_with(data.join("hippocampus-msd"))
    });
    assert!(files.len() > 10);
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        let v = nifti::read(&file, &Task::new()).unwrap_or_else(|e| panic!("{e}"));
        let path = folder.path().join("back.nii");
        nifti::write_volume(&path, &v).unwrap();
        let back = nifti::read(&path, &Task::new()).unwrap();
        assert!(
            back.geometry.same_grid(&v.geometry, 1e-3),
            "{}",
            file.display()
        );
        assert!(back.values() == v.values(), "{}", file.display());
    }
}
