"""Labels that can be told without looking at the part."""

import dataclasses

import numpy as np
import pytest
from examined import MemorySource, encode, smooth_picture
from PIL import Image

from inspection.dataset.image_facts import ImageFacts, measure
from inspection.dataset.images import SourceImage
from inspection.dataset.shortcuts import auroc, find_shortcuts, least_beyond_chance, measure_shortcuts

_BASE = measure("x", encode(smooth_picture(1)))


def _set(count: int, seed: int = 0, **bad: object) -> tuple[list[SourceImage], dict[str, ImageFacts]]:
    """So many images of each class whose properties vary at random, and those of bad ones as given."""
    rng = np.random.default_rng(seed)
    images, facts = [], {}
    for place in range(2 * count):
        label = "good" if place % 2 else "bad"
        uri = f"{label}/{place}.jpg"
        values = {
            "uri": uri,
            "bytes": int(rng.normal(50_000, 3000)),
            "brightness": float(rng.normal(120, 5)),
            "contrast": float(rng.normal(40, 2)),
            "sharpness": float(rng.normal(5, 0.3)),
            "jpeg_quality": 90.0,
            "taken_at": f"2026-03-{rng.integers(1, 20):02d}T{rng.integers(0, 24):02d}:00:00",
            "camera": rng.choice(["Acme A", "Acme B"]),
        }
        if label == "bad":
            values |= bad
        facts[uri] = dataclasses.replace(_BASE, **values)
        images.append(SourceImage(uri, "1", label, None, None, uri))  # type: ignore[arg-type]
    return images, facts


def _found(images: list[SourceImage], facts: dict[str, ImageFacts]) -> set[str]:
    return {str(one.figures["property"]) for one in find_shortcuts(images, facts)}


@pytest.mark.parametrize(
    ("change", "properties"),
    [
        ({}, set()),
        ({"bytes": 80_000}, {"file size"}),
        ({"bytes": 20_000}, {"file size"}),
        ({"brightness": 160.0}, {"brightness"}),
        ({"jpeg_quality": 70.0}, {"JPEG quality"}),
        ({"camera": "Phone"}, {"camera"}),
        ({"camera": None}, {"camera"}),
        ({"taken_at": "2026-05-01T10:00:00"}, {"date", "day"}),
        ({"format": "BMP"}, {"file format"}),
        ({"mode": "L"}, {"pixel type"}),
        ({"width": 48, "height": 36}, {"resolution", "size in px", "bits per pixel"}),
    ],
)
def test_a_property_that_tells_the_label_is_a_shortcut(change: dict[str, object], properties: set[str]) -> None:
    assert _found(*_set(40, **change)) == properties


@pytest.mark.parametrize("seed", range(20))
def test_a_small_set_without_a_shortcut_raises_no_alarm(seed: int) -> None:
    assert _found(*_set(6, seed)) == set()


def test_six_and_six_images_are_too_few_to_be_sure() -> None:
    assert _found(*_set(6, bytes=80_000)) == set()
    assert _found(*_set(15, bytes=80_000)) == {"file size"}


def test_images_of_one_part_count_once() -> None:
    images, facts = _set(40, bytes=80_000)
    three_parts = [dataclasses.replace(image, group=f"{image.label}{place % 3}") for place, image in enumerate(images)]
    assert _found(three_parts, facts) == set()


def test_a_date_that_only_some_images_have_is_not_tried() -> None:
    images, facts = _set(40)
    for image in images[::2]:
        facts[image.uri] = dataclasses.replace(facts[image.uri], taken_at=None, camera=None)
    assert "date" not in {one.property for one in measure_shortcuts(images, facts)}


def test_a_day_for_every_image_tells_nothing() -> None:
    images, facts = _set(40)
    for place, image in enumerate(images):
        day = (place * 7919) % 1000
        taken = str(np.datetime64("2020-01-01") + day) + "T10:00:00"
        facts[image.uri] = dataclasses.replace(facts[image.uri], taken_at=taken)
    assert _found(images, facts) == set()


def test_a_class_saved_at_another_quality_is_found_in_real_files() -> None:
    source = MemorySource({})
    for seed in range(40):
        uri, quality = (f"good/{seed}.jpg", 95) if seed % 2 else (f"bad/{seed}.jpg", 85)
        source.add(uri, encode(smooth_picture(seed, (48, 36)), "JPEG", quality=quality))
    told = [one.summary for one in source.examine().findings if one.code == "shortcut"]
    assert any(
        text.startswith("JPEG quality alone tells good from bad with an AUROC of 1.000") and "good pictures 9" in text
        for text in told
    ), told


def test_one_class_is_no_reason_for_an_alarm() -> None:
    images, facts = _set(20)
    assert measure_shortcuts([image for image in images if image.label == "good"], facts) == []


def test_auroc_counts_ties_half() -> None:
    assert auroc(np.array([1.0, 2, 2, 3]), np.array([False, False, True, True])) == pytest.approx(0.875)


def test_the_limit_of_chance_falls_with_the_number_of_parts() -> None:
    assert least_beyond_chance(6, 6, 14) > 1
    assert 0.9 < least_beyond_chance(12, 12, 14) < 1
    assert least_beyond_chance(100, 100, 14) < 0.65


def test_brightness_of_one_class_is_found_in_real_files() -> None:
    source = MemorySource({})
    for seed in range(40):
        picture = smooth_picture(seed % 20, (48, 36), cells=8)
        if seed % 2:
            picture = Image.eval(picture, lambda level: int(level * 0.5))
        source.add(f"{'good' if seed % 2 else 'bad'}/{seed}.png", encode(picture))
    assert "brightness" in {one.figures.get("property") for one in source.examine().findings}
