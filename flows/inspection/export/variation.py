"""Varied copies of training pictures, where more pictures are wanted than there are.

They fill up few images to the number that calibration and the parity gate want. The changes are those of
`[training.augmentation]`: what the line says may happen to a picture. Stronger ones would test the converted model on
pictures that the line never shows it.
"""

import numpy as np

from inspection.settings import AugmentationSettings

BATCH = 64  # pictures held as floats at once


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
    import torch

    from inspection.model.augmentation import augment

    generator = torch.Generator().manual_seed(seed)
    copies = np.empty((len(sources), *pixels.shape[1:]), dtype=np.uint8)
    for start in range(0, len(sources), BATCH):
        rows = slice(start, start + BATCH)
        batch = torch.from_numpy(np.ascontiguousarray(pixels[sources[rows]])).float()
        copies[rows] = augment(batch, augmentation, generator).round().byte().numpy()
    return copies
