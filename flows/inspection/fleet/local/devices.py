"""Devices of this machine as processes: start them, stop them, see which run. They outlive whoever starts them."""

import contextlib
import fcntl
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import edge
import inspection
from inspection.errors import RolloutError
from inspection.fleet.local.device_settings import DeviceSettings, device_settings
from inspection.fleet.local.documents import THING, check_name
from inspection.fleet.local.folders import DeviceFolder
from inspection.fleet.local.holding import holder
from inspection.fleet.local.processes import end, end_all
from inspection.settings import Settings

log = logging.getLogger(__name__)

START_S = 60.0
STOP_S = 30.0  # a nucleus gives its components 15 s
CLOUD = "cloud"
_POLL_S = 0.05


@dataclass(frozen=True)
class LocalDevice:
    """A device of this machine."""

    thing: str
    folder: Path
    groups: tuple[str, ...]
    pid: int | None  # of its nucleus; None: it does not run
    online: bool  # whether it would have a network if it ran

    @property
    def runs(self) -> bool:
        """Whether its nucleus runs."""
        return self.pid is not None


def start(settings: Settings, things: Sequence[str] = ()) -> tuple[LocalDevice, ...]:
    """Start devices; one that runs is left alone, unless the settings now make something else of it.

    Args:
        settings: of the line.
        things: names of devices; (): all of the line.

    Raises:
        RolloutError: no such device, or it does not start; with the last words of its log.
    """
    chosen = _chosen(settings, things)
    with _one_at_a_time(settings):
        folders = [folder for thing in chosen if (folder := _prepared(settings, thing)) is not None]
        faults = [fault for launch in [_launch(folder) for folder in folders] if (fault := launch.wait())]
    if faults:
        raise RolloutError("\n".join(faults))
    return list_devices(settings, things)


def stop(settings: Settings, things: Sequence[str] = ()) -> tuple[LocalDevice, ...]:
    """Stop devices with everything that runs on them; one that does not run is left alone.

    Raises:
        RolloutError: no such device, or it cannot be stopped.
    """
    chosen = _chosen(settings, things)
    if settings.local_fleet_folder.is_dir():
        with _one_at_a_time(settings):
            _stop([device_folder(settings, thing) for thing in chosen])
    return list_devices(settings, things)


def list_devices(settings: Settings, things: Sequence[str] = ()) -> tuple[LocalDevice, ...]:
    """The devices of a line, by name.

    Raises:
        RolloutError: no such device.
    """
    found = []
    for thing in _chosen(settings, things):
        folder = device_folder(settings, thing)
        nucleus = holder(folder)
        groups = device_settings(settings, thing).groups
        pid = None if nucleus is None else nucleus.pid
        found.append(LocalDevice(thing, folder.root, tuple(groups), pid, not folder.offline.exists()))
    return tuple(found)


def device_folder(settings: Settings, thing: str) -> DeviceFolder:
    """The folder of a device."""
    check_name(THING, "[fleet.local] groups: name of a device", thing)
    if thing == CLOUD:
        raise RolloutError(f"[fleet.local] groups: want another name than {CLOUD!r}, which is a folder beside devices")
    return DeviceFolder(settings.local_fleet_folder.absolute() / thing)


def things_of(settings: Settings) -> tuple[str, ...]:
    """Every device of a line, sorted."""
    return tuple(sorted({thing for things in settings.fleet.local.groups.values() for thing in things}))


def _chosen(settings: Settings, things: Sequence[str]) -> tuple[str, ...]:
    known = things_of(settings)
    unknown = sorted(set(things) - set(known))
    if unknown:
        raise RolloutError(
            f"{', '.join(unknown)}: no such device; want some of {', '.join(known)}, see [fleet.local] groups"
        )
    return tuple(things) or known


@contextlib.contextmanager
def _one_at_a_time(settings: Settings) -> Iterator[None]:
    """Of those who start and stop the devices of a line."""
    folder = settings.local_fleet_folder.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".starting.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise RolloutError(f"{folder}: cannot keep devices there ({error}); set [fleet.local] folder") from error


def _prepared(settings: Settings, thing: str) -> DeviceFolder | None:
    """A device that is to be started; None when it runs as the settings say."""
    folder = device_folder(settings, thing)
    wanted = device_settings(settings, thing)
    before, nucleus = DeviceSettings.read(folder), holder(folder)
    if before is not None and before.line != wanted.line:
        raise RolloutError(
            f"{folder.root}: want a device of line {wanted.line}, found one of line {before.line}; set another "
            "[fleet.local] folder, or stop and delete that device"
        )
    if nucleus is not None and before == wanted:
        return None
    if nucleus is not None:
        _stop([folder])
    prepare(folder, wanted)
    return folder


def prepare(folder: DeviceFolder, wanted: DeviceSettings) -> None:
    """Make a device's folder: what it is, and a `python3` of the version that its packages are built for."""
    (folder.root / "bin").mkdir(parents=True, exist_ok=True)
    link = folder.root / "bin" / "python3"
    link.unlink(missing_ok=True)
    link.symlink_to(wanted.python)
    wanted.write(folder)


@dataclass(frozen=True)
class _Launch:
    """A nucleus that is on its way."""

    folder: DeviceFolder
    process: subprocess.Popen[bytes]  # ends at once: the nucleus itself is a child of the system
    log_from: int

    def wait(self) -> str:
        """Wait until the nucleus has told the cloud of itself; what went wrong, or ""."""
        said = self.process.communicate()[0].decode(errors="replace")
        deadline = time.monotonic() + START_S
        while holder(self.folder) is None or not (self.folder.status.exists() or self.folder.offline.exists()):
            words = (said + self._logged()).strip()[-2000:] or "it said nothing"
            crashed = holder(self.folder) is None and "Traceback" in words
            if self.process.returncode or crashed or "event=nucleus_ends" in words or time.monotonic() > deadline:
                return f"{self.folder.root}: the device does not start: {words}"
            time.sleep(_POLL_S)
        log.info("event=device_started folder=%s", self.folder.root)
        return ""

    def _logged(self) -> str:
        path = self.folder.log("nucleus")
        return path.read_bytes()[self.log_from :].decode(errors="replace") if path.exists() else ""


def _launch(folder: DeviceFolder) -> _Launch:
    output = folder.log("nucleus")
    begin = output.stat().st_size if output.exists() else 0
    folder.status.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "inspection.fleet.local.nucleus", str(folder.root), "--detach"],
        cwd=folder.root,
        env={**os.environ, "PYTHONPATH": _search_path()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return _Launch(folder, process, begin)


def _stop(folders: Sequence[DeviceFolder]) -> None:
    running = [nucleus for folder in folders if (nucleus := holder(folder)) is not None]
    end(running, STOP_S)
    for folder in folders:
        end_all(folder.root, 0.0)  # what a nucleus left that was killed
    left = [nucleus.pid for nucleus in running if nucleus.is_alive()]
    if left:
        raise RolloutError(f"the nuclei with the process ids {left} do not stop; end them by hand")
    for nucleus in running:
        log.info("event=device_stopped pid=%d", nucleus.pid)


def _search_path() -> str:
    """Where a child finds `inspection` and `edge` as this process does."""
    packages = [*inspection.__path__, *edge.__path__]
    return os.pathsep.join(dict.fromkeys(str(Path(package).resolve().parent) for package in packages))
