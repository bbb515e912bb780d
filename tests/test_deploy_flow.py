"""The deploy flow as a person runs it: through its command line, on devices of this machine."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deploying import FEW, PATIENT, parts_folder
from local_fleet import LINE, Rig, fleet_of, wait_until
from metaflow import Run, Runner, namespace
from running_flows import use_datastore
from test_flows import decoded

from inspection.fleet.overview import look_over
from inspection.fleet.rollout.record import RolloutRecord, latest_record, rollout_numbers

pytestmark = pytest.mark.slow

FLOW = Path(__file__).parents[1] / "flows" / "deploy_flow.py"
SITE = Path(__file__).with_name("flow_site")


class Line:
    """A line with its settings in a file, devices that run, and the flow's command line."""

    def __init__(self, rig: Rig, toml: Path) -> None:
        self.rig, self.toml, self.folder = rig, toml, rig.folder

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start the flow; it and its steps are a process group of their own. A resumed run keeps its settings."""
        config = [] if "resume" in arguments else ["--config", "line", str(self.toml)]
        return subprocess.Popen(
            [sys.executable, str(FLOW), *config, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env=os.environ,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run the flow to its end; its status and what it said."""
        process = self.start(*arguments)
        try:
            said, _ = process.communicate(timeout=400)
        finally:
            kill(process)
        return process.returncode, said

    def models(self) -> list[int | None]:
        return [one.model for one in look_over(self.rig.fleet, self.rig.storage, self.rig.settings)]

    def newest(self) -> RolloutRecord:
        record = latest_record(self.rig.storage, LINE)
        assert record is not None
        return record


def kill(process: "subprocess.Popen[str]") -> None:
    """End a flow and its steps as a power cut would."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    if process.stdout is not None:
        process.stdout.close()


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """Devices that run, two approved models, a Metaflow datastore of its own."""
    use_datastore(tmp_path, monkeypatch)
    monkeypatch.setenv("PYTHONPATH", str(SITE))
    local = {"parts": str(parts_folder(tmp_path / "parts")), "parts_per_minute": 600.0}
    with fleet_of(tmp_path, start=False, **{**FEW, **PATIENT, "local": local}) as rig:
        rig.register("good", "float")
        toml = tmp_path / "tiny.toml"
        toml.write_text(to_toml(rig, local), encoding="utf-8")
        yield Line(rig, toml)


def to_toml(rig: Rig, local: dict[str, Any]) -> str:
    fleet, inspector = rig.settings.fleet, rig.settings.fleet.inspector
    return f"""
