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
from collections.abc import Mapping, Sequence
from pathlib import Path

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
) -> None:
    """Run a program to its end.

    Args:
        arguments: the program and its arguments.
        what: the work, for messages: "converting the model".
        advice: what a person can do when it fails.
        folder: where it runs and where its output is kept while it does.
        environment: variables beside those of this process.
        timeout_s: it is ended after this long.

    Raises:
        ConversionError: it cannot be started, fails, is killed or takes too long; the message has its last lines.
    """
    command = [str(argument) for argument in arguments]
    output = folder / "output.txt"
    with output.open("wb") as sink:
        try:
            code = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
                timeout=timeout_s,
                check=False,
            ).returncode
        except OSError as error:
            raise ConversionError(f"{what}: cannot start {command[0]} ({error.strerror or error}); {advice}") from error
        except subprocess.TimeoutExpired as error:
            raise ConversionError(f"{what}: not done after {timeout_s:.0f} s; {advice}{_tail(output)}") from error
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
        raise no_room(path, pixels.nbytes, error) from error


def no_room(path: Path, size: int, error: OSError) -> StorageError:
    """What to say when pictures of so many bytes cannot be handed over."""
    return StorageError(
        f"{path}: want room for {size / 1e6:.0f} MB of pictures on their way to another process, found none "
        f"({error.strerror or error}); free space in {tempfile.gettempdir()}, or set TMPDIR to a folder on a larger "
        "disk"
    )


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
