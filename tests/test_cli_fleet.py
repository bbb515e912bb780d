"""`lineside fleet` as a person and a program meet it; devices do not run here."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_fleet import LINE, NAMES, Rig, fleet_of
from rich.console import Console
from typer.testing import CliRunner, Result

from inspection.cli import app
from inspection.commands import fleet as commands
from inspection.fleet.interface import DeviceStatus
from inspection.fleet.overview import look_over
from inspection.fleet.reports import health_key
from inspection.fleet.rollout.opening import open_or_continue
from inspection.fleet.rollout.owners import Owner
from inspection.fleet.rollout.planning import Release, make_plan
from inspection.fleet.rollout.record import RolloutRecord


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with fleet_of(tmp_path, start=False) as made:
        monkeypatch.setattr(commands, "open_line", lambda config: made.settings)
        yield made


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["fleet", *arguments])


def answer(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refusal(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    return line


def begin(rig: Rig, version: int = 1) -> RolloutRecord:
    """A rollout that somebody is at."""
    rig.register("good")
    published = rig.publish(version)
    wanted = {name: setting for name, setting in rig.wanted(published).items() if setting is not None}
    entry = rig.registry.get(LINE, version)
    release = Release(version, entry.archive_sha256, published.digest, NAMES.model, NAMES.challenger, wanted, "1.0.0")
    return open_or_continue(
        rig.storage,
        LINE,
        version,
        Owner.here("DeployFlow/1"),
        lambda: make_plan(rig.fleet, rig.settings, release, lambda number: published.digest),
        1.0,
    )


def say(rig: Rig, thing: str, digest: str, **more) -> None:
    document = {
        "schema": "1.1",
        "thing": thing,
        "line": LINE,
        "at": time.time(),
        "state": "ok",
        "up_s": 5,
        "versions": {},
        "components": {},
        "package": {"serving": digest, "deployed": digest, "version": "x", "self_test": "passed"},
        "figures": {"package": digest, "since": time.time() - 7200, "pass": 1200, "fail": 34, "review": 0, "error": 0},
        **more,
    }
    rig.storage.write(health_key(LINE, thing), json.dumps(document).encode())


def test_a_fleet_that_never_had_anything_says_how_to_begin(rig: Rig) -> None:
    text = answer("status")
    assert "line tiny  0 of 3 devices are well" in text
    assert text.count("offline") == 3
    assert "next: lineside fleet start" in text
    assert "Line tiny has had no rollout." in answer("history")


def test_status_tells_of_each_device_what_serves_since_when_and_what_is_wrong(rig: Rig, monkeypatch) -> None:
    record = begin(rig)
    digest = record.plan.digest
    say(rig, "device-1", digest)
    say(rig, "device-2", digest, state="degraded", components={"source": {"ok": False, "message": "no camera"}})

    def status(group: str) -> tuple[DeviceStatus, ...]:
        things = {"canary": ("device-1",), "fleet": ("device-2", "device-3")}[group]
        components = {NAMES.model: "1.0.0", NAMES.inspector: "1.2.0", "com.example.Other": "3.0.0"}
        return tuple(
            DeviceStatus(thing, group, "id", "succeeded", components, {}, "", None if thing == "device-3" else 1.0)
            for thing in things
        )

    monkeypatch.setattr("inspection.fleet.local.fleet.LocalFleet.status", lambda self, group: status(group))
    text = answer("status")
    (well,) = [line for line in text.splitlines() if line.startswith(" device-1")]
    assert well.split()[:4] == ["device-1", "canary", "ok", "1"]
    assert "2 h ago" in well
    assert "1,234" in well
    assert "inspector 1.2.0, model 1.0.0, 1 of others" in well
    assert "device-2: source: no camera" in text
    assert "device-3: it has sent no health message" in text
    assert "rollout 1, model 1: under way" in text
    assert "lineside fleet abort tiny" in text
    document = json.loads(answer("status", "--json"))
    assert [one["state"] for one in document["devices"]] == ["ok", "degraded", "silent"]
    assert document["devices"][0]["model"] == 1
    assert document["rollout"]["outcome"] == "open"


def test_a_narrow_terminal_gets_fewer_columns(rig: Rig) -> None:
    devices = look_over(rig.fleet, rig.storage, rig.settings)
    wide = commands._fit(Console(width=200), devices, NAMES)
    narrow = commands._fit(Console(width=45), devices, NAMES)
    assert len(wide.columns) == 8
    assert [str(column.header) for column in narrow.columns][:1] == ["device"]
    assert len(narrow.columns) < 8


def test_abort_is_heard_by_who_runs_the_rollout_and_history_keeps_it(rig: Rig) -> None:
    record = begin(rig)
    assert "aborted by ann: wrong lot" in answer("abort", LINE, "--by", "ann", "--why", "wrong lot")
    assert record.abort_request() == "aborted by ann: wrong lot"
    record.finish("aborted", "aborted by ann: wrong lot")
    text = answer("history")
    assert "aborted by ann: wrong lot" in text
    (entry,) = json.loads(answer("history", "--json"))
    assert entry["outcome"]["outcome"] == "aborted"


def test_abort_without_a_rollout_or_of_another_line_says_what_to_do(rig: Rig) -> None:
    assert "found none; to go back" in refusal("abort", LINE, "--by", "ann", "--why", "x")
    assert "name them with --config" in refusal("abort", "bottles", "--by", "ann", "--why", "x")
    assert "why: want the reason" in refusal("abort", LINE, "--by", "ann", "--why", " ")


def test_a_device_that_is_none_is_refused(rig: Rig) -> None:
    assert "device-9: no such device; want some of device-1" in refusal("stop", "device-9")
