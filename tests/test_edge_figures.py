"""Live figures: verdict counts of the package that serves, since when, and what becomes of them at a restart."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from golden_package import make_package
from inspecting import BAD, GOOD, picture, wait_until

import edge.state_file
from edge.__main__ import main
from edge.contract import OperatingPoint
from edge.figures import Figures
from edge.health import MAX_MESSAGE_BYTES, Health, dump_health
from edge.last_good import package_digest
from edge.since import Since
from edge.state_file import StateFile

ROOT = Path(__file__).resolve().parents[1]


class Clocks:
    """A wall clock that somebody sets, and a steady one."""

    def __init__(self) -> None:
        self.wall_s, self.steady_s = 1000.0, 5.0

    def wall(self) -> float:
        return self.wall_s

    def steady(self) -> float:
        return self.steady_s

    def pass_by(self, seconds: float) -> None:
        self.wall_s += seconds
        self.steady_s += seconds


def figures_of(clocks: Clocks, kept: dict[str, Any] | None = None) -> Figures:
    return Figures(kept, clocks.wall, clocks.steady)


def test_verdicts_are_counted_for_the_package_that_serves() -> None:
    clocks = Clocks()
    figures = figures_of(clocks)
    assert figures.message() is None
    figures.begin("a")
    assert figures.message() == {"package": "a", "since": None, "pass": 0, "fail": 0, "review": 0, "error": 0}
    clocks.pass_by(10)
    for verdict in ("pass", "pass", "fail", "error"):
        figures.count("a", verdict)
    clocks.pass_by(10)
    figures.count("a", "review")
    assert figures.message() == {"package": "a", "since": 1010.0, "pass": 2, "fail": 1, "review": 1, "error": 1}


def test_a_part_counts_for_what_judged_it_and_not_for_what_serves_by_now() -> None:
    figures = figures_of(Clocks())
    figures.begin("a")
    figures.count("a", "pass")
    figures.begin("b")
    figures.count("a", "fail")  # in hand when the other took over
    figures.count(None, "error")  # judged by nothing
    figures.count("b", "pass")
    assert figures.message() == {"package": "b", "since": 1000.0, "pass": 1, "fail": 0, "review": 0, "error": 0}


def test_a_package_that_served_before_begins_anew() -> None:
    clocks = Clocks()
    figures = figures_of(clocks)
    figures.begin("a")
    figures.count("a", "pass")
    figures.begin("b")
    figures.begin("a")
    assert figures.message() == {"package": "a", "since": None, "pass": 0, "fail": 0, "review": 0, "error": 0}
    clocks.pass_by(60)
    figures.count("a", "pass")
    message = figures.message()
    assert message is not None
    assert message["since"] == 1060.0


def test_nothing_is_told_while_nothing_serves() -> None:
    figures = figures_of(Clocks())
    figures.begin("a")
    figures.count("a", "pass")
    figures.begin(None)
    figures.count(None, "error")
    assert figures.message() is None
    figures.begin("a")  # the same as before: nothing else has served meanwhile
    message = figures.message()
    assert message is not None
    assert (message["pass"], message["error"]) == (1, 0)


def test_a_restart_goes_on_with_the_same_package_and_not_with_another() -> None:
    figures = figures_of(Clocks())
    figures.begin("a")
    figures.count("a", "pass")
    kept = figures.dump()
    later = Clocks()
    later.pass_by(500)
    again = figures_of(later, kept)
    assert again.dump() == kept
    again.begin("a")
    again.count("a", "fail")
    assert again.message() == {"package": "a", "since": 1000.0, "pass": 1, "fail": 1, "review": 0, "error": 0}
    other = figures_of(later, kept)
    other.begin("b")
    assert other.message() == {"package": "b", "since": None, "pass": 0, "fail": 0, "review": 0, "error": 0}


@pytest.mark.parametrize(
    "change",
    [
        {"package": 7},
        {"package": None},
        {"since": None},
        {"since": "yesterday"},
        {"since": -5},
        {"since": True},
        {"since": 1e300},
        {"pass": -1, "fail": 0},
        {"pass": "3", "fail": 0.5},
        {"pass": True, "fail": None},
    ],
)
def test_kept_figures_without_sense_count_as_none(change: dict[str, Any]) -> None:
    kept = {"package": "a", "since": 900.0, "pass": 3, "fail": 1, "review": 0, "error": 0, **change}
    figures = figures_of(Clocks(), kept)
    figures.begin("a")
    assert figures.message() == {"package": "a", "since": None, "pass": 0, "fail": 0, "review": 0, "error": 0}


def test_the_beginning_follows_a_clock_that_is_set_later() -> None:
    clocks = Clocks()
    since = Since(None, clocks.wall, clocks.steady)
    assert since.value() is None
    since.begin()
    clocks.pass_by(100)
    since.begin()
    assert since.value() == 1000.0
    clocks.wall_s = 5_000_100.0  # now the network told the time
    assert since.value() == 5_000_000.0
    clocks.wall_s += 0.5  # slewed, not set
    assert since.value() == 5_000_000.0
    assert Since(77.0, clocks.wall, clocks.steady).value() == 77.0


# --- kept over a restart


def test_values_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    file = StateFile(path)
    assert file.read() == {}
    file.write({"figures": {"pass": 1}})
    file.close({"figures": {"pass": 2}})
    assert StateFile(path).read() == {"schema": "1.0", "figures": {"pass": 2}}
    assert [entry.name for entry in tmp_path.iterdir()] == ["figures.json"]


@pytest.mark.parametrize(
    "content",
    [b"", b'{"schema": "1.0", "figures": {"pa', b"[]", b"null", b'{"schema": "2.0"}', b'{"schema": 1}', b"\xff\xfe\0"],
)
def test_a_file_that_is_cut_or_of_another_version_counts_as_empty(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "figures.json"
    path.write_bytes(content)
    assert StateFile(path).read() == {}
    assert "event=state_not_read" in caplog.text
    StateFile(path).close({"a": 1})
    assert StateFile(path).read() == {"schema": "1.0", "a": 1}


def test_fields_of_a_newer_minor_version_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "f").write_text('{"schema": "1.9", "figures": {"package": "a", "new": 1}}', encoding="utf-8")
    assert Figures(StateFile(tmp_path / "f").read()["figures"]).message() is None


def test_what_is_on_the_disk_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    file = StateFile(path)
    file.close({"a": 1})
    first = path.stat().st_ino
    file.close({"a": 1})
    assert path.stat().st_ino == first
    file.close({"a": 2})
    assert path.stat().st_ino != first


def test_a_disk_that_hangs_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, hangs = edge.state_file.replace_file, threading.Event()

    def slowly(path: Path, data: bytes) -> None:
        assert hangs.wait(60)
        real(path, data)

    monkeypatch.setattr(edge.state_file, "replace_file", slowly)
    file = StateFile(tmp_path / "figures.json")
    for number in range(100):
        file.write({"a": number})  # returns, though nothing can be written
    assert len([thread for thread in threading.enumerate() if thread.name == "state-file"]) == 1
    hangs.set()
    file.close({"a": 100}, 60.0)
    assert StateFile(tmp_path / "figures.json").read()["a"] == 100


def test_a_disk_that_refuses_is_tried_again_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(edge.state_file, "replace_file", full)
        file = StateFile(tmp_path / "figures.json")
        for number in range(3):
            file.close({"a": number})
    assert caplog.text.count("event=state_not_kept") == 1
    file.close({"a": 3})
    assert StateFile(tmp_path / "figures.json").read()["a"] == 3


# --- in the inspector


def feed(folder: Path, numbers: range) -> None:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        staged = folder / f"part-{number}.png.tmp"
        staged.write_bytes(picture(number, BAD if number % 3 == 0 else GOOD))
        staged.rename(staged.with_suffix(""))


def arguments(package: Path, root: Path, *more: str) -> list[str]:
    source = ["--source", f"folder:{root / 'incoming'}", "--state", str(root / "state"), "--thing", "cam-1"]
    return ["--model", str(package), *source, "--sink", f"file:{root / 'results.jsonl'}", *more]


def healths(root: Path) -> list[dict[str, Any]]:
    path = root / "results-health.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def last_figures(root: Path) -> dict[str, Any]:
    figures: dict[str, Any] = healths(root)[-1]["figures"]
    return figures


def test_health_tells_the_figures_over_restarts_until_another_package_serves(tmp_path: Path) -> None:
    first = make_package(tmp_path / "first")
    feed(tmp_path / "incoming", range(6))
    assert main([*arguments(first, tmp_path), "--once", "--quiet"]) == 0
    figures = last_figures(tmp_path)
    assert figures["package"] == package_digest(first) == healths(tmp_path)[-1]["package"]["serving"]
    assert [figures[verdict] for verdict in ("pass", "fail", "review", "error")] == [4, 2, 0, 0]
    assert healths(tmp_path)[-1]["schema"] == "1.2"
    assert "shadow" not in healths(tmp_path)[-1]
    feed(tmp_path / "incoming", range(10, 13))
    assert main([*arguments(first, tmp_path), "--once", "--quiet", "--sink", "none"]) == 0  # kept, though nobody hears
    feed(tmp_path / "incoming", range(20, 21))
    assert main([*arguments(first, tmp_path), "--once", "--quiet"]) == 0
    again = last_figures(tmp_path)
    assert (again["since"], again["pass"], again["fail"]) == (figures["since"], 7, 3)
    second = make_package(tmp_path / "second", operating_point=OperatingPoint("op-2", lower=-3.0, upper=2.0))
    feed(tmp_path / "incoming", range(30, 32))
    assert main([*arguments(second, tmp_path), "--once", "--quiet"]) == 0
    other = last_figures(tmp_path)
    assert (other["package"], other["pass"], other["fail"]) == (package_digest(second), 1, 1)
    assert other["since"] > figures["since"]
    feed(tmp_path / "incoming", range(40, 41))
    assert main([*arguments(first, tmp_path), "--once", "--quiet"]) == 0  # rolled back
    back = last_figures(tmp_path)
    assert (back["package"], back["pass"] + back["fail"]) == (package_digest(first), 1)
    assert back["since"] > other["since"]


def test_a_place_for_challengers_that_is_empty_is_told_and_does_no_harm(tmp_path: Path) -> None:
    package = make_package(tmp_path / "package")
    feed(tmp_path / "incoming", range(2))
    assert main([*arguments(package, tmp_path), "--once", "--quiet", "--challenger", str(tmp_path / "nowhere")]) == 0
    first, last = healths(tmp_path)[0], healths(tmp_path)[-1]
    assert first["state"] == "ok"
    assert last["shadow"] == {
        "package": None,
        "version": None,
        "champion": package_digest(package),
        "state": "none",
        "message": "",
        "self_test": "not run",
        "since": None,
        "pairs": {},
        "skipped": 0,
    }


def test_a_killed_inspector_keeps_the_figures_that_it_told(tmp_path: Path) -> None:
    package = make_package(tmp_path / "package")
    feed(tmp_path / "incoming", range(5))
    run(package, tmp_path, lambda: inspected(tmp_path) == 5, signal.SIGKILL)
    before = last_figures(tmp_path)
    feed(tmp_path / "incoming", range(10, 12))
    run(package, tmp_path, lambda: inspected(tmp_path) >= 7, signal.SIGTERM)
    after = last_figures(tmp_path)
    assert after["since"] == before["since"]
    assert inspected(tmp_path) == 7


def inspected(root: Path) -> int:
    told = healths(root)
    figures = told[-1].get("figures") if told else None
    return sum(figures[verdict] for verdict in ("pass", "fail", "review", "error")) if figures else 0


def run(package: Path, root: Path, done: Callable[[], bool], end: signal.Signals) -> None:
    """Run an inspector that tells its health each second until that is so."""
    command = [sys.executable, "-m", "edge", *arguments(package, root), "--set", "health_every_s=1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(done, 90)
        told = len(healths(root))
        wait_until(lambda: len(healths(root)) > told + 1, 90)  # the file of the message before is written by then
        process.send_signal(end)
        process.wait(60)
    finally:
        process.kill()
        process.wait()


# --- the message


def test_health_stays_within_its_limit_whatever_figures_and_challenger_say() -> None:
    health = Health("l" * 32, "t" * 128, {"inspector": "0.1.0"})
    for index in range(40):
        health.set(f"component-{index:02d}", index % 5 != 0, "\U0001f4a5" * 10_000, 1.7e9)
    health.note_error("decode", "\x00" * 10_000, 1.7e9)
    health.set_package("a" * 64, "b" * 64, "\u00e9" * 1000, "v" * 64)
    health.set_version("runtime", "\x00" * 5000)
    many, verdicts = 10**12, ("pass", "fail", "review", "error")
    figures = {"package": "a" * 64, "since": 1_700_000_000.123, **dict.fromkeys(verdicts, many)}
    shadow = {
        "package": "c" * 64,
        "version": "\x00" * 64,
        "champion": "a" * 64,
        "state": "refused",
        "message": "\U0001f4a5" * 10_000,
        "self_test": "\x00" * 10_000,
        "since": 1_700_000_000.123,
        "pairs": {f"{one}/{other}": many for one in verdicts for other in verdicts},
        "skipped": many,
    }
    health.set_figures(figures, shadow)
    message = health.message(1.7e9)
    assert len(dump_health(message)) <= MAX_MESSAGE_BYTES
    told = json.loads(dump_health(message))
    assert told["figures"] == figures
    assert told["shadow"]["pairs"] == shadow["pairs"]
    assert (told["shadow"]["package"], told["shadow"]["champion"]) == ("c" * 64, "a" * 64)  # digests are whole
    assert (told["package"]["serving"], told["package"]["deployed"]) == ("a" * 64, "b" * 64)


def test_what_is_not_known_is_left_out_of_the_message() -> None:
    health = Health("tiny", "cam-1", {})
    health.set_figures(None, None)
    assert not {"figures", "shadow"} & set(health.message(1.0))
