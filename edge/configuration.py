"""The settings of a running inspector: from file, nucleus and flags, read again when one of them changes."""

import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.errors import SettingsError
from edge.settings import InspectorSettings, changes, read_file, read_settings

_log = logging.getLogger(__name__)

# What is taken up while parts are inspected. The rest decides which threads, files and connections there are.
LIVE = (
    "deadline_ms",
    "max_unacknowledged",
    "max_pixels",
    "metrics_every_s",
    "health_every_s",
    "log_level",
    "output.alarm_after",
)
LIVE_TABLES = ("review.",)


class Configuration:
    """The settings now; `poll` tells of changes.

    Args:
        flags: of the command line; they win.
        file: TOML or JSON, or None.
        nucleus: this component's configuration, or None.
        memory: file for the nucleus' last configuration without faults. A deployment with faults must not stop a line
            at the next restart: then that configuration counts, and `fault` says why.

    Raises:
        SettingsError: the settings have faults, and there are none in memory.
    """

    def __init__(
        self,
        flags: Mapping[str, Any],
        file: Path | None = None,
        nucleus: Mapping[str, Any] | None = None,
        memory: Path | None = None,
    ) -> None:
        self._flags = flags
        self._file = file
        self._nucleus: Mapping[str, Any] = nucleus or {}
        self._memory = memory
        self._lock = threading.Lock()
        self._offered: Mapping[str, Any] | None = None
        self._stamp = self._look()
        self.fault = ""  # why the last change was not taken up
        try:
            self.settings = self._read()
        except SettingsError as error:
            remembered = self._recall()
            if remembered is None:
                raise
            self.fault = str(error)
            _log.error("event=settings_refused reason=%r", self.fault)
            self._nucleus = remembered
            self.settings = self._read()
        else:
            self._remember()

    def offer(self, nucleus: Mapping[str, Any]) -> None:
        """The nucleus has another configuration for this component. May be called from any thread."""
        with self._lock:
            self._offered = nucleus

    def poll(self) -> tuple[InspectorSettings, list[str]] | None:
        """The new settings and the names of those that need a restart; None when nothing changed.

        Settings with faults change nothing: `fault` says what is wrong with them.
        """
        with self._lock:
            offered, self._offered = self._offered, None
        stamp = self._look()
        if offered is None and stamp == self._stamp:
            return None
        self._stamp = stamp
        before = self._nucleus
        if offered is not None:
            self._nucleus = offered
        try:
            settings = self._read()
        except SettingsError as error:
            self._nucleus = before
            self.fault = str(error)
            _log.error("event=settings_refused reason=%r", self.fault)
            return None
        self.fault = ""
        self._remember()
        changed = changes(self.settings, settings)
        if not changed:
            return None
        later = [name for name in changed if not is_live(name)]
        for name, value in changed.items():
            _log.info("event=setting_changed name=%s value=%r takes_effect=%r", name, value, _when(name))
        self.settings = settings
        return settings, later

    def _read(self) -> InspectorSettings:
        documents = [read_file(self._file)] if self._file is not None else []
        return read_settings(*documents, self._nucleus, self._flags)

    def _remember(self) -> None:
        """Keep the nucleus' configuration, which has no faults."""
        if self._memory is None or self._recall() == self._nucleus:
            return
        staged = self._memory.with_name(self._memory.name + ".partial")
        try:
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            staged.write_text(json.dumps(self._nucleus), encoding="utf-8")
            staged.replace(self._memory)
        except OSError as error:  # a full disk: only the next faulty deployment would miss it
            _log.warning("event=settings_not_kept reason=%r", str(error))

    def _recall(self) -> dict[str, Any] | None:
        if self._memory is None:
            return None
        try:
            found = json.loads(self._memory.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # never kept, or cut by a power loss
            return None
        return found if isinstance(found, dict) else None

    def _look(self) -> tuple[int, int, int] | None:
        """What changes when the file does."""
        if self._file is None:
            return None
        try:
            found = self._file.stat()
        except OSError:  # replaced at this moment, or gone: the settings stay
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns


def is_live(name: str) -> bool:
    """Whether a setting is taken up while parts are inspected."""
    return name in LIVE or name.startswith(LIVE_TABLES)


def _when(name: str) -> str:
    return "now" if is_live(name) else "after a restart"
