"""Single images of the holdout that are worth looking at: the mistakes and the close calls."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge.contract import OperatingPoint

CASES_KEPT = 100


@dataclass(frozen=True)
class Case:
    """One image of the holdout with what was decided."""

    index: int  # row of the arrays given to `evaluate`
    uri: str
    label: Literal["good", "bad"]
    defect_type: str | None
    score: float
    probability: float  # p(bad), at the calibration set's prevalence
    verdict: Literal["pass", "review", "fail", "error"]
    distance: float  # from the threshold that decides, in logits


def list_cases(
    scores: np.ndarray,
    is_bad: np.ndarray,
    types: Sequence[str | None],
    uris: Sequence[str],
    probabilities: np.ndarray,
    verdicts: np.ndarray,
    outlets: np.ndarray,
    point: OperatingPoint,
) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """The mistakes of the line, and what it does right, but only just.

    Args:
        scores: float64 [N].
        is_bad: bool [N].
        types: type of defect of each image, length N.
        uris: where each image is, length N.
        probabilities: float64 [N], p(bad).
        verdicts: str [N] of pass, review, fail, error.
        outlets: str [N] of pass, review, fail: what the line does with each part.
        point: thresholds.

    Returns:
        Mistakes: escapes, farthest from the threshold first, then false alarms likewise, then good parts whose picture
        the input guard refuses, at distance 0. Close calls: nearest first.
    """

    def make_cases(indices: np.ndarray, distance: np.ndarray) -> list[Case]:
        return [
            Case(
                index=int(index),
                uri=uris[index],
                label="bad" if is_bad[index] else "good",
                defect_type=types[index],
                score=float(scores[index]),
                probability=float(probabilities[index]),
                verdict=verdicts[index].item(),
                distance=float(distance[index]),
            )
            for index in indices[:CASES_KEPT]
        ]

    below = (point.upper if point.review_action == "pass" else point.lower) - scores
    above = scores - (point.lower if point.review_action == "fail" else point.upper)
    judged = verdicts != "error"
    escaped = np.flatnonzero(is_bad & (outlets == "pass"))
    alarmed = np.flatnonzero(~is_bad & judged & (outlets == "fail"))
    refused = np.flatnonzero(~is_bad & ~judged)
    right = np.flatnonzero(judged & np.where(is_bad, outlets == "fail", outlets == "pass"))
    margin = np.where(is_bad, above, below)
    mistakes = make_cases(escaped[np.argsort(-below[escaped], kind="stable")], below)
    mistakes += make_cases(alarmed[np.argsort(-above[alarmed], kind="stable")], above)
    mistakes += make_cases(refused, np.zeros(len(scores)))
    closest = make_cases(right[np.argsort(margin[right], kind="stable")], margin)
    return tuple(mistakes), tuple(closest[:CASES_KEPT])
