"""How bright, how rich in contrast and how sharp a picture is, on the model's input.

The input guard is learnt from these figures and drift is watched with them. Whole-number arithmetic on the pixels, so
that every machine gets the same figures, and cheap: they are taken of every part.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from edge.errors import ContractError

_LEVELS = np.arange(256, dtype=np.float64)


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

    Source: luma of ITU-R BT.601 as Pillow rounds it; the Laplacian is the 4-neighbour one, on all but the border.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[0] != 1 or pixels.shape[3] != 3:
        raise ContractError(f"pixels: want uint8 of shape (1, H, W, 3), found {pixels.dtype} {pixels.shape}")
    image = Image.fromarray(pixels[0]).convert("L")
    share = np.array(image.histogram()) / (image.width * image.height)  # of each level: faster than passes over pixels
    brightness = float(share @ _LEVELS)
    variance = float(share @ (_LEVELS - brightness) ** 2)
    signed = np.asarray(image).astype(np.int16)
    laplacian = 4 * signed[1:-1, 1:-1]
    laplacian -= signed[:-2, 1:-1]
    laplacian -= signed[2:, 1:-1]
    laplacian -= signed[1:-1, :-2]
    laplacian -= signed[1:-1, 2:]
    sharpness = int(np.abs(laplacian, out=laplacian).sum(dtype=np.int64)) / laplacian.size if laplacian.size else 0.0
    return ImageStatistics(brightness, variance**0.5, sharpness)
