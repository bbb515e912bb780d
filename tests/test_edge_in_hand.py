"""A part that ends the process is not tried for ever."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from golden_package import make_package
from inspecting import picture

from edge.in_hand import InHand

# The decoder kills the process at one file, as the kernel does when memory runs out.
BOMB = """
import os, signal, sys
import edge.judge
decode = edge.judge.decode_file
def kills(data, contract, where, max_pixels):
    if where == "a.png":
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(data, contract, where, max_pixels)
edge.judge.decode_file = kills
from edge.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_file_that_ended_the_process_twice_is_an_error_and_the_others_are_judged(tmp_path: Path) -> None:
    package, incoming = make_package(tmp_path / "package"), tmp_path / "incoming"
    incoming.mkdir()
    for number, name in enumerate(("a.png", "b.png", "c.png")):
        (incoming / name).write_bytes(picture(number))
        os.utime(incoming / name, (1.7e9 + number, 1.7e9 + number))  # the oldest comes first
    command = [sys.executable, "-c", BOMB, "--model", str(package), "--source", f"folder:{incoming}", "--once"]
    command += ["--quiet", "--state", str(tmp_path / "state"), "--sink", f"file:{tmp_path / 'results.jsonl'}"]
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
        assert notes.begin(0, "file:a") is None
        notes.end(0)
        assert notes.begin(1, "file:b") is None
        notes.end(1)  # then it is killed


def test_each_worker_has_a_note_of_its_own_and_any_key_can_be_noted(tmp_path: Path) -> None:
    keys = ["file:ä#1", "\udcff", "\ud800" * 300, ""]
    for _ in range(2):
        notes = InHand(tmp_path)
        assert [notes.begin(worker, key) for worker, key in enumerate(keys)] == [None] * 4
        assert notes.begin(7, "judged") is None
        notes.end(7)
        notes.close()
        notes.end(0)  # a worker that hung
    notes = InHand(tmp_path)
    assert all("ended 2 times" in (notes.begin(worker, key) or "") for worker, key in enumerate(keys))
    assert notes.begin(0, "judged") is None
    notes.close()


@pytest.mark.parametrize("content", [b"", b"not json", b"[]", b'{"x": "y"}', b"\xff"])
def test_notes_that_cannot_be_read_count_as_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in-hand.json").write_bytes(content)
    (tmp_path / "in-hand").write_bytes(content)
    notes = InHand(tmp_path)
    assert notes.begin(0, "a") is None
    notes.close()


def test_a_folder_that_cannot_be_written_to_stops_nothing(tmp_path: Path) -> None:
    notes = InHand(tmp_path / "missing")
    assert notes.begin(0, "a") is None
    notes.end(0)
    notes.close()
