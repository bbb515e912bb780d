"""Tests that may be looked at after every part, as often as one likes, by any number of devices.

A part gives X: for a pair of verdicts on the same image -1, 0 or 1 (what the challenger does and the champion does not,
minus the reverse), for a single verdict 0 or 1. The null hypothesis is that a model is within its margin m:
E[X | all parts before] <= m. A gambler who bets a share `l` of his money on X > m after each part has

    E_l = (1 + l (1 - m))^(parts with 1)  (1 - l m)^(parts with 0)  (1 - l (1 + m))^(parts with -1)

times his first money. Under the null hypothesis this is a non-negative supermartingale, so the chance that it ever
reaches 1/alpha is at most alpha, whenever and however often one looks, and whatever made one look. The bet is not known
beforehand, so E is the mean over a grid of bets, which is a supermartingale too. It depends on the counts alone: the
order of parts and devices does not matter, and nothing but counts must be kept.

Source: J. Ville, Étude critique de la notion de collectif (1939): the inequality. I. Waudby-Smith and A. Ramdas,
Estimating means of bounded random variables by betting, Journal of the Royal Statistical Society B 86 (2024): the
betting process for a bounded mean, and the mixture over bets.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp

_SHARES_OF_LARGEST_BET = np.geomspace(0.005, 0.95, 24)
"""From changes that take tens of thousands of parts to be seen, to those that a handful of parts shows."""


@dataclass(frozen=True)
class BettingTest:
    """A test of `E[X] <= margin`.

    Attributes:
        margin: largest mean that is within limits, in (0, 1).
        paired: whether X is in {-1, 0, 1}; otherwise it is in {0, 1}.
        alpha: probability, at most, that a mean within the margin is ever said to be beyond it.
    """

    margin: float
    paired: bool
    alpha: float

    @property
    def log_threshold(self) -> float:
        """Natural logarithm of the E at which the null hypothesis is given up."""
        return -math.log(self.alpha)

    def log_e(self, plus: Any, total: Any, minus: Any = 0) -> Any:
        """Natural logarithm of the gambler's money.

        Args:
            plus: parts with X = 1; a number or an array.
            total: parts.
            minus: parts with X = -1; 0 unless paired.

        Returns:
            float, or float64 of the shape that the arguments broadcast to.
        """
        bets = _SHARES_OF_LARGEST_BET / (1 + self.margin if self.paired else self.margin)
        ups, downs, all_parts = (np.asarray(count, dtype=np.float64)[..., None] for count in (plus, minus, total))
        money = ups * np.log1p(bets * (1 - self.margin)) + (all_parts - ups - downs) * np.log1p(-bets * self.margin)
        if self.paired:
            money = money + downs * np.log1p(-bets * (1 + self.margin))
        value = logsumexp(money, axis=-1) - math.log(len(bets))
        return float(value) if np.ndim(value) == 0 else value

    def finds(self, plus: int, total: int, minus: int = 0) -> bool:
        """Whether the mean is beyond the margin, with the declared error."""
        return bool(self.log_e(plus, total, minus) >= self.log_threshold)
