"""Figures of a picture, on ones whose figures are known."""

import io

import numpy as np
import pytest
from PIL import Image

from edge.contract import InputContract
from edge.errors import ContractError
from edge.preprocess import prepare_file
from edge.statistics import image_statistics, picture_statistics


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


@pytest.mark.parametrize("size", [(3, 3), (3, 4), (7, 5), (224, 224), (300, 260)])  # the last needs 64-bit sums
def test_figures_are_those_of_their_definition(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    pixels[0, :2] = 255
    luma = np.asarray(Image.fromarray(pixels[0]).convert("L")).astype(np.float64)
    around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
    statistics = image_statistics(pixels)
    assert statistics.brightness == pytest.approx(luma.mean(), rel=1e-12)
    assert statistics.contrast == pytest.approx(luma.std(), rel=1e-12)
    assert statistics.sharpness == pytest.approx(np.abs(4 * luma[1:-1, 1:-1] - around).mean(), rel=1e-12)


@pytest.mark.parametrize("grey", [False, True])
def test_a_prepared_picture_has_the_figures_of_its_pixels(grey: bool) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    stream = io.BytesIO()
    picture = Image.fromarray(frame)
    (picture.convert("L") if grey else picture).save(stream, "PNG")
    for resize in ("squash", "letterbox"):
        prepared = prepare_file(stream.getvalue(), InputContract(32, 32, resize))
        assert picture_statistics(prepared.image) == image_statistics(prepared.pixels)


def test_a_picture_of_one_pixel_has_no_sharpness() -> None:
    assert image_statistics(np.full((1, 1, 1, 3), 9, np.uint8)).sharpness == 0.0


@pytest.mark.parametrize(
    "pixels", [np.zeros((8, 8, 3), np.uint8), np.zeros((2, 8, 8, 3), np.uint8), np.zeros((1, 8, 8, 3), np.float32)]
)
def test_other_arrays_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ContractError, match=r"pixels: want uint8 of shape \(1, H, W, 3\)"):
        image_statistics(pixels)
