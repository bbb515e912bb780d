"""The registry's documents: files of every past schema version still read, and reading gives back what was written."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from inspection.registry.entries import dump_entry, dump_event, parse_entry, parse_event
from inspection.registry.interface import Lineage, PackageReference, StatusChange

GOLDEN = Path(__file__).with_name("golden")
MOMENT = datetime(2026, 11, 22, 23, 31, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("registry-entry-*.json")), ids=lambda path: path.stem)
def test_entries_of_every_schema_version_are_read(path):
    entry = parse_entry(path.read_bytes(), path.name)
    assert (entry.line, entry.version, entry.lineage.champion) == ("bottles", 3, 2)
    assert entry.archive == f"packages/{entry.archive_sha256}.zip"
    assert entry.metrics["auroc"] == {"value": 0.9871, "low": 0.971, "high": 0.998}


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("registry-event-*.json")), ids=lambda path: path.stem)
def test_events_of_every_schema_version_are_read(path):
    assert parse_event(path.read_bytes(), path.name) == StatusChange(
        "rolled-back", "anna", "reviews doubled since Monday", MOMENT
    )


def test_an_entry_reads_back_as_it_was_written():
    package = PackageReference(
        line="bottles",
        archive=Path("a.zip"),
        archive_sha256="0" * 64,
        contract_version="v",
        metrics={"b": 1, "a": {"rate": 0.5}},
        snapshot="s",
        run="TrainFlow/1",
        tags={"kind": "int8"},
    )
    entry = parse_entry(dump_entry(package, 7, "packages/0.zip", 6, MOMENT), "entry")
    assert (entry.version, entry.archive, entry.created_at) == (7, "packages/0.zip", MOMENT)
    assert entry.lineage == Lineage("s", "TrainFlow/1", commit="", card="", champion=6)
    assert entry.tags == {"kind": "int8"}
    assert list(entry.metrics) == ["b", "a"], "metrics stay in the order in which they are shown"


def test_an_event_reads_back_as_it_was_written():
    change = StatusChange("approved", "Zoë", "good on lot 7", MOMENT)
    assert parse_event(dump_event(change), "event") == change


def test_times_are_read_as_utc():
    text = dump_event(StatusChange("approved", "a", "b", MOMENT)).replace(b"+00:00", b"+02:00")
    assert parse_event(text, "event").at == datetime(2026, 11, 22, 21, 31, 0, 1, tzinfo=UTC)
