"""A fleet in memory whose devices do what a test tells them, and a clock that runs only when somebody waits."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from inspection.errors import RolloutError, StorageError
from inspection.fleet.interface import (
    ComponentSetting,
    ComponentVersion,
    Deployment,
    DeviceStatus,
    PublishedVersion,
)
from inspection.fleet.reports import health_key
from inspection.storage import Data, ObjectExistsError, Storage, check_key

LINE = "dots"
MODEL = "lineside.Model.dots"
CHALLENGER = "lineside.Challenger.dots"
INSPECTOR = "lineside.Inspector.dots"
RUNTIME = "lineside.Runtime"
OTHER = "com.example.Other"  # somebody else's

Judge = Callable[[str, int], str]  # digest of a package and number of a part to a verdict


def digest_of(version: int) -> str:
    """Digest of the contract of a model."""
    return f"{version:064x}"


def mostly_pass(digest: str, part: int) -> str:
    """What every model here says: one part in fifty fails, one is for review."""
    return {0: "fail", 1: "review"}.get(part % 50, "pass")


@dataclass
class FakeDevice:
    """A device and what goes wrong with it."""

    thing: str
    group: str
    online: bool = True
    parts_per_tick: int = 10
    judge: Judge = mostly_pass
    fails: dict[str, str] = field(default_factory=dict)  # "component version" to the error of its deployment
    refuses: dict[str, str] = field(default_factory=dict)  # digest to what its inspector says of the package
    crashes: set[str] = field(default_factory=set)  # digests with which its inspector does not stay up
    reports: bool = True  # whether its health messages arrive
    clock_off_s: float = 0.0
    faults: dict[str, str] = field(default_factory=dict)
    # what it does
    installed: dict[str, str] = field(default_factory=dict)
    deployment: str = ""
    state: str = "succeeded"
    error: str = ""
    seen_at: float | None = None
    serving: str | None = None
    deployed: str | None = None
    part: int = 0
    figures: dict[str, int] = field(default_factory=dict)
    shadow: dict[str, Any] | None = None

    def receive(self, deployment: Deployment) -> None:
        """Take a deployment, or fail with it as a device would."""
        self.deployment = deployment.id
        for name, version in deployment.components.items():
            if error := self.fails.get(f"{name} {version}"):
                self.state, self.error = "failed", error
                return
        self.installed = dict(deployment.components)
        self.state, self.error = "succeeded", ""
        self._open_packages()

    def _open_packages(self) -> None:
        model, challenger = self.installed.get(MODEL), self.installed.get(CHALLENGER)
        self.deployed = None if model is None else digest_of(int(model.split(".")[0]))
        if self.deployed is not None and self.deployed not in self.refuses and self.serving != self.deployed:
            self.serving, self.figures = self.deployed, {}
        if model is None:
            self.serving = None
        beside = "" if challenger is None else digest_of(int(challenger.split(".")[0]))
        if not beside:
            self.shadow = None
        elif self.shadow is None or (self.shadow["package"], self.shadow["champion"]) != (beside, self.serving):
            state = "refused" if beside in self.refuses else "running"
            self.shadow = {
                "package": beside,
                "version": str(challenger),
                "champion": self.serving,
                "state": state,
                "message": self.refuses.get(beside, ""),
                "pairs": {},
                "skipped": 0,
            }

    def inspect(self) -> None:
        """Judge the next parts."""
        if self.serving is None or self.serving in self.crashes:
            return
        for _ in range(self.parts_per_tick):
            self.part += 1
            verdict = self.judge(self.serving, self.part)
            self.figures[verdict] = self.figures.get(verdict, 0) + 1
            if self.shadow is not None and self.shadow["state"] == "running":
                pair = f"{verdict}/{self.judge(self.shadow['package'], self.part)}"
                self.shadow["pairs"][pair] = self.shadow["pairs"].get(pair, 0) + 1

    def health(self, now: float) -> dict[str, Any]:
        """Its health message."""
        faults = dict(self.faults)
        if self.deployed in self.refuses:
            faults["model"] = f"the deployed package is refused: {self.refuses[self.deployed]}"
        return {
            "schema": "1.0",
            "thing": self.thing,
            "line": LINE,
            "at": round(now + self.clock_off_s, 3),
            "clock_synced": True,
            "state": "degraded" if faults else "ok",
            "up_s": 60,
            "versions": {},
            "package": {
                "serving": self.serving,
                "deployed": self.deployed,
                "version": "v",
                "self_test": "passed: 8 images" if self.serving else "not run",
            },
            "components": {name: {"ok": False, "message": message} for name, message in faults.items()},
            "figures": {"package": self.serving, "since": None, **self.figures} if self.serving else None,
            "shadow": self.shadow,
        }

    def states(self) -> dict[str, str]:
        """States of its components."""
        states = dict.fromkeys(self.installed, "FINISHED")
        if INSPECTOR in states:
            states[INSPECTOR] = "BROKEN" if self.serving in self.crashes else "RUNNING"
        return states


class MemoryStorage:
    """A storage in memory; it implements `inspection.storage.Storage`, but for local files."""

    def __init__(self) -> None:
        self.root = "memory"
        self.objects: dict[str, bytes] = {}

    def exists(self, key: str) -> bool:
        """Whether the object is there."""
        return check_key(key) in self.objects

    def read(self, key: str) -> bytes:
        """The object's content."""
        if check_key(key) not in self.objects:
            raise StorageError(f"{key}: does not exist")
        return self.objects[key]

    def write(self, key: str, data: Data) -> None:
        """Write the object."""
        self.objects[check_key(key)] = bytes(data)

    def create(self, key: str, data: Data) -> None:
        """Write the object if it is not there."""
        if check_key(key) in self.objects:
            raise ObjectExistsError(f"{key}: is there already")
        self.objects[key] = bytes(data)

    def upload(self, path: Path, key: str) -> None:
        """Write a file's content as the object."""
        self.write(key, path.read_bytes())

    def local_copy(self, key: str) -> Path:
        """There are no files here."""
        raise StorageError(f"{key}: is in memory only")

    def list(self, prefix: str) -> list[str]:
        """Keys that begin so, sorted."""
        return sorted(key for key in self.objects if key.startswith(prefix))

    def sizes(self, prefix: str) -> dict[str, int]:
        """Keys that begin so, with their sizes."""
        return {key: len(self.objects[key]) for key in self.list(prefix)}

    def free_bytes(self) -> int | None:
        """Enough."""
        return None


