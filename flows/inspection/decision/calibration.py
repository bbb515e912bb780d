"""From score to probability: one temperature, fitted on the calibration split."""

import math

import numpy as np
from scipy import optimize
from scipy.special import expit

from edge.contract import Calibration
from inspection.errors import DataError

STEEPEST = 100.0  # bounds of 1 / temperature, times the scores' root mean square
FLATTEST = 0.01


def check_scores(scores: np.ndarray, is_bad: np.ndarray, what: str) -> None:
    """Refuse scores that no decision can rest on.

    Args:
        scores: float [N].
        is_bad: bool [N].
        what: which images these are, for messages.

    Raises:
        DataError: lengths differ, a score is not a finite number, or one class is missing.
    """
    if scores.ndim != 1 or scores.shape != is_bad.shape:
        raise DataError(f"{what}: want one score and one label per image, found {scores.shape} and {is_bad.shape}")
    broken = np.flatnonzero(~np.isfinite(scores))
    if len(broken):
        raise DataError(
            f"{what}: want finite scores, found {len(broken)} of {len(scores)} that are not "
            f"(first: image {broken[0]}, {scores[broken[0]]}); the model or its conversion is broken, "
            "look at the training curves and the parity report"
        )
    bad = int(np.count_nonzero(is_bad))
    if bad == 0 or bad == len(scores):
        raise DataError(
            f"{what}: want good and bad images, found {len(scores) - bad} good and {bad} bad; "
            "add images of the missing class"
        )


def fit_calibration(scores: np.ndarray, is_bad: np.ndarray) -> Calibration:
    """Fit p(bad) = sigmoid(score / temperature) by maximum likelihood.

    Perfectly separated scores would drive the temperature to 0 and the probabilities to certainty that a few dozen
    images cannot give. As in Platt's method the labels are therefore softened by one image's worth per class, and
    the steepness is bounded to 0.01..100 over the scores' root mean square. Scores that say nothing, or the
    opposite, end at the flat bound: probabilities near a half.

    Args:
        scores: float [N], logits of the calibration split.
        is_bad: bool [N].

    Raises:
        DataError: a score is not finite, or one class is missing.

    Source: Platt (1999), "Probabilistic outputs for support vector machines"; Guo et al. (2017), "On calibration of
        modern neural networks".
    """
    scores = np.asarray(scores, dtype=np.float64)
    is_bad = np.asarray(is_bad, dtype=bool)
    check_scores(scores, is_bad, "calibration split")
    bad = int(np.count_nonzero(is_bad))
    good = len(scores) - bad
    prevalence = bad / len(scores)
    spread = math.sqrt(float(np.mean(scores**2)))
    if spread == 0.0:
        return Calibration(temperature=1.0, prevalence=prevalence)
    scaled = scores / spread
    targets = np.where(is_bad, (bad + 1) / (bad + 2), 1 / (good + 2))

    def slope(steepness: float) -> float:
        """Derivative of the negative log likelihood, which never falls with the steepness."""
        return float(np.sum(scaled * (expit(steepness * scaled) - targets)))

    if slope(FLATTEST) >= 0:
        steepness = FLATTEST
    elif slope(STEEPEST) <= 0:
        steepness = STEEPEST
    else:
        steepness = float(optimize.brentq(slope, FLATTEST, STEEPEST))
    return Calibration(temperature=spread / steepness, prevalence=prevalence)


def probability(scores: np.ndarray, calibration: Calibration) -> np.ndarray:
    """p(bad) of each score, at the calibration set's prevalence; float64 [N] in 0..1."""
    return np.asarray(expit(np.asarray(scores, dtype=np.float64) / calibration.temperature))
