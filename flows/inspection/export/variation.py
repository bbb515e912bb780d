"""Small, seeded changes of a picture that a line shows by itself: light, contrast, position, noise, mirroring.

They fill up few images to the number that calibration and the parity gate want. Training has its own augmentation,
chosen per product; here the label is only carried along, so what is safe for a product does not matter.
"""

import numpy as np

BRIGHTNESS = 0.10  # largest change, as a share of full scale
CONTRAST = 0.10  # largest relative change
SHIFT = 0.03  # largest, as a share of the width and height
NOISE = 2.0  # largest standard deviation, grey levels of 255


def vary(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Make a slightly different picture of the same part.

    Args:
        image: uint8 [H, W, 3].
        generator: decides the change; the same state gives the same picture.

    Returns:
        uint8 [H, W, 3].
    """
    height, width = image.shape[:2]
    if generator.random() < 0.5:
        image = image[:, ::-1]
    reach = np.round([SHIFT * height, SHIFT * width]).astype(int)
    down, right = generator.integers(-reach, reach + 1)
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    moved = image[rows][:, columns].astype(np.float32)
    contrast = 1 + generator.uniform(-CONTRAST, CONTRAST)
    brightness = 255 * generator.uniform(-BRIGHTNESS, BRIGHTNESS)
    mean = moved.mean()
    noise = generator.standard_normal(moved.shape, dtype=np.float32) * generator.uniform(0, NOISE)
    changed = (moved - mean) * contrast + mean + brightness + noise
    result: np.ndarray = np.clip(np.rint(changed), 0, 255).astype(np.uint8)
    return result
