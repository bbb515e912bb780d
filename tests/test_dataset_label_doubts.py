"""Labels that the most similar pictures contradict."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from examined import MemorySource, encode, make_settings

from inspection.dataset import label_doubts
from inspection.dataset.label_doubts import find_label_doubts, vote


def _source(count: int = 25, flipped: tuple[int, ...] = (), told: bool = True) -> MemorySource:
    """Dark good parts and light bad ones; `flipped` bear the wrong label."""
    rng = np.random.default_rng(0)
    source = MemorySource({})
    for place in range(2 * count):
        bad = place % 2 == 0
        level = (170 if bad else 70) if told else 120
        pixels = np.clip(rng.normal(level, 12) + rng.normal(0, 6, (40, 40, 3)), 0, 255).astype(np.uint8)
        label = "good" if bad == (place in flipped) else "bad"
        source.add(f"{label}/{place:02d}.png", encode(pixels))
    return source


def _pooled(pixels: np.ndarray) -> np.ndarray:
    """Means of sixteen patches of each picture."""
    count, height, width, _ = pixels.shape
    return pixels.reshape(count, 4, height // 4, 4, width // 4, 3).mean(axis=(2, 4, 5)).reshape(count, -1)


def _doubted(source: MemorySource, **options: object) -> list[str]:
    settings = make_settings(input={"width": 32, "height": 32})
    found = find_label_doubts(source.listed, source, settings, features=_pooled, progress=False, **options)  # type: ignore[arg-type]
    return sorted(group[0] for finding in found for group in finding.images)


def test_flipped_labels_are_doubted_and_no_others() -> None:
    assert _doubted(_source(flipped=(6, 9))) == ["bad/09.png", "good/06.png"]


def test_right_labels_are_not_doubted() -> None:
    assert _doubted(_source()) == []


def test_nothing_is_said_where_features_cannot_tell_the_classes() -> None:
    assert _doubted(_source(told=False)) == []


def test_the_nearest_neighbours_are_shown_beside_the_picture() -> None:
    source = _source(flipped=(6,))
    settings = make_settings(input={"width": 32, "height": 32})
    (finding,) = find_label_doubts(source.listed, source, settings, features=_pooled, progress=False)
    ((first, *neighbours),) = finding.images
    assert first == "good/06.png"
    assert len(neighbours) == 3
    assert all(uri.startswith("bad/") for uri in neighbours)
    assert "100% of the votes" in finding.summary


def test_pictures_of_one_part_do_not_vote_for_each_other() -> None:
    features = np.concatenate([np.zeros((10, 2)), np.ones((20, 2))]) + np.random.default_rng(0).normal(0, 0.01, (30, 2))
    bad = np.array([True] * 10 + [False] * 20)
    parts = np.array([0] * 10 + list(range(1, 21)))
    against, neighbours = vote(features, bad, parts)
    assert against[:10] == pytest.approx(1.0)
    assert neighbours[:10].min() >= 10


def test_small_sets_are_left_alone() -> None:
    assert _doubted(_source(5, flipped=(2,))) == []


def test_an_image_that_is_gone_is_left_out() -> None:
    source = _source(flipped=(6,))
    del source.files["good/07.png"]
    assert _doubted(source) == ["good/06.png"]


def test_copies_are_no_witnesses() -> None:
    source = _source(20)
    copies = [f"good/copy{copy}.png" for copy in range(4)]
    for uri in copies:
        source.add(uri, source.files["bad/04.png"])
    assert _doubted(source, alike=[["bad/04.png", *copies]]) == copies


def test_the_line_s_backbone_describes_pictures() -> None:
    settings = make_settings(
        input={"width": 32, "height": 32}, training={"weights": "none", "backbone": "squeezenet1_1"}
    )
    features = label_doubts.line_features(settings)
    described = features(np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8))
    assert described.shape[0] == 3
    assert np.isfinite(described).all()


def test_the_checks_do_not_import_torch() -> None:
    code = "import sys, inspection.dataset.examine; assert not {'torch', 'metaflow'} & set(sys.modules), 'heavy'"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_two_groups_of_one_name_are_one_part() -> None:
    source = _source(20)
    same = [dataclasses.replace(image, group="part") for image in source.listed]
    assert len(np.unique(label_doubts._part_numbers(same, ()))) == 1
