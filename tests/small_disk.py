"""A disk that is full: a real small file system where this user may mount one, else a real limit on file sizes."""

import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def mount(folder: Path, options: str) -> bool:
    """Mount an empty file system on the folder; False where this user may not."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0


def unmount(folder: Path) -> None:
    subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    """Change a mounted file system: `ro` or `rw`."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[None]:
    """While this lasts, no more than `size_bytes` fit into the folder, or into one file anywhere."""
    folder.mkdir(parents=True, exist_ok=True)
    if mount(folder, f"size={size_bytes}"):
        try:
            yield
        finally:
            unmount(folder)
        return
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
