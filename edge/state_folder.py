"""The inspector's state folder, which one process at a time may use."""

import contextlib
import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from edge.errors import SettingsError

_log = logging.getLogger(__name__)

# Only another setting, or another right, can help with these; a disk may come back.
_OF_THE_SETTING = (
    errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL
)  # fmt: skip


@contextlib.contextmanager
def locked(state: Path) -> Iterator[None]:
    """Keep a second inspector out of the same folder; the kernel lets go when this process ends, however it ends.

    A disk that is full, read-only or broken must not stop a line: then there may be no lock, and nobody else writes
    either.

    Raises:
        SettingsError: another inspector uses it, this user may not, or it is no folder.
    """
    descriptor = None
    try:
        state.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(state / "inspector.lock", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno in _OF_THE_SETTING:
            raise SettingsError(
                f"state {state}: cannot use this folder: {error.strerror}; name one that this user may write to"
            ) from error
        _log.error("event=state_not_locked folder=%r reason=%r", str(state), error.strerror)
    try:
        if descriptor is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise SettingsError(f"{state}: another inspector uses this state folder; give each its own") from error
            except OSError as error:  # a share that keeps no locks
                _log.error("event=state_not_locked folder=%r reason=%r", str(state), error.strerror)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)
