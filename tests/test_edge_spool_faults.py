"""The spool when the disk is full, read-only, damaged or gone: results stay in memory and come to disk later."""

import contextlib
import itertools
import os
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from small_disk import mount
from spool_writer import image, quick_folder, result

from edge.spool import ImageQueue, Spool, SpoolSettings, Ticket
from edge.spool.handed import Handed
from edge.spool.records import Entry
from edge.spool.waiting import Waiting

FAST = SpoolSettings(durable_within_ms=5, retry_min_s=0.02, retry_max_s=0.1)


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as place:
        yield place / "spool"


@pytest.fixture
def opened(folder: Path) -> Iterator[Callable[..., Spool]]:
    spools: list[Spool] = []

    def open_spool(settings: SpoolSettings = FAST) -> Spool:
        spools.append(Spool(folder, "press-3", settings))
        return spools[-1]

    yield open_spool
    for spool in spools:
        spool.close(5)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 3 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if not mount(place, "size=3m"):
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)  # also when a test failed with its spool open


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end, "this took too long"
        time.sleep(0.005)


def states(spool: Spool, state: str) -> Callable[[], bool]:
    return lambda: spool.figures().state == state


def fill_disk(place: Path) -> Path:
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return ballast


def test_a_full_disk_degrades_to_memory_and_comes_back_by_itself(disk: Path) -> None:
    spool = Spool(disk / "spool", "press-3", FAST)
    assert spool.put(result("before")).wait(20)
    ballast = fill_disk(disk)
    tickets = [spool.put(result(f"k{i}"), image(f"k{i}", "audit")) for i in range(300)]
    wait_for(states(spool, "memory"))
    tickets.append(spool.put(result("urgent", "fail"), image("urgent", "fail")))
    assert tickets[-1].done()
    assert not tickets[-1].wait(0.3)
    figures = spool.figures()
    assert figures.reason is not None
    assert "full" in figures.reason or "No space" in figures.reason
    assert spool.find("urgent") == tickets[-1].result  # a part that comes again gets its result even now
    assert spool.find("before") is not None
    assert [found.source_key for found in spool.unsent(True, 5)] == ["urgent"]  # and it is delivered
    ballast.unlink()
    wait_for(states(spool, "ok"))
    wait_for(lambda: all(ticket.durable for ticket in tickets))
    sequences = [ticket.result.sequence for ticket in tickets]
    assert len(set(sequences)) == len(tickets)
    assert spool.close()
    again = Spool(disk / "spool", "press-3", FAST)
    assert [found.sequence for found in again.unsent(False, 1000)][1:] == sequences[:-1]
    assert again.gaps() == []
    assert again.figures().upload_backlog == 301
    again.close()


def test_a_disk_that_is_full_from_the_start_takes_results_later(disk: Path) -> None:
    ballast = fill_disk(disk)
    spool = Spool(disk / "spool", "press-3", FAST)
    assert spool.figures().state == "memory"
    ticket = spool.put(result("k"))
    ballast.unlink()
    wait_for(lambda: ticket.durable)
    assert spool.close()


def test_a_read_only_disk_still_answers_and_takes_results_when_it_is_writable(disk: Path) -> None:
    spool = Spool(disk / "spool", "press-3", FAST)
    before = spool.put(result("before", "fail"))
    assert spool.close()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    spool = Spool(disk / "spool", "press-3", FAST)
    ticket = spool.put(result("k", "fail"))
    assert not ticket.wait(0.2)
    figures = spool.figures()
    assert figures.state == "memory"
    assert "ead-only" in (figures.reason or "")
    assert spool.find("before") == before.result
    assert [found.source_key for found in spool.unsent(True, 10)] == ["before", "k"]
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    wait_for(lambda: ticket.durable)
    wait_for(states(spool, "ok"))
    assert [found.source_key for found in spool.unsent(True, 10)] == ["before", "k"]
    assert spool.close()


