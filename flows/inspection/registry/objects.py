"""The registry's objects in a storage: their keys, and how versions are read from them.

registry/<line>/000001.json                    entry of version 1, written once
registry/<line>/000001/events/0001.json        first decision on it, written once
"""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from inspection.errors import RegistryError
from inspection.registry.entries import Entry, parse_entry, parse_event
from inspection.registry.interface import ModelVersion, StatusChange
from inspection.storage import Storage

READERS = 16  # objects read at once: in a bucket each costs a round trip


def entry_key(line: str, version: int) -> str:
    """Where the entry of a version is."""
    return f"registry/{line}/{version:06d}.json"


def event_key(line: str, version: int, number: int) -> str:
    """Where a decision on a version is; the first has number 1."""
    return f"registry/{line}/{version:06d}/events/{number:04d}.json"


def archive_key(sha256: str) -> str:
    """Where an archive is."""
    return f"packages/{sha256}.zip"


def card_key(sha256: str) -> str:
    """Where the card is that reports the model in an archive."""
    return f"packages/{sha256}.html"


def metrics_key(sha256: str) -> str:
    """Where the figures of the model in an archive are, as `metrics.json`."""
    return f"packages/{sha256}.metrics.json"


def list_lines(storage: Storage) -> tuple[str, ...]:
    """Names of the lines that have entries, sorted."""
    matches = (re.fullmatch(r"registry/([^/]+)/\d{6,}\.json", key) for key in storage.list("registry/"))
    return tuple(sorted({match[1] for match in matches if match}))


def list_numbers(storage: Storage, line: str) -> tuple[int, ...]:
    """Numbers of a line's versions, ascending."""
    prefix = f"registry/{line}/"
    matches = (re.fullmatch(r"(\d{6,})\.json", key.removeprefix(prefix)) for key in storage.list(prefix))
    return tuple(sorted(int(match[1]) for match in matches if match))


def read_versions(storage: Storage, line: str, numbers: Sequence[int]) -> tuple[ModelVersion, ...]:
    """Versions with their history, in the order of their numbers.

    Raises:
        StorageError: an entry or a decision is missing.
        RegistryError: a document cannot be read, or is not the one that its key says.
    """
    events = _read_events(storage, line, numbers)
    return tuple(_to_version(entry, events[entry.version]) for entry in read_entries(storage, line, numbers))


def read_entries(storage: Storage, line: str, numbers: Sequence[int]) -> tuple[Entry, ...]:
    """Entries without what was decided on them, in the order of their numbers.

    Raises:
        StorageError: one is missing.
        RegistryError: one cannot be read, or is not the one that its key says.
    """
    keys = [entry_key(line, number) for number in numbers]
    entries = []
    for number, key, data in zip(numbers, keys, _read_all(storage, keys), strict=True):
        entry = parse_entry(data, f"{storage.root}/{key}")
        if (entry.line, entry.version) != (line, number):
            raise RegistryError(
                f"{storage.root}/{key}: want the entry of line {line} version {number}, found that of line "
                f"{entry.line} version {entry.version}; restore this object from a backup"
            )
        entries.append(entry)
    return tuple(entries)


def _read_events(storage: Storage, line: str, numbers: Sequence[int]) -> dict[int, tuple[StatusChange, ...]]:
    """The decisions on each version, oldest first."""
    prefix = f"registry/{line}/" if len(numbers) != 1 else f"registry/{line}/{numbers[0]:06d}/events/"
    last = dict.fromkeys(numbers, 0)
    for key in storage.list(prefix):
        match = re.fullmatch(r"registry/[^/]+/(\d{6,})/events/(\d{4,})\.json", key)
        if match and int(match[1]) in last:
            last[int(match[1])] = max(last[int(match[1])], int(match[2]))
    # Every number up to the last is read, listed or not: a decision that is missing must not go unnoticed.
    places = [
        (version, event_key(line, version, event)) for version in numbers for event in range(1, last[version] + 1)
    ]
    events: dict[int, tuple[StatusChange, ...]] = dict.fromkeys(numbers, ())
    for (version, key), data in zip(places, _read_all(storage, [key for _, key in places]), strict=True):
        events[version] += (parse_event(data, f"{storage.root}/{key}"),)
    return events


def _read_all(storage: Storage, keys: Sequence[str]) -> list[bytes]:
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(storage.read, keys))


def _to_version(entry: Entry, history: tuple[StatusChange, ...]) -> ModelVersion:
    return ModelVersion(
        line=entry.line,
        version=entry.version,
        status=history[-1].status if history else "pending",
        archive=entry.archive,
        archive_sha256=entry.archive_sha256,
        contract_version=entry.contract_version,
        created_at=entry.created_at,
        metrics=entry.metrics,
        lineage=entry.lineage,
        tags=entry.tags,
        history=history,
    )
