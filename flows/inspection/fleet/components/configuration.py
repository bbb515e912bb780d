"""The inspector's settings on devices: what a line's settings say, and what follows from the rest of them."""

import copy
from collections.abc import Mapping
from typing import Any

from edge.errors import SettingsError as DeviceSettingsError
from edge.settings import merge, read_settings
from inspection.errors import RolloutError
from inspection.fleet.recipes import as_text
from inspection.settings import Settings

FROM_THE_LINE = ("line", "topic_root", "accessControl")
FROM_THE_RECIPE = ("model", "state", "sink", "challenger", "thing")
LOCAL_SOURCE = "folder:inbox"
"""Of devices on this machine: a folder in the inspector's work folder."""


def inspector_configuration(settings: Settings) -> dict[str, Any]:
    """The default configuration of the inspector's component, as a device reads it.

    Kept images go to the line's storage unless `[fleet.inspector]` says where.

    Raises:
        RolloutError: a name that the inspector does not know or that is not for settings, a value out of range.
    """
    given = settings.fleet.inspector
    for names, why in ((FROM_THE_LINE, "come from [line]"), (FROM_THE_RECIPE, "are given by the component itself")):
        if reserved := sorted(set(names) & set(given)):
            raise RolloutError(f"[fleet.inspector]: want none of {', '.join(reserved)}, which {why}")
    configuration: dict[str, Any] = {"upload": {"to": settings.storage_root}}
    if settings.storage_root.startswith("s3://") and settings.fleet.region:
        configuration["upload"]["region"] = settings.fleet.region
    if settings.fleet.backend == "local":
        configuration["source"] = {"uri": LOCAL_SOURCE}
    merge(configuration, copy.deepcopy(given))
    _check(settings, configuration)
    return configuration


def group_configuration(group: str) -> dict[str, Any]:
    """What a deployment merges into the inspector's configuration for one thing group: its metrics say the group."""
    return {"metrics": {"group": group}}


def needed_extras(configuration: Mapping[str, Any]) -> tuple[str, ...]:
    """Packages that an inspector with this configuration needs besides the usual ones; names of `locks.EXTRAS`."""
    source, output = configuration.get("source", {}), configuration.get("output", {})
    scheme = str(source.get("uri", "")).partition(":")[0]
    extras = set()
    if scheme in ("v4l2", "rtsp", "rtsps", "http", "https"):
        extras.add("camera")
    if source.get("trigger", {}).get("kind") == "gpio" or output.get("gpio_chip"):
        extras.add("gpio")
    if str(configuration.get("upload", {}).get("to", "")).startswith("s3://"):
        extras.add("upload")
    return tuple(sorted(extras))


def _check(settings: Settings, configuration: Mapping[str, Any]) -> None:
    """Read it as the device will, so that a slip of the pen fails here and not on the line."""
    device = {"model": "/model", "state": "/state", "sink": "greengrass", "thing": "device"}
    line = {"line": settings.line.name, "topic_root": settings.line.topic_root}
    try:
        read_settings(as_text(configuration), line, device)
    except DeviceSettingsError as error:
        raise RolloutError(f"[fleet.inspector]: {error}\nsee docs/inspector.md for every setting") from error
