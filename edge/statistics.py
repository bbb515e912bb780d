"""How bright, how rich in contrast and how sharp a picture is, on the model's input.

The input guard is learnt from these figures and drift is watched with them. Whole-number arithmetic on the pixels, so
that every machine gets the same figures, and cheap: they are taken of every part.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from edge.errors import ContractError

_UINT32_PIXELS = (2**32 - 1) // 255**2  # whose squares a 32-bit sum holds; it takes half the time of a 64-bit one


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
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[0] != 1 or pixels.shape[3] != 3:
        raise ContractError(f"pixels: want uint8 of shape (1, H, W, 3), found {pixels.dtype} {pixels.shape}")
    return picture_statistics(Image.fromarray(pixels[0]))


def picture_statistics(image: Image.Image) -> ImageStatistics:
    """Measure the model's input as a Pillow picture, mode RGB or L, which spares a copy.

    Source: luma of ITU-R BT.601 as Pillow rounds it; the Laplacian is the 4-neighbour one, on all but the border.
    """
    grey = np.asarray(image if image.mode == "L" else image.convert("L"))
    levels = grey.reshape(-1).astype(np.uint16)
    count, wide = levels.size, np.uint32 if levels.size <= _UINT32_PIXELS else np.uint64
    total, squares = int(levels.sum(dtype=wide)), int((levels * levels).sum(dtype=wide))
    variance = (count * squares - total * total) / count**2  # of whole numbers: nothing cancels
    return ImageStatistics(total / count, variance**0.5, _sharpness(levels.view(np.int16), *grey.shape))


def _sharpness(levels: np.ndarray, height: int, width: int) -> float:
    """Mean absolute Laplacian of a picture that is given row after row, int16 [height * width]."""
    if height < 3 or width < 3:
        return 0.0
    # In one piece, which is faster than row by row; what is wrong at both ends of a row does not count.
    middle = slice(width, -width)
    laplacian = 4 * levels[middle]
    laplacian -= levels[: -2 * width]
    laplacian -= levels[2 * width :]
    laplacian -= levels[width - 1 : -width - 1]
    laplacian -= levels[width + 1 : 1 - width]
    np.abs(laplacian, out=laplacian)
    rows = laplacian.reshape(height - 2, width)
    rows[:, 0] = rows[:, -1] = 0
    wide = np.uint32 if levels.size <= _UINT32_PIXELS else np.uint64
    return int(laplacian.sum(dtype=wide)) / ((height - 2) * (width - 2))
