"""How far two sets of scores of the same images agree."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from inspection.decision.bounds import group_upper_bound, group_weights
from inspection.errors import ParityError
from inspection.settings import ExportSettings

RESAMPLES = 1000  # of the bootstrap


@dataclass(frozen=True)
class ParityReport:
    """How far one converted model agrees with the trained one. Scores are logits."""

    kind: str  # "int8" or "float32"
    passed: bool
    faults: tuple[str, ...]  # the limits that were broken, in words
    images: int  # compared, copies included
    sources: int  # different pictures among them
    groups: int  # parts or lots that these show: what is independent
    correlation: float  # Pearson, of the scores
    mean_difference: float  # converted - trained
    mean_abs_difference: float
    max_abs_difference: float
    auroc_trained: float
    auroc_converted: float
    auroc_loss: float  # trained - converted
    auroc_loss_interval: tuple[float, float]  # paired bootstrap over the groups, at `confidence`
    threshold: float  # the trained model's best: the largest true positive rate - false positive rate
    flips: int  # images on the other side of that threshold
    flip_rate: float
    flip_rate_upper: float  # one-sided bound at `confidence` on the share of a group's images; see `check_parity`
    confidence: float
    flipped: tuple[int, ...]  # their indices among the images compared, the largest difference first

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return dataclasses.asdict(self)

    def summary(self) -> str:
        """One line for a person."""
        low, high = self.auroc_loss_interval
        return (
            f"{self.kind} {'agrees' if self.passed else 'does NOT agree'} with the trained model on "
            f"{1 - self.flip_rate:.2%} of {self.images} images ({self.flips} flips; of further parts like these at "
            f"most {self.flip_rate_upper:.2%} at {self.confidence:.0%} confidence, counted by {self.groups} parts), "
            f"correlation {self.correlation:.4f}, AUROC loss {self.auroc_loss:.4f} [{low:.4f}, {high:.4f}]"
        )


def check_parity(
    trained_scores: np.ndarray,
    converted_scores: np.ndarray,
    is_bad: np.ndarray,
    settings: ExportSettings,
    kind: str,
    source_index: np.ndarray | None = None,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> ParityReport:
    """Compare the scores of a converted model with those of the trained one.

    The limits are on what was measured. The bound beside it says how far that can be generalised: it counts groups as
    the trials, each with the share of its images that flipped, since copies of one picture flip together. With a
    single image per group it is Clopper and Pearson's.

    Args:
        trained_scores: float64 [N], logits.
        converted_scores: float64 [N].
        is_bad: bool [N].
        settings: the limits.
        kind: of the converted model.
        source_index: int64 [N], the picture that each image is, or is a copy of. None: each is its own.
        seed: of the bootstrap.
        groups: part or lot of each source picture. None: each is its own.

    Raises:
        ParityError: one class only, so that nothing can be compared.
    """
    if is_bad.all() or not is_bad.any():
        raise ParityError(f"parity gate: want good and bad images, found {is_bad.sum()} bad of {len(is_bad)}")
    source_index = np.arange(len(is_bad)) if source_index is None else source_index
    group_index = source_index if groups is None else np.unique(groups, return_inverse=True)[1][source_index]
    difference = converted_scores - trained_scores
    threshold = best_threshold(trained_scores, is_bad)
    flipped = np.flatnonzero((trained_scores > threshold) != (converted_scores > threshold))
    flipped = flipped[np.argsort(-np.abs(difference[flipped]), kind="stable")]
    trained_auroc, converted_auroc = auroc(trained_scores, is_bad), auroc(converted_scores, is_bad)
    measured = {
        "correlation": _correlation(trained_scores, converted_scores),
        "auroc_loss": trained_auroc - converted_auroc,
        "flip_rate": len(flipped) / len(is_bad),
    }
    faults = _faults(measured, settings)
    return ParityReport(
        kind=kind,
        passed=not faults,
        faults=faults,
        images=len(is_bad),
        sources=len(np.unique(source_index)),
        groups=len(np.unique(group_index)),
        **measured,
        mean_difference=float(difference.mean()),
        mean_abs_difference=float(np.abs(difference).mean()),
        max_abs_difference=float(np.abs(difference).max()),
        auroc_trained=trained_auroc,
        auroc_converted=converted_auroc,
        auroc_loss_interval=_bootstrap(
            trained_scores, converted_scores, is_bad, group_index, settings.confidence, seed
        ),
        threshold=threshold,
        flips=len(flipped),
        flip_rate_upper=_upper_bound(flipped, group_index, settings.confidence),
        confidence=settings.confidence,
        flipped=tuple(int(index) for index in flipped),
    )


def best_threshold(scores: np.ndarray, is_bad: np.ndarray) -> float:
    """The score that separates best: largest (true positive rate - false positive rate).

    It lies half-way between two scores; of several equally good ones, in the widest gap.

    Source: Youden, Cancer 3 (1950).
    """
    values = np.unique(scores)
    if len(values) == 1:
        return float(values[0])
    bad, good = np.sort(scores[is_bad]), np.sort(scores[~is_bad])
    cuts = (values[:-1] + values[1:]) / 2
    caught = 1 - np.searchsorted(bad, cuts, side="right") / len(bad)
    false_alarms = 1 - np.searchsorted(good, cuts, side="right") / len(good)
    youden = caught - false_alarms
    best = np.flatnonzero(np.isclose(youden, youden.max(), rtol=0, atol=1e-12))
    return float(cuts[best[np.argmax(np.diff(values)[best])]])


def auroc(scores: np.ndarray, is_bad: np.ndarray) -> float:
    """Probability that a bad image scores above a good one; ties count half.

    Source: Mann and Whitney, Annals of Mathematical Statistics 18 (1947).
    """
    bad = int(is_bad.sum())
    good = len(is_bad) - bad
    return float((rankdata(scores)[is_bad].sum() - bad * (bad + 1) / 2) / (bad * good))


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's; 0 when either does not vary, since then nothing is told apart."""
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _upper_bound(flipped: np.ndarray, group: np.ndarray, confidence: float) -> float:
    """Bound on the share of a group's images that flip; `flipped` are indices of images, `group` is int64 [N]."""
    weights, groups = group_weights(group.tolist())
    events = math.ceil(weights[flipped].sum() - 1e-9)  # ten images of a tenth each are one event
    return group_upper_bound(events, groups, confidence, groups == len(group))


