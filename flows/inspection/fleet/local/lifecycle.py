"""A component's life on a device: install, run, what becomes of it when it ends.

As nucleus lite does it: an install script has three tries; `run` is started again only after a failure, three starts
in an hour, then it is BROKEN; an end with status 0 or by SIGTERM is a good one.
"""

import asyncio
import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from inspection.errors import RolloutError
from inspection.fleet.local.folders import DeviceFolder
from inspection.fleet.local.processes import end_all, mark, spawn
from inspection.fleet.local.recipe_reading import ComponentRecipe, Step

log = logging.getLogger(__name__)

INSTALL_TRIES = 3
STARTS, STARTS_WITHIN_S = 3, 3600.0
_AGAIN_S = 1.0  # before the next try or start
_POLL_S = 0.05
_TAIL_BYTES, _TAIL_LINES = 4000, 12
_GOOD_ENDS = (0, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, -signal.SIGPIPE)  # Source: systemd.service(5)
MAX_LOG_BYTES = 5_000_000


class Component:
    """One installed component version.

    Args:
        recipe: of it.
        folder: of the device.
        environment: of its processes.
        patience_s: from SIGTERM to SIGKILL.
    """

    def __init__(
        self, recipe: ComponentRecipe, folder: DeviceFolder, environment: Mapping[str, str], patience_s: float
    ) -> None:
        self.recipe = recipe
        self.token = environment.get("SVCUID", "")
        self.state = "INSTALLED"  # RUNNING, FINISHED, STOPPING, ERRORED (about to start again), BROKEN
        self.reported = ""  # what it said of itself since it was started
        self.error = ""  # last words of a run that failed
        self._folder = folder
        self._environment = {**environment, **mark(folder.root, recipe.name)}
        self._patience_s = patience_s
        self._process: subprocess.Popen[bytes] | None = None
        self._starts: list[float] = []
        self._started_s = 0.0
        self._again_s = 0.0
        self._log_from = 0

    @property
    def log(self) -> Path:
        """Its log file."""
        return self._folder.log(self.recipe.name)

    def alive_s(self) -> float:
        """For how long its process has been running; 0 when there is none."""
        return time.monotonic() - self._started_s if self._process is not None else 0.0

    async def install(self) -> None:
        """Run the install script.

        Raises:
            RolloutError: it failed three times; with its last words.
        """
        step = self.recipe.install
        if step is None:
            return
        for number in range(1, INSTALL_TRIES + 1):
            self._log_from = _size(self.log)
            fault = await self._try(step)
            if not fault:
                log.info("event=component_installed name=%s version=%s", self.recipe.name, self.recipe.version)
                return
            log.warning("event=install_failed name=%s try=%d reason=%r", self.recipe.name, number, fault)
            if number < INSTALL_TRIES:
                await asyncio.sleep(_AGAIN_S)
        raise RolloutError(
            f"{self.recipe.name} {self.recipe.version}: install failed {INSTALL_TRIES} times, {fault}: {self._tail()}"
        )

    def start(self) -> None:
        """Start `run`; its end is seen by `poll`."""
        self._starts = []
        self._start()

    async def stop(self) -> None:
        """End its processes, those that they started too."""
        self.state = "STOPPING"
        ended = await asyncio.to_thread(self._end_all)
        self._process = None
        self.state = "FINISHED"
        if ended:
            log.info("event=component_stopped name=%s version=%s", self.recipe.name, self.recipe.version)

    def poll(self) -> None:
        """Look after the process: what has ended, and what is to be started again."""
        if self._process is None:
            if self.state == "ERRORED" and time.monotonic() >= self._again_s:
                self._start()
            return
        status = self._process.poll()
        if status is None:
            return
        self._process = None
        if status in _GOOD_ENDS:
            self.state = "FINISHED"
            return
        end_all(self._folder.root, 0.0, self.recipe.name)  # what it left behind
        now = time.monotonic()
        recent = [start for start in self._starts if now - start < STARTS_WITHIN_S]
        why = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        self.error = f"{self.recipe.name} {self.recipe.version}: run ended with {why}: {self._tail()}"
        self.state = "BROKEN" if len(recent) >= STARTS else "ERRORED"
        self._again_s = now + _AGAIN_S
        log.warning("event=component_failed name=%s state=%s error=%r", self.recipe.name, self.state, self.error)

    def trim_log(self) -> None:
        """Keep the log from growing without end; its processes write on at its end."""
        if _size(self.log) > MAX_LOG_BYTES:
            data = self.log.read_bytes()
            self.log.with_suffix(".log.1").write_bytes(data)
            os.truncate(self.log, 0)
            self._log_from = 0

    def _start(self) -> None:
        step = self.recipe.run
        self.reported = ""
        if step is None:
            self.state = "FINISHED"
            return
        now = time.monotonic()
        self._starts = [start for start in self._starts if now - start < STARTS_WITHIN_S] + [now]
        self._log_from = _size(self.log)
        try:
            self._process = self._spawn(step)
        except OSError as error:
            self.state, self.error = "BROKEN", f"{self.recipe.name} {self.recipe.version}: cannot be started: {error}"
            return
        self._started_s = now
        self.state = "RUNNING"
        log.info("event=component_started name=%s version=%s", self.recipe.name, self.recipe.version)

    async def _try(self, step: Step) -> str:
        """Run the install script once; what went wrong, or ""."""
        try:
            process = self._spawn(step)
        except OSError as error:
            return f"it cannot be started: {error}"
        try:
            deadline = time.monotonic() + step.timeout_s
            while (status := process.poll()) is None:
                if time.monotonic() > deadline:
                    return f"it took longer than {step.timeout_s:g} s"
                await asyncio.sleep(_POLL_S)
            return "" if status == 0 else f"exit status {status}"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # our own child, not yet waited for: the pid is its
                process.wait()

    def _spawn(self, step: Step) -> subprocess.Popen[bytes]:
        environment = {**self._environment, **step.environment}
        return spawn(["/bin/sh", "-c", step.script], self._folder.work(self.recipe.name), environment, self.log)

    def _end_all(self) -> int:
        ended = end_all(self._folder.root, self._patience_s, self.recipe.name)
        if self._process is not None:
            self._process.wait()
        return ended

    def _tail(self) -> str:
        """Last lines of the log since the last start."""
        with self.log.open("rb") as file:
            file.seek(max(self._log_from, _size(self.log) - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
        return " | ".join(text.strip().splitlines()[-_TAIL_LINES:]) or "it said nothing"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
