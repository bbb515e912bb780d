"""Figures of a picture, on ones whose figures are known."""

import numpy as np
import pytest

from edge.errors import ContractError
from edge.statistics import image_statistics


def test_an_even_picture_has_its_brightness_and_nothing_else() -> None:
    for level in (0, 100, 255):
        statistics = image_statistics(np.full((1, 20, 30, 3), level, np.uint8))
        assert (statistics.brightness, statistics.contrast, statistics.sharpness) == (level, 0.0, 0.0)


def test_brightness_weighs_the_colours_as_the_eye_does() -> None:
    for channel, weight in enumerate((0.299, 0.587, 0.114)):
        pixels = np.zeros((1, 8, 8, 3), np.uint8)
        pixels[..., channel] = 200
        assert image_statistics(pixels).brightness == pytest.approx(200 * weight, abs=1)


def test_contrast_is_the_standard_deviation_of_luma() -> None:
    pixels = np.zeros((1, 10, 10, 3), np.uint8)
    pixels[:, :5] = 200
    assert image_statistics(pixels).contrast == pytest.approx(100.0)


def test_a_checkerboard_is_as_sharp_as_can_be_and_blur_takes_sharpness_away() -> None:
    board = np.indices((16, 16)).sum(axis=0) % 2 * 255
    pixels = np.repeat(board[np.newaxis, :, :, np.newaxis], 3, axis=3).astype(np.uint8)
    assert image_statistics(pixels).sharpness == 4 * 255
    ramp = np.zeros((1, 16, 16, 3), np.uint8)
    ramp[0] = (np.arange(16) * 10)[np.newaxis, :, np.newaxis]
    assert image_statistics(ramp).sharpness == 0.0


def test_a_picture_of_one_pixel_has_no_sharpness() -> None:
    assert image_statistics(np.full((1, 1, 1, 3), 9, np.uint8)).sharpness == 0.0


@pytest.mark.parametrize(
    "pixels", [np.zeros((8, 8, 3), np.uint8), np.zeros((2, 8, 8, 3), np.uint8), np.zeros((1, 8, 8, 3), np.float32)]
)
def test_other_arrays_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ContractError, match=r"pixels: want uint8 of shape \(1, H, W, 3\)"):
        image_statistics(pixels)
