"""Raw frames and their own JPEGs: known answers."""

import numpy as np

from edge.contract import OperatingPoint
from inspection.export.jpeg import jpeg_agreement


def test_jpeg_gate_allows_one_in_two_hundred_verdicts_to_differ() -> None:
    point = OperatingPoint("op", lower=-1.0, upper=1.0)
    raw = np.linspace(-5, 5, 400)
    jpeg = raw.copy()
    jpeg[:2] = 0.0  # pass becomes review
    report = jpeg_agreement(raw, jpeg, point)
    assert report.passed
    assert report.differing == (0, 1)
    assert report.agreement == 0.995
    assert report.agreement_lower < 0.995
    jpeg[2] = 9.0
    assert not jpeg_agreement(raw, jpeg, point).passed


def test_difference_of_scores_without_another_verdict_does_not_count() -> None:
    point = OperatingPoint("op", lower=-1.0, upper=1.0)
    report = jpeg_agreement(np.array([-5.0, 5.0]), np.array([-2.0, 2.0]), point)
    assert report.passed
    assert report.max_abs_difference == 3.0
