"""Curves of the report: score histogram, reliability of the probabilities, cost over the threshold."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inspection.decision.bounds import Rate, measure_rate
from inspection.settings import OperatingPointSettings

HISTOGRAM_BINS = 40
RELIABILITY_BINS = 10
LEAST_IN_BIN = 10  # images; fewer say nothing about a probability
COST_POINTS = 200


@dataclass(frozen=True)
class Histogram:
    """Images by score: bin i holds scores from edges[i] to edges[i + 1]."""

    edges: tuple[float, ...]
    good: tuple[int, ...]
    bad: tuple[int, ...]


@dataclass(frozen=True)
class ReliabilityBin:
    """Images of similar predicted probability: what was predicted and what they were."""

    predicted: float  # mean p(bad)
    observed: Rate  # share that was bad


@dataclass(frozen=True)
class Reliability:
    """Whether parts with p(bad) = 30 % are bad in 30 % of the cases."""

    bins: tuple[ReliabilityBin, ...]
    expected_calibration_error: float  # mean |predicted - observed|, weighted by images
    brier: float  # mean squared error of the probability


@dataclass(frozen=True)
class CostCurve:
    """Cost per 1,000 parts at `expected_defect_rate`, in units of one false alarm.

    `threshold` and `cost` describe a single threshold without review; the operating point stands beside them.
    """

    threshold: tuple[float, ...]
    cost: tuple[float, ...]
    operating_point: float
    pass_everything: float
    fail_everything: float
    best_threshold: float
    best: float


def make_histogram(scores: np.ndarray, is_bad: np.ndarray) -> Histogram:
    """Count both classes in equal bins over the range of the scores."""
    low, high = float(scores.min()), float(scores.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, HISTOGRAM_BINS + 1)
    good, _ = np.histogram(scores[~is_bad], edges)
    bad, _ = np.histogram(scores[is_bad], edges)
    return Histogram(tuple(edges.tolist()), tuple(good.tolist()), tuple(bad.tolist()))


def measure_reliability(probabilities: np.ndarray, is_bad: np.ndarray, groups: Sequence[str]) -> Reliability:
    """Compare predicted probabilities with what the images were, in bins of equally many images.

    Args:
        probabilities: float64 [N], p(bad).
        is_bad: bool [N].
        groups: name of each image's group, length N.
    """
    count = max(1, min(RELIABILITY_BINS, len(probabilities) // LEAST_IN_BIN))
    edges = np.unique(np.quantile(probabilities, np.linspace(0, 1, count + 1)))
    bin_of = np.clip(np.searchsorted(edges, probabilities, side="right") - 1, 0, max(0, len(edges) - 2))
    names = np.asarray(groups, dtype=str)
    bins, error = [], 0.0
    for index in np.unique(bin_of):
        inside = bin_of == index
        predicted = float(probabilities[inside].mean())
        observed = measure_rate(is_bad[inside], names[inside].tolist())
        bins.append(ReliabilityBin(predicted, observed))
        error += abs(predicted * observed.total - observed.count) / len(probabilities)
    return Reliability(tuple(bins), error, float(np.mean((probabilities - is_bad) ** 2)))


def draw_cost_curve(
    scores: np.ndarray, is_bad: np.ndarray, outlets: np.ndarray, settings: OperatingPointSettings
) -> CostCurve:
    """Cost per 1,000 parts over a single threshold, and at the operating point.

    Args:
        scores: float64 [N], finite.
        is_bad: bool [N], both classes present.
        outlets: str [N] of pass, review, fail: what the line does at the operating point that stands beside the curve.
        settings: escape_cost, review_cost, expected_defect_rate.
    """
    bad, good = np.sort(scores[is_bad]), np.sort(scores[~is_bad])
    levels = np.unique(scores)
    cuts = np.concatenate(([levels[0] - 1.0], (levels[:-1] + levels[1:]) / 2, [levels[-1] + 1.0]))
    if len(cuts) > COST_POINTS:
        cuts = cuts[np.linspace(0, len(cuts) - 1, COST_POINTS).round().astype(int)]
    defects = 1000 * settings.expected_defect_rate
    sound = 1000 - defects
    escapes = defects * np.searchsorted(bad, cuts, side="left") / len(bad)
    alarms = sound * (1 - np.searchsorted(good, cuts, side="right") / len(good))
    cost = settings.escape_cost * escapes + alarms
    best = int(np.argmin(cost))
    passed, failed, reviewed = (outlets == name for name in ("pass", "fail", "review"))
    chosen = (
        settings.escape_cost * defects * passed[is_bad].mean()
        + sound * failed[~is_bad].mean()
        + settings.review_cost * (defects * reviewed[is_bad].mean() + sound * reviewed[~is_bad].mean())
    )
    return CostCurve(
        threshold=tuple(cuts.tolist()),
        cost=tuple(cost.tolist()),
        operating_point=float(chosen),
        pass_everything=settings.escape_cost * defects,
        fail_everything=sound,
        best_threshold=float(cuts[best]),
        best=float(cost[best]),
    )
