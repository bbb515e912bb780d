"""The registry's JSON documents: an entry per version, an event per decision.

Both carry `schema = major.minor` and `requires`: a reader refuses another major and any requirement that it does not
know, and ignores unknown fields of a newer minor, so that programs of different ages share one registry.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from inspection.errors import RegistryError
from inspection.registry.interface import SHA256, STATUSES, Lineage, PackageReference, StatusChange

SCHEMA = "1.0"
KNOWN_REQUIREMENTS: frozenset[str] = frozenset()
T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """What is fixed when a version is registered."""

    line: str
    version: int
    archive: str  # storage key
    archive_sha256: str
    contract_version: str
    created_at: datetime  # UTC
    metrics: Mapping[str, Any]
    lineage: Lineage
    tags: Mapping[str, str]


def dump_entry(package: PackageReference, version: int, archive: str, champion: int | None, at: datetime) -> bytes:
    """The JSON document of a new version.

    Raises:
        RegistryError: the metrics are not JSON (for instance NaN, or a numpy number).
    """
    document = {
        "schema": SCHEMA,
        "requires": [],
        "line": package.line,
        "version": version,
        "archive": archive,
        "archive_sha256": package.archive_sha256,
        "contract_version": package.contract_version,
        "created_at": at.isoformat(),
        "metrics": dict(package.metrics),
        "lineage": {
            "snapshot": package.snapshot,
            "run": package.run,
            "commit": package.commit,
            "card": package.card,
            "champion": champion,
        },
        "tags": dict(package.tags),
    }
    try:
        return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise RegistryError(
            f"metrics or tags of line {package.line}: want JSON values and finite numbers, found otherwise ({error}); "
            "convert numpy numbers with float() and leave out what could not be measured"
        ) from None


def dump_event(change: StatusChange) -> bytes:
    """The JSON document of one decision."""
    document = {
        "schema": SCHEMA,
        "requires": [],
        "status": change.status,
        "by": change.by,
        "why": change.why,
        "at": change.at.isoformat(),
    }
    return (json.dumps(document, indent=2) + "\n").encode()


def parse_entry(data: bytes, where: str) -> Entry:
    """Read an entry.

    Args:
        data: JSON.
        where: key of the object, for messages.

    Raises:
        RegistryError: not JSON, another major version, an unknown requirement, a missing or wrong field.
    """
    document = _parse(data, where)
    lineage = _take(document, "lineage", dict, where)
    champion = lineage.get("champion")
    if champion is not None and (not isinstance(champion, int) or isinstance(champion, bool)):
        raise RegistryError(f"{where}: lineage.champion: want a version or null, found {champion!r}")
    digest = _take(document, "archive_sha256", str, where)
    if not SHA256.fullmatch(digest):
        raise RegistryError(f"{where}: archive_sha256: want 64 hexadecimal digits, found {digest!r}")
    return Entry(
        line=_take(document, "line", str, where),
        version=_take(document, "version", int, where),
        archive=_take(document, "archive", str, where),
        archive_sha256=digest,
        contract_version=_take(document, "contract_version", str, where),
        created_at=_take_time(document, "created_at", where),
        metrics=_take(document, "metrics", dict, where),
        lineage=Lineage(
            snapshot=_take(lineage, "snapshot", str, f"{where}: lineage"),
            run=_take(lineage, "run", str, f"{where}: lineage"),
            commit=_take(lineage, "commit", str, f"{where}: lineage"),
            card=_take(lineage, "card", str, f"{where}: lineage"),
            champion=champion,
        ),
        tags=_take(document, "tags", dict, where),
    )


def parse_event(data: bytes, where: str) -> StatusChange:
    """Read a decision.

    Raises:
        RegistryError: not JSON, another major version, an unknown requirement, a missing or wrong field.
    """
    document = _parse(data, where)
    status = _take(document, "status", str, where)
    known = next((name for name in STATUSES if name == status), None)
    if known is None:
        raise RegistryError(f"{where}: status: want one of {list(STATUSES)}, found {status!r}; update this program")
    return StatusChange(
        status=known,
        by=_take(document, "by", str, where),
        why=_take(document, "why", str, where),
        at=_take_time(document, "at", where),
    )


def _parse(data: bytes, where: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except ValueError as error:
        raise RegistryError(
            f"{where}: want a registry document in JSON, found {len(data)} bytes that are not ({error}); "
            "restore this object from a backup"
        ) from None
    if not isinstance(document, dict):
        raise RegistryError(f"{where}: want a JSON object, found {type(document).__name__}")
    schema = document.get("schema")
    match = re.fullmatch(r"(\d+)\.(\d+)", schema) if isinstance(schema, str) else None
    if match is None:
        raise RegistryError(f"{where}: schema: want major.minor such as {SCHEMA!r}, found {schema!r}")
    if match[1] != SCHEMA.split(".", 1)[0]:
        raise RegistryError(
            f"{where}: schema: want {SCHEMA} or a later minor of it, found {schema}; update this program"
        )
    requires = document.get("requires", [])
    if not isinstance(requires, list) or any(name not in KNOWN_REQUIREMENTS for name in requires):
        raise RegistryError(f"{where}: requires {requires!r}, which this program does not know; update this program")
    return document


def _take(document: dict[str, Any], name: str, kind: type[T], where: str) -> T:
    value = document.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        found = repr(value) if name in document else "nothing"
        raise RegistryError(f"{where}: {name}: want {kind.__name__}, found {found}")
    return value


def _take_time(document: dict[str, Any], name: str, where: str) -> datetime:
    text = _take(document, name, str, where)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise RegistryError(
            f"{where}: {name}: want a time with its zone such as 2026-11-22T10:00:00+00:00, found {text!r}"
        )
    return moment.astimezone(UTC)
