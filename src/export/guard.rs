//! Before a SEG is kept it is read back, and must say what the mask says.

use std::path::Path;

use super::Error;
use crate::dicom::{self, ReadSegmentation};
use crate::findings::Segmentation;
use crate::geometry::DVec3;

/// Centroids may differ by the rounding of decimal strings, never by a voxel.
const TOLERANCE_MM: f64 = 0.01;

/// Compares voxel counts and centroids (LPS) of every segment with the mask's, then every voxel.
///
/// # Errors
/// [`Error::Guard`] on any difference, [`Error::ReadBack`] when the file cannot be read.
// CLINICAL(laterality): a mask on the wrong side never becomes a file with a name.
pub(super) fn check(path: &Path, segmentation: &Segmentation) -> Result<(), Error> {
    compare(&dicom::read_segmentation(path)?, segmentation)
}

fn compare(read: &ReadSegmentation, segmentation: &Segmentation) -> Result<(), Error> {
    let differs = |what: String| Err(Error::Guard { what });
    let source = &segmentation.source;
    if read.study_instance_uid != source.study_instance_uid {
        return differs("the study is another one".to_owned());
    }
    let frame = &source.frame_of_reference_uid;
    if frame.is_some() && read.frame_of_reference_uid != *frame {
        return differs("the frame of reference is another one".to_owned());
    }
    let mut labels: Vec<u8> = segmentation.segments.iter().map(|s| s.label).collect();
    labels.sort_unstable();
    if read.segments.len() != labels.len() {
        return differs(format!(
            "it has {} segments in place of {}",
            read.segments.len(),
            labels.len()
        ));
    }
    let mut number_of = [0_u8; 256];
    for (&label, found) in labels.iter().zip(&read.segments) {
        number_of[usize::from(label)] = found.segment.label;
    }
    let expected = masses(segmentation);
    for (label, found) in labels.into_iter().zip(&read.segments) {
        let (voxels, centroid) = expected[usize::from(label)];
        if found.voxels != voxels {
            return differs(format!(
                "label {label} has {} voxels in place of {voxels}",
                found.voxels
            ));
        }
        let distance_mm = found
            .centroid_lps
            .map_or(0.0, |found| found.distance(centroid));
        // Not "greater": a distance that is no number must fail too.
        let close = distance_mm <= TOLERANCE_MM;
        if !close {
            return differs(format!(
                "the centroid of label {label} is {distance_mm:.2} mm away from the mask's"
            ));
        }
    }
    let placed = read.on_source(&segmentation.map.geometry, source)?;
    let wrong = placed
        .map
        .labels
        .iter()
        .zip(&segmentation.map.labels)
        .filter(|&(&found, &label)| found != number_of[usize::from(label)])
        .count();
    if wrong > 0 {
        return differs(format!("{wrong} voxels have another label"));
    }
    Ok(())
}