[line]
name = "{LINE}"
storage = "{rig.settings.line.storage}"
[fleet]
poll_seconds = {fleet.poll_seconds}
shadow_parts = {fleet.shadow_parts}
canary_parts = {fleet.canary_parts}
wave_parts = {fleet.wave_parts}
canary_timeout_minutes = {fleet.canary_timeout_minutes}
wave_timeout_minutes = {fleet.wave_timeout_minutes}
[fleet.inspector]
deadline_ms = {inspector["deadline_ms"]}
health_every_s = {inspector["health_every_s"]}
source = {{ folder = {{ interval_s = 0.2, settle_ms = 0 }} }}
[fleet.local]
parts = "{local["parts"]}"
parts_per_minute = {local["parts_per_minute"]}
groups = {{ canary = ["device-1"], fleet = ["device-2", "device-3"] }}
"""


def test_a_run_brings_the_newest_approved_model_to_every_device(line: Line) -> None:
    config = [("line", str(line.toml))]
    with Runner(str(FLOW), config=config, show_output=False, cwd=str(line.folder)).run(model="1") as running:
        assert running.status == "successful", running.stdout + running.stderr
        assert running.run["end"].task.data.outcome.outcome == "deployed"
    assert line.models() == [1, 1, 1]
    status, said = line.run("run", "--why", "the new one", "--run-id-file", str(line.folder / "run-id"))
    assert status == 0, said
    assert line.models() == [2, 2, 2]
    for words in ("Model 2 serves on the whole fleet", "lineside fleet status", "lineside fleet stop"):
        assert words in said
    run_id = (line.folder / "run-id").read_text()
    namespace(None)
    assert {f"line:{LINE}", "model:2"} <= set(Run(f"DeployFlow/{run_id}").tags)
    for step, words in (("canary", "Both models judged the same"), ("fleet", "Model 2 serves on the whole fleet")):
        page = line.folder / f"{step}.html"
        status, said = line.run("card", "get", f"{run_id}/{step}", str(page))
        assert status == 0, said
        assert words in decoded(page.read_text())


def test_a_model_that_is_taken_back_ends_the_run_in_red_with_its_reason_and_cards(line: Line) -> None:
    assert line.run("run", "--model", "1")[0] == 0
    line.rig.register("other")
    status, said = line.run("run", "--run-id-file", str(line.folder / "run-id"))
    assert status != 0
    assert "error: RolloutError: line tiny: model 3 was not deployed (rolled-back): shadow: the challenger" in said, (
        said
    )
    assert "This failed task will not be retried" in said
    assert line.models() == [1, 1, 1]
    assert line.rig.registry.get(LINE, 3).status == "rolled-back"
    page = line.folder / "fleet.html"
    assert line.run("card", "get", f"{(line.folder / 'run-id').read_text()}/fleet", str(page))[0] == 0
    assert "Model 3 was taken back, and model 1 serves; the rest of the fleet was never touched" in decoded(
        page.read_text()
    )
    kept = [json.loads(line.rig.storage.read(key)) for key in line.rig.storage.list(f"fleet/{LINE}/notifications/")]
    assert [one["outcome"] for one in kept] == ["deployed", "rolled-back"]


def test_a_flow_that_is_killed_in_each_step_goes_on_with_the_same_rollout(line: Line) -> None:
    """Nobody may be left half-way, and nobody gets it twice."""
    storage = line.rig.storage
    process = line.start("run", "--model", "1")
    try:
        wait_until(lambda: bool(line.rig.fleet.versions("lineside.Model.tiny")), 200, lambda: "nothing was published")
    finally:
        kill(process)
    assert rollout_numbers(storage, LINE) == ()
    process = line.start("resume")
    try:
        wait_until(lambda: has_event(line, "canary", "deployed"), 200, lambda: "the canary got nothing")
    finally:
        kill(process)
    process = line.start("resume")
    try:
        wait_until(lambda: has_event(line, "wave fleet", "deploying"), 200, lambda: "the wave got nothing")
    finally:
        kill(process)
    assert line.newest().end() is None
    status, said = line.run("resume")
    assert status == 0, said
    assert line.models() == [1, 1, 1]
    assert rollout_numbers(storage, LINE) == (1,)
    assert len(line.newest().owners()) >= 3
    events = [(event.stage, event.what) for event in line.newest().events()]
    assert len(events) == len(set(events)), events
    assert len(storage.list(f"fleet/{LINE}/notifications/")) == 1


def has_event(line: Line, stage: str, what: str) -> bool:
    record = latest_record(line.rig.storage, LINE)
    return record is not None and any((one.stage, one.what) == (stage, what) for one in record.events())


def test_a_second_run_of_the_same_line_is_refused_while_the_first_runs_and_abort_undoes_it(line: Line) -> None:
    first = line.start("run", "--model", "1")
    try:
        wait_until(lambda: has_event(line, "canary", "started"), 200, lambda: "the rollout did not begin")
        for thing in ("device-1", "device-2", "device-3"):
            line.rig.fleet.set_online(thing, False)  # so that it takes long
        status, said = line.run("run", "--model", "2")
        assert status != 0
        assert "has been deploying model 1 since" in said
        assert f"lineside fleet abort {LINE}" in said
        program = [
            str(Path(sys.executable).with_name("lineside")),
            "fleet",
            "abort",
            LINE,
            "--by",
            "ann",
            "--why",
            "test",
        ]
        done = subprocess.run(
            [*program, "--config", str(line.toml)], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "aborted by ann: test" in done.stdout
        said, _ = first.communicate(timeout=300)
        assert first.returncode != 0
        assert "was not deployed (aborted): aborted by ann: test" in said
    finally:
        kill(first)
    end = line.newest().end()
    assert end is not None
    assert end.outcome == "aborted"


def test_the_code_package_imports_in_a_clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On AWS Batch nothing but the code package is there: library, device code and templates must be in it."""
    use_datastore(tmp_path, monkeypatch)
    done = subprocess.run(
        [sys.executable, str(FLOW), "package", "save", str(tmp_path / "package.tgz")],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    extracted = tmp_path / "extracted"
    with tarfile.open(tmp_path / "package.tgz") as archive:
        archive.extractall(extracted, filter="data")
    code = (
        "import inspection.deploy_path.reporting, inspection.deploy_path.rolling, edge, sys;"
        "from inspection.deploy_path.publishing import build_components;"
        "from inspection.fleet import recipes;"
        "from inspection.fleet.components import build;"
        "assert recipes.script('model') and (build.EDGE / 'locks').is_dir();"
        "assert 'torch' not in sys.modules;"
        "print(inspection.deploy_path.__file__, edge.__file__)"
    )
    path = sysconfig.get_path("purelib")
    # -S leaves out the editable install of this checkout: only the packages themselves come from the environment.
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.append({path!r}); {code}"],
        capture_output=True,
        text=True,
        cwd=extracted,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(extracted)},
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(str(extracted) in name for name in done.stdout.split())
