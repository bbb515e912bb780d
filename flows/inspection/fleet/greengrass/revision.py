"""The next revision of a thing group's deployment: ours changed in it, all that others put there as it is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inspection.fleet.interface import ComponentSetting
from inspection.settings import FleetSettings

LINE_TAG = "lineside-line"  # the line that was deployed last
SETTINGS_TAG = "lineside-settings"  # of the deployment as a whole, such as its pace: "ours", or "theirs" kept
_MAX_NAME = 256
_MAX_TIMEOUT_MINUTES = 7 * 24 * 60
"""Source: AWS IoT Greengrass V2 API reference, IoTJobTimeoutConfig."""
_NOTIFY_S = 60  # the service's own default


@dataclass(frozen=True)
class Pace:
    """How a deployment spreads over a group."""

    things: int  # in the group
    everywhere_at_once: bool


def next_revision(
    base: Mapping[str, Any] | None,
    wanted: Mapping[str, ComponentSetting | None],
    stock: Mapping[str, Mapping[str, Any]],
    fleet: FleetSettings,
    line: str,
    label: str,
    pace: Pace,
) -> dict[str, Any]:
    """What `CreateDeployment` is asked for, without target and token.

    A deployment replaces the one before as a whole, so all of it that is not ours is carried over: components with
    their configuration and limits, policies, tags, the parent of a subdeployment.

    Args:
        base: the group's newest deployment as `GetDeployment` answers; None = it never had one.
        wanted: our components; None removes one.
        stock: AWS's components that ours need, name to entry; those that are there already stay as they are.
        fleet: rates and limits.
        line: name of the line.
        label: for people.
        pace: how it spreads.
    """
    components = {name: dict(entry) for name, entry in (base or {}).get("components", {}).items()}
    for name, setting in wanted.items():
        if setting is None:
            components.pop(name, None)
        else:
            components[name] = _entry(components.get(name, {}), setting)
    for name, entry in stock.items():
        components.setdefault(name, dict(entry))
    tags = {key: value for key, value in (base or {}).get("tags", {}).items() if not key.startswith("aws:")}
    revision: dict[str, Any] = {
        "deploymentName": label[:_MAX_NAME],
        "components": components,
        "deploymentPolicies": _policies(base, fleet),
        "iotJobConfiguration": _job(base, fleet, pace),
        "tags": {**tags, LINE_TAG: line, SETTINGS_TAG: "ours" if _is_ours(base) else "theirs"},
    }
    if base is not None and base.get("parentTargetArn"):
        revision["parentTargetArn"] = base["parentTargetArn"]
    return revision


def same_components(revision: Mapping[str, Any], base: Mapping[str, Any]) -> bool:
    """Whether a group would get what it has."""
    return _comparable(revision["components"]) == _comparable(base.get("components", {}))


def versions_of(deployment: Mapping[str, Any]) -> dict[str, str]:
    """Name to version of all components of a deployment."""
    return {name: entry["componentVersion"] for name, entry in sorted(deployment.get("components", {}).items())}


def _entry(there: Mapping[str, Any], setting: ComponentSetting) -> dict[str, Any]:
    """One component's entry; what the setting does not say stays as it is."""
    entry = {**there, "componentVersion": setting.version}
    if setting.run_with is not None:
        entry["runWith"] = dict(setting.run_with)
    if setting.merge is not None:
        entry["configurationUpdate"] = {"merge": json.dumps(setting.merge, sort_keys=True)}
    return entry


def _is_ours(base: Mapping[str, Any] | None) -> bool:
    """Whether pace and policies were set by this program; what somebody else has set stays."""
    return base is None or base.get("tags", {}).get(SETTINGS_TAG) == "ours"


def _policies(base: Mapping[str, Any] | None, fleet: FleetSettings) -> dict[str, Any]:
    """How devices update components.

    Lite knows neither ROLLBACK, so going back is the rollout's, nor components that put an update off.
    """
    notify = "NOTIFY_COMPONENTS" if fleet.nucleus == "classic" else "SKIP_NOTIFY_COMPONENTS"
    ours = {
        "failureHandlingPolicy": "ROLLBACK",
        "componentUpdatePolicy": {"action": notify, "timeoutInSeconds": _NOTIFY_S},
    }
    theirs = (base or {}).get("deploymentPolicies") or {}
    return {**theirs, **ours} if _is_ours(base) else {**ours, **theirs}


def _job(base: Mapping[str, Any] | None, fleet: FleetSettings, pace: Pace) -> dict[str, Any]:
    """How fast it spreads, when it stops by itself, how long a device may take."""
    minutes = min(max(round(fleet.wave_timeout_minutes), 1), _MAX_TIMEOUT_MINUTES)
    ours: dict[str, Any] = {"timeoutConfig": {"inProgressTimeoutInMinutes": minutes}}
    theirs = dict((base or {}).get("iotJobConfiguration") or {})
    if pace.everywhere_at_once:
        theirs.pop("jobExecutionsRolloutConfig", None)
        theirs.pop("abortConfig", None)
    else:
        ours["jobExecutionsRolloutConfig"] = {"maximumPerMinute": fleet.devices_per_minute}
        ours["abortConfig"] = {"criteriaList": [_abort(fleet.max_failed_devices, pace.things)]}
    return {**theirs, **ours} if _is_ours(base) else {**ours, **theirs}


def _abort(share: float, things: int) -> dict[str, Any]:
    """Stop when more devices failed than may, and a larger share of those that it reached.

    Args:
        share: of the group that may fail, 0..1.
        things: in the group.
    """
    return {
        "failureType": "ALL",
        "action": "CANCEL",
        "thresholdPercentage": min(max(round(100 * share, 2), 0.01), 100.0),
        "minNumberOfExecutedThings": int(share * things) + 1,
    }


def _comparable(components: Mapping[str, Any]) -> dict[str, Any]:
    """Components without what is empty, which the service may leave out or put in."""
    return {name: _full(entry) for name, entry in components.items()}


def _full(value: Any) -> Any:
    if isinstance(value, Mapping):
        filled = {key: _full(item) for key, item in value.items()}
        return {key: item for key, item in filled.items() if item not in (None, {}, [])}
    return value
