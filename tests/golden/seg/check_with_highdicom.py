"""Compares DICOM SEG files with the label maps they were made from, by independent readers.

    python check_with_highdicom.py FOLDER

FOLDER holds one folder per case: `segmentation.dcm`, `labels.nii.gz`, and the images, as
`images/*.dcm` or named in `images.txt`: one line per slice in the order of k, a path and, for
multi-frame images, a tab and the frame from 1. Labels are the segment numbers.
Readers: highdicom, pydicom (SEG and images), nibabel (NIfTI).

Tried with highdicom 0.28.2, pydicom 3.0.2, nibabel 5.4.2, numpy 2.4.6.

Four ways, all must agree:
1. by image: every frame has the position and orientation of the image that it refers to, and the
   voxels of that slice of the label map;
2. by reference: highdicom's frames of each source image are that slice of the label map;
3. by place: every set bit of every frame, put into the patient by the frame's own attributes,
   hits the NIfTI voxel with its label (tolerance 0.01 mm: NIfTI holds f32);
4. as a volume: highdicom's own 3-D volume has the label map's voxels and positions.

Ways 3 and 4 need what NIfTI and highdicom can express: 3 evenly spaced slices, 4 also no tilt.
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


class Image:
    """One slice of the source: an instance, or a frame of it (from 1)."""

    def __init__(self, dataset, frame):
        self.dataset = dataset
        self.frame = frame
        # Some writers leave it to the file meta group.
        self.uid = dataset.SOPInstanceUID or dataset.file_meta.MediaStorageSOPInstanceUID
        if frame is None:
            position, orientation = dataset, dataset
        else:
            own = dataset.PerFrameFunctionalGroupsSequence[frame - 1]
            shared = dataset.SharedFunctionalGroupsSequence[0]
            group = own if "PlanePositionSequence" in own else shared
            position = group.PlanePositionSequence[0]
            group = own if "PlaneOrientationSequence" in own else shared
            orientation = group.PlaneOrientationSequence[0]
        self.position = numpy.array(position.ImagePositionPatient, float)
        self.orientation = numpy.array(orientation.ImageOrientationPatient, float)


def read_images(case):
    listed = case / "images.txt"
    if listed.exists():
        lines = [line.split("\t") for line in listed.read_text().splitlines()]
    else:
        lines = [[str(p)] for p in sorted((case / "images").glob("*.dcm"))]
    read = {}
    images = []
    for path, *frame in lines:
        if not path:  # no image is known of this slice
            images.append(None)
            continue
        if path not in read:
            read[path] = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        images.append(Image(read[path], int(frame[0]) if frame else None))
    return images


def by_image(seg, images, labels):
    slice_of = {(image.uid, image.frame): k for k, image in enumerate(images) if image}
    shared = seg.SharedFunctionalGroupsSequence[0]
    orientation = numpy.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    pixels = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    drawn = 0
    for frame, group in zip(pixels, seg.PerFrameFunctionalGroupsSequence):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        if "DerivationImageSequence" not in group:
            assert None in images, "a frame without source"
            drawn += int(frame.sum())
            continue
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        k = slice_of[(source.ReferencedSOPInstanceUID, source.get("ReferencedFrameNumber"))]
        position = numpy.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        assert numpy.abs(position - images[k].position).max() < 1e-6, "not where its image is"
        assert numpy.abs(orientation - images[k].orientation).max() < 1e-4, "turned"
        assert (frame.T.astype(bool) == (labels[:, :, k] == number)).all(), "another slice"
        drawn += int(frame.sum())
    assert drawn == (labels > 0).sum(), "voxels are missing"


def by_reference(seg, images, labels):
    known = [k for k, image in enumerate(images) if image]
    labels = labels[:, :, known]
    images = [images[k] for k in known]
    options = {"combine_segments": True, "assert_missing_frames_are_empty": True}
    if images[0].frame is None:
        stack = seg.get_pixels_by_source_instance([image.uid for image in images], **options)
    else:
        frames = [image.frame for image in images]
        stack = seg.get_pixels_by_source_frame(images[0].uid, frames, **options)
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
    images = [image for image in images if image]
    first = images[0].dataset
    for name in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName"):
        if name.endswith("UID") and not first.get(name):
            assert seg.get(name), f"a source without {name}: the SEG needs a new one"
            continue
        assert (seg.get(name) or "") == (first.get(name) or ""), name
    assert seg.SeriesInstanceUID != first.SeriesInstanceUID
    assert seg.SeriesDescription.startswith("AI ")
    assert seg.SegmentationType == "BINARY"
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
    assert referenced == {image.uid for image in images}


def main(folder):
    cases = sorted(p for p in pathlib.Path(folder).iterdir() if (p / "segmentation.dcm").exists())
    assert cases, "no cases"
    total = 0
    for case in cases:
        seg = highdicom.seg.segread(case / "segmentation.dcm")
        images = read_images(case)
        file = nibabel.load(case / "labels.nii.gz")
        labels = numpy.asarray(file.dataobj)
        lps_from_ijk = numpy.diag([-1.0, -1.0, 1.0, 1.0]) @ file.affine
        attributes(seg, images)
        by_image(seg, images, labels)
        by_reference(seg, images, labels)
        ways = ["image", "reference"]
        voxels, worst = int((labels > 0).sum()), 0.0
        # Does the label map itself lie on the images? Not where slices are uneven.
        gaps = [
            numpy.abs((lps_from_ijk @ [0, 0, k, 1])[:3] - image.position).max()
            for k, image in enumerate(images)
            if image
        ]
        if max(gaps) < TOLERANCE_MM:
            voxels, worst = by_place(seg, lps_from_ijk, labels)
            ways.append("place")
            axes = lps_from_ijk[:3, :3] / numpy.linalg.norm(lps_from_ijk[:3, :3], axis=0)
            if abs(numpy.cross(axes[:, 0], axes[:, 1]) @ axes[:, 2]) > 1 - 1e-5:
                as_volume(seg, lps_from_ijk, labels)
                ways.append("volume")
        total += voxels
        print(f"{case.name}: {voxels} voxels equal by {', '.join(ways)}; off by {worst:.1e} mm")
    print(f"{len(cases)} cases, {total} voxels, all equal")


if __name__ == "__main__":
    main(sys.argv[1])
