"""Parts from a folder of image files."""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes

from edge.errors import SourceError
from edge.part import Part, SourceHealth
from edge.sources.filing import move
from edge.sources.listing import Candidate, look_at
from edge.sources.lookout import Lookout
from edge.sources.settings import FolderSettings

if TYPE_CHECKING:
    from edge.results import Result

log = logging.getLogger(__name__)

_READ_TRIES = 3  # of a file that cannot be read for a reason that may pass
_READ_AGAIN_S = 5.0
_MOVE_AGAIN_S = 60.0
_OLDEST_S = 946_684_800.0  # 2000-01-01: a file time before it was never set
_AHEAD_S = 86_400.0  # a file time further in the future than this is wrong


class _ChangedError(Exception):
    """The file is not any more what the lookout saw."""


class FolderSource:
    """Image files, oldest first; what happens to a finished one is a setting.

    A file's identity (its source key) is its name, its time and its content: the file that a kill left in the folder
    gets its stored result, a new file of the same name is another part.
    """

    keeps_parts = True

    def __init__(self, folder: Path, settings: FolderSettings, station: str | None = None, view: str | None = None):
        """Begin to look at the folder.

        Raises:
            SourceError: a folder that is read once does not exist, or `done` would be inspected again.
        """
        self._folder = Path(os.path.abspath(folder))  # noqa: PTH100 - a link to a folder stays a link
        if settings.once and not self._folder.is_dir():
            raise SourceError(f"{str(folder)!r}: want a folder of images, found none")
        done = Path(settings.done) if settings.done else self._folder / "done"
        self._done = Path(os.path.abspath(done))  # noqa: PTH100
        if settings.recursive and (self._done == self._folder or self._done in self._folder.parents):
            raise SourceError(
                f"done: with recursive, finished files in {str(self._done)!r} would be inspected again; name a folder "
                "that does not hold the source"
            )
        self.name = f"folder:{self._folder}"
        self._settings, self._station, self._view = settings, station, view
        self._counts: Counter[str] = Counter()
        self._tries: dict[int, int] = {}  # of reading, by mark
        self._problem = ""  # why the last finished file could not be put away
        self._lookout = Lookout(os.fsencode(self._folder), settings, frozenset({os.fsencode(self._done)}))

    def next_part(self, timeout_s: float) -> Part | None:
        """The oldest file, read; None when there is none within the timeout."""
        end_s = time.monotonic() + timeout_s
        while True:
            candidate = self._lookout.take(max(0.0, end_s - time.monotonic()))
            if candidate is None:
                return None
            part = self._read(candidate)
            if part is not None:
                self._counts["parts"] += 1
                return part

    def acknowledge(self, part: Part, result: Result) -> None:
        """Move, keep or delete the file, now that its result is durable."""
        candidate = part.handle
        if not isinstance(candidate, Candidate):
            raise SourceError(f"{part.name}: not a part of {self.name}")
        if self._settings.after == "keep":
            self._lookout.keep(candidate)
            return
        try:
            current = look_at(os.fsencode(self._folder), candidate.name)
            if current is None or current.mark != candidate.mark:
                self._counts["vanished" if current is None else "replaced"] += 1
            elif self._settings.after == "delete":
                self._path(candidate).unlink()
                self._counts["deleted"] += 1
            else:
                below = Path(os.fsdecode(candidate.name)).parent
                move(self._path(candidate), self._done / result.verdict / below, str(result.sequence))
                self._counts["moved"] += 1
        except FileNotFoundError:
            self._counts["vanished"] += 1
        except OSError as error:
            self._leave(candidate, error)
            return
        self._problem = ""
        self._lookout.forget(candidate)

    def finished(self) -> bool:
        """Whether a folder that is read once has no more files."""
        return self._lookout.finished()

    def health(self) -> SourceHealth:
        """Whether the folder answers and finished files can be put away."""
        state = self._lookout.state()
        counts = {**self._counts, "waiting": state.waiting, "settling": state.settling, "ignored": state.ignored}
        counts["unreadable"] = state.unreadable
        problem = state.error or self._problem
        if not problem and state.unreadable:
            problem = f"{self.name}: {state.unreadable} entries cannot be looked at; check the disk or share"
        more = " and more" if state.more else ""
        how = "watched" if state.watching else "polled"
        message = problem or f"{self.name} {how}, {state.waiting}{more} waiting"
        return SourceHealth(not problem, message, counts)

    def close(self) -> None:
        """Stop looking."""
        self._lookout.close()

    def _path(self, candidate: Candidate) -> Path:
        return self._folder / os.fsdecode(candidate.name)

    def _leave(self, candidate: Candidate, error: OSError) -> None:
        """A finished file that cannot be put away stays; it is tried again later, and its result is known then."""
        self._counts["not_put_away"] += 1
        self._problem = f"{_printable(candidate.name)}: cannot {self._settings.after}: {error.strerror}"
        log.warning("event=file_not_put_away reason=%s", self._problem)
        if self._settings.once:
            self._lookout.keep(candidate)
        else:
            self._lookout.postpone(candidate, _MOVE_AGAIN_S)

    def _read(self, candidate: Candidate) -> Part | None:
        """The part of a file; None when there is no part after all, or not yet."""
        name, started_s = _printable(candidate.name), time.monotonic()
        data, fault = None, None
        try:
            fault = self._refusal(candidate, name)
            if fault is None:
                data = _read_whole(self._path(candidate), candidate)
        except _ChangedError:
            self._counts["changed"] += 1
            self._lookout.forget(candidate)  # it will be found as it is then
            return None
        except (FileNotFoundError, NotADirectoryError):
            self._counts["vanished"] += 1
            self._lookout.forget(candidate)
            return None
        except OSError as error:
            tries = self._tries.get(candidate.mark, 0) + 1
            passing = error.errno not in (errno.EACCES, errno.EPERM, errno.ELOOP)
            if passing and tries < _READ_TRIES:
                self._tries[candidate.mark] = tries
                self._counts["read_again"] += 1
                log.warning("event=file_not_read file=%s try=%d reason=%s", name, tries, error.strerror)
                self._lookout.postpone(candidate, _READ_AGAIN_S)
                return None
            fault = ("source_unreadable", f"{name}: cannot read: {error.strerror}")
        self._tries.pop(candidate.mark, None)
        if fault is not None:
            self._counts[fault[0]] += 1
        return Part(
            source_key=_key(candidate, data),
            name=name,
            captured_at=_captured_at(candidate),
            started_s=started_s,
            data=data,
            fault=fault,
            station=self._station,
            view=self._view,
            handle=candidate,
        )

    def _refusal(self, candidate: Candidate, name: str) -> tuple[str, str] | None:
        if candidate.is_link:
            return "source_link", f"{name}: want a file, found a symbolic link; copy or move the picture itself"
        if candidate.size > self._settings.max_file_bytes:
            limit = self._settings.max_file_bytes
            return "source_too_large", f"{name}: want at most {limit} bytes, found {candidate.size}"
        if candidate.size == 0:
            return "source_empty", f"{name}: the file is empty"
        return None


