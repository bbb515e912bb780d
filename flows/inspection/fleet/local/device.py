"""The components of a device: what runs, and how a deployment changes it."""

import asyncio
import logging
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inspection.errors import RolloutError
from inspection.fleet.local.artifacts import fetch, load, remove_others
from inspection.fleet.local.cloud import PROVIDED, Carried, Cloud
from inspection.fleet.local.device_settings import DeviceSettings
from inspection.fleet.local.folders import DeviceFolder
from inspection.fleet.local.lifecycle import Component
from inspection.fleet.local.memory import Memory
from inspection.fleet.local.processes import end_all
from inspection.fleet.local.recipe_reading import ComponentRecipe

log = logging.getLogger(__name__)

SETTLE_MOST_S = 300.0
"""For all components to run. Source: observed on nucleus lite."""
_POLL_S = 0.1
_PASSED_ON = ("HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE")


class Device:
    """Installed components and their processes.

    Args:
        folder: of the device.
        settings: what it is.
        socket: of the nucleus.
    """

    def __init__(self, folder: DeviceFolder, settings: DeviceSettings, socket: Path) -> None:
        self.folder = folder
        self.settings = settings
        self.cloud = Cloud(Path(settings.cloud))
        self.memory = Memory.load(folder)
        self.components: dict[str, Component] = {}
        self._socket = socket
        self._tokens: dict[str, str] = {}  # to component
        self._waiting: set[str] = set()  # installed by the deployment that is under way, not started yet

    def boot(self) -> None:
        """Start what is installed, as after a restart of the machine.

        Processes that a killed nucleus left are ended first: their connection to it is gone for good.
        """
        left = end_all(self.folder.root, self.settings.patience_s)
        if left:
            log.warning("event=orphans_ended processes=%d", left)
        shutil.rmtree(self.folder.staging, ignore_errors=True)
        for name, carried in self.memory.installed.items():
            recipe = load(self.folder, self.settings.thing, name, carried.version)
            if recipe is None:
                log.error("event=component_lost name=%s version=%s", name, carried.version)
                continue
            self.components[name] = self._component(recipe)
            self.components[name].start()

    def component_of(self, token: str) -> str | None:
        """Which component has a token."""
        return self._tokens.get(token)

    def configuration(self, name: str) -> dict[str, Any]:
        """A component's: this machine's, the recipe's defaults, what deployments merged; later ones win."""
        merged: dict[str, Any] = {}
        component = self.components.get(name)
        carried = self.memory.installed.get(name)
        for document in (
            self.settings.configuration.get(name, {}),
            component.recipe.configuration if component is not None else {},
            carried.merge if carried is not None else {},
        ):
            merge(merged, document)
        return merged

    async def apply(self, wanted: Mapping[str, Carried]) -> None:
        """Make the device have these components and no others.

        Everything is fetched and installed before any process is touched. A failure rolls nothing back.

        Raises:
            RolloutError: what failed, with the component's last words.
            OSError: the disk refuses.
        """
        self.memory.provided = {name: one.version for name, one in wanted.items() if name.startswith(PROVIDED)}
        ours = {name: one for name, one in wanted.items() if not name.startswith(PROVIDED)}
        recipes = {}
        for name, carried in ours.items():
            recipes[name] = await asyncio.to_thread(
                fetch, self.cloud, self.folder, self.settings.thing, name, carried.version
            )
        fresh = {}
        for name, carried in ours.items():
            before = self.memory.installed.get(name)
            if before is not None and before.version == carried.version:
                continue
            fresh[name] = self._component(recipes[name])
            if recipes[name].install is not None:
                await fresh[name].install()
                self.memory.installed[name] = carried
                self._waiting.add(name)
                self.memory.save(self.folder)
        for name in sorted(set(self.components) | set(self.memory.installed)):
            if name not in ours:
                await self._remove(name)
        started = []
        for name, carried in ours.items():
            if self._must_start(name, carried):
                started.append(await self._switch(name, carried, fresh.get(name) or self._component(recipes[name])))
        await self._settle(started)

    def clean_up(self) -> None:
        """Delete artifacts of versions that are not installed any more; only after a deployment that succeeded."""
        remove_others(self.folder, {(name, one.version) for name, one in self.memory.installed.items()})

    def poll(self) -> None:
        """Look after every process."""
        for component in self.components.values():
            component.poll()
            component.trim_log()

    async def stop(self) -> None:
        """End every process."""
        await asyncio.gather(*(component.stop() for component in self.components.values()))

    def versions(self) -> dict[str, str]:
        """What is installed: name to version."""
        return {**{name: one.version for name, one in self.memory.installed.items()}, **self.memory.provided}

    def states(self) -> dict[str, str]:
        """Of what is installed: name to state."""
        # Without a process: installed just now, or its packages are lost.
        found = {name: "INSTALLED" if name in self._waiting else "BROKEN" for name in self.memory.installed}
        found |= {name: component.state for name, component in self.components.items()}
        return found | dict.fromkeys(self.memory.provided, "RUNNING")

    def _must_start(self, name: str, carried: Carried) -> bool:
        component = self.components.get(name)
        if component is None or component.recipe.version != carried.version or component.state == "BROKEN":
            return True
        return self.memory.installed[name].merge != carried.merge

    async def _switch(self, name: str, carried: Carried, component: Component) -> Component:
        """Stop the version before and start this one; killed in between, the next boot starts this one."""
        self.memory.installed[name] = carried
        self.memory.save(self.folder)
        before = self.components.get(name)
        if before is not None:
            await before.stop()
            self._forget_tokens(name, component)
        self.components[name] = component
        self._waiting.discard(name)
        component.start()
        return component

    async def _remove(self, name: str) -> None:
        component = self.components.pop(name, None)
        if component is not None:
            await component.stop()
        self._forget_tokens(name, None)
        if self.memory.installed.pop(name, None) is not None:
            self.memory.save(self.folder)
        log.info("event=component_removed name=%s", name)

    async def _settle(self, started: list[Component]) -> None:
        """Wait until what was started runs, or has done its work."""
        deadline = time.monotonic() + SETTLE_MOST_S
        while True:
            self.poll()
            broken = [component for component in started if component.state == "BROKEN"]
            if broken:
                raise RolloutError("; ".join(component.error for component in broken))
            if all(self._has_settled(component) for component in started):
                return
            if time.monotonic() > deadline:
                names = [one.recipe.name for one in started if not self._has_settled(one)]
                raise RolloutError(f"{', '.join(names)}: want them running within {SETTLE_MOST_S:g} s, found them not")
            await asyncio.sleep(_POLL_S)

    def _has_settled(self, component: Component) -> bool:
        if component.state == "FINISHED":
            return True
        runs = component.reported == "RUNNING" or component.alive_s() >= self.settings.settle_s
        return component.state == "RUNNING" and runs

    def _component(self, recipe: ComponentRecipe) -> Component:
        token = secrets.token_hex(16)
        self._tokens[token] = recipe.name
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        if self.settings.storage.startswith("s3://"):  # in place of the token exchange service
            environment |= {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        environment |= {
            "PATH": f"{self.folder.root / 'bin'}:{os.environ.get('PATH', '/usr/local/bin:/usr/bin:/bin')}",
            "AWS_IOT_THING_NAME": self.settings.thing,
            "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": str(self._socket),
            "SVCUID": token,
        }
        return Component(recipe, self.folder, environment, self.settings.patience_s)

    def _forget_tokens(self, name: str, keep: Component | None) -> None:
        kept = None if keep is None else keep.token
        self._tokens = {token: who for token, who in self._tokens.items() if who != name or token == kept}


def merge(base: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Put a document over another, table by table."""
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            merge(base[key], value)
        elif isinstance(value, Mapping):
            base[key] = {}
            merge(base[key], value)
        else:
            base[key] = value
