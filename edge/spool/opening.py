"""Opening the spool's folder, at the start and after every fault of the disk."""

import fcntl
import logging
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from edge.errors import SpoolError
from edge.spool.files import identity, make_folder
from edge.spool.recovery import open_store, replace_damaged, rescue
from edge.spool.schema import is_damaged
from edge.spool.store import Store

LOCK_FILE = "lock"

log = logging.getLogger(__name__)


class Opener:
    """Opens the store of a folder that no other process writes to.

    Args:
        folder: of the spool.
        wall_clock: unix seconds.
    """

    def __init__(self, folder: Path, wall_clock: Callable[[], float]) -> None:
        self._folder = folder
        self._wall_clock = wall_clock
        self._lock_file: int | None = None
        self._orphans: list[Store] = []  # their files are gone, but can still be read
        self._damage: Exception | None = None  # what is wrong with the database's content
        self.notice: str | None = None  # what somebody should look at

    def open(self) -> Store:
        """The store, with what can be saved of the ones before it.

        Raises:
            SpoolError: the folder is in use, or of another major version.
            sqlite3.Error, OSError: the disk refuses.
        """
        self._lock()
        if self._damage is not None:
            store, notice = replace_damaged(self._folder, self._damage, self._wall_clock)
            self._damage = None
        else:
            store, notice = open_store(self._folder, self._wall_clock)
        self.notice = notice or self.notice
        try:
            for orphan in self._orphans:
                rescue(orphan.connection, store, tables=("results", "folded", "gaps", "counters", "known"))
            for name, count in store.tidy_images().items():
                log.warning("event=spool_tidied %s=%d", name.replace("-", "_"), count)
        except BaseException:
            store.close()
            raise
        self._close_orphans()
        return store

    def let_go(self, store: Store, error: Exception) -> None:
        """Close the store after an error, unless its file is gone: its rows are then read when there is a new one."""
        if is_damaged(error):
            self._damage = error
        try:
            if store.is_in_place():
                store.close()
            else:
                self._orphans.append(store)
        except (OSError, sqlite3.Error) as close_error:
            log.error("event=spool_close_failed error=%r", close_error)

    def close(self) -> None:
        """Let go of the folder."""
        self._close_orphans()
        self._unlock()

    def _close_orphans(self) -> None:
        for orphan in self._orphans:
            orphan.close()
        self._orphans = []

    def _lock(self) -> None:
        """Make sure that no other process writes to this folder; anew when the folder is another one."""
        make_folder(self._folder)
        path = self._folder / LOCK_FILE
        if self._lock_file is not None:
            status = os.fstat(self._lock_file)
            if identity(path) == (status.st_dev, status.st_ino):
                return
            self._unlock()
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise SpoolError(
                f"{self._folder}: another inspector uses this spool; stop it, or give each its own folder"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        self._lock_file = descriptor

    def _unlock(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None
