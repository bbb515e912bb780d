"""The flow says when defects vanish in the model's input."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inspection.dataset.manifest import ImageRow, make_snapshot
from inspection.settings import InputSettings, LineSettings, Settings
from inspection.train_path.advice import warn_of_small_defects


def snapshot_with_mask(folder: Path, side_px: int):
    for label in ("good", "scratch"):
        (folder / label).mkdir(parents=True)
        Image.new("RGB", (640, 640)).save(folder / label / "a.png")
    mask = np.zeros((640, 640), dtype=np.uint8)
    mask[100 : 100 + side_px, 200:300] = 255
    (folder / "masks" / "scratch").mkdir(parents=True)
    Image.fromarray(mask).save(folder / "masks" / "scratch" / "a.png")
    good = ImageRow(uri="good/a.png", sha256="0" * 64, width=640, height=640, label="good", group="a", split="train")
    bad = dataclasses.replace(
        good, uri="scratch/a.png", sha256="1" * 64, label="bad", defect_type="scratch", mask="masks/scratch/a.png"
    )
    return make_snapshot([good, bad], None, str(folder))


def settings(**input_settings) -> Settings:
    return Settings(line=LineSettings(name="dots"), input=InputSettings(**input_settings))


def test_a_defect_of_one_pixel_in_the_input_is_warned_about(tmp_path: Path) -> None:
    warning = warn_of_small_defects(settings(width=64, height=64), snapshot_with_mask(tmp_path, side_px=10))
    assert "scratch (1.0 px)" in warning
    assert "width and height" in warning


def test_a_large_defect_is_not(tmp_path: Path) -> None:
    assert warn_of_small_defects(settings(width=64, height=64), snapshot_with_mask(tmp_path, side_px=90)) == ""


def test_a_region_of_interest_makes_defects_larger(tmp_path: Path) -> None:
    snapshot = snapshot_with_mask(tmp_path, side_px=10)
    assert warn_of_small_defects(settings(width=64, height=64, roi=[180, 80, 160, 160]), snapshot) == ""


@pytest.mark.parametrize("content", [b"no picture", None])
def test_a_mask_that_cannot_be_read_stops_nothing(tmp_path: Path, content: bytes | None) -> None:
    """The examination has warned of it."""
    snapshot = snapshot_with_mask(tmp_path, side_px=10)
    path = tmp_path / "masks" / "scratch" / "a.png"
    path.unlink() if content is None else path.write_bytes(content)
    assert warn_of_small_defects(settings(), snapshot) == ""
