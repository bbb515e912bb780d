"""Parts from a folder: finished files only, each once, put away only when their result is durable."""

import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge.errors import SourceError
from edge.part import Part
from edge.sources import folder as folder_module
from edge.sources import listing as listing_module
from edge.sources import lookout as lookout_module
from edge.sources.folder import FolderSource
from edge.sources.opening import open_source
from edge.sources.settings import FolderSettings, SourceSettings
from edge.sources.watching import FolderWatch

LONG_S = 20.0  # a generous limit for things that happen at once


def quick(**values: object) -> FolderSettings:
    return FolderSettings(**{"interval_s": 0.05, "settle_ms": 60, "empty_after_ms": 200, **values})  # type: ignore[arg-type]


@contextmanager
def opened(folder: Path, **values: object) -> Iterator[FolderSource]:
    source = FolderSource(folder, quick(**values))
    try:
        yield source
    finally:
        source.close()


def result(verdict: str = "pass", sequence: int = 7) -> SimpleNamespace:
    return SimpleNamespace(verdict=verdict, sequence=sequence)


def take(source: FolderSource, count: int) -> list[Part]:
    parts = []
    for _ in range(count):
        part = source.next_part(LONG_S)
        assert part is not None, source.health()
        parts.append(part)
    return parts


def put(path: Path, content: bytes = b"picture", mtime_s: float | None = None) -> Path:
    path.write_bytes(content)
    if mtime_s is not None:
        os.utime(path, (mtime_s, mtime_s))
    return path


def test_files_come_oldest_first_then_by_name(tmp_path: Path) -> None:
    for name, mtime_s in (("c.jpg", 1e9), ("a.jpg", 1e9 + 5), ("b.png", 1e9)):
        put(tmp_path / name, name.encode(), mtime_s)
    with opened(tmp_path, once=True) as source:
        parts = take(source, 3)
    assert [part.name for part in parts] == ["b.png", "c.jpg", "a.jpg"]
    assert [part.data for part in parts] == [b"b.png", b"c.jpg", b"a.jpg"]
    assert [part.captured_at for part in parts] == [1e9, 1e9, 1e9 + 5]