class FakeFleet:
    """A fleet in memory; it implements `inspection.fleet.interface.Fleet`.

    Args:
        storage: where the devices' health messages go.
        groups: thing group to things.
        now: unix time at the start.
    """

    def __init__(self, storage: Storage, groups: Mapping[str, Sequence[str]], now: float = 1_800_000_000.0) -> None:
        self.storage, self.now = storage, now
        self.groups = {group: list(things) for group, things in groups.items()}
        self.devices = {thing: FakeDevice(thing, group) for group, things in groups.items() for thing in things}
        self.published: dict[str, dict[str, PublishedVersion]] = {}
        self.newest_deployment: dict[str, Deployment] = {}
        self.made: list[tuple[str, dict[str, str]]] = []  # every deployment that was made: group, components
        self._number = 0
        self.at: list[Callable[[], None]] = []  # called at every tick

    # Time

    def clock(self) -> float:
        """Unix time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass: devices take deployments, judge parts and report."""
        self.now += seconds
        for action in list(self.at):
            action()
        self.tick()

    def tick(self) -> None:
        """What devices do between two looks."""
        for device in self.devices.values():
            if not device.online:
                continue
            device.seen_at = self.now
            deployment = self.newest_deployment.get(device.group)
            if deployment is not None and deployment.active and device.deployment != deployment.id:
                device.receive(deployment)
            device.inspect()
            if device.reports:
                self.storage.write(health_key(LINE, device.thing), json.dumps(device.health(self.now)).encode())

    # The interface

    def check(self, groups: Sequence[str]) -> None:
        """Groups must be there."""
        for group in groups:
            self.members(group)

    def members(self, group: str) -> tuple[str, ...]:
        """Things of a group."""
        if group not in self.groups:
            raise RolloutError(f"thing group {group}: want it, found none; create it or correct [fleet]")
        return tuple(sorted(self.groups[group]))

    def newest(self, name: str) -> PublishedVersion | None:
        """The highest version."""
        return self.versions(name)[-1] if self.versions(name) else None

    def find(self, name: str, version: str) -> PublishedVersion | None:
        """One version."""
        return self.published.get(name, {}).get(version)

    def versions(self, name: str) -> tuple[PublishedVersion, ...]:
        """All versions, lowest first."""
        found = self.published.get(name, {})
        return tuple(found[version] for version in sorted(found, key=lambda text: [int(n) for n in text.split(".")]))

    def artifact_uri(self, name: str, version: str, file: str) -> str:
        """Where an artifact is."""
        return f"s3://bucket/components/{name}/{version}/{file}"

    def publish(self, component: ComponentVersion) -> PublishedVersion:
        """Keep a version."""
        found = self.find(component.name, component.version)
        if found is not None and found.digest != component.digest:
            raise RolloutError(f"{component.name} {component.version} is taken by other content")
        made = PublishedVersion(component.name, component.version, component.digest, dict(component.tags))
        return self.published.setdefault(component.name, {}).setdefault(component.version, made)

    def deployed(self, group: str) -> Deployment | None:
        """The newest deployment."""
        self.members(group)
        return self.newest_deployment.get(group)

    def deploy(
        self,
        group: str,
        wanted: Mapping[str, ComponentSetting | None],
        label: str,
        everywhere_at_once: bool = False,
    ) -> Deployment:
        """Give a group our components."""
        self.members(group)
        newest = self.newest_deployment.get(group)
        components = dict(newest.components) if newest else {}
        for name, setting in wanted.items():
            components.pop(name, None)
            if setting is not None:
                if self.published and self.find(name, setting.version) is None:
                    raise RolloutError(f"{name} {setting.version} was never published")
                components[name] = setting.version
        if newest is not None and newest.active and newest.components == components:
            return newest
        self.made.append((group, components))
        self._number += 1
        made = Deployment(f"{group}-{self._number}", group, components, True)
        self.newest_deployment[group] = made
        return made

    def cancel(self, group: str) -> None:
        """Stop the newest deployment."""
        if group in self.newest_deployment:
            self.newest_deployment[group] = replace(self.newest_deployment[group], active=False)

    def status(self, group: str) -> tuple[DeviceStatus, ...]:
        """What became of it on each device."""
        newest = self.newest_deployment.get(group)
        found = []
        for thing in self.members(group):
            device = self.devices[thing]
            state = device.state
            if not device.online:
                state = "offline"
            elif newest is not None and device.deployment != newest.id:
                state = "waiting"
            found.append(
                DeviceStatus(
                    thing=thing,
                    group=group,
                    deployment=device.deployment,
                    state=state,  # type: ignore[arg-type]
                    components=dict(device.installed),
                    states=device.states(),
                    error=device.error,
                    seen_at=device.seen_at,
                )
            )
        return tuple(found)


def give(fleet: FakeFleet, version: int, groups: Sequence[str] | None = None) -> None:
    """Let groups have a model already, as if an earlier rollout had brought it; devices serve it for a while."""
    for group in fleet.groups if groups is None else groups:
        components = {MODEL: f"{version}.0.0", INSPECTOR: "1.0.0", RUNTIME: "1.0.0", OTHER: "2.0.0"}
        fleet.deploy(group, {name: ComponentSetting(found) for name, found in components.items()}, "before")
    fleet.made.clear()
    for _ in range(3):
        fleet.sleep(30.0)
