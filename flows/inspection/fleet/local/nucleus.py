"""One device's nucleus, as a process: `python -m inspection.fleet.local.nucleus FOLDER [--detach]`.

It takes the deployments of its thing groups, installs and runs components, offers them Greengrass IPC, hands what they
publish to the line's storage, and tells the cloud how it does. It behaves as nucleus lite was seen to; see
docs/local-fleet.md for what is different.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inspection.errors import InspectionError, RolloutError, StorageError
from inspection.fleet.local.cloud import Carried, Revision
from inspection.fleet.local.delivery import Delivery
from inspection.fleet.local.device import Device
from inspection.fleet.local.device_settings import DeviceSettings
from inspection.fleet.local.documents import write_document
from inspection.fleet.local.feeder import FeederProcess
from inspection.fleet.local.folders import DeviceFolder, socket_path
from inspection.fleet.local.holding import holder, locked
from inspection.fleet.local.ipc import IpcServer
from inspection.fleet.local.ipc_application import RefusalError
from inspection.fleet.local.memory import Taken
from inspection.fleet.local.processes import identify

log = logging.getLogger(__name__)

_TICK_S = 0.2
_TELL_S = 1.0  # between two words to the cloud
_MAX_ERROR = 4000  # characters


class Nucleus:
    """A device that runs until it is told to stop.

    Args:
        folder: of the device.
        settings: what it is.
    """

    def __init__(self, folder: DeviceFolder, settings: DeviceSettings) -> None:
        self._folder = folder
        self._settings = settings
        socket = socket_path(folder.root)
        self._device = Device(folder, settings, socket)
        self._delivery = Delivery(settings.storage, settings.topic_root, settings.thing)
        self._ipc = IpcServer(str(socket), self)
        self._feeder = FeederProcess(folder, settings)
        self._deploying: asyncio.Task[None] | None = None
        self._look_at_s = 0.0
        self._tell_at_s = 0.0
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        """Boot, then go on until `stopping` is set."""
        groups = set(self._settings.groups)
        for known in (self._device.memory.taken, self._device.memory.wanted):
            for group in set(known) - groups:  # it left them
                del known[group]
        self._folder.inbox.mkdir(parents=True, exist_ok=True)
        await self._ipc.start()
        try:
            self._device.boot()
            while not self.stopping.is_set():
                if holder(self._folder) != identify(os.getpid()):
                    log.error("event=folder_lost path=%s", self._folder.root)  # deleted, or made anew by somebody else
                    break
                try:
                    self._tick()
                except (InspectionError, OSError) as error:  # a full disk, a file that is gone: a device goes on
                    log.exception("event=tick_failed error=%r", str(error))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.stopping.wait(), _TICK_S)
        finally:
            if self._deploying is not None:
                self._deploying.cancel()  # the next boot begins it anew
                await asyncio.gather(self._deploying, return_exceptions=True)
            self._feeder.stop()
            await self._device.stop()
            await self._ipc.close()

    # What components ask, see `ipc.Application`

    def component(self, token: str) -> str | None:
        """Which component has this token."""
        return self._device.component_of(token)

    def configuration(self, component: str) -> Mapping[str, Any]:
        """The configuration of a component."""
        return self._device.configuration(component)

    def access_control(self, component: str) -> Mapping[str, Any]:
        """Its policies by service; without any nothing is allowed."""
        control: Mapping[str, Any] = self._device.configuration(component).get("accessControl", {})
        return control

    def is_online(self) -> bool:
        """Whether the device has its network."""
        return not self._folder.offline.exists()

    async def publish(self, component: str, topic: str, payload: bytes) -> bool:
        """Hand a message to the line's storage."""
        try:
            allowed = await asyncio.to_thread(self._delivery.deliver, topic, payload)
        except (StorageError, OSError, ValueError) as error:
            log.warning("event=message_not_delivered topic=%s error=%r", topic, str(error))
            raise RefusalError("ServiceError", "Failed to publish the message.") from error
        if not allowed:
            raise RefusalError("UnauthorizedError", f"the device's policy allows no message on {topic}")
        return True

    def heard_locally(self, component: str, topic: str, payload: bytes) -> None:
        """Nobody but components listens."""

    def state_reported(self, component: str, state: str) -> None:
        """A component told how it does."""
        if component in self._device.components:
            self._device.components[component].reported = state

    # Deployments

    def _tick(self) -> None:
        now = time.monotonic()
        self._device.poll()
        self._feeder.poll()
        online = self.is_online()
        if self._deploying is not None and self._deploying.done():
            done, self._deploying = self._deploying, None
            self._tell_at_s = now
            done.result()  # the disk may have refused what became of it
        if online and self._deploying is None and now >= self._look_at_s:
            self._look_at_s = now + self._settings.look_s
            news = self._news()
            if news:
                self._take(news)
                self._deploying = asyncio.ensure_future(self._deploy(news))
        if online and now >= self._tell_at_s:
            self._tell_at_s = now + _TELL_S
            self._tell()

    def _news(self) -> dict[str, Revision]:
        """Deployments that are not done on this device, by group."""
        news = {}
        for group in self._settings.groups:
            newest = self._device.cloud.newest(group)
            taken = self._device.memory.taken.get(group)
            if newest is None:
                continue
            begun = taken is not None and taken.id == newest.id
            done = begun and taken is not None and taken.state != "in-progress"
            if not done and (begun or not newest.cancelled):
                news[group] = newest
        return news

    def _take(self, news: Mapping[str, Revision]) -> None:
        for group, revision in news.items():
            self._device.memory.taken[group] = Taken(revision.id, "in-progress")
            log.info("event=deployment_begins deployment=%s label=%r", revision.id, revision.label)
        self._device.memory.save(self._folder)
        self._tell()

    async def _deploy(self, news: Mapping[str, Revision]) -> None:
        """Have what all groups together want; what goes wrong is told, and rolls nothing back."""
        memory = self._device.memory
        wanted = {**memory.wanted, **{group: dict(revision.components) for group, revision in news.items()}}
        try:
            await self._device.apply(_union(wanted))
            await asyncio.to_thread(self._device.clean_up)
            error = ""
        except (InspectionError, OSError) as fault:
            error = str(fault)[:_MAX_ERROR] or type(fault).__name__
        except Exception as fault:  # a device goes on, whatever is wrong with a component
            log.exception("event=deployment_fault")
            error = f"{type(fault).__name__}: {fault}; see logs/nucleus.log of the device"
        for group, revision in news.items():
            memory.taken[group] = Taken(revision.id, "failed" if error else "succeeded", error)
            if not error:
                memory.wanted[group] = dict(revision.components)
            log.info("event=deployment_ended deployment=%s error=%r", revision.id, error)
        memory.save(self._folder)

    def _tell(self) -> None:
        """What the cloud knows of this device from now on."""
        document = {
            "thing": self._settings.thing,
            "at": time.time(),
            "groups": {group: vars(taken) for group, taken in self._device.memory.taken.items()},
            "components": self._device.versions(),
            "states": self._device.states(),
            "errors": {name: one.error for name, one in self._device.components.items() if one.error},
        }
        write_document(self._folder.status, document, sync=False)