def test_a_folder_read_once_ends(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg")
    with opened(tmp_path, once=True, after="keep") as source:
        assert not source.finished()
        (part,) = take(source, 1)
        assert source.next_part(LONG_S) is None
        assert source.finished()
        source.acknowledge(part, result())
        assert source.finished()


def test_an_empty_folder_read_once_ends_at_once(tmp_path: Path) -> None:
    with opened(tmp_path, once=True) as source:
        assert source.next_part(LONG_S) is None
        assert source.finished()


@pytest.mark.parametrize("watch", [True, False], ids=["watched", "polled"])
def test_a_file_that_arrives_is_found(tmp_path: Path, watch: bool) -> None:
    with opened(tmp_path, watch=watch) as source:
        assert source.next_part(0.05) is None
        assert not source.finished()
        put(tmp_path / "late.jpg")
        (part,) = take(source, 1)
        assert part.name == "late.jpg"
        assert ("watched" in source.health().message) == watch


def test_a_watched_file_needs_no_settling_when_its_writer_closes_it(tmp_path: Path) -> None:
    with opened(tmp_path, settle_ms=600_000, interval_s=3600.0) as source:
        assert source.next_part(0.3) is None
        put(tmp_path / "closed.jpg")
        assert take(source, 1)[0].name == "closed.jpg"
        put(tmp_path / "closed.tmp").rename(tmp_path / "moved.jpg")
        assert take(source, 1)[0].name == "moved.jpg"


@pytest.mark.parametrize("watch", [True, False], ids=["watched", "polled"])
def test_a_half_written_file_waits(tmp_path: Path, watch: bool) -> None:
    with opened(tmp_path, watch=watch, settle_ms=250) as source:
        source.next_part(0.2)
        with (tmp_path / "slow.jpg").open("wb") as file:
            for _ in range(8):
                file.write(b"x" * 100)
                file.flush()
                assert source.next_part(0.05) is None
        (part,) = take(source, 1)
        assert part.data == b"x" * 800


def test_a_writer_that_pauses_longer_than_the_settling_time_is_waited_for_while_its_file_is_open(
    tmp_path: Path,
) -> None:
    with opened(tmp_path, settle_ms=20) as source:
        source.next_part(0.2)
        with (tmp_path / "slow.jpg").open("wb") as file:
            file.write(b"half")
            file.flush()
            assert source.next_part(0.4) is None
            file.write(b" whole")
        assert take(source, 1)[0].data == b"half whole"


def test_temporary_hidden_and_other_files_are_ignored(tmp_path: Path) -> None:
    for name in ("a.jpg.tmp", "b.part", ".hidden.jpg", "notes.txt", "c.jpg~", "d.jpg.crdownload", "UPPER.JPG"):
        put(tmp_path / name)
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    with opened(tmp_path, once=True) as source:
        assert take(source, 1)[0].name == "UPPER.JPG"
        assert source.next_part(LONG_S) is None
        assert source.finished()
        assert source.health().counts["ignored"] == 7  # all but the folder


def test_a_finished_file_moves_only_when_acknowledged(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg", b"content")
    with opened(tmp_path) as source:
        (part,) = take(source, 1)
        assert (tmp_path / "a.jpg").exists()
        assert source.next_part(0.2) is None  # in hand: not offered again
        source.acknowledge(part, result("fail"))
        assert not (tmp_path / "a.jpg").exists()
        assert (tmp_path / "done" / "fail" / "a.jpg").read_bytes() == b"content"
        source.acknowledge(part, result("fail"))  # twice does nothing


def test_moving_never_overwrites(tmp_path: Path) -> None:
    taken = tmp_path / "done" / "pass"
    taken.mkdir(parents=True)
    put(taken / "a.jpg", b"first")
    with opened(tmp_path) as source:
        for content in (b"second", b"third"):
            put(tmp_path / "a.jpg", content)
            (part,) = take(source, 1)
            source.acknowledge(part, result(sequence=12))
    assert sorted((path.name, path.read_bytes()) for path in taken.iterdir()) == [
        ("a-12-2.jpg", b"third"),
        ("a-12.jpg", b"second"),
        ("a.jpg", b"first"),
    ]


def test_parts_may_be_acknowledged_in_any_order(tmp_path: Path) -> None:
    for index in range(5):
        put(tmp_path / f"{index}.jpg", mtime_s=1e9 + index)
    with opened(tmp_path) as source:
        for part in reversed(take(source, 5)):
            source.acknowledge(part, result())
    assert len(list((tmp_path / "done" / "pass").iterdir())) == 5


def test_delete_deletes_and_keep_keeps(tmp_path: Path) -> None:
    for after in ("delete", "keep"):
        put(tmp_path / "a.jpg")
        with opened(tmp_path, after=after) as source:
            (part,) = take(source, 1)
            source.acknowledge(part, result())
            assert source.next_part(0.3) is None  # a kept file is not offered again
        assert (tmp_path / "a.jpg").exists() == (after == "keep")


def test_a_kept_file_has_the_same_key_after_a_restart(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg")
    keys = []
    for _ in range(2):
        with opened(tmp_path, after="keep") as source:
            (part,) = take(source, 1)
            source.acknowledge(part, result())
            keys.append(part.source_key)
    assert keys[0] == keys[1]


def test_another_content_under_the_same_name_is_another_part_even_at_the_same_time(tmp_path: Path) -> None:
    with opened(tmp_path, watch=False) as source:
        put(tmp_path / "a.jpg", b"one", 1e9)
        (first,) = take(source, 1)
        source.acknowledge(first, result())
        put(tmp_path / "a.jpg", b"two", 1e9)
        (second,) = take(source, 1)
        source.acknowledge(second, result())
        put(tmp_path / "a.jpg", b"two", 1e9 + 2)  # a stuck camera: the same picture, taken later
        (third,) = take(source, 1)
    assert len({first.source_key, second.source_key, third.source_key}) == 3


def test_a_file_replaced_while_in_hand_is_not_put_away_unseen(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg", b"old", 1e9)
    with opened(tmp_path) as source:
        (old,) = take(source, 1)
        put(tmp_path / "new.tmp", b"new picture").rename(tmp_path / "a.jpg")
        source.acknowledge(old, result())
        (new,) = take(source, 1)
        assert (old.data, new.data) == (b"old", b"new picture")
        assert source.health().counts["replaced"] == 1
        source.acknowledge(new, result("review"))
    assert [path.read_bytes() for path in (tmp_path / "done").rglob("*.jpg")] == [b"new picture"]


def test_an_empty_file_is_waited_for_and_then_an_error(tmp_path: Path) -> None:
    put(tmp_path / "empty.jpg", b"")
    with opened(tmp_path) as source:
        (part,) = take(source, 1)
        assert part.fault is not None
        assert part.fault[0] == "source_empty"
        source.acknowledge(part, result("error"))
        assert (tmp_path / "done" / "error" / "empty.jpg").exists()


def test_an_empty_file_that_fills_in_time_is_a_picture(tmp_path: Path) -> None:
    with opened(tmp_path, watch=False, empty_after_ms=60_000) as source:
        put(tmp_path / "a.jpg", b"")
        assert source.next_part(0.3) is None
        put(tmp_path / "a.jpg", b"picture")
        assert take(source, 1)[0].data == b"picture"


def test_an_enormous_file_is_an_error_and_never_read(tmp_path: Path) -> None:
    with (tmp_path / "big.jpg").open("wb") as file:
        file.truncate(10_000_000_000)  # sparse
    with opened(tmp_path) as source:
        (part,) = take(source, 1)
    assert part.fault is not None
    assert part.fault[0] == "source_too_large"
    assert part.data is None


def test_a_link_is_an_error_and_never_followed(tmp_path: Path) -> None:
    secret = put(tmp_path / "secret", b"outside")
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    (incoming / "link.jpg").symlink_to(secret)
    (incoming / "loop.jpg").symlink_to("loop.jpg")
    with opened(incoming) as source:
        for part in take(source, 2):
            assert part.fault is not None
            assert part.fault[0] == "source_link"
            assert part.data is None
            source.acknowledge(part, result("error"))
    assert secret.read_bytes() == b"outside"
    assert (incoming / "done" / "error" / "link.jpg").is_symlink()


def test_a_file_without_permission_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "a.jpg")

    def refuse(*_: object) -> bytes:  # tests may run as root, whom no permission stops
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(folder_module, "_read_whole", refuse)
    with opened(tmp_path) as source:
        (part,) = take(source, 1)
    assert part.fault == ("source_unreadable", "a.jpg: cannot read: Permission denied")


def test_a_read_fault_that_passes_is_tried_again_and_one_that_stays_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "a.jpg")
    monkeypatch.setattr(folder_module, "_READ_AGAIN_S", 0.05)
    read, failures = folder_module._read_whole, [2]

    def flaky(*arguments: object) -> bytes:
        if failures[0]:
            failures[0] -= 1
            raise OSError(116, "Stale file handle")
        return read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(folder_module, "_read_whole", flaky)
    with opened(tmp_path, after="keep") as source:
        assert take(source, 1)[0].data == b"picture"
        assert source.health().counts["read_again"] == 2
        failures[0] = 99
        put(tmp_path / "b.jpg")
        assert take(source, 1)[0].fault == ("source_unreadable", "b.jpg: cannot read: Stale file handle")


class FaultyEntry:
    """A directory entry; some names cannot be looked at, as on a damaged disk or a share that lost them."""

    def __init__(self, entry: "os.DirEntry[bytes]", faulty: set[bytes]) -> None:
        self._entry, self._faulty = entry, faulty
        self.name, self.path = entry.name, entry.path

    def is_dir(self, follow_symlinks: bool) -> bool:
        if self.name in self._faulty:
            raise OSError(116, "Stale file handle")
        return self._entry.is_dir(follow_symlinks=follow_symlinks)

    def stat(self, follow_symlinks: bool) -> os.stat_result:
        return self._entry.stat(follow_symlinks=follow_symlinks)


@contextmanager
def faulty_entries(monkeypatch: pytest.MonkeyPatch, faulty: set[bytes]) -> Iterator[None]:
    scandir = os.scandir

    @contextmanager
    def scan(path: bytes) -> Iterator[Iterator[FaultyEntry]]:
        with scandir(path) as entries:
            yield (FaultyEntry(entry, faulty) for entry in entries)

    with monkeypatch.context() as patched:
        patched.setattr(listing_module.os, "scandir", scan)
        yield


def test_one_entry_that_cannot_be_looked_at_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg", ".nfs0001"):
        put(tmp_path / name)
    (tmp_path / "whole").mkdir()
    put(tmp_path / "whole" / "d.jpg")
    faulty = {b"b.jpg", b".nfs0001"}
    with (
        faulty_entries(monkeypatch, faulty),
        opened(tmp_path, recursive=True, done=str(tmp_path.parent / "done")) as source,
    ):
        names = {part.name for part in take(source, 3)}
        assert names == {"a.jpg", "c.jpg", "whole/d.jpg"}
        wait_until(lambda: source.health().counts["unreadable"] == 1)
        assert "1 entries cannot be looked at" in source.health().message
        assert not source.health().ok
        faulty.clear()
        assert take(source, 1)[0].name == "b.jpg"
        wait_until(lambda: source.health().ok)


def test_a_folder_below_that_cannot_be_read_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken").mkdir()
    put(tmp_path / "a.jpg")
    scan = os.scandir

    def refuse(path: bytes) -> Any:
        if path.endswith(b"broken"):
            raise OSError(5, "Input/output error")
        return scan(path)

    monkeypatch.setattr(listing_module.os, "scandir", refuse)
    listing = listing_module.list_folder(os.fsencode(tmp_path), quick(recursive=True), set(), 10)
    assert [candidate.name for candidate in listing.candidates] == [b"a.jpg"]
    assert listing.unreadable == 1


def test_a_settled_file_that_cannot_be_looked_at_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = listing_module.look_at

    def flaky(folder: bytes, name: bytes) -> Any:
        if name == b"a.jpg":
            raise OSError(5, "Input/output error")
        return look(folder, name)

    monkeypatch.setattr(lookout_module, "look_at", flaky)
    put(tmp_path / "a.jpg", mtime_s=1e9)
    put(tmp_path / "b.jpg")
    with opened(tmp_path) as source:
        assert take(source, 1)[0].name == "b.jpg"


def test_what_became_a_fifo_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a FIFO lets its writer go on, and opening a device may do anything."""
    path = put(tmp_path / "a.jpg", b"")
    os.utime(path, ns=(10**18, 10**18))
    refusal, opening, opened_fifos = FolderSource._refusal, os.open, []

    def swap(self: FolderSource, candidate: Any, name: str) -> Any:
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        os.utime(path, ns=(10**18, 10**18))
        monkeypatch.setattr(FolderSource, "_refusal", refusal)

    def spy(path: Any, flags: int, *more: Any, **named: Any) -> int:
        descriptor = opening(path, flags, *more, **named)
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode) and not flags & os.O_PATH:
            opened_fifos.append(path)
        return descriptor

    monkeypatch.setattr(FolderSource, "_refusal", swap)
    monkeypatch.setattr(folder_module.os, "open", spy)
    with opened(tmp_path) as source:
        assert source.next_part(1.0) is None
        assert source.health().counts["changed"] == 1
    assert opened_fifos == []


def test_a_vanished_file_is_counted(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg")
    with opened(tmp_path, interval_s=3600.0) as source:
        while source.health().counts["waiting"] == 0:
            time.sleep(0.01)
        (tmp_path / "a.jpg").unlink()
        assert source.next_part(0.2) is None
        assert source.health().counts["vanished"] == 1
        put(tmp_path / "b.jpg")
        (part,) = take(source, 1)
        (tmp_path / "b.jpg").unlink()
        source.acknowledge(part, result())
        assert source.health().counts["vanished"] == 2


@pytest.mark.parametrize(
    "name", [b"new\nline.jpg", b"caf\xe9.jpg", "größe.png".encode(), b"a" * 250 + b".jpg", b"-#%.jpg"]
)
def test_any_name_is_taken_and_moved(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    try:
        path.write_bytes(b"picture")
    except OSError:
        pytest.skip("this file system does not take the name")
    with opened(tmp_path) as source:
        (part,) = take(source, 1)
        assert part.name.isprintable()
        assert part.source_key.isascii()
        assert part.source_key.isprintable()
        source.acknowledge(part, result())
        put(path)
        source.acknowledge(take(source, 1)[0], result())  # the clash
    assert len(list((tmp_path / "done" / "pass").iterdir())) == 2


def test_the_folder_may_come_later_and_come_back(tmp_path: Path) -> None:
    incoming = tmp_path / "incoming"
    with opened(incoming) as source:
        source.next_part(0.2)
        assert not source.health().ok
        assert "incoming" in source.health().message
        for round_number in range(2):
            incoming.mkdir()
            put(incoming / f"{round_number}.jpg")
            (part,) = take(source, 1)
            assert source.health().ok
            source.acknowledge(part, result())
            incoming.rename(tmp_path / f"away-{round_number}")
            wait_until(lambda: not source.health().ok)


def wait_until(condition: object) -> None:
    end = time.monotonic() + LONG_S
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_folder_read_once_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="want a folder of images"):
        FolderSource(tmp_path / "typo", quick(once=True))


def test_a_file_that_cannot_be_put_away_is_reported_and_offered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "_MOVE_AGAIN_S", 0.05)
    put(tmp_path / "a.jpg")
    blocker = put(tmp_path / "done", b"a file where the folder should be")
    with opened(tmp_path) as source:
        (part,) = take(source, 1)
        source.acknowledge(part, result())
        assert not source.health().ok
        assert "cannot move" in source.health().message
        blocker.unlink()
        (again,) = take(source, 1)
        assert again.source_key == part.source_key  # so that its stored result is found
        source.acknowledge(again, result())
        assert source.health().ok
    assert (tmp_path / "done" / "pass" / "a.jpg").exists()


def test_moving_to_another_file_system_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "a.jpg", b"content")

    real = os.link

    def refuse(source: Path, target: Path, **more: bool) -> None:
        if source.suffix != ".part":
            raise OSError(18, "Invalid cross-device link")
        real(source, target, **more)

    monkeypatch.setattr(os, "link", refuse)
    with opened(tmp_path) as source:
        (part,) = take(source, 1)
        source.acknowledge(part, result())
    assert [path.name for path in (tmp_path / "done" / "pass").iterdir()] == ["a.jpg"]
    assert (tmp_path / "done" / "pass" / "a.jpg").read_bytes() == b"content"
    assert not (tmp_path / "a.jpg").exists()


def test_a_kill_in_the_middle_of_moving_is_made_good_by_the_next_move(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg", b"content")
    done = tmp_path / "done" / "pass"
    done.mkdir(parents=True)
    (done / "a.jpg").hardlink_to(tmp_path / "a.jpg")  # as a kill between the two steps leaves it
    with opened(tmp_path) as source:
        (part,) = take(source, 1)
        source.acknowledge(part, result())
    assert [path.name for path in done.iterdir()] == ["a.jpg"]
    assert not (tmp_path / "a.jpg").exists()


def test_moving_works_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path, **more: bool) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    done = tmp_path / "done" / "pass"
    done.mkdir(parents=True)
    put(done / "a.jpg", b"first")
    put(tmp_path / "a.jpg", b"second")
    with opened(tmp_path) as source:
        (part,) = take(source, 1)
        source.acknowledge(part, result(sequence=12))
    assert {path.name: path.read_bytes() for path in done.iterdir()} == {"a.jpg": b"first", "a-12.jpg": b"second"}
    assert not (tmp_path / "a.jpg").exists()


def test_folders_below_are_read_when_asked_and_finished_files_are_not(tmp_path: Path) -> None:
    (tmp_path / "shift" / "one").mkdir(parents=True)
    put(tmp_path / "shift" / "one" / "a.jpg")
    with opened(tmp_path, once=True) as source:
        assert source.next_part(LONG_S) is None
    with opened(tmp_path, once=True, recursive=True) as source:
        (part,) = take(source, 1)
        assert part.name == "shift/one/a.jpg"
        source.acknowledge(part, result("review"))
        assert source.next_part(LONG_S) is None
    assert (tmp_path / "done" / "review" / "shift" / "one" / "a.jpg").exists()
    with pytest.raises(SourceError, match="inspected again"):
        FolderSource(tmp_path / "shift", quick(recursive=True, done=str(tmp_path)))


def test_many_waiting_files_are_all_taken_once_in_order_with_few_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout_module, "BATCH", 16)
    monkeypatch.setattr(lookout_module, "_HUNGRY", 4)
    for index in range(200):
        put(tmp_path / f"{index:03}.jpg", mtime_s=1e9 + index // 3)
    names = []
    with opened(tmp_path, once=True, settle_ms=0, after="keep") as source:
        while (part := source.next_part(LONG_S)) is not None:
            names.append(part.name)
            assert source.health().counts["waiting"] <= 16
            source.acknowledge(part, result())
    assert names == [f"{index:03}.jpg" for index in range(200)]


def test_files_that_arrive_while_others_are_inspected_all_come_once(tmp_path: Path) -> None:
    def write() -> None:
        for index in range(150):
            put(tmp_path / f"{index}.tmp").rename(tmp_path / f"{index}.jpg")

    with opened(tmp_path, settle_ms=0) as source:
        writer = threading.Thread(target=write)
        writer.start()
        names = []
        for part in take(source, 150):
            names.append(part.name)
            source.acknowledge(part, result())
        writer.join()
        assert source.next_part(0.2) is None
    assert len(set(names)) == 150
    assert len(list((tmp_path / "done" / "pass").iterdir())) == 150


def test_reports_that_the_kernel_dropped_are_made_good_by_looking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = FolderWatch.read

    def lossy(self: FolderWatch) -> object:
        changes = read(self)
        if changes.complete:
            changes.complete.clear()
            changes.lost = True
        return changes

    monkeypatch.setattr(FolderWatch, "read", lossy)
    with opened(tmp_path, interval_s=3600.0) as source:
        source.next_part(0.2)
        put(tmp_path / "a.jpg")
        assert take(source, 1)[0].name == "a.jpg"


def test_without_watches_left_the_folder_is_polled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise SourceError("no watch left")

    monkeypatch.setattr(lookout_module, "FolderWatch", refuse)
    put(tmp_path / "a.jpg")
    with opened(tmp_path) as source:
        assert take(source, 1)[0].name == "a.jpg"
        assert "polled" in source.health().message


def test_a_source_is_opened_by_its_name(tmp_path: Path) -> None:
    settings = SourceSettings(station="press-2", view="top", folder=quick(once=True))
    put(tmp_path / "a.jpg")
    source = open_source(f"folder:{tmp_path}", settings)
    part = source.next_part(LONG_S)
    source.close()
    assert part is not None
    assert (part.station, part.view) == ("press-2", "top")
    for text in ("", "folder", "folder:", "/data", "ftp://host/path"):
        with pytest.raises(SourceError, match="want"):
            open_source(text, settings)


@pytest.mark.parametrize(
    "values",
    [
        {"after": "burn"},
        {"interval_s": 0.0},
        {"interval_s": float("nan")},
        {"settle_ms": -1},
        {"suffixes": ()},
        {"suffixes": ("jpg",)},
        {"temporary": ("",)},
        {"max_file_bytes": 0},
    ],
)
def test_bad_settings_are_named(tmp_path: Path, values: dict[str, object]) -> None:
    (name,) = values
    settings = SourceSettings(folder=FolderSettings(**values))  # type: ignore[arg-type]
    (fault,) = settings.check()
    assert fault.startswith(f"folder.{name}: want")
    with pytest.raises(SourceError, match=name):
        open_source(f"folder:{tmp_path}", settings)
