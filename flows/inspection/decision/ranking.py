"""How well the scores rank bad above good, whatever the thresholds: AUROC and average precision with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from inspection.decision.bounds import INTERVAL_CONFIDENCE

RESAMPLES = 1000
CHUNK = 500_000  # resampled weights held at once


@dataclass(frozen=True)
class Estimate:
    """A figure with its two-sided 95 % interval."""

    value: float
    low: float
    high: float


def estimate_ranking(
    scores: np.ndarray, is_bad: np.ndarray, groups: Sequence[str], seed: int = 0
) -> tuple[Estimate, Estimate]:
    """AUROC and average precision, each with a percentile bootstrap interval.

    Whole groups are drawn, those that hold a bad image and those that hold none apart. Where the classes do not
    overlap at all the interval shrinks to a point: it cannot show what images that are not there would do.

    Args:
        scores: float64 [N], finite.
        is_bad: bool [N], both classes present.
        groups: name of each image's group, length N.
        seed: of the resampling.
    """
    value = float(roc_auc_score(is_bad, scores)), float(average_precision_score(is_bad, scores))
    order = np.argsort(scores, kind="stable")
    bad = is_bad[order].astype(np.float64)
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # first image of each distinct score
    _, group_of = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    group_of = group_of[order]
    holds_bad = np.bincount(group_of, weights=bad) > 0
    generator = np.random.default_rng(seed)
    aurocs, precisions = [], []
    chunk = max(1, CHUNK // len(scores))
    for start in range(0, RESAMPLES, chunk):
        draws = min(chunk, RESAMPLES - start)
        weights = _draw_groups(generator, holds_bad, draws)[:, group_of]
        auroc, precision = _rank_weighted(weights * bad, weights * (1 - bad), starts)
        aurocs.append(auroc)
        precisions.append(precision)
    return _interval(value[0], np.concatenate(aurocs)), _interval(value[1], np.concatenate(precisions))


def _draw_groups(generator: np.random.Generator, holds_bad: np.ndarray, draws: int) -> np.ndarray:
    """How often each group is drawn, float64 [draws, groups], drawing within both strata."""
    weights = np.zeros((draws, len(holds_bad)))
    for stratum in (np.flatnonzero(holds_bad), np.flatnonzero(~holds_bad)):
        if len(stratum):
            weights[:, stratum] = generator.multinomial(len(stratum), np.full(len(stratum), 1 / len(stratum)), draws)
    return weights


def _rank_weighted(bad: np.ndarray, good: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted AUROC and average precision of each row; a row that lost a class is left out.

    Args:
        bad: float64 [R, N], weights of the bad images, images in order of score.
        good: float64 [R, N].
        starts: int [L], first image of each distinct score.
    """
    bad_at, good_at = np.add.reduceat(bad, starts, axis=1), np.add.reduceat(good, starts, axis=1)  # [R, L]
    all_bad, all_good = bad_at.sum(axis=1), good_at.sum(axis=1)
    whole = (all_bad > 0) & (all_good > 0)
    bad_at, good_at, all_bad, all_good = bad_at[whole], good_at[whole], all_bad[whole, None], all_good[whole, None]
    good_below = np.cumsum(good_at, axis=1) - good_at / 2
    auroc = np.sum(bad_at * good_below, axis=1) / (all_bad * all_good)[:, 0]
    bad_above = np.cumsum(bad_at[:, ::-1], axis=1)
    found = bad_above + np.cumsum(good_at[:, ::-1], axis=1)
    precision = np.divide(bad_above, found, out=np.zeros_like(found), where=found > 0)
    return auroc, np.sum(precision * bad_at[:, ::-1], axis=1) / all_bad[:, 0]


def _interval(value: float, resampled: np.ndarray) -> Estimate:
    outside = (1 - INTERVAL_CONFIDENCE) / 2
    low, high = np.quantile(resampled, [outside, 1 - outside])
    return Estimate(value, float(min(low, value)), float(max(high, value)))
