//! The same series through this program and through dcm2niix: the same values at the same places.

use std::path::{Path, PathBuf};
use std::process::Command;

use negatoscope::dicom::{SeriesContext, load_volume};
use negatoscope::geometry::{DMat3, DVec3};
use negatoscope::nifti;
use negatoscope::study::Issue;
use negatoscope::task::Task;
use negatoscope::volume::{Layout, Volume};

use crate::dicom_decode::data;
use crate::dicom_read::{Nifti, folder, read_nifti};

fn dcm2niix() -> bool {
    let found = Command::new("dcm2niix").arg("-v").output().is_ok();
    if !found {
        println!("skipped: no dcm2niix on the path");
    }
    found
}

/// What dcm2niix makes of a folder, without the copies that it resamples.
///
/// `-p n`: values by Rescale Slope and Intercept, as PS3.3 C.7.6.16-10b has them. Without it,
/// Philips series are scaled by private attributes instead.
fn converted(from: &Path) -> Vec<(String, Nifti)> {
    let out = tempfile::tempdir().unwrap();
    let run = Command::new("dcm2niix")
        .args(["-b", "n", "-z", "y", "-p", "n", "-f", "%s_%j_%e", "-o"])
        .arg(out.path())
        .arg(from)
        .output()
        .unwrap();
    println!("{}", String::from_utf8_lossy(&run.stdout));
    let mut files: Vec<PathBuf> = std::fs::read_dir(out.path())
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|path| {
            (
                path.file_name().unwrap().to_string_lossy().into_owned(),
                path,
            )
        })
        .filter(|(name, _)| !name.contains("_Tilt") && !name.contains("_Eq"))
        .map(|(name, path)| (name, read_nifti(&path)))
        .collect()
}

fn volumes(from: &Path) -> Vec<Volume> {
    let worklist = folder(from);
    let mut volumes = Vec::new();
    for ctx in SeriesContext::all(&worklist) {
        for stack in 0..ctx.series.stacks.len() {
            volumes.push(load_volume(ctx, stack, &Task::new()).unwrap());
        }
    }
    volumes
}

/// Through the file that `convert` writes.
fn written(volume: &Volume) -> Nifti {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ours.nii.gz");
    nifti::write_volume(&path, volume).unwrap();
    read_nifti(&path)
}

fn affine(of: &Nifti) -> (DMat3, DVec3) {
    let r = of.rows;
    let column = |c: usize| DVec3::new(r[0][c], r[1][c], r[2][c]);
    (DMat3::from_cols(column(0), column(1), column(2)), column(3))
}

/// Every voxel of `ours` lies on one of `theirs` and has its values; else what differs first.
fn compare(ours: &Nifti, theirs: &Nifti) -> Result<(), String> {
    let voxels = |n: &Nifti| n.dims.iter().product::<usize>();
    if voxels(ours) != voxels(theirs) || ours.values.len() != theirs.values.len() {
        return Err(format!("{:?} against {:?}", ours.dims, theirs.dims));
    }
    let (a, a0) = affine(ours);
    let (b, b0) = affine(theirs);
    let theirs_from_ours = b.inverse() * a;
    let shift = b.inverse() * (a0 - b0);
    let mut n = 0;
    for k in 0..ours.dims[2] {
        for j in 0..ours.dims[1] {
            for i in 0..ours.dims[0] {
                let at = theirs_from_ours * DVec3::new(i as f64, j as f64, k as f64) + shift;
                let whole = at.round();
                // Both affines are in f32.
                if (at - whole).abs().max_element() > 5e-3 {
                    return Err(format!("voxel {i},{j},{k} lies at {at}"));
                }
                let inside = whole
                    .to_array()
                    .iter()
                    .zip(theirs.dims)
                    .all(|(x, n)| (0.0..n as f64).contains(x));
                if !inside {
                    return Err(format!("voxel {i},{j},{k} lies outside, at {at}"));
                }
                let [x, y, z] = whole.to_array().map(|x| x as usize);
                let m = (z * theirs.dims[1] + y) * theirs.dims[0] + x;
                for (p, q) in ours.values.iter().zip(&theirs.values) {
                    // Slopes are f32 in both files.
                    if (p[n] - q[m]).abs() > 1e-3 + 1e-5 * q[m].abs() {
                        return Err(format!("voxel {i},{j},{k}: {} against {}", p[n], q[m]));
                    }
                }
                n += 1;
            }
        }
    }
    Ok(())
}

