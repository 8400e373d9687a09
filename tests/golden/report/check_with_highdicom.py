"""Reads a measurement report with independent readers and prints what is in it.

    python check_with_highdicom.py REPORT.dcm

Readers: highdicom (srread, which checks the content against value types and relationships of the
object's kind), pydicom (evidence and templates). One line per fact, to be compared by the caller.

Tried with highdicom 0.28.2, pydicom 3.0.2.
"""

import sys

import highdicom
import pydicom
from pydicom.sr.coding import Code

path = sys.argv[1]
plain = pydicom.dcmread(path)
assert plain.SOPClassUID == pydicom.uid.EnhancedSRStorage
print("template", plain.ContentTemplateSequence[0].TemplateIdentifier)
print("flags", plain.CompletionFlag, plain.VerificationFlag, plain.PreliminaryFlag)
print("series", plain.Modality, plain.SeriesDescription)
for study in plain.CurrentRequestedProcedureEvidenceSequence:
    for series in study.ReferencedSeriesSequence:
        for image in series.ReferencedSOPSequence:
            print(
                "evidence",
                study.StudyInstanceUID,
                series.SeriesInstanceUID,
                image.ReferencedSOPClassUID,
                image.ReferencedSOPInstanceUID,
            )

report = highdicom.sr.srread(path)
content = report.content
assert isinstance(content, highdicom.sr.MeasurementReport), type(content)
for observer in content.get_observer_contexts():
    print("observer", observer.observer_type.meaning, observer.observer_identifying_attributes.name)
groups = content.get_image_measurement_groups()
for group in groups:
    finding = group.finding_type
    print("group", group.tracking_identifier, "|", finding.scheme_designator, finding.value)
    assert group.tracking_uid
    assert group.finding_category == Code("404684003", "SCT", "Clinical finding")
    for image in group.source_images:
        print("source", image.referenced_sop_instance_uid)
    for measurement in group.get_measurements():
        method = measurement.method
        print(
            "number",
            f"{measurement.name.scheme_designator} {measurement.name.value}",
            repr(float(measurement.value)),
            measurement.unit.value,
            method.value if method else "-",
        )
    for evaluation in group.get_qualitative_evaluations():
        print(
            "code",
            f"{evaluation.name.scheme_designator} {evaluation.name.value}",
            f"{evaluation.value.scheme_designator} {evaluation.value.value}",
        )


def walk(item, depth=0):
    yield item
    for child in item.get("ContentSequence", []):
        yield from walk(child, depth + 1)


for item in walk(plain):
    if item.ValueType == "TEXT":
        print("text", item.ConceptNameCodeSequence[0].CodeValue, item.TextValue)
    if item.ValueType == "PNAME":
        print("person", item.PersonName)
    if item.ValueType == "DATETIME":
        print("time", item.DateTime)
