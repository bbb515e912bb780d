"""Opens a package in a process of its own: native code that a bad model crashes must not take the inspector along."""

import json
import os
import subprocess
import sys
from pathlib import Path

from edge.errors import PackageError
from edge.package import CONTRACT_FILE

_TRIAL_S = 120.0  # for the child process


def try_in_child(folder: Path, threads: int) -> None:
    """Self-test a package in a process of its own.

    Raises:
        PackageError: the process ended badly, or not in time.
    """
    command = [sys.executable, "-m", "edge", "--model", str(folder), "--self-test", "--threads", str(threads)]
    here = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=_TRIAL_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise PackageError(f"{folder}: the self-test in a child process took more than {_TRIAL_S:.0f} s") from None
    if done.returncode != 0:
        said = (done.stdout + done.stderr).decode("utf-8", "replace").strip().splitlines()
        how = f"was ended by signal {-done.returncode}" if done.returncode < 0 else f"exited with {done.returncode}"
        raise PackageError(f"{folder}: the self-test in a child process {how}: {'; '.join(said[-3:])}")


def version_in(folder: str) -> str | None:
    """The version that a refused package claims, as far as its contract can be read."""
    try:
        version = json.loads((Path(folder) / CONTRACT_FILE).read_text(encoding="utf-8"))["version"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return version[:64] if isinstance(version, str) else None