/// Voxels and centroid of each label, each slice at its image's position.
fn masses(segmentation: &Segmentation) -> Vec<(u64, DVec3)> {
    let geometry = &segmentation.map.geometry;
    let [ni, nj, nk] = geometry.dims();
    let m = geometry.lps_from_ijk().matrix3;
    let mut total = vec![(0_u64, DVec3::ZERO); 256];
    for k in 0..nk {
        // Whole sums per slice, so that no digit is lost over millions of voxels.
        let mut slice = [(0_u64, 0_u64, 0_u64); 256];
        let labels = &segmentation.map.labels[k * ni * nj..(k + 1) * ni * nj];
        for (j, row) in labels.chunks(ni).enumerate() {
            for (i, &label) in row.iter().enumerate() {
                let sum = &mut slice[usize::from(label)];
                sum.0 += 1;
                sum.1 += i as u64;
                sum.2 += j as u64;
            }
        }
        let corner = dicom::slice_position_lps(segmentation, k);
        for (sum, (voxels, i, j)) in total.iter_mut().zip(slice) {
            sum.0 += voxels;
            sum.1 += corner * voxels as f64 + m.x_axis * i as f64 + m.y_axis * j as f64;
        }
    }
    for (voxels, sum) in &mut total {
        *sum /= (*voxels).max(1) as f64;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::{AlgorithmType, Provenance, ReviewState, Segment};
    use crate::geometry::VolumeGeometry;
    use crate::study::{CodedConcept, Uid};
    use crate::volume::{LabelMap, SourceImage, SourceSeries};

    /// One label, on the patient's left half only.
    fn left_sided() -> Segmentation {
        let geometry = VolumeGeometry::from_axes(
            [8, 4, 3],
            DVec3::new(-35.0, 0.0, 0.0),
            [DVec3::X, DVec3::Y, DVec3::Z],
            [10.0, 10.0, 10.0],
        )
        .unwrap();
        let mut map = LabelMap::empty(geometry);
        for row in map.labels.chunks_mut(8) {
            row[5..7].fill(3);
        }
        let concept = CodedConcept::new("1", "99TEST", "Test");
        Segmentation {
            map,
            segments: vec![Segment {
                label: 3,
                name: "Left".into(),
                category: concept.clone(),
                property: concept,
                color: [255, 0, 0],
            }],
            algorithm: AlgorithmType::Automatic,
            source: SourceSeries {
                study_instance_uid: Some(Uid::from_u128(1)),
                series_instance_uid: Some(Uid::from_u128(2)),
                frame_of_reference_uid: Some(Uid::from_u128(3)),
                images: (0..3)
                    .map(|k| {
                        Some(SourceImage {
                            sop_class_uid: Uid::parse("1.2.840.10008.5.1.4.1.1.2").unwrap(),
                            sop_instance_uid: Uid::from_u128(10 + k),
                            frame: None,
                            number: None,
                            position_lps: None,
                            view: String::new(),
                        })
                    })
                    .collect(),
                ..SourceSeries::default()
            },
            provenance: Provenance::default(),
            issues: Vec::new(),
            review: ReviewState::NotReviewed,
            reviewed: None,
        }
    }

    /// Writes `kept`, then checks it against `mask`.
    fn check_against(kept: &Segmentation, mask: &Segmentation) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.dcm");
        let mut next = 100;
        let mut uids = || {
            next += 1;
            Uid::from_u128(next)
        };
        let now = chrono::DateTime::from_timestamp(0, 0).unwrap();
        dicom::write_segmentation(&path, kept, &mut uids, now).unwrap();
        check(&path, mask).map_err(|e| e.to_string())
    }

    #[test]
    fn clinical_laterality_a_mirrored_seg_is_not_kept() {
        let mask = left_sided();
        assert_eq!(check_against(&mask, &mask), Ok(()));
        let mut mirrored = mask.clone();
        for row in mirrored.map.labels.chunks_mut(8) {
            row.reverse();
        }
        let why = check_against(&mirrored, &mask).unwrap_err();
        assert!(why.contains("label 3 is 40.00 mm away"), "{why}");
    }

    #[test]
    fn clinical_laterality_a_seg_shifted_by_a_slice_is_not_kept() {
        let mask = left_sided();
        let mut shifted = mask.clone();
        for (k, image) in shifted.source.images.iter_mut().flatten().enumerate() {
            image.position_lps = Some(DVec3::new(-35.0, 0.0, 10.0 * (k as f64 + 1.0)));
        }
        let why = check_against(&shifted, &mask).unwrap_err();
        assert!(why.contains("10.00 mm away"), "{why}");
    }

    #[test]
    fn another_shape_with_the_same_centroid_is_not_kept() {
        let with = |columns: [usize; 2]| {
            let mut s = left_sided();
            s.map.labels.fill(0);
            for i in columns {
                s.map.labels[i] = 3;
            }
            s
        };
        let why = check_against(&with([3, 5]), &with([2, 6])).unwrap_err();
        assert!(why.contains("4 voxels have another label"), "{why}");
    }

    #[test]
    fn a_lost_voxel_and_another_frame_of_reference_are_found() {
        let mask = left_sided();
        let mut less = mask.clone();
        less.map.labels[5] = 0;
        let why = check_against(&less, &mask).unwrap_err();
        assert!(why.contains("23 voxels in place of 24"), "{why}");
        let mut elsewhere = mask.clone();
        elsewhere.source.frame_of_reference_uid = Some(Uid::from_u128(4));
        let why = check_against(&elsewhere, &mask).unwrap_err();
        assert!(why.contains("frame of reference"), "{why}");
    }
}
