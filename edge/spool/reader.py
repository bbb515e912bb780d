"""Reading the spool's database beside its writer."""

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from edge.spool.files import identity
from edge.spool.schema import FILE, connect

T = TypeVar("T")


class Reader:
    """One connection for the threads that ask; opened anew when another file took the place of the database.

    Args:
        folder: of the spool.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None
        self._closed = False
        self.generation = 0  # which opening of the file this is

    def ask(self, query: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """The query's answer; `otherwise` when there is no database.

        Raises:
            sqlite3.Error, OSError: the database cannot be read.
        """
        with self._lock:
            self._open()
            return otherwise if self._connection is None else query(self._connection)

    def close(self) -> None:
        """Let go of the database, for good."""
        with self._lock:
            self._closed = True
            self._let_go()

    def _open(self) -> None:
        if self._closed:
            return
        found = identity(self._path)
        if self._connection is not None and found != self._opened:
            self._let_go()
        if self._connection is None and found is not None:
            self._connection, self._opened = connect(self._path, writes=False), found
            self.generation += 1

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
