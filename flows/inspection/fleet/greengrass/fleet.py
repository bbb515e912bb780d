"""A fleet of AWS IoT Greengrass v2 core devices, by boto3."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from inspection.errors import RolloutError
from inspection.fleet.components.stock import MAJOR, stock_components
from inspection.fleet.greengrass.artifacts import ArtifactStore
from inspection.fleet.greengrass.checks import check_groups, our_components
from inspection.fleet.greengrass.clients import Clients
from inspection.fleet.greengrass.components import ComponentStore
from inspection.fleet.greengrass.deployments import DeploymentStore, as_deployment
from inspection.fleet.greengrass.devices import CoreDevices
from inspection.fleet.greengrass.groups import ThingGroups
from inspection.fleet.greengrass.revision import Pace, next_revision
from inspection.fleet.interface import (
    ComponentSetting,
    ComponentVersion,
    Deployment,
    DeviceStatus,
    PublishedVersion,
)
from inspection.fleet.recipes import component_names
from inspection.settings import Settings


class GreengrassFleet:
    """The fleet that a line's settings name, see `inspection.fleet.interface.Fleet`.

    Args:
        settings: `[fleet]`, the line's storage and `[registry] kms_key`.
        clock: unix time; tests give their own.
        sleep: seconds; tests give their own.

    Raises:
        RolloutError: no region is set, or the line's storage is not in S3.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._stock_versions: dict[str, str] = {}  # one version for all groups, also if AWS publishes another meanwhile
        self._clients = Clients(settings)
        self._artifacts = ArtifactStore(self._clients, settings.storage_root, settings.registry.kms_key)
        self._components = ComponentStore(self._clients, self._artifacts, sleep)
        self._groups = ThingGroups(self._clients)
        self._deployments = DeploymentStore(self._clients, sleep)
        self._devices = CoreDevices(self._clients, our_components(settings), settings.fleet.devices_per_minute, clock)

    def check(self, groups: Sequence[str]) -> None:
        """Refuse what could not work, before anything is changed."""
        self._artifacts.check_region()
        check_groups(self._settings, self._clients, self._groups, self._devices, self._deployments, groups)

    def members(self, group: str) -> tuple[str, ...]:
        """Things of a group, sorted."""
        return self._groups.members(group)

    def newest(self, name: str) -> PublishedVersion | None:
        """The highest version of a component; None when there is none."""
        return self._components.newest(name)

    def find(self, name: str, version: str) -> PublishedVersion | None:
        """One version of a component; None when there is none."""
        return self._components.find(name, version)

    def versions(self, name: str) -> tuple[PublishedVersion, ...]:
        """All versions of a component, lowest first."""
        return self._components.versions(name)

    def artifact_uri(self, name: str, version: str, file: str) -> str:
        """The `s3://` URI that a recipe names an artifact by."""
        return self._artifacts.uri(name, version, file)

    def publish(self, component: ComponentVersion) -> PublishedVersion:
        """Store artifacts and recipe and wait until the version can be deployed."""
        return self._components.publish(component)

    def deployed(self, group: str) -> Deployment | None:
        """The group's newest deployment; None when it never had one."""
        found = self._deployments.newest(self._groups.arn(group))
        return as_deployment(group, found) if found is not None else None

    def deploy(
        self,
        group: str,
        wanted: Mapping[str, ComponentSetting | None],
        label: str,
        everywhere_at_once: bool = False,
    ) -> Deployment:
        """Give a group our components; None removes one. All others stay as they are."""
        target = self._groups.arn(group)
        for name, setting in sorted(wanted.items()):
            if setting is not None and self._components.find(name, setting.version) is None:
                raise RolloutError(
                    f"{name}: want version {setting.version} in {self._clients.region}, found none that can be "
                    "deployed; publish it first"
                )
        pace = Pace(len(self._groups.members(group)), everywhere_at_once)

        def revise(base: Mapping[str, Any] | None) -> dict[str, Any]:
            stock = self._stock(base) if any(wanted.values()) else {}
            return next_revision(base, wanted, stock, self._settings.fleet, self._settings.line.name, label, pace)

        return as_deployment(group, self._deployments.revise(target, revise))

    def cancel(self, group: str) -> None:
        """Stop the group's newest deployment where it has not arrived; without one, nothing."""
        self._deployments.cancel(self._groups.arn(group))

    def status(self, group: str) -> tuple[DeviceStatus, ...]:
        """What became of the group's newest deployment, for every member, sorted by thing."""
        target = self._groups.arn(group)
        return self._devices.status(target, self._groups.members(group), self._deployments.newest(target))

    def _stock(self, base: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
        """Entries of the components of AWS that the group does not have yet, each with its newest version."""
        there = (base or {}).get("components", {})
        inspector = component_names(self._settings.line.name, self._settings.fleet.component_prefix).inspector
        entries = {}
        for name, configuration in stock_components(self._settings.fleet.nucleus, inspector).items():
            if name not in there:
                entry: dict[str, Any] = {"componentVersion": self._newest_stock(name)}
                if configuration:
                    entry["configurationUpdate"] = {"merge": json.dumps(configuration, sort_keys=True)}
                entries[name] = entry
        return entries

    def _newest_stock(self, name: str) -> str:
        if name in self._stock_versions:
            return self._stock_versions[name]
        for number in self._components.numbers(name):
            if number.startswith(f"{MAJOR}."):
                self._stock_versions[name] = number
                return number
        raise RolloutError(
            f"{name}: want a version {MAJOR}.x of this component of AWS in {self._clients.region}, found none; "
            "is [fleet] region one that has AWS IoT Greengrass v2?"
        )
