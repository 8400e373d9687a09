"""Records of the audit log in the forms of others, held against definitions that are not ours.

    python3 -m venv v && v/bin/pip install fhir.resources==8.3.0 pydicom==3.0.2
    NEGATOSCOPE_KEEP_CASES=KEPT cargo test --test suite audit_ && v/bin/python tests/golden/audit/check.py KEPT/audit/*

or with files that the program has written:

    negatoscope audit export --format atna-xml --out log.xml
    negatoscope audit export --format fhir --out log.ndjson

Last run with fhir.resources 8.3.0 (fhir-core 1.1.12), pydicom 3.0.2, jing 20220510 and libxml2 2.9.14.

XML: xmllint (libxml2) by message.rng, jing by message.rnc, and codes by pydicom's tables of PS3.16.
FHIR: the models of fhir.resources (release 4B, whose AuditEvent is that of R4), and its required value sets.
"""

import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

from fhir.resources.R4B.auditevent import AuditEvent
from pydicom.sr import codes

HERE = Path(__file__).parent


def concepts(number):
    return {c.value: c.meaning for c in getattr(codes, f"cid{number}").concepts.values()}


EVENTS, TYPES, ROLES, MEDIA = (concepts(n) for n in (400, 401, 402, 405))


def named(element, table, what):
    """A code of DCM is in its table with that meaning; another scheme is one of ours."""
    if element.get("codeSystemName") != "DCM":
        assert element.get("codeSystemName") == "99NEGATOSCOPE", (what, element.attrib)
        return
    value, meaning = element.get("csd-code"), element.get("originalText")
    assert table.get(value, "").lower() == meaning.lower(), (what, value, meaning)


def check_xml(lines):
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, line in enumerate(lines):
            files.append(Path(folder) / f"{number}.xml")
            files[-1].write_text(line, encoding="utf-8")
        subprocess.run(["xmllint", "--noout", "--nonet", "--relaxng", HERE / "message.rng", *files],
                       check=True, stderr=subprocess.DEVNULL)
        subprocess.run(["jing", "-c", HERE / "message.rnc", *files], check=True)
    for line in lines:
        root = ET.fromstring(line)
        event = root.find("EventIdentification")
        named(event.find("EventID"), EVENTS, "event")
        for kind in event.findall("EventTypeCode"):
            named(kind, TYPES, "type")
        for role in root.iter("RoleIDCode"):
            named(role, ROLES, "role")
        for medium in root.iter("MediaType"):
            named(medium, MEDIA, "medium")
        assert sum(p.get("UserIsRequestor") == "true" for p in root.iter("ActiveParticipant")) <= 1


# http://hl7.org/fhir/R4/auditevent.html: bindings of strength "required", and the extensible ones that have few codes.
ACTIONS = set("CRUDE")
OUTCOMES = {"0", "4", "8", "12"}
NETWORK = set("12345")
ENTITY_TYPES = set("1234")
ENTITY_ROLES = {str(n) for n in range(1, 25)}


def check_fhir(lines):
    for line in lines:
        event = AuditEvent.model_validate(json.loads(line))
        assert event.action in ACTIONS and event.outcome in OUTCOMES, line
        assert event.recorded.tzinfo is not None, line
        for agent in event.agent:
            assert agent.network is None or agent.network.type in NETWORK, line
        for entity in event.entity:
            assert entity.type.code in ENTITY_TYPES, line
            assert entity.role is None or entity.role.code in ENTITY_ROLES, (entity.role.code, line)
            # Invariant sev-1: a name or a query, not both.
            assert entity.name is None or entity.query is None, line


def main():
    for name in map(Path, sys.argv[1:]):
        lines = name.read_text(encoding="utf-8").splitlines()
        (check_xml if name.suffix == ".xml" else check_fhir)(lines)
        assert lines
        print(f"{name.name}: {len(lines)} {'messages by the schema' if name.suffix == '.xml' else 'AuditEvents by the definition'}")


main()
