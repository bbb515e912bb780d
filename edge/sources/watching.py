"""Tells what happens in one folder, as Linux reports it (inotify).

Through ctypes: three functions of the C library that have not changed since 2005, and one package less on the device.
A network share tells only of what this machine does; whoever needs the rest looks at the folder as well.

Source: inotify(7).
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
from dataclasses import dataclass, field

from edge.errors import SourceError

_MODIFY, _CLOSE_WRITE, _MOVED_TO = 0x2, 0x8, 0x80
_DELETE_SELF, _MOVE_SELF = 0x400, 0x800
_UNMOUNT, _OVERFLOW, _IGNORED = 0x2000, 0x4000, 0x8000
_IS_DIR = 0x40000000
_ONLY_DIR = 0x01000000
_GONE = _DELETE_SELF | _MOVE_SELF | _UNMOUNT | _IGNORED
_MASK = _MODIFY | _CLOSE_WRITE | _MOVED_TO | _DELETE_SELF | _MOVE_SELF | _ONLY_DIR
_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name
_READ_BYTES = 64 * 1024
_NO_INSTANCE_LEFT = {errno.EMFILE: "fs.inotify.max_user_instances", errno.ENOSPC: "fs.inotify.max_user_watches"}


@dataclass
class Changes:
    """What happened since the last wait."""

    complete: list[bytes] = field(default_factory=list)  # names: closed by their writer, or moved in
    modified: list[bytes] = field(default_factory=list)  # names: written to and not closed yet
    lost: bool = False  # the kernel dropped some reports: look at the folder
    gone: bool = False  # the folder itself was removed, moved or unmounted: nothing more will come


class Waker:
    """Ends a wait from another thread."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        """The end to wait on."""
        return self._read

    def wake(self) -> None:
        """End the wait that goes on, or the next one."""
        try:
            os.write(self._write, b"\0")
        except BlockingIOError:
            return  # full: it will wake anyway

    def clear(self) -> None:
        """Forget past calls."""
        try:
            os.read(self._read, 4096)
        except BlockingIOError:
            return  # there were none

    def close(self) -> None:
        """Let go of both ends; no thread may wait any more."""
        os.close(self._read)
        os.close(self._write)


class FolderWatch:
    """A watch on one folder, not on those below it."""

    def __init__(self, folder: bytes) -> None:
        """Begin to watch.

        Raises:
            SourceError: not Linux, no such folder, or the system allows no more watches.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(libc, "inotify_init1"):
            raise SourceError("this system has no inotify; the folder is looked at in intervals")
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise _failure(folder, ctypes.get_errno())
        if libc.inotify_add_watch(self._fd, ctypes.c_char_p(folder), ctypes.c_uint32(_MASK)) < 0:
            code = ctypes.get_errno()
            os.close(self._fd)
            raise _failure(folder, code)

    def fileno(self) -> int:
        """What to wait on."""
        return self._fd

    def read(self) -> Changes:
        """What happened since the last call; returns at once."""
        changes = Changes()
        while True:
            try:
                data = os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                return changes
            except InterruptedError:
                continue
            _collect(data, changes)

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)


def wait_for(watch: FolderWatch | None, waker: Waker, timeout_s: float) -> Changes:
    """Wait until something happens in the folder, somebody wakes this thread, or the time is over."""
    poll = select.poll()
    poll.register(waker.fileno(), select.POLLIN)
    if watch is not None:
        poll.register(watch.fileno(), select.POLLIN)
    poll.poll(max(0.0, timeout_s) * 1000)
    waker.clear()
    return watch.read() if watch is not None else Changes()


def _collect(data: bytes, changes: Changes) -> None:
    offset = 0
    while offset < len(data):
        _, mask, _, length = _EVENT.unpack_from(data, offset)
        offset += _EVENT.size
        name = data[offset : offset + length].rstrip(b"\0")
        offset += length
        if mask & _OVERFLOW:
            changes.lost = True
        elif mask & _GONE:
            changes.gone = True
        elif mask & _IS_DIR or not name:
            continue
        elif mask & (_CLOSE_WRITE | _MOVED_TO):
            changes.complete.append(name)
        else:
            changes.modified.append(name)


def _failure(folder: bytes, code: int) -> SourceError:
    limit = _NO_INSTANCE_LEFT.get(code)
    what = f"; raise {limit} with sysctl" if limit else ""
    return SourceError(f"{os.fsdecode(folder)!r}: cannot watch: {os.strerror(code)}{what}")
