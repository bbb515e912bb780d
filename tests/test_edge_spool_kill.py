"""`kill -9` at random instants while results are written: what was acknowledged is there, and no number repeats."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from environments import once_is_enough
from spool_writer import quick_folder

from edge.spool import ImageQueue, Spool, SpoolSettings

pytestmark = once_is_enough

WRITER = Path(__file__).parent / "spool_writer.py"
KILLS = 60


@pytest.fixture
def place() -> Iterator[Path]:
    with quick_folder() as folder:
        yield folder


@pytest.fixture
def forker() -> Iterator[subprocess.Popen[str]]:
    environment = os.environ | {"PYTHONPATH": str(WRITER.parent.parent)}
    command = [sys.executable, str(WRITER), "fork"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)


def kill_one(forker: subprocess.Popen[str], folder: Path, says: Path, run: int, delay_s: float) -> None:
    """Start a writer, let it work for a moment after its first acknowledgement, kill it."""
    assert forker.stdin is not None
    assert forker.stdout is not None
    before = says.stat().st_size if says.exists() else 0
    forker.stdin.write(f"{folder} {says} {run}\n")
    forker.stdin.flush()
    pid = int(forker.stdout.readline())
    end = time.monotonic() + 30
    # Some are killed while they open the spool, some in the middle of their work.
    while run % 4 and time.monotonic() < end and (not says.exists() or says.stat().st_size == before):
        time.sleep(0.001)
    time.sleep(delay_s)
    os.kill(pid, signal.SIGKILL)
    assert forker.stdout.readline() == "dead\n"


def test_killed_at_any_instant_nothing_acknowledged_is_lost_and_no_number_repeats(
    place: Path, forker: subprocess.Popen[str]
) -> None:
    folder, says = place / "spool", place / "says"
    choose = random.Random(0)
    for run in range(KILLS):
        kill_one(forker, folder, says, run, choose.uniform(0, 0.06))
    lines = [line.split() for line in says.read_text().splitlines()]
    put = [(int(sequence), key) for what, sequence, key in lines if what == "put"]
    acknowledged = [(int(sequence), key) for what, sequence, key in lines if what == "ack"]
    assert len(acknowledged) > KILLS
    assert len({sequence for sequence, _ in put}) == len(put)

    spool = Spool(folder, "press-3", SpoolSettings())
    try:
        for sequence, key in acknowledged:
            found = spool.find(key)
            assert found is not None, f"{key} was acknowledged and is gone"
            assert found.sequence == sequence
        gaps = spool.gaps()
        missing = [sequence for sequence, key in put if spool.find(key) is None]
        for sequence in missing:
            assert any(gap.first_sequence <= sequence < gap.next_sequence for gap in gaps)
        assert spool.figures().lost <= len(missing) + KILLS  # a number may be given just before the kill, unsaid
        stored = {found.sequence for found in spool.unsent(True, 1_000_000) + spool.unsent(False, 1_000_000)}
        assert all(not any(gap.first_sequence <= sequence < gap.next_sequence for gap in gaps) for sequence in stored)
    finally:
        spool.close()
    queue = ImageQueue(folder)
    waiting = queue.waiting(1_000_000)
    queue.close()
    assert waiting
    for kept in waiting:
        assert kept.path.stat().st_size == kept.bytes
        assert kept.path.read_bytes().startswith(kept.sidecar["result"]["source_key"].encode() + b"\n")
