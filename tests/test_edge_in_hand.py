"""A part that ends the process is not tried for ever."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from golden_package import make_package
from inspecting import picture, wait_until

from edge.in_hand import InHand

# The decoder kills the process at one file, as the kernel does when memory runs out.
BOMB = """
import os, signal, sys, time
import edge.judge
decode = edge.judge.decode_file
def kills(data, contract, where, max_pixels):
    time.sleep(0.2 if where == "a.png" else 0.4)  # with several workers all are in hand when it ends
    if where == "a.png":
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(data, contract, where, max_pixels)
edge.judge.decode_file = kills
from edge.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("workers", [1, 4])
def test_a_file_that_ended_the_process_twice_is_an_error_and_the_others_are_judged(
    tmp_path: Path, workers: int
) -> None:
    package, incoming = make_package(tmp_path / "package"), tmp_path / "incoming"
    incoming.mkdir()
    for number, name in enumerate(("a.png", "b.png", "c.png")):
        (incoming / name).write_bytes(picture(number))
        os.utime(incoming / name, (1.7e9 + number, 1.7e9 + number))  # the oldest comes first
    command = [sys.executable, "-c", BOMB, "--model", str(package), "--source", f"folder:{incoming}", "--once"]
    command += ["--quiet", "--state", str(tmp_path / "state"), "--sink", f"file:{tmp_path / 'results.jsonl'}"]
    command += ["--workers", str(workers), "--deadline-ms", "20000"]
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(root), str(root / "tests")))}
    for status in (-signal.SIGKILL, -signal.SIGKILL, 0):
        done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)
        assert done.returncode == status, done.stdout.decode()
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    found = {result["source_key"].partition("#")[0]: result for result in results}
    assert [found[f"file:{name}"]["verdict"] for name in ("a.png", "b.png", "c.png")] == ["error", "pass", "pass"]
    assert (found["file:a.png"]["error"], found["file:a.png"]["action"]) == ("poison", "reject")
    assert "ended 2 times" in found["file:a.png"]["detail"]
    assert not (incoming / "a.png").exists()  # it was acknowledged: a fourth start does not meet it


def test_parts_that_were_judged_are_not_counted_when_the_process_ends(tmp_path: Path) -> None:
    for _ in range(4):
        notes = InHand(tmp_path)
        assert notes.begin(0, "file:a", soon()) is None
        notes.end(0)
        assert notes.begin(1, "file:b", soon()) is None
        notes.end(1)  # then it is killed


def test_any_key_can_be_noted(tmp_path: Path) -> None:
    for key in ("file:ä#1", "\udcff", "\ud800" * 300, ""):
        for _ in range(2):
            notes = InHand(tmp_path)
            assert notes.begin(5, key, soon()) is None
            notes.close()
            notes.end(5)  # a worker that hung
        notes = InHand(tmp_path)
        assert "ended 2 times" in (notes.begin(0, key, soon()) or "")
        assert notes.begin(7, "judged", soon()) is None
        notes.end(7)
        notes.close()
    assert InHand(tmp_path).begin(0, "judged", soon()) is None


def soon() -> float:
    return time.monotonic() + 20.0


def test_only_the_part_that_ends_the_process_is_refused_when_others_were_in_hand_with_it(tmp_path: Path) -> None:
    keys = ("bomb", "good-1", "good-2", "good-3")
    notes = InHand(tmp_path)
    assert [notes.begin(worker, key, soon()) for worker, key in enumerate(keys)] == [None] * 4  # it is killed here
    refused: list[str | None] = []
    notes = InHand(tmp_path)
    assert notes.begin(1, "good-1", soon()) is None  # alone: the others must wait
    waiting = [threading.Thread(target=lambda w=w: refused.append(notes.begin(w, keys[w], soon()))) for w in (0, 2)]
    for thread in waiting:
        thread.start()
    waiting[0].join(0.2)
    assert all(thread.is_alive() for thread in waiting)
    assert noted(tmp_path) == 1
    notes.end(1)
    wait_until(lambda: len(refused) == 1)  # one of the two
    assert noted(tmp_path) == 1
    notes.end(0)
    notes.end(2)
    for thread in waiting:
        thread.join(10)
    assert refused == [None, None]
    for worker in (0, 2):
        notes.end(worker)
    assert notes.begin(0, "bomb", soon()) is None  # it is killed here, and nothing else was in hand
    notes = InHand(tmp_path)
    assert [notes.begin(3, key, soon()) for key in keys[1:] if notes.end(3) is None] == [None] * 3
    notes.end(3)
    assert "ended 2 times" in (notes.begin(0, "bomb", soon()) or "")


def test_a_part_waits_for_a_suspect_only_until_its_deadline(tmp_path: Path) -> None:
    InHand(tmp_path).begin(0, "bomb", soon())
    notes = InHand(tmp_path)
    assert notes.begin(0, "bomb", time.monotonic() + 0.4) is None
    with pytest.raises(TimeoutError, match="alone"):
        notes.begin(1, "good", time.monotonic() + 0.05)
    assert notes.begin(1, "good", soon()) is None  # the suspect hangs, and has its error: the line goes on


def test_a_suspect_waits_for_parts_in_hand_only_until_its_deadline(tmp_path: Path) -> None:
    InHand(tmp_path).begin(0, "bomb", soon())
    notes = InHand(tmp_path)
    assert notes.begin(1, "hangs", soon()) is None
    with pytest.raises(TimeoutError, match="alone"):
        notes.begin(0, "bomb", time.monotonic() + 0.05)
    assert notes.begin(2, "good", soon()) is None
    assert noted(tmp_path) == 2


def noted(folder: Path) -> int:
    """How many workers have a part in hand."""
    return len((folder / "in-hand").read_bytes().replace(b"\0", b" ").split())


@pytest.mark.parametrize("content", [b"", b"not json", b"[]", b'{"x": "y"}', b"\xff"])
def test_notes_that_cannot_be_read_count_as_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in-hand.json").write_bytes(content)
    (tmp_path / "in-hand").write_bytes(content)
    notes = InHand(tmp_path)
    assert notes.begin(0, "a", soon()) is None
    notes.close()


def test_a_folder_that_cannot_be_written_to_stops_nothing(tmp_path: Path) -> None:
    notes = InHand(tmp_path / "missing")
    assert notes.begin(0, "a", soon()) is None
    notes.end(0)
    notes.close()
