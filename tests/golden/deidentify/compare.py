"""Which planted identities do other programs leave in the same files? A table, a row per kind of identity.

Usage: compare.py FOLDER
    FOLDER/in/*.dcm and FOLDER/identities.json are what the leak scan plants, and FOLDER/out*/ what Negatoscope made of it:
    NEGATOSCOPE_KEEP_CASES=KEPT cargo test --test suite deidentify_leaks:: && compare.py KEPT/leaks

Peers, each with the options that remove most (PyPI: dicom-anonymizer, dicognito, deid, pydicom; Debian: orthanc):
    dicom-anonymizer   anonymize_dicom_file(in, out, delete_private_tags=True)
    dicognito          Anonymizer().anonymize(dataset), its defaults
    deid               replace_identifiers(..., deid=its recipe "dicom", strip_sequences=True, remove_private=True)
    Orthanc            POST /instances/ID/anonymize of a server of our own on this machine, its defaults (the Basic
                       Profile of PS3.15-2021b without private elements); left out where no `Orthanc` is on the path

Counted: identities whose planted bytes, or whose text in UTF-8 or UTF-16LE, stand in a written file; without regard to
ASCII case. Deflated files are inflated before. New UIDs below 2.25. are masked, as in the scan. A file that a program cannot
read or write counts as refused.
"""

import collections
import contextlib
import functools
import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
import zlib

warnings.simplefilter("ignore")


def dicom_anonymizer(source, target):
    from dicomanonymizer import anonymize_dicom_file

    anonymize_dicom_file(str(source), str(target), delete_private_tags=True)


def dicognito(source, target):
    import pydicom
    from dicognito.anonymizer import Anonymizer

    dataset = pydicom.dcmread(source)
    Anonymizer().anonymize(dataset)
    dataset.save_as(target)


def deid(source, target):
    from deid.config import DeidRecipe
    from deid.dicom import replace_identifiers

    cleaned = replace_identifiers(
        dicom_files=[str(source)], deid=DeidRecipe(deid="dicom"), save=False, strip_sequences=True, remove_private=True
    )
    cleaned[0].save_as(target)


def ask(url, body=None):
    with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=60) as answer:
        return answer.read()


@contextlib.contextmanager
def orthanc_server():
    """Orthanc without plugins, for this machine alone; gives its address."""
    with tempfile.TemporaryDirectory() as folder:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        store = {"StorageDirectory": folder, "IndexDirectory": folder, "Plugins": [], "DicomServerEnabled": False}
        settings = pathlib.Path(folder) / "orthanc.json"
        settings.write_text(json.dumps({**store, "HttpPort": port, "RemoteAccessAllowed": False}))
        server = subprocess.Popen(["Orthanc", settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(100):
                with contextlib.suppress(OSError):
                    print(f"Orthanc {json.loads(ask(url + '/system'))['Version']}", file=sys.stderr)
                    break
                time.sleep(0.1)
            yield url
        finally:
            server.terminate()
            server.wait()


def orthanc(url, source, target):
    known = json.loads(ask(f"{url}/instances", source.read_bytes()))["ID"]
    target.write_bytes(ask(f"{url}/instances/{known}/anonymize", b"{}"))


def needles(identities):
    """By their first four bytes: (number of the identity, bytes in lower case)."""
    found = collections.defaultdict(list)
    for n, identity in enumerate(identities):
        text = identity["text"]
        forms = {bytes(identity["planted"])}
        if "burned" not in identity["what"] and "drawn" not in identity["what"]:
            forms |= {text.encode(), text.encode("utf-16-le")}
        for form in forms:
            form = form.lower()
            found[form[:4]].append((n, form))
    return found


def inflated(data):
    """A file with its data set as it is in memory: the file meta group ends where its length says."""
    if b"1.2.840.10008.1.2.1.99" not in data[:1000] or data[128:136] != b"DICM\2\0\0\0":
        return data
    end = 144 + int.from_bytes(data[140:144], "little")
    return data[:end] + zlib.decompress(data[end:], -15)


def leaks(data, wanted):
    data = re.sub(rb"2\.25\.[\d.]+", b"#", inflated(data)).lower()
    found = set()
    for start in {data[at : at + 4] for at in range(len(data) - 3)} & wanted.keys():
        found.update(n for n, form in wanted[start] if form in data)
    return found


def tried(name, program, sources, wanted):
    """Numbers of the identities that are left, and how many files came out."""
    found, written, refused = set(), 0, collections.Counter()
    with tempfile.TemporaryDirectory() as out:
        for source in sources:
            target = pathlib.Path(out) / source.name
            try:
                program(source, target)
                data = target.read_bytes()
            except Exception as error:
                refused[type(error).__name__] += 1
                continue
            written += 1
            found |= leaks(data, wanted)
    print(f"{name}: {written} written, refused {dict(refused)}", file=sys.stderr)
    return found, written


def main():
    folder = pathlib.Path(sys.argv[1])
    identities = json.loads((folder / "identities.json").read_text())
    wanted = needles(identities)
    sources = sorted((folder / "in").glob("*.dcm"))
    columns = {}
    with contextlib.ExitStack() as stack:
        programs = {"dicom-anonymizer": dicom_anonymizer, "dicognito": dicognito, "deid": deid}
        if shutil.which("Orthanc"):
            programs["Orthanc"] = functools.partial(orthanc, stack.enter_context(orthanc_server()))
        for name, program in programs.items():
            columns[name] = tried(name, program, sources, wanted)
    for out in sorted(folder.glob("out*")):
        found, files = set(), sorted(out.glob("*.dcm"))
        for path in files:
            found |= leaks(path.read_bytes(), wanted)
        columns[f"negatoscope ({out.name})"] = (found, len(files))
    planted = collections.Counter(identity["what"] for identity in identities)
    print("| identity | planted | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 2) + "|")
    print("| files written | " + " | ".join([str(len(sources))] + [str(written) for _, written in columns.values()]) + " |")
    for what, count in sorted(planted.items()):
        left = [sum(identities[n]["what"] == what for n in found) for found, _ in columns.values()]
        if any(left):
            print(f"| {what} | {count} | " + " | ".join(map(str, left)) + " |")
    print("| all | " + " | ".join([str(len(identities))] + [str(len(found)) for found, _ in columns.values()]) + " |")


main()
