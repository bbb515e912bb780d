"""What is built, on a device: unpacked and run as a nucleus does, up to verdicts of the real inspector."""

import contextlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from building import register_model
from inspecting import BAD, GOOD, picture, wait_until
from ipc_double import IpcDouble
from memory_fleet import MemoryFleet
from tiny_wheels import HERE, tiny_wheels

from inspection.fleet.components.built import Built
from inspection.fleet.components.publishing import publish_all
from inspection.registry.local import LocalRegistry

pytest_plugins = ["building_fixtures"]
NAMES = {"runtime": "lineside.Runtime", "model": "lineside.Model.tiny", "inspector": "lineside.Inspector.tiny"}
CHALLENGER = "lineside.Challenger.tiny"
HEALTH = "lineside/tiny/thing-1/health"
RESULTS = "lineside/tiny/thing-1/results"


class Nucleus:
    """Unpacks components below a root and runs the scripts of their recipes; without a network."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {
            **os.environ,
            "PIP_INDEX_URL": "http://127.0.0.1:1/",
            "http_proxy": "http://127.0.0.1:1/",
            "PATH": f"{Path(sys.executable).resolve().parent}:{os.environ['PATH']}",
        }

    def unpack(self, fleet: MemoryFleet, name: str) -> dict[str, Any]:
        """Fetch the newest version of a component; returns its manifest."""
        newest = fleet.newest(name)
        assert newest is not None
        component = fleet.published[name][newest.version]
        unpacked = self.root / "packages" / "artifacts-unarchived" / name / newest.version
        for file, path in component.artifacts.items():
            with zipfile.ZipFile(path) as archive:
                archive.extractall(unpacked / Path(file).stem)
        (self.root / "work" / name).mkdir(parents=True, exist_ok=True)
        manifest: dict[str, Any] = component.recipe["Manifests"][0]
        values = {
            "{artifacts:decompressedPath}": str(unpacked),
            "{work:path}": str(self.root / "work" / name),
            "{kernel:rootPath}": str(self.root),
        }
        text = json.dumps(manifest["Lifecycle"])
        for variable, value in values.items():
            text = text.replace(variable, value)
        return {**json.loads(text), "configuration": component.recipe.get("ComponentConfiguration", {})}

    def install(self, fleet: MemoryFleet, name: str) -> None:
        """Run a component's installation."""
        script = self.unpack(fleet, name)["install"]["Script"]
        done = subprocess.run(
            ["sh", "-c", script], env=self.environment, cwd=self.root / "work" / name, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    @contextlib.contextmanager
    def running(self, fleet: MemoryFleet, double: IpcDouble, name: str) -> Iterator[subprocess.Popen[str]]:
        """A component's process, ended at the end."""
        script = self.unpack(fleet, name)["run"]["Script"]
        log = self.root / f"{name}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                ["sh", "-c", script], stdout=output, stderr=output, env={**self.environment, **double.environment()}
            )
            try:
                yield process
            finally:
                process.terminate()
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                print(log.read_text())


def newest_health(double: IpcDouble) -> dict[str, Any]:
    messages = [json.loads(payload) for topic, payload in list(double.published) if topic == HEALTH]
    return messages[-1] if messages else {}


@pytest.mark.slow
def test_components_become_an_inspector_that_serves_the_deployed_model_and_compares_the_challenger(
    build: Callable[..., Built], registry: LocalRegistry, tmp_path: Path
) -> None:
    wheels = tiny_wheels(tmp_path / "linked", site=HERE)
    parts = tmp_path / "parts"
    parts.mkdir()
    for number in range(6):
        (parts / f"part-{number}.png").write_bytes(picture(number, BAD if number % 2 else GOOD))
    given = {
        "deadline_ms": 60000,
        "health_every_s": 1,
        "source": {"uri": f"folder:{parts}", "folder": {"interval_s": 0.2, "settle_ms": 0, "after": "keep"}},
        "upload": {"to": ""},
        "sender": {"batch_within_s": 0.2},
    }
    fleet = MemoryFleet()
    champion = build(wheels=str(wheels), inspector=given)
    publish_all(fleet, champion)
    nucleus = Nucleus(tmp_path / "root")
    for name in (NAMES["runtime"], NAMES["model"]):
        nucleus.install(fleet, name)
    challenger = build(
        register_model(registry, tmp_path / "second", "float32"),
        scratch="second-scratch",
        wheels=str(wheels),
        inspector=given,
    )
    publish_all(fleet, challenger)
    nucleus.install(fleet, CHALLENGER)
    recipe = fleet.published[NAMES["inspector"]]["1.0.0"].recipe
    configuration = dict(recipe["ComponentConfiguration"]["DefaultConfiguration"])
    with IpcDouble(tmp_path, configuration) as double, nucleus.running(fleet, double, NAMES["inspector"]) as process:

        def settled() -> bool:
            assert process.poll() is None
            health = newest_health(double)
            return (health.get("shadow") or {}).get("package") == challenger.digest and sum(
                health["figures"][verdict] for verdict in ("pass", "fail", "review", "error")
            ) == 6

        wait_until(settled, 180)
        health = newest_health(double)
        assert health["package"]["serving"] == health["package"]["deployed"] == champion.digest
        assert health["figures"]["package"] == champion.digest
        assert health["line"] == "tiny"
        assert any(topic == RESULTS for topic, _ in double.published)


def test_a_model_that_was_tampered_with_is_not_installed(build: Callable[..., Built], tmp_path: Path) -> None:
    fleet = MemoryFleet()
    built = build()
    spoilt = tmp_path / "model.zip"
    with zipfile.ZipFile(built.model.artifacts["model.zip"]) as source, zipfile.ZipFile(spoilt, "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            target.writestr(entry, data[::-1] if entry.filename == "package/model.tflite" else data)
    publish_all(fleet, replace(built, model=replace(built.model, artifacts={"model.zip": spoilt})))
    nucleus = Nucleus(tmp_path / "root")
    with pytest.raises(AssertionError, match="event=model_refused"):
        nucleus.install(fleet, NAMES["model"])
    assert not (nucleus.root / "work" / NAMES["model"] / "current").exists()
