"""The flow says when a larger input would tell more, where no mask says how small the defects are."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge.contract import InputContract, Roi
from inspection.dataset.manifest import ImageRow
from inspection.errors import DataError
from inspection.settings import DataSettings, InputSettings, LineSettings, Settings, TrainingSettings
from inspection.train_path import learning
from inspection.train_path.larger_input import larger_contract, try_larger_input

ROW = ImageRow(uri="good/a.png", sha256="0" * 64, width=640, height=480, label="good")


def settings(folder: Path, recipe: str = "auto") -> Settings:
    return Settings(
        line=LineSettings(name="stripes", storage=str(folder / "store")),
        data=DataSettings(source=str(folder / "images")),
        input=InputSettings(width=64, height=64),
        training=TrainingSettings(backbone="squeezenet1_1", weights="none", recipe=recipe),
    )


def make_images(folder: Path, stripe_px: int, size_px: int = 256) -> None:
    """Good parts are grey; bad ones have stripes of that width, which a small input averages away."""
    random = np.random.default_rng(0)
    columns = np.arange(size_px) // stripe_px % 2
    for label in ("good", "bad"):
        (folder / "images" / label).mkdir(parents=True)
        for number in range(30):
            pixels = np.full((size_px, size_px), 128.0) + random.normal(0, 6, (size_px, size_px))
            if label == "bad":
                pixels += 60 * (columns - 0.5)
            picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            picture.save(folder / "images" / label / f"{number}.png")


def test_defects_that_only_a_larger_input_shows_are_warned_about(tmp_path: Path) -> None:
    make_images(tmp_path, stripe_px=2)
    line = settings(tmp_path)
    found = try_larger_input(line, learning.prepare(line).id)
    assert found is not None
    assert found.larger_auroc > found.auroc
    assert (found.width, found.height) == (128, 128)
    assert "set [input] width and height to 128 and 128" in found.warning


def test_defects_that_the_input_shows_are_not(tmp_path: Path) -> None:
    make_images(tmp_path, stripe_px=32)
    line = settings(tmp_path)
    found = try_larger_input(line, learning.prepare(line).id)
    assert found is not None
    assert found.warning == ""
    assert found.auroc == pytest.approx(1.0)


def test_nothing_is_compared_when_the_line_has_chosen_its_recipe(tmp_path: Path) -> None:
    make_images(tmp_path, stripe_px=32, size_px=128)
    line = settings(tmp_path, recipe="frozen")
    assert try_larger_input(line, learning.prepare(line).id) is None


def test_the_larger_input_has_twice_the_side_but_no_more_than_512_px() -> None:
    large = dataclasses.replace(ROW, width=2000, height=2000)
    assert larger_contract(InputContract(224, 224), [large]) == InputContract(448, 448)
    assert larger_contract(InputContract(320, 320), [large]) == InputContract(512, 512)
    assert larger_contract(InputContract(512, 512), [large]) is None


def test_images_without_more_pixels_are_not_enlarged() -> None:
    assert larger_contract(InputContract(448, 448), [ROW]) is None
    assert larger_contract(InputContract(224, 224, roi=Roi(0, 0, 230, 230)), [ROW]) is None


def test_a_picture_that_was_moved_since_the_start_is_named(tmp_path: Path) -> None:
    make_images(tmp_path, stripe_px=2)
    line = settings(tmp_path)
    snapshot = learning.prepare(line).id
    (tmp_path / "images" / "bad").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"bad/.*\.png.*put the images back"):
        try_larger_input(line, snapshot)
