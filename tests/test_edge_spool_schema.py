"""Spool folders of other versions, and the folder of version 1.0 that is kept in tests/golden/."""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from spool_writer import image, result

import edge.spool.schema
from edge.errors import SpoolError
from edge.spool import ImageQueue, Spool, SpoolSettings

GOLDEN = Path(__file__).parent / "golden" / "spool-1.0"
STORED = json.loads((GOLDEN.parent / "spool-1.0.json").read_text())  # what it holds


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN, tmp_path / "spool"))


def change(folder: Path, *statements: str) -> None:
    connection = sqlite3.connect(folder / "spool.db", isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def check_holds_what_was_stored(spool: Spool) -> None:
    found = spool.unsent(True, 100) + spool.unsent(False, 100)
    assert {stored.source_key: stored.sequence for stored in found} == STORED["unsent"]
    sent = {key: spool.find(key) for key in STORED["sent"]}
    assert {key: stored and stored.sequence for key, stored in sent.items()} == STORED["sent"]
    figures = spool.figures()
    assert (figures.state, figures.notice, figures.upload_backlog) == ("ok", None, STORED["images"])
    assert (figures.evicted, figures.gaps, figures.lost) == (STORED["evicted"], STORED["gaps"], STORED["lost"])
    assert sum(counts.count for counts in spool.folded()) == STORED["folded"]


def test_the_folder_of_version_1_0_is_read_and_goes_on(folder: Path) -> None:
    spool = Spool(folder, "press-3", SpoolSettings())
    check_holds_what_was_stored(spool)
    ticket = spool.put(result("next", "review"), image("next"))
    assert ticket.result.sequence == STORED["next"]
    assert spool.close()
    queue = ImageQueue(folder)
    assert len(queue.waiting(10)) == STORED["images"] + 1
    queue.close()


def test_an_older_minor_is_brought_up_to_date(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge.spool.schema, "MINOR", 2)
    steps = {
        1: edge.spool.schema.KNOWN + "ALTER TABLE results ADD COLUMN shift TEXT;",
        2: "ALTER TABLE images ADD COLUMN lens TEXT;",
    }
    monkeypatch.setattr(edge.spool.schema, "MIGRATIONS", steps)
    spool = Spool(folder, "press-3", SpoolSettings())
    check_holds_what_was_stored(spool)
    assert spool.put(result("next", "fail")).wait(20)
    assert spool.close()
    connection = sqlite3.connect(folder / "spool.db")
    assert connection.execute("PRAGMA user_version").fetchone() == (1002,)
    assert "lens" in [row[1] for row in connection.execute("PRAGMA table_info(images)")]
    connection.close()


def test_a_newer_minor_is_used_as_it_is(folder: Path) -> None:
    statements = [statement for statement in edge.spool.schema.KNOWN.split(";") if statement.strip()]
    change(folder, *statements, "ALTER TABLE results ADD COLUMN shift TEXT", "PRAGMA user_version = 1007")
    spool = Spool(folder, "press-3", SpoolSettings())
    check_holds_what_was_stored(spool)
    assert spool.put(result("next", "fail"), image("next", "fail")).wait(20)
    assert spool.close()
    connection = sqlite3.connect(folder / "spool.db")
    assert connection.execute("PRAGMA user_version").fetchone() == (1007,)
    connection.close()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("PRAGMA user_version = 2000", "schema 2.0 has another major version"),
        ("PRAGMA user_version = 0", "another major version"),
        ("UPDATE meta SET value = '[\"encryption\"]' WHERE name = 'requires'", "requires .*encryption"),
        ("PRAGMA application_id = 7", "something else"),
    ],
)
def test_another_major_is_refused_and_left_as_it_is(folder: Path, statement: str, message: str) -> None:
    change(folder, statement)
    before = (folder / "spool.db").read_bytes()
    with pytest.raises(SpoolError, match=message):
        Spool(folder, "press-3", SpoolSettings())
    with pytest.raises(SpoolError, match=message):
        ImageQueue(folder)
    assert (folder / "spool.db").read_bytes() == before
    assert not list(folder.glob("*.damaged-*"))


def test_a_mark_of_another_major_is_refused(folder: Path) -> None:
    (folder / "sequence.json").write_text('{"schema": "2.0", "reserved": 1, "open": 1, "clean": true}')
    with pytest.raises(SpoolError, match="another major version"):
        Spool(folder, "press-3", SpoolSettings())


def test_a_folder_that_was_refused_can_be_opened_by_the_right_program_at_once(folder: Path) -> None:
    change(folder, "PRAGMA user_version = 2000")
    with pytest.raises(SpoolError):
        Spool(folder, "press-3", SpoolSettings())
    change(folder, "PRAGMA user_version = 1000")
    spool = Spool(folder, "press-3", SpoolSettings())
    check_holds_what_was_stored(spool)
    assert spool.close()


def test_rows_of_a_newer_program_stay_for_one_that_can_read_them(folder: Path) -> None:
    change(
        folder,
        'UPDATE results SET body = replace(body, \'"schema":"1.0"\', \'"schema":"2.0"\') WHERE verdict = \'fail\'',
    )
    spool = Spool(folder, "press-3", SpoolSettings())
    assert all(stored.verdict != "fail" for stored in spool.unsent(True, 100))
    assert spool.unsent(True, 100)
    assert spool.put(result("next", "fail")).wait(20)
    assert spool.close()
    connection = sqlite3.connect(folder / "spool.db")
    assert connection.execute("SELECT count(*) FROM results WHERE verdict = 'fail'").fetchone()[0] > 1
    connection.close()
