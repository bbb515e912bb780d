"""Kept images: files beside the database, and the queue that the uploader's process takes them from.

An image is a file `images/<sequence><suffix>` and a row. The file is written and synced before the row is committed, so
a row always has its file; a file without a row is what a crash left and is removed at the next start.

The uploader never writes to the database, so that it can neither hold up nor be held up by the inspector: it confirms
an image by emptying its file under the name `<sequence>.sent`, and the inspector removes row and file at leisure.
"""

import json
import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edge.spool.files import identity, sync_folder
from edge.spool.schema import FILE, check_version, connect

FOLDER = "images"
SENT_SUFFIX = ".sent"

Reason = Literal["review", "fail", "error", "audit", "shadow"]


@dataclass(frozen=True)
class KeptImage:
    """An image that is to go back for review."""

    data: bytes  # the encoded file
    suffix: str  # ".jpg", ".png", ...
    reason: Reason
    probability: float  # with which a part like it is kept, (0, 1]
    sidecar: Mapping[str, Any]  # JSON values; the spool sets `id` and `result` to those of the numbered result


@dataclass(frozen=True)
class WaitingImage:
    """An image that the store has not confirmed."""

    sequence: int
    path: Path
    sidecar: dict[str, Any]
    verdict: str
    captured_at: float  # unix seconds, wall clock
    thing: str
    line: str
    bytes: int


@dataclass(frozen=True)
class ImageFigures:
    """The upload backlog."""

    waiting: int
    bytes: int


class ImageQueue:
    """The images that wait, oldest first, for the uploader's child process.

    Args:
        folder: of a spool. It may be in use by an inspector, or not be there yet.

    Raises:
        SpoolError: the spool is of another major version.
        sqlite3.Error: the database cannot be read now.
    """

    def __init__(self, folder: Path) -> None:
        self._images = folder / FOLDER
        self._database = folder / FILE
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None
        self._connect()

    def waiting(self, limit: int) -> list[WaitingImage]:
        """Up to `limit` images that were not confirmed, oldest first.

        An image may vanish before it is read, when the spool needs the room for something of more value: then its
        path gives FileNotFoundError, and it is no longer listed.

        Raises:
            sqlite3.Error: the database cannot be read now.
        """
        found: list[WaitingImage] = []
        present = self._present()
        for row in self._rows(sorted(present)):
            sequence, suffix, size, verdict, captured_at, thing, line, sidecar = row
            path = self._images / f"{sequence}{suffix}"
            if path.name == present[sequence]:
                found.append(WaitingImage(sequence, path, json.loads(sidecar), verdict, captured_at, thing, line, size))
            if len(found) >= limit:
                break
        return found

    def confirm(self, sequence: int) -> None:
        """The store has the image, durably: give its room back. Confirming twice does no harm.

        Raises:
            OSError: the disk refuses; the image stays listed.
        """
        name = self._present().get(sequence)
        if name is None:
            return
        sent = self._images / f"{sequence}{SENT_SUFFIX}"
        (self._images / name).replace(sent)
        os.truncate(sent, 0)
        sync_folder(self._images)

    def figures(self) -> ImageFigures:
        """How many images wait, and their bytes."""
        sizes = [(self._images / name) for name in self._present().values()]
        total = 0
        for path in sizes:
            try:
                total += path.stat().st_size
            except FileNotFoundError:  # the spool has just evicted it
                continue
        return ImageFigures(len(sizes), total)

    def close(self) -> None:
        """Let go of the database."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> None:
        """Open the database; open it anew when the inspector had to replace a damaged one."""
        file = identity(self._database)
        if file != self._opened:
            self.close()
        if self._connection is None and file is not None:
            connection = connect(self._database, writes=False)
            try:
                check_version(connection, self._database)
            except BaseException:
                connection.close()
                raise
            self._connection, self._opened = connection, file

    def _present(self) -> dict[int, str]:
        return image_files(self._images) if self._images.is_dir() else {}

    def _rows(self, sequences: list[int]) -> list[tuple[Any, ...]]:
        """Rows of the files that are there; a file without a row is not yet committed."""
        self._connect()
        if self._connection is None or not sequences:
            return []
        cursor = self._connection.execute(
            "SELECT sequence, suffix, bytes, verdict, captured_at, thing, line, sidecar FROM images"
            " WHERE sequence BETWEEN ? AND ? ORDER BY sequence",
            (sequences[0], sequences[-1]),
        )
        known = set(sequences)
        return [row for row in cursor.fetchall() if row[0] in known]


def image_files(folder: Path) -> dict[int, str]:
    """Sequence to file name of the images in the folder that wait; what else lies there is left out."""
    return {sequence: name for sequence, name in _numbered(folder) if not name.endswith(SENT_SUFFIX)}


def confirmed_files(folder: Path) -> list[int]:
    """Sequences of the images that the uploader has confirmed."""
    return sorted(sequence for sequence, name in _numbered(folder) if name.endswith(SENT_SUFFIX))


def _numbered(folder: Path) -> list[tuple[int, str]]:
    names = [entry.name for entry in os.scandir(folder)]
    return [(int(name.partition(".")[0]), name) for name in names if name.partition(".")[0].isdecimal()]
