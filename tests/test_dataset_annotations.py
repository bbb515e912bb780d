"""Masks and boxes that do not fit their image."""

import numpy as np
import pytest
from examined import MemorySource, encode, smooth_picture
from PIL import Image

from inspection.dataset.annotations import measure_mask


def _mask(size: tuple[int, int] = (96, 72), marked: bool = True) -> Image.Image:
    mask = Image.new("L", size)
    if marked:
        mask.paste(255, (10, 10, 30, 30))
    return mask


def _source(label: str = "bad", mask: bytes | None = None, **fields: object) -> MemorySource:
    source = MemorySource({})
    source.add(f"{label}/1.png", encode(smooth_picture(1)), mask=None if mask is None else "m.png", **fields)
    if mask:
        source.files["m.png"] = mask
    return source


@pytest.mark.parametrize(
    ("label", "mask", "code"),
    [
        ("bad", encode(_mask()), None),
        ("bad", encode(_mask(marked=False)), "mask-empty"),
        ("good", encode(_mask()), "mask-on-good"),
        ("good", encode(_mask(marked=False)), None),
        ("bad", encode(_mask((48, 36))), "mask-size"),
        ("bad", encode(_mask((72, 96))), "mask-size"),
        ("bad", b"no picture", "mask-unreadable"),
        ("bad", encode(_mask())[:60], "mask-unreadable"),
        ("bad", b"", "mask-unreadable"),
    ],
)
def test_a_mask_must_fit_its_image(label: str, mask: bytes, code: str | None) -> None:
    found = {name: groups for name, groups in _source(label, mask).codes().items() if name.startswith("mask")}
    assert found == ({code: ((f"{label}/1.png",),)} if code else {})


def test_a_turned_mask_is_called_turned() -> None:
    (finding,) = (one for one in _source("bad", encode(_mask((72, 96)))).examine().findings if one.code == "mask-size")
    assert "mask 72x96, picture 96x72, turned" in finding.summary


@pytest.mark.parametrize(
    ("boxes", "reason"),
    [
        (((0.0, 0.0, 96.0, 72.0),), None),
        (((0.0, 0.0, 96.8, 72.0),), None),
        (((90.0, 10.0, 10.0, 10.0),), "left 90, top 10, 10x10 px on 96x72"),
        (((-5.0, 10.0, 10.0, 10.0),), "left -5"),
        (((5.0, 5.0, 0.0, 10.0),), "empty box"),
        (((5.0, 5.0, 10.0, -1.0),), "empty box"),
        (((5.0, 5.0, float("nan"), 1.0),), "empty box"),
    ],
)
def test_a_box_must_lie_inside_its_image(boxes: tuple, reason: str | None) -> None:
    found = [one for one in _source("bad", boxes=boxes).examine().findings if one.code == "box-outside"]
    assert len(found) == (reason is not None)
    assert reason is None or reason in found[0].summary


def test_a_box_on_a_good_image_is_told() -> None:
    assert "mask-on-good" in _source("good", boxes=((5.0, 5.0, 10.0, 10.0),)).codes()


def _colours() -> Image.Image:
    mask = Image.new("RGB", (20, 10), "white")
    mask.paste("#23A436", (0, 0, 10, 5))
    return mask


@pytest.mark.parametrize(
    ("mask", "colors", "marked"),
    [
        (encode(_colours()), (("#23A436", "cracked"),), 0.25),
        (encode(_colours().convert("P", palette=Image.Palette.ADAPTIVE)), (("#23A436", "cracked"),), 0.25),
        (encode(_colours()), (("#ff0000", "dent"),), 0.0),
        (encode(_colours(), "JPEG", quality=95), (("#23A436", "cracked"),), 0.25),
        (encode(_mask((96, 72))), (), 400 / 6912),
        (encode(_mask((96, 72)), "JPEG"), (), 400 / 6912),
        (encode(np.array([[0, 1], [0, 0]], dtype=np.uint16)), (), 0.25),
        (encode(_mask((96, 72)).convert("1")), (), 400 / 6912),
        (encode(_mask((96, 72)).convert("RGBA")), (), 400 / 6912),
    ],
)
def test_the_marked_share_of_a_mask_is_measured(mask: bytes, colors: tuple, marked: float) -> None:
    facts = measure_mask("m.png", {"m.png": mask}.__getitem__, colors)
    assert facts.fault == ""
    assert facts.marked == pytest.approx(marked, abs=0.03)