def _bootstrap(
    trained: np.ndarray, converted: np.ndarray, is_bad: np.ndarray, group: np.ndarray, confidence: float, seed: int
) -> tuple[float, float]:
    """Interval of the AUROC loss: groups are drawn with replacement, both models see the same.

    Groups that hold a bad image are drawn apart from those that hold none. A draw that has one class only, which
    groups of both classes can give, is left out.
    """
    generator = np.random.default_rng(seed)
    _, group = np.unique(group, return_inverse=True)
    holds_bad = np.zeros(group.max() + 1, bool)
    holds_bad[group[is_bad]] = True
    places = [np.unique(scores, return_inverse=True)[1] for scores in (trained, converted)]
    losses = []
    for _ in range(RESAMPLES):
        times = np.zeros(len(holds_bad))  # that each group was drawn
        for members in (np.flatnonzero(holds_bad), np.flatnonzero(~holds_bad)):
            if len(members):
                drawn = members[generator.integers(0, len(members), len(members))]
                times += np.bincount(drawn, minlength=len(times))
        weights = times[group]
        if weights[is_bad].any() and weights[~is_bad].any():
            losses.append(_weighted_auroc(places[0], is_bad, weights) - _weighted_auroc(places[1], is_bad, weights))
    low, high = np.quantile(losses, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _weighted_auroc(place: np.ndarray, is_bad: np.ndarray, weights: np.ndarray) -> float:
    """`auroc` of images that count `weights` times; `place` is the rank of their score among the different ones."""
    bad = np.bincount(place, weights=weights * is_bad)
    good = np.bincount(place, weights=weights * ~is_bad)
    below = np.cumsum(good) - good
    return float((bad * (below + good / 2)).sum() / (bad.sum() * good.sum()))


def _faults(measured: dict[str, float], settings: ExportSettings) -> tuple[str, ...]:
    faults = []
    if measured["correlation"] < settings.min_correlation:
        faults.append(f"correlation {measured['correlation']:.4f}, want >= {settings.min_correlation}")
    if measured["auroc_loss"] > settings.max_auroc_loss:
        faults.append(f"AUROC loss {measured['auroc_loss']:.4f}, want <= {settings.max_auroc_loss}")
    if measured["flip_rate"] > settings.max_flip_rate:
        faults.append(f"flips {measured['flip_rate']:.2%}, want <= {settings.max_flip_rate:.2%}")
    return tuple(faults)
