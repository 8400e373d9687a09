"""Writes one segmentation in every type and encoding that highdicom, pydicom or the standard offer.

python make_encodings.py FOLDER

Needs highdicom 0.28 (MIT), pydicom 3.0 (MIT), pylibjpeg-openjpeg and pyjpegls for the compressed ones.
Writes FOLDER/<name>.dcm and FOLDER/<name>.labels: one byte per voxel, i fastest, then j, then k.
The mask has 35 columns and 33 rows, so that a frame of single bits ends inside of a byte.
What an encoder does not offer is named on standard output and left out.
"""

import copy
import pathlib
import struct
import sys
import zlib

import highdicom
import numpy
import pydicom
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    SegmentDescription,
    Segmentation,
)
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.sr.codedict import codes
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

SLICES, ROWS, COLUMNS = 5, 33, 35
DEFLATED_FRAMES = UID("1.2.840.10008.1.2.8.1")


def source():
    images = []
    for k in range(SLICES):
        d = pydicom.Dataset()
        d.file_meta = pydicom.dataset.FileMetaDataset()
        d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        d.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        d.SOPInstanceUID = f"1.2.3.4.{k + 1}"
        d.StudyInstanceUID, d.SeriesInstanceUID = "1.2.3.1", "1.2.3.2"
        d.FrameOfReferenceUID = "1.2.3.3"
        d.Modality, d.SeriesNumber, d.InstanceNumber = "CT", 1, k + 1
        for name in (
            "PatientID PatientName PatientBirthDate PatientSex StudyDate StudyTime StudyID "
            "AccessionNumber ReferringPhysicianName"
        ).split():
            setattr(d, name, "")
        d.Rows, d.Columns, d.PixelSpacing = ROWS, COLUMNS, [0.7, 0.5]
        d.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        d.ImagePositionPatient = [-20, 30, 40 + 2.5 * k]
        d.SliceThickness = 2.5
        d.BitsAllocated = d.BitsStored = 16
        d.HighBit, d.PixelRepresentation, d.SamplesPerPixel = 15, 0, 1
        d.PhotometricInterpretation = "MONOCHROME2"
        images.append(d)
    return images


def description(number):
    return SegmentDescription(
        number,
        f"segment {number}",
        codes.SCT.Organ,
        codes.SCT.Liver,
        SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            "test", codes.DCM.ArtificialIntelligence, "1"
        ),
    )


def segmentation(kind, pixels, segments, syntax):
    return Segmentation(
        source(),
        pixels,
        kind,
        [description(n + 1) for n in range(segments)],
        "1.2.5.1",
        9,
        "1.2.5.2",
        1,
        "maker",
        "model",
        "1",
        "serial",
        transfer_syntax_uid=syntax,
    )


def frames_of_bits(seg):
    """Packed bits of each frame, padded to whole bytes."""
    bits = numpy.unpackbits(numpy.frombuffer(seg.PixelData, numpy.uint8), bitorder="little")
    size = ROWS * COLUMNS
    return [
        numpy.packbits(bits[n * size : (n + 1) * size], bitorder="little").tobytes()
        for n in range(seg.NumberOfFrames)
    ]


def packbits_frame(data):
    """PS3.5 annex G: one segment; runs where a byte repeats, else literals."""
    out, n = b"", 0
    while n < len(data):
        run = 1
        while n + run < len(data) and run < 128 and data[n + run] == data[n]:
            run += 1
        if run > 1:
            out += struct.pack("b", 1 - run) + data[n : n + 1]
        else:
            out += b"\0" + data[n : n + 1]
        n += run
    out += b"\0" * (len(out) % 2)
    return struct.pack("<16L", 1, 64, *[0] * 14) + out


def compressed_by_hand(seg, syntax, encode):
    seg = copy.deepcopy(seg)
    seg.PixelData = encapsulate([encode(frame) for frame in frames_of_bits(seg)])
    seg["PixelData"].is_undefined_length = True
    seg["PixelData"].VR = "OB"
    seg.file_meta.TransferSyntaxUID = syntax
    return seg


def save_encapsulated(seg, path):
    """As pydicom writes, without its list of transfer syntaxes."""
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, False
    out.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(out, seg.file_meta)
    write_dataset(out, seg)
    path.write_bytes(out.getvalue())


def deflated(frame):
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    out = coder.compress(frame) + coder.flush()
    return out + b"\0" * (len(out) % 2)


def main(folder):
    folder = pathlib.Path(folder)
    random = numpy.random.default_rng(7)
    labels = random.integers(0, 4, (SLICES, ROWS, COLUMNS)).astype(numpy.uint8)
    labels[:, 8:20, 9:30] = 2  # something that codecs can compress
    labels[:, 22:30] = 0
    half = random.integers(0, 256, (SLICES, ROWS, COLUMNS)) / 255.0

    def save(name, seg, truth):
        path = folder / f"{name}.dcm"
        if seg.file_meta.TransferSyntaxUID == DEFLATED_FRAMES:  # newer than pydicom
            save_encapsulated(seg, path)
        else:
            seg.save_as(path)
        (folder / f"{name}.labels").write_bytes(truth.astype(numpy.uint8).tobytes())

    kinds = {
        "binary": ("BINARY", labels, 3, labels),
        "fractional": ("FRACTIONAL", half, 1, half >= 0.5),
        "labelmap": ("LABELMAP", labels, 3, labels),
    }
    syntaxes = {
        "explicit": ExplicitVRLittleEndian,
        "implicit": ImplicitVRLittleEndian,
        "rle": RLELossless,
        "j2k": JPEG2000Lossless,
        "jpegls": JPEGLSLossless,
    }
    for kind, (term, pixels, count, truth) in kinds.items():
        for name, syntax in syntaxes.items():
            try:
                save(f"{kind}-{name}", segmentation(term, pixels, count, syntax), truth)
            except Exception as error:  # what an encoder refuses is no file to read
                print(f"not written: {kind}-{name}: {error}")
        seg = segmentation(term, pixels, count, ExplicitVRLittleEndian)
        seg.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        save(f"{kind}-deflated", seg, truth)

    seg = segmentation("BINARY", labels, 3, ExplicitVRLittleEndian)
    save("binary-rle-by-hand", compressed_by_hand(seg, RLELossless, packbits_frame), labels)
    save(
        "binary-deflated-frames",
        compressed_by_hand(seg, DEFLATED_FRAMES, deflated),
        labels,
    )

    wide = segmentation("LABELMAP", labels, 3, ExplicitVRLittleEndian)
    narrow = numpy.frombuffer(wide.PixelData, numpy.uint8)[: labels.size]
    wide.PixelData = narrow.astype("<u2").tobytes()
    wide["PixelData"].VR = "OW"
    wide.BitsAllocated = wide.BitsStored = 16
    wide.HighBit = 15
    save("labelmap-16-bit", wide, labels)


if __name__ == "__main__":
    main(sys.argv[1])
