"""What devices are: an architecture and a Python, and which wheels run there."""

import platform
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal

from packaging.markers import Marker
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

from inspection.errors import RolloutError
from inspection.settings import FleetSettings

Architecture = Literal["aarch64", "amd64", "arm"]  # as Greengrass names them
MACHINES: dict[str, str] = {"aarch64": "aarch64", "amd64": "x86_64", "arm": "armv7l"}
"""What `uname -m` and wheels say for each architecture."""

NEWEST_GLIBC = (2, 34)
"""The newest C library that wheels may ask for: no distribution with Python 3.10 or later has an older one."""
OLDEST_GLIBC = {"aarch64": (2, 17), "x86_64": (2, 5), "armv7l": (2, 17)}
"""Where manylinux begins. Source: PEP 513, PEP 599."""
LEGACY = {(2, 17): "manylinux2014", (2, 12): "manylinux2010", (2, 5): "manylinux1"}
"""Names from before PEP 600."""


@dataclass(frozen=True)
class Target:
    """Devices of one architecture with one Python."""

    architecture: str  # as Greengrass names it
    python: str  # such as 3.11

    @property
    def machine(self) -> str:
        """As `uname -m` says it."""
        return MACHINES[self.architecture]

    @property
    def abi(self) -> str:
        """Such as cp311."""
        return "cp" + self.python.replace(".", "")

    @cached_property
    def platforms(self) -> tuple[str, ...]:
        """Platform tags of wheels that run there, best first."""
        major, newest = NEWEST_GLIBC
        tags = []
        for minor in range(newest, OLDEST_GLIBC[self.machine][1] - 1, -1):
            tags.append(f"manylinux_{major}_{minor}_{self.machine}")
            if (major, minor) in LEGACY:
                tags.append(f"{LEGACY[major, minor]}_{self.machine}")
        return (*tags, f"linux_{self.machine}")

    @cached_property
    def tags(self) -> dict[Tag, int]:
        """All tags of wheels that run there, with their rank: 0 is best."""
        major, minor = map(int, self.python.split("."))
        version, platforms = (major, minor), list(self.platforms)
        tags = [*cpython_tags(version, [self.abi], platforms), *compatible_tags(version, self.abi, platforms)]
        return {tag: rank for rank, tag in reversed(list(enumerate(tags)))}

    def rank(self, wheel: str) -> int | None:
        """How well a wheel of that file name fits, 0 is best; None when it does not run there."""
        _, _, _, tags = parse_wheel_filename(wheel)
        ranks = [self.tags[tag] for tag in tags if tag in self.tags]
        return min(ranks, default=None)

    def holds(self, marker: Marker | None) -> bool:
        """Whether a requirement with this marker counts there."""
        if marker is None:
            return True
        return marker.evaluate(
            {
                "implementation_name": "cpython",
                "implementation_version": f"{self.python}.0",
                "os_name": "posix",
                "platform_machine": self.machine,
                "platform_python_implementation": "CPython",
                "platform_release": "",
                "platform_system": "Linux",
                "platform_version": "",
                "python_full_version": f"{self.python}.0",
                "python_version": self.python,
                "sys_platform": "linux",
            }
        )

    def __str__(self) -> str:
        return f"{self.architecture}, Python {self.python}"


def targets_of(fleet: FleetSettings) -> tuple[Target, ...]:
    """The devices that a fleet's settings name, or the usual ones of its back end.

    Raises:
        RolloutError: local devices, and this machine is none that the inspector runs on.
    """
    local = fleet.backend == "local"
    architectures: Sequence[str] = fleet.architectures or ([this_architecture()] if local else ["aarch64", "amd64"])
    pythons: Sequence[str] = fleet.pythons or ([this_python()] if local else ["3.11", "3.13"])
    return tuple(Target(*pair) for pair in product(sorted(set(architectures)), sorted(set(pythons), key=_minor)))


def this_architecture() -> str:
    """This machine's architecture, as Greengrass names it.

    Raises:
        RolloutError: it is none of those.
    """
    machine = platform.machine()
    for architecture, name in MACHINES.items():
        if machine == name:
            return architecture
    raise RolloutError(
        f"[fleet] architectures: want a machine of {', '.join(MACHINES.values())} for devices on this machine, found "
        f"{machine}; name the architectures of your devices there"
    )


def this_python() -> str:
    """Of devices on this machine."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def needed_glibc(wheels: Sequence[str]) -> tuple[int, int] | None:
    """The oldest C library that all these wheels (file names) run with; None when any does."""
    needed = [glibc for wheel in wheels if (glibc := min(_glibcs(wheel), default=None)) is not None]
    return max(needed, default=None)


def _glibcs(wheel: str) -> Iterator[tuple[int, int]]:
    legacy = {name: version for version, name in LEGACY.items()}
    for tag in parse_wheel_filename(wheel)[3]:
        if match := re.match(r"manylinux_(\d+)_(\d+)_", tag.platform):
            yield int(match[1]), int(match[2])
        elif (name := tag.platform.split("_")[0]) in legacy:
            yield legacy[name]


def _minor(python: str) -> int:
    return int(python.split(".")[1])
