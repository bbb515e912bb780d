"""Where things are on a device of this machine: a nucleus' root folder."""

import hashlib
import os
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path

from inspection.errors import RolloutError
from inspection.fleet.local.documents import COMPONENT, VERSION, check_name

_MAX_SOCKET_BYTES = 100  # of a path; Source: unix(7), sun_path has 108 bytes with the NUL
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "aarch64", "arm64": "aarch64", "armv7l": "arm", "armv6l": "arm"}


@dataclass(frozen=True)
class DeviceFolder:
    """The folder of one device, and what lies in it."""

    root: Path

    @property
    def settings(self) -> Path:
        """What the device is, written by whoever starts it."""
        return self.root / "device.json"

    @property
    def state(self) -> Path:
        """What is installed and which deployments were taken: the nucleus' memory."""
        return self.root / "state.json"

    @property
    def status(self) -> Path:
        """What the nucleus last told the cloud."""
        return self.root / "status.json"

    @property
    def lock(self) -> Path:
        """Held by the running nucleus; holds its pid and start time."""
        return self.root / "nucleus.lock"

    @property
    def offline(self) -> Path:
        """While this file is there the device has no network."""
        return self.root / "offline"

    @property
    def inbox(self) -> Path:
        """Pictures of parts that wait for the inspector."""
        return self.root / "inbox"

    @property
    def staging(self) -> Path:
        """Artifacts while they are unpacked; emptied at each start."""
        return self.root / "packages" / ".staging"

    def artifacts(self, name: str, version: str) -> Path:
        """Artifacts that are not unpacked."""
        return self._packages("artifacts", name, version)

    def unpacked(self, name: str, version: str) -> Path:
        """Unpacked artifacts, each in a folder of its stem."""
        return self._packages("artifacts-unarchived", name, version)

    def recipe(self, name: str, version: str) -> Path:
        """A component version's recipe; written last, so where it is the artifacts are whole."""
        return self._packages("recipes", name, version) / "recipe.json"

    def work(self, name: str) -> Path:
        """A component's own folder, made if need be."""
        folder = self.root / "work" / check_name(COMPONENT, "component name", name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def log(self, name: str) -> Path:
        """A component's log; its folder is made if need be."""
        folder = self.root / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{check_name(COMPONENT, 'component name', name)}.log"

    def _packages(self, kind: str, name: str, version: str) -> Path:
        check_name(COMPONENT, "component name", name)
        return self.root / "packages" / kind / name / check_name(VERSION, f"{name}: version", version)


def socket_path(root: Path) -> Path:
    """The IPC socket of a device: in its folder, or, since such a path must be short, in a folder of this user's.

    Raises:
        RolloutError: that folder is somebody else's.
    """
    path = root / "ipc.socket"
    if len(os.fsencode(path)) <= _MAX_SOCKET_BYTES:
        return path
    folder = Path(tempfile.gettempdir()) / f"lineside-{os.getuid()}"
    if len(os.fsencode(folder)) > _MAX_SOCKET_BYTES - 30:
        folder = Path("/tmp") / folder.name
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise RolloutError(f"{folder}: want a folder that only this user may enter, found another; remove it")
    return folder / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.socket"


def architecture() -> str:
    """This machine's, as Greengrass names it."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())