#[test]
fn clinical_geometry_series_equal_those_of_dcm2niix() {
    let Some(data) = data() else { return };
    if !dcm2niix() {
        return;
    }
    let truth = "dicom-with-nifti-truth";
    for (name, count) in [
        ("dicom-series/ct_abdomen_totalseg_j2k".to_owned(), 1),
        ("dicom-series/mr_brain_tumour_Study3".to_owned(), 3),
        (format!("{truth}/ge/anatomical/001"), 1),
        (format!("{truth}/philips_enhanced/anatomical/001"), 1),
        (format!("{truth}/generic/compressed/001"), 1),
        (format!("{truth}/generic/compressed_jpeg/001"), 1),
        (format!("{truth}/generic/compressed_rle/001"), 1),
        (format!("{truth}/generic/rgb/001"), 1),
    ] {
        let theirs = converted(&data.join(&name));
        assert_eq!(theirs.len(), count, "{name}");
        let volumes = volumes(&data.join(&name));
        assert_eq!(volumes.len(), count, "{name}");
        let mut taken = Vec::new();
        for volume in &volumes {
            assert_eq!(volume.layout, Layout::Volumetric, "{name}");
            let ours = written(volume);
            let results: Vec<_> = theirs.iter().map(|(_, t)| compare(&ours, t)).collect();
            let at = results.iter().position(Result::is_ok);
            taken.push(at.unwrap_or_else(|| panic!("{name}: {results:?}")));
        }
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), count, "{name}: two volumes equal one file");
    }
}

/// The largest distance between a slice's first pixel in a NIfTI file of dcm2niix (rows turned
/// over, otherwise in the order of `volume`) and its Image Position, after a look at the values.
fn their_error_mm(volume: &Volume, theirs: &Nifti) -> f64 {
    let [ni, nj, _] = volume.geometry.dims();
    assert_eq!([ni, nj], theirs.dims[..2]);
    let (matrix, origin) = affine(theirs);
    let mut worst = 0.0_f64;
    let known: Vec<usize> = (0..volume.source.images.len())
        .filter(|&k| volume.source.image(k).is_some())
        .collect();
    assert_eq!(known.len(), theirs.dims[2]);
    for (kk, &k) in known.iter().enumerate() {
        for j in 0..nj {
            for i in 0..ni {
                let value = f64::from(volume.value(volume.geometry.index(i, j, k)));
                let n = (kk * nj + (nj - 1 - j)) * ni + i;
                assert_eq!(value, theirs.values[0][n], "{i},{j},{k}");
            }
        }
        let ras = matrix * DVec3::new(0.0, (nj - 1) as f64, kk as f64) + origin;
        let lps = DVec3::new(-ras.x, -ras.y, ras.z);
        let header = volume.source.image(k).unwrap().position_lps.unwrap();
        worst = worst.max(lps.distance(header));
    }
    worst
}

fn our_error_mm(volume: &Volume) -> f64 {
    (0..volume.source.images.len())
        .filter_map(|k| {
            let header = volume.source.image(k)?.position_lps?;
            let at = volume.geometry.lps_at(DVec3::new(0.0, 0.0, k as f64));
            Some(at.distance(header))
        })
        .fold(0.0, f64::max)
}

/// Where the two differ, the images' own positions tell who is right.
#[test]
fn clinical_geometry_where_dcm2niix_differs_the_headers_are_on_our_side() {
    let Some(data) = data() else { return };
    if !dcm2niix() {
        return;
    }
    // A tilted gantry: dcm2niix turns the shear into longer columns and a shorter step (and writes a
    // second, resampled file as its answer); ours keeps the shear of the headers.
    // A missing slice: dcm2niix puts the last slice one step too low (and writes a resampled file);
    // ours leaves the place empty.
    for (name, their_least_mm) in [
        ("dicom-with-nifti-truth/failing/gantrytilting/001", 1.0),
        ("dicom-with-nifti-truth/failing/sliceincrement/001", 4.9),
    ] {
        let theirs = converted(&data.join(name));
        let [volume] = &volumes(&data.join(name))[..] else {
            panic!("{name}")
        };
        assert!(compare(&written(volume), &theirs[0].1).is_err(), "{name}");
        // Positions have six decimals.
        assert!(our_error_mm(volume) < 1e-3, "{name}");
        let error = their_error_mm(volume, &theirs[0].1);
        assert!(error > their_least_mm, "{name}: {error}");
    }
    // Steps of 4.2 mm, then 7.4 mm, on a tilted gantry: no single grid is right. Ours says how far
    // off it is, and is no further off than dcm2niix' file of the same slices.
    let name = "dicom-series/ct_head_ge_gantry_tilt_irregular";
    let theirs = converted(&data.join(name));
    let [volume] = &volumes(&data.join(name))[..] else {
        panic!("{name}")
    };
    let stated = volume
        .issues
        .iter()
        .find_map(|i| match i {
            Issue::UnevenSpacing { deviation_mm, .. } => Some(*deviation_mm),
            _ => None,
        })
        .unwrap();
    let error = our_error_mm(volume);
    assert!((error - stated).abs() < 1e-6, "{error} {stated}");
    let their_error = their_error_mm(volume, &theirs[0].1);
    assert!(their_error > error, "{their_error} {error}");
}
