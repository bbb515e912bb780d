"""The program as a Greengrass component, against the double of the nucleus."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("awsiot", reason="this environment has no awsiotsdk")

from golden_package import make_package
from inspecting import BAD, GOOD, picture, wait_until
from ipc_double import IpcDouble

RESULTS = "lineside/tiny/thing-1/results"
HEALTH = "lineside/tiny/thing-1/health"


def fill(folder: Path, first: int, last: int) -> None:
    for number in range(first, last):
        staged = folder / f".{number}"
        staged.write_bytes(picture(number, BAD if number % 2 else GOOD))
        staged.rename(folder / f"part-{number}.png")


def results(double: IpcDouble) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for topic, payload in list(double.published):
        if topic == RESULTS:
            message = json.loads(payload)
            found |= {result["id"]: result for result in (message if isinstance(message, list) else [message])}
    return found


def test_a_component_inspects_follows_its_configuration_and_ends_when_the_nucleus_is_gone(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    fill(parts, 0, 6)
    configuration = {
        "model": str(make_package(tmp_path / "package")),
        "line": "tiny",
        "deadline_ms": "60000",
        "source": {"uri": f"folder:{parts}", "folder": {"interval_s": "0.1", "settle_ms": "0"}},
        "sender": {"batch_within_s": "0.2"},
    }
    # A deployment without a source: the component waits for one that has it, instead of failing three times.
    with IpcDouble(tmp_path, {**configuration, "source": {}}) as double:
        environment = {**os.environ, **double.environment(), "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        command = [sys.executable, "-m", "edge", "--sink", "greengrass", "--state", str(tmp_path / "state")]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        try:
            wait_until(lambda: double.subscribed("SubscribeToConfigurationUpdate") != [], 90)
            assert process.poll() is None
            double.update_configuration(source=configuration["source"])
            wait_until(lambda: len(results(double)) == 6, 90)
            assert double.states == ["RUNNING"]
            assert {result["thing"] for result in results(double).values()} == {"thing-1"}
            assert {result["verdict"] for result in results(double).values()} == {"pass", "fail"}
            double.update_configuration(deadline_ms="50000", workers="none")
            wait_until(lambda: any(b"workers: want int" in payload for topic, payload in double.published), 90)
            double.update_configuration(deadline_ms="50000", workers="1")
            double.restart()
            status = process.wait(90)
        finally:
            process.kill()
            out = process.communicate()[0]
        assert status == 3, out
        assert "event=waiting_for_configuration" in out
        assert "event=settings_refused" in out
        assert "event=transport_lost" in out
        assert double.token not in out
        assert "token-of-the-first-start" not in out
    assert json.loads((tmp_path / "state" / "nucleus.json").read_text(encoding="utf-8"))["deadline_ms"] in (
        "50000",
        "60000",
    )
    assert all(topic in (RESULTS, HEALTH) for topic, _ in double.published)


def test_without_a_nucleus_the_component_ends_with_its_status_for_a_new_start(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    command = [sys.executable, "-m", "edge", "--sink", "greengrass", "--state", str(tmp_path / "state")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=90, check=False)
    assert done.returncode == 3
    assert "not set; the transport greengrass works only in a component" in done.stderr
    assert "Traceback" not in done.stderr
