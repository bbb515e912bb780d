"""Devices of this machine as processes: start them, stop them, see which run. They outlive whoever starts them."""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import edge
import inspection
from inspection.errors import RolloutError
from inspection.fleet.local.device_settings import DeviceSettings, device_settings
from inspection.fleet.local.documents import THING, check_name
from inspection.fleet.local.folders import DeviceFolder
from inspection.fleet.local.processes import Identity, end, end_all
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
    for thing in _chosen(settings, things):
        folder = device_folder(settings, thing)
        wanted = device_settings(settings, thing)
        running = holder(folder)
        if running is not None and DeviceSettings.read(folder) == wanted:
            continue
        if running is not None:
            _stop(folder)
        _prepare(folder, wanted)
        _launch(folder)
        log.info("event=device_started thing=%s folder=%s", thing, folder.root)
    return list_devices(settings, things)


def stop(settings: Settings, things: Sequence[str] = ()) -> tuple[LocalDevice, ...]:
    """Stop devices with everything that runs on them; one that does not run is left alone.

    Raises:
        RolloutError: no such device, or it cannot be stopped.
    """
    for thing in _chosen(settings, things):
        folder = device_folder(settings, thing)
        if folder.root.is_dir():
            _stop(folder)
            log.info("event=device_stopped thing=%s", thing)
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


def holder(folder: DeviceFolder) -> Identity | None:
    """The nucleus that runs a device; None when none does."""
    try:
        found = Identity(**json.loads(folder.lock.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):  # never started, or just starting
        return None
    return found if found.is_alive() else None


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


def _prepare(folder: DeviceFolder, wanted: DeviceSettings) -> None:
    """Its folder, what it is, and a `python3` of the version that its packages are built for."""
    (folder.root / "bin").mkdir(parents=True, exist_ok=True)
    link = folder.root / "bin" / "python3"
    link.unlink(missing_ok=True)
    link.symlink_to(wanted.python)
    wanted.write(folder)


def _launch(folder: DeviceFolder) -> None:
    output = folder.log("nucleus")
    begin = output.stat().st_size if output.exists() else 0
    folder.status.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "inspection.fleet.local.nucleus", str(folder.root), "--detach"],
        env={**os.environ, "PYTHONPATH": _search_path()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    deadline = time.monotonic() + START_S
    while holder(folder) is None or not (folder.status.exists() or folder.offline.exists()):
        said = output.read_text(encoding="utf-8", errors="replace")[begin:] if output.exists() else ""
        if done.returncode or "event=nucleus_ends" in said or time.monotonic() > deadline:
            words = (done.stdout.decode(errors="replace") + said).strip()[-2000:]
            raise RolloutError(f"{folder.root}: the device does not start: {words or 'it said nothing'}")
        time.sleep(_POLL_S)


def _stop(folder: DeviceFolder) -> None:
    nucleus = holder(folder)
    if nucleus is not None:
        end([nucleus], STOP_S)
    end_all(folder.root, 0.0)  # what a nucleus left that was killed
    if holder(folder) is not None:
        raise RolloutError(f"{folder.root}: the nucleus does not stop, process {nucleus}; end it by hand")


def _search_path() -> str:
    """Where a child finds `inspection` and `edge` as this process does."""
    packages = [*inspection.__path__, *edge.__path__]
    return os.pathsep.join(dict.fromkeys(str(Path(package).resolve().parent) for package in packages))
