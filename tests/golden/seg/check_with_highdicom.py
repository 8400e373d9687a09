"""Compares DICOM SEG files with the label maps they were made from, by independent readers.

    python check_with_highdicom.py FOLDER

FOLDER holds one folder per case: `images/*.dcm`, `segmentation.dcm`, `labels.nii.gz`.
Labels are the segment numbers. Readers: highdicom, pydicom (SEG and images), nibabel (NIfTI).

Tried with highdicom 0.28.2, pydicom 3.0.2, nibabel 5.4.2, numpy 2.4.6.

Three ways, all must agree:
1. by place: every set bit of every frame, put into the patient by the frame's own attributes,
   hits the NIfTI voxel with its label (tolerance 0.01 mm: NIfTI holds f32);
2. by reference: highdicom's frames of each source image are that slice of the label map;
3. as a volume: highdicom's own 3-D volume has the label map's voxels and positions
   (not for tilted stacks, which highdicom does not take as a volume).
"""

import pathlib
import sys

import highdicom
import nibabel
import numpy
import pydicom

TOLERANCE_MM = 0.01


def by_place(seg, lps_from_ijk, labels):
    """Returns voxels compared and the largest distance found."""
    ijk_from_lps = numpy.linalg.inv(lps_from_ijk)
    shared = seg.SharedFunctionalGroupsSequence[0]
    o = numpy.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    between_rows, between_columns = shared.PixelMeasuresSequence[0].PixelSpacing
    pixels = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    seen = numpy.zeros_like(labels)
    worst = 0.0
    for frame, group in zip(pixels, seg.PerFrameFunctionalGroupsSequence):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        corner = numpy.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        rows, columns = numpy.nonzero(frame)
        lps = (
            corner
            + columns[:, None] * o[:3] * float(between_columns)
            + rows[:, None] * o[3:] * float(between_rows)
        )
        ijk = lps @ ijk_from_lps[:3, :3].T + ijk_from_lps[:3, 3]
        whole = numpy.rint(ijk).astype(int)
        back = whole @ lps_from_ijk[:3, :3].T + lps_from_ijk[:3, 3]
        if len(whole):
            worst = max(worst, float(numpy.abs(back - lps).max()))
        assert (whole >= 0).all() and (whole < labels.shape).all(), "outside"
        i, j, k = whole.T
        assert (labels[i, j, k] == number).all(), "another label there"
        assert not seen[i, j, k].any(), "drawn twice"
        seen[i, j, k] = number
    assert (seen == labels).all(), "voxels are missing"
    assert worst < TOLERANCE_MM, f"{worst} mm off"
    return int((labels > 0).sum()), worst


def by_reference(seg, images, labels):
    uids = [image.SOPInstanceUID for image in images]
    stack = seg.get_pixels_by_source_instance(
        uids, combine_segments=True, assert_missing_frames_are_empty=True
    )
    assert (stack == labels.transpose(2, 1, 0)).all(), "another voxel by reference"


def as_volume(seg, lps_from_ijk, labels):
    volume = seg.get_volume(combine_segments=True)
    ijk_from_lps = numpy.linalg.inv(lps_from_ijk)
    place = numpy.argwhere(volume.array > 0)
    lps = place @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    ijk = lps @ ijk_from_lps[:3, :3].T + ijk_from_lps[:3, 3]
    whole = numpy.rint(ijk).astype(int)
    back = whole @ lps_from_ijk[:3, :3].T + lps_from_ijk[:3, 3]
    assert numpy.abs(back - lps).max() < TOLERANCE_MM, "volume off"
    assert len(whole) == (labels > 0).sum(), "another number of voxels"
    assert (labels[tuple(whole.T)] == volume.array[tuple(place.T)]).all(), "volume differs"


def attributes(seg, images):
    first = images[0]
    for name in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName"):
        assert getattr(seg, name) == getattr(first, name), name
    assert seg.SeriesInstanceUID != first.SeriesInstanceUID
    assert seg.SeriesDescription.startswith("AI ")
    assert seg.SegmentationType == "BINARY"
    assert len(seg.pixel_array.shape) in (2, 3)
    for number in seg.segment_numbers:
        description = seg.get_segment_description(number)
        algorithm = description.algorithm_identification
        assert description.algorithm_type.value == "AUTOMATIC"
        assert algorithm.name and algorithm.version
        assert description.tracking_uid
    referenced = {
        item.ReferencedSOPInstanceUID
        for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert referenced == {image.SOPInstanceUID for image in images}


def main(folder):
    cases = sorted(p for p in pathlib.Path(folder).iterdir() if (p / "segmentation.dcm").exists())
    assert cases, "no cases"
    total = 0
    for case in cases:
        seg = highdicom.seg.segread(case / "segmentation.dcm")
        images = [pydicom.dcmread(p) for p in sorted((case / "images").glob("*.dcm"))]
        file = nibabel.load(case / "labels.nii.gz")
        labels = numpy.asarray(file.dataobj)
        lps_from_ijk = numpy.diag([-1.0, -1.0, 1.0, 1.0]) @ file.affine
        voxels, worst = by_place(seg, lps_from_ijk, labels)
        by_reference(seg, images, labels)
        attributes(seg, images)
        axes = lps_from_ijk[:3, :3] / numpy.linalg.norm(lps_from_ijk[:3, :3], axis=0)
        upright = abs(numpy.cross(axes[:, 0], axes[:, 1]) @ axes[:, 2]) > 1 - 1e-5
        if upright:
            as_volume(seg, lps_from_ijk, labels)
        # The label map itself lies on the images.
        for k, image in enumerate(images):
            corner = lps_from_ijk @ [0, 0, k, 1]
            gap = numpy.abs(corner[:3] - numpy.array(image.ImagePositionPatient, float)).max()
            assert gap < TOLERANCE_MM, f"label map {gap} mm off its image"
        total += voxels
        how = "place, reference, volume" if upright else "place, reference"
        print(f"{case.name}: {voxels} voxels equal by {how}; largest distance {worst:.1e} mm")
    print(f"{len(cases)} cases, {total} voxels, all equal")


if __name__ == "__main__":
    main(sys.argv[1])
