"""Rollouts on a fleet in memory: what goes where, what stops them, and what is left behind."""

from collections.abc import Mapping
from typing import Any

import pytest
from fake_fleet import CHALLENGER, INSPECTOR, LINE, MODEL, OTHER, RUNTIME, FakeFleet, MemoryStorage, digest_of, give

from inspection.errors import RegistryError
from inspection.fleet.interface import ComponentSetting
from inspection.fleet.rollout.opening import open_or_continue
from inspection.fleet.rollout.owners import Owner
from inspection.fleet.rollout.planning import Release, make_plan
from inspection.fleet.rollout.returning import roll_back_to_previous
from inspection.fleet.rollout.rollout import Rollout
from inspection.fleet.rollout.timeline import Outcome, View
from inspection.settings import FleetSettings, LineSettings, Settings

TIMES = {"canary_timeout_minutes": 30.0, "wave_timeout_minutes": 30.0}
GROUPS = {"canary": ["device-1"], "fleet": ["device-2", "device-3"]}


class Statuses:
    """A registry that knows statuses only."""

    def __init__(self, statuses: Mapping[int, str]) -> None:
        self.statuses = dict(statuses)
        self.reasons: dict[int, str] = {}
        self.calls = 0

    def get(self, line: str, version: int) -> Any:
        if version not in self.statuses:
            raise RegistryError(f"line {line}: no version {version}")
        return type("Version", (), {"version": version, "status": self.statuses[version], "archive_sha256": "ab" * 32})

    def list(self, line: str) -> tuple[Any, ...]:
        return tuple(self.get(line, version) for version in sorted(self.statuses))

    def roll_back(self, line: str, version: int, by: str, why: str) -> None:
        assert why.isprintable()
        assert self.statuses[version] == "approved"
        self.statuses[version] = "rolled-back"
        self.reasons[version] = why
        self.calls += 1


class Plant:
    """A line with a fleet, a registry and settings, and what a test does with them."""

    def __init__(self, champion: int | None = 6, groups: Mapping[str, Any] = GROUPS, **options: Any) -> None:
        self.storage = MemoryStorage()
        self.fleet = FakeFleet(self.storage, groups)
        waves = [group for group in groups if group != "canary"]
        self.settings = Settings(
            line=LineSettings(name=LINE),
            fleet=FleetSettings(**{"wave_groups": waves, "shadow_parts": 200, "canary_parts": 20, **TIMES, **options}),
        )
        self.registry = Statuses({5: "approved", 6: "approved", 7: "approved"})
        self.views: list[View] = []
        if champion is not None:
            give(self.fleet, champion)

    def release(self, version: int = 7, inspector: str = "1.1.0") -> Release:
        components = {MODEL: f"{version}.0.0", INSPECTOR: inspector, RUNTIME: "1.0.0"}
        return Release(
            model_version=version,
            archive_sha256="ab" * 32,
            digest=digest_of(version),
            model=MODEL,
            challenger=CHALLENGER,
            components={name: ComponentSetting(found) for name, found in components.items()},
            challenger_version=f"{version}.0.0",
        )

    def open(self, version: int = 7, run: str = "DeployFlow/1", inspector: str = "1.1.0") -> Rollout:
        record = open_or_continue(
            self.storage,
            LINE,
            version,
            Owner.here(run),
            lambda: make_plan(self.fleet, self.settings, self.release(version, inspector), digest_of),
            self.settings.fleet.poll_seconds,
            self.fleet.clock,
        )
        return Rollout(
            self.fleet,
            self.storage,
            self.settings,
            record,
            self.registry,  # type: ignore[arg-type]
            clock=self.fleet.clock,
            sleep=self.fleet.sleep,
            on_change=self.views.append,
        )

    def deploy(self, version: int = 7, run: str = "DeployFlow/1") -> Outcome:
        return self.open(version, run).run()

    def models(self) -> dict[str, str | None]:
        """What serves on each device."""
        found = {thing: device.serving for thing, device in sorted(self.fleet.devices.items())}
        return {thing: None if digest is None else str(int(digest, 16)) for thing, digest in found.items()}

    def back(self, run: str = "DeployFlow/9") -> Outcome:
        return roll_back_to_previous(
            self.fleet,
            self.storage,
            self.settings,
            self.registry,  # type: ignore[arg-type]
            Owner.here(run),
            MODEL,
            CHALLENGER,
            digest_of,
            by="ann",
            why="complaints",
            clock=self.fleet.clock,
            sleep=self.fleet.sleep,
        )


@pytest.fixture
def plant() -> Plant:
    return Plant()


def test_a_good_model_goes_from_shadow_to_canary_to_the_fleet(plant: Plant) -> None:
    outcome = plant.deploy()
    assert outcome.outcome == "deployed", outcome.reason
    assert outcome.serving == 7
    assert plant.models() == {"device-1": "7", "device-2": "7", "device-3": "7"}
    assert [(group, CHALLENGER in components, components[MODEL]) for group, components in plant.fleet.made] == [
        ("canary", True, "6.0.0"),
        ("canary", False, "7.0.0"),
        ("fleet", False, "7.0.0"),
    ]
    assert all(components[OTHER] == "2.0.0" for _, components in plant.fleet.made)
    assert plant.registry.statuses[7] == "approved"
