"""Reading the spool's database beside its writer."""

import os
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

    On a disk that is read-only from the start SQLite cannot open a database with a write-ahead log, because it shares
    the log's index through a file. It is then read as a file that nobody changes, without what is only in the log.

    Args:
        folder: of the spool.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None
        self._frozen = False  # read as a file that nobody changes
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
        if self._connection is not None and (found != self._opened or (self._frozen and self._is_writable())):
            self._let_go()
        if self._connection is None and found is not None:
            self._connection, self._frozen = self._connect()
            self._opened = found
            self.generation += 1

    def _connect(self) -> tuple[sqlite3.Connection, bool]:
        connection = connect(self._path, writes=False)
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
            return connection, False
        except sqlite3.OperationalError:
            connection.close()
            if self._is_writable():
                raise
        except BaseException:
            connection.close()
            raise
        return connect(self._path, writes=False, frozen=True), True

    def _is_writable(self) -> bool:
        return os.access(self._path.parent, os.W_OK)

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
