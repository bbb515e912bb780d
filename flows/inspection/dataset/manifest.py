"""The dataset manifest: a row per image, and snapshots of all rows that never change.

    datasets/<id>/rows.jsonl       header line, then canonical rows sorted by uri; the id is their sha256
    datasets/<id>/about.json       where the images were last seen, and the snapshot's first parent
    <line>/snapshots/000001.json   the line's history: each entry is created once, so two flows cannot fork it

A row's `split` is part of the id: the same images divided otherwise are another snapshot. The location is not: the
same images in another folder or on another machine have the same id.
"""

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from inspection.errors import DataError
from inspection.storage import ObjectExistsError, Storage

SCHEMA = "1.1"
Label = Literal["good", "bad"]
Split = Literal["train", "calibration", "holdout", ""]
Box = tuple[float, float, float, float]  # left, top, width, height in px
SPLITS: tuple[Split, ...] = ("train", "calibration", "holdout")


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image of a snapshot."""

    uri: str  # path relative to the snapshot's location, '/' between its parts
    sha256: str  # of the file, hex
    width: int  # px, after the EXIF orientation
    height: int  # px
    label: Label
    defect_type: str | None = None
    mask: str | None = None  # uri of a picture that is not zero where the defect is
    boxes: tuple[Box, ...] = ()
    group: str = ""  # part or lot: its images stay in one split
    lot: str | None = None
    station: str | None = None
    view: str | None = None
    split: Split = ""
    source: Literal["initial", "review", "audit"] = "initial"
    labeller: str | None = None
    # Since 1.1. What is not there is not written, so that rows of 1.0 keep their snapshot's id.
    mask_sha256: str | None = None  # of the mask's file, hex
    box_types: tuple[str, ...] = ()  # defect type of each box; empty when the source names none
    mask_colors: tuple[tuple[str, str], ...] = ()  # colours that are defects: "#rrggbb", type; () = all but black
    confidence: float | None = None  # 0..1, of whoever or whatever labelled it
    human_annotated: bool | None = None  # False: labelled by a machine


_FIELDS = tuple(entry.name for entry in dataclasses.fields(ImageRow))
_WRITTEN_WHEN_SET = frozenset({"mask_sha256", "box_types", "mask_colors", "confidence", "human_annotated"})


@dataclass(frozen=True)
class Snapshot:
    """All images of a dataset at one time, sorted by uri."""

    id: str  # sha256 (hex) of the canonical rows
    rows: tuple[ImageRow, ...]
    parent: str | None  # id of the snapshot before it
    location: str  # where the images are: a folder or the address of another source

    def select(self, *splits: Split) -> list[ImageRow]:
        """The rows of these splits, in the snapshot's order."""
        return [row for row in self.rows if row.split in splits]

    @property
    def defect_types(self) -> tuple[str, ...]:
        """Sorted names of the defect types; empty when no row has one."""
        return tuple(sorted({row.defect_type for row in self.rows if row.defect_type is not None}))


@dataclass(frozen=True)
class Assignment:
    """The split of an image that the line once had, kept while the image is away."""

    group: str
    sha256: str
    split: Split


@dataclass(frozen=True)
class HistoryEntry:
    """One step of a line's history."""

    number: int  # from 1
    snapshot: str
    retired: tuple[Assignment, ...]  # of images that are in no longer, so that they come back to their split
    dropped: dict[str, str] = field(default_factory=dict)  # uri to reason of broken images that were left out
    grouped: tuple[tuple[str, ...], ...] = ()  # uris of near duplicates that were made one group


def make_snapshot(rows: Iterable[ImageRow], parent: str | None, location: str) -> Snapshot:
    """Sort the rows and name the snapshot by their digest.

    Raises:
        DataError: two rows have the same uri.
    """
    ordered = tuple(sorted(rows, key=lambda row: row.uri))
    for before, after in itertools.pairwise(ordered):
        if before.uri == after.uri:
            raise DataError(f"{location}: {after.uri} is in the dataset twice; a source must yield each image once")
    return Snapshot(_digest(_canonical(row) for row in ordered), ordered, parent, location)


def store_snapshot(
    storage: Storage,
    line: str,
    snapshot: Snapshot,
    retired: tuple[Assignment, ...] = (),
    dropped: Mapping[str, str] | None = None,
    grouped: tuple[tuple[str, ...], ...] = (),
) -> HistoryEntry:
    """Store the snapshot and make it the line's latest.

    Args:
        storage: where to.
        line: name of the line.
        snapshot: its parent must be the line's latest snapshot.
        retired: assignments of images that the line had and this snapshot has not.
        dropped: uri to reason of broken images that were left out.
        grouped: uris of near duplicates that were made one group.

    Raises:
        ObjectExistsError: another flow added a snapshot to the line in the meantime; divide again with it as parent.
    """
    latest = latest_entry(storage, line)
    if (latest.snapshot if latest else None) != snapshot.parent:
        raise ObjectExistsError(f"line {line}: another flow stored snapshot {latest and latest.snapshot} meanwhile")
    lines = [_canonical(row) for row in snapshot.rows]
    header = dump_document({"schema": SCHEMA, "requires": [], "rows": len(lines)})
    storage.write(f"datasets/{snapshot.id}/rows.jsonl", "\n".join([header, *lines, ""]).encode())
    update_location(storage, snapshot)
    entry = HistoryEntry(latest.number + 1 if latest else 1, snapshot.id, retired, dict(dropped or {}), grouped)
    document = {
        "schema": SCHEMA,
        "requires": [],
        "snapshot": snapshot.id,
        "parent": snapshot.parent,
        "retired": [dataclasses.asdict(assignment) for assignment in retired],
        "dropped": entry.dropped,
        "grouped": grouped,
    }
    storage.create(f"{line}/snapshots/{entry.number:06d}.json", dump_document(document).encode())
    return entry


