"""Verdicts of many scores, their rates per class, and what they mean for 1,000 parts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.contract import OperatingPoint
from edge.verdict import action_for
from inspection.decision.bounds import Rate, measure_rates
from inspection.decision.ranking import Estimate

VERDICTS = ("pass", "review", "fail", "error")
OUTLETS = {"accept": "pass", "reject": "fail", "review": "review"}  # what the line does with a part, as a verdict


@dataclass(frozen=True)
class VerdictRates:
    """What happens to parts of either class."""

    escape: Rate  # bad and passed
    caught: Rate  # bad and failed
    review_bad: Rate
    overkill: Rate  # good and failed
    cleared: Rate  # good and passed
    review_good: Rate
    error_bad: Rate  # no trustworthy score: the input guard refused the picture
    error_good: Rate


def decide_all(scores: np.ndarray, point: OperatingPoint, refused: np.ndarray | None = None) -> np.ndarray:
    """The verdict of each part, as the device gives it.

    Args:
        scores: float64 [N].
        point: thresholds.
        refused: bool [N], pictures that the input guard refuses whatever their score; None = none of them.

    Returns:
        str [N] of pass, review, fail, error.
    """
    verdicts = np.where(scores < point.lower, "pass", np.where(scores > point.upper, "fail", "review"))
    return verdicts if refused is None else np.where(refused, "error", verdicts)


def resolve_all(verdicts: np.ndarray, point: OperatingPoint) -> np.ndarray:
    """What the line does with each part, by `review_action` and `on_error`; str [N] of pass, review, fail."""
    resolved = verdicts.copy()
    for name in ("review", "error"):
        resolved[verdicts == name] = OUTLETS[action_for(name, point)]
    return resolved


def resolve_errors(verdicts: np.ndarray, point: OperatingPoint) -> np.ndarray:
    """The verdicts with each error treated as `on_error` says; str [N] of pass, review, fail."""
    return np.where(verdicts == "error", OUTLETS[action_for("error", point)], verdicts)


def measure_verdicts(verdicts: np.ndarray, is_bad: np.ndarray, groups: Sequence[str]) -> VerdictRates:
    """Rates of each verdict per class, with intervals; every group counts once, see `Rate`.

    Args:
        verdicts: str [N] of pass, review, fail, error.
        is_bad: bool [N].
        groups: name of each image's group, length N.
    """

    names = np.asarray(groups, dtype=str)
    rates = []
    for chosen in (is_bad, ~is_bad):
        of_class = verdicts[chosen]
        rates += measure_rates([of_class == name for name in VERDICTS], names[chosen].tolist())
    escape, review_bad, caught, error_bad, cleared, review_good, overkill, error_good = rates
    return VerdictRates(escape, caught, review_bad, overkill, cleared, review_good, error_bad, error_good)


def predict_per_thousand(
    resolved: VerdictRates, reviewed: VerdictRates, rates: VerdictRates, defect_rate: float
) -> dict[str, Estimate]:
    """What happens to 1,000 parts of which `defect_rate` are bad; the interval of a sum adds both intervals.

    Args:
        resolved: of what the line does, for escapes and false alarms.
        reviewed: with errors resolved and reviews not, for reviews.
        rates: of the verdicts, for errors.
        defect_rate: share of bad parts on the line.
    """

    def weigh(bad: Rate | None, good: Rate | None) -> Estimate:
        parts = [(1000 * share, rate) for share, rate in ((defect_rate, bad), (1 - defect_rate, good)) if rate]
        return Estimate(
            value=sum(weight * rate.rate for weight, rate in parts),
            low=sum(weight * rate.low for weight, rate in parts),
            high=sum(weight * rate.high for weight, rate in parts),
        )

    return {
        "escapes": weigh(resolved.escape, None),
        "false_alarms": weigh(None, resolved.overkill),
        "reviews": weigh(reviewed.review_bad, reviewed.review_good),
        "errors": weigh(rates.error_bad, rates.error_good),
    }


def count_verdicts(verdicts: np.ndarray, is_bad: np.ndarray) -> dict[str, dict[str, int]]:
    """Images by label ("good", "bad") and verdict."""
    return {
        label: {verdict: int(np.count_nonzero(verdicts[chosen] == verdict)) for verdict in VERDICTS}
        for label, chosen in (("good", ~is_bad), ("bad", is_bad))
    }
