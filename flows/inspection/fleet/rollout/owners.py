"""Who runs a rollout, and whether that process still lives."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspection.fleet.rollout.documents import dump_document, parse_document, take

_PROC = Path("/proc")


@dataclass(frozen=True)
class Owner:
    """A process that runs a rollout."""

    run: str  # pathspec of the flow's run, or who asked at a terminal
    origin: str  # run that this one resumes; "" = none
    host: str  # name, boot and process namespace of the machine: two containers are two hosts
    pid: int
    started: str  # of the process, as the kernel counts: another process with this number has another; "" = unknown

    @classmethod
    def here(cls, run: str, origin: str = "", pid: int | None = None) -> "Owner":
        """The owner that this process is.

        Args:
            run: pathspec of the flow's run, such as `DeployFlow/17`.
            origin: run that it resumes.
            pid: the process that lives as long as the run does, when this one is but one of its steps.
        """
        pid = os.getpid() if pid is None else pid
        return cls(run, origin, this_host(), pid, process_start(pid) or "")

    @property
    def is_dead(self) -> bool:
        """Whether the process is known to be gone: it ran on this host, and is not there any more."""
        return bool(self.started) and self.host == this_host() and process_start(self.pid) != self.started

    def belongs_to(self, other: "Owner") -> bool:
        """Whether both are the same run of a flow, or one resumes the other."""
        return bool({self.run, self.origin} & {other.run, other.origin} - {""})

    def __str__(self) -> str:
        return f"{self.run} (process {self.pid} on {self.host.split('/')[0]})"


def this_host() -> str:
    """This machine since it was started, as processes in one container see it."""
    boot = _read(_PROC / "sys/kernel/random/boot_id")
    try:
        namespace = str((_PROC / "self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}/{boot}/{namespace}"


def process_start(pid: int) -> str | None:
    """When a process was started, in clock ticks since boot; None when there is none or it ended already."""
    fields = _read(_PROC / str(pid) / "stat").rpartition(")")[2].split()  # the name before may hold anything
    if len(fields) < 20 or fields[0] in ("Z", "X"):
        return None
    return fields[19]


def dump_owner(owner: Owner, at: float) -> bytes:
    """The owner as a JSON document.

    Args:
        owner: the owner.
        at: unix time.
    """
    return dump_document({**{name: getattr(owner, name) for name in Owner.__dataclass_fields__}, "at": at})


def parse_owner(data: bytes, where: str) -> tuple[Owner, float]:
    """An owner and since when it is.

    Raises:
        RolloutError: it cannot be read.
    """
    document = parse_document(data, where)
    texts: dict[str, Any] = {name: take(document, name, str, where) for name in ("run", "origin", "host", "started")}
    return Owner(pid=take(document, "pid", int, where), **texts), take(document, "at", float, where)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
