"""What a device remembers over a restart: what is installed, and which deployments it took."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from inspection.fleet.local.cloud import Carried
from inspection.fleet.local.documents import read_document, write_document
from inspection.fleet.local.folders import DeviceFolder


@dataclass
class Taken:
    """A group's deployment that the device took."""

    id: str
    state: str  # in-progress, succeeded, failed
    error: str = ""


@dataclass
class Memory:
    """The device's state file. Change it, then `save`: what is saved survives a kill at any moment."""

    installed: dict[str, Carried] = field(default_factory=dict)  # by name
    provided: dict[str, str] = field(default_factory=dict)  # components that the nucleus has anyway: name to version
    taken: dict[str, Taken] = field(default_factory=dict)  # by group
    wanted: dict[str, dict[str, Carried]] = field(default_factory=dict)  # by group: its last that succeeded

    @classmethod
    def load(cls, folder: DeviceFolder) -> "Memory":
        """Of a device; empty for a new one.

        Raises:
            RolloutError: the file is damaged or of a newer program.
        """
        document = read_document(folder.state) or {}
        return cls(
            installed=_carried(document.get("installed", {})),
            provided=dict(document.get("provided", {})),
            taken={group: Taken(**entry) for group, entry in document.get("taken", {}).items()},
            wanted={group: _carried(entry) for group, entry in document.get("wanted", {}).items()},
        )

    def save(self, folder: DeviceFolder) -> None:
        """Write it, in one step, to the disk."""
        document: dict[str, Any] = {
            "installed": {name: carried.document() for name, carried in self.installed.items()},
            "provided": self.provided,
            "taken": {group: vars(taken) for group, taken in self.taken.items()},
            "wanted": {
                group: {name: carried.document() for name, carried in components.items()}
                for group, components in self.wanted.items()
            },
        }
        write_document(folder.state, document)


def _carried(document: Mapping[str, Any]) -> dict[str, Carried]:
    return {name: Carried.of(entry) for name, entry in document.items()}
