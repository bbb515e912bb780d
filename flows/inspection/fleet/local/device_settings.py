"""What a device on this machine is: written by whoever starts it, read by its nucleus."""

import dataclasses
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inspection.errors import RolloutError
from inspection.fleet.local.documents import read_document, write_document
from inspection.fleet.local.folders import DeviceFolder
from inspection.settings import Settings


@dataclass(frozen=True)
class DeviceSettings:
    """Everything a nucleus must know beside what is deployed."""

    thing: str
    line: str
    topic_root: str
    storage: str  # root of the line's storage: health, results and pictures go there
    cloud: str  # folder of the cloud
    groups: list[str]  # thing groups that it is in
    python: str  # what `python3` is on the device
    parts: str = ""  # "sample", a folder of images, or "" = only what is put into the inbox
    parts_per_minute: float = 120.0
    configuration: Mapping[str, Any] = field(default_factory=dict)  # by component, below the recipe's own
    settle_s: float = 5.0  # a process that lives so long, or says that it runs, counts as started
    patience_s: float = 15.0  # from SIGTERM to SIGKILL
    look_s: float = 0.5  # between two looks at the cloud

    def write(self, folder: DeviceFolder) -> None:
        """Store it in the device's folder."""
        write_document(folder.settings, dataclasses.asdict(self))

    @classmethod
    def read(cls, folder: DeviceFolder) -> "DeviceSettings | None":
        """Of a device; None when it has none.

        Raises:
            RolloutError: it is none of ours.
        """
        document = read_document(folder.settings)
        if document is None:
            return None
        known = {entry.name for entry in dataclasses.fields(cls)}
        try:
            return cls(**{name: value for name, value in document.items() if name in known})
        except TypeError as error:
            raise RolloutError(f"{folder.settings}: {error}; remove the file and start the device again") from error


def device_settings(settings: Settings, thing: str) -> DeviceSettings:
    """What a line's settings make of one of their devices."""
    local = settings.fleet.local
    folder = settings.local_fleet_folder.absolute()
    inspector = f"{settings.fleet.component_prefix}.Inspector.{settings.line.name}"
    return DeviceSettings(
        thing=thing,
        line=settings.line.name,
        topic_root=settings.line.topic_root,
        storage=settings.storage_root,
        cloud=str(folder / "cloud"),
        groups=sorted(group for group, things in local.groups.items() if thing in things),
        python=os.path.realpath(getattr(sys, "_base_executable", sys.executable)),
        parts=_parts(local.parts),
        parts_per_minute=local.parts_per_minute,
        configuration={inspector: inspector_configuration(settings, DeviceFolder(folder / thing))},
    )


def inspector_configuration(settings: Settings, folder: DeviceFolder) -> dict[str, Any]:
    """How the inspector is set on this machine where neither its recipe nor a deployment says otherwise.

    Health comes every 2 s, since somebody is watching. Fed pictures are deleted once inspected: there is no end to
    them, and those worth keeping go to the line's storage, 100 a day of each reason, since devices run on for days.
    """
    fed = bool(settings.fleet.local.parts)
    after = "delete" if fed else "move"
    kept: dict[str, Any] = {"review": {"max_per_day": "100"}} if fed else {}
    return kept | {
        "source": {"uri": f"folder:{folder.inbox}", "folder": {"after": after}},
        "health_every_s": "2",
        "sender": {"batch_within_s": "2"},
        "upload": {"to": settings.storage_root, "pause_s": "5", "retry_min_s": "5"},
    }


def _parts(parts: str) -> str:
    from inspection.settings import REPOSITORY

    return parts if parts in ("", "sample") else str(REPOSITORY / Path(parts).expanduser())
