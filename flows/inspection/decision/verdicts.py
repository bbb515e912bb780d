"""Verdicts of many scores, their rates per class, and what they mean for 1,000 parts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.contract import OperatingPoint
from inspection.decision.bounds import Rate, make_rate
from inspection.decision.ranking import Estimate

VERDICTS = ("pass", "review", "fail")


@dataclass(frozen=True)
class VerdictRates:
    """What happens to parts of either class."""

    escape: Rate  # bad and passed
    caught: Rate  # bad and failed
    review_bad: Rate
    overkill: Rate  # good and failed
    cleared: Rate  # good and passed
    review_good: Rate


def decide_all(scores: np.ndarray, point: OperatingPoint) -> np.ndarray:
    """The verdict of each score, as the device gives it; str [N] of pass, review, fail."""
    return np.where(scores < point.lower, "pass", np.where(scores > point.upper, "fail", "review"))


def measure_verdicts(verdicts: np.ndarray, is_bad: np.ndarray, groups: Sequence[str]) -> VerdictRates:
    """Rates of each verdict per class, with intervals that count groups.

    Args:
        verdicts: str [N] of pass, review, fail.
        is_bad: bool [N].
        groups: name of each image's group, length N.
    """

    names = np.asarray(groups, dtype=str)
    rates = []
    for chosen in (is_bad, ~is_bad):
        of_class, members = verdicts[chosen], len(set(names[chosen].tolist()))
        rates += [make_rate(int(np.count_nonzero(of_class == name)), len(of_class), members) for name in VERDICTS]
    escape, review_bad, caught, cleared, review_good, overkill = rates
    return VerdictRates(escape, caught, review_bad, overkill, cleared, review_good)


def predict_per_thousand(rates: VerdictRates, defect_rate: float) -> dict[str, Estimate]:
    """What happens to 1,000 parts of which `defect_rate` are bad; the interval of a sum adds both intervals."""

    def weigh(bad: Rate | None, good: Rate | None) -> Estimate:
        parts = [(1000 * share, rate) for share, rate in ((defect_rate, bad), (1 - defect_rate, good)) if rate]
        return Estimate(
            value=sum(weight * rate.rate for weight, rate in parts),
            low=sum(weight * rate.low for weight, rate in parts),
            high=sum(weight * rate.high for weight, rate in parts),
        )

    return {
        "escapes": weigh(rates.escape, None),
        "false_alarms": weigh(None, rates.overkill),
        "reviews": weigh(rates.review_bad, rates.review_good),
    }


def count_verdicts(verdicts: np.ndarray, is_bad: np.ndarray) -> dict[str, dict[str, int]]:
    """Images by label ("good", "bad") and verdict."""
    return {
        label: {verdict: int(np.count_nonzero(verdicts[chosen] == verdict)) for verdict in VERDICTS}
        for label, chosen in (("good", ~is_bad), ("bad", is_bad))
    }
