"""How far live pictures and scores have moved from those of calibration."""

from collections.abc import Sequence

import numpy as np


def drift_distance(values: np.ndarray, quantiles: Sequence[float]) -> float:
    """Kolmogorov and Smirnov's distance to a distribution of which only quantiles are known.

    The largest difference between the share of live values up to a quantile and the share that lay up to it in
    calibration: 0 when they agree at every quantile, 1 when all values lie beyond the reference. Where several
    quantiles are equal the reference jumps, and only a share outside the jump counts. Without drift the distance of n
    values stays below 1.36 / sqrt(n) in 95 % of samples (0.043 for 1,000).

    Chosen over the population stability index because it needs no invented counts for empty classes and, at this
    number of values, is not above the usual alarm limits by chance alone.

    Args:
        values: float, shape (N,), N > 0.
        quantiles: at equal steps from 0 to 100 %, rising.

    Source: F. J. Massey, "The Kolmogorov-Smirnov test for goodness of fit", 1951.
    """
    ordered = np.sort(values)
    reference = np.asarray(quantiles, dtype=np.float64)
    shares = np.linspace(0, 1, len(reference))
    up_to = np.searchsorted(ordered, reference, "right") / len(ordered)  # share of values <= quantile
    below = np.searchsorted(ordered, reference, "left") / len(ordered)  # share of values < quantile
    at_least = shares[np.searchsorted(reference, reference, "right") - 1]  # reference share <= quantile
    at_most = shares[np.searchsorted(reference, reference, "left")]  # reference share < quantile
    return float(max((at_least - up_to).max(), (below - at_most).max(), 0.0))