def update_location(storage: Storage, snapshot: Snapshot) -> None:
    """Remember where the images of a stored snapshot are now."""
    key = f"datasets/{snapshot.id}/about.json"
    parent = read_document(storage, key)["parent"] if storage.exists(key) else snapshot.parent
    about: dict[str, Any] = {"schema": SCHEMA, "requires": [], "location": snapshot.location, "parent": parent}
    storage.write(key, dump_document(about).encode())


def load_snapshot(storage: Storage, snapshot_id: str) -> Snapshot:
    """Read a snapshot and check it against its id.

    Raises:
        StorageError: there is no such snapshot.
        DataError: it was changed after it was stored, or another major version wrote it.
    """
    key = f"datasets/{snapshot_id}/rows.jsonl"
    header, *lines = storage.read(key).decode().splitlines()
    check_schema(_parse(header, key), key)
    if _digest(lines) != snapshot_id:
        raise DataError(f"{storage.root}/{key}: was changed after it was stored; restore it or prepare the data again")
    about = read_document(storage, f"datasets/{snapshot_id}/about.json")
    rows = tuple(_row(_parse(line, key)) for line in lines)
    return Snapshot(snapshot_id, rows, about["parent"], about["location"])


def latest_snapshot_id(storage: Storage, line: str) -> str | None:
    """Id of the line's latest snapshot; None if it has none yet."""
    latest = latest_entry(storage, line)
    return latest.snapshot if latest else None


def latest_entry(storage: Storage, line: str) -> HistoryEntry | None:
    """The last step of the line's history; None if it has none yet."""
    keys = storage.list(f"{line}/snapshots/")
    return _read_entry(storage, keys[-1]) if keys else None


def read_history(storage: Storage, line: str) -> list[HistoryEntry]:
    """Every step of the line's history, oldest first; empty if it has none yet."""
    return [_read_entry(storage, key) for key in storage.list(f"{line}/snapshots/")]


def _read_entry(storage: Storage, key: str) -> HistoryEntry:
    document = read_document(storage, key)
    return HistoryEntry(
        number=int(key.rpartition("/")[2][:-5]),
        snapshot=document["snapshot"],
        retired=tuple(Assignment(item["group"], item["sha256"], item["split"]) for item in document["retired"]),
        dropped=document.get("dropped", {}),
        grouped=tuple(tuple(uris) for uris in document.get("grouped", ())),
    )


def read_document(storage: Storage, key: str) -> dict[str, Any]:
    """Read a small JSON object and check its schema.

    Raises:
        DataError: it is not a JSON object, or another major version wrote it.
    """
    document = _parse(storage.read(key).decode(), key)
    check_schema(document, key)
    return document


def _row(fields: Mapping[str, Any]) -> ImageRow:
    known = {name: fields[name] for name in _FIELDS if name in fields}
    for name in ("boxes", "mask_colors"):
        known[name] = tuple(tuple(item) for item in known.get(name, ()))
    known["box_types"] = tuple(known.get("box_types", ()))
    return ImageRow(**known)


def _canonical(row: ImageRow) -> str:
    fields = {name: getattr(row, name) for name in _FIELDS}
    return dump_document(
        {name: value for name, value in fields.items() if name not in _WRITTEN_WHEN_SET or value not in (None, ())}
    )


def dump_document(document: Mapping[str, Any]) -> str:
    """JSON text on one line, the same for the same content on every machine."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise DataError(f"{where}: not valid JSON ({error}); restore it or prepare the data again") from None
    if not isinstance(document, dict):
        raise DataError(f"{where}: want a JSON object, found {type(document).__name__}")
    return document


def check_schema(document: Mapping[str, Any], where: str) -> None:
    """Refuse another major version and requirements that this program does not know."""
    schema = document.get("schema")
    match = re.fullmatch(r"(\d+)\.(\d+)", schema) if isinstance(schema, str) else None
    if match is None:
        raise DataError(f"{where}: schema: want major.minor such as {SCHEMA!r}, found {schema!r}")
    if match[1] != SCHEMA.split(".", 1)[0]:
        raise DataError(f"{where}: schema {schema} has another major version than {SCHEMA}; update this program")
    if document.get("requires"):
        raise DataError(f"{where}: requires {document['requires']}, which this program does not know; update it")
