"""What is looked at before anything is changed in the cloud."""

import itertools
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from inspection.errors import RolloutError
from inspection.fleet.greengrass.clients import Clients
from inspection.fleet.greengrass.deployments import DeploymentStore
from inspection.fleet.greengrass.devices import CoreDevices
from inspection.fleet.greengrass.errors import explained
from inspection.fleet.greengrass.groups import ThingGroups
from inspection.settings import Settings

_log = logging.getLogger(__name__)

CLASSIC_AT_LEAST = (2, 14)
"""The first release beside lite, whose recipes know a runtime. Source: AWS IoT Greengrass V2 developer guide."""
LITE_SEEN = (2, 6)  # the components were observed on this release


def check_groups(
    settings: Settings,
    clients: Clients,
    groups: ThingGroups,
    devices: CoreDevices,
    deployments: DeploymentStore,
    names: Sequence[str],
) -> None:
    """Refuse thing groups that a rollout could not work with.

    Raises:
        RolloutError: a group is missing or empty, groups share devices, a nucleus does not fit, another deployment
            brings our components too, or a permission is missing.
    """
    with explained("listing components", clients.region):
        clients.greengrass.list_components(maxResults=1)
    members = {name: groups.members(name) for name in names}
    _refuse_shared(members)
    canaries = members.get(settings.fleet.canary_group)
    for name in names:
        if not members[name]:
            canary = name == settings.fleet.canary_group
            why = "a rollout begins on its canaries" if canary else "a wave goes to devices"
            raise RolloutError(
                f"the thing group {name!r} has no devices; {why}: add one by `aws iot add-thing-to-thing-group "
                f"--thing-group-name {name} --thing-name …`, or correct [fleet] canary_group and wave_groups"
            )
        deployments.newest(groups.arn(name))
    cores = devices.describe(thing for things in members.values() for thing in things)
    _refuse_nuclei(settings.fleet.nucleus, cores)
    if canaries and not any(thing in cores for thing in canaries):
        raise RolloutError(
            f"none of the canaries ({', '.join(canaries)}) ever connected as a Greengrass core device in "
            f"{clients.region}; install the nucleus on one, or correct [fleet] canary_group or region"
        )
    for thing in canaries or ():
        if thing in cores:
            _refuse_rivals(settings, devices, deployments, thing, {groups.arn(name) for name in names})


def our_components(settings: Settings) -> frozenset[str]:
    """Names of the components that the line brings."""
    prefix, line = settings.fleet.component_prefix, settings.line.name
    parts = ("Inspector", "Model", "Challenger")
    return frozenset({f"{prefix}.Runtime", *(f"{prefix}.{part}.{line}" for part in parts)})


def _refuse_shared(members: Mapping[str, Sequence[str]]) -> None:
    for one, other in itertools.combinations(members, 2):
        shared = sorted(set(members[one]) & set(members[other]))
        if shared:
            raise RolloutError(
                f"want no device in two groups, found {', '.join(shared[:5])}{' …' if len(shared) > 5 else ''} in "
                f"{one!r} and {other!r}: both deployments would bring a model; remove it from one by `aws iot "
                f"remove-thing-from-thing-group --thing-group-name {other} --thing-name {shared[0]}`"
            )


def _refuse_nuclei(nucleus: str, cores: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse another kind of nucleus than the settings name: the stock components and going back differ."""
    others = sorted(
        thing for thing, core in cores.items() if core.get("runtime") and core["runtime"] != f"aws_nucleus_{nucleus}"
    )
    if others:
        raise RolloutError(
            f"[fleet] nucleus: want {nucleus}, found {cores[others[0]]['runtime']} on {', '.join(others[:5])}"
            f"{' …' if len(others) > 5 else ''}; correct the setting, or put the other kind into groups of its own"
        )
    for thing, core in sorted(cores.items()):
        version = _version(core.get("coreVersion", ""))
        if nucleus == "classic" and version is not None and version < CLASSIC_AT_LEAST:
            raise RolloutError(
                f"{thing}: want Greengrass nucleus {'.'.join(map(str, CLASSIC_AT_LEAST))} or later, found "
                f"{core['coreVersion']}; deploy aws.greengrass.Nucleus to it first"
            )
        if nucleus == "lite" and version is not None and version < LITE_SEEN:
            _log.warning("event=older_nucleus thing=%s version=%s", thing, core["coreVersion"])


def _refuse_rivals(
    settings: Settings, devices: CoreDevices, deployments: DeploymentStore, thing: str, targets: set[str]
) -> None:
    """Refuse another deployment on the device that has the line's components too: devices merge all of theirs."""
    ours = our_components(settings)
    for entry in devices.deployments_on(thing):
        if entry["targetArn"] in targets or entry["coreDeviceExecutionStatus"] == "CANCELED":
            continue
        newest = deployments.newest(entry["targetArn"])
        both = sorted(ours & set((newest or {}).get("components", {})))
        if both:
            raise RolloutError(
                f"{thing}: the deployment {(newest or {}).get('deploymentName') or entry['deploymentId']!r} of "
                f"{entry['targetArn'].partition(':')[2].rpartition(':')[2]} brings {', '.join(both)} too, and a device "
                "merges all of its deployments; remove them from it, or correct [fleet] canary_group and wave_groups"
            )


def _version(text: str) -> tuple[int, int] | None:
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None