def test_a_database_that_may_not_grow_degrades_to_memory_and_comes_back(
    opened: Callable[..., Spool], monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = opened()
    assert spool.put(result("before")).wait(20)
    assert spool._writer.store is not None
    spool._writer.store.connection.execute("PRAGMA max_page_count = 1")  # as a full disk says it: SQLITE_FULL
    tickets = [spool.put(result(f"k{i}", "fail")) for i in range(100)]
    wait_for(lambda: all(ticket.durable for ticket in tickets))
    wait_for(states(spool, "ok"))
    assert len(spool.unsent(True, 1000)) == 100


def test_a_folder_that_cannot_be_made_is_tried_again(opened: Callable[..., Spool], folder: Path) -> None:
    folder.write_text("a file where the folder belongs")
    spool = opened()
    tickets = [spool.put(result(f"k{i}")) for i in range(10)]
    assert spool.figures().state == "memory"
    assert spool.figures().in_memory == 10
    assert len(spool.unsent(False, 100)) == 10
    spool.mark_sent([tickets[0].result.sequence])
    assert len(spool.unsent(False, 100)) == 9
    folder.unlink()
    wait_for(lambda: all(ticket.durable for ticket in tickets))
    assert spool.flush(20)
    assert len(spool.unsent(False, 100)) == 9
    assert spool.find("k0") == tickets[0].result


def test_a_folder_removed_in_use_is_made_again_with_all_that_it_held(
    opened: Callable[..., Spool], folder: Path
) -> None:
    spool = opened()
    early = [spool.put(result(f"early-{i}", "fail")) for i in range(20)]
    assert spool.flush(20)
    shutil.rmtree(folder)
    late = [spool.put(result(f"late-{i}", "review"), image(f"late-{i}")) for i in range(5)]
    wait_for(lambda: all(ticket.durable for ticket in late))
    wait_for(states(spool, "ok"))
    assert spool.close()
    again = opened()
    found = {stored.source_key: stored.sequence for stored in again.unsent(True, 100)}
    assert found == {ticket.result.source_key: ticket.result.sequence for ticket in early + late}
    assert again.put(result("next")).result.sequence > max(found.values())
    queue = ImageQueue(folder)
    assert len(queue.waiting(10)) == 5
    queue.close()


def test_no_number_repeats_when_memory_was_all_there_was(folder: Path, opened: Callable[..., Spool]) -> None:
    spool = opened()
    stored = [spool.put(result(f"k{i}")).result.sequence for i in range(5)]
    assert spool.close()
    moved = folder.with_name("moved")
    seen = set(stored)
    for run in range(3):  # each of these programs ends with its results only in memory
        time.sleep(0.02)  # numbers without a disk come from the clock, in milliseconds
        folder.rename(moved)
        folder.write_text("the disk is gone")
        lost = opened()
        sequences = [lost.put(result(f"lost-{run}-{i}")).result.sequence for i in range(5)]
        assert not lost.close(5)
        assert not seen & set(sequences)
        seen |= set(sequences)
        folder.unlink()
        moved.rename(folder)
        again = opened()
        number = again.put(result(f"back-{run}")).result.sequence
        assert number not in seen
        seen.add(number)
        assert again.close()


def test_memory_that_is_full_drops_the_least_valuable_first_and_counts_it(
    opened: Callable[..., Spool], folder: Path
) -> None:
    folder.write_text("no disk")
    spool = opened(replace(FAST, memory_bytes=400_000))
    kept: dict[str, list[str]] = {"pass": [], "review": [], "fail": []}
    tickets = []
    for number in range(40):
        for verdict in kept:
            key = f"{verdict}-{number}"
            kept[verdict].append(key)
            picture = image(key, {"pass": "audit"}.get(verdict, verdict), 4000) if number < 10 else None
            tickets.append(spool.put(result(key, verdict), picture))
    first = spool.figures()
    assert "fail" not in first.evicted
    assert first.evicted["pass"] > 0
    for number in range(200):
        tickets.append(spool.put(result(f"flood-{number}", "fail")))
    figures = spool.figures()
    assert figures.evicted["pass"] == 40
    assert figures.evicted["audit-image"] == figures.evicted["review-image"] == figures.evicted["fail-image"] == 10
    assert figures.evicted["review"] == 40
    assert figures.evicted["fail"] > 0
    assert figures.in_memory == len(tickets) - sum(figures.evicted[name] for name in ("pass", "review", "fail"))
    assert sum(ticket.dropped for ticket in tickets) == len(tickets) - figures.in_memory
    assert sum(counts.count for counts in spool.folded()) == 40
    folder.unlink()
    wait_for(states(spool, "ok"))
    wait_for(lambda: spool.figures().in_memory == 0)
    assert spool.flush(20)
    assert spool.figures().evicted == figures.evicted
    assert sum(counts.count for counts in spool.folded()) == 40
    assert spool.close()
    assert opened().figures().evicted == figures.evicted


def test_memory_that_is_full_gives_up_images_before_results(opened: Callable[..., Spool], folder: Path) -> None:
    folder.write_text("no disk")
    spool = opened(replace(FAST, memory_bytes=560_000))  # all results and the images of fails take 460 kB
    for number in range(45):
        spool.put(result(f"pass-{number}"))
        reason = ("fail", "review", "audit")[number // 15]
        spool.put(result(f"{reason}-{number}", "fail"), image(f"{reason}-{number}", reason, 9000))
    evicted = spool.figures().evicted
    assert set(evicted) == {"audit-image", "review-image"}
    assert spool.folded() == []


def test_results_of_parts_that_come_again_are_never_dropped_and_memory_says_when_it_is_full(
    opened: Callable[..., Spool], folder: Path
) -> None:
    folder.write_text("no disk")
    spool = opened(replace(FAST, memory_bytes=400_000))
    spool.sends_from_memory = False
    tickets: list[Ticket] = []
    while not spool.is_full:
        tickets.append(spool.put(result(f"pass-{len(tickets)}")))
        tickets.append(spool.put(result(f"fail-{len(tickets)}", "fail"), image("k", "fail", 9000)))
    assert len(tickets) > 80
    tickets += [spool.put(result(f"in-hand-{number}")) for number in range(8)]  # taken before it was full
    assert not any(ticket.dropped for ticket in tickets)
    assert set(spool.figures().evicted) == {"fail-image"}
    folder.unlink()
    wait_for(lambda: all(ticket.durable for ticket in tickets))
    wait_for(lambda: not spool.is_full)
    assert spool.folded() == []
    assert spool.figures().queue_length == len(tickets)


def test_the_memory_that_is_counted_is_the_memory_that_is_held() -> None:
    waiting = Waiting(100_000, Handed(threading.Lock(), set()))
    for number in range(200):
        stored = replace(result(f"k{number}"), sequence=number)
        kept = image("k", "audit", 2000) if number % 3 == 0 else None
        waiting.add(Entry(stored, "{}", kept, 0.0, 3000 + (len(kept.data) if kept else 0)))
    assert waiting.bytes == sum(entry.bytes for entry in waiting.entries.values()) <= 100_000
    for entry in list(waiting.entries.values()):
        waiting.remove(entry)
    assert (waiting.bytes, waiting.image_bytes, waiting.keys) == (0, 0, {})


def test_what_never_reached_the_disk_is_counted_at_the_next_start(opened: Callable[..., Spool], folder: Path) -> None:
    spool = opened()
    last = spool.put(result("stored"))
    assert last.wait(20)
    copy = folder.with_name("copy")
    lost = [spool.put(result(f"k{i}", "pass")) for i in range(7)]
    wait_for(lambda: lost[-1].durable)
    assert spool._writer.store is not None
    # As after a power loss that took the tail: the newest rows are gone, the note of the numbers is not.
    spool.flush(20)
    shutil.copytree(folder, copy)
    connection = sqlite3.connect(copy / "spool.db")
    connection.execute("DELETE FROM results WHERE sequence > ?", (last.result.sequence,))
    connection.commit()
    connection.close()
    spool.close()
    shutil.rmtree(folder)
    copy.rename(folder)
    again = opened()
    gaps = again.gaps()
    assert [(gap.first_sequence, gap.lost, gap.reason) for gap in gaps] == [(last.result.sequence + 1, 7, "crash")]
    number = again.put(result("next")).result.sequence
    assert number == gaps[0].next_sequence > lost[-1].result.sequence
    figures = again.figures()
    assert (figures.gaps, figures.lost, figures.newly_lost) == (1, 7, 7)
    assert again.close()
    third = opened().figures()
    assert (third.lost, third.newly_lost) == (7, 0)


def damage_header(data: bytearray) -> None:
    data[:100] = b"garbage " * 12 + b"gone"


def damage_middle(data: bytearray) -> None:
    middle = len(data) // 2 // 2048 * 2048
    data[middle : middle + 4096] = os.urandom(4096)


def cut_in_half(data: bytearray) -> None:
    del data[len(data) // 2 :]


def cut_to_nothing(data: bytearray) -> None:
    data.clear()


def replace_by_text(data: bytearray) -> None:
    data[:] = b"not a database at all\n" * 500


@pytest.mark.parametrize("damage", [damage_header, damage_middle, cut_in_half, cut_to_nothing, replace_by_text])
def test_a_damaged_database_is_moved_aside_and_the_sequence_goes_on(
    opened: Callable[..., Spool], folder: Path, damage: Callable[[bytearray], None]
) -> None:
    spool = opened()
    sequences = {f"k{i}": spool.put(result(f"k{i}", "fail")).result.sequence for i in range(200)}
    assert spool.close()
    path = folder / "spool.db"
    data = bytearray(path.read_bytes())
    damage(data)
    path.write_bytes(data)
    (folder / "sequence.json").write_text((folder / "sequence.json").read_text().replace("true", "false"))  # unclean
    again = opened()
    ticket = again.put(result("after", "fail"))
    assert ticket.result.sequence > max(sequences.values())
    wait_for(lambda: ticket.durable)
    wait_for(states(again, "ok"))
    found = {stored.source_key: stored.sequence for stored in again.unsent(True, 1000)}
    assert found.items() <= (sequences | {"after": ticket.result.sequence}).items()
    if damage is cut_to_nothing:  # an empty file is a new database
        return
    notice = again.figures().notice
    assert notice is not None
    aside = [place.name for place in folder.glob("spool.db.damaged-*")]
    assert aside
    assert aside[0].split("-wal")[0] in notice
    if damage is damage_middle:
        assert len(found) > 100  # what can still be read was saved


def test_a_database_damaged_in_use_is_replaced_and_nothing_in_memory_is_lost(
    opened: Callable[..., Spool], folder: Path
) -> None:
    spool = opened()
    assert spool.put(result("before")).wait(20)
    connection = sqlite3.connect(folder / "spool.db")  # one of its own: the writer's is the writer's
    wait_for(lambda: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)
    connection.close()
    with (folder / "spool.db").open("r+b") as file:
        file.write(os.urandom(40_000))
    tickets = []
    for number in range(40):
        tickets.append(spool.put(result(f"k{number}", "fail")))
        time.sleep(0.002)
    wait_for(lambda: all(ticket.durable for ticket in tickets))
    wait_for(states(spool, "ok"))
    assert spool.close()
    again = opened()
    assert {stored.sequence for stored in again.unsent(True, 100)} >= {ticket.result.sequence for ticket in tickets}


def test_a_database_that_is_damaged_again_and_again_is_not_replaced_in_a_hurry(
    opened: Callable[..., Spool], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = opened(replace(FAST, retry_min_s=0.2, retry_max_s=0.2))
    replaced = []

    def commit(*_: object) -> None:
        replaced.append(time.monotonic())
        raise sqlite3.DatabaseError("database disk image is malformed")

    with monkeypatch.context() as patch:
        patch.setattr("edge.spool.store.Store.commit", commit)
        ticket = spool.put(result("k", "fail"))
        wait_for(lambda: len(replaced) >= 4)
    assert all(later - earlier > 0.05 for earlier, later in itertools.pairwise(replaced[1:]))
    wait_for(lambda: ticket.durable)


def test_a_disk_that_hangs_is_told_and_its_results_are_delivered_meanwhile(
    opened: Callable[..., Spool], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.spool.writer.HANGS_AFTER_S", 0.05)
    spool = opened()
    assert spool.put(result("first")).wait(20)
    blocker = sqlite3.connect(folder / "spool.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    ticket = spool.put(result("hangs", "fail"))
    wait_for(states(spool, "memory"))
    assert "taken nothing" in (spool.figures().reason or "")
    assert ticket.done()
    assert not ticket.durable
    assert [found.source_key for found in spool.unsent(True, 5)] == ["hangs"]
    spool.mark_sent([ticket.result.sequence])
    blocker.execute("ROLLBACK")
    blocker.close()
    wait_for(lambda: ticket.durable)
    assert spool.flush(20)
    assert spool.unsent(True, 5) == []
    assert spool.figures().state == "ok"


def test_what_is_sent_from_memory_leaves_nothing_behind_while_the_disk_refuses(
    opened: Callable[..., Spool], folder: Path
) -> None:
    folder.write_text("no disk")
    spool = opened(replace(FAST, memory_bytes=1_000_000))
    for number in range(2000):
        spool.put(result(f"k{number}"))
        spool.mark_sent([found.sequence for found in spool.unsent(False, 10)])
    figures = spool.figures()
    assert figures.queue_length == 0
    assert figures.evicted == {}  # what was sent is no loss
    assert figures.in_memory < 400
    assert spool._writer.marks == set()


def test_only_the_newest_damaged_databases_are_kept(opened: Callable[..., Spool], folder: Path) -> None:
    for _ in range(5):
        spool = opened()
        spool.put(result("k"))
        spool.close()
        (folder / "spool.db").write_bytes(b"garbage" * 1000)
    opened()
    assert len([place for place in folder.glob("spool.db.damaged-*") if not place.name.endswith("-wal")]) == 2


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", '{"schema": "1.0"}', '{"schema": "1.0", "reserved": "x"}', "\x00" * 64],
    ids=["empty", "cut", "list", "fields missing", "wrong type", "zeros"],
)
def test_a_damaged_mark_makes_no_number_repeat(opened: Callable[..., Spool], folder: Path, text: str) -> None:
    spool = opened()
    last = max(spool.put(result(f"k{i}")).result.sequence for i in range(10))
    assert spool.close()
    (folder / "sequence.json").write_text(text)
    (folder / "sequence.given").write_text(text)
    assert opened().put(result("next")).result.sequence > last


def test_a_reader_that_stands_still_holds_up_nothing(opened: Callable[..., Spool], folder: Path) -> None:
    spool = opened()
    assert spool.put(result("a", "review"), image("a")).wait(20)
    frozen = sqlite3.connect(folder / "spool.db", isolation_level=None)
    frozen.execute("BEGIN")
    frozen.execute("SELECT * FROM images").fetchone()  # an uploader stopped in the middle of reading
    tickets = [spool.put(result(f"k{i}")) for i in range(500)]
    wait_for(lambda: all(ticket.durable for ticket in tickets))
    assert spool.figures().state == "ok"
    frozen.close()
