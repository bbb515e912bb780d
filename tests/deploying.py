"""Deploys as the flow does, without Metaflow: its steps one after the other, in this process, on real local devices."""

import contextlib
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from local_fleet import GOOD, Rig, fleet_of, picture, ready_runtime

from inspection.deploy_path import choosing, publishing, reporting, rolling
from inspection.fleet.components import build
from inspection.fleet.local import devices
from inspection.fleet.rollout import rollout
from inspection.fleet.rollout.timeline import Outcome
from inspection.settings import Settings

FEW: dict[str, Any] = {"shadow_parts": 30, "canary_parts": 5, "wave_parts": 2}
PATIENT: dict[str, Any] = {"canary_timeout_minutes": 5.0, "wave_timeout_minutes": 5.0}


class Card:
    """Takes what a step shows."""

    def __init__(self) -> None:
        self.components: list[Any] = []
        self.refreshed = 0

    def clear(self) -> None:
        self.components = []

    def extend(self, components: Any) -> None:
        self.components += list(components)

    def refresh(self) -> None:
        self.refreshed += 1


class Deploying:
    """A line, and the flow's steps as functions."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.card = Card()
        self.published: publishing.Published | None = None
        self.said = ""

    def run(self, model: str = "", number: int = 1, rollback: bool = False, why: str = "for a test") -> Outcome:
        """All steps of one run of the flow, but that a model which is taken back does not raise."""
        run = flow_run(number)
        choice = choosing.choose(self.settings, choosing.Request(model, rollback, "ann", why), run)
        self.published = publishing.publish(self.settings, choice)
        show = reporting.watch(self.card, self.settings, choice, self.published)
        rolling.run_canary(self.settings, choice, self.published, run, show)
        outcome = rolling.run_waves(self.settings, choice, self.published, run, show)
        reporting.show_outcome(self.card, self.settings, choice, self.published)
        self.said = reporting.summarise(self.settings, choice, outcome, str(number))
        return outcome

    def choose(self, model: str = "", number: int = 1, rollback: bool = False) -> choosing.Choice:
        """The first step alone."""
        request = choosing.Request(model, rollback, "ann", "for a test")
        return choosing.choose(self.settings, request, flow_run(number))


def flow_run(number: int, origin: int | None = None) -> Any:
    """What Metaflow's `current` says of a run."""
    return SimpleNamespace(
        flow_name="DeployFlow", run_id=str(number), origin_run_id=None if origin is None else str(origin)
    )


def parts_folder(folder: Path, name: str = GOOD, count: int = 40) -> Path:
    """Pictures of parts that devices go round in."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{Path(name).stem}-{number:02}.png").write_bytes(picture(number, name))
    return folder


def quick_build(settings: Settings, registry: Any, version: int, scratch: Path, cache: Path, **more: Any) -> Any:
    """`build_components` with a runtime that is there already, so that no wheels are fetched and installed."""
    real = build.build_runtime
    build.build_runtime = lambda targets, extras, scratch, *rest: ready_runtime(scratch)  # type: ignore[assignment]
    try:
        return build.build_components(settings, registry, version, scratch, cache, **more)
    finally:
        build.build_runtime = real


@contextlib.contextmanager
def plant(folder: Path, monkeypatch: pytest.MonkeyPatch, *kinds: str, **fleet: Any) -> Iterator[tuple[Deploying, Rig]]:
    """Three devices that see parts, a registry with these packages approved, and the flow's steps.

    Args:
        folder: for everything.
        monkeypatch: of the test.
        kinds: of `local_fleet.tiny_package`; the first is version 1.
        fleet: into `[fleet]`.
    """
    local = {"parts": str(parts_folder(folder / "parts")), "parts_per_minute": 600.0, **fleet.pop("local", {})}
    with fleet_of(folder, in_process=True, **{**FEW, **PATIENT, "local": local, **fleet}) as rig:
        # Their nuclei run in this process; the flow would start them anew.
        monkeypatch.setattr(devices, "start", lambda settings, things=(): ())
        monkeypatch.setattr(publishing, "build_components", quick_build)
        monkeypatch.setattr(rollout, "GRACE_S", 1.0)
        rig.register(*kinds)
        yield Deploying(rig.settings), rig


def broken_inspector(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the inspector that is built ends at once with status 1."""
    broken = folder / "edge"
    shutil.copytree(build.EDGE, broken, ignore=shutil.ignore_patterns("__pycache__"))
    (broken / "__main__.py").write_text("raise SystemExit('this inspector is broken')\n", encoding="utf-8")
    monkeypatch.setattr(publishing, "build_components", partial(quick_build, edge_folder=broken))
