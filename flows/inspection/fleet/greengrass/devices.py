"""What became of a deployment on each core device, as AWS IoT Greengrass knows it.

Devices tell the service of themselves when the nucleus starts, when a deployment arrives, when a component breaks, and
once a day. So their last sign of life may be a day old although all is well.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from inspection.fleet.greengrass.clients import CONNECTIONS, Clients
from inspection.fleet.greengrass.errors import explained, is_missing
from inspection.fleet.greengrass.revision import versions_of
from inspection.fleet.interface import DeploymentState, DeviceStatus

SILENT_AFTER_S = 25 * 3600.0
"""Without a sign of life. Source: AWS IoT Greengrass V2 developer guide, core device status: daily by default."""
ARRIVES_WITHIN_S = 15 * 60.0
"""What a device that is online needs to take up a deployment, beyond the pace of the rollout."""

_STATES: Mapping[str, DeploymentState] = {
    "QUEUED": "waiting",
    "IN_PROGRESS": "in-progress",
    "SUCCEEDED": "succeeded",
    "COMPLETED": "succeeded",
    "FAILED": "failed",
    "TIMED_OUT": "failed",
    "REJECTED": "failed",
    "CANCELED": "failed",
}


@dataclass(frozen=True)
class _Device:
    """What the service knows of a thing."""

    connected: bool  # it is a core device
    seen_at: float | None  # unix time
    execution: Mapping[str, Any] | None  # of the deployment asked about
    components: tuple[Mapping[str, Any], ...]  # installed


class CoreDevices:
    """Core devices of the account and region.

    Args:
        clients: of the fleet.
        ours: names of the line's components: one of them that broke means that the deployment failed.
        per_minute: devices that a deployment is offered to in a minute.
        clock: unix time; tests give their own.
    """

    def __init__(
        self, clients: Clients, ours: Collection[str], per_minute: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._clients = clients
        self._ours = ours
        self._per_minute = per_minute
        self._clock = clock

    def status(
        self, target: str, things: Iterable[str], deployment: Mapping[str, Any] | None
    ) -> tuple[DeviceStatus, ...]:
        """What became of a deployment on each thing, sorted.

        Args:
            target: ARN of the thing group.
            things: in it.
            deployment: its newest, as `GetDeployment` answers; None = it never had one.
        """
        names = sorted(things)
        group = target.rpartition("/")[2]
        number = deployment["deploymentId"] if deployment is not None else ""
        listed = self._in_group(target)
        with ThreadPoolExecutor(min(CONNECTIONS, max(len(names), 1))) as pool:
            devices = list(pool.map(lambda thing: self._device(thing, listed.get(thing), number), names))
        return tuple(
            self._status(group, thing, device, deployment, len(names))
            for thing, device in zip(names, devices, strict=True)
        )

    def describe(self, things: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Things that are core devices, as `GetCoreDevice` answers."""
        names = sorted(things)
        with ThreadPoolExecutor(min(CONNECTIONS, max(len(names), 1))) as pool:
            found = list(pool.map(self._core_device, names))
        return {name: device for name, device in zip(names, found, strict=True) if device is not None}

    def deployments_on(self, thing: str) -> list[dict[str, Any]]:
        """Deployments that the device has or is to have, of all its groups and of itself."""
        return self._pages("list_effective_deployments", "effectiveDeployments", coreDeviceThingName=thing)

    def _in_group(self, target: str) -> dict[str, dict[str, Any]]:
        """Core devices that the service lists for a thing group; those of groups within it may lack."""
        with explained("listing core devices", self._clients.region):
            pages = self._clients.greengrass.get_paginator("list_core_devices").paginate(thingGroupArn=target)
            found = [entry for page in pages for entry in page.get("coreDevices", [])]
        return {entry["coreDeviceThingName"]: entry for entry in found}

    def _device(self, thing: str, listed: Mapping[str, Any] | None, number: str) -> _Device:
        core = listed or self._core_device(thing)
        if core is None:
            return _Device(False, None, None, ())
        seen = core.get("lastStatusUpdateTimestamp")
        executions = [entry for entry in self.deployments_on(thing) if number and entry["deploymentId"] == number]
        installed = self._pages(
            "list_installed_components", "installedComponents", coreDeviceThingName=thing, topologyFilter="ALL"
        )
        return _Device(
            connected=True,
            seen_at=seen.timestamp() if seen is not None else None,
            execution=executions[0] if executions else None,
            components=tuple(installed),
        )

    def _core_device(self, thing: str) -> dict[str, Any] | None:
        with explained(f"asking for the core device {thing}", self._clients.region):
            try:
                answer: dict[str, Any] = self._clients.greengrass.get_core_device(coreDeviceThingName=thing)
            except ClientError as error:
                if is_missing(error):
                    return None
                raise
        return answer

    def _pages(self, operation: str, key: str, **request: Any) -> list[dict[str, Any]]:
        with explained(f"asking for the core device {request['coreDeviceThingName']}", self._clients.region):
            try:
                pages = self._clients.greengrass.get_paginator(operation).paginate(**request)
                return [entry for page in pages for entry in page.get(key, [])]
            except ClientError as error:
                if is_missing(error):
                    return []
                raise

    def _status(
        self, group: str, thing: str, device: _Device, deployment: Mapping[str, Any] | None, things: int
    ) -> DeviceStatus:
        installed = {entry["componentName"]: entry for entry in device.components}
        state, error = self._state(device, deployment, installed, things)
        return DeviceStatus(
            thing=thing,
            group=group,
            deployment=_reached(device, deployment),
            state=state,
            components={name: entry.get("componentVersion", "") for name, entry in sorted(installed.items())},
            states={name: entry.get("lifecycleState", "") for name, entry in sorted(installed.items())},
            error=error,
            seen_at=device.seen_at,
        )

    def _state(
        self,
        device: _Device,
        deployment: Mapping[str, Any] | None,
        installed: Mapping[str, Mapping[str, Any]],
        things: int,
    ) -> tuple[DeploymentState, str]:
        """State, and what went wrong."""
        if not device.connected:
            return "offline", (
                "this thing never connected as a Greengrass core device; install the nucleus on it, or remove it from "
                "the thing group"
            )
        if deployment is None:
            return "waiting", ""
        reported = device.execution["coreDeviceExecutionStatus"] if device.execution is not None else "QUEUED"
        state = _STATES[reported]
        if state == "waiting":
            if deployment.get("deploymentStatus") not in ("ACTIVE", "COMPLETED"):
                return "failed", "the deployment was cancelled before it reached this device"
            return self._waiting(device.seen_at, deployment, things)
        broken = {
            name: _broken(name, entry)
            for name, entry in sorted(installed.items())
            if entry.get("lifecycleState") in ("BROKEN", "ERRORED") and name in deployment.get("components", {})
        }
        if state == "failed":
            return state, "; ".join([_reason(device.execution or {}), *broken.values()])
        # Devices report components some time after the deployment: another version is what was there before
        wanted = versions_of(deployment)
        ours = [
            name for name in broken if name in self._ours and installed[name].get("componentVersion") == wanted[name]
        ]
        if state == "succeeded" and any(installed[name]["lifecycleState"] == "BROKEN" for name in ours):
            state = "failed"
        return state, "; ".join(broken[name] for name in ours)

    def _waiting(
        self, seen_at: float | None, deployment: Mapping[str, Any], things: int
    ) -> tuple[DeploymentState, str]:
        """Whether a device that has not taken up the deployment is on its way or away."""
        now = self._clock()
        if seen_at is not None and now - seen_at > SILENT_AFTER_S:
            return "offline", f"no sign of life for {(now - seen_at) / 3600:.0f} hours"
        created = deployment["creationTimestamp"].timestamp()
        patience_s = ARRIVES_WITHIN_S + 60 * things / self._per_minute
        if (seen_at is None or seen_at < created) and now - created > patience_s:
            return "offline", f"did not take up the deployment within {patience_s / 60:.0f} minutes"
        return "waiting", ""


