"""What pictures look like: the input guard learnt from training, and the reference that drift is measured against."""

from collections.abc import Iterable, Sequence

import numpy as np

from edge.contract import DriftReference, InputGuard, Range
from edge.statistics import image_statistics
from inspection.errors import PackageError

FULL_SCALE = 255.0  # of all three statistics
LEAST_SHARE = 0.25  # the guard never goes below this share of the smallest value seen: a covered lens is always caught
ASPECT_TOLERANCE = 0.02  # relative; a driver's crop by a few pixels is no other product
QUANTILES = np.linspace(0, 1, 11)  # of `DriftReference`


def measure(batches: Iterable[np.ndarray]) -> np.ndarray:
    """Statistics of many pictures.

    Args:
        batches: uint8 [n, H, W, 3] each, the model's input.

    Returns:
        float64 [N, 3]: brightness, contrast, sharpness.
    """
    rows = []
    for batch in batches:
        for index in range(len(batch)):
            found = image_statistics(np.ascontiguousarray(batch[index : index + 1]))
            rows.append((found.brightness, found.contrast, found.sharpness))
    return np.array(rows).reshape(-1, 3)


def learn_guard(statistics: np.ndarray, sizes: Sequence[tuple[int, int]], margin: float) -> InputGuard:
    """Learn what a picture must look like for its score to be trusted.

    Args:
        statistics: float64 [N, 3] of the training pictures, from `measure`.
        sizes: (width, height) in px of the training pictures, before resizing.
        margin: how far outside the range seen a picture may lie, in ranges.

    Raises:
        PackageError: there are no pictures to learn from.
    """
    if len(statistics) == 0 or len(sizes) == 0:
        raise PackageError("input guard: want the training pictures' statistics and sizes, found none")
    brightness, contrast, sharpness = (_widen(column, margin) for column in statistics.T)
    widths, heights = np.array(sizes, dtype=float).T
    ratios = widths / heights
    spread = margin * (ratios.max() - ratios.min())
    return InputGuard(
        brightness=brightness,
        contrast=contrast,
        sharpness=sharpness,
        aspect_ratio=Range(
            low=float(max(ratios.min() - spread, LEAST_SHARE * ratios.min()) * (1 - ASPECT_TOLERANCE)),
            high=float((ratios.max() + spread) * (1 + ASPECT_TOLERANCE)),
        ),
        min_width=max(1, int(widths.min() / (1 + margin))),
        min_height=max(1, int(heights.min() / (1 + margin))),
    )


def drift_reference(statistics: np.ndarray, scores: np.ndarray) -> DriftReference:
    """Quantiles of the calibration pictures, to compare live ones with.

    Args:
        statistics: float64 [N, 3] of the calibration pictures, from `measure`.
        scores: float64 [N], logits that the artifact gave them.

    Raises:
        PackageError: there are no pictures.
    """
    if len(statistics) == 0 or len(scores) == 0:
        raise PackageError("drift reference: want the calibration pictures' statistics and scores, found none")
    brightness, contrast, sharpness = (_quantiles(column) for column in statistics.T)
    return DriftReference(score=_quantiles(scores), brightness=brightness, contrast=contrast, sharpness=sharpness)


def _widen(values: np.ndarray, margin: float) -> Range:
    low, high = float(values.min()), float(values.max())
    return Range(
        low=max(low - margin * (high - low), LEAST_SHARE * low), high=min(high + margin * (high - low), FULL_SCALE)
    )


def _quantiles(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in np.quantile(values, QUANTILES))
