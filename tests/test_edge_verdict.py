"""Verdicts at, around and off the thresholds, and pictures that must not be judged."""

import math

import numpy as np
import pytest

from edge.contract import Calibration, InputGuard, OperatingPoint, Range
from edge.errors import ScoreError
from edge.statistics import ImageStatistics
from edge.verdict import check_guard, decide, likeliest_type, probability_bad

POINT = OperatingPoint("op", lower=-1.0, upper=2.0)
GUARD = InputGuard(Range(40, 200), Range(5, 80), Range(1, 50), Range(1.2, 1.4), 640, 480)
USUAL = ImageStatistics(brightness=120, contrast=30, sharpness=8)


@pytest.mark.parametrize(
    ("score", "verdict"),
    [(-50.0, "pass"), (-1.0001, "pass"), (-1.0, "review"), (0.0, "review"), (2.0, "review"), (2.0001, "fail")],
)
def test_a_score_gets_its_verdict_and_a_tie_is_a_review(score: float, verdict: str) -> None:
    assert decide(score, POINT) == verdict


def test_without_a_band_only_the_tie_is_a_review() -> None:
    point = OperatingPoint("op", lower=0.5, upper=0.5)
    assert [decide(score, point) for score in (0.4, 0.5, 0.6)] == ["pass", "review", "fail"]


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_an_error_and_never_a_pass(score: float) -> None:
    with pytest.raises(ScoreError, match="want a finite number"):
        decide(score, POINT)


def test_the_guard_lets_usual_pictures_through() -> None:
    assert check_guard(GUARD, USUAL, 1280, 960) is None


@pytest.mark.parametrize(
    ("statistics", "size", "reason"),
    [
        (ImageStatistics(0, 30, 8), (1280, 960), "brightness 0 is outside 40 to 200"),
        (ImageStatistics(255, 30, 8), (1280, 960), "brightness 255 is outside"),
        (ImageStatistics(120, 0, 8), (1280, 960), "contrast 0 is outside"),
        (ImageStatistics(120, 30, 0.2), (1280, 960), "sharpness 0.2 is outside"),
        (ImageStatistics(math.nan, 30, 8), (1280, 960), "brightness nan is outside"),
        (USUAL, (960, 1280), "aspect ratio 0.75 is outside 1.2 to 1.4"),
        (USUAL, (320, 240), "picture of 320x240 px is smaller than 640x480 px"),
    ],
)
def test_the_guard_says_why_it_stops_a_picture(statistics: ImageStatistics, size: tuple[int, int], reason: str) -> None:
    assert (check_guard(GUARD, statistics, *size) or "").startswith(reason)


def test_the_label_is_the_likeliest_type() -> None:
    assert likeliest_type(np.array([0.1, 3.0, -2.0], np.float32), ("dent", "stain", "crack")) == "stain"
    assert likeliest_type(None, ()) is None


def test_probability_follows_the_temperature_and_never_overflows() -> None:
    calibration = Calibration(temperature=2.0, prevalence=0.5)
    assert probability_bad(0.0, calibration) == 0.5
    assert probability_bad(2.0, calibration) == pytest.approx(1 / (1 + math.exp(-1)))
    assert probability_bad(1e6, calibration) == 1.0
    assert probability_bad(-1e6, calibration) == 0.0
