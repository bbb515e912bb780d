"""Devices on this machine as a fleet: the cloud is a folder, each device a process beside it."""

import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence

from inspection.errors import RolloutError
from inspection.fleet.interface import (
    ComponentSetting,
    ComponentVersion,
    Deployment,
    DeploymentState,
    DeviceStatus,
    PublishedVersion,
)
from inspection.fleet.local.cloud import PROVIDED, Carried, Cloud, Revision, artifact_uri
from inspection.fleet.local.devices import CLOUD, device_folder
from inspection.fleet.local.documents import GROUP, check_name, read_document
from inspection.fleet.local.holding import holder
from inspection.settings import Settings

log = logging.getLogger(__name__)

SILENT_S = 60.0  # a nucleus that has told nothing for so long counts as offline, though its process is there
_TRIES = 50


class LocalFleet:
    """The devices of a line on this machine; see `inspection.fleet.interface.Fleet`.

    It starts no device: `inspection.fleet.local.devices` does.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cloud = Cloud(settings.local_fleet_folder.absolute() / CLOUD)

    def check(self, groups: Sequence[str]) -> None:
        """Refuse groups that are missing, empty or share devices, and a folder that cannot be written."""
        if sys.platform != "linux":
            raise RolloutError(f'[fleet] backend = "local": want Linux, found {sys.platform}; devices need its /proc')
        whose: dict[str, str] = {}
        for group in groups:
            for thing in self.members(group):
                if thing in whose:
                    raise RolloutError(
                        f"[fleet.local] groups: want each device in one group only, found {thing} in {whose[thing]} "
                        f"and {group}"
                    )
                whose[thing] = group
                device_folder(self._settings, thing)
        folder = self._settings.local_fleet_folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RolloutError(
                f"{folder}: cannot make the folder of the devices ({error}); set [fleet.local] folder"
            ) from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise RolloutError(f"{folder}: cannot be written; set [fleet.local] folder to one that can")

    def members(self, group: str) -> tuple[str, ...]:
        """Things of a group, sorted."""
        known = self._settings.fleet.local.groups
        if group not in known or not known[group]:
            found = ", ".join(sorted(name for name, things in known.items() if things)) or "none"
            raise RolloutError(
                f"group {group}: want a thing group with devices, found {found}; add it to [fleet.local] groups, or "
                "correct [fleet] canary_group and wave_groups"
            )
        check_name(GROUP, "[fleet.local] groups: name of a group", group)
        return tuple(sorted(set(known[group])))

    def newest(self, name: str) -> PublishedVersion | None:
        """The highest version of a component; None when there is none."""
        versions = self._cloud.versions(name)
        return versions[-1] if versions else None

    def find(self, name: str, version: str) -> PublishedVersion | None:
        """One version of a component; None when there is none."""
        return self._cloud.find(name, version)

    def versions(self, name: str) -> tuple[PublishedVersion, ...]:
        """All versions of a component, lowest first."""
        return self._cloud.versions(name)

    def artifact_uri(self, name: str, version: str, file: str) -> str:
        """The URI that a recipe names an artifact by."""
        return artifact_uri(name, version, file)

    def publish(self, component: ComponentVersion) -> PublishedVersion:
        """Store a component version; the same again is what is there."""
        return self._cloud.publish(component)

    def deployed(self, group: str) -> Deployment | None:
        """The group's newest deployment; None when it never had one."""
        self.members(group)
        newest = self._cloud.newest(group)
        return None if newest is None else _deployment(newest)

    def deploy(
        self,
        group: str,
        wanted: Mapping[str, ComponentSetting | None],
        label: str,
        everywhere_at_once: bool = False,
    ) -> Deployment:
        """Give a group our components; None removes one. All others stay as they are.

        Devices on this machine always take a deployment at once, each as soon as it sees it.
        """
        self.members(group)
        for name, setting in wanted.items():
            if setting is not None and not name.startswith(PROVIDED) and self.find(name, setting.version) is None:
                raise RolloutError(
                    f"{name}: want version {setting.version}, found none; publish it before deploying it"
                )
        for _ in range(_TRIES):
            newest = self._cloud.newest(group)
            before = {} if newest is None else newest.components
            components = _changed(before, wanted)
            if newest is not None and not newest.cancelled and components == before:
                return _deployment(newest)
            made = self._cloud.add(group, components, label, newest)
            if made is not None:
                return _deployment(made)
        raise RolloutError(f"group {group}: others deploy to it all the time; find out who, and try again")

    def cancel(self, group: str) -> None:
        """Keep the group's newest deployment from devices that it has not reached."""
        self.members(group)
        newest = self._cloud.newest(group)
        if newest is not None and not newest.cancelled:
            self._cloud.cancel(newest)

    def status(self, group: str) -> tuple[DeviceStatus, ...]:
        """What became of the group's newest deployment, for every member, sorted by thing."""
        newest = self._cloud.newest(group) if self.members(group) else None
        return tuple(self._status(thing, group, newest) for thing in self.members(group))

    def set_online(self, thing: str, online: bool) -> None:
        """Take a device off the network, or bring it back."""
        folder = device_folder(self._settings, thing)
        if online:
            folder.offline.unlink(missing_ok=True)
        else:
            folder.root.mkdir(parents=True, exist_ok=True)
            folder.offline.touch()
        log.info("event=network_set thing=%s online=%s", thing, online)

    def _status(self, thing: str, group: str, newest: Revision | None) -> DeviceStatus:
        folder = device_folder(self._settings, thing)
        told = read_document(folder.status) or {}
        seen_at = told.get("at")
        silent = seen_at is None or time.time() - seen_at > SILENT_S
        away = silent or folder.offline.exists() or holder(folder) is None
        taken = told.get("groups", {}).get(group)
        reached = newest is not None and taken is not None and taken["id"] == newest.id
        state: DeploymentState = "offline" if away else "waiting"
        if reached and not (away and taken["state"] == "in-progress"):
            state = taken["state"]
        states = told.get("states", {})
        broken = [words for name, words in told.get("errors", {}).items() if states.get(name) == "BROKEN"]
        return DeviceStatus(
            thing=thing,
            group=group,
            deployment=taken["id"] if taken is not None else "",
            state=state,
            components=told.get("components", {}),
            states=states,
            error=(taken["error"] if reached else "") or "; ".join(broken),
            seen_at=seen_at,
        )


def _changed(before: Mapping[str, Carried], wanted: Mapping[str, ComponentSetting | None]) -> dict[str, Carried]:
    components = dict(before)
    for name, setting in wanted.items():
        if setting is None:
            components.pop(name, None)
            continue
        was = before.get(name, Carried(setting.version))
        components[name] = Carried(
            setting.version,
            was.run_with if setting.run_with is None else dict(setting.run_with),
            was.merge if setting.merge is None else dict(setting.merge),
        )
    return components


def _deployment(revision: Revision) -> Deployment:
    versions = {name: carried.version for name, carried in revision.components.items()}
    return Deployment(revision.id, revision.group, versions, not revision.cancelled)
