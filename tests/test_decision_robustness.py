import numpy as np
import pytest

from edge.contract import OperatingPoint
from inspection.decision.robustness import (
    DISTURBANCES,
    IMAGES_DISTURBED,
    Disturbance,
    choose_disturbed,
    perturb,
    summarise_robustness,
)
from inspection.errors import DataError


def make_pixels(count: int = 3, side: int = 32) -> np.ndarray:
    generator = np.random.default_rng(0)
    smooth = generator.integers(60, 200, (count, side // 8, side // 8, 3))
    return smooth.repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)


@pytest.mark.parametrize("disturbance", DISTURBANCES, ids=lambda disturbance: disturbance.name)
def test_every_disturbance_changes_the_pictures_and_not_the_array_given(disturbance: Disturbance) -> None:
    pixels = make_pixels()
    before = pixels.copy()
    changed = perturb(pixels, disturbance.kind, disturbance.strength, seed=1)
    assert (changed.shape, changed.dtype) == (pixels.shape, np.uint8)
    assert np.array_equal(pixels, before)
    assert not np.array_equal(changed, pixels)
    assert np.array_equal(changed, perturb(pixels, disturbance.kind, disturbance.strength, seed=1))


def test_brightness_moves_grey_levels_and_saturates() -> None:
    pixels = np.array([0, 100, 250], dtype=np.uint8).repeat(3).reshape(1, 3, 1, 3)
    assert perturb(pixels, "brightness", 0.1)[0, :, 0, 0].tolist() == [26, 126, 255]
    assert perturb(pixels, "brightness", -0.1)[0, :, 0, 0].tolist() == [0, 74, 224]


def test_noise_has_the_spread_asked_for() -> None:
    pixels = np.full((2, 64, 64, 3), 128, dtype=np.uint8)
    assert perturb(pixels, "noise", 5.0, seed=3).std() == pytest.approx(5.0, rel=0.05)


def test_blur_keeps_colours_apart_and_the_mean() -> None:
    pixels = np.zeros((1, 33, 33, 3), dtype=np.uint8)
    pixels[0, 16, 16, 0] = 255
    blurred = perturb(pixels, "blur", 1.0)
    assert 0 < blurred[0, 16, 16, 0] < 60
    assert not blurred[..., 1:].any()


def test_shift_moves_by_whole_pixels_and_repeats_the_edge() -> None:
    pixels = make_pixels(1)
    shifted = perturb(pixels, "shift", 2 / 32, seed=0)
    moves = [np.roll(pixels, (down, right), axis=(1, 2)) for down in (-2, 2) for right in (-2, 2)]
    assert any(np.array_equal(shifted[:, 4:-4, 4:-4], moved[:, 4:-4, 4:-4]) for moved in moves)


def test_kinds_that_do_not_exist_and_strengths_without_sense_are_refused() -> None:
    with pytest.raises(DataError, match="no disturbance 'fog'"):
        perturb(make_pixels(), "fog", 1.0)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no disturbance 'jpeg' of strength 0"):
        perturb(make_pixels(), "jpeg", 0)
    with pytest.raises(DataError, match="want uint8 pixels"):
        perturb(make_pixels().astype(np.float32), "blur", 1.0)


def test_summary_counts_changed_verdicts() -> None:
    point = OperatingPoint(id="op", lower=-0.5, upper=0.5)
    is_bad = np.array([False, False, True, True])
    clean = np.array([-1.0, -1.0, 1.0, 1.0])
    rows = summarise_robustness(
        (clean, np.array([False, True, False, False])),
        [(Disturbance("blur", 1.0), np.array([-1.0, 0.0, 1.0, -1.0]), np.array([True, False, False, False]))],
        is_bad,
        list("abcd"),
        point,
    )
    assert [row.name for row in rows] == ["as they are", "blur of 1 px"]
    assert rows[0].changed.count == 0
    assert rows[0].auroc == 1.0
    assert rows[0].error.count == rows[1].error.count == 1
    assert (rows[1].changed.count, rows[1].escape.count, rows[1].review.count, rows[1].overkill.count) == (3, 1, 1, 1)


@pytest.mark.parametrize(
    ("review_action", "on_error", "escapes", "overkills"),
    [("review", "review", 0, 0), ("pass", "reject", 1, 1), ("fail", "review", 0, 1)],
)
def test_summary_counts_what_the_line_does(review_action: str, on_error: str, escapes: int, overkills: int) -> None:
    point = OperatingPoint(id="op", lower=-0.5, upper=0.5, review_action=review_action, on_error=on_error)
    is_bad = np.array([False, False, False, True, True])
    clean, kept = np.array([-1.0, -1.0, -1.0, 1.0, 1.0]), np.zeros(5, dtype=bool)
    disturbed = np.array([-1.0, 0.0, -1.0, 0.0, 1.0]), np.array([False, False, True, False, False])
    row = summarise_robustness((clean, kept), [(Disturbance("blur", 1.0), *disturbed)], is_bad, list("abcde"), point)[1]
    assert (row.escape.count, row.overkill.count) == (escapes, overkills)
    assert (row.review.count, row.error.count, row.changed.count) == (2, 1, 3)


def test_summary_refuses_scores_that_do_not_fit() -> None:
    point = OperatingPoint(id="op", lower=-0.5, upper=0.5)
    with pytest.raises(DataError, match="pictures JPEG quality 50: want 2 finite scores"):
        summarise_robustness(
            (np.array([0.0, 1.0]), np.zeros(2, dtype=bool)),
            [(Disturbance("jpeg", 50.0), np.array([0.0]), np.zeros(1, dtype=bool))],
            np.array([False, True]),
            ["a", "b"],
            point,
        )


def test_a_large_holdout_is_disturbed_in_part_with_both_classes() -> None:
    rare = np.arange(20_000) % 1000 == 0
    chosen = choose_disturbed(rare)
    assert len(chosen) == IMAGES_DISTURBED
    assert np.count_nonzero(rare[chosen]) == 20
    assert np.array_equal(chosen, choose_disturbed(rare))
    half = choose_disturbed(np.arange(2_000) % 2 == 0)
    assert len(half) == IMAGES_DISTURBED
    assert len(choose_disturbed(rare[:5000] ^ True)) == IMAGES_DISTURBED
    assert len(choose_disturbed(rare[:200])) == 200
