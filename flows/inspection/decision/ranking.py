"""How well the scores rank bad above good, whatever the thresholds: AUROC and average precision with intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import rel_entr
from sklearn.metrics import average_precision_score, roc_auc_score

from inspection.decision.bounds import INTERVAL_CONFIDENCE, clopper_pearson_upper

RESAMPLES = 1000
LEAST_REACHING = 5  # groups of a class within the other's scores; of fewer, resampling shows too little
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

    Whole groups are drawn, those that hold a bad image and those that hold none apart. Where hardly any group reaches
    into the other class, resampling cannot show what other images would do: see `_floors` for the lower ends there.

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
    floors = _floors(value[0], scores, is_bad, np.asarray(groups, dtype=str))
    return (
        _interval(value[0], np.concatenate(aurocs), floors[0]),
        _interval(value[1], np.concatenate(precisions), floors[1]),
    )


def _floors(auroc: float, scores: np.ndarray, is_bad: np.ndarray, names: np.ndarray) -> tuple[float, float]:
    """Lower ends of the intervals of AUROC and average precision that hold where the classes hardly overlap.

    AUROC: with fewer than `LEAST_REACHING` groups of a class within the other's scores, Hoeffding's bound on a
    two-sample U-statistic, an average over as many independent pairs as the rarer class has groups. Without any
    overlap it is the exact bound after that many pairs without a mistake: 0.929 for 50.

    Average precision, without any overlap: with half of the risk each, most bad parts score above the lowest seen, and
    few good ones do; the precision at every score above it follows from both.

    Returns:
        1.0 each where the bootstrap serves.

    Source: Hoeffding (1963), "Probability inequalities for sums of bounded random variables", theorem 1 and section 5.
    """
    bad, good = scores[is_bad], scores[~is_bad]
    bad_names, good_names = set(names[is_bad].tolist()), set(names[~is_bad].tolist())
    reaching = (
        len(set(names[is_bad & (scores <= good.max())].tolist())),
        len(set(names[~is_bad & (scores >= bad.min())].tolist())),
    )
    if min(reaching) >= LEAST_REACHING:
        return 1.0, 1.0
    pairs = min(len(bad_names), len(good_names))
    if bad_names & good_names:  # a bad image and a good one of another group share no group with every second pair
        pairs = max(1, pairs // 2)
    risk = (1 - INTERVAL_CONFIDENCE) / 2
    if max(reaching) > 0:
        return _solve_hoeffding(auroc, pairs, risk), 1.0
    found = (risk / 2) ** (1 / len(bad_names))  # share of bad parts above the lowest seen, at least
    alarms = clopper_pearson_upper(0, len(good_names), 1 - risk / 2)  # of good parts above it, at most
    odds = alarms * len(good) / len(bad)  # false alarms there, in bad parts
    return risk ** (1 / pairs), found - odds * math.log((found + odds) / odds)


def _solve_hoeffding(mean: float, terms: int, risk: float) -> float:
    """The smallest expectation that is not refuted by this mean of independent terms in 0..1."""

    def excess(expected: float) -> float:
        divergence = rel_entr(mean, expected) + rel_entr(1 - mean, 1 - expected)
        return float(divergence + math.log(risk) / terms)

    lowest = 1e-12
    return float(brentq(excess, lowest, mean)) if mean > lowest and excess(lowest) > 0 else 0.0


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


def _interval(value: float, resampled: np.ndarray, floor: float) -> Estimate:
    outside = (1 - INTERVAL_CONFIDENCE) / 2
    low, high = np.quantile(resampled, [outside, 1 - outside])
    return Estimate(value, float(min(low, value, max(0.0, floor))), float(max(high, value)))
