"""What taking a set in told, kept beside the line's history for the cards of the run and of later ones.

<line>/intakes/<snapshot id>.json    warnings, images left out, near duplicates grouped; of the last run that gave
                                     this snapshot
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from inspection.dataset.findings import Finding
from inspection.dataset.grouping import Repair
from inspection.dataset.manifest import Snapshot, check_schema, dump_document, load_snapshot
from inspection.storage import Storage

SCHEMA = "1.0"
_GROUPS_KEPT = 50  # of a finding's images: cards show fewer


@dataclass(frozen=True)
class Intake:
    """A set that was taken in: its snapshot, and what is to be said of it."""

    snapshot: Snapshot
    findings: tuple[Finding, ...] = ()  # warnings only: errors have stopped it
    dropped: Mapping[str, str] = field(default_factory=dict)  # uri to reason of broken images that were left out
    repair: Repair | None = None  # what grouping near duplicates changed; None = it was not asked for


def store_intake(storage: Storage, line: str, intake: Intake) -> None:
    """Keep the record; it replaces that of an earlier run with the same snapshot."""
    kept = [{**dataclasses.asdict(finding), "images": finding.images[:_GROUPS_KEPT]} for finding in intake.findings]
    document = {
        "schema": SCHEMA,
        "requires": [],
        "findings": kept,
        "dropped": dict(intake.dropped),
        "repair": None if intake.repair is None else dataclasses.asdict(intake.repair),
    }
    data = dump_document(document).encode()
    key = _key(line, intake.snapshot.id)
    if not storage.exists(key) or storage.read(key) != data:
        storage.write(key, data)


def load_intake(storage: Storage, line: str, snapshot_id: str) -> Intake | None:
    """The record of a snapshot; None if an older program took it in.

    Raises:
        StorageError: there is no such snapshot.
        DataError: another major version wrote the record.
    """
    key = _key(line, snapshot_id)
    if not storage.exists(key):
        return None
    document = json.loads(storage.read(key))
    check_schema(document, key)
    findings = tuple(
        Finding(**{**fields, "images": tuple(tuple(uris) for uris in fields["images"])})
        for fields in document["findings"]
    )
    repair = document["repair"]
    return Intake(
        load_snapshot(storage, snapshot_id),
        findings,
        document["dropped"],
        repair and Repair(*(tuple(tuple(item) for item in repair[name]) for name in ("merged", "leaks", "moved"))),
    )


def _key(line: str, snapshot_id: str) -> str:
    return f"{line}/intakes/{snapshot_id}.json"
