"""From a score to a verdict, and whether the picture may be judged at all."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from edge.contract import Calibration, InputGuard, OperatingPoint, Range
from edge.errors import ScoreError
from edge.statistics import ImageStatistics

Verdict = Literal["pass", "review", "fail"]


def decide(score: float, point: OperatingPoint) -> Verdict:
    """Apply the operating point.

    A score on a threshold is a review.

    Args:
        score: a logit; higher is worse.
        point: the two thresholds.

    Raises:
        ScoreError: the score is not a finite number; that is never a pass.
    """
    if not math.isfinite(score):
        raise ScoreError(f"score: want a finite number, found {score}; run the self-test of this model package")
    if score < point.lower:
        return "pass"
    return "fail" if score > point.upper else "review"


def action_for(
    verdict: Verdict | Literal["error"], point: OperatingPoint | None
) -> Literal["accept", "reject", "review"]:
    """What the line's outlet does with a part; never "accept" for an error.

    Args:
        verdict: of the part.
        point: of the package that judged it; None when there was no package.
    """
    if verdict == "pass":
        return "accept"
    if verdict == "fail" or point is None:
        return "reject"
    if verdict == "error":
        return point.on_error
    actions: dict[str, Literal["accept", "reject", "review"]] = {"pass": "accept", "fail": "reject"}
    return actions.get(point.review_action, "review")


def check_guard(guard: InputGuard, statistics: ImageStatistics, width_px: int, height_px: int) -> str | None:
    """Why a picture must not be judged, or None when it may.

    Args:
        guard: what pictures were like in training.
        statistics: of the model's input.
        width_px: of the whole original picture, upright.
        height_px: likewise.
    """
    if width_px < guard.min_width or height_px < guard.min_height:
        return f"picture of {width_px}x{height_px} px is smaller than {guard.min_width}x{guard.min_height} px"
    measured: tuple[tuple[str, float, Range], ...] = (
        ("aspect ratio", width_px / height_px, guard.aspect_ratio),
        ("brightness", statistics.brightness, guard.brightness),
        ("contrast", statistics.contrast, guard.contrast),
        ("sharpness", statistics.sharpness, guard.sharpness),
    )
    for name, value, allowed in measured:
        if not allowed.low <= value <= allowed.high:
            return f"{name} {value:.4g} is outside {allowed.low:.4g} to {allowed.high:.4g}, the range seen in training"
    return None


def likeliest_type(type_logits: np.ndarray | None, defect_types: Sequence[str]) -> str | None:
    """Name of the defect type with the highest logit; None when the model tells no types.

    Args:
        type_logits: float32, shape (T,).
        defect_types: T names, in the order of the logits.
    """
    if type_logits is None or not len(defect_types):
        return None
    return defect_types[int(np.argmax(type_logits))]


def probability_bad(score: float, calibration: Calibration) -> float:
    """Probability that the part is bad, at the calibration set's prevalence."""
    logit = score / calibration.temperature
    # Two forms, so that exp never overflows.
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))