def _reached(device: _Device, deployment: Mapping[str, Any] | None) -> str:
    """Id of the deployment if it reached the device."""
    if deployment is None or device.execution is None:
        return ""
    reached = device.execution["coreDeviceExecutionStatus"] not in ("QUEUED", "CANCELED")
    return str(deployment["deploymentId"]) if reached else ""


def _reason(execution: Mapping[str, Any]) -> str:
    """Why a deployment failed on a device, as far as it says so."""
    status = execution.get("coreDeviceExecutionStatus", "FAILED")
    details = execution.get("statusDetails", {})
    codes = [*details.get("errorStack", []), *details.get("errorTypes", [])]
    reason = execution.get("reason") or {
        "TIMED_OUT": "the device did not finish in time",
        "REJECTED": "the device rejected the deployment",
        "CANCELED": "the deployment was cancelled before it reached this device",
    }.get(status, "the device gives no reason; see its log")
    return f"{status}: {reason}" + (f" ({', '.join(codes)})" if codes else "")


def _broken(name: str, entry: Mapping[str, Any]) -> str:
    codes = entry.get("lifecycleStatusCodes", [])
    details = entry.get("lifecycleStateDetails", "")
    said = ", ".join([*([details] if details else []), *codes])
    version, state = entry.get("componentVersion", ""), entry["lifecycleState"]
    return f"{name} {version} is {state}" + (f": {said}" if said else "")
