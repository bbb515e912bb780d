"""The inspector's settings on devices: what a line's settings say, and what follows from the rest of them."""

import copy
from typing import Any

from edge.errors import SettingsError as DeviceSettingsError
from edge.errors import SourceError
from edge.settings import merge, read_settings
from edge.sources.opening import check_kind
from inspection.errors import RolloutError
from inspection.fleet.recipes import as_text
from inspection.settings import Settings

FROM_THE_LINE = ("line", "topic_root", "accessControl")
FROM_THE_RECIPE = ("model", "state", "sink", "challenger", "thing")


def inspector_configuration(settings: Settings) -> dict[str, Any]:
    """The default configuration of the inspector's component, as its recipe carries it.

    Kept images go to the line's bucket unless `[fleet.inspector]` says where. Devices on this machine are told by
    their own settings where their pictures come from and go to, where nothing here says otherwise.

    Raises:
        RolloutError: a name that the inspector does not know or that is not for settings, a value out of range.
    """
    given = settings.fleet.inspector
    for names, why in ((FROM_THE_LINE, "come from [line]"), (FROM_THE_RECIPE, "are given by the component itself")):
        if reserved := sorted(set(names) & set(given)):
            raise RolloutError(f"[fleet.inspector]: want none of {', '.join(reserved)}, which {why}")
    _check(settings)
    if settings.fleet.backend == "local":
        return copy.deepcopy(given)
    configuration: dict[str, Any] = {"upload": {"to": settings.storage_root}}
    if settings.fleet.region:
        configuration["upload"]["region"] = settings.fleet.region
    merge(configuration, copy.deepcopy(given))
    return configuration


def group_configuration(group: str) -> dict[str, Any]:
    """What a deployment merges into the inspector's configuration for one thing group: its metrics say the group."""
    return {"metrics": {"group": group}}


def needed_extras(settings: Settings) -> tuple[str, ...]:
    """Packages that the inspector needs on these devices besides the usual ones; names of `locks.EXTRAS`."""
    configuration = _whole(settings)
    source, output = configuration.get("source", {}), configuration.get("output", {})
    scheme = str(source.get("uri", "")).partition(":")[0]
    extras = set(settings.fleet.runtime_extras)
    if scheme in ("v4l2", "rtsp", "rtsps", "http", "https"):
        extras.add("camera")
    if source.get("trigger", {}).get("kind") == "gpio" or output.get("gpio_chip"):
        extras.add("gpio")
    if str(configuration["upload"]["to"]).startswith("s3://"):
        extras.add("upload")
    return tuple(sorted(extras))


def _whole(settings: Settings) -> dict[str, Any]:
    """The configuration with what a device on this machine adds."""
    configuration: dict[str, Any] = {"upload": {"to": settings.storage_root}}
    if settings.fleet.backend == "local":
        configuration["source"] = {"uri": "folder:inbox"}
    merge(configuration, copy.deepcopy(settings.fleet.inspector))
    return configuration


def _check(settings: Settings) -> None:
    """Read it as the device will, so that a slip of the pen fails here and not on the line."""
    device = {"model": "/model", "state": "/state", "sink": "greengrass", "thing": "device"}
    line = {"line": settings.line.name, "topic_root": settings.line.topic_root}
    try:
        read_settings(as_text(_whole(settings)), line, device)
        if uri := str(_whole(settings).get("source", {}).get("uri", "")):
            check_kind(uri)
    except (DeviceSettingsError, SourceError) as error:
        raise RolloutError(f"[fleet.inspector]: {error}\nsee docs/inspector.md for every setting") from error
