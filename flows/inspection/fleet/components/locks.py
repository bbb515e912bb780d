"""Which Python packages a device gets, each pinned by version and by the hashes of its files.

`edge/locks/<name>.txt` is made from `edge/requirements.txt` (base) or `edge/requirements-<name>.txt` by `lock`, which
asks the package index through uv: `python -m inspection.fleet.components.locks`. The lines carry markers for every
architecture and Python, which are evaluated for the device, not for this machine.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

import edge
from inspection.errors import RolloutError
from inspection.fleet.components.targets import Target

EDGE = Path(edge.__file__).parent
BASE = "base"
EXTRAS = ("camera", "gpio", "upload")
MAKE_LOCKS = "python -m inspection.fleet.components.locks"

_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Pin:
    """One version of a package, and its files."""

    name: str  # canonical, such as ai-edge-litert
    version: str
    hashes: frozenset[str]  # sha256 (hex) of the files that may be installed

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


def read_pins(target: Target, extras: Sequence[str] = (), edge_folder: Path = EDGE) -> tuple[Pin, ...]:
    """What devices of a kind get, sorted by name.

    Args:
        target: the devices.
        extras: of `EXTRAS`, besides what every device needs.
        edge_folder: with `locks/`.

    Raises:
        RolloutError: a lock is missing or cannot be read, or two locks want different versions.
    """
    pins: dict[str, Pin] = {}
    for name in (BASE, *sorted(set(extras))):
        path = lock_path(name, edge_folder)
        for requirement, hashes in read_lock(path):
            if not target.holds(requirement.marker):
                continue
            pin = Pin(canonicalize_name(requirement.name), _version(requirement, path), hashes)
            before = pins.setdefault(pin.name, pin)
            if before.version != pin.version:
                raise RolloutError(
                    f"{path}: want {before} as in the other locks, found {pin}; make the locks again: `{MAKE_LOCKS}`"
                )
    return tuple(pins[name] for name in sorted(pins))


def read_lock(path: Path) -> list[tuple[Requirement, frozenset[str]]]:
    """The requirements of a lock with the hashes of their files, in the file's order.

    Raises:
        RolloutError: it is missing, or a line is no pinned requirement with hashes.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RolloutError(f"{path}: cannot read the lock of the device's packages ({error})") from error
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        line = line.partition(" #")[0].strip()
        if not line or line.startswith("#"):
            continue
        hashes = frozenset(_HASH.findall(line))
        try:
            requirement = Requirement(_HASH.sub("", line).strip())
        except InvalidRequirement as error:
            raise RolloutError(f"{path}: want requirements, found {line[:80]!r} ({error})") from None
        if not hashes:
            raise RolloutError(f"{path}: want hashes for {requirement.name}, found none")
        _version(requirement, path)
        found.append((requirement, hashes))
    return found


def lock_path(name: str, edge_folder: Path = EDGE) -> Path:
    """Of `base` or an extra."""
    return edge_folder / "locks" / f"{name}.txt"


def requirements_path(name: str, edge_folder: Path = EDGE) -> Path:
    """The file that a lock is made from."""
    return edge_folder / ("requirements.txt" if name == BASE else f"requirements-{name}.txt")


def lock(edge_folder: Path = EDGE) -> None:
    """Make all locks anew from the requirements, with the package index at hand."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    for name in (BASE, *EXTRAS):
        path, source = lock_path(name, edge_folder), requirements_path(name, edge_folder)
        path.parent.mkdir(exist_ok=True)
        command = [uv, "pip", "compile", str(source), "--output-file", str(path), "--quiet", "--upgrade"]
        command += ["--universal", "--python-version", "3.10", "--generate-hashes", "--no-header", "--no-annotate"]
        if name == "camera":
            command.append("--no-deps")  # numpy, which the base has; uv would want it for 32-bit boards, too
        elif name != BASE:
            command += ["--constraint", str(requirements_path(BASE, edge_folder))]
        subprocess.run(command, check=True)
        head = f"# Locked from edge/{source.name} by `{MAKE_LOCKS}`; do not edit by hand.\n"
        path.write_text(head + path.read_text(encoding="utf-8"), encoding="utf-8")


def _version(requirement: Requirement, path: Path) -> str:
    specifiers = list(requirement.specifier)
    if len(specifiers) != 1 or specifiers[0].operator != "==":
        raise RolloutError(f"{path}: want one version (==) of {requirement.name}, found {requirement.specifier}")
    return specifiers[0].version


if __name__ == "__main__":
    lock()
