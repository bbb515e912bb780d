"""The runtime's artifacts: a zip for each architecture, with a set of wheels for each Python.

install.sh  choose.py  sets.json          which Python takes which set
requirements-cp311.txt                    one file for each package, by its hash
wheels/any/                               wheels that more than one Python takes, once
wheels/cp311/                             wheels for one Python
"""

import json
import logging
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from inspection.errors import RolloutError
from inspection.fleet.components.built import Artifact
from inspection.fleet.components.locks import EDGE, lock_path, read_lock, read_pins
from inspection.fleet.components.targets import Target, needed_glibc
from inspection.fleet.components.wheels import Wheel, find_wheels, requirements_text
from inspection.fleet.components.zips import write_zip
from inspection.fleet.recipes import CHOOSE, SCRIPTS, choose_script, script

_log = logging.getLogger(__name__)


def build_runtime(
    targets: Sequence[Target],
    extras: Sequence[str],
    scratch: Path,
    cache: Path,
    wheels: Path | None = None,
    edge_folder: Path = EDGE,
) -> dict[str, Artifact]:
    """Write the zip of each architecture.

    Args:
        targets: kinds of devices.
        extras: packages besides the usual ones, see `locks.EXTRAS`.
        scratch: folder for the zips.
        cache: folder where fetched wheels are kept.
        wheels: folder of wheels to use instead of the package index.
        edge_folder: with `locks/`.

    Returns:
        Architecture to zip.

    Raises:
        RolloutError: see `wheels.find_wheels`; or an extra is not to be had for an architecture.
    """
    found = {}
    for architecture, group in groupby(sorted(targets, key=lambda target: target.architecture), _architecture):
        sets = {}
        for target in group:
            pins = read_pins(target, extras, edge_folder)
            _check_extras(target, extras, edge_folder)
            sets[target] = find_wheels(target, pins, cache, wheels)
        path = scratch / f"runtime-{architecture}.zip"
        digest = write_zip(path, _entries(sets))
        _log.info("event=runtime_built architecture=%s bytes=%d digest=%s", architecture, path.stat().st_size, digest)
        found[architecture] = Artifact(path, digest)
    return found


def _architecture(target: Target) -> str:
    return target.architecture


def _check_extras(target: Target, extras: Sequence[str], edge_folder: Path) -> None:
    for name in extras:
        if not any(target.holds(requirement.marker) for requirement, _ in read_lock(lock_path(name, edge_folder))):
            raise RolloutError(
                f"edge/requirements-{name}.txt: no package is to be had for {target}, and [fleet.inspector] needs one; "
                "choose another source or other architectures in [fleet]"
            )


def _entries(sets: dict[Target, tuple[Wheel, ...]]) -> dict[str, Path | bytes]:
    entries: dict[str, Path | bytes] = {
        SCRIPTS["runtime"]: script("runtime").encode(),
        CHOOSE: choose_script().encode(),
    }
    described: dict[str, Any] = {}
    for target, wheels in sets.items():
        described[target.abi] = {"glibc": needed_glibc([wheel.file for wheel in wheels])}
        hashes = {wheel.pin.name: wheel.sha256 for wheel in wheels}
        requirements = requirements_text([wheel.pin for wheel in wheels], hashes)
        entries[f"requirements-{target.abi}.txt"] = requirements.encode()
        for wheel in wheels:
            entries[f"wheels/{'any' if wheel.is_shared else target.abi}/{wheel.file}"] = wheel.path
        # pip is told of both folders, also where one stays empty.
        entries.setdefault("wheels/any/README", b"Wheels that more than one Python takes.\n")
        entries[f"wheels/{target.abi}/README"] = f"Wheels for {target.abi} only.\n".encode()
    machine = next(iter(sets)).machine
    entries["sets.json"] = (json.dumps({"machine": machine, "sets": described}, sort_keys=True) + "\n").encode()
    return entries
