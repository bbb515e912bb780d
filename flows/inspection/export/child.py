"""Run a part of the export in a process of its own and turn its failure into one clear error.

Conversion runs apart because its libraries write to the terminal, warn, keep a gigabyte of memory and, on a bad graph,
may end the process; scoring runs apart because the device has other packages than this process.
"""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from inspection.errors import ConversionError, StorageError

log = logging.getLogger(__name__)

TAIL_LINES = 12  # of a failed process's output that go into the error
TIMEOUT_S = 3600.0


def run_child(
    arguments: Sequence[str | Path],
    *,
    what: str,
    advice: str,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
    feed: Callable[[IO[bytes]], None] | None = None,
) -> None:
    """Run a program to its end.

    Args:
        arguments: the program and its arguments.
        what: the work, for messages: "converting the model".
        advice: what a person can do when it fails.
        folder: where it runs and where its output is kept while it does.
        environment: variables beside those of this process.
        timeout_s: it is ended after this long.
        feed: writes the program's standard input while it runs; none without. What it raises ends the program.

    Raises:
        ConversionError: it cannot be started, fails, is killed or takes too long; the message has its last lines.
    """
    command = [str(argument) for argument in arguments]
    output = folder / "output.txt"
    with output.open("wb") as sink:
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL if feed is None else subprocess.PIPE,
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
            )
        except OSError as error:
            raise ConversionError(f"{what}: cannot start {command[0]} ({error.strerror or error}); {advice}") from error
        late = threading.Event()
        code = _finish(child, feed, timeout_s, late)
    if late.is_set():
        raise ConversionError(f"{what}: not done after {timeout_s:.0f} s; {advice}{_tail(output)}")
    if code != 0:
        raise ConversionError(f"{what}: {_describe(code)}; {advice}{_tail(output)}")
    log.debug("event=child_done what=%r output=%r", what, _tail(output))


def hand_over(path: Path, pixels: np.ndarray) -> None:
    """Write pictures to a file that the other process reads.

    Args:
        path: ends in .npy.
        pixels: uint8 [N, H, W, 3].

    Raises:
        StorageError: the disk is full, or this user may not write there.
    """
    try:
        np.save(path, pixels)
    except OSError as error:  # a short write of numpy has neither number nor file name
        raise StorageError(
            f"{path}: want room for {pixels.nbytes / 1e6:.0f} MB of pictures on their way to another process, found "
            f"none ({error.strerror or error}); free space in {tempfile.gettempdir()}, or set TMPDIR to a folder on a "
            "larger disk"
        ) from error


def _finish(
    child: "subprocess.Popen[bytes]", feed: Callable[[IO[bytes]], None] | None, timeout_s: float, late: threading.Event
) -> int:
    """Feed a program and wait for its end; sets `late` when it had to be ended. Returns its exit status."""

    def end() -> None:
        late.set()
        child.kill()

    watch = threading.Timer(timeout_s, end)
    watch.start()
    try:
        if feed is not None and child.stdin is not None:
            try:
                with child.stdin as stream:
                    feed(stream)
            except BrokenPipeError:
                log.debug("event=child_stopped_reading pid=%d", child.pid)  # its own words say why
        return child.wait()
    except BaseException:
        child.kill()
        child.wait()
        raise
    finally:
        watch.cancel()


def import_path() -> str:
    """A PYTHONPATH with which another process of this interpreter finds what this one finds."""
    return os.pathsep.join(str(Path(entry).absolute()) if entry else str(Path.cwd()) for entry in sys.path)


def _describe(code: int) -> str:
    if code >= 0:
        return f"the process ended with exit status {code}"
    name = signal.Signals(-code).name
    hint = " (often: out of memory)" if name == "SIGKILL" else ""
    return f"the process was ended by {name}{hint}"


def _tail(output: Path) -> str:
    lines = [line for line in output.read_text(errors="replace").splitlines() if line.strip()]
    return "".join(f"\n    {line}" for line in ["its last lines:", *lines[-TAIL_LINES:]]) if lines else ""
