"""The wheels of the device's packages: from a cache, a folder, or the package index.

The cache holds each wheel under its sha256 and, for every set of pins, which wheels it is made of; so a second build
fetches nothing, and what a set is made of does not depend on what else the cache holds. The index is asked by pip,
with this machine's own settings for mirrors and certificates.
"""

import hashlib
import importlib.util
import json
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion

from edge.digest import sha256_of
from inspection.errors import RolloutError
from inspection.fleet.components.locks import Pin
from inspection.fleet.components.targets import Target
from inspection.fleet.components.zips import disk_errors

SUMS = "SHA256SUMS"
"""In a folder of wheels: lines of `sha256sum *.whl` for wheels that the locks do not know, such as self-built ones."""
FETCH_TIMEOUT_S = 1800
_FETCHING = ".fetching-"

_UNREACHABLE = re.compile(
    r"Retrying \(|ReadTimeout|ConnectTimeout|SSLError|ProxyError|[45]\d\d (Client|Server) Error(?<!404 Client Error)"
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wheel:
    """A file that pip installs."""

    pin: Pin
    path: Path
    sha256: str  # hex

    @property
    def file(self) -> str:
        """Its name, which says where it runs."""
        return self.path.name

    @property
    def is_shared(self) -> bool:
        """Whether more than one minor version of Python takes it."""
        return all(tag.abi in ("abi3", "none") for tag in parse_wheel_filename(self.file)[3])


def find_wheels(target: Target, pins: Sequence[Pin], cache: Path, folder: Path | None = None) -> tuple[Wheel, ...]:
    """One wheel for each pin, every byte verified.

    Args:
        target: the devices that they are for.
        pins: of `locks.read_pins`.
        cache: folder where wheels are kept for the next build.
        folder: of wheels to take them from; None: the cache, then the package index.

    Raises:
        RolloutError: no wheel fits these devices, one is not what the lock says, the index cannot be reached, or the
            disk is full.
    """
    if folder is not None:
        return _from_folder(target, pins, folder)
    with disk_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
        _sweep(cache)
        wheels = _from_cache(target, pins, cache)
        if wheels is None:
            wheels = _from_index(target, pins, cache)
    return wheels


def _sweep(cache: Path) -> None:
    """Remove what killed builds left."""
    for left in cache.glob(f"{_FETCHING}*"):
        with suppress(FileNotFoundError):  # another build ended
            if time.time() - left.stat().st_mtime > 2 * FETCH_TIMEOUT_S:
                shutil.rmtree(left, ignore_errors=True)


def _from_folder(target: Target, pins: Sequence[Pin], folder: Path) -> tuple[Wheel, ...]:
    if not folder.is_dir():
        raise RolloutError(f"[fleet] wheels: want a folder of wheels, found none at {folder}")
    found: list[Wheel] = []
    missing: list[str] = []
    with disk_errors(folder):
        known = frozenset(_sums(folder))
        files = {path: name for path in sorted(folder.glob("*.whl")) if (name := _identify(path.name))}
        for pin in pins:
            fitting = [
                (rank, path)
                for path, name in files.items()
                if name == (pin.name, pin.version) and (rank := target.rank(path.name)) is not None
            ]
            if fitting:
                found.append(_verified(min(fitting)[1], pin, known))
            else:
                missing.append(str(pin))
    if missing:
        raise RolloutError(
            f"[fleet] wheels: want wheels for {target} of {', '.join(missing)}, found none in {folder}; put them there "
            "or leave wheels empty to fetch them from the package index"
        )
    return tuple(found)


def _verified(path: Path, pin: Pin, known: frozenset[str]) -> Wheel:
    digest = sha256_of(path)
    if digest not in pin.hashes | known:
        raise RolloutError(
            f"{path}: the lock knows no file of {pin} with sha256 {digest}: changed, or built elsewhere; fetch it "
            f"again, or, if it is your own build, add its line of `sha256sum` to {SUMS} in that folder"
        )
    return Wheel(pin, path, digest)


def _sums(folder: Path) -> Iterator[str]:
    path = folder / SUMS
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        match = re.fullmatch(r"([0-9a-f]{64}) [ *](\S+\.whl)", line.strip())
        if match is None:
            raise RolloutError(f"{path}: want lines of `sha256sum *.whl`, found {line[:100]!r}")
        yield match[1]


def _from_cache(target: Target, pins: Sequence[Pin], cache: Path) -> tuple[Wheel, ...] | None:
    """The wheels of a set that was fetched before; None when one is missing or damaged."""
    try:
        digests = json.loads(_set_path(target, pins, cache).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    wheels = []
    for pin in pins:
        digest = digests.get(pin.name, "")
        path = next(iter((cache / digest).glob("*.whl")), None) if digest in pin.hashes else None
        if path is None:
            return None
        if sha256_of(path) != digest:
            _log.warning("event=cached_wheel_damaged path=%s", path)
            path.unlink()
            return None
        wheels.append(Wheel(pin, path, digest))
    return tuple(wheels)


def _from_index(target: Target, pins: Sequence[Pin], cache: Path) -> tuple[Wheel, ...]:
    with tempfile.TemporaryDirectory(prefix=_FETCHING, dir=cache) as created:
        scratch = Path(created)
        _log.info("event=wheels_fetched_from_index target=%r packages=%d", str(target), len(pins))
        _download(target, pins, scratch)
        fetched = {name: path for path in scratch.glob("*.whl") if (name := _identify(path.name))}
        wheels = []
        for pin in pins:
            path = fetched.get((pin.name, pin.version))
            if path is None:
                raise RolloutError(f"{pin}: pip ended well and brought no wheel of it; it brought {sorted(fetched)}")
            wheel = _verified(path, pin, frozenset())
            kept = cache / wheel.sha256 / wheel.file
            kept.parent.mkdir(exist_ok=True)
            path.replace(kept)
            wheels.append(Wheel(pin, kept, wheel.sha256))
        record = scratch / "set.json"
        record.write_text(json.dumps({wheel.pin.name: wheel.sha256 for wheel in wheels}), encoding="utf-8")
        place = _set_path(target, pins, cache)
        place.parent.mkdir(exist_ok=True)
        record.replace(place)
    return tuple(wheels)


def _download(target: Target, pins: Sequence[Pin], folder: Path) -> None:
    if importlib.util.find_spec("pip") is None:
        raise RolloutError(
            f"fetching wheels takes pip, and {sys.executable} has none; run `{sys.executable} -m ensurepip`, or name a "
            "folder of wheels in [fleet] wheels"
        )
    requirements = folder / "requirements.txt"
    requirements.write_text(requirements_text(pins), encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--retries=2"]  # also where somebody set none: only its warning tells an index that is away
    command += ["--only-binary=:all:", "--no-deps", "--require-hashes", "--no-cache-dir", "--dest", str(folder)]
    command += ["--implementation", "cp", "--python-version", target.python]
    command += [part for abi in (target.abi, "abi3", "none") for part in ("--abi", abi)]
    command += [part for platform in target.platforms for part in ("--platform", platform)]
    command += ["--requirement", str(requirements)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise RolloutError(
            f"wheels for {target}: pip has not fetched them in {FETCH_TIMEOUT_S} s; see whether the package index can "
            "be reached, or name a folder of wheels in [fleet] wheels"
        ) from None
    if done.returncode:
        raise RolloutError(_explain(target, f"{done.stdout}\n{done.stderr}"))


def _explain(target: Target, said: str) -> str:
    """What pip stumbled over, from all that it said."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = " | ".join(line for line in lines if line.startswith("ERROR"))[-800:] or " | ".join(lines[-3:])
    if "DO NOT MATCH THE HASHES" in said:
        return (
            f"wheels for {target}: the package index gave a file that is not the one that the lock names; do not use "
            f"that index ({last})"
        )
    if away := next((line for line in lines if _UNREACHABLE.search(line)), ""):
        return (
            f"wheels for {target}: the package index cannot be reached; see the network and pip's settings "
            f"(`pip config list`), or name a folder of wheels in [fleet] wheels (pip: {away[:400]} | {last})"
        )
    if match := re.search(r"No matching distribution found for (\S+)", said):
        return (
            f"wheels for {target}: the package index has no wheel of {match[1]} for such devices; build one and name "
            f"its folder in [fleet] wheels, or choose other pythons or architectures in [fleet] (pip: {last})"
        )
    if "No space left on device" in said:
        return f"wheels for {target}: no space is left on the disk to fetch them; make room and run again ({last})"
    return f"wheels for {target}: pip failed: {last}"


def requirements_text(pins: Sequence[Pin], hashes: dict[str, str] | None = None) -> str:
    """Pins as pip reads them; `hashes` names the one file of each instead of all of the lock's."""
    lines = []
    for pin in pins:
        allowed = sorted(pin.hashes) if hashes is None else [hashes[pin.name]]
        lines.append(" ".join([str(pin), *(f"--hash=sha256:{digest}" for digest in allowed)]))
    return "\n".join(lines) + "\n"


def _set_path(target: Target, pins: Sequence[Pin], cache: Path) -> Path:
    text = f"{target.machine} {target.python}\n{requirements_text(pins)}"
    return cache / "sets" / f"{hashlib.sha256(text.encode()).hexdigest()}.json"


def _identify(file: str) -> tuple[str, str] | None:
    with suppress(InvalidWheelFilename, InvalidVersion):
        name, version, _, _ = parse_wheel_filename(file)
        return canonicalize_name(name), str(version)
    return None
