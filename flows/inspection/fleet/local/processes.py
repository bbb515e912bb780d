"""Processes of a device: started in a session of their own, known by pid and start time, ended with all children.

A pid alone is no name: after a crash it may be somebody else's. Every process of a device carries the device's folder
in its environment, so that those whose nucleus was killed are found again, grandchildren too.

Source: proc(5) for /proc/PID/stat (state is field 3, start time field 22) and /proc/PID/environ.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

DEVICE, COMPONENT = "LINESIDE_DEVICE", "LINESIDE_COMPONENT"  # variables of the environment
_POLL_S = 0.05
_GONE_S = 10.0  # for the system to take away what was killed


@dataclass(frozen=True)
class Identity:
    """One process, now and for ever."""

    pid: int
    started: int  # clock ticks after the machine's start

    def is_alive(self) -> bool:
        """Whether it runs; one that has ended and was not waited for does not."""
        return identify(self.pid) == self

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it still is this process."""
        try:
            descriptor = os.pidfd_open(self.pid)  # from now on the pid cannot become another process'
        except ProcessLookupError:
            return
        try:
            if self.is_alive():
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


def identify(pid: int) -> Identity | None:
    """The process that has this pid now; None when there is none, or it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return None if fields[0] in "ZX" else Identity(pid, int(fields[19]))


def spawn(command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a device's process, the leader of a session of its own.

    Args:
        command: program and arguments.
        folder: to run in.
        environment: all of it; whose process it is must be in it, see `mark`.
        log: gets stdout and stderr at its end.

    Raises:
        OSError: it cannot be started.
    """
    with log.open("ab") as stream:
        return subprocess.Popen(
            list(command),
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def mark(device: Path, component: str) -> dict[str, str]:
    """Variables that tell whose process it is."""
    return {DEVICE: str(device), COMPONENT: component}


def processes_of(device: Path, component: str = "") -> list[Identity]:
    """All processes of a device's component ("": of all of them) that this user may see, children of children too."""
    marks = mark(device, component)
    wanted = {f"{name}={value}".encode() for name, value in marks.items() if value}
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        try:
            who = identify(int(entry.name))
            carries = wanted <= set(Path(entry.path, "environ").read_bytes().split(b"\0"))
        except OSError:  # ended meanwhile, or not ours
            continue
        if who is not None and carries and who.pid != os.getpid():
            found.append(who)
    return found


def end(processes: Iterable[Identity], patience_s: float) -> None:
    """SIGTERM, then SIGKILL for those that are still there."""
    rest = [one for one in processes if one.is_alive()]
    for one in rest:
        one.send(signal.SIGTERM)
    deadline = time.monotonic() + patience_s
    while (rest := [one for one in rest if one.is_alive()]) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    for one in rest:
        one.send(signal.SIGKILL)


def end_all(device: Path, patience_s: float, component: str = "") -> int:
    """End every process of a device, or of one of its components; how many there were.

    Args:
        device: its folder.
        patience_s: from SIGTERM to SIGKILL.
        component: its name; "": all.
    """
    first = processes_of(device, component)
    end(first, patience_s)
    deadline = time.monotonic() + _GONE_S
    while (
        rest := processes_of(device, component)
    ) and time.monotonic() < deadline:  # those that were started meanwhile
        end(rest, 0.0)
        time.sleep(_POLL_S)
    return len(first)
