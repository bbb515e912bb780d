"""Varied copies of training pictures, where more pictures are wanted than there are.

They fill up few images to the number that calibration and the parity gate want. The changes are those of
`[training.augmentation]`: what the line says may happen to a picture. Stronger ones would test the converted model on
pictures that the line never shows it.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from inspection.settings import AugmentationSettings

if TYPE_CHECKING:
    from inspection.model.classifier import Pixels

BATCH = 64  # pictures held as floats at once


class VariedPictures:
    """Pictures, and varied copies of them until there are enough.

    They are read and made only when gone over, a batch in memory at a time, and are the same each time.
    """

    def __init__(self, pixels: "Pixels", count: int, augmentation: AugmentationSettings, seed: int) -> None:
        """Name what is to be gone over.

        Args:
            pixels: uint8 [N, H, W, 3].
            count: of pictures wanted; more than that are all kept.
            augmentation: the largest change of each kind.
            seed: decides the changes.
        """
        self._pixels, self._augmentation, self._seed = pixels, augmentation, seed
        self.given = len(pixels)
        self.source_index = np.arange(max(self.given, count)) % self.given  # which of them each is, or is a copy of
        self.shape = (len(self.source_index), *pixels.shape[1:])

    def __len__(self) -> int:
        return len(self.source_index)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each picture, uint8 [H, W, 3]: the given ones first."""
        return (picture for batch in self.batches() for picture in batch)

    def batches(self) -> Iterator[np.ndarray]:
        """The same, uint8 [at most `BATCH`, H, W, 3]."""
        for start in range(0, self.given, BATCH):
            yield self._pixels[np.arange(start, min(start + BATCH, self.given))]
        yield from _vary(self._pixels, self.source_index[self.given :], self._augmentation, self._seed)


def copies_of(pixels: np.ndarray, sources: np.ndarray, augmentation: AugmentationSettings, seed: int) -> np.ndarray:
    """Make slightly different pictures of the same parts.

    Args:
        pixels: uint8 [N, H, W, 3].
        sources: int64 [M], the picture that each copy is made of.
        augmentation: the largest change of each kind.
        seed: decides the changes.

    Returns:
        uint8 [M, H, W, 3].
    """
    copies = np.empty((len(sources), *pixels.shape[1:]), dtype=np.uint8)
    start = 0
    for batch in _vary(pixels, sources, augmentation, seed):
        copies[start : start + len(batch)] = batch
        start += len(batch)
    return copies


def _vary(pixels: "Pixels", sources: np.ndarray, augmentation: AugmentationSettings, seed: int) -> Iterator[np.ndarray]:
    """The copies in batches, uint8 [at most `BATCH`, H, W, 3]."""
    import torch

    from inspection.model.augmentation import augment

    generator = torch.Generator().manual_seed(seed)
    for start in range(0, len(sources), BATCH):
        batch = torch.from_numpy(np.ascontiguousarray(pixels[sources[start : start + BATCH]])).float()
        yield augment(batch, augmentation, generator).round().byte().numpy()
