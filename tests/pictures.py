"""Small pictures for tests of the dataset."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_picture(path: Path, seed: int, size: tuple[int, int] = (48, 36)) -> Path:
    """A smooth random picture, another one for each seed, in the format of the path's suffix."""
    blobs = np.random.default_rng(seed).integers(0, 255, (4, 5, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(blobs).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def write_set(root: Path, counts: dict[str, int], suffix: str = ".png", start: int = 0, seed: int = 0) -> Path:
    """Folders with so many pictures each, numbered from `start`, no two alike."""
    for place, (folder, count) in enumerate(counts.items()):
        for index in range(start, start + count):
            write_picture(root / folder / f"{index:03d}{suffix}", seed + 10_000 * place + index)
    return root