def _union(wanted: Mapping[str, Mapping[str, Carried]]) -> dict[str, Carried]:
    """What all groups want together.

    Raises:
        RolloutError: two groups want different versions of a component.
    """
    union: dict[str, Carried] = {}
    origin: dict[str, str] = {}
    for group, components in sorted(wanted.items()):
        for name, carried in components.items():
            if name in union and union[name].version != carried.version:
                raise RolloutError(
                    f"{name}: group {origin[name]} wants version {union[name].version}, group {group} wants "
                    f"{carried.version}; deploy one version to both, or take the device out of one group"
                )
            union[name], origin[name] = carried, group
    return union


async def _serve(folder: DeviceFolder, settings: DeviceSettings) -> None:
    nucleus = Nucleus(folder, settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, nucleus.stopping.set)
    await nucleus.run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a device until SIGTERM; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m inspection.fleet.local.nucleus", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="of the device; see docs/local-fleet.md")
    parser.add_argument("--detach", action="store_true", help="go on in the background, log to logs/nucleus.log")
    options = parser.parse_args(arguments)
    folder = DeviceFolder(options.folder.absolute())
    if options.detach and not _detach(folder):
        return 0
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    try:
        settings = DeviceSettings.read(folder)
        if settings is None:
            raise RolloutError(f"{folder.settings}: want what this device is, found no such file; use `lineside fleet`")
        with locked(folder):
            asyncio.run(_serve(folder, settings))
    except (InspectionError, OSError) as error:
        log.error("event=nucleus_ends error=%r", str(error))
        return 1
    return 0


def _detach(folder: DeviceFolder) -> bool:
    """Go on in a process of its own session, whose parent is the system; False in the one that was started."""
    output = folder.log("nucleus")
    if os.fork():
        return False
    os.setsid()
    if os.fork():
        os._exit(0)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    return True


if __name__ == "__main__":
    sys.exit(main())
