"""Reads every de-identified file with pydicom and holds it against its original.

Usage: check_with_pydicom.py pairs.tsv     (original <tab> de-identified, one pair a line)

Checked: the file is read with its meta group; every element can be decoded; pixel data (native values of the
declared size, or fragments) are the original's bytes; names, identifiers and comments of the original occur
nowhere; where dciodvfy is installed, it finds no kind of error that it does not find in the original, but for
what an emptied or removed attribute means.
"""

import re
import shutil
import subprocess
import sys
import warnings

import pydicom

warnings.simplefilter("ignore")
IDENTITIES = [
    "PatientName", "PatientID", "OtherPatientIDs", "AccessionNumber", "ReferringPhysicianName",
    "PatientAddress", "OperatorsName", "PerformingPhysicianName", "PatientComments",
]


def errors(path):
    said = subprocess.run(["dciodvfy", path], capture_output=True).stderr.decode("latin-1")
    found = set()
    for line in said.splitlines():
        if line.startswith("Error"):
            # Without values, numbers and places: the kind of error.
            found.add(re.sub(r"<[^>]*>", "", re.sub(r"\[[^]]*\]|[\d.]+", "", line)).strip())
    return found


def main():
    pairs = [line.split("\t") for line in open(sys.argv[1]).read().splitlines()]
    wrong, new_kinds = [], {}
    validator = shutil.which("dciodvfy")
    for before_path, after_path in pairs:
        before = pydicom.dcmread(before_path, force=True)
        after = pydicom.dcmread(after_path)
        for element in after.iterall():
            str(element.value)
        if after.PatientIdentityRemoved != "YES" or after.file_meta.MediaStorageSOPInstanceUID != after.SOPInstanceUID:
            wrong.append(f"{before_path}: not marked")
        if "PixelData" in after:
            # Some originals lack the padding to an even length, some have bytes behind the last pixel.
            size = min(len(before.PixelData), len(after.PixelData))
            if before.PixelData[:size] != after.PixelData[:size] and "OverlayRows" not in str(before.dir()):
                wrong.append(f"{before_path}: other pixels")
        raw = open(after_path, "rb").read()
        for keyword in IDENTITIES:
            value = str(before.get(keyword, "") or "").strip()
            common = {"anonymous", "anonymized", "unknown", "removed", "none"}
            if len(value) >= 5 and value.lower() not in common and value.encode() in raw:
                wrong.append(f"{before_path}: {keyword} is still there")
        if validator:
            known = errors(before_path)
            # What it cannot read at all (deflated files) is no measure.
            readable = not any("read failed" in kind for kind in known)
            for kind in errors(after_path) - known if readable else ():
                new_kinds.setdefault(kind, []).append(before_path)
    print(f"{len(pairs)} files read by pydicom {pydicom.__version__}, {len(wrong)} wrong")
    for kind, paths in sorted(new_kinds.items(), key=lambda item: -len(item[1])):
        print(f"dciodvfy, new: {len(paths)} x {kind} ({paths[0].rsplit('/', 1)[-1]})")
    print("\n".join(wrong))
    sys.exit(bool(wrong or new_kinds))


main()
