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


@contextlib.contextmanager
def locked(state: Path) -> Iterator[None]:
    """Keep a second inspector out of the same folder; the kernel lets go when this process ends, however it ends.

    A disk that is full or read-only must not stop a line: then there may be no lock, and nobody else writes either.

    Raises:
        SettingsError: another inspector uses it, or this user may not.
    """
    descriptor = None
    try:
        state.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(state / "inspector.lock", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.ENOSPC, errno.EDQUOT):
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
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)
