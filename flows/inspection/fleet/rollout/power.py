"""The smallest change that a test finds: computed, so that everybody knows what a rollout does not see."""

from functools import lru_cache
from typing import Any

import numpy as np
from scipy.stats import binom

from inspection.fleet.rollout.sequential import BettingTest

POWER = 0.9
_STEPS = 20  # halvings: the change is exact to one millionth
_TAIL = 1e-9  # probability of counts that are left out


def probability_found(test: BettingTest, parts: int, change: float, noise: float = 0.0) -> float:
    """Probability, at least, that a test has found a change when so many parts were judged.

    Exact for one look at the end; each look before it can only add to the probability.

    Args:
        test: the test.
        parts: that were judged.
        change: true mean of X.
        noise: paired: share of parts on which models that are equally good differ, half of them each way.
    """
    plus, minus = change + noise / 2, noise / 2 if test.paired else 0.0
    if plus + minus > 1:
        return 1.0
    fewest, most = binom.interval(1 - _TAIL, parts, minus) if minus else (0, 0)
    downs = np.arange(int(fewest), int(most) + 1)
    needed = _needed(test, parts, int(most))[downs]
    found = binom.sf(needed - 1, parts - downs, min(1.0, plus / (1 - minus))) * (needed + downs <= parts)
    return float(np.sum(binom.pmf(downs, parts, minus) * found))


@lru_cache(maxsize=256)
def smallest_change(test: BettingTest, parts: int, noise: float = 0.0) -> float | None:
    """The smallest true mean of X that a test finds within so many parts with a probability of at least 90 %.

    Args:
        test: the test.
        parts: that are judged.
        noise: see `probability_found`.

    Returns:
        A share; None when no change is found for certain enough in so few parts.
    """
    low, high = test.margin, 1.0 - noise
    if probability_found(test, parts, high, noise) < POWER:
        return None
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if probability_found(test, parts, middle, noise) < POWER:
            low = middle
        else:
            high = middle
    return high


@lru_cache(maxsize=64)
def _needed(test: BettingTest, parts: int, most: int) -> Any:
    """Parts with X = 1 from which on the test finds something, for 0..most parts with X = -1; int64 (most + 1,)."""
    downs = np.arange(most + 1)
    low, high = np.zeros_like(downs), np.full_like(downs, parts + 1)  # found at `high`, never below `low`
    while np.any(low < high):
        middle = (low + high) // 2
        found = (middle + downs > parts) | (
            test.log_e(np.minimum(middle, parts - downs), parts, downs) >= test.log_threshold
        )
        low, high = np.where(found, low, middle + 1), np.where(found, middle, high)
    return low
