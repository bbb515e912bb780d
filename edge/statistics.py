"""How bright, how rich in contrast and how sharp a picture is, on the model's input.

The input guard is learnt from these figures and drift is watched with them. Whole-number arithmetic on the pixels, so
that every machine gets the same figures.
"""

from dataclasses import dataclass

import numpy as np

from edge.errors import ContractError


@dataclass(frozen=True)
class ImageStatistics:
    """Figures of one picture, all in grey levels of 255."""

    brightness: float  # mean luma
    contrast: float  # standard deviation of luma
    sharpness: float  # mean absolute Laplacian of luma


def image_statistics(pixels: np.ndarray) -> ImageStatistics:
    """Measure the model's input.

    Args:
        pixels: uint8, shape (1, H, W, 3), RGB.

    Raises:
        ContractError: the pixels are of another type or shape.

    Source: luma weights of ITU-R BT.601 in 1/256; the Laplacian is the 4-neighbour one, on all but the border.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[0] != 1 or pixels.shape[3] != 3:
        raise ContractError(f"pixels: want uint8 of shape (1, H, W, 3), found {pixels.dtype} {pixels.shape}")
    red, green, blue = (pixels[0, :, :, channel].astype(np.uint16) for channel in range(3))
    luma = ((77 * red + 150 * green + 29 * blue + 128) >> 8).astype(np.int16)  # at most 65408 before the shift
    centre = luma[1:-1, 1:-1]
    laplacian = 4 * centre - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:]
    return ImageStatistics(
        brightness=float(luma.mean(dtype=np.float64)),
        contrast=float(luma.std(dtype=np.float64)),
        sharpness=float(np.abs(laplacian).mean(dtype=np.float64)) if laplacian.size else 0.0,
    )
