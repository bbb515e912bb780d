"""Power loss at every point of a recorded run: the spool opens whole and holds all that was acknowledged."""

import os
import random
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from environments import once_is_enough
from power_cut import Call, Disk, can_record, record
from spool_writer import quick_folder, result

from edge.spool import ImageQueue, Spool, SpoolSettings

pytestmark = once_is_enough

WRITER = Path(__file__).parent / "spool_writer.py"
RESULTS = 24
MODES = {"none": 1, "all": 3, "some": 2, "any": 1}  # what is left of writes that were not synced: every which cut


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[Call]]:
    if not can_record():
        pytest.skip("strace is not installed, or may not trace (Debian: apt-get install strace)")
    place = tmp_path_factory.mktemp("power")
    folder, says = place / "spool", place / "says"
    command = [sys.executable, str(WRITER), "write", str(folder), str(says), str(RESULTS)]
    calls = record(command, place / "trace", os.environ | {"PYTHONPATH": str(WRITER.parent.parent)})
    return folder, says, calls


def cuts(calls: list[Call], folder: Path, says: Path) -> Iterator[tuple[Disk, dict[str, int]]]:
    """The disk after each call that changes it, with what had been acknowledged by then: key to sequence."""
    disk, acknowledged = Disk(folder), dict[str, int]()
    for call in calls:
        if call.path == str(says) and call.data.startswith(b"ack"):
            _, sequence, key = call.data.decode().split()
            acknowledged[key] = int(sequence)
        if call.path.startswith(str(folder)):
            disk.take(call)
            yield disk, dict(acknowledged)


def check_opens_whole(folder: Path, acknowledged: dict[str, int]) -> None:
    spool = Spool(folder, "press-3", SpoolSettings())
    try:
        figures = spool.figures()
        assert (figures.state, figures.notice) == ("ok", None)
        for key, sequence in acknowledged.items():
            found = spool.find(key)
            assert found is not None, f"{key} was acknowledged and is gone"
            assert found.sequence == sequence
        number = spool.put(result("next")).result.sequence
        assert number > max(acknowledged.values(), default=0)
    finally:
        assert spool.close()
    queue = ImageQueue(folder)
    for kept in queue.waiting(1000):
        assert kept.path.stat().st_size == kept.bytes
        assert kept.path.read_bytes().startswith(kept.sidecar["result"]["source_key"].encode() + b"\n")
    queue.close()


def test_the_record_holds_what_it_should(recorded: tuple[Path, Path, list[Call]]) -> None:
    folder, says, calls = recorded
    *_, (disk, acknowledged) = cuts(calls, folder, says)
    assert len(acknowledged) == RESULTS
    names = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {Path(path).name: bytes(file.live) for path, file in disk.live.items()} == names
    assert sum(call.op == "sync" for call in calls) > 15


@pytest.mark.parametrize("mode", MODES)
def test_a_power_loss_at_any_point_loses_nothing_that_was_acknowledged(
    recorded: tuple[Path, Path, list[Call]], mode: str
) -> None:
    folder, says, calls = recorded
    choose = random.Random(mode)
    for disk, acknowledged in islice(cuts(calls, folder, says), 0, None, MODES[mode]):
        with quick_folder() as place:
            disk.write_after_cut(place / "spool", mode, choose)
            check_opens_whole(place / "spool", acknowledged)


def test_without_syncs_the_check_finds_what_is_lost(recorded: tuple[Path, Path, list[Call]]) -> None:
    """The check itself can fail: a disk that only pretends to sync loses results."""
    folder, says, calls = recorded
    lying = [call for call in calls if not (call.op == "sync" and call.path.endswith("-wal"))]
    *_, (disk, acknowledged) = cuts(lying[: len(lying) * 3 // 4], folder, says)
    assert acknowledged
    with quick_folder() as place:
        disk.write_after_cut(place / "spool", "none", random.Random(0))
        with pytest.raises(AssertionError, match="acknowledged and is gone"):
            check_opens_whole(place / "spool", acknowledged)
