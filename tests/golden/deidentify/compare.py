"""Which planted identities do other programs leave in the same files? A table, a row per kind of identity.

Usage: compare.py FOLDER
    FOLDER/in/*.dcm and FOLDER/identities.json are what the leak scan plants, and FOLDER/out*/ what Negatoscope made of it:
    NEGATOSCOPE_KEEP_CASES=KEPT cargo test --test suite deidentify_leaks:: && compare.py KEPT/leaks

Peers, each with the options that remove most (PyPI: dicom-anonymizer, dicognito, deid, pydicom):
    dicom-anonymizer   anonymize_dicom_file(in, out, delete_private_tags=True)
    dicognito          Anonymizer().anonymize(dataset), its defaults
    deid               replace_identifiers(..., deid=its recipe "dicom", strip_sequences=True, remove_private=True)

Counted: identities whose planted bytes, or whose text in UTF-8 or UTF-16LE, stand in a written file; without regard to
ASCII case. New UIDs below 2.25. are masked, as in the scan. A file that a program cannot read or write counts as refused.
"""

import collections
import json
import pathlib
import re
import sys
import tempfile
import warnings

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


def leaks(data, wanted):
    data = re.sub(rb"2\.25\.[\d.]+", b"#", data).lower()
    found = set()
    for start in {data[at : at + 4] for at in range(len(data) - 3)} & wanted.keys():
        found.update(n for n, form in wanted[start] if form in data)
    return found


def main():
    folder = pathlib.Path(sys.argv[1])
    identities = json.loads((folder / "identities.json").read_text())
    wanted = needles(identities)
    sources = sorted((folder / "in").glob("*.dcm"))
    columns = {}
    for name, program in [("dicom-anonymizer", dicom_anonymizer), ("dicognito", dicognito), ("deid", deid)]:
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
        columns[name] = (found, written)
        print(f"{name}: {written} written, refused {dict(refused)}", file=sys.stderr)
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
