"""The device's command line: inspecting, verdicts of files, self-test, benchmark."""

import contextlib
import errno
import fcntl
import gc
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from golden_package import GOLDEN, PICTURES, make_package
from inspecting import BAD, GOOD, picture, wait_until
from small_disk import mount, remount, unmount

import edge.assembly
import edge.printing
import edge.spool.eviction
from edge.__main__ import main
from edge.assembly import run
from edge.configuration import Configuration
from edge.contract import InputGuard, Range
from edge.errors import TransportError
from edge.judge import judge_file
from edge.package import open_package
from edge.printing import Printer
from edge.results import Result, parse_result
from edge.transports.files import FileTransport
from edge.transports.interface import OnMessage, TransportState


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return make_package(tmp_path / "package")


def images(*names: str) -> list[str]:
    return ["--image", *(str(GOLDEN / name) for name in names)]


def test_images_get_a_line_with_verdict_score_and_label(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(package), *images(*PICTURES)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["review", "fail", "pass", "fail"]
    assert lines[1].endswith("part-1.png  scratch")
    assert lines[3].endswith("part-3.png  stain")
    assert lines[2].endswith("part-2.jpg")  # a good part has no label
    assert "p(bad) 0.9" in lines[1]


def test_a_bad_image_is_an_error_and_the_others_are_still_judged(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, cut = tmp_path / "text.jpg", tmp_path / "cut.jpg"
    text.write_text("not a picture")
    cut.write_bytes((GOLDEN / "part-2.jpg").read_bytes()[:900])
    files = [str(text), str(cut), str(tmp_path / "none.png"), str(GOLDEN / "part-1.png")]
    assert main(["--model", str(package), "--json", "--image", *files]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["verdict"] for line in lines] == ["error", "error", "error", "fail"]
    assert "want a JPEG, PNG, BMP or TIFF" in lines[0]["reason"]
    assert "cannot decode this JPEG: Premature end" in lines[1]["reason"]
    assert "cannot read" in lines[2]["reason"]
    assert lines[0]["score"] is None
    assert lines[3]["latency"]["detect_s"] > 0


def test_an_image_outside_the_guard_is_an_error(tmp_path: Path) -> None:
    narrow = InputGuard(Range(250.0, 255.0), Range(0.0, 128.0), Range(0.0, 255.0), Range(0.1, 9.0), 1, 1)
    package = open_package(make_package(tmp_path / "package", guard=narrow))
    judgement = judge_file((GOLDEN / "part-1.png").read_bytes(), package.contract, package.open_detector(), "part-1")
    assert judgement.verdict == "error"
    assert judgement.score is None
    assert judgement.reason is not None
    assert judgement.reason.startswith("part-1: brightness")


def test_the_self_test_passes_or_fails_with_its_exit_status(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(package), "--self-test"]) == 0
    assert capsys.readouterr().out.startswith("self-test passed: 4 golden images")
    contract = package / "contract.json"
    content = json.loads(contract.read_text(encoding="utf-8"))
    content["self_test"]["images"][0]["score"] += 3.0
    contract.write_text(json.dumps(content), encoding="utf-8")
    assert main(["--model", str(package), "--self-test", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] is False
    assert "part-0.png: want score" in report["failures"][0]


def test_the_benchmark_tells_stages_memory_and_machine(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(package), "--benchmark", "--json"]) == 0
    benchmark = json.loads(capsys.readouterr().out)
    assert set(benchmark["stages"]) == {"decode", "preprocess", "detect", "total"}
    for stage in benchmark["stages"].values():
        assert 0 < stage["p50_ms"] <= stage["p99_ms"]
    assert (benchmark["kind"], benchmark["width"], benchmark["height"]) == ("int8", 32, 32)
    assert benchmark["source"] == "golden images"
    assert benchmark["machine"]
    assert benchmark["rss_bytes"] > 0


def test_the_benchmark_takes_a_model_without_a_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(GOLDEN / "tiny_float32.tflite"), "--benchmark"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("float32 32x32 on ")
    assert "synthetic picture" in text
    assert "peak memory" in text


def test_a_package_that_cannot_be_opened_ends_with_one_line(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (package / "model.tflite").write_bytes(b"changed")
    assert main(["--model", str(package), "--self-test"]) == 2
    error = capsys.readouterr().err
    assert "changed after the package was made" in error
    assert "Traceback" not in error


def test_a_task_and_a_sensible_number_of_threads_are_asked_for(package: Path) -> None:
    for wrong in ([], ["--self-test", "--benchmark"], ["--self-test", "--threads", "0"]):
        with pytest.raises(SystemExit):
            main(["--model", str(package), *wrong])


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A folder with 7 pictures, 2 of them in error."""
    folder = tmp_path / "incoming"
    folder.mkdir()
    for number in range(5):
        (folder / f"part-{number}.png").write_bytes(picture(number, BAD if number == 3 else GOOD))
    (folder / "text.jpg").write_text("not a picture")
    (folder / "black.png").write_bytes(picture(0, np.zeros_like(GOOD)))
    return folder


def inspect(package: Path, parts: Path, *more: str) -> list[str]:
    root = parts.parent
    arguments = ["--model", str(package), "--source", f"folder:{parts}", "--state", str(root / "state")]
    return [*arguments, "--sink", f"file:{root / 'results.jsonl'}", "--thing", "cam-1", "--once", *more]


def results_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_folder_is_inspected_with_a_line_for_each_part_and_a_summary(
    package: Path, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(inspect(package, parts)) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert sorted(line.split()[0] for line in lines[:7]) == ["error"] * 2 + ["fail"] + ["pass"] * 4
    assert "part-3.png  scratch" in out
    assert "decode 1" in out
    assert "black 1" in out
    assert "parts/s" in out
    assert "total" in out
    results = results_in(parts.parent / "results.jsonl")
    assert len({result["id"] for result in results}) == len(results) == 7
    assert {result["line"] for result in results} == {"tiny"}
    assert not [path for path in parts.iterdir() if path.is_file()]
    assert len(list((parts / "done" / "pass").iterdir())) == 4
    health = results_in(parts.parent / "results-health.jsonl")
    assert health[0]["package"]["serving"] == health[0]["package"]["deployed"] is not None
    assert health[0]["versions"]["inspector"] == edge.__version__
    metrics = results_in(parts.parent / "results-metrics.jsonl")
    assert metrics[-1]["Inspections"] == 7


def test_json_gives_the_results_themselves(package: Path, parts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(inspect(package, parts, "--json", "--sink", "none")) == 0
    captured = capsys.readouterr()
    results = [parse_result(line) for line in captured.out.splitlines()]
    assert len(results) == 7
    assert [result.sequence for result in results] == sorted(result.sequence for result in results)
    assert "parts/s" in captured.err


def test_the_same_files_again_get_their_stored_results(
    package: Path, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep = ["--set", "source.folder.after=keep"]
    assert main(inspect(package, parts, *keep)) == 0
    assert main(inspect(package, parts, *keep)) == 0
    assert "7 more had their verdict already" in capsys.readouterr().out
    assert len(results_in(parts.parent / "results.jsonl")) == 7


def test_settings_come_from_a_file_and_flags_beat_it(package: Path, parts: Path) -> None:
    config = parts.parent / "inspector.json"
    document = {"model": str(package), "sink": "none", "thing": "from-file", "workers": 2, "metrics": {"group": "g"}}
    config.write_text(json.dumps(document), encoding="utf-8")
    assert main(inspect(package, parts, "--config", str(config))) == 0
    assert {result["thing"] for result in results_in(parts.parent / "results.jsonl")} == {"cam-1"}


def test_wrong_settings_end_with_every_fault_named(
    package: Path, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(inspect(package, parts, "--set", "workers=0", "--set", "colour=red")) == 2
    assert main(inspect(package, parts, "--set", "workers=0", "--set", "review.audit_share=7")) == 2
    error = capsys.readouterr().err
    assert "colour: no such setting" in error
    assert "workers: want 1 to 256, found 0" in error
    assert "review.audit_share" in error
    assert "Traceback" not in error
    assert main(inspect(package, parts, "--sink", "pigeon:3")) == 2
    assert main(inspect(package, parts, "--source", "carrier:3")) == 2
    assert main(inspect(package, parts, "--config", str(parts / "none.json"))) == 2
    with pytest.raises(SystemExit):
        main(inspect(package, parts, "--set", "no-equals-sign"))
    with pytest.raises(SystemExit):
        main(["--model", str(package)])


def test_a_second_inspector_on_the_same_state_is_refused(
    package: Path, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = parts.parent / "state"
    state.mkdir()
    with (state / "inspector.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(inspect(package, parts)) == 2
    assert "another inspector uses this state folder" in capsys.readouterr().err
    assert main(inspect(package, parts)) == 0


def test_a_run_that_ends_by_itself_does_not_wait_for_a_package(parts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(inspect(parts.parent / "none", parts, "--line", "tiny")) == 2
    assert f"no package at {parts.parent / 'none'}" in capsys.readouterr().err
    assert len(list(parts.iterdir())) == 7


def test_a_run_that_could_not_start_lets_go_of_its_spool(package: Path, parts: Path) -> None:
    assert main(inspect(parts.parent / "nowhere", parts, "--quiet")) == 2
    assert gc.isenabled()
    assert main(inspect(package, parts, "--quiet")) == 0
    assert gc.isenabled()
    assert len(results_in(parts.parent / "results.jsonl")) == 7


def test_a_run_that_ended_in_order_says_stopped(package: Path, parts: Path) -> None:
    assert main(inspect(package, parts)) == 0
    last = results_in(parts.parent / "results-health.jsonl")[-1]
    assert last["state"] == "stopped"
    assert last["components"]["inspector"]["ok"]
    assert last["source_counts"] == {"moved": 7, "parts": 7}


def test_copies_in_a_folder_are_judged_unless_told_otherwise(package: Path, parts: Path) -> None:
    def run_on_copies(*more: str) -> list[str]:
        for number in range(4):
            (parts / f"copy-{number}.png").write_bytes(picture(7))
        state = parts.parent / f"state-{len(more)}"
        assert main(inspect(package, parts, "--state", str(state), "--sink", f"file:{state}/results.jsonl", *more)) == 0
        return [str(result.get("error")) for result in results_in(state / "results.jsonl")]

    assert "stuck" not in run_on_copies()
    assert run_on_copies("--set", "review.stuck_after=3").count("stuck") == 2


def test_a_run_that_ends_by_itself_sends_its_images_without_a_pause(package: Path, parts: Path) -> None:
    inbox = parts.parent / "inbox"
    inbox.mkdir()
    more = ["--upload", str(inbox), "--set", "upload.pause_s=600", "--set", "review.audit_share=1"]
    assert main(inspect(package, parts, *more)) == 0
    assert len(list(inbox.rglob("*.png"))) == 6  # all but the one that is no picture


def test_the_summary_tells_what_was_not_delivered(
    package: Path, parts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.assembly, "_FLUSH_S", 0.5)
    occupied = parts.parent / "occupied"
    occupied.write_text("")  # a file where the results' folder should be
    more = ["--sink", f"file:{occupied / 'results.jsonl'}", "--upload", str(parts.parent / "none")]
    assert main(inspect(package, parts, *more)) == 0
    out = capsys.readouterr().out
    assert "waiting     7 results are in the spool" in out
    assert "cannot write" in out
    assert "images are in the spool" in out


def test_a_spool_of_another_major_version_is_refused_and_health_says_so(
    package: Path, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(inspect(package, parts)) == 0
    connection = sqlite3.connect(parts.parent / "state" / "spool" / "spool.db")
    connection.execute("PRAGMA user_version = 7003")
    connection.close()
    assert main(inspect(package, parts)) == 2
    assert "schema 7.3 has another major version" in capsys.readouterr().err
    last = results_in(parts.parent / "results-health.jsonl")[-1]
    assert last["state"] == "degraded"
    assert not last["components"]["spool"]["ok"]
    assert "schema 7.3 has another major version" in last["components"]["spool"]["message"]


def test_a_read_only_disk_at_the_start_stops_no_line(package: Path, parts: Path) -> None:
    disk = parts.parent / "disk"
    disk.mkdir()
    if not mount(disk, "size=4m"):
        pytest.skip("needs the right to mount a small file system")
    process = None
    try:
        remount(disk, "ro")
        arguments = [argument for argument in inspect(package, parts) if argument != "--once"]
        process = running([*arguments, "--state", str(disk / "state"), "--set", "spool.retry_max_s=1"])
        health = parts.parent / "results-health.jsonl"
        wait_until(lambda: health.exists() and '"spool":{"ok":false' in health.read_text(encoding="utf-8"), 60)
        assert len([path for path in parts.iterdir() if path.is_file()]) == 7  # nothing acknowledged
        remount(disk, "rw")
        wait_until(lambda: not [path for path in parts.iterdir() if path.is_file()], 60)
    finally:
        if process is not None:
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=60)
        unmount(disk)
    assert process.returncode == 0, out
    assert "event=state_not_locked" in out


def refuse_below(folder: Path, error: int, patched: pytest.MonkeyPatch) -> None:
    """Let the calls that make and open files below a folder fail, as on a broken card."""
    real_open, real_mkdir = os.open, os.mkdir

    def check(path: Any) -> None:
        if not isinstance(path, int) and Path(os.fsdecode(path)).is_relative_to(folder):
            raise OSError(error, os.strerror(error), str(path))

    def open_(path: Any, *arguments: Any, **more: Any) -> int:
        check(path)
        return real_open(path, *arguments, **more)

    def mkdir(path: Any, *arguments: Any, **more: Any) -> None:
        check(path)
        real_mkdir(path, *arguments, **more)

    patched.setattr(os, "open", open_)
    patched.setattr(os, "mkdir", mkdir)


def test_a_broken_disk_at_the_start_stops_no_line(
    package: Path, parts: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    state = parts.parent / "state"
    document = {
        "model": str(package),
        "state": str(state),
        "thing": "cam-1",
        "file": {"path": str(parts.parent / "results.jsonl")},
        "source": {"uri": f"folder:{parts}", "folder": {"settle_ms": 0}},
        "spool": {"retry_min_s": 0.05, "retry_max_s": 0.1},
    }
    stopping, shown = threading.Event(), []
    broken = pytest.MonkeyPatch()
    refuse_below(state, errno.EIO, broken)

    def show(result: Result, name: str) -> None:
        shown.append(result.verdict)
        if len(shown) == 7:  # the disk comes back
            broken.undo()

    def stop_when_filed() -> None:
        wait_until(lambda: not [path for path in parts.iterdir() if path.is_file()], 60)
        stopping.set()

    watcher = threading.Thread(target=stop_when_filed)
    watcher.start()
    try:
        done = run(Configuration(document), stopping, show)
    finally:
        broken.undo()
        stopping.set()
        watcher.join()
    assert done.status == 0
    assert len(shown) == 7
    assert "event=state_not_locked" in caplog.text


@pytest.mark.parametrize("error", [errno.EACCES, errno.ENOTDIR])
def test_a_state_folder_that_only_another_setting_can_mend_is_refused(
    package: Path, parts: Path, error: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse_below(parts.parent / "state", error, monkeypatch)
    assert main(inspect(package, parts)) == 2
    assert "cannot use this folder" in capsys.readouterr().err


def test_an_output_folder_that_is_away_stops_no_line(package: Path, parts: Path) -> None:
    away = parts.parent / "away"
    away.symlink_to("nowhere/at/all")  # a mount point that is not there
    assert main(inspect(package, parts, "--set", f"output.folder={away}/line", "--quiet")) == 0
    assert len(results_in(parts.parent / "results.jsonl")) == 7
    health = results_in(parts.parent / "results-health.jsonl")
    assert any("cannot write" in message["components"]["output"]["message"] for message in health)


class Gone(FileTransport):
    """A transport that is lost for good after the first message."""

    def state(self) -> TransportState:
        lost = (self._folder / "results.jsonl").exists()
        return TransportState(not lost, "the nucleus is gone" if lost else "fine", fatal=lost)


def test_a_nucleus_that_is_gone_ends_the_program_with_another_status(
    package: Path, parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.assembly, "open_transport", lambda *rest: Gone(rest[4]))
    arguments = [argument for argument in inspect(package, parts) if argument != "--once"]
    assert main(arguments) == 3
    left = [path for path in parts.iterdir() if path.is_file()]
    done = list((parts / "done").rglob("*.*"))
    assert len(left) + len(done) == 7


def test_the_source_listens_before_the_transport_connects(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Kept:
        """Hands over what was kept for this device as soon as it connects, then is gone."""

        name, max_payload_bytes = "mqtt", 128_000

        def __init__(self) -> None:
            self.listeners: list[OnMessage] = []
            self.taken = 0
            self.state_now = TransportState(True, "connected")

        def start(self) -> None:
            self.taken = len(self.listeners)
            self.state_now = TransportState(False, "gone", fatal=True)

        def subscribe(self, topic: str, on_message: OnMessage, on_kept: OnMessage | None = None) -> None:
            self.listeners.append(on_message)

        def publish(self, topic: str, payload: bytes, timeout_s: float) -> None:
            raise TransportError("gone")

        def state(self) -> TransportState:
            return self.state_now

        def close(self) -> None:
            pass

    transport = Kept()
    monkeypatch.setattr(edge.assembly, "open_transport", lambda *rest: transport)
    arguments = ["--model", str(package), "--source", "trigger:", "--sink", f"file:{tmp_path / 'results.jsonl'}"]
    assert main([*arguments, "--state", str(tmp_path / "state")]) == 3
    assert transport.taken == 1


def running(arguments: list[str], **more: Any) -> "subprocess.Popen[str]":
    """The program in a process of its own."""
    command = [sys.executable, "-m", "edge", *arguments]
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, **more
    )


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_in_order_when_told_to(package: Path, parts: Path, stop: signal.Signals) -> None:
    arguments = [argument for argument in inspect(package, parts) if argument != "--once"]
    process = running(arguments)
    wait_until(lambda: not [path for path in parts.iterdir() if path.is_file()], 60)
    process.send_signal(stop)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    assert len(results_in(parts.parent / "results.jsonl")) == 7
    assert "event=package_state ok=True" in out
    for line in out.splitlines():
        assert line.startswith("time=") or "XNNPACK" in line, line  # a log has a form


def test_it_stops_while_it_waits_for_a_package(parts: Path) -> None:
    arguments = [argument for argument in inspect(parts.parent / "current", parts) if argument != "--once"]
    process = running(arguments)
    lock = parts.parent / "state" / "inspector.lock"
    wait_until(lock.exists, 60)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out


def test_changed_settings_are_taken_up_while_it_runs(package: Path, parts: Path) -> None:
    config = parts.parent / "inspector.json"
    config.write_text(json.dumps({"deadline_ms": 60000}), encoding="utf-8")
    arguments = [argument for argument in inspect(package, parts, "--config", str(config)) if argument != "--once"]
    process = running(arguments)
    try:
        wait_until(lambda: not [path for path in parts.iterdir() if path.is_file()], 60)
        fresh = config.with_suffix(".new")
        fresh.write_text(json.dumps({"deadline_ms": 30000, "workers": 2, "review": {"audit_share": 0.5}}))
        fresh.replace(config)
        health = parts.parent / "results-health.jsonl"
        wait_until(lambda: health.exists() and "a restart takes up workers" in health.read_text(), 60)
    finally:
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert "event=setting_changed name=deadline_ms value=30000.0 takes_effect='now'" in out
    assert "event=setting_changed name=workers value=2 takes_effect='after a restart'" in out


def test_nobody_reading_the_verdicts_stops_nothing(package: Path, parts: Path) -> None:
    process = running(inspect(package, parts, "--json"))
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(60) == 0
    assert len(results_in(parts.parent / "results.jsonl")) == 7


@pytest.mark.parametrize("keeps_time", [True, False])
def test_the_heart_beats_only_while_deadlines_are_kept(keeps_time: bool) -> None:
    beats: list[float] = []
    assembly: Any = object.__new__(edge.assembly._Assembly)
    assembly._outputs = SimpleNamespace(heartbeat=beats.append)
    assembly._inspector = SimpleNamespace(pool=SimpleNamespace(keeps_time=keeps_time))
    assembly._tick_at_s = float("inf")
    assert assembly._on_turn(0.0) is None
    assert len(beats) == keeps_time


def full_pipe() -> tuple[int, int]:
    """A pipe that takes nothing more, as of a journal that stands still; its ends to read from and to write to."""
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writes, b"\n" * 4096)
    os.set_blocking(writes, True)
    return reads, writes


@pytest.mark.parametrize("flag", ["--json", "--quiet"])
def test_a_pipe_that_nobody_drains_stops_nothing(package: Path, parts: Path, flag: str) -> None:
    reads, writes = full_pipe()
    command = [sys.executable, "-m", "edge", *inspect(package, parts, flag)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    process = subprocess.Popen(command, stdout=writes, stderr=subprocess.DEVNULL, env=environment)
    assert process.wait(60) == 0
    os.close(reads)
    os.close(writes)
    assert len(results_in(parts.parent / "results.jsonl")) == 7
    assert not [path for path in parts.iterdir() if path.is_file()]


def test_lines_that_nobody_takes_are_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    reads, writes = full_pipe()
    with os.fdopen(writes, "w") as stream:
        printer = Printer(stream)
        printer.write("line 0\n")
        wait_until(lambda: not printer._lines)  # it is with the thread that writes, and hangs
        for number in range(1, edge.printing.MOST_LINES + 101):
            printer.write(f"line {number}\n")
        assert printer.dropped == 100
        assert [record.message.partition(" ")[0] for record in caplog.records] == ["event=lines_dropped"]
        assert not printer.drain(0.05)
        read = b""
        while b"line 0\n" not in read:
            read += os.read(reads, 1 << 20)
        while not printer.drain(0.01):
            read += os.read(reads, 1 << 20)
        printer.write("the last\n")
        while not read.endswith(b"the last\n"):
            read += os.read(reads, 1 << 20)
        lines = read.decode().split()
        numbers = [int(word) for word in lines if word.isdecimal()]
        assert numbers == list(range(edge.printing.MOST_LINES + 1))
    os.close(reads)


def test_the_inspectors_version_is_the_projects() -> None:
    text = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{edge.__version__}"\n' in text


def test_files_that_stay_in_their_folder_are_inspected_once_however_many(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.spool.eviction, "TRIM", 10)
    incoming = tmp_path / "in"
    incoming.mkdir()
    for number in range(150):
        (incoming / f"{number:03d}.png").write_bytes(picture(number))
    arguments = ["--model", str(package), "--source", f"folder:{incoming}", "--once", "--quiet", "--thing", "cam-1"]
    arguments += ["--state", str(tmp_path / "state"), "--sink", f"file:{tmp_path / 'results.jsonl'}"]
    for setting in ("source.folder.after=keep", "source.folder.settle_ms=0", "spool.keep_sent=100"):
        arguments += ["--set", setting]
    for _ in range(3):
        assert main(arguments) == 0
        assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 150