def _read_whole(path: Path, candidate: Candidate) -> bytes:
    """The content, if the file is and stays what the lookout saw."""
    # A name may be of something else by now, and merely opening a FIFO or a device does something: O_PATH only points.
    pointer = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _expect(pointer, candidate)
        descriptor = os.open(f"/proc/self/fd/{pointer}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(pointer)
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - opened without following links
        pieces, left = [], candidate.size
        while left:
            piece = file.read(left)
            if not piece:
                raise _ChangedError
            pieces.append(piece)
            left -= len(piece)
        _expect(file.fileno(), candidate)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _expect(descriptor: int, candidate: Candidate) -> None:
    status = os.fstat(descriptor)
    same = status.st_size == candidate.size and status.st_mtime_ns == candidate.mtime_ns
    if not (same and stat.S_ISREG(status.st_mode)):
        raise _ChangedError


def _key(candidate: Candidate, data: bytes | None) -> str:
    """Identity of a file: name, size and time, and the content where the time is too coarse (FAT has 2 s)."""
    content = "unread" if data is None else f"{zlib.crc32(data):08x}"
    return f"file:{quote_from_bytes(candidate.name)}#{candidate.mtime_ns}-{candidate.size}-{content}"


def _captured_at(candidate: Candidate) -> float:
    """The file's time; now, if that cannot be true."""
    written, now = candidate.mtime_ns / 1e9, time.time()
    return written if _OLDEST_S < written < now + _AHEAD_S else now


def _printable(name: bytes) -> str:
    """A name as text on one line."""
    text = name.decode("utf-8", "backslashreplace")
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
