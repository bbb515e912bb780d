"""The sample line: pictures of a turned flange, good and bad, made from a seed.

A finished sample is a folder of `good/`, one folder for each kind of defect, `masks/<kind>/` and `sample.json`.
It is made in a temporary folder beside it and renamed when complete, so that a folder of that name is always whole.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inspection.errors import DataError
from inspection.synthesis.camera import draw_shot, encode_jpeg, encode_mask, expose
from inspection.synthesis.defects import DEFECTS
from inspection.synthesis.flange import Damage, shade
from inspection.synthesis.scene import Array, Lot, draw_lot, draw_pose

GENERATOR_VERSION = 1  # raised when the same seed gives other pictures
DEFECT_TYPES = tuple(DEFECTS)
BAD_SHARE = 0.475
LOT_SIZE = 20
SUMMARY = "sample.json"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SamplePart:
    """One part of the sample."""

    lot: int
    part: int
    defect_type: str | None  # None = good
    severity: float  # 0 subtle .. 1 plain

    @property
    def name(self) -> str:
        """File name of its picture without the ending; the lot is its beginning."""
        return f"lot-{self.lot:02d}_part-{self.part:04d}"

    @property
    def picture(self) -> str:
        """Path of its picture inside the sample."""
        return f"{self.defect_type or 'good'}/{self.name}.jpg"

    @property
    def mask(self) -> str | None:
        """Path of its mask inside the sample; a good part has none."""
        return f"masks/{self.defect_type}/{self.name}.png" if self.defect_type else None


def plan_sample(images: int = 400, seed: int = 0) -> tuple[SamplePart, ...]:
    """Which parts a sample holds: nearly half are bad, kinds and lots alike in number, severities spread evenly.

    Raises:
        DataError: too few images for two lots with every kind, or a negative seed.
    """
    if images < 2 * len(DEFECT_TYPES) + 2:
        raise DataError(f"sample: want at least {2 * len(DEFECT_TYPES) + 2} images, found {images}")
    if seed < 0:
        raise DataError(f"sample: want a seed >= 0, found {seed}")
    rng = np.random.default_rng([seed, 0x5A])
    bad = round(BAD_SHARE * images)
    lots = max(2, round(images / LOT_SIZE))
    entries: list[tuple[str | None, float]] = []
    for index, kind in enumerate(DEFECT_TYPES):
        count = len(range(index, bad, len(DEFECT_TYPES)))
        entries += [(kind, float(step + rng.random()) / count) for step in rng.permutation(count)]
    entries += [(None, 0.0)] * (images - bad)
    parts = []
    for lot in range(1, lots + 1):
        content = entries[lot - 1 :: lots]
        for part, index in enumerate(rng.permutation(len(content)), start=1):
            kind, severity = content[index]
            parts.append(SamplePart(lot, part, kind, severity))
    return tuple(parts)


def render_part(part: SamplePart, lot: Lot, seed: int) -> tuple[Array, Array | None]:
    """The picture of a part, the same for the same seed.

    Returns:
        uint8 [320, 320, 3] RGB, and where the defect is (bool [320, 320]; None for a good part).
    """
    rng = np.random.default_rng([seed, part.lot, part.part])
    pose = draw_pose(rng)
    shot = draw_shot(rng)
    azimuth = lot.light_azimuth + rng.normal(0, 0.05)
    elevation = lot.light_elevation + rng.normal(0, 0.02)
    damage = DEFECTS[part.defect_type](pose, part.severity, rng) if part.defect_type else Damage()
    light = shade(lot, pose, damage, azimuth, elevation, rng) * np.float32(lot.light_level)
    return expose(light, shot, rng), damage.mask


def make_sample(folder: Path, images: int = 400, seed: int = 0) -> Path:
    """Make the sample line's pictures, unless they are there.

    Safe when two do it at once and when one is killed: `folder` appears complete or not at all.

    Args:
        folder: where the sample will be.
        images: number of pictures, good and bad together.
        seed: the same seed gives the same pictures.

    Returns:
        `folder`.

    Raises:
        DataError: too few images are wanted, or the folder holds something else or a damaged sample.
    """
    parts = plan_sample(images, seed)
    identity = {"generator": "flange", "version": GENERATOR_VERSION, "images": images, "seed": seed}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(folder):
        if _is_ready(folder, identity, parts):
            log.info("sample=ready folder=%s images=%d seed=%d", folder, images, seed)
            return folder
        for leftover in folder.parent.glob(f".{folder.name}-*.partial"):  # of a process that was killed
            shutil.rmtree(leftover)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", suffix=".partial", dir=folder.parent))
        try:
            digest = _write(partial, parts, seed)
            summary = json.dumps({**identity, "sha256": digest}, indent=2) + "\n"
            (partial / SUMMARY).write_text(summary, encoding="utf-8")
            partial.chmod(0o755)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    log.info("sample=made folder=%s images=%d seed=%d", folder, images, seed)
    return folder


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the lock of this sample; the system lets go of it when the process ends, however it ends."""
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _files(parts: tuple[SamplePart, ...]) -> list[str]:
    return sorted([part.picture for part in parts] + [part.mask for part in parts if part.mask])


def _digest(folder: Path, names: list[str]) -> str:
    """Sha256 over names and contents."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name} {hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _is_ready(folder: Path, identity: dict[str, object], parts: tuple[SamplePart, ...]) -> bool:
    """Whether the folder is this sample, whole; False when there is none yet."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(
            f"{folder}: want a sample with its {SUMMARY}, found something else; delete it or name another folder"
        ) from None
    found = {key: summary.get(key) for key in identity} if isinstance(summary, dict) else summary
    if found != identity:
        raise DataError(f"{folder}: want the sample {identity}, found {found}; delete it or name another folder")
    names = _files(parts)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} files of the sample are missing, such as {missing[0]}; "
            "delete the folder, it will be made anew"
        )
    if _digest(folder, names) != summary.get("sha256"):
        raise DataError(
            f"{folder}: files of the sample were changed after it was made; delete the folder, it will be made anew"
        )
    return True


def _write(folder: Path, parts: tuple[SamplePart, ...], seed: int) -> str:
    """Render every part into `folder`; the digest of what was written."""
    for name in {str(Path(name).parent) for name in _files(parts)}:
        (folder / name).mkdir(parents=True)

    def write(part: SamplePart) -> None:
        picture, mask = render_part(part, lots[part.lot], seed)
        (folder / part.picture).write_bytes(encode_jpeg(picture))
        if part.mask and mask is not None:
            (folder / part.mask).write_bytes(encode_mask(mask))

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy and Pillow let go of the interpreter while they work
        numbers = sorted({part.lot for part in parts})
        lots = dict(zip(numbers, pool.map(lambda number: draw_lot(seed, number), numbers), strict=True))
        list(pool.map(write, parts))
    return _digest(folder, _files(parts))
