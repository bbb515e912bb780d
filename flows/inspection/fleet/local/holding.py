"""Who runs a device: a lock that its nucleus holds, and the nucleus' name in it."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator

from inspection.errors import RolloutError
from inspection.fleet.local.folders import DeviceFolder
from inspection.fleet.local.processes import Identity, identify


@contextlib.contextmanager
def locked(folder: DeviceFolder) -> Iterator[None]:
    """Hold the device: two nuclei on one folder would fight over its processes.

    Raises:
        RolloutError: another nucleus has it.
    """
    with folder.lock.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RolloutError(f"{folder.root}: another nucleus runs this device; stop it first") from None
        me = identify(os.getpid())
        assert me is not None  # this process
        file.truncate(0)
        json.dump({"pid": me.pid, "started": me.started}, file)
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)  # this process may take a while to end


def holder(folder: DeviceFolder) -> Identity | None:
    """The nucleus that runs a device; None when none does."""
    try:
        found = Identity(**json.loads(folder.lock.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # never started, just starting, or its folder is gone
        return None
    return found if found.is_alive() else None
