"""The camera: uneven light, exposure, lens and sensor."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter1d

from inspection.synthesis.scene import SIZE_PX, Array

JPEG_QUALITY = 95
TONE_STEPS = 2048  # of the tone curve's table, for light from 0 to 1


def _tone_curve() -> Array:
    """8-bit value of each step of light up to 2: a shoulder before white, then gamma; uint8 [2 * TONE_STEPS]."""
    light = (np.arange(2 * TONE_STEPS) + 0.5) / TONE_STEPS
    light = light / (1 + light**4 / 8) ** 0.25
    return np.clip(255 * light ** (1 / 1.9) + 0.5, 0, 255).astype(np.uint8)


TONE = _tone_curve()


@dataclass(frozen=True)
class Shot:
    """What lamp, lens and sensor do to one picture."""

    level: float  # exposure, 1 = nominal
    gradient: tuple[float, float]  # change of light from one side to the other, across and down
    vignetting: float  # light lost in the corners
    white_balance: tuple[float, float]  # gain of red and of blue
    blur_px: float  # standard deviation of the lens' blur
    noise: float  # standard deviation of the sensor's noise at full scale


def draw_shot(rng: np.random.Generator) -> Shot:
    """A shot of a camera that nobody adjusted today."""
    red, blue = rng.normal(1.0, 0.004, 2)
    return Shot(
        level=rng.uniform(0.96, 1.04),
        gradient=(rng.normal(0, 0.016), rng.normal(0, 0.016)),
        vignetting=rng.uniform(0.11, 0.14),
        white_balance=(float(red), float(blue)),
        blur_px=rng.uniform(0.5, 0.62),
        noise=rng.uniform(0.008, 0.011),
    )


def expose(light: Array, shot: Shot, rng: np.random.Generator) -> Array:
    """The picture that the sensor gives.

    Args:
        light: float32 [3, SIZE_PX, SIZE_PX], linear.
        shot: lamp, lens and sensor.
        rng: draws the noise.

    Returns:
        uint8 [SIZE_PX, SIZE_PX, 3], RGB.
    """
    axis = np.linspace(-1, 1, SIZE_PX, dtype=np.float32)
    x, y = axis[None, :], axis[:, None]
    field = 1 + np.float32(shot.gradient[0]) * x + np.float32(shot.gradient[1]) * y
    field *= np.float32(shot.level) * (1 - np.float32(shot.vignetting / 2) * (x * x + y * y))
    picture = np.empty((SIZE_PX, SIZE_PX, 3), np.uint8)
    for index, gain in enumerate((shot.white_balance[0], 1.0, shot.white_balance[1])):
        channel = gaussian_filter1d(light[index] * field, shot.blur_px, axis=0, truncate=3.0)
        channel = gaussian_filter1d(channel, shot.blur_px, axis=1, truncate=3.0)
        noise = rng.standard_normal(channel.shape, dtype=np.float32)
        noise *= np.float32(shot.noise) * np.sqrt(np.float32(0.15) + channel)
        channel += noise
        channel *= np.float32(gain * TONE_STEPS)
        picture[..., index] = TONE[np.clip(channel, 0, len(TONE) - 1).astype(np.int32)]
    return picture


def encode_jpeg(picture: Array) -> bytes:
    """The picture as the camera stores it."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return stream.getvalue()


def encode_mask(mask: Array) -> bytes:
    """A mask (bool) as PNG: 255 where the defect is."""
    stream = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(stream, "PNG")
    return stream.getvalue()
